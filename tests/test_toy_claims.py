"""The claims about the toy regression rest on enough draws, and their intervals are right."""

import re

import numpy as np
import pytest
from scipy import stats

from benchmarks import figures
from benchmarks.bootstrap import Estimate, estimated
from benchmarks.paper import fits, report
from benchmarks.paper.settings import (
    NINE_METHODS,
    TOY_SUSPECTS,
    same_rows_settings,
    toy_is_claimed,
    toy_settings,
    toy_stages,
    toy_variations,
    varied_toy_settings,
)
from benchmarks.runs import RESULTS, key, read_results

ERM, OURS = TOY_SUSPECTS


def of_run(run, suspect, nll, change=None):
    """Return a finished fit whose NLL out of distribution is known."""
    job = varied_toy_settings(run, *suspect, change) if change else toy_settings(run, *suspect)
    others = dict.fromkeys(["nll_standardised_in", "mse_in", "mse_out"], 0.0)
    return {"settings": job, "scores": {"nll_standardised_out": nll, **others}}


def results_of(*lines):
    return {key(line["settings"]): line for line in lines}


def test_the_interval_of_two_values_is_known_by_hand():
    # Their resamples have the means 0, 1 and 2, with the probabilities 1/4, 1/2 and 1/4.
    assert estimated(np.mean, np.array([0.0, 2.0])) == (1, 0, 2)
    # The rows of two samples are drawn together: their ratio is 3 in every resample.
    one = np.array([1.0, 2.0, 5.0])
    found = estimated(np.median, 3 * one, one, statistic=np.divide)
    assert found == (3, 3, 3)
    assert f"{found:.1f}" == "3.0 (3.0 to 3.0)"


def test_the_interval_is_scipy_s():
    rng = np.random.default_rng(1)
    first = np.exp(rng.normal(size=60))
    second = first * np.exp(rng.normal(size=60))

    def ratio(a, b, axis=-1):
        return np.median(a, axis) / np.median(b, axis)

    wanted = stats.bootstrap(
        (first, second), ratio, paired=True, method="percentile", n_resamples=10_000, rng=3
    ).confidence_interval
    found = estimated(np.median, first, second, statistic=np.divide)
    np.testing.assert_allclose([found.low, found.high], [*wanted], rtol=0.05)
    assert found == estimated(np.median, first, second, statistic=np.divide)


def test_a_verdict_needs_an_interval_that_leaves_the_bound_out():
    above, below, around = Estimate(4, 3.5, 5), Estimate(2, 1, 2.5), Estimate(3, 2, 4)
    assert [one.is_above(3) for one in (above, below, around)] == [True, False, None]
    assert report._all_above([above, above], 3) is True
    assert report._all_above([above, around], 3) == report.UNDECIDED
    assert report._all_above([above, around, below], 3) is False
    assert report._all_above([above, None], 3) is None


@pytest.mark.parametrize(
    ("erms", "figures_of_erm", "verdict"),
    [
        ([7.0, 14.0, 28.0], "3.50 (3.50 to 3.50)", "yes"),
        ([5.0, 10.0, 20.0], "2.50 (2.50 to 2.50)", "no"),
        ([2.0, 20.0, 80.0], "5.00 (1.00 to 10.00)", "undecided"),
    ],
)
def test_a_claim_is_judged_on_the_runs_of_both(erms, figures_of_erm, verdict):
    ours = [2.0, 4.0, 8.0]
    results = results_of(
        *(of_run(run, ERM, nll) for run, nll in enumerate(erms)),
        *(of_run(run, OURS, nll) for run, nll in enumerate(ours)),
        # Without a counterpart: left out.
        of_run(3, OURS, 1e6),
    )
    text = report.render_claims(report.uci_cells({}), report.toy_cells(results), {})
    (row,) = (line for line in text.split("\n") if "that of ERM (medians)" in line)
    assert row.endswith(f"| ERM ÷ M-ProbMix {figures_of_erm} | {verdict} |")


