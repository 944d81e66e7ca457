"""Plans made with a learned model are carried out in the true dynamics: predicted against realised returns, and the regret.

Plans are made from many start states and run without replanning. Returns [B, C] are of C plans from each of B starts: plan
0 is the planner's choice, then come random plans, then the planner's best candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.evaluation.decided import Anchor, Decided, arrays_of, rows_of
from bayesdyn.evaluation.recording import Recording
from bayesdyn.evaluation.seeds import seeded
from bayesdyn.evaluation.table import Row
from bayesdyn.mpc import MPC
from bayesdyn.objectives import Expected, Objective
from bayesdyn.planners import ActionSpace, Planner
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import Propagation, SampledDynamics, Sampler, TSInf, rollout

_RANDOM, _WORLD, _PLAN, _DRAWS, _PREDICT, _NULL = range(6)


@dataclass(frozen=True, eq=False)
class DecisionTask:
    """Where and how plans are made and tried; all models meet the same starts, random plans, and noise of the true dynamics.

    truth         the true dynamics: plans are carried out in one draw of them, and the same planner plans with them for the regret,
                  with the same random candidates
    starts        states [B, S] that plans start from, 50 or more for a figure to be quoted
    objectives, propagations   every pair of them makes plans; predictions are of the same propagation
    draws, particles           trajectories per candidate while planning
    predictions   fresh draws of θ, one path each, by which a finished plan's return is predicted: not those it was chosen by
    plans         random plans and best candidates together, half of each, that predicted and realised returns are ranked over
    replicates    simulated truths for the null bands, drawn from the model (0: none)

    Raises `ConfigurationError` for numbers without a meaning, `ShapeError` for starts that are not [B, S].

    >>> from bayesdyn import Gaussian, PlainDynamics, planners
    >>> drift = PlainDynamics(lambda s, a: Gaussian(s + a, torch.full_like(s, 0.01)))
    >>> box, search = planners.Box.of([-1.0], [1.0]), planners.RandomShooting(horizon=2, candidates=20)
    >>> task = DecisionTask(drift, lambda s, a, s2: -s2[..., 0].square(), box, torch.randn(5, 1), search, replicates=0)
    >>> rows = decision_rows(drift, task, decision_anchor(task, 0), Row("truth", "drift", "none", 0, "", ""))
    >>> [row.value for row in rows if row.metric == "regret"]
    [0.0]
    """

    truth: Sampler
    reward: Reward
    space: ActionSpace
    starts: Tensor
    planner: Planner
    objectives: Mapping[str, Objective] = field(default_factory=lambda: {"Expected": Expected()})
    propagations: Mapping[str, Propagation] = field(default_factory=lambda: {"TSInf": TSInf()})
    termination: Termination | None = None
    discount: float = 1.0
    after_done: float = 0.0
    draws: int = 10
    particles: int = 1
    predictions: int = 100
    plans: int = 64
    replicates: int = 100
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not isinstance(self.truth, Sampler):
            raise ConfigurationError(
                f"decisions want true dynamics that can be sampled; got a {type(self.truth).__name__}: known_dynamics(step) makes "
                "them of a callable (state, action) -> next state, PlainDynamics of one that returns a Gaussian"
            )
        if self.starts.dim() != 2 or len(self.starts) < 2:
            raise ShapeError(f"decisions want two or more starts [B, S]; got {list(self.starts.shape)}")
        if min(self.draws, self.particles) < 1 or self.predictions < 2 or self.plans < 4 or self.replicates < 0:
            raise ConfigurationError(
                "decisions want draws, particles >= 1, predictions >= 2, plans >= 4 and replicates >= 0; got "
                f"{self.draws}, {self.particles}, {self.predictions}, {self.plans}, {self.replicates}"
            )

    @property
    def random(self) -> int:
        """How many of the plans are random."""
        return self.plans // 2

    def agent(self, model: Sampler, planner: Planner, objective: Objective, propagation: Propagation) -> MPC:
        """Return what plans with a model."""
        return MPC(
            model,
            planner,
            self.reward,
            draws=self.draws,
            particles=self.particles,
            propagation=propagation,
            objective=objective,
            termination=self.termination,
            discount=self.discount,
            after_done=self.after_done,
            dtype=self.dtype,
        )

    def returns(
        self,
        dynamics: SampledDynamics,
        actions: Float[Tensor, "T B C A"],
        propagation: Propagation,
        dtype: torch.dtype,
        *seed: int,
    ) -> Float[Tensor, "n p B C"]:
        """Return what plans earn, float64; each start has noise of its own, which its plans share."""
        earned = []
        for b, start in enumerate(self.starts.to(dtype)):
            trajectory = rollout(
                dynamics,
                start.unsqueeze(0),
                actions[:, b].to(dtype),
                self.reward,
                propagation=propagation,
                generator=seeded(*seed, b),
                termination=self.termination,
                discount=self.discount,
                after_done=self.after_done,
            )
            earned.append(trajectory.returns.double())
        return torch.stack(earned, 2)

    def realise(self, actions: Float[Tensor, "T B C A"], seed: int) -> Float[Tensor, "B C"]:
        """Return what plans earn in the true dynamics, with the noise of this seed."""
        truth = self.truth.sample(1, seeded(seed, _WORLD), dtype=torch.float64)
        return self.returns(truth, actions, TSInf(), torch.float64, seed, _WORLD)[0, 0]


def decision_anchor(task: DecisionTask, seed: int) -> Anchor:
    """Draw the random plans of a seed, plan with the true dynamics for the expected return, and carry both out."""
    shape = (task.planner.horizon, len(task.starts), task.random)
    random = task.space.to(task.dtype).uniform(shape, seeded(seed, _RANDOM))
    best = _plan(task.truth, task, Expected(), TSInf(), seed)
    realised = task.realise(torch.cat([best.actions, random], 2), seed)
    return Anchor(random, realised[:, 1:], realised[:, 0])


def decide(model: Sampler, task: DecisionTask, objective: Objective, propagation: Propagation, fixed: Anchor, seed: int) -> Decided:
    """Plan with a model from every start, carry the plans out, and predict the same plans' returns on fresh draws."""
    chosen = _plan(model, task, objective, propagation, seed)
    actions = torch.cat([chosen.actions, fixed.random, chosen.elites], 2)
    found = task.realise(actions[:, :, [0, *range(1 + task.random, actions.shape[2])]], seed)
    realised = torch.cat([found[:, :1], fixed.random_returns, found[:, 1:]], 1)
    with torch.no_grad():
        fresh = model.sample(task.predictions, seeded(seed, _PREDICT), dtype=task.dtype)
        predicted = task.returns(fresh, actions, propagation, task.dtype, seed, _PREDICT)
        simulated = torch.empty(0, *realised.shape, dtype=torch.float64)
        if task.replicates:
            truths = model.sample(task.replicates, seeded(seed, _NULL), dtype=task.dtype)
            simulated = task.returns(truths, actions, TSInf(), task.dtype, seed, _NULL)[:, 0]
    return Decided(actions, predicted, realised, chosen.imagined, simulated)


