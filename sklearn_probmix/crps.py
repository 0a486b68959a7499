"""The continuous ranked probability score of a mixture: closed, as a sum, or by quadrature.

Shapes as in `sklearn_probmix.components`; y has the shape of y, and weights have shape (n,
components) or (n, components, 1).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from sklearn_probmix.components import Array, Components, JoinedComponents, mixture_cdf
from sklearn_probmix.quantiles import extremes

__all__ = ["DOUBLE_EXPONENTIAL", "mixture_crps", "n_pieces"]

# Of few smooth components the pieces between the quantiles of each are smooth, so that no narrow
# one is missed, and the double exponential rule takes care of what happens at their ends.
_FEW_COMPONENTS = 8
_BREAKS = np.array([1e-12, 1e-7, 1e-4, 0.01, 0.1, 0.5])
_BREAKS = np.r_[_BREAKS, 1 - _BREAKS]
_STEPS = np.linspace(-3.3, 3.3, 45)
_NODES = special.expit(np.pi * np.sinh(_STEPS))
#: Nodes and weights of the double exponential rule, for an integral from 0 to 1.
DOUBLE_EXPONENTIAL = (
    _NODES,
    np.gradient(_STEPS) * np.pi * np.cosh(_STEPS) * _NODES * (1 - _NODES),
)
# Where families are mixed and pieces are many, an error of 1e-7 serves.
_HALF = DOUBLE_EXPONENTIAL[0][::2], 2 * DOUBLE_EXPONENTIAL[1][::2]
# Between two atoms that no quantile parts, nothing happens.
_FEW = tuple((np.polynomial.legendre.leggauss(6) + np.c_[[1, 0]]) / 2)
# Of others, in discrete blocks or not, the breaks are some of their quantiles, taken
# from so many of a block and no fewer of a component, and a few in the tails.
_N_BREAKS, _OF_A_BLOCK, _OF_A_COMPONENT = 256, {True: 64, False: 256}, 8
_TAILS, _OF_A_TAIL = np.array([1e-7, 1e-5, 1e-3, 1e-2]), 6
_TWO = tuple((np.polynomial.legendre.leggauss(2) + np.c_[[1, 0]]) / 2)
# Atoms of a row that are told apart: of counts alone, and beside a density, where each costs a
# quadrature. Of counts with more, in a row, the steps are integrated as a density's slope is: they
# are fine against the spread. So are those in the tails, here of probability 1e-13 or 1e-4.
_MOST_ATOMS = {True: 2**12, False: 2**10}
_MOST_COARSE_ATOMS = 2**9
_TAIL, _COARSE_TAIL = 1e-13, 1e-4


def mixture_crps(components: Components, weights: Array, y: Array) -> Array:
    """CRPS of the rows of a mixture at y inside its support, of y's shape."""
    if components.has_crps:
        return components.crps(y, weights)
    components, weights = _merge(components, weights)
    quadrature = _integrate if _is_simple(components) else _integrate_coarsely
    if not components.is_discrete:
        return quadrature(components, weights, y)
    wide = _are_wide(components)
    score = np.empty(y.shape)
    for rows, method in ((wide, quadrature), (~wide, _sum)):
        if rows.any():
            score[rows] = method(components.take(rows), weights[rows], y[rows])
    return score


def _is_simple(components):
    """Whether pieces between the quantiles of all components are few and smooth."""
    is_smooth = all(block.is_smooth for block in components.blocks)
    return is_smooth and components.shape[1] <= _FEW_COMPONENTS


def _merge(components, weights):
    """Replace the blocks whose mixtures are of their own kind by one component each."""
    parts = []
    for block, own in _blocks(components, weights):
        total = own.sum(axis=1, keepdims=True)
        share = np.where(total > 0, own / np.where(total > 0, total, 1.0), 1 / own.shape[1])
        one = block.merged(share) if own.shape[1] > 1 else None
        parts.append((block, own) if one is None else (one, total))
    blocks, shares = zip(*parts, strict=True)
    joined = blocks[0] if len(blocks) == 1 else JoinedComponents(blocks)
    return joined, np.concatenate(shares, axis=1)


