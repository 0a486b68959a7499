import pickle

import numpy as np
import pytest
import scoringrules as sr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from quadrature import integral_between
from scipy import stats
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import mean_pinball_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_probmix import metrics, scorers
from sklearn_probmix.distributions import PredictiveDistribution

REGRESSION = [
    metrics.nll,
    metrics.crps,
    metrics.pinball_loss,
    metrics.interval_score,
    metrics.coverage,
    metrics.coverage_error,
    metrics.calibration_error,
]
WITH_Y = [*REGRESSION, metrics.coverage_curve, metrics.pit_values]
SCORERS = {
    "nll": scorers.neg_nll_scorer,
    "crps": scorers.neg_crps_scorer,
    "pinball": scorers.neg_pinball_scorer,
    "interval": scorers.neg_interval_score_scorer,
    "coverage": scorers.neg_coverage_error_scorer,
    "calibration": scorers.neg_calibration_error_scorer,
}
PARAMS = {
    "norm": lambda u: {"loc": 6 * u - 3, "scale": np.exp(4 * u - 3)},
    "lognorm": lambda u: {"s": 0.1 + u, "scale": np.exp(2 * u)},
    "gamma": lambda u: {"a": np.exp(4 * u - 1), "scale": np.exp(2 * u - 1)},
    "beta": lambda u: {"a": np.exp(4 * u - 1), "b": np.exp(2 - 3 * u)},
    "poisson": lambda u: {"mu": np.exp(4 * u - 1)},
    "bernoulli": lambda u: {"p": u},
    "t": lambda u: {"df": 2 + 5 * u, "loc": u, "scale": 1 + u},
    "nbinom": lambda u: {"n": 1 + 5 * u, "p": 0.2 + 0.5 * u},
}
COUNTS = ["poisson", "bernoulli", "nbinom"]


def make(name, shape=(6, 1), seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(shape[1]), shape[0])
    return PredictiveDistribution(name, PARAMS[name](rng.random(shape)), weights=weights)


def crps_by_integration(dist, y):
    """Integrate (F - 1{x >= y})^2, between many quantiles, or over the integers."""
    scores = []
    tail = np.r_[np.logspace(-13, -1, 7), 0.3]
    for row, value in zip(dist, y, strict=True):
        if dist.is_discrete:
            k = np.arange(min(0, value), max(value, row.ppf(1 - 1e-14)[0]) + 2)
            scores.append(((row.cdf(k[:, None])[:, 0] - (k >= value)) ** 2).sum())
            continue
        levels = np.r_[tail, 0.5, 1 - tail]
        breaks = np.unique(np.r_[np.ravel([c.ppf(levels) for c in row.components]), value])

        def integrand(x, low, row=row, value=value):
            return (row.cdf(x.reshape(-1, 1)).reshape(x.shape) - (low >= value)) ** 2

        scores.append(integral_between(integrand, breaks))
    return np.array(scores)


class LinearNormal(RegressorMixin, BaseEstimator):
    """Least squares, with a Normal of the residuals' standard deviation around it."""

    def __init__(self, fit_intercept=True, inflate=1.0):
        self.fit_intercept = fit_intercept
        self.inflate = inflate

    def fit(self, X, y, sample_weight=None):
        self.mean_ = LinearRegression(fit_intercept=self.fit_intercept)
        self.mean_.fit(X, y, sample_weight=sample_weight)
        self.sd_ = self.inflate * np.std(y - self.mean_.predict(X), axis=0)
        return self

    def predict(self, X):
        return self.mean_.predict(X)

    def predict_proba(self, X):
        mean = self.predict(X)[:, None]
        scale = np.broadcast_to(self.sd_, mean.shape)
        return PredictiveDistribution("norm", {"loc": mean, "scale": scale})


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True)


def test_nll_of_the_papers_example():
    assert round(metrics.nll([80.0], stats.norm(75, np.sqrt(182.25))), 2) == 3.59
    assert round(metrics.nll([80.0], stats.norm(27, np.sqrt(30.25))), 2) == 49.05


