"""What the experiments of the paper are: methods, grids, and the settings of every fit."""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.runs import key

LOCAL = {"n_neighbors": 5}
SEPARATE = {"method": "m-probmix", "embedding_variance": "separate"}
METHODS = {
    "erm": {"method": "erm"},
    "mixup": {"method": "mixup"},
    "local-mixup": {"method": "mixup", **LOCAL},
    "manifold-mixup": {"method": "manifold-mixup"},
    "local-manifold-mixup": {"method": "manifold-mixup", **LOCAL},
    "probmix": {"method": "probmix"},
    "local-probmix": {"method": "probmix", **LOCAL},
    "m-probmix": {"method": "m-probmix"},
    "local-m-probmix": {"method": "m-probmix", **LOCAL},
    "m-probmix-separate": SEPARATE,
    "local-m-probmix-separate": {**SEPARATE, **LOCAL},
}
NINE_METHODS = [name for name in METHODS if not name.endswith("separate")]
PROBABILISTIC = [name for name in METHODS if name.endswith(("probmix", "separate"))]

SMALL_SETS = ["yacht", "energy", "concrete", "bostonHousing", "wine-quality-red"]
LARGE_SETS = ["kin8nm", "power-plant", "naval-propulsion-plant"]
FULL_BATCH_METHODS = ["erm", "probmix", "m-probmix"]
N_SPLITS = {**dict.fromkeys(SMALL_SETS, 20), **dict.fromkeys(LARGE_SETS, 5)}
SELECTION_SPLITS = range(2)

# What all experiments share. The paper has no floor of the variance.
COMMON = {
    "weight_decay": 0.0,
    "variance_floor": 1e-6,
    "validation_fraction": 0.2,
    "early_stopping": True,
    "n_iter_no_change": 200,
}
# One network, chosen by a hold-out, at a constant step size.
ONE_NETWORK = {"n_members": 1, "calibration": "off", "lr_schedule": "constant"}
UCI = {"hidden_layer_sizes": [128, 32], "lr": 0.005, "max_epochs": 1000, **COMMON}
UCI_GRID = {"alpha": [0.1, 0.4], "beta": [0.0, 0.01]}

TOY = {
    "hidden_layer_sizes": [128, 64],
    "lr": 0.01,
    "max_epochs": 500,
    "batch_size": None,
    **COMMON,
}
# alpha .25 and the vanishing one first: the paper's claims are about them.
TOY_ALPHAS = [0.25, 1e-32, 0.01, 0.05, 0.1, 0.5, 1.0]
TOY_BETAS = [0.0, 0.01]
POOLINGS = ["log-linear", "linear"]
# The alphas, by pooling, of the cells that a claim speaks of, all at beta 0: of these ten draws
# decide nothing.
CLAIMED = {"log-linear": [0.25]}
TOY_CLAIMED = {
    **dict.fromkeys(NINE_METHODS, CLAIMED),
    "probmix": {"log-linear": TOY_ALPHAS, "linear": [0.25, 0.1]},
    "local-probmix": {"log-linear": TOY_ALPHAS},
    "m-probmix": {"log-linear": TOY_ALPHAS, "linear": [0.25, 0.05, 0.1, 0.5, 1.0]},
}
N_TOY_TEST = 1000
# So many draws of rows, and networks on each: the paper may have drawn rows once.
N_SAME_ROWS, N_SAME_ROWS_RUNS = 12, 10
# The cells that are fitted again with what the paper leaves open changed.
TOY_SUSPECTS = [
    ("erm", METHODS["erm"]),
    ("m-probmix", METHODS["m-probmix"] | {"alpha": 0.25, "beta": 0.0, "pooling": POOLINGS[0]}),
]

STOCKS = ["GME", "GOOG", "NVDA", "RCL"]
SEQUENCE_MODULES = ["lstm", "transformer"]
STOCK_NET = {"lr": 0.0005, "max_epochs": 2000, "batch_size": 32}
STOCK_MIXING = {"alpha": 0.1, "beta": 0.0}


def uci_settings(dataset, split, method, batch_size=100, **mixing):
    """Return the settings of one fit on a UCI table, which are the key of its result."""
    estimator = {**UCI, "batch_size": batch_size, **METHODS[method], **mixing}
    if method.endswith("separate"):
        estimator["hidden_layer_sizes"] = [64, 32]
    return {"dataset": dataset, "split": split, "name": method, "estimator": estimator}


def uci_grid(method):
    """Return the alpha and beta among which validation chooses."""
    if method == "erm":
        return [{}]
    betas = UCI_GRID["beta"] if method in PROBABILISTIC else UCI_GRID["beta"][:1]
    return [{"alpha": alpha, "beta": beta} for alpha in UCI_GRID["alpha"] for beta in betas]


def chosen_mixing(results, dataset, method, batch_size=100):
    """Return the alpha and beta of the lowest validation NLL on splits 0 and 1.

    Parameters
    ----------
    results : dict
        As `read_results` returns them.
    dataset, method : str
    batch_size : int or None

    Returns
    -------
    dict or None
        None if a fit that the choice needs is missing.
    """
    mean_nll = []
    for mixing in uci_grid(method):
        fits = [
            results.get(key(uci_settings(dataset, split, method, batch_size, **mixing)))
            for split in SELECTION_SPLITS
        ]
        if None in fits:
            return None
        losses = [fit["scores"]["valid_nll"] if "scores" in fit else np.inf for fit in fits]
        mean_nll.append(np.mean(losses))
    return uci_grid(method)[int(np.argmin(mean_nll))]


