import io
import json
import os
import pickle
import resource
import struct
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from one_network import ONE_NETWORK
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import GradientNormClipping
from torch import nn

from sklearn_probmix import ProbMixupClassifier, ProbMixupRegressor, get_family
from sklearn_probmix.codec import TensorReader, decode, encode
from sklearn_probmix.criterion import NegativeLogLikelihood
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import Normal
from sklearn_probmix.persistence import load_model, save_model

SMALL = ONE_NETWORK | {
    "hidden_layer_sizes": (16,),
    "max_epochs": 3,
    "random_state": 0,
    "n_draws": 4,
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] + 0.3 * RNG.normal(size=60)
LABELS = np.array(["low", "mid", "high"])[np.digitize(Y, [-0.5, 0.5])]


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
    elif isinstance(a, PredictiveDistribution):
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
    assert vars(loaded).keys() == vars(est).keys()
    aside = {"nets_", "scaler_", "net"}
    for name in vars(est).keys() - aside:
        assert_same(vars(est)[name], vars(loaded)[name], name)
    assert_same(vars(est.scaler_), vars(loaded.scaler_))
    for net, other in zip(est.nets_, loaded.nets_, strict=True):
        assert_same(dict(net.module_.state_dict()), dict(other.module_.state_dict()))
        assert len(net.history) == len(other.history)
    assert_predicts_the_same(est, loaded, X)


REGRESSORS = {
    "m-probmix": {"beta": 0.1, "random_state": np.int64(3), "hidden_layer_sizes": [16]},
    "separate variances": {"embedding_variance": "separate", "activation": "tanh"},
    "no mixing": {"method": "erm", "hidden_layer_sizes": (), "mixing_layer": 0},
    "neighbours": {"method": "probmix", "n_neighbors": 3, "dropout": 0.2, "validation": None},
    "ensemble": {"n_members": 3, "dropout": 0.1, "calibration": "on"},
    "folds and kinds": {
        "method": ["erm", {"method": "m-probmix", "hidden_layer_sizes": (8, 4), "alpha": 0.1}],
        "n_members": 3,
        "validation": "cv",
        "calibration": "on",
        "lr_schedule": "cosine",
    },
    "auto": {"method": "auto", "max_epochs": 2},
    "knots": {"method": "probmix", "n_knots": 4},
    "more knots than a column may have": {"method": "erm", "n_knots": 600},
    "shared variance": {"family": "homoscedastic-normal", "method": "mixup"},
    "gamma": {"family": "gamma", "method": "probmix"},
    "folds of counts": {"family": "poisson", "n_members": 2, "validation": "cv"},
    "lognormal": {"family": "lognormal", "calibration": "on"},
    "family instance": {"family": get_family("normal", variance_floor=np.pi / 1000)},
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressor_is_the_same_after_the_round_trip(name, tmp_path):
    est = regressor(**REGRESSORS[name])
    y = np.ceil(np.exp(Y)) if est.family in ("gamma", "poisson", "lognormal") else Y
    est.fit(X, y)
    assert_same_model(est, round_trip(est, tmp_path))


def test_two_outputs_are_the_same_after_the_round_trip(tmp_path):
    est = regressor(n_members=2, validation="cv").fit(X, np.stack([Y, Y**2], axis=1))
    assert_same_model(est, round_trip(est, tmp_path))


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
        ({"hidden_layer_sizes": (8,)}, "network 0"),
        ({"method": "auto"}, "found 1; expected 3"),
        ({"n_draws": 8}, r"sampler.noise.*\(4, 16\).*\(8, 16\)"),
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
    "tensors": [torch.tensor([[1.5, torch.nan]]).T, torch.tensor(2)],
    "families": [get_family("categorical", n_classes=4), get_family("gamma")],
}


def store(tensors, document, path):
    save_file(tensors, path, {"sklearn_probmix": json.dumps(document, allow_nan=False)})


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_same_after_the_round_trip(name, tmp_path):
    tensors = {}
    document = encode(VALUES[name], "value", tensors)
    store(tensors, document, tmp_path / "values")
    with safe_open(tmp_path / "values", "pt") as file:
        reader = TensorReader(file)
        decoded = decode(json.loads(file.metadata()["sklearn_probmix"]), reader)
    reader.check_all_read()
    assert_same(VALUES[name], decoded)


