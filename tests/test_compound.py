"""Hurdles: a mass at zero beside a density of positive numbers."""

import numpy as np
import pytest
import torch
from model_files import opened, store
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats
from scipy.integrate import quad

from sklearn_probmix import (
    Family,
    Kind,
    PredictiveDistribution,
    ProbMixupRegressor,
    get_family,
    load_model,
    save_model,
)
from sklearn_probmix import crps as scores
from sklearn_probmix.components import join
from sklearn_probmix.compound import HurdleComponents
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.metrics import coverage, crps, nll
from sklearn_probmix.pooling import log_linear_pool
from sklearn_probmix.scipy_components import scipy_components

POSITIVE = ["lognormal", "gamma"]
DENSITY = {
    "lognorm": {"s": 0.7, "scale": 2.0},
    "gamma": {"a": 0.8, "scale": 3.0},
    "weibull_min": {"c": 1.3},
}


def components(name="gamma", shares=((0.4, 0.9),)):
    """Hurdle components of these probabilities of a positive number, (n, k)."""
    shares = np.asarray(shares, dtype=float)
    factor = np.linspace(1, 2, shares.size).reshape(shares.shape)
    density = {key: value * factor for key, value in DENSITY[name].items()}
    return HurdleComponents(shares, scipy_components(name, density))


def natural(name, *raw):
    family = get_family("hurdle", positive=name)
    return family, family.natural(torch.tensor([[raw]], dtype=torch.float64))


@pytest.mark.parametrize("name", POSITIVE)
def test_density_is_a_mass_at_zero_and_the_others(name):
    family, eta = natural(name, 0.6, 0.4, -1.0)
    inner = get_family(name)
    q = special.expit(0.6)
    own = inner.natural(torch.tensor([[[0.4, -1.0]]], dtype=torch.float64))
    y = torch.tensor([[0.3], [1.0], [7.0]], dtype=torch.float64)
    assert_allclose(family.log_prob(eta, y), np.log(q) + inner.log_prob(own, y), rtol=1e-12)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert_allclose(family.log_prob(eta, zero).item(), np.log1p(-q), rtol=1e-12)
    # Predicted in the units of training, unless others are given.
    found = family.components(eta.unsqueeze(1)).log_density(y.numpy()[..., None, None])
    assert_allclose(found.ravel(), family.log_prob(eta, y).ravel(), rtol=1e-9)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", POSITIVE)
def test_pool_is_the_normalised_product_of_powers(name, lam):
    family, eta_i = natural(name, 0.6, 0.4, -1.0)
    _, eta_j = natural(name, -1.2, 1.5, 0.3)
    pooled = log_linear_pool(eta_i, eta_j, torch.tensor([lam], dtype=torch.float64))

    def density(eta, y):
        return family.log_prob(eta, torch.tensor([[y]], dtype=torch.float64)).exp().item()

    def powers(y):
        return density(eta_i, y) ** lam * density(eta_j, y) ** (1 - lam)

    total = powers(0.0) + quad(powers, 0, 1, epsabs=1e-12)[0] + quad(powers, 1, np.inf)[0]
    for y in (0.0, 0.05, 1.0, 4.0):
        assert_allclose(density(pooled, y), powers(y) / total, rtol=1e-6)


@pytest.mark.parametrize("name", POSITIVE)
def test_logit_survives_a_narrow_density_far_from_one(name):
    # In float32, as networks return it.
    family = get_family("hurdle", positive=name)
    raw = torch.tensor([[[0.6, 30.0, -12.0 if name == "lognormal" else 900.0]]])
    zero = family.log_prob(family.natural(raw), torch.zeros(1, 1))
    assert_allclose(zero.item(), np.log1p(-special.expit(0.6)), rtol=1e-4)


