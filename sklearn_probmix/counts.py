"""Families of counts: Poisson, and the negative binomial where counts are wider."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from sklearn_probmix.families import (
    FAMILIES,
    Family,
    Params,
    Units,
    constant,
    finite_exp,
    stack_parameters,
)

__all__ = ["NegativeBinomial", "Poisson"]

# Of negative binomials: bounds of log r and log(r / mu); where Stirling's series holds to all
# digits; the least squared relative spread beyond a Poisson's that r begins with; and the ratio of
# r to mu from where on a Poisson's spread is exact to a millionth.
_LOG_SIZE, _LOG_RATIO = (-20.0, 32.0), (-60.0, 80.0)
_SMALL, _LEAST_EXCESS, _LARGEST_RATIO = 20.0, 1e-6, 1e6


class _Counts(Family):
    """What families of counts share: raw outputs tell the mean relative to that of y.

    The taken-out mean is an offset of the log rate, and y stays a count: rates of a million are
    then as easily learnt as those of 1, where a network begins.

    Parameters
    ----------
    mean : sequence of float or None, default=None
        Of each output, positive. None takes 1, until `fit` settles it.
    """

    is_count = True

    dtype = torch.float64
    support = "the counts 0, 1, 2, ..."

    def __init__(self, mean: Sequence[float] | None = None):
        self.mean = _positive("mean", mean)

    def in_support(self, y: Tensor) -> Tensor:
        return (y >= 0) & (y == y.floor())

    def fitted(self, y: Tensor, weight: Tensor) -> Family:
        if self.mean is not None:
            return self
        mean = (weight / weight.sum()) @ y
        # Zeros alone have no size.
        return type(self)(torch.where(mean > 0, mean, 1.0).tolist())

    def unfitted(self) -> Family:
        return type(self)()

    @property
    def log_mean_(self) -> NDArray[np.float64]:
        """Logarithms of what is taken out, shape (n_outputs,) or (1,)."""
        return _logarithms(self.mean)


def _logarithms(values):
    """Logarithm of a number for each output, or of 1."""
    return np.array([math.log(value) for value in values or (1.0,)])


def _positive(name, values):
    """Return a number for each output, checked, or None."""
    if values is None:
        return None
    numbers = tuple(float(value) for value in values)
    if not (numbers and all(0 < number < math.inf for number in numbers)):
        raise ValueError(f"{name}={values!r}; expected positive, finite numbers, one per output.")
    return numbers


class Poisson(_Counts):
    """Poisson mass of rate exp(eta), T(y) = y, h(y) = 1 / y!, y a count.

    Raw outputs are the logarithm of the rate relative to the mean of y.

    Parameters
    ----------
    mean : sequence of float or None, default=None
        Mean of y, of each output, positive; None takes 1, until `fit` settles it.
    """

    scipy_name = "poisson"
    n_params = 1

    def natural(self, raw: Tensor) -> Tensor:
        return raw + constant(self, "log_mean_", raw.device).to(raw.dtype).unsqueeze(-1)

    @property
    def information(self) -> float:
        """Mean of y, at least 1."""
        return max(1.0, *(self.mean or (1.0,)))

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        log_rate, y = eta[..., 0].double(), y.double()
        return y * log_rate - log_rate.exp() - torch.lgamma(y + 1)

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        return {"mu": finite_exp(eta[..., 0].double())}


class NegativeBinomial(_Counts):
    """Negative binomial mass of mean mu and variance mu + mu^2 / r, for a y that is a count.

    The size r is one learned number per output, not a function of x: for a given r this is an
    exponential family, eta = log(mu / (mu + r)), T(y) = y, h(y) = Gamma(y + r) / (y! Gamma(r)). The
    second of the parameters is log r, which pooling of densities of one network leaves as it is.
    For large r the mass is the Poisson's.

    Raw outputs are the logarithm of mu relative to the mean of y, and a sixth of the logarithm of r
    relative to its estimate from the variance of y.

    Parameters
    ----------
    mean : sequence of float or None, default=None
        Mean of y, of each output, positive; None takes 1, until `fit` settles it.
    size : sequence of float or None, default=None
        Where r begins, of each output, positive; None takes 1, until `fit` settles it beside the
        mean.
    """

    scipy_name = "nbinom"
    n_shared = 1

    def __init__(self, mean: Sequence[float] | None = None, size: Sequence[float] | None = None):
        super().__init__(mean)
        self.size = _positive("size", size)

    @property
    def log_size_(self) -> NDArray[np.float64]:
        """Logarithms of where r begins, shape (n_outputs,) or (1,)."""
        return _logarithms(self.size)

    def fitted(self, y: Tensor, weight: Tensor) -> Family:
        if self.mean is not None:
            return self
        share = weight / weight.sum()
        mean = share @ y
        unit = torch.where(mean > 0, mean, 1.0)
        # What is left of the squared relative spread is 1 / r.
        excess = share @ ((y - mean) / unit).square() - 1 / unit
        size = 1 / excess.clamp(_LEAST_EXCESS, 1.0)
        return type(self)(unit.tolist(), self.size or size.tolist())

    def natural(self, raw: Tensor) -> Tensor:
        log_mean, shared = raw.unbind(-1)
        # A sixth, as r may be larger by many powers of ten.
        log_mean_, log_size_ = (
            constant(self, name, raw.device).to(raw.dtype) for name in ("log_mean_", "log_size_")
        )
        log_size = log_size_ + 6 * shared
        log_size = log_size.clamp(*_LOG_SIZE)
        # log(mu / (mu + r)), of which no digit is lost where r is small or large against mu.
        log_ratio = log_size - log_mean_ - log_mean
        return stack_parameters(-softplus(log_ratio.clamp(*_LOG_RATIO)), log_size)

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        mean, size = self._mean_and_size(eta)
        y = y.double()
        # As by Loader's saddle point: the deviance from mu = y, and the mass at mu = y. Gamma
        # functions of large numbers would take all digits.
        off, ratio = (y - mean) / (mean + size), (y + size) / (mean + size)
        # Far below mu, off rounds to -1; near it, the ratio to 1.
        log_ratio = torch.where(ratio < 0.5, ratio.log(), torch.log1p(off.clamp(min=-0.5)))
        deviance = torch.xlogy(y, y.clamp(min=1) / mean) - (y + size) * log_ratio
        mass = _log_stirling(y + size) - _log_stirling(size) - _log_stirling_of_factorial(y)
        return mass - 0.5 * torch.log1p(y / size) - deviance

    @staticmethod
    def _mean_and_size(eta: Tensor) -> tuple[Tensor, Tensor]:
        logit, log_size = eta.double().unbind(-1)
        size = log_size.exp()
        return size / torch.expm1(-logit), size

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        mean, size = self._mean_and_size(eta)
        # From where on it is a Poisson's: p, nearer to 1, would lose the mean.
        size = torch.minimum(size, _LARGEST_RATIO * mean)
        return {"n": size, "p": size / (size + mean)}


def _log_stirling(z: Tensor) -> Tensor:
    """Logarithm of Gamma(z) less Stirling's formula for it, z > 0."""
    large = z.clamp(min=_SMALL)
    square = large.square()
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / square) / square) / square) / large
    small = z.clamp(max=_SMALL)
    exact = torch.lgamma(small) - (small - 0.5) * small.log() + small - 0.5 * math.log(2 * math.pi)
    return torch.where(z > _SMALL, series, exact)


def _log_stirling_of_factorial(y: Tensor) -> Tensor:
    """Logarithm of y! less y log(y) - y, y >= 0."""
    small = y.clamp(max=_SMALL)
    exact = torch.lgamma(small + 1) - torch.xlogy(small, small) + small
    large = y.clamp(min=_SMALL)
    series = _log_stirling(large) + 0.5 * (2 * math.pi * large).log()
    return torch.where(y > _SMALL, series, exact)


FAMILIES |= {"poisson": Poisson, "negative-binomial": NegativeBinomial}
