"""Objectives turn returns [n, p, ...] (draws of θ, noise particles) into scores [...]."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError


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
    """Maps returns [n, p, ...] to scores [...], the larger the better."""

    @abstractmethod
    def __call__(self, returns: Float[Tensor, "n p *batch"]) -> Float[Tensor, "*batch"]:
        """Score every candidate."""


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
