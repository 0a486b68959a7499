"""One fit in a process of its own, whose memory can be told: ``python -m benchmarks.scale.fits``.

It reads the settings of the fit as JSON from its only argument, and prints what it found as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.contenders import CatBoost
from benchmarks.scale.law import draw
from sklearn_probmix import ProbMixupRegressor
from sklearn_probmix.metrics import crps

__all__ = ["CONTENDERS", "fit_in_a_process"]

N_TEST = 20_000
_CATBOOST = {"iterations": 10_000, "validation_fraction": 0.1, "early_stopping_rounds": 50}

CONTENDERS = {
    "default": lambda seed: ProbMixupRegressor(random_state=seed),
    "parametric": lambda seed: ProbMixupRegressor(method="parametric", random_state=seed),
    "catboost": lambda seed: CatBoost(seed, **_CATBOOST),
}


def fit_in_a_process(settings):
    """Fit and score, and measure the time of the processor and the peak of memory.

    Parameters
    ----------
    settings : dict
        `contender`, `n_rows` and `seed`.

    Returns
    -------
    dict
        Seconds, MiB, and mean scores of 20,000 other rows.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale.fits", json.dumps(settings)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"the fit of {settings} ended with {done.returncode}")
    return json.loads(done.stdout)


def _peak():
    """Most memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _fit(settings):
    torch.set_num_threads(1)
    n_rows, seed = settings["n_rows"], settings["seed"]
    X, y, _ = draw(n_rows, seed)
    X_test, truth, log_p = draw(N_TEST, 1000 + seed)
    est, before, start = CONTENDERS[settings["contender"]](seed), _peak(), time.process_time()
    est.fit(X, y)
    seconds, peak = time.process_time() - start, _peak()
    start, log_q, total = time.process_time(), [], 0.0
    for rows in np.array_split(np.arange(N_TEST), 10):
        dist = est.predict_proba(X_test[rows])
        log_q.append(dist.logpdf(truth[rows]))
        total += crps(truth[rows], dist) * len(rows)
    found = {
        "seconds": seconds,
        "seconds_of_predictions": time.process_time() - start,
        "peak": peak,
        "peak_before": before,
        "data": (X.nbytes + 4 * n_rows) / 2**20,
        "nll": -float(np.concatenate(log_q).mean()),
        "entropy": -float(log_p.mean()),
        "crps": total / N_TEST,
    }
    if isinstance(est, ProbMixupRegressor):
        found["kinds"] = [repr(kind) for kind in est.kinds_]
        found["weights"] = est.weights_.tolist()
        found["epochs"] = [len(net.history) for net in est.nets_]
    return found


if __name__ == "__main__":
    print(json.dumps(_fit(json.loads(sys.argv[1]))))
