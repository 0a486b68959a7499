"""Long fits: kinds side by side, Ctrl-C, a checkpoint to go on from, and the bar."""

import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from skorch.callbacks import Callback

from sklearn_probmix import (
    Kind,
    ProbMixupClassifier,
    ProbMixupRegressor,
    fit_together,
    load_model,
    progress,
    save_model,
)
from sklearn_probmix.calibration import stacking_weights
from sklearn_probmix.checkpoint import Checkpoint
from sklearn_probmix.workers import Workers
from tests.long_fit import FIRST_RUNG, RACERS, rows


@pytest.fixture(autouse=True)
def racers(monkeypatch):
    """Let "auto" be four small kinds of all sorts, in short rungs."""
    monkeypatch.setattr("sklearn_probmix.race._FIRST_RUNG", FIRST_RUNG)
    for make in (ProbMixupRegressor, ProbMixupClassifier):
        monkeypatch.setattr(make, "_auto_kinds", RACERS)


def racer(make=ProbMixupRegressor, **parameters):
    return make(**{"n_members": 2, "random_state": 0} | parameters)


def bits(est, X):
    dist = est.predict_proba(X)
    return dist if isinstance(dist, np.ndarray) else np.stack([dist.mean(), dist.std()])


@pytest.fixture(scope="module")
def table():
    return rows()


@pytest.fixture(scope="module")
def whole(table):
    """Fit in one thread and without a checkpoint, once for all tests that compare with it."""
    fits = {}

    def whole(make=ProbMixupRegressor, **parameters):
        case = make, repr(parameters)
        if case not in fits:
            X, y = table
            est = racer(make, n_jobs=1, **parameters)
            fits[case] = est.fit(X, y if make is ProbMixupRegressor else y > 0)
        return fits[case]

    return whole


def test_a_race_knows_nothing_of_an_earlier_fit(table, monkeypatch):
    judged = []

    def weights(scores, row_weight):
        judged.append(scores)
        return stacking_weights(scores, row_weight)

    monkeypatch.setattr("sklearn_probmix.race.stacking_weights", weights)
    est, (X, y) = racer(calibration="on", n_jobs=1), table
    est.fit(X, y)
    assert est.calibration_ is not None
    n_judged = len(judged)
    est.fit(X, y)
    assert len(judged) == 2 * n_judged
    for first, second in zip(judged, judged[n_judged:], strict=False):
        assert_array_equal(first, second)


