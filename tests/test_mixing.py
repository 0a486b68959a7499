"""What a mixer draws and does, against laws of probability and equations written row by row."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from sample_y import some_family, some_y
from scipy import stats

from sklearn_probmix import NegativeLogLikelihood, get_family
from sklearn_probmix.families import FAMILIES
from sklearn_probmix.mixing import Draw, Mixer, Target, _sample_point, as_target

N = 9
CATEGORICAL = get_family("categorical", n_classes=3)


def make(name):
    return CATEGORICAL if name == "categorical" else some_family(name)


def mixer(family="normal", **parameters):
    return Mixer(make(family), **({"alpha": 1.0} | parameters))


def rng(seed=0):
    return np.random.default_rng(seed)


def raw(n_members=1, n_outputs=1, family="normal", *, weighted=False, masked=False):
    """Raw responses of N rows, each member's own, as float64 or codes."""
    y = torch.from_numpy(some_y(family, (N, n_members, n_outputs)))
    weight = torch.linspace(0.1, 1.9, N * n_members).reshape(N, -1)
    mask = torch.from_numpy(rng(1).integers(2, size=(N, n_members)).astype("float32"))
    return Target(
        y.unsqueeze(2),
        row_weight=weight if weighted else None,
        mask=mask if masked else None,
    )


@pytest.mark.parametrize("alpha", [1e-3, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(("half", "resolved"), [("lower", 1e-300), ("upper", 1e-14)])
def test_lam_has_the_beta_law(alpha, half, resolved):
    if alpha == 1e-3 and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("numpy 1 draws too many values below 1e-300")
    lam = mixer(alpha=alpha).draw(rng(), 20_000).lam.numpy()
    assert lam.dtype == np.float64
    law = stats.beta(alpha, alpha)
    # At alpha 1e-3 a quarter of the law lies below 1e-300, and all but 1 % nearer to an end than
    # 1e-4: the ends are atoms in float64, between them the law is continuous.
    to_end = lam if half == "lower" else 1 - lam
    inner = to_end[(to_end > resolved) & (to_end < 0.5)]
    at_end = law.cdf(resolved)
    n_end, n_inner = int((to_end <= resolved).sum()), len(inner)
    assert stats.binomtest(n_end, len(lam), at_end).pvalue > 1e-4
    assert stats.binomtest(n_end + n_inner, len(lam), 0.5).pvalue > 1e-4
    uniform = (law.cdf(inner) - at_end) / (0.5 - at_end)
    assert stats.ks_1samp(uniform, stats.uniform.cdf).pvalue > 1e-4


def test_tiny_alpha_gives_the_ends_with_equal_frequency():
    lam = mixer(alpha=1e-32).draw(rng(), 20_000).lam.numpy()
    assert set(lam) == {0.0, 1.0}
    assert stats.binomtest(int(lam.sum()), len(lam)).pvalue > 1e-4


def test_partners_are_a_permutation_that_changes():
    generator = rng()
    partners = [mixer().draw(generator, 30).partner.tolist() for _ in range(3)]
    for partner in partners:
        assert sorted(partner) == list(range(30))
    assert partners[0] != partners[1]


def test_every_partner_is_equally_likely():
    generator = rng()
    counts = sum(np.eye(6)[mixer().draw(generator, 6).partner] for _ in range(600))
    # Rows and columns of a sum of permutation matrices are tied: 25 degrees of freedom.
    statistic = ((counts - 100) ** 2 / 100).sum() * 5 / 6
    assert stats.chi2(25).sf(statistic) > 1e-4


def test_partners_of_the_batch_are_kept():
    partner = torch.arange(N).roll(2)
    draw = mixer(n_mixes=3).draw(rng(), N, partner)
    assert torch.equal(draw.partner, partner.repeat(3))
    assert draw.lam.unique().numel() == 3 * N


def test_the_own_row_is_chosen_with_probability_lam():
    draw = mixer(pooling="linear").draw(rng(), 20_000)
    lam, chosen = draw.lam.numpy(), draw.own_is_chosen.numpy()
    for low in np.arange(0, 1, 0.1):
        part = (lam >= low) & (lam < low + 0.1)
        assert abs(chosen[part].mean() - lam[part].mean()) < 0.06


@pytest.mark.parametrize("pooling", ["log-linear", "linear"])
def test_a_draw_on_the_device_where_it_is_stays(pooling):
    draw = mixer(pooling=pooling).draw(rng(), N)
    assert all(a is b for a, b in zip(draw.on(torch.device("cpu")), draw, strict=True))
    assert (draw.own_is_chosen is None) == (pooling == "log-linear")


PURE = [
    {},
    {"pooling": "linear", "beta": 0.1, "response": "pooled", "may_have_components": True},
    {"objective": "log-expected", "n_mixes": 3, "beta": 0.1},
]


@pytest.mark.parametrize("rules", PURE)
def test_same_generator_same_result(rules):
    target = raw(2, weighted=True, masked=True)
    before = [value.clone() for value in (target.points, target.row_weight, target.mask)]
    mix = mixer(**rules)

    def result(seed):
        generator = rng(seed)
        draw = mix.draw(generator, N)
        mixed = mix.target(target, draw, generator)
        return draw.lam, draw.partner, mixed.points, mix.tensor(before[0], draw, densities=False)

    one, _, other = result(4), result(5), result(4)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, result(5), strict=True))
    after = target.points, target.row_weight, target.mask
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_mixer_cannot_change():
    with pytest.raises(FrozenInstanceError):
        mixer().alpha = 0.5


