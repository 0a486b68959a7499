"""Families of bins: histograms of any response, and masses on the values that a response takes.

Both are categorical in the number of the bin: T(y) is one-hot, and the logits of the bins are
natural parameters. What a density does within a bin is h(y), the same for all x, so that the
normalised product of powers of two histograms is the histogram of the mixed logits. Bins are
settled by :meth:`Family.fitted`, for each output; one that has fewer bins than another leaves its
last logits unused.

The kernel of eq. 14 is a Normal around the response, of which every bin gets its probability. As
weighted points it is one response for each bin, so that for one output its loss is exact, also for
a mixture.
"""

from __future__ import annotations

import math
from functools import lru_cache
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from sklearn_probmix.components import Components
from sklearn_probmix.families import FAMILIES, Family, Normal, Units, constant
from sklearn_probmix.histogram_components import HistogramComponents
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.pooling import log_linear_pool

__all__ = ["Histogram", "Lattice"]

#: A row of numbers for each output.
Rows = tuple[tuple[float, ...], ...]

# Logit of a bin that an output does not have, of probability 0 in any float.
_NO_BIN = -1e5
_MOST_BINS = 1_000
_MOST_VALUES = 500
# In units of the standardised response: no bin is narrower, and densities stay finite.
_NARROWEST = 1e-6
# Of standardised responses with weights as they may be; from a file others might come.
_FARTHEST = 1e16
# Half a bin around a response that is constant, as wide as a Normal may get.
_AROUND_CONSTANT = 1e-2


