"""How many small errors the tests find: ``nox -s mutants``, or with its arguments for some files.

Of every place where cosmic-ray can change a file one change is drawn, and of these places a sample,
both with a fixed seed. Each mutant is imported in a process of its own, which runs the tests that
exercise the file until the first fails; the code stays as it is. Counts are kept in
``benchmarks/results``. What survives is printed as a diff; ``benchmarks/MUTANTS.md`` judges it.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.abc
import importlib.util
import json
import os
import random
import re
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

import hypothesis
import pandas
import pytest
import scipy.stats
import scoringrules
import sklearn.ensemble
import skorch
import torch
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from benchmarks.runs import RESULTS

# Loaded once: each mutant's process is a fork of this one.
LOADED = hypothesis, pandas, scipy.stats, scoringrules, sklearn.ensemble, skorch, torch
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "sklearn_probmix"
FORMULAE = [
    f"families.py::test_{name}"
    for name in ("nll_of_float32_outputs_agrees_with_scipy", "moments_agree_with_scipy")
]
CRPS = [
    f"metrics.py::test_crps_{name}"
    for name in (
        "of_large_counts_is_that_of_normals",
        "of_single_components_is_that_of_scoringrules",
        "is_the_integral",
    )
]
# Sizes of the samples, and the tests that exercise a file, quick ones first.
PLAN = {
    "families": (45, ["families.py", "calibration.py", "censored.py"]),
    "components": (40, ["mixed_families.py", "distributions.py", "compound.py", "histograms.py"]),
    "mixing": (40, ["mixing.py"]),
    "pooling": (25, ["mixing.py", "families.py"]),
    "scipy_components": (20, ["distributions.py", *CRPS]),
    "counts": (20, ["counts.py", *FORMULAE]),
    "compound": (20, ["compound.py", *FORMULAE]),
}
# Parts of names of tests that take seconds; these would have found few more.
SLOW = ("estimator", "learn", "trains", "many_components", "wide_counts", "linear_model")
SLOW += ("vanishes", "are_drawn", "Integrals", "recovered", "3-lognorm", "3-t", "3-gamma")
SLOW += ("pooling_is", "pooling_stays", "(test_families and normalised_product)")
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-k", f"not ({' or '.join(SLOW)})"]
TIMEOUT = 300
# Operators that need arguments, and what no one would write, which fails at once: x << 1, x is 0.5.
UNUSED = re.compile(
    "Variable|_(Invert|Not|LShift|RShift|BitXor)$|Operator_[A-Z][a-z]+_Bit|Operator_[^I].*_Is"
)


def mutants(module):
    """Return the source of a module and its sample of mutants, in the order drawn."""
    path = ROOT / PACKAGE / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    nodes = list(ast_nodes(get_ast(source)))
    places = defaultdict(list)
    for name in sorted(operator_names()):
        if UNUSED.search(name):
            continue
        operator = get_operator(name)()
        found = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, place in enumerate(found):
            places[place].append((operator, occurrence))
    rng = random.Random(0)
    wanted, _ = PLAN[module]
    sample = []
    original = executed(source)
    for place in rng.sample(sorted(places), len(places)):
        code = mutate_code(source, *rng.choice(places[place]))
        if executed(code) not in (original, None):
            sample.append(code)
        if len(sample) == wanted:
            break
    return source, sample


def executed(source):
    """Return what is executed of a source, without annotations; None if that is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if hasattr(node, field):
                setattr(node, field, None)
    return ast.dump(tree)


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports a module of the package from a string."""

    def __init__(self, module, code):
        self.name, self.code = f"{PACKAGE}.{module}", code
        self.path = str(ROOT / PACKAGE / f"{module}.py")

    def find_spec(self, name, path, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_filename(self, name):
        return self.path

    def get_data(self, path):
        return self.code.encode()

    def path_stats(self, path):
        raise OSError("no bytecode of a mutant is kept")


def is_killed(module, code, log):
    """Run the tests on other code of a module; print what they say into a file."""
    child = os.fork()
    if child == 0:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.meta_path.insert(0, Mutated(module, code))
        files = [str(ROOT / "tests" / f"test_{name}") for name in PLAN[module][1]]
        os._exit(pytest.main([*OPTIONS, *files]))
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main():
    """Print the survivors of each file; print and keep how many were killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(PLAN))
    parser.add_argument("--results", type=Path, default=RESULTS / "mutants.json")
    parser.add_argument("--log", default=os.devnull, help="file for what pytest says")
    args = parser.parse_args()
    # Hypothesis then draws the same examples for all.
    os.environ["CI"] = "true"
    for module in args.modules:
        source, sample = mutants(module)
        if is_killed(module, source, args.log):
            raise SystemExit(f"tests of {module} fail without a mutation")
        n_killed = 0
        for code in sample:
            if is_killed(module, code, args.log):
                n_killed += 1
                continue
            lines = (text.splitlines() for text in (source, code))
            print(*difflib.unified_diff(*lines, module, n=0, lineterm=""), sep="\n", flush=True)
        print(f"{module}: {n_killed} of {len(sample)} killed", flush=True)
        found = json.loads(args.results.read_text()) if args.results.exists() else {}
        found[module] = {"mutants": len(sample), "killed": n_killed}
        args.results.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
