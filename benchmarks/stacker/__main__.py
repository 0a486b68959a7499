"""Stacked distributions beside each of their members: ``python -m benchmarks.stacker``.

``fit`` fits ours, a quantile forest, NGBoost and, below 2,000 rows, a Gaussian process together;
every finished fit is one line of ``benchmarks/results/stacker.jsonl``, and a command that is called
again runs what is missing. ``report`` prints the table. The peers are installed by the extra
``benchmarks``.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from benchmarks.paper.settings import LARGE_SETS, SMALL_SETS
from benchmarks.runs import RESULTS, read_results, run_missing
from benchmarks.stacker.study import fit_stack, jobs, report


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stacker", description=__doc__)
    parser.add_argument("part", choices=["fit", "report"])
    parser.add_argument("--data", default=os.environ.get("PROBMIX_DATA"))
    parser.add_argument("--results", type=Path, default=RESULTS / "stacker.jsonl")
    parser.add_argument("--datasets", nargs="+", default=[*SMALL_SETS, *LARGE_SETS])
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args(argv)
    if options.part == "report":
        print(report(read_results(options.results)))
        return
    if options.data is None or not Path(options.data).is_dir():
        parser.error(f"--data {options.data}: no such folder; name one or set PROBMIX_DATA")
    run_missing(
        partial(fit_stack, options.data),
        jobs(options.datasets, options.splits),
        options.results,
        n_jobs=options.jobs,
        title="stacker",
    )


if __name__ == "__main__":
    main()
