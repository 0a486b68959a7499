"""Fitted estimators in one file that holds data and no code.

The file is a safetensors file. Its tensors are the weights of the networks and every other array;
its metadata hold, under one key, a SHA-256 of all else, by which damage is noticed, and a JSON
document with all the rest, in the notation of `sklearn_probmix.codec`. Who means harm can compute
a checksum too. Against him stands that names are looked up in tables of the package and nowhere
else, and that what is made of a file is bounded by the file's size before it is made: the document
by its brackets and commas, a network by its shapes on torch's meta device, where it takes no
memory.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import stat
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from sklearn import config_context
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from skorch.history import History

from sklearn_probmix.base import BaseProbMixup
from sklearn_probmix.calibration import Spread, Temperature
from sklearn_probmix.classifier import ProbMixupClassifier
from sklearn_probmix.codec import check, check_type, decode, encode, look_up, some
from sklearn_probmix.columns import ColumnEncoder
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.ensemble import Ensemble, template_of
from sklearn_probmix.families import FAMILIES, Family
from sklearn_probmix.files import write_whole
from sklearn_probmix.kinds import METHODS, Kind
from sklearn_probmix.nets import as_mixture, fit_context, new_net, own_generator
from sklearn_probmix.pipelines import from_bytes, to_bytes
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.regressor import ProbMixupRegressor
from sklearn_probmix.response import Response
from sklearn_probmix.scaling import scale_columns
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.version_1 import from_version_1

__all__ = ["load_model", "save_model"]

_KEY = "sklearn_probmix"
_TRANSFORMERS = "transformers"
_DIGITS = 64
_VERSION = 2
_LIBRARIES = ("sklearn-probmix", "torch", "scikit-learn", "numpy")

# Bytes, bytes of values and tensors that a file may have, and how many of its bytes are worth one
# more: each costs many times its own size.
_SIZES = (4_000_000, 16), (20_000_000, 2), (2_000, 20_000)
# Bytes that a character stands for when it is read; others count one.
_WEIGHTS = {"{": 300, "[": 130, ",": 100}
_LONG = ", look for long lists in the parameters and in history_"
# Numbers of a row of X in the widest layer, of all members and draws; and bytes worth one more.
_ROW = 2**19, 8
_MOST_NETS = 128
_MOST_MEMBERS = 1_000
_MOST_DIGITS = 400

_ESTIMATORS = {made.__name__: made for made in (ProbMixupRegressor, ProbMixupClassifier)}
_REQUESTING = ("fit", "partial_fit", "predict", "score")
_SCALER = ("n_features_in_", "n_samples_seen_", "mean_", "var_", "scale_", "reach_")
_HISTORY = {"kind", "epoch", "train_loss", "valid_loss", "valid_crps", "dur"}
# What our own checks, Python, numpy and torch raise on values that do not fit.
_REFUSALS = ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError

_INTEGER, _ARRAY = (int, np.int64), (np.ndarray,)
_NUMBER = (int, float, np.float32, np.float64)
_COMMON = {
    **dict.fromkeys(("n_features_in_", "n_outputs_", "n_iter_"), _INTEGER),
    **dict.fromkeys(("weights_", "y_shift_", "y_scale_", "feature_names_in_"), _ARRAY),
    **dict.fromkeys(("kinds_", "history_"), (list,)),
    "best_epoch_": (int, np.ndarray),
    "oof_scores_": (dict,),
    "family_": tuple(FAMILIES.values()),
    "encoder_": (ColumnEncoder, type(None)),
}
_FITTED = {
    ProbMixupRegressor: _COMMON
    | {
        "_y_ndim": _INTEGER,
        "values_": (np.ndarray, type(None)),
        "is_count_": (bool,),
        "calibration_": (Spread, type(None)),
        "oof_predictive_": (PredictiveDistribution,),
    },
    ProbMixupClassifier: _COMMON
    | {"classes_": _ARRAY, "calibration_": (Temperature, type(None)), "oof_predictive_": _ARRAY},
}
_OPTIONAL = {
    *("values_", "is_count_", "feature_names_in_", "oof_scores_", "oof_predictive_"),
    # Of kinds that all had families of their own, earlier versions wrote none.
    *("family_", "encoder_", "calibration_"),
}
# Written in a way of their own, or made anew from what is written or from the rows of a fit.
_REBUILT = {"_y_step", "_cell", "scaler_", "nets_", "responses_", "_metadata_request"}
_RESPONSE = ("family", "shift", "scale", "calibration")


@neutral_settings
def save_model(est: BaseProbMixup | Pipeline, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator, or a Pipeline that ends in one, to one file, without pickle.

    Weights, scaling, calibration, labels, history and out-of-fold predictions are written, and
    every parameter that is made of numbers, strings, None, lists, tuples, dicts, arrays and the
    package's own families. What is not data is left to whoever loads the file: `net`,
    `callbacks`, a splitter in `validation`, a family of one's own, a RandomState. The state of
    the optimiser is not kept. The transformers of a Pipeline go into the file by skops
    (``pip install skops``), if they are scikit-learn's and hold no functions but numpy's and
    scipy's; a cache (`memory`) is left out.

    A file that exists is replaced at once, by one written beside it: a save that fails leaves it
    as it was. Links and permissions stay. Only a file of several hard links is written in place,
    since a new one would part them; then a save that fails may leave a damaged file, which
    `load_model` refuses.

    Parameters
    ----------
    est : ProbMixupRegressor, ProbMixupClassifier, or Pipeline with one as its last step
        Fitted, if need be interrupted.
    path : str or path-like
        Of a file, new or old, customarily with the suffix ``.safetensors``, as it is one.

    Raises
    ------
    NotFittedError
        If `est` is not fitted.
    TypeError
        If `est` is not exactly one of the two estimators, or a fitted attribute is not data, or
        a transformer is not one of scikit-learn; the message says how to save the rest.
    ImportError
        If `est` is a Pipeline and skops is not installed.
    ValueError
        If parameters were changed since `fit` so that they no longer describe the networks, if
        weights are not finite, if the model is larger than `load_model` would accept (more than
        128 kinds or 1,000 members, a history of tens of thousands of epochs), or if `path` is a
        pipe, a device or another thing that is no file.
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
    >>> from sklearn_probmix import load_model, save_model
    >>> X, y = load_iris(return_X_y=True)
    >>> est = ProbMixupClassifier(max_epochs=2, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(est, Path(folder, "iris.safetensors"))
    ...     loaded = load_model(Path(folder, "iris.safetensors"))
    >>> bool((loaded.predict_proba(X) == est.predict_proba(X)).all())
    True
    """
    tensors: dict[str, torch.Tensor] = {}
    step = None
    if type(est) is Pipeline and type(est[-1]) in _FITTED:
        step = est.steps[-1][0]
        before = Pipeline(est.steps[:-1]) if len(est) > 1 else None
        est = est[-1]
    if type(est) not in _FITTED:
        raise TypeError(
            f"est is a {type(est).__name__}; expected a fitted {' or '.join(_ESTIMATORS)}, or a "
            "Pipeline with one as its last step. Of a search save best_estimator_; of stacked "
            "distributions those of estimators_ that are of this package."
        )
    check_is_fitted(est)
    document = _describe(est, tensors)
    if step is not None:
        document["step"] = step
        if before is not None:
            as_bytes = np.frombuffer(to_bytes(before), dtype=np.uint8)
            tensors[_TRANSFORMERS] = torch.from_numpy(as_bytes.copy())
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    content = to_safetensors(tensors, {_KEY: _checksum(text, tensors) + text})
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    _check_sizes(len(content), header.decode("latin-1"), len(tensors))
    write_whole(path, content)


