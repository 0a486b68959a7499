"""Stacked distributions: weights, forecasts of other libraries, and scikit-learn's contract."""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from one_network import ONE_NETWORK
from scipy import optimize, special, stats
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.datasets import load_iris, make_classification, make_friedman1
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import BayesianRidge, LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_probmix import (
    DistributionStackingClassifier,
    DistributionStackingRegressor,
    PredictiveDistribution,
    ProbMixupClassifier,
    ProbMixupRegressor,
    neg_crps_scorer,
    save_model,
)
from sklearn_probmix.forecasts import (
    ADAPTERS,
    Cells,
    Quantiles,
    complete,
    concatenate,
    forecast,
    log_scores,
    normals,
)

EXPECTED_FAILURES = {
    "check_regressors_no_decision_function": (
        "scikit-learn forbids predict_proba on regressors, and predictive distributions are what "
        "this one is for"
    ),
    "check_sample_weight_equivalence_on_dense_data": (
        "rows are held out: a row of weight 2 is not that row twice, which may train on itself"
    ),
}
_NETS = {"n_members": 3, "method": "erm", "hidden_layer_sizes": (8,), "max_epochs": 4}


@pytest.fixture(scope="module")
def table():
    return make_friedman1(120, n_features=5, noise=1.0, random_state=0)


@pytest.fixture(scope="module")
def classes():
    X, y = make_classification(120, 4, n_informative=3, n_redundant=0, n_classes=3, random_state=0)
    return X, np.array(["a", "b", "c"])[y]


def regressors(**more):
    return [
        ("ridge", BayesianRidge()),
        ("tree", DecisionTreeRegressor(max_depth=3, random_state=0)),
        *more.items(),
    ]


def stacker(**more):
    return DistributionStackingRegressor(regressors(**more), cv=3, random_state=0)


def classifiers(**more):
    return [("linear", LogisticRegression()), ("bayes", GaussianNB()), *more.items()]


@parametrize_with_checks(
    [
        DistributionStackingRegressor(
            [("ridge", Ridge()), ("boost", HistGradientBoostingRegressor(max_iter=10))],
            cv=3,
            random_state=0,
        ),
        DistributionStackingClassifier(classifiers(), cv=3, random_state=0),
    ],
    expected_failed_checks=lambda estimator: {
        name: reason
        for name, reason in EXPECTED_FAILURES.items()
        if isinstance(estimator, RegressorMixin) or "weight" in name
    },
)
def test_check_estimator(estimator, check):
    check(estimator)


