"""Loaders that decide which rows meet in a batch, for `iterator_train=` of any skorch net."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from skorch.utils import to_tensor
from torch.utils.data import Dataset, default_collate

__all__ = ["NeighborLoader", "TensorLoader"]


class PairedBatch(list):
    """A batch [X, y] whose second half holds the partners of its first half, and conversely."""

    @property
    def partner(self) -> torch.Tensor:
        """Index of every row's partner, shape (rows,)."""
        rows = len(_leaf(self[0]))
        return torch.arange(rows).roll(rows // 2)


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

    def __init__(self, dataset, batch_size=256, shuffle=False, random_state=None):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}; expected at least 1.")
        self.X, self.y = _whole(dataset)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.n_rows = len(_leaf(self.X))
        self.rng = np.random.default_rng(random_state)

    def __len__(self):
        return math.ceil(self.n_rows / self.batch_size)

    def __iter__(self):
        X, y = self.X, self.y
        if self.shuffle:
            order = torch.from_numpy(self.rng.permutation(self.n_rows))
            X, y = _take(X, order), _take(y, order)
        for start in range(0, self.n_rows, self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield [_take(X, rows), _take(y, rows)]


class NeighborLoader(TensorLoader):
    """Batches of partners: row r and row r + B/2 are an edge of the K-nearest-neighbour graph.

    The graph links every row i with each of the K rows nearest to it (Loc^K in the paper). Both
    ends of an edge are in the batch, so mixing them needs no second forward pass, and the edge
    is used in both directions. An epoch has as many batches as that of :class:`TensorLoader`;
    hence a row is the origin of an edge once in two epochs on average, and every edge is equally
    likely, with probability 1 / (n K).

    Parameters
    ----------
    dataset, batch_size, random_state
        As for :class:`TensorLoader`. An odd number of rows in a batch is lowered by one.
    shuffle : bool, default=True
        Accepted for skorch's sake; the order of edges is always random.
    n_neighbors : int, default=5
        K, less than the number of rows. Neighbours are found once, by Euclidean distance between
        standardised, flattened rows of X.
    own_rows : sequence of int or None, default=None
        Where X and y are of shape (rows, n_members, ...), a table for every member of an ensemble,
        the number of rows of each; those below repeat the table and are nobody's neighbours.

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
        dataset,
        batch_size=256,
        shuffle=True,
        random_state=None,
        n_neighbors=5,
        own_rows=None,
    ):
        super().__init__(dataset, batch_size, True, random_state)
        if not isinstance(self.X, torch.Tensor):
            raise TypeError(
                f"NeighborLoader needs one array X to find neighbours in; found {type(self.X)}."
            )
        if own_rows is None:
            self.neighbors = nearest_neighbors(self.X, n_neighbors)
        else:
            tables = [X[:n] for X, n in zip(self.X.unbind(1), own_rows, strict=True)]
            found = [nearest_neighbors(table, n_neighbors) for table in tables]
            rows = [np.arange(self.n_rows) % len(table) for table in tables]
            found = [one[index] for one, index in zip(found, rows, strict=True)]
            self.neighbors = np.stack(found, axis=-1)

    def __iter__(self):
        # Every batch is full, so that no edge is favoured by a short one.
        half = max(1, min(self.batch_size, self.n_rows) // 2)
        n_origins = half * len(self)
        rounds = math.ceil(n_origins / self.n_rows)
        orders = [self.rng.permutation(self.n_rows) for _ in range(rounds)]
        origins = np.concatenate(orders)[:n_origins]
        picks = self.rng.integers(self.neighbors.shape[1], size=n_origins)
        partners = self.neighbors[origins, picks]
        origins = np.broadcast_to(origins.reshape(-1, *[1] * (partners.ndim - 1)), partners.shape)
        ends = np.stack([origins, partners])
        members = ends.shape[2:]
        # Batch by batch: the origins of its edges, then their partners.
        ends = ends.reshape(2, -1, half, *members).swapaxes(0, 1).reshape(-1, *members)
        rows = torch.from_numpy(ends)
        X, y = _take(self.X, rows), _take(self.y, rows)
        for start in range(0, len(rows), 2 * half):
            batch = slice(start, start + 2 * half)
            yield PairedBatch([_take(X, batch), _take(y, batch)])


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


def _whole(dataset: Dataset):
    """X and y of a whole dataset as tensors."""
    if hasattr(dataset, "X") and getattr(dataset, "y", None) is not None:
        return to_tensor(dataset.X, device="cpu"), to_tensor(dataset.y, device="cpu")
    X, y = default_collate([dataset[i] for i in range(len(dataset))])
    return X, y


def _take(data, rows):
    if isinstance(data, dict):
        return {key: _take(value, rows) for key, value in data.items()}
    if isinstance(data, list):
        return [_take(value, rows) for value in data]
    if isinstance(rows, slice):
        return data[rows]
    if rows.ndim == 2:
        return data[rows, torch.arange(rows.shape[1])]
    # index_select is several times quicker than indexing by a tensor.
    return data.index_select(0, rows)


def _leaf(data):
    while isinstance(data, dict | list):
        data = next(iter(data.values())) if isinstance(data, dict) else data[0]
    return data
