"""How much slower than a hand-written PyTorch loop, than ERM, or than one network a whole fit is.

Run ``python -m benchmarks.speed``. Every figure is a ratio inside one run: in each round all
contenders fit the same table once (10,000 x 20; ensembles 1,000 x 20), in random order, on one
torch thread, and a ratio is the median over rounds of the ratios of two contenders in one round.
Time is the CPU time of the process, which other processes disturb less than the clock on the wall.
A fit is the whole call, with the search for neighbours where there is one; a further row leaves
the search out.

The loop does what the estimators do: it standardises x and y, holds out a fifth of the rows,
computes their loss after every epoch, keeps the weights of the best epoch, and trains by the same
fused AdamW. It indexes tensors, and pools natural parameters with the partner row. Early stopping
is off for all. Loop and estimator must reach the same training loss, or the run fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skorch
import torch
from tqdm import tqdm

from benchmarks.runs import RESULTS
from benchmarks.speed.contenders import (
    CONTENDERS,
    ENSEMBLES,
    N_FEATURES,
    N_ROWS,
    Setting,
    make_table,
)

BATCH_SIZES = (256, 1024)
N_ENSEMBLE_ROWS, ENSEMBLE_BATCH_SIZE = 1_000, 64
LOSS_TOLERANCE = 0.02
IMPORT_ROUNDS, IMPORT_LIMIT = 7, 1.10
BASE_IMPORT, OWN_IMPORT = "torch, skorch, sklearn", "sklearn_probmix"


class Ratio(NamedTuple):
    """A pair of contenders, and the most that the first may cost relative to the second."""

    contender: str
    reference: str
    limit: float | None = None
    same_loss: bool = False
    without: str | None = None
    """A contender that stands for a part of the first, whose time is subtracted."""


RATIOS = [
    Ratio("erm", "loop, erm", 1.15, same_loss=True),
    Ratio("probmix", "loop, probmix", 1.15, same_loss=True),
    Ratio("probmix", "erm", 1.3),
    Ratio("probmix, Loc^5", "erm", 1.35),
    Ratio("probmix, Loc^5", "erm", without="search of neighbours"),
    Ratio("skorch as it comes, erm", "loop, erm"),
]

ENSEMBLE_RATIOS = [
    Ratio("8 members", "one network", 3.5),
    Ratio("5 members, folds", "5 members, hold-out", 1.25),
    Ratio("10 fits in one pass", "10 fits"),
]


def race(contenders, table, batch_size, *, rounds, epochs):
    """Seconds and losses of every contender, a list over rounds each."""
    rng = np.random.default_rng(0)
    seconds = {name: [] for name in contenders}
    losses = {name: [] for name in contenders}
    for fit in contenders.values():
        fit(*table, Setting(batch_size, 1, 0))
    with tqdm(total=rounds * len(contenders), desc=f"batches of {batch_size}") as progress:
        for seed in range(rounds):
            for name in rng.permutation(list(contenders)):
                progress.set_postfix_str(name)
                start = time.process_time()
                loss = contenders[name](*table, Setting(batch_size, epochs, seed))
                seconds[name].append(time.process_time() - start)
                losses[name].append(loss)
                progress.update()
    return seconds, losses


def ratio_rows(pairs, batch_size, seconds, losses):
    """One row of results for each ratio."""
    rows = []
    for pair in pairs:
        own = np.array(seconds[pair.contender])
        if pair.without is not None:
            own -= seconds[pair.without]
        ratios = own / seconds[pair.reference]
        row = {
            "contender": pair.contender + (f", less {pair.without}" if pair.without else ""),
            "reference": pair.reference,
            "batch_size": batch_size,
            "ratio": float(np.median(ratios)),
            "lowest": float(ratios.min()),
            "highest": float(ratios.max()),
            "limit": pair.limit,
        }
        if pair.same_loss:
            row["loss"] = float(np.median(losses[pair.contender]))
            row["reference_loss"] = float(np.median(losses[pair.reference]))
        rows.append(row)
    return rows


def import_row():
    """Time of importing the package against that of what it is built on, in fresh processes."""
    seconds = {OWN_IMPORT: [], BASE_IMPORT: []}
    for _ in range(IMPORT_ROUNDS):
        for modules, times in seconds.items():
            code = f"import time; import {modules}; print(time.process_time())"
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
            )
            times.append(float(done.stdout))
    ratios = np.divide(seconds[OWN_IMPORT], seconds[BASE_IMPORT])
    return {
        "contender": f"import {OWN_IMPORT}",
        "reference": f"import {BASE_IMPORT}",
        "batch_size": None,
        "ratio": float(np.median(ratios)),
        "lowest": float(ratios.min()),
        "highest": float(ratios.max()),
        "limit": IMPORT_LIMIT,
    }


def markdown(rows):
    """Lay the results out as a table of markdown."""
    lines = [
        "| time of | against | batch | ratio | range | at most |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        limit = "" if row["limit"] is None else f"{row['limit']:.2f}"
        lines.append(
            f"| {row['contender']} | {row['reference']} | {row['batch_size'] or ''} "
            f"| {row['ratio']:.2f} | {row['lowest']:.2f} to {row['highest']:.2f} | {limit} |"
        )
    return "\n".join(lines)


def failures(rows):
    """What does not hold: limits, and equal training losses."""
    found = []
    for row in rows:
        name = f"{row['contender']} against {row['reference']}, batch {row['batch_size']}"
        if row["limit"] is not None and row["ratio"] > row["limit"]:
            found.append(f"{name}: ratio {row['ratio']:.3f}, expected at most {row['limit']}")
        if "loss" in row:
            loss, reference = row["loss"], row["reference_loss"]
            if abs(loss - reference) > LOSS_TOLERANCE * abs(reference):
                found.append(f"{name}: training loss {loss:.4f}, expected {reference:.4f}")
    return found


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "speed.json", help="where the figures go"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [import_row()]
    effort = {"rounds": options.rounds, "epochs": options.epochs}
    for batch_size in BATCH_SIZES:
        rows += ratio_rows(
            RATIOS, batch_size, *race(CONTENDERS, make_table(), batch_size, **effort)
        )
    timed = race(ENSEMBLES, make_table(N_ENSEMBLE_ROWS), ENSEMBLE_BATCH_SIZE, **effort)
    rows += ratio_rows(ENSEMBLE_RATIOS, ENSEMBLE_BATCH_SIZE, *timed)
    versions = {"torch": torch.__version__, "skorch": skorch.__version__}
    setting = {"rows": N_ROWS, "columns": N_FEATURES, "rounds": options.rounds}
    result = {**setting, "epochs": options.epochs, "versions": versions, "ratios": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))
    found = failures(rows)
    if found:
        raise SystemExit("\n".join(["These do not hold:", *found]))


if __name__ == "__main__":
    main()
