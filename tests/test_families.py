import numpy as np
import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st
from quadrature import integral_between
from sample_y import EDGES, VALUES, some_family, some_y
from scipy import special, stats
from torch.nn.functional import softplus

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    PredictiveDistribution,
    ProbMixupRegressor,
    get_family,
)
from sklearn_probmix.families import FAMILIES, Family
from sklearn_probmix.pooling import Mixture, linear_pool, log_linear_pool, mix_responses

TOLERANCE = 1e-5
MAGNITUDES = [1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3]


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    torch.manual_seed(0)


def inverse_softplus(value):
    value = np.asarray(value, dtype=float)
    return np.where(value > 30, value, np.log(np.expm1(np.minimum(value, 30))))


def product(*axes):
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=-1)


def signed(values):
    return [-v for v in values] + list(values)


# Raw outputs (rows, n_params) that span the parameters of each family.
RAW = {
    "normal": product(signed(MAGNITUDES), inverse_softplus(np.square(MAGNITUDES))),
    "lognormal": product(
        np.log(MAGNITUDES), inverse_softplus(np.square([1e-3, 1e-2, 1e-1, 1, 10]))
    ),
    "gamma": product(inverse_softplus(MAGNITUDES), inverse_softplus(MAGNITUDES)),
    "beta": product(
        special.logit([1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]), inverse_softplus(MAGNITUDES)
    ),
    "poisson": np.log([*MAGNITUDES, 1e4, 1e5, 1e6])[:, None],
    "bernoulli": special.logit([1e-6, 1e-4, 1e-2, 0.5, 0.99, 0.9999, 0.999999])[:, None],
}
RAW["negative-binomial"] = product(np.log([*MAGNITUDES, 1e6]), np.log([1e-2, 1, 1e3, 1e6]) / 6)
RAW["homoscedastic-normal"] = RAW["transformed"] = RAW["normal"]
NAMES = sorted(RAW)
FLOOR = {"variance_floor": 1e-12}
ARGUMENTS = {
    "normal": FLOOR,
    "homoscedastic-normal": FLOOR,
    "lognormal": FLOOR,
    "transformed": FLOOR,
    "categorical": {"n_classes": 4},
}
LEVELS = [0.01, 0.3, 0.5, 0.9]


def make(name, n_outputs=1):
    return some_family(name, n_outputs, **ARGUMENTS.get(name, {}))


def frozen(name, eta):
    """Distribution of scipy at natural parameters (rows, n_params), by textbook formulae."""
    e = np.asarray(eta, dtype=np.float64)
    match name:
        case "normal" | "homoscedastic-normal" | "transformed":
            return stats.norm(-e[:, 0] / (2 * e[:, 1]), np.sqrt(-1 / (2 * e[:, 1])))
        case "lognormal":
            return stats.lognorm(
                np.sqrt(-1 / (2 * e[:, 1])), scale=np.exp(-e[:, 0] / (2 * e[:, 1]))
            )
        case "gamma":
            return stats.gamma(e[:, 0], scale=-1 / e[:, 1])
        case "beta":
            return stats.beta(e[:, 0], e[:, 1])
        case "poisson":
            return stats.poisson(np.exp(e[:, 0]))
        case "negative-binomial":
            return stats.nbinom(np.exp(e[:, 1]), -np.expm1(e[:, 0]))
        case "bernoulli":
            return stats.bernoulli(special.expit(e[:, 0]))


def float32_eta(name):
    """Natural parameters (rows, 1, n_params) from float32 outputs."""
    return make(name).natural(torch.tensor(RAW[name], dtype=torch.float32).unsqueeze(1))


def responses(name, dist):
    """Plausible responses (len(LEVELS), rows), away from the ends of the support."""
    y = np.stack([dist.ppf(level) for level in LEVELS])
    if name in ("gamma", "lognormal"):
        y = np.maximum(y, 1e-12)
    if name == "beta":
        y = np.clip(y, 1e-12, 1 - 1e-12)
    return torch.from_numpy(y).to(make(name).dtype)


def log_density(name, dist, y):
    if name == "negative-binomial":
        # scipy's own logarithm is off by up to 1e-3 here, its mass is not.
        return np.log(dist.pmf(y))
    if name == "hurdle":
        return dist.logpdf(y)
    return dist.logpmf(y) if name in ("poisson", "bernoulli") else dist.logpdf(y)


