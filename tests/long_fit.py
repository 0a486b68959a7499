"""A fit with a checkpoint, for tests that kill it: `python -m tests.long_fit FOLDER`."""

import sys

import numpy as np
import torch

from sklearn_probmix import Kind, ProbMixupRegressor

_RACER = {"batch_size": 64, "lr_schedule": "averaged", "n_steps": 900, "hidden_layer_sizes": (8, 4)}
#: Kinds of all sorts that "auto" may be for a moment.
RACERS = (
    Kind("probmix", dropout=0.1, **_RACER),
    Kind(n_knots=3, **_RACER),
    Kind(network="kernel", dropout=0.1, **_RACER),
    Kind("m-probmix", n_neighbors=3, **_RACER | {"lr_schedule": "cosine"}),
)


def rows():
    """Rows of a fit of a second or two."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    return X, X[:, 0] + np.sin(2 * X[:, 1]) + 0.3 * rng.normal(size=400)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ProbMixupRegressor._auto_kinds = RACERS
    ProbMixupRegressor(n_members=2, random_state=0, checkpoint=sys.argv[1]).fit(*rows())
