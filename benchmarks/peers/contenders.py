"""Our defaults beside what users have elsewhere, on the same splits in the same run.

``python -m benchmarks.peers {regression,aside,classification,tables}``

Every finished fit is one line of ``benchmarks/results/peers-<task>.jsonl``, with the version and
the parameters of the peer; a command that is called again runs what is missing, and so runs ours
anew after its defaults have changed. ``tables`` writes ``benchmarks/PEERS_RESULTS.md``. The peers
are installed by the extra ``benchmarks``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from scipy.special import expit, logsumexp
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_moons,
)
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks._runs import RESULTS, read_results, run_missing
from benchmarks.paper_settings import LARGE_SETS, N_SPLITS, SMALL_SETS, UCI
from sklearn_probmix import PredictiveDistribution, ProbMixupClassifier, ProbMixupRegressor
from sklearn_probmix.calibration import stacking_weights
from sklearn_probmix.datasets import load_uci_split, make_rings
from sklearn_probmix.metrics import (
    brier_score,
    coverage,
    crps,
    expected_calibration_error,
    interval_width,
    nll,
)
from sklearn_probmix.training import AUTO_SIZES

__all__ = ["CLASSIFICATION", "OURS", "REGRESSION", "TABLES", "jobs", "main"]

OURS = "ours"
LEVEL = 0.9
N_CLASSIFICATION_SPLITS = 10
N_ASIDE_SPLITS = 5
N_GENERATED_TEST = 2000
# Rows of the training part beyond which a table counts as large.
N_LARGE = 2000
# Trees that are grown until a fifth of the training rows says stop.
STOPPING = {"validation_fraction": 0.2, "early_stopping_rounds": 50}
CATBOOST_QUIETLY = {"thread_count": 1, "allow_writing_files": False, "verbose": False}


class NGBoost:
    """Natural gradient boosting of a Normal, predicted by the trees up to the best iteration."""

    def __init__(self, random_state, *, n_estimators, validation_fraction, early_stopping_rounds):
        from ngboost import NGBRegressor
        from ngboost.learners import default_tree_learner

        # Its trees break ties by numpy's global state unless they are told otherwise.
        tree = clone(default_tree_learner).set_params(random_state=random_state)
        self.model = NGBRegressor(
            Base=tree, n_estimators=n_estimators, random_state=random_state, verbose=False
        )
        self.hold_out = {"test_size": validation_fraction, "random_state": random_state}
        self.early_stopping_rounds = early_stopping_rounds

    def fit(self, X, y):
        X, X_valid, y, y_valid = train_test_split(X, y, **self.hold_out)
        self.model.fit(X, y, X_valid, y_valid, early_stopping_rounds=self.early_stopping_rounds)
        return self

    def predict_proba(self, X):
        # The iteration counts from 0. Without max_iter all trees speak, those after the best too.
        n_trees = self.model.best_val_loss_itr + 1
        return _normal(**self.model.pred_dist(X, max_iter=n_trees).params)


class CatBoost:
    """Boosting of mean and variance."""

    def __init__(self, random_state, *, iterations, validation_fraction, early_stopping_rounds):
        from catboost import CatBoostRegressor

        self.model = CatBoostRegressor(
            loss_function="RMSEWithUncertainty",
            iterations=iterations,
            early_stopping_rounds=early_stopping_rounds,
            random_seed=random_state,
            **CATBOOST_QUIETLY,
        )
        self.hold_out = {"test_size": validation_fraction, "random_state": random_state}

    def fit(self, X, y):
        X, X_valid, y, y_valid = train_test_split(X, y, **self.hold_out)
        self.model.fit(X, y, eval_set=(X_valid, y_valid))
        return self

    def predict_proba(self, X):
        mean, variance = self.model.predict(X, thread_count=1).T
        return _normal(mean, np.sqrt(variance))


class GaussianProcess:
    """Exact Gaussian process with a length scale for every column, on standardised X and y."""

    def __init__(self, random_state):
        self.random_state = random_state

    def fit(self, X, y):
        kernel = ConstantKernel() * RBF(np.ones(X.shape[1])) + WhiteKernel()
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=self.random_state)
        self.model = make_pipeline(StandardScaler(), process).fit(X, y)
        return self

    def predict_proba(self, X):
        return _normal(*self.model.predict(X, return_std=True))


class DeepEnsemble:
    """Uniform mixture of networks that differ in initialisation and batches.

    "Simple and scalable predictive uncertainty estimation using deep ensembles" (2017), without its
    adversarial training. All members are one batched network; the sum of their losses keeps their
    gradients apart.
    """

    def __init__(self, random_state, *, n_members, n_hidden, lr, batch_size, min_epochs, min_steps):
        self.random_state = random_state
        self.n_members = n_members
        self.n_hidden = n_hidden
        self.lr = lr
        self.batch_size = batch_size
        self.min_epochs = min_epochs
        self.min_steps = min_steps

    def fit(self, X, y):
        self.scaler = StandardScaler().fit(X)
        self.shift, self.scale = y.mean(), y.std()
        X = torch.tensor(self.scaler.transform(X), dtype=torch.float32)
        y = torch.tensor((y - self.shift) / self.scale, dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.random_state)
        self.layers = [
            self._layer(X.shape[1], self.n_hidden, generator),
            self._layer(self.n_hidden, 2, generator),
        ]
        weights = [weight for layer in self.layers for weight in layer]
        optimizer = torch.optim.Adam(weights, lr=self.lr, fused=True)
        steps_per_epoch = -(-len(y) // self.batch_size)
        n_epochs = max(self.min_epochs, -(-self.min_steps // steps_per_epoch))
        for _ in range(n_epochs):
            order = torch.rand(self.n_members, len(y), generator=generator).argsort(dim=1)
            for batch in order.split(self.batch_size, dim=1):
                mean, variance = self._forward(X[batch])
                losses = variance.log() + (y[batch] - mean).square() / variance
                optimizer.zero_grad()
                losses.mean(dim=1).sum().backward()
                optimizer.step()
        return self

    def predict_proba(self, X):
        X = torch.tensor(self.scaler.transform(X), dtype=torch.float32)
        with torch.no_grad():
            mean, variance = self._forward(X.expand(self.n_members, -1, -1))
        loc = self.shift + self.scale * mean.T.double().numpy()
        scale = self.scale * variance.T.double().sqrt().numpy()
        return PredictiveDistribution("norm", {"loc": loc, "scale": scale})

    def _layer(self, n_in, n_out, generator):
        """Weights and biases of one layer of all members, drawn as torch.nn.Linear does."""
        shapes = [(self.n_members, n_in, n_out), (self.n_members, 1, n_out)]
        bound = n_in**-0.5
        return [
            torch.empty(shape).uniform_(-bound, bound, generator=generator).requires_grad_()
            for shape in shapes
        ]

    def _forward(self, X):
        """Means and variances (members, rows) at X (members, rows, features)."""
        (weight, bias), (out_weight, out_bias) = self.layers
        hidden = torch.baddbmm(bias, X, weight).relu()
        mean, spread = torch.baddbmm(out_bias, hidden, out_weight).unbind(-1)
        return mean, torch.nn.functional.softplus(spread) + 1e-6


class QuantileForest:
    """Quantile regression forest: `predict_proba` has the quantiles at levels (k + 1/2) / n."""

    def __init__(self, random_state, *, n_estimators, n_quantiles):
        from quantile_forest import RandomForestQuantileRegressor

        self.model = RandomForestQuantileRegressor(
            n_estimators=n_estimators, random_state=random_state, n_jobs=1
        )
        self.n_quantiles = n_quantiles

    def fit(self, X, y):
        self.smallest_scale = 0.01 * y.std()
        self.model.fit(X, y)
        return self

    def predict_proba(self, X):
        levels = (np.arange(self.n_quantiles) + 0.5) / self.n_quantiles
        interval = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        found = self.model.predict(X, quantiles=[*levels, *interval]).T
        return QuantileForecast(levels, found[:-2], *found[-2:], self.smallest_scale)


@dataclass(frozen=True)
class QuantileForecast:
    """Quantiles in the place of a distribution."""

    levels: np.ndarray
    quantiles: np.ndarray
    """(levels, rows)"""
    low: np.ndarray
    high: np.ndarray
    smallest_scale: float

    def __getitem__(self, rows):
        return replace(
            self, quantiles=self.quantiles[:, rows], low=self.low[rows], high=self.high[rows]
        )

    def scores(self, y):
        """Score the quantiles; see `regression_scores`.

        The CRPS is that of equal masses at the quantiles: twice the mean pinball loss. Quantiles
        have no density: the NLL is that of the Normal of their mean and standard deviation, the
        latter at least `smallest_scale`, and "crps_normal" the CRPS of the same Normal. Densities
        drawn through the quantiles would be rewarded without bound where y is rounded.
        """
        mean, sd = self.quantiles.mean(axis=0), self.quantiles.std(axis=0)
        normal = _normal(mean, np.maximum(sd, self.smallest_scale))
        error = y - self.quantiles
        q = self.levels[:, None]
        return {
            "nll": nll(y, normal),
            "crps": float(2 * np.maximum(q * error, (q - 1) * error).mean()),
            "crps_normal": crps(y, normal),
            "rmse": _rmse(y, mean),
            "coverage": float(np.mean((self.low <= y) & (y <= self.high))),
            "width": float(np.mean(self.high - self.low)),
        }


class Peer(NamedTuple):
    """A contender: ``make(random_state=..., **parameters)`` has fit and predict_proba."""

    title: str
    package: str
    make: Callable
    parameters: dict
    about: str
    large: bool = True
    """Whether it is run on large tables."""


def _defaults(cls):
    """Return the parameters of an estimator of ours that users get who name none."""
    est = cls()
    parameters = est.get_params(deep=False)
    del parameters["random_state"]
    if parameters["method"] == "auto":
        parameters["auto"] = list(est._auto_kinds)
    return parameters | {"auto_sizes": AUTO_SIZES}


def _ours(cls, about):
    # The parameters are kept for the record: what is fitted has none.
    return Peer(
        "ours",
        "sklearn-probmix",
        lambda random_state, **_: cls(random_state=random_state),
        _defaults(cls),
        about,
    )


REGRESSION = {
    "ngboost": Peer(
        "NGBoost",
        "ngboost",
        NGBoost,
        {"n_estimators": 2000, **STOPPING},
        "Normal, predicted by the trees up to the best iteration on the held-out rows",
    ),
    "catboost": Peer(
        "CatBoost", "catboost", CatBoost, {"iterations": 5000, **STOPPING}, "RMSEWithUncertainty"
    ),
    "gp": Peer(
        "Gaussian process",
        "scikit-learn",
        GaussianProcess,
        {},
        "constant · RBF (a length scale for every column) + white noise, X and y standardised; "
        "only below 2,000 rows",
        large=False,
    ),
    "deep-ensemble": Peer(
        "deep ensemble",
        "torch",
        DeepEnsemble,
        {
            "n_members": 5,
            "n_hidden": 50,
            "lr": 0.01,
            "batch_size": 100,
            "min_epochs": 40,
            "min_steps": 4000,
        },
        "one hidden layer of ReLU, Adam, X and y standardised, uniform mixture of Normals; trains "
        "on all rows; the published adversarial training is left out, its lr is .1 and its epochs "
        "are 40",
    ),
    "erm": Peer(
        "ERM net",
        "sklearn-probmix",
        ProbMixupRegressor,
        {
            **UCI,
            "method": "erm",
            "n_members": 1,
            "validation": "holdout",
            "calibration": "off",
            "monitor": "nll",
            "activation": "relu",
            "dropout": 0.0,
            "variance_weighting": 0.0,
            "lr_schedule": "constant",
            "batch_size": 100,
        },
        "one network without mixing in the setting of the paper",
    ),
    "quantile-forest": Peer(
        "quantile forest",
        "quantile-forest",
        QuantileForest,
        {"n_estimators": 500, "n_quantiles": 100},
        "CRPS is twice the mean pinball loss of 100 quantiles; NLL, which quantiles do not have, "
        "is approximated by the Normal of their mean and standard deviation (at least .01 sd of y)",
    ),
    OURS: _ours(ProbMixupRegressor, "`ProbMixupRegressor(random_state=split)`"),
}


class CatBoostLogLoss:
    """Boosting of class probabilities."""

    def __init__(self, random_state, *, iterations, validation_fraction, early_stopping_rounds):
        from catboost import CatBoostClassifier

        self.model = CatBoostClassifier(
            iterations=iterations,
            early_stopping_rounds=early_stopping_rounds,
            random_seed=random_state,
            **CATBOOST_QUIETLY,
        )
        self.hold_out = {"test_size": validation_fraction, "random_state": random_state}

    def fit(self, X, y):
        X, X_valid, y, y_valid = train_test_split(X, y, stratify=y, **self.hold_out)
        self.model.fit(X, y, eval_set=(X_valid, y_valid))
        return self

    def predict_proba(self, X):
        return self.model.predict_proba(X, thread_count=1)


def _calibrated(cls, random_state, *, calibration, folds, **parameters):
    est = cls(random_state=random_state, **parameters)
    return CalibratedClassifierCV(est, method=calibration, cv=folds)


def _scaled(cls, random_state, **parameters):
    return make_pipeline(StandardScaler(), cls(random_state=random_state, **parameters))


CALIBRATED = {"calibration": "sigmoid", "folds": 5}
CLASSIFICATION = {
    "hist-gradient-boosting": Peer(
        "boosting, calibrated",
        "scikit-learn",
        partial(_calibrated, HistGradientBoostingClassifier),
        CALIBRATED,
        "HistGradientBoostingClassifier in CalibratedClassifierCV",
    ),
    "random-forest": Peer(
        "forest, calibrated",
        "scikit-learn",
        partial(_calibrated, RandomForestClassifier),
        {"n_estimators": 300, **CALIBRATED},
        "RandomForestClassifier in CalibratedClassifierCV",
    ),
    "catboost": Peer(
        "CatBoost", "catboost", CatBoostLogLoss, {"iterations": 5000, **STOPPING}, "log loss"
    ),
    "mlp": Peer(
        "MLP",
        "scikit-learn",
        partial(_scaled, MLPClassifier),
        {"max_iter": 1000},
        "MLPClassifier on standardised X",
    ),
    "logistic-regression": Peer(
        "logistic regression",
        "scikit-learn",
        partial(_scaled, LogisticRegression),
        {"max_iter": 1000},
        "on standardised X",
    ),
    OURS: _ours(ProbMixupClassifier, "`ProbMixupClassifier(random_state=split)`"),
}
PEERS = {"regression": REGRESSION, "aside": REGRESSION, "classification": CLASSIFICATION}


class Table(NamedTuple):
    """A classification table: one of scikit-learn's, or a law from which rows are drawn."""

    about: str
    load: Callable | None = None
    make: Callable | None = None
    """Of (n_samples, random_state)."""
    n_train: int | None = None

    def split(self, split):
        """Return X, X_test, y, y_test: a stratified tenth, or 2,000 new rows, to test on."""
        if self.load is not None:
            X, y = self.load(return_X_y=True)
            return train_test_split(X, y, test_size=0.1, stratify=y, random_state=split)
        X, y = self.make(self.n_train + N_GENERATED_TEST, random_state=split)
        return train_test_split(X, y, train_size=self.n_train, stratify=y, random_state=split)


