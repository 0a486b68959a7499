"""Mixtures of several families, and of densities with masses: each against sums and integrals."""

import copy
import pickle
import tracemalloc

import matplotlib as mpl
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from quadrature import integral_between
from safetensors.torch import load_file, save_file
from scipy import integrate, stats

from sklearn_probmix.codec import decode, encode
from sklearn_probmix.components import JoinedComponents, components_from_arrays
from sklearn_probmix.compound import HurdleComponents
from sklearn_probmix.displays import (
    PITDisplay,
    PredictiveDensityDisplay,
    PredictiveIntervalDisplay,
    ReliabilityDisplay,
)
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.histogram_components import HistogramComponents
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.metrics import coverage_curve, crps, nll, pit_values
from sklearn_probmix.piecewise import PiecewiseComponents
from sklearn_probmix.scipy_components import scipy_components
from sklearn_probmix.transformed import TransformedComponents

mpl.use("Agg")
VALUES = np.array([0.0, 0.5, 1.0, 2.5, 7.0])
Q = np.array([0.01, 0.2, 0.5, 0.77, 0.99])
N = 4


def normal(rng, *shape):
    return scipy_components(
        "norm", {"loc": rng.normal(2, 1, shape), "scale": rng.uniform(0.5, 1, shape)}
    )


def gamma(rng, *shape):
    return scipy_components(
        "gamma", {"a": rng.uniform(0.5, 3, shape), "scale": rng.uniform(0.5, 1, shape)}
    )


def poisson(rng, *shape):
    return scipy_components("poisson", {"mu": rng.uniform(1, 9, shape)})


def lattice(rng, *shape):
    return LatticeComponents(VALUES, rng.dirichlet(np.ones(len(VALUES)), shape))


def whole_lattice(rng, *shape):
    return LatticeComponents(np.arange(5), rng.dirichlet(np.ones(5), shape))


PAIRS = {
    "norm + gamma": (normal, gamma),
    "poisson + lattice": (poisson, lattice),
    "norm + lattice": (normal, lattice),
    "norm + poisson": (normal, poisson),
    "gamma + lattice": (gamma, lattice),
    "poisson + whole lattice": (poisson, whole_lattice),
}
HAS_DENSITY = ["norm + gamma", "norm + lattice", "norm + poisson", "gamma + lattice"]


class Pair:
    """A mixture of two families, and what it consists of."""

    def __init__(self, name, *, outputs=(), seed=0):
        rng = np.random.default_rng(seed)
        first, second = (make(rng, N, 2, *outputs) for make in PAIRS[name])
        weights = rng.dirichlet([1, 1], (2, N))
        self.parts = [
            PredictiveDistribution(components, weights=own)
            for components, own in zip((first, second), weights, strict=True)
        ]
        self.shares = rng.dirichlet([1, 1], N)
        self.dist = PredictiveDistribution.mix(self.parts, self.shares)

    def sum(self, method, *args):
        """Weighted sum of what a method gives for the parts."""
        shares = self.shares.reshape(N, 2, *[1] * (self.dist.ndim - 1))
        return sum(shares[:, k] * getattr(part, method)(*args) for k, part in enumerate(self.parts))

    def atoms(self):
        """Atoms of all rows, but for a mass of 1e-15."""
        return np.union1d(VALUES, np.arange(60.0))


@pytest.fixture(params=PAIRS)
def pair(request):
    return Pair(request.param)


def quadrature(dist, extra=()):
    """Nodes and weights of a composite rule for one row, between atoms and close to all kinks."""
    tail = np.logspace(-14, -1, 27)
    q = np.r_[tail, 0.3, 0.5, 0.7, 1 - tail]
    quantiles = np.ravel([part.ppf(q) for part in dist.components])
    low, high = quantiles.min() - 2, quantiles.max() + 2
    atoms = np.union1d(VALUES, np.arange(60.0))
    breaks = np.unique(np.r_[low, quantiles, atoms[atoms < high], high, extra])
    nodes, weights = np.polynomial.legendre.leggauss(12)
    middle, half = (breaks[1:] + breaks[:-1]) / 2, np.diff(breaks) / 2
    return (middle + half * nodes[:, None]).ravel(), (half * weights[:, None]).ravel()


