"""Files of someone who means harm, or of a failing disk: refused, or as good as the model."""

import copy
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import LABELS, X, Y, header, opened, store
from one_network import ONE_NETWORK
from safetensors.torch import save_file

from sklearn_probmix import (
    Kind,
    ProbMixupClassifier,
    ProbMixupRegressor,
    load_model,
    save_model,
)

TINY = {"hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0}
ONE = ONE_NETWORK | TINY
TWO_KINDS = ["erm", Kind("m-probmix", alpha=0.1, n_draws=3)]
MODELS = {
    "m-probmix": (ProbMixupRegressor(**ONE), Y),
    "kinds": (
        ProbMixupRegressor(method=TWO_KINDS, n_members=2, calibration="on", **TINY),
        np.stack([Y, Y**2], axis=1),
    ),
    "knots": (ProbMixupRegressor(method="probmix", n_members=3, n_knots=4, **TINY), Y),
    "levels": (ProbMixupRegressor(method="erm", categorical_features=[1], **TINY), Y),
    "text": (
        ProbMixupClassifier(n_members=2, calibration="on", class_weight={"low": 2}, **TINY),
        LABELS,
    ),
    "histogram": (
        ProbMixupRegressor(family="histogram", method="probmix", n_members=2, **TINY),
        np.stack([Y, np.rint(Y)], axis=1),
    ),
    "lattice": (ProbMixupRegressor(family="lattice", **ONE), np.rint(Y)),
}


# Files of version 1.
OLD = ["auto", "kinds", "text"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Save a file of every model."""
    folder = tmp_path_factory.mktemp("models")
    for name, (est, y) in MODELS.items():
        est.fit(X, y)
        save_model(est, folder / name)
    for name in OLD:
        old = Path(__file__).with_name("data") / "version_1" / f"{name}.safetensors"
        shutil.copy(old, folder / f"old {name}")
    return folder


# -- bombs ----------------------------------------------------------------------------------------


def put(*keys):
    """Change a document at these keys to the last of them."""
    *keys, name, value = keys

    def tamper(parts):
        place = parts.document
        for key in keys:
            place = place[key]
        place[name] = value(place.get(name)) if callable(value) else value

    return tamper


def parameters(**changes):
    return lambda parts: parts.document["parameters"].update(changes)


def network(**changes):
    """Change what every kind says, and ask for these kinds."""

    def tamper(parts):
        asked, kinds = parts.document["parameters"], parts.document["fitted"]["kinds_"]
        asked |= {name: None for name in changes if name in asked}
        for kind in kinds:
            kind["$kind"] |= changes
        asked["method"] = copy.deepcopy(kinds)

    return tamper


def tensor(name, value):
    return lambda parts: parts.tensors.__setitem__(name, value)


def both(*tampers):
    def tamper(parts):
        for one in tampers:
            one(parts)

    return tamper


def members(n, vectorised=True):
    """Repeat the members of a true model."""

    def tamper(parts):
        parts.document["parameters"]["n_members"] = n
        parts.document["nets"][0]["vectorised"] = vectorised
        for name, value in parts.tensors.items():
            if name.startswith("nets."):
                parts.tensors[name] = value[:1].repeat(n, *[1] * (value.ndim - 1))

    return tamper


def many_nets(n):
    def tamper(parts):
        parts.document["nets"] *= n
        parts.document["fitted"]["kinds_"] *= n
        network()(parts)
        parts.tensors["fitted.weights_"] = torch.full((n,), 1 / n, dtype=torch.float64)
        for name in [name for name in parts.tensors if name.startswith("nets.0.")]:
            for index in range(1, n):
                copy = parts.tensors[name].clone()
                parts.tensors[name.replace("nets.0", f"nets.{index}")] = copy

    return tamper


def layers(n):
    """Make the single network deep."""

    def tamper(parts):
        network(hidden_layer_sizes=[4] * n, method="erm")(parts)
        for name in [name for name in parts.tensors if name.startswith("nets.")]:
            del parts.tensors[name]
        parts.tensors["nets.0.shared"] = torch.zeros(1, 0)
        places = ["embedding.0", *(f"head.{2 * layer}" for layer in range(n))]
        for place, n_in, n_out in zip(places, [3] + [4] * n, [4] * n + [2], strict=True):
            parts.tensors[f"nets.0.{place}.weight"] = torch.zeros(n_out, n_in)
            parts.tensors[f"nets.0.{place}.bias"] = torch.zeros(n_out)

    return tamper


def wide(width, n_draws):
    """Make the single network, of a random embedding, wide."""

    def tamper(parts):
        network(hidden_layer_sizes=[width], n_draws=n_draws)(parts)
        shapes = {
            "embedding.trunk.0.weight": (width, 3),
            "embedding.trunk.0.bias": (width,),
            "embedding.spread.weight": (width, width),
            "embedding.spread.bias": (width,),
            "head.0.weight": (2, width),
            "sampler.noise": (n_draws, width),
        }
        for name, shape in shapes.items():
            parts.tensors[f"nets.0.{name}"] = torch.zeros(shape)

    return tamper


def wide_point(width):
    """Make the single network wide."""

    def tamper(parts):
        layers(1)(parts)
        network(hidden_layer_sizes=[width])(parts)
        shapes = {"embedding.0.weight": (width, 3), "embedding.0.bias": (width,)}
        for name, shape in (shapes | {"head.0.weight": (2, width)}).items():
            parts.tensors[f"nets.0.{name}"] = torch.zeros(shape)

    return tamper


def many_outputs(n, n_draws):
    def tamper(parts):
        wide(1, n_draws)(parts)
        parts.tensors["nets.0.head.0.weight"] = torch.zeros(2 * n, 1)
        parts.tensors["nets.0.head.0.bias"] = torch.zeros(2 * n)
        parts.tensors["nets.0.shared"] = torch.zeros(n, 0)
        parts.tensors["fitted.y_shift_"] = torch.zeros(n, dtype=torch.float64)
        parts.tensors["fitted.y_scale_"] = torch.ones(n, dtype=torch.float64)
        parts.document["fitted"] |= {"n_outputs_": n, "_y_ndim": 2, "calibration_": None}

    return tamper


def out_of_fold(n):
    """Give the folds as many rows."""

    def tamper(parts):
        for name in [name for name in parts.tensors if name.startswith("fitted.oof_predictive_")]:
            value = parts.tensors[name]
            parts.tensors[name] = value[:1].repeat(n, *[1] * (value.ndim - 1))

    return tamper


def classes(n):
    codes = torch.arange(n)
    return both(
        put("fitted", "classes_", {"$array": "codes"}),
        tensor("codes", codes),
        network(hidden_layer_sizes=[1000]),
        parameters(class_weight=None),
    )


def columns(n):
    def tamper(parts):
        parts.document["fitted"]["n_features_in_"] = n
        parts.document["fitted"]["scaler_"]["n_features_in_"] = n
        for name in ("mean_", "var_", "scale_"):
            parts.tensors[f"fitted.scaler_.{name}"] = torch.ones(n, dtype=torch.float64)

    return tamper


def kind_in_kind(depth):
    value = "erm"
    for _ in range(depth):
        value = {"$kind": {"method": value}}
    return value


# A model, and what is done to its document and tensors.
EDITED = {
    "wide layers": ("knots", network(hidden_layer_sizes=[20_000, 20_000])),
    "huge layers": ("knots", network(hidden_layer_sizes=[10**9, 10**9])),
    "layers beyond 64 bits": ("knots", network(hidden_layer_sizes=[10**30])),
    "many layers": ("knots", network(hidden_layer_sizes=[1] * 10**5)),
    "700 layers": ("m-probmix", layers(700)),
    "2,000 layers": ("m-probmix", layers(2000)),
    "1,000 members": ("knots", members(1000)),
    "1,000 members in a loop": ("knots", members(1000, vectorised=False)),
    "20,000 members": ("knots", members(20_000)),
    "declared members": ("knots", parameters(n_members=10**8)),
    "declared draws": ("m-probmix", network(n_draws=10**8)),
    "draws beyond 64 bits": ("m-probmix", network(n_draws=10**30)),
    "true draws": ("m-probmix", wide(4, 150_000)),
    "draws of one number": ("m-probmix", wide(1, 340_000)),
    "a wide embedding": ("m-probmix", wide(2000, 16)),
    "a wide layer": ("m-probmix", wide_point(10**6)),
    "draws times outputs": ("m-probmix", many_outputs(10_000, 100_000)),
    "many outputs": ("m-probmix", many_outputs(100_000, 2)),
    "declared knots": ("knots", network(n_knots=10**9)),
    "128 networks": ("knots", many_nets(128)),
    "129 networks": ("knots", many_nets(129)),
    "declared networks": ("knots", put("nets", [{"vectorised": None}] * 10**5)),
    "declared kinds": ("knots", parameters(method=["erm"] * 10**5)),
    "fitted kinds": ("knots", put("fitted", "kinds_", [{"$kind": {"method": "erm"}}] * 10**4)),
    "asked kinds": ("knots", parameters(method=[{"$kind": {}}] * 25_000)),
    "kinds that are no kinds": ("text", parameters(class_weight=[{"$kind": {}}] * 25_000)),
    "kinds of kinds": ("knots", parameters(method=kind_in_kind(250))),
    "a kind of many parameters": (
        "knots",
        put("fitted", "kinds_", [{"$kind": {f"a{i}": 1 for i in range(10**5)}}]),
    ),
    "a kind of many widths": ("knots", network(hidden_layer_sizes=[1] * 180_000)),
    "a kind of a wide batch": ("knots", network(batch_size=10**300, max_epochs=10**300)),
    "classes times width": ("text", classes(10**5)),
    "columns of a matrix": ("knots", columns(500_000)),
    "wide text": (
        "text",
        both(
            put("fitted", "classes_", {"$text": "t"}), tensor("t", torch.zeros(3, 2 * 10**6).int())
        ),
    ),
    "text of no width": (
        "text",
        both(
            put("fitted", "classes_", {"$text": "t"}),
            tensor("t", torch.zeros(10**9, 0, dtype=torch.int32)),
        ),
    ),
    "objects": (
        "text",
        put("fitted", "classes_", {"$objects": [f"{code:05}" for code in range(10**5)]}),
    ),
    "a family of many classes": (
        "text",
        parameters(family={"$family": {"family": "categorical", "n_classes": 10**9}}),
    ),
    "arguments of a family": (
        "knots",
        parameters(family={"$family": {"family": "normal"} | {f"a{i}": 1 for i in range(10**5)}}),
    ),
    "weights of classes": (
        "text",
        parameters(class_weight={f"c{code}": 1 for code in range(10**5)}),
    ),
    "a long history": ("knots", put("fitted", "history_", lambda epochs: epochs * 20_000)),
    "a possible history": ("knots", put("fitted", "history_", lambda epochs: epochs * 3000)),
    "many rows out of fold": ("kinds", out_of_fold(120_000)),
    "wide requests": ("knots", put("requests", {"fit": {f"a{i}": True for i in range(10**5)}})),
    "names left to the caller": (
        "knots",
        put("left_to_caller", {f"a{i}": "b" for i in range(10**5)}),
    ),
    "a huge seed": ("knots", parameters(random_state=10**300)),
    # Close to what a document may hold.
    "lists": ("text", parameters(class_weight=[[]] * 85_000)),
    "dicts": ("text", parameters(class_weight=[{}] * 48_000)),
    "dicts of a key": ("text", parameters(class_weight=[{"a": 0.5}] * 47_000)),
    "floats": ("text", parameters(class_weight=[0.5] * 185_000)),
    "strings": ("text", parameters(class_weight=[f"{i:x}" for i in range(180_000)])),
    "integers": ("text", parameters(class_weight=[10**9 + i for i in range(170_000)])),
    "keys": ("text", parameters(class_weight={f"{i:x}": 0 for i in range(170_000)})),
    "pairs": ("text", parameters(class_weight={"$dict": [[i, i] for i in range(59_000)]})),
    "tuples": ("text", parameters(class_weight=[{"$tuple": []}] * 36_000)),
    "scalars": ("text", parameters(class_weight=[{"$scalar": ["str", "ab"]}] * 30_000)),
    "a long string": ("text", parameters(class_weight="a" * 3_900_000)),
    "a long object": ("text", put("fitted", "classes_", {"$objects": ["a" * 3_900_000, "b"]})),
    "empty tensors": (
        "knots",
        lambda parts: parts.tensors.update({str(i): torch.zeros(0) for i in range(60_000)}),
    ),
    "an empty tensor of many rows": (
        "knots",
        lambda parts: parts.tensors.update({BIAS: torch.zeros(10**12, 0)}),
    ),
    "one-letter tensors": (
        "knots",
        lambda parts: parts.tensors.update({str(i): torch.zeros(1).byte() for i in range(10**4)}),
    ),
}


def text_of(declared, n):
    """Write text as version 1 did, of a declared width."""
    return {"$text": [declared, ["a"] * n]}


def version_1(**more):
    return {"version": 1} | more


DEEP = "[" * 10**5 + "]" * 10**5
# What stands in place of the document.
DOCUMENTS = {
    "deep lists": DEEP,
    "deep dicts": '{"a":' * 10**5 + "1" + "}" * 10**5,
    "deep tags": '{"$tuple":[' * 10**4 + "1" + "]}" * 10**4,
    "empty lists": "[" + "[]," * 10**6 + "[]]",
    "empty dicts": "[" + "{}," * 10**6 + "{}]",
    "dicts of a key": "[" + '{"":1},' * 500_000 + "{}]",
    "different keys": json.dumps({f"{i:x}": 0 for i in range(350_000)}),
    "short strings": "[" + '"ab",' * 700_000 + "1]",
    "floats": "[" + ".1," * 10**6 + "1]",
    "exponents": "[" + "1e9," * 900_000 + "1]",
    "a number of a million digits": '{"version": ' + "9" * 10**6 + "}",
    "a float of a million digits": '{"version": 0.' + "9" * 10**6 + "}",
    "wide characters": '"' + "\U0001d6fc" * 10**6 + '"',
    "escaped kinds": '{"version":2,"a":[' + '{"\\u0024kind":{}},' * 20_000 + "1]}",
    "escaped brackets": '["' + "\\u005b" * 600_000 + '"]',
    "8 MB": '"' + "a" * 8_000_000 + '"',
    "an equal key": "{" + '"a":1,' * 10**5 + '"a":1}',
    "text of version 1": json.dumps(version_1(fitted=text_of(10**12, 1))),
    "lists of version 1": json.dumps(version_1(fitted=[[]] * 85_000)),
    "dicts of version 1": json.dumps(version_1(fitted=[{"a": 1}] * 47_000)),
    "families of version 1": json.dumps(version_1(fitted=[{"$family": ["", {}]}] * 20_000)),
    "much text of version 1": json.dumps(version_1(fitted=[text_of(10**6, 1)] * 1000)),
    "long text of version 1": json.dumps(version_1(fitted=text_of(10**5, 40_000))),
}


EMPTY = b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
METADATA = b'"%d":"",'
# What stands in place of the file.
HEADERS = {
    "a length of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "a length beyond the file": struct.pack("<Q", 10**9) + b"{}",
    "spaces": header(b"{}" + b" " * 20_000_000),
    "deep": header(b'{"a":' + DEEP.encode() + b"}"),
    "empty tensors alone": header(b"{" + b"".join(EMPTY % i for i in range(400_000))[:-1] + b"}"),
    "keys of metadata": header(
        b'{"__metadata__":{' + b"".join(METADATA % i for i in range(300_000))[:-1] + b"}}"
    ),
    "a huge tensor": header(
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    ),
    "an overflowing shape": header(
        b'{"a":{"dtype":"U8","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
}


HONEST = {
    *("700 layers", "1,000 members", "1,000 members in a loop", "true draws", "a wide layer"),
    *("a wide embedding", "many outputs", "128 networks", "a possible history"),
    *("draws of one number", "many rows out of fold", "a kind of a wide batch"),
}


def write_bombs(models, folder):
    for name, (model, tamper) in EDITED.items():
        parts = opened(models / model)
        tamper(parts)
        store(parts.tensors, parts.document, folder / name)
    for name, text in DOCUMENTS.items():
        store({}, text, folder / f"document of {name}")
    for name, content in HEADERS.items():
        (folder / f"header of {name}").write_bytes(content)
    with open(folder / "a sparse file", "wb") as file:
        file.write((models / "knots").read_bytes())
        file.truncate(10**11)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read from /proc")
def test_no_bomb_takes_much_memory_or_time(models, tmp_path):
    """Each is loaded in a process of its own, whose memory and time are measured."""
    write_bombs(models, tmp_path)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == len(EDITED) + len(DOCUMENTS) + len(HEADERS) + 1
    command = [sys.executable, Path(__file__).with_name("loading.py"), models / "m-probmix"]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, check=True)
    loads = [json.loads(line) for line in done.stdout.splitlines()]
    excessive = [
        (path.name, load)
        for path, load in zip(paths, loads, strict=True)
        if load["bytes"] > 64e6 + 4 * path.stat().st_size
        or load["seconds"] > 5
        or not load["outcome"].startswith(("ValueError", "loaded"))
    ]
    assert excessive == []
    # What is as large as it says is a model like any other.
    loaded = {
        path.name for path, load in zip(paths, loads, strict=True) if load["outcome"] == "loaded"
    }
    assert loaded == HONEST


# -- bits and bytes -------------------------------------------------------------------------------


def predictions(est):
    """Probabilities, or mean and deviation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = est.predict_proba(X[:5])
    if isinstance(est, ProbMixupRegressor):
        predicted = np.stack([predicted.mean(), predicted.std()])
    return predicted


def refused(path, message="cannot be loaded", **parameters):
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path, **parameters)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 3000


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
    refused(path, "cannot be loaded: (it is damaged, or no file|metadata: found)")
    assert not trap.exists()


def test_what_is_no_file_is_refused(tmp_path):
    refused(tmp_path, "no ordinary file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no ordinary file")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none")


@pytest.mark.parametrize("name", MODELS)
def test_a_flipped_bit_is_damage(name, models, tmp_path):
    path, content = tmp_path / "model", (models / name).read_bytes()
    described = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    # Half of them in the description, half in the tensors.
    places = [*rng.integers(described, size=30), *rng.integers(described, len(content), size=30)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        refused(path, "damaged")


@pytest.mark.parametrize("name", MODELS)
def test_changed_bytes_are_damage(name, models, tmp_path):
    path, content = tmp_path / "model", (models / name).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(100):
        start, length = rng.integers(len(content)), 1 + rng.integers(16)
        damaged = bytearray(content)
        damaged[start : start + length] = rng.bytes(length)
        path.write_bytes(damaged[: len(content)])
        if damaged != content:
            refused(path)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_cut_or_extended_anywhere_is_refused(name, models, tmp_path):
    path, content = tmp_path / "model", (models / name).read_bytes()
    lengths = np.random.default_rng(2).integers(len(content), size=40)
    for length in [0, 1, 7, 8, 9, len(content) - 1, *lengths]:
        path.write_bytes(content[:length])
        refused(path, "damaged")
    path.write_bytes(content + b"\0")
    refused(path, "damaged")


def test_a_file_without_its_checksum_is_refused(models, tmp_path):
    parts = opened(models / "knots")
    save_file(parts.tensors, tmp_path / "model", {"sklearn_probmix": json.dumps(parts.document)})
    refused(tmp_path / "model", "metadata: found no checksum; expected one: it is damaged")


# -- edits ----------------------------------------------------------------------------------------


def find(document, keys):
    for key in keys:
        document = document[key]
    return document


def drop(*keys):
    return lambda parts: find(parts.document, keys[:-1]).pop(keys[-1])


def fill(name, value):
    return lambda parts: parts.tensors[name].fill_(value)


SOURCE, SHOWS = (f"fitted.encoder_.{name}" for name in ("source", "shows"))
BIAS = "nets.0.members.head.0.bias"
# A model, an edit, and what of it the message names.
EDITS = {
    "future version": ("text", put("version", 3), "found version 3 of the format; expected 2 or 1"),
    "boolean version": ("text", put("version", True), "found version True"),
    "no version": ("text", drop("version"), "found version None"),
    "unknown part": ("text", put("code", "import os"), "unexpected keyword argument 'code'"),
    "missing part": ("text", drop("nets"), "missing 1 required .* 'nets'"),
    "wrong class": ("text", put("estimator", "os.system"), "estimator: found 'os.system'"),
    "other class": ("text", put("estimator", "ProbMixupRegressor"), "argument 'class_weight'"),
    "dunder": ("text", parameters(__class__=1), "argument '__class__'"),
    "unknown tag": ("text", parameters(alpha={"$object": "os"}), "tag: found '.object'"),
    "two tags": ("text", parameters(alpha={"$float": "nan", "a": 1}), "expected the tag alone"),
    "no float": (
        "text",
        parameters(alpha={"$float": "1e5"}),
        "float: found '1e5'; expected .'-inf', 'inf', 'nan'",
    ),
    "no dtype": ("text", parameters(alpha={"$scalar": ["object", 1]}), "scalar: found 'object'"),
    "a small integer": ("text", parameters(alpha={"$scalar": ["int8", 300]}), "300"),
    "NaN": ("text", parameters(alpha={"$float": "nan"}), "'alpha' parameter"),
    "no device": ("text", parameters(device="nonsense"), "device='nonsense' cannot be used here"),
    "device without memory": ("text", parameters(device="meta"), "cannot be loaded"),
    "callbacks": ("text", parameters(callbacks=["x"]), "callbacks holds 'x'; expected callbacks"),
    "net": ("text", parameters(net=[1]), "'net' parameter"),
    "weights of no class": (
        "text",
        parameters(class_weight={"x": 1}),
        r"class_weight names \['x'\]",
    ),
    "a large floor": (
        "knots",
        parameters(family={"$family": {"family": "normal", "variance_floor": 1e308}}),
        "variance_floor=1e.308; expected",
    ),
    "a negative floor": (
        "knots",
        parameters(family={"$family": {"family": "normal", "variance_floor": -1.0}}),
        "variance_floor=-1.0; expected a positive number",
    ),
    "unknown family": (
        "knots",
        parameters(family={"$family": {"family": "os.system"}}),
        "family='os.system' is unknown",
    ),
    "argument of a family": (
        "knots",
        parameters(family={"$family": {"family": "gamma", "code": 1}}),
        "takes no arguments",
    ),
    "half a class": (
        "text",
        parameters(family={"$family": {"family": "categorical", "n_classes": 2.5}}),
        "n_classes=2.5; expected an integer",
    ),
    "no bins": ("histogram", drop("fitted", "family_"), "has not seen responses yet"),
    "edges that fall": (
        "histogram",
        put("fitted", "family_", "$family", "edges", [[2.0, 1.0], [1.0, 2.0]]),
        "edges must increase",
    ),
    "other bins": (
        "histogram",
        put("fitted", "family_", "$family", "edges", [[1.0, 2.0], [1.0, 2.0]]),
        "of network 0: found ",
    ),
    "bins of another family": (
        "lattice",
        put("fitted", "family_", {"$family": {"family": "normal"}}),
        "family_: found Normal.*; expected Lattice.. as fitted",
    ),
    "a number of bins that was not asked for": (
        "histogram",
        put("fitted", "family_", "$family", "n_bins", 9),
        "family_: found Histogram.n_bins=9.; expected Histogram.n_bins=None. as fitted",
    ),
    "no kinds": ("knots", put("fitted", "kinds_", []), "number of kinds_: found 0; expected 1"),
    "no kind": ("knots", put("fitted", "kinds_", ["erm"]), "a kind in kinds_: found a str"),
    "other kinds": (
        "knots",
        put("fitted", "kinds_", [{"$kind": {"method": "erm"}}]),
        "weights of network 0: found .*encoder.knots.. superfluous",
    ),
    "other kinds of the same weights": (
        "knots",
        put("fitted", "kinds_", 0, "$kind", "method", "mixup"),
        "parameters were changed since fit.*method=.'probmix'., the fitted ones have .'mixup'.",
    ),
    "code of a kind": (
        "knots",
        put("fitted", "kinds_", 0, "$kind", "code", "os"),
        "unexpected keyword argument 'code'",
    ),
    "a list as a kind": (
        "knots",
        put("fitted", "kinds_", [{"$kind": []}]),
        "argument after .. must be a mapping, not list",
    ),
    "a negative alpha": (
        "knots",
        put("fitted", "kinds_", 0, "$kind", "alpha", -1),
        "'alpha' parameter of Kind must be",
    ),
    "a family as an activation": (
        "knots",
        network(activation={"$family": {"family": "gamma"}}),
        "'activation' parameter of Kind",
    ),
    "text as widths": (
        "knots",
        network(hidden_layer_sizes=["x"]),
        "hidden_layer_sizes=.'x',.; exp",
    ),
    "other widths": (
        "knots",
        parameters(hidden_layer_sizes=[5]),
        "changed since fit: they ask for networks of hidden_layer_sizes=.5,.",
    ),
    "no networks": ("knots", put("nets", []), "number of networks: found 0"),
    "code of a network": ("knots", put("nets", [{"module": "os"}]), "argument 'module'"),
    "requests": ("knots", put("requests", {"__init__": {}}), "a request of: found __init__"),
    "no attribute": ("knots", drop("fitted", "n_iter_"), "no fitted attribute 'n_iter_'"),
    "no scaling": ("knots", drop("fitted", "scaler_", "mean_"), "'mean_'"),
    "levels of other columns": (
        "levels",
        put("fitted", "encoder_", "$columns", "levels", [None, None, None]),
        "columns: found others",
    ),
    "levels of more columns": (
        "levels",
        put("fitted", "encoder_", "$columns", "levels", lambda levels: [*levels, None]),
        "n_features_in_: found 3; expected 4",
    ),
    "no levels": ("levels", drop("fitted", "encoder_"), "n_features_in_: found 3; expected 62"),
    "levels that are others": (
        "levels",
        put("fitted", "encoder_", {"$kind": {}}),
        "encoder_: found a Kind; expected ColumnEncoder or None",
    ),
    "fewer levels shown": (
        "levels",
        both(tensor(SOURCE, torch.zeros(1).long()), tensor(SHOWS, -torch.ones(1).long())),
        "scaler_.n_features_in_: found 62; expected 1",
    ),
    "a negative reach": (
        "knots",
        fill("fitted.scaler_.reach_", -1),
        "scaler_.reach_: found .* expected 3 positive numbers",
    ),
    "a reach of other columns": (
        "knots",
        tensor("fitted.scaler_.reach_", torch.ones(2, dtype=torch.float64)),
        "scaler_.reach_: found .* expected 3 positive numbers",
    ),
    "columns": ("knots", put("fitted", "n_features_in_", 5), "n_features_in_: found 5; expected 3"),
    "names": (
        "knots",
        put("fitted", "feature_names_in_", {"$objects": ["a", "b", 1]}),
        "feature_names_in_: found .* expected 3 strings",
    ),
    "history": (
        "knots",
        put("fitted", "history_", [{"kind": 7}]),
        "an epoch of history_: found .'kind': 7",
    ),
    "batches": (
        "knots",
        put("fitted", "history_", [{"kind": 0, "batches": 1}]),
        "an epoch of history_: found .*'batches': 1.; expected numbers of",
    ),
    "one class": (
        "text",
        put("fitted", "classes_", {"$objects": ["a"]}),
        "classes_: found array.* expected at least 2 sorted labels",
    ),
    "odd classes": (
        "text",
        put("fitted", "classes_", {"$objects": [["a"], ["b"]]}),
        "values of .objects",
    ),
    "no text": (
        "text",
        both(put("fitted", "classes_", {"$text": "t"}), tensor("t", torch.full((3, 4), -1).int())),
        "text: found int32 of shape .3, 4.; expected code points",
    ),
    "temperature": (
        "text",
        put("fitted", "calibration_", {"$temperature": {"temperature": -1.0}}),
        "temperature=-1.0.*; expected a positive temperature",
    ),
    "another calibration": (
        "text",
        put("fitted", "calibration_", {"$spread": {"a": 1.0, "b": 0.0}}),
        "calibration_: found a Spread; expected Temperature or None",
    ),
    "weights of kinds": (
        "knots",
        fill("fitted.weights_", 2.0),
        "weights_: found .2..; expected 1 of sum 1",
    ),
    "no scale": ("knots", fill("fitted.y_scale_", 0.0), "cannot be loaded"),
    "no number": (
        "knots",
        fill("fitted.y_shift_", torch.nan),
        "is nan at index .0, 0, 0., expected finite",
    ),
    "weight of NaN": ("knots", fill(BIAS, torch.nan), "bias of network 0: found NaN or infinity"),
    "infinite weight": ("knots", fill(BIAS, torch.inf), "bias of network 0: found NaN or infinity"),
    "infinite knots": (
        "knots",
        fill("nets.0.members.encoder.knots", torch.inf),
        "found NaN or infinity",
    ),
    "shape of a weight": ("knots", tensor(BIAS, torch.zeros(3, 1)), "bias of network 0: found .*1"),
    "dtype of a weight": ("knots", tensor(BIAS, torch.zeros(3, 2).double()), "found torch.float64"),
    "more weights": ("knots", tensor("nets.0.__class__", torch.zeros(1)), "'__class__'. superfl"),
    "a second network": ("knots", tensor("nets.1.bias", torch.zeros(1)), "tensors: found .'nets.1"),
    "path": ("knots", tensor("../../passwd", torch.zeros(1)), "tensors: found .'../../passwd'"),
    "tensor of no name": (
        "knots",
        put("fitted", "weights_", {"$array": [1]}),
        "tensor of .array: found .1.; expected one that is unread",
    ),
    "tensor read twice": (
        "knots",
        put("fitted", "best_epoch_", {"$array": "fitted.y_shift_"}),
        "tensor of .array: found 'fitted.y_shift_'",
    ),
    "left to the caller": (
        "knots",
        both(put("left_to_caller", {"net": "x" * 10**5}), drop("parameters", "net")),
        "it leaves net .a xxx",
    ),
    "another distribution": (
        "knots",
        put("fitted", "oof_predictive_", "$distribution", "components", ["scipy", {"name": "os"}]),
        "name must be that of a scipy.stats distribution",
    ),
    "other components": (
        "knots",
        put("fitted", "oof_predictive_", "$distribution", "components", ["os", {}]),
        "components are one of .*found 'os'",
    ),
    "no weights": ("knots", drop("fitted", "oof_predictive_", "$distribution", "weights"), "weigh"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_refused_in_words(name, models, tmp_path):
    model, tamper, message = EDITS[name]
    parts = opened(models / model)
    tamper(parts)
    store(parts.tensors, parts.document, tmp_path / "model")
    refused(tmp_path / "model", message)


# -- mutants --------------------------------------------------------------------------------------


def places(value, at=()):
    """Yield the keys that lead to every value of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*at, key)
        if isinstance(item, dict | list):
            yield from places(item, (*at, key))


VALUES = [
    *(None, True, False, 0, 1, 2, -1, 0.5, -0.5, 1e308, -1e308, 5e-324, 10**30, 3.0, "", "x", "os"),
    *([], {}, [[]], [1], ["x"], {"x": 1}, {"$float": "nan"}, {"$float": "inf"}, {"$tuple": []}),
    *({"$tuple": [3, "x"]}, {"$array": "fitted.weights_"}, {"$scalar": ["int64", -3]}),
    *({"$family": {"family": "normal"}}, {"$family": {"family": "gamma", "variance_floor": 1}}),
    *(
        {"$objects": ["x"]},
        {"$kind": {}},
        {"$kind": {"method": "erm", "hidden_layer_sizes": [4]}},
        {"$dict": [[1, 2]]},
        "auto",
        "erm",
        "cuda",
        "gamma",
        "silu",
        "bernoulli",
    ),
]


def change_document(parts, rng):
    """Change one value; return where."""
    every = [*places(parts.document)]
    keys = every[rng.integers(len(every))]
    owner, name = find(parts.document, keys[:-1]), keys[-1]
    match rng.integers(6):
        case 0:
            del owner[name]
        case 1 | 2:
            owner[name] = VALUES[rng.integers(len(VALUES))]
        case 3:
            owner[name] = copy.deepcopy(find(parts.document, every[rng.integers(len(every))]))
        case 4 if type(owner[name]) in (int, float):
            factor = [-1, 3, 1e200][rng.integers(3)]
            owner[name] = float(np.clip(owner[name] * factor, -1e300, 1e300))
        case _:
            value = owner[name]
            more = [*value, *value[:1]] if isinstance(value, list) else [value]
            owner[name] = value | {"x": 1} if isinstance(value, dict) else more
    return ".".join(str(key) for key in keys)


def change_tensors(parts, rng):
    """Change a tensor or two; return which."""
    names = sorted(parts.tensors)
    name, other = (names[i] for i in rng.choice(len(names), size=2, replace=False))
    value = parts.tensors[name]
    match rng.integers(9):
        case 0:
            parts.tensors[name], parts.tensors[other] = parts.tensors[other], value
        case 1:
            del parts.tensors[name]
        case 2:
            parts.tensors[name] = value.to(
                [torch.float64, torch.int32, torch.float16][len(name) % 3]
            )
        case 3:
            parts.tensors[name] = value.reshape(-1)
        case 4:
            parts.tensors[name] = torch.cat([value, value]) if value.ndim else value.reshape(1)
        case 5:
            parts.tensors[name] = value[:0] if value.ndim else value + 1
        case 6:
            parts.tensors[f"{name}x"] = value.clone()
        case bad if value.is_floating_point():
            fill = [[0, torch.inf], [torch.nan, -1]][bad - 7][rng.integers(2)]
            parts.tensors[name] = torch.full_like(value, fill)
        case _:
            parts.tensors[name] = torch.zeros_like(value)
    return name


# What of a document makes another model; no other change of it moves a prediction. Version 1 has
# an activation of every kind.
MATTERS = {
    *(f"fitted.kinds_.{kind}.activation" for kind in range(3)),
    *("parameters.activation", "parameters.family", "parameters.variance_floor"),
    *("fitted.calibration_.$temperature.temperature", "fitted.calibration_"),
    *("fitted.calibration_.$spread.a", "fitted.calibration_.$spread.b"),
}


def moves_predictions(where):
    # The bins and values of a family are where its probability is.
    return where in MATTERS or where.startswith("fitted.family_.$family.")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*MODELS, *(f"old {name}" for name in OLD)])
@pytest.mark.parametrize(
    ("change", "n", "matters"),
    [(change_document, 55, moves_predictions), (change_tensors, 20, lambda where: True)],
)
def test_a_mutant_is_refused_or_a_model(change, n, matters, seed, name, models, tmp_path):
    """It has the checksum of its content, as a hostile writer's would."""
    expected = predictions(load_model(models / name))
    rng = np.random.default_rng([seed, *name.encode()])
    for _ in range(n):
        parts = opened(models / name)
        where = change(parts, rng)
        store(parts.tensors, parts.document, tmp_path / "mutant")
        try:
            est = load_model(tmp_path / "mutant")
        except ValueError:
            continue
        try:
            found = predictions(est)
        except ValueError:
            # A model of columns of another sort refuses these.
            assert where.startswith("fitted.encoder_"), where
            continue
        assert np.isfinite(found).all(), where
        assert matters(where) or np.array_equal(found, expected), where
        save_model(est, tmp_path / "again")
        assert np.array_equal(predictions(load_model(tmp_path / "again")), found), where