def points_by_hand(y_i, y_j, lam, response, beta):
    """Points and weights of eq. 14 of one Normal pair, (n_points, n_outputs) and (n_points,)."""
    centres, shares = [y_i, y_j], [lam, 1 - lam]
    if response == "pooled":
        centres, shares = [lam * y_i + (1 - lam) * y_j], [1.0]
    if beta == 0:
        return np.array(centres), np.array(shares)
    # Two points at one standard deviation have the kernel's mean and variance.
    points = [y + sign * np.sqrt(beta) for y in centres for sign in (1, -1)]
    return np.array(points), np.repeat(shares, 2) / 2


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("n_mixes", [1, 2])
@pytest.mark.parametrize("response", ["pooled", "expected"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_target_row_by_row(n_members, n_outputs, n_mixes, response, beta):
    target = raw(n_members, n_outputs, weighted=True, masked=True)
    mix, generator = mixer(response=response, beta=beta, n_mixes=n_mixes), rng(2)
    draw = mix.draw(generator, N)
    mixed = mix.target(target, draw, generator)
    y, weight, mask = (
        value.double().numpy() for value in (target.points[:, :, 0], target.row_weight, target.mask)
    )
    assert mixed.draws == 1
    assert mixed.points.shape[:2] == mixed.row_weight.shape == mixed.mask.shape
    assert (mixed.weights is None) == (mixed.points.shape[2] == 1)
    for pair in range(n_mixes * N):
        i, j, lam = pair % N, int(draw.partner[pair]), float(draw.lam[pair])
        for m in range(n_members):
            points, weights = points_by_hand(y[i, m], y[j, m], lam, response, beta)
            np.testing.assert_allclose(mixed.points[pair, m], points, rtol=1e-12)
            if mixed.weights is not None:
                np.testing.assert_allclose(mixed.weights[pair, m], weights, rtol=1e-12)
            assert mixed.row_weight[pair, m].item() == pytest.approx(
                lam * weight[i, m] + (1 - lam) * weight[j, m], rel=1e-6
            )
            assert mixed.mask[pair, m] == mask[i, m] * mask[j, m]


@pytest.mark.parametrize("response", ["pooled", "expected"])
def test_target_of_classes_row_by_row(response):
    beta, target = 0.1, raw(2, 1, "categorical")
    mix, generator = mixer("categorical", response=response, beta=beta), rng(2)
    draw = mix.draw(generator, N)
    mixed = mix.target(target, draw, generator)
    for i, (j, lam) in enumerate(zip(draw.partner.tolist(), draw.lam.tolist(), strict=True)):
        for m in range(2):
            y_i, y_j = (int(target.points[row, m]) for row in (i, j))
            smooth = [(np.eye(3)[y] + beta) / (1 + 3 * beta) for y in (y_i, y_j)]
            if response == "pooled":
                powers = smooth[0] ** lam * smooth[1] ** (1 - lam)
                expected = powers / powers.sum()
            else:
                expected = lam * smooth[0] + (1 - lam) * smooth[1]
            total = np.zeros(3)
            np.add.at(total, mixed.points[i, m, :, 0].numpy(), mixed.weights[i, m].numpy())
            np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("n_mixes", [1, 2])
def test_members_rows_are_mixed_each_as_it_would_be_alone(family, n_mixes):
    target = raw(3, 1, family, weighted=True)
    response = make(family).default_response
    mix = mixer(family, response=response, n_mixes=n_mixes)
    draw = mix.draw(rng(), N)
    together = mix.target(target, draw, rng())
    for m in range(3):
        own = Target(target.points[:, [m]], row_weight=target.row_weight[:, [m]])
        alone = mix.target(own, draw, rng())
        assert torch.equal(together.points[:, [m]], alone.points)
        assert torch.equal(together.row_weight[:, [m]], alone.row_weight)
        if alone.weights is not None:
            assert torch.equal(together.weights[:, [m]], alone.weights)


@pytest.mark.parametrize("n_members", [1, 3])
def test_sampled_response_has_the_law_of_the_kernel(n_members):
    n, beta = 20_000 // n_members, 0.04
    y = torch.from_numpy(rng(1).normal(size=(n, n_members)))
    mix = mixer(pooling="linear", response="pooled", beta=beta, may_have_components=True)
    generator = rng()
    draw = mix.draw(generator, n)
    mixed = mix.target(Target(y[:, :, None, None]), draw, generator)
    assert mixed.points.shape == (n, n_members, 1, 1)
    centre = draw.lam[:, None] * y + (1 - draw.lam[:, None]) * y[draw.partner]
    z = (mixed.points[..., 0, 0] - centre) / 0.2
    assert stats.ks_1samp(z.flatten().numpy(), stats.norm.cdf).pvalue > 1e-4
    if n_members > 1:
        # Noise of its own for each.
        assert abs(np.corrcoef(z.T)[0, 1]) < 5 / np.sqrt(n)


def test_sampled_response_is_one_of_the_two_with_probability_lam():
    n = 20_000
    y = torch.arange(n).double()
    mix, generator = mixer(objective="log-expected", n_mixes=2), rng()
    draw = mix.draw(generator, n)
    mixed = mix.target(as_target(y), draw, generator)
    assert mixed.draws == 2
    point, y_i, y_j = mixed.points.flatten(), y.repeat(2), y[draw.partner]
    assert ((point == y_i) | (point == y_j)).all()
    differ = y_i != y_j
    lam, is_own = draw.lam[differ].numpy(), (point == y_i)[differ].numpy()
    for low in np.arange(0, 1, 0.1):
        part = (lam >= low) & (lam < low + 0.1)
        assert abs(is_own[part].mean() - lam[part].mean()) < 0.04


@pytest.mark.parametrize("response", ["pooled", "expected"])
def test_sampled_class_has_the_law_of_the_kernels(response):
    y, beta = torch.arange(3000) % 3, 0.2
    rules = {"response": response, "beta": beta, "objective": "log-expected"}
    mix, generator = mixer("categorical", **rules), rng()
    draw = mix.draw(generator, len(y))
    mixed = mix.target(as_target(y), draw, generator)
    smooth, lam = (np.eye(3)[y] + beta) / (1 + 3 * beta), draw.lam.numpy()[:, None]
    law = lam * smooth + (1 - lam) * smooth[draw.partner]
    if response == "pooled":
        law = smooth**lam * smooth[draw.partner] ** (1 - lam)
        law /= law.sum(1, keepdims=True)
    deviation = np.eye(3)[mixed.points.flatten()] - law
    for own in range(3):
        z = deviation[y == own].sum(0) / np.sqrt((law * (1 - law))[y == own].sum(0))
        assert np.abs(z).max() < 4


def test_weights_whose_sum_is_rounded_down_have_a_last_point():
    # A uniform number above 1 - 2^-25 is 1 in float32.
    weights, points = torch.tensor([[0.25, 0.25, 0.4999999]]), torch.arange(3.0).reshape(1, 3, 1)
    assert _sample_point(points, weights, torch.ones(1, 1)).item() == 2


@pytest.mark.parametrize("shape", [(N,), (N, 2)])
def test_raw_responses_are_one_point_each(shape):
    y = torch.randn(shape)
    target = as_target(y)
    assert torch.equal(target.points, y.reshape(N, 1, 1, -1))
    assert (target.weights, target.row_weight, target.mask, target.draws) == (None, None, None, 1)
    assert as_target(target) is target


def test_a_mapping_holds_responses_weights_and_mask():
    y, weight, mask = torch.randn(N, 3, 2), torch.rand(N, 3), torch.ones(N, 3)
    target = as_target({"y": y, "weight": weight, "mask": mask})
    assert torch.equal(target.points[:, :, 0], y)
    assert (target.row_weight is weight, target.mask is mask) == (True, True)
    assert as_target({"y": y}).row_weight is None


SHAPES = [(N, 4), (N, 5, 2), (N, 3, 1, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_mixes", [1, 2])
@pytest.mark.parametrize("densities", [True, False])
def test_tensors_are_mixed_row_by_row(shape, n_mixes, densities):
    tensor, mix = torch.randn(shape, dtype=torch.float64), mixer(n_mixes=n_mixes)
    draw = mix.draw(rng(), N)
    mixed = mix.tensor(tensor, draw, densities=densities)
    assert mixed.shape == (n_mixes * N, *shape[1:])
    for pair, (j, lam) in enumerate(zip(draw.partner, draw.lam, strict=True)):
        expected = lam * tensor[pair % N] + (1 - lam) * tensor[j]
        torch.testing.assert_close(mixed[pair], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("members", [(), (3,)])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_linear_pool_of_densities_is_a_mixture_of_two(members, n_outputs):
    eta, mix = torch.randn(N, *members, n_outputs, 2), mixer(pooling="linear", n_mixes=2)
    draw = mix.draw(rng(), N)
    pooled, log_weights = mix.tensor(eta, draw, densities=True)
    assert pooled.shape == (2 * N, *members, 2, n_outputs, 2)
    for pair, (j, lam) in enumerate(zip(draw.partner, draw.lam, strict=True)):
        assert torch.equal(pooled[pair].select(-3, 0), eta[pair % N])
        assert torch.equal(pooled[pair].select(-3, 1), eta[j])
        weights = log_weights[pair].exp().reshape(-1, 2)
        expected = torch.stack([lam, 1 - lam]).float().expand_as(weights)
        torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_pool_of_what_is_no_density_is_the_row_chosen(shape):
    tensor, mix = torch.randn(shape), mixer(pooling="linear", n_mixes=2)
    draw = mix.draw(rng(), N)
    mixed = mix.tensor(tensor, draw, densities=False)
    chosen = zip(draw.own_is_chosen.tolist(), draw.partner, strict=True)
    for pair, (is_own, j) in enumerate(chosen):
        assert torch.equal(mixed[pair], tensor[pair % N if is_own else j])


@pytest.mark.parametrize(
    ("family", "response"),
    [(name, "expected") for name in sorted(FAMILIES)]
    + [(name, "pooled") for name in sorted(FAMILIES) if make(name).default_response == "pooled"],
)
@pytest.mark.parametrize("pooling", ["log-linear", "linear"])
def test_lam_one_is_erm(family, response, pooling):
    target = raw(2, 1, family, weighted=True)
    eta = make(family).natural(torch.randn(N, 2, 1, make(family).n_params).double())
    mix = mixer(family, response=response, pooling=pooling)
    ones = Draw(torch.ones(N).double(), torch.arange(N).roll(1), torch.ones(N, dtype=torch.bool))
    output = mix.tensor(eta, ones, densities=True)
    if pooling == "linear":
        # As an ensemble lays out the components of its members.
        output = (output[0].flatten(1, 2), output[1].flatten(1, 2) - np.log(2))
    criterion = NegativeLogLikelihood(make(family), n_members=2)
    mixed = criterion(output, mix.target(target, ones, rng()))
    torch.testing.assert_close(mixed, criterion(eta, target))
    assert torch.equal(mix.tensor(eta, ones, densities=False), eta)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_of_members_is_the_sum_of_means_over_their_own_pairs(weighted, masked):
    n_members = 3
    target = raw(n_members, weighted=weighted, masked=masked)
    mix = mixer(response="pooled")
    draw = mix.draw(rng(), N)
    mixed = mix.target(target, draw, rng())
    eta = get_family("normal").natural(torch.randn(N, n_members, 1, 2).double())
    params = get_family("normal").scipy_parameters(eta)
    loss = NegativeLogLikelihood(n_members=n_members)(eta, mixed)
    y, lam = target.points[..., 0, 0].numpy(), draw.lam.numpy()[:, None]
    y = lam * y + (1 - lam) * y[draw.partner]
    nll = -stats.norm.logpdf(y, *(params[name][..., 0].numpy() for name in ("loc", "scale")))
    if weighted:
        weight = target.row_weight.numpy()
        nll = nll * (lam * weight + (1 - lam) * weight[draw.partner])
    expected = 0.0
    for m in range(n_members):
        own = np.ones(N, dtype=bool)
        if masked:
            own = (target.mask[:, m] * target.mask[draw.partner, m]).numpy() > 0
            assert 0 < own.sum() < N
        expected += nll[own, m].mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_pairs_that_are_none_of_a_members_have_no_gradient():
    target = raw(2, masked=True)
    mix = mixer(response="pooled")
    mixed = mix.target(target, mix.draw(rng(), N), rng())
    eta = get_family("normal").natural(torch.randn(N, 2, 1, 2)).requires_grad_()
    NegativeLogLikelihood(n_members=2)(eta, mixed).backward()
    moved = (eta.grad != 0).any(-1)[..., 0]
    assert torch.equal(moved, mixed.mask.bool())
    assert 0 < moved.sum() < 2 * N


@pytest.mark.parametrize("own_rows", [False, True], ids=["holdout", "folds"])
def test_as_many_members_as_outputs_are_no_outputs(own_rows):
    # A module of one output, whose members could be taken for the two outputs of y.
    eta = torch.tensor([0.0, -0.5]).expand(N, 2, 1, 2)
    y = torch.zeros(N, 2, 2) if own_rows else torch.zeros(N, 1, 2)
    message = r"shape \(9, 2, 1, 2\); expected \(rows, n_outputs, n_params\) = \(9, 2, 2\).*2 memb"
    with pytest.raises(ValueError, match=message):
        NegativeLogLikelihood(n_members=2)(eta, {"y": y})


def test_components_that_members_cannot_share():
    eta = torch.tensor([0.0, -0.5]).expand(N, 5, 1, 2)
    with pytest.raises(ValueError, match=r"\(9, 5, 1, 2\).* 2 members"):
        NegativeLogLikelihood(n_members=2)(eta, torch.zeros(N))