def assert_close(actual, desired, tolerance=TOLERANCE):
    np.testing.assert_array_less(
        np.abs(np.asarray(actual) - desired), tolerance * np.maximum(1, np.abs(desired))
    )


@pytest.mark.parametrize("name", NAMES)
def test_nll_of_float32_outputs_agrees_with_scipy(name):
    eta = float32_eta(name)
    dist = frozen(name, eta[:, 0])
    y = responses(name, dist)
    log_p = make(name).log_prob(eta, y.unsqueeze(-1))[..., 0]
    assert_close(log_p, log_density(name, dist, y.double().numpy()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("summary", ["mean", "var"])
def test_moments_agree_with_scipy(name, summary):
    eta = float32_eta(name)
    family = make(name)
    params = {k: v.numpy() for k, v in family.scipy_parameters(eta).items()}
    ours = getattr(PredictiveDistribution(family.scipy_name, params), summary)()
    # scipy loses the digits of a log-normal variance at small s: its formula, by expm1.
    reference = getattr(frozen(name, eta[:, 0]), summary)()
    if (name, summary) == ("lognormal", "var"):
        e = eta[:, 0].double().numpy()
        s2, mu = -1 / (2 * e[:, 1]), -e[:, 0] / (2 * e[:, 1])
        reference = np.expm1(s2) * np.exp(2 * mu + s2)
    assert_close(ours, reference)


@pytest.mark.parametrize("name", NAMES)
def test_cdf_agrees_with_scipy(name):
    eta = float32_eta(name)
    family = make(name)
    params = {k: v.numpy() for k, v in family.scipy_parameters(eta).items()}
    dist = frozen(name, eta[:, 0])
    y = responses(name, dist).double().numpy()
    assert_close(PredictiveDistribution(family.scipy_name, params).cdf(y), dist.cdf(y))


@pytest.mark.parametrize("name", NAMES)
def test_ppf_agrees_with_scipy(name):
    eta = float32_eta(name)
    family = make(name)
    params = {k: v.numpy() for k, v in family.scipy_parameters(eta).items()}
    ours = PredictiveDistribution(family.scipy_name, params).ppf(LEVELS)
    assert_close(ours, np.stack([frozen(name, eta[:, 0]).ppf(level) for level in LEVELS]))


def test_categorical_is_the_log_softmax():
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 30, (50, 1, 4))).float()
    reference = special.log_softmax(logits[:, 0].double().numpy(), axis=-1)
    codes = torch.arange(4).reshape(4, 1, 1)
    log_p = make("categorical").log_prob(logits, codes)[..., 0]
    assert_close(log_p.T, reference)


# What the docstring of a family says about its raw outputs, as functions of natural parameters.
MEANING = {
    "normal": lambda e: (-e[0] / (2 * e[1]), inverse_softplus(-1 / (2 * e[1]) - 1e-12)),
    "gamma": lambda e: (inverse_softplus(-e[0] / e[1]), inverse_softplus(e[0])),
    "beta": lambda e: (np.log(e[0] / e[1]), inverse_softplus(e[0] + e[1])),
}
MEANING["lognormal"] = MEANING["homoscedastic-normal"] = MEANING["normal"]
MEANING["transformed"] = MEANING["normal"]


@pytest.mark.parametrize("name", sorted(MEANING))
def test_raw_outputs_mean_what_the_family_says(name):
    raw = torch.tensor([[-1.5, 0.7], [0.3, -2.0], [2.0, 3.0]], dtype=torch.float64)
    eta = make(name).natural(raw).numpy()
    np.testing.assert_allclose(np.stack(MEANING[name](eta.T), axis=1), raw, rtol=1e-9)


@pytest.mark.parametrize("name", ["poisson", "bernoulli", "categorical"])
def test_raw_outputs_are_natural_parameters(name):
    raw = torch.randn(5, 1, make(name).n_params)
    assert torch.equal(make(name).natural(raw), raw)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_natural_parameters_of_extreme_outputs_are_in_the_domain(name):
    family = make(name)
    extreme = torch.tensor([-1e4, -200.0, -90.0, 0.0, 90.0, 1e4])
    raw = torch.cartesian_prod(*[extreme] * family.n_params).reshape(-1, 1, family.n_params)
    eta = family.natural(raw)
    assert_in_domain(name, eta)


def assert_in_domain(name, eta):
    assert torch.isfinite(eta).all()
    if name in ("normal", "homoscedastic-normal", "lognormal", "transformed"):
        assert (eta[..., 1] < 0).all()
    elif name == "gamma":
        assert (eta[..., 0] > 0).all()
        assert (eta[..., 1] < 0).all()
    elif name == "beta":
        assert (eta > 0).all()


