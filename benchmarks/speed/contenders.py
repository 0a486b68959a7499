"""The hand-written loop and the estimators beside it; each maps (X, y, setting) to a loss."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from torch import nn
from torch.nn.functional import softplus

from benchmarks.flat import arguments
from sklearn_probmix import NegativeLogLikelihood, ProbMixupRegressor, fit_together
from sklearn_probmix.loaders import nearest_neighbors
from sklearn_probmix.modules import MLP

__all__ = ["CONTENDERS", "ENSEMBLES", "N_FEATURES", "N_ROWS", "Setting", "make_table"]

N_ROWS, N_FEATURES = 10_000, 20
# So low that training settles: where it memorises noise, losses differ by more than the tolerance
# between seeds.
LR = 0.0003
WEIGHT_DECAY, VARIANCE_FLOOR, ALPHA = 0.01, 1e-4, 0.2
VALIDATION_FRACTION = 0.2
N_NEIGHBORS = 5
LAST_EPOCHS = 10


class Setting(NamedTuple):
    """What all contenders of a round share."""

    batch_size: int
    epochs: int
    seed: int


def make_table(n_rows=N_ROWS, random_state=0):
    """A smooth function of 20 columns under noise, so that the loss settles near 1 nat."""
    rng = np.random.default_rng(random_state)
    X = rng.normal(size=(n_rows, N_FEATURES))
    signal = np.sin(X[:, 0]) + 0.5 * X[:, 1] * X[:, 2] + X[:, 3:6].sum(axis=1) / 3
    return X, signal + rng.normal(scale=2.0, size=n_rows)


def loop_fit(X, y, setting, *, mix):
    """Train by hand; return the training loss, averaged over the last epochs."""
    rng = np.random.default_rng(setting.seed)
    torch.manual_seed(setting.seed)
    X = torch.from_numpy(StandardScaler().fit_transform(X).astype(np.float32))
    y = torch.from_numpy(((y - y.mean()) / y.std()).astype(np.float32))
    rows = torch.from_numpy(rng.permutation(len(X)))
    n_valid = round(VALIDATION_FRACTION * len(X))
    X_valid, y_valid = X[rows[:n_valid]], y[rows[:n_valid]]
    X, y = X[rows[n_valid:]], y[rows[n_valid:]]
    net = nn.Sequential(
        nn.Linear(N_FEATURES, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    best_loss, best_weights, train_losses = math.inf, None, []
    for _ in range(setting.epochs):
        net.train()
        train_loss = 0.0
        for batch in torch.from_numpy(rng.permutation(len(X))).split(setting.batch_size):
            target, eta = y[batch], natural(net(X[batch]))
            if mix:
                partner = torch.from_numpy(rng.permutation(len(batch)))
                lam = torch.from_numpy(rng.beta(ALPHA, ALPHA, len(batch)).astype(np.float32))
                target = torch.lerp(target[partner], target, lam)
                eta = torch.lerp(eta[partner], eta, lam[:, None])
            loss = nll(eta, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss += loss.item() * len(batch) / len(X)
        train_losses.append(train_loss)
        net.eval()
        with torch.no_grad():
            valid_loss = nll(natural(net(X_valid)), y_valid).item()
        if valid_loss < best_loss:
            best_loss = valid_loss
            best_weights = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(best_weights)
    return np.mean(train_losses[-LAST_EPOCHS:])


def natural(raw):
    """Natural parameters of a Normal, (rows, 2)."""
    mean, spread = raw.unbind(-1)
    precision = 1 / (softplus(spread) + VARIANCE_FLOOR)
    return torch.stack([mean * precision, -0.5 * precision], dim=-1)


def nll(eta, y):
    """Mean negative log-likelihood of y (rows,) at eta (rows, 2)."""
    variance = -0.5 / eta[:, 1]
    mean = eta[:, 0] * variance
    return 0.5 * ((2 * math.pi * variance).log() + (y - mean).square() / variance).mean()


def estimator_fit(X, y, setting, **parameters):
    """Fit a ProbMixupRegressor; return the training loss, averaged over the last epochs."""
    return last_losses(regressor(setting, **parameters).fit(X, y).history_)


def regressor(setting, **parameters):
    """One network in the setting of the loop, but for what `parameters` say."""
    common = {
        "n_members": 1,
        "calibration": "off",
        "lr_schedule": "constant",
        "alpha": ALPHA,
        "hidden_layer_sizes": (128, 64),
        "variance_floor": VARIANCE_FLOOR,
        "lr": LR,
        "weight_decay": WEIGHT_DECAY,
        "batch_size": setting.batch_size,
        "max_epochs": setting.epochs,
        "validation_fraction": VALIDATION_FRACTION,
        "early_stopping": False,
        "random_state": setting.seed,
    }
    return ProbMixupRegressor(**arguments(common | parameters))


def fit_ten(X, y, setting, *, together):
    """Fit ten networks to ten tables, in one pass or one after another."""
    estimators = [regressor(setting._replace(seed=seed), method="probmix") for seed in range(10)]
    if together:
        fit_together(estimators, [(X, y)] * len(estimators))
    else:
        for est in estimators:
            est.fit(X, y)
    return math.nan


def skorch_fit(X, y, setting):
    """Train the same network by skorch as it comes, with PyTorch's DataLoader."""
    torch.manual_seed(setting.seed)
    net = NeuralNet(
        MLP,
        module__n_features=N_FEATURES,
        criterion=NegativeLogLikelihood,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=WEIGHT_DECAY,
        optimizer__fused=True,
        lr=LR,
        max_epochs=setting.epochs,
        batch_size=setting.batch_size,
        iterator_train__shuffle=True,
        verbose=0,
    )
    X = StandardScaler().fit_transform(X).astype(np.float32)
    y = ((y - y.mean()) / y.std()).astype(np.float32)
    return last_losses(net.fit(X, y).history)


def last_losses(history):
    return np.mean([epoch["train_loss"] for epoch in history[-LAST_EPOCHS:]])


def search_neighbors(X, y, setting):
    """Only find the neighbours of as many rows as are trained on."""
    nearest_neighbors(X[: round((1 - VALIDATION_FRACTION) * len(X))], N_NEIGHBORS)
    return math.nan


CONTENDERS = {
    "loop, erm": lambda *args: loop_fit(*args, mix=False),
    "loop, probmix": lambda *args: loop_fit(*args, mix=True),
    "erm": lambda *args: estimator_fit(*args, method="erm"),
    "probmix": lambda *args: estimator_fit(*args, method="probmix"),
    "probmix, Loc^5": lambda *args: estimator_fit(*args, method="probmix", n_neighbors=N_NEIGHBORS),
    "search of neighbours": search_neighbors,
    "skorch as it comes, erm": skorch_fit,
}

# With as many epochs as the default gives a table, which makes as many steps of more rows.
_FIVE = {"method": "probmix", "n_members": 5, "max_epochs": "auto"}
ENSEMBLES = {
    "one network": lambda *args: estimator_fit(*args, method="probmix"),
    "8 members": lambda *args: estimator_fit(
        *args, method="probmix", n_members=8, validation="holdout"
    ),
    "5 members, hold-out": lambda *args: estimator_fit(*args, **_FIVE, validation="holdout"),
    "5 members, folds": lambda *args: estimator_fit(*args, **_FIVE, validation="cv"),
    "10 fits": lambda *args: fit_ten(*args, together=False),
    "10 fits in one pass": lambda *args: fit_ten(*args, together=True),
}
