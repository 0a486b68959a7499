"""Values as JSON and named tensors, and back: what a model file is made of.

JSON holds None, booleans, integers, strings, finite floats, lists, and dicts with plain strings as
keys. Every other value is an object with a single key, its tag:

=================  ===================================================================
tag                content
=================  ===================================================================
``$array``         name of the tensor that a numpy array is kept as
``$dict``          any other dict, as pairs
``$float``         "nan", "inf" or "-inf"
``$objects``       values of a 1-D numpy array of strings and numbers as objects
``$scalar``        dtype and value of a numpy scalar
``$tensor``        name of a torch tensor
``$text``          name of the tensor of code points, (..., width), of an array of strings
``$tuple``         a tuple, as a list
=================  ===================================================================

or the name of a class, whose `to_dict` and `from_dict` say what an object consists of and check
it. Tags are looked up in two tables and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from sklearn_probmix.calibration import Spread, Temperature
from sklearn_probmix.columns import ColumnEncoder
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.families import Family
from sklearn_probmix.kinds import Kind

__all__ = ["decode", "encode"]

_LAST_CODE_POINT = 0x10FFFF
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_NUMBERS = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
}
_SCALARS = {name: np.dtype(name).type for name in (*_NUMBERS, "str")}


def encode(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Turn a value into what JSON has.

    Parameters
    ----------
    value : object
    name : str
        What the value is called, in messages and as the name of its tensor.
    tensors : dict of str to Tensor
        Where arrays and tensors are put.

    Returns
    -------
    None, bool, int, float, str, list or dict

    Raises
    ------
    TypeError
        If the value is not data, or holds something that is not.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.codec import encode
    >>> tensors = {}
    >>> encode({"size": (8, 4), "mean": np.ones(3)}, "model", tensors)
    {'size': {'$tuple': [8, 4]}, 'mean': {'$array': 'model.mean'}}
    >>> tensors
    {'model.mean': tensor([1., 1., 1.], dtype=torch.float64)}
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is list:
        return [encode(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
    if type(value) is dict and all(type(key) is str and key[:1] != "$" for key in value):
        return {key: encode(item, f"{name}.{key}", tensors) for key, item in value.items()}
    for tag, kept in _KEPT.items():
        if kept.takes(value):
            return {tag: _put(kept.plain(value), name, tensors)}
    for tag, codec in _CODECS.items():
        if codec.takes(value):
            return {tag: encode(codec.plain(value), name, tensors)}
    raise TypeError(f"{name} holds a {type(value).__name__}, which is not data that a file holds.")


def _put(tensor, name, tensors):
    """Keep a tensor under a name that is new: keys with dots may make a path twice."""
    while name in tensors:
        name += "'"
    tensors[name] = tensor
    return name


def decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Turn what :func:`encode` returned into the value.

    Parameters
    ----------
    value : None, bool, int, float, str, list or dict
    tensors : dict of str to Tensor
        Those that the value refers to are taken out, and become its own: each is read once.

    Returns
    -------
    object

    Raises
    ------
    ValueError, TypeError, LookupError, ArithmeticError
        If this is not what `encode` returns.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item, tensors) for key, item in value.items()}
    check(len(value) == 1, "a value with a tag", f"{tag[:50]!r} and other keys", "the tag alone")
    content = value[tag]
    if tag in _KEPT:
        known = isinstance(content, str) and content in tensors
        check(known, f"tensor of {tag}", repr(content)[:80], "one that is unread")
        return _KEPT[tag].make(tensors.pop(content))
    return look_up(_CODECS, tag, "tag").make(decode(content, tensors))


class _Codec(NamedTuple):
    """One sort of value that JSON does not have."""

    takes: Callable[[Any], bool]
    plain: Callable[[Any], Any]
    make: Callable[[Any], Any]


def _is_array(value, dtypes):
    return type(value) is np.ndarray and value.dtype.name in dtypes and value.dtype.isnative


def _is_text(value):
    return type(value) is np.ndarray and value.dtype.kind == "U" and value.dtype.isnative


def _plain_text(array):
    codes = np.ascontiguousarray(array).view(np.int32)
    return torch.from_numpy(codes.reshape(*array.shape, array.itemsize // 4).copy())


def _make_text(tensor):
    codes = tensor.numpy()
    proper = codes.dtype == np.int32 and codes.ndim > 1 and codes.shape[-1] > 0
    proper = proper and ((codes >= 0) & (codes <= _LAST_CODE_POINT)).all()
    check(proper, "$text", f"{codes.dtype} of shape {codes.shape}", "code points, (..., width)")
    return codes.view(f"U{codes.shape[-1]}")[..., 0]


# Kept as a tensor each.
_KEPT = {
    # A copy: tied weights share memory, which safetensors does not write.
    "$tensor": _Codec(
        lambda value: isinstance(value, torch.Tensor),
        lambda value: value.detach().cpu().clone(memory_format=torch.contiguous_format),
        lambda tensor: tensor,
    ),
    "$array": _Codec(
        lambda value: _is_array(value, _NUMBERS),
        lambda value: torch.from_numpy(value.copy(order="C")),
        lambda tensor: tensor.numpy(),
    ),
    "$text": _Codec(_is_text, _plain_text, _make_text),
}


def _plain_scalar(value):
    name = "str" if value.dtype.kind == "U" else value.dtype.name
    return [name, value.item()]


def _make_scalar(pair):
    name, value = pair
    return look_up(_SCALARS, name, "$scalar")(value)


def _are_plain(values):
    return all(type(value) in (bool, int, float, str) for value in values)


def _is_objects(value):
    return type(value) is np.ndarray and value.dtype == object and value.ndim == 1


def _make_objects(values):
    check(_are_plain(values), "values of $objects", "others", "strings and numbers")
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def _object(made):
    return _Codec(
        lambda value: isinstance(value, made), lambda value: value.to_dict(), made.from_dict
    )


_CODECS = {
    "$float": _Codec(
        lambda value: type(value) is float, repr, lambda name: look_up(_FLOATS, name, "$float")
    ),
    "$tuple": _Codec(lambda value: type(value) is tuple, list, tuple),
    "$dict": _Codec(
        lambda value: type(value) is dict, lambda value: [*map(list, value.items())], dict
    ),
    "$scalar": _Codec(
        lambda value: isinstance(value, np.generic) and _plain_scalar(value)[0] in _SCALARS,
        _plain_scalar,
        _make_scalar,
    ),
    "$objects": _Codec(lambda value: _is_objects(value) and _are_plain(value), list, _make_objects),
    "$distribution": _object(PredictiveDistribution),
    "$family": _object(Family),
    "$columns": _object(ColumnEncoder),
    "$kind": _object(Kind),
    "$spread": _object(Spread),
    "$temperature": _object(Temperature),
}


def check(holds: bool, what: str, found: object, expected: object) -> None:
    """Raise a ValueError that names what was found, unless the condition holds."""
    if not holds:
        raise ValueError(f"{what}: found {found}; expected {expected}.")


def check_type(what: str, value: object, *types: type) -> None:
    """Check that a value is of one of the types, exactly: a boolean is no integer."""
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
    check(type(value) in types, what, f"a {type(value).__name__}", names)


def look_up(table: Mapping[Any, Any], name: object, what: str) -> Any:
    """Return what a table has under a name, or raise a ValueError."""
    check(isinstance(name, str) and name in table, what, repr(name)[:50], sorted(table))
    return table[name]


def some(names: Collection[str]) -> object:
    """Return a few names, cut: a file may hold long ones and many."""
    few = [name[:80] for name in sorted(names)[:5]]
    return few if len(names) <= 5 else f"{few} and {len(names) - 5} more"
