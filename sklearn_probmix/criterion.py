"""The loss: negative log-likelihood of raw or mixed responses, for one network or several."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklearn_probmix.families import Family, get_family
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
    points : Tensor of shape (rows, n_points, n_outputs)
        The same for all members, or (rows, n_points, n_members * n_outputs), each member's own
        one after another.
    n_members : int, default=1

    Returns
    -------
    Tensor of shape (rows, n_points, n_members), in nats
    """
    eta, log_weights = output if isinstance(output, tuple) else (output, None)
    if eta.ndim == 3:
        log_p = family.log_prob(eta.unsqueeze(1), points)
        return log_p if log_p.shape[-1] == 1 else log_p.sum(-1, keepdim=True)
    eta = eta.unflatten(1, (n_members, -1)).unsqueeze(1)
    log_p = family.log_prob(eta, _by_member(points, eta).unsqueeze(3)).sum(-1)
    if log_weights is not None:
        log_weights = log_weights.unflatten(1, (n_members, -1)).unsqueeze(1)
        return (log_p + log_weights).logsumexp(-1) + math.log(n_members)
    if log_p.shape[-1] == 1:
        return log_p.squeeze(-1)
    return log_p.logsumexp(-1) - math.log(log_p.shape[-1])


def _by_member(points, eta):
    """Give points an axis of members, of length 1 where they share them."""
    return points.unflatten(-1, (-1, eta.shape[-2]))


def as_target(target: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """Express raw responses as weighted points; a mixed target passes through.

    Parameters
    ----------
    target : Tensor or dict of Tensor
        Raw responses of shape (rows,) or (rows, n_outputs), or a dict of these as `y`, with
        `weight` (rows,) or `mask` (rows, n_members) or both; or a mixed target, whose keys are
        those returned.

    Returns
    -------
    dict of Tensor
        `points` (rows, n_points, n_outputs) and, where they say more than one, `weights` (rows,
        n_points) and `draws`, the number of consecutive blocks of rows whose likelihoods are
        averaged before the logarithm (Appendix B); where given, `row_weight` (rows,) and `mask`
        (rows, n_members), 1 where a row counts for a member and 0 elsewhere.
    """
    if not isinstance(target, dict):
        return {"points": target.reshape(len(target), 1, -1)}
    if "points" in target:
        return target
    renamed = {"weight": "row_weight", "mask": "mask"}
    kept = {new: target[old] for old, new in renamed.items() if old in target}
    return as_target(target["y"]) | kept


class NegativeLogLikelihood(nn.Module):
    """Mean negative log-likelihood of a batch, in nats per row: the criterion of a skorch net.

    Parameters
    ----------
    family : str or Family, default="normal"
        What the module's outputs are natural parameters of.
    n_members : int, default=1
        Number of networks in an :class:`~sklearn_probmix.modules.Ensemble`. The loss is the sum of
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

    def __init__(
        self, family: str | Family = "normal", n_members: int = 1, variance_weighting: float = 0.0
    ):
        super().__init__()
        self.family = get_family(family)
        self.n_members = n_members
        self.variance_weighting = variance_weighting

    def forward(self, output: Tensor | Mixture, target: Tensor | dict[str, Tensor]) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        output : Tensor or Mixture
            Natural parameters, (rows, [components,] n_outputs, n_params).
        target : Tensor or dict of Tensor
            Raw responses or a mixed target, see :func:`as_target`.

        Returns
        -------
        Tensor of shape ()

        Raises
        ------
        ValueError
            If rows, outputs or parameters of output and target do not match.
        """
        target = as_target(target)
        self._check_shape(output, target["points"])
        score = log_likelihood(self.family, output, target["points"], self.n_members)
        if target.keys() == {"points"} and not self.variance_weighting:
            return score.sum() / -len(score)
        if "weights" in target:
            score = (target["weights"].unsqueeze(-1) * score).sum(1)
        else:
            score = score.squeeze(1)
        if self.training and self.variance_weighting:
            score = score * self._variance(output) ** self.variance_weighting
        draws = int(target.get("draws", 1))
        if draws > 1:
            score = score.unflatten(0, (draws, -1)).logsumexp(0) - math.log(draws)
        if "row_weight" in target:
            weight = target["row_weight"].unflatten(0, (draws, -1)).mean(0)
            score = score * weight.unsqueeze(-1)
        if "mask" not in target:
            return score.sum() / -len(score)
        mask = target["mask"][: len(score)]
        return -((score * mask).sum(0) / mask.sum(0).clamp(min=1)).sum()

    def _variance(self, output):
        """Predicted variance as a constant, (rows, n_members), averaged over what is mixed."""
        eta = output[0] if isinstance(output, tuple) else output
        variance = self.family.moments(eta.detach())[1].reshape(len(eta), self.n_members, -1)
        return variance.mean(-1)

    def _check_shape(self, output, points):
        shape = output_shape(output)
        expected = (points.shape[0], points.shape[2], self.family.n_params)
        own = (points.shape[0], points.shape[2] // self.n_members, self.family.n_params)
        if len(shape) not in (3, 4) or (shape[0], *shape[-2:]) not in (expected, own):
            raise ValueError(
                f"the module returned natural parameters of shape {tuple(shape)}; "
                f"expected (rows, n_outputs, n_params) = {expected} for y of "
                f"{expected[0]} rows and {expected[1]} outputs and {self.family!r}."
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
    points : Tensor of shape (rows, n_points, n_outputs)
        Or each member's own, as in :func:`log_likelihood`.
    n_members : int, default=1

    Returns
    -------
    Tensor of shape (rows, n_points, n_members), in units of the points
    """
    eta = output[0] if isinstance(output, tuple) else output
    eta = eta.reshape(len(eta), n_members, -1, *eta.shape[-2:])
    means, variances = family.moments(eta)
    mean = means.mean(2)
    sd = (variances.mean(2) + (means - mean.unsqueeze(2)).square().mean(2)).sqrt().unsqueeze(1)
    z = (_by_member(points, eta) - mean.unsqueeze(1)) / sd
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi)
    return (sd * score).sum(-1)


def output_shape(output: Tensor | Mixture) -> torch.Size:
    """Shape of the natural parameters in what a module returned."""
    return (output[0] if isinstance(output, tuple) else output).shape
