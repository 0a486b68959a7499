"""Settings of single networks, for tests that are not about ensembles."""

from sklearn_probmix import Kind

ONE_NETWORK = {
    "method": Kind("m-probmix", lr_schedule="constant", n_draws=32),
    "n_members": 1,
    "calibration": "off",
    "weight_decay": 0.01,
    "batch_size": 64,
    "max_epochs": 300,
}

TINY = {
    "method": "erm",
    "n_members": 1,
    "hidden_layer_sizes": (8,),
    "max_epochs": 3,
    "batch_size": 16,
    "random_state": 0,
}
