"""Our scores beside the published ones, and without the benchmark's grid."""

from __future__ import annotations

import numpy as np

from benchmarks.density.published import PRETRAINED, PUBLISHED, SCRATCH
from benchmarks.density.tables import SETS
from benchmarks.flat import defaults
from benchmarks.markdown import NOT_RUN, table
from benchmarks.runs import key
from benchmarks.scores import LEVEL
from sklearn_probmix import ProbMixupRegressor

__all__ = ["against", "beside_published", "without_grid"]


def _digits(value):
    """Write three significant digits, without an exponent."""
    return np.format_float_positional(value, 3, unique=False, fractional=False, trim="-")


# Of a score: its title, how it is written, and how far from the best possible it is.
SCORES = {
    "log_lik": ("log-likelihood", "{:.2f}".format, lambda value: -value),
    "cde_loss": ("CDE loss", _digits, lambda value: value),
    "crps": ("CRPS", _digits, lambda value: value),
    "pit_ks": ("PIT-KS", "{:.3f}".format, lambda value: value),
    "coverage": ("90 % covered", "{:.3f}".format, lambda value: abs(value - LEVEL)),
}
# Have no bound, and depend on the grid, where y takes few values.
OF_DENSITIES = "log_lik", "cde_loss"
# Rows from which the few splits that we run say who is ahead: of 50 rows 13 are held out.
ENOUGH_ROWS = 500


def _means(results):
    """Yield set, rows, number of splits and mean scores of fits with today's parameters."""
    parameters, found = key(defaults(ProbMixupRegressor())), {}
    for result in results.values():
        settings = result["settings"]
        if "scores" in result and key(settings["parameters"]) == parameters:
            place = list(SETS).index(settings["dataset"]), settings["rows"]
            found.setdefault(place, []).append(result["scores"])
    for (number, rows), scores in sorted(found.items()):
        means = {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
        yield list(SETS)[number], rows, len(scores), means


def beside_published(results):
    """Render ours / best from scratch / best pretrained as Markdown.

    The best is in bold, from `ENOUGH_ROWS` rows on.

    Parameters
    ----------
    results : dict
        As `read_results` gives them.

    Returns
    -------
    str
    """
    rows = []
    for name, n_rows, n_splits, means in _means(results):
        printed = PUBLISHED.get((name, n_rows), {})
        row = _place(name, n_rows, n_splits)
        for score, (title, written, distance) in SCORES.items():
            values = [means[f"grid_{score}"], *(printed[who][score] for who in printed)]
            compares = printed and n_rows >= ENOUGH_ROWS
            best = min(values, key=distance) if compares else None
            cells = [f"**{written(v)}**" if v == best else written(v) for v in values]
            row[title] = " / ".join(cells)
        rows.append(row)
    return table(rows) if rows else NOT_RUN


def without_grid(results):
    """Render our scores of whole distributions as Markdown.

    Parameters
    ----------
    results : dict

    Returns
    -------
    str
        Where some of the splits had masses their share is told; the log-likelihood is then a mean
        over probabilities, or over both.
    """
    rows = []
    for name, n_rows, n_splits, means in _means(results):
        row = _place(name, n_rows, n_splits) | {"fits with masses": f"{means['has_atoms']:.0%}"}
        for score, (title, written, _) in SCORES.items():
            row[title] = written(means[score]) if np.isfinite(means[score]) else "–"
        rows.append(row | {"seconds": f"{means['seconds']:.0f}"})
    return table(rows) if rows else NOT_RUN


def _place(name, n_rows, n_splits):
    atoms = " (atoms)" if SETS[name].has_atoms else ""
    return {"set": f"{name}{atoms}", "rows": f"{n_rows:,}", "splits": n_splits}


def against(results, score, who):
    """Tell where we are ahead of the best published method of a sort, from `ENOUGH_ROWS` rows on.

    Parameters
    ----------
    results : dict
    score : str
        A key of `SCORES`. Of sets with atoms those of densities do not count.
    who : {"scratch", "pretrained", "both"}

    Returns
    -------
    str
        Such as "3 of 8".
    """
    others = {SCRATCH: [SCRATCH], PRETRAINED: [PRETRAINED], "both": [SCRATCH, PRETRAINED]}
    if who not in others:
        raise ValueError(f"who={who!r}; expected one of {', '.join(others)}")
    distance = SCORES[score][2]
    ahead = [
        all(
            distance(means[f"grid_{score}"]) < distance(PUBLISHED[name, n_rows][each][score])
            for each in others[who]
        )
        for name, n_rows, _, means in _means(results)
        if (name, n_rows) in PUBLISHED
        and n_rows >= ENOUGH_ROWS
        and not (score in OF_DENSITIES and SETS[name].has_atoms)
    ]
    return f"{sum(ahead)} of {len(ahead)}"
