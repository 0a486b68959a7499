"""How densities, and the responses of two rows, become one: linear and log-linear pools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Mixture", "linear_pool", "log_linear_pool", "mix_responses", "pool"]


class Mixture(NamedTuple):
    """Natural parameters of a finite mixture whose components have unequal weights."""

    eta: Tensor
    """Shape (rows, components, n_outputs, n_params)."""
    log_weights: Tensor
    """Shape (rows, components); each row's weights sum to one."""


class Kernels(Protocol):
    """What is asked of a family whose responses are mixed."""

    def kernel(self, y: Tensor, beta: float, noise: Tensor | None) -> tuple[Tensor, Tensor]: ...

    def pooled_kernel(
        self, y_i: Tensor, y_j: Tensor, lam: Tensor, beta: float, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...


def log_linear_pool(eta_i: Tensor, eta_j: Tensor, lam: Tensor) -> Tensor:
    """Natural parameters of g ∝ p_i^lam p_j^(1 - lam), eq. 18.

    Parameters
    ----------
    eta_i, eta_j : Tensor of shape (rows, ...)
        Natural parameters; also plain activations, whose mixing is the same operation.
    lam : Tensor of shape (rows,)
        Mixing coefficients in [0, 1].

    Returns
    -------
    Tensor of shape (rows, ...)
        ``lam * eta_i + (1 - lam) * eta_j``, exactly ``eta_i`` where both agree.
    """
    return torch.lerp(eta_j, eta_i, _as_rows(lam, eta_i))


def pool(mixtures: Sequence[Mixture], log_weights: Iterable[Tensor]) -> Mixture:
    """Mixture of mixtures of the same rows, sum_k w_k p_k; eq. 17 for any number of them.

    Parameters
    ----------
    mixtures : sequence of Mixture
        Natural parameters (rows, [members,] components, n_outputs, n_params), with log-weights
        (rows, [members,] components).
    log_weights : iterable of Tensor, one for each mixture
        Logarithms of convex weights, broadcastable to the mixture's.

    Returns
    -------
    Mixture
        The components of all, in order.
    """
    shares = [own + log for (_, own), log in zip(mixtures, log_weights, strict=True)]
    return Mixture(torch.cat([eta for eta, _ in mixtures], dim=-3), torch.cat(shares, dim=-1))


def linear_pool(eta_i: Tensor, eta_j: Tensor, lam: Tensor) -> Mixture:
    """Two-component mixture g = lam p_i + (1 - lam) p_j, eq. 17.

    Parameters
    ----------
    eta_i, eta_j : Tensor of shape (rows, [members,] n_outputs, n_params)
    lam : Tensor of shape (rows,)

    Returns
    -------
    Mixture of two components, for each member if there are members
    """
    lam = _as_rows(lam, eta_i[..., 0]).expand(*eta_i.shape[:-2], 1)
    certain = torch.zeros_like(lam)
    single = [Mixture(eta.unsqueeze(-3), certain) for eta in (eta_i, eta_j)]
    return pool(single, [lam.log(), (1 - lam).log()])


def mix_responses(
    family: Kernels,
    y_i: Tensor,
    y_j: Tensor,
    lam: Tensor,
    *,
    response: str,
    beta: float = 0.0,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Density g_y of the latent response y~ as weighted points, eq. 14.

    Parameters
    ----------
    family : Family
    y_i, y_j : Tensor of shape (rows, n_outputs)
    lam : Tensor of shape (rows,)
    response : {"pooled", "expected"}
        Pool the kernels around y_i and y_j log-linearly, or linearly (Assumption 4.2 at
        beta = 0: the loss is ``lam NLL(y_i) + (1 - lam) NLL(y_j)``).
    beta : float, default=0.0
        Variance of the kernels.
    noise : Tensor of shape (rows, n_outputs), default=None
        Standard Normal draws, with which a continuous kernel is sampled.

    Returns
    -------
    points : Tensor of shape (rows, n_points, n_outputs)
    weights : Tensor of shape (rows, n_points)

    Raises
    ------
    ValueError
        If the family has no such kernel, or "pooled" class labels have beta = 0.
    """
    if y_i.is_complex():
        # Of censored responses the imaginary part says so, and their losses are mixed.
        points, weights = mix_responses(family, y_i.real, y_j.real, lam, response=response)
        return torch.complex(points, torch.stack([y_i.imag, y_j.imag], dim=1)), weights
    if response == "pooled":
        return family.pooled_kernel(y_i, y_j, lam, beta, noise)
    points_i, weights_i = family.kernel(y_i, beta, noise)
    points_j, weights_j = family.kernel(y_j, beta, noise)
    lam = _as_rows(lam, weights_i)
    return (
        torch.cat([points_i, points_j], dim=1),
        torch.cat([lam * weights_i, (1 - lam) * weights_j], dim=1),
    )


def _as_rows(lam: Tensor, like: Tensor) -> Tensor:
    return lam.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
