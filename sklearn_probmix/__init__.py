"""Probabilistic mixup for scikit-learn: predictive distributions from mixed networks."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sklearn_probmix.names import *  # noqa: F403  # which names.__all__ holds
else:
    # torch and scikit-learn take seconds to load, which a typo in the demo's arguments need not
    # wait for: names and modules are loaded when one is asked for (PEP 562).
    def __getattr__(name):
        from importlib import import_module
        from importlib.util import find_spec

        if name == "__all__" or not name.startswith("_"):
            if find_spec(f"{__name__}.{name}"):
                return import_module(f"{__name__}.{name}")
            names = import_module(f"{__name__}.names")
            if name == "__all__" or name in names.__all__:
                return getattr(names, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__getattr__("__all__")})
