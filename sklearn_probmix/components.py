"""What a predictive mixture is made of: k densities, masses or both for each of n rows.

Conventions for shapes, used throughout the file: ``shape`` is (n, k) or (n, k, outputs). A value x
has the axes of a row behind any leading ones, (..., n, 1) or (..., n, 1, outputs), and what is
computed of it has (..., n, k) or (..., n, k, outputs): in both the components' axis is number
``-ndim``, with ``ndim`` that of y. A level q of `ppf` may also differ between the components.

A component may be continuous, discrete, or have some atoms. Densities are those with respect to
length plus counting of the atoms, so that at an atom the mass alone counts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

__all__ = [
    "Components",
    "average",
    "components_from_arrays",
    "first_index",
    "fold_weights",
    "join",
    "mixture_cdf",
    "scipy_components",
    "with_sums",
]

Array = NDArray[np.float64]

_DOMAINS = {
    "norm": "loc real, scale > 0",
    "lognorm": "s > 0, scale > 0",
    "gamma": "a > 0, scale > 0",
    "beta": "a > 0, b > 0",
    "poisson": "mu >= 0",
    "nbinom": "n > 0, 0 < p <= 1",
    "bernoulli": "0 <= p <= 1",
}
# A difference of two probabilities that is smaller than this share of them has lost its digits.
_FEWEST_DIGITS = 1e-6
_TAGS: dict[str, type[Components]] = {}
_CELL_NODES, _CELL_WEIGHTS = np.polynomial.legendre.leggauss(8)


class Components(ABC):
    """Densities or masses of k components for n rows, perhaps of several outputs; read-only.

    A subclass supplies `log_density`, `cdf`, `ppf`, `mean` and `var`, on top of these what has a
    better form than the one given here, and in its definition the tag by which model files know
    it: ``class Mine(Components, tag="mine")``. One with atoms says so, and gives their `log_mass`
    and `atoms`; one whose mixtures have a closed form of the CRPS supplies `crps`,
    and one whose mixtures are of its own kind `merged`.

    Parameters
    ----------
    params : dict of str to array-like of shape (n, k) or (n, k, outputs)
        What differs from row to row; copied. A subclass may keep arrays with more axes behind
        these, which then overrides `shape`.
    """

    tag: str
    #: What the components are called; the tag, if they have no other name.
    name: str
    #: Arrays whose first axes are rows and components.
    params: dict[str, Array]
    #: Whether all probability is in atoms, and whether some is.
    is_discrete: bool = False
    has_atoms: bool = False
    #: Whether all probability is on the integers.
    is_integer: bool = False
    #: Whether `crps` is there.
    has_crps: bool = False
    #: Whether densities have no jumps but at atoms and at the ends of the support.
    is_smooth: bool = True

    def __init_subclass__(cls, tag: str | None = None):
        if tag is not None:
            cls.tag = tag
            cls.name = vars(cls).get("name", tag)
            _TAGS[tag] = cls

    def __init__(self, params: Mapping[str, ArrayLike]):
        self.params = {k: np.asarray(v, dtype=float).copy() for k, v in params.items()}
        self._freeze()

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, components and, for 2-D y, outputs."""
        return next(iter(self.params.values())).shape

    @property
    def n_numbers(self) -> int:
        """Numbers that an array holds of a component of a row and output, at most."""
        n_components = max(1, math.prod(self.shape))
        return max(values.size // n_components for values in self.params.values())

    @abstractmethod
    def log_density(self, x: Array) -> Array:
        """Logarithm of the density or, at an atom, of its mass."""

    @abstractmethod
    def cdf(self, x: Array) -> Array:
        """Probability of at most x."""

    @abstractmethod
    def ppf(self, q: Array) -> Array:
        """Smallest x with cdf(x) >= q, or an end of the support."""

    @abstractmethod
    def mean(self) -> Array:
        """Mean, of `shape`."""

    @abstractmethod
    def var(self) -> Array:
        """Variance, of `shape`."""

    def sf(self, x: Array) -> Array:
        """Probability of more than x."""
        return 1 - self.cdf(x)

    def support(self) -> tuple[Array, Array]:
        """Lowest and highest possible value, each of `shape`."""
        return np.full(self.shape, -np.inf), np.full(self.shape, np.inf)

    def rvs(self, rows: NDArray[np.intp], chosen: NDArray[np.intp], rng: Any) -> Array:
        """Draw one value, for all outputs, of each chosen component of each row."""
        single = self._map(lambda values: values[rows.ravel(), chosen.ravel(), None])
        return single.ppf(rng.random(single.shape)).reshape(*rows.shape, *self.shape[2:])

    def to_arrays(self) -> tuple[str, dict[str, Any]]:
        """Tag and content, from which `components_from_arrays` makes the same again."""
        return self.tag, dict(self.params)

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        """Make what `to_arrays` gave as content."""
        return cls(content)

    def density(self, x: Array) -> Array:
        """Density or, at an atom, its mass."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_density(x))

    def log_mass(self, x: Array) -> Array:
        """Logarithm of the probability of x itself, -inf where x is no atom."""
        if self.is_discrete:
            return self.log_density(x)
        return np.full(np.broadcast_shapes(x.shape, self.shape), -np.inf)

    def atoms(self, low: Array, high: Array, most: int) -> Array:
        """Atoms between bounds of y's shape, in rows of at most about `most`.

        What is left over of an array of shape (a, n) or (a, n, outputs) repeats the bound.
        """
        return np.empty((0, *low.shape))

    def crps(self, y: Array, weights: Array) -> Array:
        """CRPS of the mixtures at y, of y's shape; weights have shape (n, k) or (n, k, 1)."""
        raise NotImplementedError

    def merged(self, weights: Array) -> Components | None:
        """Return the mixtures as one component a row, or None if these are of another kind.

        Parameters
        ----------
        weights : ndarray of shape (n, k) or (n, k, 1)
        """
        return None

    def log_probability(self, low: Array, high: Array) -> Array:
        """Logarithm of the probability of the closed cell between low and high."""
        is_upper = self.cdf(low) > 0.5
        with np.errstate(divide="ignore"):
            far = np.where(is_upper, self.sf(low), self.cdf(high))
            near = np.where(is_upper, self.sf(high), self.cdf(low))
            probability = far - near
            if self.has_atoms:
                probability += np.exp(self.log_mass(low))
            exact = np.log(probability)
        # In the far tails, and in cells so narrow that no digits are left.
        is_lost = probability <= _FEWEST_DIGITS * far
        if not is_lost.any():
            return exact
        middle, half = (low + high) / 2, (high - low) / 2
        if self.is_discrete:
            return np.where(is_lost, self.log_mass(middle), exact)
        nodes = [self.log_density(middle + half * node) for node in _CELL_NODES]
        weights = _CELL_WEIGHTS.reshape(-1, *[1] * nodes[0].ndim)
        smooth = special.logsumexp(np.stack(nodes), axis=0, b=weights) + np.log(half)
        return np.where(is_lost, np.logaddexp(smooth, self.log_mass(low)), exact)

    def take(self, rows: Any) -> Self:
        """Select rows by any 1-D index of numpy's."""
        return self._map(lambda values: values[rows])

    def pick(self, component: int) -> Components:
        """Select one component; its axis stays."""
        return self._map(lambda values: values[:, [component]])

    def marginal(self, output: int) -> Self:
        """Select one output; its axis goes."""
        return self._map(lambda values: values[:, :, output])

    def fold(self) -> Self:
        """Make every output of a row a row of its own, shape (n * outputs, k)."""
        if len(self.shape) == 2:
            return self
        return self._map(lambda v: np.moveaxis(v, 1, 2).reshape(-1, v.shape[1], *v.shape[3:]))

    def alike(self) -> tuple[Any, ...]:
        """Return what is equal for components that can be in one block."""
        return type(self), self.name, tuple(sorted(self.params)), self.shape[2:]

    def concatenate(self, others: Sequence[Self], axis: int) -> Self:
        """Append the rows (axis 0) or the components (axis 1) of others that are alike."""
        every = [self, *others]
        if len({each.alike() for each in every}) > 1:
            raise ValueError(f"components do not match: {[each.name for each in every]}.")
        return self._replace(
            {key: np.concatenate([each.params[key] for each in every], axis) for key in self.params}
        )

    @property
    def blocks(self) -> tuple[Components, ...]:
        """Components that are alike, block by block."""
        return (self,)

    def _map(self, function: Callable[[Array], Array]) -> Self:
        return self._replace({key: function(value) for key, value in self.params.items()})

    def _replace(self, params: dict[str, Array]) -> Self:
        """Return the same components with other arrays, which are known to be valid."""
        new = type(self).__new__(type(self))
        vars(new).update(vars(self))
        new.params = params
        new._freeze()
        return new

    def _freeze(self) -> None:
        for array in self.params.values():
            array.flags.writeable = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Numpy makes arrays writeable when it copies or unpickles them.
        vars(self).update(state)
        self._freeze()


def _delegate(method: str) -> Callable[..., Array]:
    """Return the method that calls the one of this name of what the components are made of."""
    return lambda self, *args: self._each(method, *args)


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
    is_integer = property(lambda self: self.is_discrete and _is_whole(self.params.get("loc", 0.0)))

    def _each(self, method, *args):
        with np.errstate(all="ignore"):
            return getattr(self._family, method)(*args, **self.params)

    cdf, sf, ppf = _delegate("cdf"), _delegate("sf"), _delegate("ppf")
    mean, var = _delegate("mean"), _delegate("var")

    def density(self, x: Array) -> Array:
        return self._each("pmf" if self.is_discrete else "pdf", x)

    def log_density(self, x: Array) -> Array:
        return self._each("logpmf" if self.is_discrete else "logpdf", x)

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
        return special.ndtr((x - self.params.get("loc", 0.0)) / self.params.get("scale", 1.0))

    def crps(self, y: Array, weights: Array) -> Array:
        # Where numba is installed, scoringrules compiles its scores when imported.
        from scoringrules import crps_mixnorm

        loc, scale = self.params.get("loc", 0.0), self.params.get("scale", 1.0)
        loc, scale, weights = np.broadcast_arrays(loc, scale, weights)
        return crps_mixnorm(y, loc, scale, weights, m_axis=1)


class _Positive(ScipyComponents):
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


class _LogNormal(_Positive):
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


class _UnderflowingQuantiles(_Positive):
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

    # Only a component with itself has a closed form.
    has_crps = property(lambda self: super().has_crps and self.shape[1] == 1)

    def density(self, x: Array) -> Array:
        is_large = np.maximum(self.params["a"], self.params["b"]) > self._LARGEST
        if not is_large.any():
            return super().density(x)
        usual = self._map(lambda values: np.where(is_large, 1.0, values))
        return np.where(is_large, np.exp(self.log_density(x)), super(_Beta, usual).density(x))

    def _size_biased(self, y, a, b, scale=1.0):
        gini = 2 / a * np.exp(special.betaln(2 * a, 2 * b) - 2 * special.betaln(a, b))
        below = special.betainc(a + 1, b, y / scale)
        return scale * a / (a + b), below, ((1 - gini) / 2)[:, None]


class _Poisson(_Positive):
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
    >>> from sklearn_probmix.components import scipy_components
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
    >>> from sklearn_probmix.components import LatticeComponents
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

    is_integer = property(lambda self: _is_whole(self.values))

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


class JoinedComponents(Components, tag="joined"):
    """Blocks of components side by side; made by `join`."""

    def __init__(self, blocks: Sequence[Components]):
        self._blocks = tuple(blocks)

    def _freeze(self):
        """Leave it to the blocks."""

    blocks = property(lambda self: self._blocks)
    name = property(lambda self: " + ".join(block.name for block in self.blocks))
    is_discrete = property(lambda self: all(block.is_discrete for block in self.blocks))
    has_atoms = property(lambda self: any(block.has_atoms for block in self.blocks))
    is_integer = property(lambda self: all(block.is_integer for block in self.blocks))

    def _refuse_params(self) -> NoReturn:
        raise AttributeError(f"a mixture of {self.name} has no common params; see its blocks.")

    params = property(_refuse_params)
    n_numbers = property(lambda self: max(block.n_numbers for block in self.blocks))

    @property
    def shape(self) -> tuple[int, ...]:
        n, _, *outputs = self.blocks[0].shape
        return (n, sum(block.shape[1] for block in self.blocks), *outputs)

    def _each(self, method, *args):
        values = [getattr(block, method)(*args) for block in self.blocks]
        return np.concatenate(values, axis=1 - len(self.shape))

    log_density, log_mass = _delegate("log_density"), _delegate("log_mass")
    log_probability = _delegate("log_probability")
    cdf, sf, ppf = _delegate("cdf"), _delegate("sf"), _delegate("ppf")
    mean, var = _delegate("mean"), _delegate("var")

    def support(self) -> tuple[Array, Array]:
        ends = zip(*(block.support() for block in self.blocks), strict=True)
        low, high = (np.concatenate(end, axis=1) for end in ends)
        return low, high

    def atoms(self, low: Array, high: Array, most: int) -> Array:
        return np.concatenate([block.atoms(low, high, most) for block in self.blocks])

    def rvs(self, rows: NDArray[np.intp], chosen: NDArray[np.intp], rng: Any) -> Array:
        draws = np.empty((*rows.shape, *self.shape[2:]))
        first = 0
        for block in self.blocks:
            own = (chosen >= first) & (chosen < first + block.shape[1])
            draws[own] = block.rvs(rows[own], chosen[own] - first, rng)
            first += block.shape[1]
        return draws

    def take(self, rows: Any) -> Self:
        return type(self)([block.take(rows) for block in self.blocks])

    def marginal(self, output: int) -> Self:
        return type(self)([block.marginal(output) for block in self.blocks])

    def fold(self) -> Self:
        return type(self)([block.fold() for block in self.blocks])

    def pick(self, component: int) -> Components:
        for block in self.blocks:
            if component < block.shape[1]:
                return block.pick(component)
            component -= block.shape[1]
        raise IndexError(f"there are {self.shape[1]} components.")

    def alike(self) -> tuple[Any, ...]:
        return tuple(block.alike() for block in self.blocks)

    def to_arrays(self) -> tuple[str, dict[str, Any]]:
        return self.tag, {"blocks": [list(block.to_arrays()) for block in self.blocks]}

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any]) -> Components:
        if any(tag == cls.tag for tag, _ in content["blocks"]):
            raise ValueError("found joined components in joined ones; expected them side by side.")
        blocks = [components_from_arrays(*block) for block in content["blocks"]]
        if len({(block.shape[0], *block.shape[2:]) for block in blocks}) != 1:
            raise ValueError(f"blocks have the shapes {[block.shape for block in blocks]}.")
        return cls(blocks)

    def concatenate(self, others: Sequence[Self], axis: int) -> Self:
        """Append the rows of others whose blocks are alike."""
        every = zip(self.blocks, *(other.blocks for other in others), strict=True)
        return type(self)([first.concatenate(rest, axis) for first, *rest in every])


