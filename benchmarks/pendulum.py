"""Gymnasium's Pendulum-v1 within four episodes of 200 steps with a Gaussian process, six with an ensemble, the first random.

The figure is the return of that episode as it came, mean over seeds, at least -200. Beside it is what the same planner earns with
the true dynamics from the same starts: a pendulum that starts hanging cannot do better than about -250.
"""

import os
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from rich.progress import track

import bayesdyn as bd
from bayesdyn import presets
from bayesdyn.envs import pendulum_v1_step
from bayesdyn.loop import Run, actions_of
from benchmarks.acceptance import Acceptance, main
from benchmarks.control import RUNS, Study, inform_clock, inform_curve, run_studies, write_curves

TASK = "Pendulum-v1"
FIRST_SEED = 100  # the preset was looked at on seeds 0 to 2
WORKERS = int(os.environ.get("WORKERS", "2"))
LAST = {"gp": 3, "ensemble": 5}  # the episode that is judged, counted from 0, the random one
TARGET = -200.0


def known_plant(state: np.ndarray) -> float:
    """Return what the planner earns with the true dynamics from the state that an episode began in."""
    task = presets.icem(TASK)
    model = bd.PlainDynamics(lambda s, a: bd.Gaussian(pendulum_v1_step(s, a), torch.zeros_like(s)))
    agent = replace(task, planner=replace(task.planner, execute_best=True), draws=1).agent(model)
    env = task.make_env()
    agent.reset(actions_of(env.action_space).space)
    observation, total = torch.from_numpy(state), 0.0
    for _ in range(task.environment.steps):
        action = agent.act(observation).double()
        following = pendulum_v1_step(observation, action)
        total += float(task.reward(observation, action, following))
        observation = following
    return total


def start(name: str, study: str, seed: int, trial: int) -> np.ndarray:
    """Return the first observation of an episode."""
    return Run.open(RUNS / name / f"{study}-{seed}").trials[trial].episode.states[0].numpy()


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Run all seeds with both posteriors and judge the means."""
    seeds = range(FIRST_SEED, FIRST_SEED + (2 if quick else 10))
    studies = [Study(name, partial(presets.icem, TASK), name, last, seeds) for name, last in LAST.items()]
    curves = run_studies(acceptance.name, studies, WORKERS)
    write_curves(acceptance.name, curves)
    for name, last in LAST.items():
        found = curves[name]
        acceptance.above(f"{name}: return of episode {last + 1}", [curve.at(last) for curve in found], TARGET)
        starts = [start(acceptance.name, name, curve.seed, last) for curve in found]
        plant = [known_plant(state) for state in track(starts, f"known plant, starts of {name}")]
        acceptance.inform(f"{name}: with the true dynamics, from the same starts", plant)
        inform_curve(acceptance, name, found, range(last + 1))
        inform_clock(acceptance, name, found)


if __name__ == "__main__":
    main("pendulum", measure, __doc__.splitlines()[0])
