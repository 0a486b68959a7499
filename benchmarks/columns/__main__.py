"""Tables with text and missing values: ``python -m benchmarks.columns``.

``fit`` fits the same networks to the columns as they are, behind skrub's `tabular_pipeline`, and
behind scikit-learn's imputer and one-hot encoder; every finished fit is one line of
``benchmarks/results/columns.jsonl``, and a command that is called again runs what is missing.
``report`` prints the table.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from benchmarks.columns.study import TABLES, fit_table, jobs, report
from benchmarks.runs import RESULTS, read_results, run_missing


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.columns", description=__doc__)
    parser.add_argument("part", choices=["fit", "report"])
    parser.add_argument("--data", default=os.environ.get("PROBMIX_DATA"))
    parser.add_argument("--results", type=Path, default=RESULTS / "columns.jsonl")
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args(argv)
    if options.part == "report":
        print(report(read_results(options.results)))
        return
    if options.data is None or not Path(options.data).is_dir():
        parser.error(f"--data {options.data}: no such folder; name one or set PROBMIX_DATA")
    run_missing(
        partial(fit_table, options.data),
        jobs(options.tables, options.splits),
        options.results,
        title="columns",
    )


if __name__ == "__main__":
    main()