@pytest.mark.parametrize("name", DENSITY)
def test_components_by_the_textbook(name):
    shares = np.array([0.25, 1.0, 0.0, 0.6])
    ours = components(name, shares[:, None])
    inner = getattr(stats, name)(**{k: v[:, 0] for k, v in ours.components.params.items()})
    x = np.array([-1.0, 0.0, 1e-3, 0.8, 5.0])[:, None, None]
    flat = x[..., 0]
    cdf = np.where(flat < 0, 0, 1 - shares + shares * inner.cdf(flat))
    assert_allclose(ours.cdf(x)[..., 0], cdf, atol=1e-15)
    assert_allclose(ours.sf(x)[..., 0], 1 - cdf, atol=1e-15)
    with np.errstate(divide="ignore"):
        log_mass = np.where(flat == 0, np.log1p(-shares), -np.inf)
        log_density = np.where(flat > 0, np.log(shares) + inner.logpdf(flat), log_mass)
    assert_allclose(ours.log_mass(x)[..., 0], log_mass)
    assert_allclose(ours.log_density(x)[..., 0], log_density)
    assert_allclose(ours.mean()[:, 0], shares * inner.mean(), rtol=1e-8)
    second = shares * (inner.var() + inner.mean() ** 2)
    assert_allclose(ours.var()[:, 0], second - (shares * inner.mean()) ** 2, rtol=1e-8)
    assert_array_equal(
        np.array(ours.support())[:, :, 0].T, [[0, np.inf]] * 2 + [[0, 0], [0, np.inf]]
    )


def test_support_of_positive_numbers_alone_is_theirs():
    pareto = scipy_components("pareto", {"b": [[3.0], [3.0]]})
    low, high = HurdleComponents([[0.5], [1.0]], pareto).support()
    assert_array_equal(low, [[0], [1]])
    assert_array_equal(high, [[np.inf], [np.inf]])


@pytest.mark.parametrize("name", DENSITY)
def test_quantiles_invert_the_distribution_function(name):
    ours = components(name, [[0.25], [1.0], [0.0], [0.6]])
    q = np.array([1e-6, 0.2, 0.5, 0.75, 0.76, 0.999, 1 - 1e-9])[:, None, None]
    x = ours.ppf(q)
    assert (ours.cdf(x) >= q * (1 - 1e-12)).all()
    above = x > 0
    assert_allclose(ours.sf(x)[above], np.broadcast_to(1 - q, x.shape)[above], rtol=1e-6)
    assert_array_equal(x == 0, (q <= 1 - ours.params["positive"]))
    ends = ours.ppf(np.array([0.0, 1.0])[:, None, None])
    assert_array_equal(ends[..., 0], [[0] * 4, [np.inf, np.inf, 0, np.inf]])


def test_draws_have_the_distribution():
    dist = PredictiveDistribution(components("gamma"))
    draws = np.concatenate([np.ravel(dist.rvs(1, random_state=seed)) for seed in range(3000)])
    assert_allclose((draws == 0).mean(), dist.pmf(0.0)[0], atol=0.03)
    assert_allclose(draws.mean(), dist.mean()[0], rtol=0.1)
    positive = draws[draws > 0]
    zero = dist.cdf(0.0)[0]
    law = stats.kstest(positive, lambda x: (dist.cdf(x[:, None])[:, 0] - zero) / (1 - zero))
    assert law.pvalue > 1e-3


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", DENSITY)
def test_score_agrees_with_the_general_quadrature(name, k):
    rng = np.random.default_rng(0)
    parts = components(name, rng.uniform(0, 1, (9, k)))
    dist = PredictiveDistribution(parts, weights=rng.dirichlet(np.ones(k), 9))
    y = np.array([0, 0, 0, 0.1, 0.5, 1, 3, 9, 50.0])
    assert parts.has_crps == (name != "weibull_min")
    general = scores._integrate(parts, dist.weights, y)
    assert_allclose(dist.crps(y), general, rtol=1e-6, atol=1e-9)


def test_score_of_two_outputs_is_that_of_each():
    rng = np.random.default_rng(0)
    shares, scale = rng.uniform(0, 1, (5, 3, 2)), rng.uniform(1, 2, (5, 3, 2))
    density = scipy_components("gamma", {"a": scale, "scale": scale})
    dist = PredictiveDistribution(HurdleComponents(shares, density), weights=[0.2, 0.3, 0.5])
    y = np.stack([np.zeros(5), np.arange(5.0)], axis=1)
    both = dist.crps(y)
    for output in range(2):
        assert_allclose(dist.marginal(output).crps(y[:, output]), both[:, output])


