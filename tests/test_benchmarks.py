"""The experiments resume where they stopped, and their tables say what was not run."""

import ast
import json
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks.flat import AUTO_SIZES, arguments
from benchmarks.markdown import table
from benchmarks.paper import __main__ as commands
from benchmarks.paper import fits, printed
from benchmarks.paper.report import render_report
from benchmarks.paper.sequence_modules import make_net
from benchmarks.paper.settings import (
    METHODS,
    NINE_METHODS,
    chosen_mixing,
    toy_mixings,
    toy_settings,
    toy_stages,
    uci_grid,
    uci_settings,
    varied_settings,
)
from benchmarks.runs import key, read_results, run_missing
from sklearn_probmix import Kind, ProbMixupRegressor

JOBS = [{"seed": seed} for seed in range(3)]
NO_RESULTS = {
    name: {} for name in ["toy-regression", "toy-classification", "uci", "causes", "stocks"]
}


def square(settings):
    if settings["seed"] < 0:
        raise ValueError("no root")
    return {"nll": settings["seed"] ** 2}


def must_not_run(settings):
    raise AssertionError(f"{settings} was finished")


def test_finished_fits_are_skipped(tmp_path):
    path = tmp_path / "results" / "squares.jsonl"
    run_missing(square, JOBS[:2], path)
    before = path.read_text()
    assert run_missing(must_not_run, JOBS[:2], path) == read_results(path)
    assert path.read_text() == before
    results = run_missing(square, JOBS, path)
    assert path.read_text().startswith(before)
    assert [results[key(job)]["scores"]["nll"] for job in JOBS] == [0, 1, 4]


def test_a_line_cut_off_is_run_again(tmp_path):
    path = tmp_path / "squares.jsonl"
    run_missing(square, JOBS, path)
    path.write_text(path.read_text()[:-20])
    assert len(read_results(path)) == 2
    run_missing(square, JOBS, path)
    assert len(read_results(path)) == 3


def test_a_failed_fit_is_a_result(tmp_path):
    path = tmp_path / "squares.jsonl"
    results = run_missing(square, [{"seed": -1}], path)
    assert results[key({"seed": -1})]["error"] == "no root"
    run_missing(must_not_run, [{"seed": -1}], path)


def squares(settings):
    return [square(one) for one in settings]


def test_jobs_that_differ_in_one_setting_are_one_call(tmp_path):
    jobs = [{"alpha": alpha, "seed": seed} for alpha in (1, 2) for seed in (2, 3, -1)]
    calls = []

    def recording(settings):
        calls.append(settings)
        return squares(settings)

    path = tmp_path / "squares.jsonl"
    results = run_missing(recording, jobs, path, together="seed")
    # A call that failed is divided, so that only the failing fit is an error.
    assert [len(call) for call in calls] == [3, 1, 1, 1] * 2
    assert results[key(jobs[1])]["scores"] == {"nll": 9}
    assert results[key(jobs[5])]["error"] == "no root"
    assert read_results(path) == results


@pytest.mark.slow
def test_two_processes_give_the_same_results(tmp_path):
    results = run_missing(square, JOBS, tmp_path / "squares.jsonl", n_jobs=2)
    assert sorted(result["scores"]["nll"] for result in results.values()) == [0, 1, 4]


def test_the_key_does_not_depend_on_the_order():
    assert key({"a": 1, "b": [2]}) == key({"b": (2,), "a": 1})


def test_settings_survive_the_file():
    settings = uci_settings("yacht", 0, "m-probmix", None, alpha=0.1, beta=0.0)
    assert key(json.loads(json.dumps(settings))) == key(settings)


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_arguments_of_the_estimator(method):
    for settings in [
        uci_settings("yacht", 0, method, **uci_grid(method)[0]),
        toy_settings(0, method, toy_mixings(method)[0]),
    ]:
        est = fits.make_estimator(ProbMixupRegressor, settings)
        family = est.family
        est.method.check(family)
        assert (est.method.method, est.validation) == (METHODS[method]["method"], 0.2)
        assert (family.variance_floor, est.method.lr_schedule) == (1e-6, "constant")


