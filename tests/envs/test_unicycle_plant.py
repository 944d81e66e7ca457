"""PILCO's unicycle: published accelerations, the same from energies and a rolling constraint, energy, batches, gradients."""

import math

import numpy as np
import pytest
import torch
from lagrange import constrained_accelerations
from torch.func import jvp

from bayesdyn.envs import UnicyclePlant
from bayesdyn.errors import ConfigurationError

TRUE = UnicyclePlant(official=False)
COORDINATES = [5, 6, 7, 8, 9, 10, 11]  # x, y, theta, phi, wheel, frame, turntable
# From an implementation that equals the official accelerations to 6e-15; ten decimals.
OFFICIAL = [13.1353917188, -0.3133534436, -10.6295793771, 9.7383973986, 16.8797092723]
CORRECTED = [13.1353917188, -0.3133534436, -9.9250770497, 9.1424176918, 16.8797092723]


def counted():
    return torch.arange(1, 13).double() / 10


def random_states(rows, spread=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, 12, generator=generator, dtype=torch.float64)


def random_torques(rows, seed=1):
    return torch.tensor([2.0, 10.0]) * (2 * torch.rand(rows, 2, generator=torch.Generator().manual_seed(seed)).double() - 1)


def rotation(axis, angle):
    """The rotation by `angle` about axis 0, 1 or 2, written as e^{angle K}."""
    generator = torch.zeros(3, 3).double()
    after, last = (axis + 1) % 3, (axis + 2) % 3
    generator[after, last], generator[last, after] = -1.0, 1.0
    return torch.eye(3).double() + angle.sin() * generator + (1 - angle.cos()) * generator @ generator


def bodies(q):
    """Places [3, 3] of the centres and rotations [3, 3, 3] of wheel, frame and turntable for q = x, y, θ, φ, ψw, ψf, ψt."""
    x, y, theta, phi, wheel, frame, turntable = q
    leaning = rotation(2, phi) @ rotation(0, -theta)
    pitched = leaning @ rotation(1, frame)
    axle = torch.stack((x, y, torch.zeros_like(x))) + 0.225 * leaning[:, 2]
    centres = torch.stack((axle, axle + 0.54 * pitched[:, 2], axle + 0.81 * pitched[:, 2]))
    return centres, torch.stack((leaning @ rotation(1, wheel), pitched, pitched @ rotation(2, turntable)))


MASSES = torch.tensor([1.0, 23.5, 10.0], dtype=torch.float64)
INERTIAS = torch.tensor([[0.0242, 0.0484, 0.0242], [0.4608, 0.8292, 0.4248], [1.3, 1.3, 0.2]], dtype=torch.float64)


def kinetic(q, speed):
    (_, turns), (velocities, rates) = jvp(bodies, (q,), (speed,))
    spin = turns.mT @ rates  # the skew matrix of ω in the body's axes
    omega = torch.stack((spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]), -1)
    return 0.5 * ((MASSES * velocities.square().sum(-1)).sum() + (INERTIAS * omega.square()).sum())


def potential(q):
    return 9.82 * (MASSES * bodies(q)[0][:, 2]).sum()


def rolling(q):
    """A(q) of ẋ = rw cos φ ψ̇w, ẏ = rw sin φ ψ̇w."""
    one, zero = torch.ones_like(q[0]), torch.zeros_like(q[0])
    ahead = -0.225 * torch.stack((q[3].cos(), q[3].sin()))
    return torch.stack(
        (torch.stack((one, zero, zero, zero, ahead[0], zero, zero)), torch.stack((zero, one, zero, zero, ahead[1], zero, zero)))
    )


def speeds_of(state):
    """q̇ [7], with ẋ and ẏ as the wheel rolls."""
    rolled = 0.225 * state[2]
    return torch.cat((torch.stack((rolled * state[8].cos(), rolled * state[8].sin())), state[:5]))


@pytest.mark.parametrize(("official", "wanted"), [(True, OFFICIAL), (False, CORRECTED)])
def test_accelerations_are_the_published_ones(official, wanted):
    rate = UnicyclePlant(official=official).derivative(counted(), torch.tensor([1.0, 2.0], dtype=torch.float64))
    np.testing.assert_allclose(rate[:5].numpy(), wanted, rtol=0, atol=6e-11)


def test_official_inertia_changes_wheel_and_pitch_at_this_state_only():
    assert [i for i, (a, b) in enumerate(zip(OFFICIAL, CORRECTED, strict=True)) if a != b] == [2, 3]


