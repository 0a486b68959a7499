"""Recipes of docs/cluster.md, run for real."""

import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes

from sklearn_probmix import ProbMixupRegressor, load_model, save_model
from tests import data_parallel

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs" / "cluster.md"


def recipe(*words):
    """Join the blocks that have these words, each one."""
    blocks = re.findall(r"```python\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)
    code = ""
    for word in words:
        (block,) = [block for block in blocks if word in block]
        code += block
    return code


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run recipes as one script, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        # By its whole path, from which other processes import it.
        path = tmp_path / "recipe.py"
        path.write_text(recipe(*words), encoding="utf-8")
        return runpy.run_path(str(path), run_name="__main__")

    return run


@pytest.fixture
def model(tmp_path):
    """Fit on a frame, which is written to a file beside the model."""
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    est = ProbMixupRegressor(method="probmix", n_members=2, max_epochs=3, random_state=0)
    est.fit(X, y)
    save_model(est, tmp_path / "model.safetensors")
    return est, X


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "word"), [("distributed", "LocalCluster"), ("ray", "register_ray")]
)
def test_a_search_on_a_cluster_finds_what_joblib_finds(run, library, word):
    pytest.importorskip(library)
    ran = run("GridSearchCV", word)
    search = clone(ran["search"]).set_params(n_jobs=2).fit(ran["X"], ran["y"])
    assert ran["search"].best_params_ == search.best_params_
    for name in ("mean_test_score", "std_test_score"):
        assert_array_equal(ran["search"].cv_results_[name], search.cv_results_[name])


@pytest.mark.parametrize(
    "scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_blocks_of_a_dask_array_are_predicted_as_one_piece(run, model, scheduler):
    pytest.importorskip("dask")
    est, X = model
    est.fit(X.to_numpy(), X["bmi"])
    save_model(est, "model.safetensors")
    np.save("X.npy", X)
    found = run("map_blocks")["low_high"]
    assert found.numblocks == (5, 1)
    expected = np.column_stack(est.predict_proba(X.to_numpy()).interval(0.9))
    assert_array_equal(found.compute(scheduler=scheduler, num_workers=2), expected)


@pytest.mark.slow
def test_spark_predicts_as_one_piece(run, model):
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    est, X = model
    X.assign(id=np.arange(len(X))).to_parquet("rows.parquet", row_group_size=100)
    run("mapInPandas")
    found = pd.read_parquet("intervals.parquet").set_index("id").sort_index()
    low, high = est.predict_proba(X).interval(0.9)
    assert_array_equal(found.index, np.arange(len(X)))
    assert_array_equal(found["low"], low)
    assert_array_equal(found["high"], high)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fit in two processes, and return where the models are."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("data_parallel")
    (folder / "recipe.py").write_text(recipe("AccelerateMixin"), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    settings = {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [*launch, "-m", "tests.data_parallel"],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def both(folder, name):
    """Return what two processes fitted, and the same fit by one."""
    net = data_parallel.plain_net()
    return load_model(folder / f"{name}.safetensors", net=net), data_parallel.fitted(name, net)


@pytest.mark.slow
class TestTwoProcesses:
    def test_the_recipe_trains(self, folder):
        est = load_model(folder / "model.safetensors", net=data_parallel.plain_net((64, 64)))
        X, y = load_diabetes(return_X_y=True)
        assert est.predict_proba(X).logpdf(y).mean() > -5.5

    @pytest.mark.parametrize("name", data_parallel.SAME)
    def test_ends_as_one_process_does(self, folder, name):
        found, one = both(folder, name)
        X, _ = data_parallel.rows()
        assert found.n_iter_ == one.n_iter_
        assert_array_equal(found.best_epoch_, one.best_epoch_)
        for loss in ("train_loss", "valid_loss"):
            losses = [[epoch.get(loss, 0) for epoch in est.history_] for est in (found, one)]
            assert_allclose(*losses, rtol=1e-4)
        assert_allclose(found.predict(X), one.predict(X), atol=1e-3 * one.y_scale_[0])

    @pytest.mark.parametrize("name", data_parallel.MIXED)
    def test_mixes_in_each_process(self, folder, name):
        found, one = both(folder, name)
        X, y = data_parallel.rows()
        scores = [est.predict_proba(X).logpdf(y).mean() for est in (found, one)]
        assert scores[0] != scores[1]
        assert_allclose(*scores, atol=0.05)

    def test_a_pickle_needs_no_other_process(self, folder):
        found = pickle.loads((folder / "erm.pickle").read_bytes())
        same = load_model(folder / "erm.safetensors", net=data_parallel.plain_net())
        X, _ = data_parallel.rows()
        assert_array_equal(found.predict(X), same.predict(X))


def test_an_accelerated_net_without_a_device_is_refused():
    pytest.importorskip("accelerate")
    net = data_parallel.accelerated_net().set_params(device=None)
    with pytest.raises(ValueError, match="device=None; expected device=accelerator.device.type"):
        data_parallel.fitted("erm", net)
