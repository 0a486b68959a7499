import copy
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from sample_y import EDGES, TAILS, VALUES, some_family, some_y
from scipy import stats
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn
from torch.nn.functional import logsigmoid, softplus

from sklearn_probmix import NegativeLogLikelihood, NeighborLoader, ProbMixup, get_family
from sklearn_probmix.callbacks import BestEpoch
from sklearn_probmix.mixing import Target
from sklearn_probmix.modules import MLP
from sklearn_probmix.table import Table

N, N_FEATURES = 12, 3
FAMILIES = [
    "normal",
    "homoscedastic-normal",
    "lognormal",
    "transformed",
    "hurdle",
    "gamma",
    "beta",
    "poisson",
    "negative-binomial",
    "bernoulli",
    "categorical",
    "histogram",
    "lattice",
]
SMOOTH = ("normal", "homoscedastic-normal", "lognormal", "transformed")
CLASSES = {"bernoulli": 2, "categorical": 3}
BINS = {"histogram": EDGES, "lattice": np.array([0.5, 1.75, 3.25])}
N_RAW = {"categorical": 3, "hurdle": 3, "histogram": 5, "lattice": 4}


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    torch.manual_seed(0)


# --- densities in their ordinary parametrisation: the truth to compare with -------------------


def parameters(family, raw):
    """Ordinary parameters from raw outputs, as the families' docstrings state them."""
    if family in SMOOTH:
        return raw[..., 0], softplus(raw[..., 1]) + 1e-6
    if family == "hurdle":
        return torch.sigmoid(raw[..., 0]), *parameters("lognormal", raw[..., 1:])
    if family == "gamma":
        mean, shape = softplus(raw[..., 0]), softplus(raw[..., 1])
        return shape, shape / mean
    if family == "beta":
        mean, size = torch.sigmoid(raw[..., 0]), softplus(raw[..., 1])
        return mean * size, (1 - mean) * size
    if family == "poisson":
        return (raw[..., 0].exp(),)
    if family == "negative-binomial":
        return raw[..., 0].exp(), (6 * raw[..., 1]).exp()
    if family == "bernoulli":
        return (torch.sigmoid(raw[..., 0]),)
    return (raw.exp() / raw.exp().sum(-1, keepdim=True),)


def log_pdf(family, params, y):
    """Log-density of y, which broadcasts with the parameters (with their batch for classes)."""
    if family in ("normal", "homoscedastic-normal", "transformed"):
        mean, variance = params
        return -((y - mean) ** 2) / (2 * variance) - torch.log(2 * math.pi * variance) / 2
    if family == "lognormal":
        return log_pdf("normal", params, y.log()) - y.log()
    if family == "hurdle":
        positive = log_pdf("lognormal", params[1:], torch.where(y > 0, y, 1.0))
        return torch.where(y > 0, params[0].log() + positive, torch.log1p(-params[0]))
    if family == "gamma":
        shape, rate = params
        return shape * rate.log() - torch.lgamma(shape) + (shape - 1) * y.log() - rate * y
    if family == "beta":
        a, b = params
        constant = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
        return constant + (a - 1) * y.log() + (b - 1) * torch.log(1 - y)
    if family == "beta of a logit":  # y near 1 is not a float64, its logit is
        a, b = params
        constant = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
        return constant + (a - 1) * logsigmoid(y) + (b - 1) * logsigmoid(-y)
    if family == "poisson":
        return y * params[0].log() - params[0] - torch.lgamma(y + 1)
    if family == "negative-binomial":
        mean, size = params
        ways = torch.lgamma(y + size) - torch.lgamma(size) - torch.lgamma(y + 1)
        total = torch.log(mean + size)
        return ways + size * (size.log() - total) + y * (mean.log() - total)
    if family == "bernoulli":
        return torch.where(y == 1, params[0], 1 - params[0]).log()
    code = y.long()
    if family in BINS:
        code = (y.unsqueeze(-1) > torch.tensor(BINS[family]).double()).sum(-1)
    shape = torch.broadcast_shapes(code.shape, params[0].shape[:-1])
    p = params[0].expand(*shape, -1)
    log_p = p.gather(-1, code.expand(shape).unsqueeze(-1)).squeeze(-1).log()
    if family != "histogram":
        return log_p
    size = torch.tensor([TAILS[0], *np.diff(EDGES), TAILS[1]]).double()[code]
    beyond = (EDGES[0] - y).clamp(min=0) / TAILS[0] + (y - EDGES[-1]).clamp(min=0) / TAILS[1]
    return log_p - size.log() - beyond


def scipy_log_pdf(family, params, y):
    p, y = [value.numpy() for value in params], y.numpy()
    match family:
        case "normal" | "homoscedastic-normal" | "transformed":
            return stats.norm.logpdf(y, p[0], np.sqrt(p[1]))
        case "lognormal":
            return stats.lognorm.logpdf(y, np.sqrt(p[1]), scale=np.exp(p[0]))
        case "hurdle":
            positive = stats.lognorm.logpdf(np.where(y > 0, y, 1), np.sqrt(p[2]), 0, np.exp(p[1]))
            return np.where(y > 0, np.log(p[0]) + positive, np.log1p(-p[0]))
        case "gamma":
            return stats.gamma.logpdf(y, p[0], scale=1 / p[1])
        case "beta":
            return stats.beta.logpdf(y, *p)
        case "poisson":
            return stats.poisson.logpmf(y, p[0])
        case "negative-binomial":
            return stats.nbinom.logpmf(y, p[1], p[1] / (p[0] + p[1]))
        case "bernoulli":
            return stats.bernoulli.logpmf(y, p[0])
        case "categorical":
            return stats.multinomial.logpmf(np.eye(3)[y.astype(int)], 1, p[0])
        case "lattice":
            return stats.multinomial.logpmf(y[..., None] == VALUES, 1, p[0])
        case "histogram":
            parts = [stats.uniform(low, high - low) for low, high in pairwise(EDGES)]
            tails = stats.expon(-EDGES[0], TAILS[0]), stats.expon(EDGES[-1], TAILS[1])
            densities = [tails[0].pdf(-y), *(part.pdf(y) for part in parts), tails[1].pdf(y)]
            return np.log((p[0] * np.stack(densities, axis=-1)).sum(-1))


