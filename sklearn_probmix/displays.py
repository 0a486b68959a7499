"""Pictures of predictive distributions and of their calibration.

Every display follows the contract of scikit-learn: `from_estimator` predicts, `from_predictions`
computes and stores what the picture shows, and `plot` draws it. All three return the display. After
them ``ax_``, ``figure_`` and the drawn artists are attributes, for whoever wants to change them.

NaN and infinity in y_true are a ValueError, and so is a y_pred of another shape; a frozen
distribution of scipy.stats is broadcast to y_true. Another y_pred, such as the class probabilities
of a classifier, is a TypeError unless the display says otherwise.

Of a large set a part is drawn, evenly spread, so that the picture stays readable and quick; every
figure that is printed in a legend is that of the whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom
from scipy.stats.distributions import rv_frozen
from sklearn.base import is_classifier
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.metrics import (
    Array,
    Forecast,
    check_prediction,
    check_probabilities,
    coverage_curve,
)
from sklearn_probmix.outlines import Outline, bar_width, outlines
from sklearn_probmix.plotting import COLORS, Display, choose_output, get_column

# With a bin each in a histogram of the response.
_MOST_VALUES = 40


class _PredictionDisplay(Display):
    """A picture of predictions; a subclass has `from_predictions`."""

    _takes_classes = False
    from_predictions: ClassVar[Callable[..., Any]]

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, ax: Any = None, **options: Any
    ) -> Self:
        """Predict the rows of X and draw the predictions.

        Parameters
        ----------
        estimator : fitted estimator with predict_proba, a Pipeline or a search too
            NotFittedError if it is not fitted, TypeError if it predicts what the display does not
            show.
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, outputs)
        ax : matplotlib Axes, default=None
        **options
            Those of `from_predictions`.
        """
        name = type(estimator).__name__
        if is_classifier(estimator) and not cls._takes_classes:
            raise TypeError(
                f"{cls.__name__} is for regressors, got {name}; classes are for ReliabilityDisplay."
            )
        check_is_fitted(estimator)
        if not hasattr(estimator, "predict_proba"):
            raise TypeError(f"{cls.__name__} needs a predict_proba; {name} has none.")
        labels = {"labels": estimator.classes_} if is_classifier(estimator) else {}
        return cls.from_predictions(y, estimator.predict_proba(X), ax=ax, **labels | options)

    @classmethod
    def _outputs(cls, y_true, y_pred):
        """Check the predictions; return y and the marginal distribution of every output."""
        if not isinstance(y_pred, PredictiveDistribution | rv_frozen):
            raise TypeError(
                f"{cls.__name__} is for regressors: y_pred must be a PredictiveDistribution, got "
                f"{type(y_pred).__name__}. Class probabilities are for ReliabilityDisplay."
            )
        y, dist, _ = check_prediction(y_true, y_pred, None)
        if dist.ndim == 1:
            return [(y, dist)]
        return [(column, dist.marginal(output)) for output, column in enumerate(y.T)]

    @classmethod
    def _output(cls, y_true, y_pred, output):
        return choose_output(cls._outputs(y_true, y_pred), output, "y has {} outputs")


class PredictiveIntervalDisplay(_PredictionDisplay):
    """Intervals of the predictions, and whether the truth lies inside.

    Rows are sorted by their predicted mean, or lie along a feature.

    Attributes
    ----------
    y_true : ndarray of shape (rows,)
        Of the drawn rows, in the order in which they are drawn, as all arrays here.
    prediction : ndarray of shape (rows,)
        Predictive mean, in the units of y.
    lower, upper : ndarrays of shape (levels, rows)
        Ends of the central intervals, in the units of y.
    levels, inside : ndarrays of shape (levels,)
        Probability of the intervals, and the share of all rows whose truth lies inside.
    rows : ndarray of int of shape (rows,)
        Indices of the drawn rows.
    x : ndarray of shape (rows,)
        Where a row is drawn: its rank, or its value of the feature.
    x_label : str
    kind : {"band", "bars"}
    bands_ : list of matplotlib collections, one for each level, the widest first
    line_ : Line2D of the prediction, None for "bars"
    inside_, outside_ : PathCollections of the truth, inside and outside the widest interval

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import stats
    >>> from sklearn_probmix import PredictiveIntervalDisplay
    >>> mean = np.arange(4.0)
    >>> display = PredictiveIntervalDisplay.from_predictions(mean + 2, stats.norm(mean, 1))
    >>> display.inside
    array([0., 0.])
    >>> display.ax_.get_xlabel()
    'row, in order of prediction'
    """

    y_true: Array
    prediction: Array
    lower: Array
    upper: Array
    levels: Array
    inside: Array
    rows: NDArray[np.intp]
    x: Array
    x_label: str
    kind: str

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        feature: int | str | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Predict the rows of X and draw the predictions.

        Parameters
        ----------
        estimator : fitted estimator with predict_proba, a Pipeline or a search too
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, outputs)
        feature : int or str, default=None
            Column of X along which the rows lie; None sorts them by prediction. The only column
            there is makes a band, one of several makes bars, because the others vary along it.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **options
            Those of `from_predictions`.
        """
        if feature is not None:
            x, label = get_column(X, feature)
            kind = "band" if np.shape(X)[1] == 1 else "bars"
            options = {"x": x, "x_label": label, "kind": kind, **options}
        return super().from_estimator(estimator, X, y, ax=ax, **options)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: Forecast,
        *,
        x: ArrayLike | None = None,
        x_label: str = "x",
        levels: ArrayLike = (0.5, 0.9),
        kind: str | None = None,
        max_rows: int | None = None,
        output: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute the intervals and draw them.

        Parameters
        ----------
        y_true : array-like of shape (n,) or (n, outputs)
        y_pred : PredictiveDistribution or frozen distribution of scipy.stats
        x : array-like of shape (n,), default=None
            Where the rows lie; None sorts them by predicted mean.
        x_label : str, default="x"
        levels : sequence of float in (0, 1), default=(0.5, 0.9)
        kind : {"band", "bars"}, default=None
            Intervals as a band along the x axis or as a bar for each row; None means "band" for
            rows sorted by prediction and "bars" otherwise.
        max_rows : int, default=None
            Largest number of rows that are drawn; None means 200 for "band" and 80 for "bars".
        output : int, default=None
            Which output to show; it has to be given if y has several.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        """
        kind = kind or ("band" if x is None else "bars")
        if kind not in ("band", "bars"):
            raise ValueError(f"kind must be 'band' or 'bars', got {kind!r}.")
        y, dist = cls._output(y_true, y_pred, output)
        levels = np.sort(np.atleast_1d(levels))
        max_rows = max_rows or {"band": 200, "bars": 80}[kind]
        mean = dist.mean()
        if x is None:
            order = np.argsort(mean, kind="stable")
            at, x_label = np.argsort(order), "row, in order of prediction"
        else:
            at = check_array(x, ensure_2d=False, dtype=np.float64, input_name="x")
            check_consistent_length(at, y)
            order = np.argsort(at, kind="stable")
        rows = order[_spread(len(y), max_rows)]
        lower, upper = dist[rows].interval(levels)
        return cls(
            y_true=y[rows],
            prediction=mean[rows],
            lower=lower,
            upper=upper,
            levels=levels,
            inside=_share_inside(y, dist, levels),
            rows=rows,
            x=at[rows],
            x_label=x_label,
            kind=kind,
        ).plot(ax)

    def _draw(self, ax, ink, colors):
        self.bands_, self.line_ = [], None
        # From the widest on, so that the narrow ones lie on top.
        for k in range(len(self.levels))[::-1]:
            label = f"{100 * self.levels[k]:.3g} % interval holds {100 * self.inside[k]:.1f} %"
            alpha = 0.25 if k == len(self.levels) - 1 else 0.5
            style = {"color": colors[0], "alpha": alpha, "label": label}
            if self.kind == "band":
                band = ax.fill_between(self.x, self.lower[k], self.upper[k], lw=0, **style)
            else:
                width = 2 * (len(self.levels) - k)
                band = ax.vlines(self.x, self.lower[k], self.upper[k], lw=width, **style)
            self.bands_.append(band)
        if self.kind == "band":
            (self.line_,) = ax.plot(self.x, self.prediction, color=colors[0], lw=1.5, label="mean")
        is_inside = (self.lower[-1] <= self.y_true) & (self.y_true <= self.upper[-1])
        truths = [(is_inside, ink, "truth"), (~is_inside, colors[1], "truth outside")]
        self.inside_, self.outside_ = (
            ax.scatter(self.x[where], self.y_true[where], s=9, color=color, label=label, zorder=3)
            for where, color, label in truths
        )
        ax.set(xlabel=self.x_label, ylabel="y")
        self._legend_on_top(3)


class ReliabilityDisplay(_PredictionDisplay):
    """Whether events happen as often as they are predicted to.

    For a regressor nominal against observed coverage of central intervals; for a classifier
    probability against observed frequency of a class. Perfect predictions lie on the diagonal, up
    to chance: the band holds a point with probability 95 % if the predictions are right and the
    rows independent. It is that of the binomial distribution, point by point, and for counts wider
    than need be. Curves of several models on the same rows may share an ``ax``, each with its
    ``name``; the band is drawn once.

    Attributes
    ----------
    nominal, observed : lists of ndarrays of shape (points,), one for each curve
    lower, upper : lists of ndarrays of shape (points,)
        The band that chance allows.
    names : list of str
    axis_labels : tuple of str
        Of the x and the y axis.
    lines_ : list of Line2D
    bands_ : list of matplotlib collections
        One band if all curves have the same, else a bar at each point of a curve.

    References
    ----------
    Increasing the reliability of reliability diagrams, Weather and Forecasting 22 (2007).

    Examples
    --------
    >>> from scipy import stats
    >>> from sklearn_probmix import ReliabilityDisplay
    >>> y = stats.norm(0, 1).rvs(400, random_state=0)
    >>> display = ReliabilityDisplay.from_predictions(y, stats.norm(0, 1), levels=[0.5, 0.9])
    >>> display.observed[0]
    array([0.49  , 0.8975])
    >>> display.lower[0], display.upper[0]
    (array([0.45, 0.87]), array([0.55  , 0.9275]))
    """

    nominal: list[Array]
    observed: list[Array]
    lower: list[Array]
    upper: list[Array]
    names: list[str]
    axis_labels: tuple[str, str]

    _figsize = (4.8, 4.8)
    _takes_classes = True

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: Forecast | ArrayLike,
        *,
        levels: ArrayLike | None = None,
        n_bins: int = 10,
        labels: ArrayLike | None = None,
        output: int | None = None,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute the curves and draw them.

        Parameters
        ----------
        y_true : array-like
            Labels for a classifier.
        y_pred : PredictiveDistribution, frozen distribution or array of shape (n, n_classes)
            An array holds the class probabilities of a classifier.
        levels : array-like of shape (points,) in (0, 1), default=None
            Nominal coverages; None means 0.05, 0.1, ..., 0.95. Not for classes.
        n_bins : int, default=10
            Number of equally wide bins of the probabilities of a class; empty ones are left out.
        labels : array-like of shape (n_classes,), default=None
            The classes in the order of the columns; None means the sorted values of y_true.
        output : int, default=None
            Which output, or which column of the class probabilities, to show. None shows up to 6
            of them, and of two classes the second.
        name : str, default=None
            Of the model, for the legend.
        ax : matplotlib Axes, default=None
            Those of another curve to add one; None makes a new figure.
        """
        if isinstance(y_pred, PredictiveDistribution | rv_frozen):
            pairs = cls._outputs(y_true, y_pred)
            names = [f"output {k}" for k in range(len(pairs))]
            curves = [_coverage_points(y, dist, levels) for y, dist in pairs]
            axis_labels = "nominal coverage", "observed coverage"
        elif np.ndim(y_pred) == 2:
            is_class, proba, _ = check_probabilities(y_true, y_pred, labels, None)
            classes = np.unique(y_true) if labels is None else np.asarray(labels)
            names = [f"class {label}" for label in classes]
            columns = zip(is_class.T, proba.T, strict=True)
            curves = [_frequency_points(*column, n_bins) for column in columns]
            axis_labels = "predicted probability", "observed frequency"
            output = 1 if output is None and len(names) == 2 else output
        else:
            raise TypeError(
                "ReliabilityDisplay: y_pred must be a PredictiveDistribution of a regressor or "
                f"class probabilities of shape (n, n_classes), got {type(y_pred).__name__} of "
                f"shape {np.shape(y_pred)}."
            )
        if output is not None or len(curves) > len(COLORS):
            chosen = choose_output(range(len(curves)), output, "y_pred has {} outputs or classes")
            curves, names = [curves[chosen]], [names[chosen]]
        if len(names) == 1:
            names = [name or ("observed" if names[0] == "output 0" else names[0])]
        elif name:
            names = [f"{name}, {each}" for each in names]
        nominal, observed, lower, upper = map(list, zip(*curves, strict=True))
        return cls(
            nominal=nominal,
            observed=observed,
            lower=lower,
            upper=upper,
            names=names,
            axis_labels=axis_labels,
        ).plot(ax)

    def _draw(self, ax, ink, colors):
        is_first = "perfect" not in [line.get_label() for line in ax.lines]
        if is_first:
            ax.set_prop_cycle(color=colors)
            ax.axline((0, 0), slope=1, color=ink, lw=1, ls="--", label="perfect")
            ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
            ax.set(xlabel=self.axis_labels[0], ylabel=self.axis_labels[1])
        # A point at the edge is drawn whole.
        style = {"marker": "o", "ms": 4, "lw": 1.5, "clip_on": False, "zorder": 3}
        self.lines_ = [
            ax.plot(x, y, label=name, **style)[0]
            for x, y, name in zip(self.nominal, self.observed, self.names, strict=True)
        ]
        bands = list(zip(self.nominal, self.lower, self.upper, strict=True))
        if all(np.array_equal(band, bands[0]) for band in bands):
            # Models are compared on the same rows, where chance allows all of them the same.
            style = {"color": ink, "alpha": 0.2, "lw": 0, "label": "95 % by chance"}
            self.bands_ = [ax.fill_between(*bands[0], **style)] if is_first else []
        else:
            self.bands_ = [
                ax.vlines(*band, color=line.get_color(), alpha=0.5, lw=2)
                for band, line in zip(bands, self.lines_, strict=True)
            ]
            self.bands_[0].set_label("95 % by chance")
        ax.legend()


