"""PILCO's rewards: the official costs, the published check values, and the linear rows that say the same."""

import math

import numpy as np
import pytest
import torch

from bayesdyn.envs import HANGING, UPRIGHT, Chain, TipReward, Unicycle, UnicycleReward
from bayesdyn.errors import ConfigurationError, ShapeError

PENDULUM = TipReward(0.5, 1.0, angles=(1,), up=HANGING, cart=None)
DOUBLE = TipReward(0.5, 0.5, angles=(2, 3), up=UPRIGHT, cart=None)
PENDUBOT = TipReward(0.25, 0.5, angles=(2, 3), up=UPRIGHT, cart=None)
CART_DOUBLE = TipReward(0.5, 1.0, angles=(4, 5), up=UPRIGHT, cart=0)
REWARDS = {"cart-pole": (TipReward(), 4), "pendulum": (PENDULUM, 2), "double": (DOUBLE, 4), "pendubot": (PENDUBOT, 4)}
REWARDS |= {"cart-double": (CART_DOUBLE, 6), "unicycle": (UnicycleReward(), 10)}
each = pytest.mark.parametrize("name", REWARDS)


def states(size, rows=20, seed=0):
    return 2 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pays(reward, state):
    return reward(state, torch.zeros(1).double(), state)


@each
def test_rows_give_the_same_distance(name):
    reward, size = REWARDS[name]
    state = states(size)
    rows = reward.rows(size)
    squared = rows.squared_distance(state)
    width = reward.each_width[0]
    torch.testing.assert_close((-0.5 * squared / width**2).exp(), pays(reward, state), rtol=1e-12, atol=1e-15)
    assert rows.rows.shape == (2 if name != "unicycle" else 4, size + 2 * len(rows.turns))


# A state and its cost by the official code (scenarios/pendulum/loss_pendulum.m with no covariance).
def test_pendulum_reward_is_one_minus_the_official_cost():
    state = torch.tensor([0.5058680473440262, 3.412230873796062], dtype=torch.float64)
    assert abs(1 - pays(PENDULUM, state).item() - 0.1354949507325941) < 1e-12


