"""What a process may have set in numpy, scikit-learn and torch, kept away from our numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import sklearn
import torch
from threadpoolctl import ThreadpoolController

from sklearn_probmix.floats import usual_errors

__all__ = ["limited_threads", "neutral_settings"]

P = ParamSpec("P")
R = TypeVar("R")

# Of scikit-learn: as it comes, but for the settings that do not change what we compute.
_SKLEARN = {
    "assume_finite": False,
    "array_api_dispatch": False,
    "skip_parameter_validation": False,
    "transform_output": "default",
}
_CPU = torch.device("cpu")


def neutral_settings(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate an entry point so that its numbers do not depend on settings of the process.

    For the time of the call, and in this thread only, numpy's handling of floating-point errors,
    scikit-learn's configuration, and torch's modes (gradients, inference, autocast, default
    device) are as they come with these libraries. Nothing process-wide is read or written:
    torch's default dtype cannot be set for one thread, so our own tensors name their dtype.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        Of the same name, signature and docstring.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.settings import neutral_settings
    >>> with torch.no_grad():
    ...     neutral_settings(torch.is_grad_enabled)(), torch.is_grad_enabled()
    (True, False)
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _neutral():
            return function(*args, **kwargs)

    return call


@contextmanager
def _neutral() -> Iterator[None]:
    with ExitStack() as settings:
        settings.enter_context(sklearn.config_context(**_SKLEARN))
        settings.enter_context(usual_errors())
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        # Entered only where it is needed, since it slows every call of torch.
        if torch.get_default_device() != _CPU:
            settings.enter_context(_CPU)
        yield


@contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Let torch use so many threads at most where it is called from this one; no other notices.

    A number given to `torch.set_num_threads` stays that of MKL's products.

    Parameters
    ----------
    n_threads : int

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.settings import limited_threads
    >>> with limited_threads(1):
    ...     torch.get_num_threads()
    1
    """
    # Asked first, it does not set its own default later.
    if torch.get_num_threads() <= n_threads:
        yield
        return
    with _libraries().limit(limits=n_threads, user_api="openmp"):
        yield


@cache
def _libraries():
    """Find those that have threads, once: it takes as long as a small prediction."""
    return ThreadpoolController()
