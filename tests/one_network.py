"""A single network with a hold-out, for tests that are not about ensembles."""

from sklearn_probmix import Kind

ONE_NETWORK = {
    "method": Kind("m-probmix", lr_schedule="constant", n_draws=32),
    "n_members": 1,
    "calibration": "off",
    "weight_decay": 0.01,
    "batch_size": 64,
    "max_epochs": 300,
}
