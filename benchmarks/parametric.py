"""Large tables without kernel networks: ``python -m benchmarks.parametric {fit,report}``.

``fit`` fits ``method="parametric"`` to the first splits of three large tables, one line of
``benchmarks/results/parametric.jsonl`` for every fit; ``report`` sets it beside the default and the
quantile forest of `benchmarks.peers`, on the same splits.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.data import load_split
from benchmarks.flat import defaults
from benchmarks.markdown import NOT_RUN, table
from benchmarks.peers.contenders import OURS
from benchmarks.peers.report import fits_of, settings_of_ours
from benchmarks.runs import RESULTS, fit_or_report, key, read_results
from benchmarks.scores import regression_scores
from sklearn_probmix import ProbMixupRegressor

__all__ = ["DATASETS", "fit", "jobs", "report"]

# Those of many rows on which kernel networks have most of the weight of the default.
DATASETS = "parkinsons", "bike", "protein"
_METHOD = {"method": "parametric"}
_SCORES = "nll", "crps", "rmse", "fit_seconds"


def fit(data, settings):
    """Fit the race without kernel networks to one split, in one thread, and score it.

    Parameters
    ----------
    data : path-like
        Folder of the data.
    settings : dict
        With "dataset" and "split".

    Returns
    -------
    dict of str to float
        With "fit_seconds" of the processor.
    """
    X, X_test, y, y_test = load_split(data, settings["dataset"], settings["split"])
    est = ProbMixupRegressor(**_METHOD, random_state=settings["split"])
    with threadpool_limits(1):
        start = time.process_time()
        est.fit(X, y)
        seconds = time.process_time() - start
        return regression_scores(y_test, est.predict_proba(X_test)) | {"fit_seconds": seconds}


def jobs(splits, datasets=DATASETS):
    """List the fits, breadth first; what the defaults are is part of what a fit is.

    Parameters
    ----------
    splits : int
    datasets : sequence of str

    Returns
    -------
    list of dict
        Settings, as `fit` takes them.
    """
    parameters = defaults(ProbMixupRegressor(**_METHOD))
    return [
        {"dataset": name, "split": split, "parameters": parameters}
        for split in range(splits)
        for name in datasets
    ]


def report(results, peers):
    """Write NLL / CRPS / RMSE and the seconds of a fit: means of the splits that all three have.

    Parameters
    ----------
    results : dict
        Of this study.
    peers : dict
        Of the task "regression" of `benchmarks.peers`.

    Returns
    -------
    str
        Markdown.
    """
    stored, _ = settings_of_ours(peers, "regression")
    others = fits_of(peers, "regression", stored)
    n_splits = 1 + max((each["settings"]["split"] for each in results.values()), default=-1)
    # Failed fits have no scores.
    done = [job for job in jobs(n_splits) if "scores" in results.get(key(job), ())]
    rows = []
    for name in DATASETS:
        cells = {
            "the default": others[name, OURS],
            "quantile forest": others[name, "quantile-forest"],
        }
        mine = [job for job in done if job["dataset"] == name]
        own = {job["split"]: results[key(job)]["scores"] for job in mine}
        splits = [split for split in own if all(split in cell.splits for cell in cells.values())]
        if not splits:
            continue
        found = {
            'method="parametric"': [[own[split][score] for split in splits] for score in _SCORES],
            **{
                title: [cell.on(score, splits) for score in _SCORES]
                for title, cell in cells.items()
            },
        }
        texts = {title: _text(*map(np.mean, values)) for title, values in found.items()}
        rows.append({"NLL / CRPS / RMSE: seconds": name, "splits": len(splits)} | texts)
    return table(rows) if rows else NOT_RUN


def _text(nll, crps, rmse, seconds):
    return f"{nll:.2f} / {crps:.4f} / {rmse:.3f}: {seconds:.0f}"


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parametric", description=__doc__)
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    fit_or_report(
        parser,
        argv,
        fit,
        lambda options: jobs(options.splits, options.datasets),
        lambda results: report(results, read_results(RESULTS / "peers-regression.jsonl")),
        name="parametric",
        reads_data=True,
    )


if __name__ == "__main__":
    main()