def test_nll_is_joint_over_outputs():
    dist = make("norm", (5, 3, 2))
    y = dist.rvs(random_state=0)
    p = stats.norm.pdf(y[:, None], **dist.params)
    joint = (dist.weights * p.prod(axis=2)).sum(axis=1)
    marginal = (dist.weights[..., None] * p).sum(axis=1)
    assert_allclose(metrics.nll(y, dist), -np.log(joint).mean(), rtol=1e-10)
    by_output = -np.log(marginal).mean(axis=0)
    assert_allclose(metrics.nll(y, dist, multioutput="raw_values"), by_output, rtol=1e-10)
    average = metrics.nll(y, dist, multioutput="uniform_average")
    assert_allclose(average, by_output.mean(), rtol=1e-10)


def test_crps_of_single_components_is_that_of_scoringrules():
    rng = np.random.default_rng(1)
    theirs = {
        "norm": lambda y, p: sr.crps_normal(y, p["loc"], p["scale"]),
        "lognorm": lambda y, p: sr.crps_lognormal(y, np.log(p["scale"]), p["s"]),
        "gamma": lambda y, p: sr.crps_gamma(y, p["a"], scale=p["scale"]),
        "beta": lambda y, p: sr.crps_beta(y, p["a"], p["b"]),
        "poisson": lambda y, p: sr.crps_poisson(y, p["mu"]),
        "bernoulli": lambda y, p: (y - p["p"]) ** 2,
    }
    for name, expected in theirs.items():
        dist = make(name, (50, 1))
        y = dist.rvs(random_state=rng)
        single = {key: value[:, 0] for key, value in dist.params.items()}
        scores = [metrics.crps(y[[i]], dist[i]) for i in range(50)]
        assert_allclose(scores, expected(y, single), rtol=1e-10, atol=1e-13, err_msg=name)
        assert_allclose(metrics.crps(y, dist), np.mean(scores), rtol=1e-12)
        frozen = getattr(stats, name)(**single)
        assert_allclose(metrics.crps(y, frozen), np.mean(scores), rtol=1e-12)


def test_crps_of_normal_mixtures_is_that_of_scoringrules():
    dist = make("norm", (40, 5))
    y = dist.rvs(random_state=0)
    theirs = sr.crps_mixnorm(y, dist.params["loc"], dist.params["scale"], dist.weights)
    assert_allclose(metrics.crps(y, dist), theirs.mean(), rtol=1e-12)


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("components", [1, 3])
def test_crps_is_the_integral(name, components):
    dist = make(name, (2, components))
    draws = dist.rvs(2, random_state=0)
    for y in (draws[0], draws[1] + (3 if name in COUNTS else 0.0)):
        expected = crps_by_integration(dist, y)
        scores = [metrics.crps(y[[i]], dist[i]) for i in range(2)]
        assert_allclose(scores, expected, rtol=1e-7)


@pytest.mark.parametrize("name", ["lognorm", "gamma", "poisson", "beta", "bernoulli"])
@pytest.mark.parametrize("components", [1, 2])
def test_crps_off_the_support_grows_by_the_distance(name, components):
    dist = make(name, (3, components))
    edge = metrics.crps(np.zeros(3), dist)
    assert_allclose(metrics.crps(np.full(3, -2.5), dist), edge + 2.5, rtol=1e-12)


def test_quadrature_sees_a_narrow_component():
    params = {"a": [[3.0, 3e6]], "b": [[2.0, 2e6]]}
    dist = PredictiveDistribution("beta", params, weights=[0.995, 0.005])
    y = np.array([0.4])
    assert_allclose(metrics.crps(y, dist), crps_by_integration(dist, y)[0], rtol=1e-8)


def test_crps_where_scoringrules_overflows():
    # Both are close to a Normal here, to about 1 / sqrt(size).
    mu = 1e6
    counts = PredictiveDistribution("poisson", {"mu": [[mu]]})
    near = sr.crps_normal(mu + 500, mu, np.sqrt(mu))
    assert_allclose(metrics.crps([mu + 500], counts), near, rtol=1e-2)
    beta = PredictiveDistribution("beta", {"a": [[1e5]], "b": [[1e5]]})
    near = sr.crps_normal(0.5, 0.5, np.sqrt(0.25 / 2e5))
    assert_allclose(metrics.crps([0.5], beta), near, rtol=1e-3)
    assert_allclose(metrics.crps([0.0], PredictiveDistribution("poisson", {"mu": [[0.0]]})), 0)