def points_of_support(family):
    """Points and log of their quadrature weights: the trapezoidal rule, or every count."""
    if family in CLASSES:
        return torch.arange(CLASSES[family]).double(), torch.zeros(CLASSES[family]).double()
    if family == "lattice":
        return torch.tensor(VALUES).double(), torch.zeros(len(VALUES)).double()
    if family == "histogram":
        # A bin has one density; the exponential one of a tail is 1 / e of its peak at its mean.
        middle = [(low + high) / 2 for low, high in pairwise(EDGES)]
        points = [EDGES[0] - TAILS[0], *middle, EDGES[-1] + TAILS[1]]
        weights = [math.e * TAILS[0], *np.diff(EDGES), math.e * TAILS[1]]
        return torch.tensor(points).double(), torch.tensor(weights).double().log()
    if family == "negative-binomial":
        return torch.arange(3000).double(), torch.zeros(3000).double()
    if family == "poisson":
        return torch.arange(300).double(), torch.zeros(300).double()
    if family == "beta":
        u = torch.arange(-1000, 1000, 0.25, dtype=torch.float64)
        return u, logsigmoid(u) + logsigmoid(-u) + math.log(0.25)
    if family == "hurdle":
        points, weights = points_of_support("lognormal")
        zero = torch.zeros(1).double()
        return torch.cat([zero, points]), torch.cat([zero, weights])
    if family in ("lognormal", "gamma"):
        u = torch.arange(-300, 300, 0.1, dtype=torch.float64)
        return u.exp(), u + math.log(0.1)
    u = torch.arange(-150, 150, 0.05, dtype=torch.float64)
    return u, torch.full_like(u, math.log(0.05))


