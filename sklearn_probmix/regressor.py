"""The regressor: from a table to predictive distributions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import StrOptions
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_probmix.base import BaseProbMixup
from sklearn_probmix.calibration import Spread, calibrate
from sklearn_probmix.compound import Hurdle
from sklearn_probmix.contract import PredictsInChunks
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.encoding import to_response
from sklearn_probmix.families import FAMILIES, Categorical, Family, Normal, get_family
from sklearn_probmix.kinds import FAST_REGRESSION, REGRESSION, Kind
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.metrics import coverage, crps, nll
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.rectified import RectifiedComponents
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.traits import grid_of_values, likely_families, responses_apart
from sklearn_probmix.warn import warn

__all__ = ["DistributionRegressorMixin", "ProbMixupRegressor"]

# Normals of one row that are delivered: the heaviest, and groups of the others.
_COMPONENTS = 64, 36
# Whose distributions are held at once where only their moments are wanted.
_MANY_ROWS = 65_536
_JUDGED_AT_ONCE = 1024
# Smallest variance of a component, in units of the transformed y.
_FLOOR = 1e-4


class DistributionRegressorMixin(PredictsInChunks, RegressorMixin):
    """What follows from `predict_proba`, which gives a `PredictiveDistribution`."""

    predict_proba: Callable[..., PredictiveDistribution]

    @neutral_settings
    def predict(
        self, X: Any, return_std: bool = False, quantiles: ArrayLike | None = None
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
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
        if quantiles is not None and return_std:
            raise ValueError("return_std and quantiles exclude each other; found both.")
        dists = self.iter_predict_proba(X, _MANY_ROWS)
        if quantiles is not None:
            levels = np.asarray(quantiles)
            return np.concatenate([dist.ppf(levels) for dist in dists], axis=levels.ndim)
        if return_std:
            mean, std = zip(*((dist.mean(), dist.std()) for dist in dists), strict=True)
            return np.concatenate(mean), np.concatenate(std)
        return np.concatenate([dist.mean() for dist in dists])

    def _score_predictive(self, dist, y, sample_weight, censored=None):
        if censored is not None:
            with np.errstate(divide="ignore"):
                log_p = np.where(censored, np.log(dist.sf(y)), dist.logpdf(y))
            return {"nll": -float(np.average(log_p, weights=sample_weight))}
        return {
            "nll": nll(y, dist, sample_weight=sample_weight),
            "crps": crps(y, dist, sample_weight=sample_weight),
            "coverage": coverage(y, dist, level=0.9, sample_weight=sample_weight),
        }


def _family_of_name(name: str) -> Family:
    """Make the family of this name; Normal ones have the regressor's floor."""
    if issubclass(FAMILIES[name], Normal):
        return get_family(name, variance_floor=_FLOOR)
    if name == "hurdle":
        return Hurdle(_family_of_name("lognormal"))
    return get_family(name)


