"""Columns of categories and of missing values, and the numbers that networks see in their place."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NoReturn, Self

import narwhals
import numpy as np
from numpy.typing import NDArray

from sklearn_probmix.csv_table import date_format, number_options, separated_thousands, unit_of
from sklearn_probmix.warn import warn

__all__ = [
    "ENCODE_DATES",
    "ColumnEncoder",
    "as_numbers",
    "declare",
    "is_missing",
    "read_array",
    "read_frame",
]

# What one element may be; booleans of Python are integers.
_NUMBERS = (Real, Decimal, np.bool_)
# Levels that have a column of their own, and columns that all others share.
_MOST_LEVELS, _N_SIGNS = 64, 16
# What a column of the matrix shows of a column of X, where it is not a level, by its code.
_NUMBER, _MISSING, _SIGNS = -1, -2, -3
_UNSEEN = -1.0
# Text of more different values, and of more than this share of the rows, is no category.
_FEW, _SHARE = 20, 0.5
# Fewer rows, or unique integers that are not consecutive, may be unique by chance.
_ENOUGH_ROWS = 20
# Columns that one error speaks of.
_MOST_REFUSED = 5
ENCODE_DATES = "Encode them first, as tabular_pipeline and DatetimeEncoder of skrub do."
_ENCODE_TEXT = "Encode it first, as tabular_pipeline and StringEncoder of skrub do."
_ENCODE = "Encode them first, as tabular_pipeline of skrub does."
_IN_ARRAY = (
    "Pass categories as columns of a data frame, or name them in categorical_features; "
    "set_output(transform='pandas') has transformers make one."
)
_NOT_NAMED = "It is not among categorical_features, which names all: name it too, if it is one."


class ColumnEncoder:
    """Turn levels and missing values into numbers, as a fit learned to.

    A column of X becomes, in this order:

    * numbers: itself, with its missing values as NaN (which become its mean); and, if there were
      missing values in the fit, a column that is 1 where they are;
    * levels: a column for each level, 1 where it is; and one for missing values as above. Where
      there are more than 64 levels, the most frequent 64 have columns, and the others share 16, in
      which each has signs of its own. A level that was not there in the fit is 0 in all of them,
      and counts as the only one where there was one;
    * none, if it had no values.

    Parameters
    ----------
    levels : list of None or list of str
        For each column of X its sorted levels, or None if it holds numbers.
    source, shows : array-likes of int of shape (n_encoded,), default=()
        For each column of the matrix the position of its column in X, and what it shows of it:
        the code of a level, or -1 for numbers, -2 for missing values, -3 and less for signs.

    Examples
    --------
    >>> import numpy as np
    >>> encoder = ColumnEncoder([None, ["a", "b"]])
    >>> X = np.array([[1.5, 0.0], [np.nan, 1.0]])
    >>> encoder.fit(X).encode(X)
    array([[1.5, 0. , 1. , 0. ],
           [nan, 1. , 0. , 1. ]])
    """

    def __init__(
        self,
        levels: Sequence[list[str] | None],
        source: Iterable[int] = (),
        shows: Iterable[int] = (),
    ):
        self.levels = list(levels)
        self.source = np.array(list(source), dtype=np.int64)
        self.shows = np.array(list(shows), dtype=np.int64)
        self._codes = [
            None if own is None else {level: code for code, level in enumerate(own)}
            for own in self.levels
        ]

    def fit(self, X: NDArray[np.float64]) -> Self:
        """Choose what is shown of each column, from rows with levels as their codes."""
        pairs: list[tuple[int, int]] = []
        for column, (own, values) in enumerate(zip(self.levels, X.T, strict=True)):
            is_given = ~np.isnan(values)
            if not is_given.any():
                continue
            shows = [_NUMBER] if own is None else _shown_levels(values[is_given].astype(np.int64))
            shows += [] if is_given.all() else [_MISSING]
            pairs += [(column, what) for what in shows]
        self.source, self.shows = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return self

    @property
    def is_number(self) -> NDArray[np.bool_]:
        """Which columns of the matrix are to be standardised, shape (n_encoded,)."""
        return self.shows == _NUMBER

    @property
    def has_levels(self) -> bool:
        """Whether there are columns of categories."""
        return any(own is not None for own in self.levels)

    @property
    def is_plain(self) -> bool:
        """Whether the matrix is X itself."""
        return bool(self.is_number.all()) and len(self.source) == len(self.levels)

    def has_values(self, column: int) -> bool:
        """Whether a column of X had values in the fit."""
        return column in self.source

    def shares(self, column: int) -> bool:
        """Whether a column of X has so many levels that some share columns of the matrix."""
        return bool((self.shows[self.source == column] <= _SIGNS).any())

    def declare(self, column: int, rest: bool | None) -> bool | None:
        """Whether to read a column as levels: as in the fit, or `rest` where it had none."""
        return rest if self.levels[column] is None else True

    def check_kind(self, column: int, where: str, is_empty: bool) -> None:
        """Refuse a column of numbers where the levels of the fit were no numbers."""
        own = self.levels[column]
        if own is not None and not is_empty and not all(map(_is_level_of_numbers, own)):
            raise ValueError(
                f"{where}, holds numbers; expected categories or text, as in the fit, such as "
                f"{own[0]!r}."
            )

    def code(self, column: int, levels: Iterable[str | None]) -> NDArray[np.float64]:
        """Codes of the levels of a column: NaN for missing ones, -1 for those not in the fit."""
        codes = self._codes[column]
        assert codes is not None
        return np.array(
            [np.nan if level is None else codes.get(level, _UNSEEN) for level in levels],
            dtype=np.float64,
        )

    def encode(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn rows with levels as their codes, (n, n_features), into the matrix (n, n_encoded)."""
        made = X[:, self.source]
        is_level, is_sign = self.shows >= 0, self.shows <= _SIGNS
        missing = self.shows == _MISSING
        made[:, missing] = np.isnan(made[:, missing])
        made[:, is_level] = made[:, is_level] == self.shows[is_level]
        # A level alone is a constant, which says nothing of others.
        n_shown = np.bincount(self.source[is_level | is_sign], minlength=len(self.levels))
        alone = is_level & (n_shown[self.source] == 1)
        is_marked = np.isin(self.source[alone], self.source[missing])
        made[:, alone] = ~(is_marked & np.isnan(X[:, self.source[alone]]))
        for column in np.unique(self.source[is_sign]):
            own = self.source == column
            shown = self.shows[own & is_level]
            made[:, own & is_sign] = _signs(X[:, column], shown)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `from_dict` makes an equal encoder."""
        return {"levels": self.levels, "source": self.source, "shows": self.shows}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make an encoder of what `to_dict` returned; a ValueError if it is not that."""
        levels, source, shows = data["levels"], data["source"], data["shows"]
        if not (
            data.keys() == {"levels", "source", "shows"}
            and type(levels) is list
            and all(own is None or _are_levels(own) for own in levels)
            and all(type(part) is np.ndarray and part.dtype == np.int64 for part in (source, shows))
            and source.ndim == 1
            and source.shape == shows.shape
            and len(source) > 0
            and all(0 <= column < len(levels) for column in source)
            and all(
                _is_shown(what, levels[column]) for column, what in zip(source, shows, strict=True)
            )
        ):
            raise ValueError("columns: found others; expected levels and what is shown of them.")
        return cls(levels, source, shows)


