import copy
import pickle
import tracemalloc
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from quadrature import integral_between
from scipy import stats
from scipy.special import logsumexp

from sklearn_probmix import distributions
from sklearn_probmix.components import Components
from sklearn_probmix.crps import mixture_crps
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.metrics import crps
from sklearn_probmix.piecewise import piecewise_from_quantiles
from sklearn_probmix.scipy_components import scipy_components

FAMILIES = ["norm", "lognorm", "gamma", "beta", "poisson", "bernoulli"]
CONTINUOUS = FAMILIES[:4]
COUNTS = FAMILIES[4:]
PARAMS = {
    "norm": lambda u: {"loc": 6 * u - 3, "scale": np.exp(2 * u - 1)},
    "lognorm": lambda u: {"s": 0.2 + u, "scale": np.exp(2 * u)},
    "gamma": lambda u: {"a": np.exp(3 * u - 1), "scale": np.exp(2 * u - 1)},
    "beta": lambda u: {"a": np.exp(3 * u - 1), "b": np.exp(1 - u)},
    "poisson": lambda u: {"mu": np.exp(5 * u - 1)},
    "bernoulli": lambda u: {"p": u},
}
Q = np.array([1e-6, 0.01, 0.3, 0.5, 0.77, 0.99, 1 - 1e-6])


def make(name, shape=(7, 1), seed=0, weights="random"):
    rng = np.random.default_rng(seed)
    if weights == "random":
        weights = rng.dirichlet(np.ones(shape[1]), shape[0])
    return PredictiveDistribution(name, PARAMS[name](rng.random(shape)), weights=weights)


def by_hand(dist, method, x):
    """sum_c w_c f_c(x), one component and one row after the other."""
    family = getattr(stats, dist.name)
    total = np.zeros(dist.shape)
    for row in range(len(dist)):
        for c in range(dist.n_components):
            params = {key: value[row, c] for key, value in dist.params.items()}
            total[row] += dist.weights[row, c] * getattr(family, method)(x[row], **params)
    return total


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(7, 1), (5, 1, 3)])
def test_single_component_is_scipy(name, shape):
    dist = make(name, shape)
    frozen = getattr(stats, name)(**{key: value[:, 0] for key, value in dist.params.items()})
    assert dist.shape == (shape[0], *shape[2:])
    assert dist.ndim == len(dist.shape)
    x = dist.rvs(4, random_state=1)
    mass = "p{}f".format("m" if name in COUNTS else "d")
    assert_allclose(dist.pdf(x), getattr(frozen, mass)(x), rtol=1e-10)
    assert_allclose(dist.logpdf(x), getattr(frozen, f"log{mass}")(x), rtol=1e-10)
    for method in ("cdf", "sf"):
        assert_allclose(getattr(dist, method)(x), getattr(frozen, method)(x), rtol=1e-10)
    for method in ("mean", "median", "var", "std"):
        result = getattr(dist, method)()
        assert result.shape == dist.shape
        assert_allclose(result, getattr(frozen, method)(), rtol=1e-10)
    q = np.r_[0, Q, 1]
    # At 0 scipy's is one before the first count.
    expected = np.maximum([frozen.ppf(level) for level in q], frozen.support()[0])
    assert_allclose(dist.ppf(q), expected, rtol=1e-10)
    for end, expected in zip(dist.interval(0.8), frozen.interval(0.8), strict=True):
        assert_allclose(end, expected, rtol=1e-10)
    for end, expected in zip(dist.support(), frozen.support(), strict=True):
        assert_array_equal(end, np.broadcast_to(expected, dist.shape))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("norm", {"loc": 0.3}),
        ("norm", {"scale": 2.0}),
        ("lognorm", {"s": 0.7}),
        ("gamma", {"a": 2.5}),
        ("beta", {"a": 2.5, "b": 1.5}),
    ],
)
def test_what_is_left_out_is_as_in_scipy(name, params):
    frozen = getattr(stats, name)(**params)
    every = {"scale": 1.0} | params | ({"loc": 0.0} | params if name == "norm" else {})
    dist, same = (
        PredictiveDistribution(name, {key: np.full((1, 2), value) for key, value in given.items()})
        for given in (params, every)
    )
    for method, *args in (("mean",), ("var",), ("cdf", 0.4), ("ppf", 0.2), ("logpdf", 0.4)):
        assert_allclose(getattr(dist, method)(*args).item(), getattr(frozen, method)(*args))
    assert crps([0.4], dist) == crps([0.4], same)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2)])
