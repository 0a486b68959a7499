"""The sets of the benchmark, its subsamples and its splits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.data import UCISplit, read_table, read_uci

__all__ = ["SETS", "read_set", "split_of"]


class Set(NamedTuple):
    """A set of the benchmark, and where our copy of it is."""

    title: str
    """Its name in the benchmark."""
    file: str
    """Under the folder of data."""
    n_rows: int
    has_atoms: bool
    """Whether y takes few values, so that densities of it have no upper bound."""


SETS = {
    "kin8nm": Set("Kin8nm", "uci/kin8nm", 8192, False),
    "protein": Set("Protein", "tables/protein.csv.gz", 45730, False),
    "naval": Set("NavalPropulsion", "uci/naval-propulsion-plant", 11934, True),
    "abalone": Set("Abalone", "tables/abalone.csv.gz", 4177, True),
    "bike": Set("BikeSharing", "tables/bike.csv.gz", 17379, True),
    "wine": Set("WhiteWine", "tables/winequality-white.csv.gz", 4898, True),
}


def read_set(root, name):
    """Read a set in the units of the benchmark.

    Parameters
    ----------
    root : str or path-like
        Folder of data.
    name : str
        One of `SETS`.

    Returns
    -------
    X : ndarray of shape (n_samples, n_columns)
    y : ndarray of shape (n_samples,)
    """
    path = Path(root, SETS[name].file)
    if path.suffix != ".gz":
        return read_uci(path)
    X, y = read_table(path)
    # Our copies hold logarithms less their mean: of 1 + y for protein, whose least y is 0, and of
    # the count for bike, whose least is 1.
    if name == "protein":
        return X, np.expm1(y - y.min())
    if name == "bike":
        return _bike_columns(X), np.rint(np.exp(y - y.min()))
    return X, y


def _bike_columns(X):
    """Leave out the date, and casual and registered riders, whose sum is the count.

    Seasons and weather are categories.
    """
    season, weather = (X[:, [k]] == np.unique(X[:, k]) for k in (3, 10))
    return np.hstack([X[:, 4:10], X[:, 11:15], season, weather])


def split_of(X, y, n_rows, seed):
    """Draw the rows of the benchmark, and hold out a quarter of them.

    The rows of fewer are among those of more, and the same for all seeds.

    Parameters
    ----------
    X, y : ndarrays
    n_rows : int
        Of the training and the test part together.
    seed : int

    Returns
    -------
    UCISplit
    """
    rows = np.random.RandomState(42).permutation(len(y))[:n_rows]
    return UCISplit(*train_test_split(X[rows], y[rows], test_size=0.25, random_state=seed))