def _are_levels(own):
    texts = type(own) is list and all(type(level) is str for level in own)
    return texts and own == sorted(set(own))


def _is_shown(what, own):
    low = _SIGNS - _N_SIGNS
    return what in (_NUMBER, _MISSING) if own is None else low < what < len(own) and what != _NUMBER


def _shown_levels(codes):
    """Codes of levels that get columns, and what stands for the shared ones of the others."""
    present, counts = np.unique(codes, return_counts=True)
    if len(present) <= _MOST_LEVELS:
        return present.tolist()
    frequent = present[np.argsort(-counts, kind="stable")[:_MOST_LEVELS]]
    return [*np.sort(frequent).tolist(), *(_SIGNS - bit for bit in range(_N_SIGNS))]


def _signs(codes, shown):
    """Signs of each code, of square sum 1; zeros for those shown, unseen or missing."""
    is_other = (codes >= 0) & ~np.isin(codes, shown)
    # The finaliser of splitmix64: neighbouring codes get unlike bits.
    bits = np.where(is_other, codes, 0).astype(np.uint64) + np.uint64(1)
    bits = bits * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    each = (bits[:, None] >> np.arange(_N_SIGNS, dtype=np.uint64)) & np.uint64(1)
    signs = 2 * each.astype(np.float64) - 1
    return signs / np.sqrt(_N_SIGNS) * is_other[:, None]


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas.NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # of pandas.NA
        return True
    except ValueError:  # of an array
        return False


