"""Counts of any size: the mean of y is taken out, and sharp likelihoods are learnt."""

import numpy as np
import pytest
import torch
from model_files import opened, store
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import mean_poisson_deviance

from sklearn_probmix import (
    Kind,
    PredictiveDistribution,
    ProbMixupRegressor,
    fit_together,
    get_family,
    load_model,
    save_model,
)
from sklearn_probmix import crps as scores
from sklearn_probmix.metrics import coverage, crps, nll

COUNTS = "poisson", "negative-binomial"
LINEAR = Kind("erm", hidden_layer_sizes=(), lr=0.01, n_steps=600)


def log_linear(mean, n_rows=500, size=None):
    """X, and counts whose logarithm of the mean is linear in it; half of them to test."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2 * n_rows, 4))
    mu = mean * np.exp(X @ [0.4, -0.3, 0.2, 0.0])
    rate = mu if size is None else mu * rng.gamma(size, 1 / size, len(mu))
    return X, rng.poisson(rate).astype(float), mu


@pytest.mark.parametrize("mean", [1.0, 1e3, 1e6])
def test_poisson_data_are_predicted_as_by_a_generalised_linear_model(mean):
    X, y, _ = log_linear(mean)
    est = ProbMixupRegressor(method=LINEAR, family="poisson", random_state=0).fit(X[:500], y[:500])
    # Its solver stops early on large counts, so it learns them in units of the mean.
    glm = PoissonRegressor(alpha=0, tol=1e-8, max_iter=1000).fit(X[:500], y[:500] / mean)
    dist = est.predict_proba(X[500:])
    ours = mean_poisson_deviance(y[500:], dist.mean())
    assert ours < 1.03 * mean_poisson_deviance(y[500:], mean * glm.predict(X[500:]))
    # Intervals of small counts hold more than they say.
    assert 0.87 < coverage(y[500:], dist, level=0.9) < (0.93 if mean > 1 else 1)


@pytest.mark.parametrize("size", [0.5, 19.0, 21.0, 40.0])
def test_masses_are_scipys_to_all_digits_on_both_sides_of_the_series(size):
    y, mean = torch.tensor([0.0, 1.0, 19.0, 20.0, 21.0, 25.0, 60.0, 200.0])[:, None], 30.0
    eta = torch.tensor([np.log(mean / (mean + size)), np.log(size)])
    expected = stats.nbinom.logpmf(y, size, size / (size + mean))
    found = get_family("negative-binomial").log_prob(eta[None, None], y)
    assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("y", [0.0, 1.0, 1e6])
def test_masses_far_below_a_large_mean_are_those_of_the_geometric(y):
    mean = 1e18
    eta = torch.tensor([[[-np.log1p(1 / mean), 0.0]]], dtype=torch.float64, requires_grad=True)
    found = get_family("negative-binomial").log_prob(eta, torch.tensor([[y]]))
    assert_allclose(found.item(), -np.log(mean), rtol=1e-9)
    found.backward()
    assert eta.grad.isfinite().all()


@pytest.mark.parametrize("mean", [1.0, 1e3, 1e6])
def test_dispersion_of_wide_counts_is_found(mean):
    X, y, mu = log_linear(mean, size=4.0)
    est = ProbMixupRegressor(method=LINEAR, family="negative-binomial", random_state=0)
    dist = est.fit(X[:500], y[:500]).predict_proba(X[500:])
    assert_allclose(np.median(dist.params["n"]), 4, rtol=0.25)
    params = {"n": np.full((500, 1), 4.0), "p": 4 / (4 + mu[500:, None])}
    truth = nll(y[500:], PredictiveDistribution("nbinom", params))
    assert nll(y[500:], dist) < truth + 0.03


def test_dispersion_of_poisson_counts_vanishes():
    X, y, mu = log_linear(1e3)
    est = ProbMixupRegressor(method=LINEAR, family="negative-binomial", random_state=0)
    dist = est.fit(X[:500], y[:500]).predict_proba(X[500:])
    # It began at the marginal spread, of size 3.
    assert dist.params["n"].min() > 1e3
    truth = PredictiveDistribution("poisson", {"mu": mu[500:, None]})
    assert nll(y[500:], dist) < nll(y[500:], truth) + 0.05


@pytest.mark.parametrize("name", COUNTS)
def test_fit_takes_the_weighted_mean_out(name):
    y, weight = torch.tensor([[1.0, 0], [5, 0], [100, 0]]).double(), torch.tensor([1.0, 3, 0])
    family = get_family(name).fitted(y, weight.double())
    assert family.mean == (4.0, 1.0)
    assert family.unfitted() == get_family(name)
    eta = family.natural(torch.zeros(1, 2, family.n_params, dtype=torch.float64))
    assert_allclose(family.components(eta.unsqueeze(0)).mean()[0, 0], [4, 1])


@pytest.mark.parametrize("name", COUNTS)
def test_a_mean_that_is_given_stays(name):
    family = get_family(name, mean=[7.0])
    assert family.fitted(torch.ones(3, 1).double(), torch.ones(3).double()) is family


def test_a_size_that_is_given_stays():
    y = torch.tensor([[0.0], [1.0], [8.0]]).double()
    family = get_family("negative-binomial", size=[3.0]).fitted(y, torch.ones(3).double())
    assert (family.mean, family.size) == ((3.0,), (3.0,))


def test_size_begins_at_the_marginal_spread():
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.negative_binomial(4, 4 / 104, (20_000, 1)).astype(float))
    family = get_family("negative-binomial").fitted(y, torch.ones(len(y)).double())
    assert_allclose(family.size, 4, rtol=0.1)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("mean", [[0.0], [-1.0, 2.0], [np.inf], [np.nan], []])
def test_a_mean_that_is_none(name, mean):
    with pytest.raises(ValueError, match=r"mean=.*; expected positive, finite numbers, one per"):
        get_family(name, mean=mean)


@pytest.mark.parametrize("mean", [1e-3, 1.0, 1e3, 1e6])
def test_large_size_is_the_poisson_limit(mean):
    family = get_family("negative-binomial")
    eta = family.natural(torch.tensor([[[np.log(mean), 4.8]]], dtype=torch.float64))
    poisson = stats.poisson(mean)
    y = poisson.ppf([0.001, 0.5, 0.999])
    log_p = family.log_prob(eta, torch.from_numpy(y)[:, None])[:, 0]
    assert_allclose(log_p, poisson.logpmf(y), atol=1e-5)
    components = family.components(eta.unsqueeze(0))
    assert_allclose([components.mean(), components.var()], np.full((2, 1, 1, 1), mean), rtol=1e-5)


@pytest.mark.parametrize("y", [0.0, 3.0, 1e7])
def test_gradients_of_a_negative_binomial_are_finite_far_away(y):
    family = get_family("negative-binomial")
    raw = torch.tensor([[[-300.0, 20.0]], [[300.0, -20.0]], [[0.0, 0.0]]], requires_grad=True)
    family.log_prob(family.natural(raw), torch.full((3, 1), y)).sum().backward()
    assert raw.grad.isfinite().all()


def test_logarithms_of_far_masses_are_there():
    counts = PredictiveDistribution("nbinom", {"n": [[4.0]], "p": [[0.5]]})
    assert_allclose(counts.logpdf([2000.0]), stats.nbinom(4, 0.5).logpmf(2000.0))


@pytest.mark.parametrize(("mean", "size"), [(1e3, 5.0), (1e5, 1e5), (1e5, 3.0)])
def test_score_of_wide_counts_is_the_sum_over_all(mean, size, monkeypatch):
    rng = np.random.default_rng(0)
    mu = mean * np.exp(0.3 * rng.normal(size=(5, 3)))
    dist = PredictiveDistribution("nbinom", {"n": np.full(mu.shape, size), "p": size / (size + mu)})
    y = dist.rvs(random_state=0)
    quick = crps(y, dist)
    # A row's score does not depend on the others, narrow or wide.
    small = PredictiveDistribution("nbinom", {"n": np.ones((1, 3)), "p": np.full((1, 3), 0.5)})
    both = PredictiveDistribution.concatenate([dist, small]).crps(np.append(y, 2.0))
    assert_array_equal(both, np.append(dist.crps(y), small.crps([2.0])))
    monkeypatch.setitem(scores._MOST_ATOMS, True, 2**22)
    assert_allclose(quick, crps(y, dist), rtol=3e-4)


@pytest.mark.parametrize("name", COUNTS)
def test_tables_of_different_means_are_fitted_together_as_alone(name):
    X, y, _ = log_linear(5.0, 60)
    tables = [(X[:60], y[:60]), (X[60:], 100 * y[60:])]
    settings = {"family": name, "method": "probmix", "n_members": 2, "max_epochs": 3}
    alone = [ProbMixupRegressor(**settings, random_state=i).fit(*t) for i, t in enumerate(tables)]
    fitted = fit_together(
        [ProbMixupRegressor(**settings, random_state=i) for i in range(2)], tables
    )
    for one, other in zip(alone, fitted, strict=True):
        assert one.family_ == other.family_
        assert_array_equal(one.predict(X), other.predict(X))


@pytest.mark.parametrize("name", COUNTS)
def test_training_goes_on_with_the_mean_of_the_first_fit(name, tmp_path):
    X, y, _ = log_linear(50.0, 60)
    est = ProbMixupRegressor(family=name, method="erm", max_epochs=2, random_state=0).fit(X, y)
    family = est.family_
    save_model(est, tmp_path / "counts")
    loaded = load_model(tmp_path / "counts")
    assert loaded.family_ == family
    assert_array_equal(est.predict(X), loaded.predict(X))
    for model in (est, loaded):
        model.partial_fit(X, 3 * y)
        assert model.family_ == family


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ({"family": "negative-binomial", "mean": [3.0]}, "family_: found NegativeB.*Poisson"),
        ({"family": "gamma"}, r"family_: found Gamma\(\); expected Poisson.* as fitted"),
        ({"family": "poisson", "mean": [3.0, 4.0]}, "outputs of family_: found .*2.*expected 1"),
        ({"family": "poisson", "mean": [-1.0]}, "mean=.*; expected positive"),
        ({"family": "poisson", "mean": ["x"]}, "could not convert"),
    ],
)
def test_a_settled_family_that_does_not_fit_is_refused(family, message, tmp_path):
    X, y, _ = log_linear(5.0, 30)
    est = ProbMixupRegressor(family="poisson", method="erm", max_epochs=1).fit(X, y)
    save_model(est, tmp_path / "counts")
    parts = opened(tmp_path / "counts")
    parts.document["fitted"]["family_"] = {"$family": family}
    store(parts.tensors, parts.document, tmp_path / "changed")
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "changed")
