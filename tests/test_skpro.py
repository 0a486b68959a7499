"""The adapters for skpro, by skpro's own checks."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.base import clone

from sklearn_probmix import PredictiveDistribution, ProbMixupRegressor
from sklearn_probmix.metrics import crps
from tests.one_network import TINY
from tests.test_exports import COUNTS, JOINT, NORMALS, Y

skpro = pytest.importorskip("skpro", reason="needs skpro: pip install sklearn-probmix[skpro]")

# What is not there without skpro is imported after the line that skips.
CRPS = import_module("skpro.metrics").CRPS
check_estimator = import_module("skpro.utils.estimator_checks").check_estimator
SkproDistribution = import_module("sklearn_probmix.skpro_distribution").SkproDistribution
SkproRegressor = import_module("sklearn_probmix.skpro_regressor").SkproRegressor

# Skpro says where it approximates.
pytestmark = pytest.mark.filterwarnings("ignore:.*pdfnorm:UserWarning")


class Examples(SkproDistribution):
    """Instances for skpro's checks.

    >>> 1 + 1
    2
    """

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        index = pd.Index(["p", "q", "r", "s"])
        both = NORMALS.mix([NORMALS, COUNTS])
        return [
            {"distribution": JOINT, "index": index, "columns": pd.Index(["a", "b"])},
            {"distribution": COUNTS, "index": index, "columns": pd.Index(["a"])},
            {"distribution": both, "index": index, "columns": pd.Index(["a"])},
            {"distribution": NORMALS[0]},
        ]


@pytest.mark.slow
@pytest.mark.parametrize(("made", "at_least"), [(Examples, 180), (SkproRegressor, 60)])
def test_skpros_own_checks_pass(made, at_least):
    results = check_estimator(made, verbose=False)
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}
    assert len(results) >= at_least


@pytest.mark.parametrize("dist", [NORMALS, COUNTS, NORMALS.mix([NORMALS, COUNTS])])
def test_skpros_crps_is_ours(dist):
    y = pd.DataFrame({"y": np.round(Y)})
    assert_allclose(CRPS()(y, dist.to_skpro(columns=["y"])), crps(y["y"], dist), rtol=1e-5)


def test_energy_of_a_normal_is_known():
    mean, sd, y = 1.0, 2.0, 0.3
    one = PredictiveDistribution("norm", {"loc": [[mean]], "scale": [[sd]]})
    z = (y - mean) / sd
    expected = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z))
    assert_allclose(one.to_skpro().energy([[y]]), [[expected]])
    assert_allclose(one.to_skpro().energy(), [[2 * sd / np.sqrt(np.pi)]])


def test_a_mass_is_no_density():
    both = NORMALS.mix([NORMALS, COUNTS]).to_skpro()
    ones = np.ones((4, 1))
    assert_allclose(both.pdf(ones).to_numpy()[:, 0], NORMALS.pdf(np.ones(4)) / 2)
    assert_allclose(both.pmf(ones).to_numpy()[:, 0], COUNTS.pmf(np.ones(4)) / 2)


class TestRegressor:
    X = pd.DataFrame({"x": np.linspace(0, 1, 40), 3: np.sin(np.arange(40.0))})
    y = pd.DataFrame({"time": 1 + X["x"]}, index=X.index)

    def test_it_predicts_what_the_estimator_does(self):
        own = ProbMixupRegressor(**TINY).fit(self.X.rename(columns=str), self.y["time"])
        dist = SkproRegressor(ProbMixupRegressor(**TINY)).fit(self.X, self.y).predict_proba(self.X)
        expected = own.predict_proba(self.X.rename(columns=str))
        assert_allclose(dist.quantile([0.2])["time"][0.2], expected.ppf(0.2), rtol=0)

    def test_censored_rows_are_known_to_be_more(self):
        censored = pd.DataFrame({"time": [0.0, 1.0] * 20})
        own = ProbMixupRegressor(**TINY).fit(
            self.X.rename(columns=str), self.y["time"], censored=[False, True] * 20
        )
        made = SkproRegressor(ProbMixupRegressor(**TINY)).fit(self.X, self.y, censored)
        expected = own.predict(self.X.rename(columns=str))
        assert_allclose(made.predict(self.X)["time"], expected, rtol=0)


@pytest.mark.filterwarnings("ignore:.*remember_data:FutureWarning")
def test_sktime_forecasts_the_quantiles_of_each_step():
    pytest.importorskip("sktime", reason="needs sktime: pip install sklearn-probmix[sktime]")
    page = Path(__file__).parents[1] / "docs" / "site" / "coming_from.md"
    (code,) = re.findall(
        r"^## sktime\n.*?^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S
    )
    names = {}
    exec(code, names)
    past, future = names["past"], names["future"]
    # A step ahead is what the regressor says of the last year, fitted to all years before.
    windows = np.lib.stride_tricks.sliding_window_view(past.to_numpy(), 12)
    for ahead in (1, 6):
        own = clone(names["est"]).fit(windows[:-ahead], past[11 + ahead :])
        expected = own.predict_proba(windows[-1:]).ppf([0.1, 0.5, 0.9])
        assert_allclose(names["quantiles"].iloc[ahead - 1], expected[:, 0], rtol=1e-6)
    low, high = names["intervals"].to_numpy().T
    assert ((low <= future) & (future <= high)).sum() >= 4
    # Of the noise, whose sd is .5, the interval of 90 % would be as wide as 3.29 sd.
    assert (np.abs(np.log((high - low) / (3.29 * 0.5))) < np.log(2)).all()