def some_responses(name, n_rows, n_outputs=1):
    """Responses in the support, float64 or codes, (n_rows, n_outputs)."""
    return torch.from_numpy(some_y(name, (n_rows, n_outputs), n_classes=4, seed=1))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_gradient_of_the_nll_agrees_with_finite_differences(name):
    family = make(name)
    criterion = NegativeLogLikelihood(family)
    y = some_responses(name, 4)
    raw = torch.randn(4, 1, family.n_params, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda raw: criterion(family.natural(raw), y), raw)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_gradient_of_a_mixture_agrees_with_finite_differences(name):
    family = make(name)
    criterion = NegativeLogLikelihood(family)
    y = some_responses(name, 4)
    lam = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    raw = torch.randn(4, 1, family.n_params, dtype=torch.float64, requires_grad=True)

    def loss(raw):
        eta = family.natural(raw)
        return criterion(linear_pool(eta, eta.flip(0), lam), y)

    assert torch.autograd.gradcheck(loss, raw)


# Two sets of moderate natural parameters; integrands stay away from overflow.
PAIR = {
    "normal": ([1.0, -0.5], [-4.0, -2.0]),
    "homoscedastic-normal": ([1.0, -0.5], [-2.0, -0.5]),
    "lognormal": ([1.0, -0.5], [-1.0, -2.0]),
    "transformed": ([1.0, -0.5], [-4.0, -2.0]),
    "gamma": ([3.0, -2.0], [1.5, -0.4]),
    "hurdle": ([-0.2, 1.0, -0.5], [0.7, -1.0, -2.0]),
    "beta": ([2.0, 3.0], [4.0, 1.2]),
    "poisson": ([0.3], [2.0]),
    "negative-binomial": ([-0.3, 0.7], [-1.2, 0.7]),
    "bernoulli": ([-1.0], [2.0]),
    "categorical": ([0.3, -1.0, 0.0, 2.0], [1.0, 1.0, -2.0, 0.5]),
    "histogram": ([0.3, -1.0, 0.0, 2.0, 0.5], [1.0, 1.0, -2.0, 0.5, -0.2]),
    "lattice": ([0.3, -1.0, 0.0, 2.0], [1.0, 1.0, -2.0, 0.5]),
}
COUNTS = {
    "poisson": range(80),
    "negative-binomial": range(300),
    "bernoulli": range(2),
    "categorical": range(4),
    "lattice": VALUES,
}
# Between these a density is smooth, and beyond them it is negligible.
GRID = np.linspace(-30, 30, 61)
BREAKS = {
    "beta": special.expit(GRID),
    "histogram": np.unique([*GRID, *EDGES]),
    **dict.fromkeys(["gamma", "hurdle", "lognormal"], np.exp(GRID)),
}
LAMBDAS = [0.0, 0.2, 0.5, 0.9, 1.0]


def pair(name):
    return tuple(torch.tensor(e, dtype=torch.float64).reshape(1, 1, -1) for e in PAIR[name])


def density(name, eta, y):
    y = torch.as_tensor(y, dtype=torch.float64)
    return make(name).log_prob(eta, y.reshape(-1, 1)).exp().reshape(y.shape).numpy()


def integral(name, function):
    if name in COUNTS:
        return function(COUNTS[name]).sum()
    mass = function(0.0) if name == "hurdle" else 0.0
    return mass + integral_between(lambda y, _: function(y), BREAKS.get(name, GRID))


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("lam", LAMBDAS)
def test_log_linear_pool_is_the_normalised_product_of_powers(name, lam):
    eta_i, eta_j = pair(name)
    pooled = log_linear_pool(eta_i, eta_j, torch.tensor([lam], dtype=torch.float64))

    def unnormalised(y):
        return density(name, eta_i, y) ** lam * density(name, eta_j, y) ** (1 - lam)

    total = integral(name, unnormalised)
    y = some_responses(name, 5)
    np.testing.assert_allclose(density(name, pooled, y), unnormalised(y) / total, rtol=1e-7)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("lam", LAMBDAS)
