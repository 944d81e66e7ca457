"""A metric of its own for every chain, for targets with modes that chains do not leave."""

from jaxtyping import Float
from torch import Tensor

from bayesdyn.inference.chain_adaptation import Metric

_PRIOR_DRAWS, _SMALLEST = 5.0, 1e-3  # Stan's shrinkage of a variance that was estimated from few draws


class ChainwiseMetric(Metric):
    """Standard deviations [C, P] of each chain's own draws.

    A network's hidden units can be permuted, so each chain is in a mode of its own; over all chains a weight would vary as much as
    under the prior, whatever the data say. Variances are shrunk to 0.001 with the weight of five draws.

    >>> import torch
    >>> metric = ChainwiseMetric(torch.ones(2, 1)).adapted(torch.tensor([[0.0], [9.0], [2.0], [9.0]]))
    >>> metric.std
    tensor([[0.7564],
            [0.0267]])
    """

    def __init__(self, std: Float[Tensor, "C P"]) -> None:
        self.std = std

    def unwhiten(self, u: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return z = σ u."""
        return u * self.std

    def whiten(self, z: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return u = z / σ."""
        return z / self.std

    def adapted(self, seen: Float[Tensor, "draws P"]) -> "ChainwiseMetric":
        """Return the metric of the draws seen, [draw, chain] in this order; one draw per chain changes nothing."""
        own = seen.unflatten(0, (-1, len(self.std)))
        if len(own) < 2:
            return self
        share = len(own) / (len(own) + _PRIOR_DRAWS)
        return ChainwiseMetric((share * own.var(0) + (1 - share) * _SMALLEST).sqrt())
