"""How one trial goes: something chooses actions, the environment answers, and all of it is kept."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.agents import Agent, Thought
from bayesdyn.data import Episode, Transitions
from bayesdyn.data.collection import NumpyPolicy
from bayesdyn.errors import ConfigurationError
from bayesdyn.loop.actions import Actions
from bayesdyn.loop.monitor import Monitor
from bayesdyn.loop.student import Student

_ENDLESS = 50_000


class Actor(ABC):
    """Chooses the actions of one trial."""

    @abstractmethod
    def act(self, observation: np.ndarray, t: int) -> np.ndarray:
        """Return the action [A] of step t for an observation [S]."""

    def observe(self, transition: Transitions) -> None:  # noqa: B027
        """Be told what an action led to, one row; nothing is made of it here."""

    def metrics(self) -> dict[str, float]:
        """Return figures about the actions chosen so far."""
        return {}


class Explorer(Actor):
    """Acts without a model, as an `Exploration` says."""

    def __init__(self, policy: NumpyPolicy, actions: Actions) -> None:
        self.policy, self.actions = policy, actions

    def act(self, observation: np.ndarray, t: int) -> np.ndarray:
        """Ask the policy."""
        return self.actions.record(self.policy(observation))


class Pilot(Actor):
    """Lets an agent act, with a new plan every `replan_every` steps (None: one plan), and keeps what it thought at each step.

    Only steps at which the agent has a decision count. `student` learns from the trial while it goes on; without `keep_fans` what
    the plans imagined is dropped, which long trials of large states want. `warm_up` is called with the first observation, before
    any clock runs.
    """

    def __init__(
        self,
        agent: Agent,
        replan_every: int | None,
        student: Student | None = None,
        keep_fans: bool = True,
        warm_up: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.agent, self.replan_every, self.student, self.keep_fans = agent, replan_every, student, keep_fans
        self.warm_up = warm_up
        self.fans: list[Tensor] = []
        self.ages: list[int] = []
        self.first_plan: list[float] = []
        self.seconds: list[float] = []
        self.late = self.dropped = self.candidates = 0
        self.shares: list[float] = []
        self.said: Counter[str] = Counter()
        self._decision: Thought | None = None

    def act(self, observation: np.ndarray, t: int) -> np.ndarray:
        """Ask the agent."""
        if t == 0 and self.warm_up is not None:
            self.warm_up(torch.as_tensor(observation))
        if self.student is not None:
            self.student.prepare()
        replan = t == 0 if self.replan_every is None else t % self.replan_every == 0
        started = time.perf_counter()
        action = self.agent.act(torch.as_tensor(observation), replan=replan)
        if self.agent.decision is not None:
            self._keep(self.agent.decision, time.perf_counter() - started)
            if t == 0:
                self.first_plan = self.agent.decision.imagined.rewards.flatten(1).mean(1).tolist()
        return action.detach().cpu().double().numpy()

    def observe(self, transition: Transitions) -> None:
        """Let the student learn from it."""
        if self.student is not None:
            self.student.observe(transition)

    def _keep(self, decision: Thought, seconds: float) -> None:
        fresh = decision is not self._decision
        self._decision = decision
        self.ages.append(0 if fresh else self.ages[-1] + 1)
        if self.keep_fans:
            self.fans.append(decision.imagined.states.flatten(1, 2).squeeze(2).float().cpu())
        if fresh:
            self.seconds.append(seconds)
            self.late += decision.late
            self.dropped += decision.dropped
            self.candidates += decision.candidates
            if decision.imagined.rewards.shape[2] > 1:  # one particle per draw cannot tell ignorance from noise
                self.shares.append(float(decision.variance.epistemic_share.mean()))
            self.said.update(decision.warnings)

    @property
    def imagined(self) -> Float[Tensor, "T H n S"]:
        """The fan of the plan in force at each step."""
        return torch.stack(self.fans) if self.fans else torch.zeros(0, 0, 0, 0)

    @property
    def age(self) -> Int[Tensor, "T"]:
        """How many steps ago that plan was made."""
        return torch.tensor(self.ages, dtype=torch.int64)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about the plans."""
        return tuple(f"{count} of {len(self.seconds)} plans {said}" for said, count in self.said.items())

    def promise(self, rewards: Sequence[float], terminated: bool) -> dict[str, float]:
        """Return what the first plan expected to earn over its horizon, and what the same steps of the trial earned.

        planned_return    Σ_t of the imagined rewards, t below the horizon, mean over all trajectories
        realised_return   Σ_t of the environment's rewards over the same steps; after the end of the episode there are none

        Both stop where the trial is cut short. Later plans may do better than the first; no discount, no terminal value.
        """
        if not self.first_plan:
            return {}
        steps = len(self.first_plan) if terminated else min(len(self.first_plan), len(rewards))
        return {"planned_return": sum(self.first_plan[:steps]), "realised_return": sum(rewards[:steps])}

    def metrics(self) -> dict[str, float]:
        """Return how fast the plans came, and how sure the model was.

        plan_seconds_p50   median, p99 and largest wall clock of a plan; `late_plans` exceeded the agent's latency
        epistemic_share    mean share of the imagined return's variance that is the model's ignorance; with several particles only
        dropped_share      share of candidates whose return was not finite
        """
        if not self.seconds:
            return {}
        share = {"epistemic_share": float(np.mean(self.shares))} if self.shares else {}
        refits = self.student.metrics() if self.student else {}
        return {
            "plans_per_second": len(self.seconds) / sum(self.seconds),
            "plan_seconds_p50": float(np.quantile(self.seconds, 0.5)),
            "plan_seconds_p99": float(np.quantile(self.seconds, 0.99)),
            "slowest_plan_seconds": max(self.seconds),
            "late_plans": float(self.late),
            **share,
            "dropped_share": self.dropped / max(self.candidates, 1),
            **refits,
        }