def test_mixture_is_the_weighted_sum(name, shape):
    dist = make(name, shape)
    x = dist.rvs(random_state=2)
    mass = by_hand(dist, "pmf" if name in COUNTS else "pdf", x)
    assert_allclose(dist.pdf(x), mass, rtol=1e-12)
    assert_allclose(dist.logpdf(x), np.log(mass), rtol=1e-12, atol=1e-14)
    assert_allclose(dist.cdf(x), by_hand(dist, "cdf", x), rtol=1e-12)
    assert_allclose(dist.sf(x), by_hand(dist, "sf", x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_mixture_moments_are_integrals(name):
    dist = make(name, (1, 3))
    mean, var = dist.mean()[0], dist.var()[0]
    tail = np.logspace(-13, -1, 13)
    breaks = np.unique(dist.ppf(np.r_[tail, 0.5, 1 - tail]))

    def moment(power, centre):
        def integrand(x, _):
            return (x - centre) ** power * dist.pdf(x.reshape(-1, 1)).reshape(x.shape)

        return integral_between(integrand, breaks, n=100)

    assert_allclose(moment(0, 0.0), 1, rtol=1e-7)
    assert_allclose(moment(1, 0.0), mean, rtol=1e-6, atol=1e-7)
    assert_allclose(moment(2, mean), var, rtol=1e-5)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("shape", [(20, 5), (4, 3, 2)])
def test_mixture_quantiles_invert_the_cdf(name, shape):
    dist = make(name, shape)
    x = dist.ppf(Q.reshape(1, -1))
    assert x.shape == (1, Q.size, *dist.shape)
    levels = np.broadcast_to(Q.reshape(-1, *[1] * dist.ndim), x.shape)
    assert_allclose(dist.cdf(x), levels, rtol=0, atol=1e-10)
    assert_array_equal(dist.ppf([0, 1]), np.stack(dist.support()))
    assert_array_equal(dist.median(), dist.ppf(0.5))


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("components", [1, 4])
def test_quantile_of_counts_is_the_smallest_integer_that_suffices(name, components):
    dist = make(name, (30, components))
    k = dist.ppf(Q)
    assert_array_equal(k, np.round(k))
    assert (dist.cdf(k) >= Q[:, None] - 1e-14).all()
    assert (dist.cdf(k - 1) < Q[:, None]).all()
    assert_array_equal(dist.ppf(1.0), dist.support()[1])


@pytest.mark.parametrize("name", [*FAMILIES, "nbinom"])
@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (4, 2, 2)])
def test_ends_of_the_line_and_of_the_levels(name, shape):
    params = {"n": np.full(shape, 2.0), "p": np.full(shape, 0.3)}
    dist = PredictiveDistribution(name, params) if name == "nbinom" else make(name, shape)
    assert_array_equal(dist.ppf([0, 1]), np.stack(dist.support()))
    for end, below in [(-np.inf, 0.0), (np.inf, 1.0)]:
        assert_array_equal(dist.pdf(end), np.zeros(dist.shape))
        assert_array_equal(dist.logpdf(end), np.full(dist.shape, -np.inf))
        assert_array_equal(dist.log_probability(end, 1.0), np.full(dist.shape, -np.inf))
        assert_allclose(dist.cdf(end), np.full(dist.shape, below), rtol=1e-15)
        assert_array_equal(dist.crps(np.full(dist.shape, end)), np.full(dist.shape, np.inf))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (4, 2, 2)])
def test_no_rows(name, shape):
    none = make(name, shape)[[]]
    y = np.empty(none.shape)
    for found in (none.crps(y), none.log_probability(y, 1.0), none.logpdf(y), none.median()):
        assert found.shape == none.shape == (0, *shape[2:])
    assert len(PredictiveDistribution.concatenate([none, make(name, shape)])) == shape[0]


@pytest.mark.parametrize("far", [9e-4, 2e-3])
def test_density_of_large_counts_follows_the_recurrence(far):
    mu = 2e9
    # p(k) = p(k - 1) mu / k, from p(mu) of Stirling's formula on.
    steps = np.log1p(np.arange(1, round(far * mu) + 1) / mu)
    expected = -np.log(2 * np.pi * mu) / 2 - 1 / (12 * mu) - steps.sum()
    dist = PredictiveDistribution("poisson", {"mu": [[mu]]})
    assert_allclose(dist.logpdf(mu + len(steps)), expected, rtol=1e-10)


def test_where_no_atom_is_between_the_bounds_there_is_none():
    low, high = np.array([0.2, 1.2]), np.array([0.9, 2.2])
    atoms = scipy_components("poisson", {"mu": [[2.0], [3.0]]}).atoms(low, high, 100)
    assert ((low <= atoms) & (atoms <= high)).all()
    assert 2 in atoms[:, 1]


def test_atoms_of_shifted_counts_are_those_between_the_bounds():
    parts = scipy_components("poisson", {"mu": [[2.0, 3.0]], "loc": [[0.25, 0.5]]})
    atoms = parts.atoms(np.array([-0.6]), np.array([2.4]), 100)
    assert set(atoms.ravel()) == {-0.5, 0.25, 0.5, 1.25, 1.5, 2.25}


@pytest.mark.parametrize("mu", [1e8, 1.5e9, 1e10, 1e12, 1e19])
def test_quantiles_of_large_counts(mu):
    q = np.array([1e-6, 0.05, 0.5, 0.9, 0.999])
    one = PredictiveDistribution("poisson", {"mu": [[mu]]})
    two = PredictiveDistribution("poisson", {"mu": [[mu, 1.0001 * mu]]})
    rounding = 1e-6
    for dist in (one, two):
        k = dist.ppf(q)
        assert_allclose(dist.cdf(k)[:, 0], q, atol=2 / np.sqrt(mu) + rounding)
        assert (dist.cdf(k) >= q[:, None] - rounding).all()
    normal = PredictiveDistribution("norm", {"loc": [[mu]], "scale": [[np.sqrt(mu)]]})
    assert_allclose((one.ppf(q) - normal.ppf(q)) / np.sqrt(mu), 0, atol=4 / np.sqrt(mu) + 1e-6)
    assert_array_equal(one.ppf([0, 1]), two.ppf([0, 1]))


def test_expansion_of_the_quantiles_of_large_counts_meets_scipys(monkeypatch):
    q = np.random.default_rng(0).uniform(1e-4, 1 - 1e-4, 2000)
    dist = PredictiveDistribution("poisson", {"mu": [[3e7]]})
    expected = dist.ppf(q)
    monkeypatch.setattr("sklearn_probmix.scipy_components._Poisson._LARGE", 1e7)
    assert abs(dist.ppf(q) - expected).max() <= 1
    assert (dist.ppf(q) == expected).mean() > 0.99


