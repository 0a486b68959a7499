"""Kinds of network: everything that one recipe of network is, and the sets behind "auto"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

# Imported to have their families in FAMILIES before a Kind lists these.
from sklearn_probmix import compound, counts, histograms, transformed  # noqa: F401  # enter FAMILIES
from sklearn_probmix.families import FAMILIES, Categorical, Family, Normal
from sklearn_probmix.modules import ACTIVATIONS
from sklearn_probmix.options import did_you_mean
from sklearn_probmix.warn import warn

__all__ = [
    "CLASSIFICATION",
    "FAST_CLASSIFICATION",
    "FAST_REGRESSION",
    "LARGE_TABLE",
    "MANY_ROWS",
    "METHODS",
    "RACES",
    "REGRESSION",
    "Kind",
    "as_kinds",
]


class Method(NamedTuple):
    """Where a method mixes, and whether what it mixes are densities."""

    site: str | None
    probabilistic: bool = False
    random_embedding: bool = False


METHODS = {
    "erm": Method(None),
    "mixup": Method("input"),
    "manifold-mixup": Method("embedding"),
    "m-probmix": Method("embedding", probabilistic=True, random_embedding=True),
    "probmix": Method("output", probabilistic=True),
}

# How "auto" sizes batches and epochs: small tables need many epochs to see enough steps, on large
# ones a wide batch costs little.
#: Training rows from where batches are wide, and a race's first rung is few passes.
MANY_ROWS = 4000
_BATCH_SIZE, _BATCH_SIZE_OF_MANY_ROWS = 64, 256
_DROPOUT = 0.1
_LEAST_AND_MOST_EPOCHS = 100, 600
#: Training rows from where kinds of averaged weights make fewer passes the more rows there are:
#: their steps grow by a power of the rows.
LARGE_TABLE = 40_000
_BATCH_SIZE_OF_LARGE_TABLE, _GROWTH = 1024, 0.6


class Kind(BaseEstimator):
    """One kind of network: how it is built, what it mixes, and how it is trained.

    Pass it as ``method=`` to an estimator, alone or in a list of several kinds, when you want what
    the estimator has no parameter for, or kinds that differ. A parameter that the estimator has
    too, such as `lr`, goes before the kind's where it is not None. In a search ``method__alpha``
    reaches into a kind.

    Parameters
    ----------
    method : {"erm", "mixup", "manifold-mixup", "probmix", "m-probmix"}, default="erm"
        What is mixed: nothing (empirical risk minimisation); inputs; activations of the embedding;
        the densities that the network predicts; the densities of a random embedding. Try "probmix"
        where the response is noisy; eq. 7, 30, 16 and 22 of the paper.
    alpha : float, default=0.2
        Strength of mixing, at least 0: lam ~ Beta(alpha, alpha) is the share of a row in its pair.
        Small values mix little, 0 not at all; raise it towards 1 for very noisy responses.
    beta : float, default=0.0
        Variance of a kernel around y (eq. 14), in units of the standardised y; for classes the
        smoothing of labels. Used by the probabilistic methods. Rarely worth more than .1.
    n_neighbors : int or None, default=None
        Mix a row with one of its K nearest rows only (Loc^K), for responses that bend within the
        distance of two random rows. None takes any row. Costs a search of neighbours.
    pooling : {"log-linear", "linear"}, default="log-linear"
        How densities are fused, by the product of powers or by a mixture (eq. 18 and 17).
        "linear" predicts wider densities far from the training rows.
    response : {"pooled", "expected"} or None, default=None
        Pool the responses (eq. 14), or mix their losses (Assumption 4.2). None means "pooled" for
        the Normal families, with the log-normal and the transformed one, for histograms and
        lattices, "expected" for every other family.
    n_mixes : int, default=1
        Draws of lam for each pair (K of eq. 16); a step costs as many times more.
    objective : {"expected-log", "log-expected"}, default="expected-log"
        Expected log-likelihood over these draws, or log of the expected likelihood (Appendix B).
    family : str, Family or None, default=None
        Density that the kind predicts, where it is not the estimator's; of the regressor. Kinds of
        different families share a mixture, and are weighed by the probability of the cell around
        each response, one step of rounding wide.
    network : {"mlp", "kernel"}, default="mlp"
        "kernel" looks at the training rows that are near in a learned embedding, and predicts a
        mixture of Normals around their responses: for tables whose rows have relatives, as rows of
        one person or place are, and where a response is known nearly without noise. It keeps
        training rows, in model files too, needs a Normal, log-normal, transformed or categorical
        family, and mixes nothing.
    local : {"constant", "linear"}, default="linear"
        Of a kernel network: take the responses of neighbours as they are, which keeps to the values
        that there are; or along a line, for smooth responses.
    hidden_layer_sizes : sequence of int, default=(128, 64)
        Units of the hidden layers; () is a linear network. The last of a kernel network is the
        dimension of its embedding.
    activation : {"relu", "silu", "gelu", "elu", "tanh"}, default="relu"
        "silu" for smooth responses with little noise.
    n_knots : int or None, default=None
        Give the network each column's piecewise-linear encoding too, with so many knots at
        quantiles of the rows: it then learns steps and bends, as trees do. 9 to 65 for rough
        responses; small tables overfit with many. Tables of many columns get fewer knots for each,
        about 1,040 in all, but at least 2.
    dropout : float or "auto", default=0.0
        Probability that a hidden unit is dropped in training. "auto" is .1 below 4,000 rows and 0
        from there.
    mixing_layer : int, default=1
        Number of hidden layers that form the embedding.
    embedding_variance : {"shared", "separate"}, default="shared"
        Whether the variance of a random embedding shares the trunk with its mean, or comes from
        a network of its own (M-ProbMix*).
    n_draws, n_train_draws : int, default=16 and 1
        Draws of a random embedding per row, in prediction and in training. A prediction costs in
        proportion, and for rows like those of the training more than 16 change little.
    variance_weighting : float, default=0.0
        In training the loss of a row is weighted by its predicted variance to this power, in
        [0, 1]: the larger, the better the mean is learnt where the noise is small. Normal only.
    monitor : {"nll", "crps"}, default="nll"
        Score of the validation rows whose minimum is the best epoch. Epochs of the best CRPS come
        later, when the mean is learnt. CRPS for the Normal only.
    lr, weight_decay : float, default=0.003 and 0.1
        Of the AdamW optimiser. For Poisson counts the decay is divided by their mean.
    lr_schedule : {"constant", "cosine", "averaged"}, default="cosine"
        "constant" leaves lr as it is; "cosine" lets it fall to 0 over `max_epochs`; "averaged"
        leaves it, and a moving average of the weights is judged and kept.
    batch_size : int, "auto" or "full", default="auto"
        "auto" is 64 below 4,000 rows and 256 from there, with averaged weights 1,024 from 40,000;
        "full" takes all rows in one batch.
    max_epochs : int or "auto", default="auto"
        Passes over the rows. "auto" makes about `n_steps` steps, but no more than 600 passes and,
        unless the network is a kernel's, no fewer than 100. With averaged weights, from 40,000
        rows, it makes ``n_steps * (n_rows / 40,000) ** 0.6`` steps.
    n_steps : int, default=3000
        Steps of the optimiser that `max_epochs="auto"` makes; of a kernel network half of them from
        4,000 rows, where a step costs more and sees more, but in a race all from 40,000.
    n_iter_no_change : int or None, default=50
        Stop after so many epochs, or passes where an epoch of a race is several, in which no member
        has a better validation score; None never stops early. The best epochs are kept in either
        case.

    Examples
    --------
    >>> from sklearn_probmix import Kind, ProbMixupRegressor
    >>> Kind("probmix", beta=0.05, n_knots=9)
    Kind(beta=0.05, method='probmix', n_knots=9)
    >>> est = ProbMixupRegressor(method=[Kind(activation="silu"), Kind("probmix", alpha=0.4)])
    """

    _parameter_constraints = {
        "method": [StrOptions(set(METHODS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "pooling": [StrOptions({"log-linear", "linear"})],
        "response": [StrOptions({"pooled", "expected"}), None],
        "n_mixes": [Interval(Integral, 1, None, closed="left")],
        "family": [StrOptions(set(FAMILIES) - {"categorical"}), Family, None],
        "network": [StrOptions({"mlp", "kernel"})],
        "local": [StrOptions({"constant", "linear"})],
        "objective": [StrOptions({"expected-log", "log-expected"})],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "n_knots": [Interval(Integral, 2, None, closed="left"), None],
        "dropout": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "mixing_layer": [Interval(Integral, 0, None, closed="left")],
        "embedding_variance": [StrOptions({"shared", "separate"})],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "n_train_draws": [Interval(Integral, 1, None, closed="left")],
        "variance_weighting": [Interval(Real, 0, 1, closed="both")],
        "monitor": [StrOptions({"nll", "crps"})],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"constant", "cosine", "averaged"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto", "full"}),
        ],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        method: str = "erm",
        *,
        alpha: float = 0.2,
        beta: float = 0.0,
        n_neighbors: int | None = None,
        pooling: str = "log-linear",
        response: str | None = None,
        n_mixes: int = 1,
        objective: str = "expected-log",
        family: str | Family | None = None,
        network: str = "mlp",
        local: str = "linear",
        hidden_layer_sizes: Sequence[int] = (128, 64),
        activation: str = "relu",
        n_knots: int | None = None,
        dropout: float | str = 0.0,
        mixing_layer: int = 1,
        embedding_variance: str = "shared",
        n_draws: int = 16,
        n_train_draws: int = 1,
        variance_weighting: float = 0.0,
        monitor: str = "nll",
        lr: float = 0.003,
        lr_schedule: str = "cosine",
        weight_decay: float = 0.1,
        batch_size: int | str = "auto",
        max_epochs: int | str = "auto",
        n_steps: int = 3000,
        n_iter_no_change: int | None = 50,
    ):
        self.method = method
        self.alpha = alpha
        self.beta = beta
        self.n_neighbors = n_neighbors
        self.pooling = pooling
        self.response = response
        self.n_mixes = n_mixes
        self.objective = objective
        self.family = family
        self.network = network
        self.local = local
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.n_knots = n_knots
        self.dropout = dropout
        self.mixing_layer = mixing_layer
        self.embedding_variance = embedding_variance
        self.n_draws = n_draws
        self.n_train_draws = n_train_draws
        self.variance_weighting = variance_weighting
        self.monitor = monitor
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.n_steps = n_steps
        self.n_iter_no_change = n_iter_no_change

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and self.to_dict() == other.to_dict()

    @property
    def site(self) -> str | None:
        """Where this kind mixes; None where it mixes nothing."""
        return METHODS[self.method].site if self.alpha > 0 else None

    def updated(self, **parameters: Any) -> Self:
        """Return a new kind that differs in these parameters.

        Parameters
        ----------
        **parameters
            By name.
        """
        return type(self)(**(self.get_params(deep=False) | parameters))

    def check_values(self) -> None:
        """Raise a ValueError that names a parameter which has no such value."""
        parameters = self.get_params(deep=False)
        for name, value in parameters.items():
            # To write out a nest of them takes seconds.
            if isinstance(value, Kind):
                raise ValueError(f"The {name!r} parameter of Kind is a Kind; expected a value.")
        validate_parameter_constraints(self._parameter_constraints, parameters, "Kind")

    def check(self, family: Family) -> None:
        """Raise a ValueError that names a parameter which has no such value, or not for the family.

        Parameters
        ----------
        family : Family
        """
        self.check_values()
        sizes = tuple(self.hidden_layer_sizes)
        proper = all(isinstance(size, Integral) and not isinstance(size, bool) for size in sizes)
        if not (proper and min(sizes, default=1) >= 1):
            raise ValueError(f"hidden_layer_sizes={sizes}; expected integers, at least 1.")
        mixes_embedding = METHODS[self.method].site == "embedding"
        if mixes_embedding and self.mixing_layer > len(sizes):
            raise ValueError(
                f"mixing_layer={self.mixing_layer!r} with {len(sizes)} hidden layers; expected at "
                "most as many as there are."
            )
        if self.objective == "log-expected" and self.variance_weighting:
            raise ValueError(
                "objective='log-expected' averages likelihoods, which variance_weighting > 0 does "
                "not keep; choose one of the two."
            )
        if self.network == "kernel" and not self.fits(family):
            raise ValueError(
                f"network='kernel' with method={self.method!r}, monitor={self.monitor!r}, "
                f"variance_weighting={self.variance_weighting!r} and {family!r}; expected 'erm', "
                "'nll', 0 and a Normal, log-normal, transformed or categorical family."
            )
        if self._needs_normal and not family.is_normal:
            raise ValueError(
                "variance_weighting > 0 and monitor='crps' need family='normal' or "
                f"'homoscedastic-normal'; found {family!r}."
            )

    def fits(self, family: Family) -> bool:
        """Whether a network of this kind has such densities, and such training.

        Parameters
        ----------
        family : Family
        """
        if self.network == "mlp":
            return True
        plain = self.method == "erm" and not self._needs_normal
        return plain and isinstance(family, Normal | Categorical) and not family.n_shared

    @property
    def _needs_normal(self):
        """Whether training takes moments from the family."""
        return self.variance_weighting > 0 or self.monitor == "crps"

    def suited(self, family: Family) -> Self:
        """Leave out what this family does not have, of a kind that was not chosen for it.

        Parameters
        ----------
        family : Family
        """
        if family.is_normal:
            return self
        return self.updated(variance_weighting=0.0, monitor="nll")

    def censored(self, family: Family) -> Self:
        """Return this kind as it trains on responses of which some are censored.

        Losses are mixed, not responses, and likelihoods judged: a censored response has no value.

        Parameters
        ----------
        family : Family

        Raises
        ------
        ValueError
            If this kind asks for values, or the family does not know the probability of more.
        """
        if type(family).log_sf is Family.log_sf:
            raise ValueError(
                f"censored: {family!r} has no log_sf; expected a Normal, log-normal, gamma or "
                "transformed family, or one of your own that has."
            )
        wrong = self.network == "kernel" or self.response == "pooled" or self.beta > 0
        if wrong or self.monitor == "crps":
            raise ValueError(
                f"censored with network={self.network!r}, response={self.response!r}, beta="
                f"{self.beta!r} and monitor={self.monitor!r}; expected 'mlp', 'expected' or None, "
                "0 and 'nll', since a censored response has no value."
            )
        return self.updated(response="expected")

    def sized(self, n_rows: int) -> Self:
        """Settle what was left to the number of rows: batch size, epochs, dropout.

        Parameters
        ----------
        n_rows : int
            That train.
        """
        batch_size, max_epochs, dropout = self.batch_size, self.max_epochs, self.dropout
        if dropout == "auto":
            dropout = 0.0 if n_rows >= MANY_ROWS else _DROPOUT
        # An average of the weights needs no end that is planned.
        is_large = n_rows >= LARGE_TABLE and self.lr_schedule == "averaged"
        if batch_size == "auto":
            batch_size = _BATCH_SIZE_OF_MANY_ROWS if n_rows >= MANY_ROWS else _BATCH_SIZE
            batch_size = _BATCH_SIZE_OF_LARGE_TABLE if is_large else batch_size
        if max_epochs == "auto":
            n_steps = 1 if isinstance(batch_size, str) else math.ceil(n_rows / batch_size)
            least, most = _LEAST_AND_MOST_EPOCHS
            wanted: float = self.n_steps
            if self.network == "kernel":
                # Each of its steps is dear on a large table, and sees much of it.
                least, wanted = 1, wanted / (2 if n_rows >= MANY_ROWS else 1)
            elif is_large:
                least, wanted = 1, wanted * (n_rows / LARGE_TABLE) ** _GROWTH
            max_epochs = int(np.clip(wanted / n_steps, least, most))
        return self.updated(batch_size=batch_size, max_epochs=max_epochs, dropout=dropout)

    def rows_of_a_batch(self, n_rows: int) -> int:
        """Return the size of a batch, which may be all rows, of a kind that is sized.

        Parameters
        ----------
        n_rows : int
            That train.
        """
        return n_rows if self.batch_size == "full" else int(self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """All parameters, by name."""
        sizes = self.hidden_layer_sizes
        return self.get_params(deep=False) | {
            "hidden_layer_sizes": tuple(sizes) if np.iterable(sizes) else sizes
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make what `to_dict` described.

        Parameters
        ----------
        content : dict
        """
        return cls(**content)


