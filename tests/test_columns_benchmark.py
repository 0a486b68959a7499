"""The comparison of encodings of columns: which fits there are, and what its table says of them."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.columns.study import ENCODINGS, OTHERS, fit_table, jobs, report
from benchmarks.runs import key


def results_of(**nlls):
    lines = [
        {
            "settings": {"table": "german", "split": split, "kind": "erm", "encoding": encoding},
            "scores": {"nll": nll},
        }
        for encoding, values in nlls.items()
        for split, nll in enumerate(values)
    ]
    return {key(line["settings"]): line for line in lines}


def test_the_table_has_differences_and_their_errors():
    lines = report(results_of(native=[1.0, 2.0], skrub=[1.5, 2.7])).split("\n")
    # The differences are .5 and .7: their mean has a standard error of .1.
    assert lines[2] == "| german | erm | 2 | 1.5 | 2.1 (+0.600 ± 0.100) | - | - | - |"


def test_only_splits_that_all_have_are_compared():
    lines = report(results_of(native=[1.0, 2.0], skrub=[1.5])).split("\n")
    assert lines[2] == "| german | erm | 1 | 1 | 1.5 (+0.500 ± nan) | - | - | - |"


def test_what_has_no_networks_is_fitted_once_and_stands_beside_the_default():
    found = [(job["kind"], job["encoding"]) for job in jobs(["german"], [0])]
    assert len(set(found)) == len(found) == len(ENCODINGS) + (len(ENCODINGS) - len(OTHERS)) + 1
    assert ("erm", "CatBoost") in found
    line = {"settings": {"table": "german", "split": 0}, "scores": {"nll": 2.0}}
    lines = results_of(native=[1.0], CatBoost=[3.0]) | {
        "default": line | {"settings": line["settings"] | {"kind": "default", "encoding": "native"}}
    }
    row = report(lines).split("\n")[3]
    assert row == "| german | default | 1 | 2 | - | - | - | 3 (+1.000 ± nan) |"


@pytest.mark.parametrize("encoding", ["native", "one-hot", "boosting"])
def test_a_fit_reads_text_and_missing_values(tmp_path, encoding):
    rng = np.random.default_rng(0)
    codes = rng.choice(["a", "b", "?"], 120)
    table = pd.DataFrame({0: codes, 1: rng.normal(size=120), 2: 1 + (codes == "a")})
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables" / "german.csv.gz"
    table.to_csv(path, header=False, index=False)
    settings = {"table": "german", "split": 0, "kind": "erm", "encoding": encoding}
    scores = fit_table(tmp_path, settings)
    # The class is the code.
    assert scores["accuracy"] > 0.9
    assert scores["nll"] < 0.4
