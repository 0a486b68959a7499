"""Networks that return natural parameters: the MLP and the sampler of random embeddings."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from sklearn_probmix.families import Family, Normal, get_family

__all__ = ["MLP", "GaussianSampler"]

ACTIVATIONS = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}

# The embedding starts out nearly deterministic, with a variance of softplus(-3) = .05.
_INITIAL_SPREAD = -3.0
_EMBEDDING = Normal(variance_floor=1e-8)


class GaussianSampler(nn.Module):
    """Draws z from Normals given by natural parameters, eq. 27, by reparameterisation.

    In training every row has noise of its own, from torch's global generator as in dropout. In
    evaluation the noise is one fixed set of quasi-random vectors (scrambled Sobol points through
    the inverse normal cdf), the same for all rows: predictions are deterministic and do not
    depend on the order of rows or on the batch.

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

    def __init__(self, n_features: int, n_draws: int = 32, n_train_draws: int = 1):
        super().__init__()
        self.n_train_draws = n_train_draws
        points = SobolEngine(n_features, scramble=True, seed=0).draw(n_draws, dtype=torch.float64)
        # Sobol points may touch 0, where the quantile is infinite.
        noise = torch.special.ndtri(points.clamp(1e-6, 1 - 1e-6)).float()
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, eta: Tensor) -> Tensor:
        """Map natural parameters (rows, d_z, 2) to draws (rows, draws, d_z)."""
        mean, variance = (moment.unsqueeze(1) for moment in Normal.moments(eta))
        if self.training:
            noise = torch.randn_like(mean.expand(-1, self.n_train_draws, -1))
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
        return _EMBEDDING.natural(torch.stack([mean, spread], dim=-1))


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
        As in :class:`GaussianSampler`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.modules import MLP
    >>> MLP(n_features=4, n_outputs=2, family="gamma")(torch.zeros(10, 4)).shape
    torch.Size([10, 2, 2])
    """

    def __init__(
        self,
        n_features,
        n_outputs=1,
        family="normal",
        hidden_layer_sizes=(128, 64),
        activation="relu",
        dropout=0.0,
        mixing_layer=1,
        embedding="point",
        n_draws=32,
        n_train_draws=1,
    ):
        super().__init__()
        self.family: Family = get_family(family)
        self.n_outputs = n_outputs
        sizes = [n_features, *hidden_layer_sizes]
        if embedding != "point" and not 1 <= mixing_layer < len(sizes):
            raise ValueError(
                f"mixing_layer={mixing_layer!r} with {len(sizes) - 1} hidden layers; a random "
                "embedding needs at least 1 and at most as many as there are."
            )
        layers = [
            nn.Sequential(
                nn.Linear(width, next_width),
                ACTIVATIONS[activation](),
                *([nn.Dropout(dropout)] if dropout else []),
            )
            for width, next_width in pairwise(sizes)
        ]
        trunk = nn.Sequential(*layers[:mixing_layer])
        n_varying = self.family.n_params - self.family.n_shared
        self.head = nn.Sequential(
            *layers[mixing_layer:], nn.Linear(sizes[-1], n_outputs * n_varying)
        )
        self.shared = nn.Parameter(torch.zeros(n_outputs, self.family.n_shared))
        self.embedding, self.sampler = trunk, None
        if embedding != "point":
            width = sizes[mixing_layer]
            spread = nn.Linear(width, width)
            if embedding == "gaussian-separate":
                spread = nn.Sequential(
                    nn.Linear(n_features, 64), ACTIVATIONS[activation](), nn.Linear(64, width)
                )
            nn.init.constant_(list(spread.parameters())[-1], _INITIAL_SPREAD)
            self.embedding = GaussianEmbedding(trunk, spread, embedding == "gaussian-separate")
            self.sampler = GaussianSampler(width, n_draws, n_train_draws)

    def forward(self, X: Tensor) -> Tensor:
        """Map x (rows, n_features) to eta (rows, [draws,] n_outputs, n_params)."""
        z = self.embedding(X)
        if self.sampler is not None:
            z = self.sampler(z)
        raw = self.head(z).unflatten(-1, (self.n_outputs, -1))
        if self.family.n_shared:
            raw = torch.cat([raw, self.shared.expand(*raw.shape[:-1], -1)], dim=-1)
        return self.family.natural(raw)
