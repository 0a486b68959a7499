"""Short tables and sentences for the documentation: ours, now and formerly, beside the peers."""

from __future__ import annotations

import operator

from scipy import stats

from benchmarks.markdown import NOT_RUN, table
from benchmarks.peers.contenders import EXTRA, OURS, PEERS, RECENT
from benchmarks.peers.report import DATASETS, FACTORS, NO_SCORE, fits_of, settings_of_ours

__all__ = ["against", "beside_former", "beside_peers", "beside_recent", "changes", "paired"]

# The digests of former defaults that many splits were run with: the first three kinds, trained to
# their end (of classes, two), and the race before the best of each network went on in it.
THREE_KINDS, BEST_OF_ALL = "three kinds", "best of all"
FORMER = {
    THREE_KINDS: {"regression": "0c184558", "aside": "0c184558", "classification": "bf45b6a6"},
    BEST_OF_ALL: {"regression": "c64ea662"},
}
# Their y takes few values, and today's default gives each a mass: its NLL is that of a probability,
# which compares with no density.
OF_FEW_VALUES = {"wine-quality-red", "winequality-white", "naval-propulsion-plant", "abalone"}
SCORES = "nll", "crps"
# One network in the setting of the paper, which nobody has elsewhere.
LEFT_OUT = {"erm", OURS}
INTERVALS = {"mapie-cqr"}


def _ours(results, task, which):
    """Return the title of "today" or of a former default, and all fits with ours by it."""
    if which in FORMER:
        return which, fits_of(results, task, FORMER[which][task])
    settings, is_today = settings_of_ours(results, task)
    title = "today's default" if is_today else "the default as last run"
    return title, fits_of(results, task, settings)


def beside_peers(results, which):
    """Render NLL / CRPS of ours and of the peers that have all splits that ours has.

    Parameters
    ----------
    results : dict
        Of the task "regression", as `read_results` returns them.
    which : str
        "today", or one of `FORMER`.

    Returns
    -------
    str
        Markdown, the lowest scores of each row in bold.
    """
    title, fits = _ours(results, "regression", which)
    peers = [name for name in _names(EXTRA) if name not in LEFT_OUT]
    rows = []
    for dataset in DATASETS["regression"]:
        splits = fits[dataset, OURS].splits
        if not splits:
            continue
        found = {
            title if name == OURS else PEERS["regression"][name].title: _means(
                fits[dataset, name], splits, dataset
            )
            for name in [OURS, *peers]
        }
        apart = {title} if which == "today" and dataset in OF_FEW_VALUES else set()
        row = {"NLL / CRPS": _name(dataset), "splits": len(splits)}
        rows.append(row | _marked(found, apart))
    return table(rows) if rows else NOT_RUN


def beside_recent(results):
    """Render NLL / CRPS of recent contenders less ours, over the splits that both have.

    Parameters
    ----------
    results : dict
        Of the task "regression".

    Returns
    -------
    str
        Markdown.
    """
    _, fits = _ours(results, "regression", "today")
    # Intervals alone have neither score.
    names = [name for name in _names(RECENT) if name not in INTERVALS]
    rows = []
    for dataset in DATASETS["regression"]:
        ours = fits[dataset, OURS]
        found = {
            PEERS["regression"][name].title: _less(fits[dataset, name], ours, dataset)
            for name in names
        }
        if {*found.values()} != {NOT_RUN}:
            rows.append({"NLL / CRPS, less ours": _name(dataset)} | found)
    return table(rows) if rows else NOT_RUN


def beside_former(results):
    """Render today's default beside the former on the splits that both have.

    Parameters
    ----------
    results : dict
        Of the task "regression".

    Returns
    -------
    str
        Markdown: NLL / CRPS, coverage of today's 90 % intervals, seconds of the processor.
    """
    (title, today), (_, former) = (
        _ours(results, "regression", name) for name in ("today", THREE_KINDS)
    )
    rows = []
    for dataset in DATASETS["regression"]:
        cells = {title: today[dataset, OURS], THREE_KINDS: former[dataset, OURS]}
        splits = _common(*cells.values())
        if not splits:
            continue
        found = {name: _means(cell, splits, dataset) for name, cell in cells.items()}
        apart = {title} if dataset in OF_FEW_VALUES else set()
        seconds = [f"{cell.on('fit_seconds', splits).mean():.0f}" for cell in cells.values()]
        rows.append(
            {
                "NLL / CRPS": _name(dataset),
                "splits": len(splits),
                **_marked(found, apart),
                "90 % covered": f"{cells[title].on('coverage', splits).mean():.2f}",
                "seconds, today's / three kinds": " / ".join(seconds),
            }
        )
    return table(rows) if rows else NOT_RUN