def _flipped(n_samples, random_state):
    return make_classification(
        n_samples, n_features=10, n_informative=5, flip_y=0.2, random_state=random_state
    )


_moons = partial(make_moons, noise=0.35)
_FLIPPED = "make_classification, 10 columns, 5 informative, a fifth of the labels drawn anew"
_MOONS = "make_moons, noise .35"
_RINGS = "the paper's three rings"
TABLES = {
    "breast-cancer": Table("569 × 30, 2 classes", load_breast_cancer),
    "wine": Table("178 × 13, 3 classes", load_wine),
    "iris": Table("150 × 4, 3 classes", load_iris),
    "digits": Table("1797 × 64, 10 classes", load_digits),
    "flipped-150": Table(_FLIPPED, make=_flipped, n_train=150),
    "flipped-1000": Table(_FLIPPED, make=_flipped, n_train=1000),
    "moons-100": Table(_MOONS, make=_moons, n_train=100),
    "moons-1000": Table(_MOONS, make=_moons, n_train=1000),
    "rings-100": Table(_RINGS, make=make_rings, n_train=100),
    "rings-500": Table(_RINGS, make=make_rings, n_train=500),
}


class AsideTable(NamedTuple):
    """A regression table on which no default was chosen: diabetes, or a law of known density."""

    about: str
    n_train: int
    law: Callable | None = None
    """Maps x (rows, 5) to a frozen distribution of scipy.stats, one for each row."""

    @property
    def large(self):
        return self.n_train > N_LARGE

    def split(self, split):
        """Return X, X_test, y, y_test and the law's own NLL on the test rows, in nats."""
        if self.law is None:
            X, y = load_diabetes(return_X_y=True)
            return *train_test_split(X, y, train_size=self.n_train, random_state=split), np.nan
        rng = np.random.default_rng(split)
        X = rng.normal(size=(self.n_train + N_GENERATED_TEST, 5))
        dist = self.law(X)
        y = dist.rvs(random_state=rng)
        true_nll = float(-dist.logpdf(y)[self.n_train :].mean())
        return X[: self.n_train], X[self.n_train :], y[: self.n_train], y[self.n_train :], true_nll


