"""Scores of densities: those of the benchmark, on its grid, and those of whole distributions."""

from __future__ import annotations

import numpy as np
from scipy import stats

from benchmarks.scores import LEVEL
from sklearn_probmix.metrics import crps, nll, pit_values

__all__ = ["cde_loss", "densities_on", "grid_of", "grid_scores", "whole_scores"]

N_POINTS, MARGIN, FLOOR = 200, 0.05, 1e-10
N_LEVELS = 400


def grid_of(y):
    """Return the points at which the benchmark wants densities, for training responses y."""
    margin = MARGIN * np.ptp(y)
    return np.linspace(y.min() - margin, y.max() + margin, N_POINTS)


def densities_on(grid, dist):
    """Average density of the cell around each point, which an atom raises by its mass / step.

    Parameters
    ----------
    grid : ndarray of shape (n_points,)
        Equidistant.
    dist : PredictiveDistribution of shape (n,)

    Returns
    -------
    ndarray of shape (n, n_points)
        What lies beyond the grid is left out, and the rest brought to one.
    """
    step = grid[1] - grid[0]
    edges = np.append(grid - step / 2, grid[-1] + step / 2)
    masses = np.diff(dist.cdf(np.tile(edges[:, None], len(dist))), axis=0).T
    total = masses.sum(axis=1, keepdims=True)
    return masses / np.where(total > 0, total, 1) / step


def grid_scores(y, densities, grid):
    """Score densities as the benchmark does, by what it sees at the points of its grid.

    Parameters
    ----------
    y : ndarray of shape (n,)
    densities : ndarray of shape (n, n_points)
    grid : ndarray of shape (n_points,)

    Returns
    -------
    dict of str to float
    """
    step = grid[1] - grid[0]
    at_y = _interpolated(y, grid, densities)
    cdf = densities.cumsum(axis=1) * step
    error = np.minimum(cdf, 1) - (grid >= y[:, None])
    low, high = (
        np.array([np.interp(level, row, grid) for row in cdf])
        for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    )
    pit = np.clip(_interpolated(y, grid, cdf), 0, 1)
    return {
        "cde_loss": float(np.mean(np.trapezoid(densities**2, grid, axis=1) - 2 * at_y)),
        "log_lik": float(np.log(np.maximum(at_y, FLOOR)).mean()),
        "crps": float(np.trapezoid(error**2, grid, axis=1).mean()),
        "pit_ks": float(stats.kstest(pit, "uniform").statistic),
        "coverage": float(np.mean((low <= y) & (y <= high))),
    }


def _interpolated(y, grid, rows):
    return np.array([np.interp(at, grid, row) for at, row in zip(y, rows, strict=True)])


def cde_loss(y, dist):
    r"""Loss of a density by its squared distance from the true one, up to a constant.

    Parameters
    ----------
    y : ndarray of shape (n,)
    dist : PredictiveDistribution of shape (n,)
        Without atoms.

    Returns
    -------
    float
        In 1 / units of y, less is better: the mean of :math:`\int p(t)^2 dt - 2 p(y)`.
    """
    # The integral is the expectation of p(Y) for Y of density p, and its quantiles stand for Y.
    levels = (np.arange(N_LEVELS) + 0.5) / N_LEVELS
    return float(dist.pdf(dist.ppf(levels)).mean() - 2 * dist.pdf(y).mean())


def whole_scores(y, dist):
    """Score distributions without a grid; masses have a logarithm of their own and no CDE loss.

    Parameters
    ----------
    y : ndarray of shape (n,)
    dist : PredictiveDistribution of shape (n,)

    Returns
    -------
    dict of str to float
    """
    # Of counts and other atoms the transform is spread over the jump, so that intervals may cut it.
    pit = pit_values(y, dist, random_state=0)
    has_atoms = bool((dist.pmf(y) > 0).any())
    return {
        "cde_loss": np.nan if has_atoms else cde_loss(y, dist),
        "log_lik": -nll(y, dist),
        "crps": crps(y, dist),
        "pit_ks": float(stats.kstest(pit, "uniform").statistic),
        "coverage": float(np.mean(abs(pit - 0.5) <= LEVEL / 2)),
        "has_atoms": float(has_atoms),
    }
