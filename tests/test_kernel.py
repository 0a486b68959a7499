"""Kernel networks against what a few lines of numpy make of their weights, and bad tables."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from model_files import LABELS, opened, store
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp, softmax
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_probmix import (
    Kind,
    ProbMixupClassifier,
    ProbMixupRegressor,
    get_family,
    load_model,
    save_model,
)
from sklearn_probmix.criterion import NegativeLogLikelihood, log_likelihood
from sklearn_probmix.ensemble import template_of
from sklearn_probmix.families import Normal
from sklearn_probmix.kernel import KernelNetwork
from sklearn_probmix.metrics import nll
from sklearn_probmix.traits import rounding_step

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] + 0.3 * RNG.normal(size=60)
X_OF_CURVE, NOISE = RNG.normal(size=(200, 1)), 0.3 * RNG.normal(size=200)


def kernel(**fields):
    """Return a kernel kind of few units and steps."""
    few = {"network": "kernel", "hidden_layer_sizes": (16, 8), "activation": "silu"}
    return Kind(**few | {"max_epochs": 3} | fields)


def regressor(**fields):
    """Return a regressor of one such kind; `local` to `max_epochs` are the kind's."""
    own = Kind().get_params().keys() - ProbMixupRegressor().get_params().keys()
    of_kind = {name: fields.pop(name) for name in own & fields.keys()}
    return ProbMixupRegressor(**{"method": kernel(**of_kind), "random_state": 0} | fields)


def network(est, kind=0):
    """Return the module that runs, of one network or of stacked ones."""
    return template_of(est.nets_[kind].module_)


def test_lognormal_responses_are_remembered_as_logarithms():
    est = regressor(family="lognormal", n_members=1, calibration="off").fit(X, np.exp(Y))
    plain = regressor(n_members=1, calibration="off").fit(X, Y)
    assert_allclose(network(est).responses, network(plain).responses, rtol=1e-6)
    u = np.linspace(0.01, 0.99, 5)
    logs = np.log(est.predict_proba(X).ppf(u))
    assert_allclose(logs, plain.predict_proba(X).ppf(u), rtol=1e-3, atol=1e-3)


def test_a_first_call_of_partial_fit_gives_every_member_its_context():
    est = regressor(n_members=2).partial_fit(X, Y)
    assert network(est).context.shape == (2, 60, 3)
    later = regressor(n_members=2).partial_fit(X, Y).partial_fit(X[:20] + 1, Y[:20])
    assert_array_equal(network(later).context, network(est).context)


def real_rows(est, member):
    """Return the rows of the context of a member that have weight."""
    net = network(est)
    return net.context[member].numpy()[net.shares[member, :, 0].numpy() > -1e29]


def held_out(est, X):
    """Return which rows are not in the context of which member, (rows, members)."""
    seen = est.scaler_.transform(X).astype(np.float32)
    contexts = [real_rows(est, member) for member in range(est.n_members)]
    return np.stack([~(seen[:, None] == c).all(-1).any(1) for c in contexts], axis=1)