def decision_rows(model: Sampler, task: DecisionTask, fixed: Anchor, row: Row) -> list[Row]:
    """Return the rows of one model for every objective and propagation; `row` says posterior, data, seed and split.

    In units of `Anchor.scale`, averaged over starts, with `_se` for the standard error over starts:

    * `exploitation_gap`, `random_gap`, `optimiser_share`: see `decision_scores`;
    * `regret`, the realised return of the same planner on the true dynamics less this one's;
    * `sampling_optimism`, what the planner saw less what fresh draws predict: due to few draws, not to a wrong model.

    Without a unit: `plan_spearman`, the mean over starts; `return_mace` and `return_coverage90` of the PIT of the chosen plans;
    `predicted_return` and `realised_return`, as they are; `decision_failures`, the share of starts at which a return was not
    finite, which all others leave out.

    Null bands are those of truths drawn from the model: one θ each, the same plans, noise of each start's own.
    """
    return decisions(model, task, fixed, row)[0]


def decisions(model: Sampler, task: DecisionTask, fixed: Anchor, row: Row) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Return the rows of `decision_rows`, and the arrays of `arrays_of` under `objective/propagation/name`."""
    rows: list[Row] = []
    arrays: dict[str, np.ndarray] = {}
    for objective_name, objective in task.objectives.items():
        for name, propagation in task.propagations.items():
            decided = decide(model, task, objective, propagation, fixed, row.seed)
            base = replace(row, horizon=task.planner.horizon, propagation=name, objective=objective_name)
            rows += rows_of(decided, fixed, task.random, base)
            arrays |= {f"{objective_name}/{name}/{key}": values for key, values in arrays_of(decided, fixed, row.seed).items()}
    return rows, arrays


class _Chosen(NamedTuple):
    """Plans from all starts, the planner's best candidates, and the mean returns that it saw for its plans."""

    actions: Float[Tensor, "T B 1 A"]
    elites: Float[Tensor, "T B k A"]
    imagined: Float[Tensor, "B"]


@dataclass(frozen=True, eq=False)
class _Seeded:
    """A model whose draws have a seed of their own, so that the planner's random numbers are the same for every model."""

    model: Sampler
    seed: tuple[int, ...]

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> SampledDynamics:
        return self.model.sample(n, seeded(*self.seed), dtype=dtype)


def _plan(model: Sampler, task: DecisionTask, objective: Objective, propagation: Propagation, seed: int) -> _Chosen:
    """Plan from each start by itself, with random numbers of its own: what chance there is in planning is then in no two alike."""
    recording = Recording(task.planner, task.plans - task.random)
    fresh = recording.start(task.space.to(task.dtype))
    actions, elites, imagined = [], [], []
    for b, start in enumerate(task.starts):
        agent = task.agent(_Seeded(model, (seed, _DRAWS, b)), recording, objective, propagation)
        decision = agent.decide(start.unsqueeze(0), fresh, seeded(seed, _PLAN, b))
        actions.append(decision.plan.actions)
        elites.append(recording.elites)
        imagined.append(decision.imagined.returns.mean().double())
    fewest = min(each.shape[2] for each in elites)
    best = torch.cat([each[:, :, :fewest] for each in elites], 1)
    return _Chosen(torch.cat(actions, 1).unsqueeze(2), best, torch.stack(imagined))
