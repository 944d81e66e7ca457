"""Objectives turn returns [n, p, ...] (draws of θ, noise particles) into scores [...]."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError, UnknownNameError
from bayesdyn.rollout import Trajectory

Violation = Callable[[Tensor, Tensor], Tensor]
"""g(s, a): state [..., S], action [..., A] -> [...], above 0 where the constraint is violated."""

# Feasible scores lie above -2 of these units, and each violating trajectory takes a candidate 2 units further down.
_UNIT = 1e6


class ReturnVariance(NamedTuple):
    """The return's variance, split by the law of total variance: Var R = Var_θ E[R|θ] + E_θ Var[R|θ]."""

    epistemic: Float[Tensor, "..."]
    aleatoric: Float[Tensor, "..."]

    @property
    def epistemic_std(self) -> Float[Tensor, "..."]:
        """τ = √epistemic, with gradient 0 where τ = 0 (the root's own is infinite there)."""
        unknown = self.epistemic > 0
        return torch.where(unknown, self.epistemic, torch.ones_like(self.epistemic)).sqrt() * unknown

    @property
    def epistemic_share(self) -> Float[Tensor, "..."]:
        """Epistemic / total, 0 where there is no variance at all."""
        total = self.epistemic + self.aleatoric
        return torch.where(total > 0, self.epistemic / total.clamp_min(torch.finfo(total.dtype).tiny), torch.zeros_like(total))


def split_variance(returns: Float[Tensor, "n p *batch"]) -> ReturnVariance:
    """Return the unbiased split τ² = max(0, Var_j R̄_j - w/p), w = E_j Var_k R_jk (j draws, k particles).

    With one particle per draw there is no w: τ² is then an upper bound that holds the noise as well, and w is 0. With one draw τ²
    is 0. The noise must differ between draws.
    """
    n, p = returns.shape[:2]
    zero = torch.zeros_like(returns[0, 0])
    within = returns.var(1, correction=1).mean(0) if p > 1 else zero
    between = returns.mean(1).var(0, correction=1) if n > 1 else zero
    return ReturnVariance((between - within / p).clamp_min(0), within)


class Objective(ABC):
    """Maps returns [n, p, ...] to scores [...], the larger the better; the score of a candidate depends on no other candidate.

    Planners ask for `score` and `feasible`, which see the whole trajectory; an objective of the returns alone leaves both as they
    are here, and its score then contains what the return contains, nothing more.
    """

    @abstractmethod
    def __call__(self, returns: Float[Tensor, "n p *batch"]) -> Float[Tensor, "*batch"]:
        """Score every candidate by its returns."""

    def score(self, trajectory: Trajectory) -> Float[Tensor, "*batch"]:
        """Score every candidate by its trajectories, by default by their returns."""
        return self(trajectory.returns)

    def feasible(self, trajectory: Trajectory) -> Bool[Tensor, "*batch"]:
        """Return which candidates keep the constraints, by default all: there are none."""
        return torch.ones(trajectory.alive.shape[3:], dtype=torch.bool, device=trajectory.alive.device)


@dataclass(frozen=True)
class Expected(Objective):
    """J = E_θ E_traj R, the lecture's objective.

    >>> Expected()(torch.tensor([[1.0, 3.0], [5.0, 7.0]])).item()
    4.0
    """

    def __call__(self, returns: Float[Tensor, "n p *batch"]) -> Float[Tensor, "*batch"]:
        """Return the mean over draws and particles."""
        return returns.mean((0, 1))


@dataclass(frozen=True)
class Pessimistic(Objective):
    """J - κτ, τ the epistemic standard deviation of the return over θ, after averaging over noise.

    >>> Pessimistic(kappa=0.5)(torch.tensor([[0.0], [4.0], [8.0]])).item()
    2.0
    """

    kappa: float = 1.0

    def __call__(self, returns: Float[Tensor, "n p *batch"]) -> Float[Tensor, "*batch"]:
        """Return mean - κ·epistemic std."""
        return returns.mean((0, 1)) - self.kappa * split_variance(returns).epistemic_std


@dataclass(frozen=True)
class Optimistic(Objective):
    """J + κτ: plans towards what is not known yet (an upper confidence bound on the return)."""

    kappa: float = 1.0

    def __call__(self, returns: Float[Tensor, "n p *batch"]) -> Float[Tensor, "*batch"]:
        """Return mean + κ·epistemic std."""
        return returns.mean((0, 1)) + self.kappa * split_variance(returns).epistemic_std


@dataclass(frozen=True)
class CVaR(Objective):
    """The mean of the worst share α of the returns (Rockafellar & Uryasev 2000): max_v v - E(v - R)⁺/α.

    With R_(1) <= R_(2) <= ... of N returns and q = ⌊αN⌋: (Σ_{i<=q} R_(i) + (αN - q) R_(q+1)) / (αN). `over_draws_only` takes the
    n means over noise in the place of all n·p returns: risk from θ alone. A return that is not a number makes the score one, too.

    Raises `ConfigurationError` unless 0 < α <= 1.

    >>> CVaR(alpha=0.5)(torch.tensor([[1.0], [2.0], [3.0], [4.0]])).item()
    1.5
    """

    alpha: float = 0.1
    over_draws_only: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ConfigurationError(f"CVaR wants 0 < alpha <= 1; got {self.alpha}")

    def __call__(self, returns: Float[Tensor, "n p *batch"]) -> Float[Tensor, "*batch"]:
        """Return the mean of the worst share α."""
        pool = returns.mean(1) if self.over_draws_only else returns.flatten(0, 1)
        ordered = pool.sort(0).values
        share = self.alpha * ordered.shape[0]
        whole = min(math.floor(share + 1e-9), ordered.shape[0])
        tail = ordered[:whole].sum(0)
        if whole < ordered.shape[0]:
            tail = tail + max(share - whole, 0.0) * ordered[whole]
        # NaN sorts above all numbers, where the tail would not see it.
        return torch.where(ordered[-1].isnan(), ordered[-1], tail / share)