@pytest.mark.parametrize("mean", [1e8, 1e12, 1e18, 1e100])
@pytest.mark.parametrize("n", [1e-3, 1.00014, 1e4, 1e6])
def test_quantiles_of_large_overdispersed_counts(n, mean):
    # scipy's own search does not end here.
    q = np.array([1e-6, 0.05, 0.5, 0.9, 1 - 1e-13])
    params = {"n": [[n]], "p": [[n / (n + mean)]]}
    dist = PredictiveDistribution("nbinom", params)
    k = dist.ppf(q)
    is_large = k > 1e6
    assert is_large[-1]
    assert (np.diff(k, axis=0) >= 0).all()
    off = (dist.cdf(k) - q[:, None])[is_large] / np.minimum(q, 1 - q)[:, None][is_large]
    assert_allclose(off, 0, atol=1e-3)
    shifted = PredictiveDistribution("nbinom", {**params, "loc": [[3.0]]})
    assert_array_equal(shifted.ppf(q), k + 3)
    assert_array_equal(dist.ppf([0, 1]), [[0], [np.inf]])
    gamma = PredictiveDistribution("gamma", {"a": [[n]], "scale": [[mean / n]]})
    assert_allclose(dist.crps([mean]), gamma.crps([mean]), rtol=1e-6 + 4 * n / mean)


def test_quantiles_of_overdispersed_counts_meet_where_the_search_changes(monkeypatch):
    rng = np.random.default_rng(0)
    n, mean = 10 ** rng.uniform([-1, 2], 4, (2000, 2)).T[:, :, None]
    q = rng.uniform(1e-4, 1 - 1e-4, n.shape)
    counts = scipy_components("nbinom", {"n": n, "p": n / (n + mean)})
    expected = counts.ppf(q)
    monkeypatch.setattr("sklearn_probmix.scipy_components._NegativeBinomial._LARGE", 0)
    assert_array_equal(counts.ppf(q), expected)


def test_degenerate_and_distant_components():
    same = PredictiveDistribution("norm", {"loc": np.full((2, 3), 4.0), "scale": np.ones((2, 3))})
    assert_allclose(same.ppf(0.9), stats.norm.ppf(0.9, 4.0), rtol=1e-12)
    far = PredictiveDistribution("norm", {"loc": [[-1e6, 1e6]], "scale": [[1e-6, 1e-6]]})
    assert_allclose(far.ppf([0.25, 0.75])[:, 0], [-1e6, 1e6])
    assert np.isfinite(far.ppf(0.5)).all()
    unused = PredictiveDistribution(
        "gamma", {"a": [[2.0, 9.0]], "scale": [[1.0, 1e9]]}, weights=[1.0, 0.0]
    )
    assert_allclose(unused.ppf(Q)[:, 0], stats.gamma.ppf(Q, 2.0), rtol=1e-10)
    assert_allclose(unused.logpdf([3.0]), stats.gamma.logpdf(3.0, 2.0))
    assert unused.rvs(500, random_state=0).max() < 100
    boxes = PredictiveDistribution("uniform", {"scale": [[1.0, 2.0, 9.0]]}, weights=[0.3, 0.7, 0])
    assert_array_equal(np.stack(boxes.support()), [[0], [2]])
    assert_array_equal(boxes.ppf([0, 1]), [[0], [2]])


@pytest.mark.parametrize("factor", [1e30, 1e-30])
@pytest.mark.parametrize("name", ["norm", "lognorm", "gamma"])
def test_extreme_scales_are_rescaled_ordinary_ones(name, factor):
    dist = make(name, (5, 3))
    params = {k: v * factor if k in ("loc", "scale") else v for k, v in dist.params.items()}
    scaled = PredictiveDistribution(name, params, weights=dist.weights)
    x = dist.rvs(random_state=0)
    assert_allclose(scaled.ppf(Q) / factor, dist.ppf(Q), rtol=1e-9)
    assert_allclose(scaled.logpdf(x * factor) + np.log(factor), dist.logpdf(x), rtol=1e-9)
    assert_allclose(scaled.std() / factor, dist.std(), rtol=1e-9)
    assert_allclose(scaled.cdf(x * factor), dist.cdf(x), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("gamma", {"a": [[1e-3]], "scale": [[1e12]]}),
        ("lognorm", {"s": [[1e3]], "scale": [[1e12]]}),
    ],
)
def test_density_near_zero_of_a_large_scale_is_finite(name, params):
    dist = PredictiveDistribution(name, params)
    x = np.array([1e-300])
    slope = (dist.cdf(2 * x) - dist.cdf(x)) / x
    assert dist.pdf(2 * x) < slope < dist.pdf(x) < np.inf


def test_variance_of_a_narrow_lognormal_keeps_its_digits():
    s = np.array([[1e-9], [1e-6], [1e-3]])
    dist = PredictiveDistribution("lognorm", {"s": s, "scale": np.full((3, 1), 2.0)})
    series = 4 * (s**2 + 1.5 * s**4)[:, 0]
    assert_allclose(dist.var(), series, rtol=1e-11)


def test_variance_of_components_without_a_finite_mean_is_infinite():
    dist = PredictiveDistribution("lognorm", {"s": [[40.0, 39.0]], "scale": [[1.0, 1.0]]})
    assert_array_equal([dist.mean(), dist.std()], np.inf)
    params = {"s": [[40.0, 1.0]], "scale": [[1.0, 1.0]]}
    unused = PredictiveDistribution("lognorm", params, weights=[0.0, 1.0])
    assert_allclose(unused.mean(), stats.lognorm(1).mean())
    assert_allclose(unused.std(), stats.lognorm(1).std())