def expectation(dist, function):
    """Mean of a function of y over one row: its density by quadrature, its atoms by a sum."""
    atoms = np.union1d(VALUES, np.arange(60.0))
    total = (function(atoms) * dist.pmf(atoms[:, None])[:, 0]).sum()
    if dist.is_discrete:
        return total
    # Inside of a piece there is no atom.
    x, weights = quadrature(dist)
    return total + (weights * function(x) * dist.pdf(x[:, None])[:, 0]).sum()


def test_probabilities_are_weighted_sums(pair):
    x = pair.dist.rvs(5, random_state=1)
    for method in ("cdf", "sf", "pmf"):
        assert_allclose(getattr(pair.dist, method)(x), pair.sum(method, x), rtol=1e-12, atol=1e-15)
    assert_allclose(pair.dist.cdf(x) + pair.dist.sf(x), 1, rtol=1e-12)
    assert_allclose(pair.dist.mean(), pair.sum("mean"), rtol=1e-12)


def test_at_an_atom_the_mass_alone_counts(pair):
    between = np.full((3, N), np.array([[0.25], [1.75], [3.3]]))
    at = np.full((2, N), np.array([[1.0], [7.0]]))
    density = sum(
        share[:, None] * part.pdf(between).T
        for share, part in zip(pair.shares.T, pair.parts, strict=True)
        if not part.is_discrete
    )
    if not pair.dist.is_discrete:
        assert_allclose(pair.dist.pdf(between).T, density, rtol=1e-12)
    mass = pair.dist.pmf(at)
    has_atoms = (mass > 0).all()
    assert has_atoms == any(part.is_discrete for part in pair.parts)
    if has_atoms:
        assert_allclose(pair.dist.pdf(at), mass, rtol=1e-12)
    with np.errstate(divide="ignore"):
        for x in (between, at):
            assert_allclose(pair.dist.logpdf(x), np.log(pair.dist.pdf(x)), rtol=1e-12)


def test_moments_are_integrals(pair):
    mean, var = pair.dist.mean(), pair.dist.var()
    for row in range(N):
        one = pair.dist[row]
        assert_allclose(expectation(one, np.ones_like), 1, rtol=1e-7)
        assert_allclose(expectation(one, lambda x: x), mean[row], rtol=1e-7)
        found = expectation(one, lambda x, centre=mean[row]: (x - centre) ** 2)
        assert_allclose(found, var[row], rtol=1e-6)


def test_variance_splits_by_component(pair):
    dist = pair.dist
    means = np.stack([component.mean() for component in dist.components], axis=1)
    within = np.stack([component.var() for component in dist.components], axis=1)
    between = (dist.weights * (means - dist.mean()[:, None]) ** 2).sum(axis=1)
    assert_allclose(dist.var("aleatoric"), (dist.weights * within).sum(axis=1), rtol=1e-12)
    assert_allclose(dist.var("epistemic"), between, rtol=1e-12)
    assert_allclose(dist.std() ** 2, dist.var("aleatoric") + dist.var("epistemic"), rtol=1e-12)


def test_quantiles_are_the_smallest_that_suffice(pair):
    dist = pair.dist
    x = dist.ppf(Q)
    assert (dist.cdf(x) >= Q[:, None] - 1e-12).all()
    assert (dist.cdf(np.nextafter(x, -np.inf)) <= Q[:, None] + 1e-12).all()
    ends = np.stack([part.ppf([0, 1]) for part in pair.parts])
    assert_array_equal(dist.ppf([0, 1]), [ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)])
    low, high = dist.interval(0.54)
    assert_allclose([low, high], dist.ppf([0.23, 0.77]), rtol=1e-12)
    supports = np.stack([part.support() for part in pair.parts])
    assert_array_equal(dist.support(), [supports[:, 0].min(axis=0), supports[:, 1].max(axis=0)])


def test_quantile_at_the_top_of_a_jump_is_the_atom():
    half = LatticeComponents([1.0, 3.0], [[[0.5, 0.5]]])
    dist = PredictiveDistribution.mix(
        [PredictiveDistribution(half), PredictiveDistribution("uniform", {"loc": [[4.0]]})]
    )
    assert_array_equal(dist.ppf([0.1, 0.25, 0.2500001, 0.5])[:, 0], [1, 1, 3, 3])
    assert_allclose(dist.ppf([0.75, 1.0])[:, 0], [4.5, 5.0], rtol=1e-15)