# Mean of the cost for a state N((0.1, 0.2, ...), 0.04 I), from an implementation that equals the official one elsewhere.
PUBLISHED = {
    "double": 0.228445867744,
    "pendubot": 0.580834962937,
    "cart-double": 0.785487901179,
    "unicycle": 0.728671733849,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_give_the_published_mean_cost(name):
    """With the belief of z Gaussian, as PILCO has it: E exp(-½ dᵀd) = |I + H|^{-½} exp(-½ dᵀ(I + H)⁻¹d), H = F cov(z) Fᵀ."""
    reward, size = REWARDS[name]
    mean, var = torch.arange(1, size + 1).double() / 10, 0.04
    turns, rows, target = reward.rows(size)
    angle, spread = turns @ mean, var * turns @ turns.mT  # of the angles
    sin_cos, gain = _trigonometric(angle, spread)
    lifted = torch.cat((mean, sin_cos[0]))
    cross = var * turns.mT @ gain
    cov = torch.cat((torch.cat((var * torch.eye(size).double(), cross), 1), torch.cat((cross.mT, sin_cos[1]), 1)))
    rows = rows / reward.each_width[0]
    away, h = rows @ (lifted - target), rows @ cov @ rows.mT
    inner = torch.eye(len(rows)).double() + h
    mean_reward = (-0.5 * away @ torch.linalg.solve(inner, away)).exp() / torch.linalg.det(inner).sqrt()
    assert abs(1 - mean_reward.item() - PUBLISHED[name]) < 1e-11


def _trigonometric(mean, cov):
    """Mean and covariance of (sin, cos) of jointly Gaussian angles, interleaved, and the gain of the angles, by Euler's formula.

    Every product of e^{i aᵀx} has the mean e^{i aᵀm - ½ aᵀCa}: sums over signs, written as complex numbers.
    """
    k = len(mean)
    unit = torch.eye(k).double()

    def expected(a):
        return torch.exp(1j * (a @ mean) - 0.5 * (a @ cov @ a))

    moments = torch.zeros(2 * k).double()
    second = torch.zeros(2 * k, 2 * k).double()
    gain = torch.zeros(k, 2 * k).double()
    for i in range(k):
        wave = expected(unit[i])
        moments[2 * i], moments[2 * i + 1] = wave.imag, wave.real
        gain[i, 2 * i], gain[i, 2 * i + 1] = wave.real, -wave.imag
        for j in range(k):
            plus, minus = expected(unit[i] + unit[j]), expected(unit[i] - unit[j])
            second[2 * i, 2 * j] = 0.5 * (minus - plus).real
            second[2 * i + 1, 2 * j + 1] = 0.5 * (minus + plus).real
            second[2 * i, 2 * j + 1] = 0.5 * (plus + minus).imag
            second[2 * j + 1, 2 * i] = second[2 * i, 2 * j + 1]
    return (moments, second - moments.outer(moments)), gain


@each
def test_the_goal_pays_one_with_a_finite_gradient_and_nothing_pays_more(name):
    reward, size = REWARDS[name]
    goal = torch.zeros(size).double()
    if name in ("cart-pole", "pendulum"):
        goal[-1] = math.pi
    goal.requires_grad_()
    paid = pays(reward, goal)
    paid.backward()
    assert abs(paid.item() - 1) < 1e-15
    assert goal.grad.isfinite().all()
    many = pays(reward, states(size, 500))
    assert many.max() < 1
    assert many.min() >= 0


@each
def test_several_widths_average_and_leading_axes_are_free(name):
    kind, size = type(REWARDS[name][0]), REWARDS[name][1]
    fields = {k: v for k, v in vars(REWARDS[name][0]).items() if k in kind.__dataclass_fields__ and k != "widths"}
    state = states(size, 24).reshape(2, 3, 4, size)
    both = pays(kind((0.3, 1.0), **fields), state)
    assert both.shape == (2, 3, 4)
    single = [pays(kind(width, **fields), state) for width in (0.3, 1.0)]
    torch.testing.assert_close(both, sum(single) / 2, rtol=1e-12, atol=1e-15)


def test_chain_joints_are_where_the_rods_end():
    up = Chain((0.5, 0.7), angles=(2, 1), up=UPRIGHT, cart=0)
    state = torch.tensor([0.3, math.pi / 2, 0.0], dtype=torch.float64)
    # Upright, then a quarter counter-clockwise: to the left.
    np.testing.assert_allclose(up.joints(state).numpy(), [[0.3, 0.0], [0.3, 0.5], [-0.4, 0.5]], atol=1e-15)
    hanging = Chain((0.5, 0.7), angles=(2, 1), up=HANGING, cart=None)
    np.testing.assert_allclose(hanging.joints(state).numpy(), [[0.0, 0.0], [0.0, -0.5], [0.7, -0.5]], atol=1e-15)


@pytest.mark.parametrize("up", [HANGING, UPRIGHT])
def test_chain_distance_is_that_of_the_tip(up):
    chain = Chain((0.5, 0.7, 0.2), angles=(2, 1, 3), up=up, cart=0)
    state = states(4)
    wanted = torch.linalg.vector_norm(chain.tip(state) - torch.tensor([0.0, 1.4]).double(), dim=-1)
    torch.testing.assert_close(chain.distance(state), wanted, rtol=1e-12, atol=1e-7)
    torch.testing.assert_close(chain.squared_distance(state), wanted.square(), rtol=1e-6, atol=1e-12)


def test_unicycles_height_place_and_heading_have_their_published_weights():
    def paid(**values):
        state = torch.zeros(10).double()
        for name, value in values.items():
            state[["ahead", "left", "theta", "phi", "frame"].index(name) + 5] = value
        return -2 * pays(UnicycleReward(), state).log().item()

    assert abs(paid(ahead=0.4) - 0.5 * 0.4**2) < 1e-12
    assert abs(paid(left=-0.4) - 0.5 * 0.4**2) < 1e-12
    assert abs(paid(phi=1.0) - (1 / (4 * math.pi)) ** 2) < 1e-12
    # Leaning forward lowers the top by r (1 - cos ψf) and moves it r sin ψf ahead.
    r, pitch = 0.81, 0.3
    assert abs(paid(frame=pitch) - 8 * (r * (1 - math.cos(pitch))) ** 2 - 0.5 * (r * math.sin(pitch)) ** 2) < 1e-12
    assert abs(paid(frame=pitch, ahead=r * math.sin(pitch)) - 8 * (r * (1 - math.cos(pitch))) ** 2) < 1e-12
    height, roll = r + 0.22, -0.2
    assert abs(paid(theta=roll, left=height * math.sin(roll)) - 8 * (height * (1 - math.cos(roll))) ** 2) < 1e-12


def test_official_wheel_is_smaller_than_the_plants():
    assert Unicycle().reward.wheel_radius == 0.22
    assert Unicycle(official=False).reward.wheel_radius == Unicycle().plant.wheel_radius == 0.225


def test_constants_without_meaning_are_refused():
    for make in (
        lambda: TipReward(()),
        lambda: TipReward((0.5, 0.0)),
        lambda: TipReward(0.5, (0.5,), angles=(2, 3)),
        lambda: TipReward(0.5, up=1.0),
        lambda: UnicycleReward(-1.0),
        lambda: UnicycleReward(wheel_radius=0.0),
        lambda: Chain((), (), UPRIGHT),
    ):
        with pytest.raises(ConfigurationError, match="positive"):
            make()
    with pytest.raises(ShapeError, match="size 3"):
        TipReward().rows(3)
    with pytest.raises(ConfigurationError, match="10 coordinates"):
        UnicycleReward().rows(4)
