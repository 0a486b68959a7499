"""The benchmark of known densities: its laws are densities, and its report reads what it writes."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit

from benchmarks.truths import __main__ as command
from benchmarks.truths.laws import LAWS, RIGHT, draw
from sklearn_probmix import PredictiveDistribution, get_family


@pytest.mark.parametrize("law", LAWS)
def test_the_log_density_is_that_of_the_draws(law):
    """The mean of q / p over draws of p is the mass of q, here a shifted or scaled p: about 1."""
    X, y, log_p = draw(law, 4000, 0)
    assert X.shape == (4000, 3)
    assert np.isfinite(log_p).all()
    again = draw(law, 4000, 0)
    assert np.array_equal(again[1], y)
    # Entropy of what is drawn is within what its spread allows.
    if "counts" in law:
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


@pytest.mark.parametrize("law", LAWS)
def test_the_right_family_takes_the_law(law):
    _, y, _ = draw(law, 500, 0)
    assert get_family(command.named_family(RIGHT[law])).in_support(torch.from_numpy(y)).all()


def test_of_a_law_of_its_own_a_linear_model_loses_little():
    settings = {"law": "log-linear counts of 1e6", "n_rows": 300, "seed": 0, "peer": command.PEER}
    scores = command.fit_law(settings)
    # Four parameters, half a nat of 300 rows each in the mean.
    assert 0 < scores["excess"] < 0.02
    assert abs(scores["coverage_0.8"] - 0.8) < 0.03


def test_a_heap_is_scored_by_the_probability_of_its_cell(monkeypatch):
    """A spike at zero is as good as a mass there, and no better."""

    def spike(settings, X, y_train, X_test):
        zero, share = np.zeros((len(X_test), 1)), expit(X_test[:, [2]])
        narrow = PredictiveDistribution("norm", {"loc": zero, "scale": zero + 1e-6})
        size = np.exp(0.5 * X_test[:, [0]] + 0.3 * np.sin(2 * X_test[:, [1]]))
        gamma = PredictiveDistribution("gamma", {"a": zero + 3, "scale": size})
        return PredictiveDistribution.mix([narrow, gamma], np.hstack([1 - share, share]))

    monkeypatch.setattr(command, "_ours", spike)
    scores = command.fit_law({"law": "zeros and gamma", "n_rows": 10, "seed": 0})
    assert abs(scores["excess"]) < 1e-3


def test_peers_and_right_families_are_those_of_the_law():
    found = command.jobs(["wide counts", "counts of 1"], [60], 1, ["auto", "right", command.PEER])
    assert [(job["law"], job["family"], "peer" in job) for job in found] == [
        ("wide counts", "auto", False),
        ("wide counts", "negative-binomial", False),
        ("counts of 1", "auto", False),
        ("counts of 1", "poisson", False),
        ("counts of 1", "poisson", True),
    ]


def test_a_fit_is_told_with_its_excess(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "N_TEST", 200)
    path = tmp_path / "truths.jsonl"
    chosen = ["--laws", "normal", "--rows", "60", "--seeds", "1", "--families", "auto"]
    arguments = ["--results", str(path), *chosen]
    command.main(["fit", *arguments])
    command.main(["report", "--results", str(path)])
    said = capsys.readouterr().out
    assert "| normal | 60 | auto | 1 | +" in said
    assert "densities" in said
    assert len(path.read_text().splitlines()) == 1
