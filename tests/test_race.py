"""The race of kinds: who gets how many steps, and what is delivered."""

import copy

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor, load_model, save_model
from sklearn_probmix.families import Normal
from sklearn_probmix.nets import Common, held_out_parameters
from sklearn_probmix.race import Entrant, race
from sklearn_probmix.table import Division, Table
from sklearn_probmix.training import Training, train


@pytest.fixture
def table():
    X = np.random.default_rng(0).normal(size=(60, 3))
    return X, X[:, 0] + 0.1 * X[:, 1]


_RACER = {"batch_size": 32, "n_iter_no_change": 5}
USELESS = Kind(hidden_layer_sizes=(4,), lr=1e-9, n_steps=300, **_RACER)
RACERS = (
    USELESS,
    Kind(hidden_layer_sizes=(), lr=0.03, n_steps=1000, **_RACER),
    Kind(hidden_layer_sizes=(), lr=0.05, n_steps=300, **_RACER),
    USELESS.updated(n_knots=3),
)


@pytest.fixture
def racers(monkeypatch):
    """Let "auto" be two kinds that learn and two that cannot."""
    for make in (ProbMixupRegressor, ProbMixupClassifier):
        monkeypatch.setattr(make, "_auto_kinds", RACERS)


def racer(make=ProbMixupRegressor, **parameters):
    return make(**{"n_members": 2, "calibration": "off", "random_state": 0} | parameters)


@pytest.mark.parametrize("validation", [0.5, "cv"])
@pytest.mark.parametrize("make", [ProbMixupRegressor, ProbMixupClassifier])
def test_kinds_without_a_share_in_the_mixture_are_not_delivered(
    racers, many_rows, make, validation
):
    X, y = many_rows
    y = y if make is ProbMixupRegressor else y > 0
    est = racer(make, validation=validation).fit(X, y)
    assert est.kinds_ == [kind.sized(200) for kind in RACERS[1:3]]
    assert len(est.nets_) == len(est.weights_) == 2
    assert {epoch["kind"] for epoch in est.history_} == {0, 1}
    # Not that of the trial, which had a fifth of the epochs.
    assert est.nets_[0].max_epochs == est.kinds_[0].max_epochs


@pytest.fixture
def many_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    return X, X[:, 0] + 0.3 * rng.normal(size=400)


def test_the_training_of_a_kind_that_enters_does_not_depend_on_who_does_not(racers, many_rows):
    raced = racer().fit(*many_rows)
    everyone = racer(method=[*RACERS]).fit(*many_rows)
    assert len(raced.nets_) == 2
    for kind, net in enumerate(raced.nets_):
        found, expected = (n.module_.state_dict() for n in (net, everyone.nets_[1 + kind]))
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


def test_callbacks_see_the_end_of_every_kind(racers, many_rows):
    class Open(Callback):
        n_begun = n_open = 0

        def on_train_begin(self, net, **kwargs):
            self.n_begun, self.n_open = self.n_begun + 1, self.n_open + 1

        def on_train_end(self, net, **kwargs):
            self.n_open -= 1

    callback = Open()
    est = racer(callbacks=[callback], validation=0.5).fit(*many_rows)
    assert (len(est.kinds_), callback.n_begun, callback.n_open) == (2, 4, 0)


@pytest.mark.parametrize(
    "parameters",
    [{"max_epochs": 2}, {"weighting": "uniform"}, {"validation": None}, {"method": [*RACERS]}],
)
def test_all_kinds_are_trained_where_there_is_no_race(racers, table, parameters):
    est = racer(**parameters).fit(*table)
    asked = [
        kind.updated(max_epochs=parameters.get("max_epochs", kind.max_epochs)) for kind in RACERS
    ]
    n_rows = 60 if "validation" in parameters else 30
    assert est.kinds_ == [kind.sized(n_rows) for kind in asked]


@pytest.mark.parametrize("go_on", ["fit", "partial_fit"])
def test_training_goes_on_with_the_kinds_that_entered(racers, many_rows, tmp_path, go_on):
    est = racer(warm_start=True).fit(*many_rows)
    assert len(est.kinds_) == 2
    save_model(est, tmp_path / "model")
    for entered in (est, load_model(tmp_path / "model")):
        before, n_epochs = entered.kinds_, len(entered.history_)
        getattr(entered.set_params(max_epochs=1, lr=0.02), go_on)(*many_rows)
        assert entered.kinds_ == [kind.updated(max_epochs=1, lr=0.02) for kind in before]
        assert len(entered.history_) == n_epochs + 2
        for changed in ({"method": [*RACERS]}, {"method": "erm"}, {"hidden_layer_sizes": (5,)}):
            with pytest.raises(ValueError, match="the parameters were changed since fit"):
                getattr(copy.deepcopy(entered).set_params(**changed), go_on)(*many_rows)


