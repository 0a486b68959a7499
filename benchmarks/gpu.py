"""Fits on a CPU and on a GPU, in at most eight minutes: ``python -m benchmarks.gpu``.

Two networks, ERM and ProbMix of five members each, make a fixed number of epochs of 1,000 x 10,
10,000 x 10 and 1,000,000 x 20 rows; then the default runs its race on as many as the time is enough
for. Fits on the CPU run one after the other beside those on the GPU; every fit has a process of its
own, which is ended with the time. The table tells seconds on the wall of `fit` and of
`predict_proba` of 20,000 other rows, their scores, and the peak of the memory that torch took on
the device. It is kept in ``benchmarks/results/gpu.json``; without a GPU there and in the table
stands "not run".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.markdown import NOT_RUN, table
from benchmarks.runs import RESULTS
from benchmarks.scale.law import draw
from sklearn_probmix import ProbMixupRegressor
from sklearn_probmix.metrics import crps

__all__ = ["fit_one", "jobs", "main", "report"]

MINUTES = 8.0
N_TEST = 20_000
_EPOCHS = {1_000: 100, 10_000: 20, 1_000_000: 1}
_COLUMNS = {1_000: 10, 10_000: 10, 1_000_000: 20}
_DEVICES = "cpu", "cuda"
# On a CPU it takes up to an hour.
_TOO_LONG = "default", 1_000_000, "cpu"


def jobs():
    """List the fits in the order in which they are run."""
    fits = [(what, n, device) for what in _MAKE for n in _EPOCHS for device in _DEVICES]
    names = "what", "n_rows", "device"
    return [dict(zip(names, fit, strict=True)) for fit in fits if fit != _TOO_LONG]


def _networks(n_rows, device):
    return ProbMixupRegressor(
        method=["erm", "probmix"],
        n_members=5,
        max_epochs=_EPOCHS[n_rows],
        device=device,
        random_state=0,
    )


_MAKE = {
    "networks": _networks,
    "default": lambda n_rows, device: ProbMixupRegressor(device=device, random_state=0),
}


def fit_one(what, n_rows, device):
    """Fit and score one of them.

    Parameters
    ----------
    what : {"networks", "default"}
    n_rows : int
    device : str

    Returns
    -------
    dict of str to float
    """
    columns = slice(_COLUMNS[n_rows])
    X, y, _ = draw(n_rows, 0)
    X_test, truth, _ = draw(N_TEST, 1)
    est = _MAKE[what](n_rows, device)
    # Whatever a process or a device does once, it does before.
    warm_up = _networks(n_rows, device).set_params(max_epochs=1).fit(X[:100], y[:100])
    crps(y[:100], warm_up.predict_proba(X[:100]))
    start = time.perf_counter()
    est.fit(X[:, columns], y)
    fitted = time.perf_counter()
    dist = est.predict_proba(X_test[:, columns])
    predicted = time.perf_counter()
    return {
        "fit": fitted - start,
        "predict": predicted - fitted,
        "nll": -float(np.mean(dist.logpdf(truth))),
        "crps": float(crps(truth, dist)),
        "peak": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0,
    }


def report(results):
    """Render results as Markdown.

    Parameters
    ----------
    results : list of dict
        Jobs; with numbers where they were run.
    """
    rows, nll = [], {}
    for result in results:
        place, device = (result["what"], result["n_rows"]), result["device"]
        row = {
            "": place[0],
            "rows x columns": f"{place[1]:,} x {_COLUMNS[place[1]]}",
            "device": device,
        }
        if "fit" not in result:
            rows.append(row | dict.fromkeys(_HEAD, NOT_RUN))
            continue
        nll[place, device] = result["nll"]
        other = nll.get((place, "cpu"), np.nan) if device == "cuda" else np.nan
        values = (
            *(f"{result[name]:.1f}" for name in ("fit", "predict")),
            *(f"{result[name]:.4f}" for name in ("nll", "crps")),
            "" if np.isnan(other) else f"{result['nll'] - other:+.4f}",
            f"{result['peak']:.0f}" if device == "cuda" else "",
        )
        rows.append(row | dict(zip(_HEAD, values, strict=True)))
    return table(rows)


_HEAD = "fit, s", "predict, s", "NLL", "CRPS", "NLL less the CPU's", "peak on the GPU, MiB"


def _within(seconds, job, n_threads):
    """Run a fit in a process that ends with the time; return the job, with numbers if there are."""
    if seconds <= 0:
        return job
    command = [sys.executable, "-m", "benchmarks.gpu", "--threads", str(n_threads), "--one"]
    try:
        done = subprocess.run(
            [*command, json.dumps(job)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return job
    if done.returncode:
        raise RuntimeError(f"the fit of {job} ended with {done.returncode}")
    return job | json.loads(done.stdout)


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--threads", type=int, default=4, help="of torch")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one is not None:
        torch.set_num_threads(options.threads)
        print(json.dumps(fit_one(**options.one)))
        return
    end = time.monotonic() + 60 * options.minutes
    found = {"device": None, "threads": options.threads, "fits": jobs()}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()

        def run(device):
            fits = [job for job in jobs() if job["device"] == device]
            return [_within(end - time.monotonic(), job, options.threads) for job in fits]

        with ThreadPoolExecutor() as pool:
            on_each = dict(zip(_DEVICES, map(iter, pool.map(run, _DEVICES)), strict=True))
        found["fits"] = [next(on_each[job["device"]]) for job in jobs()]
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(found["device"] or f"{NOT_RUN}: torch finds no GPU on this machine", end="\n\n")
    print(report(found["fits"]))


if __name__ == "__main__":
    main()
