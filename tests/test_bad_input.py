"""What a user gets for bad input: an error that says what was found and what is expected.

A fit that fails leaves the estimator as it was; one that ends early says what it kept.
"""

import copy
import os
import pickle
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from one_network import ONE_NETWORK
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import PredefinedSplit
from sklearn.utils._param_validation import InvalidParameterError
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    ProbMixupClassifier,
    ProbMixupRegressor,
    TensorLoader,
    get_family,
)

ESTIMATORS = [ProbMixupRegressor, ProbMixupClassifier]
_TINY = ONE_NETWORK | {
    "method": Kind("erm", lr_schedule="constant"),
    "hidden_layer_sizes": (8,),
    "max_epochs": 3,
    "batch_size": 16,
    "random_state": 0,
}


def regressor(**params):
    return ProbMixupRegressor(**(_TINY | params))


def classifier(**params):
    return ProbMixupClassifier(**(_TINY | params))


def small(make, **params):
    return make(**(_TINY | params))


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    return X, (X[:, 0] + 0.1 * rng.normal(size=60) > 0).astype(float)


class FlatNet(torch.nn.Module):
    """Returns (rows, 2), without the axis of outputs, and has no submodule `embedding`."""

    def __init__(self, n_features, width=2):
        super().__init__()
        self.only_layer = torch.nn.Linear(n_features, width)

    def forward(self, X):
        return self.only_layer(X)


class WideNet(FlatNet):
    """Returns three parameters for each output."""

    def forward(self, X):
        return torch.cat([super().forward(X), X[:, :1]], dim=1).unsqueeze(1)


class SummedNet(FlatNet):
    """Loses the rows in its embedding."""

    def __init__(self, n_features):
        super().__init__(n_features)
        self.embedding = torch.nn.Flatten(0)

    def forward(self, X):
        return self.only_layer(self.embedding(X).reshape(X.shape)).unsqueeze(1)


class At(Callback):
    """Do something at the end of one batch."""

    def __init__(self, epoch, action, batch=2):
        self.epoch = epoch
        self.action = action
        self.batch = batch

    def on_batch_end(self, net, training=False, **kwargs):
        here = len(net.history), len(net.history[-1, "batches"])
        if training and here == (self.epoch, self.batch):
            self.action(net)


def poison(net):
    with torch.no_grad():
        for parameter in net.module_.parameters():
            parameter.fill_(torch.nan)


def interrupt(net):
    raise KeyboardInterrupt


def press_ctrl_c(net):
    os.kill(os.getpid(), signal.SIGINT)


class InterruptedLoader(TensorLoader):
    """A search for neighbours that takes too long for its user."""

    def __init__(self, *args, **kwargs):
        raise KeyboardInterrupt


