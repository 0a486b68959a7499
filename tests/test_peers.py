"""Peers are scored like ours, and the verdicts on them are computed."""

import json
from functools import partial

import numpy as np
import pytest
import scoringrules
from scipy import stats

from benchmarks.peers import __main__ as commands
from benchmarks.peers import contenders, fits, forecasts, tables
from benchmarks.peers.report import compare, fits_of, render_report
from benchmarks.runs import RESULTS, key, read_results, run_missing
from sklearn_probmix import PredictiveDistribution
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.metrics import crps

SCORES = [
    *["nll", "crps", "nll_new", "crps_new", "rmse", "coverage", "width", "interval_score"],
    "coverage_shared",
    *["fit_seconds", "predict_seconds", "stacking_gain"],
    *(f"weight_{position}" for position in range(17)),
]
NOTHING = {"regression": {}, "aside": {}, "classification": {}}


def results_of(scores, dataset="yacht", n_splits=4):
    """Results of some peers with a score per peer, spread by a hundredth over splits."""
    results = {}
    for name, score in scores.items():
        for split in range(n_splits):
            settings = {
                "dataset": dataset,
                "split": split,
                "peer": name,
                "version": "1.0",
                "parameters": contenders.REGRESSION[name].parameters,
            }
            value = score + 0.01 * (-1) ** split * (name == contenders.OURS)
            values = dict.fromkeys(SCORES, value) | {"new_rows": 0.7}
            results[key(settings)] = {"settings": settings, "scores": values}
    return results


@pytest.mark.parametrize("name", ["gp", "deep-ensemble"])
def test_a_peer_learns_a_line_in_the_units_of_y(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = 100 + 10 * X[:, 0] + rng.normal(size=60)
    peer = contenders.REGRESSION[name]
    parameters = peer.parameters | ({"min_steps": 200} if "min_steps" in peer.parameters else {})
    forecast = peer.make(random_state=0, **parameters).fit(X, y).predict_proba(X)
    scores = fits.forecast_scores(y, forecast)
    assert scores["rmse"] < 2
    assert scores["crps"] < 1.5
    assert 0.7 < scores["coverage"] <= 1


def test_quantiles_of_a_normal_score_like_the_normal():
    rng = np.random.default_rng(0)
    mean, y = rng.normal(size=(2, 500))
    levels = (np.arange(100) + 0.5) / 100
    normal = stats.norm(mean, 1)
    quantiles = normal.ppf(levels[:, None])
    forecast = forecasts.QuantileForecast(*normal.interval(0.9), levels, quantiles, 0.01)
    ours = fits.forecast_scores(y, forecasts.normals(mean, np.ones(500)))
    theirs = fits.forecast_scores(y, forecast)
    assert ours["crps"] == pytest.approx(crps(y, normal))
    assert theirs["crps"] == pytest.approx(ours["crps"], rel=0.01)
    assert theirs["crps_normal"] == pytest.approx(ours["crps"], rel=0.02)
    assert theirs["nll"] == pytest.approx(ours["nll"], rel=0.02)
    assert theirs["coverage"] == ours["coverage"]
    assert theirs["width"] == pytest.approx(ours["width"])
    assert forecast[y > 0].scores(y[y > 0])["rmse"] == pytest.approx(
        np.sqrt(np.mean((y - mean)[y > 0] ** 2))
    )


def test_draws_score_like_their_empirical_distribution_and_its_kernels():
    rng = np.random.default_rng(0)
    samples, y = rng.gamma(2, size=(40, 30)), rng.gamma(2, size=30)
    scores = forecasts.samples_forecast(samples, 0.01).scores(y)
    ensemble = scoringrules.crps_ensemble(y, samples.T, estimator="nrg")
    assert scores["crps"] == pytest.approx(ensemble.mean())
    # scipy's Scott begins with the standard deviation of n - 1.
    factor = 40**-0.2 * np.sqrt(39 / 40)
    kernels = [stats.gaussian_kde(draws, factor) for draws in samples.T]
    density = [float(kde(value)[0]) for kde, value in zip(kernels, y, strict=True)]
    assert scores["nll"] == pytest.approx(-np.mean(np.log(density)))


def test_draws_that_are_all_equal_win_no_more_than_the_smallest_scale_gives():
    scores = forecasts.samples_forecast(np.ones((32, 1)), 0.5).scores(np.ones(1))
    assert scores["nll"] == pytest.approx(-stats.norm.logpdf(0, scale=0.5 * 32**-0.2))


def test_intervals_alone_have_no_other_scores():
    forecast = forecasts.IntervalForecast(np.array([0.0, 0.0]), np.array([1.0, 2.0]))
    y = np.array([0.5, 2.25])
    assert fits.forecast_scores(y, forecast) == pytest.approx(
        # 2 / (1 - .9) times .25 is 5.
        {"coverage": 0.5, "width": 1.5, "interval_score": (1 + 2 + 5) / 2}
    )
    assert forecast[y > 1].scores(y[y > 1])["coverage"] == 0


def test_a_mass_is_covered_as_far_as_the_interval_needs_it():
    # Nine tenths of three even masses: the middle one and .85 of each other.
    thirds = PredictiveDistribution(LatticeComponents([0.0, 1.0, 2.0], [[[1 / 3] * 3]] * 3))
    scores = fits.forecast_scores(np.array([0.0, 1.0, 2.0]), thirds)
    assert scores["coverage"] == 1
    assert scores["coverage_shared"] == pytest.approx(0.9, abs=1e-12)


def test_conformal_quantiles_cover_what_they_say():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 1))
    y = X[:, 0] + rng.normal(size=1500)
    peer = contenders.REGRESSION["mapie-cqr"]
    est = peer.make(random_state=0, **peer.parameters).fit(X[:500], y[:500])
    scores = fits.forecast_scores(y[500:], est.predict_proba(X[500:]))
    assert scores["coverage"] == pytest.approx(0.9, abs=0.05)
    # Of the law itself: 2 * 1.645.
    assert 3.29 < scores["width"] < 5


