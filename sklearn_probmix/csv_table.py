"""From a CSV file to columns of numbers, categories and dates, with a word on each.

It needs the standard library only, so that a file with a typo in it is refused at once.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "Column",
    "CsvTable",
    "column_names",
    "date_format",
    "number_options",
    "read_csv",
    "separated_thousands",
    "unit_of",
]

Cells = list[str | None]

_MISSING = {"", "?", "-", "na", "n/a", "#n/a", "nan", "null", "none"}
# Of these, what pandas takes as missing unasked.
_MISSING_IN_PANDAS = {"", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None"}
_WORDS = {".": "point", ",": "comma"}
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Lines by which the delimiter is found.
_SAMPLE = 100
# As the estimators have it: text of more different values, and of more than this share of the
# rows, is no category.
_FEW, _SHARE = 20, 0.5
# In fewer rows values may be unique by chance.
_ENOUGH_ROWS = 20
_DATES = {
    "%Y-%m-%d": "year-month-day",
    "%Y/%m/%d": "year/month/day",
    "%d.%m.%Y": "day.month.year",
    "%m/%d/%Y": "month/day/year",
    "%d/%m/%Y": "day/month/year",
    "%d-%m-%Y": "day-month-year",
    "%d-%b-%Y": "day-month-year",
}
_TIMES = "", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", "T%H:%M:%SZ"
_EPOCH = datetime(1970, 1, 1)
_PARTS = "days since 1970", "month", "weekday", "hour"
_THOUSANDS = {".": ",", ",": "."}
# By the sign of the decimals: the numbers that may be meant, with or without separated thousands.
_NUMBERS = {
    sign: re.compile(
        rf"[-+]?(?=\{sign}?\d)(\d+|[1-9]\d{{0,2}}(\{other}\d{{3}})+)?(\{sign}\d*)?(e[-+]?\d+)?",
        re.IGNORECASE,
    )
    for sign, other in _THOUSANDS.items()
}
# Numbers that may have such a sign between thousands, and nothing but such groups of digits.
_GROUPED = {
    sign: re.compile(rf"[-+]?([1-9]\d{{0,2}}(\{sign}\d{{3}})+|\d{{1,3}})(\{decimal}\d+)?")
    for decimal, sign in _THOUSANDS.items()
}
# A number beside a sign or a unit; letters before a number make a code of it.
_MEASURE = re.compile(r"([^\w.,+-]*)([-+]?\d[\d.,]*)([^\d.,]*)")
_BESIDE = "numbers beside {!r}: take it off in the file"
_GROUPS = re.compile(r"\d{1,3}(\.\d{1,3}){2,}")


class Column(NamedTuple):
    """A column that is learned from."""

    name: str
    values: Sequence[float | str | None]
    """Numbers, NaN where they are missing, or levels, None where they are."""
    is_category: bool
    date: str | None = None
    """The date of which these are the days."""


class CsvTable(NamedTuple):
    """What a file holds."""

    name: str
    layout: str
    """How it was read, in words."""
    options: dict[str, Any]
    """Arguments by which pandas.read_csv reads it alike."""
    columns: list[Column]
    treatments: dict[str, str]
    """What became of each column of the file but the target, in words."""
    target: str
    y: Sequence[Any]
    """Known responses: numbers for regression, labels for classification."""
    rows: list[int]
    """Rows of the file, from 0 below the header, whose response is known."""
    n_unknown: int
    """How many rows have no response, and are left out."""


def read_csv(
    path: str | Path,
    target: str,
    *,
    task: str | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> CsvTable:
    r"""Read a table with a header line, and say what became of each column.

    A cell is missing if it is empty, ``?``, ``-``, NA, NaN, null or none, or if it holds the one
    text of a column that otherwise has numbers, more than 20 different ones. A column is

    * dropped, if it is empty or constant, an identifier (another value in every row, as text or as
      integers with few gaps), or free text (more than 20 different values, and more than half as
      many as rows);
    * numbers, if all its cells are, with separated thousands or without;
    * a date, if all its cells are in one of the common notations: it becomes the days since 1970,
      the month, the day of the week and, with times, the hour;
    * otherwise a category.

    Parameters
    ----------
    path : str or Path
        UTF-8, or else latin-1.
    target : str
        Name of the column to predict.
    task : {"regression", "classification"} or None, default=None
        None means classification if the target is text or has two different values.
    delimiter, decimal : str or None, default=None
        What stands between cells, and before decimals; None detects it.

    Returns
    -------
    CsvTable

    Raises
    ------
    OSError, ValueError
        If there is no such file or column, or what the file holds is no table that can be learned
        from; the message says what was found and what is expected.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn_probmix.csv_table import read_csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "flats.csv")
    ...     lines = "area;town;rent", "50,5;Bern;1.200,00", "61;Basel;1.430,50", "70;Bern;999"
    ...     _ = path.write_text("\n".join(lines))
    ...     table = read_csv(path, "rent")
    >>> table.layout
    'semicolons between cells, decimal commas, points between thousands (1.200,00 = 1200.00), UTF-8'
    >>> table.y
    [1200.0, 1430.5, 999.0]
    >>> table.treatments
    {'area': 'number', 'town': 'category, 2 levels'}
    >>> table.options
    {'sep': ';', 'decimal': ',', 'thousands': '.'}
    """
    path = Path(path)
    text, encoding = _decode(path)
    delimiter = delimiter or _find_delimiter(text)
    header, texts = _split(path, text, delimiter)
    if target not in header:
        alike = difflib.get_close_matches(target, header, n=1)
        hint = f" Did you mean {alike[0]!r}?" if alike else ""
        if all(_NUMBERS["."].fullmatch(name) for name in header):
            hint = " The first line holds numbers; expected the names of the columns."
        raise ValueError(f"{path} has no column {target!r}; expected one of {header}.{hint}")
    if len(header) == 1:
        raise ValueError(f"{path} has no column besides {target!r}; expected at least one.")
    decimal = decimal or _find_decimal(texts, delimiter)
    marks = {name: _missing_marks(cells, decimal) for name, cells in texts.items()}
    columns: dict[str, Cells] = {
        name: [None if cell in marks[name] else cell for cell in cells]
        for name, cells in texts.items()
    }
    numbers = [
        cell
        for cells in columns.values()
        if _to_numbers(cells, decimal) is not None
        for cell in _given(cells)
    ]
    options = {
        "sep": delimiter if delimiter != "," else None,
        **_number_signs(numbers, decimal),
        "encoding": encoding if encoding != "UTF-8" else None,
        "na_values": sorted(set().union(*marks.values()) - _MISSING_IN_PANDAS),
        **_date_options(columns),
    }
    y, rows = _response(target, columns.pop(target), task, decimal)
    n_unknown = len(texts[target]) - len(rows)
    kept: list[Column] = []
    treatments = {}
    for name, cells in columns.items():
        made, treatments[name] = _treat(name, [cells[row] for row in rows], decimal)
        kept += made
    if not kept:
        raise ValueError(f"{path}: no column is left to learn from: {treatments}.")
    between = _DELIMITERS.get(delimiter, repr(delimiter))
    layout = f"{between} between cells, {_describe_signs(numbers, decimal, delimiter)}, {encoding}"
    options = {name: value for name, value in options.items() if value}
    return CsvTable(path.stem, layout, options, kept, treatments, target, y, rows, n_unknown)


def column_names(path: str | Path, delimiter: str | None = None) -> list[str]:
    """Read the header of a file; the errors are those of :func:`read_csv`.

    Parameters
    ----------
    path : str or Path
    delimiter : str or None, default=None
    """
    text, _ = _decode(Path(path))
    return _split(Path(path), text, delimiter or _find_delimiter(text))[0]


def _decode(path: Path) -> tuple[str, str]:
    # An error names the whole path.
    content = path.absolute().read_bytes()
    try:
        text, encoding = content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        text, encoding = content.decode("latin-1"), "latin-1"
    if not text.strip("\0 \t\r\n"):
        raise ValueError(f"{path} is empty; expected a line of column names, and rows.")
    if "\0" in text:
        raise ValueError(f"{path} is no text, or in UTF-16; expected a CSV file in UTF-8.")
    return text, encoding


def _find_delimiter(text: str) -> str:
    """Find what cuts the first lines into equally many cells, and into the most of them."""
    lines = list(islice(_lines(text), _SAMPLE))

    def quality(delimiter: str) -> tuple[float, int]:
        try:
            counts = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        except csv.Error:
            # `_split` says in which line.
            return 0.0, 0
        n_cells, n_lines = counts.most_common(1)[0]
        return (n_lines / counts.total() if n_cells > 1 else 0.0), n_cells

    return max(_DELIMITERS, key=quality)


def _lines(text: str) -> io.StringIO:
    """Lines as csv and pandas see them; those of `str.splitlines` end at other signs too."""
    return io.StringIO(text, newline="")


def _split(path: Path, text: str, delimiter: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the names of the columns, and the cells of each."""
    reader = csv.reader(_lines(text), delimiter=delimiter)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: {error}; expected a quote at its end for each at the "
            "beginning of a cell, and shorter cells."
        ) from error
    header = [name.strip() for name in lines[0][1]]
    repeated = sorted(name for name, n in Counter(header).items() if n > 1)
    if repeated:
        raise ValueError(f"{path} has several columns of the names {repeated}.")
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {line}, has {len(cells)} cells; expected {len(header)}, "
                f"one for each column, between {delimiter!r} (--delimiter names another)."
            )
        rows.append([cell.strip() for cell in cells])
    if not rows:
        raise ValueError(f"{path} has a header but no rows.")
    return header, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def _find_decimal(columns: dict[str, list[str]], delimiter: str) -> str:
    """Find the sign before decimals, by the columns that are numbers with one sign only.

    Where none tells, as 1.234, the one sign there is stands before decimals, unless it is a comma
    that also stands between cells. Groups of digits in every cell, as 192.168.1.2, may be codes:
    they decide where nothing else does.
    """
    votes: dict[str, Counter[str]] = {"sure": Counter(), "sign": Counter(), "groups": Counter()}
    for column in columns.values():
        cells = [cell for cell in column[:_SAMPLE] if cell.lower() not in _MISSING]
        numbers = {
            sign: [cell for cell in cells if number.fullmatch(cell)]
            for sign, number in _NUMBERS.items()
        }
        sure = {sign: set(own) - set(numbers[_THOUSANDS[sign]]) for sign, own in numbers.items()}
        if delimiter == ",":
            sure[","] = {cell for cell in sure[","] if "," in cell}
        n_sure = {sign: sum(cell in sure[sign] for cell in own) for sign, own in numbers.items()}
        is_code = all(map(_GROUPS.fullmatch, cells))
        for sign, own in numbers.items():
            votes["sign"][sign] += sign != delimiter and any(sign in cell for cell in own)
            if n_sure[sign] > n_sure[_THOUSANDS[sign]]:
                votes["groups" if is_code else "sure"][sign] += 1

    def evidence(sign: str) -> list[int]:
        return [by_sign[sign] for by_sign in votes.values()]

    return "," if evidence(",") > evidence(".") else "."