class TestData:
    @pytest.mark.parametrize("make", ESTIMATORS)
    @pytest.mark.parametrize("value", [np.inf, -np.inf])
    def test_value_in_X_that_is_infinite(self, table, make, value):
        X, y = table
        X[3, 1] = value
        with pytest.raises(ValueError, match=r"(?s)column 1 of X.*Input X contains infinity"):
            small(make).fit(X, y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_value_in_y_that_is_not_finite(self, table, make, value):
        X, y = table
        y[3] = value
        with pytest.raises(ValueError, match=r"(?s)Input y contains (NaN|infinity)"):
            small(make).fit(X, y)

    def test_value_at_prediction_that_is_infinite(self, table):
        X, y = table
        fitted = regressor().fit(X, y)
        X[0, 0] = np.inf
        with pytest.raises(ValueError, match="Input X contains infinity"):
            fitted.predict_proba(X)

    @pytest.mark.parametrize("make", ESTIMATORS)
    @pytest.mark.parametrize("method", ["predict", "predict_proba"])
    def test_other_number_of_features(self, table, make, method):
        X, y = table
        fitted = small(make).fit(X, y)
        with pytest.raises(ValueError, match=r"X has 2 features.* expecting 3 features"):
            getattr(fitted, method)(X[:, :2])

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_other_number_of_features_in_partial_fit(self, table, make):
        X, y = table
        fitted = small(make).partial_fit(X, y)
        with pytest.raises(ValueError, match=r"X has 2 features.* expecting 3 features"):
            fitted.partial_fit(X[:, :2], y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_other_column_names(self, table, make):
        X, y = table
        fitted = small(make).fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
        with pytest.raises(ValueError, match=r"(?s)feature names should match.*- d"):
            fitted.predict(pd.DataFrame(X, columns=["a", "b", "d"]))

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_sparse_X(self, table, make):
        X, y = table
        with pytest.raises(TypeError, match="Sparse data was passed for X, but dense"):
            small(make).fit(sparse.csr_array(X), y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_complex_X(self, table, make):
        X, y = table
        with pytest.raises(ValueError, match="Complex data not supported"):
            small(make).fit(X + 1j, y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_words_in_X(self, table, make):
        X, y = table
        X = X.astype(object)
        X[0, 0] = "seven"
        with pytest.raises(ValueError, match="could not convert string to float: 'seven'"):
            small(make).fit(X, y)

    @pytest.mark.parametrize("values", [[["x"], ["y"]], ["2020", "2021"], [b"x", b"y"]])
    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_column_of_a_table_that_holds_no_numbers_is_named(self, table, make, values):
        X, y = table
        town = pd.Series(values * 30)
        if values[0] == "2020":
            town = pd.to_datetime(town)
        frame = pd.DataFrame({"a": X[:, 0], "town": town})
        with pytest.raises(ValueError, match="column 'town' of X, of type .*Encode"):
            small(make).fit(frame, y)

    def test_column_of_a_name_that_occurs_twice(self, table):
        X, y = table
        frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]})
        with pytest.raises(ValueError, match="(?s)Expected unique column names.*'a' 2 times"):
            regressor().fit(frame.set_axis(["a", "a"], axis=1), y)

    def test_other_mistakes_are_not_blamed_on_a_column(self, table):
        X, y = table
        frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]})
        est = regressor().fit(frame, y)
        with pytest.raises(ValueError, match="feature names should match"):
            est.predict(frame.assign(c="text"))

    @pytest.mark.parametrize("make", ESTIMATORS)
    @pytest.mark.parametrize(
        ("shape", "message"),
        [((0, 3), r"0 sample\(s\)"), ((1, 3), "1 sample"), ((4, 0), r"0 feature\(s\)")],
    )
    def test_too_few_rows_or_columns(self, make, shape, message):
        with pytest.raises(ValueError, match=f"{message}.*minimum of [12] is required"):
            small(make).fit(np.ones(shape), np.arange(shape[0]) % 2)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_one_row_says_how_many_are_needed(self, make):
        with pytest.raises(ValueError, match="minimum of 2"):
            small(make).fit([[1.0, 2.0]], [1])

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_X_without_columns_axis(self, table, make):
        X, y = table
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            small(make).fit(X[:, 0], y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_sequences_without_a_net_for_them(self, table, make):
        X, y = table
        with pytest.raises(ValueError, match="Found array with dim 3"):
            small(make).fit(X[:, :, None], y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_X_and_y_of_different_length(self, table, make):
        X, y = table
        with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[60, 59\]"):
            small(make).fit(X, y[:-1])

    def test_number_of_outputs_changes_in_partial_fit(self, table):
        X, y = table
        fitted = regressor().partial_fit(X, y)
        with pytest.raises(ValueError, match="y has 2 outputs; expected 1"):
            fitted.partial_fit(X, np.column_stack([y, y]))


class TestSupport:
    @pytest.mark.parametrize(
        ("family", "value", "support"),
        [
            ("lognormal", 0.0, "the positive numbers"),
            ("gamma", -1.5, "the positive numbers"),
            ("beta", 1.0, r"the open interval \(0, 1\)"),
            ("poisson", 2.5, "the counts 0, 1, 2"),
            ("poisson", -1.0, "the counts 0, 1, 2"),
            ("negative-binomial", -1.0, "the counts 0, 1, 2"),
            ("bernoulli", 2.0, r"the set \{0, 1\}"),
        ],
    )
    def test_message_says_row_value_and_support(self, family, value, support):
        inside = 0.5 if family == "beta" else 1.0
        y = np.full(20, inside)
        y[7] = value
        with pytest.raises(
            ValueError, match=rf"y\[7\] = {value}.*(?i:{family.replace('-', '')}).*{support}"
        ):
            regressor(family=family).fit(np.ones((20, 1)), y)

    def test_message_says_row_and_output(self):
        y = np.ones((20, 2))
        y[7, 1] = -3
        with pytest.raises(ValueError, match=r"y\[7, 1\] = -3\.0 is outside the support of Gamma"):
            regressor(family="gamma").fit(np.ones((20, 1)), y)

    def test_validation_data_are_named(self, table):
        X, y = table
        with pytest.raises(ValueError, match=r"y_val\[0\] = -2\.0 is outside the support of Gamma"):
            regressor(family="gamma").fit(X, y + 1, X_val=X, y_val=-y - 1)

    @pytest.mark.parametrize("label", [3, "only", True])
    def test_single_class(self, table, label):
        X, y = table
        with pytest.raises(ValueError, match=rf"single class.*{label}.*at least 2 classes"):
            classifier().fit(X, [label] * len(y))

    def test_numbers_in_place_of_classes(self, table):
        X, _ = table
        with pytest.raises(ValueError, match="Unknown label type: continuous"):
            classifier().fit(X, X[:, 0])

    def test_bernoulli_of_three_classes(self, table):
        X, _ = table
        with pytest.raises(ValueError, match="a Kind has family='poisson', which is for the regr"):
            classifier(method=["erm", Kind(family="poisson")]).fit(X, np.arange(60) % 2)
        with pytest.raises(ValueError, match="family='bernoulli' with 3 classes; expected 2"):
            classifier(family="bernoulli").fit(X, np.arange(60) % 3)

    def test_class_that_partial_fit_was_not_told_of(self, table):
        X, y = table
        fitted = classifier().partial_fit(X, y.astype(int), classes=[0, 1])
        with pytest.raises(ValueError, match=r"\[2\]; expected those of the first.*\[0, 1\]"):
            fitted.partial_fit(X, y.astype(int) * 2)


class TestValidationData:
    def test_X_val_alone(self, table):
        X, y = table
        with pytest.raises(ValueError, match="y_val"):
            regressor().fit(X, y, X_val=X)

    def test_y_val_alone(self, table):
        X, y = table
        with pytest.raises(ValueError, match="X_val"):
            regressor().fit(X, y, y_val=y)

    def test_different_lengths(self, table):
        X, y = table
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            regressor().fit(X, y, X_val=X, y_val=y[:-1])

    def test_unseen_class(self, table):
        X, y = table
        with pytest.raises(ValueError, match=r"classes \[7"):
            classifier().fit(X, y, X_val=X[:2], y_val=[7.0, 0.0])

    def test_number_of_features(self, table):
        X, y = table
        with pytest.raises(ValueError, match="X_val: X has 2 features.* expecting 3"):
            regressor().fit(X, y, X_val=X[:, :2], y_val=y)
        names = [pd.DataFrame(X, columns=list(order)) for order in ("abc", "acb")]
        with pytest.raises(ValueError, match="X_val: The feature names should match"):
            regressor().fit(names[0], y, X_val=names[1], y_val=y)
        with pytest.raises(ValueError, match="X_val: Expected 2D array, got 1D"):
            regressor().fit(X, y, X_val=X[:, 0], y_val=y)


class TestWeights:
    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            (np.full(60, -1.0), "[Nn]egative values in.*sample_weight"),
            (np.full(60, np.nan), "sample_weight contains NaN"),
            (np.zeros(60), "(?i)sample.weight.* at least one"),
            (np.ones(59), r"sample_weight.shape == \(59,\), expected \(60,\)"),
        ],
    )
    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_sample_weight(self, table, make, weight, message):
        X, y = table
        with pytest.raises(ValueError, match=message):
            small(make).fit(X, y, sample_weight=weight)

    def test_class_weight_of_no_class(self, table):
        X, y = table
        labels = np.where(y > 0, "hi", "lo")
        message = r"class_weight names \['Lo'\]; expected some of the classes, \['hi', 'lo'\]"
        with pytest.raises(ValueError, match=message):
            classifier(class_weight={"hi": 2.0, "Lo": 1.0}).fit(X, labels)

    @pytest.mark.parametrize("share", [-1.0, np.nan, np.inf, "2", None])
    def test_class_weight(self, table, share):
        X, y = table
        with pytest.raises(ValueError, match="class_weight=.*at least 0"):
            classifier(class_weight={0.0: 1.0, 1.0: share}).fit(X, y)

    @pytest.mark.parametrize("n_members", [1, 3])
    def test_one_row_outweighs_all_others(self, table, n_members):
        X, y = table
        weight = np.full(60, 1e-60)
        weight[3] = 1.0
        est = regressor(n_members=n_members)
        with pytest.warns(UserWarning, match="1 rows are too few"):
            est.fit(X, y, sample_weight=weight)
        assert np.isfinite(est.predict(X)).all()

    @pytest.mark.parametrize("unit", [1e-320, 1e-100, 1e100, 1e308])
    def test_the_unit_of_weights_does_not_matter(self, table, unit):
        X, y = table
        weight = np.where(np.arange(60) % 2, 0.5, 1.0)
        one, other = (regressor().fit(X, y, sample_weight=w * weight) for w in (1.0, unit))
        tolerance = 1e-3 if unit < 1e-300 else 1e-6
        np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=tolerance)

    def test_groups_of_another_length(self, table):
        X, y = table
        weight = np.ones(60)
        weight[0] = 0
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            regressor().fit(X, y, sample_weight=weight, groups=np.arange(30))


