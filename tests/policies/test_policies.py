"""Policies: Monte Carlo, finite differences, what they see of a state, random starts, saving, and what is factorised when."""

import copy
import math

import pytest
import torch

from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.moments import Lift, QuadraticCost, SaturatingCost, SquashSat, SquashSin
from bayesdyn.policies import Features, LinearPolicy, MLPPolicy, OnFeatures, RBFPolicy, Squashed
from bayesdyn.policies import rbf as rbf_module

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_belief(size, scale=1.0, seed=0, batch=()):
    root = torch.randn(*batch, size, size, generator=generator(seed), dtype=F64)
    return torch.randn(*batch, size, generator=generator(seed + 1), dtype=F64), scale * root @ root.mT / size


def rbf(size=3, actions=2, count=6):
    draws = generator(3)
    lengthscale = 0.7 + torch.rand(actions, size, generator=draws, dtype=F64)
    return RBFPolicy(
        torch.randn(count, size, generator=draws, dtype=F64), torch.randn(count, actions, generator=draws, dtype=F64), lengthscale
    )


def linear(size=3, actions=2):
    draws = generator(4)
    return LinearPolicy(torch.randn(actions, size, generator=draws, dtype=F64), torch.randn(actions, generator=draws, dtype=F64))


def mlp(size=3, actions=2):
    return MLPPolicy([size, 8, actions], generator(5))


MAKERS = {
    "linear": linear,
    "rbf": rbf,
    "mlp": mlp,
    "squashed": lambda: Squashed(rbf(), SquashSat([1.0, 2.0])),
    "on features": lambda: OnFeatures(rbf(4), 3, [1]),
    "squashed on features": lambda: OnFeatures(Squashed(linear(4), SquashSin(3.0)), 3, [1]),
}


@pytest.mark.parametrize("scale", [0.05, 1.0])
@pytest.mark.parametrize("make", [linear, rbf])
def test_moments_are_those_of_samples(make, scale):
    """200 000 samples, 5 standard errors of each number; the jitter 1e-6 of the RBFs' variance is taken off."""
    policy, (mean, cov) = make(), random_belief(3, scale)
    found = policy.moments(mean, cov)
    away = torch.randn(200_000, 3, generator=generator(9), dtype=F64) @ torch.linalg.cholesky(cov).mT
    with torch.no_grad():
        actions = policy(mean + away)
    centred = actions - found.mean.detach()
    jitter = 1e-6 * torch.eye(2, dtype=F64) if make is rbf else torch.zeros(2, 2, dtype=F64)
    for products, expected in (
        (actions, found.mean),
        (centred.unsqueeze(-1) * centred.unsqueeze(-2), found.cov - jitter),
        (away.unsqueeze(-1) * centred.unsqueeze(-2), cov @ found.gain),
    ):
        assert bool(((products.mean(0) - expected).abs() <= 5 * products.std(0) / len(away) ** 0.5 + 1e-12).all())


@pytest.mark.parametrize("scale", [0.05, 0.5])
def test_network_moments_approach_those_of_many_samples(scale):
    """The moments of `samples` points have the standard errors of so many draws at most: they are draws, made more regular."""
    mean, cov = random_belief(3, scale)
    policy = MLPPolicy([3, 8, 2], generator(5), samples=2048)
    with torch.no_grad():
        found = policy.moments(mean, cov)
        away = torch.randn(200_000, 3, generator=generator(9), dtype=F64) @ torch.linalg.cholesky(cov).mT
        actions = policy(mean + away)
    centred = actions - actions.mean(0)
    for products, ours in (
        (actions, found.mean),
        (centred.unsqueeze(-1) * centred.unsqueeze(-2), found.cov),
        (away.unsqueeze(-1) * centred.unsqueeze(-2), cov @ found.gain),
    ):
        assert bool(((products.mean(0) - ours).abs() <= 5 * products.std(0) * (1 / 2048 + 1 / len(away)) ** 0.5).all())