def test_rows_that_were_trained_on_are_told_apart(tmp_path):
    folder = tmp_path / "uci" / "yacht"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(30, 3))
    data[25] = data[0]
    np.savetxt(folder / "data.txt", data)
    files = {"features": [0, 1], "target": [2], "train_0": range(25), "test_0": range(25, 30)}
    for name, numbers in files.items():
        np.savetxt(folder / f"index_{name}.txt", list(numbers), fmt="%d")
    (job,) = fits.jobs("regression", ["yacht"], ["gp"], 1)
    scores = fits.fit_regression(tmp_path, job)
    assert scores["new_rows"] == 0.8
    assert np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize(("name", "sizes"), [("iris", (135, 15)), ("rings-100", (100, 2000))])
def test_splits_are_stratified_and_repeatable(name, sizes):
    X, X_test, y, y_test = tables.TABLES[name].split(1)
    assert (len(X), len(X_test)) == sizes
    shares = [np.bincount(labels) / len(labels) for labels in (y, y_test)]
    np.testing.assert_allclose(*shares, atol=0.01)
    np.testing.assert_array_equal(X, tables.TABLES[name].split(1)[0])
    assert not np.array_equal(X, tables.TABLES[name].split(2)[0])


def test_one_classification_fit(tmp_path):
    todo = fits.jobs("classification", ["iris"], ["logistic-regression"], 1)
    results = run_missing(partial(fits.fit_classification, None), todo, tmp_path / "peers.jsonl")
    scores = results[key(todo[0])]["scores"]
    assert scores["accuracy"] > 0.8
    assert 0 < scores["log_loss"] < 0.5
    assert scores["fit_seconds"] > 0


@pytest.mark.parametrize("task", ["regression", "aside", "classification"])
def test_finished_fits_of_ours_are_found_by_their_settings(task):
    results = read_results(RESULTS / f"peers-{task}.jsonl")
    found = fits_of(results, task)
    n_splits = [
        cell.n_fits
        for (dataset, peer), cell in found.items()
        # Files are run as time allows.
        if peer == contenders.OURS and dataset not in tables.FILES
    ]
    assert min(n_splits) >= {"regression": 5, "aside": 1, "classification": 3}[task]


