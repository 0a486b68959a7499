import math

import numpy as np
import pytest
import torch
from sample_y import some_family
from scipy import stats
from torch import nn
from torch.nn.functional import softplus

from sklearn_probmix.ensemble import Ensemble
from sklearn_probmix.families import FAMILIES
from sklearn_probmix.modules import (
    MLP,
    Dropout,
    GaussianSampler,
    Linear,
    PiecewiseLinear,
    knots_of_a_column,
    quantile_knots,
)
from sklearn_probmix.nets import AdamW


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    torch.manual_seed(0)


def make(name, n_outputs=1):
    return some_family(name, n_outputs, **({"n_classes": 4} if name == "categorical" else {}))


def normal_parameters(mean, variance):
    """Natural parameters of Normals, (rows, d_z, 2)."""
    mean, variance = torch.as_tensor(mean), torch.as_tensor(variance)
    return torch.stack([mean / variance, -1 / (2 * variance)], dim=-1)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (5,), (6, 5, 4)])
def test_shape_of_natural_parameters(name, n_outputs, hidden_layer_sizes):
    family = make(name, n_outputs)
    mlp = MLP(2, n_outputs, family, hidden_layer_sizes)
    assert mlp(torch.randn(7, 2)).shape == (7, n_outputs, family.n_params)


@pytest.mark.parametrize("embedding", ["gaussian", "gaussian-separate"])
@pytest.mark.parametrize("mixing_layer", [1, 2])
def test_shape_with_a_random_embedding(embedding, mixing_layer):
    mlp = MLP(
        2, 3, "gamma", (6, 5), embedding=embedding, mixing_layer=mixing_layer, n_train_draws=4
    )
    assert mlp(torch.randn(7, 2)).shape == (7, 4, 3, 2)
    assert mlp.eval()(torch.randn(7, 2)).shape == (7, 32, 3, 2)
    assert mlp.embedding(torch.randn(7, 2)).shape == (7, [6, 5][mixing_layer - 1], 2)


def test_empty_hidden_layers_are_a_linear_network():
    mlp = MLP(3, 2, "poisson", ())
    X, other = torch.randn(2, 5, 3)
    line = mlp(0.3 * X + 0.7 * other)
    torch.testing.assert_close(line, 0.3 * mlp(X) + 0.7 * mlp(other))
    assert sum(p.numel() for p in mlp.parameters()) == 3 * 2 + 2


@pytest.mark.parametrize("mixing_layer", [0, 1, 2, 3])
def test_embedding_is_the_first_layers_of_the_network(mixing_layer):
    mlp = MLP(3, 1, "poisson", (6, 5, 4), "tanh", mixing_layer=mixing_layer)
    X = torch.randn(7, 3)
    z = X
    for linear in [m for m in mlp.embedding.modules() if isinstance(m, Linear)]:
        z = torch.tanh(z @ linear.weight.T + linear.bias)
    assert z.shape[1] == [3, 6, 5, 4][mixing_layer]
    torch.testing.assert_close(mlp.embedding(X), z)
    torch.testing.assert_close(mlp.head(mlp.embedding(X)).unsqueeze(-1), mlp(X))


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda z: np.maximum(z, 0)),
        ("tanh", np.tanh),
        ("silu", lambda z: z / (1 + np.exp(-z))),
        ("gelu", lambda z: z * stats.norm.cdf(z)),
        ("elu", lambda z: np.where(z > 0, z, np.expm1(z))),
    ],
)
def test_activations(activation, function):
    mlp = MLP(3, 1, "poisson", (6,), activation)
    X = torch.randn(7, 3)
    linear = mlp.embedding[0](X).detach().numpy()
    np.testing.assert_allclose(mlp.embedding(X).detach(), function(linear), atol=1e-6)


def test_shared_parameter_does_not_depend_on_x():
    mlp = MLP(3, 2, "homoscedastic-normal", (6,))
    with torch.no_grad():
        mlp.shared.copy_(torch.tensor([[0.5], [-1.0]]))
    sd = mlp.family.scipy_parameters(mlp(100 * torch.randn(9, 3)).detach())["scale"]
    expected = (softplus(torch.tensor([0.5, -1.0])).double() + 1e-6).sqrt()
    torch.testing.assert_close(sd, expected.expand(9, 2), rtol=1e-6, atol=0)


def test_shared_parameter_is_trained():
    mlp = MLP(3, 2, "homoscedastic-normal", (6,))
    mlp(torch.randn(9, 3))[..., 1].sum().backward()
    assert (mlp.shared.grad != 0).all()