def test_flat_settings_become_a_kind_and_the_rest():
    flat = {"method": "probmix", "beta": 0.1, "batch_size": None, "n_members": 3}
    kind = Kind("probmix", beta=0.1, batch_size="full", n_iter_no_change=20)
    assert arguments(flat | {"n_iter_no_change": 20}) == {"n_members": 3, "method": kind}
    assert arguments(flat | {"n_iter_no_change": 20, "early_stopping": False}) == {
        "n_members": 3,
        "method": kind.updated(n_iter_no_change=None),
    }


@pytest.mark.parametrize("n_rows", [1, 64, 65, 1500, 3999, 4000, 9000, 10**6])
def test_the_sizes_on_record_are_those_of_today(n_rows):
    is_large = n_rows >= AUTO_SIZES["many_rows"]
    batch_size = AUTO_SIZES["batch_size_of_many_rows" if is_large else "batch_size"]
    n_steps_of_an_epoch = -(-n_rows // batch_size)
    least, most = AUTO_SIZES["least_and_most_epochs"]
    epochs = min(max(AUTO_SIZES["n_steps"] / n_steps_of_an_epoch, least), most)
    sized = Kind().sized(n_rows)
    assert (sized.batch_size, sized.max_epochs) == (batch_size, int(epochs))


def test_the_toy_grid_is_the_paper_s():
    stages = toy_stages(NINE_METHODS)
    cells = [key(dict(mixing, name=name)) for stage in stages for name, mixing in stage]
    assert len(cells) == len(set(cells)) == 1 + 4 * 7 + 4 * 7 * 2 * 2


def test_validation_chooses_alpha_and_beta():
    losses = iter([3.0, 3.0, 1.0, 5.0, 2.0, 2.5, 4.0, 4.0])
    results = {}
    for mixing in uci_grid("probmix"):
        for split in range(2):
            settings = uci_settings("yacht", split, "probmix", **mixing)
            results[key(settings)] = {"scores": {"valid_nll": next(losses)}}
    assert chosen_mixing(results, "yacht", "probmix") == {"alpha": 0.4, "beta": 0.0}
    assert chosen_mixing(results, "yacht", "m-probmix") is None


def test_one_toy_fit_scores_inside_and_outside():
    settings = toy_settings(0, "m-probmix", toy_mixings("m-probmix")[0])
    settings["estimator"]["max_epochs"] = 2
    [scores] = fits.fit_toy_regression([settings])
    assert scores["n_epochs"] == 2
    assert scores["mse_out"] > scores["mse_in"]
    assert scores["nll_standardised_in"] == pytest.approx(scores["nll_in"] - scores["log_scale"])


def test_one_classification_fit():
    mixing = toy_mixings("probmix", classification=True)[-1]
    settings = toy_settings(0, "probmix", mixing, classification=True)
    settings["estimator"]["max_epochs"] = 2
    [scores] = fits.fit_toy_classification([settings])
    assert 0 <= scores["accuracy"] <= 1


@pytest.mark.parametrize("encoder", ["lstm", "transformer"])
@pytest.mark.parametrize("method", ["erm", "m-probmix"])
def test_sequence_modules_train_inside_the_estimator(encoder, method):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 6, 4)), rng.normal(size=20)
    net = make_net(encoder, method, lr=0.01, max_epochs=1, batch_size=8)
    est = ProbMixupRegressor(n_members=1, net=net, method=method, random_state=0).fit(X, y)
    assert np.isfinite(est.predict_proba(X).logpdf(y)).all()


