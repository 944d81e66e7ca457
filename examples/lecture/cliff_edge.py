"""The cliff edge: the same mean, less expected reward, so who knows less keeps further away.

A walker goes along a cliff: the view is best at the edge (y = 0), a step behind it costs 3, and the path leans towards the edge by
as much as data must say. Ten steps taken further inland leave that open. The mean of the model, taken for the truth, walks at
the very edge; averaged over what the lean may be, the same walk with the same mean is worth little, and the plan of the best
expected reward keeps a distance. With two hundred steps of data that distance shrinks. Pessimism (J - κτ) adds to it, optimism
(J + κτ) takes from it, τ being the part of the return's spread that comes from not knowing θ.
"""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

import bayesdyn as bd
from bayesdyn.mpc import Decision
from bayesdyn.plots import NEUTRAL, PALETTE, dress, legend
from examples.lecture.command import command

STEPS, FEW, MANY, DRAWS = 12, 10, 200, 100
KAPPAS = (-2.0, -1.0, 0.0, 0.5, 1.0)  # negative is pessimistic
START = torch.tensor([1.2], dtype=torch.float64)


def walk(y: torch.Tensor, action: torch.Tensor) -> bd.Gaussian:
    """Return where a sideways step leads: y' = y + 0.5 a - 0.1 + ε, in metres from the edge, ε of 5 cm."""
    return bd.Gaussian(y + 0.5 * action - 0.1, torch.full_like(y + action, 0.05**2))


def reward(y: torch.Tensor, action: torch.Tensor, next_y: torch.Tensor) -> torch.Tensor:
    """Return 1 - y/2 for the view, and -3 behind the edge."""
    return torch.where(next_y[..., 0] < 0, -3.0, 1 - 0.5 * next_y[..., 0])


@dataclass(frozen=True)
class Result:
    """Mean distances from the edge (m) as planned, and what the mean model's walk is worth by its mean and on average over θ."""

    distance_by_the_mean_model: float
    distance_by_expectation: float
    distance_by_expectation_with_more_data: float
    worth_by_the_mean: float
    worth_on_average: float
    distances: tuple[float, ...]  # one per κ
    walks: tuple[np.ndarray, ...]  # [T + 1, DRAWS]: the mean model's walk, expectation's, expectation's with more data

    @property
    def shown(self) -> bool:
        """Whether ignorance keeps a distance that the mean model and more data do not, and κ moves it the way it should."""
        others = max(self.distance_by_the_mean_model, self.distance_by_expectation_with_more_data)
        moved = self.distances[0] > self.distance_by_expectation > self.distances[-1]
        return self.distance_by_expectation > others + 0.05 and moved and self.worth_on_average < self.worth_by_the_mean - 1


def experiment(seed: int) -> Result:
    """Fit a Gaussian process to few and to many steps, and plan a walk with each attitude."""
    few, many = learned(FEW, seed), learned(MANY, seed)
    careless = plan(few, seed, propagation=bd.Mean())
    plans = [plan(few, seed, objective=bd.objectives.Optimistic(kappa)) for kappa in KAPPAS]
    informed = plan(many, seed)
    worlds = few.sample(200, torch.Generator().manual_seed(seed), dtype=torch.float64)
    walked = bd.rollout(worlds, START, careless.plan.actions[:, 0], reward, generator=torch.Generator().manual_seed(seed))
    distances = [float(one.imagined.states[STEPS // 3 :].mean()) for one in (careless, *plans, informed)]  # once it is near
    walks = [one.states.flatten(1)[:, :DRAWS].numpy() for one in (walked, plans[2].imagined, informed.imagined)]
    worth = float(careless.imagined.returns.mean()), float(walked.returns.mean())
    return Result(distances[0], distances[3], distances[-1], *worth, tuple(distances[1:-1]), tuple(walks))


def learned(rows: int, seed: int) -> bd.DynamicsModel:
    """Return a Gaussian process that has seen so many steps, all of them 1 to 3 m away from the edge."""
    normal = torch.randn(3, MANY, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)[:, :rows]
    y, action = 2 + normal[0].tanh(), normal[1].tanh()
    model = bd.DynamicsModel(bd.Codec(), bd.posteriors.ExactGP())
    model.fit(bd.Transitions.from_arrays(y, action, walk(y, action).sample(normal[2])))
    return model


def plan(model: bd.DynamicsModel, seed: int, draws: int = DRAWS, **attitude: object) -> Decision:
    """Plan the whole walk at once, over so many draws of θ."""
    # A walk is no circle: with periodic noise the last step would have to go with the first, which is towards the edge.
    planner = bd.planners.ICEM(horizon=STEPS, candidates=200, iterations=15, periodic=False)
    agent = bd.MPC(model, planner, reward, draws=draws, dtype=torch.float64, **attitude)
    agent.reset(bd.planners.Box.of([-1.0], [1.0]), generator=torch.Generator().manual_seed(seed))
    agent.act(START)
    return agent.decision


def draw(result: Result) -> Figure:
    """Draw the three walks as imagined, seen from above, and the distance against κ."""
    figure = Figure((11.5, 3.8), layout="constrained")
    *seen, last = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.25))
    worth = f"the mean model's walk: worth\n{result.worth_by_the_mean:.1f} by its mean, {result.worth_on_average:.1f} on average"
    titles = (worth, f"expected reward,\n{FEW} steps of data", f"expected reward,\n{MANY} steps of data")
    for axes, walks, title, shade in zip(seen, result.walks, titles, (1, 0, 2), strict=True):
        axes.axhspan(-1.0, 0, color=NEUTRAL, alpha=0.35, linewidth=0)
        axes.text(0.3, -0.92, "behind the edge", color=NEUTRAL, fontsize=8)
        axes.plot(walks[:, :30], color=PALETTE[shade], linewidth=0.7, alpha=0.4)
        axes.plot(walks.mean(1), color=PALETTE[shade], linewidth=2.4)
        axes.set(ylim=(-1.0, 2.6), xlim=(0, STEPS))
        dress(axes, title, "steps along the cliff", "distance from the edge (m)" if axes is seen[0] else "")
    last.axhspan(-0.15, 0, color=NEUTRAL, alpha=0.35, linewidth=0)
    last.plot(KAPPAS, result.distances, color=PALETTE[0], marker="o", linewidth=2, label=f"{FEW} steps")
    last.axhline(result.distance_by_expectation_with_more_data, color=PALETTE[2], linewidth=1.6, label=f"{MANY} steps")
    last.axhline(result.distance_by_the_mean_model, color=PALETTE[1], linewidth=1.6, label="mean model")
    dress(last, "J + κτ: pessimism, optimism", "κ", "planned distance (m)")
    legend(last)
    return figure


if __name__ == "__main__":
    command("cliff_edge", __doc__, experiment, draw)