def division_of(n_rows, n_members=2):
    return Division.folds(np.array_split(np.arange(n_rows), n_members), n_members)


def entrants_of(kinds, many_rows):
    X, y = (torch.tensor(values, dtype=torch.float32) for values in many_rows)
    table = Table(X, y[:, None])
    common = Common(Normal(), n_features=3, n_outputs=1, n_members=2)
    return [Entrant(kind.sized(200), common, table, seed) for seed, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    "kind",
    [
        Kind("probmix", hidden_layer_sizes=(8, 4), dropout=0.2, lr_schedule="averaged"),
        Kind("m-probmix", hidden_layer_sizes=(8, 4), n_neighbors=3),
        Kind(network="kernel", hidden_layer_sizes=(8, 4), lr_schedule="averaged", dropout=0.1),
    ],
)
def test_training_in_parts_gives_the_bits_of_training_at_once(many_rows, kind):
    (entrant,) = entrants_of([kind.updated(max_epochs=7, batch_size=64)], many_rows)
    own, common, table, seed, _ = entrant
    division = division_of(400)
    training = Training(own, common, table, division, seed=seed)
    for n_epochs in (1, 2, 0, 4):
        training.advance(n_epochs)
        with training.at_best() as net:
            held_out_parameters(net, table, division)
    in_parts, at_once = training.end(), train(own, common, table, division, seed=seed)
    assert in_parts.n_epochs == at_once.n_epochs == 7
    np.testing.assert_array_equal(in_parts.best_epoch, at_once.best_epoch)
    losses = [[epoch["train_loss"] for epoch in new.net.history] for new in (in_parts, at_once)]
    assert losses[0] == losses[1]
    found, expected = (new.net.module_.state_dict() for new in (in_parts, at_once))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


class Judge:
    """Scores by the number of epochs that were made, in place of predictions."""

    def __init__(self, score):
        self.score, self.n_epochs = score, []

    def __call__(self, net):
        self.n_epochs.append(len(net.history))
        noise = np.random.default_rng(0).normal(scale=1e-3, size=400)
        return np.full(400, float(self.score(len(net.history)))) + noise * len(net.history)


# 200 training rows in batches of 20: a rung ends after 20, 40, 80, 160 epochs.
RUNGS = [20, 40, 80, 160]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (lambda n: 0.5 + np.log(n), RUNGS),  # gains with every rung
        (lambda n: 3.8 + min(n, 40) / 100, RUNGS[:3]),  # has learnt all at 40
        (lambda n: 3.6 - n / 100, RUNGS[:2]),  # gets worse
        (lambda n: 3.5 + 0.01 * np.log(n), RUNGS[:2]),  # gains, and is hopeless
        (lambda n: 4.6 - 24 / n, RUNGS),  # behind at first, and gains quickly
        (lambda n: -9 + n / 10, RUNGS[:1]),  # so far behind that no gain helps
    ],
)
def test_a_kind_runs_for_as_long_as_it_gains_and_may_help(many_rows, score, expected):
    kind = Kind(hidden_layer_sizes=(), max_epochs=160, batch_size=20, n_iter_no_change=None)
    other, judge = Judge(lambda n: 4.0), Judge(score)
    race(entrants_of([kind, kind], many_rows), division_of(400), [other, judge], np.ones(400))
    assert judge.n_epochs == expected
    assert other.n_epochs == RUNGS[:2]


@pytest.mark.parametrize(
    ("network", "score", "of_few_rows", "of_many_rows"),
    [
        # Far behind at first, near the best by what is still to come.
        ("mlp", lambda n: 3.1 + 0.1 * np.log2(n / 20), RUNGS[:1], RUNGS),
        ("mlp", lambda n: 2.5 + 0.1 * np.log2(n / 20), RUNGS[:1], RUNGS[:2]),  # not near it
        ("mlp", lambda n: 3.2 - n / 100, RUNGS[:1], RUNGS[:2]),  # gets worse
        # Not the best of its network.
        ("kernel", lambda n: 3.1 + 0.1 * np.log2(n / 20), RUNGS[:1], RUNGS[:1]),
    ],
)
def test_the_best_of_each_network_goes_on_where_rows_are_many(
    many_rows, monkeypatch, network, score, of_few_rows, of_many_rows
):
    common = {"max_epochs": 160, "batch_size": 20, "n_iter_no_change": None}
    kernel = Kind(network="kernel", hidden_layer_sizes=(2,), **common)
    kind = kernel if network == "kernel" else Kind(hidden_layer_sizes=(), **common)
    for least, expected in ((201, of_few_rows), (200, of_many_rows)):
        monkeypatch.setattr("sklearn_probmix.race.MANY_ROWS", least)
        other, judge = Judge(lambda n: 4.0), Judge(score)
        race(entrants_of([kernel, kind], many_rows), division_of(400), [other, judge], np.ones(400))
        assert (judge.n_epochs, other.n_epochs) == (expected, RUNGS[:2])


