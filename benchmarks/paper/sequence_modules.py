"""Recurrent and attention networks for windows of prices, as modules of one's own for `net=`.

Both map windows (rows, days, n_features) to natural parameters. Their submodule `embedding` ends
in an embedding of 64 numbers: activations, or for M-ProbMix the natural parameters of a Normal.
"""

from __future__ import annotations

import math

import torch
from skorch import NeuralNet
from torch import nn

from sklearn_probmix import NegativeLogLikelihood, get_family
from sklearn_probmix.modules import GaussianSampler

__all__ = ["LSTMEncoder", "SequenceNet", "TransformerEncoder", "make_net"]

# The embedding starts out nearly deterministic, as that of the package's own network does.
_INITIAL_SPREAD = -3.0


class LSTMEncoder(nn.Module):
    """The last hidden state of an LSTM.

    Parameters
    ----------
    n_features : int
    width : int, default=64
    """

    def __init__(self, n_features, width=64):
        super().__init__()
        self.lstm = nn.LSTM(n_features, width, batch_first=True)

    def forward(self, X):
        """Map (rows, days, n_features) to (rows, width)."""
        return self.lstm(X)[1][0][-1]


class TransformerEncoder(nn.Module):
    """Two layers of encoder and two of decoder, which is asked one learned query.

    Parameters
    ----------
    n_features : int
    width : int, default=64
    """

    def __init__(self, n_features, width=64):
        super().__init__()
        self.project = nn.Linear(n_features, width)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = nn.Transformer(
            d_model=width,
            nhead=2,
            num_encoder_layers=2,
            num_decoder_layers=2,
            dim_feedforward=width,
            dropout=0.0,
            batch_first=True,
        )

    def forward(self, X):
        """Map (rows, days, n_features) to (rows, width)."""
        z = self.project(X)
        z = z + _positions(*z.shape[1:])
        return self.transformer(z, self.query.expand(len(X), -1, -1))[:, 0]


def _positions(n_days, width):
    """Sines and cosines of the day, (n_days, width)."""
    day = torch.arange(n_days)[:, None]
    angle = day * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


ENCODERS = {"lstm": LSTMEncoder, "transformer": TransformerEncoder}


class _Embedding(nn.Module):
    def __init__(self, encoder, width, is_random):
        super().__init__()
        self.encoder = encoder
        self.mean = nn.Linear(width, width)
        self.normal = get_family("normal", variance_floor=1e-8)
        self.spread = None
        if is_random:
            self.spread = nn.Linear(width, width)
            nn.init.constant_(self.spread.bias, _INITIAL_SPREAD)

    def forward(self, X):
        h = torch.relu(self.encoder(X))
        mean = self.mean(h)
        if self.spread is None:
            return mean
        return self.normal.natural(torch.stack([mean, self.spread(h)], dim=-1))


class SequenceNet(nn.Module):
    """An encoder of sequences, an embedding and a linear head.

    Parameters
    ----------
    n_features : int
        Columns of a day.
    family : Family
    encoder : {"lstm", "transformer"}, default="lstm"
    width : int, default=64
        Of the encoder and of the embedding.
    random_embedding : bool, default=False
        Whether the embedding is a Normal, as M-ProbMix wants it.
    n_draws : int, default=32
        Draws of a random embedding in prediction.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix import get_family
    >>> net = SequenceNet(4, get_family("normal"), random_embedding=True).eval()
    >>> net(torch.zeros(10, 42, 4)).shape
    torch.Size([10, 32, 1, 2])
    """

    def __init__(
        self, n_features, family, encoder="lstm", width=64, random_embedding=False, n_draws=32
    ):
        super().__init__()
        self.family = family
        self.embedding = _Embedding(ENCODERS[encoder](n_features, width), width, random_embedding)
        self.sampler = GaussianSampler(width, n_draws) if random_embedding else None
        self.head = nn.Linear(width, family.n_params)

    def forward(self, X):
        """Map (rows, days, n_features) to eta (rows, [draws,] 1, n_params)."""
        z = self.embedding(X)
        if self.sampler is not None:
            z = self.sampler(z)
        return self.family.natural(self.head(torch.relu(z)).unsqueeze(-2))


def make_net(encoder, method, *, lr, max_epochs, batch_size):
    """Return the unfitted net of a method, for `ProbMixupRegressor(net=...)`.

    Parameters
    ----------
    encoder : {"lstm", "transformer"}
    method : str
        As in `ProbMixupRegressor`.
    lr : float
        Of Adam.
    max_epochs, batch_size : int

    Returns
    -------
    skorch.NeuralNet
    """
    return NeuralNet(
        SequenceNet,
        module__encoder=encoder,
        module__random_embedding=method == "m-probmix",
        criterion=NegativeLogLikelihood,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=batch_size,
        iterator_train__shuffle=True,
    )
