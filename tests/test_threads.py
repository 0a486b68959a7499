"""Threads: predictions and fits give the bits that they give alone."""

import itertools
import pickle
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.utils import check_random_state
from skorch import NeuralNet
from torch import nn

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    ProbMixupClassifier,
    ProbMixupRegressor,
    load_model,
    save_model,
)
from sklearn_probmix.nets import natural_parameters

N_THREADS = 8
SMALL = {
    "n_members": 3,
    "hidden_layer_sizes": (8, 5),
    "max_epochs": 2,
    "random_state": 0,
}


class Plain(nn.Module):
    """A user's module of layers that vmap can batch."""

    def __init__(self, family, n_features):
        super().__init__()
        self.family = family
        self.embedding = nn.Sequential(
            nn.Linear(n_features, 6), nn.LayerNorm(6), nn.SiLU(), nn.Dropout(0.1)
        )
        self.head = nn.Linear(6, 2)

    def forward(self, X):
        return self.family.natural(self.head(self.embedding(X)).unsqueeze(1))


class Recurrent(nn.Module):
    """A user's module that vmap cannot batch, whose members are looped over."""

    def __init__(self, family):
        super().__init__()
        self.family = family
        self.lstm = nn.LSTM(1, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        states, _ = self.lstm(X.unsqueeze(-1))
        return self.family.natural(self.head(states[:, -1:]))


def own_net(module):
    return NeuralNet(
        module,
        criterion=NegativeLogLikelihood,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=2,
        verbose=0,
    )


METHODS = {
    "erm": {"method": "erm"},
    "mixup": {"method": "mixup"},
    "manifold-mixup": {"method": "manifold-mixup"},
    "probmix": {"method": "probmix"},
    "m-probmix": {"method": "m-probmix"},
    "separate variance": {"method": Kind("m-probmix", embedding_variance="separate", n_draws=3)},
    "neighbours": {"method": "probmix", "n_neighbors": 3},
    "linear pooling": {"method": "m-probmix", "pooling": "linear"},
    "knots": {"method": "probmix", "n_knots": 5},
    "no hidden layer": {"method": "erm", "hidden_layer_sizes": ()},
    "one member": {"method": "m-probmix", "n_members": 1},
    "dropout": {"method": Kind("erm", dropout=0.3), "calibration": "on"},
}
REGRESSORS = METHODS | {
    "auto": {"method": "auto"},
    "poisson": {"method": "m-probmix", "family": "poisson"},
    "gamma": {"method": "probmix", "family": "gamma"},
    "bernoulli": {"method": "erm", "family": "bernoulli"},
    "shared variance": {"method": "erm", "family": "homoscedastic-normal"},
    "vmap": {"method": "erm", "net": own_net(Plain)},
    "vmap, one member": {"method": "probmix", "net": own_net(Plain), "n_members": 1},
    "loop": {"method": "probmix", "net": own_net(Recurrent)},
    "loop, one member": {"method": "erm", "net": own_net(Recurrent), "n_members": 1},
}
CLASSIFIERS = METHODS | {"auto": {"method": "auto"}}
CASES = [(ProbMixupRegressor, name) for name in REGRESSORS]
CASES += [(ProbMixupClassifier, name) for name in CLASSIFIERS]


def make(kind, name):
    return kind(**SMALL | (REGRESSORS if kind is ProbMixupRegressor else CLASSIFIERS)[name])


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(70, 3))
    return X, np.floor(np.exp(X[:, 0] + 0.3 * rng.normal(size=70))) + 1


def response(est, y):
    if isinstance(est, ProbMixupClassifier):
        return np.array(["few", "some", "many"])[np.minimum(y, 3).astype(int) - 1]
    return (y > 1) * 1.0 if est.family == "bernoulli" else y


def fitted(kind, name, table):
    est = make(kind, name)
    return est.fit(table[0][:40], response(est, table[1])[:40])


def parts(dist):
    return [*dist.params.values(), dist.weights]


def natural(est, X):
    return natural_parameters(est.nets_[-1], torch.from_numpy(X.astype(np.float32)))


CALLS = {
    ProbMixupRegressor: {
        "predict": lambda est, X: [est.predict(X)],
        "predict with sd": lambda est, X: est.predict(X, return_std=True),
        "predict_proba": lambda est, X: parts(est.predict_proba(X)),
        "quantiles": lambda est, X: [est.predict(X, quantiles=[0.1, 0.9])],
        "draws": lambda est, X: [est.predict_proba(X).rvs(2, random_state=0)],
        "natural parameters": natural,
    },
    ProbMixupClassifier: {
        "predict": lambda est, X: [est.predict(X)],
        "predict_proba": lambda est, X: [est.predict_proba(X)],
        "predict_log_proba": lambda est, X: [est.predict_log_proba(X)],
        "natural parameters": natural,
    },
}


