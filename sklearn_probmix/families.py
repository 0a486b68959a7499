"""Exponential families on natural parameters.

A density of an exponential family reads ``p(y) = h(y) exp(<eta, T(y)> - A(eta))`` with natural
parameters ``eta``. The normalised product of powers ``p_i^lam p_j^(1 - lam)`` stays in the family
and has the natural parameters ``lam eta_i + (1 - lam) eta_j`` (Theorem C.1 of the paper), so that
log-linear pooling is one :func:`torch.lerp`, the same for every family.

Conventions for shapes, used throughout the package:

* ``raw``, the unconstrained outputs of a network, and ``eta``: ``(..., n_outputs, n_params)``;
* ``y``: ``(..., n_outputs)``;
* a module returns ``eta`` of shape ``(rows, n_outputs, n_params)`` or, for a mixture,
  ``(rows, components, n_outputs, n_params)``; components of unequal weight are a
  :class:`~sklearn_probmix.pooling.Mixture`;
* what a response is mixed to is a weighted set of points, ``points`` of shape
  ``(rows, n_points, n_outputs)`` and ``weights`` of shape ``(rows, n_points)``. The loss of a row
  is ``-sum_a weights[a] log p(points[a])``. For one component log p is linear in T(y), hence any
  set of points with the right expectation of T gives the expected loss exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, one_hot, pad, softplus

from sklearn_probmix.calibration import Spread, Temperature
from sklearn_probmix.components import Components
from sklearn_probmix.pooling import Mixture, log_linear_pool
from sklearn_probmix.scipy_components import scipy_components

__all__ = ["Family", "get_family"]

# Keeps a positive parameter away from zero where softplus underflows in float32.
_TINY = 1e-12
_LARGEST_FLOOR = 1e30
_LEAST_TAIL = 1e-290

#: What is removed from y and given back, of each output or of all.
Units = Tensor | float
#: Keyword arguments of scipy.stats.
Params = dict[str, Tensor]


def stack_parameters(*parameters: Tensor) -> Tensor:
    """Join parameters (...) along a new last axis, each contiguous, which is quicker to undo."""
    return torch.stack(parameters).movedim(0, -1)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Entries of values (rows, components, ...) at an index (rows, ...) of components."""
    return values[torch.arange(len(values)).unsqueeze(1), index]


def finite_exp(x: Tensor) -> Tensor:
    """Exponentiate to a positive, finite number, also far away from the training rows."""
    return x.clamp(-700, 700).exp()