@pytest.mark.parametrize("n_rows", [60, 59, 58])
def test_the_context_of_a_member_is_all_but_its_held_out_rows(n_rows):
    est = regressor(n_members=3, max_epochs=1).fit(X[:n_rows], Y[:n_rows])
    out = held_out(est, X[:n_rows])
    assert (out.sum(axis=1) == 1).all()
    assert set(out.sum(axis=0)) <= {n_rows // 3, -(-n_rows // 3)}


def test_groups_of_unequal_size_take_no_rows_from_contexts():
    groups = np.where(np.arange(60) < 45, 0, np.arange(60) % 3 + 1)
    est = regressor(n_members=3, max_epochs=2, calibration="off").fit(X, Y, groups=groups)
    out = held_out(est, X)
    assert (out.sum(axis=1) == 1).all()
    assert sorted(out.sum(axis=0)) == [5, 10, 45]
    assert_out_of_fold_densities(est, Y[:, None])


def test_a_row_alone_in_its_context_does_not_see_itself():
    """With its own copy alone the loss would fall without end."""
    split = [([0], [1, 2, 3])]
    est = regressor(n_members=1, max_epochs=1, validation=split, batch_size="full")
    with pytest.warns(UserWarning, match="rows are not used"):
        est.fit(X[:5], Y[:5])
    assert network(est).context.shape == (1, 3)
    net = network(est).train()
    net.own, net.places = torch.tensor([0]), torch.tensor([0])
    weights = net(net.context).log_weights.detach().exp()
    assert_array_equal(weights, [[0, 1]])


def test_classes_that_partial_fit_sees_again_do_not_see_themselves():
    labels = np.random.default_rng(1).integers(0, 2, size=200)
    est = ProbMixupClassifier(method=kernel(lr=0.01), n_members=2, random_state=0)
    for _ in range(30):
        est.partial_fit(X_OF_CURVE, labels)
    chosen = est.predict_proba(X_OF_CURVE)[np.arange(200), labels]
    assert chosen.mean() < 0.7


KEYS = "nets.0.members.keys"
RESPONSES = KEYS.replace("keys", "responses")
SHARES = KEYS.replace("keys", "shares")
CONTEXT = KEYS.replace("keys", "context")
MUTANTS = {
    **{
        f"no {name}": lambda t, name=name: t.pop(name)
        for name in (KEYS, RESPONSES, SHARES, CONTEXT)
    },
    "another": lambda t: t.update({KEYS + "keys": t[KEYS].clone()}),
    "keys of one axis": lambda t: t.update({KEYS: t[KEYS].flatten()}),
    "keys of no axis": lambda t: t.update({KEYS: torch.zeros(())}),
    "fewer keys": lambda t: t.update({KEYS: t[KEYS][:, 1:]}),
    "no rows of keys": lambda t: t.update({KEYS: t[KEYS][:, :0]}),
    "wide keys": lambda t: t.update({KEYS: t[KEYS].repeat(1, 1, 2)}),
    "keys of one member": lambda t: t.update({KEYS: t[KEYS][:1]}),
    "keys of another type": lambda t: t.update({KEYS: t[KEYS].double()}),
    "fewer responses": lambda t: t.update({RESPONSES: t[RESPONSES][:, 1:]}),
    "flat responses": lambda t: t.update({RESPONSES: t[RESPONSES][..., 0]}),
    "two outputs": lambda t: t.update({RESPONSES: t[RESPONSES].repeat(1, 1, 2)}),
    "more shares": lambda t: t.update({SHARES: t[SHARES].repeat(1, 2, 1)}),
    "fewer rows": lambda t: t.update({CONTEXT: t[CONTEXT][:, 1:]}),
    "other columns": lambda t: t.update({CONTEXT: t[CONTEXT][..., 1:]}),
    **{
        f"{value} in {name}": lambda t, name=name, value=value: t[name][0, 3].fill_(value)
        for name in (KEYS, RESPONSES, SHARES, CONTEXT)
        for value in (np.nan, np.inf, -np.inf)
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save an ensemble of kernel networks, and read the file."""
    path = tmp_path_factory.mktemp("model") / "honest"
    save_model(regressor(n_members=3, max_epochs=1).fit(X, Y), path)
    load_model(path)
    return path


@pytest.mark.parametrize("code", [-1, 3, 1e30])
def test_a_file_of_classes_that_are_not_there_is_refused(code, tmp_path):
    est = ProbMixupClassifier(method=kernel(max_epochs=1), n_members=2, random_state=0)
    save_model(est.fit(X, LABELS), tmp_path / "model")
    load_model(tmp_path / "model")
    parts = opened(tmp_path / "model")
    parts.tensors[RESPONSES][1, 7] = code
    store(parts.tensors, parts.document, tmp_path / "mutant")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(tmp_path / "mutant")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_file_whose_context_does_not_fit_is_refused(name, model, tmp_path):
    parts = opened(model)
    MUTANTS[name](parts.tensors)
    tensors = {name: value.contiguous() for name, value in parts.tensors.items()}
    store(tensors, parts.document, tmp_path / "mutant")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(tmp_path / "mutant")


def test_rows_that_partial_fit_sees_again_do_not_see_themselves():
    """Otherwise they would teach that a response is what the nearest row has, to the digit."""
    X, y = np.repeat(X_OF_CURVE, 2, axis=1), np.sin(3 * X_OF_CURVE[:, 0]) + NOISE
    est = regressor(n_members=2, local="constant", lr=0.01)
    for _ in range(40):
        est.partial_fit(X[:100], y[:100])
    assert nll(y[100:], est.predict_proba(X[100:])) < 1
    assert nll(y[:100], est.predict_proba(X[:100])) > -1


# -- the density, by numpy ------------------------------------------------------------------------


def dense(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def head(weights, name, z):
    return dense(weights, f"{name}.2", silu(dense(weights, f"{name}.0", z)))


def embedded(weights, x, n_layers):
    """Embed scaled rows, their columns beside the piecewise-linear encoding of these."""
    if "encoder.knots" in weights:
        knots = weights["encoder.knots"]
        start, width = knots[:, :-1], np.diff(knots).clip(1e-6)
        passed = ((x[..., None] - start) / width).clip(0, 1)
        x = np.concatenate([x, (2 * passed - 1).reshape(len(x), -1)], axis=1)
    for layer in range(n_layers):
        x = dense(weights, f"embedding.{2 * layer}", silu(x) if layer else x)
    return x


def mixture(est, X, member=None):
    """Weights (rows, k), means and variances (rows, k, outputs) of a network, in scaled units."""
    kind, state = est.kinds_[0], network(est).state_dict()
    weights = {
        k: v.double().numpy() if member is None else v[member].double().numpy()
        for k, v in state.items()
    }
    n_layers, n_outputs = len(kind.hidden_layer_sizes), est.n_outputs_
    z = embedded(weights, est.scaler_.transform(X), n_layers)
    keys = embedded(weights, weights["context"], n_layers)
    step = z[:, None] - keys
    distance = np.linalg.norm(step, axis=-1)
    weight = softmax(weights["shares"].T - np.exp(weights["log_scale"]) * distance, axis=1)
    mean = np.broadcast_to(weights["responses"], (*weight.shape, n_outputs))
    spread = head(weights, "spread", z)[:, None]
    floor = 0.04 * est.family_.variance_floor
    variance = np.exp(2 * spread[..., :n_outputs].clip(-9, 4)) + floor
    if kind.local == "linear":
        slope = head(weights, "slope", z).reshape(len(z), n_outputs, -1)
        mean = mean + np.einsum("rid,rod->rio", step, slope)
        growth = np.exp(spread[..., n_outputs:].clip(-9, 4) - 3)
        variance = variance + growth * distance[..., None] ** 2
    heavy = np.argsort(-weight, axis=1)[:, :32]
    parts = [np.take_along_axis(weight, heavy, 1)]
    parts += [
        np.take_along_axis(np.broadcast_to(m, mean.shape), heavy[..., None], 1)
        for m in (mean, variance)
    ]
    raw = head(weights, "background", z)
    return (
        np.append(parts[0], 1 - parts[0].sum(1, keepdims=True), axis=1),
        np.append(parts[1], raw[:, None, :n_outputs], axis=1),
        np.append(
            parts[2], np.logaddexp(0, raw[:, None, n_outputs:]) + est.family_.variance_floor, axis=1
        ),
    )


def density(est, mixtures, y):
    """Log-density of responses (rows, outputs) by the mean of mixtures."""
    y = (y - est.y_shift_) / est.y_scale_
    logs = []
    for weight, mean, variance in mixtures:
        log_p = -0.5 * ((y[:, None] - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(-1)
        logs.append(logsumexp(log_p, axis=1, b=weight.clip(1e-7)))
    return logsumexp(logs, axis=0) - np.log(len(logs)) - np.log(est.y_scale_).sum()


def logpdf(dist, y):
    return dist.joint_logpdf(y) if y.shape[1] > 1 else dist.logpdf(y[:, 0])


@pytest.mark.parametrize("n_knots", [None, 5])
@pytest.mark.parametrize("local", ["constant", "linear"])
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("n_members", [1, 3])
def test_the_density_is_that_of_its_weights(n_members, n_outputs, local, n_knots):
    y = np.stack([Y, X[:, 1] * X[:, 2]], axis=1)[:, :n_outputs]
    weight = np.random.default_rng(1).integers(1, 4, size=60)
    est = regressor(
        n_members=n_members, local=local, n_knots=n_knots, lr=0.02, max_epochs=6, calibration="off"
    )
    est.fit(X, y if n_outputs > 1 else Y, sample_weight=weight)
    members = [None] if n_members == 1 else range(n_members)
    query = np.concatenate([X, 3 * X])
    mixtures = [mixture(est, query, member) for member in members]
    dist, twice = est.predict_proba(query), np.tile(y, (2, 1))
    assert_allclose(logpdf(dist, twice), density(est, mixtures, twice), rtol=1e-3, atol=1e-3)
    assert_allclose(dist.weights.sum(axis=1), 1)
    if n_members > 1:
        assert_out_of_fold_densities(est, y)


def assert_out_of_fold_densities(est, y):
    """Each row has the density of the one member that does not know it."""
    out = held_out(est, X)
    of_members = [density(est, [mixture(est, X, m)], y) for m in range(est.n_members)]
    expected = np.stack(of_members, axis=1)[out]
    assert_allclose(logpdf(est.oof_predictive_, y), expected, rtol=1e-3, atol=1e-3)


def test_an_integer_weight_is_as_many_rows():
    n_copies = np.arange(8) % 3 + 1
    nets = []
    for copies, weight in [(1, torch.tensor(n_copies)), (n_copies, None)]:
        net = KernelNetwork(3, hidden_layer_sizes=(6,), generator=torch.Generator().manual_seed(0))
        x, y = (np.repeat(part[:8], copies, axis=0) for part in (X, Y[:, None]))
        net.remember(*map(torch.tensor, (x, y)), weight)
        nets.append(net.eval())
    query, points = torch.tensor(X[8:20], dtype=torch.float32), torch.zeros(12, 1, 1, 1)
    with torch.no_grad():
        weighted, repeated = (log_likelihood(Normal(), net(query), points) for net in nets)
        assert_allclose(weighted, repeated, rtol=1e-4)
        # One component for each row, and one of no weight for the others.
        shares = [net(query).log_weights.exp().sort().values for net in nets]
    assert shares[0].shape[1] == 9
    assert_allclose(shares[0].sum(1), 1, rtol=1e-6)


class Recorder(Callback):
    """Keep what a network predicts of its training batches, and the weights along the way."""

    def __init__(self):
        self.batches, self.latest, self.judged, self.begun = [], [], [], []

    def weights(self, net):
        return [p.detach().double().numpy().copy() for p in net.module_.parameters()]

    def on_train_begin(self, net, **kwargs):
        self.first = self.weights(net)

    def on_epoch_begin(self, net, **kwargs):
        self.begun.append(self.weights(net))

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        self.latest.append(self.weights(net))
        self.batches.append((batch.rows, [part.detach() for part in y_pred]))

    def on_epoch_end(self, net, **kwargs):
        self.judged.append(self.weights(net))


@pytest.mark.parametrize(("local", "n_seen"), [("linear", 30), ("constant", 60)])
def test_lines_are_learnt_from_half_of_the_context(local, n_seen):
    net = KernelNetwork(3, local=local, generator=torch.Generator().manual_seed(0))
    net.remember(torch.as_tensor(X).float(), torch.as_tensor(Y[:, None]).float())
    net.context.requires_grad_()
    net.train()(torch.zeros(8, 3)).log_weights.sum().backward()
    assert (net.context.grad != 0).any(dim=1).sum() == n_seen
    net.eval()(torch.zeros(8, 3))


@pytest.mark.parametrize(("n_members", "validation"), [(1, 0.2), (3, 0.2), (3, "cv")])
def test_a_response_is_no_part_of_the_density_of_its_own_row(n_members, validation):
    own = {"n_members": n_members, "validation": validation, "warm_start": True}
    # A step of lines might not see the row.
    first = regressor(**own, local="constant", batch_size="full", max_epochs=1).fit(X, Y)
    changed = Y.copy()
    changed[7] += 2
    seen = []
    for y in (Y, changed):
        recorder = Recorder()
        pickle.loads(pickle.dumps(first)).set_params(callbacks=[recorder]).fit(X, y)
        seen.append(recorder.batches[0])
    assert_array_equal(seen[0][0], seen[1][0])
    rows = seen[0][0].reshape(-1, 1).expand(-1, n_members) if validation != "cv" else seen[0][0]
    eta = [part[0].unflatten(1, (n_members, -1)) for _, part in seen]
    same = (eta[0] == eta[1]).flatten(2).all(2)
    assert (rows == 7).any()
    assert same[rows == 7].all()
    # Of this row alone: it is near enough to others to be one of their heaviest.
    assert not same[rows != 7].all()


def test_the_weights_that_are_judged_and_kept_are_averages_of_all_steps():
    recorder = Recorder()
    est = regressor(n_members=1, lr_schedule="averaged", validation=None, batch_size=20)
    est.set_params(callbacks=[recorder], max_epochs=4).fit(X, Y)
    average = recorder.first
    assert len(recorder.latest) == 12
    for n_steps, latest in enumerate(recorder.latest, start=1):
        decay = min(0.99, (1 + n_steps) / (10 + n_steps))
        average = [
            decay * old + (1 - decay) * new for old, new in zip(average, latest, strict=True)
        ]
        if n_steps % 3 == 0:
            for mine, judged in zip(average, recorder.judged[n_steps // 3 - 1], strict=True):
                assert_allclose(judged, mine, atol=1e-6)
            # An epoch goes on from the latest weights.
            for mine, begun in zip(
                latest, ([*recorder.begun[1:], latest])[n_steps // 3 - 1], strict=True
            ):
                assert_array_equal(mine, begun)
    for mine, kept in zip(average, recorder.weights(est.net_), strict=True):
        assert_allclose(kept, mine, atol=1e-6)
    assert dict(est.net_.callbacks_)["averaged_weights"].latest_ is None


def test_keys_are_of_the_weights_when_evaluation_begins():
    est = regressor(n_members=2).fit(X, Y)
    net = network(est)
    before = net.keys.clone()
    est.net_.module_.train()
    with torch.no_grad():
        net.embedding[2].bias += 1
    assert_array_equal(net.keys, before)
    est.net_.module_.eval()
    assert_allclose(net.keys, before + 1, atol=1e-6)


# -- bits -----------------------------------------------------------------------------------------


def bits(est, X):
    dist = est.predict_proba(X)
    return dist.params | {"weights": dist.weights}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert_array_equal(value, b[name], err_msg=name)


@pytest.mark.parametrize(
    "case",
    [
        {"n_members": 1, "hidden_layer_sizes": (1,), "local": "constant"},
        {"n_members": 1, "hidden_layer_sizes": (), "n_knots": 3},
        {"n_members": 2, "hidden_layer_sizes": (7,)},
        {"n_members": 3, "hidden_layer_sizes": (33, 17), "n_knots": 9},
    ],
    ids=str,
)
def test_bits_of_a_row_do_not_depend_on_other_rows_or_threads(case):
    est = regressor(**case, max_epochs=1).fit(X, Y)
    rng = np.random.default_rng(1)
    query = rng.normal(size=(300, 3)) * np.exp(rng.normal(size=(300, 1)))
    whole = bits(est, query)
    choices = [
        np.arange(start, start + n) for n in (1, 31, 33, 64, 65, 129, 257) for start in (0, 41)
    ]
    choices += [np.random.default_rng(1).permutation(300), np.repeat([7, 299], 9)]
    for rows in choices:
        assert_same_bits(bits(est, query[rows]), {k: v[rows] for k, v in whole.items()})
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: bits(est, query), range(6)):
            assert_same_bits(found, whole)


@pytest.mark.parametrize("n_members", [1, 3])
def test_copies_have_the_bits_of_the_model(n_members, tmp_path):
    kinds = [kernel(lr_schedule="averaged"), kernel(local="constant", n_knots=4)]
    est = ProbMixupRegressor(method=kinds, n_members=n_members, random_state=0).fit(X, Y)
    save_model(est, tmp_path / "model")
    copies = [pickle.loads(pickle.dumps(est)), load_model(tmp_path / "model")]
    for other in [*copies, clone(est).fit(X, Y)]:
        assert_same_bits(bits(other, X), bits(est, X))
        other.partial_fit(X, Y)
        assert np.isfinite(other.predict(X)).all()
    assert network(est).places is None
    assert network(est).own is None


def test_warm_start_looks_at_the_rows_of_the_new_table():
    est = regressor(n_members=3, warm_start=True, dropout="auto").fit(X, Y)
    assert network(est).context.shape[1] == 40
    est.fit(X[:31], Y[:31])
    assert network(est).context.shape[1] == 21
    assert (held_out(est, X[:31]).sum(axis=1) == 1).all()
    alone = regressor(n_members=3, warm_start=True, dropout="auto").fit(X, Y).fit(X[:31], Y[:31])
    assert_same_bits(bits(alone, X), bits(est, X))


# -- which kinds ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "family"),
    [
        *(({}, name) for name in ("gamma", "poisson", "bernoulli", "homoscedastic-normal")),
        *(({"method": name}, "normal") for name in ("mixup", "probmix", "m-probmix")),
        ({"monitor": "crps"}, "normal"),
        ({"variance_weighting": 0.5}, "normal"),
    ],
)
def test_a_kernel_is_refused_what_it_cannot_do(fields, family):
    kind = kernel(**fields)
    assert not kind.fits(get_family(family))
    with pytest.raises(ValueError, match="network='kernel'"):
        kind.check(get_family(family))
    with pytest.raises(ValueError, match="network='kernel'"):
        ProbMixupRegressor(method=kind, family=family).fit(X, (Y > 0) * 1.0 + (family == "gamma"))


class Own(torch.nn.Module):
    """A module of one's own, which may call its layers as it likes."""

    def __init__(self, n_features, family):
        super().__init__()
        self.family = family
        self.own = torch.nn.Linear(n_features, 2)

    def forward(self, X):
        return self.family.natural(self.own(X).unsqueeze(1))


@pytest.mark.parametrize("n_members", [1, 2])
def test_only_kernel_networks_are_told_the_rows_of_a_batch(n_members):
    settings = {"max_epochs": 30, "verbose": 0, "lr": 0.1}
    own = NeuralNet(Own, NegativeLogLikelihood, **settings)
    est = ProbMixupRegressor(method=kernel(), net=own, n_members=n_members, random_state=0)
    assert np.isfinite(est.fit(X, Y).predict(X)).all()
    kernels = NeuralNet(KernelNetwork, NegativeLogLikelihood, module__local="constant", **settings)
    est.set_params(net=kernels, method="erm", validation=None).fit(X, Y)
    assert "leave_one_out" in dict(est.net_.callbacks_)
    assert nll(Y, est.predict_proba(X)) > -2


@pytest.mark.parametrize(
    "family", ["normal", "lognormal", "transformed", Normal(variance_floor=1e-3)]
)
def test_kernels_fit_normal_families(family):
    kernel().check(get_family(family))
    assert kernel().fits(get_family(family))


@pytest.mark.parametrize(
    ("settings", "n_kernels"),
    [
        ({"family": "normal"}, 3),
        ({"family": "lognormal"}, 3),
        ({"family": "normal", "method": "parametric"}, 0),
        ({"family": "gamma"}, 0),
        ({"family": "homoscedastic-normal"}, 0),
    ],
    ids=str,
)
def test_auto_has_kernels_where_they_fit(settings, n_kernels, tmp_path):
    small = {"hidden_layer_sizes": (4,), "n_members": 2, "max_epochs": 1, "random_state": 0}
    est = ProbMixupRegressor(**settings | small).fit(X, np.exp(Y))
    kernels = [kind for kind in est.kinds_ if kind.network == "kernel"]
    assert (len(kernels), len(est.kinds_)) == (n_kernels, 4 + n_kernels)
    save_model(est, tmp_path / "model")
    contexts = [name for name in opened(tmp_path / "model").tensors if name.endswith("context")]
    assert len(contexts) == n_kernels
    assert load_model(tmp_path / "model").kinds_ == est.kinds_


def test_kinds_that_add_nothing_are_not_delivered(monkeypatch, tmp_path):
    linear = Kind(hidden_layer_sizes=(), lr=0.05, n_steps=400)
    slow = Kind(hidden_layer_sizes=(4,), lr=1e-6, n_steps=2000)
    neighbours = kernel(local="constant", max_epochs="auto", n_steps=100)
    monkeypatch.setattr(ProbMixupRegressor, "_auto_kinds", (slow, linear, neighbours))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = x @ [1.0, 2.0, -1.0] + 0.05 * rng.normal(size=80)
    est = ProbMixupRegressor(n_members=2, random_state=0).fit(x, y)
    assert [kind.lr for kind in est.kinds_] == [0.05]
    assert est.weights_ == 1
    again = ProbMixupRegressor(n_members=2, random_state=0).fit(x, y)
    assert again.kinds_ == est.kinds_
    assert_same_bits(bits(again, x), bits(est, x))
    save_model(est, tmp_path / "model")
    assert_same_bits(bits(load_model(tmp_path / "model"), x), bits(est, x))


@pytest.mark.parametrize(
    ("y", "step"),
    [
        ([1, 2, 4], 1),
        ([0, 10, 30], 10),
        ([-3.5, -1.0, 1.5], 2.5),
        ([0.1 + 0.2, 0.1, 0.7], 0.2),
        ([0.1, 0.2, 0.35], 0.05),
        ([1e-6, 4e-6], 3e-6),
        ([1e12, 3e12], 2e12),
        ([1e9 + 0.25, 1e9], 0.25),
        ([5.0, 5.0], 0),
        ([0.0], 0),
        ([np.pi, np.e], 0),
        ([1e-20, 3e-20], 0),
        ([1e20, 3e20], 0),
        ([1e300, -1e308], 0),
        ([1 / 3, 2 / 3], 0),
        ([1, 2, 4 + 1e-9], 0),
    ],
)
def test_steps_of_rounded_responses(y, step):
    assert_allclose(rounding_step(np.array(y, dtype=float)), step, rtol=1e-12)


# -- bad tables -----------------------------------------------------------------------------------


def tables():
    n = 24
    x, y = X[:n], Y[:n]
    yield from ((f"{n} rows", X[:n], Y[:n], {}) for n in (2, 3, 6, 9, 10, 12, 31, 34))
    yield "equal rows", np.ones((n, 3)), y, {}
    yield "all equal", np.ones((n, 3)), np.ones(n), {}
    yield "equal responses", x, np.full(n, 3.0), {}
    copies, groups = np.repeat(x[:6], 4, axis=0), np.repeat(np.arange(6), 4)
    yield "copies", copies, y, {}
    yield "copies in groups", copies, y, {"groups": groups}
    yield "copies with their responses", copies, np.repeat(y[:6], 4), {}
    yield "a constant column", np.c_[x, np.full(n, 7.0)], y, {}
    yield "few values", x, np.round(y), {}
    yield "0 and 1", x, (y > 0) * 1.0, {}
    yield "a single 1", x, np.eye(n)[5], {}
    for scale in (1e-20, 1e20):
        yield f"x by {scale}", scale * x, y, {}
        yield f"y by {scale}", x, scale * y, {}
    yield "an outlier", x, np.where(np.arange(n) == 3, 1e12, y), {}
    yield "unequal weights", x, y, {"sample_weight": np.r_[1e9, 1e-9, np.ones(n - 2)]}
    yield "a constant output", x, np.c_[y, np.ones(n)], {}


TABLES = {name: table for name, *table in tables()}


def assert_valid(dist):
    mean, sd = dist.mean(), dist.std()
    quantiles = dist.ppf([0.01, 0.5, 0.99])
    finite = mean, sd, quantiles, dist.rvs(3, random_state=0), dist.logpdf(mean), dist.crps(mean)
    for value in finite:
        assert np.isfinite(value).all()
    assert (sd > 0).all()
    assert (np.diff(quantiles, axis=0) >= 0).all()
    assert (dist.pdf(mean) >= 0).all()
    assert ((dist.cdf(mean) > 0) & (dist.cdf(mean) < 1)).all()


@pytest.mark.filterwarnings("ignore:.*too few to hold some out")
@pytest.mark.parametrize("local", ["constant", "linear"])
@pytest.mark.parametrize("name", TABLES)
def test_bad_tables_give_valid_densities(name, local):
    x, y, more = TABLES[name]
    n_members = 2 if len(x) % 3 else 1
    est = regressor(n_members=n_members, local=local, n_knots=5, lr=0.02, max_epochs=10)
    est.fit(x, y, **more)
    sd = x.std(axis=0) + (x.std(axis=0) == 0)
    far = x.mean(axis=0) + 1e6 * sd * np.random.default_rng(1).normal(size=(6, len(sd)))
    assert_valid(est.predict_proba(np.concatenate([x, far])))
