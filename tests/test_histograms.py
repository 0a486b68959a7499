"""Families of bins and their components, each against integrals, sums and values by hand."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats
from sklearn.base import clone

from sklearn_probmix import (
    Family,
    Histogram,
    Kind,
    Lattice,
    PredictiveDistribution,
    ProbMixupRegressor,
    get_family,
    load_model,
    save_model,
)
from sklearn_probmix.components import JoinedComponents, components_from_arrays
from sklearn_probmix.histogram_components import HistogramComponents
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.metrics import nll
from sklearn_probmix.pooling import log_linear_pool, mix_responses
from sklearn_probmix.scipy_components import scipy_components

# Of two outputs, of which the second has fewer bins.
EDGES = ((-1.5, -0.2, 0.1, 1.3, 2.0), (-1.0, 0.5, 0.6, np.inf, np.inf))
TAILS = ((0.4, 0.7), (0.2, 1.1))
VALUES = ((-1.0, 0.0, 0.5, 3.0), (0.0, 1.0, np.inf, np.inf))
N = 3
N_BINS = [6, 4]


def components(*outputs, k=2, seed=0):
    """Components of outputs, or of the first one for 1-D y, some of whose bins are empty."""
    rng = np.random.default_rng(seed)
    masses = np.zeros((N, k, 2, 6))
    for output, n_bins in enumerate(N_BINS):
        masses[:, :, output, :n_bins] = rng.dirichlet(np.ones(n_bins), (N, k))
    masses[0, 0, 0] = [0, 0, 0.25, 0.5, 0.25, 0]
    made = HistogramComponents(EDGES, TAILS, masses)
    return made if not outputs else made.marginal(*outputs)


def mixture(*outputs):
    rng = np.random.default_rng(1)
    return PredictiveDistribution(components(*outputs), weights=rng.dirichlet([1, 1], N))


def integral(function, output, low=-np.inf, high=np.inf):
    """Integrate between the edges, where nothing is smooth but the tails."""
    inner = [e for e in EDGES[output] if low < e < high]
    breaks = [max(low, -40.0), *inner, min(high, 60.0)]
    pairs = itertools.pairwise(breaks)
    return sum(integrate.quad(function, *pair, epsabs=1e-12, epsrel=1e-10)[0] for pair in pairs)


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("row", range(N))
class TestIntegrals:
    def test_density_integrates_to_the_cdf(self, row, output):
        one = mixture(output)[row]
        assert_allclose(integral(lambda t: one.pdf([t])[0], output), 1, rtol=1e-9)
        for x in (-2.5, -1.0, 0.05, 0.5, 1.0, 3.3):
            found = integral(lambda t: one.pdf([t])[0], output, high=x)
            assert_allclose(found, one.cdf([x])[0], rtol=1e-9, atol=1e-12)
            assert_allclose(one.cdf([x]) + one.sf([x]), 1, rtol=1e-12)
            assert_allclose(one.logpdf([x]), np.log(one.pdf([x])) if one.pdf([x]) else -np.inf)

    def test_moments(self, row, output):
        one = mixture(output)[row]
        mean = integral(lambda t: t * one.pdf([t])[0], output)
        assert_allclose(one.mean(), mean, rtol=1e-8, atol=1e-10)
        var = integral(lambda t: (t - mean) ** 2 * one.pdf([t])[0], output)
        assert_allclose(one.var(), var, rtol=1e-8)

    @pytest.mark.parametrize("y", [-9.0, -1.2, 0.05, 0.55, 1.0, 2.4, 12.0])
    def test_crps(self, row, output, y):
        one = mixture(output)[row]
        below = integral(lambda t: one.cdf([t])[0] ** 2, output, high=y)
        above = integral(lambda t: one.sf([t])[0] ** 2, output, low=y)
        assert_allclose(one.crps([y]), below + above, rtol=1e-8)


@pytest.mark.parametrize("outputs", [(), (0,), (1,)])
def test_quantiles_invert_the_cdf(outputs):
    for dist in (mixture(*outputs), PredictiveDistribution(components(*outputs, k=1, seed=3))):
        q = np.array([1e-9, 0.01, 0.3, 0.5, 0.77, 0.999, 1 - 1e-9])
        x = dist.ppf(q)
        assert_allclose(dist.cdf(x), np.broadcast_to(q.reshape(-1, *[1] * dist.ndim), x.shape))
        assert (np.diff(x, axis=0) > 0).all()
        low, high = dist.support()
        assert_array_equal(dist.ppf([0, 1]), [low, high])


def test_the_support_ends_where_bins_are_empty():
    one = components(0).pick(0)
    low, high = one.support()
    assert (low[0, 0], high[0, 0]) == (-0.2, 2.0)
    assert_array_equal(one.ppf(np.zeros((N, 1)))[0], [-0.2])
    assert (low[1, 0], high[1, 0]) == (-np.inf, np.inf)


def test_far_tails_keep_their_digits():
    dist = PredictiveDistribution(components(1, k=1))
    mass = dist.params["masses"][:, 0]
    assert_allclose(dist.sf(100.0), mass[:, 3] * np.exp(-(100 - 0.6) / 1.1), rtol=1e-12)
    assert_allclose(dist.cdf(-50.0), mass[:, 0] * np.exp(-49 / 0.2), rtol=1e-12)
    assert_allclose(dist.logpdf(1e4), np.log(mass[:, 3] / 1.1) - (1e4 - 0.6) / 1.1, rtol=1e-12)
    assert_allclose(dist.sf(dist.ppf(1 - 1e-12)), 1e-12, rtol=1e-4)


def test_draws_follow_the_cdf():
    dist = mixture()
    draws = dist.rvs(4000, random_state=0)
    for row in range(N):
        for output in range(2):
            one = dist.marginal(output)[row]
            law = stats.kstest(draws[:, row, output], lambda x, d=one: d.cdf(x[:, None])[:, 0])
            assert law.pvalue > 1e-3


def test_outputs_keep_their_own_edges():
    both = mixture()
    for output in (0, 1):
        one = mixture(output)
        y = np.array([-1.3, 0.3, 0.8])
        every = np.stack([y, y], axis=1)
        assert_array_equal(both.logpdf(every)[:, output], one.logpdf(y))
        assert_array_equal(both.crps(every)[:, output], one.crps(y))
        assert_allclose(both.ppf(0.3)[:, output], one.ppf(0.3), rtol=1e-12)


def test_a_mixture_is_one_histogram():
    dist, q = mixture(), np.array([0.1, 0.5, 0.99])
    one = dist.blocks[0].merged(dist.weights[..., None])
    assert one.shape == (N, 1, 2)
    y = np.array([[-3.0, 0.3], [0.0, 0.55], [1.9, 9.0]])
    assert_allclose(PredictiveDistribution(one).pdf(y), dist.pdf(y), rtol=1e-12)
    # The same by the search of quantiles among components of two kinds.
    certain = np.concatenate([dist.weights, np.zeros((N, 1))], axis=1)
    parts = [*dist.blocks, scipy_components("norm", {"loc": np.zeros((N, 1, 2))})]
    searched = PredictiveDistribution(JoinedComponents(parts), weights=certain)
    assert_allclose(dist.ppf(q), searched.ppf(q), rtol=1e-9, atol=1e-12)


def test_components_are_made_again_from_their_arrays():
    for made in (components(), components(1), components().fold()):
        again = components_from_arrays(*made.to_arrays())
        assert again.alike() == made.alike()
        for name, values in made.params.items():
            assert_array_equal(again.params[name], values)
        x = np.full(made.shape, 0.3)
        assert_array_equal(again.log_density(x), made.log_density(x))


def test_histograms_on_the_same_edges_are_one_block():
    one, other = mixture(0), PredictiveDistribution(components(0, seed=5))
    both = PredictiveDistribution.mix([one, other])
    assert both.name == "histogram"
    y = np.array([-1.3, 0.3, 0.8])
    assert_allclose(both.pdf(y), (one.pdf(y) + other.pdf(y)) / 2, rtol=1e-12)
    elsewhere = HistogramComponents([0.0, 1.0], [1.0, 1.0], np.full((N, 1, 3), 1 / 3))
    apart = PredictiveDistribution.mix([one, PredictiveDistribution(elsewhere)])
    assert len(apart.blocks) == 2
    assert_allclose(apart.cdf(apart.ppf(0.4)), 0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": [0.0, 0.0]}, "edges must increase"),
        ({"edges": [1.0, 0.0]}, "edges must increase"),
        ({"edges": [0.0, np.nan]}, "edges must increase"),
        ({"edges": [np.inf, np.inf]}, "begin with a finite one"),
        ({"edges": [-np.inf, 0.0]}, "begin with a finite one"),
        ({"tails": [1.0, 0.0]}, "tails must be two positive numbers"),
        ({"tails": [1.0, np.inf]}, "tails must be two positive numbers"),
        ({"tails": [1.0]}, "tails must be two positive numbers"),
        ({"masses": np.full((2, 1, 2), 0.5)}, r"shape \(2, 1, 2\), expected \(n, components, 3\)"),
        ({"masses": np.full((2, 1, 3), 0.5)}, "sum to 1"),
        ({"masses": [[[1.5, -0.5, 0.0]]]}, "non-negative"),
        ({"edges": [[0.0, 1.0]] * 2, "tails": [[1.0, 1.0]] * 2}, "edges has 2 sets"),
        ({"sets": [[1.0]]}, "sets has shape"),
        ({"sets": [[np.nan]]}, "sets has shape"),
        ({"sets": [0.0]}, "sets has shape"),
        ({"edges": [0.0, np.inf]}, "0 for bins that are not there"),
    ],
)
def test_components_that_are_none(changes, message):
    good = {"edges": [0.0, 1.0], "tails": [1.0, 1.0], "masses": [[[0.2, 0.3, 0.5]]]}
    HistogramComponents(**good)
    with pytest.raises(ValueError, match=message):
        HistogramComponents(**good | changes)


# --- families -----------------------------------------------------------------------------------


def histogram():
    return Histogram(edges=EDGES, tails=TAILS)


def lattice():
    return Lattice(values=VALUES, unit=(2.0, 0.5))


def some_eta(family, *shape, seed=0):
    raw = np.random.default_rng(seed).normal(size=(*shape, 2, family.n_params))
    return family.natural(torch.from_numpy(raw))


def test_density_is_that_of_the_components():
    family = histogram()
    eta, y = some_eta(family, N), torch.tensor([[-3.0, 0.55], [0.0, 9.0], [1.9, -1.0]])
    dist = PredictiveDistribution(family.components(eta.unsqueeze(1)))
    assert_allclose(family.log_prob(eta, y), dist.logpdf(y.numpy()), rtol=1e-12)


def test_components_undo_the_standardisation():
    family = histogram()
    eta, shift, scale = some_eta(family, N, 1), torch.tensor([100.0, 0]), torch.tensor([3.0, 1e-20])
    standard = PredictiveDistribution(family.components(eta))
    original = PredictiveDistribution(family.components(eta, shift.double(), scale.double()))
    y = np.array([[-3.0, 0.55], [0.0, 9.0], [1.9, -1.0]])
    there = y * scale.double().numpy() + shift.numpy()
    assert_allclose(original.cdf(there), standard.cdf(y), rtol=1e-9)
    assert_allclose(
        original.logpdf(there), standard.logpdf(y) - np.log(scale.double().numpy()), rtol=1e-9
    )


def test_mass_is_the_softmax_of_the_logits_of_an_outputs_own_values():
    family = lattice()
    eta = some_eta(family, N)
    for value, place in ((0.0, 1), (3.0, 3)):
        log_p = family.log_prob(eta, torch.tensor([[value, 1.0]]).expand(N, 2))
        assert_allclose(log_p[:, 0], eta[:, 0].log_softmax(-1)[:, place], rtol=1e-12)
        assert_allclose(log_p[:, 1], eta[:, 1, :2].log_softmax(-1)[:, 1], rtol=1e-12)
    dist = PredictiveDistribution(family.components(eta.unsqueeze(1)))
    assert isinstance(dist.blocks[0], LatticeComponents)
    masses = dist.pmf(np.array([-1.0, 0.0, 0.5, 1.0, 3.0])[:, None, None])
    assert_allclose(masses.sum(axis=0), 1, rtol=1e-12)
    assert_array_equal(masses[3, :, 0], 0)
    assert_array_equal(masses[[0, 2, 4], :, 1], 0)
    assert_allclose(masses[3, :, 1], family.log_prob(eta, torch.ones(N, 2))[:, 1].exp())


@pytest.mark.parametrize("make", [histogram, lattice])
def test_gradient_agrees_with_finite_differences(make):
    family = make()
    y = torch.tensor([[-1.0, 1.0], [3.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    raw = torch.randn(N, 2, family.n_params, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda raw: family.log_prob(family.natural(raw), y), raw)


@pytest.mark.parametrize("make", [histogram, lattice])
def test_many_points_of_a_row_are_scored_as_each_alone(make):
    family = make()
    eta = some_eta(family, 5, 3, 2)
    points = torch.tensor(np.random.default_rng(0).choice([0.0, 1.0], (5, 1, 1, 7, 2)))
    together = family.log_prob(eta.unsqueeze(3), points)
    assert together.shape == (5, 3, 2, 7, 2)
    for p in range(7):
        assert_array_equal(together[..., p, :], family.log_prob(eta, points[..., p, :]))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_pooled_histogram_is_the_normalised_product_of_powers(lam):
    family = histogram()
    eta_i, eta_j = some_eta(family, 1), some_eta(family, 1, seed=1)
    pooled = log_linear_pool(eta_i, eta_j, torch.tensor([lam]))
    for output in (0, 1):

        def density(eta, y, output=output):
            y = torch.full((1, 2), float(y), dtype=torch.float64)
            return family.log_prob(eta, y)[0, output].exp().item()

        def powers(y, density=density):
            return density(eta_i, y) ** lam * density(eta_j, y) ** (1 - lam)

        total = integral(powers, output)
        for y in (-2.0, 0.0, 0.55, 1.7, 4.0):
            assert_allclose(density(pooled, y), powers(y) / total, rtol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_pooled_lattice_is_the_normalised_product_of_powers(lam):
    family = lattice()
    eta_i, eta_j = some_eta(family, 1), some_eta(family, 1, seed=1)
    pooled = log_linear_pool(eta_i, eta_j, torch.tensor([lam]))
    for output, values in enumerate(([-1.0, 0.0, 0.5, 3.0], [0.0, 1.0])):
        y = torch.zeros(len(values), 2, dtype=torch.float64)
        y[:, output] = torch.tensor(values)
        p, p_i, p_j = (family.log_prob(eta, y)[:, output].exp() for eta in (pooled, eta_i, eta_j))
        powers = p_i**lam * p_j ** (1 - lam)
        assert_allclose(p, powers / powers.sum(), rtol=1e-6)


def kernel_masses(family, y, beta, edges):
    """Probability of each bin under the Normal around each response, (rows, outputs, bins)."""
    ends = np.concatenate([np.full((2, 1), -np.inf), edges, np.full((2, 1), np.inf)], axis=1)
    law = stats.norm(y.numpy()[..., None], np.sqrt(beta) * family.unit_[:, None])
    return np.diff(law.cdf(ends), axis=-1)


LATTICE_EDGES = np.array([[-0.5, 0.25, 1.75], [0.5, np.inf, np.inf]])


@pytest.mark.parametrize(
    ("make", "edges"), [(histogram, np.array(EDGES)), (lattice, LATTICE_EDGES)]
)
@pytest.mark.parametrize("beta", [1e-4, 0.05, 3.0])
def test_kernel_gives_every_bin_the_probability_of_a_normal(make, edges, beta):
    family = make()
    y = torch.tensor([[-1.0, 0.0], [0.5, 1.0], [3.0, 1.0]], dtype=torch.float64)
    points, weights = family.kernel(y, beta)
    assert (weights >= 0).all()
    assert_allclose(weights.sum(1), 1, rtol=1e-12)
    expected = kernel_masses(family, y, beta, edges)
    for output in (0, 1):
        code = (points[..., output, None].numpy() > edges[output]).sum(-1)
        found = np.stack(
            [np.bincount(c, w, edges.shape[1] + 1) for c, w in zip(code, weights, strict=True)]
        )
        assert_allclose(found, expected[:, output], atol=1e-12)


def test_kernel_has_the_mean_of_the_response_and_the_variance_beta():
    values = tuple(np.arange(-20.0, 21.0).tolist())
    family = Lattice(values=(values,), unit=(2.0,))
    points, weights = family.kernel(torch.tensor([[0.0], [3.0]], dtype=torch.float64), 1.5)
    mean = (weights * points[..., 0]).sum(1)
    assert_allclose(mean, [0, 3], atol=1e-9)
    # Rounding adds the variance of a uniform law of width 1.
    var = (weights * (points[..., 0] - mean[:, None]) ** 2).sum(1)
    assert_allclose(var, 1.5 * 4 + 1 / 12, rtol=1e-9)


def test_sampled_kernel_has_the_law_of_the_kernel():
    family, beta = histogram(), 0.3
    y = torch.tensor([[0.3, -0.5]], dtype=torch.float64).expand(20_000, 2)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 2)))
    points, weights = family.kernel(y, beta, noise)
    assert points.shape == (20_000, 1, 2)
    assert (weights == 1).all()
    for output in (0, 1):
        law = stats.norm(y[0, output].item(), np.sqrt(beta))
        assert stats.kstest(points[:, 0, output], law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("noise", [None, torch.zeros(1, 1)])
def test_kernel_of_one_output_is_never_sampled(noise):
    family = Histogram(edges=EDGES[:1], tails=TAILS[:1])
    points, _ = family.kernel(torch.tensor([[0.3]]).double(), 0.3, noise)
    assert points.shape == (1, 6, 1)
    assert_allclose(points[0, :, 0], [-1.9, -0.85, -0.05, 0.7, 1.65, 2.7], rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_pooled_kernel_is_the_kernel_around_the_mixed_response(beta):
    y_i, y_j = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[-1.0, 1.0]]).double()
    lam = torch.tensor([0.25]).double()
    mixed = mix_responses(histogram(), y_i, y_j, lam, response="pooled", beta=beta)
    alone = histogram().kernel(torch.tensor([[-0.25, 0.75]]).double(), beta)
    for found, expected in zip(mixed, alone, strict=True):
        assert_allclose(found, expected, rtol=1e-12)


def test_mixed_response_counts_as_the_nearest_value():
    y_i, y_j = torch.tensor([[3.0, 0.0]]).double(), torch.tensor([[-1.0, 1.0]]).double()
    lam = torch.tensor([0.3]).double()
    points, weights = mix_responses(lattice(), y_i, y_j, lam, response="pooled")
    # 0.2 is nearer to 0 than to 0.5, and 0.7 to 1.
    assert points.tolist() == [[[0.0, 1.0]]]
    assert weights.tolist() == [[1.0]]


# --- what is taken from the responses -----------------------------------------------------------


def settle(family, y, weight=None):
    y = torch.as_tensor(np.asarray(y, dtype=float)).reshape(len(y), -1)
    weight = torch.ones(len(y)).double() if weight is None else torch.as_tensor(weight).double()
    return get_family(family).fitted(y, weight)


@pytest.mark.parametrize("n_bins", [3, 10, 40])
def test_no_bin_of_a_continuous_response_is_empty(n_bins):
    y = np.random.default_rng(0).gumbel(size=500)
    family = settle(Histogram(n_bins), y)
    assert family.n_params == n_bins
    standard = (y - y.mean()) / y.std()
    code = np.searchsorted(family.edges[0], standard)
    assert (np.bincount(code, minlength=n_bins) > 0).all()
    below, above = standard[code == 0], standard[code == n_bins - 1]
    tails = family.edges[0][0] - below.mean(), above.mean() - family.edges[0][-1]
    assert_allclose(family.tails[0], tails, rtol=1e-9)


def test_default_number_of_bins_grows_with_the_rows():
    rng = np.random.default_rng(0)
    sizes = [settle("histogram", rng.normal(size=n)).n_params for n in (20, 1000, 8000, 200_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[-1] <= 64


def test_rounded_responses_have_bins_of_their_own():
    y = np.repeat([1.0, 2.0, 3.0, 5.0], [5, 9, 3, 2])
    family = settle("histogram", y)
    assert_allclose(np.array(family.edges[0]) * y.std() + y.mean(), [1.5, 2.5, 4.0])


def test_a_value_of_many_rows_has_a_bin_of_its_own():
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(300), rng.normal(size=700)]
    family = settle(Histogram(12), y)
    edges = np.array(family.edges[0]) * y.std() + y.mean()
    low, high = edges[edges < 0].max(), edges[edges > 0].min()
    assert ((y > low) & (y < high)).sum() == 300
    assert family.log_prob(torch.zeros(1, 1, family.n_params), torch.zeros(1, 1)).isfinite()


def test_weights_count_like_copies():
    rng = np.random.default_rng(0)
    y, weight = rng.normal(size=200), rng.integers(1, 4, 200)
    one = settle(Histogram(9), y, weight)
    other = settle(Histogram(9), np.repeat(y, weight))
    assert_allclose(one.edges, other.edges, rtol=1e-9, atol=1e-12)
    assert_allclose(one.tails, other.tails, rtol=1e-9)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("trouble", ["none", "constant", "two rows", "copies", "far", "offset"])
def test_every_response_has_bins_and_finite_densities(size, trouble):
    y = np.random.default_rng(0).normal(size=40)
    if trouble == "constant":
        y[:] = 0.7
    elif trouble == "two rows":
        y = y[:2]
    elif trouble == "copies":
        y[5:] = y[5]
    elif trouble == "far":
        y[0] = 1e6
    elif trouble == "offset":
        y += 1e6
    y = torch.as_tensor(y * size)[:, None]
    weight = torch.ones(len(y), dtype=torch.float64)
    family = Histogram().fitted(y, weight)
    shift, scale = family.scaling(y, weight)
    eta = torch.zeros(len(y), 1, 1, family.n_params)
    log_p = family.log_prob(eta[:, 0], family.standardise(y, shift, scale))
    assert torch.isfinite(log_p).all()
    dist = PredictiveDistribution(family.components(eta, shift, scale))
    assert np.isfinite(dist.logpdf(y.numpy())).all()
    assert_allclose(dist.cdf(dist.ppf(0.3)), 0.3, rtol=1e-6)
    assert np.isfinite(dist.crps(y.numpy())).all()


def test_edges_that_fall_on_one_float_are_moved_apart():
    y = torch.from_numpy(1 + np.finfo(float).eps * np.arange(100.0))[:, None]
    family = Histogram(64).fitted(y, torch.ones(100).double())
    shift, scale = family.scaling(y, torch.ones(100).double())
    made = family.components(torch.zeros(1, 1, 1, family.n_params), shift, scale)
    assert family.n_params == 64
    assert (np.diff(made.edges) > 0).all()
    assert abs(made.edges - 1).max() < 101 * np.finfo(float).eps


def test_a_lattice_has_the_values_of_each_output():
    y = np.array([[3.0, 0.1], [1.0, 0.1], [3.0, 0.3], [2.0, 0.1]])
    family = settle("lattice", y)
    assert family.values == ((1.0, 2.0, 3.0), (0.1, 0.3, np.inf))
    assert_allclose(family.unit, y.std(axis=0))
    inside = family.in_support(torch.tensor([[1.0, 0.3], [0.1, 2.0]]).double())
    # As float64 the number .3 of float32 is another.
    assert inside.tolist() == [[True, False], [False, False]]


def test_every_value_is_its_own_bin():
    below = torch.arange(1, 200, dtype=torch.float64) / 10
    for low in below:
        # Half way between neighbouring floats is one of them, as of 0.3 and 0.1 + 0.2.
        y = torch.stack([low, torch.nextafter(low, low + 1), low + 1]).unsqueeze(1)
        family = Lattice().fitted(y, torch.ones(3, dtype=torch.float64))
        assert family.in_support(y).all()


def test_too_many_values():
    with pytest.raises(
        ValueError, match="501 different values.*at most 500, or family='histogram'"
    ):
        settle("lattice", np.arange(501))


@pytest.mark.parametrize("name", ["histogram", "lattice"])
def test_before_it_has_seen_responses(name):
    family = get_family(name)
    for use in (lambda: family.n_params, lambda: family.kernel(torch.ones(2, 1), 0.1)):
        with pytest.raises(ValueError, match="has not seen responses yet"):
            use()


@pytest.mark.parametrize("make", [histogram, lattice])
def test_a_family_that_has_seen_responses_is_data(make):
    family = make()
    assert Family.from_dict(family.to_dict()) == family
    assert pickle.loads(pickle.dumps(family)) == family
    assert hash(make()) == hash(family)
    assert family.unfitted() == get_family(type(family).__name__.lower()) != family
    assert len(repr(family)) < 50


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Histogram, {"n_bins": 2}, "n_bins=2; expected None or an integer from 3"),
        (Histogram, {"n_bins": 5.0}, "n_bins=5.0; expected None or an integer"),
        (Histogram, {"n_bins": 10**9}, "from 3 to 1000"),
        (Histogram, {"edges": EDGES}, "edges and tails go together"),
        (Histogram, {"edges": ((1.0, 0.0),), "tails": TAILS[:1]}, "edges must increase"),
        (Histogram, {"edges": EDGES, "tails": TAILS[:1]}, "tails must be two"),
        (Histogram, {"edges": EDGES, "tails": ((1.0, 0.0),) * 2}, "tails must be two positive"),
        (Histogram, {"edges": "abc", "tails": TAILS}, "edges='?abc'?; expected as many numbers"),
        (Histogram, {"edges": ((0.0,), (0.0, 1.0)), "tails": TAILS}, "expected as many numbers"),
        (Histogram, {"edges": (range(1000),), "tails": TAILS[:1]}, "fewer than 1000"),
        (Histogram, {"edges": ((0.0, 1e200),), "tails": TAILS[:1]}, "expected at most 1e.16"),
        (Histogram, {"edges": EDGES[:1], "tails": ((1.0, 1e200),)}, "expected at most 1e.16"),
        (Lattice, {"values": VALUES}, "values and unit go together"),
        (Lattice, {"values": ((1.0, 1.0),), "unit": (1.0,)}, "values must increase"),
        (Lattice, {"values": ((np.inf,),), "unit": (1.0,)}, "values must increase"),
        (Lattice, {"values": ((1.0, np.nan),), "unit": (1.0,)}, "expected as many numbers"),
        (Lattice, {"values": VALUES, "unit": (1.0,)}, "unit must be a positive number for each"),
        (Lattice, {"values": VALUES, "unit": (1.0, 0.0)}, "unit must be a positive number"),
        (Lattice, {"values": (10**400,), "unit": (1.0,)}, "expected as many numbers"),
    ],
)
def test_arguments_that_are_none(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


# --- estimators ---------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 2))
SKEWED = X[:, 0] + RNG.gumbel(scale=0.5, size=200)
RESPONSES = {
    "histogram": SKEWED,
    "lattice": np.rint(2 * SKEWED) / 2,
    "histogram of two": np.stack([SKEWED, np.rint(SKEWED)], axis=1),
    "lattice of two": np.rint(np.stack([SKEWED, 3 * SKEWED], axis=1)),
}


def estimator(name, **parameters):
    defaults = {
        "method": Kind("probmix", beta=0.05),
        "n_members": 2,
        "hidden_layer_sizes": (16,),
        "max_epochs": 3,
        "random_state": 0,
    }
    return ProbMixupRegressor(family=name.split()[0], **(defaults | parameters))


@pytest.mark.parametrize("name", RESPONSES)
def test_model_file_holds_the_prediction(name, tmp_path):
    y = RESPONSES[name]
    est = estimator(name).fit(X, y)
    save_model(est, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.family_ == est.family_
    one, other = est.predict_proba(X), loaded.predict_proba(X)
    for key, values in one.params.items():
        assert_array_equal(other.params[key], values)
    assert_array_equal(other.logpdf(y), one.logpdf(y))
    assert_array_equal(loaded.oof_predictive_.crps(y), est.oof_predictive_.crps(y))
    # Training goes on with the bins of the file.
    loaded.set_params(warm_start=True).fit(X, y)
    assert loaded.family_ == est.family_


@pytest.mark.parametrize("name", RESPONSES)
def test_copies_predict_the_same(name):
    est = estimator(name).fit(X, RESPONSES[name])
    copied = pickle.loads(pickle.dumps(est))
    again = clone(est).fit(X, RESPONSES[name])
    for other in (copied, again):
        assert_array_equal(other.predict_proba(X).ppf(0.3), est.predict_proba(X).ppf(0.3))


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("method", ["erm", "mixup", "manifold-mixup", "probmix", "m-probmix"])
@pytest.mark.parametrize("pooling", ["log-linear", "linear"])
@pytest.mark.parametrize("response", ["pooled", "expected"])
def test_every_method_trains(name, method, pooling, response):
    kind = Kind(method, beta=0.05 * ("prob" in method), pooling=pooling, response=response)
    est = estimator(name, method=kind, max_epochs=2).fit(X, RESPONSES[name])
    assert np.isfinite(list(est.oof_scores_.values())).all()


def test_warm_start_keeps_the_bins():
    est = estimator("histogram", warm_start=True).fit(X, SKEWED)
    family = est.family_
    est.fit(X[:50], 2 * SKEWED[:50])
    assert est.family_ is family
    est.set_params(family=Histogram(5))
    with pytest.raises(ValueError, match="family"):
        est.fit(X, SKEWED)


@pytest.mark.parametrize("how", ["partial_fit", "warm_start", "X_val"])
def test_a_new_value_is_outside_the_support(how):
    y = RESPONSES["lattice"]
    est = estimator("lattice", warm_start=True)
    new = y.copy()
    new[7] = 77.0
    arguments = {"X_val": X, "y_val": new} if how == "X_val" else {}
    if not arguments:
        est.fit(X, y)
    with pytest.raises(ValueError, match=r"y(_val)?\[7\] = 77.0 is outside the support of Lattice"):
        (est.partial_fit if how == "partial_fit" else est.fit)(
            X, y if arguments else new, **arguments
        )


def test_the_skewness_is_learnt():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(1500, 1))
    y = X[:, 0] + rng.exponential(np.exp(0.5 * X[:, 0]))
    scores = {}
    for family in ("normal", "histogram"):
        est = estimator(family, max_epochs=60, method="probmix", random_state=1)
        scores[family] = nll(y[1000:], est.fit(X[:1000], y[:1000]).predict_proba(X[1000:]))
    assert scores["histogram"] < scores["normal"] - 0.03
