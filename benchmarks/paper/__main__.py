"""The experiments of the paper, as commands.

``python -m benchmarks.paper COMMAND``, one of toy-regression, toy-causes, toy-classification, uci,
causes, stocks, tables.

Every finished fit is one line of ``benchmarks/results/<experiment>.jsonl``; a command that is
called again runs what is missing. ``tables`` writes ``benchmarks/paper/PAPER_RESULTS.md`` from
these files, with the paper's figures beside ours.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from operator import itemgetter
from pathlib import Path

from benchmarks.paper.fits import (
    fit_stock,
    fit_toy_classification,
    fit_toy_regression,
    fit_uci,
)
from benchmarks.paper.report import render_report, uci_cells, worse_cells
from benchmarks.paper.settings import (
    FULL_BATCH_METHODS,
    LARGE_SETS,
    METHODS,
    N_SAME_ROWS,
    N_SAME_ROWS_RUNS,
    N_SPLITS,
    NINE_METHODS,
    SELECTION_SPLITS,
    SEQUENCE_MODULES,
    SMALL_SETS,
    STOCKS,
    TOY_SUSPECTS,
    chosen_mixing,
    same_rows_settings,
    stock_settings,
    toy_is_claimed,
    toy_settings,
    toy_stages,
    toy_variations,
    uci_grid,
    uci_settings,
    variations,
    varied_settings,
    varied_toy_settings,
)
from benchmarks.runs import RESULTS, read_results, run_missing


def run_uci(args):
    """Choose alpha and beta of every table and method on two splits, then fit all splits."""
    for dataset in (name for name in [*SMALL_SETS, *LARGE_SETS] if name in args.datasets):
        _run_uci_table(args, dataset, args.methods, 100)
        if dataset in SMALL_SETS:
            methods = [name for name in args.methods if name in FULL_BATCH_METHODS]
            _run_uci_table(args, dataset, methods, None)


def _run_uci_table(args, dataset, methods, batch_size):
    path, title = args.results / "uci.jsonl", f"{dataset}, batch {batch_size or 'full'}"
    fit = partial(fit_uci, args.data)
    run = partial(run_missing, fit, path=path, n_jobs=args.jobs, together="split")
    grid = [
        uci_settings(dataset, split, method, batch_size, **mixing)
        for method in methods
        for mixing in uci_grid(method)
        for split in SELECTION_SPLITS
    ]
    results = run(grid, title=f"{title}, selection")
    chosen = {method: chosen_mixing(results, dataset, method, batch_size) for method in methods}
    jobs = [
        uci_settings(dataset, split, method, batch_size, **chosen[method])
        for method in methods
        for split in range(args.splits or N_SPLITS[dataset])
    ]
    run(jobs, title=title)


def run_causes(args):
    """Fit the UCI cells that are worse than the paper's again, with one thing changed each time."""
    cells = uci_cells(read_results(args.results / "uci.jsonl"))
    jobs = []
    for dataset, method in worse_cells(cells):
        if dataset in args.datasets:
            chosen = cells[dataset, method, 100][0]
            for rank, change in enumerate(variations(method, chosen)):
                jobs += [
                    (rank, varied_settings(dataset, split, method, chosen, change))
                    for split in range(N_SPLITS[dataset])
                ]
    # One change after another, each for all tables.
    jobs = [settings for _, settings in sorted(jobs, key=itemgetter(0))]
    fit = partial(fit_uci, args.data)
    path = args.results / "causes.jsonl"
    run_missing(fit, jobs, path, n_jobs=args.jobs, title="causes", together="split")


def run_toy_regression(args):
    """Fit the cubic: all methods, alphas, betas and poolings; more draws of what is claimed."""
    jobs = [
        toy_settings(run, method, mixing)
        for stage in toy_stages(args.methods)
        for method, mixing in stage
        for run in range(args.claim_runs if toy_is_claimed(method, mixing) else args.runs)
    ]
    path = args.results / "toy-regression.jsonl"
    title = "toy-regression"
    run_missing(fit_toy_regression, jobs, path, n_jobs=args.jobs, title=title, together="run")


