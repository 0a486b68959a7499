"""Recipes of README and docs, and our estimators inside MAPIE, skrub, Optuna and scikit-learn."""

import ast
import re
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import polars as pl
import pytest
import torch
from mapie.conformity_scores import StdConformityScore
from mapie.regression import CrossConformalRegressor, SplitConformalRegressor
from numpy.testing import assert_allclose, assert_array_equal
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna_integration.sklearn import OptunaSearchCV
from scipy import stats
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer, load_diabetes

# An import that is a switch: without it there is no HalvingGridSearchCV.
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # switches on
from sklearn.impute import SimpleImputer
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skrub import TableVectorizer

from sklearn_probmix import (
    Kind,
    PredictiveDistribution,
    ProbMixupClassifier,
    ProbMixupRegressor,
    cross_val_predict_proba,
    load_model,
    neg_calibration_error_scorer,
    neg_coverage_error_scorer,
    neg_crps_scorer,
    neg_interval_score_scorer,
    neg_nll_scorer,
    neg_pinball_scorer,
    save_model,
)
from sklearn_probmix.metrics import coverage, nll

# One network, quickly trained: these tests are about how the estimators fit in.
SMALL = {
    "n_members": 1,
    "calibration": "off",
    "hidden_layer_sizes": (16,),
    "max_epochs": 15,
    "lr": 0.01,
    "weight_decay": 0.01,
}
SCORERS = {
    "nll": neg_nll_scorer,
    "crps": neg_crps_scorer,
    "pinball": neg_pinball_scorer,
    "interval": neg_interval_score_scorer,
    "coverage": neg_coverage_error_scorer,
    "calibration": neg_calibration_error_scorer,
}


def small_kind(method):
    return Kind(method, lr_schedule="constant", n_draws=8)


def small(method="m-probmix", **params):
    kind = {"method": small_kind(method), "random_state": 0}
    return ProbMixupRegressor(**(SMALL | kind | params))


def small_classifier():
    return ProbMixupClassifier(**SMALL, method=small_kind("m-probmix"), random_state=0)


@pytest.fixture(scope="module")
def diabetes():
    return train_test_split(*load_diabetes(return_X_y=True), test_size=150, random_state=0)


@pytest.fixture(scope="module")
def mixed_table():
    """Diabetes as it might have left a clinic: text, booleans, dates and holes."""
    table = load_diabetes(as_frame=True, scaled=False).frame.head(240)
    rng = np.random.default_rng(0)
    days = pd.to_timedelta(rng.integers(0, 700, len(table)), unit="D")
    ranges = [0, 23, 27, 31, 99]
    names = ["slim", "medium", "stout", "heavy"]
    table = pd.DataFrame(
        {
            "age": table["age"],
            "pressure": table["bp"].mask(rng.random(len(table)) < 0.2),
            "build": pd.cut(table["bmi"], ranges, labels=names).astype(object),
            "male": table["sex"] == 2,
            "seen": pd.Timestamp("2003-01-01") + days,
            "lipid": table["s5"],
            "progression": table["target"],
        }
    )
    table.loc[rng.random(len(table)) < 0.1, "build"] = None
    return table


@pytest.fixture(params=["pandas", "polars"])
def mixed_frame(request, mixed_table):
    X, y = mixed_table.drop(columns="progression"), mixed_table["progression"]
    if request.param == "pandas":
        return X, y
    # Not by pl.from_pandas, which needs pyarrow for text.
    rows = X.astype(object).where(X.notna(), None).to_dict("list")
    return pl.DataFrame(rows), pl.Series("progression", y.to_numpy())


