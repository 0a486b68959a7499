"""Training of one kind of network on a table and its division, by a skorch net."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from skorch.history import History
from torch.utils.data import DataLoader

from sklearn_probmix.callbacks import (
    AveragedWeights,
    BestEpoch,
    EpochBar,
    LeaveOneOut,
    ProbMixup,
)
from sklearn_probmix.ensemble import Ensemble, template_of
from sklearn_probmix.kernel import KernelNetwork
from sklearn_probmix.kinds import METHODS, Kind
from sklearn_probmix.loaders import NeighborLoader, TensorLoader
from sklearn_probmix.modules import use_generator
from sklearn_probmix.nets import (
    Common,
    TabularNet,
    copy_of,
    fit_context,
    initialize,
    initialized_net,
    knots_of,
    new_net,
    own_generator,
    spread,
    weight_decay_of,
)
from sklearn_probmix.processes import part_of, unwrapped
from sklearn_probmix.settings import limited_threads
from sklearn_probmix.table import DividedRows, Division, Table

__all__ = ["NOT_BEGUN", "Trained", "Training", "apart", "train"]

# Rows of a large table by which every epoch is judged.
_N_JUDGES = 2_500
# Of all members, in a step of our own networks: with fewer, threads mostly wait for one another.
_ROWS_FOR_THREADS = 1_000


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
    n_batches : int, default=None
        Of an epoch, which goes on through the rows where the one before ended, and is judged by
        some of many held-out rows; None is a pass over the rows, judged by all.
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
        n_batches: int | None = None,
    ):
        self._rows = DividedRows(table, division.train)
        self._epochs_before = 0 if net is None else len(net.history)
        seeds = _seeds(seed, net)
        self._best = BestEpoch(
            patience=kind.n_iter_no_change,
            table=table,
            valid=_judges(table, division, n_batches),
            monitor=kind.monitor,
            family=common.family,
            fits=division.fits or (common.n_members,),
        )
        generator = None if common.net is not None else torch.Generator().manual_seed(seeds[0])
        net = new_net(kind, common, table, division) if net is None else copy_of(net, common)
        settings = _loaders(kind, net, seeds[2], n_batches) | {
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
            step = {"lr": kind.lr, "weight_decay": weight_decay_of(kind, common)}
            for group in net.optimizer_.param_groups:
                group |= step if common.net is None else {"lr": common.net.lr}
            if hasattr(net, "accelerator"):
                net._initialize_accelerator()
        else:
            initialize(net, generator)
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
        n_rows = kind.rows_of_a_batch(len(division.train)) * common.n_members
        is_small = common.net is None and n_rows < _ROWS_FOR_THREADS
        self._threads = partial(limited_threads, 1) if is_small else nullcontext
        if isinstance(net, TabularNet):
            net.watch = common.watch
        self.net = net
        net.notify("on_train_begin", X=self._rows, y=None)

    @property
    def n_epochs(self) -> int:
        """Epochs made so far, by this training."""
        return self._best.n_epochs_

    @property
    def stop_reason(self) -> str | None:
        """Why no more epochs are made, as in :class:`Trained`; None while there may be more."""
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
            with self._threads():
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


def _judges(table, division, n_batches):
    """Index of the rows that judge an epoch, where the table is."""
    valid = division.valid
    if n_batches is not None:
        valid = spread(valid, _N_JUDGES)
    return None if valid is None else valid.to(table.X.device)


def _give_own_knots(ensemble, table, division):
    """Let the members of every fit bend at the quantiles of the rows of that fit."""
    encoder = ensemble.members.encoder
    encoder.same_for_all, n_knots = False, encoder.knots.shape[-1]
    columns = division.train.split(division.fits, dim=1)
    knots = [knots_of(table, rows, n_knots) for rows in columns]
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