def pooled_log_pdf(family, params_i, params_j, lam, y):
    """Log of the normalised product of powers p_i^lam p_j^(1 - lam), eq. 18, by quadrature."""
    lam = lam.reshape(-1, *[1] * (y.ndim - 1))

    def powers(family, points):
        log_i, log_j = log_pdf(family, params_i, points), log_pdf(family, params_j, points)
        return lam * log_i + (1 - lam) * log_j

    support, log_weights = (value.reshape(-1, *[1] * y.ndim) for value in points_of_support(family))
    coordinate = "beta of a logit" if family == "beta" else family
    log_z = torch.logsumexp(powers(coordinate, support) + log_weights, dim=0)
    return powers(family, y) - log_z


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_densities_agree_with_scipy(family):
    y = torch.from_numpy(some_y(family, (20, 1))).double()
    raw = torch.randn(20, 1, N_RAW.get(family, 2), dtype=torch.float64)
    params = parameters(family, raw)
    np.testing.assert_allclose(
        log_pdf(family, params, y), scipy_log_pdf(family, params, y), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_quadrature_sums_to_one(family):
    raw = torch.randn(5, 1, N_RAW.get(family, 2), dtype=torch.float64)
    if family == "negative-binomial":
        raw /= 6  # of a small size there are counts in thousands
    params, y = parameters(family, raw), torch.from_numpy(some_y(family, (5, 1))).double()
    pooled = pooled_log_pdf(family, params, params, torch.full((5,), 0.3, dtype=torch.float64), y)
    np.testing.assert_allclose(pooled, log_pdf(family, params, y), atol=1e-9)


def test_reference_pool_of_normals_is_the_papers():
    mean_i, mean_j, s2_i, s2_j = torch.tensor([[1.0], [-2.0], [0.5], [3.0]]).double()[:, None]
    lam, y = torch.tensor([0.3, 0.7], dtype=torch.float64).split(1)
    y = y[:, None]
    # Eq. 56 and 67-68: precisions mix linearly.
    s2 = 1 / (0.3 / s2_i + 0.7 / s2_j)
    mean = s2 * (0.3 * mean_i / s2_i + 0.7 * mean_j / s2_j)
    pooled = pooled_log_pdf("normal", (mean_i, s2_i), (mean_j, s2_j), lam, y)
    np.testing.assert_allclose(
        pooled, stats.norm.logpdf(y, mean.numpy(), np.sqrt(s2.numpy())), rtol=1e-9
    )


# --- one optimiser step of a real net, and the same equation written out ----------------------


class BatchSeen(Callback):
    """Keep the batch as the loader made it."""

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            self.X, self.y = batch


class SeedNoise(Callback):
    """Make the noise of the sampler, which comes from torch's generator, repeatable."""

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        torch.manual_seed(7)


def module_arguments(family, site, random_embedding, n_train_draws=1):
    n_outputs = 1 if family in CLASSES else 2
    arguments = {"n_classes": 3} if family == "categorical" else {}
    return {
        "n_features": N_FEATURES,
        "n_outputs": n_outputs,
        "family": some_family(family, n_outputs, **arguments),
        "hidden_layer_sizes": (5, 4),
        "activation": "tanh",
        "embedding": "gaussian" if random_embedding else "point",
        "n_train_draws": n_train_draws,
    }


class Step:
    """One step of plain gradient descent at rate 1: parameters move by minus the gradient."""

    def __init__(self, family, site, *, random_embedding=False, K=None, n_train_draws=1, **mixing):
        arguments = module_arguments(family, site, random_embedding, n_train_draws)
        rng = np.random.default_rng(3)
        X = rng.normal(size=(N, N_FEATURES)).astype("float32")
        y = some_y(family, (N, arguments["n_outputs"]))
        y = y if family == "categorical" else y.astype("float32")
        self.family, self.site, self.random_embedding = family, site, random_embedding
        self.n_train_draws = n_train_draws
        self.mixup = ProbMixup(site=site, family=arguments["family"], random_state=5, **mixing)
        self.seen = BatchSeen()
        torch.manual_seed(11)
        net = NeuralNet(
            MLP,
            **{f"module__{name}": value for name, value in arguments.items()},
            criterion=NegativeLogLikelihood,
            criterion__family=arguments["family"],
            optimizer=torch.optim.SGD,
            lr=1.0,
            max_epochs=1,
            batch_size=N,
            train_split=None,
            verbose=0,
            callbacks=[("seen", self.seen), ("mixup", self.mixup), ("seed", SeedNoise())],
        )
        if K is not None:
            net.set_params(
                iterator_train=NeighborLoader,
                iterator_train__n_neighbors=K,
                iterator_train__random_state=0,
            )
        net.initialize()
        with torch.no_grad():  # Larger weights than torch's make densities differ by more.
            for parameter in net.module_.parameters():
                parameter.mul_(2)
        self.reference = copy.deepcopy(net.module_).double()
        before = [p.detach().double().clone() for p in net.module_.parameters()]
        if random_embedding:
            net.module_.sampler.register_forward_pre_hook(self.keep_sampler_input)
        net.partial_fit(X, y)
        after = [p.detach().double() for p in net.module_.parameters()]
        self.gradient = torch.cat([(b - a).flatten() for b, a in zip(before, after, strict=True)])
        self.loss = net.history[-1, "train_loss"]
        if self.mixup.alpha == 0:
            return
        self.lam = self.mixup.draw_.lam.double()
        self.partner = self.mixup.draw_.partner
        self.repeats = len(self.lam) // N
        self.x_i = self.seen.X.double().repeat(self.repeats, 1)
        self.x_j = self.seen.X.double()[self.partner]
        self.y_i = self.seen.y.double().repeat(self.repeats, 1)
        self.y_j = self.seen.y.double()[self.partner]

    def keep_sampler_input(self, module, args):
        self.sampler_input = args[0].detach().double()

    def outputs(self, z):
        """Ordinary parameters from embeddings, (..., n_outputs) each."""
        raw = self.reference.head(z).unflatten(-1, (self.reference.n_outputs, -1))
        if self.family in ("homoscedastic-normal", "negative-binomial"):
            raw = torch.cat([raw, self.reference.shared.expand_as(raw)], dim=-1)
        return parameters(self.family, raw)

    def embedding_moments(self, x):
        mean = self.reference.embedding.trunk(x)
        return mean, softplus(self.reference.embedding.spread(mean)) + 1e-8

    def draw(self, mean, variance):
        """z, (rows, draws, d_z), with the noise that the step had."""
        torch.manual_seed(7)
        noise = torch.randn(len(mean), self.n_train_draws, mean.shape[-1]).double()
        return mean[:, None] + variance.sqrt()[:, None] * noise

    def log_density(self, y):
        """log p(y | pair) of the method's equation, for y of shape (rows, n_outputs)."""
        lam = self.lam[:, None]
        if self.site == "input":  # eq. 7-10
            x = lam * self.x_i + (1 - lam) * self.x_j
            return log_pdf(self.family, self.outputs(self.reference.embedding(x)), y).sum(-1)
        if self.site == "output":
            return self.log_density_of_probmix(y)
        if self.random_embedding:
            return self.log_density_of_m_probmix(y)
        h_i, h_j = self.reference.embedding(self.x_i), self.reference.embedding(self.x_j)
        z = lam * h_i + (1 - lam) * h_j  # eq. 30-31
        return log_pdf(self.family, self.outputs(z), y).sum(-1)

    def log_density_of_probmix(self, y):
        p_i, p_j = (self.outputs(self.reference.embedding(x)) for x in (self.x_i, self.x_j))
        if self.mixup.pooling == "log-linear":  # eq. 16 and 18
            return pooled_log_pdf(self.family, p_i, p_j, self.lam, y).sum(-1)
        log_i, log_j = (log_pdf(self.family, p, y).sum(-1) for p in (p_i, p_j))
        return (self.lam * log_i.exp() + (1 - self.lam) * log_j.exp()).log()  # eq. 17

    def log_density_of_m_probmix(self, y):
        (mean_i, s2_i), (mean_j, s2_j) = map(self.embedding_moments, (self.x_i, self.x_j))
        lam = self.lam[:, None]
        if self.mixup.pooling == "log-linear":  # eq. 22-26 with eq. 67-68
            s2 = 1 / (lam / s2_i + (1 - lam) / s2_j)
            mean = s2 * (lam * mean_i / s2_i + (1 - lam) * mean_j / s2_j)
        else:  # z ~ lam q_i + (1 - lam) q_j: of one of the two, which the step chose
            mean_seen = -self.sampler_input[..., 0] / (2 * self.sampler_input[..., 1])
            is_i, is_j = (
                torch.isclose(mean_seen, mean, rtol=1e-4, atol=1e-6).all(-1)
                for mean in (mean_i, mean_j)
            )
            assert (is_i | is_j).all()
            mean = torch.where(is_i[:, None], mean_i, mean_j)
            s2 = torch.where(is_i[:, None], s2_i, s2_j)
        params = self.outputs(self.draw(mean, s2))
        log_p = log_pdf(self.family, params, y[:, None]).sum(-1)
        return log_p.exp().mean(1).log()

    def expectation(self, y, log_density):
        """E of log_density under the kernel around y, (rows, n_outputs)."""
        beta = self.mixup.beta
        if beta == 0:
            return log_density(y)
        if self.family in CLASSES:
            size = CLASSES[self.family]
            smooth = [((y[:, 0] == c).double() + beta) / (1 + size * beta) for c in range(size)]
            return sum(w * log_density(torch.full_like(y, c)) for c, w in enumerate(smooth))
        if self.family in BINS and not self.sampled:
            return self.expectation_over_bins(y, log_density)
        if self.family == "lattice":
            # The noise of what was rounded cannot be told.
            drawn = self.mixup.target_.points[:, 0].double()
            return log_density(drawn[:, 1 if y is self.y_j else 0])
        forward, back = (torch.log, torch.exp) if self.family == "lognormal" else (identity,) * 2
        if self.sampled:
            return log_density(back(forward(y) + math.sqrt(beta) * self.noise()))
        # Gauss-Hermite quadrature, per output: the log-density is a sum over outputs.
        nodes, weights = np.polynomial.hermite_e.hermegauss(5)
        total = weights.sum()
        return sum(
            w / total * log_density(back(forward(y) + math.sqrt(beta) * node))
            for node, w in zip(nodes.tolist(), weights.tolist(), strict=True)
        )

    def expectation_over_bins(self, y, log_density):
        """Let one of two outputs at a time vary: the log-density is a sum over outputs."""
        points, _ = points_of_support(self.family)
        ends = np.r_[-np.inf, BINS[self.family], np.inf]
        law = stats.norm(y.numpy()[..., None], math.sqrt(self.mixup.beta))
        weights = torch.from_numpy(np.diff(law.cdf(ends)))
        fixed = torch.full_like(y, points[0])
        total = -log_density(fixed)
        for output in (0, 1):
            for point, weight in zip(points, weights[:, output].T, strict=True):
                one = fixed.clone()
                one[:, output] = point
                total = total + weight * log_density(one)
        return total

    @property
    def sampled(self):
        """Whether y~ is drawn, as it must be for a mixture."""
        return self.mixup.pooling == "linear" or self.random_embedding

    def noise(self):
        """Noise of the step's draw of y~, from its first point."""
        centre = self.response_centre() if self.mixup.response == "pooled" else self.y_i
        point = self.mixup.target_.points[:, 0, 0].double()
        if self.family == "lognormal":
            centre, point = centre.log(), point.log()
        return (point - centre) / math.sqrt(self.mixup.beta)

    def response_centre(self):
        lam = self.lam[:, None]
        if self.family == "lognormal":
            return (lam * self.y_i.log() + (1 - lam) * self.y_j.log()).exp()
        centre = lam * self.y_i + (1 - lam) * self.y_j
        if self.family == "lattice" and self.mixup.beta == 0:
            values = torch.tensor(VALUES).double()
            return values[(centre.unsqueeze(-1) - values).abs().argmin(-1)]
        return centre

    def written_out(self):
        """Loss of the paper's equation, per pair and draw of lam."""
        if self.mixup.response == "expected":  # Assumption 4.2
            own = self.expectation(self.y_i, self.log_density)
            partners = self.expectation(self.y_j, self.log_density)
            return -(self.lam * own + (1 - self.lam) * partners)
        if self.family not in CLASSES:  # eq. 14 with the log-linear pool of Normal kernels
            return -self.expectation(self.response_centre(), self.log_density)
        size, beta = CLASSES[self.family], self.mixup.beta
        powers = [
            ((self.y_i[:, 0] == c).double() + beta) ** self.lam
            * ((self.y_j[:, 0] == c).double() + beta) ** (1 - self.lam)
            for c in range(size)
        ]
        return -sum(
            w / sum(powers) * self.log_density(torch.full_like(self.y_i, c))
            for c, w in enumerate(powers)
        )

    def gradient_of(self, loss):
        weights = [weight for weight in self.reference.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients])

    def erm(self):
        """Loss of the same batch without mixing, eq. 4; z is drawn if the embedding is random."""
        x, y = self.seen.X.double(), self.seen.y.double()
        if not self.random_embedding:
            return -log_pdf(self.family, self.outputs(self.reference.embedding(x)), y).sum(-1)
        params = self.outputs(self.draw(*self.embedding_moments(x)))
        return -log_pdf(self.family, params, y[:, None]).sum(-1).exp().mean(1).log()


