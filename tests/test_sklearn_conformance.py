"""What scikit-learn asks of an estimator: its own checks, cloning, pickling, searches, routing."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from numpy.testing import assert_array_equal
from one_network import ONE_NETWORK
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    PredictiveDistribution,
    ProbMixupClassifier,
    ProbMixupRegressor,
    neg_crps_scorer,
    neg_nll_scorer,
)

EXPECTED_FAILURES = {
    "check_regressors_no_decision_function": (
        "scikit-learn forbids predict_proba on regressors, and predictive distributions are what "
        "this one is for"
    ),
    "check_sample_weight_equivalence_on_dense_data": (
        "training is stochastic: a row of weight 2 is not the same draws as that row twice"
    ),
}

METHODS = ["erm", "mixup", "manifold-mixup", "probmix", "m-probmix"]
# Enough for the R2 and the accuracy that two of the checks ask for.
_SMALL = ONE_NETWORK | {"hidden_layer_sizes": (16,), "max_epochs": 12, "lr": 0.03}
_KINDS = {method: Kind(method, lr_schedule="constant", n_draws=8) for method in METHODS}
_VARIANTS = [
    *({"method": kind} for method, kind in _KINDS.items() if method != "erm"),
    {"method": _KINDS["probmix"], "n_neighbors": 2, "pooling": "linear"},
]
_TINY = ONE_NETWORK | {"hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0}


class TinyNet(torch.nn.Module):
    def __init__(self, n_features, hidden=4):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(n_features, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 2)
        )

    def forward(self, X):
        mean, log_variance = self.layers(X).unbind(-1)
        precision = torch.exp(-log_variance)
        return torch.stack([mean * precision, -0.5 * precision], dim=-1).unsqueeze(1)


class TrainingRows(Callback):
    """Remember the rows that the last fit trained on."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.X_ = X.table.X[X.rows].numpy()


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    return X, X[:, 0] + 0.3 * rng.normal(size=80)


