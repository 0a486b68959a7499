"""Several networks in one pass, folds, stacked kinds: each against doing it one by one."""

import logging

import numpy as np
import pytest
import torch
from one_network import ONE_NETWORK
from scipy import stats
from sklearn.model_selection import KFold
from skorch import NeuralNet
from torch import nn

from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    PredictiveDistribution,
    ProbMixup,
    ProbMixupClassifier,
    ProbMixupRegressor,
    TensorLoader,
)
from sklearn_probmix.calibration import stacking_weights
from sklearn_probmix.criterion import log_likelihood, normal_crps
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import Normal, get_family
from sklearn_probmix.metrics import crps, nll
from sklearn_probmix.modules import MLP
from sklearn_probmix.nets import held_out_parameters, natural_parameters
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.scaling import scale_columns
from sklearn_probmix.table import DividedRows, Division, Table


def kind(method="m-probmix", **fields):
    return Kind(method, **{"lr_schedule": "constant", "n_draws": 4, **fields})


SMALL = ONE_NETWORK | {"method": kind(), "hidden_layer_sizes": (16, 8), "random_state": 0}


def regressor(**params):
    return ProbMixupRegressor(**(SMALL | params))


def classifier(**params):
    return ProbMixupClassifier(**(SMALL | params))


class Recurrent(nn.Module):
    """An LSTM, which vmap cannot batch."""

    def __init__(self, n_features=2, family="normal"):
        super().__init__()
        self.family = get_family(family)
        self.embedding = nn.LSTM(n_features, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        sequence, _ = self.embedding(X)
        return self.family.natural(self.head(sequence[:, -1]).unsqueeze(1))


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    return X, X[:, 0] + 0.3 * rng.normal(size=60)


def member_states(ensemble):
    return [ensemble.state_of(member) for member in range(ensemble.n_members)]


def net_of(module, n_members, **kwargs):
    torch.manual_seed(0)
    return NeuralNet(
        module,
        NegativeLogLikelihood,
        criterion__n_members=n_members,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=3,
        batch_size=16,
        train_split=None,
        iterator_train=TensorLoader,
        iterator_train__shuffle=True,
        iterator_train__random_state=0,
        callbacks=[ProbMixup(site="output", alpha=0.5, random_state=1)],
        verbose=0,
        **kwargs,
    ).initialize()


@pytest.mark.parametrize(
    ("module", "arguments", "shape"),
    [
        (MLP, {"n_features": 3, "hidden_layer_sizes": (8,)}, (60, 3)),
        (Recurrent, {"n_features": 3}, (60, 5, 3)),
    ],
)
def test_members_train_as_separate_nets_with_the_same_draws(module, arguments, shape):
    rng = np.random.default_rng(0)
    X = rng.normal(size=shape).astype("float32")
    y = X.reshape(60, -1)[:, 0]
    arguments = {f"module__{name}": value for name, value in arguments.items()}
    together = net_of(Ensemble, 2, module__module=module, module__n_members=2, **arguments)
    alone = [net_of(module, 1, **arguments) for _ in range(2)]
    for net, state in zip(alone, member_states(together.module_), strict=True):
        net.module_.load_state_dict(state)
    for net in (together, *alone):
        net.partial_fit(X, y)
    for net, state in zip(alone, member_states(together.module_), strict=True):
        for name, value in net.module_.named_parameters():
            torch.testing.assert_close(state[name], value.detach(), rtol=1e-5, atol=1e-6)


def test_a_module_that_vmap_cannot_batch_is_looped_over_and_says_so(caplog):
    torch.manual_seed(0)
    ensemble = Ensemble(Recurrent, 3)
    X = torch.randn(7, 5, 2)
    with caplog.at_level(logging.INFO, logger="sklearn_probmix.ensemble"):
        first, _ = ensemble(X), ensemble(X)
    assert ensemble.vectorised is False
    assert len(caplog.records) == 1
    member = Recurrent()
    member.load_state_dict(member_states(ensemble)[2])
    torch.testing.assert_close(first[:, 2:3], member(X).unsqueeze(1))


def test_loop_and_vmap_agree():
    torch.manual_seed(0)
    ensemble = Ensemble(MLP, 3, n_features=2).eval()
    X, own = torch.randn(7, 2), torch.randn(5, 3, 2)
    in_one_pass = ensemble(X), ensemble.each(own)
    assert ensemble.vectorised
    ensemble.vectorised = False
    for one, other in zip(in_one_pass, (ensemble(X), ensemble.each(own)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("method", ["erm", "m-probmix"])
@pytest.mark.parametrize(
    "family", ["normal", "homoscedastic-normal", "gamma", "poisson", "negative-binomial"]
)
def test_every_family_is_fitted_by_members_with_draws(table, family, method, n_members):
    X, y = table
    counts = np.ceil(np.exp(y))
    est = regressor(family=family, method=kind(method), n_members=n_members, max_epochs=2)
    assert np.isfinite(est.fit(X, counts).predict_proba(X).logpdf(counts)).all()


def test_shared_parameters_of_stacked_members_are_each_its_own():
    ensemble = Ensemble(
        MLP,
        2,
        n_features=3,
        n_outputs=2,
        family="homoscedastic-normal",
        hidden_layer_sizes=(6,),
        embedding="gaussian",
        n_draws=4,
    ).eval()
    with torch.no_grad():
        ensemble.members.shared.copy_(torch.tensor([-1.0, 0.5, 1.0, 2.0]).view(2, 2, 1))
    X = torch.randn(5, 3)
    eta = ensemble(X).unflatten(1, (2, 4))
    for member in range(2):
        alone = MLP(3, 2, "homoscedastic-normal", (6,), embedding="gaussian", n_draws=4).eval()
        alone.load_state_dict(ensemble.state_of(member))
        torch.testing.assert_close(eta[:, member], alone(X))


def test_criterion_is_the_sum_of_the_members_mean_losses():
    torch.manual_seed(0)
    family, y = Normal(), torch.randn(9, 2)
    eta = family.natural(torch.randn(9, 6, 2, 2))
    mask = torch.ones(9, 3)
    mask[:4, 1] = 0
    together = NegativeLogLikelihood(family, n_members=3)(eta, {"y": y.unsqueeze(1), "mask": mask})
    alone = [
        NegativeLogLikelihood(family)(eta[mask[:, m] > 0][:, 2 * m : 2 * m + 2], y[mask[:, m] > 0])
        for m in range(3)
    ]
    torch.testing.assert_close(together, sum(alone))


def test_variance_weighting_multiplies_rows_by_a_constant_power_of_the_variance():
    torch.manual_seed(0)
    raw = torch.randn(9, 1, 2, requires_grad=True)
    family, y = Normal(), torch.randn(9)
    criterion = NegativeLogLikelihood(family, variance_weighting=0.5)
    eta = family.natural(raw)
    loss = criterion(eta, y)
    sd = family.moments(eta)[1].detach().sqrt()[:, 0]
    expected = -(sd * family.log_prob(eta, y[:, None])[:, 0]).mean()
    torch.testing.assert_close(loss, expected)
    gradients = [
        torch.autograd.grad(value, raw, retain_graph=True)[0] for value in (loss, expected)
    ]
    torch.testing.assert_close(*gradients)
    unweighted = NegativeLogLikelihood(family)(eta, y)
    torch.testing.assert_close(criterion.eval()(eta, y), unweighted)


def test_crps_that_chooses_epochs_equals_the_metric():
    torch.manual_seed(0)
    family, y = Normal(), torch.randn(9, 1)
    eta = family.natural(torch.randn(9, 2, 1, 2))
    ours = normal_crps(family, eta, y[:, None, None], n_members=2)[..., 0].mean(0)
    for member in range(2):
        parameters = family.scipy_parameters(eta[:, member])
        dist = PredictiveDistribution("norm", {k: v.numpy() for k, v in parameters.items()})
        assert ours[member].item() == pytest.approx(crps(y[:, 0].numpy(), dist), rel=1e-5)


def test_mixture_weights_enter_the_likelihood_of_each_member():
    torch.manual_seed(0)
    family, y = Normal(), torch.randn(5, 1, 1, 1)
    eta = family.natural(torch.randn(5, 4, 1, 2))
    within = torch.tensor([0.2, 0.8, 0.5, 0.5])
    mixture = Mixture(eta, (within / 2).log().expand(5, -1))
    ours = log_likelihood(family, mixture, y, n_members=2)[..., 0]
    density = family.log_prob(eta, y[:, 0])[..., 0].exp() * within
    torch.testing.assert_close(ours, density.reshape(5, 2, 2).sum(-1).log())


@pytest.mark.parametrize("validation", ["holdout", "cv"])
@pytest.mark.parametrize("method", ["erm", "m-probmix"])
def test_each_member_keeps_the_weights_of_its_own_best_epoch(table, validation, method):
    X, y = table
    est = regressor(method=kind(method), n_members=3, validation=validation, max_epochs=12, lr=0.05)
    recorded = []

    class Recorder(ProbMixup):
        def __init__(self):
            super().__init__(alpha=0.0)

        def on_epoch_end(self, net, **kwargs):
            best = dict(net.callbacks_)["best_epoch"]
            recorded.append((best.best_score_.copy(), best.best_epoch_.copy()))

    est.set_params(callbacks=[Recorder()]).fit(X, y)
    scores, epochs = recorded[-1]
    assert len(set(epochs)) > 1, "the test needs members with different best epochs"
    np.testing.assert_array_equal(est.best_epoch_, [epochs])
    if validation == "cv":
        log_p = est.oof_predictive_.logpdf(y) + np.log(est.y_scale_)
        folds = [np.flatnonzero(fold) for fold in fold_of_rows(est, X, y)]
        per_fold = [-log_p[fold].mean() for fold in folds]
        np.testing.assert_allclose(per_fold, scores, rtol=1e-4)


def fold_of_rows(est, X, y):
    """Find the folds again that the seed gives."""
    seed = np.random.RandomState(est.random_state).randint(2**31)
    folds = KFold(est.n_members, shuffle=True, random_state=seed).split(X)
    return [np.isin(np.arange(len(y)), fold) for _, fold in folds]


def test_a_held_out_row_does_not_touch_its_member(table):
    X, y = table
    own = kind("probmix", n_iter_no_change=None)
    est = regressor(method=own, n_members=3, validation="cv", max_epochs=4)
    before = member_states(est.fit(X, y).net_.module_)
    best_epoch = est.best_epoch_[0, 0]
    (fold, *_) = fold_of_rows(est, X, y)
    spoilt = y.copy()
    # A swap keeps the standardisation of y.
    first, second = np.flatnonzero(fold)[:2]
    spoilt[[first, second]] = y[[second, first]]
    after = member_states(est.fit(X, spoilt).net_.module_)
    same = [
        all(torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(before, after, strict=True)
    ]
    assert est.best_epoch_[0, 0] == best_epoch, "the swap must not move the best epoch"
    assert same == [True, False, False]


@pytest.mark.parametrize(
    ("own", "n_components"), [(kind(), 4), (kind("erm", network="kernel"), 33)]
)
def test_out_of_fold_rows_come_from_the_member_that_held_them_out(table, own, n_components):
    X, y = table
    est = regressor(method=own, n_members=3, validation="cv", max_epochs=3)
    est.fit(X, y)
    folds = [np.flatnonzero(fold) for fold in fold_of_rows(est, X, y)]
    x = scale_columns(est.scaler_, X)
    everything = natural_parameters(est.net_, x)
    table = Table(x, torch.zeros(len(y), 1))
    held_out = held_out_parameters(est.net_, table, Division.folds(folds, 3))
    assert everything.eta.shape[1] == 3 * n_components
    for member, fold in enumerate(folds):
        own = slice(n_components * member, n_components * (member + 1))
        torch.testing.assert_close(held_out.eta[fold], everything.eta[fold, own])
        weights = everything.log_weights[fold, own].log_softmax(-1)
        torch.testing.assert_close(held_out.log_weights[fold], weights)
        parameters = est.family_.scipy_parameters(
            everything.eta[fold, own], *est._response(est.kinds_[0])[1:3]
        )
        oof = {name: value[..., 0].numpy() for name, value in parameters.items()}
        dist = PredictiveDistribution("norm", oof, weights=weights.double().exp().numpy())
        np.testing.assert_allclose(est.oof_predictive_[fold].mean(), dist.mean(), rtol=1e-6)


def test_folds_fewer_than_members_are_held_out_by_several(table):
    X, y = table
    est = regressor(method=kind("probmix"), n_members=6, validation=3, max_epochs=3).fit(X, y)
    seed = np.random.RandomState(est.random_state).randint(2**31)
    everyone = est.predict_proba(X)
    assert everyone.n_components == 6
    assert est.oof_predictive_.n_components == 2
    for fold, (_, rows) in enumerate(KFold(3, shuffle=True, random_state=seed).split(X)):
        for name in ("loc", "scale"):
            holders = everyone.params[name][rows][:, [fold, fold + 3]]
            np.testing.assert_array_equal(est.oof_predictive_.params[name][rows], holders)


def test_folds_of_unequal_size_end_in_no_row():
    division = Division.folds([np.array([0, 2, 4]), np.array([1, 3])], 2)
    assert division.valid.T.tolist() == [[0, 2, 4], [1, 3, -1]]
    assert division.train.T.tolist() == [[1, 3, -1], [0, 2, 4]]
    rows = DividedRows(
        Table(torch.arange(5.0)[:, None], torch.arange(5.0)[:, None]), division.train
    )
    X, target = rows[:]
    assert X[..., 0].T.tolist() == [[1, 3, 4], [0, 2, 4]]
    assert torch.equal(target["y"], X)
    # Which row stands where none is has no say.
    assert target["mask"].T.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_kinds_are_stacked_by_their_out_of_fold_scores(table):
    X, y = table
    good, bad = kind("erm", max_epochs=60, lr=0.02), kind("erm", max_epochs=1, lr=1e-6)
    est = regressor(method=[good, bad], n_members=3, validation="cv", max_epochs=None)
    est.fit(X, y)
    assert est.weights_[0] > 0.9
    uniform = est.set_params(weighting="uniform").fit(X, y)
    np.testing.assert_allclose(uniform.weights_, 0.5)


@pytest.mark.parametrize("step", [0.0, 0.5])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_kinds_are_judged_by_the_probability_of_the_cell_around_a_response(table, step, n_outputs):
    X, y = table
    y = np.stack([y, y**2], axis=1)[:, :n_outputs]
    # The last output is not rounded.
    y[:, 0] = step * np.rint(y[:, 0] / step) if step else y[:, 0]
    kinds = [kind("erm", lr=0.05), kind("erm", hidden_layer_sizes=())]
    own = {"method": kinds, "hidden_layer_sizes": None, "max_epochs": 20}
    est = regressor(**own).fit(X, y, X_val=X[:20], y_val=y[:20])
    # What is not rounded is told apart within the median gap.
    gaps = [np.median(np.diff(np.unique(column))) for column in y.T]
    cell = np.array([step or gaps[0], *gaps[1:]])
    scores = []
    for net in est.nets_:
        eta = natural_parameters(net, scale_columns(est.scaler_, X[:20])).eta[:, 0]
        law = stats.norm(
            *est.family_.scipy_parameters(eta, *est._response(est.kinds_[0])[1:3]).values()
        )
        inside = law.cdf(y[:20] + cell / 2) - law.cdf(y[:20] - cell / 2)
        scores.append(np.log(inside).sum(1))
    np.testing.assert_allclose(est.weights_, stacking_weights(np.stack(scores, 1)), rtol=1e-5)


def test_prediction_is_the_weighted_mixture_of_the_kinds(table):
    X, y = table
    est = regressor(method=[kind("erm"), kind()], n_members=2, max_epochs=3).fit(X, y)
    parts = []
    for net in est.nets_:
        eta, _ = natural_parameters(net, scale_columns(est.scaler_, X))
        parameters = est.family_.scipy_parameters(eta, *est._response(est.kinds_[0])[1:3])
        parts.append(
            PredictiveDistribution("norm", {k: v[..., 0].numpy() for k, v in parameters.items()})
        )
    expected = sum(weight * part.pdf(y) for weight, part in zip(est.weights_, parts, strict=True))
    np.testing.assert_allclose(est.predict_proba(X).pdf(y), expected, rtol=1e-6)


def test_out_of_fold_scores_of_a_regressor(table):
    X, y = table
    kinds = [kind("erm"), kind("probmix")]
    est = regressor(method=kinds, n_members=3, validation="cv", max_epochs=20).fit(X, y)
    assert est.oof_predictive_.shape == y.shape
    assert est.oof_scores_["nll"] == pytest.approx(nll(y, est.oof_predictive_))
    assert est.oof_scores_["crps"] == pytest.approx(crps(y, est.oof_predictive_))
    inside = [
        low <= truth <= high
        for low, truth, high in zip(
            est.oof_predictive_.ppf(0.05), y, est.oof_predictive_.ppf(0.95), strict=True
        )
    ]
    assert est.oof_scores_["coverage"] == pytest.approx(np.mean(inside))


def test_out_of_fold_probabilities_of_a_classifier(table):
    X, y = table
    labels = np.where(y > 0, "up", "down")
    est = classifier(
        method=[kind("erm"), kind("probmix")],
        n_members=3,
        validation="cv",
        max_epochs=30,
        calibration="on",
    ).fit(X, labels)
    p = est.oof_predictive_
    np.testing.assert_allclose(p.sum(1), 1)
    truth = np.searchsorted(est.classes_, labels)
    assert est.oof_scores_["nll"] == pytest.approx(-np.log(p[np.arange(60), truth]).mean())
    assert est.oof_scores_["accuracy"] > 0.8
    assert est.calibration_.temperature > 0


def test_calibration_repairs_a_spread_that_is_too_small(table):
    X, y = table
    # The epoch of the best mean comes after that of the best spread.
    arguments = {"n_members": 3, "validation": "cv", "max_epochs": 200, "lr": 0.02}
    arguments["method"] = [kind("erm", monitor="crps")]
    raw = regressor(calibration="off", **arguments).fit(X, y)
    repaired = regressor(calibration="on", **arguments).fit(X, y)
    assert repaired.oof_scores_["nll"] < raw.oof_scores_["nll"]
    spread = repaired.calibration_
    dists = [est.predict_proba(X[:4]) for est in (raw, repaired)]
    variance = [(dist.params["scale"] / raw.y_scale_.item()) ** 2 for dist in dists]
    np.testing.assert_allclose(variance[1], spread.apply(variance[0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"validation": "cv", "n_members": 1}, "n_members=1"),
        ({"validation": "cv", "n_members": 61}, "61 folds of 60 rows"),
        ({"validation": 3, "n_members": 4}, "3 folds.*members for all of them alike"),
        ({"method": ["erm", "mixdown"]}, "mixdown"),
        ({"method": [{"method": "erm", "widths": 3}]}, "widths"),
        ({"family": "gamma", "method": kind(monitor="crps")}, "monitor='crps'"),
        ({"family": "gamma", "method": kind(variance_weighting=0.5)}, "variance_weighting"),
    ],
)
def test_bad_parameters_of_ensembles_are_named(table, parameters, message):
    X, y = table
    with pytest.raises(ValueError, match=message):
        regressor(**parameters).fit(X, np.exp(y))


def test_user_nets_form_ensembles_too():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5, 2))
    net = NeuralNet(Recurrent, criterion=NegativeLogLikelihood, max_epochs=2, lr=0.01)
    est = regressor(net=net, method="probmix", n_members=2, validation="cv").fit(X, X[:, 0, 0])
    assert est.predict_proba(X).n_components == 2


def test_frozen_weights_stay_frozen_in_an_ensemble():
    def frozen_embedding():
        module = MLP(n_features=2, hidden_layer_sizes=(3,))
        module.embedding.requires_grad_(False)
        return module

    weights = dict(Ensemble(frozen_embedding, n_members=2).named_parameters())
    assert not weights["members.embedding.0.weight"].requires_grad
    assert weights["members.head.0.weight"].requires_grad


@pytest.mark.parametrize(
    "method",
    [
        [],
        ["erm", 3],
        [{"method": "erm", "n_members": 3}],
    ],
)
def test_kinds_share_rows_and_members(table, method):
    with pytest.raises(ValueError, match="method=.* kind of network"):
        regressor(method=method).fit(*table)


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"method": ["erm"]}, {"n_mixes": 0}])
def test_parameters_of_a_kind_are_checked_like_the_estimators_own(table, bad):
    with pytest.raises(ValueError, match=f"'{next(iter(bad))}' parameter of Kind must be"):
        regressor(method=[Kind(**{"method": "probmix"} | bad)]).fit(*table)


