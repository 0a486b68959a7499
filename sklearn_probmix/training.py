"""Training of one kind of network on a table and its division, by a skorch net."""

from __future__ import annotations

import copy
import inspect
import math
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import get_len
from skorch.history import History
from skorch.utils import TeeGenerator
from torch.utils.data import DataLoader

from sklearn_probmix.callbacks import (
    AveragedWeights,
    BestEpoch,
    EpochBar,
    LeaveOneOut,
    ProbMixup,
)
from sklearn_probmix.criterion import NegativeLogLikelihood
from sklearn_probmix.ensemble import Ensemble, template_of
from sklearn_probmix.families import Family
from sklearn_probmix.kernel import KernelNetwork
from sklearn_probmix.kinds import METHODS, Kind
from sklearn_probmix.loaders import NeighborLoader, TensorLoader
from sklearn_probmix.modules import MLP, knots_of_a_column, quantile_knots, use_generator
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.processes import part_of, unwrapped
from sklearn_probmix.table import DividedRows, Division, Table

__all__ = ["Common", "Trained", "as_mixture", "natural_parameters", "new_net", "train"]

# Rows of one forward pass in prediction. The last chunk is padded, to a multiple of what our own
# module says and otherwise to this number, so that a row's bits do not depend on other rows.
_CHUNK = 256
# Rows of a large table by which knots are placed, and by which every epoch is judged.
_ENOUGH_FOR_KNOTS, _N_JUDGES = 100_000, 2_500


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


class Trained(NamedTuple):
    """A net, and how its training went."""

    net: NeuralNet
    n_epochs: int
    best_epoch: np.ndarray
    """Number, from 1, of the epoch that was kept of each member; 0 where there is none."""
    stop_reason: str | None
    """One of "patience", "divergence", "interruption", or None after the last epoch."""

    @property
    def is_kept(self) -> bool:
        """Whether every member has weights to keep."""
        return bool(self.best_epoch.all())


#: Of a kind that an interruption kept from beginning, or from being judged.
NOT_BEGUN = Trained(cast(Any, None), 0, np.zeros(1, dtype=int), "interruption")


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


