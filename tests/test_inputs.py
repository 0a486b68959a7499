"""The table of docs/inputs.md: every input has the answer that stands there."""

import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from one_network import TINY
from scipy import sparse

from sklearn_probmix import ProbMixupClassifier, ProbMixupRegressor, fit_together

N = 60
rng = np.random.default_rng(0)
# Short decimals, which float16 aside every type here holds alike.
X = rng.normal(size=(N, 3)).round(3)
Y = (X[:, 0] + 0.1 * rng.normal(size=N)).round(3)
LABELS = (Y > 0).astype(int)
GROUPS = np.arange(N) // 6
DATES = pd.date_range("2020", periods=N)
NAMED = pd.DataFrame(X, columns=["a", "b", "c"])


def regressor(**params):
    return ProbMixupRegressor(**TINY | params)


def classifier(**params):
    return ProbMixupClassifier(**TINY | params)


def of_X(*tables):
    return [lambda X=X: regressor().fit(X, Y).predict(X) for X in tables]


def at_prediction(*tables):
    return [lambda X=X: regressor().fit(NAMED.to_numpy(), Y).predict(X) for X in tables]


def of_y(*responses, **params):
    return [lambda y=y: regressor(**params).fit(X, y).predict(X) for y in responses]


def fit_predict(X, y):
    return regressor(max_epochs=1, batch_size=1000).fit(X, y).predict(X)


def of_labels(*labels):
    return [lambda y=y: classifier().fit(X, y).predict_proba(X) for y in labels]


def of_weight(*weights):
    return [lambda w=w: regressor().fit(X, Y, sample_weight=w).predict(X) for w in weights]


def of_groups(*groups, **params):
    return [lambda g=g: regressor(**params).fit(X, Y, groups=g).predict(X) for g in groups]


def put(values, value, where=3, dtype=object):
    values = np.array(values, dtype=dtype)
    values[where] = value
    return values


def with_column(values):
    return NAMED.assign(b=values)


def alone(values):
    return pd.DataFrame({"a": values})


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def numbers(values):
    """Forms of an array that hold the same float64 numbers."""
    return [
        values.tolist(),
        tuple(values.tolist()),
        values.astype(">f8"),
        values.astype(np.longdouble),
        np.flip(np.flip(values).copy()),
        np.repeat(values, 2, axis=0)[::2],
        np.asfortranarray(values),
        read_only(values),
        values.astype(object),
        np.ma.masked_array(values),
        torch.tensor(values),
        torch.tensor(values, requires_grad=True),
    ]


_SERIES = pd.Series(Y)
_TEXT = np.where(LABELS, "yes", "no")
_PERIODS = pd.period_range("2020", periods=N)
_DURATIONS = pd.to_timedelta(np.arange(N), "D")
LEVELS = with_column(_TEXT)
rng_of_many = np.random.default_rng(0)
MANY = pd.DataFrame({"a": pd.Categorical([f"level {row % 10_000}" for row in range(12_000)])})
_FAR = put(Y, 1e30, dtype=float)
_WEIGHT = np.where(np.arange(N) % 2, 0.5, 1.0)

