"""Components of the families of scipy.stats, with what these lack in their tails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from sklearn_probmix.components import Array, Components, average, delegate, first_index, is_whole

__all__ = ["Positive", "ScipyComponents", "scipy_components"]

_DOMAINS = {
    "norm": "loc real, scale > 0",
    "lognorm": "s > 0, scale > 0",
    "gamma": "a > 0, scale > 0",
    "beta": "a > 0, b > 0",
    "poisson": "mu >= 0",
    "nbinom": "n > 0, 0 < p <= 1",
    "bernoulli": "0 <= p <= 1",
}

# Atoms of a cell whose masses are added up.
_FEW_ATOMS = 16


class ScipyComponents(Components, tag="scipy"):
    """Components of one univariate family of scipy.stats; made by `scipy_components`.

    Parameters
    ----------
    name : str
        Of the family.
    params : dict of str to array-like of shape (n, k) or (n, k, outputs)
        Keyword arguments of scipy.stats, in units of y.
    """

    def __init__(self, name: str, params: Mapping[str, ArrayLike]):
        self.name = name
        self.params = _check_params(name, self._family, params)
        self._freeze()

    @property
    def _family(self):
        return getattr(stats, self.name)

    is_discrete = has_atoms = property(lambda self: isinstance(self._family, stats.rv_discrete))
    is_integer = property(lambda self: self.is_discrete and is_whole(self.params.get("loc", 0.0)))

    def _each(self, method, *args):
        with np.errstate(all="ignore"):
            return getattr(self._family, method)(*args, **self.params)

    cdf, sf = delegate("cdf"), delegate("sf")
    mean, var = delegate("mean"), delegate("var")

    def density(self, x: Array) -> Array:
        return _at_infinity(0.0, x, self._each("pmf" if self.is_discrete else "pdf", x))

    def log_density(self, x: Array) -> Array:
        found = self._each("logpmf" if self.is_discrete else "logpdf", x)
        return _at_infinity(-np.inf, x, found)

    def ppf(self, q: Array) -> Array:
        values = self._each("ppf", q)
        # scipy puts it one before the first value of counts.
        at_end = self.is_discrete and np.any(q == 0)
        return np.where(q == 0, self.support()[0], values) if at_end else values

    def support(self) -> tuple[Array, Array]:
        low, high = self._each("support")
        return np.broadcast_to(low, self.shape), np.broadcast_to(high, self.shape)

    def atoms(self, low: Array, high: Array, most: int) -> Array:
        if not self.is_discrete:
            return super().atoms(low, high, most)
        if self.is_integer:
            return _count(np.ceil(low), high, most)
        offsets = np.unique(self.params["loc"] % 1)
        return np.concatenate([_count(np.ceil(low - o) + o, high, most) for o in offsets])

    def _log_sum(self, low: Array, high: Array) -> Array:
        loc = self.params.get("loc", 0.0)
        first = np.ceil(low - loc) + loc
        steps = np.floor(high - first)
        total = np.full(np.broadcast_shapes(low.shape, self.shape), -np.inf)
        # Of more atoms some that are evenly spread, ends included, stand for all.
        for place in range(int(np.clip(steps.max(initial=-1) + 1, 0, _FEW_ATOMS))):
            at = np.floor(place * np.maximum(steps / (_FEW_ATOMS - 1), 1))
            log_mass = np.where(at <= steps, self.log_mass(first + at), -np.inf)
            total = np.logaddexp(total, log_mass)
        return total + np.log(np.maximum((steps + 1) / _FEW_ATOMS, 1))

    def rvs(self, rows: NDArray[np.intp], chosen: NDArray[np.intp], rng: Any) -> Array:
        params = {key: value[rows, chosen] for key, value in self.params.items()}
        return self._draw(params, (*rows.shape, *self.shape[2:]), rng)

    def _draw(self, params, size, rng):
        return self._family.rvs(**params, size=size, random_state=rng)

    def to_arrays(self) -> tuple[str, dict[str, Any]]:
        return self.tag, {"name": self.name, **self.params}

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        params = dict(content)
        return scipy_components(params.pop("name", None), params)


class _Normal(ScipyComponents):
    has_crps = True

    def cdf(self, x: Array) -> Array:
        # As scipy's, in half of its time.
        with np.errstate(over="ignore"):
            return special.ndtr((x - self.params.get("loc", 0.0)) / self.params.get("scale", 1.0))

    def below_0(self) -> tuple[Array, Array]:
        loc, scale = self.params.get("loc", 0.0), self.params.get("scale", 1.0)
        below, density = special.ndtr(-loc / scale), scale * stats.norm.pdf(loc / scale)
        return loc * below - density, (loc**2 + scale**2) * below - loc * density

    def crps(self, y: Array, weights: Array) -> Array:
        # Where numba is installed, scoringrules compiles its scores when imported.
        from scoringrules import crps_mixnorm

        loc, scale = self.params.get("loc", 0.0), self.params.get("scale", 1.0)
        loc, scale, weights = np.broadcast_arrays(loc, scale, weights)
        return crps_mixnorm(y, loc, scale, weights, m_axis=1)


class Positive(ScipyComponents):
    r"""Families whose mixtures have the CRPS y - 2 E min(X, y) + E min(X, X') in closed form.

    With m the mean and X+ the size-biased variable, E X g(X) = m E g(X+), both terms are closed:
    E min(X, y) = m P(X+ <= y) + y P(X > y) and E min(X, X') = 2 m P(X+ < X'), where a tie counts
    one half. No means are subtracted, which are huge for a wide log-normal.
    """

    has_crps = property(lambda self: not np.any(self.params.get("loc", 0)))
    #: Returns m, P(X+ <= y) and the matrix P(X+_i < X_j) of all pairs of components.
    _size_biased: Callable[..., tuple[Array, Array, Array]]

    def crps(self, y: Array, weights: Array) -> Array:
        params = {key: value for key, value in self.params.items() if key != "loc"}
        with np.errstate(all="ignore"):
            mean, below, pairs = self._size_biased(y[:, None], **params)
            inner = mean * (below - (weights[:, None] * pairs).sum(axis=2))
        # Where the mean overflows, so does the score.
        inner = np.where(np.isfinite(inner), inner, -np.inf)
        above = np.minimum(average(self.sf(y[:, None]), weights), 1.0)
        return y - 2 * average(inner, weights) - 2 * y * above


class _LogNormal(Positive):
    # scipy divides its density by the scale when it has overflowed already.
    density = Components.density

    def mean(self) -> Array:
        return self.params.get("loc", 0.0) + self._scale_times_exp(1 / 2)

    def var(self) -> Array:
        # scipy computes exp(s^2) - 1 by subtraction: 1e-4 off at s = 1e-6, and 0 at s = 1e-9.
        with np.errstate(all="ignore"):
            return (self._scale_times_exp(1) * np.sqrt(-np.expm1(-(self.params["s"] ** 2)))) ** 2

    def _scale_times_exp(self, times):
        """Multiply the scale by exp(times * s^2), which may overflow where the product does not."""
        with np.errstate(all="ignore"):
            root = np.exp(times * self.params["s"] ** 2 / 2)
            return self.params.get("scale", 1.0) * root * root

    def _size_biased(self, y, s, scale=1.0):
        location = np.log(scale) * np.ones_like(s)
        biased = location + s**2
        below = special.ndtr((np.log(y) - biased) / s)
        distance = location[:, None] - biased[:, :, None]
        pairs = special.ndtr(distance / np.hypot(s[:, None], s[:, :, None]))
        return np.exp(location + s**2 / 2), below, pairs


class _UnderflowingQuantiles(Positive):
    def ppf(self, q: Array) -> Array:
        values = super().ppf(q)
        if not np.isnan(values).any():
            return values
        # Of a quantile that underflows; it is at that end of the support.
        return np.where(np.isnan(values), np.where(q < 0.5, *self.support()), values)


class _Gamma(_UnderflowingQuantiles):
    # As the log-normal's.
    density = Components.density

    def _size_biased(self, y, a, scale=1.0):
        scale = scale * np.ones_like(a)
        own, other = scale[:, :, None], scale[:, None]
        pairs = special.betainc(a[:, :, None] + 1, a[:, None], other / (own + other))
        return a * scale, special.gammainc(a + 1, y / scale), pairs


class _Beta(_UnderflowingQuantiles):
    # Parameters from which scipy's density overflows.
    _LARGEST = 1e15
    # Smaller and larger parameter from which Stirling's series has the digits that differences of
    # the logarithms of beta functions lose.
    _LARGE = 1e2, 1e6

    # Only a component with itself has a closed form.
    has_crps = property(lambda self: super().has_crps and self.shape[1] == 1)

    def density(self, x: Array) -> Array:
        is_large = np.maximum(self.params["a"], self.params["b"]) > self._LARGEST
        if not is_large.any():
            return super().density(x)
        usual = self._map(lambda values: np.where(is_large, 1.0, values))
        return np.where(is_large, np.exp(self.log_density(x)), super(_Beta, usual).density(x))

    def _size_biased(self, y, a, b, scale=1.0):
        log_ratio = special.betaln(2 * a, 2 * b) - 2 * special.betaln(a, b)
        inverse = [1 / a + 1 / b - 1 / (a + b), 1 / a**3 + 1 / b**3 - 1 / (a + b) ** 3]
        series = -np.log(4 * np.pi * (1 / a + 1 / b)) / 2 - inverse[0] / 8 + inverse[1] / 192
        is_large = (np.minimum(a, b) > self._LARGE[0]) & (np.maximum(a, b) > self._LARGE[1])
        gini = 2 / a * np.exp(np.where(is_large, series, log_ratio))
        below = special.betainc(a + 1, b, y / scale)
        return scale * a / (a + b), below, ((1 - gini) / 2)[:, None]


class _Poisson(Positive):
    # Means from which scipy's quantiles go wrong, and Cornish-Fisher's expansion to the second
    # order is exact to 1e-4 counts.
    _LARGE = 1e9
    # And those that numpy draws too widely, or not at all from 1e19 on.
    _LARGEST = 1e12

    def ppf(self, q: Array) -> Array:
        mu, z = self.params["mu"], special.ndtri(q)
        with np.errstate(invalid="ignore"):
            expansion = np.ceil(mu + np.sqrt(mu) * z + (z**2 - 1) / 6 - 0.5)
        expansion += self.params.get("loc", 0.0)
        return np.where((mu > self._LARGE) & np.isfinite(z), expansion, super().ppf(q))

    density = Components.density

    def log_density(self, x):
        exact, mu = super().log_density(x), self.params["mu"]
        if not (mu > self._LARGE).any():
            return exact
        # scipy subtracts numbers of the size of x log(x), of which no digit is left.
        count = x - self.params.get("loc", 0.0)
        with np.errstate(all="ignore"):
            far = (count - mu) / mu
            series = far**2 * (1 / 2 - far / 6 + far**2 / 12 - far**3 / 20)
            deviance = np.where(abs(far) < 1e-3, series, (1 + far) * np.log1p(far) - far)
            saddle = -mu * deviance - np.log(2 * np.pi * count) / 2
        return np.where((mu > self._LARGE) & (count > 1e7) & (exact > -np.inf), saddle, exact)

    def _draw(self, params, size, rng):
        mu = params["mu"]
        draws = super()._draw({**params, "mu": np.minimum(mu, self._LARGEST)}, size, rng)
        if not (mu > self._LARGEST).any():
            return draws
        normal = params.get("loc", 0.0) + mu + np.sqrt(mu) * rng.standard_normal(size)
        return np.where(mu > self._LARGEST, np.rint(normal), draws)

    def _size_biased(self, y, mu):
        own, other = np.maximum(mu, 1e-300)[:, :, None], np.maximum(mu, 1e-300)[:, None]
        sd = np.sqrt(own + other)
        is_large = sd**2 > self._LARGE
        # Of two means of 1e18 scipy computes for a minute.
        usual = [np.where(is_large, 1.0, mean) for mean in (own, other)]
        pairs = (stats.skellam.cdf(-1, *usual) + stats.skellam.cdf(-2, *usual)) / 2
        pairs = np.where(is_large, special.ndtr((other - own) / sd - 1 / sd), pairs)
        # Not the cdf at y - 1, which beyond 2^53 may be y.
        return mu, self.cdf(y) - self.density(np.floor(y)), pairs


class _NegativeBinomial(ScipyComponents):
    # Quantiles from which scipy's search takes seconds, or does not end, and cdflib's is exact to
    # a count.
    _LARGE = 1e8
    # And p below which cdflib's ends too early, and the quantiles are those of a Gamma.
    _SMALLEST = 1e-30

    def ppf(self, q: Array) -> Array:
        n, p = self.params["n"], self.params["p"]
        with np.errstate(all="ignore"):
            large, is_small = np.ceil(special.nbdtrik(q, n, p)), p < self._SMALLEST
            if is_small.any():
                large = np.where(is_small, special.gammaincinv(n, q) * ((1 - p) / p), large)
        is_large = (large > self._LARGE) & (large < np.inf) & (p < 1)
        if not is_large.any():
            return super().ppf(q)
        mild = {"n": np.where(is_large, 1.0, n), "p": np.where(is_large, 0.5, p)}
        usual = super(_NegativeBinomial, self._replace(self.params | mild)).ppf(q)
        return np.where(is_large, large + self.params.get("loc", 0.0), usual)

    def log_density(self, x: Array) -> Array:
        # scipy subtracts logarithms of gamma functions, which for large n leaves few digits.
        density = self.density(x)
        with np.errstate(divide="ignore"):
            return np.where(density > 0, np.log(density), super().log_density(x))


_MENDED = {
    "norm": _Normal,
    "lognorm": _LogNormal,
    "gamma": _Gamma,
    "beta": _Beta,
    "poisson": _Poisson,
    "nbinom": _NegativeBinomial,
}


def scipy_components(name: str, params: Mapping[str, ArrayLike]) -> ScipyComponents:
    """Components of a family of scipy.stats, mended where scipy's own figures are wrong.

    Parameters
    ----------
    name : str
        Of a univariate distribution of scipy.stats.
    params : dict of str to array-like of shape (n, k) or (n, k, outputs)
        Keyword arguments of scipy.stats, in units of y.

    Raises
    ------
    ValueError
        For an unknown name, a missing or superfluous parameter, unequal shapes, values that are
        not finite or lie outside the family's domain.

    Examples
    --------
    >>> from sklearn_probmix.scipy_components import scipy_components
    >>> scipy_components("gamma", {"a": [[2.0, 3.0]]}).mean()
    array([[2., 3.]])
    """
    family = getattr(stats, name, None) if isinstance(name, str) else None
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(
            f"name must be that of a scipy.stats distribution, such as {', '.join(_DOMAINS)}; "
            f"got {name!r}."
        )
    return _MENDED.get(name, ScipyComponents)(name, params)


def _at_infinity(value, x, found):
    """Put a value where x is infinite, of which scipy makes NaN for some families."""
    is_infinite = np.isinf(x)
    return np.where(is_infinite, value, found) if is_infinite.any() else found


def _count(low, high, most):
    """Count from low to high, in steps that leave at most so many, on a new first axis."""
    # Where there is nothing to count the bound is above.
    bound = np.minimum(low, high)
    step = np.maximum(np.ceil((high - low + 1) / most), 1)
    n_steps = int(((high - low) / step).max(initial=0))
    x = low + step * np.arange(n_steps + 1).reshape(-1, *[1] * low.ndim)
    return np.where(x <= high, x, bound)


def _check_params(name, family, params):
    required = set(family.shapes.split(", ") if family.shapes else ())
    allowed = required | ({"loc"} if isinstance(family, stats.rv_discrete) else {"loc", "scale"})
    if not (params and required <= set(params) <= allowed):
        among = f", {sorted(required)} among them" if required else ""
        raise ValueError(
            f"params of {name!r} must be some of {sorted(allowed)}{among}; got {sorted(params)}."
        )
    params = {key: np.array(value, dtype=float) for key, value in params.items()}
    first, *_ = params
    for key, value in params.items():
        if value.ndim not in (2, 3) or value.shape[1] == 0:
            raise ValueError(
                f"params[{key!r}] has shape {value.shape}, expected (n, components) for 1-D y or "
                "(n, components, outputs) for 2-D y, with at least one component."
            )
        if value.shape != params[first].shape:
            raise ValueError(
                f"params[{key!r}] has shape {value.shape}, expected that of params[{first!r}], "
                f"{params[first].shape}."
            )
        if not np.isfinite(value).all():
            where = first_index(~np.isfinite(value))
            raise ValueError(
                f"params[{key!r}] is {value[where]} at index {where}, expected finite values."
            )
    with np.errstate(all="ignore"):
        is_outside = np.isnan(family.support(**params)[0])
    if is_outside.any():
        where = first_index(is_outside)
        found = ", ".join(f"{key}={value[where]}" for key, value in params.items())
        domain = _DOMAINS.get(name, f"the domain of scipy.stats.{name}")
        raise ValueError(f"params of {name!r} at index {where}: {found}; expected {domain}.")
    return params
