"""Values as JSON and named tensors, and back: what a model file is made of.

JSON holds None, booleans, integers, strings, finite floats, lists, and dicts with plain strings as
keys. Every other value is an object with a single key, its tag:

=================  ===================================================================
tag                content
=================  ===================================================================
``$array``         name of the tensor that a numpy array is kept as
``$calibration``   name and parameters of a calibration
``$dict``          any other dict, as pairs
``$distribution``  components and weights of a predictive distribution
``$family``        name and arguments of one of the package's families
``$float``         "nan", "inf" or "-inf"
``$scalar``        dtype and value of a numpy scalar
``$tensor``        name of a torch tensor
``$text``          width, or null, and values of a 1-D numpy array of strings or objects
``$tuple``         a tuple, as a list
=================  ===================================================================

Reading trusts nothing: names are looked up in the tables of this file and nowhere else, and what
does not fit is a ValueError that names what was found and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from sklearn_probmix.calibration import Spread, Temperature
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.families import FAMILIES

__all__ = ["TensorReader", "decode", "encode"]

_MAX_TEXT = 2**26
_CALIBRATIONS = {"Spread": Spread, "Temperature": Temperature}
_FAMILY_NAMES = {family: name for name, family in FAMILIES.items()}
_NUMBERS = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
}


class TensorReader:
    """Tensors of a file, each read at most once: a file is not larger in memory than on disk.

    Parameters
    ----------
    file : safetensors.safe_open
        Open, with framework="pt".
    """

    def __init__(self, file):
        self.file = file
        self.unread = set(file.keys())

    def take(self, name):
        """Copy a tensor into memory."""
        if not isinstance(name, str) or name not in self.unread:
            raise ValueError(
                f"found a reference to the tensor {str(name)[:80]!r}; expected one unread."
            )
        self.unread.remove(name)
        return self.file.get_tensor(name).clone()

    def take_all(self, prefix):
        """Tensors whose names start so, by the rest of their names."""
        names = sorted(name for name in self.unread if name.startswith(prefix))
        return {name.removeprefix(prefix): self.take(name) for name in names}

    def check_all_read(self):
        """Refuse tensors that belong to nothing."""
        check(not self.unread, "tensors", some(self.unread), "those of the model only")


def encode(value, name, tensors):
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
    if isinstance(value, torch.Tensor):
        # A copy: tied weights share memory, which safetensors does not write.
        value = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": _put(value, name, tensors)}
    if type(value) is np.ndarray and value.dtype.name in _NUMBERS and value.dtype.isnative:
        return {"$array": _put(torch.from_numpy(value.copy(order="C")), name, tensors)}
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


def decode(value, reader):
    """Turn what :func:`encode` returned into the value.

    Parameters
    ----------
    value : None, bool, int, float, str, list or dict
    reader : TensorReader

    Returns
    -------
    object

    Raises
    ------
    ValueError, TypeError, ArithmeticError
        If this is not what `encode` returns.
    """
    if isinstance(value, list):
        return [decode(item, reader) for item in value]
    if not isinstance(value, dict):
        return value
    tags = [key for key in value if key.startswith("$")]
    if not tags:
        return {key: decode(item, reader) for key, item in value.items()}
    if len(value) > 1:
        raise ValueError(f"found the tag {tags[0][:50]!r} among other keys; expected it alone.")
    tag, content = next(iter(value.items()))
    if tag == "$tensor":
        return reader.take(content)
    if tag == "$array":
        return reader.take(content).numpy()
    return look_up(_CODECS, tag, "tag").make(decode(content, reader))


class _Codec(NamedTuple):
    """One kind of value that JSON does not have."""

    takes: Callable[[Any], bool]
    plain: Callable[[Any], Any]
    make: Callable[[Any], Any]


def _make_float(name):
    check(name in ("nan", "inf", "-inf"), "$float", repr(name)[:50], "'nan', 'inf' or '-inf'")
    return float(name)


def _make_dict(pairs):
    check_type("$dict", pairs, (list,))
    made = dict(pairs)
    check(len(made) == len(pairs), "$dict", "a key twice", "each once")
    return made


def _make_tuple(items):
    check_type("$tuple", items, (list,))
    return tuple(items)


def _plain_scalar(value):
    return ["str", str(value)] if value.dtype.kind == "U" else [value.dtype.name, value.item()]


def _make_scalar(pair):
    name, value = pair
    check(name in _NUMBERS or name == "str", "$scalar", repr(name)[:50], sorted(_NUMBERS))
    made = np.dtype(name).type(value)
    check(_plain_scalar(made)[1] == value or value != value, "$scalar", repr(value)[:50], name)
    return made


def _is_text(value):
    if type(value) is not np.ndarray or value.ndim != 1:
        return False
    return value.dtype.kind == "U" or (value.dtype.kind == "O" and _are_plain(value))


def _are_plain(values):
    return all(type(value) in (bool, int, float, str) for value in values)


def _plain_text(array):
    width = array.dtype.itemsize // 4 if array.dtype.kind == "U" else None
    check(array.nbytes <= _MAX_TEXT, "array of text", f"{array.nbytes} bytes", _MAX_TEXT)
    return [width, array.tolist()]


def _make_text(pair):
    width, values = pair
    check_type("values of $text", values, (list,))
    if width is None:
        check(_are_plain(values), "values of $text", "others", "strings and numbers")
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    check_type("width of $text", width, (int,))
    fits = 0 < width * max(len(values), 1) <= _MAX_TEXT // 4
    fits = fits and all(type(value) is str and len(value) <= width for value in values)
    check(fits, "$text", f"width {width} for {len(values)} values", "strings of that width")
    return np.array(values, dtype=f"U{width}")


def _make_family(pair):
    name, arguments = pair
    check_type("arguments of $family", arguments, (dict,))
    for argument in arguments.values():
        check_type("argument of $family", argument, (int, float))
    return look_up(FAMILIES, name, "family")(**arguments)


def _make_distribution(parts):
    if isinstance(parts, list):
        # Files of version 0.1 hold the name, parameters and weights of a single family.
        name, params, weights = parts
        parts = {"components": ["scipy", {"name": name, **params}], "weights": weights}
    return PredictiveDistribution.from_dict(parts)


def _make_calibration(parts):
    name, parameters = parts
    return look_up(_CALIBRATIONS, name, "calibration").from_dict(parameters)


_CODECS = {
    "$float": _Codec(lambda value: type(value) is float, repr, _make_float),
    "$tuple": _Codec(lambda value: type(value) is tuple, list, _make_tuple),
    "$dict": _Codec(
        lambda value: type(value) is dict, lambda value: [*map(list, value.items())], _make_dict
    ),
    "$scalar": _Codec(
        lambda value: (
            isinstance(value, np.generic)
            and (value.dtype.name in _NUMBERS or value.dtype.kind == "U")
        ),
        _plain_scalar,
        _make_scalar,
    ),
    "$text": _Codec(_is_text, _plain_text, _make_text),
    "$family": _Codec(
        lambda value: type(value) in _FAMILY_NAMES,
        lambda value: [_FAMILY_NAMES[type(value)], vars(value)],
        _make_family,
    ),
    "$calibration": _Codec(
        lambda value: type(value) in _CALIBRATIONS.values(),
        lambda value: [type(value).__name__, value.to_dict()],
        _make_calibration,
    ),
    "$distribution": _Codec(
        lambda value: type(value) is PredictiveDistribution,
        PredictiveDistribution.to_dict,
        _make_distribution,
    ),
}


def check(holds, what, found, expected):
    """Raise a ValueError that names what was found, unless the condition holds."""
    if not holds:
        raise ValueError(f"{what}: found {found}; expected {expected}.")


def check_type(what, value, types):
    """Check that a value is of one of the types; a boolean is no integer."""
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
    is_one = isinstance(value, types) and not (isinstance(value, bool) and bool not in types)
    check(is_one, what, f"a {type(value).__name__}", names)


def check_known(what, found, known):
    """Check that no name is found but the known ones."""
    unknown = set(found) - set(known)
    check(not unknown, what, f"{some(unknown)} unknown", f"none but {sorted(known)}")


def check_keys(what, found, expected):
    """Check that the names found are the expected ones, all of them and no other."""
    check(set(found) == set(expected), f"keys of {what}", some(found), sorted(expected))


def look_up(table, name, what):
    """Return what a table has under a name, or raise a ValueError."""
    check(isinstance(name, str) and name in table, what, repr(name)[:50], sorted(table))
    return table[name]


def some(names):
    """Return a few names, cut: a file may hold long ones and many."""
    few = [name[:80] for name in sorted(names)[:5]]
    return few if len(names) <= 5 else f"{few} and {len(names) - 5} more"
