"""Censored Normal and log-normal responses: ``python -m benchmarks.censored {fit,report}``.

``fit`` runs what is missing, one line of ``benchmarks/results/censored.jsonl`` for every fit;
``report`` prints how far the parameters are from the truth, in standard errors, and the scores of
test rows. The peer is lifelines (``pip install lifelines``); without it name other ``--models``.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from benchmarks.censored.study import LAWS, MODELS, fit_law, jobs, report
from benchmarks.runs import fit_or_report


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.censored", description=__doc__)
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.3, 0.6])
    parser.add_argument("--rows", nargs="+", type=int, default=[1000])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)

    def todo(options):
        if "lifelines" in options.models and not find_spec("lifelines"):
            parser.error(
                "lifelines is not installed: pip install lifelines, or name other --models"
            )
        return jobs(options.laws, options.shares, options.rows, options.seeds, options.models)

    fit_or_report(parser, argv, fit_law, todo, report, name="censored", reads_data=False)


if __name__ == "__main__":
    main()
