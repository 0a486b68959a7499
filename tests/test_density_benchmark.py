"""The density benchmark: its splits, its scores on a grid and without, and what it reports."""

import gzip

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.density import __main__ as command
from benchmarks.density.published import PUBLISHED
from benchmarks.density.report import SCORES, against, beside_published, without_grid
from benchmarks.density.scores import cde_loss, densities_on, grid_of, grid_scores, whole_scores
from benchmarks.density.study import jobs
from benchmarks.density.tables import SETS, read_set, split_of
from benchmarks.flat import defaults
from benchmarks.runs import key
from sklearn_probmix import PredictiveDistribution, ProbMixupRegressor

MIXTURE = [(0.2, -3.0, 0.1), (0.3, 0.0, 1.0), (0.5, 3.0, 2.0)]


def mixture_density(t):
    return sum(weight * stats.norm.pdf(t, loc, scale) for weight, loc, scale in MIXTURE)


def mixture(n=1):
    weights, loc, scale = (np.tile(each, (n, 1)) for each in zip(*MIXTURE, strict=True))
    return PredictiveDistribution("norm", {"loc": loc, "scale": scale}, weights=weights)


@pytest.mark.parametrize(
    ("dist", "density"),
    [
        (PredictiveDistribution("norm", {"loc": [[0.0]], "scale": [[2.0]]}), stats.norm(0, 2).pdf),
        (PredictiveDistribution("t", {"df": [[2.5]]}), stats.t(2.5).pdf),
        (mixture(), mixture_density),
    ],
)
def test_cde_loss_is_the_integral_of_the_square_less_twice_the_density(dist, density):
    square, _ = integrate.quad(lambda t: density(t) ** 2, -50, 50, points=[-3, 0, 3], limit=500)
    assert_allclose(cde_loss(np.array([1.0]), dist), square - 2 * density(1.0), atol=1e-5)


def test_scores_of_a_uniform_density_on_the_grid_by_hand():
    grid, y = np.linspace(0, 2, 201), np.array([0.5, 1.95])
    scores = grid_scores(y, np.full((2, 201), 7.0), grid)
    assert_allclose(scores["cde_loss"], 0.5 - 2 * 0.5)
    assert_allclose(scores["log_lik"], np.log(0.5))
    # Twice that of a uniform on (0, 1), 1 / 3 - u + u ** 2.
    u = y / 2
    assert_allclose(scores["crps"], 2 * np.mean(1 / 3 - u + u**2), atol=0.01)
    assert scores["coverage"] == 0.5
    # Above and below 0.25 and 0.975.
    assert_allclose(scores["pit_ks"], 0.475)


def test_beyond_the_grid_the_density_is_the_least():
    grid = np.linspace(0, 1, 11)
    scores = grid_scores(np.array([1.01]), np.ones((1, 11)), grid)
    assert_allclose([scores["log_lik"], scores["cde_loss"]], [np.log(1e-10), 1])
    assert scores["coverage"] == 0
    assert scores["pit_ks"] == 1
    # Nor is there an error where all of a density is.
    nothing = grid_scores(np.array([0.5]), np.zeros((1, 11)), grid)
    assert_allclose(nothing["log_lik"], np.log(1e-10))


def test_on_a_fine_grid_scores_are_those_without():
    rng = np.random.default_rng(0)
    y = rng.normal(3, 2, size=200)
    grid, dist = np.linspace(-12, 18, 6001), mixture(200)
    on_grid, whole = grid_scores(y, densities_on(grid, dist), grid), whole_scores(y, dist)
    assert whole["has_atoms"] == 0
    for score in SCORES:
        assert_allclose(on_grid[score], whole[score], rtol=2e-3, err_msg=score)


