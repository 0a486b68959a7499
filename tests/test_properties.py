"""Whatever comes in, what comes out is a valid prediction, or an error that says what is wrong.

Cases are drawn by hypothesis, and arrays from seeds that it draws. There are ten times as many as
`max_examples` says: 1,000 by default and 20,000 with ``--hypothesis-profile=long``.
"""

import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import event, given, note, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats
from sklearn.preprocessing import StandardScaler

from sklearn_probmix import Kind, ProbMixupClassifier, ProbMixupRegressor
from sklearn_probmix.distributions import PredictiveDistribution
from sklearn_probmix.lattice import LatticeComponents
from sklearn_probmix.persistence import load_model, save_model
from sklearn_probmix.table import Division

LEVELS = np.array([1e-6, 0.05, 0.25, 0.5, 0.75, 0.95, 1 - 1e-6])
CENTRE = 3
DOCUMENTED_WARNINGS = re.compile(
    r"\d+ rows are too few to hold some out|The held-out rows are not stratified"
    r"|A column-vector y was passed|No network of method '.*' uses "
)
NORMAL = ("normal", "homoscedastic-normal", "transformed")
FAMILIES = (
    *NORMAL,
    "lognormal",
    "hurdle",
    "gamma",
    "beta",
    "poisson",
    "negative-binomial",
    "bernoulli",
    "histogram",
    "lattice",
)
MIXES_EMBEDDINGS = ("manifold-mixup", "m-probmix")
PROBABILISTIC = ("probmix", "m-probmix")

seeds = st.integers(0, 2**32 - 1)
exponents = st.one_of(st.just(0), st.integers(-30, 30))


def examples(share):
    """Settings of a test that takes so many tenths of all the examples."""
    return settings(max_examples=round(share * settings.default.max_examples))


def often(usual, *others):
    """Draw the usual value in half of the cases."""
    return st.one_of(st.just(usual), st.sampled_from(others))


# Distributions


def check_distribution(dist, y):
    """Check what holds for every predictive distribution; y is in the support."""
    low, high = dist.support()
    x = dist.ppf(LEVELS)
    assert x.shape == (len(LEVELS), *dist.shape)
    assert np.isfinite(x).all()
    # A component may be narrower than the distance of floats, or have quantiles below them all.
    width = np.maximum(16 * np.spacing(abs(x)), 1e-300 * abs(x).max(axis=0))
    assert (np.diff(x, axis=0) >= -width[1:]).all()
    assert ((low <= x) & (x <= high)).all()
    for level in (0.0, 1.0):
        assert not np.isnan(dist.ppf(level)).any()

    levels = LEVELS.reshape(-1, *[1] * dist.ndim)
    below = x - np.maximum(width, 1) if dist.is_discrete else x - width
    tolerance = 1e-6 if dist.is_discrete else 1e-9
    assert (dist.cdf(x + width) >= levels - tolerance).all()
    assert (dist.cdf(below) <= levels + tolerance).all()

    x = np.sort(x, axis=0)
    cdf, sf = dist.cdf(x), dist.sf(x)
    assert ((cdf >= 0) & (cdf <= 1)).all()
    assert (np.diff(cdf, axis=0) >= -1e-12).all()
    assert_allclose(cdf + sf, 1, atol=1e-9)
    inner, outer = dist.interval(0.5), dist.interval(0.9)
    ends = np.stack([outer[0], inner[0], inner[1], outer[1]])
    assert (np.diff(ends, axis=0) >= -16 * np.spacing(abs(ends[1:]))).all()

    ends = [end for component in dist.components for end in component.support()]
    for values in (y, x):
        # At an end of a component's support its density may be infinite, and scipy divides by the
        # scale first, so that the smallest floats are at the end.
        inside = np.all([values != end for end in ends], axis=0)
        inside &= abs(values) > 1e-290 * abs(x).max(axis=0)
        inside |= dist.is_discrete
        assert np.isfinite(dist.logpdf(values)[inside]).all()
    density = dist.pdf(x)
    assert (density >= 0).all()
    assert_allclose(density, np.exp(dist.logpdf(x)), rtol=1e-6, atol=1e-300)
    if not dist.is_discrete and dist.n_components == 1:
        check_derivative(dist, x)

    mean, sd = dist.mean(), dist.std()
    assert np.isfinite(mean).all()
    assert np.isfinite(sd).all()
    rounding = 1e-14 * abs(mean)
    assert ((low <= mean + rounding) & (mean - rounding <= high)).all()
    assert (sd >= 0).all()
    parts = dist.var("aleatoric") + dist.var("epistemic")
    assert_allclose(parts, sd**2, rtol=1e-9)
    draws = dist.rvs(3, random_state=0)
    assert draws.shape == (3, *dist.shape)
    assert ((low <= draws) & (draws <= high)).all()
    # A row of it may be a sum over a million atoms.
    (score,) = dist[:1].crps(y[:1])
    assert np.isfinite(score).all()
    assert (score >= -1e-9 * (abs(y - x[CENTRE]) + sd)[0]).all()
    if all((y != end).all() for end in ends):
        assert np.isfinite(dist.joint_logpdf(y))[has_joint_density(dist, y)].all()


