"""Train four methods on a table, print their scores, and draw what they predict.

``python -m sklearn_probmix.demo`` does so on two tables that scikit-learn bundles, and
``python -m sklearn_probmix.demo --csv FILE --target COLUMN`` on a table of one's own.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, root_mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tqdm import tqdm

from sklearn_probmix.classifier import ProbMixupClassifier
from sklearn_probmix.displays import COLORS, PredictiveIntervalDisplay, ReliabilityDisplay
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.metrics import coverage, crps, nll
from sklearn_probmix.regressor import ProbMixupRegressor

METHODS = {"erm": "ERM", "mixup": "mixup", "probmix": "ProbMix", "m-probmix": "M-ProbMix"}
SHOWN = "m-probmix"
N_FOLDS = 3
MIN_ROWS = 20
# A larger table is tested on one fold only: it has test rows enough, and takes its time.
MAX_ROWS_FOR_ALL_FOLDS = 2000
N_BINS = 5
MAX_CLASSES = 10
MAX_CATEGORIES = 20
MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}
FORMATS = {"90% coverage": "{:.1%}", "accuracy": "{:.1%}", "fit time": "{:.2f} s"}
NOTES = {
    "regression": "Less is better, coverage should be 90%.",
    "classification": "Less is better but for the accuracy;\ncoverage is that of the smallest set "
    "of classes with a probability of 90%,\nand should be at least that.",
}


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
    """What one method predicts for the test rows of all folds."""

    y: np.ndarray
    prediction: PredictiveDistribution | np.ndarray
    seconds: float
    """Of the fit of a fold."""


def bundled_tables() -> list[Table]:
    """Two tables that scikit-learn brings along: diabetes and breast cancer."""
    diabetes, cancer = load_diabetes(), load_breast_cancer()
    diagnosis = cancer.target_names[cancer.target]
    return [
        Table("diabetes", "disease progression", diabetes.data, diabetes.target, [*range(10)], []),
        Table("breast cancer", "diagnosis", cancer.data, diagnosis, [*range(30)], []),
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
    columns = _read_columns(path)
    if target not in columns:
        raise ValueError(f"{path} has no column {target!r}; expected one of {list(columns)}.")
    y, kept = _parse_target(target, columns.pop(target), task)
    if not columns:
        raise ValueError(f"{path} has no column besides {target!r}; expected at least one.")
    parsed = [_parse_column(name, column) for name, column in columns.items()]
    numeric = [i for i, column in enumerate(parsed) if column.dtype.kind == "f"]
    text = [i for i, column in enumerate(parsed) if column.dtype.kind == "O"]
    X = np.stack([column.astype(object) if text else column for column in parsed], axis=1)
    return Table(path.stem, target, X[kept], y[kept], numeric, text)


def evaluate(table: Table, *, max_epochs: int | None = None) -> dict[str, Forecast]:
    """Train every method on the training rows of each fold and predict its test rows.

    Parameters
    ----------
    table : Table
    max_epochs : int or None, default=None
        None means the estimators' default.

    Returns
    -------
    dict of str to Forecast
        By method.
    """
    # One network each: what is compared is the mixing.
    settings: dict[str, Any] = {"random_state": 0, "n_members": 1}
    if max_epochs is not None:
        settings["max_epochs"] = max_epochs
    of_task: dict[str, tuple[Any, Any, Any]] = {
        "regression": (ProbMixupRegressor, KFold, PredictiveDistribution.concatenate),
        "classification": (ProbMixupClassifier, StratifiedKFold, np.concatenate),
    }
    make, splitter, join = of_task[table.task]
    folds = list(splitter(N_FOLDS, shuffle=True, random_state=0).split(table.X, table.y))
    if len(table.y) > MAX_ROWS_FOR_ALL_FOLDS:
        folds = folds[:1]
    y = table.y[np.concatenate([test for _, test in folds])]
    forecasts = {}
    with tqdm(total=len(folds) * len(METHODS), desc=table.name, leave=False) as progress:
        for method, label in METHODS.items():
            progress.set_postfix_str(label)
            model = make_pipeline(_encoder(table), make(method=method, **settings))
            predictions, seconds = [], 0.0
            for train, test in folds:
                start = time.perf_counter()
                model.fit(table.X[train], table.y[train])
                seconds += (time.perf_counter() - start) / len(folds)
                predictions.append(model.predict_proba(table.X[test]))
                progress.update()
            forecasts[method] = Forecast(y, join(predictions), seconds)
    return forecasts


def scores(forecast: Forecast) -> dict[str, float]:
    """Scores of one forecast, by the heading under which they are printed."""
    y, prediction = forecast.y, forecast.prediction
    if isinstance(prediction, PredictiveDistribution):
        figures = {
            "NLL": nll(y, prediction),
            "CRPS": crps(y, prediction),
            "RMSE": root_mean_squared_error(y, prediction.mean()),
            "90% coverage": coverage(y, prediction, level=0.9),
        }
    else:
        labels = np.unique(y)
        figures = {
            "log loss": log_loss(y, prediction, labels=labels),
            "Brier": brier_score_loss(y, prediction, labels=labels),
            "accuracy": accuracy_score(y, labels[prediction.argmax(axis=1)]),
            "90% coverage": set_coverage(y, prediction, labels, level=0.9),
        }
    return figures | {"fit time": forecast.seconds}


def set_coverage(
    y: np.ndarray, proba: np.ndarray, classes: np.ndarray, *, level: float = 0.9
) -> float:
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


def format_scores(forecasts: dict[str, Forecast]) -> str:
    """Lay out the scores of all methods as an aligned table."""
    figures = {METHODS[method]: scores(forecast) for method, forecast in forecasts.items()}
    cells = {"method": list(scores(forecasts[SHOWN]))} | {
        label: [FORMATS.get(name, "{:#.4g}").format(value) for name, value in row.items()]
        for label, row in figures.items()
    }
    return "\n".join(
        f"{label:<10}" + "".join(f"{cell:>14}" for cell in row) for label, row in cells.items()
    )


def draw(table: Table, forecasts: dict[str, Forecast], path: Path) -> None:
    """Draw what M-ProbMix predicts beside how well all methods are calibrated.

    Parameters
    ----------
    table : Table
    forecasts : dict of str to Forecast
        As returned by `evaluate`.
    path : Path
        Where the picture is written.
    """
    # The object, not pyplot: whatever backend the caller uses is left alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    for method, (y, prediction, _) in forecasts.items():
        options = {"name": METHODS[method], "ax": right}
        if table.task == "classification":
            p, y, event = _events(table, y, np.asarray(prediction))
            prediction, options = np.column_stack([1 - p, p]), options | {"n_bins": N_BINS}
            if method == SHOWN:
                _draw_probabilities(left, p, y, event)
        elif method == SHOWN:
            PredictiveIntervalDisplay.from_predictions(y, prediction, kind="bars", ax=left)
            left.set_ylabel(table.target)
        ReliabilityDisplay.from_predictions(y, prediction, **options)
    left.set_title(f"{METHODS[SHOWN]} on {len(y)} test rows")
    right.set_title("Calibration")
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


def _run(table: Table, folder: Path, max_epochs: int | None) -> None:
    start = time.perf_counter()
    n_rows, n_features = table.X.shape
    print(f"{table.name}: {table.task} of {table.target} from {n_features} columns, {n_rows} rows")
    forecasts = evaluate(table, max_epochs=max_epochs)
    print(format_scores(forecasts))
    print(f"On {len(forecasts[SHOWN].y)} test rows. {NOTES[table.task]}")
    path = folder / f"probmix_{'_'.join(table.name.split())}.png"
    try:
        draw(table, forecasts, path)
    except ImportError:
        print("No picture: matplotlib is missing. pip install matplotlib")
    else:
        print(f"Picture: {path}")
    print(f"Took {time.perf_counter() - start:.0f} s\n", flush=True)


def _read_columns(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the cells of each column, without blanks around them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from error
    if not text.strip():
        raise ValueError(f"{path} is empty; expected a line of column names, and rows.")
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    try:
        cells = np.loadtxt(io.StringIO(text), object, None, delimiter, ndmin=2, quotechar='"')
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).partition(';')[0]}") from error
    header, *rows = [[cell.strip() for cell in row] for row in cells]
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise ValueError(f"{path} has several columns of the names {sorted(repeated)}.")
    if not rows:
        raise ValueError(f"{path} has a header but no rows.")
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def _parse_column(name: str, cells: tuple[str, ...]) -> np.ndarray:
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


def _parse_target(
    name: str, cells: tuple[str, ...], task: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the response, and the mask of rows to keep."""
    y = _parse_column(name, cells)
    known = np.array([value is not None and value == value for value in y])
    is_number = y.dtype.kind == "f"
    if task is None:
        values = np.unique(y[known]) if is_number else np.array([])
        few = len(values) <= MAX_CLASSES and np.all(np.equal(values, np.round(values)))
        task = "classification" if few else "regression"
    if task == "regression":
        if not is_number:
            raise ValueError(f"Column {name!r} holds text; expected numbers for regression.")
        kept = known
    else:
        y = np.array(cells)
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