def paired(results, which):
    """Render what changed from a former default to today's, on the splits that both have.

    Parameters
    ----------
    results : dict
        Of the task "regression".
    which : str
        One of `FORMER`.

    Returns
    -------
    str
        Markdown: means over the splits and their standard errors; CRPS and seconds of the processor
        as parts of the former's.
    """
    (_, today), (_, former) = (_ours(results, "regression", name) for name in ("today", which))
    rows = []
    for dataset in DATASETS["regression"]:
        new, old = today[dataset, OURS], former[dataset, OURS]
        if len(splits := _common(new, old)) < 2:
            continue
        nll, crps = ([cell.on(score, splits) for cell in (new, old)] for score in SCORES)
        seconds = [cell.on("fit_seconds", splits).mean() for cell in (new, old)]
        rows.append(
            {
                "table": dataset,
                "splits": len(splits),
                "NLL, less before's": _mean("+.3f", operator.sub(*nll)),
                "CRPS, part of before's": _mean(".3f", operator.truediv(*crps)),
                "seconds, part of before's": f"{operator.truediv(*seconds):.2f}",
            }
        )
    return table(rows) if rows else NOT_RUN


def changes(results, task):
    """Say on how many tables the first score is lower than formerly, and the range of changes.

    Parameters
    ----------
    results : dict
        Of the task.
    task : {"regression", "aside", "classification"}

    Returns
    -------
    str
    """
    (_, today), (_, former) = (_ours(results, task, name) for name in ("today", THREE_KINDS))
    score = "log_loss" if task == "classification" else "nll"
    found = []
    for dataset in DATASETS[task]:
        cells = today[dataset, OURS], former[dataset, OURS]
        compares = task != "regression" or dataset not in OF_FEW_VALUES
        if compares and (splits := _common(*cells)):
            new, old = (cell.on(score, splits).mean() for cell in cells)
            found.append(new - old)
    if not found:
        return NOT_RUN
    lower = sum(change < 0 for change in found)
    return f"lower on {lower} of {len(found)} tables, by {min(found):+.3f} to {max(found):+.3f}"


def against(results, task, dataset, peer, score):
    """Say what a peer and ours have on a table: means over the splits that both have.

    Parameters
    ----------
    results : dict
        Of the task.
    task, dataset, peer, score : str

    Returns
    -------
    str
    """
    _, fits = _ours(results, task, "today")
    cells = fits[dataset, peer], fits[dataset, OURS]
    splits = _common(*cells)
    if not splits:
        return NOT_RUN
    return " against ".join(f"{cell.on(score, splits).mean():.2f}" for cell in cells)


def _names(extra):
    return [name for name, peer in PEERS["regression"].items() if peer.extra == extra]


def _common(first, second):
    return sorted(set(first.splits) & set(second.splits))


def _name(dataset):
    return dataset + (f" (CRPS ×{FACTORS[dataset]})" if dataset in FACTORS else "")


def _means(cell, splits, dataset):
    """NLL and CRPS over splits, if the cell has them all."""
    if not set(splits) <= set(cell.splits):
        return None
    nll, crps = (cell.on(score, splits).mean() for score in SCORES)
    return nll, FACTORS.get(dataset, 1) * crps


def _mean(form, values):
    """Mean and standard error of a number of each split."""
    return f"{values.mean():{form}} ± {stats.sem(values):.3f}"


def _less(theirs, ours, dataset):
    """NLL / CRPS of theirs less ours, with the number of splits."""
    splits = _common(theirs, ours)
    if not splits:
        return NOT_RUN
    nll, crps = ((theirs.on(score, splits) - ours.on(score, splits)).mean() for score in SCORES)
    nll = NO_SCORE if dataset in OF_FEW_VALUES else f"{nll:+.2f}"
    return f"{nll} / {FACTORS.get(dataset, 1) * crps:+.3f} ({len(splits)})"


def _marked(found, apart):
    """Write NLL / CRPS under each name; an NLL that is apart is not in the running."""
    texts = {
        name: [f"{value:.{digits}f}" for value, digits in zip(values or (), (2, 3), strict=False)]
        for name, values in found.items()
    }
    for place in range(len(SCORES)):
        running = [name for name in texts if texts[name] and (place or name not in apart)]
        best = min((float(texts[name][place]) for name in running), default=None)
        for name in running if len(running) > 1 else ():
            if float(texts[name][place]) == best:
                texts[name][place] = f"**{texts[name][place]}**"
    for name in apart:
        texts[name][0] += " (a probability)"
    return {name: " / ".join(text) for name, text in texts.items()}
