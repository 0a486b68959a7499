"""The race of kinds: which of them get how many steps, by rows that they did not train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skorch import NeuralNet

from sklearn_probmix.calibration import stacking_weights
from sklearn_probmix.kinds import LARGE_TABLE, Kind
from sklearn_probmix.table import Division, Table
from sklearn_probmix.training import Common, Trained, Training

__all__ = ["Entrant", "race"]

Array = NDArray[np.float64]

# Steps of the first rung; every further one ends at twice as many.
_FIRST_RUNG = 200
#: Weight in the mixture below which a kind adds nothing.
LEAST_SHARE = 0.02
# A kind that has no weight goes on where its score will be within so many nats of the best, if
# what is still to come is so many times the gain of its last rung: each gains about .6 of the last.
_WITHIN, _STILL_TO_COME = 0.3, 1.5
# Nats behind the best kind after the first rung, without a weight, from where none catches up.
_FAR_BEHIND = 1.5
# Of a large table: kinds that go on after the second rung.
_MOST_RUNNERS = 3
# Of a row that is impossible, so that gains are numbers.
_LEAST_SCORE = -1e9


class Entrant(NamedTuple):
    """A kind that runs, and what it is trained with."""

    kind: Kind
    """Sized to the table."""
    common: Common
    table: Table
    seed: int
    has_masses: bool = False
    """Whether it predicts masses where others predict densities; one or the other is delivered."""


class _Runner:
    """A kind in the race: its training, and its log scores at the end of the rungs."""

    def __init__(self, entrant: Entrant, division: Division, judge: Callable[[NeuralNet], Array]):
        kind, common, table, seed, _ = entrant
        n_rows = len(division.train)
        batch_size = n_rows if kind.batch_size == "full" else int(kind.batch_size)
        n_steps = math.ceil(n_rows / batch_size)
        most_steps = min(n_steps, _FIRST_RUNG) if n_rows >= LARGE_TABLE else None
        self.training = Training(kind, common, table, division, seed=seed, most_steps=most_steps)
        self.judge = judge
        self.steps_of_an_epoch = n_steps if most_steps is None else most_steps
        self.max_epochs = int(kind.max_epochs)
        if most_steps is not None:
            # Of passes; a kernel network has learnt before it has seen all rows.
            wanted = kind.n_steps if kind.network == "kernel" else self.max_epochs * n_steps
            self.max_epochs = math.ceil(wanted / most_steps)
        self.scores: list[Array] = []

    def run(self, n_steps: int) -> None:
        """Train on, until so many steps are made in all."""
        until = min(math.ceil(n_steps / self.steps_of_an_epoch), self.max_epochs)
        self.training.advance(until - self.training.n_epochs)
        if self.training.is_kept:
            with self.training.at_best() as net:
                self.scores.append(np.maximum(self.judge(net), _LEAST_SCORE))

    @property
    def is_over(self) -> bool:
        training = self.training
        return training.stop_reason is not None or training.n_epochs >= self.max_epochs

    def deserves_more(self, weight: float, best: float) -> bool:
        """Whether another rung may help a mixture in which this kind has a weight.

        Parameters
        ----------
        weight : float
        best : float
            Mean score of the best kind.
        """
        if self.is_over:
            return False
        if len(self.scores) == 1:
            # Some that learn slowly end in front, but none from so far behind.
            return weight >= LEAST_SHARE or self.scores[0].mean() >= best - _FAR_BEHIND
        gain = self.scores[-1] - self.scores[-2]
        if gain.mean() <= gain.std() / math.sqrt(len(gain)):
            return False
        expected = self.scores[-1].mean() + _STILL_TO_COME * gain.mean()
        return weight >= LEAST_SHARE or expected >= best - _WITHIN


def race(
    entrants: Sequence[Entrant],
    division: Division,
    judges: Sequence[Callable[[NeuralNet], Array]],
    row_weight: Array,
) -> list[Trained | None]:
    """Train kinds side by side, in rungs that double, for as long as they help their mixture.

    At the end of a rung every kind is judged by the log scores of rows that its members did not
    train on, with their best epochs so far. It goes on if it has gained more than the standard
    error of the gain, and either has a weight in the mixture or may yet come near the best. Of a
    large table no more than three go on after the second rung, those of the largest weights, and an
    epoch is a rung's steps, not a pass. The outcome depends on the seeds alone.

    Parameters
    ----------
    entrants : list of Entrant
    division : Division
        With held-out rows.
    judges : list of callable
        Of each entrant: maps its net to the log scores of the held-out rows, shape (n,).
    row_weight : array of shape (n,)
        Weights of these rows.

    Returns
    -------
    list of Trained or None
        Of each entrant; None for those that the mixture does not need, or that an interruption
        kept from beginning.
    """
    runners: list[_Runner] = []
    n_steps = _FIRST_RUNG
    for entrant, judge in zip(entrants, judges, strict=True):
        runners.append(_Runner(entrant, division, judge))
        runners[-1].run(n_steps)
        if runners[-1].training.stop_reason == "interruption":
            break
    running = runners
    while True:
        weights = _weights(runners, row_weight)
        best = max((runner.scores[-1].mean() for runner in runners if runner.scores), default=0.0)
        running = [
            runner
            for runner, weight in zip(runners, weights, strict=True)
            if runner in running and runner.deserves_more(weight, best)
        ]
        if len(division.train) >= LARGE_TABLE and n_steps > _FIRST_RUNG:
            order = np.argsort([-weights[runners.index(runner)] for runner in running])
            running = [running[place] for place in sorted(order[:_MOST_RUNNERS])]
        if not running or _is_interrupted(runners):
            break
        n_steps *= 2
        for runner in running:
            runner.run(n_steps)
            if _is_interrupted(runners):
                break
    trained: list[Trained | None] = [runner.training.end() for runner in runners]
    if not _is_interrupted(runners):
        masses = np.array([entrant.has_masses for entrant in entrants])
        rules = masses if weights[masses].sum() > 0.5 else ~masses
        needed = (weights >= LEAST_SHARE) & rules
        # Where nothing can be kept, the caller says why.
        if needed.any():
            trained = [
                new if is_needed else None for new, is_needed in zip(trained, needed, strict=True)
            ]
    return trained + [None] * (len(entrants) - len(runners))


def _is_interrupted(runners):
    return any(runner.training.stop_reason == "interruption" for runner in runners)


def _weights(runners, row_weight):
    """Weights of the kinds in their mixture, 0 for what has nothing to be judged."""
    weights = np.zeros(len(runners))
    judged = [position for position, runner in enumerate(runners) if runner.scores]
    if judged:
        scores = np.stack([runners[position].scores[-1] for position in judged], axis=1)
        weights[judged] = stacking_weights(scores, row_weight)
    return weights
