"""What contenders forecast in the place of a distribution, and how it is scored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import root_mean_squared_error

from benchmarks.scores import LEVEL
from sklearn_probmix import PredictiveDistribution
from sklearn_probmix.metrics import crps, nll

__all__ = ["IntervalForecast", "QuantileForecast", "normals", "samples_forecast"]


def normals(loc, scale):
    """Return a Normal for each row."""
    params = {"loc": np.asarray(loc)[:, None], "scale": np.asarray(scale)[:, None]}
    return PredictiveDistribution("norm", params)


@dataclass(frozen=True)
class IntervalForecast:
    """Central intervals, and nothing else."""

    low: np.ndarray
    high: np.ndarray

    def __getitem__(self, rows):
        return replace(self, low=self.low[rows], high=self.high[rows])

    def scores(self, y):
        """Score the intervals, in the units of y."""
        width = self.high - self.low
        outside = np.maximum(np.maximum(self.low - y, y - self.high), 0)
        return {
            "coverage": float(np.mean(outside == 0)),
            "width": float(np.mean(width)),
            "interval_score": float(np.mean(width + 2 / (1 - LEVEL) * outside)),
        }


@dataclass(frozen=True)
class QuantileForecast(IntervalForecast):
    """Quantiles in the place of a distribution."""

    levels: np.ndarray
    quantiles: np.ndarray
    """(levels, rows)"""
    smallest_scale: float
    is_sample: bool = False
    """Whether the quantiles are draws in order, which have a kernel density estimate."""

    def __getitem__(self, rows):
        return replace(super().__getitem__(rows), quantiles=self.quantiles[:, rows])

    def scores(self, y):
        """Score the quantiles; see `forecast_scores`.

        The CRPS is that of equal masses at the quantiles: twice the mean pinball loss. Quantiles
        have no density: the NLL is that of the Normal of their mean and standard deviation, the
        latter at least `smallest_scale`, and "crps_normal" the CRPS of the same Normal. Densities
        drawn through the quantiles would be rewarded without bound where y is rounded. The NLL of a
        sample is that of Normal kernels, as wide as Scott's rule makes them from that standard
        deviation: what they win at spikes is bounded too.
        """
        mean, sd = self.quantiles.mean(axis=0), self.quantiles.std(axis=0)
        sd = np.maximum(sd, self.smallest_scale)
        normal = normals(mean, sd)
        error = y - self.quantiles
        q = self.levels[:, None]
        return {
            "nll": nll(y, self._kernels(sd) if self.is_sample else normal),
            "crps": float(2 * np.maximum(q * error, (q - 1) * error).mean()),
            "crps_normal": crps(y, normal),
            "rmse": root_mean_squared_error(y, mean),
            **super().scores(y),
        }

    def _kernels(self, sd):
        n_draws = len(self.levels)
        scale = np.repeat(sd[:, None] * n_draws**-0.2, n_draws, axis=1)
        return PredictiveDistribution("norm", {"loc": self.quantiles.T, "scale": scale})


def samples_forecast(samples, smallest_scale):
    """Make a forecast of draws: in order they are quantiles at levels (k + 1/2) / n.

    Parameters
    ----------
    samples : ndarray of shape (draws, rows)
    smallest_scale : float
        Of the kernels' standard deviation, before Scott's rule.

    Returns
    -------
    QuantileForecast
        Its "crps" is that of the draws' empirical distribution.
    """
    levels = (np.arange(len(samples)) + 0.5) / len(samples)
    interval = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return QuantileForecast(
        *interval, levels, np.sort(samples, axis=0), smallest_scale, is_sample=True
    )
