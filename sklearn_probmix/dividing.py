"""Which rows train and which are held out, as `validation`, weights and groups say."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    check_cv,
)

from sklearn_probmix.kinds import LARGE_TABLE
from sklearn_probmix.table import Division, Table
from sklearn_probmix.warn import warn

__all__ = ["Rows", "divide", "positions"]

# Fewer rows are not divided unless they are told to be.
_LEAST_ROWS_TO_DIVIDE = 10
_HELD_OUT = 0.2
# Of a large table, where more would not judge better: the members then share them.
_MOST_HELD_OUT = 10_000


class Rows(NamedTuple):
    """Rows of weight of a fit, and what of the data as given is needed to divide them."""

    table: Table
    y: np.ndarray
    """In the original units; shape (n, ...)."""
    groups: np.ndarray | None
    kept: NDArray[np.intp]
    """Places of these rows in the given data, shape (n,)."""
    given: tuple[Any, ...]
    """X, y and groups as they were given."""

    def position(self, places: Sequence[int] | NDArray[np.intp]) -> NDArray[np.intp]:
        """Positions among these rows of those that are at these places of the given data."""
        return positions(places, self.kept, len(self.given[1]))


def positions(
    places: Sequence[int] | NDArray[Any], kept: NDArray[np.intp], n_rows: int
) -> NDArray[np.intp]:
    """Positions among the rows that were kept of those at some places, without those left out.

    Parameters
    ----------
    places : sequence of int, or mask of shape (n_rows,)
        Of the data as given.
    kept : array of int, shape (n_kept,)
        Places of the rows that were kept.
    n_rows : int
        That were given.

    Returns
    -------
    array of int, at most as long as `places`

    Raises
    ------
    IndexError
        If a place is beyond the given rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.dividing import positions
    >>> positions([4, 1, 0], kept=np.array([0, 2, 4]), n_rows=5)
    array([2, 0])
    """
    position = np.full(n_rows, -1)
    position[kept] = np.arange(len(kept))
    found = position[np.asarray(places)] if len(places) else position[:0]
    return found[found >= 0]


def divide(
    rows: Rows,
    validation: Any,
    n_members: int,
    rng: np.random.RandomState,
    can_stratify: Callable[[np.ndarray, int, int], bool],
) -> Division:
    """Decide who trains and who is held out.

    Parameters
    ----------
    rows : Rows
    validation : str, float, int, splitter, list or None
        As the parameter of the estimators.
    n_members : int
    rng : RandomState
        Source of the division.
    can_stratify : callable
        Of y, the number of rows of the smaller part and the number of parts: whether parts may
        have the values of y in the same shares.

    Returns
    -------
    Division

    Raises
    ------
    ValueError
        If a part would have no rows, or members and folds do not fit together.
    """
    how, n_rows = validation, len(rows.y)
    if how == "auto":
        how = "cv" if n_members > 1 else "holdout"
        if how == "cv" and n_rows >= LARGE_TABLE + _MOST_HELD_OUT:
            how = _MOST_HELD_OUT / n_rows
    is_share = isinstance(how, Real) and not isinstance(how, Integral)
    if (isinstance(how, str) or is_share) and n_rows < _LEAST_ROWS_TO_DIVIDE:
        warn(f"{n_rows} rows are too few to hold some out; the last epoch is kept.")
        how = None
    if how is None:
        return Division.holdout(np.arange(n_rows), None)
    if how == "cv" or isinstance(how, Integral):
        return _folds(rows, validation, n_members, rng, can_stratify)
    share = _HELD_OUT if how == "holdout" else how
    train, valid = _hold_out(rows, share, rng, can_stratify)
    if not (len(train) and len(valid)):
        raise ValueError(
            f"validation={validation!r} gives {len(train)} training and {len(valid)} "
            f"validation rows of {n_rows}; expected some of each."
        )
    return Division.holdout(train, valid)


def _hold_out(rows, how, rng, can_stratify):
    """Training and validation rows by a share, or by the first split of a splitter."""
    n_rows = len(rows.y)
    if isinstance(how, Real):
        _check_groups(rows.groups, 2, "the hold-out")
        n_valid = math.ceil(float(how) * n_rows)
        splitters = ShuffleSplit, StratifiedShuffleSplit, GroupShuffleSplit
        splitter = _choose(splitters, rows, min(n_valid, n_rows - n_valid), 2, can_stratify)
        splitter = splitter(1, test_size=how, random_state=rng.randint(2**31))
        return next(splitter.split(rows.y, rows.y, rows.groups))
    is_list = isinstance(how, list | tuple)
    what = "The first pair of validation" if is_list else f"The first split of validation={how!r}"
    # It may know the rows by their places, so it sees those of no weight too.
    splits = iter(check_cv(how).split(*rows.given))
    try:
        train, valid = map(rows.position, next(splits, ((), ())))
    except (IndexError, TypeError, ValueError) as error:
        if not is_list:
            raise
        raise ValueError(
            f"validation={reprlib.repr(how)} ({error}); expected a list of pairs of training and "
            f"validation rows, by their places from 0 to {len(rows.given[1]) - 1}."
        ) from error
    n_used = len(np.union1d(train, valid))
    if n_used < n_rows and len(train) and len(valid):
        warn(
            f"{what} has {len(train)} training and {len(valid)} validation rows; "
            f"{n_rows - n_used} of {n_rows} rows are not used."
        )
    if n_shared := len(np.intersect1d(train, valid)):
        warn(
            f"{what} has {n_shared} rows in both parts: the networks know them, and their scores "
            "and calibration are too good."
        )
    return train, valid


def _folds(rows, validation, n_members, rng, can_stratify):
    """Folds that are held out, each by one member or by as many as there are to a fold."""
    n_rows = len(rows.y)
    n_folds = n_members if isinstance(validation, str) else int(validation)
    if not 2 <= n_folds <= n_rows or n_members % n_folds:
        raise ValueError(
            f"n_members={n_members!r}, validation={validation!r}: each member holds "
            f"out one of {n_folds} folds of {n_rows} rows; expected at least 2 folds, at most "
            "as many as rows, and members for all of them alike."
        )
    _check_groups(rows.groups, n_folds, f"each of {n_folds} folds")
    splitter = _choose((KFold, StratifiedKFold, GroupKFold), rows, n_rows, n_folds, can_stratify)
    splitter = splitter(n_folds, shuffle=True, random_state=rng.randint(2**31))
    held_out = [fold for _, fold in splitter.split(rows.y, rows.y, rows.groups)]
    return Division.folds(held_out, n_members)


def _choose(splitters, rows, n_rows, n_parts, can_stratify):
    plain, stratified, grouped = splitters
    if rows.groups is not None:
        return grouped
    return stratified if can_stratify(rows.y, n_rows, n_parts) else plain


def _check_groups(groups, n_needed, who):
    """Refuse fewer groups than are held out together."""
    if groups is not None and (n_groups := len(np.unique(groups))) < n_needed:
        raise ValueError(
            f"groups holds {n_groups} different groups; expected at least {n_needed}, since {who} "
            "holds out whole groups."
        )
