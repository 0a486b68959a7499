"""Histograms: densities that are constant within bins, with an exponential tail on either side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_probmix.components import Array, Components, average, with_sums

__all__ = ["HistogramComponents"]


class HistogramComponents(Components, tag="histogram"):
    """Probabilities of bins that all rows and components share; each output may have its own.

    The first and the last bin are tails, exponential densities on the outer sides of the first and
    the last edge; in between the density is constant within each bin.

    Parameters
    ----------
    edges : array-like of shape (b - 1,) or (sets, b - 1)
        Increasing, in units of y. A set of fewer bins ends with infinities: its last tail begins at
        the last finite edge, of which there is at least one.
    tails : array-like of shape (2,) or (sets, 2)
        Mean distance from the edge in the lower and the upper tail, positive, in units of y.
    masses : array-like of shape (n, k, b) or (n, k, outputs, b)
        Probabilities of the bins, which sum to 1 on the last axis; 0 for bins that are not there.
    sets : array-like of int of shape (n, k) or (n, k, outputs), default=None
        Which set of edges is whose, the same for all components of a row; None where there is one
        for all outputs, or one for each.

    Raises
    ------
    ValueError
        If edges do not increase, or shapes do not fit, or masses are no probabilities.

    Examples
    --------
    >>> from sklearn_probmix.distributions import PredictiveDistribution
    >>> from sklearn_probmix.histogram_components import HistogramComponents
    >>> bins = HistogramComponents([0.0, 1.0, 3.0], [0.5, 0.5], [[[0.1, 0.4, 0.4, 0.1]]])
    >>> dist = PredictiveDistribution(bins)
    >>> dist.pdf([[0.5], [2.0]]).ravel(), dist.cdf(2.0), dist.ppf(0.3)
    (array([0.4, 0.2]), array([0.7]), array([0.5]))
    """

    has_crps = True
    is_smooth = False

    def __init__(
        self, edges: ArrayLike, tails: ArrayLike, masses: ArrayLike, sets: ArrayLike | None = None
    ):
        self.edges = np.array(edges, dtype=float, ndmin=2)
        self.tails = np.array(tails, dtype=float, ndmin=2)
        masses = np.array(masses, dtype=float)
        self._check(masses)
        if sets is None:
            n_sets = len(self.edges)
            if n_sets not in (1, *masses.shape[2:-1]):
                raise ValueError(
                    f"edges has {n_sets} sets for masses of shape {masses.shape}; expected one, or "
                    "one for each output."
                )
            sets = np.broadcast_to(np.arange(n_sets) % n_sets, masses.shape[:-1])
        sets = np.array(sets, dtype=float)
        of_a_row = sets[:, :1] if sets.ndim > 1 else sets
        if sets.shape != masses.shape[:-1] or not (
            np.isin(sets, np.arange(len(self.edges))).all() and (sets == of_a_row).all()
        ):
            raise ValueError(
                f"sets has shape {sets.shape}; expected {masses.shape[:-1]}, numbers from 0 to "
                f"{len(self.edges) - 1} that are the same for all components of a row."
            )
        is_there = np.arange(masses.shape[-1]) < self._last()[sets.astype(int), None] + 2
        if masses[~is_there].any():
            raise ValueError("masses must be 0 for bins that are not there, beyond a last edge.")
        total = masses.sum(axis=-1, keepdims=True)
        self.params = with_sums(masses / total) | {"sets": sets}
        self._freeze()

    def _check(self, masses):
        edges, tails = self.edges, self.tails
        with np.errstate(invalid="ignore"):
            gaps = np.diff(edges, axis=-1)
        # Between two that are not there the difference is NaN.
        proper = edges.ndim == 2 and edges.size and np.isfinite(edges[:, 0]).all()
        if not (proper and ((gaps > 0) | np.isposinf(edges[:, 1:])).all()):
            raise ValueError(
                f"edges must increase and begin with a finite one, got {str(edges)[:200]}."
            )
        proper = tails.shape == (len(edges), 2) and (np.isfinite(tails) & (tails > 0)).all()
        if not proper:
            raise ValueError(
                f"tails must be two positive numbers for each of {len(edges)} sets of edges, got "
                f"{str(tails)[:200]}."
            )
        n_bins = edges.shape[1] + 1
        if masses.ndim not in (3, 4) or masses.shape[-1] != n_bins or 0 in masses.shape:
            raise ValueError(
                f"masses has shape {masses.shape}, expected (n, components, {n_bins}) or "
                f"(n, components, outputs, {n_bins})."
            )
        total = masses.sum(axis=-1)
        if not ((masses >= 0).all() and (abs(total - 1) < 1e-5).all()):
            raise ValueError(
                "masses must be non-negative and sum to 1 over the bins; got a minimum of "
                f"{masses.min()} and sums between {total.min()} and {total.max()}."
            )

    def _freeze(self):
        super()._freeze()
        self.edges.flags.writeable = self.tails.flags.writeable = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.params["masses"].shape[:-1]

    def alike(self) -> tuple[Any, ...]:
        return *super().alike(), self.edges.tobytes(), self.tails.tobytes()

    def _set(self):
        """Which set of edges is whose, of `shape` but for one component."""
        return self.params["sets"][:, :1].astype(int)

    def _last(self):
        """Place of the last finite edge of each set."""
        return np.isfinite(self.edges).sum(axis=1) - 1

    def _bin(self, x):
        """Find the bins of x; an edge belongs to the bin below it."""
        own = self._set()
        found = np.zeros(np.broadcast_shapes(x.shape, own.shape), dtype=int)
        for number, edges in enumerate(self.edges):
            found = np.where(own == number, np.searchsorted(edges, x), found)
        # Infinity lies in the upper tail, not beyond what is not there.
        return self._place(np.minimum(found, self._last()[own] + 1))

    def _place(self, position):
        own, last = self._set(), self.edges.shape[1] - 1
        is_lower, is_upper = position == 0, position == self._last()[own] + 1
        low = np.where(is_lower, -np.inf, self.edges[own, np.clip(position - 1, 0, last)])
        high = np.where(is_upper, np.inf, self.edges[own, np.clip(position, 0, last)])
        tail = np.where(is_lower, self.tails[own, 0], self.tails[own, 1])
        with np.errstate(invalid="ignore"):
            size = np.where(is_lower | is_upper, tail, high - low)
        return _Place(position, low, high, size, is_lower, is_upper)

    def _at(self, key, position):
        """Values of an array at positions on its last axis, which are broadcast with the others."""
        return self.params[key][*np.ogrid[tuple(map(slice, self.shape))], position]

    def log_density(self, x: Array) -> Array:
        place = self._bin(x)
        with np.errstate(all="ignore"):
            depth = np.where(place.is_tail, place.distance(x), 0.0)
            return np.log(self._at("masses", place.position)) - np.log(place.size) - depth

    def cdf(self, x: Array) -> Array:
        place = self._bin(x)
        share, _ = place.shares(x)
        return self._at("below", place.position) + self._at("masses", place.position) * share

    def sf(self, x: Array) -> Array:
        place = self._bin(x)
        _, share = place.shares(x)
        return self._at("above", place.position + 1) + self._at("masses", place.position) * share

    def ppf(self, q: Array) -> Array:
        # At 0 the first bin that is not empty.
        is_below = self.params["below"][..., 1:-1] < np.maximum(q, np.finfo(float).tiny)[..., None]
        place = self._place(is_below.sum(axis=-1))
        mass = self._at("masses", place.position)
        with np.errstate(all="ignore"):
            share = ((q - self._at("below", place.position)) / mass).clip(0, 1)
            return np.select(
                [place.is_lower, place.is_upper],
                [
                    place.high + place.size * np.log(q / mass),
                    place.low - place.size * np.log((1 - q) / mass),
                ],
                place.low + share * place.size,
            )

    def _of_bins(self):
        """Mean and variance within each bin, (sets, b)."""
        lower, upper = self.edges[:, :-1], self.edges[:, 1:]
        with np.errstate(invalid="ignore", over="ignore"):
            mean = np.pad((lower / 2 + upper / 2), ((0, 0), (1, 1)))
            var = np.pad((upper - lower) ** 2 / 12, ((0, 0), (1, 1)))
            every, last = np.arange(len(self.edges)), self._last()
            mean[:, 0] = self.edges[:, 0] - self.tails[:, 0]
            mean[every, last + 1] = self.edges[every, last] + self.tails[:, 1]
            var[:, 0], var[every, last + 1] = self.tails.T**2
        # What is not there counts nothing, nor does infinity times nothing.
        is_there = np.arange(mean.shape[1]) < last[:, None] + 2
        return np.where(is_there, mean, 0.0), np.where(is_there, var, 0.0)

    def mean(self) -> Array:
        mean, _ = self._of_bins()
        return np.einsum("...b,...b->...", self.params["masses"], mean[self._set()])

    def var(self) -> Array:
        mean, var = (values[self._set()] for values in self._of_bins())
        spread = var + (mean - self.mean()[..., None]) ** 2
        return np.einsum("...b,...b->...", self.params["masses"], spread)

    def below_0(self) -> tuple[Array, Array]:
        edges, ends = self.edges, np.minimum(self.edges, 0.0)
        every, last = np.arange(len(edges)), self._last()
        # Of X = edge - tail * E, whose E forgets what is above 0, and X = edge + tail * E up to 0.
        chance = np.exp(-np.maximum(edges[:, 0], 0.0) / self.tails[:, 0])
        centre, depth = ends[:, 0] - self.tails[:, 0], -ends[every, last] / self.tails[:, 1]
        rest = depth + np.expm1(-depth)
        outer = (
            (chance * centre, -self.tails[:, 1] * rest),
            (
                chance * (centre**2 + self.tails[:, 0] ** 2),
                self.tails[:, 1] ** 2 * (depth**2 - 2 * rest),
            ),
        )
        means = []
        for power, (lower, upper) in enumerate(outer, 1):
            with np.errstate(invalid="ignore", over="ignore"):
                inner = np.diff(ends ** (power + 1)) / (power + 1) / np.diff(edges)
            mean = np.pad(np.nan_to_num(inner), ((0, 0), (1, 1)))
            mean[:, 0], mean[every, last + 1] = lower, upper
            means.append(np.einsum("...b,...b->...", self.params["masses"], mean[self._set()]))
        return means[0], means[1]

    def merged(self, weights: Array) -> Components:
        sums = {
            key: np.einsum("nk...,nk...b->n...b", weights, self.params[key])[:, None]
            for key in ("masses", "below", "above")
        }
        return self._replace(sums | {"sets": self.params["sets"][:, :1]})

    def support(self) -> tuple[Array, Array]:
        possible = self.params["masses"] > 0
        first = possible.argmax(axis=-1)
        last = possible.shape[-1] - 1 - possible[..., ::-1].argmax(axis=-1)
        return self._place(first).low, self._place(last).high

    def crps(self, y: Array, weights: Array) -> Array:
        r"""CRPS of the mixtures, whose cdf is linear within the bins, and exponential in the tails.

        It is :math:`\int_{-\infty}^y F^2 + \int_y^\infty (1 - F)^2`, bin by bin: for a row only a
        few numbers are held at once.
        """
        total, params = np.zeros(y.shape), self.params
        for number in range(self.edges.shape[1] + 1):
            place = self._place(np.full(self._set().shape, number)).squeeze(1)
            mass = average(params["masses"][..., number], weights)
            below = average(params["below"][..., number], weights)
            above = average(params["above"][..., number + 1], weights)
            split = np.clip(y, place.low, place.high)
            with np.errstate(all="ignore"):
                share, rest = place.shares(split)
                left = _square(split - place.low, below, below + mass * share)
                right = _square(place.high - split, above + mass * rest, above)
                # From y to the edge of a tail, and beyond y: F or 1 - F decays from the mass.
                depth = place.distance(split)
                inner = depth + mass * (2 * np.expm1(-depth) - mass * np.expm1(-2 * depth) / 2)
                outer = (mass * np.exp(-depth)) ** 2 / 2
                score = np.where(place.is_tail, place.size * (inner + outer), left + right)
            is_there = number <= self._last()[self._set()[:, 0]] + 1
            total += np.where(is_there, score, 0.0)
        return total

    def to_arrays(self) -> tuple[str, dict[str, Any]]:
        kept = {"masses": self.params["masses"], "sets": self.params["sets"]}
        return self.tag, {"edges": self.edges, "tails": self.tails, **kept}

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        made = cls(**content)
        # The constructor divides masses by their sum, which would move the last bit of saved ones.
        masses = with_sums(np.array(content["masses"], dtype=float))
        return made._replace(masses | {"sets": made.params["sets"]})


class _Place(NamedTuple):
    """Bins in which values lie, one each."""

    position: NDArray[np.intp]
    low: Array
    high: Array
    size: Array
    """Width or, of a tail, mean distance from its edge."""
    is_lower: NDArray[np.bool_]
    is_upper: NDArray[np.bool_]

    @property
    def is_tail(self) -> NDArray[np.bool_]:
        return self.is_lower | self.is_upper

    def squeeze(self, axis):
        return _Place._make(np.squeeze(values, axis) for values in self)

    def distance(self, x):
        """Distance from the edge of a tail, or from the lower edge, in units of the size."""
        return np.where(self.is_lower, self.high - x, x - self.low) / self.size

    def shares(self, x):
        """Shares of the bins' probability that lie below and above x, each to its last digit."""
        with np.errstate(all="ignore"):
            distance = self.distance(x)
            far, near = np.exp(-distance), -np.expm1(-distance)
            sides = [self.is_lower, self.is_upper]
            below = np.select(sides, [far, near], distance)
            return below, np.select(sides, [near, far], (self.high - x) / self.size)


def _square(width, start, end):
    """Integral of the square of what goes linearly from start to end."""
    return width * (start**2 + start * end + end**2) / 3
