"""The benchmark of censored responses: its likelihood, its concordance, and what it reports."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from benchmarks.censored import __main__ as command
from benchmarks.censored.study import (
    LAWS,
    PEER,
    TRUTH,
    concordance,
    draw,
    fit_law,
    most_likely,
    neg_log_likelihood,
)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_share_of_rows_is_censored(law, share):
    X, y, observed, censored = draw(law, share, 4000, 0)
    assert abs(censored.mean() - share) < 0.05
    assert (observed[censored] < y[censored]).all()
    assert (observed[~censored] == y[~censored]).all()
    z = np.log(y) if law == "lognormal" else y
    assert stats.kstest(z - 3 - X @ TRUTH[1:4], "norm", (0, 0.5)).pvalue > 0.01


def test_likelihood_by_hand():
    X, z = np.zeros((2, 3)), np.array([3.0, 4.0])
    expected = -stats.norm.logpdf(0, scale=0.5) - stats.norm.logsf(2)
    assert_allclose(neg_log_likelihood(TRUTH, X, z, np.array([False, True])), expected)


def test_most_likely_is_about_least_squares_where_nothing_is_censored():
    X, y, _, censored = draw("normal", 0.0, 1000, 0)
    found, errors = most_likely(X, y, censored)
    columns = np.c_[np.ones(1000), X]
    coefficients, (squares,), *_ = np.linalg.lstsq(columns, y)
    # Up to what the slopes of the spread, which are 0, change.
    assert_allclose(found[:4], coefficients, atol=2e-3)
    assert_allclose(found[4], 0.5 * np.log(squares / 1000), atol=5e-3)
    # Up to the sample's own spread.
    of_mean = 0.5 * np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)))
    assert_allclose(errors[:4], of_mean, rtol=0.1)
    assert_allclose(errors[4:], 2000**-0.5, rtol=0.1)


def test_errors_grow_with_the_share():
    errors = [
        most_likely(X, z, c)[1] for X, _, z, c in (draw("normal", s, 1000, 0) for s in (0, 0.6))
    ]
    assert (errors[1] > errors[0]).all()


def test_concordance_is_kendalls_tau_of_what_is_known():
    rng = np.random.default_rng(0)
    predicted, observed = rng.normal(size=(2, 50))
    tau = stats.kendalltau(predicted, observed).statistic
    assert_allclose(concordance(predicted, observed, np.zeros(50, dtype=bool)), (tau + 1) / 2)
    # Known are 1 < 2, 1 < 3 and 1 < 4; of the second and third row only lower bounds.
    censored = np.array([False, True, True, False])
    assert concordance(np.array([5.0, 6, 5, 4]), np.array([1.0, 2, 3, 4]), censored) == 1.5 / 3


def test_a_fit_is_told_in_standard_errors(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.censored.study.N_TEST", 100)
    path = str(tmp_path / "censored.jsonl")
    chosen = ["--laws", "lognormal", "--shares", "0.3", "--rows", "100", "--seeds", "1"]
    command.main(["fit", "--results", path, "--models", "linear", *chosen])
    command.main(["report", "--results", path])
    assert "| lognormal | 30% | 100 | linear | 1 | " in capsys.readouterr().out


def test_a_missing_peer_is_a_usage_error(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        command.main(["fit", "--results", str(tmp_path / "none.jsonl")])
    assert "lifelines is not installed" in capsys.readouterr().err


def test_a_linear_network_alone_finds_the_most_likely():
    settings = {"law": "normal", "share": 0.6, "n_rows": 500, "seed": 0, "model": "linear"}
    assert fit_law(settings)["from_likely"] < 0.3


@pytest.mark.parametrize("law", LAWS)
def test_the_peer_finds_the_most_likely(law):
    pytest.importorskip("lifelines")
    settings = {"law": law, "share": 0.3, "n_rows": 300, "seed": 0, "model": PEER}
    assert fit_law(settings)["from_likely"] < 0.02
