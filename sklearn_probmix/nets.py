"""Nets of one kind of network: how they are made, copied and asked for natural parameters."""

from __future__ import annotations

import copy
import inspect
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import get_len
from skorch.history import History
from skorch.utils import TeeGenerator

from sklearn_probmix.criterion import NegativeLogLikelihood
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import Family
from sklearn_probmix.kernel import KernelNetwork
from sklearn_probmix.kinds import METHODS, Kind
from sklearn_probmix.modules import MLP, knots_of_a_column, quantile_knots
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.table import Division, Table

__all__ = [
    "AdamW",
    "Common",
    "TabularNet",
    "as_mixture",
    "check_unchanged",
    "copy_of",
    "fit_context",
    "held_out_parameters",
    "initialize",
    "initialized_net",
    "knots_of",
    "natural_parameters",
    "new_net",
    "own_generator",
    "refuse_change",
    "spread",
    "weight_decay_of",
]

# Rows of one forward pass in prediction. The last chunk is padded, to a multiple of what our own
# module says and otherwise to this number, so that a row's bits do not depend on other rows.
_CHUNK = 256


# Rows of a large table by which knots are placed.
_ENOUGH_FOR_KNOTS = 100_000


class Common(NamedTuple):
    """What all kinds of network of a fit share."""

    family: Family
    n_features: int
    n_outputs: int
    n_members: int = 1
    net: NeuralNet | None = None
    """One's own, unfitted."""
    device: str = "cpu"
    callbacks: Sequence[Callback] = ()
    verbose: int = 0
    watch: Callable[[], None] | None = None
    """Called after every step of our own networks."""


