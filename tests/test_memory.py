"""Long-lived processes do not grow: each part runs in a process of its own."""

import os
import subprocess
import sys

import pytest

COMMON = """
import gc
import itertools
import warnings

import numpy as np
import psutil
import torch

from sklearn_probmix import ProbMixupClassifier, ProbMixupRegressor

torch.set_num_threads(1)
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 5))
y = X[:, 0] + 0.1 * rng.normal(size=64)


def resident():
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6
"""
PREDICTIONS = """
est = ProbMixupRegressor(max_epochs=1, random_state=0).fit(X, y)
for number in range(2000):
    if number == 200:
        before = resident()
    dist = est.predict_proba(X[: 1 + number % 64])
    dist.interval(0.9) if number % 10 == 0 else dist.std()
print(resident() - before)
"""
FITS = """
small = {"n_members": 2, "hidden_layer_sizes": (8,), "max_epochs": 2}
methods = itertools.cycle(["erm", "mixup", "m-probmix", "probmix"])
for number in range(200):
    if number == 50:
        before = resident()
    if number % 4:
        ProbMixupRegressor(method=next(methods), **small).fit(X, y).predict(X)
    else:
        ProbMixupClassifier(method=next(methods), **small).fit(X, y > 0).predict(X)
print(resident() - before)
"""


@pytest.mark.parametrize(
    ("code", "most"), [(PREDICTIONS, 5), (FITS, 20)], ids=["2000 predictions", "200 fits"]
)
def test_memory_grows_by_a_few_megabytes_at_most(code, most):
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < most