def test_a_dict_is_the_kind_that_the_warning_writes(table):
    given, written = {"method": "probmix", "alpha": 0.5}, Kind("probmix", alpha=0.5, max_epochs=2)
    X, y = table
    with pytest.warns(FutureWarning, match=r"(?s)write Kind\(alpha=0.5, .*'probmix'"):
        est = regressor(method=[given], max_epochs=2).fit(X, y)
    expected = regressor(method=[written], max_epochs=2).fit(X, y)
    assert est.kinds_ == expected.kinds_
    np.testing.assert_array_equal(est.predict(X), expected.predict(X))


def test_what_the_estimator_says_holds_for_every_kind(table):
    kinds = [kind("erm", max_epochs=7, lr=0.5), kind("probmix", n_knots=3)]
    est = regressor(method=kinds, alpha=0.3, n_knots=2, lr=0.01, max_epochs=1).fit(*table)
    for fitted in est.kinds_:
        assert (fitted.alpha, fitted.n_knots, fitted.lr, fitted.max_epochs) == (0.3, 2, 0.01, 1)
    assert [each.max_epochs for each in kinds] == [7, "auto"], "what was passed is left alone"


def test_what_the_user_says_goes_before_what_auto_would_choose(table):
    X, y = table
    est = ProbMixupRegressor(
        family="normal", hidden_layer_sizes=(4,), max_epochs=1, random_state=0
    ).fit(X, y)
    assert [kind.hidden_layer_sizes for kind in est.kinds_] == 7 * [(4,)]
    assert est.kinds_[0].activation == "silu"
    weights = [value for name, value in est.net_.module_.named_parameters() if "head" in name]
    assert weights[0].shape[-1] == 4


