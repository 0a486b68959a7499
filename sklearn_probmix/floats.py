"""Arithmetic as numpy comes with it, whatever a process has set by `numpy.seterr`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from inspect import isfunction
from typing import ParamSpec, TypeVar

import numpy as np

__all__ = ["usual_errors", "usual_floats", "usual_floats_in_methods"]

P = ParamSpec("P")
R = TypeVar("R")

#: A context as numpy comes with it. Underflow to zero is no error: densities have tails.
usual_errors = partial(np.errstate, divide="warn", over="warn", under="ignore", invalid="warn")


def usual_floats(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that floating-point errors in it are handled as usual.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix.floats import usual_floats
    >>> with np.errstate(under="raise"):
    ...     float(usual_floats(np.exp)(-1e4))
    0.0
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with usual_errors():
            return function(*args, **kwargs)

    return call


def usual_floats_in_methods(cls: type[R]) -> type[R]:
    """Decorate a class so that :func:`usual_floats` holds in its public methods."""
    for name, method in list(vars(cls).items()):
        if isfunction(method) and not name.startswith("_"):
            setattr(cls, name, usual_floats(method))
    return cls
