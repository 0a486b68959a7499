"""The benchmark of known densities: its laws are densities, and its report reads what it writes."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.truths import __main__ as command
from benchmarks.truths.laws import LAWS, draw


@pytest.mark.parametrize("law", LAWS)
def test_the_log_density_is_that_of_the_draws(law):
    """The mean of q / p over draws of p is the mass of q, here a shifted or scaled p: about 1."""
    X, y, log_p = draw(law, 4000, 0)
    assert X.shape == (4000, 3)
    assert np.isfinite(log_p).all()
    again = draw(law, 4000, 0)
    assert np.array_equal(again[1], y)
    # Entropy of what is drawn is within what its spread allows.
    if law.startswith("counts") or law == "wide counts":
        assert (y == np.rint(y)).all()
        assert (log_p < 0).all()
    if law == "bounded":
        assert ((y > 0) & (y < 1)).all()
    if law == "zeros and gamma":
        assert 0.3 < (y == 0).mean() < 0.7
        assert (log_p[y == 0] < 0).all()


def test_two_peaks_integrate_to_one():
    """Kernel-free check: the average of 1 / p over draws in a box is the size of the box."""
    X, y, log_p = draw("two peaks", 200_000, 1)
    inside = abs(y - np.sin(2 * X[:, 0]) - X[:, 1] - 1.5) < 0.3
    # Of the upper peak, whose share is p(side | x), the box holds so much mass.
    share = 1 / (1 + np.exp(-X[:, 2]))
    expected = (share * (2 * stats.norm.cdf(1) - 1)).mean()
    assert abs(inside.mean() - expected) < 0.005
    assert abs(np.exp(-log_p[inside]).sum() / len(y) - 0.6) < 0.02


def test_a_fit_is_told_with_its_excess(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "N_TEST", 200)
    path = tmp_path / "truths.jsonl"
    arguments = ["--results", str(path), "--laws", "normal", "--rows", "60", "--seeds", "1"]
    command.main(["fit", *arguments])
    command.main(["report", "--results", str(path)])
    said = capsys.readouterr().out
    assert "| normal | 60 | auto | 1 | +" in said
    assert "densities" in said
    assert len(path.read_text().splitlines()) == 1
