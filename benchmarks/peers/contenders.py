"""Ours and the peers: what each is, and in which settings it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.flat import arguments, defaults
from benchmarks.paper.settings import UCI
from benchmarks.peers.forecasts import QuantileForecast, normals
from benchmarks.peers.recent import (
    ConformalQuantiles,
    LightGBMLSS,
    QuantileNetwork,
    Treeffuser,
)
from benchmarks.scores import LEVEL
from sklearn_probmix import PredictiveDistribution, ProbMixupClassifier, ProbMixupRegressor

__all__ = ["CLASSIFICATION", "EXTRA", "OURS", "PEERS", "RECENT", "REGRESSION"]

OURS = "ours"
# Names of extras: that of most peers, and that of an environment of its own.
EXTRA = "benchmarks"
RECENT = "benchmarks-recent"
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
        return normals(**self.model.pred_dist(X, max_iter=n_trees).params)


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
        return normals(mean, np.sqrt(variance))


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
        return normals(*self.model.predict(X, return_std=True))


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
        return QuantileForecast(*found[-2:], levels, found[:-2], self.smallest_scale)


class Peer(NamedTuple):
    """A contender: ``make(random_state=..., **parameters)`` has fit and predict_proba."""

    title: str
    package: str
    make: Callable
    parameters: dict
    about: str
    large: bool = True
    """Whether it is run on large tables."""
    extra: str = EXTRA
    """By which it is installed."""


def _one_network(random_state, **parameters):
    return ProbMixupRegressor(**arguments(parameters), random_state=random_state)


def _ours(cls, about):
    # The parameters are kept for the record: what is fitted has none.
    return Peer(
        "ours",
        "sklearn-probmix",
        lambda random_state, **_: cls(random_state=random_state),
        defaults(cls()) | {"batches": "a member's own rows"},
        about,
    )


_QUANTILES = (
    "trained on the pinball loss of its quantiles; CRPS is twice their mean pinball loss, NLL that "
    "of the Normal of their mean and sd"
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
        _one_network,
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
    "treeffuser": Peer(
        "Treeffuser",
        "treeffuser",
        Treeffuser,
        {"n_samples": 100},
        "as it comes; CRPS is that of the draws; NLL, which draws do not have, is approximated by "
        "Normal kernels as wide as Scott's rule says (of an sd of at least .01 sd of y)",
        extra=RECENT,
    ),
    "lightgbmlss": Peer(
        "LightGBMLSS",
        "lightgbmlss",
        LightGBMLSS,
        {"n_estimators": 100, "n_trials": 30, "folds": 5, "early_stopping_rounds": 20},
        "Student's t, settings found by its own search, y standardised",
        extra=RECENT,
    ),
    "realmlp": Peer(
        "RealMLP",
        "pytabkit",
        QuantileNetwork,
        {"model": "RealMLP_TD_Regressor", "n_quantiles": 50, "n_cv": 5},
        f"tuned defaults, mean of five networks, each of which stops by a fold; {_QUANTILES}",
        extra=RECENT,
    ),
    "tabm": Peer(
        "TabM",
        "pytabkit",
        QuantileNetwork,
        {"model": "TabM_D_Regressor", "n_quantiles": 50, "n_cv": 1},
        f"defaults, 32 members, stops by a fifth of the rows; {_QUANTILES}; only below 2,000 rows",
        large=False,
        extra=RECENT,
    ),
    "mapie-cqr": Peer(
        "MAPIE's CQR",
        "mapie",
        ConformalQuantiles,
        {"conformal_fraction": 0.2},
        "ConformalizedQuantileRegressor on HistGradientBoostingRegressor: intervals only",
        extra=RECENT,
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
