"""The regressor: from a table to predictive distributions."""

from __future__ import annotations

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

from sklearn_probmix.base import BaseProbMixup, PredictsInChunks
from sklearn_probmix.calibration import Spread, calibrate
from sklearn_probmix.compound import Hurdle
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.encoding import grid_of_values, likely_families, to_response
from sklearn_probmix.families import FAMILIES, Categorical, Family, Normal, get_family
from sklearn_probmix.kinds import REGRESSION, Kind
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.metrics import coverage, crps, nll
from sklearn_probmix.pooling import Mixture
from sklearn_probmix.settings import neutral_settings

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
    """Regressor whose `predict_proba` is a predictive distribution, trained with mixup.

    Use it where you need to know how sure a prediction is: it gives means, intervals, quantiles,
    samples and log-densities for every row. X and y are standardised inside.

    Every parameter that is None by default stands for what the kinds of network say of it; any
    other value holds for all kinds. What is not listed here, such as `dropout` or `beta`, is a
    parameter of :class:`Kind`.

    Parameters
    ----------
    method : str, Kind or list of these, default="auto"
        Which kinds of network are trained. "auto" lets seven run a race, so that you need not know
        which suits the table: after 200, 400, 800, ... steps each is judged by rows that it did not
        train on, goes on for as long as it gains and may help the mixture, and is delivered if it
        has a weight of .02 there. They are an ERM network of smooth units, best where the noise is
        small; a wide ProbMix network with a few knots, for noisier tables; an ERM network of smooth
        units with many knots, for rough ones; a linear one; and two kernel networks, which look at
        training rows that are near. These keep training rows, in model files too: "parametric" is
        "auto" without them. Where `max_epochs` or `net` is given, `weighting` is "uniform" or no
        rows are held out, there is no race, and all are trained to their end; with `net=` they are
        ``["erm", "probmix"]``. Name one method for a quick fit or to compare methods: "erm" mixes
        nothing (empirical risk minimisation), "mixup" mixes inputs, "manifold-mixup" activations of
        the embedding, "probmix" the conditional densities, "m-probmix" densities of a random
        embedding. A Kind says more than a name. A list trains several kinds, one after another, and
        takes the time of all; "probmix" takes 1.3 times as long as "erm", "m-probmix" twice as
        long. Eq. 7 (mixup), 30 (manifold mixup), 16 (ProbMix) and 22 (M-ProbMix) of the paper.
    alpha : float or None, default=None
        Strength of mixing, at least 0, of the kinds that mix; .2 in every kind behind "auto". Raise
        it towards 1 for very noisy responses, lower it where mixing hurts; 0 mixes nothing, and .05
        to .4 suit most tables. The time of a fit does not depend on it. The share of a row in its
        pair is lam ~ Beta(alpha, alpha).
    n_neighbors : int or None, default=None
        Mix a row with one of its K nearest rows only, by standardised X, instead of any row. Try 5
        to 20 for responses that bend within the distance of two random rows. Costs one search of
        neighbours in a fit, on 10,000 rows of 20 columns a twentieth of it. The Loc^K methods of
        the paper.
    pooling : {"log-linear", "linear"} or None, default=None
        How the probabilistic methods fuse two densities: by the product of their powers, in every
        kind behind "auto", or by their mixture. Try "linear" where rows may lie far from the
        training rows: it predicts wider densities there. A mixture takes a twentieth longer. Eq. 18
        and 17 of the paper.
    family : str or Family, default="auto"
        Density of y given x, of one component. "auto" is "normal" and, with ``method="auto"``, lets
        kinds of other families run too where y looks like it: few values, counts, a heap of zeros,
        skewed, shares; of every other y a histogram. What they are and weigh is in `kinds_` and
        `weights_`. A name holds for all kinds: "normal", "homoscedastic-normal" for a noise that
        does not depend on x, "transformed" for skewed responses of any sign (a Normal on a
        Yeo-Johnson curve that is taken from y), "lognormal" and "gamma" for positive numbers,
        "hurdle" for these with zeros among them, "beta" for shares between 0 and 1, "poisson" for
        counts and "negative-binomial" for wider ones, "bernoulli" for 0 and 1, "histogram" for any
        shape, also of several peaks, "lattice" for a y of few values; or an instance, such as
        ``get_family("normal", variance_floor=1e-6)``, or one of your own. The mixture of all
        networks may have other shapes. All take about the same time.
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
        Replace every variance v of the mixture by ``a v + b``, with a and b fitted on rows that the
        networks did not train on, if there are any. "auto" does so where nested folds say that it
        lowers the negative log-likelihood; "off" shows what training alone achieves, "on" does it
        in any case. Normal, log-normal and transformed only: "on" is an error for other families.
        Costs little beside a fit.
    hidden_layer_sizes : sequence of int or None, default=None
        Units of the hidden layers; (128, 64) is a Kind's, the kinds behind "auto" have two or three
        layers of 64 to 256. Fewer units for fewer than 100 rows, () for a linear network. Two
        layers of 256 take a third longer than those of a Kind.
    activation : {"relu", "silu", "gelu", "elu", "tanh"} or None, default=None
        "relu" is a Kind's; "silu" suits smooth responses with little noise. All take about the same
        time.
    n_knots : int or None, default=None
        Give the network each column's piecewise-linear encoding too, with so many knots at
        quantiles of the training rows: it then learns steps and bends, as trees do. Try 9 to 65 for
        rough responses; smooth small tables suffer from many. Nine take no more time, 65 a third
        more; tables of many columns get fewer for each, about 1,040 in all, but at least 2.
    lr, weight_decay : float or None, default=None
        Step size and decay of the AdamW optimiser; .003 and .1 are a Kind's. Lower lr when training
        diverges, which a warning says; .0003 to .03 are sensible. More decay, up to 1, for noisy
        small tables. Neither changes the time of a step; a lower lr may need more epochs.
    batch_size : int, "auto", "full" or None, default=None
        Rows of a step. "auto", a Kind's, is 64 below 4,000 rows and 256 from there, in a race 1,024
        from 40,000; "full" takes all rows at once. An epoch in batches of 256 takes a third of the
        time of one in batches of 64, and learns less.
    max_epochs : int, "auto" or None, default=None
        Passes over the rows; the time of a fit is in proportion. "auto", a Kind's, makes at most
        about 3,000 steps, but no fewer than 100 epochs and no more than 600; in a race of n rows,
        from 40,000, ``3000 * (n / 40000) ** 0.6`` steps, of which an epoch has 200. 20 to 100 for a
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
        10,000, and "holdout" for a single member. Fewer than 10 rows are not divided, with a
        warning. Folds take about the time of a hold-out with as many members.
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
    nets_ : list of skorch.NeuralNet
        The trained net of every kind; `net_` is the first.
    kinds_ : list of Kind
        The kinds that were trained, whole: with the values set here, and the batch size and the
        number of epochs that "auto" came to.
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
    family_ : Family
    encoder_ : ColumnEncoder or None
        Of categories and missing values; None where all columns of the fit were plain numbers.
    scaler_ : StandardScaler
        Of X. `y_shift_` and `y_scale_` are what was removed from y.
    n_iter_ : int
        Number of epochs of the last fit, the largest of all kinds.
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
    _auto_kinds = REGRESSION
    values_: np.ndarray | None = None

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

    def _kinds_for(self, table, division):
        self.values_ = None
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
            dists.append(
                PredictiveDistribution(
                    components.marginal(0) if one_column else components,
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
        # no spike is of use. Of a censored response the probability of more.
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