def test_splits_of_a_real_table(uci_root):
    settings = [uci_settings("yacht", split, "erm") for split in range(2)]
    for one in settings:
        one["estimator"]["max_epochs"] = 2
    for scores in fits.fit_uci(uci_root.parent, settings):
        assert {"nll", "rmse", "crps", "coverage", "valid_nll"} <= set(scores)


def test_a_missing_data_folder_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        commands.main(["uci", "--data", str(tmp_path / "nothing")])
    assert "PROBMIX_DATA" in capsys.readouterr().err


def test_the_paper_s_figures():
    assert printed.UCI_NLL["yacht"]["local-m-probmix"] == (0.26, 0.25)
    assert printed.UCI_RMSE["kin8nm"]["erm"].mean == pytest.approx(0.0741)
    assert printed.TOY_NLL_OUT["log-linear"][0.25]["m-probmix"] == (22.9, 6.7)
    assert printed.STOCK_NLL["transformer"]["RCL"]["mixup"] == (-0.05, 0.02)
    assert set(printed.UCI_NLL["yacht"]) == set(METHODS)


def test_the_report_of_nothing_says_not_run():
    text = render_report(NO_RESULTS)
    assert "| yacht | LocM-ProbMix 0.26±0.25 | not run |" in text
    assert "nan" not in text
    assert text == render_report(NO_RESULTS)


def test_the_report_compares_with_the_paper(tmp_path):
    results = {}
    for method in METHODS:
        for split in range(2):
            for mixing in uci_grid(method):
                settings = uci_settings("yacht", split, method, **mixing)
                # The paper's M-ProbMix is .27±.36, its best .26±.25.
                nll = (0.27 if method == "m-probmix" else 1.0) + 0.01 * split - 0.005
                scores = {"nll": nll, "valid_nll": nll, "rmse": 1.0, "crps": 0.5, "coverage": 0.9}
                results[key(settings)] = {"settings": settings, "scores": scores}
    method, chosen = "local-m-probmix", uci_grid("local-m-probmix")[0]
    causes = {}
    # A change that was tried on some of the splits only does not compare, and is left out.
    for split, change, nll in [
        *((split, "full batch", 0.3) for split in range(2)),
        *((split, "no early stop", 0.9) for split in range(2)),
        (0, "batches of 50", 0.2),
    ]:
        settings = varied_settings("yacht", split, method, chosen, change)
        causes[key(settings)] = {"settings": settings, "scores": {"nll": nll, "rmse": 1.0}}
    text = render_report({**NO_RESULTS, "uci": results, "causes": causes})
    assert "| M-ProbMix | 100 | 0.1 | 0.0 | 2 | **0.27±0.01** | 0.27±0.36 | +0.0 |" in text
    best = "| yacht | LocM-ProbMix 0.26±0.25 | M-ProbMix 0.27±0.01 (2 splits) | +0.2 | yes |"
    assert best in text
    # (.9 - .26) / (.25 / sqrt(20)) is 11.4, (.3 - .26) / ... is .7.
    worse = "| yacht | LocM-ProbMix | NLL | 1 | 0.26 | +13.2 | 2 | no early stop +11.4; full batch"
    assert f"{worse} +0.7 | full batch |" in text
    assert "1 of the 1 tables run. yacht: ERM 1.00, M-ProbMix 0.27, best other ERM 1.00 |" in text


def test_a_table_has_one_row_for_each_dict():
    assert table([{"a": 1, "b": "x"}]) == "| a | b |\n|---|---|\n| 1 | x |"


def test_no_import_circle():
    """Whatever a file of the benchmarks imports, at the top or inside a function, lies below it."""
    root = Path(benchmarks.__file__).parent.parent
    imports = {}
    for path in Path(benchmarks.__file__).parent.rglob("*.py"):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        sources = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        imports[name] = {node.module for node in sources if node.module.startswith("benchmarks.")}
    order = [*TopologicalSorter(imports).static_order()]
    assert order.index("benchmarks.runs") < order.index("benchmarks.peers.__main__")
