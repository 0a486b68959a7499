"""The race of kinds: which of them get how many steps, by rows that they did not train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skorch import NeuralNet

from sklearn_probmix.calibration import LEAST_SHARE, stacking_weights
from sklearn_probmix.checkpoint import Checkpoint
from sklearn_probmix.kinds import LARGE_TABLE, MANY_ROWS, Kind
from sklearn_probmix.nets import Common
from sklearn_probmix.progress import RaceBar
from sklearn_probmix.table import Division, Table
from sklearn_probmix.training import NOT_BEGUN, Trained, Training
from sklearn_probmix.workers import Workers

__all__ = ["Entrant", "race", "resume"]

Array = NDArray[np.float64]

# Steps of the first rung; every further one ends at twice as many.
_FIRST_RUNG = 200
# Of an epoch: the validation at its end costs as much as a step.
_LEAST_STEPS = 4
# Weight that earns more steps: less of it can gain little.
_SHARE_TO_GO_ON = 0.1
# A kind of less weight goes on where it will overtake the best, if what is still to come is so many
# times the gain of its last rung: each gains about .6 of the last.
_STILL_TO_COME = 1.5
# Nats behind the best kind after the first rung, without such a weight, from where none catches up;
# and behind it, by what is still to come, from where the best of its network adds nothing.
_FAR_BEHIND = 0.7
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
    """A kind in the race: its training, and its log scores at the end of the rungs.

    Training begins with the first rung, or goes on from what a checkpoint has.
    """

    training: Training | None = None
    is_over = is_interrupted = False
    #: Whether the last rung made no step, as where an epoch is longer.
    is_waiting = False

    def __init__(
        self,
        place: int,
        entrant: Entrant,
        division: Division,
        judge: Callable[[NeuralNet], Array] | None = None,
        checkpoint: Checkpoint | None = None,
    ):
        self.place, self.entrant, self.division = place, entrant, division
        self.judge, self.checkpoint = judge, checkpoint
        kind, n_rows = entrant.kind, len(division.train)
        a_pass = math.ceil(n_rows / kind.rows_of_a_batch(n_rows))
        self.n_batches, self.max_epochs = None, int(kind.max_epochs)
        if judge is not None:
            self.n_batches, self.max_epochs, patience = _epochs(kind, n_rows, a_pass)
            self.entrant = entrant._replace(kind=kind.updated(n_iter_no_change=patience))
        self.steps_of_an_epoch = self.n_batches or a_pass
        self.scores: list[Array] = []
        self._rungs: list[dict[str, Any]] = []
        self._n_rungs = 0

    def steps_until(self, n_steps: int) -> int:
        """Return the steps that are to be made until there are so many in all."""
        return self._epochs_until(n_steps) * self.steps_of_an_epoch

    def run(self, n_steps: int) -> None:
        """Train on, until so many steps are made in all; Ctrl-C leaves what there was."""
        try:
            training = self.training = self.training or self._begin()
            self._n_rungs += 1
            if len(self._rungs) < self._n_rungs:
                self._train(training, n_steps)
            rung = self._rungs[self._n_rungs - 1]
            self.is_over, self.is_waiting = rung["is_over"], rung["is_waiting"]
            if rung["scores"] is not None:
                self.scores.append(rung["scores"])
            self.is_interrupted = training.stop_reason == "interruption"
        except KeyboardInterrupt:
            self.is_interrupted = True

    def _epochs_until(self, n_steps):
        """Epochs that are to be made until there are so many steps, at most those of the kind."""
        until = min(math.ceil(n_steps / self.steps_of_an_epoch), self.max_epochs)
        return until - (0 if self.training is None else self.training.n_epochs)

    def _begin(self):
        kind, common, table, seed, _ = self.entrant
        training = Training(kind, common, table, self.division, seed=seed, n_batches=self.n_batches)
        kept = None if self.checkpoint is None else self.checkpoint.load(self.place)
        if kept is not None:
            self._rungs = kept["rungs"]
            training.restore(kept["training"])
        return training

    def _train(self, training, n_steps):
        n_epochs, scores = self._epochs_until(n_steps), None
        training.advance(n_epochs)
        if training.is_kept and self.judge is not None and n_epochs:
            with training.at_best() as net:
                scores = np.maximum(self.judge(net), _LEAST_SCORE)
        is_over = training.stop_reason is not None or training.n_epochs >= self.max_epochs
        self._rungs.append({"scores": scores, "is_over": is_over, "is_waiting": not n_epochs})
        if self.checkpoint is not None and training.stop_reason != "interruption":
            state = {"rungs": self._rungs, "training": training.state()}
            self.checkpoint.save(self.place, state)

    @property
    def is_missing(self) -> bool:
        """Whether an interruption kept this kind from beginning, or from being judged."""
        is_unjudged = self.judge is not None and not self.scores
        return self.training is None or (is_unjudged and self.is_interrupted)

    def end(self) -> Trained:
        """End what has begun, and return the net, but nothing of a kind that is missing."""
        trained = NOT_BEGUN if self.training is None else self.training.end()
        return NOT_BEGUN if self.is_missing else trained

    def mean_score(self, row_weight: Array) -> float:
        """Mean of the last scores in nats, of rows of weights of shape (n,)."""
        return float(np.average(self.scores[-1], weights=row_weight))

    def deserves_more(self, weight: float, best: float, leads: bool, row_weight: Array) -> bool:
        """Whether another rung may help a mixture in which this kind has a weight.

        Parameters
        ----------
        weight : float
        best : float
            Mean score of the best kind.
        leads : bool
            Whether it is the best of its network where the first rung tells little.
        row_weight : array of shape (n,)
            Of the rows that were judged.
        """
        if self.is_over:
            return False
        if self.is_waiting:
            return True
        if len(self.scores) == 1:
            # Some that learn slowly end in front, but none from so far behind.
            is_near = self.mean_score(row_weight) >= best - _FAR_BEHIND
            return weight >= _SHARE_TO_GO_ON or is_near or leads
        gain = (self.scores[-1] - self.scores[-2]) * (row_weight / row_weight.mean())
        if gain.mean() <= gain.std() / math.sqrt(len(gain)):
            return False
        expected = self.mean_score(row_weight) + _STILL_TO_COME * gain.mean()
        return weight >= _SHARE_TO_GO_ON or expected >= best - leads * _FAR_BEHIND


def race(
    entrants: Sequence[Entrant],
    division: Division,
    judges: Sequence[Callable[[NeuralNet], Array]],
    row_weight: Array,
    workers: Workers | None = None,
    checkpoint: Checkpoint | None = None,
    bar: RaceBar | None = None,
) -> list[Trained | None]:
    """Train kinds side by side, in rungs that double, for as long as they help their mixture.

    At the end of a rung every kind is judged by the log scores of rows that its members did not
    train on, with their best epochs so far. It goes on if it has gained more than the standard
    error of the gain, and either has a weight in the mixture or may yet overtake the best. Of a
    table of many rows the best of each network, kernel or not, need only come near the best of all:
    kernel networks learn early, and others add to them late. Of a large table no more than three go
    on after the second rung, those of the largest weights, and an epoch is a pass of at most 200
    steps; of a small one it is a few passes. The outcome depends on the seeds alone. Ctrl-C ends
    the race where it is, and stops the workers.

    Parameters
    ----------
    entrants : list of Entrant
    division : Division
        With held-out rows.
    judges : list of callable
        Of each entrant: maps its net to the log scores of the held-out rows, shape (n,).
    row_weight : array of shape (n,)
        Weights of these rows.
    workers : Workers or None, default=None
        Who trains; None trains one kind after the other.
    checkpoint : Checkpoint or None, default=None
        Has what there was after the last rung of a race that was killed, and keeps this one.
    bar : RaceBar or None, default=None
        Shows how far the race is.

    Returns
    -------
    list of Trained or None
        Of each entrant; None for those that the mixture does not need. Those that an interruption
        kept from being judged have no weights to keep.
    """
    workers = workers or Workers(1, len(entrants))
    if bar is not None:
        entrants = [_watched(entrant, bar, workers) for entrant in entrants]
    runners = [
        _Runner(place, entrant, division, judge, checkpoint)
        for place, (entrant, judge) in enumerate(zip(entrants, judges, strict=True))
    ]
    running, n_steps = runners, _FIRST_RUNG
    if workers.n_threads > 1:
        # The dearest first, so that no worker waits long for the last.
        running = sorted(runners, key=lambda runner: runner.entrant.kind.network != "kernel")
    try:
        while running:
            if bar is not None:
                bar.begin_rung(runner.steps_until(n_steps) for runner in running)
            for _ in workers.map(partial(_run, workers, n_steps), running):
                if bar is not None:
                    bar.show(*_mixture(runners, row_weight))
            if workers.is_stopped:
                break
            running = _going_on(running, runners, row_weight, n_steps == _FIRST_RUNG)
            n_steps *= 2
    except KeyboardInterrupt:
        workers.stop()
    return _delivered(runners, row_weight)


def resume(
    place: int, entrant: Entrant, division: Division, workers: Workers, checkpoint: Checkpoint
) -> Trained:
    """Train a kind to its end, from where a checkpoint is; it is kept whenever steps have doubled.

    Parameters
    ----------
    place : int
        Of the kind in the checkpoint.
    entrant : Entrant
    division : Division
    workers : Workers
        Ctrl-C stops them.
    checkpoint : Checkpoint
    """
    runner, n_steps = _Runner(place, entrant, division, checkpoint=checkpoint), _FIRST_RUNG
    while not (runner.is_over or workers.is_stopped):
        _run(workers, n_steps, runner)
        n_steps *= 2
    return runner.end()


def _epochs(kind, n_rows, a_pass):
    """Return steps of a race's epoch, None for a pass; most epochs, and patience in epochs."""
    most, patience = int(kind.max_epochs), kind.n_iter_no_change
    if n_rows >= LARGE_TABLE:
        n_batches = min(a_pass, _FIRST_RUNG)
        # Of passes; a kernel network has learnt before it has seen all rows.
        wanted = kind.n_steps if kind.network == "kernel" else most * a_pass
        return n_batches, math.ceil(wanted / n_batches), patience
    if a_pass >= _LEAST_STEPS:
        return None, most, patience
    n_passes = math.ceil(_LEAST_STEPS / a_pass)
    patience = None if patience is None else math.ceil(patience / n_passes)
    return n_passes * a_pass, math.ceil(most / n_passes), patience