def identity(value):
    return value


def assert_same(step, loss):
    """Compare the step with the gradient of a loss: 1e-5, relative to entries above 1."""
    loss = loss.mean()
    gradient = step.gradient_of(loss)
    error = (step.gradient - gradient).abs() / gradient.abs().clamp(min=1)
    assert error.max() < 1e-5
    assert abs(step.loss - loss.item()) < 1e-5 * max(1, abs(loss.item()))


def distance(step, loss):
    gradient = step.gradient_of(loss.mean())
    return ((step.gradient - gradient).norm() / gradient.norm()).item()


def combinations():
    """Method, site and pooling; then family, response and beta, as far as they can be combined."""
    methods = [
        ("mixup", "input", "log-linear"),
        ("manifold-mixup", "embedding", "log-linear"),
        ("probmix", "output", "log-linear"),
        ("probmix", "output", "linear"),
        ("m-probmix", "embedding", "log-linear"),
        ("m-probmix", "embedding", "linear"),
    ]
    for method, site, pooling in methods:
        betas = [0.0, 0.01] if "prob" in method else [0.0]
        for family in FAMILIES:
            for response in ("pooled", "expected"):
                for beta in betas:
                    has_kernel = family in (*SMOOTH, *CLASSES, *BINS)
                    if (beta > 0 or response == "pooled") and not has_kernel:
                        continue
                    if family in CLASSES and response == "pooled" and beta == 0:
                        continue
                    name = f"{method}-{pooling}-{family}-{response}-{beta}"
                    yield pytest.param(method, site, pooling, family, response, beta, id=name)


