"""The four steps of planning with uncertainty: sample θ, roll trajectories out, sum up their rewards, average.

A ball on a ridge between two valleys, each a metre away; the model has seen the valleys and not the ridge. (1) Functions drawn from
its posterior agree with the data and differ on the ridge. (2) Each is one possible world: followed for fifteen steps, half of the
balls end in the left valley, half in the right. (3) Each has a return. (4) The average is what a push is worth; the best push is
the plan. Below, ways to carry uncertainty from step to step, which differ: a θ that is drawn anew at every step (TS1) averages its
own errors away, by the root of the number of steps where θ is all there is; moment matching cannot see that there are two valleys.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

import bayesdyn as bd
from bayesdyn.plots import NEUTRAL, PALETTE, dress, legend
from examples.lecture.command import command
from examples.lecture.ridge import balance, current, learned, reward

STEPS, DRIFTING, DRAWS = 15, 25, 1000
WAYS = {"TSInf: one θ per trajectory": bd.TSInf(), "TS1: another θ at every step": bd.TS1(), "moment matching": bd.MomentMatching()}
PUSHES = torch.linspace(-1, 1, 21, dtype=torch.float64)
NONE = len(PUSHES) // 2


@dataclass(frozen=True)
class Result:
    """Shares of the balls (`between`: within 0.5 m of the ridge), std of the boat after 25 steps (m), and arrays for the figure."""

    share_that_rolls_right: float
    best_push: float
    std_of_one_theta: float
    std_of_another_theta_at_every_step: float
    std_of_moment_matching: float
    times_too_narrow: float
    between_by_one_theta: float
    between_by_another_theta_at_every_step: float
    between_by_moment_matching: float
    data: np.ndarray  # [ROWS, 2]: where, step
    functions: np.ndarray  # [DRAWS, 101]
    paths: np.ndarray  # [T + 1, DRAWS]
    returns: np.ndarray  # [DRAWS, pushes]
    ends: tuple[np.ndarray, ...]  # [DRAWS] of each way
    spreads: tuple[np.ndarray, ...]  # [T + 1] of each way

    @property
    def shown(self) -> bool:
        """Whether TS1 is too narrow by √T, to a tenth, and only moment matching puts many balls between the valleys."""
        narrow = abs(self.times_too_narrow / math.sqrt(DRIFTING) - 1) < 0.1
        between = self.between_by_moment_matching > max(0.25, 3 * self.between_by_one_theta)
        return narrow and between and 0.1 < self.share_that_rolls_right < 0.9 and self.best_push > 0


def experiment(seed: int) -> Result:
    """Take the four steps, then carry what two models do not know forward in three ways."""
    model, data = learned(seed)
    worlds = model.sample(DRAWS, torch.Generator().manual_seed(seed))  # 1: θ ~ p(θ | D)
    start, held = balance(model), PUSHES.reshape(1, -1, 1).expand(STEPS, -1, -1)  # candidates: pushes that are kept up
    imagined = bd.rollout(worlds, start, held, reward, generator=torch.Generator().manual_seed(seed))  # 2: trajectories
    returns = imagined.returns[:, 0]  # 3: R of each θ and push
    value = returns.mean(0)  # 4: their average, J
    spreads, ends = [], []
    for way in WAYS.values():
        options = {"propagation": way, "generator": torch.Generator().manual_seed(seed)}
        ends.append(bd.rollout(worlds, start, held[:, NONE], reward, **options).states[-1, :, 0, 0].numpy())
        boats = bd.rollout(current(DRAWS, seed), 0 * start, held.new_zeros(DRIFTING, 1), reward, **options)
        spreads.append(boats.states[:, :, 0, 0].std(1).numpy())
    grid = torch.linspace(-1.4, 1.4, 101, dtype=torch.float64).unsqueeze(1)
    functions = (worlds(grid.unsqueeze(0), 0 * grid.unsqueeze(0)).mean - grid)[..., 0].numpy()
    paths, std = imagined.states[:, :, 0, NONE, 0].numpy(), [float(spread[-1]) for spread in spreads]
    between = [float((np.abs(end) < 0.5).mean()) for end in ends]
    figures = (float((paths[-1] > 0).mean()), float(PUSHES[value.argmax()]), *std, std[0] / std[1], *between)
    seen = torch.cat([data.state, data.next_state - data.state], 1).numpy()
    return Result(*figures, seen, functions, paths, returns.numpy(), tuple(ends), tuple(spreads))


def draw(result: Result) -> Figure:
    """Draw the four steps in the upper row; below, where the balls end and how wide a drifting boat's future is."""
    figure = Figure((11.6, 5.8), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    functions, paths, returns, value = (figure.add_subplot(grid[0, i]) for i in range(4))
    ends, widths = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])
    functions.plot(np.linspace(-1.4, 1.4, 101), result.functions[:20].T, color=PALETTE[0], linewidth=0.6, alpha=0.5)
    functions.plot(*result.data.T, "o", color=NEUTRAL, markersize=3)
    for path in result.paths.T[:30]:
        paths.plot(path, color=PALETTE[5 if path[-1] > 0 else 3], linewidth=0.7, alpha=0.6)
    best = int(result.returns.mean(0).argmax())
    for k, label, shade in ((NONE, "no push", NEUTRAL), (best, f"push {PUSHES[best]:.1f}", PALETTE[0])):
        returns.hist(result.returns[:, k], bins=30, range=(-18, 18), color=shade, alpha=0.6, label=label)
        value.plot(PUSHES[k], result.returns[:, k].mean(), "o", color=shade, markersize=9)
    value.fill_between(PUSHES, *np.quantile(result.returns, (0.1, 0.9), axis=0), color=NEUTRAL, alpha=0.2, linewidth=0)
    value.plot(PUSHES, result.returns.mean(0), color=PALETTE[0], linewidth=2, zorder=0)
    for label, end, spread, shade in zip(WAYS, result.ends, result.spreads, (0, 1, 4), strict=True):
        ends.hist(end, bins=65, range=(-1.6, 1.6), histtype="step", color=PALETTE[shade], linewidth=2, label=label)
        widths.plot(spread, color=PALETTE[shade], linewidth=2, dashes=(4, 2) if shade == 4 else ())
    time = np.arange(DRIFTING + 1)
    for law, text in ((0.01 * time, "0.01 T"), (0.01 * np.sqrt(time), "0.01 √T")):
        widths.annotate(text, (time[-1], law[-1]), (-12, 7), textcoords="offset points", ha="right", color=NEUTRAL)
        widths.plot(time, law, color=NEUTRAL, linewidth=6, alpha=0.25, zorder=0)
    dress(functions, "1  draw θ ~ p(θ | D)", "where the ball is (m)", "step that it takes (m)")
    dress(paths, "2  follow each θ", "step", "where the ball is (m)")
    dress(returns, "3  add up the rewards", "return R(θ, push)", "draws of θ")
    dress(value, "4  average: J = E R", "push", "return; band: 80 % of θ")
    dress(ends, f"where the ball is after {STEPS} steps without a push", "m", "trajectories")
    dress(widths, "a boat in a steady current that is known to ± 0.01 m a step", "steps T", "std of where it is (m)")
    legend(returns)
    legend(ends)
    return figure


if __name__ == "__main__":
    command("four_steps", __doc__, experiment, draw)
