"""Networks that look at neighbours: mixtures around the training rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, one_hot

from sklearn_probmix.families import Categorical, Family, Normal, get_family, stack_parameters
from sklearn_probmix.modules import (
    ACTIVATIONS,
    Dropout,
    Linear,
    Noisy,
    PiecewiseLinear,
    use_generator,
)
from sklearn_probmix.pooling import Mixture

__all__ = ["KernelNetwork"]

# Rows of the context that one step of training sees, at most; and their share where responses move
# along lines, which are learnt better, and at less cost, from neighbours that change.
_MOST_ROWS_OF_A_STEP, _SHARE_OF_A_STEP = 4_096, 0.5
# Heaviest rows of the context that are components of their own; the others become one.
_N_HEAVIEST = 32
# Units of the networks of the spread and of the slope.
_HEAD = 64
# Rows of one look at the whole context in evaluation, which bounds its memory.
_QUERIES = 64
# Copies of rows may be trusted further than a network of the columns: a fifth of the family's
# smallest standard deviation.
_SHARE_OF_FLOOR = 0.04
# Logarithms: of a spread, at least and at most; and of the growth of a variance with the squared
# distance, at the start.
_LOG_SPREAD, _LOG_GROWTH = (-9.0, 4.0), -3.0
# Keeps the root of a distance differentiable, and the logarithm of a weight finite.
_TINY, _LEAST_WEIGHT = 1e-8, 1e-7
# Logit of a row that is left out or has no weight, and that of the background of classes at the
# start.
_LEFT_OUT, _LOGIT_OF_BACKGROUND = -1e30, -2.0


class KernelNetwork(Noisy):
    """Mixture around the training rows that are near in a learned embedding.

    With phi the embedding and d its Euclidean distance, the density is
    ``p(y | x) = sum_i w_i(x) N(y; m_i(x), v_i(x))`` over rows i of the context, where
    ``w = softmax(-exp(tau) d(x, x_i))``. A local constant has ``m_i(x) = y_i`` and one variance
    ``v_i(x) = s(phi(x))``; a local line moves the response of a row to x by a slope g, which starts
    at zero, ``m_i(x) = y_i + g(phi(x)) . (phi(x) - phi(x_i))``, and is less certain the farther it
    moves, ``v_i(x) = s(phi(x)) + c(phi(x)) d(x, x_i)^2``. The heaviest rows are components of their
    own; in place of all others stands, with their weight, one Normal that is a function of phi(x).

    Of classes ``p(y = c | x) = (1 - b(phi(x))) sum_i w_i(x) 1{y_i = c} + b(phi(x)) q_c(phi(x))``:
    the weights of the rows of a class, smoothed by a network's own probabilities.

    In training a row of the context is left out of its own density: see `own`. For point
    predictions the like is known as TabR (arXiv 2307.14338) and ModernNCA (arXiv 2407.03257).

    Parameters
    ----------
    n_features : int
        Columns of x, standardised.
    n_outputs : int, default=1
        Columns of y, in the units in which the family is trained.
    family : str or Family, default="normal"
        A Normal family, or the categorical one.
    hidden_layer_sizes : sequence of int, default=(128, 64)
        The last is the dimension of the embedding; () takes the columns as they are.
    activation : {"relu", "silu", "gelu", "elu", "tanh"}, default="silu"
    dropout : float, default=0.0
        Probability that a hidden unit of the embedding is dropped in training.
    local : {"constant", "linear"}, default="linear"
        Whether a response is taken as it is, or moved along a line; of no matter for classes.
    knots : array of shape (n_features, n_knots) or None, default=None
        Encode the columns of x by :class:`~sklearn_probmix.modules.PiecewiseLinear` first.
    generator : torch.Generator or None, default=None
        Source of the initial weights and of what is drawn in training; None is torch's global one.

    Raises
    ------
    ValueError
        If the family is neither Normal nor categorical.

    Attributes
    ----------
    context : Tensor of shape ([members,] n_context, n_features)
        Training rows, filled in by `remember`.
    responses : Tensor of shape ([members,] n_context, n_outputs)
        What is Normal: logarithms, where the family is log-normal.
    shares : Tensor of shape ([members,] n_context, 1)
        Logarithms of the rows' weights.
    keys : Tensor of shape ([members,] n_context, dimension)
        Embedding of the context, made anew whenever evaluation begins.
    places : Tensor of shape ([members,] n_context) or None
        Index of the context's rows in the table that it was taken from.
    own : Tensor of shape (rows[, members]) or None
        Index in that table of the rows of a training batch.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.kernel import KernelNetwork
    >>> net = KernelNetwork(n_features=3)
    >>> net.remember(torch.zeros(20, 3), torch.zeros(20, 1))
    >>> net.eval()(torch.zeros(5, 3)).eta.shape
    torch.Size([5, 21, 1, 2])
    """

    #: See :class:`~sklearn_probmix.modules.MLP`.
    stacks = True
    #: Rows of the context that a member keeps of a large table.
    most_rows = 16_384
    #: Buffers that hold as many rows as the context has.
    of_context = ("context", "responses", "shares", "keys")
    context: Tensor
    responses: Tensor
    shares: Tensor
    keys: Tensor
    places: Tensor | None = None
    own: Tensor | None = None

    def __init__(
        self,
        n_features: int,
        n_outputs: int = 1,
        family: str | Family = "normal",
        hidden_layer_sizes: Sequence[int] = (128, 64),
        activation: str = "silu",
        dropout: float = 0.0,
        local: str = "linear",
        knots: ArrayLike | Tensor | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.family: Any = get_family(family)
        if not isinstance(self.family, Normal | Categorical):
            raise ValueError(
                f"family={self.family!r}: a KernelNetwork has Normal components, or classes."
            )
        self.n_outputs = n_outputs
        sizes = [n_features, *hidden_layer_sizes]
        self.encoder: PiecewiseLinear | None = None
        if knots is not None:
            self.encoder = PiecewiseLinear(knots)
            sizes[0] = self.encoder.knots.numel()
        layers: list[nn.Module] = []
        for width, next_width in pairwise(sizes):
            layers += [Linear(width, next_width, generator), ACTIVATIONS[activation]()]
            layers += [Dropout(dropout)] if dropout else []
        # The last layer is linear.
        self.embedding = nn.Sequential(*layers[: -2 if dropout else -1])
        width = sizes[-1]

        def head(n_units):
            first = Linear(width, _HEAD, generator)
            return nn.Sequential(first, nn.SiLU(), Linear(_HEAD, n_units, generator))

        self.slope: nn.Sequential | None = None
        self.spread: nn.Sequential | None = None
        if isinstance(self.family, Categorical):
            self.background = head(self.family.n_classes + 1)
        else:
            if local == "linear":
                self.slope = head(n_outputs * width)
                for parameter in self.slope[-1].parameters():
                    nn.init.zeros_(parameter)
            # In place of the rows that are not among the heaviest.
            self.background = head(2 * n_outputs)
            # Of the spread around a row, and of how that of a line grows with the distance.
            self.spread = head(n_outputs if self.slope is None else 2 * n_outputs)
        self.log_scale = nn.Parameter(torch.zeros(1, dtype=torch.float32))
        columns = n_features, n_outputs, 1, width
        for name, n_columns in zip(self.of_context, columns, strict=True):
            self.register_buffer(name, torch.zeros(0, n_columns, dtype=torch.float32))
        use_generator(self, generator)
        self.row_block = _QUERIES

    def allocate(self, n_context: int) -> None:
        """Make room for a context of so many rows.

        Parameters
        ----------
        n_context : int
        """
        for name in self.of_context:
            old = getattr(self, name)
            setattr(self, name, old.new_zeros(*old.shape[:-2], n_context, old.shape[-1]))

    def remember(
        self, X: Tensor, y: Tensor, weight: Tensor | None = None, places: Tensor | None = None
    ) -> None:
        """Make rows the context.

        Parameters
        ----------
        X : Tensor of shape ([members,] n_context, n_features)
        y : Tensor of shape ([members,] n_context, n_outputs)
        weight : Tensor of shape ([members,] n_context) or None, default=None
            Rows of weight 0 have no say.
        places : Tensor of shape ([members,] n_context) or None, default=None
            Their index in the table, by which a row of a batch is known.
        """
        self.allocate(X.shape[-2])
        self.context.copy_(X)
        self.responses.copy_(self.kept(y))
        if weight is not None:
            self.shares.copy_(weight.log().clamp(min=_LEFT_OUT).unsqueeze(-1))
        self.places = places

    def kept(self, y: Tensor) -> Tensor:
        """Return what is remembered of responses, of the same shape."""
        return self.family.to_normal(y) if isinstance(self.family, Normal) else y

    def train(self, mode: bool = True) -> Self:
        """Set the mode; when evaluation begins the context is embedded by today's weights."""
        begins = self.training and not mode
        super().train(mode)
        if begins and not self.context.is_meta:
            with torch.no_grad():
                self.keys.copy_(self._embedded(self.context))
        return self

    def forward(self, X: Tensor) -> Mixture:
        """Map x (rows, [members,] n_features) to a mixture of natural parameters."""
        stacked = self.context.ndim == 3
        z = self.embedding(self._encoded(X))
        if stacked:
            z = z.expand(-1, len(self.context), -1)
        heads = [z, self.background(z)]
        heads += [head(z) for head in (self.spread, self.slope) if head is not None]
        combine: Any = self._classes if self.spread is None else self._mixture
        heads = [(head if stacked else head.unsqueeze(1)).transpose(0, 1) for head in heads]
        context = [self.keys, self.responses, self.shares]
        places = self.places if self.training else None
        if self.training:
            rows = self._rows_of_a_step(X.device)
            if rows is not None:
                places = None if places is None else places[..., rows]
            context = [self.context, self.responses, self.shares]
            if rows is not None:
                context = [tensor.index_select(-2, rows) for tensor in context]
            context[0] = self._embedded(context[0])
        context = [tensor if stacked else tensor.unsqueeze(0) for tensor in context]
        if self.training:
            parts = combine(*context, self._left_out(places), *heads)
        else:
            # A look at the whole context takes memory, so few rows look at once.
            chunks = zip(*(head.split(self.row_block, dim=1) for head in heads), strict=True)
            looks = [combine(*context, None, *chunk) for chunk in chunks]
            parts = [torch.cat(part, dim=1) for part in zip(*looks, strict=True)]
        eta, log_weights = (part.transpose(0, 1) for part in parts)
        return Mixture(eta, log_weights) if stacked else Mixture(eta[:, 0], log_weights[:, 0])

    def _encoded(self, X):
        return X if self.encoder is None else self.encoder(X)

    def _embedded(self, context):
        """Embed rows ([members,] n_context, n_features), past the hooks on the embedding."""
        stacked = context.ndim == 3
        X = context.transpose(0, 1) if stacked else context
        z = self.embedding.forward(self._encoded(X))
        return z.transpose(0, 1) if stacked else z

    def _rows_of_a_step(self, device):
        """Draw the part of the context that one step of training sees; None is all of it."""
        n_rows = self.context.shape[-2]
        share = 1.0 if self.slope is None else _SHARE_OF_A_STEP
        n_seen = min(_MOST_ROWS_OF_A_STEP, math.ceil(share * n_rows))
        if n_seen == n_rows:
            return None
        return torch.randperm(n_rows, generator=self.generator, device=device)[:n_seen]

    def _left_out(self, places):
        """Which rows of the context are which rows of the batch, (members, rows, n_context)."""
        if places is None or self.own is None:
            return None
        own = self.own.T if self.own.ndim == 2 else self.own.unsqueeze(0)
        return own.unsqueeze(2) == places.reshape(-1, 1, places.shape[-1])

    def _logits(self, keys, shares, left_out, z):
        """Weigh the context, all with a leading axis of members; rows come second."""
        squared = z.square().sum(-1, keepdim=True) + keys.square().sum(-1).unsqueeze(1)
        squared = torch.baddbmm(squared, z, keys.transpose(1, 2), alpha=-2).clamp(min=_TINY)
        logits = squared.sqrt() * -self.log_scale.exp().reshape(-1, 1, 1)
        logits = logits + shares.transpose(1, 2)
        if left_out is not None:
            logits = logits.masked_fill(left_out, _LEFT_OUT)
        return logits, squared

    def _moved(self, z, keys, slope, index):
        """How far a slope moves the response of these rows of the context to z.

        All rows are moved, which is one product, and few taken: their keys would fill more memory.
        """
        slope = slope.unflatten(-1, (self.n_outputs, -1))
        here = (slope * z.unsqueeze(2)).sum(-1).unsqueeze(2)
        there = slope.flatten(1, 2) @ keys.transpose(1, 2)
        there = there.unflatten(1, (-1, self.n_outputs)).transpose(2, 3)
        return here - there.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, self.n_outputs))

    @staticmethod
    def _total(logits):
        """Logarithm of the sum of weights; where all rows are left out the background is alone."""
        return logits.logsumexp(-1, keepdim=True).clamp(min=_LEFT_OUT / 2)

    def _classes(self, keys, y, shares, left_out, z, background):
        """Logarithms of the probabilities of classes, one component for each member."""
        logits, _ = self._logits(keys, shares, left_out, z)
        weights = (logits - self._total(logits)).exp()
        near = weights @ one_hot(y.squeeze(-1).long(), self.family.n_classes).to(weights)
        raw, gate = background[..., :-1], background[..., -1:] + _LOGIT_OF_BACKGROUND
        near = near.clamp(min=_LEAST_WEIGHT).log() + logsigmoid(-gate)
        eta = torch.logaddexp(near, raw.log_softmax(-1) + logsigmoid(gate))
        return eta.unsqueeze(2).unsqueeze(3), torch.zeros_like(gate)

    def _mixture(self, keys, y, shares, left_out, z, background, spread, slope=None):
        """Natural parameters and logarithms of weights of the heaviest rows and the others."""
        logits, squared = self._logits(keys, shares, left_out, z)
        heavy, index = logits.topk(min(_N_HEAVIEST, keys.shape[1]), dim=-1)
        heavy = heavy - self._total(logits)
        rest = (1 - heavy.exp().sum(-1, keepdim=True)).clamp(min=_LEAST_WEIGHT).log()
        # From here on (members, rows, components, n_outputs).
        members = torch.arange(len(keys), device=keys.device).reshape(-1, 1, 1)
        mean = y[members, index]
        narrow, *growth = spread.unsqueeze(2).split(self.n_outputs, dim=-1)
        floor = self.family.variance_floor * _SHARE_OF_FLOOR
        variance = (2 * narrow.clamp(*_LOG_SPREAD)).exp() + floor
        if slope is not None:
            mean = mean + self._moved(z, keys, slope, index)
            growth = (growth[0].clamp(*_LOG_SPREAD) + _LOG_GROWTH).exp()
            variance = variance + growth * squared.gather(-1, index).unsqueeze(-1)
        precision = 1 / variance.expand_as(mean)
        eta = stack_parameters(mean * precision, -0.5 * precision)
        raw = stack_parameters(*background.unsqueeze(2).chunk(2, dim=-1))
        eta = torch.cat([eta, self.family.natural(raw)], dim=2)
        return eta, torch.cat([heavy, rest], dim=-1)
