"""What mixup draws and does: partners, lam, mixed responses and mixed tensors of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_probmix.devices import sent
from sklearn_probmix.families import Family
from sklearn_probmix.pooling import Mixture, linear_pool, log_linear_pool, mix_responses

__all__ = ["Draw", "Mixer", "Target", "as_target"]


@dataclass(frozen=True)
class Target:
    """Responses of a batch as weighted points: the loss is ``-sum_a weights[a] log p(points[a])``.

    Every axis of members has length 1 where the members share what stands there.
    """

    points: Tensor
    """Shape (rows, members, n_points, n_outputs); complex where some responses are censored, see
    :func:`.criterion.log_likelihood`."""
    weights: Tensor | None = None
    """Shape (rows, members, n_points), convex; None for one point."""
    row_weight: Tensor | None = None
    """Shape (rows, members), of mean 1 over the table; None where all are equal."""
    mask: Tensor | None = None
    """Shape (rows, members), 0 where a row is none of a member's and 1 elsewhere."""
    draws: int = 1
    """Number of consecutive blocks of rows whose likelihoods are averaged before the logarithm
    (Appendix B)."""

    def convert_to_tensors(self, kind: str) -> Target:
        """Pass through skorch, which asks what it does not know to convert itself."""
        return self


def as_target(target: Target | Mapping[str, Tensor] | Tensor) -> Target:
    """Express raw responses as weighted points.

    Parameters
    ----------
    target : Target, mapping or Tensor
        A tensor holds raw responses, (rows,) or (rows, n_outputs). A mapping, which loaders can
        collate, holds `y` (rows, members, n_outputs) and perhaps `weight` and `mask` (rows,
        members), with axes of members of length 1 where they share the rows.

    Returns
    -------
    Target
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, Mapping):
        points = target["y"].unsqueeze(2)
        return Target(points, row_weight=target.get("weight"), mask=target.get("mask"))
    return Target(target.reshape(len(target), 1, 1, -1))


class Draw(NamedTuple):
    """What is drawn for one batch."""

    lam: Tensor
    """Shape (n_mixes * rows,)."""
    partner: Tensor
    """Index in the batch of every row's partner, shape (n_mixes * rows,)."""
    own_is_chosen: Tensor | None
    """With linear pooling, whether the row itself is taken where no mixture can be; same shape."""

    def on(self, device: torch.device) -> Draw:
        """Return the draw on a device."""
        chosen = None if self.own_is_chosen is None else sent(self.own_is_chosen, device)
        return Draw(sent(self.lam, device), sent(self.partner, device), chosen)


@dataclass(frozen=True)
class Mixer:
    """The rules by which rows and their partners are mixed; it holds no state.

    Parameters
    ----------
    family : Family
    alpha : float
        Parameter of the Beta law of lam, above 0.
    beta : float
        Variance of the kernel around y.
    pooling : {"log-linear", "linear"}
    response : {"pooled", "expected"}
    n_mixes : int
        Draws of lam for each pair.
    objective : {"expected-log", "log-expected"}
    may_have_components : bool
        Whether the output may be a mixture, for which log p is not linear in T(y): the kernel
        around y is sampled then.
    """

    family: Family
    alpha: float
    beta: float = 0.0
    pooling: str = "log-linear"
    response: str = "expected"
    n_mixes: int = 1
    objective: str = "expected-log"
    may_have_components: bool = False

    def draw(self, rng: np.random.Generator, n_rows: int, partner: Tensor | None = None) -> Draw:
        """Draw lam and, unless the batch brings its own, the partners."""
        if partner is None:
            partner = torch.from_numpy(rng.permutation(n_rows))
        lam = rng.beta(self.alpha, self.alpha, size=self.n_mixes * n_rows)
        chosen = None
        if self.pooling == "linear":
            chosen = torch.from_numpy(rng.random(len(lam)) < lam)
        return Draw(torch.from_numpy(lam), partner.repeat(self.n_mixes), chosen)

    def target(self, target: Target, draw: Draw, rng: np.random.Generator) -> Target:
        """Mix the responses of rows and partners.

        Parameters
        ----------
        target : Target
            Of raw responses: one point each.
        draw : Draw
        rng : numpy.random.Generator
            Source of the noise of the kernel and, for the log of an expectation, of y~.

        Returns
        -------
        Target of n_mixes times as many rows
        """
        # Members whose rows are their own are mixed as if they were rows.
        n_members = target.points.shape[1]
        lam = draw.lam.to(target.points.device).repeat_interleave(n_members)
        y_i, y_j = (y.flatten(0, 2) for y in self._pairs(target.points, draw))
        log_expected = self.objective == "log-expected"
        noise = None
        if self.beta > 0 and (log_expected or self.may_have_components):
            normal = torch.from_numpy(rng.standard_normal(tuple(y_i.shape)))
            noise = sent(normal, y_i.device).to(y_i)
        points, weights = mix_responses(
            self.family, y_i, y_j, lam, response=self.response, beta=self.beta, noise=noise
        )
        if log_expected:
            uniform = torch.from_numpy(rng.random((len(points), 1)))
            uniform = sent(uniform, weights.device).to(weights)
            points = _sample_point(points, weights, uniform)
        mixed = Target(
            points.unflatten(0, (-1, n_members)),
            None if points.shape[1] == 1 else weights.unflatten(0, (-1, n_members)),
            draws=self.n_mixes if log_expected else 1,
        )
        if target.row_weight is not None:
            weight_i, weight_j = self._pairs(target.row_weight, draw)
            lam = draw.lam.to(weight_i)
            mixed = replace(mixed, row_weight=log_linear_pool(weight_i, weight_j, lam))
        if target.mask is not None:
            mask_i, mask_j = self._pairs(target.mask, draw)
            mixed = replace(mixed, mask=mask_i * mask_j)
        return mixed

    def tensor(self, tensor: Tensor, draw: Draw, *, densities: bool) -> Tensor | Mixture:
        """Mix a tensor (rows, ...) at the site.

        Parameters
        ----------
        tensor : Tensor
        draw : Draw
        densities : bool
            Whether it holds natural parameters that linear pooling can make a mixture of;
            elsewhere that is a random choice between the two rows.

        Returns
        -------
        Tensor or Mixture of n_mixes times as many rows
        """
        own, partners = self._pairs(tensor, draw)
        if self.pooling == "log-linear":
            return log_linear_pool(own, partners, draw.lam.to(tensor))
        if densities or draw.own_is_chosen is None:
            return linear_pool(own, partners, draw.lam.to(tensor))
        chosen = draw.own_is_chosen.to(tensor.device)
        return torch.where(chosen.reshape(-1, *[1] * (own.ndim - 1)), own, partners)

    def _pairs(self, tensor, draw):
        """Every row, n_mixes times, and its partners."""
        own = tensor if self.n_mixes == 1 else tensor.repeat(self.n_mixes, *[1] * (tensor.ndim - 1))
        return own, tensor.index_select(0, draw.partner.to(tensor.device))


def _sample_point(points, weights, uniform):
    """Draw one of the weighted points of every row, (rows, 1, n_outputs)."""
    index = (weights.cumsum(1) < uniform).sum(1).clamp(max=weights.shape[1] - 1)
    return points[torch.arange(len(points), device=points.device), index].unsqueeze(1)