class Training:
    """One kind of network in training: epochs are made when they are asked for.

    Parameters
    ----------
    kind : Kind
        Sized to the table.
    common : Common
        With as many members as the division has.
    table : Table
    division : Division
    seed : int
        Feeds the initialisation, the order of rows, partners, lam and noise. Only modules of a user
        draw from torch's global generator, which is left as it was.
    net : NeuralNet, default=None
        An initialised net, of which a copy goes on.
    keeps_context : bool, default=False
        Whether a kernel network goes on among the rows that it had, not among those of the table.
    most_steps : int, default=None
        Of a large table: steps of an epoch, which goes on where the one before ended, and is judged
        by some of the held-out rows.

    Attributes
    ----------
    n_epochs : int
        Made so far, by this training.
    stop_reason : str or None
        Why no more epochs are made, as in :class:`Trained`; None while there may be more.
    """

    def __init__(
        self,
        kind: Kind,
        common: Common,
        table: Table,
        division: Division,
        *,
        seed: int,
        net: NeuralNet | None = None,
        keeps_context: bool = False,
        most_steps: int | None = None,
    ):
        self._rows = DividedRows(table, division.train)
        self._epochs_before = 0 if net is None else len(net.history)
        seeds = _seeds(seed, net)
        self._best = BestEpoch(
            patience=kind.n_iter_no_change,
            table=table,
            valid=_judges(table, division, most_steps),
            monitor=kind.monitor,
            family=common.family,
            fits=division.fits or (common.n_members,),
        )
        generator = None if common.net is not None else torch.Generator().manual_seed(seeds[0])
        net = new_net(kind, common, table, division) if net is None else _copy_of(net, common)
        settings = _loaders(kind, net, seeds[2], most_steps) | {
            "callbacks": _callbacks(kind, common, self._best, seeds[1]),
            "train_split": None,
            "verbose": int(common.verbose > 1),
            "max_epochs": kind.max_epochs,
        }
        if common.net is None:
            settings["batch_size"] = -1 if kind.batch_size == "full" else kind.batch_size
        # By attribute: set_params of an initialised net would build its optimiser anew.
        for name, value in settings.items():
            setattr(net, name, value)
        if net.initialized_:
            net.initialize_callbacks()
            step = {"lr": kind.lr, "weight_decay": _weight_decay(kind, common)}
            for group in net.optimizer_.param_groups:
                group |= step if common.net is None else {"lr": common.net.lr}
            if hasattr(net, "accelerator"):
                net._initialize_accelerator()
        else:
            _initialize(net, generator)
            if len(division.fits) > 1 and common.net is None and kind.n_knots is not None:
                _give_own_knots(net.module_, table, division)
        if generator and net.device != "cpu":
            # Weights are drawn on the CPU, as the net makes them there.
            generator = torch.Generator(net.device).manual_seed(seeds[0])
        whole = unwrapped(net.module_)
        if isinstance(whole, Ensemble):
            whole.own_rows = division.train.ndim == 2
        module = template_of(net.module_)
        if isinstance(module, KernelNetwork):
            if keeps_context and module.context.shape[-2]:
                module.places = _places_of_context(module, table)
            else:
                _give_context(module, table, division.train, seeds[0])
        use_generator(net.module_, generator)
        self._generator = generator
        if isinstance(net, TabularNet):
            net.watch = common.watch
        self.net = net
        net.notify("on_train_begin", X=self._rows, y=None)

    @property
    def n_epochs(self) -> int:
        return self._best.n_epochs_

    @property
    def stop_reason(self) -> str | None:
        return self._best.stop_reason_

    @property
    def is_kept(self) -> bool:
        """Whether every member has weights to keep."""
        return bool(self._best.best_epoch_.all())

    def advance(self, n_epochs: int) -> None:
        """Make more epochs, fewer where training stops.

        Parameters
        ----------
        n_epochs : int
        """
        try:
            self.net.fit_loop(self._rows, epochs=n_epochs)
        except KeyboardInterrupt as error:
            # What ends training for another reason names it before, unless it is a user's callback.
            if self._best.in_epoch_ or not self._is_of_a_user(error):
                self._best.stop_reason_ = self._best.stop_reason_ or "interruption"

    def _is_of_a_user(self, error):
        """Whether a callback of a user raised it, as skorch's EarlyStopping does, not Ctrl-C."""
        theirs = [
            callback
            for _, callback in self.net.callbacks_
            if not type(callback).__module__.startswith("sklearn_probmix.")
        ]
        raised_in = [
            frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
        return any(one is callback for one in raised_in for callback in theirs)

    def state(self) -> dict[str, Any]:
        """Return what training has changed of one of our own networks, between two epochs.

        Callbacks of a user are not part of it.

        Returns
        -------
        dict
            Of numbers, strings, lists, arrays and tensors.
        """
        net, callbacks = self.net, dict(self.net.callbacks_)
        generator: Any = self._generator
        state = {
            "module": dict(net.module_.state_dict()),
            "optimizer": net.optimizer_.state_dict(),
            "history": [dict(epoch) | {"batches": []} for epoch in net.history],
            "generator": generator.get_state(),
            "order": net.loader.state(),
        }
        for name in _CHANGED.keys() & callbacks.keys():
            state[name] = {key: getattr(callbacks[name], key) for key in _CHANGED[name]}
        if "prob_mixup" in callbacks:
            state["prob_mixup"] = callbacks["prob_mixup"].rng_.bit_generator.state
        if "cosine" in callbacks:
            state["cosine"] = callbacks["cosine"].lr_scheduler_.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned of a training with the same arguments.

        Parameters
        ----------
        state : dict
        """
        net, callbacks = self.net, dict(self.net.callbacks_)
        # In evaluation, as it was: a kernel network does not embed its context anew.
        net.module_.eval()
        net.module_.load_state_dict(state["module"])
        net.optimizer_.load_state_dict(state["optimizer"])
        net.history_ = History(state["history"])
        generator: Any = self._generator
        generator.set_state(state["generator"])
        net.get_iterator(self._rows, training=True).restore(state["order"])
        for name in _CHANGED.keys() & callbacks.keys():
            for key, value in _on(net.device, state[name]).items():
                setattr(callbacks[name], key, value)
        if "prob_mixup" in callbacks:
            callbacks["prob_mixup"].rng_.bit_generator.state = state["prob_mixup"]
        if "cosine" in callbacks:
            callbacks["cosine"].lr_scheduler_.load_state_dict(state["cosine"])

    @contextmanager
    def at_best(self) -> Iterator[NeuralNet]:
        """Lend the net with the weights of every member's best epoch so far."""
        module = self.net.module_
        latest = copy.deepcopy(module.state_dict())
        module.load_state_dict(self._best.weights_)
        try:
            yield self.net
        finally:
            module.load_state_dict(latest)

    def end(self) -> Trained:
        """Put the best weights back, and leave nothing of the training in the net."""
        net, best = self.net, self._best
        net.notify("on_train_end", X=self._rows, y=None)
        use_generator(net.module_, None)
        module = template_of(net.module_)
        if isinstance(module, KernelNetwork):
            module.places = module.own = None
        net.module_.eval()
        best.table = best.valid = None
        if isinstance(net, TabularNet):
            net.loader = net.watch = None
        elif hasattr(net, "accelerator"):
            # Which would hold all that it has wrapped.
            net.accelerator.free_memory()
            net.optimizer_ = net.optimizer_.optimizer
        for name, callback in net.callbacks_:
            if name == "cosine":
                # It holds the optimiser, which a pickle would then have twice.
                vars(callback).pop("lr_scheduler_", None)
        # An epoch that was interrupted left a row of its own.
        del net.history[self._epochs_before + best.n_epochs_ :]
        return Trained(net, best.n_epochs_, best.best_epoch_, best.stop_reason_)


def train(
    kind: Kind,
    common: Common,
    table: Table,
    division: Division,
    *,
    seed: int,
    net: NeuralNet | None = None,
    keeps_context: bool = False,
) -> Trained:
    """Train a net of this kind for its `max_epochs`; parameters as of :class:`Training`."""
    own: Any = nullcontext()
    if common.net is not None:
        own = own_generator(_seeds(seed, net)[0], common.net.device)
    with own:
        training = Training(
            kind, common, table, division, seed=seed, net=net, keeps_context=keeps_context
        )
        training.advance(int(kind.max_epochs))
        return training.end()


# What training changes of our own callbacks.
_CHANGED = {
    "averaged_weights": ("n_steps_", "average_", "latest_"),
    "best_epoch": (
        *("best_epoch_", "best_score_", "n_epochs_", "in_epoch_", "losses_", "stop_reason_"),
        *("weights_", "unproven_"),
    ),
}


def _on(device, value):
    """Put tensors in lists, tuples and dicts on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _on(device, item) for name, item in value.items()}
    return type(value)(_on(device, v) for v in value) if isinstance(value, list | tuple) else value


def _seeds(seed, net):
    """Seeds of the weights and of noise, of mixing, and of the order of rows."""
    n_epochs = 0 if net is None else len(net.history)
    return np.random.SeedSequence([seed, n_epochs]).generate_state(3).tolist()


def apart(trained: Trained, kind: Kind, common: Common, division: Division) -> list[Trained]:
    """Take the nets of fits side by side out of the ensemble that trained them.

    Parameters
    ----------
    trained : Trained
    kind : Kind
    common : Common
        Of one fit.
    division : Division

    Returns
    -------
    list of Trained
        Their histories have the validation losses only.
    """
    best = dict(trained.net.callbacks_)["best_epoch"]
    losses = np.reshape(best.losses_, (-1, len(trained.best_epoch)))
    outcomes, first = [], 0
    for n_members in division.fits:
        members = slice(first, first + n_members) if n_members > 1 else first
        own = np.arange(first, first + n_members)
        first += n_members
        net = initialized_net(kind, common)
        state = trained.net.module_.state_of(members)
        fit_context(template_of(net.module_), state)
        net.module_.load_state_dict(state)
        if isinstance(net.module_, Ensemble):
            net.module_.vectorised = trained.net.module_.vectorised
        kept = trained.best_epoch[own]
        n_epochs, reason = trained.n_epochs, trained.stop_reason
        if best.patience is not None and kept.max() + best.patience <= n_epochs:
            n_epochs, reason = int(kept.max() + best.patience), "patience"
        is_bad = ~np.isfinite(losses[:n_epochs, own]).all(axis=1)
        if is_bad.any():
            n_epochs, reason = max(int(is_bad.argmax()) + 1, kept.max()), "divergence"
        net.history_ = History(
            {"batches": [], "epoch": epoch, "valid_loss": float(loss.mean())}
            for epoch, loss in enumerate(losses[:n_epochs, own], start=1)
        )
        outcomes.append(Trained(net, n_epochs, kept, reason))
    return outcomes


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


def _knots(kind, common, table, division):
    n_knots = knots_of_a_column(kind.n_knots, common.n_features)
    if table is None:
        return torch.zeros(common.n_features, n_knots, dtype=torch.float32)
    return _knots_of(table, division.train, n_knots)


def _knots_of(table, rows, n_knots):
    X = table.X[_spread(rows[rows >= 0].unique(), _ENOUGH_FOR_KNOTS)]
    return quantile_knots(X.flatten(0, -2).cpu(), n_knots)


def _spread(rows, n_rows):
    """About so many of these rows, or fewer, evenly spread."""
    return rows[:: math.ceil(len(rows) / n_rows)]


def _judges(table, division, most_steps):
    """Index of the rows that judge an epoch, where the table is."""
    valid = division.valid
    if most_steps is not None:
        valid = _spread(valid, _N_JUDGES)
    return None if valid is None else valid.to(table.X.device)


def _give_own_knots(ensemble, table, division):
    """Let the members of every fit bend at the quantiles of the rows of that fit."""
    encoder = ensemble.members.encoder
    encoder.same_for_all, n_knots = False, encoder.knots.shape[-1]
    columns = division.train.split(division.fits, dim=1)
    knots = [_knots_of(table, rows, n_knots) for rows in columns]
    encoder.knots.copy_(torch.stack(knots).repeat_interleave(torch.tensor(division.fits), dim=0))


def _give_context(module, table, rows, seed):
    """Let a kernel network, or each of stacked ones, look at its training rows."""
    most = KernelNetwork.most_rows
    first, n_rows = rows[:1], len(rows)
    if n_rows > most:
        taken = np.random.default_rng(seed).choice(n_rows, most, replace=False)
        rows = rows[torch.from_numpy(np.sort(taken))]
    rows, first = rows.to(table.X.device), first.to(table.X.device)
    weight = table.row_weight()[rows]
    if rows.ndim == 2:
        # Some members have fewer rows than others; what fills them up has no weight.
        weight = weight * (rows >= 0)
        rows = torch.where(rows >= 0, rows, first)
    if module.context.ndim == 3:
        n_members = len(module.context)
        rows, weight = (
            (part if part.ndim == 2 else part.unsqueeze(1)).expand(-1, n_members).T
            for part in (rows, weight)
        )
    tensors = table.X[rows], table.y[rows], weight, rows
    module.remember(*(tensor.to(module.context.device) for tensor in tensors))


def _places_of_context(module, table):
    """Find rows of a context in a table, -1 where they are not: seen again, they are left out."""
    X, y = module.context.cpu(), module.responses.cpu()
    rows = torch.cat([table.X, module.kept(table.y).to(y.dtype)], dim=1).cpu()
    places = {row.tobytes(): place for place, row in enumerate(rows.numpy())}
    context = torch.cat([X, y], dim=-1).flatten(0, -2).numpy()
    found = [places.get(row.tobytes(), -1) for row in context]
    return torch.tensor(found, device=module.context.device).reshape(X.shape[:-1])


def fit_context(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Give a module that keeps rows as many as there are in a state that it is to take."""
    keys = [value for name, value in state.items() if name.endswith("keys")]
    if isinstance(module, KernelNetwork) and keys:
        module.allocate(keys[0].shape[-2])


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
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=_weight_decay(kind, common),
        optimizer__fused=True,
        lr=kind.lr,
        device=common.device,
        iterator_train__shuffle=True,
        **{f"module__{name}": value for name, value in module.items()},
    )


