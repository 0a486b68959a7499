"""What regressors of any library say of y, and how it becomes a predictive distribution.

A *forecast* is one of three things: a `PredictiveDistribution`, which is whole; `Quantiles`, which
lack what is between and beyond them; or points, an array of shape (n,), which lack all but the
middle. `forecast` asks a fitted regressor for the best of them that it has, by the adapter that
`ADAPTERS` names for its class; a `completion`, learnt on rows that the regressor was not fitted to,
adds what is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from sklearn_probmix.components import Array
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.piecewise import (
    PiecewiseComponents,
    piecewise_from_quantiles,
    spread_ties,
)

__all__ = [
    "ADAPTERS",
    "Cells",
    "Forecast",
    "Quantiles",
    "complete",
    "concatenate",
    "forecast",
    "log_scores",
    "normals",
]

# Centres of a hundred equal masses.
_LEVELS = (np.arange(100) + 0.5) / 100
# Residuals that stand for the distribution of all: the power of 2 up to the root of their number,
# so that folds of about one size have as many, and at most so many.
_MOST_RESIDUALS = 64
# Standard deviations, relative to the mean and by themselves, below which there is no difference.
_LEAST_RELATIVE, _LEAST_SCALE = 1e-9, 1e-150
# Nats that a density may have where it is infinite.
_MOST_NATS = 1e3


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of each row, at levels that part the probability evenly.

    Parameters
    ----------
    levels : ndarray of shape (m,)
        Increasing, in (0, 1).
    values : ndarray of shape (n, m)
        In units of y; they need not increase.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.forecasts import Quantiles
    >>> len(Quantiles(np.array([0.25, 0.75]), np.zeros((5, 2)))[:3])
    3
    """

    levels: Array
    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Quantiles:
        return Quantiles(self.levels, self.values[rows])


Forecast = PredictiveDistribution | Quantiles | Array
Adapter = Callable[[Any, Any], Forecast]


