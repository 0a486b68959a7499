"""Predictions of single networks of every method, held to what they were.

Those with dropout were stored anew when it began to draw bytes.
"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor

STORED = np.load(Path(__file__).parent / "data" / "named_methods.npz")
# Of the kind and, second, of the estimator.
REGRESSORS = {
    "erm": (Kind("erm"), {}),
    "mixup": (Kind("mixup"), {}),
    "manifold": (Kind("manifold-mixup"), {}),
    "probmix": (Kind("probmix"), {}),
    "mprobmix": (Kind("m-probmix"), {}),
    "mprobmix-sep": (Kind("m-probmix", embedding_variance="separate", n_train_draws=2), {}),
    "loc": (Kind("probmix", n_neighbors=5), {}),
    "loc-m": (Kind("m-probmix", n_neighbors=5), {}),
    "linear": (Kind("probmix", pooling="linear"), {}),
    "linear-m": (Kind("m-probmix", pooling="linear", beta=0.1), {}),
    "beta": (Kind("probmix", beta=0.05, n_mixes=2), {}),
    "logexp": (Kind("probmix", n_mixes=3, objective="log-expected"), {}),
    "expected": (Kind("mixup", response="expected"), {}),
    "knots": (
        Kind(
            n_knots=9,
            activation="silu",
            variance_weighting=0.5,
            monitor="crps",
            hidden_layer_sizes=(64, 64),
        ),
        {},
    ),
    "dropout": (Kind("probmix", dropout=0.2), {}),
    "gamma": (Kind("probmix"), {"family": "gamma"}),
    "lognormal": (Kind("m-probmix"), {"family": "lognormal"}),
    "poisson": (Kind("probmix"), {"family": "poisson"}),
    "homo": (Kind("mixup"), {"family": "homoscedastic-normal"}),
    "noval": (Kind("probmix"), {"validation": None}),
    "full": (Kind("probmix", batch_size="full"), {}),
    "constant": (Kind("erm", lr_schedule="constant"), {}),
}
CLASSIFIERS = {
    "c-erm": Kind("erm"),
    "c-probmix": Kind("probmix"),
    "c-mprobmix": Kind("m-probmix"),
    "c-linear": Kind("probmix", pooling="linear"),
    "c-pooled": Kind("probmix", beta=0.1, response="pooled"),
    "c-loc": Kind("mixup", n_neighbors=3),
}
ONE = {"n_members": 1, "max_epochs": 12, "random_state": 3}


def assert_as_stored(name, predicted):
    # Other products of matrices round differently: by up to 4e-5 after these epochs.
    np.testing.assert_allclose(predicted, STORED[name], rtol=1e-4, atol=1e-6)


def test_nothing_else_is_stored():
    assert set(STORED) == {*REGRESSORS, *CLASSIFIERS, "weights", "two"}


@pytest.mark.parametrize("name", REGRESSORS)
def test_mean_and_spread_of_a_regressor(name):
    X, y = load_diabetes(return_X_y=True)
    kind, parameters = REGRESSORS[name]
    dist = ProbMixupRegressor(method=kind, **ONE, **parameters).fit(X, y).predict_proba(X[:40])
    assert_as_stored(name, [dist.mean(), dist.std()])


def test_mean_with_sample_weights():
    X, y = load_diabetes(return_X_y=True)
    est = ProbMixupRegressor(method="probmix", **ONE)
    est.fit(X, y, sample_weight=np.linspace(0.5, 2, len(y)))
    assert_as_stored("weights", [est.predict(X[:40])])


def test_means_of_two_outputs():
    X, y = load_diabetes(return_X_y=True)
    est = ProbMixupRegressor(method="probmix", **ONE).fit(X, np.c_[y, y**2])
    assert_as_stored("two", est.predict(X[:40]))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_probabilities_of_a_classifier(name):
    X, y = load_iris(return_X_y=True)
    est = ProbMixupClassifier(method=CLASSIFIERS[name], **ONE).fit(X, y)
    assert_as_stored(name, est.predict_proba(X[::5]))