@pytest.mark.parametrize(("s", "log_scale"), [(30.0, -550.0), (38.0, -1000 * np.log(2))])
def test_moments_of_a_wide_lognormal_overflow_only_where_they_are_beyond_floats(s, log_scale):
    dist = PredictiveDistribution("lognorm", {"s": [[s]], "scale": [[np.exp(log_scale)]]})
    log_var = 2 * log_scale + 2 * s**2
    assert_allclose(np.log(dist.mean()), log_scale + s**2 / 2, rtol=1e-12)
    assert_allclose(np.log(dist.var()), log_var if log_var < 709 else np.inf, rtol=1e-12)
    shifted = PredictiveDistribution("lognorm", {"s": [[1.0]], "loc": [[2.0]], "scale": [[3.0]]})
    assert_allclose(shifted.mean(), stats.lognorm(1, 2, 3).mean(), rtol=1e-14)


def test_score_of_a_lognormal_whose_mean_overflows_is_infinite_if_it_has_a_weight():
    params = {"s": [[1.0, 38.0], [1.0, 1e10]], "scale": np.ones((2, 2))}
    for y in (1.0, 1e300):
        assert_array_equal(PredictiveDistribution("lognorm", params).crps([y, y]), np.inf)
    unused = PredictiveDistribution("lognorm", params, weights=[1.0, 0.0])
    single = PredictiveDistribution("lognorm", {key: np.ones((2, 1)) for key in params})
    assert_array_equal(unused.crps([2.0, 2.0]), single.crps([2.0, 2.0]))


def test_law_of_total_variance_by_hand():
    dist = PredictiveDistribution(
        "norm", {"loc": [[0.0, 10.0]], "scale": [[1.0, 2.0]]}, weights=[0.75, 0.25]
    )
    assert_allclose(dist.var("aleatoric"), 0.75 * 1 + 0.25 * 4)
    assert_allclose(dist.var("epistemic"), 0.75 * 2.5**2 + 0.25 * 7.5**2)
    assert_allclose(dist.var(), 1.75 + 18.75)
    assert_array_equal(make("gamma", (4, 1)).var("epistemic"), np.zeros(4))
    with pytest.raises(ValueError, match="kind must be one of.*'noise'"):
        dist.var("noise")


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_follow_the_distribution(name):
    dist = make(name, (1, 3), seed=3)
    draws = dist.rvs(20_000, random_state=0)[:, 0]
    if name in CONTINUOUS:
        assert stats.kstest(draws, lambda x: dist.cdf(x[:, None])[:, 0]).pvalue > 1e-3
    else:
        k = np.arange(draws.max() + 2)
        observed = np.searchsorted(np.sort(draws), k, side="right") / draws.size
        # Dvoretzky, Kiefer and Wolfowitz: exceeded with probability 1e-3.
        bound = np.sqrt(np.log(2 / 1e-3) / (2 * draws.size))
        assert abs(observed - dist.cdf(k[:, None])[:, 0]).max() < bound
    standard_error = dist.std()[0] / np.sqrt(draws.size)
    assert abs(draws.mean() - dist.mean()[0]) < 4 * standard_error
    assert_allclose(draws.var(), dist.var()[0], rtol=0.1)


def test_shapes_and_seeds_of_samples():
    dist = make("norm", (4, 3, 2))
    assert dist.rvs().shape == (4, 2)
    assert dist.rvs(5).shape == (5, 4, 2)
    assert dist.rvs((5, 6)).shape == (5, 6, 4, 2)
    first = dist.rvs(5, random_state=1)
    assert_array_equal(first, dist.rvs(5, random_state=1))
    assert_array_equal(first, dist.rvs(5, random_state=np.random.default_rng(1)))
    assert (first != dist.rvs(5, random_state=2)).all()
    legacy = [dist.rvs(5, random_state=np.random.RandomState(1)) for _ in range(2)]
    assert_array_equal(*legacy)


def test_a_draw_takes_one_component_for_all_outputs():
    params = {"loc": [[[-9.0, -9.0], [9.0, 9.0]]], "scale": np.full((1, 2, 2), 0.1)}
    draws = PredictiveDistribution("norm", params).rvs(200, random_state=0)[:, 0]
    signs = np.sign(draws)
    assert_array_equal(signs[:, 0], signs[:, 1])
    assert set(signs[:, 0]) == {-1, 1}


def test_joint_density_mixes_after_multiplying_the_outputs():
    dist = make("norm", (3, 2, 2))
    y = dist.rvs(random_state=0)
    p = stats.norm.pdf(y[:, None], **dist.params)
    joint = (dist.weights * p[..., 0] * p[..., 1]).sum(axis=1)
    assert_allclose(dist.joint_logpdf(y), np.log(joint), rtol=1e-12)
    assert abs(dist.joint_logpdf(y) - dist.logpdf(y).sum(axis=1)).min() > 1e-4
    single = make("norm", (3, 1, 2))
    assert_allclose(single.joint_logpdf(y), single.logpdf(y).sum(axis=1), rtol=1e-12)
    assert_array_equal(make("gamma").joint_logpdf(np.ones(7)), make("gamma").logpdf(np.ones(7)))
    assert dist.joint_logpdf(np.zeros((5, 3, 2))).shape == (5, 3)


def test_leading_axes_are_broadcast():
    dist = make("norm", (4, 2))
    grid = np.linspace(-1, 1, 9)
    values = dist.cdf(grid[:, None])
    assert values.shape == (9, 4)
    assert_array_equal(values[3], dist.cdf(np.full(4, grid[3])))
    assert dist.cdf(0.0).shape == (4,)