@pytest.mark.parametrize("embedding", ["gaussian", "gaussian-separate"])
@pytest.mark.parametrize(
    ("mixing_layer", "sizes"), [(0, (6,)), (2, (6,)), (1, ())], ids=["0 of 1", "2 of 1", "1 of 0"]
)
def test_a_random_embedding_needs_a_hidden_layer(embedding, mixing_layer, sizes):
    with pytest.raises(ValueError, match=f"mixing_layer={mixing_layer} with {len(sizes)} hidden"):
        MLP(3, hidden_layer_sizes=sizes, mixing_layer=mixing_layer, embedding=embedding)


def test_dropout_drops_in_training_alone():
    mlp = MLP(3, 1, "normal", (50,), dropout=0.5)
    X = torch.randn(7, 3)
    assert not torch.equal(mlp(X), mlp(X))
    mlp.eval()
    assert torch.equal(mlp(X), mlp(X))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(p):
    layer = Dropout(p)
    layer.generator = torch.Generator().manual_seed(0)
    kept = layer(torch.ones(1001, 333))
    share = (kept > 0).double().mean().item()
    # In steps of 1 / 256, and half a dozen standard errors.
    assert abs(share - (1 - p)) < 1 / 512 + 6 * math.sqrt(p * (1 - p) / kept.numel())
    assert kept.unique().numel() == 2
    assert abs(kept.double().mean().item() - 1) < 6 * math.sqrt(p / (1 - p) / kept.numel()) + 0.01


def test_embedding_is_a_normal_around_the_activations():
    mlp = MLP(3, 1, "normal", (4,), embedding="gaussian")
    X = torch.randn(6, 3)
    eta = mlp.embedding(X).detach().double().numpy()
    mean, variance = -eta[..., 0] / (2 * eta[..., 1]), -1 / (2 * eta[..., 1])
    hidden = mlp.embedding.trunk(X)
    np.testing.assert_allclose(mean, hidden.detach(), rtol=1e-5, atol=1e-6)
    expected = softplus(mlp.embedding.spread(hidden)).detach() + 1e-8
    np.testing.assert_allclose(variance, expected, rtol=1e-5)