def best_on_simplex(log_p, weight=None, prior=1.0):
    """Find the weights that maximise the log score by SLSQP, from several places."""
    weight = np.ones(len(log_p)) if weight is None else weight / weight.mean()

    def loss(w):
        mixed = special.logsumexp(log_p, axis=1, b=w)
        return -(weight * mixed).sum() - prior * np.log(w).sum()

    n = log_p.shape[1]
    found = optimize.minimize(
        loss,
        np.full(n, 1 / n),
        bounds=[(1e-9, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert found.success
    return found.x


class TestWeights:
    def test_they_maximise_the_log_score_of_rows_held_out(self, table):
        X, y = table
        members = regressors(mean=DummyRegressor(), linear=BayesianRidge(fit_intercept=False))
        # A tree has points; the others have Normals, which this test makes itself.
        members = [(name, est) for name, est in members if hasattr(est, "alpha_init")]
        cv = KFold(3, shuffle=True, random_state=1)
        est = DistributionStackingRegressor(members, cv=cv).fit(X, y)
        log_p = []
        for _, member in members:
            own = np.empty(len(y))
            for train, test in cv.split(X):
                fitted = clone(member).fit(X[train], y[train])
                own[test] = stats.norm(*fitted.predict(X[test], return_std=True)).logpdf(y[test])
            log_p.append(own)
        log_p = np.stack(log_p, axis=1)
        assert est.width_ == 0
        assert_allclose(list(est.member_scores_.values()), log_p.mean(axis=0), rtol=1e-9)
        assert_allclose(est.weights_, best_on_simplex(log_p), atol=1e-4)
        mixed = special.logsumexp(log_p, axis=1, b=est.weights_)
        assert_allclose(est.oof_predictive_.logpdf(y), mixed, rtol=1e-9)
        assert_allclose(est.oof_scores_["nll"], -mixed.mean(), rtol=1e-9)

    def test_with_weights_of_rows(self, table):
        X, y = table
        weight = np.random.default_rng(0).uniform(0.1, 3, len(y))
        members = [("ridge", BayesianRidge()), ("flat", BayesianRidge(lambda_init=1e6, max_iter=1))]
        cv = KFold(4)
        est = DistributionStackingRegressor(members, cv=cv).fit(X, y, weight)
        log_p = np.empty((len(y), 2))
        for k, (_, member) in enumerate(members):
            for train, test in cv.split(X):
                fitted = clone(member).fit(X[train], y[train], weight[train])
                normal = stats.norm(*fitted.predict(X[test], return_std=True))
                log_p[test, k] = normal.logpdf(y[test])
        assert_allclose(est.weights_, best_on_simplex(log_p, weight), atol=1e-4)

    def test_rounded_responses_are_scored_by_their_cells(self, table):
        X, y = table
        y = np.rint(y * 2) / 2
        members = [("ridge", BayesianRidge()), ("flat", BayesianRidge(lambda_init=1e6, max_iter=1))]
        cv = KFold(3)
        est = DistributionStackingRegressor(members, cv=cv).fit(X, y)
        log_p = np.empty((len(y), 2))
        for k, (_, member) in enumerate(members):
            for train, test in cv.split(X):
                mean, sd = clone(member).fit(X[train], y[train]).predict(X[test], return_std=True)
                z = (y[test] - mean) / sd
                log_p[test, k] = np.log(
                    stats.norm.cdf(z + 0.25 / sd) - stats.norm.cdf(z - 0.25 / sd)
                )
        assert est.width_ == 0.5
        assert_allclose(list(est.member_scores_.values()), log_p.mean(axis=0), rtol=1e-6)
        assert_allclose(est.weights_, best_on_simplex(log_p), atol=1e-4)

    def test_of_classes(self, classes):
        X, y = classes
        cv = KFold(3, shuffle=True, random_state=0)
        est = DistributionStackingClassifier(classifiers(), cv=cv).fit(X, y)
        codes = np.searchsorted(["a", "b", "c"], y)
        p = [cross_val_predict(m, X, y, cv=cv, method="predict_proba") for _, m in classifiers()]
        log_p = np.log(np.stack([own[np.arange(len(y)), codes] for own in p], axis=1))
        assert_allclose(est.weights_, best_on_simplex(log_p), atol=1e-4)
        mixed = np.tensordot(est.weights_, p, axes=1)
        assert_allclose(est.oof_predictive_, mixed, rtol=1e-9)
        assert_allclose(est.oof_scores_["nll"], log_loss(y, mixed), rtol=1e-9)
        assert_allclose(
            est.predict_proba(X),
            np.tensordot(est.weights_, [m.predict_proba(X) for m in est.estimators_], axes=1),
        )

    def test_a_mixture_is_the_log_sum_of_its_members(self, table):
        X, y = table
        est = stacker().fit(X, y)
        ridge = stats.norm(*est.estimators_[0].predict(X, return_std=True))
        log_p = [ridge.logpdf(y)]
        alone = DistributionStackingRegressor([regressors()[1]], cv=3, random_state=0).fit(X, y)
        log_p.append(alone.predict_proba(X).logpdf(y))
        expected = special.logsumexp(np.stack(log_p, axis=1), axis=1, b=est.weights_)
        assert_allclose(est.predict_proba(X).logpdf(y), expected, rtol=1e-9)

    def test_a_mixture_does_better_than_its_members_alone(self, table):
        est = stacker().fit(*table)
        assert -est.oof_scores_["nll"] > max(est.member_scores_.values())
        assert_allclose(est.weights_.sum(), 1)

    def test_a_member_of_probability_0_at_some_rows(self, classes):
        X, y = classes
        tree = DecisionTreeClassifier(random_state=0)
        est = DistributionStackingClassifier(classifiers(tree=tree), cv=3, random_state=0).fit(X, y)
        assert est.member_scores_["tree"] == -np.inf
        assert np.isfinite(est.weights_).all()
        assert 0 < est.weights_[2] < 1
        assert np.isfinite(est.oof_scores_["nll"])

    def test_a_density_of_0_at_some_rows(self, table):
        X, y = table
        est = stacker(box=Box()).fit(X, y)
        assert est.member_scores_["box"] == -np.inf
        assert 0 < est.weights_[2] < 1
        assert np.isfinite(est.oof_predictive_.logpdf(y)).all()


class Box(RegressorMixin, BaseEstimator):
    """A uniform distribution that ends before the highest responses."""

    def fit(self, X, y):
        self.low_, self.high_ = np.quantile(y, [0.0, 0.8])
        return self

    def predict(self, X):
        return self.predict_proba(X).mean()

    def predict_proba(self, X):
        loc = np.full((len(X), 1), self.low_)
        return PredictiveDistribution(
            "uniform", {"loc": loc, "scale": np.full_like(loc, self.high_ - self.low_)}
        )


class Counts(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.mu_ = y.mean()
        return self

    def predict(self, X):
        return np.full(len(X), self.mu_)

    def predict_proba(self, X):
        return PredictiveDistribution("poisson", {"mu": np.full((len(X), 1), self.mu_)})


class TestCells:
    def test_masses_are_compared_by_the_gap_of_responses_that_are_not_rounded(self):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(90, 2))
        # No multiples of anything with six decimals.
        y = rng.poisson(3, size=90) * np.sqrt(2)
        est = DistributionStackingRegressor(
            [("counts", Counts()), ("ridge", BayesianRidge())], cv=3, random_state=0
        ).fit(X, y)
        assert_allclose(est.width_, np.sqrt(2))
        assert np.isfinite(est.member_scores_["ridge"])

    def test_counts_and_densities(self):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(300, 2)), rng.poisson(2.0, size=300).astype(float)
        est = DistributionStackingRegressor(
            [("counts", Counts()), ("ridge", BayesianRidge())], cv=KFold(3)
        ).fit(X, y)
        assert est.width_ == 1
        log_p = np.concatenate(
            [stats.poisson(y[train].mean()).logpmf(y[test]) for train, test in KFold(3).split(X)]
        )
        assert_allclose(est.member_scores_["counts"], log_p.mean(), rtol=1e-9)
        assert est.weights_[0] > 0.5

    def test_of_a_constant(self):
        assert_allclose(Cells.of(np.full(4, 5.0), 0.0), (0.0, 5e-6))
        assert Cells.of(np.zeros(4), 0.0) == (0.0, 1e-6)
        assert Cells.of(np.array([0.0, 1.0, 4.0, 4.0]), 0.0) == (0.0, 2.0)


class TestForecasts:
    def test_mean_and_standard_deviation_are_a_normal(self, table):
        X, y = table
        for est in (
            BayesianRidge(),
            GaussianProcessRegressor(RBF() + WhiteKernel(), normalize_y=True),
        ):
            est.fit(X, y)
            mean, sd = est.predict(X, return_std=True)
            assert_allclose(forecast(est, X).ppf(0.8), stats.norm(mean, sd).ppf(0.8))

    def test_no_width_is_made_a_narrow_one(self):
        dist = normals([0.0, 2.0], [0.0, 0.0])
        assert (dist.std() > 0).all()
        assert np.isfinite(dist.logpdf([0.0, 2.0])).all()

    def test_points(self, table):
        X, y = table
        est = Ridge().fit(X, y)
        assert_array_equal(forecast(est, X), est.predict(X))

    def test_inside_of_a_pipeline_and_a_search(self, table):
        X, y = table
        X = X * 100
        pipeline = make_pipeline(StandardScaler(), "passthrough", BayesianRidge()).fit(X, y)
        mean, sd = pipeline.predict(X, return_std=True)
        assert_allclose(forecast(pipeline, X).std(), sd)
        search = GridSearchCV(pipeline, {"bayesianridge__max_iter": [1, 100]}, cv=2).fit(X, y)
        mean, sd = search.best_estimator_.predict(X, return_std=True)
        assert_allclose(forecast(search, X).mean(), mean)
        assert_allclose(forecast(search, X).std(), sd)

    def test_an_adapter_of_ones_own_holds_for_subclasses_too(self, table):
        X, y = table

        class Forest(RandomForestRegressor):
            pass

        package = RandomForestRegressor.__module__.partition(".")[0]
        forest = Forest(n_estimators=5, random_state=0).fit(X, y)
        try:
            ADAPTERS[f"{package}.RandomForestRegressor"] = lambda est, X: normals(
                est.predict(X), np.full(len(X), 2.0)
            )
            assert_array_equal(forecast(forest, X).std(), np.full(len(X), 2.0))
        finally:
            del ADAPTERS[f"{package}.RandomForestRegressor"]
        assert forecast(forest, X).shape == y.shape

    def test_an_adapter_of_ones_own_reaches_other_processes(self, table, monkeypatch):
        X, y = table
        monkeypatch.setitem(
            ADAPTERS, "sklearn.DummyRegressor", lambda est, X: normals(est.predict(X), len(X) * [7])
        )
        members = [("mean", make_pipeline(StandardScaler(), DummyRegressor()))]
        est = DistributionStackingRegressor(members, cv=3, n_jobs=2).fit(X, y)
        assert_allclose(est.oof_predictive_.std(), 7.0)

    def test_predict_proba_of_another_kind(self, table):
        X, y = table

        class Wrong(Ridge):
            def predict_proba(self, X):
                return np.zeros((len(X), 2))

        with pytest.raises(TypeError, match="returns a ndarray; expected a PredictiveDistribution"):
            forecast(Wrong().fit(X, y), X)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (np.full(5, np.nan), "not all finite"),
            (np.zeros((5, 2)), r"shape \(5, 2\)"),
            (np.zeros(3), "are 3; expected one for each of the 5 rows"),
            (0.0, "a single one; expected one for each row"),
        ],
    )
    def test_predictions_that_are_none(self, value, message):
        est = SimpleNamespace(predict=lambda X: value)
        with pytest.raises(ValueError, match=message):
            forecast(est, np.zeros((5, 1)))

    def test_quantiles_in_rows_and_in_columns(self):
        class InColumns:
            def predict(self, X, quantiles=None):
                return stats.norm(X, 1.0).ppf(quantiles)

        class InRows:
            def predict(self, X, quantiles=None):
                return stats.norm(X, 1.0).ppf(quantiles).T

        for n in (1, 7, 100):
            X = np.linspace(0, 5, n)[:, None] * (-1) ** np.arange(n)[:, None]
            for est in (InColumns(), InRows()):
                found = forecast(est, X)
                assert_allclose(found.values, stats.norm(X, 1.0).ppf(found.levels))

    def test_quantiles_that_cross_in_as_many_rows(self):
        class Crossing:
            def predict(self, X, quantiles=None):
                values = stats.norm(X, 1.0).ppf(quantiles)
                values[:, :2] = values[:, 1::-1]
                return values

        X = np.linspace(0, 5, 100)[:, None]
        found = forecast(Crossing(), X)
        assert_allclose(np.sort(found.values), stats.norm(X, 1.0).ppf(found.levels))

    def test_quantiles_of_a_single_row_without_its_axis(self):
        est = SimpleNamespace(predict=lambda X, quantiles: np.array(quantiles))
        found = forecast(est, np.zeros((1, 1)))
        assert_allclose(found.values, [found.levels])