def test_network_moments_of_a_linear_network_are_exact():
    """One layer is a linear policy: whitened points have its moments but for ε = 1e-8."""
    policy, (mean, cov) = MLPPolicy([3, 2], generator()), random_belief(3)
    exact = LinearPolicy(policy.weights[0].detach(), policy.biases[0].detach()).moments(mean, cov)
    for ours, theirs in zip(policy.moments(mean, cov), exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


def test_network_gain_at_a_known_state_is_the_slope():
    """With ε = 1e-8 the points are 1e-4 apart, so that third derivatives change the slope by 1e-8."""
    policy, (mean, _) = mlp(), random_belief(3)
    found = policy.moments(mean, torch.zeros(3, 3, dtype=F64))
    slope = torch.autograd.functional.jacobian(policy, mean).mT
    torch.testing.assert_close(found.gain, slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_in_the_parameters_are_finite_differences(name):
    """Along random directions, of a random sum of moments and actions; central differences of 1e-5 are right to about 1e-9."""
    policy, (mean, cov) = MAKERS[name](), random_belief(3, 0.3, batch=(2,))
    parameters, draws, step = list(policy.parameters()), generator(7), 1e-5
    weights = [torch.randn(values.shape, generator=draws, dtype=F64) for values in (*policy.moments(mean, cov), policy(mean))]

    def total():
        return sum((w * v).sum() for w, v in zip(weights, (*policy.moments(mean, cov), policy(mean)), strict=True))

    gradient = torch.cat([slope.flatten() for slope in torch.autograd.grad(total(), parameters)])
    point = torch.nn.utils.parameters_to_vector(parameters).detach()
    for _ in range(5):
        direction = torch.randn(point.shape, generator=draws, dtype=F64)
        ends = []
        for sign in (1.0, -1.0):
            torch.nn.utils.vector_to_parameters(point + sign * step * direction, parameters)
            ends.append(total().item())
        torch.nn.utils.vector_to_parameters(point, parameters)
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx((gradient @ direction).item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_prepared_and_lifted_are_the_policy(name):
    """A snapshot says what the policy says, at points and beliefs; so does the policy on a lifted state."""
    policy, (mean, cov) = MAKERS[name](), random_belief(3, batch=(4,))
    prepared, lift = policy.prepared(), Lift(3, [1])
    torch.testing.assert_close(prepared(mean), policy(mean))
    lifted = lift.moments(mean, cov)
    direct = policy.moments(mean, cov)
    through = policy.on_lifted(lift).moments(lifted.mean, lifted.cov)
    for ours, snapshot, expected in zip(
        (*through[:2], lifted.gain @ through.gain), prepared.moments(mean, cov), direct, strict=True
    ):
        torch.testing.assert_close(snapshot, expected, rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_a_rollout_factorises_once(monkeypatch):
    calls = []
    weights = rbf_module.rbf_weights
    monkeypatch.setattr(rbf_module, "rbf_weights", lambda *a: calls.append(1) or weights(*a))
    control = OnFeatures(Squashed(rbf(4), SquashSat(1.0)), 3, [1]).on_lifted(Lift(3, [1]))
    mean, cov = Lift(3, [1]).moments(*random_belief(3))[:2]
    for _ in range(40):
        control.moments(mean, cov)
    assert len(calls) == 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_saved_policy_is_the_same_policy(name):
    policy, other, (mean, cov) = MAKERS[name](), MAKERS[name](), random_belief(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(other(mean), policy(mean))
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other(mean), policy(mean))
    for ours, theirs in zip(other.moments(mean, cov), policy.moments(mean, cov), strict=True):
        assert torch.equal(ours, theirs)


def test_the_cart_pole_policy_of_the_papers_has_305_numbers():
    features = Features(4, [3])
    start = features.moments(torch.zeros(4, dtype=F64), 0.01 * torch.eye(4, dtype=F64))
    policy = OnFeatures(RBFPolicy.random(50, 1, start.mean, start.cov, generator(), features.lengthscale), 4, [3])
    assert features.columns == (0, 1, 2, 4, 5)
    assert features.lengthscale.tolist() == [1.0, 1.0, 1.0, 0.7, 0.7]
    assert sum(p.numel() for p in policy.parameters()) == 305
    assert policy(torch.zeros(7, 4, dtype=F64)).shape == (7, 1)


def test_random_starts_are_those_of_the_belief():
    """Mean and covariance of 20 000 centres within 5 standard errors; a coordinate without spread keeps its value."""
    mean = torch.tensor([1.0, -2.0, 3.0], dtype=F64)
    cov = torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.3, 0.0], [0.0, 0.0, 0.0]], dtype=F64)
    centres = RBFPolicy.random(20_000, 1, mean, cov, generator()).centres.detach()
    away = centres - mean
    assert bool((away.mean(0).abs() <= 5 * (cov.diagonal() / 20_000).sqrt()).all())
    variances = cov.diagonal()
    error = ((variances[:, None] * variances + cov**2) / 20_000).sqrt()
    assert bool(((away.mT @ away / 20_000 - cov).abs() <= 5 * error).all())


def test_random_starts_repeat_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    first, second = (RBFPolicy.random(5, 1, torch.zeros(2), torch.eye(2), generator(1)) for _ in range(2))
    assert torch.equal(first.centres, second.centres)
    assert torch.equal(LinearPolicy.random(3, 1, generator()).weight, LinearPolicy.random(3, 1, generator()).weight)
    assert torch.equal(mlp().weights[0], mlp().weights[0])
    assert torch.equal(torch.get_rng_state(), before)
    weights = LinearPolicy.random(200, 50, generator()).weight
    assert weights.std().item() == pytest.approx(0.01, rel=5 / (2 * 10_000) ** 0.5)


@pytest.mark.parametrize("name", MAKERS)
def test_a_used_policy_can_be_copied(name):
    """A search keeps the policy it started from: neither a copy nor a snapshot follows when the parameters move on."""
    policy, (mean, cov) = MAKERS[name](), random_belief(3)
    before, snapshot, other = policy.moments(mean, cov), policy.prepared(), copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    for still, copied, expected in zip(snapshot.moments(mean, cov), other.moments(mean, cov), before, strict=True):
        assert torch.equal(still, expected)
        assert torch.equal(copied, expected)


def test_parameters_make_one_vector():
    """Whatever the strides of the tensors that a policy is made of."""
    policy = RBFPolicy(torch.ones(2, 3).mT, torch.ones(2, 3).mT, torch.ones(2, 2).mT)
    assert torch.nn.utils.parameters_to_vector(policy.parameters()).numel() == 16


def test_a_full_turn_changes_nothing():
    policy = OnFeatures(rbf(4), 3, [1])
    state = random_belief(3)[0]
    turned = state + torch.tensor([0.0, 2 * math.pi, 0.0], dtype=F64)
    torch.testing.assert_close(policy(turned), policy(state), rtol=1e-12, atol=1e-12)


def test_inputs_and_centres_far_from_zero_change_nothing():
    policy, (mean, cov) = rbf(), random_belief(3)
    far = RBFPolicy(policy.centres + 1000, policy.targets, policy.lengthscale)
    torch.testing.assert_close(far(mean + 1000), policy(mean), rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(far.moments(mean + 1000, cov), policy.moments(mean, cov), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_far_belief_has_finite_moments_and_gradients():
    policy = Squashed(rbf(), SquashSat(1.0))
    for spread in (0.0, 1.0, 1e6):
        found = policy.moments(torch.full((3,), 1e3, dtype=F64), spread * torch.eye(3, dtype=F64))
        slopes = torch.autograd.grad(sum(values.sum() for values in found), list(policy.parameters()))
        assert all(bool(values.isfinite().all()) for values in (*found, *slopes))


def test_errors_name_what_came():
    start = torch.zeros(2), torch.eye(2)
    with pytest.raises(ConfigurationError, match="one or more of them; got 0"):
        RBFPolicy.random(0, 1, *start, generator())
    with pytest.raises(ShapeError, match="one for each of 2 inputs"):
        RBFPolicy.random(3, 1, *start, generator(), [1.0, 1.0, 1.0])
    with pytest.raises(ShapeError, match=r"weight \[A, D\]"):
        LinearPolicy([[1.0, 2.0]], [1.0, 2.0])
    with pytest.raises(ShapeError, match=r"targets \[nc, A\]"):
        RBFPolicy([[1.0]], [[1.0], [2.0]], [[1.0]])
    with pytest.raises(ConfigurationError, match="positive"):
        RBFPolicy([[1.0]], [[1.0]], [[0.0]])
    with pytest.raises(ConfigurationError, match="samples 5"):
        MLPPolicy([1, 1], generator(), samples=5)
    with pytest.raises(ConfigurationError, match=r"angles \(1,\)"):
        OnFeatures(linear(4), 3, [1]).on_lifted(Lift(3, [2]))
    with pytest.raises(NumericalError, match="positive semi-definite"):
        mlp().moments(torch.zeros(3, dtype=F64), -torch.eye(3, dtype=F64))
    broken = rbf()
    with torch.no_grad():
        broken.centres.fill_(math.nan)
    with pytest.raises(NumericalError, match="shorter"):
        broken.prepared()


@pytest.mark.parametrize(
    "call",
    [
        LinearPolicy([[1.0, 2.0]], [0.0]),
        RBFPolicy([[0.0, 0.0]], [[1.0]], [[1.0, 1.0]]),
        Lift(2, [1]),
        SaturatingCost([0.0, 0.0], [[1.0, 0.0]]),
        QuadraticCost([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_points_of_another_size_are_refused_by_a_message_of_ours(call):
    with pytest.raises(ShapeError, match=r"wants points \[..., 2\]; got \[4, 3\]"):
        call(torch.zeros(4, 3, dtype=torch.float64))