# Weights are averaged, so that every moment of a race has something to deliver.
_RUNNER = Kind("erm", lr_schedule="averaged")
_SMOOTH = _RUNNER.updated(activation="silu", hidden_layer_sizes=(128, 128, 64))
_WIDE = _RUNNER.updated(method="probmix", hidden_layer_sizes=(256, 256))
_LINEAR = _RUNNER.updated(hidden_layer_sizes=(), lr=0.01)
_KERNEL = _RUNNER.updated(network="kernel", activation="silu", batch_size=64, n_iter_no_change=20)
_LINES = _KERNEL.updated(n_knots=9, hidden_layer_sizes=(128, 32), lr=0.005, n_steps=2000)
# The mean is learnt further than the variance, which is calibrated afterwards.
_OF_MEANS = {"variance_weighting": 0.5, "monitor": "crps"}
_ROUGH = _SMOOTH.updated(n_knots=65, **_OF_MEANS)

#: What method="auto" trains: smooth units, best where the noise is small; a wide ProbMix network
#: with a few knots, for noisier tables; smooth units with many knots, for rough responses, the
#: means of these two being learnt further; a linear one; and three that look at neighbours: for
#: smooth responses, with dropout and without, and for repeated values. Where the responses look
#: like it, kinds of other families too.
REGRESSION = (
    _SMOOTH,
    _WIDE.updated(n_knots=9, **_OF_MEANS),
    _ROUGH,
    _LINEAR,
    _LINES.updated(dropout="auto"),
    _LINES,
    _KERNEL.updated(local="constant", n_knots=9, lr=0.0015, n_steps=300),
    # Those of another family run where `likely_families` names it.
    _WIDE.updated(family="histogram", n_knots=9),
    _WIDE.updated(family="lattice", n_knots=9, beta=0.05),
    _SMOOTH.updated(family="transformed"),
    _LINES.updated(family="transformed", dropout="auto"),
    _SMOOTH.updated(family="hurdle"),
    _WIDE.updated(method="erm", family="hurdle", n_knots=9),
    _SMOOTH.updated(family="negative-binomial"),
    _LINEAR.updated(family="negative-binomial"),
    _LINEAR.updated(family="poisson"),
    _SMOOTH.updated(family="beta"),
)
CLASSIFICATION = (
    _SMOOTH,
    _WIDE,
    _LINEAR,
    _KERNEL.updated(local="constant", hidden_layer_sizes=(128, 32), dropout=0.1, n_steps=400),
)
#: What method="fast" trains: those that are worth most for their time.
FAST_REGRESSION = (_SMOOTH, _ROUGH, _LINEAR, _LINES)
FAST_CLASSIFICATION = (_SMOOTH, _LINEAR)
#: Names of methods whose kinds run a race.
RACES = ("auto", "fast", "parametric")


