"""Settings of numpy, scikit-learn and torch change no number of ours, and are not changed."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import sklearn
import torch
from skorch import NeuralNet
from torch import nn

from sklearn_probmix import (
    Kind,
    MixingGraphDisplay,
    NegativeLogLikelihood,
    NeighborLoader,
    ProbMixupClassifier,
    ProbMixupRegressor,
    fit_together,
    load_model,
    save_model,
)
from sklearn_probmix.metrics import coverage, crps, nll
from sklearn_probmix.settings import neutral_settings

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3))
Y = X[:, 0] + 0.1 * rng.normal(size=40)
LABELS = (Y > 0).astype(int)
WEIGHT = np.where(np.arange(40) % 2, 0.5, 1.0)
_TINY = {"hidden_layer_sizes": (4,), "max_epochs": 2, "batch_size": 16, "random_state": 0}
_FEW = slice(8)
# Together every path on which a tensor is made: knots, embeddings, shared parameters, kernels,
# neighbours, several components, labels.
CASES = {
    "auto": (ProbMixupRegressor(n_members=2, **_TINY), Y),
    "embedding": (
        ProbMixupRegressor(
            method=Kind("m-probmix", beta=0.1), family="homoscedastic-normal", n_members=1, **_TINY
        ),
        Y,
    ),
    "neighbours": (
        ProbMixupRegressor(
            method="probmix", pooling="linear", family="gamma", n_neighbors=3, n_members=2, **_TINY
        ),
        np.exp(Y),
    ),
    "log-expected": (
        ProbMixupRegressor(
            method=Kind("probmix", objective="log-expected", n_mixes=2, beta=0.1, dropout=0.1),
            n_members=2,
            **_TINY,
        ),
        Y,
    ),
    "classes": (
        ProbMixupClassifier(
            method=Kind("probmix", response="pooled", beta=0.1), n_members=2, **_TINY
        ),
        LABELS,
    ),
    "counts": (
        ProbMixupRegressor(method="probmix", family="bernoulli", n_members=2, **_TINY),
        LABELS,
    ),
}


def bits(case):
    """Hash what a fit, a pass, a saved and loaded estimator predict; both agree."""
    prototype, y = CASES[case]
    est = sklearn.clone(prototype).fit(X, y, WEIGHT)
    first = _predictions(est)
    with TemporaryDirectory() as folder:
        save_model(est, Path(folder, "model.safetensors"))
        assert _predictions(load_model(Path(folder, "model.safetensors"))) == first
    assert _predictions(pickle.loads(pickle.dumps(est))) == first
    second = _predictions(est.partial_fit(X, y))
    assert second != first
    return hashlib.sha256(first + second).hexdigest()


def _predictions(est):
    few = X[_FEW]
    found = [est.predict(X)]
    if isinstance(est, ProbMixupClassifier):
        found += [est.predict_proba(X), est.predict_log_proba(X)]
    else:
        dist, y = est.predict_proba(few), np.clip(Y[_FEW], 0.1, None)
        y = y.round(est.family == "bernoulli")
        found += [*dist.params.values(), *est.predict(few, return_std=True)]
        found += [
            dist.ppf([0.1, 0.5]),
            dist.interval(0.9),
            dist.cdf(y),
            dist.rvs(3, random_state=0),
        ]
        found += [crps(y, dist), nll(y, dist), coverage(y, dist)]
    return b"".join(np.ascontiguousarray(values, dtype=np.float64).tobytes() for values in found)


def snapshot():
    """All settings that a process can change."""
    return {
        "numpy": np.geterr(),
        "sklearn": sklearn.get_config(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "device": torch.get_default_device(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "generator": torch.get_rng_state().tolist(),
        "warnings": warnings.filters[:],
    }


@contextmanager
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


OF_A_THREAD = {
    "frames of pandas": lambda: sklearn.config_context(transform_output="pandas"),
    "frames of polars": lambda: sklearn.config_context(transform_output="polars"),
    "finiteness assumed": lambda: sklearn.config_context(assume_finite=True),
    "routing": lambda: sklearn.config_context(enable_metadata_routing=True),
    "validation skipped": lambda: sklearn.config_context(skip_parameter_validation=True),
    "numpy raises": lambda: np.errstate(all="raise"),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "warnings are errors": _warnings_are_errors,
}


def _set_all(transform_output):
    np.seterr(all="raise")
    sklearn.set_config(transform_output=transform_output)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_autocast_enabled("cpu", True)
    torch.autograd.set_detect_anomaly(True)
    np.set_printoptions(precision=1)
    warnings.simplefilter("error")


# How each is set, and how it is taken back; of the last a part, since its process then ends.
OF_A_PROCESS = {
    "float64": (torch.set_default_dtype, torch.float64, torch.float32),
    "float16": (torch.set_default_dtype, torch.float16, torch.float32),
    "deterministic algorithms": (torch.use_deterministic_algorithms, True, False),
    "two threads": (torch.set_num_threads, 2, 1),
    "all of numpy, scikit-learn and torch": (_set_all, "pandas", "default"),
}


@pytest.fixture(scope="module")
def expected():
    return {case: bits(case) for case in CASES}


@pytest.mark.parametrize("setting", OF_A_THREAD)
def test_bits_under_a_setting_of_the_thread(expected, setting):
    with OF_A_THREAD[setting]():
        before = snapshot()
        found = {case: bits(case) for case in CASES}
        after = snapshot()
    assert found == expected
    assert after == before


def _under_settings_of_the_process():
    """Try each in turn; what a first fit imports may add a filter of warnings of its own."""
    bits("auto")
    for name, (change, value, usual) in OF_A_PROCESS.items():
        change(value)
        before = snapshot()
        found = {case: bits(case) for case in CASES}
        after = snapshot()
        change(usual)
        yield name, {"bits": found, "changed": [key for key in after if after[key] != before[key]]}


@pytest.fixture(scope="module")
def of_a_process():
    """What a process finds whose settings are changed; there is one, as its start takes long."""
    # Where cores are scarce, threads that spin while they wait keep each other from running.
    env = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("setting", OF_A_PROCESS)
def test_bits_under_a_setting_of_the_process(expected, of_a_process, setting):
    assert of_a_process[setting] == {"bits": expected, "changed": []}


def _of_one_pass():
    estimators = [
        ProbMixupRegressor(method="probmix", n_members=1, **_TINY | {"random_state": seed})
        for seed in range(2)
    ]
    return [est.predict(X) for est in fit_together(estimators, [(X, Y), (X, -Y)])]


@pytest.fixture(scope="module")
def of_one_pass():
    return _of_one_pass()


@pytest.mark.parametrize("setting", OF_A_THREAD)
def test_fits_in_one_pass(of_one_pass, setting):
    with OF_A_THREAD[setting]():
        inside = _of_one_pass()
    np.testing.assert_array_equal(inside, of_one_pass)


def test_an_estimator_fitted_or_loaded_in_inference_mode_trains_on_outside_of_it(tmp_path):
    est = ProbMixupRegressor(method="erm", n_members=1, **_TINY)
    with torch.inference_mode():
        est.fit(X, Y)
        save_model(est, tmp_path / "model")
        loaded = load_model(tmp_path / "model")
    for one in (est, loaded):
        before = one.predict(X)
        assert not np.array_equal(one.partial_fit(X, Y).predict(X), before)


@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_what_uses_scikit_learn_outside_of_a_fit(frames):
    plain = MixingGraphDisplay.from_data(X, Y, n_neighbors=2)
    data = torch.utils.data.TensorDataset(torch.tensor(X).float(), torch.tensor(Y))
    X_plain, _ = next(iter(NeighborLoader(data, n_neighbors=2, random_state=0)))
    with sklearn.config_context(transform_output=frames):
        framed = MixingGraphDisplay.from_data(X, Y, n_neighbors=2)
        X_framed, _ = next(iter(NeighborLoader(data, n_neighbors=2, random_state=0)))
    np.testing.assert_array_equal(framed.points, plain.points)
    np.testing.assert_array_equal(framed.edges, plain.edges)
    assert torch.equal(X_framed, X_plain)


def test_infinity_and_NaN_are_refused_where_finiteness_is_assumed():
    with sklearn.config_context(assume_finite=True):
        with pytest.raises(ValueError, match="column 1 of X"):
            CASES["auto"][0].fit(np.where(np.arange(3) == 1, np.inf, X), Y)
        with pytest.raises(ValueError, match="Input y contains NaN"):
            CASES["auto"][0].fit(X, np.where(Y > 0, np.nan, Y))


class Watching(nn.Module):
    """Notes the settings under which it runs."""

    seen = []

    def __init__(self, family):
        super().__init__()
        self.family = family
        self.layer = nn.Linear(3, 2)

    def forward(self, X):
        self.seen.append(snapshot())
        return self.family.natural(self.layer(X).unsqueeze(1))


def test_modules_of_a_user_run_under_the_settings_that_libraries_come_with():
    usual = snapshot()
    Watching.seen.clear()
    with ExitStack() as unusual:
        for setting in ("frames of pandas", "numpy raises", "inference", "autocast"):
            unusual.enter_context(OF_A_THREAD[setting]())
        net = NeuralNet(Watching, NegativeLogLikelihood, max_epochs=1)
        ProbMixupRegressor(net=net, method="erm", n_members=1).fit(X, Y).predict(X)
    for seen in Watching.seen:
        for name in ("numpy", "sklearn", "autocast"):
            assert seen[name] == usual[name]
    assert {seen["grad"] for seen in Watching.seen} == {(True, False), (False, False)}


def test_the_settings_come_back_after_an_error():
    @neutral_settings
    def fail():
        raise KeyError

    with torch.inference_mode(), np.errstate(all="raise"):
        before = snapshot()
        with pytest.raises(KeyError):
            fail()
        assert snapshot() == before


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(dict(_under_settings_of_the_process())))
