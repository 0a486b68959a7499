"""Our default on tables of any size: ``python -m benchmarks.scale {fit,report}``.

``fit`` runs what is missing, one line of ``benchmarks/results/scale.jsonl`` for every fit, each in
a process of its own; ``report`` prints time, memory and scores against the number of rows, beside
CatBoost and the entropy of the law, and the slope of time against rows, both in logarithms.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.markdown import NOT_RUN, table
from benchmarks.runs import fit_or_report
from benchmarks.scale.fits import CONTENDERS, fit_in_a_process


def jobs(contenders, n_rows, seeds):
    """List the fits, the small ones first."""
    return [
        {"contender": contender, "n_rows": n, "seed": seed}
        for n in n_rows
        for contender in contenders
        for seed in range(seeds)
    ]


def slope(n_rows, seconds):
    """Return the power of the rows with which time grows."""
    return float(np.polyfit(np.log(n_rows), np.log(seconds), 1)[0])


def report(results):
    """Render means over seeds as Markdown."""
    cells = {}
    for result in results.values():
        if "scores" in result:
            settings = result["settings"]
            place = settings["contender"], settings["n_rows"]
            cells.setdefault(place, []).append(result["scores"])
    rows, curves = [], {}
    for (contender, n_rows), found in sorted(cells.items()):
        mean = {name: np.mean([one[name] for one in found]) for name in _NUMBERS}
        curves.setdefault(contender, []).append((n_rows, mean["seconds"]))
        rows.append(
            {
                "": contender,
                "rows": f"{n_rows:,}",
                "fits": len(found),
                "seconds": f"{mean['seconds']:.0f}",
                "peak, MiB": f"{mean['peak']:.0f}",
                "of which before": f"{mean['peak_before']:.0f}",
                "float32 data, MiB": f"{mean['data']:.0f}",
                "NLL above the entropy": f"{mean['nll'] - mean['entropy']:.3f}",
                "CRPS": f"{mean['crps']:.4f}",
            }
        )
    slopes = [
        f"{contender}: time grows as rows to the power of {slope(*zip(*points, strict=True)):.2f}"
        for contender, points in curves.items()
        if len(points) > 1
    ]
    return "\n\n".join([table(rows), *slopes]) if rows else NOT_RUN


_NUMBERS = "seconds", "peak", "peak_before", "data", "nll", "entropy", "crps"


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["default"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--seeds", type=int, default=1)

    def todo(options):
        return jobs(options.contenders, options.rows, options.seeds)

    fit_or_report(parser, argv, fit_in_a_process, todo, report, name="scale", reads_data=False)


if __name__ == "__main__":
    main()
