"""Ours against the peers, rendered as Markdown from the files of results; verdicts are computed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.markdown import NOT_RUN, Number, table
from benchmarks.paper.settings import LARGE_SETS, SMALL_SETS
from benchmarks.peers.contenders import OURS, PEERS, RECENT, REGRESSION
from benchmarks.peers.published import PUBLISHED, SOURCE
from benchmarks.peers.tables import ASIDE, FILES, N_GENERATED_TEST, TABLES
from benchmarks.runs import digest
from benchmarks.scores import LEVEL

__all__ = ["compare", "fits_of", "render_report", "settings_of_ours"]

CONFIDENCE = 0.95
# As a share of the test rows.
MANY_COPIES = 0.05
# In nats.
OOF_TOLERANCE = 0.1
# Of the weights of kinds that are told.
LEAST_WEIGHT = 0.01
BOOSTING = "hist-gradient-boosting"
# A score that a forecast does not have, or that was not recorded when it was fitted.
NO_SCORE = "–"
DATASETS = {
    "regression": [*SMALL_SETS, *LARGE_SETS, *FILES],
    "aside": list(ASIDE),
    "classification": list(TABLES),
}
# Scores that are proper, and so say which forecast is better; the first decides.
PROPER = {
    "regression": {"nll": "NLL", "crps": "CRPS"},
    "aside": {"nll": "NLL", "crps": "CRPS"},
    "classification": {"log_loss": "log loss", "brier": "Brier"},
}
OTHERS = {
    "regression": {"rmse": "RMSE"},
    "aside": {"rmse": "RMSE"},
    "classification": {"ece": "ECE", "accuracy": "accuracy"},
}
HIGHER_IS_BETTER = {"accuracy"}
IN_UNITS_OF_Y = {"crps", "rmse", "width", "interval_score"}
# Of tables whose y is small, for scores in its units.
FACTORS = {"kin8nm": 100, "naval-propulsion-plant": 100}


class Fits(NamedTuple):
    """The finished fits of one peer to one table, in the form that a cell of `table` wants."""

    splits: list
    """Of the fits that have scores."""
    scores: dict
    """Name of a score to an array of its values, one per split."""
    n_failed: int
    versions: set
    parameters: dict
    """Of the peer."""

    @property
    def n_fits(self):
        return len(self.splits)

    def __bool__(self):
        return self.n_fits > 0

    def mean(self, score):
        return float(np.mean(self.scores[score]))

    def median(self, score):
        return float(np.median(self.scores[score]))

    def worst(self, score):
        pick = np.min if score in HIGHER_IS_BETTER else np.max
        return float(pick(self.scores[score]))

    def on(self, score, splits):
        """Values of a score on some of the splits, in their order."""
        return self.scores[score][[self.splits.index(split) for split in splits]]


class Score(Number):
    """A cell: an average of a score, a mean with its standard error."""

    __slots__ = ()

    def __str__(self):
        if not self.cell:
            return NOT_RUN
        text = f"{self.value * self.factor:.{self.digits}f}"
        if self.average != "mean" or self.n_fits < 2:
            return text
        error = stats.sem(self.cell.scores[self.score]) * self.factor
        return f"{text}±{error:.{self.digits}f}"


class Comparison(NamedTuple):
    """Differences ours - peer over the splits that both have; below zero ours is better."""

    peer: str
    n_splits: int
    ours: float
    theirs: float
    mean: float
    error: float
    """Standard error of `mean`."""

    @property
    def bounds(self):
        """One-sided bounds of `mean`, each at the confidence of 95 %."""
        reach = stats.t.ppf(CONFIDENCE, self.n_splits - 1) * self.error
        return self.mean - reach, self.mean + reach

    @property
    def verdict(self):
        """Say "better" and "worse" where a bound agrees, else "lower" and "higher"."""
        low, high = self.bounds
        if self.mean == 0:
            return "equal"
        if self.mean < 0:
            return "better" if high < 0 else "lower"
        return "worse" if low > 0 else "higher"


def settings_of_ours(results, task):
    """Choose which settings of ours are shown: today's; until these have run, the last that have.

    Parameters
    ----------
    results : dict
        As `read_results` returns them.
    task : {"regression", "aside", "classification"}

    Returns
    -------
    settings : str
        Their `digest`.
    is_today : bool
    """
    today = digest(PEERS[task][OURS].parameters)
    ran = [
        digest(result["settings"]["parameters"])
        for result in results.values()
        if result["settings"]["peer"] == OURS
    ]
    chosen = today if today in ran or not ran else ran[-1]
    return chosen, chosen == today


def fits_of(results, task, ours=None):
    """Collect the fits whose parameters are those of today.

    Parameters
    ----------
    results : dict
        As `read_results` returns them.
    task : {"regression", "aside", "classification"}
    ours : str or None, default=None
        The `digest` of our parameters, if not those of today.

    Returns
    -------
    dict of (str, str) to Fits
        By table and peer; of several versions of a peer the one that ran last counts.
    """
    wanted = {name: digest(peer.parameters) for name, peer in PEERS[task].items()}
    if ours is not None:
        wanted[OURS] = ours
    last = {}
    for result in results.values():
        settings = result["settings"]
        name = settings["peer"]
        if digest(settings["parameters"]) == wanted.get(name):
            last.setdefault((settings["dataset"], name), {})[settings["split"]] = result
    found = {}
    for dataset in DATASETS[task]:
        for name in PEERS[task]:
            cell = dict(sorted(last.get((dataset, name), {}).items()))
            scored = {split: fit["scores"] for split, fit in cell.items() if "scores" in fit}
            # Those that all have: later fits may have more.
            names = set.intersection(*map(set, scored.values())) if scored else ()
            scores = {score: np.array([fit[score] for fit in scored.values()]) for score in names}
            versions = {fit["settings"]["version"] for fit in cell.values()}
            parameters = next(iter(cell.values()))["settings"]["parameters"] if cell else {}
            n_failed = len(cell) - len(scored)
            found[dataset, name] = Fits(list(scored), scores, n_failed, versions, parameters)
    return found


def compare(fits, dataset, score, names):
    """Compare ours with the peer that is hardest to beat: the largest mean difference to ours.

    Parameters
    ----------
    fits : dict
        As `fits_of` returns them.
    dataset, score : str
    names : iterable of str
        Peers. One with fewer than half as many splits as ours, or without the score, is left out.

    Returns
    -------
    Comparison or None
        None where ours or all peers were not run on two common splits.
    """
    ours = fits[dataset, OURS]
    found = []
    for name in names:
        theirs = fits[dataset, name]
        splits = sorted({*ours.splits} & {*theirs.splits})
        if name == OURS or len(splits) < max(2, ours.n_fits / 2) or score not in theirs.scores:
            continue
        a, b = ours.on(score, splits), theirs.on(score, splits)
        means = float(a.mean()), float(b.mean()), float(np.mean(a - b))
        found.append(Comparison(name, len(splits), *means, float(stats.sem(a - b))))
    return max(found, key=lambda comparison: comparison.mean, default=None)


def render_report(results):
    """Write the report.

    Parameters
    ----------
    results : dict of str to dict
        "regression", "aside" and "classification" to their results, as `read_results` returns
        them; what is missing is "not run".

    Returns
    -------
    str
        Markdown.
    """
    ours = {task: settings_of_ours(results[task], task) for task in PEERS}
    fits = {task: fits_of(results[task], task, ours[task][0]) for task in PEERS}
    earlier = [task for task, (_, is_today) in ours.items() if not is_today]
    parts = [
        "# Our defaults and what users have elsewhere",
        (
            "Written by `python -m benchmarks.peers tables` from `benchmarks/results`; verdicts "
            "are computed. Figures are means ± standard errors over splits, with the median and "
            "the worst split beside the mean of a proper score: one row that a peer holds to be "
            "impossible can make a mean. The best of a column is in bold, where it has at least "
            "half as many splits as the others. All peers are fitted in one thread, and times are "
            "seconds of the processor."
            + (
                f" Ours ran with earlier settings, those of today have not: {', '.join(earlier)}."
                if earlier
                else ""
            )
        ),
        "## Claims",
        table([*_regression_claims(fits["regression"]), *_class_claims(fits["classification"])]),
        *_render_regression(fits["regression"]),
        *_render_aside(fits["aside"]),
        *_render_classification(fits["classification"]),
    ]
    return "\n\n".join(parts) + "\n"


def _render_regression(fits):
    yield "## Regression"
    yield (
        "The UCI tables, on their standard splits, in the units of y. "
        f"Intervals are central ones of {100 * LEVEL:.0f} %."
    )
    yield _peer_list("regression", fits)
    yield from _render_comparisons("regression", fits)
    yield "### Ours and recent contenders"
    yield (
        "Ours / the contender, means over the splits that both have, the lower NLL and CRPS in "
        f"bold. {NO_SCORE} is a score that a forecast does not have or that was not recorded. What "
        "stands for NLL and CRPS of quantiles and draws is said above; where y takes few values "
        "ours is the NLL of a probability, which compares with no density. (×100): all but the "
        "NLL, the coverage and the seconds."
    )
    yield _recent(fits)
    yield "### Published by others"
    yield SOURCE
    yield _published(fits)
    yield f"### Coverage of {100 * LEVEL:.0f} % intervals"
    yield _peer_grid("regression", fits, "coverage", digits=3, mean_of_sets=True)
    yield (
        "Where ours predicts a mass for each value, an interval ends at one, and covers more than "
        "it promises even where the forecast is perfect. *Shared* counts such a mass only as far "
        "as the interval needs it:"
    )
    yield _shared_coverage(fits)
    yield from _render_seconds("regression", fits)
    yield "### Test rows that are not copies"
    yield (
        "Tables hold some rows several times, and a test row whose x is among the training rows "
        "can be remembered. Where these are more than a twentieth, NLL and CRPS over the others; "
        "no claim uses these."
    )
    yield _new_rows(fits)
    yield "### What the quantile forest's CRPS is made of"
    yield (
        "Where the forest's CRPS is lower than ours. *Of its Normal* is the CRPS of the Normal of "
        "its mean and standard deviation: the step from the forest to it is what the shape is "
        "worth, such as mass on the few values of a rounded y; the step from all rows to new ones "
        "is what copies are worth; what is left between it and ours on new rows is how well mean "
        "and spread were learnt."
    )
    yield _forest_shape(fits)
    yield "### Our out-of-fold scores against the test rows"
    yield (
        '`oof_scores_` of the fit, which are there with `validation="cv"`, less the test score; '
        "below zero the fit thinks too well of itself. *Agrees* is a difference of at most .1 nat "
        "or two standard errors."
    )
    yield _out_of_fold(fits)
    yield "### Our weights"
    yield (
        "The weight that each candidate of the default gets from its out-of-fold log score, a mean "
        "over splits, 0 where it did not enter."
    )
    yield _weights(fits)
    for dataset in DATASETS["regression"]:
        unit = f" (CRPS, RMSE and width ×{FACTORS[dataset]})" if dataset in FACTORS else ""
        yield f"### {dataset}{unit}"
        yield _dataset_table("regression", fits, dataset)


def _render_aside(fits):
    yield "## Tables kept aside"
    yield (
        "On these no default was chosen. Of the generated ones the density is known, and the NLL "
        f"of the truth on the same {N_GENERATED_TEST} test rows is the least that can be expected."
    )
    yield "\n".join(f"* {name}: {ASIDE[name].about}" for name in DATASETS["aside"])
    yield from _render_comparisons("aside", fits)
    for dataset in DATASETS["aside"]:
        yield f"### {dataset}"
        cell = fits[dataset, OURS]
        if cell and ASIDE[dataset].law is not None:
            yield f"NLL of the truth: {cell.mean('true_nll'):.3f}"
        yield _dataset_table("aside", fits, dataset)


def _render_classification(fits):
    yield "## Classification"
    yield (
        "scikit-learn's tables, of which a stratified tenth is tested on, and generated ones with "
        f"known noise, drawn anew for every split, with {N_GENERATED_TEST} rows to test on and the "
        "number of training rows in their name. The Brier score of two classes is halved, as in "
        "scikit-learn; ECE has 15 bins."
    )
    yield "\n".join(f"* {name}: {TABLES[name].about}" for name in DATASETS["classification"])
    yield _peer_list("classification", fits)
    yield from _render_comparisons("classification", fits)
    yield from _render_seconds("classification", fits)
    for dataset in DATASETS["classification"]:
        yield f"### {dataset}"
        yield _dataset_table("classification", fits, dataset)


def _peer_list(task, fits):
    lines = []
    for name, peer in PEERS[task].items():
        versions = sorted(
            set().union(*(fits[dataset, name].versions for dataset in DATASETS[task]))
        )
        run = " and ".join(versions) or NOT_RUN
        # Ours has all of its parameters there, which are in its docstring.
        shown = {} if name == OURS else peer.parameters
        parameters = ", ".join(f"{parameter} {value}" for parameter, value in shown.items())
        lines.append(
            f"* {peer.title} ({peer.package} {run}): {peer.about}"
            + (f"; {parameters}" if parameters else "")
        )
    return "\n".join(lines)


def _render_comparisons(task, fits):
    for score, title in PROPER[task].items():
        rows = [
            _comparison_row(task, dataset, compare(fits, dataset, score, PEERS[task]), score)
            for dataset in DATASETS[task]
        ]
        yield f"### {title}: ours against the best peer"
        yield table(rows)
    yield (
        "The best peer is the one that leaves the largest mean of ours - peer over the splits that "
        "both have, at least two. "
        "*Bounds* are one-sided ones of the mean paired difference, each at 95 %. The verdict is "
        "*better* or *worse* where the bound agrees, *lower* or *higher* where it is only the mean."
    )


def _comparison_row(task, dataset, comparison, score):
    columns = ["best peer", "splits", "ours", "peer", "ours - peer", "bounds", "verdict"]
    if comparison is None:
        return {"table": dataset, **dict.fromkeys(columns, ""), "verdict": NOT_RUN}
    factor = _factor(dataset, score)
    low, high = (factor * bound for bound in comparison.bounds)
    cells = [
        PEERS[task][comparison.peer].title,
        comparison.n_splits,
        f"{factor * comparison.ours:.3f}",
        f"{factor * comparison.theirs:.3f}",
        f"{factor * comparison.mean:+.3f}",
        f"{low:+.3f}, {high:+.3f}",
        comparison.verdict,
    ]
    return {"table": _with_unit(dataset, score), **dict(zip(columns, cells, strict=True))}


def _peer_grid(task, fits, score, *, digits, average="mean", mean_of_sets=False):
    """Tables by peers."""
    rows = []
    for dataset in DATASETS[task]:
        row = {"table": dataset}
        for name, peer in PEERS[task].items():
            cell = fits[dataset, name]
            row[peer.title] = f"{getattr(cell, average)(score):.{digits}f}" if cell else NOT_RUN
        rows.append(row)
    if mean_of_sets:
        row = {"table": "mean of those run"}
        for name, peer in PEERS[task].items():
            cells = [fits[dataset, name] for dataset in DATASETS[task]]
            values = [cell.mean(score) for cell in cells if cell]
            row[peer.title] = f"{np.mean(values):.{digits}f}" if values else NOT_RUN
        rows.append(row)
    return table(rows)


def _render_seconds(task, fits):
    for score, what in [("fit_seconds", "to fit"), ("predict_seconds", "to predict the test rows")]:
        yield f"### Seconds {what} ({task}), medians"
        digits = 2 if score == "fit_seconds" else 3
        yield _peer_grid(task, fits, score, digits=digits, average="median")


def _dataset_table(task, fits, dataset):
    if not any(fits[dataset, name] for name in PEERS[task]):
        return f"{NOT_RUN.capitalize()}."
    rows = []
    for name, peer in PEERS[task].items():
        cell = fits[dataset, name]
        failed = f" ({cell.n_failed} failed)" if cell.n_failed else ""
        row = {"peer": peer.title, "splits": f"{cell.n_fits}{failed}"}
        for score, title in PROPER[task].items():
            row[title] = _score(cell, dataset, score)
            for average in ("median", "worst"):
                row[f"{title}, {average}"] = _score(cell, dataset, score, average)
        for score, title in OTHERS[task].items():
            row[title] = _score(cell, dataset, score)
        if task != "classification":
            row["coverage"] = f"{cell.mean('coverage'):.3f}" if cell else NOT_RUN
            for score in ("width", "interval_score"):
                row[score.replace("_", " ")] = _plain(cell, dataset, score)
        rows.append(row)
    return table(rows)


def _plain(cell, dataset, score, splits=None):
    """Mean over some splits, never in bold."""
    if not cell:
        return NOT_RUN
    if score not in cell.scores:
        return NO_SCORE
    values = cell.scores[score] if splits is None else cell.on(score, splits)
    digits = 1 if score == "fit_seconds" else 3
    return f"{_factor(dataset, score) * values.mean():.{digits}f}"


def _score(cell, dataset, score, average="mean"):
    if cell and score not in cell.scores:
        return NO_SCORE
    return Score(
        cell,
        score,
        _factor(dataset, score),
        digits=3,
        more_is_better=score in HIGHER_IS_BETTER,
        average=average,
    )


def _factor(dataset, score):
    return FACTORS.get(dataset, 1) if score.removesuffix("_new") in IN_UNITS_OF_Y else 1


def _with_unit(dataset, score):
    factor = _factor(dataset, score)
    return dataset + (f" (×{factor})" if factor != 1 else "")


def _new_rows(fits):
    """Scores over the rows that are new, of the tables that have many others."""
    rows = []
    for dataset in DATASETS["regression"]:
        cells = {name: fits[dataset, name] for name in REGRESSION}
        shares = [cell.mean("new_rows") for cell in cells.values() if cell]
        if not shares or min(shares) >= 1 - MANY_COPIES:
            continue
        for score, title in PROPER["regression"].items():
            row = {"table": dataset, "new rows": f"{np.mean(shares):.2f}", "score": title}
            for name, cell in cells.items():
                row[REGRESSION[name].title] = _plain(cell, dataset, f"{score}_new")
            rows.append(row)
    return table(rows) if rows else "No such table among those run."


def _recent(fits):
    """Ours and each recent contender on the splits that both have."""
    rows = []
    for dataset in DATASETS["regression"]:
        ours = fits[dataset, OURS]
        for name, peer in REGRESSION.items():
            theirs = fits[dataset, name]
            splits = sorted({*ours.splits} & {*theirs.splits})
            if peer.extra != RECENT or not splits:
                continue
            row = {"table": _with_unit(dataset, "crps"), "contender": peer.title}
            row["splits"] = len(splits)
            for score in ("nll", "crps", "coverage", "width", "interval_score", "fit_seconds"):
                pair = [_plain(cell, dataset, score, splits) for cell in (ours, theirs)]
                if score in PROPER["regression"] and NO_SCORE not in pair:
                    best = min(pair, key=float)
                    pair = [f"**{text}**" if text == best else text for text in pair]
                title = PROPER["regression"].get(score, score.replace("_", " "))
                row[title] = " / ".join(pair)
            rows.append(row)
    return table(rows) if rows else f"{NOT_RUN.capitalize()}."


def _shared_coverage(fits):
    """Coverage of ours as it is, and with masses at the ends of intervals shared."""
    rows = []
    for dataset in DATASETS["regression"]:
        ours = fits[dataset, OURS]
        if "coverage_shared" in ours.scores:
            row = {"table": dataset, "splits": ours.n_fits}
            row |= {"coverage": _plain(ours, dataset, "coverage")}
            rows.append(row | {"shared": _plain(ours, dataset, "coverage_shared")})
    return table(rows) if rows else f"{NOT_RUN.capitalize()}."


def _published(fits):
    """Ours, as far as it was run, beside figures of others."""
    rows = []
    for score, title in {"nll": "NLL", "rmse": "RMSE"}.items():
        for dataset in next(iter(PUBLISHED.values())):
            ours = fits[dataset, OURS]
            row = {"table": _with_unit(dataset, score), "score": title}
            row |= {"splits of ours": ours.n_fits, "ours": str(_score(ours, dataset, score))}
            for name, figures in PUBLISHED.items():
                mean, sd = (_factor(dataset, score) * value for value in figures[dataset][score])
                row[name] = f"{mean:.3f}±{sd:.3f}"
            rows.append(row)
    return table(rows)


def _forest_shape(fits):
    """CRPS of the quantile forest, of its Normal and of ours, where the forest's is the lowest."""
    rows = []
    for dataset in DATASETS["regression"]:
        forest, ours = fits[dataset, "quantile-forest"], fits[dataset, OURS]
        splits = sorted(set(forest.splits) & set(ours.splits))
        if not splits or "crps_normal" not in forest.scores:
            continue
        if forest.on("crps", splits).mean() > ours.on("crps", splits).mean():
            continue
        row = {"table": dataset, "splits": len(splits)}
        for rows_of, ending in {"all rows": "", "new rows": "_new"}.items():
            for title, cell, score in [
                ("forest", forest, "crps"),
                ("of its Normal", forest, "crps_normal"),
                ("ours", ours, "crps"),
            ]:
                mean = _factor(dataset, score) * cell.on(score + ending, splits).mean()
                row[f"{rows_of}: {title}"] = f"{mean:.3f}"
        rows.append(row)
    return table(rows) if rows else "No such table among those run."