def _run(workers, n_steps, runner):
    runner.run(n_steps)
    if runner.is_interrupted:
        workers.stop()


def _going_on(running, runners, row_weight, is_first):
    """Of the kinds that ran this rung, those that run the next."""
    _, weights = _mixture(runners, row_weight)
    scores = (runner.mean_score(row_weight) for runner in runners if runner.scores)
    best = max(scores, default=0)
    n_rows = len(runners[0].division.train)
    is_mixed = len({runner.entrant.kind.network for runner in runners}) > 1
    leaders = _leaders(running, row_weight) if is_mixed and n_rows >= MANY_ROWS else []
    hopeful = [
        runner
        for runner in running
        if runner.deserves_more(weights[runner.place], best, runner in leaders, row_weight)
    ]
    if is_first or n_rows < LARGE_TABLE:
        return hopeful
    heaviest = sorted(
        hopeful,
        key=lambda runner: (-weights[runner.place], runner not in leaders, runner.place),
    )
    return [runner for runner in hopeful if runner in heaviest[:_MOST_RUNNERS]]


def _leaders(running, row_weight):
    """Of each network the kind of the highest score among those that may go on."""
    judged = [runner for runner in running if runner.scores and not runner.is_over]
    # The best is the last of its network, and of equals the first.
    judged.sort(key=lambda runner: (runner.mean_score(row_weight), -runner.place))
    return list({runner.entrant.kind.network: runner for runner in judged}.values())


