"""From what a user passes as X, y, weights and groups to arrays that hold what they should.

Every function takes the array-likes that there are (lists, arrays of any dtype, byte order and
strides, tensors, pandas, polars and Arrow), and says in its errors which input is wrong, what was
found in it and what is expected. What is made of categories and missing values is in `columns`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NoReturn

import narwhals
import numpy as np
import sklearn
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array
from sklearn.utils.fixes import parse_version
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from sklearn_probmix.columns import (
    ENCODE_DATES,
    ColumnEncoder,
    as_numbers,
    declare,
    is_missing,
    read_array,
    read_frame,
)

__all__ = [
    "cell_width",
    "check_columns",
    "fit_scaler",
    "grid_of_values",
    "likely_families",
    "merge_moments",
    "merge_scalers",
    "responses_apart",
    "rounding_step",
    "row_chunks",
    "scale_columns",
    "to_columns",
    "to_groups",
    "to_labels",
    "to_numbers",
    "to_response",
]

# By the kinds of numpy's dtypes.
_NO_NUMBERS = {
    **dict.fromkeys("US", "text"),
    **dict.fromkeys("Mm", "dates or durations"),
    "c": "complex numbers",
    "V": "records",
}
# What one element may be; booleans of Python are integers.
_NUMBERS = (Real, Decimal, np.bool_)
# The square of what is larger overflows.
_LARGEST = 1e150
# Of standardised columns: a million standard deviations.
FARTHEST = 1e6
# Decimals that a rounded response may have, and the largest integer that a float surely is.
_MOST_DECIMALS, _LARGEST_INTEGER = 6, 2.0**52
# Responses of so few values get a mass on each, if there are so many rows to a value; skewness of
# what is skewed; and shares of zeros that are a heap.
_MOST_VALUES, _ROWS_OF_A_VALUE = 100, 8
_LONGEST_GRID = 100
_SKEWED = 1.0
_HEAP = 0.02, 0.98
# Variances of less have lost digits.
_LEAST_VARIANCE = 1e-290
# In robust deviations from the median, which span 90 % of a Normal; wider is an outlier.
_WILD, _NORMAL_RANGE = 30.0, 3.2897
# In deviations from the mean, of columns without and with outliers.
_REACH, _REACH_OF_WILD = 20.0, 4.0
# Responses that stand apart: in robust deviations from the median; so many times as far as the next
# nearer one, which heavy tails hardly are; at most one, or such a share of the rows; of so many.
_FAR, _APART, _SHARE_APART, _ROWS_OF_ONE_APART = 20.0, 5.0, 0.005, 20
# Rows by which outliers are told, and numbers that are looked at in float64 at once: 8 MB.
_ENOUGH_ROWS, _CHUNK = 200_000, 1_000_000


def to_columns(
    estimator: BaseEstimator, X: ArrayLike, *, reset: bool, name: str = "X", **checks: Any
) -> np.ndarray:
    """Check X, and its columns against those of the fit, and turn it into numbers.

    Parameters
    ----------
    estimator : estimator
        Its `categorical_features` says which columns hold categories.
    X : array-like of shape (n, n_features)
    reset : bool
        Whether the estimator is to remember the number and the names of columns, and in
        `encoder_` their levels, or X has to have them.
    name : str, default="X"
        What errors call it.
    **checks
        Those of scikit-learn's `check_array`, such as `allow_nd`.

    Returns
    -------
    ndarray of shape (n, n_features), float64, or float32 where an array of numbers is that
        The array itself where it may be: it is not to be changed. NaN where a value is missing,
        levels as their codes; at most 1e150 in size with ``reset=True``. What has more axes has no
        missing values.

    Raises
    ------
    ValueError, TypeError
        If X has another shape or other columns, or if a column, which is named, holds anything but
        numbers and categories, or not what it held in the fit.
    """
    if hasattr(X, "collect"):
        raise TypeError(f"{name} is a {type(X).__name__}; expected its rows, {name}.collect().")
    frame: Any = narwhals.from_native(X, eager_only=True, pass_through=True)
    is_frame = isinstance(frame, narwhals.DataFrame)
    if not is_frame:
        X = frame = _array(X, name)
        kind = frame.dtype.kind
        if kind in "mMV" or (kind == "O" and any(map(_is_time, frame.flat))):
            found = _NO_NUMBERS.get(kind, "dates or durations")
            raise TypeError(
                f"{name} holds {found} ({frame.dtype}); expected numbers. {ENCODE_DATES}"
            )
        if frame.ndim == 1 and len(frame) and not isinstance(frame[0], (np.number, *_NUMBERS)):
            remedy = f" pandas.DataFrame({name}) makes one." if isinstance(frame[0], dict) else ""
            raise TypeError(
                f"{name} is a list whose first element is a {type(frame[0]).__name__}; expected "
                f"rows of numbers, or a data frame.{remedy}"
            )
    checks["dtype"] = [np.float64, np.float32]
    if len(frame.shape) == 2:
        read = _to_table(estimator, X, frame, reset, name, checks)
    elif isinstance(estimator.categorical_features, str | None):
        read = validate_data(estimator, X, reset=reset, **checks)
        if reset:
            estimator.encoder_ = None
    else:
        raise ValueError(
            f"categorical_features={estimator.categorical_features!r} with {name} of shape "
            f"{frame.shape}; expected 'from_dtype' or None."
        )
    if reset:
        size = np.maximum(*np.abs(_extremes(read.reshape(-1, read.shape[-1]))))
        if (size > _LARGEST).any():
            place = int(size.argmax())
            label = frame.columns[place] if is_frame else place
            raise ValueError(
                f"column {label!r} of {name} holds a number of size {size[place]:.3g}; expected at "
                f"most {_LARGEST:g}: its square overflows."
            )
    return read


def _to_table(estimator, X, frame, reset, name, checks):
    """Check rows of columns, as a frame or an array, and turn them into numbers."""
    is_frame = isinstance(frame, narwhals.DataFrame)
    labels = frame.columns if is_frame else range(frame.shape[1])
    asked, n_features = estimator.categorical_features, len(labels)
    encoder = None if reset else estimator.encoder_
    if reset:
        declared = declare(asked, labels if is_frame else None, n_features)
    else:
        declared = [None if isinstance(asked, str) else False] * n_features
        if encoder is not None and n_features == estimator.n_features_in_:
            declared = [encoder.declare(*each) for each in enumerate(declared)]
    numbers = None
    if is_frame:
        _refuse_sparse(X, name)
    if is_frame or any(declared) or frame.dtype.kind in "OUS":
        # Names and number of columns first: what is in them is read by them.
        check_columns(estimator, X, reset)
        read = read_frame if is_frame else read_array
        numbers, encoder = read(frame, declared, name, encoder, reset)
    checks = checks | {"ensure_all_finite": "allow-nan"}
    try:
        # The sum of huge numbers, by which scikit-learn looks for NaN, may be infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            if numbers is None:
                checked = validate_data(estimator, X, reset=reset, **checks)
            else:
                checked = check_array(numbers, estimator=estimator, input_name="X", **checks)
    except ValueError as error:
        place = _column_beyond_numbers(frame if numbers is None else numbers)
        if place is None:
            raise
        given = list(frame.schema.values())[place] if is_frame else frame.dtype
        raise ValueError(
            f"column {labels[place]!r} of {name}, of type {given}, does not hold finite numbers "
            f"only ({str(error).splitlines()[0]})."
        ) from error
    if reset:
        estimator.encoder_ = encoder
    return checked


def check_columns(estimator: Any, X: Any, reset: bool) -> None:
    """Have an estimator remember the number and the names of columns, or compare them.

    Parameters
    ----------
    estimator : estimator
    X : array-like or data frame
    reset : bool
        Whether to remember.

    Raises
    ------
    ValueError
        If X has other columns, or the same in another order.

    Examples
    --------
    >>> import polars as pl
    >>> from sklearn.base import BaseEstimator
    >>> from sklearn_probmix.encoding import check_columns
    >>> estimator = BaseEstimator()
    >>> check_columns(estimator, pl.DataFrame({"a": [1], "b": [2]}), reset=True)
    >>> estimator.feature_names_in_.tolist()
    ['a', 'b']
    """
    is_early = parse_version(sklearn.__version__) < parse_version("1.9")
    if is_early and not hasattr(X, "__dataframe__"):
        frame: Any = narwhals.from_native(X, eager_only=True, pass_through=True)
        X = _Columns(frame) if isinstance(frame, narwhals.DataFrame) else X
    validate_data(estimator, X, reset=reset, skip_check_array=True)


class _Columns:
    """Columns as scikit-learn before 1.9 asks for them; frames of polars 2 do not answer."""

    def __init__(self, frame):
        self.shape, self.columns = frame.shape, frame.columns

    def __dataframe__(self):
        return self

    def column_names(self):
        return self.columns


def row_chunks(X: Any, size: int) -> Iterator[Any]:
    """Parts of a table of so many rows, of its own type; a view of them where the type has views.

    Parameters
    ----------
    X : array-like or data frame
        What has no rows is one part.
    size : int

    Examples
    --------
    >>> from sklearn_probmix.encoding import row_chunks
    >>> list(row_chunks([[1.0], [2.0], [3.0]], 2))
    [[[1.0], [2.0]], [[3.0]]]
    """
    table: Any = narwhals.from_native(X, eager_only=True, pass_through=True)
    is_frame = isinstance(table, narwhals.DataFrame)
    try:
        n_rows = len(table)
    except TypeError:
        n_rows = 0
    if n_rows <= size:
        yield X
        return
    for start in range(0, n_rows, size):
        rows = table[start : start + size]
        yield rows.to_native() if is_frame else rows


def to_response(y: ArrayLike, name: str = "y") -> np.ndarray:
    """Turn the response of a regression into a finite, contiguous, native array.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_outputs)
        Of numbers or booleans.
    name : str, default="y"
        What errors call it.

    Returns
    -------
    ndarray of the same shape, float64

    Raises
    ------
    ValueError, TypeError
        If a value is missing, infinite or no number, or y has another number of axes.

    Examples
    --------
    >>> from sklearn_probmix.encoding import to_response
    >>> to_response([True, 2, 0.5])
    array([1. , 2. , 0.5])
    >>> to_response([1.0, None])
    Traceback (most recent call last):
    ...
    ValueError: Input y contains NaN: y[1] = None; expected finite numbers.
    """
    try:
        numbers = to_numbers(y, name)
    except ValueError as error:
        texts = {value for value in _array(y, name).flat if isinstance(value, str)}
        if not texts:
            raise
        remedy = as_numbers(texts) or "ProbMixupClassifier predicts classes."
        raise ValueError(f"{error} {remedy}") from None
    if numbers.ndim not in (1, 2) or numbers.shape[1:] == (0,):
        raise ValueError(
            f"{name} has the shape {numbers.shape}; expected (n,) or (n, n_outputs), at least one "
            "number for each row."
        )
    return numbers


def to_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Turn numbers of any type and shape into a finite, contiguous, native float64 array."""
    array = _array(values, name)
    if array.dtype.kind in _NO_NUMBERS:
        found = _NO_NUMBERS[array.dtype.kind]
        raise ValueError(f"{name} holds {found} ({array.dtype}); expected numbers.")
    numbers = np.empty(array.shape)
    if array.dtype.kind == "O":
        for where, value in np.ndenumerate(array):
            numbers[where] = _to_float(value, where, name)
    else:
        # A long double may be beyond float64; it is refused as infinite.
        with np.errstate(over="ignore"):
            numbers[...] = array
    bad = ~np.isfinite(numbers)
    if bad.any():
        where = tuple(np.argwhere(bad)[0])
        what = "NaN" if np.isnan(numbers[where]) else "infinity"
        _refuse_value(name, where, array[where], f"Input {{}} contains {what}: ")
    return numbers


