"""What responses look like: step, grid of values, likely families, and those that stand apart."""

from __future__ import annotations

import numpy as np

__all__ = ["cell_width", "grid_of_values", "likely_families", "responses_apart", "rounding_step"]

# Decimals that a rounded response may have, and the largest integer that a float surely is.
_MOST_DECIMALS, _LARGEST_INTEGER = 6, 2.0**52
# Responses of so few values get a mass on each, if there are so many rows to a value; skewness of
# what is skewed; and shares of zeros that are a heap.
_MOST_VALUES, _ROWS_OF_A_VALUE = 100, 8
_LONGEST_GRID = 100
_SKEWED = 1.0
_HEAP = 0.02, 0.98
# Responses that stand apart: in robust deviations from the median; so many times as far as the next
# nearer one, which heavy tails hardly are; at most one, or such a share of the rows; of so many.
_FAR, _APART, _SHARE_APART, _ROWS_OF_ONE_APART = 20.0, 5.0, 0.005, 20


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
    grid = np.round(values[0] + step * steps, _MOST_DECIMALS)
    # Values of y as they are, even where arithmetic has left .1 + .2 in the place of .3.
    nearest = values[np.abs(grid[:, None] - values).argmin(axis=1)]
    grid = np.union1d(grid[np.abs(grid - nearest) > step / 2], values)
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