def waves(X):
    """Normal; mean and standard deviation are smooth functions of different columns."""
    mean = np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] * X[:, 2]
    return stats.norm(mean, 0.1 + 0.5 * expit(2 * X[:, 3]))


def skewed(X):
    """Gamma; what a Normal cannot say of it costs nats."""
    shape = 1.5 + 4 * expit(X[:, 2])
    return stats.gamma(shape, scale=np.exp(0.5 * X[:, 0] - 0.3 * X[:, 1] ** 2) / shape)


_WAVES = "Normal, mean sin(2 x1) + x2 x3 / 2, sd .1 + .5 / (1 + exp(-2 x4)), x ~ N(0, I)"
_SKEWED = "gamma of shape 1.5 to 5.5, mean exp(x1 / 2 - .3 x2²), x ~ N(0, I)"
ASIDE = {
    "diabetes": AsideTable("442 × 10, of scikit-learn", 398),
    "waves-100": AsideTable(_WAVES, 100, waves),
    "waves-1000": AsideTable(_WAVES, 1000, waves),
    "skewed-1000": AsideTable(_SKEWED, 1000, skewed),
    "waves-10000": AsideTable(_WAVES, 10_000, waves),
}


def settings_of(task, dataset, split, name):
    """Return the settings of a fit, which are the key of its result.

    Parameters
    ----------
    task : {"regression", "aside", "classification"}
    dataset : str
    split : int
    name : str
        Of a peer.

    Returns
    -------
    dict

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If the peer is not installed.
    """
    peer = PEERS[task][name]
    return {
        "dataset": dataset,
        "split": split,
        "peer": name,
        # Without the name of the build, as in 2.13.0+cpu.
        "version": version(peer.package).split("+")[0],
        "parameters": peer.parameters,
    }