def test_where_all_are_of_one_network_none_goes_on_for_it(many_rows, monkeypatch):
    monkeypatch.setattr("sklearn_probmix.race.MANY_ROWS", 200)
    kind = Kind(hidden_layer_sizes=(), max_epochs=160, batch_size=20, n_iter_no_change=None)
    kinds = [kind.updated(max_epochs=20), kind]
    other, judge = Judge(lambda n: 4.0), Judge(lambda n: 3.6 + 0.05 * np.log2(n / 20))
    race(entrants_of(kinds, many_rows), division_of(400), [other, judge], np.ones(400))
    # Still gaining and near, but not about to overtake the other, which has ended.
    assert (judge.n_epochs, other.n_epochs) == (RUNGS[:2], RUNGS[:1])


def test_rows_count_by_their_weight(many_rows):
    # Learns the rows of weight, and gets worse on the others.
    light = np.arange(400) % 2 == 1
    kind = Kind(hidden_layer_sizes=(), max_epochs=160, batch_size=20, n_iter_no_change=None)
    entrants = entrants_of([kind], many_rows)
    for least, expected in ((1.0, RUNGS[:2]), (1e-6, RUNGS)):
        judge = Judge(np.log)

        def judged(net, judge=judge):
            return judge(net) * np.where(light, -3, 1)

        race(entrants, division_of(400), [judged], np.where(light, least, 1.0))
        assert judge.n_epochs == expected


def test_what_the_mixture_does_not_need_is_not_delivered(many_rows):
    kind = Kind(hidden_layer_sizes=(), max_epochs=20, batch_size=20)
    judges = [Judge(lambda n: 0.0), Judge(lambda n: -20.0), Judge(lambda n: -np.inf)]
    outcomes = race(entrants_of([kind] * 3, many_rows), division_of(400), judges, np.ones(400))
    assert [new is not None for new in outcomes] == [True, False, False]
    assert outcomes[0].n_epochs == 20


def test_the_longest_run_is_that_of_the_kind(many_rows):
    kind = Kind(hidden_layer_sizes=(), max_epochs=50, batch_size=20, n_iter_no_change=None)
    judge = Judge(np.log)
    (only,) = race(entrants_of([kind], many_rows), division_of(400), [judge], np.ones(400))
    assert judge.n_epochs == [20, 40, 50]
    assert only.n_epochs == len(only.net.history) == 50
    assert only.net.loader is None


def test_a_rung_shorter_than_an_epoch_ends_no_run(many_rows, monkeypatch):
    monkeypatch.setattr("sklearn_probmix.race._FIRST_RUNG", 20)
    # Rungs end after 20, 40, 80, ... steps, epochs after 50.
    kind = Kind(hidden_layer_sizes=(), max_epochs=6, batch_size=4, n_iter_no_change=None)
    judge = Judge(np.log)
    (only,) = race(entrants_of([kind], many_rows), division_of(400), [judge], np.ones(400))
    assert judge.n_epochs == [1, 2, 4, 6]
    assert only.n_epochs == 6


@pytest.mark.parametrize(
    ("batch_size", "n_steps", "patience", "n_epochs"), [("full", 4, 3, 13), (80, 6, 5, 25)]
)
def test_an_epoch_of_few_steps_is_a_few_passes(many_rows, batch_size, n_steps, patience, n_epochs):
    kind = Kind(lr=0.0, weight_decay=0.0, max_epochs=50, batch_size=batch_size, n_iter_no_change=10)
    (only,) = race(entrants_of([kind], many_rows), division_of(400), [Judge(np.log)], np.ones(400))
    assert {epoch["train_batch_count"] for epoch in only.net.history} == {n_steps}
    # Nothing improves on the first epoch; patience is that of as many steps, or a few more.
    assert only.stop_reason == "patience"
    assert only.n_epochs == 1 + patience
    patient = kind.updated(n_iter_no_change=None)
    entrants = entrants_of([patient], many_rows)
    (only,) = race(entrants, division_of(400), [Judge(np.log)], np.ones(400))
    # As many passes as the kind has, or a few more.
    assert only.n_epochs == n_epochs
