"""The two estimators: from a table to predictive distributions."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from sklearn_probmix.base import BaseProbMixup
from sklearn_probmix.calibration import (
    calibrate,
    fit_spread,
    fit_temperature,
    spread_nll,
    temperature_nll,
)
from sklearn_probmix.criterion import log_likelihood
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.families import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Family,
    LogNormal,
    Mixture,
    Normal,
    get_family,
)
from sklearn_probmix.metrics import coverage, crps, nll

__all__ = ["ProbMixupClassifier", "ProbMixupRegressor"]


class ProbMixupRegressor(RegressorMixin, BaseProbMixup):
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
        **BaseProbMixup._parameter_constraints,
        "family": [StrOptions(set(FAMILIES) - {"categorical"}), Family],
        "variance_floor": [Interval(Real, 0, None, closed="neither")],
        "variance_weighting": [Interval(Real, 0, 1, closed="both")],
        "monitor": [StrOptions({"nll", "crps"})],
    }
    _auto_kinds = ({"method": "erm"}, {"method": "probmix"}, {"method": "m-probmix"})

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
        n_members=1,
        weighting="stacked",
        calibration="off",
        hidden_layer_sizes=(128, 64),
        activation="relu",
        dropout=0.0,
        mixing_layer=1,
        embedding_variance="shared",
        n_draws=32,
        n_train_draws=1,
        variance_floor=1e-4,
        variance_weighting=0.0,
        lr=0.003,
        lr_schedule="constant",
        weight_decay=0.01,
        batch_size=64,
        max_epochs=300,
        validation="holdout",
        validation_fraction=0.2,
        monitor="nll",
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
        self.family = family
        self.n_members = n_members
        self.weighting = weighting
        self.calibration = calibration
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.mixing_layer = mixing_layer
        self.embedding_variance = embedding_variance
        self.n_draws = n_draws
        self.n_train_draws = n_train_draws
        self.variance_floor = variance_floor
        self.variance_weighting = variance_weighting
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validation = validation
        self.validation_fraction = validation_fraction
        self.monitor = monitor
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.net = net
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

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
        return self._predictive(self._mixture(X))

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

    def _validate_rows(self, X, y, reset, name="y"):
        X, y = self._validate_X(
            X, y=y, reset=reset, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        family = get_family(self.family)
        outside = ~family.in_support(torch.tensor(y, dtype=torch.float64)).numpy()
        if outside.any():
            where = tuple(np.argwhere(outside)[0])
            raise ValueError(
                f"{name}[{', '.join(map(str, where))}] = {y[where]} is outside the support of "
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
        if isinstance(self.family, Categorical):
            raise ValueError(f"family={self.family!r} is the classifier's; expected another.")
        has_floor = self.family in ("normal", "homoscedastic-normal", "lognormal")
        floor = {"variance_floor": float(self.variance_floor)} if has_floor else {}
        return get_family(self.family, **floor)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _kinds(self):
        kinds = super()._kinds()
        plain = [kind for kind in kinds if kind.variance_weighting or kind.monitor == "crps"]
        if plain and (not isinstance(self.family_, Normal) or isinstance(self.family_, LogNormal)):
            raise ValueError(
                "variance_weighting > 0 and monitor='crps' need family='normal' or "
                f"'homoscedastic-normal'; found {self.family_!r}."
            )
        return kinds

    def _predictive(self, mixture):
        eta, log_weights = mixture
        if self.calibration_ is not None:
            eta = self.family_.widen(eta, *self.calibration_)
        parameters = self.family_.scipy_parameters(eta, *self._y_scaling())
        if self._y_ndim == 1:
            parameters = {name: value.squeeze(-1) for name, value in parameters.items()}
        return PredictiveDistribution(
            self.family_.scipy_name,
            {name: value.numpy() for name, value in parameters.items()},
            weights=log_weights.double().softmax(-1).numpy() if eta.shape[1] > 1 else None,
        )

    def _fit_calibration(self, mixture, part, weight):
        """Coefficients (a, b) of the calibrated variance ``a v + b``, or None."""
        if not isinstance(self.family_, Normal):
            return None
        y = part.y.log() if isinstance(self.family_, LogNormal) else part.y
        moments = self.family_.moments(mixture.eta.double())
        tensors = (y.double(), *moments, mixture.log_weights.double().softmax(-1))
        data = (*(tensor.numpy() for tensor in tensors), weight)
        return calibrate(fit_spread, spread_nll, data, self.calibration)

    def _score_predictive(self, dist, y, sample_weight):
        return {
            "nll": nll(y, dist, sample_weight=sample_weight),
            "crps": crps(y, dist, sample_weight=sample_weight),
            "coverage": coverage(y, dist, level=0.9, sample_weight=sample_weight),
        }


class ProbMixupClassifier(ClassifierMixin, BaseProbMixup):
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
        **BaseProbMixup._parameter_constraints,
        "family": [StrOptions({"categorical", "bernoulli"}), Family],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }
    _auto_kinds = ({"method": "erm"}, {"method": "probmix"}, {"method": "m-probmix"})

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
        n_members=1,
        weighting="stacked",
        calibration="off",
        hidden_layer_sizes=(128, 64),
        activation="relu",
        dropout=0.0,
        mixing_layer=1,
        embedding_variance="shared",
        n_draws=32,
        n_train_draws=1,
        lr=0.003,
        lr_schedule="constant",
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
        self.method = method
        self.alpha = alpha
        self.beta = beta
        self.n_neighbors = n_neighbors
        self.pooling = pooling
        self.response = response
        self.n_mixes = n_mixes
        self.objective = objective
        self.family = family
        self.n_members = n_members
        self.weighting = weighting
        self.calibration = calibration
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.mixing_layer = mixing_layer
        self.embedding_variance = embedding_variance
        self.n_draws = n_draws
        self.n_train_draws = n_train_draws
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validation = validation
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.net = net
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

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
        return self._predictive(self._mixture(X))

    def predict_log_proba(self, X):
        """Logarithm of :meth:`predict_proba`, shape (n, n_classes)."""
        return self._log_predictive(self._mixture(X))

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

    def _validate_rows(self, X, y, reset, classes=None, name="y"):
        X, y = self._validate_X(X, y=y, reset=reset, ensure_min_samples=2)
        check_classification_targets(y)
        if reset:
            self.classes_ = np.unique(y if classes is None else classes)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"{name} holds the classes {unknown.tolist()}; expected those of the first fit, "
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
        family = get_family(self.family, **size)
        if not isinstance(family, Bernoulli | Categorical) or family.n_classes != n_classes:
            raise ValueError(
                f"family={self.family!r} with {n_classes} classes; expected 'categorical', or "
                "'bernoulli' for 2."
            )
        return family

    def _predictive(self, mixture):
        return np.exp(self._log_predictive(mixture))

    def _log_predictive(self, mixture):
        """Logarithm of the class probabilities of a mixture, (n, n_classes)."""
        mixture = Mixture(*(value.double() for value in mixture))
        classes = torch.arange(len(self.classes_)).reshape(1, -1, 1)
        log_p = log_likelihood(self.family_, mixture, classes.expand(len(mixture.eta), -1, -1))
        log_p = log_p[..., 0].numpy()
        return (
            log_p if self.calibration_ is None else log_softmax(log_p / self.calibration_, axis=1)
        )

    def _fit_calibration(self, mixture, part, weight):
        """Temperature of the calibrated probabilities, or None."""
        data = (part.y[:, 0].long().numpy(), self._log_predictive(mixture), weight)
        return calibrate(fit_temperature, temperature_nll, data, self.calibration)

    def _score_predictive(self, p, y, sample_weight):
        return {
            "nll": log_loss(y, p, labels=np.arange(p.shape[1]), sample_weight=sample_weight),
            "accuracy": accuracy_score(y, p.argmax(1), sample_weight=sample_weight),
        }

    def _can_stratify(self, y, n_rows, n_parts):
        smallest, n_classes = np.bincount(y, minlength=len(self.classes_)).min(), len(self.classes_)
        if smallest < n_parts or n_rows < n_classes:
            self._warn(
                f"The held-out rows are not stratified: the smallest of {n_classes} classes has "
                f"{smallest} of {len(y)} rows."
            )
            return False
        return True
