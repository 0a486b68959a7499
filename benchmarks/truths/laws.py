"""Laws of y given x, x three standard Normals, with their log-densities or log-masses."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.special import expit

__all__ = ["CELLS", "LAWS", "POISSON", "RIGHT", "draw"]


def _size(X):
    """Return a mean that grows and waves."""
    return np.exp(0.5 * X[:, 0] + 0.3 * np.sin(2 * X[:, 1]))


def _log_linear(X):
    """Return the mean of a generalised linear model, 1 where X is 0."""
    return np.exp(X @ [0.4, -0.3, 0.2])


def _curve(X):
    return np.sin(2 * X[:, 0]) + X[:, 1]


def _wide(X):
    mean = 50 * _size(X)
    return stats.nbinom(4, 4 / (4 + mean))


def _share(X):
    mean = expit(X[:, 0] + np.sin(X[:, 1]))
    return stats.beta(5 * mean, 5 * (1 - mean))


_FROZEN = {
    "normal": lambda X: stats.norm(_curve(X), 0.3 * np.exp(0.4 * X[:, 1])),
    "skewed": lambda X: stats.gamma(2, scale=_size(X)),
    "heavy": lambda X: stats.t(3, loc=_curve(X), scale=0.3),
    "bounded": _share,
    "counts of 1": lambda X: stats.poisson(_size(X)),
    "counts of 1e3": lambda X: stats.poisson(1e3 * _size(X)),
    "counts of 1e6": lambda X: stats.poisson(1e6 * _size(X)),
    "log-linear counts of 1": lambda X: stats.poisson(_log_linear(X)),
    "log-linear counts of 1e3": lambda X: stats.poisson(1e3 * _log_linear(X)),
    "log-linear counts of 1e6": lambda X: stats.poisson(1e6 * _log_linear(X)),
    "wide counts": _wide,
}


def _frozen(law, X, rng):
    law = law(X)
    # A share may be rounded to 1, where its density is infinite.
    most = np.nextafter(law.support()[1], -np.inf)
    y = np.minimum(law.rvs(random_state=rng).astype(float), most)
    is_discrete = isinstance(law.dist, stats.rv_discrete)
    return y, law.logpmf(y) if is_discrete else law.logpdf(y)


def _two_peaks(X, rng):
    centre, share = _curve(X), expit(X[:, 2])
    side = np.where(rng.random(len(X)) < share, 1.5, -1.5)
    y = centre + side + 0.3 * rng.normal(size=len(X))
    upper, lower = (stats.norm.pdf(y, centre + s, 0.3) for s in (1.5, -1.5))
    return y, np.log(share * upper + (1 - share) * lower)


def _zeros(X, rng):
    share, law = expit(X[:, 2]), stats.gamma(3, scale=_size(X))
    is_positive = rng.random(len(X)) < share
    y = np.where(is_positive, law.rvs(random_state=rng), 0.0)
    log_density = np.log(share) + law.logpdf(np.where(is_positive, y, 1.0))
    return y, np.where(is_positive, log_density, np.log1p(-share))


LAWS = [*_FROZEN, "two peaks", "zeros and gamma"]
POISSON = [law for law in LAWS if "counts of" in law]
#: The family that a law is of, or that is nearest to it, as `named_family` knows it.
RIGHT = dict.fromkeys(POISSON, "poisson") | {
    "normal": "normal",
    "skewed": "gamma",
    "heavy": "histogram",
    "bounded": "beta",
    "wide counts": "negative-binomial",
    "two peaks": "histogram",
    "zeros and gamma": "hurdle of gamma",
}
#: Width of the cells by whose probability predictions of responses with atoms are scored.
CELLS = dict.fromkeys([*POISSON, "wide counts"], 1.0) | {"zeros and gamma": 0.01}


def draw(name, n_rows, random_state):
    """Draw a table and the logarithm of the density or mass of each response.

    Parameters
    ----------
    name : str
        One of LAWS.
    n_rows, random_state : int

    Returns
    -------
    X : ndarray of shape (n_rows, 3)
    y, log_p : ndarray of shape (n_rows,)
    """
    rng = np.random.default_rng(random_state)
    X = rng.normal(size=(n_rows, 3))
    mixed = {"two peaks": _two_peaks, "zeros and gamma": _zeros}
    y, log_p = mixed[name](X, rng) if name in mixed else _frozen(_FROZEN[name], X, rng)
    return X, y, log_p
