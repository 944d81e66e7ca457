"""Model-predictive control: at each step sample θ, plan over sampled trajectories, execute the first action."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NotFittedError, ShapeError
from bayesdyn.numerics import private_generator
from bayesdyn.objectives import Expected, Objective, ReturnVariance, split_variance
from bayesdyn.planners import ActionSpace, Evaluate, Plan, Planner, WarmStart
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import Noise, Propagation, SampledDynamics, Trajectory, TSInf, rollout


@runtime_checkable
class Sampler(Protocol):
    """Anything that draws dynamics: a `DynamicsModel` or your own."""

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> SampledDynamics:
        """Draw n dynamics."""


@dataclass(frozen=True)
class Decision:
    """One act of planning: the plan, what it imagines, and how the imagined return's variance splits."""

    plan: Plan
    imagined: Trajectory  # states [T+1, n, p, B, S] under plan.actions
    variance: ReturnVariance  # of the imagined return, [B]


@dataclass
class MPC:
    """Plans with fresh draws θ ~ p(θ|D) at every step and executes the plan's first actions (version 1.5 of the CS285 lecture).

    score(a_1..a_T) = objective(R [n, p]),  R_jk the return of trajectory k under θ_j, noise shared by all candidates

    One set of draws and one set of noise serve a whole plan, so `evaluate` is a pure function while the planner iterates; both are
    redrawn at the next plan. Works for one environment (observation [S]) or a batch planned for at once (observations [B, S]).
    `chunk_rows` bounds the rows n·p·B·c that are rolled out together: rows that fit the cache are faster than all at once.

    >>> import bayesdyn as bd
    >>> class Drift:
    ...     def sample(self, n, generator=None, *, dtype=None):
    ...         return bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    >>> agent = bd.MPC(Drift(), bd.planners.CEM(horizon=3), lambda s, a, s2: -s2[..., 0].square(), draws=1)
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
    objective: Objective = field(default_factory=Expected)
    termination: Termination | None = None
    discount: float = 1.0
    after_done: float = 0.0
    dtype: torch.dtype = torch.float32
    chunk_rows: int = 2000
    decision: Decision | None = field(default=None, init=False, repr=False)
    _warm_start: WarmStart | None = field(default=None, init=False, repr=False)
    _generator: torch.Generator | None = field(default=None, init=False, repr=False)
    _executed: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.draws, self.particles, self.chunk_rows) < 1:
            raise ConfigurationError(
                f"MPC wants draws, particles and chunk_rows >= 1; got {self.draws}, {self.particles}, {self.chunk_rows}"
            )
        if self.after_done and self.termination is None:
            raise ConfigurationError(f"MPC wants a termination with after_done={self.after_done}; nothing ends without one")
        if not 0 < self.discount <= 1:
            raise ConfigurationError(f"MPC wants 0 < discount <= 1; got {self.discount}")

    def reset(self, space: ActionSpace, batch: int = 1, generator: torch.Generator | None = None) -> None:
        """Start an episode: forget the previous plan; `generator` feeds all draws until the next reset (default: seed 0)."""
        self._warm_start = self.planner.start(space.to(self.dtype), batch)
        self._generator = generator or torch.Generator().manual_seed(0)
        self.decision = None
        self._executed = 0

    def act(self, observation: Float[Tensor, "*batch S"], *, replan: bool = True) -> Float[Tensor, "*batch A"]:
        """Return the next action(s), from a new plan or, with `replan=False`, the next ones of the plan at hand.

        A plan at hand that is used up is replaced. Raises `NotFittedError` before `reset`, `ShapeError` for a batch of another
        size.
        """
        if self._warm_start is None:
            raise NotFittedError("call reset(space) at the start of each episode, before act")
        if replan or self.decision is None or self._executed >= self.planner.horizon:
            if self.decision is not None:
                self._warm_start = self.planner.shift(self.decision.plan.warm_start, max(self._executed, 1))
            self.decision = self.decide(observation, self._warm_start, self._generator)
            self._executed = 0
        action = self.decision.plan.actions[self._executed]
        self._executed += 1
        return action.reshape(*observation.shape[:-1], action.shape[-1])

    def decide(self, observation: Float[Tensor, "*batch S"], warm_start: WarmStart, generator: torch.Generator | None) -> Decision:
        """Plan from `observation` with fresh draws, and roll the chosen actions out to show what they were expected to do.

        `generator` moves by one number; without one the system seeds the draws.
        """
        generator = private_generator(generator)
        state = torch.as_tensor(observation).to(self.dtype)
        state = state.reshape(-1, 1, state.shape[-1])
        if state.shape[0] != warm_start.mean.shape[1]:
            raise ShapeError(f"the agent was reset for {warm_start.mean.shape[1]} environments; got {state.shape[0]} observations")
        dynamics = self.model.sample(self.draws, generator, dtype=self.dtype)
        noise = self.propagation.draw_noise(
            self.planner.horizon, dynamics.n, self.particles, state.shape[-1], generator, self.dtype
        )
        with torch.no_grad():
            plan = self.planner.plan(self._evaluator(dynamics, state, noise), warm_start, generator)
            imagined = self._roll(dynamics, state.squeeze(1), plan.actions, noise)
        return Decision(plan, imagined, split_variance(imagined.returns))

    def _evaluator(self, dynamics: SampledDynamics, state: Float[Tensor, "B 1 S"], noise: Noise) -> Evaluate:
        per_candidate = dynamics.n * self.particles * state.shape[0]
        chunk = max(1, self.chunk_rows // per_candidate)

        def evaluate(actions: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
            parts = [self._score(self._roll(dynamics, state, part, noise)) for part in actions.split(chunk, 2)]
            return torch.cat(parts, 1)

        return evaluate

    def _score(self, trajectory: Trajectory) -> Float[Tensor, "B c"]:
        """Score candidates; one with any trajectory that is not finite is dropped by a score of -inf."""
        score = self.objective(trajectory.returns)
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
            discount=self.discount,
            after_done=self.after_done,
        )
