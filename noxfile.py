"""Releases of other libraries that we are tested with, each in an environment of its own.

`nox` runs all but "newest", which takes the newest torch, on Linux with several GB of CUDA
libraries, and "mutants", which tests the tests.
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["package", "oldest", "current"]

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Of the suite, what touches other libraries most.
TOUCHES_OTHERS = [
    f"tests/test_{name}.py"
    for name in (
        *("columns", "distributions", "exports", "histograms", "metrics", "mixing", "modules"),
        *("named_methods", "persistence", "survival"),
    )
]
SMOKE = """
import numpy, sklearn, torch
from sklearn.datasets import load_diabetes
import sklearn_probmix
assert "site-packages" in sklearn_probmix.__file__, sklearn_probmix.__file__
X, y = load_diabetes(return_X_y=True)
est = sklearn_probmix.ProbMixupRegressor(method="probmix", max_epochs=20, random_state=0)
low, high = est.fit(X, y).predict_proba(X).interval(0.9)
assert 0.8 < ((low <= y) & (y <= high)).mean() < 1
print(*(f"{each.__name__} {each.__version__}" for each in (sklearn_probmix, numpy, sklearn, torch)))
"""


@nox.session
def package(session):
    """Build an sdist and a wheel of it, and predict with the wheel in a fresh environment."""
    folder = Path(session.create_tmp()).resolve()
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    session.install("-c", "constraints.txt", str(wheel))
    session.chdir(folder)
    session.run("python", "-c", SMOKE, env=ONE_THREAD)
    sdist.unlink()
    wheel.unlink()


@nox.session(python="3.11")
def oldest(session):
    """Run tests with the oldest releases that setup.cfg allows."""
    others = ("hypothesis", "pandas", "polars", "psutil", "pyarrow", "pytest", "skops")
    session.install("-c", "constraints-oldest.txt", "-e", ".", *others)
    tests = session.posargs or TOUCHES_OTHERS
    session.run("python", "-m", "pytest", "-q", "-m", "not slow", *tests, env=ONE_THREAD)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def current(session):
    """Run the suite with current releases, but for the torch of constraints.txt."""
    session.install("-c", "constraints.txt", "-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "2", *session.posargs, env=ONE_THREAD)


@nox.session
def newest(session):
    """Run the suite with the newest releases, torch too."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "2", *session.posargs, env=ONE_THREAD)


@nox.session
def mutants(session):
    """Count how many of a sample of small errors the tests find; see benchmarks/MUTANTS.md."""
    session.install("-c", "constraints.txt", "-e", ".[test]", "cosmic-ray == 8.7.0")
    session.run("python", "-m", "benchmarks.mutants", *session.posargs, env=ONE_THREAD)