def test_components_are_selected_joined_and_stored():
    one, other = components("gamma"), components("gamma", [[0.5]])
    joined, order = join([one, other])
    assert joined.shape == (1, 3)
    assert order.tolist() == [0, 1, 2]
    x = np.array([[2.0]])
    expected = np.concatenate([one.cdf(x), other.cdf(x)], axis=1)
    assert_array_equal(joined.cdf(x), expected)
    assert_array_equal(joined.pick(2).cdf(x), expected[:, 2:])
    again = type(joined).from_arrays(joined.to_arrays()[1])
    assert_array_equal(again.cdf(x), expected)
    assert_array_equal(again.take([0, 0]).cdf(x), np.repeat(expected, 2, axis=0))
    lognormal = PredictiveDistribution(components("lognorm"))
    both = PredictiveDistribution.mix([PredictiveDistribution(one), lognormal], [0.5, 0.5])
    assert_allclose(both.pmf(0.0), (lognormal.pmf(0.0) + (0.6 + 0.1) / 2) / 2)
    assert (
        repr(lognormal) == "PredictiveDistribution('hurdle(lognorm)', shape=(1,), n_components=2)"
    )


@pytest.mark.parametrize(
    ("shares", "inner", "message"),
    [
        ([[0.5, 1.2]], None, "no probability"),
        ([[0.5]], None, r"shape \(1, 1\); expected that of components, \(1, 2\)"),
        ([[0.5]], scipy_components("norm", {"loc": [[0.0]]}), "those of 'norm'; expected"),
        ([[0.5]], scipy_components("poisson", {"mu": [[1.0]]}), "those of 'poisson'; expected"),
        ([[0.5]], LatticeComponents([1.0, 2.0], [[[0.5, 0.5]]]), "'lattice'; expected dens"),
    ],
)
def test_components_that_are_none(shares, inner, message):
    with pytest.raises(ValueError, match=message):
        HurdleComponents(shares, inner or components("gamma").components)


def test_hurdles_in_hurdles_are_no_file():
    tag, content = components("gamma").to_arrays()
    with pytest.raises(ValueError, match="hurdles in hurdles"):
        HurdleComponents.from_arrays(content | {"components": [tag, content]})


@pytest.mark.parametrize("name", ["normal", "poisson", "beta", "hurdle", "categorical"])
def test_families_of_other_numbers_are_refused(name):
    with pytest.raises(ValueError, match=f"positive='{name}' is .*; expected a family of the pos"):
        get_family("hurdle", positive=name)


@pytest.mark.parametrize("name", POSITIVE)
def test_scaling_is_that_of_the_positive_numbers(name):
    family, inner = get_family("hurdle", positive=name), get_family(name)
    y = torch.tensor([[0, 3.0], [2, 0], [5, 0], [0, 0]], dtype=torch.float64)
    weight = torch.tensor([1.0, 1, 3, 9], dtype=torch.float64)
    shift, scale = family.scaling(y, weight)
    own = inner.scaling(y[1:3, :1], weight[1:3])
    assert_allclose([shift[0], scale[0]], np.ravel(own))
    z = family.standardise(y, shift, scale)
    assert_array_equal(z == 0, y == 0)
    assert_allclose(z[1:3, 0], inner.standardise(y[1:3, :1], *own)[:, 0])
    zeros = torch.zeros(4, 1, dtype=torch.float64)
    assert_array_equal(family.scaling(zeros, weight), [[0], [1]])


def rain(n_rows=1000):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 3))
    q = special.expit(0.5 + X[:, 0] - X[:, 1])
    y = 50 * np.exp(0.6 * X[:, 0] + 0.5 * rng.normal(size=n_rows)) * (rng.random(n_rows) < q)
    return X, y, q


