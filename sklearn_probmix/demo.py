"""Fit the default and two baselines to a table, print their scores, and draw the outcome.

``python -m sklearn_probmix.demo`` does so for two tables that scikit-learn bundles, and
``python -m sklearn_probmix.demo --csv FILE --target COLUMN`` for a table of one's own.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sklearn_probmix.csv_table import CsvTable, column_names, read_csv

if TYPE_CHECKING:
    from sklearn_probmix.showcase import Table

MIN_ROWS = 40
MOST_ROWS = 4000
# Rows of a class that both parts of the table need.
_LEAST_OF_A_CLASS = 8
# Share of rows with a date where these say in which order all are.
_DATED = 0.5
_SIGNS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "point": "."}
_PARTS_IN_PANDAS = {
    "days since 1970": "({0} - pd.Timestamp(0)) / pd.Timedelta(days=1)",
    "month": "{0}.dt.month",
    "weekday": "{0}.dt.weekday",
    "hour": "{0}.dt.hour + {0}.dt.minute / 60",
}
RACE = (
    "  a race of networks on {n_rows} rows: some 15 seconds of the processor where there are 300\n"
    "  (counts and skewed responses take up to three times that), minutes on thousands;\n"
    "  Ctrl-C ends it with what there is. At 100 % the mixture is still to be calibrated"
)
NOTES = {
    True: "CRPS is the mean error of the distribution in units of {target},\n"
    "NLL minus its log-density at the truth: less is better. The last columns say how many of\n"
    "the 90 % intervals hold the truth, and how wide these are.",
    False: "Log loss and Brier score of the probabilities: less is better.",
}


def bundled_tables() -> list[Table]:
    """Two tables that scikit-learn brings along: diabetes and breast cancer."""
    from sklearn.datasets import load_breast_cancer, load_diabetes

    from sklearn_probmix.showcase import Table

    diabetes, cancer = load_diabetes(), load_breast_cancer()
    diagnosis = cancer.target_names[cancer.target]
    return [
        Table("diabetes", "disease progression", diabetes.data, diabetes.target, []),
        Table("breast cancer", "diagnosis", cancer.data, diagnosis, []),
    ]


def to_table(found: CsvTable, most_rows: int | None = MOST_ROWS) -> Table:
    """Make arrays of what a file holds, of at most so many rows, the earliest first.

    Parameters
    ----------
    found : CsvTable
    most_rows : int or None, default=4000
        Drawn at random where there are more; None takes all.
    """
    import numpy as np

    from sklearn_probmix.showcase import Table

    categories = [place for place, column in enumerate(found.columns) if column.is_category]
    X = np.empty((len(found.y), len(found.columns)), dtype=object if categories else float)
    for place, column in enumerate(found.columns):
        X[:, place] = column.values
    y = np.array(found.y)
    if most_rows is not None and len(y) > most_rows:
        some = np.sort(np.random.default_rng(0).permutation(len(y))[:most_rows])
        X, y = X[some], y[some]
    for place, column in enumerate(found.columns):
        for step in (1, -1) if column.date else ():
            days = X[::step, place].astype(float)
            # Rows without a date keep their place.
            known = days[~np.isnan(days)]
            if len(known) >= _DATED * len(y) and (np.diff(known) >= 0).all():
                return Table(
                    found.name, found.target, X[::step], y[::step], categories, column.date
                )
    return Table(found.name, found.target, X, y, categories)


def main(argv: list[str] | None = None) -> None:
    """Run the demo; `argv` are the arguments of the command line."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.csv is None and options.target is not None:
        parser.error("--target needs --csv FILE.")
    of_csv = [name for name in ("task", "delimiter", "decimal", "rows") if getattr(options, name)]
    if of_csv and options.csv is None:
        parser.error(f"--{of_csv[0]} needs --csv FILE and --target COLUMN.")
    for name in ("epochs", "rows"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: expected at least 1.")
    try:
        folder = _made(options.output)
        found = None if options.csv is None else _read(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print("Loading torch and scikit-learn ...", flush=True)
    tables = bundled_tables() if found is None else [to_table(found, options.rows or MOST_ROWS)]
    settings = {} if options.epochs is None else {"max_epochs": options.epochs}
    for table in tables:
        _run(table, folder, settings)


def _made(output: str) -> Path:
    """Make the folder, and refuse one that takes no files."""
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(
            f"--output {output}: no file can be made there ({error.strerror}); expected a folder "
            "for pictures."
        ) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error alone: the usage would hide it."""
        self.exit(2, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sklearn_probmix.demo", description=__doc__)
    parser.add_argument("--csv", metavar="FILE", help="table with a header line")
    parser.add_argument("--target", metavar="COLUMN", help="column of FILE to predict")
    parser.add_argument(
        "--task",
        choices=["regression", "classification"],
        help="default: classification if the target is text or has two values",
    )
    parser.add_argument(
        "--delimiter", choices=list(_SIGNS)[:4], help="between cells; default: found in FILE"
    )
    parser.add_argument(
        "--decimal", choices=["point", "comma"], help="before decimals; default: found in FILE"
    )
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help=f"use at most N rows, drawn at random; default: {MOST_ROWS}",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", default=".", help="where pictures go; default: here"
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="no race of networks: N epochs of each, for a look"
    )
    return parser


def _read(options: argparse.Namespace) -> CsvTable:
    """Read the file and print what became of each column."""
    delimiter = _SIGNS.get(options.delimiter)
    if options.target is None:
        names = column_names(options.csv, delimiter)
        raise ValueError(f"--csv needs --target COLUMN; expected one of {names}.")
    found = read_csv(
        options.csv,
        options.target,
        task=options.task,
        delimiter=delimiter,
        decimal=_SIGNS.get(options.decimal),
    )
    found = _without_rare_classes(found)
    if len(found.y) < MIN_ROWS:
        raise ValueError(
            f"Column {found.target!r} is known in {len(found.y)} rows; expected {MIN_ROWS} or more."
        )
    print(f"{options.csv}: {found.layout}")
    width = max(map(len, [*found.treatments, found.target]))
    for name, treatment in found.treatments.items():
        print(f"  {name:<{width}}  {treatment}")
    is_class = isinstance(found.y[0], str)
    n_unknown = found.n_unknown
    left_out = f"; {n_unknown} rows without it are left out" if n_unknown else ""
    what = "classes" if is_class else "a number"
    print(f"  {found.target:<{width}}  to predict: {what}{left_out}")
    if not is_class and len(set(found.y)) <= 10:
        print("  (few values: --task classification would take them as classes)")
    most = options.rows or MOST_ROWS
    if len(found.y) > most:
        print(f"  (of {len(found.y)} rows {most} are drawn at random: --rows takes another number)")
    print(f"In pandas: {_in_pandas(options.csv, found)}")
    print(f"  (learn from X, its columns but {found.target!r}; predict new[X.columns] of new rows)")
    return found


def _in_pandas(path: str, found: CsvTable) -> str:
    """Write what reads the file as it was read here, and makes the same numbers of dates."""
    arguments = [repr(path), *(f"{name}={value!r}" for name, value in found.options.items())]
    steps = [f"dropna(subset=[{found.target!r}])"] if found.n_unknown else []
    given = [name for name, words in found.treatments.items() if words.startswith("dropped")]
    made = {column.name for column in found.columns}
    for name in (name for name, words in found.treatments.items() if words.startswith("date")):
        given.append(name)
        steps += [
            f"assign(**{{{key!r}: lambda t: {code.format(f't[{name!r}]')}}})"
            for part, code in _PARTS_IN_PANDAS.items()
            if (key := f"{name}, {part}") in made
        ]
    steps += [f"drop(columns={given})"] if given else []
    code = f"pd.read_csv({', '.join(arguments)})"
    if len(steps) < 3:
        return ".".join([code, *steps])
    return "\n    .".join([f"({code}", *steps]) + "\n)"


def _without_rare_classes(found: CsvTable) -> CsvTable:
    counts = Counter(found.y)
    if not isinstance(found.y[0], str):
        return found
    rare = {label for label, n in counts.items() if n < _LEAST_OF_A_CLASS}
    if len(counts) - len(rare) < 2:
        raise ValueError(
            f"Column {found.target!r} holds {len(counts)} classes; expected at least two with "
            f"{_LEAST_OF_A_CLASS} rows or more. For numbers try --task regression."
        )
    if not rare:
        return found
    kept = [place for place, label in enumerate(found.y) if label not in rare]
    print(f"Left out {len(found.y) - len(kept)} rows of classes with few: {sorted(rare)[:5]}")
    columns = [
        column._replace(values=[column.values[place] for place in kept]) for column in found.columns
    ]
    y, rows = ([part[place] for place in kept] for part in (found.y, found.rows))
    return found._replace(columns=columns, y=y, rows=rows)


def _run(table: Table, folder: Path, settings: dict[str, Any]) -> None:
    from sklearn_probmix import showcase

    start = time.perf_counter()
    n_rows, n_features = table.X.shape
    task = "numbers" if table.is_regression else "classes"
    print(f"\n{table.name}: {table.target} ({task}) from {n_features} columns of {n_rows} rows")
    train, test = showcase.divide(table)
    if table.is_tested_on_last:
        print(f"Tested on the last {len(test)} rows: {table.in_order_of!r} is in order of time")
    rivals = []
    for step in showcase.fit_all(table, **(settings or {"verbose": 1})):
        if isinstance(step, str):
            print(f"{step} ...", flush=True)
            if step.startswith("Fitting ProbMixup") and not settings:
                print(RACE.format(n_rows=len(train)), flush=True)
        else:
            rivals.append(step)
    *others, default = rivals
    print("\n" + showcase.format_scores(rivals))
    print(NOTES[table.is_regression].format(target=table.target))
    if not settings:
        n_kinds = len(default.model.kinds_)
        kept = "1 kind is" if n_kinds == 1 else f"{n_kinds} kinds are"
        print(f'"auto": {showcase.reasons(table)}; {kept} kept.')
    print(textwrap.fill(showcase.verdict(default, others), 90))
    for line in showcase.remarks(table, rivals):
        print(textwrap.fill(line, 98, subsequent_indent="  "))
    print("Drawing the picture ...", flush=True)
    path = folder / f"probmix_{'_'.join(table.name.split())}.png"
    try:
        showcase.draw(table, rivals, path)
    except ImportError:
        print("No picture: matplotlib is missing. pip install matplotlib")
    else:
        print(f"Picture: {path}")
    print(f"Took {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
