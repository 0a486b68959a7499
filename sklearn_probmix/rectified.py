"""Densities whose values below 0 are put at 0, for responses that cannot be negative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np

from sklearn_probmix.components import Array, Components, components_from_arrays, mixture_cdf
from sklearn_probmix.crps import DOUBLE_EXPONENTIAL, mixture_crps

__all__ = ["RectifiedComponents"]

# Probability below 0 of which less changes no digit; where pieces below 0 end, as shares of it, the
# most of them, and nodes of a piece.
_BREAKS = np.array([1e-6, 1e-4, 1e-2, 0.1, 0.5, 0.9, 0.99, 0.9999, 1.0])
_MOST_PIECES, _LEAST = 96, 1e-9
_PIECE = tuple((np.polynomial.legendre.leggauss(4) + np.c_[[1, 0]]) / 2)


class RectifiedComponents(Components, tag="rectified"):
    """Components of max(X, 0): what is below 0 becomes a mass at 0, and all that is positive stays.

    Parameters
    ----------
    components : Components
        Of X, of one family and without atoms, or a ValueError.

    Examples
    --------
    >>> from sklearn_probmix.scipy_components import scipy_components
    >>> from sklearn_probmix.rectified import RectifiedComponents
    >>> some = RectifiedComponents(scipy_components("norm", {"loc": [[0.0]], "scale": [[1.0]]}))
    >>> some.cdf(-0.1), some.cdf(0.0), some.mean().round(3)
    (array([[0.]]), array([[0.5]]), array([[0.399]]))
    """

    has_atoms = has_crps = True

    def __init__(self, components: Components):
        if components.has_atoms or len(components.blocks) > 1:
            raise ValueError(f"found {components.name!r}; expected densities of one family.")
        self._components = components

    unrectified = property(lambda self: self._components)
    name = property(lambda self: f"rectified({self.unrectified.name})")
    params = property(lambda self: self.unrectified.params)
    shape = property(lambda self: self.unrectified.shape)
    is_smooth = property(lambda self: self.unrectified.is_smooth)

    def log_density(self, x: Array) -> Array:
        return np.where(x > 0, self.unrectified.log_density(x), self.log_mass(x))

    def log_mass(self, x: Array) -> Array:
        if not (x == 0).any():
            return super().log_mass(x)
        return np.where(x == 0, self.log_probability(-np.ones(1), np.zeros(1)), -np.inf)

    def log_probability(self, low: Array, high: Array) -> Array:
        inside = self.unrectified.log_probability(low, high)
        with np.errstate(divide="ignore"):
            below = np.log(self.unrectified.cdf(high))
        if np.isneginf(below).any():
            # It underflows, and is nearly all near 0.
            below = np.maximum(below, self.unrectified.log_probability(high - 1, high))
        return np.where(low > 0, inside, np.where(high < 0, -np.inf, below))

    def cdf(self, x: Array) -> Array:
        return np.where(x < 0, 0.0, self.unrectified.cdf(x))

    def sf(self, x: Array) -> Array:
        return np.where(x < 0, 1.0, self.unrectified.sf(x))

    def ppf(self, q: Array) -> Array:
        return np.maximum(self.unrectified.ppf(q), 0.0)

    def support(self) -> tuple[Array, Array]:
        low, high = self.unrectified.support()
        return np.maximum(low, 0.0), np.maximum(high, 0.0)

    def atoms(self, low: Array, high: Array, most: int) -> Array:
        return np.clip(np.zeros((1, *low.shape)), low, high)

    def mean(self) -> Array:
        return np.maximum(self.unrectified.mean() - self._below()[0], 0.0)

    def var(self) -> Array:
        first, second = self._below()
        change = first * (2 * self.unrectified.mean() - first) - second
        return np.maximum(self.unrectified.var() + change, 0.0)

    def _below(self):
        """Means of min(X, 0) and of its square."""
        if (closed := self.unrectified.below_0()) is not None:
            return closed
        probability, moments = self.unrectified.cdf(np.zeros(1)), np.zeros((2, *self.shape))
        rows = (probability > _LEAST).any(axis=tuple(range(1, probability.ndim)))
        if rows.any():
            some, probability = self.unrectified.take(rows), probability[rows]
            # Quantiles, over shares of the probability.
            for share, weight in zip(*DOUBLE_EXPONENTIAL, strict=True):
                q = np.maximum(share * probability, np.finfo(float).tiny)
                value = np.minimum(some.ppf(q), 0.0)
                moments[:, rows] += weight * probability * np.stack([value, value**2])
        return moments

    def crps(self, y: Array, weights: Array) -> Array:
        score = mixture_crps(self.unrectified, weights, y)
        below = mixture_cdf(self.unrectified, weights, np.zeros_like(y))
        rows = (below > _LEAST).any(axis=tuple(range(1, below.ndim)))
        if rows.any():
            # Where y is at least 0, all that goes is the integral of F^2 below 0.
            score[rows] -= _square_below_0(self.unrectified.take(rows), weights[rows])
        return score

    def rvs(self, rows: Any, chosen: Any, rng: Any) -> Array:
        return np.maximum(self.unrectified.rvs(rows, chosen, rng), 0.0)

    def merged(self, weights: Array) -> Components | None:
        one = self.unrectified.merged(weights)
        return None if one is None else type(self)(one)

    def alike(self) -> tuple[Any, ...]:
        return type(self), self.unrectified.alike()

    def concatenate(self, others: Sequence[Self], axis: int) -> Self:
        return type(self)(self.unrectified.concatenate([each.unrectified for each in others], axis))

    def _map(self, function: Callable[[Array], Array]) -> Self:
        return type(self)(self.unrectified._map(function))

    def to_arrays(self) -> tuple[str, dict[str, Any]]:
        return self.tag, {"components": list(self.unrectified.to_arrays())}

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        if content["components"][0] == cls.tag:
            raise ValueError("found rectified components in rectified ones.")
        return cls(components_from_arrays(*content["components"]))


def _square_below_0(components, weights):
    """Integral of the squared cdf of mixtures from -infinity to 0, of y's shape."""
    n, _, *outputs = components.shape
    shares = _BREAKS.reshape(-1, *[1] * len(components.shape))
    q = np.maximum(components.cdf(np.zeros(1)) * shares, np.finfo(float).tiny)
    breaks = np.moveaxis(np.minimum(components.ppf(q), 0.0), 2, 1).reshape(-1, n, *outputs)
    breaks.sort(axis=0)
    keep = np.linspace(0, len(breaks) - 1, min(len(breaks), _MOST_PIECES)).astype(int)
    total = np.zeros((n, *outputs))
    for start, end in pairwise([*breaks[keep], np.zeros_like(total)]):
        for node, weight in zip(*_PIECE, strict=True):
            cdf = mixture_cdf(components, weights, start + node * (end - start))
            total += weight * (end - start) * cdf**2
    return total
