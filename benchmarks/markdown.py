"""Cells and tables of the reports, as Markdown."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["NOT_RUN", "Number", "Printed", "table"]

NOT_RUN = "not run"


class Number(NamedTuple):
    """A cell of a table: an average of a score; the best of its column and group is in bold."""

    cell: Any
    """False where nothing was run; else with `n_fits`, the averages and `sd` of a score."""
    score: str
    factor: float = 1
    with_sd: bool = True
    digits: int | None = None
    more_is_better: bool = False
    group: str = ""
    average: str = "mean"

    @property
    def n_fits(self):
        return self.cell.n_fits

    @property
    def value(self):
        return getattr(self.cell, self.average)(self.score)

    @property
    def rank(self):
        if not self.cell:
            return float("nan")
        return self.value * (-1 if self.more_is_better else 1)

    def __str__(self):
        if not self.cell:
            return NOT_RUN
        value = self.value * self.factor
        sd = self.cell.sd(self.score) * self.factor
        text = _rounded(value, self.digits)
        return f"{text}±{_rounded(sd, self.digits)}" if self.with_sd and np.isfinite(sd) else text


class Printed(NamedTuple):
    """A figure of the paper as a cell of a table."""

    mean: float
    sd: float | None
    group: str = ""
    n_fits: int = 1

    @property
    def rank(self):
        return self.mean

    def __str__(self):
        return _rounded(self.mean) + ("" if self.sd is None else f"±{_rounded(self.sd)}")


def _rounded(value, digits=None):
    if digits is None:
        digits = 2 if abs(value) < 100 else 1
    return f"{value:.{digits}f}"


def table(rows):
    """Render rows as a Markdown table, the best number of each column and group in bold.

    Numbers of fewer than half as many fits as others of the column have are not in the running.

    Parameters
    ----------
    rows : list of dict
        With the same keys, which are the header.

    Returns
    -------
    str
    """
    places = {}
    for row in rows:
        for column, value in row.items():
            if isinstance(value, Number | Printed) and np.isfinite(value.rank):
                places.setdefault((column, value.group), []).append(value)
    best = {}
    for place, values in places.items():
        most = max(value.n_fits for value in values)
        best[place] = min(value.rank for value in values if 2 * value.n_fits >= most)

    def rendered(column, value):
        if isinstance(value, Number | Printed) and value.rank == best.get((column, value.group)):
            return f"**{value}**"
        return str(value)

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += [
        "| " + " | ".join(rendered(column, value) for column, value in row.items()) + " |"
        for row in rows
    ]
    return "\n".join(lines)
