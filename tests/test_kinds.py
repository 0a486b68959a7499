"""A kind of network as an object: what it holds, what it refuses, and what "auto" makes of it."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNet
from torch import nn

from sklearn_probmix import (
    Kind,
    ProbMixupClassifier,
    ProbMixupRegressor,
    get_family,
)
from sklearn_probmix.families import Categorical
from sklearn_probmix.kernel import KernelNetwork
from sklearn_probmix.kinds import (
    CLASSIFICATION,
    FAST_CLASSIFICATION,
    FAST_REGRESSION,
    RACES,
    REGRESSION,
    as_kinds,
)
from sklearn_probmix.modules import MLP

NORMAL = get_family("normal")
NORMALS = [kind for kind in REGRESSION if kind.family is None]
# A value of every parameter that is not its default.
OTHER = {
    "method": "probmix",
    "alpha": 0.4,
    "beta": 0.05,
    "n_neighbors": 3,
    "pooling": "linear",
    "response": "expected",
    "n_mixes": 2,
    "objective": "log-expected",
    "family": "lognormal",
    "network": "kernel",
    "local": "constant",
    "hidden_layer_sizes": (5, 4),
    "activation": "silu",
    "n_knots": 9,
    "dropout": 0.1,
    "mixing_layer": 2,
    "embedding_variance": "separate",
    "n_draws": 7,
    "n_train_draws": 3,
    "variance_weighting": 0.5,
    "monitor": "crps",
    "lr": 0.01,
    "lr_schedule": "constant",
    "weight_decay": 0.02,
    "batch_size": "full",
    "max_epochs": 12,
    "n_steps": 70,
    "n_iter_no_change": None,
}


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    return X, X[:, 0] + 0.3 * rng.normal(size=60)


def test_other_values_are_of_every_parameter():
    defaults = Kind().get_params()
    assert OTHER.keys() == defaults.keys()
    assert all(OTHER[name] != defaults[name] for name in OTHER)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_a_parameter_is_held_set_copied_and_compared(name):
    kind = Kind(**{name: OTHER[name]})
    assert kind.get_params() == Kind().get_params() | {name: OTHER[name]}
    assert kind != Kind()
    for same in (
        Kind().set_params(**{name: OTHER[name]}),
        Kind().updated(**{name: OTHER[name]}),
        clone(kind),
        Kind.from_dict(kind.to_dict()),
    ):
        assert same == kind
        assert same is not kind


def test_an_updated_kind_is_a_new_one():
    kind = Kind("probmix")
    assert kind.updated(alpha=0.4) == Kind("probmix", alpha=0.4)
    assert kind == Kind("probmix")


@pytest.mark.parametrize("kind", [Kind(), Kind("m-probmix", n_draws=3), Kind(**OTHER), *REGRESSION])
def test_repr_evaluates_to_an_equal_kind(kind):
    assert eval(repr(kind)) == kind


@pytest.mark.parametrize("sizes", [[5, 4], (5, 4), np.array([5, 4])])
def test_widths_are_equal_in_any_container(sizes):
    assert Kind(hidden_layer_sizes=sizes) == Kind(hidden_layer_sizes=(5, 4))
    assert Kind(hidden_layer_sizes=sizes) != Kind(hidden_layer_sizes=(4, 5))


def test_a_kind_that_will_be_refused_can_be_compared():
    assert Kind(hidden_layer_sizes=5) != Kind()
    assert Kind(hidden_layer_sizes=5) == Kind(hidden_layer_sizes=5)


def test_a_kind_is_no_dict_and_no_key():
    assert Kind() != Kind().to_dict()
    with pytest.raises(TypeError, match="unhashable"):
        hash(Kind())


def test_only_the_method_goes_without_a_name():
    with pytest.raises(TypeError, match="positional"):
        Kind("probmix", 0.1)
    with pytest.raises(ValueError, match="Invalid parameter 'gamma'"):
        Kind().set_params(gamma=1)


@pytest.mark.parametrize(
    ("method", "site"),
    [
        ("erm", None),
        ("mixup", "input"),
        ("manifold-mixup", "embedding"),
        ("m-probmix", "embedding"),
        ("probmix", "output"),
    ],
)
def test_site_of_a_method(method, site):
    assert Kind(method).site == site
    assert Kind(method, alpha=0).site is None


WRONG = {
    "method": ("mixdown", "a str among .*'probmix'"),
    "alpha": (-0.1, r"a float in the range \[0.0, inf\)"),
    "beta": (-1.0, r"a float in the range \[0.0, inf\)"),
    "n_neighbors": (0, r"an int in the range \[1, inf\) or None"),
    "pooling": ("quadratic", "a str among .*'log-linear'"),
    "family": ("weibull", "a str among .*'lognormal'.*"),
    "response": ("mixed", "a str among .*'pooled'.* or None"),
    "n_mixes": (0, r"an int in the range \[1, inf\)"),
    "objective": ("log", "a str among .*'log-expected'"),
    "network": ("cnn", "a str among .*'kernel'"),
    "local": ("cubic", "a str among .*'constant'"),
    "hidden_layer_sizes": (8, "an array-like"),
    "activation": ("swish", "a str among .*'silu'"),
    "n_knots": (1, r"an int in the range \[2, inf\) or None"),
    "dropout": (1.0, r"a float in the range \[0.0, 1.0\) or a str among {'auto'}"),
    "mixing_layer": (-1, r"an int in the range \[0, inf\)"),
    "embedding_variance": ("both", "a str among .*'separate'"),
    "n_draws": (0, r"an int in the range \[1, inf\)"),
    "n_train_draws": (2.0, r"an int in the range \[1, inf\)"),
    "variance_weighting": (1.5, r"a float in the range \[0.0, 1.0\]"),
    "monitor": ("loss", "a str among .*'crps'"),
    "lr": (0.0, r"a float in the range \(0.0, inf\)"),
    "lr_schedule": ("step", "a str among .*'averaged'.*'cosine'|'cosine'.*'averaged'"),
    "weight_decay": (-1, r"a float in the range \[0.0, inf\)"),
    "batch_size": (None, r"an int in the range \[1, inf\) or a str among .*'full'"),
    "max_epochs": ("many", r"an int in the range \[1, inf\) or a str among .*'auto'"),
    "n_steps": (0, r"an int in the range \[1, inf\)"),
    "n_iter_no_change": (0, r"an int in the range \[1, inf\) or None"),
}


def test_wrong_values_are_of_every_parameter():
    assert WRONG.keys() == Kind().get_params().keys()


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_value_is_named_with_what_is_expected(name):
    value, expected = WRONG[name]
    message = f"The '{name}' parameter of Kind must be {expected}.* Got {value!r} instead"
    with pytest.raises(ValueError, match=message):
        Kind(**{name: value}).check(NORMAL)


@pytest.mark.parametrize("name", ["alpha", "beta", "dropout", "variance_weighting", "lr"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of Kind .* Got {value!r} instead"):
        Kind(**{name: value}).check(NORMAL)


@pytest.mark.parametrize("sizes", [(8, 0), (8.0,), (True,), [[4]]])
def test_widths_are_integers_of_at_least_one(sizes):
    with pytest.raises(ValueError, match=r"hidden_layer_sizes=\(.*\); expected integers, at least"):
        Kind(hidden_layer_sizes=sizes).check(NORMAL)


@pytest.mark.parametrize(
    ("kind", "family", "message"),
    [
        (Kind("m-probmix", mixing_layer=3), "normal", "mixing_layer=3 with 2 hidden layers"),
        (Kind("manifold-mixup", hidden_layer_sizes=()), "normal", "mixing_layer=1 with 0 hidden"),
        (
            Kind("probmix", objective="log-expected", variance_weighting=0.5),
            "normal",
            "objective='log-expected' .* variance_weighting > 0",
        ),
        (Kind(variance_weighting=0.5), "gamma", "need family='normal' .* found Gamma"),
        (Kind(monitor="crps"), "lognormal", "need family='normal' .* found LogNormal"),
        (Kind("probmix", network="kernel"), "normal", "network='kernel' with method='probmix'"),
        (Kind(network="kernel", monitor="crps"), "normal", "network='kernel' .* monitor='crps'"),
        (Kind(network="kernel", variance_weighting=0.5), "normal", "variance_weighting=0.5 and"),
        (Kind(network="kernel"), "gamma", "and Gamma.* transformed or categorical"),
        (Kind(network="kernel"), "homoscedastic-normal", "expected 'erm', 'nll', 0 and a Normal"),
    ],
)
def test_values_that_do_not_go_together(kind, family, message):
    with pytest.raises(ValueError, match=message):
        kind.check(get_family(family))


@pytest.mark.parametrize(
    "kind",
    [
        *[kind for kind in REGRESSION if kind.network == "mlp"],
        Kind(hidden_layer_sizes=(), mixing_layer=1),
        Kind(**OTHER | {"objective": "expected-log", "network": "mlp"}),
    ],
)
@pytest.mark.parametrize("family", ["normal", "homoscedastic-normal"])
def test_what_is_right_is_not_refused(kind, family):
    kind.check(get_family(family))


KERNELS = [kind for kind in NORMALS if kind.network == "kernel"]


@pytest.mark.parametrize("kind", [*KERNELS, Kind(network="kernel", hidden_layer_sizes=())])
@pytest.mark.parametrize("family", ["normal", "lognormal", Categorical(3)])
def test_a_kernel_is_not_refused_where_it_has_such_densities(kind, family):
    assert kind.fits(get_family(family))
    kind.check(get_family(family))


def test_an_estimator_checks_its_kinds(table):
    est = ProbMixupRegressor(method=[Kind(), Kind(dropout=-1.0)])
    with pytest.raises(ValueError, match="'dropout' parameter of Kind"):
        est.fit(*table)
    assert not hasattr(est, "kinds_")


@pytest.mark.parametrize(
    ("parameters", "n_rows", "batch_size", "max_epochs"),
    [
        ({}, 10, 64, 600),  # 3,000 steps would take 3,000 epochs
        ({}, 640, 64, 300),
        ({}, 641, 64, 272),  # 3,000 / 11, from below
        ({}, 3999, 64, 100),  # 47.6 are too few
        ({}, 4000, 256, 187),
        ({}, 100_000, 256, 100),
        ({"batch_size": 10}, 100, 10, 300),
        ({"batch_size": "full"}, 100_000, "full", 600),
        ({"max_epochs": 7}, 4000, 256, 7),
        ({"batch_size": 8, "max_epochs": 3}, 10, 8, 3),
        ({"n_steps": 700}, 4000, 256, 100),
        ({"n_steps": 10_000}, 4000, 256, 600),
        ({"n_steps": 2000}, 641, 64, 181),
        # Not so many that every row is seen a hundred times.
        ({"network": "kernel"}, 3999, 64, 47),
        ({"network": "kernel", "n_steps": 300}, 640, 64, 30),
        ({"network": "kernel"}, 4000, 256, 93),
        ({"network": "kernel"}, 10**6, 256, 1),
        ({"network": "kernel"}, 10, 64, 600),
    ],
)
def test_sizes_by_the_number_of_rows(parameters, n_rows, batch_size, max_epochs):
    kind = Kind("probmix", alpha=0.4, **parameters)
    sized = kind.sized(n_rows)
    assert sized == kind.updated(batch_size=batch_size, max_epochs=max_epochs)
    assert sized.sized(10 * n_rows) == sized
    assert kind.get_params() == Kind("probmix", alpha=0.4, **parameters).get_params()


@pytest.mark.parametrize(("n_rows", "settled"), [(3999, 0.1), (4000, 0.0)])
def test_dropout_by_the_number_of_rows(n_rows, settled):
    assert Kind(dropout="auto").sized(n_rows).dropout == settled
    assert Kind(dropout=0.3).sized(n_rows).dropout == 0.3


@pytest.mark.parametrize(
    "family", ["normal", "homoscedastic-normal", "lognormal", "transformed", "poisson"]
)
@pytest.mark.parametrize("kind", REGRESSION)
def test_kinds_are_suited_to_a_family(kind, family):
    suited = kind.suited(get_family(family))
    kernels = "normal", "lognormal", "transformed"
    if "normal" in family.split("-") or family == "transformed":
        assert suited == kind
    else:
        assert suited == kind.updated(variance_weighting=0.0, monitor="nll")
    is_kernel = kind.network == "kernel"
    assert suited.fits(get_family(family)) == (not is_kernel or family in kernels)
    if suited.fits(get_family(family)):
        suited.check(get_family(family))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (REGRESSION, list(REGRESSION)),
        ("probmix", [Kind("probmix")]),
        (Kind("mixup", lr=0.1), [Kind("mixup", lr=0.1)]),
        (["erm", Kind("probmix", beta=0.1)], [Kind("erm"), Kind("probmix", beta=0.1)]),
        (("erm",), [Kind("erm")]),
    ],
)
def test_kinds_that_a_method_names(method, expected):
    assert as_kinds(method, {}) == expected
    lr = as_kinds(method, {"lr": 0.2})
    assert lr == [kind.updated(lr=0.2) for kind in expected]


@pytest.mark.parametrize("parameters", [{"method": "probmix", "alpha": 0.4}, OTHER, {"lr": 0.1}])
def test_a_dict_is_deprecated_by_a_kind_that_is_equal(parameters):
    with pytest.warns(FutureWarning, match="is deprecated; write") as record:
        (kind,) = as_kinds([parameters], {})
    assert kind == Kind(**parameters)
    (warning,) = record
    written = str(warning.message).split("write ")[1].removesuffix(".")
    assert eval(written) == kind
    assert warning.filename == __file__


def test_a_dict_goes_before_what_all_kinds_take():
    with pytest.warns(FutureWarning, match="deprecated") as record:
        kinds = as_kinds([{"method": "mixup", "lr": 0.1}, "erm"], {"lr": 0.2, "alpha": 0.3})
    assert kinds == [Kind("mixup", lr=0.1, alpha=0.3), Kind("erm", lr=0.2, alpha=0.3)]
    assert eval(str(record[0].message).split("write ")[1].removesuffix(".")) == kinds[0]


def test_a_dict_trains_what_its_kind_trains(table):
    small = {"n_members": 1, "hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}
    with pytest.warns(FutureWarning, match=r"write Kind\(beta=0.1, .*method='probmix'\)"):
        old = ProbMixupRegressor(method=[{"method": "probmix", "beta": 0.1}], **small).fit(*table)
    new = ProbMixupRegressor(method=[Kind("probmix", beta=0.1)], **small).fit(*table)
    assert old.kinds_ == new.kinds_
    np.testing.assert_array_equal(old.predict(table[0]), new.predict(table[0]))


@pytest.mark.parametrize(
    "item", ["mixdown", 3, None, {"method": "erm", "early_stopping": False}, "auto", Kind]
)
def test_what_is_no_kind(item):
    with pytest.raises(ValueError, match="describes no kind of network; expected one of .*'erm'"):
        as_kinds([item], {})


def test_no_kind_at_all():
    with pytest.raises(ValueError, match=r"method=\[\] names no kind of network"):
        as_kinds([], {})


TINY = {"n_members": 1, "calibration": "off", "max_epochs": 1, "random_state": 0}


def test_fitted_kinds_are_complete_and_those_given_stay_as_they_are(table):
    given = [Kind("erm", lr=0.02), Kind("probmix", max_epochs=2)]
    est = ProbMixupRegressor(method=given, n_members=1, hidden_layer_sizes=(4,), random_state=0)
    est.fit(*table)
    assert given == [Kind("erm", lr=0.02), Kind("probmix", max_epochs=2)]
    # Of 48 training rows: one step an epoch.
    sizes = {"hidden_layer_sizes": (4,), "batch_size": 64}
    assert est.kinds_ == [
        Kind("erm", lr=0.02, max_epochs=600, **sizes),
        Kind("probmix", max_epochs=2, **sizes),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 0.2),
        ("pooling", "log-linear"),
        ("hidden_layer_sizes", (128, 64)),
        ("activation", "relu"),
        ("lr", 0.003),
        ("weight_decay", 0.1),
        ("batch_size", 64),
        ("alpha", 0.3),
        ("n_neighbors", 3),
        ("hidden_layer_sizes", (4,)),
        ("activation", "tanh"),
        ("n_knots", 3),
        ("batch_size", "full"),
    ],
)
def test_what_is_said_holds_for_all_kinds_of_auto(table, name, value):
    est = ProbMixupRegressor(family="normal", **(TINY | {name: value})).fit(*table)
    said = {"max_epochs": 1, name: value}
    assert est.kinds_ == [kind.updated(**said).sized(48) for kind in NORMALS]
    assert {getattr(kind, name) for kind in est.kinds_} == {value}
    X, y = table
    est = ProbMixupClassifier(**(TINY | {name: value})).fit(X, y > 0)
    assert est.kinds_ == [kind.updated(**said).sized(48) for kind in CLASSIFICATION]


def test_what_is_said_is_what_the_networks_are_made_of(table):
    est = ProbMixupRegressor(**TINY, activation="relu", hidden_layer_sizes=(5, 4)).fit(*table)
    for net in est.nets_:
        # The last layer of a kernel network is linear, and its heads are as they are.
        is_kernel = isinstance(net.module_, KernelNetwork)
        layers = net.module_.embedding if is_kernel else net.module_
        activations = [m for m in layers.modules() if isinstance(m, nn.ReLU | nn.SiLU)]
        assert [type(m) for m in activations] == (1 if is_kernel else 2) * [nn.ReLU]
        assert net.module_.embedding[0].weight.shape[0] == 5


def test_the_estimator_goes_before_the_kind_where_it_says_something(table):
    kind = Kind("probmix", alpha=0.7, lr=0.02, hidden_layer_sizes=(4,))
    est = ProbMixupRegressor(method=kind, lr=0.003, **TINY).fit(*table)
    assert est.kinds_ == [kind.updated(lr=0.003, batch_size=64, max_epochs=1)]


@pytest.mark.parametrize("method", RACES)
def test_auto_with_a_net_of_ones_own(table, method):
    net = NeuralNet(MLP, criterion=nn.MSELoss, max_epochs=2, verbose=0, batch_size=16)
    est = ProbMixupRegressor(method=method, net=net, n_members=1, random_state=0).fit(*table)
    assert [kind.method for kind in est.kinds_] == ["erm", "probmix"]


def test_auto_of_a_family_leaves_out_what_the_family_does_not_have(table):
    X, y = table
    est = ProbMixupRegressor(family="gamma", **TINY).fit(X, np.exp(y))
    suited = {"batch_size": 64, "max_epochs": 1, "variance_weighting": 0.0, "monitor": "nll"}
    networks = [kind for kind in NORMALS if kind not in KERNELS]
    assert est.kinds_ == [kind.updated(**suited) for kind in networks]
    assert len(est.kinds_) == 4
    est = ProbMixupRegressor(family="lognormal", **TINY).fit(X, np.exp(y))
    kernels = [kind.updated(max_epochs=1).sized(48) for kind in KERNELS]
    assert est.kinds_ == [*(kind.updated(**suited) for kind in networks), *kernels]
    chosen = ProbMixupRegressor(method=REGRESSION[1], family="gamma", **TINY)
    with pytest.raises(ValueError, match="variance_weighting > 0 and monitor='crps' need"):
        chosen.fit(X, np.exp(y))


def test_a_search_reaches_into_a_kind(table):
    kind = Kind("probmix", hidden_layer_sizes=(4,), lr=0.02)
    est = ProbMixupRegressor(method=kind, n_members=1, max_epochs=4, random_state=0)
    search = GridSearchCV(est, {"method__alpha": [0.1, 2.0]}, cv=2).fit(*table)
    assert [found["method__alpha"] for found in search.cv_results_["params"]] == [0.1, 2.0]
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] != scores[1]
    best = search.best_params_["method__alpha"]
    assert search.best_estimator_.method == kind.updated(alpha=best)
    assert search.best_estimator_.kinds_[0].alpha == best
    assert kind == Kind("probmix", hidden_layer_sizes=(4,), lr=0.02)


def test_parameters_of_a_kind_are_those_of_the_estimator_too():
    est = ProbMixupRegressor(method=Kind("probmix", beta=0.1))
    assert est.get_params()["method__beta"] == 0.1
    assert est.set_params(method__beta=0.2).method == Kind("probmix", beta=0.2)
    copied = clone(est)
    assert copied.method == est.method
    assert copied.method is not est.method


def test_parametric_is_auto_without_kernels(table):
    normal = {"family": "normal"} | TINY
    est = ProbMixupRegressor(method="parametric", **normal).fit(*table)
    networks = [kind for kind in NORMALS if kind.network == "mlp"]
    assert est.kinds_ == [kind.updated(max_epochs=1).sized(48) for kind in networks]
    assert 0 < len(networks) < len(NORMALS)
    est.set_params(method="auto", warm_start=True).fit(*table)
    assert len(est.kinds_) == len(networks)
    est = ProbMixupRegressor(**normal, warm_start=True).fit(*table)
    with pytest.raises(ValueError, match="changed since fit: .* of method="):
        est.set_params(method="parametric").fit(*table)


@pytest.mark.parametrize(
    ("make", "auto", "expected"),
    [
        (ProbMixupRegressor, REGRESSION, FAST_REGRESSION),
        (ProbMixupClassifier, CLASSIFICATION, FAST_CLASSIFICATION),
    ],
)
def test_fast_is_a_race_of_some_of_the_kinds(table, make, auto, expected):
    X, y = table
    y = y if make is ProbMixupRegressor else y > 0
    assert [kind for kind in auto if kind in expected] == [*expected]
    est = make(method="fast", **(TINY | {"max_epochs": None})).fit(X, y)
    assert all(kind in [kind.sized(48) for kind in expected] for kind in est.kinds_)
    raced = [kind.updated(max_epochs=1) for kind in est.kinds_]
    assert est.set_params(warm_start=True, max_epochs=1).fit(X, y).kinds_ == raced
    whole = make(method="fast", **TINY).fit(X, y)
    assert whole.kinds_ == [kind.updated(max_epochs=1).sized(48) for kind in expected]


def test_fast_tries_no_family_beside_the_normal(table):
    X, y = table
    few = np.clip(np.rint(2 * y), -2, 2)
    est = ProbMixupRegressor(method="fast", **(TINY | {"max_epochs": None})).fit(X, few)
    assert {kind.family for kind in est.kinds_} == {None}
    # Of few values it predicts masses all the same.
    assert est.predict_proba(X).pmf(np.tile(est.values_[:, None], 60)).sum(0) == pytest.approx(1)
    gamma = ProbMixupRegressor(method="fast", family="gamma", **TINY).fit(X, np.exp(y))
    assert [kind.network for kind in gamma.kinds_] == ["mlp"] * 3


def test_a_warm_start_settles_dropout_no_other_way():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4010, 2))
    kind = Kind(hidden_layer_sizes=(4,), dropout="auto")
    est = ProbMixupRegressor(
        method=kind, n_members=1, max_epochs=1, validation=None, warm_start=True
    )
    assert est.fit(X[:50], X[:50, 0]).kinds_[0].dropout == 0.1
    assert est.fit(X, X[:, 0]).kinds_[0].dropout == 0.1


@pytest.mark.parametrize("name", ["method", "family"])
def test_a_nest_of_kinds_is_refused_without_being_written_out(name):
    nest = Kind()
    for _ in range(250):
        nest = Kind(**{name: nest})
    with pytest.raises(ValueError, match=f"'{name}' parameter of Kind is a Kind; expected a value"):
        nest.check_values()
