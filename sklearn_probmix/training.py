"""Training of one kind of network: which rows it sees, and the skorch net that sees them."""

from __future__ import annotations

import copy
import inspect
import math
import os
import threading
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import Dataset
from skorch.history import History
from skorch.utils import TeeGenerator
from torch.utils.data import DataLoader

from sklearn_probmix.callbacks import BestEpoch, EpochBar, ProbMixup, Validation
from sklearn_probmix.criterion import NegativeLogLikelihood
from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import Family
from sklearn_probmix.loaders import NeighborLoader, TensorLoader
from sklearn_probmix.modules import MLP, knots_of_a_column, quantile_knots, use_generator
from sklearn_probmix.pooling import Mixture

__all__ = ["METHODS", "Method", "Part", "Trained", "natural_parameters", "train"]

# Rows of one forward pass in prediction. The last chunk is padded, to a multiple of what our own
# module says and otherwise to this number, so that a row's bits do not depend on other rows.
_CHUNK = 256
# How "auto" sizes batches and epochs.
AUTO_SIZES = {
    "batch_size": 64,
    "batch_size_of_many_rows": 256,
    "many_rows": 4000,
    "n_steps": 3000,
    "least_and_most_epochs": (100, 600),
}


class Method(NamedTuple):
    """Where a method mixes, and whether what it mixes are densities."""

    site: str | None
    probabilistic: bool = False
    random_embedding: bool = False


METHODS = {
    "erm": Method(None),
    "mixup": Method("input"),
    "manifold-mixup": Method("embedding"),
    "m-probmix": Method("embedding", probabilistic=True, random_embedding=True),
    "probmix": Method("output", probabilistic=True),
}


class Part(NamedTuple):
    """Rows of a table in the units in which the network sees them."""

    X: torch.Tensor
    """Shape (rows, ...), or (rows, members, ...) where every member has rows of its own."""
    y: torch.Tensor
    """Shape (rows, [members,] n_outputs)."""
    weight: torch.Tensor | None = None
    """Shape (rows,), of mean 1, or (rows, members)."""

    def take(self, rows) -> Part:
        """Rows by index."""
        rows = torch.as_tensor(rows)
        return Part(*(None if value is None else value[rows] for value in self))

    def dataset(self, mask: torch.Tensor | None = None) -> Dataset:
        """Wrap for skorch; `mask` (rows, n_members) says which rows train which member."""
        y = {"y": self.y, "weight": self.weight, "mask": mask}
        y = {name: value for name, value in y.items() if value is not None}
        return Dataset(self.X, self.y if len(y) == 1 else y)

    def validation(self) -> Validation:
        """Make these rows the validation data of all members, or of each its own."""
        weight = self.row_weight()
        return Validation(self.X, self.y, weight.unsqueeze(1) if weight.ndim == 1 else weight)

    @classmethod
    def side_by_side(cls, parts: list[Part]) -> Part:
        """Rows of member m from `parts[m]`; shorter parts are padded by rows of weight 0."""
        longest = max(len(part.y) for part in parts)
        rows = [torch.arange(longest) % len(part.y) for part in parts]
        padded = [part.take(index) for part, index in zip(parts, rows, strict=True)]
        weights = [
            part.row_weight().where(torch.arange(longest) < len(own.y), 0.0)
            for part, own in zip(padded, parts, strict=True)
        ]
        X, y = ([getattr(part, name) for part in padded] for name in ("X", "y"))
        return cls(*(torch.stack(values, dim=1) for values in (X, y, weights)))

    def row_weight(self) -> torch.Tensor:
        """Weights (rows,), ones if there are none."""
        return torch.ones(len(self.y), dtype=torch.float32) if self.weight is None else self.weight