def _weight_decay(kind, common):
    return kind.weight_decay / common.family.information


def initialized_net(kind: Kind, common: Common) -> NeuralNet:
    """Make a net whose weights are to be replaced; no generator is left moved."""
    net = new_net(kind, common)
    with own_generator() if common.net is not None else nullcontext():
        _initialize(net, torch.Generator())
    net.module_.eval()
    return net


def _initialize(net, generator):
    if isinstance(net, TabularNet):
        net.generator = generator
    net.initialize()
    if isinstance(net, TabularNet):
        net.generator = None


def _copy_of(net, common):
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


def as_mixture(output: torch.Tensor | Mixture) -> Mixture:
    """Give the components of a module's output an axis and weights."""
    if isinstance(output, tuple):
        return Mixture(*output)
    eta = output if output.ndim == 4 else output.unsqueeze(1)
    return Mixture(eta, eta.new_zeros(eta.shape[:2]).log_softmax(-1))


def _callbacks(kind, common, best, seed):
    callbacks: list[Any] = [("best_epoch", best)]
    if kind.lr_schedule == "averaged":
        callbacks.insert(0, ("averaged_weights", AveragedWeights()))
    own = common.net is not None
    if common.net.module is KernelNetwork if own else kind.network == "kernel":
        callbacks.append(("leave_one_out", LeaveOneOut()))
    if kind.site is not None:
        probabilistic = METHODS[kind.method].probabilistic
        mixup = ProbMixup(
            site=kind.site,
            alpha=kind.alpha,
            beta=kind.beta if probabilistic else 0.0,
            pooling=kind.pooling if probabilistic else "log-linear",
            response=kind.response,
            family=common.family,
            n_mixes=kind.n_mixes,
            objective=kind.objective,
            random_state=seed,
        )
        callbacks.append(("prob_mixup", mixup))
    if not own and kind.lr_schedule == "cosine":
        # Every fit has a cosine of its own; skorch would count on from the epochs of earlier ones.
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        callbacks.append(("cosine", LRScheduler(cosine, T_max=kind.max_epochs, last_epoch=-1)))
    if common.verbose == 1:
        callbacks.append(("epoch_bar", EpochBar(kind.max_epochs, title=kind.method)))
    theirs = common.net.callbacks if own else None
    return [*callbacks, *(theirs if isinstance(theirs, list) else []), *common.callbacks]


def _loaders(kind, net, seed, n_batches):
    """Name the loaders of this fit; those that a user chose are kept."""
    needs_neighbors = kind.site is not None and kind.n_neighbors is not None
    ours = net.iterator_train in (TensorLoader, NeighborLoader)
    if ours:
        vars(net).pop("iterator_train__n_neighbors", None)
    plain = {"iterator_train__shuffle", "iterator_train__batch_size"}
    chosen = {name for name in vars(net) if name.startswith("iterator_train__")} - plain
    if ours or (net.iterator_train is DataLoader and not chosen):
        settings = {"iterator_train": TensorLoader, "iterator_train__random_state": seed}
        settings["iterator_train__n_batches"] = n_batches
        settings["iterator_train__part"] = part_of(net)
        if needs_neighbors:
            settings["iterator_train"] = NeighborLoader
            settings["iterator_train__n_neighbors"] = kind.n_neighbors
        return settings
    if needs_neighbors:
        raise ValueError(
            f"n_neighbors={kind.n_neighbors!r} needs the NeighborLoader; found iterator_train="
            f"{net.iterator_train!r} in net, with {sorted(chosen)}."
        )
    return {}
