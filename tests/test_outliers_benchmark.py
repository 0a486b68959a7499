"""The benchmark of wild values: which fits there are, and what its table says."""

import numpy as np

from benchmarks import outliers
from benchmarks.runs import key


def line(moved, split, crps):
    settings = {"dataset": "concrete", "split": split, "moved": moved}
    return {"settings": settings, "scores": {"crps": crps}}


def test_ratios_are_of_the_same_split():
    lines = [line(None, 0, 2.0), line(None, 1, 4.0), line(2, 1, 5.0), line(2, 0, 3.0)]
    # The third split has no fit without the value.
    lines += [line("y", 0, 1.0), line("y", 2, 9.0)]
    _, _, column, y = outliers.report({key(one["settings"]): one for one in lines}).splitlines()
    assert column == "| concrete | column 2 of X | 1.500, 1.250 |"
    assert y == "| concrete | y | 0.500 |"


def test_every_split_has_a_fit_without_a_wild_value():
    found = outliers.jobs(["diabetes"], 2)
    assert [job["split"] for job in found if job["moved"] is None] == [0, 1]
    assert len(found) == 2 * len(outliers.MOVED)


def test_a_wild_value_is_heeded_and_costs_little(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    y = X[:, 2] + 0.1 * rng.normal(size=80)
    (tmp_path / "uci" / "concrete").mkdir(parents=True)
    np.savetxt(tmp_path / "uci" / "concrete" / "data.txt", np.c_[X, y])
    plain, moved, *_ = outliers.jobs(["concrete"], 1)
    one, other = (outliers.fit(tmp_path, job)["crps"] for job in (plain, moved))
    assert one != other
    # Of what a constant would have, .56, far less.
    assert max(one, other) < 0.2