def assert_same(found, expected, what):
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(np.asarray(one), np.asarray(other), err_msg=what, strict=True)


@contextmanager
def quick_switches():
    """Let threads take turns hundreds of times as often as they do by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def meanwhile(work):
    """Repeat some work in a thread of its own; an error in it is an error here."""
    stop, counts = threading.Event(), []

    def repeat():
        while not stop.is_set():
            work()
            counts.append(1)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(repeat)
        try:
            yield counts
        finally:
            stop.set()
        future.result()


def read_anew(est, folder):
    """Write an estimator to a file and read it."""
    save_model(est, folder / "model.safetensors")
    left = {} if est.net is None else {"net": est.net}
    return load_model(folder / "model.safetensors", **left)


def test_concurrent_predictions_have_the_bits_of_serial_ones(table, tmp_path):
    X = table[0]
    sizes = [1, 33, 70]
    jobs = []
    for kind, name in CASES:
        est = fitted(kind, name, table)
        # Copies that have predicted nothing yet: what is made in the first call is made at once.
        for copy in (pickle.loads(pickle.dumps(est)), read_anew(est, tmp_path)):
            for (label, call), n in itertools.product(CALLS[kind].items(), sizes):
                what = f"{kind.__name__}, {name}: {label} of {n} rows"
                jobs += [(call, copy, X[:n], call(est, X[:n]), what)] * 2
    assert len(jobs) > 2000
    random.Random(0).shuffle(jobs)
    other = make(ProbMixupRegressor, "auto")

    def run(job):
        call, est, rows, expected, what = job
        assert_same(call(est, rows), expected, what)
        return True

    with (
        quick_switches(),
        meanwhile(lambda: other.fit(*table)) as n_fits,
        ThreadPoolExecutor(N_THREADS) as pool,
    ):
        assert sum(pool.map(run, jobs)) == len(jobs)
    assert n_fits


@pytest.mark.parametrize("name", ["auto", "m-probmix", "one member", "vmap", "loop"])
def test_many_first_calls_at_once(table, tmp_path, name):
    est, X = fitted(ProbMixupRegressor, name, table), table[0][:9]
    expected, content = parts(est.predict_proba(X)), pickle.dumps(est)
    start = threading.Barrier(N_THREADS)

    def run(copy):
        start.wait()
        assert_same(parts(copy.predict_proba(X)), expected, name)

    with quick_switches(), ThreadPoolExecutor(N_THREADS) as pool:
        for _ in range(10):
            list(pool.map(run, [pickle.loads(content)] * N_THREADS))
            list(pool.map(run, [read_anew(est, tmp_path)] * N_THREADS))


OWN = [(kind, name) for kind, name in CASES if "vmap" not in name and "loop" not in name]


@pytest.fixture(scope="module")
def serial_fits(table):
    return {case: natural(fitted(*case, table), table[0]) for case in OWN}


@pytest.mark.parametrize("disturbance", ["draws", "fit of a user's module"])
def test_concurrent_fits_have_the_bits_of_serial_ones(table, serial_fits, disturbance):
    work = {
        "draws": lambda: torch.rand(10),
        "fit of a user's module": lambda: fitted(ProbMixupRegressor, "loop", table),
    }[disturbance]
    with quick_switches(), meanwhile(work) as counts, ThreadPoolExecutor(2) as pool:
        fits = pool.map(lambda case: natural(fitted(*case, table), table[0]), OWN)
        for case, found in zip(OWN, fits, strict=True):
            assert_same(found, serial_fits[case], str(case))
    assert counts


def test_fits_of_a_users_module_take_turns(table):
    expected = natural(fitted(ProbMixupRegressor, "vmap", table), table[0])
    with quick_switches(), ThreadPoolExecutor(4) as pool:
        fits = pool.map(lambda _: fitted(ProbMixupRegressor, "vmap", table), range(8))
        for est in fits:
            assert_same(natural(est, table[0]), expected, "vmap")


@pytest.mark.parametrize(("kind", "name"), OWN)
def test_global_generators_are_left_alone(table, tmp_path, kind, name):
    numpys = check_random_state(None)
    before = torch.get_rng_state(), numpys.get_state(), random.getstate()
    read_anew(fitted(kind, name, table), tmp_path).predict(table[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert_same(numpys.get_state()[1:3], before[1][1:3], "numpy's generator")
    assert random.getstate() == before[2]


def test_global_generators_are_not_read(table, serial_fits):
    case = ProbMixupRegressor, "m-probmix"
    for seed in range(3):
        torch.manual_seed(seed)
        check_random_state(None).seed(seed)
        random.seed(seed)
        assert_same(natural(fitted(*case, table), table[0]), serial_fits[case], str(seed))