def test_an_atom_is_a_density_of_its_cell():
    grid = np.linspace(0, 4, 41)
    dist = PredictiveDistribution("poisson", {"mu": [[1.0]]})
    densities = densities_on(grid, dist)
    expected = np.zeros(41)
    expected[::10] = stats.poisson(1).pmf(range(5)) / 0.1
    assert_allclose(densities[0], expected, atol=1e-12)
    whole = whole_scores(np.array([2.0]), dist)
    assert whole["has_atoms"] == 1
    assert np.isnan(whole["cde_loss"])
    assert_allclose(whole["log_lik"], stats.poisson(1).logpmf(2))


def test_the_grid_reaches_a_twentieth_beyond():
    grid = grid_of(np.array([0.0, 3.0, 10.0]))
    assert len(grid) == 200
    assert_allclose(grid[[0, -1]], [-0.5, 10.5])


def test_fewer_rows_are_among_more_and_a_quarter_is_held_out():
    X, y = np.arange(100.0)[:, None], np.arange(100.0)
    few, many = split_of(X, y, 20, 0), split_of(X, y, 40, 1)
    assert [len(part) for part in (few.y_train, few.y_test)] == [15, 5]
    drawn = {*few.y_train, *few.y_test}
    assert drawn < {*many.y_train, *many.y_test}
    again = split_of(X, y, 20, 1)
    assert drawn == {*again.y_train, *again.y_test}
    assert {*few.y_test} != {*again.y_test}


@pytest.mark.parametrize(
    ("name", "n_rows", "printed"),
    [
        ("kin8nm", 5000, (-1.4117, 0.2001, 0.1120, 0.0548, 0.9125)),
        ("naval", 5000, (-53.3699, 3.8009, 0.0031, 0.0422, 0.9002)),
        ("abalone", 1000, (-0.1486, -2.1700, 1.1348, 0.1417, 0.9240)),
        ("wine", 1000, (-0.3994, -1.1113, 0.4064, 0.0863, 0.9080)),
    ],
)
def test_rows_and_scores_are_those_of_the_benchmark(uci_root, name, n_rows, printed):
    """Its linear Normal regression comes out as printed, on the same five splits."""
    root = uci_root.parent
    if not (root / SETS[name].file).exists():
        pytest.skip(f"no {SETS[name].file} in PROBMIX_DATA")
    X, y = read_set(root, name)
    rows = []
    for seed in range(5):
        X_train, X_test, y_train, y_test = split_of(X, y, n_rows, seed)
        line = make_pipeline(StandardScaler(), LinearRegression()).fit(X_train, y_train)
        scale = np.std(y_train - line.predict(X_train), ddof=X.shape[1] + 1)
        grid = grid_of(y_train)
        densities = stats.norm.pdf(grid, line.predict(X_test)[:, None], scale)
        rows.append(list(grid_scores(y_test, densities, grid).values()))
    # Its standard deviation is another estimate, by what hundreds of rows allow.
    assert_allclose(np.mean(rows, axis=0), printed, rtol=2e-3, atol=3e-3)


