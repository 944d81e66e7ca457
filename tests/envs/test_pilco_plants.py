"""PILCO's chains of rods: official numbers, Euler-Lagrange by automatic differentiation, energy, batches and gradients."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lagrange import accelerations, rods
from scipy.integrate import solve_ivp

from bayesdyn.envs import CartDoublePendulumPlant, CartPolePlant, DoublePendulumPlant, PendubotPlant, PendulumPlant
from bayesdyn.errors import ConfigurationError, ShapeError

GOLDEN = Path(__file__).parents[1] / "golden" / "pilco"
PLANTS = [PendulumPlant(), DoublePendulumPlant(), PendubotPlant(), CartDoublePendulumPlant()]
STEPS = {PendulumPlant: 40, DoublePendulumPlant: 30, PendubotPlant: 60, CartDoublePendulumPlant: 100}
named = pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: type(plant).__name__)


def counted(size):
    """0.1, 0.2, ...: the state of the published check values."""
    return torch.arange(1, size + 1).double() / 10


def random_states(plant, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, len(plant.state_names), generator=generator, dtype=torch.float64)


def random_actions(plant, rows, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.rand(rows, len(plant.action_names), generator=generator, dtype=torch.float64) - 2


def test_pendulum_moves_as_the_official_one():
    cases, plant = json.loads((GOLDEN / "dynamics_step_pendulum.json").read_text())["cases"], PendulumPlant()
    x, u, dxdt, after = (torch.tensor([case[key] for case in cases], dtype=torch.float64) for key in ("x", "u", "dxdt", "x_next"))
    torch.testing.assert_close(plant.derivative(x, u), dxdt, rtol=0, atol=1e-12)
    torch.testing.assert_close(plant.step(x, u), after, rtol=0, atol=1e-10)


# Accelerations and next states (10 and 9 decimals) from an implementation that equals the official code to 1e-12 elsewhere.
PUBLISHED = [
    (
        DoublePendulumPlant(),
        [0.5, -1.0],
        {0: 32.06004282514, 1: -60.37904736185},
        [3.460997002, -6.193775206, 0.479497179, 0.099311744],
    ),
    (PendubotPlant(), [0.5], {0: 11.85035952092, 1: -6.21596876187}, [0.709032795, -0.133919468, 0.320019524, 0.401968037]),
    (
        CartDoublePendulumPlant(),
        [1.0],
        {1: 5.30570121948, 2: 18.75789488352, 3: -3.20031965455},
        [0.116528431, 0.458138128, 1.242534780, 0.219217866, 0.538501494, 0.615733120],
    ),
]


@pytest.mark.parametrize(("plant", "action", "wanted", "after"), PUBLISHED, ids=lambda value: type(value).__name__)
def test_chains_move_by_the_published_check_values(plant, action, wanted, after):
    state, held = counted(len(plant.state_names)), torch.tensor(action, dtype=torch.float64)
    rate = plant.derivative(state, held)
    for index, value in wanted.items():
        assert abs(rate[index].item() - value) < 1e-11  # half a unit in the last of eleven decimals, and rounding
    np.testing.assert_allclose(plant.step(state, held).numpy(), after, rtol=0, atol=6e-10)


def test_cart_pole_and_pendulum_follow_from_their_energies():
    cart, pole = CartPolePlant(friction=0.3), PendulumPlant(friction=0.3, mass=0.7, length=0.8)
    for state, force in zip(random_states(cart, 5), random_actions(cart, 5), strict=True):
        x_dot, theta_dot, theta = state[1:]
        rate = cart.derivative(state, force)
        kinetic, potential = rods(0.5, (0.5,), (0.5,), math.pi, 9.82)
        q, speed = torch.stack((state[0], theta)), torch.stack((x_dot, theta_dot))
        wanted = accelerations(kinetic, potential, q, speed, torch.stack((force[0] - 0.3 * x_dot, torch.zeros(()).double())))
        torch.testing.assert_close(rate[1:3], wanted, rtol=1e-11, atol=1e-11)
        kinetic, potential = rods(None, (0.7,), (0.8,), math.pi, 9.82)
        wanted = accelerations(kinetic, potential, theta[None], theta_dot[None], force - 0.3 * theta_dot)
        torch.testing.assert_close(pole.derivative(torch.stack((theta_dot, theta)), force)[:1], wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("driven", [DoublePendulumPlant, PendubotPlant])
def test_two_links_follow_from_their_energies(driven):
    masses, lengths = (0.4, 0.7), (0.6, 0.9)
    plant = driven(masses=masses, lengths=lengths, friction=0.2, gravity=5.0)
    kinetic, potential = rods(None, masses, lengths, 0.0, 5.0)
    for state, action in zip(random_states(plant, 5), random_actions(plant, 5), strict=True):
        torque = torch.cat((action, torch.zeros(1).double()))[:2]
        wanted = accelerations(kinetic, potential, state[2:], state[:2], torque - 0.2 * state[:2])
        torch.testing.assert_close(plant.derivative(state, action), torch.cat((wanted, state[:2])), rtol=1e-11, atol=1e-11)


def test_cart_with_two_links_follows_from_its_energies():
    masses, lengths = (0.4, 0.7), (0.6, 0.9)
    plant = CartDoublePendulumPlant(cart_mass=0.8, masses=masses, lengths=lengths, friction=0.2, gravity=5.0)
    kinetic, potential = rods(0.8, masses, lengths, 0.0, 5.0)
    for state, action in zip(random_states(plant, 5), random_actions(plant, 5), strict=True):
        q, speed = state[[0, 4, 5]], state[1:4]
        force = torch.cat((action - 0.2 * state[1:2], torch.zeros(2).double()))
        wanted = accelerations(kinetic, potential, q, speed, force)
        rate = torch.cat((state[1:2], wanted, state[2:4]))
        torch.testing.assert_close(plant.derivative(state, action), rate, rtol=1e-11, atol=1e-11)


def test_energies_are_those_of_the_rods():
    for plant, cart, lengths in ((DoublePendulumPlant(), None, (0.5, 0.5)), (CartDoublePendulumPlant(), 0.5, (0.6, 0.6))):
        kinetic, potential = rods(cart, (0.5, 0.5), lengths, 0.0, 9.82)
        for state in random_states(plant, 3):
            q, speed = (state[2:], state[:2]) if cart is None else (state[[0, 4, 5]], state[1:4])
            torch.testing.assert_close(plant.energy(state), kinetic(q, speed) + potential(q), rtol=1e-12, atol=1e-12)


@named
def test_energy_is_constant_over_an_episode_without_action_and_friction(plant):
    plant = dataclasses.replace(plant, friction=0.0)
    generator = torch.Generator().manual_seed(2)
    start = state = torch.randn(10, len(plant.state_names), generator=generator, dtype=torch.float64)
    for _ in range(STEPS[type(plant)]):
        state = plant.step(state, torch.zeros(len(plant.action_names)).double())
    torch.testing.assert_close(plant.energy(state), plant.energy(start), rtol=0, atol=2e-10)
    assert (state - start).abs().amax(-1).min() > 0.1


@named
def test_a_step_matches_an_adaptive_solver(plant):
    for state, action in zip(random_states(plant, 3, seed=3), random_actions(plant, 3), strict=True):

        def rate(_, s, action=action):
            return plant.derivative(torch.from_numpy(s), action).numpy()

        peer = solve_ivp(rate, (0, plant.dt), state.numpy(), method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
        np.testing.assert_allclose(plant.step(state, action).numpy(), peer, rtol=0, atol=1e-10)


@named
def test_a_hundred_plants_move_as_each_alone(plant):
    state, action = random_states(plant, 100).reshape(4, 25, -1), random_actions(plant, 25)
    together = plant.step(state, action)
    assert together.shape == state.shape
    for i, j in ((0, 0), (1, 7), (3, 24)):
        # Vector and scalar sines differ in the last bit, which a step amplifies by a few thousand at most at these speeds.
        torch.testing.assert_close(together[i, j], plant.step(state[i, j], action[j]), rtol=0, atol=1e-11)


@named
def test_gradient_of_a_step_matches_finite_differences(plant):
    state, action = random_states(plant, 1, seed=5) / 3, random_actions(plant, 1, seed=6)
    assert torch.autograd.gradcheck(plant.step, (state.requires_grad_(), action.requires_grad_()), atol=1e-7)


@named
def test_mirror_images_move_as_mirror_images(plant):
    state, action = random_states(plant, 10), random_actions(plant, 10)
    torch.testing.assert_close(plant.step(-state, -action), -plant.step(state, action), rtol=0, atol=1e-11)


def test_pendubot_is_a_double_pendulum_with_a_free_outer_joint():
    state, torque = random_states(PendubotPlant(), 5), random_actions(PendubotPlant(), 5)
    both = torch.cat((torque, torch.zeros_like(torque)), -1)
    moved = DoublePendulumPlant(dt=PendubotPlant().dt).step(state, both)
    torch.testing.assert_close(PendubotPlant().step(state, torque), moved, rtol=0, atol=1e-11)


def test_a_heavy_cart_is_a_fixed_hinge():
    state = random_states(DoublePendulumPlant(), 5)
    cart = torch.cat((torch.zeros(5, 2).double(), state), -1)
    lengths = (0.5, 0.5)
    fixed = DoublePendulumPlant().step(state, torch.zeros(2).double())
    # The cart gives way by 1e-12 of the rods' forces, about a hundred newtons.
    heavy = CartDoublePendulumPlant(cart_mass=1e12, lengths=lengths, friction=0.0, dt=0.1).step(cart, torch.zeros(1).double())
    torch.testing.assert_close(heavy[:, 2:], fixed, rtol=0, atol=1e-8)


def test_constants_without_meaning_and_other_sizes_are_refused():
    for make in (
        lambda: PendulumPlant(mass=0.0),
        lambda: DoublePendulumPlant(lengths=(0.5, -0.5)),
        lambda: PendubotPlant(dt=0.0),
        lambda: CartDoublePendulumPlant(friction=-0.1),
    ):
        with pytest.raises(ConfigurationError, match="positive"):
            make()
    with pytest.raises(ShapeError, match="outer_torque"):
        DoublePendulumPlant().step(torch.zeros(4), torch.zeros(1))