def declare(asked: Any, names: Sequence[Any] | None, n_features: int) -> list[bool | None]:
    """Find which columns are to be read as categories, by `categorical_features`.

    Parameters
    ----------
    asked : "from_dtype", None, or array-like of bool, int or str
    names : list or None
        Of the columns, if they have any.
    n_features : int

    Returns
    -------
    list of bool or None
        None where the dtype of the column decides.

    Raises
    ------
    ValueError
        If there are no such columns.
    """
    if asked is None:
        return [False] * n_features
    if isinstance(asked, str):
        return [None] * n_features
    found = f"categorical_features={asked!r}"
    given = np.asarray(asked)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "biuUO"):
        raise ValueError(f"{found}; expected a list of booleans, of integers or of names.")
    if given.dtype.kind == "b":
        if len(given) != n_features:
            raise ValueError(f"{found}; expected a boolean for each of {n_features} columns.")
        return given.tolist()
    wanted = given.tolist()
    known = list(range(n_features))
    odd = [each for each in wanted if not isinstance(each, str | Integral)]
    if odd:
        raise ValueError(f"{found} holds {odd!r}; expected names or positions.")
    if any(isinstance(each, str) for each in wanted):
        if names is None:
            raise ValueError(f"{found} with X that has no names; expected a data frame.")
        known = list(names)
    else:
        wanted = [each + n_features if each < 0 else each for each in wanted]
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise ValueError(f"{found} names {unknown!r}; expected some of the {n_features} columns.")
    return [each in wanted for each in known]


def read_frame(
    frame: narwhals.DataFrame[Any],
    declared: Sequence[bool | None],
    name: str,
    encoder: ColumnEncoder | None,
    reset: bool,
) -> tuple[NDArray[np.float64], ColumnEncoder]:
    """Turn a frame into numbers, NaN where they are missing, with levels as their codes.

    Parameters
    ----------
    frame : narwhals.DataFrame
    declared : list of bool or None
        For each column whether its values are levels, None if its dtype says so.
    name : str
        What errors call the frame.
    encoder : ColumnEncoder or None
        Of the fit; None if it saw plain numbers only.
    reset : bool
        Whether this is the fit, which learns the levels.

    Returns
    -------
    X : ndarray of shape (n, n_features)
    encoder : ColumnEncoder
        That of the fit; new, and not fitted, with ``reset=True``.
    """
    dtypes = list(frame.schema.values())
    are_numbers = [
        place
        for place, dtype in enumerate(dtypes)
        if declared[place] is not True and _is_number(dtype)
    ]
    read = dict(zip(are_numbers, _bulk(frame, are_numbers), strict=True))
    columns: list[Any] = []
    refused: list[str] = []
    for place, series in enumerate(frame.iter_columns()):
        if encoder is not None and not encoder.has_values(place):
            columns.append(np.full(len(frame), np.nan))
            continue
        where = f"column {frame.columns[place]!r} of {name}, of type {dtypes[place]}"
        try:
            if place not in read:
                if encoder is not None and _is_number(dtypes[place]):
                    encoder.check_kind(place, where, series.is_null().all())
                read[place] = _read_series(series, declared[place], where)
            if reset:
                is_declared = declared[place] is True or _is_category(series)
                _look_at(read[place], series, where, is_declared, frame)
        except ValueError as error:
            refused.append(str(error))
            continue
        columns.append(read[place])
    if refused:
        n_others = len(refused) - _MOST_REFUSED
        others = [f"... and {n_others} other columns."] if n_others > 0 else []
        raise ValueError("\n".join(refused[:_MOST_REFUSED] + others))
    return _coded(columns, frame.columns, name, encoder, reset, frame)


def read_array(
    X: np.ndarray,
    declared: Sequence[bool | None],
    name: str,
    encoder: ColumnEncoder | None,
    reset: bool,
) -> tuple[NDArray[np.float64], ColumnEncoder]:
    """Turn an array of two axes into numbers, as :func:`read_frame` does a frame.

    Its dtype says nothing of single columns: where it is not declared, text is no level.
    """
    columns = []
    for place, (values, given) in enumerate(zip(X.T, declared, strict=True)):
        where = f"column {place} of {name}, of type {values.dtype}"
        if encoder is not None:
            if not encoder.has_values(place):
                columns.append(np.full(len(values), np.nan))
                continue
            if values.dtype.kind not in "OUS":
                encoder.check_kind(place, where, bool(_missing(values).all()))
        read = _texts if given is True else _numbers
        columns.append(read(values.tolist() if given is True else values, _missing(values), where))
    return _coded(columns, range(X.shape[1]), name, encoder, reset)


