"""Piecewise linear cdfs against numerical integration, scipy's histogram and limits."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, optimize, stats

from sklearn_probmix import PredictiveDistribution
from sklearn_probmix.components import components_from_arrays
from sklearn_probmix.piecewise import (
    PiecewiseComponents,
    piecewise_from_quantiles,
    spread_ties,
)

KNOTS = np.array([-2.0, -0.5, 0.25, 3.0])
LEVELS = np.array([0.15, 0.4, 0.4, 0.95])
TAILS = np.array([0.7, 1.6])


def density(x):
    """Return the density by its definition, for one number."""
    if x < KNOTS[0]:
        return LEVELS[0] / TAILS[0] * np.exp((x - KNOTS[0]) / TAILS[0])
    if x > KNOTS[-1]:
        return (1 - LEVELS[-1]) / TAILS[1] * np.exp(-(x - KNOTS[-1]) / TAILS[1])
    piece = min(np.searchsorted(KNOTS, x, side="right") - 1, len(KNOTS) - 2)
    return np.diff(LEVELS)[piece] / np.diff(KNOTS)[piece]


def integral(function, low=-60.0, high=90.0):
    inner = KNOTS[(low < KNOTS) & (high > KNOTS)]
    ends = [low, *inner, high]
    return sum(
        integrate.quad(function, a, b, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        for a, b in itertools.pairwise(ends)
    )


@pytest.fixture
def components():
    return PiecewiseComponents(KNOTS[None, None], LEVELS[None, None], TAILS[None, None])


@pytest.fixture
def dist(components):
    return PredictiveDistribution(components)


POINTS = [-9.0, -2.0, -1.0, -0.5, 0.1, 0.25, 1.0, 3.0, 3.1, 12.0]


class TestAgainstIntegrals:
    @pytest.mark.parametrize("x", POINTS)
    def test_cdf_and_sf(self, dist, x):
        assert_allclose(dist.cdf([x]), integral(density, high=x), rtol=1e-9)
        assert_allclose(dist.sf([x]), integral(density, low=x), rtol=1e-9)

    @pytest.mark.parametrize("x", [-9.0, -1.0, 0.1, 1.0, 3.1, 12.0])
    def test_density(self, dist, x):
        assert_allclose(dist.pdf([x]), density(x), rtol=1e-12)

    def test_moments(self, dist):
        mean = integral(lambda x: x * density(x))
        assert_allclose(dist.mean(), mean, rtol=1e-8)
        assert_allclose(dist.var(), integral(lambda x: (x - mean) ** 2 * density(x)), rtol=1e-8)

    @pytest.mark.parametrize("y", POINTS)
    def test_crps(self, dist, y):
        below = integral(lambda x: float(dist.cdf([x])[0]) ** 2, high=y)
        above = integral(lambda x: float(dist.sf([x])[0]) ** 2, low=y)
        assert_allclose(dist.crps([y]), below + above, rtol=1e-8)

    def test_crps_of_a_mixture_is_that_of_its_cdf(self, components):
        normal = PredictiveDistribution("norm", {"loc": [[1.0]], "scale": [[0.5]]})
        mixed = PredictiveDistribution.mix([PredictiveDistribution(components), normal], [0.3, 0.7])
        distance = integral(
            lambda x: (float(mixed.cdf([x])[0]) - (x >= 0.7)) ** 2, high=0.7
        ) + integral(lambda x: (float(mixed.cdf([x])[0]) - (x >= 0.7)) ** 2, low=0.7)
        assert_allclose(mixed.crps([0.7]), distance, rtol=1e-4)


@pytest.mark.parametrize("q", [1e-9, 0.02, 0.15, 0.3, 0.4, 0.41, 0.8, 0.95, 0.999])
def test_ppf_is_the_first_number_that_reaches_the_level(dist, q):
    x = dist.ppf(q)[0]
    assert_allclose(dist.cdf([x]), q, rtol=1e-9)
    assert dist.cdf([x - 1e-6])[0] < q


def test_ends_of_the_support(dist):
    assert_array_equal(np.ravel(dist.support()), [-np.inf, np.inf])
    assert_array_equal(dist.ppf([0.0, 1.0]).ravel(), [-np.inf, np.inf])
    bounded = PiecewiseComponents([[KNOTS]], [[[0.0, 0.0, 1.0, 1.0]]], [[TAILS]])
    bounded = PredictiveDistribution(bounded)
    assert_array_equal(np.ravel(bounded.support()), [-0.5, 0.25])
    assert_array_equal(bounded.ppf([0.0, 1.0]).ravel(), [-0.5, 0.25])
    assert_array_equal(bounded.logpdf([-1.0]), [-np.inf])
    assert_allclose(bounded.ppf(0.5), [-0.125])


def test_without_tails_it_is_the_histogram_of_scipy():
    counts, edges = np.array([3, 1, 6]), np.array([0.0, 1.0, 1.5, 4.0])
    histogram = stats.rv_histogram((counts, edges), density=False)
    levels = np.r_[0, np.cumsum(counts) / 10]
    dist = PredictiveDistribution(PiecewiseComponents([[edges]], [[levels]], [[[1.0, 1.0]]]))
    x = np.array([0.3, 1.2, 3.9])
    assert_allclose(dist.pdf(x[:, None, None])[:, 0, 0], histogram.pdf(x))
    assert_allclose(dist.cdf(x[:, None, None])[:, 0, 0], histogram.cdf(x))
    assert_allclose(dist.ppf([0.1, 0.33, 0.9])[:, 0], histogram.ppf([0.1, 0.33, 0.9]))
    assert_allclose([dist.mean()[0], dist.var()[0]], [histogram.mean(), histogram.var()])


def test_probability_of_cells_across_knots_and_in_the_tails(dist):
    for y, width in [(-0.5, 1.0), (2.9, 0.7), (-40.0, 0.5), (40.0, 0.5), (1.0, 1e-9)]:
        expected = integral(density, y - width / 2, y + width / 2)
        assert_allclose(np.exp(dist.log_probability([y], width)), expected, rtol=1e-6)


def test_draws_have_the_cdf(dist):
    draws = dist.rvs(4000, random_state=0)[:, 0]
    result = stats.kstest(draws, lambda x: dist.cdf(x[:, None])[:, 0])
    assert result.pvalue > 0.01


def test_rows_components_and_outputs_are_selected_alike():
    rng = np.random.default_rng(0)
    knots = np.cumsum(rng.uniform(0.1, 1, size=(5, 2, 3, 4)), axis=-1)
    levels = np.cumsum(rng.uniform(0.01, 0.2, size=knots.shape), axis=-1)
    tails = rng.uniform(0.5, 2, size=(5, 2, 3, 2))
    dist = PredictiveDistribution(PiecewiseComponents(knots, levels, tails))
    y = rng.uniform(0, 4, size=(5, 3))
    for row, output in [(0, 0), (4, 2)]:
        single = [
            PredictiveDistribution(
                PiecewiseComponents(
                    *(part[row, c, output][None, None] for part in (knots, levels, tails))
                )
            )
            for c in range(2)
        ]
        cell = PredictiveDistribution.mix(single)
        one = dist[row].marginal(output)
        for method, x in [("cdf", y[row, output]), ("logpdf", y[row, output])]:
            assert_allclose(getattr(one, method)([x]), getattr(cell, method)([x]), rtol=1e-12)
        assert_allclose(one.ppf(0.3), cell.ppf(0.3), rtol=1e-9)
    assert_allclose(dist.cdf(dist.ppf(0.6)), 0.6, rtol=1e-9)
    assert_allclose(dist.crps(y)[4, 2], dist[4].marginal(2).crps(y[4, [2]])[0], rtol=1e-9)


def test_arrays_make_the_same_again(components):
    again = components_from_arrays(*components.to_arrays())
    for name in components.params:
        assert_array_equal(again.params[name], components.params[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knots": [[[0.0, 0.0, 1.0]]]}, "knots must be finite and increasing"),
        ({"knots": [[[0.0, 1.0, np.nan]]]}, "knots must be finite and increasing"),
        ({"levels": [[[0.1, 0.5, 0.4]]]}, r"levels must be in \[0, 1\] and not decreasing"),
        ({"levels": [[[0.1, 0.5, 1.4]]]}, r"levels must be in \[0, 1\]"),
        ({"tails": [[[0.0, 1.0]]]}, "tails must be positive"),
        ({"tails": [[[1.0]]]}, "have the shapes"),
        ({"levels": [[[0.1, 0.5]]]}, "have the shapes"),
    ],
)
def test_what_is_no_cdf_is_refused(change, message):
    right = {"knots": [[[0.0, 1.0, 2.0]]], "levels": [[[0.1, 0.5, 0.9]]], "tails": [[[1.0, 1.0]]]}
    PiecewiseComponents(**right)
    with pytest.raises(ValueError, match=message):
        PiecewiseComponents(**(right | change))


class TestQuantiles:
    def test_they_are_its_quantiles(self):
        levels = np.array([0.05, 0.3, 0.5, 0.9])
        quantiles = np.array([[0.0, 1.0, 4.0, 5.0], [-7.0, -6.9, -6.0, 0.0]])
        dist = PredictiveDistribution(piecewise_from_quantiles(levels, quantiles))
        assert_allclose(dist.ppf(levels).T, quantiles, atol=1e-12)

    def test_many_quantiles_of_a_normal_are_nearly_the_normal(self):
        normal = stats.norm(3.0, 2.0)
        levels = (np.arange(200) + 0.5) / 200
        dist = PredictiveDistribution(piecewise_from_quantiles(levels, [normal.ppf(levels)]))
        assert_allclose(dist.mean(), 3.0, atol=1e-6)
        assert_allclose(dist.std(), 2.0, rtol=0.01)
        x = np.linspace(-2, 8, 50)
        assert_allclose(dist.pdf(x[:, None])[:, 0], normal.pdf(x), atol=0.004)

    def test_tails_are_those_of_a_laplace(self):
        laplace = stats.laplace(1.0, 2.5)
        levels = [0.05, 0.5, 0.95]
        dist = PredictiveDistribution(piecewise_from_quantiles(levels, [laplace.ppf(levels)]))
        x = np.array([-40.0, -9.0, 15.0, 60.0])
        assert_allclose(dist.logpdf(x[:, None])[:, 0], laplace.logpdf(x), rtol=1e-10)

    @pytest.mark.parametrize("levels", [[0.5], [0.0, 0.5], [0.5, 1.0], [0.5, 0.4]])
    def test_levels_that_are_none(self, levels):
        with pytest.raises(ValueError, match="levels must be at least two"):
            piecewise_from_quantiles(levels, [np.arange(len(levels))])

    def test_another_number_of_quantiles(self):
        with pytest.raises(ValueError, match=r"\(1, 3\), expected \(n, 2\)"):
            piecewise_from_quantiles([0.1, 0.9], [[1.0, 2.0, 3.0]])


class TestTies:
    def test_equal_masses_fill_the_cell_evenly(self):
        # Masses of a quarter each; those of the 2 fill its cell, half the way to 0 and to 6.
        values = spread_ties([[0.0, 2.0, 2.0, 6.0]], np.inf, 1.0)
        assert_allclose(values, [[0.0, 1.5, 3.0, 6.0]])
        cell = stats.uniform(1.0, 1.0)
        assert cell.cdf(1.5) == 0.5

    def test_a_narrow_cell_holds_the_mass_of_its_value(self):
        values = np.repeat([3.0, 4.0, 5.0], [30, 50, 20])[None]
        spread = spread_ties(values, 1.0, 1.0)
        levels = (np.arange(100) + 0.5) / 100
        dist = PredictiveDistribution(piecewise_from_quantiles(levels, spread))
        mass = np.exp([dist.log_probability([y], 1.0)[0] for y in (3.0, 4.0, 5.0)])
        assert_allclose(mass, [0.3, 0.5, 0.2], atol=0.01)

    def test_what_increases_is_left_alone_and_order_does_not_matter(self):
        values = np.array([[0.0, 0.5, 7.0]])
        assert_array_equal(spread_ties(values, np.inf, 1.0), values)
        assert_array_equal(spread_ties(values[:, ::-1], np.inf, 1.0), values)

    @pytest.mark.parametrize("value", [0.0, 5.0, -1e9, 1e-200, 1e150])
    def test_one_value_fills_the_cell_of_the_resolution(self, value):
        spread = spread_ties(np.full((1, 100), value), np.inf, 1e-3)
        assert (np.diff(spread) > 0).all()
        if abs(value) < 10:
            assert_allclose(spread[0, [0, -1]], [value - 0.000495, value + 0.000495])
        piecewise_from_quantiles((np.arange(100) + 0.5) / 100, spread)

    def test_the_outermost_cell_is_as_wide_on_both_sides(self):
        assert_allclose(spread_ties([[1.0, 1.0, 3.0]], np.inf, 1.0), [[0.5, 1.5, 3.0]])

    def test_a_row_does_not_know_of_the_others(self):
        rng = np.random.default_rng(0)
        rows = rng.integers(0, 5, size=(20, 30)).astype(float)
        together = spread_ties(rows, np.inf, 0.5)
        for row, expected in zip(rows, together, strict=True):
            assert_array_equal(spread_ties(row[None], np.inf, 0.5)[0], expected)


def test_median_of_a_mixture_solves_its_cdf():
    made = piecewise_from_quantiles([0.1, 0.5, 0.9], [[0.0, 1.0, 5.0]])
    normal = PredictiveDistribution("norm", {"loc": [[4.0]], "scale": [[1.0]]})
    mixed = PredictiveDistribution.mix([PredictiveDistribution(made), normal])
    root = optimize.brentq(lambda x: mixed.cdf([x])[0] - 0.5, -10, 20)
    assert_allclose(mixed.median(), root, rtol=1e-8)
