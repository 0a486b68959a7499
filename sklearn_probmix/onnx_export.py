"""Fitted networks as an ONNX file, for whoever serves without Python or torch."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklearn_probmix.kernel import KernelNetwork
from sklearn_probmix.nets import as_mixture
from sklearn_probmix.scaling import FARTHEST
from sklearn_probmix.settings import neutral_settings

__all__ = ["export_onnx"]

# Rows of one call at most; a bound makes one piece of what kernel networks else take in blocks.
_MOST_ROWS = 2**20


class _Scaled(nn.Module):
    """Networks of all kinds on columns as they are given; see `scaling.scale_columns`."""

    mean_: Tensor
    scale_: Tensor
    reach_: Tensor

    def __init__(self, estimator):
        super().__init__()
        scaler = estimator.scaler_
        for name in ("mean_", "scale_", "reach_"):
            values = np.broadcast_to(getattr(scaler, name), scaler.mean_.shape)
            self.register_buffer(name, torch.tensor(values.copy(), dtype=torch.float64))
        self.nets = nn.ModuleList(copy.deepcopy(net.module_).cpu() for net in estimator.nets_)
        for module in self.nets.modules():
            if isinstance(module, KernelNetwork):
                module.row_block = _MOST_ROWS
        self.eval()

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        scaled = (X - self.mean_) / self.scale_
        scaled = torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled)
        scaled = scaled.clamp(-FARTHEST, FARTHEST)
        excess = (scaled.abs() - self.reach_).clamp(min=0)
        bent = excess / torch.sqrt(1 + (4 * excess / self.reach_).square())
        scaled = scaled.sign() * (torch.minimum(scaled.abs(), self.reach_) + bent)
        return tuple(part for net in self.nets for part in as_mixture(net(scaled.float())))


@neutral_settings
def export_onnx(estimator: Any, path: str | os.PathLike[str]) -> None:
    r"""Write what a fitted estimator's networks say of rows as an ONNX model.

    The model's input is "X" of shape (rows, n_features), float64: the columns as `fit` took them,
    since standardisation is in the model. Its outputs are, for each kind k of `kinds_`, the natural
    parameters "eta_k" of shape (rows, components, n_outputs, n_params) and the logarithms of the
    components' weights within the kind, "log_weights_k" of shape (rows, components). The weights of
    kinds are `weights_`. What follows them in `predict_proba` is not in the model: calibration, the
    way back to the units of y, and that counts have nothing below 0 (`is_count_`). For a
    Normal family without calibration mean and variance are

    .. math:: -\frac{\eta_1}{2 \eta_2} s + m, \qquad -\frac{1}{2 \eta_2} s^2

    with s and m in `y_scale_` and `y_shift_`; for the classifier eta are log-probabilities, up to a
    constant.

    Kernel networks write training rows into the file, and take memory for all rows of a call times
    all these. Needs the extra "onnx".

    Parameters
    ----------
    estimator : ProbMixupRegressor or ProbMixupClassifier
        Fitted on columns of numbers without categories and missing values.
    path : str or path
        Where to write.

    Raises
    ------
    ValueError
        If the fit has encoded columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_probmix import ProbMixupRegressor, export_onnx
    >>> X = np.linspace(0, 1, 40)[:, None]
    >>> est = ProbMixupRegressor(method="erm", max_epochs=5, random_state=0).fit(X, X[:, 0])
    >>> export_onnx(est, "model.onnx")  # doctest: +SKIP
    >>> import onnxruntime  # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession("model.onnx")  # doctest: +SKIP
    >>> eta, log_weights = session.run(None, {"X": X})  # doctest: +SKIP
    """
    check_is_fitted(estimator)
    if estimator.encoder_ is not None:
        raise ValueError(
            "estimator was fitted on columns with categories or missing values, whose encoding is "
            "no part of the model; expected plain numbers: encode the columns in front of it."
        )
    rows = torch.zeros(2, estimator.n_features_in_, dtype=torch.float64)
    shapes = ({0: torch.export.Dim("rows", max=_MOST_ROWS)},)
    # Left to itself `torch.onnx` fixes the number of rows where it finds that easier.
    program = torch.export.export(_Scaled(estimator), (rows,), dynamic_shapes=shapes)
    kinds = range(len(estimator.nets_))
    torch.onnx.export(
        program,
        f=path,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["X"],
        output_names=[f"{name}_{kind}" for kind in kinds for name in ("eta", "log_weights")],
    )
