"""Where networks compute, and how numbers get there without a wait."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["chosen_device", "sent"]


def chosen_device(device: str) -> str:
    """Return the device that a parameter of an estimator means.

    Parameters
    ----------
    device : str
        "auto" is "cuda" where torch finds such a GPU, and "cpu" elsewhere.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If torch cannot use it here; no other device takes its place.

    Examples
    --------
    >>> from sklearn_probmix.devices import chosen_device
    >>> chosen_device("cpu")
    'cpu'
    """
    chosen = device
    if device == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Where there is no such device torch says so, by one error or another.
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} cannot be used here ({reason}); expected one that torch finds on "
            "this machine, such as device='cpu', or device='auto'."
        ) from error
    return chosen


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; a GPU gets it in its turn, and nobody waits.

    Parameters
    ----------
    tensor : Tensor
    device : torch.device

    Returns
    -------
    Tensor
        The same one if it is there.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        # From other memory the copy would wait until the GPU has done all that it was given.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
