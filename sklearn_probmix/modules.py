"""Networks that return natural parameters: the MLP, the sampler of embeddings, the ensemble."""

from __future__ import annotations

import copy
import logging
import math
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.quasirandom import SobolEngine

from sklearn_probmix.families import Family, Normal, get_family, stack_parameters
from sklearn_probmix.pooling import Mixture

__all__ = [
    "MLP",
    "Ensemble",
    "GaussianSampler",
    "PiecewiseLinear",
    "knots_of_a_column",
    "quantile_knots",
]

logger = logging.getLogger(__name__)

ACTIVATIONS = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}

# Knots of all columns together: 65 of each of 16. More would cost wide tables time and memory.
_MOST_KNOTS = 1040
# The embedding starts out nearly deterministic, with a variance of softplus(-3) = .05.
_INITIAL_SPREAD = -3.0
_EMBEDDING = Normal(variance_floor=1e-8)


class Linear(nn.Linear):
    """Affine map, of one network or, with stacked weights, of all members of an ensemble.

    Weights (members, n_out, n_in) map x of shape (rows, members, ..., n_in). In memory the members
    come first, as batched products of matrices want them. The weights stand on the left of the
    product: with stacked ones their gradient then needs no copy, and in evaluation the last bits
    of a row do not depend on its place, as they do in some libraries' products where `n_in` is odd
    and `n_out` small.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, [members,] ..., n_in) to (rows, [members,] ..., n_out)."""
        if self.weight.ndim == 2 and self.training:
            return super().forward(x)
        if self.weight.ndim == 2:
            flat = x.flatten(0, -2).T
            product = torch.addmm(self.bias.unsqueeze(1), self.weight, flat)
            return product.T.unflatten(0, x.shape[:-1])
        flat = x.movedim(1, 0).flatten(1, -2)
        product = torch.baddbmm(self.bias.unsqueeze(2), self.weight, flat.transpose(1, 2))
        product = product.transpose(1, 2).unflatten(1, (len(x), *x.shape[2:-1]))
        return product.movedim(0, 1)


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

    def __init__(self, knots):
        super().__init__()
        self.register_buffer("knots", torch.as_tensor(knots, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, [members,] n_features) to (rows, [members,] n_features * (T + 1))."""
        start, end = self.knots[..., :-1], self.knots[..., 1:]
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
    levels = torch.linspace(0, len(X) - 1, n_knots).long()
    return X.sort(dim=0).values[levels].T.contiguous()


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
        """Map natural parameters (rows, ..., d_z, 2) to draws (rows, ..., draws, d_z)."""
        mean, variance = (moment.unsqueeze(-2) for moment in Normal.moments(eta))
        if self.training:
            shape = *mean.shape[:-2], self.n_train_draws, mean.shape[-1]
            noise = torch.randn_like(mean.expand(shape))
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
        As in :class:`GaussianSampler`.
    knots : array of shape (n_features, n_knots) or None, default=None
        Encode the columns of x by :class:`PiecewiseLinear` first.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.modules import MLP
    >>> MLP(n_features=4, n_outputs=2, family="gamma")(torch.zeros(10, 4)).shape
    torch.Size([10, 2, 2])
    """

    #: Whether an ensemble may call `forward` once, with the weights of all members stacked and x
    #: of shape (rows, members, n_features).
    stacks = True

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
        knots=None,
    ):
        super().__init__()
        self.encoder = None
        if knots is not None:
            self.encoder = PiecewiseLinear(knots)
            n_features = self.encoder.knots.numel()
        self.family: Family = get_family(family)
        self.n_outputs = n_outputs
        sizes = [n_features, *hidden_layer_sizes]
        if embedding != "point" and not 1 <= mixing_layer < len(sizes):
            raise ValueError(
                f"mixing_layer={mixing_layer!r} with {len(sizes) - 1} hidden layers; a random "
                "embedding needs at least 1 and at most as many as there are."
            )
        layers = [
            [
                Linear(width, next_width),
                ACTIVATIONS[activation](),
                *([nn.Dropout(dropout)] if dropout else []),
            ]
            for width, next_width in pairwise(sizes)
        ]
        trunk = nn.Sequential(*chain(*layers[:mixing_layer]))
        n_varying = self.family.n_params - self.family.n_shared
        self.head = nn.Sequential(
            *chain(*layers[mixing_layer:]), Linear(sizes[-1], n_outputs * n_varying)
        )
        self.shared = nn.Parameter(torch.zeros(n_outputs, self.family.n_shared))
        self.embedding, self.sampler = trunk, None
        if embedding != "point":
            width = sizes[mixing_layer]
            spread = Linear(width, width)
            if embedding == "gaussian-separate":
                spread = nn.Sequential(
                    Linear(n_features, 64), ACTIVATIONS[activation](), Linear(64, width)
                )
            nn.init.constant_(list(spread.parameters())[-1], _INITIAL_SPREAD)
            self.embedding = GaussianEmbedding(trunk, spread, embedding == "gaussian-separate")
            self.sampler = GaussianSampler(width, n_draws, n_train_draws)

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