def _missing_marks(cells: Sequence[str], decimal: str) -> set[str]:
    """Find what is written in a column where there is no value."""
    levels = set(cells)
    marks = {level for level in levels if level.lower() in _MISSING}
    return marks | (_words_among_numbers(levels - marks, decimal) or set())


def _words_among_numbers(levels: set[str], decimal: str, few: int = _FEW) -> set[str] | None:
    """Return the one text or none among many numbers; None if there are more, or few numbers."""
    words = {level for level in levels if not _NUMBERS[decimal].fullmatch(level)}
    return words if len(words) < 2 and len(levels - words) > few else None


def number_options(levels: set[str], few: int = _FEW) -> dict[str, Any] | None:
    """Find arguments by which pandas.read_csv would have read text as numbers.

    Parameters
    ----------
    levels : set of str
        The different values of a column, of which none is missing.
    few : int, default=20
        So many numbers may be there by chance.

    Returns
    -------
    dict or None
        None if there are few numbers, or texts of more than one sort among them.

    Examples
    --------
    >>> from sklearn_probmix.csv_table import number_options
    >>> number_options({f"{n},5" for n in range(1000, 1030)} | {"unknown"})
    {'na_values': ['unknown'], 'decimal': ','}
    """
    found = {decimal: _words_among_numbers(levels, decimal, few) for decimal in _NUMBERS}
    readings = [(words, decimal) for decimal, words in found.items() if words is not None]
    if not readings:
        return None
    words, decimal = min(readings, key=lambda reading: len(reading[0]))
    na_values = {"na_values": sorted(words)} if words else {}
    return na_values | _number_signs(levels - words, decimal)


