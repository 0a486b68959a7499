"""Probabilistic mixup as a skorch callback, and the one that keeps the best epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_probmix.criterion import log_likelihood, normal_crps, output_shape
from sklearn_probmix.ensemble import Ensemble, template_of
from sklearn_probmix.families import Family, get_family
from sklearn_probmix.loaders import Batch, PairedBatch
from sklearn_probmix.mixing import Mixer, as_target
from sklearn_probmix.processes import agreed, unwrapped
from sklearn_probmix.table import Table

__all__ = ["AveragedWeights", "BestEpoch", "EpochBar", "LeaveOneOut", "ProbMixup"]

_VALIDATION_CHUNK = 4096


class ProbMixup(Callback):
    """Mix every row of a training batch with a partner row at one site of the network.

    For each batch the callback draws partners and lam ~ Beta(alpha, alpha), replaces the target
    by the mixed one, and replaces the tensor at the site by
    ``lam * own + (1 - lam) * partner's``. At site "output" this tensor holds natural parameters,
    and the operation is the log-linear pooling of densities of eq. 16 and 18; elsewhere it is
    mixup, manifold mixup or, where a submodule returns natural parameters of an embedding,
    M-ProbMix. Validation and prediction are left alone.

    The callback works on any :class:`skorch.NeuralNet` under this contract: the module returns
    natural parameters of shape (rows, n_outputs, n_params); the criterion is
    :class:`NegativeLogLikelihood` of the same family; every batch is a mutable list ``[X, y]``,
    which the default loader yields. Partners come from the batch at random, or from the batch
    itself where a :class:`NeighborLoader` made it.

    Parameters
    ----------
    site : str, default="output"
        "input", "output", or the name of a submodule as in `module.named_modules()`, such as
        "embedding".
    alpha : float, default=0.2
        Parameter of the Beta law of lam, at least 0; 0 switches the callback off.
    beta : float, default=0.0
        Variance of the kernel around y, in the units that the network is trained in; for classes,
        smoothing of the labels.
    pooling : {"log-linear", "linear"}, default="log-linear"
        Linear pooling is a mixture of two components at the output and a random choice between
        the two rows elsewhere.
    response : {"pooled", "expected"} or None, default=None
        How responses are mixed, see :func:`~sklearn_probmix.pooling.mix_responses`; None takes
        the family's default.
    family : str or Family, default="normal"
    n_mixes : int, default=1
        Monte-Carlo draws of lam for each pair (K of eq. 16).
    objective : {"expected-log", "log-expected"}, default="expected-log"
        Average of the log-likelihoods of these draws, or log of their average likelihood
        (Appendix B), for which one response y~ is sampled for each draw.
    random_state : int, numpy.random.Generator or None, default=None
        Source of partners and lam; None takes fresh entropy.

    Attributes
    ----------
    mixer_ : Mixer
    draw_ : Draw
        `lam` and `partner`, the index in the batch of every row's partner, of the last batch;
        shape (n_mixes * rows,).
    target_ : Target
        The mixed target of the last batch, as the criterion gets it.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch import NeuralNet
    >>> from sklearn_probmix import NegativeLogLikelihood, ProbMixup
    >>> from sklearn_probmix.modules import MLP
    >>> net = NeuralNet(
    ...     MLP, module__n_features=3, criterion=NegativeLogLikelihood, max_epochs=2, verbose=0,
    ...     callbacks=[ProbMixup(site="output", alpha=0.2, random_state=0)],
    ... )
    >>> X = np.ones((20, 3), dtype="float32")
    >>> len(net.fit(X, X[:, 0]).history)
    2
    """

    def __init__(
        self,
        site: str = "output",
        alpha: float = 0.2,
        beta: float = 0.0,
        pooling: str = "log-linear",
        response: str | None = None,
        family: str | Family = "normal",
        n_mixes: int = 1,
        objective: str = "expected-log",
        random_state: int | np.random.Generator | None = None,
    ):
        self.site = site
        self.alpha = alpha
        self.beta = beta
        self.pooling = pooling
        self.response = response
        self.family = family
        self.n_mixes = n_mixes
        self.objective = objective
        self.random_state = random_state

    def initialize(self) -> Self:
        """Check the parameters and seed the draws."""
        _check_at_least_zero("alpha", self.alpha)
        _check_at_least_zero("beta", self.beta)
        _check_option("pooling", self.pooling, ("log-linear", "linear"))
        _check_option("response", self.response, ("pooled", "expected", None))
        _check_option("objective", self.objective, ("expected-log", "log-expected"))
        if self.n_mixes < 1:
            raise ValueError(f"n_mixes={self.n_mixes!r}; expected at least 1.")
        family = get_family(self.family)
        self.rng_ = np.random.default_rng(self.random_state)
        self.mixer_ = Mixer(
            family,
            alpha=self.alpha,
            beta=self.beta,
            pooling=self.pooling,
            response=self.response or family.default_response,
            n_mixes=self.n_mixes,
            objective=self.objective,
            may_have_components=self.pooling == "linear" or self.site not in ("input", "output"),
        )
        self.armed_ = False
        return self

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Register the hook, after removing one that an interrupted fit left."""
        self._remove_hook()
        if self.alpha == 0:
            return
        if type(net.criterion_).__module__.startswith("torch.nn."):
            raise TypeError(
                f"criterion={type(net.criterion_).__name__} takes no mixed responses; expected "
                "NegativeLogLikelihood, or a criterion that takes a Target of weighted points."
            )
        if self.site == "input":
            return
        module, self.n_axes_ = template_of(net.module_), 3
        whole = unwrapped(net.module_)
        if isinstance(whole, Ensemble):
            # Members that are stacked have an axis of their own, behind that of the rows.
            self.n_axes_ = 3 + whole.stacks
        submodules = dict(module.named_modules())
        name = "" if self.site == "output" else self.site
        if name not in submodules:
            raise ValueError(
                f"site={self.site!r} is no submodule of {type(module).__name__}; expected "
                f"'input', 'output' or one of {sorted(filter(None, submodules))}."
            )
        self.handle_ = submodules[name].register_forward_hook(self._mix_output)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Unhook the site."""
        self._remove_hook()

    def on_batch_begin(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Draw lam and the partners, mix the target, and the input if that is the site."""
        if not training or self.alpha == 0:
            return
        if not isinstance(batch, list) or len(batch) != 2:
            raise TypeError(
                f"mixup replaces the target in the batch, a mutable list [X, y]; found "
                f"{type(batch).__name__}. Let iterator_train yield lists."
            )
        X, y = batch[0], as_target(batch[1])
        partner = batch.partner if isinstance(batch, PairedBatch) else None
        self.draw_ = self.mixer_.draw(self.rng_, len(y.points), partner).on(y.points.device)
        batch[1] = self.target_ = self.mixer_.target(y, self.draw_, self.rng_)
        if self.site == "input":
            if not isinstance(X, torch.Tensor) or not X.is_floating_point():
                raise TypeError(
                    "site='input' mixes one tensor of floats; found "
                    f"{getattr(X, 'dtype', type(X))}. Choose the name of a submodule as the site."
                )
            batch[0] = self.mixer_.tensor(X, self.draw_, densities=False)
        self.armed_ = True

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave the next forward pass alone."""
        self.armed_ = False

    def __getstate__(self):
        # A hook belongs to one module of one process, and a batch to one step.
        passing = {"handle_", "draw_", "target_"}
        return {key: value for key, value in vars(self).items() if key not in passing}

    def _remove_hook(self):
        self.armed_ = False
        if hasattr(self, "handle_"):
            self.handle_.remove()
            del self.handle_

    def _mix_output(self, module, args, output):
        # A batch that failed leaves the hook armed; prediction must not be mixed all the same.
        if not (self.armed_ and module.training):
            return None
        shape, rows = output_shape(output), len(self.draw_.lam) // self.n_mixes
        if shape[0] != rows:
            raise ValueError(
                f"site={self.site!r} returned a tensor of shape {tuple(shape)} for a batch of "
                f"{rows} rows; expected the rows on the first axis."
            )
        family = self.mixer_.family
        if self.site == "output" and (
            isinstance(output, tuple) or len(shape) != self.n_axes_ or shape[-1] != family.n_params
        ):
            raise ValueError(
                f"the module returned natural parameters of shape {tuple(shape)}; pooling at the "
                f"output expects one density per row, (rows, n_outputs, {family.n_params}) for "
                f"{family!r}."
            )
        return self.mixer_.tensor(output, self.draw_, densities=self.site == "output")


class LeaveOneOut(Callback):
    """Tell a module that looks at training rows which of them the batch holds."""

    def on_batch_begin(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Name the rows of the batch, of a loader of this package."""
        module: Any = template_of(net.module_)
        if training and isinstance(batch, Batch):
            module.own = batch.rows.to(net.device)

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Forget them."""
        module: Any = template_of(net.module_)
        module.own = None


class AveragedWeights(Callback):
    """Judge and keep an exponential moving average of the weights, while the latest ones train.

    It stands before :class:`BestEpoch`, which sees the averages at the end of an epoch. With them a
    constant learning rate needs no end that is known before.

    Parameters
    ----------
    decay : float, default=0.99
        Of the average in a step; smaller in the first steps.
    """

    def __init__(self, decay: float = 0.99):
        self.decay = decay

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin with the weights that there are."""
        self.n_steps_ = 0
        # Looked up once: to walk through a module takes as long as to average its weights.
        self.weights_ = [*net.module_.parameters()]
        self.average_ = [weight.detach().clone() for weight in self.weights_]
        self.latest_: list[torch.Tensor] | None = None

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Go on from the latest weights."""
        if self.latest_ is not None:
            self._put(self.latest_)
            self.latest_ = None

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Move the average towards the latest weights."""
        if training:
            self.n_steps_ += 1
            decay = min(self.decay, (1 + self.n_steps_) / (10 + self.n_steps_))
            with torch.no_grad():
                torch._foreach_lerp_(self.average_, self.weights_, 1 - decay)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Show the averages to whoever judges the epoch."""
        self.latest_ = [weight.detach().clone() for weight in self.weights_]
        self._put(self.average_)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave no copies behind."""
        self.weights_, self.average_, self.latest_ = [], [], None

    def _put(self, weights):
        with torch.no_grad():
            torch._foreach_copy_(self.weights_, weights)


