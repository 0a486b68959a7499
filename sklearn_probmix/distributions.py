"""Predictive distributions: what a probabilistic regressor returns.

Conventions used throughout the file: ``n`` rows, ``outputs`` columns of y, ``components`` of the
mixture. Parameters have shape (n, components) or (n, components, outputs); what the user sees has
the shape of y, (n,) or (n, outputs), with any leading axes of his own in front of it.
"""

import operator

import numpy as np
from scipy import special, stats

from sklearn_probmix.floats import usual_floats_in_methods
from sklearn_probmix.quantiles import extremes, mixture_quantiles

# Numbers that one temporary array may hold: 16 MB, which still fits most last-level caches.
_BLOCK = 2_000_000
_DOMAINS = {
    "norm": "loc real, scale > 0",
    "lognorm": "s > 0, scale > 0",
    "gamma": "a > 0, scale > 0",
    "beta": "a > 0, b > 0",
    "poisson": "mu >= 0",
    "bernoulli": "0 <= p <= 1",
}


def _lognorm_variance(s, scale=1.0, loc=0.0):
    # scipy computes exp(s^2) - 1 by subtraction: 1e-4 off at s = 1e-6, and 0 at s = 1e-9.
    return scale**2 * np.exp(s**2) * np.expm1(s**2)


_VARIANCES = {"lognorm": _lognorm_variance}