@dataclass(frozen=True)
class ChanceConstraint(Objective):
    """J = E R among the candidates that violate a constraint in at most a share δ of their trajectories.

    violated_i = max_t g(s_t, a_t) > 0, t < T, while alive;    feasible: (violated ones of the n·p) / (n·p) <= δ

    Feasible candidates come first, by J; then the others, by their number k of violating trajectories, then by J:

        score = J if feasible,    -u·(2 + 2k) + u·asinh(J)/128 otherwise,    u = 10⁶

    A feasible score is J to the last bit down to -u, and below that -2u + u²/|J|: order is kept, differences shrink. An infeasible
    one tells J apart to 3·10⁻⁵ (k + 1) max(1, |J|) in float32 (6·10⁻¹⁴ in float64). J is differentiable, the count is not: a
    planner that follows gradients does not see g. What is no number violates. The final state s_T takes no action, so g skips it.

    Finding no violation certifies δ with 95 % confidence only from ln 0.05 / ln(1 - δ) trajectories on: 29, 59, 299 for
    δ = 0.1, 0.05, 0.01; with fewer `score` warns. δ = 0 wants no violation among those sampled, and certifies nothing.

    Raises `ConfigurationError` unless 0 <= share < 1, and `ShapeError` if the violation is not one number per state.

    >>> import bayesdyn as bd
    >>> drift = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    >>> actions = torch.tensor([[[1.0], [2.0], [3.0]], [[0.0], [0.0], [0.0]]])  # [T = 2, c = 3, A = 1]
    >>> imagined = bd.rollout(drift, torch.zeros(1), actions, lambda s, a, s2: a[..., 0])
    >>> below = ChanceConstraint(lambda s, a: s[..., 0] - 2.5, share=0.0)
    >>> below.score(imagined).argsort(descending=True).tolist(), below.feasible(imagined).tolist()
    ([1, 0, 2], [True, True, False])
    """

    violation: Violation
    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigurationError(f"ChanceConstraint wants 0 <= share < 1; got {self.share}")

    @property
    def rows_wanted(self) -> int:
        """How many trajectories without a violation certify the share with 95 % confidence, 0 for a share of 0."""
        return math.ceil(math.log(0.05) / math.log1p(-self.share)) if self.share > 0 else 0

    def __call__(self, returns: Float[Tensor, "n p *batch"]) -> Float[Tensor, "*batch"]:
        """Return J, the mean over draws and particles, which is all that the returns say."""
        return returns.mean((0, 1))

    def score(self, trajectory: Trajectory) -> Float[Tensor, "*batch"]:
        """Return one number whose order is: feasible ones by J, then the others by violations, then by J."""
        rows = trajectory.alive.shape[1:3].numel()
        if rows < self.rows_wanted:
            warnings.warn(
                f"ChanceConstraint(share={self.share}) is scored on {rows} trajectories per candidate, draws x particles; only "
                f"{self.rows_wanted} or more without a violation certify that share with 95 % confidence: raise draws or particles",
                stacklevel=2,
            )
        mean, count = self(trajectory.returns), self.violations(trajectory)
        low = mean < -_UNIT
        kept = torch.where(low, -2 * _UNIT - _UNIT * (_UNIT / torch.where(low, mean, -_UNIT)), mean)
        infeasible = -_UNIT * (2 + 2 * count) + _UNIT * (mean.asinh() / 128).clamp(-1, 1)
        return torch.where(self._feasible(count, rows), kept, infeasible)

    def feasible(self, trajectory: Trajectory) -> Bool[Tensor, "*batch"]:
        """Return which candidates violate the constraint in at most the share δ of their trajectories."""
        return self._feasible(self.violations(trajectory), trajectory.alive.shape[1:3].numel())

    def violations(self, trajectory: Trajectory) -> Int[Tensor, "*batch"]:
        """Return how many of each candidate's n·p trajectories violate the constraint at any step that counts."""
        violated = torch.zeros_like(trajectory.alive[0])
        for state, action, alive in zip(trajectory.path[:-1], trajectory.actions, trajectory.alive[:-1], strict=True):
            excess = self.violation(state, action.expand(*state.shape[:-1], action.shape[-1]))
            if excess.shape != violated.shape:
                raise ShapeError(
                    f"the violation has to return one number per state, the shape {list(violated.shape)}; got {list(excess.shape)}"
                )
            violated = violated | (alive & ~(excess <= 0))  # a violation that is no number is no reassurance
        return violated.sum((0, 1))

    def _feasible(self, count: Int[Tensor, "*batch"], rows: int) -> Bool[Tensor, "*batch"]:
        return count <= self.share * rows * (1 + 1e-9)  # 0.3 * 10 is 3, not 2.9999999999999996


NAMES: dict[str, Callable[[], Objective]] = {
    "expected": Expected,
    "pessimistic": Pessimistic,
    "optimistic": Optimistic,
    "cvar": CVaR,
}
"""Objectives by name; each call makes one with the defaults of its class."""


def objective_of(choice: Objective | str) -> Objective:
    """Return an objective as it is, or the one of a name in `NAMES`; raises `UnknownNameError` for other names.

    >>> objective_of("optimistic")
    Optimistic(kappa=1.0)
    """
    if isinstance(choice, Objective):
        return choice
    if choice not in NAMES:
        raise UnknownNameError.among("objective", choice, NAMES)
    return NAMES[choice]()