class TabularNet(NeuralNet):
    """A net of our own modules, without what costs time in every small batch and is of no use here.

    Attributes
    ----------
    generator : torch.Generator or None
        What a new module draws from.
    """

    generator: torch.Generator | None = None

    def initialize_module(self):
        """Make the module; its source of draws is no parameter, since it is used up."""
        parameters = self.get_params_for("module") | {"generator": self.generator}
        self.module_ = self.initialized_instance(self.module, parameters)
        return self

    def __getstate__(self):
        return super().__getstate__() | {"generator": None}

    def get_default_callbacks(self):
        """Leave out the log that is not printed and the loss that another callback records."""
        unused = {"valid_loss"} if self.verbose else {"valid_loss", "print_log"}
        return [named for named in super().get_default_callbacks() if named[0] not in unused]

    def infer(self, x, **fit_params):
        """Run the module; the loaders yield tensors already."""
        return self.module_(x.to(self.device))

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Compute the loss of a batch, whose target is a tensor or a dict of tensors."""
        if isinstance(y_true, dict):
            y_true = {name: value.to(self.device) for name, value in y_true.items()}
        else:
            y_true = y_true.to(self.device)
        return self.criterion_(y_pred, y_true)

    def train_step(self, batch, **fit_params):
        """Make one step of an optimiser that evaluates the loss once, unlike LBFGS."""
        self._zero_grad_optimizer()
        step = self.train_step_single(batch, **fit_params)
        if any(
            type(cb).on_grad_computed is not Callback.on_grad_computed for _, cb in self.callbacks_
        ):
            parameters = TeeGenerator(self.get_all_learnable_params())
            self.notify("on_grad_computed", named_parameters=parameters, batch=batch, training=True)
        self._step_optimizer(None)
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
def own_generator(seed: int = 0, device: str | torch.device | None = "cpu"):
    """Seed torch's global generators for a while, and leave them as they were."""
    kind = torch.device(device or "cpu").type
    devices = range(torch.cuda.device_count()) if kind == "cuda" else []
    # The other seeds the generators of all devices.
    seed_here = torch.default_generator.manual_seed if kind == "cpu" else torch.manual_seed
    with _GENERATOR, torch.random.fork_rng(devices=devices):
        seed_here(seed)
        yield


def _copy_of(net):
    """Copy what training changes."""
    if not isinstance(net, TabularNet):
        return copy.deepcopy(net)
    # Many times quicker than a deep copy, for which skorch writes all to a temporary file.
    new = object.__new__(type(net))
    vars(new).update(vars(net) | {"history_": History(net.history)})
    new.module_ = copy.deepcopy(net.module_)
    new.initialize_optimizer()
    new.optimizer_.load_state_dict(copy.deepcopy(net.optimizer_.state_dict()))
    return new


class Trained(NamedTuple):
    """A net, and how its training went."""

    net: NeuralNet
    best: BestEpoch
    n_epochs: int


