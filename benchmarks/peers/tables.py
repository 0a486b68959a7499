"""The tables that are not UCI's: scikit-learn's own, and laws from which rows are drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_moons,
)
from sklearn.model_selection import train_test_split

from sklearn_probmix.datasets import make_rings

__all__ = ["ASIDE", "FILES", "N_GENERATED_TEST", "TABLES"]

N_GENERATED_TEST = 2000
# Rows of the training part beyond which a table counts as large.
N_LARGE = 2000


class Table(NamedTuple):
    """A classification table: one of scikit-learn's, a law from which rows are drawn, or a file."""

    about: str
    load: Callable | None = None
    make: Callable | None = None
    """Of (n_samples, random_state)."""
    n_train: int | None = None

    @property
    def is_file(self):
        return self.load is None and self.make is None

    def split(self, split):
        """Return X, X_test, y, y_test: a stratified tenth, or 2,000 new rows, to test on."""
        if self.load is not None:
            X, y = self.load(return_X_y=True)
            return train_test_split(X, y, test_size=0.1, stratify=y, random_state=split)
        X, y = self.make(self.n_train + N_GENERATED_TEST, random_state=split)
        return train_test_split(X, y, train_size=self.n_train, stratify=y, random_state=split)


def _flipped(n_samples, random_state):
    return make_classification(
        n_samples, n_features=10, n_informative=5, flip_y=0.2, random_state=random_state
    )


def _logistic(n_samples, random_state):
    """Classes of a logistic law in eight columns."""
    rng = np.random.default_rng(random_state)
    X = rng.normal(size=(n_samples, 8))
    slope = np.array([2.0, -1.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0])
    return X, (rng.random(n_samples) < expit(X @ slope)).astype(int)


_moons = partial(make_moons, noise=0.35)
_FLIPPED = "make_classification, 10 columns, 5 informative, a fifth of the labels drawn anew"
_MOONS = "make_moons, noise .35"
_LOGISTIC = "a logistic law in 8 columns, 4 of them without effect"
_RINGS = "the paper's three rings"
TABLES = {
    "breast-cancer": Table("569 × 30, 2 classes", load_breast_cancer),
    "wine": Table("178 × 13, 3 classes", load_wine),
    "iris": Table("150 × 4, 3 classes", load_iris),
    "digits": Table("1797 × 64, 10 classes", load_digits),
    "flipped-150": Table(_FLIPPED, make=_flipped, n_train=150),
    "flipped-1000": Table(_FLIPPED, make=_flipped, n_train=1000),
    "moons-100": Table(_MOONS, make=_moons, n_train=100),
    "moons-1000": Table(_MOONS, make=_moons, n_train=1000),
    "rings-100": Table(_RINGS, make=make_rings, n_train=100),
    "rings-500": Table(_RINGS, make=make_rings, n_train=500),
    "logistic-100": Table(_LOGISTIC, make=_logistic, n_train=100),
    "logistic-300": Table(_LOGISTIC, make=_logistic, n_train=300),
    "german": Table("1000 × 61, one column for each value of text, 2 classes"),
}


#: More regression tables, as files in the folder tables of the data; all count as large.
FILES = ["winequality-white", "abalone", "parkinsons", "bike", "protein"]


class AsideTable(NamedTuple):
    """A regression table on which no default was chosen: diabetes, or a law of known density."""

    about: str
    n_train: int
    law: Callable | None = None
    """Maps x (rows, 5) to a frozen distribution of scipy.stats, one for each row."""

    @property
    def large(self):
        return self.n_train > N_LARGE

    def split(self, split):
        """Return X, X_test, y, y_test and the law's own NLL on the test rows, in nats."""
        if self.law is None:
            X, y = load_diabetes(return_X_y=True)
            return *train_test_split(X, y, train_size=self.n_train, random_state=split), np.nan
        rng = np.random.default_rng(split)
        X = rng.normal(size=(self.n_train + N_GENERATED_TEST, 5))
        dist = self.law(X)
        y = dist.rvs(random_state=rng)
        true_nll = float(-dist.logpdf(y)[self.n_train :].mean())
        return X[: self.n_train], X[self.n_train :], y[: self.n_train], y[self.n_train :], true_nll


def waves(X):
    """Normal; mean and standard deviation are smooth functions of different columns."""
    mean = np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] * X[:, 2]
    return stats.norm(mean, 0.1 + 0.5 * expit(2 * X[:, 3]))


def skewed(X):
    """Gamma; what a Normal cannot say of it costs nats."""
    shape = 1.5 + 4 * expit(X[:, 2])
    return stats.gamma(shape, scale=np.exp(0.5 * X[:, 0] - 0.3 * X[:, 1] ** 2) / shape)


_WAVES = "Normal, mean sin(2 x1) + x2 x3 / 2, sd .1 + .5 / (1 + exp(-2 x4)), x ~ N(0, I)"
_SKEWED = "gamma of shape 1.5 to 5.5, mean exp(x1 / 2 - .3 x2²), x ~ N(0, I)"
ASIDE = {
    "diabetes": AsideTable("442 × 10, of scikit-learn", 398),
    "waves-100": AsideTable(_WAVES, 100, waves),
    "waves-1000": AsideTable(_WAVES, 1000, waves),
    "skewed-1000": AsideTable(_SKEWED, 1000, skewed),
    "waves-10000": AsideTable(_WAVES, 10_000, waves),
}
