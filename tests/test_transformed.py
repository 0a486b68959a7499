"""The transformed family: a Normal on a curve that is taken from the responses."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from model_files import opened, store
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.integrate import quad
from sklearn.preprocessing import PowerTransformer

from sklearn_probmix import (
    Kind,
    PredictiveDistribution,
    ProbMixupRegressor,
    get_family,
    load_model,
    save_model,
)
from sklearn_probmix import crps as scores
from sklearn_probmix.metrics import coverage, crps, nll
from sklearn_probmix.transformed import Curve, TransformedComponents

POWERS = [0.0, 0.3, 1.0, 1.5, 2.0]
Y = np.array([-300.0, -9.0, -1.5, 0.0, 1e-9, 0.7, 12.0, 1000.0])
REACH = 6.0


def curve(power, reach=REACH):
    return Curve(0.5, 2.0, power, reach)


def components(power, loc, scale):
    """Components of shape (n, k) on one curve."""
    loc = np.asarray(loc, dtype=float)
    values = {"centre": 0.5, "unit": 2.0, "power": power, "reach": REACH}
    return TransformedComponents(
        {"loc": loc, "scale": scale + 0 * loc} | {k: v + 0 * loc for k, v in values.items()}
    )


@pytest.mark.parametrize("power", POWERS)
def test_curve_is_yeo_johnsons_where_it_is_curved(power):
    t = np.linspace(-REACH, REACH, 41)
    transformer = PowerTransformer(standardize=False).fit(t[:, None])
    transformer.lambdas_ = np.array([power])
    assert_allclose(curve(power)(0.5 + 2 * t), transformer.transform(t[:, None])[:, 0], atol=1e-12)


@pytest.mark.parametrize("power", POWERS)
def test_inverse_and_slope_of_the_curve(power):
    g = curve(power)
    assert_allclose(g.inverse(g(Y)), Y, rtol=1e-12, atol=1e-12)
    step = 1e-5
    slope = (g(Y + step) - g(Y - step)) / (2 * step)
    assert_allclose(np.exp(g.log_slope(Y)), slope, rtol=1e-5)


@pytest.mark.parametrize("end", [0.5 - 2 * REACH, 0.5, 0.5 + 2 * REACH])
@pytest.mark.parametrize("power", POWERS)
def test_curve_has_no_corners(power, end):
    g = curve(power)
    below, above = end - 1e-9, end + 1e-9
    assert_allclose(g(below), g(above), atol=1e-7)
    assert_allclose(g.log_slope(below), g.log_slope(above), atol=1e-7)


@pytest.mark.parametrize("sign", [1, -1])
def test_power_is_that_of_largest_likelihood(sign):
    rng = np.random.default_rng(0)
    y = sign * np.expm1(0.5 * rng.normal(size=400))
    found = Curve.fit(y, np.ones(400))
    t = (y - found.centre) / found.unit
    assert 0 < found.power < 2
    assert_allclose(found.power, PowerTransformer().fit(t[:, None]).lambdas_[0], atol=1e-3)


def test_weights_count_as_copies_of_a_row():
    rng = np.random.default_rng(0)
    y, weight = np.exp(rng.normal(size=50)), rng.integers(1, 4, 50)
    weighted, copied = (
        Curve.fit(y, weight * 1.0),
        Curve.fit(y.repeat(weight), np.ones(weight.sum())),
    )
    assert_allclose(
        *([getattr(c, name) for name in c.names] for c in (weighted, copied)), rtol=1e-4
    )


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_unit_and_origin_of_y_do_not_matter_to_the_curve(unit):
    y = np.exp(np.random.default_rng(0).normal(size=100))
    one, other = Curve.fit(y, np.ones(100)), Curve.fit(unit * y, np.ones(100))
    assert_allclose(other(unit * y), one(y), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("y", [[0.0] * 5, [7.0] * 5, [0, 0, 0, 0, 1e9], [1, 2]])
def test_curve_of_degenerate_responses(y):
    y = np.array(y, dtype=float)
    g = Curve.fit(y, np.ones(len(y)))
    assert np.isfinite([g(y), g.log_slope(y)]).all()
    assert_allclose(g.inverse(g(y)), y)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize(("loc", "scale"), [(0.2, 0.7), (-1.0, 2.0), (3.0, 0.01), (-8.0, 4.0)])
def test_density_sums_to_one_and_has_these_moments(power, loc, scale):
    one = components(power, [[loc]], scale)
    g = curve(power)
    # Where it is smooth, in units in which it is compact.
    z = loc + scale * np.linspace(-9, 9, 13)
    points = np.sort(np.concatenate([g.inverse(z), 0.5 + 2 * REACH * np.array([-1, 0, 1])]))
    points = points[(points >= g.inverse(z[0])) & (points <= g.inverse(z[-1]))]

    def integral(function):
        def integrand(x):
            return function(x) * one.density(np.array([[x]]))[0, 0]

        return sum(quad(integrand, *ends, epsabs=0, epsrel=1e-11)[0] for ends in pairwise(points))

    assert_allclose(integral(lambda x: 1), 1, rtol=1e-9)
    mean, var = one.mean()[0, 0], one.var()[0, 0]
    assert_allclose(integral(lambda x: x - mean) / np.sqrt(var), 0, atol=1e-8)
    assert_allclose(integral(lambda x: (x - mean) ** 2), var, rtol=1e-7)


@pytest.mark.parametrize("power", POWERS)
def test_distribution_function_is_the_integral_of_the_density(power):
    one, x = components(power, [[0.4]], 0.9), np.array([[-4.0]])
    width = 1e-4
    for low in (-20.0, -1.0, 0.4, 5.0, 30.0):
        cell = one.cdf(x + low + width) - one.cdf(x + low)
        assert_allclose(cell, width * one.density(x + low + width / 2), rtol=1e-5, atol=1e-15)
    q = np.array([1e-9, 0.1, 0.5, 0.999])[:, None, None]
    assert_allclose(one.cdf(one.ppf(q)), q, rtol=1e-9)
    assert_allclose(one.sf(one.ppf(1 - q)), q, rtol=1e-6)
    assert_array_equal(one.ppf(np.array([[[0.0]], [[1.0]]])).ravel(), [-np.inf, np.inf])
    assert_array_equal(one.cdf(np.array([[[-np.inf]], [[np.inf]]])).ravel(), [0, 1])
    assert_array_equal(one.log_density(np.array([[[-np.inf]], [[np.inf]]])).ravel(), [-np.inf] * 2)


def test_a_straight_curve_is_the_normal():
    loc = np.random.default_rng(0).normal(size=(6, 3))
    ours = PredictiveDistribution(components(1.0, loc, 0.5))
    normal = PredictiveDistribution("norm", {"loc": 0.5 + 2 * loc, "scale": 1 + 0 * loc})
    y = np.linspace(-4, 4, 6)
    for name in ("logpdf", "cdf", "crps"):
        assert_allclose(getattr(ours, name)(y), getattr(normal, name)(y), rtol=1e-7, atol=1e-12)
    assert_allclose(ours.ppf([0.1, 0.9]), normal.ppf([0.1, 0.9]), rtol=1e-8)
    assert_allclose([ours.mean(), ours.var()], [normal.mean(), normal.var()], rtol=1e-8)


def test_draws_have_the_distribution():
    draws = PredictiveDistribution(components(0.2, [[0.3, 2.0]], 0.8)).rvs(4000, random_state=0)
    dist = PredictiveDistribution(components(0.2, [[0.3, 2.0]], 0.8))
    assert stats.kstest(draws[:, 0], lambda x: dist.cdf(x[:, None])[:, 0]).pvalue > 1e-3


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("k", [1, 4, 30])
def test_score_agrees_with_the_general_quadrature(power, k):
    rng = np.random.default_rng(0)
    parts = components(power, rng.normal(size=(12, k)), np.exp(rng.normal(size=(12, k)) - 1))
    dist = PredictiveDistribution(parts, weights=rng.dirichlet(np.ones(k), 12))
    y = dist.rvs(random_state=0).ravel()
    y[:3] = -200, 500, 1e5
    general = scores._integrate(parts, dist.weights, y)
    assert_allclose(dist.crps(y), general, rtol=1e-4)


def test_mixtures_of_several_curves_have_a_score():
    parts = [PredictiveDistribution(components(power, [[0.3]], 0.6)) for power in (0.0, 1.5)]
    both = PredictiveDistribution.mix(parts, [0.5, 0.5])
    apart = scores._integrate(both._components, both.weights, np.array([1.0]))
    assert_allclose(both.crps([1.0]), apart, rtol=1e-6)


def regressor(**parameters):
    parameters = {"family": "transformed", "method": "probmix", "random_state": 0} | parameters
    return ProbMixupRegressor(**{"max_epochs": 2, "hidden_layer_sizes": (8,)} | parameters)


def skewed(n_rows=400):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 3))
    return X, 100 - 30 * np.exp(X @ [0.7, -0.4, 0] + 0.4 * rng.normal(size=n_rows))


def test_skewed_responses_of_any_sign_are_predicted_better_than_by_normals():
    X, y = skewed(1000)
    kind = Kind("erm", n_steps=600)
    dists = {}
    for family in ("normal", "transformed"):
        est = regressor(family=family, method=kind, max_epochs=None, hidden_layer_sizes=None)
        dists[family] = est.fit(X[:500], y[:500]).predict_proba(X[500:])
    ours, normal = dists["transformed"], dists["normal"]
    assert nll(y[500:], ours) < nll(y[500:], normal) - 0.1
    assert crps(y[500:], ours) < crps(y[500:], normal)
    assert 0.87 < coverage(y[500:], ours, level=0.9) < 0.94


def test_density_of_the_fit_is_that_of_the_network_with_the_slope():
    X, y = skewed()
    est = regressor(n_members=1, calibration="off").fit(X, y)
    g = est.family_._curve()
    z = est._response(est.kinds_[0]).standardise(torch.from_numpy(y[:, None]))
    eta = est._mixtures(X)[0].eta[:, 0]
    log_p = est.family_.log_prob(eta, z)[:, 0].numpy() + g.log_slope(y) - np.log(est.y_scale_)
    assert_allclose(est.predict_proba(X).logpdf(y), log_p, rtol=1e-5, atol=1e-5)
    assert_allclose([z.mean(), z.std(correction=0)], [0, 1], atol=0.2)


@pytest.mark.parametrize("parameters", [{}, {"calibration": "on"}, {"method": "auto"}])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_model_files_hold_the_curves(parameters, n_outputs, tmp_path):
    X, y = skewed(80)
    y = np.stack([y, y**2], axis=1) if n_outputs == 2 else y
    est = regressor(**parameters, n_members=2).fit(X, y)
    save_model(est, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert len(loaded.family_.curves) == n_outputs
    for name in ("mean", "std"):
        own, other = (getattr(model.predict_proba(X), name)() for model in (est, loaded))
        assert_array_equal(own, other)
    dist, other = (model.oof_predictive_ for model in (est, loaded))
    assert_array_equal(dist.logpdf(y), other.logpdf(y))


@pytest.mark.parametrize(
    "curves",
    [[[0.0, 1.0, 1.0]], [[0.0, 0.0, 1, 1]], [[0, 1, 3, 1]], [[0, 1, 1, 0]], [], [[np.nan] * 4]],
)
def test_curves_that_are_none(curves, tmp_path):
    with pytest.raises(ValueError, match=r"curves=.*; expected \(centre, unit, power, reach\)"):
        get_family("transformed", curves=curves)


def test_a_curve_of_a_file_is_checked(tmp_path):
    X, y = skewed(40)
    save_model(regressor().fit(X, y), tmp_path / "model")
    parts = opened(tmp_path / "model")
    family = {"family": "transformed", "variance_floor": 1e-4, "curves": [[0.0, -1.0, 1.0, 1.0]]}
    parts.document["fitted"]["family_"] = {"$family": family}
    store(parts.tensors, parts.document, tmp_path / "changed")
    with pytest.raises(ValueError, match="curves=.*unit and reach positive"):
        load_model(tmp_path / "changed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [[0.0]]}, "scale, unit and reach positive"),
        ({"power": [[2.5]]}, r"power in \[0, 2\]"),
        ({"loc": [[np.nan]]}, "params must be finite"),
        ({"loc": [[0.0, 1.0]]}, "params have the shapes .*; expected one"),
        ({"shape": [[0.0]]}, "params must be .*got .*'shape'"),
    ],
)
def test_components_that_are_none(change, message):
    with pytest.raises(ValueError, match=message):
        TransformedComponents(dict(components(1.0, [[0.0]], 1.0).params) | change)


def test_kernel_networks_remember_what_is_normal():
    X, y = skewed(60)
    est = regressor(method=Kind(network="kernel", hidden_layer_sizes=(4,)), n_members=1).fit(X, y)
    context = est.net_.module_.responses.numpy()
    assert abs(context).max() < 20
    assert np.isfinite(est.predict(X)).all()


def test_rounding_is_judged_where_the_response_is():
    """The variance of rounding is that of y times the squared slope of the standardised curve."""
    X, y = skewed()
    y = np.round(y)
    est = regressor().fit(X, y)
    response, step = est._response(est.kinds_[0]), 1e-4
    shift, scale = (value.numpy() for value in response[1:3])
    z = response.standardise(torch.from_numpy(y[:, None]))
    found = est.family_.rounding(z, np.ones(1), shift, scale)[:, 0]
    ends = (torch.from_numpy(y[:, None] + sign * step) for sign in (-1, 1))
    low, up = (est.family_.standardise(end, *response[1:3]) for end in ends)
    slope = (up - low)[:, 0].numpy() / (2 * step)
    assert_allclose(found, slope**2 / 12, rtol=1e-2)


@pytest.mark.slow
def test_fast_has_the_mean_of_skewed_noise_with_the_curve():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 2)), rng.exponential(size=500)
    est = ProbMixupRegressor(method="fast", family="transformed", n_members=2, random_state=0).fit(
        X, y
    )
    # The mean of so many y is known to 1 / sqrt(500), or 4 %.
    assert abs(est.predict(X).mean() / y.mean() - 1) < 2 / np.sqrt(500)


def test_before_a_fit_it_is_the_normal():
    raw = torch.randn(7, 1, 2)
    one, other = get_family("transformed"), get_family("normal")
    assert torch.equal(one.natural(raw), other.natural(raw))
    y = torch.randn(7, 1)
    assert torch.equal(one.log_prob(one.natural(raw), y), other.log_prob(other.natural(raw), y))
