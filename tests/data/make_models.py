"""Write the models of this folder, with the release whose files a later one has to read.

Run it once for every version of the format, on a checkout of the last commit that writes it:
``PYTHONPATH=<checkout> python make_models.py <folder>``. Each model is a file and an .npz of X and
of what it predicts there. Written so far: version 1, at commit ea2b502.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sklearn_probmix import ProbMixupClassifier, ProbMixupRegressor, get_family, save_model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] + 0.3 * RNG.normal(size=60)
TWO = np.stack([Y, Y**2], axis=1)
LABELS = np.array(["low", "mid", "high"])[np.digitize(Y, [-0.5, 0.5])]
TINY = {"hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}
MODELS = {
    "auto": (ProbMixupRegressor(**TINY, calibration="on"), X, TWO),
    "kinds": (
        ProbMixupRegressor(
            method=["mixup", {"method": "m-probmix", "hidden_layer_sizes": (5, 3), "alpha": 0.1}],
            n_members=2,
            n_draws=3,
            family=get_family("lognormal", variance_floor=0.01),
            calibration="on",
            **TINY,
        ),
        X,
        np.exp(Y),
    ),
    "m_probmix": (ProbMixupRegressor(method="m-probmix", n_members=1, n_draws=4, **TINY), X, Y),
    "knots": (ProbMixupRegressor(method="probmix", n_members=3, n_knots=5, **TINY), X, Y),
    "counts": (
        ProbMixupRegressor(method="erm", family="poisson", validation="holdout", **TINY),
        X,
        np.round(np.exp(Y)),
    ),
    "text": (
        ProbMixupClassifier(
            calibration="on", class_weight={"low": 2.0, "mid": 1, "high": 0.5}, **TINY
        ),
        pd.DataFrame(X, columns=["a", "Größe", "c $"]),
        LABELS,
    ),
    "objects": (
        ProbMixupClassifier(method="probmix", family="bernoulli", n_members=1, **TINY),
        X,
        np.where(LABELS == "low", "low", "other").astype(object),
    ),
}


def predictions(est, X):
    if isinstance(est, ProbMixupClassifier):
        return {"proba": est.predict_proba(X), "label": est.predict(X).astype(str)}
    dist = est.predict_proba(X)
    return {"mean": dist.mean(), "std": dist.std(), "quantiles": dist.ppf([0.1, 0.9])}


def main(folder):
    torch.set_num_threads(1)
    for name, (est, X, y) in MODELS.items():
        est.fit(X, y)
        save_model(est, folder / f"{name}.safetensors")
        np.savez_compressed(folder / f"{name}.npz", X=X[:20], **predictions(est, X[:20]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