def _out_of_fold(fits):
    rows = []
    for dataset in DATASETS["regression"]:
        row = {"table": dataset}
        for score, title in PROPER["regression"].items():
            row[title], row[f"{title} agrees"] = _apart(fits[dataset, OURS], dataset, score)
        del row["CRPS agrees"]
        rows.append(row)
    return table(rows)


def _weights(fits):
    rows = []
    for dataset in DATASETS["regression"]:
        cell = fits[dataset, OURS]
        kinds = [_name_of(kind) for kind in cell.parameters.get("auto", [])]
        weights = [cell.mean(f"weight_{k}") for k in range(len(kinds))] if cell else []
        order = np.argsort(weights)[::-1]
        said = [f"{kinds[k]} {weights[k]:.2f}" for k in order if weights[k] >= LEAST_WEIGHT]
        rows.append({"table": dataset, "weights": ", ".join(said) or NOT_RUN})
    return table(rows)


def _name_of(kind):
    """Say in a few words what a kind is that differs from the usual in these parameters."""
    family = f"{kind['family']} " if "family" in kind else ""
    if "network" in kind:
        dropout = ", dropout" if "dropout" in kind else ""
        return f"{family}kernel ({kind.get('local', 'line')}{dropout})"
    if kind.get("hidden_layer_sizes") == ():
        return f"{family}linear"
    return f"{family}{kind['method']} ({kind.get('n_knots', 0)} knots)"


