"""Every public name, imported from where it is defined; `sklearn_probmix` shows them."""

from sklearn_probmix.callbacks import ProbMixup
from sklearn_probmix.classifier import ProbMixupClassifier
from sklearn_probmix.criterion import NegativeLogLikelihood
from sklearn_probmix.displays import (
    MarginalDisplay,
    PITDisplay,
    PredictiveDensityDisplay,
    PredictiveIntervalDisplay,
    ReliabilityDisplay,
)
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.families import Family, get_family
from sklearn_probmix.histograms import Histogram, Lattice
from sklearn_probmix.kinds import Kind
from sklearn_probmix.loaders import NeighborLoader, TensorLoader
from sklearn_probmix.onnx_export import export_onnx
from sklearn_probmix.persistence import load_model, save_model
from sklearn_probmix.regressor import ProbMixupRegressor
from sklearn_probmix.scorers import (
    cross_val_predict_proba,
    neg_calibration_error_scorer,
    neg_coverage_error_scorer,
    neg_crps_scorer,
    neg_interval_score_scorer,
    neg_nll_scorer,
    neg_pinball_scorer,
)
from sklearn_probmix.stacking import (
    DistributionStackingClassifier,
    DistributionStackingRegressor,
)
from sklearn_probmix.together import fit_together
from sklearn_probmix.training_displays import MixingGraphDisplay, TrainingHistoryDisplay

__all__ = [
    "DistributionStackingClassifier",
    "DistributionStackingRegressor",
    "Family",
    "Histogram",
    "Kind",
    "Lattice",
    "MarginalDisplay",
    "MixingGraphDisplay",
    "NegativeLogLikelihood",
    "NeighborLoader",
    "PITDisplay",
    "PredictiveDensityDisplay",
    "PredictiveDistribution",
    "PredictiveIntervalDisplay",
    "ProbMixup",
    "ProbMixupClassifier",
    "ProbMixupRegressor",
    "ReliabilityDisplay",
    "TensorLoader",
    "TrainingHistoryDisplay",
    "cross_val_predict_proba",
    "export_onnx",
    "fit_together",
    "get_family",
    "load_model",
    "neg_calibration_error_scorer",
    "neg_coverage_error_scorer",
    "neg_crps_scorer",
    "neg_interval_score_scorer",
    "neg_nll_scorer",
    "neg_pinball_scorer",
    "save_model",
]
