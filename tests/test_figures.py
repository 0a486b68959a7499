"""Measured figures in Markdown are those of benchmarks/results."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import costs, figures, quick
from benchmarks.peers import summary
from benchmarks.peers.contenders import OURS, PEERS
from benchmarks.peers.report import settings_of_ours
from benchmarks.runs import RESULTS, digest, key, read_results, run_missing


def line(task, dataset, split, peer, parameters=None, **scores):
    parameters = PEERS[task][peer].parameters if parameters is None else parameters
    settings = {"dataset": dataset, "split": split, "peer": peer, "version": "1"}
    return {"settings": settings | {"parameters": parameters}, "scores": scores}


def results_of(*lines):
    return {key(one["settings"]): one for one in lines}


def test_documentation_is_what_the_results_say():
    for path, text, wanted in figures.pages(figures.ROOT, RESULTS):
        assert text == wanted, f"{path}: run python -m benchmarks.figures"
        # Marks in a sentence that begin a line would begin a block, and end the paragraph.
        assert not re.search(r"^ *<!-- (figures: [^>]+-->.|end -->.)", text, re.MULTILINE)


def test_drift_of_a_figure_and_of_a_report_is_found(tmp_path):
    page, report = tmp_path / "page.md", tmp_path / "benchmarks" / "peers" / "PEERS_RESULTS.md"
    report.parent.mkdir(parents=True)
    report.touch()
    page.write_text("It takes <!-- figures: speed ours -->?<!-- end --> times.\n")

    def measure(ratio):
        rows = [{"contender": "erm", "reference": "loop", "ratio": ratio}]
        (tmp_path / "speed.json").write_text(json.dumps({"ratios": rows}))

    def drifted():
        found = figures.drift(tmp_path, tmp_path)
        return {Path(name) for name in re.findall(r"^--- (\S+)", found, re.MULTILINE)}

    measure(1.0)
    assert drifted() == {page, report}
    for path, _, wanted in figures.pages(tmp_path, tmp_path):
        path.write_text(wanted)
    assert drifted() == set()
    measure(2.0)
    assert drifted() == {page}
    with (tmp_path / "peers-aside.jsonl").open("a") as file:
        scores = dict.fromkeys(["nll", "crps", "rmse", "coverage", "width", "true_nll"], 0.5)
        scores |= {"fit_seconds": 1.0, "predict_seconds": 1.0}
        file.write(json.dumps(line("aside", "diabetes", 9, "gp", **scores)) + "\n")
    assert drifted() == {page, report}


def test_marks_of_a_sentence_and_of_a_table_are_filled():
    def read(name):
        assert name == "speed"
        loops = [("erm", 1.0), ("probmix", 1.25), ("skorch as it comes", 3.0)]
        rows = [{"contender": name, "reference": "loop", "ratio": ratio} for name, ratio in loops]
        return {"ratios": [*rows, {"contender": "erm", "reference": "one", "ratio": 9.0}]}

    text = "It takes <!-- figures: speed ours -->?<!-- end --> times.\n"
    filled = figures.filled(text, read)
    assert filled == text.replace("?", "1.00 to 1.25")
    assert figures.filled(filled, read) == filled
    text = "<!-- figures: speed skorch -->\nold\n<!-- end -->"
    assert figures.filled(text, read).split("\n") == [
        *("<!-- figures: speed skorch -->", "", "3.00 to 3.00", "", "<!-- end -->")
    ]
    with pytest.raises(ValueError, match="no figure 'sped ours'; expected one of"):
        figures.filled("<!-- figures: sped ours --><!-- end -->", read)


def test_ours_is_today_s_or_what_ran_last():
    former, later = {"lr": 1}, {"lr": 2}
    lines = [line("regression", "yacht", 0, OURS, each, nll=1.0) for each in (former, later)]
    assert settings_of_ours(results_of(*lines), "regression") == (digest(later), False)
    today = line("regression", "yacht", 0, OURS, nll=1.0)
    found = settings_of_ours(results_of(today, *lines), "regression")
    assert found == (digest(today["settings"]["parameters"]), True)


def test_peers_are_shown_on_the_splits_of_ours():
    results = results_of(
        *(line("regression", "yacht", split, OURS, nll=split, crps=0.25) for split in (0, 1)),
        *(line("regression", "yacht", split, "gp", nll=1, crps=split / 4) for split in (0, 1, 9)),
        line("regression", "yacht", 0, "catboost", nll=0, crps=0),
        # A mass on each value: ours has the lowest figure, which does not compare.
        line("regression", "wine-quality-red", 0, OURS, nll=0, crps=0.5),
        line("regression", "wine-quality-red", 0, "gp", nll=1, crps=0.5),
        line("regression", "wine-quality-red", 0, "ngboost", nll=2, crps=0.75),
    )
    _, _, yacht, wine = summary.beside_peers(results, "today").split("\n")
    assert yacht == "| yacht | 2 | **0.50** / 0.250 |  |  | 1.00 / **0.125** |  |  |"
    assert wine.startswith(
        "| wine-quality-red | 1 | 0.00 (a probability) / **0.500** | 2.00 / 0.75"
    )
    assert "| **1.00** / **0.500** |" in wine
    assert summary.against(results, "regression", "yacht", "gp", "crps") == "0.12 against 0.25"


def test_a_change_of_the_default_is_told_by_pairs(monkeypatch):
    former = {"lr": 1}
    monkeypatch.setitem(summary.FORMER, "once", {"regression": digest(former)})

    def fits(parameters, seconds, **splits_of_table):
        return [
            line(
                "regression", name, split, OURS, parameters, nll=nll, crps=crps, fit_seconds=seconds
            )
            for name, splits in splits_of_table.items()
            for split, (nll, crps) in splits.items()
        ]

    results = results_of(
        *fits(former, 2, bike={0: (0, 0.5), 1: (0, 0.5), 2: (7, 7)}, yacht={0: (0, 1), 1: (0, 1)}),
        *fits(None, 3, bike={0: (0, 0.25), 1: (1, 0.5), 9: (7, 7)}, yacht={0: (0, 1)}),
    )
    header, _, row = summary.paired(results, "once").split("\n")
    assert header.startswith("| table | splits | NLL, less before's | CRPS, part of before's |")
    assert row == "| bike | 2 | +0.500 ± 0.500 | 0.750 ± 0.250 | 1.50 |"
    assert summary.paired({}, "once") == "not run"


def test_recent_contenders_are_shown_as_differences_on_common_splits():
    results = results_of(
        *(line("regression", "kin8nm", split, OURS, nll=split, crps=0.25) for split in (0, 1)),
        *(line("regression", "kin8nm", split, "realmlp", nll=2, crps=0.5) for split in (0, 1, 9)),
        line("regression", "kin8nm", 1, "tabm", nll=0, crps=0.125),
        line("regression", "kin8nm", 0, "mapie-cqr", coverage=0.9),
        # A mass on each value: only the CRPS compares.
        line("regression", "abalone", 0, OURS, nll=0, crps=0.5),
        line("regression", "abalone", 0, "treeffuser", nll=1, crps=0.75),
        line("regression", "yacht", 0, OURS, nll=0, crps=0.5),
    )
    assert summary.beside_recent(results).split("\n") == [
        "| NLL / CRPS, less ours | Treeffuser | LightGBMLSS | RealMLP | TabM |",
        "|---|---|---|---|---|",
        "| kin8nm (CRPS ×100) | not run | not run | +1.50 / +25.000 (2) | -1.00 / -12.500 (1) |",
        "| abalone | – / +0.250 (1) | not run | not run | not run |",
    ]


def test_settings_that_a_figure_names_are_in_the_results():
    for former in summary.FORMER.values():
        for task, settings in former.items():
            results = read_results(RESULTS / f"peers-{task}.jsonl").values()
            assert settings in {digest(result["settings"]["parameters"]) for result in results}


def test_every_mutant_that_survives_is_judged():
    counts = json.loads((RESULTS / "mutants.json").read_text())
    judged = figures.judged_mutants()
    for name, found in counts.items():
        n_judged = judged[name, "equivalent"] + judged[name, "no test"]
        assert n_judged == found["mutants"] - found["killed"], name


def test_costs_of_a_race_are_of_its_rules():
    ours = [job for job in costs.jobs(["diabetes"]) if "peer" not in job]
    races = [job["arguments"] for job in ours if "race" in job["parameters"]]
    assert {"method": "fast"} in races
    assert {"method": "probmix"} not in races
    assert {} in races


def test_costs_of_the_latest_fits_are_shown():
    job = next(job for job in costs.jobs(["diabetes"]) if job.get("arguments") == {})
    scores = {"fit_seconds": 12.3, "crps": 31.26, "nll": 5.4}
    old = job | {"parameters": {"lr": 1}}
    results = results_of({"settings": old, "scores": scores})
    assert "| the default (of earlier defaults) | 12 s: 31.3 / 5.40 | not run |" in costs.report(
        results
    )
    results = results_of(
        {"settings": job, "scores": scores | {"crps": 1277.1, "fit_seconds": 1.0}},
        *results.values(),
    )
    assert "| 1.0 s: 1,277 / 5.40 | not run |" in costs.report(results)


def squared(settings):
    return {"nll": settings["seed"] ** 2}


def test_lines_say_what_ran_and_how_quick_the_machine_is(tmp_path):
    path = tmp_path / "squares.jsonl"
    run_missing(squared, [{"seed": 2}], path)
    (result,) = read_results(path).values()
    assert result["settings"] == {"seed": 2}
    assert result["versions"]["numpy"] == np.__version__
    assert 0.1 < result["yardstick_ms"] < 1000


def test_the_quick_slice_stands_beside_what_is_stored():
    now = line("aside", "diabetes", 0, "gp", nll=5.0, crps=30.0, coverage=0.9, fit_seconds=1.0)
    stored = results_of(
        line("aside", "diabetes", 0, "gp", nll=5.25, crps=30, coverage=0.9, fit_seconds=2),
        line("aside", "diabetes", 1, "gp", nll=9.0, crps=90, coverage=0.1, fit_seconds=9),
    )
    text = quick.beside_stored([now], stored)
    assert "| diabetes | Gaussian process | 5 / 5.25 | 30 / 30 | 0.9 / 0.9 | 1 / 2 |" in text
