"""Model-predictive control: at each step sample θ, plan over sampled trajectories, execute the first action."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.agents import Agent
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.numerics import private_generator
from bayesdyn.objectives import Expected, Objective, ReturnVariance, objective_of, split_variance
from bayesdyn.planners import ActionSpace, Budget, Evaluate, Pace, Plan, Planner, WarmStart
from bayesdyn.planners.budget import SHARE
from bayesdyn.planners.spaces import check_space
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import Noise, Propagation, SampledDynamics, Sampler, TerminalValue, Trajectory, TSInf, rollout


@dataclass(frozen=True)
class Decision:
    """One act of planning: the plan, what it imagines, and how the imagined return's variance splits.

    feasible   whether the plan meets what the objective demands of it (`ChanceConstraint`), [B]
    seconds    wall clock of all of it, draws and imagined trajectories included; `late` says whether it exceeded the latency
    draws      how many draws of θ it took (fewer than asked for where the latency leaves no time for all)
    warnings   what a person should know about this plan
    """

    plan: Plan
    imagined: Trajectory  # states [T+1, n, p, B, S] under plan.actions
    variance: ReturnVariance  # of the imagined return, [B]
    feasible: Bool[Tensor, "B"]
    seconds: float = 0.0
    late: bool = False
    draws: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Candidates whose return was not finite."""
        return self.plan.dropped

    @property
    def candidates(self) -> int:
        """Candidates that were scored."""
        return self.plan.candidates


