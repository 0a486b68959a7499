"""Every measured figure of the documentation, written from ``benchmarks/results``.

``python -m benchmarks.figures`` writes the reports that are nothing but results, and in other
Markdown what stands between ``<!-- figures: NAME WORDS -->`` and ``<!-- end -->``, a table or part
of a sentence. ``--check`` writes nothing, and fails where a file differs from the results.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import costs, gpu, outliers, parallel, parametric, small, tradeoff
from benchmarks.censored import study as censored
from benchmarks.columns import study as columns
from benchmarks.defaults import study as defaults
from benchmarks.density import report as density
from benchmarks.markdown import table
from benchmarks.paper.report import Cell, ratio_of_medians, toy_cell, toy_cells
from benchmarks.paper.report import render_report as paper_report
from benchmarks.peers import summary
from benchmarks.peers.contenders import PEERS
from benchmarks.peers.report import render_report as peers_report
from benchmarks.runs import RESULTS, read_results
from benchmarks.scale.__main__ import report as scale_report
from benchmarks.stacker.study import report as stacker_report
from benchmarks.truths.__main__ import report as truths_report

ROOT = Path(__file__).parent.parent
PAGES = "*.md", "docs/*.md", "docs/site/*.md", "benchmarks/*.md", "benchmarks/*/*.md"
EXPERIMENTS = "toy-regression", "toy-classification", "uci", "causes", "stocks"
# Of a table of survivors: file and judgement.
JUDGED = re.compile(r"^\| (\w+) \|[^|]*\| (equivalent|no test)", re.MULTILINE)
BLOCK = re.compile(r"(<!-- figures: (.+?) -->)(.*?)(<!-- end -->)", re.DOTALL)


def speed(read, who):
    """Ratios of "ours" or of "skorch" to a loop written by hand, the lowest and the highest."""
    ratios = [
        row["ratio"]
        for row in read("speed")["ratios"]
        if row["reference"].startswith("loop")
        and row["contender"].startswith("skorch") == (who == "skorch")
    ]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def toy(read, what, *places):
    """Averages out of distribution of places such as m-probmix:0.25:linear, or their ratio."""
    cells = [_toy_cell(read, place) for place in places]
    if what == "ratio":
        return f"{ratio_of_medians(*cells):.1f}"
    average, score, spec = {
        "nll": (Cell.median, "nll_standardised_out", ".0f"),
        "crps": (Cell.mean, "crps_out", ".0f"),
        "coverage": (Cell.mean, "coverage_out", ".0%"),
        "runs": (lambda cell, score: cell.n_fits, "", "d"),
    }[what]
    found = [f"{average(cell, score):{spec}}".replace("%", " %") for cell in cells]
    return " and ".join(found)


def _toy_cell(read, place):
    method, alpha, pooling = place.split(":")
    cells = toy_cells(read("toy-regression"), [method])
    return toy_cell(cells, method, float(alpha), pooling=pooling)


def encoded(read, table, network, score):
    """Mean score behind each encoding."""
    found = {}
    for result in read("columns").values():
        settings = result["settings"]
        if (settings["table"], settings["kind"]) == (table, network):
            found.setdefault(settings["encoding"], []).append(result["scores"][score])
    return ", ".join(f"{np.mean(values):.3f} {name}" for name, values in found.items())


def judged_mutants():
    """Count the survivors by file and judgement, as a table of MUTANTS.md has them."""
    return Counter(JUDGED.findall((ROOT / "benchmarks" / "MUTANTS.md").read_text(encoding="utf-8")))


def mutants(read):
    """How many mutants of each file are killed, with and without the tests that they led to."""
    before, judged = read("mutants-before"), judged_mutants()
    counts = {
        name: [each["mutants"], before[name]["killed"], each["killed"], judged[name, "equivalent"]]
        for name, each in read("mutants").items()
    }
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    return table(
        [
            {
                "file": name,
                "mutants": n,
                "killed before": n_before,
                "killed after": n_after,
                "equivalent": n_equivalent,
                "share of the others": f"{n_after / (n - n_equivalent):.0%}".replace("%", " %"),
            }
            for name, (n, n_before, n_after, n_equivalent) in counts.items()
        ]
    )


def _of_regression(report, read, which):
    """Write a report of ours in the settings of a name, which may be several words."""
    return report(read("peers-regression"), " ".join(which))


# By name: functions of `read`, which reads a file of results by its name, and of words.
FIGURES = {
    "beside peers": lambda read, *which: _of_regression(summary.beside_peers, read, which),
    "beside recent": lambda read: summary.beside_recent(read("peers-regression")),
    "beside former": lambda read: summary.beside_former(read("peers-regression")),
    "changes": lambda read, task: summary.changes(read(f"peers-{task}"), task),
    "against": lambda read, task, *words: summary.against(read(f"peers-{task}"), task, *words),
    "paired": lambda read, *which: _of_regression(summary.paired, read, which),
    "costs": lambda read: costs.report(read("costs")),
    "costs against": lambda read, table: costs.against(read("costs"), table),
    "kinds": lambda read: defaults.report(read("defaults"), read("defaults-stacks")),
    "columns": lambda read: columns.report(read("columns")),
    "encoded": encoded,
    "censored": lambda read: censored.report(read("censored")),
    "density": lambda read: density.beside_published(read("density")),
    "density without grid": lambda read: density.without_grid(read("density")),
    "density against": lambda read, *words: density.against(read("density"), *words),
    "gpu": lambda read: gpu.report(read("gpu")["fits"]),
    "mutants": mutants,
    "killed": lambda read: parallel.killed(read("parallel")),
    "parallel": lambda read: parallel.report(read("parallel")),
    "outliers": lambda read: outliers.report(read("outliers")),
    "parametric": lambda read: parametric.report(read("parametric"), read("peers-regression")),
    "small": lambda read: small.report(read("small")),
    "scale": lambda read: scale_report(read("scale")),
    "stacker": lambda read: stacker_report(read("stacker")),
    "tradeoff": lambda read: tradeoff.report(read("tradeoff")),
    "truths": lambda read: truths_report(read("truths")),
    "speed": speed,
    "toy": toy,
}
# Reports that are nothing but results.
REPORTS = {
    "benchmarks/paper/PAPER_RESULTS.md": lambda read: paper_report(
        {name: read(name) for name in EXPERIMENTS}
    ),
    "benchmarks/peers/PEERS_RESULTS.md": lambda read: peers_report(
        {task: read(f"peers-{task}") for task in PEERS}
    ),
}


def figure(words, read):
    """Make one figure.

    Parameters
    ----------
    words : str
        A name of `FIGURES`, and what its function takes.
    read : callable
        Maps the name of a file of results to what it holds.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such figure.
    """
    # The longer names first: one may be the beginning of another.
    for name in sorted(FIGURES, key=len, reverse=True):
        if words == name or words.startswith(f"{name} "):
            return FIGURES[name](read, *words.removeprefix(name).split()).strip()
    raise ValueError(f"no figure {words!r}; expected one of {', '.join(FIGURES)}")


def filled(text, read):
    """Write the figures into a page.

    Parameters
    ----------
    text : str
        Markdown. Where the mark ends its line, the figure has lines of its own.
    read : callable

    Returns
    -------
    str
    """

    def fill(block):
        start, words, old, end = block.groups()
        space = "\n\n" if old.startswith("\n") else ""
        return f"{start}{space}{figure(words, read)}{space}{end}"

    return BLOCK.sub(fill, text)


def pages(root, results):
    """Yield all pages with figures: path, its text, and what it should be.

    Parameters
    ----------
    root : Path
        Folder of the repository.
    results : Path
        Folder of results.
    """

    @cache
    def read(name):
        whole = results / f"{name}.json"
        if whole.exists():
            return json.loads(whole.read_text(encoding="utf-8"))
        return read_results(results / f"{name}.jsonl")

    for path in sorted(path for pattern in PAGES for path in root.glob(pattern)):
        text, report = path.read_text(encoding="utf-8"), REPORTS.get(str(path.relative_to(root)))
        if report or BLOCK.search(text):
            yield path, text, report(read) if report else filled(text, read)


def drift(root=ROOT, results=RESULTS):
    """Compare the pages with the results.

    Returns
    -------
    str
        Differences as `diff` writes them, from what stands there to what should.
    """
    return "\n".join(
        line
        for path, text, wanted in pages(root, results)
        for line in difflib.unified_diff(
            *(text.splitlines(), wanted.splitlines(), str(path), "results"), n=0, lineterm=""
        )
    )


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    options = parser.parse_args(argv)
    if options.check:
        if found := drift(results=options.results):
            raise SystemExit(f"{found}\nRun python -m benchmarks.figures")
        return
    for path, text, wanted in pages(ROOT, options.results):
        if text != wanted:
            path.write_text(wanted, encoding="utf-8")
            print(f"Wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
