"""Probabilistic mixup as a skorch callback, and the one that keeps the best epoch."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from skorch.callbacks import Callback

from sklearn_probmix.families import (
    Mixture,
    as_target,
    get_family,
    linear_pool,
    log_linear_pool,
    mix_responses,
    output_shape,
)
from sklearn_probmix.loaders import PairedBatch

__all__ = ["BestEpoch", "ProbMixup"]


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
        How responses are mixed, see :func:`~sklearn_probmix.families.mix_responses`; None takes
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
    lam_ : Tensor of shape (n_mixes * rows,)
        Mixing coefficients of the last batch.
    partner_ : Tensor of shape (n_mixes * rows,)
        Index in the batch of every row's partner.
    target_ : dict of Tensor
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
        site="output",
        alpha=0.2,
        beta=0.0,
        pooling="log-linear",
        response=None,
        family="normal",
        n_mixes=1,
        objective="expected-log",
        random_state=None,
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

    def initialize(self):
        """Check the parameters and seed the draws."""
        _check_at_least_zero("alpha", self.alpha)
        _check_at_least_zero("beta", self.beta)
        _check_option("pooling", self.pooling, ("log-linear", "linear"))
        _check_option("response", self.response, ("pooled", "expected", None))
        _check_option("objective", self.objective, ("expected-log", "log-expected"))
        if self.n_mixes < 1:
            raise ValueError(f"n_mixes={self.n_mixes!r}; expected at least 1.")
        self.rng_ = np.random.default_rng(self.random_state)
        self.family_ = get_family(self.family)
        self.response_ = self.response or self.family_.default_response
        self.armed_ = False
        return self

    def on_train_begin(self, net, **kwargs):
        """Hook the site, after removing what an interrupted fit may have left."""
        self._remove_hook()
        if self.alpha == 0 or self.site == "input":
            return
        submodules = dict(net.module_.named_modules())
        name = "" if self.site == "output" else self.site
        if name not in submodules:
            raise ValueError(
                f"site={self.site!r} is no submodule of {type(net.module_).__name__}; expected "
                f"'input', 'output' or one of {sorted(filter(None, submodules))}."
            )
        self.handle_ = submodules[name].register_forward_hook(self._mix_output)

    def on_train_end(self, net, **kwargs):
        """Unhook the site."""
        self._remove_hook()

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Draw lam and the partners, mix the target, and the input if that is the site."""
        if not training or self.alpha == 0:
            return
        if not isinstance(batch, list) or len(batch) != 2:
            raise TypeError(
                f"mixup replaces the target in the batch, a mutable list [X, y]; found "
                f"{type(batch).__name__}. Let iterator_train yield lists."
            )
        X, y = batch
        self._draw(batch, as_target(y)["points"].shape[0])
        batch[1] = self.target_ = self._mix_target(as_target(y))
        if self.site == "input":
            if not isinstance(X, torch.Tensor) or not X.is_floating_point():
                raise TypeError(
                    "site='input' mixes one tensor of floats; found "
                    f"{getattr(X, 'dtype', type(X))}. Choose the name of a submodule as the site."
                )
            batch[0] = self._mix(X)
        self.armed_ = True

    def on_batch_end(self, net, **kwargs):
        """Leave the next forward pass alone."""
        self.armed_ = False

    def __getstate__(self):
        # A hook belongs to one module of one process.
        return {key: value for key, value in vars(self).items() if key != "handle_"}

    def _remove_hook(self):
        self.armed_ = False
        if hasattr(self, "handle_"):
            self.handle_.remove()
            del self.handle_

    def _draw(self, batch, n_rows):
        partner = (
            batch.partner
            if isinstance(batch, PairedBatch)
            else torch.from_numpy(self.rng_.permutation(n_rows))
        )
        lam = self.rng_.beta(self.alpha, self.alpha, size=self.n_mixes * n_rows)
        self.lam_ = torch.from_numpy(lam)
        self.partner_ = partner.repeat(self.n_mixes)

    def _mix_target(self, target):
        lam = self.lam_.to(target["points"].device)
        y_i, y_j = self._own(target["points"][:, 0]), self._partners(target["points"][:, 0])
        log_expected = self.objective == "log-expected"
        noise = None
        if self.beta > 0 and (log_expected or self._may_have_components()):
            noise = torch.from_numpy(self.rng_.standard_normal(tuple(y_i.shape))).to(y_i)
        points, weights = mix_responses(
            self.family_, y_i, y_j, lam, response=self.response_, beta=self.beta, noise=noise
        )
        draws = 1
        if log_expected:
            draws = self.n_mixes
            points, weights = self._sample_point(points, weights)
        mixed = {"points": points, "weights": weights, "draws": torch.tensor(draws)}
        if "row_weight" in target:
            weight = target["row_weight"]
            mixed["row_weight"] = log_linear_pool(
                self._own(weight), self._partners(weight), lam.to(weight.dtype)
            )
        return mixed

    def _may_have_components(self):
        """Whether the output may be a mixture, for which log p is not linear in T(y)."""
        return self.pooling == "linear" or self.site not in ("input", "output")

    def _sample_point(self, points, weights):
        uniform = torch.from_numpy(self.rng_.random((len(points), 1))).to(weights)
        index = (weights.cumsum(1) < uniform).sum(1).clamp(max=weights.shape[1] - 1)
        rows = torch.arange(len(points), device=points.device)
        return points[rows, index].unsqueeze(1), torch.ones_like(weights[:, :1])

    def _mix_output(self, module, args, output):
        if not self.armed_:
            return None
        shape, rows = output_shape(output), len(self.partner_) // self.n_mixes
        if shape[0] != rows:
            raise ValueError(
                f"site={self.site!r} returned a tensor of shape {tuple(shape)} for a batch of "
                f"{rows} rows; expected the rows on the first axis."
            )
        n_params = self.family_.n_params
        if self.site == "output" and (
            isinstance(output, Mixture) or len(shape) != 3 or shape[-1] != n_params
        ):
            raise ValueError(
                f"the module returned natural parameters of shape {tuple(shape)}; pooling at the "
                f"output expects one density per row, (rows, n_outputs, {n_params}) for "
                f"{self.family_!r}."
            )
        return self._mix(output)

    def _mix(self, tensor):
        own, partners, lam = self._own(tensor), self._partners(tensor), self.lam_.to(tensor)
        if self.pooling == "log-linear":
            return log_linear_pool(own, partners, lam)
        if self.site == "output":
            return linear_pool(own, partners, lam)
        chosen = torch.from_numpy(self.rng_.random(len(lam))).to(tensor) < lam
        return torch.where(chosen.reshape(-1, *[1] * (own.ndim - 1)), own, partners)

    def _own(self, tensor):
        return (
            tensor if self.n_mixes == 1 else tensor.repeat(self.n_mixes, *[1] * (tensor.ndim - 1))
        )

    def _partners(self, tensor):
        return tensor[self.partner_.to(tensor.device)]


