"""Flat settings, the keys of results, and the arguments of estimators that they stand for.

A finished fit is found by its settings, so these stay as they were first written: parameters of a
kind of network and of its estimator side by side, one dict.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from sklearn_probmix import Kind, get_family

__all__ = ["arguments", "defaults"]

_OF_KINDS = Kind().to_dict()
# What a batch size or a number of epochs of "auto" means.
AUTO_SIZES = {
    "batch_size": 64,
    "batch_size_of_many_rows": 256,
    "many_rows": 4000,
    "n_steps": 3000,
    "least_and_most_epochs": [100, 600],
}


def arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an estimator of one kind of network.

    Parameters
    ----------
    settings : dict
        Beside parameters of `Kind` and of the estimator: `variance_floor` of the Normal,
        `validation_fraction` of a hold-out, `early_stopping`, whether training stops after
        `n_iter_no_change` epochs; and `batch_size` None, the full batch.

    Returns
    -------
    dict
    """
    # The family is the estimator's.
    of_kinds = _OF_KINDS.keys() - {"family"}
    others = {name: value for name, value in settings.items() if name not in of_kinds}
    kind = Kind(**{name: value for name, value in settings.items() if name in of_kinds})
    if kind.batch_size is None:
        kind = kind.updated(batch_size="full")
    if not others.pop("early_stopping", True):
        kind = kind.updated(n_iter_no_change=None)
    if "variance_floor" in others:
        floor = others.pop("variance_floor")
        others["family"] = get_family("normal", variance_floor=floor)
    if "validation_fraction" in others:
        others["validation"] = others.pop("validation_fraction")
    return others | {"method": kind}


def defaults(est: BaseEstimator) -> dict[str, Any]:
    """Return the flat settings that users of an estimator get who name none.

    Parameters
    ----------
    est : ProbMixupRegressor or ProbMixupClassifier
        As it comes.

    Returns
    -------
    dict
        With "auto", how each kind of ``method="auto"`` differs from the others' settings.
    """
    own = {name: value for name, value in est.get_params(deep=False).items() if value is not None}
    flat = dict.fromkeys(est.get_params(deep=False)) | _OF_KINDS | own
    # Of no matter to tables of numbers, or to what is predicted.
    for name in ("random_state", "categorical_features", "n_jobs", "checkpoint"):
        del flat[name]
    if est.family == "auto":
        flat["variance_floor"] = 1e-4
    else:
        del flat["monitor"], flat["variance_weighting"]
    auto = [
        {
            name: value
            for name, value in kind.to_dict().items()
            if name == "method" or value != _OF_KINDS[name]
        }
        for kind in est._auto_kinds
    ]
    held_out = {"validation_fraction": 0.2, "early_stopping": True}
    race = {
        "first_rung": 200,
        "least_share": 0.02,
        "share_to_go_on": 0.1,
        "still_to_come": 1.5,
        "far_behind": 0.7,
        "leaders_of_many_rows": True,
        "share_of_context": 0.5,
        "prior": 1.0,
        "cells": True,
        "components": [64, 36],
    }
    return flat | held_out | {"auto": auto, "auto_sizes": AUTO_SIZES, "race": race}
