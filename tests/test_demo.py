import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss

from sklearn_probmix import PredictiveDistribution, ProbMixupRegressor, demo, showcase
from sklearn_probmix.showcase import Rival, Table

MODELS = {
    "regression": ["one Normal for all rows", "gradient boosting + Normal", "ProbMixupRegressor()"],
    "classification": ["class frequencies", "gradient boosting", "ProbMixupClassifier()"],
}


@pytest.fixture
def houses(tmp_path):
    """Return a table of numbers, text, missing cells, and responses that are missing or rare."""
    rng = np.random.default_rng(0)
    lines = ["area;district;empty;price;sold"]
    for i in range(60):
        area, district = rng.uniform(20, 100), "NS"[i % 2]
        price = 3 * area + 50 * (district == "N") + rng.normal(0, 5)
        cells = (
            "" if i % 9 == 0 else f"{area:.2f}",
            "?" if i % 7 == 0 else district,
            "NA",
            "" if i < 3 else f"{price:.2f}",
            "rare" if i == 5 else ["yes", "no", "no"][i % 3],
        )
        lines.append(";".join(cells).replace(".", ","))
    path = tmp_path / "my houses.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(capsys, tmp_path, *arguments):
    demo.main([*map(str, arguments), "--output", str(tmp_path), "--epochs", "2"])
    return capsys.readouterr().out


def scores_of(printed, task):
    lines = printed.splitlines()
    return {
        model: line.removeprefix(model).split()
        for model in MODELS[task]
        for line in lines
        if line.startswith(model)
    }


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        demo.main([*map(str, arguments)])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    # Before anything slow is loaded.
    assert "Loading" not in captured.out
    # The one line, without the usage.
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_bundled_tables(capsys, tmp_path):
    diabetes, cancer = run(capsys, tmp_path).split("breast cancer: ")
    for part, task in [(diabetes, "regression"), (cancer, "classification")]:
        scores = scores_of(part, task)
        assert list(scores) == MODELS[task]
        assert all(np.isfinite(float(cells[0])) for cells in scores.values())
    assert "111 rows" not in diabetes.split("Fitting")[0]
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "probmix_diabetes.png",
        "probmix_breast_cancer.png",
    }


def test_own_table_regression(capsys, tmp_path, houses):
    printed = run(capsys, tmp_path / "new", "--csv", houses, "--target", "price")
    assert "semicolons between cells, decimal commas, UTF-8" in printed
    assert "empty     dropped: empty" in printed
    assert "district  category, 2 levels" in printed
    assert "my houses: price (numbers) from 3 columns of 57 rows" in printed
    assert list(scores_of(printed, "regression")) == MODELS["regression"]
    assert (tmp_path / "new" / "probmix_my_houses.png").stat().st_size > 10_000
    start = printed.index("CRPS")
    lines = printed[printed.rindex("\n", 0, start) + 1 :].splitlines()[:4]
    assert len({len(line) for line in lines}) == 1
    assert [line for line in printed.splitlines() if len(line) > 100 and "/" not in line] == []


def test_own_table_classification(capsys, tmp_path, houses):
    printed = run(capsys, tmp_path, "--csv", houses, "--target", "sold")
    assert "Left out 1 rows of classes with few: ['rare']" in printed
    assert "my houses: sold (classes) from 4 columns of 59 rows" not in printed
    assert "my houses: sold (classes) from 3 columns of 59 rows" in printed
    assert (tmp_path / "probmix_my_houses.png").exists()


def test_rows_are_drawn_from_a_large_table(capsys, tmp_path, houses):
    arguments = ("--csv", houses, "--target", "price", "--rows", 50)
    printed = run(capsys, tmp_path, *arguments)
    assert "(of 57 rows 50 are drawn at random: --rows takes another number)" in printed
    assert "3 columns of 50 rows" in printed
    assert "at random" not in run(capsys, tmp_path, *arguments[:-1], 57)


def test_several_classes_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 20)
    X = rng.normal(size=(60, 2)) + np.repeat([[0, 0], [3, 0], [0, 3]], 20, axis=0)
    table = Table("three", "kind", X, y, [])
    steps = showcase.fit_all(table, max_epochs=2, n_members=2)
    showcase.draw(table, [step for step in steps if isinstance(step, Rival)], tmp_path / "p.png")
    assert (tmp_path / "p.png").exists()


