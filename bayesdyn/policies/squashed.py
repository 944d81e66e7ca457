"""A policy whose actions are kept within bounds."""

from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import MomentMap
from bayesdyn.moments import Lift, PointMap, Squash
from bayesdyn.policies.base import Policy


class Squashed(Policy):
    """The policy squash(π(x)), whose actions stay within ± the amplitude of the squash.

    Moments are those of the squash at the moments of π(x), treated as a Gaussian; the gain is the product of the two. Source:
    Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.

    >>> import torch
    >>> from bayesdyn.moments import SquashSat
    >>> from bayesdyn.policies.linear import LinearPolicy
    >>> steep = Squashed(LinearPolicy([[100.0]], [0.0]), SquashSat(10.0))
    >>> bool((steep(torch.randn(1000, 1).double()).abs() <= 10).all())
    True
    """

    def __init__(self, policy: Policy, squash: Squash) -> None:
        super().__init__()
        self.policy, self.squash = policy, squash

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return the squashed actions at points."""
        return self.squash(self.policy(x))

    def prepared(self) -> PointMap:
        """Return the inner policy prepared, then the squash."""
        return self.policy.prepared().joined(self.squash)

    def on_lifted(self, lift: Lift) -> MomentMap:
        """Return the inner policy on the lifted state, then the squash."""
        return self.policy.on_lifted(lift).then(self.squash)