@pytest.mark.parametrize("name", ["norm", "poisson"])
@pytest.mark.parametrize("shape", [(11, 3), (11, 3, 2)])
def test_blocks_of_rows_do_not_change_results(name, shape, monkeypatch):
    dist = make(name, shape)
    x = dist.rvs(4, random_state=0)

    def results():
        return [
            dist.pdf(x),
            dist.logpdf(x),
            dist.joint_logpdf(x),
            dist.cdf(x),
            dist.sf(x[0]),
            dist.ppf(Q),
        ]

    whole = results()
    sizes = []
    take = PredictiveDistribution._take
    monkeypatch.setattr(
        PredictiveDistribution,
        "_take",
        lambda self, rows: sizes.append(rows.stop - rows.start) or take(self, rows),
    )
    monkeypatch.setattr(distributions, "_BLOCK", 4 * 3 * 2 * 3)
    for one, other in zip(whole, results(), strict=True):
        assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert len(sizes) >= 6 * 2


def test_rows_are_selected_as_in_numpy():
    dist = make("norm", (5, 2, 3))
    mean = dist.mean()
    mask = np.array([True, False, True, False, True])
    for index in (np.s_[1:4], np.s_[::-1], mask, [3, 0], np.array([-1]), mask & False):
        assert_array_equal(dist[index].mean(), mean[index])
        assert_array_equal(dist[index].weights, dist.weights[index])
    assert dist[3].shape == (1, 3)
    assert_array_equal(dist[-2].mean(), mean[[3]])
    assert len(dist) == 5
    assert [row.shape for row in dist] == [(1, 3)] * 5
    for index in (5, (0, 0), [[0, 1]]):
        with pytest.raises(IndexError):
            dist[index]


def test_array_is_the_mean():
    dist = make("gamma", (4, 2))
    assert_array_equal(np.asarray(dist), dist.mean())
    assert np.asarray(dist, dtype=np.float32).dtype == np.float32
    assert_array_equal(np.array(dist, copy=True), dist.mean())
    # Before numpy 2 it was only a wish.
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="copy=False"):
            np.array(dist, copy=False)


def test_repr_and_pickle():
    dist = make("beta", (4, 2, 3))
    assert repr(dist) == "PredictiveDistribution('beta', shape=(4, 3), n_components=2)"
    again = pickle.loads(pickle.dumps(dist))
    x = dist.rvs(random_state=0)
    assert_array_equal(again.logpdf(x), dist.logpdf(x))
    assert_array_equal(again.weights, dist.weights)


@pytest.mark.parametrize("n_outputs", [(), (2,)])
def test_copies_stay_read_only(n_outputs):
    dist = make("gamma", (4, 2, *n_outputs))
    for other in (pickle.loads(pickle.dumps(dist)), copy.deepcopy(dist), copy.copy(dist)):
        for array in (other.weights, *other.params.values()):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        assert_array_equal(other.mean(), dist.mean())


def test_numpy_asks_the_distribution():
    dist = make("gamma", (4, 2))
    assert_array_equal(np.mean(dist), dist.mean())
    assert_array_equal(np.std(dist), dist.std())
    assert_array_equal(np.var(dist), dist.var())
    for reduce, arguments in [
        (np.mean, {"axis": 0}),
        (np.std, {"ddof": 1}),
        (np.var, {"dtype": np.float32}),
        (np.mean, {"out": np.empty(4)}),
    ]:
        with pytest.raises(TypeError, match=f"takes no .*{next(iter(arguments))}.*asarray"):
            reduce(dist, **arguments)
    with pytest.raises(TypeError, match="takes no .*'kind'"):
        dist.mean(kind="total")


def test_values_are_never_paired_with_all_rows():
    dist, y = make("norm", (5, 2)), np.linspace(-1, 1, 5)
    for method in (dist.pdf, dist.logpdf, dist.joint_logpdf, dist.cdf, dist.sf, dist.pmf):
        for wrong in (y[:, None], np.ones((3, 5, 1))):
            with pytest.raises(ValueError, match=r"5, 1\), expected \(5,\).*flatten"):
                method(wrong)
        grid = np.broadcast_to(y[:, None], (5, 5))
        assert method(grid).shape == (5, 5)
        assert method(y[:4, None]).shape == (4, 5)
    with pytest.raises(ValueError, match=r"5, 1\), expected \(5,\)"):
        dist.crps(y[:, None])
    square = make("norm", (5, 2, 5))
    with pytest.raises(ValueError, match=r"\(5,\), expected \(5, 5\)"):
        square.logpdf(y)
    assert make("norm", (1, 2)).logpdf([[0.3]]).shape == (1, 1)
    with pytest.raises(ValueError, match=r"y has shape \(3, 5\), expected \(5,\)"):
        dist.crps(np.zeros((3, 5)))


def test_samples_of_huge_counts():
    mu = np.array([[3.0], [1e17], [1e20], [1e300]])
    draws = PredictiveDistribution("poisson", {"mu": mu}).rvs(4000, random_state=0)
    z = (draws - mu[:, 0]) / np.sqrt(mu[:, 0])
    # Where the standard deviation is below the spacing of the floats, draws are the mean.
    assert_array_equal(draws[:, 3], 1e300)
    for row in range(3):
        assert abs(z[:, row].mean()) < 4 / np.sqrt(4000)
        assert_allclose(z[:, row].std(), 1, rtol=0.05)


def test_density_of_an_extreme_beta():
    params = {"a": [[1e20], [1.0], [2.0]], "b": [[1e20], [1e308], [3.0]]}
    dist = PredictiveDistribution("beta", params)
    x = [1e-300, 1e-300, 0.3]
    with np.errstate(under="ignore"):
        assert_allclose(dist.pdf(x), np.exp(dist.logpdf(x)), rtol=1e-12)
    assert_allclose(dist.pdf(x)[2], stats.beta.pdf(0.3, 2, 3), rtol=1e-14)


