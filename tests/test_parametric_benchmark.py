"""The benchmark of large tables without kernel networks: what a fit is, and what its table says."""

from benchmarks import parametric
from benchmarks.peers.contenders import OURS, REGRESSION
from benchmarks.runs import key


def line(settings, number):
    names = "nll", "crps", "rmse", "fit_seconds"
    return key(settings), {"settings": settings, "scores": dict.fromkeys(names, number)}


def peer(name, split, number):
    settings = {"dataset": "bike", "split": split, "peer": name, "version": "1"}
    return line(settings | {"parameters": REGRESSION[name].parameters}, number)


def test_means_are_of_the_splits_that_all_have():
    own = parametric.jobs(3, ["bike"])
    failed = {key(own[2]): {"settings": own[2], "error": "killed"}}
    results = dict([line(own[0], 1.0), line(own[1], 9.0)]) | failed
    peers = [peer(OURS, split, 2.0) for split in range(3)]
    peers += [peer("quantile-forest", split, 3.0) for split in (0, 2)]
    *_, row = parametric.report(results, dict(peers)).splitlines()
    texts = [f"{n:.2f} / {n:.4f} / {n:.3f}: {n:.0f}" for n in (1.0, 2.0, 3.0)]
    assert row == f"| bike | 1 | {' | '.join(texts)} |"


def test_without_fits_there_is_no_table():
    assert parametric.report({}, {}) == "not run"


def test_a_fit_is_scored_in_the_units_of_y(uci_root, monkeypatch):
    monkeypatch.setattr(parametric, "_METHOD", {"method": "erm", "n_members": 1, "max_epochs": 5})
    scores = parametric.fit(uci_root.parent, {"dataset": "yacht", "split": 0})
    # The standard deviation of y is 15.
    assert 0 < scores["crps"] < 15
    assert scores["fit_seconds"] > 0
