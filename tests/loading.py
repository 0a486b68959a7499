"""Load files in processes of their own, and say what each load took: ``python loading.py FILE...``.

The first file is an honest model. It is loaded once before the others are measured, for libraries
take memory when they are used for the first time. Every other file is loaded in a fork. A line of
JSON for each: the outcome, the peak of the resident memory over that before the load, in bytes,
and the seconds of processor time.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch

from sklearn_probmix import load_model


def memory(name):
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {name} in /proc/self/status")


def load(path):
    try:
        load_model(path)
    except ValueError as error:
        return f"ValueError: {str(error)[:300]}"
    return "loaded"


def measured(honest, path):
    load(honest)
    # The peak so far is forgotten.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, start = memory("VmRSS"), time.process_time()
    outcome = load(path)
    seconds = time.process_time() - start
    return {"outcome": outcome, "bytes": memory("VmHWM") - before, "seconds": seconds}


def main(honest, *paths):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    load(honest)
    for path in paths:
        child = os.fork()
        if child == 0:
            print(json.dumps(measured(honest, path)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"outcome": f"died of {status}", "bytes": 0, "seconds": 0}))


if __name__ == "__main__":
    main(*sys.argv[1:])