def test_inputs_are_copied_and_results_are_not_views():
    loc, weights = np.zeros((3, 1)), np.ones((3, 1))
    dist = PredictiveDistribution("norm", {"loc": loc, "scale": np.ones((3, 1))}, weights=weights)
    loc[:] = 7
    weights[:] = 0
    assert_array_equal(dist.mean(), np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        dist.params["loc"][0] = 1
    dist.mean()[:] = 5
    assert_array_equal(dist.mean(), np.zeros(3))


@pytest.mark.parametrize("missing", ["log_density", "cdf", "ppf", "mean", "var"])
def test_components_supply_five_methods(missing):
    supplied = {"log_density", "cdf", "ppf", "mean", "var"} - {missing}
    mine = type("Mine", (Components,), dict.fromkeys(supplied, lambda self, *args: 0.0))
    with pytest.raises(TypeError, match=f"abstract method '?{missing}"):
        mine({"loc": [[0.0]]})


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 2, 2)])
def test_components_say_their_outputs_and_how_many_numbers_they_hold(shape):
    parts = scipy_components("norm", {"loc": np.zeros(shape)})
    other = scipy_components("norm", {"loc": np.zeros((*shape[:2], 3))})
    assert parts.alike() == parts.take([0]).alike() != other.alike()
    assert parts.n_numbers == other.n_numbers == 1


def test_concatenate_joins_rows():
    dist = make("gamma", (6, 3))
    joined = PredictiveDistribution.concatenate([dist[4:], dist[:4]])
    assert_array_equal(joined.mean(), np.roll(dist.mean(), 2))
    for other in (make("gamma", (6, 2)), make("lognorm", (6, 3)), make("gamma", (6, 3, 2))):
        with pytest.raises(ValueError, match="do not match"):
            PredictiveDistribution.concatenate([dist, other])
    with pytest.raises(ValueError, match="empty"):
        PredictiveDistribution.concatenate([])


@pytest.mark.parametrize("weights", [None, [0.2, 0.8], np.tile([0.5, 0.5], (6, 1))])
def test_mix_pools_densities(weights):
    one, other = make("gamma", (6, 3)), make("gamma", (6, 2), seed=1)
    pooled = PredictiveDistribution.mix([one, other], weights)
    shares = np.broadcast_to([0.5, 0.5] if weights is None else weights, (6, 2))
    x = np.linspace(0.1, 3, 6)
    expected = shares[:, 0] * one.pdf(x) + shares[:, 1] * other.pdf(x)
    assert_allclose(pooled.pdf(x), expected, rtol=1e-12)
    assert pooled.n_components == 5
    with pytest.raises(ValueError, match="do not match"):
        PredictiveDistribution.mix([one, other[:3]])


def test_components_are_the_terms_of_the_mixture():
    dist = make("beta", (4, 3, 2))
    x = np.full((4, 2), 0.3)
    terms = [dist.weights[:, [c]] * component.pdf(x) for c, component in enumerate(dist.components)]
    assert_allclose(sum(terms), dist.pdf(x), rtol=1e-12)


def test_any_scipy_family_may_be_named():
    dist = PredictiveDistribution("t", {"df": [[3.0, 5.0]], "loc": [[0.0, 1.0]]})
    expected = (stats.t.cdf(0.4, 3) + stats.t.cdf(0.4, 5, 1)) / 2
    assert_allclose(dist.cdf([0.4]), expected)


ONES = np.ones((3, 1))


@pytest.mark.parametrize(
    ("name", "params", "weights", "message"),
    [
        ("normal", {"loc": ONES}, None, "name must be.*norm, lognorm.*'normal'"),
        (3, {"loc": ONES}, None, "name must be"),
        ("norm", {"mean": ONES, "sd": ONES}, None, r"\['loc', 'scale'\].*got \['mean', 'sd'\]"),
        (
            "gamma",
            {"scale": ONES},
            None,
            r"must be some of \['a', .*, \['a'\] among them; got \['sc",
        ),
        ("norm", {"mu": ONES}, None, r"must be some of \['loc', 'scale'\]; got \['mu'\]"),
        ("norm", {}, None, "params"),
        ("poisson", {"mu": np.ones(3)}, None, r"'mu'.*shape \(3,\), expected \(n, components\)"),
        ("poisson", {"mu": np.ones((3, 0))}, None, "at least one component"),
        ("norm", {"loc": ONES, "scale": np.ones((3, 2))}, None, r"'scale'.*\(3, 2\).*\(3, 1\)"),
        ("norm", {"loc": [[np.nan]], "scale": [[1]]}, None, r"'loc'.*nan at index \(0, 0\)"),
        ("norm", {"loc": [[0], [0]], "scale": [[1], [0]]}, None, r"\(1, 0\).*scale=0.0.*scale > 0"),
        ("lognorm", {"s": -ONES, "scale": ONES}, None, "s=-1.0.*s > 0"),
        ("gamma", {"a": 0 * ONES, "scale": ONES}, None, "a=0.0.*a > 0"),
        ("beta", {"a": ONES, "b": -ONES}, None, "b=-1.0.*b > 0"),
        ("poisson", {"mu": -ONES}, None, "mu=-1.0.*mu >= 0"),
        ("bernoulli", {"p": 2 * ONES}, None, "p=2.0.*0 <= p <= 1"),
        ("poisson", {"mu": ONES}, [0.5, 0.5], r"weights has shape \(2,\), expected \(1,\)"),
        ("poisson", {"mu": np.ones((3, 2))}, [0.9, 0.3], "sum to 1.*1.2"),
        ("poisson", {"mu": np.ones((3, 2))}, [1.5, -0.5], "non-negative.*-0.5"),
        ("poisson", {"mu": np.ones((3, 2))}, [np.nan, 1], "weights must be"),
    ],
)
def test_bad_parameters_are_named(name, params, weights, message):
    with pytest.raises(ValueError, match=message):
        PredictiveDistribution(name, params, weights=weights)