def test_names_are_printed_as_they_are_and_fit_in(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    table = Table("three " * 20, "$ or $x$", X, 1e6 * X[:, 0], [])
    steps = showcase.fit_all(table, max_epochs=2, n_members=2)
    showcase.draw(table, [step for step in steps if isinstance(step, Rival)], tmp_path / "p.svg")
    # Texts are drawn as paths, and stand in comments beside them; formulas have their own sign.
    texts = re.findall("<!-- (.*) -->", (tmp_path / "p.svg").read_text())
    assert {"$ or $x$", "1,000,000"} <= {*texts}
    assert max(map(len, texts)) < 80


def test_rarer_class_is_the_event():
    table = Table("t", "sold", np.zeros((5, 1)), np.array(["no", "yes", "no", "no", "yes"]), [])
    proba = np.array([[0.9, 0.1], [0.4, 0.6]])
    rival = Rival("r", None, np.array([0, 1]), table.y[:2], proba, np.zeros(2), {})
    p, happened, event = showcase._events(table, rival)
    assert p.tolist() == [0.1, 0.6]
    assert happened.tolist() == [False, True]
    assert event == "sold = yes"


def test_the_rarer_class_among_the_likeliest_rows():
    y = np.array(["no", "yes", "no", "no", "yes", "no"])
    table = Table("t", "sold", np.zeros((6, 1)), y, [])

    def of(name, p):
        proba = np.column_stack([1 - np.array(p), p])
        return rival(np.zeros(6), name, y=y, prediction=proba)

    rivals = [
        of("none", [0.3] * 6),
        of("a", [0.1, 0.4, 0.2, 0.3, 0.25, 0]),
        of("b", (y == "yes") * 1.0),
    ]
    assert showcase.remarks(table, rivals) == [
        "Of the 2 rows with the highest probability of sold = yes so many are: 1 by a, 2 by b"
    ]
    assert showcase.remarks(table._replace(y=np.array([*y[:5], "?"])), rivals) == []


def test_scores_by_hand():
    y = np.array([0.0, 1.0, 2.0, 3.0])
    dist = PredictiveDistribution("norm", {"loc": [[1.0]] * 4, "scale": [[1.0]] * 4})
    losses, found = showcase._score(y, dist, 1e-4)
    # Errors -1, 0, 1, 2, of which the last is outside of 1 ± 1.645.
    assert found["RMSE"] == pytest.approx(1.5**0.5)
    assert found["NLL"] == pytest.approx(0.5 * np.log(2 * np.pi) + 0.75, rel=1e-6)
    assert found["90 % hold"] == 0.75
    assert found["width"] == pytest.approx(2 * 1.6448536, rel=1e-6)
    # CRPS of a standard Normal at its mean: (sqrt(2) - 1) / sqrt(pi).
    assert losses[1] == pytest.approx((2**0.5 - 1) / np.pi**0.5)


def test_density_and_masses_have_the_same_score():
    y = np.array([100.0, 107.0])
    masses = PredictiveDistribution("poisson", {"mu": [[100.0]] * 2})
    normal = PredictiveDistribution("norm", {"loc": [[100.0]] * 2, "scale": [[10.0]] * 2})
    nll = [showcase._score(y, dist, 1.0)[1]["NLL"] for dist in (masses, normal)]
    assert nll[0] == pytest.approx(nll[1], abs=0.02)


def rival(losses, name="m", rmse=None, y=None, prediction=None):
    y = np.zeros(len(losses)) if y is None else y
    scores = {"CRPS": 0.0} | ({} if rmse is None else {"RMSE": rmse})
    return Rival(name, None, np.arange(len(y)), y, prediction, np.asarray(losses), scores)


def test_verdict_knows_chance():
    rng = np.random.default_rng(0)
    losses = 1 + 0.1 * rng.random(100)
    first = rival(2 * losses)
    for factor, words in [(0.9, "better here: its CRPS is 10% lower"), (1.1, "worse here: its")]:
        found = showcase.verdict(rival(factor * losses), [first, rival(losses)])
        assert words in found
    shuffled = rival(rng.permutation(losses))
    found = showcase.verdict(rival(losses), [first, shuffled])
    assert "within what chance does on 100 test rows" in found


def test_verdict_tells_of_another_score_and_of_a_useless_model():
    losses = np.linspace(1, 1.1, 100)
    default = rival(0.9 * losses, rmse=1.05)
    constant, trees = rival(2 * losses, "constant", 3.0), rival(losses, "trees", 1.0)
    found = showcase.verdict(default, [constant, trees])
    assert found == (
        "The default is better here: its CRPS is 10% lower than that of trees, but its RMSE is "
        "5% higher than that of trees."
    )
    assert "RMSE" not in showcase.verdict(rival(0.9 * losses, rmse=0.9), [constant, trees])
    found = showcase.verdict(
        default, [rival(losses, "constant", 3.0), rival(2 * losses, "trees", 4)]
    )
    assert found.endswith("than that of constant (and that of trees is higher than this).")


def normal_rival(name, y, loc, scale):
    dist = PredictiveDistribution("norm", {"loc": [[loc]] * len(y), "scale": [[scale]] * len(y)})
    return rival(np.ones(len(y)), name, y=y, prediction=dist)


def test_remarks_on_intervals():
    # Quantiles of a Normal: those of the right width hold what they promise.
    y = stats.norm(10, 1).ppf((np.arange(100) + 0.5) / 100)
    table = Table("t", "y", np.zeros((100, 1)), y, [])
    rivals = [normal_rival(name, y, 10, sd) for name, sd in (("a", 0.5), ("b", 2), ("c", 1))]
    assert showcase.remarks(table, rivals) == [
        "90 % intervals of a hold 58.0 %: narrower than promised, beyond chance",
        "90 % intervals of b hold 100.0 %: wider than promised, beyond chance",
    ]
    *_, below = showcase.remarks(table, [normal_rival("c", y, 10, 7)])
    assert below.startswith("100% of the default's intervals begin below 0")
    kind = re.search("family='(.*)'", below)[1]
    model = ProbMixupRegressor(family=kind, method="erm", n_members=2, max_epochs=2)
    assert (model.fit(y[:, None], y).predict_proba(y[:, None]).interval(0.9)[0] > 0).all()
    assert showcase.remarks(table._replace(y=y - 10), [normal_rival("c", y, 10, 1)]) == []


def test_intervals_of_counts_may_hold_more():
    # Half of a fair coin's two values: each interval of 90 % holds both.
    y = np.repeat([0.0, 1.0], 50)
    coin = PredictiveDistribution("binom", {"n": [[1]] * 100, "p": [[0.5]] * 100})
    table = Table("t", "y", np.zeros((100, 1)), y, [])
    assert showcase.remarks(table, [rival(np.ones(100), y=y, prediction=coin)]) == []


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.arange(60) ** 2 // 9, "poisson (y counts)"),
        (25 + np.arange(60), "poisson (y takes whole numbers)"),
    ],
)
def test_reasons(y, words):
    found = showcase.reasons(Table("t", "y", np.zeros((60, 1)), y.astype(float), []))
    assert found.startswith("tried beside the Normal:\n")
    assert words in found


