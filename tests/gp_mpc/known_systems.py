"""Systems whose best actions are known, for the tests of GP-MPC: a mass on a line, its regulator, and what breaks."""

from dataclasses import dataclass

import numpy as np
import torch

import bayesdyn as bd
from bayesdyn.belief_dynamics import Belief, BeliefDynamics
from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.errors import NumericalError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.gp_mpc import GPMPC, BeliefProblem, BoxSearch
from bayesdyn.moments import Linear, QuadraticCost
from bayesdyn.planners import Box

DOUBLE = torch.float64
HORIZON = 12
# A mass on a line: s' = A s + B u with a damped speed, and the weights of state, action and end.
A = torch.tensor([[1.0, 0.2], [0.0, 0.9]], dtype=DOUBLE)
B = torch.tensor([[0.02], [0.2]], dtype=DOUBLE)
Q = torch.diag(torch.tensor([1.0, 0.1], dtype=DOUBLE))
R, END = torch.tensor([[0.05]], dtype=DOUBLE), 5.0 * Q
WIDE = Box.of([-50.0], [50.0], DOUBLE)


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def linear(a: torch.Tensor = A, b: torch.Tensor = B) -> BeliefDynamics:
    """Return s' = a s + b u exactly."""
    size, actions = b.shape
    change = Linear(torch.cat([a - torch.eye(size, dtype=DOUBLE), b], 1))
    return BeliefDynamics(change, state_size=size, action_size=actions, inputs=range(size + actions))


def quadratic(weight: torch.Tensor) -> QuadraticCost:
    return QuadraticCost(torch.zeros(len(weight), dtype=DOUBLE), weight)


def lqr_problem(**options: object) -> BeliefProblem:
    start = Belief(tensor([2.0, -1.0]), tensor([[0.3, 0.1], [0.1, 0.2]]))
    return BeliefProblem(linear(), quadratic(Q), start, action_cost=quadratic(R), final_cost=quadratic(END), **options)


def riccati() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the actions of the finite-horizon regulator from (2, -1), and what its mean trajectory costs after the start."""
    value, gains = Q + END, []
    for _ in range(HORIZON):
        gain = torch.linalg.solve(R + B.mT @ value @ B, B.mT @ value @ A)
        gains.append(gain)
        value = Q + A.mT @ value @ (A - B @ gain)
    state, actions = tensor([[2.0], [-1.0]]), []
    cost = state.mT @ (value - Q) @ state
    for gain in reversed(gains):
        actions.append(-gain @ state)
        state = A @ state + B @ actions[-1]
    return torch.stack(actions)[..., 0], cost


def least_squares() -> tuple[np.ndarray, np.ndarray]:
    """Return M, d with J(u) = |M u - d|² + const for the mean of the linear problem."""
    columns, free = [], None
    for k in range(-1, HORIZON):
        state = tensor([[2.0], [-1.0]]) if k < 0 else torch.zeros(2, 1, dtype=DOUBLE)
        rows = []
        for t in range(HORIZON):
            state = A @ state + (B if t == k else 0.0 * B)
            weight = Q + END if t == HORIZON - 1 else Q
            rows.append(torch.linalg.cholesky(weight).mT @ state)
        rows.append(R.sqrt() * torch.eye(HORIZON, dtype=DOUBLE)[:, [k]] if k >= 0 else torch.zeros(HORIZON, 1, dtype=DOUBLE))
        column = torch.cat(rows).numpy()
        free, columns = (column, columns) if k < 0 else (free, [*columns, column])
    return np.concatenate(columns, 1), -free[:, 0]


def point_mass_model(rows: int = 30) -> bd.DynamicsModel:
    generator = torch.Generator().manual_seed(1)
    state, action = torch.randn(rows, 2, dtype=DOUBLE, generator=generator), torch.rand(rows, 1, dtype=DOUBLE, generator=generator)
    model = make_model()
    model.fit(bd.Transitions.from_arrays(state, action, state @ A.mT + action @ B.mT))
    return model


def make_model() -> bd.DynamicsModel:
    return bd.DynamicsModel(bd.Codec(), bd.posteriors.ExactGP(features=32, training=GPTraining(max_steps=30, restarts=0)))


COST = quadratic(torch.diag(tensor([1.0, 0.0])))


def reward(state: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return -following[..., 0].square()


def make_agent(model: bd.DynamicsModel, **options: object) -> GPMPC:
    settings = {"horizon": 4, "search": BoxSearch(8), "first_search": BoxSearch(10), "scouts": 8, "starts": 2}
    return GPMPC(model, COST, reward, **{**settings, "draws": 3, **options})


class NoisyStep(MomentMap):
    """The change u + ε of a scalar state, ε ~ N(0, 0.04): inputs [s, u]."""

    def moments(self, mean: torch.Tensor, cov: torch.Tensor) -> Moments:
        gain = tensor([[0.0], [1.0]]).expand(*mean.shape, 1)
        return Moments(mean[..., 1:], cov[..., 1:, 1:] + 0.04, gain)


@dataclass
class Cliff(MomentMap):
    """The change u, which explodes for u above `edge`."""

    edge: float = 0.5

    def moments(self, mean: torch.Tensor, cov: torch.Tensor) -> Moments:
        if bool((mean[..., 1] > self.edge).any()):
            raise NumericalError("the belief exploded")
        return Moments(mean[..., 1:], cov[..., 1:, 1:], tensor([[0.0], [1.0]]).expand(*mean.shape, 1))