def test_bad_arguments_are_named():
    dist = make("norm", (3, 2))
    for method in (dist.pdf, dist.logpdf, dist.joint_logpdf, dist.cdf, dist.sf):
        with pytest.raises(ValueError, match=r"NaN, first at index \(1,\)"):
            method([0, np.nan, 0])
        with pytest.raises(ValueError, match=r"shape \(4,\), expected \(3,\)"):
            method(np.zeros(4))
    with pytest.raises(ValueError, match=r"shape \(5,\), expected \(1,\)"):
        dist[0].cdf(np.zeros(5))
    for q in (-0.1, [0.5, 1.1], np.nan):
        with pytest.raises(ValueError, match=r"q must lie in \[0, 1\]"):
            dist.ppf(q)
    with pytest.raises(ValueError, match="confidence must lie"):
        dist.interval(90)


mixtures = st.builds(
    make,
    st.sampled_from(FAMILIES),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 10_000),
)
quick = settings(max_examples=40, deadline=None)


@quick
@given(mixtures, st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_and_probabilities_increase(dist, levels):
    x = dist.ppf(np.sort(levels))
    assert not np.isnan(x).any()
    assert (x[1:] >= x[:-1]).all()
    probabilities = dist.cdf(x)
    assert (probabilities[1:] >= probabilities[:-1] - 1e-15).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert_allclose(probabilities + dist.sf(x), 1, rtol=1e-12)
    if not dist.is_discrete:
        assert_allclose(probabilities.T, np.tile(np.sort(levels), (len(dist), 1)), atol=1e-9)


@quick
@given(mixtures, st.randoms())
def test_components_have_no_order(dist, random):
    order = random.sample(range(dist.n_components), dist.n_components)
    params = {key: value[:, order] for key, value in dist.params.items()}
    other = PredictiveDistribution(dist.name, params, weights=dist.weights[:, order])
    assert_allclose(other.ppf(Q), dist.ppf(Q), rtol=1e-9, atol=1e-12)
    assert_allclose(other.var(), dist.var(), rtol=1e-12, atol=1e-14)
    assert_allclose(other.cdf(0.4), dist.cdf(0.4), rtol=1e-12)


@quick
@given(mixtures, st.floats(0, 1))
def test_mixing_a_distribution_with_itself_changes_nothing(dist, share):
    same = PredictiveDistribution.mix([dist, dist], [share, 1 - share])
    assert_allclose(same.ppf(Q), dist.ppf(Q), rtol=1e-9, atol=1e-12)
    assert_allclose(same.mean(), dist.mean(), rtol=1e-12, atol=1e-14)
    assert_allclose(same.var("epistemic"), dist.var("epistemic"), rtol=1e-9, atol=1e-12)
    assert_allclose(same.logpdf(1.0), dist.logpdf(1.0), rtol=1e-9, atol=1e-12)


@quick
@given(mixtures)
def test_variance_splits_in_two(dist):
    assert_allclose(dist.var("aleatoric") + dist.var("epistemic"), dist.var(), rtol=1e-12)
    within = [c.var() for c in dist.components]
    assert (dist.var() >= np.min(within, axis=0) - 1e-12).all()


class TestHtml:
    @staticmethod
    def parsed(dist):
        """Elements of the table; an XML parser refuses what is not closed or escaped."""
        return ElementTree.fromstring(dist._repr_html_())

    def test_first_rows_with_mean_and_interval(self):
        dist = PredictiveDistribution(
            "norm", {"loc": np.arange(8.0)[:, None], "scale": np.ones((8, 1))}
        )
        table = self.parsed(dist)
        assert table.find("caption").text == f"{dist!r}; 3 more rows"
        _, *rows = table.findall("tr")
        texts = [[cell.text for cell in row.findall("td")] for row in rows]
        assert [(row, mean) for row, _, mean, _ in texts] == [
            (str(r), f"{r:.3f}" if r else "0") for r in range(5)
        ]
        assert texts[0][3] == "-1.645 to 1.645"
        # The highest point of a row's curve lies at its mean, on the axis of all rows.
        low, high = stats.norm.ppf(0.001), 4 + stats.norm.ppf(0.999)
        for r, row in enumerate(rows):
            points = row.find("td/svg/polygon").get("points").split()
            x, y = np.array([point.split(",") for point in points], dtype=float).T
            assert_allclose(
                x[y == y.min()], 240 * (r - low) / (high - low), atol=0.2 + 240 * 0.05 / 10
            )
            assert (x.min(), y.min(), y.max()) >= (0, 0, 28)

    @pytest.mark.parametrize(
        ("mean", "sd", "texts"),
        [
            (73_650, 1000, ("73,650", "72,005 to 75,295")),
            (9999.7, 1, ("10,000", "9,998 to 10,001")),
            (0.25, 0.1, ("0.2500", "0.08551 to 0.4145")),
            (-3e12, 1e11, ("-3e+12", "-3.164e+12 to -2.836e+12")),
        ],
    )
    def test_numbers_can_be_read(self, mean, sd, texts):
        dist = PredictiveDistribution("norm", {"loc": [[mean]], "scale": [[sd]]})
        _, row = self.parsed(dist).findall("tr")
        assert tuple(cell.text for cell in row.findall("td")[2:]) == texts

    def test_bars_of_masses(self):
        (row,) = self.parsed(PredictiveDistribution("bernoulli", {"p": [[0.25]]})).findall("tr")[1:]
        bars = [float(bar.get("height")) for bar in row.findall("td/svg/rect")]
        assert_allclose(bars, [28, 28 / 3], atol=0.06)

    def test_outputs_have_tables_of_their_own(self):
        loc = np.zeros((2, 1, 5))
        table = self.parsed(PredictiveDistribution("norm", {"loc": loc, "scale": loc + 1}))
        heads = [row.find("th").text for row in table.findall("tr") if row.find("th") is not None]
        assert heads == ["output 0, row", "output 1, row", "output 2, row"]
        assert table.find("caption").text.endswith("; 2 more outputs")

    @pytest.mark.parametrize(
        "dist",
        [
            PredictiveDistribution("norm", {"loc": [[1e300]], "scale": [[1e-300]]}),
            PredictiveDistribution("cauchy", {"loc": [[0.0]], "scale": [[1e290]]}),
            PredictiveDistribution("poisson", {"mu": [[0.0]]}),
            PredictiveDistribution("gamma", {"a": [[1e-4]]}),
            PredictiveDistribution("gamma", {"a": [[1e-8]]}),
            PredictiveDistribution("lognorm", {"s": [[1000.0]]}),
            PredictiveDistribution("norm", {"loc": [[-1e308]], "scale": [[1e308]]}),
            PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[1e-320]]}),
            # No count lies between the ends of what is drawn.
            PredictiveDistribution.mix(
                [
                    PredictiveDistribution("norm", {"loc": [[0.5]], "scale": [[0.05]]}),
                    PredictiveDistribution("poisson", {"mu": [[3.0]]}),
                ],
                [0.9999, 0.0001],
            ),
            PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[1.0]]})[:0],
        ],
        ids=repr,
    )
    def test_extremes_have_a_picture(self, dist):
        pictures = self.parsed(dist).findall("tr/td/svg")
        assert len(pictures) == len(dist)
        for shape in (shape for picture in pictures for shape in picture):
            assert "nan" not in "".join(shape.attrib.values())

    def test_names_are_escaped(self):
        class Odd(PredictiveDistribution):
            def __repr__(self):
                return "<script>alert(1)</script>"

        html = Odd("norm", {"loc": [[0.0]], "scale": [[1.0]]})._repr_html_()
        assert "<script" not in html
        assert "&lt;script&gt;" in html


