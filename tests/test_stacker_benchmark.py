"""The benchmark of stacks: which fits there are, and what its table says of them."""

import pytest

from benchmarks.runs import key
from benchmarks.stacker import __main__ as command
from benchmarks.stacker.study import MANY_ROWS, fit_stack, jobs, members_of, report


def results_of(*fits):
    lines = [
        {"settings": {"dataset": "yacht", "split": k}, "scores": fit} for k, fit in enumerate(fits)
    ]
    return {key(line["settings"]): line for line in lines}


def test_the_table_compares_with_the_member_chosen_beforehand_and_the_best():
    fit = {
        **{"stack_log_score": -1.0, "stack_crps": 2.0, "stack_oof_log_score": -0.9},
        **{"nets_log_score": -1.5, "nets_crps": 3.0, "nets_oof_log_score": -1.1},
        **{"forest_log_score": -1.25, "forest_crps": 2.5, "forest_oof_log_score": -1.2},
        **{"nets_weight": 0.75, "forest_weight": 0.25},
    }
    lines = report(results_of(fit, {name: 2 * value for name, value in fit.items()})).split("\n")
    weights = "nets 1.12, forest 0.38"
    assert lines[2:] == [
        f"| yacht | 2 | log score | -1.5 | -2.25 | -1.875 | {weights} |",
        f"| yacht | 2 | CRPS | 3 | 4.5 | 3.75 | {weights} |",
    ]


def test_fits_that_failed_are_left_out():
    failed = {"settings": {"dataset": "yacht", "split": 0}, "error": "no"}
    assert len(report({key(failed["settings"]): failed}).split("\n")) == 2


def test_a_missing_folder_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(["fit", "--data", str(tmp_path / "none")])
    assert "no such folder" in capsys.readouterr().err


def test_splits_come_first_and_a_process_is_for_few_rows():
    pytest.importorskip("ngboost")
    pytest.importorskip("quantile_forest")
    found = [(job["split"], job["dataset"]) for job in jobs(["yacht", "energy"], [0, 1])]
    assert found == [(0, "yacht"), (0, "energy"), (1, "yacht"), (1, "energy")]
    assert len(members_of(0, MANY_ROWS - 1, 3)) == len(members_of(0, MANY_ROWS, 3)) + 1


def test_one_fit(tmp_path, monkeypatch):
    pytest.importorskip("ngboost")
    pytest.importorskip("quantile_forest")
    from quantile_forest import RandomForestQuantileRegressor
    from sklearn.linear_model import BayesianRidge

    folder = tmp_path / "uci" / "line"
    folder.mkdir(parents=True)
    (folder / "data.txt").write_text("\n".join(f"{k} {k % 7} {2 * k + k % 2}" for k in range(60)))
    for name, numbers in [
        ("index_features", "0\n1"),
        ("index_target", "2"),
        ("index_train_0", "\n".join(map(str, range(45)))),
        ("index_test_0", "\n".join(map(str, range(45, 60)))),
    ]:
        (folder / f"{name}.txt").write_text(numbers)
    forest = RandomForestQuantileRegressor(n_estimators=5, random_state=0)
    monkeypatch.setattr(
        "benchmarks.stacker.study.members_of",
        lambda *_: [("forest", forest), ("ridge", BayesianRidge())],
    )
    scores = fit_stack(tmp_path, {"dataset": "line", "split": 0, "folds": 3})
    assert scores["width"] == 1
    assert scores["ridge_rmse"] < 1 < scores["forest_rmse"]
    assert scores["stack_log_score"] >= scores["forest_log_score"]
    assert scores["forest_weight"] + scores["ridge_weight"] == pytest.approx(1)
