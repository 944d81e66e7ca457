"""Chance constraints on Gaussian beliefs: a linear function of the state stays below a limit with a given probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_dynamics import Belief
from bayesdyn.errors import ConfigurationError, ShapeError

_WEIGHT = 10.0


@dataclass(frozen=True)
class ChanceBound:
    r"""P(aᵀs <= b) >= p at each step for itself, s ~ N(μ, Σ):   aᵀμ + Φ⁻¹(p) √(aᵀΣa) <= b,   Φ⁻¹(0.95) = 1.645.

    `weight` is a [S], `limit` b. Two of them make an interval. Raises `ConfigurationError` unless 0.5 <= p < 1: below, the bound is
    not convex in the standard deviation and rewards ignorance.

    Source: Kamthe & Deisenroth, AISTATS 2018, section 2.3 (state constraints).

    >>> below = ChanceBound([1.0], limit=2.0)
    >>> round(below.excess(Belief(torch.zeros(1), torch.eye(1))).item(), 3)
    -0.355
    """

    weight: Sequence[float]
    limit: float
    probability: float = 0.95

    def __post_init__(self) -> None:
        if not 0.5 <= self.probability < 1:
            raise ConfigurationError(f"ChanceBound wants 0.5 <= probability < 1; got {self.probability}")

    def excess(self, belief: Belief) -> Float[Tensor, "*batch"]:
        """Return aᵀμ + Φ⁻¹(p) √(aᵀΣa) - b, at most 0 where the bound holds; raises `ShapeError` for states of another size."""
        weight = torch.as_tensor(self.weight, dtype=belief.mean.dtype)
        if weight.shape != belief.mean.shape[-1:]:
            raise ShapeError(f"a bound of {len(weight)} weights wants states of as many coordinates; got {belief.mean.shape[-1]}")
        var = (belief.cov @ weight) @ weight
        # The root has no gradient at 0, where the state is known.
        uncertain = var > 0
        std = torch.where(uncertain, var, torch.ones_like(var)).sqrt() * uncertain
        return belief.mean @ weight + NormalDist().inv_cdf(self.probability) * std - self.limit


@dataclass(frozen=True)
class Multipliers:
    """The augmented Lagrangian of inequalities g <= 0:   Σ_i [max(0, λ_i + ρ g_i)² - λ_i²] / 2ρ   (Nocedal & Wright 2006, 17.4).

    >>> Multipliers(torch.zeros(1, 1), 2.0).penalty(torch.tensor([[3.0]])).item()
    9.0
    """

    values: Float[Tensor, "K H"]
    weight: float

    @classmethod
    def none(cls, bounds: int, horizon: int) -> "Multipliers":
        """Return those of bounds of which nothing is known, λ = 0 and ρ = 10."""
        return cls(torch.zeros(bounds, horizon, dtype=torch.float64), _WEIGHT)

    def penalty(self, excess: Float[Tensor, "K H *batch"]) -> Float[Tensor, "*batch"]:
        """Return what these excesses cost."""
        values = self.values.reshape(*self.values.shape, *(1,) * (excess.dim() - 2))
        return ((values + self.weight * excess).relu().square() - values.square()).sum((0, 1)) / (2 * self.weight)

    def updated(self, excess: Float[Tensor, "K H"], growth: float) -> "Multipliers":
        """Return λ <- max(0, λ + ρ g), and ρ times `growth`."""
        return Multipliers((self.values + self.weight * excess).relu(), self.weight * growth)

    def shifted(self, steps: int) -> "Multipliers":
        """Return the multipliers `steps` steps later, 0 at the end."""
        rest = self.values[:, steps:]
        return Multipliers(torch.cat([rest, torch.zeros_like(self.values[:, :steps])], 1), self.weight)
