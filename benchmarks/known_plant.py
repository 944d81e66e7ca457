"""What planning earns when the dynamics are known: anchors and ceilings that learned models are measured against.

Each planner plans with the simulator itself, replans at every step, and is paid by the environment. Starts are paired: start i is
`reset(seed=i)` for every planner and anchor of a task, and planners draw from a generator of that seed. One thread per process. A
plan's rate is given by the processor time that it takes, so that it is that of one core, and by the clock, which on a shared
machine is what was left of one.

Planners: CEM as PETS has it for the task (mean of the elites), and iCEM with 100/10/3 sequences, elites and iterations (best
sequence), or its published 40/10/3 with β 0.25 on HalfCheetah. CEM spends 8 to 25 times iCEM's simulator steps, 2 to 4 s per
plan on the MuJoCo tasks, so it gets one start there, shown beside iCEM's from the same start, and on HalfCheetah the first 50 of
1,000 steps.

The reference figures were measured beforehand, with other code, on the same tasks; the number of starts in brackets.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track

from bayesdyn.envs import (
    HalfCheetahReward,
    PendulumV1Reward,
    PETSCartPolePlant,
    PETSCartPoleReward,
    PusherReward,
    Reacher3DReward,
    make,
    pendulum_v1_step,
)
from bayesdyn.planners import CEM, ICEM, Box, Evaluate, Planner
from benchmarks.acceptance import Acceptance, main
from benchmarks.statistics import inform_returns

WORKERS = 2
ANCHOR_STARTS = 20
PREFIX = 50

Reward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Native:
    """A known plant in batched torch: step(state, action), and the reward, both on the environment's observation."""

    step: Step
    reward: Reward

    def evaluate(self, observation: np.ndarray) -> Evaluate:
        """Return the callable that scores candidates from this observation."""

        def scores(actions: torch.Tensor) -> torch.Tensor:
            state = torch.from_numpy(observation).to(actions.dtype).expand(*actions.shape[1:3], -1)
            total = actions.new_zeros(actions.shape[1:3])
            for action in actions:
                following = self.step(state, action)
                total = total + self.reward(state, action, following)
                state = following
            return total

        return scores


NATIVE = {
    "bayesdyn/PETSCartPole-v0": Native(PETSCartPolePlant().step, PETSCartPoleReward()),
    "Pendulum-v1": Native(pendulum_v1_step, PendulumV1Reward()),
}
SIMULATED = {
    "bayesdyn/Reacher3D-v0": Reacher3DReward(),
    "bayesdyn/PETSPusher-v0": PusherReward(),
    "bayesdyn/PETSHalfCheetah-v0": HalfCheetahReward(),
}


class Case(NamedTuple):
    """One planner on one task: starts in full and with `--quick`, steps per start (all if None), what was known before, a bound."""

    task: str
    name: str
    planner: Planner
    starts: int
    quick: int
    reference: str
    bound: float | None = None
    steps: int | None = None


CARTPOLE, REACHER, PUSHER, CHEETAH, PENDULUM = (*list(NATIVE)[:1], *SIMULATED, "Pendulum-v1")
CASES = (
    Case(PENDULUM, "CEM 400/40/5, T 20", CEM(20, 400, 40, 5), 20, 5, "reference -135 ± 81 (100)", -250.0),
    Case(PENDULUM, "iCEM 100/10/3, T 20", ICEM(20, 100, 10, 3, execute_best=True), 20, 5, "reference -135 ± 81 (100)", -250.0),
    Case(CARTPOLE, "iCEM 100/10/3, T 20", ICEM(20, 100, 10, 3, execute_best=True), 10, 5, "reference 181.0 ± 0.5 (10)", 175.0),
    Case(
        REACHER,
        "iCEM 100/10/3, T 25, std 0.05",
        ICEM(25, 100, 10, 3, std=0.05, execute_best=True),
        10,
        5,
        "reference -33.8 ± 7.4 (20)",
        -45.0,
    ),
    Case(
        PUSHER,
        "iCEM 100/10/3, T 25, std 0.15",
        ICEM(25, 100, 10, 3, std=0.15, execute_best=True),
        10,
        5,
        "reference -36.4 ± 1.2 (8)",
        -45.0,
    ),
    Case(CARTPOLE, "CEM 400/40/5, T 25", CEM(25, 400, 40, 5), 10, 5, "reference 179.3 ± 0.9 (10)", 175.0),
    Case(CHEETAH, "iCEM 40/10/3, T 30, β 0.25", ICEM(30, 40, 10, 3, beta=0.25, execute_best=True), 2, 0, ""),
    Case(REACHER, "CEM 400/40/5, T 25", CEM(25, 400, 40, 5), 1, 0, "reference -46.0 (3)"),
    Case(PUSHER, "CEM 500/50/5, T 25", CEM(25, 500, 50, 5), 1, 0, "reference -34.3 ± 0.6 (4)"),
    Case(CHEETAH, f"CEM 500/50/5, T 30, first {PREFIX} steps", CEM(30, 500, 50, 5), 1, 0, "", steps=PREFIX),
)
ANCHORS = {
    (REACHER, "zero"): "reference -178 ± 32 (20)",
    (REACHER, "random"): "reference -1,498 (20)",
    (PUSHER, "zero"): "reference -151 ± 5 (20)",
    (PUSHER, "random"): "reference -295 (20)",
}