def test_linear_pool_is_the_weighted_sum_of_densities(name, lam):
    eta_i, eta_j = pair(name)
    mixture = linear_pool(eta_i, eta_j, torch.tensor([lam], dtype=torch.float64))
    y = some_responses(name, 1)
    expected = lam * density(name, eta_i, y) + (1 - lam) * density(name, eta_j, y)
    nll = NegativeLogLikelihood(make(name))(mixture, y)
    np.testing.assert_allclose(nll.item(), -np.log(expected), rtol=1e-12)


def test_mixture_is_joint_over_outputs():
    eta = torch.tensor([[[[0.0, -0.5], [0.0, -0.5]], [[3.0, -0.5], [3.0, -0.5]]]])
    nll = NegativeLogLikelihood("normal")(eta, torch.tensor([[0.0, 3.0]]))
    component = stats.norm.pdf(0) * stats.norm.pdf(3)
    np.testing.assert_allclose(nll.item(), -np.log(component), rtol=1e-6)


MOST_PARAMS = max(len(eta) for eta, _ in PAIR.values())
RAW_OUTPUTS = st.lists(st.floats(-60, 60, width=32), min_size=MOST_PARAMS, max_size=MOST_PARAMS)


def naturals(*drawn):
    """Yield each family's name, and natural parameters of as many raw outputs as it has."""
    for name in sorted(FAMILIES):
        note(name)
        family = make(name)
        raw = torch.tensor(drawn, dtype=torch.float32)[:, None, None, : family.n_params]
        yield name, *map(family.natural, raw)


@given(raw=RAW_OUTPUTS, lam=st.floats(0, 1))
def test_pooling_is_idempotent(raw, lam):
    for _, eta in naturals(raw):
        assert torch.equal(log_linear_pool(eta, eta, torch.tensor([lam])), eta)


@given(raw_i=RAW_OUTPUTS, raw_j=RAW_OUTPUTS, lam=st.floats(0, 1))
def test_pooling_is_symmetric(raw_i, raw_j, lam):
    lam = torch.tensor([lam], dtype=torch.float64)
    for _, *etas in naturals(raw_i, raw_j):
        eta_i, eta_j = (eta.double() for eta in etas)
        one = log_linear_pool(eta_i, eta_j, lam)
        other = log_linear_pool(eta_j, eta_i, 1 - lam)
        scale = torch.maximum(eta_i.abs(), eta_j.abs())
        assert ((one - other).abs() <= 1e-12 * scale).all()


@given(raw_i=RAW_OUTPUTS, raw_j=RAW_OUTPUTS, lam=st.floats(0, 1, width=32))
def test_pooling_stays_in_the_domain(raw_i, raw_j, lam):
    for name, eta_i, eta_j in naturals(raw_i, raw_j):
        assert_in_domain(name, log_linear_pool(eta_i, eta_j, torch.tensor([lam])))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_pooling_at_the_ends_returns_an_end(name):
    eta_i, eta_j = pair(name)
    assert torch.equal(log_linear_pool(eta_i, eta_j, torch.tensor([1.0])), eta_i)
    assert torch.equal(log_linear_pool(eta_i, eta_j, torch.tensor([0.0])), eta_j)


def moments_of(points, weights):
    mean = (weights * points).sum(1)
    return mean, (weights * (points - mean[:, None]) ** 2).sum(1)


@pytest.mark.parametrize("beta", [0.0, 0.01, 2.5])
def test_kernel_of_a_normal_has_mean_y_and_variance_beta(beta):
    y = torch.tensor([[-3.0], [0.0], [40.0]], dtype=torch.float64)
    points, weights = make("normal").kernel(y, beta)
    mean, variance = moments_of(points[..., 0].numpy(), weights.numpy())
    np.testing.assert_allclose(mean, y[:, 0], atol=1e-12)
    np.testing.assert_allclose(variance, beta, atol=1e-12)


def test_kernel_of_a_lognormal_has_these_moments_on_the_log_scale():
    y = torch.tensor([[0.2], [7.0]], dtype=torch.float64)
    points, weights = make("lognormal").kernel(y, 0.3)
    mean, variance = moments_of(np.log(points[..., 0].numpy()), weights.numpy())
    np.testing.assert_allclose(mean, np.log(y[:, 0].numpy()), rtol=1e-12)
    np.testing.assert_allclose(variance, 0.3, rtol=1e-12)


