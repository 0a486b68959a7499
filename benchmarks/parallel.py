"""Two workers against one, and fits that are killed: ``python -m benchmarks.parallel``.

* fit: the default on 1,000 rows of ten columns, with ``n_jobs=1`` and ``n_jobs=2`` in turns;
* search: a GridSearchCV of twelve default fits on 1,000 rows, likewise, once;
* kills: a default fit of 80 rows with ``checkpoint=``, killed at moments drawn evenly from its
  time, and fitted again; how many predict as one that was left alone.

Every worker has one torch thread. Seconds are those of the clock on the wall: run it where nothing
else runs. Results are kept in ``benchmarks/results/parallel.json``, those of parts that are not run
as they were.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV

from benchmarks.markdown import NOT_RUN, table
from benchmarks.runs import RESULTS
from sklearn_probmix import ProbMixupRegressor, neg_crps_scorer

__all__ = ["PARTS", "killed", "main", "report"]

N_ROWS, N_COLUMNS, N_KILLED_ROWS = 1_000, 10, 80
ROUNDS, KILLS = 3, 20
GRID = {"alpha": [0.1, 0.2, 0.4, 0.8]}
HEAD = "`n_jobs=1`, s", "`n_jobs=2`, s", "ratio", "results"


def _rows(n_rows):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, N_COLUMNS))
    noise = 0.3 * (1 + np.abs(X[:, 2])) * rng.normal(size=n_rows)
    return X, X[:, 0] + np.sin(3 * X[:, 1]) + noise


def _predicted(est, X):
    dist = est.predict_proba(X)
    return np.stack([dist.mean(), dist.std()])


def _seconds(run, n_jobs):
    start = time.perf_counter()
    result = run(n_jobs)
    return time.perf_counter() - start, result


def fit():
    """Seconds of one default fit by one worker and by two, and whether they agree in every bit."""
    X, y = _rows(N_ROWS)

    def run(n_jobs):
        return _predicted(ProbMixupRegressor(n_jobs=n_jobs, random_state=0).fit(X, y), X)

    turns = [[_seconds(run, n_jobs) for n_jobs in (1, 2)] for _ in range(ROUNDS)]
    one, two = ([seconds for seconds, _ in turn] for turn in zip(*turns, strict=True))
    found = [result for turn in turns for _, result in turn]
    return {"one": one, "two": two, "same": all(np.array_equal(each, found[0]) for each in found)}


def search():
    """Seconds of a search by one worker and by two, and whether the results are equal."""
    X, y = _rows(N_ROWS)

    def run(n_jobs):
        est = ProbMixupRegressor(random_state=0)
        return (
            GridSearchCV(est, GRID, scoring=neg_crps_scorer, cv=3, refit=False, n_jobs=n_jobs)
            .fit(X, y)
            .cv_results_["mean_test_score"]
        )

    (one, first), (two, second) = (_seconds(run, n_jobs) for n_jobs in (1, 2))
    return {"one": [one], "two": [two], "same": np.array_equal(first, second)}


def kills():
    """How many fits, killed and fitted again, predict as one that was left alone."""
    X, y = _rows(N_KILLED_ROWS)
    context = multiprocessing.get_context("fork")

    def fit_and_tell(folder, pipe):
        pipe.send(_predicted(ProbMixupRegressor(checkpoint=folder, random_state=0).fit(X, y), X))

    def start(folder):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=fit_and_tell, args=(folder, theirs))
        process.start()
        return process, ours

    def whole(folder):
        process, pipe = start(folder)
        result = pipe.recv()
        process.join()
        return result

    with tempfile.TemporaryDirectory() as folder:
        seconds, expected = _seconds(lambda n_jobs: whole(folder), 1)
    n_killed, n_equal = 0, 0
    for moment in np.random.default_rng(0).uniform(0, seconds, size=KILLS):
        with tempfile.TemporaryDirectory() as folder:
            process, _ = start(folder)
            time.sleep(moment)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            n_killed += process.exitcode == -signal.SIGKILL
            n_equal += np.array_equal(whole(folder), expected)
    return {"killed": n_killed, "equal": n_equal, "of": KILLS}


PARTS = {"fit": fit, "search": search, "kills": kills}


def report(found):
    """Render results as Markdown.

    Parameters
    ----------
    found : dict
        Of each part that was run, what its function returned.
    """
    titles = {
        "fit": f"a default fit of {N_ROWS:,} rows, median of {ROUNDS}",
        "search": f"GridSearchCV of twelve default fits of {N_ROWS:,} rows",
    }
    rows = []
    for part, title in titles.items():
        row = {"": title}
        values = [NOT_RUN] * 4
        if part in found:
            one, two = (np.median(found[part][who]) for who in ("one", "two"))
            same = "the same bits" if found[part]["same"] else "they differ"
            values = [f"{one:.1f}", f"{two:.1f}", f"{one / two:.2f}", same]
        rows.append(row | dict(zip(HEAD, values, strict=True)))
    return table(rows)


def killed(found):
    """Say how many fits that were killed ended as they would have."""
    if "kills" not in found:
        return NOT_RUN
    return "{equal} of {of}".format(**found["kills"])


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all, unless some are named")
    parser.add_argument("--results", type=Path, default=RESULTS / "parallel.json")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = options.results
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in options.parts or PARTS:
        found[part] = PARTS[part]()
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(report(found), f"As if they had not been killed: {killed(found)}.", sep="\n\n")


if __name__ == "__main__":
    main()
