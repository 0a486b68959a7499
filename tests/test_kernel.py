"""Kernel networks against what a few lines of numpy make of their weights, and bad tables."""

import numpy as np
import pytest
import torch
from model_files import opened, store
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_probmix import Kind, ProbMixupRegressor, load_model, save_model
from sklearn_probmix.ensemble import template_of
from sklearn_probmix.metrics import nll

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] + 0.3 * RNG.normal(size=60)
X_OF_CURVE, NOISE = RNG.normal(size=(200, 1)), 0.3 * RNG.normal(size=200)


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


def real_rows(est, member):
    """Return the rows of the context of a member that have weight."""
    net = network(est)
    return net.context[member].numpy()[net.shares[member, :, 0].numpy() > -1e29]


def held_out(est, X):
    """Return which rows are not in the context of which member, (rows, members)."""
    seen = est.scaler_.transform(X).astype(np.float32)
    contexts = [real_rows(est, member) for member in range(est.n_members)]
    return np.stack([~(seen[:, None] == c).all(-1).any(1) for c in contexts], axis=1)


@pytest.mark.parametrize("n_rows", [60, 59, 58])
def test_the_context_of_a_member_is_all_but_its_held_out_rows(n_rows):
    est = regressor(n_members=3, max_epochs=1).fit(X[:n_rows], Y[:n_rows])
    out = held_out(est, X[:n_rows])
    assert (out.sum(axis=1) == 1).all()
    assert set(out.sum(axis=0)) <= {n_rows // 3, -(-n_rows // 3)}


def test_groups_of_unequal_size_take_no_rows_from_contexts():
    groups = np.where(np.arange(60) < 45, 0, np.arange(60) % 3 + 1)
    est = regressor(n_members=3, max_epochs=2).fit(X, Y, groups=groups)
    out = held_out(est, X)
    assert (out.sum(axis=1) == 1).all()
    assert sorted(out.sum(axis=0)) == [5, 10, 45]
    assert np.isfinite(est.oof_scores_["nll"])


def test_a_row_alone_in_its_context_does_not_see_itself():
    """With its own copy alone the loss would fall without end."""
    split = [([0], [1, 2, 3])]
    est = regressor(n_members=1, max_epochs=1, validation=split, batch_size="full")
    with pytest.warns(UserWarning, match="rows are not used"):
        est.fit(X[:5], Y[:5])
    assert network(est).context.shape == (1, 3)
    net = network(est).train()
    net.own, net.places = torch.tensor([0]), torch.tensor([0])
    weights = net(net.context).log_weights.detach().exp()
    assert_array_equal(weights, [[0, 1]])


KEYS = "nets.0.members.keys"
RESPONSES = KEYS.replace("keys", "responses")
SHARES = KEYS.replace("keys", "shares")
CONTEXT = KEYS.replace("keys", "context")
MUTANTS = {
    **{
        f"no {name}": lambda t, name=name: t.pop(name)
        for name in (KEYS, RESPONSES, SHARES, CONTEXT)
    },
    "another": lambda t: t.update({KEYS + "keys": t[KEYS].clone()}),
    "keys of one axis": lambda t: t.update({KEYS: t[KEYS].flatten()}),
    "keys of no axis": lambda t: t.update({KEYS: torch.zeros(())}),
    "fewer keys": lambda t: t.update({KEYS: t[KEYS][:, 1:]}),
    "no rows of keys": lambda t: t.update({KEYS: t[KEYS][:, :0]}),
    "wide keys": lambda t: t.update({KEYS: t[KEYS].repeat(1, 1, 2)}),
    "keys of one member": lambda t: t.update({KEYS: t[KEYS][:1]}),
    "keys of another type": lambda t: t.update({KEYS: t[KEYS].double()}),
    "fewer responses": lambda t: t.update({RESPONSES: t[RESPONSES][:, 1:]}),
    "flat responses": lambda t: t.update({RESPONSES: t[RESPONSES][..., 0]}),
    "two outputs": lambda t: t.update({RESPONSES: t[RESPONSES].repeat(1, 1, 2)}),
    "more shares": lambda t: t.update({SHARES: t[SHARES].repeat(1, 2, 1)}),
    "fewer rows": lambda t: t.update({CONTEXT: t[CONTEXT][:, 1:]}),
    "other columns": lambda t: t.update({CONTEXT: t[CONTEXT][..., 1:]}),
    **{
        f"{value} in {name}": lambda t, name=name, value=value: t[name][0, 3].fill_(value)
        for name in (KEYS, RESPONSES, SHARES, CONTEXT)
        for value in (np.nan, np.inf, -np.inf)
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save an ensemble of kernel networks, and read the file."""
    path = tmp_path_factory.mktemp("model") / "honest"
    save_model(regressor(n_members=3, max_epochs=1).fit(X, Y), path)
    return path


@pytest.mark.parametrize("name", MUTANTS)
def test_a_file_whose_context_does_not_fit_is_refused(name, model, tmp_path):
    parts = opened(model)
    MUTANTS[name](parts.tensors)
    tensors = {name: value.contiguous() for name, value in parts.tensors.items()}
    store(tensors, parts.document, tmp_path / "mutant")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(tmp_path / "mutant")


def test_rows_that_partial_fit_sees_again_do_not_see_themselves():
    """Otherwise they would teach that a response is what the nearest row has, to the digit."""
    X, y = np.repeat(X_OF_CURVE, 2, axis=1), np.sin(3 * X_OF_CURVE[:, 0]) + NOISE
    est = regressor(n_members=2, local="constant", lr=0.01)
    for _ in range(40):
        est.partial_fit(X[:100], y[:100])
    assert nll(y[100:], est.predict_proba(X[100:])) < 1
    assert nll(y[:100], est.predict_proba(X[:100])) > -1