def test_ours_is_run_anew_when_its_defaults_change(monkeypatch):
    def only():
        return fits.jobs("regression", ["yacht"], [contenders.OURS], 1)[0]

    before = only()
    assert key(json.loads(json.dumps(before))) == key(before)
    peer = contenders.REGRESSION[contenders.OURS]
    changed = peer._replace(parameters=peer.parameters | {"lr": 1.0})
    monkeypatch.setitem(contenders.REGRESSION, contenders.OURS, changed)
    assert key(only()) != key(before)


def test_jobs_go_breadth_first_and_leave_the_gaussian_process_out_of_large_tables():
    todo = fits.jobs("regression", ["kin8nm", "yacht", "energy"], ["gp", "erm"])
    places = [(job["dataset"], job["split"]) for job in todo if job["peer"] == "erm"]
    assert places[:3] == [("yacht", 0), ("energy", 0), ("yacht", 1)]
    assert places[-1] == ("kin8nm", 4)
    assert {job["dataset"] for job in todo if job["peer"] == "gp"} == {"yacht", "energy"}


@pytest.mark.parametrize(("ours", "verdict"), [(0.5, "better"), (0.995, "lower"), (2, "worse")])
def test_the_verdict_follows_from_the_paired_bound(ours, verdict):
    results = results_of({"gp": 1.0, "ngboost": 1.5, contenders.OURS: ours})
    found = compare(fits_of(results, "regression"), "yacht", "nll", contenders.REGRESSION)
    assert (found.peer, found.n_splits, found.verdict) == ("gp", 4, verdict)
    low, high = found.bounds
    errors = np.array([0.01, -0.01] * 2)
    interval = stats.ttest_1samp(ours - 1 + errors, 0).confidence_interval(0.9)
    assert (low, high) == pytest.approx((interval.low, interval.high))


def test_other_parameters_do_not_count():
    results = results_of({"gp": 1.0})
    for result in results.values():
        result["settings"]["parameters"] = {"kernel": "another"}
    assert not fits_of(results, "regression")["yacht", "gp"]


def test_the_report_of_nothing_leaves_every_claim_open():
    text = render_report(NOTHING)
    claims = text.split("## Regression")[0]
    assert claims.count("| open |") == 7
    assert "nan" not in text


def test_the_report_marks_the_best():
    results = results_of({"gp": 1.0, "erm": 1.5, contenders.OURS: 0.5})
    text = render_report({**NOTHING, "regression": results})
    assert "| ours | 4 | **0.500±0.006** | **0.500** | **0.510** |" in text
    assert "| yacht | 0.70 | NLL | not run |" in text
    assert "| yacht | Gaussian process | 4 | 0.500 | 1.000 | -0.500 |" in text
    assert "1 better, on 4 splits or more; not run: energy" in text
    assert "nan" not in text


def test_a_contender_of_intervals_is_shown_beside_ours_and_enters_no_comparison():
    results = results_of({"gp": 1.0, "mapie-cqr": 0.1, contenders.OURS: 0.5})
    for result in results.values():
        if result["settings"]["peer"] == "mapie-cqr":
            for score in ("nll", "crps", "nll_new", "crps_new", "rmse"):
                del result["scores"][score]
    found = compare(fits_of(results, "regression"), "yacht", "nll", contenders.REGRESSION)
    assert found.peer == "gp"
    text = render_report({**NOTHING, "regression": results})
    assert "| yacht | MAPIE's CQR | 4 | 0.500 / – | 0.500 / – | 0.500 / 0.100 |" in text
    assert "nan" not in text


def test_recent_contenders_run_only_where_they_are_named():
    parse = commands._parser().parse_args
    assert "treeffuser" not in parse(["regression"]).peers
    assert parse(["regression", "--peers", "treeffuser"]).peers == ["treeffuser"]


def test_a_peer_that_is_not_installed_is_a_usage_error(tmp_path, capsys, monkeypatch):
    peer = contenders.CLASSIFICATION["catboost"]._replace(package="no-such-package")
    monkeypatch.setitem(contenders.CLASSIFICATION, "catboost", peer)
    arguments = ["classification", "--datasets", "iris", "--peers", "catboost"]
    arguments += ["--results", str(tmp_path)]
    with pytest.raises(SystemExit):
        commands.main(arguments)
    assert "extra benchmarks" in capsys.readouterr().err