def _blocks(components, weights):
    """Yield each block with its weights."""
    ends = np.cumsum([block.shape[1] for block in components.blocks])
    yield from zip(components.blocks, np.split(weights, ends[:-1], axis=1), strict=True)


def _are_wide(components):
    """Which rows of counts have more atoms than are added up, shape (n,)."""
    wide = np.zeros(components.shape[0], dtype=bool)
    for block in components.blocks:
        if block.is_integer:
            low, high = _ends(block, _TAIL)
            wide |= (high - low > _MOST_ATOMS[True]).reshape(len(low), -1).any(axis=1)
    return wide


def n_pieces(components: Components) -> int:
    """Return how many values `mixture_crps` holds for each component of a row."""
    if components.has_crps:
        if components.unrectified is not None:
            return n_pieces(components.unrectified)
        return max(4 * components.shape[1], components.n_numbers)
    limits, n_breaks = (_MOST_ATOMS[components.is_discrete], _TAIL), 0
    if not components.is_discrete:
        n_breaks = _BREAKS.size * components.shape[1]
        if not _is_simple(components):
            # Merged, they may be few.
            limits = _MOST_ATOMS[False], _COARSE_TAIL
            n_breaks = max(_N_BREAKS + 2 * _TAILS.size * _OF_A_TAIL, _BREAKS.size * _FEW_COMPONENTS)
    return max(1, n_breaks + sum(_most_atoms(block, *limits) for block in components.blocks))


def _sum(components, weights, y):
    """Add the steps between atoms, where the cdf is constant."""
    atoms = np.concatenate([_atoms(block, _MOST_ATOMS[True], _TAIL) for block in components.blocks])
    inside = np.clip(y, atoms.min(axis=0), atoms.max(axis=0))
    breaks = np.sort(np.concatenate([atoms, inside[None]]), axis=0)
    left, width = breaks[:-1], np.diff(breaks, axis=0)
    steps = width * (mixture_cdf(components, weights, left) - (left >= inside)) ** 2
    return abs(y - inside) + steps.sum(axis=0)


def _integrate(components, weights, y):
    """Integrate between the quantiles of all components, the atoms and y."""
    quantiles = components.ppf(_BREAKS.reshape(-1, *[1] * weights.ndim))
    quantiles = np.moveaxis(quantiles, 2, 1).reshape(-1, *y.shape)
    atoms = _steps(components, _MOST_ATOMS[False], _TAIL)
    breaks = np.concatenate([y[None], quantiles, *atoms])
    order = np.argsort(breaks, axis=0, kind="stable")
    breaks, is_atom = np.take_along_axis(breaks, order, axis=0), order > len(quantiles)
    left, width = breaks[:-1], np.diff(breaks, axis=0)
    few = is_atom[:-1] & is_atom[1:]
    rules = [(few, _FEW), (~few, DOUBLE_EXPONENTIAL if len(components.blocks) == 1 else _HALF)]
    total = np.zeros(y.shape)
    for chosen, rule in rules:
        start, length = _pick(chosen, left, np.where(chosen, width, 0.0))
        total += _apply(rule, components, weights, y, start, length)
    return total


