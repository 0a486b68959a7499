"""Fitted estimators in one file that holds data and no code.

The file is a safetensors file. Its tensors are the weights of the networks and every other array;
its metadata hold, under one key, a JSON document with all the rest: the version of the format,
the name of the estimator, its parameters and its fitted attributes, in the notation of
`sklearn_probmix.codec`.

Names in a file are looked up in tables of the package and nowhere else. A network is built only
after the file has been seen to hold that many numbers, so that a file cannot ask for a large one
that it does not hold.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from sklearn import config_context
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from skorch.history import History

from sklearn_probmix.base import BaseProbMixup
from sklearn_probmix.calibration import Spread, Temperature
from sklearn_probmix.classifier import ProbMixupClassifier
from sklearn_probmix.codec import (
    TensorReader,
    check,
    check_keys,
    check_known,
    check_type,
    decode,
    encode,
    look_up,
    some,
)
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.kinds import METHODS
from sklearn_probmix.modules import knots_of_a_column
from sklearn_probmix.regressor import ProbMixupRegressor
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.training import new_net, own_generator

__all__ = ["load_model", "save_model"]

_KEY = "sklearn_probmix"
_VERSION = 1
# What safetensors reads; it writes more.
_MAX_HEADER = 100_000_000

_ESTIMATORS = {kind.__name__: kind for kind in (ProbMixupRegressor, ProbMixupClassifier)}
_REQUESTING = ("fit", "partial_fit", "predict", "score")
_SCALER = ("n_features_in_", "n_samples_seen_", "mean_", "var_", "scale_")
# What our own checks, safetensors, numpy and torch raise on a damaged file.
_REFUSALS = (
    *(ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
    SafetensorError,
)


class _Fitted(NamedTuple):
    """What a fitted attribute may be."""

    types: tuple
    optional: bool = False


_INTEGER = _Fitted((int, np.int64))
_ARRAY = _Fitted((np.ndarray,))
_COMMON = {
    "n_features_in_": _INTEGER,
    "feature_names_in_": _Fitted((np.ndarray,), optional=True),
    "n_outputs_": _INTEGER,
    "n_iter_": _INTEGER,
    "best_epoch_": _Fitted((int, np.ndarray)),
    "y_shift_": _Fitted((np.ndarray,)),
    "y_scale_": _Fitted((np.ndarray,)),
    "kinds_": _Fitted((list,)),
    "weights_": _ARRAY,
    "history_": _Fitted((list,)),
    "oof_scores_": _Fitted((dict,), optional=True),
}
_FITTED = {
    ProbMixupRegressor: _COMMON
    | {
        "_y_ndim": _INTEGER,
        "calibration_": _Fitted((Spread, type(None))),
        "oof_predictive_": _Fitted((PredictiveDistribution,), optional=True),
    },
    ProbMixupClassifier: _COMMON
    | {
        "classes_": _ARRAY,
        "calibration_": _Fitted((Temperature, type(None))),
        "oof_predictive_": _Fitted((np.ndarray,), optional=True),
    },
}
# What files of version 0.1 hold.
_BARE_CALIBRATIONS = {np.ndarray: lambda pair: Spread(*pair.tolist()), float: Temperature}
# Written in a way of their own, or made anew from what is written.
_REBUILT = {"scaler_", "nets_", "family_", "_metadata_request"}


@neutral_settings
def save_model(est: BaseProbMixup, path: str | os.PathLike) -> None:
    """Write a fitted estimator to one file, without pickle.

    The file is written beside `path` and then renamed: a save that fails leaves an older file as
    it was. Weights, scaling, calibration, labels, history and out-of-fold predictions are
    written, and every parameter that is made of numbers, strings, None, lists, tuples, dicts,
    arrays and the package's own families. What is not data is left to whoever loads the file:
    `net`, `callbacks`, a splitter in `validation`, a family of one's own, a RandomState. The
    state of the optimiser is not kept.

    Parameters
    ----------
    est : ProbMixupRegressor or ProbMixupClassifier
        Fitted.
    path : str or path-like
        Customarily with the suffix ``.safetensors``, as it is one.

    Raises
    ------
    NotFittedError
        If `est` is not fitted.
    TypeError
        If `est` is not exactly one of the two estimators, or a fitted attribute is not data.
    ValueError
        If parameters were changed since `fit` so that they no longer describe the networks, if
        the weights hold NaN, or if history and labels take more room than the format has.
    OSError
        If the file cannot be written.

    See Also
    --------
    load_model : Reads the file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_probmix import ProbMixupClassifier
    >>> from sklearn_probmix.persistence import load_model, save_model
    >>> X, y = load_iris(return_X_y=True)
    >>> est = ProbMixupClassifier(max_epochs=2, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(est, Path(folder, "iris.safetensors"))
    ...     loaded = load_model(Path(folder, "iris.safetensors"))
    >>> bool((loaded.predict_proba(X) == est.predict_proba(X)).all())
    True
    """
    if type(est) not in _FITTED:
        raise TypeError(
            f"est is a {type(est).__name__}; expected a fitted {' or '.join(_ESTIMATORS)}. Of a "
            "Pipeline save the last step, model[-1]; of a search, best_estimator_."
        )
    check_is_fitted(est)
    tensors: dict[str, torch.Tensor] = {}
    document = _describe(est, tensors)
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    content = to_safetensors(tensors, {_KEY: text})
    if (length := int.from_bytes(content[:8], "little")) > _MAX_HEADER:
        raise ValueError(
            f"the description of the model takes {length} bytes; the format has room for "
            f"{_MAX_HEADER}. Look for long lists in parameters and history_."
        )
    _write(Path(path), content)


@neutral_settings
def load_model(path: str | os.PathLike, **parameters) -> BaseProbMixup:
    """Read an estimator that :func:`save_model` wrote.

    Its predictions are those of the saved one, bit for bit on the same machine and library
    versions. `partial_fit` and `warm_start` go on from the weights with a new optimiser.

    A file can do no more than be refused: nothing in it is executed or imported, and it is read
    as data of known names, types and sizes.

    Parameters
    ----------
    path : str or path-like
    **parameters
        Parameters of the estimator that take the place of the file's, say ``device="cpu"`` for a
        model that was trained on another device; and those that the file leaves to the caller,
        say ``net=NeuralNet(MyModule, module__hidden=64)``, the unfitted net of one's own into
        which the weights are put. They must describe the same networks.

    Returns
    -------
    ProbMixupRegressor or ProbMixupClassifier

    Raises
    ------
    ValueError
        If this is no file of `save_model`, is damaged or of a later version, holds anything
        unknown or unfitting, or leaves a parameter to the caller that is not given.
    OSError
        If the file does not exist or cannot be read.

    See Also
    --------
    save_model : Writes the file, and holds an example.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{os.fspath(path)!r} is no ordinary file; expected one of save_model.")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            reader = TensorReader(file)
            est = _restore(reader, _parse((file.metadata() or {}).get(_KEY)), parameters)
            reader.check_all_read()
    except _REFUSALS as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be loaded: {error}") from error
    return est


def _describe(est, tensors):
    """Everything but the tensors, which are put into `tensors`."""
    allowed, state = _FITTED[type(est)], vars(est)
    given = est.get_params(deep=False)
    unknown = set(state) - set(given) - set(allowed) - _REBUILT
    if unknown:
        raise TypeError(
            f"est has the attributes {sorted(unknown)}, which are not its own; expected none: a "
            "model is saved whole or not at all."
        )
    est._check_unchanged()
    found, asked = len(est.nets_), len(est._kinds())
    check(found == asked, "kinds of network", found, f"{asked} of method=")
    parameters, left = {}, {}
    for name, value in given.items():
        own = {}
        try:
            parameters[name] = encode(value, f"parameters.{name}", own)
        except TypeError:
            left[name] = type(value).__name__
        else:
            tensors |= own
    fitted = {
        name: encode(state[name], f"fitted.{name}", tensors) for name in allowed if name in state
    }
    fitted["scaler_"] = {
        name: encode(getattr(est.scaler_, name), f"fitted.scaler_.{name}", tensors)
        for name in _SCALER
    }
    for index, net in enumerate(est.nets_):
        for name, value in _weights(net.module_).items():
            what = f"weight {name} of network {index}"
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{what} is a {type(value).__name__}; expected a tensor.")
            _check_no_nan(what, value)
            encode(value, f"nets.{index}.{name}", tensors)
    return {
        "version": _VERSION,
        "estimator": type(est).__name__,
        "parameters": parameters,
        "left_to_caller": left,
        "requests": _requests(est),
        "fitted": fitted,
        "nets": [{"vectorised": getattr(net.module_, "vectorised", None)} for net in est.nets_],
    }


def _weights(module):
    """Parameters and buffers; also buffers that the module itself would not save."""
    return dict(module.named_buffers(remove_duplicate=False)) | module.state_dict()


def _requests(est):
    """Metadata that the user had routed to this estimator."""
    if "_metadata_request" not in vars(est):
        return {}
    routing = est.get_metadata_routing()
    return {method: dict(getattr(routing, method).requests) for method in _REQUESTING}


def _write(path, content):
    """Replace a file at once, or leave it as it was."""
    # Through a link, to the file itself.
    path = path.resolve()
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; expected the name of a file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to save the model in.")
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        # The name is on disk only when the folder is.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _parse(text):
    """Read the JSON document and check its outline."""
    if text is None:
        raise ValueError(f"found no metadata {_KEY!r}; expected a file of save_model.")
    document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    version = document.get("version") if isinstance(document, dict) else None
    if version != _VERSION or type(version) is not int:
        raise ValueError(
            f"found version {str(version)[:50]} of the format; expected {_VERSION}. A later one "
            "needs a later release of sklearn-probmix."
        )
    outline = {
        "version": int,
        "estimator": str,
        "parameters": dict,
        "left_to_caller": dict,
        "requests": dict,
        "fitted": dict,
        "nets": list,
    }
    check_keys("the document", document, outline)
    for name, kind in outline.items():
        check_type(name, document[name], (kind,))
    return document


def _unique(pairs):
    plain = dict(pairs)
    if len(plain) < len(pairs):
        count = Counter(name for name, _ in pairs)
        raise ValueError(
            f"found the key {count.most_common(1)[0][0][:80]!r} more than once; expected it once."
        )
    return plain


def _no_constant(name):
    raise ValueError(f"found {name} in JSON; expected a number.")


def _restore(reader, document, given):
    """Make the estimator."""
    kind = look_up(_ESTIMATORS, document["estimator"], "estimator")
    est = kind(**_parameters(reader, document, given, kind()))
    est._validate_params()
    with config_context(enable_metadata_routing=True):
        for method, request in document["requests"].items():
            check(method in _REQUESTING, "a request of", method, f"one of {_REQUESTING}")
            getattr(est, f"set_{method}_request")(**request)
    _restore_fitted(est, document["fitted"], reader)
    kinds = est._kinds()
    nets = document["nets"]
    check(len(nets) == len(kinds), "number of networks", len(nets), f"{len(kinds)} of method=")
    _check_fitted(est)
    est.nets_ = [
        _restore_net(est, index, kinds[index], net, reader) for index, net in enumerate(nets)
    ]
    return est


def _parameters(reader, document, given, default):
    """Parameters of the file and of the caller."""
    known = default.get_params(deep=False)
    check_known("parameters of load_model", given, known)
    written, left = document["parameters"], document["left_to_caller"]
    check_known("parameters", [*written, *left], known)
    missing = {name: value for name, value in left.items() if name not in given}
    if missing:
        names = ", ".join(f"{name} (a {str(value)[:50]})" for name, value in missing.items())
        example = ", ".join(f"{name}=..." for name in missing)
        raise ValueError(f"it leaves {names} to the caller; expected load_model(path, {example}).")
    return {name: decode(value, reader) for name, value in written.items()} | given


def _restore_fitted(est, written, reader):
    allowed = _FITTED[type(est)]
    check_known("fitted attributes", written, {*allowed, "scaler_"})
    for name, (types, optional) in allowed.items():
        if name in written:
            value = decode(written[name], reader)
            if name == "calibration_" and type(value) in _BARE_CALIBRATIONS:
                value = _BARE_CALIBRATIONS[type(value)](value)
            check_type(name, value, types)
            setattr(est, name, value)
        elif not optional:
            raise ValueError(f"found no fitted attribute {name!r}; expected one.")
    scaler = written.get("scaler_")
    check_type("scaler_", scaler, (dict,))
    check_keys("scaler_", scaler, _SCALER)
    est.scaler_ = StandardScaler()
    for name in _SCALER:
        setattr(est.scaler_, name, decode(scaler[name], reader))
    if isinstance(est, ProbMixupClassifier):
        is_set = est.classes_.ndim == 1 and len(est.classes_) > 1
        is_set = is_set and np.array_equal(np.unique(est.classes_), est.classes_)
        check(is_set, "classes_", repr(est.classes_)[:200], "at least 2 sorted labels")
    est.family_ = est._make_family()


def _check_fitted(est):
    """Check shapes, and the numbers that other sizes follow from."""
    scaler, n_kinds = est.scaler_, len(est._kinds())
    _check_array("weights_", est.weights_, (n_kinds,), _is_convex)
    check_type("scaler_.n_features_in_", scaler.n_features_in_, (int,))
    n_features = scaler.n_features_in_
    if est.net is None:
        check(est.n_features_in_ == n_features, "n_features_in_", est.n_features_in_, n_features)
    for name in ("mean_", "var_", "scale_"):
        rule = _is_positive if name == "scale_" else np.isfinite
        _check_array(f"scaler_.{name}", getattr(scaler, name), (n_features,), rule)
    check_type("scaler_.n_samples_seen_", scaler.n_samples_seen_, (int, np.generic, np.ndarray))
    if hasattr(est, "feature_names_in_"):
        found = est.feature_names_in_.shape
        check(found == (est.n_features_in_,), "shape of feature_names_in_", found, "a name each")
    for name, rule in (("y_shift_", np.isfinite), ("y_scale_", _is_positive)):
        _check_array(name, np.asarray(getattr(est, name)), (est.n_outputs_,), rule)
    if isinstance(est, ProbMixupRegressor):
        check(est._y_ndim in (1, 2), "_y_ndim", est._y_ndim, "1 or 2")
        single = est._y_ndim == 2 or est.n_outputs_ == 1
        check(single, "n_outputs_", est.n_outputs_, "1 for y of one axis")
    for epoch in est.history_:
        check_type("an epoch of history_", epoch, (dict,))
        kind = epoch.get("kind")
        check(kind in range(n_kinds), "kind in history_", kind, f"0 to {n_kinds - 1}")


def _restore_net(est, index, kind, written, reader):
    """Build a network of this kind and put the file's weights into it."""
    what = f"network {index}"
    check_type(what, written, (dict,))
    check_keys(what, written, ("vectorised",))
    vectorised = written["vectorised"]
    check_type(f"vectorised of {what}", vectorised, (bool, type(None)))
    stored = reader.take_all(f"nets.{index}.")
    _check_size(what, kind, stored, *est._sizes())
    with own_generator():
        net = new_net(kind, est.family_, *est._sizes()).initialize()
    module = net.module_
    _check_weights(what, kind, stored, _weights(module))
    persistent = module.state_dict().keys()
    module.load_state_dict({name: stored[name] for name in persistent}, strict=True)
    with torch.no_grad():
        for name, buffer in module.named_buffers(remove_duplicate=False):
            buffer.copy_(stored[name])
    if isinstance(module, Ensemble):
        # How the members ran decides the last bits.
        module.vectorised = vectorised
    net.history_ = History(
        {"batches": []} | {name: value for name, value in epoch.items() if name != "kind"}
        for epoch in est.history_
        if epoch["kind"] == index
    )
    return net


def _check_size(what, kind, stored, n_features, n_outputs):
    """Refuse a network that has more numbers than the file, before making room for them."""
    found, needed, hidden = sum(value.numel() for value in stored.values()), 1, []
    if kind.net is None:
        hidden = kind.hidden_layer_sizes
        n_inputs = n_features
        if kind.n_knots is not None:
            n_inputs *= knots_of_a_column(kind.n_knots, n_features)
        sizes = [n_inputs, *hidden, n_outputs]
        needed = sum((width + 1) * next_width for width, next_width in pairwise(sizes))
        if METHODS[kind.method].random_embedding:
            needed += kind.n_draws * sizes[min(kind.mixing_layer, len(hidden))]
    needed *= kind.n_members
    enough = found >= needed and len(stored) >= len(hidden)
    check(
        enough,
        f"size of {what}",
        f"{found} numbers in {len(stored)} tensors",
        f"at least {needed} for the {len(hidden)} hidden layers of the parameters",
    )


def _check_weights(what, kind, stored, expected):
    where = "the parameters" if kind.net is None else "the given net"
    surplus, missing = stored.keys() - expected.keys(), expected.keys() - stored.keys()
    check(
        not surplus and not missing,
        f"weights of {what}",
        f"{some(surplus)} superfluous and {some(missing)} missing",
        f"those of {where}",
    )
    for name, value in stored.items():
        pair = [f"{each.dtype} of shape {tuple(each.shape)}" for each in (value, expected[name])]
        check(pair[0] == pair[1], f"weight {name} of {what}", *pair)
        _check_no_nan(f"weight {name} of {what}", value)


def _check_no_nan(what, value):
    if value.is_floating_point():
        check(not value.isnan().any(), what, "NaN", "none")


def _is_positive(value):
    return np.isfinite(value) & (value > 0)


def _is_convex(value):
    return (value >= 0) & (abs(value.sum() - 1) < 1e-6)


def _check_array(what, value, shape, rule):
    check_type(what, value, (np.ndarray,))
    found = f"{value.dtype} of shape {value.shape}"
    check((value.dtype, value.shape) == (np.float64, shape), what, found, f"float64 {shape}")
    check(rule(value).all(), what, str(value)[:100], "finite numbers in its range")
