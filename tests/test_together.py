"""Fits in one pass, against the same fits one by one."""

import numpy as np
import pytest
import torch
from one_network import ONE_NETWORK
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    NeighborLoader,
    ProbMixupClassifier,
    ProbMixupRegressor,
    fit_together,
)
from sklearn_probmix.criterion import log_likelihood, normal_crps
from sklearn_probmix.datasets import make_rings
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import get_family
from sklearn_probmix.loaders import nearest_neighbors
from sklearn_probmix.modules import MLP
from sklearn_probmix.table import DividedRows, Division, Table


def kind(method="m-probmix", **fields):
    return Kind(method, **{"lr_schedule": "constant", "n_draws": 4, **fields})


SMALL = ONE_NETWORK | {"method": kind(), "hidden_layer_sizes": (8,), "max_epochs": 8, "lr": 0.02}


def table(seed, n_rows=60, n_outputs=1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3))
    y = X[:, :n_outputs] * 10.0**seed + 0.3 * rng.normal(size=(n_rows, n_outputs))
    return X, y[:, 0] if n_outputs == 1 else y


def weighted(seed, n_rows=60):
    rng = np.random.default_rng(seed)
    return *table(seed, n_rows), rng.integers(3, size=n_rows) * rng.uniform(size=n_rows)


def labelled(seed, n_rows=60):
    X, y = table(seed, n_rows)
    return X, np.digitize(y / 10.0**seed, [-0.8, 0.5])


def regressors(n, **params):
    return [ProbMixupRegressor(**(SMALL | params), random_state=seed) for seed in range(n)]


def classifiers(n, **params):
    return [ProbMixupClassifier(**(SMALL | params), random_state=seed) for seed in range(n)]


def without_draws(*kinds, **params):
    """Settings in which nothing is drawn but the initialisation: full batches, no mixing."""
    return {"method": list(kinds or [kind("erm")]), "batch_size": "full", **params}


@pytest.fixture
def initialised_alike(monkeypatch):
    """An ensemble draws the weights of all its members at once; here there is no draw."""

    def alike(self, *args, **kwargs):
        init(self, *args, **kwargs)
        with torch.no_grad():
            for k, weight in enumerate(self.parameters()):
                weight.copy_(torch.linspace(-0.3, 0.5 + 0.1 * k, weight.numel()).view_as(weight))

    init = MLP.__init__
    monkeypatch.setattr(MLP, "__init__", alike)


def losses(est):
    return [epoch["valid_loss"] for epoch in est.history_]


