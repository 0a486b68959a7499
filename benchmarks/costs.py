"""What ways of fitting cost and bring: ``python -m benchmarks.costs {fit,report}``.

``fit`` runs what is missing, one line of ``benchmarks/results/costs.jsonl`` for every fit of three
quarters of a table (`train_test_split`, 0 for all random states) with some arguments; ``report``
prints seconds of the processor and the scores of the other quarter.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import sklearn
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from benchmarks.data import load_frame
from benchmarks.flat import defaults
from benchmarks.markdown import NOT_RUN, table
from benchmarks.runs import fit_or_report, key
from benchmarks.scores import regression_scores
from sklearn_probmix import ProbMixupRegressor, showcase
from sklearn_probmix.kinds import RACES

TABLES = {
    "diabetes": "331 rows",
    "concrete": "772 rows",
    "auto_imports": "150 rows, 25 columns",
}
WAYS = [
    {},
    {"family": "normal"},
    {"n_members": 3},
    {"method": "fast"},
    {"method": "fast", "n_members": 2},
    {"method": ["erm", "probmix"]},
    {"method": "probmix"},
    {"method": "erm", "n_members": 1},
]
# Of one width for all rows, from out-of-fold errors.
BOOSTING = "gradient boosting"


def load(root, name):
    """Return X and y of a table."""
    if name == "diabetes":
        return load_diabetes(return_X_y=True)
    if name == "concrete":
        data = np.loadtxt(Path(root, "uci", name, "data.txt"))
        return data[:, :-1], data[:, -1]
    X, y = load_frame(Path(root, "tables", f"{name}.csv.gz"))
    return X, y.astype(float)


def boosting(X, y):
    """Make the demo's gradient boosting, for arrays of numbers and for frames."""
    texts = [] if isinstance(X, np.ndarray) else X.select_dtypes(exclude="number").columns
    places = [X.columns.get_loc(name) for name in texts]
    models = dict(showcase.models(showcase.Table("", "", np.asarray(X), y, places)))
    return models["gradient boosting + Normal"]


def fit_way(root, settings):
    """Fit one way, and score the rows that were not trained on."""
    X, X_test, y, y_test = train_test_split(*load(root, settings["table"]), random_state=0)
    if "peer" in settings:
        est, X, X_test = boosting(X, y), np.asarray(X), np.asarray(X_test)
    else:
        est = ProbMixupRegressor(**settings["arguments"], random_state=0)
    # The first fit of a process loads what torch needs.
    ProbMixupRegressor(method="erm", n_members=1, max_epochs=1).fit(
        [[0.0], [1.0]] * 10, [0, 1] * 10
    )
    with threadpool_limits(1):
        start = time.process_time()
        est.fit(X, y)
        seconds = time.process_time() - start
    return regression_scores(y_test, est.predict_proba(X_test)) | {"fit_seconds": seconds}


def jobs(tables):
    """List the fits, the quick ones first; what the defaults are is part of what a fit is."""
    parameters = defaults(ProbMixupRegressor())
    named = {name: value for name, value in parameters.items() if name not in ("auto", "race")}
    ours = [
        {
            "arguments": way,
            "parameters": (parameters if way.get("method", "auto") in RACES else named) | way,
        }
        for way in reversed(WAYS)
    ]
    peer = {"peer": BOOSTING, "version": sklearn.__version__}
    return [{"table": name} | way for way in [peer, *ours] for name in tables]


def title(way):
    """Write arguments as they are passed."""
    shown = ", ".join(f"{name}={json.dumps(value)}" for name, value in way.items())
    return f"`{shown}`" if way else "the default"


def report(results):
    """Render a row for every way; where today's defaults have not run, the fits that ran last.

    Parameters
    ----------
    results : dict
        As `read_results` gives them.

    Returns
    -------
    str
        Markdown: seconds, CRPS and NLL.
    """
    last = {_place(result["settings"]): result for result in results.values()}
    today = {_place(job): key(job) for job in jobs(TABLES)}
    rows = []
    for way in [*map(title, WAYS), BOOSTING]:
        row, is_today = {"`ProbMixupRegressor(...)`": way}, True
        for name, size in TABLES.items():
            text = today[name, way]
            result = results.get(text, last.get((name, way)))
            # Another version of a peer is not another peer.
            is_today &= result is None or text in results or way == BOOSTING
            row[f"{name}, {size}"] = cell(result["scores"]) if result else NOT_RUN
        row["`ProbMixupRegressor(...)`"] += "" if is_today else " (of earlier defaults)"
        rows.append(row)
    return table(rows)


def _place(settings):
    return settings["table"], settings.get("peer") or title(settings["arguments"])


def cell(scores):
    """Write seconds, CRPS and NLL."""
    seconds, score = scores["fit_seconds"], scores["crps"]
    digits = 2 if score < 10 else 1 if score < 100 else 0
    return f"{seconds:.{0 if seconds >= 9.5 else 1}f} s: {score:,.{digits}f} / {scores['nll']:.2f}"


def against(results, name):
    """Say what the CRPS of the default is, and of gradient boosting."""
    last = {_place(result["settings"]): result["scores"] for result in results.values()}
    places = [(name, title({})), (name, BOOSTING)]
    if not all(place in last for place in places):
        return NOT_RUN
    return ", against ".join(f"{last[place]['crps']:,.0f}" for place in places)


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))

    def todo(options):
        return jobs(options.tables)

    fit_or_report(parser, argv, fit_way, todo, report, name="costs", reads_data=True)


if __name__ == "__main__":
    main()
