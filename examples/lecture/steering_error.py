"""A small error of the model grows with every step of an open-loop plan; replanning holds it.

The lecture's picture is a car whose model believes that the wheel is straight when it points a little to one side. Here the car's
steering is off by half a degree and gusts push it at every step; the model knows of neither. A plan for six seconds, executed
blindly, leaves the lane. Plans from the state that was reached, with the same wrong model, stay in it: the more often, the better.
The figure has the lane, the paths, and the distance from its middle over time.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import bayesdyn as bd
from bayesdyn.plots import NEUTRAL, PALETTE, dress, legend
from examples.lecture.command import command

STEPS, DT, SPEED, WHEELBASE, HALF_LANE = 60, 0.1, 10.0, 2.7, 1.75  # s, m/s, m, m
EVERY = {"one plan, executed blindly": STEPS, "a plan every second": 10, "a plan every step": 1}


def lane(x: Tensor) -> Tensor:
    """Return where the middle of the lane is, in metres to the left, x metres down the road."""
    return 2.0 * (1 - (x / 12).cos())


def offset(path: np.ndarray) -> np.ndarray:
    """Return how far to the left of the middle a path [T, 3] is (m)."""
    return path[:, 1] - lane(torch.from_numpy(path[:, 0])).numpy()


def car(state: Tensor, steering: Tensor, trim: float = 0.0) -> Tensor:
    """Return (x, y, heading) a tenth of a second later: a bicycle at 10 m/s, its front wheel at steering + trim (rad)."""
    x, y = state[..., 0], state[..., 1]
    turned = state[..., 2] + DT * SPEED / WHEELBASE * (steering[..., 0] + trim).tan()
    return torch.stack([x + DT * SPEED * turned.cos(), y + DT * SPEED * turned.sin(), turned], -1)


def reward(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
    """Stay in the middle of the lane, with little steering."""
    return -(following[..., 1] - lane(following[..., 0])).square() - 0.1 * action[..., 0].square()


@dataclass(frozen=True)
class Result:
    """Distances from the middle of the lane (m); `paths` [STEPS + 1, 3] has one for each of `EVERY`, `plan` is the blind one's."""

    trim_in_degrees: float
    furthest_with_one_plan: float
    furthest_with_a_plan_every_second: float
    furthest_with_a_plan_every_step: float
    one_plan_after_two_seconds: float
    one_plan_after_six_seconds: float
    plan: np.ndarray
    paths: tuple[np.ndarray, ...]

    @property
    def shown(self) -> bool:
        """Whether the blind car leaves the lane ever faster, and the more often the other plans, the nearer it stays."""
        grows = self.one_plan_after_six_seconds > 3 * self.one_plan_after_two_seconds and self.furthest_with_one_plan > HALF_LANE
        return grows and self.furthest_with_a_plan_every_step < self.furthest_with_a_plan_every_second < HALF_LANE


def drive(every: int, trim: float, gusts: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return where the car went and what the first plan imagined, planning anew at every so many steps."""
    horizon = min(every + 15, STEPS)  # a plan has to reach further than it will be followed, but not past the end
    planner = bd.planners.ICEM(horizon=horizon, candidates=100, iterations=15 if every > 1 else 4, std=0.15)
    model = bd.PlainDynamics(lambda state, action: bd.Gaussian(car(state, action), torch.zeros_like(state)))  # without trim
    agent = bd.MPC(model, planner, reward, draws=1, dtype=torch.float64)
    agent.reset(bd.planners.Box.of([-0.5], [0.5]))
    states = [torch.zeros(3, dtype=torch.float64)]
    for t in range(STEPS):
        action = agent.act(states[-1], replan=t % every == 0)
        if t == 0:
            imagined = agent.decision.imagined.states[:, 0, 0, 0]
        states.append(car(states[-1], action, trim) + gusts[t])
    return torch.stack(states).numpy(), imagined.numpy()


def experiment(seed: int) -> Result:
    """Drive the same road with the same gusts in the three ways."""
    generator = torch.Generator().manual_seed(seed)
    side, size = torch.rand(2, generator=generator, dtype=torch.float64)
    trim = math.radians(float(torch.sign(side - 0.5) * (0.3 + 0.4 * size)))  # 0.3 to 0.7 degrees to either side
    gusts = torch.randn(STEPS, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.0, 0.01, 0.003])  # m, m and rad
    driven = [drive(every, trim, gusts) for every in EVERY.values()]
    off = [np.abs(offset(path)) for path, _ in driven]
    furthest = (float(values.max()) for values in off)
    paths = tuple(path for path, _ in driven)
    return Result(math.degrees(trim), *furthest, float(off[0][20]), float(off[0][60]), driven[0][1], paths)


def draw(result: Result) -> Figure:
    """Draw the road from above with the paths, and below it how far each is from the middle; the lane is grey."""
    figure = Figure((11, 6), layout="constrained")
    road, error = figure.subplots(2, 1, height_ratios=(3, 2))
    x = torch.linspace(0, 62, 300)
    road.fill_between(x, lane(x) - HALF_LANE, lane(x) + HALF_LANE, color=NEUTRAL, alpha=0.25, linewidth=0)
    road.plot(x, lane(x), color=NEUTRAL, linewidth=1, dashes=(8, 6))
    colours = (PALETTE[1], PALETTE[0], PALETTE[2])
    road.plot(*result.plan[:, :2].T, color=colours[0], linewidth=1.5, dashes=(4, 2), label="what that plan imagined")
    for (label, every), path, colour in zip(EVERY.items(), result.paths, colours, strict=True):
        road.plot(*path[:, :2].T, "o-", color=colour, linewidth=2, label=label, markevery=every, markersize=4 if every > 1 else 2)
        error.plot(DT * np.arange(STEPS + 1), np.abs(offset(path)), color=colour, linewidth=2)
    error.axhspan(0, HALF_LANE, color=NEUTRAL, alpha=0.25, linewidth=0)
    dress(
        road, f"the wheel is {abs(result.trim_in_degrees):.1f} degrees off, which the model does not know", "down the road (m)", "m"
    )
    dress(error, "distance from the middle of the lane", "s", "m")
    legend(road)
    return figure


if __name__ == "__main__":
    command("steering_error", __doc__, experiment, draw)