@pytest.mark.parametrize("mu", [4e9, 1e18])
def test_crps_of_large_counts_is_that_of_normals(mu):
    sd = np.sqrt(mu)
    means, weights, y = np.array([[mu, mu + 2 * sd]]), np.array([[0.3, 0.7]]), np.array([mu + sd])
    counts = PredictiveDistribution("poisson", {"mu": means}, weights=weights)
    near = sr.crps_mixnorm(y, means, np.sqrt(means), weights)
    assert_allclose(metrics.crps(y, counts), near.item(), rtol=1e-4)


@pytest.mark.parametrize("a", [1e6, 1e10, 1e12])
@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_crps_of_narrow_betas_is_that_of_normals(a, ratio):
    dist = PredictiveDistribution("beta", {"a": [[a]], "b": [[ratio * a]]})
    y = dist.mean() + dist.std() / 2
    near = sr.crps_normal(y, dist.mean(), dist.std())
    assert_allclose(dist.crps(y) / dist.std(), near / dist.std(), rtol=1e-3)


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_crps_has_the_scale_of_y(factor):
    for name in ("norm", "lognorm", "gamma"):
        dist = make(name, (5, 2))
        params = {k: v * factor if k in ("loc", "scale") else v for k, v in dist.params.items()}
        scaled = PredictiveDistribution(name, params, weights=dist.weights)
        y = dist.rvs(random_state=0)
        assert_allclose(metrics.crps(y * factor, scaled) / factor, metrics.crps(y, dist))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(PARAMS)), st.integers(0, 1000), st.floats(0.1, 0.9))
def test_crps_does_not_see_how_a_distribution_is_split(name, seed, share):
    dist = make(name, (2, 1), seed)
    same = PredictiveDistribution.mix([dist, dist], [share, 1 - share])
    y = dist.rvs(random_state=seed)
    assert_allclose(metrics.crps(y, same), metrics.crps(y, dist), rtol=1e-7)


@pytest.mark.parametrize("name", ["norm", "gamma", "beta", "nbinom"])
def test_blocks_do_not_change_the_crps(name, monkeypatch):
    dist = make(name, (9, 3, 2))
    y = dist.rvs(random_state=0)
    whole = metrics.crps(y, dist, multioutput="raw_values")
    monkeypatch.setattr("sklearn_probmix.distributions._BLOCK", 200)
    assert_allclose(metrics.crps(y, dist, multioutput="raw_values"), whole, rtol=1e-12)


def test_pinball_loss_is_that_of_sklearn():
    dist = make("gamma", (30, 3, 2))
    y = dist.rvs(random_state=0)
    weight = np.arange(30.0)
    for q in (0.1, 0.6):
        theirs = mean_pinball_loss(
            y, dist.ppf(q), alpha=q, sample_weight=weight, multioutput="raw_values"
        )
        ours = metrics.pinball_loss(
            y, dist, quantiles=q, sample_weight=weight, multioutput="raw_values"
        )
        assert_allclose(ours, theirs, rtol=1e-10)
    both = metrics.pinball_loss(y, dist, quantiles=[0.1, 0.6])
    each = [metrics.pinball_loss(y, dist, quantiles=q) for q in (0.1, 0.6)]
    assert_allclose(both, np.mean(each), rtol=1e-12)


def test_pinball_loss_approaches_half_the_crps():
    dist = make("norm", (20, 2))
    y = dist.rvs(random_state=0)
    grid = (np.arange(2000) + 0.5) / 2000
    loss = metrics.pinball_loss(y, dist, quantiles=grid)
    assert_allclose(2 * loss, metrics.crps(y, dist), rtol=1e-4)


