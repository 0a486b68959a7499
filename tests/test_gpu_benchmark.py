"""The benchmark of devices: what it runs, and what its table says."""

import json

import pytest
import torch

from benchmarks import gpu


def test_every_fit_but_the_longest_is_run_on_both():
    found = [tuple(job.values()) for job in gpu.jobs()]
    assert len(found) == 11
    assert found[:2] == [("networks", 1_000, "cpu"), ("networks", 1_000, "cuda")]
    assert found[-1] == ("default", 1_000_000, "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU on this machine")
def test_without_a_gpu_nothing_is_run(tmp_path, capsys):
    gpu.main(["--results", str(tmp_path / "gpu.json")])
    printed = capsys.readouterr().out
    assert printed.startswith("not run: torch finds no GPU")
    assert printed.count("| not run") == 6 * 11
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] is None
    assert found["fits"] == gpu.jobs()


def test_a_fit_that_takes_too_long_is_not_run():
    job = {"what": "networks", "n_rows": 1_000, "device": "cpu"}
    assert gpu._within(0.1, job, 1) == job
    assert gpu._within(-1, job, 1) == job


def test_the_table():
    job = {"what": "networks", "n_rows": 1_000}
    numbers = {"fit": 2.04, "predict": 0.5, "crps": 0.25, "peak": 0.0}
    cpu = job | numbers | {"device": "cpu", "nll": 1.0}
    text = gpu.report([cpu, cpu | {"device": "cuda", "nll": 1.25, "peak": 81.0}])
    assert "| networks | 1,000 x 10 | cpu | 2.0 | 0.5 | 1.0000 | 0.2500 |  |  |" in text
    assert "| networks | 1,000 x 10 | cuda | 2.0 | 0.5 | 1.2500 | 0.2500 | +0.2500 | 81 |" in text


def test_a_fit_is_timed_and_scored(monkeypatch):
    monkeypatch.setattr(gpu, "N_TEST", 200)
    monkeypatch.setitem(gpu._EPOCHS, 1_000, 1)
    found = gpu.fit_one("networks", 1_000, "cpu")
    assert found["fit"] > found["predict"] > 0
    # Without columns that say nothing of it, y has a standard deviation of about 1.2.
    assert 0.1 < found["crps"] < 1.2
    assert 0 < found["nll"] < 4
