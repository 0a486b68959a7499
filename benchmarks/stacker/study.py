"""The members, one fit of them together, and a table of what stacking gains."""

from __future__ import annotations

import time
from importlib.metadata import version

import numpy as np
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.data import load_split
from benchmarks.scores import regression_scores
from sklearn_probmix import DistributionStackingRegressor, ProbMixupRegressor
from sklearn_probmix.forecasts import log_scores

__all__ = ["fit_stack", "jobs", "members_of", "report"]

STACK = "stack"
# Of a member by its title, what it is and what says which version it is.
PACKAGES = {"nets": "sklearn-probmix", "forest": "quantile-forest", "boosting": "ngboost"}
# Rows from which a Gaussian process is left out.
MANY_ROWS = 2000
SCORES = {"log_score": "log score", "crps": "CRPS"}


def members_of(random_state, n_rows, n_features):
    """Make the members for a table of so many rows.

    Parameters
    ----------
    random_state : int
    n_rows, n_features : int

    Returns
    -------
    list of (str, regressor)
    """
    from ngboost import NGBRegressor
    from ngboost.learners import default_tree_learner
    from quantile_forest import RandomForestQuantileRegressor

    # Its trees break ties by numpy's global state unless they are told otherwise.
    tree = clone(default_tree_learner).set_params(random_state=random_state)
    boosting = NGBRegressor(
        Base=tree,
        n_estimators=2000,
        validation_fraction=0.2,
        early_stopping_rounds=50,
        random_state=random_state,
        verbose=False,
    )
    forest = RandomForestQuantileRegressor(n_estimators=500, random_state=random_state, n_jobs=1)
    members = [
        ("nets", ProbMixupRegressor(random_state=random_state)),
        ("forest", forest),
        ("boosting", boosting),
    ]
    if n_rows < MANY_ROWS:
        kernel = ConstantKernel() * RBF(np.ones(n_features)) + WhiteKernel()
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=random_state)
        members.append(("process", make_pipeline(StandardScaler(), process)))
    return members


def jobs(datasets, splits):
    """List the fits, breadth first; their versions are part of what they are.

    Parameters
    ----------
    datasets : sequence of str
    splits : sequence of int

    Returns
    -------
    list of dict
    """
    versions = {name: version(package) for name, package in PACKAGES.items()}
    return [
        {"dataset": dataset, "split": split, "folds": 5, "versions": versions}
        for split in splits
        for dataset in datasets
    ]


def fit_stack(root, settings):
    """Fit a stack to one split of a table, and score it and each of its members."""
    X, X_test, y, y_test = load_split(root, settings["dataset"], settings["split"])
    members = members_of(settings["split"], *X.shape)
    est = DistributionStackingRegressor(
        members, cv=settings["folds"], random_state=settings["split"]
    )
    with threadpool_limits(1):
        start = time.process_time()
        est.fit(X, y)
        fitted = time.process_time()
        dists = {STACK: est.predict_proba(X_test)} | est.member_proba(X_test)
    oof = {STACK: log_scores(est.oof_predictive_, y[est.oof_rows_], est.width_).mean()}
    scores = {"fit_seconds": fitted - start, "width": est.width_}
    for name, dist in dists.items():
        own = regression_scores(y_test, dist)
        own["log_score"] = log_scores(dist, y_test, est.width_).mean()
        own["oof_log_score"] = (oof | est.member_scores_)[name]
        scores |= {f"{name}_{key}": float(value) for key, value in own.items()}
    weights = zip(est.member_scores_, est.weights_, strict=True)
    return scores | {f"{name}_weight": float(weight) for name, weight in weights}


def report(results):
    """Render what stacking gains over its members, means over splits.

    Parameters
    ----------
    results : dict
        As `read_results` gives them.

    Returns
    -------
    str
        Markdown: for each table and score the stack, the member that out-of-fold rows say is best,
        and the one that test rows say is best, which nobody knows beforehand.
    """
    lines = [
        "| table | splits | score | stack | best out of fold | best on the test rows | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    found = [line for line in results.values() if "scores" in line]
    for dataset in dict.fromkeys(line["settings"]["dataset"] for line in found):
        fits = [line["scores"] for line in found if line["settings"]["dataset"] == dataset]
        for score, title in SCORES.items():
            rows = np.array([_compare(fit, score) for fit in fits])
            mean = " | ".join(f"{value:.4g}" for value in rows.mean(axis=0))
            weights = ", ".join(
                f"{name} {np.mean([fit[f'{name}_weight'] for fit in fits]):.2f}"
                for name in _members(fits[0])
            )
            lines.append(f"| {dataset} | {len(fits)} | {title} | {mean} | {weights} |")
    return "\n".join(lines)


def _members(fit):
    return [key.removesuffix("_weight") for key in fit if key.endswith("_weight")]


def _compare(fit, score):
    """Return the score of the stack, of the member chosen out of fold, and of the best."""
    members = _members(fit)
    chosen = max(members, key=lambda name: fit[f"{name}_oof_log_score"])
    best = max if score == "log_score" else min
    every = [fit[f"{name}_{score}"] for name in members]
    return fit[f"{STACK}_{score}"], fit[f"{chosen}_{score}"], best(every)
