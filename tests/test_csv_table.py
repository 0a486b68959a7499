import math
import subprocess
import sys

import pandas as pd
import pytest

from sklearn_probmix.csv_table import number_options, read_csv


@pytest.fixture
def write(tmp_path):
    """Return a function that writes lines to a file and returns its path."""

    def write(*lines, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
        return path

    return write


def column(table, name):
    (found,) = [column for column in table.columns if column.name == name]
    return found


def test_every_column_is_treated_and_said_so(write):
    lines = [
        f"{i + 5},{i * i},{'NS'[i % 2]},,1,a text {i},{'' if i % 9 == 0 else i % 4},"
        f"2021-0{1 + i % 3}-11,{i / 7}"
        for i in range(40)
    ]
    table = read_csv(write("id,n,side,empty,one,words,gaps,day,y", *lines), "y")
    assert table.treatments == {
        "id": "dropped: looks like an identifier, another number in every row",
        "n": "number",
        "side": "category, 2 levels",
        "empty": "dropped: empty",
        "one": "dropped: the same value in every row",
        "words": "dropped: looks like an identifier or free text, another text in every row",
        "gaps": "number, 5 missing",
        "day": "date (year-month-day) -> days since 1970, month, weekday",
    }
    assert column(table, "side").is_category
    assert column(table, "n").values[:4] == [0.0, 1.0, 4.0, 9.0]
    assert [math.isnan(value) for value in column(table, "gaps").values[:3]] == [True, False, False]
    # The 11th of January 2021 was a Monday, 18,638 days after 1970 began.
    assert column(table, "day, days since 1970").values[0] == 18638
    assert column(table, "day, weekday").values[0] == 0
    assert column(table, "day, month").values[:4] == [1, 2, 3, 1]


def test_free_text_is_dropped(write):
    # 60 values in 100 rows: more than half as many.
    table = read_csv(write("t,x,y", *(f"w {min(i, 59)},{i * i},{i / 3}" for i in range(100))), "y")
    assert table.treatments["t"].startswith("dropped: free text of 60 values")


def test_numbers_beside_a_unit_are_told(write):
    lines = [f"£{i}.50,{i % 30} kg,{i * i / 3}" for i in range(100)]
    path = write("fee,load,y", *lines)
    told = "numbers beside {!r}: take it off in the file"
    assert read_csv(path, "y").treatments == {
        "fee": f"dropped: {told.format('£')}",
        "load": f"category, 30 levels ({told.format(' kg')})",
    }
    with pytest.raises(ValueError, match="Column 'fee' holds numbers beside '£': take it off"):
        read_csv(path, "fee")


@pytest.mark.parametrize(
    ("cells", "number", "thousands"),
    [
        ("1.200,50", 1200.5, "points between thousands (1.200,50 = 1200.50), "),
        ("0,25", 0.25, ""),
        ("-3", -3.0, ""),
        ("1.234.567,0", 1234567.0, "points between thousands (1.234.567,0 = 1234567.0), "),
        ("1.234", 1234.0, "points between thousands (1.234 = 1234), "),
    ],
)
def test_decimal_commas_are_found(write, cells, number, thousands):
    table = read_csv(write("größe;y", f"{cells};1,5", "7,1;2,5", "2;3,5", encoding="latin-1"), "y")
    assert column(table, "größe").values == [number, 7.1, 2.0]
    assert table.y == [1.5, 2.5, 3.5]
    assert table.layout == f"semicolons between cells, decimal commas, {thousands}latin-1"


@pytest.mark.parametrize(
    ("cells", "numbers", "layout"),
    [
        # Only thousands have two dots, and none begin with 0.
        (
            ["1.234.567", "1.234", "87"],
            [1234567, 1234, 87],
            "commas, points between thousands (1.234.567 =",
        ),
        (["0.234", "1.234", "87"], [0.234, 1.234, 87], "points, UTF-8"),
        (["-0,234", "1,234", "87"], [-0.234, 1.234, 87], "commas, UTF-8"),
        (["1.25", "1.234", "87"], [1.25, 1.234, 87], "points, UTF-8"),
        # Nothing in the file tells.
        (["1,234", "2,345", "87"], [1.234, 2.345, 87], "commas (1,234 is 1234 by --decimal point)"),
        (["1.234", "2.345", "87"], [1.234, 2.345, 87], "points (1.234 is 1234 by --decimal comma)"),
    ],
)
def test_thousands_are_told_from_decimals(write, cells, numbers, layout):
    table = read_csv(write("x;y", *(f"{cell};{i}" for i, cell in enumerate(cells))), "y")
    assert column(table, "x").values == numbers
    assert layout in table.layout


@pytest.mark.parametrize("code", ["192.168.100.101", "100.200.300"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_codes_with_points_are_no_thousands(write, code, delimiter):
    lines = [[code, f"3.{300 + i}", f"1.{200 + 7 * i}"] for i in range(30)]
    path = write("ip,volt,y".replace(",", delimiter), *map(delimiter.join, lines))
    table = read_csv(path, "y")
    assert "decimal points" in table.layout
    assert column(table, "volt").values[:2] == [3.3, 3.301]
    assert table.y[:2] == [1.2, 1.207]


def test_columns_vote_and_not_cells(write):
    lines = [f"1.{i:03}.500;{i};{i % 4}" for i in range(9)] + ["7;0.25;1.5"]
    table = read_csv(write("code;x;y", *lines), "y")
    assert (column(table, "x").values[-1], table.y[-1]) == (0.25, 1.5)


def test_millions_alone_have_points_between_thousands(write):
    table = read_csv(write("x;y", *(f"{i};1.{200 + i}.500" for i in range(9))), "y")
    assert table.y[:2] == [1_200_500, 1_201_500]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_commas_that_may_be_between_thousands_are_said(write, delimiter):
    path = write(f"x{delimiter}y", *(f"{i}{delimiter}1,{37 * i:03}" for i in range(9)))
    assert "decimal commas (1,000 is 1000 by --decimal point)" in read_csv(path, "y").layout
    assert read_csv(path, "y", decimal=".").y[:2] == [1000, 1037]
    # A zero before the comma tells.
    path = write(f"x{delimiter}y", *(f"{i}{delimiter}0,{37 * i:03}" for i in range(9)))
    assert "decimal commas, UTF-8" in read_csv(path, "y").layout


def test_decimal_commas_between_commas(write):
    path = write("x,y", '"1,25",1', '"2.001,5",2')
    table = read_csv(path, "y")
    assert column(table, "x").values == [1.25, 2001.5]
    assert pd.read_csv(path, **table.options)["x"].tolist() == [1.25, 2001.5]


def test_one_word_among_numbers_is_missing(write):
    lines = [
        f"{'k.A.' if i % 5 == 0 else i * i};{'other' if i % 5 == 0 else i % 4};{i / 7}"
        for i in range(60)
    ]
    table = read_csv(write("area;code;y", *lines), "y", decimal=".")
    assert table.treatments == {"area": "number, 12 missing", "code": "category, 5 levels"}
    assert column(table, "area").values[1:4] == [1.0, 4.0, 9.0]
    assert table.options == {"sep": ";", "na_values": ["k.A."]}


def test_pandas_reads_alike_by_the_options(write):
    lines = [f"{i % 9};1.{i:03},5;{'-' if i == 3 else i};{i + 1:02}.12.1970;{i}" for i in range(30)]
    path = write("größe;x;gaps;day;y", *lines, encoding="latin-1")
    table = read_csv(path, "y")
    frame = pd.read_csv(path, **table.options)
    for name in ("größe", "x", "gaps"):
        assert frame[name].tolist() == pytest.approx(column(table, name).values, nan_ok=True)
    days = (frame["day"] - pd.Timestamp("1970-01-01")).dt.days
    assert days.tolist() == column(table, "day, days since 1970").values


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(write, delimiter):
    lines = (delimiter.join([f'"a, {i}; b"', str(i / 4), str(i)]) for i in range(1, 30, 3))
    table = read_csv(write(delimiter.join("axy"), *lines), "y")
    assert column(table, "x").values[:2] == [0.25, 1.0]


def test_layout_can_be_named(write):
    path = write("x y,z", "1,5 2", "2,5 3")
    table = read_csv(path, "y,z", delimiter=" ", decimal=",")
    assert column(table, "x").values == [1.5, 2.5]


def test_thousands_between_commas(write):
    table = read_csv(write("x,y", '"1,200",1.5', '"1,430.5",2'), "y")
    assert column(table, "x").values == [1200.0, 1430.5]
    assert "commas between thousands (1,200 = 1200)" in table.layout
    table = read_csv(write("x,y", '"1,200",1', '"1,430",2'), "y")
    assert column(table, "x").values == [1200.0, 1430.0]


@pytest.mark.parametrize(
    ("cells", "notation", "hour"),
    [
        (["31.12.1970", "01.01.1971"], "day.month.year", None),
        (["12/31/1970", "01/01/1971"], "month/day/year", None),
        (["31/12/1970", "01/01/1971"], "day/month/year", None),
        (["1970-12-31 06:30", "1971-01-01 18:00"], "year-month-day", [6.5, 18.0]),
        (["1970-12-31T06:30:00Z", ""], "year-month-day", None),
    ],
)
def test_dates_are_expanded(write, cells, notation, hour):
    table = read_csv(write("d,x,y", *(f"{cell},{i},{i / 2}" for i, cell in enumerate(cells))), "y")
    assert notation in table.treatments["d"]
    if cells[-1]:
        days = column(table, "d, days since 1970").values
        assert math.floor(days[0]) == 364
        assert math.floor(days[1]) == 365
    if hour:
        assert column(table, "d, hour").values == hour


def test_rows_without_a_response_are_left_out(write):
    table = read_csv(write("x,y", "1,1.5", "2,?", "4,3.5", "5,9"), "y")
    assert (table.y, table.rows) == ([1.5, 3.5, 9.0], [0, 2, 3])
    assert column(table, "x").values == [1.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("values", "first"),
    [(["yes", "no", "no"], "yes"), (["0", "1", "0"], "0"), (["0", "1", "2"], 0.0)],
)
def test_task_is_inferred(write, values, first):
    path = write("x,y", *(f"{i},{value}" for i, value in enumerate(values)))
    assert read_csv(path, "y").y[0] == first


def test_task_can_be_given(write):
    path = write("x,y", *(f"{i},{i % 3}" for i in range(9)))
    assert read_csv(path, "y", task="classification").y[:3] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="'x' holds text; expected numbers for regression"):
        read_csv(write("x,y", "a,1", "b,2"), "x", task="regression")


def test_quotes_and_byte_order_mark(write):
    table = read_csv(write('\ufeff"x, in m",y', '"1",2', '"3",2.5'), "y")
    assert column(table, "x, in m").values == [1.0, 3.0]


@pytest.mark.parametrize("sign", ["\x85", "\x0b", "\u2028"])
def test_signs_that_end_lines_elsewhere_are_text(write, sign):
    encoding = "utf-8" if sign == "\u2028" else "latin-1"
    lines = [f"{i},{'AB'[i % 2]}{sign}\xe9,{i}.5" for i in range(0, 60, 3)]
    path = write("x,kind,y", *lines, encoding=encoding)
    table = read_csv(path, "y")
    assert column(table, "kind").values[:2] == [f"A{sign}\xe9", f"B{sign}\xe9"]
    assert pd.read_csv(path, **table.options)["kind"].tolist() == column(table, "kind").values


def test_lines_without_cells_and_in_cells(write):
    path = write("", "x,kind,y", "", '1,"a', 'b",2', "3,c,4")
    table = read_csv(path, "y", task="regression")
    assert column(table, "kind").values == ["a\nb", "c"]
    assert (column(table, "x").values, table.y) == ([1.0, 3.0], [2.0, 4.0])


def test_codes_that_begin_with_e_are_no_numbers(write):
    assert number_options({f"E{n}" for n in range(30)} | {"unknown"}) is None
    lines = [f"{'E' + str(i % 22) if i % 9 else 'other'},{i}.5" for i in range(60)]
    assert "other" in column(read_csv(write("zone,y", *lines), "y"), "zone").values


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([""], "is empty"),
        (["x,y"], "no rows"),
        (["x,x,y", "1,2,3"], "several columns of the names \\['x'\\]"),
        (["x,y", "1,2", "1"], "line 3, has 1 cells; expected 2"),
        (["y", "1.5", "2.5"], "no column besides"),
        (["x,y", "1,2.5", "1,3.5"], "no column is left"),
        (["x,y", "1,", "2,"], "'y', to be predicted, is empty"),
        (["x,y", '"1,2', *["1,2"] * 40_000], "larger than field limit .*; expected a quote"),
        (["x,y", "1,2", f"{'a' * 140_000},2"], "line 3: .*larger than field limit .*shorter cells"),
        (["x,z", "1,2"], "no column 'y'; expected one of"),
        (["x,yy", "1,2"], "Did you mean 'yy'"),
        (["1,2", "3,4"], "The first line holds numbers"),
    ],
)
def test_files_that_hold_no_table(write, lines, expected):
    with pytest.raises(ValueError, match=expected):
        read_csv(write(*lines), "y")


def test_a_missing_file_is_named_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "absent.csv")):
        read_csv("absent.csv", "y")


def test_no_text_is_refused(write):
    with pytest.raises(ValueError, match="UTF-16"):
        read_csv(write("x,y", "1,2", encoding="utf-16"), "y")


def test_reading_needs_the_standard_library_only():
    code = (
        "import importlib.util as u, sys; s = u.find_spec('sklearn_probmix').submodule_search_"
        "locations[0]; t = u.spec_from_file_location('csv_table', s + '/csv_table.py');"
        "m = u.module_from_spec(t); t.loader.exec_module(m);"
        "print({'numpy', 'torch', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
