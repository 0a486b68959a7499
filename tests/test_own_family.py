"""A family of one's own whose density scipy.stats does not have: a Normal of two halves."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV

from sklearn_probmix import Family, Kind, ProbMixupRegressor, load_model, save_model
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.families import Normal
from sklearn_probmix.metrics import crps

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
# Those that are no doctests.
BLOCK = re.compile(r"^```python\n((?!>>>).*?)^```", re.MULTILINE | re.DOTALL)
FAMILY, USE = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
NAMES = {"__name__": __name__}
exec(FAMILY, NAMES)
TwoPieceNormal = NAMES["TwoPieceNormal"]


def test_it_takes_no_more_than_35_lines():
    assert len([line for line in FAMILY.splitlines() if line]) <= 35


def test_the_page_fits_saves_and_loads(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = table
    names = NAMES | {"X": X, "y": y}
    exec(USE, names)
    assert_array_equal(names["loaded"].predict(X), names["est"].predict(X))


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    # Gumbel noise has a long right tail.
    return X, X[:, 0] + rng.gumbel(scale=0.5, size=200)


@pytest.fixture(scope="module")
def est(table):
    return ProbMixupRegressor(
        method="probmix",
        family=TwoPieceNormal(),
        calibration="off",
        n_members=3,
        hidden_layer_sizes=(16,),
        max_epochs=60,
        random_state=0,
    ).fit(*table)


def test_components_are_consistent(table, est):
    dist = est.predict_proba(table[0][:5])
    assert (dist.name, dist.shape, dist.n_components) == ("two-piece-normal", (5,), 3)
    q = np.array([0.01, 0.3, 0.5, 0.77, 0.99])
    x = dist.ppf(q)
    assert_allclose(dist.cdf(x), np.tile(q[:, None], 5), atol=1e-10)
    assert_allclose(dist.sf(x), 1 - dist.cdf(x), atol=1e-15)


@pytest.mark.parametrize("row", range(3))
def test_moments_and_scores_are_integrals(table, est, row):
    one = est.predict_proba(table[0])[row]
    breaks = np.r_[one.ppf(1e-9), np.sort(one.params["mode"][0]), one.ppf(1 - 1e-9)]

    def integral(function):
        return integrate.quad(function, breaks[0], breaks[-1], points=breaks[1:-1])[0]

    mean = integral(lambda t: t * one.pdf([t])[0])
    assert_allclose(mean, one.mean()[0], rtol=1e-5, atol=1e-6)
    second = integral(lambda t: (t - mean) ** 2 * one.pdf([t])[0])
    assert_allclose(second, one.var()[0], rtol=1e-5)
    for y in (-0.5, 0.4):
        below = integrate.quad(lambda t: one.cdf([t])[0] ** 2, breaks[0] - 2, y)[0]
        above = integrate.quad(lambda t: one.sf([t])[0] ** 2, y, breaks[-1] + 2)[0]
        assert_allclose(one.crps([y]), below + above, rtol=1e-5)


def test_samples_follow_the_components(table, est):
    one = est.predict_proba(table[0][:1])
    draws = one.rvs(5000, random_state=0)[:, 0]
    assert stats.kstest(draws, lambda x: one.cdf(x[:, None])[:, 0]).pvalue > 1e-3


def test_estimator_learns_the_skewness(table, est):
    X, y = table
    dist = est.predict_proba(X)
    assert np.median(dist.params["right"] / dist.params["left"]) > 1.2
    assert crps(y, dist) < 0.75 * crps(y, stats.norm(y.mean(), y.std()))
    assert_allclose(est.predict(X), dist.mean())
    assert est.calibration_ is None
    assert est.oof_scores_["crps"] == pytest.approx(crps(y, est.oof_predictive_))


def test_it_mixes_with_what_scipy_has(table, est):
    dist = est.predict_proba(table[0][:3])
    normal = PredictiveDistribution("norm", {"loc": np.zeros((3, 1)), "scale": np.ones((3, 1))})
    both = PredictiveDistribution.mix([dist, normal], [0.25, 0.75])
    assert both.name == "two-piece-normal + norm"
    y = np.array([-1.0, 0.2, 2.0])
    assert_allclose(both.pdf(y), 0.25 * dist.pdf(y) + 0.75 * normal.pdf(y), rtol=1e-12)
    assert_allclose(both.cdf(both.ppf([0.2, 0.9])), [[0.2] * 3, [0.9] * 3], atol=1e-10)


def test_a_kind_may_have_one_that_holds_lists_and_arrays(table):
    class Listing(TwoPieceNormal):
        def __init__(self):
            self.powers, self.grid = [1, 2], np.arange(3.0)

    method = Kind(family=Listing(), hidden_layer_sizes=(4,))
    est = ProbMixupRegressor(method=[method, "erm"], n_members=2, max_epochs=1, random_state=0)
    assert est.fit(*table).weights_.shape == (2,)
    # A clone has a family for each kind, of arrays of its own.
    est.set_params(method=[method, method.updated(method="probmix")], warm_start=True)
    again = clone(est).fit(*table)
    assert list(again.responses_) == [Listing()]
    again.set_params(method=clone(est).method).fit(*table)
    other = Listing()
    other.grid = np.arange(2.0)
    assert other != Listing() != TwoPieceNormal()
    other.grid = np.arange(3.0) / 2
    assert other != Listing()


def test_a_kind_may_have_one_that_is_an_estimator(table):
    class Tunable(BaseEstimator, Normal):
        def __init__(self, variance_floor=1e-4):
            Normal.__init__(self, variance_floor)

    method = Kind(family=Tunable(), hidden_layer_sizes=(4,))
    assert method == clone(method).set_params(family__variance_floor=1e-4)
    assert method != clone(method).set_params(family__variance_floor=1e-3)
    est = ProbMixupRegressor(method=method, n_members=2, max_epochs=1, random_state=0)
    search = GridSearchCV(est, {"method__family__variance_floor": [0.5]}, cv=2).fit(*table)
    assert search.best_estimator_.responses_.keys() == {Tunable(0.5)}


def test_saved_and_loaded(table, est, tmp_path):
    save_model(est, tmp_path / "model")
    loaded = load_model(tmp_path / "model", family=TwoPieceNormal())
    assert_array_equal(
        loaded.predict_proba(table[0]).ppf(0.3), est.predict_proba(table[0]).ppf(0.3)
    )
    assert_array_equal(loaded.oof_predictive_.mean(), est.oof_predictive_.mean())


def test_calibration_of_a_family_without_one_is_refused(table):
    for family in (TwoPieceNormal(), "gamma"):
        with pytest.raises(ValueError, match="calibration='on'.*expected 'auto' or 'off'"):
            ProbMixupRegressor(family=family, calibration="on").fit(table[0], np.exp(table[1]))


def test_a_family_without_a_prediction_says_so(table):
    class Unfinished(Family):
        natural = TwoPieceNormal.natural
        log_prob = TwoPieceNormal.log_prob
        n_params = 3

    with pytest.raises(NotImplementedError, match="Unfinished has no scipy_name"):
        Unfinished().components(torch.zeros(2, 1, 1, 3))
