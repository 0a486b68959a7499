"""One fit of the paper's experiments and its scores, from the settings of the fit."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
from sklearn.metrics import brier_score_loss

from benchmarks.data import load_stock_windows, load_uci_split
from benchmarks.flat import arguments
from benchmarks.paper.sequence_modules import make_net
from benchmarks.paper.settings import N_TOY_TEST, ONE_NETWORK
from benchmarks.scores import regression_scores
from sklearn_probmix import (
    ProbMixupClassifier,
    ProbMixupRegressor,
    fit_together,
    modules,
    regressor,
)
from sklearn_probmix.datasets import make_cubic, make_rings
from sklearn_probmix.metrics import expected_calibration_error

__all__ = [
    "fit_stock",
    "fit_toy_classification",
    "fit_toy_regression",
    "fit_uci",
    "make_estimator",
]


def make_estimator(make, settings, **more):
    """Return the unfitted estimator of one fit; the only place where one is constructed.

    Parameters
    ----------
    make : type
        ProbMixupRegressor or ProbMixupClassifier.
    settings : dict
        With "estimator"; the seed is "split" or "run", plus "seed_shift" if there is one.
    **more
        Arguments that are not part of the settings.

    Returns
    -------
    estimator
    """
    seed = settings.get("split", settings.get("run")) + settings.get("seed_shift", 0)
    return make(**arguments(ONE_NETWORK | settings["estimator"]), random_state=seed, **more)


def fit_alike(make, settings, tables):
    """Fit estimators that differ in their rows only, in one pass where that is quicker.

    Parameters
    ----------
    make : type
        ProbMixupRegressor or ProbMixupClassifier.
    settings : list of dict
        With equal "estimator".
    tables : list of (X, y)

    Returns
    -------
    list of estimators
    """
    estimators = [make_estimator(make, one) for one in settings]
    if len(estimators) == 1 or estimators[0].validation is None:
        return [est.fit(*table) for est, table in zip(estimators, tables, strict=True)]
    return fit_together(estimators, tables)


def fit_uci(root, settings):
    """Fit and score splits of a UCI table."""
    folder = Path(root, "uci", settings[0]["dataset"])
    splits = [load_uci_split(folder, one["split"]) for one in settings]
    tables = [(X, y) for X, _, y, _ in splits]
    return [
        regression_scores(y_test, est.predict_proba(X_test)) | training_scores(est)
        for est, (_, X_test, _, y_test) in zip(
            fit_alike(ProbMixupRegressor, settings, tables), splits, strict=True
        )
    ]


def training_scores(est):
    """Return the epochs run and, with held-out rows, the kept one's NLL, in the units of y."""
    scores = {"n_epochs": len(est.history_)}
    log_scale = 0.0
    if isinstance(est, ProbMixupRegressor):
        log_scale = scores["log_scale"] = float(np.log(float(est.y_scale_[0])))
    if est.validation is not None:
        losses = [epoch["valid_loss"] for epoch in est.history_]
        best = int(np.argmin(losses))
        scores |= {"best_epoch": best + 1, "valid_nll": float(losses[best] + log_scale)}
    return scores


def fit_toy_regression(settings):
    """Fit draws of the cubic; score inside (-4, 4) and outside, in (4, 6)."""
    runs = [one.get("rows", one["run"]) for one in settings]
    tables = [make_cubic(settings[0].get("n_rows", 100), random_state=run) for run in runs]
    spread = settings[0].get("initial_spread", modules._INITIAL_SPREAD)
    with patch.object(modules, "_INITIAL_SPREAD", spread):
        fitted = fit_alike(ProbMixupRegressor, settings, tables)
    n_kept, n_groups = regressor._COMPONENTS
    delivered = settings[0].get("n_delivered", n_kept), n_groups
    with patch.object(regressor, "_COMPONENTS", delivered):
        return [toy_regression_scores(est, run) for est, run in zip(fitted, runs, strict=True)]


def toy_regression_scores(est, run):
    """Score one fit on new rows inside and outside of the training range."""
    scores = training_scores(est)
    for where, (low, high) in {"in": (-4, 4), "out": (4, 6)}.items():
        X_test, y_test = make_cubic(N_TOY_TEST, low=low, high=high, random_state=10_000 + run)
        found = regression_scores(y_test, est.predict_proba(X_test))
        # The paper's NLL is that of standardised y.
        found["nll_standardised"] = found["nll"] - scores["log_scale"]
        found["mse"] = found.pop("rmse") ** 2
        scores |= {f"{name}_{where}": value for name, value in found.items()}
    return scores


def fit_toy_classification(settings):
    """Fit and score draws of the three rings."""
    runs = [one["run"] for one in settings]
    tables = [make_rings(random_state=run) for run in runs]
    fitted = fit_alike(ProbMixupClassifier, settings, tables)
    return [toy_classification_scores(est, run) for est, run in zip(fitted, runs, strict=True)]


def toy_classification_scores(est, run):
    """Score one fit on new rows."""
    X_test, y_test = make_rings(N_TOY_TEST, random_state=10_000 + run)
    proba = est.predict_proba(X_test)
    p_of_label = np.take_along_axis(proba, np.searchsorted(est.classes_, y_test)[:, None], axis=1)
    return {
        "accuracy": float(np.mean(est.classes_[proba.argmax(axis=1)] == y_test)),
        "nll": float(-np.log(np.maximum(p_of_label, np.finfo(float).tiny)).mean()),
        "brier": brier_score_loss(y_test, proba, labels=est.classes_),
        "calibration_error": expected_calibration_error(y_test, proba, labels=est.classes_),
    } | training_scores(est)


def fit_stock(root, settings):
    """Fit the earlier 80 % of a stock's windows, score the later 20 %."""
    X, y = load_stock_windows(Path(root, "stocks", f"{settings['stock']}.csv"))
    n_train = int(0.8 * len(y))
    net = make_net(settings["module"], settings["estimator"]["method"], **settings["net"])
    est = make_estimator(ProbMixupRegressor, settings, net=net).fit(X[:n_train], y[:n_train])
    scores = regression_scores(y[n_train:], est.predict_proba(X[n_train:])) | training_scores(est)
    return scores | {"nll_standardised": scores["nll"] - scores["log_scale"]}
