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

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skorch
import torch
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from torch import nn
from torch.nn.functional import softplus
from tqdm import tqdm

from sklearn_probmix import NegativeLogLikelihood, ProbMixupRegressor, fit_together
from sklearn_probmix.loaders import nearest_neighbors
from sklearn_probmix.modules import MLP

RESULTS = Path(__file__).parent / "results" / "speed.json"
N_ROWS, N_FEATURES = 10_000, 20
BATCH_SIZES = (256, 1024)
N_ENSEMBLE_ROWS, ENSEMBLE_BATCH_SIZE = 1_000, 64
# So low that training settles: where it memorises noise, losses differ by more than the tolerance
# between seeds.
LR = 0.0003
WEIGHT_DECAY, VARIANCE_FLOOR, ALPHA = 0.01, 1e-4, 0.2
VALIDATION_FRACTION = 0.2
N_NEIGHBORS = 5
LOSS_TOLERANCE = 0.02
LAST_EPOCHS = 10
IMPORT_ROUNDS, IMPORT_LIMIT = 7, 1.10
BASE_IMPORT, OWN_IMPORT = "torch, skorch, sklearn", "sklearn_probmix"


class Setting(NamedTuple):
    """What all contenders of a round share."""

    batch_size: int
    epochs: int
    seed: int


class Ratio(NamedTuple):
    """A pair of contenders, and the most that the first may cost relative to the second."""

    contender: str
    reference: str
    limit: float | None = None
    same_loss: bool = False
    without: str | None = None
    """A contender that stands for a part of the first, whose time is subtracted."""


def make_table(n_rows=N_ROWS, random_state=0):
    """A smooth function of 20 columns under noise, so that the loss settles near 1 nat."""
    rng = np.random.default_rng(random_state)
    X = rng.normal(size=(n_rows, N_FEATURES))
    signal = np.sin(X[:, 0]) + 0.5 * X[:, 1] * X[:, 2] + X[:, 3:6].sum(axis=1) / 3
    return X, signal + rng.normal(scale=2.0, size=n_rows)