@pytest.mark.parametrize("sizes", [[128, 64], np.array([128, 64])])
def test_widths_in_any_container_are_the_same(table, sizes):
    expected, given = (
        ProbMixupRegressor(max_epochs=1, n_members=1, **params).fit(*table).kinds_
        for params in ({"hidden_layer_sizes": (128, 64)}, {"hidden_layer_sizes": sizes})
    )
    assert expected == given


@pytest.mark.parametrize(
    "changed",
    [
        {"n_members": 3},
        {"hidden_layer_sizes": (4,)},
        {"family": "gamma"},
        {"family": get_family("normal", variance_floor=0.5)},
        {"method": kind(variance_weighting=0.5)},
    ],
)
@pytest.mark.parametrize("go_on", ["fit", "partial_fit"])
def test_training_goes_on_with_the_same_networks_only(table, changed, go_on):
    X, y = table
    est = regressor(warm_start=True, max_epochs=1).fit(X, np.exp(y))
    before = est.predict(X)
    with pytest.raises(ValueError, match="the parameters were changed since fit"):
        getattr(est.set_params(**changed), go_on)(X, np.exp(y))
    np.testing.assert_array_equal(est.predict(X), before)


class Plain(nn.Module):
    """A module of the user's."""

    def __init__(self, n_features=3, hidden=8):
        super().__init__()
        self.embedding = nn.Linear(n_features, hidden)
        self.head = nn.Linear(hidden, 2)

    def forward(self, X):
        return get_family("normal").natural(self.head(self.embedding(X).relu()).unsqueeze(1))


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize(
    "changed", [{"net__module__hidden": 9}, {"net__optimizer": torch.optim.Adam}, {"net": None}]
)
def test_training_goes_on_with_the_same_net_of_ones_own_only(table, changed, n_members):
    net = NeuralNet(Plain, NegativeLogLikelihood, module__hidden=8, max_epochs=1, verbose=0)
    est = regressor(net=net, n_members=n_members, validation="holdout", warm_start=True).fit(*table)
    assert est.fit(*table).n_iter_ == 1
    with pytest.raises(ValueError, match="the parameters were changed since fit"):
        est.set_params(**changed).fit(*table)