class Family(ABC):
    """An exponential family: the minimum that a subclass supplies, and what follows from it.

    Subclasses define :meth:`natural` and :meth:`log_prob`, and what is predicted: a density that
    scipy.stats has by `scipy_name` and :meth:`scipy_parameters`, another by :meth:`components`.
    Those of a bounded or discrete response override :meth:`in_support`, those whose response may be
    censored :meth:`log_sf`, those that take more from the responses than a scaling :meth:`fitted`
    and :meth:`unfitted`, and those whose response can be smoothed or rescaled :meth:`kernel`,
    :meth:`pooled_kernel`, :meth:`scaling` or :meth:`standardise`.
    """

    #: Name in scipy.stats of the distribution, its parameters come from `scipy_parameters`.
    scipy_name: str
    #: What calibrates its mixtures, if anything does.
    calibration: type[Spread] | type[Temperature] | None = None
    #: Whether y is Normal in the units in which the network is trained.
    is_normal: bool = False
    #: Whether y is a count, of which a mixture with densities has no likelihood to speak of.
    is_count: bool = False
    #: Last axis of raw outputs and natural parameters.
    n_params: int = 2
    #: How many of the raw outputs, counted from the last, do not depend on x.
    n_shared: int = 0
    #: The rule that mixes responses unless the user names another.
    default_response: str = "expected"
    #: What y is stored as; float64 where y enters through functions that float32 ruins.
    dtype: torch.dtype = torch.float32
    #: Support in words, for error messages.
    support: str = "the real numbers"

    @abstractmethod
    def natural(self, raw: Tensor) -> Tensor:
        """Map the unconstrained outputs of a network to natural parameters, of the same shape.

        Parameters
        ----------
        raw : Tensor of shape (..., n_outputs, n_params)
        """

    @abstractmethod
    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        """Log-density of y in nats, shape (..., n_outputs).

        Parameters
        ----------
        eta : Tensor of shape (..., n_outputs, n_params)
        y : Tensor of shape (..., n_outputs)
        """

    def log_sf(self, eta: Tensor, y: Tensor) -> Tensor:
        """Log-probability of more than y, shape (..., n_outputs): what a censored response tells.

        Parameters
        ----------
        eta : Tensor of shape (..., n_outputs, n_params)
        y : Tensor of shape (..., n_outputs)
        """
        raise NotImplementedError(f"{self!r} has no log_sf.")

    def components(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Components:
        """Predictive densities or masses of y in its original units.

        Parameters
        ----------
        eta : Tensor of shape (rows, components, n_outputs, n_params)
        shift, scale : Tensor of shape (n_outputs,) or float
            What :meth:`standardise` removed from y.

        Returns
        -------
        Components of shape (rows, components, n_outputs)
        """
        params = self.scipy_parameters(eta, shift, scale)
        return scipy_components(self.scipy_name, {k: v.numpy() for k, v in params.items()})

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        """Keyword arguments of `scipy.stats.<scipy_name>` for y in its original units.

        Parameters
        ----------
        eta : Tensor of shape (..., n_outputs, n_params)
        shift, scale : Tensor of shape (n_outputs,) or float
            What :meth:`standardise` removed from y.

        Returns
        -------
        dict of str to float64 Tensor of shape (..., n_outputs)
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no scipy_name and scipy_parameters, and no components."
        )

    def moments(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of y, each of shape (..., n_outputs); of the Normal families only.

        Parameters
        ----------
        eta : Tensor of shape (..., n_outputs, n_params)
        """
        raise NotImplementedError(f"{self!r} is no Normal family.")

    def in_support(self, y: Tensor) -> Tensor:
        """Boolean mask, True where a finite y has positive density.

        Parameters
        ----------
        y : Tensor of shape (..., n_outputs)
        """
        return torch.ones_like(y, dtype=torch.bool)

    def fitted(self, y: Tensor, weight: Tensor) -> Family:
        """Settle what the family takes from the responses, such as bins; called once, by `fit`.

        Parameters
        ----------
        y : Tensor of shape (n, n_outputs)
            In original units, float64.
        weight : Tensor of shape (n,)

        Returns
        -------
        Family
            A new one, or itself where it takes nothing from them.
        """
        return self

    def unfitted(self) -> Family:
        """Return the family as it was before `fitted`."""
        return self

    @property
    def information(self) -> float:
        """What a row says of a natural parameter, where that is much.

        Weight decay is divided by it: its pull would move the maximum of a sharp likelihood by many
        standard deviations.
        """
        return 1.0

    def scaling(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale, shape (n_outputs,), that :meth:`standardise` is to remove.

        Parameters
        ----------
        y : float64 Tensor of shape (rows, n_outputs)
        weight : float64 Tensor of shape (rows,)
        """
        return y.new_zeros(y.shape[1]), y.new_ones(y.shape[1])

    def standardise(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Map y to the units in which the network is trained; stays in the support.

        Parameters
        ----------
        y : Tensor of shape (..., n_outputs)
        shift, scale : Tensor of shape (n_outputs,)
            What :meth:`scaling` found.
        """
        return y

    def kernel(self, y: Tensor, beta: float, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Kernel s_beta(. | y) of eq. 14 as weighted points.

        Parameters
        ----------
        y : Tensor of shape (rows, n_outputs)
        beta : float
            Variance of the kernel, or smoothing of the labels, in transformed units.
        noise : Tensor of shape (rows, n_outputs), default=None
            Standard Normal draws. With them a continuous kernel is sampled; without, its points
            have the kernel's expectation of T(y), which is exact for one component only.

        Returns
        -------
        points : Tensor of shape (rows, n_points, n_outputs)
        weights : Tensor of shape (rows, n_points)
        """
        if beta > 0:
            raise ValueError(
                f"beta={beta!r} smooths the response, which {self!r} has no kernel for; "
                "expected beta=0."
            )
        return y.unsqueeze(1), torch.ones_like(y[:, :1], dtype=torch.float32)

    def pooled_kernel(
        self, y_i: Tensor, y_j: Tensor, lam: Tensor, beta: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-linear pool of the kernels around y_i and y_j as weighted points, eq. 14.

        Parameters
        ----------
        y_i, y_j : Tensor of shape (rows, n_outputs)
        lam : Tensor of shape (rows,)
            Share of y_i.
        beta : float
            Variance of the kernels, or smoothing of the labels, in transformed units.
        noise : Tensor of shape (rows, n_outputs), default=None
            Standard Normal draws, with which a continuous kernel is sampled.

        Returns
        -------
        points : Tensor of shape (rows, n_points, n_outputs)
        weights : Tensor of shape (rows, n_points)
        """
        raise ValueError(
            f"response='pooled' needs a kernel around y, which {self!r} does not have; "
            "use response='expected'."
        )

    def to_dict(self) -> dict[str, Any]:
        """Name and arguments, of a family of this file: what a model file holds of it."""
        names = {made: name for name, made in FAMILIES.items()}
        if type(self) not in names:
            raise TypeError(f"a {type(self).__name__} is none of the families {sorted(FAMILIES)}.")
        return {"family": names[type(self)]} | vars(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Family:
        """Make the family that :meth:`to_dict` described.

        Parameters
        ----------
        data : dict
        """
        return get_family(**data)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        own, others = vars(self), vars(other)
        return own.keys() == others.keys() and all(
            _are_equal(own[name], others[name]) for name in own
        )

    def __hash__(self) -> int:
        # By names alone, since values of a family of one's own may be lists or arrays.
        return hash((type(self), frozenset(vars(self))))


def _are_equal(one, other):
    """Compare values that may be arrays or tensors, which compare each number."""
    if one is other:
        return True
    if getattr(one, "shape", ()) != getattr(other, "shape", ()):
        return False
    equal = one == other
    return bool(equal.all() if hasattr(equal, "all") else equal)


def constant(family: Family, name: str, device: torch.device) -> Tensor:
    """Return an array that is an attribute of a family as a tensor on a device.

    A GPU keeps what it was sent, since every copy would make the host wait for it.

    Parameters
    ----------
    family : Family
    name : str
    device : torch.device
    """
    if device.type == "cpu":
        return torch.from_numpy(getattr(family, name))
    return _on_device(family, name, device)


@lru_cache(maxsize=256)
def _on_device(family, name, device):
    with torch.inference_mode(False):
        return torch.from_numpy(getattr(family, name)).to(device)


class Normal(Family):
    """Normal density, eta = (mu / s2, -1 / (2 s2)), T(y) = (y, y^2), y real.

    Raw outputs are the mean and the inverse softplus of the variance less its floor. The
    log-density is computed centred, ``-.5 log(2 pi s2) - (y - mu)^2 / (2 s2)``: the canonical
    form loses every digit in float32 where ``mu^2 / s2`` is large.

    Parameters
    ----------
    variance_floor : float, default=1e-6
        Smallest variance that the network can express, in units of the transformed y; positive,
        and at most 1e30, or a ValueError.
    """

    scipy_name = "norm"
    calibration = Spread
    is_normal = True
    default_response = "pooled"

    def __init__(self, variance_floor: float = 1e-6):
        # Of a floor near the largest float32 the precision would be 0.
        if not 0 < variance_floor <= _LARGEST_FLOOR:
            raise ValueError(
                f"variance_floor={variance_floor!r}; expected a positive number, at most "
                f"{_LARGEST_FLOOR:g}."
            )
        self.variance_floor = variance_floor

    def natural(self, raw: Tensor) -> Tensor:
        mean, spread = raw.unbind(-1)
        precision = 1 / (softplus(spread) + self.variance_floor)
        return stack_parameters(mean * precision, -0.5 * precision)

    @staticmethod
    def moments(eta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, each of shape (..., n_outputs)."""
        variance = -0.5 / eta[..., 1]
        return eta[..., 0] * variance, variance

    def calibrated(self, eta: Tensor, spread: Spread, rounding: Units = 0.0) -> Tensor:
        """Natural parameters of this mean, and of the variance of the spread and of rounding."""
        mean, variance = self.moments(eta.double())
        precision = 1 / (spread.apply(variance) + rounding)
        return stack_parameters(mean * precision, -0.5 * precision)

    def to_normal(self, y: Tensor) -> Tensor:
        """Transform y to what is Normal."""
        return y

    def condensed(self, mixture: Mixture, n_kept: int, n_groups: int) -> Mixture:
        """Keep the heaviest components of every row, and few Normals in place of the others.

        These are put into groups of like means, whose mean and variance they have, so that mean and
        variance of the mixture stay.

        Parameters
        ----------
        mixture : Mixture
            `eta` of shape (rows, components, n_outputs, 2), weights of sum 1.
        n_kept, n_groups : int
            Number of components that stay, and of those in place of the others.
        """
        eta, log_weights = (part.double() for part in mixture)
        n_rest = eta.shape[1] - n_kept
        if n_rest <= n_groups:
            return mixture
        order = log_weights.argsort(dim=1, descending=True, stable=True)
        heavy, light = order.split([n_kept, n_rest], dim=1)
        mean, variance = self.moments(eta)
        light = light.gather(1, _at(mean, light)[..., 0].argsort(dim=1, stable=True))
        # Padded with what has no weight.
        size = -(-n_rest // n_groups)
        groups, share = (
            pad(each, (0, size * n_groups - n_rest)).unflatten(1, (-1, size))
            for each in (light, _at(log_weights, light).exp())
        )
        total = share.sum(2).clamp(min=_TINY)
        weight = (share / total.unsqueeze(2)).unsqueeze(3)
        mean, variance = (
            _at(each, groups.flatten(1)).unflatten(1, (-1, size)) for each in (mean, variance)
        )
        centre = (weight * mean).sum(2)
        spread = (weight * (variance + (mean - centre.unsqueeze(2)).square())).sum(2)
        # Where nothing is in a group, any Normal will do.
        precision = 1 / torch.where(spread > 0, spread, 1.0)
        merged = stack_parameters(centre * precision, -0.5 * precision)
        return Mixture(
            torch.cat([_at(eta, heavy), merged], 1),
            torch.cat([_at(log_weights, heavy), total.log()], 1),
        )

    def rounding(self, y: Tensor, step: Any, shift: Any, scale: Any) -> Any:
        """Variance of what rounding did to y, or 0 where that is not known.

        Parameters
        ----------
        y : Tensor of shape (n, n_outputs)
            In the units in which the network is trained.
        step : array of shape (n_outputs,)
            To which the response was rounded, in its original units; 0 where it was not.
        shift, scale : array of shape (n_outputs,)
            What :meth:`standardise` removed.

        Returns
        -------
        array that broadcasts with y
        """
        return (step / scale) ** 2 / 12

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        # With the precision w: -(w y - w mu)^2 / (2 w) + log(w / (2 pi)) / 2. In float32 the
        # difference is off by 1e-7 of w y, which may be many standard deviations.
        first, second = eta.double().unbind(-1)
        precision = -2 * second
        squared = (precision * y - first).square() / precision
        return 0.5 * (precision.log() - squared - math.log(2 * math.pi))

    def log_sf(self, eta: Tensor, y: Tensor) -> Tensor:
        first, second = eta.double().unbind(-1)
        precision = -2 * second
        return torch.special.log_ndtr((first - precision * y) / precision.sqrt())

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        mean, variance = self.moments(eta.double())
        return {"loc": shift + scale * mean, "scale": scale * variance.sqrt()}

    def scaling(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        share = weight / weight.sum()
        shift = share @ y
        # Deviations are scaled before they are squared: 1e30 and 1e-30 are units like any other.
        largest = (y - shift).abs().amax(0)
        unit = torch.where(largest > 0, largest, 1.0)
        scale = unit * (share @ ((y - shift) / unit).square()).sqrt()
        constant = scale <= 10 * torch.finfo(y.dtype).eps * shift.abs()
        return shift, torch.where(constant, self._unit_of_constant(shift), scale)

    @staticmethod
    def _unit_of_constant(shift: Tensor) -> Tensor:
        # A constant has no spread of its own; its size is the unit then, unless it is zero.
        return torch.where(shift == 0, 1.0, shift.abs())

    def standardise(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return (y - shift) / scale

    def kernel(self, y: Tensor, beta: float, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # Two points at one standard deviation have the mean and the variance of the kernel,
        # which is all of it that T(y) = (y, y^2) sees.
        if beta == 0:
            return y.unsqueeze(1), torch.ones_like(y[:, :1])
        deviation = math.sqrt(beta)
        noises = [1.0, -1.0] if noise is None else [noise]
        points = torch.stack([y + deviation * z for z in noises], dim=1)
        return points, torch.full_like(points[..., 0], 1 / len(noises))

    def pooled_kernel(
        self, y_i: Tensor, y_j: Tensor, lam: Tensor, beta: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.kernel(log_linear_pool(y_i, y_j, lam), beta, noise)


class HomoscedasticNormal(Normal):
    """Normal density whose variance is one learned number per output, not a function of x.

    With it ProbMix mixes the means of the outputs (Theorem 4.4).
    """

    n_shared = 1


class LogNormal(Normal):
    """Log-normal density: log y is Normal, T(y) = (log y, log^2 y), h(y) = 1 / y, y > 0.

    The kernel around y and the standardisation are the Normal's, on log y.
    """

    scipy_name = "lognorm"
    is_normal = False
    dtype = torch.float64  # an outlier among many equal rows is beyond exp in float32
    support = "the positive numbers"

    def in_support(self, y: Tensor) -> Tensor:
        return y > 0

    def to_normal(self, y: Tensor) -> Tensor:
        return y.log()

    def rounding(self, y: Tensor, step: Any, shift: Any, scale: Any) -> Any:
        return 0 * step

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        log_y = y.double().log()
        return super().log_prob(eta, log_y) - log_y

    def log_sf(self, eta: Tensor, y: Tensor) -> Tensor:
        return super().log_sf(eta, y.double().log())

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        normal = super().scipy_parameters(eta, shift, scale)
        return {"s": normal["scale"], "scale": finite_exp(normal["loc"])}

    def scaling(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return super().scaling(y.log(), weight)

    @staticmethod
    def _unit_of_constant(shift: Tensor) -> Tensor:
        # Of a logarithm the size depends on the unit of y.
        return torch.ones_like(shift)

    def standardise(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return super().standardise(y.log(), shift, scale).exp()

    def kernel(self, y: Tensor, beta: float, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        points, weights = super().kernel(y.log(), beta, noise)
        return points.exp(), weights

    def pooled_kernel(
        self, y_i: Tensor, y_j: Tensor, lam: Tensor, beta: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.kernel(log_linear_pool(y_i.log(), y_j.log(), lam).exp(), beta, noise)


class Gamma(Family):
    """Gamma density of shape a and rate b, eta = (a, -b), T(y) = (log y, y), h(y) = 1 / y, y > 0.

    Raw outputs are the inverse softplus of the mean a / b and of the shape a. The shape itself,
    not a - 1, is the natural parameter: the difference goes into h and spares float32 a
    cancellation for small shapes.
    """

    scipy_name = "gamma"
    dtype = torch.float64
    support = "the positive numbers"

    def in_support(self, y: Tensor) -> Tensor:
        return y > 0

    def natural(self, raw: Tensor) -> Tensor:
        mean, shape = (softplus(raw) + _TINY).unbind(-1)
        return stack_parameters(shape, -shape / mean)

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        shape, rate = eta[..., 0].double(), -eta[..., 1].double()
        y = y.double()
        density = torch.xlogy(shape, rate) - torch.lgamma(shape) - y.log()
        return density + torch.xlogy(shape, y) - rate * y

    def log_sf(self, eta: Tensor, y: Tensor) -> Tensor:
        shape, rate = eta[..., 0].double(), -eta[..., 1].double()
        return _LogGammaSf.apply(*torch.broadcast_tensors(shape, rate * y.double()))

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        eta = eta.double()
        return {"a": eta[..., 0], "scale": -scale / eta[..., 1]}

    def scaling(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        unit = y.amax(0)
        return y.new_zeros(y.shape[1]), unit * ((weight / weight.sum()) @ (y / unit))

    def standardise(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return y / scale


class _LogGammaSf(torch.autograd.Function):
    """Logarithm of the regularised upper incomplete gamma function Q(a, x), a > 0, x >= 0."""

    @staticmethod
    def value(a: Tensor, x: Tensor) -> Tensor:
        upper = torch.special.gammaincc(a, x)
        # Near 1, and where it is below the smallest float: by a continued fraction.
        near = torch.log1p(-torch.special.gammainc(a, x))
        far = torch.xlogy(a, x) - x - torch.lgamma(a) - (x + 1 - a).clamp(min=1).log()
        value = torch.where(upper > 0.5, near, upper.log())
        return torch.where(upper < _LEAST_TAIL, far, value)

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
        value = _LogGammaSf.value(a, x)
        ctx.save_for_backward(a, x, value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, x, value = ctx.saved_tensors
        # Torch has no derivative by a.
        step = 1e-5 * a
        by_a = (_LogGammaSf.value(a + step, x) - _LogGammaSf.value(a - step, x)) / (2 * step)
        by_x = -((a - 1) * x.clamp(min=_TINY).log() - x - torch.lgamma(a) - value).exp()
        return gradients[0] * by_a, gradients[0] * by_x


class Beta(Family):
    """Beta density, eta = (a, b), T(y) = (log y, log(1 - y)), h(y) = 1 / (y (1 - y)), 0 < y < 1.

    Raw outputs are the logit of the mean a / (a + b) and the inverse softplus of a + b.
    """

    scipy_name = "beta"
    dtype = torch.float64
    support = "the open interval (0, 1)"

    def in_support(self, y: Tensor) -> Tensor:
        return (y > 0) & (y < 1)

    def natural(self, raw: Tensor) -> Tensor:
        logit, size = raw.unbind(-1)
        size = softplus(size) + _TINY
        parameters = stack_parameters(torch.sigmoid(logit), torch.sigmoid(-logit))
        return parameters * size.unsqueeze(-1) + _TINY

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        a, b = eta.double().unbind(-1)
        y = y.double()
        normaliser = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return (a - 1) * y.log() + (b - 1) * torch.log1p(-y) - normaliser

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        a, b = eta.double().unbind(-1)
        return {"a": a, "b": b}


class _Classes(Family):
    """What the categorical and the Bernoulli family share: kernels on a finite set of classes."""

    n_classes: int
    calibration = Temperature

    def kernel(self, y: Tensor, beta: float, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if beta == 0:
            return super().kernel(y, beta)
        weights = (self._one_hot(y) + beta) / (1 + self.n_classes * beta)
        return self._all_classes(y), weights

    def pooled_kernel(
        self, y_i: Tensor, y_j: Tensor, lam: Tensor, beta: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if beta == 0:
            raise ValueError(
                "response='pooled' of class labels is 0/0 at beta=0; expected beta > 0, "
                "or response='expected'."
            )
        log_i, log_j = ((self._one_hot(y) + beta).log() for y in (y_i, y_j))
        return self._all_classes(y_i), log_linear_pool(log_i, log_j, lam).softmax(-1)

    def _one_hot(self, y: Tensor) -> Tensor:
        """Return the indicators, shape (rows, n_classes)."""
        if y.shape[1] != 1:
            raise ValueError(f"{self!r} mixes labels of one output; y has {y.shape[1]}.")
        return one_hot(y[:, 0].long(), self.n_classes).to(torch.float32)

    def _all_classes(self, y: Tensor) -> Tensor:
        return torch.arange(self.n_classes, device=y.device).reshape(1, -1, 1).expand(len(y), -1, 1)


class Categorical(_Classes):
    """Categorical mass over n_classes classes, eta = logits, T(y) = one-hot(y).

    Logits are natural parameters up to a constant per row, which the log-softmax removes: with
    log-linear pooling ProbMix mixes logits (Theorem 4.3).

    Parameters
    ----------
    n_classes : int
        At least 2, or a ValueError; y holds the codes 0, ..., n_classes - 1.
    """

    dtype = torch.int64

    def __init__(self, n_classes: int = 2):
        if not isinstance(n_classes, Integral) or n_classes < 2:
            raise ValueError(f"n_classes={n_classes!r}; expected an integer, at least 2.")
        self.n_classes = n_classes

    n_params = property(lambda self: self.n_classes)
    support = property(lambda self: f"the codes 0, ..., {self.n_classes - 1}")

    def in_support(self, y: Tensor) -> Tensor:
        return (y >= 0) & (y < self.n_classes) & (y == y.floor())

    def natural(self, raw: Tensor) -> Tensor:
        return raw

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        log_p = log_softmax(eta, dim=-1)
        code, _ = torch.broadcast_tensors(y.long().unsqueeze(-1), log_p[..., :1])
        return log_p.expand(*code.shape[:-1], -1).gather(-1, code).squeeze(-1)


class Bernoulli(_Classes):
    """Bernoulli mass with logit eta, T(y) = y, y in {0, 1}."""

    scipy_name = "bernoulli"
    n_params = 1
    n_classes = 2
    support = "the set {0, 1}"

    def in_support(self, y: Tensor) -> Tensor:
        return (y == 0) | (y == 1)

    def natural(self, raw: Tensor) -> Tensor:
        return raw

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        logit, y = eta[..., 0], y.to(eta.dtype)
        return y * logsigmoid(logit) + (1 - y) * logsigmoid(-logit)

    def scipy_parameters(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Params:
        # Unlike the sigmoid's, the bits of these two do not depend on an element's place.
        return {"p": logsigmoid(eta[..., 0].double()).exp()}


FAMILIES = {
    "normal": Normal,
    "homoscedastic-normal": HomoscedasticNormal,
    "lognormal": LogNormal,
    "gamma": Gamma,
    "beta": Beta,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
}


def get_family(family: str | Family, **parameters: Any) -> Family:
    """Look a family up by name, or pass an instance through.

    Parameters
    ----------
    family : str or Family
        One of "normal", "homoscedastic-normal", "lognormal", "gamma", "beta", "poisson",
        "negative-binomial", "transformed", "hurdle", "histogram", "lattice", "bernoulli",
        "categorical", or an instance of a subclass of :class:`Family`.
    **parameters
        Arguments of the family, such as `variance_floor` of the Normal or `n_classes` of the
        categorical; only with a name.

    Returns
    -------
    Family

    Raises
    ------
    ValueError, TypeError
        If the name is unknown; if `family` is neither a name nor a family.

    Examples
    --------
    >>> from sklearn_probmix import get_family
    >>> get_family("categorical", n_classes=3)
    Categorical(n_classes=3)
    """
    if isinstance(family, Family):
        return family
    if not isinstance(family, str):
        raise TypeError(f"family must be a name or a Family; found {family!r}.")
    if family not in FAMILIES:
        # Those in files of their own enter FAMILIES when they are loaded, which kinds does.
        import_module("sklearn_probmix.kinds")
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} is unknown; expected one of {sorted(FAMILIES)}.")
    return FAMILIES[family](**parameters)