def to_labels(y: ArrayLike, name: str = "y") -> np.ndarray:
    """Turn labels of classes into a native array of one axis, without missing ones.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, 1)
        All numbers, all booleans or all text.
    name : str, default="y"
        What errors call it.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError, TypeError
        If a label is missing or infinite, labels are of several types, or numbers are no classes.

    Examples
    --------
    >>> from sklearn_probmix.encoding import to_labels
    >>> to_labels(["yes", "no"])
    array(['yes', 'no'], dtype='<U3')
    """
    labels = _labels(y, name, warn=True)
    if labels.dtype.kind == "O":
        if all(isinstance(label, Integral | np.bool_) for label in labels):
            labels = np.array(labels.tolist())
        elif all(isinstance(label, _NUMBERS) for label in labels):
            labels = to_numbers(labels, name)
        elif not all(isinstance(label, str) for label in labels):
            raise ValueError(
                f"{name} holds labels of the types {_types(labels)}; expected all numbers or all "
                "text."
            )
    check_classification_targets(labels)
    return labels


def to_groups(groups: ArrayLike) -> np.ndarray:
    """Turn labels of groups into an array of shape (n,), without missing ones."""
    groups = _labels(groups, "groups", warn=False)
    try:
        np.unique(groups)
    except TypeError as error:
        found = _types(groups)
        raise ValueError(f"groups holds labels of the types {found}; expected one type.") from error
    return groups


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
        constant but for rounding is 1, or a millionth of its size if that is more. Outliers of a
        table, 30 robust deviations and more from the median, count as if they were 30 away. Its
        `reach_` are the deviations from the mean to which :func:`scale_columns` is linear.
    """
    columns = X.reshape(-1, X.shape[-1])
    if weight is not None:
        weight = np.repeat(weight, len(columns) // len(X))
    low, high = fences = np.full((2, columns.shape[1]), [[-np.inf], [np.inf]])
    ends = _extremes(columns)
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
    size = np.abs(scaler.mean_)
    constant = unit <= 10 * np.finfo(np.float64).eps * size
    scaler.scale_[constant] = np.maximum(1.0, 1e-6 * size[constant])
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
    ends = [np.abs(each.mean_ - merged.mean_) + each.reach_ * each.scale_ for each in (scaler, new)]
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


def cell_width(y: np.ndarray) -> float:
    """Size of the cell around a response by whose probability forecasts are compared.

    It is the step to which responses were rounded or, where there is none, the median gap between
    neighbouring ones: within less, forecasts cannot be told apart by them.

    Parameters
    ----------
    y : array of float of shape (n,)
        Finite.

    Returns
    -------
    float
        In the units of y; 1 where all are equal.

    Examples
    --------
    >>> import numpy as np
    >>> cell_width(np.array([1.0, 1.5, 3.0])), cell_width(np.array([0.0, 0.0, 0.2, 1 / 3, 2 / 3]))
    (0.5, 0.2)
    """
    values = np.unique(y)
    if len(values) == 1:
        return 1.0
    width = rounding_step(y) or np.median(np.diff(values))
    # So many digits are left in the cell's ends.
    return float(max(width, 1e-12 * np.abs(values).max()))


def grid_of_values(y: np.ndarray) -> np.ndarray | None:
    """Find the values that a response of few values may take, seen or not.

    Parameters
    ----------
    y : array of float of shape (n,)
        Finite.

    Returns
    -------
    ndarray of shape (n_values,) or None
        The values of y and, where they are multiples of a step, those between and a few beyond, at
        most a hundred on either side; none below zero if y has none. None where y takes many.

    Examples
    --------
    >>> import numpy as np
    >>> grid_of_values(np.repeat([1.0, 2.0, 4.0], 20))
    array([0., 1., 2., 3., 4., 5., 6., 7.])
    """
    values = np.unique(y)
    if len(values) < 3 or len(values) > min(_MOST_VALUES, len(y) / _ROWS_OF_A_VALUE):
        return None
    step, span = rounding_step(y), values[-1] - values[0]
    if not step or span / step > _LONGEST_GRID:
        return values
    beyond = min(round(span / step), _LONGEST_GRID)
    steps = np.arange(-beyond, round(span / step) + beyond + 1)
    # Summed as they are read, so that values of y are found again.
    grid = np.union1d(np.round(values[0] + step * steps, _MOST_DECIMALS), values)
    return grid[grid >= 0] if values[0] >= 0 else grid


def likely_families(y: np.ndarray) -> set[str]:
    """Name the families, beside the Normal, that responses of such values may have.

    Parameters
    ----------
    y : array of float of shape (n,)
        Finite.

    Returns
    -------
    set of str

    Examples
    --------
    >>> import numpy as np
    >>> sorted(likely_families(np.repeat([1.0, 2.0, 3.5], 20)))
    ['lattice']
    >>> sorted(likely_families(np.r_[np.zeros(20), np.linspace(1, 2, 80) ** 9]))
    ['histogram', 'hurdle', 'transformed']
    """
    values = np.unique(y)
    if len(values) < 3:
        return set()
    is_count = values[0] >= 0 and not (values % 1).any()
    names = {"histogram" if grid_of_values(y) is None else "lattice"}
    centred = y - y.mean()
    with np.errstate(all="ignore"):
        skewness = (centred**3).mean() / (centred**2).mean() ** 1.5
    if abs(skewness) > _SKEWED:
        names.add("transformed")
    if is_count and values[-1] > 1:
        names |= {"negative-binomial", "poisson"}
    elif values[0] == 0 and _HEAP[0] <= (y == 0).mean() <= _HEAP[1]:
        names.add("hurdle")
    if values[0] > 0 and values[-1] < 1:
        names.add("beta")
    return names


def responses_apart(y: np.ndarray) -> np.ndarray:
    """Find the few responses, if any, that are far away and stand apart from all others.

    Parameters
    ----------
    y : array of float of shape (n, n_outputs)
        Finite.

    Returns
    -------
    array of int
        Rows that are beyond 20 robust standard deviations from the median of an output, and at
        least 5 times as far as every row that is nearer; no more than one row, or .5 %.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).normal(size=(100, 1))
    >>> y[3] = 9999
    >>> responses_apart(y)
    array([3])
    """
    few, apart = max(1, int(_SHARE_APART * len(y))), np.zeros(len(y), dtype=bool)
    if len(y) < _ROWS_OF_ONE_APART:
        return np.flatnonzero(apart)
    with np.errstate(over="ignore"):
        distance = np.abs(y - np.median(y, axis=0))
    robust_sd = 1.4826 * np.median(distance, axis=0)
    # Where half of the responses are equal nothing is known of how far the others are.
    for far, unit in zip(distance.T, robust_sd, strict=True):
        farthest = np.sort(far)[-few - 1 :]
        is_gap = (farthest[1:] > _FAR * unit) & (farthest[1:] > _APART * farthest[:-1])
        if unit > 0 and is_gap.any():
            apart |= far >= farthest[1:][is_gap][0]
    return np.flatnonzero(apart)


def rounding_step(y: np.ndarray) -> float:
    """Find the step that all responses are multiples of, up to an offset.

    Parameters
    ----------
    y : array of float of shape (n,)
        Finite.

    Returns
    -------
    float
        In the units of y; 0 where there is no such step of at most six decimals, or all are equal.

    Examples
    --------
    >>> import numpy as np
    >>> rounding_step(np.array([1.0, 1.5, 3.0])), rounding_step(np.array([0.1, 1 / 3]))
    (0.5, 0.0)
    """
    for decimals in range(_MOST_DECIMALS + 1):
        unit = 10.0**decimals
        if np.abs(y).max() * unit >= _LARGEST_INTEGER:
            break
        whole = np.rint(y * unit)
        # Numbers as they are read, and not some that only come near.
        if np.allclose(whole / unit, y, rtol=4 * np.finfo(float).eps, atol=0):
            steps = int(np.gcd.reduce((whole - whole.min()).astype(np.int64), axis=None))
            return steps / unit
    return 0.0


def scale_columns(
    scaler: StandardScaler, X: np.ndarray, encoder: ColumnEncoder | None = None
) -> torch.Tensor:
    """Standardise X, of shape (n, ..., n_features), for a network in float32.

    What is missing becomes the mean. Beyond the reach of a column the result bends, smoothly, and
    ends a quarter of it farther: one wild value has no more leverage than a large one. An encoder
    turns the rows into numbers before.
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