@pytest.mark.parametrize("loc", [0.0, 0.25])
def test_cells_of_counts_far_away_hold_what_lies_in_them(loc):
    dist = PredictiveDistribution("poisson", {"mu": [[10.0]], "loc": [[loc]]})
    for y, atoms in [(999.3, [999]), (1000.0, [999, 1000, 1001]), (999.5, [])]:
        width = {0: 0.2, 1: 1.0, 3: 2.0}[len(atoms)]
        logs = stats.poisson(10.0).logpmf(atoms)
        expected = logsumexp(logs) if atoms else -np.inf
        assert_allclose(dist.log_probability([y + loc], width), expected, rtol=1e-12)


@pytest.mark.parametrize("width", [1.0, 10.0, 1000.0])
def test_cells_of_large_counts_are_those_of_the_normal(width):
    mu = 1e14
    counts = PredictiveDistribution("poisson", {"mu": [[mu]]})
    log_density = stats.norm(mu, 1e7).logpdf(mu)
    n_atoms = 2 * (width // 2) + 1
    assert_allclose(counts.log_probability([mu], width), log_density + np.log(n_atoms), rtol=1e-3)


def test_cells_as_narrow_as_the_spacing_of_floats():
    y = np.random.default_rng(0).uniform(0.01, 5.0, (200_000, 1))
    dist = PredictiveDistribution("gamma", {"a": [[3.3]]})
    expected = dist.logpdf(y) + np.log(1e-15)
    # The ends of a cell are rounded to floats, which are up to 9e-16 apart.
    assert_allclose(dist.log_probability(y, 1e-15), expected, atol=0.7)


def test_cells_of_small_masses_between_large_ones():
    masses = [[[0.6, 1e-9, 3e-9, 0.4 - 4e-9]]]
    dist = PredictiveDistribution(LatticeComponents([0.0, 1.0, 1.5, 3.0], masses))
    assert_allclose(dist.log_probability([0.9], 1.0), np.log(1e-9), rtol=1e-6)
    assert_allclose(dist.log_probability([1.4], 1.5), np.log(4e-9), rtol=1e-6)
    assert dist.log_probability([2.4], 1.0) == -np.inf


def test_one_axis_has_no_marginals():
    for components in (
        scipy_components("norm", {"loc": [[0.0]]}),
        LatticeComponents([0.0, 1.0], [[[0.5, 0.5]]]),
    ):
        with pytest.raises(IndexError, match=r"y has shape \(1,\); expected 2-D y"):
            PredictiveDistribution(components).marginal(0)


def test_a_narrow_normal_far_away_warns_of_nothing():
    dist = PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[1e-300]]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dist.cdf(1e10) == 1.0


def test_scores_of_masses_and_knots_hold_few_numbers():
    n, levels = 40_000, (np.arange(100) + 0.5) / 100
    spread = np.random.default_rng(0).uniform(1, 2, (n, 1))
    masses = np.full((n, 1, 100), 0.01)
    for components in (
        LatticeComponents(np.arange(100.0), masses),
        piecewise_from_quantiles(levels, spread * levels),
    ):
        dist = PredictiveDistribution(components)
        y = np.full(n, 0.5)
        tracemalloc.start()
        try:
            whole = dist.crps(y)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 160e6
        assert_array_equal(whole, mixture_crps(dist._components, dist._weights(), y))
