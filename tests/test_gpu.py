"""Devices: what a GPU is asked for in a step, and that fits on one agree with those on a CPU."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from one_network import TINY
from skorch.callbacks import Callback
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_probmix import (
    Kind,
    ProbMixupClassifier,
    ProbMixupRegressor,
    callbacks,
    fit_together,
    load_model,
    save_model,
)
from sklearn_probmix.devices import chosen_device
from sklearn_probmix.ensemble import template_of
from sklearn_probmix.kinds import CLASSIFICATION, METHODS, REGRESSION
from sklearn_probmix.modules import use_generator
from sklearn_probmix.table import DividedRows, Table

# Stands for a GPU where there is none: tensors on it have shapes alone.
META = torch.device("meta")
HAS_GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="torch finds no GPU on this machine")
without_gpu = pytest.mark.skipif(HAS_GPU, reason="torch finds a GPU on this machine")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4)).astype(np.float32)
Y = X[:, 0] * X[:, 1] + 0.1 * RNG.normal(size=200)
COUNTS = RNG.poisson(np.exp(X[:, 0])).astype(float)
LABELS = np.where(X[:, 2] > 0.5, 2, COUNTS > 1)
WEIGHT = RNG.uniform(0.5, 2, size=200)


class TestChoice:
    @without_gpu
    def test_auto_is_the_cpu_where_there_is_no_gpu(self):
        est = ProbMixupRegressor(**TINY, device="auto").fit(X, Y)
        assert est.net_.device == "cpu"
        assert_array_equal(est.predict(X), ProbMixupRegressor(**TINY).fit(X, Y).predict(X))

    @without_gpu
    @pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
    def test_no_other_device_takes_the_place_of_a_gpu(self, make):
        message = "device='cuda' cannot be used here .*expected .*'cpu', or device='auto'"
        with pytest.raises(ValueError, match=message):
            make(**TINY, device="cuda").fit(X, LABELS)

    @needs_gpu
    def test_auto_takes_a_gpu(self):
        assert chosen_device("auto") == "cuda"
        est = ProbMixupRegressor(**TINY, device="auto").fit(X, Y)
        assert next(est.net_.module_.parameters()).is_cuda

    def test_a_model_of_any_device(self, tmp_path):
        est = ProbMixupRegressor(**TINY, device="auto").fit(X, Y)
        save_model(est, tmp_path / "model")
        assert load_model(tmp_path / "model").device == "auto"
        loaded = load_model(tmp_path / "model", device="cpu")
        assert_allclose(loaded.predict(X), est.predict(X), rtol=1e-4, atol=1e-4)


class Transfers(TorchDispatchMode):
    """Logs copies between the CPU and another device, and what is done in between."""

    def __init__(self):
        super().__init__()
        self.log = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            values = args[:2] if func is torch.ops.aten.copy_.default else (out, args[0])
            to, source = (value.device.type for value in values)
            if to != source:
                self.log.append("wait" if to == "cpu" else "send")
        return out


class Stop(Exception):
    """Ends a fit once the callback has seen enough."""


class OnMeta(Callback):
    """Takes steps on a device that has no numbers.

    Operations refuse tensors of other devices there, and to ask for a number is an error.
    """

    def on_train_begin(self, net, X, **kwargs):
        batches = [(type(batch), batch.rows) for batch in net.get_iterator(X, training=True)]
        named = dict(net.callbacks_)
        best, averaged = named["best_epoch"], named.get("averaged_weights")
        with FakeTensorMode(allow_non_fake_inputs=True):
            put(net.module_)
            use_generator(net.module_, None)
            places = getattr(template_of(net.module_), "places", None)
            if places is not None:
                template_of(net.module_).places = there(places)
            net.device = META
            net.optimizer_ = torch.optim.SGD(net.module_.parameters(), lr=0.1)
            table = Table(*(None if part is None else there(part) for part in X.table))
            best.table, best.valid = table, there(best.valid)
            if averaged:
                averaged.on_train_begin(net)
            data = DividedRows.__new__(DividedRows)
            data.__dict__ |= vars(X) | {"X": table.X, "y": table.y, "table": table}
            net.history.new_epoch()
            # The first step sends what the family is made of.
            self.log = []
            for kind, rows in batches[:2]:
                rows = there(rows)
                batch = kind(data.batch(rows), rows)
                with Transfers() as transfers:
                    net.notify("on_batch_begin", batch=batch, training=True)
                    net.train_step(batch)
                    net.notify("on_batch_end", batch=batch, training=True)
                self.log.append(transfers.log)
            net.module_.register_forward_hook(lambda *args: transfers.log.append("forward"))
            if hasattr(net.module_, "each"):
                each = net.module_.each
                net.module_.each = lambda X: (each(X), transfers.log.append("forward"))[0]
            with Transfers() as transfers, pytest.raises(RuntimeError, match="numpy"):
                best._validate(net, best.table, best.valid)
            self.validation = transfers.log
        raise Stop


def there(tensor):
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=META)


def put(module):
    for owner in module.modules():
        for name, value in owner._parameters.items():
            owner._parameters[name] = torch.nn.Parameter(there(value))
        for name, value in owner._buffers.items():
            owner._buffers[name] = there(value)


NAMED = [
    *(Kind(method, n_neighbors=3) for method in METHODS),
    Kind("probmix", pooling="linear", beta=0.1, n_mixes=2, objective="log-expected"),
    Kind("m-probmix", pooling="linear", variance_weighting=0.5, monitor="crps"),
    Kind("manifold-mixup", family="histogram", beta=0.1),
]
CASES = [
    *((ProbMixupRegressor, kind) for kind in [*NAMED, *REGRESSION]),
    *((ProbMixupClassifier, kind) for kind in [*NAMED[:-2], *CLASSIFICATION]),
]


@pytest.mark.parametrize("place", range(len(CASES)))
def test_a_step_waits_for_nothing(place, monkeypatch):
    # One network on a hold-out, or three on folds.
    (make, kind), n_members = CASES[place], 1 + 2 * (place % 2)
    monkeypatch.setattr(callbacks, "_VALIDATION_CHUNK", 16)
    seen = OnMeta()
    y = {"beta": (0.5 + COUNTS) / 20, None: Y}.get(kind.family, COUNTS)
    y = LABELS if make is ProbMixupClassifier else y
    kind = kind.updated(batch_size=32)
    est = make(method=kind, n_members=n_members, callbacks=[seen], random_state=0)
    with pytest.raises(Stop):
        est.fit(X, y, WEIGHT)
    # Partners, lam, and with linear pooling choices, noise and points; once, not for every use.
    assert set(seen.log[1]) <= {"send"}
    assert len(seen.log[1]) <= (0 if kind.site is None else 2 if kind.pooling != "linear" else 5)
    last = len(seen.validation) - seen.validation[::-1].index("forward")
    assert seen.validation[:last].count("forward") > 1
    assert "wait" not in seen.validation[:last]
    assert "wait" in seen.validation[last:]


@needs_gpu
class TestOnGpu:
    @pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
    @pytest.mark.parametrize("n_members", [1, 2])
    def test_the_default_scores_as_on_a_cpu(self, make, n_members):
        scores, y = [], Y if make is ProbMixupRegressor else LABELS
        for device in ("cpu", "cuda"):
            est = make(n_members=n_members, device=device, random_state=0).fit(X[:150], y[:150])
            scores.append(est.score(X[150:], y[150:]))
        # About the standard error of a score of 50 rows.
        assert abs(np.diff(scores)) < 0.1

    @pytest.mark.parametrize("kind", NAMED[:-1], ids=range(len(NAMED) - 1))
    def test_a_few_steps_are_those_of_a_cpu(self, kind):
        # Without what is drawn on the device: dropout, and the noise of an embedding.
        kind = kind.updated(method="probmix") if kind.method == "m-probmix" else kind
        found = []
        for device in ("cpu", "cuda"):
            est = ProbMixupRegressor(method=kind, n_members=2, max_epochs=2, random_state=0)
            found.append(est.set_params(device=device).fit(X, Y, WEIGHT).predict(X))
        assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("kind", NAMED[:-1] + list(REGRESSION[:7]), ids=str)
    def test_torch_sees_no_wait_in_a_step(self, kind):
        class NoWait(Callback):
            def on_batch_begin(self, net, **kwargs):
                torch.cuda.set_sync_debug_mode("error")

            def on_batch_end(self, net, **kwargs):
                # Between batches too; at the end of an epoch there is a question.
                if len(net.history[-1]["batches"]) == len(net.loader):
                    torch.cuda.set_sync_debug_mode("default")

        kind = kind.updated(batch_size=32, max_epochs=2)
        est = ProbMixupRegressor(method=kind, n_members=2, callbacks=[NoWait()], device="cuda")
        try:
            est.fit(X, Y, WEIGHT)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        # A wait would have been an error in one of these epochs.
        assert len(est.net_.history) == 2

    def test_a_fit_goes_on_where_the_device_says(self):
        est = ProbMixupRegressor(**TINY, warm_start=True, device="cuda").fit(X, Y)
        before = est.predict(X)
        est.set_params(device="cpu", max_epochs=1, lr=1e-12).fit(X, Y)
        assert not next(est.net_.module_.parameters()).is_cuda
        assert_allclose(est.predict(X), before, rtol=1e-3, atol=1e-3)

    def test_fits_side_by_side(self):
        fits = [ProbMixupRegressor(**TINY, device="cuda") for _ in range(2)]
        fitted = fit_together(fits, [(X[:100], Y[:100]), (X[100:], Y[100:])])
        assert all(np.isfinite(est.predict(X)).all() for est in fitted)
