"""Figures that others have published for the same tables, beside which ours are shown."""

__all__ = ["PUBLISHED", "SOURCE"]

SOURCE = (
    "Not run by us: means ± standard deviations over the 20 standard splits, from the README of "
    "github.com/ayhamo/Probabilistic_Point_Estimations (a thesis of 2025). TabPFN is pretrained; "
    "the settings of TabResFlow, a spline flow, and of XGBoost were searched on some of these "
    "tables. Ours are means ± standard errors over the splits that were run. Tables whose y takes "
    "few values are left out: there densities have no lower bound, and ours is a probability."
)
# NLL in nats and RMSE in the units of y: mean, sd.
PUBLISHED = {
    "TabPFN": {
        "yacht": {"nll": (-0.7313, 0.2379), "rmse": (0.4165, 0.1675)},
        "energy": {"nll": (0.1500, 0.1219), "rmse": (0.4229, 0.0636)},
        "concrete": {"nll": (2.2148, 0.1384), "rmse": (3.8640, 0.5923)},
        "kin8nm": {"nll": (-1.2720, 0.0184), "rmse": (0.0704, 0.0016)},
        "power-plant": {"nll": (2.2778, 0.0219), "rmse": (3.0046, 0.2306)},
    },
    "TabResFlow": {
        "yacht": {"nll": (0.5558, 0.2196), "rmse": (1.4134, 0.8693)},
        "energy": {"nll": (0.6444, 0.1246), "rmse": (0.6453, 0.1645)},
        "concrete": {"nll": (2.8915, 0.1198), "rmse": (5.2117, 0.5660)},
        "kin8nm": {"nll": (-1.2842, 0.0320), "rmse": (0.0729, 0.0030)},
        "power-plant": {"nll": (2.5808, 0.0220), "rmse": (4.0233, 0.1809)},
    },
    "XGBoost": {
        "yacht": {"nll": (1.0351, 0.5998), "rmse": (0.8036, 0.4464)},
        "energy": {"nll": (0.2601, 0.2176), "rmse": (0.3215, 0.0718)},
        "concrete": {"nll": (2.8815, 0.1419), "rmse": (4.3590, 0.5944)},
        "kin8nm": {"nll": (-0.6768, 0.0159), "rmse": (0.1230, 0.0020)},
        "power-plant": {"nll": (2.5384, 0.0740), "rmse": (3.0718, 0.2290)},
    },
}