def jobs(task, datasets, names, n_splits=None):
    """List the fits of a task in order of priority: breadth first, large tables last.

    Parameters
    ----------
    task : {"regression", "aside", "classification"}
    datasets, names : sequence of str
        Tables, and peers.
    n_splits : int or None, default=None
        None means 20, 5 of the large tables, and 10 of those for classification.

    Returns
    -------
    list of dict
    """
    usual = N_SPLITS | dict.fromkeys(TABLES, N_CLASSIFICATION_SPLITS)
    counts = {name: n_splits or usual.get(name, N_ASIDE_SPLITS) for name in datasets}
    large_sets = {*LARGE_SETS, *(name for name, table in ASIDE.items() if table.large)}
    places = sorted(
        (dataset in large_sets, split) for dataset in datasets for split in range(counts[dataset])
    )
    return [
        settings_of(task, dataset, split, name)
        for large, split in dict.fromkeys(places)
        for dataset in datasets
        if (dataset in large_sets) == large and split < counts[dataset]
        for name in names
        if PEERS[task][name].large or not large
    ]


def fit_regression(root, settings):
    """Fit one peer to one split of a UCI table and score its predictive distributions."""
    X, X_test, y, y_test = load_uci_split(Path(root, "uci", settings["dataset"]), settings["split"])
    est, forecast, seconds = _timed(REGRESSION, settings, X, y, X_test)
    known = {tuple(row) for row in X}
    is_new = np.array([tuple(row) not in known for row in X_test])
    scores = regression_scores(y_test, forecast)
    new = regression_scores(y_test[is_new], forecast[is_new])
    return {
        **scores,
        "new_rows": float(is_new.mean()),
        **{f"{name}_new": new[name] for name in ("nll", "crps", "crps_normal") if name in new},
        **seconds,
        **_own_scores(est),
        **_own_weights(est, y),
    }


