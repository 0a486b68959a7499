"""Networks that return natural parameters: the MLP, the sampler of embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, pairwise

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.quasirandom import SobolEngine

from sklearn_probmix.families import Family, Normal, get_family, stack_parameters

__all__ = [
    "MLP",
    "GaussianSampler",
    "Linear",
    "Noisy",
    "PiecewiseLinear",
    "knots_of_a_column",
    "quantile_knots",
    "use_generator",
]

ACTIVATIONS = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}

# What a byte can say.
_BYTES = 256
# Functions of elements round differently inside of a processor's vectors, of 32 numbers at most,
# and in what is left over; and very small products differently from others.
_WHOLE_VECTORS = 32
_SMALL_PRODUCT = 400
# Knots of all columns together: 65 of each of 16. More would cost wide tables time and memory.
_MOST_KNOTS = 1040
# The embedding starts out nearly deterministic, with a variance of softplus(-3) = .05.
_INITIAL_SPREAD = -3.0
_EMBEDDING = Normal(variance_floor=1e-8)


class Linear(nn.Module):
    """Affine map, of one network or, with stacked weights, of all members of an ensemble.

    Weights (members, n_out, n_in) map x of shape (rows, members or 1, ..., n_in). They stand on the
    left of the product: with stacked ones their gradient then needs no copy, and in evaluation the
    last bits of a row depend neither on its place nor on the number of rows, as they do in some
    libraries' products where `n_in` is odd and `n_out` small.

    Parameters
    ----------
    n_in, n_out : int
    generator : torch.Generator or None, default=None
        Source of the initial weights, uniform within ``1 / sqrt(n_in)``; None is torch's global
        one.
    """

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(n_out, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        bound = 1 / math.sqrt(n_in)
        nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, [members,] ..., n_in) to (rows, [members,] ..., n_out)."""
        if self.weight.ndim == 2:
            return linear(x, self.weight, self.bias) if self.training else self._left(x)
        n_members, n_out, n_in = self.weight.shape
        between = x.shape[2:-1]
        if x.shape[1] == 1 and not self.training:
            product = self._left(x).reshape(x.shape[0], *between, n_members, n_out)
            return product.movedim(-2, 1)
        flat = x.transpose(0, 1).reshape(x.shape[1], -1, n_in).transpose(1, 2)
        flat = flat.expand(n_members, -1, -1)
        product = torch.baddbmm(self.bias.unsqueeze(2), self.weight, flat).transpose(1, 2)
        return product.reshape(n_members, x.shape[0], *between, n_out).transpose(0, 1)

    def _left(self, x):
        """Map all rows by one product, whose outputs are those of all members."""
        n_in = self.weight.shape[-1]
        flat = x.reshape(-1, n_in).T
        product = torch.addmm(self.bias.reshape(-1, 1), self.weight.reshape(-1, n_in), flat)
        return product.T.reshape(*x.shape[:-1], -1)


class Noisy(nn.Module):
    """A layer that draws in training.

    Attributes
    ----------
    generator : torch.Generator or None
        Source of the draws; None is torch's global one. It does not outlive a copy or a pickle.
    """

    generator: torch.Generator | None = None

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "generator"}


def use_generator(module: nn.Module, generator: torch.Generator | None) -> None:
    """Let all layers of a module draw from this generator, or from torch's global one."""
    for layer in module.modules():
        if isinstance(layer, Noisy):
            layer.generator = generator


class Dropout(Noisy):
    """Drop units at random in training, and scale the others up.

    Parameters
    ----------
    p : float
        Probability that a unit is dropped, in [0, 1); in steps of 1 / 256.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self._n_dropped = min(round(p * _BYTES), _BYTES - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (...) to the same shape."""
        if not self.training:
            return x
        # A byte decides on a unit: eight are drawn at a time, at a fifth of the cost of Bernoullis.
        words = torch.empty(math.ceil(x.numel() / 8), dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None, generator=self.generator)
        kept = words.view(torch.uint8)[: x.numel()].reshape(x.shape) >= self._n_dropped
        return x * kept.to(x.dtype).mul_(_BYTES / (_BYTES - self._n_dropped))


