"""Fits in one pass, against the same fits one by one."""

import numpy as np
import pytest
import torch
from one_network import ONE_NETWORK
from skorch import NeuralNet

from sklearn_probmix import (
    NegativeLogLikelihood,
    NeighborLoader,
    ProbMixupClassifier,
    ProbMixupRegressor,
    fit_together,
)
from sklearn_probmix.callbacks import BestEpoch
from sklearn_probmix.criterion import log_likelihood, normal_crps
from sklearn_probmix.datasets import make_rings
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import get_family
from sklearn_probmix.loaders import nearest_neighbors
from sklearn_probmix.modules import MLP
from sklearn_probmix.training import Part

SMALL = ONE_NETWORK | {"hidden_layer_sizes": (8,), "n_draws": 4, "max_epochs": 8, "lr": 0.02}


def table(seed, n_rows=60, n_outputs=1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3))
    y = X[:, :n_outputs] * 10.0**seed + 0.3 * rng.normal(size=(n_rows, n_outputs))
    return X, y[:, 0] if n_outputs == 1 else y


def regressors(n, **params):
    return [ProbMixupRegressor(**(SMALL | params), random_state=seed) for seed in range(n)]


def without_draws(**params):
    """Settings in which nothing is drawn but the initialisation: full batches, no mixing."""
    return {"method": "erm", "batch_size": None, **params}


