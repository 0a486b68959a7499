import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist
from skorch import NeuralNet
from skorch.dataset import Dataset
from torch.utils.data import DataLoader, Subset, TensorDataset

from sklearn_probmix import NegativeLogLikelihood, NeighborLoader, TensorLoader
from sklearn_probmix.loaders import nearest_neighbors
from sklearn_probmix.modules import MLP


def table(n=23, n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_features)).astype("float32")
    return X, np.arange(n, dtype="float32")


def rows_of(loader):
    """Row numbers, which y holds, batch by batch."""
    return [y.int().tolist() for _, y in loader]


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_batches_are_those_of_a_data_loader(batch_size):
    data = Dataset(*table())
    ours, theirs = TensorLoader(data, batch_size), DataLoader(data, batch_size)
    assert len(ours) == len(theirs)
    for (X, y), (X_theirs, y_theirs) in zip(ours, theirs, strict=True):
        assert torch.equal(X, X_theirs)
        assert torch.equal(y, y_theirs)


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_shuffled_epochs_hold_every_row_once_in_new_orders(batch_size):
    X, y = table()
    loader = TensorLoader(Dataset(X, y), batch_size, shuffle=True, random_state=0)
    orders = [np.concatenate(rows_of(loader)).tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23))
    assert orders[0] != orders[1]


def test_shuffling_keeps_x_and_y_together():
    X, y = table()
    for X_batch, y_batch in TensorLoader(Dataset(X, y), 5, shuffle=True, random_state=0):
        np.testing.assert_array_equal(X_batch, X[y_batch.int()])


def test_same_random_state_same_order():
    data = Dataset(*table())
    one, same, other = (
        rows_of(TensorLoader(data, 5, shuffle=True, random_state=seed)) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize("n_parts", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 6, 7, 23])