class TestParameters:
    @pytest.mark.parametrize(
        ("splitter", "message"),
        [
            (PredefinedSplit(-np.ones(60)), "gives 0 training and 0 validation rows of 60"),
            (PredefinedSplit(np.zeros(60)), "gives 0 training and 60 validation rows of 60"),
            ("a,b", "'auto', 'holdout', 'cv', a share, a number of folds"),
        ],
    )
    def test_validation_that_divides_nothing(self, table, splitter, message):
        X, y = table
        with pytest.raises(ValueError, match=message):
            regressor(validation=splitter).fit(X, y)

    def test_device_that_does_not_exist(self, table):
        X, y = table
        for device in ("banana", "cuda:99", "mps:7"):
            with pytest.raises(ValueError, match=f"device='{device}' cannot be used here .*'cpu'"):
                regressor(device=device).fit(X, y)

    def test_callbacks_that_are_none(self, table):
        X, y = table
        with pytest.raises(ValueError, match="callbacks holds 'x'; expected callbacks of skorch"):
            regressor(callbacks=["x"]).fit(X, y)

    @pytest.mark.parametrize("method", ["manifold-mixup", "m-probmix"])
    def test_layer_that_does_not_exist(self, table, method):
        X, y = table
        with pytest.raises(ValueError, match="mixing_layer=2 with 1 hidden layers"):
            regressor(method=Kind(method, mixing_layer=2)).fit(X, y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("alpha", -0.1),
            ("alpha", np.nan),
            ("alpha", "much"),
            ("n_neighbors", 0),
            ("n_neighbors", 2.5),
            ("pooling", "geometric"),
            ("hidden_layer_sizes", 16),
            ("activation", "sigmoid"),
            ("lr", 0.0),
            ("batch_size", 0),
            ("batch_size", "all"),
            ("max_epochs", 0),
            ("validation", 0.0),
            ("validation", 1.0),
            ("validation", 1.5),
            ("validation", 1),
            ("validation", True),
            ("net", torch.nn.Linear),
            ("callbacks", At(1, poison)),
            ("random_state", "seed"),
        ],
    )
    def test_parameter_and_value_are_named(self, table, make, name, value):
        X, y = table
        with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of {make.__name__}"):
            small(make, **{name: value}).fit(X, y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("method", "auto"),
            ("alpha", None),
            ("alpha", np.inf),
            ("beta", -1e-9),
            ("beta", np.inf),
            ("response", "mixed"),
            ("n_mixes", 0),
            ("objective", "log"),
            ("dropout", 1.0),
            ("mixing_layer", -1),
            ("embedding_variance", "none"),
            ("n_draws", 0),
            ("n_train_draws", 0),
            ("variance_weighting", 1.1),
            ("monitor", "loss"),
            ("lr_schedule", "linear"),
            ("n_iter_no_change", 0),
        ],
    )
    def test_parameter_and_value_of_a_kind_are_named(self, table, make, name, value):
        X, y = table
        method = Kind("probmix", response="expected").updated(**{name: value})
        with pytest.raises(InvalidParameterError, match=f"'{name}' parameter of Kind.*{value!r}"):
            small(make, method=["erm", method]).fit(X, y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_infinite_alpha(self, table, make):
        X, y = table
        with pytest.raises(InvalidParameterError, match="'alpha' parameter.*inf"):
            small(make, method="probmix", alpha=np.inf).fit(X, y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_unknown_method_is_told_which_exist(self, table, make):
        X, y = table
        with pytest.raises(ValueError, match="method") as error:
            small(make, method="cutmix").fit(X, y)
        for name in ("erm", "mixup", "manifold-mixup", "m-probmix", "probmix", "cutmix"):
            assert f"'{name}'" in str(error.value)

    @pytest.mark.parametrize(
        ("make", "names"),
        [
            (
                ProbMixupRegressor,
                "normal homoscedastic-normal lognormal transformed hurdle gamma beta poisson "
                "negative-binomial bernoulli histogram lattice",
            ),
            (ProbMixupClassifier, "categorical bernoulli"),
        ],
    )
    def test_unknown_family_is_told_which_exist(self, table, make, names):
        X, y = table
        with pytest.raises(InvalidParameterError, match="'family' parameter") as error:
            small(make, family="cauchy").fit(X, y)
        for name in [*names.split(), "cauchy"]:
            assert f"'{name}'" in str(error.value)

    @pytest.mark.parametrize(
        ("make", "family"),
        [(ProbMixupRegressor, "categorical"), (ProbMixupClassifier, "normal")],
    )
    def test_family_of_the_other_estimator(self, table, make, family):
        X, y = table
        with pytest.raises((ValueError, TypeError), match="family"):
            small(make, family=get_family(family)).fit(X, y)

    @pytest.mark.parametrize("sizes", [(0,), (-3,), (2.5,), (True,), ("many",), [[3]]])
    def test_layers_that_cannot_be(self, table, sizes):
        X, y = table
        with pytest.raises((ValueError, TypeError), match="hidden_layer_sizes"):
            regressor(hidden_layer_sizes=sizes).fit(X, y)
        with pytest.raises((ValueError, TypeError), match="hidden_layer_sizes"):
            # Explicit sizes would go before those of the kind.
            regressor(method=[Kind(hidden_layer_sizes=sizes)], hidden_layer_sizes=None).fit(X, y)

    @pytest.mark.parametrize("n_neighbors", [16, 60, 100])
    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_more_neighbours_than_rows(self, table, make, n_neighbors):
        X, y = table
        estimator = small(make, method="probmix", n_neighbors=n_neighbors, validation=0.75)
        with pytest.raises(ValueError, match=rf"n_neighbors={n_neighbors} for 15 training rows"):
            estimator.fit(X, y)

    @pytest.mark.parametrize("family", ["gamma", "poisson", "negative-binomial", "beta"])
    def test_rule_that_a_family_cannot_have_names_the_other(self, table, family):
        X, _ = table
        y = np.full(60, 0.5 if family == "beta" else 1.0)
        with pytest.raises(ValueError, match="response='pooled'.*use response='expected'"):
            regressor(method=Kind("probmix", response="pooled"), family=family).fit(X, y)

    def test_pooled_labels_without_smoothing(self, table):
        X, y = table
        with pytest.raises(ValueError, match=r"response='pooled'.*beta > 0.*response='expected'"):
            classifier(method=Kind("probmix", response="pooled")).fit(X, y)

    def test_random_embedding_without_a_hidden_layer(self, table):
        X, y = table
        with pytest.raises(ValueError, match="mixing_layer=1 with 0 hidden layers"):
            regressor(method="m-probmix", hidden_layer_sizes=()).fit(X, y)

    @pytest.mark.parametrize("n_members", [1, 3, 7])
    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_members_that_are_no_multiple_of_the_folds(self, table, make, n_members):
        X, y = table
        message = rf"n_members={n_members}, validation=2: each member .*members for all of them"
        with pytest.raises(ValueError, match=message):
            small(make, validation=2, n_members=n_members).fit(X, y)

    def test_more_folds_than_rows(self, table):
        X, y = table
        with pytest.raises(ValueError, match="validation=61: .* 61 folds of 60 rows"):
            regressor(validation=61, n_members=61).fit(X, y)

    def test_more_folds_than_groups(self, table):
        X, y = table
        with pytest.raises(ValueError, match="groups holds 3 .*groups; expected at least 4"):
            regressor(validation=4, n_members=8).fit(X, y, groups=np.arange(60) % 3)

    @pytest.mark.parametrize(
        "pairs", [(range(40), range(40, 60)), [(range(40),)], [([0], [60])], ["ab"], [(1, 2)]]
    )
    def test_what_is_no_list_of_pairs_of_rows(self, table, pairs):
        with pytest.raises(ValueError, match=r"validation=.*; expected a list of pairs.* to 59"):
            regressor(validation=pairs).fit(*table)

    @pytest.mark.parametrize("pairs", [[], [([], [])], [(np.arange(60), [])]])
    def test_pairs_that_divide_nothing(self, table, pairs):
        X, y = table
        n_train = len(pairs[0][0]) if pairs else 0
        with pytest.raises(ValueError, match=f"gives {n_train} training and 0 validation rows of"):
            regressor(validation=pairs).fit(X, y)

    @pytest.mark.parametrize(
        "family", ["gamma", "beta", "poisson", "negative-binomial", "bernoulli"]
    )
    def test_calibration_of_a_family_that_has_none(self, table, family):
        X, _ = table
        y = np.full(60, 0.5 if family == "beta" else 1.0)
        name = type(get_family(family)).__name__
        with pytest.raises(ValueError, match=f"calibration='on': {name}.*expected 'auto' or 'off'"):
            regressor(family=family, calibration="on").fit(X, y)
        assert regressor(family=family, calibration="auto").fit(X, y).calibration_ is None

    def test_two_ways_to_ask_for_a_spread(self, table):
        X, y = table
        with pytest.raises(ValueError, match="return_std and quantiles"):
            regressor().fit(X, y).predict(X, return_std=True, quantiles=[0.5])


class TestNets:
    def _fit(self, table, module, method="erm", **params):
        net = NeuralNet(module, NegativeLogLikelihood, max_epochs=1)
        ProbMixupRegressor(
            n_members=1, calibration="off", net=net, method=method, random_state=0, **params
        ).fit(*table)

    @pytest.mark.parametrize("method", ["manifold-mixup", "m-probmix"])
    def test_module_without_the_site_is_told_what_it_has(self, table, method):
        message = "'embedding' is no submodule of FlatNet; expected.*'only_layer'"
        with pytest.raises(ValueError, match=message):
            self._fit(table, FlatNet, method)

    @pytest.mark.parametrize("method", ["erm", "mixup", "probmix"])
    def test_output_without_the_axis_of_outputs(self, table, method):
        message = r"natural parameters of shape \(48, 2\).*expect.*\(rows, n_outputs,"
        with pytest.raises(ValueError, match=message):
            self._fit(table, FlatNet, method)

    @pytest.mark.parametrize("method", ["erm", "mixup", "probmix"])
    def test_output_with_a_parameter_too_many(self, table, method):
        with pytest.raises(ValueError, match=r"natural parameters of shape \(48, 1, 3\).*Normal"):
            self._fit(table, WideNet, method)

    def test_embedding_that_loses_the_rows(self, table):
        message = r"site='embedding'.*shape \(144,\).*48 rows"
        with pytest.raises(ValueError, match=message):
            self._fit(table, SummedNet, "manifold-mixup")

    def test_neighbours_from_a_loader_that_has_none(self, table):
        X, y = table
        net = NeuralNet(
            FlatNet, NegativeLogLikelihood, iterator_train=InterruptedLoader, max_epochs=1
        )
        with pytest.raises(ValueError, match="n_neighbors=3 needs the NeighborLoader"):
            ProbMixupRegressor(
                n_members=1, calibration="off", net=net, method="probmix", n_neighbors=3
            ).fit(X, y)


_NOT_FITTED = [
    (ProbMixupRegressor, "predict"),
    (ProbMixupRegressor, "predict_proba"),
    (ProbMixupClassifier, "predict"),
    (ProbMixupClassifier, "predict_proba"),
    (ProbMixupClassifier, "predict_log_proba"),
]


@pytest.mark.parametrize(("make", "method"), _NOT_FITTED)
def test_prediction_before_fit(table, make, method):
    with pytest.raises(NotFittedError, match=f"This {make.__name__} instance is not fitted"):
        getattr(make(), method)(table[0])


def _bad_X(X, y):
    return np.full_like(X, np.inf), y


def _bad_width(X, y):
    return X[:, :2], y


def _bad_y(X, y):
    return X, np.full_like(y, 7.5)


def _fit_with_bad_validation(estimator, X, y):
    estimator.fit(X, y, X_val=X[:, :2], y_val=y)


def _in_first_epoch(action):
    def fit(estimator, X, y):
        before = len(getattr(estimator, "history_", [])) if estimator.warm_start else 0
        estimator.set_params(callbacks=[At(before + 1, action, batch=1)]).fit(X, y)

    return fit


_FAILURES = {
    "fit infinity": lambda est, X, y: est.fit(*_bad_X(X, y)),
    "fit bad validation data": _fit_with_bad_validation,
    "fit outside the support": lambda est, X, y: est.fit(*_bad_y(X, y)),
    "fit that diverges": _in_first_epoch(poison),
    "fit interrupted in the first epoch": _in_first_epoch(interrupt),
    "fit too many neighbours": lambda est, X, y: est.set_params(
        method="probmix", n_neighbors=999
    ).fit(X, y),
    "partial_fit infinity": lambda est, X, y: est.partial_fit(*_bad_X(X, y)),
    "partial_fit outside the support": lambda est, X, y: est.partial_fit(*_bad_y(X, y)),
}


def _make(make, **params):
    return small(make, **({"family": "bernoulli"} if make is ProbMixupRegressor else {}), **params)


def _attempt(failure, estimator, X, y):
    """Run a failing call; return vars() before and after but for what the call itself set."""
    params = estimator.get_params()
    before = vars(estimator).copy()
    with pytest.raises((ValueError, KeyboardInterrupt)):
        _FAILURES[failure](estimator, X, y)
    estimator.set_params(**params)
    return before, vars(estimator)


@pytest.mark.parametrize("make", ESTIMATORS)
@pytest.mark.parametrize("failure", _FAILURES)
class TestFailedFitChangesNothing:
    def test_of_an_unfitted_estimator(self, table, make, failure):
        before, after = _attempt(failure, _make(make), *table)
        assert after == before

    @pytest.mark.parametrize("warm_start", [False, True])
    def test_of_a_fitted_one(self, table, make, failure, warm_start):
        X, y = table
        estimator = _make(make, warm_start=warm_start).fit(X, y)
        expected = np.asarray(estimator.predict_proba(X))
        weights = copy.deepcopy(estimator.net_.module_.state_dict())
        before, after = _attempt(failure, estimator, X, y)
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)
        assert_array_equal(np.asarray(estimator.predict_proba(X)), expected)
        state = estimator.net_.module_.state_dict()
        assert all(torch.equal(state[name], weights[name]) for name in weights)

    def test_of_one_that_goes_on_in_passes(self, table, make, failure):
        X, y = table
        estimator = _make(make, warm_start=True).partial_fit(X, y)
        twin = pickle.loads(pickle.dumps(estimator))
        _attempt(failure, estimator, X, y)
        assert_array_equal(
            np.asarray(estimator.partial_fit(X, y).predict_proba(X)),
            np.asarray(twin.partial_fit(X, y).predict_proba(X)),
        )


class TestDivergence:
    def test_from_the_first_epoch(self, table):
        X, y = table
        with pytest.raises(ValueError, match=r"diverged.*lower lr \(now 0\.003\)"):
            regressor(callbacks=[At(1, poison)]).fit(X, y)

    @pytest.mark.parametrize("make", ESTIMATORS)
    def test_of_its_own_accord(self, table, make):
        X, y = table
        with pytest.raises(ValueError, match=r"diverged.*lower lr \(now 1e\+30\)"):
            small(make, lr=1e30).fit(X, y)

    def test_with_a_module_whose_output_may_not_be_natural_parameters(self, table):
        X, y = table
        raw = nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (1, 2)))
        net = NeuralNet(raw, NegativeLogLikelihood)
        with pytest.raises(ValueError, match="diverged.*module returns natural parameters"):
            regressor(net=net).fit(X, y)

    def test_later_keeps_the_best_weights_and_warns(self, table):
        X, y = table
        estimator = regressor(max_epochs=20, callbacks=[At(5, poison)])
        with pytest.warns(ConvergenceWarning, match=r"not finite in epoch 5; lower lr.*epoch 4"):
            estimator.fit(X, y)
        expected = regressor(max_epochs=4).fit(X, y)
        assert_array_equal(
            estimator.predict(X, return_std=True), expected.predict(X, return_std=True)
        )
        assert (estimator.best_epoch_, estimator.n_iter_) == (4, 5)

    def test_at_the_last_batch_of_an_epoch_without_validation(self, table):
        # The loss of a batch is taken before its step: that of epoch 5 is finite.
        X, y = table
        estimator = regressor(max_epochs=20, validation=None, callbacks=[At(5, poison, batch=4)])
        with pytest.warns(ConvergenceWarning, match="epoch 4"):
            estimator.fit(X, y)
        assert_array_equal(
            estimator.predict(X), regressor(max_epochs=4, validation=None).fit(X, y).predict(X)
        )

    def test_in_the_last_step_of_a_pass(self, table):
        X, y = table
        with pytest.raises(ValueError, match="diverged.*lower lr"):
            regressor(callbacks=[At(1, poison, batch=4)]).partial_fit(X, y)

    def test_warning_points_at_the_line_of_the_user(self, table):
        X, y = table
        with pytest.warns(ConvergenceWarning) as caught:
            regressor(max_epochs=20, callbacks=[At(5, poison)]).fit(X, y)
        assert caught[0].filename == __file__


