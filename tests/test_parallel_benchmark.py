"""The benchmark of workers and of kills: what it says of its results."""

import json

from benchmarks import parallel


def test_the_table_has_medians_and_their_ratio():
    fit = {"one": [3.0, 8.0, 4.0], "two": [2.0, 2.5, 9.0], "same": True}
    lines = parallel.report({"fit": fit}).split("\n")
    assert lines[2].endswith("| 4.0 | 2.5 | 1.60 | the same bits |")
    assert lines[3].count("not run") == 4
    assert "they differ" in parallel.report({"fit": fit | {"same": False}})


def test_parts_that_are_not_run_stay_as_they_were(tmp_path, monkeypatch, capsys):
    path = tmp_path / "parallel.json"
    kept = {"fit": {"one": [3.0], "two": [2.0], "same": True}}
    path.write_text(json.dumps(kept))
    # Which takes minutes.
    monkeypatch.setitem(parallel.PARTS, "kills", lambda: {"killed": 1, "equal": 2, "of": 2})
    parallel.main(["kills", "--results", str(path)])
    found = json.loads(path.read_text())
    assert found.pop("kills") == {"killed": 1, "equal": 2, "of": 2}
    assert found == kept
    assert "As if they had not been killed: 2 of 2." in capsys.readouterr().out