class TestCompletion:
    def test_points_get_the_distribution_of_their_residuals(self):
        rng = np.random.default_rng(0)
        found = rng.normal(size=4096)
        residual = stats.gamma(2.0, scale=3.0)
        y = found + residual.rvs(4096, random_state=rng)
        cells = Cells.of(y, 0.0)
        dist, completion = complete(found, y, np.ones(len(y)), np.arange(len(y)) % 4, cells)
        new = completion(np.array([10.0]))
        levels = [0.1, 0.25, 0.5, 0.75, 0.9]
        assert_allclose(new.ppf(levels)[:, 0] - 10, residual.ppf(levels), rtol=0.06)
        assert_allclose(new.mean() - 10, residual.mean(), rtol=0.05)
        assert_allclose(dist.cdf(y).mean(), 0.5, atol=0.02)

    def test_by_the_weights_of_rows(self):
        rng = np.random.default_rng(0)
        kind = rng.random(2000) < 0.5
        y = np.where(kind, 5.0, -5.0) + rng.normal(size=2000)
        weight = np.where(kind, 3.0, 1.0)
        _, completion = complete(np.zeros(2000), y, weight, np.arange(2000) % 2, Cells.of(y, 0.0))
        assert_allclose(completion(np.zeros(1)).cdf([0.0]), 0.25, atol=0.03)

    def test_a_row_has_no_part_in_its_own_distribution(self):
        rng = np.random.default_rng(0)
        y, fold = rng.normal(size=40), np.arange(40) % 4
        other = np.where(fold == 2, y + 100.0, y)
        one, two = (
            complete(np.zeros(40), each, np.ones(40), fold, Cells.of(y, 0.0))[0]
            for each in (y, other)
        )
        own = fold == 2
        assert_array_equal(one.ppf(0.9)[own], two.ppf(0.9)[own])
        assert (one.ppf(0.99)[~own] < two.ppf(0.99)[~own]).all()

    @pytest.mark.parametrize("is_round", [True, False])
    def test_ties_are_spread_as_the_held_out_rows_like_it(self, is_round):
        rng = np.random.default_rng(0)
        y = rng.normal(0, 20, size=400)
        # Rounded to .01, but of a few values, or of as many as there are rows.
        values = rng.choice([0.0, 30.0, 100.0], size=400)
        y = values if is_round else np.rint(y * 100) / 100
        levels = (np.arange(50) + 0.5) / 50
        values = np.quantile(y[:20], levels, method="inverted_cdf")
        found = Quantiles(levels, np.broadcast_to(values, (400, 50)))
        cells = Cells.of(y, 10.0 if is_round else 0.01)
        dist, completion = complete(found, y, np.ones(400), np.arange(400) % 2, cells)
        assert completion.width == (10.0 if is_round else np.inf)
        assert np.isfinite(log_scores(dist, y, cells.step)).all()


