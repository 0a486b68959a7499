"""The response of a fit as a family sees it, and back in its own units."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklearn_probmix.calibration import Spread, Temperature
from sklearn_probmix.components import Components
from sklearn_probmix.families import Family

__all__ = ["Response"]

# Of standardised responses: the gradients of what is farther away overflow.
_FARTHEST_Y = {torch.float32: 1e15}


class Response(NamedTuple):
    """The response of a fit as one family sees it."""

    family: Family
    """Fitted."""
    shift: Tensor
    """What is taken out of y, shape (n_outputs,)."""
    scale: Tensor
    calibration: Spread | Temperature | None = None
    """Of the mixtures of this family."""

    @classmethod
    def of(cls, family: Family, y: Tensor, weight: Tensor) -> Response:
        """Learn from responses what a family takes from them.

        Parameters
        ----------
        family : Family
        y : Tensor of shape (n, n_outputs)
            In original units, float64.
        weight : Tensor of shape (n,)
        """
        y = y.real
        outside = ~family.in_support(y)
        if outside.any():
            row, output = map(int, outside.nonzero()[0])
            raise ValueError(
                f"y holds {y[row, output]:.6g}, outside the support of {family!r}; expected "
                f"{family.support}."
            )
        family = family.fitted(y, weight.double())
        return cls(family, *family.scaling(y, weight.double()))

    def standardise(self, y: Tensor, name: str = "y") -> Tensor:
        """Responses as networks see them, of the same shape.

        Parameters
        ----------
        y : Tensor of shape (n, n_outputs)
            In original units, float64.
        name : str, default="y"
            For the message of the ValueError, where a response is not in the support or too far
            away from those that were learnt from.
        """
        if y.is_complex():
            # The imaginary part says which are censored.
            scaled = self.standardise(y.real, name)
            return torch.complex(scaled, y.imag.to(scaled.dtype))
        scaled = self.family.standardise(y, self.shift, self.scale)
        dtype = self.family.dtype
        is_near = self.family.in_support(scaled) & (scaled.abs() < _FARTHEST_Y.get(dtype, math.inf))
        if not is_near.all():
            row, output = map(int, (~is_near).nonzero()[0])
            raise ValueError(
                f"{name} holds {y[row, output]:.6g}, too far from the rows that the fit began with "
                f"(standardised {scaled[row, output]:.3g}), or outside the support of "
                f"{self.family!r}; expected responses like theirs."
            )
        return scaled.to(dtype)

    def components(self, eta: Tensor) -> Components:
        """Calibrated densities or masses of y in its original units.

        Parameters
        ----------
        eta : Tensor of shape (rows, components, n_outputs, n_params)
        """
        family: Any = self.family
        if isinstance(self.calibration, Spread):
            eta = family.calibrated(eta, self.calibration)
        return family.components(eta, self.shift, self.scale)