def train(
    kind: SimpleNamespace,
    family: Family,
    part: Part,
    validation: Validation | None,
    *,
    seed: int,
    mask: torch.Tensor | None = None,
    net: NeuralNet | None = None,
    own_rows: list[int] | None = None,
) -> Trained:
    """Train a new net of this kind, or go on from a copy of `net`.

    Parameters
    ----------
    kind : SimpleNamespace
        The parameters of an estimator.
    family : Family
    part : Part
        Training rows.
    validation : Validation or None
        Rows that choose the best epoch.
    seed : int
        Feeds the initialisation, the order of rows, partners, lam and noise. Only modules of a user
        draw from torch's global generator, which is left as it was.
    mask : Tensor of shape (rows, n_members), default=None
        1 where a row trains a member.
    net : NeuralNet, default=None
        An initialised net.
    own_rows : list of int, default=None
        How many of the rows are each member's, where members are fits of their own, on rows of
        their own.

    Returns
    -------
    Trained
    """
    epochs_before = 0 if net is None else len(net.history)
    seeds = np.random.SeedSequence([seed, epochs_before]).generate_state(3).tolist()
    best = BestEpoch(
        patience=kind.n_iter_no_change if kind.early_stopping else None,
        validation=validation,
        monitor=kind.monitor,
        family=family,
        n_members=kind.n_members,
        apart=own_rows is not None,
    )
    generator = None if kind.net is not None else torch.Generator().manual_seed(seeds[0])
    with nullcontext() if generator else own_generator(seeds[0], kind.net.device):
        if net is None:
            net = new_net(kind, family, part.X.shape[-1], part.y.shape[-1], part.X)
            net.generator = generator
            if own_rows is not None:
                net.set_params(module__own_rows=True)
        else:
            net = _copy_of(net)
        settings = _loaders(kind, net, seeds[2], own_rows) | {
            "callbacks": _callbacks(kind, family, best, seeds[1]),
            "train_split": None,
            "verbose": int(kind.verbose > 1),
            "max_epochs": kind.max_epochs,
        }
        if kind.net is None:
            settings["batch_size"] = -1 if kind.batch_size is None else kind.batch_size
        # By attribute: set_params of an initialised net would build its optimiser anew.
        for name, value in settings.items():
            setattr(net, name, value)
        if net.initialized_:
            net.initialize_callbacks()
            step = {"lr": kind.lr, "weight_decay": kind.weight_decay}
            for group in net.optimizer_.param_groups:
                group |= step if kind.net is None else {"lr": kind.net.lr}
        else:
            net.initialize()
            net.generator = None
            if own_rows is not None and kind.n_knots is not None:
                _give_own_knots(net.module_, part.X, own_rows)
        if generator and net.device != "cpu":
            # Weights are drawn on the CPU, as the net makes them there.
            generator = torch.Generator(net.device).manual_seed(seeds[0])
        use_generator(net.module_, generator)
        net.partial_fit(part.dataset(mask), None)
        use_generator(net.module_, None)
    net.module_.eval()
    best.validation = None
    # An epoch that was interrupted left a row of its own.
    del net.history[epochs_before + best.n_epochs_ :]
    return Trained(net, best, best.n_epochs_)


def train_apart(
    kind: SimpleNamespace,
    family: Family,
    parts: list[Part],
    validations: list[Part],
    *,
    seed: int,
) -> list[Trained]:
    """Train one net of this kind on every part, in one pass.

    Batches of all parts have the same lam and the same positions of partners; rows,
    initialisation, noise, best epoch and patience are each net's own.

    Parameters
    ----------
    kind, family, seed
        As in :func:`train`.
    parts, validations : list of Part
        Rows without weights that train a net, and those that choose its best epoch.

    Returns
    -------
    list of Trained
    """
    if len(parts) == 1:
        validation = validations[0].validation()
        return [train(kind, family, parts[0], validation, seed=seed)]
    joint = Part.side_by_side(parts)
    mask = None if joint.weight.all() else joint.weight
    members = SimpleNamespace(**vars(kind) | {"n_members": len(parts)})
    validation = Part.side_by_side(validations).validation()
    joint = joint._replace(weight=None)
    lengths = [len(part.y) for part in parts]
    ensemble, best, _ = train(
        members, family, joint, validation, seed=seed, mask=mask, own_rows=lengths
    )
    return [_member(kind, family, ensemble, best, m, joint) for m in range(len(parts))]


def _give_own_knots(ensemble, X, own_rows):
    """Let every member bend at the quantiles of its own rows."""
    encoder = ensemble.members.encoder
    encoder.same_for_all, n_knots = False, encoder.knots.shape[-1]
    knots = [quantile_knots(X[:n, member], n_knots) for member, n in enumerate(own_rows)]
    encoder.knots.copy_(torch.stack(knots))


def _member(kind, family, ensemble, best, member, part):
    """Take a net of its own out of an ensemble."""
    net = new_net(kind, family, part.X.shape[-1], part.y.shape[-1])
    net.generator = torch.Generator()
    net.initialize().generator = None
    net.module_.load_state_dict(ensemble.module_.member_state(member))
    epochs = [
        {"epoch": epoch, "valid_loss": float(losses[member])}
        for epoch, losses in enumerate(best.losses_, start=1)
    ]
    own = copy.copy(best)
    own.best_epoch_ = best.best_epoch_[member : member + 1]
    own.best_score_ = best.best_score_[member : member + 1]
    if best.patience is not None:
        del epochs[own.best_epoch_[0] + best.patience :]
    if not np.isfinite([epoch["valid_loss"] for epoch in epochs]).all():
        own.stop_reason_ = "divergence"
    net.history_ = History({"batches": []} | epoch for epoch in epochs)
    return Trained(net, own, len(epochs))


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
    block = net.module_.row_block if isinstance(net, TabularNet) else _CHUNK
    chunks = []
    with torch.no_grad():
        for rows in X.split(_CHUNK):
            padding = rows.new_zeros(-len(rows) % block, *rows.shape[1:])
            output = as_mixture(net.infer(torch.cat([rows, padding])))
            chunks.append([value[: len(rows)].cpu() for value in output])
    return Mixture(*map(torch.cat, zip(*chunks, strict=True)))