def unit_of(levels: set[str], few: int = _FEW) -> str | None:
    """Find the one sign or unit that stands beside the number in every text; None if none does.

    Parameters
    ----------
    levels : set of str
        The different values of a column, of which none is missing.
    few : int, default=20
        So many numbers may be there by chance.

    Returns
    -------
    str or None
        What ``str.strip`` takes off.

    Examples
    --------
    >>> from sklearn_probmix.csv_table import unit_of
    >>> unit_of({f"{n},50 €" for n in range(30)})
    ' €'
    >>> unit_of({f"H-{n}" for n in range(30)})
    """
    if len(levels) <= few:
        return None
    found = [match for level in levels if (match := _MEASURE.fullmatch(level))]
    units = {(match[1], match[3]) for match in found}
    if len(found) < len(levels) or len(units) != 1:
        return None
    numbers = [match[2] for match in found]
    is_number = any(all(map(number.fullmatch, numbers)) for number in _NUMBERS.values())
    return ("".join(*units) or None) if is_number else None


def separated_thousands(numbers: Iterable[str], sign: str = ".") -> tuple[str, str] | None:
    """Find a number with a sign between thousands; None where one cannot be meant so, as 0.5.

    Parameters
    ----------
    numbers : iterable of str
    sign : {".", ","}, default="."

    Returns
    -------
    tuple of str or None
        The number as it is written, and as Python writes it.

    Examples
    --------
    >>> from sklearn_probmix.csv_table import separated_thousands
    >>> separated_thousands(["87", "1.234"])
    ('1.234', '1234')
    >>> separated_thousands(["87", "1.234", "0.500"])
    >>> separated_thousands(["1,000"], ",")
    ('1,000', '1000')
    """
    numbers = list(numbers)
    if not all(map(_GROUPED[sign].fullmatch, numbers)):
        return None
    return next(
        ((number, _plain(number, _THOUSANDS[sign])) for number in numbers if sign in number), None
    )


