"""What the two estimators share: from validated rows to a weighted, calibrated mixture."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from contextlib import contextmanager
from numbers import Integral, Real
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
)
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sklearn_probmix.calibration import stacking_weights
from sklearn_probmix.criterion import log_likelihood
from sklearn_probmix.encoding import fit_scaler, scale_columns, to_columns, to_groups, to_numbers
from sklearn_probmix.modules import ACTIVATIONS
from sklearn_probmix.pooling import pool
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.training import (
    METHODS,
    Part,
    natural_parameters,
    new_net,
    out_of_fold,
    size_to,
    train,
)

MIN_ROWS_TO_VALIDATE = 10
# Of standardised responses: the gradients of what is farther away overflow.
_FARTHEST_Y = {torch.float32: 1e15}
# Relative to the mean; in float32 rows of less may all vanish together.
_LEAST_WEIGHT = 1e-30
# What the kinds of network have in common, because their rows, members and family are the same.
_COMMON = {
    *("family", "variance_floor", "n_members", "weighting", "calibration", "class_weight"),
    *("validation", "validation_fraction", "warm_start", "random_state"),
}


class _Rows(NamedTuple):
    """The n rows of a table that have weight, and what of the table as it was given is needed."""

    X: np.ndarray
    """Shape (n, ...), as are y, weight and groups."""
    y: np.ndarray
    weight: np.ndarray | None
    groups: np.ndarray | None
    part: Part
    kept: np.ndarray
    """Places of these rows in the given table, shape (n,)."""
    given: tuple
    """X, y and groups of the given table."""

    def position(self, places):
        """Positions among these rows of those that are at these places of the given table."""
        position = np.full(len(self.given[1]), -1)
        position[self.kept] = np.arange(len(self.kept))
        found = position[np.asarray(places)] if len(places) else position[:0]
        return found[found >= 0]


class BaseProbMixup(BaseEstimator):
    """Fit and predict in terms of natural parameters; subclasses know the response.

    A subclass lists all parameters in its `__init__`, as scikit-learn wants, and defines
    `_validate_rows`, `_make_family`, `_fit_calibration`, `_predictive` and `_score_predictive`.
    """

    # Metadata that a Pipeline or a search passes to fit without being asked to.
    __metadata_request__fit = {
        "sample_weight": True,
        "X_val": True,
        "y_val": True,
        "groups": True,
    }
    __metadata_request__partial_fit = {"sample_weight": True}

    #: Kinds of network that method="auto" trains: overrides of the estimator's parameters.
    _auto_kinds: tuple[dict, ...]

    _parameter_constraints = {
        "method": [StrOptions({"auto", *METHODS}), list],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "pooling": [StrOptions({"log-linear", "linear"})],
        "response": [StrOptions({"pooled", "expected"}), None],
        "n_mixes": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions({"expected-log", "log-expected"})],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "weighting": [StrOptions({"stacked", "uniform"})],
        "calibration": [StrOptions({"auto", "on", "off"})],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "n_knots": [Interval(Integral, 2, None, closed="left"), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "mixing_layer": [Interval(Integral, 0, None, closed="left")],
        "embedding_variance": [StrOptions({"shared", "separate"})],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "n_train_draws": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"constant", "cosine"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "validation": [StrOptions({"auto", "holdout", "cv"}), HasMethods(["split"]), None],
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

    @neutral_settings
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, groups=None):
        """Train the networks, keep their best epochs, and weigh and calibrate their mixture.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
            With `net=` of any shape whose first axis are rows.
        y : array-like of shape (n,) or (n, n_outputs)
            In the support of the family; for the classifier labels of any type.
        sample_weight : array-like of shape (n,), default=None
            At least 0; weights are scaled to mean 1, and rows of weight 0 are left out.
        X_val, y_val : array-likes, default=None
            Validation data of equal weights, in place of rows held out from X and y.
        groups : array-like of shape (n,), default=None
            Passed to the splitter `validation`, or kept together by the hold-out and the folds.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If data or parameters are not as described; the estimator is then as it was before.
        """
        with self._unchanged_on_error():
            if (X_val is None) != (y_val is None):
                raise ValueError("X_val and y_val go together; found one without the other.")
            nets = getattr(self, "nets_", None) if self.warm_start else None
            rows = self._prepare(X, y, sample_weight, groups, reset=nets is None)
            rng = check_random_state(self.random_state)
            if X_val is not None:
                X_val, y_val = self._validate_rows(X_val, y_val, reset=False, suffix="_val")
                valid = self._part(X_val, y_val, None, name="y_val")
                self._fit_holdout(rows.part, valid, rng, nets)
            elif isinstance(self.validation, str) and len(rows.y) < MIN_ROWS_TO_VALIDATE:
                self._warn(
                    f"{len(rows.y)} rows are too few to hold some out; the last epoch is kept."
                )
                self._fit_holdout(rows.part, None, rng, nets)
            elif self.validation == "cv" or (self.validation == "auto" and self.n_members > 1):
                self._fit_folds(rows, self._folds(rows, rng), rng, nets)
            else:
                self._fit_holdout(*self._split(rows, rng), rng, nets)
        return self

    @neutral_settings
    def _partial_fit(self, X, y, sample_weight, **kwargs):
        with self._unchanged_on_error():
            nets = getattr(self, "nets_", None)
            rows = self._prepare(X, y, sample_weight, reset=nets is None, **kwargs)
            rng = check_random_state(self.random_state)
            self._train(rows.part, None, rng, nets, max_epochs=1)
            # An interruption may leave fewer kinds than were weighed.
            if nets is None or len(self.nets_) < len(nets):
                self.weights_ = np.full(len(self.nets_), 1 / len(self.nets_))
                self.calibration_ = None
        return self

    def _prepare(self, X, y, sample_weight=None, groups=None, *, reset=True, **kwargs):
        """Check everything, and learn the scaling from rows of weight if this is a new fit."""
        self._check_parameters()
        X, y = self._validate_rows(X, y, reset=reset, **kwargs)
        weight = self._weigh(X, y, sample_weight)
        if groups is not None:
            groups = to_groups(groups)
            check_consistent_length(X, groups)
        given, kept = (X, y, groups), np.arange(len(y))
        if weight is not None:
            # A row of no weight would have a say as a partner, and in the scaling.
            kept = np.flatnonzero(weight)
            X, y, weight = X[kept], y[kept], weight[kept]
            groups = None if groups is None else groups[kept]
        if reset:
            self._fit_scaling(X, y, weight)
        return _Rows(X, y, weight, groups, self._part(X, y, weight), kept, given)

    @property
    def net_(self):
        """The trained net, the first if there are several kinds."""
        return self.nets_[0]

    def __sklearn_is_fitted__(self):
        return hasattr(self, "nets_")

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

    def _check_parameters(self):
        self._validate_params()
        _check_sizes(self.hidden_layer_sizes)
        # A string has a method split too.
        if isinstance(self.validation, str) and self.validation not in ("auto", "holdout", "cv"):
            raise ValueError(
                f"validation={self.validation!r}; expected 'auto', 'holdout', 'cv', a splitter "
                "or None."
            )
        for callback in self.callbacks or []:
            named = callback[-1] if isinstance(callback, tuple) else callback
            if not hasattr(named, "on_epoch_end"):
                raise ValueError(f"callbacks holds {callback!r}; expected callbacks of skorch.")
        try:
            # Where there is no such device torch says so, by one error or another.
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device={self.device!r} cannot be used here ({reason}); expected one that torch "
                "finds on this machine, such as device='cpu'."
            ) from error

    def _check_rows(self, X, y, to_targets, reset, suffix):
        """Check X and y, or X_val and y_val, as arrays."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        least = 2 if reset else 1
        allow_nd = self.net is not None
        X = to_columns(
            self, X, name=f"X{suffix}", reset=reset, allow_nd=allow_nd, ensure_min_samples=least
        )
        y = to_targets(y, f"y{suffix}")
        check_consistent_length(X, y)
        return X, y

    def _weigh(self, X, y, sample_weight):
        """Weights of rows, of mean 1 where they are not 0, or None where all are equal."""
        if sample_weight is not None:
            # Indexed, an array without axes becomes the number that scikit-learn expects.
            sample_weight = to_numbers(sample_weight, "sample_weight")[()]
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weight = weight * self._class_weight(y)
        if not weight.max() > 0:
            raise ValueError("sample_weight sums to 0; expected at least one positive weight.")
        if (weight == weight[0]).all():
            return None
        weight = weight / weight.max()
        weight[weight <= _LEAST_WEIGHT * weight.mean()] = 0
        return weight / weight[weight > 0].mean()

    def _class_weight(self, y):
        return np.ones(len(y))

    def _fit_scaling(self, X, y, weight):
        """Learn how X and y are standardised."""
        self.scaler_ = fit_scaler(X, weight)
        self.family_ = self._make_family()
        y = torch.tensor(y, dtype=torch.float64).reshape(len(y), -1)
        self.n_outputs_ = y.shape[1]
        weight = torch.tensor(np.ones(len(y)) if weight is None else weight)
        scaling = self.family_.scaling(y, weight)
        self.y_shift_, self.y_scale_ = (value.numpy() for value in scaling)

    def _y_scaling(self):
        return torch.from_numpy(self.y_shift_), torch.from_numpy(self.y_scale_)

    def _part(self, X, y, weight, name="y"):
        y = torch.tensor(y, dtype=torch.float64).reshape(len(y), -1)
        scaled = self.family_.standardise(y, *self._y_scaling())
        dtype = self.family_.dtype
        is_near = self.family_.in_support(scaled) & (
            scaled.abs() < _FARTHEST_Y.get(dtype, math.inf)
        )
        if not is_near.all():
            row, output = map(int, (~is_near).nonzero()[0])
            raise ValueError(
                f"{name} holds {y[row, output]:.6g}, too far from the rows that the fit began with "
                f"(standardised {scaled[row, output]:.3g}); expected responses like theirs."
            )
        weight = None if weight is None else torch.tensor(weight, dtype=torch.float32)
        return Part(scale_columns(self.scaler_, X), scaled.to(dtype), weight)

    def _split(self, rows, rng):
        """Divide rows into a training and a validation part, the latter perhaps None."""
        splitter, n_rows = self.validation, len(rows.y)
        if splitter is None:
            return rows.part, None
        if isinstance(splitter, str):
            _check_groups(rows.groups, 2, "the hold-out")
            n_valid = math.ceil(self.validation_fraction * n_rows)
            kinds = ShuffleSplit, StratifiedShuffleSplit, GroupShuffleSplit
            kind = self._kind_of_split(kinds, rows, min(n_valid, n_rows - n_valid), 2)
            splitter = kind(1, test_size=self.validation_fraction, random_state=rng.randint(2**31))
            train, valid = next(splitter.split(rows.X, rows.y, rows.groups))
        else:
            # It may know the rows by their places, so it sees those of no weight too.
            parts = next(iter(splitter.split(*rows.given)), ([], []))
            train, valid = map(rows.position, parts)
        if not (len(train) and len(valid)):
            raise ValueError(
                f"validation={self.validation!r} gives {len(train)} training and {len(valid)} "
                f"validation rows of {n_rows}; expected some of each."
            )
        return rows.part.take(train), rows.part.take(valid)

    def _folds(self, rows, rng):
        """Rows that each member holds out."""
        n_folds, n_rows = self.n_members, len(rows.y)
        if not 2 <= n_folds <= n_rows:
            raise ValueError(
                f"n_members={n_folds!r}: with validation='cv' each member holds out a fold of its "
                f"own; expected at least 2 and at most the number of rows, {n_rows}."
            )
        _check_groups(rows.groups, n_folds, f"each of n_members={n_folds}")
        kind = self._kind_of_split((KFold, StratifiedKFold, GroupKFold), rows, n_rows, n_folds)
        splitter = kind(n_folds, shuffle=True, random_state=rng.randint(2**31))
        return [held_out for _, held_out in splitter.split(rows.X, rows.y, rows.groups)]

    def _kind_of_split(self, kinds, rows, n_rows, n_parts):
        plain, stratified, grouped = kinds
        if rows.groups is not None:
            return grouped
        return stratified if self._can_stratify(rows.y, n_rows, n_parts) else plain

    def _can_stratify(self, y, n_rows, n_parts):
        return False

    @staticmethod
    def _warn(message, category=UserWarning):
        """Warn at the line of the caller that is not ours."""
        frame, level = inspect.currentframe(), 0
        while frame.f_back and frame.f_globals["__name__"].startswith("sklearn_probmix."):
            frame, level = frame.f_back, level + 1
        warnings.warn(message, category, stacklevel=level + 1)

    def _kinds(self):
        """Parameters of every kind of network that is to be trained."""
        common = self._kind_defaults() | self.get_params(deep=False)
        common["hidden_layer_sizes"] = _check_sizes(self.hidden_layer_sizes)
        if self.net is not None:
            common["max_epochs"] = self.net.max_epochs
        specs = self.method if isinstance(self.method, list) else [self.method]
        if self.method == "auto":
            specs = self._auto_kinds if self.net is None else ["erm", "probmix"]
        specs = [dict(spec) if isinstance(spec, dict) else {"method": spec} for spec in specs]
        if self.method == "auto":
            # What the user says of all kinds goes before what is ours to choose.
            ours = inspect.signature(type(self)).parameters
            specs = [
                {k: v for k, v in spec.items() if k == "method" or common[k] == ours[k].default}
                for spec in specs
            ]
        if not specs:
            raise ValueError("method=[] names no kind of network; expected at least one.")
        free = set(self.get_params(deep=False)) - _COMMON
        for spec in specs:
            if set(spec) - free or str(spec.get("method")) not in METHODS:
                raise ValueError(
                    f"method={spec!r} describes no kind of network; expected one of "
                    f"{sorted(METHODS)}, or a dict of it and other parameters of this estimator "
                    f"but {sorted(_COMMON)}, which all kinds share."
                )
            validate_parameter_constraints(self._parameter_constraints, spec, type(self).__name__)
            if "hidden_layer_sizes" in spec:
                spec["hidden_layer_sizes"] = _check_sizes(spec["hidden_layer_sizes"])
        return [SimpleNamespace(**(common | spec), overrides=spec) for spec in specs]

    def _kind_defaults(self):
        return {"monitor": "nll", "variance_weighting": 0.0}

    def _train(self, part, validation, rng, nets=None, mask=None, max_epochs=None):
        """Train every kind, or continue its net."""
        kinds = self._kinds()
        if nets is not None:
            self._check_unchanged()
        seeds = rng.randint(2**31, size=len(kinds))
        trained = []
        # Shorter than the kinds where an earlier fit was interrupted.
        for kind, seed, net in zip(kinds, seeds, nets or [None] * len(kinds), strict=False):
            size_to(kind, len(part.y))
            if max_epochs is not None:
                kind.max_epochs = max_epochs
            new = train(kind, self.family_, part, validation, seed=int(seed), mask=mask, net=net)
            if not self._check_outcome(*new, is_first=not trained):
                break
            trained.append(new)
            if new.best.stop_reason_ == "interruption":
                break
        self._keep(trained, kinds)

    def _check_unchanged(self):
        """Refuse parameters that ask for other networks than the trained ones."""
        asked = copy.copy(self)
        asked.family_ = self._make_family()
        kinds = asked._kinds()[: len(self.nets_)]
        overrides = [kind.overrides for kind in kinds]
        if self.kinds_ != overrides:
            _refuse("kinds", self.kinds_, overrides)
        for kind, net in zip(kinds, self.nets_, strict=True):
            fresh = new_net(kind, asked.family_, *self._sizes())
            old, new = _arguments(net), _arguments(fresh)
            for name in old | new:
                if _differ(old.get(name), new.get(name)):
                    _refuse(name, old.get(name), new.get(name))

    def _sizes(self):
        """Return the number of features and of outputs of the networks."""
        return len(self.scaler_.mean_), len(self.y_shift_)

    def _keep(self, trained, kinds):
        """Make trained networks of these kinds, or of the first of them, the fitted ones."""
        for stale in ("oof_predictive_", "oof_scores_"):
            vars(self).pop(stale, None)
        self.nets_ = [net for net, _, _ in trained]
        self.kinds_ = [kind.overrides for kind in kinds[: len(trained)]]
        self.n_iter_ = max(n_epochs for _, _, n_epochs in trained)
        best = np.stack([best.best_epoch_ for _, best, _ in trained])
        self.best_epoch_ = int(best[0, 0]) if best.size == 1 else best
        kept = ("epoch", "train_loss", "valid_loss", "valid_crps", "dur")
        self.history_ = [
            {"kind": kind} | {name: epoch[name] for name in kept if name in epoch}
            for kind, net in enumerate(self.nets_)
            for epoch in net.history
        ]

    def _check_outcome(self, net, best, n_epochs, is_first):
        """Say how training ended where it did not end well; whether there are weights to keep."""
        has_weights = best.best_epoch_.all()
        kept = f"Kept the weights of epoch {max(best.best_epoch_)}."
        if best.stop_reason_ == "divergence":
            cause = f"the loss is not finite in epoch {n_epochs}; lower lr (now {net.lr})"
            if not has_weights:
                remedy = " or raise variance_floor"
                if self.net is not None:
                    remedy += ", and see that the module returns natural parameters, as those "
                    remedy += "of family.natural(raw) are"
                raise ValueError(f"Training diverged: {cause}{remedy}.")
            self._warn(f"Training diverged: {cause}. {kept}", ConvergenceWarning)
        elif best.stop_reason_ == "interruption":
            if not has_weights and is_first:
                raise KeyboardInterrupt
            done = kept if has_weights else "Kept the kinds of network that were trained before."
            self._warn(f"Training was interrupted in epoch {n_epochs + 1}. {done}")
        return has_weights

    def _fit_holdout(self, train_part, valid, rng, nets):
        self._train(train_part, None if valid is None else valid.validation(), rng, nets)
        self._judge(valid)

    def _judge(self, valid):
        """Weigh and calibrate the trained networks by held-out rows, if there are any."""
        judged = None
        if valid is not None and (len(self.nets_) > 1 or self.calibration != "off"):
            judged = [natural_parameters(net, valid.X) for net in self.nets_]
        self._combine(judged, valid)

    def _fit_folds(self, rows, folds, rng, nets):
        whole = rows.part
        mask = torch.ones(len(whole.y), len(folds), dtype=torch.float32)
        for member, fold in enumerate(folds):
            mask[fold, member] = 0
        held_out = Part.side_by_side([whole.take(fold) for fold in folds])
        self._train(whole, held_out.validation(), rng, nets, mask)
        judged = self._combine([out_of_fold(net, whole, folds) for net in self.nets_], whole)
        self.oof_predictive_ = self._predictive(judged)
        self.oof_scores_ = self._score_predictive(self.oof_predictive_, rows.y, rows.weight)
        if self.calibration_ is not None:
            everyone = [natural_parameters(net, whole.X) for net in self.nets_]
            self._allow_for_members(judged, pool(everyone, torch.tensor(self.weights_).log()))

    def _allow_for_members(self, judged, delivered):
        """Correct a calibration for what the mixture of all members adds to the judged one."""

    def _combine(self, judged, part):
        """Weigh the kinds, and calibrate their mixture, by rows that they did not train on.

        Parameters
        ----------
        judged : list of Mixture or None
            Natural parameters of these rows by every kind; None without such rows.
        part : Part

        Returns
        -------
        Mixture
        """
        n_kinds = len(self.nets_)
        self.weights_ = np.full(n_kinds, 1 / n_kinds)
        self.calibration_ = None
        if judged is None:
            return None
        points = part.y.unsqueeze(1)
        weight = part.row_weight().double().numpy()
        if n_kinds > 1 and self.weighting == "stacked":
            scores = [log_likelihood(self.family_, mixture, points) for mixture in judged]
            scores = torch.stack([score[:, 0, 0] for score in scores], dim=1).double().numpy()
            self.weights_ = stacking_weights(scores, weight)
        mixture = pool(judged, torch.tensor(self.weights_).log())
        if self.calibration != "off":
            self.calibration_ = self._fit_calibration(mixture, part, weight)
        return mixture

    def _mixture(self, X):
        """Natural parameters of the predictive mixture of the rows of X."""
        check_is_fitted(self)
        X = to_columns(self, X, reset=False, allow_nd=self.net is not None)
        X = scale_columns(self.scaler_, X)
        mixtures = [natural_parameters(net, X) for net in self.nets_]
        return pool(mixtures, torch.tensor(self.weights_).log())


