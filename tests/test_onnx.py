"""Exported networks, run by onnxruntime."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor, export_onnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = X[:, 0] + RNG.normal(scale=0.1, size=120)
# More rows than kernel networks look at together, wild values, and none that the fit has seen.
NEW = RNG.normal(size=(133, 3)) * [1, 10, 100]
KINDS = [
    Kind("m-probmix", hidden_layer_sizes=(16, 8)),
    Kind("erm", n_knots=5, activation="gelu", hidden_layer_sizes=(16,)),
    Kind(network="kernel", hidden_layer_sizes=(8,)),
    Kind("erm", family="gamma", hidden_layer_sizes=()),
]
SMALL = {"n_members": 2, "max_epochs": 3, "random_state": 0}


@pytest.fixture
def exported(tmp_path):
    runtime = pytest.importorskip(
        "onnxruntime", reason="needs onnxruntime: pip install sklearn-probmix[onnx]"
    )
    pytest.importorskip("onnxscript", reason="needs onnxscript: pip install sklearn-probmix[onnx]")

    def run_of(estimator):
        export_onnx(estimator, tmp_path / "model.onnx")
        session = runtime.InferenceSession(
            tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return lambda rows: dict(zip(names, session.run(None, {"X": rows}), strict=True))

    return run_of


def assert_same(outputs, mixtures):
    assert len(outputs) == 2 * len(mixtures)
    for kind, (eta, log_weights) in enumerate(mixtures):
        assert_allclose(outputs[f"eta_{kind}"], eta, rtol=1e-5, atol=1e-5)
        assert_allclose(outputs[f"log_weights_{kind}"], log_weights, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_natural_parameters_of_every_kind_are_torchs(exported):
    est = ProbMixupRegressor(method=KINDS, **SMALL).fit(X, np.exp(Y))
    outputs_of = exported(est)
    for rows in (NEW, NEW[:1]):
        assert_same(outputs_of(rows), est._mixtures(rows))


def test_the_formula_of_the_docstring_gives_the_predictive_distribution(exported):
    est = ProbMixupRegressor(method="erm", calibration="off", family="normal", **SMALL).fit(X, Y)
    eta = exported(est)(NEW)["eta_0"][:, :, 0].astype(float)
    mean = -eta[..., 0] / (2 * eta[..., 1]) * est.y_scale_ + est.y_shift_
    variance = -1 / (2 * eta[..., 1]) * est.y_scale_**2
    dist = est.predict_proba(NEW)
    assert_allclose(mean, dist.params["loc"], rtol=1e-5, atol=1e-5)
    assert_allclose(np.sqrt(variance), dist.params["scale"], rtol=1e-5)


def test_eta_of_a_classifier_are_log_probabilities(exported):
    est = ProbMixupClassifier(method="erm", calibration="off", n_members=1, max_epochs=3)
    est.fit(X, Y > 0)
    eta = exported(est)(NEW)["eta_0"][:, 0, 0].astype(float)
    shares = np.exp(eta) / np.exp(eta).sum(-1, keepdims=True)
    assert_allclose(shares, est.predict_proba(NEW), atol=1e-5)


def test_encoded_columns_are_refused(tmp_path):
    holes = np.where(X > 1.5, np.nan, X)
    est = ProbMixupRegressor(method="erm", **SMALL).fit(holes, Y)
    with pytest.raises(ValueError, match="expected plain numbers"):
        export_onnx(est, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