class BestEpoch(Callback):
    """Keep the weights of the epoch of lowest validation loss in memory, and know when to stop.

    Without validation data the last epoch whose training loss is finite is kept. The weights are
    put back when training ends.

    Parameters
    ----------
    patience : int or None, default=None
        Number of epochs without improvement after which training stops; None never stops.

    Attributes
    ----------
    best_epoch_ : int or None
        Number, from 1, of the epoch whose weights are kept; None before the first.
    best_loss_ : float
        Its validation loss; infinite without validation data.
    stop_reason_ : {"patience", "divergence", "interruption"} or None
        Why training ended early.
    """

    def __init__(self, patience=None):
        self.patience = patience

    def on_train_begin(self, net, **kwargs):
        """Forget an earlier fit."""
        self.best_epoch_, self.best_loss_, self.weights_ = None, math.inf, None
        self.stop_reason_, self.in_epoch_ = None, False

    def on_epoch_begin(self, net, **kwargs):
        """Note that an exception from here on interrupts an epoch."""
        self.in_epoch_ = True

    def on_epoch_end(self, net, **kwargs):
        """Compare this epoch with the best, and stop training where it should."""
        self.in_epoch_ = False
        epoch = net.history[-1]
        losses = [epoch[name] for name in ("train_loss", "valid_loss") if name in epoch]
        if not np.isfinite(losses).all():
            self._stop("divergence")
        validated = "valid_loss" in epoch
        if not validated or epoch["valid_loss"] < self.best_loss_:
            self.best_epoch_ = epoch["epoch"]
            self.best_loss_ = epoch["valid_loss"] if validated else math.inf
            self.weights_ = copy.deepcopy(net.module_.state_dict())
        elif self.patience is not None and epoch["epoch"] - self.best_epoch_ >= self.patience:
            self._stop("patience")

    def on_train_end(self, net, **kwargs):
        """Put the best weights back."""
        if self.in_epoch_:
            self.stop_reason_ = "interruption"
        if self.weights_ is not None:
            net.module_.load_state_dict(self.weights_)
        self.weights_ = None

    def _stop(self, reason):
        # What skorch's own EarlyStopping raises: its training loop ends on it.
        self.stop_reason_ = reason
        raise KeyboardInterrupt


def _check_at_least_zero(name, value):
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name}={value!r}; expected a finite number, at least 0.")


def _check_option(name, value, options):
    if value not in options:
        raise ValueError(f"{name}={value!r}; expected one of {options}.")
