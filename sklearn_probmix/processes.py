"""One net trained by several processes, each on its part of every batch, with accelerate."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["agreed", "check_processes", "part_of", "unwrapped"]


def part_of(net: Any) -> tuple[int, int]:
    """Return the index of this process among those that train a net, and their number.

    Parameters
    ----------
    net : NeuralNet or None
        One of several if it has the `accelerator` of skorch's AccelerateMixin.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> from sklearn_probmix.processes import part_of
    >>> part_of(None)
    (0, 1)
    """
    accelerator = getattr(net, "accelerator", None)
    return (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)


def check_processes(net: Any, random_state: Any) -> None:
    """Raise a ValueError if processes could not train a net together.

    Parameters
    ----------
    net : NeuralNet or None
    random_state : int, RandomState or None
    """
    if hasattr(net, "accelerator") and net.device is None:
        raise ValueError(
            "net has an accelerator and device=None; expected device=accelerator.device.type, and "
            "Accelerator(device_placement=False): rows go to the device of the net."
        )
    n_processes = part_of(net)[1]
    if random_state is None and n_processes > 1:
        raise ValueError(
            f"random_state=None with a net in {n_processes} processes; expected an int, so that "
            "all of them hold out the same rows."
        )


def agreed(net: Any, values: ArrayLike) -> Any:
    """Average numbers over the processes that train a net, so that all decide alike.

    Parameters
    ----------
    net : NeuralNet
    values : array-like
        Of this process.

    Returns
    -------
    ndarray
        The values as they are where there is one process.
    """
    if part_of(net)[1] == 1:
        return values
    accelerator = net.accelerator
    own = torch.as_tensor(values, dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(own, "mean").cpu().numpy()


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module that several processes train; calls of it average no gradients.

    Parameters
    ----------
    module : Module

    Returns
    -------
    Module
        The same one if it is not wrapped.
    """
    return module.module if isinstance(module, DistributedDataParallel) else module