def _delivered(runners, row_weight):
    """Return what the mixture needs, all of masses or all of densities; None for others."""
    _, weights = _mixture(runners, row_weight)
    masses = np.array([runner.entrant.has_masses for runner in runners])
    rules = masses if weights[masses].sum() > 0.5 else ~masses
    needed = (weights >= LEAST_SHARE) & rules
    # Where nothing can be kept, the caller says why.
    needed |= ~needed.any() | np.array([runner.is_missing for runner in runners])
    # All of them, since what callbacks of a user have opened they close at the end.
    ended = [runner.end() for runner in runners]
    return [new if own else None for new, own in zip(ended, needed, strict=True)]


def _watched(entrant, bar, workers):
    """Let every step move the bar, which takes the place of a kind's own."""

    def watch():
        bar.step()
        workers.watch()

    return entrant._replace(common=entrant.common._replace(watch=watch, verbose=0))


def _mixture(runners, row_weight):
    """Mean negative log score of the mixture so far, and the weights of the kinds in it."""
    weights = np.zeros(len(runners))
    judged = [position for position, runner in enumerate(runners) if runner.scores]
    if not judged:
        return math.nan, weights
    scores = np.stack([runners[position].scores[-1] for position in judged], axis=1)
    weights[judged] = stacking_weights(scores, row_weight)
    has_weight = weights[judged] > 0
    joint = scores[:, has_weight] + np.log(weights[judged][has_weight])
    return -np.average(np.logaddexp.reduce(joint, axis=1), weights=row_weight), weights