@neutral_settings
def load_model(path: str | os.PathLike[str], **parameters: Any) -> BaseProbMixup | Pipeline:
    """Read an estimator, or a Pipeline that ends in one, that :func:`save_model` wrote.

    Its predictions are those of the saved one, bit for bit on the same machine and library
    versions. `partial_fit` and `warm_start` go on from the weights with a new optimiser.

    A file can do no more than be refused: nothing in it is executed or imported, and reading
    takes at most 64 MB and four times the file's size. The module of a `net` that you pass is
    yours, and runs.

    Parameters
    ----------
    path : str or path-like
    **parameters
        Parameters of the estimator that take the place of the file's, say ``device="cpu"`` for a
        model that was trained on a device which this machine lacks; and those that the file
        leaves to the caller, say ``net=NeuralNet(MyModule, module__hidden=64)``, the unfitted net
        of one's own into which the weights are put. They must describe the same networks.

    Returns
    -------
    ProbMixupRegressor, ProbMixupClassifier or Pipeline
        `parameters` are those of the last step.

    Raises
    ------
    ImportError
        If the file holds transformers and skops is not installed.
    ValueError
        If this is no file of `save_model`, is damaged or of a later version, holds anything
        unknown or unfitting, leaves a parameter to the caller that is not given, or names a
        device that is not there.
    OSError
        If the file does not exist or cannot be read.

    See Also
    --------
    save_model : Writes the file, and holds an example.
    """
    path = os.fspath(path)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path!r} is no ordinary file; expected one of save_model.")
    try:
        document, tensors = _read(path)
        step = document.pop("step", None)
        content = tensors.pop(_TRANSFORMERS, None)
        # An outline that is not ours does not fit the signature.
        est = _restore(tensors, parameters, **document)
        check(not tensors, "tensors", some(tensors), "those of the model only")
        if step is not None or content is not None:
            return _pipeline(step, content, est)
    except _REFUSALS as error:
        raise ValueError(f"{path!r} cannot be loaded: {str(error)[:1000]}") from error
    return est