@pytest.mark.parametrize("K", [None, 2], ids=["complete", "neighbours"])
@pytest.mark.parametrize(
    ("method", "site", "pooling", "family", "response", "beta"), list(combinations())
)
def test_a_step_is_the_gradient_of_the_papers_equation(
    K, method, site, pooling, family, response, beta
):
    step = Step(
        family,
        site,
        random_embedding=method == "m-probmix",
        K=K,
        alpha=1.0,
        beta=beta,
        pooling=pooling,
        response=response,
    )
    assert_same(step, step.written_out())
    assert distance(step, step.erm()) > 1e-2


@pytest.mark.parametrize("random_embedding", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_at_alpha_zero_is_erm(family, random_embedding):
    step = Step(family, "embedding", random_embedding=random_embedding, alpha=0)
    assert_same(step, step.erm())


@pytest.mark.parametrize("K", [None, 2], ids=["complete", "neighbours"])
@pytest.mark.parametrize("pooling", ["log-linear", "linear"])
@pytest.mark.parametrize("family", ["normal", "gamma", "categorical"])
def test_draws_of_the_embedding_are_a_mixture(family, pooling, K):
    step = Step(
        family,
        "embedding",
        random_embedding=True,
        n_train_draws=3,
        K=K,
        alpha=1.0,
        pooling=pooling,
        response="expected",
    )
    assert_same(step, step.written_out())


MANY = [
    ("input", False, "log-linear"),
    ("embedding", False, "log-linear"),
    ("output", False, "log-linear"),
    ("output", False, "linear"),
    ("embedding", True, "log-linear"),
]


@pytest.mark.parametrize("K", [None, 2], ids=["complete", "neighbours"])
@pytest.mark.parametrize(("site", "random_embedding", "pooling"), MANY)
@pytest.mark.parametrize("response", ["pooled", "expected"])
def test_several_draws_of_lam_are_averaged(site, random_embedding, pooling, response, K):
    step = Step(
        "normal",
        site,
        random_embedding=random_embedding,
        K=K,
        alpha=1.0,
        pooling=pooling,
        response=response,
        n_mixes=3,
    )
    assert len(step.lam) == 3 * N
    assert step.lam.unique().numel() == 3 * N
    assert_same(step, step.written_out())


@pytest.mark.parametrize(("site", "random_embedding", "pooling"), MANY)
@pytest.mark.parametrize(
    ("family", "response", "beta"),
    [
        ("normal", "pooled", 0.0),
        ("normal", "pooled", 0.01),
        ("normal", "expected", 0.0),
        ("normal", "expected", 0.01),
        ("categorical", "pooled", 0.01),
        ("categorical", "expected", 0.0),
        ("categorical", "expected", 0.01),
    ],
)
def test_log_of_expected_likelihood(family, response, beta, site, random_embedding, pooling):
    step = Step(
        family,
        site,
        random_embedding=random_embedding,
        alpha=1.0,
        beta=beta,
        pooling=pooling,
        response=response,
        n_mixes=3,
        objective="log-expected",
    )
    sampled = step.mixup.target_.points.double()
    assert sampled.shape[1:3] == (1, 1)
    log_p = step.log_density(sampled[:, 0, 0]).reshape(3, N)
    assert_same(step, -log_p.exp().mean(0).log())  # Appendix B


# --- rows of a batch --------------------------------------------------------------------------


def small_net(*callbacks, **kwargs):
    """Net that trains an MLP on Normal responses, one batch per epoch."""
    arguments = {
        "module__n_features": 2,
        "module__hidden_layer_sizes": (4,),
        "criterion": NegativeLogLikelihood,
        "max_epochs": 1,
        "lr": 0.01,
        "batch_size": -1,
        "train_split": None,
        "verbose": 0,
    }
    return NeuralNet(MLP, **(arguments | kwargs), callbacks=list(callbacks))


def small_data(n=20, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2)).astype("float32")
    return X, (X.sum(1) + rng.normal(size=n)).astype("float32")


def test_same_random_state_same_draws():
    mixups = [ProbMixup(site="input", random_state=seed) for seed in (4, 4, 5)]
    for mixup in mixups:
        small_net(("mixup", mixup), max_epochs=2).fit(*small_data(10))
    one, same, other = (mixup.draw_ for mixup in mixups)
    assert torch.equal(one.lam, same.lam)
    assert torch.equal(one.partner, same.partner)
    assert not torch.equal(one.lam, other.lam)