class ProbMixupRegressor(DistributionRegressorMixin, BaseProbMixup):
    """Neural networks that predict a distribution of y for every row of a table.

    Use it where you need to know how sure a prediction is. After `fit`, `predict_proba` says of
    each row how likely each value of y is, as an object with means, intervals, quantiles, samples
    and densities; `predict` is its mean. X may be an array or a data frame, with categories, text
    of few values and missing values in it. X and y are scaled inside.

    How it works: several *kinds* of network, which are recipes such as "linear" or "wide" or "looks
    at similar rows", are trained, each as five *members*. A member leaves out a fifth of the rows.
    What the networks predict for the rows that they left out decides when training ends, how much
    each kind weighs in the mixture, and whether its spread has to be corrected. Some kinds are
    trained with *mixup*: they see blends of two rows, which keeps them from learning noise by
    heart.

    The defaults are meant to be left alone, but for `random_state`. What most users come to change
    is `family` (what values y can have), `validation` (rows that belong together, or follow each
    other in time), and `method` (a faster fit). A parameter that is None leaves the choice to each
    kind; any other value holds for all kinds. What is not listed here, such as `dropout`, is a
    parameter of :class:`Kind`.

    Parameters
    ----------
    method : str, Kind or list of these, default="auto"
        Which kinds of network are trained. "auto", the default, lets seven kinds run a race, so
        that you need not know what suits your table: smooth networks, wide ones trained with mixup,
        fine-stepped ones, a linear one, and three that look at similar training rows; with
        ``family="auto"`` more where y looks like it. After 200, 400, 800, ... steps each is judged
        by rows that it did not train on. It goes on for as long as it gains and may help the
        mixture, and is kept if it weighs at least 2 %. Takes some 20 seconds for a few hundred
        rows, minutes for ten thousand.

        "fast" is a race of four of these kinds, and takes a third of the time, of ten thousand rows
        two thirds: choose it for a first look, and in searches. It tries no family beside
        `family`, of which "auto" is then "normal": name another where y is a count, is often 0, or
        is skewed, whose mean comes out too low otherwise.

        "parametric" is "auto" without the kinds that keep training rows: choose it where a model
        must not hold data of persons, or to predict faster.

        One name trains one kind, for a quick fit: "erm" is plain training; "probmix" blends the
        predicted densities of two rows, for noisy tables; "mixup" blends their inputs;
        "manifold-mixup" what a hidden layer makes of them; "m-probmix" random versions of that.
        "probmix" takes 1.3 times as long as "erm", "m-probmix" twice as long. A :class:`Kind` says
        more than a name; a list trains all that it names and takes the time of all.

        There is no race, and all kinds are trained to their end, where `max_epochs` or `net` is
        given, `weighting` is "uniform", or no rows are held out.
    alpha : float or None, default=None
        How strongly rows are blended, at least 0; .2 in the kinds behind "auto". 0 is no blending,
        1 makes every share equally likely. Raise it towards 1 for very noisy responses, lower it to
        .05 where a table has little noise. "erm" ignores it, and says so if it is set. Costs
        nothing.
    n_neighbors : int or None, default=None
        Blend a row only with one of its so many nearest rows, instead of with any. Try 5 to 20
        where y bends between two random rows, so that blends of far ones are wrong. Costs one
        search of neighbours: on 10,000 rows of 20 columns a twentieth of the fit.
    pooling : {"log-linear", "linear"} or None, default=None
        How "probmix" and "m-probmix" blend two densities. "log-linear", in all kinds behind "auto",
        multiplies their powers: two bells become one between them. "linear" keeps both bells, and
        predicts wider densities for rows unlike those of the training; try it where such rows will
        come. Takes a twentieth longer.
    family : str or Family, default="auto"
        What values y can have, and what shape its density has for a given x. "auto" is "normal"
        and, with ``method="auto"`` or "parametric", lets kinds of other families run too where y
        looks like it: few values, counts, a heap of zeros, skewed, shares, and a histogram unless y
        takes few values. Name one where you know better, or where no density may reach beyond the
        values that are possible:

        * any number: "normal"; "homoscedastic-normal", whose width does not depend on x;
          "transformed" where y is skewed; "histogram" for any shape, also several peaks;
        * positive numbers: "lognormal", "gamma"; "hurdle" if there are zeros among them;
        * counts: "negative-binomial"; "poisson" if their variance is their mean;
        * shares between 0 and 1: "beta"; 0 and 1 alone: "bernoulli";
        * a few values, such as ratings: "lattice".

        Or an instance, such as ``get_family("normal", variance_floor=1e-6)``, or one of your own.
        All take about the same time. The mixture of all networks may have other shapes than its
        parts.
    n_members : int, default=5
        Networks of each kind. They are trained in one pass, differ in their random start and in the
        rows that they leave out, and are averaged. 1 for a quick fit or to compare methods, 10 for
        a steadier mixture. Eight take about twice the time of one.
    weighting : {"stacked", "uniform"}, default="stacked"
        How kinds are weighed in the mixture: by what they predict for rows that they left out, or
        all alike. Choose "uniform" where there are too few rows to tell kinds apart; there is then
        no race. Costs a moment.
    calibration : {"auto", "on", "off"}, default="auto"
        Widen or narrow all densities by what was found in rows that the networks left out: a
        variance v becomes ``a v + b``. "auto" does so where it helps in rows that did not choose a
        and b; "off" shows what training alone achieves; "on" does it wherever rows were left out,
        and is an error for families other than the Normal, log-normal and transformed. Costs
        little.
    hidden_layer_sizes : sequence of int or None, default=None
        Units of the hidden layers. The kinds behind "auto" have none, or two or three layers of 32
        to 256; a kind by name has (128, 64). Fewer, such as (32,), for less than 100 rows; () is a
        linear network. Two layers of 256 take a third longer than (128, 64).
    activation : {"relu", "silu", "gelu", "elu", "tanh"} or None, default=None
        What the units compute. "silu" suits smooth responses with little noise; "relu", that of a
        kind by name, the others. All take about the same time.
    n_knots : int or None, default=None
        Show the networks each column also as so many steps, placed at its quantiles: they then
        learn jumps and bends, as trees do. Try 9 to 65 where y jumps at certain values of a column;
        small smooth tables suffer from many. 9 take no more time, 65 a third more. Tables of many
        columns get fewer for each, about 1,040 in all.
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
        left out together. Fewer than 10 rows are not divided, with a warning. Folds take about the
        time of a hold-out with as many members.
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
        out-of-fold NLL and weights, which is a line every ten seconds where stderr is no terminal;
        without a race the epochs of every kind. 2 prints skorch's table of epochs.

    Attributes
    ----------
    nets_ : list of skorch.NeuralNet
        The trained net of every kind; `net_` is the first.
    kinds_ : list of Kind
        The kinds that were trained, whole: with the values set here, and the batch size and the
        number of passes that "auto" came to.
    weights_ : ndarray of shape (n_kinds,)
        Their weights in the mixture.
    calibration_ : Spread or None
        Its `a` and `b`, with variances in units of the transformed y; None where nothing was
        calibrated. With folds both are lowered by the share of the variance that the disagreement
        of further members adds, by half at the most.
    oof_predictive_ : PredictiveDistribution
        With folds, the distribution of every training row of positive weight by the members of each
        kind that did not train on it. These rows also chose the members' best epochs, the weights
        and the calibration.
    oof_scores_ : dict of float
        "nll", "crps" and "coverage" (of 90 % intervals) of `oof_predictive_`.
    values_ : ndarray or None
        With family="auto" and a y of few values, the values that predictions put their mass on:
        those of y, and of a rounded y those between and a few beyond. None for densities.
    is_count_ : bool
        With family="auto" and no `method` by name, whether y are whole numbers, the least of
        them 0 or 1. What densities have below 0 is then the probability of 0 itself, in all
        predictions.
    family_ : Family
    encoder_ : ColumnEncoder or None
        Of categories and missing values; None where all columns of the fit were plain numbers.
    scaler_ : StandardScaler
        Of X. `y_shift_` and `y_scale_` are what was removed from y.
    n_iter_ : int
        Number of epochs of the last fit, the largest of all kinds. An epoch is a pass over the
        rows; in a race it has at least 4 steps, and from 40,000 rows at most 200.
    best_epoch_ : int or ndarray of shape (n_kinds, n_members)
        Number, from 1, of the epoch whose weights were kept; an int for a single network.
    history_ : list of dict
        An epoch of a kind each: `kind` by position, `epoch`, `train_loss` and, with held-out rows,
        `valid_loss` in nats per row of transformed y (weighted by variances where the kind's
        `variance_weighting` says so), `valid_crps` where it is monitored, in units of transformed
        y, all means over members; `dur` in seconds. A DataFrame in one call:
        ``pd.DataFrame(est.history_)``.
    n_outputs_ : int
        Columns of y.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    References
    ----------
    El-Laham, Dalmasso, Vyetrenko, Potluru, Veloso. Mixup Regularization: A Probabilistic
    Perspective. UAI 2025, PMLR 286:1184-1219.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn_probmix import Kind, ProbMixupRegressor
    >>> X, y = make_regression(n_samples=100, n_features=3, noise=5.0, random_state=0)
    >>> est = ProbMixupRegressor(method="probmix", max_epochs=20, random_state=0).fit(X, y)
    >>> mean, sd = est.predict(X[:5], return_std=True)
    >>> est.predict_proba(X[:5]).interval(0.9)[0].shape
    (5,)

    What only a kind can say, and which kinds were trained:

    >>> smooth = Kind("erm", activation="silu", dropout=0.1)
    >>> est = ProbMixupRegressor(method=[smooth, "probmix"], max_epochs=20, random_state=0)
    >>> [kind.method for kind in est.fit(X, y).kinds_]
    ['erm', 'probmix']
    """

    _parameter_constraints = {
        **BaseProbMixup._parameter_constraints,
        "family": [StrOptions({"auto", *FAMILIES} - {"categorical"}), Family],
    }
    _auto_kinds, _fast_kinds = REGRESSION, FAST_REGRESSION
    values_: np.ndarray | None = None
    is_count_: bool = False

    def __init__(
        self,
        *,
        method: str | Kind | Sequence[str | Kind] = "auto",
        alpha: float | None = None,
        n_neighbors: int | None = None,
        pooling: str | None = None,
        family: str | Family = "auto",
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
        self.categorical_features = categorical_features
        self.net = net
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Make one pass over the rows, without validation, from the current weights.

        X, and y with a Normal family, are standardised by all rows that were seen so far. Where
        rows are kept (kernel networks, which "parametric" does without) or a calibration was
        fitted, and for the levels of categories, the first call settles it.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, n_outputs)
        sample_weight : array-like of shape (n,), default=None

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight)

    @neutral_settings
    def predict_proba(self, X: Any) -> PredictiveDistribution:
        """Predictive distribution of y for each row of X.

        It may be called in any number of threads at once, while nothing fits this very object, and
        gives the bits that it gives alone. The bits of a row do not depend on the other rows.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        PredictiveDistribution of shape (n,) or (n, n_outputs)
            In the units of y: a mixture over kinds, members and, for M-ProbMix, draws of the
            embedding (eq. 24 of the paper).

        Examples
        --------
        >>> import numpy as np
        >>> X = np.linspace(0, 1, 40)[:, None]
        >>> est = ProbMixupRegressor(method="erm", max_epochs=5, random_state=0).fit(X, X[:, 0])
        >>> dist = est.predict_proba(X[:3])
        >>> dist, dist.ppf([0.05, 0.5, 0.95]).shape
        (PredictiveDistribution('norm', shape=(3,), n_components=5), (3, 3))
        """
        parts = self._in_blocks(X, self._predictive)
        return parts[0] if len(parts) == 1 else PredictiveDistribution.concatenate(parts)

    def _validate_rows(self, X, y, reset, suffix=""):
        name = f"y{suffix}"
        X, y = self._check_rows(X, y, to_response, reset, suffix)
        n_outputs = y[0].size
        if not reset and n_outputs != self.n_outputs_:
            raise ValueError(
                f"{name} has {n_outputs} outputs; expected {self.n_outputs_} as in the earlier fit."
            )
        family = self._named_family(self.family).unfitted() if reset else self.family_
        columns = torch.tensor(y, dtype=torch.float64).reshape(len(y), -1)
        outside = ~family.in_support(columns).numpy().reshape(y.shape)
        if outside.any():
            where = tuple(np.argwhere(outside)[0])
            raise ValueError(
                f"{name}[{', '.join(map(str, where))}] = {y[where]} is outside the support of "
                f"{family!r}; expected {family.support}."
            )
        if reset:
            self._y_ndim = y.ndim
            self.values_, self.is_count_ = None, False
        return X, y

    def _make_family(self):
        if isinstance(self.family, Categorical):
            raise ValueError(f"family={self.family!r} is the classifier's; expected another.")
        family = self._named_family(self.family)
        if self.calibration == "on" and family.calibration is not Spread:
            raise ValueError(
                f"calibration='on': {family!r} has no calibration; expected 'auto' or 'off'."
            )
        return family

    def _kinds(self):
        kinds = super()._kinds()
        if self._is_auto() and self.family != "auto":
            return [kind for kind in kinds if kind.family is None]
        return kinds

    def _weight_of_response(self, y, rows):
        weight = super()._weight_of_response(y, rows)
        if self._is_auto() and self.family == "auto":
            apart = responses_apart(y[rows].reshape(len(rows), -1))
            weight[apart] = 0
            if len(apart):
                first = rows[apart[0]]
                warn(
                    f"y has {len(apart)} of {len(rows)} values far from all others, as in row "
                    f"{first}: {y[first]}. They are left out; with a family= by name they are not."
                )
        return weight

    def _kinds_to_train(self, table, division, nets):
        y = table.y[:, 0].real.numpy()
        is_count = self.n_outputs_ == 1 and self._is_auto() and self.family == "auto"
        if nets is None:
            # Degrees in summer are whole and positive, too, and do not begin at 0.
            is_count = is_count and y.min() <= 1 and "poisson" in likely_families(y)
        else:
            is_count = is_count and self.is_count_
        # A later pass may bring what is no count.
        self.is_count_ = bool(is_count and y.min() >= 0 and not (y % 1).any())
        return super()._kinds_to_train(table, division, nets)

    def _kinds_for(self, table, division):
        kinds = self._kinds()
        if not (self._is_auto() and self.family == "auto"):
            return kinds
        families: set[str] = set()
        # Kinds of other families have to earn their steps.
        if self._is_race(division) and self.n_outputs_ == 1 and not table.y.is_complex():
            y = table.y[:, 0].numpy()
            families, self.values_ = likely_families(y), grid_of_values(y)
        return [kind for kind in kinds if kind.family in {None, *families}]

    def _has_masses(self, kind):
        return self.values_ is None and self._family_of(kind).is_count

    def _named_family(self, family):
        if family == "auto":
            return _family_of_name("normal")
        return _family_of_name(family) if isinstance(family, str) else family

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _predictive(self, mixtures):
        dists, shares = [], []
        one_column = self._y_ndim == 1 or self.values_ is not None
        for _, response, mixture, share in self._parts(mixtures):
            if isinstance(response.family, Normal):
                mixture = response.family.condensed(mixture, *_COMPONENTS)
            eta, log_weights = mixture
            components = response.components(eta)
            components = components.marginal(0) if one_column else components
            if self.is_count_ and not components.has_atoms:
                components = RectifiedComponents(components)
            dists.append(
                PredictiveDistribution(
                    components,
                    weights=log_weights.double().softmax(-1).numpy() if eta.shape[1] > 1 else None,
                )
            )
            shares.append(share)
        if self.values_ is not None:
            masses = np.stack([_masses(dist, self.values_) for dist in dists], axis=1)
            masses = masses if self._y_ndim == 1 else masses[:, :, None]
            components = LatticeComponents(self.values_, masses)
            return PredictiveDistribution(components, weights=[shares] * len(masses))
        return dists[0] if len(dists) == 1 else PredictiveDistribution.mix(dists, shares)

    def _log_scores(self, response, mixture, y):
        # In between there are some arrays of as many numbers as there are components.
        blocks = zip(*(part.split(_JUDGED_AT_ONCE) for part in (*mixture, y)), strict=True)
        return np.concatenate(
            [self._log_scores_of(response, Mixture(*block), own) for *block, own in blocks]
        )

    def _log_scores_of(self, response, mixture, y):
        # Of the cell around y: densities and masses are told apart by nothing else, and within it
        # no spike is of use. Of a censored response the probability of more. Counts are judged by
        # what densities say before it is put at 0: after it, more of them share the mixture, which
        # gains nothing.
        components, half = response.components(mixture.eta), self._cell / 2
        value = y.real.numpy()[:, None]
        each = components.log_probability(value - half, value + half) - np.log(2 * half)
        if y.is_complex():
            with np.errstate(divide="ignore"):
                each = np.where(y.imag.numpy()[:, None] > 0, np.log(components.sf(value)), each)
        log_weights = mixture.log_weights.double().log_softmax(-1).numpy()
        return logsumexp(each.sum(-1) + log_weights, axis=1)

    def _fit_calibration(self, part, y, weight):
        """Calibration of the variances, or None."""
        family, mixture = part.response.family, part.mixture
        if family.calibration is not Spread:
            return None
        scaled = part.response.standardise(y)
        y = family.to_normal(scaled).double()
        moments = family.moments(mixture.eta.double())
        tensors = (y, *moments, mixture.log_weights.double().softmax(-1))
        # Within the step of rounding no density is of use, and one that is spikes would seem the
        # better the narrower they are.
        _, shift, scale, _ = part.response
        rounding = family.rounding(scaled, np.asarray(self._y_step), shift.numpy(), scale.numpy())
        rounding = np.broadcast_to(rounding, y.shape)
        data = (*(tensor.numpy() for tensor in tensors), weight, rounding)
        return calibrate(family.calibration, data, self.calibration)

    def _for_members(self, judged, delivered):
        # An out-of-fold row has one member of each kind; the means of the others differ from its,
        # and that spread must not come on top of the fitted one, so this is shrunk by its share.
        spread = judged.response.calibration
        within, between = _parts_of_variance(judged)
        added = _parts_of_variance(delivered)[1] - between
        kept = max(1 - max(added, 0.0) / spread.apply(within), 0.5)
        return Spread(kept * spread.a, kept * spread.b)


def _parts_of_variance(part):
    """Variance within and between the components, averaged over rows and outputs."""
    eta, log_weights = part.mixture
    means, variances = part.response.family.moments(eta.double())
    weights = log_weights.double().softmax(-1).unsqueeze(-1)
    centre = (weights * means).sum(1, keepdim=True)
    parts = variances, (means - centre).square()
    return tuple(float((weights * each).sum(1).mean()) for each in parts)


def _masses(dist, values):
    """Probabilities of the cells around values, shape (n, n_values); the outer ones are open."""

    def everywhere(points):
        return np.broadcast_to(points[:, None], (len(points), len(dist)))

    lattice = dist.blocks[0]
    if len(dist.blocks) == 1 and isinstance(lattice, LatticeComponents):
        masses = np.zeros((len(dist), len(values)))
        masses[:, np.searchsorted(values, lattice.values)] = dist.pmf(everywhere(lattice.values)).T
        return masses
    below = dist.cdf(everywhere((values[:-1] + values[1:]) / 2)).T
    ends = np.zeros((len(dist), 1)), np.ones((len(dist), 1))
    return np.diff(np.hstack([ends[0], below, ends[1]]), axis=1).clip(min=0)
