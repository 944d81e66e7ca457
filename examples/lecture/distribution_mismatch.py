"""Go right to get higher: a model is right where its data are, and a plan leads away from them.

The lecture's version 0.5 collects data, fits a model and plans: p_π0(s), where the data come from, is not p_πf(s), where the plan
goes. All data here lie on a slope where going right is going up; behind the top is a cliff. One plan on one batch of data (0.5)
walks over the edge. Adding what happened to the data (1.0) helps from the next trial on. Replanning with a model that is refitted
on the way (1.5) turns round at the top, in the first trial. The figure has what each imagined (dashed) and where it went (dots).
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

import bayesdyn as bd
from bayesdyn.networks import Homoscedastic, Training
from bayesdyn.plots import PALETTE, dress
from bayesdyn.posteriors import MaximumLikelihood
from examples.lecture.command import command
from examples.lecture.hill import STEPS, Hill, draw_hill, height

WAYS = {
    "0.5  one batch, one plan": {"trials": 1, "replan_every": None},
    "1.0  add the data, plan again": {"trials": 3, "replan_every": None},
    "1.5  replan and refit on the way": {"trials": 1, "replan_every": 1, "refit_every": 1},
}


@dataclass(frozen=True)
class Way:
    """What a way of the lecture did in each of its trials: positions, and the (x, height) that every fourth plan imagined."""

    paths: tuple[np.ndarray, ...]
    imagined: tuple[np.ndarray, ...]

    @property
    def last_heights(self) -> tuple[float, ...]:
        """The mean height over the last quarter of each trial."""
        return tuple(float(height(path[-STEPS // 4 :]).mean()) for path in self.paths)


@dataclass(frozen=True)
class Result:
    """Final heights in metres: 2 is the top and -2 the foot of the cliff; `first_data` are the positions of the random trial."""

    height_imagined_by_0_5: float
    height_of_0_5: float
    height_of_1_0_in_its_first_trial: float
    height_of_1_0_in_its_last_trial: float
    height_of_1_5_in_its_first_trial: float
    first_data: np.ndarray
    ways: tuple[Way, ...]

    @property
    def shown(self) -> bool:
        """Whether 0.5 falls where it imagined to climb, 1.0 falls too and recovers, and 1.5 stays up; 0 is half way."""
        fell = max(self.height_of_0_5, self.height_of_1_0_in_its_first_trial) < 0 < self.height_imagined_by_0_5
        return fell and min(self.height_of_1_0_in_its_last_trial, self.height_of_1_5_in_its_first_trial) > 0


def experiment(seed: int) -> Result:
    """Learn to get high in the three ways, from the same first trial."""
    ways = []
    for options in WAYS.values():
        posterior = MaximumLikelihood(
            hidden=(32, 32), activation="relu", noise=Homoscedastic(), held_out=0.0, training=Training(steps=200)
        )
        model = bd.DynamicsModel(bd.Codec(ignore=[1]), posterior)
        planner = bd.planners.ICEM(horizon=STEPS, candidates=100, iterations=4)
        agent = bd.MPC(model, planner, lambda s, a, s2: s2[..., 1], draws=1, propagation=bd.Mean())
        run = bd.learn(Hill(), model, agent, seed=seed, initial=3, **options)
        plans = run.trials[3:]
        ways.append(Way(tuple(t.episode.states[:, 0].numpy() for t in plans), tuple(t.imagined[::4, :, 0].numpy() for t in plans)))
    batch, more, steps = ways
    heights = (
        batch.imagined[0][0, -1, 1],
        batch.last_heights[0],
        more.last_heights[0],
        more.last_heights[-1],
        steps.last_heights[0],
    )
    return Result(*map(float, heights), run.trials[0].episode.states[:, 0].numpy(), tuple(ways))


def draw(result: Result) -> Figure:
    """Draw the hill once for each way: the first data, what the plans imagined, and where they led."""
    figure = Figure((12, 4.2), layout="constrained")
    for axes, title, way, colour in zip(figure.subplots(1, 3, sharey=True), WAYS, result.ways, PALETTE, strict=False):
        draw_hill(axes, result.first_data)
        for k, (path, plans) in enumerate(zip(way.paths, way.imagined, strict=True), start=1):
            strength, (x, y) = k / len(way.paths), (path[-1], float(height(path[-1])))
            for plan in plans:
                axes.plot(*plan.T, color=colour, alpha=0.7 * strength, linewidth=1.3, dashes=(4, 2))
            axes.plot(path, height(path), color=colour, alpha=strength, marker="o", markersize=4, linewidth=0.8)
            axes.plot(x, y, "o", color=colour, alpha=strength, markersize=11)
            if y < 0 or k == len(way.paths):
                aside = (x + 0.3, y + 0.15, "left") if x > 0 else (x - 0.4, y, "right")  # where the path leaves room
                axes.text(*aside[:2], f"trial {k} ends", color=colour, fontsize=10, ha=aside[2])
        dress(axes, "", "position (m)", "height (m)" if way is result.ways[0] else "")
        axes.set_title(title, color=colour, fontsize=12, loc="left", fontweight="bold")
    first = figure.axes[0]
    first.text(0.2, 3.6, "imagined", color=PALETTE[0], ha="right", fontsize=10)
    first.text(1.3, 1.5, "what happened", color=PALETTE[0], fontsize=10)
    return figure


if __name__ == "__main__":
    command("distribution_mismatch", __doc__, experiment, draw)