def test_draws_leave_the_global_generators_alone():
    callback = ProbMixup(site="input", random_state=0).initialize()
    # numpy's legacy functions are the ones that have a global generator.
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002  # stays as it was
    batch = [torch.zeros(4, 2), torch.zeros(4)]
    callback.on_batch_begin(None, batch=batch, training=True)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002  # stays as it was
    assert torch.equal(torch.get_rng_state(), before[1])


def weighted(X, y, weight):
    """Rows of weight, as a loader collates them."""
    return Dataset(X, {"y": y[:, None, None], "weight": weight[:, None]})


def test_sample_weights_are_mixed():
    X, y = small_data(20)
    weight = np.linspace(0, 2, 20).astype("float32")
    mixup = ProbMixup(site="input", alpha=1.0, random_state=0)
    small_net(("mixup", mixup)).fit(weighted(X, y, weight), None)
    lam = mixup.draw_.lam.numpy()
    expected = lam * weight + (1 - lam) * weight[mixup.draw_.partner.numpy()]
    np.testing.assert_allclose(mixup.target_.row_weight[:, 0], expected, rtol=1e-6)


def test_zero_weights_take_rows_out_of_the_loss():
    X, y = small_data(20)
    y[10:] = 1e6
    weight = np.repeat(np.float32([2, 0]), 10)
    net = small_net().fit(weighted(X, y, weight), None)
    assert net.history[-1, "train_loss"] < 100


# --- any net -----------------------------------------------------------------------------------


class Sequences(nn.Module):
    """User's module: an LSTM over (rows, steps, channels), Normal natural parameters."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 6, batch_first=True)
        self.last = nn.Identity()
        self.out = nn.Linear(6, 2)

    def forward(self, X):
        states, _ = self.lstm(X)
        raw = self.out(self.last(states[:, -1]))
        return get_family("normal").natural(raw.unsqueeze(1))


def sequences(n=40):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 7, 2)).astype("float32")
    return X, X[:, -1].sum(1)


@pytest.mark.parametrize("site", ["input", "last", "output"])
def test_lstm_on_sequences_with_the_default_loader(site):
    torch.manual_seed(0)
    X, y = sequences()
    net = NeuralNet(
        Sequences,
        criterion=NegativeLogLikelihood,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=60,
        batch_size=16,
        iterator_train__shuffle=True,
        verbose=0,
        callbacks=[ProbMixup(site=site, alpha=0.2, random_state=0)],
    ).fit(X, y)
    losses = net.history[:, "valid_loss"]
    assert min(losses) < losses[0] - 0.3
    assert net.predict(X).shape == (40, 1, 2)


@pytest.mark.parametrize("site", ["input", "last", "output"])
def test_lstm_on_sequences_with_neighbours(site):
    X, y = sequences()
    net = NeuralNet(
        Sequences,
        criterion=NegativeLogLikelihood,
        max_epochs=2,
        batch_size=16,
        iterator_train=NeighborLoader,
        iterator_train__n_neighbors=3,
        verbose=0,
        callbacks=[("mixup", ProbMixup(site=site, random_state=0))],
    ).fit(X, y)
    partner = dict(net.callbacks_)["mixup"].draw_.partner
    half = len(partner) // 2
    assert partner[:half].tolist() == list(range(half, 2 * half))


# --- what is left alone ------------------------------------------------------------------------


def hooks(net):
    return sum(len(module._forward_hooks) for module in net.module_.modules())


@pytest.mark.parametrize("site", ["input", "embedding", "output"])
def test_validation_and_prediction_are_not_mixed(site):
    X, y = small_data(40)
    seen = []

    class Validated(Callback):
        def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
            if not training:
                with torch.no_grad():
                    plain = copy.deepcopy(net.module_).eval()
                    for module in plain.modules():
                        module._forward_hooks.clear()
                    seen.append(torch.equal(y_pred, plain(batch[0])))

    valid = predefined_split(Dataset(X[30:], y[30:]))
    mixup = ProbMixup(site=site, alpha=1.0, random_state=0)
    net = small_net(mixup, Validated(), train_split=valid, max_epochs=3).fit(X[:30], y[:30])
    assert seen == [True] * 3
    with torch.no_grad():
        plain = net.module_.eval()(torch.from_numpy(X))
    assert torch.equal(torch.from_numpy(net.predict(X)), plain)


def test_validation_loss_is_the_nll_of_raw_responses():
    X, y = small_data(40)
    valid = predefined_split(Dataset(X[30:], y[30:]))
    mixup = ProbMixup(alpha=1.0, beta=0.1, random_state=0)
    net = small_net(mixup, train_split=valid).fit(X[:30], y[:30])
    eta = torch.from_numpy(net.predict(X[30:]))
    params = get_family("normal").scipy_parameters(eta)
    nll = -stats.norm.logpdf(y[30:, None], **{k: v.numpy() for k, v in params.items()}).mean()
    assert net.history[-1, "valid_loss"] == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("site", ["embedding", "output"])
def test_hooks_are_gone_after_training(site):
    net = small_net(ProbMixup(site=site)).fit(*small_data())
    assert hooks(net) == 0


def test_alpha_zero_hooks_nothing():
    hooked = []

    class Count(Callback):
        def on_batch_begin(self, net, batch=None, **kwargs):
            hooked.append((hooks(net), isinstance(batch[1], Target)))

    small_net(ProbMixup(alpha=0), Count()).fit(*small_data())
    assert hooked == [(0, False)]


class FailsOnce(Callback):
    def __init__(self, error, event="on_batch_begin"):
        self.error, self.event, self.failed = error, event, False

    def notify(self, event):
        if event == self.event and not self.failed:
            self.failed = True
            raise self.error

    def on_batch_begin(self, net, **kwargs):
        self.notify("on_batch_begin")

    def on_epoch_end(self, net, **kwargs):
        self.notify("on_epoch_end")


@pytest.mark.parametrize("event", ["on_batch_begin", "on_epoch_end"])
def test_fit_after_a_failed_fit_hooks_once(event):
    X, y = small_data()
    net = small_net(("mixup", ProbMixup(alpha=1.0)), FailsOnce(RuntimeError("stop"), event))
    with pytest.raises(RuntimeError, match="stop"):
        net.fit(X, y)
    net.partial_fit(X, y)
    assert hooks(net) == 0


def test_prediction_after_a_failed_batch_is_not_mixed():
    X, y = small_data()
    net = small_net(("mixup", ProbMixup(alpha=1.0)), FailsOnce(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        net.fit(X, y)
    after_failure = net.predict(X)
    net.module_._forward_hooks.clear()
    np.testing.assert_array_equal(after_failure, net.predict(X))


def test_hooks_are_gone_after_an_interruption():
    net = small_net(ProbMixup(), FailsOnce(KeyboardInterrupt())).fit(*small_data())
    assert hooks(net) == 0


def test_callback_pickles_fitted_and_not():
    mixup = ProbMixup(site="embedding", alpha=0.4, random_state=0)
    assert pickle.loads(pickle.dumps(mixup)).alpha == 0.4
    net = small_net(("mixup", mixup)).fit(*small_data())
    copied = pickle.loads(pickle.dumps(dict(net.callbacks_)["mixup"]))
    assert copied.rng_.random() == mixup.rng_.random()


def test_net_pickles_and_trains_on():
    X, y = small_data()
    net = small_net(("mixup", ProbMixup(site="embedding", random_state=0))).fit(X, y)
    restored = pickle.loads(pickle.dumps(net)).partial_fit(X, y)
    assert len(restored.history) == 2
    assert hooks(restored) == 0


# --- errors ------------------------------------------------------------------------------------


class Tuples:
    """Loader whose batches cannot be changed."""

    def __init__(self, dataset, batch_size):
        self.dataset = dataset

    def __iter__(self):
        yield tuple(torch.from_numpy(value) for value in (self.dataset.X, self.dataset.y))


def test_batch_that_cannot_be_changed():
    with pytest.raises(TypeError, match=r"mutable list \[X, y\]; found tuple"):
        small_net(ProbMixup(), iterator_train=Tuples).fit(*small_data())


def test_unknown_site_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"site='hidden' is no .* MLP.*'embedding'.*'head'"):
        small_net(ProbMixup(site="hidden")).fit(*small_data())


class Returns(nn.Module):
    """Module whose output has a shape of the caller's choice."""

    def __init__(self, *, shape):
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.tensor(-0.5))
        self.inner = nn.Identity()

    def forward(self, X):
        return self.inner(self.weight * torch.ones(self.shape))


