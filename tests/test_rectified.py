"""Distributions of max(y, 0), and the counts that get them unasked."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.integrate import quad, trapezoid

from sklearn_probmix import Kind, PredictiveDistribution, ProbMixupRegressor, load_model, save_model
from sklearn_probmix.components import components_from_arrays, join
from sklearn_probmix.distributions import PredictiveDistribution as Distribution
from sklearn_probmix.forecasts import concatenate
from sklearn_probmix.histogram_components import HistogramComponents
from sklearn_probmix.rectified import RectifiedComponents
from sklearn_probmix.scipy_components import scipy_components
from sklearn_probmix.transformed import TransformedComponents

LOC, SCALE = np.array([[0.3, 2.0], [-1.0, -4.0], [50.0, 60.0]]), np.array([[1.0, 0.4]] * 3)
WEIGHTS = np.array([[0.3, 0.7], [0.5, 0.5], [0.9, 0.1]])
NORMALS = PredictiveDistribution("norm", {"loc": LOC, "scale": SCALE}, weights=WEIGHTS)
CURVE = {"centre": 1.0, "unit": 2.0, "power": 0.4, "reach": 6.0}
TRANSFORMED = PredictiveDistribution(
    TransformedComponents(
        {"loc": LOC, "scale": SCALE} | {k: np.full(LOC.shape, v) for k, v in CURVE.items()}
    )
)
HISTOGRAM = PredictiveDistribution(
    HistogramComponents([0.0, 1.0, 4.0], [2.0, 1.0], np.full((3, 2, 4), 0.25))
)
MIXED = PredictiveDistribution.mix([NORMALS, HISTOGRAM, TRANSFORMED], [0.5, 0.2, 0.3])
EVERY = pytest.mark.parametrize(
    "dist",
    [NORMALS, HISTOGRAM, TRANSFORMED, MIXED],
    ids=["normals", "histogram", "transformed", "mixed"],
)


def rectify(dist):
    """Distribution of max(y, 0), of the same weights to the bit."""
    components, _ = join([RectifiedComponents(block) for block in dist.blocks])
    made = list(components.to_arrays())
    return Distribution.from_dict({"components": made, "weights": dist.weights})


LEVELS = np.array([0.0, 0.001, 0.05, 0.3, 0.5, 0.9, 0.999])


def integral(function, row, low, high):
    """Integrate a function of one row's cdf; the kinks of a histogram are at its edges."""

    def integrand(x):
        return function(dist_cdf(row, x))

    points = [p for p in (0.0, 1.0, 4.0, *row.ppf([0.1, 0.5, 0.9]).ravel()) if low < p < high]
    return quad(integrand, low, high, points=points, limit=400, epsabs=1e-11)[0]


def dist_cdf(row, x):
    return float(row.cdf([x])[0])


@EVERY
def test_all_that_is_positive_stays_to_the_bit(dist):
    rectified = rectify(dist)
    x = np.array([0.01, 0.5, 3.0, 55.0])[:, None]
    for method in ("cdf", "sf", "logpdf"):
        assert_array_equal(getattr(rectified, method)(x), getattr(dist, method)(x))
    assert_allclose(rectified.pdf(x), dist.pdf(x), rtol=1e-14)
    cells = np.array([1.0, 2.0, 9.0, 60.0])[:, None]
    assert_array_equal(rectified.log_probability(cells, 1.0), dist.log_probability(cells, 1.0))
    assert_array_equal(rectified.ppf(LEVELS), np.maximum(dist.ppf(LEVELS), 0))


@EVERY
def test_what_was_below_is_the_probability_of_zero(dist):
    rectified, zero = rectify(dist), np.zeros(3)
    below = dist.cdf(zero)
    assert_array_equal(rectified.cdf(zero - 1e-9), zero)
    assert_array_equal(rectified.sf(zero - 1e-9), zero + 1)
    assert_array_equal(rectified.cdf(zero), below)
    assert_allclose(rectified.pmf(zero), below, rtol=1e-12)
    assert_allclose(rectified.logpdf(zero)[:2], np.log(below[:2]), rtol=1e-12)
    assert_array_equal(rectified.logpdf(zero - 1), zero - np.inf)
    assert_array_equal(rectified.log_probability(zero - 1, 1.0), zero - np.inf)
    expected = np.log(dist.cdf(zero + 0.5)[:2])
    assert_allclose(rectified.log_probability(zero, 1.0)[:2], expected, rtol=1e-12)
    # Of the last row a float does not hold the probability.
    assert np.isfinite(rectified.logpdf(zero)).all()
    assert_array_equal(rectified.support()[0], zero)
    draws = rectified.rvs(20_000, random_state=0)
    assert draws.min() == 0
    assert_allclose((draws == 0).mean(0), below, atol=0.015)
    assert_array_equal(draws, np.maximum(dist.rvs(20_000, random_state=0), 0))


