"""The comparison of encodings of columns: which fits there are, and what its table says of them."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.columns.study import ENCODINGS, KINDS, fit_table, jobs, report
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
    assert lines[2] == "| german | erm | 2 | 1.5 | 2.1 (+0.600 ± 0.100) | - | - |"


def test_only_splits_that_all_have_are_compared():
    lines = report(results_of(native=[1.0, 2.0], skrub=[1.5])).split("\n")
    assert lines[2] == "| german | erm | 1 | 1 | 1.5 (+0.500 ± nan) | - | - |"


def test_boosting_is_fitted_once():
    own = jobs(["german"], [0])
    assert len(own) == len(KINDS) * (len(ENCODINGS) - 1) + 1


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
