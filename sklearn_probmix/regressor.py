"""The regressor: from a table to predictive distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import StrOptions
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_probmix.base import BaseProbMixup
from sklearn_probmix.calibration import Spread, calibrate
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.encoding import to_response
from sklearn_probmix.families import FAMILIES, Categorical, Family, get_family
from sklearn_probmix.kinds import REGRESSION, Kind
from sklearn_probmix.metrics import coverage, crps, nll
from sklearn_probmix.settings import neutral_settings

__all__ = ["ProbMixupRegressor"]

# Smallest variance of a component, in units of the transformed y.
_FLOOR = 1e-4


class ProbMixupRegressor(RegressorMixin, BaseProbMixup):
    """Regressor whose `predict_proba` is a predictive distribution, trained with mixup.

    A network maps x to natural parameters of the conditional density p(y given x). Training mixes
    pairs of rows with a coefficient lam ~ Beta(alpha, alpha) at one site of the network.

    Parameters
    ----------
    method : str or list, default="auto"
        What is mixed: nothing ("erm", empirical risk minimisation), inputs ("mixup", eq. 7),
        activations of the embedding ("manifold-mixup", eq. 30), the conditional densities
        ("probmix", eq. 16), or densities of a random embedding ("m-probmix", eq. 22). A list trains
        several kinds of network, one after another; an item is a method, or a dict of a method and
        of parameters in which the kind differs, such as alpha or lr. "auto" is such a list: an ERM
        network of smooth units, which are best where the noise is small; a wide ProbMix network
        with a few knots, for noisier tables; and an ERM network of smooth units with many knots,
        for rough ones. The means of the latter two are learnt further, if plainly Normal, by a
        `variance_weighting` and a `monitor` of their own. What you set to other than its default,
        such as `activation` or `hidden_layer_sizes`, holds for all three. With `net=`, "auto" is
        ``["erm", "probmix"]``.
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
    n_members : int, default=5
        Networks of each kind, trained in one pass; they differ in initialisation and noise, and
        with validation="cv" in the rows that they hold out.
    weighting : {"stacked", "uniform"}, default="stacked"
        Weights of the kinds in the mixture: chosen by the log score of rows that the networks did
        not train on, shrunk by a tenth towards uniform weights; or uniform, as they are where no
        rows were held out. Members share the weight of their kind evenly.
    calibration : {"auto", "on", "off"}, default="auto"
        Replace every variance v of the mixture by ``a v + b``, with a and b fitted on rows that
        the networks did not train on, if there are any. "auto" does so where nested folds say that
        it lowers the negative log-likelihood. Normal and log-normal only: "on" is an error for
        other families.
    hidden_layer_sizes : sequence of int, default=(128, 64)
    activation : {"relu", "silu", "gelu", "elu", "tanh"}, default="relu"
    n_knots : int or None, default=None
        Give the network each column's piecewise-linear encoding too, with so many knots at
        quantiles of the training rows: it then learns steps and bends, as trees do. Tables of
        many columns get fewer knots for each, about 1,040 in all, but at least 2.
    dropout : float, default=0.0
    mixing_layer : int, default=1
        Number of hidden layers that form the embedding.
    embedding_variance : {"shared", "separate"}, default="shared"
        Whether the variance of a random embedding shares the trunk with its mean, or comes from
        a network of its own (M-ProbMix*).
    n_draws, n_train_draws : int, default=16 and 1
        Draws of a random embedding per row, in prediction and in training.
    variance_floor : float, default=1e-4
        Smallest variance of a Normal or log-normal component, in units of the transformed y.
    variance_weighting : float, default=0.0
        In training the loss of a row is weighted by its predicted variance to this power, in
        [0, 1]: the larger, the better the mean is learnt where the noise is small. Normal only.
    lr, weight_decay : float, default=0.003 and 0.1
        Of the AdamW optimiser.
    lr_schedule : {"constant", "cosine"}, default="cosine"
        Whether lr falls to 0 along a cosine over `max_epochs`.
    batch_size : int, "auto" or None, default="auto"
        "auto" is 64 below 4,000 rows and 256 from there; None trains on the full batch.
    max_epochs : int or "auto", default="auto"
        "auto" makes about 3,000 steps, but no fewer than 100 epochs and no more than 600.
    validation : {"auto", "holdout", "cv"}, splitter or None, default="auto"
        What chooses the best epoch: a fraction of rows that all members hold out, the first split
        of a scikit-learn splitter, or nothing. With "cv" each of the `n_members` members holds
        out a fold of its own, so that together they train on every row. "auto" is "cv", or
        "holdout" for a single member. Fewer than 10 rows are not divided, with a warning.
    validation_fraction : float, default=0.2
        Share of the rows that "holdout" holds out.
    monitor : {"nll", "crps"}, default="nll"
        Score of the validation rows whose minimum is the best epoch. Epochs of the best CRPS come
        later, when the mean is learnt. CRPS for the Normal only.
    early_stopping : bool, default=True
        Stop after `n_iter_no_change` epochs in which no member has a better validation score. The
        best epochs are kept in either case.
    n_iter_no_change : int, default=50
    net : skorch.NeuralNet or None, default=None
        Unfitted net with a module of one's own, which returns natural parameters (rows,
        n_outputs, n_params); methods that mix an embedding need its submodule `embedding`. Its
        arguments `family`, `n_features` and `n_outputs` are filled in where it has them. The
        module and the optimiser are then the net's own affair: `hidden_layer_sizes` to
        `max_epochs` above are ignored, but for the two about variance, and so is `device`. A module
        given as an instance, not as a class, needs ``n_members=1``.
    callbacks : list of skorch callbacks or None, default=None
        Used as they are, not copied: all kinds of network share them.
    warm_start : bool, default=False
        Continue from the weights and the scaling of the previous fit, with a learning-rate
        schedule of its own. Held-out rows are drawn anew: the same rows in the same order and an
        integer `random_state` keep them held out, otherwise scores of them are optimistic. What
        describes the networks may not change, such as `family`, `n_members` or `dropout`.
    device : str, default="cpu"
        Torch's name of it, such as "cuda".
    random_state : int, RandomState or None, default=None
        Source of every draw: initialisation, held-out rows, batches, partners, lam and noise.
        Fits in several threads run at once; those with `net=` take turns, since a module of one's
        own draws from torch's global generator, which is then seeded and put back.
    verbose : int, default=0
        1 shows a bar of epochs, 2 prints skorch's table of them.

    Attributes
    ----------
    nets_ : list of skorch.NeuralNet
        The trained net of every kind; `net_` is the first.
    kinds_ : list of dict
        What `method` says of every kind.
    weights_ : ndarray of shape (n_kinds,)
        Their weights in the mixture.
    calibration_ : Spread or None
        Its `a` and `b`, with variances in units of the transformed y. With validation="cv" both are
        lowered by the share of the variance that the disagreement of further members adds, by half
        at the most.
    oof_predictive_ : PredictiveDistribution
        With validation="cv", the distribution of every training row of positive weight by the
        member of each kind that did not train on it. These rows also chose the members' best
        epochs, the weights and the calibration.
    oof_scores_ : dict of float
        "nll", "crps" and "coverage" (of 90 % intervals) of `oof_predictive_`.
    family_ : Family
    scaler_ : StandardScaler
        Of X. `y_shift_` and `y_scale_` are what was removed from y.
    n_iter_ : int
        Number of epochs of the last fit, the largest of all kinds.
    best_epoch_ : int or ndarray of shape (n_kinds, n_members)
        Number, from 1, of the epoch whose weights were kept; an int for a single network.
    history_ : list of dict
        An epoch of a kind each: `kind` by position, `epoch`, `train_loss` and, with held-out rows,
        `valid_loss` in nats per row of transformed y (weighted by variances where
        `variance_weighting` says so), `valid_crps` where it is monitored, in units of transformed
        y, all means over members; `dur` in seconds. A DataFrame in one call:
        ``pd.DataFrame(est.history_)``.
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
    }
    _auto_kinds = REGRESSION

    def __init__(
        self,
        *,
        method: str | Kind | Sequence[str | Kind] = "auto",
        alpha: float | None = None,
        n_neighbors: int | None = None,
        pooling: str | None = None,
        family: str | Family = "normal",
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
        self.net = net
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
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

    @neutral_settings
    def predict_proba(self, X: Any) -> PredictiveDistribution:
        """Predictive distribution of y for each row of X.

        Threads may predict at once, while nothing fits this very object: their results are the
        serial ones, bit for bit.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        PredictiveDistribution of shape (n,) or (n, n_outputs)
            In the units of y; a mixture over draws of the embedding (eq. 24) for M-ProbMix.
        """
        return self._predictive(self._mixture(X))

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
        dist = self.predict_proba(X)
        if quantiles is not None:
            if return_std:
                raise ValueError("return_std and quantiles exclude each other; found both.")
            return dist.ppf(quantiles)
        return (dist.mean(), dist.std()) if return_std else dist.mean()

    def _validate_rows(self, X, y, reset, suffix=""):
        name = f"y{suffix}"
        X, y = self._check_rows(X, y, to_response, reset, suffix)
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
                f"{name} has {n_outputs} outputs; expected {self.n_outputs_} as in the earlier fit."
            )
        if reset:
            self._y_ndim = y.ndim
        return X, y

    def _make_family(self):
        if isinstance(self.family, Categorical):
            raise ValueError(f"family={self.family!r} is the classifier's; expected another.")
        has_floor = self.family in ("normal", "homoscedastic-normal", "lognormal")
        family = get_family(self.family, **{"variance_floor": _FLOOR} if has_floor else {})
        if self.calibration == "on" and family.calibration is not Spread:
            raise ValueError(
                f"calibration='on': {family!r} has no calibration; expected 'auto' or 'off'."
            )
        return family

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _predictive(self, mixture):
        eta, log_weights = mixture
        if self.calibration_ is not None:
            eta = self.family_.calibrated(eta, self.calibration_)
        components = self.family_.components(eta, *self._y_scaling())
        return PredictiveDistribution(
            components.marginal(0) if self._y_ndim == 1 else components,
            weights=log_weights.double().softmax(-1).numpy() if eta.shape[1] > 1 else None,
        )

    def _fit_calibration(self, mixture, held_out, weight):
        """Calibration of the variances, or None."""
        if self.family_.calibration is not Spread:
            return None
        y = self.family_.to_normal(held_out.y).double()
        moments = self.family_.moments(mixture.eta.double())
        tensors = (y, *moments, mixture.log_weights.double().softmax(-1))
        data = (*(tensor.numpy() for tensor in tensors), weight)
        return calibrate(self.family_.calibration, data, self.calibration)

    def _allow_for_members(self, judged, delivered):
        # An out-of-fold row has one member of each kind; the means of the others differ from its,
        # and that spread must not come on top of the fitted one, so this is shrunk by its share.
        spread = self.calibration_
        within, between = self._parts_of_variance(judged)
        added = self._parts_of_variance(delivered)[1] - between
        kept = max(1 - max(added, 0.0) / spread.apply(within), 0.5)
        self.calibration_ = Spread(kept * spread.a, kept * spread.b)

    def _parts_of_variance(self, mixture):
        """Variance within and between the components, averaged over rows and outputs."""
        means, variances = self.family_.moments(mixture.eta.double())
        weights = mixture.log_weights.double().softmax(-1).unsqueeze(-1)
        centre = (weights * means).sum(1, keepdim=True)
        parts = variances, (means - centre).square()
        return tuple(float((weights * part).sum(1).mean()) for part in parts)

    def _score_predictive(self, dist, y, sample_weight):
        return {
            "nll": nll(y, dist, sample_weight=sample_weight),
            "crps": crps(y, dist, sample_weight=sample_weight),
            "coverage": coverage(y, dist, level=0.9, sample_weight=sample_weight),
        }