class Trial(NamedTuple):
    """One start: the rewards paid, and for each plan its seconds by the clock and of the processor."""

    rewards: np.ndarray
    seconds: np.ndarray
    processor: np.ndarray


def run_start(job: tuple[int, int]) -> tuple[int, int, Trial]:
    """Let case `job[0]` act from start `job[1]`."""
    torch.set_num_threads(1)
    index, seed = job
    case = CASES[index]
    env = make(case.task)
    observation, _ = env.reset(seed=seed)
    evaluator = _evaluator(case.task, env)
    box = Box.of(torch.from_numpy(env.action_space.low), torch.from_numpy(env.action_space.high), torch.float64)
    warm_start, generator = case.planner.start(box), torch.Generator().manual_seed(seed)
    rewards, seconds, processor, over = [], [], [], False
    while not over and len(rewards) != case.steps:
        began, worked = time.perf_counter(), time.process_time()
        plan = case.planner.plan(evaluator(observation), warm_start, generator)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - worked)
        warm_start = case.planner.shift(plan.warm_start)
        observation, reward, terminated, truncated, _ = env.step(plan.actions[0, 0].numpy())
        rewards.append(float(reward))
        over = terminated or truncated
    return index, seed, Trial(np.array(rewards), np.array(seconds), np.array(processor))


def _evaluator(task: str, env) -> Callable[[np.ndarray], Evaluate]:
    if task in NATIVE:
        return NATIVE[task].evaluate
    plant = env.unwrapped.known_plant(SIMULATED[task])
    return lambda observation: plant


def anchor(task: str, kind: str, starts: int) -> list[float]:
    """Return what doing nothing ("zero") or anything ("random") earns from the same starts."""
    env, returns = make(task), []
    for seed in range(starts):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        earned, over = 0.0, False
        while not over:
            action = env.action_space.sample() if kind == "random" else np.zeros(env.action_space.shape, np.float32)
            _, reward, terminated, truncated, _ = env.step(action)
            earned += float(reward)
            over = terminated or truncated
        returns.append(earned)
    return returns


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Run all anchors and planners; each planner is reported when its starts are done."""
    for task in (CARTPOLE, REACHER, PUSHER, CHEETAH, PENDULUM):
        for kind in ("zero", "random"):
            returns = anchor(task, kind, ANCHOR_STARTS)
            inform_returns(acceptance, f"{task}, {kind} action: return", returns, ANCHORS.get((task, kind), ""))
    jobs = [(i, seed) for i, case in enumerate(CASES) for seed in range(case.quick if quick else case.starts)]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        done: Iterable[tuple[int, int, Trial]] = track(pool.imap(run_start, jobs), "known plants", total=len(jobs))
        trials: dict[tuple[int, int], Trial] = {}
        for i, seed, trial in done:
            trials[i, seed] = trial
            if (i, seed) == [job for job in jobs if job[0] == i][-1]:
                report(acceptance, CASES[i], [trials[i, s] for s in range(seed + 1)])
                compare(acceptance, i, seed + 1, trials)


def compare(acceptance: Acceptance, index: int, starts: int, trials: dict[tuple[int, int], Trial]) -> None:
    """Print what the task's planner of more starts, run before, earns from the same starts and steps."""
    case = CASES[index]
    for i, other in enumerate(CASES):
        if other.task == case.task and case.starts < other.starts:
            same = [float(trials[i, seed].rewards[: case.steps].sum()) for seed in range(starts)]
            acceptance.inform(f"{case.task}, {case.name}: what {other.name} earns from the same starts", same)


def report(acceptance: Acceptance, case: Case, trials: list[Trial]) -> None:
    """Print return, verdict and control rate of one planner on one task."""
    name = f"{case.task}, {case.name}"
    returns = [float(trial.rewards.sum()) for trial in trials]
    inform_returns(acceptance, f"{name}: return", returns, case.reference)
    if case.bound is not None:
        acceptance.above(f"{name}: solved", returns, case.bound)
    rates = [
        (float(1 / np.median(t.processor)), float(1 / np.median(t.seconds)), float(np.quantile(t.seconds, 0.99))) for t in trials
    ]
    processor, clock, slowest = zip(*rates, strict=True)
    acceptance.inform(f"{name}: plans per second of one core (median)", processor)
    acceptance.inform(f"{name}: plans per second by the clock (median)", clock)
    acceptance.inform(f"{name}: seconds per plan by the clock, 99th percentile", slowest)


if __name__ == "__main__":
    main("known_plant", measure, __doc__.splitlines()[0])
