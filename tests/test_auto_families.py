"""Kinds of several families in one mixture: who is asked, who judges, and what is delivered."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import clone
from skorch.callbacks import Callback

from sklearn_probmix import (
    Kind,
    ProbMixupClassifier,
    ProbMixupRegressor,
    fit_together,
    load_model,
    save_model,
)
from sklearn_probmix.nets import natural_parameters
from sklearn_probmix.race import Entrant, race
from sklearn_probmix.traits import cell_width, grid_of_values, likely_families, responses_apart

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 2))
MEAN = np.exp(0.5 * X[:, 0])
NORMAL = X[:, 0] + 0.3 * RNG.normal(size=150)
SMALL = {"n_members": 2, "random_state": 0}


def everywhere(values, n_rows):
    return np.broadcast_to(values[:, None], (len(values), n_rows))


def small_kind(family=None, **parameters):
    sizes = {"hidden_layer_sizes": (8,), "lr": 0.02, "max_epochs": 30, "batch_size": 64}
    return Kind(**(sizes | parameters), family=family)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (RNG.normal(size=500), {"histogram"}),
        (RNG.gamma(1.0, size=500), {"histogram", "transformed"}),
        (-RNG.gamma(1.0, size=500), {"histogram", "transformed"}),
        (RNG.uniform(0.1, 0.9, size=500), {"histogram", "beta"}),
        (RNG.poisson(3, size=500), {"lattice", "poisson", "negative-binomial"}),
        (RNG.poisson(9e4, size=500), {"histogram", "poisson", "negative-binomial"}),
        (np.where(RNG.random(500) < 0.3, 0, RNG.uniform(1, 2, 500)), {"histogram", "hurdle"}),
        (RNG.integers(0, 2, size=500), set()),
        (np.ones(500), set()),
        (np.repeat([-1.5, 0.0, 2.0], 30), {"lattice"}),
    ],
)
def test_families_that_responses_look_like(y, expected):
    assert likely_families(np.asarray(y, dtype=float)) == expected


HEAVY = stats.t(3).rvs(2000, random_state=0)
SKEWED = stats.lognorm(1.5).rvs(2000, random_state=0)


class TestResponsesApart:
    @pytest.mark.parametrize("values", [[9999.0], [50.0, -60.0], [1e300]])
    def test_few_that_are_far_away(self, values):
        y = RNG.normal(size=(500, 1))
        y[: len(values), 0] = values
        assert_array_equal(responses_apart(y), np.arange(len(values)))

    @pytest.mark.parametrize(
        "y",
        [
            RNG.normal(size=500),
            HEAVY,
            SKEWED,
            np.where(RNG.random(500) < 0.6, 0, RNG.uniform(1, 9, 500)),
            np.r_[RNG.normal(size=480), np.full(20, 1000.0)],
            [0.0] * 10 + [1e6],
            np.ones(30),
        ],
        ids=["normal", "heavy", "skewed", "mostly equal", "more than few", "few rows", "constant"],
    )
    def test_none(self, y):
        assert len(responses_apart(np.asarray(y)[:, None])) == 0

    def test_of_any_output(self):
        y = RNG.normal(size=(200, 2))
        y[5, 0], y[9, 1] = 400, -400
        assert_array_equal(responses_apart(y), [5, 9])

    def test_a_fit_leaves_them_out_and_says_so(self):
        y = NORMAL.copy()
        y[7] = 9999
        with pytest.warns(UserWarning, match="1 of 150 values far .* row 7: 9999.0. .* family="):
            est = ProbMixupRegressor(**SMALL, hidden_layer_sizes=(8,)).fit(X, y)
        weight = np.ones(150)
        weight[7] = 0
        # All others are in the range of NORMAL.
        without = ProbMixupRegressor(**SMALL, hidden_layer_sizes=(8,)).fit(X, NORMAL, weight)
        assert_array_equal(est.predict(X), without.predict(X))

    def test_rows_of_no_weight_are_not_looked_at(self):
        weight, y = np.ones(150), NORMAL.copy()
        weight[3], y[3], y[7] = 0, 1e6, 9999
        quick = ProbMixupRegressor(**SMALL, hidden_layer_sizes=(8,), max_epochs=1)
        with pytest.warns(UserWarning, match="1 of 149 values far .* row 7: 9999.0"):
            est = clone(quick).fit(X, y, weight)
        kept = weight > 0
        with pytest.warns(UserWarning, match="1 of 149 values far .* row 6: 9999.0"):
            without = clone(quick).fit(X[kept], y[kept])
        assert_array_equal(est.predict(X), without.predict(X))
        y[7] = 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quick.fit(X, y, weight)

    def test_a_family_by_name_keeps_them(self):
        y = NORMAL.copy()
        y[7] = 9999
        est = ProbMixupRegressor(method=small_kind(), family="normal", **SMALL).fit(X, y)
        assert est.predict(X).max() > 9


def test_a_grid_has_unseen_values_too():
    y = np.repeat([0.5, 1.0, 2.5], 20)
    assert_allclose(grid_of_values(y), np.arange(0, 4.6, 0.5)[: len(grid_of_values(y))])
    assert {0.5, 1.0, 1.5, 2.0, 2.5} <= {*grid_of_values(y)}
    assert grid_of_values(y - 3).min() < (y - 3).min()
    inexact = np.arange(0, 1, 0.1)
    assert 0.3 not in inexact
    grid = grid_of_values(np.repeat(inexact, 20))
    assert_allclose(grid, np.arange(19) / 10, atol=1e-15)
    assert {*inexact} <= {*grid}
    assert_array_equal(grid_of_values(np.repeat([0.1, 1 / 3, 0.9], 20)), [0.1, 1 / 3, 0.9])
    assert grid_of_values(RNG.normal(size=100)) is None


def test_cells_are_steps_or_the_median_gap():
    assert cell_width(np.array([0.0, 2.0, 6.0])) == 2
    y = np.array([0.1, 0.1, 0.2, 0.2 + 1 / 3, 2.0])
    assert_allclose(cell_width(y), np.median(np.diff(np.unique(y))))
    assert cell_width(np.ones(3)) == 1
    assert cell_width(np.array([1e9, 1e9 + 1e-6, 1e9 + 2e-6])) > 1e-7


def test_kinds_of_two_families_are_one_mixture(tmp_path):
    y = MEAN * RNG.gamma(4.0, size=150) / 4
    kinds = [small_kind("gamma"), small_kind("lognormal"), small_kind()]
    est = ProbMixupRegressor(method=kinds, calibration="off", **SMALL).fit(X, y)
    assert [kind.family for kind in est.kinds_] == ["gamma", "lognormal", None]
    assert est.responses_.keys() == {"gamma", "lognormal"}
    dist, expected = est.predict_proba(X), 0
    for weight, kind, net in zip(est.weights_, est.kinds_, est.nets_, strict=True):
        response = est._response(kind)
        eta, _ = natural_parameters(net, est._table(X, y, None).X)
        expected = expected + weight * response.components(eta).density(y[:, None, None]).mean(
            (1, 2)
        )
    assert_allclose(dist.pdf(y), expected, rtol=1e-6)
    save_model(est, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert_array_equal(loaded.predict_proba(X).pdf(y), dist.pdf(y))
    assert loaded.kinds_ == est.kinds_
    est.set_params(warm_start=True, method=[kind.updated(max_epochs=1) for kind in kinds])
    assert len(est.fit(X, y).kinds_) == 3
    with pytest.raises(ValueError, match="outside the support of Gamma"):
        ProbMixupRegressor(method=kinds, **SMALL).fit(X, y - 1)


def test_kinds_are_weighed_by_the_probability_of_cells():
    """A density and masses: each by what it gives to the cell of one step around y."""
    y = RNG.poisson(MEAN * 3).astype(float)
    kinds = [small_kind("poisson"), small_kind()]
    est = ProbMixupRegressor(method=kinds, validation=0.5, calibration="off", **SMALL).fit(X, y)
    eta = [natural_parameters(net, est._table(X, y, None).X)[0].double() for net in est.nets_]
    poisson = est._response(est.kinds_[0]).components(eta[0])
    normal = est._response(est.kinds_[1]).components(eta[1])
    scale = normal.params["scale"][..., 0]
    law = stats.norm(normal.params["loc"][..., 0], scale)
    cells = law.cdf(y[:, None] + 0.5) - law.cdf(y[:, None] - 0.5)
    held = est._held_out
    masses = stats.poisson.pmf(y[:, None], poisson.params["mu"][..., 0])
    for mixture, response, expected in (
        (eta[0], est._response(est.kinds_[0]), masses),
        (eta[1], est._response(est.kinds_[1]), cells),
    ):
        table = est._table(X, y, None)
        net = est.nets_[0] if response.family.is_count else est.nets_[1]
        found = est._log_scores(response, natural_parameters(net, table.X), table.y)
        assert_allclose(found, np.log(expected.mean(1)), rtol=1e-5, atol=1e-6)
        assert mixture.shape[1] == 2
    assert held is not None


AUTO = (
    small_kind(lr_schedule="averaged"),
    small_kind("histogram", lr_schedule="averaged"),
    small_kind("lattice", lr_schedule="averaged"),
    small_kind("negative-binomial", lr_schedule="averaged"),
    small_kind("hurdle", lr_schedule="averaged"),
)


@pytest.fixture
def few_kinds(monkeypatch):
    monkeypatch.setattr(ProbMixupRegressor, "_auto_kinds", AUTO)


def test_a_y_of_few_values_is_predicted_by_masses_on_its_grid(few_kinds, tmp_path):
    y = np.clip(np.rint(2 * X[:, 0]), -2, 2)
    est = ProbMixupRegressor(**SMALL).fit(X, y)
    assert_array_equal(est.values_, np.arange(-6, 7))
    dist = est.predict_proba(X[:9])
    assert dist.is_discrete
    masses = dist.pmf(everywhere(est.values_, 9))
    assert_allclose(masses.sum(0), 1)
    assert_allclose(dist.mean(), est.values_ @ masses)
    assert est.oof_predictive_.is_discrete
    save_model(est, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert_array_equal(loaded.predict_proba(X[:9]).pmf(everywhere(est.values_, 9)), masses)
    normal = ProbMixupRegressor(family="normal", **SMALL).fit(X, y)
    assert normal.values_ is None
    assert not normal.predict_proba(X).is_discrete


def test_one_column_of_y_is_predicted_alike_with_and_without_an_axis(few_kinds):
    y = np.clip(np.rint(2 * X[:, 0]), -2, 2)
    flat, column = (ProbMixupRegressor(**SMALL).fit(X, own) for own in (y, y[:, None]))
    assert column.predict_proba(X).shape == (150, 1)
    assert column.predict_proba(X).is_discrete
    assert_allclose(column.predict(X)[:, 0], flat.predict(X), rtol=1e-6, atol=1e-9)


def test_masses_are_those_of_the_cells(few_kinds):
    y = np.clip(np.rint(2 * X[:, 0]), -2, 2)
    est = ProbMixupRegressor(**SMALL).fit(X, y)
    # As many rows as values of y, which must not be taken for one another.
    values, est.values_ = est.values_, None
    parts = est._predictive(est._mixtures(X[:5]))
    est.values_ = values
    found = est.predict_proba(X[:5]).pmf(everywhere(values, 5))
    inside = everywhere(values[1:-1], 5)
    inner = parts.cdf(inside + 0.5) - parts.cdf(inside - 0.5)
    assert_allclose(found[1:-1], inner, atol=1e-9)
    assert_allclose(found[0], parts.cdf(values[0] + 0.5), atol=1e-9)


def test_large_counts_are_counts_or_densities_but_not_both(few_kinds):
    y = RNG.poisson(MEAN * 400).astype(float)
    est = ProbMixupRegressor(**SMALL).fit(X, y)
    families = {kind.family for kind in est.kinds_}
    assert families in ({"negative-binomial"}, families - {"negative-binomial"})
    assert est.predict_proba(X).is_discrete == (families == {"negative-binomial"})


def test_a_heap_of_zeros_gets_its_mass(few_kinds):
    y = np.where(X[:, 1] + 0.5 * RNG.normal(size=150) > 0, MEAN * RNG.gamma(9.0, size=150), 0)
    est = ProbMixupRegressor(**SMALL).fit(X, y)
    assert "hurdle" in {kind.family for kind in est.kinds_}
    zero = est.predict_proba(X).cdf(0.0)
    assert np.corrcoef(zero, y == 0)[0, 1] > 0.5


@pytest.mark.parametrize(
    "parameters",
    [
        {"weighting": "uniform"},
        {"validation": None},
        {"family": "normal"},
        {"method": "erm", "max_epochs": 2},
    ],
)
def test_other_families_run_only_where_they_are_judged(few_kinds, parameters):
    est = ProbMixupRegressor(**(SMALL | parameters)).fit(X, MEAN)
    assert {kind.family for kind in est.kinds_} == {None}
    assert est.responses_ == {}


def test_two_outputs_and_fits_side_by_side_have_normals(few_kinds):
    est = ProbMixupRegressor(**SMALL).fit(X, np.stack([MEAN, NORMAL], axis=1))
    assert {kind.family for kind in est.kinds_} == {None}
    estimators = [ProbMixupRegressor(**SMALL) for _ in range(2)]
    fitted = fit_together(estimators, [(X, NORMAL), (X, NORMAL)])
    assert {kind.family for est in fitted for kind in est.kinds_} == {None}


def test_kinds_of_a_classifier_have_no_family_of_their_own():
    est = ProbMixupClassifier(**SMALL).fit(X, NORMAL > 0)
    assert {kind.family for kind in est.kinds_} == {None}


class Fail(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("a callback's own")


def test_a_failed_fit_leaves_the_responses_of_families(few_kinds):
    est = ProbMixupRegressor(**SMALL).fit(X, NORMAL)
    before = est.responses_, est.predict_proba(X).pdf(NORMAL)
    with pytest.raises(RuntimeError, match="a callback's own"):
        est.set_params(callbacks=[Fail()]).fit(X, 3 * NORMAL)
    assert est.responses_ is before[0]
    assert_array_equal(est.predict_proba(X).pdf(NORMAL), before[1])


@pytest.mark.parametrize(("mass", "delivered"), [(3.0, [True, False]), (-3.0, [False, True])])
def test_a_race_delivers_masses_or_densities(mass, delivered):
    est = ProbMixupRegressor(family="normal", **SMALL)
    rows = est._prepare(X, NORMAL)
    division = est._divide(rows, np.random.RandomState(0))
    kinds = [small_kind(max_epochs=2).sized(120)] * 2
    entrants = [
        entrant._replace(has_masses=not place)
        for place, entrant in enumerate(est._entrants(kinds, rows.table, np.random.RandomState(0)))
    ]
    assert isinstance(entrants[0], Entrant)
    # Both have a weight.
    scores = mass * np.where(np.arange(150) % 3, 1.0, -0.5)
    judges = [lambda net: scores, lambda net: np.zeros(150)]
    outcomes = race(entrants, division, judges, np.ones(150))
    assert [new is not None for new in outcomes] == delivered
