"""Scores of predictive distributions and of class probabilities.

In all of them NaN and infinity in y_true are a ValueError, and so is a y_pred of another shape; a
frozen distribution of scipy.stats is broadcast to y_true. Class probabilities where a distribution
is expected are a TypeError that names the scorer of scikit-learn to use instead.

The examples assume ``import numpy as np`` and ``from scipy import stats``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import _check_sample_weight, column_or_1d

from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.floats import usual_floats

Array = NDArray[np.float64]
Forecast: TypeAlias = PredictiveDistribution | stats.distributions.rv_frozen


def _scoringrules():
    # Where numba is installed, scoringrules compiles its scores when imported.
    import scoringrules

    return scoringrules


_LEVELS = np.linspace(0.05, 0.95, 19)


@usual_floats
def nll(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "joint",
) -> float | Array:
    r"""Negative log-likelihood: the score of the whole density; less is better, in nats.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="joint"
        "joint" scores the joint density of all outputs; "uniform_average", "raw_values" and an
        array the density of each.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Notes
    -----
    :math:`-\frac{1}{n} \sum_r \log p_r(y_r)`.

    Examples
    --------
    >>> nll([80.0], stats.norm(75, 13.5))
    3.59...
    """
    y, dist, weight = check_prediction(y_true, y_pred, sample_weight, instead="neg_log_loss")
    if isinstance(multioutput, str) and multioutput == "joint":
        return _average(-dist.joint_logpdf(y), weight)
    return _average(-dist.logpdf(y), weight, multioutput)


@usual_floats
def crps(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    r"""Continuous ranked probability score, in the units of y; less is better.

    It forgives a wrong tail sooner than `nll`, and is the absolute error of a point prediction.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Notes
    -----
    Closed forms serve Normal, log-normal, gamma, Poisson and lattice distributions, log-normal and
    gamma ones beside a mass at 0, histograms, mixtures of one of these, and the single beta; the
    rest is a sum over atoms or a quadrature. Its relative error is below 1e-6 for up to eight
    smooth components, but 1e-4 for a Normal on a curve and where a density is mixed with counts of
    a standard deviation above 30, below 1e-4 for more components or histograms beside others, and
    below 2e-3 for counts that are spread over more than 4,096 values (1e-4 in the mean over rows).
    It is the mean of :math:`\int (F(x) - 1\{x \ge y\})^2 dx`.

    Reference: Strictly proper scoring rules, prediction, and estimation, JASA 102 (2007).

    Examples
    --------
    >>> dist = PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[1.0]]})
    >>> crps([0.0], dist)
    0.2336...
    """
    y, dist, weight = check_prediction(y_true, y_pred, sample_weight)
    return _average(dist.crps(y), weight, multioutput)


@usual_floats
def pinball_loss(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    quantiles: ArrayLike = (0.05, 0.25, 0.5, 0.75, 0.95),
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    r"""Quantile loss, averaged over the quantiles; less is better, in the units of y.

    Use it where single quantiles are what counts; twice its average over all of them is the CRPS.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    quantiles : float or array-like in (0, 1), default=(0.05, 0.25, 0.5, 0.75, 0.95)
        Those that count.
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Notes
    -----
    :math:`\max(q (y - z_q), (q - 1)(y - z_q))` with the quantile z_q of probability q.

    Examples
    --------
    >>> pinball_loss([1.0, 2.0], stats.norm(0, 1), quantiles=0.5)
    0.75
    """
    y, dist, weight = check_prediction(y_true, y_pred, sample_weight)
    q = _check_open_units("quantiles", quantiles)
    losses = _scoringrules().quantile_score(y, dist.ppf(q), q.reshape(-1, *[1] * y.ndim))
    return _average(losses.mean(axis=0), weight, multioutput)


@usual_floats
def interval_score(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    level: float = 0.9,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    r"""Winkler score of a central interval: its width, and a penalty for what lies outside.

    Less is better, in the units of y.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    level : float, default=0.9
        Probability of the interval, in (0, 1).
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Notes
    -----
    .. math:: (u - l) + \frac{2}{1 - level} \max(l - y, y - u, 0)

    Examples
    --------
    >>> interval_score([0.25, 1.25], stats.uniform(0, 1), level=0.5)
    1.5
    """
    y, dist, weight = check_prediction(y_true, y_pred, sample_weight)
    level = _check_open_unit("level", level)
    scores = _scoringrules().interval_score(y, *dist.interval(level), 1 - level)
    return _average(np.reshape(scores, y.shape), weight, multioutput)


@usual_floats
def coverage(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    level: float = 0.9,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    """Share of values inside the central interval of probability ``level``, ends included.

    The best figure is ``level``. For counts the interval holds at least ``level`` by its
    construction, so the figure of a perfect forecast lies above it.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    level : float, default=0.9
        Probability of the interval, in (0, 1).
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Examples
    --------
    >>> coverage([0.0, 1.0, 2.0, -1.0], stats.norm(0, 1))
    0.75
    """
    y, dist, weight = check_prediction(y_true, y_pred, sample_weight)
    low, high = dist.interval(_check_open_unit("level", level))
    return _average((low <= y) & (y <= high), weight, multioutput)


@usual_floats
def coverage_error(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    level: float = 0.9,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    """Distance of the observed `coverage` of an interval from its nominal ``level``, in [0, 1].

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    level : float, default=0.9
        Probability of the interval, in (0, 1).
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Examples
    --------
    >>> coverage_error([0.0, 1.0, 2.0, -1.0], stats.norm(0, 1))
    0.15
    """
    observed = coverage(
        y_true, y_pred, level=level, sample_weight=sample_weight, multioutput="raw_values"
    )
    return _over_outputs(abs(observed - level), multioutput)


@usual_floats
def coverage_curve(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    levels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Observed against nominal coverage of central intervals, for a reliability diagram.

    A count has a whole interval of PIT values, from cdf(y - 1) to cdf(y): it is covered to the
    extent that this interval is, so that a perfect forecast of counts lies on the diagonal too.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    levels : array-like of shape (n_levels,) in (0, 1), default=None
        Nominal coverages; None means 0.05, 0.1, ..., 0.95.
    sample_weight : array-like of shape (n,), default=None

    Returns
    -------
    levels : ndarray of shape (n_levels,)
    observed : ndarray of shape (n_levels,) or (n_levels, outputs)

    Reference: Predictive model assessment for count data, Biometrics 65 (2009).

    Examples
    --------
    >>> levels, observed = coverage_curve([-1, 0, 1, 2], stats.norm(0, 1), levels=[0.5, 0.9])
    >>> observed
    array([0.25, 0.75])
    """
    y, dist, weight = check_prediction(y_true, y_pred, sample_weight)
    levels = _LEVELS if levels is None else _check_open_units("levels", levels)
    upper, mass = dist.cdf(y), dist.pmf(y)
    lower = upper - mass
    observed = []
    for level in levels:
        low, high = (1 - level) / 2, (1 + level) / 2
        overlap = np.clip(np.minimum(upper, high) - np.maximum(lower, low), 0, None)
        is_inside = (low <= upper) & (upper <= high)
        covered = np.divide(overlap, mass, out=is_inside.astype(float), where=mass > 0)
        observed.append(np.average(covered, axis=0, weights=weight))
    return levels, np.array(observed)


