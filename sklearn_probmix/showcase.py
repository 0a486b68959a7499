"""The default beside two baselines on one table: scores, a verdict, and pictures."""

from __future__ import annotations

import copy
import math
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import accuracy_score, root_mean_squared_error
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sklearn_probmix.classifier import ProbMixupClassifier
from sklearn_probmix.displays import PredictiveIntervalDisplay, ReliabilityDisplay, chance_band
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.forecasts import normals
from sklearn_probmix.kinds import Kind
from sklearn_probmix.metrics import coverage, coverage_curve, interval_width
from sklearn_probmix.outlines import readable
from sklearn_probmix.plotting import COLORS
from sklearn_probmix.regressor import ProbMixupRegressor
from sklearn_probmix.settings import limited_threads
from sklearn_probmix.traits import cell_width, likely_families

__all__ = [
    "Rival",
    "Table",
    "divide",
    "draw",
    "fit_all",
    "format_scores",
    "reasons",
    "remarks",
    "verdict",
]

Array = NDArray[np.float64]

_METHODS = {
    "erm": "plain",
    "mixup": "mixup",
    "manifold-mixup": "manifold mixup",
    "probmix": "ProbMix",
    "m-probmix": "M-ProbMix",
}
TEST_SHARE = 0.25
# Rows of a class in the two parts.
_LEAST = 6, 2
N_BINS = 5
# Of a name in a picture.
_MOST_SIGNS = 40
_MOST_LEVELS = 250
_WHY = {
    "histogram": "densities of any shape",
    "lattice": "y takes few values",
    "transformed": "y is skewed",
    "poisson": "{}",
    "negative-binomial": "{}",
    "hurdle": "y has a heap of zeros",
    "beta": "y lies between 0 and 1",
}


class Table(NamedTuple):
    """What is to be learned, and from what."""

    name: str
    target: str
    X: NDArray[Any]
    """Shape (n, n_features); of objects if there are categories."""
    y: NDArray[Any]
    """Shape (n,); floats for regression, labels for classification."""
    categories: list[int]
    """Positions of the columns of X that are categories."""
    in_order_of: str | None = None
    """Date that does not fall from row to row, if there is one."""

    @property
    def is_regression(self) -> bool:
        """Whether the response is a number."""
        return self.y.dtype.kind == "f"

    @property
    def is_tested_on_last(self) -> bool:
        """Whether the rows are in order of time, and both parts have enough of every class."""
        if self.in_order_of is None or self.is_regression:
            return self.in_order_of is not None
        n_test = math.ceil(TEST_SHARE * len(self.y))
        return all(
            np.count_nonzero(part == label) >= least
            for part, least in zip((self.y[:-n_test], self.y[-n_test:]), _LEAST, strict=True)
            for label in np.unique(self.y)
        )


class Rival(NamedTuple):
    """What one model predicts for the test rows."""

    name: str
    model: Any
    test: NDArray[np.intp]
    """Positions of the test rows in the table."""
    y: NDArray[Any]
    prediction: Any
    """A PredictiveDistribution, or probabilities of classes."""
    losses: Array
    """Of each test row: CRPS in the units of y, or log loss; shape (n,)."""
    scores: dict[str, float]


class NormalAround(RegressorMixin, BaseEstimator):
    """A Normal around the predictions of any regressor, as wide as its out-of-fold errors.

    Parameters
    ----------
    regressor : regressor
    """

    def __init__(self, regressor: Any):
        self.regressor = regressor

    def fit(self, X: Any, y: Any) -> NormalAround:
        """Fit the regressor, and learn the one width from five folds."""
        errors = y - cross_val_predict(self.regressor, X, y)
        self.sd_ = np.sqrt(np.mean(errors**2))
        self.regressor.fit(X, y)
        return self

    def predict_proba(self, X: Any) -> PredictiveDistribution:
        """Return a Normal for each row."""
        mean = self.regressor.predict(X)
        return normals(mean, np.full(len(mean), self.sd_))


class ConstantNormal(RegressorMixin, BaseEstimator):
    """The Normal of all training responses, whatever x is."""

    def fit(self, X: Any, y: Any) -> ConstantNormal:
        """Take mean and standard deviation."""
        self.moments_ = np.mean(y), np.std(y)
        return self

    def predict_proba(self, X: Any) -> PredictiveDistribution:
        """Return the same Normal for each row."""
        mean, sd = self.moments_
        return normals(np.full(len(X), mean), np.full(len(X), sd))