def forecast(estimator: Any, X: Any) -> Forecast:
    """Ask a fitted regressor for all that it has to say of y.

    The adapter is that of the first class, along the estimator's bases, of which `ADAPTERS` has the
    package and the name. Others are asked for what their methods promise: `predict_proba`, or
    `predict` with ``return_std=True``, or with ``quantiles=``, or by itself.

    Parameters
    ----------
    estimator : regressor
    X : array-like of n rows

    Returns
    -------
    PredictiveDistribution, Quantiles or ndarray, of n rows

    Raises
    ------
    TypeError
        If `predict_proba` returns anything else.
    ValueError
        If predictions are not finite, or are not one for each row.

    Examples
    --------
    A model of one's own, whose trees are to be a mixture:

    >>> import numpy as np
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> from sklearn_probmix import PredictiveDistribution
    >>> from sklearn_probmix.forecasts import ADAPTERS, forecast
    >>> def trees(forest, X):
    ...     loc = np.stack([tree.predict(X) for tree in forest.estimators_], axis=1)
    ...     return PredictiveDistribution("norm", {"loc": loc, "scale": np.full_like(loc, 0.1)})
    >>> ADAPTERS["sklearn.RandomForestRegressor"] = trees
    >>> X = np.linspace(0, 1, 50)[:, None]
    >>> forest = RandomForestRegressor(n_estimators=10, random_state=0).fit(X, X[:, 0])
    >>> forecast(forest, X)
    PredictiveDistribution('norm', shape=(50,), n_components=10)
    >>> del ADAPTERS["sklearn.RandomForestRegressor"]
    >>> forecast(forest, X).shape
    (50,)
    """
    found = _adapter(estimator)(estimator, X)
    if np.ndim(found.values if isinstance(found, Quantiles) else found) == 0:
        raise ValueError("its predictions are a single one; expected one for each row.")
    if len(found) != _num_samples(X):
        raise ValueError(
            f"its predictions are {len(found)}; expected one for each of the "
            f"{_num_samples(X)} rows."
        )
    if isinstance(found, PredictiveDistribution):
        if found.ndim != 1:
            raise ValueError(f"its distributions have the shape {found.shape}; expected (n,).")
        return found
    values = found.values if isinstance(found, Quantiles) else np.asarray(found, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("its predictions are not all finite.")
    if isinstance(found, Quantiles):
        return found
    if values.size != len(values):
        raise ValueError(f"its predictions have the shape {values.shape}; expected (n,).")
    return values.reshape(-1)


def _adapter(estimator):
    for cls in type(estimator).__mro__:
        name = f"{cls.__module__.partition('.')[0]}.{cls.__name__}"
        if name in ADAPTERS:
            return ADAPTERS[name]
    if hasattr(estimator, "predict_proba"):
        return _of_predict_proba
    parameters = inspect.signature(estimator.predict).parameters
    for parameter, adapter in _BY_PARAMETER.items():
        if parameter in parameters:
            return adapter
    return lambda estimator, X: estimator.predict(X)


def normals(mean: ArrayLike, sd: ArrayLike) -> PredictiveDistribution:
    """Return a Normal for each row; one of no width is made as narrow as it can be.

    Parameters
    ----------
    mean, sd : array-like of shape (n,)
    """
    mean, sd = np.reshape(mean, (-1, 1)).astype(float), np.reshape(sd, (-1, 1)).astype(float)
    sd = np.maximum(sd, np.maximum(_LEAST_RELATIVE * abs(mean), _LEAST_SCALE))
    return PredictiveDistribution("norm", {"loc": mean, "scale": sd})


def _of_predict_proba(estimator, X):
    dist = estimator.predict_proba(X)
    if not isinstance(dist, PredictiveDistribution):
        raise TypeError(
            f"its predict_proba returns a {type(dist).__name__}; expected a "
            "PredictiveDistribution, or an adapter in sklearn_probmix.forecasts.ADAPTERS."
        )
    return dist


def _of_return_std(estimator, X):
    return normals(*estimator.predict(X, return_std=True))


def _of_quantiles(estimator, X):
    def ask(rows):
        found = estimator.predict(rows, quantiles=list(_LEVELS))
        return np.atleast_2d(np.asarray(found, dtype=float))

    # Most have quantiles in columns; where there are as many rows a single one tells.
    values = ask(X)
    is_square = values.shape == (len(_LEVELS), len(_LEVELS))
    shape = ask(_safe_indexing(X, [0])).shape if is_square else values.shape
    return Quantiles(_LEVELS, values if shape[1] == len(_LEVELS) else values.T)


def _of_pipeline(pipeline, X):
    for _, step in pipeline.steps[:-1]:
        X = X if step in (None, "passthrough") else step.transform(X)
    return forecast(pipeline.steps[-1][1], X)


def _of_search(search, X):
    return forecast(search.best_estimator_, X)


def _of_ngboost(estimator, X):
    best = estimator.best_val_loss_itr
    # Without a number of trees all speak, those after the best too; it counts from 0.
    dist = estimator.pred_dist(X, max_iter=None if best is None else best + 1)
    frozen: Any = getattr(dist, "dist", None)
    if not hasattr(frozen, "kwds"):
        raise TypeError(
            f"its {type(dist).__name__} is no univariate distribution of scipy.stats; expected one "
            "such as Normal, LogNormal or Poisson."
        )
    family = frozen.dist
    names = [*(family.shapes.split(", ") if family.shapes else ()), "loc", "scale"]
    params = dict(zip(names, frozen.args, strict=False)) | frozen.kwds
    columns = np.broadcast_arrays(*(np.reshape(value, (-1, 1)) for value in params.values()))
    return PredictiveDistribution(family.name, dict(zip(params, columns, strict=True)))


def _of_catboost(estimator, X):
    if estimator.get_params().get("loss_function") != "RMSEWithUncertainty":
        return estimator.predict(X)
    mean, variance = estimator.predict(X, prediction_type="RMSEWithUncertainty").T
    return normals(mean, np.sqrt(variance))


def _of_skpro(estimator, X):
    dist = estimator.predict_proba(X)
    if type(dist).__name__ == "Normal":
        return normals(*(np.broadcast_to(value, dist.shape) for value in (dist.mu, dist.sigma)))
    values = [np.reshape(dist.ppf(level), -1) for level in _LEVELS]
    return Quantiles(_LEVELS, np.stack(values, axis=1).astype(float))


def _of_tabpfn(estimator, X):
    full = estimator.predict(X, output_type="full")
    edges, logits = (_to_numpy(part) for part in (full["criterion"].borders, full["logits"]))
    edges, n_bins = edges.astype(float), logits.shape[1]
    logits = logits.astype(float) - logits.max(axis=1, keepdims=True)
    masses = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    levels = np.concatenate([np.zeros((len(masses), 1)), np.cumsum(masses, axis=1)], axis=1)
    levels = np.minimum(levels / levels[:, -1:], 1.0)
    # Of the outermost of several bins half lies within their width, and the rest beyond it.
    tails = np.diff(edges)[[0, -1]] / np.log(2)
    inner = slice(1, -1) if n_bins > 2 else slice(None)
    knots, levels = np.broadcast_arrays(edges[inner], levels[:, None, inner])
    return PredictiveDistribution(
        PiecewiseComponents(knots, levels, np.broadcast_to(tails, (len(masses), 1, 2)))
    )


def _of_tabicl(estimator, X):
    values = estimator.predict(X, output_type="quantiles", alphas=list(_LEVELS))
    return Quantiles(_LEVELS, np.asarray(values, dtype=float))


def _to_numpy(values):
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


#: How to ask an estimator, by "package.Class": ``adapter(estimator, X)`` returns a forecast.
ADAPTERS: dict[str, Adapter] = {
    "sklearn.Pipeline": _of_pipeline,
    "sklearn.BaseSearchCV": _of_search,
    "ngboost.NGBoost": _of_ngboost,
    "catboost.CatBoostRegressor": _of_catboost,
    "skpro.BaseProbaRegressor": _of_skpro,
    "tabpfn.TabPFNRegressor": _of_tabpfn,
    "tabicl.TabICLRegressor": _of_tabicl,
}
_BY_PARAMETER: dict[str, Adapter] = {"return_std": _of_return_std, "quantiles": _of_quantiles}


class Cells(NamedTuple):
    """How finely y is known.

    Parameters
    ----------
    step : float
        To which y was rounded, in its units; 0 for none.
    resolution : float
        Positive: the step, or what stands for one.
    """

    step: float
    resolution: float

    @classmethod
    def of(cls, y: Array, step: float) -> Self:
        """Find the resolution of responses: their step or their median gap.

        Parameters
        ----------
        y : ndarray of shape (n,)
        step : float
            To which they were rounded, 0 for none.
        """
        gaps = np.diff(np.unique(y))
        least = 1e-6 * (abs(y).max() or 1.0)
        return cls(step, step or (float(np.median(gaps)) if len(gaps) else float(least)))


def log_scores(dist: PredictiveDistribution, y: Array, width: float) -> Array:
    """Logarithm of the probability of the cells of y or, where they have no width, of the density.

    Parameters
    ----------
    dist : PredictiveDistribution of shape (n,)
    y : ndarray of shape (n,)
    width : float
        Of the cells, in units of y; 0 for densities.

    Returns
    -------
    ndarray of shape (n,), in nats
    """
    scores = dist.log_probability(y, width) if width > 0 else dist.logpdf(y)
    return np.minimum(scores, _MOST_NATS)


@dataclass(frozen=True)
class _Whole:
    """Nothing is missing."""

    @classmethod
    def fit(cls, found, y, weight, cells):
        return cls()

    def __call__(self, found):
        return found


@dataclass(frozen=True)
class _FromQuantiles:
    """Even between quantiles; those that are equal are spread over a cell of this width."""

    width: float
    resolution: float

    @classmethod
    def fit(cls, found, y, weight, cells):
        """Choose between the step of y and what the next quantiles leave, by the log score."""
        widths = [np.inf, cells.step] if cells.step > 0 else [np.inf]
        choices = [cls(width, cells.resolution) for width in widths]
        scores = [
            np.average(log_scores(choice(found), y, cells.step), weights=weight)
            for choice in choices
        ]
        return choices[int(np.argmax(scores))]

    def __call__(self, found):
        values = spread_ties(found.values, self.width, self.resolution)
        return PredictiveDistribution(piecewise_from_quantiles(found.levels, values))


@dataclass(frozen=True)
class _FromPoints:
    """Points and the quantiles of their residuals."""

    residuals: Quantiles
    quantiles: _FromQuantiles

    @classmethod
    def fit(cls, found, y, weight, cells):
        n_levels = int(np.clip(2 ** np.floor(np.log2(len(y)) / 2), 2, _MOST_RESIDUALS))
        levels = (np.arange(n_levels) + 0.5) / n_levels
        order = np.argsort(y - found)
        shares = np.cumsum(weight[order]) - weight[order] / 2
        values = np.interp(levels, shares / weight.sum(), (y - found)[order])
        residuals = Quantiles(levels, values)
        own = _FromQuantiles.fit(_around(found, residuals), y, weight, cells)
        return cls(residuals, own)

    def __call__(self, found):
        return self.quantiles(_around(found, self.residuals))


def _around(points, residuals):
    return Quantiles(residuals.levels, points[:, None] + residuals.values)


Completion = Callable[[Forecast], PredictiveDistribution]
_COMPLETIONS: dict[type, Any] = {
    PredictiveDistribution: _Whole,
    Quantiles: _FromQuantiles,
    np.ndarray: _FromPoints,
}


def complete(
    found: Any, y: Array, weight: Array, fold: Array, cells: Cells
) -> tuple[PredictiveDistribution, Completion]:
    """Make distributions of out-of-fold forecasts, and learn how to do so for other rows.

    Parameters
    ----------
    found : forecast of n rows
        Of an estimator that was not fitted to them.
    y, weight : ndarray of shape (n,)
    fold : ndarray of int of shape (n,)
        What is missing in the rows of a fold is learnt on the others.
    cells : Cells

    Returns
    -------
    dist : PredictiveDistribution of shape (n,)
    completion : callable
        Maps a forecast to a distribution.
    """
    kind = _COMPLETIONS[type(found)]
    completion = kind.fit(found, y, weight, cells)
    if kind is _Whole:
        return found, completion
    order, parts = [], []
    for held_out in np.unique(fold):
        own, others = np.flatnonzero(fold == held_out), np.flatnonzero(fold != held_out)
        order.append(own)
        # A single fold has no others.
        learnt = others if len(others) else own
        of_others = kind.fit(found[learnt], y[learnt], weight[learnt], cells)
        parts.append(of_others(found[own]))
    return concatenate(parts)[np.argsort(np.concatenate(order))], completion


def concatenate(parts: Sequence[Any]) -> Any:
    """Join the rows of forecasts of one kind.

    Distributions may differ in their families and numbers of components: each row then has the
    components of all, most of them of weight 0.

    Parameters
    ----------
    parts : sequence of forecasts

    Raises
    ------
    TypeError
        If they are of several kinds.

    Examples
    --------
    >>> from sklearn_probmix import PredictiveDistribution
    >>> from sklearn_probmix.forecasts import concatenate
    >>> normal = PredictiveDistribution("norm", {"loc": [[1.0]], "scale": [[1.0]]})
    >>> counts = PredictiveDistribution("poisson", {"mu": [[2.0, 4.0]]})
    >>> concatenate([normal, counts]).mean()
    array([1., 3.])
    """
    first = parts[0]
    if len({type(part) for part in parts}) > 1:
        raise TypeError(f"forecasts are of the types {[type(part).__name__ for part in parts]}.")
    if isinstance(first, PredictiveDistribution):
        return PredictiveDistribution.concatenate(_alike(parts))
    if isinstance(first, Quantiles):
        return Quantiles(first.levels, np.concatenate([part.values for part in parts]))
    return np.concatenate(parts)


def _alike(distributions):
    """Give distributions the components of all, of weight 0 where they are not their own."""
    layouts = [[(block.alike(), block.shape[1]) for block in dist.blocks] for dist in distributions]
    if all(layout == layouts[0] for layout in layouts):
        return distributions
    widest: dict[Any, Any] = {}
    for block in (block for dist in distributions for block in dist.blocks):
        known = widest.get(block.alike())
        if known is None or known.shape[1] < block.shape[1]:
            widest[block.alike()] = block
    every = []
    for dist, layout in zip(distributions, layouts, strict=True):
        somewhere = np.zeros(len(dist), dtype=int)
        # The first of each family settles the order.
        others = [block.take(somewhere).pick(0) for block in widest.values()]
        n_firsts = len(others)
        for kind, block in widest.items():
            n_own = sum(n for own, n in layout if own == kind)
            others += [block.take(somewhere).pick(c) for c in range(block.shape[1] - n_own)]
        others = [PredictiveDistribution(block) for block in others]
        parts = [*others[:n_firsts], dist, *others[n_firsts:]]
        every.append(PredictiveDistribution.mix(parts, np.arange(len(parts)) == n_firsts))
    return every