def test_interval_score_coverage_and_width_by_hand():
    uniform = stats.uniform(np.zeros(4), 10)
    y = np.array([5.0, 0.5, 9.9, 2.0])
    outside = 0.5 + 0.9
    assert_allclose(metrics.interval_score(y, uniform, level=0.8), 8 + 10 * outside / 4)
    assert metrics.coverage(y, uniform, level=0.8) == 0.5
    assert_allclose(metrics.coverage_error(y, uniform, level=0.8), 0.3)
    assert_allclose(metrics.interval_width(uniform, level=0.8), 8)
    assert_allclose(metrics.sharpness(uniform), 10 / np.sqrt(12))
    weight = np.array([1.0, 3.0, 0.0, 0.0])
    assert metrics.coverage(y, uniform, level=0.8, sample_weight=weight) == 0.25
    assert metrics.interval_score([5.0], stats.uniform(0, 10), level=0.5) == 5.0


def test_coverage_errors_of_outputs_do_not_cancel():
    dist = PredictiveDistribution("norm", {"loc": np.zeros((10, 1, 2)), "scale": [[[1, 1]]] * 10})
    y = np.zeros((10, 2))
    y[:, 1] = 9
    assert_allclose(metrics.coverage(y, dist, multioutput="raw_values"), [1, 0])
    assert_allclose(metrics.coverage_error(y, dist), (0.1 + 0.9) / 2)
    assert_allclose(metrics.coverage_error(y, dist, multioutput=[1, 0]), 0.1)
    errors = metrics.calibration_error(y, dist, levels=[0.2, 0.6], multioutput="raw_values")
    assert_allclose(errors, [0.6, 0.4])


def test_coverage_curve_agrees_with_the_intervals():
    dist = make("gamma", (200, 2))
    y = dist.rvs(random_state=0)
    levels, observed = metrics.coverage_curve(y, dist)
    expected = [metrics.coverage(y, dist, level=level) for level in levels]
    assert_allclose(observed, expected)
    assert_allclose(metrics.calibration_error(y, dist), abs(observed - levels).mean())
    assert metrics.coverage_curve(y, dist, levels=0.5)[1].shape == (1,)


def test_coverage_curve_of_counts_by_hand():
    # cdf(y - 1) = .2 and cdf(y) = 1 for y = 1: (.25, .75) holds .5 of this width of .8.
    dist = stats.bernoulli(0.8)
    _, observed = metrics.coverage_curve([1], dist, levels=[0.5])
    assert_allclose(observed, [0.5 / 0.8])
    _, observed = metrics.coverage_curve([0], dist, levels=[0.5, 0.8])
    assert_allclose(observed, [0, 0.1 / 0.2])


@pytest.mark.parametrize("name", ["norm", "poisson", "bernoulli"])
def test_a_perfect_forecast_is_calibrated(name):
    dist = make(name, (4000, 2))
    y = dist.rvs(random_state=0)
    assert metrics.calibration_error(y, dist) < 0.02
    pit = metrics.pit_values(y, dist, random_state=0)
    assert stats.kstest(pit, "uniform").pvalue > 1e-3
    wrong = y + 2 * dist.std()
    assert metrics.calibration_error(wrong, dist) > 0.15


def test_pit_values_by_hand():
    y = np.array([0.3, -1.2])
    assert_allclose(metrics.pit_values(y, stats.norm(1, 2)), stats.norm.cdf(y, 1, 2))
    counts = stats.poisson(3.0)
    values = metrics.pit_values(np.full(5000, 2), counts, random_state=0)
    low, high = counts.cdf(1), counts.cdf(2)
    assert stats.kstest((values - low) / (high - low), "uniform").pvalue > 1e-3
    assert_array_equal(values, metrics.pit_values(np.full(5000, 2), counts, random_state=0))


@pytest.mark.parametrize("score", REGRESSION)
def test_weights_count_rows(score):
    dist = make("norm", (6, 2))
    y = dist.rvs(random_state=3)
    weight = np.array([1, 0, 2, 0, 0, 3])
    rows = np.repeat(np.arange(6), weight)
    assert_allclose(score(y, dist, sample_weight=weight), score(y[rows], dist[rows]), rtol=1e-10)


