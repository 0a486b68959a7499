import numpy as np
import pytest
from scipy import stats

from sklearn_probmix.datasets import (
    cubic_mean,
    heteroscedastic_cubic_sd,
    make_cubic,
    make_heteroscedastic_cubic,
    make_rings,
)

N = 20_000
# A Kolmogorov-Smirnov distance above this has probability below 1e-6: 2 exp(-2 n d^2).
KS_LIMIT = np.sqrt(np.log(2e6) / (2 * N))


def ks_distance(sample, cdf):
    return stats.ks_1samp(sample, cdf).statistic


def test_cubic_has_its_stated_density():
    X, y = make_cubic(N, random_state=0)
    assert X.shape == (N, 1)
    assert X.dtype == y.dtype == np.float64
    assert ks_distance(X[:, 0], stats.uniform(-4, 8).cdf) < KS_LIMIT
    assert ks_distance(y - X[:, 0] ** 3, stats.norm(0, 3).cdf) < KS_LIMIT


def test_cubic_on_another_interval_with_other_noise():
    X, y = make_cubic(N, low=4, high=6, noise_sd=0.5, random_state=0)
    assert ks_distance(X[:, 0], stats.uniform(4, 2).cdf) < KS_LIMIT
    assert ks_distance(y - X[:, 0] ** 3, stats.norm(0, 0.5).cdf) < KS_LIMIT


def test_cubic_without_noise_is_the_true_mean():
    X, y = make_cubic(noise_sd=0, random_state=0)
    np.testing.assert_array_equal(y, cubic_mean(X))


def test_heteroscedastic_cubic_has_its_stated_density():
    X, y = make_heteroscedastic_cubic(N, random_state=0)
    x = X[:, 0]
    assert ks_distance(x, stats.uniform(-5, 10).cdf) < KS_LIMIT
    z = (y - x**3) / (0.5 * x**2 + 1)
    for part in (np.abs(x) < 2, np.abs(x) >= 2):
        limit = np.sqrt(np.log(2e6) / (2 * part.sum()))
        assert ks_distance(z[part], stats.norm.cdf) < limit


def test_true_functions_at_the_points_of_section_3_2_3():
    X = [[5.0], [-5.0], [3.0]]
    np.testing.assert_array_equal(cubic_mean(X), [125, -125, 27])
    np.testing.assert_array_equal(heteroscedastic_cubic_sd(X) ** 2, [182.25, 182.25, 30.25])


@pytest.mark.parametrize("function", [cubic_mean, heteroscedastic_cubic_sd])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_true_functions_refuse_other_shapes(function, shape):
    with pytest.raises(ValueError, match=r"expected \(n_samples, 1\)"):
        function(np.zeros(shape))


def test_rings_have_their_stated_density():
    X, y = make_rings(3 * N, random_state=0)
    assert X.shape == (3 * N, 2)
    np.testing.assert_array_equal(np.bincount(y), [N, N, N])
    for label, radius in enumerate([0.5, 1.5, 2.5]):
        # |x|^2 / .09 is noncentral chi-square, whatever the angle.
        squared = (X[y == label] ** 2).sum(axis=1) / 0.09
        assert ks_distance(squared, stats.ncx2(2, radius**2 / 0.09).cdf) < KS_LIMIT
        angle = np.arctan2(*X[y == label].T)
        assert ks_distance(angle, stats.uniform(-np.pi, 2 * np.pi).cdf) < KS_LIMIT


def test_rings_without_noise_lie_on_their_circles_in_shuffled_order():
    X, y = make_rings(radii=(1.0, 2.0), noise_sd=0, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), np.array([1.0, 2.0])[y])
    assert (np.diff(y) == 0).any()


@pytest.mark.parametrize("make", [make_cubic, make_heteroscedastic_cubic, make_rings])
def test_the_random_state_decides(make):
    X, y = make(30, random_state=3)
    X_same, y_same = make(30, random_state=np.random.RandomState(3))
    np.testing.assert_array_equal(X, X_same)
    np.testing.assert_array_equal(y, y_same)
    assert not np.array_equal(X, make(30, random_state=4)[0])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (make_cubic, {"n_samples": 0}, "n_samples=0: expected at least 1"),
        (make_cubic, {"low": 2, "high": 2}, "low=2, high=2"),
        (make_cubic, {"high": np.inf}, "high=inf"),
        (make_cubic, {"noise_sd": -1}, "noise_sd=-1"),
        (make_heteroscedastic_cubic, {"n_samples": -1}, "n_samples=-1"),
        (make_heteroscedastic_cubic, {"low": 9}, "low=9, high=5.0"),
        (make_rings, {"n_samples": 2}, "n_samples=2: expected at least 3"),
        (make_rings, {"noise_sd": np.nan}, "noise_sd=nan"),
        (make_rings, {"radii": ()}, "expected one or more positive"),
        (make_rings, {"radii": (1, -1)}, r"radii=\[1.0, -1.0\]"),
    ],
)
def test_toy_problems_name_the_bad_argument(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
