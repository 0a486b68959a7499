"""The classifier: from a table to class probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

from sklearn_probmix.base import BaseProbMixup, PredictsInChunks
from sklearn_probmix.calibration import calibrate
from sklearn_probmix.criterion import log_likelihood
from sklearn_probmix.encoding import to_labels
from sklearn_probmix.families import Bernoulli, Categorical, Family, get_family
from sklearn_probmix.kinds import CLASSIFICATION, Kind
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.warn import warn

__all__ = ["ProbMixupClassifier", "ProbabilityClassifierMixin"]


class ProbabilityClassifierMixin(PredictsInChunks, ClassifierMixin):
    """What follows from `predict_proba`."""

    classes_: np.ndarray
    predict_proba: Callable[..., NDArray[np.float64]]

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

    def _score_predictive(self, p, y, sample_weight, censored=None):
        return {
            "nll": log_loss(y, p, labels=np.arange(p.shape[1]), sample_weight=sample_weight),
            "accuracy": accuracy_score(y, p.argmax(1), sample_weight=sample_weight),
        }


class ProbMixupClassifier(ProbabilityClassifierMixin, BaseProbMixup):
    """Classifier trained with mixup of inputs, activations or predicted probabilities.

    Use it where probabilities are to be trusted, not only the most probable class. X is
    standardised inside. A network maps x to the logits of p(y given x), on which log-linear pooling
    is linear: ProbMix mixes logits (Theorem 4.3 of the paper).

    Every parameter that is None by default stands for what the kinds of network say of it; any
    other value holds for all kinds. What is not listed here, such as `dropout` or `beta`, is a
    parameter of :class:`Kind`.

    Parameters
    ----------
    method : str, Kind or list of these, default="auto"
        Which kinds of network are trained. "auto" lets four run a race, so that you need not know
        which suits the table: after 200, 400, 800, ... steps each is judged by rows that it did not
        train on, goes on for as long as it gains and may help the mixture, and is delivered if it
        has a weight of .02 there. They are an ERM network of smooth units, a wide ProbMix network,
        a linear one, and a kernel network, which looks at training rows that are near. It keeps
        training rows, in model files too: "parametric" is "auto" without it. Where `max_epochs` or
        `net` is given, `weighting` is "uniform" or no rows are held out, there is no race, and all
        are trained to their end; with `net=` they are ``["erm", "probmix"]``. Name one method for a
        quick fit or to compare methods: "erm" mixes nothing (empirical risk minimisation), "mixup"
        mixes inputs, "manifold-mixup" activations of the embedding, "probmix" the predicted
        probabilities, "m-probmix" densities of a random embedding. A Kind says more than a name. A
        list trains several kinds, one after another, and takes the time of all; "probmix" takes 1.3
        times as long as "erm", "m-probmix" twice as long. Eq. 7 (mixup), 30 (manifold mixup), 16
        (ProbMix) and 22 (M-ProbMix) of the paper.
    alpha : float or None, default=None
        Strength of mixing, at least 0, of the kinds that mix; .2 in every kind behind "auto". Raise
        it towards 1 for labels that are often wrong, lower it where mixing hurts; 0 mixes nothing,
        and .05 to .4 suit most tables. The time of a fit does not depend on it. The share of a row
        in its pair is lam ~ Beta(alpha, alpha).
    n_neighbors : int or None, default=None
        Mix a row with one of its K nearest rows only, by standardised X, instead of any row. Try 5
        to 20 for classes that lie in curved shapes, with others between two random rows. Costs one
        search of neighbours in a fit, on 10,000 rows of 20 columns a twentieth of it. The Loc^K
        methods of the paper.
    pooling : {"log-linear", "linear"} or None, default=None
        How the probabilistic methods fuse two predictions: by the product of their powers, in every
        kind behind "auto", or by their mixture. Try "linear" where rows may lie far from the
        training rows. A mixture takes a twentieth longer. Eq. 18 and 17 of the paper.
    family : {"categorical", "bernoulli"} or Family, default="categorical"
        "bernoulli" has one logit in the place of two, and needs two classes; there is seldom a
        reason to change it. Both take the same time.
    n_members : int, default=5
        Networks of each kind, trained in one pass; they differ in initialisation and noise, and
        with validation="cv" in the rows that they hold out. One member for a quick fit or for a
        comparison of methods, 10 for a steadier mixture. Eight take about twice the time of one.
    weighting : {"stacked", "uniform"}, default="stacked"
        Weights of the kinds in the mixture: chosen by the log score of rows that the networks did
        not train on, with one row in advance for each kind; or uniform, as they are where no rows
        were held out. Choose "uniform" where held-out rows are too few to tell kinds apart.
        Members share the weight of their kind evenly. Costs a moment.
    calibration : {"auto", "on", "off"}, default="auto"
        Raise probabilities to the power 1 / T and normalise them, with the temperature T fitted on
        rows that the networks did not train on, if there are any. "auto" does so where nested folds
        say that it lowers the log loss; "off" shows what training alone achieves, "on" does it in
        any case. Costs little beside a fit.
    hidden_layer_sizes : sequence of int or None, default=None
        Units of the hidden layers; (128, 64) is a Kind's, the kinds behind "auto" have two or three
        layers of 64 to 256. Fewer units for fewer than 100 rows, () for a linear network. Two
        layers of 256 take a third longer than those of a Kind.
    activation : {"relu", "silu", "gelu", "elu", "tanh"} or None, default=None
        "relu" is a Kind's; "silu" suits smooth borders between classes. All take about the same
        time.
    n_knots : int or None, default=None
        Give the network each column's piecewise-linear encoding too, with so many knots at
        quantiles of the training rows: it then learns steps and bends, as trees do. Try 9 to 65 for
        borders along the columns; smooth small tables suffer from many. Nine take no more time, 65
        a third more; tables of many columns get fewer for each, about 1,040 in all, but at least 2.
    lr, weight_decay : float or None, default=None
        Step size and decay of the AdamW optimiser; .003 and .1 are a Kind's. Lower lr when training
        diverges, which a warning says; .0003 to .03 are sensible. More decay, up to 1, for noisy
        small tables. Neither changes the time of a step; a lower lr may need more epochs.
    batch_size : int, "auto", "full" or None, default=None
        Rows of a step. "auto", a Kind's, is 64 below 4,000 rows and 256 from there, in a race 1,024
        from 40,000; "full" takes all rows at once. An epoch in batches of 256 takes a third of the
        time of one in batches of 64, and learns less.
    max_epochs : int, "auto" or None, default=None
        Passes over the rows; the time of a fit is in proportion. "auto", a Kind's, makes about
        3,000 steps, but no fewer than 100 epochs and no more than 600; in a race of n rows, from
        40,000, ``3000 * (n / 40000) ** 0.6`` steps, of which an epoch has 200. 20 to 100 for a
        first look. Where rows are held out each network keeps its best epoch, so that more do
        little harm.
    validation : {"auto", "holdout", "cv"}, float, int, splitter, list or None, default="auto"
        Which rows are held out, and so choose the best epochs, the weights of kinds and the
        calibration. "cv" gives each of the `n_members` members a fold of its own to hold out, so
        that together they train on every row; an int is the number of folds, of which `n_members`
        is a multiple. "holdout" lets all members hold out the same fifth of the rows, a float in
        (0, 1) another share. A scikit-learn splitter, or a list of pairs of train and test rows,
        gives its first split: for rows in time, or in groups. None holds out nothing and keeps the
        last epoch: only where you know `max_epochs`. "auto" is "cv", from 50,000 rows a hold-out of
        10,000, and "holdout" for a single member. The hold-out and the folds are stratified by
        class, where every class has rows enough. Fewer than 10 rows are not divided, with a
        warning. Folds take about the time of a hold-out with as many members.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied with `sample_weight`; `X_val` has none. A dict holds a
        weight, at least 0, for each label, 1 where it has none; "balanced" makes all classes count
        alike. Leave it out where probabilities shall be right: weights distort them. Costs nothing.
    categorical_features : "from_dtype", array-like of bool, int or str, or None, \
            default="from_dtype"
        Which columns hold categories. "from_dtype": those of a data frame of pandas, polars or
        Arrow whose type is a category, and those of text of few values, at most 20 or half as many
        as rows; an array is all numbers. A mask, positions or names where codes are written as
        numbers, or for text in an array. None: no column. Each level becomes a column, the most
        frequent 64 if there are more, and the others share 16; a level that the fit has not seen is
        0 in all of them. What is missing in a column of numbers becomes its mean, and a column
        beside it says so if the fit had missing values there. Only the first `fit` reads it where
        later calls continue.
    net : skorch.NeuralNet or None, default=None
        Unfitted net with a module of one's own, for sequences, images, or an architecture that
        :class:`Kind` lacks. The module returns natural parameters (rows, n_outputs, n_params);
        methods that mix an embedding need its submodule `embedding`. Its arguments `family`,
        `n_features` and `n_outputs` are filled in where it has them. Network, optimiser, batches,
        epochs and device are then the net's own affair: `hidden_layer_sizes` to `max_epochs` above
        and `device` are ignored. A module given as an instance, not as a class, needs
        ``n_members=1``. "auto" takes twice the time of one kind.
    callbacks : list of skorch callbacks or None, default=None
        For what happens in training, such as logs. Used as they are, not copied: all kinds of
        network share them. They cost what they do.
    warm_start : bool, default=False
        Continue from the weights and the scaling of the previous fit, with a learning-rate schedule
        of its own; for rows that arrive in parts. Held-out rows are drawn anew: the same rows in
        the same order and an integer `random_state` keep them held out, otherwise scores of them
        are optimistic. What describes the networks may not change, such as `family`, `n_members` or
        `hidden_layer_sizes`.
    device : str, default="cpu"
        Where networks train and predict, torch's name of it, such as "cuda". A GPU is for wide
        networks, large batches and many members.
    random_state : int, RandomState or None, default=None
        Source of every draw: initialisation, held-out rows, batches, partners, lam and noise; set
        an int to have the same bits again. Estimators may be fitted in several threads at once:
        networks of this package draw from generators of their own, and fits run side by side. Only
        a module of your own (`net=`) draws from torch's global generator: under a lock, so that
        such fits take turns, and inside a fork of its state, which is afterwards as it was; what
        another thread draws from it meanwhile changes their numbers.
    verbose : int, default=0
        1 shows a bar of epochs, 2 prints skorch's table of them.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    nets_ : list of skorch.NeuralNet
        The trained net of every kind; `net_` is the first.
    kinds_ : list of Kind
        The kinds that were trained, whole: with the values set here, and the batch size and the
        number of epochs that "auto" came to.
    weights_ : ndarray of shape (n_kinds,)
        Their weights in the mixture.
    calibration_ : Temperature or None
        None where nothing was calibrated.
    oof_predictive_ : ndarray of shape (n, n_classes)
        With folds, probabilities of the rows of positive weight by the members of each kind that
        did not train on the row. These rows also chose the members' best epochs, the weights and
        the calibration.
    oof_scores_ : dict of float
        "nll" (log loss) and "accuracy" of these.
    family_ : Family
    encoder_ : ColumnEncoder or None
        Of categories and missing values; None where all columns of the fit were plain numbers.
    scaler_ : StandardScaler
        Of X.
    n_iter_ : int
        Number of epochs of the last fit, the largest of all kinds.
    best_epoch_ : int or ndarray of shape (n_kinds, n_members)
        Number, from 1, of the epoch whose weights were kept; an int for a single network.
    history_ : list of dict
        An epoch of a kind each: `kind` by position, `epoch`, `train_loss` and, with held-out rows,
        `valid_loss`, both in nats per row and means over members; `dur` in seconds. A DataFrame in
        one call: ``pd.DataFrame(est.history_)``.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    References
    ----------
    El-Laham, Dalmasso, Vyetrenko, Potluru, Veloso. Mixup Regularization: A Probabilistic
    Perspective. UAI 2025, PMLR 286:1184-1219.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_probmix import Kind, ProbMixupClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> est = ProbMixupClassifier(method="probmix", max_epochs=20, random_state=0).fit(X, y)
    >>> est.predict_proba(X[:5]).shape
    (5, 3)

    What only a kind can say, and which kinds were trained:

    >>> smooth = Kind("erm", activation="silu", dropout=0.1)
    >>> est = ProbMixupClassifier(method=[smooth, "probmix"], max_epochs=20, random_state=0)
    >>> [kind.method for kind in est.fit(X, y).kinds_]
    ['erm', 'probmix']
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
        class_weight: dict[Any, float] | str | None = None,
        categorical_features: ArrayLike | str | None = "from_dtype",
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
        self.categorical_features = categorical_features
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

        X is standardised by all rows that were seen so far. Where rows are kept (the kernel
        network, which "parametric" does without) or a calibration was fitted, and for the levels of
        categories, the first call settles it.

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

        It may be called in any number of threads at once, while nothing fits this very object, and
        gives the bits that it gives alone. The bits of a row do not depend on the other rows.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of `classes_`: averaged over kinds, members and, for M-ProbMix, draws of
            the embedding (eq. 24 of the paper).

        Examples
        --------
        >>> import numpy as np
        >>> X = np.linspace(0, 1, 40)[:, None]
        >>> est = ProbMixupClassifier(method="erm", max_epochs=5, random_state=0)
        >>> est.fit(X, np.where(X[:, 0] > 0.5, "high", "low")).predict_proba(X[:3]).shape
        (3, 2)
        """
        return np.concatenate(self._in_blocks(X, self._predictive))

    @neutral_settings
    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Logarithm of :meth:`predict_proba`, finite also where a probability is rounded to 0.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes)
        """
        return np.concatenate(self._in_blocks(X, self._log_predictive))

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

    def _predictive(self, mixtures):
        return np.exp(self._log_predictive(mixtures))

    def _log_predictive(self, mixtures):
        """Logarithm of the class probabilities, (n, n_classes)."""
        (part,) = self._parts(mixtures)
        log_p, calibration = self._log_uncalibrated(part), part.response.calibration
        return log_p if calibration is None else calibration.apply(log_p)

    def _log_uncalibrated(self, part):
        eta, log_weights = part.mixture
        mixture = Mixture(eta.double(), log_weights.double().log_softmax(-1))
        classes = torch.arange(len(self.classes_)).reshape(1, 1, -1, 1)
        points = classes.expand(len(eta), -1, -1, -1)
        return log_likelihood(part.response.family, mixture, points)[:, 0].numpy()

    def _fit_calibration(self, part, y, weight):
        """Temperature of the calibrated probabilities, or None."""
        data = (y[:, 0].long().numpy(), self._log_uncalibrated(part), weight)
        return calibrate(part.response.family.calibration, data, self.calibration)

    def _check_censored(self, censored, y):
        raise ValueError("censored: classes are not censored; expected None.")

    def _can_stratify(self, y, n_rows, n_parts):
        smallest, n_classes = np.bincount(y, minlength=len(self.classes_)).min(), len(self.classes_)
        if smallest < n_parts or n_rows < n_classes:
            warn(
                f"The held-out rows are not stratified: the smallest of {n_classes} classes has "
                f"{smallest} of {len(y)} rows."
            )
            return False
        return True
