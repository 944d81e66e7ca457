"""`learn`: the one loop behind the ways of the lecture, told apart by the number of trials and how often to replan."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs
from torch import Tensor

from bayesdyn.agents import Agent, Improvement
from bayesdyn.data import Transitions
from bayesdyn.data.describe import describe
from bayesdyn.errors import ConfigurationError
from bayesdyn.loop.acting import Explorer, Pilot, run_trial
from bayesdyn.loop.actions import Actions, actions_of, check_observations
from bayesdyn.loop.exploration import Exploration, Uniform
from bayesdyn.loop.monitor import Monitor
from bayesdyn.loop.run import Fit, Run
from bayesdyn.loop.student import Student
from bayesdyn.loop.trial import Trial
from bayesdyn.model import DynamicsModel


def learn(
    env: gymnasium.Env[Any, Any],
    model: DynamicsModel,
    agent: Agent,
    *,
    trials: int,
    initial: int = 1,
    explore: Exploration = Uniform(),  # noqa: B008
    replan_every: int | None = 1,
    refit_every: int | None = None,
    warm_start: bool = False,
    online: bool = True,
    keep_fans: bool = True,
    warm_up: Callable[[Tensor], None] | None = None,
    run: str | Path | None = None,
    seed: int = 0,
    stop: Callable[[Trial], bool] | None = None,
    monitor: Monitor | None = None,
) -> Run:
    """Collect `initial` trials that `explore` without a model, then `trials` times: fit on all data, plan and act, add the data.

    Between fit and trial the agent may learn from the model (`Agent.improve`): that is how a policy search goes, with no planning.

    The lecture's ways (CS285, model-based reinforcement learning): 0.5 is `trials=1, replan_every=None` (one fit, one open-loop
    plan, with a planner whose horizon covers the trial), 1.0 several trials with `replan_every=None` (aggregated data), 1.5
    `replan_every=1` (MPC) and `refit_every=N`, a fit to all data so far at every N-th step; with an `Expected` objective over
    several draws of θ it is 1.5 with uncertainty.

    With `run`, a folder, every fit and trial is on disk when it ends; the same call on the same folder, or one with more trials,
    goes on where it stopped, with the same result as an undisturbed run. `stop(trial)` ends the run after a controlled trial. Each
    trial has its own random numbers, drawn from `seed`. The environment has to end its episodes (`gymnasium.wrappers.TimeLimit`).

    Discrete actions are category numbers in the data (`Codec(choices=...)` makes features of them) and want a discrete planner.
    `keep_fans=False` keeps no imagined trajectories, which long trials of large states want. `warm_up` is called with the first
    observation of each controlled trial, before plans are timed: `agent.warm_up` for an `MPC` with a latency.

    Raises `ConfigurationError` for environments without bounded actions (a vector Box, Discrete or MultiDiscrete) or vector
    observations, for an episode that does not end and for a folder that holds another run, `FileError` for a damaged one.

    >>> import bayesdyn as bd
    >>> from bayesdyn.networks.training import Training
    >>> env = gymnasium.make("Pendulum-v1", max_episode_steps=20)
    >>> posterior = bd.posteriors.BootstrapEnsemble(members=2, hidden=(8,), training=Training(steps=20))
    >>> model = bd.DynamicsModel(bd.Codec(), posterior)
    >>> agent = bd.MPC(model, bd.planners.ICEM(horizon=5, candidates=10, elites=2), lambda s, a, s2: s2[..., 0], draws=2)
    >>> [len(trial.episode) for trial in learn(env, model, agent, trials=1, replan_every=5).trials]
    [20, 20]
    """
    if trials < 0 or initial < 1 or seed < 0 or any(every is not None and every < 1 for every in (replan_every, refit_every)):
        raise ConfigurationError(
            "learn wants trials >= 0, initial >= 1, seed >= 0, replan_every and refit_every >= 1 or None; "
            f"got {trials}, {initial}, {seed}, {replan_every} and {refit_every}"
        )
    check_observations(env)
    actions, monitor = actions_of(env.action_space), monitor or Monitor()
    agent.recall({})
    agent.reset(actions.space)  # refuses a space that its planner cannot search before anything is written
    settings = {
        "initial": initial,
        "explore": describe(explore),
        "replan_every": replan_every,
        "warm_start": warm_start,
        "online": online,
        "seed": seed,
    }
    if refit_every is not None:  # so that folders of runs that never asked for it are taken up as before
        settings["refit_every"] = refit_every
    if wrappers := _wrappers(env):
        settings["environment_wrappers"] = wrappers
    record = Run.start(run, {**_describe(env, model, agent), **settings})
    last = initial + trials
    for index in range(len(record.trials), last):
        if _over(record, stop):
            break
        monitor.trial_started(index, last, env.spec.max_episode_steps if env.spec else None)
        streams = _Streams(seed, index)
        if index < initial:
            trial = _random_trial(env, actions, explore, index, streams, monitor)
        else:
            fit = _fit(model, record, index, warm=warm_start and index > initial, streams=streams, monitor=monitor)
            improvement = _improve(agent, record, index, first=index == initial, streams=streams, monitor=monitor)
            agent.reset(actions.space, generator=streams.generator("act"))
            generator = streams.generator("refit")
            student = Student(model, record.transitions(), online, refit_every, warm_start, generator, monitor.fitting)
            pilot = Pilot(agent, replan_every, student, keep_fans, warm_up)
            trial = _controlled_trial(env, actions, model, pilot, fit, improvement, index, streams, monitor)
        record.add(trial)
        monitor.trial_finished(trial)
    return record


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


@dataclass(frozen=True)
class _Streams:
    """Random numbers of one trial: a stream per purpose, so that none depends on how much another used."""

    seed: int
    index: int

    def number(self, purpose: str) -> int:
        position = ("random", "fit", "act", "reset", "improve", "refit").index(purpose)
        return int(np.random.SeedSequence([self.seed, self.index, position]).generate_state(1)[0])

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.number(purpose))


def _over(record: Run, stop: Callable[[Trial], bool] | None) -> bool:
    return stop is not None and bool(record.trials) and record.trials[-1].controlled and stop(record.trials[-1])


def _fit(model: DynamicsModel, record: Run, index: int, *, warm: bool, streams: _Streams, monitor: Monitor) -> Fit:
    """Fit before trial `index`, or load that fit if the run was killed after it."""
    kept = record.load_fit(index, model)
    if kept is not None:
        return kept
    if warm:
        record.load_model(index - 1, model)
    generator = streams.generator("fit")
    report = model.fit(record.transitions(), warm_start=warm, generator=generator, progress=monitor.fitting)
    fit = Fit(report.seconds, report.nll, report.warnings)
    record.save_fit(index, model, fit)
    # What was saved, not what is at hand, so that a resumed run is the same to the last bit (factors are rebuilt on load).
    record.load_model(index, model)
    return fit


def _improve(agent: Agent, record: Run, index: int, *, first: bool, streams: _Streams, monitor: Monitor) -> Improvement:
    """Let the agent learn from the fit before trial `index`, or recall what it learned if the run was killed after that."""
    kept = record.load_improvement(index, agent)
    if kept is not None:
        return kept
    if not first:
        record.load_improvement(index - 1, agent)
    improvement = agent.improve(streams.generator("improve"), monitor.improving)
    record.save_improvement(index, agent, improvement)
    return improvement


def _random_trial(
    env: gymnasium.Env[Any, Any], actions: Actions, explore: Exploration, index: int, streams: _Streams, monitor: Monitor
) -> Trial:
    explorer = Explorer(explore(env, streams.generator("random")), actions)
    log = run_trial(env, actions, explorer, streams.number("reset"), monitor)
    metrics = {"return": sum(log.rewards), "steps": float(len(log.rewards))}
    return Trial(index, False, log.episode(), log.complete_infos(), metrics=metrics)


def _controlled_trial(
    env: gymnasium.Env[Any, Any],
    actions: Actions,
    model: DynamicsModel,
    pilot: Pilot,
    fit: Fit,
    improvement: Improvement,
    index: int,
    streams: _Streams,
    monitor: Monitor,
) -> Trial:
    fitted = copy.deepcopy(model.state_dict())
    try:
        log = run_trial(env, actions, pilot, streams.number("reset"), monitor)
    finally:
        # What was learned within the trial is forgotten: scores are of a model that has not seen it; the next fit sees all of it.
        model.load_state_dict(fitted)
    episode = log.episode()
    metrics = {
        "return": sum(log.rewards),
        "steps": float(len(log.rewards)),
        "fit_seconds": fit.seconds,
        "fit_nll": fit.nll,
        **improvement.metrics,
        **pilot.metrics(),
        **pilot.promise(log.rewards, log.terminated),
        **one_step_scores(model, Transitions.from_episodes([episode])),
    }
    warnings = (*fit.warnings, *improvement.warnings, *pilot.warnings)
    infos = log.complete_infos()
    return Trial(index, True, episode, infos, pilot.imagined, pilot.age, metrics, warnings, improvement.predictions)


def _wrappers(env: gymnasium.Env[Any, Any]) -> list[list[Any]]:
    """Return name and arguments of the wrappers, innermost first: of a registered environment those that came after `make`."""
    if env.spec:
        return [[each.name, describe(each.kwargs)] for each in env.spec.additional_wrappers]
    found: list[list[Any]] = []
    while isinstance(env, gymnasium.Wrapper):
        # As in Gymnasium's `Wrapper.spec`, which an environment that is not registered lacks.
        kwargs = env._saved_kwargs if isinstance(env, RecordConstructorArgs) else {}
        found.insert(0, [env.class_name(), describe({name: value for name, value in kwargs.items() if name != "env"})])
        env = env.env
    return found


def _describe(env: gymnasium.Env[Any, Any], model: DynamicsModel, agent: Agent) -> dict[str, Any]:
    spec = env.spec
    return {
        "environment": spec.id if spec else type(env.unwrapped).__qualname__,
        "environment_options": describe(spec.kwargs) if spec else {},
        "environment_steps": spec.max_episode_steps if spec else None,
        "codec": describe(model.codec),
        "posterior": describe(model.posterior),
        "agent": describe(agent),
    }