def join(parts: Sequence[Components]) -> tuple[Components, NDArray[np.intp]]:
    """Put the components of several side by side, those that are alike in one block.

    Parameters
    ----------
    parts : sequence of Components
        Of the same rows and outputs.

    Returns
    -------
    components : Components
    order : ndarray of int of shape (k,)
        Where each of them was in the parts, counted through.
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    first = 0
    for block in (block for part in parts for block in part.blocks):
        numbers = np.arange(first, first + block.shape[1])
        groups.setdefault(block.alike(), []).append((block, numbers))
        first += block.shape[1]
    blocks: list[Components] = []
    places: list[NDArray[np.intp]] = []
    for group in groups.values():
        (head, *rest), own = zip(*group, strict=True)
        blocks.append(head.concatenate(rest, axis=1) if rest else head)
        places.extend(own)
    joined = blocks[0] if len(blocks) == 1 else JoinedComponents(blocks)
    return joined, np.concatenate(places)


def components_from_arrays(tag: str, content: Mapping[str, Any]) -> Components:
    """Make what `Components.to_arrays` described.

    Parameters
    ----------
    tag : str
        Of one of this package's components, or of your own once its class is defined.
    content : dict
        Arrays and plain values.

    Raises
    ------
    ValueError, TypeError
        If no components are made so.

    Examples
    --------
    >>> from sklearn_probmix.components import components_from_arrays
    >>> components_from_arrays("scipy", {"name": "poisson", "mu": [[3.0]]}).mean()
    array([[3.]])
    """
    if tag not in _TAGS:
        raise ValueError(f"components are one of {sorted(_TAGS)}; found {str(tag)[:50]!r}.")
    if not isinstance(content, Mapping):
        raise TypeError(f"components need a dict of arrays; found a {type(content).__name__}.")
    return _TAGS[tag].from_arrays(content)


def average(values: Array, weights: Array) -> Array:
    """Average over the components; one of weight 0 may be infinite.

    Parameters
    ----------
    values : ndarray of shape (..., n, k) or (..., n, k, outputs)
    weights : ndarray of shape (n, k) or (n, k, 1)
    """
    axis = 1 - weights.ndim
    if weights.shape[1] == 1:
        return values.squeeze(axis)
    with np.errstate(invalid="ignore"):
        return np.where(weights > 0, weights * values, 0.0).sum(axis=axis)


def mixture_cdf(components: Components, weights: Array, x: Array) -> Array:
    """Probability of at most x in the mixture; x and the result have axes (..., n[, outputs])."""
    cdf = average(components.cdf(np.expand_dims(x, 1 - weights.ndim)), weights)
    return np.minimum(cdf, 1.0)


def fold_weights(weights: Array, shape: tuple[int, ...]) -> Array:
    """Weights of what `Components.fold` makes of components of this shape."""
    return np.moveaxis(np.broadcast_to(weights, shape), 1, -1).reshape(-1, shape[1])


def _is_whole(values):
    return bool(np.all(values == np.floor(values)))


def _count(low, high, most):
    """Count from low to high, in steps that leave at most so many, on a new first axis."""
    step = np.maximum(np.ceil((high - low + 1) / most), 1)
    n_steps = int(((high - low) / step).max(initial=0))
    x = low + step * np.arange(n_steps + 1).reshape(-1, *[1] * low.ndim)
    return np.where(x <= high, x, low)


def with_sums(masses: Array) -> dict[str, Array]:
    """Add the probabilities before and from each value on, (..., v + 1), which reach 1 exactly."""
    sums = {}
    for name, values in (("below", masses), ("above", masses[..., ::-1])):
        cumulative = np.cumsum(values, axis=-1)
        zero = np.zeros_like(values[..., :1])
        sums[name] = np.concatenate([zero, cumulative / cumulative[..., -1:]], axis=-1)
    return {"masses": masses, "below": sums["below"], "above": sums["above"][..., ::-1]}


def _check_params(name, family, params):
    required = set(family.shapes.split(", ") if family.shapes else ())
    allowed = required | ({"loc"} if isinstance(family, stats.rv_discrete) else {"loc", "scale"})
    if not (params and required <= set(params) <= allowed):
        raise ValueError(
            f"params of {name!r} must be {sorted(required)}, of the names {sorted(allowed)}; "
            f"got {sorted(params)}."
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


def first_index(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Index of the first element that is True."""
    return tuple(map(int, np.argwhere(mask)[0]))