def _pipeline(step, content, est):
    """Put an estimator of this name behind transformers, of which there may be none."""
    check_type("step", step, str)
    before = []
    if content is not None:
        check(content.dtype == torch.uint8, "transformers", content.dtype, "bytes")
        before = from_bytes(content.numpy().tobytes()).steps
    return Pipeline([*before, (step, est)])


def _describe(est, tensors):
    """Everything but the tensors, which are put into `tensors`."""
    allowed, state = _FITTED[type(est)], dict(vars(est))
    if est.family_ == est._make_family():
        # It is made of the parameters alone.
        del state["family_"]
    # Of a fit, not of the model.
    given = est.get_params(deep=False) | {"checkpoint": None}
    unknown = set(state) - set(given) - set(allowed) - _REBUILT
    if unknown:
        raise TypeError(
            f"est has the attributes {sorted(unknown)}, which are not its own; expected none: a "
            "model is saved whole or not at all."
        )
    est._check_unchanged()
    _check_counts(est, len(est.nets_))
    parameters, left = {}, {}
    for name, value in given.items():
        own: dict[str, torch.Tensor] = {}
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
    fitted["responses_"] = [
        {"of": encode(family, "fitted.responses_", tensors)}
        | {
            name: encode(getattr(response, name), f"fitted.responses_.{name}", tensors)
            for name in _RESPONSE
        }
        for family, response in est.responses_.items()
    ]
    nets = []
    for index, (net, kind) in enumerate(zip(est.nets_, est.kinds_, strict=True)):
        what, weights = f"network {index}", _weights(net.module_)
        for name, value in weights.items():
            if not isinstance(value, torch.Tensor):
                held = type(value).__name__
                raise TypeError(f"weight {name} of {what} is a {held}; expected a tensor.")
            encode(value, f"nets.{index}.{name}", tensors)
        _check_size(what, est, kind, weights)
        _check_weights(what, est, weights, weights)
        nets.append({"vectorised": getattr(net.module_, "vectorised", None)})
    return {
        "version": _VERSION,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "estimator": type(est).__name__,
        "parameters": parameters,
        "left_to_caller": left,
        "requests": _requests(est),
        "fitted": fitted,
        "nets": nets,
    }