def test_what_auto_chose_is_the_kinds_alone():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    table = Table("t", "y", X, X[:, 0] + rng.normal(size=60), [])
    *_, default = showcase.fit_all(table, method=["erm", "probmix"], n_members=2, max_epochs=3)
    (_, first, alone), (_, second, _) = showcase.chosen(table, default)
    assert first >= second
    assert first + second == pytest.approx(1)
    place = int(default.model.weights_.argmax())
    kind = default.model.kinds_[place]
    # A fit of the other weights: all on the one kind.
    model = ProbMixupRegressor(method=[kind], calibration="off")
    assert type(model) is type(default.model)
    default.model.weights_ = np.eye(2)[place] * (1 - 1e-12) + 1e-12
    default.model.weights_ /= default.model.weights_.sum()
    mixture = default.model.predict_proba(X[default.test])
    assert mixture.crps(default.y).mean() == pytest.approx(alone, rel=1e-6)


def test_levels_that_the_fit_did_not_see_are_told_once():
    X = np.c_[np.arange(80.0).astype(object), np.repeat(["a", "b"], [60, 20])]
    table = Table("t", "y", X, np.arange(80.0) % 7, [1], in_order_of="day")
    steps = showcase.fit_all(table, method=["erm", "probmix"], n_members=2, max_epochs=3)
    with pytest.warns(UserWarning, match="did not see"):
        *_, default = steps
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(showcase.chosen(table, default)) == 2


def test_constant_and_boosting_hold_what_they_promise():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 1))
    table = Table("t", "y", X, 3 * X[:, 0] + rng.normal(size=400), [])
    models = dict(showcase.models(table))
    constant = models["one Normal for all rows"].fit(X, table.y).predict_proba(X)
    assert constant.mean()[0] == pytest.approx(table.y.mean())
    assert constant.std()[0] == pytest.approx(table.y.std())
    trees = models["gradient boosting + Normal"].fit(X, table.y).predict_proba(X)
    # The noise has a standard deviation of 1, and trees err on top of it.
    assert 0.9 < trees.std()[0] < 1.5


