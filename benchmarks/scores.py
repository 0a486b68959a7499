"""The scores of a predictive distribution that all benchmarks keep."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import root_mean_squared_error

from sklearn_probmix import PredictiveDistribution
from sklearn_probmix.metrics import coverage, crps, nll

__all__ = ["LEVEL", "regression_scores"]

LEVEL = 0.9


def regression_scores(y: np.ndarray, dist: PredictiveDistribution) -> dict[str, float]:
    """Score predictive distributions, in the units of y; coverage is that of 90 % intervals."""
    return {
        "nll": nll(y, dist),
        "rmse": root_mean_squared_error(y, dist.mean()),
        "crps": crps(y, dist),
        "coverage": coverage(y, dist, level=LEVEL),
    }