@pytest.fixture(scope="module")
def classes():
    X, y = make_classification(90, 4, n_informative=3, n_redundant=0, random_state=0)
    return X, np.array(["no", "yes"])[y]


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@parametrize_with_checks(
    [
        ProbMixupRegressor(),
        ProbMixupClassifier(),
        *(ProbMixupRegressor(**(_SMALL | variant)) for variant in _VARIANTS),
        *(ProbMixupClassifier(**(_SMALL | variant)) for variant in _VARIANTS),
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_check_estimator(estimator, check):
    check(estimator)


# By a name of its own, for where all of them would take too long. A check raises where it fails.
@parametrize_with_checks(
    [
        make(**(_SMALL | {"method": _KINDS["erm"]}))
        for make in (ProbMixupRegressor, ProbMixupClassifier)
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_one_network(estimator, check):
    check(estimator)


def test_only_these_two_checks_are_excused():
    # That each of them fails, and no other, is what the strict test above says.
    names = {check.func.__name__ for _, check in estimator_checks_generator(ProbMixupRegressor())}
    assert set(EXPECTED_FAILURES) & names == {
        "check_regressors_no_decision_function",
        "check_sample_weight_equivalence_on_dense_data",
    }
    assert len(EXPECTED_FAILURES) == 2


@pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
class TestParameters:
    def test_set_params_undoes_get_params(self, make):
        params = make(method="erm", alpha=0.7, hidden_layer_sizes=(3, 2)).get_params()
        assert make().set_params(**params).get_params() == params

    def test_kinds_are_parameters_too(self, make):
        estimator = make(method=Kind("probmix", beta=0.05), alpha=0.3)
        params = estimator.get_params()
        assert (params["method__beta"], params["method__alpha"], params["alpha"]) == (
            0.05,
            0.2,
            0.3,
        )
        copy = clone(estimator)
        assert copy.get_params() == params
        copy.set_params(method__beta=0.1)
        assert (copy.method.beta, estimator.method.beta) == (0.1, 0.05)
        assert repr(estimator) == (
            f"{make.__name__}(alpha=0.3, method=Kind(beta=0.05, method='probmix'))"
        )

    def test_clone_copies_parameters_and_no_fit(self, make, classes):
        X, y = classes
        fitted = make(**_TINY).fit(X, (y == "yes").astype(int))
        copy = clone(fitted)
        assert copy.get_params() == fitted.get_params()
        assert not [name for name in vars(copy) if name.endswith("_")]

    def test_net_parameters_are_reached_by_name(self, make):
        estimator = make(net=NeuralNet(TinyNet, NegativeLogLikelihood, module__hidden=3))
        clone(estimator).set_params(net__module__hidden=7, net__lr=0.5)
        copy = clone(estimator).set_params(net__module__hidden=7, net__lr=0.5)
        assert (copy.net.module__hidden, copy.net.lr) == (7, 0.5)
        assert estimator.net.module__hidden == 3

    def test_repr_html_shows_the_parameter_that_was_changed(self, make):
        html = make(alpha=0.4321)._repr_html_()
        assert make.__name__ in html
        assert "0.4321" in html

    def test_repr_shows_only_what_was_changed(self, make):
        assert repr(make(alpha=0.5)) == f"{make.__name__}(alpha=0.5)"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_predictions_bitwise(table, protocol):
    X, y = table
    fitted = ProbMixupRegressor(**_TINY).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted, protocol=protocol))
    assert_array_equal(again.predict(X, return_std=True), fitted.predict(X, return_std=True))


@pytest.mark.parametrize("method", METHODS)
def test_joblib_keeps_class_probabilities_bitwise(classes, method, tmp_path):
    X, y = classes
    fitted = ProbMixupClassifier(**(_TINY | {"method": _KINDS[method]})).fit(X, y)
    joblib.dump(fitted, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_a_pickled_estimator_can_be_trained_further(table):
    X, y = table
    fitted = ProbMixupRegressor(warm_start=True, **_TINY).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted)).fit(X, y)
    assert_array_equal(again.predict(X), fitted.fit(X, y).predict(X))


class TestSearch:
    def test_pipeline_over_own_parameters_in_two_processes(self, table):
        X, y = table
        grid = {
            "probmixupregressor__method": ["erm", "probmix"],
            "probmixupregressor__alpha": [0.1, 0.4],
            "probmixupregressor__hidden_layer_sizes": [(8,), (8, 8)],
        }
        pipeline = make_pipeline(StandardScaler(), ProbMixupRegressor(**_TINY))
        search = GridSearchCV(
            pipeline, grid, scoring=neg_nll_scorer, n_jobs=2, cv=2, error_score="raise"
        ).fit(X, y)
        assert len(np.unique(search.cv_results_["mean_test_score"])) > 3
        dist = search.predict_proba(X[:7])
        assert isinstance(dist, PredictiveDistribution)
        assert dist.shape == (7,)

    def test_into_a_kind(self, table):
        X, y = table
        estimator = ProbMixupRegressor(**_TINY | {"method": _KINDS["probmix"]})
        grid = {"method__beta": [0.0, 1.0], "method__n_mixes": [1, 2]}
        search = GridSearchCV(estimator, grid, cv=2, scoring=neg_nll_scorer, error_score="raise")
        search.fit(X, y)
        assert len(np.unique(search.cv_results_["mean_test_score"])) == 4
        best = search.best_params_
        expected = _KINDS["probmix"].updated(
            beta=best["method__beta"], n_mixes=best["method__n_mixes"]
        )
        by_hand = ProbMixupRegressor(**_TINY | {"method": expected}).fit(X, y)
        assert_array_equal(search.predict(X), by_hand.predict(X))

    def test_over_kinds(self, table):
        X, y = table
        estimator = ProbMixupRegressor(**_TINY)
        grid = {"method": [_KINDS["erm"], _KINDS["mixup"], [_KINDS["erm"], _KINDS["mixup"]]]}
        search = GridSearchCV(estimator, grid, cv=2, error_score="raise").fit(X, y)
        assert len(np.unique(search.cv_results_["mean_test_score"])) == 3

    def test_over_the_users_own_net_in_two_processes(self, table):
        X, y = table
        net = NeuralNet(TinyNet, NegativeLogLikelihood, max_epochs=2)
        estimator = ProbMixupRegressor(n_members=1, net=net, method="probmix", random_state=0)
        pipeline = make_pipeline(StandardScaler(), estimator)
        grid = {"probmixupregressor__net__module__hidden": [2, 9]}
        search = GridSearchCV(
            pipeline, grid, scoring=neg_crps_scorer, n_jobs=2, cv=2, error_score="raise"
        ).fit(X, y)
        best = search.best_params_["probmixupregressor__net__module__hidden"]
        assert search.best_estimator_[-1].net_.module_.layers[0].out_features == best
        assert isinstance(search.predict_proba(X), PredictiveDistribution)

    def test_scorer_prefers_the_trained_over_the_untrained(self, table):
        X, y = table
        estimator = ProbMixupRegressor(**(ONE_NETWORK | {"random_state": 0, "lr": 0.02}))
        search = GridSearchCV(estimator, {"max_epochs": [1, 40]}, scoring=neg_nll_scorer, cv=2)
        assert search.fit(X, y).best_params_ == {"max_epochs": 40}

    def test_classifier_by_log_loss(self, classes):
        X, y = classes
        estimator = ProbMixupClassifier(**(ONE_NETWORK | {"random_state": 0, "lr": 0.02}))
        search = GridSearchCV(estimator, {"max_epochs": [1, 30]}, scoring="neg_log_loss", cv=2)
        assert search.fit(X, y).best_params_ == {"max_epochs": 30}
        assert -0.69 < search.best_score_ < 0


_FRAMES = {
    "pandas": lambda X: pd.DataFrame(X, columns=["a", "b", "c"]),
    "polars": lambda X: pl.DataFrame(X, schema=["a", "b", "c"]),
}


@pytest.mark.parametrize("library", _FRAMES)
class TestFrames:
    def test_names_are_kept_and_values_read_as_from_an_array(self, table, library):
        X, y = table
        frame = _FRAMES[library](X)
        fitted = ProbMixupRegressor(**_TINY).fit(frame, y)
        assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
        assert_array_equal(fitted.predict(frame), ProbMixupRegressor(**_TINY).fit(X, y).predict(X))

    def test_columns_in_another_order_are_an_error(self, table, library):
        X, y = table
        frame = _FRAMES[library](X)
        fitted = ProbMixupRegressor(**_TINY).fit(frame, y)
        with pytest.raises(ValueError, match="feature names should match"):
            fitted.predict_proba(frame[["b", "a", "c"]])

    def test_series_of_labels(self, table, library):
        X, y = table
        labels = np.where(y > 0, "high", "low")
        series = {"pandas": pd.Series, "polars": pl.Series}[library](labels)
        fitted = ProbMixupClassifier(**_TINY).fit(_FRAMES[library](X), series)
        assert fitted.classes_.tolist() == ["high", "low"]
        assert set(fitted.predict(_FRAMES[library](X))) <= {"high", "low"}

    def test_no_warning_at_memory_that_a_frame_lends_read_only(self, table, library):
        X, y = table
        series = {"pandas": pd.Series, "polars": pl.Series}[library](y)
        weight = {"pandas": pd.Series, "polars": pl.Series}[library](np.abs(y))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator = ProbMixupRegressor(**_TINY).fit(_FRAMES[library](X), series, weight)
            estimator.predict(_FRAMES[library](X))
        assert [str(warning.message) for warning in caught] == []


def test_no_warning_at_read_only_arrays(table):
    # The processes of a search get their data as read-only memory maps.
    X, y = (array.copy() for array in table)
    weight = np.abs(y)
    for array in (X, y, weight):
        array.flags.writeable = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # torch says it once in a process unless it is told otherwise.
        torch.set_warn_always(True)
        try:
            ProbMixupRegressor(**_TINY).fit(X, y, weight).predict(X)
            ProbMixupClassifier(**_TINY).fit(X, y > 0, weight).predict(X)
        finally:
            torch.set_warn_always(False)
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.usefixtures("routing")
class TestRouting:
    def _pipeline(self, **params):
        estimator = ProbMixupRegressor(**_TINY, **params)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        return Pipeline([("scale", scaler), ("net", estimator)], transform_input=["X_val"])

    def test_pipeline_transforms_and_passes_validation_data(self, table):
        X, y = table
        X = X * [1.0, 100.0, 0.01] + 7
        fitted = self._pipeline().fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
        scaler = StandardScaler().fit(X[:60])
        by_hand = ProbMixupRegressor(**_TINY).fit(
            scaler.transform(X[:60]), y[:60], X_val=scaler.transform(X[60:]), y_val=y[60:]
        )
        assert_array_equal(fitted.predict(X), by_hand.predict(scaler.transform(X)))
        assert fitted[-1].history_[0]["valid_loss"] == by_hand.history_[0]["valid_loss"]

    def test_pipeline_passes_sample_weight(self, table):
        X, y = table
        weight = np.linspace(0.1, 2, len(y))
        fitted = self._pipeline().fit(X, y, sample_weight=weight)
        by_hand = ProbMixupRegressor(**_TINY).fit(StandardScaler().fit_transform(X), y, weight)
        assert_array_equal(fitted.predict(X), by_hand.predict(StandardScaler().fit_transform(X)))

    def test_cross_validate_splits_sample_weight_with_the_rows(self, table):
        X, y = table
        weight = np.linspace(0.1, 2, len(y))
        estimator = ProbMixupRegressor(**_TINY).set_score_request(sample_weight=False)
        folds = cross_validate(
            estimator,
            X,
            y,
            cv=2,
            params={"sample_weight": weight},
            return_estimator=True,
            return_indices=True,
            error_score="raise",
        )
        train = folds["indices"]["train"][0]
        by_hand = ProbMixupRegressor(**_TINY).fit(X[train], y[train], weight[train])
        assert_array_equal(folds["estimator"][0].predict(X), by_hand.predict(X))

    def test_scorer_gets_sample_weight(self, table):
        X, y = table
        weight = np.where(np.arange(len(y)) % 2, 3.0, 0.0)
        scorer = neg_nll_scorer.set_score_request(sample_weight=True)
        folds = cross_validate(
            ProbMixupRegressor(**_TINY),
            X,
            y,
            cv=2,
            scoring=scorer,
            params={"sample_weight": weight},
            return_estimator=True,
            return_indices=True,
            error_score="raise",
        )
        test = folds["indices"]["test"][0]
        test = test[weight[test] > 0]
        expected = folds["estimator"][0].predict_proba(X[test]).logpdf(y[test]).mean()
        assert folds["test_score"][0] == pytest.approx(expected)

    def test_groups_reach_the_hold_out_inside_a_search(self, table):
        X, y = table
        groups = np.arange(len(y)) // 4
        X = np.column_stack([X, groups])
        estimator = ProbMixupRegressor(**_TINY, callbacks=[("rows", TrainingRows())])
        search = GridSearchCV(estimator, {"alpha": [0.1]}, cv=GroupKFold(2), error_score="raise")
        best = search.fit(X, y, groups=groups).best_estimator_
        seen = dict(best.net_.callbacks_)["rows"].X_[:, 3]
        _, rows_of_group = np.unique(seen, return_counts=True)
        assert len(rows_of_group) < 20
        assert (rows_of_group == 4).all()