def _extremes(columns):
    """Smallest and largest number of every column, NaN where there is none, without a copy."""
    ends = [np.asarray(end.reduce(columns, axis=0), np.float64) for end in (np.fmin, np.fmax)]
    return np.stack(ends)


def _array(values: ArrayLike, name: str) -> np.ndarray:
    """Return an array of whatever dtype the values have."""
    _refuse_sparse(values, name)
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    n_masked = np.ma.count_masked(values) if isinstance(values, np.ma.MaskedArray) else 0
    if n_masked:
        raise ValueError(f"{name} has {n_masked} masked values; expected none. Fill them in first.")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is no array ({error}); expected rows of equal length.") from error
    if array.ndim == 0 and array.dtype.kind in "OUS" and not isinstance(values, _NUMBERS):
        found = "None" if values is None else f"a {type(values).__name__}"
        remedy = f" pandas.DataFrame({name}) makes one." if isinstance(values, dict) else ""
        if isinstance(values, Iterable) and not isinstance(values, str | bytes | dict):
            remedy = f" list({name}) makes one."
        raise TypeError(f"{name} is {found}; expected an array, a list or a data frame.{remedy}")
    # The text of numpy 2 that knows missing values.
    return array.astype(object) if array.dtype.kind == "T" else array


def _refuse_sparse(values: Any, name: str) -> None:
    columns = np.atleast_1d(getattr(values, "dtypes", []))
    if issparse(values) or any(str(dtype).startswith("Sparse") for dtype in columns):
        raise TypeError(
            f"Sparse data was passed for {name}, but dense data is required. Use '.toarray()' to "
            "convert to a dense numpy array, or '.sparse.to_dense()' of a frame."
        )