@pytest.mark.parametrize("make", ESTIMATORS)
@pytest.mark.parametrize("method", ["erm", "probmix", "manifold-mixup"])
class TestInterruption:
    def test_later_keeps_the_best_weights_and_says_so(self, table, make, method):
        X, y = table
        method = Kind(method, lr_schedule="constant")
        estimator = small(make, method=method, max_epochs=20, callbacks=[At(4, interrupt)])
        with pytest.warns(UserWarning, match=r"interrupted in epoch 4\b.*epoch 3"):
            estimator.fit(X, y)
        expected = small(make, method=method, max_epochs=3).fit(X, y)
        assert_array_equal(
            np.asarray(estimator.predict_proba(X)), np.asarray(expected.predict_proba(X))
        )

    def test_leaves_no_hook(self, table, make, method):
        X, y = table
        estimator = small(make, method=method, max_epochs=20, callbacks=[At(4, interrupt)])
        with pytest.warns(UserWarning, match="interrupted"):
            estimator.fit(X, y)
        assert not any(module._forward_hooks for module in estimator.net_.module_.modules())

    def test_in_the_first_epoch_reaches_the_user(self, table, make, method):
        X, y = table
        estimator = small(make, method=method, callbacks=[At(1, interrupt)])
        before = vars(estimator).copy()
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(X, y)
        assert vars(estimator) == before


