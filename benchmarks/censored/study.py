"""Linear laws with censored responses, the models, and a table of what they find.

Normal y is ``3 + X b + 0.5 e``; log-normal y is its exponential. The parameters are the intercept
and the slopes of the mean and of the logarithm of the standard deviation, of y or of log(y): what
a linear network, and lifelines with ancillary parameters, make a function of x.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from scipy import optimize, stats
from threadpoolctl import threadpool_limits

from benchmarks.flat import arguments, defaults
from benchmarks.markdown import table
from sklearn_probmix import PredictiveDistribution, ProbMixupRegressor
from sklearn_probmix.metrics import nll

__all__ = ["LAWS", "MODELS", "PEER", "draw", "fit_law", "jobs", "report"]

LAWS = "normal", "lognormal"
TRUTH = np.array([3.0, 0.7, -0.4, 0.0, np.log(0.5), 0.0, 0.0, 0.0])
N_TEST = 3000
LINEAR = {
    "method": "erm",
    "hidden_layer_sizes": (),
    "lr": 0.01,
    "lr_schedule": "averaged",
    "n_steps": 1000,
}
# Of our models: one that has nothing but the likelihood, and one as it comes.
OURS = {
    "linear": LINEAR | {"n_members": 1, "validation": None, "weight_decay": 0.0},
    "linear, shrunk": LINEAR | {"n_members": 5},
}
PEER = "lifelines"
MODELS = [*OURS, PEER]


def draw(law, share, n_rows, random_state):
    """Draw a table, and responses of which about a share is censored.

    Parameters
    ----------
    law : {"normal", "lognormal"}
    share : float in [0, 1)
    n_rows, random_state : int

    Returns
    -------
    X : ndarray of shape (n_rows, 3)
    y, observed : ndarrays of shape (n_rows,)
    censored : ndarray of bool of shape (n_rows,)
    """
    rng = np.random.default_rng(random_state)
    X = rng.normal(size=(n_rows, 3))
    mean, log_scale = _linear(X, TRUTH)
    y = mean + np.exp(log_scale) * rng.normal(size=n_rows)
    limit = np.quantile(y, 1 - share) + rng.uniform(-0.5, 0.5, n_rows) if share else np.inf
    observed, censored = np.minimum(y, limit), y > limit
    if law == "lognormal":
        y, observed = np.exp(y), np.exp(observed)
    return X, y, observed, censored


def _with_constant(X):
    return np.c_[np.ones(len(X)), X]


def _linear(X, parameters):
    """Mean and logarithm of the standard deviation of each row."""
    return np.reshape(parameters, (2, -1)) @ _with_constant(X).T


def neg_log_likelihood(parameters, X, z, censored):
    """Of Normal responses z, which are lower bounds where they are censored."""
    mean, log_scale = _linear(X, parameters)
    standard = (z - mean) / np.exp(log_scale)
    seen = stats.norm.logpdf(standard) - log_scale
    return -np.where(censored, stats.norm.logsf(standard), seen).sum()


def most_likely(X, z, censored):
    """Estimate the parameters by maximum likelihood, with their standard errors at the truth."""
    found = optimize.minimize(neg_log_likelihood, TRUTH, (X, z, censored), method="BFGS").x
    steps = 1e-4 * np.eye(len(TRUTH))

    def slope(parameters):
        return optimize.approx_fprime(parameters, neg_log_likelihood, 1e-5, X, z, censored)

    information = np.array([(slope(TRUTH + h) - slope(TRUTH - h)) / 2e-4 for h in steps])
    return found, np.sqrt(np.diag(np.linalg.inv((information + information.T) / 2)))


def _ours(settings, X, y, censored, X_test):
    law, seed = settings["law"], settings["seed"]
    own = arguments(OURS[settings["model"]])
    est = ProbMixupRegressor(family=law, random_state=seed, **own).fit(X, y, censored=censored)
    dist = est.predict_proba(X_test)
    if law == "normal":
        mean, scale = dist.params["loc"], dist.params["scale"]
    else:
        mean, scale = np.log(dist.params["scale"]), dist.params["s"]
    # Linear functions of x, up to the floor of the variance.
    averages = [(dist.weights * each).sum(axis=1) for each in (mean, np.log(scale))]
    return np.linalg.lstsq(_with_constant(X_test), np.transpose(averages))[0].T.ravel(), dist


def _lifelines(settings, X, y, censored, X_test):
    """Fit an accelerated-failure-time model of log-normal times; Normal y are their logarithms."""
    import pandas as pd
    from lifelines import LogNormalAFTFitter

    is_normal = settings["law"] == "normal"
    names = [f"x{k}" for k in range(X.shape[1])]
    rows = pd.DataFrame(X, columns=names)
    rows["time"], rows["seen"] = np.exp(y) if is_normal else y, ~censored
    found = LogNormalAFTFitter().fit(rows, "time", "seen", ancillary=True).params_
    own = [found[name][["Intercept", *names]].to_numpy() for name in ("mu_", "sigma_")]
    parameters = np.concatenate(own)
    mean, log_scale = (each[:, None] for each in _linear(X_test, parameters))
    scale = np.exp(log_scale)
    if is_normal:
        return parameters, PredictiveDistribution("norm", {"loc": mean, "scale": scale})
    return parameters, PredictiveDistribution("lognorm", {"s": scale, "scale": np.exp(mean)})


def concordance(predicted, observed, censored):
    """Share of the pairs whose order is known that are predicted in that order (Harrell's C).

    The order of a pair is known if the smaller response is not censored.

    Parameters
    ----------
    predicted, observed : ndarrays of shape (n,)
    censored : ndarray of bool of shape (n,)

    Returns
    -------
    float
        Equal predictions count by half.
    """
    right = known = 0.0
    for at in np.flatnonzero(~censored):
        is_later = observed > observed[at]
        later = predicted[is_later] - predicted[at]
        right += (later > 0).sum() + 0.5 * (later == 0).sum()
        known += is_later.sum()
    return right / known


def fit_law(settings):
    """Fit a model to censored rows; score what it finds, and what it says of others."""
    law, n_rows = settings["law"], settings["n_rows"]
    X, y, observed, censored = draw(law, settings["share"], n_rows + N_TEST, settings["seed"])
    train, test = np.s_[:n_rows], np.s_[n_rows:]
    with threadpool_limits(1):
        fit = _lifelines if settings["model"] == PEER else _ours
        parameters, dist = fit(settings, X[train], observed[train], censored[train], X[test])
    z = np.log(observed) if law == "lognormal" else observed
    likely, errors = most_likely(X[train], z[train], censored[train])
    from_truth = (parameters - TRUTH) / errors
    known = np.where(censored[test], np.log(dist.sf(observed[test])), dist.logpdf(observed[test]))
    return {
        **{f"from_truth_{k}": float(value) for k, value in enumerate(from_truth)},
        "from_likely": float(abs((parameters - likely) / errors).max()),
        "censored": float(censored[train].mean()),
        "concordance": float(concordance(dist.median(), observed[test], censored[test])),
        "log_score": float(known.mean()),
        "log_score_of_truth": float(-nll(y[test], dist)),
    }


def jobs(laws, shares, n_rows, seeds, models):
    """List the fits, breadth first; what a model is made of is part of what it is."""
    made = {
        name: {"parameters": defaults(ProbMixupRegressor()) | own} for name, own in OURS.items()
    }
    for own in made.values():
        # Of other kinds, and the law's.
        for name in ("auto", "race", "family"):
            del own["parameters"][name]
    if PEER in models:
        made[PEER] = {"version": version(PEER)}
    return [
        {"law": law, "share": share, "n_rows": n, "seed": seed, "model": model} | made[model]
        for seed in range(seeds)
        for n in n_rows
        for share in shares
        for law in laws
        for model in models
    ]


def report(results):
    """Render means over seeds as Markdown.

    Parameters
    ----------
    results : dict
        As `read_results` gives them.

    Returns
    -------
    str
    """
    cells = {}
    for line in results.values():
        if "scores" in line:
            settings = line["settings"]
            place = settings["law"], settings["share"], settings["n_rows"], settings["model"]
            cells.setdefault(place, []).append(line["scores"])
    rows = []
    for (law, share, n_rows, model), scores in sorted(cells.items()):
        mean = {name: np.mean([score[name] for score in scores]) for name in scores[0]}
        away = abs(
            np.array([[score[f"from_truth_{k}"] for k in range(len(TRUTH))] for score in scores])
        )
        rows.append(
            {
                "law": law,
                "censored": f"{share:.0%}",
                "rows": n_rows,
                "model": model,
                "seeds": len(scores),
                "within 2 errors of the truth": f"{(away < 2).sum()} of {away.size}",
                "farthest": f"{away.max():.1f}",
                "from the most likely": f"{mean['from_likely']:.2f}",
                "concordance": f"{mean['concordance']:.4f}",
                "log score": f"{mean['log_score']:.4f}",
                "log score of what was censored": f"{mean['log_score_of_truth']:.4f}",
            }
        )
    return table(rows)
