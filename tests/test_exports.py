"""Predictive distributions as those of other libraries, against their own arithmetic."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

from sklearn_probmix import PredictiveDistribution
from sklearn_probmix.lattice import LatticeComponents

RNG = np.random.default_rng(0)
LOC, SCALE = RNG.normal(size=(4, 3, 2)), RNG.uniform(0.5, 2, size=(4, 3, 2))
WEIGHTS = RNG.dirichlet(np.ones(3), size=4)
NORMALS = PredictiveDistribution(
    "norm", {"loc": LOC[..., 0], "scale": SCALE[..., 0]}, weights=WEIGHTS
)
JOINT = PredictiveDistribution("norm", {"loc": LOC, "scale": SCALE}, weights=WEIGHTS)
COUNTS = PredictiveDistribution("poisson", {"mu": 4 * SCALE[..., 0]}, weights=WEIGHTS)
Y = np.array([0.3, -1.0, 2.0, 5.0])

ONE_OF_EACH = {
    "norm": {"loc": [[1.0], [-2.0]], "scale": [[0.5], [3.0]]},
    "lognorm": {"s": [[0.5], [1.5]], "scale": [[2.0], [0.3]]},
    "gamma": {"a": [[0.5], [3.0]], "scale": [[2.0], [0.3]]},
    "beta": {"a": [[0.5], [3.0]], "b": [[2.0], [0.3]]},
    "poisson": {"mu": [[0.5], [30.0]]},
    "nbinom": {"n": [[0.5], [3.0]], "p": [[0.2], [0.9]]},
    "bernoulli": {"p": [[0.2], [0.9]]},
}


class TestScipy:
    def test_of_one_component_it_is_the_family(self):
        frozen = PredictiveDistribution("gamma", ONE_OF_EACH["gamma"]).to_scipy()
        assert isinstance(frozen.dist, type(stats.gamma))
        assert_allclose(frozen.entropy(), stats.gamma([0.5, 3.0], scale=[2.0, 0.3]).entropy())

    def test_of_a_mixture_it_is_the_sum(self):
        frozen, parts = NORMALS.to_scipy(), stats.norm(LOC[..., 0], SCALE[..., 0])
        for x in (Y, RNG.normal(size=(5, 4))):
            for method in ("pdf", "cdf", "sf"):
                each = getattr(parts, method)(x[..., None])
                assert_allclose(getattr(frozen, method)(x), (WEIGHTS * each).sum(-1))
        assert_allclose(frozen.cdf(frozen.ppf([[0.1], [0.9]])), [[0.1] * 4, [0.9] * 4])
        assert_allclose(frozen.mean(), (WEIGHTS * LOC[..., 0]).sum(-1))
        assert_allclose(frozen.std(), NORMALS.std())

    def test_what_scipy_integrates(self):
        def surprise(y):
            return -NORMALS[2].pdf([y])[0] * NORMALS[2].logpdf([y])[0]

        expected, _ = integrate.quad(surprise, -20, 20)
        assert_allclose(NORMALS.to_scipy().entropy()[2], expected, rtol=1e-6)

    def test_draws_are_of_the_mixture_and_repeat(self):
        frozen = NORMALS[1].to_scipy()
        draws = frozen.rvs((20_000, 1), random_state=0)
        assert stats.kstest(draws[:, 0], NORMALS[1].to_scipy().cdf).pvalue > 1e-3
        assert_allclose(draws, frozen.rvs((20_000, 1), random_state=0), rtol=0)

    def test_counts_and_several_outputs(self):
        frozen, each = COUNTS.to_scipy(), stats.poisson(4 * SCALE[..., 0])
        assert_allclose(frozen.pmf([1, 2, 3, 4]), (WEIGHTS * each.pmf([[1], [2], [3], [4]])).sum(1))
        assert_allclose(frozen.median(), COUNTS.median())
        assert JOINT.to_scipy().mean().shape == (4, 2)
        assert_allclose(JOINT.to_scipy().ppf(0.3)[:, 0], NORMALS.ppf(0.3))

    def test_atoms_that_scipy_has_not_are_refused(self):
        halves = PredictiveDistribution(
            LatticeComponents(np.array([0.5, 1.0]), np.ones((2, 1, 2)) / 2)
        )
        with pytest.raises(ValueError, match="to_scipy expects a density, or masses of integers"):
            halves.to_scipy()
        with pytest.raises(ValueError, match="atoms beside a density"):
            PredictiveDistribution.mix([NORMALS, COUNTS]).to_scipy()


class TestTorch:
    @pytest.mark.parametrize("name", ONE_OF_EACH)
    def test_every_family_has_the_density_and_mean_of_scipy(self, name):
        params, x = ONE_OF_EACH[name], np.array([1.0, 1.0])
        x = np.array([0.3, 0.8]) if name == "beta" else x
        family = getattr(stats, name)
        frozen = family(**{key: np.ravel(value) for key, value in params.items()})
        made = PredictiveDistribution(name, params).to_torch()
        log_density = frozen.logpmf(x) if hasattr(frozen.dist, "logpmf") else frozen.logpdf(x)
        assert_allclose(made.log_prob(torch.tensor(x)), log_density, rtol=1e-10)
        assert_allclose(made.mean, frozen.mean())

    @pytest.mark.parametrize("name", ["norm", "lognorm", "gamma"])
    @pytest.mark.parametrize("n_components", [1, 3])
    def test_what_is_left_out_is_that_of_scipy(self, name, n_components):
        key = {"norm": "scale", "lognorm": "s", "gamma": "a"}[name]
        dist = PredictiveDistribution(name, {key: SCALE[:, :n_components, 0]})
        y = np.array([0.3, 1.0, 2.0, 5.0])
        assert_allclose(dist.to_torch().log_prob(torch.tensor(y)), dist.logpdf(y), rtol=1e-10)

    def test_of_a_mixture_over_outputs_it_is_the_joint_density(self):
        y = RNG.normal(size=(4, 2))
        each = stats.norm(LOC, SCALE).logpdf(y[:, None]).sum(-1)
        made = JOINT.to_torch()
        assert (made.batch_shape, made.event_shape) == ((4,), (2,))
        assert_allclose(made.log_prob(torch.tensor(y)).exp(), (WEIGHTS * np.exp(each)).sum(1))
        assert_allclose(NORMALS.to_torch().variance, NORMALS.var())

    def test_what_torch_has_not_is_refused(self):
        shifted = {"a": [[1.0]], "scale": [[1.0]], "loc": [[2.0]]}
        for dist in (
            PredictiveDistribution.mix([NORMALS, COUNTS]),
            PredictiveDistribution("uniform", {"loc": [[0.0]], "scale": [[1.0]]}),
            PredictiveDistribution("gamma", shifted),
        ):
            with pytest.raises(ValueError, match="is no distribution of torch; expected"):
                dist.to_torch()