@pytest.mark.parametrize("shape", [(20, 2), (20, 1, 3), (20, 1, 1, 1, 2)])
def test_output_of_the_wrong_shape(shape):
    net = NeuralNet(
        Returns,
        module__shape=shape,
        criterion=NegativeLogLikelihood,
        batch_size=-1,
        train_split=None,
        callbacks=[ProbMixup()],
    )
    with pytest.raises(ValueError, match=r"of shape .*expect.*\(rows, n_outputs, 2\)"):
        net.fit(*small_data())


@pytest.mark.parametrize("site", ["inner", "output"])
def test_rows_that_are_not_on_the_first_axis(site):
    net = NeuralNet(
        Returns,
        module__shape=(7, 1, 2),
        criterion=NegativeLogLikelihood,
        batch_size=-1,
        train_split=None,
        callbacks=[ProbMixup(site=site)],
    )
    with pytest.raises(ValueError, match=r"\(7, 1, 2\) for a batch of 20 rows"):
        net.fit(*small_data())


def test_criterion_that_takes_no_mixed_responses():
    net = small_net(ProbMixup(), criterion=torch.nn.MSELoss)
    with pytest.raises(TypeError, match="criterion=MSELoss .* expected NegativeLogLikelihood"):
        net.fit(*small_data())


def test_integers_cannot_be_mixed_at_the_input():
    X, y = small_data()
    with pytest.raises(TypeError, match="found torch.int64.*name of a submodule"):
        small_net(ProbMixup(site="input")).fit(X.astype("int64"), y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": float("inf")}, "alpha=inf"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"pooling": "quadratic"}, "pooling='quadratic'.*'log-linear', 'linear'"),
        ({"response": "mixed"}, "response='mixed'.*'pooled', 'expected'"),
        ({"objective": "log"}, "objective='log'.*'expected-log', 'log-expected'"),
        ({"n_mixes": 0}, "n_mixes=0"),
        ({"family": "weibull"}, "'weibull' is unknown"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        small_net(ProbMixup(**parameters)).fit(*small_data())


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ({"family": "poisson", "response": "pooled"}, "use response='expected'"),
        ({"family": "poisson", "beta": 0.1}, "expected beta=0"),
        ({"family": "bernoulli", "response": "pooled"}, "expected beta > 0"),
    ],
)
def test_rules_that_a_family_does_not_have(mixing, message):
    X, y = small_data()
    net = small_net(
        ProbMixup(**mixing),
        module__family=mixing["family"],
        criterion__family=mixing["family"],
    )
    with pytest.raises(ValueError, match=message):
        net.fit(X, (y > 0).astype("float32"))


