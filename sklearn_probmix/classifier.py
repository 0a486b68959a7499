"""The classifier: from a table to class probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from numbers import Real
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
from sklearn_probmix.contract import PredictsInChunks
from sklearn_probmix.criterion import log_likelihood
from sklearn_probmix.encoding import to_labels
from sklearn_probmix.families import Bernoulli, Categorical, Family, get_family
from sklearn_probmix.kinds import CLASSIFICATION, FAST_CLASSIFICATION, Kind
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
    """Neural networks that predict probabilities of classes, for every row of a table.

    Use it where probabilities are to be trusted, not only the most likely class: where a decision
    depends on a risk of 3 or of 30 percent. `predict_proba` gives an array with a column for each
    class of `classes_`; `predict` is the most likely class. There may be any number of classes, and
    labels of any type. X may be an array or a data frame, with categories, text of few values and
    missing values in it; it is scaled inside.

    How it works: several *kinds* of network, which are recipes such as "linear" or "wide" or "looks
    at similar rows", are trained, each as five *members*. A member leaves out a fifth of the rows.
    What the networks predict for the rows that they left out decides when training ends, how much
    each kind weighs in the average, and whether probabilities have to be made bolder or more
    careful. Some kinds are trained with *mixup*: they see blends of two rows, which keeps them from
    learning noise by heart.

    The defaults are meant to be left alone, but for `random_state`. What most users come to change
    is `validation` (rows that belong together, or follow each other in time) and `method` (a faster
    fit). A parameter that is None leaves the choice to each kind; any other value holds for all
    kinds. What is not listed here, such as `dropout`, is a parameter of :class:`Kind`.

    Parameters
    ----------
    method : str, Kind or list of these, default="auto"
        Which kinds of network are trained. "auto", the default, lets four kinds run a race, so that
        you need not know what suits your table: a smooth network, a wide one trained with mixup, a
        linear one, and one that looks at similar training rows. After 200, 400, 800, ... steps each
        is judged by rows that it did not train on. It goes on for as long as it gains and may help
        the average, and is kept if it weighs at least 2 %. Takes some 20 seconds for a few hundred
        rows, minutes for ten thousand.

        "fast" is a race of the smooth and the linear one alone: choose it for a first look, and in
        searches.

        "parametric" is "auto" without the kinds that keep training rows: choose it where a model
        must not hold data of persons, or to predict faster.

        One name trains one kind, for a quick fit: "erm" is plain training; "probmix" blends the
        predicted probabilities of two rows, for noisy tables; "mixup" blends their inputs;
        "manifold-mixup" what a hidden layer makes of them; "m-probmix" random versions of that.
        "probmix" takes 1.3 times as long as "erm", "m-probmix" twice as long. A :class:`Kind` says
        more than a name; a list trains all that it names and takes the time of all.

        There is no race, and all kinds are trained to their end, where `max_epochs` or `net` is
        given, `weighting` is "uniform", or no rows are held out.
    alpha : float or None, default=None
        How strongly rows are blended, at least 0; .2 in the kinds behind "auto". 0 is no blending,
        1 makes every share equally likely. Raise it towards 1 for labels that are often wrong,
        lower it to .05 where a table has little noise. "erm" ignores it, and says so if it is set.
        Costs nothing.
    n_neighbors : int or None, default=None
        Blend a row only with one of its so many nearest rows, instead of with any. Try 5 to 20
        where classes lie in curved shapes, with others between two random rows. Costs one search of
        neighbours: on 10,000 rows of 20 columns a twentieth of the fit.
    pooling : {"log-linear", "linear"} or None, default=None
        How "probmix" and "m-probmix" blend two predictions. "log-linear", in all kinds behind
        "auto", averages log-probabilities; "linear" averages probabilities, and is less sure of
        rows unlike those of the training; try it where such rows will come. Takes a twentieth
        longer.
    family : {"categorical", "bernoulli"} or Family, default="categorical"
        How networks express probabilities. "categorical" has a number for each class; "bernoulli"
        has one for two classes. There is seldom a reason to change it. Both take the same time.
    n_members : int, default=5
        Networks of each kind. They are trained in one pass, differ in their random start and in the
        rows that they leave out, and are averaged. 1 for a quick fit or to compare methods, 10 for
        a steadier average. Eight take about twice the time of one.
    weighting : {"stacked", "uniform"}, default="stacked"
        How kinds are weighed in the average: by what they predict for rows that they left out, or
        all alike. Choose "uniform" where there are too few rows to tell kinds apart; there is then
        no race. Costs a moment.
    calibration : {"auto", "on", "off"}, default="auto"
        Make probabilities bolder or more careful, by what was found in rows that the networks left
        out: they are raised to the power 1 / T and normalised. "auto" does so where it helps in
        rows that did not choose T; "off" shows what training alone achieves; "on" does it
        wherever rows were left out. Costs little.
    hidden_layer_sizes : sequence of int or None, default=None
        Units of the hidden layers. The kinds behind "auto" have none, or two or three layers of 32
        to 256; a kind by name has (128, 64). Fewer, such as (32,), for less than 100 rows; () is a
        linear network. Two layers of 256 take a third longer than (128, 64).
    activation : {"relu", "silu", "gelu", "elu", "tanh"} or None, default=None
        What the units compute. "silu" suits smooth borders between classes; "relu", that of a kind
        by name, the others. All take about the same time.
    n_knots : int or None, default=None
        Show the networks each column also as so many steps, placed at its quantiles: they then
        learn jumps and bends, as trees do. Try 9 to 65 where the class changes at certain values of
        a column; small smooth tables suffer from many. 9 take no more time, 65 a third more. Tables
        of many columns get fewer for each, about 1,040 in all.
    lr, weight_decay : float or None, default=None
        Step size of the training, and how strongly it shrinks weights; .003 and .1 in a kind by
        name. Lower `lr` where a warning says that training diverged; .0003 to .03 are sensible.
        Raise `weight_decay` towards 1 for small noisy tables. A step costs the same; a lower `lr`
        may need more epochs.
    batch_size : int, "auto", "full" or None, default=None
        Rows of a step. "auto" is 64 below 4,000 rows and 256 from there, in a race 1,024 from
        40,000; "full" takes all rows at once. None is "auto", but 64 in the kinds behind
        method="auto" that look at similar rows. An epoch of 256 takes a third of the time of one of
        64, and learns less.
    max_epochs : int, "auto" or None, default=None
        Passes over the rows; the time of a fit is in proportion. None or "auto" makes about 3,000
        steps, 100 to 600 passes; in a race of n rows, from 40,000, ``3000 * (n / 40000) ** 0.6``
        steps; fewer in kinds that look at similar rows. 20 to 100 give a first look. Any
        value but None ends the race of method="auto". The best epoch of each member is kept, so
        that too many do little harm but for time.
    validation : {"auto", "holdout", "cv"}, float, int, splitter, list or None, default="auto"
        Which rows the networks leave out, to end training, to weigh kinds and to calibrate.

        * "cv", and so "auto" with several members below 50,000 rows: each member leaves out a part
          of its own, so that together they learn from all rows. An int is the number of parts, of
          which `n_members` is a multiple.
        * "holdout", and so "auto" with one member: all leave out the same fifth; a float in (0, 1)
          another share. From 50,000 rows "auto" with several members leaves out 10,000 rows.
        * A splitter of scikit-learn, or a list of pairs of training and test rows: its first split.
          For rows that follow each other in time, ``[(earlier_rows, later_rows)]``.
        * None: nothing is left out, and the last epoch is kept. Only where you know `max_epochs`.

        Rows that belong together, as those of one person: pass ``groups=`` to `fit`, and they are
        left out together. Parts have the classes in the same shares, where each class has rows
        enough. Fewer than 10 rows are not divided, with a warning. Folds take about the time of a
        hold-out with as many members.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes: a dict of label and weight, 1 for those not named; "balanced" makes
        all classes count alike. It is multiplied with `sample_weight`, and not used for `X_val`.
        Leave it out where probabilities shall be right: weights distort them, and rare classes are
        better served by a lower threshold. Costs nothing.
    categorical_features : "from_dtype", array-like of bool, int or str, or None, \
            default="from_dtype"
        Which columns hold categories. "from_dtype": of a data frame (pandas, polars, Arrow) those
        whose type is a category, and text of few values, at most 20 or half as many as rows; of an
        array none. A mask, positions or names, where categories are written as numbers, or for text
        in an array. None: no column. Each category becomes a column of 0 and 1, the most frequent
        64 if there are more, and the others share 16. One that `fit` has not seen is 0 in all. A
        missing number becomes the mean of its column, and a column beside it says so. Only the
        first `fit` reads it where later calls continue.
    net : skorch.NeuralNet or None, default=None
        An unfitted net around a module of your own, for sequences, images, or another architecture.
        The module returns what the family needs, shape (rows, n_outputs, n_params), as
        ``family.natural(raw)`` makes it. Its arguments `family`, `n_features` and `n_outputs` are
        filled in where it has them; methods that mix hidden layers need its submodule `embedding`.
        Optimiser, batches, epochs and device are then the net's own: `hidden_layer_sizes` to
        `max_epochs` above and `device` are ignored. "auto", "fast" and "parametric" then train
        ``["erm", "probmix"]``. A module given as an instance, not as a class, needs
        ``n_members=1``.
    callbacks : list of skorch callbacks or None, default=None
        What is to happen in training, such as logs. They are used as they are, not copied: all
        kinds share them. They cost what they do.
    warm_start : bool, default=False
        Let `fit` continue from the networks and the scaling of the previous one, for rows that
        arrive in parts. Rows are left out anew: only the same rows in the same order with an
        integer `random_state` are the same ones, otherwise their scores are too good. `family`,
        `n_members`, `hidden_layer_sizes` and what else describes the networks may not change.
    device : str, default="cpu"
        Where networks train, and from then on predict: "cuda", a GPU, which is an error where torch
        finds none, or "auto", a GPU if there is one and else the CPU. It holds the whole table. On
        a GPU equal seeds give equal scores up to rounding, not equal bits.
    n_jobs : int or None, default=None
        Kinds of network that train side by side, in threads, with the bits that they have one after
        the other; -1 takes all cores. None takes as many as torch has threads, unless a
        `joblib.parallel_config` says otherwise; it is 1 with `callbacks`, which several threads
        would call, on a GPU, and in a thread of your own, beside which others may fit. Torch's
        threads are shared out among them. In a search with jobs of its own leave it None. With
        `net` kinds take turns.
    checkpoint : str, path-like or None, default=None
        Folder where a long fit keeps the state of every kind whenever it has trained for 200, 400,
        800, ... steps. A fit that was killed or interrupted, and is called again with the same data
        and parameters, goes on from there, and ends with the bits of one that was not; it needs an
        int in `random_state`. Where the folder has a fit of other data or parameters, that is an
        error. A fit that ends deletes its files, and the folder if it is empty then. Like a model
        file they hold no code, but training rows where there are kernel networks; each fit needs a
        folder of its own. What `callbacks` of your own remember is not kept. Writing costs a
        fraction of a second each time.
    random_state : int, RandomState or None, default=None
        Set an int to get the same bits again: it is the source of every draw (start, rows left out,
        batches, blends). Estimators may be fitted in several threads at once. Only a module of your
        own (`net=`) draws from torch's global generator: such fits take turns, leave its state as
        it was, and get other numbers where another thread draws from it meanwhile.
    verbose : int, default=0
        1 shows a bar: of the race of kinds its rung, the steps, and the mixture so far with its
        out-of-fold NLL and weights; without a race the epochs of every kind. 2 prints skorch's
        table of epochs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    nets_ : list of skorch.NeuralNet
        The trained net of every kind; `net_` is the first.
    kinds_ : list of Kind
        The kinds that were trained, whole: with the values set here, and the batch size and the
        number of passes that "auto" came to.
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
        Number of epochs of the last fit, the largest of all kinds. An epoch is a pass over the
        rows; in a race it has at least 4 steps, and from 40,000 rows at most 200.
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
    _auto_kinds, _fast_kinds = CLASSIFICATION, FAST_CLASSIFICATION

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
        n_jobs: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
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
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
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

    def _weight_of_response(self, y, rows):
        if self.class_weight is None:
            return super()._weight_of_response(y, rows)
        if not isinstance(self.class_weight, dict):
            return compute_sample_weight(self.class_weight, self.classes_[y[rows]])
        # Of all classes, since part of a stream may lack some.
        classes = self.classes_.tolist()
        unknown = [label for label in self.class_weight if label not in classes]
        if unknown and any(label not in self.class_weight for label in classes):
            raise ValueError(
                f"class_weight names {unknown!r}; expected some of the classes, {classes!r}."
            )
        weights = [self.class_weight.get(label, 1.0) for label in classes]
        proper = (isinstance(weight, Real) and 0 <= weight < np.inf for weight in weights)
        if not all(proper):
            raise ValueError(
                f"class_weight={self.class_weight!r}; expected finite weights, at least 0."
            )
        return np.array(weights, dtype=np.float64)[y[rows]]

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

    def _named_family(self, family):
        raise ValueError(
            f"a Kind has family={family!r}, which is for the regressor; expected none, and the "
            f"classifier's, {self.family!r}."
        )

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