def fit_aside(settings):
    """Fit one peer to one draw of a table kept aside, and score it beside the true density."""
    X, X_test, y, y_test, true_nll = ASIDE[settings["dataset"]].split(settings["split"])
    est, forecast, seconds = _timed(REGRESSION, settings, X, y, X_test)
    scores = regression_scores(y_test, forecast)
    return {**scores, "true_nll": true_nll, **seconds, **_own_scores(est)}


def fit_classification(settings):
    """Fit one peer to one split of a table and score its class probabilities."""
    X, X_test, y, y_test = TABLES[settings["dataset"]].split(settings["split"])
    est, proba, seconds = _timed(CLASSIFICATION, settings, X, y, X_test)
    labels = np.unique(y)
    proba = np.asarray(proba, dtype=float)
    return {
        "log_loss": log_loss(y_test, proba, labels=labels),
        "brier": brier_score(y_test, proba, labels=labels),
        "ece": expected_calibration_error(y_test, proba, labels=labels),
        "accuracy": float(np.mean(labels[proba.argmax(axis=1)] == y_test)),
        **seconds,
        **_own_scores(est),
    }


def _timed(peers, settings, X, y, X_test):
    """Fit in one thread; return the estimator, its forecast and the processor's seconds."""
    peer = peers[settings["peer"]]
    est = peer.make(random_state=settings["split"], **peer.parameters)
    with threadpool_limits(1):
        start = time.process_time()
        est.fit(X, y)
        fitted = time.process_time()
        forecast = est.predict_proba(X_test)
        end = time.process_time()
    return est, forecast, {"fit_seconds": fitted - start, "predict_seconds": end - fitted}