@pytest.mark.parametrize("family", ["normal", "homoscedastic-normal"])
@pytest.mark.parametrize("lengths", [(60, 60), (60, 41)])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_networks_learn_as_they_would_alone(family, lengths, n_outputs, monkeypatch):
    # Initialised alike, since an ensemble draws the weights of all its members at once.
    def alike(self, *args, **kwargs):
        init(self, *args, **kwargs)
        with torch.no_grad():
            for k, weight in enumerate(self.parameters()):
                weight.copy_(torch.linspace(-0.3, 0.5 + 0.1 * k, weight.numel()).view_as(weight))

    init = MLP.__init__
    monkeypatch.setattr(MLP, "__init__", alike)
    tables = [table(seed, n_rows, n_outputs) for seed, n_rows in enumerate(lengths)]
    settings = without_draws(family=family)
    together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        one.fit(X, y)
        losses = [[epoch["valid_loss"] for epoch in fit.history_] for fit in (est, one)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        np.testing.assert_allclose(est.predict(X), one.predict(X), rtol=1e-3, atol=1e-3)
        assert est.best_epoch_ == one.best_epoch_
        assert est.y_scale_ == pytest.approx(one.y_scale_)


@pytest.mark.parametrize(
    "params",
    [
        {"method": "mixup"},
        {"method": "manifold-mixup", "n_neighbors": 3},
        {"method": "probmix", "pooling": "linear", "beta": 0.01},
        {"method": "probmix", "n_neighbors": 3, "response": "expected"},
        {"method": "m-probmix", "beta": 0.01},
        {"method": "m-probmix", "embedding_variance": "separate", "n_neighbors": 3},
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
    settings = SMALL | {"method": "probmix", "max_epochs": 150, "hidden_layer_sizes": (32,)}
    estimators = [ProbMixupClassifier(**settings, random_state=seed) for seed in range(2)]
    for est, (X, y) in zip(fit_together(estimators, tables), tables, strict=True):
        assert est.score(X, y) > 0.8


def test_a_single_table():
    X, y = table(0)
    (est,) = fit_together(regressors(1, max_epochs=150), [(X, y)])
    assert est.score(X, y) > 0.8


def test_same_seeds_same_bits_and_the_global_generator_is_left_alone():
    tables, (X, _) = [table(0), table(1)], table(2)
    before = torch.get_rng_state()
    first, second = (
        [est.predict(X) for est in fit_together(regressors(2), tables)] for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_each_stops_at_its_own_patience():
    scores = iter(np.array([[3.0, 3.0], [2.0, 3.5], [2.5, 3.5], [1.0, 1.0], [2, 2], [2, 2]]))
    best = BestEpoch(patience=2, n_members=2, apart=True)
    best.best_epoch_, best.best_score_ = np.zeros(2, int), np.full(2, np.inf)
    kept = []
    for epoch, score in enumerate(scores, start=1):
        better = best.improves(score, epoch)
        best.best_epoch_[better], best.best_score_[better] = epoch, score[better]
        kept.append(best.best_epoch_.tolist())
    # The second had gone two epochs without a better score when it found one.
    assert kept[-1] == [4, 1]


def test_one_that_diverges_leaves_all_as_they_were():
    tables = [table(0), table(1)]
    estimators = regressors(2, **without_draws(max_epochs=30))
    ensemble_init = Ensemble.__init__

    def spoilt(self, *args, **kwargs):
        ensemble_init(self, *args, **kwargs)
        with torch.no_grad():
            self.get_parameter("members.head.0.bias")[0] = torch.nan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ensemble, "__init__", spoilt)
        with pytest.raises(ValueError, match="diverged"):
            fit_together(estimators, tables)
    assert not any(hasattr(est, "nets_") for est in estimators)


@pytest.mark.parametrize("lengths", [(60, 60), (60, 25)])
def test_every_member_has_neighbours_of_its_own(lengths):
    tables = [table(seed, n_rows) for seed, n_rows in enumerate(lengths)]
    parts = [
        Part(*(torch.tensor(v, dtype=torch.float32) for v in (X, y[:, None]))) for X, y in tables
    ]
    joint = Part.side_by_side(parts)
    loader = NeighborLoader(
        joint._replace(weight=None).dataset(),
        batch_size=60,
        n_neighbors=2,
        random_state=0,
        own_rows=lengths,
    )
    for m, part in enumerate(parts):
        neighbors = nearest_neighbors(part.X, 2)
        for X, y in loader:
            row = (X[:, m, None] == part.X).all(-1).float().argmax(1)
            assert torch.equal(part.y[row], y[:, m])
            origin, partner = row.numpy().reshape(2, -1)
            assert (origin != partner).all()
            assert (neighbors[origin] == partner[:, None]).any(1).all()


def test_each_bends_at_the_quantiles_of_its_own_rows():
    tables = [(X * 10.0**seed, y) for seed, (X, y) in enumerate([table(0), table(1, 41)])]
    settings = {"n_knots": 5, "max_epochs": 1}
    together = fit_together(regressors(2, **settings), tables)
    for est, one, (X, y) in zip(together, regressors(2, **settings), tables, strict=True):
        knots = [fit.net_.module_.encoder.knots for fit in (est, one.fit(X, y))]
        torch.testing.assert_close(*knots)


def test_a_short_table_learns_from_its_neighbours_too():
    tables = [table(0, 400), table(1, 40)]
    settings = {"method": "mixup", "n_neighbors": 3, "max_epochs": 100, "batch_size": 20}
    with pytest.warns(UserWarning, match="train on 32 to 320 rows"):
        fitted = fit_together(regressors(2, **settings), tables)
    for est, (X, y) in zip(fitted, tables, strict=True):
        assert est.score(X, y) > 0.8


@pytest.mark.parametrize("score", [log_likelihood, normal_crps])
def test_members_are_scored_at_their_own_points(score):
    torch.manual_seed(0)
    family, y = get_family("normal"), torch.randn(7, 3, 2)
    eta = family.natural(torch.randn(7, 3 * 4, 2, 2))
    together = score(family, eta, y.reshape(7, 1, 6), 3)
    for m in range(3):
        alone = score(family, eta[:, 4 * m : 4 * m + 4], y[:, m : m + 1])
        torch.testing.assert_close(together[..., m], alone[..., 0])


def unfitted(**params):
    return ProbMixupRegressor(**(SMALL | params))


@pytest.mark.parametrize(
    ("estimators", "tables", "message"),
    [
        ([], [], "at least 1"),
        (regressors(2), [table(0)], "2 estimators and 1 tables"),
        ([unfitted(), unfitted(lr=0.1)], [table(0), table(1)], "estimator 1 differs.*lr"),
        ([unfitted(n_members=3)], [table(0)], "n_members=3"),
        ([unfitted(method=["erm", "probmix"])], [table(0)], "one method"),
        (regressors(2), [table(0), table(1, n_outputs=2)], "table 1 has"),
        (regressors(2), [table(0), table(1, n_rows=9)], "9 rows, too few"),
        (2 * regressors(1), [table(0), table(1)], "listed twice"),
        ([unfitted(net=NeuralNet(MLP, NegativeLogLikelihood))], [table(0)], "net= is one's own"),
        ([ProbMixupClassifier(class_weight="balanced")], [table(0)], "class_weight='balanced'"),
    ],
)
def test_what_cannot_be_fitted_together(estimators, tables, message):
    with pytest.raises(ValueError, match=message):
        fit_together(estimators, tables)
    assert not any(hasattr(est, "nets_") for est in estimators)