def _apart(cell, dataset, score):
    """Out-of-fold score less test score, and whether they agree in the sense of the report."""
    if f"oof_{score}" not in cell.scores or cell.n_fits < 2:
        return NOT_RUN, NOT_RUN
    apart = cell.scores[f"oof_{score}"] - cell.scores[score]
    mean, error = float(apart.mean()), float(stats.sem(apart))
    factor = _factor(dataset, score)
    text = f"{factor * mean:+.3f}±{factor * error:.3f}"
    return text, _yes_no(abs(mean) <= max(OOF_TOLERANCE, 2 * error))


# Claims.


def _regression_claims(fits):
    for score, title in PROPER["regression"].items():
        found = _comparisons(fits, "regression", score)
        counts = _counts(found)
        missing = _missing(found)
        worse = [name for name, c in found.items() if c and c.verdict == "worse"]
        yield _claim(
            f"Regression: mean {title} no worse than the best peer's on all tables (paired over "
            "splits, one-sided 95 %)",
            f"{counts}{missing}",
            False if worse else None if missing else True,
        )
        lower = sum(c.mean < 0 for c in found.values() if c)
        n_missing = sum(c is None for c in found.values())
        yield _claim(
            f"Regression: mean {title} lower than the best peer's on three quarters of the tables",
            f"{lower} of {len(found) - n_missing}{missing}",
            _at_least(lower, math.ceil(0.75 * len(found)), n_missing),
        )
    means = {
        dataset: fits[dataset, OURS].mean("coverage")
        for dataset in DATASETS["regression"]
        if fits[dataset, OURS]
    }
    n_missing = len(DATASETS["regression"]) - len(means)
    figures = NOT_RUN
    holds = None
    if means:
        average = float(np.mean(list(means.values())))
        lowest = min(means, key=means.get)
        figures = f"{average:.3f} over {len(means)} tables; lowest {means[lowest]:.3f} ({lowest})"
        if means[lowest] < 0.84:
            holds = False
        elif not n_missing:
            holds = 0.87 <= average <= 0.93
    yield _claim(
        "Regression: 90 % intervals cover .87 to .93 on average over tables, and no table less "
        "than .84",
        figures,
        holds,
    )


