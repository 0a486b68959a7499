"""Pictures of the training: its history, and which rows it mixes.

Attributes and axes are as in `sklearn_probmix.displays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from sklearn_probmix.metrics import Array
from sklearn_probmix.plotting import Display, choose_output, get_column

__all__ = ["MixingGraphDisplay", "TrainingHistoryDisplay"]


class TrainingHistoryDisplay(Display):
    """Training and validation loss of every epoch; the epochs whose weights were kept are marked.

    Losses are mean negative log-likelihoods in nats per row, of the standardised y. Each kind of
    network has its colour; the loss is averaged over the members of an ensemble, while every
    member keeps an epoch of its own.

    Attributes
    ----------
    epochs, train_loss, valid_loss : lists of ndarrays of shape (epochs,), one for each kind
        valid_loss is NaN without validation.
    best_epochs : list of ndarrays of int of shape (members,)
    names : list of str
    train_lines_, valid_lines_, best_points_ : lists of Line2D

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix import ProbMixupRegressor
    >>> from sklearn_probmix.training_displays import TrainingHistoryDisplay
    >>> X = np.random.default_rng(0).normal(size=(40, 1))
    >>> est = ProbMixupRegressor(method="probmix", max_epochs=3, random_state=0).fit(X, X[:, 0])
    >>> display = TrainingHistoryDisplay.from_estimator(est)
    >>> display.names, display.epochs
    (['probmix'], [array([1, 2, 3])])
    """

    epochs: list[NDArray[np.intp]]
    train_loss: list[Array]
    valid_loss: list[Array]
    best_epochs: list[NDArray[np.intp]]
    names: list[str]

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, names: Sequence[str] | None = None, ax: Any = None
    ) -> Self:
        """Read the history of a fitted estimator and draw it.

        Parameters
        ----------
        estimator : fitted ProbMixupRegressor or ProbMixupClassifier, a Pipeline or a search too
            NotFittedError if it is not fitted, TypeError if it has no history.
        names : list of str, default=None
            Of the kinds of networks; None means their methods.
        ax : matplotlib Axes, default=None
        """
        estimator, _ = _unwrap(estimator, cls)
        best_epochs = list(np.atleast_2d(estimator.best_epoch_))
        of_kind = [
            [epoch for epoch in estimator.history_ if epoch["kind"] == kind]
            for kind in range(len(best_epochs))
        ]
        epochs, train_loss, valid_loss = (
            [np.array([epoch.get(key, np.nan) for epoch in history]) for history in of_kind]
            for key in ("epoch", "train_loss", "valid_loss")
        )
        names = _method_names(estimator) if names is None else list(names)
        if len(names) != len(of_kind):
            raise ValueError(f"names holds {len(names)} for {len(of_kind)} kinds of networks.")
        return cls(
            epochs=epochs,
            train_loss=train_loss,
            valid_loss=valid_loss,
            best_epochs=best_epochs,
            names=names,
        ).plot(ax)

    def _draw(self, ax, ink, colors):
        self.train_lines_, self.valid_lines_, self.best_points_ = [], [], []
        for k, name in enumerate(self.names):
            color = colors[k % len(colors)]
            epochs, train, valid = self.epochs[k], self.train_loss[k], self.valid_loss[k]
            has_valid = not np.isnan(valid).all()
            label = f"{name}, validation" if has_valid else name
            self.valid_lines_ += ax.plot(epochs, valid, color=color, label=label)
            self.train_lines_ += ax.plot(epochs, train, color=color, ls=":")
            best = np.unique(self.best_epochs[k])
            heights = np.where(np.isnan(valid), train, valid)[np.searchsorted(epochs, best)]
            self.best_points_ += ax.plot(best, heights, "o", ms=6, color=color, mec=ink)
        self.train_lines_[-1].set_label("training")
        self.best_points_[-1].set_label("kept")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="epoch", ylabel="negative log-likelihood [nats per row]")
        ax.legend()


class MixingGraphDisplay(Display):
    """Which rows are mixed with which, in the plane.

    An edge joins two rows that may be mixed: those of a row and its K nearest neighbours by
    standardised features, or a sample of the random pairs if any two rows may meet.

    Attributes
    ----------
    points : ndarray of shape (n, 2)
        Two features, the one feature and y, or the first two principal components of the
        standardised features.
    edges : ndarray of int of shape (edges, 2)
        Indices of the rows that an edge joins.
    y : ndarray of shape (n,) or None
        Colour of the points: numbers, or labels of classes.
    shown : ndarray of int of shape (rows,)
        Indices of the rows that are drawn.
    axis_labels : tuple of str
        Of the x and the y axis.
    edges_ : LineCollection
    joined_, others_ : PathCollections
        Rows with and without a drawn edge.

    Examples
    --------
    >>> from sklearn_probmix.training_displays import MixingGraphDisplay
    >>> X = [[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]]
    >>> MixingGraphDisplay.from_data(X, n_neighbors=1).edges.tolist()
    [[0, 1], [1, 0], [2, 3], [3, 2]]
    """

    points: Array
    edges: NDArray[np.intp]
    y: NDArray[Any] | None
    shown: NDArray[np.intp]
    axis_labels: tuple[str, str]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        kind: int | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw how the rows of X, on which the estimator was fitted, were mixed.

        Parameters
        ----------
        estimator : fitted ProbMixupRegressor or ProbMixupClassifier, a Pipeline or a search too
            NotFittedError if it is not fitted, ValueError if it does not mix.
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, outputs), default=None
        kind : int, default=None
            Which of the estimator's kinds of network to show, with its own `n_neighbors`; None
            takes the first that mixes.
        ax : matplotlib Axes, default=None
        **options
            Those of `from_data`.
        """
        estimator, X = _unwrap(estimator, cls, X)
        kinds = estimator.kinds_
        mixing = [index for index, of in enumerate(kinds) if of.site is not None]
        if not mixing or (kind is not None and kind not in mixing):
            raise ValueError(
                f"kind={kind!r} of kinds_={kinds}: no rows are mixed; expected one of the kinds "
                f"that mix, {mixing}."
            )
        n_neighbors = kinds[mixing[0] if kind is None else kind].n_neighbors
        return cls.from_data(X, y, n_neighbors=n_neighbors, ax=ax, **options)

    @classmethod
    def from_data(
        cls,
        X: Any,
        y: Any = None,
        *,
        n_neighbors: int | None = None,
        features: Sequence[int | str] | None = None,
        max_edges: int | None = None,
        random_state: int | np.random.Generator | None = 0,
        output: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Find the edges and draw them.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, outputs), default=None
            Needed if there is one feature only.
        n_neighbors : int, default=None
            K; None means that any two rows may be mixed.
        features : one or two of int or str, default=None
            Columns of X to draw; None means principal components if there are more than two.
        max_edges : int, default=None
            Largest number of edges that are drawn; None means 300, or 75 random pairs, which are
            longer. At most 500 rows without an edge are drawn.
        random_state : int, Generator or None, default=0
            Of the rows and of the random pairs that are drawn.
        output : int, default=None
            Which output of y to show; it has to be given if y has several.
        ax : matplotlib Axes, default=None
        """
        columns = None if features is None else [get_column(X, feature) for feature in features]
        flat = check_array(X, dtype=np.float64, allow_nd=True, ensure_min_samples=2, input_name="X")
        flat = flat.reshape(len(flat), -1)
        if y is not None:
            y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
            check_consistent_length(flat, y)
            y = y if y.ndim == 1 else choose_output(list(y.T), output, "y has {} outputs")
        standard = StandardScaler().set_output(transform="default").fit_transform(flat)
        rng = np.random.default_rng(random_state)
        # Random pairs are those of a shuffled order, so that no row is drawn twice.
        order = rng.permutation(len(flat))
        if n_neighbors is None:
            n_pairs = min(max_edges or 75, len(flat) // 2)
            edges = order[: 2 * n_pairs].reshape(n_pairs, 2)
        else:
            edges = _neighbor_edges(standard, order, n_neighbors, max_edges or 300)
        points, axis_labels = _plane(X, flat, standard, y, columns)
        shown = np.union1d(order[-500:], edges)
        return cls(points=points, edges=edges, y=y, shown=shown, axis_labels=axis_labels).plot(ax)

    def _draw(self, ax, ink, colors):
        from matplotlib.collections import LineCollection

        segments = list(self.points[self.edges])
        self.edges_ = LineCollection(segments, colors=ink, alpha=0.5, lw=0.8, zorder=2)
        ax.add_collection(self.edges_)
        is_joined = np.isin(self.shown, self.edges)
        joined, others = self.shown[is_joined], self.shown[~is_joined]
        self.joined_ = ax.scatter(
            *self.points[joined].T, s=20, edgecolors=ink, linewidths=0.5, zorder=3
        )
        self.others_ = ax.scatter(*self.points[others].T, s=5, alpha=0.6)
        if self.y is None:
            self.joined_.set_facecolor(colors[0])
            self.others_.set_facecolor(colors[0])
        else:
            self._draw_colors(ax, joined, others)
        ax.set(xlabel=self.axis_labels[0], ylabel=self.axis_labels[1])

    def _draw_colors(self, ax, joined, others):
        import matplotlib

        values, labels = _numbers(self.y)
        # Classes have a colour each, centred on their number.
        n_colors, margin = (256, 0) if labels is None else (len(labels), 0.5)
        for points, rows in [(self.joined_, joined), (self.others_, others)]:
            points.set_array(values[rows])
            points.set_cmap(matplotlib.colormaps["viridis"].resampled(n_colors))
            points.set_clim(values.min() - margin, values.max() + margin)
        bar = self.figure_.colorbar(self.joined_, ax=ax, label="y")
        if labels is not None:
            bar.set_ticks(range(len(labels)), labels=labels)


def _numbers(y):
    """Return y and None if it holds numbers, else the number of each label and the labels."""
    if y.dtype.kind in "iuf":
        return y, None
    labels, numbers = np.unique(y, return_inverse=True)
    return numbers, labels


def _unwrap(estimator, shown_by, X=None):
    """Return the fitted estimator inside pipelines and searches, and X as it sees it."""
    check_is_fitted(estimator)
    while not hasattr(estimator, "history_"):
        if isinstance(estimator, Pipeline):
            if X is not None and len(estimator) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            raise TypeError(
                f"{shown_by.__name__} is for ProbMixupRegressor and ProbMixupClassifier; "
                f"{type(estimator).__name__} has no history_."
            )
    return estimator, X


def _method_names(estimator):
    return [kind.method for kind in estimator.kinds_]


def _neighbor_edges(standard, order, n_neighbors, max_edges):
    if not 1 <= n_neighbors < len(standard):
        raise ValueError(
            f"n_neighbors={n_neighbors!r} for {len(standard)} rows; expected at least 1 and fewer "
            "than the rows."
        )
    origins = np.sort(order[: max(1, max_edges // n_neighbors)])
    search = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(standard)
    found = search.kneighbors(standard[origins], return_distance=False)
    is_other = found != origins[:, None]
    # A row comes first in its own list, unless duplicates of it come before.
    is_other[is_other.all(axis=1), -1] = False
    return np.column_stack([np.repeat(origins, n_neighbors), found[is_other]])


def _plane(X, flat, standard, y, columns):
    """Return where the rows lie in the plane, and the names of its axes."""
    if columns is None and flat.shape[1] > 2:
        pca = PCA(2, random_state=0).set_output(transform="default")
        points = pca.fit_transform(standard)
        shares = pca.explained_variance_ratio_
        return points, tuple(
            f"principal component {k + 1} ({100 * shares[k]:.0f} % of variance)" for k in range(2)
        )
    if columns is None:
        table = X if np.ndim(X) == 2 else flat
        columns = [get_column(table, feature) for feature in range(flat.shape[1])]
    if len(columns) == 1:
        if y is None:
            raise ValueError("X has one feature: y is needed for a picture in the plane.")
        columns = [*columns, (_numbers(y)[0], "y")]
    if len(columns) != 2:
        raise ValueError(f"features must be one or two columns, got {len(columns)}.")
    (x, x_label), (y, y_label) = columns
    return np.column_stack([x, y]), (x_label, y_label)