@pytest.fixture
def two_threads(monkeypatch):
    """Let torch have two, as it comes: the tests run with one."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.mark.usefixtures("two_threads")
class TestSideBySide:
    @pytest.mark.parametrize("n_jobs", [None, 2, 3, -1])
    @pytest.mark.parametrize(
        "parameters", [{}, {"validation": 0.3}, {"method": [*RACERS], "max_epochs": 4}]
    )
    @pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
    def test_the_bits_are_those_of_one_after_the_other(
        self, table, whole, make, parameters, n_jobs
    ):
        X, y = table
        y = y if make is ProbMixupRegressor else y > 0
        one = whole(make, **parameters)
        several = racer(make, n_jobs=n_jobs, **parameters).fit(X, y)
        assert several.kinds_ == one.kinds_
        assert_array_equal(several.weights_, one.weights_)
        assert_array_equal(bits(several, X), bits(one, X))
        pickle.dumps(several)

    @pytest.mark.parametrize("n_jobs", [None, 1, 2])
    def test_so_many_threads_train(self, table, n_jobs):
        found = set()

        class Note(Callback):
            def on_epoch_end(self, net, **kwargs):
                found.add(threading.get_ident())

        # None is not 2 where callbacks would be called from several threads.
        racer(n_jobs=n_jobs, callbacks=[Note()]).fit(*table)
        assert len(found) == (n_jobs or 1)
        assert (threading.get_ident() in found) == (n_jobs != 2)

    def test_a_network_of_small_steps_has_one_thread(self):
        def found(batch_size, n_members):
            """Threads of torch in an epoch and after the fit; in a process as torch begins it."""
            code = SMALL_STEPS.format(batch_size=batch_size, n_members=n_members)
            environment = os.environ | dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS"], "2")
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env=environment
            )
            return done.stdout.split()

        assert found(64, 5) == ["1", "2"]
        assert found(500, 2) == ["2", "2"]

    def test_joblib_says_how_many(self):
        assert Workers(None, 9).n_threads == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(Workers, None, 9).result().n_threads == 1
        assert Workers(3, 9).n_threads == 3
        assert Workers(3, 2).n_threads == 2
        assert Workers(-1, 1000).n_threads == min(1000, len_of_cores())
        for n_jobs in (1, 3):
            with parallel_config(n_jobs=n_jobs):
                assert Workers(None, 9).n_threads == n_jobs
        with pytest.raises(ValueError, match="n_jobs"):
            Workers(0, 9)

    @pytest.mark.parametrize("backend", ["loky", "threading"])
    def test_a_worker_of_a_search_takes_its_share_only(self, backend):
        # In processes joblib shares out the cores, and in threads torch's setting holds.
        asked = Parallel(2, backend=backend)(delayed(threads_of)(n) for n in (None, 4, -1))
        for n_threads, share in asked:
            assert n_threads <= share

    def test_torchs_threads_are_shared_out_and_nobody_else_notices(self):
        code = """
import torch
from sklearn_probmix.workers import Workers
torch.set_num_threads(4)
print(*Workers(2, 4).map(lambda _: torch.get_num_threads(), range(4)), torch.get_num_threads())
print(Workers(None, 9).n_threads)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == ["2"] * 4 + ["4", "4"]

    def test_an_error_in_a_thread_is_one_of_fit(self, table):
        class Fail(Callback):
            def on_epoch_end(self, net, **kwargs):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            racer(n_jobs=2, callbacks=[Fail()]).fit(*table)


SMALL_STEPS = """
import numpy as np
import torch
from skorch.callbacks import Callback
from sklearn_probmix import Kind, ProbMixupRegressor

class Note(Callback):
    def on_epoch_end(self, net, **kwargs):
        print(torch.get_num_threads())

X = np.random.default_rng(0).normal(size=(500, 2))
kind = Kind(batch_size={batch_size}, max_epochs=1)
ProbMixupRegressor(
    method=kind, n_members={n_members}, validation=None, callbacks=[Note()]
).fit(X, X[:, 0])
print(torch.get_num_threads())
"""


def len_of_cores():
    from joblib import cpu_count

    return cpu_count()


def threads_of(n_jobs):
    return Workers(n_jobs, 9).n_threads, torch.get_num_threads()


class Interrupt(Callback):
    """Raise what Ctrl-C raises, once, in an epoch of the network that begins after so many."""

    def __init__(self, n_before, epoch):
        self.n_before, self.epoch, self.nets, self.is_done = n_before, epoch, [], False

    def on_batch_end(self, net, training=False, **kwargs):
        self.nets += [] if net in self.nets else [net]
        is_place = len(self.nets) > self.n_before and len(net.history) == self.epoch
        if training and is_place and not self.is_done:
            self.is_done = True
            raise KeyboardInterrupt


class PressCtrlC(Interrupt):
    def on_batch_end(self, net, training=False, **kwargs):
        try:
            super().on_batch_end(net, training)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
            # It reaches the main thread, if this is another.
            time.sleep(0.2)


