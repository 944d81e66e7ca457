"""`learn`: the one loop behind the ways of the lecture, told apart by the number of trials and how often to replan."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from torch import Tensor

from bayesdyn.data import Episode, Transitions, random_policy
from bayesdyn.errors import ConfigurationError
from bayesdyn.loop.monitor import Monitor
from bayesdyn.loop.run import Run
from bayesdyn.loop.trial import Trial
from bayesdyn.model import DynamicsModel
from bayesdyn.mpc import Decision
from bayesdyn.planners import Box
from bayesdyn.posteriors import FitReport

_BASE, _FIT, _ACT, _RESET = range(4)  # streams of random numbers, one per trial and purpose


@runtime_checkable
class Agent(Protocol):
    """What `learn` asks of an agent; `bayesdyn.MPC` is one."""

    decision: Decision | None

    def reset(self, box: Box, batch: int = 1, generator: torch.Generator | None = None) -> None:
        """Start an episode."""

    def act(self, observation: Tensor, *, replan: bool = True) -> Tensor:
        """Return the next action [A] for an observation [S]."""


def learn(
    env: gymnasium.Env[Any, Any],
    model: DynamicsModel,
    agent: Agent,
    *,
    trials: int,
    initial: int = 1,
    replan_every: int | None = 1,
    warm_start: bool = True,
    run: str | Path | None = None,
    seed: int = 0,
    stop: Callable[[Trial], bool] | None = None,
    monitor: Monitor | None = None,
) -> Run:
    """Collect `initial` random trials, then `trials` times: fit on all data, plan and act, add the data.

    The lecture's ways (CS285, model-based reinforcement learning): 0.5 is `trials=1, replan_every=None` (one fit, one open-loop
    plan), 1.0 several trials with `replan_every=None` (aggregated data), 1.5 `replan_every=1` (MPC); with an `Expected`
    objective over several draws of θ it is 1.5 with uncertainty.

    With `run`, a folder, every trial is on disk when it ends; the same call on the same folder goes on where it stopped, with the
    same result as an undisturbed run. `stop(trial)` ends the run early. Each trial has its own random numbers, drawn from `seed`.

    Raises `ConfigurationError` for environments without bounded Box actions or vector observations, and for a folder that holds
    another run.
    """
    if trials < 0 or initial < 1 or (replan_every is not None and replan_every < 1):
        raise ConfigurationError(
            f"learn wants trials >= 0, initial >= 1, replan_every >= 1 or None; got {trials}, {initial}, {replan_every}"
        )
    box = action_box(env)
    monitor = monitor or Monitor()
    record = Run.start(run, _describe(env, model, agent, initial, replan_every, warm_start, seed))
    steps = env.spec.max_episode_steps if env.spec else None
    if stop is not None and record.trials and record.trials[-1].controlled and stop(record.trials[-1]):
        return record
    for index in range(len(record.trials), initial + trials):
        monitor.trial_started(index, initial + trials, steps)
        if index < initial:
            policy = random_policy(env, _generator(seed, index, _BASE))
            act = _Act(lambda observation, t, policy=policy: np.asarray(policy(observation)), None)
            trial = _run_trial(env, index, act, seed, monitor, {}, ())
        else:
            data = record.transitions()
            started = time.perf_counter()
            report = _fit(model, data, record, index, warm_start and index > initial, seed, monitor)
            fitted = {"fit_seconds": time.perf_counter() - started, "fit_nll": report.nll} if report else {}
            agent.reset(box, generator=_generator(seed, index, _ACT))
            act = _Act(_controlled(agent, replan_every), agent)
            trial = _run_trial(env, index, act, seed, monitor, fitted, report.warnings if report else ())
            trial.metrics.update(one_step_scores(model, Transitions.from_episodes([trial.episode])))
        record.add(trial)
        monitor.trial_finished(trial)
        if stop is not None and trial.controlled and stop(trial):
            break
    return record


def action_box(env: gymnasium.Env[Any, Any]) -> Box:
    """Return the action bounds; raises `ConfigurationError` unless actions and observations are vectors and actions bounded."""
    space, observed = env.action_space, env.observation_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ConfigurationError(f"learn wants an environment with vector Box actions; got {space}")
    if not isinstance(observed, gymnasium.spaces.Box) or len(observed.shape) != 1:
        raise ConfigurationError(
            f"learn wants vector observations; got {observed}; wrap it in gymnasium.wrappers.FlattenObservation"
        )
    return Box.of(torch.as_tensor(space.low), torch.as_tensor(space.high))


def one_step_scores(model: DynamicsModel, data: Transitions) -> dict[str, float]:
    """Score the model on transitions that it has not seen: NLL per dimension (whitened units), coverage of 90 % intervals, RMSE."""
    predictive = model.predict_target(data.state, data.action)
    target = model.codec.target(data.state, data.next_state).to(predictive.mean)
    level = predictive.cdf(target)
    inside = (level > 0.05) & (level < 0.95)
    return {
        "nll": -float(predictive.log_prob(target).mean()) / target.shape[-1],
        "coverage90": float(inside.double().mean()),
        "rmse": float((predictive.mean - target).square().mean().sqrt()),
    }


class _Act:
    """How a trial chooses actions: a callable (observation, t) -> action, and the agent behind it if there is one."""

    def __init__(self, choose: Callable[[np.ndarray, int], np.ndarray], agent: Agent | None) -> None:
        self.choose, self.agent = choose, agent


def _controlled(agent: Agent, replan_every: int | None) -> Callable[[np.ndarray, int], np.ndarray]:
    def choose(observation: np.ndarray, t: int) -> np.ndarray:
        replan = t == 0 if replan_every is None else t % replan_every == 0
        return agent.act(torch.as_tensor(observation), replan=replan).double().numpy()

    return choose


def _fit(
    model: DynamicsModel, data: Transitions, record: Run, index: int, warm: bool, seed: int, monitor: Monitor
) -> FitReport | None:
    """Fit before trial `index`, or load that fit if the run was killed after it."""
    if record.load_model(index, model):
        return None
    if warm:
        record.load_model(index - 1, model)
    report = model.fit(data, warm_start=warm, generator=_generator(seed, index, _FIT), progress=monitor.fitting)
    record.save_model(index, model)
    return report


def _run_trial(
    env: gymnasium.Env[Any, Any],
    index: int,
    act: _Act,
    seed: int,
    monitor: Monitor,
    metrics: dict[str, float],
    warnings: tuple[str, ...],
) -> Trial:
    observation, _ = env.reset(seed=_number(seed, index, _RESET))
    states = [np.array(observation, dtype=np.float64)]
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    infos: dict[str, list[Any]] = {}
    imagined: list[Tensor] = []
    ages: list[int] = []
    decided: Decision | None = None
    seconds: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        started = time.perf_counter()
        action = act.choose(states[-1], len(actions))
        if act.agent is not None and act.agent.decision is not None:
            fresh = act.agent.decision is not decided
            decided = act.agent.decision
            if fresh:
                seconds.append(time.perf_counter() - started)
            ages.append(0 if fresh else ages[-1] + 1)
            imagined.append(decided.imagined.states.flatten(1, 2).squeeze(2).float())
        observation, reward, terminated, truncated, info = env.step(action.astype(np.float32))
        states.append(np.array(observation, dtype=np.float64))
        actions.append(action)
        rewards.append(float(reward))
        for name, value in _numeric(info).items():
            infos.setdefault(name, []).append(value)
        monitor.stepped(len(actions), _figures(rewards, seconds, infos))
    episode = Episode.from_arrays(np.stack(states), np.stack(actions), rewards, bool(terminated))
    kept = {name: torch.as_tensor(np.stack(values)) for name, values in infos.items() if len(values) == len(actions)}
    metrics = {"return": sum(rewards), "steps": float(len(rewards)), **metrics}
    if seconds:
        metrics["plans_per_second"] = len(seconds) / sum(seconds)
        metrics["slowest_plan_seconds"] = max(seconds)
    return Trial(
        index,
        act.agent is not None,
        episode,
        kept,
        torch.stack(imagined) if imagined else torch.zeros(0, 0, 0, 0),
        torch.tensor(ages, dtype=torch.int64),
        metrics,
        warnings,
    )


def _numeric(info: dict[str, Any]) -> dict[str, np.ndarray]:
    """Keep the infos that are numbers or vectors of numbers."""
    arrays = {name: np.asarray(value) for name, value in info.items() if not isinstance(value, dict | str)}
    return {name: array.astype(np.float64) for name, array in arrays.items() if array.dtype.kind in "fiub" and array.ndim <= 1}


def _figures(rewards: list[float], seconds: list[float], infos: dict[str, list[Any]]) -> dict[str, float]:
    figures = {"return": sum(rewards)}
    figures |= {name: float(values[-1]) for name, values in infos.items() if np.ndim(values[-1]) == 0}
    if seconds:
        figures["plans_per_second"] = len(seconds) / sum(seconds)
    return figures


def _describe(
    env: gymnasium.Env[Any, Any],
    model: DynamicsModel,
    agent: Agent,
    initial: int,
    replan_every: int | None,
    warm_start: bool,
    seed: int,
) -> dict[str, Any]:
    return {
        "environment": env.spec.id if env.spec else type(env.unwrapped).__name__,
        "codec": type(model.codec).__name__,
        "posterior": type(model.posterior).__name__,
        "agent": str(agent),
        "initial": initial,
        "replan_every": replan_every,
        "warm_start": warm_start,
        "seed": seed,
    }


def _number(seed: int, index: int, purpose: int) -> int:
    return int(np.random.SeedSequence([seed, index, purpose]).generate_state(1)[0])


def _generator(seed: int, index: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(_number(seed, index, purpose))