def test_training_goes_on_with_a_new_step_size_of_ones_own_net(table):
    net = NeuralNet(Plain, NegativeLogLikelihood, lr=0.01, max_epochs=2, verbose=0)
    est = regressor(net=net, warm_start=True).fit(*table)
    expected = est.predict(table[0])
    est.set_params(net__lr=1e-12).fit(*table)
    np.testing.assert_allclose(est.predict(table[0]), expected, atol=1e-6)


@pytest.mark.parametrize(
    "changed", [{"n_neighbors": None}, {"alpha": 0.0}, {"method": kind("probmix", n_draws=5)}]
)
@pytest.mark.parametrize("go_on", ["fit", "partial_fit"])
def test_training_may_go_on_with_other_partners(table, changed, go_on):
    own = kind("probmix")
    est = regressor(method=own, n_neighbors=3, warm_start=True, max_epochs=1).fit(*table)
    getattr(est.set_params(**changed), go_on)(*table)
    assert len(est.history_) == 2


def test_training_goes_on_with_the_same_kinds_only(table):
    est = regressor(method=["erm"], warm_start=True, max_epochs=1).fit(*table)
    with pytest.raises(ValueError, match="networks of method="):
        est.set_params(method=["probmix"]).fit(*table)


def test_an_instance_of_a_module_makes_no_ensemble(table):
    net = NeuralNet(MLP(3), criterion=NegativeLogLikelihood, max_epochs=1)
    with pytest.raises(ValueError, match="n_members=2 with an instance of MLP"):
        regressor(net=net, n_members=2).fit(*table)


