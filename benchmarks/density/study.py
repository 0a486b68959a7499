"""One fit of the benchmark, and the list of them."""

from __future__ import annotations

import time

from threadpoolctl import threadpool_limits

from benchmarks.density.scores import densities_on, grid_of, grid_scores, whole_scores
from benchmarks.density.tables import SETS, read_set, split_of
from benchmarks.flat import defaults
from sklearn_probmix import ProbMixupRegressor

__all__ = ["fit_set", "jobs"]


def fit_set(root, settings):
    """Fit the default to one split, and score it with and without the benchmark's grid.

    Scores on the grid have names that begin with "grid_".
    """
    X, y = read_set(root, settings["dataset"])
    X, X_test, y, y_test = split_of(X, y, settings["rows"], settings["seed"])
    est = ProbMixupRegressor(random_state=settings["seed"])
    with threadpool_limits(1):
        start = time.process_time()
        dist = est.fit(X, y).predict_proba(X_test)
        seconds = time.process_time() - start
        grid = grid_of(y)
        on_grid = grid_scores(y_test, densities_on(grid, dist), grid)
        scores = whole_scores(y_test, dist)
    return (
        scores | {f"grid_{name}": value for name, value in on_grid.items()} | {"seconds": seconds}
    )


def jobs(sets, rows, seeds):
    """List the fits, breadth first.

    Parameters
    ----------
    sets : sequence of str
    rows : sequence of int
        Of training and test part together; a set of fewer has no such fit.
    seeds : int

    Returns
    -------
    list of dict
    """
    parameters = defaults(ProbMixupRegressor())
    return [
        {"dataset": name, "rows": n, "seed": seed, "parameters": parameters}
        for seed in range(seeds)
        for n in rows
        for name in sets
        if n <= SETS[name].n_rows
    ]
