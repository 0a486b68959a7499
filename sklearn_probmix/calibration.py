"""Weights and calibration of a mixture, learnt on rows that its members did not train on."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from sklearn.model_selection import KFold

__all__ = ["calibrate", "fit_spread", "fit_temperature", "stacking_weights"]

_N_FOLDS = 5
# Nats that a factor of e on variances or on logits must gain over all rows to be believed: few rows
# that are nearly separable would otherwise ask for certainty.
_PRIOR = 5.0


def stacking_weights(log_density, sample_weight=None, shrinkage=0.1, max_iter=1000, tol=1e-10):
    """Convex weights that maximise the mean log score of a mixture, by EM.

    The weights maximise ``sum_r v_r log sum_k w_k p_k(y_r)`` over the simplex, a concave problem;
    the solution is then shrunk towards uniform weights.

    Parameters
    ----------
    log_density : array of shape (n, n_kinds)
        Log-density of every row under every component of the mixture, in nats.
    sample_weight : array of shape (n,), default=None
    shrinkage : float, default=0.1
        Share of the uniform weights in the result, in [0, 1].
    max_iter : int, default=1000
    tol : float, default=1e-10
        Stop when no weight changes by more.

    Returns
    -------
    ndarray of shape (n_kinds,)
        Positive, of sum 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.calibration import stacking_weights
    >>> better, worse = np.zeros(100), np.full(100, -3.0)
    >>> stacking_weights(np.stack([better, worse], axis=1)).round(2)
    array([0.95, 0.05])
    """
    log_density = np.asarray(log_density, dtype=np.float64)
    n_rows, n_kinds = log_density.shape
    share = np.full(n_rows, 1 / n_rows)
    if sample_weight is not None:
        share = np.asarray(sample_weight) / np.sum(sample_weight)
    # Rows that no kind thinks possible say nothing of which is better.
    possible = log_density.max(axis=1) > -np.inf
    weights = np.full(n_kinds, 1 / n_kinds)
    if not possible.any():
        return weights
    if not possible.all():
        log_density, share = log_density[possible], share[possible] / share[possible].sum()
    for _ in range(max_iter):
        with np.errstate(divide="ignore"):
            joint = log_density + np.log(weights)
        responsibility = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        updated = share @ responsibility
        converged = np.abs(updated - weights).max() < tol
        weights = updated
        if converged:
            break
    return (1 - shrinkage) * weights + shrinkage / n_kinds


def fit_spread(y, mean, variance, weights, sample_weight):
    """Coefficients (a, b) that make variances ``a v + b`` fit best, by NLL of a Normal mixture.

    A prior draws a towards 1: ``5 log(a)^2`` nats are added to the sum over rows.

    Parameters
    ----------
    y : array of shape (n, n_outputs)
    mean, variance : array of shape (n, components, n_outputs)
    weights : array of shape (n, components)
        Convex.
    sample_weight : array of shape (n,)

    Returns
    -------
    ndarray of shape (2,)
        a > 0 without unit, b > 0 in squared units of y.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.calibration import fit_spread
    >>> y = np.random.default_rng(0).normal(scale=2.0, size=(4000, 1))
    >>> one = np.ones((4000, 1))
    >>> a, b = fit_spread(y, 0 * one[:, None], one[:, None], one, one[:, 0])
    >>> bool(3.8 < a + b < 4.2)
    True
    """
    typical = float(variance.mean())

    def loss(logs):
        nll = spread_nll(np.exp(logs), y, mean, variance, weights, sample_weight).mean()
        return nll + _PRIOR * logs[0] ** 2 / len(y)

    start = np.log([1.0, 1e-3 * typical])
    bounds = np.log([[0.05, 50.0], [1e-8 * typical, 10 * typical + 1]])
    return np.exp(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x)


def spread_nll(spread, y, mean, variance, weights, sample_weight):
    """Weighted negative log-likelihood of every row at variances ``a v + b``, shape (n,)."""
    a, b = (1.0, 0.0) if spread is None else spread
    scaled = a * variance + b
    squared = (y[:, None] - mean) ** 2 / scaled
    log_density = -0.5 * (np.log(2 * np.pi * scaled) + squared).sum(-1)
    return -logsumexp(log_density, axis=1, b=weights) * sample_weight


def fit_temperature(y, log_p, sample_weight):
    """Temperature T whose probabilities ``p^(1 / T)``, normalised, have the least log loss.

    A prior draws T towards 1: ``5 log(T)^2`` nats are added to the sum over rows.

    Parameters
    ----------
    y : array of shape (n,)
        Codes of classes.
    log_p : array of shape (n, n_classes)
    sample_weight : array of shape (n,)

    Returns
    -------
    float
        Between .1 and 10.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.calibration import fit_temperature
    >>> y = np.tile([0, 0, 0, 1], 10_000)
    >>> log_p = np.log(np.full((40_000, 2), [0.9, 0.1]))
    >>> round(fit_temperature(y, log_p, np.ones(40_000)), 2)
    2.0
    """

    def loss(log_temperature):
        log_t = log_temperature[0]
        nll = temperature_nll(np.exp(log_t), y, log_p, sample_weight).mean()
        return nll + _PRIOR * log_t**2 / len(y)

    bounds = np.log([[0.1, 10.0]])
    return float(np.exp(minimize(loss, [0.0], method="L-BFGS-B", bounds=bounds, tol=1e-12).x[0]))


def temperature_nll(temperature, y, log_p, sample_weight):
    """Weighted log loss of every row at a temperature, shape (n,)."""
    scaled = log_p / (1.0 if temperature is None else temperature)
    return -log_softmax(scaled, axis=1)[np.arange(len(y)), y] * sample_weight


def calibrate(fit, loss, data, mode="auto", random_state=0):
    """Fit a calibration, if it is wanted and worth it.

    Parameters
    ----------
    fit : callable
        Maps `data` to parameters.
    loss : callable
        Maps parameters, None for no calibration, and `data` to the losses of the rows.
    data : tuple of arrays
        Rows on the first axis.
    mode : {"auto", "on"}, default="auto"
        "auto" keeps a calibration only where it lowers the loss of rows that it was not fitted
        on: where the mean gain over nested folds exceeds its standard error.
    random_state : int, default=0
        Of the folds.

    Returns
    -------
    What `fit` returned, or None for no calibration; with "auto" always for fewer than 10 rows.
    """
    n_rows = len(data[0])
    if mode == "auto":
        if n_rows < 2 * _N_FOLDS:
            return None
        gain = np.empty(n_rows)
        splitter = KFold(_N_FOLDS, shuffle=True, random_state=random_state)
        for train, test in splitter.split(data[0]):
            parameters = fit(*(values[train] for values in data))
            held_out = [values[test] for values in data]
            gain[test] = loss(None, *held_out) - loss(parameters, *held_out)
        if gain.mean() <= gain.std() / np.sqrt(n_rows):
            return None
    return fit(*data)
