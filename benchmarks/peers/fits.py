"""Which fits there are, and one fit of one peer and its scores."""

from __future__ import annotations

import time
from importlib.metadata import version

import numpy as np
from sklearn.metrics import brier_score_loss, log_loss
from threadpoolctl import threadpool_limits

from benchmarks.data import load_split
from benchmarks.paper.settings import LARGE_SETS, N_SPLITS
from benchmarks.peers.contenders import CLASSIFICATION, PEERS, REGRESSION
from benchmarks.peers.tables import ASIDE, FILES, TABLES
from benchmarks.scores import LEVEL, regression_scores
from sklearn_probmix import PredictiveDistribution
from sklearn_probmix.metrics import (
    coverage_curve,
    expected_calibration_error,
    interval_score,
    interval_width,
)

__all__ = [
    "N_ASIDE_SPLITS",
    "N_CLASSIFICATION_SPLITS",
    "fit_aside",
    "fit_classification",
    "fit_regression",
    "forecast_scores",
    "jobs",
]

N_CLASSIFICATION_SPLITS = 10
N_ASIDE_SPLITS = 5
N_FILE_SPLITS = 3


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
    usual |= dict.fromkeys(FILES, N_FILE_SPLITS)
    counts = {name: n_splits or usual.get(name, N_ASIDE_SPLITS) for name in datasets}
    large_sets = {*LARGE_SETS, *FILES, *(name for name, table in ASIDE.items() if table.large)}
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
    """Fit one peer to one split of a table of the data and score its predictive distributions."""
    dataset, split = settings["dataset"], settings["split"]
    X, X_test, y, y_test = load_split(root, dataset, split)
    est, forecast, seconds = _timed(REGRESSION, settings, X, y, X_test)
    known = {tuple(row) for row in X}
    is_new = np.array([tuple(row) not in known for row in X_test])
    scores = forecast_scores(y_test, forecast)
    new = forecast_scores(y_test[is_new], forecast[is_new])
    return {
        **scores,
        "new_rows": float(is_new.mean()),
        **{f"{name}_new": new[name] for name in ("nll", "crps", "crps_normal") if name in new},
        **seconds,
        **_own_scores(est),
        **_own_weights(est, len(X)),
    }


def fit_aside(settings):
    """Fit one peer to one draw of a table kept aside, and score it beside the true density."""
    X, X_test, y, y_test, true_nll = ASIDE[settings["dataset"]].split(settings["split"])
    est, forecast, seconds = _timed(REGRESSION, settings, X, y, X_test)
    scores = forecast_scores(y_test, forecast)
    return {**scores, "true_nll": true_nll, **seconds, **_own_scores(est)}


def fit_classification(root, settings):
    """Fit one peer to one split of a table, perhaps of the data, and score its probabilities."""
    dataset, split = settings["dataset"], settings["split"]
    if TABLES[dataset].is_file:
        X, X_test, y, y_test = load_split(root, dataset, split)
    else:
        X, X_test, y, y_test = TABLES[dataset].split(split)
    est, proba, seconds = _timed(CLASSIFICATION, settings, X, y, X_test)
    labels = np.unique(y)
    proba = np.asarray(proba, dtype=float)
    return {
        "log_loss": log_loss(y_test, proba, labels=labels),
        "brier": brier_score_loss(y_test, proba, labels=labels),
        "ece": expected_calibration_error(y_test, proba, labels=labels),
        "accuracy": float(np.mean(labels[proba.argmax(axis=1)] == y_test)),
        **seconds,
        **_own_scores(est),
        **_own_weights(est, len(X)),
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


def forecast_scores(y, forecast):
    """Score what a contender forecasts, in the units of y.

    Parameters
    ----------
    y : ndarray of shape (n,)
    forecast : PredictiveDistribution, QuantileForecast or IntervalForecast

    Returns
    -------
    dict of str to float
        "nll", "crps", "rmse" of the mean; "coverage", mean "width" and "interval_score" of 90 %
        intervals, which are all that an IntervalForecast has; of a distribution "coverage_shared",
        where a mass that an end of the interval falls into is covered in part (`coverage_curve`).
    """
    if not isinstance(forecast, PredictiveDistribution):
        return forecast.scores(y)
    return regression_scores(y, forecast) | {
        "coverage_shared": float(coverage_curve(y, forecast, levels=[LEVEL])[1][0]),
        "width": interval_width(forecast, level=LEVEL),
        "interval_score": interval_score(y, forecast, level=LEVEL),
    }


def _own_scores(est):
    """Return what an estimator of ours says of itself from its out-of-fold rows, if anything."""
    scores = getattr(est, "oof_scores_", {})
    return {f"oof_{name}": float(value) for name, value in scores.items()}


def _own_weights(est, n_rows):
    """Return the weight of every candidate of our default, 0 of those that are not delivered."""
    if not hasattr(est, "_auto_kinds"):
        return {}
    weights = dict.fromkeys(range(len(est._auto_kinds)), 0.0)
    # What training rows of a fold settled.
    candidates = [kind.sized(n_rows * 4 // 5) for kind in est._auto_kinds]
    for kind, weight in zip(est.kinds_, est.weights_, strict=True):
        weights[candidates.index(kind)] = float(weight)
    return {f"weight_{position}": weight for position, weight in weights.items()}
