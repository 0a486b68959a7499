"""A checkout is timed and scored in a process of its own."""

from pathlib import Path

import numpy as np

import benchmarks
from benchmarks.speed.versions import fit


def test_a_fit_of_a_checkout(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(2, 20))
    np.savez(tmp_path / "rows.npz", X=X[:, None], y=y, X_test=X[:4, None], y_test=y[:4])
    found = fit(Path(benchmarks.__file__).parent.parent, tmp_path / "rows.npz", 0)
    # Far from the standard deviation of y, 1, only where something is wrong.
    assert 0 < found["crps"] < 1
    assert 0 < found["nll"] < 3
    assert found["seconds"] > 0
