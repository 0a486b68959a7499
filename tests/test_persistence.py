import os
import pickle
import stat
import struct
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
import torch
from model_files import LABELS, X, Y, opened, store
from one_network import ONE_NETWORK
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor, get_family
from sklearn_probmix.codec import decode, encode
from sklearn_probmix.criterion import NegativeLogLikelihood
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import Normal
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.persistence import load_model, save_model


def kind(method="m-probmix", **fields):
    return Kind(method, **{"lr_schedule": "constant", "n_draws": 4, **fields})


SMALL = ONE_NETWORK | {
    "method": kind(),
    "hidden_layer_sizes": (16,),
    "max_epochs": 3,
    "random_state": 0,
}
RNG = np.random.default_rng(1)


class OwnFamily(Normal):
    pass


class Own(nn.Module):
    """A buffer that is not persistent, and one that is infinite: what modules have."""

    def __init__(self, n_features, family, width=8):
        super().__init__()
        self.family = family
        self.embedding = nn.Linear(n_features, width)
        self.head = nn.Linear(width, 2)
        self.register_buffer("offset", torch.randn(width), persistent=False)
        self.register_buffer("mask", torch.tensor([-torch.inf]))

    def forward(self, X):
        hidden = torch.maximum(torch.tanh(self.embedding(X) + self.offset), self.mask)
        return self.family.natural(self.head(hidden).unsqueeze(1))


class Tied(Own):
    def __init__(self, n_features, family, width=8):
        super().__init__(n_features, family, width)
        self.twice = self.embedding


