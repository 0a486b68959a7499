"""Weights and calibrations against closed forms, grids and their own claims."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from sklearn_probmix.calibration import Spread, Temperature, calibrate, stacking_weights


@pytest.mark.parametrize("prior", [0.0, 1.0, 7.5])
def test_stacking_weights_maximise_the_log_score(prior):
    rng = np.random.default_rng(0)
    log_density = rng.normal(size=(50, 2))
    weight = rng.uniform(size=50)
    weight /= weight.mean()

    def loss(share):
        mixed = share * np.exp(log_density[:, 0]) + (1 - share) * np.exp(log_density[:, 1])
        return -(weight * np.log(mixed)).sum() - prior * np.log(share * (1 - share))

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
    found = stacking_weights(log_density, weight, prior=prior, max_iter=100_000, tol=1e-14)
    np.testing.assert_allclose(found, [best, 1 - best], atol=1e-5)


def test_rows_that_no_kind_thinks_possible_have_no_say():
    rng = np.random.default_rng(0)
    log_density = rng.normal(size=(50, 3))
    impossible = np.vstack([log_density, np.full((2, 3), -np.inf)])
    expected = stacking_weights(log_density)
    np.testing.assert_allclose(stacking_weights(impossible), expected, rtol=1e-6)
    np.testing.assert_allclose(stacking_weights(impossible[-2:]), 1 / 3)


@pytest.mark.parametrize("n", [10, 1000])
def test_each_kind_has_rows_of_its_own_in_advance(n):
    log_density = np.zeros((n, 4))
    log_density[:, 1:] = -1000.0
    expected = np.array([n + 0.5, 0.5, 0.5, 0.5]) / (n + 2)
    np.testing.assert_allclose(stacking_weights(log_density, prior=0.5), expected)
    expected = np.array([n + 1, 1, 1, 1]) / (n + 4)
    np.testing.assert_allclose(stacking_weights(log_density), expected)


def normal_rows(n=20_000, sd=1.0, seed=0, rounding=0.0):
    y = sd * np.random.default_rng(seed).normal(size=(n, 1))
    mean, variance = np.zeros((n, 1, 1)), np.ones((n, 1, 1))
    return y, mean, variance, np.ones((n, 1)), np.ones(n), np.full((n, 1), rounding)


@pytest.mark.parametrize("sd", [0.7, 1.0, 3.0])
def test_spread_of_one_normal_is_the_mean_square(sd):
    y, *rest = normal_rows(sd=sd)
    assert Spread.fit(y, *rest).apply(1.0) == pytest.approx(np.mean(y**2), rel=1e-2)


def test_spread_separates_scale_and_offset():
    rng = np.random.default_rng(0)
    variance = rng.uniform(0.1, 4.0, size=(50_000, 1, 1))
    y = rng.normal(size=(50_000, 1)) * np.sqrt(2 * variance[:, 0] + 0.5)
    one = np.ones((50_000, 1))
    spread = Spread.fit(y, np.zeros_like(variance), variance, one, one[:, 0], 0 * one)
    assert spread.a == pytest.approx(2.0, rel=0.05)
    assert spread.b == pytest.approx(0.5, rel=0.1)


def test_what_rounding_adds_is_not_calibrated():
    y, *rest = normal_rows(sd=2.0, rounding=1.5)
    assert Spread.fit(y, *rest).apply(1.0) == pytest.approx(np.mean(y**2) - 1.5, rel=1e-2)


@pytest.mark.parametrize("rounding", [0.0, 0.5])
def test_spread_nll_of_a_mixture_by_hand(rounding):
    y, mean = np.array([[1.0]]), np.array([[[0.0], [2.0]]])
    variance, weights = np.array([[[1.0], [4.0]]]), np.array([[0.25, 0.75]])
    scaled = [3.0 + rounding, 9.0 + rounding]
    density = [np.exp(-0.5 / v) / np.sqrt(2 * np.pi * v) for v in scaled]
    expected = -2.0 * np.log(0.25 * density[0] + 0.75 * density[1])
    rest = weights, np.array([2.0]), np.array([[rounding]])
    found = Spread(2.0, 1.0).nll(y, mean, variance, *rest)
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50_000, 3))
    y = np.array([rng.choice(3, p=p) for p in softmax(logits[:5000], axis=1)])
    found = Temperature.fit(y, 2.5 * logits[:5000], np.ones(5000))
    assert found.temperature == pytest.approx(2.5, rel=0.1)


def test_few_rows_without_a_mistake_do_not_ask_for_certainty():
    log_p = np.log(np.full((60, 2), [0.97, 0.03]))
    assert Temperature.fit(np.zeros(60, dtype=int), log_p, np.ones(60)).temperature > 0.7


def test_temperature_nll_by_hand():
    p = np.array([[0.2, 0.8]])
    powers = p**0.5
    expected = -3 * np.log(powers[0, 0] / powers.sum())
    found = Temperature(2.0).nll(np.array([0]), np.log(p), np.array([3.0]))
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


@pytest.mark.parametrize(("sd", "worth"), [(1.0, False), (2.0, True)])
def test_calibration_is_kept_only_where_held_out_rows_gain(sd, worth):
    data = normal_rows(n=300, sd=sd)
    assert (calibrate(Spread, data) is not None) == worth
    assert calibrate(Spread, data, mode="on") is not None


def test_too_few_rows_are_not_calibrated():
    assert calibrate(Spread, normal_rows(n=9, sd=5.0)) is None


@pytest.mark.parametrize("calibration", [Spread(2.5, 0.125), Temperature(0.75)])
def test_calibrations_are_values(calibration):
    again = type(calibration).from_dict(calibration.to_dict())
    assert again == calibration
    assert hash(again) == hash(calibration)
    assert again != type(calibration)()
    assert all(f"{name}={value}" in repr(again) for name, value in again.to_dict().items())


def test_calibrations_without_arguments_change_nothing():
    log_p = np.log([[0.2, 0.8], [0.5, 0.5]])
    np.testing.assert_array_equal(Spread().apply(np.array([0.3, 7.0])), [0.3, 7.0])
    np.testing.assert_allclose(Temperature().apply(log_p), log_p, rtol=1e-15)


@pytest.mark.parametrize(
    ("calibration", "content", "message"),
    [
        (Spread, {"a": -1.0, "b": 0.0}, r"a=-1.0.*at least 0"),
        (Spread, {"a": 1.0, "b": np.inf}, r"b=inf.*at least 0"),
        (Temperature, {"temperature": 0.0}, r"temperature=0.0.*positive"),
        (Temperature, {"temperature": np.nan}, r"temperature=nan.*positive"),
    ],
)
def test_impossible_calibrations_are_refused(calibration, content, message):
    with pytest.raises(ValueError, match=message):
        calibration.from_dict(content)
