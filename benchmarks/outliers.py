"""What one wild value costs: ``python -m benchmarks.outliers {fit,report}``.

``fit`` fits ``method="fast"`` to a random three quarters of a table, as they are and with one value
moved by 50 standard deviations, and writes one line of ``benchmarks/results/outliers.jsonl`` for
every fit; ``report`` prints the CRPS of the other quarter with the value over that without it.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from benchmarks.markdown import table
from benchmarks.runs import fit_or_report
from sklearn_probmix import ProbMixupRegressor

__all__ = ["fit", "jobs", "report"]

TABLES = "diabetes", "concrete"
# Columns of X, or y; None moves nothing.
MOVED = None, 2, 5, "y"
_DEVIATIONS = 50


def _read(data, name):
    if name == "diabetes":
        return load_diabetes(return_X_y=True)
    rows = np.loadtxt(Path(data, "uci", name, "data.txt"))
    return rows[:, :-1], rows[:, -1]


def fit(data, settings):
    """Fit to rows of which one has a wild value, and score on others.

    Parameters
    ----------
    data : path-like
        Folder of the data.
    settings : dict
        With "dataset", "split" and "moved".

    Returns
    -------
    dict of str to float
        The "crps", in the units of y.
    """
    split, moved = settings["split"], settings["moved"]
    X, y = _read(data, settings["dataset"])
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=split)
    row = np.random.default_rng(split).integers(len(X))
    if moved is not None:
        values = y if moved == "y" else X[:, moved]
        values[row] += _DEVIATIONS * values.std()
    with warnings.catch_warnings():
        # A far response is left out with a warning.
        warnings.simplefilter("ignore", UserWarning)
        est = ProbMixupRegressor(method="fast", random_state=split).fit(X, y)
    return {"crps": float(est.predict_proba(X_test).crps(y_test).mean())}


def jobs(datasets, splits):
    """List the fits, breadth first.

    Parameters
    ----------
    datasets : sequence of str
    splits : int

    Returns
    -------
    list of dict
        Settings, as `fit` takes them.
    """
    return [
        {"dataset": name, "split": split, "moved": moved}
        for split in range(splits)
        for name in datasets
        for moved in MOVED
    ]


def report(results):
    """Write the CRPS with the value over that without it, of each split.

    Parameters
    ----------
    results : dict of str to dict
        Lines of results.

    Returns
    -------
    str
        Markdown.
    """
    found = {}
    for result in results.values():
        dataset, split, moved = (result["settings"][name] for name in ("dataset", "split", "moved"))
        found.setdefault(dataset, {}).setdefault(moved, {})[split] = result["scores"]["crps"]
    rows = []
    for dataset, crps in found.items():
        plain = crps.pop(None, {})
        for moved, own in crps.items():
            ratios = [own[split] / plain[split] for split in sorted(own.keys() & plain.keys())]
            value = "y" if moved == "y" else f"column {moved} of X"
            ratios = ", ".join(f"{ratio:.3f}" for ratio in ratios)
            rows.append({"table": dataset, "moved": value, "CRPS with over without": ratios})
    return table(rows)


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outliers", description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--splits", type=int, default=3)
    fit_or_report(
        parser,
        argv,
        fit,
        lambda options: jobs(options.datasets, options.splits),
        report,
        name="outliers",
        reads_data=True,
    )


if __name__ == "__main__":
    main()