def loop_fit(X, y, setting, *, mix):
    """Train by hand; return the training loss, averaged over the last epochs."""
    rng = np.random.default_rng(setting.seed)
    torch.manual_seed(setting.seed)
    X = torch.from_numpy(StandardScaler().fit_transform(X).astype(np.float32))
    y = torch.from_numpy(((y - y.mean()) / y.std()).astype(np.float32))
    rows = torch.from_numpy(rng.permutation(len(X)))
    n_valid = round(VALIDATION_FRACTION * len(X))
    X_valid, y_valid = X[rows[:n_valid]], y[rows[:n_valid]]
    X, y = X[rows[n_valid:]], y[rows[n_valid:]]
    net = nn.Sequential(
        nn.Linear(N_FEATURES, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    best_loss, best_weights, train_losses = math.inf, None, []
    for _ in range(setting.epochs):
        net.train()
        train_loss = 0.0
        for batch in torch.from_numpy(rng.permutation(len(X))).split(setting.batch_size):
            target, eta = y[batch], natural(net(X[batch]))
            if mix:
                partner = torch.from_numpy(rng.permutation(len(batch)))
                lam = torch.from_numpy(rng.beta(ALPHA, ALPHA, len(batch)).astype(np.float32))
                target = torch.lerp(target[partner], target, lam)
                eta = torch.lerp(eta[partner], eta, lam[:, None])
            loss = nll(eta, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_loss += loss.item() * len(batch) / len(X)
        train_losses.append(train_loss)
        net.eval()
        with torch.no_grad():
            valid_loss = nll(natural(net(X_valid)), y_valid).item()
        if valid_loss < best_loss:
            best_loss = valid_loss
            best_weights = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(best_weights)
    return np.mean(train_losses[-LAST_EPOCHS:])


def natural(raw):
    """Natural parameters of a Normal, (rows, 2)."""
    mean, spread = raw.unbind(-1)
    precision = 1 / (softplus(spread) + VARIANCE_FLOOR)
    return torch.stack([mean * precision, -0.5 * precision], dim=-1)


def nll(eta, y):
    """Mean negative log-likelihood of y (rows,) at eta (rows, 2)."""
    variance = -0.5 / eta[:, 1]
    mean = eta[:, 0] * variance
    return 0.5 * ((2 * math.pi * variance).log() + (y - mean).square() / variance).mean()


def estimator_fit(X, y, setting, **parameters):
    """Fit a ProbMixupRegressor; return the training loss, averaged over the last epochs."""
    return last_losses(regressor(setting, **parameters).fit(X, y).history_)


def regressor(setting, **parameters):
    """One network in the setting of the loop, but for what `parameters` say."""
    common = {
        "n_members": 1,
        "calibration": "off",
        "lr_schedule": "constant",
        "alpha": ALPHA,
        "hidden_layer_sizes": (128, 64),
        "variance_floor": VARIANCE_FLOOR,
        "lr": LR,
        "weight_decay": WEIGHT_DECAY,
        "batch_size": setting.batch_size,
        "max_epochs": setting.epochs,
        "validation_fraction": VALIDATION_FRACTION,
        "early_stopping": False,
        "random_state": setting.seed,
    }
    return ProbMixupRegressor(**(common | parameters))


def fit_ten(X, y, setting, *, together):
    """Fit ten networks to ten tables, in one pass or one after another."""
    estimators = [regressor(setting._replace(seed=seed), method="probmix") for seed in range(10)]
    if together:
        fit_together(estimators, [(X, y)] * len(estimators))
    else:
        for est in estimators:
            est.fit(X, y)
    return math.nan


def skorch_fit(X, y, setting):
    """Train the same network by skorch as it comes, with PyTorch's DataLoader."""
    torch.manual_seed(setting.seed)
    net = NeuralNet(
        MLP,
        module__n_features=N_FEATURES,
        criterion=NegativeLogLikelihood,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=WEIGHT_DECAY,
        optimizer__fused=True,
        lr=LR,
        max_epochs=setting.epochs,
        batch_size=setting.batch_size,
        iterator_train__shuffle=True,
        verbose=0,
    )
    X = StandardScaler().fit_transform(X).astype(np.float32)
    y = ((y - y.mean()) / y.std()).astype(np.float32)
    return last_losses(net.fit(X, y).history)


def last_losses(history):
    return np.mean([epoch["train_loss"] for epoch in history[-LAST_EPOCHS:]])


def search_neighbors(X, y, setting):
    """Only find the neighbours of as many rows as are trained on."""
    nearest_neighbors(X[: round((1 - VALIDATION_FRACTION) * len(X))], N_NEIGHBORS)
    return math.nan


CONTENDERS = {
    "loop, erm": lambda *args: loop_fit(*args, mix=False),
    "loop, probmix": lambda *args: loop_fit(*args, mix=True),
    "erm": lambda *args: estimator_fit(*args, method="erm"),
    "probmix": lambda *args: estimator_fit(*args, method="probmix"),
    "probmix, Loc^5": lambda *args: estimator_fit(*args, method="probmix", n_neighbors=N_NEIGHBORS),
    "search of neighbours": search_neighbors,
    "skorch as it comes, erm": skorch_fit,
}

RATIOS = [
    Ratio("erm", "loop, erm", 1.15, same_loss=True),
    Ratio("probmix", "loop, probmix", 1.15, same_loss=True),
    Ratio("probmix", "erm", 1.3),
    Ratio("probmix, Loc^5", "erm", 1.35),
    Ratio("probmix, Loc^5", "erm", without="search of neighbours"),
    Ratio("skorch as it comes, erm", "loop, erm"),
]

# With as many epochs as the default gives a table, which makes as many steps of more rows.
_FIVE = {"method": "probmix", "n_members": 5, "max_epochs": "auto"}
ENSEMBLES = {
    "one network": lambda *args: estimator_fit(*args, method="probmix"),
    "8 members": lambda *args: estimator_fit(
        *args, method="probmix", n_members=8, validation="holdout"
    ),
    "5 members, hold-out": lambda *args: estimator_fit(*args, **_FIVE, validation="holdout"),
    "5 members, folds": lambda *args: estimator_fit(*args, **_FIVE, validation="cv"),
    "10 fits": lambda *args: fit_ten(*args, together=False),
    "10 fits in one pass": lambda *args: fit_ten(*args, together=True),
}

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
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go")
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
