"""The study behind the defaults, as commands: ``python -m benchmarks.defaults``.

``kinds`` trains the kinds of network, ``stacks`` weighs sets of them, ``report`` prints the table.
"""

from __future__ import annotations

import argparse
import itertools
import os
from functools import partial

from benchmarks.defaults.study import COMMON, DATASETS, KINDS, fit_kind, fit_stack, report
from benchmarks.runs import RESULTS, read_results, run_missing

KIND_RESULTS = RESULTS / "defaults.jsonl"
STACK_RESULTS = RESULTS / "defaults-stacks.jsonl"


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__)
    parser.add_argument("part", choices=["kinds", "stacks", "report"])
    parser.add_argument("--data", default=os.environ.get("PROBMIX_DATA"))
    parser.add_argument("--cache", default=".cache/defaults", help="folder of distributions")
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--stacks", nargs="+", default=[], help="sets of kinds, joined by +")
    parser.add_argument("--calibration", default="auto")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(argv)
    if options.part == "report":
        print(report(read_results(KIND_RESULTS), read_results(STACK_RESULTS)))
        return
    if options.data is None:
        parser.error("--data, or the variable PROBMIX_DATA, must name the folder of the data")
    places = itertools.product(options.splits, options.datasets)
    run = partial(run_missing, n_jobs=options.jobs, title=options.part)
    if options.part == "kinds":
        jobs = [
            {"dataset": dataset, "split": split, "kind": kind, "estimator": COMMON | KINDS[kind]}
            for (split, dataset), kind in itertools.product(places, options.kinds)
        ]
        run(partial(fit_kind, data=options.data, cache=options.cache), jobs, KIND_RESULTS)
    else:
        jobs = [
            {
                "dataset": dataset,
                "split": split,
                "stack": names.split("+"),
                "calibration": options.calibration,
            }
            for (split, dataset), names in itertools.product(places, options.stacks)
        ]
        run(partial(fit_stack, data=options.data, cache=options.cache), jobs, STACK_RESULTS)


if __name__ == "__main__":
    main()
