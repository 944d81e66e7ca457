"""`PolicyAgent`: an agent that improves a policy after each fit and then follows it, with no planning."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.agents import Agent, Improvement
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, NumericalError
from bayesdyn.inference.optimisation import Optimum
from bayesdyn.model import DynamicsModel
from bayesdyn.objectives import ReturnVariance, split_variance
from bayesdyn.planners import ActionSpace
from bayesdyn.policies import Policy
from bayesdyn.policy_search.objective import Loss, PolicyObjective
from bayesdyn.policy_search.optimisers import PolicyOptimiser, QuasiNewton
from bayesdyn.progress import Progress
from bayesdyn.rewards import Reward
from bayesdyn.rollout import Trajectory, rollout


@dataclass(frozen=True)
class Intention:
    """What a policy is expected to do from where the episode starts."""

    imagined: Trajectory
    variance: ReturnVariance
    late: bool = False
    dropped: int = 0
    candidates: int = 0
    warnings: tuple[str, ...] = ()


@dataclass
class PolicyAgent(Agent):
    """Policy search between trials, as PILCO does it: fit, improve the policy under the model, act without planning.

    `make_policy(generator)` draws a policy to start from; later searches start from the last one. Every search starts from
    `restarts` fresh ones beside it, at the price of a search each, and the policy with the least J is followed. Where the new fit
    changes the last one's expected cost by no more than the share `surprise`, though, the trial taught nothing about it, and
    another like it would teach nothing again: then it is the least J - κ std J (`Loss.std`; κ is `optimism`), so that what is known
    to be mediocre gives way to what may be good. An infinite `surprise` compares so at every search. `objective` says what is
    minimised and `optimiser` how; with `daring`, another objective, fresh policies are searched by that one where a trial taught
    nothing, such as by a cost less its std, or all would be found to be as cautious as the last one. `reward` is what the imagined
    trajectories, `draws` of them, are worth beside the environment's own.

    Raises `ConfigurationError` for negative restarts, surprise or optimism or draws below 1; `act` raises `NotFittedError` before
    `improve`.
    Source: Deisenroth & Rasmussen, ICML 2011, algorithm 1.
    """

    model: DynamicsModel
    make_policy: Callable[[torch.Generator], Policy]
    objective: PolicyObjective
    reward: Reward
    optimiser: PolicyOptimiser = field(default_factory=QuasiNewton)
    restarts: int = 0
    surprise: float = math.inf
    optimism: float = 0.0
    draws: int = 10
    daring: PolicyObjective | None = None
    policy: Policy | None = field(default=None, init=False, repr=False)
    decision: Intention | None = field(default=None, init=False, repr=False)
    _generator: torch.Generator | None = field(default=None, init=False, repr=False)
    _expected: float = field(default=math.nan, init=False, repr=False)  # the policy's cost under the model that it comes from

    def __post_init__(self) -> None:
        if not all(value >= 0 for value in (self.restarts, self.surprise, self.optimism)) or self.draws < 1:
            raise ConfigurationError(
                "PolicyAgent wants restarts, surprise and optimism >= 0 and draws >= 1; "
                f"got {self.restarts}, {self.surprise}, {self.optimism} and {self.draws}"
            )

    def improve(self, generator: torch.Generator | None = None, progress: Progress | None = None) -> Improvement:
        """Search from the present policy and from `restarts` fresh ones; keep the most promising.

        A present policy that the new fit can no longer judge is given up for a fresh one, with a warning. Raises `NumericalError`
        if the loss fails at every start.
        """
        began = time.perf_counter()
        generator = generator or torch.Generator().manual_seed(0)
        first = self.make_policy(generator) if self.policy is None else self.policy
        fresh = [self.make_policy(generator) for _ in range(self.restarts)]
        # Every start meets the same draws, or their values could not be compared.
        seed = int(torch.randint(2**62, (), generator=generator))
        surprised = self._surprised(seed)
        expected = self.objective.of(self.model, torch.Generator().manual_seed(seed))
        searched, failed = self._search([first], self.objective, seed, progress)
        objective = self.objective if surprised or self.daring is None or self.policy is None else self.daring
        more, again = self._search(fresh, objective, seed, progress)
        if objective is not self.objective:
            more, lost = _judged(more, expected)
            again += lost
        searched, failed = searched + more, failed + again
        if not searched and self.policy is not None:
            # Without one more the run would end here, and again here whenever it is resumed.
            searched, again = self._search([self.make_policy(generator)], self.objective, seed, progress)
            failed = (*failed, *again)
        if not searched:
            raise NumericalError("; ".join(failed))
        found, self.policy = _most_promising(searched, expected, 0.0 if surprised else self.optimism)
        self._expected = found.value
        metrics = {
            "predicted_cost": found.value,
            "policy_steps": float(found.steps),
            "policy_seconds": time.perf_counter() - began,
        }
        return Improvement(metrics, expected.predictions(self.policy), (*found.warnings, *failed))

    def _surprised(self, seed: int) -> bool:
        """Whether the new fit expects something else of the present policy than the fit did that it comes from.

        It is not asked with an infinite `surprise`; where there is no policy yet, anything is new.
        """
        if math.isinf(self.surprise):
            return False
        if self.policy is None:
            return True
        try:
            with torch.no_grad():
                now = float(self.objective.of(self.model, torch.Generator().manual_seed(seed))(self.policy))
        except NumericalError:
            return True
        return not abs(now - self._expected) <= self.surprise * abs(self._expected)

    def _search(
        self, starts: list[Policy], objective: PolicyObjective, seed: int, progress: Progress | None
    ) -> tuple[list[tuple[Optimum, Policy]], tuple[str, ...]]:
        """Return what came of the starts at which the loss did not fail, and what is to say of the others."""
        found: list[tuple[Optimum, Policy]] = []
        failed: list[str] = []
        for start in starts:
            policy, generator = copy.deepcopy(start), torch.Generator().manual_seed(seed)
            redraw = partial(objective.of, self.model, generator)
            try:
                found.append((self.optimiser.improve(policy, redraw, progress), policy))
            except NumericalError as error:
                which = "the last policy" if start is self.policy else "a fresh policy"
                failed.append(f"the policy search from {which} failed: {error}")
        return found, tuple(failed)

    def reset(self, space: ActionSpace, batch: int = 1, generator: torch.Generator | None = None) -> None:
        """Start an episode; the policy stays."""
        space.box(type(self).__name__)
        self.decision, self._generator = None, generator or torch.Generator().manual_seed(0)

    def act(self, observation: Float[Tensor, "*batch S"], *, replan: bool = True) -> Float[Tensor, "*batch A"]:
        """Return the policy's action; at the first step of an episode, imagine what it will lead to.

        Raises `DataError` for an observation that is not finite.
        """
        policy = self._policy()
        if not bool(observation.isfinite().all()):
            raise DataError(
                f"PolicyAgent wants finite observations; got {observation.tolist()}: look at the sensor or the environment"
            )
        with torch.no_grad():
            if self.decision is None:
                self.decision = self._imagine(policy, observation)
            return policy(observation.to(self._dtype(policy)))

    def _imagine(self, policy: Policy, observation: Tensor) -> Intention:
        start = observation.to(self._dtype(policy)).reshape(-1, observation.shape[-1])
        dynamics = self.model.sample(self.draws, self._generator, dtype=start.dtype)
        imagined = rollout(dynamics, start, policy, self.reward, horizon=self.objective.horizon, generator=self._generator)
        return Intention(imagined, split_variance(imagined.returns))

    def memory(self) -> dict[str, Tensor]:
        """Return the policy's parameters and what it was expected to cost."""
        if self.policy is None:
            return {}
        parameters = {f"policy.{name}": values.clone() for name, values in self.policy.state_dict().items()}
        return {"expected_cost": torch.tensor(self._expected, dtype=torch.float64), **parameters}

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take the policy's parameters back; forget the policy if there are none."""
        if not memory:
            self.policy, self._expected = None, math.nan
            return
        if self.policy is None:
            self.policy = self.make_policy(torch.Generator().manual_seed(0))
        parameters = {name.removeprefix("policy."): values for name, values in memory.items() if name.startswith("policy.")}
        self.policy.load_state_dict(parameters)
        self._expected = float(memory["expected_cost"])

    def _policy(self) -> Policy:
        if self.policy is None:
            raise NotFittedError("PolicyAgent has no policy yet; fit the model and call improve() first, as learn does")
        return self.policy

    @staticmethod
    def _dtype(policy: Policy) -> torch.dtype:
        return next(policy.parameters()).dtype


def _judged(searched: list[tuple[Optimum, Policy]], expected: Loss) -> tuple[list[tuple[Optimum, Policy]], tuple[str, ...]]:
    """Return what was found by another loss with its value by this one, and what is to say of those at which it fails."""
    judged, failed = list[tuple[Optimum, Policy]](), list[str]()
    for found, policy in searched:
        try:
            with torch.no_grad():
                judged.append((found._replace(value=float(expected(policy))), policy))
        except NumericalError as error:
            failed.append(f"a fresh policy that was searched daringly cannot be judged: {error}")
    return judged, tuple(failed)


def _most_promising(searched: list[tuple[Optimum, Policy]], expected: Loss, optimism: float) -> tuple[Optimum, Policy]:
    """Return what has the least J - κ std J."""
    if len(searched) == 1 or not optimism:
        return min(searched, key=lambda pair: pair[0].value)
    return min(searched, key=lambda pair: pair[0].value - optimism * float(expected.std(pair[1])))