class Recurrent(nn.Module):
    def __init__(self, n_features, family):
        super().__init__()
        self.family = family
        self.lstm = nn.LSTM(n_features, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        return self.family.natural(self.head(self.lstm(X)[0][:, -1]).unsqueeze(1))


def own_net(module=Own, **kwargs):
    return NeuralNet(
        module, NegativeLogLikelihood, optimizer=torch.optim.Adam, max_epochs=3, verbose=0, **kwargs
    )


def regressor(**kwargs):
    return ProbMixupRegressor(**(SMALL | kwargs))


def classifier(**kwargs):
    return ProbMixupClassifier(**(SMALL | kwargs))


def round_trip(est, folder, **parameters):
    path = folder / "model.safetensors"
    save_model(est, path)
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    return load_model(path, **parameters)


def assert_same(a, b, where="value"):
    """Same types, same bits."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        a, b = a.detach().numpy(), b.detach().numpy()
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        assert a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes(), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    elif isinstance(a, Kind | PredictiveDistribution):
        assert_same(a.to_dict(), b.to_dict(), where)
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b), where
    else:
        assert a == b, where


def assert_predicts_the_same(a, b, X=X):
    assert_same(a.predict_proba(X), b.predict_proba(X))
    assert_same(a.predict(X), b.predict(X))


def assert_same_model(est, loaded, X=X):
    assert type(loaded) is type(est)
    check_is_fitted(loaded)
    # Every fit finds the step of its responses anew.
    assert vars(loaded).keys() == vars(est).keys() - {"_y_step", "_cell"}
    aside = {"nets_", "scaler_", "net", "_y_step", "_cell"}
    for name in vars(est).keys() - aside:
        assert_same(vars(est)[name], vars(loaded)[name], name)
    assert_same(vars(est.scaler_), vars(loaded.scaler_))
    for net, other in zip(est.nets_, loaded.nets_, strict=True):
        assert_same(dict(net.module_.state_dict()), dict(other.module_.state_dict()))
        assert len(net.history) == len(other.history)
    assert_predicts_the_same(est, loaded, X)


REGRESSORS = {
    "m-probmix": {
        "method": kind(beta=0.1),
        "random_state": np.int64(3),
        "hidden_layer_sizes": [16],
    },
    "separate variances": {"method": kind(embedding_variance="separate"), "activation": "tanh"},
    "no mixing": {"method": kind("erm", mixing_layer=0), "hidden_layer_sizes": ()},
    "neighbours": {"method": kind("probmix", dropout=0.2), "n_neighbors": 3, "validation": None},
    "ensemble": {"method": kind(dropout=0.1), "n_members": 3, "calibration": "on"},
    "folds and kinds": {
        "method": ["erm", Kind("m-probmix", hidden_layer_sizes=(8, 4), alpha=0.1, n_draws=4)],
        "hidden_layer_sizes": None,
        "n_members": 3,
        "validation": "cv",
        "calibration": "on",
    },
    "a kind of numbers of numpy": {
        "method": Kind(
            "m-probmix",
            alpha=np.float64(0.3),
            n_draws=np.int64(3),
            hidden_layer_sizes=np.array([8, 4]),
            batch_size="full",
            n_iter_no_change=None,
        ),
        "hidden_layer_sizes": None,
        "batch_size": None,
    },
    "kinds that differ in what is monitored": {
        "method": (kind("erm", monitor="crps", variance_weighting=0.5), kind("erm", n_knots=3)),
    },
    "few folds": {"n_members": 4, "validation": 2},
    "a share held out": {"validation": 0.3},
    "no widths": {"method": kind("probmix"), "hidden_layer_sizes": np.zeros(0, dtype=int)},
    "a list of pairs": {"validation": [(np.arange(40), np.arange(40, 60))]},
    "auto": {"method": "auto", "max_epochs": 2},
    "fast": {"method": "fast", "max_epochs": 2},
    "knots": {"method": kind("probmix"), "n_knots": 4},
    "more knots than a column may have": {"method": "erm", "n_knots": 600},
    "shared variance": {"family": "homoscedastic-normal", "method": "mixup"},
    "gamma": {"family": "gamma", "method": "probmix"},
    "folds of counts": {"family": "poisson", "n_members": 2, "validation": "cv"},
    "transformed": {"family": "transformed", "calibration": "on"},
    "wide counts": {"family": "negative-binomial", "method": "probmix"},
    "lognormal": {"family": "lognormal", "calibration": "on"},
    "histogram": {"family": "histogram", "method": "probmix", "n_members": 2, "validation": "cv"},
    "lattice": {"family": "lattice", "method": kind("m-probmix", n_draws=3)},
    "family instance": {"family": get_family("normal", variance_floor=np.pi / 1000)},
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressor_is_the_same_after_the_round_trip(name, tmp_path):
    est = regressor(**REGRESSORS[name])
    positive = "gamma", "poisson", "negative-binomial", "lognormal", "lattice"
    y = np.ceil(np.exp(Y)) if est.family in positive else Y
    est.fit(X, y)
    assert_same_model(est, round_trip(est, tmp_path))


def test_two_outputs_are_the_same_after_the_round_trip(tmp_path):
    est = regressor(n_members=2, validation="cv").fit(X, np.stack([Y, Y**2], axis=1))
    assert_same_model(est, round_trip(est, tmp_path))


@pytest.mark.parametrize("validation", [None, 0.2])
def test_kinds_that_all_have_families_of_their_own(validation, tmp_path):
    kinds = [kind("erm", family=family) for family in ("histogram", "transformed")]
    est = regressor(method=kinds, validation=validation).fit(X, Y)
    assert_same_model(est, round_trip(est, tmp_path))
    # As earlier versions wrote them.
    del est.calibration_
    assert_predicts_the_same(est, round_trip(est, tmp_path))


def test_a_mixture_of_densities_and_masses_is_the_same_after_the_round_trip(tmp_path):
    est = regressor(n_members=2, validation="cv").fit(X, Y)
    masses = RNG.dirichlet(np.ones(3), (len(Y), 2))
    lattice = PredictiveDistribution(LatticeComponents([-1.0, 0.5, 2.0], masses))
    est.oof_predictive_ = PredictiveDistribution.mix([est.oof_predictive_, lattice], [0.7, 0.3])
    loaded = round_trip(est, tmp_path)
    assert_same_model(est, loaded)
    x = est.oof_predictive_.rvs(3, random_state=0)
    assert_same(loaded.oof_predictive_.logpdf(x), est.oof_predictive_.logpdf(x))


CLASSIFIERS = {
    "text": (LABELS, {"calibration": "on", "class_weight": {"low": 2.0, "mid": 1, "high": 0.5}}),
    "wide text": (LABELS.astype("U20"), {}),
    "objects": (LABELS.astype(object), {"class_weight": "balanced"}),
    "integers": (np.digitize(Y, [0, 1]) * 10 - 7, {"class_weight": {-7: 1, 3: 2.5, 13: 1}}),
    "small integers": (np.digitize(Y, [0, 1]).astype(np.int8), {"n_members": 2}),
    "booleans": (Y > 0, {"family": "bernoulli", "class_weight": {True: 2.0, False: 1.0}}),
    "floats": (np.where(Y > 0, 0.0, 1.0), {"method": ["erm", "probmix"]}),
    "folds": (LABELS, {"n_members": 2, "validation": "cv", "calibration": "on"}),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_is_the_same_after_the_round_trip(name, tmp_path):
    y, parameters = CLASSIFIERS[name]
    est = classifier(**parameters).fit(X, y)
    loaded = round_trip(est, tmp_path)
    assert_same_model(est, loaded)
    assert loaded.predict(X).dtype == y.dtype


def test_column_names_are_kept(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "Größe", "c $"])
    est = regressor().fit(frame, Y)
    loaded = round_trip(est, tmp_path)
    assert_same_model(est, loaded, frame)
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame.rename(columns={"a": "b"}))


def test_routed_metadata_is_kept(tmp_path):
    est = regressor().fit(X, Y)
    with config_context(enable_metadata_routing=True):
        est.set_score_request(sample_weight=True)
    loaded = round_trip(est, tmp_path)
    routing = loaded.get_metadata_routing()
    assert routing.score.requests["sample_weight"] is True
    assert repr(routing) == repr(est.get_metadata_routing())


def test_a_loaded_model_goes_on_training(tmp_path):
    y = LABELS
    est = classifier(n_members=2, warm_start=True).fit(X, y)
    loaded = round_trip(est, tmp_path)
    assert loaded.get_params() == est.get_params()
    assert clone(loaded).get_params() == est.get_params()
    before = loaded.predict_proba(X)
    loaded.partial_fit(X, y)
    assert len(loaded.history_) == len(est.history_) + 1
    assert not np.array_equal(loaded.predict_proba(X), before)
    loaded.fit(X, y)
    assert len(loaded.net_.history) == 7
    assert loaded.history_[:3] == est.history_
    assert_same_model(loaded, round_trip(loaded, tmp_path))


def test_a_model_of_partial_fit_alone(tmp_path):
    est = regressor().partial_fit(X, Y)
    assert_same_model(est, round_trip(est, tmp_path))


def test_loading_leaves_the_global_generator_alone(tmp_path):
    est = regressor().fit(X, Y)
    save_model(est, tmp_path / "model")
    before = torch.get_rng_state()
    load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_refit_of_the_loaded_model_is_that_of_the_saved(tmp_path):
    est = regressor(n_members=2).fit(X, Y)
    loaded = round_trip(est, tmp_path)
    assert_predicts_the_same(est.fit(X, Y), loaded.fit(X, Y))


@pytest.mark.parametrize(("module", "n_members"), [(Own, 1), (Own, 2), (Tied, 1)])
def test_the_net_is_named_by_the_caller(module, n_members, tmp_path):
    est = regressor(net=own_net(module, module__width=5), n_members=n_members).fit(X, Y)
    with pytest.raises(ValueError, match=r"net \(a NeuralNet\) to the caller.*net=\.\.\."):
        round_trip(est, tmp_path)
    loaded = round_trip(est, tmp_path, net=own_net(module, module__width=5))
    assert_same_model(est, loaded)
    loaded.partial_fit(X, Y)


def test_sequences_through_a_looped_ensemble(tmp_path):
    series = RNG.normal(size=(30, 6, 2))
    est = regressor(net=own_net(Recurrent), n_members=2, method="probmix").fit(series, Y[:30])
    assert est.net_.module_.vectorised is False
    loaded = round_trip(est, tmp_path, net=own_net(Recurrent))
    assert_same_model(est, loaded, series)
    assert loaded.net_.module_.vectorised is False


@pytest.mark.parametrize("net", [own_net(module__width=6), own_net(Recurrent), None])
def test_a_net_that_does_not_fit_is_refused(net, tmp_path):
    est = regressor(net=own_net(module__width=5)).fit(X, Y)
    with pytest.raises(ValueError, match=r"(size|weights?.*) of network 0: found"):
        round_trip(est, tmp_path, net=net)


def test_a_file_does_not_choose_how_many_members_a_net_has(tmp_path):
    est = regressor(net=own_net(), n_members=2).fit(X, Y)
    save_model(est, tmp_path / "model")
    parts = opened(tmp_path / "model")
    for n_members, message in [
        (1000, r"members of network 0: found \[torch.Size\(\[2\]\)\]; expected 1000"),
        (1001, "number of members: found 1001; expected 1 to 1000"),
    ]:
        parts.document["parameters"]["n_members"] = n_members
        store(parts.tensors, parts.document, tmp_path / "model")
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path / "model", net=own_net())


def test_a_model_loaded_in_inference_mode_goes_on_training(tmp_path):
    est = regressor().fit(X, Y)
    with torch.inference_mode():
        loaded = round_trip(est, tmp_path)
        assert_predicts_the_same(est, loaded)
    copy = pickle.loads(pickle.dumps(loaded))
    assert_predicts_the_same(loaded.partial_fit(X, Y), copy.partial_fit(X, Y))


@pytest.mark.parametrize(
    "parameters", [{}, {"n_members": 2, "n_knots": 3}, {"net": own_net()}], ids=repr
)
def test_a_model_unpickled_in_inference_mode_goes_on_training(parameters):
    est = regressor(**parameters).fit(X, Y)
    pickled = pickle.dumps(est)
    with torch.inference_mode():
        copy = pickle.loads(pickled)
        assert_predicts_the_same(est, copy)
    assert_predicts_the_same(est, copy)
    assert_predicts_the_same(pickle.loads(pickled).partial_fit(X, Y), copy.partial_fit(X, Y))


OBJECTS = {
    "callbacks": lambda: [("clip", GradientNormClipping(1.0))],
    "validation": lambda: ShuffleSplit(1, test_size=0.3, random_state=0),
    "family": lambda: OwnFamily(0.01),
    "random_state": lambda: np.random.RandomState(3),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_not_data_is_named_by_the_caller(name, tmp_path):
    value = OBJECTS[name]()
    est = regressor(**{name: value}).fit(X, Y)
    with pytest.raises(ValueError, match=rf"leaves {name} \(a \w+\) to the caller"):
        round_trip(est, tmp_path)
    loaded = round_trip(est, tmp_path, **{name: value})
    assert_predicts_the_same(est, loaded)
    assert getattr(loaded, name) is value


def test_the_caller_may_replace_a_parameter(tmp_path):
    est = regressor().fit(X, Y)
    loaded = round_trip(est, tmp_path, max_epochs=7, device="cpu")
    assert loaded.max_epochs == 7
    assert_predicts_the_same(est, loaded)
    for parameters, message in [
        ({"max_epoch": 7}, "'max_epoch'"),
        ({"alpha": -1}, "'alpha' parameter"),
        ({"hidden_layer_sizes": (8,)}, "changed since fit.*hidden_layer_sizes="),
        ({"method": "auto"}, "the parameters were changed since fit.*method="),
        ({"method": ["m-probmix", 3]}, "describes no kind of network"),
        ({"method": kind(family="lognormal")}, "the parameters were changed since fit.*family="),
        ({"method": kind(dropout=0.5)}, "the parameters were changed since fit.*dropout="),
        ({"n_draws": 8}, "'n_draws'"),
        ({"family": "lognormal"}, "family: found LogNormal.*; expected Normal.*, as trained"),
        ({"device": "no such device"}, "no such device"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path / "model.safetensors", **parameters)


VALUES = {
    "float": [0.1, -0.0, 5e-324, 1e308, float("nan"), float("inf"), -float("inf")],
    "integer": [0, -1, 2**200, True],
    "text": ["", "ä\x00\n\"'", "\ud800", "𝛼"],
    "nested": {"a": (1, (2.5, None), []), "b": {"c": ({},)}, "": ()},
    "keys": [{1: "a", (2, "x"): "b", None: "c"}, {"$tuple": [1]}, {True: 1}, {"a.b": 1}],
    "collision": {"a.b": np.ones(1), "a": {"b": np.zeros(1)}},
    "scalars": [np.float32(0.1), np.float64("nan"), np.bool_(True), np.uint8(200), np.str_("é")],
    "arrays": [np.arange(6.0).reshape(2, 3).T, np.array(3), np.zeros((0, 2), np.float16)],
    "dtypes": [np.array([0, 1], dtype=name) for name in "?bhilBHIL"],
    "labels": [np.array(["a", "bcd"]), np.array(["a", 1, 2.5, True], dtype=object), np.array([""])],
    "no labels": [np.empty(0, "U3"), np.empty((2, 0), "U1")],
    "tensors": [torch.tensor([[1.5, torch.nan]]).T, torch.tensor(2)],
    "families": [get_family("categorical", n_classes=4), get_family("gamma")],
    "kinds": [Kind(), kind("probmix", alpha=np.float32(0.1), n_knots=9), {"a": (Kind("mixup"),)}],
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_same_after_the_round_trip(name, tmp_path):
    tensors = {}
    document = encode(VALUES[name], "value", tensors)
    store(tensors, document, tmp_path / "values")
    parts = opened(tmp_path / "values")
    decoded = decode(parts.document, parts.tensors)
    assert not parts.tensors
    assert_same(VALUES[name], decoded)


@pytest.mark.parametrize(
    "value", [b"bytes", 1j, {1, 2}, print, np.longdouble(1), np.array([[None]])]
)
def test_what_is_not_data_is_not_encoded(value):
    with pytest.raises(TypeError, match=rf"value.0 holds a {type(value).__name__}"):
        encode([value], "value", {})


def test_a_family_of_ones_own_is_not_encoded():
    with pytest.raises(TypeError, match="a OwnFamily is none of the families"):
        encode([OwnFamily()], "value", {})


# -- saving ---------------------------------------------------------------------------------------


def test_what_cannot_be_saved_says_why(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(NotFittedError):
        save_model(regressor(), path)
    with pytest.raises(TypeError, match="est is a NeuralNet; expected a fitted ProbMixupRegressor"):
        save_model(own_net(), path)
    est = regressor().fit(X, Y)
    with pytest.raises(TypeError, match=r"est is a Pipeline; .* one as its last step"):
        save_model(make_pipeline(est, "passthrough"), path)
    est.note = "mine"
    with pytest.raises(TypeError, match="'note'"):
        save_model(est, path)
    del est.note
    for changed in (
        {"hidden_layer_sizes": (8,)},
        {"family": get_family("normal", variance_floor=0.1)},
        {"n_members": 2},
        {"method": kind(n_draws=5, dropout=0.1)},
    ):
        with pytest.raises(ValueError, match="changed since fit"):
            save_model(clone_fitted(est).set_params(**changed), path)
    with pytest.raises(ValueError, match="changed since fit"):
        save_model(clone_fitted(est).set_params(method=["erm", "m-probmix"]), path)
    save_model(clone_fitted(est).set_params(max_epochs=9, alpha=0.0), path)
    path.unlink()
    for bad in (torch.nan, torch.inf):
        with torch.no_grad():
            est.net_.module_.head[-1].bias[0] = bad
        with pytest.raises(ValueError, match="weight .* of network 0: found NaN or infinity"):
            save_model(est, path)
    assert not any(tmp_path.iterdir())
    own = regressor(net=own_net()).fit(X, Y)
    with torch.no_grad():
        own.net_.module_.head.bias[0] = torch.inf
    with pytest.raises(ValueError, match="weight head.bias of network 0: found NaN or infinity"):
        save_model(own, path)


def test_a_model_may_predict_an_infinite_mean(tmp_path):
    y = np.exp(100 * np.random.default_rng(0).normal(size=len(X)))
    est = regressor(family="lognormal").fit(X, y)
    assert np.isinf(est.predict(X)).any()
    save_model(est, tmp_path / "model")
    np.testing.assert_array_equal(load_model(tmp_path / "model").predict(X), est.predict(X))


def test_what_load_model_would_refuse_is_not_saved(fitted, tmp_path):
    long = clone_fitted(fitted)
    long.history_ *= 10_000
    with pytest.raises(ValueError, match="look for long lists in the parameters and in history_"):
        save_model(long, tmp_path / "model")
    many = regressor(method=["erm"] * 129, max_epochs=1).fit(X, Y)
    with pytest.raises(ValueError, match="number of networks: found 129; expected 1 to 128"):
        save_model(many, tmp_path / "model")
    assert not any(tmp_path.iterdir())


def clone_fitted(est):
    return pickle.loads(pickle.dumps(est))


def test_extra_state_of_a_module_is_no_data(tmp_path, monkeypatch):
    est = regressor(net=own_net()).fit(X, Y)
    monkeypatch.setattr(Own, "get_extra_state", lambda self: {"any": "thing"})
    with pytest.raises(TypeError, match="weight _extra_state of network 0 is a dict"):
        save_model(est, tmp_path / "model")


@pytest.fixture(scope="module")
def fitted():
    return regressor(hidden_layer_sizes=(8,)).fit(X, Y)


VERSION_1 = Path(__file__).with_name("data") / "version_1"


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    "path", sorted(VERSION_1.glob("*.safetensors")), ids=lambda path: path.stem
)
def test_a_file_of_version_1_loads_for_ever(path, tmp_path):
    """Files of tests/data, and what make_models.py saw them predict."""
    est, kept = load_model(path), np.load(path.with_suffix(".npz"))
    if isinstance(est, ProbMixupClassifier):
        predicted = {"proba": est.predict_proba(kept["X"])}
        assert est.predict(kept["X"]).tolist() == kept["label"].tolist()
    else:
        dist = est.predict_proba(kept["X"])
        predicted = {"mean": dist.mean(), "std": dist.std(), "quantiles": dist.ppf([0.1, 0.9])}
    for name, value in predicted.items():
        np.testing.assert_allclose(value, kept[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert_same_model(est, round_trip(est, tmp_path), kept["X"])


def test_all_models_of_version_1_are_there():
    assert len(list(VERSION_1.glob("*.safetensors"))) == 7


def test_the_libraries_are_named(fitted, tmp_path):
    save_model(fitted, tmp_path / "model")
    libraries = opened(tmp_path / "model").document["libraries"]
    # The wheel of a CUDA build has a name without the "+cu126" that torch adds.
    assert libraries["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert libraries["scikit-learn"] == sklearn.__version__
    assert libraries["numpy"] == np.__version__
    assert libraries["sklearn-probmix"]


class Interrupt(Callback):
    """Presses Ctrl-C in the last kind."""

    def __init__(self):
        self.n_trained = 0

    def on_train_begin(self, net, **kwargs):
        self.n_trained += 1

    def on_epoch_begin(self, net, **kwargs):
        if self.n_trained == 3:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:Training was interrupted")
def test_an_interrupted_model(tmp_path):
    est = regressor(method="auto", n_members=2, callbacks=[Interrupt()]).fit(X, Y)
    assert len(est.nets_) == 2
    loaded = round_trip(est, tmp_path, callbacks=None)
    assert len(loaded.nets_) == 2
    assert_predicts_the_same(est, loaded)
    loaded.partial_fit(X, Y)


def test_a_model_of_a_device_that_is_not_here(tmp_path):
    est = regressor().fit(X, Y)
    save_model(est, tmp_path / "model")
    parts = opened(tmp_path / "model")
    # What a fit on this device writes: weights are written from memory in any case.
    parts.document["parameters"]["device"] = "cuda:99"
    store(parts.tensors, parts.document, tmp_path / "model")
    with pytest.raises(ValueError, match="device='cuda:99' cannot be used here .* device='cpu'"):
        load_model(tmp_path / "model")
    loaded = load_model(tmp_path / "model", device="cpu")
    assert_predicts_the_same(est, loaded)
    loaded.partial_fit(X, Y)
    with pytest.raises(ValueError, match="device='cuda:99' cannot be used here"):
        regressor(device="cuda:99").fit(X, Y)


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_model_whole(stage, fitted, tmp_path, monkeypatch):
    path = tmp_path / "model"
    save_model(fitted, path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, stage, fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(clone_fitted(fitted).set_params(alpha=0.7), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    save_model(clone_fitted(fitted).set_params(alpha=0.7), path)
    assert load_model(path).alpha == 0.7


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_where_a_model_is_saved(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder: '.*none'"):
        save_model(fitted, tmp_path / "none" / "model")
    target, link = tmp_path / "a" / "model", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to(target)
    # New, and replaced.
    for _ in range(2):
        save_model(fitted, str(link))
        assert link.is_symlink()
        assert_predicts_the_same(fitted, load_model(str(target)))
    # Who may read a new model is what the user's umask says.
    (tmp_path / "plain").touch()
    assert mode(target) == mode(tmp_path / "plain")


@pytest.mark.parametrize("private", [0o600, 0o640])
def test_the_mode_of_a_file_stays(private, fitted, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    path.chmod(private)
    save_model(fitted, path)
    assert mode(path) == private
    assert_predicts_the_same(fitted, load_model(path))


def test_hard_links_stay_links(fitted, tmp_path):
    path, twin = tmp_path / "model", tmp_path / "twin"
    path.write_bytes(b"old" * 10_000)
    path.chmod(0o600)
    twin.hardlink_to(path)
    save_model(fitted, path)
    assert path.samefile(twin)
    assert mode(path) == 0o600
    assert_predicts_the_same(fitted, load_model(twin))


def test_what_is_no_file_is_left_alone(fitted, tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (tmp_path, pipe, link, "/dev/null"):
        with pytest.raises(ValueError, match="is a folder, a pipe or a device; expected a file"):
            save_model(fitted, path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_the_same_model_gives_the_same_bytes(fitted, tmp_path):
    save_model(fitted, tmp_path / "a")
    save_model(load_model(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loaded_model_does_not_need_its_file(fitted, tmp_path):
    path = tmp_path / "model"
    save_model(fitted, path)
    loaded = load_model(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert_same_model(fitted, loaded)


# -- other ways -----------------------------------------------------------------------------------


def by_pickle(est, folder):
    return pickle.loads(pickle.dumps(est))


def by_joblib(est, folder):
    joblib.dump(est, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def by_skops(est, folder):
    skops.io.dump(est, folder / "model.skops")
    trusted = skops.io.get_untrusted_types(file=folder / "model.skops")
    return skops.io.load(folder / "model.skops", trusted=trusted)


@pytest.mark.parametrize("way", [by_pickle, by_joblib, by_skops])
def test_other_ways_of_saving_work(way, tmp_path):
    reg = regressor(n_members=2, validation="cv", calibration="on", method=["erm", "m-probmix"])
    for est, y in [(reg, Y), (classifier(callbacks=[GradientNormClipping(1.0)]), LABELS)]:
        est.fit(X, y)
        copy = way(est, tmp_path)
        assert_predicts_the_same(est, copy)
        copy.partial_fit(X, y)
        assert isinstance(reg.net_.module_, Ensemble)


def test_a_model_mapped_from_a_file_is_used_without_warnings(tmp_path):
    est = regressor().fit(X, Y)
    joblib.dump(est, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert not mapped.y_scale_.flags.writeable
    # Torch would warn of each only once.
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_predicts_the_same(est, mapped)
            mapped.partial_fit(X, Y)
    finally:
        torch.set_warn_always(before)