class PITDisplay(_PredictionDisplay):
    """Histogram of the probability integral transform, which is flat for perfect predictions.

    A valley in the middle tells of distributions that are too narrow, a hill of ones that are too
    wide, a slope of a bias. The band holds a bar with probability 95 % if the predictions are right
    and the rows independent. A count is shared among the bins between cdf(y - 1) and cdf(y) (the
    non-randomised histogram for counts), and its band is wider than need be.

    Attributes
    ----------
    edges : ndarray of shape (bins + 1,)
    density : ndarray of shape (bins,)
        Number of rows in a bin relative to the expected number.
    lower, upper : float
        The band that chance allows.
    bars_ : BarContainer
    band_ : the band

    References
    ----------
    Probabilistic forecasts, calibration and sharpness, JRSS B 69 (2007).
    Predictive model assessment for count data, Biometrics 65 (2009).

    Examples
    --------
    >>> from scipy import stats
    >>> from sklearn_probmix import PITDisplay
    >>> y = stats.norm(0, 2).rvs(1000, random_state=0)
    >>> display = PITDisplay.from_predictions(y, stats.norm(0, 1), n_bins=5)
    >>> display.density.round(1), display.lower, display.upper
    (array([1.8, 0.6, 0.5, 0.6, 1.5]), 0.88, 1.125)
    """

    edges: Array
    density: Array
    lower: float
    upper: float

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: Forecast,
        *,
        n_bins: int = 10,
        output: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute the histogram and draw it.

        Parameters
        ----------
        y_true : array-like of shape (n,) or (n, outputs)
        y_pred : PredictiveDistribution or frozen distribution of scipy.stats
        n_bins : int, default=10
            Fewer for few rows.
        output : int, default=None
            Which output to show; it has to be given if y has several.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        """
        y, dist = cls._output(y_true, y_pred, output)
        edges = np.linspace(0, 1, n_bins + 1)
        # Of an atom the part of its PIT interval that lies below an edge, else all or nothing.
        mass = np.maximum(dist.pmf(y), 1e-300)
        below = np.clip((edges[:, None] - dist.cdf(y)) / mass + 1, 0, 1).mean(axis=1)
        below[0] = 0
        lower, upper = (n_bins * chance_band(len(y), 1 / n_bins)).tolist()
        density = n_bins * np.diff(below)
        return cls(edges=edges, density=density, lower=lower, upper=upper).plot(ax)

    def _draw(self, ax, ink, colors):
        widths, style = np.diff(self.edges), {"align": "edge", "edgecolor": ax.get_facecolor()}
        self.bars_ = ax.bar(
            self.edges[:-1],
            self.density,
            widths,
            color=colors[0],
            label="observed",
            **style,
        )
        # Below the bars, which would have two tones, with its ends above them.
        self.band_ = ax.axhspan(
            self.lower, self.upper, color=ink, alpha=0.2, lw=0, label="95 % by chance", zorder=0
        )
        for end in (self.lower, self.upper):
            ax.axhline(end, color=ink, lw=1, ls=":", zorder=2)
        ax.axhline(1, color=ink, lw=1, ls="--", label="perfect", zorder=2)
        ax.set(xlim=(0, 1), xlabel="probability integral transform", ylabel="relative frequency")
        self._legend_on_top(3)


class MarginalDisplay(_PredictionDisplay):
    """Histogram of the response beside that of its predictions, the average over the rows.

    It shows whether predictions have the response's shape: its heap at zero, its second peak, its
    tail. Right predictions agree with the response up to chance: a bar's line holds the response
    with probability 95 % if the rows are independent.

    Attributes
    ----------
    edges : ndarray of shape (bins + 1,)
        In the units of y, about 99 % of y between them. A bin holds its upper edge.
    observed, predicted : ndarrays of shape (bins,)
        Share of the rows, and mean probability.
    lower, upper : ndarrays of shape (bins,)
        What chance allows of the share.
    bars_ : BarContainer of the response
    steps_ : StepPatch of the prediction
    band_ : LineCollection of what chance allows

    References
    ----------
    Probabilistic forecasts, calibration and sharpness, JRSS B 69 (2007): marginal calibration.

    Examples
    --------
    >>> from scipy import stats
    >>> from sklearn_probmix import MarginalDisplay
    >>> display = MarginalDisplay.from_predictions([0, 0, 1, 2], stats.poisson([0.5, 0.5, 1, 1]))
    >>> display.edges, display.observed
    (array([-0.5,  0.5,  1.5,  2.5]), array([0.5 , 0.25, 0.25]))
    >>> display.predicted.round(2)
    array([0.49, 0.34, 0.13])
    """

    edges: Array
    observed: Array
    predicted: Array
    lower: Array
    upper: Array

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: Forecast,
        *,
        n_bins: int | None = None,
        output: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute both histograms and draw them.

        Parameters
        ----------
        y_true : array-like of shape (n,) or (n, outputs)
        y_pred : PredictiveDistribution or frozen distribution of scipy.stats
        n_bins : int, default=None
            None means twice the cube root of the number of rows. Whole numbers, and few values
            that are repeated, have a bin each if there are at most 40.
        output : int, default=None
            Which output to show; it has to be given if y has several.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        """
        y, dist = cls._output(y_true, y_pred, output)
        edges = _bins(y, n_bins)
        observed = -np.diff([np.mean(y > edge) for edge in edges])
        predicted = np.diff([dist.cdf(edge).mean() for edge in edges])
        lower, upper = chance_band(len(y), predicted.clip(0, 1))
        return cls(
            edges=edges, observed=observed, predicted=predicted, lower=lower, upper=upper
        ).plot(ax)

    def _draw(self, ax, ink, colors):
        middle, widths = (self.edges[1:] + self.edges[:-1]) / 2, np.diff(self.edges)
        style = {"color": colors[0], "alpha": 0.5, "edgecolor": ax.get_facecolor()}
        self.bars_ = ax.bar(middle, self.observed, widths, label="response", **style)
        self.steps_ = ax.stairs(
            self.predicted, self.edges, color=colors[1], lw=1.5, label="prediction"
        )
        self.band_ = ax.vlines(
            middle, self.lower, self.upper, color=ink, lw=1, label="95 % by chance"
        )
        ax.set(xlabel="y", ylabel="share of rows", ylim=(0, None))
        self._legend_on_top(3)


