"""Columns as users have them: categories, text, missing values and outliers, in any frame."""

import pickle
import re
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from one_network import TINY
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch import NeuralNet

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    ProbMixupClassifier,
    ProbMixupRegressor,
    fit_together,
    load_model,
    save_model,
)
from sklearn_probmix.columns import ColumnEncoder, as_numbers
from sklearn_probmix.metrics import crps
from sklearn_probmix.scaling import fit_scaler, merge_scalers, scale_columns

N = 80
rng = np.random.default_rng(0)
VALUES = {
    "number": rng.normal(size=N).round(3).tolist(),
    "integer": rng.integers(0, 9, N).tolist(),
    "boolean": (rng.random(N) > 0.5).tolist(),
    "category": rng.choice(["a", "b", "c"], N).tolist(),
    "text": rng.choice(["of two words", "word"], N).tolist(),
}
WITH_MISSING = {
    name: [None if rng.random() < 0.15 else value for value in values]
    for name, values in VALUES.items()
}
Y = np.array(VALUES["number"]) + 2 * (np.array(VALUES["category"]) == "a")
LABELS = np.where(Y > 1, "high", "low")


def regressor(**params):
    return ProbMixupRegressor(**TINY | params)


def classifier(**params):
    return ProbMixupClassifier(**TINY | params)


def of_pandas(values):
    return pd.DataFrame(values).astype({"category": "category"})


def of_pandas_nullable(values):
    types = ("Float64", "Int64", "boolean", "category", "string")
    return pd.DataFrame(values).astype(dict(zip(values, types, strict=True)))


def of_pandas_objects(values):
    return pd.DataFrame(values).astype(object)


def of_polars(values):
    return pl.DataFrame(values).with_columns(pl.col("category").cast(pl.Categorical))


def of_polars_enum(values):
    # Levels in another order, and one that no row has.
    return pl.DataFrame(values).with_columns(pl.col("category").cast(pl.Enum(["c", "b", "x", "a"])))


def of_arrow(values):
    arrow = pytest.importorskip("pyarrow", reason="needs Arrow")
    table = arrow.table(values)
    return table.set_column(3, "category", table["category"].dictionary_encode())


def of_arrow_batch(values):
    (batch,) = of_arrow(values).to_batches()
    return batch


def of_pandas_with_arrow(values):
    arrow = pytest.importorskip("pyarrow", reason="needs Arrow")
    return arrow.table(values).to_pandas(types_mapper=pd.ArrowDtype)


def in_libraries(*makers):
    return pytest.mark.parametrize("make", makers, ids=lambda make: make.__name__)


OTHERS = (
    of_pandas_nullable,
    of_pandas_objects,
    of_polars,
    of_polars_enum,
    of_arrow,
    of_arrow_batch,
    of_pandas_with_arrow,
)
TABLE = of_pandas(WITH_MISSING)
MANY = TABLE.assign(many=pd.Categorical([f"level {row % 75}" for row in range(N)]))


class TestFrames:
    @in_libraries(*OTHERS)
    @pytest.mark.parametrize("values", [VALUES, WITH_MISSING], ids=["whole", "with missing"])
    def test_every_library_gives_the_same_bits(self, make, values):
        ours, theirs = of_pandas(values), make(values)
        est = regressor().fit(ours, Y)
        expected = est.predict(ours)
        assert_array_equal(regressor().fit(theirs, Y).predict(theirs), expected)
        # One library in the fit, another one later.
        assert_array_equal(est.predict(theirs), expected)

    @in_libraries(of_pandas, *OTHERS)
    @pytest.mark.parametrize("column", list(VALUES))
    def test_each_column_alone(self, make, column):
        frame = make(WITH_MISSING)
        frame = frame.select([column]) if hasattr(frame, "select") else frame[[column]]
        expected = classifier().fit(TABLE[[column]], LABELS).predict_proba(TABLE[[column]])
        assert_array_equal(classifier().fit(frame, LABELS).predict_proba(frame), expected)
        assert np.ptp(expected) > 0

    def test_columns_of_a_batch_have_names(self):
        batch = of_arrow_batch(VALUES)
        est = regressor().fit(batch, Y)
        assert est.feature_names_in_.tolist() == list(VALUES)
        with pytest.raises(ValueError, match="must be in the same order"):
            est.predict(batch.select(list(VALUES)[::-1]))
        chunks = est.iter_predict_proba(batch, chunk_size=30)
        assert_array_equal(np.concatenate([dist.mean() for dist in chunks]), est.predict(batch))

    def test_columns_are_learnt_from(self):
        # The category is worth 2 and the number has a standard deviation of 1.
        est = regressor(max_epochs=150).fit(of_pandas(VALUES), Y)
        rows = of_pandas(VALUES).iloc[[0, 0, 0]].assign(category=["a", "b", "c"])
        a, b, c = est.predict(rows)
        assert_allclose([a - b, a - c], 2, atol=0.5)

    def test_a_row_has_the_same_bits_in_any_batch(self):
        est = regressor().fit(TABLE, Y)
        alone = np.concatenate([est.predict(TABLE[row : row + 1]) for row in range(10)])
        assert_array_equal(alone, est.predict(TABLE)[:10])

    def test_attributes_are_of_the_columns_of_the_user(self):
        est = regressor().fit(TABLE, Y)
        assert est.n_features_in_ == 5
        assert est.feature_names_in_.tolist() == list(VALUES)
        # Three numbers, three levels, two levels, and an indicator for each.
        assert est.scaler_.n_features_in_ == 3 + 3 + 2 + 5
        assert est.net_.module__n_features == 13

    def test_plain_numbers_in_a_frame_are_the_array(self):
        X = rng.normal(size=(N, 3))
        expected = regressor().fit(X, Y)
        for frame in (pd.DataFrame(X), pl.DataFrame(X)):
            est = regressor().fit(frame, Y)
            assert est.encoder_ is None
            assert_array_equal(est.predict(frame), expected.predict(X))

    def test_tags(self):
        for est in (regressor(), classifier()):
            tags = est.__sklearn_tags__().input_tags
            assert tags.allow_nan
            assert tags.categorical


