"""`GPMPC`: model-predictive control with Gaussian beliefs propagated by moment matching."""

import time
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.agents import Agent
from bayesdyn.belief_dynamics import Belief
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, NumericalError, ShapeError
from bayesdyn.gp_mpc.chance import ChanceBound, Multipliers
from bayesdyn.gp_mpc.path import Along, matched
from bayesdyn.gp_mpc.plan import BeliefPlan, expected_costs, fan
from bayesdyn.gp_mpc.problem import BeliefProblem, apart
from bayesdyn.gp_mpc.regulator import regulator
from bayesdyn.gp_mpc.search import BoxSearch, Found, Search
from bayesdyn.model import DynamicsModel
from bayesdyn.moments import Cost
from bayesdyn.objectives import split_variance
from bayesdyn.planners import ActionSpace, Box
from bayesdyn.planners.base import follow
from bayesdyn.planners.icem import coloured_noise
from bayesdyn.rewards import Reward


@dataclass
class GPMPC(Agent):
    r"""GP-MPC: at each step minimise the expected cost of the beliefs that `horizon` actions lead to, and execute the first.

        min_u J(u) of `BeliefProblem`,   z_{t+1} = f_MM(z_t, u_t),   z_0 = (s, diag `observation_var`),   low <= u <= high

    Moments and gradients are exact for Gaussian processes with an RBF kernel; the model is asked for its belief dynamics at each
    plan, so that `learn(online=True)` plans with every transition so far. At the first step of an episode there are the middle of
    the box and `scouts` random sequences, coloured noise of the exponent `colour`, evaluated in one pass: the best `starts` of them
    are searched with `first_search`, and the best is kept. Later searches start from the last plan, moved on by what was executed.
    Where that ends at a J more than the share `tolerated_rise` above the last one, it has fallen out of its valley (open-loop plans
    of an unstable system do): the search is made afresh as at the first step, with `search`, and the better of both is kept.

    `cost` is a moment map of the lifted state, like `final_cost`; `action_cost` of the action: a little of it keeps the far end of
    plans calm, where the beliefs are too wide to say what is best. `bounds` are chance constraints. `along=certainty_equivalent`
    drops all variance. `process_noise` adds the model's noise at each step. `reward` is what the `draws` points of each belief are
    worth that `decision.imagined` shows.

    With `feedback` plans count on being corrected: beliefs are those under u_t + K_t(s_t - μ_t) with the gains of `regulator`.
    Without it the state of an unstable system may be anywhere within a few steps, and all plans cost the same. By these gains the
    last plan, moved on, answers what has happened since, and so does an action that is not planned anew. Such a plan does not fall
    of itself, so that a J below a tenth of the episode's first counts as that tenth: what is nearly 0 may come and go.

    Raises `ConfigurationError` for a horizon or counts below 1 or a discount outside (0, 1].
    Source: Kamthe & Deisenroth, AISTATS 2018; feedback: van den Berg, Patil & Alterovitz, IJRR 2012.
    """

    model: DynamicsModel
    cost: Cost
    reward: Reward
    horizon: int = 15
    search: Search = field(default_factory=BoxSearch)
    first_search: Search = field(default_factory=lambda: BoxSearch(evaluations=50))
    starts: int = 3
    scouts: int = 64
    colour: float = 2.0
    tolerated_rise: float = 0.15
    discount: float = 1.0
    action_cost: Cost | None = None
    final_cost: Cost | None = None
    bounds: tuple[ChanceBound, ...] = ()
    along: Along = matched
    observation_var: tuple[float, ...] | None = None
    process_noise: bool = False
    feedback: bool = False
    draws: int = 10
    decision: BeliefPlan | None = field(default=None, init=False, repr=False)
    _box: Box | None = field(default=None, init=False, repr=False)
    _generator: torch.Generator | None = field(default=None, init=False, repr=False)
    _executed: int = field(default=0, init=False, repr=False)
    _least: float = field(default=0.0, init=False, repr=False)
    _angles: tuple[int, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.horizon, self.starts, self.draws) < 1 or min(self.scouts, self.tolerated_rise) < 0:
            raise ConfigurationError(f"GPMPC wants horizon, starts and draws >= 1 and scouts and tolerated_rise >= 0; got {self}")
        wrong = [type(search).__name__ for search in (self.search, self.first_search) if not isinstance(search, Search)]
        if wrong:
            raise ConfigurationError(
                f"GPMPC searches beliefs by BoxSearch or ILQR; got {', '.join(wrong)}, which are no such searches"
            )
        if not 0 < self.discount <= 1:
            raise ConfigurationError(f"GPMPC wants 0 < discount <= 1; got {self.discount}")

    def reset(self, space: ActionSpace, batch: int = 1, generator: torch.Generator | None = None) -> None:
        """Start an episode: forget the plan; `generator` feeds the random starts (default: seed 0).

        Raises `ConfigurationError` for discrete actions and for more than one environment.
        """
        if batch != 1:
            raise ConfigurationError(f"GPMPC plans for one environment at a time; got a batch of {batch}")
        self._box = space.box(type(self).__name__).to(torch.float64)
        self._generator = generator or torch.Generator().manual_seed(0)
        self.decision, self._executed = None, 0

    def act(self, observation: Float[Tensor, "S"], *, replan: bool = True) -> Float[Tensor, "A"]:
        """Return the next action, from a new plan or, with `replan=False`, the next one of the plan at hand and its feedback.

        Raises `NotFittedError` before `reset`, `DataError` for an observation that is not finite.
        """
        self._ready()
        if not bool(observation.isfinite().all()):
            raise DataError(f"GPMPC wants finite observations; got {observation.tolist()}: look at the sensor or the environment")
        if replan or self.decision is None or self._executed >= self.horizon:
            self.decision = self._decide(observation.double())
            self._executed = 0
        self._executed += 1
        return self._answer(self.decision, self._executed - 1, observation)

    def problem(self, observation: Float[Tensor, "S"]) -> BeliefProblem:
        """Return what is minimised from an observation, under the model as it is now.

        Raises `ShapeError` for `observation_var` of another size.
        """
        size = observation.shape[-1]
        var = observation.new_zeros(size) if self.observation_var is None else observation.new_tensor(self.observation_var)
        if var.shape != (size,):
            raise ShapeError(f"observation_var wants one variance for each of {size} coordinates; got {len(var)}")
        return BeliefProblem(
            self.model.belief_dynamics(process_noise=self.process_noise),
            self.cost,
            Belief(observation, var.diag()),
            discount=self.discount,
            action_cost=self.action_cost,
            final_cost=self.final_cost,
            bounds=self.bounds,
            along=self.along,
        )

    def _decide(self, observation: Float[Tensor, "S"]) -> BeliefPlan:
        began = time.perf_counter()
        box, generator = self._ready()
        problem = self.problem(observation)
        way, looked = self._search(problem, box, generator)
        return self._plan(way, box, looked, began)

    def _search(self, problem: BeliefProblem, box: Box, generator: torch.Generator) -> tuple["_Way", int]:
        """Return the best sequence found, and how many were evaluated."""
        last = self.decision
        if last is None:
            first, looked = self._afresh(self.first_search, problem, box, generator)
            self._least = 0.1 * abs(first.found.value) if self.feedback else 0.0
            return first, looked
        way = self._onward(problem, box, last)
        if way is None:
            return self._afresh(self.search, problem, box, generator)
        looked = way.found.evaluations
        if way.found.value <= last.value + self.tolerated_rise * max(abs(last.value), self._least):
            return way, looked
        other, more = self._afresh(self.search, problem, box, generator)
        return min(way, other, key=self._rank), looked + more

    def _afresh(self, search: Search, problem: BeliefProblem, box: Box, generator: torch.Generator) -> tuple["_Way", int]:
        """Search from the best of many sequences; raises `NumericalError` if beliefs explode under all of them."""
        drawn = box.middle.expand(self.horizon, 1, box.size)
        if self.scouts:
            noise = coloured_noise(self.horizon, (self.scouts, box.size), self.colour, generator, torch.float64)
            drawn = torch.cat([drawn, box.clip(box.middle + 0.5 * box.width * noise)], 1)
        known = self._multipliers()
        scores = problem.scores(drawn, known)
        order = scores.argsort()[: min(self.starts, max(int(scores.isfinite().sum()), 1))]
        found, failure = [], NumericalError("the beliefs explode under every sequence of actions")
        for start in (drawn[:, i] for i in order.tolist()):
            try:
                own = replace(problem, gains=regulator(problem, start, box)) if self.feedback else problem
                found.append(_Way(own, search.solve(own, start, box, known)))
            except NumericalError as error:
                failure = error
        if not found:
            raise failure
        return min(found, key=self._rank), drawn.shape[1] + sum(way.found.evaluations for way in found)

    def _onward(self, problem: BeliefProblem, box: Box, last: BeliefPlan) -> "_Way | None":
        """Search from the last plan, moved on, its last action repeated; None where beliefs explode under it by now."""
        steps = max(self._executed, 1)
        moved = follow(last.actions, last.actions[-1], steps)[steps:]
        known = self._multipliers() if last.multipliers is None else last.multipliers.shifted(steps)
        try:
            if last.gains is not None:
                gains = torch.cat((last.gains[steps:], torch.zeros_like(last.gains[:steps])))
                means = follow(last.beliefs.mean, last.beliefs.mean[-1], steps)[steps:]
                problem = replace(problem, gains=gains)
                moved = problem.kept_to(moved, means, box)
            return _Way(problem, self.search.solve(problem, moved, box, known))
        except NumericalError:
            return None

    def _answer(self, plan: BeliefPlan, t: int, observation: Float[Tensor, "S"]) -> Float[Tensor, "A"]:
        """Return the plan's action at step t, corrected by its gains."""
        if plan.gains is None:
            return plan.actions[t]
        away = apart(observation.double(), plan.beliefs.mean[t], self._angles)
        return self._ready()[0].clip(plan.actions[t] + plan.gains[t] @ away)

    def _rank(self, way: "_Way") -> tuple[float, float]:
        """Return what orders sequences: those that keep the bounds come first."""
        return max(way.found.violation - self.search.slack, 0.0), way.found.value

    def _multipliers(self) -> Multipliers | None:
        return Multipliers.none(len(self.bounds), self.horizon) if self.bounds else None

    def _plan(self, way: "_Way", box: Box, looked: int, began: float) -> BeliefPlan:
        problem, found = way
        self._angles = problem.dynamics.angles
        gains = regulator(problem, found.actions, box) if self.feedback else None
        with torch.no_grad():
            path = problem.beliefs(found.actions)
            mean, std = expected_costs(problem, path)
            # The same normals at every plan, so that pictures of successive plans can be compared.
            always = torch.Generator().manual_seed(0)
            normals = torch.randn(self.draws, path.mean.shape[-1], generator=always, dtype=torch.float64)
            imagined = fan(path, found.actions, self.reward, normals)
        said = ("break a chance constraint: none was found that keeps all bounds",) if found.violation > self.search.slack else ()
        return BeliefPlan(
            found.actions,
            found.value,
            path,
            mean,
            std,
            imagined,
            split_variance(imagined.returns),
            time.perf_counter() - began,
            looked,
            found.multipliers,
            gains,
            said,
        )

    def _ready(self) -> tuple[Box, torch.Generator]:
        if self._box is None or self._generator is None:
            raise NotFittedError("call reset(space) at the start of each episode, before act")
        return self._box, self._generator


class _Way(NamedTuple):
    """What was found, and the problem that it solves."""

    problem: BeliefProblem
    found: Found
