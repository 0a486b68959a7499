"""The benchmark of few rows: what a fit is, and what its table says."""

from benchmarks import small
from benchmarks.runs import key


def line(method, seed, rows=30, **scores):
    settings = {"dataset": "yacht", "rows": rows, "seed": seed, "method": method}
    return {"settings": settings, "scores": {"coverage": 0.9, "seconds": 2.0, **scores}}


def test_methods_are_compared_on_the_same_rows():
    lines = [
        line("auto", 0, nll=1.0, crps=1.0),
        line("auto", 1, nll=2.0, crps=2.0),
        line("fast", 0, nll=1.5, crps=2.0, seconds=1.0, coverage=0.8),
        line("fast", 1, nll=1.5, crps=1.0, seconds=1.0, coverage=0.9),
        # Without a fit of auto beside it.
        line("fast", 2, nll=99.0, crps=99.0),
    ]
    _, _, auto, fast = small.report({key(one["settings"]): one for one in lines}).splitlines()
    assert auto == "| 30 | auto | 2 | +0.000 ± 0.000 | 1.000 ± 0.000 | 0.90 | 1.00 |"
    # The standard errors of (.5, -.5) and of the logarithms of (2, 1/2).
    assert fast == "| 30 | fast | 2 | +0.000 ± 0.500 | 1.000 ± 0.693 | 0.85 | 0.50 |"


def test_a_fit_draws_rows_and_scores_them(uci_root):
    (job,) = small.jobs([40], 1, ["fast"])[:1]
    scores = small.fit(uci_root.parent, job)
    # The standard deviation of y is 15.
    assert 0 < scores["crps"] < 15
    assert scores["seconds"] > 0