def _coded(columns, names, name, encoder, reset, frame=None):
    """Put numbers and codes of levels into one matrix."""
    if reset:
        encoder = ColumnEncoder([_levels_of(read) for read in columns])
    X = np.empty((len(columns[0]) if columns else 0, len(columns)))
    unseen: list[str] = []
    for place, (column, read) in enumerate(zip(names, columns, strict=True)):
        own = None if encoder is None else encoder.levels[place]
        if own is None and (found := _levels_of(read)):
            bad = next((level for level in found if not _reads_as_number(level)), found[0])
            # In few rows decimals may look like thousands by chance.
            beside = frame if len(X) > _FEW else None
            raise ValueError(
                f"column {column!r} of {name} holds categories or text, such as {bad[:40]!r}; "
                f"expected numbers, as in the fit. {as_numbers(set(found), beside, few=0)}".rstrip()
            )
        X[:, place] = codes = read if own is None else encoder.code(place, read)
        if own is None or _UNSEEN not in codes:
            continue
        where = codes == _UNSEEN
        # Of many levels some are not in the fit as a matter of course, but hardly all of a table.
        is_odd = len(X) > 1 and (where | np.isnan(codes)).all()
        if is_odd or not encoder.shares(place):
            rows = f"{where.sum()} of {len(X)} rows"
            unseen.append(f"column {column!r} in {rows}, such as {read[where.argmax()][:40]!r}")
    if unseen:
        n_others = len(unseen) - _MOST_REFUSED
        others = [f"and {n_others} other columns"] if n_others > 0 else []
        warn(
            f"{name} holds categories that the fit did not see, and that count as none of its own: "
            f"{'; '.join(unseen[:_MOST_REFUSED] + others)}."
        )
    return X, encoder


def _bulk(frame, places):
    """Read columns of numbers at once: a column alone takes as long as a small table."""
    if not places:
        return []
    chosen = frame.select(narwhals.nth(places))
    numbers = chosen.to_numpy().T
    if numbers.dtype == object:
        # Of booleans, some of which are missing.
        return [series.cast(narwhals.Float64).to_numpy() for series in chosen.iter_columns()]
    return numbers.astype(np.float64)


def _levels_of(read):
    """Sorted levels; None of numbers, and where all values are missing."""
    return sorted(set(read) - {None}) or None if read.dtype == object else None


def _is_number(dtype):
    return dtype.is_numeric() or dtype == narwhals.Boolean


def _is_category(series):
    return series.dtype in (narwhals.Categorical, narwhals.Enum)


def _read_series(series, declared, where):
    """Return numbers as float64, or levels as texts, None where they are missing, as objects."""
    dtype = series.dtype
    if dtype.is_temporal():
        raise ValueError(f"{where}, holds dates or durations, not numbers. {ENCODE_DATES}")
    values, missing = series.to_list(), series.is_null().to_numpy()
    if declared is False:
        return _numbers(np.fromiter(values, object, len(values)), missing, where, _NOT_NAMED)
    if declared is True or _is_category(series):
        return _texts(values, missing, where)
    given = [value for value, skip in zip(values, missing, strict=True) if not skip]
    if all(isinstance(value, _NUMBERS) for value in given):
        return _numbers(np.fromiter(values, object, len(values)), missing, where)
    if not all(isinstance(value, (str, *_NUMBERS)) for value in given):
        _refuse(where, next(value for value in given if not isinstance(value, (str, *_NUMBERS))))
    return _texts(values, missing, where)


def _refuse(where: str, value: object) -> NoReturn:
    remedy = ENCODE_DATES if hasattr(value, "year") or hasattr(value, "days") else _ENCODE
    raise ValueError(
        f"{where}, holds {repr(value)[:60]}; expected numbers, or categories, or text of few "
        f"values. {remedy}"
    )


def _missing(values):
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    return np.fromiter(map(is_missing, values), dtype=bool, count=len(values))


def _numbers(values, missing, where, of_text=_IN_ARRAY):
    """Numbers, or text that reads as numbers, as float64."""
    if values.dtype.kind == "O":
        values = np.where(missing, np.nan, values)
    try:
        # A long double may be beyond float64; it is refused as infinite.
        with np.errstate(over="ignore"):
            return values.astype(np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        bad = next(value for value in values if not _reads_as_number(value))
        kind = TypeError if isinstance(error, TypeError) else ValueError
        remedy = _ENCODE
        if isinstance(bad, str):
            bad = str(bad)
            remedy = f"{of_text} {_ENCODE_TEXT}"
        raise kind(
            f"{where}, holds {repr(bad)[:60]} ({error}); expected numbers. {remedy}"
        ) from error


def _texts(values, missing, where):
    """Levels as texts: a number and the text that it is printed as are one level."""
    known: dict[Any, str] = {}
    levels = np.empty(len(values), dtype=object)
    for row, (value, skip) in enumerate(zip(values, missing, strict=True)):
        if skip:
            continue
        if not isinstance(value, Hashable) or isinstance(value, bytes):
            _refuse(where, value)
        # 1 and True are equal.
        key = type(value), value
        if key not in known:
            known[key] = _text(value)
        levels[row] = known[key]
    return levels


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, _NUMBERS):
        number = float(value)
        if not number.is_integer():
            return repr(number)
        # A Decimal may have more digits than a float.
        return str(int(value if isinstance(value, Decimal) else number))
    return str(value)


