"""A fit with a checkpoint, for tests that kill it: `python -m tests.long_fit FOLDER`."""

import sys

import numpy as np
import torch

from sklearn_probmix import Kind, ProbMixupRegressor, race

#: In place of 200; five epochs.
FIRST_RUNG = 20
_RACER = {"batch_size": 16, "lr_schedule": "averaged", "max_epochs": 25}
_RACER |= {"hidden_layer_sizes": (8, 4), "lr": 0.01, "n_iter_no_change": None}
#: Kinds of all sorts that "auto" may be for a moment.
RACERS = (
    Kind("probmix", dropout=0.1, **_RACER),
    Kind(n_knots=3, **_RACER),
    Kind(network="kernel", dropout=0.1, **_RACER),
    Kind("m-probmix", n_neighbors=3, **_RACER | {"lr_schedule": "cosine"}),
)


def rows():
    """Rows of a fit of a second."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    return X, X[:, 0] + np.sin(2 * X[:, 1]) + 0.3 * rng.normal(size=120)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ProbMixupRegressor._auto_kinds, race._FIRST_RUNG = RACERS, FIRST_RUNG
    ProbMixupRegressor(n_members=2, random_state=0, checkpoint=sys.argv[1]).fit(*rows())