def _requests(est):
    """Metadata that the user had routed to this estimator."""
    if "_metadata_request" not in vars(est):
        return {}
    routing = est.get_metadata_routing()
    return {method: dict(getattr(routing, method).requests) for method in _REQUESTING}


def _checksum(text, tensors):
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_sizes(size, text, n_tensors):
    """Refuse a description that would take more memory than a file of this size may."""
    needed = len(text) + sum(weight * text.count(c) for c, weight in _WEIGHTS.items())
    found = {"bytes": len(text), "bytes of values": needed, "tensors": n_tensors}
    for (what, n), (least, share) in zip(found.items(), _SIZES, strict=True):
        most = least + size // share
        check(n <= most, "description of the model", f"{n} {what}", f"at most {most}{_LONG}")


def _read(path):
    """Read the document, as of today's version, and the tensors of a file that is whole."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        # A byte more than may be is enough to refuse it before safetensors reads all.
        length, most = int.from_bytes(file.read(8), "little"), _SIZES[0][0] + size // _SIZES[0][1]
        header = file.read(min(length, most + 1))
    _check_sizes(size, header.decode("latin-1"), 0)
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, file.keys()
            check(_KEY in metadata, "metadata", some(metadata), f"{_KEY!r}: a file of save_model")
            _check_sizes(size, metadata[_KEY], len(names))
            # In memory once: a file that changes or goes is of no concern from here on.
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except SafetensorError as error:
        raise ValueError(f"it is damaged, or no file of save_model ({error}).") from error
    checksum, text = metadata[_KEY][:_DIGITS], metadata[_KEY][_DIGITS:]
    if checksum.startswith("{"):
        # Version 1 had none.
        checksum, text = "", metadata[_KEY]
    if checksum and checksum != _checksum(text, tensors):
        raise ValueError(
            "it is damaged, or of a later version: its checksum is not that of its content. Copy "
            "it anew, or install a later release."
        )
    document = json.loads(text, parse_int=_integer)
    check_type("the document", document, dict)
    found = document.pop("version", None)
    # For people who wonder where a file is from.
    document.pop("libraries", None)
    if type(found) is not int or found not in (1, _VERSION):
        raise ValueError(
            f"found version {str(found)[:50]} of the format; expected {_VERSION} or 1. A later one "
            "needs a later release of sklearn-probmix."
        )
    # Dumped anew, as a tag may be written with escapes.
    n_kinds = json.dumps(document).count('"$kind"')
    check(n_kinds <= 2 * _MOST_NETS, "number of kinds", n_kinds, f"at most {2 * _MOST_NETS}")
    if found == 1:
        room = _SIZES[1][0]
        return from_version_1(document, tensors, room=room, most_kinds=_MOST_NETS), tensors
    check(checksum != "", "metadata", "no checksum", "one: it is damaged")
    return document, tensors


def _integer(digits):
    check(len(digits) <= _MOST_DIGITS, "an integer in JSON", f"{len(digits)} digits", _MOST_DIGITS)
    return int(digits)


def _restore(tensors, given, *, estimator, parameters, left_to_caller, requests, fitted, nets):
    """Make the estimator of a document of version 2."""
    missing = {name: value for name, value in left_to_caller.items() if name not in given}
    if missing:
        names = ", ".join(f"{name} (a {str(value)[:50]})" for name, value in missing.items())
        example = ", ".join(f"{name}=..." for name in missing)
        raise ValueError(f"it leaves {names} to the caller; expected load_model(path, {example}).")
    own = {name: decode(value, tensors) for name, value in parameters.items()}
    est = look_up(_ESTIMATORS, estimator, "estimator")(**own | given)
    est._check_parameters()
    with config_context(enable_metadata_routing=True):
        for method, request in requests.items():
            check(method in _REQUESTING, "a request of", method, f"one of {_REQUESTING}")
            getattr(est, f"set_{method}_request")(**request)
    _check_counts(est, len(nets))
    _restore_fitted(est, fitted, tensors)
    if "family" in own:
        # Other families may have networks of the same shapes, whose outputs mean something else.
        trained = copy.copy(est)
        trained.family = own["family"]
        asked, trained = est._make_family().unfitted(), trained._make_family().unfitted()
        check(asked == trained, "family", repr(asked)[:100], f"{trained!r}, as trained"[:200])
    _check_fitted(est, len(nets))
    est.nets_ = [
        _restore_net(est, index, kind, tensors, **written)
        for index, (kind, written) in enumerate(zip(est.kinds_, nets, strict=True))
    ]
    est._check_unchanged()
    if est.net is None:
        _try(est)
    return est


def _check_counts(est, n_nets):
    n_asked = len(est.method) if isinstance(est.method, list | tuple) else 1
    counts = {"networks": (n_nets, _MOST_NETS), "kinds in method": (n_asked, _MOST_NETS)}
    counts["members"] = est.n_members, _MOST_MEMBERS
    for what, (n, most) in counts.items():
        check(0 < n <= most, f"number of {what}", n, f"1 to {most}")


def _restore_fitted(est, written, tensors):
    for name, types in _FITTED[type(est)].items():
        if name in written:
            value = decode(written[name], tensors)
            check_type(name, value, *types)
            setattr(est, name, value)
        elif name not in _OPTIONAL:
            raise ValueError(f"found no fitted attribute {name!r}; expected one.")
    est.scaler_ = StandardScaler()
    # Earlier versions bent nothing.
    written["scaler_"].setdefault("reach_", math.inf)
    for name in _SCALER:
        setattr(est.scaler_, name, decode(written["scaler_"][name], tensors))
    if isinstance(est, ProbMixupClassifier):
        is_set = est.classes_.ndim == 1 and len(est.classes_) > 1
        is_set = is_set and np.array_equal(np.unique(est.classes_), est.classes_)
        check(is_set, "classes_", repr(est.classes_)[:200], "at least 2 sorted labels")
        codes = np.arange(len(est.classes_))
        est._weight_of_response(codes, codes)
    est.family_ = _checked_family(est, getattr(est, "family_", None), est._make_family())
    entries = written.get("responses_", [])
    check_type("responses_", entries, list)
    check(len(entries) <= _MOST_NETS, "number of responses_", len(entries), f"at most {_MOST_NETS}")
    est.responses_ = dict(_restore_response(est, entry, tensors) for entry in entries)


def _checked_family(est, settled, family):
    """Return a family, with what a fit settled of it, if anything."""
    if settled is None:
        return family
    check(isinstance(settled, Family), "family_", f"a {type(settled).__name__}", "a family")
    proper = settled.unfitted() == family.unfitted()
    check(proper, "family_", repr(settled)[:100], f"{family!r} as fitted")
    raw = torch.zeros(1, est.n_outputs_, settled.n_params, device="meta")
    shape = tuple(settled.natural(raw).shape)
    check(shape == tuple(raw.shape), "outputs of family_", shape[1:-1], est.n_outputs_)
    return settled


def _restore_response(est, entry, tensors):
    """Make what a family sees of the response, and what kinds call the family."""
    values = {name: decode(entry[name], tensors) for name in ("of", *_RESPONSE)}
    asked = values.pop("of")
    response = Response(**values)
    check_type("of in responses_", asked, str, Family)
    check(isinstance(est, ProbMixupRegressor), "responses_", "some", "none of a classifier")
    _checked_family(est, response.family, est._named_family(asked))
    for name, is_proper in (("shift", torch.isfinite), ("scale", lambda value: value > 0)):
        value = getattr(response, name)
        check_type(f"{name} in responses_", value, torch.Tensor)
        proper = value.dtype == torch.float64 and value.shape == (est.n_outputs_,)
        proper = proper and bool((value.isfinite() & is_proper(value)).all())
        check(proper, f"{name} in responses_", str(value)[:100], f"{est.n_outputs_} finite numbers")
    check_type("calibration in responses_", response.calibration, Spread, type(None))
    return asked, response


def _check_fitted(est, n_nets):
    """Check what `_try` may not notice."""
    check(len(est.kinds_) == n_nets, "number of kinds_", len(est.kinds_), n_nets)
    for kind in est.kinds_:
        check_type("a kind in kinds_", kind, Kind)
        if kind.family is not None:
            known = list(est.responses_)
            check(
                kind.family in known, "family of a kind", repr(kind.family)[:100], f"one of {known}"
            )
        kind.check(est._family_of(kind))
    n_features = est.scaler_.n_features_in_
    check_type("scaler_.n_features_in_", n_features, int)
    if est.encoder_ is not None:
        n_known, n_encoded = len(est.encoder_.levels), len(est.encoder_.source)
        check(n_features == n_encoded, "scaler_.n_features_in_", n_features, n_encoded)
        check(est.n_features_in_ == n_known, "n_features_in_", est.n_features_in_, n_known)
    elif est.net is None:
        check(est.n_features_in_ == n_features, "n_features_in_", est.n_features_in_, n_features)
    for name in ("scale_", "reach_"):
        values = np.asarray(getattr(est.scaler_, name))
        is_of_columns = values.dtype == np.float64 and values.shape in ((), (n_features,))
        is_proper = is_of_columns and bool((values > 0).all())
        check(is_proper, f"scaler_.{name}", str(values)[:100], f"{n_features} positive numbers")
    is_proper = bool(np.isfinite(est.scaler_.mean_).all())
    check(is_proper, "scaler_.mean_", "NaN or infinity", "finite numbers")
    names = getattr(est, "feature_names_in_", None)
    if names is not None:
        proper = names.shape == (est.n_features_in_,) and all(type(name) is str for name in names)
        check(proper, "feature_names_in_", repr(names)[:100], f"{est.n_features_in_} strings")
    weights = est.weights_
    proper = weights.shape == (n_nets,) and abs(weights.sum() - 1) < 1e-6
    check(proper, "weights_", str(weights)[:100], f"{n_nets} of sum 1")
    if isinstance(est, ProbMixupRegressor):
        proper = est._y_ndim == 2 or (est._y_ndim == 1 and est.n_outputs_ == 1)
        check(proper, "_y_ndim", est._y_ndim, f"2, or 1 of one output; there are {est.n_outputs_}")
    for epoch in est.history_:
        proper = epoch.keys() <= _HISTORY and epoch.get("kind") in range(n_nets)
        proper = proper and {*map(type, epoch.values())} <= {*_NUMBER}
        check(proper, "an epoch of history_", str(epoch)[:100], f"numbers of {sorted(_HISTORY)}")


def _restore_net(est, index, kind, tensors, *, vectorised):
    """Make a network of this kind of the file's weights."""
    what, prefix = f"network {index}", f"nets.{index}."
    names = [name for name in tensors if name.startswith(prefix)]
    stored = {name.removeprefix(prefix): tensors.pop(name) for name in sorted(names)}
    _check_size(what, est, kind, stored)
    net = new_net(kind, est._common(kind))
    if est.net is None:
        made, module = net.module, _module_of(what, est, net, stored)
        # Now for the optimiser of the module that is there.
        net.module = lambda **arguments: module
        net.initialize().module = made
    else:
        with own_generator():
            net.initialize()
        weights = _weights(net.module_)
        _check_weights(what, est, stored, weights)
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(stored[name])
        if isinstance(net.module_, Ensemble):
            # How the members ran decides the last bits.
            check_type(f"vectorised of {what}", vectorised, bool, type(None))
            net.module_.vectorised = vectorised
    net.module_.eval()
    net.history_ = History(
        {"batches": []} | {name: value for name, value in epoch.items() if name != "kind"}
        for epoch in est.history_
        if epoch["kind"] == index
    )
    return net


