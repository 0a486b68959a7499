"""Fitted transformers of scikit-learn as bytes that hold no code, by skops."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_probmix.codec import check, some

__all__ = ["from_bytes", "to_bytes"]

# What skops makes of data without running any of it; all others are for losses, trees and methods.
_LOADERS = {
    *("ObjectNode", "NdArrayNode", "DTypeNode", "SparseMatrixNode", "RandomStateNode"),
    *("DictNode", "DefaultDictNode", "ListNode", "TupleNode", "SetNode", "SliceNode"),
    *("JsonNode", "TypeNode", "FunctionNode"),
}
# Beside what skops trusts: the estimators of scikit-learn, and functions of numpy and scipy. The
# second is a list of columns, of scikit-learn 1.6.
_TRUSTED = ["numpy.dtype", "sklearn.compose._column_transformer._RemainderColsList"]
_MOST_NODES, _MOST_VALUES = 20_000, 300_000
_HOW = "Save the last step by save_model(model[-1], path), and keep the transformers elsewhere."


def to_bytes(transformers: Pipeline) -> bytes:
    """Write fitted transformers.

    Parameters
    ----------
    transformers : Pipeline
        Without the estimator at its end.

    Raises
    ------
    ImportError
        If skops is not installed.
    TypeError
        If they hold what is not scikit-learn's, such as a function of one's own.
    """
    content = _skops().dumps(transformers)
    try:
        _check(content)
    except ValueError as error:
        raise TypeError(f"the Pipeline cannot be saved as data: {error} {_HOW}") from error
    return content


def from_bytes(content: bytes) -> Pipeline:
    """Read what `to_bytes` wrote; a ValueError if it holds anything else.

    Parameters
    ----------
    content : bytes
    """
    _check(content)
    made = _skops().loads(content, trusted=_TRUSTED)
    check(type(made) is Pipeline, "pipeline", f"a {type(made).__name__}", "a Pipeline")
    # In a later fit joblib would read pickles there.
    caches = [
        name
        for name, value in made.get_params().items()
        if name.rpartition("__")[2] == "memory" and value is not None
    ]
    check(not caches, "pipeline", caches, "no cache in files")
    return made


def _check(content: bytes) -> None:
    """Refuse all but data, and what would take much more memory than it has bytes."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise ValueError(f"pipeline: found no archive of skops ({error}).") from error
    with archive:
        entries = archive.infolist()
        is_plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        total = sum(entry.file_size for entry in entries)
        check(is_plain and total <= len(content), "pipeline", f"{total} bytes", "no compression")
        for entry in entries:
            if entry.filename.endswith(".npy"):
                _check_array(archive.open(entry))
            elif entry.filename != "schema.json":
                check(False, "pipeline", repr(entry.filename[:50]), "arrays and schema.json")
        text = archive.read("schema.json").decode()
    for what, marks, most in (
        ("parts", ['"__loader__"'], _MOST_NODES),
        ("values", "{[,", _MOST_VALUES),
    ):
        n = sum(map(text.count, marks))
        check(n <= most, "pipeline", f"{n} {what}", f"at most {most}")
    loaders = {str(node["__loader__"]) for node in _nodes(json.loads(text))}
    check(loaders <= _LOADERS, "pipeline", some(loaders - _LOADERS), "transformers and data")
    unknown = set(_skops().get_untrusted_types(data=content)) - {*_TRUSTED}
    check(not unknown, "pipeline", some(unknown), "what scikit-learn, numpy and scipy define")


def _check_array(file: Any) -> None:
    """Refuse an array that says that it is larger than it is."""
    size = len(file.read())
    file.seek(0)
    major, _ = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    check(major in read, "an array of the pipeline", f"version {major}", "1 or 2")
    shape, _, dtype = read[major](file)
    n_bytes = dtype.itemsize * int(np.prod(shape, dtype=object))
    check(
        not dtype.hasobject and n_bytes <= size,
        "an array of the pipeline",
        f"{n_bytes} bytes of {dtype}",
        f"at most {size}",
    )


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__loader__" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _skops() -> ModuleType:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            "A Pipeline of scikit-learn's transformers in a model file needs skops: "
            f"pip install skops. {_HOW}"
        ) from error
    return skops.io