class TestConformalIntervals:
    def test_split_conformal_intervals_scale_our_standard_deviation(self, diabetes):
        X, X_test, y, y_test = diabetes
        X_train, X_conformal, y_train, y_conformal = train_test_split(X, y, random_state=0)
        est = small(method="probmix").fit(X_train, y_train)
        conformal = SplitConformalRegressor(
            est, confidence_level=0.9, conformity_score=StdConformityScore(), prefit=True
        ).conformalize(X_conformal, y_conformal)
        points, intervals = conformal.predict_interval(X_test)

        mean, sd = est.predict(X_conformal, return_std=True)
        scores = np.sort(abs(y_conformal - mean) / sd)
        upper = int(np.ceil(0.9 * (len(scores) + 1))) - 1
        mean, sd = est.predict(X_test, return_std=True)
        assert_allclose(points, mean)
        assert_allclose(intervals[:, 1, 0], mean + scores[upper] * sd)
        # MAPIE takes the next smaller score below the mean.
        assert_allclose(intervals[:, 0, 0], mean - scores[upper - 1] * sd)
        assert 0.8 < ((intervals[:, 0, 0] <= y_test) & (y_test <= intervals[:, 1, 0])).mean() < 0.98

    def test_intervals_of_a_dishonest_model_are_mended(self, diabetes):
        X, X_test, y, y_test = diabetes
        X_train, X_conformal, y_train, y_conformal = train_test_split(X, y, random_state=0)
        # Without validation a network of this size learns the training rows by heart.
        est = small(method="erm", hidden_layer_sizes=(64, 64), max_epochs=80, validation=None)
        est.fit(X_train, y_train)
        conformal = SplitConformalRegressor(
            est, confidence_level=0.9, conformity_score="std_normalized", prefit=True
        ).conformalize(X_conformal, y_conformal)
        _, intervals = conformal.predict_interval(X_test)
        inside = (intervals[:, 0, 0] <= y_test) & (y_test <= intervals[:, 1, 0])
        assert coverage(y_test, est.predict_proba(X_test), level=0.9) < 0.75
        assert inside.mean() > 0.8

    def test_cross_conformal_clones_a_pipeline(self, diabetes):
        X, X_test, y, y_test = diabetes
        model = make_pipeline(StandardScaler(), small(method="m-probmix"))
        conformal = CrossConformalRegressor(
            model, confidence_level=[0.5, 0.9], conformity_score=StdConformityScore(), cv=3
        ).fit_conformalize(X, y)
        _, intervals = conformal.predict_interval(X_test)
        inside = (intervals[:, 0] <= y_test[:, None]) & (y_test[:, None] <= intervals[:, 1])
        assert intervals.shape == (150, 2, 2)
        assert_allclose(inside.mean(axis=0), [0.5, 0.9], atol=0.14)


class TestMixedColumns:
    def test_table_vectorizer(self, mixed_frame):
        X, y = mixed_frame
        model = make_pipeline(TableVectorizer(), SimpleImputer(), small(method="probmix"))
        dist = model.fit(X, y).predict_proba(X)
        y = np.asarray(y)
        assert isinstance(dist, PredictiveDistribution)
        assert nll(y, dist) < nll(y, stats.norm(y.mean(), y.std())) - 0.1

    def test_pandas_and_polars_give_the_same_bits(self, mixed_table):
        X, y = mixed_table[["age", "lipid"]], mixed_table["progression"]
        from_pandas = small(method="probmix").fit(X, y).predict(X)
        X, y = pl.DataFrame({name: X[name].to_numpy() for name in X}), pl.Series(y.to_numpy())
        assert_array_equal(small(method="probmix").fit(X, y).predict(X), from_pandas)

    def test_column_transformer(self, mixed_frame):
        X, y = mixed_frame
        is_pandas = isinstance(X, pd.DataFrame)
        to_days = FunctionTransformer(
            (lambda frame: (frame - pd.Timestamp(0)) / pd.Timedelta(days=1))
            if is_pandas
            else (lambda frame: frame.select(pl.all().dt.epoch("d").cast(pl.Float64))),
            feature_names_out="one-to-one",
        )
        holes = SimpleImputer(strategy="constant", fill_value="unknown")
        if not is_pandas:
            holes = FunctionTransformer(lambda frame: frame.fill_null("unknown"))
        columns = ColumnTransformer(
            [
                ("numbers", SimpleImputer(add_indicator=True), ["age", "pressure", "lipid"]),
                ("text", make_pipeline(holes, OneHotEncoder(sparse_output=False)), ["build"]),
                ("flags", "passthrough", ["male"]),
                ("dates", to_days, ["seen"]),
            ]
        )
        model = make_pipeline(columns, small(method="m-probmix")).fit(X, y)
        # Three numbers, one indicator of holes, four builds and the unknown one, flag, date.
        assert model[-1].n_features_in_ == 3 + 1 + 5 + 1 + 1
        assert 0.75 < coverage(np.asarray(y), model.predict_proba(X), level=0.9) < 1

    def test_selection_by_type_and_rows_unseen_in_training(self, mixed_table):
        X, y = mixed_table.drop(columns=["progression", "seen"]), mixed_table["progression"]
        columns = ColumnTransformer(
            [
                ("numbers", SimpleImputer(), make_column_selector(dtype_include="number")),
                (
                    "text",
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                    make_column_selector(dtype_exclude=["number", "bool"]),
                ),
            ],
        )
        model = make_pipeline(columns, small(method="probmix")).fit(X, y)
        strange = X.head(3).assign(build="never seen", pressure=np.nan)
        assert np.isfinite(model.predict(strange)).all()

    def test_classes_out_of_a_mixed_table(self, mixed_table):
        X = mixed_table.drop(columns=["progression", "male"])
        y = np.where(mixed_table["male"], "man", "woman")
        model = make_pipeline(TableVectorizer(), SimpleImputer(), small_classifier()).fit(X, y)
        assert_allclose(model.predict_proba(X).sum(axis=1), 1)
        assert set(model.predict(X)) <= {"man", "woman"}

    def test_without_an_encoder_all_but_dates_is_taken(self, mixed_table):
        X, y = mixed_table.drop(columns=["progression", "seen"]), mixed_table["progression"]
        dist = small(method="probmix").fit(X, y).predict_proba(X)
        assert nll(y, dist) < nll(y, stats.norm(y.mean(), y.std())) - 0.1
        with pytest.raises(ValueError, match="column 'seen' of X, .* DatetimeEncoder of skrub"):
            small().fit(mixed_table.drop(columns="progression"), y)