def test_our_copies_come_in_the_units_of_the_benchmark(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    counts, size = np.array([1, 3, 8, 20]), np.array([0.0, 0.5, 4.0, 20.999])
    season, weather = np.array([1, 2, 3, 4]), np.array([1, 1, 2, 2])
    bike = np.tile(np.arange(17.0), (4, 1))
    bike[:, 3], bike[:, 10] = season, weather
    for name, columns, y in [
        ("bike", bike, np.log(counts)),
        ("protein", np.ones((4, 9)), np.log1p(size)),
    ]:
        lines = "\n".join(
            ",".join(map(str, [*row, v - y.mean()])) for row, v in zip(columns, y, strict=True)
        )
        (tables / f"{name}.csv.gz").write_bytes(gzip.compress(lines.encode()))
    X, y = read_set(tmp_path, "bike")
    assert_allclose(y, counts)
    # Neither the date nor the riders of each sort, and the categories as indicators.
    assert_allclose(X[:, :10], np.tile([4, 5, 6, 7, 8, 9, 11, 12, 13, 14], (4, 1)))
    assert_allclose(X[:, 10:14], np.eye(4))
    assert_allclose(X[:, 14:] @ [1, 2], weather)
    assert_allclose(read_set(tmp_path, "protein")[1], size, atol=1e-12)


def test_splits_come_first_and_small_sets_have_no_large_fits():
    found = jobs(["wine", "kin8nm"], [50, 5000], 2)
    assert [(job["seed"], job["rows"], job["dataset"]) for job in found] == [
        (seed, *place)
        for seed in range(2)
        for place in [(50, "wine"), (50, "kin8nm"), (5000, "kin8nm")]
    ]


def lines_of(*fits):
    parameters = defaults(ProbMixupRegressor())
    lines = [
        {
            "settings": {"dataset": name, "rows": rows, "seed": seed, "parameters": parameters},
            "scores": scores,
        }
        for seed, (name, rows, scores) in enumerate(fits)
    ]
    return {key(line["settings"]): line for line in lines}


def scores_of(log_lik, crps):
    scores = dict.fromkeys(SCORES, 0.5) | {"log_lik": log_lik, "crps": crps}
    extra = {"has_atoms": 0.0, "seconds": 3.0}
    return scores | {f"grid_{name}": value for name, value in scores.items()} | extra


def test_the_report_averages_and_counts_where_we_are_ahead():
    results = lines_of(
        ("kin8nm", 1000, scores_of(0.7, 0.05)),
        ("kin8nm", 1000, scores_of(0.9, 0.07)),
        ("abalone", 1000, scores_of(9.0, 0.5)),
        # Too few rows to count.
        ("kin8nm", 50, scores_of(9.0, 0.01)),
    )
    said = beside_published(results).split("\n")[2:]
    assert [line.split(" | ")[:2] for line in said] == [
        ["| kin8nm", "50"],
        ["| kin8nm", "1,000"],
        ["| abalone (atoms)", "1,000"],
    ]
    assert "| 1 | 9.00 / -0.62 / -0.55 |" in said[0]
    assert "| 2 | 0.80 / 0.47 / **1.00** |" in said[1]
    assert "0.06 / 0.0819 / **0.0474**" in said[1]
    assert "**0.5** / 1.05 / 0.983" in said[2]
    assert "| 0% | 0.80 | 0.5 | 0.06 |" in without_grid(results)
    assert against(results, "crps", "scratch") == "2 of 2"
    assert against(results, "crps", "pretrained") == "1 of 2"
    assert against(results, "crps", "both") == "1 of 2"
    # A density at an atom has no bound.
    assert against(results, "log_lik", "scratch") == "1 of 1"
    with pytest.raises(ValueError, match="who='all'"):
        against(results, "crps", "all")


def test_fits_of_other_parameters_and_failed_ones_are_left_out():
    results = lines_of(("wine", 50, scores_of(0.0, 0.1)), ("wine", 50, scores_of(0.0, 0.3)))
    first, second = results.values()
    first["settings"]["parameters"] = {}
    del second["scores"]
    assert beside_published(results) == without_grid(results) == "not run"


def test_what_is_printed_is_of_our_sets():
    assert {name for name, _ in PUBLISHED} == set(SETS)
    assert all(rows <= SETS[name].n_rows for name, rows in PUBLISHED)
    for printed in PUBLISHED.values():
        better = printed["pretrained"], printed["scratch"]
        assert better[0]["log_lik"] > better[1]["log_lik"]
        assert better[0]["crps"] < better[1]["crps"]


def test_a_fit_is_told(tmp_path, capsys):
    folder = tmp_path / "uci" / "kin8nm"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.savetxt(folder / "data.txt", rng.normal(size=(60, 2)))
    (folder / "index_features.txt").write_text("0")
    (folder / "index_target.txt").write_text("1")
    path = tmp_path / "density.jsonl"
    chosen = ["--sets", "kin8nm", "--rows", "50", "--seeds", "1", "--results", str(path)]
    command.main(["fit", "--data", str(tmp_path), *chosen])
    command.main(["report", *chosen])
    assert "| kin8nm | 50 | 1 |" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) == 1