def regression_scores(y, forecast):
    """Score a PredictiveDistribution or a QuantileForecast in the units of y.

    Parameters
    ----------
    y : ndarray of shape (n,)
    forecast : PredictiveDistribution or QuantileForecast

    Returns
    -------
    dict of str to float
        "nll", "crps", "rmse" of the mean, "coverage" and mean "width" of 90 % intervals.
    """
    if isinstance(forecast, QuantileForecast):
        return forecast.scores(y)
    return {
        "nll": nll(y, forecast),
        "crps": crps(y, forecast),
        "rmse": _rmse(y, forecast.mean()),
        "coverage": coverage(y, forecast, level=LEVEL),
        "width": interval_width(forecast, level=LEVEL),
    }


def _own_scores(est):
    """Return what an estimator of ours says of itself from its out-of-fold rows, if anything."""
    scores = getattr(est, "oof_scores_", {})
    return {f"oof_{name}": float(value) for name, value in scores.items()}


def _own_weights(est, y):
    """Return the weights of our kinds, and what they gain over uniform ones, out of fold.

    The gain is in nats per row: weights are fitted without a fold and scored on it. Each kind has
    one component in the out-of-fold density of a row.
    """
    if not hasattr(est, "oof_predictive_"):
        return {}
    params = est.oof_predictive_.params
    log_density = stats.norm(params["loc"], params["scale"]).logpdf(y[:, None])
    gain = np.empty(len(y))
    for train, test in KFold(5, shuffle=True, random_state=0).split(y):
        weights = stacking_weights(log_density[train])
        uniform = np.full_like(weights, 1 / len(weights))
        gain[test] = logsumexp(log_density[test], axis=1, b=weights)
        gain[test] -= logsumexp(log_density[test], axis=1, b=uniform)
    named = {f"weight_{kind}": float(weight) for kind, weight in enumerate(est.weights_)}
    return {**named, "stacking_gain": float(gain.mean())}


