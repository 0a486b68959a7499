"""The encodings, one fit behind one of them, and a table of their scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from benchmarks.data import load_frame
from benchmarks.peers.contenders import CATBOOST_QUIETLY, STOPPING, normals
from benchmarks.scores import regression_scores
from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor

__all__ = ["ENCODINGS", "TABLES", "fit_table", "jobs", "report"]

TABLES = {
    "auto_imports": ProbMixupRegressor,
    "german": ProbMixupClassifier,
    "abalone": ProbMixupRegressor,
}
# Enough to tell encodings apart.
MOST_ROWS = 2000
KINDS = {
    "erm": Kind("erm", max_epochs=60),
    "kernel": Kind(network="kernel", max_epochs=40),
    "default": "auto",
}


def _plain(est):
    numbers = SimpleImputer(add_indicator=True), make_column_selector(dtype_include="number")
    text = (
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        make_column_selector(dtype_exclude="number"),
    )
    return make_pipeline(make_column_transformer(numbers, text), est)


def _skrub(est):
    from skrub import tabular_pipeline

    return tabular_pipeline(est)


class _Boosting:
    """Gradient boosting with its own treatment of columns, and a Normal of one size."""

    def __init__(self, est):
        self.is_regression = isinstance(est, ProbMixupRegressor)
        make = (
            HistGradientBoostingRegressor if self.is_regression else HistGradientBoostingClassifier
        )
        self.est = make(random_state=est.random_state)

    def fit(self, X, y):
        if self.is_regression:
            found = cross_val_predict(self.est, _with_categories(X), y)
            self.scale = root_mean_squared_error(y, found)
        self.est.fit(_with_categories(X), y)
        return self

    def predict_proba(self, X):
        X = _with_categories(X)
        if not self.is_regression:
            return self.est.predict_proba(X)
        mean = self.est.predict(X)
        return normals(mean, np.full_like(mean, self.scale))


class _CatBoost:
    """CatBoost with its own treatment of categories: a Normal of its own size, or log loss."""

    def __init__(self, est):
        from catboost import CatBoostClassifier, CatBoostRegressor

        self.is_regression = isinstance(est, ProbMixupRegressor)
        settings = CATBOOST_QUIETLY | {"random_seed": est.random_state, "iterations": 5000}
        if self.is_regression:
            self.est = CatBoostRegressor(loss_function="RMSEWithUncertainty", **settings)
        else:
            self.est = CatBoostClassifier(**settings)

    def fit(self, X, y):
        X = self._filled(X)
        texts = [*X.select_dtypes(exclude="number")]
        settings = {"test_size": STOPPING["validation_fraction"], "random_state": 0}
        X, X_valid, y, y_valid = train_test_split(
            X, y, stratify=None if self.is_regression else y, **settings
        )
        stopping = {"early_stopping_rounds": STOPPING["early_stopping_rounds"]}
        self.est.fit(X, y, cat_features=texts, eval_set=(X_valid, y_valid), **stopping)
        return self

    def predict_proba(self, X):
        if not self.is_regression:
            return self.est.predict_proba(self._filled(X))
        mean, variance = self.est.predict(self._filled(X)).T
        return normals(mean, np.sqrt(variance))

    @staticmethod
    def _filled(X):
        """Missing texts are a category of their own, for which it wants a word."""
        texts = [*X.select_dtypes(exclude="number")]
        return X.assign(**{name: X[name].astype(object).fillna("missing") for name in texts})


def _with_categories(X):
    text = X.select_dtypes(exclude="number").columns
    return X.astype(dict.fromkeys(text, "category"))


ENCODINGS = {
    "native": lambda est: est,
    "skrub": _skrub,
    "one-hot": _plain,
    "boosting": _Boosting,
    "CatBoost": _CatBoost,
}
# Which have no networks.
OTHERS = "boosting", "CatBoost"


def jobs(tables, splits):
    """List the fits, breadth first.

    Parameters
    ----------
    tables : sequence of str
    splits : sequence of int

    Returns
    -------
    list of dict
    """
    return [
        {"table": table, "split": split, "kind": kind, "encoding": encoding}
        for split in splits
        for table in tables
        for kind in KINDS
        for encoding in ENCODINGS
        if (kind == "default" and encoding == "native")
        or (kind != "default" and (encoding not in OTHERS or kind == "erm"))
    ]


def fit_table(root, settings):
    """Fit behind one encoding to a random part of a table, and score the other quarter."""
    X, y = load_frame(Path(root, "tables", f"{settings['table']}.csv.gz"))
    X, y = X.iloc[:MOST_ROWS], y[:MOST_ROWS]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=settings["split"])
    est = TABLES[settings["table"]](
        method=KINDS[settings["kind"]], n_members=5, random_state=settings["split"]
    )
    forecast = ENCODINGS[settings["encoding"]](est).fit(X, y).predict_proba(X_test)
    if isinstance(est, ProbMixupRegressor):
        return {name: float(score) for name, score in regression_scores(y_test, forecast).items()}
    labels = np.unique(y)
    return {
        "nll": float(log_loss(y_test, forecast, labels=labels)),
        "accuracy": float(accuracy_score(y_test, labels[forecast.argmax(axis=1)])),
    }


def report(results):
    """Render the scores of the encodings, means over splits, and the differences' errors.

    Parameters
    ----------
    results : dict
        As `read_results` gives them.

    Returns
    -------
    str
        Markdown: of each table and kind of network the NLL behind each encoding, and how much
        more it is than the native one's, with the standard error of that over splits.
    """
    lines = [
        f"| table | network | splits | {' | '.join(ENCODINGS)} |",
        "|---|---|---|" + "---|" * len(ENCODINGS),
    ]
    found = {}
    for line in results.values():
        if "scores" not in line:
            continue
        settings = line["settings"]
        own = found.setdefault((settings["table"], settings["kind"]), {})
        own.setdefault(settings["encoding"], {})[settings["split"]] = line["scores"]["nll"]
    for (table, kind), scores in found.items():
        if kind == "default":
            others = found.get((table, "erm"), {})
            scores |= {name: others[name] for name in OTHERS if name in others}
        splits = sorted(set.intersection(*(set(own) for own in scores.values())))
        native = np.array([scores["native"][split] for split in splits])
        cells = []
        for encoding in ENCODINGS:
            if encoding not in scores:
                cells.append("-")
                continue
            own = np.array([scores[encoding][split] for split in splits])
            cell = f"{own.mean():.4g}"
            if encoding != "native":
                more = own - native
                error = more.std(ddof=1) / np.sqrt(len(splits)) if len(splits) > 1 else np.nan
                cell += f" ({more.mean():+.3f} ± {error:.3f})"
            cells.append(cell)
        lines.append(f"| {table} | {kind} | {len(splits)} | {' | '.join(cells)} |")
    return "\n".join(lines)
