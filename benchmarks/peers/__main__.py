"""Our defaults beside what users have elsewhere, on the same splits in the same run.

``python -m benchmarks.peers {regression,aside,classification,tables}``

Every finished fit is one line of ``benchmarks/results/peers-<task>.jsonl``, with the version and
the parameters of the peer; a command that is called again runs what is missing, and so runs ours
anew after its defaults have changed. ``tables`` writes ``benchmarks/peers/PEERS_RESULTS.md``.

The peers are installed by the extra ``benchmarks``, save the recent ones, which run where they are
named. These need an environment of their own, with other versions of what all use::

    pip install -c constraints.txt -e ".[benchmarks-recent]"
    pip install --no-deps treeffuser lightgbmlss

The last two ask for older releases of scikit-learn and torch than we do, but run with these.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from benchmarks.paper.settings import LARGE_SETS, SMALL_SETS
from benchmarks.peers.contenders import CLASSIFICATION, EXTRA, PEERS, RECENT, REGRESSION
from benchmarks.peers.fits import (
    N_ASIDE_SPLITS,
    N_CLASSIFICATION_SPLITS,
    fit_aside,
    fit_classification,
    fit_regression,
    jobs,
)
from benchmarks.peers.report import render_report
from benchmarks.peers.tables import ASIDE, FILES, TABLES
from benchmarks.runs import RESULTS, read_results, run_missing


def run_regression(args):
    """Fit all peers to the UCI tables, the five small ones first, and to tables that are files."""
    todo = jobs("regression", args.datasets, args.peers, args.splits)
    path = args.results / "peers-regression.jsonl"
    run_missing(
        partial(fit_regression, args.data), todo, path, n_jobs=args.jobs, title="regression"
    )


def run_aside(args):
    """Fit all peers to the tables on which no default was chosen."""
    todo = jobs("aside", args.datasets, args.peers, args.splits)
    path = args.results / "peers-aside.jsonl"
    run_missing(fit_aside, todo, path, n_jobs=args.jobs, title="aside")


def run_classification(args):
    """Fit all peers to scikit-learn's tables, generated ones with known noise, and german."""
    todo = jobs("classification", args.datasets, args.peers, args.splits)
    path = args.results / "peers-classification.jsonl"
    fit = partial(fit_classification, args.data)
    run_missing(fit, todo, path, n_jobs=args.jobs, title="classification")


def write_tables(args):
    """Write what is in the results as Markdown."""
    text = render_report(
        {task: read_results(args.results / f"peers-{task}.jsonl") for task in PEERS}
    )
    args.output.write_text(text, encoding="utf-8")
    print(f"Wrote {args.output}")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name, run):
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
        return command

    def add_choice(command, option, choices, default=None):
        command.add_argument(
            option,
            nargs="+",
            choices=choices,
            default=default or choices,
            metavar=option.strip("-").removesuffix("s").upper(),
            help=f"some of {', '.join(choices)}",
        )

    regression = add("regression", run_regression)
    aside = add("aside", run_aside)
    classification = add("classification", run_classification)
    for command in (regression, classification):
        command.add_argument(
            "--data",
            type=Path,
            default=os.environ.get("PROBMIX_DATA"),
            help="folder that holds uci and tables; by default the variable PROBMIX_DATA",
        )
    for command, datasets, peers, n_splits in [
        (
            regression,
            [*SMALL_SETS, *LARGE_SETS, *FILES],
            REGRESSION,
            "20; 5 of the large, 3 of files",
        ),
        (aside, list(ASIDE), REGRESSION, N_ASIDE_SPLITS),
        (classification, list(TABLES), CLASSIFICATION, N_CLASSIFICATION_SPLITS),
    ]:
        add_choice(command, "--datasets", datasets)
        usual = [name for name, peer in peers.items() if peer.extra == EXTRA]
        add_choice(command, "--peers", list(peers), usual)
        command.add_argument("--splits", type=int, help=f"by default {n_splits}")
        command.add_argument("--jobs", type=int, default=1, help="processes")
    tables = add("tables", write_tables)
    tables.add_argument("--output", type=Path, default=Path(__file__).parent / "PEERS_RESULTS.md")
    return parser


def main(argv=None):
    """Run one command."""
    parser = _parser()
    args = parser.parse_args(argv)
    of_files = args.command == "regression" or (
        args.command == "classification" and any(TABLES[name].is_file for name in args.datasets)
    )
    if of_files and (args.data is None or not Path(args.data).is_dir()):
        parser.error(f"--data {args.data}: no such folder; name one or set PROBMIX_DATA")
    try:
        args.run(args)
    except PackageNotFoundError as error:
        parser.error(
            f"{error.name} is not installed: install the extra {EXTRA}, of recent peers {RECENT}, "
            "or name other --peers"
        )


if __name__ == "__main__":
    main()
