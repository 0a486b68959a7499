"""The continuous ranked probability score of a mixture: closed, as a sum, or by quadrature.

Shapes as in `sklearn_probmix.components`; y has the shape of y, and weights have shape (n,
components) or (n, components, 1).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from sklearn_probmix.components import Array, Components, mixture_cdf

__all__ = ["mixture_crps", "n_pieces"]

# Between the quantiles of all components lie smooth pieces, so that no narrow component is missed,
# and the double exponential rule takes care of what happens at their ends.
_BREAKS = np.array([1e-12, 1e-7, 1e-4, 0.01, 0.1, 0.5])
_BREAKS = np.r_[_BREAKS, 1 - _BREAKS]
_STEPS = np.linspace(-3.3, 3.3, 45)
_NODES = special.expit(np.pi * np.sinh(_STEPS))
_MANY = _NODES, np.gradient(_STEPS) * np.pi * np.cosh(_STEPS) * _NODES * (1 - _NODES)
# Where families are mixed and pieces are many, an error of 1e-7 serves.
_HALF = _MANY[0][::2], 2 * _MANY[1][::2]
# Between two atoms that no quantile parts, nothing happens.
_FEW = tuple((np.polynomial.legendre.leggauss(6) + np.c_[[1, 0]]) / 2)
# Atoms of a row that are told apart: of counts alone, and beside a density, where each costs a
# quadrature. Of counts with more, in a row, the steps are integrated as a density's slope is: they
# are fine against the spread.
_MOST_ATOMS = {True: 2**12, False: 2**10}
_TAIL = 1e-13


def mixture_crps(components: Components, weights: Array, y: Array) -> Array:
    """CRPS of the rows of a mixture at y inside its support, of y's shape."""
    if components.has_crps:
        return components.crps(y, weights)
    if not components.is_discrete:
        return _integrate(components, weights, y)
    wide = _are_wide(components)
    score = np.empty(y.shape)
    for rows, method in ((wide, _integrate), (~wide, _sum)):
        if rows.any():
            score[rows] = method(components.take(rows), weights[rows], y[rows])
    return score


def _are_wide(components):
    """Which rows of counts have more atoms than are added up, shape (n,)."""
    wide = np.zeros(components.shape[0], dtype=bool)
    for block in components.blocks:
        if block.is_integer:
            low, high = _ends(block)
            wide |= (high - low > _MOST_ATOMS[True]).reshape(len(low), -1).any(axis=1)
    return wide


def n_pieces(components: Components) -> int:
    """Return how many values `mixture_crps` holds for each component of a row."""
    if components.has_crps:
        return 4 * components.shape[1]
    n_breaks = 0 if components.is_discrete else _BREAKS.size * components.shape[1]
    most = _MOST_ATOMS[components.is_discrete]
    return max(1, n_breaks + sum(_most_atoms(block, most) for block in components.blocks))


def _sum(components, weights, y):
    """Add the steps between atoms, where the cdf is constant."""
    atoms = np.concatenate([_atoms(block, _MOST_ATOMS[True]) for block in components.blocks])
    inside = np.clip(y, atoms.min(axis=0), atoms.max(axis=0))
    breaks = np.sort(np.concatenate([atoms, inside[None]]), axis=0)
    left, width = breaks[:-1], np.diff(breaks, axis=0)
    steps = width * (mixture_cdf(components, weights, left) - (left >= inside)) ** 2
    return abs(y - inside) + steps.sum(axis=0)


def _integrate(components, weights, y):
    """Integrate between the quantiles of all components, the atoms and y."""
    quantiles = components.ppf(_BREAKS.reshape(-1, *[1] * weights.ndim))
    quantiles = np.moveaxis(quantiles, 2, 1).reshape(-1, *y.shape)
    # Counts that are integrated alone are wide, and no atom of theirs matters.
    parts = () if components.is_discrete else components.blocks
    atoms = [_atoms(block, _MOST_ATOMS[False]) for block in parts]
    breaks = np.concatenate([y[None], quantiles, *atoms])
    order = np.argsort(breaks, axis=0, kind="stable")
    breaks, is_atom = np.take_along_axis(breaks, order, axis=0), order > len(quantiles)
    left, width = breaks[:-1], np.diff(breaks, axis=0)
    few = is_atom[:-1] & is_atom[1:]
    rules = [(few, *_FEW), (~few, *(_MANY if len(components.blocks) == 1 else _HALF))]
    total = np.zeros(y.shape)
    for chosen, nodes, node_weights in rules:
        # The chosen pieces of all rows come first, and others are emptied.
        first = np.argsort(~chosen, axis=0, kind="stable")[: chosen.sum(axis=0).max(initial=0)]
        start = np.take_along_axis(left, first, axis=0)
        length = np.take_along_axis(np.where(chosen, width, 0.0), first, axis=0)
        for node, node_weight in zip(nodes, node_weights, strict=True):
            distance = mixture_cdf(components, weights, start + node * length) - (start >= y)
            total += node_weight * (length * distance**2).sum(axis=0)
    return total


def _atoms(block, most):
    return block.atoms(*_ends(block), most)


def _ends(block):
    """Lowest and highest value that is not in a far tail of every component."""
    q = np.reshape([_TAIL, 1 - _TAIL], (2, *[1] * len(block.shape)))
    low, high = block.ppf(q)
    return low.min(axis=1), high.max(axis=1)


def _most_atoms(block, most):
    """Count the atoms of the widest row."""
    if not block.has_atoms:
        return 0
    low, high = _ends(block)
    widest = [np.argmax((high - low).reshape(len(low), -1).max(axis=1))]
    return len(_atoms(block.take(widest), most))