@dataclass
class Log:
    """What the environment answered in one trial: states are [T + 1, S], actions [T, A], infos one list per name."""

    states: list[np.ndarray]
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    infos: dict[str, list[np.ndarray]] = field(default_factory=dict)
    terminated: bool = False

    def episode(self) -> Episode:
        """Return the episode."""
        return Episode.from_arrays(np.stack(self.states), np.stack(self.actions), self.rewards, self.terminated)

    def complete_infos(self) -> dict[str, Tensor]:
        """Return the infos that came at every step in one shape, [T] or [T, k] each."""
        whole = {name: values for name, values in self.infos.items() if len(values) == len(self.actions)}
        return {name: torch.as_tensor(np.stack(v)) for name, v in whole.items() if len({x.shape for x in v}) == 1}

    def figures(self) -> dict[str, float]:
        """Return the return so far and the latest scalar infos."""
        scalars = {name: float(values[-1]) for name, values in self.infos.items() if values[-1].ndim == 0}
        return {"return": sum(self.rewards), **scalars}


def _ends(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether a time limit is among the environment's wrappers."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return True
        env = env.env
    return False


def run_trial(env: gymnasium.Env[Any, Any], actions: Actions, actor: Actor, seed: int, monitor: Monitor) -> Log:
    """Reset the environment with `seed` and act until the episode ends.

    Raises `ConfigurationError` for an episode of more than 50,000 steps without a time limit: it may never end.
    """
    observation, _ = env.reset(seed=seed)
    log = Log([_copy(observation)])
    over = False
    while not over:
        if len(log.actions) == _ENDLESS and not _ends(env):
            raise ConfigurationError(
                f"the episode has not ended after {_ENDLESS} steps; wrap the environment in "
                "gymnasium.wrappers.TimeLimit(env, steps), or register it with max_episode_steps"
            )
        action = actions.translate(actor.act(_copy(observation), len(log.actions)))
        observation, reward, log.terminated, truncated, info = env.step(action)
        over = bool(log.terminated or truncated)
        log.states.append(_copy(observation))
        log.actions.append(actions.record(action))
        log.rewards.append(float(reward))
        actor.observe(Transitions.from_arrays(log.states[-2][None], log.actions[-1][None], log.states[-1][None]))
        for name, value in _numeric(info).items():
            log.infos.setdefault(name, []).append(value)
        monitor.stepped(len(log.actions), log.figures() | actor.metrics())
    log.terminated = bool(log.terminated)
    return log


def _copy(values: Any) -> np.ndarray:
    # Some environments return one buffer again and again.
    return np.array(values, dtype=np.float64)


def _numeric(info: dict[str, Any]) -> dict[str, np.ndarray]:
    """Keep the infos that are numbers or vectors of numbers."""
    numeric = {}
    for name, value in info.items():
        with suppress(ValueError):  # a ragged list
            array = np.asarray(value)
            if array.dtype.kind in "fiub" and array.ndim <= 1:
                numeric[name] = array.astype(np.float64)
    return numeric
