"""Linear laws with censored responses, the models, and a table of what they find.

Normal y is ``3 + X b + 0.5 e``; log-normal y is its exponential. The parameters are the intercept,
the slopes and the logarithm of the standard deviation, of y or of log(y).
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats
from threadpoolctl import threadpool_limits

from benchmarks.flat import arguments, defaults
from benchmarks.markdown import table
from sklearn_probmix import PredictiveDistribution, ProbMixupRegressor
from sklearn_probmix.metrics import nll

__all__ = ["LAWS", "MODELS", "draw", "fit_law", "jobs", "report"]

LAWS = "normal", "lognormal"
TRUTH = np.array([3.0, 0.7, -0.4, 0.0, np.log(0.5)])
N_TEST = 3000
LINEAR = {"hidden_layer_sizes": (), "lr": 0.01, "lr_schedule": "averaged", "n_steps": 1000}


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
    y = _linear(X, TRUTH) + np.exp(TRUTH[-1]) * rng.normal(size=n_rows)
    limit = np.quantile(y, 1 - share) + rng.uniform(-0.5, 0.5, n_rows) if share else np.inf
    observed, censored = np.minimum(y, limit), y > limit
    if law == "lognormal":
        y, observed = np.exp(y), np.exp(observed)
    return X, y, observed, censored


def _linear(X, parameters):
    return parameters[0] + X @ parameters[1:-1]


def neg_log_likelihood(parameters, X, z, censored):
    """Of Normal responses z, which are lower bounds where they are censored."""
    scale = np.exp(parameters[-1])
    standard = (z - _linear(X, parameters)) / scale
    seen = stats.norm.logpdf(standard) - parameters[-1]
    return -np.where(censored, stats.norm.logsf(standard), seen).sum()


def most_likely(X, z, censored):
    """Estimate the parameters by maximum likelihood, with their standard errors at the truth."""
    found = optimize.minimize(neg_log_likelihood, TRUTH, (X, z, censored), method="BFGS").x
    steps = 1e-4 * np.eye(len(TRUTH))

    def slope(parameters):
        return optimize.approx_fprime(parameters, neg_log_likelihood, 1e-5, X, z, censored)

    information = np.array([(slope(TRUTH + h) - slope(TRUTH - h)) / 2e-4 for h in steps])
    return found, np.sqrt(np.diag(np.linalg.inv((information + information.T) / 2)))


def _linear_kind(law, seed, X, y, censored, X_test):
    settings = arguments({"method": "erm", **LINEAR})
    est = ProbMixupRegressor(family=law, random_state=seed, **settings)
    dist = est.fit(X, y, censored=censored).predict_proba(X_test)
    if law == "normal":
        location, scale = dist.params["loc"], dist.params["scale"]
    else:
        location, scale = np.log(dist.params["scale"]), dist.params["s"]
    columns = np.c_[np.ones(len(X_test)), X_test]
    # A linear network is linear, so that these are its coefficients.
    mean = (dist.weights * location).sum(axis=1)
    coefficients = np.linalg.lstsq(columns, mean, rcond=None)[0]
    log_scale = (dist.weights * np.log(scale)).sum(axis=1).mean()
    return np.append(coefficients, log_scale), dist


def _lifelines(law, seed, X, y, censored, X_test):
    """Fit an accelerated-failure-time model of log-normal times; Normal y are their logarithms."""
    import pandas as pd
    from lifelines import LogNormalAFTFitter

    names = [f"x{k}" for k in range(X.shape[1])]
    rows = pd.DataFrame(X, columns=names)
    rows["time"], rows["seen"] = np.exp(y) if law == "normal" else y, ~censored
    found = LogNormalAFTFitter().fit(rows, "time", "seen").params_
    coefficients = found["mu_"][["Intercept", *names]].to_numpy()
    parameters = np.append(coefficients, found["sigma_"]["Intercept"])
    location = _linear(X_test, parameters)[:, None]
    scale = np.full_like(location, np.exp(parameters[-1]))
    if law == "normal":
        return parameters, PredictiveDistribution("norm", {"loc": location, "scale": scale})
    own = {"s": scale, "scale": np.exp(location)}
    return parameters, PredictiveDistribution("lognorm", own)


MODELS = {"linear": _linear_kind, "lifelines": _lifelines}


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
        parameters, dist = MODELS[settings["model"]](
            law, settings["seed"], X[train], observed[train], censored[train], X[test]
        )
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
    """List the fits, breadth first; what our model is made of is part of what it is."""
    parameters = defaults(ProbMixupRegressor(method="erm", family="normal")) | LINEAR
    for name in ("auto", "race", "family"):
        del parameters[name]
    return [
        {"law": law, "share": share, "n_rows": n, "seed": seed, "model": model}
        | ({"parameters": parameters} if model == "linear" else {})
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
        away = abs(np.array([[score[f"from_truth_{k}"] for k in range(5)] for score in scores]))
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
