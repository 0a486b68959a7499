"""Loaders that decide which rows meet in a batch, for `iterator_train=` of any skorch net."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from skorch.utils import to_tensor
from torch.utils.data import Dataset, default_collate

from sklearn_probmix.devices import sent
from sklearn_probmix.table import DividedRows

__all__ = ["NeighborLoader", "TensorLoader"]


class Batch(list[Any]):
    """A batch [X, y], mutable, that knows which rows it holds.

    Parameters
    ----------
    parts : iterable
        X and y.
    rows : Tensor of shape (n,) or (n, members)
        Index in the table.
    """

    def __init__(self, parts: Iterable[Any], rows: torch.Tensor):
        super().__init__(parts)
        self.rows = rows


class PairedBatch(Batch):
    """A batch whose second half holds the partners of its first half, and conversely."""

    @property
    def partner(self) -> torch.Tensor:
        """Index of every row's partner, shape (rows,)."""
        rows = len(_leaf(self[0]))
        return torch.arange(rows, device=self.rows.device).roll(rows // 2)


class TensorLoader:
    """Batches cut from whole tensors, instead of fetched row by row and collated.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        A skorch dataset, whose X and y are arrays, tensors, or dicts and lists of these; any other
        dataset of fixed length is collated once.
    batch_size : int, default=256
        Number of rows in a batch; the last one of an epoch may be smaller.
    shuffle : bool, default=False
        Draw a new order of the rows for every epoch.
    random_state : int, numpy.random.Generator or None, default=None
        Source of the order; None takes fresh entropy.
    n_batches : int or None, default=None
        Batches that one iteration makes: the next one goes on through the rows where it ended, and
        a new order begins whenever all were seen. None makes a pass over the rows.
    part : tuple of int, default=(0, 1)
        Index of this process and number of the processes that train one net: each takes every
        n-th row of a batch of n processes, all as many. All need the same `random_state`.

    Yields
    ------
    list
        ``[X, y]``, mutable, so that a callback may replace either.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.dataset import Dataset
    >>> from sklearn_probmix import TensorLoader
    >>> data = Dataset(np.arange(5.0), np.arange(5.0))
    >>> [X.tolist() for X, y in TensorLoader(data, batch_size=2)]
    [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int = 256,
        shuffle: bool = False,
        random_state: int | np.random.Generator | None = None,
        n_batches: int | None = None,
        part: tuple[int, int] = (0, 1),
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}; expected at least 1.")
        self.data = dataset if isinstance(dataset, DividedRows) else _WholeRows(dataset)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.rng = np.random.default_rng(random_state)
        self.n_batches = n_batches
        self.part = part
        self._rest: Iterator[torch.Tensor] = iter(())
        self._begun, self._n_made = self.rng.bit_generator.state, 0

    def __len__(self) -> int:
        if self.n_batches is not None:
            return self.n_batches
        return math.ceil(len(self.data.rows) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.n_batches is None:
            self._rest = iter(())
        for _ in range(len(self)):
            own = next(self._rest, None)
            if own is None:
                self._begin_pass()
                own = next(self._rest)
            self._n_made += 1
            own = own[self._own_part(len(own))]
            yield Batch(self.data.batch(own), own)

    def _begin_pass(self):
        self._begun, self._n_made = self.rng.bit_generator.state, 0
        rows = self.data.rows
        rows = _shuffled(rows, self.rng) if self.shuffle else rows
        self._rest = iter(self._sent(rows).split(self.batch_size))

    def _own_part(self, n_rows):
        """Index of this process's rows of a batch; some are taken twice where a part lacks one."""
        index, n_parts = self.part
        if n_parts == 1:
            return slice(None)
        return torch.arange(index, math.ceil(n_rows / n_parts) * n_parts, n_parts) % n_rows

    def _sent(self, rows):
        """Put the rows of a whole pass where the table is."""
        return sent(rows, _leaf(self.data.X).device)

    def state(self) -> dict[str, Any]:
        """Return where the loader is, between two iterations.

        Returns
        -------
        dict
            Of the states of generators, before the pass and now, and the batches made in between.
        """
        now = self.rng.bit_generator.state
        return {"begun": self._begun, "n_made": self._n_made, "now": now}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where a loader of the same rows was.

        Parameters
        ----------
        state : dict
            What :meth:`state` returned.
        """
        if state["n_made"]:
            self.rng.bit_generator.state = state["begun"]
            self._begin_pass()
            for _ in range(state["n_made"]):
                next(self._rest)
            self._n_made = state["n_made"]
        self.rng.bit_generator.state = state["now"]


class NeighborLoader(TensorLoader):
    """Batches of partners: row r and row r + B/2 are an edge of the K-nearest-neighbour graph.

    The graph links every row i with each of the K rows nearest to it (Loc^K in the paper). Both
    ends of an edge are in the batch, so mixing them needs no second forward pass, and the edge
    is used in both directions. An epoch has as many batches as that of :class:`TensorLoader`;
    hence a row is the origin of an edge once in two epochs on average, and every edge is equally
    likely, with probability 1 / (n K).

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Whose X is one array or tensor.
    batch_size : int, default=256
        Number of rows in a batch; an odd one is lowered by one.
    shuffle : bool, default=True
        Accepted for skorch's sake; the order of edges is always random.
    random_state : int, numpy.random.Generator or None, default=None
        Source of the edges; None takes fresh entropy.
    n_neighbors : int, default=5
        K, less than the number of rows. Neighbours are found once, by Euclidean distance between
        standardised, flattened rows of X.
    n_batches : int or None, default=None
        Batches that one iteration makes; None makes as many as a pass over the rows.
    part : tuple of int, default=(0, 1)
        As of :class:`TensorLoader`, of the edges of a batch.

    Yields
    ------
    PairedBatch
        A list ``[X, y]`` that says who the partner of a row is.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.dataset import Dataset
    >>> from sklearn_probmix import NeighborLoader
    >>> data = Dataset(np.array([[0.0], [0.1], [5.0], [5.1]]), np.arange(4.0))
    >>> X, y = next(iter(NeighborLoader(data, batch_size=4, n_neighbors=1, random_state=0)))
    >>> abs(X[:2] - X[2:]).max().item() < 0.2
    True
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int = 256,
        shuffle: bool = True,
        random_state: int | np.random.Generator | None = None,
        n_neighbors: int = 5,
        n_batches: int | None = None,
        part: tuple[int, int] = (0, 1),
    ):
        super().__init__(dataset, batch_size, True, random_state, n_batches, part)
        X = self.data.X
        if not isinstance(X, torch.Tensor):
            raise TypeError(
                f"NeighborLoader needs one array X to find neighbours in; found {type(X)}."
            )
        self.neighbors = [
            rows[nearest_neighbors(X[rows].cpu(), n_neighbors)] for rows in _members(self.data.rows)
        ]

    def __iter__(self) -> Iterator[PairedBatch]:
        # Every batch is full, so that no edge is favoured by a short one.
        half = max(1, min(self.batch_size, len(self.data.rows)) // 2)
        n_origins = half * len(self)
        ends = []
        for rows, neighbors in zip(_members(self.data.rows), self.neighbors, strict=True):
            rounds = math.ceil(n_origins / len(rows))
            orders = [self.rng.permutation(len(rows)) for _ in range(rounds)]
            origins = np.concatenate(orders)[:n_origins]
            picks = self.rng.integers(neighbors.shape[1], size=n_origins)
            ends.append(torch.stack([rows[origins], neighbors[origins, picks]]))
        # Batch by batch: the origins of its edges, then their partners.
        joint = torch.stack(ends, dim=-1) if self.data.rows.ndim == 2 else ends[0]
        joint = joint.unflatten(1, (-1, half))[:, :, self._own_part(half)]
        joint = joint.transpose(0, 1).flatten(1, 2)
        for rows in self._sent(joint):
            yield PairedBatch(self.data.batch(rows), rows)


def _members(rows):
    """Split an index (rows,) or (rows, members), which ends in -1, into those of each member."""
    columns = rows.T if rows.ndim == 2 else rows.unsqueeze(0)
    return [column[column >= 0] for column in columns]


def _shuffled(rows, rng):
    """Put the rows of every member into an order of its own."""
    if rows.ndim == 1:
        return rows[torch.from_numpy(rng.permutation(len(rows)))]
    # Of few rows numpy is done before torch has begun.
    rows = rows.numpy()
    shuffled = np.full_like(rows, -1)
    for member, column in enumerate(rows.T):
        own = column[column >= 0]
        shuffled[: len(own), member] = own[rng.permutation(len(own))]
    return torch.from_numpy(shuffled)


def nearest_neighbors(X: torch.Tensor | np.ndarray, n_neighbors: int) -> np.ndarray:
    """Find the nearest other rows of every row.

    Large tables are searched by pynndescent, approximately, where it is installed.

    Parameters
    ----------
    X : array of shape (n, ...)
        Rows are flattened and their columns standardised.
    n_neighbors : int
        At least 1 and less than n.

    Returns
    -------
    ndarray of shape (n, n_neighbors)
        Indices of rows, never a row's own.

    Raises
    ------
    ValueError
        If there are not more rows than neighbours.
    """
    n_rows = len(X)
    if not 1 <= n_neighbors < n_rows:
        raise ValueError(
            f"n_neighbors={n_neighbors!r} for {n_rows} training rows; "
            "expected at least 1 and fewer than the training rows."
        )
    flat = np.asarray(X, dtype=np.float64).reshape(n_rows, -1)
    scaler = StandardScaler().set_output(transform="default")
    flat = scaler.fit_transform(flat).astype(np.float32)
    descent = _import_pynndescent() if flat.size > 1_000_000 else None
    if descent is None:
        search = NearestNeighbors(n_neighbors=n_neighbors).fit(flat)
        return search.kneighbors(return_distance=False)
    index = descent.NNDescent(flat, n_neighbors=n_neighbors + 1, random_state=0, n_jobs=1)
    found = index.neighbor_graph[0]
    # A row comes first in its own list, unless duplicates of it come before.
    own = found == np.arange(n_rows)[:, None]
    own[~own.any(1), -1] = True
    return found[~own].reshape(n_rows, n_neighbors)


def _import_pynndescent():
    try:
        import pynndescent
    except ImportError:
        return None
    return pynndescent


class _WholeRows:
    """Any dataset as whole tensors, with the interface of :class:`.table.DividedRows`."""

    def __init__(self, dataset: Any):
        if hasattr(dataset, "X") and getattr(dataset, "y", None) is not None:
            self.X, self.y = (to_tensor(part, device="cpu") for part in (dataset.X, dataset.y))
        else:
            self.X, self.y = default_collate([dataset[i] for i in range(len(dataset))])
        self.rows = torch.arange(len(_leaf(self.X)))

    def batch(self, rows: torch.Tensor) -> tuple[Any, Any]:
        """Take rows of x and of y."""
        return _take(self.X, rows), _take(self.y, rows)


def _take(data, rows):
    if isinstance(data, dict):
        return {key: _take(value, rows) for key, value in data.items()}
    if isinstance(data, list):
        return [_take(value, rows) for value in data]
    # index_select is several times quicker than indexing by a tensor.
    return data.index_select(0, rows)


def _leaf(data):
    while isinstance(data, dict | list):
        data = next(iter(data.values())) if isinstance(data, dict) else data[0]
    return data
