"""Scores of predictive distributions where some responses are censored.

A censored response is only known to be more than the value given, as in `fit(censored=...)`. The
mean log score of such rows is ``np.where(censored, np.log(dist.sf(y)), dist.logpdf(y)).mean()``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sklearn_probmix.floats import usual_floats
from sklearn_probmix.metrics import Forecast, check_prediction

__all__ = ["concordance_index", "survival_brier_score"]


@usual_floats
def concordance_index(y_true: ArrayLike, y_pred: Forecast, *, censored: ArrayLike) -> float:
    """Share of pairs whose predicted medians are in the order of their responses.

    Pairs of which the order is known count: the earlier response is not censored. Medians that are
    equal count one half. It says how well rows are ranked, and nothing of the spread. More is
    better, .5 is chance.

    Parameters
    ----------
    y_true : array-like of shape (n,)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats, of shape (n,)
    censored : array-like of bool of shape (n,)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If no pair can be compared.

    References
    ----------
    Harrell, Lee, Mark. Multivariable prognostic models. Statistics in Medicine 15 (1996).

    Examples
    --------
    >>> from scipy import stats
    >>> from sklearn_probmix.survival import concordance_index
    >>> concordance_index([1, 2, 3], stats.norm([1, 3, 2], 1), censored=[False, True, False])
    1.0
    """
    y, dist, is_more = _check(y_true, y_pred, censored)
    median = dist.median()
    concordant = comparable = 0.0
    for row in np.flatnonzero(~is_more):
        later = (y > y[row]) | ((y == y[row]) & is_more)
        concordant += (median[row] < median[later]).sum() + 0.5 * (
            median[row] == median[later]
        ).sum()
        comparable += later.sum()
    if not comparable:
        raise ValueError("no two rows can be compared; expected a response that is not censored.")
    return float(concordant / comparable)


@usual_floats
def survival_brier_score(
    y_true: ArrayLike, y_pred: Forecast, time: float, *, censored: ArrayLike
) -> float:
    r"""Squared error of the probability of more than `time`; less is better.

    Rows that are censored before `time` say nothing of it; the others are weighed by the inverse
    probability of not being censored, which estimates the score without censoring, where censoring
    does not depend on X.

    Parameters
    ----------
    y_true : array-like of shape (n,)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats, of shape (n,)
    time : float
        Before the largest of `y_true`.
    censored : array-like of bool of shape (n,)

    Returns
    -------
    float

    Notes
    -----
    With :math:`S_i` the predicted probability of more than t and G the Kaplan-Meier estimate of
    being uncensored, it is the mean of :math:`S_i^2 / G(y_i-)` over responses up to t and of
    :math:`(1 - S_i)^2 / G(t)` over later ones. Graf, Schmoor, Sauerbrei, Schumacher, Statistics in
    Medicine 18 (1999).

    Examples
    --------
    >>> from scipy import stats
    >>> from sklearn_probmix.survival import survival_brier_score
    >>> survival_brier_score([1, 3], stats.norm([2, 2], 1), 2.0, censored=[False, False])
    0.25
    """
    y, dist, is_more = _check(y_true, y_pred, censored)
    if not time < y.max():
        raise ValueError(f"time={time!r}; expected less than the largest response, {y.max():.6g}.")
    more = dist.sf(np.full(y.shape, float(time)))
    times, counts = np.unique(y[is_more], return_counts=True)
    # Where both happen at once the response comes first.
    at_risk = np.array([(y > t).sum() + n for t, n in zip(times, counts, strict=True)])
    uncensored = np.cumprod(np.append(1.0, 1 - counts / at_risk))
    before = uncensored[np.searchsorted(times, y, side="left")]
    until = uncensored[np.searchsorted(times, time, side="right")]
    late = y > time
    error = np.where(late, (1 - more) ** 2 / until, ~is_more * more**2 / before)
    return float(np.mean(error))


def _check(y_true, y_pred, censored):
    y, dist, _ = check_prediction(y_true, y_pred, None)
    censored = np.asarray(censored)
    if censored.dtype != bool or censored.shape != y.shape or y.ndim != 1:
        raise ValueError(
            f"censored has dtype {censored.dtype} and shape {censored.shape} for y_true of shape "
            f"{y.shape}; expected booleans, one for each row, and one output."
        )
    return y, dist, censored
