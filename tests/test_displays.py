"""What is drawn, compared with a computation of its own; no pixels."""

import sys
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors, pyplot
from matplotlib.collections import PathCollection
from numpy.testing import assert_allclose, assert_array_equal
from one_network import ONE_NETWORK
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor
from sklearn_probmix.compound import HurdleComponents
from sklearn_probmix.displays import (
    MarginalDisplay,
    PITDisplay,
    PredictiveDensityDisplay,
    PredictiveIntervalDisplay,
    ReliabilityDisplay,
)
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.loaders import nearest_neighbors
from sklearn_probmix.metrics import coverage, pit_values
from sklearn_probmix.scipy_components import scipy_components
from sklearn_probmix.training_displays import MixingGraphDisplay, TrainingHistoryDisplay

matplotlib.use("Agg")

OF_PREDICTIONS = [
    PredictiveIntervalDisplay,
    ReliabilityDisplay,
    PITDisplay,
    MarginalDisplay,
    PredictiveDensityDisplay,
]
OF_REGRESSORS = [display for display in OF_PREDICTIONS if display is not ReliabilityDisplay]
TINY = ONE_NETWORK | {"hidden_layer_sizes": (16,), "max_epochs": 5, "random_state": 0}
KIND = ONE_NETWORK["method"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def table():
    X = np.random.default_rng(0).normal(size=(60, 3))
    return X, X[:, 0] + np.sin(X[:, 1])


@pytest.fixture(scope="module")
def regressor(table):
    return ProbMixupRegressor(
        **(TINY | {"method": KIND.updated(method="probmix"), "n_neighbors": 3})
    ).fit(*table)


@pytest.fixture(scope="module")
def classifier():
    X, y = load_iris(return_X_y=True, as_frame=True)
    return ProbMixupClassifier(**TINY).fit(X, y.map({0: "a", 1: "b", 2: "c"}))


def normal_rows(n, outputs=None, components=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, components) if outputs is None else (n, components, outputs)
    params = {"loc": rng.normal(size=shape), "scale": rng.uniform(0.5, 2, size=shape)}
    dist = PredictiveDistribution("norm", params)
    return dist.rvs(random_state=seed), dist


def marginal(dist, output):
    params = {key: value[:, :, output] for key, value in dist.params.items()}
    return PredictiveDistribution(dist.name, params, weights=dist.weights)


def polygon_edges(band):
    """Return x, lower and upper of a fill_between."""
    (path,) = band.get_paths()
    n = (len(path.vertices) - 3) // 2
    lower, upper = path.vertices[1 : n + 1], path.vertices[n + 2 : 2 * n + 2][::-1]
    return lower[:, 0], lower[:, 1], upper[:, 1]


def bars_of(lines):
    """Return x, lower and upper of vertical lines."""
    segments = np.array(lines.get_segments())
    return segments[:, 0, 0], segments[:, 0, 1], segments[:, 1, 1]


# What all displays have in common


@pytest.mark.parametrize("display_class", OF_PREDICTIONS)
def test_contract(display_class, regressor, table):
    X, y = table
    display = display_class.from_estimator(regressor, X, y)
    assert display.ax_.figure is display.figure_
    assert display.ax_.get_xlabel()
    assert display.ax_.get_ylabel()
    same = display_class.from_predictions(y, regressor.predict_proba(X))
    for key, value in vars(display).items():
        if not key.endswith("_"):
            np.testing.assert_equal(vars(same)[key], value)
    _, ax = pyplot.subplots()
    assert display.plot(ax) is display
    assert display.ax_ is ax
    assert display_class.from_predictions(y, regressor.predict_proba(X), ax=ax).ax_ is ax


@pytest.mark.parametrize("display_class", OF_PREDICTIONS)
@pytest.mark.parametrize("n_rows", [1, 2, 10_000])
def test_one_row_or_many(display_class, n_rows):
    y, dist = normal_rows(n_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display = display_class.from_predictions(y, dist)
        display.figure_.canvas.draw()
    artists = [*display.ax_.collections, *display.ax_.lines, *display.ax_.patches]
    vertices = [len(path.vertices) for c in display.ax_.collections for path in c.get_paths()]
    assert len(artists) < 50
    assert max(vertices, default=0) < 1000


@pytest.mark.parametrize("display_class", OF_PREDICTIONS)
def test_output_chooses_the_marginal(display_class):
    y, dist = normal_rows(30, outputs=3)
    chosen = display_class.from_predictions(y, dist, output=2)
    alone = display_class.from_predictions(y[:, 2], marginal(dist, 2))
    for key, value in vars(alone).items():
        if not key.endswith("_") and key != "names":
            np.testing.assert_equal(vars(chosen)[key], value)
    with pytest.raises(ValueError, match="output=3, but y.* 3 outputs.*choose.*0 to 2"):
        display_class.from_predictions(y, dist, output=3)


@pytest.mark.parametrize("display_class", OF_REGRESSORS)
def test_several_outputs_and_none_chosen(display_class):
    y, dist = normal_rows(30, outputs=3)
    with pytest.raises(ValueError, match="output=None, but y has 3 outputs; choose"):
        display_class.from_predictions(y, dist)
    one = display_class.from_predictions(y[:, :1], normal_rows(30, outputs=1)[1])
    assert one.ax_.has_data()


@pytest.mark.parametrize("display_class", OF_PREDICTIONS)
def test_wrong_data_say_which(display_class, regressor, table):
    X, y = table
    dist = regressor.predict_proba(X)
    with pytest.raises(ValueError, match=r"y_true has shape \(59,\), but y_pred has shape \(60,\)"):
        display_class.from_predictions(y[:-1], dist)
    with pytest.raises(ValueError, match=r"y_true has shape \(60,\), but y_pred has shape \(59,\)"):
        display_class.from_estimator(regressor, X[:-1], y)
    with pytest.raises(ValueError, match="y_true contains NaN"):
        display_class.from_predictions(np.where(y > 1, np.nan, y), dist)
    with pytest.raises(ValueError, match="X contains infinity"):
        display_class.from_estimator(regressor, np.where(X > 1, np.inf, X), y)
    with pytest.raises(TypeError, match=f"{display_class.__name__}.* got ndarray"):
        display_class.from_predictions(y, regressor.predict(X))
    with pytest.raises(NotFittedError, match="ProbMixupRegressor instance is not fitted"):
        display_class.from_estimator(clone(regressor), X, y)
    with pytest.raises(TypeError, match="LinearRegression has none"):
        display_class.from_estimator(LinearRegression().fit(X, y), X, y)


@pytest.mark.parametrize("display_class", OF_REGRESSORS)
def test_a_classifier_where_a_regressor_is_meant(display_class, classifier):
    X, y = load_iris(return_X_y=True, as_frame=True)
    with pytest.raises(
        TypeError, match=f"{display_class.__name__} is for regressors, got ProbMixu"
    ):
        display_class.from_estimator(classifier, X, y)
    with pytest.raises(TypeError, match="must be a PredictiveDistribution, got ndarray"):
        display_class.from_predictions(y, classifier.predict_proba(X))


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="PITDisplay needs matplotlib: pip install matplotlib"):
        PITDisplay.from_predictions([0.0], stats.norm(0, 1))


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("display_class", OF_PREDICTIONS)
def test_every_colour_stands_out_from_the_background(display_class, style):
    y, dist = normal_rows(50)
    with pyplot.style.context(style):
        display = display_class.from_predictions(y, dist)
    behind = luminance(display.ax_.get_facecolor())
    lines = [line.get_color() for line in display.ax_.lines]
    dots = [c.get_facecolor()[0] for c in display.ax_.collections if isinstance(c, PathCollection)]
    for color in [*lines, *dots]:
        lighter, darker = sorted([behind, luminance(color)], reverse=True)
        # WCAG 2.1 asks for 3:1 in graphics.
        assert (lighter + 0.05) / (darker + 0.05) > 3


def luminance(color):
    rgb = np.array(colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


# Intervals


def test_intervals_in_order_of_prediction():
    y, dist = normal_rows(40)
    display = PredictiveIntervalDisplay.from_predictions(y, dist, levels=[0.8, 0.3])
    order = np.argsort(dist.mean())
    for band, level in zip(display.bands_, [0.8, 0.3], strict=True):
        x, lower, upper = polygon_edges(band)
        assert_array_equal(x, np.arange(40))
        assert_allclose([lower, upper], np.array(dist.interval(level))[:, order], rtol=1e-9)
    assert_allclose(display.line_.get_ydata(), np.sort(dist.mean()))
    low, high = dist.interval(0.8)
    is_inside = ((low <= y) & (y <= high))[order]
    for points, where in [(display.inside_, is_inside), (display.outside_, ~is_inside)]:
        assert_allclose(points.get_offsets(), np.c_[np.arange(40), y[order]][where])
    assert_allclose(display.inside, [coverage(y, dist, level=q) for q in (0.3, 0.8)])
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert f"80 % interval holds {100 * is_inside.mean():.1f} %" in labels


def test_intervals_along_a_feature():
    y, dist = normal_rows(40)
    x = np.random.default_rng(1).normal(size=40)
    display = PredictiveIntervalDisplay.from_predictions(y, dist, x=x, x_label="age", max_rows=10)
    order = np.argsort(x)[np.arange(0, 40, 39 / 9).round().astype(int)]
    assert_array_equal(display.rows, order)
    assert display.line_ is None
    at, lower, upper = bars_of(display.bands_[0])
    assert_allclose(at, x[order])
    assert_allclose([lower, upper], np.array(dist.interval(0.9))[:, order], rtol=1e-9)
    assert display.ax_.get_xlabel() == "age"
    band = PredictiveIntervalDisplay.from_predictions(y, dist, x=x, kind="band")
    assert_allclose(polygon_edges(band.bands_[0])[0], np.sort(x))


def test_feature_is_read_from_the_table(regressor, table):
    X, y = table
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    by_name = PredictiveIntervalDisplay.from_estimator(
        clone(regressor).fit(frame, y), frame, y, feature="b"
    )
    assert_allclose(by_name.x, np.sort(X[:, 1]))
    assert (by_name.x_label, by_name.kind) == ("b", "bars")
    by_index = PredictiveIntervalDisplay.from_estimator(regressor, X, y, feature=1)
    assert (by_index.x_label, by_index.kind) == ("feature 1", "bars")
    assert_allclose(by_index.x, by_name.x)
    single = make_pipeline(StandardScaler(), clone(regressor)).fit(X[:, :1], y)
    display = PredictiveIntervalDisplay.from_estimator(single, X[:, :1], y, feature=0)
    assert display.kind == "band"


@pytest.mark.parametrize("dist", [stats.poisson([0.1, 1, 5, 80]), stats.norm([0, 1, 5, 80], 2)])
def test_share_inside_is_the_coverage(dist):
    levels = np.linspace(0.05, 0.95, 7)
    y = dist.rvs(size=(200, 4), random_state=0).ravel()
    rows = type(dist)(dist.dist, *(np.tile(a, 200) if np.ndim(a) else a for a in dist.args))
    display = PredictiveIntervalDisplay.from_predictions(y, rows, levels=levels)
    assert_allclose(display.inside, [coverage(y, rows, level=level) for level in levels])


def test_share_inside_where_levels_are_reached_at_values():
    masses = np.tile([0.25, 0.5, 0.25], (3, 1, 1))
    dist, y = PredictiveDistribution(LatticeComponents([0.0, 1.0, 2.0], masses)), [0.0, 1.0, 2.0]
    display = PredictiveIntervalDisplay.from_predictions(y, dist, levels=[0.5])
    assert display.inside == coverage(y, dist, level=0.5)
    even = stats.uniform(0, 1)
    display = PredictiveIntervalDisplay.from_predictions([0.25, 0.75, 0.875], even, levels=[0.5])
    assert display.inside == coverage([0.25, 0.75, 0.875], even, level=0.5)


def test_wrong_options_of_intervals():
    y, dist = normal_rows(5)
    with pytest.raises(ValueError, match="kind must be 'band' or 'bars', got 'line'"):
        PredictiveIntervalDisplay.from_predictions(y, dist, kind="line")
    with pytest.raises(ValueError, match="inconsistent"):
        PredictiveIntervalDisplay.from_predictions(y, dist, x=[1, 2])
    with pytest.raises(ValueError, match="x contains NaN"):
        PredictiveIntervalDisplay.from_predictions(y, dist, x=[1, 2, np.nan, 4, 5])


# Reliability


def test_coverage_against_level():
    y, dist = normal_rows(200, outputs=2)
    display = ReliabilityDisplay.from_predictions(y, dist, name="net")
    levels = np.arange(1, 20) / 20
    for output, line in enumerate(display.lines_):
        one = marginal(dist, output)
        assert_allclose(line.get_xdata(), levels)
        inside = [coverage(y[:, output], one, level=level) for level in levels]
        assert_allclose(line.get_ydata(), inside)
        assert line.get_label() == f"net, output {output}"
    (band,) = display.bands_
    _, lower, upper = polygon_edges(band)
    for k, level in enumerate(levels):
        # The smallest counts that are reached with probability 2.5 % and 97.5 %.
        cumulative = np.cumsum(stats.binom.pmf(np.arange(201), 200, level))
        expected = [np.argmax(cumulative >= q - 1e-12) / 200 for q in (0.025, 0.975)]
        assert_allclose([lower[k], upper[k]], expected)


def test_chance_allows_what_its_band_says():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(60):
        display = ReliabilityDisplay.from_predictions(
            rng.normal(size=300), stats.norm(0, 1), levels=[0.3, 0.9], ax=pyplot.gca()
        )
        inside.append(
            (display.lower[0] <= display.observed[0]) & (display.observed[0] <= display.upper[0])
        )
        pyplot.clf()
    assert 0.9 < np.mean(inside) <= 1


def test_frequency_against_probability(classifier):
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = y.map({0: "a", 1: "b", 2: "c"})
    display = ReliabilityDisplay.from_estimator(classifier, X, y, n_bins=4)
    proba = classifier.predict_proba(X)
    assert display.names == ["class a", "class b", "class c"]
    assert len(display.bands_) == 3
    for k, label in enumerate("abc"):
        rows = pd.DataFrame({"p": proba[:, k], "hit": y == label})
        bins = rows.groupby(np.floor(rows["p"] * 4).clip(upper=3)).agg(["mean", "size"])
        assert_allclose(display.lines_[k].get_xdata(), bins["p", "mean"])
        assert_allclose(display.lines_[k].get_ydata(), bins["hit", "mean"])
        n = bins["p", "size"]
        _, lower, upper = bars_of(display.bands_[k])
        assert_allclose(lower, stats.binom.ppf(0.025, n, bins["p", "mean"]) / n)
        assert_allclose(upper, stats.binom.ppf(0.975, n, bins["p", "mean"]) / n)
    one = ReliabilityDisplay.from_estimator(classifier, X, y, n_bins=4, output=1)
    assert_array_equal(one.observed, display.observed[1:2])


def test_two_classes_show_the_second():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.0, 1.0]])
    display = ReliabilityDisplay.from_predictions(["no", "yes", "yes", "yes"], proba, n_bins=2)
    assert display.names == ["class yes"]
    assert_allclose(display.nominal, [[0.15, 0.95]])
    assert_allclose(display.observed, [[0.5, 1.0]])
    X, y = load_iris(return_X_y=True)
    other = LogisticRegression().fit(X, y > 0)
    assert ReliabilityDisplay.from_estimator(other, X, y > 0).names == ["class True"]


