"""Quantiles of a mixture: each lies between the lowest and the highest of its components.

Shapes as in `sklearn_probmix.components`; q has the shape of y behind any leading axes, and weights
have shape (n, components) or (n, components, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import elementwise

from sklearn_probmix.components import Array, Components, fold_weights, mixture_cdf

__all__ = ["extremes", "mixture_quantiles"]


def mixture_quantiles(components: Components, weights: Array, q: Array) -> Array:
    """Smallest x with cdf(x) >= q, for each row and output of a mixture."""
    if components.unrectified is not None:
        return np.maximum(mixture_quantiles(components.unrectified, weights, q), 0.0)
    axis = 1 - weights.ndim
    if weights.shape[1] > 1 and (one := components.merged(weights)) is not None:
        components, weights = one, np.ones_like(weights[:, :1])
    quantiles = components.ppf(np.expand_dims(q, axis))
    if weights.shape[1] == 1:
        return quantiles.squeeze(axis)
    solve = _bisect if components.has_atoms else _solve
    return solve(components, weights, q, *extremes(weights, quantiles))


def extremes(weights: Array, values: Array) -> tuple[Array, Array]:
    """Lowest and highest of the components' values; a component of weight 0 has no say."""
    used, axis = weights > 0, 1 - weights.ndim
    low = np.where(used, values, np.inf).min(axis=axis)
    return low, np.where(used, values, -np.inf).max(axis=axis)


def _solve(components, weights, q, low, high):
    """Solve cdf(x) = q between bounds, where the cdf is continuous."""
    # One cell is one row and output. Solved cells leave the iteration, so it works on flat arrays.
    n, _, *outputs = components.shape
    cells = np.broadcast_to(
        np.arange(n * np.prod(outputs, dtype=int)).reshape(n, *outputs), q.shape
    )
    folded = components.fold()
    weights = fold_weights(weights, components.shape)

    def excess(x, cell, q):
        x, cell = x.reshape(-1, 1), cell.ravel()
        return (weights[cell] * folded.take(cell).cdf(x)).sum(axis=-1).reshape(q.shape) - q

    with np.errstate(all="ignore"):
        result = elementwise.find_root(excess, (low, high), args=(cells, q))
        # Equal components give an empty bracket, and rounding one without a change of sign: the
        # root is then an end of it.
        nearer = np.where(abs(result.f_bracket[0]) <= abs(result.f_bracket[1]), low, high)
    return np.where(result.success, result.x, nearer)


class _Grid(NamedTuple):
    """Numbers among which a quantile is searched."""

    middle: Callable[[Array, Array], Array]
    after: Callable[[Array], Array]


def _bisect(components, weights, q, low, high):
    """Bisect for the smallest number with cdf >= q between bounds, where the cdf jumps."""
    grid = _INTEGERS if components.is_integer else _FLOATS
    low, high = np.where(q == 1, high, low), np.where(q == 0, low, high)
    while True:
        middle = grid.middle(low, high)
        # Above 2^53 the middle of two neighbours may round to the upper one.
        is_open = (low < high) & (middle < high)
        if not is_open.any():
            return high
        is_enough = mixture_cdf(components, weights, middle) >= q
        low = np.where(is_open & ~is_enough, grid.after(middle), low)
        high = np.where(is_open & is_enough, middle, high)


def _place(x):
    """Return the numbers of floats in their order; both zeros have the same."""
    bits = (x + 0.0).view(np.int64)
    return np.where(bits < 0, np.iinfo(np.int64).min - bits, bits)


def _middle_float(low, high):
    # Half of the floats between two bounds, not of the distance, so that 64 halvings suffice.
    low, high = _place(low), _place(high)
    place = (low >> 1) + (high >> 1) + (low & high & 1)
    return np.where(place < 0, np.iinfo(np.int64).min - place, place).view(np.float64)


_INTEGERS = _Grid(
    lambda low, high: np.floor((low + high) / 2),
    lambda x: np.maximum(x + 1, np.nextafter(x, np.inf)),
)
_FLOATS = _Grid(_middle_float, lambda x: np.nextafter(x, np.inf))