def has_joint_density(dist, y):
    """Return which rows have atoms in no output, or atoms of one component in all.

    Others are draws of a density that floats put on an atom of another component: there the mass
    alone counts, which no component has together with the density of the other outputs.
    """
    if dist.is_discrete:
        return np.full(len(y), True)
    masses = [
        np.isfinite(component.logpdf(y)).reshape(len(y), -1) & (weight > 0)[:, None]
        for component, weight in zip(dist.components, dist.weights.T, strict=True)
        if component.is_discrete
    ]
    is_atom = np.reshape(masses, (-1, len(y), y[0].size))
    return ~is_atom.any(axis=(0, 2)) | is_atom.all(axis=2).any(axis=0)


def check_derivative(dist, x):
    """Compare the density at the median with a difference of the cdf."""
    median = x[CENTRE]
    step = 1e-4 * np.minimum(median - x[CENTRE - 1], x[CENTRE + 1] - median)
    # Where floats are too coarse for the difference there is nothing to compare.
    fine = step > 1e6 * np.spacing(abs(median))
    slope = (dist.cdf(median + step) - dist.cdf(median - step)) / np.where(fine, 2 * step, 1)
    assert_allclose(slope[fine], dist.pdf(median)[fine], rtol=1e-3)


def of_size(low, high):
    """Return a strategy of positive numbers of any size between these powers of ten."""
    return st.floats(low, high).map(lambda power: 10.0**power)


PARAMETERS = {
    "norm": {"loc": st.floats(-1e30, 1e30), "scale": of_size(-30, 30)},
    "lognorm": {"s": of_size(-6, 0.7), "scale": of_size(-30, 30)},
    # For larger shapes the tails of scipy's own cdf are off, by 1e-6; for smaller ones quantiles
    # are below the smallest float.
    "gamma": {"a": of_size(-1, 6), "scale": of_size(-30, 30)},
    "beta": {"a": of_size(-1, 8), "b": of_size(-1, 8)},
    "poisson": {"mu": st.one_of(st.just(0.0), of_size(-30, 20))},
    "bernoulli": {"p": st.floats(0, 1)},
}


def weights_of(draw, n, n_components):
    shares = st.lists(
        st.one_of(st.just(0.0), st.floats(1e-6, 1)), min_size=n_components, max_size=n_components
    ).filter(any)
    weights = np.array([draw(shares) for _ in range(n)])
    return weights / weights.sum(axis=1, keepdims=True)