def out_of_fold(net: NeuralNet, part: Part, folds: list[np.ndarray]) -> Mixture:
    """Natural parameters of every row by the member that holds it out.

    Parameters
    ----------
    net : NeuralNet
        Of an :class:`Ensemble` whose member m did not train on the rows `folds[m]`.
    part : Part
    folds : list of ndarray
        Disjoint rows, together all.

    Returns
    -------
    Mixture
        `eta` of shape (rows, components of one member, n_outputs, n_params).
    """
    X = Part.side_by_side([part.take(fold) for fold in folds]).X
    chunks = []
    with torch.no_grad():
        for rows in X.split(_CHUNK):
            output = as_mixture(net.module_.each(rows.to(net.device)))
            chunks.append([value.unflatten(1, (len(folds), -1)).cpu() for value in output])
    whole = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
    whole[1] = whole[1].log_softmax(-1)
    rows = torch.as_tensor(np.concatenate(folds))
    members = torch.arange(len(folds)).repeat_interleave(torch.tensor([*map(len, folds)]))
    positions = torch.cat([torch.arange(len(fold)) for fold in folds])
    inverse = rows.argsort()
    return Mixture(*(value[positions[inverse], members[inverse]] for value in whole))


def as_mixture(output: torch.Tensor | Mixture) -> Mixture:
    """Give the components of a module's output an axis and weights."""
    if isinstance(output, tuple):
        return Mixture(*output)
    eta = output if output.ndim == 4 else output.unsqueeze(1)
    return Mixture(eta, eta.new_zeros(eta.shape[:2]).log_softmax(-1))


def size_to(kind: SimpleNamespace, n_rows: int) -> None:
    """Settle the batch size and the number of epochs that were left to the number of rows.

    Small tables need many epochs to see enough steps; on large ones a wide batch costs little.
    """
    if kind.batch_size == "auto":
        many = n_rows >= AUTO_SIZES["many_rows"]
        kind.batch_size = AUTO_SIZES["batch_size_of_many_rows" if many else "batch_size"]
    if kind.max_epochs == "auto":
        n_steps = math.ceil(n_rows / (kind.batch_size or n_rows))
        n_epochs = AUTO_SIZES["n_steps"] / n_steps
        kind.max_epochs = int(np.clip(n_epochs, *AUTO_SIZES["least_and_most_epochs"]))


def mixes(kind: SimpleNamespace) -> bool:
    """Whether this kind mixes anything."""
    return METHODS[kind.method].site is not None and kind.alpha > 0