def _reads_as_number(value):
    try:
        float(value)
    except (OverflowError, TypeError, ValueError):
        return False
    return True


def _is_level_of_numbers(level):
    return level in ("True", "False") or _reads_as_number(level)


def as_numbers(
    levels: set[str], frame: narwhals.DataFrame[Any] | None = None, few: int = _FEW
) -> str:
    """Say how text may be read as numbers; nothing where it holds something else.

    Parameters
    ----------
    levels : set of str
    frame : narwhals.DataFrame, default=None
        What else was read with it: where the text has decimal commas, points of other columns are
        those between thousands.
    few : int, default=20
        So many numbers may be there by chance.
    """
    if all(map(_reads_as_number, levels)):
        remedy = "convert it first."
        if dotted := separated_thousands(sorted(levels)):
            remedy = (
                f"by pandas.read_csv(..., decimal=',', thousands='.') if {dotted[0]} is "
                f"{dotted[1]}; else {remedy}"
            )
        return f"It reads as numbers: {remedy}"
    options = number_options(levels, few)
    if not options:
        return _without_unit(levels, few)
    where = ""
    # It would be numbers already, had decimal="," been given.
    if options == {"decimal": ","} and frame is not None:
        for series in frame.iter_columns():
            if dotted := separated_thousands(_as_read(series)):
                options["thousands"] = "."
                where = f", where column {series.name!r} has {dotted[1]}, not {dotted[0]}"
                break
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"It reads as numbers by pandas.read_csv(..., {arguments}){where}."


def _without_unit(levels, few):
    unit = unit_of(levels, few)
    if unit is None:
        return ""
    signs = number_options({level.strip(unit) for level in levels}, few) or {}
    steps = f".str.replace({signs['thousands']!r}, '')" if "thousands" in signs else ""
    steps += ".str.replace(',', '.')" if "decimal" in signs else ""
    remedy = f"convert it by .str.strip({unit!r}){steps}.astype(float)."
    return f"It reads as numbers beside {unit!r}: {remedy}"


def _as_read(series):
    """Yield text as it is, and numbers as they may have stood in a file, with few decimals."""
    for value in series.to_list():
        if isinstance(value, float) and round(value, 3) == value:
            yield f"{value:.3f}".removesuffix(".000")
        elif not is_missing(value):
            yield str(value)


def _remedy(levels, frame):
    """Say what may be done about text of many values."""
    if remedy := as_numbers(levels, frame):
        return remedy
    if notation := date_format(levels):
        remedy = f"convert it by pandas.to_datetime(..., format={notation!r})"
        return f"It reads as dates: {remedy}. {ENCODE_DATES}"
    return f"Drop an identifier, make a category of a name. {_ENCODE_TEXT}"


def _look_at(read, series, where, is_declared, frame):
    """Refuse free text in a fit, and warn of what looks like an identifier."""
    if read.dtype == object:
        given = [level for level in read if level is not None]
        n_levels, n_given = len(set(given)), len(given)
        if not is_declared and n_levels > max(_FEW, _SHARE * n_given):
            raise ValueError(
                f"{where}, holds text of {n_levels} different values in {n_given} rows; expected "
                f"categories, or text of few values. {_remedy(set(given), frame)}"
            )
        if not is_declared and (number_options(set(given)) or unit_of(set(given))):
            remedy = as_numbers(set(given), frame)
            warn(f"{where}, is taken as a category of {n_levels} values. {remedy}")
        is_unique = n_levels == n_given >= _ENOUGH_ROWS
    else:
        is_unique = (
            len(frame.columns) > 1
            and series.dtype.is_integer()
            and len(read) >= _ENOUGH_ROWS
            # Drawn at random from such a range, so many would hardly all differ.
            and len(read) ** 2 >= _ENOUGH_ROWS * (np.ptp(read) + 1)
            and len(np.unique(read)) == len(read)
        )
    if is_unique:
        warn(f"{where}, has another value in every row: it looks like an identifier. Drop it.")
