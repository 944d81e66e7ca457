"""Two routes: a path along a cornice, which the wind of the day may blow a walker off, and the plain, which is worth less."""

from dataclasses import dataclass

import torch
from torch import Tensor

import bayesdyn as bd
from bayesdyn.objectives import Objective
from bayesdyn.rollout import SampledDynamics, Trajectory

STEPS, EDGE, FALL = 12, -0.6, -10.0
START = torch.ones(1, dtype=torch.float64)  # half way between the two


@dataclass(frozen=True)
class Winds:
    """Draws of the dynamics, each with its own wind ~ N(0, 0.13²) m a step: nobody knows it before the trip, and it does not turn.

    y' = y + a/2 + (wind - 0.3 y) exp(-(y/0.8)⁴) + ε, ε of 0.03 m: there is wind on the cornice alone, y metres from its middle.
    """

    std: float = 0.13

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> SampledDynamics:
        """Draw the winds of n days."""
        wind = self.std * torch.randn(n, generator=generator, dtype=torch.float64).to(dtype or torch.float64)

        def step(y: Tensor, action: Tensor) -> bd.Gaussian:
            today = wind.reshape(-1, *(1,) * (y.dim() - 1))
            mean = y + 0.5 * action + (today - 0.3 * y) * (-((y / 0.8) ** 4)).exp()
            return bd.Gaussian(mean, torch.full_like(mean, 0.03**2))

        return bd.PlainDynamics(step, n)


def reward(y: Tensor, action: Tensor, next_y: Tensor) -> Tensor:
    """Return 1 for a step along the cornice, 0.6 for one in the plain (y > 1.4), nothing between, and -10 for a fall."""
    y = next_y[..., 0]
    return torch.where(y < EDGE, FALL, ((0.6 - y) / 0.05).sigmoid() + 0.6 * ((y - 1.4) / 0.05).sigmoid())


def fell(y: Tensor, action: Tensor, next_y: Tensor) -> Tensor:
    """Return whether a step ended behind the edge."""
    return next_y[..., 0] < EDGE


def trips(objective: Objective | str, seed: int, days: int) -> Trajectory:
    """Plan a trip by an objective, and take it on so many days, each with its own wind."""
    planner = bd.planners.ICEM(horizon=STEPS, candidates=200, iterations=6, std=1.0)
    agent = bd.MPC(Winds(), planner, reward, draws=400, objective=objective, termination=fell, dtype=torch.float64)
    agent.reset(bd.planners.Box.of([-1.0], [1.0]), generator=torch.Generator().manual_seed(seed))
    agent.act(START)
    generator = torch.Generator().manual_seed(seed)
    world, actions = Winds().sample(days, generator), agent.decision.plan.actions[:, 0]
    return bd.rollout(world, START, actions, reward, termination=fell, generator=generator)


def until_the_fall(walked: Trajectory, days: int) -> float:
    """Return what so many trips are worth on average, of which there are no more after a fall."""
    earned, arrived = walked.returns.reshape(-1, days), walked.alive[-1].reshape(-1, days).double()
    goes = torch.cat([torch.ones(len(earned), 1), arrived[:, :-1]], 1).cumprod(1)
    return float((earned * goes).sum(1).mean())
