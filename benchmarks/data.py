"""Readers of the tables and prices that the benchmarks run on.

X is (n_samples, n_features), or (n_windows, window, 4) for prices, y is (n_samples,), all float64.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

__all__ = [
    "UCISplit",
    "load_frame",
    "load_stock_windows",
    "load_table",
    "load_uci_split",
    "uci_splits",
]

_OHLC = ("Open", "High", "Low", "Close")


class UCISplit(NamedTuple):
    """One train/test split of a table, unpacked in the order of `train_test_split`.

    Attributes
    ----------
    X_train : ndarray of shape (n_train, n_features)
    X_test : ndarray of shape (n_test, n_features)
    y_train : ndarray of shape (n_train,)
    y_test : ndarray of shape (n_test,)
        All float64, in the units of the table.
    """

    X_train: np.ndarray
    X_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


def uci_splits(folder):
    """Return the number of splits in a folder of the UCI layout.

    Parameters
    ----------
    folder : str or path-like
        See `load_uci_split`.

    Returns
    -------
    n_splits : int
        Splits 0, ..., n_splits - 1 can be given to `load_uci_split`.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it has no split 0.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["index_train_0.txt", "index_test_0.txt"]:
    ...         Path(folder, name).touch()
    ...     uci_splits(folder)
    1
    """
    folder = Path(folder)
    n_splits = 0
    while all((folder / name).is_file() for name in _index_names(n_splits)):
        n_splits += 1
    if n_splits == 0:
        # Says which of the two files is missing.
        for name in _index_names(0):
            _existing(folder, name)
    return n_splits


def load_uci_split(folder, split=0):
    r"""Read one train/test split of a table in the layout of the UCI regression benchmarks.

    Parameters
    ----------
    folder : str or path-like
        Holds ``data.txt`` (a row per line, columns separated by spaces), ``index_features.txt``
        and ``index_target.txt`` (column numbers), and for each split k ``index_train_k.txt`` and
        ``index_test_k.txt`` (row numbers). All numbers count from 0.
    split : int, default=0
        From 0 to ``uci_splits(folder) - 1``.

    Returns
    -------
    UCISplit
        ``X_train, X_test, y_train, y_test``, float64, in the units of the table, rows in the order
        of the index files.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If `split` is not one of the folder's, a file does not hold numbers, an index points outside
        the table, there is more than one target, or a row is in both parts.

    Examples
    --------
    >>> import tempfile
    >>> files = {"data.txt": "1 2 10\n3 4 20\n5 6 30", "index_features.txt": "0\n1",
    ...          "index_target.txt": "2", "index_train_0.txt": "2\n0", "index_test_0.txt": "1"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, text in files.items():
    ...         _ = Path(folder, name).write_text(text)
    ...     X_train, X_test, y_train, y_test = load_uci_split(folder, 0)
    >>> X_train, y_test
    (array([[5., 6.], [1., 2.]]), array([20.]))
    """
    folder = Path(folder)
    n_splits = uci_splits(folder)
    if split not in range(n_splits):
        raise ValueError(f"split={split!r}: {folder} has splits 0 to {n_splits - 1}")
    data = _numbers(_existing(folder, "data.txt"), ndmin=2)
    n_rows, n_columns = data.shape

    features = _indices(folder, "index_features.txt", n_columns, "columns")
    target = _indices(folder, "index_target.txt", n_columns, "columns")
    if len(target) != 1:
        raise ValueError(f"{folder / 'index_target.txt'}: expected one column, found {len(target)}")
    train, test = (_indices(folder, name, n_rows, "rows") for name in _index_names(split))
    both = np.intersect1d(train, test)
    if len(both):
        raise ValueError(
            f"{folder}: split {split} has {len(both)} rows in train and test, e.g. row {both[0]}"
        )
    X, y = data[:, features], data[:, target[0]]
    return UCISplit(X[train], X[test], y[train], y[test])


def load_table(path, split):
    """Read one split of a gzipped table without header, the target last.

    Columns of text become one column for each of their values. The target may be text too.

    Parameters
    ----------
    path : str or path-like
        Of a file such as ``abalone.csv.gz``.
    split : int
        Seed of the tenth of the rows that are the test part.

    Returns
    -------
    UCISplit

    Examples
    --------
    >>> import gzip, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv.gz")
    ...     _ = path.write_bytes(gzip.compress(b"M,1.5,7\\nF,2.5,8\\nM,0.5,9\\n"))
    ...     load_table(path, 0).X_train.shape
    (2, 3)
    """
    with gzip.open(path, "rt") as lines:
        rows = [line.rstrip("\n").split(",") for line in lines if line.strip()]
    columns = list(zip(*rows, strict=True))
    X = np.hstack([_as_numbers(column) for column in columns[:-1]])
    try:
        y = np.array(columns[-1], dtype=float)
    except ValueError:
        y = np.array(columns[-1])
    return UCISplit(*train_test_split(X, y, test_size=0.1, random_state=split))


def load_split(root, name, split):
    """Read one split of a table of either layout, found below ``uci`` or ``tables`` by its name.

    Parameters
    ----------
    root : str or path-like
        Folder of the data.
    name : str
    split : int

    Returns
    -------
    UCISplit
    """
    file = Path(root, "tables", f"{name}.csv.gz")
    return (
        load_table(file, split) if file.exists() else load_uci_split(Path(root, "uci", name), split)
    )


def load_frame(path):
    """Read a table without header as it is, the target last; "?" is missing.

    Parameters
    ----------
    path : str or path-like
        Of a file such as ``auto_imports.csv.gz``.

    Returns
    -------
    X : pandas.DataFrame
    y : ndarray of shape (n_samples,)
    """
    import pandas as pd

    frame = pd.read_csv(path, header=None, na_values="?")
    frame = frame.rename(columns=lambda place: f"column {place}")
    return frame.iloc[:, :-1], frame.iloc[:, -1].to_numpy()


def _as_numbers(column):
    try:
        return np.array(column, dtype=float)[:, None]
    except ValueError:
        return np.array(
            [[value == each for each in sorted(set(column))] for value in column], float
        )


def load_stock_windows(path, *, window=42, horizon=21):
    r"""Read daily prices as windows of the past and the close to predict from each.

    Window t holds open, high, low and close of days t, ..., t + window - 1; its target is the close
    of day t + window - 1 + horizon. Days are rows of the file, that is trading days. Windows
    overlap: split them by time, not at random.

    Parameters
    ----------
    path : str or path-like
        A CSV file, oldest day first, whose header names Date (ISO, as in 2019-01-02), Open, High,
        Low and Close; further columns are ignored.
    window : int, default=42
        Days in a window, at least 1.
    horizon : int, default=21
        Days from the end of a window to its target, at least 1.

    Returns
    -------
    X : ndarray of shape (n_windows, window, 4)
        In the order open, high, low, close and the units of the file;
        n_windows = n_days - window - horizon + 1.
    y : ndarray of shape (n_windows,)

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a column is missing, a price is not a number, the days do not ascend, they are fewer than
        window + horizon, or `window` or `horizon` is below 1.

    Examples
    --------
    >>> import tempfile
    >>> rows = ["Date,Open,High,Low,Close", "2019-01-02,1,4,1,2", "2019-01-03,2,5,1,3",
    ...         "2019-01-04,3,6,2,5"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "prices.csv")
    ...     _ = path.write_text("\n".join(rows))
    ...     X, y = load_stock_windows(path, window=2, horizon=1)
    >>> X.shape, y
    ((1, 2, 4), array([5.]))
    """
    for name, value in {"window": window, "horizon": horizon}.items():
        if value < 1:
            raise ValueError(f"{name}={value!r}: expected at least 1 day")
    path = _existing(Path(path).parent, Path(path).name)
    with path.open() as file:
        header = file.readline().strip().split(",")
    missing = {"Date", *_OHLC}.difference(header)
    if missing:
        raise ValueError(f"{path}: no column {sorted(missing)} among {header}")

    csv = {"delimiter": ",", "skiprows": 1}
    prices = _numbers(path, ndmin=2, usecols=[header.index(name) for name in _OHLC], **csv)
    days = _numbers(path, ndmin=1, usecols=header.index("Date"), dtype="datetime64[D]", **csv)
    backwards = np.flatnonzero(np.diff(days) <= np.timedelta64(0, "D"))
    if len(backwards):
        first, second = days[backwards[0] : backwards[0] + 2]
        raise ValueError(f"{path}: expected the oldest day first, found {second} after {first}")
    n_windows = len(prices) - window - horizon + 1
    if n_windows < 1:
        raise ValueError(
            f"{path} has {len(prices)} days, and window={window} with horizon={horizon} needs at "
            f"least {window + horizon}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(prices, window, axis=0)[:n_windows]
    close = prices[:, _OHLC.index("Close")]
    return np.ascontiguousarray(windows.transpose(0, 2, 1)), close[window - 1 + horizon :].copy()


def _index_names(split):
    return f"index_train_{split}.txt", f"index_test_{split}.txt"


def _existing(folder, name):
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} to read {name} from")
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"no file {name} in {folder}")
    return path


def _numbers(path, *, dtype=np.float64, **layout):
    try:
        return np.loadtxt(path, dtype=dtype, **layout)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _indices(folder, name, end, what):
    path = _existing(folder, name)
    # Some published copies of these tables write the indices as 1.0e+01.
    values = _numbers(path, ndmin=1)
    indices = values.astype(np.intp)
    outside = (indices != values) | (indices < 0) | (indices >= end)
    if outside.any():
        raise ValueError(
            f"{path} names {values[outside][0]:g}, and data.txt has {what} 0 to {end - 1}"
        )
    return indices