def assert_learnt_alike(est, one, X):
    np.testing.assert_allclose(losses(est), losses(one), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(est.best_epoch_, one.best_epoch_)
    assert (est.n_iter_, est.kinds_) == (one.n_iter_, one.kinds_)
    assert [epoch["kind"] for epoch in est.history_] == [epoch["kind"] for epoch in one.history_]
    np.testing.assert_array_equal(est.y_scale_, one.y_scale_)
    np.testing.assert_allclose(est.weights_, one.weights_, atol=1e-3)
    predicted = [np.asarray(fit.predict_proba(X)) for fit in (est, one)]
    np.testing.assert_allclose(*predicted, rtol=2e-3, atol=2e-3)


def assert_same_bits(est, one, X):
    assert losses(est) == losses(one)
    assert est.kinds_ == one.kinds_
    np.testing.assert_array_equal(est.predict_proba(X), one.predict_proba(X))


@pytest.mark.parametrize("family", ["normal", "homoscedastic-normal"])
@pytest.mark.parametrize("lengths", [(60, 60), (60, 41), (300, 11)])
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.usefixtures("initialised_alike")
def test_networks_learn_as_they_would_alone(family, lengths, n_outputs):
    tables = [table(seed, n_rows, n_outputs) for seed, n_rows in enumerate(lengths)]
    settings = without_draws(family=family)
    together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        assert_learnt_alike(est, one.fit(X, y), X)


TWO_KINDS = kind("erm", monitor="crps", variance_weighting=0.5), kind("erm", n_knots=3)
SETTINGS = {
    "weights": (regressors, weighted, {}),
    "members": (regressors, table, {"n_members": 3, "validation": "holdout"}),
    "folds": (regressors, table, {"n_members": 3, "calibration": "on"}),
    "several members a fold": (regressors, table, {"n_members": 4, "validation": 2}),
    "weighted folds": (regressors, weighted, {"n_members": 2}),
    "kinds": (regressors, table, {"method": [*TWO_KINDS]}),
    "folds and kinds": (regressors, table, {"method": [*TWO_KINDS], "n_members": 2}),
    "classes": (classifiers, labelled, {}),
    "weights of classes": (classifiers, labelled, {"class_weight": "balanced"}),
    "folds of classes": (classifiers, labelled, {"class_weight": {0: 3}, "n_members": 2}),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("lengths", [(60, 60, 60), (80, 60, 31)])
@pytest.mark.usefixtures("initialised_alike")
def test_every_setting_learns_as_it_would_alone(name, lengths):
    make, data, params = SETTINGS[name]
    tables = [data(seed, n_rows) for seed, n_rows in enumerate(lengths)]
    settings = without_draws() | params
    together = fit_together(make(3, **settings), tables)
    for est, one, own in zip(together, make(3, **settings), tables, strict=True):
        assert_learnt_alike(est, one.fit(*own), own[0])
        if hasattr(one, "oof_scores_"):
            assert est.oof_scores_ == pytest.approx(one.oof_scores_, rel=1e-2, abs=1e-3)
            assert (est.calibration_ is None) == (one.calibration_ is None)


class Own(nn.Module):
    """A module of the user's that draws nothing."""

    def __init__(self, n_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 5), nn.Tanh(), nn.Linear(5, 2))
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.linspace(-0.4, 0.5, weight.numel()).view_as(weight))

    def forward(self, X):
        return get_family("normal").natural(self.layers(X).unsqueeze(1))


def own_net(**params):
    return NeuralNet(
        Own, NegativeLogLikelihood, optimizer=torch.optim.Adam, max_epochs=8, lr=0.05, **params
    )


@pytest.mark.parametrize("n_members", [1, 2])
def test_nets_of_ones_own_learn_as_they_would_alone(n_members):
    tables = [table(seed, n_rows) for seed, n_rows in enumerate((60, 41))]
    settings = {"method": "erm", "net": own_net(batch_size=-1), "n_members": n_members}
    together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        assert_learnt_alike(est, one.fit(X, y), X)
        assert type(est.net_.module_) is (Own if n_members == 1 else Ensemble)
        est.partial_fit(X, y)


@pytest.mark.parametrize(
    "params",
    [
        {"method": kind("mixup")},
        {"method": kind("manifold-mixup"), "n_neighbors": 3},
        {"method": kind("probmix", beta=0.01), "pooling": "linear"},
        {"method": kind("probmix", response="expected"), "n_neighbors": 3},
        {"method": kind("m-probmix", beta=0.01)},
        {"method": kind("m-probmix", embedding_variance="separate"), "n_neighbors": 3},
        {"method": [kind("probmix"), kind("mixup")], "n_members": 2},
    ],
)
def test_every_method_learns_tables_of_different_scale(params):
    tables = [table(seed) for seed in range(3)]
    estimators = regressors(3, **params, max_epochs=150, batch_size=16)
    assert fit_together(estimators, tables) == estimators
    for est, (X, y) in zip(estimators, tables, strict=True):
        assert est.score(X, y) > 0.8
        assert est.predict_proba(X).shape == (60,)


def test_classifiers():
    tables = [make_rings(90, random_state=seed) for seed in range(2)]
    settings = {"method": kind("probmix"), "max_epochs": 150, "hidden_layer_sizes": (32,)}
    for est, (X, y) in zip(fit_together(classifiers(2, **settings), tables), tables, strict=True):
        assert est.score(X, y) > 0.8


