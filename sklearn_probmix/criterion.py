"""The negative log-likelihood of mixed and unmixed responses, as a criterion for skorch nets."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sklearn_probmix.families import Family, get_family
from sklearn_probmix.mixing import Target, as_target
from sklearn_probmix.pooling import Mixture

__all__ = ["NegativeLogLikelihood", "log_likelihood", "normal_crps"]


def log_likelihood(
    family: Family, output: Tensor | Mixture, points: Tensor, n_members: int = 1
) -> Tensor:
    """Joint log-likelihood log sum_c pi_c prod_o p_c(y_o) of points, for every member.

    Parameters
    ----------
    family : Family
    output : Tensor or Mixture
        Natural parameters (rows, [components,] n_outputs, n_params). The components fall into
        `n_members` groups of equal size; each group is a mixture of its own.
    points : Tensor of shape (rows, members, n_points, n_outputs)
        With one for all members, or each member's own. Of a complex one with an imaginary part
        above 0 nothing is known but that the response is more than the real part.
    n_members : int, default=1

    Returns
    -------
    Tensor of shape (rows, n_members, n_points), in nats
    """
    eta, log_weights = output if isinstance(output, tuple) else (output, None)
    eta = _by_member(eta, n_members)
    log_p = _log_probability(family, eta.unsqueeze(3), points.unsqueeze(2))
    # A sum over a single output would copy.
    log_p = log_p.squeeze(-1) if log_p.shape[-1] == 1 else log_p.sum(-1)
    if log_weights is not None:
        log_weights = log_weights.unflatten(1, (n_members, -1)).unsqueeze(-1)
        return (log_p + log_weights).logsumexp(2) + math.log(n_members)
    if log_p.shape[2] == 1:
        return log_p.squeeze(2)
    return log_p.logsumexp(2) - math.log(log_p.shape[2])


def _log_probability(family, eta, y):
    if not y.is_complex():
        return family.log_prob(eta, y)
    return torch.where(y.imag > 0, family.log_sf(eta, y.real), family.log_prob(eta, y.real))


def _by_member(eta, n_members):
    """Give eta axes of members and components, (rows, members, components, ...)."""
    return eta.reshape(len(eta), n_members, -1, *eta.shape[-2:])


class NegativeLogLikelihood(nn.Module):
    """Mean negative log-likelihood of a batch, in nats per row: the criterion of a skorch net.

    Parameters
    ----------
    family : str or Family, default="normal"
        What the module's outputs are natural parameters of.
    n_members : int, default=1
        Number of networks in an :class:`~sklearn_probmix.ensemble.Ensemble`. The loss is the sum of
        the members' losses, so that each trains as it would alone.
    variance_weighting : float, default=0.0
        In training, the loss of a row is multiplied by its predicted variance to this power,
        as a constant: between 0, the likelihood, and 1, which learns the mean as a
        homoscedastic model does (the beta-NLL loss). Normal families only.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix import NegativeLogLikelihood
    >>> criterion = NegativeLogLikelihood("poisson")
    >>> criterion(torch.zeros(3, 1, 1), torch.tensor([0.0, 0.0, 1.0])).item()
    1.0
    """

    # Accelerate leaves it as it is: on CPUs it fails to wrap what has no weights.
    _is_accelerate_prepared = True

    def __init__(
        self, family: str | Family = "normal", n_members: int = 1, variance_weighting: float = 0.0
    ):
        super().__init__()
        self.family = get_family(family)
        self.n_members = n_members
        self.variance_weighting = variance_weighting

    def forward(
        self, output: Tensor | Mixture, target: Target | Mapping[str, Tensor] | Tensor
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        output : Tensor or Mixture
            Natural parameters, (rows, [components,] n_outputs, n_params).
        target : Target, mapping or Tensor
            Raw responses or a mixed target, see :func:`.mixing.as_target`.

        Returns
        -------
        Tensor of shape ()

        Raises
        ------
        ValueError
            If rows, outputs or parameters of output and target do not match.
        """
        target = as_target(target)
        self._check_shape(output, target.points)
        score = log_likelihood(self.family, output, target.points, self.n_members)
        weights = target.weights
        score = score.squeeze(2) if weights is None else (weights * score).sum(2)
        if self.training and self.variance_weighting:
            score = score * self._variance(output) ** self.variance_weighting
        if target.draws > 1:
            score = score.unflatten(0, (target.draws, -1)).logsumexp(0) - math.log(target.draws)
        if target.row_weight is not None:
            score = score * target.row_weight.unflatten(0, (target.draws, -1)).mean(0)
        if target.mask is None:
            return score.sum() / -len(score)
        mask = target.mask[: len(score)]
        return -((score * mask).sum(0) / mask.sum(0).clamp(min=1)).sum()

    def _variance(self, output):
        """Predicted variance as a constant, (rows, n_members), averaged over what is mixed."""
        eta = output[0] if isinstance(output, tuple) else output
        variance = self.family.moments(eta.detach())[1].reshape(len(eta), self.n_members, -1)
        return variance.mean(-1)

    def _check_shape(self, output, points):
        shape = output_shape(output)
        expected = (len(points), points.shape[-1], self.family.n_params)
        components = shape[1] if len(shape) == 4 else 1
        fits = len(shape) in (3, 4) and (shape[0], *shape[-2:]) == expected
        if not fits or components % self.n_members:
            members = f" {self.n_members} members," if self.n_members > 1 else ""
            raise ValueError(
                f"the module returned natural parameters of shape {tuple(shape)}; "
                f"expected (rows, n_outputs, n_params) = {expected} for y of "
                f"{expected[0]} rows and {expected[1]} outputs,{members} and {self.family!r}."
            )


def normal_crps(
    family: Family, output: Tensor | Mixture, points: Tensor, n_members: int = 1
) -> Tensor:
    """CRPS of the Normal with each member's mean and variance, summed over outputs.

    It is ``s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))`` with z = (y - mean) / s: exact for a
    member of one component, an approximation to its mixture otherwise.

    Parameters
    ----------
    family : Normal or HomoscedasticNormal
    output : Tensor or Mixture
        Components of equal weight, in `n_members` groups.
    points : Tensor of shape (rows, members, n_points, n_outputs)
        With one for all members, or each member's own.
    n_members : int, default=1

    Returns
    -------
    Tensor of shape (rows, n_members, n_points), in units of the points
    """
    eta = _by_member(output[0] if isinstance(output, tuple) else output, n_members)
    means, variances = family.moments(eta)
    mean = means.mean(2)
    sd = (variances.mean(2) + (means - mean.unsqueeze(2)).square().mean(2)).sqrt().unsqueeze(2)
    z = (points - mean.unsqueeze(2)) / sd
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi)
    return (sd * score).sum(-1)


def output_shape(output: Tensor | Mixture) -> torch.Size:
    """Shape of the natural parameters in what a module returned."""
    return (output[0] if isinstance(output, tuple) else output).shape
