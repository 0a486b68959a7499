"""A slice of the benchmarks in minutes, beside what is stored: ``python -m benchmarks.quick``.

Ours and two peers that need no extra are fitted to one split of two small tables that need no data,
into a temporary folder. Scores should agree to the last digit shown, or nearly so where versions or
the processor differ; seconds compare by the yardstick (``benchmarks/runs.py``).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.markdown import table
from benchmarks.peers.contenders import OURS, PEERS
from benchmarks.peers.fits import fit_aside, jobs
from benchmarks.peers.report import fits_of, settings_of_ours
from benchmarks.runs import RESULTS, key, read_results, run_missing, versions

TASK = "aside"
TABLES = "diabetes", "waves-100"
CONTENDERS = "gp", "deep-ensemble", OURS
SCORES = {"nll": "NLL", "crps": "CRPS", "coverage": "90 % covered", "fit_seconds": "seconds"}


def beside_stored(now, stored):
    """Render the fits of now beside those that are stored.

    Parameters
    ----------
    now : list of dict
        Lines of results.
    stored : dict
        As `read_results` returns them.

    Returns
    -------
    str
        Markdown, each score as "now / stored".
    """
    ours, is_today = settings_of_ours(stored, TASK)
    fits, rows = fits_of(stored, TASK, ours), []
    for result in now:
        settings = result["settings"]
        cell = fits[settings["dataset"], settings["peer"]]
        title = PEERS[TASK][settings["peer"]].title
        if settings["peer"] == OURS and not is_today:
            title += " (stored: earlier settings)"
        row = {"now / stored": settings["dataset"], "": title}
        for score, name in SCORES.items():
            splits = [split for split in cell.splits if split == settings["split"]]
            before = f"{cell.on(score, splits).mean():.4g}" if splits else "not stored"
            row[name] = f"{result['scores'][score]:.4g} / {before}"
        rows.append(row)
    return table(rows)


def main():
    """Fit, and print."""
    todo = jobs(TASK, TABLES, CONTENDERS, 1)
    with TemporaryDirectory() as folder:
        found = run_missing(fit_aside, todo, Path(folder, "quick.jsonl"), title="quick")
    now = [found[key(settings)] for settings in todo]
    print(beside_stored(now, read_results(RESULTS / f"peers-{TASK}.jsonl")))
    print(f"Yardstick now: {now[0]['yardstick_ms']} ms. Versions now: {versions()}")


if __name__ == "__main__":
    main()