def _integrate_coarsely(components, weights, y):
    """Integrate between some quantiles of the components, the atoms and y.

    A cdf that is known at the ends of a piece is off by at most the piece's probability in between,
    so that pieces of little probability, and of little probability times width, leave little
    error, whatever the components are.
    """
    found = [_spread(*part) for part in _blocks(components, weights)]
    quantiles, masses = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.argsort(quantiles, axis=0, kind="stable")
    quantiles, masses = (np.take_along_axis(v, order, axis=0) for v in (quantiles, masses))
    mass = (masses[1:] + masses[:-1]) / 2
    measure = sum(_shares(size) for size in (mass, np.sqrt(mass * np.diff(quantiles, axis=0))))
    count = np.floor(measure * (_N_BREAKS / 2))
    chosen = np.diff(count, axis=0, prepend=-1, append=0) > 0
    # Every row has its first quantile, and if it has fewer than another, again and again.
    (breaks,) = _pick(chosen, np.where(chosen, quantiles, quantiles[0]))
    low, high = _tails(components, weights)
    atoms = _steps(components, _MOST_COARSE_ATOMS, _COARSE_TAIL)
    breaks = np.concatenate([y[None], breaks, low, high, *atoms])
    breaks.sort(axis=0)
    length = np.diff(breaks, axis=0)
    return _apply(_TWO, components, weights, y, *_pick(length > 0, breaks[:-1], length))


def _tails(components, weights):
    """Place breaks in the lower tail of the lowest component and the upper one of the highest."""
    levels = _TAILS.reshape(-1, *[1] * weights.ndim)
    low, _ = extremes(weights, components.ppf(levels))
    _, high = extremes(weights, components.ppf(1 - levels))
    return [np.concatenate(np.linspace(v[:-1], v[1:], _OF_A_TAIL)) for v in (low, high)]


def _spread(block, weights):
    """Quantiles of a block, and their masses, on the first axis; at other levels of each component.

    Components that are alike thus have no gaps in common.
    """
    n_components = weights.shape[1]
    n_levels = max(_OF_A_COMPONENT, _OF_A_BLOCK[block.is_discrete] // n_components)
    levels = (np.arange(n_levels * n_components) + 0.5) / (n_levels * n_components)
    levels = levels.reshape(n_levels, 1, n_components, *[1] * (weights.ndim - 2))
    quantiles = block.ppf(levels)
    masses = np.broadcast_to(weights / n_levels, quantiles.shape)
    n, _, *outputs = block.shape
    return [np.moveaxis(v, 2, 1).reshape(-1, n, *outputs) for v in (quantiles, masses)]


def _shares(sizes):
    """Cumulative shares on the first axis."""
    sums = np.cumsum(sizes, axis=0)
    return sums / np.where(sums[-1] > 0, sums[-1], 1.0)


def _pick(chosen, *arrays):
    """Select on the first axis as many as the row with the most has, and at least one."""
    first = np.argsort(~chosen, axis=0, kind="stable")[: chosen.sum(axis=0).max(initial=1)]
    return [np.take_along_axis(values, first, axis=0) for values in arrays]


def _apply(rule, components, weights, y, start, length):
    """Apply a rule to pieces, on the first axis, none of which has y inside."""
    total = np.zeros(y.shape)
    for node, node_weight in zip(*rule, strict=True):
        distance = mixture_cdf(components, weights, start + node * length) - (start >= y)
        # Unlike a sum's, the order of this one does not depend on the number of rows.
        total += node_weight * np.cumsum(length * distance**2, axis=0)[-1]
    return total


def _steps(components, most, tail):
    """Atoms beside a density; counts that are integrated alone are wide, and none matters."""
    parts = () if components.is_discrete else components.blocks
    return [_atoms(block, most, tail) for block in parts]


def _atoms(block, most, tail):
    return block.atoms(*_ends(block, tail), most)


def _ends(block, tail):
    """Lowest and highest value that is not in a far tail of every component."""
    q = np.reshape([tail, 1 - tail], (2, *[1] * len(block.shape)))
    low, high = block.ppf(q)
    return low.min(axis=1), high.max(axis=1)


def _most_atoms(block, most, tail):
    """Count the atoms of the widest row."""
    if not block.has_atoms:
        return 0
    low, high = _ends(block, tail)
    widest = [np.argmax((high - low).reshape(len(low), -1).max(axis=1))]
    return len(_atoms(block.take(widest), most, tail))