@st.composite
def distributions(draw):
    n, n_outputs = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    parts = []
    for name in draw(st.lists(st.sampled_from([*PARAMETERS, "lattice"]), min_size=1, max_size=2)):
        n_components = draw(st.integers(1, 3))
        shape = (n, n_components, *[n_outputs] * (n_outputs > 0))
        if name == "lattice":
            values = sorted(draw(st.sets(st.integers(-(2**40), 2**40), min_size=1, max_size=5)))
            masses = np.random.default_rng(draw(seeds)).dirichlet(np.ones(len(values)), shape)
            components = LatticeComponents(np.array(values) / 4, masses), None
        else:
            count = int(np.prod(shape))
            components = (
                name,
                {
                    key: np.reshape(draw(st.lists(numbers, min_size=count, max_size=count)), shape)
                    for key, numbers in PARAMETERS[name].items()
                },
            )
        weights = weights_of(draw, n, n_components)
        parts.append(PredictiveDistribution(*components, weights=weights))
    return parts[0] if len(parts) == 1 else PredictiveDistribution.mix(parts)


@given(distributions())
@examples(3)
def test_distributions_are_valid(dist):
    note(f"{dist.to_dict()}")
    check_distribution(dist, dist.rvs(random_state=1))


@pytest.mark.parametrize("mean", [1e10, 1e12, 1e16, 1e18, 1e20])
def test_counts_keep_their_digits_at_any_mean(mean):
    dist = PredictiveDistribution("poisson", {"mu": [[mean]]})
    sd = np.sqrt(mean)
    y = np.rint(mean + np.array([[-2.0], [0.0], [0.7]]) * sd)
    z = (y - mean) / sd
    # Edgeworth's expansion, and the Normal's CRPS.
    log_mass = stats.norm.logpdf(z) - np.log(sd) + (z**3 - 3 * z) / (6 * sd)
    assert_allclose(dist.logpdf(y), log_mass, atol=10 / mean + 1e-9)
    assert_allclose(dist.pdf(y), np.exp(log_mass), rtol=10 / mean + 1e-9)
    crps = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert_allclose([dist.crps(row) for row in y], crps, rtol=1e-4)


# Regression


