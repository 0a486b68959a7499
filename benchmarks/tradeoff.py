"""What a second of fitting buys, ours and peers: ``python -m benchmarks.tradeoff {fit,report}``.

``fit`` runs what is missing, one line of ``benchmarks/results/tradeoff.jsonl`` for every fit of the
first split of four tables: ours in the ways of `benchmarks.costs`, and each peer with few trees and
with many. ``report`` prints seconds of the processor and CRPS; ``draw`` writes the picture of them.
Run all of it in one environment and at one time: seconds of two hours do not compare.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmarks.costs import WAYS, title
from benchmarks.data import load_uci_split
from benchmarks.flat import defaults
from benchmarks.markdown import NOT_RUN, table
from benchmarks.peers.contenders import OURS, REGRESSION
from benchmarks.peers.fits import forecast_scores
from benchmarks.runs import RESULTS, fit_or_report, key, read_results
from sklearn_probmix import ProbMixupRegressor

__all__ = ["draw", "fit_point", "jobs", "main", "report", "verdict"]

SETS = "yacht", "concrete", "kin8nm", "power-plant"
# Of each peer, the parameter that its time is in proportion to.
TREES = {
    "ngboost": ("n_estimators", (100, 400, 2000)),
    "catboost": ("iterations", (100, 1000, 5000)),
    "quantile-forest": ("n_estimators", (20, 100, 500)),
}
PICTURE = Path(__file__).parent.parent / "docs" / "tradeoff.png"


def _own_jobs(datasets):
    parameters = defaults(ProbMixupRegressor())
    return [
        {"dataset": dataset, "peer": OURS, "arguments": way, "parameters": parameters | way}
        for way in reversed(WAYS)
        for dataset in datasets
    ]


def jobs(datasets):
    """List the fits, the peers first; what the defaults are is part of what a fit of ours is."""
    others = [
        {"dataset": dataset, "peer": name, "arguments": {parameter: number}}
        | {"version": version(REGRESSION[name].package)}
        for name, (parameter, numbers) in TREES.items()
        for number in numbers
        for dataset in datasets
    ]
    return others + _own_jobs(datasets)


def fit_point(root, settings):
    """Fit once, and score the rows that were not trained on."""
    X, X_test, y, y_test = load_uci_split(Path(root, "uci", settings["dataset"]), 0)
    arguments, peer = settings["arguments"], REGRESSION[settings["peer"]]
    if settings["peer"] == OURS:
        est = ProbMixupRegressor(**arguments, random_state=0)
    else:
        est = peer.make(random_state=0, **(peer.parameters | arguments))
    # The first fit of a process loads what torch needs.
    ProbMixupRegressor(method="erm", n_members=1, max_epochs=1).fit(X[:20], y[:20])
    with threadpool_limits(1):
        start = time.process_time()
        est.fit(X, y)
        seconds = time.process_time() - start
        scores = forecast_scores(y_test, est.predict_proba(X_test))
    return {"crps": scores["crps"], "fit_seconds": seconds}


def _points(results, dataset):
    """Return (peer, how): (seconds, CRPS) of a table, of ours by today's default alone."""
    today = {key(job) for job in _own_jobs(SETS)}
    found = {}
    for text, result in results.items():
        settings = result["settings"]
        is_of_today = settings["peer"] != OURS or text in today
        if settings["dataset"] == dataset and is_of_today and "scores" in result:
            place = settings["peer"], title(settings["arguments"])
            found[place] = result["scores"]["fit_seconds"], result["scores"]["crps"]
    return found


def verdict(results, dataset):
    """Say of each peer whether a way of ours is both quicker and better than its best.

    Parameters
    ----------
    results : dict
        As `read_results` gives them.
    dataset : str

    Returns
    -------
    dict of str to str
        By the title of the peer.
    """
    points, found = _points(results, dataset), {}
    own = [(*point, way) for (name, way), point in points.items() if name == OURS]
    for name in TREES:
        theirs = [point for (peer, _), point in points.items() if peer == name]
        title_ = REGRESSION[name].title
        if not (own and theirs):
            found[title_] = NOT_RUN
            continue
        seconds, score = min(theirs, key=lambda point: point[1])
        as_good = [(time_, way) for time_, crps, way in own if crps <= score]
        if not as_good:
            found[title_] = "no: none of ours is as good"
            continue
        time_, way = min(as_good)
        answer = "yes" if time_ <= seconds else "no"
        found[title_] = f"{answer}: {way} takes {time_ / seconds:.2g} of its time"
    return found


def report(results):
    """Render, as Markdown, all points, and whether there is one of ours below each peer's best."""
    points = {dataset: _points(results, dataset) for dataset in SETS}
    ways = [(OURS, title(way)) for way in WAYS]
    ways += [
        (name, title({parameter: number}))
        for name, (parameter, numbers) in TREES.items()
        for number in reversed(numbers)
    ]
    rows = []
    for name, way in ways:
        cells = {dataset: points[dataset].get((name, way)) for dataset in SETS}
        texts = {
            dataset: f"{cell[0]:.1f} s: {cell[1]:.3g}" if cell else NOT_RUN
            for dataset, cell in cells.items()
        }
        rows.append({"": REGRESSION[name].title, "with": way} | texts)
    verdicts = [{"is one of ours below": name} | verdict(results, name) for name in SETS]
    return f"{table(rows)}\n\n{table(verdicts)}"


def draw(results, path):
    """Draw CRPS against seconds, a panel for each table.

    Parameters
    ----------
    results : dict
    path : path-like
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """Label the ticks that it would, without powers of ten."""

        def __call__(self, x, pos=None):
            return f"{x:g}" if super().__call__(x, pos) else ""

    figure = Figure(figsize=(9, 6.2), layout="constrained")
    for ax, dataset in zip(figure.subplots(2, 2).flat, SETS, strict=True):
        points = _points(results, dataset)
        for name in (OURS, *TREES):
            mine = sorted(point for (peer, _), point in points.items() if peer == name)
            if mine:
                style = {"lw": 2.2, "zorder": 3} if name == OURS else {"lw": 1.2}
                ax.plot(*zip(*mine, strict=True), "o-", label=REGRESSION[name].title, **style)
        ax.set(title=dataset, xscale="log", yscale="log", xlabel="seconds of the fit, one thread")
        ax.set_ylabel("CRPS of the test rows")
        ax.grid(alpha=0.3, which="both")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(Plain())
            axis.set_minor_formatter(Plain(labelOnlyBase=False))
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(argv=None):
    """Run the command line."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["draw"]:
        draw(read_results(RESULTS / "tradeoff.jsonl"), PICTURE)
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tradeoff", description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=SETS, default=SETS)

    def todo(options):
        return jobs(options.datasets)

    fit_or_report(parser, arguments, fit_point, todo, report, name="tradeoff", reads_data=True)


if __name__ == "__main__":
    main()