class TestCategoricalFeatures:
    """The ways to name columns, on codes that are numbers."""

    X = np.column_stack([np.array(VALUES["number"]), rng.integers(0, 4, N).astype(float)])

    @pytest.mark.parametrize("given", [[1], [-1], [False, True], np.array([1])])
    def test_a_mask_or_positions(self, given):
        est = regressor(categorical_features=given).fit(self.X, Y)
        assert est.encoder_.levels == [None, ["0", "1", "2", "3"]]
        frame = pd.DataFrame(self.X, columns=["x", "code"]).astype({"code": "category"})
        expected = regressor().fit(frame, Y).predict(frame)
        assert_array_equal(est.predict(self.X), expected)

    def test_names(self):
        frame = pd.DataFrame(self.X, columns=["x", "code"])
        est = regressor(categorical_features=["code"]).fit(frame, Y)
        assert_array_equal(
            est.predict(frame), regressor(categorical_features=[1]).fit(self.X, Y).predict(self.X)
        )

    def test_text_in_an_array(self):
        X = np.array([VALUES["number"], VALUES["text"]], dtype=object).T
        frame = pd.DataFrame({"x": VALUES["number"], "text": VALUES["text"]})
        found = regressor(categorical_features=[1]).fit(X, Y).predict(X)
        assert_array_equal(found, regressor().fit(frame, Y).predict(frame))

    def test_none_reads_all_as_numbers(self):
        frame = pd.DataFrame(self.X).astype({1: "category"})
        found = regressor(categorical_features=None).fit(frame, Y).predict(frame)
        assert_array_equal(found, regressor().fit(self.X, Y).predict(self.X))
        with pytest.raises(ValueError, match="column 'text' of X, .* expected numbers"):
            regressor(categorical_features=None).fit(TABLE[["text"]], Y)
        with pytest.raises(
            ValueError, match=r"'text'.*not among categorical_features.*name it too"
        ):
            regressor(categorical_features=["category"]).fit(TABLE[["category", "text"]], Y)
        with pytest.raises(ValueError, match=r"holds \[None\]; expected names or positions"):
            regressor(categorical_features=[None]).fit(TABLE[["category"]], Y)

    def test_huge_codes_keep_their_digits(self):
        codes = np.array([2**60, 2**60 + 1, 2**60 + 2])[rng.integers(0, 3, N)]
        frame = pd.DataFrame({"c": codes})
        est = regressor(categorical_features=["c"]).fit(frame, Y)
        assert est.encoder_.levels == [[str(2**60 + code) for code in range(3)]]
        assert len(np.unique(est.predict(frame))) == 3

    def test_predictions_do_not_read_the_parameter(self):
        est = regressor(categorical_features=[1]).fit(self.X, Y)
        expected = est.predict(self.X)
        for other in ("from_dtype", None, [0]):
            assert_array_equal(est.set_params(categorical_features=other).predict(self.X), expected)

    def test_names_need_a_frame(self):
        with pytest.raises(ValueError, match=r"\['x'\] with X that has no names"):
            regressor(categorical_features=["x"]).fit(self.X, Y)

    def test_after_a_frame_an_array_is_read_by_the_columns_of_the_fit(self):
        frame = of_pandas(VALUES)
        est = regressor().fit(frame, Y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_array_equal(est.predict(frame.to_numpy()), est.predict(frame))


class TestText:
    """How many values make text free."""

    @pytest.mark.parametrize(("n_rows", "most"), [(30, 20), (40, 20), (80, 40)])
    def test_20_or_half_of_the_rows(self, n_rows, most):
        def fit(n_levels, dtype=str):
            text = [f"value {row % n_levels}" for row in range(n_rows)]
            frame = pd.DataFrame({"number": Y[:n_rows], "text": text}).astype({"text": dtype})
            return regressor().fit(frame, Y[:n_rows]).encoder_.levels[1]

        assert len(fit(most)) == most
        with pytest.raises(ValueError, match=f"text of {most + 1} different values in {n_rows}"):
            fit(most + 1)
        # Who says that it is a category is believed.
        assert len(fit(most + 1, "category")) == most + 1


class TestEncoding:
    """Against scikit-learn's encoders."""

    def test_levels_are_one_hot(self):
        X = np.array(rng.choice(list("abcd"), (50, 1)))
        encoder = ColumnEncoder([["a", "b", "c", "d"]])
        codes = encoder.code(0, X[:, 0])[:, None]
        expected = OneHotEncoder(sparse_output=False).fit_transform(X)
        assert_array_equal(encoder.fit(codes).encode(codes), expected)

    def test_a_level_that_is_new_is_zero_and_missing_ones_have_a_column(self):
        encoder = ColumnEncoder([["a", "b"]])
        encoder.fit(encoder.code(0, ["a", None, "b"])[:, None])
        codes = encoder.code(0, ["b", "new", None])[:, None]
        assert_array_equal(encoder.encode(codes), [[0, 1, 0], [0, 0, 0], [0, 0, 1]])

    def test_what_was_not_missing_in_the_fit_has_no_indicator(self):
        encoder = ColumnEncoder([["a", "b"], None]).fit(np.array([[0.0, 5.0], [1.0, 6.0]]))
        assert_array_equal(encoder.encode(np.array([[np.nan, 5.0]])), [[0, 0, 5]])

    def test_many_levels_share_columns(self):
        n_levels = 1000
        encoder = ColumnEncoder([[f"{code:04}" for code in range(n_levels)]])
        codes = np.arange(n_levels, dtype=float)
        frequent = np.repeat(codes[500:564], 3)
        encoder.fit(np.concatenate([codes, frequent])[:, None])
        made = encoder.encode(np.append(codes, [-1.0, np.nan])[:, None])
        assert made.shape == (n_levels + 2, 64 + 16)
        assert_array_equal(made[500:564, :64], np.eye(64))
        assert not made[500:564, 64:].any()
        assert not made[-2:].any()
        others = np.delete(made[:n_levels], np.s_[500:564], axis=0)
        assert not others[:, :64].any()
        assert_allclose((others**2).sum(axis=1), 1)
        # Signs of unlike levels are independent: 936 of them have nearly all of 2^16 codes.
        assert len(np.unique(others, axis=0)) > 900
        assert np.abs(others.mean(axis=0)).max() < 0.25 * 5 / np.sqrt(len(others))

    def test_missing_numbers_become_the_mean(self):
        X = rng.normal(3, 2, size=(60, 2))
        X[::7, 1] = np.nan
        scaler = fit_scaler(X, None)
        assert_allclose(scaler.mean_, np.nanmean(X, axis=0))
        assert_allclose(scaler.scale_, np.nanstd(X, axis=0))
        assert (scale_columns(scaler, X)[::7, 1] == 0).all()

    def test_weights_leave_missing_numbers_out(self):
        X = np.array([[1.0], [np.nan], [4.0]])
        scaler = fit_scaler(X, np.array([1.0, 5.0, 2.0]))
        assert_allclose(scaler.mean_, 3)
        assert_allclose(scaler.scale_, np.sqrt(2))

    def test_levels_of_rows_without_weight_have_no_column(self):
        frame, weight = of_pandas(VALUES), np.ones(N)
        frame["category"] = frame["category"].cat.add_categories("only there")
        frame.loc[3, "category"], weight[3] = "only there", 0
        est = regressor().fit(frame, Y, weight)
        assert est.scaler_.n_features_in_ == 3 + 3 + 2
        kept = np.arange(N) != 3
        assert_array_equal(regressor().fit(frame[kept], Y[kept]).predict(frame), est.predict(frame))

    def test_a_level_alone_says_nothing_of_others(self):
        encoder = ColumnEncoder([["May"], ["a", "b"], ["b"]])
        encoder.fit(np.array([[0.0, 0.0, 0.0], [0.0, 1.0, np.nan]]))
        made = encoder.encode(np.array([[0.0, 0.0, 0.0], [-1.0, -1.0, -1.0], [np.nan] * 3]))
        assert_array_equal(made, [[1, 1, 0, 1, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1]])

    @pytest.mark.parametrize("later", ["June", None])
    def test_a_constant_category_says_nothing_later(self, later, tmp_path):
        frame = of_pandas(VALUES)
        est = regressor().fit(frame.assign(month="May"), Y)
        expected = est.predict(frame.assign(month="May"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert_array_equal(est.predict(frame.assign(month=later)), expected)
            save_model(est, tmp_path / "model")
            loaded = load_model(tmp_path / "model")
            assert_array_equal(loaded.predict(frame.assign(month=later)), expected)

    def test_decimals_keep_their_digits(self):
        codes = np.array([Decimal(2**53), Decimal(2**53 + 1)] * 40)
        est = regressor(categorical_features=["c"]).fit(pd.DataFrame({"c": codes, "d": Y}), Y)
        assert est.encoder_.levels[0] == ["9007199254740992", "9007199254740993"]

    def test_numbers_and_their_text_are_one_level(self):
        frame = pd.DataFrame({"c": pd.Series([1, "1", 1.0, "b"] * 20, dtype=object)})
        assert regressor().fit(frame, Y).encoder_.levels == [["1", "b"]]

    def test_a_category_of_integers_may_be_integers_later(self):
        codes = rng.integers(0, 3, N)
        est = regressor().fit(pd.DataFrame({"c": pd.Categorical(codes)}), Y)
        found = est.predict(pd.DataFrame({"c": codes}))
        assert_array_equal(found, est.predict(pd.DataFrame({"c": pd.Categorical(codes)})))

    def test_a_column_without_values_is_left_out_for_good(self):
        frame = of_pandas(VALUES)
        est = regressor().fit(frame.assign(empty=None), Y)
        assert_array_equal(
            est.predict(frame.assign(empty="x")), regressor().fit(frame, Y).predict(frame)
        )


class TestOutliers:
    def test_clean_columns_have_the_bits_of_a_standard_scaler(self):
        X = np.column_stack(
            [rng.normal(size=1000), rng.lognormal(size=1000), rng.integers(0, 2, 1000)]
        )
        expected = StandardScaler().fit_transform(X).astype(np.float32)
        assert_array_equal(scale_columns(fit_scaler(X, None), X), expected)

    @pytest.mark.parametrize("value", [0.0, 3.0, 1e140])
    def test_a_constant_column_says_nothing_later(self, value, tmp_path):
        X = np.column_stack([rng.normal(size=len(Y)), np.full(len(Y), value)])
        est = regressor().fit(X, Y)
        later = X.copy()
        later[:, 1] = np.resize([4.0, -1e6, -1e140], len(Y))
        assert_array_equal(est.predict(later), est.predict(X))
        save_model(est, tmp_path / "model")
        assert_array_equal(load_model(tmp_path / "model").predict(later), est.predict(X))

    def test_a_column_that_varies_later_in_a_stream_counts(self):
        X = np.column_stack([rng.normal(size=60), np.full(60, 3.0)])
        later = X.copy()
        later[:, 1] = np.resize([3.0, 4.0], 60)
        first, second = (fit_scaler(rows, None) for rows in (X, later))
        merged, _ = merge_scalers(first, second)
        assert_allclose(merged.scale_, np.std(np.concatenate([X, later]), axis=0))
        assert np.isfinite(merged.reach_).all()

    @pytest.mark.parametrize("size", [50.0, 1e6, 1e100])
    def test_an_outlier_leaves_the_others_as_they_were(self, size):
        X = rng.normal(size=(500, 2))
        expected = scale_columns(fit_scaler(X, None), X).numpy()
        wild = X.copy()
        wild[7, 0] = size
        found = scale_columns(fit_scaler(wild, None), wild).numpy()
        assert_array_equal(found[:, 1], expected[:, 1])
        others = np.arange(500) != 7
        # It counts as one 30 deviations away: sqrt(1 + 900 / 500) at most.
        ratio = np.std(found[others, 0])
        assert 0.55 < ratio < 1
        assert 4 < found[7, 0] <= 5

    def test_the_bend_is_smooth_and_keeps_the_order(self):
        X = rng.normal(size=(500, 1))
        X[0] = 1000
        scaler = fit_scaler(X, None)
        z = np.linspace(-12, 12, 4801)
        bent = scale_columns(scaler, z[:, None] * scaler.scale_ + scaler.mean_)[:, 0].numpy()
        slope = np.diff(bent.astype(float)) / np.diff(z)
        assert_allclose(bent[np.abs(z) < 4], z[np.abs(z) < 4], rtol=1e-6)
        assert (slope > 0).all()
        assert np.abs(np.diff(slope)).max() < 0.02
        assert_allclose(bent, -bent[::-1], rtol=1e-6)
        # By hand: 3 beyond 4, of at most 1 more.
        at = np.argmin(np.abs(z - 7))
        assert_allclose(bent[at], 4 + 3 / np.sqrt(10), rtol=1e-5)

    def test_values_far_from_those_of_a_clean_fit_are_bent_too(self):
        X = rng.normal(size=(500, 1))
        found = scale_columns(fit_scaler(X, None), np.array([[15.0], [1e9]]))
        assert found[0] > 14
        assert found[1] <= 25

    @pytest.mark.parametrize("column", [2, 5])
    def test_one_of_50_deviations_costs_at_most_5_percent(self, column):
        X, y = load_diabetes(return_X_y=True)
        X, X_test, y, y_test = train_test_split(X, y, random_state=0)
        est = ProbMixupRegressor(method="erm", n_members=2, max_epochs=50, random_state=0)
        expected = crps(y_test, est.fit(X, y).predict_proba(X_test))
        wild = X.copy()
        wild[7, column] += 50 * X[:, column].std()
        found = crps(y_test, est.fit(wild, y).predict_proba(X_test))
        assert found < 1.05 * expected


class TestLife:
    """What an estimator goes through after a fit."""

    @pytest.mark.parametrize("make", [regressor, classifier])
    def test_model_files(self, make, tmp_path):
        y = Y if make is regressor else LABELS
        est = make(categorical_features=["category", "text", "many"]).fit(MANY, y)
        save_model(est, tmp_path / "model.safetensors")
        loaded = load_model(tmp_path / "model.safetensors")
        assert loaded.encoder_.to_dict()["levels"] == est.encoder_.levels
        rows = MANY.assign(many="new")
        for frame in (MANY, rows):
            assert_array_equal(
                getattr(loaded, "predict_proba" if make is classifier else "predict")(frame),
                getattr(est, "predict_proba" if make is classifier else "predict")(frame),
            )

    def test_pickle(self):
        est = regressor().fit(MANY, Y)
        assert_array_equal(pickle.loads(pickle.dumps(est)).predict(MANY), est.predict(MANY))

    def test_clone(self):
        est = regressor(categorical_features=[1, 3, 4]).fit(TABLE, Y)
        copy = clone(est)
        assert copy.categorical_features == [1, 3, 4]
        assert copy.encoder_ is None
        assert_array_equal(copy.fit(TABLE, Y).predict(TABLE), est.predict(TABLE))

    def test_a_later_fit_forgets_the_columns_of_an_earlier_one(self):
        X = rng.normal(size=(N, 3))
        est = regressor().fit(TABLE, Y).fit(X, Y)
        assert_array_equal(est.predict(X), regressor().fit(X, Y).predict(X))

    def test_a_refused_fit_changes_nothing(self):
        est = regressor().fit(TABLE, Y)
        expected = est.predict(TABLE)
        with pytest.raises(ValueError, match="free|different values"):
            est.fit(TABLE.assign(text=[f"text {row}" for row in range(N)]), Y)
        assert_array_equal(est.predict(TABLE), expected)

    def test_search(self):
        grid = {"categorical_features": ["from_dtype", [3, 4]], "lr": [0.001, 0.01]}
        search = GridSearchCV(regressor(), grid, cv=3, error_score="raise").fit(TABLE, Y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert np.isfinite(search.predict(TABLE)).all()

    @pytest.mark.parametrize("make", [regressor, classifier])
    def test_partial_fit(self, make):
        y = Y if make is regressor else LABELS
        est = make().partial_fit(TABLE[:50], y[:50])
        # The levels and the missing values of the first part are those of all.
        before = est.encoder_
        rest = TABLE[50:].astype({"category": object})
        rest.iloc[0, 3] = "new"
        assert est.partial_fit(rest, y[50:]).encoder_ is before
        assert len(est.predict(TABLE)) == N
        with pytest.raises(ValueError, match="column 'number' of X holds categories or text"):
            est.partial_fit(TABLE.assign(number="a"), y)

    def test_warm_start(self):
        est = regressor(warm_start=True).fit(TABLE, Y)
        before = est.encoder_
        assert est.fit(TABLE, Y).encoder_ is before

    def test_validation_data(self):
        est = regressor().fit(TABLE, Y, X_val=TABLE[:20].assign(text="new"), y_val=Y[:20])
        assert np.isfinite(est.predict(TABLE)).all()
        with pytest.raises(ValueError, match="column 'text' of X_val, .* holds numbers"):
            regressor().fit(TABLE, Y, X_val=TABLE[:20].assign(text=1.5), y_val=Y[:20])

    def test_fit_together(self):
        # One fold lacks a level, so that its networks have a column less.
        table = TABLE.assign(text=["rare", *TABLE["text"][1:]])
        folds = [train for train, _ in KFold(4).split(table)]
        estimators = [regressor(random_state=fold) for fold in range(4)]
        fit_together(estimators, [(table.iloc[rows], Y[rows]) for rows in folds])
        n_encoded = [est.scaler_.n_features_in_ for est in estimators]
        assert n_encoded[0] == n_encoded[1] - 1 == n_encoded[2] - 1
        alone = regressor(random_state=0).fit(table.iloc[folds[0]], Y[folds[0]])
        assert_array_equal(estimators[0].predict(table), alone.predict(table))
        assert np.isfinite([est.predict(table) for est in estimators]).all()
        with pytest.raises(ValueError, match="table 1 has"):
            fit_together([regressor(), regressor()], [(table, Y), (table.drop(columns="text"), Y)])

    @pytest.mark.parametrize(
        "kind",
        [
            Kind("mixup"),
            Kind("m-probmix", n_draws=4),
            Kind("probmix", n_neighbors=3, n_knots=5),
            Kind(network="kernel"),
        ],
        ids=["mixup", "m-probmix", "knots", "kernel"],
    )
    def test_every_kind_of_network_sees_the_encoded_columns(self, kind):
        est = ProbMixupRegressor(method=kind, n_members=2, max_epochs=2, random_state=0)
        assert np.isfinite(est.fit(TABLE, Y).predict(TABLE)).all()


class Linear(torch.nn.Module):
    """A network of one's own, which is told how many columns it sees."""

    def __init__(self, n_features):
        super().__init__()
        self.n_features = n_features
        self.layer = torch.nn.LazyLinear(2)

    def forward(self, X):
        raw = self.layer(X.flatten(1))
        return torch.stack([raw[:, 0], -0.5 * torch.exp(raw[:, 1])], dim=-1).unsqueeze(1)


@pytest.mark.filterwarnings("ignore:Lazy modules")
class TestNet:
    @staticmethod
    def own(**params):
        net = NeuralNet(Linear, NegativeLogLikelihood, max_epochs=2, lr=0.01, verbose=0)
        return ProbMixupRegressor(method="erm", n_members=1, net=net, random_state=0, **params)

    def test_it_sees_the_encoded_columns(self):
        est = self.own().fit(TABLE, Y)
        assert est.net_.module_.n_features == est.net_.module_.layer.in_features == 13
        assert np.isfinite(est.predict(TABLE)).all()

    def test_more_axes_are_plain_numbers(self):
        X = rng.normal(size=(N, 4, 3))
        X[0, 0, 0] = 1000
        est = self.own().fit(X, Y)
        expected = StandardScaler().fit(X.reshape(-1, 3))
        assert_array_equal(est.scaler_.mean_, expected.mean_)
        assert_array_equal(est.scaler_.scale_, expected.scale_)
        assert est.encoder_ is None
        X[0, 0, 0] = np.nan
        with pytest.raises(ValueError, match="contains NaN"):
            self.own().fit(X, Y)
        with pytest.raises(ValueError, match=r"categorical_features=\[1\] with X of shape"):
            self.own(categorical_features=[1]).fit(X, Y)


class TestFiles:
    """What a file says of columns is checked before it is believed."""

    GOOD = ColumnEncoder([None, ["a", "b"]], [0, 0, 1, 1], [-1, -2, 0, 1]).to_dict()

    def test_the_honest_one_is_read(self):
        again = ColumnEncoder.from_dict(self.GOOD)
        assert again.to_dict()["levels"] == [None, ["a", "b"]]
        assert_array_equal(again.shows, [-1, -2, 0, 1])

    @pytest.mark.parametrize(
        "change",
        [
            {"levels": None},
            {"levels": [None]},
            {"levels": [None, ["b", "a"]]},
            {"levels": [None, ["a", "a"]]},
            {"levels": [None, ["a", 1]]},
            {"levels": [None, [["a"], "b"]]},
            {"source": np.array([0, 0, 1, 2])},
            {"source": np.array([0, 0, 1, -1])},
            {"source": np.array([0.0, 0.0, 1.0, 1.0])},
            {"source": np.array([0])},
            {"source": [0, 0, 1, 1]},
            {"shows": np.array([-1, -2, 0, 2])},
            {"shows": np.array([0, -2, 0, 1])},
            {"shows": np.array([-1, -2, 0, -1])},
            {"shows": np.array([-1, -2, 0, -100])},
            {"shows": np.zeros((0,), dtype=np.int64), "source": np.zeros((0,), dtype=np.int64)},
            {"more": 1},
        ],
    )
    def test_others_are_refused(self, change):
        with pytest.raises(ValueError, match="columns: found others"):
            ColumnEncoder.from_dict(self.GOOD | change)


def test_all_columns_that_are_refused_are_named_at_once():
    days = {f"day {n}": pd.date_range("2020", periods=N) for n in range(6)}
    table = pd.DataFrame(VALUES).assign(note=[f"remark {row}" for row in range(N)], **days)
    with pytest.raises(ValueError, match="column 'note' of X") as caught:
        ProbMixupRegressor(**TINY).fit(table, np.arange(N))
    note, *others, rest = str(caught.value).splitlines()
    assert note.endswith("StringEncoder of skrub do.")
    assert [line[:14] for line in others] == [f"column 'day {n}'" for n in range(4)]
    assert rest == "... and 2 other columns."


def test_a_mark_for_missing_values_costs_nothing_once_it_is_named(tmp_path):
    path = tmp_path / "cars.csv"
    lines = [f"{'?' if row % 9 == 0 else row},{row % 5},{row}" for row in range(N)]
    path.write_text("\n".join(["power,doors,price", *lines]), encoding="utf-8")
    table = pd.read_csv(path)
    with pytest.raises(ValueError, match=r"read_csv\(\.\.\., na_values=\['\?'\]\)") as caught:
        ProbMixupRegressor(**TINY).fit(table[["power", "doors"]], table["price"])
    assert "doors" not in str(caught.value)
    table = pd.read_csv(path, na_values=["?"])
    est = ProbMixupRegressor(**TINY).fit(table[["power", "doors"]], table["price"])
    assert est.encoder_.levels == [None, None]


ROWS = np.arange(N)
COMMAS = [f"{row},5" for row in range(N)]


def hint_of(frame):
    with pytest.raises(ValueError, match="It reads as numbers") as caught:
        ProbMixupRegressor(**TINY).fit(frame, np.arange(N))
    return str(caught.value)


def test_thousands_that_were_read_as_decimals_are_told_with_decimal_commas():
    # As pandas reads 1.200 and 999 of a file whose decimals are commas.
    lost = [999.0, np.nan, *(1 + row / 5 for row in range(1, N - 1))]
    message = hint_of(pd.DataFrame({"area": COMMAS, "people": lost}))
    assert (
        "read_csv(..., decimal=',', thousands='.'), where column 'people' has 1200, not 1.200."
        in message
    )


@pytest.mark.parametrize(
    "other", [np.arange(N) / 7 + 1, np.arange(N) / 4, 900 + np.arange(N) * 2.5]
)
def test_decimals_are_not_told_to_be_thousands(other):
    # More than three decimals, less than 1, 1000 and more: as no thousands are; no decimals at all.
    assert "thousands" not in hint_of(pd.DataFrame({"area": COMMAS, "other": other}))


def test_text_of_thousands_is_not_told_to_be_converted():
    thousands = [f"{row + 1}.{row:03}" for row in range(N)]
    message = hint_of(pd.DataFrame({"people": thousands}))
    assert "by pandas.read_csv(..., decimal=',', thousands='.') if 1.000 is 1000;" in message
    plain = [f"{row}.{row:03}" for row in range(N)]
    assert "It reads as numbers: convert it first." in hint_of(pd.DataFrame({"x": plain}))


@pytest.mark.parametrize(
    ("pattern", "rows", "numbers"),
    [("£{}.99", N, ROWS + 0.99), ("1.{:03},5 €", N, 1000.5 + ROWS), ("{} %", 30, ROWS % 30)],
)
def test_a_unit_beside_numbers_is_told_with_the_code_that_takes_it_off(pattern, rows, numbers):
    frame = pd.DataFrame({"x": [pattern.format(row % rows) for row in range(N)], "z": ROWS / 3})
    if rows == N:
        message = hint_of(frame)
    else:
        with pytest.warns(UserWarning, match="It reads as numbers") as caught:
            ProbMixupRegressor(**TINY).fit(frame, np.arange(N))
        message = str(caught[0].message)
    steps = re.search(r"convert it by (.*\.astype\(float\))\.", message)[1]
    assert eval(f"x{steps}", {"x": frame["x"]}).tolist() == list(numbers)


@pytest.mark.parametrize("pattern", ["H-{}", "{}a, {}b", "{}:30", "A{}", "{}-{}"])
def test_codes_are_no_numbers_beside_units(pattern):
    assert as_numbers({pattern.format(row, row) for row in range(100, 160)}) == ""


def test_predict_tells_thousands_of_other_columns():
    frame = pd.DataFrame({"age": ROWS + 0.5, "people": 1 + ROWS / 5})
    est = ProbMixupRegressor(**TINY).fit(frame, ROWS)
    new = frame.assign(age=COMMAS)
    told = r"decimal=',', thousands='.'\), where column 'people' has 1200, not 1.200."
    with pytest.raises(ValueError, match=told):
        est.predict(new)
    with pytest.raises(ValueError, match=r"decimal=','\)\.$"):
        est.predict(new[:5])


@pytest.mark.parametrize(
    ("cells", "bad", "remedy"),
    [
        (["19", "?", "21"], "?", "It reads as numbers by pandas.read_csv(..., na_values=['?'])."),
        (["19", "2,5"], "2,5", "It reads as numbers by pandas.read_csv(..., decimal=',')."),
        (["19", "21"], "19", "It reads as numbers: convert it first."),
        (["young", "old", "19"], "old", "as in the fit."),
    ],
)
def test_predict_says_how_text_reads_as_numbers(cells, bad, remedy):
    known = pd.DataFrame({"age": np.arange(N) % 50 + 0.5, "size": np.arange(N) / 3})
    est = ProbMixupRegressor(**TINY).fit(known, np.arange(N) / 2)
    new = pd.DataFrame({"age": cells, "size": 1.0})
    with pytest.raises(ValueError, match="column 'age' of X holds categories or text") as caught:
        est.predict(new)
    assert f"such as {bad!r}; expected numbers, as in the fit." in str(caught.value)
    assert str(caught.value).endswith(remedy)


class TestUnseenLevels:
    TABLE = pd.DataFrame({"town": ["Bern", "Basel"] * 30, "kind": list("abc") * 20})

    def fit(self):
        y = np.arange(60) % 2 + 0.1 * np.arange(60) % 3
        return ProbMixupRegressor(**TINY).fit(self.TABLE, y)

    def test_one_warning_names_all_columns(self):
        new = self.TABLE.assign(kind="d")
        new.loc[[5, 7], "town"] = "Brn", None
        est = self.fit()
        with pytest.warns(UserWarning, match="the fit did not see") as caught:
            found = est.predict(new)
        (message,) = [str(each.message) for each in caught]
        assert "column 'town' in 1 of 60 rows, such as 'Brn'; column 'kind' in 60 of 60" in message
        # Of a level that is 0 in all columns, as before.
        with pytest.warns(UserWarning, match="the fit did not see"):
            other = est.predict(new.replace({"Brn": "Bejing", "d": "e"}))
        assert_array_equal(found, other)

    def test_many_columns_are_not_all_named(self):
        many = pd.DataFrame({f"c{place}": list("ab") * 30 for place in range(8)})
        est = ProbMixupRegressor(**TINY).fit(many, np.arange(60.0))
        with pytest.warns(UserWarning, match=r"column 'c4' .* 'z'; and 3 other columns\.$"):
            est.predict(many.assign(**dict.fromkeys(many, "z")))

    def test_of_many_levels_all_are_news_and_some_are_not(self):
        many = pd.DataFrame(
            {"zip": [f"{1000 + row}" for row in range(70)] * 2, "n": np.arange(140) % 9}
        )
        est = ProbMixupRegressor(**TINY).fit(many, np.arange(140.0))
        new = many.head(9).assign(zip=[None, *(f"0{1000 + row}" for row in range(8))])
        with pytest.warns(UserWarning, match="column 'zip' in 8 of 9 rows, such as '01000'"):
            est.predict(new)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            est.predict(pd.concat([new, many.head(1)]))
            est.predict(new.tail(1))

    def test_known_and_missing_ones_are_no_news(self):
        est = self.fit()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            backwards = est.predict(self.TABLE.iloc[::-1])
            est.predict(self.TABLE.assign(town=None))
        assert found == []
        assert_array_equal(backwards[::-1], est.predict(self.TABLE))
