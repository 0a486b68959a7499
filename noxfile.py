"""Releases of other libraries that we are tested with, each in an environment of its own.

`nox` alone tries the wheel and the oldest releases; ``nox --list`` shows all, "mutants" among them,
which tests the tests. Each names its torch: on Linux the wheels of some releases come with several
GB of CUDA libraries.
"""

from pathlib import Path

import nox

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PINNED = Path(__file__).with_name("constraints.txt").read_text(encoding="utf-8").splitlines()
(TORCH,) = (line.partition("==")[2] for line in PINNED if line.startswith("torch=="))
# Of the suite, what touches other libraries most.
TOUCHES_OTHERS = [
    "tests/test_sklearn_conformance.py",
    *(
        f"tests/test_{name}.py"
        for name in (
            *("columns", "demo", "distributions", "exports", "families", "histograms", "long_fits"),
            *("metrics", "mixing", "modules", "named_methods", "persistence", "pipelines"),
            *("rectified", "survival"),
        )
    ),
    # Of scikit-learn's own checks, those of one method.
    *("-k", "not test_check_estimator", "-m", "not slow"),
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

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["package", f"oldest(torch='{TORCH}')"]


def run_tests(session):
    """Run what touches other libraries, or what is named after ``--``."""
    tests = session.posargs or TOUCHES_OTHERS
    session.run("python", "-m", "pytest", "-q", *tests, env=ONE_THREAD)


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
@nox.parametrize("torch", [TORCH, "2.4.1"])
def oldest(session, torch):
    """Run tests with the oldest releases that setup.cfg allows."""
    others = ("hypothesis", "pandas", "polars", "psutil", "pyarrow", "pytest", "skops")
    session.install("-c", "constraints-oldest.txt", "-e", ".", f"torch=={torch}", *others)
    run_tests(session)


@nox.session(python=PYTHONS)
def current(session):
    """Run tests with the releases of constraints.txt."""
    session.install("-c", "constraints.txt", "-e", ".[test]")
    run_tests(session)


@nox.session(python=PYTHONS)
@nox.parametrize("torch", [TORCH, "2.14.1"])
def newest(session, torch):
    """Run tests with the newest releases of all but torch."""
    session.install("-e", ".[test]", f"torch=={torch}")
    run_tests(session)


@nox.session
def cluster(session):
    """Run the code of docs/cluster.md: on Dask and Ray and, where there is Java, on Spark."""
    session.install("-c", "constraints.txt", "-e", ".[test,ray,spark]")
    session.run("python", "-m", "pytest", "-q", "-rs", "tests/test_cluster.py", env=ONE_THREAD)


@nox.session
def mutants(session):
    """Count how many of a sample of small errors the tests find; see benchmarks/MUTANTS.md."""
    session.install("-c", "constraints.txt", "-e", ".[test]", "cosmic-ray == 8.7.0")
    session.run("python", "-m", "benchmarks.mutants", *session.posargs, env=ONE_THREAD)