def test_trees_have_one_thread():
    code = """
import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads as n_threads
from sklearn_probmix import showcase

class Asking(DummyClassifier):
    def fit(self, X, y):
        print(n_threads())
        return super().fit(X, y)

    def predict_proba(self, X):
        print(n_threads())
        return super().predict_proba(X)

print(n_threads())
showcase.models = lambda table: [("trees", Asking()), ("default", Asking())]
list(showcase.fit_all(showcase.Table("t", "y", np.zeros((40, 1)), np.arange(40) % 2, [])))
"""
    environment = os.environ | dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS"], "2")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    free, *of_models = done.stdout.split()
    assert of_models == ["1", "1", free, free]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--target", "y"], "--target needs --csv"),
        (["--task", "regression"], "--task needs --csv"),
        (["--epochs", "0"], "expected at least 1"),
        (["--csv", "absent.csv", "--target", "y"], f"No such file or directory: '{Path.cwd()}"),
        (["--output", "/proc"], "error: --output /proc: no file can be made there ("),
        (["--rows", "many"], "invalid int value: 'many'"),
    ],
)
def test_arguments_that_do_not_go_together(capsys, arguments, expected):
    assert expected in error_of(capsys, *arguments)


def test_columns_are_named_where_none_is(capsys, houses):
    message = error_of(capsys, "--csv", houses)
    assert "--csv needs --target" in message
    assert "['area', 'district', 'empty', 'price', 'sold']" in message


def test_pandas_reads_the_file_as_the_demo_does(capsys, tmp_path, houses):
    printed = run(capsys, tmp_path, "--csv", houses, "--target", "price")
    (line,) = [line for line in printed.splitlines() if line.startswith("In pandas: ")]
    read = eval(line.removeprefix("In pandas: "), {"pd": pd})
    assert read["area"].dtype.kind == read["price"].dtype.kind == "f"
    assert list(read) == ["area", "district", "price", "sold"]
    # Of rows whose price is known.
    assert len(read) == 57
    assert read["district"].isna().sum() == 8
    assert ".dropna(subset=['price'])" in line
    assert "price     to predict: a number; 3 rows without it are left out" in printed
    assert "learn from X, its columns but 'price'" in printed


def test_a_file_with_every_response_says_nothing_of_others(capsys, tmp_path, houses):
    printed = run(capsys, tmp_path, "--csv", houses, "--target", "sold")
    assert "left out" not in printed.replace("Left out 1 rows", "")
    assert "dropna" not in printed


def test_pandas_makes_the_numbers_of_dates_that_the_demo_does(capsys, tmp_path):
    path = tmp_path / "sales.csv"
    days = pd.date_range("2024-01-30", periods=60, freq="36h").strftime("%d.%m.%Y %H:%M")
    frame = pd.DataFrame({"when it's {sold}": days, "x": 1, "sales": np.arange(60) % 23 + 0.5})
    frame.iloc[7, 0] = frame.iloc[9, 2] = None
    frame.to_csv(path, index=False)
    printed = run(capsys, tmp_path, "--csv", str(path), "--target", "sales")
    code = re.search(r"In pandas: (\(.*?\n\))\n", printed, re.DOTALL)[1]
    read = eval(code, {"pd": pd}).drop(columns="sales")
    own = demo.read_csv(path, "sales")
    assert list(read) == [column.name for column in own.columns]
    assert len(read.columns) == 4
    for column in own.columns:
        np.testing.assert_allclose(read[column.name], column.values, rtol=1e-12)


def hours(path, *order):
    """Write rows whose response is their number, and a column of it; return the demo's table."""
    time = pd.date_range("2024-03-01", periods=80, freq="h").strftime("%Y-%m-%d %H:%M").to_numpy()
    frame = pd.DataFrame({"time": time, "x": np.arange(80) / 2, "y": np.arange(80) / 4})
    frame.iloc[list(order)].to_csv(path, index=False)
    return demo.to_table(demo.read_csv(path, "y"), most_rows=60)


@pytest.mark.parametrize("step", [1, -1])
def test_rows_in_time_are_tested_on_the_last(tmp_path, step):
    table = hours(tmp_path / "t.csv", *range(80)[::step])
    assert table.in_order_of == "time"
    assert (np.diff(table.y) > 0).all()
    assert len(table.y) == 60
    train, test = showcase.divide(table)
    assert table.y[train].max() < table.y[test].min()
    assert len(test) == 15


