"""Weights and calibration of a mixture, learnt on rows that its members did not train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from sklearn.model_selection import KFold

__all__ = ["LEAST_SHARE", "Spread", "Temperature", "calibrate", "stacking_weights"]

Array = NDArray[np.float64]

#: Weight in a mixture below which a component is left out: it costs the others more than it adds.
LEAST_SHARE = 0.02

_N_FOLDS = 5
# Nats that a factor of e on variances or on logits must gain over all rows to be believed: few rows
# that are nearly separable would otherwise ask for certainty.
_PRIOR = 5.0


def stacking_weights(
    log_density: ArrayLike,
    sample_weight: ArrayLike | None = None,
    prior: float = 1.0,
    max_iter: int = 1000,
    tol: float = 1e-10,
) -> Array:
    """Convex weights that maximise the mean log score of a mixture, by EM.

    The weights maximise ``sum_r v_r log sum_k w_k p_k(y_r) + prior * sum_k log w_k`` over the
    simplex, a concave problem: every kind counts as if so many more rows had been its own, which
    matters less the more rows there are.

    Parameters
    ----------
    log_density : array of shape (n, n_kinds)
        Log-density of every row under every component of the mixture, in nats.
    sample_weight : array of shape (n,), default=None
    prior : float, default=1.0
        Rows that each kind is given in advance, at least 0.
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
    array([0.99, 0.01])
    """
    log_density = np.asarray(log_density, dtype=np.float64)
    n_rows, n_kinds = log_density.shape
    counts = np.ones(n_rows)
    if sample_weight is not None:
        counts = np.asarray(sample_weight, dtype=np.float64)
        counts = counts / counts.mean()
    # Rows that no kind thinks possible say nothing of which is better.
    possible = log_density.max(axis=1) > -np.inf
    weights = np.full(n_kinds, 1 / n_kinds)
    if not possible.any():
        return weights
    log_density, counts = log_density[possible], counts[possible]
    for _ in range(max_iter):
        with np.errstate(divide="ignore"):
            joint = log_density + np.log(weights)
        responsibility = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        updated = (counts @ responsibility + prior) / (counts.sum() + n_kinds * prior)
        converged = np.abs(updated - weights).max() < tol
        weights = updated
        if converged:
            break
    return weights


@dataclass(frozen=True)
class _Calibration:
    """What the calibrations share; the one without arguments changes nothing."""

    def to_dict(self) -> dict[str, float]:
        """Parameters by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make what `to_dict` described."""
        return cls(**content)


@dataclass(frozen=True)
class Spread(_Calibration):
    """Variances v of the components of a Normal mixture become ``a v + b``.

    Parameters
    ----------
    a : float, default=1.0
        Without unit.
    b : float, default=0.0
        In squared units of y.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.calibration import Spread
    >>> y = np.random.default_rng(0).normal(scale=2.0, size=(4000, 1))
    >>> one = np.ones((4000, 1))
    >>> spread = Spread.fit(y, 0 * one[:, None], one[:, None], one, one[:, 0], 0 * one)
    >>> bool(3.8 < spread.apply(1.0) < 4.2)
    True
    """

    a: float = 1.0
    b: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.a < np.inf and 0 <= self.b < np.inf):
            raise ValueError(f"found {self}; expected finite numbers, at least 0.")

    @classmethod
    def fit(
        cls,
        y: Array,
        mean: Array,
        variance: Array,
        weights: Array,
        sample_weight: Array,
        rounding: Array,
    ) -> Self:
        """Fit by the NLL of a Normal mixture, with a prior that draws a towards 1.

        The prior adds ``5 log(a)^2`` nats to the sum over rows.

        Parameters
        ----------
        y : array of shape (n, n_outputs)
        mean, variance : array of shape (n, components, n_outputs)
        weights : array of shape (n, components)
            Convex.
        sample_weight : array of shape (n,)
        rounding : array of shape (n, n_outputs)
            Variance of what rounding did to y, which comes on top but is not calibrated.
        """
        typical = float(variance.mean())

        def loss(logs):
            spread = cls(*np.exp(logs))
            nll = spread.nll(y, mean, variance, weights, sample_weight, rounding).mean()
            return nll + _PRIOR * logs[0] ** 2 / len(y)

        start = np.log([1.0, 1e-3 * typical])
        bounds = np.log([[0.05, 50.0], [1e-8 * typical, 10 * typical + 1]])
        a, b = np.exp(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x)
        return cls(float(a), float(b))

    def apply(self, variance: Any) -> Any:
        """Calibrate variances, of numpy or torch."""
        return self.a * variance + self.b

    def nll(
        self,
        y: Array,
        mean: Array,
        variance: Array,
        weights: Array,
        sample_weight: Array,
        rounding: Array,
    ) -> Array:
        """Weighted negative log-likelihood of every row, shape (n,).

        Parameters
        ----------
        y : array of shape (n, n_outputs)
        mean, variance : array of shape (n, components, n_outputs)
        weights : array of shape (n, components)
        sample_weight : array of shape (n,)
        rounding : array of shape (n, n_outputs)
        """
        scaled = self.apply(variance) + np.asarray(rounding)[..., None, :]
        squared = (y[:, None] - mean) ** 2 / scaled
        log_density = -0.5 * (np.log(2 * np.pi * scaled) + squared).sum(-1)
        return -logsumexp(log_density, axis=1, b=weights) * sample_weight


@dataclass(frozen=True)
class Temperature(_Calibration):
    """Class probabilities p become ``p^(1 / temperature)``, normalised.

    Parameters
    ----------
    temperature : float, default=1.0
        Above 1 makes them less certain.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.calibration import Temperature
    >>> y = np.tile([0, 0, 0, 1], 10_000)
    >>> log_p = np.log(np.full((40_000, 2), [0.9, 0.1]))
    >>> round(Temperature.fit(y, log_p, np.ones(40_000)).temperature, 2)
    2.0
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"found {self}; expected a positive temperature.")

    @classmethod
    def fit(cls, y: NDArray[np.int64], log_p: Array, sample_weight: Array) -> Self:
        """Fit by the log loss, between .1 and 10, with a prior that draws it towards 1.

        The prior adds ``5 log(temperature)^2`` nats to the sum over rows.

        Parameters
        ----------
        y : array of shape (n,)
            Codes of classes.
        log_p : array of shape (n, n_classes)
        sample_weight : array of shape (n,)
        """

        def loss(log_temperature):
            log_t = log_temperature[0]
            nll = cls(np.exp(log_t)).nll(y, log_p, sample_weight).mean()
            return nll + _PRIOR * log_t**2 / len(y)

        bounds = np.log([[0.1, 10.0]])
        best = minimize(loss, [0.0], method="L-BFGS-B", bounds=bounds, tol=1e-12)
        return cls(float(np.exp(best.x[0])))

    def apply(self, log_p: Array) -> Array:
        """Calibrate logarithms of probabilities, shape (n, n_classes)."""
        return log_softmax(log_p / self.temperature, axis=1)

    def nll(self, y: NDArray[np.int64], log_p: Array, sample_weight: Array) -> Array:
        """Weighted log loss of every row, shape (n,).

        Parameters
        ----------
        y : array of shape (n,)
        log_p : array of shape (n, n_classes)
        sample_weight : array of shape (n,)
        """
        return -self.apply(log_p)[np.arange(len(y)), y] * sample_weight