@pytest.mark.parametrize("score", REGRESSION[1:])
def test_outputs_are_averaged(score):
    dist = make("norm", (6, 2, 3))
    y = dist.rvs(random_state=3)
    raw = score(y, dist, multioutput="raw_values")
    assert raw.shape == (3,)
    columns = [
        PredictiveDistribution(
            "norm", {k: v[..., o] for k, v in dist.params.items()}, weights=dist.weights
        )
        for o in range(3)
    ]
    assert_allclose(raw, [score(y[:, o], columns[o]) for o in range(3)], rtol=1e-10)
    assert_allclose(score(y, dist), raw.mean(), rtol=1e-12)
    assert isinstance(score(y, dist), float)
    weighted = score(y, dist, multioutput=[1, 1, 2])
    assert_allclose(weighted, raw @ [0.25, 0.25, 0.5], rtol=1e-12)
    with pytest.raises(ValueError, match="multioutput must be.*'mean'"):
        score(y, dist, multioutput="mean")


@pytest.mark.parametrize("score", WITH_Y)
def test_bad_input_is_named(score):
    dist = make("norm", (3, 1))
    with pytest.raises(ValueError, match=r"y_true has shape \(4,\), but y_pred.*\(3,\)"):
        score(np.zeros(4), dist)
    with pytest.raises(ValueError, match=r"y_true has shape \(3, 2\)"):
        score(np.zeros((3, 2)), dist)
    with pytest.raises(ValueError, match=r"y_true has shape \(4,\), but y_pred's params"):
        score(np.zeros(4), stats.norm(np.zeros(3), 1))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="y_true contains"):
            score([0.0, value, 0.0], dist)
    scorer = "neg_log_loss" if score is metrics.nll else "neg_brier_score"
    with pytest.raises(TypeError, match=f"got ndarray.*classifier use '{scorer}'"):
        score(["a", "b", "a"], np.full((3, 2), 0.5))
    assert_allclose(score(np.zeros((3, 1)), dist), score(np.zeros(3), dist))


@pytest.mark.parametrize("score", REGRESSION)
def test_bad_weights_are_named(score):
    dist = make("norm", (3, 1))
    for weight in ([1.0, np.nan, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0]):
        with pytest.raises(ValueError, match=r"sample_weight"):
            score(np.zeros(3), dist, sample_weight=weight)


def test_an_infinite_loss_of_no_weight_counts_nothing():
    y, positive = np.array([-1.0, 1.0, 2.0]), stats.lognorm(1.0)
    alone = metrics.nll(y[1:], positive, sample_weight=[1, 3])
    assert metrics.nll(y, positive, sample_weight=[0, 1, 3]) == alone
    assert metrics.nll(y, positive) == np.inf
    cauchy = PredictiveDistribution("t", {"df": [[2.0], [5.0]]})
    assert metrics.sharpness(cauchy, sample_weight=[0, 1]) == cauchy[1:].std()


def test_bad_levels_are_named():
    dist, y = make("norm", (3, 1)), np.zeros(3)
    for level in (0, 1, 90, np.nan):
        for score in (metrics.interval_score, metrics.coverage, metrics.coverage_error):
            with pytest.raises(ValueError, match="level must lie strictly between 0 and 1"):
                score(y, dist, level=level)
        with pytest.raises(ValueError, match="quantiles must lie"):
            metrics.pinball_loss(y, dist, quantiles=[0.5, level])
        with pytest.raises(ValueError, match="levels must lie"):
            metrics.coverage_curve(y, dist, levels=[0.5, level])
        with pytest.raises(ValueError, match="level must lie"):
            metrics.interval_width(dist, level=level)


def test_frozen_distributions_of_every_form():
    y = np.array([0.5, 1.5])
    expected = -stats.gamma.logpdf(y, 2.0, scale=3.0).mean()
    assert_allclose(metrics.nll(y, stats.gamma(2.0, scale=3.0)), expected, rtol=1e-12)
    assert_allclose(metrics.nll(y, stats.gamma([2.0, 2.0], 0, 3)), expected)
    shifted = stats.gamma(2.0, loc=-1.0)
    assert_allclose(metrics.crps(y, shifted), metrics.crps(y + 1, stats.gamma(2.0)), rtol=1e-8)
    assert_allclose(metrics.nll([1, 2], stats.poisson(3)), -stats.poisson.logpmf([1, 2], 3).mean())
    y = np.zeros((4, 2))
    by_output = metrics.nll(y, stats.norm([0.0, 1.0], 1), multioutput="raw_values")
    assert_allclose(by_output, -stats.norm.logpdf([0, -1]))
    assert_allclose(metrics.nll(np.zeros(3), stats.norm()), -stats.norm.logpdf(0))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_calibration_error_of_classes(n_classes):
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(n_classes), 300)
    labels = np.array(["ant", "bee", "cow"])[:n_classes]
    y = labels[rng.integers(n_classes, size=300)]
    weight = rng.random(300)
    total = 0.0
    confidence, is_right = proba.max(1), labels[proba.argmax(1)] == y
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        if inside.any():
            gap = np.average(confidence[inside] - is_right[inside], weights=weight[inside])
            total += weight[inside].sum() / weight.sum() * abs(gap)
    error = metrics.expected_calibration_error(y, proba, n_bins=10, sample_weight=weight)
    assert_allclose(error, total, rtol=1e-10)
    reverse = metrics.expected_calibration_error(
        y, proba[:, ::-1], labels=labels[::-1], n_bins=10, sample_weight=weight
    )
    assert_allclose(reverse, total)


