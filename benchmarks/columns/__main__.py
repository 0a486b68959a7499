"""Tables with text and missing values: ``python -m benchmarks.columns``.

``fit`` fits the same networks to the columns as they are, behind skrub's `tabular_pipeline`, and
behind scikit-learn's imputer and one-hot encoder; every finished fit is one line of
``benchmarks/results/columns.jsonl``, and a command that is called again runs what is missing.
``report`` prints the table.
"""

from __future__ import annotations

import argparse

from benchmarks.columns.study import TABLES, fit_table, jobs, report
from benchmarks.runs import fit_or_report


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.columns", description=__doc__)
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])

    def todo(options):
        return jobs(options.tables, options.splits)

    fit_or_report(parser, argv, fit_table, todo, report, name="columns", reads_data=True)


if __name__ == "__main__":
    main()
