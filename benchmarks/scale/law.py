"""A law of y given twenty columns, of known density, for tables of any number of rows."""

from __future__ import annotations

import numpy as np
from scipy import stats

__all__ = ["N_FEATURES", "draw"]

N_FEATURES = 20
# Rows that are drawn at once, which bounds the memory.
_CHUNK = 100_000


def _moments(X):
    """Mean and standard deviation of y: waves, products, a step, and noise of its own."""
    X = X.astype(np.float64)
    mean = np.sin(2 * X[:, 0]) * X[:, 1] + np.abs(X[:, 2]) + (X[:, 3] > 0) * X[:, 4]
    mean += 0.5 * X[:, 5] * X[:, 6] + 0.3 * X[:, 7:10].sum(axis=1)
    return mean, 0.25 * np.exp(0.5 * np.tanh(X[:, 10] + X[:, 0]))


def draw(n_rows, seed):
    """Draw a table, ten of whose columns say nothing, and the log-density of each response.

    Parameters
    ----------
    n_rows, seed : int

    Returns
    -------
    X : ndarray of float32 of shape (n_rows, 20)
    y, log_p : ndarray of shape (n_rows,)
    """
    rng = np.random.default_rng(seed)
    X = np.empty((n_rows, N_FEATURES), dtype=np.float32)
    y, log_p = np.empty((2, n_rows))
    for start in range(0, n_rows, _CHUNK):
        rows = slice(start, start + _CHUNK)
        rng.standard_normal(out=X[rows], dtype=np.float32)
        law = stats.norm(*_moments(X[rows]))
        y[rows] = law.rvs(random_state=rng)
        log_p[rows] = law.logpdf(y[rows])
    return X, y, log_p