@usual_floats
def calibration_error(
    y_true: ArrayLike,
    y_pred: Forecast,
    *,
    levels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    """Mean distance of observed from nominal coverage over a grid of levels.

    Less is better, in [0, 1]: the area between `coverage_curve` and the diagonal.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    levels : array-like of shape (n_levels,) in (0, 1), default=None
        Nominal coverages; None means 0.05, 0.1, ..., 0.95.
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Examples
    --------
    >>> calibration_error([-1, 0, 1, 2], stats.norm(0, 1), levels=[0.5, 0.9])
    0.2
    """
    levels, observed = coverage_curve(y_true, y_pred, levels=levels, sample_weight=sample_weight)
    distances = abs(observed.T - levels).mean(axis=-1)
    return _over_outputs(distances, multioutput)


@usual_floats
def pit_values(
    y_true: ArrayLike, y_pred: Forecast, *, random_state: int | np.random.Generator | None = None
) -> Array:
    r"""Probability integral transform, the cdf at y; uniform if the forecast is perfect.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    random_state : int, Generator or None, default=None
        For counts, whose transform is randomised.

    Returns
    -------
    ndarray of y_true's shape, in [0, 1]

    Notes
    -----
    :math:`F_r(y_r)`; for counts, whose cdf cannot be uniform, :math:`F(y - 1) + V p(y)` with V
    uniform on (0, 1).

    Examples
    --------
    >>> pit_values([0.0, 1.0], stats.norm(0, 1)).round(3)
    array([0.5  , 0.841])
    """
    y, dist, _ = check_prediction(y_true, y_pred, None)
    values = dist.cdf(y)
    draws = np.random.default_rng(random_state).random(y.shape)
    return np.clip(values - draws * dist.pmf(y), 0, 1)


@usual_floats
def sharpness(
    y_pred: Forecast,
    *,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    """Mean predictive standard deviation, in the units of y; it says nothing of the truth.

    Parameters
    ----------
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Examples
    --------
    >>> sharpness(PredictiveDistribution("norm", {"loc": [[0], [0]], "scale": [[1], [3]]}))
    2.0
    """
    dist, weight = _check_forecast(y_pred, sample_weight)
    return _average(dist.std(), weight, multioutput)


@usual_floats
def interval_width(
    y_pred: Forecast,
    *,
    level: float = 0.9,
    sample_weight: ArrayLike | None = None,
    multioutput: str | ArrayLike = "uniform_average",
) -> float | Array:
    """Mean width of the central interval of probability ``level``, in the units of y.

    Parameters
    ----------
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    level : float, default=0.9
        Probability of the interval, in (0, 1).
    sample_weight : array-like of shape (n,), default=None
    multioutput : str or array-like of shape (outputs,), default="uniform_average"
        "raw_values" to see each output's figure; an array weighs them.

    Returns
    -------
    float or, for "raw_values", ndarray of shape (outputs,)

    Examples
    --------
    >>> interval_width(PredictiveDistribution("norm", {"loc": [[0]], "scale": [[1]]}))
    3.28...
    """
    dist, weight = _check_forecast(y_pred, sample_weight)
    low, high = dist.interval(_check_open_unit("level", level))
    return _average(high - low, weight, multioutput)


@usual_floats
def expected_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    n_bins: int = 15,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Distance of the accuracy of a classifier from its confidence, in [0, 1]; less is better.

    Parameters
    ----------
    y_true : array-like of shape (n,)
    y_proba : array-like of shape (n, n_classes)
    labels : array-like of shape (n_classes,), default=None
        The classes in the order of the columns, ``classes_`` of the classifier; None means the
        sorted values of y_true.
    n_bins : int, default=15
        Fewer for few rows; they divide [0, 1] evenly.
    sample_weight : array-like of shape (n,), default=None

    Returns
    -------
    float

    Notes
    -----
    :math:`\sum_b \frac{n_b}{n} |acc_b - conf_b|` over the bins of confidence, the largest
    probability of a row. Reference: On calibration of modern neural networks, ICML (2017).

    Examples
    --------
    >>> expected_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]])
    0.25
    """
    is_class, proba, weight = check_probabilities(y_true, y_proba, labels, sample_weight)
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins!r}; expected at least 1.")
    confidence = proba.max(axis=1)
    is_right = is_class[np.arange(len(proba)), proba.argmax(axis=1)]
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=weight * (is_right - confidence))
    return float(abs(gaps).sum() / weight.sum())


def check_prediction(
    y_true: ArrayLike,
    y_pred: Forecast,
    sample_weight: ArrayLike | None,
    *,
    instead: str = "neg_brier_score",
) -> tuple[Array, PredictiveDistribution, Array]:
    """Return y, the distribution and the weights, arrays of matching shapes, or raise.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, outputs)
    y_pred : PredictiveDistribution or frozen distribution of scipy.stats
    sample_weight : array-like of shape (n,) or None
    instead : str, default="neg_brier_score"
        Scorer that an error names for class probabilities.
    """
    _check_kind(y_pred, instead)
    y = check_array(y_true, ensure_2d=False, dtype=np.float64, input_name="y_true")
    if isinstance(y_pred, stats.distributions.rv_frozen):
        y_pred = _from_frozen(y_pred, y.shape)
    elif y.size == len(y) == len(y_pred) == np.prod(y_pred.shape):
        y = y.reshape(y_pred.shape)
    if y.shape != y_pred.shape:
        raise ValueError(f"y_true has shape {y.shape}, but y_pred has shape {y_pred.shape}.")
    return y, y_pred, _check_sample_weight(sample_weight, y, ensure_non_negative=True)


def _check_forecast(y_pred, sample_weight):
    _check_kind(y_pred, "neg_brier_score")
    if isinstance(y_pred, stats.distributions.rv_frozen):
        params = (*y_pred.args, *y_pred.kwds.values())
        y_pred = _from_frozen(y_pred, np.broadcast_shapes((1,), *map(np.shape, params)))
    return y_pred, _check_sample_weight(sample_weight, y_pred, ensure_non_negative=True)


def _check_kind(y_pred, instead):
    if not isinstance(y_pred, Forecast):
        raise TypeError(
            f"y_pred must be a PredictiveDistribution, got {type(y_pred).__name__}. This score is "
            f"for regressors; for the class probabilities of a classifier use {instead!r} of "
            "scikit-learn."
        )


def _from_frozen(frozen, shape):
    """Convert a frozen scipy.stats distribution, its parameters broadcast to the shape of y."""
    family = frozen.dist
    names = [*(family.shapes.split(", ") if family.shapes else ()), "loc", "scale"]
    params = {"loc": 0.0, **dict(zip(names, frozen.args, strict=False)), **frozen.kwds}
    try:
        params = {
            key: np.broadcast_to(np.asarray(value, dtype=float), shape)[:, None]
            for key, value in params.items()
        }
    except ValueError:
        shapes = {key: np.shape(value) for key, value in params.items()}
        raise ValueError(f"y_true has shape {shape}, but y_pred's params {shapes}.") from None
    return PredictiveDistribution(family.name, params)


def _check_open_unit(what, value):
    if np.ndim(value):
        raise ValueError(f"{what} must be one number, got {value!r}.")
    return float(_check_open_units(what, value)[0])


def _check_open_units(what, value):
    value = np.atleast_1d(np.asarray(value, dtype=float))
    if not (value.ndim == 1 and value.size and ((value > 0) & (value < 1)).all()):
        raise ValueError(
            f"{what} must lie strictly between 0 and 1, and be at least one, on one axis; got "
            f"{value}."
        )
    return value


@usual_floats
def check_probabilities(
    y_true: ArrayLike, y_proba: ArrayLike, labels: ArrayLike | None, sample_weight: ArrayLike | None
) -> tuple[NDArray[np.bool_], Array, Array]:
    """Return indicators of the classes, (n, n_classes), probabilities and weights, or raise.

    Parameters
    ----------
    y_true : array-like of shape (n,)
    y_proba : array-like of shape (n, n_classes)
    labels : array-like of shape (n_classes,) or None
        The classes in the order of the columns; None means the sorted values of y_true.
    sample_weight : array-like of shape (n,) or None
    """
    if isinstance(y_proba, PredictiveDistribution):
        raise TypeError(
            "y_proba must be class probabilities, got a PredictiveDistribution. This score is for "
            "classifiers; for a regressor use nll or crps."
        )
    y = column_or_1d(check_array(y_true, ensure_2d=False, dtype=None, input_name="y_true"))
    proba = check_array(y_proba, dtype=np.float64, input_name="y_proba")
    check_consistent_length(y, proba)
    labels = np.unique(y) if labels is None else np.asarray(labels)
    if len(labels) != proba.shape[1]:
        raise ValueError(f"labels holds {len(labels)} classes, y_proba {proba.shape[1]} columns.")
    if not np.isin(y, labels).all():
        raise ValueError(f"y_true holds {np.setdiff1d(y, labels)}, not among labels {labels}.")
    if not ((proba >= 0) & (proba <= 1 + 1e-6)).all():
        raise ValueError(
            f"y_proba holds values from {proba.min()} to {proba.max()}; expected probabilities, "
            "between 0 and 1."
        )
    weight = _check_sample_weight(sample_weight, y, ensure_non_negative=True)
    return y[:, None] == labels, proba, weight


def _average(losses, weight, multioutput="uniform_average"):
    # An infinite loss of a row of weight 0 would be NaN.
    counts = weight.reshape(-1, *[1] * (losses.ndim - 1)) > 0
    losses = np.where(counts, losses, 0.0)
    return _over_outputs(np.average(losses, axis=0, weights=weight), multioutput)


def _over_outputs(losses, multioutput):
    """Average the figures of the outputs; a single figure stays as it is."""
    if isinstance(multioutput, str):
        if multioutput not in ("raw_values", "uniform_average"):
            raise ValueError(
                "multioutput must be 'raw_values', 'uniform_average' or an array of weights; "
                f"got {multioutput!r}."
            )
        if multioutput == "raw_values":
            return np.atleast_1d(losses)
        return float(np.mean(losses))
    losses, weights = np.atleast_1d(losses), np.asarray(multioutput, dtype=float)
    if weights.shape != losses.shape:
        raise ValueError(
            f"multioutput has the shape {weights.shape}; expected a weight for each of "
            f"{len(losses)} outputs."
        )
    return float(np.average(losses, weights=weights))