def _number_signs(numbers: Iterable[str], decimal: str) -> dict[str, Any]:
    thousands = _THOUSANDS[decimal]
    options = {"decimal": decimal} if decimal != "." else {}
    return options | ({"thousands": thousands} if any(thousands in n for n in numbers) else {})


def _describe_signs(numbers: Iterable[str], decimal: str, delimiter: str) -> str:
    """Say what stands before decimals and between thousands, by an example."""
    thousands, words = _THOUSANDS[decimal], f"decimal {_WORDS[decimal]}s"
    if example := next((cell for cell in numbers if thousands in cell), None):
        meant = _plain(example, decimal)
        return f"{words}, {_WORDS[thousands]}s between thousands ({example} = {meant})"
    grouped = separated_thousands((cell for cell in numbers if decimal in cell), decimal)
    if delimiter != "," and grouped:
        words += f" ({grouped[0]} is {grouped[1]} by --decimal {_WORDS[thousands]})"
    return words


def _date_options(columns: dict[str, Cells]) -> dict[str, Any]:
    """Arguments by which pandas.read_csv reads dates."""
    given = {name: _given(cells) for name, cells in columns.items()}
    formats = {name: date_format(cells) for name, cells in given.items() if cells}
    dates = {name: found for name, found in formats.items() if found}
    return {"parse_dates": list(dates), "date_format": dates}


def _given(cells: Sequence[str | None]) -> list[str]:
    return [cell for cell in cells if cell is not None]


def _to_numbers(cells: Sequence[str | None], decimal: str) -> list[float] | None:
    """Return floats, NaN where a cell is missing, or None if some are no numbers."""
    if not all(_NUMBERS[decimal].fullmatch(cell) for cell in _given(cells)):
        return None
    return [math.nan if cell is None else float(_plain(cell, decimal)) for cell in cells]


def _plain(number: str, decimal: str) -> str:
    """Return a number as Python writes it."""
    return number.replace(_THOUSANDS[decimal], "").replace(decimal, ".")