class Ensemble(nn.Module):
    """Networks of one kind that run in one pass, their weights stacked on a first axis.

    The :class:`MLP` takes stacked weights as they are; other modules go through
    :func:`torch.func.vmap`, and what that cannot batch (LSTM, GRU, data-dependent control flow)
    is looped over, with the same result.

    Parameters
    ----------
    module : callable
        Makes one member.
    n_members : int
    own_rows : bool, default=False
        Whether every member has rows of its own: x is then (rows, n_members, ...).
    **kwargs
        Arguments of `module`.

    Attributes
    ----------
    template : Module
        A member without weights of its own, whose submodules may be hooked.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.modules import MLP, Ensemble
    >>> Ensemble(MLP, n_members=5, n_features=4)(torch.zeros(10, 4)).shape
    torch.Size([10, 5, 1, 2])
    """

    def __init__(self, module, n_members, own_rows=False, **kwargs):
        super().__init__()
        self.own_rows = own_rows
        members = [module(**kwargs) for _ in range(n_members)]
        parameters, buffers = stack_module_state(members)
        self.n_members = n_members
        # Weights that are shared within a member would be left in the template as vmap saw them.
        every = [*members[0].named_parameters(remove_duplicate=False)]
        self.vectorised = None if len(every) == len(parameters) else False
        # In a tuple, so that its weights, which are replaced in every call, are not registered.
        self._template = (copy.deepcopy(members[0]).to("meta"),)
        # A subclass may have a forward pass of its own, for which this does not hold.
        self.stacks = vars(type(members[0])).get("stacks", False)
        # Names of modules have dots, those of parameters may not.
        self._attributes = {
            name: "member_" + name.replace(".", "__") for name in (*parameters, *buffers)
        }
        for name, value in parameters.items():
            weight = nn.Parameter(value.detach(), requires_grad=value.requires_grad)
            self.register_parameter(self._attributes[name], weight)
        persistent = members[0].state_dict().keys()
        for name, value in buffers.items():
            self.register_buffer(self._attributes[name], value, persistent=name in persistent)

    @property
    def template(self):
        """Return the member without weights."""
        return self._template[0]

    def train(self, mode: bool = True):
        """Set the mode of the members too."""
        self.template.train(mode)
        return super().train(mode)

    def forward(self, X: Tensor) -> Tensor | Mixture:
        """Map x (rows, ...) to natural parameters (rows, members * components, ...).

        The components of a member are consecutive.
        """
        return self._flatten(self._map(X, 1 if self.own_rows else None))

    def each(self, X: Tensor) -> Tensor | Mixture:
        """Map every member's own x (rows, members, ...); the result is as of `forward`."""
        return self._flatten(self._map(X, 1))

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return what `load_state_dict` of the same module outside of an ensemble takes."""
        state = self.state_dict()
        return {
            name: state[attribute][member]
            for name, attribute in self._attributes.items()
            if attribute in state
        }

    def _map(self, X, axis):
        state = {name: getattr(self, attribute) for name, attribute in self._attributes.items()}

        def run(state, x):
            return functional_call(self.template, state, (x,))

        if self.stacks and self.vectorised is not False:
            self.vectorised = True
            if axis is None:
                X = X.unsqueeze(1).expand(-1, self.n_members, *X.shape[1:])
            return functional_call(self.template, state, (X,))
        if self.vectorised is not False:
            try:
                outputs = vmap(run, in_dims=(0, axis), out_dims=1, randomness="different")(state, X)
            except RuntimeError as error:
                if self.vectorised:
                    raise
                self.vectorised = False
                logger.info("The members are looped over: vmap cannot batch them (%s).", error)
            else:
                self.vectorised = True
                return outputs
        outputs = [
            run(
                {name: value[member] for name, value in state.items()},
                X if axis is None else X.select(axis, member),
            )
            for member in range(self.n_members)
        ]
        if isinstance(outputs[0], tuple):
            return Mixture(*(torch.stack(parts, dim=1) for parts in zip(*outputs, strict=True)))
        return torch.stack(outputs, dim=1)

    def _flatten(self, outputs):
        if isinstance(outputs, tuple):
            eta, log_weights = outputs
            return Mixture(eta.flatten(1, 2), log_weights.flatten(1, 2) - math.log(self.n_members))
        return outputs.flatten(1, 2) if outputs.ndim == 5 else outputs
