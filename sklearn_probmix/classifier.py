"""The classifier: from a table to class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_probmix.base import BaseProbMixup
from sklearn_probmix.calibration import calibrate
from sklearn_probmix.criterion import log_likelihood
from sklearn_probmix.encoding import to_labels
from sklearn_probmix.families import Bernoulli, Categorical, Family, get_family
from sklearn_probmix.kinds import CLASSIFICATION, Kind
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.warn import warn

__all__ = ["ProbMixupClassifier"]


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
        Weights of the classes, multiplied with `sample_weight`; `X_val` has none.
    calibration : {"auto", "on", "off"}, default="auto"
        Raise probabilities to the power 1 / T and normalise them, with the temperature T fitted
        on rows that the networks did not train on, if there are any. "auto" does so where nested
        folds say that it lowers the log loss.
    method : str or list, default="auto"
        As in :class:`ProbMixupRegressor`, but "auto" is two kinds: an ERM network of smooth units
        and a wide ProbMix network.
    alpha, n_neighbors, pooling, n_mixes, objective, n_members, weighting, \
hidden_layer_sizes, activation, n_knots, dropout, mixing_layer, embedding_variance, n_draws, \
n_train_draws, lr, lr_schedule, weight_decay, batch_size, max_epochs, validation, \
validation_fraction, early_stopping, n_iter_no_change, net, callbacks, warm_start, device, \
random_state, verbose
        As in :class:`ProbMixupRegressor`. The hold-out and the folds are stratified by class,
        where every class has rows enough.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    calibration_ : Temperature or None
    oof_predictive_ : ndarray of shape (n, n_classes)
        With validation="cv", probabilities of the rows of positive weight by members that did not
        train on the row.
    oof_scores_ : dict of float
        "nll" (log loss) and "accuracy" of these.
    nets_, kinds_, weights_, family_, scaler_, n_iter_, best_epoch_, history_, n_features_in_, \
feature_names_in_
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
    _auto_kinds = CLASSIFICATION

    def __init__(
        self,
        *,
        method: str | Kind | Sequence[str | Kind] = "auto",
        alpha: float | None = None,
        n_neighbors: int | None = None,
        pooling: str | None = None,
        family: str | Family = "categorical",
        n_members: int = 5,
        weighting: str = "stacked",
        calibration: str = "auto",
        hidden_layer_sizes: Sequence[int] | None = None,
        activation: str | None = None,
        n_knots: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        batch_size: int | str | None = None,
        max_epochs: int | str | None = None,
        validation: Any = "auto",
        class_weight: dict | str | None = None,
        net: NeuralNet | None = None,
        callbacks: list[Callback] | None = None,
        warm_start: bool = False,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.method = method
        self.alpha = alpha
        self.n_neighbors = n_neighbors
        self.pooling = pooling
        self.family = family
        self.n_members = n_members
        self.weighting = weighting
        self.calibration = calibration
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.n_knots = n_knots
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validation = validation
        self.class_weight = class_weight
        self.net = net
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
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

    @neutral_settings
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Class probabilities.

        Threads may predict at once, while nothing fits this very object: their results are the
        serial ones, bit for bit.

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

    @neutral_settings
    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithm of :meth:`predict_proba`, shape (n, n_classes)."""
        return self._log_predictive(self._mixture(X))

    def predict(self, X: Any) -> np.ndarray:
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

    def _validate_rows(self, X, y, reset, classes=None, suffix=""):
        name = f"y{suffix}"
        X, y = self._check_rows(X, y, to_labels, reset, suffix)
        if reset:
            self.classes_ = np.unique(y if classes is None else to_labels(classes, "classes"))
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"{name} holds the classes {unknown.tolist()}; expected those of the first fit, "
                f"{self.classes_.tolist()}."
            )
        if len(self.classes_) < 2:
            (label,) = self.classes_.tolist()
            raise ValueError(f"y holds the single class {label!r}; expected at least 2 classes.")
        return X, np.searchsorted(self.classes_, y)

    def _class_weight(self, y):
        if self.class_weight is None:
            return super()._class_weight(y)
        weight = compute_sample_weight(self.class_weight, self.classes_[y])
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise ValueError(
                f"class_weight={self.class_weight!r}; expected finite weights, at least 0."
            )
        return weight

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
        mixture = Mixture(mixture.eta.double(), mixture.log_weights.double().log_softmax(-1))
        classes = torch.arange(len(self.classes_)).reshape(1, 1, -1, 1)
        points = classes.expand(len(mixture.eta), -1, -1, -1)
        log_p = log_likelihood(self.family_, mixture, points)[:, 0].numpy()
        return log_p if self.calibration_ is None else self.calibration_.apply(log_p)

    def _fit_calibration(self, mixture, held_out, weight):
        """Temperature of the calibrated probabilities, or None."""
        data = (held_out.y[:, 0].long().numpy(), self._log_predictive(mixture), weight)
        return calibrate(self.family_.calibration, data, self.calibration)

    def _score_predictive(self, p, y, sample_weight):
        return {
            "nll": log_loss(y, p, labels=np.arange(p.shape[1]), sample_weight=sample_weight),
            "accuracy": accuracy_score(y, p.argmax(1), sample_weight=sample_weight),
        }

    def _can_stratify(self, y, n_rows, n_parts):
        smallest, n_classes = np.bincount(y, minlength=len(self.classes_)).min(), len(self.classes_)
        if smallest < n_parts or n_rows < n_classes:
            warn(
                f"The held-out rows are not stratified: the smallest of {n_classes} classes has "
                f"{smallest} of {len(y)} rows."
            )
            return False
        return True
