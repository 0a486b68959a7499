"""How columns are standardised: outliers, constant columns and streams included."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from sklearn_probmix.columns import ColumnEncoder

__all__ = [
    "FARTHEST",
    "extremes",
    "fit_scaler",
    "merge_moments",
    "merge_scalers",
    "scale_columns",
]

#: Of standardised columns: a million standard deviations.
FARTHEST = 1e6
# Variances of less have lost digits.
_LEAST_VARIANCE = 1e-290
# In robust deviations from the median, which span 90 % of a Normal; wider is an outlier.
_WILD, _NORMAL_RANGE = 30.0, 3.2897
# In deviations from the mean, of columns without and with outliers.
_REACH, _REACH_OF_WILD = 20.0, 4.0
# Rows by which outliers are told, and numbers that are looked at in float64 at once: 8 MB.
_ENOUGH_ROWS, _CHUNK = 200_000, 1_000_000


def fit_scaler(
    X: np.ndarray, weight: np.ndarray | None, is_number: np.ndarray | None = None
) -> StandardScaler:
    """Learn mean and standard deviation of every column, or of every channel of sequences.

    Parameters
    ----------
    X : ndarray of shape (n, ..., n_features)
        With NaN for what is missing.
    weight : ndarray of shape (n,) or None
    is_number : ndarray of bool of shape (n_features,), default=None
        Columns that are to be scaled, by default all; the others keep their values.

    Returns
    -------
    StandardScaler
        The deviation is computed anew where scikit-learn takes a column for constant that is not
        (integers near 2^53), or loses its digits (values near 1e-160). That of a column which is
        constant but for rounding is infinite: it says nothing, whatever it holds later. Outliers of
        a table, 30 robust deviations and more from the median, count as if they were 30 away. Its
        `reach_` are the deviations from the mean to which :func:`scale_columns` is linear.
    """
    columns = X.reshape(-1, X.shape[-1])
    if weight is not None:
        weight = np.repeat(weight, len(columns) // len(X))
    low, high = fences = np.full((2, columns.shape[1]), [[-np.inf], [np.inf]])
    ends = extremes(columns)
    if X.ndim == 2:
        low, high = _fences(columns[:: math.ceil(len(columns) / _ENOUGH_ROWS)], is_number)
    is_wild = (ends[0] < low) | (ends[1] > high)
    if is_wild.any():
        fences = np.stack([low, high])
    ends = np.clip(ends, *fences)
    scaler = StandardScaler()
    # Rounding may make the variance of a constant column negative, if there are weights.
    with np.errstate(invalid="ignore"):
        for rows in _chunks(columns):
            own = None if weight is None else weight[rows]
            scaler.partial_fit(
                np.clip(columns[rows].astype(np.float64), *fences), sample_weight=own
            )
    scaler.var_ = np.maximum(scaler.var_, 0)
    unit = np.maximum(ends[1] - scaler.mean_, scaler.mean_ - ends[0])
    constant = unit <= 10 * np.finfo(np.float64).eps * np.abs(scaler.mean_)
    doubtful = (scaler.var_ < _LEAST_VARIANCE) | (scaler.scale_ != np.sqrt(scaler.var_))
    # Of a column without values, in a part of a stream, the deviation stays NaN.
    for column in np.flatnonzero(doubtful & ~constant & ~np.isnan(unit)):
        values = columns[:, column].astype(np.float64)
        share = (values.clip(*np.transpose(fences)[column]) - scaler.mean_[column]) / unit[column]
        is_given = ~np.isnan(share)
        own = None if weight is None else weight[is_given]
        variance = np.average(share[is_given] ** 2, weights=own)
        scaler.scale_[column] = unit[column] * np.sqrt(variance)
        scaler.var_[column] = scaler.scale_[column] ** 2
    scaler.scale_[constant] = np.inf
    if is_number is not None:
        scaler.mean_[~is_number], scaler.var_[~is_number] = 0.0, 1.0
        scaler.scale_[~is_number] = 1.0
    if X.ndim == 2:
        reach = np.maximum(unit / scaler.scale_, _REACH)
        scaler.reach_ = np.where(is_wild, _REACH_OF_WILD, reach)
    else:
        scaler.reach_ = np.full(columns.shape[1], np.inf)
    return scaler


def merge_moments(
    mean: np.ndarray,
    variance: np.ndarray,
    new_mean: np.ndarray,
    new_variance: np.ndarray,
    share: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of two sets of rows, of which the second is so large a share.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([0.0, 2.0, 5.0, 9.0])
    >>> first, second = rows[:2], rows[2:]
    >>> mean, variance = merge_moments(first.mean(), first.var(), second.mean(), second.var(), 0.5)
    >>> bool(mean == rows.mean()), bool(variance == rows.var())
    (True, True)
    """
    between = (new_mean - mean) ** 2
    merged = (1 - share) * variance + share * new_variance + share * (1 - share) * between
    return mean + share * (new_mean - mean), merged


