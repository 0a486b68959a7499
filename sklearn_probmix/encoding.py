"""From what a user passes as X, y, weights and groups to arrays that hold what they should.

Every function takes the array-likes that there are (lists, arrays of any dtype, byte order and
strides, tensors, pandas, polars and Arrow), and says in its errors which input is wrong, what was
found in it and what is expected. What is made of categories and missing values is in `columns`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NoReturn

import narwhals
import numpy as np
import sklearn
import torch
from narwhals.exceptions import DuplicateError
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.fixes import parse_version
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from sklearn_probmix.columns import (
    ENCODE_DATES,
    as_numbers,
    declare,
    is_missing,
    read_array,
    read_frame,
)
from sklearn_probmix.scaling import extremes

__all__ = [
    "check_columns",
    "row_chunks",
    "to_columns",
    "to_groups",
    "to_labels",
    "to_numbers",
    "to_response",
    "whole_table",
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


def whole_table(X: Any) -> Any:
    """Make a table of a record batch of Arrow, whose names would be lost in an array.

    Parameters
    ----------
    X : array-like or data frame
        What is no record batch is returned as it is.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from sklearn_probmix.encoding import whole_table
    >>> whole_table(pa.record_batch({"a": [1, 2]})).column_names
    ['a']
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(X, arrow.RecordBatch):
        return arrow.Table.from_batches([X])
    return X


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
    if narwhals.dependencies.is_into_series(X):
        raise ValueError(
            f"{name} is a {type(X).__name__}, one row or one column; expected a data frame. Take "
            f"rows of one by a list of places, as .iloc[[0]]; .to_frame() makes one of a column."
        )
    X = whole_table(X)
    frame = _frame(X, name)
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
        size = np.maximum(*np.abs(extremes(read.reshape(-1, read.shape[-1]))))
        if (size > _LARGEST).any():
            place = int(size.argmax())
            label = frame.columns[place] if is_frame else place
            raise ValueError(
                f"column {label!r} of {name} holds a number of size {size[place]:.3g}; expected at "
                f"most {_LARGEST:g}: its square overflows."
            )
    return read


def _frame(X: Any, name: str = "X") -> Any:
    """Give any frame the same methods; what is none is returned as it is."""
    try:
        return narwhals.from_native(X, eager_only=True, pass_through=True)
    except DuplicateError as error:
        raise ValueError(f"{name} has columns of the same name ({error}); rename them.") from error


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
        if reset and not n_features:
            raise ValueError(f"{name} has no columns; expected some.")
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
            f"only ({str(error).splitlines()[0].rstrip('.')})."
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
        frame = _frame(X)
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
    table = _frame(X)
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