def variations(method, chosen):
    """Return what may explain that a cell is worse than the paper's: one change each, likely first.

    Parameters
    ----------
    method : str
    chosen : dict
        The cell's alpha and beta.

    Returns
    -------
    dict of str to dict
        A name of the change, and the arguments of the estimator in which it differs.
    """
    found = {
        "another seed": {},
        "no early stop": {"n_iter_no_change": UCI["max_epochs"]},
        "batches of 50": {"batch_size": 50},
    }
    for mixing in uci_grid(method):
        if mixing != chosen:
            found[", ".join(f"{name} {value}" for name, value in mixing.items())] = mixing
    if method != "erm":
        found["losses mixed"] = {"response": "expected"}
    return found | {
        "full batch": {"batch_size": None},
        "lr 0.001": {"lr": 0.001},
        "10 % held out": {"validation_fraction": 0.1},
    }


def varied_settings(dataset, split, method, chosen, change):
    """Return the settings of one fit of a cell with one change."""
    settings = uci_settings(dataset, split, method, **chosen)
    changes = variations(method, chosen)[change]
    if change == "another seed":
        settings["seed_shift"] = 1000
    return settings | {"change": change, "estimator": settings["estimator"] | changes}


def toy_mixings(method, *, classification=False):
    """Return the settings of mixing that are tried on a toy problem, as arguments of estimators."""
    if method == "erm":
        return [METHODS[method]]
    if method not in PROBABILISTIC:
        return [{**METHODS[method], "alpha": alpha} for alpha in TOY_ALPHAS]
    mixings = []
    for beta, alpha, pooling in itertools.product(TOY_BETAS, TOY_ALPHAS, POOLINGS):
        mixing = {**METHODS[method], "alpha": alpha, "beta": beta, "pooling": pooling}
        if classification and beta > 0:
            # Eq. 14, which is undefined at beta 0.
            mixing["response"] = "pooled"
        mixings.append(mixing)
    return mixings


def toy_stages(methods, *, classification=False):
    """Divide (method, mixing) by alpha and beta, so that every stage can be compared in itself."""
    stages = {(beta, alpha): [] for beta in TOY_BETAS for alpha in TOY_ALPHAS}
    for method in methods:
        for mixing in toy_mixings(method, classification=classification):
            stage = mixing.get("beta", TOY_BETAS[0]), mixing.get("alpha", TOY_ALPHAS[0])
            stages[stage].append((method, mixing))
    return list(stages.values())


def toy_is_claimed(method, mixing):
    """Say whether a claim speaks of a cell of the toy regression."""
    alphas = TOY_CLAIMED[method].get(mixing.get("pooling", POOLINGS[0]), [])
    return not mixing.get("beta") and mixing.get("alpha", TOY_ALPHAS[0]) in alphas


def toy_settings(run, method, mixing, *, classification=False):
    """Return the settings of one fit on a toy problem."""
    estimator = {**TOY, **mixing}
    if classification:
        del estimator["variance_floor"]
    return {"run": run, "name": method, "estimator": estimator}


def toy_variations(method):
    """Return what the paper leaves open in the toy regression: one change each.

    Parameters
    ----------
    method : str

    Returns
    -------
    dict of str to dict
        A name of the change, and the settings in which it differs: "estimator" has arguments, the
        others are of `fit_toy_regression`.
    """
    last = {"validation_fraction": None, "early_stopping": False}
    found = {
        "spread of z starts at 0": {"initial_spread": 0.0},
        "variance floor 0.01": {"estimator": {"variance_floor": 0.01}},
        "no hold-out, last epoch": {"estimator": last},
        "1 draw of z in prediction": {"estimator": {"n_draws": 1}},
        "8 draws of z in training": {"estimator": {"n_train_draws": 8}},
        "no early stop": {"estimator": {"n_iter_no_change": TOY["max_epochs"]}},
        "one variance for all x": {"estimator": {"family": "homoscedastic-normal"}},
        "80 rows, last epoch": {"n_rows": 80, "estimator": last},
        "64 draws of z in prediction": {"estimator": {"n_draws": 64}},
        "256 draws of z in prediction": {"estimator": {"n_draws": 256}},
        "256 draws of z in prediction, all delivered": {
            "estimator": {"n_draws": 256},
            "n_delivered": 256,
        },
        "variance floor 0.0001": {"estimator": {"variance_floor": 1e-4}},
        "tanh": {"estimator": {"activation": "tanh"}},
        "another seed": {"seed_shift": 1000},
    }
    if METHODS[method]["method"] == "m-probmix":
        return found
    return {change: settings for change, settings in found.items() if " z " not in f"{change} "}


def varied_toy_settings(run, method, mixing, change):
    """Return the settings of one fit of the toy regression with one change."""
    settings = toy_settings(run, method, mixing)
    changes = toy_variations(method)[change]
    estimator = settings["estimator"] | changes.get("estimator", {})
    if "family" in estimator:
        # A family by name has a floor of its own.
        del estimator["variance_floor"]
    return settings | {"change": change} | changes | {"estimator": estimator}


def same_rows_settings(rows, run, method, mixing):
    """Return the settings of one of several networks of the toy regression on the same rows."""
    return toy_settings(run, method, mixing) | {"change": f"rows {rows} in all runs", "rows": rows}


def stock_settings(stock, module, run, method):
    """Return the settings of one fit on the prices of a stock."""
    mixing = {} if method == "erm" else STOCK_MIXING
    estimator = {**COMMON, **METHODS[method], **mixing}
    return {
        "stock": stock,
        "module": module,
        "run": run,
        "name": method,
        "net": STOCK_NET,
        "estimator": estimator,
    }
