"""The benchmark of time and memory against rows: its law, and what its report says."""

import numpy as np
from scipy import stats

from benchmarks.scale import law
from benchmarks.scale.__main__ import jobs, report, slope
from benchmarks.scale.law import draw


def test_the_density_is_that_of_what_is_drawn():
    X, y, log_p = draw(100_000, 0)
    assert X.shape == (100_000, law.N_FEATURES)
    assert X.dtype == np.float32
    mean, sd = law._moments(X)
    assert stats.kstest((y - mean) / sd, "norm").pvalue > 0.01
    entropy = 0.5 * np.log(2 * np.pi * np.e) + np.log(sd).mean()
    # Of a Normal the variance of the log-density is 1/2.
    assert abs(-log_p.mean() - entropy) < 4 * np.sqrt(0.5 / len(y))


def test_a_table_is_the_beginning_of_a_longer_one(monkeypatch):
    monkeypatch.setattr(law, "_CHUNK", 100)
    short, longer = draw(200, 3), draw(300, 3)
    for found, expected in zip(short, longer, strict=True):
        np.testing.assert_array_equal(found, expected[:200])


def test_the_slope_is_the_power():
    n_rows = np.array([1e3, 1e4, 1e6])
    np.testing.assert_allclose(slope(n_rows, 3 * n_rows**0.4), 0.4)


def test_the_report():
    numbers = {"peak": 900.0, "peak_before": 400.0, "data": 80.0, "entropy": 0.5, "crps": 0.25}
    results = {
        str(n): {
            "settings": {"contender": "default", "n_rows": n, "seed": 0},
            "scores": numbers | {"seconds": n / 10, "nll": 0.75},
        }
        for n in (1000, 10_000)
    }
    text = report(results)
    assert "| default | 1,000 | 1 | 100 | 900 | 400 | 80 | 0.250 | 0.2500 |" in text
    assert "default: time grows as rows to the power of 1.00" in text
    assert report({}) == "not run"


def test_small_fits_come_first():
    assert [job["n_rows"] for job in jobs(["default", "catboost"], [10, 20], 1)] == [10, 10, 20, 20]
