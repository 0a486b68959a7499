"""Kinds of network, alone and stacked, on splits that choose.

Every candidate kind is trained by itself, five members with a fold each, and its out-of-fold and
its test distributions are kept. Any sets of kinds are weighed, mixed and calibrated from these,
without training again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.data import load_uci_split
from benchmarks.flat import arguments
from benchmarks.scores import regression_scores
from sklearn_probmix import PredictiveDistribution, ProbMixupRegressor
from sklearn_probmix.calibration import Spread, calibrate, stacking_weights
from sklearn_probmix.metrics import nll

__all__ = ["COMMON", "DATASETS", "KINDS", "fit_kind", "fit_stack", "report"]

DATASETS = ("yacht", "energy", "bostonHousing", "concrete", "wine-quality-red")
COMMON = {
    "n_members": 5,
    "validation": "cv",
    "calibration": "off",
    "early_stopping": False,
    "max_epochs": 300,
    "batch_size": 64,
    "lr": 0.003,
    "lr_schedule": "cosine",
    "weight_decay": 0.1,
    "n_draws": 8,
}
SILU = {"activation": "silu", "hidden_layer_sizes": [128, 128, 64]}
WIDE = {"hidden_layer_sizes": [256, 256], "variance_weighting": 0.5}
KINDS = {
    "erm-relu": {"method": "erm"},
    "erm-silu": {"method": "erm", **SILU},
    "erm-silu-crps": {"method": "erm", **SILU, "monitor": "crps", "variance_weighting": 0.5},
    "probmix-wide": {"method": "probmix", **WIDE},
    "probmix-wide-crps": {"method": "probmix", **WIDE, "monitor": "crps"},
    "m-probmix-relu": {"method": "m-probmix"},
    "erm-wide-crps": {"method": "erm", **WIDE, "monitor": "crps"},
    "m-probmix-silu": {"method": "m-probmix", **SILU},
    "probmix-silu": {"method": "probmix", **SILU},
    "local-probmix-wide-crps": {"method": "probmix", **WIDE, "monitor": "crps", "n_neighbors": 5},
}
# The same, trained for a third of the time.
KINDS |= {
    f"{name}-short": KINDS[name] | {"max_epochs": 100}
    for name in ("erm-silu", "probmix-wide-crps", "erm-wide-crps", "m-probmix-silu")
}


def fit_kind(settings, *, data, cache):
    """Train one kind on one split, and keep its distributions.

    Parameters
    ----------
    settings : dict
        With "dataset", "split", "kind" and "estimator", the arguments of the regressor.
    data, cache : path-like
        Folders to read splits from and to write distributions to.

    Returns
    -------
    dict of str to float
        Test scores in the units of y.
    """
    split = load_uci_split(Path(data) / "uci" / settings["dataset"], settings["split"])
    X, X_test, y, y_test = split
    est = ProbMixupRegressor(**arguments(settings["estimator"]), random_state=settings["split"])
    test = est.fit(X, y).predict_proba(X_test)
    arrays = {}
    for name, dist in {"oof": est.oof_predictive_, "test": test}.items():
        arrays |= {f"{name}_{key}": value for key, value in dist.params.items()}
    np.savez_compressed(distribution_file(cache, settings), **arrays)
    best = {"best_epoch_median": float(np.median(est.best_epoch_))}
    return (
        regression_scores(y_test, test) | {f"oof_{k}": v for k, v in est.oof_scores_.items()} | best
    )


def distribution_file(cache, settings):
    """Name the file that holds the distributions of a fit."""
    folder = Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "{dataset}-{split}-{kind}.npz".format(**settings)


def stack(y, kinds, *, weighting="stacked", calibration="auto"):
    """Mix kinds as the estimator does, from their out-of-fold distributions.

    Parameters
    ----------
    y : ndarray of shape (n,)
    kinds : list of dict
        "oof" and "test", each a PredictiveDistribution.
    weighting, calibration
        As in the estimator.

    Returns
    -------
    dist : PredictiveDistribution
        Of the test rows.
    oof : PredictiveDistribution
    weights : ndarray of shape (n_kinds,)
    """
    weights = np.full(len(kinds), 1 / len(kinds))
    if weighting == "stacked":
        log_density = np.stack([kind["oof"].logpdf(y) for kind in kinds], axis=1)
        weights = stacking_weights(log_density)
    oof, test = (
        PredictiveDistribution.mix([kind[name] for kind in kinds], weights)
        for name in ("oof", "test")
    )
    if calibration != "off":
        scale = y.std()
        one = np.ones(len(y))
        share = np.broadcast_to(oof.weights, oof.params["loc"].shape)
        columns = (oof.params["loc"] / scale, (oof.params["scale"] / scale) ** 2)
        values = (y[:, None] / scale, *(value[..., None] for value in columns))
        rows = (*values, share, one, np.zeros((len(y), 1)))
        spread = calibrate(Spread, rows, calibration)
        if spread is not None:
            a, b = spread.a, spread.b * scale**2
            oof, test = (
                PredictiveDistribution(
                    "norm",
                    {
                        "loc": dist.params["loc"],
                        "scale": np.sqrt(a * dist.params["scale"] ** 2 + b),
                    },
                    weights=dist.weights,
                )
                for dist in (oof, test)
            )
    return test, oof, weights


def load_kind(cache, dataset, split, kind):
    """Read the distributions of one fit back."""
    settings = {"dataset": dataset, "split": split, "kind": kind}
    with np.load(distribution_file(cache, settings)) as arrays:
        return {
            name: PredictiveDistribution(
                "norm", {k: arrays[f"{name}_{k}"] for k in ("loc", "scale")}
            )
            for name in ("oof", "test")
        }


def fit_stack(settings, *, data, cache):
    """Weigh, mix and calibrate kinds of one split; scores and weights."""
    split = load_uci_split(Path(data) / "uci" / settings["dataset"], settings["split"])
    kinds = [
        load_kind(cache, settings["dataset"], settings["split"], name) for name in settings["stack"]
    ]
    dist, oof, weights = stack(split[2], kinds, calibration=settings["calibration"])
    named = dict(zip(settings["stack"], weights.tolist(), strict=True))
    return regression_scores(split[3], dist) | {"oof_nll": nll(split[2], oof)} | named


def report(kinds, stacks):
    """Write the table of the study.

    Parameters
    ----------
    kinds, stacks : dict of str to dict
        Results of `fit_kind` and `fit_stack`.

    Returns
    -------
    str
        Markdown.
    """
    table = {}
    for result in kinds.values():
        name = result["settings"]["kind"]
        table.setdefault(name, {}).setdefault(result["settings"]["dataset"], []).append(result)
    for result in stacks.values():
        name = " + ".join(result["settings"]["stack"])
        table.setdefault(name, {}).setdefault(result["settings"]["dataset"], []).append(result)
    lines = [
        "| kinds | " + " | ".join(DATASETS) + " |",
        "|---" * (len(DATASETS) + 1) + "|",
    ]
    for name, results in table.items():
        cells = [cell(results.get(dataset, [])) for dataset in DATASETS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(results):
    """Mean NLL / CRPS over splits, and their number."""
    results = [result["scores"] for result in results if "scores" in result]
    if not results:
        return "not run"
    mean = {name: np.mean([result[name] for result in results]) for name in ("nll", "crps")}
    return f"{mean['nll']:.3f} / {mean['crps']:.3f} ({len(results)})"
