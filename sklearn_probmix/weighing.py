"""What trained networks of several kinds say together: their weights, calibrations, predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from sklearn_probmix.calibration import Spread, Temperature, stacking_weights
from sklearn_probmix.columns import ColumnEncoder
from sklearn_probmix.criterion import log_likelihood
from sklearn_probmix.encoding import to_columns
from sklearn_probmix.families import Family
from sklearn_probmix.kinds import Kind
from sklearn_probmix.nets import held_out_parameters, natural_parameters
from sklearn_probmix.pooling import Mixture, pool
from sklearn_probmix.response import Response
from sklearn_probmix.scaling import scale_columns
from sklearn_probmix.settings import limited_threads
from sklearn_probmix.table import Division, Table

__all__ = ["WeighedKinds"]

# Rows by which the spread between members is judged.
_ENOUGH_ROWS = 2000
# Rows of one block of predictions. Of fewer rows threads of torch mostly wait for one another.
_BLOCK = 4096


class Part(NamedTuple):
    """What the kinds of one family make of rows."""

    kind: Kind
    """The first of them."""
    response: Response
    mixture: Mixture
    share: float
    """Weight among the parts."""


class WeighedKinds(BaseEstimator):
    """Weigh, calibrate and mix the networks of a fitted estimator; see `base` for how they come.

    A subclass defines `_fit_calibration`, `_predictive` and `_score_predictive`.
    """

    net: NeuralNet | None
    weighting: str
    calibration: str
    nets_: list[NeuralNet]
    kinds_: list[Kind]
    weights_: np.ndarray
    scaler_: StandardScaler
    family_: Family
    y_shift_: np.ndarray
    y_scale_: np.ndarray
    #: Responses as the families of kinds see them that have one of their own.
    responses_: dict[str | Family, Response] = {}
    calibration_: Spread | Temperature | None = None
    #: Of columns that are not plain numbers, None where all are.
    encoder_: ColumnEncoder | None = None

    def _scaled(self, X):
        """Return what networks see of checked rows."""
        return scale_columns(self.scaler_, X, self.encoder_)

    def _response(self, kind: Kind) -> Response:
        """Return the response as a kind sees it."""
        return self._own_response() if kind.family is None else self.responses_[kind.family]

    def _own_response(self) -> Response:
        """Return the response as kinds without a family of their own see it."""
        # Copies, as these may be read-only, mapped from a file.
        shift, scale = torch.tensor(self.y_shift_), torch.tensor(self.y_scale_)
        return Response(self.family_, shift, scale, self.calibration_)

    def _calibrate(self, kind: Kind, calibration: Spread | Temperature | None) -> None:
        """Calibrate all kinds that see the response as this one does."""
        if kind.family is None:
            self.calibration_ = calibration
        else:
            response = self._response(kind)._replace(calibration=calibration)
            self.responses_ = self.responses_ | {kind.family: response}

    def _weigh_evenly(self):
        self.weights_ = np.full(len(self.nets_), 1 / len(self.nets_))
        # Also where every kind has a family of its own.
        self.calibration_ = None
        for kind in self.kinds_:
            self._calibrate(kind, None)

    def _judge(self, table: Table, division: Division, y: np.ndarray) -> None:
        """Weigh and calibrate the trained networks by rows that they did not train on.

        Parameters
        ----------
        table, division
            Of the fit.
        y : array of shape (n, ...)
            Responses of the table in their original units; used with folds.
        """
        self._weigh_evenly()
        has_folds = division.valid is not None and division.valid.ndim == 2
        # One kind has no weight to find, and predictions are dear.
        is_settled = len(self.nets_) == 1 and self.calibration == "off" and not has_folds
        if division.valid is None or is_settled:
            return
        held_out, weight = self._held_out(table, division)
        judged = [self._judged(net, table, division) for net in self.nets_]
        if len(self.nets_) > 1 and self.weighting == "stacked":
            scores = [
                self._log_scores(self._response(kind), mixture, held_out.y)
                for kind, mixture in zip(self.kinds_, judged, strict=True)
            ]
            self.weights_ = stacking_weights(np.stack(scores, axis=1), weight)
        is_censored = table.y.is_complex()
        if self.calibration != "off" and not is_censored:
            for part in self._parts(judged):
                self._calibrate(part.kind, self._fit_calibration(part, held_out.y, weight))
        if has_folds:
            self.oof_predictive_ = self._predictive(judged)
            given = None if table.weight is None else weight
            censored = table.y.imag[:, 0].numpy() > 0 if is_censored else None
            self.oof_scores_ = self._score_predictive(self.oof_predictive_, y, given, censored)
            if any(part.response.calibration is not None for part in self._parts(judged)):
                self._recalibrate(judged, held_out.X)

    def _recalibrate(self, judged, X):
        """Correct calibrations, fitted on one member of each kind, for the mixture of all."""
        some = slice(None, None, math.ceil(len(X) / _ENOUGH_ROWS))
        everyone = [natural_parameters(net, X[some]) for net in self.nets_]
        one_of_each = [Mixture(*(part[some] for part in mixture)) for mixture in judged]
        pairs = zip(self._parts(one_of_each), self._parts(everyone), strict=True)
        for one, all_members in pairs:
            if one.response.calibration is not None:
                self._calibrate(one.kind, self._for_members(one, all_members))

    def _parts(self, mixtures: Sequence[Mixture]) -> list[Part]:
        """Pool mixtures, of every kind one, to one of each family."""
        parts = []
        for family in dict.fromkeys(kind.family for kind in self.kinds_):
            own = [place for place, kind in enumerate(self.kinds_) if kind.family == family]
            share = self.weights_[own].sum()
            log_weights = torch.tensor(self.weights_[own] / share).log()
            kind = self.kinds_[own[0]]
            pooled = pool([mixtures[place] for place in own], log_weights)
            parts.append(Part(kind, self._response(kind), pooled, float(share)))
        return parts

    def _held_out(self, table, division):
        """Rows that judge, and their weights."""
        held_out = table if division.valid.ndim == 2 else table.take(division.valid)
        return held_out, held_out.row_weight().double().numpy()

    def _judged(self, net, table, division):
        """Predictions for the rows that judge by members that did not train on them."""
        if division.valid.ndim == 2:
            return held_out_parameters(net, table, division)
        return natural_parameters(net, table.X[division.valid])

    def _log_scores(self, response, mixture, y):
        """Logarithms of the probabilities of responses, or another proper score of each row."""
        points = response.standardise(y)[:, None, None]
        return log_likelihood(response.family, mixture, points)[:, 0, 0].double().numpy()

    def _for_members(self, judged, delivered):
        """Correct a calibration for what the mixture of all members adds to the judged one."""
        return judged.response.calibration

    def _in_blocks(self, X: Any, predictive: Callable[[list[Mixture]], Any]) -> list[Any]:
        """Predictions for the rows of X, a block at a time: what is in between takes memory."""
        check_is_fitted(self)
        X = to_columns(self, X, reset=False, allow_nd=self.net is not None)
        starts = range(0, len(X), _BLOCK)
        with self._threads_for(len(X)):
            return [predictive(self._mixtures(X[start : start + _BLOCK])) for start in starts]

    def _threads_for(self, n_rows):
        """Keep torch to one thread where networks of our own see so few rows."""
        is_small = self.net is None and n_rows < _BLOCK
        return limited_threads(1) if is_small else nullcontext()

    def _mixtures(self, X: np.ndarray) -> list[Mixture]:
        """Natural parameters of every kind's mixture, of checked rows."""
        scaled = self._scaled(X)
        return [natural_parameters(net, scaled) for net in self.nets_]