class TestInterruptionElsewhere:
    @pytest.fixture
    def heeds_ctrl_c(self):
        """As in a terminal; a process in the background may have been told to ignore it."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.usefixtures("heeds_ctrl_c")
    def test_by_a_signal(self, table):
        X, y = table
        with pytest.warns(UserWarning, match=r"interrupted in epoch 4\b"):
            estimator = regressor(max_epochs=20, callbacks=[At(4, press_ctrl_c)]).fit(X, y)
        assert estimator.best_epoch_ == 3

    def test_history_holds_whole_epochs(self, table):
        X, y = table
        with pytest.warns(UserWarning, match="interrupted"):
            estimator = regressor(max_epochs=20, callbacks=[At(4, interrupt)]).fit(X, y)
        assert estimator.n_iter_ == len(estimator.history_) == 3
        assert all(np.isfinite(epoch["valid_loss"]) for epoch in estimator.history_)

    def test_training_can_go_on(self, table):
        X, y = table
        estimator = regressor(max_epochs=20, warm_start=True, callbacks=[At(4, interrupt)])
        with pytest.warns(UserWarning, match="interrupted"):
            estimator.fit(X, y)
        estimator.set_params(callbacks=None, max_epochs=2).fit(X, y)
        assert estimator.n_iter_ == 2

    def test_of_a_pass_reaches_the_user(self, table):
        X, y = table
        estimator = regressor().partial_fit(X, y)
        expected = estimator.predict(X)
        with pytest.raises(KeyboardInterrupt):
            estimator.set_params(callbacks=[At(2, interrupt)]).partial_fit(X, y)
        assert_array_equal(estimator.predict(X), expected)

    def test_before_the_first_epoch_reaches_the_user(self, table):
        X, y = table
        net = NeuralNet(FlatNet, NegativeLogLikelihood, iterator_train=InterruptedLoader)
        estimator = ProbMixupRegressor(n_members=1, calibration="off", net=net, method="erm")
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(X, y)
        with pytest.raises(NotFittedError):
            estimator.predict(X)


@pytest.mark.parametrize("make", ESTIMATORS)
def test_good_input_gives_no_warning(table, make):
    X, y = table
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small(make, method="m-probmix").fit(X, y).predict(X)
    assert [str(warning.message) for warning in caught] == []
