"""Our default on responses of known density: ``python -m benchmarks.truths {fit,report}``.

``fit`` runs what is missing, one line of ``benchmarks/results/truths.jsonl`` for every fit: of the
default, of the right family named by hand, and of scikit-learn's PoissonRegressor where the law is
a Poisson's. ``report`` prints, for each law and number of rows, the excess of the test NLL over
that of the true density, and what intervals cover. Where the law has atoms the NLL is that of
cells, so that masses and densities are scored alike.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import sklearn
from sklearn.linear_model import PoissonRegressor
from threadpoolctl import threadpool_limits

from benchmarks.flat import defaults
from benchmarks.markdown import NOT_RUN, table
from benchmarks.runs import fit_or_report, key
from benchmarks.truths.laws import CELLS, LAWS, POISSON, RIGHT, draw
from sklearn_probmix import PredictiveDistribution, ProbMixupRegressor, get_family
from sklearn_probmix.metrics import pit_values

LEVELS = 0.5, 0.8, 0.95
N_TEST = 3000
PEER = "PoissonRegressor"


def named_family(name):
    """Make a family; "hurdle of gamma" is a hurdle with another family beside it."""
    name, _, positive = name.partition(" of ")
    return get_family(name, positive=positive) if positive else name


def _ours(settings, X, y, X_test):
    family = named_family(settings["family"])
    est = ProbMixupRegressor(family=family, random_state=settings["seed"])
    return est.fit(X, y).predict_proba(X_test)


def _poisson_regressor(settings, X, y, X_test):
    # Its solver stops early on large counts, so it learns them in units of the mean.
    unit = y.mean()
    glm = PoissonRegressor(alpha=0, tol=1e-8, max_iter=1000).fit(X, y / unit)
    return PredictiveDistribution("poisson", {"mu": unit * glm.predict(X_test)[:, None]})


def fit_law(settings):
    """Fit the default, a family by name or a peer, and compare with the truth."""
    law, n_rows = settings["law"], settings["n_rows"]
    X, y, log_p = draw(law, n_rows + N_TEST, settings["seed"])
    fit = _poisson_regressor if settings.get("peer") == PEER else _ours
    start = time.process_time()
    with threadpool_limits(1):
        dist = fit(settings, X[:n_rows], y[:n_rows], X[n_rows:])
    seconds = time.process_time() - start
    truth = y[n_rows:]
    if law in CELLS:
        width = CELLS[law]
        # Zero is an atom of all these laws.
        log_q = dist.log_probability(truth, width) - np.where(truth == 0, 0.0, np.log(width))
    else:
        log_q = dist.logpdf(truth)
    # Of intervals whose ends may cut an atom; whole atoms would cover more than they promise.
    from_median = np.abs(pit_values(truth, dist, random_state=0) - 0.5)
    covered = {f"coverage_{level}": float(np.mean(from_median <= level / 2)) for level in LEVELS}
    return {
        "excess": float(log_p[n_rows:].mean() - log_q.mean()),
        "discrete": float(dist.is_discrete),
        "seconds": seconds,
        **covered,
    }


def jobs(laws, n_rows, seeds, families):
    """List the fits, breadth first; "right" is the family of a law, and a peer is of some laws."""
    parameters = defaults(ProbMixupRegressor())
    peer = {"family": "poisson", "peer": PEER, "version": sklearn.__version__}
    return [
        {"law": law, "n_rows": n, "seed": seed}
        | (
            peer
            if family == PEER
            else {"family": RIGHT[law] if family == "right" else family, "parameters": parameters}
        )
        for seed in range(seeds)
        for n in n_rows
        for law in laws
        for family in families
        if family != PEER or law in POISSON
    ]


def report(results):
    """Render means over seeds as Markdown, of fits with today's parameters."""
    parameters, cells = key(defaults(ProbMixupRegressor())), {}
    for result in results.values():
        settings = result["settings"]
        is_of_today = "peer" in settings or key(settings["parameters"]) == parameters
        if is_of_today and "scores" in result:
            place = settings["law"], settings["n_rows"], settings.get("peer", settings["family"])
            cells.setdefault(place, []).append(result["scores"])
    rows = []
    for (law, n_rows, family), scores in sorted(cells.items()):
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
    return table(rows) if rows else NOT_RUN


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truths", description=__doc__)
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=LAWS)
    parser.add_argument("--rows", nargs="+", type=int, default=[300, 1000, 3000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--families",
        nargs="+",
        default=["auto", "right", PEER],
        help="auto, right (that of the law), PoissonRegressor (of Poisson laws), or any by name",
    )

    def todo(options):
        return jobs(options.laws, options.rows, options.seeds, options.families)

    fit_or_report(parser, argv, fit_law, todo, report, name="truths", reads_data=False)


if __name__ == "__main__":
    main()
