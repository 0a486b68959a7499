"""What the paper states, each with a computation by hand next to it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats
from skorch import NeuralNet
from torch import nn
from torch.nn.functional import cross_entropy, softplus

from benchmarks.data import load_uci_split
from sklearn_probmix import (
    Kind,
    NegativeLogLikelihood,
    NeighborLoader,
    ProbMixup,
    ProbMixupRegressor,
    get_family,
)
from sklearn_probmix.datasets import cubic_mean, heteroscedastic_cubic_sd
from sklearn_probmix.families import Normal
from sklearn_probmix.modules import MLP
from sklearn_probmix.pooling import log_linear_pool, mix_responses

N, N_FEATURES, N_CLASSES = 24, 3, 4
CATEGORICAL = get_family("categorical", n_classes=N_CLASSES)


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    torch.manual_seed(0)


def data(family):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, N_FEATURES)).astype("float32")
    if family == CATEGORICAL:
        return X, rng.integers(N_CLASSES, size=N)
    return X, rng.normal(size=N).astype("float32")


class Step:
    """One step of a net at rate 1, from the same initial weights every time."""

    def __init__(self, module, mixup, **module_arguments):
        torch.manual_seed(1)
        net = NeuralNet(
            module,
            **{f"module__{name}": value for name, value in module_arguments.items()},
            criterion=NegativeLogLikelihood,
            criterion__family=mixup.family,
            optimizer=torch.optim.SGD,
            lr=1.0,
            max_epochs=1,
            batch_size=N,
            train_split=None,
            verbose=0,
            callbacks=[mixup],
        ).initialize()
        self.initial = copy.deepcopy(net.module_)
        X, y = data(mixup.family)
        net.partial_fit(X, y)
        self.loss = net.history[-1, "train_loss"]
        pairs = zip(self.initial.parameters(), net.module_.parameters(), strict=True)
        self.gradient = torch.cat([(old - new).detach().flatten() for old, new in pairs])
        if mixup.alpha > 0:
            X, y = torch.from_numpy(X), torch.from_numpy(y)
            self.lam = mixup.draw_.lam.float()
            self.x_i, self.x_j = X, X[mixup.draw_.partner]
            self.y_i, self.y_j = y, y[mixup.draw_.partner]

    def assert_is(self, loss):
        """Compare loss and gradient with those of an equation on the initial weights."""
        weights = [weight for weight in self.initial.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        gradient = torch.cat([value.flatten() for value in gradients])
        assert self.loss == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(self.gradient, gradient, rtol=1e-4, atol=1e-5)

    def assert_equals(self, other):
        assert self.loss == pytest.approx(other.loss, rel=1e-5)
        torch.testing.assert_close(self.gradient, other.gradient, rtol=1e-4, atol=1e-5)
        assert self.gradient.abs().max() > 1e-2


def mixing(site, family, response="expected"):
    return ProbMixup(site=site, family=family, alpha=1.0, response=response, random_state=0)


# --- Theorems 4.3 to 4.7 -----------------------------------------------------------------------


def test_theorem_4_3_pooled_categoricals_have_mixed_logits():
    rng = np.random.default_rng(0)
    logits_i, logits_j = rng.normal(0, 3, (2, 50, N_CLASSES))
    lam = rng.uniform(size=50)
    powers = special.softmax(logits_i, 1) ** lam[:, None]
    powers = powers * special.softmax(logits_j, 1) ** (1 - lam)[:, None]
    pooled = log_linear_pool(*map(torch.from_numpy, (logits_i, logits_j, lam)))
    codes = torch.arange(N_CLASSES).reshape(-1, 1, 1)
    p = CATEGORICAL.log_prob(pooled.unsqueeze(1), codes)[..., 0].exp().T
    np.testing.assert_allclose(p, powers / powers.sum(1, keepdims=True), rtol=1e-10)


def mlp_step(mixup, hidden_layer_sizes=(6,), **arguments):
    return Step(
        MLP,
        mixup,
        n_features=N_FEATURES,
        family=mixup.family,
        hidden_layer_sizes=hidden_layer_sizes,
        **arguments,
    )


def test_theorem_4_3_probmix_is_mixing_logits():
    step = mlp_step(mixing("output", CATEGORICAL))
    logits_i, logits_j = (step.initial(x)[:, 0] for x in (step.x_i, step.x_j))
    lam = step.lam
    logits = lam[:, None] * logits_i + (1 - lam)[:, None] * logits_j
    loss_i, loss_j = (cross_entropy(logits, y, reduction="none") for y in (step.y_i, step.y_j))
    step.assert_is((lam * loss_i + (1 - lam) * loss_j).mean())


HOMOSCEDASTIC = "homoscedastic-normal"


def homoscedastic_nll(mean, variance, y):
    return (torch.log(2 * torch.pi * variance) + (y - mean) ** 2 / variance) / 2


@pytest.mark.parametrize("response", ["expected", "pooled"])
def test_theorem_4_4_probmix_is_mixing_means(response):
    step = mlp_step(mixing("output", HOMOSCEDASTIC, response))
    mlp, lam, y_i, y_j = step.initial, step.lam, step.y_i, step.y_j
    mean_i, mean_j = (mlp.head(mlp.embedding(x))[:, 0] for x in (step.x_i, step.x_j))
    mean = lam * mean_i + (1 - lam) * mean_j
    variance = softplus(mlp.shared[0, 0]) + 1e-6
    if response == "pooled":
        loss = homoscedastic_nll(mean, variance, lam * y_i + (1 - lam) * y_j)
    else:
        loss = lam * homoscedastic_nll(mean, variance, y_i)
        loss = loss + (1 - lam) * homoscedastic_nll(mean, variance, y_j)
    step.assert_is(loss.mean())


LINEAR = [(CATEGORICAL, "expected"), (HOMOSCEDASTIC, "expected"), (HOMOSCEDASTIC, "pooled")]


@pytest.mark.parametrize(
    ("family", "response"), LINEAR, ids=["4.5 logistic", "4.6 linear", "4.6 linear, pooled"]
)
def test_theorems_4_5_and_4_6_probmix_of_a_linear_network_is_mixup(family, response):
    probmix = mlp_step(mixing("output", family, response), ())
    probmix.assert_equals(mlp_step(mixing("input", family, response), ()))


@pytest.mark.parametrize(("family", "hidden"), [(CATEGORICAL, (6,)), ("normal", ())])
def test_theorems_4_5_and_4_6_need_their_assumptions(family, hidden):
    # A hidden layer, or a variance that depends on x, and the two differ.
    probmix, mixup = (mlp_step(mixing(site, family), hidden) for site in ("output", "input"))
    assert (probmix.gradient - mixup.gradient).abs().max() > 1e-2


class Mean(nn.Module):
    """Propagates the mean of a Normal embedding, without drawing from it."""

    def forward(self, eta):
        return Normal.moments(eta)[0]


class MeanEmbedding(nn.Module):
    """Two-layer network whose embedding is a Normal of one variance, or a point."""

    def __init__(self, family, variance=None):
        super().__init__()
        self.family, self.variance = get_family(family), variance
        self.hidden = nn.Sequential(nn.Linear(N_FEATURES, 6), nn.Tanh())
        self.embedding = nn.Identity()
        self.propagate = nn.Identity() if variance is None else Mean()
        self.head = nn.Linear(6, self.family.n_params)

    def forward(self, X):
        z = self.hidden(X)
        if self.variance is not None:
            precision = torch.full_like(z, 1 / self.variance)
            z = torch.stack([z * precision, -0.5 * precision], dim=-1)
        z = self.propagate(self.embedding(z))
        return self.family.natural(self.head(z).unsqueeze(1))


@pytest.mark.parametrize("family", [CATEGORICAL, "normal"], ids=["categorical", "normal"])
@pytest.mark.parametrize("variance", [0.01, 1.0, 30.0])
def test_theorem_4_7_means_of_m_probmix_are_manifold_mixup(family, variance):
    mixup = mixing("embedding", family)
    m_probmix = Step(MeanEmbedding, mixup, family=family, variance=variance)
    step = Step(MeanEmbedding, mixing("embedding", family), family=family)
    m_probmix.assert_equals(step)
    module, lam = step.initial, step.lam
    z_i, z_j = module.hidden(step.x_i), module.hidden(step.x_j)
    z = lam[:, None] * z_i + (1 - lam)[:, None] * z_j
    eta = module.family.natural(module.head(z).unsqueeze(1))
    log_i, log_j = (module.family.log_prob(eta, y[:, None])[:, 0] for y in (step.y_i, step.y_j))
    step.assert_is(-(lam * log_i + (1 - lam) * log_j).mean())


# --- Section 3.2.3 -----------------------------------------------------------------------------


def true_density(x):
    """Natural parameters of p(y | x) in y = x^3 + (0.5 x^2 + 1) e."""
    X = x.double().numpy().reshape(-1, 1)
    mean, variance = cubic_mean(X), heteroscedastic_cubic_sd(X) ** 2
    eta = np.stack([mean / variance, -0.5 / variance], axis=-1)
    return torch.from_numpy(eta).reshape(-1, 1, 2)


X_I, X_J = torch.tensor([5.0]).double(), torch.tensor([-5.0]).double()
Y_I, Y_J = torch.tensor([[130.0]]).double(), torch.tensor([[-120.0]]).double()
LAM = torch.tensor([0.8], dtype=torch.float64)


def mixed_example(method):
    if method == "mixup":
        return true_density(log_linear_pool(X_I, X_J, LAM))
    return log_linear_pool(true_density(X_I), true_density(X_J), LAM)


def test_section_3_2_3_response():
    points, weights = mix_responses(get_family("normal"), Y_I, Y_J, LAM, response="pooled")
    assert (points.item(), weights.item()) == (pytest.approx(80.0), 1.0)


@pytest.mark.parametrize(
    ("method", "mean", "variance"), [("mixup", 27.0, 30.25), ("probmix", 75.0, 182.25)]
)
def test_section_3_2_3_predictions(method, mean, variance):
    params = get_family("normal").scipy_parameters(mixed_example(method))
    assert params["loc"].item() == pytest.approx(mean)
    assert params["scale"].item() ** 2 == pytest.approx(variance)


@pytest.mark.parametrize(("method", "nll"), [("mixup", 49.05), ("probmix", 3.59)])
def test_section_3_2_3_nll(method, nll):
    loss = NegativeLogLikelihood("normal")(mixed_example(method), torch.tensor([[80.0]]))
    assert round(loss.item(), 2) == nll


# --- the ends of lam ---------------------------------------------------------------------------


class Ones:
    """Generator of a Beta law with all its mass at 1."""

    def __init__(self, rng):
        self.permutation, self.random = rng.permutation, rng.random

    def beta(self, a, b, size):
        return np.ones(size)


class AllOwn(ProbMixup):
    """Mixup whose every lam is 1."""

    def initialize(self):
        super().initialize()
        self.rng_ = Ones(self.rng_)
        return self


@pytest.mark.parametrize("family", ["normal", HOMOSCEDASTIC, CATEGORICAL])
@pytest.mark.parametrize("site", ["input", "embedding", "output"])
@pytest.mark.parametrize("pooling", ["log-linear", "linear"])
def test_lam_one_is_erm(site, family, pooling):
    mixed = mlp_step(AllOwn(site=site, family=family, pooling=pooling))
    mixed.assert_equals(mlp_step(ProbMixup(family=family, alpha=0)))


def test_lam_one_of_m_probmix_is_a_latent_variable_model():
    arguments = {"embedding": "gaussian"}
    step = mlp_step(AllOwn(site="embedding"), **arguments)
    erm = mlp_step(ProbMixup(alpha=0))
    assert abs(step.loss - erm.loss) > 1e-3
    # The same as no mixing of the same network, whose z is drawn.
    step.assert_equals(mlp_step(ProbMixup(alpha=0), **arguments))


K = 3


def neighbour_graph():
    """Loader of a graph with rows of unequal in-degree, and the edges (origin, end)."""
    X = np.random.default_rng(0).exponential(size=(N, 2)).astype("float32")
    y = np.arange(N, dtype="float32")
    loader = NeighborLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y)),
        batch_size=N,
        n_neighbors=K,
        random_state=0,
    )
    flat = (X - X.mean(0)) / X.std(0)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return loader, [(i, j) for i in range(N) for j in np.argsort(distance[i])[:K]]


def test_alpha_to_zero_on_neighbours_weighs_rows_by_their_in_degree():
    _, edges = neighbour_graph()
    in_degree = np.bincount([j for _, j in edges], minlength=N)
    assert len(set(in_degree)) > 3
    # Every edge with probability 1 / (N K), and lam 0 or 1 with probability 1 / 2 each.
    weight = np.zeros(N)
    for i, j in edges:
        weight[i] += 0.5 / (N * K)
        weight[j] += 0.5 / (N * K)
    np.testing.assert_allclose(weight, (1 + in_degree / K) / 2 / N)


def test_alpha_to_zero_draws_rows_by_their_in_degree():
    loader, edges = neighbour_graph()
    mixup = ProbMixup(site="input", alpha=1e-32, random_state=0).initialize()
    counts, n_epochs = np.zeros(N), 1000
    for _ in range(n_epochs):
        for batch in loader:
            rows = batch[1].numpy().copy()
            mixup.on_batch_begin(None, batch=batch, training=True)
            seen = batch[1].points.flatten().numpy()
            lam, partner = mixup.draw_.lam.numpy(), mixup.draw_.partner.numpy()
            np.testing.assert_array_equal(seen, np.where(lam == 1, rows, rows[partner]))
            counts += np.bincount(seen.astype(int), minlength=N)
    in_degree = np.bincount([j for _, j in edges], minlength=N)
    expected = (1 + in_degree / K) / 2 * n_epochs
    # Origins are drawn without replacement, and one edge gives two rows: the counts vary less
    # than 2.5 times what independent draws would.
    assert (np.abs(counts - expected) < 4 * np.sqrt(2.5 * expected)).all()
    uniform = counts.sum() / N
    assert (np.abs(counts - uniform) > 4 * np.sqrt(2.5 * uniform)).any()


def test_alpha_to_zero_on_the_complete_graph_is_erm_in_expectation():
    mixup = ProbMixup(site="input", alpha=1e-32, random_state=0).initialize()
    counts, n_epochs = np.zeros(N), 500
    for _ in range(n_epochs):
        batch = [torch.zeros(N, 1), torch.arange(N).float()]
        mixup.on_batch_begin(None, batch=batch, training=True)
        counts += np.bincount(batch[1].points.flatten().int().numpy(), minlength=N)
    # A row counts 0, 1 or 2 times in a batch: binomial with two trials.
    assert stats.chi2(N).sf((((counts - n_epochs) ** 2) / (n_epochs / 2)).sum()) > 1e-3


# --- Appendix B --------------------------------------------------------------------------------


def with_draws(n_mixes, objective):
    return ProbMixup(
        alpha=1.0,
        n_mixes=n_mixes,
        objective=objective,
        response="expected",
        family="normal",
        random_state=0,
    )


def appendix_b_losses(n_mixes):
    """Both criteria on the same draws of lam and y~ and the same outputs."""
    mixup = with_draws(n_mixes, "log-expected").initialize()
    X, y = data("normal")
    mixup.on_batch_begin(None, batch=[torch.from_numpy(X), torch.from_numpy(y)], training=True)
    eta = get_family("normal").natural(torch.randn(N, 1, 2))
    pooled = log_linear_pool(eta.repeat(n_mixes, 1, 1), eta[mixup.draw_.partner], mixup.draw_.lam)
    criterion = NegativeLogLikelihood("normal")
    log_expected = criterion(pooled, mixup.target_)
    expected_log = criterion(pooled, replace(mixup.target_, draws=1))
    params = get_family("normal").scipy_parameters(pooled)
    log_p = stats.norm.logpdf(
        mixup.target_.points[:, 0, 0], **{name: value.numpy() for name, value in params.items()}
    ).reshape(n_mixes, N)
    return expected_log.item(), log_expected.item(), log_p


@pytest.mark.parametrize("n_mixes", [1, 2, 10])
def test_appendix_b_criteria_by_hand(n_mixes):
    expected_log, log_expected, log_p = appendix_b_losses(n_mixes)
    assert expected_log == pytest.approx(-log_p.mean(), rel=1e-5)
    assert log_expected == pytest.approx(-np.log(np.exp(log_p).mean(0)).mean(), rel=1e-5)


@pytest.mark.parametrize("n_mixes", [2, 10])
def test_appendix_b_log_expected_is_the_larger_likelihood(n_mixes):
    expected_log, log_expected, _ = appendix_b_losses(n_mixes)
    assert -log_expected > -expected_log + 1e-3


def test_appendix_b_criteria_coincide_for_one_draw():
    expected_log, log_expected, _ = appendix_b_losses(1)
    assert log_expected == pytest.approx(expected_log, rel=1e-6)


# --- Table 1 -----------------------------------------------------------------------------------


def test_m_probmix_on_yacht(uci_root):
    # The paper has .27 ± .36 after 1000 epochs over 20 splits; a constant prediction has 4.1.
    X_train, X_test, y_train, y_test = load_uci_split(uci_root / "yacht", 0)
    est = ProbMixupRegressor(
        method=Kind("m-probmix", response="pooled", lr_schedule="constant", n_iter_no_change=None),
        n_members=1,
        alpha=0.1,
        hidden_layer_sizes=(128, 32),
        lr=0.005,
        batch_size="full",
        max_epochs=300,
        random_state=0,
    ).fit(X_train, y_train)
    assert -est.predict_proba(X_test).logpdf(y_test).mean() < 1.0