def _response(
    name: str, cells: Cells, task: str | None, decimal: str
) -> tuple[Sequence[Any], list[int]]:
    """Return the known responses, and their rows."""
    rows = [row for row, cell in enumerate(cells) if cell is not None]
    labels = _given(cells)
    if not labels:
        raise ValueError(f"Column {name!r}, to be predicted, is empty; expected known values.")
    numbers = _to_numbers(labels, decimal)
    if task != "classification" and (unit := unit_of(set(labels))):
        raise ValueError(f"Column {name!r} holds {_BESIDE.format(unit)}.")
    if task is None:
        is_class = numbers is None or len(set(labels)) <= 2
        task = "classification" if is_class else "regression"
    if task == "classification":
        return labels, rows
    if numbers is None:
        raise ValueError(f"Column {name!r} holds text; expected numbers for regression.")
    return numbers, rows


def _treat(name: str, cells: Cells, decimal: str) -> tuple[list[Column], str]:
    """Return what is learned of a column, and what became of it in words."""
    given = _given(cells)
    levels = set(given)
    n_missing = len(cells) - len(given)
    missing = f", {n_missing} missing" if n_missing else ""
    if len(levels) < 2 and not (levels and n_missing):
        return [], f"dropped: {'the same value in every row' if given else 'empty'}"
    numbers = _to_numbers(cells, decimal)
    is_unique = len(levels) == len(cells) >= _ENOUGH_ROWS
    if numbers is not None:
        if is_unique and _are_dense(numbers):
            return [], "dropped: looks like an identifier, another number in every row"
        return [Column(name, numbers, False)], f"number{missing}"
    dates = _to_dates(cells)
    if dates is not None:
        parts, notation = dates
        made = [
            Column(f"{name}, {part}", values, False, name if part == _PARTS[0] else None)
            for part, values in parts.items()
        ]
        return made, f"date ({notation}) -> {', '.join(parts)}{missing}"
    unit = unit_of(levels)
    if is_unique and not unit:
        return [], "dropped: looks like an identifier or free text, another text in every row"
    if len(levels) > max(_FEW, _SHARE * len(given)):
        text = f"free text of {len(levels)} values (skrub's StringEncoder encodes it)"
        return [], f"dropped: {_BESIDE.format(unit) if unit else text}"
    beside = f" ({_BESIDE.format(unit)})" if unit else ""
    return [Column(name, cells, True)], f"category, {len(levels)} levels{missing}{beside}"


def _are_dense(numbers: Sequence[float]) -> bool:
    """Whether these are integers so close together that they would not all differ by chance."""
    span = max(numbers) - min(numbers) + 1
    is_dense = len(numbers) ** 2 >= _ENOUGH_ROWS * span
    return is_dense and all(number.is_integer() for number in numbers)


def date_format(texts: Iterable[str]) -> str | None:
    """Find the one notation of all of these dates; None if they are no dates.

    Parameters
    ----------
    texts : iterable of str

    Examples
    --------
    >>> from sklearn_probmix.csv_table import date_format
    >>> date_format(["31.12.1970", "01.01.1971"])
    '%d.%m.%Y'
    """
    texts = list(texts)
    for notation in (day + time for day in _DATES for time in _TIMES):
        try:
            for text in texts:
                datetime.strptime(text, notation)
        except ValueError:
            continue
        return notation
    return None


def _to_dates(cells: Sequence[str | None]) -> tuple[dict[str, list[float]], str] | None:
    """Return the parts of dates that vary, and their notation; None if these are no dates."""
    notation = date_format(_given(cells))
    if notation is None:
        return None
    rows = [None if cell is None else _parts(cell, notation) for cell in cells]
    parts = {
        part: [math.nan if row is None else row[place] for row in rows]
        for place, part in enumerate(_PARTS)
    }
    varying = {
        part: values
        for part, values in parts.items()
        if len({value for value in values if value == value}) > 1
    }
    return varying, next(words for day, words in _DATES.items() if notation.startswith(day))


def _parts(cell: str, notation: str) -> tuple[float, ...]:
    date = datetime.strptime(cell, notation)
    days = (date - _EPOCH).total_seconds() / 86400
    return days, float(date.month), float(date.weekday()), date.hour + date.minute / 60