def test_what_is_claimed_stands_in_the_report_with_its_intervals():
    results = results_of(
        *(of_run(run, ERM, nll) for run, nll in enumerate([6.0, 6.0])),
        *(of_run(run, OURS, nll) for run, nll in enumerate([2.0, 2.0])),
        # Further runs, which the change below does not have, and which are left out beside it.
        *(of_run(run, ERM, 60.0) for run in range(2, 9)),
        *(of_run(run, OURS, 20.0) for run in range(2, 9)),
    )
    changed = "spread of z starts at 0"
    causes = results_of(*(of_run(run, OURS, 12.0, changed) for run in range(2)))
    for rows, ratio in enumerate([0.5, 4.0, 3.0]):
        for suspect, nll in [(ERM, ratio), (OURS, 1.0)]:
            job = same_rows_settings(rows, 0, *suspect)
            causes[key(job)] = {"settings": job, "scores": {"nll_standardised_out": nll}}
    text = report.render_toy_regression(report.toy_cells(results), causes)
    # Means of 20 * 7 + 2 * 2, over 9.
    assert "| M-ProbMix | log-linear | 0.25 | 9 | 20.0 (2.0 to 20.0) | 16 (" in text
    assert "| 3.00 (3.00 to 3.00) | 3.00 (3.00 to 3.00) |" in text
    assert "| none | 9 | 60.0 / 48 | 20.0 / 16 | 3.00 (3.00 to 3.00) |" in text
    # ERM has no z: it is compared as it is.
    ratios = "0.50 (0.50 to 0.50) | 3.00 (3.00 to 3.00) |"
    assert f"| {changed} | 2 | 6.0 / 6 | 12.0 / 12 | {ratios}" in text
    assert "is from 0.50 to 4.00, its median 3.00, and at least 3 in 2 of them" in text


def test_every_claimed_cell_has_at_least_fifty_draws():
    results = read_results(RESULTS / "toy-regression.jsonl")
    for stage in toy_stages(NINE_METHODS):
        for method, mixing in stage:
            if toy_is_claimed(method, mixing):
                jobs = [toy_settings(run, method, mixing) for run in range(50)]
                assert report.gather(results, jobs).n_fits == 50, (method, mixing)


def test_figures_of_the_toy_in_pages_are_of_claimed_cells():
    claimed = {
        (method, mixing.get("alpha", 1.0), mixing.get("pooling", "log-linear"))
        for stage in toy_stages(NINE_METHODS)
        for method, mixing in stage
        if toy_is_claimed(method, mixing)
    }
    pages = "".join(text for _, text, _ in figures.pages(figures.ROOT, RESULTS))
    named = " ".join(re.findall(r"<!-- figures: toy \w+ (.+?) -->", pages)).split()
    assert len(named) > 3
    for method, alpha, pooling in (place.split(":") for place in named):
        assert (method, float(alpha), pooling) in claimed


def test_a_change_is_made_in_the_fit():
    def scores(change, suspect=OURS):
        settings = varied_toy_settings(0, *suspect, change)
        settings["estimator"]["max_epochs"] = 3
        return fits.fit_toy_regression([settings])[0]

    plain = scores("no early stop")
    assert plain == scores("no early stop")
    for change in toy_variations("m-probmix"):
        found = scores(change)
        assert found["n_epochs"] == 3
        assert ("valid_nll" in found) == ("last epoch" not in change)
        if change not in ("no early stop", "variance floor 0.0001"):
            assert found["nll_standardised_out"] != plain["nll_standardised_out"], change
    assert scores("no early stop") == plain
    assert set(toy_variations("erm")) < set(toy_variations("m-probmix"))


def test_the_same_rows_in_all_runs():
    settings = [same_rows_settings(0, run, *ERM) for run in (0, 1)]
    for one in settings:
        one["estimator"]["max_epochs"] = 2
    first, second = fits.fit_toy_regression(settings)
    # One table, two networks.
    assert first["log_scale"] == second["log_scale"]
    assert first["mse_in"] != second["mse_in"]
