"""Policy search in PILCO's scenarios: PILCO itself, particles (MC-PILCO) and networks (Deep PILCO)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.model import DynamicsModel
from bayesdyn.moments import Cost, Lift
from bayesdyn.moments.scenario_costs import Widths
from bayesdyn.policies import Policy
from bayesdyn.policy_search import GrowingHorizon, MomentMatched, PolicyAgent, PolicyObjective, PolicyOptimiser, QuasiNewton
from bayesdyn.posteriors import ExactGP, Posterior
from bayesdyn.presets.pilco_scenarios import Scenario, scenario
from bayesdyn.presets.scenario_task import LearnedScenario


@dataclass(frozen=True)
class LiftedCost:
    """Minus a cost of the lifted state as a reward of (s, a, s'), which particles and pictures want.

    >>> from bayesdyn.moments.scenario_costs import cart_pole_cost
    >>> upright = torch.tensor([0.0, 0.0, 0.0, torch.pi])
    >>> abs(LiftedCost(cart_pole_cost(), Lift(4, [3]))(upright, torch.zeros(1), upright).item()) < 1e-6
    True
    """

    cost: Cost
    lift: Lift

    def __call__(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Return minus the cost of the next state, [...]."""
        return -self.cost(self.lift(next_state))


@dataclass(frozen=True)
class FirstPolicy:
    """Draws the policies of a scenario from which a search starts; a dataclass, so that a run's folder says which these are.

    >>> FirstPolicy(pilco("pendulum").scenario, Scenario.policy)(torch.Generator())(torch.zeros(2).double()).shape
    torch.Size([1])
    """

    scenario: Scenario
    policy: Callable[[Scenario, torch.Generator], Policy]

    def __call__(self, generator: torch.Generator) -> Policy:
        """Draw one."""
        return self.policy(self.scenario, generator)


@dataclass(frozen=True)
class PolicyTask(LearnedScenario):
    """A scenario with a way of searching policies: what `PolicyAgent` and `learn` want.

    `widths` and `exploration` are those of the cost; `posterior` makes what learns the dynamics, `objective(scenario, cost)` says
    how policies are judged and `optimiser` how they are searched. `policy(scenario, generator)` draws one to start from; each
    search starts from `restarts` fresh ones beside the last, which are compared by cost or, where a trial taught the model nothing
    about the last (`PolicyAgent.surprise`), by cost less `optimism` times its std. With `daring` fresh ones are then searched by
    the cost with that exploration.

    >>> from bayesdyn import presets
    >>> presets.pilco("cart-pole").scenario.horizon
    40
    """

    scenario: Scenario
    posterior: Callable[[], Posterior]
    objective: Callable[[Scenario, Cost], PolicyObjective]
    optimiser: PolicyOptimiser
    policy: Callable[[Scenario, torch.Generator], Policy] = Scenario.policy
    widths: Widths | None = None
    exploration: float = 0.0
    restarts: int = 0
    surprise: float = 0.1
    optimism: float = 0.0
    daring: float | None = None
    warm_start: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def controlled(self) -> int:
        """As many as the scenario says."""
        return self.scenario.trials

    @property
    def between(self) -> Mapping[str, Any]:
        """The policy neither replans nor learns within a trial."""
        return {"replan_every": None, "online": False}

    def agent(self, model: DynamicsModel) -> PolicyAgent:
        """Make the agent that searches a policy after each fit."""
        scenario = self.scenario
        return PolicyAgent(
            model,
            FirstPolicy(scenario, self.policy),
            self.objective(scenario, self.cost),
            LiftedCost(self.cost, Lift(len(scenario.start_mean), scenario.angles)),
            self.optimiser,
            self.restarts,
            self.surprise,
            self.optimism,
            daring=None if self.daring is None else self.objective(scenario, replace(self, exploration=self.daring).cost),
        )


def original_gp() -> Posterior:
    """Make PILCO's Gaussian process: the likelihood and the curb on its scales, no priors on length-scales and noise.

    >>> original_gp().training_settings.priors
    False
    """
    return ExactGP(training=GPTraining.pilco(max_steps=100))


def doubtful_gp() -> Posterior:
    """Make a Gaussian process that takes no input for irrelevant early: priors, and length-scales of at most ten stds of an input.

    By the likelihood alone 30 rows of eight inputs have some that seem not to matter, and what is predicted where these differ is
    far too sure of itself.

    >>> doubtful_gp().training_settings.lengthscale_ratio
    10.0
    """
    return ExactGP(training=GPTraining(max_steps=100, lengthscale_ratio=10.0))


def pilco(name: str, **changes: Any) -> PolicyTask:
    """Return PILCO in one of its scenarios: Gaussian processes, moments matched exactly, quasi-Newton on the policy.

    Every search starts from two fresh policies beside the last one, since what a search comes to depends on where it starts. Costs
    are less a quarter of their std (`exploration`), and a policy that is stuck gives way to one that may be better by one std
    (`PolicyAgent.optimism`): the original has none of the three, and keeps to the first way up that it finds or does not find.

    The costs of pendulum and double pendulum are means over their width, twice and four times that: with its own alone the first
    searches find no slope. On the double pendulum beliefs that know nothing any more cost less than hanging still, and trials that
    seek them go too fast to learn from. So its costs are *more* half of their std, unless the last trial taught nothing; searches
    begin with the first steps (`GrowingHorizon`), and policies with basis functions all over, and the Gaussian process is
    `doubtful_gp`.

    `changes` replace fields of the `Scenario`, such as `basis=10`. Raises `UnknownNameError` for a scenario or field that is none.

    Source: Deisenroth & Rasmussen, ICML 2011; settings of UCL-SML/pilco-matlab, where the page on presets says nothing else.

    >>> pilco("pendulum").scenario.basis, pilco("cart-pole", basis=10).scenario.basis
    (20, 10)
    """
    chosen = scenario(name, **changes)
    return PolicyTask(
        chosen,
        objective=lambda scenario, cost: MomentMatched(cost, scenario.start, scenario.horizon),
        optimiser=_search(chosen, _GROWING.get(name, ())),
        restarts=_RESTARTS,
        optimism=_OPTIMISM,
        **{"posterior": original_gp, "exploration": _EXPLORATION, **_TUNED.get(name, {})},
    )


def _search(scenario: Scenario, growing: tuple[float, ...]) -> PolicyOptimiser:
    """Return the scenario's line searches, or a third of them for each share of the horizon, and two thirds for the whole."""
    horizons = sorted({max(1, round(share * scenario.horizon)) for share in growing} - {scenario.horizon})
    if not horizons:
        return QuasiNewton(scenario.searches, scenario.evaluations)
    searches = max(1, scenario.searches // 3)
    first, last = (QuasiNewton(count, scenario.evaluations) for count in (searches, 2 * searches))
    return GrowingHorizon(tuple(horizons), first, last)


# With little data searches from different starts come to very different costs.
_RESTARTS = 2
_EXPLORATION = -0.25
# A stuck policy's trials go as the model expects and teach it nothing; only those of another one show the way. So do those of one
# that is almost there, which more optimism leaves for anything unknown.
_OPTIMISM = 1.0
_WARY: Mapping[str, Any] = {"exploration": 0.5, "daring": -0.5, "posterior": doubtful_gp}
_TUNED: Mapping[str, Mapping[str, Any]] = {
    "pendulum": {"widths": (0.5, 1.0, 2.0)},
    "double-pendulum": {"widths": (0.5, 1.0, 2.0), **_WARY},
    "pendubot": {"widths": (0.25, 0.5, 1.0), **_WARY},
}
_GROWING: Mapping[str, tuple[float, ...]] = {"double-pendulum": (0.4, 0.67), "pendubot": (0.4, 0.67)}
