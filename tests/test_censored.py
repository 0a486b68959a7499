"""Responses of which some are only known to be more than a number."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    ProbMixupClassifier,
    ProbMixupRegressor,
    get_family,
    load_model,
    save_model,
)
from sklearn_probmix.criterion import log_likelihood
from sklearn_probmix.pooling import mix_responses

LINEAR = Kind("erm", hidden_layer_sizes=(), lr=0.01, n_steps=600)
TINY = {"hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0}
SLOPE = np.array([0.7, -0.4, 0.0])


def lifetimes(share, family="normal", n_rows=800):
    """X, what is observed, where it is censored, and the true responses."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 3))
    y = 3 + X @ SLOPE + 0.5 * rng.normal(size=n_rows)
    # Uniform limits, of which so many are passed.
    limit = np.quantile(y, 1 - share) + rng.uniform(-0.5, 0.5, n_rows) if share else np.inf + y
    observed, censored = np.minimum(y, limit), y > limit
    if family == "lognormal":
        observed, y = np.exp(observed), np.exp(y)
    return X, observed, censored, y


@pytest.mark.parametrize(
    "name", ["normal", "homoscedastic-normal", "lognormal", "transformed", "gamma"]
)
def test_probability_of_more_is_scipys(name):
    family = get_family(name)
    raw = torch.tensor([[[0.4, -1.0]], [[-2.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    # Beyond, scipy's gamma underflows.
    largest = 9.0 if name == "gamma" else 700.0
    y = torch.tensor([[0.1], [2.0], [largest]], dtype=torch.float64)
    eta = family.natural(raw).detach()
    if name == "gamma":
        sf = stats.gamma.logsf(y[:, None], eta[..., 0], scale=-1 / eta[..., 1])
    else:
        mean, variance = family.moments(eta)
        z = y.log() if name == "lognormal" else y
        sf = stats.norm.logsf(z[:, None], mean[None], variance[None].sqrt())
    ours = family.log_sf(family.natural(raw), y[:, None])
    assert_allclose(ours.detach(), sf, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda raw: family.log_sf(family.natural(raw), y[:, None]), raw)


def test_probability_of_more_than_very_little_keeps_its_digits():
    eta = torch.tensor([[[2.0, -1.0]]], dtype=torch.float64)
    found = get_family("gamma").log_sf(eta, torch.tensor([[1e-5]], dtype=torch.float64))
    assert_allclose(found.item(), np.log1p(-stats.gamma.cdf(1e-5, 2.0)), rtol=1e-9)


def test_probability_of_more_of_a_gamma_has_no_hole():
    """From where scipy and torch say 0 on, the tail is that of the continued fraction."""
    family = get_family("gamma")
    shapes = torch.tensor([0.01, 0.5, 3.0, 200.0]).double()
    eta = torch.stack([shapes, -torch.ones(4).double()], dim=-1).unsqueeze(1).requires_grad_()
    y = torch.tensor([0.0, 1e-9, 1.0, 600.0, 670.0, 2000.0, 1e6]).double()[:, None, None]
    log_sf = family.log_sf(eta, y)
    slope = torch.autograd.grad(log_sf.sum(), eta)[0]
    assert slope.isfinite().all()
    step = torch.tensor(1e-4).double()
    hazard = (family.log_sf(eta, y[1:] * (1 + step)) - log_sf[1:]) / (y[1:] * step)
    density = (family.log_prob(eta, y[1:]) - log_sf[1:]).exp()
    assert_allclose(hazard.detach(), -density.detach(), rtol=0.1, atol=1e-6)
    assert (log_sf[0] == 0).all()


def test_far_censored_responses_have_finite_losses_and_gradients():
    family = get_family("normal")
    raw = torch.tensor([[[0.0, -3.0]]], requires_grad=True)
    loss = -family.log_sf(family.natural(raw), torch.tensor([[1e4]])).sum()
    loss.backward()
    assert loss.isfinite()
    assert raw.grad.isfinite().all()


def test_likelihood_takes_density_or_probability_of_more():
    family = get_family("lognormal")
    eta = family.natural(torch.randn(4, 3, 1, 2, dtype=torch.float64))
    y, is_more = torch.tensor([0.5, 1.0, 2.0, 4.0]).double(), torch.tensor([1.0, 0, 0, 1]).double()
    points = torch.complex(y, is_more).reshape(4, 1, 1, 1)
    ours = log_likelihood(family, eta, points)[:, 0, 0]
    seen = family.log_prob(eta, y.reshape(4, 1, 1))[..., 0].logsumexp(1)
    more = family.log_sf(eta, y.reshape(4, 1, 1))[..., 0].logsumexp(1)
    assert_allclose(ours, torch.where(is_more > 0, more, seen) - np.log(3), rtol=1e-12)


def test_losses_of_two_responses_are_mixed_by_lam():
    family, lam = get_family("normal"), torch.tensor([0.3, 0.8])
    y_i = torch.complex(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]]))
    y_j = torch.complex(torch.tensor([[5.0], [-1.0]]), torch.tensor([[1.0], [0.0]]))
    points, weights = mix_responses(family, y_i, y_j, lam, response="expected")
    assert_array_equal(points[..., 0], torch.cat([y_i, y_j], dim=1))
    assert_allclose(weights, [[0.3, 0.7], [0.8, 0.2]], rtol=1e-6)


def test_criterion_of_a_batch_by_hand():
    eta = torch.tensor([0.0, -0.5]).expand(3, 1, 2)
    y = torch.complex(torch.tensor([0.5, 1.0, -1.0]), torch.tensor([0.0, 1.0, 0.0]))
    expected = -(stats.norm.logpdf([0.5, -1.0]).sum() + stats.norm.logsf(1.0)) / 3
    assert NegativeLogLikelihood()(eta, y).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["erm", "probmix"])