@usual_floats_in_methods
class PredictiveDistribution:
    r"""Finite weighted mixture of one scipy.stats family, vectorised over rows and outputs.

    .. math:: p(y_r) = \sum_c w_{rc} \prod_o f(y_{ro} \mid \theta_{rco})

    One component is the plain case. The mixture is joint over outputs: a component is, say, one
    draw of a latent variable or one member of an ensemble, and speaks for all outputs of its row.

    Parameters
    ----------
    name : str
        Name of the scipy.stats family: "norm", "lognorm", "gamma", "beta", "poisson" and
        "bernoulli" are the ones that this package produces, any other univariate one works too.
    params : dict of str to array-like of shape (n, components) or (n, components, outputs)
        The keyword arguments of scipy.stats, in the units of y; ``loc`` and ``scale`` may be left
        out. All have one shape. Axis 1 is always that of the components.
    weights : array-like of shape (n, components) or (components,), default=None
        Convex weights of the components; None means equal weights.

    Attributes
    ----------
    name, params, weights
        As given; copies in float64 and read-only, weights of shape (n, components).

    Raises
    ------
    ValueError
        For an unknown family, a missing or superfluous parameter, unequal shapes, values that are
        not finite or lie outside the family's domain, weights that are not convex.

    Examples
    --------
    >>> from sklearn_probmix.distributions import PredictiveDistribution
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

    def __init__(self, name, params, *, weights=None):
        family = _scipy_family(name)
        params = _check_params(name, family, params)
        n, n_components = next(iter(params.values())).shape[:2]
        self._assign(name, params, _check_weights(weights, n, n_components))

    def _assign(self, name, params, weights):
        self.name = name
        self.params = params
        self.weights = weights
        for array in (*params.values(), weights):
            array.flags.writeable = False

    def _replace(self, params, weights):
        """Return a distribution of the same family, without checking what is known to be valid."""
        new = type(self).__new__(type(self))
        new._assign(self.name, params, weights)
        return new

    def _take(self, rows):
        params = {key: value[rows] for key, value in self.params.items()}
        return self._replace(params, self.weights[rows])

    @classmethod
    def concatenate(cls, distributions):
        """Join the rows of distributions, in the order given.

        Parameters
        ----------
        distributions : sequence of PredictiveDistribution
            Of one family, number of components and number of outputs, or a ValueError.

        Examples
        --------
        >>> dist = PredictiveDistribution("poisson", {"mu": [[1.0], [2.0], [3.0]]})
        >>> PredictiveDistribution.concatenate([dist[:1], dist[1:]]).mean()
        array([1., 2., 3.])
        """
        distributions = list(distributions)
        _check_alike(distributions, lambda d: (d.n_components, d.shape[1:]))
        params = {
            key: np.concatenate([d.params[key] for d in distributions])
            for key in distributions[0].params
        }
        weights = np.concatenate([d.weights for d in distributions])
        return distributions[0]._replace(params, weights)

    @classmethod
    def mix(cls, distributions, weights=None):
        r"""Pool distributions of the same rows linearly: :math:`\sum_k w_k p_k(y)`.

        Parameters
        ----------
        distributions : sequence of k PredictiveDistribution
            Of one family and one shape, or a ValueError; numbers of components may differ.
        weights : array-like of shape (k,) or (n, k), default=None
            Convex weights; None means equal weights. The share of a distribution is divided among
            its components by its own weights.

        Returns
        -------
        PredictiveDistribution of the same shape, with all the components

        Examples
        --------
        >>> left = PredictiveDistribution("norm", {"loc": [[-1.0]], "scale": [[1.0]]})
        >>> right = PredictiveDistribution("norm", {"loc": [[1.0]], "scale": [[1.0]]})
        >>> both = PredictiveDistribution.mix([left, right])
        >>> both.var(), both.var("aleatoric"), both.var("epistemic")
        (array([2.]), array([1.]), array([1.]))
        """
        distributions = list(distributions)
        _check_alike(distributions, lambda d: d.shape)
        shares = _check_weights(weights, len(distributions[0]), len(distributions))
        params = {
            key: np.concatenate([d.params[key] for d in distributions], axis=1)
            for key in distributions[0].params
        }
        own = [shares[:, [k]] * d.weights for k, d in enumerate(distributions)]
        return distributions[0]._replace(params, np.concatenate(own, axis=1))

    @property
    def shape(self):
        """Shape of y, (n,) or (n, outputs)."""
        n, _, *outputs = next(iter(self.params.values())).shape
        return (n, *outputs)

    @property
    def ndim(self):
        """Number of axes of y, 1 or 2."""
        return len(self.shape)

    @property
    def n_components(self):
        """Number of components of the mixture."""
        return self.weights.shape[1]

    @property
    def is_discrete(self):
        """Whether pdf is a probability mass and quantiles are integers."""
        return isinstance(self._family, stats.rv_discrete)

    @property
    def components(self):
        """The components, a tuple of distributions that have one each."""
        certain = np.ones((len(self), 1))
        return tuple(
            self._replace({key: value[:, [c]] for key, value in self.params.items()}, certain)
            for c in range(self.n_components)
        )

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """Select rows by an int (which keeps one row), a slice, a mask or an array of indices."""
        index = np.atleast_1d(np.arange(len(self))[rows])
        if index.ndim != 1:
            raise IndexError(f"rows are selected by a 1-D index, got one of {index.ndim} axes.")
        return self._take(index)

    def __array__(self, dtype=None, copy=None):
        """Return the mean, the point prediction that numpy and sklearn functions then see."""
        if copy is False:
            raise ValueError("copy=False: the mean is computed, so it is always a new array.")
        return np.asarray(self.mean(), dtype=dtype)

    def __repr__(self):
        return (
            f"{type(self).__name__}({self.name!r}, shape={self.shape}, "
            f"n_components={self.n_components})"
        )

    def pdf(self, x):
        """Density of each output, or probability mass for counts.

        Parameters
        ----------
        x : array-like, broadcastable to shape or to (...,) + shape
            In the units of y; infinite values are allowed, NaN is a ValueError.

        Returns
        -------
        ndarray of shape (...,) + shape, in 1 / units of y
        """
        return self._mixed("pmf" if self.is_discrete else "pdf", x)

    def logpdf(self, x):
        """Logarithm of the density (or mass) of each output, as `pdf`; -inf off the support."""
        return self.map_rows(
            lambda d, x: special.logsumexp(d._log_density(x), axis=-d.ndim, b=d._weights()),
            self._check_x(x),
        )

    def joint_logpdf(self, y):
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
            return special.logsumexp(log_density, axis=-1, b=d.weights)[..., None]

        return self.map_rows(joint, y)[..., 0]

    def cdf(self, x):
        """Probability of a value of at most x, for each output; x and result as in `pdf`."""
        return np.minimum(self._mixed("cdf", x), 1.0)

    def sf(self, x):
        """Probability of a value above x, 1 - cdf without loss of digits in the upper tail."""
        return np.minimum(self._mixed("sf", x), 1.0)

    def ppf(self, q):
        """Quantiles of each output, the inverse of `cdf`.

        For counts the smallest integer k with cdf(k) >= q.

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
        return self.map_rows(mixture_quantiles, q)

    def median(self):
        """Median of each output, of y's shape and units."""
        return self.ppf(0.5)

    def interval(self, confidence=0.9):
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

    def support(self):
        """Lowest and highest possible value, a tuple of two arrays of y's shape."""
        low, high = self._family.support(**self.params)
        return extremes(self, low)[0], extremes(self, high)[1]

    def mean(self):
        """Mean of each output, of y's shape and units."""
        with np.errstate(all="ignore"):
            return self._average(self._family.mean(**self.params))

    def var(self, kind="total"):
        r"""Variance of each output, split by the law of total variance.

        .. math:: \underbrace{\sum_c w_c \sigma_c^2}_{\text{aleatoric}} +
                  \underbrace{\sum_c w_c (\mu_c - \mu)^2}_{\text{epistemic}}

        Parameters
        ----------
        kind : {"total", "aleatoric", "epistemic"}, default="total"
            The noise that every component expects, the disagreement between components, or both.

        Returns
        -------
        ndarray of y's shape, in squared units of y
        """
        kinds = {
            "aleatoric": self._aleatoric,
            "epistemic": self._epistemic,
            "total": lambda: self._aleatoric() + self._epistemic(),
        }
        if kind not in kinds:
            raise ValueError(f"kind must be one of {sorted(kinds)}, got {kind!r}.")
        with np.errstate(all="ignore"):
            return kinds[kind]()

    def std(self):
        """Square root of the total variance of each output, of y's shape and units."""
        return np.sqrt(self.var())

    def rvs(self, size=None, random_state=None):
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
        params = {key: value[np.arange(len(self)), chosen] for key, value in self.params.items()}
        return self._family.rvs(**params, size=draws + self.shape[1:], random_state=rng)

    def map_rows(self, function, x, *, cost=1):
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

    @property
    def _family(self):
        return getattr(stats, self.name)

    def _check_x(self, x):
        x = np.asarray(x, dtype=float)
        if np.isnan(x).any():
            raise ValueError(f"x or y contains NaN, first at index {_first(np.isnan(x))}.")
        try:
            shape = np.broadcast_shapes(x.shape, self.shape)
        except ValueError:
            shape = ()
        if shape[-self.ndim :] != self.shape:
            raise ValueError(
                f"x or y has shape {x.shape}, expected {self.shape}, with or without leading axes."
            )
        return np.broadcast_to(x, shape)

    def _weights(self):
        return self.weights.reshape(self.weights.shape + (1,) * (self.ndim - 1))

    def _each(self, method, x):
        """Apply a method of scipy.stats to all components; their axis is number -ndim."""
        x = np.expand_dims(x, -self.ndim)
        with np.errstate(all="ignore"):
            return getattr(self._family, method)(x, **self.params)

    def _log_density(self, x):
        return self._each("logpmf" if self.is_discrete else "logpdf", x)

    def _average(self, values):
        if self.n_components == 1:
            return values.squeeze(-self.ndim)
        # A component of weight 0 may be infinite.
        weights = self._weights()
        return np.where(weights > 0, weights * values, 0.0).sum(axis=-self.ndim)

    def _mixed(self, method, x):
        return self.map_rows(lambda d, x: d._average(d._each(method, x)), self._check_x(x))

    def _aleatoric(self):
        variance = _VARIANCES.get(self.name, self._family.var)
        return self._average(variance(**self.params))

    def _epistemic(self):
        means = self._family.mean(**self.params)
        spread = (means - np.expand_dims(self.mean(), 1)) ** 2
        # Of an infinite mean.
        return self._average(np.where(np.isnan(spread), np.inf, spread))


