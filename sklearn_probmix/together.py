"""Fits that differ in their rows only, in one pass: twenty for the price of a few."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from sklearn.utils import check_random_state

from sklearn_probmix.base import MIN_ROWS_TO_VALIDATE
from sklearn_probmix.settings import neutral_settings
from sklearn_probmix.training import size_to, train_apart

__all__ = ["fit_together"]


@neutral_settings
def fit_together(estimators, tables):
    """Fit estimators that differ in `random_state` only, each to a table of its own, in one pass.

    The networks are stacked, as the members of an ensemble are, and every step updates them all;
    twenty small networks cost about as much as four. Each estimator scales its own rows, holds
    out its own, keeps its own best epoch and ends as if it had been fitted alone, but for the
    draws: lam and the positions of partners in a batch are common to all.

    Parameters
    ----------
    estimators : list of ProbMixupRegressor or of ProbMixupClassifier
        Of equal parameters but `random_state`: one method, ``n_members=1``, and a hold-out.
    tables : list of (X, y)
        One for each estimator; with the same number of columns, of outputs or of classes. Of
        tables that differ in length the shorter are padded by rows that count for nothing: their
        batches hold fewer rows of their own, and lengths should be alike within a factor of 2.

    Returns
    -------
    list
        The estimators, fitted. Their `history_` has the validation losses only.

    Raises
    ------
    ValueError
        If the estimators or the shapes of the tables differ, or data are not as `fit` expects them;
        all estimators are then as they were before. Class labels are mixed by
        ``response="expected"`` only.

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
        prepared = []
        for est, (X, y) in zip(estimators, tables, strict=True):
            all_or_none.enter_context(est._unchanged_on_error())
            prepared.append(_prepare(est, X, y))
        parts, validations, kinds, seeds = zip(*prepared, strict=True)
        _check_shapes(estimators, parts)
        lengths = [len(part.y) for part in parts]
        if max(lengths) > 2 * min(lengths):
            estimators[0]._warn(
                f"The tables train on {min(lengths)} to {max(lengths)} rows: the short ones have "
                "few rows in a batch, and learn less than they would alone."
            )
        size_to(kinds[0], max(lengths))
        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        trained = train_apart(kinds[0], estimators[0].family_, parts, validations, seed=seed)
        for est, outcome, kind, valid in zip(estimators, trained, kinds, validations, strict=True):
            if not est._check_outcome(*outcome, is_first=True):
                raise KeyboardInterrupt
            est._keep([outcome], [kind])
            est._judge(valid)
    return estimators


def _prepare(est, X, y):
    """Scale and divide the rows of one estimator; its parts, its kind of network and its seed."""
    rows = est._prepare(X, y)
    if isinstance(est.validation, str) and len(rows.y) < MIN_ROWS_TO_VALIDATE:
        raise ValueError(
            f"a table has {len(rows.y)} rows, too few to hold some out; expected at least "
            f"{MIN_ROWS_TO_VALIDATE}."
        )
    rng = check_random_state(est.random_state)
    part, valid = est._split(rows, rng)
    kinds = est._kinds()
    if len(kinds) > 1 or valid is None:
        raise ValueError(
            f"method={est.method!r} and validation={est.validation!r}; expected one method and "
            "a hold-out of estimators that are fitted together."
        )
    return part, valid, kinds[0], int(rng.randint(2**31))


def _check_alike(estimators, tables):
    if not estimators or len(estimators) != len(tables):
        raise ValueError(
            f"{len(estimators)} estimators and {len(tables)} tables; expected as many, at least 1."
        )
    first = estimators[0]
    if len({id(est) for est in estimators}) < len(estimators):
        raise ValueError("an estimator is listed twice; expected one for each table.")
    if getattr(first, "class_weight", None) is not None:
        raise ValueError(
            f"class_weight={first.class_weight!r}; expected None, since rows that are fitted "
            "together weigh the same."
        )
    if first.n_members != 1 or first.validation == "cv" or first.warm_start:
        raise ValueError(
            f"n_members={first.n_members!r}, validation={first.validation!r}, "
            f"warm_start={first.warm_start!r}; expected one network each, a hold-out, a new fit."
        )
    if first.net is not None:
        raise ValueError("net= is one's own; expected None of estimators that are fitted together.")
    expected = first.get_params(deep=False) | {"random_state": None}
    for position, est in enumerate(estimators):
        found = est.get_params(deep=False) | {"random_state": None}
        different = [name for name in expected if repr(found.get(name)) != repr(expected[name])]
        if type(est) is not type(first) or different:
            raise ValueError(
                f"estimator {position} differs from the first in {different or type(est)}; "
                "expected the same parameters but random_state."
            )


def _check_shapes(estimators, parts):
    first = estimators[0].family_, parts[0].X.shape[1:], parts[0].y.shape[1:]
    for position, (est, part) in enumerate(zip(estimators, parts, strict=True)):
        found = est.family_, part.X.shape[1:], part.y.shape[1:]
        if found != first:
            raise ValueError(
                f"table {position} has {found[0]!r}, x of shape {tuple(found[1])} and y of shape "
                f"{tuple(found[2])}; expected those of the first, {first[0]!r}, "
                f"{tuple(first[1])} and {tuple(first[2])}."
            )