@pytest.mark.parametrize("name", ["normal", "lognormal"])
def test_sampled_kernel_has_the_moments_of_the_kernel(name):
    n, beta = 40_000, 0.25
    y = torch.full((n, 1), 5.0, dtype=torch.float64)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 1)))
    points, weights = make(name).kernel(y, beta, noise)
    assert points.shape == (n, 1, 1)
    assert (weights == 1).all()
    sample = points[:, 0, 0].numpy() if name == "normal" else np.log(points[:, 0, 0].numpy())
    centre = 5.0 if name == "normal" else np.log(5.0)
    assert abs(sample.mean() - centre) < 5 * np.sqrt(beta / n)
    assert abs(sample.var() / beta - 1) < 5 * np.sqrt(2 / n)


def test_kernel_of_classes_is_the_smoothed_label():
    points, weights = make("categorical").kernel(torch.tensor([[2], [0]]), 0.1)
    assert points[:, :, 0].tolist() == [[0, 1, 2, 3]] * 2
    smooth, one = 0.1 / 1.4, 1.1 / 1.4
    expected = [[smooth, smooth, one, smooth], [one, smooth, smooth, smooth]]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_pooled_kernels_of_normals_by_hand():
    y_i, y_j = torch.tensor([[130.0]]), torch.tensor([[-120.0]])
    points, weights = mix_responses(
        make("normal"), y_i, y_j, torch.tensor([0.8]), response="pooled", beta=4.0
    )
    assert sorted(points.flatten().tolist()) == pytest.approx([78.0, 82.0])
    assert weights.flatten().tolist() == [0.5, 0.5]


def test_pooled_kernels_of_lognormals_are_geometric_means():
    y_i, y_j = torch.tensor([[2.0]]), torch.tensor([[32.0]])
    points, _ = mix_responses(
        make("lognormal"), y_i, y_j, torch.tensor([0.25]), response="pooled", beta=0.0
    )
    assert points.item() == pytest.approx(16.0)


@pytest.mark.parametrize("beta", [1e-3, 0.1])
def test_pooled_kernels_of_classes_by_hand(beta):
    y_i, y_j = torch.tensor([[0]]), torch.tensor([[3]])
    _, weights = mix_responses(
        make("categorical"), y_i, y_j, torch.tensor([0.7]), response="pooled", beta=beta
    )
    p_i = np.array([1 + beta, beta, beta, beta])
    p_j = np.array([beta, beta, beta, 1 + beta])
    product_of_powers = p_i**0.7 * p_j**0.3
    np.testing.assert_allclose(weights[0], product_of_powers / product_of_powers.sum(), rtol=1e-5)


def test_pooled_labels_tend_to_the_label_of_larger_weight():
    _, weights = mix_responses(
        make("categorical"),
        torch.tensor([[0]]),
        torch.tensor([[3]]),
        torch.tensor([0.7]),
        response="pooled",
        beta=1e-12,
    )
    np.testing.assert_allclose(weights[0], [1, 0, 0, 0], atol=1e-4)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_expected_response_weighs_both_responses(name):
    y_i, y_j = some_responses(name, 6)[:3], some_responses(name, 6)[3:]
    lam = torch.tensor([0.25, 0.5, 1.0])
    points, weights = mix_responses(make(name), y_i, y_j, lam, response="expected")
    np.testing.assert_allclose(points, torch.stack([y_i, y_j], dim=1), rtol=1e-14)
    np.testing.assert_allclose(weights, [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])


def test_expected_response_of_a_normal_has_its_spread():
    y_i, y_j = torch.tensor([[3.0]]).double(), torch.tensor([[-1.0]]).double()
    lam, beta = torch.tensor([0.3]).double(), 0.02
    points, weights = mix_responses(make("normal"), y_i, y_j, lam, response="expected", beta=beta)
    mean, variance = moments_of(points[..., 0].numpy(), weights.numpy())
    np.testing.assert_allclose(mean, 0.3 * 3 - 0.7, rtol=1e-6)
    np.testing.assert_allclose(variance, 0.3 * 0.7 * 4**2 + beta, rtol=1e-6)


@pytest.mark.parametrize("name", ["gamma", "beta", "poisson", "negative-binomial", "hurdle"])
def test_families_without_a_kernel_refuse_to_smooth(name):
    with pytest.raises(ValueError, match="expected beta=0"):
        make(name).kernel(torch.ones(2, 1), 0.1)


@pytest.mark.parametrize("name", ["gamma", "beta", "poisson", "negative-binomial", "hurdle"])
def test_families_without_a_kernel_name_the_other_response(name):
    y = torch.ones(2, 1)
    with pytest.raises(ValueError, match="use response='expected'"):
        mix_responses(make(name), y, y, torch.ones(2), response="pooled")


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_pooled_labels_without_smoothing_are_refused(name):
    y = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="beta > 0, or response='expected'"):
        mix_responses(make(name), y, y, torch.ones(2), response="pooled", beta=0.0)


