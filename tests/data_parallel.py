"""Fits in as many processes as this is started in, which write models to the working folder."""

import pickle
import runpy

import pytest
import torch
from sklearn.datasets import load_diabetes
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.hf import AccelerateMixin

from sklearn_probmix import NegativeLogLikelihood, ProbMixupRegressor, save_model
from sklearn_probmix.modules import MLP

#: Without draws, two processes end as one does; warm twice, by `partial_fit` and with folds too.
SAME = {
    "erm": {"method": "erm"},
    "twice": {"method": "erm", "warm_start": True},
    "stream": {"method": "erm"},
    "folds": {"method": "erm", "n_members": 2, "validation": "cv"},
}
MIXED = {
    "probmix": {"method": "probmix", "alpha": 0.4, "n_members": 2},
    "neighbors": {"method": "mixup", "alpha": 0.4, "n_neighbors": 5},
    "hidden": {"method": "manifold-mixup", "alpha": 0.4},
}


class AcceleratedNet(AccelerateMixin, NeuralNet):
    """As of skorch's manual."""


class CountRows(Callback):
    """Check that a batch is a part of one."""

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        assert len(batch[0]) <= net.batch_size / net.accelerator.num_processes


def plain_net(sizes=(16,), kind=NeuralNet, **kwargs):
    return kind(
        MLP,
        module__hidden_layer_sizes=sizes,
        criterion=NegativeLogLikelihood,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=6,
        batch_size=40,
        verbose=0,
        **kwargs,
    )


def accelerated_net():
    from accelerate import Accelerator

    accelerator = Accelerator(device_placement=False, cpu=True)
    return plain_net(
        kind=AcceleratedNet,
        accelerator=accelerator,
        device=accelerator.device.type,
        callbacks__print_log__sink=print,
        callbacks=[CountRows()],
    )


def rows():
    """Rows of which folds, and those that are not held out, make batches of even size."""
    X, y = load_diabetes(return_X_y=True)
    return X[:400], y[:400]


def fitted(name, net):
    X, y = rows()
    est = ProbMixupRegressor(net=net, random_state=0, calibration="off", **(SAME | MIXED)[name])
    if name == "stream":
        for part in (slice(200), slice(200, 400)):
            est.partial_fit(X[part], y[part])
        return est
    for _ in range(1 + est.warm_start):
        est.fit(X, y)
    return est


def main():
    net = accelerated_net()
    for name in SAME | MIXED:
        est = fitted(name, net)
        if net.accelerator.is_main_process:
            save_model(est, f"{name}.safetensors")
            if name == "erm":
                with open("erm.pickle", "wb") as file:
                    pickle.dump(est, file)
    with pytest.raises(ValueError, match="random_state=None with a net in 2 processes"):
        ProbMixupRegressor(net=net, random_state=None).fit(*rows())
    runpy.run_path("recipe.py", run_name="__main__")


if __name__ == "__main__":
    # Pickles look for its classes in the module, not in the script.
    from tests import data_parallel

    data_parallel.main()
