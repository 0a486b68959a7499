"""Quantiles of a mixture: each lies between the lowest and the highest of its components.

Shapes as in `sklearn_probmix.distributions`; q has the shape of y behind any leading axes.
"""

import numpy as np
from scipy import special, stats
from scipy.optimize import elementwise

__all__ = ["extremes", "mixture_quantiles"]

# Poisson means from which scipy's quantiles go wrong, and Cornish-Fisher's expansion to the second
# order is exact to 1e-4 counts.
_LARGE_COUNT = 1e9


def mixture_quantiles(dist, q):
    """Smallest x with cdf(x) >= q, for each row and output of a PredictiveDistribution."""
    quantiles = _component_quantiles(dist, np.expand_dims(q, -dist.ndim))
    if dist.n_components == 1:
        return quantiles.squeeze(-dist.ndim)
    solve = _integer_quantiles if dist.is_discrete else _real_quantiles
    return solve(dist, q, *extremes(dist, quantiles))


def extremes(dist, values):
    """Lowest and highest of the components' values; a component of weight 0 has no say."""
    used = dist.weights.reshape(dist.weights.shape + (1,) * (dist.ndim - 1)) > 0
    low = np.where(used, values, np.inf).min(axis=-dist.ndim)
    return low, np.where(used, values, -np.inf).max(axis=-dist.ndim)


def _component_quantiles(dist, q):
    """Quantiles of every component by scipy, mended where these are wrong or NaN."""
    family = getattr(stats, dist.name)
    with np.errstate(all="ignore"):
        values = family.ppf(q, **dist.params)
        if dist.name == "poisson":
            mu, z = dist.params["mu"], special.ndtri(q)
            expansion = np.ceil(mu + np.sqrt(mu) * z + (z**2 - 1) / 6 - 0.5)
            values = np.where((mu > _LARGE_COUNT) & np.isfinite(z), expansion, values)
        elif np.isnan(values).any():
            # Of a beta or gamma quantile that underflows; it is at that end of the support.
            low, high = family.support(**dist.params)
            values = np.where(np.isnan(values), np.where(q < 0.5, low, high), values)
    return values


def _real_quantiles(dist, q, low, high):
    """Solve cdf(x) = q between bounds."""
    # One cell is one row and output. Solved cells leave the iteration, so it works on flat arrays.
    cells = np.broadcast_to(np.arange(np.prod(dist.shape)).reshape(dist.shape), q.shape)
    components_last = {
        key: np.moveaxis(value, 1, -1).reshape(-1, dist.n_components)
        for key, value in dist.params.items()
    }
    weights = np.repeat(dist.weights, dist.shape[1] if dist.ndim == 2 else 1, axis=0)
    cdf = getattr(stats, dist.name).cdf

    def excess(x, cell, q):
        params = {key: value[cell] for key, value in components_last.items()}
        return (weights[cell] * cdf(x[..., None], **params)).sum(axis=-1) - q

    with np.errstate(all="ignore"):
        result = elementwise.find_root(excess, (low, high), args=(cells, q))
        # Equal components give an empty bracket, and rounding one without a change of sign: the
        # root is then an end of it.
        nearer = np.where(abs(result.f_bracket[0]) <= abs(result.f_bracket[1]), low, high)
    return np.where(result.success, result.x, nearer)


def _integer_quantiles(dist, q, low, high):
    """Bisect for the smallest integer with cdf >= q between bounds."""
    low, high = np.where(q == 1, high, low), np.where(q == 0, low, high)
    while True:
        middle = np.floor((low + high) / 2)
        # Above 2^53 the middle of two neighbours may round to the upper one.
        is_open = (low < high) & (middle < high)
        if not is_open.any():
            return high
        is_enough = dist.cdf(middle) >= q
        above = np.maximum(middle + 1, np.nextafter(middle, np.inf))
        low = np.where(is_open & ~is_enough, above, low)
        high = np.where(is_open & is_enough, middle, high)
