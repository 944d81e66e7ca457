"""Learning runs that are made up, quick to write and to read."""

import gymnasium
import numpy as np
import torch

from bayesdyn.data import Episode
from bayesdyn.data.describe import describe
from bayesdyn.envs import CARTPOLE_ID, tip_distance
from bayesdyn.loop import Run, Trial
from bayesdyn.presets import environments

STEPS = 20


def synthetic_trial(index, controlled, closeness, seed=0):
    """A cart-pole trial of random pushes whose pole is turned by `closeness` (1: it ends upright) as trials go by."""
    env = gymnasium.make(CARTPOLE_ID, max_episode_steps=STEPS)
    observation, _ = env.reset(seed=seed + index)
    random = np.random.default_rng(seed + index)
    states, true, actions, rewards = [observation], [], [], []
    for t in range(STEPS):
        action = random.uniform(-2, 2, 1).astype(np.float32)
        observation, reward, *_, info = env.step(action)
        turn = np.array([0, 0, 0, closeness * np.pi * min(1, 2 * (t + 1) / STEPS)])
        states.append(observation * (1 - closeness) + turn)
        true.append(info["state"] * (1 - closeness) + turn)
        actions.append(action)
        rewards.append(reward + closeness)
    true = torch.tensor(np.stack(true))
    noise = 0.1 * torch.randn(STEPS, 6, 8, 4, generator=torch.Generator().manual_seed(index)).cumsum(1)
    metrics = {"return": float(np.sum(rewards)), "steps": float(STEPS)}
    if controlled:
        metrics |= {"nll": 1.0 - index, "coverage90": 0.7 + 0.05 * index, "fit_seconds": 2.0, "plans_per_second": 9.5}
        metrics |= {"planned_return": metrics["return"] + 2 / (index + 1), "realised_return": metrics["return"]}
        metrics |= {"plan_seconds_p50": 0.02, "plan_seconds_p99": 0.03 + 0.01 * index, "late_plans": 1.0}
    return Trial(
        index,
        controlled,
        Episode.from_arrays(np.stack(states), np.stack(actions), rewards),
        {"state": true, "tip_distance": tip_distance(true)},
        (torch.tensor(np.stack(states[:-1]))[:, None, None] + noise).float() if controlled else torch.zeros(0, 0, 0, 0),
        torch.zeros(STEPS if controlled else 0, dtype=torch.int64),
        metrics,
        ("the noise is at its lower bound",) if index == 1 else (),
    )


def synthetic_run(folder, posterior, trials=3, seed=0):
    agent = {"class": "MPC", "reward": describe(environments[CARTPOLE_ID].reward)}
    run = Run.start(folder, {"environment": CARTPOLE_ID, "posterior": {"class": posterior}, "agent": agent, "seed": seed})
    for index in range(trials + 1):
        run.add(synthetic_trial(index, index > 0, index / trials, seed))
    return run