class TestConcatenate:
    def test_other_families_and_numbers_of_components(self):
        rng = np.random.default_rng(0)

        def normal(n, k):
            loc, scale = rng.normal(size=(n, k)), rng.uniform(0.5, 2, size=(n, k))
            return PredictiveDistribution(
                "norm", {"loc": loc, "scale": scale}, weights=rng.dirichlet(np.ones(k), n)
            )

        def counts(n, k):
            return PredictiveDistribution("poisson", {"mu": rng.uniform(1, 5, size=(n, k))})

        parts = [
            normal(3, 2),
            PredictiveDistribution.mix([counts(4, 1), normal(4, 3)], [0.2, 0.8]),
            PredictiveDistribution.mix([normal(2, 1), counts(2, 2)], [0.6, 0.4]),
        ]
        joined = concatenate(parts)
        assert len(joined) == 9
        for method in ("mean", "var"):
            expected = np.concatenate([getattr(part, method)() for part in parts])
            assert_allclose(getattr(joined, method)(), expected)
        y = rng.integers(0, 4, size=9).astype(float)
        expected = [part.cdf(own) for part, own in zip(parts, np.split(y, [3, 7]), strict=True)]
        assert_allclose(joined.cdf(y), np.concatenate(expected))
        assert_allclose(joined.ppf(0.7), np.concatenate([part.ppf(0.7) for part in parts]))

    def test_of_several_kinds(self):
        with pytest.raises(TypeError, match="of the types"):
            concatenate([np.zeros(2), normals([0.0], [1.0])])


class TestOwnFolds:
    def test_a_net_with_folds_is_fitted_once(self, table):
        X, y = table
        nets = ProbMixupRegressor(**_NETS, random_state=0)
        est = DistributionStackingRegressor([("nets", nets)], random_state=0).fit(X, y)
        alone = clone(nets).fit(X, y)
        assert_array_equal(est.oof_predictive_.mean(), alone.oof_predictive_.mean())
        assert_array_equal(est.predict(X), alone.predict(X))
        assert_allclose(est.oof_scores_["nll"], alone.oof_scores_["nll"], rtol=1e-9)

    def test_rows_of_no_weight_are_missing(self, table):
        X, y = table
        weight = np.where(np.arange(len(y)) % 4 == 0, 0.0, 1.0)
        nets = ProbMixupRegressor(**_NETS, random_state=0)
        members = [("nets", nets), ("ridge", BayesianRidge())]
        est = DistributionStackingRegressor(members, cv=3, random_state=0).fit(X, y, weight)
        rows = np.flatnonzero(weight)
        assert_array_equal(est.oof_rows_, rows)
        without = clone(est).fit(X[rows], y[rows], weight[rows])
        assert_allclose(est.weights_, without.weights_)
        assert_array_equal(est.predict(X), without.predict(X))

    def test_a_net_without_folds_or_in_a_pipeline_is_fitted_to_each_fold(self, table):
        X, y = table
        one = ONE_NETWORK | {"method": "erm", "max_epochs": 2, "random_state": 0}
        pipeline = make_pipeline(StandardScaler(), ProbMixupRegressor(**_NETS, random_state=0))
        members = [("one", ProbMixupRegressor(**one)), ("nets", pipeline)]
        est = DistributionStackingRegressor(members, cv=KFold(3)).fit(X, y)
        for name, member in members:
            log_p = np.concatenate(
                [
                    clone(member).fit(X[train], y[train]).predict_proba(X[test]).logpdf(y[test])
                    for train, test in KFold(3).split(X)
                ]
            )
            assert_allclose(est.member_scores_[name], log_p.mean(), rtol=1e-6)

    def test_a_splitter_holds_for_all(self, table):
        X, y = table
        nets = ProbMixupRegressor(**_NETS, random_state=0)
        est = DistributionStackingRegressor([("nets", nets)], cv=KFold(2)).fit(X, y)
        train, test = next(KFold(2).split(X))
        by_hand = clone(nets).fit(X[train], y[train]).predict(X[test])
        assert_array_equal(est.oof_predictive_.mean()[test], by_hand)

    def test_of_a_classifier(self, classes):
        X, y = classes
        nets = ProbMixupClassifier(**_NETS, random_state=0)
        members = [("nets", nets), ("linear", LogisticRegression())]
        est = DistributionStackingClassifier(members, cv=3, random_state=0).fit(X, y)
        own = est.named_estimators_["nets"].oof_predictive_
        assert_allclose(est.member_scores_["nets"], -log_loss(y, own), rtol=1e-9)

    def test_stacks_of_stacks(self, table):
        inner = stacker()
        est = DistributionStackingRegressor([("inner", inner), ("mean", DummyRegressor())], cv=3)
        est.fit(*table)
        own = est.named_estimators_["inner"]
        assert_allclose(-own.oof_scores_["nll"], est.member_scores_["inner"])


