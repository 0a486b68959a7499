"""Scores of densities: those of the benchmark, on its grid, and those of whole distributions."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.integrate import cumulative_trapezoid

from benchmarks.scores import LEVEL
from sklearn_probmix.metrics import crps, nll, pit_values

__all__ = ["cde_loss", "densities_on", "grid_of", "grid_scores", "whole_scores"]

N_POINTS, MARGIN, FLOOR = 200, 0.05, 1e-10
N_LEVELS = 200


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
    """
    step = grid[1] - grid[0]
    edges = np.append(grid - step / 2, grid[-1] + step / 2)
    return np.diff(dist.cdf(np.tile(edges[:, None], len(dist))), axis=0).T / step


def grid_scores(y, densities, grid):
    """Score densities as the benchmark does: linear between the points of its grid, 0 beyond it.

    Parameters
    ----------
    y : ndarray of shape (n,)
    densities : ndarray of shape (n, n_points)
        Brought to an integral of one.
    grid : ndarray of shape (n_points,)

    Returns
    -------
    dict of str to float
    """
    integral = np.trapezoid(densities, grid, axis=1)[:, None]
    densities = densities / np.where(integral > 0, integral, 1)
    at_y = np.array([np.interp(v, grid, row, 0, 0) for v, row in zip(y, densities, strict=True)])
    cdf = cumulative_trapezoid(densities, grid, axis=1, initial=0)
    pit = np.array([np.interp(v, grid, row, 0, 1) for v, row in zip(y, cdf, strict=True)])
    low, high = (
        np.array([np.interp(level, row, grid) for row in cdf])
        for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    )
    return {
        "cde_loss": float(np.mean(np.trapezoid(densities**2, grid, axis=1) - 2 * at_y)),
        "log_lik": float(np.log(np.maximum(at_y, FLOOR)).mean()),
        "crps": float(np.trapezoid((cdf - (grid >= y[:, None])) ** 2, grid, axis=1).mean()),
        "pit_ks": float(stats.kstest(pit, "uniform").statistic),
        "coverage": float(np.mean((low <= y) & (y <= high))),
    }


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
