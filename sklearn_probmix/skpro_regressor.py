"""The regressor as one of skpro, also for survival data; needs skpro."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from skpro.regression.base import BaseProbaRegressor

from sklearn_probmix.regressor import ProbMixupRegressor

__all__ = ["SkproRegressor"]


class SkproRegressor(BaseProbaRegressor):
    """A regressor whose `predict_proba` is a `PredictiveDistribution`, as one of skpro.

    Parameters
    ----------
    estimator : ProbMixupRegressor or DistributionStackingRegressor, default=None
        It is cloned by `fit`; None means ``ProbMixupRegressor()``. Censored responses, the `C` of
        skpro's `fit`, need one whose `fit` knows them, as that of :class:`ProbMixupRegressor` does.

    Attributes
    ----------
    estimator_ : fitted clone

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_probmix import ProbMixupRegressor
    >>> from sklearn_probmix.skpro_regressor import SkproRegressor
    >>> X = pd.DataFrame({"x": range(40)})
    >>> y = pd.DataFrame({"y": X["x"] ** 2})
    >>> quick = ProbMixupRegressor(method="erm", max_epochs=5, random_state=0)
    >>> SkproRegressor(quick).fit(X, y).predict_interval(X[:3]).shape
    (3, 2)
    """

    _tags = {
        "capability:multioutput": True,
        "capability:survival": True,
        "capability:missing": True,
    }

    def __init__(self, estimator: Any = None):
        self.estimator = estimator
        super().__init__()

    def _fit(self, X, y, C=None):
        estimator = ProbMixupRegressor() if self.estimator is None else clone(self.estimator)
        censored = {} if C is None else {"censored": C.to_numpy().ravel() > 0}
        responses = y.iloc[:, 0] if y.shape[1] == 1 else y
        self.estimator_ = estimator.fit(_named(X), responses.to_numpy(), **censored)
        self._columns = y.columns
        return self

    def _predict_proba(self, X):
        return self.estimator_.predict_proba(_named(X)).to_skpro(X.index, self._columns)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return the arguments of instances for skpro's checks.

        Parameters
        ----------
        parameter_set : str
            There is one set.
        """
        quick: dict[str, Any] = {"n_members": 1, "max_epochs": 2, "random_state": 0}
        return [
            {"estimator": ProbMixupRegressor(method=method, **quick)}
            for method in ("erm", "probmix")
        ]


def _named(X):
    # Numbers and texts among the names are refused by scikit-learn.
    return X.rename(columns=str)
