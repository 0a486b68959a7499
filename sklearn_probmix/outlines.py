"""What predictive distributions look like: points of a curve, bars of masses, and small pictures.

The y here is one output of some rows; ``dist`` is a `PredictiveDistribution` of shape (n,), which
this file does not import, since its HTML is made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Outline", "bar_width", "outlines", "readable", "to_html"]

Array = NDArray[np.float64]

# What is drawn of a row lies between these quantiles.
_ENDS = 0.001, 0.999
# And as far as floats can be told apart, and their differences be counted in.
_FARTHEST, _NARROWEST = 1e300, 1e-300
# More bars than this would be a comb; so many atoms are looked at, the others skipped evenly.
_MOST_BARS, _MOST_ATOMS = 100, 10_000
# Of an atom beside a density, of which less is not seen.
_LEAST_MASS = 1e-6
_N_CELLS = 100
_EMPTY = np.empty(0)
# Of the HTML: rows and outputs that are shown, and the size of a picture in pixels.
_SHOWN_ROWS, _SHOWN_OUTPUTS = 5, 3
_WIDTH, _HEIGHT = 240, 28


class Outline(NamedTuple):
    """A predictive distribution of one row, as it is drawn."""

    x: Array
    """In increasing order, in the units of y; empty where there is no density."""
    density: Array
    """At x; may be infinite at an end."""
    atoms: Array
    """In increasing order; empty where there is none, or more than can be drawn."""
    mass: Array
    """Their probabilities."""

    def heights(self) -> tuple[Array, Array]:
        """Heights of the curve and of the bars, relative to the highest of all.

        A mass is divided by the distance to the next atom, so that its bar is as high as a density
        that has its probability there. A lone one has the height that it would have if the density
        beside it were a box.
        """
        curve = self.density.copy()
        is_finite = np.isfinite(curve)
        top = curve[is_finite].max(initial=0.0)
        curve[~is_finite] = top
        width = np.median(np.diff(self.atoms)) if len(self.atoms) > 1 else np.inf
        if top > 0 and len(self.atoms):
            width = min(width, (1 - self.mass.sum()) / top)
        bars = self.mass / (width if 0 < width < np.inf else 1.0)
        highest = max(top, bars.max(initial=0.0)) or 1.0
        return curve / highest, bars / highest


def outlines(dist: Any) -> list[Outline]:
    """Return what is drawn of each row, between its quantiles 0.001 and 0.999.

    Parameters
    ----------
    dist : PredictiveDistribution of shape (n,)

    Returns
    -------
    list of Outline
        A density without atoms at single points. Where there are atoms, the mean density in narrow
        cells, without the atoms' mass; of more than 100 atoms, with it.

    Examples
    --------
    >>> from sklearn_probmix.distributions import PredictiveDistribution
    >>> from sklearn_probmix.outlines import outlines
    >>> (few,) = outlines(PredictiveDistribution("poisson", {"mu": [[0.5]]}))
    >>> few.atoms, few.mass.round(2)
    (array([0., 1., 2., 3., 4.]), array([0.61, 0.3 , 0.08, 0.01, 0.  ]))
    >>> (many,) = outlines(PredictiveDistribution("poisson", {"mu": [[1e6]]}))
    >>> len(many.atoms), bool(abs(many.x[many.density.argmax()] - 1e6) < 100)
    (0, True)
    """
    low, high = _quantiles(dist, _ENDS)
    if not any(block.has_atoms for block in dist.blocks):
        # Quantiles are dense where a narrow component is, the even grid where the tails are.
        quantiles = _quantiles(dist, np.linspace(*_ENDS, _N_CELLS + 1))
        grid = np.concatenate([quantiles, np.linspace(low, high, _N_CELLS + 1)])
        grid.sort(axis=0)
        density = dist.pdf(grid)
        return [Outline(x, p, _EMPTY, _EMPTY) for x, p in zip(grid.T, density.T, strict=True)]
    atoms = np.concatenate([block.atoms(low, high, _MOST_ATOMS) for block in dist.blocks])
    ends = zip(dist, atoms.T, low, high, strict=True)
    return [_beside_atoms(row, np.unique(own), *between) for row, own, *between in ends]


def _quantiles(dist, q):
    return np.clip(dist.ppf(q), -_FARTHEST, _FARTHEST)


def _beside_atoms(row, atoms, low, high):
    mass = row.pmf(atoms[:, None])[:, 0]
    # The bounds are repeated among the atoms.
    is_seen = mass > (0.0 if row.is_discrete else _LEAST_MASS)
    atoms, mass = atoms[is_seen], mass[is_seen]
    edges = np.linspace(low, high, _N_CELLS + 1)
    if len(atoms) > _MOST_BARS:
        counted = atoms[:: -(-len(atoms) // _MOST_BARS)]
        return _cells(row, counted if row.is_discrete else edges, _EMPTY, _EMPTY)
    if row.is_discrete or low == high:
        return Outline(_EMPTY, _EMPTY, atoms, mass)
    return _cells(row, edges, atoms, mass)


def _cells(row, edges, atoms, mass):
    """Outline of atoms and of the mean density of cells between edges, without the atoms."""
    probability = np.diff(row.cdf(edges[:, None])[:, 0])
    # An edge belongs to the cell below it.
    own = np.searchsorted(edges, atoms) - 1
    is_inside = own >= 0
    np.subtract.at(probability, own[is_inside], mass[is_inside])
    density = np.maximum(probability, 0.0) / np.diff(edges)
    return Outline((edges[1:] + edges[:-1]) / 2, density, atoms, mass)


def to_html(dist: Any) -> str:
    """Return a table of the first rows: a small picture, the mean and the 90 % interval.

    Parameters
    ----------
    dist : PredictiveDistribution

    Returns
    -------
    str
        HTML without scripts, in the colour of the text around it.

    Examples
    --------
    >>> from sklearn_probmix.distributions import PredictiveDistribution
    >>> from sklearn_probmix.outlines import to_html
    >>> html = to_html(PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[1.0]]}))
    >>> "<svg" in html, "-1.645 to 1.645" in html
    (True, True)
    """
    shown = dist[:_SHOWN_ROWS]
    n_outputs = 1 if dist.ndim == 1 else dist.shape[1]
    lines = []
    for output in range(min(n_outputs, _SHOWN_OUTPUTS)):
        one = shown if dist.ndim == 1 else shown.marginal(output)
        title = "row" if n_outputs == 1 else f"output {output}, row"
        lines += _lines(one, title)
    left = [
        f"{n - most} more {what}"
        for n, most, what in (
            (len(dist), _SHOWN_ROWS, "rows"),
            (n_outputs, _SHOWN_OUTPUTS, "outputs"),
        )
        if n > most
    ]
    caption = escape("; ".join([repr(dist), *left]))
    return f"<table><caption>{caption}</caption>{''.join(lines)}</table>"


def _lines(dist, title):
    """Rows of a table, and their header, which says from where to where the pictures go."""
    if not len(dist):
        return []
    drawn = outlines(dist)
    points = np.concatenate([part for each in drawn for part in (each.x, each.atoms)])
    low, high = points.min(), points.max()
    half = max((bar_width(each, 0.0) / 2 for each in drawn if len(each.atoms)), default=0.0)
    numbers = zip(drawn, dist.mean(), *dist.interval(0.9), strict=True)
    head = title, f"{readable(low)} to {readable(high)}", "mean", "90 % interval"
    return [f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"] + [
        f"<tr><td>{row}</td><td>{_svg(outline, low - half, high + half)}</td><td>"
        f"{readable(mean)}</td><td>{readable(left)} to {readable(right)}</td></tr>"
        for row, (outline, mean, left, right) in enumerate(numbers)
    ]


def readable(value: float) -> str:
    """Write a number with four digits; with a power of ten only where there would be many zeros.

    Parameters
    ----------
    value : float

    Examples
    --------
    >>> from sklearn_probmix.outlines import readable
    >>> [readable(value) for value in (73650.0, 12.3456, 0.00012346, 0.0, 3e30)]
    ['73,650', '12.35', '0.0001235', '0', '3e+30']
    """
    if not 1e-10 <= abs(value) < 1e10:
        return f"{value:.4g}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def _svg(outline: Outline, low: float, high: float) -> str:
    unit = _WIDTH / (high - low) if _NARROWEST < high - low < np.inf else 1.0
    curve, bars = outline.heights()
    shapes = []
    if len(curve):
        x = (outline.x - low) * unit
        path = _points([x[0], *x, x[-1]], [0.0, *curve, 0.0])
        shapes.append(f'<polygon points="{path}" fill-opacity="0.5"/>')
    width = bar_width(outline, 1 / unit) * unit if len(bars) else 0.0
    shapes += [
        f'<rect x="{(at - low) * unit - width / 2:.1f}" y="{_HEIGHT * (1 - bar):.1f}" '
        f'width="{width:.1f}" height="{_HEIGHT * bar:.1f}"/>'
        for at, bar in zip(outline.atoms, bars, strict=True)
    ]
    # A margin for a lone bar at an end.
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="-4 0 {_WIDTH + 8} {_HEIGHT}" '
        f'preserveAspectRatio="none" fill="currentColor">{"".join(shapes)}</svg>'
    )


def bar_width(outline: Outline, least: float) -> float:
    """Width of bars that leave a gap between atoms, but are seen; narrow ones on a density.

    Parameters
    ----------
    outline : Outline
    least : float
        A lone bar is six times as wide.
    """
    if len(outline.atoms) == 1:
        return 6 * least
    return max(least, (0.25 if len(outline.x) else 0.8) * np.diff(outline.atoms).min())


def _points(x: Sequence[float], heights: Sequence[float]) -> str:
    return " ".join(
        f"{at:.1f},{_HEIGHT * (1 - height):.1f}" for at, height in zip(x, heights, strict=True)
    )