def _class_claims(fits):
    found = _comparisons(fits, "classification", "log_loss")
    lower = sum(c.mean < 0 for c in found.values() if c)
    n_missing = sum(c is None for c in found.values())
    needed = -(-len(found) // 2)
    yield _claim(
        "Classification: mean log loss lower than the best peer's on at least half of the tables",
        f"{lower} of {len(found) - n_missing}; {_counts(found)}{_missing(found)}",
        _at_least(lower, needed, n_missing),
    )
    against = _comparisons(fits, "classification", "log_loss", [BOOSTING])
    above = [name for name, c in against.items() if c and c.mean > c.error]
    missing = _missing(against)
    yield _claim(
        "Classification: mean log loss never above calibrated boosting's by more than one standard "
        "error of the paired difference",
        (f"above on {', '.join(above)}" if above else "above on none") + missing,
        False if above else None if missing else True,
    )


def _comparisons(fits, task, score, names=None):
    return {
        dataset: compare(fits, dataset, score, names or PEERS[task]) for dataset in DATASETS[task]
    }


def _counts(found):
    known = [comparison for comparison in found.values() if comparison]
    verdicts = [comparison.verdict for comparison in known]
    words = ["better", "lower", "equal", "higher", "worse"]
    counts = [f"{verdicts.count(word)} {word}" for word in words if word in verdicts]
    if not known:
        return "no table"
    return f"{', '.join(counts)}, on {min(c.n_splits for c in known)} splits or more"


def _missing(found):
    missing = [name for name, comparison in found.items() if comparison is None]
    return f"; {NOT_RUN}: {', '.join(missing)}" if missing else ""


def _at_least(count, needed, n_missing):
    """Decide a count that missing tables could still raise."""
    if count >= needed:
        return True
    return None if count + n_missing >= needed else False


def _claim(claim, figures, holds):
    return {"claim": claim, "figures": figures, "holds": _yes_no(holds)}


def _yes_no(holds):
    return "open" if holds is None else "yes" if holds else "no"
