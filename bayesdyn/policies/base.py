"""The seam of every policy: a module that acts on states and on beliefs, and what it is while its parameters stand still."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.moments import Columns, Lift, PointMap


class Policy(nn.Module, MomentMap):
    """A deterministic map u = π(x) of x [D] whose parameters a policy search changes.

    `policy(x)` maps points [..., D] to actions [..., A], `policy.moments(mean, cov)` maps beliefs to `Moments`; both are
    differentiable in the parameters. Nothing depends on train() or eval(), and `state_dict` holds everything that was learned.
    """

    @abstractmethod
    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return the actions at points."""

    @abstractmethod
    def prepared(self) -> PointMap:
        """Return the policy of this moment with its factorisations done, on the graph of the parameters.

        An objective asks once and then steps T times, so that it factorises once and not T times. Later changes of the parameters
        do not reach what was returned.
        """

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of the action, and its gain, for x ~ N(mean, cov)."""
        return self.prepared().moments(mean, cov)

    def on_lifted(self, lift: Lift) -> MomentMap:
        """Return `prepared` as a map of the lifted state [s, sin θ1, cos θ1, ...], of which this policy sees the state s only.

        It is for callers that need the lifted state anyway, such as belief dynamics. Raises `ConfigurationError` for a policy that
        was made for another lift.
        """
        return Columns(range(lift.state_size), lift.size).then(self.prepared())
