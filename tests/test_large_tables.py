"""Tables of many rows: memory, parts of a pass, predictions in chunks, and streams."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from one_network import TINY
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from sklearn_probmix import (
    Kind,
    ProbMixupClassifier,
    ProbMixupRegressor,
    dividing,
    race,
    scaling,
    weighing,
)
from sklearn_probmix.encoding import row_chunks, to_columns
from sklearn_probmix.loaders import TensorLoader
from sklearn_probmix.nets import spread
from sklearn_probmix.scaling import fit_scaler, merge_scalers, scale_columns

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
Y = X[:, 0] + 0.1 * RNG.normal(size=300)


def regressor(**parameters):
    return ProbMixupRegressor(**TINY | parameters)


class TestInput:
    def test_float32_is_read_where_it_lies(self):
        est = regressor().fit(X, Y)
        for reset in (True, False):
            assert np.shares_memory(to_columns(est, X, reset=reset), X)

    def test_float32_gives_the_bits_of_the_same_numbers_in_float64(self):
        expected = regressor().fit(X.astype(np.float64), Y).predict(X.astype(np.float64))
        assert_array_equal(regressor().fit(X, Y).predict(X), expected)

    def test_a_memory_map_gives_the_bits_of_its_array(self, tmp_path):
        np.save(tmp_path / "X.npy", X)
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        assert_array_equal(
            regressor().fit(mapped, Y).predict(mapped), regressor().fit(X, Y).predict(X)
        )

    @pytest.mark.parametrize("weight", [None, RNG.uniform(0.5, 2, size=300)])
    def test_scaling_in_chunks_is_that_of_all_rows(self, monkeypatch, weight):
        rows = X.copy()
        rows[::7, 1] = np.nan
        is_given = ~np.isnan(rows)
        monkeypatch.setattr(scaling, "_CHUNK", 100)
        scaler = fit_scaler(rows, weight)
        for column, given in enumerate(is_given.T):
            values = rows[given, column].astype(np.float64)
            own = None if weight is None else weight[given]
            mean = np.average(values, weights=own)
            assert_allclose(scaler.mean_[column], mean, rtol=1e-12)
            sd = np.sqrt(np.average((values - mean) ** 2, weights=own))
            assert_allclose(scaler.scale_[column], sd, rtol=1e-12)
        scaled = scale_columns(scaler, rows).numpy()
        expected = np.where(is_given, (rows - scaler.mean_) / scaler.scale_, 0.0)
        assert_array_equal(scaled, expected.astype(np.float32))


MEMORY = """
import resource, sys
import numpy as np
from sklearn_probmix import Kind, ProbMixupRegressor

def used():
    status = open("/proc/self/status").read()
    return int(status.split("VmData:")[1].split()[0]) * 1024