def test_models_are_compared_on_one_axes():
    y, dist = normal_rows(50)
    first = ReliabilityDisplay.from_predictions(y, dist, name="first")
    second = ReliabilityDisplay.from_predictions(y, stats.norm(0, 1), name="second", ax=first.ax_)
    labels = [text.get_text() for text in second.ax_.get_legend().get_texts()]
    assert sorted(labels) == ["95 % by chance", "first", "perfect", "second"]
    assert (len(first.bands_), second.bands_) == (1, [])
    assert first.lines_[0].get_color() != second.lines_[0].get_color()


def test_wrong_probabilities_say_which():
    with pytest.raises(ValueError, match="expected probabilities, between 0 and 1"):
        ReliabilityDisplay.from_predictions([0, 1], [[2.0, -1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="y_proba contains NaN"):
        ReliabilityDisplay.from_predictions([0, 1], [[np.nan, 1.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="inconsistent numbers"):
        ReliabilityDisplay.from_predictions([0, 1, 1], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="7 outputs or classes; choose one"):
        ReliabilityDisplay.from_predictions(range(7), np.full((7, 7), 1 / 7))


# PIT


@pytest.mark.parametrize("n_bins", [5, 10])
def test_pit_histogram(n_bins):
    y, dist = normal_rows(300)
    display = PITDisplay.from_predictions(y, dist, n_bins=n_bins)
    u = dist.cdf(y)
    share = [np.mean((k / n_bins <= u) & (u < (k + 1) / n_bins)) for k in range(n_bins)]
    assert_allclose([bar.get_height() for bar in display.bars_], np.multiply(share, n_bins))
    assert_allclose([bar.get_x() for bar in display.bars_], np.arange(n_bins) / n_bins, atol=1e-12)
    counts = stats.binom(300, 1 / n_bins).ppf([0.025, 0.975])
    box = display.band_.get_extents().transformed(display.ax_.transData.inverted())
    assert_allclose([box.y0, box.y1], counts * n_bins / 300)


def test_pit_of_counts_is_shared_among_bins():
    rng = np.random.default_rng(0)
    rate = rng.uniform(0.2, 3, size=4000)
    y = rng.poisson(rate)
    display = PITDisplay.from_predictions(y, stats.poisson(rate))
    assert_allclose(display.density, 1, atol=0.1)
    # The mean of many randomised histograms.
    values = [pit_values(y, stats.poisson(rate), random_state=seed) for seed in range(50)]
    assert_allclose(display.density, np.histogram(values, 10, (0, 1), density=True)[0], atol=0.01)


def test_pit_of_values_off_the_support():
    display = PITDisplay.from_predictions([-1.0, 2.0], stats.uniform(0, 1), n_bins=4)
    assert_allclose(display.density, [2, 0, 0, 2])


# Densities


def test_densities_of_rows():
    y, dist = normal_rows(20)
    display = PredictiveDensityDisplay.from_predictions(y, dist, rows=[3, -1])
    assert_array_equal(display.rows, [3, 19])
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["3", "19"]
    for bottom, row in enumerate([3, 19]):
        x, lower, upper = polygon_edges(display.curves_[bottom])
        density = dist[row].pdf(x[:, None])[:, 0]
        assert_allclose(lower, bottom)
        assert_allclose(upper - bottom, 0.85 * density / density.max())
        assert_allclose(x[[0, -1]], dist[row].ppf([0.001, 0.999])[:, 0])
        # The grid misses nothing: the trapezoidal rule gives the probability between its ends.
        assert_allclose(np.trapezoid(density, x), 0.998, atol=2e-3)
    assert_allclose(bars_of(display.truth_)[0], y[[3, 19]])


def test_rows_of_densities_are_spread_over_the_predictions():
    y, dist = normal_rows(1000)
    display = PredictiveDensityDisplay.from_predictions(y, dist, max_rows=5)
    order = np.argsort(dist.mean())
    assert_array_equal(display.rows, order[[0, 250, 500, 749, 999]])


def test_a_narrow_component_is_seen():
    dist = PredictiveDistribution("norm", {"loc": [[0.0, 3.0]], "scale": [[1.0, 1e-4]]})
    display = PredictiveDensityDisplay.from_predictions([0.0], dist)
    assert_allclose(display.outlines[0].density.max(), dist.pdf([3.0])[0], rtol=0.05)


def test_counts_have_bars_and_many_a_curve():
    display = PredictiveDensityDisplay.from_predictions([1, 3000], stats.poisson([2, 3000]))
    few, none = display.bars_
    mass = stats.poisson(2).pmf(np.arange(len(few)))
    assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in few], np.arange(len(few)))
    assert_allclose([bar.get_height() for bar in few], 0.85 * mass / mass.max())
    assert none is display.curves_[0] is None
    many = display.outlines[1]
    # Cells of four to five counts each.
    assert_allclose(many.density, stats.norm.pdf(many.x, 2999.5, 3000**0.5), rtol=0.1)
    certain = PredictiveDensityDisplay.from_predictions([0], stats.poisson([0.0]))
    assert_allclose([bar.get_height() for bar in certain.bars_[0]], 0.85)


def test_a_hurdle_has_one_bar_beside_its_density():
    gamma = {"a": [[3.0], [3.0]], "scale": [[2.0], [2.0]]}
    hurdle = HurdleComponents([[0.2], [0.6]], scipy_components("gamma", gamma))
    display = PredictiveDensityDisplay.from_predictions([0, 1], PredictiveDistribution(hurdle))
    for share, outline, (bar,) in zip((0.2, 0.6), display.outlines, display.bars_, strict=True):
        assert_allclose([outline.atoms, outline.mass], [[0], [1 - share]])
        assert_allclose(
            outline.density, share * stats.gamma.pdf(outline.x, 3, scale=2), atol=share * 1e-3
        )
        # Bar and curve are to one another as their probabilities.
        curve, bars = outline.heights()
        assert_allclose(bars[0] / curve.max(), (1 - share) / share)
        assert_allclose(bar.get_height(), 0.85 * bars[0])


def test_masses_on_a_lattice_are_to_scale_with_a_density_beside():
    values, masses = np.arange(7.0), stats.binom.pmf(np.arange(7), 6, 0.5)
    lattice = PredictiveDistribution(LatticeComponents(values, masses[None, None]))
    normal = PredictiveDistribution("norm", {"loc": [[3.0]], "scale": [[1.5**0.5]]})
    both = PredictiveDistribution.mix([lattice, normal])
    (outline,) = PredictiveDensityDisplay.from_predictions([3], both).outlines
    assert_allclose(outline.mass, masses[outline.atoms.astype(int)] / 2)
    assert_allclose(outline.density, stats.norm.pdf(outline.x, 3, 1.5**0.5) / 2, rtol=2e-2)
    # A binomial of spacing 1 and the Normal of its moments are about as high.
    curve, bars = outline.heights()
    assert_allclose([curve.max(), bars.max()], 1, atol=0.05)


@pytest.mark.parametrize(
    ("mu", "share"),
    [
        (3.0, 0.5),  # a few counts, far below the density
        (3.0, 0.0),  # as of a member that a stack needs not
        (500.0, 0.5),  # more than there are bars
    ],
)
def test_a_wide_density_beside_counts_is_drawn_whole(mu, share):
    counts = PredictiveDistribution("poisson", {"mu": [[mu]]})
    normal = PredictiveDistribution("norm", {"loc": [[5000.0]], "scale": [[1000.0]]})
    both = PredictiveDistribution.mix([counts, normal], [share, 1 - share])
    (outline,) = PredictiveDensityDisplay.from_predictions([3], both).outlines
    seen = stats.poisson(mu).pmf(outline.atoms)
    assert_allclose(outline.mass, share * seen)
    assert_allclose(seen.sum(), 1.0 if share and mu < 100 else 0.0, atol=2e-3)
    # Cells are 80 wide, and those of the counts have their mass where it has no bars.
    is_far = outline.x > 1000
    expected = (1 - share) * stats.norm.pdf(outline.x, 5000, 1000)
    assert_allclose(outline.density[is_far], expected[is_far], rtol=0.02)
    assert 7500 < outline.x.max() < 8200
    area = outline.density.sum() * np.diff(outline.x).mean()
    assert_allclose(area + outline.mass.sum(), 0.998, atol=5e-3)


def test_values_of_a_long_lattice_are_not_skipped():
    values = np.arange(2000) / 10
    masses = np.exp(-0.5 * ((values - 80) / 0.5) ** 2)
    dist = PredictiveDistribution(LatticeComponents(values, masses[None, None] / masses.sum()))
    (outline,) = PredictiveDensityDisplay.from_predictions([80], dist).outlines
    assert_allclose(np.diff(outline.atoms), 0.1)
    assert outline.mass.sum() > 0.998


def test_an_infinite_density_is_drawn():
    display = PredictiveDensityDisplay.from_predictions([0.5], stats.gamma([1e-4]))
    assert np.isinf(display.outlines[0].density).any()
    _, _, upper = polygon_edges(display.curves_[0])
    assert upper.max() == 0.85


# Response beside prediction


def test_histograms_of_counts_are_those_of_the_values():
    y = np.repeat([0.0, 1, 2, 3], [40, 30, 20, 10])
    display = MarginalDisplay.from_predictions(y, stats.poisson(np.r_[np.zeros(50), np.ones(50)]))
    assert_array_equal(display.edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
    assert_allclose(display.observed, [0.4, 0.3, 0.2, 0.1])
    mass = (stats.poisson.pmf(range(4), 1) + np.eye(4)[0]) / 2
    assert_allclose(display.predicted, mass)
    assert_allclose(display.steps_.get_data().values, mass)
    assert_allclose([bar.get_height() for bar in display.bars_], display.observed)
    assert_allclose(
        bars_of(display.band_)[1:], stats.binom.ppf([[0.025], [0.975]], 100, mass) / 100
    )


def right_predictions(name, n=3000):
    ones = np.ones((n, 1))
    return {
        "normal": lambda: PredictiveDistribution("norm", {"loc": 0 * ones, "scale": ones}),
        "heavy tails": lambda: PredictiveDistribution("t", {"df": 2 * ones}),
        "counts": lambda: PredictiveDistribution("poisson", {"mu": 2e3 * ones}),
        "heap": lambda: PredictiveDistribution(
            HurdleComponents(0.3 * ones, scipy_components("gamma", {"a": ones}))
        ),
        "steps": lambda: PredictiveDistribution(
            LatticeComponents([0, 0.5, 0.7, 2], ones[:, None] * [0.1, 0.2, 0.3, 0.4])
        ),
    }[name]()


@pytest.mark.parametrize("name", ["normal", "heavy tails", "counts", "heap", "steps"])
def test_histograms_of_right_predictions_agree_up_to_chance(name):
    dist = right_predictions(name)
    y = dist.rvs(random_state=0)
    display = MarginalDisplay.from_predictions(y, dist)
    assert 0.98 < display.observed.sum() <= 1 + 1e-12
    assert_allclose(display.predicted.sum(), display.observed.sum(), atol=0.02)
    inside = (display.lower <= display.observed) & (display.observed <= display.upper)
    assert inside.mean() > 0.85
    assert 4 <= len(display.edges) < 50


def test_number_of_bins_is_kept():
    y, dist = normal_rows(500)
    display = MarginalDisplay.from_predictions(y, dist, n_bins=7)
    # The ends of the range are in the middle of theirs.
    assert len(display.observed) == 8


# History


def test_history_of_one_network(regressor, table):
    display = TrainingHistoryDisplay.from_estimator(regressor)
    history = pd.DataFrame(regressor.history_)
    (train,), (valid,), (best,) = display.train_lines_, display.valid_lines_, display.best_points_
    assert_array_equal(train.get_xdata(), [1, 2, 3, 4, 5])
    assert_array_equal(train.get_ydata(), history["train_loss"])
    assert_array_equal(valid.get_ydata(), history["valid_loss"])
    assert_array_equal(best.get_xdata(), [regressor.best_epoch_])
    assert_array_equal(best.get_ydata(), history["valid_loss"][[regressor.best_epoch_ - 1]])
    assert valid.get_label() == "probmix, validation"


def test_history_of_kinds_members_and_without_validation(table):
    X, y = table
    est = ProbMixupRegressor(
        **(
            TINY
            | {
                "method": [KIND.updated(method="erm"), KIND.updated(method="probmix", alpha=0.4)],
                "n_members": 3,
                "validation": "cv",
            }
        )
    )
    est.fit(X, y)
    display = TrainingHistoryDisplay.from_estimator(est)
    assert display.names == ["erm", "probmix"]
    for kind in range(2):
        best = np.unique(est.best_epoch_[kind])
        losses = [e["valid_loss"] for e in est.history_ if e["kind"] == kind]
        drawn = display.best_points_[kind]
        assert_allclose(np.c_[drawn.get_data()], np.c_[best, np.array(losses)[best - 1]])
    named = TrainingHistoryDisplay.from_estimator(est, names=["one", "two"])
    assert named.valid_lines_[1].get_label() == "two, validation"
    with pytest.raises(ValueError, match="names holds 1 for 2 kinds"):
        TrainingHistoryDisplay.from_estimator(est, names=["one"])
    whole = ProbMixupRegressor(**(TINY | {"validation": None})).fit(X, y)
    display = TrainingHistoryDisplay.from_estimator(whole)
    assert np.isnan(display.valid_loss[0]).all()
    assert_array_equal(display.best_points_[0].get_ydata(), [whole.history_[-1]["train_loss"]])


def test_history_in_pipelines_and_searches(regressor, table):
    pipeline = make_pipeline(StandardScaler(), clone(regressor))
    search = GridSearchCV(pipeline, {"probmixupregressor__alpha": [0.1]}, cv=2).fit(*table)
    display = TrainingHistoryDisplay.from_estimator(search)
    assert len(display.epochs[0]) == 5
    graph = MixingGraphDisplay.from_estimator(search, *table)
    expected = MixingGraphDisplay.from_estimator(regressor, *table)
    assert_array_equal(graph.edges, expected.edges)


@pytest.mark.parametrize("display_class", [TrainingHistoryDisplay, MixingGraphDisplay])
def test_displays_of_training_refuse_what_was_not_trained(display_class, regressor, table):
    data = table if display_class is MixingGraphDisplay else ()
    with pytest.raises(NotFittedError, match="not fitted"):
        display_class.from_estimator(clone(regressor), *data)
    other = KNeighborsRegressor().fit(*table)
    with pytest.raises(TypeError, match=f"{display_class.__name__}.*KNeighborsRegressor has no"):
        display_class.from_estimator(other, *data)


# Mixing


def test_neighbours_are_those_of_the_loader(regressor, table):
    X, y = table
    display = MixingGraphDisplay.from_estimator(regressor, X, y)
    neighbors = nearest_neighbors(X, 3)
    expected = {(i, int(j)) for i in range(len(X)) for j in neighbors[i]}
    assert {tuple(map(int, edge)) for edge in display.edges} == expected
    segments = np.array(display.edges_.get_segments())
    assert_allclose(segments, display.points[display.edges])
    assert_allclose(display.joined_.get_offsets(), display.points)
    assert_allclose(display.joined_.get_array(), y)
    # Principal components keep the distances of what they keep, and the larger part of them.
    standard = StandardScaler().fit_transform(X)
    spread = np.linalg.svd(standard, compute_uv=False)[:2]
    assert_allclose(np.linalg.norm(display.points, axis=0), spread)


def test_duplicates_are_not_their_own_neighbours():
    display = MixingGraphDisplay.from_data(np.zeros((6, 2)), n_neighbors=2)
    assert len(display.edges) == 12
    assert (display.edges[:, 0] != display.edges[:, 1]).all()


def test_random_pairs_are_of_different_rows(table):
    X, _ = table
    display = MixingGraphDisplay.from_data(X)
    assert len(display.edges) == 30
    assert len(np.unique(display.edges)) == 60
    other = MixingGraphDisplay.from_data(X, random_state=1)
    assert (other.edges != display.edges).any()


@pytest.mark.parametrize(("n_neighbors", "n_edges"), [(None, 75), (5, 300)])
def test_large_graphs_are_thinned(n_neighbors, n_edges):
    X = np.random.default_rng(0).normal(size=(10_000, 4))
    display = MixingGraphDisplay.from_data(X, X[:, 0], n_neighbors=n_neighbors)
    assert len(display.edges_.get_segments()) == n_edges
    assert len(display.others_.get_offsets()) <= 500
    fewer = MixingGraphDisplay.from_data(X, n_neighbors=n_neighbors, max_edges=10)
    assert len(fewer.edges) == 10


def test_planes(table):
    X, y = table
    columns = pd.DataFrame(X, columns=["a", "b", "c"])
    named = MixingGraphDisplay.from_data(columns, features=["c", "a"])
    assert_allclose(named.points, X[:, [2, 0]])
    assert named.axis_labels == ("c", "a")
    one = MixingGraphDisplay.from_data(X[:, :1], y)
    assert_allclose(one.points, np.c_[X[:, 0], y])
    assert MixingGraphDisplay.from_data(columns[["b", "c"]]).axis_labels == ("b", "c")
    labels = np.where(y > 0, "up", "down")
    classes = MixingGraphDisplay.from_data(X[:, :1], labels)
    assert_array_equal(np.unique(classes.points[:, 1]), [0, 1])
    *_, bar = classes.figure_.axes
    assert [text.get_text() for text in bar.get_yticklabels()] == ["down", "up"]


def test_wrong_options_of_the_graph(regressor, table):
    X, y = table
    with pytest.raises(ValueError, match="one feature: y is needed"):
        MixingGraphDisplay.from_data(X[:, :1])
    with pytest.raises(ValueError, match="one or two columns, got 3"):
        MixingGraphDisplay.from_data(X, features=[0, 1, 2])
    for n_neighbors in (0, 60):
        with pytest.raises(ValueError, match=f"n_neighbors={n_neighbors} for 60 rows"):
            MixingGraphDisplay.from_data(X, n_neighbors=n_neighbors)
    with pytest.raises(ValueError, match="y has 2 outputs; choose"):
        MixingGraphDisplay.from_data(X, np.c_[y, y])
    assert_allclose(MixingGraphDisplay.from_data(X, np.c_[y, 2 * y], output=1).y, 2 * y)
    with pytest.raises(ValueError, match="inconsistent"):
        MixingGraphDisplay.from_data(X, y[:-1])
    with pytest.raises(ValueError, match="X contains NaN"):
        MixingGraphDisplay.from_data(np.where(X > 1, np.nan, X))
    plain = ProbMixupRegressor(**(TINY | {"method": "erm"})).fit(X, y)
    with pytest.raises(ValueError, match=r"kinds_=\[Kind\(.*no rows are mixed"):
        MixingGraphDisplay.from_estimator(plain, X, y)


@pytest.fixture(scope="module")
def several_kinds():
    X = np.random.default_rng(0).normal(size=(40, 2))
    kinds = [
        Kind("erm"),
        Kind("probmix", n_neighbors=2),
        Kind("mixup", n_neighbors=3),
        Kind("mixup", alpha=0.0),
    ]
    est = ProbMixupRegressor(method=kinds, n_members=1, max_epochs=1, random_state=0)
    return est.fit(X, X[:, 0]), X


class TestMixingGraphOfSeveralKinds:
    @pytest.mark.parametrize(("kind", "n_neighbors"), [(None, 2), (1, 2), (2, 3)])
    def test_a_kind_is_drawn_by_its_own_neighbours(self, several_kinds, kind, n_neighbors):
        est, X = several_kinds
        edges = MixingGraphDisplay.from_estimator(est, X, kind=kind).edges
        assert set(np.bincount(edges[:, 0])) == {n_neighbors}

    def test_what_the_estimator_sets_holds_for_every_kind(self, several_kinds):
        est, X = several_kinds
        est = clone(est).set_params(n_neighbors=7).fit(X, X[:, 0])
        edges = MixingGraphDisplay.from_estimator(est, X, kind=1).edges
        assert set(np.bincount(edges[:, 0])) == {7}

    @pytest.mark.parametrize("kind", [0, 3, 4])
    def test_of_a_kind_that_does_not_mix(self, several_kinds, kind):
        est, X = several_kinds
        with pytest.raises(ValueError, match=rf"kind={kind}.*no rows are mixed.*\[1, 2\]"):
            MixingGraphDisplay.from_estimator(est, X, kind=kind)