def new_net(
    kind: SimpleNamespace,
    family: Family,
    n_features: int,
    n_outputs: int,
    X: torch.Tensor | None = None,
) -> NeuralNet:
    """Make the net, not yet initialised: the user's own, or one of the MLP.

    Knots are quantiles of the columns of X, or zeros where they will be filled in.
    """
    sizes = {"family": family, "n_features": n_features, "n_outputs": n_outputs}
    if kind.net is not None:
        net = clone(kind.net)
        if isinstance(net.module, torch.nn.Module) and kind.n_members > 1:
            raise ValueError(
                f"n_members={kind.n_members} with an instance of {type(net.module).__name__} in "
                "net; expected the module's class, of which each member is made."
            )
        accepted, given = inspect.signature(net.module).parameters, net.get_params()
        sizes = {name: value for name, value in sizes.items() if name in accepted}
        module = {f"module__{name}": value for name, value in sizes.items()}
        net.set_params(**{name: value for name, value in module.items() if name not in given})
    else:
        random = {}
        if METHODS[kind.method].random_embedding:
            separate = kind.embedding_variance == "separate"
            random = {
                "embedding": "gaussian-separate" if separate else "gaussian",
                "n_draws": kind.n_draws,
                "n_train_draws": kind.n_train_draws,
            }
        knots = None
        if kind.n_knots is not None:
            rows = (
                torch.zeros(1, n_features, dtype=torch.float32) if X is None else X.flatten(0, -2)
            )
            knots = quantile_knots(rows, knots_of_a_column(kind.n_knots, n_features))
        module = sizes | {
            "knots": knots,
            "hidden_layer_sizes": tuple(kind.hidden_layer_sizes),
            "activation": kind.activation,
            "dropout": kind.dropout,
            "mixing_layer": kind.mixing_layer,
            **random,
        }
        net = TabularNet(
            MLP,
            NegativeLogLikelihood,
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=kind.weight_decay,
            optimizer__fused=True,
            lr=kind.lr,
            device=kind.device,
            iterator_train__shuffle=True,
            **{f"module__{name}": value for name, value in module.items()},
        )
        depth = len(kind.hidden_layer_sizes)
        if METHODS[kind.method].site == "embedding" and kind.mixing_layer > depth:
            raise ValueError(
                f"mixing_layer={kind.mixing_layer!r} with {depth} hidden layers; expected at most "
                "as many as there are."
            )
    if kind.n_members > 1:
        net.set_params(module=Ensemble, module__module=net.module, module__n_members=kind.n_members)
    return net.set_params(
        criterion=NegativeLogLikelihood,
        criterion__family=family,
        criterion__n_members=kind.n_members,
        criterion__variance_weighting=kind.variance_weighting,
    )


def _callbacks(kind, family, best, seed):
    callbacks = [("best_epoch", best)]
    if mixes(kind):
        method = METHODS[kind.method]
        mixup = ProbMixup(
            site=method.site,
            alpha=kind.alpha,
            beta=kind.beta if method.probabilistic else 0.0,
            pooling=kind.pooling if method.probabilistic else "log-linear",
            response=kind.response,
            family=family,
            n_mixes=kind.n_mixes,
            objective=kind.objective,
            random_state=seed,
        )
        callbacks.append(("prob_mixup", mixup))
    if kind.net is None and kind.lr_schedule == "cosine":
        # Every fit has a cosine of its own; skorch would count on from the epochs of earlier ones.
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        callbacks.append(("cosine", LRScheduler(cosine, T_max=kind.max_epochs, last_epoch=-1)))
    if kind.verbose == 1:
        callbacks.append(("epoch_bar", EpochBar(kind.max_epochs, title=kind.method)))
    own = kind.net.callbacks if kind.net is not None else None
    return [*callbacks, *(own if isinstance(own, list) else []), *(kind.callbacks or [])]


def _loaders(kind, net, seed, own_rows):
    """Name the loaders of this fit; those that a user chose are kept."""
    needs_neighbors = mixes(kind) and kind.n_neighbors is not None
    settings = {}
    ours = net.iterator_train in (TensorLoader, NeighborLoader)
    if ours:
        for name in ("iterator_train__n_neighbors", "iterator_train__own_rows"):
            vars(net).pop(name, None)
    plain = {"iterator_train__shuffle", "iterator_train__batch_size"}
    chosen = {name for name in vars(net) if name.startswith("iterator_train__")} - plain
    if ours or (net.iterator_train is DataLoader and not chosen):
        settings["iterator_train"] = TensorLoader
        settings["iterator_train__random_state"] = seed
        if needs_neighbors:
            settings["iterator_train"] = NeighborLoader
            settings["iterator_train__n_neighbors"] = kind.n_neighbors
            settings["iterator_train__own_rows"] = own_rows
    elif needs_neighbors:
        raise ValueError(
            f"n_neighbors={kind.n_neighbors!r} needs the NeighborLoader; found iterator_train="
            f"{net.iterator_train!r} in net, with {sorted(chosen)}."
        )
    return settings