def test_labels_of_two_outputs_are_not_smoothed():
    with pytest.raises(ValueError, match="one output; y has 2"):
        make("bernoulli").kernel(torch.zeros(3, 2), 0.1)


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("normal", [-1e30, 0.0, 1e30], []),
        ("homoscedastic-normal", [-1e30, 0.0, 1e30], []),
        ("lognormal", [1e-30, 1e30], [0.0, -1.0]),
        ("transformed", [-1e30, 0.0, 1e30], []),
        ("hurdle", [0.0, 1e-30, 1e30], [-1e-30, -1.0]),
        ("gamma", [1e-30, 1e30], [0.0, -1.0]),
        ("beta", [1e-10, 0.5, 1 - 1e-10], [0.0, 1.0, -0.5, 2.0]),
        ("poisson", [0.0, 1.0, 1e6], [-1.0, 0.5]),
        ("negative-binomial", [0.0, 1.0, 1e6], [-1.0, 0.5]),
        ("bernoulli", [0.0, 1.0], [-1.0, 0.5, 2.0]),
        ("categorical", [0.0, 3.0], [-1.0, 0.5, 4.0]),
        ("histogram", [-1e30, 0.0, 1e30], []),
        ("lattice", [0.0, 2.5, 4.0], [-1.0, 0.5, 2.0, 5.0]),
    ],
)
def test_support(name, inside, outside):
    def in_support(values):
        return (
            make(name).in_support(torch.tensor(values, dtype=torch.float64)[:, None])[:, 0].tolist()
        )

    assert in_support(inside) == [True] * len(inside)
    assert in_support(outside) == [False] * len(outside)


SCALED = ["normal", "homoscedastic-normal", "lognormal", "gamma"]


@pytest.mark.parametrize("name", [*SCALED, "histogram"])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_units_of_y_do_not_matter(name, size):
    family = make(name)
    y = some_responses(name, 50, 2)
    weight = torch.ones(50, dtype=torch.float64)
    standard = family.standardise(y, *family.scaling(y, weight))
    scaled = family.standardise(size * y, *family.scaling(size * y, weight))
    np.testing.assert_allclose(scaled, standard, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_scipy_parameters_undo_the_standardisation(name, size):
    family = make(name)
    y = size * some_responses(name, 50)
    shift, scale = family.scaling(y, torch.ones(50, dtype=torch.float64))
    raw = torch.randn(50, 1, 2, dtype=torch.float64)
    eta = family.natural(raw)
    standard = frozen(name, eta[:, 0]).cdf(family.standardise(y, shift, scale)[:, 0])
    params = {k: v.numpy() for k, v in family.scipy_parameters(eta, shift, scale).items()}
    original = getattr(stats, family.scipy_name)(**params).cdf(y.numpy())[:, 0]
    np.testing.assert_allclose(original, standard, rtol=1e-8, atol=1e-12)


def test_standardised_normal_has_weighted_mean_zero_and_variance_one():
    family = make("normal")
    y, weight = some_responses("normal", 50, 2), torch.rand(50, dtype=torch.float64)
    z = family.standardise(y, *family.scaling(y, weight)).numpy()
    np.testing.assert_allclose(np.average(z, axis=0, weights=weight), 0, atol=1e-12)
    np.testing.assert_allclose(np.average(z**2, axis=0, weights=weight), 1, rtol=1e-12)


def test_standardised_gamma_has_weighted_mean_one():
    family = make("gamma")
    y, weight = some_responses("gamma", 50, 2), torch.rand(50, dtype=torch.float64)
    z = family.standardise(y, *family.scaling(y, weight)).numpy()
    np.testing.assert_allclose(np.average(z, axis=0, weights=weight), 1, rtol=1e-12)


def test_rounding_adds_the_variance_of_a_uniform():
    step, scale = np.array([0.0, 0.1, 3.0]), np.array([2.0, 0.5, 4.0])
    y = torch.ones(4, 3)
    expected = stats.uniform(scale=step / scale + 1e-300).var()
    np.testing.assert_allclose(make("normal").rounding(y, step, 7.0, scale), expected)
    assert not make("lognormal").rounding(y, step, 7.0, scale).any()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -1e-30])
