"""What tables of few rows need of a race: ``python -m benchmarks.small {fit,report}``.

``fit`` fits each method to rows drawn from the training rows of split 0 of the UCI tables, scores
it on the test rows, and writes one line of ``benchmarks/results/small.jsonl`` for every fit;
``report`` prints paired differences from "auto", with their standard errors over draws and tables.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import numpy as np

from benchmarks.data import load_split
from benchmarks.runs import fit_or_report
from benchmarks.scores import regression_scores
from sklearn_probmix import ProbMixupRegressor

__all__ = ["fit", "jobs", "report"]

# Those whose y is no grid, so that log densities compare.
DATASETS = "yacht", "energy", "concrete", "bostonHousing", "kin8nm", "power-plant"
METHODS = "auto", "fast", "parametric"
_MOST_TEST_ROWS = 500


def fit(data, settings):
    """Fit one method to a few rows, and score it.

    Parameters
    ----------
    data : path-like
        Folder of the data.
    settings : dict
        With "dataset", "rows", "seed" and "method".

    Returns
    -------
    dict of str to float
        With "seconds" of the processor.
    """
    X, X_test, y, y_test = load_split(data, settings["dataset"], 0)
    rng = np.random.default_rng(settings["seed"])
    rows = rng.choice(len(X), size=settings["rows"], replace=False)
    tests = rng.permutation(len(X_test))[:_MOST_TEST_ROWS]
    est = ProbMixupRegressor(method=settings["method"], random_state=settings["seed"])
    start = time.process_time()
    dist = est.fit(X[rows], y[rows]).predict_proba(X_test[tests])
    seconds = time.process_time() - start
    return regression_scores(y_test[tests], dist) | {"seconds": seconds}


def jobs(rows, seeds, methods=METHODS):
    """List the fits, breadth first.

    Parameters
    ----------
    rows : sequence of int
        That train.
    seeds : int
        Draws of rows from each table.
    methods : sequence of str

    Returns
    -------
    list of dict
        Settings, as `fit` takes them.
    """
    return [
        {"dataset": name, "rows": n, "seed": seed, "method": method}
        for seed in range(seeds)
        for n in rows
        for name in DATASETS
        for method in methods
    ]


def report(results):
    """Write paired differences from "auto": NLL in nats, and CRPS and seconds as parts of its.

    Parameters
    ----------
    results : dict of str to dict
        Lines of results.

    Returns
    -------
    str
        Markdown.
    """
    fits = defaultdict(dict)
    for result in results.values():
        settings = result["settings"]
        place = settings["rows"], settings["dataset"], settings["seed"]
        fits[settings["method"], settings["rows"]][place] = result["scores"]
    lines = [
        "| rows | method | fits | NLL, less that of auto | CRPS, part of auto's | coverage of 90 % "
        "| seconds, part of auto's |",
        "|---|---|---|---|---|---|---|",
    ]
    for (method, rows), own in sorted(fits.items(), key=lambda item: item[0][::-1]):
        places = sorted(own.keys() & fits["auto", rows].keys())
        pairs = [(own[place], fits["auto", rows][place]) for place in places]
        nll = np.array([a["nll"] - b["nll"] for a, b in pairs])
        crps = np.array([np.log(a["crps"] / b["crps"]) for a, b in pairs])
        seconds = sum(a["seconds"] for a, _ in pairs) / sum(b["seconds"] for _, b in pairs)
        coverage = np.mean([a["coverage"] for a, _ in pairs])
        found = " | ".join(
            f"{change:{spec}} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"
            for change, values, spec in (
                (nll.mean(), nll, "+.3f"),
                (np.exp(crps.mean()), crps, ".3f"),
            )
        )
        lines.append(
            f"| {rows} | {method} | {len(pairs)} | {found} | {coverage:.2f} | {seconds:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[30, 60, 120])
    parser.add_argument("--seeds", type=int, default=5)
    fit_or_report(
        parser,
        argv,
        fit,
        lambda options: jobs(options.rows, options.seeds),
        report,
        name="small",
        reads_data=True,
    )


if __name__ == "__main__":
    main()
