"""Our default in the density benchmark of arXiv 2603.26611: ``python -m benchmarks.density``.

``fit`` runs what is missing, one line of ``benchmarks/results/density.jsonl`` for every fit;
``report`` prints our scores beside the published ones. The data are those of ``benchmarks.data``,
with ``tables/`` beside ``uci/``.
"""

from __future__ import annotations

import argparse

from benchmarks.density.report import beside_published
from benchmarks.density.study import fit_set, jobs
from benchmarks.density.tables import SETS
from benchmarks.runs import fit_or_report


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.density", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rows", nargs="+", type=int, default=[50, 500, 1000, 5000])
    parser.add_argument("--seeds", type=int, default=5)

    def todo(options):
        return jobs(options.sets, options.rows, options.seeds)

    fit_or_report(parser, argv, fit_set, todo, beside_published, name="density", reads_data=True)


if __name__ == "__main__":
    main()
