"""Predictive distributions as those of scipy.stats, torch and skpro."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from scipy import stats

from sklearn_probmix.components import fold_weights

__all__ = ["Exports"]

# The name of torch's distribution and its arguments, by the name and the arguments of scipy's.
_TORCH: dict[str, tuple[str, Any]] = {
    "norm": ("Normal", lambda loc, scale: {"loc": loc, "scale": scale}),
    "lognorm": ("LogNormal", lambda s, scale: {"loc": scale.log(), "scale": s}),
    "gamma": ("Gamma", lambda a, scale: {"concentration": a, "rate": 1 / scale}),
    "beta": ("Beta", lambda a, b: {"concentration1": a, "concentration0": b}),
    "poisson": ("Poisson", lambda mu: {"rate": mu}),
    "nbinom": ("NegativeBinomial", lambda n, p: {"total_count": n, "probs": 1 - p}),
    "bernoulli": ("Bernoulli", lambda p: {"probs": p}),
}


class Exports:
    """Methods of a `PredictiveDistribution` that make distributions of other libraries of it."""

    def to_scipy(self: Any) -> Any:
        """Return a frozen distribution of scipy.stats, of y's shape.

        Of one component it is that of the family. Of a mixture it is one of its own, with the
        density, cdf, quantiles, mean and variance of this one; what else scipy knows of a
        distribution, such as `entropy`, it integrates.

        Returns
        -------
        scipy.stats.rv_frozen
            Each output by itself.

        Raises
        ------
        ValueError
            If there are atoms beside a density, or atoms that are no integers, for which scipy has
            no distribution.

        Examples
        --------
        >>> from sklearn_probmix import PredictiveDistribution
        >>> both = {"loc": [[-1.0, 1.0]], "scale": [[1.0, 1.0]]}
        >>> dist = PredictiveDistribution("norm", both)
        >>> dist.to_scipy().sf([2.0]).round(4), dist.sf([2.0]).round(4)
        (array([0.08]), array([0.08]))
        """
        components = self._components
        if self.n_components == 1 and components.tag == "scipy":
            params = {name: values[:, 0] for name, values in self.params.items()}
            return getattr(stats, self.name)(**params)
        if components.has_atoms and not (components.is_discrete and components.is_integer):
            raise ValueError(
                f"{self!r} has atoms beside a density, or atoms that are no integers; to_scipy "
                "expects a density, or masses of integers."
            )
        rows = self._of(components.fold(), fold_weights(self._weights(), components.shape))
        mixture = _DiscreteMixture if components.is_discrete else _Mixture
        frozen = mixture(rows, name=f"mixture of {self.name}")
        return frozen(place=np.arange(len(rows)).reshape(self.shape))

    def to_torch(self: Any) -> Any:
        """Return a distribution of torch, in float64.

        The rows are its batch. Those of a 2-D y are its events, so that `log_prob` is
        `joint_logpdf`.

        Returns
        -------
        torch.distributions.Distribution
            Of several components a MixtureSameFamily.

        Raises
        ------
        ValueError
            If components are of several families, or of one that torch does not have, such as
            histograms: fit with ``family="normal"``, say.

        Examples
        --------
        >>> import torch
        >>> from sklearn_probmix import PredictiveDistribution
        >>> dist = PredictiveDistribution("gamma", {"a": [[2.0, 3.0]], "scale": [[1.0, 1.0]]})
        >>> dist.to_torch().log_prob(torch.tensor(2.0)).exp()
        tensor([0.2707], dtype=torch.float64)
        """
        import torch
        from torch import distributions

        name, arguments = _TORCH.get(self.name, ("", None))
        given = {}
        if arguments:
            wanted, ones = signature(arguments).parameters, np.ones(self._components.shape)
            # As scipy has them where they are left out.
            usual = {"loc": 0 * ones, "scale": ones}
            given = {
                key: torch.tensor(values)
                for key, values in (usual | self.params).items()
                if key in wanted or (key in self.params and (key != "loc" or values.any()))
            }
        try:
            arguments = arguments(**given)
        except TypeError as error:
            raise ValueError(
                f"{self!r} is no distribution of torch; expected components of one of "
                f"{sorted(_TORCH)}, with parameters that torch has too."
            ) from error
        if self.n_components == 1:
            arguments = {key: values.squeeze(1) for key, values in arguments.items()}
        made = getattr(distributions, name)(**arguments)
        if self.ndim == 2:
            made = distributions.Independent(made, 1)
        if self.n_components == 1:
            return made
        weights = distributions.Categorical(probs=torch.tensor(self.weights))
        return distributions.MixtureSameFamily(weights, made)

    def to_skpro(self: Any, index: Any = None, columns: Any = None) -> Any:
        """Return a distribution of skpro, with all methods exact; needs the extra "skpro".

        Parameters
        ----------
        index, columns : pandas.Index or array-like, default=None
            Labels of the rows and the outputs; None counts them from 0.

        Returns
        -------
        SkproDistribution
            Of shape (n, outputs), also where y is 1-D.

        Examples
        --------
        >>> from sklearn_probmix import PredictiveDistribution
        >>> dist = PredictiveDistribution("norm", {"loc": [[0.0], [2.0]], "scale": [[1.0], [1.0]]})
        >>> dist.to_skpro(columns=["price"]).mean()  # doctest: +SKIP
           price
        0    0.0
        1    2.0
        """
        from sklearn_probmix.skpro_distribution import SkproDistribution

        shape = (*self.shape, 1)
        index = np.arange(shape[0]) if index is None else index
        columns = np.arange(shape[1]) if columns is None else columns
        return SkproDistribution(self, index=index, columns=columns)


class _Mixtures:
    """A distribution of scipy whose one parameter is the place of a row in a predictive one."""

    def __new__(cls, *args, **kwargs):
        # That of discrete distributions knows its own arguments only.
        return super().__new__(cls)

    def __init__(self, rows, **kwargs):
        self._rows = rows
        super().__init__(**kwargs)

    def _updated_ctor_param(self):
        inherited: Any = super()
        return inherited._updated_ctor_param() | {"rows": self._rows}

    def _argcheck(self, place):
        return (place >= 0) & (place < len(self._rows))

    def _at(self, place):
        return self._rows[np.ravel(place).astype(int)]

    def _of_rows(self, method, x, place):
        x, place = np.broadcast_arrays(x, place)
        return getattr(self._at(place), method)(x.ravel()).reshape(x.shape)

    def _get_support(self, place):
        return tuple(end.reshape(np.shape(place)) for end in self._at(place).support())

    def _stats(self, place):
        rows, shape = self._at(place), np.shape(place)
        return rows.mean().reshape(shape), rows.var().reshape(shape), None, None

    def _cdf(self, x, place):
        return self._of_rows("cdf", x, place)

    def _sf(self, x, place):
        return self._of_rows("sf", x, place)

    def _ppf(self, q, place):
        return self._of_rows("_quantiles", q, place)


class _Mixture(_Mixtures, stats.rv_continuous):
    def _pdf(self, x, place):
        return self._of_rows("pdf", x, place)

    def _logpdf(self, x, place):
        return self._of_rows("logpdf", x, place)


class _DiscreteMixture(_Mixtures, stats.rv_discrete):
    def _pmf(self, k, place):
        return self._of_rows("pdf", k, place)

    def _logpmf(self, k, place):
        return self._of_rows("logpdf", k, place)
