"""Warnings that point at the caller's line."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is not the package's."""
    frame, level = sys._getframe(), 0
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("sklearn_probmix."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)
