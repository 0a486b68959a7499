"""Which member trains, chooses its epoch and is judged on which rows, counted row by row."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist
from skorch import NeuralNet
from torch import nn
from torch.utils.data import DataLoader

from sklearn_probmix import Kind, NeighborLoader, ProbMixupRegressor, TensorLoader, get_family
from sklearn_probmix.modules import MLP
from sklearn_probmix.nets import Common, natural_parameters
from sklearn_probmix.table import DividedRows, Division, Table
from sklearn_probmix.training import train


def table(n_rows, *, weighted=False, seed=0):
    """Rows whose y is their number."""
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.normal(size=(n_rows, 2)).astype("float32"))
    y = torch.arange(n_rows).float().unsqueeze(1)
    return Table(X, y, torch.linspace(0.5, 1.5, n_rows) if weighted else None)


def random_folds(n_rows, n_folds, seed=0):
    return np.array_split(np.random.default_rng(seed).permutation(n_rows), n_folds)


def own(index, member):
    """Rows of one member, without the -1 below the last."""
    rows = index[:, member].tolist()
    return [row for row in rows if row >= 0]


@pytest.mark.parametrize(("n_rows", "n_folds"), [(10, 5), (11, 5), (7, 7), (9, 2)])
@pytest.mark.parametrize("members_of_a_fold", [1, 2])
def test_folds_hold_every_row_out_equally_often(n_rows, n_folds, members_of_a_fold):
    n_members = n_folds * members_of_a_fold
    division = Division.folds(random_folds(n_rows, n_folds), n_members)
    assert division.train.shape[1] == division.valid.shape[1] == n_members
    held_out = []
    for member in range(n_members):
        train_rows, valid_rows = own(division.train, member), own(division.valid, member)
        assert sorted(train_rows + valid_rows) == list(range(n_rows))
        # What is no row stands below the last.
        assert division.train[: len(train_rows), member].tolist() == train_rows
        assert division.valid[: len(valid_rows), member].tolist() == valid_rows
        held_out += valid_rows
    assert np.bincount(held_out).tolist() == [members_of_a_fold] * n_rows


@pytest.mark.parametrize("members_of_a_fold", [1, 2])
def test_holders_are_who_holds_a_row_out(members_of_a_fold):
    n_rows, n_folds = 11, 3
    n_members = n_folds * members_of_a_fold
    division = Division.folds(random_folds(n_rows, n_folds), n_members)
    holders = division.holders(n_rows)
    assert holders.shape == (n_rows, members_of_a_fold)
    for row, members in enumerate(holders.tolist()):
        assert members == [m for m in range(n_members) if row in own(division.valid, m)]


def test_a_holdout_is_the_same_for_all_members():
    division = Division.holdout(np.array([3, 1, 0]), np.array([2, 4]))
    assert division.train.tolist() == [3, 1, 0]
    assert division.valid.tolist() == [2, 4]
    assert Division.holdout(np.arange(3), None).valid is None


@pytest.mark.parametrize("n_members", [1, 2])
def test_holdouts_side_by_side_are_those_of_each_table(n_members):
    parts = [
        Division.holdout(np.array([4, 0, 2]), np.array([1, 3])),
        Division.holdout(np.array([1, 0]), np.array([2])),
    ]
    joint = Division.side_by_side(parts, n_members, lengths=[5, 3])
    assert joint.fits == (n_members, n_members)
    for member in range(2 * n_members):
        part, start = (parts[0], 0) if member < n_members else (parts[1], 5)
        assert own(joint.train, member) == (part.train + start).tolist()
        assert own(joint.valid, member) == (part.valid + start).tolist()


def test_folds_side_by_side_are_those_of_each_table():
    lengths = [7, 11]
    parts = [Division.folds(random_folds(length, 3, seed=length), 3) for length in lengths]
    joint = Division.side_by_side(parts, 3, lengths)
    assert joint.fits == (3, 3)
    for member in range(6):
        part, start = parts[member // 3], [0, 7][member // 3]
        for name in ("train", "valid"):
            alone = own(getattr(part, name), member % 3)
            assert own(getattr(joint, name), member) == [row + start for row in alone]


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_taken_by_an_index_of_all_or_of_each_member(weighted):
    whole = table(6, weighted=weighted)
    shared = whole.take(torch.tensor([5, 0]))
    assert torch.equal(shared.X, whole.X[[5, 0]])
    assert torch.equal(shared.row_weight(), whole.row_weight()[[5, 0]])
    each = whole.take(torch.tensor([[1, 4], [2, 3], [0, 5]]))
    assert (each.X.shape, each.y.shape, each.row_weight().shape) == ((3, 2, 2), (3, 2, 1), (3, 2))
    assert each.y[..., 0].tolist() == [[1, 4], [2, 3], [0, 5]]
    assert torch.equal(each.row_weight()[:, 1], whole.row_weight()[[4, 3, 5]])


def test_tables_are_stacked_with_their_weights():
    plain, weighted = table(3), table(2, weighted=True)
    assert Table.concatenate([plain, plain]).weight is None
    both = Table.concatenate([plain, weighted])
    assert both.weight.tolist() == [1, 1, 1, 0.5, 1.5]
    assert torch.equal(both.X, torch.cat([plain.X, weighted.X]))
    assert both.y[:, 0].tolist() == [0, 1, 2, 0, 1]


DIVISIONS = {
    "holdout": Division.holdout(np.array([7, 1, 2, 9, 4]), np.array([0, 3])),
    "even folds": Division.folds(random_folds(10, 5), 5),
    "ragged folds": Division.folds(random_folds(11, 3), 6),
}


@pytest.mark.parametrize("division", DIVISIONS.values(), ids=DIVISIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_torchs_loader_gives_the_same_batches(division, weighted, batch_size):
    data = DividedRows(table(11, weighted=weighted), division.train)
    ours, theirs = TensorLoader(data, batch_size), DataLoader(data, batch_size)
    assert len(ours) == len(theirs)
    for (X, target), (X_theirs, target_theirs) in zip(ours, theirs, strict=True):
        assert torch.equal(X, X_theirs)
        if isinstance(target, torch.Tensor):
            assert torch.equal(target, target_theirs)
            continue
        assert target.keys() == target_theirs.keys()
        assert all(torch.equal(target[name], target_theirs[name]) for name in target)


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_say_what_a_tensor_cannot(weighted):
    expected = {"y", "weight"} if weighted else {"y"}
    for name, division in DIVISIONS.items():
        _, target = DividedRows(table(11, weighted=weighted), division.train)[:]
        if name == "holdout" and not weighted:
            assert target.tolist() == [[7], [1], [2], [9], [4]]
            continue
        assert set(target) == expected | ({"mask"} if name == "ragged folds" else set())
        n_members = 1 if name == "holdout" else division.train.shape[1]
        assert target["y"].shape == (len(division.train), n_members, 1)


@pytest.mark.parametrize("n_rows", [12, 13])
def test_an_epoch_holds_every_row_of_every_member_once(n_rows):
    division = Division.folds(random_folds(n_rows, 3), 3)
    data = DividedRows(table(n_rows), division.train)
    loader = TensorLoader(data, 4, shuffle=True, random_state=0)
    orders = []
    for _ in range(2):
        batches = [target for _, target in loader]
        y = torch.cat([target["y"] for target in batches])[..., 0].int()
        mask = torch.cat([target["mask"] for target in batches]) if data.is_ragged else 1 + 0 * y
        for member in range(3):
            seen = y[mask[:, member] > 0, member].tolist()
            assert sorted(seen) == sorted(own(division.train, member))
        orders.append(y)
    assert data.is_ragged == (n_rows == 13)
    assert not torch.equal(*orders)
    # Members have orders of their own.
    assert not torch.equal(orders[0][:, 0].argsort(), orders[0][:, 1].argsort())


@pytest.mark.parametrize("n_rows", [30, 31])
def test_neighbours_are_found_among_a_members_own_rows(n_rows):
    K, n_members = 3, 3
    whole = table(n_rows)
    division = Division.folds(random_folds(n_rows, n_members), n_members)
    loader = NeighborLoader(DividedRows(whole, division.train), 8, random_state=0, n_neighbors=K)
    pairs = []
    for _ in range(40):
        for batch in loader:
            X, target = batch
            rows = target["y"][..., 0].long()
            assert torch.equal(X, whole.X[rows])
            assert (target.get("mask", torch.ones(1)) == 1).all()
            pairs.append(rows.unflatten(0, (2, -1)))
            half = len(rows) // 2
            assert batch.partner[:half].tolist() == list(range(half, 2 * half))
    origins, ends = torch.cat(pairs, dim=1)
    for member in range(n_members):
        rows = np.array(own(division.train, member))
        X = whole.X[rows].double().numpy()
        X = (X - X.mean(0)) / X.std(0)
        distance = cdist(X, X)
        np.fill_diagonal(distance, np.inf)
        nearest = rows[np.argsort(distance, axis=1)[:, :K]]
        edges = {(int(i), int(j)) for i, near in zip(rows, nearest, strict=True) for j in near}
        seen = set(zip(origins[:, member].tolist(), ends[:, member].tolist(), strict=True))
        assert seen == edges
        # Origins are laid end to end, so that none is favoured.
        counts = np.bincount(origins[:, member], minlength=n_rows)[rows]
        assert counts.max() - counts.min() <= 40


def trained(whole, division, n_members, method="erm", **parameters):
    recipe = {"hidden_layer_sizes": (8,), "batch_size": 4, "max_epochs": 3, "lr": 0.01}
    kind = Kind(method, **(recipe | parameters))
    common = Common(get_family("normal"), n_features=2, n_outputs=1, n_members=n_members)
    return train(kind, common, whole, division, seed=0)


def with_last_row(whole, value):
    """Add a row at the end, which is what an index of -1 takes."""
    last = Table(torch.full_like(whole.X[:1], value), torch.full_like(whole.y[:1], value))
    return Table.concatenate([whole, last])


@pytest.mark.parametrize("method", ["erm", "probmix", "m-probmix", "mixup"])
@pytest.mark.parametrize("monitor", ["nll", "crps"])
def test_rows_that_are_none_count_for_nothing(method, monitor):
    n_rows, n_members = 13, 3
    whole = table(n_rows)
    whole = whole._replace(y=whole.y / n_rows)
    division = Division.folds(random_folds(n_rows, n_members), n_members)
    assert (division.train < 0).any()
    assert (division.valid < 0).any()
    one, other = (
        trained(with_last_row(whole, value), division, n_members, method, monitor=monitor)
        for value in (0.0, 100.0)
    )
    states = one.net.module_.state_dict(), other.net.module_.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    for name in ("train_loss", "valid_loss"):
        assert one.net.history[:, name] == other.net.history[:, name]


@pytest.mark.parametrize("weighted", [False, True])
def test_members_are_validated_on_the_rows_they_hold_out(weighted):
    n_rows, n_members = 13, 3
    whole = table(n_rows, weighted=weighted)
    whole = whole._replace(y=whole.y / n_rows)
    division = Division.folds(random_folds(n_rows, n_members), n_members)
    new = trained(whole, division, n_members, max_epochs=1)
    best = dict(new.net.callbacks_)["best_epoch"]
    params = get_family("normal").scipy_parameters(natural_parameters(new.net, whole.X).eta)
    law = stats.norm(*(params[name][..., 0].numpy() for name in ("loc", "scale")))
    nll = -law.logpdf(whole.y.numpy())
    for member in range(n_members):
        rows = own(division.valid, member)
        expected = np.average(nll[rows, member], weights=whole.row_weight()[rows])
        assert best.losses_[0][member] == pytest.approx(expected, rel=1e-5)


def test_a_net_may_read_its_folds_by_torchs_loader():
    # Of 41 rows, so that one fold has a row less than the others.
    X = np.random.default_rng(0).normal(size=(41, 3))
    predictions = []
    for loader in ({"": TensorLoader}, {"": DataLoader, "__drop_last": False}):
        net = NeuralNet(
            MLP,
            criterion=nn.MSELoss,
            max_epochs=2,
            batch_size=8,
            **{f"iterator_train{name}": value for name, value in loader.items()},
        )
        est = ProbMixupRegressor(method="erm", net=net, n_members=3, random_state=0)
        predictions.append(est.fit(X, X[:, 0]).predict(X))
        assert est.net_.iterator_train is loader[""]
    np.testing.assert_array_equal(*predictions)


class OneOutput(nn.Module):
    """A module that does not ask how many outputs y has."""

    def __init__(self, n_features):
        super().__init__()
        self.out = nn.Linear(n_features, 2)

    def forward(self, X):
        return get_family("normal").natural(self.out(X).unsqueeze(1))


@pytest.mark.parametrize("validation", ["holdout", "cv", None])
def test_as_many_members_as_outputs_are_no_outputs(validation):
    rng = np.random.default_rng(0)
    net = NeuralNet(OneOutput, criterion=nn.MSELoss, max_epochs=1, batch_size=8)
    est = ProbMixupRegressor(method="erm", net=net, n_members=2, validation=validation)
    with pytest.raises(ValueError, match=r"expected \(rows, n_outputs, n_params\) = \(8, 2, 2\)"):
        est.fit(rng.normal(size=(40, 3)), rng.normal(size=(40, 2)))
