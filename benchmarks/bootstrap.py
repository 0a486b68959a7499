"""Bootstrap intervals of statistics of paired samples, the same bits each time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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


def estimated(
    average: Callable[..., np.ndarray],
    *samples: np.ndarray,
    statistic: Callable[..., np.ndarray] = lambda average: average,
) -> Estimate:
    """Estimate a statistic of the averages of samples that were drawn together.

    Parameters
    ----------
    average : {np.mean, np.median}
        Of a sample.
    *samples : ndarray of shape (n,)
        Elements at the same place, as the scores of two methods on the same rows, are drawn
        together.
    statistic : callable, default=the average itself
        Maps the averages of all samples to a number.

    Returns
    -------
    Estimate
        With an interval of 95 %.

    Examples
    --------
    >>> import numpy as np
    >>> from benchmarks.bootstrap import estimated
    >>> samples = np.array([2.0, 6.0]), np.array([1.0, 3.0])
    >>> twice = estimated(np.mean, *samples, statistic=np.divide)
    >>> f"{twice:.1f}", twice.is_above(1), twice.is_above(2)
    ('2.0 (2.0 to 2.0)', True, None)
    """
    value = statistic(*(average(sample) for sample in samples))
    resampled = statistic(*(_resampled(average, tuple(sample)) for sample in samples))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


@cache
def _resampled(average, sample):
    """Averages of resamples, kept: a sample has a part in several statistics."""
    n = len(sample)
    drawn = np.random.default_rng(0).integers(n, size=(N_RESAMPLES, n))
    return average(np.array(sample)[drawn], axis=-1)