def models(table: Table, **settings: Any) -> list[tuple[str, Any]]:
    """Make the models that are compared, with their names; the default is the last.

    Parameters
    ----------
    table : Table
    **settings
        Of the default.
    """
    levels = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=_MOST_LEVELS,
    )
    codes = make_column_transformer((levels, table.categories), remainder="passthrough")
    of_trees: dict[str, Any] = {
        "categorical_features": range(len(table.categories)),
        "random_state": 0,
    }
    own: dict[str, Any] = {"categorical_features": table.categories, "random_state": 0} | settings
    if table.is_regression:
        trees = make_pipeline(codes, HistGradientBoostingRegressor(**of_trees))
        return [
            ("one Normal for all rows", ConstantNormal()),
            ("gradient boosting + Normal", NormalAround(trees)),
            ("ProbMixupRegressor()", ProbMixupRegressor(**own)),
        ]
    trees = make_pipeline(codes, HistGradientBoostingClassifier(**of_trees))
    return [
        ("class frequencies", DummyClassifier()),
        ("gradient boosting", trees),
        ("ProbMixupClassifier()", ProbMixupClassifier(**own)),
    ]


def divide(table: Table) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on and those to test: the last in time, or some at random.

    Parameters
    ----------
    table : Table
    """
    rows = np.arange(len(table.y))
    if table.is_tested_on_last:
        return train_test_split(rows, test_size=TEST_SHARE, shuffle=False)
    stratify = None if table.is_regression else table.y
    return train_test_split(rows, test_size=TEST_SHARE, random_state=0, stratify=stratify)


def fit_all(table: Table, **settings: Any) -> Iterator[str | Rival]:
    """Fit the models to three quarters of the rows, and predict the others.

    Parameters
    ----------
    table : Table
    **settings
        Of the default.

    Yields
    ------
    str or Rival
        What comes next, in words, and what a model predicts. The default is the last.
    """
    train, test = divide(table)
    width = cell_width(table.y[train]) if table.is_regression else 1.0
    rivals = models(table, **settings)
    for place, (name, model) in enumerate(rivals, start=1):
        yield f"Fitting {name}"
        is_default = place == len(rivals)
        # On busy cores the threads of trees mostly wait for each other.
        threads = nullcontext if is_default else partial(limited_threads, 1)
        start = time.perf_counter()
        with threads():
            model.fit(table.X[train], table.y[train])
        seconds = time.perf_counter() - start
        if is_default:
            yield f"Predicting {len(test)} rows"
        with threads():
            prediction = model.predict_proba(table.X[test])
        losses, scores = _score(table.y[test], prediction, width)
        scores["seconds"] = seconds
        yield Rival(name, model, test, table.y[test], prediction, losses, scores)


def _score(y, prediction, width):
    """Loss of each row, and scores by the heading under which they are printed."""
    if isinstance(prediction, PredictiveDistribution):
        losses = prediction.crps(y)
        # Of the cell around y, so that densities and masses can be compared.
        log_density = prediction.log_probability(y, width) - np.log(width)
        return losses, {
            "CRPS": losses.mean(),
            "NLL": -log_density.mean(),
            "RMSE": root_mean_squared_error(y, prediction.mean()),
            "90 % hold": coverage(y, prediction, level=0.9),
            "width": interval_width(prediction, level=0.9),
        }
    labels = np.unique(y)
    own = prediction[np.arange(len(y)), np.searchsorted(labels, y)]
    losses = -np.log(np.maximum(own, np.finfo(float).tiny))
    # scikit-learn before 1.7 has it of two classes only, of which it is half as much.
    squares = ((prediction - (y[:, None] == labels)) ** 2).sum(axis=1)
    return losses, {
        "log loss": losses.mean(),
        "Brier": squares.mean() / (2 if len(labels) == 2 else 1),
        "accuracy": accuracy_score(y, labels[prediction.argmax(axis=1)]),
    }


def format_scores(rivals: Sequence[Rival]) -> str:
    """Lay out the scores of all models as an aligned table.

    Parameters
    ----------
    rivals : sequence of Rival
    """
    percent = {"90 % hold", "accuracy"}
    lines = [["", *rivals[0].scores]]
    for rival in rivals:
        cells = [
            f"{100 * value:.1f} %" if name in percent else readable(value)
            for name, value in rival.scores.items()
            if name != "seconds"
        ]
        lines.append([rival.name, *cells, f"{rival.scores['seconds']:.1f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{line[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{n}}" for cell, n in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def verdict(default: Rival, others: Sequence[Rival]) -> str:
    """Say in a sentence whether the default is better than the best other, beyond chance.

    Parameters
    ----------
    default : Rival
    others : sequence of Rival
        Of the same test rows, the one that knows nothing of x first.
    """
    best = min(others, key=lambda other: other.losses.mean())
    gain = best.losses - default.losses
    error = gain.std() / math.sqrt(len(gain))
    name = next(iter(default.scores))
    differ = f"its {name} is {_change(default.losses.mean(), best.losses.mean())} {best.name}"
    if best is others[0]:
        worse = " and ".join(other.name for other in others[1:])
        differ += f" (and that of {worse} is higher than this)" if worse else ""
    if gain.mean() > 0 and "RMSE" in default.scores:
        sharpest = min(others, key=lambda other: other.scores["RMSE"])
        errors = default.scores["RMSE"], sharpest.scores["RMSE"]
        if errors[0] > errors[1]:
            differ += f", but its RMSE is {_change(*errors)} {sharpest.name}"
    if abs(gain.mean()) < 2 * error:
        return f"No clear winner: {differ}, within what chance does on {len(gain)} test rows."
    return f"The default is {'better' if gain.mean() > 0 else 'worse'} here: {differ}."


def _change(value, other):
    change = value / other - 1 if other else 0.0
    return f"{abs(change):.0%} {'higher' if change > 0 else 'lower'} than that of"


def remarks(table: Table, rivals: Sequence[Rival]) -> list[str]:
    """Say whose 90 % intervals hold other shares than promised, and what keeps them above 0.

    Of two classes say how many of the rarer one are among the rows that are likeliest to be.

    Parameters
    ----------
    table : Table
    rivals : sequence of Rival
        The default last.
    """
    if not table.is_regression:
        return _ranking(table, rivals)
    found = []
    for rival in rivals:
        # Where y takes few values an interval holds more than it must; here ends count in part.
        share = coverage_curve(rival.y, rival.prediction, levels=[0.9])[1][0]
        low, high = chance_band(len(rival.y), 0.9)
        if not low <= share <= high:
            words = "narrower" if share < low else "wider"
            part = " (ends count in part)" if _has_masses(rival) else ""
            found.append(
                f"90 % intervals of {rival.name} hold {100 * share:.1f} %{part}: {words} than "
                "promised, beyond chance"
            )
    below = (rivals[-1].prediction.interval(0.9)[0] < 0).mean()
    if below and table.y.min() > 0:
        found.append(
            f"{below:.0%} of the default's intervals begin below 0, where no response is: "
            "family='lognormal' keeps them above"
        )
    return found


def _ranking(table, rivals):
    if len(np.unique(table.y)) > 2:
        return []
    hits = []
    # The first knows nothing of x.
    for rival in rivals[1:]:
        p, happened, event = _events(table, rival)
        n = np.count_nonzero(happened)
        hits.append(f"{happened[np.argsort(-p, kind='stable')[:n]].sum()} by {rival.name}")
    return [
        f"Of the {n} rows with the highest probability of {event} so many are: {', '.join(hits)}"
    ]


def chosen(table: Table, default: Rival) -> list[tuple[str, float, float]]:
    """List what "auto" delivers: kinds of network, their weights, and their mean loss alone.

    Parameters
    ----------
    table : Table
    default : Rival

    Returns
    -------
    list of tuple of str, float and float
        The heaviest first.
    """
    found = []
    model = default.model
    for net, kind, weight in zip(model.nets_, model.kinds_, model.weights_, strict=True):
        alone = copy.copy(model)
        alone.nets_, alone.kinds_, alone.weights_ = [net], [kind], np.ones(1)
        with warnings.catch_warnings():
            # Of these rows the mixture has warned.
            warnings.simplefilter("ignore")
            prediction = alone.predict_proba(table.X[default.test])
        losses, _ = _score(default.y, prediction, 1.0)
        found.append((describe(kind), float(weight), float(losses.mean())))
    return sorted(found, key=lambda each: -each[1])


def describe(kind: Kind) -> str:
    """Say in a few words what a kind of network is.

    Parameters
    ----------
    kind : Kind

    Examples
    --------
    >>> from sklearn_probmix import Kind
    >>> describe(Kind("probmix", family="histogram", n_knots=9))
    'ProbMix, 128-64 units, 9 knots, histogram'
    >>> describe(Kind(network="kernel", hidden_layer_sizes=(), n_knots=9, dropout=0.1))
    'neighbours along a line, 9 knots, dropout'
    """
    units = "-".join(map(str, kind.hidden_layer_sizes))
    if kind.network == "kernel":
        words = ["neighbours along a line" if kind.local == "linear" else "neighbours as they are"]
    elif not units:
        words = ["linear"]
    else:
        words = [_METHODS[kind.method], f"{units} units"]
    words += [f"{kind.n_knots} knots"] if kind.n_knots else []
    words += ["dropout"] if kind.dropout else []
    words += [str(kind.family)] if kind.family else []
    return ", ".join(words)


def reasons(table: Table) -> str:
    """Say which families "auto" tries beside the Normal, and why.

    Parameters
    ----------
    table : Table
    """
    if not table.is_regression:
        return "several kinds of network raced"
    integers = "y counts" if table.y.min() <= 1 else "y takes whole numbers"
    named = sorted(likely_families(table.y))
    tried = "".join(f"\n    {name} ({_WHY[name].format(integers)})" for name in named)
    return f"tried beside the Normal:{tried}" if tried else "tried the Normal alone"


def draw(table: Table, rivals: Sequence[Rival], path: Path) -> None:
    """Draw what the default predicts, how far all keep their promises, and what "auto" chose.

    Parameters
    ----------
    table : Table
    rivals : sequence of Rival
        The default last.
    path : Path
        Where the picture is written.
    """
    # The object, not pyplot: whatever backend the caller uses is left alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 5.4), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    default = rivals[-1]
    if table.is_regression:
        PredictiveIntervalDisplay.from_predictions(
            default.y, default.prediction, kind="bars", max_rows=120, ax=left
        )
        left.set_ylabel(_shorten(table.target))
        left.yaxis.set_major_formatter("{x:,.10g}")
        if _has_masses(default):
            words = (
                "values on ends of intervals count as inside here, only in part in the next panel"
            )
            left.set_xlabel(f"{left.get_xlabel()}\n({words})")
    else:
        _draw_probabilities(left, table, default)
    # The band of classes depends on the probabilities, so that one model has the axes.
    for rival in rivals if table.is_regression else [default]:
        options: dict[str, Any] = {}
        y, prediction = rival.y, rival.prediction
        if not table.is_regression:
            p, y, _ = _events(table, rival)
            prediction, options = np.column_stack([1 - p, p]), {"n_bins": N_BINS, "labels": [0, 1]}
        ReliabilityDisplay.from_predictions(y, prediction, name=rival.name, ax=middle, **options)
    _draw_chosen(right, table, default)
    left.set_title(
        f"{default.name}\n{len(default.y)} rows of {_shorten(table.name)} that it has not seen"
    )
    middle.set_title("Does it keep its promises?")
    # No corner of the panel is free of curves.
    middle.get_legend().remove()
    curves = middle.get_legend_handles_labels()
    figure.legend(*curves, loc="outside lower center", ncols=len(curves[0]), fontsize="small")
    figure.savefig(path)


def _has_masses(rival):
    return bool((rival.prediction.pmf(rival.y) > 0).any())


def _shorten(name):
    """Return a name that matplotlib takes for no formula; of a long one its beginning."""
    short = name if len(name) <= _MOST_SIGNS else name[: _MOST_SIGNS - 3] + "..."
    return short.replace("$", r"\$")


def _draw_chosen(axes, table, default):
    """Bars of the weights, each with the loss of the kind alone."""
    kinds = chosen(table, default)
    loss = next(iter(default.scores))
    places, across = np.arange(len(kinds)), axes.get_yaxis_transform()
    axes.barh(places, [weight for _, weight, _ in kinds], color=COLORS[0], alpha=0.35)
    for place, (name, _, alone) in enumerate(kinds):
        words = textwrap.fill(f"{name}: {readable(alone)}", 60, break_on_hyphens=False)
        axes.text(0.02, place, words, va="center", fontsize="small", transform=across)
    # The heaviest on top; one bar alone does not fill the panel.
    lowest = max(len(kinds), 4) - 0.4
    axes.set(yticks=[], xlabel="weight in the mixture", xlim=(0, None), ylim=(lowest, -0.6))
    together = readable(default.scores[loss])
    axes.set_title(f'What "auto" chose, and the {loss}\nof each alone; {together} together')


def _events(table, rival):
    """Probabilities of one event, whether it happened, and what it is called."""
    classes, counts = np.unique(table.y, return_counts=True)
    if len(classes) == 2:
        # Of the rarer class, as it is the one that people look for.
        event = counts.argmin()
        return (
            rival.prediction[:, event],
            rival.y == classes[event],
            f"{table.target} = {classes[event]}",
        )
    best = rival.prediction.argmax(axis=1)
    return rival.prediction.max(axis=1), rival.y == classes[best], "the class predicted"


def _draw_probabilities(axes, table, rival):
    """Predicted probabilities of all test rows in order, and whether it happened."""
    p, happened, event = _events(table, rival)
    order = np.argsort(p, kind="stable")
    axes.plot(p[order], color=COLORS[0], lw=2, label="predicted probability")
    for value, color, label in [(1, COLORS[1], "it is"), (0, "black", "it is not")]:
        rows = np.flatnonzero(happened[order] == value)
        axes.plot(rows, np.full(len(rows), value), "|", color=color, label=f"{label} ({len(rows)})")
    axes.set(
        xlabel="test row, in order of the prediction", ylabel=f"probability: {_shorten(event)}"
    )
    axes.legend()
