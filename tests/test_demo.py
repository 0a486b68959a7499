import numpy as np
import pytest

from sklearn_probmix import demo

METHODS = ["ERM", "mixup", "ProbMix", "M-ProbMix"]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes lines to a file and returns its path."""

    def write(*lines, name="table.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def houses(write):
    """Return a table of numbers, text, missing cells of both kinds, and missing targets."""
    rng = np.random.default_rng(0)
    lines = ["area,district,empty,price,sold"]
    for i in range(40):
        area, district = rng.uniform(20, 100), "NS"[i % 2]
        price = 3 * area + 50 * (district == "N") + rng.normal(0, 5)
        lines.append(
            f"{'' if i % 9 == 0 else round(area, 2)},{'?' if i % 7 == 0 else district},NA,"
            f"{'' if i < 3 else round(price, 2)},{['yes', 'no', 'rare'][2 if i == 5 else i % 2]}"
        )
    return write(*lines, name="my houses.csv")


def rows_of_table(printed):
    lines = [line.split() for line in printed.splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0] in METHODS}


def run(capsys, tmp_path, *arguments):
    demo.main([*map(str, arguments), "--output", str(tmp_path), "--epochs", "2"])
    return capsys.readouterr().out


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        demo.main([*map(str, arguments)])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_bundled_tables(capsys, tmp_path):
    printed = run(capsys, tmp_path)
    diabetes, cancer = printed.split("breast cancer: ")
    for part, headings in [(diabetes, "NLL CRPS RMSE"), (cancer, "log loss Brier accuracy")]:
        rows = rows_of_table(part)
        assert list(rows) == METHODS
        assert all(np.isfinite(float(cells[0])) for cells in rows.values())
        assert headings in " ".join(part.split())
        assert "90% coverage" in part
    assert "On 442 test rows" in diabetes
    assert "On 569 test rows" in cancer
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "probmix_diabetes.png",
        "probmix_breast_cancer.png",
    }


def test_table_is_aligned(capsys, tmp_path, houses):
    printed = run(capsys, tmp_path / "new", "--csv", houses, "--target", "price").splitlines()
    start = next(i for i, line in enumerate(printed) if line.startswith("method"))
    table = printed[start : start + 1 + len(METHODS)]
    assert len({len(line) for line in table}) == 1
    assert all(len(line) <= 80 for line in printed if not line.startswith("Picture"))


def test_own_table_regression(capsys, tmp_path, houses):
    printed = run(capsys, tmp_path / "new", "--csv", houses, "--target", "price")
    assert "Left out 3 rows" in printed
    assert "regression of price from 4 columns, 37 rows" in printed
    assert list(rows_of_table(printed)) == METHODS
    assert (tmp_path / "new" / "probmix_my_houses.png").stat().st_size > 10_000


def test_own_table_classification(capsys, tmp_path, houses):
    printed = run(capsys, tmp_path, "--csv", houses, "--target", "sold")
    assert "Left out 1 rows" in printed
    assert "classification of sold from 4 columns, 39 rows" in printed
    assert (tmp_path / "probmix_my_houses.png").exists()


def test_several_classes_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 20)
    X = rng.normal(size=(60, 2)) + np.repeat([[0, 0], [3, 0], [0, 3]], 20, axis=0)
    table = demo.Table("three", "kind", X, y, [0, 1], [])
    demo.draw(table, demo.evaluate(table, max_epochs=2), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").exists()


def test_scores_are_those_of_all_test_rows():
    y = np.array([0.0, 1.0, 2.0, 3.0])
    dist = demo.PredictiveDistribution("norm", {"loc": [[1.0]] * 4, "scale": [[1.0]] * 4})
    found = demo.scores(demo.Forecast(y, dist, 0.5))
    # By hand: errors -1, 0, 1, 2, of which the last is outside of 1 ± 1.645.
    assert found["RMSE"] == pytest.approx(1.5**0.5)
    assert found["NLL"] == pytest.approx(0.5 * np.log(2 * np.pi) + 0.75)
    assert (found["90% coverage"], found["fit time"]) == (0.75, 0.5)


def test_large_table_is_tested_on_one_fold(monkeypatch):
    monkeypatch.setattr(demo, "MAX_ROWS_FOR_ALL_FOLDS", 100)
    forecasts = demo.evaluate(demo.bundled_tables()[0], max_epochs=1)
    assert [len(forecast.y) for forecast in forecasts.values()] == [148] * len(METHODS)


def test_cells_become_numbers_text_and_missing(houses):
    table = demo.read_table(houses, "price")
    assert (table.numeric, table.text) == ([0, 2], [1, 3])
    assert table.task == "regression"
    assert table.X.shape == (37, 4)
    # Rows 3 to 39 are left: the district is missing in 7, 14, ..., the area in 9, 18, ...
    assert [i + 3 for i, value in enumerate(table.X[:, 1]) if value is None] == [7, 14, 21, 28, 35]
    assert (np.flatnonzero(np.isnan(table.X[:, 0].astype(float))) + 3).tolist() == [9, 18, 27, 36]
    assert np.isnan(table.X[:, 2].astype(float)).all()


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["yes", "no"], "classification"),
        (["0", "1", "2"], "classification"),
        (["0.5", "1"], "regression"),
        ([str(i) for i in range(11)], "regression"),
    ],
)
def test_task_is_inferred(write, values, task):
    path = write("x;y", *(f"{i};{value}" for i in range(12) for value in values))
    assert demo.read_table(path, "y").task == task


def test_task_can_be_given(write):
    path = write("x\ty", *(f"{i}\t{i % 3}" for i in range(30)))
    assert demo.read_table(path, "y", "regression").y[:3].tolist() == [0.0, 1.0, 2.0]
    assert demo.read_table(path, "y").y[:3].tolist() == ["0", "1", "2"]


def test_quotes_and_byte_order_mark(write):
    path = write('\ufeff"x, in m",y', *(f'"{i}",{i / 7}' for i in range(20)))
    assert demo.read_table(path, "y").X[:3].tolist() == [[0.0], [1.0], [2.0]]


def test_set_coverage_by_hand():
    classes = np.array(["a", "b", "c"])
    proba = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.92, 0.05, 0.03], [0.2, 0.2, 0.6]])
    # The sets of 90 %: {a, b}, {a, b}, {a}, all three.
    y = np.array(["b", "c", "b", "b"])
    assert demo.set_coverage(y, proba, classes, level=0.89) == 0.5


def test_missing_file(capsys, tmp_path):
    message = error_of(capsys, "--csv", tmp_path / "absent.csv", "--target", "y")
    assert "absent.csv" in message
    assert "No such file" in message


def test_unknown_column(capsys, houses):
    message = error_of(capsys, "--csv", houses, "--target", "cost")
    assert "no column 'cost'" in message
    assert "'district'" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--csv", "x.csv"], "belong together"),
        (["--target", "y"], "belong together"),
        (["--task", "regression"], "--task needs --csv"),
        (["--epochs", "0"], "expected at least 1"),
    ],
)
def test_arguments_that_do_not_go_together(capsys, arguments, expected):
    assert expected in error_of(capsys, *arguments)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([""], "is empty"),
        (["x,y"], "no rows"),
        (["x,x,y", "1,2,3"], "several columns of the names"),
        (["x,y", "1,2", "1"], "table.csv: the number of columns changed from 2 to 1 at row 3"),
        (["y", *["1.5"] * 20], "no column besides"),
        (["x,y", "inf,1.5", *["1,2.5"] * 20], "'inf' in row 1"),
        (["x,y", "1,1.5", "2,2.5"], "known in 2 rows; expected 20"),
        (["x,y", *["1,a"] * 20], "1 classes, expected at least two"),
    ],
)
def test_files_that_hold_no_table(write, lines, expected):
    with pytest.raises(ValueError, match=expected):
        demo.read_table(write(*lines), "y")


def test_text_is_no_target_of_regression(houses):
    with pytest.raises(ValueError, match="holds text"):
        demo.read_table(houses, "sold", "regression")


def test_file_in_another_encoding(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        demo.read_table(path, "y")


def test_no_picture_without_matplotlib(capsys, tmp_path, houses, monkeypatch):
    def draw(*args):
        raise ImportError("no matplotlib")

    monkeypatch.setattr(demo, "draw", draw)
    printed = run(capsys, tmp_path, "--csv", houses, "--target", "price")
    assert "No picture" in printed
    assert "pip install matplotlib" in printed