LONE = {
    "one network": {},
    "mixing": {"method": kind("probmix"), "n_neighbors": 3, "n_knots": 4},
    "folds and kinds": {"method": ["erm", "mixup"], "n_members": 3, "calibration": "on"},
    "a net of one's own": {"method": "probmix", "net": own_net(batch_size=20)},
}


@pytest.mark.parametrize("name", LONE)
def test_a_lone_table_is_fitted_bit_for_bit_as_alone(name):
    X, y = table(0)
    (est,) = fit_together(regressors(1, **LONE[name]), [(X, y)])
    (one,) = regressors(1, **LONE[name])
    assert_same_bits(est, one.fit(X, y), X)


@pytest.mark.parametrize("name", LONE)
def test_tables_that_make_other_steps_are_fitted_bit_for_bit_as_alone(name):
    tables = [table(0, 250), table(1, 40)]
    settings = {"batch_size": 20} | LONE[name]
    together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        assert_same_bits(est, one.fit(X, y), X)


def test_steps_are_those_of_the_net_of_ones_own():
    tables = [table(0, 60), table(1, 20)]
    settings = {"method": "erm", "net": own_net(batch_size=20)}
    together = fit_together(regressors(2, **settings, batch_size=None), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        assert_same_bits(est, one.fit(X, y), X)


def test_tables_that_make_as_many_steps_train_in_one_pass():
    trained = []

    class Count(Callback):
        def on_train_begin(self, net, **kwargs):
            trained.append(net.module_.n_members if isinstance(net.module_, Ensemble) else 1)

    tables = [table(seed, n_rows) for seed, n_rows in enumerate((70, 250, 74, 72, 240))]
    estimators = regressors(5, callbacks=[Count()], batch_size=20)
    fit_together(estimators, tables)
    assert trained == [3, 2]
    assert all(est.n_iter_ == 8 for est in estimators)


def test_same_seeds_same_bits_and_the_global_generator_is_left_alone():
    tables, (X, _) = [table(0), table(1)], table(2)
    before = torch.get_rng_state()
    first, second = (
        [est.predict(X) for est in fit_together(regressors(2), tables)] for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.usefixtures("initialised_alike")
def test_each_stops_at_its_own_patience():
    tables = [table(seed, n_rows) for seed, n_rows in enumerate((60, 41, 90))]
    settings = without_draws(kind("erm", n_iter_no_change=3), max_epochs=200, lr=0.1)
    together = fit_together(regressors(3, **settings), tables)
    n_epochs = [est.n_iter_ for est in together]
    assert len(set(n_epochs)) == 3, "the test needs fits that end at different times"
    assert max(n_epochs) < 200
    for est, one, (X, y) in zip(together, regressors(3, **settings), tables, strict=True):
        assert_learnt_alike(est, one.fit(X, y), X)


def test_one_that_diverges_at_once_leaves_all_as_they_were(monkeypatch):
    tables = [table(0), table(1)]
    estimators = regressors(2, **without_draws(max_epochs=30))
    before = [vars(est).copy() for est in estimators]
    ensemble_init = Ensemble.__init__

    def spoilt(self, *args, **kwargs):
        ensemble_init(self, *args, **kwargs)
        with torch.no_grad():
            self.get_parameter("members.head.0.bias")[1] = torch.nan

    monkeypatch.setattr(Ensemble, "__init__", spoilt)
    with pytest.raises(ValueError, match="Training diverged"):
        fit_together(estimators, tables)
    assert [vars(est) for est in estimators] == before


class At(Callback):
    """Does something at the beginning of an epoch, counted from 1, of a kind."""

    def __init__(self, epoch, action, n_trained=1):
        self.epoch = epoch
        self.action = action
        self.n_trained = n_trained
        self.begun = 0

    def on_train_begin(self, net, **kwargs):
        self.begun += 1

    def on_epoch_begin(self, net, **kwargs):
        if self.begun == self.n_trained and len(net.history) == self.epoch:
            self.action(net)


def spoil(net):
    with torch.no_grad():
        net.module_.get_parameter("members.head.0.bias")[0] = torch.nan


def interrupt(net):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("initialised_alike")
def test_one_that_diverges_later_keeps_its_best_and_the_others_learn():
    tables = [table(0), table(1)]
    estimators = regressors(2, **without_draws(callbacks=[At(4, spoil)]))
    with pytest.warns(
        ConvergenceWarning, match="not finite in epoch 4; .* Kept the weights of epoch 3"
    ):
        diverged, est = fit_together(estimators, tables)
    three, one = regressors(2, **without_draws())
    X, y = tables[0]
    three.set_params(max_epochs=3, method=kind("erm")).fit(X, y)
    np.testing.assert_allclose(diverged.predict(X), three.predict(X), rtol=2e-3, atol=2e-3)
    X, y = tables[1]
    assert_learnt_alike(est, one.fit(X, y), X)


@pytest.mark.parametrize("lengths", [(60, 60), (60, 100)])
def test_interrupted_in_the_first_epoch_all_are_as_they_were(lengths):
    estimators = regressors(2, callbacks=[At(1, interrupt)])
    before = [vars(est).copy() for est in estimators]
    with pytest.raises(KeyboardInterrupt):
        fit_together(estimators, [table(seed, n_rows) for seed, n_rows in enumerate(lengths)])
    assert [vars(est) for est in estimators] == before


@pytest.mark.usefixtures("initialised_alike")
def test_interrupted_later_all_keep_what_they_have():
    tables = [table(0), table(1)]
    settings = without_draws(callbacks=[At(4, interrupt)])
    with pytest.warns(UserWarning, match="interrupted in epoch 4. Kept the weights of epoch 3"):
        together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        with pytest.warns(UserWarning, match="interrupted"):
            assert_learnt_alike(est, one.set_params(callbacks=[At(4, interrupt)]).fit(X, y), X)


@pytest.mark.filterwarnings("ignore:Training was interrupted")
@pytest.mark.usefixtures("initialised_alike")
def test_kinds_before_an_interrupted_one_are_kept():
    tables = [table(0), table(1)]
    settings = without_draws(*TWO_KINDS, callbacks=[At(1, interrupt, n_trained=2)])
    together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        one.set_params(method=[TWO_KINDS[0]], callbacks=None).fit(X, y)
        assert_learnt_alike(est, one, X)


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("lengths", [(60, 60), (60, 25)])
def test_every_member_has_neighbours_of_its_own(lengths, n_members):
    tables = [
        Table(*(torch.tensor(v, dtype=torch.float32) for v in (X, y[:, None])))
        for X, y in (table(seed, n_rows) for seed, n_rows in enumerate(lengths))
    ]
    held_out = [np.arange(0, n_rows, 5) for n_rows in lengths]
    divisions = [
        Division.holdout(np.setdiff1d(np.arange(n_rows), rows), rows)
        for n_rows, rows in zip(lengths, held_out, strict=True)
    ]
    joint = Division.side_by_side(divisions, n_members, lengths)
    data = DividedRows(Table.concatenate(tables), joint.train)
    loader = NeighborLoader(data, batch_size=60, n_neighbors=2, random_state=0)
    for m in range(2 * n_members):
        own, train = tables[m // n_members], divisions[m // n_members].train
        neighbors = nearest_neighbors(own.X[train], 2)
        for X, target in loader:
            row = (X[:, m, None] == own.X[train]).all(-1).float().argmax(1)
            assert torch.equal(own.X[train][row], X[:, m])
            assert torch.equal(own.y[train][row], target["y"][:, m])
            origin, partner = row.numpy().reshape(2, -1)
            assert (origin != partner).all()
            assert (neighbors[origin] == partner[:, None]).any(1).all()


@pytest.mark.parametrize("n_members", [1, 2])
def test_each_bends_at_the_quantiles_of_its_own_rows(n_members):
    tables = [(X * 10.0**seed, y) for seed, (X, y) in enumerate([table(0), table(1, 41)])]
    settings = {"n_knots": 5, "max_epochs": 1, "n_members": n_members}
    together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        states = [fit.net_.module_.state_dict() for fit in (est, one.fit(X, y))]
        (name,) = (name for name in states[0] if name.endswith("knots"))
        torch.testing.assert_close(*(state[name] for state in states))


@pytest.mark.parametrize("score", [log_likelihood, normal_crps])
def test_members_are_scored_at_their_own_points(score):
    torch.manual_seed(0)
    family, y = get_family("normal"), torch.randn(7, 3, 2)
    eta = family.natural(torch.randn(7, 3 * 4, 2, 2))
    together = score(family, eta, y.unsqueeze(2), 3)
    for m in range(3):
        alone = score(family, eta[:, 4 * m : 4 * m + 4], y[:, m, None, None])
        torch.testing.assert_close(together[:, m], alone[:, 0])


def unfitted(**params):
    return ProbMixupRegressor(**(SMALL | params))


@pytest.mark.parametrize(
    ("estimators", "tables", "message"),
    [
        ([], [], "at least 1"),
        (regressors(2), [table(0)], "2 estimators and 1 tables"),
        ([unfitted(), unfitted(lr=0.1)], [table(0), table(1)], "estimator 1 differs.*lr"),
        ([unfitted(validation=None)], [table(0)], "table 0 of 60 rows holds none out"),
        ([unfitted(warm_start=True)], [table(0)], "warm_start=True"),
        ([unfitted(), unfitted(method=kind(beta=0.1))], [table(0), table(1)], "differs.*method"),
        ([unfitted(n_members=4, validation=3)], [table(0)], "members for all of them alike"),
        (regressors(2), [table(0), table(1, n_outputs=2)], "table 1 has"),
        (regressors(2), [table(0), (table(1)[0][:, :2], table(1)[1])], r"table 1 has .*\(2,\)"),
        (classifiers(2), [labelled(0), (table(1)[0], np.arange(60) % 2)], "table 1 has"),
        (2 * regressors(1), [table(0), table(1)], "listed twice"),
    ],
)
def test_what_cannot_be_fitted_together(estimators, tables, message):
    with pytest.raises(ValueError, match=message):
        fit_together(estimators, tables)
    assert not any(hasattr(est, "nets_") for est in estimators)


def test_nothing_is_left_of_an_earlier_fit():
    X, y = table(0)
    settings = SMALL | {"method": "fast", "n_members": 2, "hidden_layer_sizes": None}
    fitted, new, alike = (ProbMixupRegressor(**settings, random_state=0) for _ in range(3))
    fitted.set_params(max_epochs=None, lr=None).fit(X, np.arange(60.0) % 3)
    assert fitted.values_ is not None
    assert fitted.is_count_
    fit_together([fitted.set_params(**settings), alike], [(X, y), (X, y)])
    fit_together([new, alike], [(X, y), (X, y)])
    assert fitted.values_ is None
    assert not fitted.is_count_
    np.testing.assert_array_equal(fitted.predict(X), new.predict(X))


@pytest.mark.parametrize("params", [{"family": "histogram"}, {"family": "lattice"}, "of kinds"])
def test_what_a_family_takes_from_a_table_is_not_shared(params):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.integers(5, size=60)
    if params == "of kinds":
        params = {"method": [kind("erm", family="gamma"), kind("erm")]}
    together = fit_together(regressors(2, **params), [(X, y + 1.0), (X, (y + 1.0) ** 2)])
    alone = regressors(2, **params)
    for est, one, power in zip(together, alone, (1, 2), strict=True):
        assert_same_bits(est, one.fit(X, (y + 1.0) ** power), X)
