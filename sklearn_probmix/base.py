"""What the two estimators share: from validated rows to a weighted, calibrated mixture."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight
from skorch import NeuralNet

from sklearn_probmix.checkpoint import Checkpoint, digests
from sklearn_probmix.columns import ColumnEncoder
from sklearn_probmix.contract import unchanged_on_error
from sklearn_probmix.devices import chosen_device
from sklearn_probmix.dividing import Rows, divide
from sklearn_probmix.encoding import to_columns, to_groups, to_numbers
from sklearn_probmix.kinds import METHODS, RACES, Kind, as_kinds
from sklearn_probmix.nets import Common, check_unchanged, refuse_change
from sklearn_probmix.options import readable_options
from sklearn_probmix.processes import check_processes
from sklearn_probmix.progress import RaceBar
from sklearn_probmix.race import Entrant, race, resume
from sklearn_probmix.response import Response
from sklearn_probmix.scaling import fit_scaler, merge_moments, merge_scalers
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.table import Division, Table
from sklearn_probmix.training import NOT_BEGUN, Trained, train
from sklearn_probmix.traits import cell_width, rounding_step
from sklearn_probmix.warn import warn
from sklearn_probmix.weighing import WeighedKinds
from sklearn_probmix.workers import Workers

__all__ = ["BaseProbMixup"]

# Relative to the mean; in float32 rows of less may all vanish together.
_LEAST_WEIGHT = 1e-30
# Parameters of an estimator that mean "what the kind says" when None.
_OF_KINDS = (
    *("alpha", "n_neighbors", "pooling", "hidden_layer_sizes", "activation", "n_knots"),
    *("lr", "weight_decay", "batch_size", "max_epochs"),
)
# Parameters of a kind that are not of its networks, or are settled by the rows.
_OF_TRAINING = (
    *("alpha", "n_neighbors", "pooling", "dropout", "response", "monitor"),
    *("lr", "weight_decay", "batch_size", "max_epochs"),
)


class BaseProbMixup(WeighedKinds):
    """Fit in terms of natural parameters; subclasses know the response.

    A subclass lists all parameters in its `__init__`, as scikit-learn wants, and defines
    `_validate_rows`, `_make_family`, `_named_family` (of a kind), `_fit_calibration`, `_predictive`
    and `_score_predictive`.
    """

    # Metadata that a Pipeline or a search passes to fit without being asked to.
    __metadata_request__fit = {
        "sample_weight": True,
        "X_val": True,
        "y_val": True,
        "groups": True,
        "censored": True,
    }
    __metadata_request__partial_fit = {"sample_weight": True}

    # Step to which each output was rounded, 0 where there is none, and size of the cell by whose
    # probability rows are judged.
    _y_step: NDArray[np.float64] | float = 0.0
    _cell: NDArray[np.float64] | float = 1.0
    #: Kinds of network that method="auto" and method="fast" train.
    _auto_kinds: ClassVar[Sequence[Kind]]
    _fast_kinds: ClassVar[Sequence[Kind]]

    _parameter_constraints = {
        "method": [StrOptions({*RACES, *METHODS}), Kind, list, tuple],
        **{
            name: [*(each for each in Kind._parameter_constraints[name] if each is not None), None]
            for name in _OF_KINDS
        },
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "weighting": [StrOptions({"stacked", "uniform"})],
        "calibration": [StrOptions({"auto", "on", "off"})],
        "validation": [
            StrOptions({"auto", "holdout", "cv"}),
            Interval(Real, 0, 1, closed="neither"),
            Interval(Integral, 2, None, closed="left"),
            HasMethods(["split"]),
            list,
            tuple,
            None,
        ],
        "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
        "net": [HasMethods(["fit", "get_params"]), None],
        "callbacks": [list, None],
        "warm_start": ["boolean"],
        "device": [str],
        "n_jobs": [Integral, None],
        "checkpoint": [str, os.PathLike, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``method__alpha`` is the `alpha` of the :class:`Kind` in `method`.

        Parameters
        ----------
        **params
            Names and values.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are no such parameters, or `method` is not one Kind that has parameters.
        """
        inner = [name for name in params if name.startswith("method__")]
        method = params.get("method", self.method)
        if inner and not isinstance(method, Kind):
            raise ValueError(
                f"{inner[0]!r} reaches into a Kind, and method={method!r} is none; expected "
                "method=Kind(...)."
            )
        return super().set_params(**params)

    @neutral_settings
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        groups: ArrayLike | None = None,
        censored: ArrayLike | None = None,
    ) -> Self:
        """Train the networks, keep their best epochs, and weigh and calibrate their mixture.

        Parameters
        ----------
        X : array-like or data frame of shape (n, n_features)
            Of numbers, and in a frame of pandas, polars or Arrow of categories and text of few
            values; some may be missing (NaN, None). With `net=` of any shape whose first axis are
            rows.
        y : array-like of shape (n,) or (n, n_outputs)
            In the support of the family; for the classifier labels of any type.
        sample_weight : array-like of shape (n,), default=None
            At least 0; weights are scaled to mean 1, and rows of weight 0 are left out.
        X_val, y_val : array-likes, default=None
            Validation data of equal weights, in place of rows held out from X and y.
        groups : array-like of shape (n,), default=None
            Passed to the splitter `validation`, or kept together by the hold-out and the folds.
        censored : array-like of bool of shape (n,), default=None
            True where y is only known to be more than the value given (right-censored), as the
            lifetime of what still runs. For the regressor, with a Normal, log-normal, gamma or
            transformed family (whose curve is taken from the values given) and one output. Such
            rows enter the likelihood with the probability of more; kernel networks and calibration,
            which need values, are left out, and `oof_scores_` has the "nll" alone.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If data or parameters are not as described; the estimator is then as it was before.

        Notes
        -----
        Ctrl-C ends training: the mixture so far is kept, and a warning says which kinds of network
        are missing from it. Before there is one, the interruption reaches the caller.
        """
        with unchanged_on_error(self):
            if (X_val is None) != (y_val is None):
                raise ValueError("X_val and y_val go together; found one without the other.")
            nets = getattr(self, "nets_", None) if self.warm_start else None
            rows = self._prepare(X, y, sample_weight, groups, reset=nets is None, censored=censored)
            rng = check_random_state(self.random_state)
            if X_val is None:
                table, division = rows.table, self._divide(rows, rng)
            else:
                X_val, y_val = self._validate_rows(X_val, y_val, reset=False, suffix="_val")
                valid = self._table(X_val, y_val, None)
                self._own_response().standardise(valid.y, name="y_val")
                table = Table.concatenate([rows.table, valid])
                places = np.arange(len(table.y))
                division = Division.holdout(*np.split(places, [len(rows.y)]))
            checkpoint = self._train(table, division, rng, nets)
            with self._threads_for(len(rows.y)):
                self._judge(table, division, rows.y)
            if checkpoint is not None:
                checkpoint.clear()
        return self

    @neutral_settings
    def _partial_fit(self, X, y, sample_weight, **kwargs):
        with unchanged_on_error(self):
            nets = getattr(self, "nets_", None)
            is_new = nets is None
            rows = self._prepare(X, y, sample_weight, reset=is_new, moves=not is_new, **kwargs)
            rng = check_random_state(self.random_state)
            division = Division.holdout(np.arange(len(rows.y)), None)
            self._train(rows.table, division, rng, nets, is_pass=True)
            # An interruption may leave fewer kinds than were weighed.
            if nets is None or len(self.nets_) < len(nets):
                self._weigh_evenly()
        return self

    def _prepare(
        self,
        X,
        y,
        sample_weight=None,
        groups=None,
        *,
        reset=True,
        moves=False,
        censored=None,
        **kwargs,
    ):
        """Check everything; learn the scaling from rows of weight, if it is new or moves."""
        self._check_parameters()
        X, y = self._validate_rows(X, y, reset=reset, **kwargs)
        weight = self._row_weight(X, y, sample_weight)
        if groups is not None:
            groups = to_groups(groups)
            check_consistent_length(X, groups)
        if censored is not None:
            censored = self._check_censored(censored, y)
        given, kept = (X, y, groups), np.arange(len(y))
        if weight is not None:
            # A row of no weight would have a say as a partner, and in the scaling.
            kept = np.flatnonzero(weight)
            X, y, weight = X[kept], y[kept], weight[kept]
            groups = None if groups is None else groups[kept]
            censored = None if censored is None else censored[kept]
        if reset:
            self._fit_scaling(X, y, weight)
        elif moves:
            self._move_scaling(X, y, weight)
        self._y_step = np.array([rounding_step(column) for column in y.reshape(len(y), -1).T])
        table = self._table(X, y, weight)
        self._cell = np.array([cell_width(column) for column in table.y.numpy().T])
        if censored is not None:
            if censored.all():
                raise ValueError(
                    "censored is True for all rows of a sample_weight above 0; expected some "
                    "responses."
                )
            is_more = torch.tensor(censored, dtype=table.y.dtype).reshape(table.y.shape)
            table = table._replace(y=torch.complex(table.y, is_more))
        return Rows(table, y, groups, kept, given)

    def _check_censored(self, censored, y):
        """Return the mask as an array, or None if no response is censored."""
        censored = np.asarray(censored)
        if censored.dtype != bool or censored.shape != (len(y),) or y.size != len(y):
            raise ValueError(
                f"censored has dtype {censored.dtype} and shape {censored.shape} for y of shape "
                f"{y.shape}; expected booleans, one for each row, and one output."
            )
        if not censored.any():
            return None
        if self.calibration == "on":
            raise ValueError(
                "calibration='on' with censored responses, which have no value; expected 'auto' or "
                "'off'."
            )
        return censored

    @property
    def net_(self) -> NeuralNet:
        """The trained net, the first if there are several kinds."""
        return self.nets_[0]

    def __sklearn_is_fitted__(self):
        return hasattr(self, "nets_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = self.net is not None
        tags.input_tags.allow_nan = tags.input_tags.categorical = True
        return tags

    def _check_parameters(self):
        with readable_options():
            self._validate_params()
        # A string has a method split too.
        if isinstance(self.validation, str) and self.validation not in ("auto", "holdout", "cv"):
            raise ValueError(
                f"validation={self.validation!r}; expected 'auto', 'holdout', 'cv', a share, a "
                "number of folds, a splitter, a list of pairs, or None."
            )
        if self.checkpoint is not None:
            what = {"net": self.net is not None, "warm_start=True": self.warm_start}
            what["random_state=None"] = self.random_state is None
            if any(what.values()):
                wrong = ", ".join(name for name, holds in what.items() if holds)
                raise ValueError(
                    f"checkpoint={self.checkpoint!r} with {wrong}; expected networks of this "
                    "package, a new fit, and an int in random_state, so that a fit that starts "
                    "again can go on."
                )
        check_processes(self.net, self.random_state)
        for callback in self.callbacks or []:
            named = callback[-1] if isinstance(callback, tuple) else callback
            if not hasattr(named, "on_epoch_end"):
                raise ValueError(f"callbacks holds {callback!r}; expected callbacks of skorch.")
        chosen_device(self.device)

    def _check_rows(self, X, y, to_targets, reset, suffix):
        """Check X and y, or X_val and y_val, as arrays."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        least = 2 if reset else 1
        allow_nd = self.net is not None
        name = f"X{suffix}"
        checks = {"allow_nd": allow_nd, "ensure_min_samples": least}
        try:
            X = to_columns(self, X, name=name, reset=reset, **checks)
        except ValueError as error:
            # What scikit-learn says of columns is of X.
            if not suffix or name in str(error):
                raise
            raise ValueError(f"{name}: {error}") from error
        y = to_targets(y, f"y{suffix}")
        check_consistent_length(X, y)
        return X, y

    def _row_weight(self, X, y, sample_weight):
        """Weights of rows, of mean 1 where they are not 0, or None where all are equal."""
        if sample_weight is not None:
            # Indexed, an array without axes becomes the number that scikit-learn expects.
            sample_weight = to_numbers(sample_weight, "sample_weight")[()]
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weight, rows = weight.copy(), np.flatnonzero(weight)
        if len(rows):
            weight[rows] *= self._weight_of_response(y, rows)
        if not weight.max() > 0:
            raise ValueError("sample_weight sums to 0; expected at least one positive weight.")
        if (weight == weight[0]).all():
            return None
        weight = weight / weight.max()
        weight[weight <= _LEAST_WEIGHT * weight.mean()] = 0
        return weight / weight[weight > 0].mean()

    def _weight_of_response(self, y, rows):
        """Weights, of shape (len(rows),), of these rows by what y is in them."""
        return np.ones(len(rows))

    def _fit_scaling(self, X, y, weight):
        """Learn how X and y are standardised."""
        encoder = None
        if X.ndim == 2:
            encoder = (self.encoder_ or ColumnEncoder([None] * X.shape[1])).fit(X)
            if not len(encoder.source):
                raise ValueError("X has no column with values; expected some.")
            self.encoder_ = None if encoder.is_plain else encoder
            X = X if encoder.is_plain else encoder.encode(X)
        self.scaler_ = fit_scaler(X, weight, None if encoder is None else encoder.is_number)
        y, weight = _tensors(y, weight)
        self.n_outputs_ = y.shape[1]
        self.family_, shift, scale, _ = Response.of(self._make_family(), y, weight)
        self.y_shift_, self.y_scale_ = shift.numpy(), scale.numpy()
        # Of an earlier fit: a race would judge by it.
        self.responses_, self.calibration_ = {}, None

    def _move_scaling(self, X, y, weight):
        """Standardise by these rows and those before them, of a stream."""
        if any(kind.network == "kernel" for kind in self.kinds_) or self.calibration_ is not None:
            # The rows that are kept, and the calibration, are in the units that were.
            return
        encoder, before = self.encoder_, self.scaler_
        encoded = X if encoder is None else encoder.encode(X)
        with np.errstate(over="ignore"):
            new = fit_scaler(encoded, weight, None if encoder is None else encoder.is_number)
            self.scaler_, share = merge_scalers(before, new)
        if not np.isfinite(self.scaler_.var_).all():
            raise ValueError(
                "X holds numbers that are too far from those of earlier parts: the square of the "
                "distance overflows; expected at most 1e150 in size."
            )
        if self.family_.is_normal:
            y, weight = _tensors(y, weight)
            # Refuses what is too far from the rows before, and would move all of them.
            self._own_response().standardise(y)
            shift, scale = self.family_.scaling(y, weight)
            # Of equal responses, whose scale is their size, it is 0, of all others 1.
            squared = self.family_.standardise(y, shift, scale).square()
            new = ((weight / weight.sum()) @ squared).round() * scale**2
            self.y_shift_, variance = merge_moments(
                self.y_shift_, self.y_scale_**2, shift.numpy(), new.numpy(), share
            )
            self.y_scale_ = np.sqrt(variance)

    def _table(self, X, y, weight):
        """Rows with standardised X, and y in its original units."""
        y = torch.tensor(y, dtype=torch.float64).reshape(len(y), -1)
        weight = None if weight is None else torch.tensor(weight, dtype=torch.float32)
        return Table(self._scaled(X), y, weight)

    def _divide(self, rows: Rows, rng: np.random.RandomState) -> Division:
        """Decide who trains and who is held out, by `validation`."""
        return divide(rows, self.validation, self.n_members, rng, self._can_stratify)

    def _can_stratify(self, y, n_rows, n_parts):
        return False

    def _kinds(self) -> list[Kind]:
        """Every kind of network that is to be trained, whole."""
        values = {name: getattr(self, name) for name in _OF_KINDS}
        overrides = {name: value for name, value in values.items() if value is not None}
        auto = self._fast_kinds if self.method == "fast" else self._auto_kinds
        if self.method == "parametric":
            auto = [kind for kind in auto if kind.network != "kernel"]
        if self.net is not None:
            auto = Kind("erm"), Kind("probmix")
            batch_size = self.net.batch_size
            overrides["batch_size"] = "full" if batch_size == -1 else batch_size
            overrides["max_epochs"] = self.net.max_epochs
        kinds = as_kinds(auto if self._is_auto() else self.method, overrides)
        if self._is_auto():
            kinds = [kind.suited(self._family_of(kind)) for kind in kinds]
            kinds = [kind for kind in kinds if kind.fits(self._family_of(kind))]
        with readable_options():
            for kind in kinds:
                # Before its family is made by name.
                kind.check_values()
                kind.check(self._family_of(kind))
        return kinds

    def _warn_of_unused(self, kinds):
        """Say which parameters of mixing no kind heeds, as in a search over methods."""
        methods = [METHODS[kind.method] for kind in kinds]
        heeded = {
            **dict.fromkeys(("alpha", "n_neighbors"), any(method.site for method in methods)),
            "pooling": any(method.probabilistic for method in methods),
        }
        default, unused = Kind().get_params(), []
        for name in (name for name in heeded if not heeded[name]):
            of_kinds = (getattr(kind, name) for kind in kinds)
            given = [value for value in of_kinds if value != default[name]]
            if getattr(self, name) is not None:
                given = [getattr(self, name)]
            unused += [f"{name}={value!r}" for value in given[:1]]
        if unused:
            names = " or ".join(sorted({repr(kind.method) for kind in kinds}))
            warn(f"No network of method {names} uses {' and '.join(unused)}.")

    def _family_of(self, kind):
        return self.family_ if kind.family is None else self._named_family(kind.family)

    def _is_auto(self):
        return isinstance(self.method, str) and self.method in RACES

    def _common(self, kind: Kind) -> Common:
        return Common(
            self._response(kind).family,
            n_features=len(self.scaler_.mean_),
            n_outputs=len(self.y_shift_),
            n_members=self.n_members,
            net=self.net,
            # Of a net of one's own, rows go where it is batch by batch.
            device="cpu" if self.net is not None else chosen_device(self.device),
            callbacks=tuple(self.callbacks or ()),
            verbose=int(self.verbose),
        )

    def _train(self, table, division, rng, nets=None, is_pass=False):
        """Train every kind that earns it, or go on with nets; return a checkpoint that is over."""
        kinds = self._kinds_to_train(table, division, nets)
        with Workers(self._n_jobs(), len(kinds)) as workers:
            entrants = self._entrants(kinds, table, rng, workers.watch)
            is_race = nets is None and self._is_race(division)
            checkpoint = None
            if self.checkpoint is not None and not is_pass:
                fit = digests(entrants, table, division, is_race)
                checkpoint = Checkpoint(self.checkpoint, fit)
            # Shorter than the kinds where an earlier fit was interrupted.
            nets = nets or [None] * len(kinds)
            kinds = kinds[: len(nets)]

            def train_alone(place):
                if checkpoint is not None:
                    return resume(place, entrants[place], division, workers, checkpoint)
                kind, common, own, seed, _ = entrants[place]
                kind, net = kind.updated(max_epochs=1) if is_pass else kind, nets[place]
                new = train(kind, common, own, division, seed=seed, net=net, keeps_context=is_pass)
                if new.stop_reason == "interruption":
                    workers.stop()
                return new

            outcomes: Iterator[Trained | None] = (
                iter(self._race(entrants, table, division, workers, checkpoint))
                if is_race
                else workers.map(train_alone, range(len(kinds)))
            )
            trained: list[Trained] = []
            kept, missing = [], []
            for kind in kinds:
                new = next(outcomes, NOT_BEGUN)
                if new is None:
                    continue
                if self._is_kept(new, kind):
                    trained.append(new)
                    kept.append(kind)
                else:
                    missing.append(kind)
            if workers.is_stopped:
                self._warn_of_interruption(trained, missing)
                # It is not over.
                checkpoint = None
        self._keep(trained, kept)
        return checkpoint

    def _n_jobs(self):
        """Kinds that train side by side; those that may get in each other's way take turns."""
        if self.net is not None:
            # They draw from torch's global generator.
            return 1
        is_shared = self.callbacks or chosen_device(self.device) != "cpu"
        return 1 if self.n_jobs is None and is_shared else self.n_jobs

    def _kinds_to_train(self, table, division, nets):
        """Kinds sized to the table, those of the nets where there are any."""
        if nets is None:
            kinds = self._kinds_for(table, division)
            self._warn_of_unused(kinds)
            for kind in kinds:
                if kind.family is not None and kind.family not in self.responses_:
                    response = Response.of(self._family_of(kind), table.y, table.row_weight())
                    self.responses_ = self.responses_ | {kind.family: response}
        else:
            kinds = self._check_unchanged()
        if table.y.is_complex():
            kinds = self._kinds_for_censored(kinds)
        kinds = [kind.sized(len(division.train)) for kind in kinds]
        if self._is_auto() and nets is None:
            # Some differ on small tables only.
            kinds = [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]
        return kinds

    def _kinds_for(self, table, division):
        """Every kind that is to be trained on a table, whole."""
        return self._kinds()

    def _entrants(self, kinds, table, rng, watch=None):
        """Kinds with what they are trained with; those of one family share its table."""
        seeds = rng.randint(2**31, size=len(kinds)).tolist()
        commons = [self._common(kind)._replace(watch=watch) for kind in kinds]
        device = commons[0].device
        there = table.to(device)
        tables = {
            kind.family: there._replace(y=self._response(kind).standardise(table.y).to(device))
            for kind in kinds
        }
        return [
            Entrant(kind, common, tables[kind.family], seed, self._has_masses(kind))
            for kind, common, seed in zip(kinds, commons, seeds, strict=True)
        ]

    def _kinds_for_censored(self, kinds):
        if self._is_auto():
            kinds = [kind for kind in kinds if kind.network != "kernel"]
            kinds = [kind.updated(monitor="nll") for kind in kinds]
        return [kind.censored(self._family_of(kind)) for kind in kinds]

    def _is_race(self, division):
        """Whether kinds have to earn their steps, by rows that they did not train on."""
        return (
            self._is_auto()
            and self.net is None
            and self.max_epochs is None
            and self.weighting == "stacked"
            and division.valid is not None
        )

    def _has_masses(self, kind):
        """Whether a kind predicts masses that cannot share a mixture with densities."""
        return False

    def _race(self, entrants, table, division, workers, checkpoint):
        """Train kinds for as long as they help the mixture; None for those that do not."""
        held_out, weight = self._held_out(table, division)

        def judge_of(entrant):
            response = self._response(entrant.kind)

            def log_scores(net):
                judged = self._judged(net, entrant.table, division)
                return self._log_scores(response, judged, held_out.y)

            return log_scores

        judges = [judge_of(entrant) for entrant in entrants]
        if self.verbose != 1:
            return race(entrants, division, judges, weight, workers, checkpoint)
        with closing(RaceBar()) as bar:
            return race(entrants, division, judges, weight, workers, checkpoint, bar)

    def _check_unchanged(self) -> list[Kind]:
        """Refuse parameters that ask for other networks than the trained ones."""
        asked = copy.copy(self)
        family = self._make_family()
        asked.family_ = self.family_ if family.unfitted() == self.family_.unfitted() else family
        kinds = asked._kinds()
        if asked._is_auto():
            kinds = _entered(kinds, self.kinds_)
        kinds = kinds[: len(self.nets_)]
        for name in ("method", "family"):
            old, new = ([getattr(kind, name) for kind in each] for each in (self.kinds_, kinds))
            if old != new:
                refuse_change(name, old, new)
        # What the number of rows of the first fit settled is part of the networks.
        kinds = [
            kind.updated(dropout=fitted.dropout) if kind.dropout == "auto" else kind
            for kind, fitted in zip(kinds, self.kinds_, strict=True)
        ]
        for kind, net in zip(kinds, self.nets_, strict=True):
            check_unchanged(net, kind, asked._common(kind))
        return kinds

    def _keep(self, trained: list[Trained], kinds: list[Kind]) -> None:
        """Make trained networks of these kinds, or of the first of them, the fitted ones."""
        for stale in ("oof_predictive_", "oof_scores_"):
            self.__dict__.pop(stale, None)
        self.nets_ = [new.net for new in trained]
        self.kinds_ = kinds[: len(trained)]
        needed = {kind.family for kind in self.kinds_}
        self.responses_ = {
            family: response for family, response in self.responses_.items() if family in needed
        }
        self.n_iter_ = max(new.n_epochs for new in trained)
        best = np.stack([new.best_epoch for new in trained])
        self.best_epoch_ = int(best[0, 0]) if best.size == 1 else best
        kept = ("epoch", "train_loss", "valid_loss", "valid_crps", "dur")
        self.history_ = [
            {"kind": kind} | {name: epoch[name] for name in kept if name in epoch}
            for kind, net in enumerate(self.nets_)
            for epoch in net.history
        ]

    def _is_kept(self, new: Trained, kind: Kind) -> bool:
        """Whether there are weights to keep; say so where they are of before a divergence."""
        if new.stop_reason == "divergence":
            lr = kind.lr if self.net is None else self.net.lr
            cause = f"the loss is not finite in epoch {new.n_epochs}; lower lr (now {lr})"
            if not new.is_kept:
                remedy = " or raise the variance_floor of the family"
                if self.net is not None:
                    remedy += ", and see that the module returns natural parameters, as those "
                    remedy += "of family.natural(raw) are"
                raise ValueError(f"Training diverged: {cause}{remedy}.")
            kept = f"Kept the weights of epoch {max(new.best_epoch)}."
            warn(f"Training diverged: {cause}. {kept}", ConvergenceWarning)
        return new.is_kept

    def _warn_of_interruption(self, trained: Sequence[Trained], missing: Sequence[Kind]) -> None:
        """Say what an interruption leaves; where it leaves nothing, it reaches the user."""
        if not trained:
            raise KeyboardInterrupt
        where, kept = "", f"the mixture of {len(trained)} kinds of network"
        if len(trained) == 1:
            where = f" in epoch {trained[0].n_epochs + 1}" if not missing else ""
            kept = f"the weights of epoch {max(trained[0].best_epoch)}"
        lost = f"; missing: {', '.join(map(repr, missing))}" if missing else ""
        warn(f"Training was interrupted{where}. Kept {kept}{lost}.")


def _tensors(y, weight):
    """Responses with a column for each output, and weights, which are 1 where there are none."""
    y = torch.tensor(y, dtype=torch.float64).reshape(len(y), -1)
    return y, torch.tensor(np.ones(len(y)) if weight is None else weight)


def _entered(kinds, fitted):
    """Find the kinds that a race delivered; all where these are others."""
    rest = iter(kinds)
    found = [next((kind for kind in rest if _is_alike(kind, old)), None) for old in fitted]
    return kinds if None in found else found


def _is_alike(kind, fitted):
    """Whether a fitted kind differs in nothing but what may change when training goes on."""
    return kind.updated(**{name: getattr(fitted, name) for name in _OF_TRAINING}) == fitted
