"""The bits of a row's prediction depend neither on other rows nor on the number of threads."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor
from sklearn_probmix.weighing import _BLOCK

SIZES = [(), (1,), (3,), (7,), (10,), (33, 17), (128, 64)]
FAMILIES = [
    *("normal", "homoscedastic-normal", "lognormal", "gamma", "beta", "poisson", "bernoulli"),
    "negative-binomial",
    "transformed",
    "hurdle",
    *("categorical", "histogram", "lattice"),
]
METHODS = ["erm", "probmix", "m-probmix", "manifold-mixup"]
N_ROWS = [1, 2, 31, 32, 33, 255, 256, 257]
RESPONSES = {
    "lognormal": np.exp,
    "hurdle": lambda y: np.where(y > -0.5, np.exp(y), 0.0),
    "gamma": np.exp,
    "beta": lambda y: 1 / (1 + np.exp(-y)),
    "poisson": lambda y: np.floor(np.exp(y)),
    "negative-binomial": lambda y: np.floor(np.exp(y)),
    "bernoulli": lambda y: (y > 0) * 1.0,
    "lattice": np.rint,
}


def cases():
    """Yield settings in which every value of each meets many values of the others."""
    cycles = map(
        itertools.cycle,
        [
            FAMILIES,
            METHODS + METHODS[:1],
            [1, 2, 3, 5, 2, 1, 5],
            [1, 2, 3],
            [1, 2, 3, 10, 10],
            ["relu", "silu", "gelu", "elu", "tanh", "silu"],
            [None, 2, 9, None],
        ],
    )
    names = "family", "method", "n_members", "n_outputs", "n_features", "activation", "n_knots"
    for number, values in enumerate(itertools.islice(zip(*cycles, strict=True), 42)):
        yield {"hidden_layer_sizes": SIZES[number % len(SIZES)]} | dict(
            zip(names, values, strict=True)
        )


def fitted(case):
    """Train a little, and make rows of very different sizes."""
    case = dict(case)
    rng = np.random.default_rng(0)
    n_features, n_outputs = case.pop("n_features"), case.pop("n_outputs")
    if not case["hidden_layer_sizes"]:
        case["method"] = "erm"
    X = rng.normal(size=(600, n_features)) * np.exp(rng.normal(size=(600, 1)))
    method = Kind(case.pop("method"), n_draws=3, batch_size="full", max_epochs=2)
    common = case | {"method": method, "random_state": 0}
    if case["family"] == "categorical":
        return ProbMixupClassifier(**common).fit(X[:50], np.arange(50) % 4), X
    y = rng.normal(size=(50, n_outputs))
    y = RESPONSES.get(case["family"], lambda y: y)(y)
    return ProbMixupRegressor(**common).fit(X[:50], y if n_outputs > 1 else y[:, 0]), X


def parameters(est, X):
    """Return what networks say of rows, on axis 0."""
    if isinstance(est, ProbMixupClassifier):
        return {"p": est.predict_proba(X), "log p": est.predict_log_proba(X)}
    dist = est.predict_proba(X)
    return dist.params | {"weights": dist.weights}


def predictions(est, X):
    """Return all that is predicted of a few rows, rows on axis 0."""
    if isinstance(est, ProbMixupClassifier):
        return parameters(est, X)
    dist = est.predict_proba(X)
    quantiles = np.moveaxis(dist.ppf([0.1, 0.5, 0.9]), 1, 0)
    moments = {"mean": dist.mean(), "sd": dist.std(), "quantiles": quantiles}
    return dist.params | {"weights": dist.weights} | moments


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: "-".join(map(str, case.values())))
def test_bits_do_not_depend_on_the_other_rows(case):
    est, X = fitted(case)
    whole = predictions(est, X)
    choices = [np.arange(start, start + n) for n in N_ROWS for start in (0, 300)]
    choices += [np.random.default_rng(1).permutation(600), np.array([599]), np.repeat([7, 599], 9)]
    for rows in choices:
        for name, found in predictions(est, X[rows]).items():
            message = f"{name} of {len(rows)} rows from {rows[0]}"
            assert_array_equal(found, whole[name][rows], err_msg=message)


def assert_two_threads_find_what_one_does():
    n_cases = 0
    for case in cases():
        # Of a layer with 5 to 10 units in all the product is another one with two threads.
        if min(case["hidden_layer_sizes"], default=0) <= 10 or case["n_members"] == 1:
            continue
        n_cases += 1
        torch.set_num_threads(1)
        est, X = fitted(case)
        # Fewer rows than a block are left to one thread whatever is set.
        X = np.tile(X, (_BLOCK // len(X) + 1, 1))
        expected = parameters(est, X)
        torch.set_num_threads(2)
        for rows in (np.arange(len(X)), np.arange(300, 333)):
            for name, found in parameters(est, X[rows]).items():
                assert_array_equal(found, expected[name][rows], err_msg=f"{name} of {case}")
    assert n_cases == 6


def test_bits_do_not_depend_on_the_number_of_threads():
    code = "import test_row_bits; test_row_bits.assert_two_threads_find_what_one_does()"
    where = {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | where,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