def run_toy_causes(args):
    """Fit cells of the toy regression again, with one thing changed that the paper leaves open."""
    jobs = [
        same_rows_settings(rows, run, *suspect)
        for rows in range(N_SAME_ROWS)
        for suspect in TOY_SUSPECTS
        for run in range(N_SAME_ROWS_RUNS)
    ]
    jobs += [
        varied_toy_settings(run, *suspect, change)
        # One change after another.
        for change in toy_variations("m-probmix")
        for suspect in TOY_SUSPECTS
        if change in toy_variations(suspect[0])
        for run in range(args.runs)
    ]
    path = args.results / "causes.jsonl"
    run_missing(fit_toy_regression, jobs, path, n_jobs=args.jobs, title="causes", together="run")


def run_toy_classification(args):
    """Fit the rings: all methods, alphas, betas and poolings."""
    jobs = [
        toy_settings(run, method, mixing, classification=True)
        for stage in toy_stages(args.methods, classification=True)
        for run in range(args.runs)
        for method, mixing in stage
    ]
    path = args.results / "toy-classification.jsonl"
    title = "toy-classification"
    run_missing(fit_toy_classification, jobs, path, n_jobs=args.jobs, title=title, together="run")


def run_stocks(args):
    """Fit the four stocks: the LSTM first, then the transformer."""
    jobs = [
        stock_settings(stock, module, run, method)
        for module in args.modules
        for run in range(args.runs or {"lstm": 3, "transformer": 1}[module])
        for stock in args.datasets
        for method in args.methods
    ]
    path = args.results / "stocks.jsonl"
    run_missing(partial(fit_stock, args.data), jobs, path, n_jobs=args.jobs, title="stocks")


def write_tables(args):
    """Write what is in the results as Markdown."""
    names = ["toy-regression", "toy-classification", "uci", "causes", "stocks"]
    text = render_report({name: read_results(args.results / f"{name}.jsonl") for name in names})
    args.output.write_text(text, encoding="utf-8")
    print(f"Wrote {args.output}")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name, run, methods, **help_texts):
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
        if methods:
            command.add_argument(
                "--methods",
                nargs="+",
                choices=methods,
                default=methods,
                metavar="METHOD",
                help=f"some of {', '.join(methods)}",
            )
            command.add_argument("--jobs", type=int, default=1, help="processes")
        return command

    def add_data(command, datasets):
        command.add_argument(
            "--data",
            type=Path,
            default=os.environ.get("PROBMIX_DATA"),
            help="folder that holds uci and stocks; by default the variable PROBMIX_DATA",
        )
        command.add_argument(
            "--datasets",
            nargs="+",
            choices=datasets,
            default=datasets,
            metavar="DATASET",
            help=f"some of {', '.join(datasets)}",
        )

    regression = add("toy-regression", run_toy_regression, NINE_METHODS)
    regression.add_argument("--claim-runs", type=int, default=50, help="of cells in a claim")
    rings = add("toy-classification", run_toy_classification, NINE_METHODS)
    for command in (regression, rings):
        command.add_argument("--runs", type=int, default=10)
    toy_causes = add("toy-causes", run_toy_causes, None)
    toy_causes.add_argument("--runs", type=int, default=50)
    toy_causes.add_argument("--jobs", type=int, default=1, help="processes")
    uci = add("uci", run_uci, list(METHODS))
    add_data(uci, [*SMALL_SETS, *LARGE_SETS])
    uci.add_argument("--splits", type=int, help="by default 20, and 5 of the three large tables")
    causes = add("causes", run_causes, None)
    add_data(causes, [*SMALL_SETS, *LARGE_SETS])
    causes.add_argument("--jobs", type=int, default=1, help="processes")
    stocks = add("stocks", run_stocks, NINE_METHODS)
    add_data(stocks, STOCKS)
    stocks.add_argument("--runs", type=int, help="by default 3, and 1 of the transformer")
    stocks.add_argument("--modules", nargs="+", choices=SEQUENCE_MODULES, default=SEQUENCE_MODULES)
    tables = add("tables", write_tables, None)
    tables.add_argument("--output", type=Path, default=Path(__file__).parent / "PAPER_RESULTS.md")
    return parser


def main(argv=None):
    """Run one command."""
    parser = _parser()
    args = parser.parse_args(argv)
    if "data" in args and (args.data is None or not Path(args.data).is_dir()):
        parser.error(f"--data {args.data}: no such folder; name one or set PROBMIX_DATA")
    args.run(args)


if __name__ == "__main__":
    main()
