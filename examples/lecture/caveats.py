"""Explore to get better, or stay where it is known? The objective decides: J, J + κτ or J - κτ, by the name of it.

A pendulum that has to swing up although every push costs (H-UCRL). Whoever maximises the expected return stays below: a swing costs
for certain, and the model has not seen that it leads anywhere. Optimism, J + κτ, τ the spread of the return over what the model
does not know, pays for a try, sees what is up there, and stays. A fall costs nothing there but the try. On a cornice it ends all
trips to come, which no objective of one trip knows: there expected value goes on till it falls, and pessimism, J - κτ, takes the
plain and arrives every day. The figure has the pendulum's height, and both routes with what fifty days are worth on each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import bayesdyn as bd
from bayesdyn.objectives import Objective
from bayesdyn.plots import NEUTRAL, PALETTE, dress, legend
from examples.lecture.command import command
from examples.lecture.cornice import EDGE, STEPS, trips, until_the_fall

HOLD, SECONDS, DAYS, SERIES = 8, 5.0, 50, 200
COLOURS = {"optimistic": PALETTE[1], "expected": PALETTE[0], "pessimistic": PALETTE[2]}


@dataclass(frozen=True)
class Result:
    """The pendulum: first episode that ends upright (0: none), last returns, greatest cos θ; the cornice: falls, worth of trips."""

    optimistic_first_upright_episode: int
    optimistic_return: float
    expected_return: float
    expected_highest: float
    falls_per_trip_by_optimism: float
    falls_per_trip_by_expectation: float
    falls_per_trip_by_pessimism: float
    trip_by_optimism: float
    trip_by_expectation: float
    trip_by_pessimism: float
    fifty_trips_by_optimism: float
    fifty_trips_by_expectation: float
    fifty_trips_by_pessimism: float
    heights: tuple[tuple[np.ndarray, ...], ...]  # cos θ in each episode: of optimism, of expectation
    walks: tuple[np.ndarray, ...]  # [STEPS + 1, 60] of optimism, expectation, pessimism

    @property
    def shown(self) -> bool:
        """Whether optimism swings up and expectation stays below the axis; and pessimism earns less a trip and more in fifty."""
        never = self.optimistic_first_upright_episode > 0 > self.expected_highest
        later = self.fifty_trips_by_pessimism > max(self.fifty_trips_by_expectation, self.fifty_trips_by_optimism)
        return never and later and self.trip_by_pessimism < self.trip_by_expectation


def swing_up(
    objective: Objective | str, seed: int, trials: int, run: Path | None = None, stop: Callable[[bd.loop.Trial], bool] | None = None
) -> bd.loop.Run:
    """Learn the pendulum whose pushes cost, 400 steps, an action for every 8; the first trial's random torques are small."""
    env = bd.envs.make("bayesdyn/ActionCostPendulum-v0", action_repeat=HOLD)
    model = bd.DynamicsModel(bd.Codec(angles=[0]), bd.posteriors.ExactGP(features=200))
    planner = bd.planners.ICEM(horizon=20, candidates=150, iterations=6, std=1.0, beta=3.0, momentum=0.0)
    agent = bd.MPC(model, planner, bd.envs.ActionCostReward(), objective=objective, draws=10)
    return bd.learn(env, model, agent, trials=trials, explore=bd.loop.Uniform(share=0.2), seed=seed, run=run, stop=stop)


def upright(trial: bd.loop.Trial) -> bool:
    """Return whether the pendulum is up over the whole last second."""
    return bool((trial.infos["upright"][-len(trial.episode) // 5 :] == 1).all())


def experiment(seed: int, episodes: int = 3) -> Result:
    """Let optimism have three episodes and expectation two, then walk the cornice's two routes by each attitude."""
    tries = swing_up("optimistic", seed, episodes, stop=upright).trials[1:]
    waits = swing_up("expected", seed, min(episodes, 2)).trials[1:]
    heights = tuple(tuple(trial.episode.states[:, 0].cos().numpy() for trial in trials) for trials in (tries, waits))
    first = next((trial.index for trial in tries if upright(trial)), 0)
    highest = max(float(height.max()) for height in heights[1])
    walked = [trips(attitude, seed, DAYS * SERIES) for attitude in COLOURS]
    fell = [float((~one.alive[-1]).double().mean()) for one in walked]
    single, many = [float(one.returns.mean()) for one in walked], [until_the_fall(one, DAYS) for one in walked]
    walks = tuple(one.states[:, :60, 0, 0].numpy() for one in walked)
    returns = tries[-1].metrics["return"], waits[-1].metrics["return"]
    return Result(first, *returns, highest, *fell, *single, *many, heights, walks)


def draw(result: Result) -> Figure:
    """Draw the pendulum's height for both objectives, and the routes of expectation and pessimism seen from above."""
    figure = Figure((11.5, 4), layout="constrained")
    pendulum, bold, careful, worth = figure.subplots(1, 4, width_ratios=(1.6, 1, 1, 1))
    for heights, name in zip(result.heights, ("optimistic", "expected"), strict=True):
        for k, height in enumerate(heights, start=1):
            time, strength = np.linspace(0, SECONDS, len(height)), k / len(heights)
            pendulum.plot(time, height, color=COLOURS[name], linewidth=2, alpha=strength, label=f"{name}, episode {k}")
    dress(pendulum, "each push costs: who swings up?", "s", "height of the pendulum (rods)")
    legend(pendulum)
    for axes, walks, name in ((bold, result.walks[1], "expected"), (careful, result.walks[2], "pessimistic")):
        axes.axhspan(-1.2, EDGE, color=NEUTRAL, alpha=0.35, linewidth=0)
        axes.axhspan(EDGE, 0.6, color=PALETTE[4], alpha=0.12, linewidth=0)
        axes.axhspan(1.4, 4.5, color=PALETTE[5], alpha=0.12, linewidth=0)
        axes.plot(walks, color=COLOURS[name], linewidth=0.7, alpha=0.5)
        axes.set(ylim=(-1.2, 4.5), xlim=(0, STEPS))
        dress(axes, f"which way? {name}", "steps", "m from the middle of the cornice" if axes is bold else "")
    for y, place in ((-1.0, "a fall: -10"), (0.0, "cornice: 1 a step"), (1.7, "plain: 0.6 a step")):
        careful.text(STEPS - 0.2, y, place, color=NEUTRAL, fontsize=9, ha="right", va="center")
    totals = (result.fifty_trips_by_optimism, result.fifty_trips_by_expectation, result.fifty_trips_by_pessimism)
    worth.bar(list(COLOURS), totals, color=list(COLOURS.values()), alpha=0.8)
    worth.tick_params(axis="x", labelrotation=20)
    dress(worth, "fifty trips, or until the fall", "", "worth")
    return figure


if __name__ == "__main__":
    command("caveats", __doc__, experiment, draw)
