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
from scipy import special

__all__ = [
    "Components",
    "average",
    "components_from_arrays",
    "delegate",
    "first_index",
    "fold_weights",
    "is_whole",
    "join",
    "mixture_cdf",
    "with_sums",
]

Array = NDArray[np.float64]

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
    def unrectified(self) -> Components | None:
        """Components that are the same but for values below 0, which these put at 0."""
        return None

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

    def below_0(self) -> tuple[Array, Array] | None:
        """Means of min(X, 0) and of its square, or None without a closed form.

        They are what a density loses whose values below 0 are put at 0.

        Returns
        -------
        tuple of two arrays of `shape`, in the units of y and in their square, or None
        """
        return None

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
        # Of narrow cells rounding may leave less than nothing.
        with np.errstate(divide="ignore", invalid="ignore"):
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
        if self.is_discrete:
            return np.where(is_lost, self._log_sum(low, high), exact)
        middle, half = (low + high) / 2, (high - low) / 2
        nodes = [self.log_density(middle + half * node) for node in _CELL_NODES]
        weights = _CELL_WEIGHTS.reshape(-1, *[1] * nodes[0].ndim)
        smooth = special.logsumexp(np.stack(nodes), axis=0, b=weights) + np.log(half)
        return np.where(is_lost, np.logaddexp(smooth, self.log_mass(low)), exact)

    def _log_sum(self, low: Array, high: Array) -> Array:
        """Logarithm of the sum of the masses from low to high; here that of the middle alone."""
        return self.log_mass((low + high) / 2)

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


def delegate(method: str) -> Callable[..., Array]:
    """Return the method that calls the one of this name of what the components are made of."""
    return lambda self, *args: self._each(method, *args)


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

    @property
    def unrectified(self) -> Components | None:
        inner = [block.unrectified for block in self.blocks if block.unrectified is not None]
        return type(self)(inner) if len(inner) == len(self.blocks) else None

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

    log_density, log_mass = delegate("log_density"), delegate("log_mass")
    log_probability = delegate("log_probability")
    cdf, sf, ppf = delegate("cdf"), delegate("sf"), delegate("ppf")
    mean, var = delegate("mean"), delegate("var")

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


def is_whole(values: Array) -> bool:
    """Whether all are whole numbers."""
    return bool(np.all(values == np.floor(values)))


def with_sums(masses: Array) -> dict[str, Array]:
    """Add the probabilities before and from each value on, (..., v + 1), which reach 1 exactly."""
    sums = {}
    for name, values in (("below", masses), ("above", masses[..., ::-1])):
        cumulative = np.cumsum(values, axis=-1)
        zero = np.zeros_like(values[..., :1])
        sums[name] = np.concatenate([zero, cumulative / cumulative[..., -1:]], axis=-1)
    return {"masses": masses, "below": sums["below"], "above": sums["above"][..., ::-1]}


def first_index(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Index of the first element that is True."""
    return tuple(map(int, np.argwhere(mask)[0]))