@EVERY
def test_moments_are_integrals_of_the_cdf(dist):
    rectified = rectify(dist)
    for row in range(3):
        own, high = rectified[row], float(dist[row].ppf(1 - 1e-13)[0])
        low = 1e-300
        mean = integral(lambda p: 1 - p, own, low, high)
        points = [p for p in (1.0, 4.0, *own.ppf([0.1, 0.5, 0.9]).ravel()) if 0 < p < high]
        square = quad(
            lambda x, own=own: 2 * x * (1 - dist_cdf(own, x)), 0, high, points=points, limit=400
        )[0]
        assert_allclose(own.mean(), mean, rtol=1e-6, atol=1e-8)
        assert_allclose(own.var(), square - mean**2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "edges", [[-3.0, -1.0, -0.2, 0.5, 1.0, 4.0], [-2.0, -1.5, -1.0], [0.4, 2.0], [-0.7], [0.0]]
)
def test_moments_of_a_histogram_are_those_of_its_bins(edges):
    rng = np.random.default_rng(0)
    masses = rng.dirichlet(np.full(len(edges) + 1, 0.7), (3, 2))
    dist = PredictiveDistribution(
        RectifiedComponents(HistogramComponents(edges, [0.6, 1.7], masses)), weights=WEIGHTS
    )
    for row in range(3):
        own = dist[row]
        ends = [0.0, *(edge for edge in edges if edge > 0), 80.0]

        def moment(power, own=own, ends=ends):
            def integrand(x):
                return power * x ** (power - 1) * float(own.sf([x])[0])

            return sum(quad(integrand, *piece, epsabs=1e-12)[0] for piece in pairwise(ends))

        assert_allclose(own.mean(), moment(1), rtol=1e-9)
        assert_allclose(own.var(), moment(2) - moment(1) ** 2, rtol=1e-8)


def test_one_normal_by_hand():
    # Tobin's: E max(X, 0) = mu Phi(mu / s) + s phi(mu / s).
    mu, s = np.array([-30.0, -2.0, 0.0, 0.5, 40.0]), np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    dist = rectify(PredictiveDistribution("norm", {"loc": mu[:, None], "scale": s[:, None]}))
    mean = mu * stats.norm.cdf(mu / s) + s * stats.norm.pdf(mu / s)
    square = (mu**2 + s**2) * stats.norm.cdf(mu / s) + mu * s * stats.norm.pdf(mu / s)
    assert_allclose(dist.mean(), mean, atol=1e-11)
    assert_allclose(dist.var(), square - mean**2, atol=1e-10)
    assert dist.mean()[-1] == 40
    # That all is below 0 does not make it impossible, and 0 itself never is.
    assert_allclose(dist.logpdf(np.zeros(5))[-1], stats.norm.logcdf(-40), rtol=1e-3)
    assert np.isfinite(dist.log_probability(np.zeros(5), 1.0)).all()


@EVERY
def test_crps_is_the_integral_and_no_worse(dist):
    rectified = rectify(dist)
    for y in (0.0, 0.7, 5.0):
        found, before = rectified.crps(np.full(3, y)), dist.crps(np.full(3, y))
        assert (found <= before).all()
        for row in range(3):
            own = rectified[row]
            high = max(float(dist[row].ppf(1 - 1e-13)[0]), y)
            left = integral(np.square, own, 0.0, y) if y else 0.0
            right = integral(lambda p: (1 - p) ** 2, own, y, high)
            assert_allclose(found[row], left + right, rtol=5e-5, atol=1e-7)
    assert_array_equal(
        rectify(NORMALS)[2:].crps(np.array([51.0])), NORMALS[2:].crps(np.array([51.0]))
    )