class PredictiveDensityDisplay(_PredictionDisplay):
    """Predictive distributions of single rows, one above the other, with the truth marked.

    Densities are curves, single values that have a probability are bars. Heights are relative to
    the highest point of a row; a bar is as high as a density that has its probability up to the
    next value (a lone one, as if the density beside it were a box). More than 100 values of a row
    are drawn as a curve.

    Attributes
    ----------
    rows : ndarray of int of shape (rows,)
        Indices of the drawn rows, from the bottom to the top.
    y_true : ndarray of shape (rows,)
    outlines : list of Outline, one for each row
        Points ``x`` of the ``density``, and ``mass`` of the ``atoms``, all between the row's
        quantiles 0.001 and 0.999, in the units of y.
    curves_, bars_ : lists of matplotlib collections and of BarContainers, one for each row
        None where there is none.
    truth_ : LineCollection

    Examples
    --------
    >>> from scipy import stats
    >>> from sklearn_probmix import PredictiveDensityDisplay
    >>> display = PredictiveDensityDisplay.from_predictions([0, 2, 4], stats.poisson([1, 2, 3]))
    >>> display.outlines[0].atoms, display.outlines[0].mass.round(2)
    (array([0., 1., 2., 3., 4., 5.]), array([0.37, 0.37, 0.18, 0.06, 0.02, 0.  ]))
    """

    rows: NDArray[np.intp]
    y_true: Array
    outlines: list[Outline]
    curves_: list[Any]
    bars_: list[Any]

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: Forecast,
        *,
        rows: Sequence[int] | None = None,
        max_rows: int = 8,
        output: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute the outlines and draw them.

        Parameters
        ----------
        y_true : array-like of shape (n,) or (n, outputs)
        y_pred : PredictiveDistribution or frozen distribution of scipy.stats
        rows : sequence of int, default=None
            Rows to show; None takes rows that are evenly spread in the order of prediction.
        max_rows : int, default=8
            How many rows None takes.
        output : int, default=None
            Which output to show; it has to be given if y has several.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        """
        y, dist = cls._output(y_true, y_pred, output)
        order = np.argsort(dist.mean(), kind="stable")
        chosen: Any = order[_spread(len(y), max_rows)] if rows is None else rows
        # Negative indices become those that the axis shows.
        index = np.atleast_1d(np.arange(len(y))[chosen])
        return cls(rows=index, y_true=y[index], outlines=outlines(dist[index])).plot(ax)

    def _draw(self, ax, ink, colors):
        at = np.arange(len(self.rows))
        points = [point for each in self.outlines for point in (*each.x, *each.atoms)]
        least = np.ptp(points) / 300 or 0.2
        self.curves_, self.bars_ = [], []
        for bottom, outline in zip(at, self.outlines, strict=True):
            curve, bars = (0.85 * heights for heights in outline.heights())
            self.curves_.append(None)
            self.bars_.append(None)
            if len(curve):
                style = {"color": colors[0], "alpha": 0.4, "lw": 0}
                self.curves_[-1] = ax.fill_between(outline.x, bottom, bottom + curve, **style)
                ax.plot(outline.x, bottom + curve, color=colors[0], lw=1)
            if len(bars):
                # On a curve a bar has to stand out.
                style = {"color": colors[0], "alpha": 0.9 if len(curve) else 0.5}
                width = bar_width(outline, least)
                self.bars_[-1] = ax.bar(outline.atoms, bars, width, bottom=bottom, **style)
        ax.hlines(at, 0, 1, transform=ax.get_yaxis_transform(), color=ink, lw=0.5, alpha=0.5)
        self.truth_ = ax.vlines(self.y_true, at, at + 0.85, color=colors[1], lw=2, label="truth")
        ax.set(xlabel="y", ylabel="row", ylim=(-0.2, len(at) - 0.1))
        ax.set_yticks(at, self.rows)
        self._legend_on_top(1)


def _spread(n, n_kept):
    """Return at most n_kept of the positions 0 to n - 1, evenly spread, ends included."""
    return np.unique(np.linspace(0, n - 1, min(n, n_kept)).round().astype(int))


def _bins(y, n_bins):
    """Edges of bins that hold about 99 % of y, the ends of its range inside theirs."""
    values = np.unique(y)
    low, high = np.quantile(y, [0.005, 0.995], method="nearest")
    if low == high:
        low, high = values[[0, -1]]
    n_bins = n_bins or np.ceil(2 * len(y) ** (1 / 3))
    if (values == np.rint(values)).all():
        # Edges between whole numbers.
        step = 1.0 if high - low <= _MOST_VALUES else np.ceil((high - low) / n_bins)
        start = low - 0.5
    elif len(values) <= min(_MOST_VALUES, len(y) / 2):
        middle = (values[1:] + values[:-1]) / 2
        # As far beyond the ends as the next edges are inside.
        ends = 2 * values[[0, -1]] - middle[[0, -1]] if len(middle) else values[0] + [-0.5, 0.5]
        return np.concatenate([ends[:1], middle, ends[1:]])
    else:
        step = (high - low) / n_bins or 1.0
        start = low - step / 2
    return start + step * np.arange(int((high - start) / step) + 2)


def _share_inside(y, dist, levels):
    """Return metrics.coverage of all levels, without a search for quantiles."""
    upper = dist.cdf(y)
    lower = upper - dist.pmf(y)
    # The quantile of what has been reached already lies before y, if there is an atom before it.
    is_before = np.less if dist.is_discrete else np.less_equal
    return np.array([np.mean((1 - q <= 2 * upper) & is_before(2 * lower, 1 + q)) for q in levels])


def chance_band(n: int | NDArray[np.integer], p: float | Array) -> Array:
    """Return the ends of the 95 % interval of the share of n events of probability p.

    Parameters
    ----------
    n : int or ndarray of int
    p : float or ndarray

    Examples
    --------
    >>> from sklearn_probmix.displays import chance_band
    >>> chance_band(100, 0.9).tolist()
    [0.84, 0.95]
    """
    return np.stack([binom.ppf(q, n, p) / n for q in (0.025, 0.975)])


def _coverage_points(y, dist, levels):
    nominal, observed = coverage_curve(y, dist, levels=levels)
    return nominal, observed, *chance_band(len(y), nominal)


def _frequency_points(is_class, proba, n_bins):
    bins = np.minimum((proba * n_bins).astype(int), n_bins - 1)
    n = np.bincount(bins)
    nominal, observed = (
        np.bincount(bins, weights=values)[n > 0] / n[n > 0] for values in (proba, is_class)
    )
    # A mean of probabilities may exceed 1 by rounding.
    return nominal, observed, *chance_band(n[n > 0], nominal.clip(0, 1))
