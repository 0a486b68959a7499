"""Masses on common values, one for each row and component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sklearn_probmix.components import Array, Components, is_whole, with_sums

__all__ = ["LatticeComponents"]


class LatticeComponents(Components, tag="lattice"):
    """Masses on a set of values that all rows and components share.

    Use it for a y of few values or of rounded ones.

    Parameters
    ----------
    values : array-like of shape (v,)
        Increasing, in units of y.
    masses : array-like of shape (n, k, v) or (n, k, outputs, v)
        Probabilities, which sum to 1 on the last axis.

    Raises
    ------
    ValueError
        If values do not increase, or masses have another shape or are no probabilities.

    Examples
    --------
    >>> from sklearn_probmix.lattice import LatticeComponents
    >>> from sklearn_probmix.distributions import PredictiveDistribution
    >>> half_steps = LatticeComponents([0.0, 0.5, 1.0], [[[0.2, 0.3, 0.5]]])
    >>> dist = PredictiveDistribution(half_steps)
    >>> dist.cdf(0.7), dist.ppf(0.6)
    (array([0.5]), array([1.]))
    """

    is_discrete = has_atoms = has_crps = True

    def __init__(self, values: ArrayLike, masses: ArrayLike):
        self.values = np.array(values, dtype=float)
        is_grid = self.values.ndim == 1 and np.isfinite(self.values).all() and self.values.size
        if not (is_grid and (np.diff(self.values) > 0).all()):
            raise ValueError(f"values must be finite and increase, got {values!r}.")
        masses = np.array(masses, dtype=float)
        if masses.ndim not in (3, 4) or masses.shape[-1] != len(self.values) or 0 in masses.shape:
            raise ValueError(
                f"masses has shape {masses.shape}, expected (n, components, {len(self.values)}) "
                f"or (n, components, outputs, {len(self.values)})."
            )
        total = masses.sum(axis=-1, keepdims=True)
        if not ((masses >= 0).all() and (abs(total - 1) < 1e-5).all()):
            raise ValueError(
                "masses must be non-negative and sum to 1 over the values; got a minimum of "
                f"{masses.min()} and sums between {total.min()} and {total.max()}."
            )
        self.params = with_sums(masses / total)
        self._freeze()

    def _freeze(self):
        super()._freeze()
        self.values.flags.writeable = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.params["masses"].shape[:-1]

    is_integer = property(lambda self: is_whole(self.values))

    def alike(self) -> tuple[Any, ...]:
        return *super().alike(), self.values.tobytes()

    def _at(self, key, position):
        """Values of an array at positions on its last axis, which are broadcast with the others."""
        return self.params[key][*np.ogrid[tuple(map(slice, self.shape))], position]

    def log_mass(self, x: Array) -> Array:
        position = np.searchsorted(self.values, x).clip(max=len(self.values) - 1)
        with np.errstate(divide="ignore"):
            return np.log(np.where(self.values[position] == x, self._at("masses", position), 0.0))

    log_density = log_mass

    def _log_sum(self, low: Array, high: Array) -> Array:
        first, end = np.searchsorted(self.values, low), np.searchsorted(self.values, high, "right")
        total = np.zeros(np.broadcast_shapes(low.shape, self.shape))
        for place in range((end - first).max(initial=0)):
            at = first + place
            masses = self._at("masses", at.clip(max=len(self.values) - 1))
            total += np.where(at < end, masses, 0.0)
        with np.errstate(divide="ignore"):
            return np.log(total)

    def cdf(self, x: Array) -> Array:
        return self._at("below", np.searchsorted(self.values, x, side="right"))

    def sf(self, x: Array) -> Array:
        return self._at("above", np.searchsorted(self.values, x, side="right"))

    def ppf(self, q: Array) -> Array:
        # An end of the support for 0 and 1.
        q = np.maximum(q, np.finfo(float).tiny)
        below = self.params["below"][..., 1:-1]
        return self.values[(below < q[..., None]).sum(axis=-1)]

    def mean(self) -> Array:
        return self.params["masses"] @ self.values

    def var(self) -> Array:
        return (self.params["masses"] * (self.values - self.mean()[..., None]) ** 2).sum(axis=-1)

    def support(self) -> tuple[Array, Array]:
        possible = self.params["masses"] > 0
        last = len(self.values) - 1 - possible[..., ::-1].argmax(axis=-1)
        return self.values[possible.argmax(axis=-1)], self.values[last]

    def atoms(self, low: Array, high: Array, most: int) -> Array:
        values = self.values[:: -(-len(self.values) // most)]
        return np.clip(values.reshape(-1, *[1] * low.ndim), low, high)

    def crps(self, y: Array, weights: Array) -> Array:
        cdf = np.einsum("nk...,nk...v->n...v", weights, self.params["below"])[..., 1:-1]
        y, left, right = y[..., None], self.values[:-1], self.values[1:]
        above = right - np.clip(y, left, right)
        steps = cdf**2 * (right - left - above) + (1 - cdf) ** 2 * above
        beyond = y - np.clip(y, self.values[0], self.values[-1])
        return steps.sum(axis=-1) + abs(beyond[..., 0])

    def to_arrays(self) -> tuple[str, dict[str, Any]]:
        return self.tag, {"values": self.values, "masses": self.params["masses"]}

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        lattice = cls(**content)
        # The constructor divides masses by their sum, which would move the last bit of saved ones.
        return lattice._replace(with_sums(np.array(content["masses"], dtype=float)))