def test_constant_y_has_its_own_size_as_unit(value):
    y = torch.full((7, 1), value, dtype=torch.float64)
    shift, scale = make("normal").scaling(y, torch.ones(7, dtype=torch.float64))
    assert scale.item() == pytest.approx(abs(value) or 1.0)
    assert make("normal").standardise(y, shift, scale).abs().max() <= 1e-12


@pytest.mark.parametrize("name", ["poisson", "negative-binomial", "beta", "bernoulli"])
def test_other_families_keep_the_units_of_y(name):
    family, y = make(name), some_responses(name, 5)
    shift, scale = family.scaling(y, torch.ones(5, dtype=torch.float64))
    assert torch.equal(family.standardise(y, shift, scale), y)
    assert (shift.item(), scale.item()) == (0, 1)


@pytest.mark.parametrize(
    ("name", "n_shared"),
    [("normal", 0), ("homoscedastic-normal", 1), ("negative-binomial", 1), ("gamma", 0)],
)
def test_shared_outputs(name, n_shared):
    assert make(name).n_shared == n_shared


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_default_response(name):
    pooled = ("normal", "homoscedastic-normal", "lognormal", "transformed", "histogram", "lattice")
    assert make(name).default_response == ("pooled" if name in pooled else "expected")


def test_variance_floor_is_the_smallest_variance():
    family = get_family("normal", variance_floor=0.25)
    eta = family.natural(torch.tensor([[3.0, -1e4]]))
    assert family.scipy_parameters(eta)["scale"].item() == pytest.approx(0.5, rel=1e-6)


def test_get_family_passes_an_instance_through():
    family = get_family("categorical", n_classes=7)
    assert get_family(family) is family
    assert family.n_params == 7


def test_get_family_lists_what_exists():
    with pytest.raises(ValueError, match=r"'weibull' is unknown.*'beta'.*'poisson'"):
        get_family("weibull")


def test_get_family_refuses_other_types():
    with pytest.raises(TypeError, match="a name or a Family; found 3"):
        get_family(3)


def test_equality_and_hash_follow_type_and_parameters():
    one, same = get_family("categorical", n_classes=3), get_family("categorical", n_classes=3)
    assert one == same
    assert hash(one) == hash(same)
    assert one != get_family("categorical", n_classes=4)
    assert get_family("normal") != get_family("lognormal")


def test_repr_shows_the_parameters():
    assert repr(get_family("normal", variance_floor=0.1)) == "Normal(variance_floor=0.1)"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"bernoulli", "hurdle"}))
def test_criterion_is_the_mean_of_joint_nlls(name):
    family = make(name)
    y = some_responses(name, 6, 2)
    eta = family.natural(torch.randn(6, 2, family.n_params, dtype=torch.float64))
    per_output = [log_density(name, frozen(name, eta[:, o]), y[:, o].numpy()) for o in range(2)]
    np.testing.assert_allclose(
        NegativeLogLikelihood(family)(eta, y).item(), -np.mean(sum(per_output)), rtol=1e-9
    )


def test_criterion_weighs_rows():
    y, weight = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([0.5, 2.5, 0.0])
    eta = torch.tensor([0.0, -0.5]).expand(3, 1, 2)
    loss = NegativeLogLikelihood("normal")(eta, {"y": y[:, None, None], "weight": weight[:, None]})
    expected = -(weight.numpy() * stats.norm.logpdf(y.numpy())).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_criterion_takes_y_of_one_or_two_axes():
    y, eta = torch.randn(5), torch.tensor([0.0, -0.5]).expand(5, 1, 2)
    criterion = NegativeLogLikelihood()
    assert criterion(eta, y) == criterion(eta, y[:, None])


@pytest.mark.parametrize(
    "shape",
    [(5, 1), (4, 1, 2), (5, 2, 2), (5, 1, 3), (5, 3, 1, 3), (5, 1, 1, 1, 2)],
)
def test_criterion_refuses_outputs_of_another_shape(shape):
    eta = torch.full(shape, -0.5)
    with pytest.raises(ValueError, match=r"expected \(rows, n_outputs, n_params\) = \(5, 1, 2\)"):
        NegativeLogLikelihood("normal")(eta, torch.zeros(5))


