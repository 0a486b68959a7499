import re
import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor
from sklearn_probmix.warn import warn
from tests.model_files import X, Y


@pytest.mark.parametrize(
    ("make", "guess"),
    [
        (lambda: ProbMixupRegressor(method="prob-mix"), "'probmix'"),
        (lambda: ProbMixupRegressor(family="negativ-binomial"), "'negative-binomial'"),
        (lambda: ProbMixupRegressor(method=["erm", "probmx"]), "'probmix'"),
        (lambda: ProbMixupRegressor(calibration="of"), "'off'"),
        (lambda: ProbMixupRegressor(method=Kind("erm", activation="relo")), "'relu'"),
        (lambda: ProbMixupRegressor(method=Kind("erm", family="gama")), "'gamma'"),
    ],
)
def test_typos_are_recognised(make, guess):
    with pytest.raises(ValueError, match="Did you mean") as caught:
        make().fit(X, Y)
    assert str(caught.value).endswith(f"Did you mean {guess}?")


def test_options_come_in_order():
    order = r"\{'elu', 'gelu', 'relu', 'silu', 'tanh'\}.*Got 'x' instead\.$"
    with pytest.raises(InvalidParameterError, match=order):
        ProbMixupRegressor(activation="x").fit(X, Y)


def test_what_was_given_stays_as_it_is():
    with pytest.raises(InvalidParameterError, match=r"Got \{'method': 'erm'\} instead"):
        ProbMixupRegressor(method={"method": "erm"}).fit(X, Y)


def test_none_is_named_once():
    with pytest.raises(InvalidParameterError, match=r"range \[1, inf\) or None\. Got 0"):
        ProbMixupRegressor(n_neighbors=0).fit(X, Y)


@pytest.mark.parametrize("method", ["auto", ["erm", "probmix"], [Kind("probmix")]])
def test_parameters_of_a_kind_need_one(method):
    message = f"'method__alpha' reaches into a Kind, and method={method!r} is none"
    with pytest.raises(ValueError, match=re.escape(message)):
        GridSearchCV(ProbMixupRegressor(method=method), {"method__alpha": [0.1]}).fit(X, Y)
    est = ProbMixupRegressor(method=method).set_params(method=Kind("probmix"), method__alpha=0.1)
    assert est.method.alpha == 0.1


def test_what_no_method_uses_is_said():
    small = {"n_members": 2, "max_epochs": 1, "random_state": 0}
    labels = np.where(Y > 0, "a", "b")
    with pytest.warns(UserWarning, match=r"No network of method 'erm' uses alpha=0.3\."):
        ProbMixupClassifier(method="erm", alpha=0.3, **small).fit(X, labels)
    with pytest.warns(UserWarning, match=r"of method 'erm' or 'mixup' uses pooling='linear'\."):
        ProbMixupRegressor(method=["erm", "mixup"], pooling="linear", **small).fit(X, Y)
    with pytest.warns(UserWarning, match=r"No network of method 'erm' uses alpha=0.4\."):
        ProbMixupRegressor(method=Kind("erm", alpha=0.4), **small).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ProbMixupRegressor(method=["erm", "probmix"], alpha=0.3, **small).fit(X, Y)
        ProbMixupRegressor(method="erm", **small).fit(X, Y)
        ProbMixupRegressor(method=[Kind("erm", alpha=0.4), "probmix"], **small).fit(X, Y)


def test_a_search_says_which_fits_are_the_same():
    est = ProbMixupRegressor(n_members=2, max_epochs=1, random_state=0)
    grid = {"method": ["erm", "probmix"], "alpha": [0.1, 0.4]}
    with pytest.warns(UserWarning, match="method 'erm' uses alpha"):
        search = GridSearchCV(est, grid, cv=2).fit(X, Y)
    scores = dict(
        zip(
            [tuple(sorted(params.items())) for params in search.cv_results_["params"]],
            search.cv_results_["mean_test_score"],
            strict=True,
        )
    )
    of = {(params[1][1], params[0][1]): score for params, score in scores.items()}
    assert of["erm", 0.1] == of["erm", 0.4]
    assert of["probmix", 0.1] != of["probmix", 0.4]


def test_a_warning_needs_no_name_of_the_module_that_calls():
    with pytest.warns(UserWarning, match="few rows"):
        exec("warn('few rows')", {"warn": warn})
