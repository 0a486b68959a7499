"""Predictive distributions: what a probabilistic regressor returns.

Conventions used throughout the file: ``n`` rows, ``outputs`` columns of y, ``components`` of the
mixture. Parameters have shape (n, components) or (n, components, outputs); what the user sees has
the shape of y, (n,) or (n, outputs), with any leading axes of his own in front of it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sklearn_probmix.components import (
    Array,
    Components,
    average,
    components_from_arrays,
    first_index,
    join,
)
from sklearn_probmix.crps import mixture_crps, n_pieces
from sklearn_probmix.exports import Exports
from sklearn_probmix.floats import usual_floats, usual_floats_in_methods
from sklearn_probmix.outlines import to_html
from sklearn_probmix.quantiles import extremes, mixture_quantiles
from sklearn_probmix.scipy_components import scipy_components

# Numbers that one temporary array may hold: 16 MB, which still fits most last-level caches.
_BLOCK = 2_000_000


@usual_floats_in_methods
class PredictiveDistribution(Exports):
    r"""Finite weighted mixture of components, vectorised over rows and outputs.

    One component is the plain case. The mixture is joint over outputs: a component is, say, one
    draw of a latent variable or one member of an ensemble, and speaks for all outputs of its row.
    Components of one family are the usual case; `mix` puts those of any families together.

    A distribution may have *atoms*, values that have a probability themselves: counts have nothing
    else, and a mixture of a density and of masses on a lattice has both. Where y is an atom its
    mass alone counts in `pdf` and `logpdf`, elsewhere the density: these are densities with
    respect to length plus counting of the atoms. To compare a density with masses, score both by
    `log_probability`. All other methods mean the same with atoms as without.

    .. math:: p(y_r) = \sum_c w_{rc} \prod_o f(y_{ro} \mid \theta_{rco})

    Parameters
    ----------
    name : str or Components
        Name of the scipy.stats family: "norm", "lognorm", "gamma", "beta", "poisson", "nbinom" and
        "bernoulli" are the ones that this package produces, any other univariate one works too.
        Or the components themselves.
    params : dict of str to array-like of shape (n, components) or (n, components, outputs)
        The keyword arguments of scipy.stats, in the units of y; ``loc`` and ``scale`` may be left
        out. All have one shape. Axis 1 is always that of the components. Only with a name.
    weights : array-like of shape (n, components) or (components,), default=None
        Convex weights of the components; None means equal weights.

    Attributes
    ----------
    name : str
        Of the family, or "norm + gamma" for a mixture of several.
    params : dict of str to ndarray
        As given; copies in float64 and read-only. A mixture of several families has none.
    weights : ndarray of shape (n, components)
        Read-only.
    blocks : tuple of Components
        The components, those of a family together; they are in the order of the weights.

    Raises
    ------
    ValueError
        For an unknown family, a missing or superfluous parameter, unequal shapes, values that are
        not finite or lie outside the family's domain, weights that are not convex.

    Examples
    --------
    >>> from sklearn_probmix import PredictiveDistribution
    >>> dist = PredictiveDistribution("norm", {"loc": [[0.0], [10.0]], "scale": [[1.0], [2.0]]})
    >>> dist
    PredictiveDistribution('norm', shape=(2,), n_components=1)
    >>> dist.mean()
    array([ 0., 10.])
    >>> low, high = dist.interval(0.9)
    >>> high.round(2)
    array([ 1.64, 13.29])
    >>> dist[1:].std()
    array([2.])
    """

    def __init__(
        self,
        name: str | Components,
        params: Mapping[str, ArrayLike] | None = None,
        *,
        weights: ArrayLike | None = None,
    ):
        if isinstance(name, Components):
            if params is not None:
                raise ValueError("params go with the name of a family; components hold their own.")
            components = name
        else:
            components = scipy_components(name, {} if params is None else params)
        self._assign(components, _check_weights(weights, *components.shape[:2]))

    def _assign(self, components, weights):
        self._components = components
        self.weights = weights
        weights.flags.writeable = False

    @classmethod
    def _of(cls, components, weights):
        """Make a distribution of what is known to be valid."""
        new = cls.__new__(cls)
        new._assign(components, weights)
        return new

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Numpy makes arrays writeable when it copies or unpickles them.
        self._assign(state["_components"], state["weights"])

    def _take(self, rows):
        return self._of(self._components.take(rows), self.weights[rows])

    @classmethod
    def concatenate(cls, distributions: Sequence[Self]) -> Self:
        """Join the rows of distributions, in the order given.

        Parameters
        ----------
        distributions : sequence of PredictiveDistribution
            Of one family (or the same ones), number of components and number of outputs, or a
            ValueError.

        Examples
        --------
        >>> dist = PredictiveDistribution("poisson", {"mu": [[1.0], [2.0], [3.0]]})
        >>> PredictiveDistribution.concatenate([dist[:1], dist[1:]]).mean()
        array([1., 2., 3.])
        """
        first, *others = _check_match(
            distributions,
            lambda d: (d._components.alike(), [block.shape[1:] for block in d.blocks]),
        )
        components = first._components.concatenate([d._components for d in others], axis=0)
        return cls._of(components, np.concatenate([d.weights for d in (first, *others)]))

    @classmethod
    def mix(cls, distributions: Sequence[Self], weights: ArrayLike | None = None) -> Self:
        r"""Pool distributions of the same rows linearly: :math:`\sum_k w_k p_k(y)`.

        Parameters
        ----------
        distributions : sequence of k PredictiveDistribution
            Of one shape, or a ValueError; families and numbers of components may differ.
        weights : array-like of shape (k,) or (n, k), default=None
            Convex weights; None means equal weights. The share of a distribution is divided among
            its components by its own weights.

        Returns
        -------
        PredictiveDistribution of the same shape, with all the components
            In their order, but that those of a family come together, where its first one is.

        Examples
        --------
        >>> left = PredictiveDistribution("norm", {"loc": [[-1.0]], "scale": [[1.0]]})
        >>> right = PredictiveDistribution("norm", {"loc": [[1.0]], "scale": [[1.0]]})
        >>> both = PredictiveDistribution.mix([left, right])
        >>> both.var(), both.var("aleatoric"), both.var("epistemic")
        (array([2.]), array([1.]), array([1.]))
        >>> counts = PredictiveDistribution("poisson", {"mu": [[3.0]]})
        >>> PredictiveDistribution.mix([left, counts, right])
        PredictiveDistribution('norm + poisson', shape=(1,), n_components=3)
        """
        distributions = _check_match(distributions, lambda d: d.shape)
        shares = _check_weights(weights, len(distributions[0]), len(distributions))
        own = [shares[:, [k]] * d.weights for k, d in enumerate(distributions)]
        components, order = join([d._components for d in distributions])
        return cls._of(components, np.concatenate(own, axis=1)[:, order])

    @property
    def name(self) -> str:
        """Name of the family or, of several, of all."""
        return self._components.name

    @property
    def params(self) -> dict[str, Array]:
        """Parameters of the components by name; an AttributeError for several families."""
        return self._components.params

    @property
    def blocks(self) -> tuple[Components, ...]:
        """Components of one family each, in the order of the weights."""
        return self._components.blocks

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of y, (n,) or (n, outputs)."""
        n, _, *outputs = self._components.shape
        return (n, *outputs)

    @property
    def ndim(self) -> int:
        """Number of axes of y, 1 or 2."""
        return len(self.shape)

    @property
    def n_components(self) -> int:
        """Number of components of the mixture."""
        return self.weights.shape[1]

    @property
    def is_discrete(self) -> bool:
        """Whether all probability is in atoms, so that pdf is a probability mass."""
        return self._components.is_discrete

    @property
    def components(self) -> tuple[Self, ...]:
        """The components, a tuple of distributions that have one each."""
        certain = np.ones((len(self), 1))
        return tuple(self._of(self._components.pick(c), certain) for c in range(self.n_components))

    def marginal(self, output: int) -> Self:
        """Distribution of one output of a 2-D y, of shape (n,); an IndexError for 1-D y.

        Parameters
        ----------
        output : int
        """
        if self.ndim == 1:
            raise IndexError(f"y has shape {self.shape}; expected 2-D y, of which to take outputs.")
        return self._of(self._components.marginal(output), self.weights)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Self:
        """Select rows by an int (which keeps one row), a slice, a mask or an array of indices."""
        index = np.atleast_1d(np.arange(len(self))[rows])
        if index.ndim != 1:
            raise IndexError(f"rows are selected by a 1-D index, got one of {index.ndim} axes.")
        return self._take(index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the mean, the point prediction that numpy and sklearn functions then see."""
        if copy is False:
            raise ValueError("copy=False: the mean is computed, so it is always a new array.")
        return np.asarray(self.mean(), dtype=dtype)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, shape={self.shape}, "
            f"n_components={self.n_components})"
        )

    @usual_floats
    def _repr_html_(self) -> str:
        return to_html(self)

    def pdf(self, x: ArrayLike) -> Array:
        """Density of each output, or probability mass at an atom.

        Parameters
        ----------
        x : array-like, broadcastable to shape or to (...,) + shape
            In the units of y; infinite values are allowed, NaN is a ValueError. So is a shape that
            would pair rows with rows, (n, 1) for y of shape (n,).

        Returns
        -------
        ndarray of shape (...,) + shape, in 1 / units of y, without unit at an atom
        """
        if self._has_both():
            return np.exp(self.logpdf(x))
        return self._mixed("density", x)

    def pmf(self, x: ArrayLike) -> Array:
        """Probability of x itself, for each output; 0 where x is no atom.

        Parameters
        ----------
        x : array-like, broadcastable to shape or to (...,) + shape

        Returns
        -------
        ndarray of shape (...,) + shape
        """
        if not self._components.has_atoms:
            return np.zeros(self._check_x(x).shape)
        return self.map_rows(
            lambda d, x: average(np.exp(d._components.log_mass(d._expand(x))), d._weights()),
            self._check_x(x),
        )

    def logpdf(self, x: ArrayLike) -> Array:
        """Logarithm of `pdf`, of each output; -inf off the support.

        Parameters
        ----------
        x : array-like, broadcastable to shape or to (...,) + shape

        Returns
        -------
        ndarray of shape (...,) + shape
        """
        return self.map_rows(lambda d, x: d._log_average(d._log_density(x)), self._check_x(x))

    def log_probability(self, y: ArrayLike, width: ArrayLike) -> Array:
        """Logarithm of the probability of the cell [y - width / 2, y + width / 2], ends included.

        It is the score by which a density and masses can be compared, where y was measured or
        rounded in steps of `width`. For a narrow cell without atoms it is
        ``logpdf(y) + log(width)``.

        Parameters
        ----------
        y : array-like, broadcastable to shape or to (...,) + shape
        width : float or array-like of shape (outputs,)
            Positive, in the units of y.

        Returns
        -------
        ndarray of shape (...,) + shape, for each output

        Examples
        --------
        >>> counts = PredictiveDistribution("poisson", {"mu": [[100.0]]})
        >>> normal = PredictiveDistribution("norm", {"loc": [[100.0]], "scale": [[10.0]]})
        >>> counts.log_probability([100], 1.0).round(3), normal.log_probability([100], 1.0).round(3)
        (array([-3.222]), array([-3.222]))
        """
        width = np.asarray(width, dtype=float)
        if not (np.isfinite(width) & (width > 0)).all():
            raise ValueError(f"width must be positive, got {width}.")

        def cell(d, y):
            low, high = d._expand(y - width / 2), d._expand(y + width / 2)
            return d._log_average(d._components.log_probability(low, high))

        values, is_finite = _apart(self._check_x(y))
        return np.where(is_finite, self.map_rows(cell, values), -np.inf)

    def joint_logpdf(self, y: ArrayLike) -> Array:
        r"""Logarithm of the density of the rows, over all outputs together.

        .. math:: \log \sum_c w_{rc} \prod_o f(y_{ro} \mid \theta_{rco})

        It is `logpdf` for 1-D y, and the sum of `logpdf` over outputs for one component.

        Parameters
        ----------
        y : array-like, broadcastable to shape or to (...,) + shape

        Returns
        -------
        ndarray of shape (..., n)

        Examples
        --------
        >>> params = {"loc": [[[0, 0], [9, 9]]], "scale": [[[1, 1], [1, 1]]]}
        >>> dist = PredictiveDistribution("norm", params)
        >>> dist.joint_logpdf([[0, 0]]) > dist.joint_logpdf([[0, 9]])
        array([ True])
        >>> bool(np.isclose(*dist.logpdf([[0, 9]])[0]))
        True
        """
        y = self._check_x(y)
        if self.ndim == 1:
            return self.logpdf(y)

        def joint(d, y):
            log_density = d._log_density(y).sum(axis=-1)
            return _log_average(log_density, d.weights, axis=-1)[..., None]

        return self.map_rows(joint, y)[..., 0]

    def cdf(self, x: ArrayLike) -> Array:
        """Probability of a value of at most x, for each output.

        Parameters
        ----------
        x : array-like, broadcastable to shape or to (...,) + shape

        Returns
        -------
        ndarray of shape (...,) + shape
        """
        return np.minimum(self._mixed("cdf", x), 1.0)

    def sf(self, x: ArrayLike) -> Array:
        """Probability of a value above x, 1 - cdf without loss of digits in the upper tail.

        Parameters
        ----------
        x : array-like, broadcastable to shape or to (...,) + shape

        Returns
        -------
        ndarray of shape (...,) + shape
        """
        return np.minimum(self._mixed("sf", x), 1.0)

    def ppf(self, q: ArrayLike) -> Array:
        """Quantiles of each output, the inverse of `cdf`.

        Where the cdf jumps, the smallest x with cdf(x) >= q: an integer for counts.

        Parameters
        ----------
        q : float or array-like in [0, 1]

        Returns
        -------
        ndarray of shape q.shape + shape, in the units of y

        Examples
        --------
        >>> params = {"loc": [[-3.0, 3.0]], "scale": [[1.0, 1.0]]}
        >>> PredictiveDistribution("norm", params).ppf([0.25, 0.75]).round(3)
        array([[-3.],
               [ 3.]])
        """
        q = _check_probability("q", q)
        q = np.broadcast_to(q.reshape(q.shape + (1,) * self.ndim), q.shape + self.shape)
        return self._quantiles(q)

    def _quantiles(self, q: Array) -> Array:
        """Quantiles at levels of shape (...,) + shape, each of its own row."""
        cost = max(1, self._components.n_numbers)
        return self.map_rows(
            lambda d, q: mixture_quantiles(d._components, d._weights(), q), q, cost=cost
        )

    def median(self) -> Array:
        """Median of each output, of y's shape and units."""
        return self.ppf(0.5)

    def interval(self, confidence: ArrayLike = 0.9) -> tuple[Array, Array]:
        """Central interval, between the quantiles (1 - confidence) / 2 and (1 + confidence) / 2.

        Parameters
        ----------
        confidence : float or array-like in [0, 1], default=0.9

        Returns
        -------
        low, high : ndarrays of shape confidence.shape + shape, in the units of y
        """
        confidence = _check_probability("confidence", confidence)
        low, high = self.ppf(np.stack([(1 - confidence) / 2, (1 + confidence) / 2]))
        return low, high

    def support(self) -> tuple[Array, Array]:
        """Lowest and highest possible value, a tuple of two arrays of y's shape."""
        low, high = self._components.support()
        return extremes(self._weights(), low)[0], extremes(self._weights(), high)[1]

    def crps(self, y: ArrayLike) -> Array:
        r"""Continuous ranked probability score of each output.

        .. math:: \int (F(x) - 1\{x \ge y\})^2 dx

        `sklearn_probmix.metrics.crps` averages it, and says how it is computed.

        Parameters
        ----------
        y : array-like, broadcastable to shape
            Infinite values have an infinite score.

        Returns
        -------
        ndarray of y's shape and units
        """
        values, is_finite = _apart(self._check_x(y))
        if values.shape != self.shape:
            raise ValueError(f"y has shape {values.shape}, expected {self.shape}.")
        if not values.size:
            return np.zeros(self.shape)
        # Beyond the support, each unit of distance adds one unit of score.
        inside = np.clip(values, *self.support())
        score = self.map_rows(
            lambda d, y: mixture_crps(d._components, d._weights(), y),
            inside,
            cost=n_pieces(self._components),
        )
        return np.where(is_finite, score + abs(values - inside), np.inf)

    def mean(self, **reduction: Any) -> Array:
        """Mean of each output, of y's shape and units; `np.mean` gives the same.

        Parameters
        ----------
        **reduction
            What `np.mean` passes on; an axis is a TypeError, since rows are not reduced.
        """
        _check_reduction("mean", reduction)
        with np.errstate(all="ignore"):
            return average(self._components.mean(), self._weights())

    def var(self, kind: str = "total", **reduction: Any) -> Array:
        r"""Variance of each output, split by the law of total variance: aleatoric plus epistemic.

        .. math:: \sum_c w_c \sigma_c^2 + \sum_c w_c (\mu_c - \mu)^2

        Parameters
        ----------
        kind : {"total", "aleatoric", "epistemic"}, default="total"
            The noise that every component expects, the disagreement between components, or both.
        **reduction
            What `np.var` passes on; an axis is a TypeError, since rows are not reduced.

        Returns
        -------
        ndarray of y's shape, in squared units of y
        """
        kinds = {
            "aleatoric": self._aleatoric,
            "epistemic": self._epistemic,
            "total": lambda: self._aleatoric() + self._epistemic(),
        }
        _check_reduction("var", reduction)
        if kind not in kinds:
            raise ValueError(f"kind must be one of {sorted(kinds)}, got {kind!r}.")
        with np.errstate(all="ignore"):
            return kinds[kind]()

    def std(self, **reduction: Any) -> Array:
        """Square root of the total variance of each output, of y's shape and units.

        Parameters
        ----------
        **reduction
            What `np.std` passes on; an axis is a TypeError, since rows are not reduced.
        """
        _check_reduction("std", reduction)
        return np.sqrt(self.var())

    def rvs(self, size: int | tuple[int, ...] | None = None, random_state: Any = None) -> Array:
        """Draw from the joint distribution: one component per row and draw, for all outputs.

        Parameters
        ----------
        size : int or tuple of int, default=None
            Number of draws per row; None gives one draw of y's shape.
        random_state : int, Generator, RandomState or None, default=None

        Returns
        -------
        ndarray of shape size + shape, in the units of y
        """
        size = () if size is None else tuple(np.atleast_1d(size))
        is_legacy = isinstance(random_state, np.random.RandomState)
        rng = random_state if is_legacy else np.random.default_rng(random_state)
        draws = (*map(operator.index, size), len(self))
        cumulative = np.cumsum(self.weights, axis=1)
        cumulative /= cumulative[:, -1:]
        uniform = rng.random(draws)
        chosen = np.zeros(draws, dtype=int)
        for bound in cumulative.T[:-1]:
            chosen += uniform >= bound
        rows = np.broadcast_to(np.arange(len(self)), draws)
        return self._components.rvs(rows, chosen, rng)

    def map_rows(
        self, function: Callable[[Self, Array], Array], x: Array, *, cost: int = 1
    ) -> Array:
        """Apply a function to blocks of rows, so that temporary arrays stay small.

        Parameters
        ----------
        function : callable
            ``function(distribution, x)`` of some rows returns an array of shape (...,) + shape.
        x : ndarray of shape (...,) + shape
        cost : int, default=1
            Numbers that the function holds per element of x and component.

        Returns
        -------
        ndarray of shape (...,) + shape

        Examples
        --------
        >>> dist = PredictiveDistribution("norm", {"loc": [[0.0], [5.0]], "scale": [[1.0], [1.0]]})
        >>> dist.map_rows(lambda d, y: abs(y - d.mean()), np.array([1.0, 2.0]))
        array([1., 3.])
        """
        n = len(self)
        per_row = max(1, cost * self.n_components * x.size // max(1, n))
        step = max(1, _BLOCK // per_row)
        if step >= n:
            return function(self, x)
        parts = []
        for start in range(0, n, step):
            rows = np.s_[start : start + step]
            x_rows = x[..., rows] if self.ndim == 1 else x[..., rows, :]
            parts.append(function(self._take(rows), x_rows))
        return np.concatenate(parts, axis=-self.ndim)

    def _check_x(self, x: ArrayLike) -> Array:
        x = np.asarray(x, dtype=float)
        if np.isnan(x).any():
            raise ValueError(f"x or y contains NaN, first at index {first_index(np.isnan(x))}.")
        try:
            shape = np.broadcast_shapes(x.shape, self.shape)
        except ValueError:
            shape = ()
        expected = f"expected {self.shape}, with or without leading axes"
        if shape[-self.ndim :] != self.shape:
            raise ValueError(f"x or y has shape {x.shape}, {expected}.")
        # The same numbers of rows on two axes: as one value for each row it would be broadcast to
        # all pairs of rows, and it may be meant so or not.
        n = len(self)
        pairs_rows = x.shape[-2:] == (n, 1) if self.ndim == 1 else x.shape == (n,)
        if n > 1 and pairs_rows:
            raise ValueError(
                f"x or y has shape {x.shape}, {expected}: flatten one value for each row, or "
                "broadcast a grid of values to the rows yourself."
            )
        return np.broadcast_to(x, shape)

    def _weights(self):
        return self.weights.reshape(self.weights.shape + (1,) * (self.ndim - 1))

    def _expand(self, x):
        return np.expand_dims(x, -self.ndim)

    def _mixed(self, method, x):
        def mixed(d, x):
            return average(getattr(d._components, method)(d._expand(x)), d._weights())

        return self.map_rows(mixed, self._check_x(x))

    def _log_average(self, logs):
        return _log_average(logs, self._weights(), axis=-self.ndim)

    def _has_both(self):
        """Whether there are atoms and a density."""
        return self._components.has_atoms and not self._components.is_discrete

    def _log_density(self, x):
        """Logarithm of the components' densities with respect to length and atoms of all."""
        x = self._expand(x)
        log_density = self._components.log_density(x)
        if not self._has_both():
            return log_density
        log_mass = self._components.log_mass(x)
        is_possible = (log_mass > -np.inf) & (self._weights() > 0)
        return np.where(is_possible.any(axis=-self.ndim, keepdims=True), log_mass, log_density)

    def _aleatoric(self):
        return average(self._components.var(), self._weights())

    def _epistemic(self):
        means = self._components.mean()
        spread = (means - np.expand_dims(self.mean(), 1)) ** 2
        # Of an infinite mean.
        return average(np.where(np.isnan(spread), np.inf, spread), self._weights())

    def to_dict(self) -> dict[str, Any]:
        """Components and weights as plain values and arrays."""
        return {"components": list(self._components.to_arrays()), "weights": self.weights}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make what `to_dict` described, or raise a ValueError or TypeError.

        Parameters
        ----------
        content : dict
        """
        weights = np.array(content["weights"], dtype=float)
        checked = cls(components_from_arrays(*content["components"]), weights=weights)
        if weights.shape != checked.weights.shape:
            raise ValueError(
                f"weights have shape {weights.shape}, expected {checked.weights.shape}."
            )
        # The constructor divides weights by their sum, which would move the last bit of saved ones.
        return cls._of(checked._components, weights)


def _apart(y):
    """Return y with 0 in the place of infinite values, and which are finite."""
    is_finite = np.isfinite(y)
    return np.where(is_finite, y, 0.0), is_finite


def _log_average(logs, weights, axis):
    """Logarithm of an average; a component of weight 0 may be infinite."""
    if not weights.all():
        logs = np.where(weights > 0, logs, -np.inf)
    return special.logsumexp(logs, axis=axis, b=weights)


def _check_weights(weights, n, n_components):
    if weights is None:
        return np.full((n, n_components), 1 / n_components)
    weights = np.asarray(weights, dtype=float)
    if weights.shape not in {(n_components,), (n, n_components)}:
        raise ValueError(
            f"weights has shape {weights.shape}, expected {(n_components,)} or {(n, n_components)}."
        )
    total = weights.sum(axis=-1, keepdims=True)
    # The tolerance is that of a softmax computed in float32.
    if not ((weights >= 0).all() and (abs(total - 1) < 1e-5).all()):
        raise ValueError(
            "weights must be non-negative and sum to 1 over the components; got a minimum of "
            f"{weights.min()} and sums between {total.min()} and {total.max()}."
        )
    return np.broadcast_to(weights / total, (n, n_components)).copy()


def _check_match(distributions, layout):
    distributions = list(distributions)
    if not distributions:
        raise ValueError("distributions is empty, expected at least one.")
    for place, each in enumerate(distributions):
        if not isinstance(each, PredictiveDistribution):
            found = type(each).__name__
            raise TypeError(f"distributions[{place}] is a {found}; expected predictive ones.")
    first, *others = distributions
    for other in others:
        if layout(other) != layout(first):
            raise ValueError(f"distributions do not match: {first!r} and {other!r}.")
    return distributions


def _check_reduction(name, reduction):
    """Refuse what np.mean and its like would reduce; they pass on what they were not asked."""
    unknown = set(reduction) - {"axis", "dtype", "out", "ddof"}
    asked = {key for key, value in reduction.items() if value is not None}
    if reduction.get("ddof") == 0:
        asked.remove("ddof")
    if unknown or asked:
        raise TypeError(
            f"{name} of a predictive distribution is that of each row and output; it takes no "
            f"{sorted(unknown | asked)}. For figures over the rows, reduce "
            f"np.asarray(dist), the means."
        )


def _check_probability(what: str, value: ArrayLike) -> Array:
    value = np.asarray(value, dtype=float)
    if not ((value >= 0) & (value <= 1)).all():
        hint = "; 90 % is 0.9." if (value > 1).any() else "."
        raise ValueError(f"{what} must lie in [0, 1], got {value}{hint}")
    return value