class Exponential(Family):
    """Exponential density of rate r, eta = -r, T(y) = y: a user's family."""

    scipy_name = "gamma"
    n_params = 1
    support = "the positive numbers"

    def natural(self, raw):
        return -softplus(raw) - 1e-6

    def log_prob(self, eta, y):
        rate = -eta[..., 0]
        return rate.log() - rate * y

    def in_support(self, y):
        return y > 0

    def scipy_parameters(self, eta, shift=0.0, scale=1.0):
        return {"a": torch.ones_like(eta[..., 0]).double(), "scale": -1 / eta[..., 0].double()}


def test_users_family_is_pooled_by_what_the_package_has():
    eta = torch.tensor([[[-2.0]], [[-5.0]]])
    pooled = log_linear_pool(eta, eta.flip(0), torch.tensor([0.25, 0.25]))
    y = torch.tensor([1.0, 0.3])
    expected = stats.expon(scale=1 / np.array([4.25, 2.75])).logpdf(y.numpy())
    loss = NegativeLogLikelihood(Exponential())(pooled, y)
    assert loss.item() == pytest.approx(-expected.mean(), rel=1e-6)


@pytest.mark.parametrize("method", ["erm", "probmix", "m-probmix"])
def test_users_family_trains_an_estimator(method):
    rng = np.random.default_rng(0)
    X = rng.integers(2, size=(400, 1)).astype(float)
    y = rng.exponential(np.where(X[:, 0] == 1, 5.0, 0.5))
    est = ProbMixupRegressor(
        method=Kind(method, lr_schedule="constant"),
        n_members=1,
        batch_size=64,
        family=Exponential(),
        alpha=0.05,
        hidden_layer_sizes=(8,),
        lr=0.03,
        max_epochs=40,
        random_state=0,
    )
    dist = est.fit(X, y).predict_proba([[0.0], [1.0]])
    assert dist.name == "gamma"
    np.testing.assert_allclose(dist.mean(), [0.5, 5.0], rtol=0.3)


def test_users_family_keeps_its_support():
    with pytest.raises(ValueError, match=r"y\[1\] = -2.0 is outside .* the positive numbers"):
        ProbMixupRegressor(family=Exponential()).fit([[0.0], [1.0]], [1.0, -2.0])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_made_anew_from_what_it_says_of_itself(name):
    family = get_family(name)
    data = family.to_dict()
    assert data == {"family": name} | vars(family)
    assert Family.from_dict(data) == family


@pytest.mark.parametrize("floor", [0.0, -1.0, 1e308, float("inf"), float("nan")])
def test_a_floor_that_no_variance_can_have(floor):
    with pytest.raises(ValueError, match="variance_floor=.*; expected a positive number, at most"):
        get_family("normal", variance_floor=floor)
    assert get_family("normal", variance_floor=1e30).variance_floor == 1e30


@pytest.mark.parametrize("n_classes", [1, 2.0, "3", -1])
def test_a_number_of_classes_that_is_none(n_classes):
    with pytest.raises(ValueError, match="n_classes=.*; expected an integer, at least 2"):
        get_family("categorical", n_classes=n_classes)


@pytest.mark.parametrize("n_components", [5, 8, 13, 40])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_few_normals_in_place_of_many_have_their_mean_and_variance(n_components, n_outputs):
    torch.manual_seed(0)
    family = get_family("normal")
    raw = torch.randn(6, n_components, n_outputs, 2, dtype=torch.float64)
    log_weights = (3 * torch.randn(6, n_components, dtype=torch.float64)).log_softmax(1)
    many = Mixture(family.natural(raw), log_weights)
    few = family.condensed(many, 4, 3)
    assert few.eta.shape[1] == min(n_components, 7)
    heaviest = log_weights.sort(descending=True).values[:, :4]
    assert (heaviest[:, :1] <= few.log_weights.max(1, keepdim=True).values + 1e-12).all()
    for kept in heaviest.unbind(1):
        assert torch.isclose(few.log_weights, kept[:, None], rtol=1e-12).any(1).all()

    def moments(mixture):
        mean, variance = family.moments(mixture.eta)
        weights = mixture.log_weights.exp().unsqueeze(-1)
        centre = (weights * mean).sum(1, keepdim=True)
        return centre, (weights * (variance + (mean - centre) ** 2)).sum(1)

    for found, expected in zip(moments(few), moments(many), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert (few.log_weights.exp().sum(1) - 1).abs().max() < 1e-9
    alone = family.condensed(Mixture(*(part[2:3] for part in many)), 4, 3)
    assert torch.equal(alone.eta, few.eta[2:3])
    assert torch.equal(alone.log_weights, few.log_weights[2:3])