def _check_size(what, est, kind, stored):
    """Refuse a network that would take more memory than a file of these weights may."""
    n_members = est.n_members
    if est.net is not None:
        firsts = {value.shape[:1] for value in stored.values()}
        fits = n_members == 1 or firsts == {(n_members,)}
        check(fits, f"members of {what}", sorted(firsts), n_members)
        return
    hidden = kind.hidden_layer_sizes
    fits = 2 * len(hidden) < len(stored)
    check(fits, f"tensors of {what}", len(stored), f"two for each of {len(hidden)} hidden layers")
    n_draws = kind.n_draws if METHODS[kind.method].random_embedding else 1
    n_outputs = est.n_outputs_ * est._response(kind).family.n_params
    row = n_members * n_draws * max([*hidden, n_outputs])
    most = _ROW[0] + sum(value.nbytes for value in stored.values()) // _ROW[1]
    check(row <= most, f"size of {what}", f"{row} numbers for a row of X", f"at most {most}")


def _module_of(what, est, net, stored):
    """Make the module that a net describes, of these weights."""
    one = {"n_members": 1} if est.n_members > 1 else {}
    # There modules have shapes alone; and the first member's are those of all.
    with torch.device("meta"):
        module = net.module(**net.get_params_for("module") | one)
    fit_context(template_of(module), stored)
    weights = _weights(module)
    if one:
        module.n_members = est.n_members
        weights = {k: v.expand(est.n_members, *v.shape[1:]) for k, v in weights.items()}
    _check_weights(what, est, stored, weights)
    for name, value in stored.items():
        owner, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner)
        if isinstance(getattr(owner, attribute), torch.nn.Parameter):
            value = torch.nn.Parameter(value)
        setattr(owner, attribute, value)
    return module


