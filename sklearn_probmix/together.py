"""Fits that differ in their rows only, in one pass: twenty for the price of a few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn.utils import check_random_state

from sklearn_probmix.base import BaseProbMixup
from sklearn_probmix.contract import unchanged_on_error
from sklearn_probmix.dividing import Rows
from sklearn_probmix.kinds import Kind
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.table import Division, Table
from sklearn_probmix.training import Trained, apart, train

__all__ = ["fit_together"]

Estimator = TypeVar("Estimator", bound=BaseProbMixup)


class _Prepared(NamedTuple):
    """An estimator whose rows are scaled and divided."""

    est: BaseProbMixup
    rows: Rows
    division: Division
    kinds: list[Kind]
    rng: np.random.RandomState


@neutral_settings
def fit_together(
    estimators: Sequence[Estimator], tables: Sequence[tuple[Any, ...]]
) -> list[Estimator]:
    """Fit estimators that differ in `random_state` only, each to a table of its own, in one pass.

    The networks are stacked, as the members of an ensemble are, and every step updates them all;
    twenty small networks cost about as much as four. Each estimator scales its own rows, holds
    out its own, keeps its own best epochs and ends as if it had been fitted alone, but for the
    draws: lam and the positions of partners in a batch are common to all. Tables that make
    different numbers of steps in an epoch, of whose y the family takes different things (the mean
    of counts, the bins of a histogram), or whose columns have other numbers of levels are fitted in
    passes of their own, and so is every table where a `Kind` of `method` has its own family. A
    table that is alone in its pass is fitted as by `fit`. In a pass of several there is no race:
    the kinds of method="auto", "fast" or "parametric" are trained to their end, those of other
    families left out.

    Parameters
    ----------
    estimators : list of ProbMixupRegressor or of ProbMixupClassifier
        Of equal parameters but `random_state`, with rows held out.
    tables : list of (X, y) or (X, y, sample_weight)
        One for each estimator; with the same number of columns, of outputs or of classes.

    Returns
    -------
    list
        The estimators, fitted. Their `history_` has the validation losses only.

    Raises
    ------
    ValueError
        If the estimators or the shapes of the tables differ, or data are not as `fit` expects them;
        all estimators are then as they were before.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.model_selection import KFold
    >>> from sklearn_probmix import ProbMixupRegressor, fit_together
    >>> X, y = load_diabetes(return_X_y=True)
    >>> folds = list(KFold(5).split(X))
    >>> estimators = [
    ...     ProbMixupRegressor(method="probmix", n_members=1, max_epochs=5, random_state=fold)
    ...     for fold in range(5)
    ... ]
    >>> fitted = fit_together(estimators, [(X[train], y[train]) for train, _ in folds])
    >>> [est.predict(X[test]).shape for est, (_, test) in zip(fitted, folds)][:2]
    [(89,), (89,)]
    """
    estimators, tables = list(estimators), list(tables)
    _check_alike(estimators, tables)
    with ExitStack() as all_or_none:
        passes: list[tuple[Any, list[_Prepared]]] = []
        first = None
        for position, (est, table) in enumerate(zip(estimators, tables, strict=True)):
            all_or_none.enter_context(unchanged_on_error(est))
            rows = est._prepare(*table)
            shape = est.family_.unfitted(), rows.given[0].shape[1:], rows.table.y.shape[1:]
            first = first or shape
            _check_shape(position, shape, first)
            rng = check_random_state(est.random_state)
            division = est._divide(rows, rng)
            if division.valid is None:
                raise ValueError(
                    f"table {position} of {len(rows.y)} rows holds none out with validation="
                    f"{est.validation!r}; expected held-out rows of every table."
                )
            n_rows = len(division.train)
            kinds = [kind.sized(n_rows) for kind in est._kinds()]
            if est._is_auto():
                # Families that are chosen by y would differ from table to table.
                kinds = [kind for kind in kinds if kind.family is None]
            n_steps = [math.ceil(n_rows / kind.rows_of_a_batch(n_rows)) for kind in kinds]
            new = _Prepared(est, rows, division, kinds, rng)
            # Networks in one pass have one family, with what it took from the responses, and as
            # many columns, of which there is one for each level. Kinds that have a family of their
            # own take what it takes from one table.
            alone = position if any(kind.family is not None for kind in kinds) else None
            alike = n_steps, kinds, est.family_, rows.table.X.shape[1:], alone
            members = next((members for key, members in passes if key == alike), None)
            if members is None:
                passes.append((alike, members := []))
            members.append(new)
        for _, members in passes:
            _fit(members)
        for prepared in (each for _, members in passes for each in members):
            prepared.est._judge(prepared.rows.table, prepared.division, prepared.rows.y)
    return estimators


def _fit(prepared):
    """Train the networks of these estimators in one pass for each kind."""
    if len(prepared) == 1:
        (only,) = prepared
        only.est._train(only.rows.table, only.division, only.rng)
        return
    kinds = prepared[0].kinds
    entrants = [each.est._entrants(kinds, each.rows.table, each.rng) for each in prepared]
    tables = [each[0].table for each in entrants]
    common = entrants[0][0].common
    divisions = [each.division for each in prepared]
    lengths = [len(table.y) for table in tables]
    joint = Division.side_by_side(divisions, common.n_members, lengths)
    together = common._replace(n_members=len(prepared) * common.n_members)
    outcomes: list[list[Trained]] = []
    for kind, *own in zip(kinds, *entrants, strict=True):
        seeds = [entrant.seed for entrant in own]
        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        trained = train(kind, together, Table.concatenate(tables), joint, seed=seed)
        news = apart(trained, kind, common, joint)
        kept = [each.est._is_kept(new, kind) for each, new in zip(prepared, news, strict=True)]
        if all(kept):
            outcomes.append(news)
        if trained.stop_reason == "interruption":
            for place, each in enumerate(prepared):
                done = [news[place] for news in outcomes]
                each.est._warn_of_interruption(done, kinds[len(outcomes) :])
            break
    for each, news in zip(prepared, zip(*outcomes, strict=True), strict=True):
        each.est._keep(list(news), kinds)


def _check_alike(estimators, tables):
    if not estimators or len(estimators) != len(tables):
        raise ValueError(
            f"{len(estimators)} estimators and {len(tables)} tables; expected as many, at least 1."
        )
    first = estimators[0]
    if len({id(est) for est in estimators}) < len(estimators):
        raise ValueError("an estimator is listed twice; expected one for each table.")
    if first.warm_start or first.checkpoint is not None:
        raise ValueError(
            f"warm_start={first.warm_start!r}, checkpoint={first.checkpoint!r}; expected new fits "
            "of estimators fitted together, without a checkpoint."
        )
    expected = first.get_params(deep=False) | {"random_state": None}
    for position, est in enumerate(estimators):
        found = est.get_params(deep=False) | {"random_state": None}
        different = [name for name in expected if repr(found.get(name)) != repr(expected[name])]
        if type(est) is not type(first) or different:
            raise ValueError(
                f"estimator {position} differs from the first in {different or type(est)}; "
                "expected the same parameters but random_state."
            )


def _check_shape(position, found, first):
    if found != first:
        raise ValueError(
            f"table {position} has {found[0]!r}, x of shape {tuple(found[1])} and y of shape "
            f"{tuple(found[2])}; expected those of the first, {first[0]!r}, "
            f"{tuple(first[1])} and {tuple(first[2])}."
        )
