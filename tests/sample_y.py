"""Responses of every family, for tests that need some y in its support."""

import numpy as np

from sklearn_probmix import Histogram, Lattice, get_family

# In these units a mean between 0 and 4 lies in the support.
UNITS = {"beta": 0.25, "bernoulli": 0.25, "poisson": 10.0, "negative-binomial": 10.0}
# Bins of a histogram, and values of a lattice.
EDGES, TAILS = (0.5, 1.2, 2.0, 3.1), (0.3, 0.6)
VALUES = (0.0, 1.0, 2.5, 4.0)


def some_family(name, n_outputs=1, **arguments):
    """Make a family, with the bins or values above for every output if it has any."""
    match name:
        case "histogram":
            return Histogram(edges=(EDGES,) * n_outputs, tails=(TAILS,) * n_outputs)
        case "lattice":
            return Lattice(values=(VALUES,) * n_outputs, unit=(1.0,) * n_outputs)
    return get_family(name, **arguments)


def sample_y(family, mean, rng, *, n_classes=3):
    """Draw responses around means between 0 and 4, in units of the family.

    Classes are the codes of `n_classes` equal parts of that interval.
    """
    mean = np.asarray(mean) * UNITS.get(family, 1.0)
    match family:
        case "normal" | "homoscedastic-normal" | "transformed" | "histogram":
            return rng.normal(mean, 0.1)
        case "lattice":
            y = rng.normal(mean, 0.1)
            return np.array(VALUES)[abs(y[..., None] - VALUES).argmin(axis=-1)]
        case "lognormal":
            return np.exp(rng.normal(np.log(mean), 0.1))
        case "hurdle":
            y = np.exp(rng.normal(np.log(mean), 0.1))
            return np.where(rng.random(y.shape) < 0.9, y, 0.0)
        case "gamma":
            return rng.gamma(100, mean / 100)
        case "beta":
            return rng.beta(40 * mean, 40 * (1 - mean))
        case "poisson":
            return rng.poisson(mean).astype(float)
        case "negative-binomial":
            return rng.negative_binomial(20, 20 / (20 + mean)).astype(float)
        case "bernoulli":
            return rng.binomial(1, mean).astype(float)
        case "categorical":
            return (mean / 4 * n_classes).astype(int)


def some_y(family, shape, *, n_classes=3, seed=0):
    """Draw responses that are spread over the support."""
    rng = np.random.default_rng(seed)
    return sample_y(family, rng.uniform(0.1, 3.9, shape), rng, n_classes=n_classes)