def _encoder(table: Table) -> ColumnTransformer:
    """Fill in missing numbers; turn text into indicators, with one of its own if missing."""
    indicators = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False
    )
    medians = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_column_transformer((medians, table.numeric), (indicators, table.text))


def _events(table: Table, y: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Probabilities of one event, whether it happened, and what it is called."""
    classes = np.unique(y)
    if len(classes) == 2:
        return proba[:, 0], y == classes[0], f"{table.target} = {classes[0]}"
    return proba.max(axis=1), y == classes[proba.argmax(axis=1)], "the class predicted"


def _draw_probabilities(axes: Any, p: np.ndarray, happened: np.ndarray, event: str) -> None:
    """Predicted probabilities of all test rows in order, and whether it happened."""
    order = np.argsort(p, kind="stable")
    axes.plot(p[order], color=COLORS[0], lw=2, label="predicted probability")
    for value, color, label in [(1, COLORS[1], "it is"), (0, "black", "it is not")]:
        rows = np.flatnonzero(happened[order] == value)
        axes.plot(rows, np.full(len(rows), value), "|", color=color, label=f"{label} ({len(rows)})")
    axes.set(xlabel="test row, in order of the prediction", ylabel=f"probability: {event}")
    axes.legend(loc="center left")


if __name__ == "__main__":
    main()