def test_accelerations_follow_from_energies_and_rolling():
    for state, (turntable, wheel) in zip(random_states(6, 1.0), random_torques(6), strict=True):
        zero = torch.zeros(()).double()
        force = torch.stack((zero, zero, zero, zero, wheel, -wheel, turntable))
        wanted = constrained_accelerations(kinetic, potential, rolling, state[COORDINATES], speeds_of(state), force)
        rate = TRUE.derivative(state, torch.stack((turntable, wheel)))
        torch.testing.assert_close(rate[:5], wanted[2:], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(rate[5:], torch.cat((speeds_of(state)[:2], state[:5])), rtol=1e-12, atol=1e-12)


def test_energy_is_that_of_the_three_bodies():
    for state in random_states(4, 1.0):
        q, speed = state[COORDINATES], speeds_of(state)
        torch.testing.assert_close(TRUE.energy(state), kinetic(q, speed) + potential(q), rtol=1e-12, atol=1e-12)


def test_energy_is_constant_until_it_has_fallen_and_only_with_the_right_inertia():
    # Nearly upright it takes about 0.6 s to fall.
    start = state = wrong = random_states(20, 0.1, seed=2)
    still = torch.zeros(2).double()
    for _ in range(4):
        state, wrong = TRUE.step(state, still), UnicyclePlant().step(wrong, still)
    drift = (TRUE.energy(state) - TRUE.energy(start)).abs().max()
    assert drift < 1e-9  # of about 280 J
    assert (TRUE.energy(wrong) - TRUE.energy(start)).abs().max() > 1e-2


def test_energy_changes_by_the_power_of_the_torques():
    state, torque = random_states(20).requires_grad_(), random_torques(20)
    (slope,) = torch.autograd.grad(TRUE.energy(state).sum(), state)
    power = (slope * TRUE.derivative(state, torque)).sum(-1)
    wanted = torque[:, 1] * (state[:, 2] - state[:, 3]) + torque[:, 0] * state[:, 4]
    torch.testing.assert_close(power, wanted, rtol=0, atol=1e-9)


def test_place_heading_and_the_turns_of_wheel_and_turntable_do_not_matter():
    plant, state, torque = UnicyclePlant(), random_states(5, 0.2), random_torques(5)
    moved = plant.step(state, torque)
    turn = 1.1
    shifted = state.clone()
    x, y = state[:, 5], state[:, 6]
    shifted[:, 5], shifted[:, 6] = math.cos(turn) * x - math.sin(turn) * y, math.sin(turn) * x + math.cos(turn) * y
    shifted[:, 8] += turn
    shifted[:, [9, 11]] += torch.tensor([2.0, -3.0]).double()
    seen, turned = plant.observe(moved), plant.observe(plant.step(shifted, torque))
    turned[:, 8] -= turn
    torch.testing.assert_close(seen, turned, rtol=0, atol=1e-11)


def test_observed_origin_is_the_origin_in_the_unicycles_axes():
    # Heading along y from (3, 0): the origin is 3 m to the left, and none ahead.
    state = torch.zeros(12).double()
    state[5], state[8] = 3.0, math.pi / 2
    np.testing.assert_allclose(UnicyclePlant().observe(state)[5:7].numpy(), [0.0, 3.0], atol=1e-15)
    assert UnicyclePlant().observation_names[5:7] == ("origin_ahead", "origin_left")


def test_moments_of_what_is_seen_match_samples():
    mean = 0.5 * torch.randn(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    std = torch.linspace(0.1, 0.6, 12, dtype=torch.float64)
    rows = 200_000
    seen = UnicyclePlant().observe(mean + std * torch.randn(rows, 12, generator=torch.Generator().manual_seed(4)).double())
    expected, cov = UnicyclePlant().observed_moments(mean, std)
    # Standard errors: of a mean √(var / n); of a covariance at most about √(3 var var / n) for bounded turns of normals.
    scale = cov.diag().sqrt() / math.sqrt(rows)
    assert ((seen.mean(0) - expected) / scale).abs().max() < 5
    error = (torch.cov(seen.mT) - cov) / (scale.outer(cov.diag().sqrt()) * math.sqrt(3))
    assert error.abs().max() < 5
    assert cov[5:7, 8].abs().min() > 0.01


def test_the_official_start_is_as_it_is_drawn():
    std = torch.tensor([0.02] * 5 + [0.1] * 2 + [0.02] * 5, dtype=torch.float64)
    mean, cov = UnicyclePlant().observed_moments(torch.zeros(12).double(), std)
    assert torch.equal(mean, torch.zeros(10).double())
    torch.testing.assert_close(cov, torch.tensor([0.02] * 5 + [0.1] * 2 + [0.02] * 3, dtype=torch.float64).square().diag())


def test_a_hundred_unicycles_move_as_each_alone():
    plant, state, torque = UnicyclePlant(), random_states(100, 0.2).reshape(4, 25, 12), random_torques(25)
    together = plant.step(state, torque)
    assert together.shape == (4, 25, 12)
    for i, j in ((0, 0), (3, 24)):
        torch.testing.assert_close(together[i, j], plant.step(state[i, j], torque[j]), rtol=0, atol=1e-11)


def test_gradient_of_a_step_matches_finite_differences():
    state, torque = random_states(1, 0.2, seed=5)[0], random_torques(1)[0]
    assert torch.autograd.gradcheck(UnicyclePlant().step, (state.requires_grad_(), torque.requires_grad_()), atol=1e-7)


def test_constants_without_meaning_are_refused():
    with pytest.raises(ConfigurationError, match="positive"):
        UnicyclePlant(wheel_radius=0.0)
