"""Contenders that need an environment of their own, the extra ``benchmarks-recent``."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split

from benchmarks.peers.forecasts import IntervalForecast, QuantileForecast, samples_forecast
from benchmarks.scores import LEVEL
from sklearn_probmix import PredictiveDistribution

__all__ = ["ConformalQuantiles", "LightGBMLSS", "QuantileNetwork", "Treeffuser"]


class Treeffuser:
    """Diffusion whose score is learnt by trees, as it comes: `predict_proba` has draws."""

    def __init__(self, random_state, *, n_samples):
        import treeffuser

        self.model = treeffuser.Treeffuser(seed=random_state, n_jobs=1)
        self.random_state = random_state
        self.n_samples = n_samples

    def fit(self, X, y):
        self.smallest_scale = 0.01 * y.std()
        self.model.fit(X, y)
        return self

    def predict_proba(self, X):
        # All draws in one batch: with a seed every batch begins with the same noise.
        samples = self.model.sample(
            X, self.n_samples, n_parallel=self.n_samples, seed=self.random_state
        )
        return samples_forecast(samples, self.smallest_scale)


class LightGBMLSS:
    """Boosting of all parameters of Student's t, its settings searched by cross-validation.

    The search is that of the walk-through of its documentation (docs/examples/Gaussian_Regression),
    save that leaves may have fewer than 20 rows: some tables are small. y is standardised, since
    the trees begin at .5.
    """

    SEARCH = {
        "eta": ["float", {"low": 1e-5, "high": 1, "log": True}],
        "max_depth": ["int", {"low": 1, "high": 10, "log": False}],
        "num_leaves": ["int", {"low": 255, "high": 255, "log": False}],
        "min_data_in_leaf": ["int", {"low": 2, "high": 20, "log": False}],
        "min_gain_to_split": ["float", {"low": 1e-8, "high": 40, "log": False}],
        "min_sum_hessian_in_leaf": ["float", {"low": 1e-8, "high": 500, "log": True}],
        "subsample": ["float", {"low": 0.2, "high": 1.0, "log": False}],
        "feature_fraction": ["float", {"low": 0.2, "high": 1.0, "log": False}],
        "boosting": ["categorical", ["gbdt"]],
        "num_threads": ["none", [1]],
    }

    def __init__(self, random_state, *, n_estimators, n_trials, folds, early_stopping_rounds):
        from lightgbmlss.distributions.StudentT import StudentT
        from lightgbmlss.model import LightGBMLSS

        self.model = LightGBMLSS(StudentT())
        self.n_estimators = n_estimators
        self.search = {
            "nfold": folds,
            "n_trials": n_trials,
            "early_stopping_rounds": early_stopping_rounds,
            "seed": random_state,
            "hp_seed": random_state,
        }

    def fit(self, X, y):
        import lightgbm

        self.shift, self.scale = y.mean(), y.std()
        rows = lightgbm.Dataset(
            X,
            label=(y - self.shift) / self.scale,
            params={"feature_pre_filter": False, "num_threads": 1, "verbose": -1},
        )
        # Minutes that never end: the same search on every machine.
        found = self.model.hyper_opt(
            self.SEARCH, rows, self.n_estimators, max_minutes=10**6, silence=True, **self.search
        )
        n_trees = found.pop("opt_rounds")
        self.model.train(found, rows, num_boost_round=n_trees)
        return self

    def predict_proba(self, X):
        found = self.model.predict(X, pred_type="parameters")
        params = {name: found[name].to_numpy(dtype=float)[:, None] for name in found}
        return PredictiveDistribution(
            "t",
            {
                # Where its exponential overflows it means the Normal.
                "df": np.minimum(params["df"], 1e6),
                "loc": self.shift + self.scale * params["loc"],
                "scale": self.scale * params["scale"],
            },
        )


class QuantileNetwork:
    """A network of pytabkit with its tuned defaults, trained on the pinball loss of quantiles."""

    def __init__(self, random_state, *, model, n_quantiles, n_cv):
        import pytabkit

        self.levels = (np.arange(n_quantiles) + 0.5) / n_quantiles
        loss = f"multi_pinball({','.join(f'{level:g}' for level in self.levels)})"
        self.model = getattr(pytabkit, model)(
            device="cpu",
            random_state=random_state,
            n_threads=1,
            n_cv=n_cv,
            train_metric_name=loss,
            val_metric_name=loss,
        )

    def fit(self, X, y):
        self.smallest_scale = 0.01 * y.std()
        self.model.fit(X, y)
        return self

    def predict_proba(self, X):
        # Quantiles of networks may cross.
        quantiles = np.sort(self.model.predict(X), axis=1).T
        low, high = (
            quantiles[np.argmin(abs(self.levels - level))]
            for level in [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        )
        return QuantileForecast(low, high, self.levels, quantiles, self.smallest_scale)


class ConformalQuantiles:
    """MAPIE's conformalised quantile regression on boosted trees: intervals alone."""

    def __init__(self, random_state, *, conformal_fraction):
        from mapie.regression import ConformalizedQuantileRegressor

        # One of those that its documentation names; without a hold-out of its own.
        trees = HistGradientBoostingRegressor(
            loss="quantile", quantile=0.5, early_stopping=False, random_state=random_state
        )
        self.model = ConformalizedQuantileRegressor(trees, confidence_level=LEVEL)
        self.hold_out = {"test_size": conformal_fraction, "random_state": random_state}

    def fit(self, X, y):
        X, X_conformal, y, y_conformal = train_test_split(X, y, **self.hold_out)
        self.model.fit(X, y).conformalize(X_conformal, y_conformal)
        return self

    def predict_proba(self, X):
        _, intervals = self.model.predict_interval(X)
        return IntervalForecast(*intervals[:, :, 0].T)
