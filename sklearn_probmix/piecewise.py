"""Components whose cdf is piecewise linear, as quantiles and histograms say it, with tails.

Shapes as in `sklearn_probmix.components`; m knots are on a last axis of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_probmix.components import Array, Components, first_index

__all__ = ["PiecewiseComponents", "piecewise_from_quantiles", "spread_ties"]

# Of a range around one value that is 0.
_LEAST = 1e-150


class PiecewiseComponents(Components, tag="piecewise"):
    r"""Piecewise linear cdf through knots, with exponential tails beyond the first and the last.

    .. math:: F(x) = p_1 e^{(x - x_1) / s_1} \text{ below } x_1, \quad
              1 - F(x) = (1 - p_m) e^{-(x - x_m) / s_m} \text{ above } x_m

    Parameters
    ----------
    knots : array-like of shape (n, k, m) or (n, k, outputs, m)
        Increasing on the last axis, in units of y; m is at least 2.
    levels : array-like of the same shape
        Probability of at most each knot, not decreasing. What is left below the first and above
        the last is that of the tails, which there need not be.
    tails : array-like of shape (n, k, 2) or (n, k, outputs, 2)
        Positive scales of the lower and the upper tail, the mean distances from the knot, in
        units of y.

    Raises
    ------
    ValueError
        If shapes or values are others.

    Examples
    --------
    >>> from sklearn_probmix.piecewise import PiecewiseComponents
    >>> from sklearn_probmix.distributions import PredictiveDistribution
    >>> made = PiecewiseComponents([[[0.0, 1.0, 4.0]]], [[[0.1, 0.5, 0.9]]], [[[1.0, 1.0]]])
    >>> dist = PredictiveDistribution(made)
    >>> dist.cdf(2.5).round(2), dist.ppf(0.3), dist.pdf(0.5).round(2)
    (array([0.7]), array([0.5]), array([0.4]))
    """

    def __init__(self, knots: ArrayLike, levels: ArrayLike, tails: ArrayLike):
        super().__init__({"knots": knots, "levels": levels, "tails": tails})
        knots, levels, tails = (self.params[name] for name in ("knots", "levels", "tails"))
        if not (
            knots.ndim in (3, 4)
            and knots.shape == levels.shape
            and tails.shape == (*knots.shape[:-1], 2)
            and knots.shape[1] > 0
            and knots.shape[-1] >= 2
        ):
            raise ValueError(
                f"knots, levels and tails have the shapes {knots.shape}, {levels.shape} and "
                f"{tails.shape}; expected (n, components, m) of the first two, with m at least 2, "
                "and (n, components, 2), with or without an axis of outputs before the last."
            )
        _check(knots, "knots", "finite and increasing", np.isfinite(knots), np.diff(knots) > 0)
        in_range = (levels >= 0) & (levels <= 1)
        _check(levels, "levels", "in [0, 1] and not decreasing", in_range, np.diff(levels) >= 0)
        _check(tails, "tails", "positive and finite", np.isfinite(tails) & (tails > 0))

    is_smooth = False
    # Only a component by itself has a closed form.
    has_crps = property(lambda self: self.shape[1] == 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, components and, for 2-D y, outputs."""
        return self.params["knots"].shape[:-1]

    def alike(self) -> tuple[Any, ...]:
        """Return what is equal for components that can be in one block."""
        return *super().alike(), self.params["knots"].shape[-1]

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        """Make what `to_arrays` gave as content."""
        return cls(**content)

    def _at(self, key: str, position: NDArray[np.intp]) -> Array:
        """Values of an array at positions on its last axis, which are broadcast with the others."""
        return self.params[key][*np.ogrid[tuple(map(slice, self.shape))], position]

    def _count(self, key, x, is_before):
        """Count the values that are before x, by bisection on the last axis."""
        n_values = self.params[key].shape[-1]
        low = np.zeros(np.broadcast_shapes(x.shape, self.shape), dtype=np.intp)
        high = np.full_like(low, n_values)
        for _ in range(n_values.bit_length()):
            middle = (low + high) // 2
            before = (low < high) & is_before(self._at(key, middle.clip(max=n_values - 1)), x)
            low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
        return low

    def _pieces(self, x):
        """Find where x is: below, above or between two knots, and what they are."""
        n_knots = self.params["knots"].shape[-1]
        position = self._count("knots", x, np.less_equal)
        # The last knot belongs to the piece before it.
        last = self.params["knots"][..., -1]
        is_below, is_above = position == 0, (position == n_knots) & (x > last)
        left = (position - 1).clip(0, n_knots - 2)
        ends = [self._at(key, left + end) for key in ("knots", "levels") for end in (0, 1)]
        return is_below, is_above, ends

    def _tail(self, x):
        """Probabilities below x by the lower tail, and above it by the upper one."""
        knots, levels, tails = (self.params[name] for name in ("knots", "levels", "tails"))
        with np.errstate(invalid="ignore"):
            lower = np.minimum(x - knots[..., 0], 0) / tails[..., 0]
            upper = np.minimum(knots[..., -1] - x, 0) / tails[..., 1]
        return levels[..., 0] * np.exp(lower), (1 - levels[..., -1]) * np.exp(upper)

    def cdf(self, x: Array) -> Array:
        """Probability of at most x."""
        is_below, is_above, (x0, x1, p0, p1) = self._pieces(x)
        lower, upper = self._tail(x)
        inside = p0 + (np.clip(x, x0, x1) - x0) / (x1 - x0) * (p1 - p0)
        return np.select([is_below, is_above], [lower, 1 - upper], inside)

    def sf(self, x: Array) -> Array:
        """Probability of more than x."""
        is_below, is_above, (x0, x1, p0, p1) = self._pieces(x)
        lower, upper = self._tail(x)
        inside = (1 - p1) + (x1 - np.clip(x, x0, x1)) / (x1 - x0) * (p1 - p0)
        return np.select([is_below, is_above], [1 - lower, upper], inside)

    def log_density(self, x: Array) -> Array:
        """Logarithm of the density."""
        is_below, is_above, (x0, x1, p0, p1) = self._pieces(x)
        knots, levels, tails = (self.params[name] for name in ("knots", "levels", "tails"))
        with np.errstate(divide="ignore", invalid="ignore"):
            lower = np.log(levels[..., 0]) - np.log(tails[..., 0])
            lower = lower - (knots[..., 0] - x) / tails[..., 0]
            upper = np.log1p(-levels[..., -1]) - np.log(tails[..., 1])
            upper = upper - (x - knots[..., -1]) / tails[..., 1]
            inside = np.log(p1 - p0) - np.log(x1 - x0)
        return np.select([is_below, is_above], [lower, upper], inside)

    def ppf(self, q: Array) -> Array:
        """Smallest x with cdf(x) >= q, or an end of the support."""
        knots, levels, tails = (self.params[name] for name in ("knots", "levels", "tails"))
        n_knots = knots.shape[-1]
        low, high = self.support()
        position = self._count("levels", q, np.less)
        left = (position - 1).clip(0, n_knots - 2)
        x0, x1, p0, p1 = (
            self._at(key, left + end) for key in ("knots", "levels") for end in (0, 1)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            lower = knots[..., 0] + tails[..., 0] * np.log(q / levels[..., 0])
            upper = knots[..., -1] - tails[..., 1] * np.log((1 - q) / (1 - levels[..., -1]))
            inside = np.minimum(x0 + (q - p0) / (p1 - p0) * (x1 - x0), x1)
        cases = [q <= 0, q >= 1, position == 0, position == n_knots]
        return np.select(cases, [low, high, lower, upper], inside)

    def support(self) -> tuple[Array, Array]:
        """Lowest and highest possible value, each of `shape`."""
        levels = self.params["levels"]
        # The last knot of probability 0, and the first that has reached 1.
        first = np.maximum((levels == 0).sum(axis=-1) - 1, 0)
        last = np.minimum((levels < 1).sum(axis=-1), levels.shape[-1] - 1)
        low = np.where(levels[..., 0] > 0, -np.inf, self._at("knots", first))
        return low, np.where(levels[..., -1] < 1, np.inf, self._at("knots", last))

    def mean(self) -> Array:
        """Mean, of `shape`."""
        mass, centre, _ = self._moments()
        return (mass * centre).sum(axis=-1)

    def var(self) -> Array:
        """Variance, of `shape`."""
        mass, centre, variance = self._moments()
        distance = centre - (mass * centre).sum(axis=-1, keepdims=True)
        return (mass * (distance**2 + variance)).sum(axis=-1)

    def _moments(self):
        """Masses, means and variances of both tails and of all pieces."""
        knots, levels, tails = (self.params[name] for name in ("knots", "levels", "tails"))
        mass = np.concatenate([levels[..., :1], np.diff(levels), 1 - levels[..., -1:]], axis=-1)
        ends = knots[..., :1] - tails[..., :1], knots[..., -1:] + tails[..., 1:]
        middle = (knots[..., 1:] + knots[..., :-1]) / 2
        centre = np.concatenate([ends[0], middle, ends[1]], axis=-1)
        square = np.diff(knots) ** 2 / 12
        variance = np.concatenate([tails[..., :1] ** 2, square, tails[..., 1:] ** 2], axis=-1)
        return mass, centre, variance

    def crps(self, y: Array, weights: Array) -> Array:
        """CRPS of single components at y, of y's shape."""
        single = self._map(lambda values: values[:, 0])
        knots, levels, tails = (single.params[name] for name in ("knots", "levels", "tails"))
        # Each piece is parted at y: before it the cdf is squared, behind it the sf.
        left, right, p, p_next = knots[..., :-1], knots[..., 1:], levels[..., :-1], levels[..., 1:]
        cut = np.clip(y[..., None], left, right)
        p_cut = p + (cut - left) / (right - left) * (p_next - p)
        before = (cut - left) * _squared(p, p_cut)
        behind = (right - cut) * _squared(1 - p_cut, 1 - p_next)
        below = _tail_crps(np.maximum(knots[..., 0] - y, 0), levels[..., 0], tails[..., 0])
        above = _tail_crps(np.maximum(y - knots[..., -1], 0), 1 - levels[..., -1], tails[..., 1])
        return (before + behind).sum(axis=-1) + below + above


def _check(values, name, expected, *are_right):
    for is_right in are_right:
        if not is_right.all():
            where = first_index(~is_right)[:-1]
            raise ValueError(f"{name} must be {expected}; got {values[where]} at index {where}.")


def _squared(first, last):
    """Mean square of what goes linearly from first to last."""
    return (first**2 + first * last + last**2) / 3


def _tail_crps(distance, mass, scale):
    """CRPS beyond the outermost knot, of a y that is so far behind it."""
    left = np.exp(-distance / scale)
    missed = distance - 2 * mass * scale * (1 - left) + mass**2 * scale * (1 - left**2) / 2
    return missed + mass**2 * scale * left**2 / 2


def piecewise_from_quantiles(levels: ArrayLike, quantiles: ArrayLike) -> PiecewiseComponents:
    """One component for each row from its quantiles: they are the knots of its cdf.

    The scale of a tail is that of the exponential through the outermost quantile and the middle
    one.

    Parameters
    ----------
    levels : array-like of shape (m,)
        Increasing, in (0, 1); at least two.
    quantiles : array-like of shape (n, m)
        In units of y; they must increase, see `spread_ties`.

    Returns
    -------
    PiecewiseComponents of shape (n, 1)

    Raises
    ------
    ValueError
        If levels or quantiles are others.

    Examples
    --------
    >>> from sklearn_probmix.piecewise import piecewise_from_quantiles
    >>> piecewise_from_quantiles([0.1, 0.5, 0.9], [[0.0, 1.0, 2.0]]).mean()
    array([[1.]])
    """
    levels, quantiles = np.asarray(levels, dtype=float), np.asarray(quantiles, dtype=float)
    is_grid = levels.ndim == 1 and len(levels) >= 2
    if not (is_grid and levels[0] > 0 and levels[-1] < 1 and (np.diff(levels) > 0).all()):
        raise ValueError(f"levels must be at least two, in (0, 1), and increase; got {levels}.")
    if quantiles.ndim != 2 or quantiles.shape[1] != len(levels):
        raise ValueError(
            f"quantiles has the shape {quantiles.shape}, expected (n, {len(levels)}) for "
            f"{len(levels)} levels."
        )
    middle = len(levels) // 2
    lower = (quantiles[:, middle] - quantiles[:, 0]) / np.log(levels[middle] / levels[0])
    middle = (len(levels) - 1) // 2
    upper = quantiles[:, -1] - quantiles[:, middle]
    upper = upper / np.log((1 - levels[middle]) / (1 - levels[-1]))
    knots = quantiles[:, None]
    return PiecewiseComponents(
        knots, np.broadcast_to(levels, knots.shape), np.stack([lower, upper], axis=-1)[:, None]
    )


def spread_ties(quantiles: ArrayLike, width: float, resolution: float) -> Array:
    """Part quantiles that are equal, each of which stands for the same probability.

    Equal ones are spread evenly over the cell of their value: half the way to the next other value,
    but no farther than `width / 2`.

    Parameters
    ----------
    quantiles : array-like of shape (n, m)
        In units of y.
    width : float
        Of the widest cell; infinite where only the next values bound it.
    resolution : float
        Width of the cell of a value that nothing else bounds, positive.

    Returns
    -------
    ndarray of shape (n, m)
        Increasing on the last axis.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.piecewise import spread_ties
    >>> spread_ties([[0.0, 3.0, 3.0, 9.0]], np.inf, 1.0)
    array([[0.  , 2.25, 4.5 , 9.  ]])
    >>> spread_ties([[0.0, 3.0, 3.0, 9.0]], 1.0, 1.0)
    array([[0.  , 2.75, 3.25, 9.  ]])
    """
    values = np.sort(np.asarray(quantiles, dtype=float), axis=-1)
    n_values = values.shape[-1]
    place = np.broadcast_to(np.arange(n_values), values.shape)
    starts = np.concatenate([np.ones_like(values[:, :1], bool), np.diff(values) > 0], axis=-1)
    ends = np.roll(starts, -1, axis=-1)
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, place, n_values)[:, ::-1], axis=-1)[:, ::-1]

    def take(where):
        return np.take_along_axis(values, where.clip(0, n_values - 1), axis=-1)

    below = np.where(first > 0, values - take(first - 1), np.inf) / 2
    above = np.where(last < n_values - 1, take(last + 1) - values, np.inf) / 2
    # The outermost are bounded on one side only, and a single value on none.
    below, above = np.minimum(below, width / 2), np.minimum(above, width / 2)
    below, above = np.where(np.isinf(below), above, below), np.where(np.isinf(above), below, above)
    below, above = (np.where(np.isinf(side), resolution / 2, side) for side in (below, above))
    share = (2 * (place - first) + 1) / (last - first + 1) - 1
    values = values + share * np.where(share < 0, below, above)
    # Cells that are as narrow as the numbers' own spacing.
    for right in range(1, n_values):
        least = values[:, right - 1] + np.maximum(np.spacing(abs(values[:, right - 1])), _LEAST)
        values[:, right] = np.maximum(values[:, right], least)
    return values
