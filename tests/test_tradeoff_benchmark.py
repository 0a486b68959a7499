"""The benchmark of what a second buys: which fits there are, and what its table says of them."""

import re

import matplotlib.image
import numpy as np
import pytest

from benchmarks import tradeoff
from benchmarks.peers.contenders import OURS, REGRESSION
from benchmarks.runs import key


def results_of(*points):
    """Make results of (who, arguments, seconds, CRPS) on yacht; ours are today's."""
    own = {key(job["arguments"]): job for job in tradeoff._own_jobs(["yacht"])}
    found = {}
    for who, arguments, seconds, score in points:
        settings = {"dataset": "yacht", "peer": who, "arguments": arguments, "version": "1"}
        if who == OURS:
            settings = own[key(arguments)]
        scores = {"fit_seconds": seconds, "crps": score}
        found[key(settings)] = {"settings": settings, "scores": scores}
    return found


FOREST = "quantile-forest", {"n_estimators": 20}, 1.0, 0.5


@pytest.mark.parametrize(
    ("seconds", "score", "expected"),
    [
        (0.5, 0.4, "yes: `n_members=3` takes 0.5 of its time"),
        (2.0, 0.5, "no: `n_members=3` takes 2 of its time"),
        (0.5, 0.6, "no: none of ours is as good"),
    ],
)
def test_a_peer_is_met_by_what_is_quicker_and_better(seconds, score, expected):
    results = results_of(FOREST, (OURS, {"n_members": 3}, seconds, score))
    found = tradeoff.verdict(results, "yacht")
    assert found["quantile forest"] == expected
    assert found["CatBoost"] == "not run"


def test_the_best_of_a_peer_and_the_quickest_of_ours_count():
    better = "quantile-forest", {"n_estimators": 500}, 10.0, 0.3
    own = [(OURS, {"n_members": 3}, 8.0, 0.2), (OURS, {}, 20.0, 0.1)]
    found = tradeoff.verdict(results_of(FOREST, better, *own), "yacht")
    assert found["quantile forest"] == "yes: `n_members=3` takes 0.8 of its time"


def test_the_table():
    lines = tradeoff.report(results_of(FOREST, (OURS, {}, 12.345, 0.25))).splitlines()
    assert "| ours | the default | 12.3 s: 0.25 | not run | not run | not run |" in lines
    assert (
        "| quantile forest | `n_estimators=20` | 1.0 s: 0.5 | not run | not run | not run |"
        in lines
    )


def test_ours_of_earlier_defaults_are_not_shown():
    (result,) = results_of((OURS, {}, 1.0, 0.25)).values()
    result["settings"] = result["settings"] | {"parameters": {"lr": 1}}
    assert "0.25" not in tradeoff.report({key(result["settings"]): result})


def test_the_picture(tmp_path):
    tradeoff.draw(results_of(FOREST, (OURS, {}, 12.0, 0.25)), tmp_path / "picture.png")
    picture = matplotlib.image.imread(tmp_path / "picture.png")
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 10


def test_ticks_are_plain_numbers(tmp_path):
    tradeoff.draw(results_of(FOREST, (OURS, {}, 12.0, 0.25)), tmp_path / "picture.svg")
    # Texts are drawn as paths, and stand in comments beside them.
    texts = re.findall("<!-- (.*) -->", (tmp_path / "picture.svg").read_text())
    assert {"0.3", "0.4", "10"} <= {*texts}
    assert not [text for text in texts if "10^" in text]


def test_a_fit_is_timed_and_scored(uci_root):
    parameters = REGRESSION[OURS].parameters
    settings = {"dataset": "yacht", "peer": OURS, "parameters": parameters}
    few = {"method": "erm", "n_members": 1, "max_epochs": 20}
    found = tradeoff.fit_point(uci_root.parent, settings | {"arguments": few})
    # The standard deviation of y is 15.
    assert 0 < found["crps"] < 8
    assert 0 < found["fit_seconds"] < 60