def _labels(values: ArrayLike, name: str, warn: bool) -> np.ndarray:
    """Return labels of one axis and a native dtype, none of them missing."""
    labels = _array(values, name)
    if labels.dtype.kind in "cV":
        found = _NO_NUMBERS[labels.dtype.kind]
        raise ValueError(f"{name} holds {found} ({labels.dtype}); expected labels.")
    if labels.ndim != 1 and labels.shape[1:] != (1,):
        raise ValueError(
            f"{name} should be a 1d array, got an array of shape {labels.shape} instead; expected "
            "one label for each row."
        )
    labels = column_or_1d(labels, warn=warn)
    if labels.dtype.kind == "f":
        return to_numbers(labels, name)
    if labels.dtype.kind in "OMm":
        for where, label in np.ndenumerate(labels):
            if is_missing(label):
                _refuse_value(name, where, label, "Input {} contains NaN: ", "a label for each row")
    return labels.astype(labels.dtype.newbyteorder("="), copy=False)


def _to_float(value: Any, where: tuple[int, ...], name: str) -> float:
    if is_missing(value):
        _refuse_value(name, where, value, "Input {} contains NaN: ")
    if not isinstance(value, _NUMBERS) or _is_time(value):
        _refuse_value(name, where, value)
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _is_time(value: Any) -> bool:
    return isinstance(value, np.datetime64 | np.timedelta64)


def _types(labels: np.ndarray) -> list[str]:
    return sorted({type(label).__name__ for label in labels})


def _refuse_value(
    name: str, where: tuple[Any, ...], value: Any, what: str = "", expected: str = "finite numbers"
) -> NoReturn:
    place = f"[{', '.join(map(str, where))}]" if where else ""
    # Scalars of numpy name their type in their repr.
    found = f"{value}" if isinstance(value, np.generic) else repr(value)[:80]
    raise ValueError(f"{what.format(name)}{name}{place} = {found}; expected {expected}.")


def _column_beyond_numbers(X: np.ndarray) -> int | None:
    """Position of the first column that holds infinite or complex numbers, or None."""
    if X.dtype.kind == "c":
        return 0
    with np.errstate(over="ignore"):
        is_infinite = np.isinf(X.astype(np.float64)).any(axis=0)
    return int(is_infinite.argmax()) if is_infinite.any() else None