def test_a_calibration_error_needs_bins():
    with pytest.raises(ValueError, match="n_bins=0; expected at least 1"):
        metrics.expected_calibration_error([0, 1], [[0.5, 0.5]] * 2, n_bins=0)


def test_a_level_is_one_number_and_levels_are_a_list():
    y, dist = np.zeros(4), stats.norm(np.zeros(4), 1)
    for score in (metrics.interval_score, metrics.coverage, metrics.coverage_error):
        # As many as rows would be taken for one each.
        for level in ([0.5, 0.9], [0.9] * 4, []):
            with pytest.raises(ValueError, match="level must be one number"):
                score(y, dist, level=level)
    with pytest.raises(ValueError, match="level must be one number"):
        metrics.interval_width(dist, level=[0.9] * 4)
    for many in ([], [[0.1, 0.9]]):
        with pytest.raises(ValueError, match="quantiles must lie.*at least one, on one axis"):
            metrics.pinball_loss(y, dist, quantiles=many)
        with pytest.raises(ValueError, match="levels must lie.*at least one, on one axis"):
            metrics.calibration_error(y, dist, levels=many)
    with pytest.raises(ValueError, match=r"multioutput has the shape \(2,\).*each of 1 outputs"):
        metrics.crps(y, dist, multioutput=[1, 2])


def test_calibration_error_refuses_what_does_not_fit():
    score = metrics.expected_calibration_error
    with pytest.raises(TypeError, match="PredictiveDistribution.*use nll or crps"):
        score([0, 1], make("bernoulli", (2, 1)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        score([0, 1, 1], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="3 classes, y_proba 2 columns"):
        score([0, 1, 2], np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match=r"holds \[2\], not among labels"):
        score([0, 2], np.full((2, 2), 0.5), labels=[0, 1])
    with pytest.raises(ValueError, match="y_proba contains NaN"):
        score([0, 1], [[0.5, 0.5], [0.5, np.nan]])
    with pytest.raises(ValueError, match=r"y_proba holds values from -0\.5 to 1\.5"):
        score([0, 1], [[0.5, 0.5], [1.5, -0.5]])
    assert score([1, 1], [[0.0, 1.0]] * 2, labels=[0, 1]) == 0


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_are_greater_is_better_and_pickle(name, diabetes):
    X, y = diabetes
    good, wide = LinearNormal().fit(X, y), LinearNormal(inflate=30).fit(X, y)
    scorer = pickle.loads(pickle.dumps(SCORERS[name]))
    assert scorer(good, X, y) == SCORERS[name](good, X, y)
    assert scorer(wide, X, y) < scorer(good, X, y) <= (np.inf if name == "nll" else 0)


def test_scorers_print_their_levels():
    assert "level=0.9" in repr(scorers.neg_interval_score_scorer)
    assert "level=0.9" in repr(scorers.neg_coverage_error_scorer)
    assert "quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)" in repr(scorers.neg_pinball_scorer)


def test_scorers_are_minus_the_scores(diabetes):
    X, y = diabetes
    model = LinearNormal().fit(X, y)
    dist, weight = model.predict_proba(X), np.arange(len(y))
    assert_allclose(scorers.neg_nll_scorer(model, X, y), -metrics.nll(y, dist))
    assert_allclose(scorers.neg_coverage_error_scorer(model, X, y), -abs(_covered(dist, y) - 0.9))
    assert_allclose(
        scorers.neg_crps_scorer(model, X, y, sample_weight=weight),
        -metrics.crps(y, dist, sample_weight=weight),
    )


def _covered(dist, y):
    low, high = stats.norm.interval(0.9, dist.params["loc"][:, 0], dist.params["scale"][:, 0])
    return ((low <= y) & (y <= high)).mean()


def test_scorers_in_model_selection(diabetes):
    X, y = diabetes
    result = cross_validate(
        make_pipeline(StandardScaler(), LinearNormal()),
        X,
        y,
        scoring=SCORERS,
        cv=2,
        n_jobs=2,
        error_score="raise",
    )
    for name in SCORERS:
        assert np.isfinite(result[f"test_{name}"]).all()
    search = GridSearchCV(
        LinearNormal(),
        {"inflate": [0.2, 1.0, 5.0], "fit_intercept": [True, False]},
        scoring=SCORERS,
        refit="nll",
        cv=3,
    )
    search.fit(X, y)
    assert search.best_params_ == {"inflate": 1.0, "fit_intercept": True}


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1, 2]])
def test_scorers_send_classifiers_to_sklearn(name, labels):
    X = np.random.default_rng(0).normal(size=(30, 2))
    y = np.resize(labels, 30)
    model = LogisticRegression().fit(X, y)
    expected = "neg_log_loss" if name == "nll" else "neg_brier_score"
    with pytest.raises(TypeError, match=expected):
        SCORERS[name](model, X, y)