class BestEpoch(Callback):
    """Keep every member's weights of its best epoch in memory, and know when to stop.

    At the end of an epoch the validation rows are scored, by the mean negative log-likelihood
    and perhaps by CRPS, and recorded in the history as `valid_loss` and `valid_crps`. Without
    validation rows the last epoch is kept, or the last whose weights gave a finite loss. The
    weights are put back when training ends.

    Parameters
    ----------
    patience : int or None, default=None
        Number of epochs in which no member improves after which training stops; None never stops.
    table : Table or None, default=None
        Holds the validation rows.
    valid : Tensor of shape (rows,) or (rows, n_members), default=None
        Index of the validation rows in the table, of all members or of each its own, with -1 below
        the last.
    monitor : {"nll", "crps"}, default="nll"
        The score whose minimum is the best epoch; CRPS for Normal families only.
    family : str or Family, default="normal"
    fits : sequence of int, default=(1,)
        Number of members of each fit that is trained side by side: a fit stops when its own
        patience is over, and of several none stops because another diverges.

    Attributes
    ----------
    losses_ : list of ndarray of shape (n_members,)
        Negative log-likelihood of the validation rows in every epoch.
    best_epoch_ : ndarray of shape (n_members,)
        Number, from 1, of the epoch whose weights are kept; 0 before the first.
    best_score_ : ndarray of shape (n_members,)
        Its score; infinite without validation rows.
    stop_reason_ : {"patience", "divergence", "interruption"} or None
        Why training ended early.
    """

    def __init__(
        self,
        patience: int | None = None,
        table: Table | None = None,
        valid: torch.Tensor | None = None,
        monitor: str = "nll",
        family: str | Family = "normal",
        fits: Sequence[int] = (1,),
    ):
        self.patience = patience
        self.table = table
        self.valid = valid
        self.monitor = monitor
        self.family = family
        self.fits = fits

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Forget an earlier fit."""
        self.n_members = sum(self.fits)
        self.fit_of_member = np.repeat(np.arange(len(self.fits)), self.fits)
        self.best_epoch_ = np.zeros(self.n_members, dtype=int)
        self.best_score_ = np.full(self.n_members, np.inf)
        self.n_epochs_, self.in_epoch_ = 0, True
        self.losses_: list[NDArray[np.float64]] = []
        self.epochs_before_ = len(net.history)
        self.stop_reason_: str | None = None
        self.weights_: dict[str, Any] | None = None
        self.unproven_: tuple[int, dict[str, Any]] | None = None

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Note that an exception from here on interrupts an epoch."""
        self.in_epoch_ = True

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Compare this epoch with the best, and stop training where it should."""
        if not net.history[-1, "train_batch_count"]:
            raise ValueError(
                f"the training rows make no batch of batch_size={net.batch_size} (with drop_last, "
                "perhaps); expected at least one."
            )
        loss = agreed(net, net.history[-1, "train_loss"])
        net.history.record("train_loss", loss / self.n_members)
        score = None if self.valid is None else self._validate(net, self.table, self.valid)
        self.in_epoch_ = False
        self.n_epochs_ += 1
        losses = [net.history[-1, "train_loss"], *([] if score is None else score)]
        if len(self.fits) == 1 and not np.isfinite(losses).all():
            self._stop("divergence")
        epoch = len(net.history)
        if score is None:
            self._prove()
            self.unproven_ = epoch, _copy(unwrapped(net.module_).state_dict())
            return
        better = score < self.best_score_
        if self.patience is not None:
            # Of several fits, one may be over.
            better &= epoch <= self.last_epoch()
        net.history.record("valid_loss_best", bool(better.any()))
        if better.any():
            self._keep(unwrapped(net.module_).state_dict(), better)
            self.best_epoch_[better], self.best_score_[better] = epoch, score[better]
        if self.patience is not None and (epoch >= self.last_epoch()).all():
            self._stop("patience")

    def last_epoch(self) -> NDArray[np.intp]:
        """Epoch in which the patience of every member's fit is over; shape (n_members,)."""
        best = np.full(len(self.fits), self.epochs_before_)
        np.maximum.at(best, self.fit_of_member, self.best_epoch_)
        return best[self.fit_of_member] + self.patience

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Put the best weights back."""
        if self.in_epoch_:
            self.stop_reason_ = "interruption"
        if self.unproven_ is not None and self.stop_reason_ != "divergence":
            if any(value.isnan().any() for value in _tensors(self.unproven_[1]).values()):
                self.stop_reason_ = "divergence"
            else:
                self._prove()
        if self.weights_ is not None:
            unwrapped(net.module_).load_state_dict(self.weights_)
        self.weights_ = self.unproven_ = None

    def _prove(self):
        """Trust the weights of the epoch before: the training loss that followed is finite.

        The loss of an epoch is taken before its last step, which may be the one that diverges.
        """
        if self.unproven_ is not None:
            self.best_epoch_[:], self.weights_ = self.unproven_

    def _validate(self, net, table, valid):
        """Score the validation rows and record the scores; shape (n_members,)."""
        scores = {"nll": lambda *args: -log_likelihood(*args), "crps": normal_crps}
        names = ["nll"] if self.monitor == "nll" else ["nll", "crps"]
        family, own = get_family(self.family), valid.ndim == 2
        whole: Any = unwrapped(net.module_)
        forward = whole.each if own else net.infer
        chunks: list[Any] = []
        net.module_.eval()
        with torch.no_grad():
            for rows in valid.split(_VALIDATION_CHUNK):
                part = table.take(rows)
                y, weight = part.y, part.row_weight()
                y, weight = (y, weight * (rows >= 0)) if own else (y.unsqueeze(1), weight[:, None])
                output, points = forward(part.X.to(net.device)), y.unsqueeze(2).to(net.device)
                found = [scores[name](family, output, points, self.n_members) for name in names]
                chunks.append((weight, *(score[..., 0] for score in found)))
        # Only now, since to ask for numbers is to wait for them.
        chunks = [[part.cpu() for part in chunk] for chunk in chunks]
        total = sum(weight.sum(0) for weight, *_ in chunks)
        means = {}
        for place, name in enumerate(names, start=1):
            sums = ((chunk[place].double() * chunk[0]).sum(0) for chunk in chunks)
            means[name] = agreed(net, (sum(sums) / total).numpy())
        self.losses_.append(means["nll"])
        net.history.record("valid_loss", float(means["nll"].mean()))
        if "crps" in means:
            net.history.record("valid_crps", float(means["crps"].mean()))
        return means[self.monitor]

    def _keep(self, state, better):
        if self.weights_ is None or better.all():
            self.weights_ = _copy(state)
            return
        members = torch.from_numpy(np.flatnonzero(better))
        for name, value in _tensors(state).items():
            members = members.to(value.device)
            self.weights_[name].index_copy_(0, members, value.index_select(0, members))

    def _stop(self, reason):
        # What skorch's own EarlyStopping raises: its training loop ends on it.
        self.stop_reason_ = reason
        raise KeyboardInterrupt


class EpochBar(Callback):
    """Show epochs, losses, the best epoch and the time left, in a terminal or a notebook.

    Parameters
    ----------
    max_epochs : int
    title : str, default=""
        Stands before the bar.
    """

    def __init__(self, max_epochs: int, title: str = ""):
        self.max_epochs = max_epochs
        self.title = title

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Draw the empty bar."""
        # In a notebook without widgets the import alone warns.
        from tqdm.auto import tqdm

        self.bar_ = tqdm(total=self.max_epochs, desc=self.title, unit="epoch")

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Move on by one epoch."""
        best = dict(net.callbacks_)["best_epoch"].best_epoch_
        epoch = net.history[-1]
        losses = {name: epoch[name] for name in ("train_loss", "valid_loss") if name in epoch}
        self.bar_.set_postfix(losses, best=int(np.median(best)), refresh=False)
        self.bar_.update()

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        self.bar_.close()
        del self.bar_


def _copy(state):
    rest = copy.deepcopy(
        {name: value for name, value in state.items() if name not in _tensors(state)}
    )
    return rest | {name: value.clone() for name, value in _tensors(state).items()}


def _tensors(state):
    """Leave out what is not a tensor, the extra state of a user's module."""
    return {name: value.data for name, value in state.items() if isinstance(value, torch.Tensor)}


def _check_at_least_zero(name, value):
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name}={value!r}; expected a finite number, at least 0.")


def _check_option(name, value, options):
    if value not in options:
        raise ValueError(f"{name}={value!r}; expected one of {options}.")