class _Bins(Family):
    """What both share: a categorical law on bins, which are found by their edges."""

    dtype = torch.float64
    default_response = "pooled"

    @property
    def edges_(self) -> NDArray[np.float64]:
        """Between bins, shape (n_outputs, n_params - 1); infinite behind an output's last one."""
        raise NotImplementedError

    @property
    def centres_(self) -> NDArray[np.float64]:
        """Response that stands for each bin, (n_outputs, n_params)."""
        raise NotImplementedError

    @property
    def unit_(self) -> NDArray[np.float64]:
        """Size of what has the variance beta of 1, (n_outputs,)."""
        raise NotImplementedError

    n_params = property(lambda self: self.edges_.shape[1] + 1)
    is_missing_ = property(lambda self: np.pad(np.isinf(self.edges_), ((0, 0), (1, 0))))

    def _settled(self, value: Rows | None) -> NDArray[np.float64]:
        if value is None:
            raise ValueError(
                f"{self!r} has not seen responses yet; expected the result of "
                "fitted(y, weight), which an estimator calls."
            )
        return _array(value)

    def natural(self, raw: Tensor) -> Tensor:
        if not self.is_missing_.any():
            return raw
        return raw.masked_fill(constant(self, "is_missing_", raw.device), _NO_BIN)

    def log_prob(self, eta: Tensor, y: Tensor) -> Tensor:
        y = y.double()
        code = self._code(y)
        return _pick(log_softmax(eta, dim=-1), code) + self._log_shape(y, code)

    def _log_shape(self, y, code):
        """Log-density of y within its bin."""
        raise NotImplementedError

    def _code(self, y):
        """Numbers of the bins, of y's shape; an edge belongs to the bin below it."""
        edges = constant(self, "edges_", y.device)
        if y.shape[-1] != len(edges):
            raise ValueError(f"y has {y.shape[-1]} outputs; expected {len(edges)}, as in fitted.")
        columns = y.movedim(-1, 0)
        code = torch.searchsorted(edges, columns.reshape(len(edges), -1).contiguous())
        last = torch.isfinite(edges).sum(1, keepdim=True)
        return torch.minimum(code, last).reshape(columns.shape).movedim(0, -1)

    def _at(self, name, code):
        """Entries of one of our tables (n_outputs, n_params) for bins (..., n_outputs)."""
        table = constant(self, name, code.device)
        return table[torch.arange(len(table), device=code.device), code]

    def _snap(self, y):
        """Return the response that a mixed one counts as."""
        return y

    def kernel(self, y: Tensor, beta: float, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if beta == 0:
            return self._snap(y).unsqueeze(1), torch.ones_like(y[:, :1])
        spread = math.sqrt(beta) * constant(self, "unit_", y.device)
        if noise is not None and y.shape[1] > 1:
            # Of several outputs and components no few points have the law of the kernel.
            return self._snap(y + spread * noise).unsqueeze(1), torch.ones_like(y[:, :1])
        edges = constant(self, "edges_", y.device)
        levels = torch.special.ndtr((edges - y.unsqueeze(-1)) / spread.unsqueeze(-1))
        # The outputs rise together, from level to level of any of them: each has its own law.
        every = levels.flatten(1).sort(dim=1).values
        every = torch.nn.functional.pad(every, (1, 0), value=0.0)
        weights = torch.diff(every, append=torch.ones_like(every[:, :1]))
        middle = (every + weights / 2).unsqueeze(1).expand(-1, y.shape[1], -1)
        code = torch.searchsorted(levels, middle.contiguous()).movedim(1, -1)
        return self._at("centres_", code), weights

    def pooled_kernel(
        self, y_i: Tensor, y_j: Tensor, lam: Tensor, beta: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.kernel(log_linear_pool(y_i, y_j, lam), beta, noise)

    def _masses(self, eta):
        """Probabilities of the bins, (rows, components, n_outputs, n_params)."""
        return log_softmax(eta.double(), dim=-1).exp().numpy()


class Histogram(_Bins):
    """Density that is constant within bins, with an exponential tail on either side; y real.

    Bins are narrow where y has many rows, and hold fewer rows where these are far apart. Edges lie
    half way between two neighbouring values: of a rounded y, bins are cells of the rounding, and a
    value of more than two bins' rows has a bin of its own that ends half way to its neighbours. The
    first and the last bin are the tails, whose mean distances from their edges are those of y.
    Edges and tails do not depend on x; the probabilities of the bins do.

    Parameters
    ----------
    n_bins : int, default=None
        How many bins, tails included, from 3 to 1000; fewer where y has fewer values. None takes
        more for more rows, 2 n^(1/3), between 8 and 64.
    edges : tuple of tuples of float, one for each output, default=None
        In units of the standardised y. These and `tails` are settled by `fitted`.
    tails : tuple of pairs of float, one for each output, default=None
        Mean distances from the first and the last edge, in units of the standardised y.

    Raises
    ------
    ValueError
        If these are no such numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix import Histogram, ProbMixupRegressor
    >>> X = np.random.default_rng(0).uniform(-1, 1, (200, 1))
    >>> y = np.where(np.arange(200) % 2, 1 + X[:, 0], -1)
    >>> est = ProbMixupRegressor(method="probmix", family=Histogram(n_bins=12), random_state=0)
    >>> est = est.set_params(n_members=1, max_epochs=20).fit(X, y)
    >>> low, middle, high = est.predict_proba([[0.0]]).pdf([[-1.0], [0.0], [1.0]]).ravel()
    >>> bool(low > middle < high)
    True
    """

    def __init__(
        self, n_bins: int | None = None, edges: Rows | None = None, tails: Rows | None = None
    ):
        if n_bins is not None and not (isinstance(n_bins, Integral) and 3 <= n_bins <= _MOST_BINS):
            raise ValueError(
                f"n_bins={n_bins!r}; expected None or an integer from 3 to {_MOST_BINS}."
            )
        if (edges is None) != (tails is None):
            raise ValueError("edges and tails go together; found one without the other.")
        self.n_bins = n_bins
        self.edges = self.tails = None
        if edges is not None and tails is not None:
            self.edges, self.tails = _rows("edges", edges), _rows("tails", tails)
            self._check()

    def _check(self):
        n_bins = self.n_params
        if n_bins > _MOST_BINS:
            raise ValueError(f"edges has {n_bins - 1} for an output; expected fewer than 1000.")
        is_there = np.isfinite(self.edges_)
        if max(abs(self.edges_[is_there]).max(initial=0), self.tails_.max()) > _FARTHEST:
            raise ValueError(f"edges and tails of standardised y; expected at most {_FARTHEST:g}.")
        # Components check what is left.
        HistogramComponents(self.edges_, self.tails_, np.eye(n_bins)[[[[0] * len(self.edges_)]]])

    edges_ = property(lambda self: self._settled(self.edges))
    tails_ = property(lambda self: self._settled(self.tails))
    unit_ = property(lambda self: np.ones(len(self.edges_)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_bins={self.n_bins!r})"

    def fitted(self, y: Tensor, weight: Tensor) -> Self:
        shift, scale = self.scaling(y, weight)
        n_bins = self.n_bins or int(min(max(2 * len(y) ** (1 / 3), 8), 64))
        share = (weight / weight.sum()).numpy()
        columns = self.standardise(y, shift, scale).T.numpy()
        edges = [_edges(column, share, n_bins) for column in columns]
        tails = [_tails(*each, share) for each in zip(columns, edges, strict=True)]
        return type(self)(self.n_bins, _padded(edges), tuple(tails))

    def unfitted(self) -> Self:
        return type(self)(self.n_bins)

    def scaling(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return Normal().scaling(y, weight)

    def standardise(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return Normal().standardise(y, shift, scale)

    @property
    def centres_(self) -> NDArray[np.float64]:
        return _shapes(self.edges, self.tails)[0]

    @property
    def log_sizes_(self) -> NDArray[np.float64]:
        """Logarithms of the widths of bins, and of the mean distances of tails."""
        return _shapes(self.edges, self.tails)[1]

    ends_ = property(lambda self: np.stack(_ends(self.edges_)))

    def _log_shape(self, y, code):
        first, last = constant(self, "ends_", y.device).unbind(0)
        below, above = constant(self, "tails_", y.device).unbind(1)
        depth = (first - y).clamp(min=0) / below + (y - last).clamp(min=0) / above
        return -self._at("log_sizes_", code) - depth

    def components(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Components:
        start, unit = (np.reshape(np.asarray(v, dtype=float), (-1, 1)) for v in (shift, scale))
        edges = _apart(start + unit * self.edges_)
        return HistogramComponents(edges, unit * self.tails_, self._masses(eta))


class Lattice(_Bins):
    """Mass on each of the values that y took in `fit`, T(y) = one-hot(y); y one of these values.

    Use it for rounded responses, ratings and counts of few values. The logits are natural
    parameters. A mixed response counts as the value that is nearest.

    Parameters
    ----------
    values : tuple of tuples of float, one for each output, default=None
        Increasing. These and `unit` are settled by `fitted`.
    unit : tuple of float, one for each output, default=None
        Standard deviation of y, the unit of the kernel.

    Raises
    ------
    ValueError
        If these are no such numbers, or `fitted` finds more than 500 values.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix import ProbMixupRegressor
    >>> X = np.random.default_rng(0).uniform(1, 5, (200, 1))
    >>> est = ProbMixupRegressor(method="probmix", family="lattice", random_state=0)
    >>> est = est.set_params(n_members=1, max_epochs=20).fit(X, np.rint(X[:, 0]))
    >>> est.predict_proba([[2.0], [4.0]]).ppf(0.5)
    array([2., 4.])
    """

    def __init__(self, values: Rows | None = None, unit: tuple[float, ...] | None = None):
        if (values is None) != (unit is None):
            raise ValueError("values and unit go together; found one without the other.")
        self.values = self.unit = None
        if values is not None and unit is not None:
            self.values, (self.unit,) = _rows("values", values), _rows("unit", (unit,))
            self._check()

    def _check(self):
        values, unit = _array(self.values), np.array(self.unit)
        if values.shape[1] > _MOST_VALUES:
            raise ValueError(
                f"y takes {values.shape[1]} different values, too many for a mass on each; "
                f"expected at most {_MOST_VALUES}, or family='histogram'."
            )
        with np.errstate(invalid="ignore"):
            increase = (np.diff(values, axis=1) > 0) | np.isposinf(values[:, 1:])
        if not (np.isfinite(values[:, 0]).all() and increase.all()):
            raise ValueError(f"values must increase from a finite one, got {str(values)[:200]}.")
        if unit.shape != (len(values),) or not (np.isfinite(unit) & (unit > 0)).all():
            raise ValueError(
                f"unit must be a positive number for each of {len(values)} outputs, got "
                f"{str(unit)[:200]}."
            )

    values_ = property(lambda self: self._settled(self.values))
    edges_ = property(lambda self: _edges_between(self.values_))
    unit_ = property(lambda self: self._settled(self.unit and (self.unit,))[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def support(self) -> str:  # type: ignore[override]  # what a class says, said of an instance
        """Support in words."""
        if self.values is None:
            return "the real numbers"
        few = ["{" + ", ".join(f"{v:.10g}" for v in row[:20]) + "}" for row in self.values]
        return f"the values that y took in the first fit, {' and '.join(few)[:1000]}"

    def in_support(self, y: Tensor) -> Tensor:
        return torch.isfinite(y) if self.values is None else self._snap(y) == y

    def fitted(self, y: Tensor, weight: Tensor) -> Self:
        _, scale = Normal().scaling(y, weight)
        values = [np.unique(column) for column in y.T.numpy()]
        return type(self)(_padded(values), tuple(scale.tolist()))

    def unfitted(self) -> Self:
        return type(self)()

    @property
    def centres_(self) -> NDArray[np.float64]:
        return self.values_

    def _snap(self, y):
        return self._at("values_", self._code(y))

    def _log_shape(self, y, code):
        return 0.0

    def components(self, eta: Tensor, shift: Units = 0.0, scale: Units = 1.0) -> Components:
        masses, values = self._masses(eta), self.values_
        union = np.unique(values[np.isfinite(values)])
        if len(values) == 1:
            return LatticeComponents(union, masses)
        spread = np.zeros((*masses.shape[:-1], len(union)))
        for output, own in enumerate(values):
            own = own[np.isfinite(own)]
            spread[..., output, np.searchsorted(union, own)] = masses[..., output, : len(own)]
        return LatticeComponents(union, spread)


FAMILIES |= {"histogram": Histogram, "lattice": Lattice}


def _pick(log_p, code):
    """Entries (..., n_outputs) of log_p (..., n_outputs, n_params) at codes (..., n_outputs)."""
    if log_p.ndim > 2 and log_p.shape[-3] == 1:
        # All points of a row are looked up in one set of masses, which would be copied for each.
        lead = np.broadcast_shapes(log_p.shape[:-3], code.shape[:-2])
        log_p, code = log_p.squeeze(-3), code.transpose(-1, -2)
        log_p, code = (each.expand(*lead, *each.shape[-2:]) for each in (log_p, code))
        return log_p.gather(-1, code).transpose(-1, -2)
    shape = np.broadcast_shapes(log_p.shape[:-1], code.shape)
    log_p, code = log_p.expand(*shape, -1), code.expand(shape)
    return log_p.gather(-1, code.unsqueeze(-1)).squeeze(-1)


def _rows(name: str, rows: Any) -> Rows:
    """Check a tuple of rows of numbers, of equal lengths, which may come from a file."""
    try:
        array = np.array(rows, dtype=float)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.ndim != 2 or array.size == 0 or np.isnan(array).any():
        raise ValueError(
            f"{name}={str(rows)[:200]}; expected as many numbers for each output, and some."
        )
    return tuple(tuple(row) for row in array.tolist())


@lru_cache(maxsize=256)
def _array(rows: Rows) -> NDArray[np.float64]:
    return np.array(rows, dtype=float)


def _padded(rows):
    longest = max(map(len, rows))
    return tuple((*row.tolist(), *[math.inf] * (longest - len(row))) for row in rows)


def _midpoints(values):
    """Half way between neighbours on the last axis, without overflow."""
    return values[..., :-1] / 2 + values[..., 1:] / 2


def _edges_between(values):
    """Half way between neighbours, and below the upper one: an edge belongs to the bin below it."""
    lower, upper, middle = values[..., :-1], values[..., 1:], _midpoints(values)
    # Of neighbouring floats half way may be rounded to the upper one.
    return np.where(np.isfinite(upper) & (middle >= upper), lower, middle)


def _apart(edges):
    """Move edges up that fell on one float, far away from zero."""
    is_stuck = (edges[:, 1:] <= edges[:, :-1]) & np.isfinite(edges[:, 1:])
    for output, column in np.argwhere(is_stuck):
        least = np.nextafter(edges[output, column], np.inf)
        edges[output, column + 1] = max(edges[output, column + 1], least)
    return edges


def _ends(edges):
    """First and last finite edge of each output."""
    return edges[:, 0], np.where(np.isfinite(edges), edges, -np.inf).max(axis=1)


@lru_cache(maxsize=256)
def _shapes(edges: Rows, tails: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of the bins of each output, and the logarithms of their widths or mean distances."""
    edge, tail = _array(edges), _array(tails)
    first, last = _ends(edge)
    upper = (last + tail[:, 1])[:, None]
    with np.errstate(invalid="ignore"):
        width = np.diff(edge, axis=1)
        is_inside = np.isfinite(edge[:, 1:])
        inside = np.where(is_inside, _midpoints(edge), upper)
        sizes = np.where(is_inside, width, tail[:, 1:])
    means = np.column_stack([first - tail[:, 0], inside, upper])
    return means, np.log(np.column_stack([tail[:, 0], sizes, tail[:, 1]]))


def _edges(y, share, n_bins):
    """Edges half way between neighbouring values, at most so many bins."""
    values, place = np.unique(y, return_inverse=True)
    if len(values) == 1:
        return values[0] + _AROUND_CONSTANT * np.array([-1.0, 1.0])
    middle = _midpoints(values)
    if len(values) > n_bins:
        mass = np.bincount(place, share)
        (heavy,) = np.nonzero(mass > 2 / n_bins)
        own = np.r_[heavy[heavy > 0] - 1, heavy[heavy < len(middle)]]
        near = _near_quantiles(values, mass, n_bins - 1 - len(np.unique(own)))
        middle = middle[np.union1d(own, near)]
    kept = [middle[0]]
    for edge in middle[1:]:
        if edge - kept[-1] >= _NARROWEST:
            kept.append(edge)
    return np.array(kept)


def _near_quantiles(values, mass, n_edges):
    """Numbers of the gaps between values that divide them best into equal parts.

    Bins of equal mass would be wide in the tails, and those of equal width empty there. The
    integral of the root of the density is between the two.
    """
    gaps = np.diff(values)
    width = np.r_[gaps[0], _midpoints(gaps), gaps[-1]]
    below = np.cumsum(np.sqrt(mass * width))
    levels = np.arange(1, n_edges + 1) / (n_edges + 1) * below[-1]
    after = np.searchsorted(below[:-1], levels).clip(1, len(gaps) - 1)
    return after - (levels - below[after - 1] < below[after] - levels)


def _tails(y, edges, share):
    """Mean distances of what lies beyond the first and the last edge."""
    pairs = []
    for distance in (edges[0] - y, y - edges[-1]):
        is_beyond = distance >= 0
        total = share[is_beyond].sum()
        mean = share[is_beyond] @ distance[is_beyond] / total if total > 0 else _AROUND_CONSTANT
        pairs.append(max(float(mean), _NARROWEST))
    return tuple(pairs)