class TestSearches:
    @pytest.mark.filterwarnings("ignore:OptunaSearchCV is experimental")
    @pytest.mark.filterwarnings("ignore:.optuna.terminator. module:FutureWarning")
    def test_optuna_search(self, diabetes):
        X, X_test, y, y_test = diabetes
        search = OptunaSearchCV(
            make_pipeline(StandardScaler(), small(max_epochs=6)),
            {
                "probmixupregressor__method__method": CategoricalDistribution(["erm", "probmix"]),
                "probmixupregressor__lr": FloatDistribution(1e-4, 0.03, log=True),
            },
            scoring=neg_nll_scorer,
            cv=KFold(2, shuffle=True, random_state=0),
            n_trials=5,
            random_state=0,
            error_score="raise",
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search.fit(X, y)
        scores = [trial.value for trial in search.study_.trials]
        assert search.best_score_ == max(scores) > min(scores)
        # Loss in nats of diabetes: 5.7 for the Normal of all rows, and less is better.
        assert -5.75 < search.best_score_ < -5
        assert nll(y_test, search.best_estimator_.predict_proba(X_test)) < 5.75

    def test_halving_search(self, diabetes):
        X, X_test, y, _ = diabetes
        search = HalvingGridSearchCV(
            small(),
            {"lr": [1e-6, 0.01, 0.02], "method__method": ["probmix"]},
            resource="max_epochs",
            min_resources=5,
            max_resources=15,
            factor=3,
            cv=2,
            scoring=neg_nll_scorer,
            random_state=0,
        ).fit(X, y)
        assert search.best_params_["lr"] >= 0.01
        assert search.best_params_["max_epochs"] == 15
        assert search.predict_proba(X_test).shape == (150,)

    def test_grid_search_of_several_scores(self, diabetes):
        X, X_test, y, y_test = diabetes
        search = GridSearchCV(
            small(max_epochs=6), {"lr": [1e-6, 0.03]}, scoring=SCORERS, refit="crps", cv=2
        ).fit(X, y)
        assert search.best_params_ == {"lr": 0.03}
        for name in SCORERS:
            assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
        assert search.score(X_test, y_test) == SCORERS["crps"](
            search.best_estimator_, X_test, y_test
        )

    def test_cross_validate_agrees_with_out_of_fold_distributions(self, diabetes):
        X, _, y, _ = diabetes
        folds = KFold(2, shuffle=True, random_state=0)
        scoring = SCORERS | {"r2": "r2"}
        scores = cross_validate(small(), X, y, scoring=scoring, cv=folds, error_score="raise")
        dist = cross_val_predict_proba(small(), X, y, cv=folds)
        assert_allclose(-scores["test_nll"].mean(), nll(y, dist))
        assert (scores["test_r2"] < 1).all()

    def test_classifier_with_scores_of_scikit_learn(self):
        X, y = load_breast_cancer(return_X_y=True)
        search = GridSearchCV(
            make_pipeline(StandardScaler(), small_classifier()),
            {"probmixupclassifier__method__method": ["erm", "probmix"]},
            scoring=["neg_log_loss", "neg_brier_score", "accuracy"],
            refit="neg_log_loss",
            cv=2,
        ).fit(X[:300], y[:300])
        assert search.cv_results_["mean_test_accuracy"].min() > 0.85
        assert search.best_score_ > -0.35


def blocks(page):
    """Return the blocks of Python in a page."""
    text = Path(__file__).parents[1].joinpath(page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class TestPages:
    @pytest.fixture
    def write(self, tmp_path, monkeypatch):
        """Write known and new rows, whose prices it returns, to the files of the recipes."""
        monkeypatch.chdir(tmp_path)

        def write(table):
            table.head(80).to_csv("known.csv", index=False)
            new = table.iloc[80:120]
            # With the price, which the recipes leave out.
            new.to_csv("new.csv", index=False)
            return new["price"]

        return write

    def test_own_csv_in_five_statements(self, write):
        (plain,) = [code for code in blocks("README.md") if "read_csv" in code]
        prices = write(load_diabetes(as_frame=True).frame.rename(columns={"target": "price"}))
        names = {}
        exec(plain, names)
        inside = (names["low"] <= prices) & (prices <= names["high"])
        assert len(ast.parse(plain).body) <= 5
        assert 0.6 < inside.mean() <= 1

    def test_own_csv_with_missing_values_and_text_in_six_statements(self, write, mixed_table):
        (mixed,) = [code for code in blocks("docs/inputs.md") if "read_csv" in code]
        prices = write(mixed_table.rename(columns={"progression": "price"}))
        names = {}
        exec(mixed, names)
        assert names["known"].isna().any().any()
        assert len(ast.parse(mixed).body) <= 6
        low, high = names["dist"].interval(0.9)
        assert 0.6 < ((low <= prices) & (prices <= high)).mean() <= 1

    @pytest.mark.slow
    def test_a_fit_with_a_checkpoint(self, write, tmp_path):
        (code,) = [code for code in blocks("docs/long_fits.md") if "read_csv" in code]
        prices = write(load_diabetes(as_frame=True).frame.rename(columns={"target": "price"}))
        names = {}
        exec(code, names)
        new = pd.read_csv("new.csv").drop(columns="price")
        dist = load_model("price.safetensors").predict_proba(new)
        assert 0.6 < coverage(prices, dist) <= 1
        assert not list(tmp_path.glob("price-checkpoint/*"))

    def test_many_rows_in_the_memory_of_some(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (code,) = [code for code in blocks("docs/large.md") if "iter_predict_proba" in code]
        X, y = load_diabetes(return_X_y=True)
        est = ProbMixupRegressor(method="erm", max_epochs=2, random_state=0).fit(X, y)
        save_model(est, "model.safetensors")
        many = np.tile(X, (20, 1))
        np.save("X.npy", many)
        names = {}
        exec(code, names)
        assert_array_equal(names["low"], est.predict_proba(many).ppf(0.05))

    @pytest.mark.parametrize("library", ["catboost", "ngboost", "skorch"])
    def test_the_same_task_in_other_libraries(self, library, tmp_path, monkeypatch):
        pytest.importorskip(library)
        monkeypatch.chdir(tmp_path)  # where CatBoost keeps a log
        (code,) = [
            code for code in blocks("docs/site/coming_from.md") if f"from {library} import" in code
        ]
        X_train, X_test, y_train, y_test = train_test_split(
            *load_diabetes(return_X_y=True), random_state=0
        )
        names = {"X_train": X_train, "X_test": X_test, "y_train": y_train}
        names |= {
            "train_test_split": train_test_split,
            "MyModule": partial(torch.nn.Linear, X_train.shape[1], 1),
        }
        exec(code, names)
        if library == "skorch":
            assert names["mean"].shape == (len(X_test), 1)
        else:
            inside = (names["low"] <= y_test) & (y_test <= names["high"])
            assert 0.8 < inside.mean() < 1

    def test_shares_of_the_columns_in_the_spread_of_a_row(self):
        pytest.importorskip("shap")
        first, code = blocks("docs/importance.md")
        lines = re.findall(r"^(?:>>>|\.\.\.) (.*)", first, re.MULTILINE)
        names = {}
        exec("\n".join(lines), names)
        exec(code, names)
        assert names["values"].shape == (10, 3)
        # The second column makes the spread.
        mean_column, spread_column, noise_column = abs(names["values"]).mean(axis=0)
        assert spread_column > 3 * max(mean_column, noise_column)

    def test_every_notebook_is_in_the_gallery(self):
        root = Path(__file__).parents[1]
        page = root.joinpath("docs", "site", "notebooks.md").read_text(encoding="utf-8")
        shown = re.findall(
            r"notebooks/(\w+)_\d\.png\)\n  \[\]\(../../notebooks/(\w+).ipynb\)", page
        )
        names = [path.stem for path in sorted(root.glob("notebooks/*.ipynb"))]
        assert shown == [(name, name) for name in names]

    def test_own_network_in_25_lines(self):
        (code,) = [code for code in blocks("docs/methods.md") if "class ResNet" in code]
        assert len([line for line in code.splitlines() if line]) <= 25
