"""Bootstrap intervals of statistics of paired samples, the same bits each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Estimate", "estimated"]

N_RESAMPLES = 10_000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A statistic, and the percentile interval of the bootstrap around it."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"

    def is_above(self, bound: float) -> bool | None:
        """Say whether the statistic lies above a bound; None where the interval holds it."""
        if self.low <= bound <= self.high:
            return None
        return self.low > bound


def estimated(statistic: Callable[..., np.ndarray], *samples: np.ndarray) -> Estimate:
    """Estimate a statistic of samples that were drawn together.

    Parameters
    ----------
    statistic : callable
        Maps samples to a number along their last axis.
    *samples : ndarray of shape (n,)
        Elements at the same place, as the scores of two methods on the same rows, are drawn
        together.

    Returns
    -------
    Estimate
        With an interval of 95 %.

    Examples
    --------
    >>> import numpy as np
    >>> from benchmarks.bootstrap import estimated
    >>> samples = np.array([2.0, 6.0]), np.array([1.0, 3.0])
    >>> twice = estimated(lambda a, b: (a / b).mean(axis=-1), *samples)
    >>> f"{twice:.1f}", twice.is_above(1), twice.is_above(2)
    ('2.0 (2.0 to 2.0)', True, None)
    """
    n = len(samples[0])
    drawn = np.random.default_rng(0).integers(n, size=(N_RESAMPLES, n))
    resampled = statistic(*(sample[drawn] for sample in samples))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(statistic(*samples)), float(low), float(high))