@pytest.mark.parametrize(
    "value", [b"bytes", 1j, {1, 2}, print, np.longdouble(1), np.array([[None]]), OwnFamily()]
)
def test_what_is_not_data_is_not_encoded(value):
    with pytest.raises(TypeError, match=rf"value.0 holds a {type(value).__name__}"):
        encode([value], "value", {})


# -- saving ---------------------------------------------------------------------------------------


def test_what_cannot_be_saved_says_why(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(NotFittedError):
        save_model(regressor(), path)
    with pytest.raises(TypeError, match="est is a NeuralNet; expected a fitted ProbMixupRegressor"):
        save_model(own_net(), path)
    est = regressor().fit(X, Y)
    with pytest.raises(TypeError, match=r"est is a Pipeline; .* model\[-1\]"):
        save_model(make_pipeline(est), path)
    est.note = "mine"
    with pytest.raises(TypeError, match="'note'"):
        save_model(est, path)
    del est.note
    for changed in ({"hidden_layer_sizes": (8,)}, {"variance_floor": 0.1}, {"n_members": 2}):
        with pytest.raises(ValueError, match="changed since fit"):
            save_model(clone_fitted(est).set_params(**changed), path)
    with pytest.raises(ValueError, match="found 1; expected 2 of method="):
        save_model(clone_fitted(est).set_params(method=["m-probmix", "erm"]), path)
    save_model(clone_fitted(est).set_params(max_epochs=9, alpha=0.0), path)
    path.unlink()
    with torch.no_grad():
        est.net_.module_.head[-1].bias[0] = torch.nan
    with pytest.raises(ValueError, match="weight .* of network 0: found NaN"):
        save_model(est, path)
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


def test_where_a_model_is_saved(fitted, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save_model(fitted, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_model(fitted, tmp_path / "none" / "model")
    target, link = tmp_path / "a" / "model", tmp_path / "link"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link.symlink_to(target)
    save_model(fitted, str(link))
    assert link.is_symlink()
    assert_predicts_the_same(fitted, load_model(str(target)))
    # Who may read a model is what the user's umask says.
    (tmp_path / "plain").touch()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


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


# -- hostile files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folds():
    """Fit a model with most of what a file may hold."""
    return classifier(
        hidden_layer_sizes=(8,), n_members=2, validation="cv", calibration="on", class_weight={}
    ).fit(X, np.where(LABELS == "low", "low", "other"))


def taken_apart(est, folder):
    """Return the tensors and the document of a model file."""
    save_model(est, folder / "whole")
    with safe_open(folder / "whole", "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return SimpleNamespace(
            tensors=tensors, document=json.loads(file.metadata()["sklearn_probmix"])
        )


def refused(path, message, **parameters):
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path, **parameters)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 3000


def header(content, length=None):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(path):
    return pickle.dumps(Payload(path))


def zipped(path):
    content = io.BytesIO()
    torch.save({"a": Payload(path)}, content)
    return content.getvalue()


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
NO_MODEL = {
    "empty": lambda trap: b"",
    "pickle": pickled,
    "torch zip": zipped,
    "text": lambda trap: b"import os; os.system('touch trap')" * 10,
    "header longer than the file": lambda trap: header({}, 10_000),
    "header of 2^63 bytes": lambda trap: header({}, 2**63),
    "header that is no JSON": lambda trap: header(b"{'a': 1}"),
    "deep header": lambda trap: header(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    "huge declared tensor": lambda trap: header(
        {"a": ENTRY | {"shape": [2**40], "data_offsets": [0, 2**42]}}
    ),
    "overflowing shape": lambda trap: header({"a": ENTRY | {"shape": [2**40, 2**40]}}) + bytes(4),
    "negative offset": lambda trap: header({"a": ENTRY | {"data_offsets": [-4, 0]}}),
    "unknown dtype": lambda trap: header({"a": ENTRY | {"dtype": "object"}}) + bytes(4),
    "overlapping tensors": lambda trap: header({"a": ENTRY, "b": ENTRY}) + bytes(4),
    "metadata twice": lambda trap: header(b'{"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}}'),
    "tensors of someone else": lambda trap: header({"a": ENTRY}) + bytes(4),
    "metadata of someone else": lambda trap: header({"__metadata__": {"format": "pt"}}),
}


@pytest.mark.parametrize("name", NO_MODEL)
def test_a_file_that_is_no_model_is_refused(name, tmp_path):
    trap = tmp_path / "trap"
    path = tmp_path / "model"
    path.write_bytes(NO_MODEL[name](trap))
    refused(path, "cannot be loaded: (Error while deserializing|found no metadata)")
    assert not trap.exists()


def test_what_is_no_file_is_refused(tmp_path):
    refused(tmp_path, "no ordinary file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no ordinary file")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none")


def test_a_file_cut_or_extended_anywhere_is_refused(fitted, tmp_path):
    path = tmp_path / "model"
    save_model(fitted, path)
    content = path.read_bytes()
    for length in (1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "Error while deserializing")
    path.write_bytes(content + b"\0")
    refused(path, "Error while deserializing")


def test_a_flipped_bit_is_refused_or_harmless(fitted, tmp_path):
    path = tmp_path / "model"
    save_model(fitted, path)
    content = path.read_bytes()
    described = 8 + int.from_bytes(content[:8], "little")
    n_refused = 0
    for position in np.random.default_rng(0).integers(described, size=200):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            loaded = load_model(path)
        except ValueError:
            n_refused += 1
        else:
            assert np.isfinite(np.asarray(loaded.predict_proba(X[:5]))).all()
    assert n_refused > 150


def at(document, *keys):
    for key in keys:
        document = document[key]
    return document


def put(*keys):
    """Change the document at these keys to the last of them."""
    *keys, name, value = keys

    def tamper(parts):
        at(parts.document, *keys)[name] = value

    return tamper


def drop(*keys):
    return lambda parts: at(parts.document, *keys[:-1]).pop(keys[-1])


def put_tensor(name, change):
    def tamper(parts):
        parts.tensors[name] = change(parts.tensors[name])

    return tamper


def add_tensor(name):
    return lambda parts: parts.tensors.update({name: torch.zeros(1)})


def nan_weight(parts):
    parts.tensors[BIAS][0] = torch.nan


def no_numbers(parts):
    parts.document["parameters"]["n_members"] = 10**8
    for name in parts.tensors:
        if name.startswith("nets."):
            parts.tensors[name] = torch.zeros(10**8, 0)


BIAS = "nets.0.members.head.0.bias"
CLASSES = {"$text": [5, ["low", "other"]]}
TAMPERED = {
    # The outline.
    "future version": (put("version", 2), "found version 2 of the format; expected 1"),
    "boolean version": (put("version", True), "found version True"),
    "no version": (drop("version"), "found version None"),
    "unknown part": (put("code", "import os"), "keys of the document: found"),
    "missing part": (drop("nets"), "keys of the document: found"),
    "part of wrong type": (put("nets", {}), "nets: found a dict; expected list"),
    # Names.
    "wrong class": (put("estimator", "os.system"), "estimator: found 'os.system'; expected"),
    "other class": (put("estimator", "ProbMixupRegressor"), "parameters: found .'class_weight'"),
    "class of wrong type": (put("estimator", "abc" * 10**6), "estimator: found 'abc"),
    "unknown family": (put("parameters", "family", "os"), "'family' parameter"),
    "unknown family object": (
        put("parameters", "family", {"$family": ["os.system", {}]}),
        "family: found 'os.system'; expected .'bernoulli'",
    ),
    "argument of a family": (
        put("parameters", "family", {"$family": ["normal", {"variance_floor": "a"}]}),
        "argument of .family: found a str",
    ),
    "unknown activation": (put("parameters", "activation", "eval"), "'activation' parameter"),
    "unknown parameter": (put("parameters", "__class__", 1), "parameters: found .'__class__'"),
    "unknown tag": (put("parameters", "alpha", {"$object": "os"}), "tag: found '.object'"),
    "two tags": (put("parameters", "alpha", {"$float": "nan", "a": 1}), "among other keys"),
    "unknown attribute": (put("fitted", "predict", 1), "fitted attributes: found .'predict'"),
    "unknown request": (put("requests", {"__init__": {}}), "a request of: found __init__"),
    "request of wrong type": (put("requests", {"fit": {"groups": []}}), "groups"),
    # Values of parameters.
    "parameter of wrong type": (put("parameters", "alpha", "a lot"), "'alpha' parameter"),
    "list of unknown kinds": (put("parameters", "method", [{"methud": "erm"}]), "methud"),
    "kinds of wrong type": (put("parameters", "method", [1]), "cannot be loaded"),
    "parameter in a kind": (
        put("parameters", "method", [{"method": "m-probmix", "n_draws": "a"}]),
        "'n_draws' parameter",
    ),
    "no widths": (put("parameters", "hidden_layer_sizes", ["a"]), "hidden_layer_sizes="),
    "nets for callbacks": (put("parameters", "net", [1]), "'net' parameter"),
    "NaN": (put("parameters", "alpha", {"$float": "nan"}), "'alpha' parameter"),
    "float that is none": (put("parameters", "alpha", {"$float": "1e5"}), "expected 'nan', 'inf'"),
    "scalar of no dtype": (put("parameters", "alpha", {"$scalar": ["object", 1]}), "scalar: found"),
    "scalar out of range": (put("parameters", "alpha", {"$scalar": ["int8", 300]}), "300"),
    "scalar of wrong type": (put("parameters", "alpha", {"$scalar": ["bool", "yes"]}), "'yes'"),
    "tuple of no list": (put("parameters", "alpha", {"$tuple": 1}), "tuple: found a int"),
    "dict of no pairs": (put("parameters", "class_weight", {"$dict": [1]}), "cannot be loaded"),
    "dict of equal keys": (
        put("parameters", "class_weight", {"$dict": [[1, 2], [1, 3]]}),
        "dict: found a key twice",
    ),
    # Fitted attributes.
    "missing attribute": (drop("fitted", "classes_"), "no fitted attribute 'classes_'"),
    "attribute of wrong type": (put("fitted", "weights_", [1.0]), "weights_: found a list"),
    "weights not convex": (put_tensor("fitted.weights_", lambda w: w * 2), "weights_: found .2"),
    "weights of other dtype": (put_tensor("fitted.weights_", torch.Tensor.float), "float32"),
    "one class": (put("fitted", "classes_", {"$text": [5, ["low"]]}), "classes_: found array"),
    "unsorted classes": (
        put("fitted", "classes_", {"$text": [5, ["other", "low"]]}),
        "classes_: found array.* expected at least 2 sorted labels",
    ),
    "classes of odd objects": (
        put("fitted", "classes_", {"$text": [None, [["low"], ["other"]]]}),
        "values of .text",
    ),
    "huge strings": (
        put("fitted", "classes_", {"$text": [10**12, ["low", "other"]]}),
        "text: found width 1000000000000",
    ),
    "more classes": (put("fitted", "classes_", {"$text": [5, ["a", "b", "c"]]}), "head\\.0"),
    "calibration": (
        put("fitted", "calibration_", {"$calibration": ["Temperature", {"temperature": -1.0}]}),
        "temperature=-1.0.*expected a positive",
    ),
    "kind of calibration": (
        put("fitted", "calibration_", {"$calibration": ["Spread", {"a": 1.0, "b": 0.0}]}),
        "calibration_: found a Spread",
    ),
    "history": (put("fitted", "history_", [{"kind": 7}]), "kind in history_: found 7"),
    "history of no dicts": (put("fitted", "history_", [1]), "an epoch of history_: found a int"),
    "columns": (put("fitted", "n_features_in_", 5), "n_features_in_: found 5; expected 3"),
    "column names": (put("fitted", "feature_names_in_", CLASSES), "feature_names_in_: found .2,"),
    "scaling": (put_tensor("fitted.scaler_.scale_", lambda s: s * 0), "scaler_.scale_: found .0"),
    "part of the scaling": (drop("fitted", "scaler_", "var_"), "keys of scaler_"),
    "shift": (put_tensor("fitted.y_shift_", lambda s: s.repeat(2)), "y_shift_: found float64 of"),
    # Tensors.
    "shape of a weight": (put_tensor(BIAS, lambda w: w[:, :1].clone()), "bias of network 0: found"),
    "dtype of a weight": (put_tensor(BIAS, torch.Tensor.double), "float64.* expected .*float32"),
    "NaN weight": (nan_weight, "bias of network 0: found NaN"),
    "missing weight": (lambda parts: parts.tensors.pop(BIAS), "0.bias'. missing"),
    "extra weight": (add_tensor("nets.0.__class__"), "'__class__'. superfluous"),
    "extra network": (add_tensor("nets.1.weight"), "tensors: found .'nets.1.weight'"),
    "path traversal": (add_tensor("../../../etc/passwd"), "tensors: found .'../../../etc/passwd'"),
    "absolute path": (
        put("fitted", "weights_", {"$array": "/etc/passwd"}),
        "reference to the tensor '/etc/passwd'",
    ),
    "a tensor read twice": (
        put("fitted", "best_epoch_", {"$array": "fitted.weights_"}),
        "reference to the tensor 'fitted.weights_'",
    ),
    "tensor without a name": (put("fitted", "weights_", {"$array": [1]}), "tensor '.1.'; expected"),
    "array of bfloat16": (put_tensor("fitted.weights_", torch.Tensor.bfloat16), "BFloat16"),
    "no networks": (put("nets", []), "number of networks: found 0; expected 1"),
    "network of wrong type": (put("nets", [1]), "network 0: found a int"),
    "network with code": (put("nets", [{"module": "os"}]), "keys of network 0: found .'module'"),
    # Sizes, which must not be believed.
    "wide layers": (
        put("parameters", "hidden_layer_sizes", [20_000, 20_000]),
        r"size of network 0: found \d+ numbers .* expected at least \d+",
    ),
    "layers of no width": (put("parameters", "hidden_layer_sizes", [0]), "expected integers, at"),
    "weights without numbers": (no_numbers, "size of network 0: found 0 numbers"),
    "huge layers": (put("parameters", "hidden_layer_sizes", [10**9, 10**9]), "size of network 0"),
    "many layers": (
        put("parameters", "hidden_layer_sizes", [1] * 10**5),
        r"in \d+ tensors; expected .* 100000 hidden",
    ),
    "many members": (put("parameters", "n_members", 10**8), "size of network 0"),
    "many draws": (put("parameters", "n_draws", 10**8), "size of network 0"),
    "more draws than bits": (put("parameters", "n_draws", 10**30), "size of network 0"),
    "many kinds": (put("parameters", "method", ["erm"] * 10**4), "found 1; expected 10000"),
    "object left to the caller": (put("left_to_caller", {"net": "x" * 10**6}), "net .a xxx"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_model_is_refused(name, folds, tmp_path):
    tamper, message = TAMPERED[name]
    parts = taken_apart(folds, tmp_path)
    tamper(parts)
    store(parts.tensors, parts.document, tmp_path / "model")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "model", message)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "found version None"),
        ('{"version": 1, "version": 1}', "found the key 'version' more than once"),
        ('{"version": NaN}', "found NaN in JSON"),
        ('{"version": ' + "9" * 5000 + "}", "integer string conversion"),
        ('{"version": ' + "[" * 10**5 + "]" * 10**5 + "}", "recursion"),
        ("__import__('os').system('touch trap')", "Expecting value"),
    ],
)
def test_a_tampered_document_is_refused(text, message, tmp_path):
    save_file({}, tmp_path / "model", {"sklearn_probmix": text})
    refused(tmp_path / "model", message)


def test_deep_values_are_refused(folds, tmp_path):
    parts = taken_apart(folds, tmp_path)
    parts.document["parameters"]["class_weight"] = "deep"
    deep = '{"$tuple":[' * 350 + "1" + "]}" * 350
    text = json.dumps(parts.document).replace('"deep"', deep)
    save_file(parts.tensors, tmp_path / "model", {"sklearn_probmix": text})
    refused(tmp_path / "model", "recursion")


def test_tampered_predictions_are_refused(tmp_path):
    est = regressor(hidden_layer_sizes=(8,), n_members=2, validation="cv").fit(X, Y)
    for change, message in [
        (lambda d: d["components"].__setitem__(0, "os"), "components are one of .*found 'os'"),
        (lambda d: d["components"][1].__setitem__("name", "os"), "name must be that of a scipy"),
        (lambda d: d["components"][1].__setitem__("name", "gamma"), "params of 'gamma'"),
        (lambda d: d["components"].__setitem__(1, []), "need a dict of arrays; found a list"),
        (lambda d: d["components"][1].__setitem__("loc", "a"), "could not convert string"),
        (lambda d: d.pop("weights"), "weights"),
    ]:
        parts = taken_apart(est, tmp_path)
        change(parts.document["fitted"]["oof_predictive_"]["$distribution"])
        store(parts.tensors, parts.document, tmp_path / "model")
        refused(tmp_path / "model", message)


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
