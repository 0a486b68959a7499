"""Pipelines in model files: scikit-learn's transformers as data, and nothing else."""

import io
import json
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from numpy.testing import assert_array_equal
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.feature_selection import SelectFromModel
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from sklearn_probmix import ProbMixupClassifier, ProbMixupRegressor, load_model, save_model
from sklearn_probmix.pipelines import from_bytes, to_bytes
from tests.model_files import X, Y, opened, store

SMALL = {"method": "erm", "n_members": 2, "max_epochs": 2, "random_state": 0}


def own_function(X):
    return X


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(X.copy(), columns=["a", "b", "c"])
    table["town"] = rng.choice(["x", "y", "z"], len(X))
    table.loc[::7, "a"] = np.nan
    return table


@pytest.fixture(scope="module")
def model(frame):
    numbers = make_pipeline(SimpleImputer(), StandardScaler(), FunctionTransformer(np.arctan))
    columns = make_column_transformer(
        (numbers, ["a", "b", "c"]), (OneHotEncoder(sparse_output=False), ["town"])
    )
    return make_pipeline(columns, PCA(4), ProbMixupRegressor(**SMALL)).fit(frame, Y)


def test_a_pipeline_comes_back_bit_for_bit(tmp_path, frame, model):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    loaded = load_model(path)
    assert type(loaded) is Pipeline
    assert list(loaded.named_steps) == list(model.named_steps)
    assert_array_equal(loaded.predict(frame), model.predict(frame))
    assert_array_equal(loaded.feature_names_in_, model.feature_names_in_)
    # It goes on as any Pipeline does.
    assert loaded.fit(frame, Y).predict(frame).shape == Y.shape


def test_classifier_and_parameters_of_the_last_step(tmp_path):
    labels = np.where(Y > 0, "high", "low")
    model = make_pipeline(StandardScaler(), ProbMixupClassifier(**SMALL)).fit(X, labels)
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    loaded = load_model(path, verbose=1)
    assert loaded[-1].verbose == 1
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_a_pipeline_of_one_step(tmp_path):
    model = Pipeline([("nets", ProbMixupRegressor(**SMALL))]).fit(X, Y)
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert list(loaded.named_steps) == ["nets"]
    assert_array_equal(loaded.predict(X), model.predict(X))


def test_a_cache_is_left_out(tmp_path):
    steps = [("scale", StandardScaler()), ("nets", ProbMixupRegressor(**SMALL))]
    model = Pipeline(steps, memory=str(tmp_path / "cache")).fit(X, Y)
    save_model(model, tmp_path / "m")
    assert load_model(tmp_path / "m").memory is None


@pytest.mark.parametrize(
    "step",
    [FunctionTransformer(own_function), SelectFromModel(GradientBoostingRegressor(n_estimators=2))],
)
def test_what_is_no_data_is_refused_with_the_recipe(tmp_path, step):
    model = make_pipeline(step, ProbMixupRegressor(**SMALL)).fit(X, Y)
    with pytest.raises(
        TypeError,
        match=r"cannot be saved as data: .*[^.]\. Save .*save_model\(model\[-1\], path\)",
    ):
        save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_without_skops(tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match="pip install skops"):
        save_model(model, tmp_path / "m")


def rewritten(content, change, compression=zipfile.ZIP_STORED):
    """Return an archive of skops whose entries went through `change(name, content)`."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(made, "w", compression) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return made.getvalue()


@pytest.fixture(scope="module")
def content():
    return to_bytes(Pipeline([("scale", StandardScaler().fit(X))]))


def test_it_is_read_as_it_was_written(content):
    same = rewritten(content, lambda name, part: part)
    assert_array_equal(from_bytes(same).transform(X), StandardScaler().fit_transform(X))


def of_function(module, name):
    """Return a change of the schema that puts a function where a parameter was."""

    def change(entry, part):
        if entry != "schema.json":
            return part
        function = {"__class__": name, "__module__": module, "__loader__": "FunctionNode"}
        schema = json.loads(part)
        schema["content"]["content"]["verbose"] = function | {"content": name, "__id__": 1}
        return json.dumps(schema).encode()

    return change


def of_loader(entry, part):
    return part.replace(b'"ObjectNode"', b'"MethodNode"') if entry == "schema.json" else part


def of_many_values(entry, part):
    return b"[" + b"0," * 400_000 + b"0]" if entry == "schema.json" else part


def of_deep_lists(entry, part):
    return b"[" * 100_000 + b"]" * 100_000 if entry == "schema.json" else part


def of_long_arrays(entry, part):
    if not entry.endswith(".npy"):
        return part
    made = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    np.lib.format.write_array_header_1_0(made, header)
    return made.getvalue()


@pytest.mark.parametrize(
    ("change", "compression", "message"),
    [
        (of_function("os", "system"), zipfile.ZIP_STORED, "os.system"),
        (of_function("builtins", "eval"), zipfile.ZIP_STORED, "eval"),
        (of_loader, zipfile.ZIP_STORED, "MethodNode"),
        (of_many_values, zipfile.ZIP_STORED, "400001 values"),
        (of_long_arrays, zipfile.ZIP_STORED, "8796093022208 bytes"),
        (lambda name, part: part, zipfile.ZIP_DEFLATED, "no compression"),
    ],
)
def test_strange_archives_are_refused(content, change, compression, message):
    with pytest.raises(ValueError, match=message):
        from_bytes(rewritten(content, change, compression))


def test_nesting_is_refused(content):
    with pytest.raises(RecursionError):
        from_bytes(rewritten(content, of_deep_lists))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (StandardScaler().fit(X), "a StandardScaler; expected a Pipeline"),
        (Pipeline([("a", StandardScaler())], memory="somewhere"), "no cache"),
    ],
)
def test_other_objects_are_refused(made, message):
    with pytest.raises(ValueError, match=message):
        from_bytes(skops.io.dumps(made))


def test_a_file_with_other_transformers_is_refused(tmp_path, model):
    path = tmp_path / "m"
    save_model(model, path)
    file = opened(path)
    for value, message in [
        (torch.zeros(100, dtype=torch.uint8), "no archive"),
        (torch.zeros(100), "expected bytes"),
    ]:
        store(file.tensors | {"transformers": value}, file.document, path)
        with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
            load_model(path)
    store(file.tensors, file.document | {"step": 3}, path)
    with pytest.raises(ValueError, match="step: found a int"):
        load_model(path)