def _scipy_family(name):
    family = getattr(stats, name, None) if isinstance(name, str) else None
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(
            f"name must be that of a scipy.stats distribution, such as {', '.join(_DOMAINS)}; "
            f"got {name!r}."
        )
    return family


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
            where = _first(~np.isfinite(value))
            raise ValueError(
                f"params[{key!r}] is {value[where]} at index {where}, expected finite values."
            )
    with np.errstate(all="ignore"):
        is_outside = np.isnan(family.support(**params)[0])
    if is_outside.any():
        where = _first(is_outside)
        found = ", ".join(f"{key}={value[where]}" for key, value in params.items())
        domain = _DOMAINS.get(name, f"the domain of scipy.stats.{name}")
        raise ValueError(f"params of {name!r} at index {where}: {found}; expected {domain}.")
    return params


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


def _check_alike(distributions, layout):
    if not distributions:
        raise ValueError("distributions is empty, expected at least one.")
    first, *others = distributions
    for other in others:
        same_family = other.name == first.name and set(other.params) == set(first.params)
        if not (same_family and layout(other) == layout(first)):
            raise ValueError(f"distributions do not match: {first!r} and {other!r}.")


def _check_probability(what, value):
    value = np.asarray(value, dtype=float)
    if not ((value >= 0) & (value <= 1)).all():
        hint = "; 90 % is 0.9." if (value > 1).any() else "."
        raise ValueError(f"{what} must lie in [0, 1], got {value}{hint}")
    return value


def _first(mask):
    return tuple(map(int, np.argwhere(mask)[0]))