def _rmse(y, mean):
    return float(np.sqrt(np.mean((y - mean) ** 2)))


def _normal(loc, scale):
    """Return a Normal for each row."""
    params = {"loc": np.asarray(loc)[:, None], "scale": np.asarray(scale)[:, None]}
    return PredictiveDistribution("norm", params)


def run_regression(args):
    """Fit all peers to the UCI tables: the five small ones first."""
    todo = jobs("regression", args.datasets, args.peers, args.splits)
    path = args.results / "peers-regression.jsonl"
    run_missing(
        partial(fit_regression, args.data), todo, path, n_jobs=args.jobs, title="regression"
    )


def run_aside(args):
    """Fit all peers to the tables on which no default was chosen."""
    todo = jobs("aside", args.datasets, args.peers, args.splits)
    path = args.results / "peers-aside.jsonl"
    run_missing(fit_aside, todo, path, n_jobs=args.jobs, title="aside")


def run_classification(args):
    """Fit all peers to scikit-learn's tables and to generated ones with known noise."""
    todo = jobs("classification", args.datasets, args.peers, args.splits)
    path = args.results / "peers-classification.jsonl"
    run_missing(fit_classification, todo, path, n_jobs=args.jobs, title="classification")


def write_tables(args):
    """Write what is in the results as Markdown."""
    from benchmarks.peers_report import render_report

    text = render_report(
        {task: read_results(args.results / f"peers-{task}.jsonl") for task in PEERS}
    )
    args.output.write_text(text, encoding="utf-8")
    print(f"Wrote {args.output}")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name, run):
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
        return command

    def add_choice(command, option, choices):
        command.add_argument(
            option,
            nargs="+",
            choices=choices,
            default=choices,
            metavar=option.strip("-").removesuffix("s").upper(),
            help=f"some of {', '.join(choices)}",
        )

    regression = add("regression", run_regression)
    regression.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("PROBMIX_DATA"),
        help="folder that holds uci; by default the variable PROBMIX_DATA",
    )
    aside = add("aside", run_aside)
    classification = add("classification", run_classification)
    for command, datasets, peers, n_splits in [
        (regression, [*SMALL_SETS, *LARGE_SETS], REGRESSION, "20, and 5 of the large tables"),
        (aside, list(ASIDE), REGRESSION, N_ASIDE_SPLITS),
        (classification, list(TABLES), CLASSIFICATION, N_CLASSIFICATION_SPLITS),
    ]:
        add_choice(command, "--datasets", datasets)
        add_choice(command, "--peers", list(peers))
        command.add_argument("--splits", type=int, help=f"by default {n_splits}")
        command.add_argument("--jobs", type=int, default=1, help="processes")
    tables = add("tables", write_tables)
    tables.add_argument("--output", type=Path, default=RESULTS.parent / "PEERS_RESULTS.md")
    return parser


def main(argv=None):
    """Run one command."""
    parser = _parser()
    args = parser.parse_args(argv)
    if "data" in args and (args.data is None or not Path(args.data).is_dir()):
        parser.error(f"--data {args.data}: no such folder; name one or set PROBMIX_DATA")
    try:
        args.run(args)
    except PackageNotFoundError as error:
        parser.error(
            f"{error.name} is not installed: install the extra benchmarks, or name other --peers"
        )


if __name__ == "__main__":
    main()