@pytest.fixture
def heeds_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("interrupt", [Interrupt, PressCtrlC])
class TestCtrlC:
    def test_in_the_first_rung_keeps_the_kinds_so_far(self, table, whole, interrupt):
        with pytest.warns(UserWarning, match="Training was interrupted. Kept ") as caught:
            est = racer(callbacks=[interrupt(2, 3)]).fit(*table)
        sized = [kind.sized(len(table[0]) // 2) for kind in RACERS]
        (message,) = [str(warning.message) for warning in caught]
        assert message.endswith(f"; missing: {sized[3]!r}.")
        assert est.kinds_ == [kind for kind in sized[:3] if kind in est.kinds_]
        assert f"mixture of {len(est.kinds_)} kinds" in message
        assert est.weights_.sum() == pytest.approx(1)
        assert np.isfinite(bits(est, table[0])).all()
        # What had its whole rung is what an uninterrupted race has after it.
        assert est.history_[0]["valid_loss"] == whole().history_[0]["valid_loss"]

    def test_in_a_later_rung_keeps_all_kinds(self, table, interrupt):
        first_rung = 5
        with pytest.warns(UserWarning, match="Training was interrupted") as caught:
            est = racer(callbacks=[interrupt(0, first_rung + 2)]).fit(*table)
        assert "missing" not in str(caught[0].message)
        assert len(est.kinds_) > 1
        assert max(epoch["epoch"] for epoch in est.history_) <= first_rung + 1

    def test_before_anything_is_kept_it_reaches_the_user(self, table, interrupt):
        est = racer(callbacks=[interrupt(0, 1)])
        with pytest.raises(KeyboardInterrupt):
            est.fit(*table)
        assert not hasattr(est, "nets_")

    def test_side_by_side_stops_all_threads(self, table, interrupt):
        pressed = interrupt(1, 3)

        class Slowly(Callback):
            """Lets no kind end before the key that was pressed reaches the main thread."""

            def on_batch_end(self, net, **kwargs):
                time.sleep(0.1 if pressed.is_done else 0)

        with pytest.warns(UserWarning, match="Training was interrupted"):
            est = racer(n_jobs=2, callbacks=[pressed, Slowly()]).fit(*table)
        assert len(est.kinds_) < len(RACERS)
        assert np.isfinite(bits(est, table[0])).all()
        assert not any(thread.name.startswith("kind") for thread in threading.enumerate())

    def test_kinds_of_a_list(self, table, interrupt):
        method = [kind.updated(max_epochs=5) for kind in RACERS]
        est = racer(method=method, callbacks=[interrupt(1, 3)])
        with pytest.warns(UserWarning, match="missing: ") as caught:
            est.fit(*table)
        assert str(caught[0].message).count("Kind(") == 2
        assert len(est.kinds_) == len(est.nets_) == len(est.weights_) == 2


class TestCheckpoint:
    def test_a_fit_that_ends_leaves_no_files(self, table, whole, tmp_path):
        X, _ = table
        est = racer(checkpoint=tmp_path / "a" / "b").fit(*table)
        assert_array_equal(bits(est, X), bits(whole(), X))
        assert not (tmp_path / "a" / "b").exists()
        (tmp_path / "note").touch()
        racer(checkpoint=str(tmp_path)).fit(*table)
        assert {path.name for path in tmp_path.iterdir()} == {"note", "a"}

    @pytest.mark.parametrize("n_jobs", [1, 2])
    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"method": [kind.updated(max_epochs=12) for kind in RACERS]},
            {
                "method": ["probmix", "m-probmix"],
                "validation": None,
                "max_epochs": 12,
                "batch_size": 16,
            },
            {"method": Kind("mixup", dropout=0.1, n_neighbors=3, batch_size=16, max_epochs=12)},
        ],
    )
    @pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
    def test_an_interrupted_fit_goes_on(self, table, whole, tmp_path, make, parameters, n_jobs):
        X, y = table
        y = y if make is ProbMixupRegressor else y > 0
        whole = whole(make, **parameters)
        est = racer(make, checkpoint=tmp_path, n_jobs=n_jobs, **parameters)
        for epoch in (8, 11):
            with pytest.warns(UserWarning, match="Training was interrupted"):
                clone(est).set_params(callbacks=[Interrupt(0, epoch)]).fit(X, y)
            assert [*tmp_path.glob("kind-*")]
        est.fit(X, y)
        assert est.kinds_ == whole.kinds_
        assert_array_equal(est.best_epoch_, whole.best_epoch_)
        assert_array_equal(bits(est, X), bits(whole, X))
        for one, other in zip(est.nets_, whole.nets_, strict=True):
            for name, value in other.module_.state_dict().items():
                assert_array_equal(one.module_.state_dict()[name], value, err_msg=name)

    def test_ctrl_c_while_a_kind_is_kept_ends_no_kind_as_if_it_were_whole(
        self, table, tmp_path, monkeypatch, heeds_ctrl_c
    ):
        method = [kind.updated(max_epochs=12) for kind in RACERS[:2]]
        whole = racer(method=method).fit(*table)
        est = racer(method=method, checkpoint=tmp_path)

        def press(file):
            signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", press)
            with pytest.warns(UserWarning, match="missing: Kind"):
                clone(est).fit(*table)
        assert_array_equal(bits(est.fit(*table), table[0]), bits(whole, table[0]))

    def test_a_folder_that_cannot_be_deleted_costs_no_fit(
        self, table, whole, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        est = racer(checkpoint=".").fit(*table)
        assert_array_equal(bits(est, table[0]), bits(whole(), table[0]))
        assert not [*tmp_path.iterdir()]

    def test_a_path_that_is_no_folder_is_refused(self, table, tmp_path):
        (tmp_path / "note").touch()
        with pytest.raises(ValueError, match=r"checkpoint=.*note' is no folder"):
            racer(checkpoint=tmp_path / "note").fit(*table)

    @pytest.mark.slow
    def test_killed_and_started_again_it_ends_with_the_same_bits(self, table, whole, tmp_path):
        X, y = table
        folder = tmp_path / "folder"
        command = [sys.executable, "-m", "tests.long_fit", str(folder)]
        # In the first rung and in the second one.
        for n_writes in (2, 3):
            process, kept = subprocess.Popen(command, cwd=Path(__file__).parents[1]), {}
            n_seen = -1
            while process.poll() is None and n_seen < n_writes:
                now = {path: path.stat().st_mtime_ns for path in folder.glob("kind-*")}
                n_seen += now != kept
                kept = now
                time.sleep(5e-3)
            process.kill()
            assert process.wait() == -signal.SIGKILL
            assert kept
        assert len(kept) == len(RACERS)
        found = bits(racer(checkpoint=folder).fit(X, y), X)
        assert_array_equal(found, bits(whole(), X))
        assert not folder.exists()

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"random_state": 1}, "random_state"),
            ({"n_members": 3}, "parameters"),
            ({"validation": 0.3}, "validation"),
            ({"lr": 0.1}, "parameters"),
            ({"method": "erm"}, "parameters"),
            ({"weighting": "uniform"}, "parameters"),
        ],
    )
    def test_other_parameters_are_refused(self, left_behind, table, change, named):
        est = racer(checkpoint=left_behind, **change)
        files = {path.name: path.read_bytes() for path in left_behind.iterdir()}
        with pytest.raises(ValueError, match=f"checkpoint=.* of a fit of other .*{named}"):
            est.fit(*table)
        assert {path.name: path.read_bytes() for path in left_behind.iterdir()} == files

    @pytest.mark.parametrize("change", ["x", "y", "weight", "rows"])
    def test_other_data_are_refused(self, left_behind, table, change):
        X, y = (part.copy() for part in table)
        weight = np.ones(len(y))
        if change == "x":
            X[3, 1] += 1e-3
        elif change == "y":
            y[3] += 1e-3
        elif change == "weight":
            weight[3] = 2
        else:
            X, y, weight = X[:-1], y[:-1], weight[:-1]
        with pytest.raises(ValueError, match="checkpoint=.* of a fit of other data"):
            racer(checkpoint=left_behind).fit(X, y, sample_weight=weight)

    @pytest.mark.parametrize("only_changed", [True, False])
    def test_what_changes_no_training_may_change(self, left_behind, table, only_changed):
        est = racer(checkpoint=left_behind, calibration="off", n_jobs=2, verbose=1)
        with config_context(print_changed_only=only_changed):
            est.fit(*table)
        expected = racer(calibration="off").fit(*table)
        assert_array_equal(bits(est, table[0]), bits(expected, table[0]))

    @pytest.fixture
    def left_behind(self, table, tmp_path):
        with pytest.warns(UserWarning, match="interrupted"):
            racer(checkpoint=tmp_path, callbacks=[Interrupt(1, 3)]).fit(*table)
        return tmp_path

    @pytest.mark.parametrize(
        "parameters", [{"random_state": None}, {"warm_start": True}, {"net": "one"}]
    )
    def test_what_cannot_go_on_is_refused(self, table, whole, tmp_path, parameters):
        if "net" in parameters:
            parameters = {"net": whole().nets_[0]}
        with pytest.raises(ValueError, match="checkpoint=.* with (net|random_state|warm_start)"):
            racer(checkpoint=tmp_path, **parameters).fit(*table)
        with pytest.raises(ValueError, match="checkpoint="):
            fit_together([racer(checkpoint=tmp_path)], [table])

    @pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"8" * 200])
    def test_a_file_that_is_none_is_refused_unread(self, table, tmp_path, content):
        (tmp_path / "kind-0.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="kind-0.safetensors' is no checkpoint"):
            racer(checkpoint=tmp_path).fit(*table)

    def test_a_model_does_not_remember_the_folder(self, table, tmp_path):
        est = racer(checkpoint=tmp_path / "folder").fit(*table)
        save_model(est, tmp_path / "model")
        loaded = load_model(tmp_path / "model")
        assert loaded.checkpoint is None
        assert_array_equal(bits(loaded, table[0]), bits(est, table[0]))

    def test_a_write_that_was_killed_is_cleared_away(self, tmp_path):
        checkpoint = Checkpoint(tmp_path, {"data": "0"})
        (tmp_path / ".kind-0.safetensors.0123456789abcdef.tmp").touch()
        checkpoint.save(0, [1])
        checkpoint.clear()
        assert not tmp_path.exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_one_bar_for_the_whole_race(table, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    est = racer(verbose=1).fit(*table)
    bar = terminal.getvalue()
    last = bar.rstrip().splitlines()[-1].split("\r")[-1]
    assert bar.count("\n") == 1
    assert "rung 1, kind 1 of 4" in bar
    assert "rung 2, kind 1 of" in bar
    n_steps = 4 * len(est.history_)
    made, total = last.split("|")[2].split("[")[0].split("/")
    assert int(made) == int(total) >= n_steps
    shown = last.split("weights ")[1].rstrip("]").split()
    assert len(shown) == len(RACERS)
    delivered = [weight for weight in map(float, shown) if weight >= 0.02]
    assert delivered == pytest.approx(est.weights_, abs=0.05)
    pickle.dumps(est)


@pytest.mark.parametrize("pause", [0.0, 1000.0])
def test_lines_now_and_then_where_there_is_no_terminal(table, monkeypatch, capfd, pause):
    monkeypatch.setattr(progress, "_PAUSE", pause)
    racer(verbose=1).fit(*table)
    printed = capfd.readouterr().err
    lines = printed.splitlines()
    assert "\r" not in printed
    assert lines[-1].startswith("rung ")
    # One for every step, or the last alone.
    made, total = lines[-1].split("|")[2].split("[")[0].split("/")
    assert int(made) == int(total)
    assert len(lines) >= int(made) if pause == 0 else len(lines) == 1
