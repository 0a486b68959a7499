"""Scorers of distributions for scikit-learn's model selection, and out-of-fold distributions.

The scorers are "greater is better": minus a score of :mod:`sklearn_probmix.metrics`, of what
`predict_proba` of a regressor returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import sklearn
from numpy.typing import ArrayLike
from sklearn.metrics import make_scorer
from sklearn.model_selection import cross_validate
from sklearn.utils import _safe_indexing
from sklearn.utils.fixes import parse_version

from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.forecasts import concatenate
from sklearn_probmix.metrics import (
    calibration_error,
    coverage_error,
    crps,
    interval_score,
    nll,
    pinball_loss,
)


def cross_val_predict_proba(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: ArrayLike | None = None,
    cv: Any = None,
    n_jobs: int | None = None,
    params: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> PredictiveDistribution:
    """Out-of-fold predictive distributions of a regressor.

    It does what ``cross_val_predict(method="predict_proba")`` does for classifiers and refuses to
    do for regressors: every row is predicted by a clone that was fitted without it. A ValueError
    if the test sets overlap or miss a row, a TypeError if predict_proba returns an array.

    Parameters
    ----------
    estimator : regressor whose predict_proba returns a PredictiveDistribution
    X : array-like or DataFrame of n rows
    y : array-like of shape (n,) or (n, outputs)
    groups : array-like of shape (n,), default=None
        Passed on to the splitter.
    cv : int, splitter or iterable of (train, test), default=None
        Its test sets must partition the rows, as those of KFold do; None means 5 folds.
    n_jobs : int, default=None
        Fits that run at the same time; -1 for one on each processor.
    params : dict, default=None
        What fit takes, such as sample_weight.
    verbose : int, default=0
        Above 0 prints each fold.

    Returns
    -------
    PredictiveDistribution of y's shape, in the order of the rows of X
        Where folds have other families or numbers of components, each row has those of all, most
        of them of weight 0.

    Examples
    --------
    >>> from sklearn.dummy import DummyRegressor
    >>> class Climatology(DummyRegressor):
    ...     def predict_proba(self, X):
    ...         mean = self.predict(X)[:, None]
    ...         return PredictiveDistribution("norm", {"loc": mean, "scale": np.ones_like(mean)})
    >>> X, y = np.zeros((4, 1)), np.arange(4.0)
    >>> cross_val_predict_proba(Climatology(), X, y, cv=2).mean()
    array([2.5, 2.5, 0.5, 0.5])
    """
    folds = cross_validate(
        estimator,
        X,
        y,
        groups=groups,
        cv=cv,
        n_jobs=n_jobs,
        params=params,
        verbose=verbose,
        scoring=_no_score,
        return_estimator=True,
        return_indices=True,
        error_score="raise",
    )
    tests = folds["indices"]["test"]
    order = np.concatenate(tests)
    if not np.array_equal(np.sort(order), np.arange(len(y))):
        raise ValueError("cv: the test sets must hold every row exactly once, as those of KFold.")
    parts = [
        fitted.predict_proba(_safe_indexing(X, test))
        for fitted, test in zip(folds["estimator"], tests, strict=True)
    ]
    if not isinstance(parts[0], PredictiveDistribution):
        raise TypeError(
            f"predict_proba returned {type(parts[0]).__name__}, not a PredictiveDistribution; for "
            "a classifier use cross_val_predict(method='predict_proba') of scikit-learn."
        )
    return concatenate(parts)[np.argsort(order)]


def _no_score(estimator, X, y):
    return 0.0


def _scorer(score, *shown):
    # Named, so that a scorer prints which level or quantiles it is of.
    defaults = inspect.signature(score).parameters
    given = {name: defaults[name].default for name in shown}
    scorer = make_scorer(score, response_method="predict_proba", greater_is_better=False, **given)
    if parse_version(sklearn.__version__) < parse_version("1.9"):
        scorer.__class__ = _EarlierScorer
    return scorer


class _EarlierScorer(type(make_scorer(nll))):  # type: ignore[misc]  # not a public class
    """Earlier releases refuse to ask a regressor for its `predict_proba`."""

    def _score(self, method_caller, estimator, X, y_true, **kwargs):
        return super()._score(_ask, estimator, X, y_true, **kwargs)


def _ask(estimator, method, X, **kwargs):
    return getattr(estimator, method)(X)


neg_nll_scorer = _scorer(nll)
neg_crps_scorer = _scorer(crps)
neg_pinball_scorer = _scorer(pinball_loss, "quantiles")
neg_interval_score_scorer = _scorer(interval_score, "level")
neg_coverage_error_scorer = _scorer(coverage_error, "level")
neg_calibration_error_scorer = _scorer(calibration_error)