def test_order_in_time_is_that_of_the_known_dates(tmp_path):
    path = tmp_path / "t.csv"
    hours(path, *range(80))
    frame = pd.read_csv(path)
    frame.loc[[0, 11, 79], "time"] = None
    frame.to_csv(path, index=False)
    table = demo.to_table(demo.read_csv(path, "y"))
    assert table.in_order_of == "time"
    assert (np.diff(table.y) > 0).all()
    # Two that are known say nothing.
    frame.loc[2:, "time"] = None
    frame.to_csv(path, index=False)
    assert demo.to_table(demo.read_csv(path, "y")).in_order_of is None


@pytest.mark.parametrize("order", [[1, 0, *range(2, 80)], [*range(0, 80, 2), *range(1, 80, 2)]])
def test_rows_in_another_order_are_tested_at_random(tmp_path, order):
    table = hours(tmp_path / "t.csv", *order)
    assert table.in_order_of is None
    train, test = showcase.divide(table)
    assert table.y[train].max() > table.y[test].min()


def test_classes_of_which_a_part_would_have_none_are_tested_at_random(tmp_path):
    table = hours(tmp_path / "t.csv", *range(80))
    changing = table._replace(y=np.array(["no"] * 30 + ["yes"] * 30))
    _, test = showcase.divide(changing)
    assert set(changing.y[test]) == {"no", "yes"}
    _, test = showcase.divide(table._replace(y=np.array(["no", "yes"] * 30)))
    assert test.tolist() == list(range(45, 60))


def test_the_order_in_time_is_said(capsys, tmp_path):
    hours(tmp_path / "t.csv", *range(80))
    printed = run(capsys, tmp_path, "--csv", tmp_path / "t.csv", "--target", "y")
    assert "Tested on the last 20 rows: 'time' is in order of time" in printed


def test_how_long_the_race_takes_is_said_before_it(capsys, tmp_path, houses, monkeypatch):
    def fit_all(table, **settings):
        assert settings == {"verbose": 1}
        yield "Fitting one Normal"
        yield "Fitting ProbMixupRegressor()"
        raise KeyboardInterrupt

    monkeypatch.setattr(showcase, "fit_all", fit_all)
    with pytest.raises(KeyboardInterrupt):
        demo.main(["--csv", str(houses), "--target", "price", "--output", str(tmp_path)])
    *_, first, second, third, _, _ = capsys.readouterr().out.splitlines()
    assert first == "Fitting one Normal ..."
    assert second == "Fitting ProbMixupRegressor() ..."
    assert (
        "a race of networks on 42 rows: some 15 seconds of the processor where there are 300"
        in third
    )


def test_make_passes_a_file_and_its_target_on():
    root = Path(demo.__file__).parents[1]
    command = ["make", "-n", "demo", "CSV=my houses.csv", "TARGET=price (EUR)"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "-m sklearn_probmix.demo --csv 'my houses.csv' --target 'price (EUR)'" in done.stdout


def test_unknown_column(capsys, houses):
    message = error_of(capsys, "--csv", houses, "--target", "prise")
    assert "no column 'prise'" in message
    assert "Did you mean 'price'?" in message


def test_too_few_rows(capsys, tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("x,y\n" + "".join(f"{i * i},{i / 3}\n" for i in range(30)))
    assert "known in 30 rows; expected 40" in error_of(capsys, "--csv", path, "--target", "y")


def test_classes_of_few_rows(capsys, houses):
    message = error_of(capsys, "--csv", houses, "--target", "area", "--task", "classification")
    assert "expected at least two with 8 rows" in message


def test_no_picture_without_matplotlib(capsys, tmp_path, houses, monkeypatch):
    def draw(*args):
        raise ImportError("no matplotlib")

    monkeypatch.setattr(showcase, "draw", draw)
    printed = run(capsys, tmp_path, "--csv", houses, "--target", "price")
    assert "No picture" in printed
    assert "pip install matplotlib" in printed


def test_the_brier_score_of_classes():
    y, p = np.array(["no", "yes", "yes"]), np.array([0.2, 0.7, 0.4])
    _, scores = showcase._score(y, np.column_stack([1 - p, p]), 1.0)
    assert scores["Brier"] == pytest.approx(brier_score_loss(y == "yes", p))
    y, p = np.array(["a", "b", "c"]), np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 1.0, 0.0]])
    _, scores = showcase._score(y, p, 1.0)
    # By hand: .25 + .09 + .04, .01 + .04 + .01, 1 + 1.
    assert scores["Brier"] == pytest.approx((0.38 + 0.06 + 2.0) / 3)