@pytest.mark.parametrize(
    ("family", "share"),
    # Of more censored responses the curve of the last is not that of the true ones.
    [*product(["normal", "lognormal"], [0.0, 0.3, 0.6]), *product(["transformed"], [0.0, 0.3])],
)
def test_mean_and_spread_are_recovered(family, method, share):
    X, observed, censored, _ = lifetimes(share, family)
    assert abs(censored.mean() - share) < 0.05
    est = ProbMixupRegressor(
        method=LINEAR.updated(method=method, alpha=0.05), family=family, random_state=0
    )
    dist = est.fit(X, observed, censored=censored).predict_proba(X)
    low, median, high = dist.ppf(stats.norm.cdf([-1, 0, 1]))
    if family == "lognormal":
        low, median, high = np.log([low, median, high])
    # A spread that the linear network makes a function of x; on a curve nothing is quite linear.
    tolerance = 0.25 if family == "transformed" else 0.12
    assert abs(median - (3 + X @ SLOPE)).mean() < tolerance
    assert abs((high - low) / 2 - 0.5).mean() < tolerance
    blind = est.fit(X, observed).predict_proba(X).ppf(0.5)
    blind = np.log(blind) if family == "lognormal" else blind
    if share == 0.6:
        assert (blind - (3 + X @ SLOPE)).mean() < -0.3


def test_no_censored_row_is_a_fit_without():
    X, observed, censored, _ = lifetimes(0.0)
    settings = {"family": "normal", "method": "probmix"} | TINY
    one = ProbMixupRegressor(**settings).fit(X, observed, censored=censored)
    other = ProbMixupRegressor(**settings).fit(X, observed)
    assert_array_equal(one.predict(X), other.predict(X))


def test_out_of_fold_score_is_that_of_what_is_known():
    X, observed, censored, _ = lifetimes(0.4, n_rows=100)
    est = ProbMixupRegressor(method="probmix", **TINY).fit(X, observed, censored=censored)
    dist = est.oof_predictive_
    log_p = np.where(censored, np.log(dist.sf(observed)), dist.logpdf(observed))
    assert est.oof_scores_ == {"nll": pytest.approx(-log_p.mean())}
    assert est.calibration_ is None
    assert est.kinds_[0].response == "expected"


def test_weights_and_rows_of_no_weight():
    X, observed, censored, _ = lifetimes(0.4, n_rows=60)
    weight = np.arange(60) % 4 / 2.0
    kept = weight > 0
    settings = {"method": "probmix", "validation": None} | TINY
    one = ProbMixupRegressor(**settings).fit(X, observed, weight, censored=censored)
    other = ProbMixupRegressor(**settings)
    other.fit(X[kept], observed[kept], weight[kept], censored=censored[kept])
    assert_array_equal(one.predict(X), other.predict(X))