class PiecewiseLinear(nn.Module):
    """Columns beside their piecewise-linear encoding, which lets a network bend at every knot.

    Column x with knots ``k_0 <= ... <= k_T`` is followed by the T numbers
    ``2 clip((x - k_t) / (k_(t+1) - k_t), 0, 1) - 1``; where knots coincide the number is a step.

    Parameters
    ----------
    knots : array of shape (n_features, T + 1)
        In rising order, of each column.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.modules import PiecewiseLinear
    >>> PiecewiseLinear([[0.0, 1.0, 3.0]])(torch.tensor([[0.5], [2.0]]))
    tensor([[ 0.5000,  0.0000, -1.0000],
            [ 2.0000,  1.0000,  0.0000]])
    """

    #: Whether the members of an ensemble, whose knots are stacked, all have the same.
    same_for_all = True
    knots: Tensor

    def __init__(self, knots: ArrayLike | Tensor):
        super().__init__()
        self.register_buffer("knots", torch.as_tensor(knots, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, [members,] n_features) to (rows, [members,] n_features * (T + 1))."""
        knots = self.knots[0] if self.knots.ndim == 3 and self.same_for_all else self.knots
        start, end = knots[..., :-1], knots[..., 1:]
        passed = (x.unsqueeze(-1) - start) / (end - start).clamp(min=1e-6)
        return torch.cat([x, (2 * passed.clamp(0, 1) - 1).flatten(-2)], dim=-1)


def knots_of_a_column(n_knots: int, n_features: int) -> int:
    """Return n_knots, or fewer, but at least 2, where there are many columns."""
    return min(n_knots, max(2, _MOST_KNOTS // n_features))


def quantile_knots(X: Tensor, n_knots: int) -> Tensor:
    """Knots at equally spaced quantiles of every column, the extremes included.

    Parameters
    ----------
    X : Tensor of shape (rows, n_features)
    n_knots : int

    Returns
    -------
    Tensor of shape (n_features, n_knots)
    """
    # torch.quantile refuses large tables.
    levels = torch.linspace(0, len(X) - 1, n_knots, dtype=torch.float32).long()
    return X.sort(dim=0).values[levels].T.contiguous()


class GaussianSampler(Noisy):
    """Draws z from Normals given by natural parameters, eq. 27, by reparameterisation.

    In training every row has noise of its own. In evaluation the noise is one fixed set of
    quasi-random vectors (scrambled Sobol points through the inverse normal cdf), the same for all
    rows: predictions are deterministic and do not depend on the order of rows or on the batch.

    Parameters
    ----------
    n_features : int
        d_z, the dimension of z.
    n_draws : int, default=32
        Draws per row in evaluation.
    n_train_draws : int, default=1
        Draws per row in training.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.modules import GaussianSampler
    >>> sampler = GaussianSampler(n_features=2, n_draws=8).eval()
    >>> sampler(torch.tensor([[[0.0, -0.5], [3.0, -0.5]]])).shape
    torch.Size([1, 8, 2])
    """

    noise: Tensor

    def __init__(self, n_features: int, n_draws: int = 32, n_train_draws: int = 1):
        super().__init__()
        self.n_train_draws = n_train_draws
        noise = torch.empty(n_draws, n_features, dtype=torch.float32)
        # On the meta device modules have shapes alone, and points would take memory.
        if not noise.is_meta:
            engine = SobolEngine(n_features, scramble=True, seed=0)
            # The engine rounds the first point to the default dtype of the process.
            first = (engine.quasi.double() / 2**engine.MAXBIT).float()
            points = engine.draw(n_draws, dtype=torch.float64)
            points[0] = first
            # Sobol points may touch 0, where the quantile is infinite.
            noise = torch.special.ndtri(points.clamp(1e-6, 1 - 1e-6)).float()
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, eta: Tensor) -> Tensor:
        """Map natural parameters (rows, ..., d_z, 2) to draws (rows, ..., draws, d_z)."""
        mean, variance = (moment.unsqueeze(-2) for moment in Normal.moments(eta))
        if self.training:
            shape = *mean.shape[:-2], self.n_train_draws, mean.shape[-1]
            noise = torch.empty_like(mean.expand(shape)).normal_(generator=self.generator)
        else:
            noise = self.noise
        return mean + variance.sqrt() * noise


class GaussianEmbedding(nn.Module):
    """Natural parameters of q(z given x), a Normal with diagonal covariance, eq. 27.

    Parameters
    ----------
    trunk : Module
        Maps x to the mean of z, (rows, d_z).
    spread : Module
        Maps the mean, or x itself if `separate`, to the unconstrained variance, (rows, d_z).
    separate : bool
        Whether `spread` is a network of its own.
    """

    def __init__(self, trunk: nn.Module, spread: nn.Module, separate: bool):
        super().__init__()
        self.trunk = trunk
        self.spread = spread
        self.separate = separate

    def forward(self, x: Tensor) -> Tensor:
        """Map x (rows, n_features) to natural parameters (rows, d_z, 2)."""
        mean = self.trunk(x)
        spread = self.spread(x if self.separate else mean)
        return _EMBEDDING.natural(stack_parameters(mean, spread))


class MLP(nn.Module):
    """Multilayer perceptron that returns natural parameters.

    It is `head(embedding(x))`; mixing at the hidden layer hooks the submodule `embedding`. With a
    random embedding this returns natural parameters of q(z given x), and a submodule `sampler`
    stands between the two.

    Parameters
    ----------
    n_features : int
        Columns of x.
    n_outputs : int, default=1
        Columns of y.
    family : str or Family, default="normal"
        What the outputs are natural parameters of.
    hidden_layer_sizes : sequence of int, default=(128, 64)
        May be empty: a linear network.
    activation : {"relu", "silu", "gelu", "elu", "tanh"}, default="relu"
    dropout : float, default=0.0
        Probability that a hidden unit is dropped in training.
    mixing_layer : int, default=1
        Number of hidden layers that form the embedding.
    embedding : {"point", "gaussian", "gaussian-separate"}, default="point"
        Activations; or a Normal over z whose variance shares the trunk with its mean, or comes
        from a network of 64 units of its own (M-ProbMix*).
    n_draws, n_train_draws : int, default=32 and 1
        Draws of a random embedding per row, in evaluation and in training.
    knots : array of shape (n_features, n_knots) or None, default=None
        Encode the columns of x by :class:`PiecewiseLinear` first.
    generator : torch.Generator or None, default=None
        Source of the initial weights and of what is drawn in training; None is torch's global
        one.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.modules import MLP
    >>> MLP(n_features=4, n_outputs=2, family="gamma")(torch.zeros(10, 4)).shape
    torch.Size([10, 2, 2])
    """

    #: An ensemble may call `forward` once, with the weights of all members stacked on axis 0, and x
    #: of shape (rows, members or 1, n_features).
    stacks = True

    def __init__(
        self,
        n_features: int,
        n_outputs: int = 1,
        family: str | Family = "normal",
        hidden_layer_sizes: Sequence[int] = (128, 64),
        activation: str = "relu",
        dropout: float = 0.0,
        mixing_layer: int = 1,
        embedding: str = "point",
        n_draws: int = 32,
        n_train_draws: int = 1,
        knots: ArrayLike | Tensor | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.encoder: PiecewiseLinear | None = None
        if knots is not None:
            self.encoder = PiecewiseLinear(knots)
            n_features = self.encoder.knots.numel()
        self.family = get_family(family)
        self.n_outputs = n_outputs
        sizes = [n_features, *hidden_layer_sizes]
        if embedding != "point" and not 1 <= mixing_layer < len(sizes):
            raise ValueError(
                f"mixing_layer={mixing_layer!r} with {len(sizes) - 1} hidden layers; a random "
                "embedding needs at least 1 and at most as many as there are."
            )
        layers = [
            [
                Linear(width, next_width, generator),
                ACTIVATIONS[activation](),
                *([Dropout(dropout)] if dropout else []),
            ]
            for width, next_width in pairwise(sizes)
        ]
        trunk = nn.Sequential(*chain(*layers[:mixing_layer]))
        n_varying = self.family.n_params - self.family.n_shared
        self.head = nn.Sequential(
            *chain(*layers[mixing_layer:]), Linear(sizes[-1], n_outputs * n_varying, generator)
        )
        n_shared = self.family.n_shared
        # Whoever averages gradients waits for one of each parameter that asks for it.
        self.shared = nn.Parameter(
            torch.zeros(n_outputs, n_shared, dtype=torch.float32), requires_grad=n_shared > 0
        )
        self.embedding: nn.Module = trunk
        self.sampler: GaussianSampler | None = None
        if embedding != "point":
            width = sizes[mixing_layer]
            spread: nn.Module = Linear(width, width, generator)
            if embedding == "gaussian-separate":
                spread = nn.Sequential(
                    Linear(n_features, 64, generator),
                    ACTIVATIONS[activation](),
                    Linear(64, width, generator),
                )
            nn.init.constant_(list(spread.parameters())[-1], _INITIAL_SPREAD)
            self.embedding = GaussianEmbedding(trunk, spread, embedding == "gaussian-separate")
            self.sampler = GaussianSampler(width, n_draws, n_train_draws)
        use_generator(self, generator)
        smallest = min(m.weight.numel() for m in self.modules() if isinstance(m, Linear))
        #: In evaluation the bits of a row are the same in any multiple of so many rows.
        self.row_block = _WHOLE_VECTORS * math.ceil(_SMALL_PRODUCT / smallest / _WHOLE_VECTORS)

    def forward(self, X: Tensor) -> Tensor:
        """Map x (rows, ..., n_features) to eta (rows, ..., [draws,] n_outputs, n_params)."""
        if self.encoder is not None:
            X = self.encoder(X)
        z = self.embedding(X)
        if self.sampler is not None:
            z = self.sampler(z)
        raw = self.head(z).unflatten(-1, (self.n_outputs, -1))
        if self.family.n_shared:
            # Of stacked members the shared parameters lack the axis of the draws.
            shared = self.shared if self.sampler is None else self.shared.unsqueeze(-3)
            raw = torch.cat([raw, shared.expand(*raw.shape[:-1], -1)], dim=-1)
        return self.family.natural(raw)
