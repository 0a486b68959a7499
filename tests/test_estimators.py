"""The two estimators: what they predict, in which units, and from which rows they learn."""

import copy
import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from one_network import ONE_NETWORK
from sample_y import UNITS, sample_y
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from sklearn_probmix import (
    NegativeLogLikelihood,
    PredictiveDistribution,
    ProbMixupClassifier,
    ProbMixupRegressor,
    TensorLoader,
    get_family,
)
from sklearn_probmix.families import Family
from sklearn_probmix.metrics import nll

METHODS = ["erm", "mixup", "manifold-mixup", "probmix", "m-probmix"]
_TINY = ONE_NETWORK | {
    "hidden_layer_sizes": (16,),
    "max_epochs": 3,
    "batch_size": 32,
    "lr": 0.02,
    "random_state": 0,
}


def kind(method, **params):
    """Make a kind like that of the other tests here; a kind or a list stays as it is."""
    if isinstance(method, str):
        return ONE_NETWORK["method"].updated(method=method, **{"n_draws": 8} | params)
    return method


def regressor(method="m-probmix", **params):
    return ProbMixupRegressor(**(_TINY | {"method": kind(method)} | params))


def classifier(method="m-probmix", **params):
    return ProbMixupClassifier(**(_TINY | {"method": kind(method)} | params))


def make_table(n_rows=80, n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features))
    return X, X[:, 0] + 0.3 * rng.normal(size=n_rows)


@pytest.fixture
def table():
    return make_table()


@pytest.fixture
def classes():
    return make_classification(
        120, 4, n_informative=4, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=0
    )


def both(table):
    """Pair every estimator with a target that it takes."""
    X, y = table
    return [(regressor(), X, y), (classifier(), X, y > 0)]