def merge_scalers(scaler: StandardScaler, new: StandardScaler) -> tuple[StandardScaler, float]:
    """Scaler of the rows of two scalers, and the share of the rows of the second in all.

    Parameters
    ----------
    scaler, new : StandardScaler
        As :func:`fit_scaler` returns them, of the same columns.

    Returns
    -------
    scaler : StandardScaler
    share : float
    """
    merged = copy.copy(scaler)
    n_before, n_new = (
        np.broadcast_to(each.n_samples_seen_, each.mean_.shape) for each in (scaler, new)
    )
    merged.n_samples_seen_ = n_before + n_new
    share = n_new / merged.n_samples_seen_
    # What is missing in all new rows says nothing.
    mean, variance = (np.where(n_new > 0, each, 0.0) for each in (new.mean_, new.var_))
    merged.mean_, merged.var_ = merge_moments(scaler.mean_, scaler.var_, mean, variance, share)
    deviation = np.sqrt(merged.var_)
    varies = deviation > 10 * np.finfo(np.float64).eps * np.abs(merged.mean_)
    merged.scale_ = np.where(varies, deviation, scaler.scale_)
    is_wild = np.minimum(scaler.reach_, new.reach_) == _REACH_OF_WILD
    ends = [
        np.abs(each.mean_ - merged.mean_)
        + each.reach_ * np.where(np.isinf(each.scale_), 0.0, each.scale_)
        for each in (scaler, new)
    ]
    merged.reach_ = np.where(
        is_wild, _REACH_OF_WILD, np.maximum(np.fmax(*ends) / merged.scale_, _REACH)
    )
    return merged, float(n_new.max() / merged.n_samples_seen_.max())


def _fences(columns, is_number):
    """Lowest and highest value of each column that is no outlier."""
    low, high = np.full((2, columns.shape[1]), [[-np.inf], [np.inf]])
    for place in range(columns.shape[1]):
        values = columns[:, place][~np.isnan(columns[:, place])]
        if not len(values) or (is_number is not None and not is_number[place]):
            continue
        # Twentieths and the median, of one partial sort; halved, for the difference of huge numbers
        # is infinite.
        last = len(values) - 1
        ranks = [math.ceil(0.05 * last), last // 2, len(values) // 2, math.floor(0.95 * last)]
        start, *middles, end = np.partition(values, ranks)[ranks] / 2
        middle = np.mean(middles)
        # Of a Normal it is the standard deviation.
        deviation = (end - start) / _NORMAL_RANGE
        if deviation > 0:
            low[place] = 2 * (middle - _WILD * deviation)
            high[place] = 2 * (middle + _WILD * deviation)
    return low, high


def scale_columns(
    scaler: StandardScaler, X: np.ndarray, encoder: ColumnEncoder | None = None
) -> torch.Tensor:
    """Standardise rows for a network in float32.

    Beyond the reach of a column the result bends, smoothly, and ends a quarter of it farther: one
    wild value has no more leverage than a large one.

    Parameters
    ----------
    scaler : StandardScaler
        As :func:`fit_scaler` returns it.
    X : ndarray of shape (n, ..., n_features)
        What is missing, NaN, becomes the mean.
    encoder : ColumnEncoder or None, default=None
        Turns the rows into numbers before.

    Returns
    -------
    Tensor of shape (n, ..., n_scaled)
        Float32, in deviations from the mean.
    """
    made = np.empty((*X.shape[:-1], len(scaler.mean_)), dtype=np.float32)
    # In float64, so a part at a time.
    for rows in _chunks(X):
        made[rows] = _scaled(scaler, X[rows] if encoder is None else encoder.encode(X[rows]))
    return torch.from_numpy(made)


def _scaled(scaler, X):
    # Not by the scaler, whose checks of one row take longer than the arithmetic. Far away from the
    # training rows the quotient may be infinite before it is clipped.
    with np.errstate(over="ignore"):
        scaled = (X - scaler.mean_) / scaler.scale_
    scaled[np.isnan(scaled)] = 0.0
    # Farther away the activations of a network in float32 overflow.
    scaled = scaled.clip(-FARTHEST, FARTHEST)
    excess = np.abs(scaled) - scaler.reach_
    beyond = excess > 0
    if beyond.any():
        width = np.broadcast_to(scaler.reach_ / 4, scaled.shape)[beyond]
        reach = np.broadcast_to(scaler.reach_, scaled.shape)[beyond]
        bent = reach + excess[beyond] / np.hypot(1, excess[beyond] / width)
        scaled[beyond] = np.copysign(bent, scaled[beyond])
    return scaled


def _chunks(X):
    """Slices of rows, of which a temporary array is small; at least one."""
    size = max(1, _CHUNK // max(1, X[:1].size))
    return [slice(start, start + size) for start in range(0, max(len(X), 1), size)]


def extremes(columns: np.ndarray) -> np.ndarray:
    """Find the smallest and the largest number of every column, without a copy.

    Parameters
    ----------
    columns : ndarray of shape (n, n_features)
        With NaN for what is missing.

    Returns
    -------
    ndarray of shape (2, n_features)
        Float64; NaN where a column has no number.
    """
    ends = [np.asarray(end.reduce(columns, axis=0), np.float64) for end in (np.fmin, np.fmax)]
    return np.stack(ends)