@pytest.mark.parametrize("method", ["erm", "probmix"])
@pytest.mark.parametrize("family", ["hurdle", get_family("hurdle", positive="gamma")], ids=repr)
def test_probability_of_zero_and_density_are_learnt(family, method):
    X, y, q = rain()
    est = ProbMixupRegressor(
        method=Kind(method, n_steps=600, alpha=0.05), family=family, random_state=0
    )
    dist = est.fit(X[:500], y[:500]).predict_proba(X[500:])
    assert abs(dist.pmf(0.0) - (1 - q[500:])).mean() < 0.1
    z = np.log(np.where(y > 0, y, 1) / 50) - 0.6 * X[:, 0]
    log_p = np.log(q) + stats.norm.logpdf(z, scale=0.5) - np.log(np.where(y > 0, y, 1))
    truth = -np.where(y > 0, log_p, np.log1p(-q))[500:].mean()
    assert nll(y[500:], dist) < truth + 0.12
    assert 0.88 < coverage(y[500:], dist, level=0.9) < 0.97
    assert crps(y[500:], dist) < 0.8 * abs(y[500:] - np.median(y[:500])).mean()


@pytest.mark.parametrize("family", ["hurdle", get_family("hurdle", positive="gamma")], ids=repr)
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_model_files_hold_hurdles(family, n_outputs, tmp_path):
    X, y, _ = rain(80)
    y = np.stack([y, y[::-1]], axis=1) if n_outputs == 2 else y
    settings = {"hidden_layer_sizes": (8,), "max_epochs": 2, "n_members": 2, "random_state": 0}
    est = ProbMixupRegressor(method="probmix", family=family, **settings).fit(X, y)
    save_model(est, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.family_ == est.family_
    for name in ("mean", "std"):
        own, other = (getattr(model.predict_proba(X), name)() for model in (est, loaded))
        assert_array_equal(own, other)
    dist, other = (model.oof_predictive_ for model in (est, loaded))
    assert_array_equal(dist.logpdf(y), other.logpdf(y))


def test_a_hurdle_of_a_file_is_checked(tmp_path):
    X, y, _ = rain(40)
    family = get_family("hurdle", positive="gamma")
    est = ProbMixupRegressor(method="erm", family=family, max_epochs=1).fit(X, y)
    save_model(est, tmp_path / "model")
    parts = opened(tmp_path / "model")
    inner = {"$family": {"family": "poisson", "mean": None}}
    parts.document["parameters"]["family"] = {"$family": {"family": "hurdle", "positive": inner}}
    store(parts.tensors, parts.document, tmp_path / "changed")
    with pytest.raises(ValueError, match="expected a family of the positive numbers"):
        load_model(tmp_path / "changed")


@pytest.mark.parametrize("name", POSITIVE)
def test_what_is_rounded_to_zero_is_none_of_the_zeros(name):
    family = get_family("hurdle", positive=name)
    shift, scale = (torch.tensor([value], dtype=torch.float64) for value in (0.0, 1e-3))
    scale = scale if name == "lognormal" else 1e3 + 0 * scale
    y = torch.tensor([[0.0], [1.0], [5e-324]], dtype=torch.float64)
    in_support = family.in_support(family.standardise(y, shift, scale))
    assert in_support.ravel().tolist() == [True, True, False]


def test_a_response_below_zero_is_refused():
    X, y, _ = rain(40)
    y[7] = -1.0
    with pytest.raises(ValueError, match=r"y\[7\] = -1.0 is outside .*0 and the positive numbers"):
        ProbMixupRegressor(family="hurdle").fit(X, y)


class Exponential(Family):
    """Exponential density of rate r, eta = -r."""

    n_params = 1
    support = "the positive numbers"

    def natural(self, raw):
        return -torch.nn.functional.softplus(raw)

    def log_prob(self, eta, y):
        return (-eta[..., 0]).log() + eta[..., 0] * y

    def in_support(self, y):
        return y > 0

    def scipy_parameters(self, eta, shift=0.0, scale=1.0):
        return {"scale": -1 / eta[..., 0]}

    scipy_name = "expon"


def test_a_family_of_ones_own_may_be_the_positive_part():
    X, y, _ = rain(60)
    family = get_family("hurdle", positive=Exponential())
    assert family.n_params == 2
    est = ProbMixupRegressor(method="probmix", family=family, max_epochs=2, n_members=2)
    dist = est.fit(X, y / 50).predict_proba(X)
    assert np.isfinite(dist.logpdf(y / 50)).all()
    assert np.isfinite(dist.crps(y / 50)).all()
