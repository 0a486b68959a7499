"""Families that are made of others: a mass at zero beside a density of positive numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from sklearn_probmix.components import Array, Components, components_from_arrays
from sklearn_probmix.families import FAMILIES, Family, Units, get_family
from sklearn_probmix.scipy_components import Positive

__all__: list[str] = []

# What a positive response may be.
_POSITIVE_NUMBERS = 0.5, 1.0, 1e6


class HurdleComponents(Components, tag="hurdle"):
    """Components that are 0 with some probability, and otherwise as those of positive numbers.

    Parameters
    ----------
    positive : array-like of shape (n, k) or (n, k, outputs)
        Probability of a positive number, in [0, 1].
    components : Components of the same shape
        Of the positive numbers, without atoms.

    Raises
    ------
    ValueError
        If shapes differ, a probability is none, or `components` have atoms or negative values.

    Examples
    --------
    >>> from sklearn_probmix.scipy_components import scipy_components
    >>> from sklearn_probmix.compound import HurdleComponents
    >>> from sklearn_probmix.distributions import PredictiveDistribution
    >>> rain = HurdleComponents([[0.4]], scipy_components("gamma", {"a": [[2.0]]}))
    >>> dist = PredictiveDistribution(rain)
    >>> dist.pmf(0.0), dist.mean(), dist.ppf([0.5, 0.9]).round(2).ravel()
    (array([0.6]), array([0.8]), array([0.  , 2.69]))
    """

    has_atoms = True
    has_crps = property(
        lambda self: isinstance(self.components, Positive) and self.components.has_crps
    )
    name = property(lambda self: f"hurdle({self.components.name})")

    def __init__(self, positive: ArrayLike, components: Components):
        super().__init__({"positive": positive})
        self.components = components
        share = self.params["positive"]
        if share.shape != components.shape:
            raise ValueError(
                f"positive has shape {share.shape}; expected that of components, "
                f"{components.shape}."
            )
        if not ((share >= 0) & (share <= 1)).all():
            raise ValueError("positive holds what is no probability; expected 0 to 1.")
        is_plain = not components.has_atoms and len(components.blocks) == 1
        if not is_plain or (components.support()[0] < 0).any():
            raise ValueError(
                f"components are those of {components.name!r}; expected densities of positive "
                "numbers, of one family."
            )

    def log_density(self, x: Array) -> Array:
        with np.errstate(divide="ignore"):
            above = np.log(self.params["positive"]) + self.components.log_density(x)
        # The density may be infinite at 0, which is an atom here.
        return np.where(x > 0, above, self.log_mass(x))

    def log_mass(self, x: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.where(x == 0, np.log1p(-self.params["positive"]), -np.inf)

    def cdf(self, x: Array) -> Array:
        share = self.params["positive"]
        return np.where(x < 0, 0.0, (1 - share) + share * self.components.cdf(np.maximum(x, 0.0)))

    def sf(self, x: Array) -> Array:
        share = self.params["positive"]
        return np.where(x < 0, 1.0, share * self.components.sf(np.maximum(x, 0.0)))

    def ppf(self, q: Array) -> Array:
        share = self.params["positive"]
        with np.errstate(all="ignore"):
            # From above, where digits count: of q near 1.
            beyond = np.clip(1 - (1 - q) / share, 0.0, 1.0)
        is_zero = (q <= 1 - share) | (share == 0)
        return np.where(is_zero, 0.0, self.components.ppf(np.where(is_zero, 0.5, beyond)))

    def mean(self) -> Array:
        return self.params["positive"] * self.components.mean()

    def var(self) -> Array:
        share, mean = self.params["positive"], self.components.mean()
        return share * (self.components.var() + (1 - share) * mean**2)

    def support(self) -> tuple[Array, Array]:
        share = self.params["positive"]
        low, high = self.components.support()
        return np.where(share < 1, 0.0, low), np.where(share > 0, high, 0.0)

    def atoms(self, low: Array, high: Array, most: int) -> Array:
        return np.clip(np.zeros((1, *low.shape)), low, high)

    def crps(self, y: Array, weights: Array) -> Array:
        # In y - 2 E min(X, y) + E min(X, X') zeros add nothing: all are as if the others had less
        # weight. A component alone would be taken to have all of it, so there are two.
        twice = self.components.concatenate([self.components], axis=1)
        shares = weights * self.params["positive"] / 2
        return twice.crps(y, np.concatenate([shares, shares], axis=1))

    def rvs(self, rows: NDArray[np.intp], chosen: NDArray[np.intp], rng: Any) -> Array:
        positive = self.components.rvs(rows, chosen, rng)
        is_positive = rng.random(positive.shape) < self.params["positive"][rows, chosen]
        return np.where(is_positive, positive, 0.0)

    def alike(self) -> tuple[Any, ...]:
        return type(self), self.components.alike()

    def concatenate(self, others: Sequence[Self], axis: int) -> Self:
        joined = super().concatenate(others, axis)
        joined.components = self.components.concatenate([o.components for o in others], axis)
        return joined

    def to_arrays(self) -> tuple[str, dict[str, Any]]:
        positive = list(self.components.to_arrays())
        return self.tag, {"positive": self.params["positive"], "components": positive}

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        tag, arrays = content["components"]
        if tag == cls.tag:
            raise ValueError("found hurdles in hurdles; expected densities of positive numbers.")
        return cls(content["positive"], components_from_arrays(tag, arrays))

    def _map(self, function: Callable[[Array], Array]) -> Self:
        mapped = super()._map(function)
        mapped.components = self.components._map(function)
        return mapped


class Hurdle(Family):
    """A mass at 0, and a family of positive numbers beside it, for a y that is often 0.

    With q the probability of a positive number and f the density of the other family,
    ``p(0) = 1 - q`` and ``p(y) = q f(y)``. It is an exponential family of
    ``T(y) = (1{y > 0}, 1{y > 0} T+(y))`` with the natural parameters eta+ of the other family and
    ``log(q f(1) / (1 - q))``: the logarithm of a ratio of densities at two points is linear in
    natural parameters, so that pooling is exact. (It is the logit of q less the normaliser A+, up
    to what is linear in eta+.)

    Raw outputs are the logit of q, and those of the other family. Responses are not smoothed:
    `response="expected"` and `beta=0` only.

    Parameters
    ----------
    positive : str or Family, default="lognormal"
        An exponential family of all positive numbers that takes nothing but a scaling from the
        responses: "lognormal", "gamma", or one of your own.

    Raises
    ------
    ValueError
        If the other family is not one of all positive numbers and of no others.
    """

    dtype = torch.float64
    support = "0 and the positive numbers"

    def __init__(self, positive: str | Family = "lognormal"):
        self.positive = get_family(positive)
        numbers = torch.tensor(_POSITIVE_NUMBERS, dtype=torch.float64)
        takes = [self.positive.in_support(sign * numbers).tolist() for sign in (0, -1, 1)]
        if takes != [[False] * 3, [False] * 3, [True] * 3]:
            raise ValueError(
                f"positive={positive!r} is {self.positive.support}; expected a family of the "
                "positive numbers, such as 'lognormal' or 'gamma'."
            )

    n_params = property(lambda self: 1 + self.positive.n_params)
    n_shared = property(lambda self: self.positive.n_shared)

    def in_support(self, y: Tensor) -> Tensor:
        return y >= 0

    def natural(self, raw: Tensor) -> Tensor:
        eta = self.positive.natural(raw[..., 1:]).double()
        # In float64: at 1 a narrow density may have a very small logarithm.
        odds = raw[..., 0].double() + self._log_prob_of_one(eta)
        return torch.cat([odds.unsqueeze(-1), eta], dim=-1)

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        logit, eta = self._parts(eta)
        y = y.double()
        is_positive = y > 0
        above = self.positive.log_prob(eta, torch.where(is_positive, y, 1.0))
        return torch.where(is_positive, logsigmoid(logit) + above, logsigmoid(-logit))

    def _parts(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Logit of a positive number, and natural parameters of the other family."""
        odds, eta = eta[..., 0].double(), eta[..., 1:].double()
        return odds - self._log_prob_of_one(eta), eta

    def _log_prob_of_one(self, eta: Tensor) -> Tensor:
        return self.positive.log_prob(eta, eta.new_ones(()))

    def components(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Components:
        logit, eta = self._parts(eta)
        # Unlike the sigmoid's, these bits do not depend on an element's place.
        share = logsigmoid(logit).exp().numpy()
        return HurdleComponents(share, self.positive.components(eta, shift, scale))

    def scaling(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Take shift and scale from the positive numbers of each output."""
        found = [self._scaling_of_a_column(column, weight) for column in y.T.unsqueeze(-1)]
        shift, scale = (torch.cat(parts) for parts in zip(*found, strict=True))
        return shift, scale

    def _scaling_of_a_column(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        is_positive = y[:, 0] > 0
        if not is_positive.any():
            return super().scaling(y, weight)
        return self.positive.scaling(y[is_positive], weight[is_positive])

    def standardise(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        is_positive = y > 0
        scaled = self.positive.standardise(torch.where(is_positive, y, 1.0), shift, scale)
        # What is rounded to 0 is none of the zeros.
        scaled = torch.where(scaled > 0, scaled, math.nan)
        return torch.where(is_positive, scaled, 0.0)


FAMILIES["hurdle"] = Hurdle
