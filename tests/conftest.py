import os
from pathlib import Path

import hypothesis
import pytest
import torch

# The suite runs in one process per core.
torch.set_num_threads(1)

# Where machines differ in speed a deadline fails at random; on CI a red run must be repeatable.
hypothesis.settings.register_profile("probmix", deadline=None, derandomize="CI" in os.environ)
# Chosen by --hypothesis-profile=long.
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("probmix")


def _real_data(name):
    root = os.environ.get("PROBMIX_DATA")
    if root is None:
        pytest.skip("PROBMIX_DATA is not set: no real tables to test on")
    return Path(root, name)


@pytest.fixture
def uci_root():
    """Return the folder of the UCI tables; the test is skipped where there is none."""
    return _real_data("uci")


@pytest.fixture
def stocks_root():
    """Return the folder of the stock prices; the test is skipped where there is none."""
    return _real_data("stocks")