def test_calibration_leaves_room_for_the_spread_between_members(table):
    X, y = table
    est = regressor(
        method=kind("erm"),
        n_members=4,
        validation="cv",
        calibration="on",
        max_epochs=150,
        lr=0.02,
    ).fit(X, y)
    oof = est.oof_predictive_
    # One component each: the scale of the out-of-fold rows is that of the spread as fitted.
    assert oof.n_components == 1
    fitted = (oof.params["scale"] ** 2).mean() / est.y_scale_**2
    mixture = natural_parameters(est.net_, scale_columns(est.scaler_, X))
    means, v = (moment.numpy()[..., 0] for moment in est.family_.moments(mixture.eta.double()))
    kept = 1 - means.var(1).mean() / fitted
    assert 0.5 < kept < 1
    # (rows, members): each row is held out by one.
    is_holder = np.stack(fold_of_rows(est, X, y), axis=1)
    v_oof = v[is_holder]
    fitted = est.calibration_.apply(v_oof) / kept
    np.testing.assert_allclose(fitted, oof.params["scale"][:, 0] ** 2 / est.y_scale_**2)
    expected = est.calibration_.apply(v) * est.y_scale_**2
    np.testing.assert_allclose(est.predict_proba(X).params["scale"] ** 2, expected, rtol=1e-6)