def test_samples_follow_the_distribution(pair):
    one = pair.dist[:1]
    draws = np.sort(one.rvs(20_000, random_state=0)[:, 0])
    grid = np.union1d(np.linspace(-2, 20, 500), pair.atoms())
    observed = np.searchsorted(draws, grid, side="right") / draws.size
    # Dvoretzky, Kiefer and Wolfowitz: exceeded with probability 1e-3.
    bound = np.sqrt(np.log(2 / 1e-3) / (2 * draws.size))
    assert abs(observed - one.cdf(grid[:, None])[:, 0]).max() < bound
    assert_array_equal(pair.dist.rvs(3, random_state=5), pair.dist.rvs(3, random_state=5))
    assert pair.dist.rvs((2, 3), random_state=5).shape == (2, 3, N)


@pytest.mark.parametrize("y", [-1.5, 0.3, 2.5, 4.0, 11.0])
def test_crps_is_its_integral(pair, y):
    found = pair.dist.crps(np.full(N, y))
    for row in range(N):
        one = pair.dist[row]
        x, weights = quadrature(one, extra=[y, 60.0, -12.0])
        expected = (weights * (one.cdf(x[:, None])[:, 0] - (x >= y)) ** 2).sum()
        assert_allclose(found[row], expected, rtol=1e-6)
    assert_allclose(crps(np.full(N, y), pair.dist), found.mean(), rtol=1e-14)


def spikes(rng, *shape):
    return scipy_components("norm", {"loc": rng.normal(2, 1, shape), "scale": np.full(shape, 1e-4)})


def wide_lognormal(rng, *shape):
    scale = np.exp(0.3 * rng.normal(size=shape))
    return scipy_components("lognorm", {"s": np.full(shape, 1.5), "scale": scale})


def hurdle(rng, *shape):
    return HurdleComponents(rng.uniform(0.2, 1, shape), gamma(rng, *shape))


def histogram(rng, *shape):
    edges = np.sort(rng.normal(2, 2, 29))
    return HistogramComponents(edges, [0.5, 0.7], rng.dirichlet(np.full(30, 0.4), shape))


def piecewise(rng, *shape):
    knots = np.sort(rng.normal(2, 2, (*shape, 9)), axis=-1)
    levels = np.broadcast_to(np.arange(1, 10) / 10, knots.shape)
    return PiecewiseComponents(knots, levels, np.ones((*shape, 2)))


def transformed(rng, *shape):
    curve = {"centre": 1.0, "unit": 1.0, "power": 0.4, "reach": 6.0}
    params = {name: np.full(shape, value) for name, value in curve.items()}
    moments = {"loc": rng.normal(0, 1, shape), "scale": rng.uniform(0.5, 1, shape)}
    return TransformedComponents(moments | params)


MANY = {
    "default": {normal: (60, 0.8), histogram: (5, 0.1), transformed: (5, 0.1)},
    "one spike": {normal: (65, 0.4), spikes: (1, 0.3), transformed: (4, 0.3)},
    "many spikes": {normal: (30, 0.4), spikes: (30, 0.4), transformed: (10, 0.2)},
    "heavy tails": {normal: (30, 0.2), wide_lognormal: (20, 0.5), gamma: (20, 0.3)},
    "zeros": {normal: (50, 0.4), hurdle: (20, 0.6)},
    "counts": {normal: (60, 0.5), poisson: (10, 0.5)},
    "lattice": {normal: (30, 0.3), lattice: (20, 0.4), gamma: (20, 0.3)},
    "one histogram": {normal: (2, 0.5), histogram: (3, 0.5)},
    "knots": {normal: (2, 0.5), piecewise: (3, 0.5)},
    "unused": {normal: (30, 1.0), spikes: (10, 0.0), histogram: (2, 0.0), gamma: (10, 0.0)},
}


def many(name, n=6, outputs=()):
    """A mixture of many components, and a y near and far."""
    rng = np.random.default_rng(3)
    parts = [
        PredictiveDistribution(make(rng, n, k, *outputs), weights=rng.dirichlet(np.full(k, 3.0), n))
        for make, (k, _) in MANY[name].items()
    ]
    dist = PredictiveDistribution.mix(parts, [share for _, share in MANY[name].values()])
    y = dist.rvs(random_state=1)
    y[::3] += 5
    return dist, y