class AdamW(torch.optim.AdamW):
    """AdamW without its wrappers, the first of which to be called imports torch's compiler."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)


class TabularNet(NeuralNet):
    """A net of our own modules, without what costs time in every small batch and is of no use here.

    Attributes
    ----------
    generator : torch.Generator or None
        What a new module draws from.
    loader : iterable or None
        Of a training that goes on: it has found the neighbours, and draws on.
    watch : callable or None
        Called after every step.
    """

    generator: torch.Generator | None = None
    loader: Any = None
    watch: Callable[[], None] | None = None

    def initialize_module(self) -> TabularNet:
        """Make the module; its source of draws is no parameter, since it is used up."""
        parameters = self.get_params_for("module") | {"generator": self.generator}
        self.module_ = self.initialized_instance(self.module, parameters)
        return self

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Keep the loader of training rows until training ends."""
        if not training:
            return super().get_iterator(dataset, training)
        if self.loader is None:
            self.loader = super().get_iterator(dataset, training)
        return self.loader

    def __getstate__(self):
        return super().__getstate__() | {"generator": None, "loader": None, "watch": None}

    def get_default_callbacks(self) -> list[tuple[str, Callback]]:
        """Leave out the log that is not printed and the loss that another callback records."""
        unused = {"valid_loss"} if self.verbose else {"valid_loss", "print_log"}
        return [named for named in super().get_default_callbacks() if named[0] not in unused]

    def infer(self, x: torch.Tensor, **fit_params: Any) -> torch.Tensor | Mixture:
        """Run the module; the loaders yield tensors already."""
        return self.module_(x.to(self.device))

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Compute the loss of a batch."""
        return self.criterion_(y_pred, y_true)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Make an epoch, whose losses are asked for at its end: to ask is to wait for them."""
        if iterator is None:
            return
        batches = []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            self.history.record_batch(f"{prefix}_loss", step["loss"].detach())
            self.history.record_batch(f"{prefix}_batch_size", get_len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
            batches.append(self.history[-1]["batches"][-1])
        losses = [record[f"{prefix}_loss"] for record in batches]
        for record, loss in zip(batches, torch.stack(losses).tolist(), strict=True):
            record[f"{prefix}_loss"] = loss
        self.history.record(f"{prefix}_batch_count", len(batches))

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Make one step of an optimiser that evaluates the loss once, unlike LBFGS."""
        self._zero_grad_optimizer()
        step = self.train_step_single(batch, **fit_params)
        if any(
            type(cb).on_grad_computed is not Callback.on_grad_computed for _, cb in self.callbacks_
        ):
            parameters = TeeGenerator(self.get_all_learnable_params())
            self.notify("on_grad_computed", named_parameters=parameters, batch=batch, training=True)
        self._step_optimizer(None)
        if self.watch is not None:
            self.watch()
        return step

    def _set_training(self, training=True):
        if self.module_.training != training or self.criterion_.training != training:
            super()._set_training(training)


# Torch's global generator, which modules of a user draw from, is one for all threads. A forked
# child must not wait for a thread it lacks.
_GENERATOR = threading.RLock()


def _renew_lock():
    global _GENERATOR
    _GENERATOR = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def own_generator(seed: int = 0, device: str | torch.device | None = "cpu") -> Iterator[None]:
    """Seed torch's global generators for a while, and leave them as they were."""
    kind = torch.device(device or "cpu").type
    devices = range(torch.cuda.device_count()) if kind == "cuda" else []
    # The other seeds the generators of all devices.
    seed_here = torch.default_generator.manual_seed if kind == "cpu" else torch.manual_seed
    with _GENERATOR, torch.random.fork_rng(devices=devices):
        seed_here(seed)
        yield


def new_net(
    kind: Kind, common: Common, table: Table | None = None, division: Division | None = None
) -> NeuralNet:
    """Make the net, not yet initialised: the user's own, or one of the MLP.

    Knots are quantiles of the training rows, or zeros where they will be filled in.
    """
    sizes = {
        "family": common.family,
        "n_features": common.n_features,
        "n_outputs": common.n_outputs,
    }
    if common.net is not None:
        net = _own_net(common, sizes)
    else:
        knots = None if kind.n_knots is None else _knots(kind, common, table, division)
        net = _tabular_net(kind, common, sizes | {"knots": knots})
    if common.n_members > 1:
        net.set_params(
            module=Ensemble, module__module=net.module, module__n_members=common.n_members
        )
    return net.set_params(
        criterion=NegativeLogLikelihood,
        criterion__family=common.family,
        criterion__n_members=common.n_members,
        criterion__variance_weighting=kind.variance_weighting,
    )


def initialized_net(kind: Kind, common: Common) -> NeuralNet:
    """Make a net whose weights are to be replaced; no generator is left moved."""
    net = new_net(kind, common)
    with own_generator() if common.net is not None else nullcontext():
        initialize(net, torch.Generator())
    net.module_.eval()
    return net


def initialize(net: NeuralNet, generator: torch.Generator | None) -> None:
    """Initialise a net; modules of our own draw from the generator."""
    if isinstance(net, TabularNet):
        net.generator = generator
    net.initialize()
    if isinstance(net, TabularNet):
        net.generator = None


def copy_of(net: NeuralNet, common: Common) -> NeuralNet:
    """Copy what training changes, to where it is to be."""
    if not isinstance(net, TabularNet):
        return copy.deepcopy(net)
    # Many times quicker than a deep copy, for which skorch writes all to a temporary file.
    new = object.__new__(type(net))
    changed = {"history_": History(net.history), "device": common.device}
    new.__dict__.update(vars(net) | changed)
    new.module_ = copy.deepcopy(net.module_).to(common.device)
    new.initialize_optimizer()
    new.optimizer_.load_state_dict(copy.deepcopy(net.optimizer_.state_dict()))
    return new


def fit_context(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Give a module that keeps rows as many as there are in a state that it is to take."""
    keys = [value for name, value in state.items() if name.endswith("keys")]
    if isinstance(module, KernelNetwork) and keys:
        module.allocate(keys[0].shape[-2])


def check_unchanged(net: NeuralNet, kind: Kind, common: Common) -> None:
    """Raise a ValueError if a trained net is not made as a new one of this kind would be."""
    old, new = _arguments(net), _arguments(new_net(kind, common))
    for name in old | new:
        if _differ(old.get(name), new.get(name)):
            refuse_change(name, old.get(name), new.get(name))


def refuse_change(name: str, old: Any, new: Any) -> NoReturn:
    """Say which parameter asks for other networks than the trained ones."""
    raise ValueError(
        f"the parameters were changed since fit: they ask for networks of {name}={new!r}, the "
        f"fitted ones have {old!r}. Set it back, or fit anew."
    )


def _arguments(net):
    """Return what a net is made of; of an ensemble, `module` is that of the members.

    Arrays, which a module keeps as it keeps weights, are told by their shapes.
    """
    made = {"optimizer": net.optimizer, "module": net.module}
    made |= net.get_params_for("criterion") | net.get_params_for("module")
    arrays = (torch.Tensor, np.ndarray)
    return {name: [*x.shape] if isinstance(x, arrays) else x for name, x in made.items()}


def _differ(old, new):
    if isinstance(old, torch.nn.Module):
        return type(old) is not type(new)
    return old != new


def _own_net(common, sizes):
    net = clone(common.net)
    if isinstance(net.module, torch.nn.Module) and common.n_members > 1:
        raise ValueError(
            f"n_members={common.n_members} with an instance of {type(net.module).__name__} in "
            "net; expected the module's class, of which each member is made."
        )
    accepted, given = inspect.signature(net.module).parameters, net.get_params()
    module = {f"module__{name}": value for name, value in sizes.items() if name in accepted}
    return net.set_params(**{name: value for name, value in module.items() if name not in given})


def _tabular_net(kind, common, sizes):
    random = {}
    if METHODS[kind.method].random_embedding:
        separate = kind.embedding_variance == "separate"
        random = {
            "embedding": "gaussian-separate" if separate else "gaussian",
            "n_draws": kind.n_draws,
            "n_train_draws": kind.n_train_draws,
        }
    module = sizes | {
        "hidden_layer_sizes": tuple(kind.hidden_layer_sizes),
        "activation": kind.activation,
        "dropout": kind.dropout,
    }
    if kind.network == "mlp":
        module |= {"mixing_layer": kind.mixing_layer, **random}
    else:
        module["local"] = kind.local
    return TabularNet(
        MLP if kind.network == "mlp" else KernelNetwork,
        NegativeLogLikelihood,
        optimizer=AdamW,
        optimizer__weight_decay=weight_decay_of(kind, common),
        optimizer__fused=True,
        lr=kind.lr,
        device=common.device,
        iterator_train__shuffle=True,
        **{f"module__{name}": value for name, value in module.items()},
    )


def weight_decay_of(kind: Kind, common: Common) -> float:
    """Return the weight decay of an optimiser, the less the more a row says."""
    return kind.weight_decay / common.family.information


def _knots(kind, common, table, division):
    n_knots = knots_of_a_column(kind.n_knots, common.n_features)
    if table is None:
        return torch.zeros(common.n_features, n_knots, dtype=torch.float32)
    return knots_of(table, division.train, n_knots)


def knots_of(table: Table, rows: torch.Tensor, n_knots: int) -> torch.Tensor:
    """Return quantiles of the columns, of rows of which those below 0 are none."""
    X = table.X[spread(rows[rows >= 0].unique(), _ENOUGH_FOR_KNOTS)]
    return quantile_knots(X.flatten(0, -2).cpu(), n_knots)


def spread(rows: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Return about so many of these rows, or fewer, evenly spread."""
    return rows[:: math.ceil(len(rows) / n_rows)]


def as_mixture(output: torch.Tensor | Mixture) -> Mixture:
    """Give the components of a module's output an axis and weights."""
    if isinstance(output, tuple):
        return Mixture(*output)
    eta = output if output.ndim == 4 else output.unsqueeze(1)
    return Mixture(eta, eta.new_zeros(eta.shape[:2]).log_softmax(-1))


def natural_parameters(net: NeuralNet, X: torch.Tensor) -> Mixture:
    """Natural parameters of the predictive density of every row.

    Parameters
    ----------
    net : NeuralNet
        An initialised net.
    X : Tensor of shape (rows, ...)

    Returns
    -------
    Mixture
        `eta` of shape (rows, components, n_outputs, n_params) on the CPU.
    """
    if net.module_.training:
        net.module_.eval()
    on_cpu = isinstance(net, TabularNet) and torch.device(net.device).type == "cpu"
    block = net.module_.row_block if on_cpu else _CHUNK
    chunks = []
    with torch.no_grad():
        for rows in X.to(net.device).split(_CHUNK):
            padding = rows.new_zeros(-len(rows) % block, *rows.shape[1:])
            output = as_mixture(net.infer(torch.cat([rows, padding])))
            chunks.append([value[: len(rows)] for value in output])
    return Mixture(*(torch.cat(parts).cpu() for parts in zip(*chunks, strict=True)))


def held_out_parameters(net: NeuralNet, table: Table, division: Division) -> Mixture:
    """Natural parameters of all rows of a table, by the members that hold a row out.

    Parameters
    ----------
    net : NeuralNet
        Of an ensemble.
    table : Table
    division : Division
        Of folds.

    Returns
    -------
    Mixture
        Of the members that hold a row out, of equal weight; `eta` of shape (rows, components,
        n_outputs, n_params) on the CPU.
    """
    valid: Any = division.valid
    X = table.X.to(net.device)
    holders = division.holders(len(table.y))
    net.module_.eval()
    chunks = []
    with torch.no_grad():
        for rows in valid.to(X.device).split(_CHUNK):
            padding = rows.new_zeros(-len(rows) % _CHUNK, rows.shape[1])
            output = as_mixture(net.module_.each(X[torch.cat([rows, padding])]))
            chunks.append([value[: len(rows)] for value in output])
    eta, log_weights = (torch.cat(parts).cpu() for parts in zip(*chunks, strict=True))
    # Where in a member's column each row stands.
    position = torch.zeros(len(table.y), valid.shape[1], dtype=torch.long)
    for member, rows in enumerate(valid.T):
        own = rows[rows >= 0]
        position[own, member] = torch.arange(len(own))
    position = position.gather(1, holders)
    parts = (
        part.unflatten(1, (valid.shape[1], -1))[position, holders] for part in (eta, log_weights)
    )
    eta, log_weights = (part.flatten(1, 2) for part in parts)
    return Mixture(eta, log_weights.log_softmax(-1))