def test_auto_leaves_kernels_out_and_is_saved_and_goes_on(tmp_path):
    X, observed, censored, _ = lifetimes(0.4, n_rows=80)
    est = ProbMixupRegressor(**TINY, n_members=2, warm_start=True)
    est.fit(X, observed, censored=censored)
    assert {kind.network for kind in est.kinds_} == {"mlp"}
    assert {kind.monitor for kind in est.kinds_} == {"nll"}
    save_model(est, tmp_path / "model")
    assert_array_equal(load_model(tmp_path / "model").predict(X), est.predict(X))
    before = est.predict(X)
    est.fit(X, observed, censored=censored)
    assert (est.predict(X) != before).any()


@pytest.mark.parametrize("validation", ["cv", "holdout", KFold(4)])
def test_every_division_of_rows(validation):
    X, observed, censored, _ = lifetimes(0.4, n_rows=60)
    kinds = ["erm", Kind("probmix", n_neighbors=3), Kind("m-probmix", variance_weighting=0.5)]
    est = ProbMixupRegressor(method=kinds, n_members=2, validation=validation, **TINY)
    assert np.isfinite(est.fit(X, observed, censored=censored).predict(X)).all()


def test_a_pipeline_and_a_search_pass_it_on():
    X, observed, censored, _ = lifetimes(0.4, n_rows=60)
    est = ProbMixupRegressor(method="erm", n_members=1, **TINY)
    alone = est.fit(StandardScaler().fit_transform(X), observed, censored=censored)
    piped = make_pipeline(StandardScaler(), ProbMixupRegressor(method="erm", n_members=1, **TINY))
    piped.fit(X, observed, probmixupregressor__censored=censored)
    assert_array_equal(piped[-1].predict(X), alone.predict(X))
    search = GridSearchCV(est, {"alpha": [0.1]}, cv=2).fit(X, observed, censored=censored)
    assert search.best_estimator_.kinds_[0].response == "expected"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": Kind(network="kernel")}, "censored with network='kernel'"),
        ({"method": Kind("probmix", response="pooled")}, "response='pooled'.*expected"),
        ({"method": Kind("probmix", beta=0.1)}, "beta=0.1"),
        ({"method": Kind(monitor="crps")}, "monitor='crps'"),
        ({"family": "hurdle"}, r"censored: Hurdle.* has no log_sf"),
        ({"calibration": "on"}, "calibration='on' with censored"),
    ],
)
def test_what_needs_values_is_refused(parameters, message):
    X, observed, censored, _ = lifetimes(0.4, "lognormal", n_rows=40)
    est = ProbMixupRegressor(**{"method": "erm"} | TINY | parameters)
    with pytest.raises(ValueError, match=message):
        est.fit(X, observed, censored=censored)
    assert not hasattr(est, "nets_")


@pytest.mark.parametrize(
    ("censored", "message"),
    [
        (np.zeros(40), "dtype float64 and shape"),
        (np.zeros(39, dtype=bool), r"shape \(39,\) for y of shape \(40,\); expected booleans"),
        (np.ones(40, dtype=bool), "True for all rows"),
    ],
)
def test_masks_that_are_none(censored, message):
    X, observed, *_ = lifetimes(0.4, n_rows=40)
    with pytest.raises(ValueError, match=message):
        ProbMixupRegressor(**TINY).fit(X, observed, censored=censored)


def test_a_mask_of_what_has_weight_is_no_mask_of_all():
    X, y, censored, _ = lifetimes(0.5, n_rows=40)
    with pytest.raises(ValueError, match="True for all rows of a sample_weight above 0"):
        ProbMixupRegressor(method="erm", **TINY).fit(X, y, censored * 1.0, censored=censored)


@pytest.mark.filterwarnings("error")
def test_a_mask_that_is_read_only():
    X, y, censored, _ = lifetimes(0.5, n_rows=40)
    censored.flags.writeable = False
    est = ProbMixupRegressor(method="erm", validation=None, **TINY)
    assert np.isfinite(est.fit(X, y, censored=censored).predict(X)).all()


def test_two_outputs_and_classes_are_not_censored():
    X, observed, censored, _ = lifetimes(0.4, n_rows=40)
    with pytest.raises(ValueError, match="and one output"):
        ProbMixupRegressor(**TINY).fit(X, np.c_[observed, observed], censored=censored)
    with pytest.raises(ValueError, match="classes are not censored"):
        ProbMixupClassifier(**TINY).fit(X, observed > 3, censored=censored)
