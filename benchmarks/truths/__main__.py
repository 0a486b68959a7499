"""Our default on responses of known density: ``python -m benchmarks.truths {fit,report}``.

``fit`` runs what is missing, one line of ``benchmarks/results/truths.jsonl`` for every fit;
``report`` prints, for each law and number of rows, the excess of the test NLL over that of the true
density, and what intervals cover.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.flat import defaults
from benchmarks.markdown import table
from benchmarks.runs import fit_or_report, key
from benchmarks.truths.laws import LAWS, draw
from sklearn_probmix import ProbMixupRegressor
from sklearn_probmix.metrics import coverage

LEVELS = 0.5, 0.8, 0.95
N_TEST = 3000


def fit_law(settings):
    """Fit the default, or a family by name, and compare with the truth."""
    n_rows = settings["n_rows"]
    X, y, log_p = draw(settings["law"], n_rows + N_TEST, settings["seed"])
    est = ProbMixupRegressor(family=settings["family"], random_state=settings["seed"])
    start = time.process_time()
    with threadpool_limits(1):
        est.fit(X[:n_rows], y[:n_rows])
    seconds = time.process_time() - start
    dist, truth = est.predict_proba(X[n_rows:]), y[n_rows:]
    with np.errstate(divide="ignore"):
        log_q = np.log(dist.pmf(truth)) if dist.is_discrete else dist.logpdf(truth)
    covered = {f"coverage_{level}": coverage(truth, dist, level=level) for level in LEVELS}
    return {
        "excess": float(log_p[n_rows:].mean() - log_q.mean()),
        "discrete": float(dist.is_discrete),
        "seconds": seconds,
        **covered,
    }


def jobs(laws, n_rows, seeds, family):
    """List the fits, breadth first."""
    parameters = defaults(ProbMixupRegressor())
    return [
        {"law": law, "n_rows": n, "seed": seed, "family": family, "parameters": parameters}
        for seed in range(seeds)
        for n in n_rows
        for law in laws
    ]


def report(results):
    """Render means over seeds as Markdown, of fits with today's parameters."""
    parameters, cells = key(defaults(ProbMixupRegressor())), {}
    for result in results.values():
        settings = result["settings"]
        if key(settings["parameters"]) == parameters and "scores" in result:
            place = settings["law"], settings["n_rows"], settings["family"]
            cells.setdefault(place, []).append(result["scores"])
    rows = []
    for (law, n_rows, family), scores in cells.items():
        means = {name: np.mean([score[name] for score in scores]) for name in scores[0]}
        covered = " / ".join(f"{means[f'coverage_{level}']:.2f}" for level in LEVELS)
        rows.append(
            {
                "law": law,
                "rows": n_rows,
                "family": family,
                "seeds": len(scores),
                "excess, nats": f"{means['excess']:+.3f}",
                "50 / 80 / 95 % cover": covered,
                "masses or densities": "masses" if means["discrete"] > 0.5 else "densities",
                "seconds": f"{means['seconds']:.0f}",
            }
        )
    return table(rows)


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truths", description=__doc__)
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=LAWS)
    parser.add_argument("--rows", nargs="+", type=int, default=[300, 1000, 3000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--family", default="auto")

    def todo(options):
        return jobs(options.laws, options.rows, options.seeds, options.family)

    fit_or_report(parser, argv, fit_law, todo, report, name="truths", reads_data=False)


if __name__ == "__main__":
    main()