class TestFolds:
    def test_groups_stay_together(self, table):
        X, y = (np.repeat(part, 2, axis=0) for part in table)
        groups = np.repeat(np.arange(len(X) // 2), 2)
        # Remembers its rows: of a copy in another fold it would know all.
        members = [("near", DecisionTreeRegressor(random_state=0)), ("ridge", BayesianRidge())]
        est = DistributionStackingRegressor(members, cv=5, random_state=0)
        with_copies = clone(est).fit(X, y)
        together = clone(est).fit(X, y, groups=groups)
        assert with_copies.weights_[0] > 0.8 > 0.3 > together.weights_[0]
        folds = GroupKFold(5, shuffle=True, random_state=np.random.RandomState(0).randint(2**31))
        by_hand = clone(est).set_params(cv=list(folds.split(X, y, groups))).fit(X, y)
        assert_allclose(together.weights_, by_hand.weights_)

    def test_groups_reach_members_that_take_them(self, table):
        X, y = table
        nets = ProbMixupRegressor(**_NETS, random_state=0)
        groups = np.arange(len(y)) // 4
        est = DistributionStackingRegressor([("nets", nets)], cv=3).fit(X, y, groups=groups)
        alone = clone(nets).fit(X, y, groups=groups)
        assert_array_equal(est.oof_predictive_.mean(), alone.oof_predictive_.mean())

    def test_rows_that_are_never_held_out(self, table):
        X, y = table
        est = DistributionStackingRegressor(regressors(), cv=TimeSeriesSplit(3)).fit(X, y)
        assert_array_equal(est.oof_rows_, np.arange(30, 120))
        assert est.oof_predictive_.shape == (90,)

    @pytest.mark.parametrize(
        ("cv", "message"),
        [
            ([([0, 1], [2, 3]), ([0, 1], [3, 4])], "holds rows out twice"),
            ([([], [2, 3])], "leaves none to train"),
            ([([0, 1], [])], "holds no rows out"),
            ([([0, 1], [2, 1000])], "index 1000 is out of bounds.*; expected rows by their places"),
        ],
    )
    def test_that_are_none(self, table, cv, message):
        with pytest.raises(ValueError, match=message):
            DistributionStackingRegressor(regressors(), cv=cv).fit(*table)

    def test_places_are_those_of_the_given_rows(self, table):
        X, y = table
        weight = np.ones(len(y))
        weight[:10] = 0
        half = np.arange(len(y)) % 2 == 0
        folds = [(np.flatnonzero(half), np.flatnonzero(~half))]
        est = DistributionStackingRegressor(regressors(), cv=folds).fit(X, y, weight)
        assert_array_equal(est.oof_rows_, np.arange(11, 120, 2))
        by_hand = BayesianRidge().fit(X[10::2], y[10::2])
        score = stats.norm(*by_hand.predict(X[11::2], return_std=True)).logpdf(y[11::2]).mean()
        assert_allclose(est.member_scores_["ridge"], score, rtol=1e-9)

    def test_a_class_that_a_fold_does_not_train_on(self):
        X, y = load_iris(return_X_y=True)
        # Unshuffled: each fold holds out one class whole.
        est = DistributionStackingClassifier(classifiers(), cv=KFold(3)).fit(X, y)
        assert np.isfinite(est.weights_).all()
        assert_allclose(est.weights_, 1 / 2)


class TestContract:
    def test_parameters_of_members(self):
        est = stacker()
        assert est.get_params()["tree__max_depth"] == 3
        est.set_params(tree__max_depth=5, ridge="drop", cv=2)
        assert est.get_params()["tree__max_depth"] == 5
        assert (est.get_params()["ridge"], est.cv) == ("drop", 2)
        assert est.named_estimators["tree"].max_depth == 5
        copy = clone(est)
        assert repr(copy) == repr(est)
        assert copy.estimators[1][1] is not est.estimators[1][1]

    def test_dropped_members(self, table):
        X, y = table
        est = stacker().set_params(tree="drop").fit(X, y)
        alone = DistributionStackingRegressor(regressors()[:1], cv=3, random_state=0).fit(X, y)
        assert est.named_estimators_["tree"] == "drop"
        assert len(est.estimators_) == len(est.weights_) == 1
        assert_array_equal(est.predict(X), alone.predict(X))

    def test_what_is_given_stays_unfitted(self, table):
        est = stacker().fit(*table)
        assert not hasattr(est.estimators[0][1], "coef_")
        assert est.named_estimators_["ridge"] is est.estimators_[0]

    def test_predictions_are_those_of_the_distribution(self, table):
        X, y = table
        est = stacker().fit(X, y)
        dist = est.predict_proba(X)
        mean, sd = est.predict(X, return_std=True)
        assert_array_equal(mean, dist.mean())
        assert_array_equal(sd, dist.std())
        assert_array_equal(est.predict(X, quantiles=[0.1, 0.9]), dist.ppf([0.1, 0.9]))
        assert_allclose(est.score(X, y), 1 - ((y - mean) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        with pytest.raises(ValueError, match="exclude each other"):
            est.predict(X, return_std=True, quantiles=[0.5])

    def test_what_members_say_is_what_is_mixed(self, table, classes):
        X, y = table
        est = stacker().set_params(ridge="drop").fit(X, y)
        assert list(est.member_proba(X)) == ["tree"]
        est = stacker().fit(X, y)
        members = est.member_proba(X)
        mean = sum(w * members[name].mean() for w, name in zip(est.weights_, members, strict=True))
        assert_allclose(est.predict(X), mean)
        X, y = classes
        est = DistributionStackingClassifier(classifiers(), cv=3).fit(X, y)
        bayes = GaussianNB().fit(X, y).predict_proba(X)
        assert_allclose(est.member_proba(X)["bayes"], bayes)

    def test_search_over_members(self, table):
        X, y = table
        pipeline = make_pipeline(StandardScaler(), stacker())
        grid = {"distributionstackingregressor__tree__max_depth": [1, 4]}
        search = GridSearchCV(pipeline, grid, cv=2, scoring=neg_crps_scorer, error_score="raise")
        search.fit(X, y)
        assert isinstance(search.predict_proba(X), PredictiveDistribution)
        assert len(np.unique(search.cv_results_["mean_test_score"])) == 2

    def test_frames(self, table):
        X, y = table
        frame = pd.DataFrame(X, columns=list("abcde"))
        est = stacker().fit(frame, pd.Series(y))
        assert_array_equal(est.feature_names_in_, list("abcde"))
        assert_allclose(est.predict(frame), stacker().fit(X, y).predict(X))
        with pytest.raises(ValueError, match="feature names"):
            est.predict(frame[list("bacde")])

    def test_frames_of_polars(self, table):
        X, y = table
        frame = pl.DataFrame(X, schema=list("abcde"))
        members = [("tree", DecisionTreeRegressor(random_state=0)), ("line", LinearRegression())]
        est = DistributionStackingRegressor(members, random_state=0)
        assert est.fit(frame, y).feature_names_in_.tolist() == list("abcde")
        assert_allclose(est.predict(frame), clone(est).fit(X, y).predict(X))
        with pytest.raises(ValueError, match="feature names"):
            est.predict(frame[list("bacde")])

    def test_in_two_processes(self, table):
        X, y = table
        one, two = (stacker().set_params(n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2))
        assert_array_equal(one.weights_, two.weights_)
        assert_array_equal(one.predict(X), two.predict(X))

    def test_pickle(self, table):
        X, y = table
        est = stacker().fit(X, y)
        again = pickle.loads(pickle.dumps(est))
        assert_array_equal(again.predict_proba(X).ppf(0.3), est.predict_proba(X).ppf(0.3))

    def test_a_row_has_its_bits_in_any_batch(self, table):
        X, y = table
        # Members whose own predictions do not depend on the batch, as those of BLAS may.
        est = stacker(mean=DummyRegressor()).set_params(ridge="drop").fit(X, y)
        whole = est.predict(X, quantiles=0.2)
        for rows in ([0], [7, 3], slice(50, 53)):
            assert_array_equal(est.predict(X[rows], quantiles=0.2), whole[rows])

    def test_not_fitted(self, table):
        with pytest.raises(NotFittedError):
            stacker().predict(table[0])

    def test_a_model_file_is_refused(self, table, tmp_path):
        est = stacker().fit(*table)
        with pytest.raises(
            TypeError, match="is a DistributionStackingRegressor.*those of estimators_"
        ):
            save_model(est, tmp_path / "model.safetensors")


class Failing(Ridge):
    def fit(self, X, y):
        raise RuntimeError("no such luck")


class TestErrors:
    def test_a_member_that_fails_says_its_name_and_changes_nothing(self, table):
        X, y = table
        est = stacker().fit(X, y)
        before = est.predict(X)
        est.set_params(tree=Failing())
        with pytest.raises(ValueError, match="member 'tree', a Failing: no such luck"):
            est.fit(X, y)
        assert_array_equal(est.predict(X), before)

    def test_in_prediction(self, table):
        X, y = table

        class Lost(Ridge):
            def predict(self, X):
                return super().predict(X) * np.nan

        with pytest.raises(ValueError, match="member 'lost', a Lost: its predictions are not all"):
            stacker(lost=Lost()).fit(X, y)

    @pytest.mark.parametrize(
        ("members", "error", "message"),
        [
            ([], ValueError, "at least one estimator"),
            ([("a", "drop")], ValueError, "at least one estimator"),
            ([("a", "ignore"), ("b", Ridge())], ValueError, "'drop' in the place"),
            ([Ridge()], ValueError, "a list of pairs"),
            ([(1, Ridge())], ValueError, "a list of pairs"),
            ([("a", Ridge()), ("a", Ridge())], ValueError, "not unique"),
            ([("cv", Ridge())], ValueError, "conflict"),
            ([("a__b", Ridge())], ValueError, "must not contain __"),
            ([("a", Ridge)], TypeError, "member 'a' is <class .*expected an estimator with fit"),
        ],
    )
    def test_members_that_are_none(self, table, members, error, message):
        with pytest.raises(error, match=message):
            DistributionStackingRegressor(members).fit(*table)

    def test_weights_that_a_member_does_not_take(self, table):
        X, y = table
        est = stacker(gp=GaussianProcessRegressor())
        with pytest.raises(ValueError, match="member 'gp', a GaussianProcessRegressor, does not"):
            est.fit(X, y, np.arange(1, len(y) + 1))

    def test_weights_of_nothing(self, table):
        X, y = table
        with pytest.raises(ValueError, match="at least one non-zero number"):
            stacker().fit(X, y, np.zeros(len(y)))

    def test_two_outputs(self, table):
        X, y = table
        with pytest.raises(ValueError, match="1d array"):
            stacker().fit(X, np.stack([y, y], axis=1))

    def test_a_classifier_without_probabilities(self, classes):
        est = DistributionStackingClassifier(classifiers(svc=LinearSVC()), cv=3)
        with pytest.raises(TypeError, match="member 'svc', a LinearSVC: it has no predict_proba"):
            est.fit(*classes)

    def test_a_single_class(self, classes):
        X, _ = classes
        with pytest.raises(ValueError, match="the single class 'a'"):
            DistributionStackingClassifier(classifiers(), cv=3).fit(X, ["a"] * len(X))


class TestWeightsOfRows:
    def test_one_weight_is_that_of_all_rows(self, table):
        X, y = table
        est = stacker().fit(X, y, sample_weight=2.0)
        assert_array_equal(est.predict(X), clone(est).fit(X, y, np.full(len(y), 2.0)).predict(X))

    def test_reach_the_last_step_of_a_pipeline(self, table):
        X, y = table
        weight = np.linspace(0.1, 3, len(y))
        pipeline = make_pipeline(StandardScaler(), Ridge())
        est = DistributionStackingRegressor([("linear", pipeline)], cv=3).fit(X, y, weight)
        by_hand = clone(pipeline).fit(X, y, ridge__sample_weight=weight)
        assert_array_equal(est.estimators_[0].predict(X), by_hand.predict(X))

    def test_are_routed(self, table):
        X, y = table
        weight = np.linspace(0.1, 3, len(y))
        with sklearn.config_context(enable_metadata_routing=True):
            asks = Ridge(alpha=10.0).set_fit_request(sample_weight=True)
            does_not = Ridge(alpha=10.0).set_fit_request(sample_weight=False)
            members = [("asks", asks), ("does_not", does_not)]
            est = DistributionStackingRegressor(members, cv=3, random_state=0)
            folds = cross_validate(
                est.set_score_request(sample_weight=False),
                X,
                y,
                cv=2,
                params={"sample_weight": weight},
                return_estimator=True,
                return_indices=True,
                error_score="raise",
            )
            train, fitted = folds["indices"]["train"][0], folds["estimator"][0]
            by_hand = [
                Ridge(alpha=10.0).fit(X[train], y[train], own) for own in (weight[train], None)
            ]
            for own, member in zip(by_hand, fitted.estimators_, strict=True):
                assert_allclose(member.coef_, own.coef_)

    def test_a_request_that_is_not_made_is_an_error(self, table):
        X, y = table
        with (
            sklearn.config_context(enable_metadata_routing=True),
            pytest.raises(ValueError, match="sample_weight"),
        ):
            stacker().fit(X, y, sample_weight=np.ones(len(y)))


class TestHardData:
    @pytest.mark.parametrize("value", [0.0, 5.0, -1e6, 1e-12])
    def test_a_constant(self, value):
        X = np.random.default_rng(0).normal(size=(40, 2))
        members = regressors(linear=LinearRegression(), gp=GaussianProcessRegressor())
        est = DistributionStackingRegressor(members, cv=3).fit(X, np.full(40, value))
        dist = est.predict_proba(X)
        assert_allclose(est.weights_.sum(), 1)
        assert_allclose(dist.mean(), value, atol=1.1 * max(abs(value), 1e-9))
        assert_allclose(dist.median(), value, atol=1e-5 * max(abs(value), 1.0))
        assert np.isfinite(dist.logpdf(np.full(40, value))).all()

    def test_a_perfect_fit(self):
        X = np.random.default_rng(0).normal(size=(40, 2))
        est = DistributionStackingRegressor([("linear", LinearRegression())], cv=3)
        dist = est.fit(X, X @ [1.0, 2.0]).predict_proba(X)
        assert_allclose(dist.mean(), X @ [1.0, 2.0], atol=1e-6)
        assert np.isfinite(est.oof_scores_["nll"])

    def test_many_rows_are_scored_by_some(self):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(4100, 1))
        y = X[:, 0] + rng.normal(size=4100)
        est = DistributionStackingRegressor([("ridge", BayesianRidge())], random_state=0).fit(X, y)
        scored = est.oof_predictive_[::3].logpdf(y[::3])
        assert_allclose(est.oof_scores_["nll"], -scored.mean())

    def test_sparse_columns_go_to_members_that_take_them(self, table):
        X, y = table
        X = np.where(X > 0.5, X, 0.0)
        est = stacker().set_params(ridge="drop")
        dense, sparse = (clone(est).fit(rows, y) for rows in (X, csr_matrix(X)))
        assert_allclose(sparse.predict(csr_matrix(X)), dense.predict(X))
        with pytest.raises(TypeError, match="member 'ridge', a BayesianRidge"):
            stacker().fit(csr_matrix(X), y)

    def test_few_rows(self):
        X = np.arange(6.0)[:, None]
        est = DistributionStackingRegressor(regressors(), cv=2).fit(X, X[:, 0] ** 2)
        assert np.isfinite(est.oof_scores_["crps"])

    @pytest.mark.parametrize("scale", [1e-8, 1e8])
    def test_units_do_not_matter(self, table, scale):
        X, y = table
        one = stacker().set_params(ridge="drop").fit(X, y)
        other = stacker().set_params(ridge="drop").fit(X, y * scale)
        assert_allclose(other.predict(X), one.predict(X) * scale, rtol=1e-6)
        assert_allclose(
            other.predict(X, quantiles=0.9), one.predict(X, quantiles=0.9) * scale, rtol=1e-6
        )


class TestNGBoost:
    @pytest.mark.parametrize("name", ["Normal", "LogNormal", "Laplace", "T", "Poisson", "Gamma"])
    def test_its_distributions(self, table, name):
        distns = pytest.importorskip("ngboost.distns")
        from ngboost import NGBRegressor

        X, y = table
        y = np.rint(abs(y)) + 1.0
        est = NGBRegressor(getattr(distns, name), n_estimators=10, verbose=False).fit(X, y)
        dist, theirs = forecast(est, X), est.pred_dist(X)
        log_p = theirs.dist.logpmf(y) if name == "Poisson" else theirs.dist.logpdf(y)
        assert_allclose(
            dist.log_probability(y, 1e-9) if name == "Poisson" else dist.logpdf(y), log_p
        )
        assert_allclose(dist.mean(), theirs.mean(), rtol=1e-6)

    def test_trees_up_to_the_best(self, table):
        pytest.importorskip("ngboost")
        from ngboost import NGBRegressor

        X, y = table
        est = NGBRegressor(
            n_estimators=300,
            validation_fraction=0.3,
            early_stopping_rounds=20,
            learning_rate=0.2,
            random_state=0,
            verbose=False,
        ).fit(X, y)
        best = est.best_val_loss_itr + 1
        assert best < est.n_estimators
        assert_array_equal(forecast(est, X).mean(), est.pred_dist(X, max_iter=best).loc)

    def test_distributions_that_have_no_single_number(self, table):
        pytest.importorskip("ngboost")
        from ngboost import NGBRegressor
        from ngboost.distns import MultivariateNormal

        X, y = table
        est = NGBRegressor(MultivariateNormal(2), n_estimators=3, verbose=False)
        est.fit(X, np.stack([y, X[:, 0]], axis=1))
        with pytest.raises(TypeError, match="no univariate distribution"):
            forecast(est, X)

    def test_in_a_stack(self, table):
        pytest.importorskip("ngboost")
        from ngboost import NGBRegressor

        X, y = table
        est = stacker(boost=NGBRegressor(n_estimators=20, verbose=False, random_state=0))
        assert np.isfinite(est.fit(X, y).member_scores_["boost"])


class TestQuantileForest:
    def test_its_quantiles(self, table):
        package = pytest.importorskip("quantile_forest")
        X, y = table
        forest = package.RandomForestQuantileRegressor(n_estimators=20, random_state=0).fit(X, y)
        found = forecast(forest, X)
        assert_array_equal(found.values, forest.predict(X, quantiles=list(found.levels)))

    def test_in_a_stack_of_rounded_responses(self, table):
        package = pytest.importorskip("quantile_forest")
        X, _ = table
        y = np.rint(3 * X[:, 0]) + 10
        forest = package.RandomForestQuantileRegressor(n_estimators=30, random_state=0)
        est = DistributionStackingRegressor(
            [("forest", forest), ("ridge", BayesianRidge())], cv=3, random_state=0
        ).fit(X, y)
        assert est.width_ == 1
        assert est.weights_[0] > 0.8
        assert np.exp(est.predict_proba(X).log_probability(y, 1.0)).mean() > 0.8


class TestCatBoost:
    def test_mean_and_variance(self, table):
        catboost = pytest.importorskip("catboost")
        X, y = table
        quiet = {
            "iterations": 20,
            "verbose": False,
            "allow_writing_files": False,
            "thread_count": 1,
        }
        est = catboost.CatBoostRegressor(loss_function="RMSEWithUncertainty", **quiet).fit(X, y)
        mean, variance = est.predict(X, prediction_type="RMSEWithUncertainty").T
        assert_allclose(forecast(est, X).mean(), mean)
        assert_allclose(forecast(est, X).var(), variance)
        points = catboost.CatBoostRegressor(**quiet).fit(X, y)
        assert_array_equal(forecast(points, X), points.predict(X))
        both = DistributionStackingRegressor(
            [("both", clone(est)), ("points", clone(points))], cv=3
        )
        assert np.isfinite(both.fit(X, y).oof_scores_["nll"])

    def test_categories_are_named_in_a_tuple(self, table):
        catboost = pytest.importorskip("catboost")
        _, y = table
        above = y > np.median(y)
        frame = pd.DataFrame({"side": np.where(above, "right", "left")})
        est = catboost.CatBoostRegressor(
            iterations=20, verbose=False, allow_writing_files=False, cat_features=("side",)
        )
        means = DistributionStackingRegressor([("trees", est)], cv=3).fit(frame, y).predict(frame)
        assert means[above].mean() > y.mean() > means[~above].mean()


class TestSkpro:
    def test_normals_by_their_parameters(self, table):
        residual = pytest.importorskip("skpro.regression.residual")
        X, y = table
        est = residual.ResidualDouble(LinearRegression()).fit(X, y)
        theirs = est.predict_proba(X)
        dist = forecast(est, X)
        assert dist.name == "norm"
        assert_allclose(dist.std(), np.ravel(theirs.sigma))
        assert_allclose(dist.mean(), np.ravel(theirs.mean()))

    def test_others_by_their_quantiles(self, table):
        residual = pytest.importorskip("skpro.regression.residual")
        X, y = table
        est = residual.ResidualDouble(LinearRegression(), dist="Laplace").fit(X, y)
        found = forecast(est, X)
        assert isinstance(found, Quantiles)
        assert_allclose(found.values[:, 50], np.ravel(est.predict_proba(X).ppf(found.levels[50])))

    def test_in_a_stack(self, table):
        residual = pytest.importorskip("skpro.regression.residual")
        est = stacker(skpro=residual.ResidualDouble(LinearRegression())).fit(*table)
        assert np.isfinite(est.member_scores_["skpro"])


class TabPFNRegressor(RegressorMixin, BaseEstimator):
    """Stand-in with the documented output: borders of bins and logits of their masses."""

    def fit(self, X, y):
        self.normal_ = stats.norm(y.mean(), y.std())
        return self

    def predict(self, X, *, output_type="mean", quantiles=None):
        assert output_type == "full"
        borders = self.normal_.ppf(np.linspace(1e-6, 1 - 1e-6, 1001))
        masses = np.diff(self.normal_.cdf(borders))
        masses[[0, -1]] += (1 - masses.sum()) / 2
        criterion = SimpleNamespace(borders=torch.tensor(borders, dtype=torch.float32))
        logits = torch.tensor(np.log(masses), dtype=torch.float32).expand(len(X), -1) + 3.0
        return {"criterion": criterion, "logits": logits}


class TabICLRegressor(RegressorMixin, BaseEstimator):
    """Stand-in with the documented output: quantiles at the levels asked for."""

    def fit(self, X, y):
        self.normal_ = stats.norm(y.mean(), y.std())
        return self

    def predict(self, X, output_type="mean", alphas=None):
        assert output_type == "quantiles"
        return np.tile(self.normal_.ppf(alphas), (len(X), 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("cls", "package"), [(TabPFNRegressor, "tabpfn"), (TabICLRegressor, "tabicl")]
)
def test_foundation_models_by_their_documented_outputs(table, monkeypatch, cls, package):
    X, y = table
    monkeypatch.setattr(cls, "__module__", f"{package}.regressor")
    monkeypatch.setitem(sys.modules, f"{package}.regressor", sys.modules[__name__])
    est = DistributionStackingRegressor([("model", cls())], cv=3).fit(X, y)
    dist, truth = est.predict_proba(X), stats.norm(y.mean(), y.std())
    q = [0.02, 0.3, 0.5, 0.7, 0.98]
    assert_allclose(dist.ppf(q)[:, 0], truth.ppf(q), atol=0.02 * y.std())
    assert_allclose(dist.mean(), truth.mean(), rtol=1e-3)
    assert_allclose(dist.pdf(np.full(len(y), truth.mean())), truth.pdf(truth.mean()), rtol=0.03)


def test_outer_bins_of_tabpfn_hold_half_of_their_mass_within_their_width(monkeypatch):
    class TabPFN:
        def predict(self, X, output_type):
            criterion = SimpleNamespace(borders=torch.tensor([0.0, 2.0, 3.0, 4.0]))
            return {"criterion": criterion, "logits": torch.log(torch.tensor([[0.2, 0.5, 0.3]]))}

    dist = ADAPTERS["tabpfn.TabPFNRegressor"](TabPFN(), np.zeros((1, 1)))
    assert_allclose(
        dist.cdf(np.array([0.0, 2.0, 2.5, 3.0, 4.0])[:, None])[:, 0],
        [0.1, 0.2, 0.45, 0.7, 0.85],
        rtol=1e-6,
    )


def test_a_dummy_adds_little(classes):
    X, y = classes
    est = DistributionStackingClassifier(classifiers(dummy=DummyClassifier()), cv=3, random_state=0)
    est.fit(X, y)
    assert est.weights_[2] < 0.2
    assert_array_equal(est.classes_, ["a", "b", "c"])
    assert isinstance(est, ClassifierMixin)
    assert est.score(X, y) > 0.6
