"""The rows of a fit, and which member of an ensemble trains and validates on which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset
from torch import Tensor

__all__ = ["DividedRows", "Division", "Table"]


class Table(NamedTuple):
    """Rows in the units in which a network sees them.

    Rows that are taken for several members have an axis of members behind that of the rows.
    """

    X: Tensor
    """Shape (rows, [members,] ...)."""
    y: Tensor
    """Shape (rows, [members,] n_outputs); complex where some are censored, whose imaginary part is
    1."""
    weight: Tensor | None = None
    """Shape (rows, [members]), of mean 1; None where all are equal."""

    def take(self, rows: Tensor) -> Table:
        """Take rows by index, (rows,), or (rows, members) with -1, no row, as the last row."""
        weight = None if self.weight is None else _take(self.weight, rows)
        return Table(_take(self.X, rows), _take(self.y, rows), weight)

    def row_weight(self) -> Tensor:
        """Weights, ones if there are none."""
        if self.weight is not None:
            return self.weight
        return torch.ones(self.y.shape[:-1], dtype=torch.float32, device=self.y.device)

    def to(self, device: str | torch.device) -> Table:
        """Put the rows on a device."""
        weight = None if self.weight is None else self.weight.to(device)
        return Table(self.X.to(device), self.y.to(device), weight)

    @classmethod
    def concatenate(cls, tables: Sequence[Table]) -> Table:
        """Stack tables of equal columns."""
        X, y = (torch.cat([getattr(table, name) for table in tables]) for name in ("X", "y"))
        if all(table.weight is None for table in tables):
            return cls(X, y)
        return cls(X, y, torch.cat([table.row_weight() for table in tables]))


class Division(NamedTuple):
    """Which rows of a table train, choose the best epoch, and judge; by index.

    An index of shape (rows,) holds for all members; one of shape (rows, members) has a column for
    each, which ends in -1 where others have more rows.

    Hold-out, folds and fits side by side are three ways to make one.
    """

    train: Tensor
    valid: Tensor | None = None
    fits: tuple[int, ...] = ()
    """Number of members of each fit, where members are of several fits; () for one."""

    @classmethod
    def holdout(cls, train: NDArray[np.intp], valid: NDArray[np.intp] | None) -> Division:
        """Let all members train on the same rows and hold out the same."""
        held_out = None if valid is None else torch.as_tensor(valid)
        return cls(torch.as_tensor(train), held_out)

    @classmethod
    def folds(cls, held_out: Sequence[NDArray[np.intp]], n_members: int) -> Division:
        """Let member m hold out fold m modulo the number of folds, and train on the others."""
        n_rows = sum(map(len, held_out))
        members = [np.asarray(held_out[m % len(held_out)]) for m in range(n_members)]
        train = [np.setdiff1d(np.arange(n_rows), fold) for fold in members]
        return cls(_columns(train), _columns(members))

    @classmethod
    def side_by_side(
        cls, divisions: Sequence[Division], n_members: int, lengths: Sequence[int]
    ) -> Division:
        """Join divisions of tables of these lengths, one below the other, into one."""
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        parts = []
        for name in ("train", "valid"):
            columns = []
            for division, start in zip(divisions, starts, strict=True):
                rows = getattr(division, name).numpy()
                own = rows.T if rows.ndim == 2 else [rows] * n_members
                columns += [column[column >= 0] + start for column in own]
            parts.append(_columns(columns))
        return cls(parts[0], parts[1], (n_members,) * len(divisions))

    def holders(self, n_rows: int) -> Tensor:
        """Members that hold a row out, shape (n_rows, holders), of folds."""
        columns = () if self.valid is None else self.valid.T.unbind()
        held_by = torch.full((n_rows, len(columns)), -1)
        for member, rows in enumerate(columns):
            held_by[rows[rows >= 0], member] = member
        return held_by[held_by >= 0].reshape(n_rows, -1)


class DividedRows(Dataset):
    """Training rows as skorch sees them, one index at a time; loaders may read whole tensors.

    Parameters
    ----------
    table : Table
    rows : Tensor of shape (n,) or (n, members)
        Index of the training rows, on the CPU wherever the table is.

    Attributes
    ----------
    is_ragged : bool
        Whether some members have fewer rows than others.
    """

    def __init__(self, table: Table, rows: Tensor):
        super().__init__(table.X, table.y)
        self.table = table
        self.rows = rows
        self.is_ragged = bool((rows[-1] < 0).any())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> tuple[Tensor, Any]:
        """Training row or rows by position."""
        return self.batch(self.rows[index])

    def batch(self, rows: Tensor) -> tuple[Tensor, Any]:
        """Take x, and y or, where more is to be said, a dict for :func:`.mixing.as_target`."""
        # A lone index (members,) would not be taken at -1.
        X, y, weight = self.table.take(rows % len(self.table.y) if self.is_ragged else rows)
        own = self.rows.ndim == 2
        if weight is None and not own:
            return X, y
        # With an axis of members, of length 1 where they share the rows.
        target = {"y": y if own else y.unsqueeze(-2)}
        if weight is not None:
            target["weight"] = weight if own else weight.unsqueeze(-1)
        if self.is_ragged:
            target["mask"] = (rows >= 0).to(torch.float32)
        return X, target


def _columns(index: Sequence[NDArray[np.intp]]) -> Tensor:
    """Put indices side by side, below the shorter ones -1."""
    columns = np.full((max(map(len, index)), len(index)), -1)
    for column, rows in enumerate(index):
        columns[: len(rows), column] = rows
    return torch.from_numpy(columns)


def _take(values: Tensor, rows: Tensor) -> Tensor:
    if rows.ndim == 1:
        # Several times quicker than indexing by a tensor.
        return values.index_select(0, rows)
    return values[rows]
