"""A small table to make models of, and model files as one who knows the format writes them."""

import hashlib
import json
import struct
from types import SimpleNamespace

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] + 0.3 * RNG.normal(size=60)
LABELS = np.array(["low", "mid", "high"])[np.digitize(Y, [-0.5, 0.5])]


def opened(path):
    """Return the document and the tensors of a model file."""
    with safe_open(path, "pt") as file:
        text = file.metadata()["sklearn_probmix"]
        # After a checksum, which version 1 had not.
        document = json.loads(text if text.startswith("{") else text[64:])
        tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
    return SimpleNamespace(document=document, tensors=tensors)


def store(tensors, document, path):
    """Write a file with the checksum of its content, as a writer of any intentions can."""
    text = document if isinstance(document, str) else json.dumps(document, allow_nan=False)
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    save_file(tensors, path, {"sklearn_probmix": digest.hexdigest() + text})


def header(content, length=None):
    """Return the head of a safetensors file, of any length that it says it has."""
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content