@dataclass
class MPC(Agent):
    """Plans with fresh draws θ ~ p(θ|D) at every step and executes the plan's first actions (version 1.5 of the CS285 lecture).

    score(a_1..a_T) = objective(R [n, p]),  R_jk the return of trajectory k under θ_j, noise shared by all candidates

    One set of draws and one set of noise serve a whole plan, so `evaluate` is a pure function while the planner iterates; both are
    redrawn at the next plan. Works for one environment (observation [S]) or a batch planned for at once (observations [B, S]).
    `chunk_rows` bounds the rows n·p·B·c that are rolled out together: rows that fit the cache are faster than all at once.
    `objective` is one of `bayesdyn.objectives` or its name ("expected", "pessimistic", "optimistic", "cvar"), with its defaults.
    `terminal_value` (final state, alive) is added at the horizon. `precision` is what networks compute in where it is not `dtype`:
    torch.bfloat16 on a processor that has it. The tensors of a plan lie on `device`, where the model has to be, too.

    `latency` is the wall clock that one decision may take, in milliseconds: the planner tries fewer candidates, then fewer
    iterations, and later decisions take fewer draws, so that the answer is there in time; draws come back first. Such plans depend
    on the machine's speed. Call `warm_up` once before the clock matters: the first plans in a process are slow.

    >>> import bayesdyn as bd
    >>> drift = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    >>> agent = bd.MPC(drift, bd.planners.CEM(horizon=3), lambda s, a, s2: -s2[..., 0].square(), draws=1)
    >>> agent.reset(bd.planners.Box.of([-1.0], [1.0]))
    >>> bool(agent.act(torch.tensor([5.0])) < -0.9)
    True
    """

    model: Sampler
    planner: Planner
    reward: Reward
    draws: int = 10
    particles: int = 1
    propagation: Propagation = field(default_factory=TSInf)
    objective: Objective | str = field(default_factory=Expected)
    termination: Termination | None = None
    discount: float = 1.0
    after_done: float = 0.0
    terminal_value: TerminalValue | None = None
    latency: float | None = None
    dtype: torch.dtype = torch.float32
    precision: torch.dtype | None = None
    device: torch.device | str = "cpu"
    chunk_rows: int = 8000
    decision: Decision | None = field(default=None, init=False, repr=False)
    _warm_start: WarmStart | None = field(default=None, init=False, repr=False)
    _generator: torch.Generator | None = field(default=None, init=False, repr=False)
    _executed: int = field(default=0, init=False, repr=False)
    _clock: "_Clock" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.objective = objective_of(self.objective)
        if min(self.draws, self.particles, self.chunk_rows) < 1:
            raise ConfigurationError(
                f"MPC wants draws, particles and chunk_rows >= 1; got {self.draws}, {self.particles}, {self.chunk_rows}"
            )
        if self.after_done and self.termination is None:
            raise ConfigurationError(f"MPC wants a termination with after_done={self.after_done}; nothing ends without one")
        if not 0 < self.discount <= 1:
            raise ConfigurationError(f"MPC wants 0 < discount <= 1; got {self.discount}")
        if self.latency is not None and not self.latency > 0:
            raise ConfigurationError(f"MPC wants a latency of more than 0 milliseconds, or None; got {self.latency}")
        self._clock = _Clock(self.draws, self.latency)

    def reset(self, space: ActionSpace, batch: int = 1, generator: torch.Generator | None = None) -> None:
        """Start an episode: forget the previous plan; `generator` feeds all draws until the next reset (default: seed 0).

        What is known of the speed stays, and with it the draws that the latency allows.
        """
        self._warm_start = self.planner.start(check_space(space).to(self.dtype, self.device), batch)
        self._generator = generator or torch.Generator().manual_seed(0)
        self.decision = None
        self._executed = 0

    def warm_up(self, observation: Float[Tensor, "*batch S"], plans: int = 3) -> None:
        """Plan a few times for nothing, so that the plans that count find a warm process and a known pace.

        What the first of them says about the speed is forgotten if there are more. Raises `NotFittedError` before `reset`.
        """
        for i in range(plans):
            if i == 1:
                self._clock = _Clock(self.draws, self.latency)
            self.decide(observation, self._start(), torch.Generator().manual_seed(0))

    def act(self, observation: Float[Tensor, "*batch S"], *, replan: bool = True) -> Float[Tensor, "*batch A"]:
        """Return the next action(s), from a new plan or, with `replan=False`, the next ones of the plan at hand.

        A plan at hand that is used up is replaced. Raises `NotFittedError` before `reset`, `ShapeError` for a batch of another
        size.
        """
        warm_start = self._start()
        if replan or self.decision is None or self._executed >= self.planner.horizon:
            if self.decision is not None:
                warm_start = self.planner.shift(self.decision.plan.warm_start, max(self._executed, 1))
            self.decision = self.decide(observation, warm_start, self._generator)
            self._executed = 0
        action = self.decision.plan.actions[self._executed]
        self._executed += 1
        return action.reshape(*observation.shape[:-1], action.shape[-1])

    def decide(self, observation: Float[Tensor, "*batch S"], warm_start: WarmStart, generator: torch.Generator | None) -> Decision:
        """Plan from `observation` with fresh draws, and roll the chosen actions out to show what they were expected to do.

        `generator` moves by one number; without one the system seeds the draws. Raises `ShapeError` for a warm start of another
        batch or horizon, `DataError` for an observation that is not finite.
        """
        began = time.perf_counter()
        generator = private_generator(generator)
        state = self._state(observation, warm_start)
        self._clock.fewest = -(-self.propagation.fewest(state.shape[-1]) // self.particles)
        dynamics = self._sample(generator)
        noise = self.propagation.draw_noise(
            self.planner.horizon, dynamics.n, self.particles, state.shape[-1], generator, self.dtype
        )
        with torch.no_grad():
            budget = self._clock.budget(began, dynamics.n * self.particles * state.shape[0])
            plan = self.planner.plan(self._evaluator(dynamics, state, noise), warm_start, generator, budget)
            planned = time.perf_counter()
            imagined = self._roll(dynamics, state.squeeze(1), plan.actions, noise)
        variance, feasible = split_variance(imagined.returns), objective_of(self.objective).feasible(imagined)
        said = self._warnings(plan, imagined, feasible)
        seconds = time.perf_counter() - began
        late = self._clock.stop(budget, seconds, began + seconds - planned)
        return Decision(plan, imagined, variance, feasible, seconds, late, dynamics.n, said)

    def _start(self) -> WarmStart:
        if self._warm_start is None:
            raise NotFittedError("call reset(space) at the start of each episode, before act")
        return self._warm_start

    def _state(self, observation: Float[Tensor, "*batch S"], warm_start: WarmStart) -> Float[Tensor, "B 1 S"]:
        state = torch.as_tensor(observation).to(self.device, self.dtype)
        state = state.reshape(-1, 1, state.shape[-1])
        horizon, batch, _ = warm_start.mean.shape
        if state.shape[0] != batch:
            raise ShapeError(f"the agent was reset for {batch} environments; got {state.shape[0]} observations")
        if horizon != self.planner.horizon:
            raise ShapeError(
                f"the planner looks {self.planner.horizon} steps ahead; got a warm start of {horizon}: make it by planner.start"
            )
        broken = (~state.isfinite()).any(0).flatten().nonzero().flatten().tolist()
        if broken:
            raise DataError(
                f"MPC wants finite observations; got NaN or infinity at coordinates {broken}: look at the sensor or the environment"
            )
        return state

    def _sample(self, generator: torch.Generator) -> SampledDynamics:
        options: dict[str, Any] = {} if self.precision is None else {"precision": self.precision}
        return self.model.sample(self._clock.draws, generator, dtype=self.dtype, **options)

    def _warnings(self, plan: Plan, imagined: Trajectory, feasible: Bool[Tensor, "B"]) -> tuple[str, ...]:
        said = []
        if bool(plan.failed.any()):
            said.append("failed: the model or the reward answered every candidate with NaN or infinity")
        if not bool(feasible.all()):
            said.append("infeasible: no candidate was found that meets the objective's constraint")
        if self.termination is not None and self.after_done == 0 and _seeks_the_end(imagined):
            said.append(
                "made to end the episode, since every step alive costs and nothing is lost after the end; "
                "a negative after_done keeps the agent alive"
            )
        return tuple(said)

    def _evaluator(self, dynamics: SampledDynamics, state: Float[Tensor, "B 1 S"], noise: Noise) -> Evaluate:
        per_candidate = dynamics.n * self.particles * state.shape[0]
        chunk = max(1, self.chunk_rows // per_candidate)

        def evaluate(actions: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
            parts = [self._score(self._roll(dynamics, state, part, noise)) for part in actions.split(chunk, 2)]
            return torch.cat(parts, 1)

        return evaluate

    def _score(self, trajectory: Trajectory) -> Float[Tensor, "B c"]:
        """Score candidates; one with any trajectory that is not finite is dropped by a score of -inf."""
        score = objective_of(self.objective).score(trajectory)
        usable = trajectory.finite.all(1).all(0)
        return torch.where(usable, score, torch.full_like(score, -torch.inf))

    def _roll(self, dynamics: SampledDynamics, state: Tensor, actions: Tensor, noise: Noise) -> Trajectory:
        return rollout(
            dynamics,
            state,
            actions,
            self.reward,
            particles=self.particles,
            propagation=self.propagation,
            noise=noise,
            termination=self.termination,
            terminal_value=self.terminal_value,
            discount=self.discount,
            after_done=self.after_done,
        )


def _seeks_the_end(imagined: Trajectory) -> bool:
    """Whether most trajectories of a plan end, and all steps before that cost something."""
    lived = imagined.rewards.masked_select(imagined.alive[:-1])
    ended = (~imagined.alive[-1]).double().mean((0, 1))
    return bool((ended > 0.5).any()) and bool((lived < 0).all())


# Twice the draws that are predicted to take this share of the time are taken back: below the share at which they are halved.
_EASILY = 0.75


class _Clock:
    """What an agent knows about its speed: the planner's pace, that of what comes after the plan, and the draws it can afford."""

    def __init__(self, draws: int, latency: float | None) -> None:
        self.wanted = self.draws = draws
        self.fewest = 1
        self.seconds = None if latency is None else latency / 1000
        # The planner's pace counts trajectories, so that it stays true when the draws change. What follows is one candidate's work,
        # too few rows for their number to matter.
        self.pace, self.tail = Pace(), Pace()

    def budget(self, began: float, rows: int) -> Budget | None:
        """Return what the planner may take of a decision that began then: the rest, less what comes after the plan."""
        if self.seconds is None:
            return None
        # The planner keeps a margin of what it gets; so it is one of the whole latency.
        left = self.seconds - (time.perf_counter() - began + self.tail.predict(1)) / SHARE
        return Budget(max(left, 1e-3), self.pace, time.perf_counter, rows)

    def stop(self, budget: Budget | None, seconds: float, tail: float) -> bool:
        """Learn from a finished decision; return whether it was late.

        Draws are halved where candidates are at their floor and, held-up calls apart, one iteration of these does not fit; they are
        doubled again, before candidates grow, where there are many or an iteration at twice the draws fits easily.
        """
        if budget is None or self.seconds is None:
            return False
        self.tail.note(1, tail)
        if budget.at_floor and not budget.affords_floor(budget.rows):
            self.draws = max(self.fewest, self.draws // 2)
        elif budget.above_floor or budget.affords_floor(2 * budget.rows, _EASILY):
            self.draws = min(self.wanted, 2 * self.draws)
        return seconds > self.seconds
