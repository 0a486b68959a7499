"""Train four methods on a table, print their scores, and draw what they predict.

``python -m sklearn_probmix.demo`` does so on two tables that scikit-learn bundles, and
``python -m sklearn_probmix.demo --csv FILE --target COLUMN`` on a table of one's own.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.calibration import calibration_curve
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, root_mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tqdm import tqdm

from sklearn_probmix.classifier import ProbMixupClassifier
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.metrics import coverage, coverage_curve, crps, nll
from sklearn_probmix.regressor import ProbMixupRegressor

METHODS = {"erm": "ERM", "mixup": "mixup", "probmix": "ProbMix", "m-probmix": "M-ProbMix"}
SHOWN = "m-probmix"
N_FOLDS = 3
MIN_ROWS = 20
# A larger table is tested on one fold only: it has test rows enough, and takes its time.
MAX_ROWS_FOR_ALL_FOLDS = 2000
MAX_ROWS_DRAWN = 80
N_BINS = 5
MAX_CLASSES = 10
MAX_CATEGORIES = 20
MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}
# Colours that the colour-blind can tell apart.
COLOURS = {"erm": "#000000", "mixup": "#E69F00", "probmix": "#009E73", "m-probmix": "#0072B2"}
MARKERS = {"erm": "s", "mixup": "^", "probmix": "D", "m-probmix": "o"}


class Table(NamedTuple):
    """What is to be learned, and from what."""

    name: str
    target: str
    X: np.ndarray
    """Shape (n, n_features); of objects if there are columns of text."""
    y: np.ndarray
    """Shape (n,); numbers for regression, strings for classification."""
    numeric: list[int]
    text: list[int]

    @property
    def task(self) -> str:
        """Either "regression" or "classification"."""
        return "regression" if self.y.dtype.kind == "f" else "classification"


class Forecast(NamedTuple):
    """What one method predicts for the test rows of one fold."""

    y: np.ndarray
    prediction: PredictiveDistribution | np.ndarray
    classes: np.ndarray | None
    seconds: float


def bundled_tables() -> list[Table]:
    """Two tables that scikit-learn brings along: diabetes and breast cancer."""
    diabetes, cancer = load_diabetes(), load_breast_cancer()
    return [
        Table("diabetes", "disease progression", diabetes.data, diabetes.target, [*range(10)], []),
        Table(
            "breast cancer",
            "diagnosis",
            cancer.data,
            cancer.target_names[cancer.target],
            [*range(30)],
            [],
        ),
    ]


def read_table(path: str | Path, target: str, task: str | None = None) -> Table:
    """Read a table from a file of comma-, semicolon- or tab-separated values with a header.

    A column is numeric if all its cells are numbers or missing (empty, ?, NA, NaN, null, none).
    Rows without a target are left out, and so are those of a class with fewer rows than folds.

    Parameters
    ----------
    path : str or Path
    target : str
        Name of the column to predict.
    task : {"regression", "classification"} or None, default=None
        None means classification if the target is text or has at most 10 different whole numbers.

    Returns
    -------
    Table

    Raises
    ------
    OSError, ValueError
        If there is no such file or column, or what the file holds is no table that can be learned
        from; the message says what was found and what is expected.
    """
    path = Path(path)
    header, rows = _read_cells(path)
    if target not in header:
        raise ValueError(f"{path} has no column {target!r}; expected one of {header}.")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    cells = columns.pop(target)
    y, kept = _parse_target(target, cells, task)
    if not columns:
        raise ValueError(f"{path} has no column besides {target!r}; expected at least one.")
    parsed = [_parse_column(name, column) for name, column in columns.items()]
    numeric = [i for i, column in enumerate(parsed) if column.dtype.kind == "f"]
    text = [i for i, column in enumerate(parsed) if column.dtype.kind == "O"]
    X = np.stack([column.astype(object) if text else column for column in parsed], axis=1)
    return Table(path.stem, target, X[kept], y[kept], numeric, text)


def evaluate(table: Table, *, max_epochs: int | None = None) -> dict[str, list[Forecast]]:
    """Train every method on the training rows of each fold and predict its test rows.

    Parameters
    ----------
    table : Table
    max_epochs : int or None, default=None
        None means the estimators' default.

    Returns
    -------
    dict of str to list of Forecast
        From the method to the forecasts of the folds.
    """
    # One network each: what is compared is the mixing.
    settings = {"random_state": 0, "n_members": 1}
    if max_epochs is not None:
        settings["max_epochs"] = max_epochs
    is_regression = table.task == "regression"
    splitter = (KFold if is_regression else StratifiedKFold)(N_FOLDS, shuffle=True, random_state=0)
    folds = list(splitter.split(table.X, table.y))
    if len(table.y) > MAX_ROWS_FOR_ALL_FOLDS:
        folds = folds[:1]
    forecasts = {method: [] for method in METHODS}
    with tqdm(total=len(folds) * len(METHODS), desc=table.name, leave=False) as progress:
        for train, test in folds:
            for method, label in METHODS.items():
                progress.set_postfix_str(label)
                estimator = ProbMixupRegressor if is_regression else ProbMixupClassifier
                model = make_pipeline(_encoder(table), estimator(method=method, **settings))
                start = time.perf_counter()
                model.fit(table.X[train], table.y[train])
                seconds = time.perf_counter() - start
                prediction = model.predict_proba(table.X[test])
                classes = None if is_regression else model.classes_
                forecasts[method].append(Forecast(table.y[test], prediction, classes, seconds))
                progress.update()
    return forecasts


def scores(forecast: Forecast) -> dict[str, float]:
    """Scores of one forecast, by the heading under which they are printed."""
    y, prediction = forecast.y, forecast.prediction
    if forecast.classes is None:
        figures = {
            "NLL": nll(y, prediction),
            "CRPS": crps(y, prediction),
            "RMSE": root_mean_squared_error(y, prediction.mean()),
            "90% coverage": coverage(y, prediction, level=0.9),
        }
    else:
        labels = forecast.classes
        figures = {
            "log loss": log_loss(y, prediction, labels=labels),
            "Brier": brier_score_loss(y, prediction, labels=labels),
            "accuracy": accuracy_score(y, labels[prediction.argmax(axis=1)]),
            "90% coverage": set_coverage(y, prediction, labels, level=0.9),
        }
    return figures | {"fit time": forecast.seconds}


def set_coverage(y, proba, classes, *, level=0.9) -> float:
    """Share of rows whose class is in the smallest set of classes of probability `level`.

    It should be at least `level`; where most rows have a sure class it is close to the accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> proba = np.array([[0.6, 0.3, 0.1], [0.95, 0.05, 0.0]])
    >>> set_coverage(np.array(["b", "b"]), proba, np.array(["a", "b", "c"]))
    0.5
    """
    order = np.argsort(-proba, axis=1)
    ranked = np.take_along_axis(proba, order, axis=1)
    needed = ranked.cumsum(axis=1) - ranked < level
    return float(((classes[order] == y[:, None]) & needed).any(axis=1).mean())


def format_scores(forecasts: dict[str, list[Forecast]]) -> str:
    """Lay out the scores of all methods, averaged over folds, as an aligned table."""
    averages = {}
    for method, folds in forecasts.items():
        figures = [scores(fold) for fold in folds]
        averages[method] = {name: np.mean([fold[name] for fold in figures]) for name in figures[0]}
    headings = list(averages[SHOWN])
    layout = {"90% coverage": "{:.1%}", "accuracy": "{:.1%}", "fit time": "{:.2f} s"}
    lines = [["method", *headings]]
    for method, figures in averages.items():
        cells = [layout.get(name, "{:#.4g}").format(figures[name]) for name in headings]
        lines.append([METHODS[method], *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [lines[0], rule, *lines[1:]]
    )


def draw(table: Table, forecasts: dict[str, list[Forecast]], path: Path) -> None:
    """Draw what M-ProbMix predicts beside how well all methods are calibrated.

    Parameters
    ----------
    table : Table
    forecasts : dict of str to list of Forecast
        As returned by `evaluate`.
    path : Path
        Where the picture is written.
    """
    # The object, not pyplot: whatever backend the caller uses is left alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    if table.task == "regression":
        _draw_intervals(left, table, forecasts[SHOWN])
        _draw_coverage(right, forecasts)
    else:
        _draw_probabilities(left, table, forecasts[SHOWN])
        _draw_reliability(right, table, forecasts)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    """Run the demo; `argv` are the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m sklearn_probmix.demo", description=__doc__)
    parser.add_argument("--csv", metavar="FILE", help="table with a header line")
    parser.add_argument("--target", metavar="COLUMN", help="column of FILE to predict")
    parser.add_argument(
        "--task",
        choices=["regression", "classification"],
        help="default: classification if the target is text or at most "
        f"{MAX_CLASSES} different whole numbers",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", default=".", help="where pictures go; default: here"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="train for at most N epochs")
    options = parser.parse_args(argv)
    if (options.csv is None) != (options.target is None):
        parser.error("--csv FILE and --target COLUMN belong together; found only one of them.")
    if options.task and options.csv is None:
        parser.error("--task needs --csv FILE and --target COLUMN.")
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs {options.epochs}: expected at least 1.")
    try:
        folder = Path(options.output)
        folder.mkdir(parents=True, exist_ok=True)
        tables = (
            bundled_tables()
            if options.csv is None
            else [read_table(options.csv, options.target, options.task)]
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    # Networks this small only wait for a second thread, for long if other programs are running.
    torch.set_num_threads(1)
    for table in tables:
        _run(table, folder, options.epochs)


def _run(table, folder, max_epochs):
    start = time.perf_counter()
    n_rows, n_features = table.X.shape
    print(f"{table.name}: {table.task} of {table.target} from {n_features} columns, {n_rows} rows")
    forecasts = evaluate(table, max_epochs=max_epochs)
    n_test = sum(len(fold.y) for fold in forecasts[SHOWN])
    print(format_scores(forecasts))
    print(f"On {n_test} test rows, averaged over folds: {len(forecasts[SHOWN])}.", end=" ")
    print("Less is better, coverage should be 90%." if table.task == "regression" else _SET_NOTE)
    path = folder / f"probmix_{'_'.join(table.name.split())}.png"
    try:
        draw(table, forecasts, path)
    except ImportError:
        print("No picture: matplotlib is missing. pip install matplotlib")
    else:
        print(f"Picture: {path}")
    print(f"Took {time.perf_counter() - start:.0f} s\n", flush=True)


_SET_NOTE = (
    "Less is better but for the\naccuracy; coverage is that of the smallest set of classes with a "
    "probability of 90%,\nand should be at least that."
)


def _read_cells(path):
    """Return the header and the rows as lists of stripped strings."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; expected a table with a header line.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from error
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    if not header:
        raise ValueError(f"{path} is empty; expected a line of column names, and rows.")
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise ValueError(f"{path} has several columns of the names {sorted(repeated)}.")
    rows = []
    for row in filter(None, reader):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {reader.line_num}, has {len(row)} cells; "
                f"expected {len(header)} as in the header."
            )
        rows.append([cell.strip() for cell in row])
    if not rows:
        raise ValueError(f"{path} has a header but no rows.")
    return header, rows


def _parse_column(name, cells):
    """Return floats with NaN, or objects with None, where a cell is missing."""
    values = [None if cell.lower() in MISSING else cell for cell in cells]
    try:
        numbers = np.array([math.nan if value is None else float(value) for value in values])
    except ValueError:
        return np.array(values, dtype=object)
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise ValueError(f"Column {name!r} holds {cells[row]!r} in row {row + 1}; expected finite.")
    return numbers


def _parse_target(name, cells, task):
    """Return the response, and the mask of rows to keep."""
    y = _parse_column(name, cells)
    known = np.array([value is not None and value == value for value in y])
    is_number = y.dtype.kind == "f"
    if task is None:
        values = np.unique(y[known]) if is_number else []
        few = len(values) <= MAX_CLASSES and np.all(np.equal(values, np.round(values)))
        task = "classification" if few else "regression"
    if task == "regression":
        if not is_number:
            raise ValueError(f"Column {name!r} holds text; expected numbers for regression.")
        kept = known
    else:
        y = np.array([cell.strip() for cell in cells])
        classes, codes, counts = np.unique(y[known], return_inverse=True, return_counts=True)
        kept = known.copy()
        kept[known] = counts[codes] >= N_FOLDS
        if len(np.unique(y[kept])) < 2:
            raise ValueError(
                f"Column {name!r} holds {len(classes)} classes, expected at least two with "
                f"{N_FOLDS} rows or more; for numbers try --task regression."
            )
    if kept.sum() < MIN_ROWS:
        raise ValueError(
            f"Column {name!r} is known in {kept.sum()} rows; expected {MIN_ROWS} or more."
        )
    if not kept.all():
        print(f"Left out {np.sum(~kept)} rows: no target, or a class of too few rows.")
    return y, kept


def _encoder(table):
    """Fill in missing numbers; turn text into indicators, with one of its own if missing."""
    return ColumnTransformer(
        [
            ("numeric", SimpleImputer(strategy="median", keep_empty_features=True), table.numeric),
            (
                "text",
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist",
                    max_categories=MAX_CATEGORIES,
                    sparse_output=False,
                ),
                table.text,
            ),
        ]
    )


def _draw_intervals(axes, table, folds):
    """Bars of 50 % and 90 % around the median of some test rows, in order of the mean."""
    y, dist = folds[0].y, folds[0].prediction
    rows = _some(len(y))
    rows = rows[np.argsort(dist.mean()[rows])]
    y, dist = y[rows], dist[rows]
    low, high = dist.interval(0.9)
    missed = (y < low) | (y > high)
    place = np.arange(len(y))
    colour = COLOURS[SHOWN]
    axes.vlines(place, low, high, color=colour, alpha=0.3, lw=2.5, label="90% interval")
    axes.vlines(place, *dist.interval(0.5), color=colour, alpha=0.75, lw=2.5, label="50% interval")
    axes.plot(place[~missed], y[~missed], "o", ms=4, color="black", label="truth")
    axes.plot(place[missed], y[missed], "X", ms=7, color="#D55E00", label="truth outside of 90%")
    covered = np.mean([coverage(fold.y, fold.prediction) for fold in folds])
    n_rows = sum(len(fold.y) for fold in folds)
    axes.set(
        title=f"{METHODS[SHOWN]}: 90% intervals cover {covered:.0%} of {n_rows} test rows",
        xlabel=f"{len(y)} of the test rows, in order of the predicted mean",
        ylabel=table.target,
    )
    axes.legend(loc="upper left", frameon=False)


def _draw_coverage(axes, forecasts):
    """Observed against nominal coverage, one line per method."""
    for method, folds in forecasts.items():
        curves = [coverage_curve(fold.y, fold.prediction) for fold in folds]
        observed = np.mean([curve[1] for curve in curves], axis=0)
        _draw_curve(axes, method, curves[0][0], observed)
    _finish_diagram(axes, "nominal coverage of the interval", "observed coverage")


def _draw_probabilities(axes, table, folds):
    """Predicted probabilities of all test rows in order, and whether it happened."""
    p, happened, event = _events(table, folds)
    order = np.argsort(p, kind="stable")
    place = np.arange(len(p))
    p, happened = p[order], happened[order]
    axes.plot(place, p, color=COLOURS[SHOWN], lw=2, label="predicted probability")
    # Spread out a little: with hundreds of rows the marks would hide each other.
    jitter = np.random.default_rng(0).uniform(-0.025, 0.025, len(p))
    for value, marker, colour in [(True, "o", "#D55E00"), (False, "X", "black")]:
        rows = happened == value
        axes.plot(
            place[rows],
            value + jitter[rows],
            marker,
            ms=4,
            mew=0,
            alpha=0.6,
            color=colour,
            label=f"{'it is' if value else 'it is not'} ({rows.sum()} rows)",
        )
    axes.set(
        title=f"{METHODS[SHOWN]} on {len(p)} test rows",
        xlabel="test rows, in order of the predicted probability",
        ylabel=f"probability: {event}",
        ylim=(-0.06, 1.06),
    )
    axes.legend(loc="center left", frameon=False)


def _draw_reliability(axes, table, forecasts):
    """Observed frequency against predicted probability, one line per method."""
    for method, folds in forecasts.items():
        p, happened, _ = _events(table, folds)
        observed, predicted = calibration_curve(happened, p, n_bins=N_BINS)
        _draw_curve(axes, method, predicted, observed)
        counts = np.histogram(p, N_BINS, (0, 1))[0]
        # A bin of few rows may lie anywhere: its mark says so by its size.
        axes.scatter(
            predicted,
            observed,
            s=400 * counts[counts > 0] / len(p),
            color=COLOURS[method],
            alpha=0.3,
            clip_on=False,
        )
    _finish_diagram(axes, "predicted probability (area: share of rows)", "observed frequency")


def _draw_curve(axes, method, x, y):
    axes.plot(
        x, y, color=COLOURS[method], marker=MARKERS[method], ms=4, lw=1.5, label=METHODS[method]
    )


def _finish_diagram(axes, xlabel, ylabel):
    axes.plot([0, 1], [0, 1], color="grey", ls="--", lw=1, zorder=0, label="perfect calibration")
    axes.set(
        title="Calibration", xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1), aspect="equal"
    )
    axes.legend(loc="upper left", frameon=False)


def _events(table, folds):
    """Probabilities of one event, whether it happened, and what it is called."""
    y = np.concatenate([fold.y for fold in folds])
    proba = np.concatenate([fold.prediction for fold in folds])
    classes = folds[0].classes
    if len(classes) == 2:
        return proba[:, 0], y == classes[0], f"{table.target} = {classes[0]}"
    return proba.max(axis=1), y == classes[proba.argmax(axis=1)], "the class predicted"


def _some(n_rows):
    if n_rows <= MAX_ROWS_DRAWN:
        return np.arange(n_rows)
    return np.random.default_rng(0).choice(n_rows, MAX_ROWS_DRAWN, replace=False)


if __name__ == "__main__":
    main()