path, n_rows, MiB = sys.argv[1], 1_000_000, 2**20
X = np.memmap(path, dtype=np.float32, mode="r", shape=(n_rows, 20))
y = X[:, 0].astype(np.float64)
kind = Kind("erm", hidden_layer_sizes=(), batch_size=16384, max_epochs=1, lr=0.05)
est = ProbMixupRegressor(method=kind, n_members=2, validation=0.01, random_state=0)
limit = used() + X.nbytes + 350 * MiB
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
est.fit(X, y)
means = [dist.mean() for dist in est.iter_predict_proba(X)]
print(np.corrcoef(np.concatenate(means), y)[0, 1])
"""


def in_a_process(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        # Arrow's own pool reserves a GiB of addresses, which count as memory.
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")
@pytest.mark.slow
def test_a_memory_map_of_a_million_rows_takes_the_memory_of_one_copy(tmp_path):
    X = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=(1_000_000, 20))
    np.random.default_rng(0).standard_normal(out=X, dtype=np.float32)
    X.flush()
    assert float(in_a_process(MEMORY, tmp_path / "X")) > 0.8


class TestPartsOfAPass:
    class Data:
        X = torch.arange(10.0)
        y = torch.arange(10.0)

    def test_they_go_on_through_the_rows(self):
        loader = TensorLoader(self.Data, 2, shuffle=True, random_state=0, n_batches=2)
        assert len(loader) == 2
        parts = [torch.cat([X for X, _ in loader]) for _ in range(5)]
        assert [len(part) for part in parts] == [4] * 5
        rows = torch.cat(parts)
        for one_pass in (rows[:10], rows[10:]):
            assert sorted(one_pass.tolist()) == list(range(10))
        assert rows[:10].tolist() != rows[10:].tolist()

    @pytest.mark.parametrize("n_batches", [None, 2])
    def test_another_loader_goes_on_where_one_is(self, n_batches):
        options = {"batch_size": 2, "shuffle": True, "n_batches": n_batches}
        loader = TensorLoader(self.Data, random_state=0, **options)
        for n_parts in range(4):
            for _ in range(n_parts):
                list(loader)
            other = TensorLoader(self.Data, random_state=1, **options)
            other.restore(loader.state())
            for _ in range(4):
                one, two = (torch.cat([X for X, _ in each]) for each in (loader, other))
                assert one.tolist() == two.tolist()

    def test_a_part_may_be_more_than_a_pass(self):
        loader = TensorLoader(self.Data, 4, n_batches=5)
        assert [len(X) for X, _ in loader] == [4, 4, 2, 4, 4]

    def test_rows_that_judge_are_spread(self):
        assert spread(torch.arange(10), 4).tolist() == [0, 3, 6, 9]
        assert spread(torch.arange(3), 4).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("n_rows", "steps"), [(40_000, 3000), (640_000, 15_834)])
def test_steps_of_a_race_grow_slower_than_rows(n_rows, steps):
    kind = Kind(lr_schedule="averaged").sized(n_rows)
    assert kind.batch_size == 1024
    # Whole passes, rounded down.
    per_pass = -(-n_rows // 1024)
    assert 0 <= steps - kind.max_epochs * per_pass < per_pass
    assert Kind().sized(n_rows).batch_size == 256
    assert Kind().sized(n_rows).max_epochs == 100


@pytest.fixture
def large(monkeypatch):
    """Let 200 training rows make a table large, and kinds be five that learn."""
    racer = Kind(hidden_layer_sizes=(), lr=0.01, batch_size=2, max_epochs=3, n_iter_no_change=None)
    kinds = tuple(racer.updated(weight_decay=0.1 + place / 10) for place in range(4))
    kernel = Kind(network="kernel", hidden_layer_sizes=(4,), batch_size=2, n_steps=90)
    for module in (dividing, race):
        monkeypatch.setattr(module, "LARGE_TABLE", 200)
    monkeypatch.setattr(dividing, "_MOST_HELD_OUT", 50)
    monkeypatch.setattr(race, "_FIRST_RUNG", 20)
    for make in (ProbMixupRegressor, ProbMixupClassifier):
        monkeypatch.setattr(make, "_auto_kinds", (*kinds, kernel))


@pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
def test_members_share_a_hold_out_of_a_large_table(large, make):
    y = Y if make is ProbMixupRegressor else Y > 0
    est = make(n_members=2, random_state=0)
    for n_rows, is_held_out in ((249, False), (250, True)):
        assert hasattr(est.fit(X[:n_rows], y[:n_rows]), "oof_predictive_") is not is_held_out
    assert len(est._divide(est._prepare(X, y), np.random.RandomState(0)).valid) == 50


def test_a_race_of_a_large_table(large, monkeypatch):
    runners, run = [], race._Runner.run

    def watched(runner, n_steps):
        runners.extend([runner] if runner not in runners else [])
        run(runner, n_steps)

    monkeypatch.setattr(race._Runner, "run", watched)
    est = ProbMixupRegressor(n_members=2, random_state=0, family="normal").fit(X, Y)
    # 250 training rows make a pass of 125 steps, of which an epoch has 20.
    assert {epoch["kind"] for epoch in est.history_} == set(range(len(est.kinds_)))
    n_epochs = [runner.training.n_epochs for runner in runners]
    assert sum(n > 2 for n in n_epochs) <= 3
    assert max(n_epochs[:4]) <= 19  # 3 passes
    assert n_epochs[4] <= 5  # 90 steps
    again = ProbMixupRegressor(n_members=2, random_state=0, family="normal").fit(X, Y)
    assert_array_equal(again.predict(X), est.predict(X))


TABLES = [X, X.tolist(), torch.from_numpy(X), pd.DataFrame(X), pl.DataFrame(X)]


class TestChunks:
    @pytest.mark.parametrize("table", TABLES, ids=lambda table: type(table).__module__)
    @pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
    def test_they_have_the_bits_of_all_rows(self, table, make):
        est = make(**TINY).fit(table, Y if make is ProbMixupRegressor else Y > 0)
        whole = est.predict_proba(table)
        chunks = list(est.iter_predict_proba(table, 128))
        assert [len(chunk) for chunk in chunks] == [128, 128, 44]
        for start, chunk in zip((0, 128, 256), chunks, strict=True):
            own = whole[start : start + 128]
            if make is ProbMixupRegressor:
                for name, values in own.params.items():
                    assert_array_equal(chunk.params[name], values)
            else:
                assert_array_equal(chunk, own)

    def test_blocks_change_no_bits(self, monkeypatch):
        kinds = [Kind(hidden_layer_sizes=(8,)), Kind(network="kernel", hidden_layer_sizes=(4,))]
        est = regressor(method=kinds, hidden_layer_sizes=None).fit(X, Y)
        classes = ProbMixupClassifier(**TINY).fit(X, Y > 0)

        def predictions():
            dist = est.predict_proba(X)
            p = [classes.predict_proba(X), classes.predict_log_proba(X)]
            return [*dist.params.values(), dist.weights, *est.predict(X, return_std=True), *p]

        whole = predictions()
        monkeypatch.setattr(weighing, "_BLOCK", 64)
        for found, expected in zip(predictions(), whole, strict=True):
            assert_array_equal(found, expected)

    @pytest.mark.parametrize("n_outputs", [1, 2])
    def test_predict_in_parts(self, monkeypatch, n_outputs):
        from sklearn_probmix import regressor as module

        y = Y if n_outputs == 1 else np.column_stack([Y, -Y])
        est = regressor().fit(X, y)
        dist = est.predict_proba(X)
        monkeypatch.setattr(module, "_MANY_ROWS", 100)
        assert_array_equal(est.predict(X), dist.mean())
        assert_array_equal(est.predict(X, return_std=True)[1], dist.std())
        for levels in (0.3, [0.1, 0.9]):
            assert_array_equal(est.predict(X, quantiles=levels), dist.ppf(levels))

    @pytest.mark.parametrize("chunk_size", [0, 1.5, None])
    def test_chunk_size_is_checked(self, chunk_size):
        with pytest.raises(ValueError, match=f"chunk_size={chunk_size}; expected an integer"):
            regressor().fit(X, Y).iter_predict_proba(X, chunk_size)

    def test_a_fit_is_asked_for_at_once(self):
        with pytest.raises(NotFittedError):
            regressor().iter_predict_proba(X)

    def test_what_has_no_rows_is_refused_as_by_predict(self):
        est = regressor().fit(X, Y)
        with pytest.raises(ValueError, match="Expected 2D array"):
            list(est.iter_predict_proba(3.0))
        assert list(row_chunks(3.0, 2)) == [3.0]


class TestStream:
    def chunks(self, size=50):
        order = np.argsort(X[:, 0])
        return [order[start : start + size] for start in range(0, 300, size)]

    def test_scalers_merge_to_that_of_all_rows(self):
        rows = X.astype(np.float64)
        rows[:100, 1] = np.nan
        rows[::9, 2] = np.nan
        merged, share = merge_scalers(fit_scaler(rows[:120], None), fit_scaler(rows[120:], None))
        expected = StandardScaler().fit(rows)
        for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
            assert_allclose(getattr(merged, name), getattr(expected, name), rtol=1e-12)
        assert share == 180 / 300

    @pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
    def test_the_scaling_is_that_of_all_rows(self, make):
        est, y = make(**TINY), Y if make is ProbMixupRegressor else (Y > 0).astype(int)
        for rows in self.chunks():
            extra = {} if make is ProbMixupRegressor else {"classes": [0, 1]}
            est.partial_fit(X[rows], y[rows], **extra)
        assert_allclose(est.scaler_.mean_, X.mean(0, np.float64), rtol=1e-6)
        assert_allclose(est.scaler_.scale_, X.std(0, np.float64), rtol=1e-6)
        if make is ProbMixupRegressor:
            assert_allclose([est.y_shift_[0], est.y_scale_[0]], [Y.mean(), Y.std()], rtol=1e-10)

    def test_equal_responses_of_a_chunk_have_no_variance(self):
        y = 1000 + np.repeat([0.0, 3.0, 1.0], 20)
        order = np.random.default_rng(0).permutation(60)
        est = regressor().partial_fit(X[order[:20]], y[order[:20]])
        # The next rows come one by one, and the last are all alike.
        rest = np.sort(order[20:])
        for rows in (*rest[:-10, None], rest[-10:]):
            est.partial_fit(X[rows], y[rows])
        assert_allclose([est.y_shift_[0], est.y_scale_[0]], [y.mean(), y.std()], rtol=1e-10)

    @pytest.mark.parametrize("weight", [None, np.linspace(0.1, 1, 100)])
    def test_a_column_that_is_missing_in_a_chunk_keeps_its_scale(self, weight):
        est = regressor().partial_fit(X[:100], Y[:100])
        before, rows = copy.deepcopy(vars(est.scaler_)), X[100:200].copy()
        rows[:, 1] = np.nan
        after = est.partial_fit(rows, Y[100:200], sample_weight=weight).scaler_
        for name in ("mean_", "var_", "scale_", "reach_"):
            found = getattr(after, name)
            assert_allclose(found[1], before[name][1], rtol=1e-12)
            assert np.isfinite(found).all()
        assert after.mean_[0] != before["mean_"][0]

    def test_a_first_chunk_unlike_the_others_does_no_harm(self):
        # Its x and y are within a thousandth of what they come to.
        x = np.linspace(0, 1, 40)[:, None] * np.array([1.0, 1e3, 1e3, 1e3])[:, None, None]
        est = regressor(max_epochs=None, lr=0.01)
        for _ in range(60):
            for rows in x:
                est.partial_fit(rows, 2 * rows[:, 0])
        assert_allclose(est.predict(x[1]), 2 * x[1][:, 0], atol=60)

    def test_a_number_whose_square_overflows_is_refused(self):
        est = regressor().partial_fit(X[:100], Y[:100])
        before, rows = est.scaler_.mean_.copy(), X[100:101].astype(np.float64)
        rows[0, 1] = 1e200
        with pytest.raises(ValueError, match="X holds numbers that are too far .* at most 1e150"):
            est.partial_fit(rows, Y[100:101])
        assert_array_equal(est.scaler_.mean_, before)

    def test_a_failed_call_leaves_the_scaling(self):
        est = regressor().partial_fit(X[:100], Y[:100])
        before = est.scaler_.mean_.copy()
        with pytest.raises(ValueError, match="y"):
            est.partial_fit(X[100:], Y[100:] * np.nan)
        assert_array_equal(est.scaler_.mean_, before)

    @pytest.mark.parametrize("parameters", [{"method": Kind(network="kernel")}, {}])
    def test_what_is_kept_in_the_units_of_the_first_call_stays(self, parameters):
        fixed = {"n_members": 1, "max_epochs": 2, "random_state": 0, "calibration": "on"}
        est = ProbMixupRegressor(**{"method": "erm"} | fixed | parameters)
        est = est.partial_fit(X[:100], Y[:100]) if parameters else est.fit(X[:100], Y[:100])
        before = est.scaler_.mean_
        assert_array_equal(est.partial_fit(X[100:], Y[100:]).scaler_.mean_, before)


WRITE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq

rng, path, n_groups, n_rows = np.random.default_rng(0), sys.argv[1], 36, 50_000
names = [f"x{place}" for place in range(99)] + ["y"]
writer = None
for _ in range(n_groups):
    X = rng.standard_normal((99, n_rows), dtype=np.float32)
    y = X[0] - X[1] + 0.1 * rng.standard_normal(n_rows, dtype=np.float32)
    table = pa.table(dict(zip(names, [*X, y])))
    options = {"compression": "none", "use_dictionary": False}
    writer = writer or pq.ParquetWriter(path, table.schema, **options)
    writer.write_table(table)
writer.close()
"""
STREAM = """
import os, resource
limit = int(0.9 * os.path.getsize(path))
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
est = fit_stream(path)
X, y = next(chunks(path, 2000))
print(np.corrcoef(est.predict(X), y)[0, 1], est.scaler_.n_samples_seen_.max())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")
@pytest.mark.slow
def test_the_recipe_fits_a_parquet_file_larger_than_the_memory(tmp_path):
    pytest.importorskip("pyarrow", reason="needs Arrow")
    path = tmp_path / "table.parquet"
    in_a_process(WRITE, path)
    text = (Path(__file__).parents[1] / "docs" / "large.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```python\n(import numpy as np\nimport pyarrow.*?)```", text, re.S)
    correlation, n_rows = in_a_process(f"{recipe}\npath = {str(path)!r}\n{STREAM}").split()
    assert float(correlation) > 0.98
    assert float(n_rows) == 1_800_000
