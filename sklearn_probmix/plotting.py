"""What all displays share: axes, colours, legends, and which output or column is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing, check_array

__all__ = ["COLORS", "Display", "choose_output", "get_column"]

Output = TypeVar("Output")

# Colours that the colour-blind can tell apart, without yellow and black, which fade on a light or
# on a dark background.
COLORS = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
COLORS_ON_DARK = COLORS[-1], *COLORS[1:-1], COLORS[0]


class Display:
    """Data of a picture and the axes that show it; a subclass computes the one and has `_draw`."""

    _figsize: tuple[float, float] | None = None
    _draw: Callable[[Any, str, Sequence[str]], None]

    def __init__(self, **stored: Any):
        vars(self).update(stored)

    def plot(self, ax: Any = None) -> Self:
        """Draw what is stored.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        """
        try:
            from matplotlib import colors, pyplot
        except ImportError as error:
            raise ImportError(
                f"{type(self).__name__} needs matplotlib: pip install matplotlib."
            ) from error
        if ax is None:
            _, ax = pyplot.subplots(figsize=self._figsize, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        # The labels are legible on this background, so their colour is.
        ink = ax.xaxis.label.get_color()
        is_dark = np.mean(colors.to_rgb(ink)) > 0.5
        self._draw(ax, ink, COLORS_ON_DARK if is_dark else COLORS)
        return self

    def _legend_on_top(self, n_columns):
        """Draw the legend into a headroom made for it, where the data leave no corner free."""
        n_rows = -(-len(self.ax_.get_legend_handles_labels()[0]) // n_columns)
        low, high = self.ax_.get_ylim()
        self.ax_.set_ylim(low, high + (0.04 + 0.06 * n_rows) * (high - low))
        style = {"fontsize": "small", "columnspacing": 1, "handlelength": 1.5}
        self.ax_.legend(loc="upper center", ncols=n_columns, **style)


def choose_output(outputs: Sequence[Output], output: int | None, found: str) -> Output:
    """Return one of the outputs.

    Parameters
    ----------
    outputs : sequence
    output : int or None
        None takes the only one.
    found : str
        What an error says about their number, which stands for the braces in it.

    Raises
    ------
    ValueError
        If there is no such output, or none is named where there are several.
    """
    if output is None and len(outputs) == 1:
        return outputs[0]
    if output is None or output not in range(len(outputs)):
        raise ValueError(
            f"output={output!r}, but {found.format(len(outputs))}; choose one by its index, "
            f"0 to {len(outputs) - 1}."
        )
    return outputs[output]


def get_column(X: Any, feature: int | str) -> tuple[NDArray[np.float64], str]:
    """Return a column of numbers, shape (n,), and its name.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n, n_features)
    feature : int or str
        Its position, or its name in a frame.
    """
    X = X if hasattr(X, "shape") else np.asarray(X)
    names = getattr(X, "columns", {feature: f"feature {feature}"})
    name = feature if isinstance(feature, str) else str(names[feature])
    values = _safe_indexing(X, feature, axis=1)
    return check_array(values, ensure_2d=False, dtype=np.float64, input_name=name), name
