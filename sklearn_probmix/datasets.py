"""Toy problems of the paper with their true densities.

Shapes, everywhere: X is (n_samples, n_features), y is (n_samples,), both float64. The functions
``make_*`` return ``(X, y)`` and take a `random_state`, as those of `sklearn.datasets` do.

References
----------
El-Laham, Dalmasso, Vyetrenko, Potluru, Veloso. *Mixup Regularization: A Probabilistic Perspective*,
UAI 2025.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

__all__ = [
    "cubic_mean",
    "heteroscedastic_cubic_sd",
    "make_cubic",
    "make_heteroscedastic_cubic",
    "make_rings",
]


def cubic_mean(X: ArrayLike) -> NDArray[np.float64]:
    r"""Return the true mean of y in both cubic problems, :math:`E[y|x] = x^3`.

    Parameters
    ----------
    X : array-like of shape (n_samples, 1)
        Any finite value, inside or outside the interval that was sampled.

    Returns
    -------
    mean : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If X is not of shape (n_samples, 1).

    Examples
    --------
    >>> cubic_mean([[-5.0], [3.0]])
    array([-125.,   27.])
    """
    return _only_column(X) ** 3


def heteroscedastic_cubic_sd(X: ArrayLike) -> NDArray[np.float64]:
    r"""Return the true standard deviation of y in `make_heteroscedastic_cubic`.

    :math:`sd[y|x] = x^2 / 2 + 1`, Section 3.2.3 of the paper.

    Parameters
    ----------
    X : array-like of shape (n_samples, 1)
        Any finite value, inside or outside the interval that was sampled.

    Returns
    -------
    sd : ndarray of shape (n_samples,)
        In the units of y.

    Raises
    ------
    ValueError
        If X is not of shape (n_samples, 1).

    Examples
    --------
    >>> heteroscedastic_cubic_sd([[-5.0], [3.0]])
    array([13.5,  5.5])
    """
    return 0.5 * _only_column(X) ** 2 + 1.0


def make_cubic(
    n_samples: int = 100,
    *,
    low: float = -4.0,
    high: float = 4.0,
    noise_sd: float = 3.0,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Draw the paper's toy regression.

    :math:`x \sim U(low, high)`, :math:`y = x^3 + e`, :math:`e \sim N(0, noise\_sd^2)`. The paper
    trains on (-4, 4) and tests on (4, 6), outside the data. The true density is the Normal with
    mean `cubic_mean` and standard deviation `noise_sd`.

    Parameters
    ----------
    n_samples : int, default=100
        At least 1.
    low, high : float, default=-4.0, 4.0
        Finite ends of the interval of x, low < high.
    noise_sd : float, default=3.0
        Standard deviation of the noise, in the units of y, at least 0.
    random_state : int, RandomState instance or None, default=None
        The same int gives the same rows.

    Returns
    -------
    X : ndarray of shape (n_samples, 1)
    y : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If an argument is outside its domain.

    Examples
    --------
    >>> X, y = make_cubic(n_samples=50, random_state=0)
    >>> X.shape, y.shape
    ((50, 1), (50,))
    >>> X_out, y_out = make_cubic(low=4, high=6, random_state=1)
    >>> bool((X_out > 4).all())
    True
    """
    _check_n_samples(n_samples, at_least=1)
    _check_sd(noise_sd)
    rng = check_random_state(random_state)
    X = _uniform_column(n_samples, low, high, rng)
    return X, cubic_mean(X) + noise_sd * rng.standard_normal(n_samples)


def make_heteroscedastic_cubic(
    n_samples: int = 100,
    *,
    low: float = -5.0,
    high: float = 5.0,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Draw the problem of Section 3.2.3, whose noise grows with \|x\|.

    :math:`x \sim U(low, high)`, :math:`y = x^3 + (x^2/2 + 1) e`, :math:`e \sim N(0, 1)`. The true
    density is the Normal with mean `cubic_mean` and standard deviation `heteroscedastic_cubic_sd`.

    Parameters
    ----------
    n_samples : int, default=100
        At least 1.
    low, high : float, default=-5.0, 5.0
        Finite ends of the interval of x, low < high.
    random_state : int, RandomState instance or None, default=None
        The same int gives the same rows.

    Returns
    -------
    X : ndarray of shape (n_samples, 1)
    y : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If an argument is outside its domain.

    Examples
    --------
    >>> X, y = make_heteroscedastic_cubic(n_samples=50, random_state=0)
    >>> X.shape, y.shape
    ((50, 1), (50,))
    """
    _check_n_samples(n_samples, at_least=1)
    rng = check_random_state(random_state)
    X = _uniform_column(n_samples, low, high, rng)
    return X, cubic_mean(X) + heteroscedastic_cubic_sd(X) * rng.standard_normal(n_samples)


def make_rings(
    n_samples: int = 100,
    *,
    radii: ArrayLike = (0.5, 1.5, 2.5),
    noise_sd: float = 0.3,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    r"""Draw the paper's toy classification: noisy rings around the origin, one class each.

    :math:`x = r_y (\cos t, \sin t) + e`, :math:`t \sim U(0, 2\pi)`,
    :math:`e \sim N(0, noise\_sd^2 I)`; the default variance is the paper's .09.

    Parameters
    ----------
    n_samples : int, default=100
        At least one per ring. The classes differ by at most one in size.
    radii : array-like of shape (n_rings,), default=(0.5, 1.5, 2.5)
        Radius of each ring, positive; class k is the ring of ``radii[k]``.
    noise_sd : float, default=0.3
        Standard deviation of the noise of each coordinate, at least 0.
    random_state : int, RandomState instance or None, default=None
        The same int gives the same rows.

    Returns
    -------
    X : ndarray of shape (n_samples, 2)
    y : ndarray of shape (n_samples,)
        Class labels 0, ..., len(radii) - 1, int64, in random order.

    Raises
    ------
    ValueError
        If an argument is outside its domain.

    Examples
    --------
    >>> X, y = make_rings(random_state=0)
    >>> X.shape, np.bincount(y)
    ((100, 2), array([34, 33, 33]))
    """
    radii = np.asarray(radii, dtype=np.float64)
    if radii.ndim != 1 or len(radii) == 0 or not (np.isfinite(radii) & (radii > 0)).all():
        raise ValueError(f"radii={radii.tolist()}: expected one or more positive numbers")
    _check_n_samples(n_samples, at_least=len(radii))
    _check_sd(noise_sd)
    rng = check_random_state(random_state)
    y = rng.permutation(np.arange(n_samples, dtype=np.int64) % len(radii))
    angle = rng.uniform(0.0, 2.0 * np.pi, n_samples)
    ring = radii[y, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return ring + noise_sd * rng.standard_normal((n_samples, 2)), y


def _only_column(X):
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] != 1:
        raise ValueError(f"X has shape {X.shape}: expected (n_samples, 1)")
    return X[:, 0]


def _uniform_column(n_samples, low, high, rng):
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"low={low!r}, high={high!r}: expected finite numbers with low < high")
    return rng.uniform(low, high, (n_samples, 1))


def _check_n_samples(n_samples, at_least):
    if n_samples < at_least:
        raise ValueError(f"n_samples={n_samples!r}: expected at least {at_least}")


def _check_sd(noise_sd):
    if not (np.isfinite(noise_sd) and noise_sd >= 0):
        raise ValueError(f"noise_sd={noise_sd!r}: expected a finite number of at least 0")
