"""Where a fit that is killed goes on: what training has changed, kept in files of data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from sklearn_probmix.codec import decode, encode
from sklearn_probmix.files import write_whole

__all__ = ["Checkpoint", "digests"]


class Checkpoint:
    """A folder with a file for each kind of network of one fit.

    Every file holds data and no code, as a model file does, is written whole or not at all, and
    says which fit it is of.

    Parameters
    ----------
    folder : str or path-like
        Made where there is none.
    fit : mapping of str to str
        What the fit depends on, and a digest of it.

    Raises
    ------
    ValueError
        If the folder cannot be made, holds another fit, or what is no checkpoint.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_probmix.checkpoint import Checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Checkpoint(folder, {"data": "3f"}).save(0, {"scores": [0.5]})
    ...     again = Checkpoint(folder, {"data": "3f"})
    ...     again.load(0), again.load(1)
    ({'scores': [0.5]}, None)
    """

    def __init__(self, folder: str | os.PathLike[str], fit: Mapping[str, str]):
        self.folder = Path(folder)
        self.fit = dict(fit)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"checkpoint={str(folder)!r} is no folder and cannot become one ({error})."
            ) from error
        for path in self._files():
            found, _ = _metadata(path)
            other = [name for name in self.fit if found.get(name) != self.fit[name]]
            if other:
                raise ValueError(
                    f"checkpoint={str(folder)!r} is of a fit of other {', '.join(other)}; expected "
                    "one of this fit, an empty folder or a new one."
                )

    def load(self, place: int) -> Any:
        """Return what was saved of the kind at a place, None if nothing was.

        Parameters
        ----------
        place : int
        """
        path = self._path(place)
        return decode(_metadata(path)[1], load_file(path)) if path.exists() else None

    def save(self, place: int, state: Any) -> None:
        """Replace what was saved of a kind.

        Parameters
        ----------
        place : int
        state : object
            Of what model files are made of: numbers, strings, lists, dicts, arrays, tensors.
        """
        tensors: dict[str, torch.Tensor] = {}
        text = json.dumps(encode(state, "state", tensors), allow_nan=False)
        content = to_safetensors(tensors, {"fit": json.dumps(self.fit), "state": text})
        write_whole(self._path(place), content)

    def clear(self) -> None:
        """Delete the files, and the folder if nothing else is in it and it may be deleted."""
        # What a killed fit was writing is left beside them.
        for path in [*self._files(), *self.folder.glob(".kind-*.safetensors.*.tmp")]:
            path.unlink(missing_ok=True)
        # Neither other files, nor a folder that is mounted or worked in, are worth the fit.
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, place):
        return self.folder / f"kind-{place}.safetensors"

    def _files(self):
        return sorted(self.folder.glob("kind-*.safetensors"))


def digests(
    entrants: Sequence[Any], table: Sequence[Any], division: Sequence[Any], is_race: bool
) -> dict[str, str]:
    """Digests of all that a fit depends on, by what a message calls it.

    Parameters
    ----------
    entrants : sequence of Entrant
        Kinds with what they are trained with.
    table : Table
        Of all kinds, on the CPU.
    division : Division
    is_race : bool

    Returns
    -------
    dict of str to str
    """
    parts = {
        "data": table,
        "random_state or validation": [*division, *(entrant.seed for entrant in entrants)],
        "parameters": [
            is_race,
            # Not as a Kind shows itself, which is a setting of scikit-learn.
            *(each.kind.to_dict() for each in entrants),
            *((each.common.family, each.common.n_members) for each in entrants),
            entrants[0].common.device,
        ],
        "versions of libraries": [torch.__version__, np.__version__, version("sklearn-probmix")],
    }
    return {name: _digest(values) for name, values in parts.items()}


def _digest(values):
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            digest.update(repr((value.dtype, value.shape)).encode())
            digest.update(np.ascontiguousarray(value.numpy()).data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _metadata(path):
    """Read which fit a file is of, and its state without the tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata["fit"]), json.loads(metadata["state"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no checkpoint, or damaged ({error}).") from error
