"""Predictive distributions as distributions of skpro; needs skpro."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from skpro.distributions.base import BaseDistribution

__all__ = ["SkproDistribution"]

# Probability below the value that stands for one below all draws.
_LOWEST = 1e-12


class SkproDistribution(BaseDistribution):
    """A predictive distribution as one of skpro; made by `PredictiveDistribution.to_skpro`.

    All methods are the predictive distribution's, exact also where skpro samples by default, so
    that skpro's `CRPS` is :func:`sklearn_probmix.metrics.crps`. Draws come from a generator of
    their own: for those of a seed, ask the predictive distribution.

    Parameters
    ----------
    distribution : PredictiveDistribution
    index, columns : pandas.Index or array-like, default=None
        Labels of its rows and outputs; without both it is the scalar distribution of one row.

    Examples
    --------
    >>> from sklearn_probmix import PredictiveDistribution
    >>> dist = PredictiveDistribution("norm", {"loc": [[0.0], [2.0]], "scale": [[1.0], [1.0]]})
    >>> dist.to_skpro(columns=["price"]).quantile([0.5])  # doctest: +NORMALIZE_WHITESPACE
      price
        0.5
    0   0.0
    1   2.0
    """

    _tags = {
        "capabilities:exact": [
            *("mean", "var", "pdf", "log_pdf", "pmf", "log_pmf", "cdf", "surv", "ppf", "energy")
        ],
        "capabilities:approx": ["pdfnorm"],
        "distr:measuretype": "mixed",
        "distr:paramtype": "nonparametric",
    }

    def __init__(self, distribution: Any, index: Any = None, columns: Any = None):
        self.distribution = distribution
        super().__init__(index=index, columns=columns)
        if distribution.is_discrete:
            self.set_tags(**{"distr:measuretype": "discrete"})
        elif not any(block.has_atoms for block in distribution.blocks):
            self.set_tags(**{"distr:measuretype": "continuous"})

    def _own(self, method, *args):
        """Call a method of the distribution with arguments and a result of skpro's shape."""
        shaped = [np.reshape(arg, self.distribution.shape) for arg in args]
        return np.reshape(getattr(self.distribution, method)(*shaped), self.shape)

    def _iloc(self, rowidx=None, colidx=None):
        rows, columns = (
            np.arange(n) if chosen is None else np.atleast_1d(np.arange(n)[chosen])
            for n, chosen in zip(self.shape, (rowidx, colidx), strict=True)
        )
        distribution = self.distribution[rows]
        if distribution.ndim == 2:
            distribution = distribution.marginal(columns)
        return type(self)(distribution, self.index[rows], self.columns[columns])

    def _iat(self, rowidx=None, colidx=None):
        return type(self)(self._iloc([rowidx], [colidx]).distribution)

    def _mean(self):
        return self._own("mean")

    def _var(self):
        return self._own("var")

    def _pdf(self, x):
        return self._own("pdf", self._beside_atoms(x))

    def _log_pdf(self, x):
        return self._own("logpdf", self._beside_atoms(x))

    def _beside_atoms(self, x):
        """Step aside where the predictive distribution has a mass: skpro's density has none."""
        return np.where(self._pmf(x) > 0, np.nextafter(x, np.inf), x)

    def _pmf(self, x):
        return self._own("pmf", x)

    def _log_pmf(self, x):
        if self.distribution.is_discrete:
            return self._own("logpdf", x)
        with np.errstate(divide="ignore"):
            return np.log(self._pmf(x))

    def _cdf(self, x):
        return self._own("cdf", x)

    def _surv(self, x):
        return self._own("sf", x)

    def _ppf(self, p):
        return self._own("_quantiles", p)

    def _energy_x(self, x):
        return self._sums(self._own("crps", x) + self._half_distance())

    def _energy_self(self):
        return self._sums(2 * self._half_distance())

    def _half_distance(self):
        """Half of the mean distance of two draws, by the CRPS of a value below all draws.

        There E|X - y| = E X - y, and the CRPS is less than that by this half.
        """
        low, _ = self.distribution.support()
        lowest = self.distribution.ppf(_LOWEST)
        y = np.where(np.isfinite(low), low, lowest).reshape(self.shape)
        return self._mean() - y - self._own("crps", y)

    def _sums(self, energy):
        return energy.sum(axis=1, keepdims=True) if self.ndim else energy

    def _sample(self, n_samples=None):
        draws = np.reshape(self.distribution.rvs(n_samples), (-1, *self.shape))
        if not self.ndim:
            return draws.item() if n_samples is None else pd.DataFrame(draws)
        frames = [pd.DataFrame(draw, index=self.index, columns=self.columns) for draw in draws]
        return frames[0] if n_samples is None else pd.concat(frames, keys=range(n_samples))