def test_crps_of_many_components_of_unlike_width():
    rng = np.random.default_rng(0)
    params = {"loc": rng.normal(0, 3, (1, 100)), "scale": np.exp(rng.normal(-2, 1.5, (1, 100)))}
    dist = PredictiveDistribution("norm", params)
    below = dist.crps(np.zeros(1)) - rectify(dist).crps(np.zeros(1))
    x = np.linspace(-60, 0, 300_001)
    assert_allclose(below, trapezoid(dist.cdf(x[:, None])[:, 0] ** 2, x), rtol=1e-3)


@EVERY
def test_rows_files_and_copies_are_the_same(dist):
    rectified = rectify(dist)
    x = np.array([0.0, 0.5, 51.0])
    for same in (
        pickle.loads(pickle.dumps(rectified)),
        Distribution.from_dict(rectified.to_dict()),
        Distribution.concatenate([rectified[:1], rectified[1:]]),
    ):
        assert same.name == rectified.name
        assert_array_equal(same.logpdf(x), rectified.logpdf(x))
        assert_array_equal(same.ppf(0.3), rectified.ppf(0.3))
    for parts in (rectified.components, [rectified]):
        weights = rectified.weights if len(parts) > 1 else None
        mixed = Distribution.mix(list(parts), weights)
        assert_allclose(mixed.cdf(x), rectified.cdf(x), rtol=1e-12)
        assert_allclose(mixed.ppf(LEVELS), rectified.ppf(LEVELS), rtol=1e-9, atol=1e-9)
        assert_allclose(mixed.mean(), rectified.mean(), rtol=1e-12)
        assert_allclose(mixed.crps(x), rectified.crps(x), rtol=1e-4, atol=1e-5)
    counts = PredictiveDistribution("poisson", {"mu": [[2.0]]})
    assert_allclose(concatenate([rectified, counts]).mean()[-1], 2.0)
    assert "svg" in rectified._repr_html_()


def test_two_outputs():
    params = {"loc": np.stack([LOC, LOC + 1], axis=2), "scale": np.stack([SCALE, SCALE], axis=2)}
    both = PredictiveDistribution("norm", params, weights=WEIGHTS)
    rectified, y = rectify(both), np.array([[0.0, 1.0], [0.5, 0.0], [51.0, 50.0]])
    for output in range(2):
        alone, own = rectify(both.marginal(output)), rectified.marginal(output)
        for found in (own, rectified):
            where = np.s_[..., output] if found is rectified else np.s_[...]
            values = y if found is rectified else y[:, output]
            for method in ("logpdf", "crps", "cdf"):
                expected = getattr(alone, method)(y[:, output])
                assert_allclose(getattr(found, method)(values)[where], expected, rtol=1e-12)
            assert_allclose(found.mean()[where], alone.mean(), rtol=1e-12)
            assert_allclose(found.ppf(0.2)[where], alone.ppf(0.2), rtol=1e-12)
    assert np.isfinite(rectified.joint_logpdf(y)).all()


def test_what_others_make_of_it():
    with pytest.raises(ValueError, match="'poisson'; expected densities of one family"):
        RectifiedComponents(scipy_components("poisson", {"mu": [[2.0]]}))
    with pytest.raises(ValueError, match="'norm \\+ histogram'; expected densities of one family"):
        RectifiedComponents(join([NORMALS.blocks[0], HISTOGRAM.blocks[0]])[0])
    with pytest.raises(ValueError, match="atoms beside a density"):
        rectify(NORMALS).to_scipy()
    with pytest.raises(ValueError, match="no distribution of torch"):
        rectify(NORMALS).to_torch()


def test_of_skpro():
    pytest.importorskip("skpro")
    rectified = rectify(NORMALS)
    other = rectified.to_skpro()
    assert_allclose(other.mean().to_numpy().ravel(), rectified.mean())
    assert_allclose(other.quantile([0.05]).to_numpy().ravel(), rectified.ppf(0.05))
    zero = np.zeros((3, 1))
    assert_allclose(np.ravel(other.pmf(zero)), rectified.pmf(np.zeros(3)))


RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, size=(160, 2))
# Many values, so that there is no lattice of them.
COUNTS = RNG.poisson(RNG.gamma(1.0, size=160) * np.exp(2 * X[:, 0] + 2)).astype(float)
KINDS = (
    Kind(hidden_layer_sizes=(8,), lr=0.02, max_epochs=20, lr_schedule="averaged"),
    Kind(hidden_layer_sizes=(), lr=0.02, max_epochs=20, lr_schedule="averaged"),
)


@pytest.fixture
def few_kinds(monkeypatch):
    monkeypatch.setattr(ProbMixupRegressor, "_auto_kinds", KINDS)


def test_far_below_zero_nothing_is_negative():
    for loc in (-8.016, -30.0):
        some = RectifiedComponents(scipy_components("norm", {"loc": [[loc]], "scale": [[1.0]]}))
        dist = PredictiveDistribution(some)
        assert dist.mean() >= 0
        assert dist.std() >= 0


def test_of_no_rows_there_is_no_crps():
    some = scipy_components("norm", {"loc": [[0.0]], "scale": [[1.0]]})
    assert PredictiveDistribution(RectifiedComponents(some))[:0].crps(np.empty(0)).shape == (0,)


def test_a_file_cannot_nest_them():
    inner = RectifiedComponents(scipy_components("norm", {"loc": [[0.0]], "scale": [[1.0]]}))
    with pytest.raises(ValueError, match="rectified components in rectified ones"):
        components_from_arrays("rectified", {"components": list(inner.to_arrays())})


class TestEstimator:
    def test_counts_have_nothing_below_zero(self, few_kinds, tmp_path):
        est = ProbMixupRegressor(n_members=2, random_state=0).fit(X, COUNTS)
        assert est.is_count_ is True
        dist = est.predict_proba(X)
        est.is_count_ = False
        plain = est.predict_proba(X)
        est.is_count_ = True
        # The truth that is checked: densities alone do go below.
        assert plain.interval(0.9)[0].min() < 0
        assert dist.interval(0.9)[0].min() == 0
        assert dist.rvs(9, random_state=0).min() == 0
        assert est.predict(X).min() >= 0
        assert_array_equal(dist.sf(COUNTS), plain.sf(COUNTS))
        assert (dist.crps(COUNTS) <= plain.crps(COUNTS)).all()
        assert dist.crps(COUNTS).mean() < plain.crps(COUNTS).mean()
        assert est.oof_predictive_.interval(0.9)[0].min() == 0
        save_model(est, tmp_path / "model")
        loaded = load_model(tmp_path / "model")
        for same in (loaded, pickle.loads(pickle.dumps(est))):
            again = same.predict_proba(X)
            assert_array_equal(again.logpdf(COUNTS), dist.logpdf(COUNTS))
            assert_array_equal(again.ppf(0.05), dist.ppf(0.05))
        assert_array_equal(loaded.oof_predictive_.ppf(0.05), est.oof_predictive_.ppf(0.05))
        parts = list(est.iter_predict_proba(X, 50))
        assert_array_equal(np.concatenate([each.ppf(0.05) for each in parts]), dist.ppf(0.05))

    @pytest.mark.parametrize(
        ("y", "parameters"),
        [
            (COUNTS + 0.5, {}),
            (COUNTS - 5, {}),
            (COUNTS + 2, {}),
            (COUNTS, {"family": "normal"}),
            (COUNTS, {"method": "erm", "max_epochs": 2}),
        ],
        ids=["halves", "negative", "from 2 on", "a family by name", "one kind"],
    )
    def test_others_stay_as_they_are(self, few_kinds, y, parameters):
        est = ProbMixupRegressor(n_members=2, random_state=0, **parameters).fit(X, y)
        assert est.is_count_ is False
        assert "rectified" not in est.predict_proba(X).name

    def test_a_later_pass_may_bring_what_is_no_count(self, few_kinds):
        est = ProbMixupRegressor(n_members=2, random_state=0)
        est.partial_fit(X, COUNTS)
        assert est.predict_proba(X).support()[0].min() == 0
        est.partial_fit(X, COUNTS - 3)
        assert est.predict_proba(X).support()[0].min() == -np.inf
        est.partial_fit(X, COUNTS)
        assert not est.is_count_