def test_separate_variance_shares_nothing_with_the_mean():
    mlp = MLP(3, 1, "normal", (4,), embedding="gaussian-separate")
    widths = [len(layer.bias) for layer in mlp.embedding.spread if isinstance(layer, Linear)]
    assert widths == [64, 4]
    eta = mlp.embedding(torch.randn(6, 3))
    (-1 / (2 * eta[..., 1])).sum().backward()
    assert all(p.grad.abs().max() < 1e-5 for p in mlp.embedding.trunk.parameters())
    assert any((p.grad != 0).any() for p in mlp.embedding.spread.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_draws_have_the_moments_of_the_embedding(training):
    n_draws = 4096
    mean, variance = [[3.0, -20.0, 0.0]], [[0.04, 9.0, 1.0]]
    sampler = GaussianSampler(3, n_draws=n_draws, n_train_draws=n_draws).train(training)
    torch.manual_seed(0)
    z = sampler(normal_parameters(mean, variance))[0].double().numpy()
    assert z.shape == (n_draws, 3)
    # Five standard errors of independent draws; quasi-random ones are far closer.
    se = np.sqrt(np.array(variance[0]) / n_draws) * (5 if training else 0.2)
    assert (np.abs(z.mean(0) - mean[0]) < se).all()
    tolerance = np.sqrt(2 / n_draws) * (5 if training else 1)
    assert (np.abs(z.var(0) / variance[0] - 1) < tolerance).all()
    correlation = np.corrcoef(z.T) - np.eye(3)
    assert np.abs(correlation).max() < 5 / np.sqrt(n_draws)


@pytest.mark.parametrize("d_z", [1, 8, 128])
@pytest.mark.parametrize("n_draws", [1, 32])
def test_fixed_noise_is_finite(d_z, n_draws):
    noise = GaussianSampler(d_z, n_draws).noise
    assert noise.shape == (n_draws, d_z)
    assert torch.isfinite(noise).all()


def test_fixed_noise_is_stratified_in_every_dimension():
    # One point in each of 32 bins of equal probability, unlike 32 independent draws.
    bins = np.floor(stats.norm.cdf(GaussianSampler(16, 32).noise) * 32).astype(int)
    for column in bins.T:
        assert sorted(column) == list(range(32))


def test_evaluation_is_deterministic_and_the_same_for_every_row():
    sampler = GaussianSampler(4, 8).eval()
    eta = normal_parameters(torch.zeros(5, 4), torch.ones(5, 4))
    z = sampler(eta)
    assert torch.equal(z, sampler(eta))
    assert torch.equal(z, z[:1].expand_as(z))


def test_evaluation_does_not_depend_on_the_order_of_rows():
    mlp = MLP(3, 1, "normal", (4,), embedding="gaussian").eval()
    X, order = torch.randn(9, 3), torch.randperm(9)
    torch.testing.assert_close(mlp(X[order]), mlp(X)[order])


def test_evaluation_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    GaussianSampler(4, 8).eval()(normal_parameters(torch.zeros(5, 4), torch.ones(5, 4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_draws_anew_for_every_row():
    sampler = GaussianSampler(4)
    z = sampler(normal_parameters(torch.zeros(5, 4), torch.ones(5, 4)))
    assert z.shape == (5, 1, 4)
    assert z.unique().numel() == 20


def test_noise_is_no_weight_of_the_network():
    mlp = MLP(3, 1, "normal", (4,), embedding="gaussian")
    assert not any("noise" in key for key in mlp.state_dict())


def test_draws_are_reparameterised():
    mean = torch.tensor([[1.0, -2.0]], requires_grad=True)
    sd = torch.tensor([[0.5, 3.0]], requires_grad=True)
    sampler = GaussianSampler(2, n_draws=4).eval()
    z = sampler(normal_parameters(mean, sd**2))
    gradient = torch.autograd.grad(z[0, 2].sum(), (mean, sd))
    torch.testing.assert_close(gradient[0], torch.ones(1, 2))
    torch.testing.assert_close(gradient[1][0], sampler.noise[2], rtol=1e-4, atol=1e-5)


def test_encoding_is_linear_between_knots_and_a_step_where_they_coincide():
    knots = torch.tensor([[-1.0, 0.0, 0.0, 4.0], [0.0, 1.0, 2.0, 3.0]])
    x = torch.linspace(-3, 6, 91)
    encoded = PiecewiseLinear(knots)(torch.stack([x, x], dim=1))
    assert torch.equal(encoded[:, :2], torch.stack([x, x], dim=1))
    parts = encoded[:, 2:].unflatten(1, (2, 3))
    for column, own in zip(parts.unbind(1), knots, strict=True):
        for part, start, end in zip(column.T, own[:-1], own[1:], strict=True):
            if start < end:
                expected = np.interp(x, [start, end], [-1, 1])
            else:
                expected = np.where(x > start, 1.0, -1.0)
            # On a step itself either side will do.
            apart = (x - start).abs() > 1e-4
            np.testing.assert_allclose(part[apart], expected[apart], atol=1e-5)


def test_knots_are_quantiles_of_the_columns():
    X = torch.randperm(1001).reshape(-1, 1).float()
    assert quantile_knots(X, 5).tolist() == [[0, 250, 500, 750, 1000]]
    twice = torch.cat([X, -2 * X], dim=1)
    assert quantile_knots(twice, 3)[1].tolist() == [-2000, -1000, 0]


@pytest.mark.parametrize("shape", [(7, 3), (7, 4, 3), (0, 3)])
def test_linear_is_torchs(shape):
    x, ours = torch.randn(shape), Linear(3, 2)
    torch.testing.assert_close(ours(x), nn.functional.linear(x, ours.weight, ours.bias))


def test_linear_with_stacked_weights_maps_each_member():
    x, members = torch.randn(7, 2, 4, 3), [nn.Linear(3, 5) for _ in range(2)]
    stacked, _ = torch.func.stack_module_state(members)
    together = torch.func.functional_call(Linear(3, 5), stacked, (x,))
    alone = [member(x[:, m]) for m, member in enumerate(members)]
    torch.testing.assert_close(together, torch.stack(alone, dim=1))


@pytest.mark.parametrize(("n_features", "expected"), [(1, 65), (16, 65), (20, 52), (5000, 2)])
def test_wide_tables_get_fewer_knots(n_features, expected):
    assert knots_of_a_column(65, n_features) == expected


def test_an_ensemble_with_knots_is_its_members():
    torch.manual_seed(0)
    X = torch.randn(7, 3)
    arguments = {"n_features": 3, "hidden_layer_sizes": (4,), "knots": quantile_knots(X, 4)}
    ensemble = Ensemble(MLP, 2, **arguments)
    together = ensemble(X)
    for member in range(2):
        alone = MLP(**arguments)
        alone.load_state_dict(ensemble.state_of(member))
        torch.testing.assert_close(together[:, member], alone(X), rtol=1e-5, atol=1e-6)


def test_the_optimiser_steps_as_torchs_own_does():
    start, gradients = torch.randn(4, 3), torch.randn(6, 4, 3)
    ends = []
    for kind in (torch.optim.AdamW, AdamW):
        weight = nn.Parameter(start.clone())
        steps = []
        optimizer = kind([weight], lr=0.1, weight_decay=0.2, fused=True)
        optimizer.register_step_post_hook(lambda *args, to=steps: to.append(1))
        for place, gradient in enumerate(gradients):
            if place == 3:
                state = optimizer.state_dict()
                optimizer = kind([weight], lr=0.5, fused=True)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            assert weight.grad is None
            weight.grad = gradient.clone()
            optimizer.step()
        assert len(steps) == 3
        ends.append(weight.detach())
    assert not torch.equal(ends[0], start)
    assert torch.equal(*ends)