def crps_by_integration(dist, y):
    """Integrate the squared cdf of one row between all places where it is not smooth."""
    q = np.r_[1e-9, 1e-5, 1e-3, 0.02, 0.2, 0.5]
    breaks = [
        [y],
        np.arange(60.0),
        VALUES,
        np.ravel(dist._components.ppf(np.r_[q, 1 - q, 1e-12, 1 - 1e-12].reshape(-1, 1, 1))),
    ]
    for block in dist.blocks:
        breaks += [np.ravel(block.edges)] if hasattr(block, "edges") else []
        breaks += [np.ravel(block.params["knots"])] if "knots" in block.params else []
    breaks = np.unique(np.concatenate(breaks))

    def integrand(x, low):
        # Of both ends the limits from inside count: at an atom the cdf jumps.
        return (dist.cdf(x.reshape(-1, 1)).reshape(x.shape) - (low >= y)) ** 2

    return integral_between(integrand, breaks, n=8)


@pytest.mark.parametrize("name", MANY)
def test_crps_of_many_components_is_its_integral(name):
    dist, y = many(name)
    found = dist.crps(y)
    expected = [crps_by_integration(dist[row], y[row]) for row in range(len(y))]
    assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["default", "counts"])
@pytest.mark.parametrize("outputs", [(), (2,)])
def test_crps_of_many_components_is_each_row_alone(name, outputs, monkeypatch):
    dist, y = many(name, 12, outputs)
    whole = dist.crps(y)
    for rows in (np.arange(1), np.arange(5, 7), np.arange(12)[::-1]):
        assert_array_equal(dist[rows].crps(y[rows]), whole[rows])
    monkeypatch.setattr("sklearn_probmix.distributions._BLOCK", 40)
    assert_array_equal(dist.crps(y), whole)
    if outputs:
        columns = [dist.marginal(o).crps(y[:, o]) for o in range(2)]
        assert_allclose(np.stack(columns, axis=-1), whole, rtol=1e-9)


def test_crps_of_many_components_holds_little():
    dist, y = many("default", 1000)
    tracemalloc.start()
    dist.crps(y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e8


def test_crps_of_a_lattice_is_exact_and_linear_beyond_it():
    dist = PredictiveDistribution(LatticeComponents([0.0, 1.0], [[[0.25, 0.75]]] * 4))
    # The integral of F^2 below y and of (1 - F)^2 above it, with F = 1/4 between 0 and 1.
    expected = [0.75**2 + 2.0, 0.75**2, 0.5 * (0.25**2 + 0.75**2), 0.25**2 + 3.0]
    assert_allclose(dist.crps([-2.0, 0.0, 0.5, 4.0]), expected, rtol=1e-15)


def test_crps_of_an_integral_count_family_is_the_sum():
    params = {"n": np.array([[4.0, 9.0]]), "p": np.array([[0.3, 0.5]])}
    dist = PredictiveDistribution("nbinom", params, weights=[0.25, 0.75])
    k = np.arange(200)
    cdf = 0.25 * stats.nbinom.cdf(k, 4, 0.3) + 0.75 * stats.nbinom.cdf(k, 9, 0.5)
    assert_allclose(dist.crps([6.0]), ((cdf - (k >= 6)) ** 2).sum(), rtol=1e-12)


@pytest.mark.parametrize("width", [1e-12, 1e-3, 0.7, 4.0])
def test_probability_of_a_cell_is_a_difference_of_the_cdf(pair, width):
    y = np.array([0.4, 1.0, 2.5, 3.0])
    found = np.exp(pair.dist.log_probability(y, width))
    below = pair.dist.cdf(np.nextafter(y - width / 2, -np.inf))
    expected = pair.dist.cdf(y + width / 2) - below
    assert_allclose(found, expected, rtol=1e-9, atol=3e-16)
    narrow = pair.dist.pmf(y)
    if width == 1e-12 and not pair.dist.is_discrete:
        # There is no atom in the cell of 0.4, whose probability has no digits as a difference.
        assert_allclose(found[0], width * pair.dist.pdf(y)[0], rtol=1e-4)
        assert_allclose(found[narrow > 0], narrow[narrow > 0], rtol=1e-6)


def test_probability_of_a_cell_in_the_far_tail():
    dist = PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[1.0]]})
    for y in (45.0, -45.0):
        near, far = stats.norm.logsf([44.75, 45.25])
        expected = near + np.log1p(-np.exp(far - near))
        assert_allclose(dist.log_probability([y], 0.5), expected, atol=1e-3)
    counts = PredictiveDistribution("poisson", {"mu": [[2.0]]})
    assert_allclose(counts.log_probability([400], 1.0), stats.poisson.logpmf(400, 2), rtol=1e-12)
    for width in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="width must be positive"):
            dist.log_probability([0.0], width)