def test_out_of_fold_distributions(diabetes):
    X, y = diabetes
    cv = KFold(4, shuffle=True, random_state=0)
    dist = scorers.cross_val_predict_proba(LinearNormal(), X, y, cv=cv, n_jobs=2)
    assert dist.shape == y.shape
    for train, test in cv.split(X):
        alone = LinearNormal().fit(X[train], y[train]).predict_proba(X[test])
        assert_allclose(dist[test].mean(), alone.mean())
        assert_allclose(dist[test].std(), alone.std())


class OneOrTwo(LinearNormal):
    """As many components as a fold asks for, of a family of its own."""

    def predict_proba(self, X):
        one = super().predict_proba(X)
        if self.mean_.coef_[0] > 0:
            return one
        mean = np.repeat(one.mean()[:, None], 2, axis=1)
        return PredictiveDistribution("laplace", {"loc": mean})


def test_out_of_fold_distributions_of_other_components():
    X = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])[:, None]
    y = np.array([0.0, 1.0, 2.5, 2.0, 1.0, -0.5])
    dist = scorers.cross_val_predict_proba(OneOrTwo(), X, y, cv=2)
    for rows in (slice(3), slice(3, 6)):
        others = np.delete(np.arange(6), rows)
        alone = OneOrTwo().fit(X[others], y[others]).predict_proba(X[rows])
        assert_allclose(dist[rows].ppf([0.1, 0.6]), alone.ppf([0.1, 0.6]))
        assert_allclose(dist[rows].crps(y[rows]), alone.crps(y[rows]), rtol=1e-6)


def test_out_of_fold_arguments_reach_fit_and_split(diabetes):
    X, y = diabetes
    weight = np.where(np.arange(len(y)) < 200, 1.0, 0.0)
    groups = np.arange(len(y)) % 3
    cv = GroupKFold(3)
    dist = scorers.cross_val_predict_proba(
        LinearNormal(), X, y, groups=groups, cv=cv, params={"sample_weight": weight}
    )
    for group in range(3):
        train = groups != group
        alone = LinearNormal().fit(X[train], y[train], weight[train])
        assert_allclose(dist[~train].mean(), alone.predict(X[~train]))


def test_out_of_fold_refuses_what_it_cannot_join(diabetes):
    X, y = diabetes
    with pytest.raises(ValueError, match="every row exactly once"):
        scorers.cross_val_predict_proba(LinearNormal(), X, y, cv=ShuffleSplit(2, random_state=0))
    with pytest.raises(TypeError, match="returned ndarray.*cross_val_predict"):
        scorers.cross_val_predict_proba(LogisticRegression(), X, y > 150)
