"""Seconds and scores of two checkouts' default regressors, side by side in one run.

Run ``python -m benchmarks.speed.versions --old CHECKOUT``. In each round both fit the same split of
each table once, in random order, in processes of their own on one thread; time is the processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import benchmarks
from benchmarks.data import load_uci_split
from benchmarks.paper.settings import LARGE_SETS, SMALL_SETS

# The package may be any version, so that nothing of these benchmarks is imported.
_FIT = """
import json, sys, time
import numpy as np
import torch
from sklearn_probmix import ProbMixupRegressor
from sklearn_probmix.metrics import crps, nll
torch.set_num_threads(1)
data = np.load(sys.argv[1])
start = time.process_time()
est = ProbMixupRegressor(random_state=int(sys.argv[2])).fit(data["X"], data["y"])
seconds = time.process_time() - start
dist, y = est.predict_proba(data["X_test"]), data["y_test"]
print(json.dumps({"seconds": seconds, "nll": float(nll(y, dist)), "crps": float(crps(y, dist))}))
"""


def fit(checkout, data, split):
    """Fit the default of a checkout to one file of rows, and score it.

    Parameters
    ----------
    checkout : path-like
    data : path-like
        With arrays X, y, X_test and y_test.
    split : int
        The seed.

    Returns
    -------
    dict
        "seconds" of the fit, and "nll" and "crps" of the test rows.
    """
    one_thread = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")
    done = subprocess.run(
        [sys.executable, "-c", _FIT, str(data), str(split)],
        env=os.environ | one_thread | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(old, root, datasets, n_rounds):
    """Yield, for each table, the median ratio of seconds and the mean scores of both.

    Parameters
    ----------
    old : path-like
        A checkout of another version.
    root : path-like
        Folder that holds uci.
    datasets : sequence of str
    n_rounds : int
        A split each.
    """
    new = Path(benchmarks.__file__).parent.parent
    for dataset in datasets:
        found = {"old": [], "new": []}
        for split in range(n_rounds):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "rows.npz")
                X, X_test, y, y_test = load_uci_split(Path(root, "uci", dataset), split)
                np.savez(path, X=X, X_test=X_test, y=y, y_test=y_test)
                pair = [("old", old), ("new", new)]
                random.shuffle(pair)
                for name, checkout in pair:
                    found[name].append(fit(checkout, path, split))
        ratios = [
            b["seconds"] / a["seconds"] for a, b in zip(found["old"], found["new"], strict=True)
        ]
        means = {
            f"{name} {score}": np.mean([one[score] for one in runs])
            for name, runs in found.items()
            for score in ("seconds", "nll", "crps")
        }
        yield {"dataset": dataset, "ratio": np.median(ratios)} | means


def main(argv=None):
    """Print a line for each table as soon as it is there, and the mean ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, required=True, help="checkout of another version")
    parser.add_argument("--data", type=Path, default=os.environ.get("PROBMIX_DATA"))
    parser.add_argument("--datasets", nargs="+", default=[*SMALL_SETS, *LARGE_SETS])
    parser.add_argument("--rounds", type=int, default=3, help="splits of each table")
    args = parser.parse_args(argv)
    rows = []
    for row in compare(args.old.resolve(), args.data, args.datasets, args.rounds):
        rows.append([row["dataset"], *(f"{value:.4g}" for value in list(row.values())[1:])])
        print(*rows[-1], flush=True)
    ratio = np.mean([float(row[1]) for row in rows])
    print(f"mean ratio of seconds {ratio:.2f}")


if __name__ == "__main__":
    main()
