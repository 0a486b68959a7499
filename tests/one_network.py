"""A single network with a hold-out, for tests that are not about ensembles."""

ONE_NETWORK = {
    "method": "m-probmix",
    "n_members": 1,
    "calibration": "off",
    "lr_schedule": "constant",
    "weight_decay": 0.01,
    "batch_size": 64,
    "max_epochs": 300,
    "early_stopping": True,
    "n_draws": 32,
}
