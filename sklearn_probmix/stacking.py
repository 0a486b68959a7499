"""Stacking of predictive distributions: what several estimators say, weighed by out-of-fold rows.

The log score of a mixture is concave in its weights, and scores whole distributions: an estimator
counts for what it adds to the others, where it is right and knows how sure it may be. See Yao,
Vehtari, Simpson and Gelman, *Using stacking to average Bayesian predictive distributions*, Bayesian
Analysis 13 (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone, is_classifier
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import (
    Bunch,
    _safe_indexing,
    check_consistent_length,
    check_random_state,
    get_tags,
)
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _check_method_params,
    _check_sample_weight,
    _num_samples,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
)

from sklearn_probmix.calibration import LEAST_SHARE, stacking_weights
from sklearn_probmix.classifier import ProbabilityClassifierMixin
from sklearn_probmix.contract import unchanged_on_error
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.dividing import positions
from sklearn_probmix.encoding import (
    check_columns,
    to_groups,
    to_labels,
    to_numbers,
    to_response,
    whole_table,
)
from sklearn_probmix.forecasts import ADAPTERS, Cells, complete, concatenate, forecast, log_scores
from sklearn_probmix.regressor import DistributionRegressorMixin
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.traits import rounding_step

__all__ = ["DistributionStackingClassifier", "DistributionStackingRegressor"]

_N_FOLDS = 5
# Rows by which a mixture is scored: the CRPS of one that mixes families is an integral for each.
_ENOUGH_ROWS = 2000


class _Rows(NamedTuple):
    """Rows of weight of a fit, and how they are held out."""

    X: Any
    y: np.ndarray
    """As the members see it; shape (n,)."""
    weight: NDArray[np.float64]
    params: dict[str, dict[str, Any]]
    """Of `fit` for each member."""
    kept: NDArray[np.intp]
    """Places of these rows in the given data, shape (n,)."""
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
    """Positions of the rows that train and that are held out."""

    def held_out(self):
        """Positions of the rows that are held out, in order, the fold of each, and the order."""
        tests = [test for _, test in self.folds]
        fold = np.repeat(np.arange(len(tests)), [len(test) for test in tests])
        held_out = np.concatenate(tests)
        order = np.argsort(held_out)
        return held_out[order], fold[order], order


class _BaseDistributionStacking(_BaseComposition):
    """Fit members, forecast by them out of fold, and weigh them.

    A subclass defines `_to_response`, `_splitters`, `_ask`, `_own_forecast` and `_judge`, and
    `_whole` where what members say is not whole.
    """

    __metadata_request__fit = {"sample_weight": True, "groups": True}

    _parameter_constraints = {
        "estimators": [list],
        "cv": ["cv_object"],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimators: Sequence[tuple[str, Any]],
        *,
        cv: Any = _N_FOLDS,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.estimators = estimators
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @neutral_settings
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit every member to all rows and to those of each fold, and weigh them.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n, n_features)
            Whatever the members take.
        y : array-like of shape (n,)
            Labels of any type for the classifier.
        sample_weight : array-like of shape (n,), default=None
            At least 0. Every member has to take it; rows of weight 0 are left out.
        groups : array-like of shape (n,), default=None
            Rows of a group are held out together. Passed to `cv`, and to members that take it.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If data or parameters are not as described, or a member, which is named, fails; the
            estimator is then as it was before.
        """
        with unchanged_on_error(self):
            self._validate_params()
            members = self._members()
            rows = self._rows(members, X, y, sample_weight, groups)
            self.estimators_ = self._run(
                delayed(_fit)(name, clone(est), rows.X, rows.y, rows.params[name])
                for name, est in members.items()
            )
            fitted = dict(zip(members, self.estimators_, strict=True))
            self.named_estimators_ = Bunch(**self.named_estimators | fitted)
            held_out, fold, _ = rows.held_out()
            found = self._out_of_fold(members, rows)
            self.oof_rows_ = rows.kept[held_out]
            self._judge(found, rows.y[held_out], rows.weight[held_out], fold)
        return self

    @property
    def named_estimators(self) -> Bunch:
        """Members by name, as they were given."""
        return Bunch(**dict(self.estimators))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, with those of the members as ``name__parameter``.

        Parameters
        ----------
        deep : bool, default=True
            Whether the members and theirs are among them.

        Returns
        -------
        dict
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of members, or members, which "drop" leaves out.

        Parameters
        ----------
        **params
            As `get_params` names them.

        Returns
        -------
        self
        """
        self._set_params("estimators", **params)
        return self

    def get_metadata_routing(self) -> MetadataRouter:
        """Say what `fit` takes, and hands to the members that ask for it.

        Returns
        -------
        MetadataRouter
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        for name, est in self.estimators:
            if not isinstance(est, str):
                router.add(
                    **{name: est}, method_mapping=MethodMapping().add(caller="fit", callee="fit")
                )
        return router

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            inputs = [get_tags(est).input_tags for _, est in self.estimators if est != "drop"]
        except Exception:
            # Members that are none are refused by fit, and those of other libraries have no tags.
            return tags
        tags.input_tags.allow_nan = all(each.allow_nan for each in inputs)
        tags.input_tags.sparse = all(each.sparse for each in inputs)
        return tags

    def _members(self):
        """Members by name, without those that are dropped."""
        try:
            names = [name for name, _ in self.estimators]
            named = dict(self.estimators)
            if not all(isinstance(name, str) for name in names):
                raise TypeError
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"estimators={self.estimators!r}; expected a list of pairs of a name and an "
                "estimator."
            ) from error
        self._validate_names(names)
        members = {name: est for name, est in named.items() if not isinstance(est, str)}
        unknown = {name: est for name, est in named.items() if isinstance(est, str)}
        if set(unknown.values()) - {"drop"} or not members:
            raise ValueError(
                f"estimators={self.estimators!r}; expected at least one estimator, and 'drop' in "
                "the place of those that are left out."
            )
        for name, est in members.items():
            if isinstance(est, type) or not hasattr(est, "fit"):
                raise TypeError(f"member {name!r} is {est!r}; expected an estimator with fit.")
        return members

    def _rows(self, members, X, y, sample_weight, groups):
        """Check y, weights and groups, leave out rows of no weight, and divide the others."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        X = _as_rows(X)
        check_columns(self, X, reset=True)
        if _num_samples(X) < 2:
            raise ValueError(f"X has n_samples={_num_samples(X)}; expected at least 2.")
        y = self._to_response(y)
        check_consistent_length(X, y)
        weight = np.ones(len(y))
        if sample_weight is not None:
            sample_weight = to_numbers(sample_weight, "sample_weight")[()]
            sample_weight = _check_sample_weight(sample_weight, y, ensure_non_negative=True)
            weight = sample_weight
        if groups is not None:
            groups = to_groups(groups)
            check_consistent_length(y, groups)
        given = X, y, groups
        params = self._fit_params(members, sample_weight, groups)
        kept = np.flatnonzero(weight)
        if len(kept) < len(y):
            X, y, weight = _safe_indexing(X, kept), y[kept], weight[kept]
            groups = None if groups is None else groups[kept]
            params = {
                name: _check_method_params(given[0], own, indices=kept)
                for name, own in params.items()
            }
        folds = self._folds(y, groups) if self._is_numbered() else self._given_folds(given, kept)
        every = np.concatenate([test for _, test in folds]) if folds else np.array([])
        if len(np.unique(every)) < len(every) or not all(len(train) for train, _ in folds):
            raise ValueError(
                f"cv={self.cv!r} holds rows out twice, or leaves none to train; expected every row "
                "to be held out at most once."
            )
        folds = [(train, test) for train, test in folds if len(test)]
        if not folds:
            raise ValueError(f"cv={self.cv!r} holds no rows out; expected some.")
        return _Rows(X, y, weight, params, kept, folds)

    def _fit_params(self, members, sample_weight, groups):
        if _routing_enabled():
            routed = process_routing(self, "fit", sample_weight=sample_weight, groups=groups)
            return {name: dict(routed[name].fit) for name in members}
        given = {"sample_weight": sample_weight, "groups": groups}
        return {
            name: _params_of(est, name, {k: v for k, v in given.items() if v is not None})
            for name, est in members.items()
        }

    def _is_numbered(self):
        return self.cv is None or isinstance(self.cv, Integral)

    def _folds(self, y, groups):
        plain, grouped = self._splitters
        splitter = (plain if groups is None else grouped)(
            _N_FOLDS if self.cv is None else self.cv,
            shuffle=True,
            random_state=check_random_state(self.random_state).randint(2**31),
        )
        return list(splitter.split(y, y, groups))

    def _given_folds(self, given, kept):
        # It may know the rows by their places, so it sees those of no weight too.
        X, y, groups = given
        splits = check_cv(self.cv, y, classifier=is_classifier(self)).split(X, y, groups)
        try:
            return [tuple(positions(part, kept, len(y)) for part in split) for split in splits]
        except IndexError as error:
            raise ValueError(
                f"cv={str(self.cv)[:200]} ({error}); expected rows by their places from 0 to "
                f"{len(y) - 1}."
            ) from error

    def _out_of_fold(self, members, rows):
        """Forecasts of the rows that are held out, in order, by name."""
        held_out, _, order = rows.held_out()
        found = {}
        for name, est in zip(members, self.estimators_, strict=True):
            own = self._own_forecast(est, rows.y) if self._is_numbered() else None
            found[name] = None if own is None else own[held_out]
        again = [name for name, own in found.items() if own is None]
        forecasts = self._run(
            delayed(_fit_and_ask)(
                self._ask, name, clone(members[name]), rows.X, rows.y, rows.params[name], *fold
            )
            for name in again
            for fold in rows.folds
        )
        n_folds = len(rows.folds)
        for place, name in enumerate(again):
            own = forecasts[place * n_folds : (place + 1) * n_folds]
            found[name] = concatenate(own)[order]
        return found

    def _run(self, jobs):
        return list(Parallel(n_jobs=self.n_jobs, verbose=self.verbose)(jobs))

    def _weigh(self, scores, weight):
        """Weigh members by their log scores of rows, and keep the means of these."""
        for name, own in scores.items():
            if np.isnan(own).any():
                raise ValueError(f"member {name!r}: its log score of a row is not a number.")
        table = np.stack(list(scores.values()), axis=1)
        self.weights_ = stacking_weights(table, weight)
        needed = self.weights_ >= LEAST_SHARE
        self.weights_[:] = 0
        self.weights_[needed] = stacking_weights(table[:, needed], weight)
        means = {name: float(np.average(own, weights=weight)) for name, own in scores.items()}
        self.member_scores_ = means

    @neutral_settings
    def member_proba(self, X: Any) -> dict[str, Any]:
        """Return what each member says by itself: what `predict_proba` mixes.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n, n_features)

        Returns
        -------
        dict
            Names to predictions, without the members that were dropped.
        """
        check_is_fitted(self)
        X = _as_rows(X)
        check_columns(self, X, reset=False)
        # Their scores are in the order of the estimators.
        named = zip(self.member_scores_, self.estimators_, strict=True)
        found = {name: _named(name, est, lambda est=est: self._ask(est, X)) for name, est in named}
        return self._whole(found)

    def _whole(self, found):
        """Make what is mixed of what members say."""
        return found


class DistributionStackingRegressor(DistributionRegressorMixin, _BaseDistributionStacking):
    r"""Mixture of the predictive distributions of several regressors, of any library.

    .. math:: p(y \mid x) = \sum_k w_k \, p_k(y \mid x)

    The weights maximise the log score of rows that the members were not fitted to. What is scored
    is the probability of the *cell* of y, `width_` wide around it, so that densities, masses and
    spikes on rounded values are compared fairly; where y is continuous, and no member has masses,
    it is the density.

    A member says what it can: a `PredictiveDistribution`, a mean and a standard deviation
    (``predict(return_std=True)``: a Normal), quantiles (``predict(quantiles=)``: a density that is
    constant in between, with exponential tails) or points, to which the distribution of its
    out-of-fold residuals is added. NGBoost, CatBoost's RMSEWithUncertainty, skpro, quantile
    forests, TabPFN and TabICL are asked in their own ways, also inside of a Pipeline or a search;
    :func:`sklearn_probmix.forecasts.forecast` shows how to teach it another. The adapters of TabPFN
    and TabICL are written against their documented interfaces and tested with stand-ins only, since
    their weights have to be fetched; of TabPFN's half-Normal outer bins they keep the mass and the
    half of it that lies within the bin's width, with exponential tails.

    Parameters
    ----------
    estimators : list of (str, regressor)
        Members by name; "drop" in the place of a regressor leaves it out.
    cv : int, splitter, iterable of (train, test) or None, default=5
        How rows are held out, each at most once. A number: so many shuffled folds, of whole groups
        where `groups` are given; None means 5. A member that has out-of-fold predictions of its own
        after its fit, as :class:`ProbMixupRegressor` with folds has, is then not fitted again. With
        anything else every member is fitted again.
    n_jobs : int, default=None
        Fits that run at the same time; -1 for one on each processor.
    random_state : int, RandomState or None, default=None
        Of the shuffling of the folds.
    verbose : int, default=0
        Of joblib.

    Attributes
    ----------
    estimators_ : list of regressors
        The members, fitted to all rows, without those that were dropped.
    named_estimators_ : Bunch
        These by name.
    weights_ : ndarray of shape (n_members,)
        Of sum 1, in the order of `estimators_`; 0 for members whose weight was below .02.
    width_ : float
        Width of the cells of y, in its units: the step that it was rounded to or, where it was not
        but members have masses, the median gap between its values; 0 for densities.
    member_scores_ : dict of float
        Mean log score of each member, in nats, of the cells or the densities: higher is better.
    oof_predictive_ : PredictiveDistribution of shape (n_held_out,)
        Mixtures of the distributions of held-out rows by members that were not fitted to them. The
        weights were learnt on these rows.
    oof_rows_ : ndarray of int of shape (n_held_out,)
        Which rows of the fit these are.
    oof_scores_ : dict of float
        "nll", "crps" and "coverage" (of 90 % intervals) of `oof_predictive_`; of more than 2,000
        rows every second, third and so on is scored.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    See Also
    --------
    DistributionStackingClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn.datasets import make_friedman1
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> from sklearn.linear_model import BayesianRidge
    >>> from sklearn_probmix import DistributionStackingRegressor
    >>> X, y = make_friedman1(200, noise=1.0, random_state=0)
    >>> members = [("ridge", BayesianRidge()), ("forest", RandomForestRegressor(random_state=0))]
    >>> est = DistributionStackingRegressor(members, random_state=0).fit(X, y)
    >>> est.predict_proba(X[:3])
    PredictiveDistribution('norm + piecewise', shape=(3,), n_components=2)
    >>> mixed, alone = est.oof_scores_["nll"], est.member_scores_
    >>> bool(mixed < -alone["ridge"] and mixed < -alone["forest"])
    True
    """

    _splitters = KFold, GroupKFold

    @neutral_settings
    def predict_proba(self, X: Any) -> PredictiveDistribution:
        """Predictive distribution of y for each row of X.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n, n_features)

        Returns
        -------
        PredictiveDistribution of shape (n,)
            In the units of y, a mixture over the members.
        """
        return PredictiveDistribution.mix([*self.member_proba(X).values()], self.weights_)

    def _whole(self, found):
        return {name: self._completions[name](own) for name, own in found.items()}

    @property
    def _ask(self) -> Callable[..., Any]:
        return partial(_forecast_by, dict(ADAPTERS))

    def _to_response(self, y):
        return to_response(column_or_1d(_as_array(y), warn=True))

    def _own_forecast(self, est, y):
        own = getattr(est, "oof_predictive_", None)
        is_whole = isinstance(own, PredictiveDistribution) and own.shape == y.shape
        return own if is_whole else None

    def _judge(self, found, y, weight, fold):
        cells = Cells.of(y, rounding_step(y))
        dists, self._completions = {}, {}
        for name, own in found.items():
            dists[name], self._completions[name] = complete(own, y, weight, fold, cells)
        has_masses = any(block.has_atoms for dist in dists.values() for block in dist.blocks)
        self.width_ = cells.resolution if has_masses else cells.step
        scores = {name: log_scores(dist, y, self.width_) for name, dist in dists.items()}
        self._weigh(scores, weight)
        self.oof_predictive_ = PredictiveDistribution.mix(list(dists.values()), self.weights_)
        some = slice(None, None, -(-len(y) // _ENOUGH_ROWS))
        self.oof_scores_ = self._score_predictive(self.oof_predictive_[some], y[some], weight[some])


class DistributionStackingClassifier(ProbabilityClassifierMixin, _BaseDistributionStacking):
    r"""Mixture of the class probabilities of several classifiers.

    .. math:: p(c \mid x) = \sum_k w_k \, p_k(c \mid x)

    The weights maximise the log score of rows that the members were not fitted to, which is minus
    the log loss.

    Parameters
    ----------
    estimators : list of (str, classifier)
        Members by name, with `predict_proba`; "drop" in the place of a classifier leaves it out.
    cv : int, splitter, iterable of (train, test) or None, default=5
        How rows are held out, each at most once. A number: so many shuffled folds, stratified by
        class, of whole groups where `groups` are given; None means 5. A member that has out-of-fold
        predictions of its own after its fit, as :class:`ProbMixupClassifier` with folds has, is
        then not fitted again. With anything else every member is fitted again.
    n_jobs : int, default=None
        Fits that run at the same time; -1 for one on each processor.
    random_state : int, RandomState or None, default=None
        Of the shuffling of the folds.
    verbose : int, default=0
        Of joblib.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    estimators_ : list of classifiers
        The members, fitted to all rows, without those that were dropped.
    named_estimators_ : Bunch
        These by name.
    weights_ : ndarray of shape (n_members,)
        Of sum 1, in the order of `estimators_`; 0 for members whose weight was below .02.
    member_scores_ : dict of float
        Mean log score of each member, minus its log loss in nats.
    oof_predictive_ : ndarray of shape (n_held_out, n_classes)
        Mixtures of the probabilities of held-out rows by members that were not fitted to them. The
        weights were learnt on these rows.
    oof_rows_ : ndarray of int of shape (n_held_out,)
        Which rows of the fit these are.
    oof_scores_ : dict of float
        "nll" (log loss) and "accuracy" of `oof_predictive_`.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    See Also
    --------
    DistributionStackingRegressor : The same for numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_probmix import DistributionStackingClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> linear = LogisticRegression(max_iter=500)
    >>> members = [("linear", linear), ("forest", RandomForestClassifier(random_state=0))]
    >>> est = DistributionStackingClassifier(members, random_state=0).fit(X, y)
    >>> est.predict_proba(X[:3]).shape, bool(abs(est.weights_.sum() - 1) < 1e-9)
    ((3, 3), True)
    """

    _splitters = StratifiedKFold, StratifiedGroupKFold

    @neutral_settings
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Class probabilities, the members' weighted mean.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of `classes_`.
        """
        return self._mix([*self.member_proba(X).values()])

    @property
    def _ask(self) -> Callable[..., NDArray[np.float64]]:
        return partial(_class_probabilities, self.classes_)

    def _mix(self, probabilities):
        mixed = np.tensordot(self.weights_, np.stack(probabilities), axes=1)
        return mixed / mixed.sum(axis=1, keepdims=True)

    def _to_response(self, y):
        y = to_labels(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            (label,) = self.classes_.tolist()
            raise ValueError(f"y holds the single class {label!r}; expected at least 2 classes.")
        return y

    def _own_forecast(self, est, y):
        own = getattr(est, "oof_predictive_", None)
        shape = len(y), len(self.classes_)
        return own if isinstance(own, np.ndarray) and own.shape == shape else None

    def _judge(self, found, y, weight, fold):
        codes = np.searchsorted(self.classes_, y)
        with np.errstate(divide="ignore"):
            scores = {name: np.log(p[np.arange(len(y)), codes]) for name, p in found.items()}
        self._weigh(scores, weight)
        self.oof_predictive_ = self._mix(list(found.values()))
        self.oof_scores_ = self._score_predictive(self.oof_predictive_, codes, weight)


def _as_array(y):
    # Lists and Series; text in numbers' place is refused later.
    return y if hasattr(y, "shape") else np.asarray(y)


def _as_rows(X):
    """Return X as it is, if rows can be taken of it: its columns are the members' affair."""
    X = whole_table(X)
    if not (hasattr(X, "shape") or isinstance(X, list)):
        X = np.asarray(X)
    if isinstance(X, np.ndarray):
        if X.ndim < 2:
            raise ValueError(
                f"Expected 2D array, got an array of shape {X.shape} instead. Reshape your data by "
                "X.reshape(-1, 1) if it has one column, or by X.reshape(1, -1) if it is one row."
            )
        if np.iscomplexobj(X):
            raise ValueError("Complex data not supported: X holds complex numbers.")
    return X


def _forecast_by(adapters, est, X):
    # Another process does not know those that were entered in this one.
    ADAPTERS.update(adapters)
    return forecast(est, X)


def _class_probabilities(classes, est, X):
    """Probabilities of classes, 0 of those that a member has not seen."""
    if not hasattr(est, "predict_proba"):
        raise TypeError("it has no predict_proba; expected one, as CalibratedClassifierCV adds it.")
    p = np.asarray(est.predict_proba(X), dtype=float)
    if p.ndim != 2 or p.shape[1] != len(est.classes_) or not np.isfinite(p).all():
        raise ValueError(
            f"its probabilities have the shape {p.shape}, or are not finite; expected one for each "
            f"of its {len(est.classes_)} classes."
        )
    every = np.zeros((len(p), len(classes)))
    every[:, np.searchsorted(classes, est.classes_)] = p
    return every


def _params_of(est, name, given):
    """Pick what `fit` of a member takes, where scikit-learn's routing is off."""
    if isinstance(est, Pipeline):
        step, last = est.steps[-1]
        return {f"{step}__{key}": value for key, value in _params_of(last, name, given).items()}
    params = {key: value for key, value in given.items() if has_fit_parameter(est, key)}
    if "sample_weight" in given and "sample_weight" not in params:
        raise ValueError(
            f"sample_weight is given, which member {name!r}, a {type(est).__name__}, does not "
            "take; expected members that do, or no weights."
        )
    return params


def _fit(name, est, X, y, params):
    _named(name, est, lambda: est.fit(X, y, **params))
    return est


def _fit_and_ask(ask, name, est, X, y, params, train, test):
    own = _check_method_params(X, params, indices=train)
    fitted = _fit(name, est, _safe_indexing(X, train), y[train], own)
    return _named(name, est, lambda: ask(fitted, _safe_indexing(X, test)))


def _named(name, est, function):
    """Call a function; an error says whose it is."""
    try:
        return function()
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"member {name!r}, a {type(est).__name__}: {error}") from error
