"""A Normal on g(y), with g a curve that is taken from the responses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import special
from scipy.optimize import minimize_scalar
from torch import Tensor

from sklearn_probmix.components import Array, Components, average
from sklearn_probmix.families import FAMILIES, Family, Normal, Units

__all__ = ["Curve"]

# Beyond so many times the largest deviation of y the curve goes on as a line.
_MARGIN = 2.0
# Of a Normal nothing is beyond so many standard deviations; nodes between two kinks of the curve,
# or one and the median.
_FARTHEST, _N_NODES = 8.5, 18
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(_N_NODES)
# Of the CRPS: standard deviations at which a component has a break, the most pieces of a row, and
# nodes in each.
_BREAKS, _MOST_PIECES = (-7.0, -4.0, -2.4, -1.2, 0.0, 1.2, 2.4, 4.0, 7.0), 160
_PIECE = tuple((np.polynomial.legendre.leggauss(8) + np.c_[[1, 0]]) / 2)
# A power whose limit at 0 is reached to all digits.
_ZERO = 1e-100
_QUARTILES = (0.25, 0.5, 0.75)


class Curve:
    r"""Yeo-Johnson's curve with straight ends, which takes the real numbers to the real numbers.

    With :math:`t = (y - centre) / unit` it is :math:`((1 + t)^\lambda - 1) / \lambda` for
    :math:`t \ge 0` and :math:`-((1 - t)^{2 - \lambda} - 1) / (2 - \lambda)` for :math:`t < 0`, with
    logarithms where a power is 0. Where \|t\| exceeds `reach` it goes on as its tangent, so that
    what is Normal on it has finite moments, and no bound.

    Parameters
    ----------
    centre, unit : array-like
        In units of y; the unit is positive.
    power : array-like
        :math:`\lambda`, in [0, 2]: 1 is a straight line, less is for a long tail above, more for
        one below.
    reach : array-like
        Positive.
    """

    #: Of the parameters.
    names = "centre", "unit", "power", "reach"

    def __init__(self, centre: ArrayLike, unit: ArrayLike, power: ArrayLike, reach: ArrayLike):
        values = (np.asarray(value, dtype=float) for value in (centre, unit, power, reach))
        self.centre, self.unit, self.power, self.reach = values

    @classmethod
    def fit(cls, y: Array, weight: Array) -> Curve:
        """Find the curve on which one column, of shape (n,), is most nearly Normal.

        The centre is the median and the unit the distance of the quartiles, both weighted. The
        power is that of maximum weighted likelihood.
        """
        order = np.argsort(y)
        passed = np.cumsum(weight[order]) / weight.sum()
        low, centre, high = y[order][np.searchsorted(passed, _QUARTILES).clip(max=len(y) - 1)]
        largest = abs(y - centre).max()
        # A heap of equal values has no quartiles of use.
        unit = max((high - low) / 2, 1e-3 * largest) or abs(centre) or 1.0
        share = weight / weight.sum()
        t = (y - centre) / unit
        log_slopes = share @ (np.sign(t) * np.log1p(abs(t)))

        def loss(power):
            z = cls(0.0, 1.0, power, np.inf)(t)
            return np.log(share @ (z - share @ z) ** 2) / 2 - (power - 1) * log_slopes

        power = minimize_scalar(loss, bounds=(0.0, 2.0), method="bounded").x if largest else 1.0
        return cls(centre, unit, power, _MARGIN * max(abs(t).max(), 1.0))

    def __call__(self, y: Array) -> Array:
        """Return g(y)."""
        t = (y - self.centre) / self.unit
        size = np.minimum(abs(t), self.reach)
        own = self._own_power(t)
        inside = _bend(size, own)
        with np.errstate(invalid="ignore"):
            beyond = np.where(abs(t) > size, (abs(t) - size) * (1 + size) ** (own - 1), 0.0)
        return np.sign(t) * (inside + beyond)

    def log_slope(self, y: Array) -> Array:
        """Logarithm of the derivative of g at y."""
        t = (y - self.centre) / self.unit
        own = self._own_power(t)
        return (own - 1) * np.log1p(np.minimum(abs(t), self.reach)) - np.log(self.unit)

    def inverse(self, z: Array) -> Array:
        """Return y of g(y) = z."""
        own, size = self._own_power(z), abs(z)
        low, _, high = self.kinks
        end = np.where(z < 0, -low, high)
        with np.errstate(invalid="ignore"):
            beyond = np.where(size > end, (size - end) * (1 + self.reach) ** (1 - own), 0.0)
        t = np.sign(z) * (_unbend(np.minimum(size, end), own) + beyond)
        return self.centre + self.unit * t

    @cached_property
    def kinks(self) -> tuple[Array, Array, Array]:
        """Return the values of g between which it is smooth."""
        low, high = (_bend(self.reach, own) for own in (2 - self.power, self.power))
        return -low, np.zeros_like(low), high

    def _own_power(self, t):
        return np.where(np.asarray(t) < 0, 2 - self.power, self.power)


def _bend(size: Array, power: Array) -> Array:
    """Return ((1 + size)^power - 1) / power, or its limit, several times quicker than scipy."""
    power = np.maximum(power, _ZERO)
    return np.expm1(power * np.log1p(size)) / power


def _unbend(size: Array, power: Array) -> Array:
    """Return the inverse of `_bend`."""
    power = np.maximum(power, _ZERO)
    return np.expm1(np.log1p(power * size) / power)


class TransformedComponents(Components, tag="transformed"):
    """Densities of y whose g(y) is Normal; made by the family of :class:`Transformed`.

    Parameters
    ----------
    params : dict of str to array-like of shape (n, k) or (n, k, outputs)
        `loc` and `scale` of g(y), and `centre`, `unit`, `power` and `reach` of the
        :class:`Curve` g.

    Raises
    ------
    ValueError
        If names or shapes differ from these, or values are not finite or out of their domain.

    Examples
    --------
    >>> from sklearn_probmix.distributions import PredictiveDistribution
    >>> from sklearn_probmix.transformed import TransformedComponents
    >>> curve = {"centre": [[0.0]], "unit": [[1.0]], "power": [[0.0]], "reach": [[9.0]]}
    >>> dist = PredictiveDistribution(
    ...     TransformedComponents({"loc": [[0.5]], "scale": [[1.0]], **curve})
    ... )
    >>> dist.ppf([0.1, 0.5, 0.9]).round(2).ravel()
    array([-0.6 ,  0.65,  4.94])
    """

    _NAMES = "loc", "scale", *Curve.names

    def __init__(self, params: Mapping[str, ArrayLike]):
        super().__init__(params)
        if set(self.params) != set(self._NAMES):
            raise ValueError(f"params must be {list(self._NAMES)}; got {sorted(self.params)}.")
        self.params = {name: self.params[name] for name in self._NAMES}
        shapes = {name: value.shape for name, value in self.params.items()}
        if len(set(shapes.values())) > 1 or len(self.shape) not in (2, 3) or 0 in self.shape:
            raise ValueError(
                f"params have the shapes {shapes}; expected one, (n, components) or (n, "
                "components, outputs)."
            )
        power = self.params["power"]
        proper = all(np.isfinite(value).all() for value in self.params.values())
        positive = (self.params[name] for name in ("scale", "unit", "reach"))
        proper = proper and all((value > 0).all() for value in positive)
        if not (proper and ((power >= 0) & (power <= 2)).all()):
            raise ValueError(
                "params must be finite, scale, unit and reach positive and power in [0, 2]."
            )

    @property
    def _curve(self):
        return Curve(*(self.params[name] for name in Curve.names))

    def _z(self, x):
        return (self._curve(x) - self.params["loc"]) / self.params["scale"]

    def log_density(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            density = -(self._z(x) ** 2) / 2 - math.log(2 * math.pi) / 2
            density = density + self._curve.log_slope(x) - np.log(self.params["scale"])
        return np.where(np.isinf(x), -np.inf, density)

    def cdf(self, x: Array) -> Array:
        return special.ndtr(self._z(x))

    def sf(self, x: Array) -> Array:
        return special.ndtr(-self._z(x))

    def ppf(self, q: Array) -> Array:
        return self._curve.inverse(self.params["loc"] + self.params["scale"] * special.ndtri(q))

    @property
    def _is_one_curve(self):
        """Whether the components of a row have one curve."""
        curves = (self.params[name] for name in Curve.names)
        return all((value == value[:, :1]).all() for value in curves)

    has_crps = property(lambda self: self._is_one_curve)

    def crps(self, y: Array, weights: Array) -> Array:
        # The integral of (F - 1{y <= x})^2 over g(x), where a mixture of Normals has few scales,
        # whatever the number of its components.
        curve = Curve(*(self.params[name][:, 0] for name in Curve.names))
        loc, scale = self.params["loc"], self.params["scale"]
        times = np.reshape(_BREAKS, (-1, *[1] * loc.ndim))
        breaks = np.concatenate(np.moveaxis(loc + times * scale, 2, 1))
        breaks = np.sort(breaks, axis=0)
        # In between, so that a piece of a wide component may hold a narrow one: of little area.
        keep = np.linspace(0, len(breaks) - 1, min(len(breaks), _MOST_PIECES)).astype(int)
        low, high = breaks[0], breaks[-1]
        observed, *kinks = (np.clip(z, low, high) for z in (curve(y), *curve.kinks))
        breaks = np.sort(np.concatenate([breaks[keep], [observed, *kinks]]), axis=0)
        # Outside of all breaks F is 0 or 1.
        total = abs(y - curve.inverse(observed))
        for start, end in pairwise(breaks):
            for node, weight in zip(*_PIECE, strict=True):
                z = start + node * (end - start)
                cdf = average(special.ndtr((z[:, None] - loc) / scale), weights)
                slope = np.exp(-curve.log_slope(curve.inverse(z)))
                total += weight * (end - start) * slope * (cdf - (start >= observed)) ** 2
        return total

    def mean(self) -> Array:
        return self._moments()[0]

    def var(self) -> Array:
        return self._moments()[1]

    def _moments(self):
        """Mean and variance, by quadrature between the kinks of the curve."""
        curve, loc, scale = self._curve, self.params["loc"], self.params["scale"]
        low, high = loc - _FARTHEST * scale, loc + _FARTHEST * scale
        kinks = (np.clip(kink, low, high) for kink in curve.kinks)
        ends = np.sort([low, *kinks, loc, high], axis=0)
        # Differences from the median, which keep the digits of a small variance.
        median = curve.inverse(loc)
        total, first, second = (np.zeros(self.shape) for _ in range(3))
        for start, end in pairwise(ends):
            middle, half = (start + end) / 2, (end - start) / 2
            for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
                z = middle + half * node
                share = weight * half / scale * np.exp(-(((z - loc) / scale) ** 2) / 2)
                deviation = curve.inverse(z) - median
                total += share
                first += share * deviation
                second += share * deviation**2
        first, second = first / total, second / total
        return median + first, second - first**2


class Transformed(Normal):
    """Normal density of g(y), with a curve g that `fit` takes from the responses, y real.

    For skewed responses of any sign: g is Yeo-Johnson's, of maximum likelihood, with straight ends,
    see :class:`Curve`. The network is trained on g(y), standardised, as the Normal family's is on
    y; only the predictive density, ``p(y) = N(g(y)) g'(y)``, knows of the curve. (The log-normal
    family is the same for g = log, but takes y itself, as it needs nothing of the responses.)

    Parameters
    ----------
    variance_floor : float, default=1e-6
        Smallest variance that the network can express, in units of the standardised g(y).
    curves : sequence of (centre, unit, power, reach) or None, default=None
        Of each output; None takes y as it is, until `fit` settles them.

    Raises
    ------
    ValueError
        If the floor is not positive or a curve is none.
    """

    def __init__(
        self, variance_floor: float = 1e-6, curves: Sequence[Sequence[float]] | None = None
    ):
        super().__init__(variance_floor)
        self.curves = None
        if curves is not None:
            self.curves = tuple(tuple(float(value) for value in curve) for curve in curves)
            if not (self.curves and all(map(_is_curve, self.curves))):
                raise ValueError(
                    f"curves={curves!r}; expected (centre, unit, power, reach) of each output: "
                    "finite, unit and reach positive, power in [0, 2]."
                )

    def fitted(self, y: Tensor, weight: Tensor) -> Family:
        if self.curves is not None:
            return self
        columns = (Curve.fit(column, weight.numpy()) for column in y.numpy().T)
        found = [[float(getattr(curve, name)) for name in Curve.names] for curve in columns]
        return type(self)(self.variance_floor, found)

    def unfitted(self) -> Family:
        return type(self)(self.variance_floor)

    def _curve(self) -> Curve:
        """Curves of all outputs."""
        return Curve(*np.transpose(self.curves or [(0.0, 1.0, 1.0, 1.0)]))

    def scaling(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return super().scaling(torch.from_numpy(self._curve()(y.numpy())), weight)

    def standardise(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return super().standardise(torch.from_numpy(self._curve()(y.numpy())), shift, scale)

    def components(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Components:
        params: dict[str, Array] = {}
        for name, value in self.scipy_parameters(eta, shift, scale).items():
            params[name] = value.numpy()
        curve = self._curve()
        for name in Curve.names:
            params[name] = np.broadcast_to(getattr(curve, name), params["loc"].shape)
        return TransformedComponents(params)

    def rounding(self, y: Tensor, step: Array, shift: Array, scale: Array) -> Array:
        curve = self._curve()
        slope = np.exp(curve.log_slope(curve.inverse(shift + scale * y.double().numpy())))
        return super().rounding(y, step * slope, shift, scale)


def _is_curve(curve: Sequence[float]) -> bool:
    proper = len(curve) == 4 and all(map(math.isfinite, curve))
    return proper and curve[1] > 0 and 0 <= curve[2] <= 2 and curve[3] > 0


FAMILIES["transformed"] = Transformed
