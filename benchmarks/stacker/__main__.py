"""Stacked distributions beside each of their members: ``python -m benchmarks.stacker``.

``fit`` fits ours, a quantile forest, NGBoost and, below 2,000 rows, a Gaussian process together;
every finished fit is one line of ``benchmarks/results/stacker.jsonl``, and a command that is called
again runs what is missing. ``report`` prints the table. The peers are installed by the extra
``benchmarks``.
"""

from __future__ import annotations

import argparse

from benchmarks.paper.settings import LARGE_SETS, SMALL_SETS
from benchmarks.peers.tables import FILES
from benchmarks.runs import fit_or_report
from benchmarks.stacker.study import fit_stack, jobs, report


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stacker", description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=[*SMALL_SETS, *LARGE_SETS, *FILES])
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])

    def todo(options):
        return jobs(options.datasets, options.splits)

    fit_or_report(parser, argv, fit_stack, todo, report, name="stacker", reads_data=True)


if __name__ == "__main__":
    main()
