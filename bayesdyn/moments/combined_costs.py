"""Costs made of costs: sums, averages over widths with a bonus for exploration, and costs of features of a state."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import Moments
from bayesdyn.errors import ConfigurationError
from bayesdyn.moments.costs import Cost
from bayesdyn.moments.points import PointMap

# Below it a variance of a cost that is at most 1 is rounding, and its root has no gradient at 0.
_LEAST_VAR = 1e-12


class Sum(Cost):
    """The cost Σ_i c_i(x) of the same state: means and gains add, and var = Σ_i var_i + 2 Σ_{i<j} gain_iᵀ Σ gain_j.

    The covariance of two costs is that of their linear parts, as in a chain of moment maps. Raises `ConfigurationError` for no
    costs.

    >>> import torch
    >>> from bayesdyn.moments import LinearCost
    >>> twice = Sum([LinearCost([1.0], [0.0])] * 2)
    >>> twice.moments(torch.zeros(1), torch.eye(1)).cov.item()
    4.0
    """

    def __init__(self, costs: Sequence[Cost]) -> None:
        self.costs = _some(costs)

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return the sum at points."""
        return torch.stack([cost(x) for cost in self.costs]).sum(0)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of the sum."""
        parts = [cost.moments(mean, cov) for cost in self.costs]
        gains = torch.cat([part.gain for part in parts], -1)
        linear = gains.mT @ cov @ gains
        crossed = linear.sum((-2, -1)) - linear.diagonal(dim1=-2, dim2=-1).sum(-1)
        return Moments(
            torch.stack([part.mean for part in parts]).sum(0),
            torch.stack([part.cov for part in parts]).sum(0) + crossed[..., None, None],
            gains.sum(-1, keepdim=True),
        )


class Average(Cost):
    """The mean over costs, such as one for each of several widths, of E c_i + exploration · std c_i.

    Variances and gains are averaged too, PILCO's way: the variance is not that of the averaged cost. A negative `exploration`
    draws towards states of uncertain cost, a positive one away from them; it is left out where the variance is at most 1e-12,
    because √var has no gradient at 0. At points nothing is uncertain, and the call returns the plain mean of the costs.

    Raises `ConfigurationError` for no costs. Source: Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.7.

    >>> from bayesdyn.moments import SaturatingCost
    >>> cost = Average([SaturatingCost([0.0], [[1 / width]]) for width in (0.25, 1.0)], exploration=-0.5)
    >>> cost(torch.zeros(1)).item()
    0.0
    """

    def __init__(self, costs: Sequence[Cost], exploration: float = 0.0) -> None:
        self.costs, self.exploration = _some(costs), float(exploration)

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return the mean of the costs at points."""
        return torch.stack([cost(x) for cost in self.costs]).mean(0)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the averages of the moments, with the bonus in the mean."""
        parts = [cost.moments(mean, cov) for cost in self.costs]
        means, covs, gains = (torch.stack(values) for values in zip(*parts, strict=True))
        if self.exploration:
            var = covs[..., 0]
            uncertain = var > _LEAST_VAR
            means = means + self.exploration * torch.where(uncertain, var, 1.0).sqrt() * uncertain
        return Moments(means.mean(0), covs.mean(0), gains.mean(0))


class CostOf(Cost):
    """The cost c(features(x)) of features of a state, such as its lift by sines and cosines.

    >>> from bayesdyn.moments import Lift, SaturatingCost
    >>> upright = SaturatingCost([0.0, 0.0, -1.0], [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> round(CostOf(Lift(1, [0]), upright)(torch.tensor([torch.pi])).item(), 6)
    0.0
    """

    def __init__(self, features: PointMap, cost: Cost) -> None:
        self.features, self.cost = features, cost

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return the cost at points."""
        return self.cost(self.features(x))

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of the cost at the moments of the features."""
        return self.features.then(self.cost).moments(mean, cov)


def _some(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    if not costs:
        raise ConfigurationError("a cost made of costs wants at least one; got none")
    return tuple(costs)
