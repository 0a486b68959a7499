"""The two estimators: from a table to predictive distributions."""

from __future__ import annotations

import copy
import inspect
import warnings
from contextlib import contextmanager
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from skorch import NeuralNet
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch.utils.data import DataLoader

from sklearn_probmix.callbacks import BestEpoch, ProbMixup
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.families import FAMILIES, Family, NegativeLogLikelihood, get_family
from sklearn_probmix.loaders import NeighborLoader, TensorLoader
from sklearn_probmix.modules import ACTIVATIONS, MLP

__all__ = ["ProbMixupClassifier", "ProbMixupRegressor"]

# Rows of one forward pass in prediction. The last chunk is padded: with one shape for all, a
# row's bits do not depend on the rows around it.
_CHUNK = 256
_MIN_ROWS_FOR_HOLDOUT = 10


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


class _Part(NamedTuple):
    """Rows of a table in the units in which the network sees them."""

    X: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor | None

    def dataset(self):
        y = self.y if self.weight is None else {"y": self.y, "weight": self.weight}
        return Dataset(self.X, y)

    def take(self, rows):
        rows = torch.from_numpy(np.asarray(rows))
        return _Part(*(None if value is None else value[rows] for value in self))


class _BaseProbMixup(BaseEstimator):
    """What the two estimators share: everything but the response."""

    # Metadata that a Pipeline or a search passes to fit without being asked to.
    __metadata_request__fit = {
        "sample_weight": True,
        "X_val": True,
        "y_val": True,
        "groups": True,
    }
    __metadata_request__partial_fit = {"sample_weight": True}

    _parameter_constraints = {
        "method": [StrOptions(set(METHODS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "pooling": [StrOptions({"log-linear", "linear"})],
        "response": [StrOptions({"pooled", "expected"}), None],
        "n_mixes": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions({"expected-log", "log-expected"})],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "mixing_layer": [Interval(Integral, 0, None, closed="left")],
        "embedding_variance": [StrOptions({"shared", "separate"})],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "n_train_draws": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "validation": [StrOptions({"holdout"}), HasMethods(["split"]), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "early_stopping": ["boolean"],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "net": [HasMethods(["fit", "get_params"]), None],
        "callbacks": [list, None],
        "warm_start": ["boolean"],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        method="m-probmix",
        alpha=0.2,
        beta=0.0,
        n_neighbors=None,
        pooling="log-linear",
        response=None,
        n_mixes=1,
        objective="expected-log",
        hidden_layer_sizes=(128, 64),
        activation="relu",
        dropout=0.0,
        mixing_layer=1,
        embedding_variance="shared",
        n_draws=32,
        n_train_draws=1,
        lr=0.003,
        weight_decay=0.01,
        batch_size=64,
        max_epochs=300,
        validation="holdout",
        validation_fraction=0.2,
        early_stopping=True,
        n_iter_no_change=50,
        net=None,
        callbacks=None,
        warm_start=False,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        self.method = method
        self.alpha = alpha
        self.beta = beta
        self.n_neighbors = n_neighbors
        self.pooling = pooling
        self.response = response
        self.n_mixes = n_mixes
        self.objective = objective
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.mixing_layer = mixing_layer
        self.embedding_variance = embedding_variance
        self.n_draws = n_draws
        self.n_train_draws = n_train_draws
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validation = validation
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.net = net
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, groups=None):
        """Train the network and keep its best epoch.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            With `net=` of any shape whose first axis are rows.
        y : array-like of shape (n,) or (n, n_outputs)
            In the support of the family; for the classifier labels of any type.
        sample_weight : array-like of shape (n,), default=None
            At least 0; weights are scaled to mean 1.
        X_val, y_val : array-likes, default=None
            Validation data, in place of rows held out from X and y.
        groups : array-like of shape (n,), default=None
            Passed to the splitter `validation`, or kept together by the hold-out.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If data or parameters are not as described; the estimator is then as it was before.
        """
        with self._unchanged_on_error():
            self._validate_params()
            warm = self.warm_start and hasattr(self, "net_")
            X, y = self._validate_rows(X, y, reset=not warm)
            weight = self._check_weight(sample_weight, X, y)
            rng = check_random_state(self.random_state)
            if not warm:
                self._fit_scaling(X, y, weight)
            whole = self._part(X, y, weight)
            if X_val is not None:
                check_consistent_length(X_val, y_val)
                X_val, y_val = self._validate_rows(X_val, y_val, reset=False)
                train, valid = whole, self._part(X_val, y_val, None)
            else:
                train, valid = self._split(whole, X, y, groups, rng)
            self._train(train, valid, rng, self.net_ if warm else None)
        return self

    def _partial_fit(self, X, y, sample_weight, **kwargs):
        with self._unchanged_on_error():
            self._validate_params()
            first = not hasattr(self, "net_")
            X, y = self._validate_rows(X, y, reset=first, **kwargs)
            weight = self._check_weight(sample_weight, X, y)
            if first:
                self._fit_scaling(X, y, weight)
            rng = check_random_state(self.random_state)
            part = self._part(X, y, weight)
            self._train(part, None, rng, None if first else self.net_, max_epochs=1)
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = self.net is not None
        return tags

    @contextmanager
    def _unchanged_on_error(self):
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _validate_X(self, X, **kwargs):
        return validate_data(self, X, dtype=np.float64, allow_nd=self.net is not None, **kwargs)

    def _check_weight(self, sample_weight, X, y):
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weight = weight * self._class_weight(y)
        if not weight.sum() > 0:
            raise ValueError("sample_weight sums to 0; expected at least one positive weight.")
        uniform = sample_weight is None and (weight == weight[0]).all()
        return None if uniform else weight / weight.mean()

    def _class_weight(self, y):
        return np.ones(len(y))

    def _fit_scaling(self, X, y, weight):
        """Learn how X and y are standardised; sequences are standardised by channel."""
        channels = X.reshape(-1, X.shape[-1])
        if weight is not None:
            weight_of_channel = np.repeat(weight, len(channels) // len(X))
            self.scaler_ = StandardScaler().fit(channels, sample_weight=weight_of_channel)
        else:
            self.scaler_ = StandardScaler().fit(channels)
        weight = torch.ones(len(y)) if weight is None else torch.from_numpy(weight)
        y = torch.as_tensor(y, dtype=torch.float64).reshape(len(y), -1)
        self.family_ = self._make_family()
        self.n_outputs_ = y.shape[1]
        self.y_shift_, self.y_scale_ = self.family_.scaling(y, weight.double())

    def _scale_X(self, X):
        scaled = self.scaler_.transform(X.reshape(-1, X.shape[-1])).reshape(X.shape)
        return torch.from_numpy(scaled.astype(np.float32))

    def _part(self, X, y, weight):
        y = torch.as_tensor(y, dtype=torch.float64).reshape(len(y), -1)
        y = self.family_.standardise(y, self.y_shift_, self.y_scale_).to(self.family_.dtype)
        weight = None if weight is None else torch.from_numpy(weight).float()
        return _Part(self._scale_X(X), y, weight)

    def _split(self, whole, X, y, groups, rng):
        """Divide rows into a training and a validation part, the latter perhaps None."""
        if self.validation is None:
            return whole, None
        if len(y) < _MIN_ROWS_FOR_HOLDOUT and self.validation == "holdout":
            warnings.warn(
                f"{len(y)} rows are too few to hold some out; the last epoch is kept.",
                UserWarning,
                stacklevel=3,
            )
            return whole, None
        splitter = self.validation
        if splitter == "holdout":
            splitter = self._holdout(y, groups, rng)
        train, valid = next(splitter.split(X, self._stratum(y), groups))
        return whole.take(train), whole.take(valid)

    def _holdout(self, y, groups, rng):
        kind = ShuffleSplit if groups is None else GroupShuffleSplit
        if groups is None and self._can_stratify(y):
            kind = StratifiedShuffleSplit
        return kind(1, test_size=self.validation_fraction, random_state=rng.randint(2**31))

    def _can_stratify(self, y):
        return False

    def _stratum(self, y):
        return y

    def _train(self, train, valid, rng, net, max_epochs=None):
        """Train a new net, or a copy of the one given, and keep it."""
        epochs_before = 0 if net is None else len(net.history)
        seeds = np.random.SeedSequence([rng.randint(2**31), epochs_before]).generate_state(3)
        best = BestEpoch(self.n_iter_no_change if self.early_stopping else None)
        settings = self._settings(best, valid, seeds.tolist())
        if max_epochs is not None:
            settings["max_epochs"] = max_epochs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seeds[0]))
            net = self._new_net(train) if net is None else copy.deepcopy(net)
            self._set_loaders(net, settings)
            # By attribute: set_params of an initialised net builds it anew.
            for name, value in settings.items():
                setattr(net, name, value)
            if net.initialized_:
                net.initialize_callbacks()
            net.partial_fit(train.dataset(), None)
        n_epochs = len(net.history) - epochs_before
        self._report(best, n_epochs)
        net.train_split = None
        self.net_ = net
        self.n_iter_ = n_epochs
        self.best_epoch_ = best.best_epoch_
        kept = ("epoch", "train_loss", "valid_loss", "dur")
        self.history_ = [
            {name: epoch[name] for name in kept if name in epoch} for epoch in net.history
        ]

    def _report(self, best, n_epochs):
        """Say how training ended where it did not end well."""
        if best.stop_reason_ == "divergence":
            cause = f"the loss is not finite in epoch {n_epochs}; lower lr"
            if self.net is None:
                cause += f" (now {self.lr}) or raise variance_floor (now {self.variance_floor})"
            if best.best_epoch_ is None:
                raise ValueError(f"Training diverged: {cause}.")
            warnings.warn(
                f"Training diverged: {cause}. Kept the weights of epoch {best.best_epoch_}.",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif best.stop_reason_ == "interruption":
            if best.best_epoch_ is None:
                raise KeyboardInterrupt
            warnings.warn(
                f"Training was interrupted in epoch {n_epochs + 1}; kept the weights of epoch "
                f"{best.best_epoch_}.",
                UserWarning,
                stacklevel=4,
            )

    def _new_net(self, train):
        sizes = {
            "family": self.family_,
            "n_features": train.X.shape[-1],
            "n_outputs": self.n_outputs_,
        }
        if self.net is not None:
            net = clone(self.net)
            accepted = inspect.signature(net.module).parameters
            given = net.get_params()
            return net.set_params(
                **{
                    f"module__{name}": value
                    for name, value in sizes.items()
                    if name in accepted and f"module__{name}" not in given
                },
                criterion=NegativeLogLikelihood,
                criterion__family=self.family_,
            )
        embedding = "point"
        if METHODS[self.method].random_embedding:
            embedding = {"shared": "gaussian", "separate": "gaussian-separate"}[
                self.embedding_variance
            ]
        module = sizes | {
            "hidden_layer_sizes": tuple(self.hidden_layer_sizes),
            "activation": self.activation,
            "dropout": self.dropout,
            "mixing_layer": self.mixing_layer,
            "embedding": embedding,
            "n_draws": self.n_draws,
            "n_train_draws": self.n_train_draws,
        }
        return NeuralNet(
            MLP,
            criterion=NegativeLogLikelihood,
            criterion__family=self.family_,
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=self.weight_decay,
            optimizer__fused=True,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=-1 if self.batch_size is None else self.batch_size,
            device=self.device,
            iterator_train__shuffle=True,
            **{f"module__{name}": value for name, value in module.items()},
        )

    def _mixes(self):
        return METHODS[self.method].site is not None and self.alpha > 0

    def _settings(self, best, valid, seeds):
        """Attributes of the net that belong to this fit."""
        callbacks = [("best_epoch", best)]
        if self._mixes():
            callbacks.append(("prob_mixup", self._mixup(seeds[1])))
        own = self.net.callbacks if self.net is not None else None
        return {
            "callbacks": [*callbacks, *(own or []), *(self.callbacks or [])],
            "train_split": None if valid is None else predefined_split(valid.dataset()),
            "verbose": int(self.verbose > 1),
            "iterator_train__random_state": seeds[2],
        }

    def _set_loaders(self, net, settings):
        """Replace the loaders, but for those of the user's own."""
        needs_neighbors = self._mixes() and self.n_neighbors is not None
        if net.iterator_train in (DataLoader, TensorLoader, NeighborLoader):
            settings["iterator_train"] = TensorLoader
            if needs_neighbors:
                settings["iterator_train"] = NeighborLoader
                settings["iterator_train__n_neighbors"] = self.n_neighbors
        elif needs_neighbors:
            raise ValueError(
                f"n_neighbors={self.n_neighbors!r} needs the NeighborLoader; found iterator_train="
                f"{net.iterator_train!r} in net."
            )
        else:
            del settings["iterator_train__random_state"]
        if net.iterator_valid in (DataLoader, TensorLoader):
            settings |= {"iterator_valid": TensorLoader, "iterator_valid__batch_size": 4096}

    def _mixup(self, seed):
        method = METHODS[self.method]
        return ProbMixup(
            site=method.site,
            alpha=self.alpha,
            beta=self.beta if method.probabilistic else 0.0,
            pooling=self.pooling if method.probabilistic else "log-linear",
            response=self.response,
            family=self.family_,
            n_mixes=self.n_mixes,
            objective=self.objective,
            random_state=seed,
        )

    def _natural_parameters(self, X):
        """Natural parameters (n, components, n_outputs, n_params) of the rows of X."""
        check_is_fitted(self)
        X = self._scale_X(self._validate_X(X, reset=False))
        net = self.net_
        net.module_.eval()
        chunks = []
        with torch.no_grad():
            for start in range(0, len(X), _CHUNK):
                rows = X[start : start + _CHUNK]
                padding = rows.new_zeros(_CHUNK - len(rows), *rows.shape[1:])
                eta = net.infer(torch.cat([rows, padding]))
                chunks.append(eta[: len(rows)].cpu())
        eta = torch.cat(chunks)
        return eta if eta.ndim == 4 else eta.unsqueeze(1)


class ProbMixupRegressor(RegressorMixin, _BaseProbMixup):
    """Regressor whose `predict_proba` is a predictive distribution, trained with mixup.

    A network maps x to natural parameters of the conditional density p(y given x). Training mixes
    pairs of rows with a coefficient lam ~ Beta(alpha, alpha) at one site of the network.

    Parameters
    ----------
    method : {"erm", "mixup", "manifold-mixup", "probmix", "m-probmix"}, default="m-probmix"
        What is mixed: nothing, inputs (eq. 7), activations of the embedding (eq. 30), the
        conditional densities (eq. 16), or densities of a random embedding (eq. 22).
    alpha : float, default=0.2
        Parameter of the law of lam, at least 0; 0 means no mixing.
    beta : float, default=0.0
        Variance of the kernel around y (eq. 14) in units of the transformed y; used by the
        probabilistic methods.
    n_neighbors : int or None, default=None
        Mix a row with one of its K nearest neighbours (Loc^K) instead of any row.
    pooling : {"log-linear", "linear"}, default="log-linear"
        Fusion of densities, eq. 18 or 17; used by the probabilistic methods.
    response : {"pooled", "expected"} or None, default=None
        Pool the responses (eq. 14) or mix their losses (Assumption 4.2). None means "pooled" for
        Normal and log-normal, "expected" for every other family.
    n_mixes : int, default=1
        Monte-Carlo draws of lam for each pair (K of eq. 16).
    objective : {"expected-log", "log-expected"}, default="expected-log"
        Expected log-likelihood over these draws, or log of the expected likelihood (Appendix B).
    family : str or Family, default="normal"
        "normal", "homoscedastic-normal", "lognormal", "gamma", "beta", "poisson", "bernoulli", or
        an instance.
    hidden_layer_sizes : sequence of int, default=(128, 64)
    activation : {"relu", "silu", "gelu", "elu", "tanh"}, default="relu"
    dropout : float, default=0.0
    mixing_layer : int, default=1
        Number of hidden layers that form the embedding.
    embedding_variance : {"shared", "separate"}, default="shared"
        Whether the variance of a random embedding shares the trunk with its mean, or comes from
        a network of its own (M-ProbMix*).
    n_draws, n_train_draws : int, default=32 and 1
        Draws of a random embedding per row, in prediction and in training.
    variance_floor : float, default=1e-4
        Smallest variance of a Normal or log-normal component, in units of the transformed y.
    lr, weight_decay : float, default=0.003 and 0.01
        Of the AdamW optimiser.
    batch_size : int or None, default=64
        None trains on the full batch.
    max_epochs : int, default=300
    validation : "holdout", splitter or None, default="holdout"
        A fraction of rows, the first split of a scikit-learn splitter, or no validation.
    validation_fraction : float, default=0.2
    early_stopping : bool, default=True
        Stop after `n_iter_no_change` epochs without a better validation loss. The best epoch is
        kept in either case.
    n_iter_no_change : int, default=50
    net : skorch.NeuralNet or None, default=None
        Unfitted net with a module of one's own, which returns natural parameters (rows,
        n_outputs, n_params); methods that mix an embedding need its submodule `embedding`. Its
        arguments `family`, `n_features` and `n_outputs` are filled in where it has them. The
        module and the optimiser are then the net's own affair: `hidden_layer_sizes` to
        `max_epochs` above are ignored.
    callbacks : list of skorch callbacks or None, default=None
    warm_start : bool, default=False
        Continue from the weights and the scaling of the previous fit.
    device : str, default="cpu"
    random_state : int, RandomState or None, default=None
    verbose : int, default=0
        2 prints skorch's table of epochs.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net.
    family_ : Family
    scaler_ : StandardScaler
        Of X. `y_shift_` and `y_scale_` are what was removed from y.
    n_iter_ : int
        Number of epochs run.
    best_epoch_ : int
        Number, from 1, of the epoch whose weights were kept.
    history_ : list of dict
        Losses of each epoch, mean negative log-likelihood in nats per row, of transformed y.
    n_features_in_, feature_names_in_, n_outputs_
        As in scikit-learn.

    References
    ----------
    El-Laham, Dalmasso, Vyetrenko, Potluru, Veloso. Mixup Regularization: A Probabilistic
    Perspective. UAI 2025, PMLR 286:1184-1219.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn_probmix import ProbMixupRegressor
    >>> X, y = make_regression(n_samples=100, n_features=3, noise=5.0, random_state=0)
    >>> est = ProbMixupRegressor(method="probmix", max_epochs=20, random_state=0).fit(X, y)
    >>> mean, sd = est.predict(X[:5], return_std=True)
    >>> est.predict_proba(X[:5]).interval(0.9)[0].shape
    (5,)
    """

    _parameter_constraints = {
        **_BaseProbMixup._parameter_constraints,
        "family": [StrOptions(set(FAMILIES) - {"categorical"}), Family],
        "variance_floor": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        method="m-probmix",
        alpha=0.2,
        beta=0.0,
        n_neighbors=None,
        pooling="log-linear",
        response=None,
        n_mixes=1,
        objective="expected-log",
        family="normal",
        hidden_layer_sizes=(128, 64),
        activation="relu",
        dropout=0.0,
        mixing_layer=1,
        embedding_variance="shared",
        n_draws=32,
        n_train_draws=1,
        variance_floor=1e-4,
        lr=0.003,
        weight_decay=0.01,
        batch_size=64,
        max_epochs=300,
        validation="holdout",
        validation_fraction=0.2,
        early_stopping=True,
        n_iter_no_change=50,
        net=None,
        callbacks=None,
        warm_start=False,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            method=method,
            alpha=alpha,
            beta=beta,
            n_neighbors=n_neighbors,
            pooling=pooling,
            response=response,
            n_mixes=n_mixes,
            objective=objective,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            mixing_layer=mixing_layer,
            embedding_variance=embedding_variance,
            n_draws=n_draws,
            n_train_draws=n_train_draws,
            lr=lr,
            weight_decay=weight_decay,
            batch_size=batch_size,
            max_epochs=max_epochs,
            validation=validation,
            validation_fraction=validation_fraction,
            early_stopping=early_stopping,
            n_iter_no_change=n_iter_no_change,
            net=net,
            callbacks=callbacks,
            warm_start=warm_start,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.family = family
        self.variance_floor = variance_floor

    def partial_fit(self, X, y, sample_weight=None):
        """Make one pass over the rows, without validation, from the current weights.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, n_outputs)
            Standardised as in the first call.
        sample_weight : array-like of shape (n,), default=None

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight)

    def predict_proba(self, X):
        """Predictive distribution of y for each row of X.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        PredictiveDistribution of shape (n,) or (n, n_outputs)
            In the units of y; a mixture over draws of the embedding (eq. 24) for M-ProbMix.
        """
        eta = self._natural_parameters(X)
        parameters = self.family_.scipy_parameters(eta, self.y_shift_, self.y_scale_)
        if self._y_ndim == 1:
            parameters = {name: value.squeeze(-1) for name, value in parameters.items()}
        return PredictiveDistribution(
            self.family_.scipy_name, {name: value.numpy() for name, value in parameters.items()}
        )

    def predict(self, X, return_std=False, quantiles=None):
        """Mean of the predictive distribution.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        return_std : bool, default=False
            Also return the standard deviation.
        quantiles : array-like of float, default=None
            Return these quantiles instead, shape (n_quantiles, n) or (n_quantiles, n, n_outputs).

        Returns
        -------
        ndarray of shape (n,) or (n, n_outputs), or tuple of two such
        """
        dist = self.predict_proba(X)
        if quantiles is not None:
            if return_std:
                raise ValueError("return_std and quantiles exclude each other; found both.")
            return dist.ppf(quantiles)
        return (dist.mean(), dist.std()) if return_std else dist.mean()

    def _validate_rows(self, X, y, reset):
        X, y = self._validate_X(
            X, y=y, reset=reset, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        family = get_family(self.family)
        outside = ~family.in_support(torch.as_tensor(y, dtype=torch.float64)).numpy()
        if outside.any():
            where = tuple(np.argwhere(outside)[0])
            raise ValueError(
                f"y[{', '.join(map(str, where))}] = {y[where]} is outside the support of "
                f"{family!r}; expected {family.support}."
            )
        n_outputs = y[0].size
        if not reset and n_outputs != self.n_outputs_:
            raise ValueError(
                f"y has {n_outputs} outputs; expected {self.n_outputs_} as in the earlier fit."
            )
        if reset:
            self._y_ndim = y.ndim
        return X, y

    def _make_family(self):
        has_floor = self.family in ("normal", "homoscedastic-normal", "lognormal")
        floor = {"variance_floor": float(self.variance_floor)} if has_floor else {}
        return get_family(self.family, **floor)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class ProbMixupClassifier(ClassifierMixin, _BaseProbMixup):
    """Classifier trained with mixup of inputs, activations or predictive distributions.

    A network maps x to the logits of p(y given x), on which log-linear pooling is linear: ProbMix
    mixes logits (Theorem 4.3).

    Parameters
    ----------
    family : {"categorical", "bernoulli"} or Family, default="categorical"
        Bernoulli needs two classes.
    beta : float, default=0.0
        Smoothing of the one-hot labels before they are pooled; response "pooled" needs more
        than 0.
    response : {"pooled", "expected"} or None, default=None
        None means "expected": the loss is ``lam NLL(y_i) + (1 - lam) NLL(y_j)``.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied with `sample_weight`.
    method, alpha, n_neighbors, pooling, n_mixes, objective, hidden_layer_sizes, activation, \
dropout, mixing_layer, embedding_variance, n_draws, n_train_draws, variance_floor, lr, \
weight_decay, batch_size, max_epochs, validation, validation_fraction, early_stopping, \
n_iter_no_change, net, callbacks, warm_start, device, random_state, verbose
        As in :class:`ProbMixupRegressor`. The hold-out is stratified by class.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    net_, family_, scaler_, n_iter_, best_epoch_, history_, n_features_in_, feature_names_in_
        As in :class:`ProbMixupRegressor`.

    References
    ----------
    El-Laham, Dalmasso, Vyetrenko, Potluru, Veloso. Mixup Regularization: A Probabilistic
    Perspective. UAI 2025, PMLR 286:1184-1219.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_probmix import ProbMixupClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> est = ProbMixupClassifier(method="probmix", max_epochs=20, random_state=0).fit(X, y)
    >>> est.predict_proba(X[:5]).shape
    (5, 3)
    """

    _parameter_constraints = {
        **_BaseProbMixup._parameter_constraints,
        "family": [StrOptions({"categorical", "bernoulli"}), Family],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        *,
        method="m-probmix",
        alpha=0.2,
        beta=0.0,
        n_neighbors=None,
        pooling="log-linear",
        response=None,
        n_mixes=1,
        objective="expected-log",
        family="categorical",
        hidden_layer_sizes=(128, 64),
        activation="relu",
        dropout=0.0,
        mixing_layer=1,
        embedding_variance="shared",
        n_draws=32,
        n_train_draws=1,
        lr=0.003,
        weight_decay=0.01,
        batch_size=64,
        max_epochs=300,
        validation="holdout",
        validation_fraction=0.2,
        early_stopping=True,
        n_iter_no_change=50,
        class_weight=None,
        net=None,
        callbacks=None,
        warm_start=False,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            method=method,
            alpha=alpha,
            beta=beta,
            n_neighbors=n_neighbors,
            pooling=pooling,
            response=response,
            n_mixes=n_mixes,
            objective=objective,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            mixing_layer=mixing_layer,
            embedding_variance=embedding_variance,
            n_draws=n_draws,
            n_train_draws=n_train_draws,
            lr=lr,
            weight_decay=weight_decay,
            batch_size=batch_size,
            max_epochs=max_epochs,
            validation=validation,
            validation_fraction=validation_fraction,
            early_stopping=early_stopping,
            n_iter_no_change=n_iter_no_change,
            net=net,
            callbacks=callbacks,
            warm_start=warm_start,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.family = family
        self.class_weight = class_weight

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Make one pass over the rows, without validation, from the current weights.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,)
        classes : array-like of shape (n_classes,), default=None
            All labels that later calls may hold; only read in the first call, where None takes
            those of y.
        sample_weight : array-like of shape (n,), default=None

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight, classes=classes)

    def predict_proba(self, X):
        """Class probabilities.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of `classes_`; averaged over draws of the embedding (eq. 24) for
            M-ProbMix.
        """
        eta = self._natural_parameters(X)
        p = self.family_.scipy_parameters(eta)["p"].mean(1)[:, 0].numpy()
        return p if p.ndim == 2 else np.stack([1 - p, p], axis=1)

    def predict_log_proba(self, X):
        """Logarithm of :meth:`predict_proba`, shape (n, n_classes)."""
        return np.log(self.predict_proba(X))

    def predict(self, X):
        """Most probable class.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,)
        """
        p = self.predict_proba(X)
        return self.classes_[p.argmax(axis=1)]

    def _validate_rows(self, X, y, reset, classes=None):
        X, y = self._validate_X(X, y=y, reset=reset, ensure_min_samples=2)
        check_classification_targets(y)
        if reset:
            self.classes_ = np.unique(y if classes is None else classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y holds the classes {unknown.tolist()}; expected those of the first fit, "
                f"{self.classes_.tolist()}."
            )
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds the single class {self.classes_[0]!r}; expected at least 2 classes."
            )
        return X, np.searchsorted(self.classes_, y)

    def _class_weight(self, y):
        if self.class_weight is None:
            return super()._class_weight(y)
        return compute_sample_weight(self.class_weight, self.classes_[y])

    def _make_family(self):
        n_classes = len(self.classes_)
        if self.family == "bernoulli" and n_classes != 2:
            raise ValueError(
                f"family='bernoulli' with {n_classes} classes; expected 2, or family='categorical'."
            )
        size = {"n_classes": n_classes} if self.family == "categorical" else {}
        return get_family(self.family, **size)

    def _can_stratify(self, y):
        smallest, n_classes = np.bincount(y).min(), len(self.classes_)
        n_valid = round(self.validation_fraction * len(y))
        if smallest < 2 or min(n_valid, len(y) - n_valid) < n_classes:
            warnings.warn(
                f"The hold-out is not stratified: the smallest of {n_classes} classes has "
                f"{smallest} of {len(y)} rows.",
                UserWarning,
                stacklevel=6,
            )
            return False
        return True