CASES = {
    "`X` in lists, tensors, any byte order, strides or order, read-only, long doubles": of_X(
        *numbers(X)
    ),
    "`X` in a frame of pandas or polars: floats, nullable floats, objects that are numbers": of_X(
        NAMED,
        NAMED.iloc[::-1].iloc[::-1],
        pd.DataFrame(X),
        NAMED.astype("Float64"),
        NAMED.astype(object),
        pl.DataFrame(NAMED.to_dict("list")),
    ),
    "`X` of integers, booleans, decimals, text or categories that read as numbers": of_X(
        X.round().astype("i1"),
        (X > 0),
        [[Decimal(str(value)) for value in row] for row in X],
        X.astype(str),
        NAMED.round().astype("category"),
        NAMED.round().astype("Int64"),
        (NAMED > 0).astype("boolean"),
        pl.DataFrame({"a": (X[:, 0] > 0).tolist(), "b": X[:, 1].tolist()}),
    ),
    "`X` with missing values: NaN, None, pandas.NA": of_X(
        with_column(put(X[:, 1], np.nan, dtype=float)),
        with_column(put(X[:, 1], None)),
        with_column(put(X[:, 1], pd.NA)),
        with_column(pd.array(put(X[:, 1], pd.NA), dtype="Float64")),
        pl.DataFrame({"a": X[:, 0], "b": [None, *X[1:, 1].tolist()]}),
        put(X, None, (3, 1)),
        put(X, pd.NA, (3, 1)).tolist(),
    ),
    "`X` with an infinite value": of_X(put(X, np.inf, (3, 1), float), put(X, -np.inf, (3, 1))),
    "a missing value in `predict`, in a column that had none in the fit": [
        lambda: regressor().fit(X, Y).predict(put(X, np.nan, dtype=float)),
        lambda: regressor().fit(NAMED, Y).predict(with_column(put(X[:, 1], None))),
        lambda: regressor().fit(LEVELS, Y).predict(LEVELS.assign(b=put(_TEXT, None))),
    ],
    "a column of which all values are missing, or all but a constant": of_X(
        with_column(np.nan),
        with_column(None),
        with_column(put([None] * N, "a")),
        with_column(put([None] * N, 2.5)),
        pl.DataFrame({"a": X[:, 0], "b": [None] * N}),
        put(X, np.nan, (slice(None), 1), float),
    ),
    "`X` in which every value is missing": of_X(
        alone([None] * N), np.full((N, 2), np.nan), alone([np.nan] * N)
    ),
    "a frame without columns": of_X(NAMED[[]], pl.DataFrame()),
    "a frame with a column of categories, or of text of few values": of_X(
        LEVELS,
        LEVELS.astype({"b": "category"}),
        LEVELS.astype({"b": object}),
        pl.DataFrame({"a": X[:, 0], "b": _TEXT.tolist()}),
        with_column(pd.cut(X[:, 1], 4)),
    ),
    "categories of 10,000 levels, or whose levels are numbers and text": [
        lambda: fit_predict(MANY, rng_of_many.normal(size=len(MANY))),
        *of_X(with_column(put(_TEXT, 1, slice(9))), with_column(pd.Categorical(put(_TEXT, 2)))),
    ],
    "in `predict`, declared categories that the fit did not see, or none of its levels": [
        lambda b=b: regressor().fit(LEVELS, Y).predict(LEVELS.assign(b=b))
        for b in (
            pd.Categorical(_TEXT, categories=["other", "no", "yes"]),
            pd.Categorical([None] * N, categories=["other"]),
        )
    ],
    "in `predict`, levels that the fit did not see": [
        lambda: regressor().fit(LEVELS, Y).predict(LEVELS.assign(b=put(_TEXT, "Yes"))),
        lambda: (
            regressor()
            .fit(LEVELS, Y)
            .predict(pl.DataFrame(LEVELS.assign(b=put(_TEXT, "Yes")).to_dict("list")))
        ),
    ],
    "in `predict`, some levels that the fit did not see, of a column of more than 64": [
        lambda: (
            regressor(max_epochs=1, batch_size=1000)
            .fit(MANY, rng_of_many.normal(size=len(MANY)))
            .predict(MANY.head(9).assign(a=["new", *MANY["a"][1:9]]))
        )
    ],
    "a column that changes: numbers where categories were, or the reverse": [
        lambda: regressor().fit(LEVELS, Y).predict(NAMED),
        lambda: regressor().fit(NAMED, Y).predict(LEVELS),
        lambda: regressor().fit(NAMED, Y).predict(with_column(pd.Categorical(_TEXT))),
    ],
    "a frame with a column of free text": of_X(
        with_column([f"a remark, {row}" for row in range(N)])
    ),
    "a frame with a column of dates as text": of_X(with_column(DATES.strftime("%d/%m/%Y"))),
    "a frame with a column of text that reads as numbers, but for signs or one word": of_X(
        with_column(X[:, 1].astype(str)),
        with_column([f"{row},5" for row in range(N)]),
        with_column([f"1.{row:03}" if row % 9 else "k.A." for row in range(N)]),
    ),
    "a frame with a column of text that is numbers beside one sign or unit": of_X(
        with_column([f"£{row}" for row in range(N)]),
    ),
    "text that is numbers but for signs or one word, of few values": of_X(
        with_column([f"{row // 2},5" for row in range(N)]),
        with_column([str(row // 2) if row // 2 % 9 else "?" for row in range(N)]),
    ),
    "a frame with a column of lists, periods or bytes": of_X(
        with_column([[1, 2]] * N),
        with_column(_PERIODS),
        with_column([b"a"] * N),
        pl.DataFrame({"a": X[:, 0], "b": [[1, 2]] * N}),
    ),
    "a frame in which a column is unique in every row: categories, or integers with few gaps": of_X(
        with_column(np.arange(N)[::-1]),
        with_column(3 * np.arange(N)),
        with_column(pd.Categorical([f"row {row}" for row in range(N)])),
        pl.DataFrame({"a": X[:, 0], "b": range(100, 100 + N)}),
    ),
    "an array with a column of text": of_X(
        with_column(_TEXT).to_numpy(), with_column(_TEXT).to_numpy().tolist()
    ),
    "`categorical_features` that names no columns of `X`": [
        lambda given=given: regressor(categorical_features=given).fit(NAMED, Y)
        for given in ([3], [-4], ["d"], [True, False], [0.5], [[0]])
    ],
    "`X` with a column of dates, times or durations, or of these alone": [
        *of_X(
            alone(DATES),
            alone(DATES).assign(b=X[:, 0]),
            alone(DATES).shift(),
            alone(DATES.tz_localize("UTC")),
            alone(_DURATIONS),
            pl.DataFrame({"a": DATES.to_list()}),
            pl.DataFrame({"a": _DURATIONS.to_list(), "b": X[:, 0]}),
        ),
        *at_prediction(NAMED.assign(a=DATES), NAMED.assign(a=_DURATIONS)),
    ],
    "`X` as an array of dates or durations": [
        *of_X(alone(DATES).to_numpy(), alone(_DURATIONS).to_numpy()),
        *of_X(np.array([[date] for date in DATES.to_numpy()], dtype=object)),
        *at_prediction(np.tile(DATES.to_numpy()[:, None], 3)),
    ],
    "`X` with masked values": of_X(np.ma.masked_array(X, mask=X[3, 1] == X)),
    "a frame of which columns have the same name": [
        *of_X(NAMED.set_axis(["a", "b", "a"], axis=1)),
        lambda: regressor().fit(NAMED, Y).predict(NAMED.set_axis(["a", "b", "a"], axis=1)),
    ],
    "`X` that is sparse": of_X(
        sparse.csr_array(X), pd.DataFrame(X).astype(pd.SparseDtype("float64", 0))
    ),
    "`X` that is a generator, a set, a dict, text or None": of_X(
        (row for row in X), {1.0, 2.0}, {"a": Y, "b": Y}, map(list, X), "known.csv", None
    ),
    "`X` as a list of dicts or of text": of_X([{"a": 1.0}] * N, ["a"] * N),
    "`X` as a column or a row of a frame": [
        *of_X(NAMED["a"], NAMED.iloc[0], pl.Series(Y)),
        *at_prediction(NAMED.astype({"b": str}).iloc[0]),
    ],
    "`X` as a lazy frame": of_X(pl.DataFrame(X).lazy()),
    "`X` with a number beyond 1e150, in `fit`": of_X(put(X, -1e160, (3, 1), float)),
    "`X` with one wild value (1e38)": of_X(put(X, 1e38, (3, 1), float)),
    "`X` in units as small as 1e-300, or with an offset near 2^53": of_X(
        X * 1e-300, X * 1e150 / 4, np.round(10 * X) + 2.0**53, np.round(10 * X) + 2.0**60
    ),
    "`X` with columns that are constant, or constant but for rounding": of_X(
        np.full_like(X, 3.7), np.full_like(X, 0.0), 1e20 * (1 + 1e-16 * np.sign(X))
    ),
    "rows far from those of the fit, in `predict`": at_prediction(
        1e40 * X, X + 2.0**60, put(X, -1e308, (3, 1), float), 1.7e308 * np.sign(X)
    ),
    "other column names, or another number of columns than in the fit": [
        *at_prediction(X[:, :2]),
        lambda: regressor().fit(NAMED, Y).predict(NAMED.rename(columns={"a": "d"})),
    ],
    "`y` in lists, tensors, any byte order or strides, read-only, long doubles, decimals": of_y(
        *numbers(Y), [Decimal(str(value)) for value in Y]
    ),
    "`y` as a column of pandas or polars: floats, nullable floats, objects that are numbers": of_y(
        _SERIES,
        _SERIES[::-1][::-1],
        _SERIES.astype("Float64"),
        _SERIES.astype(object),
        pl.Series(Y),
    ),
    "`y` that is constant, or constant but for rounding": of_y(
        np.zeros(N), np.full(N, 3.7), np.full(N, 1e300), 3.7 * (1 + 2e-16 * np.sign(Y))
    ),
    "`y` in units from 1e-300 to 1e300, integers near 2^53 and 2^60, one wild value": of_y(
        1e-300 * Y, 1e300 * Y, np.arange(N) + 2**53, np.arange(N) + 2**60, put(Y, 1e300), _FAR
    ),
    "`y` with a value far from all others, and everything else the default": [
        lambda: ProbMixupRegressor(random_state=0).fit(X, put(Y, 999, dtype=float)).predict(X)
    ],
    "`y` with a missing value: NaN, None, pandas.NA": of_y(
        put(Y, np.nan, dtype=float),
        put(Y, None),
        put(Y, np.nan),
        put(Y, pd.NA),
        put(Y, None).tolist(),
        pd.Series(put(Y, pd.NA), dtype="Float64"),
        pl.Series([*Y[:3].tolist(), None, *Y[4:].tolist()]),
        pd.DataFrame({"y": put(Y, pd.NA)}).iloc[:, 0],
    ),
    "`y` with an infinite value, or one beyond float64": of_y(
        put(Y, -np.inf, dtype=float),
        put(Y, np.inf),
        put(Y, 10**400),
        put(Y, np.longdouble("1e400"), dtype=np.longdouble),
    ),
    "`y` of bytes, dates, durations, complex numbers or records": of_y(
        Y.astype("S"),
        DATES,
        pl.Series(DATES.to_list()),
        _DURATIONS.to_numpy(),
        Y + 1j,
        np.zeros(N, dtype=[("a", "f8")]),
    ),
    "`y` of labels": of_y(_TEXT, _TEXT.astype(object), pd.Series(_TEXT).astype("category")),
    "`y` of text that reads as numbers, but for signs or one word": of_y(
        Y.astype(str),
        [f"{row},5" for row in range(N)],
        pd.Series(["k.A.", *(f"{y:.3f}" for y in Y[1:])]),
    ),
    "`y` of objects that are no numbers": of_y(
        DATES.tz_localize("UTC"),
        _PERIODS,
        _DURATIONS.to_numpy().astype(object),
    ),
    "`y` with masked values": of_y(np.ma.masked_array(Y, mask=np.arange(N) == 3)),
    "`y` of three axes, or of none": of_y(Y[:, None, None], 1.0),
    "`y` that is None": of_y(None),
    "`y` outside the family's support": of_y(put(np.ones(N), -1, dtype=float), family="gamma"),
    "`y_val` or the `y` of a later pass, 1e15 standard deviations away": [
        lambda: regressor().fit(X, Y, X_val=X, y_val=_FAR),
        lambda: regressor().partial_fit(X, Y).partial_fit(X, _FAR),
    ],
    "labels in lists, tensors, any byte order, objects that are all integers or all booleans": (
        of_labels(
            LABELS.tolist(),
            torch.tensor(LABELS),
            LABELS.astype(">i8"),
            LABELS[::-1].copy()[::-1],
            LABELS.astype("u1"),
            LABELS.astype(np.longdouble),
            LABELS.astype(object),
            LABELS.astype(bool),
            LABELS.astype(bool).astype(object),
            LABELS.astype(float).astype(object),
            pd.Series(LABELS, dtype="Int64"),
            pl.Series(LABELS),
        )
    ),
    "labels of text or of categories": of_labels(
        _TEXT, _TEXT.tolist(), _TEXT.astype(object), pd.Categorical(_TEXT), pl.Series(_TEXT)
    ),
    "labels with a missing one": of_labels(
        put(_TEXT, None),
        put(_TEXT, np.nan),
        put(LABELS, pd.NA),
        put(LABELS, np.nan, dtype=float),
        pd.Series(put(_TEXT, None)).astype("category"),
        pd.Series(put(_TEXT, None), dtype="string"),
    ),
    "labels that are numbers and text, or objects of another type": of_labels(
        put(_TEXT, 1), DATES.tz_localize("UTC")
    ),
    "labels that are continuous numbers": of_labels(Y, Y.astype(object)),
    "labels of one class only": of_labels([1] * N),
    "`sample_weight` of any numbers, at least 0; a single number; rows of weight 0": of_weight(
        _WEIGHT[::-1], _WEIGHT.astype(">f8"), pd.Series(_WEIGHT), torch.tensor(_WEIGHT), 2.0, LABELS
    ),
    "`sample_weight` with a missing or infinite value": of_weight(
        put(_WEIGHT, None), put(_WEIGHT, pd.NA), put(_WEIGHT, np.inf, dtype=float)
    ),
    "`sample_weight` of text, dates or durations": of_weight(
        _WEIGHT.astype(str), DATES, _DURATIONS.to_numpy()
    ),
    "`groups` of integers, text, dates or categories": of_groups(
        GROUPS, GROUPS[:, None], GROUPS.astype(str), DATES[GROUPS], pd.Categorical(GROUPS)
    ),
    "`groups` with a missing one": of_groups(
        put(GROUPS, None),
        put(GROUPS.astype(str), None),
        put(GROUPS, np.nan, dtype=float),
        put(DATES[GROUPS].to_numpy(), np.datetime64("NaT"), dtype="datetime64[ns]"),
    ),
    "`groups` of numbers and text": of_groups(put(GROUPS, "a")),
    "fewer groups than folds": of_groups(np.arange(N) // 20, n_members=5),
    "one group for a hold-out": of_groups(np.zeros(N)),
}


def table_of_the_docs():
    text = Path(__file__).parents[1].joinpath("docs", "inputs.md").read_text(encoding="utf-8")
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return dict(cells[2:])


ANSWERS = table_of_the_docs()


def test_the_table_of_the_docs_has_the_rows_that_are_tried_here():
    assert list(ANSWERS) == list(CASES)


def answers_to(start):
    return [
        pytest.param(given, case, id=f"{given[:50]} {number}")
        for given, answer in ANSWERS.items()
        if answer.startswith(start)
        for number, case in enumerate(CASES[given])
    ]


@pytest.mark.filterwarnings("error", "ignore:X has feature names:UserWarning")
@pytest.mark.parametrize(("given", "case"), answers_to(("`V", "`T")))
def test_refusals(given, case):
    error_type, _, message = ANSWERS[given].strip("`").partition(": ")
    with pytest.raises({"ValueError": ValueError, "TypeError": TypeError}[error_type]) as error:
        case()
    pattern = ".*".join(map(re.escape, message.split("...")))
    assert re.fullmatch(pattern, str(error.value), re.DOTALL), error.value
    assert "lr" not in str(error.value)


@pytest.mark.parametrize(("given", "case"), answers_to("`UserWarning"))
def test_warnings(given, case):
    _, _, message = ANSWERS[given].strip("`").partition(": ")
    pattern = ".*".join(map(re.escape, message.split("...")))
    with pytest.warns(UserWarning, match=pattern):
        assert np.isfinite(case()).all()


@pytest.fixture(scope="module")
def plain():
    return {"labels": of_labels(LABELS)[0](), "y": of_y(Y)[0]()}


@pytest.mark.parametrize(("given", "case"), answers_to("the same numbers"))
def test_the_same_numbers(plain, given, case):
    expected = plain["labels" if given.startswith("labels") else "y"]
    np.testing.assert_array_equal(case(), expected)


@pytest.mark.filterwarnings("error", "ignore:The held-out rows are not stratified")
@pytest.mark.parametrize(("given", "case"), answers_to("a finite prediction"))
def test_finite_predictions(given, case):
    assert np.isfinite(case()).all()


class TestSensible:
    """Beyond finite: what is predicted has the right size."""

    @pytest.mark.parametrize("value", [0.0, 3.7, -1e300, 2.0**60])
    def test_of_a_constant(self, value):
        est = regressor(max_epochs=200).fit(X, np.full(N, value))
        np.testing.assert_allclose(est.predict(X), value, rtol=0.2, atol=0.2)

    @pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e-30, 1e30, 1e149])
    def test_the_unit_of_X_does_not_matter(self, unit):
        # A power of two near the unit, so that no digit of X is lost.
        unit = 2.0 ** np.round(np.log2(unit))
        expected = regressor().fit(X, Y).predict(X)
        np.testing.assert_allclose(regressor().fit(unit * X, Y).predict(unit * X), expected, 1e-5)

    @pytest.mark.parametrize("weight", [None, _WEIGHT])
    def test_integers_near_2_to_the_53(self, weight):
        whole = np.round(100 * X) * 2
        expected = regressor().fit(whole, Y, weight).predict(whole)
        found = regressor().fit(whole + 2.0**53, Y, weight).predict(whole + 2.0**53)
        # The mean of such integers is off by a few units.
        np.testing.assert_allclose(found, expected, atol=0.1)

    def test_one_wild_value_costs_its_column_alone(self):
        wild = put(X, 1e38, (3, 1), float)
        without = X.copy()
        without[:, 1] = 0
        est = regressor(max_epochs=20).fit(wild, Y)
        expected = regressor(max_epochs=20).fit(without, Y).predict(without)
        others = np.arange(N) != 3
        np.testing.assert_allclose(est.predict(wild)[others], expected[others], atol=0.3)


class TestOtherEntries:
    """What is refused in `fit` is refused elsewhere too, and by its name there."""

    def test_validation_data(self):
        with pytest.raises(ValueError, match=r"Input y_val contains NaN: y_val\[3\] = None"):
            regressor().fit(X, Y, X_val=X, y_val=put(Y, None))
        with pytest.raises(ValueError, match="column 'a' of X_val, of type Datetime"):
            regressor().fit(NAMED, Y, X_val=NAMED.assign(a=DATES), y_val=Y)
        with pytest.raises(ValueError, match="y_val holds labels of the types"):
            classifier().fit(X, LABELS, X_val=X, y_val=put(LABELS, "a"))
        with pytest.raises(ValueError, match="y_val has 2 outputs; expected 1"):
            regressor().fit(X, Y, X_val=X, y_val=np.column_stack([Y, Y]))

    def test_validation_data_in_any_form(self):
        expected = regressor().fit(X, Y, X_val=X[:20], y_val=Y[:20]).predict(X)
        for X_val, y_val in zip(numbers(X[:20]), numbers(Y[:20]), strict=True):
            found = regressor().fit(X, Y, X_val=X_val, y_val=y_val).predict(X)
            np.testing.assert_array_equal(found, expected)

    def test_partial_fit(self):
        expected = regressor().partial_fit(X, Y).predict(X)
        np.testing.assert_array_equal(
            regressor().partial_fit(X, Y.astype(">f8")).predict(X), expected
        )
        with pytest.raises(ValueError, match="y holds text"):
            regressor().partial_fit(X, _TEXT)
        with pytest.raises(ValueError, match=r"Input classes contains NaN: classes\[1\] = None"):
            classifier().partial_fit(X, LABELS, classes=[0, None, 1])

    def test_fit_together(self):
        def fit(y):
            estimators = [regressor(random_state=seed) for seed in range(2)]
            return fit_together(estimators, [(X, y), (X, -Y)])[0].predict(X)

        np.testing.assert_array_equal(fit(Y[::-1].copy()[::-1]), fit(Y))
        with pytest.raises(ValueError, match=r"Input y contains NaN: y\[3\] = None"):
            fit(put(Y, None))

    def test_two_outputs(self):
        both = np.column_stack([Y, -Y])
        expected = regressor().fit(X, both).predict(X)
        for y in (
            both[:, ::-1].copy()[:, ::-1],
            pd.DataFrame(both)[::-1][::-1],
            pl.DataFrame(both),
        ):
            np.testing.assert_array_equal(regressor().fit(X, y).predict(X), expected)
        with pytest.raises(ValueError, match=r"y\[3, 1\] = None"):
            regressor().fit(X, put(both, None, (3, 1)))