# --- the best epoch ----------------------------------------------------------------------------


class Snapshots(Callback):
    """Keep the weights of every epoch."""

    def on_train_begin(self, net, **kwargs):
        self.weights = []

    def on_epoch_end(self, net, **kwargs):
        self.weights.append(copy.deepcopy(net.module_.state_dict()))


def overfit(*callbacks, patience=None, **kwargs):
    """Net that soon overfits 12 rows, with 50 others for validation."""
    torch.manual_seed(0)
    X, y = small_data(62)
    table = Table(torch.from_numpy(X), torch.from_numpy(y[:, None]))
    best = BestEpoch(patience, table, torch.arange(12, 62))
    arguments = {"optimizer": torch.optim.Adam, "lr": 0.05, "max_epochs": 80}
    net = small_net(best, *callbacks, module__hidden_layer_sizes=(32,), **(arguments | kwargs))
    return net.fit(X[:12], y[:12]), best


def valid_losses(net, snapshots):
    """Validation losses of the weights of every epoch, computed anew."""
    X, y = small_data(62)
    losses = []
    for weights in snapshots.weights:
        net.module_.load_state_dict(weights)
        eta = torch.from_numpy(net.predict(X[12:]))
        losses.append(NegativeLogLikelihood()(eta, torch.from_numpy(y[12:])).item())
    return losses


def same_weights(net, weights):
    return all(torch.equal(value, weights[key]) for key, value in net.module_.state_dict().items())


def test_best_epoch_keeps_the_weights_of_lowest_validation_loss():
    snapshots = Snapshots()
    net, best = overfit(snapshots)
    kept = copy.deepcopy(net.module_.state_dict())
    losses = valid_losses(net, snapshots)
    argmin = int(np.argmin(losses))
    assert 0 < argmin < 79
    assert best.best_epoch_.tolist() == [argmin + 1]
    assert best.best_score_ == pytest.approx([losses[argmin]], rel=1e-5)
    assert all(torch.equal(kept[key], value) for key, value in snapshots.weights[argmin].items())
    assert best.stop_reason_ is None


def test_best_epoch_records_the_validation_losses():
    snapshots = Snapshots()
    net, _ = overfit(snapshots, max_epochs=10)
    recorded = net.history[:, "valid_loss"]
    np.testing.assert_allclose(recorded, valid_losses(net, snapshots), rtol=1e-5)


def test_best_epoch_stops_when_patience_is_over():
    net, best = overfit(patience=7)
    assert best.stop_reason_ == "patience"
    assert len(net.history) == best.best_epoch_[0] + 7
    assert min(net.history[:, "valid_loss"]) == best.best_score_[0]


def test_best_epoch_does_not_mix_its_validation():
    net, best = overfit(("mixup", ProbMixup(alpha=1.0, random_state=0)), max_epochs=5)
    snapshots = Snapshots()
    snapshots.weights = [net.module_.state_dict()]
    assert valid_losses(net, snapshots) == pytest.approx(best.best_score_, rel=1e-5)


class Poison(Callback):
    """Make the loss NaN from an epoch on."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            with torch.no_grad():
                for parameter in net.module_.parameters():
                    parameter.fill_(torch.nan)


def test_best_epoch_stops_on_divergence_and_keeps_the_best():
    snapshots = Snapshots()
    net, best = overfit(Poison(6), snapshots)
    assert best.stop_reason_ == "divergence"
    assert len(net.history) == 6
    kept = int(np.argmin(net.history[:5, "valid_loss"]))
    assert best.best_epoch_.tolist() == [kept + 1]
    assert same_weights(net, snapshots.weights[kept])


def test_best_epoch_has_nothing_to_keep_when_the_first_diverges():
    net, best = overfit(Poison(1))
    assert (best.stop_reason_, best.best_epoch_.tolist()) == ("divergence", [0])
    assert len(net.history) == 1


def test_best_epoch_keeps_the_last_without_validation():
    snapshots, best = Snapshots(), BestEpoch(patience=1)
    net = small_net(snapshots, best, max_epochs=5).fit(*small_data())
    assert (best.best_epoch_.tolist(), best.stop_reason_) == ([5], None)
    assert best.best_score_.tolist() == [math.inf]
    assert same_weights(net, snapshots.weights[4])


def test_divergence_without_validation_keeps_weights_of_finite_loss():
    X, y = small_data()
    net = small_net(BestEpoch(), max_epochs=50, lr=50.0, module__hidden_layer_sizes=(32, 32))
    net.fit(X, 100 * y)
    assert not np.isfinite(net.history[-1, "train_loss"])
    eta = torch.from_numpy(net.predict(X))
    assert torch.isfinite(NegativeLogLikelihood()(eta, torch.from_numpy(100 * y)))


def test_interruption_keeps_the_best_weights():
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 4:
                raise KeyboardInterrupt

    snapshots = Snapshots()
    net, best = overfit(snapshots, Interrupt())
    assert best.stop_reason_ == "interruption"
    kept = int(np.argmin(net.history[:3, "valid_loss"]))
    assert best.best_epoch_.tolist() == [kept + 1]
    assert same_weights(net, snapshots.weights[kept])


def test_best_epoch_forgets_an_earlier_fit():
    X, y = small_data()
    best = BestEpoch()
    net = small_net(("best", best), max_epochs=3).fit(X, y)
    net.fit(X, y)
    assert best.best_epoch_.tolist() == [3]
    assert len(net.history) == 3
