"""Model files of version 1 of the format, as those of today.

Version 1 had no checksum and no libraries. It wrote a family and a distribution as lists, text in
the document, calibrations as bare numbers, and flat names of the members' weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sklearn_probmix.calibration import Spread, Temperature
from sklearn_probmix.codec import check, decode, encode
from sklearn_probmix.families import get_family
from sklearn_probmix.kinds import Kind

__all__ = ["from_version_1"]


def from_version_1(
    document: dict[str, Any], tensors: dict[str, torch.Tensor], *, room: int, most_kinds: int
) -> dict[str, Any]:
    """Write a document of version 1, and the names of its tensors, as one of version 2.

    Parameters
    ----------
    document : dict
    tensors : dict
        By name; of those that are named otherwise today, the names change.
    room : int
        Bytes that all text may take as arrays.
    most_kinds : int

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If there is more text, or there are more kinds.
    """

    def text(width, values):
        nonlocal room
        if width is None:
            return {"$objects": values}
        room -= 4 * width * len(values)
        check(room >= 0, "$text", f"{len(values)} of width {width}", "less")
        return encode(np.array(values, dtype=f"U{width}"), "text", tensors)

    changed: dict[str, Callable[..., Any]] = {
        "$text": text,
        "$family": lambda name, arguments: {"$family": {"family": name} | arguments},
        "$distribution": lambda name, params, weights: {
            "$distribution": {
                "components": ["scipy", {"name": name} | params],
                "weights": weights,
            }
        },
    }

    def rewrite(value):
        if isinstance(value, list):
            return [rewrite(item) for item in value]
        if not isinstance(value, dict):
            return value
        tag = next(iter(value), None)
        if tag in changed:
            return changed[tag](*rewrite(value[tag]))
        return {name: rewrite(item) for name, item in value.items()}

    for name in [name for name in tensors if name.startswith("nets.")]:
        _, index, weight = name.split(".", 2)
        if weight.startswith("member_"):
            weight = "members." + weight.removeprefix("member_").replace("__", ".")
            tensors[f"nets.{index}.{weight}"] = tensors.pop(name)
    document = rewrite(document)
    fitted = document["fitted"]
    calibration = decode(fitted["calibration_"], tensors)
    if isinstance(calibration, np.ndarray):
        calibration = Spread(*calibration.tolist())
    elif calibration is not None:
        calibration = Temperature(float(calibration))
    fitted["calibration_"] = encode(calibration, "calibration_", tensors)
    parameters, overrides = document["parameters"], decode(fitted["kinds_"], tensors)
    check(0 < len(overrides) <= most_kinds, "number of kinds", len(overrides), f"1 to {most_kinds}")
    kinds = _kinds(parameters, overrides, tensors)
    fitted["kinds_"] = encode(kinds, "kinds_", tensors)
    parameters["method"] = encode(kinds[0] if len(kinds) == 1 else kinds, "method", tensors)
    return document


def _kinds(parameters, overrides, tensors):
    """Take what is a kind's now out of the parameters, and make whole kinds of their overrides."""
    names = (set(Kind().get_params()) - {"family"} | {"early_stopping"}) & set(parameters)
    common = {name: decode(parameters.pop(name), tensors) for name in names}
    floor = parameters.pop("variance_floor", 1e-4)
    family = parameters.get("family")
    if family in ("normal", "homoscedastic-normal", "lognormal") and floor != 1e-4:
        family = get_family(family, variance_floor=floor)
        parameters["family"] = encode(family, "family", tensors)
    share = parameters.pop("validation_fraction", 0.2)
    if parameters.get("validation") in ("auto", "holdout") and share != 0.2:
        is_share = parameters["validation"] == "holdout" or parameters["n_members"] == 1
        parameters["validation"] = share if is_share else "cv"
    kinds = []
    for own in overrides:
        fields = common | own
        if not fields.pop("early_stopping", True):
            fields["n_iter_no_change"] = None
        if fields.get("batch_size", "auto") is None:
            fields["batch_size"] = "full"
        kinds.append(Kind(**fields))
    return kinds
