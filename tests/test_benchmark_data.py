"""The readers of the benchmarks' tables and prices."""

import gzip

import numpy as np
import pytest

from benchmarks.data import load_split, load_stock_windows, load_uci_split, uci_splits

TABLES = {  # rows, features, from the tables' descriptions
    "bostonHousing": (506, 13),
    "concrete": (1030, 8),
    "energy": (768, 8),
    "kin8nm": (8192, 8),
    "naval-propulsion-plant": (11934, 16),
    "power-plant": (9568, 4),
    "wine-quality-red": (1599, 11),
    "yacht": (308, 6),
}


@pytest.mark.parametrize("table", TABLES)
def test_uci_tables_split_into_train_and_test(uci_root, table):
    n_rows, n_features = TABLES[table]
    assert uci_splits(uci_root / table) == 20
    X_train, X_test, y_train, y_test = split = load_uci_split(uci_root / table, 19)
    assert all(part.dtype == np.float64 and np.isfinite(part).all() for part in split)
    # The public splits hold out a tenth, rounded to a row.
    assert abs(len(X_test) - n_rows / 10) <= 1
    assert X_train.shape == (n_rows - len(X_test), n_features)
    assert X_test.shape == (len(y_test), n_features)
    assert y_train.shape == (len(X_train),)


def test_uci_columns_are_where_the_files_say(uci_root):
    # By hand: row 121, the first of this split's test rows, is line 122 of the file.
    assert (uci_root / "yacht" / "index_test_0.txt").read_text().split()[0] == "121"
    line = (uci_root / "yacht" / "data.txt").read_text().splitlines()[121]
    split = load_uci_split(uci_root / "yacht", 0)
    expected = [float(number) for number in line.split()]
    np.testing.assert_array_equal([*split.X_test[0], split.y_test[0]], expected)


@pytest.fixture
def tiny_folder(tmp_path):
    files = {
        "data.txt": "10 1 2\n20 3 4\n30 5 6\n40 7 8\n",
        "index_features.txt": "2\n1\n",
        "index_target.txt": "0\n",
        "index_train_0.txt": "3\n0\n",
        "index_test_0.txt": "1\n",
        "index_train_1.txt": "1.0e+00\n2.0e+00\n",
        "index_test_1.txt": "0\n3\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_uci_reader_on_a_table_written_by_hand(tiny_folder):
    assert uci_splits(tiny_folder) == 2
    split = load_uci_split(str(tiny_folder))
    np.testing.assert_array_equal(split.X_train, [[8, 7], [2, 1]])
    np.testing.assert_array_equal(split.y_train, [40, 10])
    np.testing.assert_array_equal(split.X_test, [[4, 3]])
    np.testing.assert_array_equal(split.y_test, [20])
    np.testing.assert_array_equal(load_uci_split(tiny_folder, 1).y_train, [20, 30])


@pytest.mark.parametrize("split", [-1, 2, "a"])
def test_uci_reader_names_the_splits_that_exist(tiny_folder, split):
    with pytest.raises(ValueError, match=f"split={split!r}.* has splits 0 to 1"):
        load_uci_split(tiny_folder, split)


@pytest.mark.parametrize(
    "name",
    [
        "data.txt",
        "index_features.txt",
        "index_target.txt",
        "index_train_0.txt",
        "index_test_0.txt",
    ],
)
def test_uci_reader_names_the_missing_file(tiny_folder, name):
    (tiny_folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no file {name} in "):
        load_uci_split(tiny_folder)


def test_uci_reader_names_the_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        uci_splits(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.txt", "1 2 3\n4 5\n", r"data.txt: .*columns"),
        ("data.txt", "1 2 three\n", r"data.txt: .*three"),
        ("index_train_0.txt", "0\n4\n", "names 4, and data.txt has rows 0 to 3"),
        ("index_train_0.txt", "0.5\n", "names 0.5, and data.txt has rows 0 to 3"),
        ("index_test_0.txt", "-1\n", "names -1, and data.txt has rows 0 to 3"),
        ("index_test_0.txt", "3\n", "split 0 has 1 rows in train and test, e.g. row 3"),
        ("index_features.txt", "3\n", "names 3, and data.txt has columns 0 to 2"),
        ("index_target.txt", "0\n1\n", "expected one column, found 2"),
    ],
)
def test_uci_reader_names_what_is_wrong(tiny_folder, name, text, message):
    (tiny_folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_uci_split(tiny_folder)


@pytest.mark.parametrize("ticker", ["GME", "GOOG", "NVDA", "RCL"])
def test_stock_windows_of_the_paper(stocks_root, ticker):
    X, y = load_stock_windows(stocks_root / f"{ticker}.csv")
    assert X.shape == (505 - 42 - 21 + 1, 42, 4)
    assert y.shape == (len(X),)
    opening, high, low, close = X.transpose(2, 0, 1)
    assert (high >= np.maximum(opening, close)).all()
    assert (low <= np.minimum(opening, close)).all()
    # The last close of window t + horizon is the target of window t.
    np.testing.assert_array_equal(y[:-21], X[21:, -1, 3])


PRICES = """Date,Volume,Open,High,Low,Close
2019-01-02,9,1,5,0,2
2019-01-03,9,2,6,1,3
2019-01-04,9,3,7,2,4
2019-01-07,9,4,8,3,5
"""


def test_a_table_of_either_layout_is_found_by_its_name(tmp_path, tiny_folder):
    (tmp_path / "tables").mkdir()
    with gzip.open(tmp_path / "tables" / "file.csv.gz", "wt") as lines:
        lines.writelines(f"{k},{2 * k}\n" for k in range(10))
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "folder").symlink_to(tiny_folder)
    X_train, X_test, y_train, _ = load_split(tmp_path, "file", 3)
    assert (len(X_train), len(X_test)) == (9, 1)
    assert (y_train == 2 * X_train[:, 0]).all()
    for found, expected in zip(
        load_split(tmp_path, "folder", 1), load_uci_split(tiny_folder, 1), strict=True
    ):
        assert (found == expected).all()


@pytest.fixture
def prices(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text(PRICES)
    return path


def test_stock_windows_of_a_file_written_by_hand(prices):
    X, y = load_stock_windows(str(prices), window=2, horizon=1)
    np.testing.assert_array_equal(X, [[[1, 5, 0, 2], [2, 6, 1, 3]], [[2, 6, 1, 3], [3, 7, 2, 4]]])
    np.testing.assert_array_equal(y, [4, 5])
    X, y = load_stock_windows(prices, window=1, horizon=3)
    np.testing.assert_array_equal(X, [[[1, 5, 0, 2]]])
    np.testing.assert_array_equal(y, [5])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Close", "Last", r"no column \['Close'\]"),
        ("Date", "Day", r"no column \['Date'\]"),
        ("8,3,5", "8,3,null", r"prices.csv: .*null"),
        ("2019-01-03", "3 Jan 2019", r"prices.csv: .*3 Jan 2019"),
        ("2019-01-03", "2019-01-01", "oldest day first, found 2019-01-01 after 2019-01-02"),
    ],
)
def test_stock_reader_names_what_is_wrong(prices, old, new, message):
    prices.write_text(PRICES.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_stock_windows(prices, window=2, horizon=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "has 4 days, and window=42 with horizon=21 needs at least 63"),
        ({"window": 0}, "window=0"),
        ({"horizon": 0}, "horizon=0"),
    ],
)
def test_stock_reader_names_the_bad_argument(prices, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_stock_windows(prices, **arguments)


def test_stock_reader_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file prices.csv in "):
        load_stock_windows(tmp_path / "prices.csv")