def test_a_narrow_density_does_not_beat_the_mass_by_cells():
    rounded = PredictiveDistribution(LatticeComponents([4.9, 5.0, 5.1], [[[0.1, 0.8, 0.1]]]))
    spike = PredictiveDistribution("norm", {"loc": [[5.0]], "scale": [[1e-9]]})
    assert spike.logpdf([5.0]) > 15 > 0 > rounded.logpdf([5.0])
    assert_allclose(spike.log_probability([5.0], 0.1), 0.0, atol=1e-12)
    assert_allclose(rounded.log_probability([5.0], 0.1), np.log(0.8), rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_several_outputs_are_joint(name):
    pair = Pair(name, outputs=(2,))
    dist = pair.dist
    y = dist.rvs(3, random_state=2)
    assert y.shape == (3, N, 2)
    for method in ("pdf", "logpdf", "cdf", "sf", "pmf"):
        columns = [getattr(dist.marginal(o), method)(y[..., o]) for o in range(2)]
        assert_allclose(getattr(dist, method)(y), np.stack(columns, axis=-1), rtol=1e-12)
    for method in ("mean", "var", "median"):
        columns = [getattr(dist.marginal(o), method)() for o in range(2)]
        assert_allclose(getattr(dist, method)(), np.stack(columns, axis=-1), rtol=1e-12)
    columns = [dist.marginal(o).crps(y[0, :, o]) for o in range(2)]
    assert_allclose(dist.crps(y[0]), np.stack(columns, axis=-1), rtol=1e-9)
    # The joint density: a component is one product, with its masses where there is an atom.
    joint = np.zeros((3, N))
    atom = dist.pmf(y) > 0
    for c, component in enumerate(dist.components):
        factors = np.where(atom, component.pmf(y), component.pdf(y))
        joint += dist.weights[:, c] * factors.prod(axis=-1)
    assert_allclose(dist.joint_logpdf(y), np.log(joint), rtol=1e-10)


def test_joint_density_needs_a_component_with_the_mass_and_the_density_of_every_output():
    # A draw of the density near 5 may round to 5, which is an atom of the counts.
    counts = PredictiveDistribution("poisson", {"mu": [[[1.0, 0.0]]]})
    density = PredictiveDistribution("norm", {"loc": [[[5.0, 0.0]]], "scale": [[[1e-20, 1.0]]]})
    dist = PredictiveDistribution.mix([counts, density])
    assert (density.rvs(random_state=0)[:, 0] == 5).all()
    for y in ([5.0, 0.3], [5.5, 0.0]):
        assert np.isfinite(dist.logpdf([y])).all()
        assert_array_equal(dist.joint_logpdf([y]), -np.inf)
    assert_allclose(dist.joint_logpdf([[5.0, 0.0]]), np.log(0.5) + stats.poisson(1).logpmf(5))


def test_rows_of_mixed_families(pair, monkeypatch):
    dist = pair.dist
    x = dist.rvs(4, random_state=0)
    joined = PredictiveDistribution.concatenate([dist[2:], dist[:2]])
    assert_array_equal(joined.mean(), np.roll(dist.mean(), 2))
    assert_array_equal(joined.weights, np.roll(dist.weights, 2, axis=0))
    assert_allclose(joined.cdf(x), dist[[2, 3, 0, 1]].cdf(x), rtol=0)
    assert dist[1].shape == (1,)
    terms = [dist.weights[:, c] * part.cdf(x) for c, part in enumerate(dist.components)]
    assert_allclose(sum(terms), dist.cdf(x), rtol=1e-12)
    whole = [dist.logpdf(x), dist.ppf(Q), dist.crps(x[0]), dist.log_probability(x, 0.5)]
    monkeypatch.setattr("sklearn_probmix.distributions._BLOCK", 40)
    again = [dist.logpdf(x), dist.ppf(Q), dist.crps(x[0]), dist.log_probability(x, 0.5)]
    for one, other in zip(whole, again, strict=True):
        assert_allclose(one, other, rtol=1e-12)


def test_alike_blocks_are_merged():
    rng = np.random.default_rng(0)
    one, other = (PredictiveDistribution(normal(rng, N, k)) for k in (2, 3))
    counts = PredictiveDistribution(poisson(rng, N, 1))
    pure = PredictiveDistribution.mix([one, other], [0.25, 0.75])
    assert pure.name == "norm"
    expected = np.concatenate([one.params["loc"], other.params["loc"]], axis=1)
    assert_array_equal(pure.params["loc"], expected)
    mixed = PredictiveDistribution.mix([one, counts, other], [0.2, 0.3, 0.5])
    assert mixed.name == "norm + poisson"
    assert [block.shape for block in mixed.blocks] == [(N, 5), (N, 1)]
    expected = np.concatenate([0.2 * one.weights, 0.5 * other.weights, 0.3 * counts.weights], 1)
    assert_allclose(mixed.weights, expected, rtol=1e-15)
    nested = PredictiveDistribution.mix([PredictiveDistribution.mix([one, counts]), other])
    assert [block.shape for block in nested.blocks] == [(N, 5), (N, 1)]
    with pytest.raises(AttributeError, match=r"norm \+ poisson has no common params"):
        print(mixed.params)
    lattices = [
        PredictiveDistribution(LatticeComponents(values, np.full((N, 1, 2), 0.5)))
        for values in ([0, 1], [0, 2])
    ]
    assert len(PredictiveDistribution.mix(lattices).blocks) == 2
    with pytest.raises(ValueError, match="do not match"):
        PredictiveDistribution.concatenate([mixed, one])


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("outputs", [(), (2,)])
def test_saved_loaded_copied(name, outputs, tmp_path):
    dist = Pair(name, outputs=outputs).dist
    x = dist.rvs(random_state=0)
    tensors = {}
    document = encode({"dist": dist}, "it", tensors)
    save_file(tensors, tmp_path / "file")
    tensors = load_file(tmp_path / "file")
    loaded = decode(document, tensors)["dist"]
    assert not tensors
    copies = loaded, pickle.loads(pickle.dumps(dist)), copy.deepcopy(dist), copy.copy(dist)
    for other in copies:
        for method in ("logpdf", "cdf", "pmf", "crps"):
            assert_array_equal(getattr(other, method)(x), getattr(dist, method)(x))
        assert repr(other) == repr(dist)
        arrays = [other.weights, *(v for block in other.blocks for v in block.params.values())]
        arrays += [block.values for block in other.blocks if hasattr(block, "values")]
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


@pytest.mark.parametrize(
    ("tag", "content", "error", "message"),
    [
        ("other", {}, ValueError, "one of .*'lattice'.*found 'other'"),
        ("scipy", [], TypeError, "found a list"),
        ("scipy", {"mu": [[1.0]]}, ValueError, "name must be.*None"),
        ("lattice", {"values": [0, 1], "masses": [[[0.5, 0.6]]]}, ValueError, "sum to 1.*1.1"),
        ("joined", {"blocks": [["joined", {"blocks": []}]]}, ValueError, "side by side"),
        (
            "joined",
            {"blocks": [["scipy", {"name": "poisson", "mu": np.ones((n, 1))}] for n in (1, 2)]},
            ValueError,
            r"shapes \[\(1, 1\), \(2, 1\)\]",
        ),
    ],
)
def test_wrong_content_is_refused(tag, content, error, message):
    with pytest.raises(error, match=message):
        components_from_arrays(tag, content)


@pytest.mark.parametrize(
    ("values", "masses", "message"),
    [
        ([1, 0], [[[0.5, 0.5]]], "values must be finite and increase"),
        ([0, np.nan], [[[0.5, 0.5]]], "values must be finite and increase"),
        ([], [[[]]], "values must be finite and increase"),
        ([0, 1], [[0.5, 0.5]], r"shape \(1, 2\), expected \(n, components, 2\)"),
        ([0, 1], [[[0.2, 0.3, 0.5]]], r"shape \(1, 1, 3\)"),
        ([0, 1], [[[1.5, -0.5]]], "non-negative.*-0.5"),
        ([0, 1], [[[np.nan, 1.0]]], "non-negative"),
    ],
)
def test_wrong_lattices_are_refused(values, masses, message):
    with pytest.raises(ValueError, match=message):
        LatticeComponents(values, masses)


def test_lattice_by_hand():
    masses = np.array([[[0.0, 0.3, 0.0, 0.7, 0.0], [0.25, 0.25, 0.25, 0.25, 0.0]]])
    one, other = (PredictiveDistribution(LatticeComponents(VALUES, masses[:, [c]])) for c in (0, 1))
    assert one.is_discrete
    assert one.name == "lattice"
    assert_allclose(one.mean(), 0.3 * 0.5 + 0.7 * 2.5)
    assert_allclose(one.var(), 0.3 * 0.7 * 2**2)
    assert_array_equal(np.stack(one.support()), [[0.5], [2.5]])
    assert_array_equal(one.ppf([0, 0.3, 0.31, 1])[:, 0], [0.5, 0.5, 2.5, 2.5])
    assert_allclose(one.cdf([[0.4], [0.5], [2.4], [2.5]])[:, 0], [0, 0.3, 0.3, 1])
    assert_allclose(one.sf([[0.4], [0.5], [2.4], [2.5]])[:, 0], [1, 0.7, 0.7, 0])
    assert_allclose(one.logpdf([[0.5], [2.5]])[:, 0], np.log([0.3, 0.7]))
    assert_array_equal(one.logpdf([[0.0], [0.6]])[:, 0], -np.inf)
    assert set(one.rvs(200, random_state=0)[:, 0]) == {0.5, 2.5}
    mixed = PredictiveDistribution.mix([one, other], [0.5, 0.5])
    assert_allclose(mixed.pdf([[0.0], [0.5]])[:, 0], [0.125, 0.275])
    assert_array_equal(mixed.ppf([0.12, 0.13, 0.4, 0.41])[:, 0], [0, 0.5, 0.5, 1.0])


def test_scores_that_need_atoms():
    dist = Pair("norm + poisson", seed=2).dist[[0] * 20_000]
    y = dist.rvs(random_state=1)
    pit = pit_values(y, dist, random_state=0)
    assert stats.kstest(pit, "uniform").pvalue > 1e-3
    levels, observed = coverage_curve(y, dist)
    assert abs(observed - levels).max() < 4 * np.sqrt(0.25 / len(y))
    assert_allclose(nll(y, dist), -dist.logpdf(y).mean(), rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_mixed_families_are_drawn(name):
    dist = Pair(name).dist
    y = dist.rvs(random_state=3)
    for display in (PredictiveIntervalDisplay, ReliabilityDisplay, PITDisplay):
        display.from_predictions(y, dist)
    shown = PredictiveDensityDisplay.from_predictions(y, dist, rows=range(N))
    for row, (x, density, atoms, mass) in enumerate(shown.outlines):
        low, high = dist[row].ppf([0.001, 0.999])[:, 0]
        points = np.concatenate([x, atoms])
        assert low <= points.min() < points.max() <= high
        # The tails are left out; beside atoms, density is that of equal cells.
        cells = density.sum() * np.diff(x).mean() if len(x) else 0
        area = cells if len(atoms) else integrate.trapezoid(density, x)
        assert_allclose(area + mass.sum(), 0.998, atol=5e-3)
    mpl.pyplot.close("all")


def test_joined_components_are_side_by_side():
    rng = np.random.default_rng(0)
    joined = JoinedComponents([normal(rng, N, 2), poisson(rng, N, 3)])
    assert joined.shape == (N, 5)
    assert joined.pick(1).name == "norm"
    assert_array_equal(joined.pick(4).mean(), joined.mean()[:, [4]])
    with pytest.raises(IndexError, match="5 components"):
        joined.pick(5)


def test_a_component_of_no_weight_may_have_an_infinite_density():
    infinite = PredictiveDistribution("beta", {"a": [[1.0]], "b": [[0.1]]})
    normal = PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[1.0]]})
    dist = PredictiveDistribution.mix([infinite, normal], weights=[0.0, 1.0])
    for log_density in (dist.logpdf([1.0]), dist.joint_logpdf([1.0]), np.log(dist.pdf([1.0]))):
        np.testing.assert_allclose(log_density, stats.norm.logpdf(1.0), rtol=1e-12)