def calibrate(
    calibration: type[Spread] | type[Temperature],
    data: tuple[NDArray[Any], ...],
    mode: str = "auto",
) -> Spread | Temperature | None:
    """Fit a calibration, if it is wanted and worth it.

    Parameters
    ----------
    calibration : class
        `Spread`, `Temperature` or another with their `fit` and `nll`, and with a form without
        arguments that changes nothing.
    data : tuple of arrays
        Arguments of `fit`, with rows on the first axis.
    mode : {"auto", "on"}, default="auto"
        "auto" keeps a calibration only where it lowers the loss of rows that it was not fitted
        on: where the mean gain over nested folds exceeds its standard error.

    Returns
    -------
    Spread, Temperature or None
        None for no calibration; with "auto" always for fewer than 10 rows.
    """
    n_rows = len(data[0])
    if mode == "auto":
        if n_rows < 2 * _N_FOLDS:
            return None
        gain = np.empty(n_rows)
        splitter = KFold(_N_FOLDS, shuffle=True, random_state=0)
        for train, test in splitter.split(data[0]):
            fitted = calibration.fit(*(values[train] for values in data))
            held_out = [values[test] for values in data]
            gain[test] = calibration().nll(*held_out) - fitted.nll(*held_out)
        if gain.mean() <= gain.std() / np.sqrt(n_rows):
            return None
    return calibration.fit(*data)