def as_kinds(method: str | Kind | Sequence[str | Kind], overrides: Mapping[str, Any]) -> list[Kind]:
    """Kinds that a `method=` names.

    Parameters
    ----------
    method : str, Kind, or list of these
        A name of METHODS, or a kind. A dict of a kind's parameters is deprecated.
    overrides : mapping
        Parameters that all kinds take.

    Returns
    -------
    list of Kind
    """
    items: Sequence[Any] = method if isinstance(method, list | tuple) else [method]
    if not items:
        raise ValueError("method=[] names no kind of network; expected at least one.")
    return [_as_kind(item, overrides) for item in items]


def _as_kind(item, overrides):
    if isinstance(item, Kind):
        return item.updated(**overrides)
    if isinstance(item, str) and item in METHODS:
        return Kind(item, **overrides)
    if isinstance(item, Mapping) and set(item) <= set(Kind().get_params()):
        # What a dict said went before what all kinds take.
        kind = Kind(**{**overrides, **item})
        warn(f"method={item!r} is deprecated; write {kind!r}.", FutureWarning)
        return kind
    hint = did_you_mean(item, METHODS) if isinstance(item, str) else ""
    raise ValueError(
        f"method={item!r} describes no kind of network; expected one of {sorted(METHODS)}, a Kind, "
        f"or a list of these, or alone one of {[*RACES]}.{hint}"
    )
