"""Resumable experiments: one JSON line per finished fit, keyed by the settings of the fit.

A line is ``{"settings": {...}, "scores": {...}, "cpu_seconds": 1.2, "yardstick_ms": 5.2,
"versions": {...}}``, or has "error" in the place of "scores" where the fit raised a ValueError,
which is a result too. Lines are only ever appended. "yardstick_ms" is the time of a piece of work
that is always the same, just before the fit: seconds of two machines, or of two hours, compare as
multiples of it. The first lines have neither that nor versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from functools import cache, partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

__all__ = ["RESULTS", "digest", "fit_or_report", "key", "read_results", "run_missing", "versions"]

RESULTS = Path(__file__).parent / "results"
# Whose versions may change a score or a time.
PACKAGES = "sklearn-probmix", "numpy", "scipy", "scikit-learn", "skorch", "torch"


def key(settings):
    """Return a canonical text of settings: equal for equal settings, in whatever order.

    Parameters
    ----------
    settings : dict
        Of JSON types; tuples count as lists.

    Returns
    -------
    str
    """
    return json.dumps(settings, sort_keys=True)


def digest(settings):
    """Return a short name of settings, the same for ever: part of the hash of their `key`.

    Parameters
    ----------
    settings : dict

    Returns
    -------
    str
        Of eight hexadecimal digits.
    """
    return hashlib.sha256(key(settings).encode()).hexdigest()[:8]


@cache
def versions():
    """Return what ran: the commit (with "+" if files differ from it), Python and the packages.

    Returns
    -------
    dict of str to str
        Without the commit where there is no git.
    """
    found = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(
            command, cwd=RESULTS.parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return found
    return {"commit": done.stdout.strip()} | found


def yardstick_ms():
    """Time a piece of work like that of a small network: milliseconds of the processor.

    Returns
    -------
    float
        The quickest of three.
    """
    x, weight, times = torch.ones(64, 128), torch.eye(128), []
    for _ in range(3):
        start = time.process_time()
        for _ in range(200):
            x = torch.relu(x @ weight)
        times.append(time.process_time() - start)
    return round(1000 * min(times), 2)


def read_results(path):
    """Read the finished fits of a file of results.

    Parameters
    ----------
    path : path-like
        May not exist yet. A line that was cut off when its writer was killed is left out.

    Returns
    -------
    dict of str to dict
        Lines by the `key` of their settings, in the order of the file; the first of equal ones.
    """
    path = Path(path)
    results = {}
    if not path.exists():
        return results
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue
        results.setdefault(key(result["settings"]), result)
    return results


def run_missing(fit, jobs, path, *, n_jobs=1, title="", together=None):
    """Fit what is not in the file yet, appending a line for each fit as it ends.

    Parameters
    ----------
    fit : callable
        Maps settings to a dict of scores (floats); of a module or a partial of one, so that it can
        be sent to other processes. It runs with one torch thread.
    jobs : iterable of dict
        Settings in order of priority; doubles are run once.
    path : path-like
        File of JSON lines; its folder is made.
    n_jobs : int, default=1
        Number of processes.
    title : str, default=""
        Stands before the progress bar.
    together : str or None, default=None
        Name of a setting. Jobs that differ in it only are one call of `fit`, which then maps a
        list of settings to a list of dicts of scores; each is charged its share of the time.

    Returns
    -------
    dict of str to dict
        All results of the file, as `read_results` returns them.
    """
    path = Path(path)
    results = read_results(path)
    wanted = {key(settings): settings for settings in jobs}
    missing = [settings for text, settings in wanted.items() if text not in results]
    if not missing:
        return results
    path.parent.mkdir(parents=True, exist_ok=True)
    groups = {}
    for position, settings in enumerate(missing):
        alike = {name: value for name, value in settings.items() if name != together}
        groups.setdefault(key(alike) if together else position, []).append(settings)
    fits = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
        delayed(_measured)(fit, group, together) for group in groups.values()
    )
    bar = tqdm(
        total=len(wanted),
        initial=len(wanted) - len(missing),
        desc=title,
        unit="fit",
        # A log file does not need ten lines a second.
        mininterval=0.1 if sys.stderr.isatty() else 60,
        smoothing=0.05,
    )
    with bar, path.open("a", encoding="utf-8") as file:
        if file.tell() and not path.read_text(encoding="utf-8").endswith("\n"):
            file.write("\n")
        for result in chain.from_iterable(fits):
            results[key(result["settings"])] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
            bar.update()
    return results


def _measured(fit, group, together):
    torch.set_num_threads(1)
    yardstick = yardstick_ms()
    # Of the processor, which other processes do not slow down; fits run in one thread.
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            # That training diverged late and the best epoch was kept is seen in n_epochs.
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = fit(group) if together else [fit(group[0])]
            outcomes = [{"scores": found} for found in scores]
    except ValueError as error:
        if len(group) > 1:
            # One of them failed: which one shows when each is fitted alone.
            return [line for settings in group for line in _measured(fit, [settings], together)]
        outcomes = [{"error": str(error)}]
    cpu_seconds = round((time.process_time() - start) / len(group), 2)
    measured = {"cpu_seconds": cpu_seconds, "yardstick_ms": yardstick, "versions": versions()}
    return [
        {"settings": settings, **outcome, **measured}
        for settings, outcome in zip(group, outcomes, strict=True)
    ]


def fit_or_report(parser, argv, fit, jobs, report, *, name, reads_data):
    """Run the command line of a study of two parts: ``fit`` what is missing, ``report`` it.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        With the options that choose fits.
    argv : list of str or None
    fit : callable
        Of (data, settings) if the study reads data, else of (settings).
    jobs : callable
        Maps the options to the settings of fits.
    report : callable
        Maps results to Markdown.
    name : str
        Of the file of results.
    reads_data : bool
        Whether there is an option ``--data``, by default the variable PROBMIX_DATA.
    """
    parser.add_argument("part", choices=["fit", "report"])
    parser.add_argument("--results", type=Path, default=RESULTS / f"{name}.jsonl")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    if reads_data:
        parser.add_argument("--data", default=os.environ.get("PROBMIX_DATA"))
    options = parser.parse_args(argv)
    if options.part == "report":
        print(report(read_results(options.results)))
        return
    if reads_data:
        if options.data is None or not Path(options.data).is_dir():
            parser.error(f"--data {options.data}: no such folder; name one or set PROBMIX_DATA")
        fit = partial(fit, options.data)
    run_missing(fit, jobs(options), options.results, n_jobs=options.jobs, title=name)
