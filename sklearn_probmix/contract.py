"""What all estimators here keep to: a fit that fails changes nothing, and rows come in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_probmix.encoding import row_chunks

__all__ = ["PredictsInChunks", "unchanged_on_error"]


class PredictsInChunks:
    """What follows from `predict_proba` for tables of any number of rows."""

    predict_proba: Callable[..., Any]

    def iter_predict_proba(self, X: Any, chunk_size: int = 8192) -> Iterator[Any]:
        """Predictions for the rows of X, some at a time, which takes the memory of some.

        Parameters
        ----------
        X : array-like or data frame of shape (n, n_features)
            A memory map is read as the iterator goes on.
        chunk_size : int, default=8192
            Rows of one prediction; the last has what is left.

        Returns
        -------
        iterator
            Of what :meth:`predict_proba` returns, in the order of the rows, and bit for bit.

        Raises
        ------
        ValueError, NotFittedError
            At once, if chunk_size is no positive integer or there was no fit.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_probmix import ProbMixupRegressor
        >>> X = np.linspace(0, 1, 40)[:, None]
        >>> est = ProbMixupRegressor(method="erm", max_epochs=5, random_state=0).fit(X, X[:, 0])
        >>> [dist.interval(0.9)[1].shape for dist in est.iter_predict_proba(X, chunk_size=25)]
        [(25,), (15,)]
        """
        if not isinstance(chunk_size, Integral) or chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size!r}; expected an integer, at least 1.")
        check_is_fitted(self)
        return map(self.predict_proba, row_chunks(X, int(chunk_size)))


@contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Leave an estimator as it was where something goes wrong.

    Parameters
    ----------
    estimator : estimator
        Its attributes are put back, whatever the block raises.
    """
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
