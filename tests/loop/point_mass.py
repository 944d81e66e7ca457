"""A small task for the tests of the loop, and what learns it in a fraction of a second."""

from pathlib import Path

import gymnasium
import numpy as np
import torch
from reference_posteriors import ConjugateRegression

import bayesdyn as bd
from bayesdyn.loop import Monitor, Run, learn


class PointMass(gymnasium.Env):
    """A mass on a line, pushed by a force: state (position, velocity), noise from the environment's own generator."""

    def __init__(self, steps: int = 8, noise: float = 0.01, low: float = -1.0, dtype: type = np.float32) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(np.array([low], dtype), np.array([1.0], dtype), dtype=dtype)
        self.steps, self.noise = steps, noise
        self.executed: list[np.ndarray] = []
        self.resets: list[int | None] = []
        self._state = np.zeros(2)  # one buffer, as some environments have it

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets.append(seed)
        self._state[:] = self.np_random.normal([1.0, 0.0], 0.1)
        self.t = 0
        return self._state, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.executed.append(np.array(action))
        self.t += 1
        self._state[1] += 0.2 * float(action[0])
        self._state[0] += 0.2 * self._state[1]
        self._state += self.np_random.normal(0.0, self.noise, 2)
        info = {
            "distance": abs(self._state[0]),
            "centre": [self._state[0], 0.0],
            "moving": bool(self._state[1] > 0),
            "name": "mass",
            "nested": {"a": 1.0},
            "ragged": [1.0, [2.0, 3.0]],
            "growing": list(range(self.t)),
            "nothing": None,
        }
        if self.t > 3:
            info["late"] = 1.0
        return self._state, -float(self._state[0] ** 2), False, self.t >= self.steps, info


def reward(state: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return -following[..., 0].square()


def make_model(posterior: bd.posteriors.Posterior | None = None) -> bd.DynamicsModel:
    return bd.DynamicsModel(bd.Codec(), posterior or ConjugateRegression())


def make_agent(model: bd.DynamicsModel, **options: object) -> bd.MPC:
    planner = bd.planners.ICEM(horizon=4, candidates=12, elites=4, iterations=1)
    return bd.MPC(model, planner, reward, **{"draws": 2, **options})


def run_loop(
    folder: Path | None = None,
    *,
    trials: int = 3,
    monitor: Monitor | None = None,
    posterior: bd.posteriors.Posterior | None = None,
    **options: object,
) -> Run:
    """Learn the point mass with a fresh environment, model and agent."""
    model = make_model(posterior)
    return learn(PointMass(), model, make_agent(model), trials=trials, run=folder, monitor=monitor, **options)


def assert_same_trials(one: Run, other: Run) -> None:
    """Require two runs to be the same to the last bit, but for what a clock measured."""
    timed = {"fit_seconds", "plans_per_second", "plan_seconds_p50", "plan_seconds_p99", "slowest_plan_seconds"}
    assert len(one.trials) == len(other.trials)
    for a, b in zip(one.trials, other.trials, strict=True):
        assert (a.index, a.controlled, a.warnings) == (b.index, b.controlled, b.warnings)
        for x, y in (
            (a.episode.states, b.episode.states),
            (a.episode.actions, b.episode.actions),
            (a.episode.rewards, b.episode.rewards),
        ):
            assert torch.equal(x, y)
        assert torch.equal(a.imagined, b.imagined)
        assert torch.equal(a.age, b.age)
        assert a.infos.keys() == b.infos.keys()
        assert all(torch.equal(a.infos[name], b.infos[name]) for name in a.infos)
        assert a.metrics.keys() == b.metrics.keys()
        assert {k: v for k, v in a.metrics.items() if k not in timed} == {k: v for k, v in b.metrics.items() if k not in timed}
