"""Kernel networks against what a few lines of numpy make of their weights, and bad tables."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_probmix import Kind, ProbMixupRegressor
from sklearn_probmix.ensemble import template_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] + 0.3 * RNG.normal(size=60)


def kernel(**fields):
    """Return a kernel kind of few units and steps."""
    few = {"network": "kernel", "hidden_layer_sizes": (16, 8), "activation": "silu"}
    return Kind(**few | {"max_epochs": 3} | fields)


def regressor(**fields):
    """Return a regressor of one such kind; `local` to `max_epochs` are the kind's."""
    own = Kind().get_params().keys() - ProbMixupRegressor().get_params().keys()
    of_kind = {name: fields.pop(name) for name in own & fields.keys()}
    return ProbMixupRegressor(**{"method": kernel(**of_kind), "random_state": 0} | fields)


def network(est, kind=0):
    """Return the module that runs, of one network or of stacked ones."""
    return template_of(est.nets_[kind].module_)


def test_lognormal_responses_are_remembered_as_logarithms():
    est = regressor(family="lognormal", n_members=1, calibration="off").fit(X, np.exp(Y))
    plain = regressor(n_members=1, calibration="off").fit(X, Y)
    assert_allclose(network(est).responses, network(plain).responses, rtol=1e-6)
    u = np.linspace(0.01, 0.99, 5)
    assert_allclose(np.log(est.predict_proba(X).ppf(u)), plain.predict_proba(X).ppf(u), rtol=1e-3)


def test_a_first_call_of_partial_fit_gives_every_member_its_context():
    est = regressor(n_members=2).partial_fit(X, Y)
    assert network(est).context.shape == (2, 60, 3)
    later = regressor(n_members=2).partial_fit(X, Y).partial_fit(X[:20] + 1, Y[:20])
    assert_array_equal(network(later).context, network(est).context)