TROUBLES = {
    "constant": lambda X, rng: X[:, :1].fill(3.7),
    "zero": lambda X, rng: X[:, -1:].fill(0.0),
    "constant but for rounding": lambda X, rng: np.copyto(
        X[:, 0], 3.7 * (1 + 2e-16 * np.sign(X[:, 0]))
    ),
    "collinear": lambda X, rng: np.copyto(X[:, -1], 2 * X[:, 0] - 1),
    "duplicate rows": lambda X, rng: np.copyto(X[len(X) // 2 :], X[0]),
    "far": lambda X, rng: np.multiply(X[0], 1e30, out=X[0]),
    "offset": lambda X, rng: np.add(X, 1e12, out=X),
    "units": lambda X, rng: np.multiply(X, 10.0 ** rng.integers(-30, 31, X.shape[1]), out=X),
}
LAYOUTS = {
    "plain": lambda values: values,
    "reversed": lambda values: np.flip(np.flip(values).copy()),
    "every second": lambda values: np.repeat(values, 2, axis=0)[::2],
    "by columns": np.asfortranarray,
    "read-only": lambda values: np.broadcast_to(values[None], (1, *values.shape))[0],
    "list": lambda values: values.tolist(),
    "tensor": lambda values: torch.tensor(values.astype(values.dtype.newbyteorder("="))),
    "objects": lambda values: values.astype(object),
}
NARROW = ("i8", ">i4", ">i2", "u1", "?", "f2", ">f2")
DTYPES = ("f8", ">f8", "f4", ">f4", "g", *NARROW)


@st.composite
def tables(draw, least_rows=2):
    """Draw what `columns` makes X of."""
    return {
        "n": draw(st.one_of(st.integers(least_rows, 20), st.integers(least_rows, 200))),
        "n_features": draw(st.one_of(st.integers(1, 4), st.integers(1, 60))),
        "seed": draw(seeds),
        "dtype": draw(often("f8", *DTYPES)),
        "layout": draw(often("plain", *LAYOUTS)),
        "troubles": draw(st.sets(st.sampled_from(sorted(TROUBLES)), max_size=2).map(sorted)),
        "exponent": draw(exponents),
    }


def columns(table):
    """Make X in float64 and as it is given."""
    rng = np.random.default_rng(table["seed"])
    X = rng.normal(size=(table["n"], table["n_features"]))
    for trouble in table["troubles"]:
        TROUBLES[trouble](X, rng)
    X *= 10.0 ** table["exponent"]
    return X, form(X, table["dtype"], table["layout"])


def form(values, dtype, layout):
    """Give values in a dtype, as far as it holds them, and a layout."""
    if dtype in NARROW:
        values = np.clip(np.rint(values), 0, 100)
    elif "f4" in dtype:
        values = np.clip(values, -1e37, 1e37)
    values = values.astype(dtype)
    if layout in ("list", "tensor", "objects") and dtype == "g":
        values = values.astype("f8")
    return LAYOUTS[layout](values)


@st.composite
def weightings(draw, n):
    """Draw weights of rows, or none."""
    what = draw(often(None, "some zeros", "most zeros", "uneven", "equal", "tiny", "huge"))
    rng = np.random.default_rng(draw(seeds))
    u = rng.random(n) + 1e-3
    return {
        None: None,
        "some zeros": np.where(u > 0.3, u, 0.0),
        "most zeros": np.where(u > 0.9, u, 0.0),
        "uneven": u**5,
        "equal": np.full(n, 0.3),
        "tiny": 1e-30 * u,
        "huge": 1e30 * u,
    }[what]


@st.composite
def kinds(draw):
    """Draw parameters of a kind and of the estimator that trains it."""
    sizes = draw(st.sampled_from([(), (3,), (8,), (4, 3), (8, 4)]))
    kind = {
        "method": draw(st.sampled_from(["erm", "mixup", *MIXES_EMBEDDINGS, "probmix"])),
        "alpha": draw(often(0.2, 0.0, 1e-3, 1.0, 50.0)),
        "beta": draw(often(0.0, 1e-3, 0.1, 2.0)),
        "n_neighbors": draw(often(None, 1, 3)),
        "pooling": draw(st.sampled_from(["log-linear", "linear"])),
        "response": draw(often(None, "pooled", "expected")),
        "n_mixes": draw(often(1, 2, 3)),
        "objective": draw(often("expected-log", "log-expected")),
        "hidden_layer_sizes": sizes,
        "activation": draw(st.sampled_from(["relu", "silu", "gelu", "elu", "tanh"])),
        "n_knots": draw(often(None, 2, 5)),
        "dropout": draw(often(0.0, 0.3)),
        "mixing_layer": draw(often(min(1, len(sizes)), 0, 1, 2)),
        "embedding_variance": draw(st.sampled_from(["shared", "separate"])),
        "n_draws": draw(st.integers(1, 3)),
        "n_train_draws": draw(st.integers(1, 3)),
        "lr": draw(often(0.003, 1e-5, 0.03)),
        "lr_schedule": draw(st.sampled_from(["constant", "cosine"])),
        "weight_decay": draw(often(0.1, 0.0, 1.0)),
        "batch_size": draw(often("auto", "full", 1, 5, 300)),
        "max_epochs": draw(st.integers(1, 3)),
    }
    if kind["batch_size"] == 1:
        kind["max_epochs"] = 1
    n_members = draw(st.integers(1, 3))
    estimator = {
        "n_members": n_members,
        "validation": draw(often("auto", "holdout", "cv", None, 0.4, 2, 3, max(n_members, 2))),
        "weighting": draw(st.sampled_from(["stacked", "uniform"])),
        "random_state": draw(seeds),
    }
    return kind, estimator


def faults(kind, estimator, family, n):
    """Parameters that an error may name, which there is then; n is the number of rows of weight."""
    found = set()
    if kind["method"] in MIXES_EMBEDDINGS:
        random = kind["method"] == "m-probmix"
        if not random <= kind["mixing_layer"] <= len(kind["hidden_layer_sizes"]):
            found.add("mixing_layer")
    if kind.get("variance_weighting") and kind["objective"] == "log-expected":
        found.add("objective")
    if family not in NORMAL and (kind.get("variance_weighting") or kind.get("monitor") == "crps"):
        found.add("variance_weighting")
    n_train = n
    validation, n_members = estimator["validation"], estimator["n_members"]
    if validation == "auto":
        validation = "cv" if n_members > 1 else "holdout"
    if isinstance(validation, str | float) and n < 10:
        validation = None
    if validation == "cv" or isinstance(validation, int):
        n_folds = n_members if validation == "cv" else validation
        if not 2 <= n_folds <= n or n_members % n_folds:
            found.add("n_members")
        else:
            n_train = n - -(-n // n_folds)
    elif validation is not None:
        n_train = n - int(np.ceil((0.2 if validation == "holdout" else validation) * n))
    if kind["method"] == "erm" or kind["alpha"] == 0:
        return found
    if kind["n_neighbors"] is not None and kind["n_neighbors"] >= n_train:
        found.add("n_neighbors")
    beta = kind["beta"] if kind["method"] in PROBABILISTIC else 0
    if family in ("hurdle", "gamma", "beta", "poisson", "negative-binomial"):
        if beta:
            found.add("beta")
        if kind["response"] == "pooled":
            found.add("response")
    if family in ("bernoulli", "categorical") and kind["response"] == "pooled" and not beta:
        found.add("response")
    return found


def fitted(estimator, arguments, expected):
    """Fit, or return None where there is an error as expected; warnings are documented ones."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if expected:
            names = "|".join(sorted(expected))
            with pytest.raises((ValueError, TypeError), match=rf"\b({names})\b"):
                estimator.fit(*arguments)
            assert not hasattr(estimator, "nets_")
        else:
            estimator.fit(*arguments)
    for warning in caught:
        assert DOCUMENTED_WARNINGS.match(str(warning.message)), warning
    event(f"refused: {bool(expected)}")
    return None if expected else estimator


def weighted(weight, n):
    """Number of rows of weight, and what names the fault if there is none."""
    if weight is None:
        return n, set()
    return int((weight > 0).sum()), set() if weight.any() else {"Sample weights"}


Y_TROUBLES = ("constant", "rounded", "far", "offset")


def responses(family, X, n_outputs, seed, trouble, exponent):
    """Make y in the support of a family, of shape (n,) for no outputs."""
    rng = np.random.default_rng(seed)
    # Of standardised columns, which may be as large and as small as floats.
    size = abs(X).max(axis=0)
    signal = (X / np.where(size > 0, size, 1)).mean(axis=1, keepdims=True)
    z = signal + rng.normal(size=(len(X), max(n_outputs, 1)))
    if trouble == "constant":
        z[:] = z[0]
    elif trouble == "rounded":
        z = np.rint(z)
    elif trouble == "far":
        z[0] *= 10.0
    elif trouble == "offset":
        z += 20.0
    unit = 10.0**exponent
    y = {
        "lognormal": lambda: unit * np.exp(z),
        "gamma": lambda: unit * np.exp(z),
        "hurdle": lambda: unit * np.exp(z) * (z > -1),
        "beta": lambda: np.clip(special.expit(z), 1e-6, 1 - 1e-6),
        "poisson": lambda: np.rint(np.exp(z) * 10.0 ** (abs(exponent) % 5)),
        "negative-binomial": lambda: np.rint(np.exp(z) * 10.0 ** (abs(exponent) % 5)),
        "bernoulli": lambda: (z > 0).astype(float),
        "lattice": lambda: unit * np.rint(z),
    }.get(family, lambda: unit * z)()
    return y if n_outputs else y[:, 0]


@st.composite
def regressions(draw):
    table, (kind, estimator) = draw(tables()), draw(kinds())
    estimator["calibration"] = draw(st.sampled_from(["auto", "on", "off"]))
    kind["variance_weighting"] = draw(often(0.0, 0.5, 1.0))
    kind["monitor"] = draw(often("nll", "crps"))
    family = draw(st.sampled_from([*FAMILIES, *NORMAL, *NORMAL]))
    if family not in NORMAL and draw(st.booleans()):
        kind |= {"variance_weighting": 0.0, "monitor": "nll"}
    response = {
        "n_outputs": draw(st.integers(0, 3)),
        "seed": draw(seeds),
        "trouble": draw(often(None, *Y_TROUBLES)),
        "exponent": draw(exponents),
    }
    y_form = draw(often("f8", ">f8", "f4", "g")), draw(often("plain", *LAYOUTS))
    return table, kind, estimator, family, response, y_form, draw(weightings(table["n"]))


@given(regressions())
@examples(3)
def test_regressor_predicts_or_says_why_not(case):
    table, kind, parameters, family, response, y_form, weight = case
    X, given_X = columns(table)
    y = form(responses(family, X, **response), *y_form)
    n, expected = weighted(weight, table["n"])
    if not expected:
        expected = faults(kind, parameters, family, n)
        if parameters["calibration"] == "on" and family not in (*NORMAL, "lognormal"):
            expected.add("calibration")
        mixes = kind["method"] != "erm" and kind["alpha"] > 0
        smooths = kind["response"] == "pooled" or (
            kind["beta"] > 0 and kind["method"] in PROBABILISTIC
        )
        if family == "bernoulli" and response["n_outputs"] > 1 and mixes and smooths:
            expected.add("y")
    est = ProbMixupRegressor(method=Kind(**kind), family=family, **parameters)
    if fitted(est, (given_X, y, weight), expected) is None:
        return
    y = np.asarray(y, dtype=float)
    dist = est.predict_proba(given_X)
    assert dist.shape == y.shape
    # Rows of no weight may be far from the others, where numbers may be infinite.
    assert not np.isnan([dist.mean(), dist.std(), *dist.interval()]).any()
    assert_array_equal(est.predict(given_X), dist.mean())
    kept = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
    check_distribution(dist[kept[:20]], y[kept[:20]])
    assert np.isfinite(est.weights_).all()
    if hasattr(est, "oof_predictive_"):
        assert est.oof_predictive_.shape == y[kept].shape
        check_distribution(est.oof_predictive_[:20], y[kept][:20])
        assert np.isfinite(list(est.oof_scores_.values())).all()
    # A row's numbers do not depend on the others.
    assert_array_equal(est.predict(given_X[:1]), est.predict(given_X)[:1])


def test_weighted_constant_column_gives_no_warning():
    rng = np.random.default_rng(0)
    X = np.full((33, 200), rng.normal(size=200))
    est = ProbMixupRegressor(method="erm", n_members=1, max_epochs=1, random_state=0)
    weight = rng.random(33)
    with np.errstate(invalid="ignore"):
        assert (StandardScaler().fit(X, sample_weight=weight).var_ < 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est.fit(X, rng.normal(size=33), weight)
    assert (est.scaler_.var_ >= 0).all()


@pytest.mark.parametrize("unit", [1e-30, 1e5, 1e30])
def test_lognormal_constant_is_predicted_alike_in_all_units(unit):
    X = np.random.default_rng(0).normal(size=(40, 2))
    est = ProbMixupRegressor(
        method="erm", family="lognormal", n_members=1, max_epochs=3, random_state=0
    )
    one, other = (est.fit(X, np.full(40, y)).predict_proba(X) for y in (1.0, unit))
    assert_allclose(other.mean(), unit * one.mean(), rtol=1e-12)
    assert_allclose(other.std(), unit * one.std(), rtol=1e-12)


# Classification

LABELS = {
    "codes": lambda codes: codes,
    "integers": lambda codes: 10 * codes - 7,
    "bytes": lambda codes: codes.astype("u1"),
    "big-endian": lambda codes: codes.astype(">i8"),
    "floats": lambda codes: codes.astype(float) - 1,
    "text": lambda codes: np.array(["no", "yes", "maybe", "", "é"])[codes],
    "objects": lambda codes: np.array(["b", "a", "cc", "d", "e"], dtype=object)[codes],
    "integer objects": lambda codes: codes.astype(object),
    "column": lambda codes: codes.reshape(-1, 1).tolist(),
}


@st.composite
def classifications(draw):
    table, (kind, estimator) = draw(tables()), draw(kinds())
    estimator["calibration"] = draw(st.sampled_from(["auto", "on", "off"]))
    estimator["class_weight"] = draw(often(None, "balanced"))
    n_classes = draw(often(2, 3, 5))
    family = draw(st.sampled_from(["categorical", "bernoulli"]))
    labels = draw(st.sampled_from(sorted(LABELS)))
    weight = draw(weightings(table["n"]))
    return table, kind, estimator, family, n_classes, labels, draw(seeds), weight


@given(classifications())
@examples(1.5)
def test_classifier_predicts_or_says_why_not(case):
    table, kind, parameters, family, n_classes, labels, seed, weight = case
    X, given_X = columns(table)
    codes = np.random.default_rng(seed).integers(n_classes, size=len(X))
    y = LABELS[labels](codes)
    n_found = len(np.unique(codes))
    n, expected = weighted(weight, len(X))
    if n_found == 1:
        expected = {"y"}
    elif family == "bernoulli" and n_found > 2:
        expected = {"family", *expected}
    elif not expected:
        expected = faults(kind, parameters, family, n)
    est = ProbMixupClassifier(method=Kind(**kind), family=family, **parameters)
    if fitted(est, (given_X, y, weight), expected) is None:
        return
    assert_array_equal(est.classes_, np.unique(np.ravel(y)))
    p, log_p = est.predict_proba(given_X), est.predict_log_proba(given_X)
    assert p.shape == (len(X), n_found)
    check_probabilities(p)
    assert np.isfinite(log_p).all()
    assert_allclose(p, np.exp(log_p), rtol=1e-12)
    assert_array_equal(est.predict(given_X), est.classes_[p.argmax(axis=1)])
    assert_array_equal(est.predict_proba(given_X[:1]), p[:1])
    if hasattr(est, "oof_predictive_"):
        assert est.oof_predictive_.shape == (n, n_found)
        check_probabilities(est.oof_predictive_)
        assert np.isfinite(list(est.oof_scores_.values())).all()


def check_probabilities(p):
    assert ((p >= 0) & (p <= 1)).all()
    assert_allclose(p.sum(axis=1), 1, atol=1e-6)


# What may not change a prediction


@st.composite
def plain_regressions(draw, least_rows=12):
    """Draw cases that are no fault."""
    kind, estimator = draw(kinds())
    kind |= {"beta": 0.0, "response": None, "n_neighbors": draw(often(None, 2))}
    kind["mixing_layer"] = min(1, len(kind["hidden_layer_sizes"]))
    if not kind["hidden_layer_sizes"] and kind["method"] == "m-probmix":
        kind["method"] = "probmix"
    estimator["validation"] = draw(st.sampled_from(["auto", "holdout", None]))
    return draw(tables(least_rows)), kind, estimator


def fit(case, X, y, weight=None, family="normal"):
    _, kind, parameters = case
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        return ProbMixupRegressor(method=Kind(**kind), family=family, **parameters).fit(
            X, y, weight
        )


def signal(table, X):
    return responses("normal", X, 0, table["seed"] + 1, None, 0)


@given(plain_regressions())
@examples(0.5)
def test_layout_and_byte_order_change_nothing(case):
    table = case[0]
    X, given_X = columns(table)
    y = signal(table, X)
    same_X = np.array(np.asarray(given_X), dtype=np.float64)
    same, other = fit(case, same_X, y), fit(case, given_X, form(y, ">f8", table["layout"]))
    assert_array_equal(same.predict(same_X), other.predict(given_X))


@given(plain_regressions(), st.integers(-100, 100), st.integers(-100, 100))
@examples(0.5)
def test_units_change_nothing_but_units(case, of_X, of_y):
    # A power of two changes no digit.
    table = case[0] | {"exponent": 0, "troubles": set(case[0]["troubles"]) & {"collinear"}}
    X, _ = columns(table)
    y = signal(table, X)
    one, other = fit(case, X, y), fit(case, X * 2.0**of_X, y * 2.0**of_y)
    expected = one.predict(X, return_std=True)
    for found, value in zip(other.predict(X * 2.0**of_X, return_std=True), expected, strict=True):
        assert_array_equal(found, value * 2.0**of_y)


@given(plain_regressions(), st.integers(-100, 100))
@examples(0.5)
def test_rows_of_no_weight_are_as_if_left_out(case, of_weight):
    table = case[0]
    X, _ = columns(table)
    y, rng = signal(table, X), np.random.default_rng(table["seed"])
    weight = rng.random(len(X)) * (rng.permutation(len(X)) < 0.8 * len(X))
    kept = weight > 0
    one = fit(case, X, np.where(kept, y, 1e3), weight)
    other = fit(case, X[kept], y[kept], weight[kept] * 2.0**of_weight)
    assert_array_equal(one.predict(X), other.predict(X))


@given(plain_regressions(), st.sampled_from(FAMILIES))
@examples(0.5)
def test_model_files_hold_the_prediction(case, family):
    table, kind, _ = case
    X, _ = columns(table)
    y = responses(family, X, 0, table["seed"], None, 0)
    est = fit(case, X, y, family=family)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.probmix")
        save_model(est, path)
        loaded = load_model(path)
    dist, other = est.predict_proba(X), loaded.predict_proba(X)
    assert dist.name == other.name
    assert_array_equal(dist.weights, other.weights)
    for name, values in dist.params.items():
        assert_array_equal(other.params[name], values)
    assert loaded.kinds_ == est.kinds_
    assert loaded.get_params()["method"] == Kind(**kind)


@given(st.integers(2, 200), st.integers(2, 6), st.integers(1, 3), st.integers(1, 3), st.randoms())
@examples(0.5)
def test_folds_hold_every_row_out_alike(n_rows, n_folds, per_fold, n_fits, random):
    n_folds = min(n_folds, n_rows)
    n_members = n_folds * per_fold
    rows = list(range(n_rows))
    random.shuffle(rows)
    held_out = [np.array(rows[fold::n_folds]) for fold in range(n_folds)]
    one = Division.folds(held_out, n_members)
    division = Division.side_by_side([one] * n_fits, n_members, [n_rows] * n_fits)
    for fit in range(n_fits):
        for member in range(n_members):
            train, valid = (part[:, fit * n_members + member] for part in division[:2])
            train, valid = (
                set((part[part >= 0] - fit * n_rows).tolist()) for part in (train, valid)
            )
            assert valid == set(held_out[member % n_folds].tolist())
            assert train == set(rows) - valid
    holders = one.holders(n_rows)
    assert holders.shape == (n_rows, per_fold)
    for row, members in enumerate(holders.tolist()):
        assert len(set(members)) == per_fold
        assert all(row in held_out[member % n_folds] for member in members)