class TrainingRows(Callback):
    """Remember the rows that the last fit trained on."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.rows_ = X.rows.numpy()
        self.X_ = X.table.X[X.rows].numpy()


class RecordingSplitter:
    """Hold every fourth row out, and remember what was asked."""

    def split(self, X, y=None, groups=None):
        self.asked_ = X, y, groups
        valid = np.arange(len(X)) % 4 == 0
        yield np.flatnonzero(~valid), np.flatnonzero(valid)


def training_rows(estimator):
    return dict(estimator.net_.callbacks_)["rows"].X_


class DenseNet(nn.Module):
    """Is told its sizes and the family by the estimator."""

    def __init__(self, n_features, n_outputs, family, hidden=8):
        super().__init__()
        self.family = family
        self.n_outputs = n_outputs
        self.embedding = nn.Sequential(nn.Linear(n_features, hidden), nn.Tanh())
        self.head = nn.Linear(hidden, n_outputs * family.n_params)

    def forward(self, X):
        return self.family.natural(self.head(self.embedding(X)).unflatten(-1, (self.n_outputs, -1)))


class FixedNet(nn.Module):
    """Knows all by itself: three features, one output, a Normal."""

    def __init__(self, hidden=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def forward(self, X):
        mean, log_precision = self.layers(X).unbind(-1)
        precision = log_precision.exp()
        return torch.stack([mean * precision, -precision / 2], dim=-1).unsqueeze(1)


class SequenceNet(nn.Module):
    def __init__(self, n_features, family, hidden=6):
        super().__init__()
        self.family = family
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.embedding = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, family.n_params)

    def forward(self, X):
        _, (state, _) = self.lstm(X)
        return self.family.natural(self.head(self.embedding(state[-1]))).unsqueeze(1)


class Exponential(Family):
    """Exponential density of rate -eta: what a user writes."""

    scipy_name = "expon"
    n_params = 1
    support = "the positive numbers"

    def in_support(self, y):
        return y > 0

    def natural(self, raw):
        return -nn.functional.softplus(raw) - 1e-6

    def log_prob(self, eta, y):
        return (-eta[..., 0]).log() + eta[..., 0] * y

    def scipy_parameters(self, eta, shift=0.0, scale=1.0):
        return {"scale": -1 / eta[..., 0].double()}


class TestRegressor:
    def test_learns_the_mean_and_the_noise_that_made_the_data(self):
        X, y = make_table(n_rows=600)
        est = regressor(method="probmix", alpha=0.1, max_epochs=60).fit(X, y)
        X_new, y_new = make_table(n_rows=300, seed=1)
        mean, sd = est.predict(X_new, return_std=True)
        assert np.sqrt(np.mean((mean - X_new[:, 0]) ** 2)) < 0.15
        assert 0.2 < np.median(sd) < 0.45
        assert est.score(X_new, y_new) > 0.85

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("n_neighbors", [None, 3])
    @pytest.mark.parametrize("pooling", ["log-linear", "linear"])
    def test_every_method_beats_the_marginal_distribution(self, method, n_neighbors, pooling):
        X, y = make_table(n_rows=300)
        est = regressor(method=method, n_neighbors=n_neighbors, pooling=pooling, max_epochs=15)
        dist = est.fit(X, y).predict_proba(X)
        marginal = PredictiveDistribution("norm", {"loc": [[y.mean()]], "scale": [[y.std()]]})
        assert nll(y, dist) < -marginal[np.zeros(len(y), int)].logpdf(y).mean() - 0.3

    def test_predict_is_mean_and_std_of_the_distribution(self, table):
        X, y = table
        est = regressor().fit(X, y)
        dist = est.predict_proba(X)
        assert_array_equal(est.predict(X), dist.mean())
        assert_array_equal(est.predict(X, return_std=True)[1], dist.std())

    def test_quantiles(self, table):
        X, y = table
        est = regressor().fit(X, y)
        quantiles = est.predict(X, quantiles=[0.1, 0.5, 0.9])
        assert quantiles.shape == (3, len(X))
        assert_allclose(est.predict_proba(X).cdf(quantiles), np.outer([0.1, 0.5, 0.9], y * 0 + 1))

    def test_random_embedding_gives_one_component_per_draw(self, table):
        est = regressor(kind("m-probmix", n_draws=5)).fit(*table)
        assert est.predict_proba(table[0]).n_components == 5

    def test_epistemic_variance_is_that_of_the_draws_only(self, table):
        X, y = table
        drawn = regressor().fit(X, y).predict_proba(X)
        plain = regressor(method="erm").fit(X, y).predict_proba(X)
        assert (drawn.var("epistemic") > 0).all()
        assert (plain.var("epistemic") == 0).all()


_NAMES = {
    "normal": "norm",
    "homoscedastic-normal": "norm",
    "lognormal": "lognorm",
    "transformed": "transformed",
    "hurdle": "hurdle(lognorm)",
    "gamma": "gamma",
    "beta": "beta",
    "poisson": "poisson",
    "negative-binomial": "nbinom",
    "bernoulli": "bernoulli",
    "histogram": "histogram",
    "lattice": "lattice",
}


class TestFamilies:
    @pytest.mark.parametrize("method", ["erm", "probmix", "m-probmix"])
    @pytest.mark.parametrize("family", _NAMES)
    def test_distribution_follows_the_data(self, family, method):
        rng = np.random.default_rng(0)
        X = rng.uniform(0.5, 3.5, size=(400, 1))
        y = sample_y(family, X[:, 0], rng)
        est = regressor(family=family, method=method, alpha=0.05, max_epochs=25).fit(X, y)
        dist = est.predict_proba([[1.0], [3.0]])
        assert dist.name == _NAMES[family]
        assert_allclose(dist.mean() / UNITS.get(family, 1.0), [1, 3], atol=0.45)

    def test_homoscedastic_variance_is_one_number(self, table):
        X, y = table
        est = regressor(family="homoscedastic-normal", method="probmix").fit(X, y)
        assert np.ptp(est.predict(X, return_std=True)[1]) < 1e-6

    def test_family_of_the_users_own(self):
        rng = np.random.default_rng(0)
        X = rng.uniform(1, 4, size=(600, 1))
        est = regressor(family=Exponential(), method="probmix", alpha=0.1, max_epochs=30)
        dist = est.fit(X, rng.exponential(X[:, 0])).predict_proba([[1.5], [3.5]])
        assert dist.name == "expon"
        assert_allclose(dist.mean(), [1.5, 3.5], rtol=0.3)

    def test_instance_is_the_same_as_its_name(self, table):
        X, y = table
        by_name = regressor(method="probmix", family="gamma").fit(X, np.exp(y))
        instance = regressor(method="probmix", family=get_family("gamma")).fit(X, np.exp(y))
        assert_array_equal(by_name.predict(X), instance.predict(X))


class TestUnits:
    @pytest.mark.parametrize("unit", [1e30, 1e-30, 1e3])
    @pytest.mark.parametrize("method", ["erm", "probmix", "m-probmix"])
    @pytest.mark.parametrize(
        "family", ["normal", "homoscedastic-normal", "lognormal", "transformed", "gamma"]
    )
    def test_unit_of_y_does_not_matter(self, table, family, method, unit):
        X, y = table
        y = np.exp(y)
        plain = regressor(family=family, method=method).fit(X, y)
        scaled = regressor(family=family, method=method).fit(X, y * unit)
        for left, right in zip(
            plain.predict(X, return_std=True), scaled.predict(X, return_std=True), strict=True
        ):
            assert_allclose(right / unit, left, rtol=1e-5)
        assert_allclose(
            scaled.predict_proba(X).logpdf(y * unit) + np.log(unit),
            plain.predict_proba(X).logpdf(y),
            rtol=1e-5,
            atol=1e-4,
        )

    def test_origin_of_y_does_not_matter(self, table):
        X, y = table
        y = np.round(y * 1024) / 1024
        plain, shifted = regressor().fit(X, y), regressor().fit(X, y + 2.0**20)
        assert_allclose(shifted.predict(X) - 2.0**20, plain.predict(X), atol=1e-5)

    def test_unit_of_X_does_not_matter(self, table):
        X, y = table
        plain = regressor().fit(X, y).predict(X)
        X = X * [2.0**40, 2.0**-40, 1] + [0, 0, 8]
        assert_allclose(regressor().fit(X, y).predict(X), plain, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "family", ["normal", "homoscedastic-normal", "lognormal", "transformed", "gamma"]
    )
    @pytest.mark.parametrize("level", [3.0, 1e30, 1e-30])
    def test_constant_y(self, table, family, level):
        X, _ = table
        est = regressor(family=family, max_epochs=30).fit(X, np.full(len(X), level))
        low, high = est.predict_proba(X).interval(0.99)
        assert (low <= level).all()
        assert (level <= high).all()
        assert np.isfinite(est.predict_proba(X).logpdf(np.full(len(X), level))).all()

    def test_constant_y_of_zero(self, table):
        X, y = table
        dist = regressor().fit(X, np.zeros_like(y)).predict_proba(X)
        assert np.isfinite(dist.mean()).all()

    @pytest.mark.parametrize("level", [0.0, 1.0, 1e10, -1e-10])
    def test_constant_columns_change_nothing_at_prediction(self, table, level):
        X, y = table
        X = np.column_stack([X, np.full(len(X), level)])
        for est, target in ((regressor(), y), (classifier(), y > 0)):
            assert np.isfinite(np.asarray(est.fit(X, target).predict_proba(X))).all()

    def test_all_columns_constant(self, table):
        _, y = table
        X = np.ones((len(y), 2))
        mean = regressor(method="erm", max_epochs=30).fit(X, y).predict(X)
        assert np.ptp(mean) == 0
        assert abs(mean[0] - y.mean()) < 0.5 * y.std()


class TestOutputs:
    @pytest.mark.parametrize("method", METHODS)
    def test_two_outputs_of_different_units(self, method):
        X, y = make_table(n_rows=200)
        Y = np.column_stack([y, 1000 - 100 * X[:, 1]])
        est = regressor(method=method, max_epochs=40).fit(X, Y)
        mean, sd = est.predict(X, return_std=True)
        assert mean.shape == sd.shape == est.predict_proba(X).shape == (200, 2)
        assert np.corrcoef(mean[:, 0], Y[:, 0])[0, 1] > 0.7
        assert np.corrcoef(mean[:, 1], Y[:, 1])[0, 1] > 0.7
        assert est.n_outputs_ == 2

    @pytest.mark.parametrize(
        "family", ["gamma", "lognormal", "poisson", "beta", "histogram", "lattice"]
    )
    def test_two_outputs_of_other_families(self, table, family):
        X, _ = table
        Y = sample_y(family, np.full((len(X), 2), 1.5), np.random.default_rng(0))
        dist = regressor(family=family).fit(X, Y).predict_proba(X)
        assert dist.shape == (len(X), 2)
        assert np.isfinite(dist.joint_logpdf(Y)).all()

    def test_one_column_keeps_its_axis(self, table):
        X, y = table
        column = regressor().fit(X, y[:, None]).predict(X)
        assert column.shape == (len(X), 1)
        assert_array_equal(column[:, 0], regressor().fit(X, y).predict(X))


class TestClassifier:
    def test_learns(self, classes):
        X, y = classes
        assert classifier(max_epochs=40).fit(X, y).score(X, y) > 0.85

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("n_neighbors", [None, 3])
    @pytest.mark.parametrize("pooling", ["log-linear", "linear"])
    def test_every_method_beats_the_frequencies(self, classes, method, n_neighbors, pooling):
        X, y = classes
        est = classifier(method=method, n_neighbors=n_neighbors, pooling=pooling, max_epochs=15)
        log_p = est.fit(X, y).predict_log_proba(X)
        assert -log_p[np.arange(len(y)), y].mean() < np.log(3) - 0.2

    def test_pooled_labels(self, classes):
        X, y = classes
        method = kind("probmix", response="pooled", beta=0.1)
        est = classifier(method, max_epochs=20).fit(X, y)
        assert est.score(X, y) > 0.7

    @pytest.mark.parametrize(
        "labels",
        [
            ["setosa", "versicolor", "virginica"],
            [-7, 3, 100],
            [10**15, 10**15 + 1, 10**15 + 2],
            [0.0, 1.0, 5.0],
            np.array(["x", "yy", "zzz"], dtype=object),
        ],
        ids=["str", "gaps", "huge", "float", "object"],
    )
    def test_labels_of_any_type(self, classes, labels):
        X, y = classes
        labels = np.asarray(labels)
        est = classifier().fit(X, labels[y])
        assert_array_equal(est.classes_, labels)
        assert est.predict(X).dtype == labels.dtype
        assert_array_equal(est.predict_proba(X), classifier().fit(X, y).predict_proba(X))

    @pytest.mark.parametrize("family", ["categorical", "bernoulli"])
    def test_two_labels_of_bool(self, table, family):
        X, y = table
        est = classifier(family=family, max_epochs=20).fit(X, y > 0)
        assert est.predict(X).dtype == bool
        assert est.score(X, y > 0) > 0.8

    def test_probabilities_sum_to_one_and_name_the_prediction(self, classes):
        X, y = classes
        est = classifier().fit(X, np.array(["c", "a", "b"])[y])
        p = est.predict_proba(X)
        assert_allclose(p.sum(1), 1, rtol=1e-12)
        assert_array_equal(est.predict(X), est.classes_[p.argmax(1)])

    def test_log_probabilities(self, classes):
        X, y = classes
        est = classifier().fit(X, y)
        assert_allclose(np.exp(est.predict_log_proba(X)), est.predict_proba(X))

    def test_log_probabilities_are_finite_far_from_the_data(self, table):
        X, y = table
        est = classifier(method="erm", max_epochs=20).fit(X, y > 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isfinite(est.predict_log_proba(1e6 * X)).all()

    @pytest.mark.parametrize("distance", [1e30, 1e300])
    def test_predictions_are_finite_at_any_distance(self, table, distance):
        X, y = table
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            proba = (
                classifier(method="erm", max_epochs=20).fit(X, y > 0).predict_proba(distance * X)
            )
        assert_allclose(proba.sum(axis=1), 1)
        for family in ("normal", "lognormal", "gamma", "poisson"):
            est = regressor(method="erm", family=family, max_epochs=20)
            est.fit(X, np.ceil(np.exp(y)))
            dist = est.predict_proba(distance * X)
            assert np.isfinite(dist.median()).all()
            assert not np.isnan(dist.std()).any()

    def test_lognormal_response_with_an_outlier_among_equals(self):
        X = np.random.default_rng(0).normal(size=(12_000, 1))
        y = np.ones(12_000)
        y[5] = 2.0
        est = regressor(family="lognormal", max_epochs=1).fit(X, y)
        assert np.isfinite(est.predict(X)).all()

    def test_class_weight_raises_the_share_of_its_class(self, classes):
        X, y = classes
        plain = classifier(method="erm", max_epochs=10).fit(X, y)
        weighted = clone(plain).set_params(class_weight={0: 20.0}).fit(X, y)
        assert weighted.predict_proba(X)[:, 0].mean() > plain.predict_proba(X)[:, 0].mean() + 0.1

    def test_class_weight_is_the_sample_weight_of_its_rows(self, classes):
        X, y = classes
        by_class = classifier(class_weight={0: 3.0, 1: 1.0, 2: 0.5}).fit(X, y)
        by_row = classifier().fit(X, y, sample_weight=np.array([3.0, 1.0, 0.5])[y])
        assert_allclose(by_class.predict_proba(X), by_row.predict_proba(X), rtol=1e-6)

    def test_class_weight_names_a_class_that_part_of_a_stream_lacks(self, classes):
        X, y = classes
        part = y != 1
        settings = {"classes": [0, 1, 2]}
        est = classifier(class_weight={0: 3.0, 1: 2.0}).partial_fit(X[part], y[part], **settings)
        weight = np.array([3.0, 2.0, 1.0])[y[part]]
        by_row = classifier().partial_fit(X[part], y[part], sample_weight=weight, **settings)
        assert_array_equal(est.predict_proba(X), by_row.predict_proba(X))

    def test_balanced_classes_share_the_probability(self):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(300, 2)), rng.random(300) < 0.1
        est = classifier(method="erm", class_weight="balanced", weight_decay=1.0, max_epochs=20)
        assert abs(est.fit(X, y).predict_proba(X)[:, 1].mean() - 0.5) < 0.15

    def test_rows_of_no_weight_do_not_count_in_balanced_classes(self, classes):
        X, y = classes
        est = classifier(class_weight="balanced")
        weight = np.where(y == 0, np.arange(len(y)) % 2, 1)
        kept = weight > 0
        expected = clone(est).fit(X[kept], y[kept]).predict_proba(X)
        assert_array_equal(est.fit(X, y, sample_weight=weight).predict_proba(X), expected)


class TestRandomness:
    @pytest.mark.parametrize("n_neighbors", [None, 3])
    @pytest.mark.parametrize("method", METHODS)
    def test_same_seed_same_bits(self, table, method, n_neighbors):
        params = {"method": kind(method, dropout=0.1), "n_neighbors": n_neighbors}
        first, second = (
            [est.fit(X, y).predict_proba(X) for est, X, y in self._pair(table, params)]
            for _ in range(2)
        )
        assert_array_equal(first[0].logpdf(table[1]), second[0].logpdf(table[1]))
        assert_array_equal(first[1], second[1])

    @staticmethod
    def _pair(table, params):
        return [(est.set_params(**params), X, y) for est, X, y in both(table)]

    @pytest.mark.parametrize("method", METHODS)
    def test_other_seed_other_predictions(self, table, method):
        X, y = table
        first, second = (
            regressor(method=method, random_state=seed).fit(X, y).predict(X) for seed in (0, 1)
        )
        assert (first != second).mean() > 0.9

    @pytest.mark.parametrize("method", METHODS)
    def test_global_generators_are_left_alone(self, table, method):
        for est, X, y in self._pair(table, {"method": kind(method, dropout=0.1)}):
            expected = self._draws()
            self._draws(draw=False)
            est.fit(X, y)
            est.partial_fit(X, y)
            np.asarray(est.predict_proba(X))
            assert_array_equal(self._draws(seed=False), expected)

    @staticmethod
    def _draws(seed=True, draw=True):
        """Seed the global generators, or draw from them, or both."""
        if seed:
            # numpy's legacy functions are the ones that have a global generator.
            np.random.seed(3)  # noqa: NPY002  # what a user does
            torch.manual_seed(3)
        return np.append(np.random.random(3), torch.rand(3)) if draw else None  # noqa: NPY002  # what a user does

    def test_global_generators_do_not_matter(self, table):
        X, y = table
        predictions = []
        for seed in (0, 1):
            # Moved on purpose: the legacy generator is the global one.
            np.random.seed(seed)  # noqa: NPY002  # what a user does
            torch.manual_seed(seed)
            predictions.append(regressor(kind("m-probmix", dropout=0.1)).fit(X, y).predict(X))
        assert_array_equal(*predictions)

    def test_fits_in_threads_do_not_disturb_each_other(self):
        X, y = make_table(n_rows=150)
        estimators = [
            regressor(kind("m-probmix", dropout=0.1), max_epochs=15, random_state=seed)
            for seed in range(2)
        ]
        alone = [clone(est).fit(X, y).predict(X) for est in estimators]
        with ThreadPoolExecutor(2) as pool:
            fitted = pool.map(lambda est: est.fit(X, y).predict(X), estimators)
        for expected, found in zip(alone, fitted, strict=True):
            assert_array_equal(found, expected)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_child_does_not_wait_for_a_thread_that_it_lacks(self, table):
        held, done = Event(), Event()

        class Pause(Callback):
            def on_epoch_end(self, net, **kwargs):
                held.set()
                done.wait(60)

        with ThreadPoolExecutor(1) as pool:
            fit = pool.submit(regressor(max_epochs=1, callbacks=[Pause()]).fit, *table)
            held.wait(60)
            child = multiprocessing.get_context("fork").Process(
                target=regressor(max_epochs=1).fit, args=table
            )
            child.start()
            child.join(60)
            done.set()
            fit.result()
        assert child.exitcode == 0

    def test_number_of_threads_is_left_alone(self, table):
        before = torch.get_num_threads()
        regressor().fit(*table)
        assert torch.get_num_threads() == before

    def test_random_state_instance_feeds_all_draws(self, table):
        X, y = table
        rng = np.random.RandomState(5)
        first = regressor(random_state=rng).fit(X, y).predict(X)
        second = regressor(random_state=rng).fit(X, y).predict(X)
        again = regressor(random_state=np.random.RandomState(5)).fit(X, y).predict(X)
        assert_array_equal(first, again)
        assert (first != second).any()

    def test_no_seed_means_fresh_draws(self, table):
        X, y = table
        est = regressor(random_state=None)
        assert (est.fit(X, y).predict(X) != est.fit(X, y).predict(X)).any()

    def test_fit_twice_is_fit_once(self, table):
        X, y = table
        est = regressor().fit(X, y)
        first = est.predict(X)
        assert_array_equal(est.fit(X, y).predict(X), first)


@pytest.mark.parametrize("method", METHODS)
class TestPredictionsOfARowDoNotDependOnOthers:
    @pytest.fixture
    def fitted(self, method):
        X, y = make_table(n_rows=700)
        params = {"method": method, "max_epochs": 2, "hidden_layer_sizes": (33, 17)}
        models = regressor(**params).fit(X, y), classifier(**params).fit(X, y > 0)

        def predict(X):
            dist = models[0].predict_proba(X)
            return np.column_stack([dist.mean(), dist.std(), models[1].predict_proba(X)])

        return X, predict, predict(X)

    def test_on_their_order(self, fitted):
        X, predict, expected = fitted
        order = np.random.default_rng(0).permutation(len(X))
        assert_array_equal(predict(X[order]), expected[order])

    @pytest.mark.parametrize("n_rows", [1, 2, 31, 255, 256, 257, 511, 513])
    def test_on_their_number(self, fitted, n_rows):
        X, predict, expected = fitted
        assert_array_equal(predict(X[:n_rows]), expected[:n_rows])

    def test_on_the_layout_in_memory(self, fitted):
        X, predict, expected = fitted
        assert_array_equal(predict(np.asfortranarray(X)), expected)
        assert_array_equal(predict(X[::-1])[::-1], expected)


class TestWeights:
    @pytest.mark.parametrize("n_neighbors", [None, 3])
    @pytest.mark.parametrize("method", METHODS)
    def test_rows_of_weight_zero_do_not_count(self, method, n_neighbors):
        X, y = make_table(n_rows=300)
        bad = np.arange(300) % 3 == 0
        X_bad, y_bad = np.where(bad[:, None], 50 + X, X), np.where(bad, 1e4, y)
        params = {"method": method, "n_neighbors": n_neighbors, "alpha": 1.0, "max_epochs": 25}
        contaminated = regressor(**params).fit(X_bad, y_bad, sample_weight=1.0 - bad)
        clean = regressor(**params).fit(X[~bad], y[~bad])
        mean, sd = contaminated.predict(X[~bad], return_std=True)
        expected, expected_sd = clean.predict(X[~bad], return_std=True)
        assert np.abs(mean - expected).mean() < 0.3
        assert 0.5 < np.median(sd / expected_sd) < 2

    def test_a_splitter_knows_rows_by_their_places_in_the_whole_table(self, table):
        X, y = table
        places = np.arange(len(y))
        fold = np.where((places >= 30) & (places < 50), 0, -1)
        whole = regressor(validation=PredefinedSplit(fold)).fit(X, y, 1.0 * (places >= 20))
        rest = regressor(validation=PredefinedSplit(fold[20:])).fit(X[20:], y[20:])
        losses = [[epoch["valid_loss"] for epoch in est.history_] for est in (whole, rest)]
        assert_allclose(*losses, rtol=1e-5)
        assert_allclose(whole.predict(X), rest.predict(X), rtol=1e-3)

    @pytest.mark.parametrize("value", [1e30, -1e30])
    def test_no_value_of_weight_zero_is_too_large(self, table, value):
        X, y = table
        X, y = np.vstack([X, X[:5]]), np.append(y, np.full(5, value))
        weight = np.append(np.ones(len(y) - 5), np.zeros(5))
        est = regressor(method="erm").fit(X, y, sample_weight=weight)
        assert np.abs(est.predict(X)).max() < 10

    def test_class_of_weight_zero_gets_no_probability(self, classes):
        X, y = classes
        est = classifier(method="erm", max_epochs=30).fit(X, y, sample_weight=(y != 1) * 1.0)
        assert est.predict_proba(X)[:, 1].mean() < 0.15

    @pytest.mark.parametrize("method", METHODS)
    def test_weight_moves_the_mean(self, method):
        rng = np.random.default_rng(0)
        X, high = rng.normal(size=(200, 1)), np.arange(200) % 2 == 0
        y = np.where(high, 1.0, -1.0)
        est = regressor(method=method, max_epochs=15).fit(X, y, np.where(high, 9.0, 1.0))
        assert abs(est.predict(X).mean() - 0.8) < 0.25

    def test_scale_of_the_weights_does_not_matter(self, table):
        X, y = table
        weight = np.linspace(1, 2, len(y))
        first, second = (regressor().fit(X, y, weight * c).predict(X) for c in (1.0, 2.0**20))
        assert_array_equal(first, second)

    def test_equal_weights_are_no_weights(self, table):
        X, y = table
        weighted = regressor().fit(X, y, np.full(len(y), 4.0))
        assert_allclose(weighted.predict(X), regressor().fit(X, y).predict(X), rtol=1e-5, atol=1e-6)

    def test_partial_fit_uses_them(self, table):
        X, y = table
        plain = regressor().partial_fit(X, y).predict(X)
        assert (regressor().partial_fit(X, y, sample_weight=np.exp(y)).predict(X) != plain).any()


def _validation_loss(est, X, y):
    """Mean NLL of y in the units in which the network is trained."""
    return nll(y, est.predict_proba(X)) - np.log(est.y_scale_.item())


class TestValidation:
    @pytest.mark.parametrize("fraction", [0.1, 0.25, 0.3, 0.5])
    def test_fraction(self, table, fraction):
        X, y = table
        est = regressor(validation=fraction, callbacks=[("rows", TrainingRows())])
        assert len(training_rows(est.fit(X, y))) == round(len(X) * (1 - fraction))

    def test_hold_out_of_classes_is_stratified(self):
        X = np.arange(100.0)[:, None]
        y = np.repeat([0, 1], [90, 10])
        for seed in range(5):
            est = classifier(callbacks=[("rows", TrainingRows())], random_state=seed).fit(X, y)
            trained = est.scaler_.inverse_transform(training_rows(est))
            assert (trained > 89.5).sum() == 8

    def test_splitter_gets_what_the_user_gave(self, table):
        X, y = table
        groups = np.arange(len(y)) // 10
        splitter = RecordingSplitter()
        est = regressor(validation=splitter, callbacks=[("rows", TrainingRows())])
        est.fit(X, y, groups=groups)
        for asked, given in zip(splitter.asked_, (X, y, groups), strict=True):
            assert_array_equal(asked, given)
        trained = est.scaler_.inverse_transform(training_rows(est))
        assert_allclose(trained, X[np.arange(len(X)) % 4 > 0], rtol=1e-5, atol=1e-6)

    def test_first_fold_of_a_splitter(self, table):
        X, y = table
        splitter = KFold(5, shuffle=True, random_state=0)
        est = regressor(validation=splitter, callbacks=[("rows", TrainingRows())]).fit(X, y)
        train, _ = next(splitter.split(X))
        trained = est.scaler_.inverse_transform(training_rows(est))
        assert_allclose(trained, X[train], rtol=1e-5, atol=1e-6)

    def test_first_of_a_list_of_pairs(self, table):
        X, y = table
        pairs = list(KFold(5, shuffle=True, random_state=0).split(X))
        of_list = regressor(validation=pairs, callbacks=[("rows", TrainingRows())]).fit(X, y)
        assert_array_equal(dict(of_list.net_.callbacks_)["rows"].rows_, pairs[0][0])
        of_splitter = regressor(validation=KFold(5, shuffle=True, random_state=0)).fit(X, y)
        assert_array_equal(of_list.predict(X), of_splitter.predict(X))

    def test_places_of_pairs_count_rows_of_no_weight_too(self, table):
        X, y = table
        pair = np.arange(10, 50), np.arange(50, 80)
        est = regressor(validation=[pair]).fit(X, y, sample_weight=np.arange(80) >= 10.0)
        rest = regressor(validation=[(pair[0] - 10, pair[1] - 10)]).fit(X[10:], y[10:])
        assert_allclose(est.predict(X), rest.predict(X), rtol=1e-6, atol=1e-7)

    def test_rows_in_both_parts_are_counted_in_a_warning(self, table):
        with pytest.warns(UserWarning, match=r"^The first pair of validation has 10 rows in bo"):
            regressor(validation=[(np.arange(50), np.arange(40, 80))]).fit(*table)

    def test_rows_that_a_splitter_leaves_out_are_counted_in_a_warning(self, table):
        message = "20 training and 20 validation rows; 40 of 80 rows are not used"
        with pytest.warns(UserWarning, match=message) as caught:
            est = regressor(validation=TimeSeriesSplit(3)).fit(*table)
        assert caught[0].filename == __file__
        first = [(np.arange(20), np.arange(20, 40))]
        with pytest.warns(UserWarning, match=f"^The first pair of validation has {message}"):
            expected = regressor(validation=first).fit(*table)
        assert_array_equal(est.predict(table[0]), expected.predict(table[0]))

    @pytest.mark.parametrize("validation", ["holdout", GroupKFold(5)])
    def test_groups_are_never_divided(self, table, validation):
        X, y = table
        groups = np.arange(len(y)) // 4
        X = np.column_stack([X, groups])
        for seed in range(5):
            rows = [("rows", TrainingRows())]
            est = regressor(validation=validation, callbacks=rows, random_state=seed)
            est.fit(X, y, groups=groups)
            _, counts = np.unique(training_rows(est)[:, 3], return_counts=True)
            assert (counts == 4).all()
            assert 10 <= len(counts) < 20

    def test_stratified_splitter_of_classes(self, classes):
        X, y = classes
        est = classifier(validation=StratifiedKFold(4)).fit(X, np.array(["a", "b", "c"])[y])
        assert "valid_loss" in est.history_[0]

    @pytest.mark.parametrize("method", ["erm", "probmix", "m-probmix"])
    def test_loss_of_the_best_epoch_is_that_of_the_fitted_estimator(self, table, method):
        X, y = table
        est = regressor(kind(method, n_iter_no_change=None), max_epochs=30)
        est.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
        losses = [epoch["valid_loss"] for epoch in est.history_]
        assert est.best_epoch_ == 1 + np.argmin(losses)
        assert est.n_iter_ == len(losses) == 30
        assert _validation_loss(est, X[40:], y[40:]) == pytest.approx(min(losses), abs=1e-5)

    def test_the_same_of_classes(self, classes):
        X, y = classes
        est = classifier(max_epochs=30).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
        log_p = est.predict_log_proba(X[60:])[np.arange(60), y[60:]]
        best = min(epoch["valid_loss"] for epoch in est.history_)
        assert -log_p.mean() == pytest.approx(best, abs=1e-5)

    def test_the_best_epoch_is_not_the_last_where_validation_gets_worse(self, table):
        X, y = table
        est = regressor(method="erm", max_epochs=25, lr=0.05)
        est.fit(X, y, X_val=X, y_val=np.random.default_rng(0).permutation(y))
        assert est.best_epoch_ < est.n_iter_

    def test_early_stopping_waits_as_long_as_it_is_told(self, table):
        X, y = table
        est = regressor(kind("erm", n_iter_no_change=7), max_epochs=500, lr=0.05)
        est.fit(X, y, X_val=X, y_val=np.random.default_rng(0).permutation(y))
        assert est.n_iter_ == est.best_epoch_ + 7 < 500

    def test_no_early_stopping_runs_all_epochs(self, table):
        est = regressor(kind("erm", n_iter_no_change=1), max_epochs=60, lr=0.05)
        assert clone(est).fit(*table).n_iter_ < 60
        assert est.set_params(method__n_iter_no_change=None).fit(*table).n_iter_ == 60

    def test_none_trains_on_all_rows_and_keeps_the_last_epoch(self, table):
        X, y = table
        est = regressor(validation=None, callbacks=[("rows", TrainingRows())]).fit(X, y)
        assert len(training_rows(est)) == len(X)
        assert est.best_epoch_ == est.n_iter_ == 3
        assert not any("valid_loss" in epoch for epoch in est.history_)

    def test_given_rows_are_not_trained_on(self, table):
        X, y = table
        est = regressor(callbacks=[("rows", TrainingRows())])
        est.fit(X, y, X_val=X[:10] + 100, y_val=y[:10])
        assert len(training_rows(est)) == len(X)
        assert training_rows(est).max() < 50

    def test_weights_of_validation_rows_choose_the_epoch(self, table):
        X, y = table
        fold = np.where(np.arange(len(y)) < 40, -1, 0)
        weight = np.where(np.arange(len(y)) < 60, 1.0, 1e-9)
        est = regressor(method="erm", validation=PredefinedSplit(fold), max_epochs=20)
        est.fit(X, y, sample_weight=weight)
        best = min(epoch["valid_loss"] for epoch in est.history_)
        assert _validation_loss(est, X[40:60], y[40:60]) == pytest.approx(best, abs=1e-4)


def _fitted_in_folds(make, X, y, **params):
    """Fit an ensemble, and tell who held which row out, (n_members, n)."""
    est = make(callbacks=[("rows", TrainingRows())], **params).fit(X, y)
    trained = dict(est.net_.callbacks_)["rows"].rows_.T
    return est, np.array([~np.isin(np.arange(len(X)), rows) for rows in trained])


def _member(est, make, number, X, y, **params):
    """One member of every kind, alone, as if the fit had been of it only."""
    single = make(**params | {"n_members": 1, "validation": None}).fit(X, y)
    for own, ensemble in zip(single.nets_, est.nets_, strict=True):
        own.module_.load_state_dict(ensemble.module_.state_of(number))
    single.weights_ = est.weights_
    return single


class TestFolds:
    """A number of folds, of which several members may share one."""

    @pytest.mark.parametrize(("n_members", "n_folds"), [(2, 2), (3, 3), (6, 3), (8, 2)])
    def test_every_row_is_held_out_by_as_many_members(self, table, n_members, n_folds):
        _, held_out = _fitted_in_folds(regressor, *table, n_members=n_members, validation=n_folds)
        assert (held_out.sum(0) == n_members // n_folds).all()
        assert_allclose(held_out.sum(1), len(table[0]) / n_folds, atol=1)
        # Members that are as many apart as there are folds share one; others share no row.
        shared = held_out.astype(int) @ held_out.T
        same = np.subtract.outer(np.arange(n_members), np.arange(n_members)) % n_folds == 0
        assert ((shared > 0) == same).all()

    def test_as_many_folds_as_members_are_those_of_cv(self, table):
        X, y = table
        folds, cv = (regressor(n_members=4, validation=how).fit(X, y) for how in (4, "cv"))
        assert_array_equal(folds.predict(X), cv.predict(X))
        assert folds.oof_scores_ == cv.oof_scores_

    @pytest.mark.parametrize("method", ["erm", "m-probmix", ["erm", "probmix"]])
    @pytest.mark.parametrize("n_members", [3, 6])
    def test_out_of_fold_mixes_the_members_that_held_the_row_out(self, table, method, n_members):
        X, y = table
        params = {"method": kind(method), "n_members": n_members, "validation": 3}
        est, held_out = _fitted_in_folds(regressor, X, y, **params)
        density, mean = np.zeros((2, n_members, len(y)))
        for number in range(n_members):
            member = _member(est, regressor, number, X, y, **params)
            density[number] = np.exp(member.predict_proba(X).logpdf(y))
            mean[number] = member.predict(X)
        n_holders = n_members // 3
        oof = est.oof_predictive_
        assert_allclose(np.exp(oof.logpdf(y)), (held_out * density).sum(0) / n_holders, rtol=1e-5)
        assert_allclose(oof.mean(), (held_out * mean).sum(0) / n_holders, rtol=1e-4, atol=1e-5)
        assert_allclose(est.predict(X), mean.mean(0), rtol=1e-4, atol=1e-5)
        # Those who trained on a row would have given another density.
        assert np.abs(density.mean(0) - np.exp(oof.logpdf(y))).max() > 1e-3
        assert est.oof_scores_["nll"] == pytest.approx(nll(y, oof))

    def test_out_of_fold_probabilities_of_classes(self, classes):
        X, y = classes
        params = {"method": "erm", "n_members": 4, "validation": 2}
        est, held_out = _fitted_in_folds(classifier, X, y, **params)
        p = [_member(est, classifier, m, X, y, **params).predict_proba(X) for m in range(4)]
        expected = (held_out[:, :, None] * np.array(p)).sum(0) / 2
        assert_allclose(est.oof_predictive_, expected, rtol=1e-5)

    def test_folds_of_classes_are_stratified(self, classes):
        X, y = classes
        _, held_out = _fitted_in_folds(classifier, X, y, n_members=4, validation=4)
        counts = np.array([np.bincount(y[rows]) for rows in held_out])
        assert np.ptp(counts, axis=0).max() <= 1

    def test_folds_keep_groups_together(self, table):
        X, y = table
        groups = np.arange(len(y)) // 8
        rows = [("rows", TrainingRows())]
        est = regressor(n_members=4, validation=2, callbacks=rows).fit(X, y, groups=groups)
        for own in dict(est.net_.callbacks_)["rows"].rows_.T:
            _, counts = np.unique(groups[own[own >= 0]], return_counts=True)
            assert (counts == 8).all()

    def test_fewer_groups_than_folds(self, table):
        X, y = table
        message = "2 different groups; expected at least 4, since each of 4 folds"
        with pytest.raises(ValueError, match=message):
            regressor(n_members=8, validation=4).fit(X, y, groups=np.arange(len(y)) % 2)

    def test_a_single_table_of_few_rows_may_be_divided_by_request(self):
        X, y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
        _, held_out = _fitted_in_folds(regressor, X, y, n_members=6, validation=6)
        assert_array_equal(held_out.sum(0), 1)


class TestFewRows:
    @pytest.mark.parametrize("n_rows", [2, 5, 9])
    @pytest.mark.parametrize("make", [regressor, classifier])
    def test_too_few_to_hold_some_out(self, make, n_rows):
        X, y = np.arange(2.0 * n_rows).reshape(-1, 2), np.arange(n_rows) % 2
        message = f"{n_rows} rows are too few to hold some out; the last epoch is kept"
        with pytest.warns(UserWarning, match=message) as caught:
            est = make().fit(X, y)
        assert caught[0].filename == __file__
        assert est.best_epoch_ == est.n_iter_

    @pytest.mark.parametrize("share", [0.2, np.float32(0.2)])
    def test_a_share_of_few_rows(self, share):
        X, y = np.arange(18.0).reshape(-1, 2), np.arange(9.0)
        with pytest.warns(UserWarning, match="9 rows are too few to hold some out"):
            regressor(validation=share).fit(X, y)

    @pytest.mark.parametrize("make", [regressor, classifier])
    def test_just_enough(self, make):
        X, y = np.arange(20.0).reshape(-1, 2), np.arange(10) % 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "valid_loss" in make().fit(X, y).history_[0]

    def test_class_of_one_row(self):
        X, y = np.arange(40.0)[:, None], np.repeat([0, 1, 2], [20, 19, 1])
        with pytest.warns(UserWarning, match="not stratified: the smallest of 3 classes has 1"):
            est = classifier().fit(X, y)
        assert est.predict_proba(X).shape == (40, 3)

    @pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7, 0.8, 0.9])
    def test_any_fraction_of_many_small_classes(self, fraction):
        X, y = np.arange(12.0)[:, None], np.arange(12) % 4
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The h.* not stratified", UserWarning)
            est = classifier(method="erm", validation=fraction).fit(X, y)
        assert est.predict_proba(X).shape == (12, 4)


class TestGoingOn:
    @pytest.mark.parametrize("method", METHODS)
    def test_warm_start_goes_on_from_the_weights(self, table, method):
        X, y = table
        est = regressor(method=method, warm_start=True, validation=None, max_epochs=10).fit(X, y)
        history, before = est.history_, nll(y, est.predict_proba(X))
        est.fit(X, y)
        assert nll(y, est.predict_proba(X)) < before
        assert est.history_[:10] == history
        assert (est.n_iter_, len(est.history_), est.best_epoch_) == (10, 20, 20)

    def test_without_it_a_second_fit_starts_anew(self, table):
        X, y = table
        assert len(regressor().fit(X, y).fit(X, y).history_) == 3

    def test_warm_start_keeps_the_units_of_the_first_fit(self, table):
        X, y = table
        est = regressor(warm_start=True, max_epochs=20).fit(X, y)
        mean, scale = est.scaler_.mean_, est.y_scale_
        expected = est.predict(X)
        est.set_params(max_epochs=1, lr=1e-6).fit(3 * X + 2, y)
        assert_array_equal(est.scaler_.mean_, mean)
        assert_array_equal(est.y_scale_, scale)
        assert np.abs(est.predict(X) - expected).mean() < 0.3

    def test_warm_start_uses_the_new_number_of_epochs(self, table):
        est = regressor(warm_start=True).fit(*table)
        assert est.set_params(max_epochs=7).fit(*table).n_iter_ == 7

    def test_warm_start_uses_the_new_step_size(self, table):
        X, y = table
        est = regressor(warm_start=True).fit(X, y)
        expected = est.predict(X)
        est.set_params(lr=1e-12, weight_decay=0.0).fit(X, y)
        assert_allclose(est.predict(X), expected, atol=1e-6)

    def test_warm_start_repeats_the_schedule_of_the_step_size(self, table):
        X, y = table
        cosine = kind("m-probmix", lr_schedule="cosine")
        est = regressor(cosine, warm_start=True, validation=None, max_epochs=4)
        est.fit(X, y).fit(X, y)
        expected = est.lr * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
        assert_allclose(est.net_.history[:, "event_lr"], np.tile(expected, 2))

    def test_warm_start_after_a_pass_runs_all_epochs(self, table):
        est = regressor(warm_start=True).partial_fit(*table)
        assert est.fit(*table).n_iter_ == 3

    @pytest.mark.parametrize("method", METHODS)
    def test_passes_make_progress(self, method):
        X, y = make_table(n_rows=200)
        est = regressor(method=method)
        losses = [nll(y, est.partial_fit(X, y).predict_proba(X)) for _ in range(12)]
        assert losses[-1] < losses[0] - 0.2
        assert len(est.history_) == 12
        assert est.n_iter_ == 1

    @pytest.mark.parametrize("make", [regressor, classifier])
    def test_a_pass_over_a_single_row(self, table, make):
        X, y = table
        est = make().partial_fit(X, y > 0).partial_fit(X[:1], y[:1] > 0)
        assert len(est.history_) == 2

    def test_a_pass_is_not_the_repetition_of_the_one_before(self, table):
        X, y = table
        rows = []
        est = regressor(callbacks=[("first", FirstBatch(rows))])
        est.partial_fit(X, y).partial_fit(X, y)
        assert len(rows) == 2
        assert not np.array_equal(*rows)

    def test_a_pass_holds_nothing_out(self, table):
        est = regressor(callbacks=[("rows", TrainingRows())]).partial_fit(*table)
        assert len(training_rows(est)) == len(table[0])

    def test_passes_over_parts_know_all_classes(self, classes):
        X, y = classes
        names = np.array(["a", "b", "c"])
        order = np.argsort(y, kind="stable")
        est = classifier(method="erm")
        for _ in range(6):
            for rows in np.array_split(order, 3):
                est.partial_fit(X[rows], names[y[rows]], classes=["c", "b", "a", "never"])
        assert est.classes_.tolist() == ["a", "b", "c", "never"]
        assert est.predict_proba(X)[:, 3].mean() < 0.2

    def test_a_pass_after_fit_goes_on_from_it(self, table):
        X, y = table
        est = regressor(max_epochs=30).fit(X, y)
        before = est.predict(X)
        after = est.partial_fit(X, y).predict(X)
        assert 0 < np.abs(after - before).mean() < 0.3

    @pytest.mark.parametrize("n_members", [1, 2])
    @pytest.mark.parametrize("own", [False, True])
    @pytest.mark.parametrize("how", ["fit", "partial_fit"])
    def test_the_net_of_before_is_not_changed(self, table, how, own, n_members):
        X, y = table
        net = NeuralNet(DenseNet, NegativeLogLikelihood, max_epochs=3) if own else None
        est = regressor("probmix", net=net, n_members=n_members, warm_start=True).fit(X, y)
        net, expected = est.net_, est.predict(X)
        history, callbacks = list(net.history), list(net.callbacks_)
        epochs = copy.deepcopy(history)
        optimizer = copy.deepcopy(net.optimizer_.state_dict())
        getattr(est, how)(X, y)
        assert est.net_ is not net
        assert len(est.net_.history) == 3 + (3 if how == "fit" else 1)
        assert list(net.history) == history == epochs
        assert list(net.callbacks_) == callbacks
        torch.testing.assert_close(net.optimizer_.state_dict(), optimizer, rtol=0, atol=0)
        assert (est.predict(X) != expected).any()
        est.nets_ = [net]
        assert_array_equal(est.predict(X), expected)

    @pytest.mark.parametrize("how", ["fit", "partial_fit"])
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"method": "erm"}, "method"),
            ({"method": kind("mixup")}, "method"),
            ({"method__method": "m-probmix"}, "method"),
            ({"method": ["erm", "probmix"]}, "method"),
            ({"hidden_layer_sizes": (16, 16)}, "hidden_layer_sizes"),
            ({"hidden_layer_sizes": None}, "hidden_layer_sizes"),
            ({"method__dropout": 0.5}, "dropout"),
            ({"method__mixing_layer": 0}, "mixing_layer"),
            ({"method__variance_weighting": 0.5}, "variance_weighting"),
            ({"activation": "tanh"}, "activation"),
            ({"n_knots": 4}, r"knots=\[3, 4\]"),
            ({"n_members": 2}, "n_members"),
            ({"family": "homoscedastic-normal"}, "family"),
        ],
        ids=str,
    )
    def test_a_change_of_the_networks_is_refused_by_name(self, table, change, named, how):
        X, y = table
        est = regressor("probmix", warm_start=True).fit(X, y)
        expected, before = est.predict(X), vars(est).copy()
        asked = est.method
        est.method = clone(asked)
        est.set_params(**change)
        with pytest.raises(ValueError, match=rf"changed since fit: .* networks of {named}.*anew"):
            getattr(est, how)(X, y)
        vars(est).update({name: before[name] for name in est.get_params(deep=False)})
        assert vars(est) == before
        assert_array_equal(est.predict(X), expected)

    @pytest.mark.parametrize(
        "change",
        [
            {"alpha": 1.0},
            {"pooling": "linear"},
            {"n_neighbors": 3},
            {"lr": 0.01},
            {"batch_size": "full"},
            {"validation": 0.4},
            {"method__beta": 0.1},
            {"method__n_iter_no_change": None},
        ],
        ids=str,
    )
    def test_what_is_no_part_of_the_networks_may_change(self, table, change):
        X, y = table
        est = regressor("probmix", warm_start=True).fit(X, y)
        before = est.predict(X)
        assert len(est.set_params(**change).fit(X, y).history_) == 6
        assert (est.predict(X) != before).any()


class FirstBatch(Callback):
    """Append the first batch of every fit to a list."""

    def __init__(self, rows):
        self.rows = rows

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training and not net.history[-1, "batches"][0]:
            self.rows.append(batch[0].numpy().copy())


class TestNets:
    def _net(self, module=DenseNet, **params):
        params = {"max_epochs": 4, "lr": 0.05, "optimizer": torch.optim.Adam} | params
        return NeuralNet(module, NegativeLogLikelihood, **params)

    @pytest.mark.parametrize("method", ["erm", "mixup", "manifold-mixup", "probmix"])
    @pytest.mark.parametrize("classes", [None, 3])
    def test_module_is_told_sizes_and_family(self, table, method, classes):
        X, y = table
        kwargs = {"net": self._net(), "method": method, "random_state": 0}
        if classes:
            est = ProbMixupClassifier(**kwargs).fit(X, np.digitize(y, [-0.5, 0.5]))
            assert est.predict_proba(X).shape == (80, 3)
        else:
            est = ProbMixupRegressor(**kwargs).fit(X, np.column_stack([y, y]))
            assert est.predict_proba(X).shape == (80, 2)
        assert est.n_iter_ == 4

    def test_module_that_wants_to_know_nothing(self, table):
        X, y = table
        est = ProbMixupRegressor(
            n_members=1, calibration="off", net=self._net(FixedNet, max_epochs=20), method="probmix"
        )
        assert est.set_params(random_state=0).fit(X, y).score(X, y) > 0.5

    def test_what_the_user_set_is_kept(self, table):
        net = self._net(module__hidden=5, module__family=get_family("normal", variance_floor=0.5))
        est = ProbMixupRegressor(
            n_members=1, calibration="off", net=net, method="erm", random_state=0
        ).fit(*table)
        assert est.net_.module_.head.in_features == 5
        assert est.net_.module_.family.variance_floor == 0.5

    def test_net_of_the_user_is_not_touched(self, table):
        net = self._net()
        before = vars(net).copy()
        ProbMixupRegressor(
            n_members=1, calibration="off", net=net, random_state=0, method="probmix"
        ).fit(*table)
        assert vars(net) == before
        assert not net.initialized_

    def test_module_that_is_an_instance(self, table):
        torch.manual_seed(0)
        module = FixedNet()
        weights = [parameter.clone() for parameter in module.parameters()]
        est = ProbMixupRegressor(
            n_members=1, calibration="off", net=self._net(module), method="probmix", random_state=0
        )
        est.fit(*table)
        assert all(map(torch.equal, weights, module.parameters()))
        assert np.isfinite(est.predict(table[0])).all()

    @pytest.mark.parametrize("method", ["erm", "manifold-mixup", "probmix"])
    def test_sequences(self, method):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(120, 5, 2)) * [1, 100]
        y = X[:, :, 0].mean(1)
        net = self._net(SequenceNet, max_epochs=40)
        est = ProbMixupRegressor(
            n_members=1, calibration="off", net=net, method=method, random_state=0
        ).fit(X, y)
        assert est.score(X, y) > 0.7
        assert_array_equal(est.predict(X[40:50]), est.predict(X)[40:50])

    def test_neighbours_among_sequences(self):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(60, 5, 2))
        est = ProbMixupRegressor(
            n_members=1,
            calibration="off",
            net=self._net(SequenceNet),
            method="probmix",
            n_neighbors=3,
        )
        assert np.isfinite(est.fit(X, X[:, 0, 0]).predict(X)).all()

    def test_loader_of_the_user_is_used(self, table):
        batches = []

        class CountingLoader(TensorLoader):
            def __iter__(self):
                for batch in super().__iter__():
                    batches.append(len(batch[0]))
                    yield batch

        net = self._net(max_epochs=1, iterator_train=CountingLoader, batch_size=16)
        ProbMixupRegressor(
            n_members=1, calibration="off", net=net, method="probmix", random_state=0
        ).fit(*table)
        assert batches == [16] * 4

    def test_arguments_of_the_default_loader_are_understood(self, table):
        net = self._net(
            iterator_train__drop_last=True, iterator_train__num_workers=0, batch_size=16
        )
        est = ProbMixupRegressor(
            n_members=1, calibration="off", net=net, method="probmix", random_state=0
        )
        assert est.fit(*table).n_iter_ == 4
        with pytest.raises(ValueError, match="no batch of batch_size=1000"):
            est.set_params(net__batch_size=1000).fit(*table)

    def test_epochs_are_those_of_the_net(self, table):
        est = ProbMixupRegressor(
            n_members=1, calibration="off", net=self._net(max_epochs=2), max_epochs=50, method="erm"
        )
        assert est.fit(*table).n_iter_ == 2


class LearningRates(Callback):
    def initialize(self):
        self.rates_ = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.rates_.append(net.optimizer_.param_groups[0]["lr"])


@pytest.mark.parametrize("where", ["net", "callbacks"])
class TestCallbacksOfTheUser:
    def _fit(self, where, callbacks, X, y):
        common = {"method": kind("probmix", n_iter_no_change=None), "random_state": 0}
        if where == "net":
            net = NeuralNet(
                FixedNet, NegativeLogLikelihood, max_epochs=60, lr=0.05, callbacks=callbacks
            )
            return ProbMixupRegressor(n_members=1, calibration="off", net=net, **common).fit(X, y)
        return regressor(callbacks=callbacks, max_epochs=60, **common).fit(X, y)

    def test_early_stopping_ends_training_without_a_warning(self, table, where):
        X, y = table
        stopping = EarlyStopping(patience=3, threshold=10.0, threshold_mode="abs")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            est = self._fit(where, [stopping], X, y)
        assert est.n_iter_ == 4
        losses = [epoch["valid_loss"] for epoch in est.history_]
        assert est.best_epoch_ == 1 + np.argmin(losses)

    def test_step_size_schedule(self, table, where):
        schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=20, gamma=0.1)
        est = self._fit(where, [schedule, ("rates", LearningRates())], *table)
        rates = dict(est.net_.callbacks_)["rates"].rates_
        assert rates[50] == pytest.approx(rates[0] / 100)

    def test_early_stopping_serves_a_second_fit_too(self, table, where):
        stopping = EarlyStopping(patience=3, threshold=10.0, threshold_mode="abs")
        first = self._fit(where, [stopping], *table)
        second = self._fit(where, [stopping], *table)
        assert_array_equal(first.predict(table[0]), second.predict(table[0]))


def test_no_hook_is_left_after_fit(table):
    for method in METHODS:
        module = regressor(method=method).fit(*table).net_.module_
        assert not any(part._forward_hooks for part in module.modules())


def test_alpha_zero_is_no_mixing(table):
    X, y = table
    for method in ("mixup", "manifold-mixup", "probmix"):
        est = regressor(method=method, alpha=0, n_neighbors=3).fit(X, y)
        assert_array_equal(est.predict(X), regressor(method="erm").fit(X, y).predict(X))


def test_every_method_trains_another_network(table):
    X, y = table
    means = [regressor(method=method, alpha=1.0).fit(X, y).predict(X) for method in METHODS]
    for i, left in enumerate(means):
        for right in means[:i]:
            assert np.abs(left - right).max() > 1e-3


def test_kernel_around_the_responses_widens_the_predictions():
    X, y = make_table(n_rows=300)
    plain, smoothed = (
        np.median(
            regressor(kind("probmix", beta=beta), alpha=0.1, max_epochs=30)
            .fit(X, y)
            .predict(X, return_std=True)[1]
        )
        for beta in (0.0, 1.0)
    )
    # The variance grows by beta, in units of the standardised y.
    assert smoothed**2 == pytest.approx(plain**2 + y.var(), rel=0.35)


class TestWhileItTrains:
    def test_silent_by_default(self, table, capfd):
        regressor().fit(*table)
        assert capfd.readouterr() == ("", "")

    def test_bar_names_the_method_the_losses_and_the_best_epoch(self, table, capfd):
        est = regressor(method="probmix", verbose=1).fit(*table)
        bar = capfd.readouterr().err
        for part in ("probmix", "3/3", "train_loss=", "valid_loss=", f"best={est.best_epoch_}"):
            assert part in bar
        pickle.dumps(est)

    def test_table_of_epochs(self, table, capfd):
        regressor(verbose=2).fit(*table)
        assert "valid_loss" in capfd.readouterr().out

    def test_history_is_a_frame_in_one_call(self, table):
        frame = pd.DataFrame(regressor(method=["erm", "probmix"]).fit(*table).history_)
        assert frame.groupby("kind").size().tolist() == [3, 3]
        assert {"epoch", "train_loss", "valid_loss"} <= set(frame)
