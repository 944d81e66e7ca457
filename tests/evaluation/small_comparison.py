"""A small comparison, which processes of their own can run too: `python small_comparison.py FOLDER [SLEEPERS]` uses two workers."""

import os
import sys
import time
from pathlib import Path

import torch
from reference_posteriors import ConjugateRegression

from bayesdyn.codec import Codec
from bayesdyn.data import Transitions
from bayesdyn.evaluation import compare
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.evaluation.workers import InProcess, Processes
from bayesdyn.rollout import Mean, TSInf

QUICK = OpenLoop(horizons=(1, 4), starts=20, particles=20, propagations={"TSInf": TSInf(), "Mean": Mean()})


def swing(state, action):
    """The pendulum's next state without noise."""
    speed = state[..., 1] + 0.1 * (-torch.sin(state[..., 0]) + action[..., 0])
    return torch.stack([state[..., 0] + 0.1 * speed, speed], -1)


def pendulum(episodes, seed, reach=1.0):
    """A noisy pendulum with an angle, started within `reach` of rest, 25 steps each."""
    g = torch.Generator().manual_seed(seed)
    state = reach * torch.randn(episodes, 2, generator=g, dtype=torch.float64)
    rows = []
    for step in range(25):
        action = torch.randn(episodes, 1, generator=g, dtype=torch.float64)
        following = swing(state, action) + 0.02 * torch.randn(episodes, 2, generator=g, dtype=torch.float64)
        rows += [(e, step, state[e], action[e], following[e]) for e in range(episodes)]
        state = following
    rows.sort(key=lambda row: row[:2])
    columns = [torch.stack([row[i] for row in rows]) for i in (2, 3, 4)]
    return Transitions.from_arrays(*columns, episode=torch.tensor([row[0] for row in rows]))


class Sleepy(ConjugateRegression):
    """Takes a minute to fit, and leaves a file in `folder` that has the number of the process that waits."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def fit(self, x, y, **options):
        (self.folder / str(os.getpid())).touch()
        time.sleep(60)
        return super().fit(x, y, **options)


def small_comparison(folder, workers=InProcess(), posteriors=None, **options):
    """Two posteriors and the references with two seeds: eight cells of a tenth of a second each."""
    return compare(
        posteriors or {"narrow": ConjugateRegression, "wide": lambda: ConjugateRegression(noise_var=0.3)},
        pendulum(6, 0),
        pendulum(4, 1),
        lambda: Codec(angles=[0]),
        folder=folder,
        workers=workers,
        **{"data": "pendulum", "seeds": (0, 1), "open_loop": QUICK, "replicates": 3, **options},
    )


if __name__ == "__main__":
    folder, *sleepers = map(Path, sys.argv[1:])
    slow = {"narrow": ConjugateRegression, "sleepy": lambda: Sleepy(sleepers[0])} if sleepers else None
    small_comparison(folder, Processes(2), slow, references=not sleepers)