def _check_groups(groups, n_needed, who):
    """Refuse fewer groups than are held out together."""
    if groups is not None and (n_groups := len(np.unique(groups))) < n_needed:
        raise ValueError(
            f"groups holds {n_groups} different groups; expected at least {n_needed}, since {who} "
            "holds out whole groups."
        )


def _check_sizes(sizes):
    """Return hidden_layer_sizes as a tuple."""
    sizes = tuple(sizes)
    proper = all(isinstance(size, Integral) and not isinstance(size, bool) for size in sizes)
    if not (proper and min(sizes, default=1) >= 1):
        raise ValueError(f"hidden_layer_sizes={sizes}; expected integers, at least 1.")
    return tuple(map(int, sizes))


def _arguments(net):
    """Return what a net is made of; of an ensemble, `module` is that of the members."""
    made = {"optimizer": net.optimizer, "module": net.module}
    return made | net.get_params_for("criterion") | net.get_params_for("module")


def _differ(old, new):
    """Compare arguments; of arrays, which a module keeps as it keeps weights, the shapes."""
    arrays = (torch.Tensor, np.ndarray)
    old, new = (each.shape if isinstance(each, arrays) else each for each in (old, new))
    if isinstance(old, torch.nn.Module):
        return type(old) is not type(new)
    return old != new


def _refuse(name, old, new):
    raise ValueError(
        f"the parameters were changed since fit: they ask for networks of {name}={new!r}, the "
        f"fitted ones have {old!r}. Set it back, or fit anew."
    )