def _weights(module):
    # Buffers too that the module itself would not save.
    buffers = dict(module.named_buffers(remove_duplicate=False))
    return buffers | module.state_dict(keep_vars=True)


def _check_weights(what, est, stored, expected):
    surplus, missing = stored.keys() - expected.keys(), expected.keys() - stored.keys()
    found = f"{some(surplus)} superfluous and {some(missing)} missing"
    where = "the parameters" if est.net is None else "the given net"
    check(not surplus and not missing, f"weights of {what}", found, f"those of {where}")
    for name, value in stored.items():
        pair = [f"{each.dtype} of shape {tuple(each.shape)}" for each in (value, expected[name])]
        check(pair[0] == pair[1], f"weight {name} of {what}", *pair)
        # A module of one's own may mask by infinity.
        is_mask = est.net is not None and not isinstance(expected[name], torch.nn.Parameter)
        proper = ~value.isnan() if is_mask else value.isfinite()
        check(proper.all(), f"weight {name} of {what}", "NaN or infinity", "finite numbers")


def _try(est):
    """Predict a row: a model that cannot is refused now, not when it is needed."""
    with np.errstate(all="ignore"), torch.no_grad():
        X = (est.scaler_.mean_ + est.scaler_.scale_).reshape(1, -1)
        X = scale_columns(est.scaler_, X)
        # Without the padding of small products, which would cost wide networks many rows.
        mixtures = [as_mixture(net.infer(X)) for net in est.nets_]
        mixtures = [Mixture(*(part.cpu() for part in mixture)) for mixture in mixtures]
        predicted = np.asarray(est._predictive(mixtures))
    # A mean may be infinite, as that of a wide log-normal is.
    check(not np.isnan(predicted).any(), "prediction of the model", "NaN", "numbers")