def test_parts_of_a_batch_are_of_one_size_and_make_it_up(batch_size, n_parts):
    data, settings = Dataset(*table()), {"shuffle": True, "random_state": 0}
    whole = rows_of(TensorLoader(data, batch_size, **settings))
    parts = [
        rows_of(TensorLoader(data, batch_size, part=(index, n_parts), **settings))
        for index in range(n_parts)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {len(share) for share in shares} == {-(-len(batch) // n_parts)}
        assert set().union(*shares) == set(batch)


def test_batches_are_mutable_lists_that_know_their_rows():
    X, y = table()
    for batch in TensorLoader(Dataset(X, y), 5, shuffle=True, random_state=0):
        assert isinstance(batch, list)
        for part, whole in zip(batch, (X, y), strict=True):
            np.testing.assert_array_equal(part, whole[batch.rows])


def test_x_may_be_a_dict_and_y_hold_weights():
    X, y = table(10)
    data = Dataset({"a": X, "b": 2 * X}, {"y": y, "weight": y + 1})
    batches = list(TensorLoader(data, 4, shuffle=True, random_state=0))
    assert [len(target["y"]) for _, target in batches] == [4, 4, 2]
    for inputs, target in batches:
        rows = target["y"].int()
        np.testing.assert_array_equal(inputs["a"], X[rows])
        np.testing.assert_array_equal(inputs["b"], 2 * X[rows])
        np.testing.assert_array_equal(target["weight"], rows + 1)


def test_x_may_be_a_list():
    X, y = table(10)
    (first, second), _ = next(iter(TensorLoader(Dataset([X, 3 * X], y), 4)))
    np.testing.assert_array_equal(3 * first, second)


@pytest.mark.parametrize(
    "make",
    [
        lambda X, y, rows: Subset(Dataset(X, y), rows),
        lambda X, y, rows: TensorDataset(torch.from_numpy(X[rows]), torch.from_numpy(y[rows])),
    ],
    ids=["Subset", "TensorDataset"],
)
def test_datasets_that_are_not_skorchs(make):
    X, y = table()
    rows = [20, 3, 11, 4, 0]
    batches = list(TensorLoader(make(X, y, rows), 2))
    np.testing.assert_array_equal(torch.cat([X_batch for X_batch, _ in batches]), X[rows])
    assert torch.cat([y_batch for _, y_batch in batches]).tolist() == rows


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_must_be_positive(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}; expected at least 1"):
        TensorLoader(Dataset(*table()), batch_size)


def fitted(iterator_train, **kwargs):
    torch.manual_seed(0)
    X, y = table(40)
    net = NeuralNet(
        MLP,
        module__n_features=3,
        module__hidden_layer_sizes=(4,),
        criterion=NegativeLogLikelihood,
        lr=1e-3,
        max_epochs=3,
        batch_size=16,
        iterator_train=iterator_train,
        verbose=0,
        **kwargs,
    )
    return net.fit(X, y / 40)


def test_a_net_trains_as_with_the_default_loader():
    ours, theirs = fitted(TensorLoader), fitted(DataLoader)
    np.testing.assert_allclose(
        ours.history[:, "train_loss"], theirs.history[:, "train_loss"], rtol=1e-6
    )


def test_a_net_validates_and_predicts_with_it():
    ours = fitted(TensorLoader, iterator_valid=TensorLoader)
    theirs = fitted(DataLoader)
    X, _ = table(40)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-5)
    np.testing.assert_allclose(
        ours.history[:, "valid_loss"], theirs.history[:, "valid_loss"], rtol=1e-6
    )


def brute_force(X, K):
    """K nearest other rows by definition, on standardised columns."""
    flat = X.reshape(len(X), -1).astype(np.float64)
    flat = (flat - flat.mean(0)) / np.where(flat.std(0) > 0, flat.std(0), 1)
    distance = cdist(flat, flat)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1)[:, :K]


@pytest.mark.parametrize("shape", [(60, 1), (60, 4), (60, 5, 2)])
@pytest.mark.parametrize("K", [1, 5, 59])
def test_neighbours_are_the_nearest_rows(shape, K):
    X = np.random.default_rng(0).normal(size=shape)
    X[..., 0] *= 1000  # of no consequence once standardised
    np.testing.assert_array_equal(
        np.sort(nearest_neighbors(X, K), axis=1), np.sort(brute_force(X, K), axis=1)
    )


def test_neighbours_among_duplicates_are_other_rows():
    X = np.repeat(np.arange(3.0), 4)[:, None]
    found = nearest_neighbors(X, 3)
    assert (found != np.arange(12)[:, None]).all()
    np.testing.assert_array_equal(X[found, 0], X[np.arange(12)[:, None].repeat(3, 1), 0])


@pytest.mark.parametrize("K", [0, 10, 11])
def test_there_must_be_more_rows_than_neighbours(K):
    with pytest.raises(ValueError, match=f"n_neighbors={K} for 10 training rows"):
        nearest_neighbors(np.zeros((10, 2)), K)


@pytest.mark.slow
def test_large_tables_are_searched_approximately_and_well():
    pytest.importorskip("pynndescent")
    X = np.random.default_rng(0).normal(size=(4000, 6))
    wide = np.concatenate([X, np.zeros((4000, 250))], axis=1)  # 1,024,000 numbers, same distances
    found = nearest_neighbors(wide, 5)
    assert found.shape == (4000, 5)
    assert (found != np.arange(4000)[:, None]).all()
    exact = brute_force(X[:4000], 5)
    shared = [len(set(a) & set(b)) for a, b in zip(found, exact, strict=True)]
    assert np.mean(shared) / 5 > 0.95


@pytest.mark.slow
def test_approximate_search_among_duplicates_returns_other_rows():
    pytest.importorskip("pynndescent")
    X = np.repeat(np.random.default_rng(0).normal(size=(100, 1)), 20, axis=0)
    found = nearest_neighbors(np.tile(X, (1, 501)), 5)
    assert (found != np.arange(2000)[:, None]).all()
    assert all(len(set(row)) == 5 for row in found)


@pytest.mark.parametrize("batch_size", [2, 8, 9, 100])
def test_the_halves_of_a_batch_are_neighbours(batch_size):
    X, y = table(30)
    graph = brute_force(X, 4)
    for batch in NeighborLoader(Dataset(X, y), batch_size, random_state=0, n_neighbors=4):
        rows = batch[1].int().numpy()
        np.testing.assert_array_equal(batch[0], X[rows])
        half = len(rows) // 2
        assert all(j in graph[i] for i, j in zip(rows[:half], rows[half:], strict=True))


@pytest.mark.parametrize("batch_size", [2, 8, 9, 100])
def test_a_batch_says_who_the_partner_is(batch_size):
    loader = NeighborLoader(Dataset(*table(30)), batch_size, random_state=0, n_neighbors=4)
    for batch in loader:
        rows = len(batch[1])
        half = rows // 2
        assert batch.partner.tolist() == [*range(half, rows), *range(half)]


@pytest.mark.parametrize(
    ("n", "batch_size", "n_batches", "rows"),
    [(30, 8, 4, 8), (32, 8, 4, 8), (31, 9, 4, 8), (30, 100, 1, 30), (31, 100, 1, 30), (5, 1, 5, 2)],
)
def test_every_batch_of_an_epoch_is_full(n, batch_size, n_batches, rows):
    loader = NeighborLoader(Dataset(*table(n)), batch_size, random_state=0, n_neighbors=2)
    assert len(loader) == n_batches
    assert [len(y) for _, y in loader] == [rows] * n_batches


def edges_of(loader, epochs):
    """Edges (origin, end) of some epochs, shape (edges, 2)."""
    pairs = []
    for _ in range(epochs):
        for batch in loader:
            rows = batch[1].int().numpy()
            pairs.append(rows.reshape(2, -1).T)
    return np.concatenate(pairs)


@pytest.mark.parametrize(("n", "batch_size"), [(30, 8), (31, 9), (24, 100)])
def test_edges_are_equally_likely(n, batch_size):
    X, y = table(n)
    K = 4
    graph = brute_force(X, K)
    loader = NeighborLoader(Dataset(X, y), batch_size, random_state=1, n_neighbors=K)
    edges = edges_of(loader, 200)
    counts = np.array([[(edges == (i, j)).all(1).sum() for j in graph[i]] for i in range(n)])
    assert counts.sum() == len(edges)
    assert stats.chisquare(counts.ravel(), len(edges) / (n * K)).pvalue > 1e-3


def test_origins_are_permutations_laid_end_to_end():
    loader = NeighborLoader(Dataset(*table(12)), 24, random_state=0, n_neighbors=2)
    origins = edges_of(loader, 1)[:, 0]
    assert len(set(origins[:6])) == 6


def test_same_random_state_same_edges():
    data = Dataset(*table(30))
    one, same, other = (
        edges_of(NeighborLoader(data, 8, random_state=seed), 2).tolist() for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_parts_of_a_batch_of_neighbours_are_edges():
    data = Dataset(*table())
    settings = {"n_neighbors": 2, "random_state": 0}
    whole = NeighborLoader(data, 8, **settings)
    parts = [NeighborLoader(data, 8, part=(index, 2), **settings) for index in range(2)]

    def edges(batch):
        return set(map(tuple, batch.rows.unflatten(0, (2, -1)).T.tolist()))

    for batch, *shares in zip(whole, *parts, strict=True):
        assert [len(share.rows) for share in shares] == [4, 4]
        assert set().union(*map(edges, shares)) == edges(batch)


def test_neighbour_batches_carry_weights():
    X, y = table(30)
    data = Dataset(X, {"y": y, "weight": 2 * y})
    batch = next(iter(NeighborLoader(data, 8, random_state=0)))
    assert torch.equal(batch[1]["weight"], 2 * batch[1]["y"])
    assert len(batch.partner) == 8


def test_neighbours_need_one_array():
    X, y = table(30)
    with pytest.raises(TypeError, match="one array X to find neighbours in; found .*dict"):
        NeighborLoader(Dataset({"a": X}, y))


def test_neighbours_are_found_among_the_rows_of_the_split():
    X, y = table(30)
    loader = NeighborLoader(Subset(Dataset(X, y), range(10)), 4, random_state=0, n_neighbors=9)
    assert edges_of(loader, 3).max() == 9
