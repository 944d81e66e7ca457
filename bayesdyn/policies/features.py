"""What a policy sees of a state: chosen columns of the state lifted by the sines and cosines of its angles."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.errors import ConfigurationError
from bayesdyn.moments import Columns, Lift, PointMap
from bayesdyn.policies.base import Policy


class Features(PointMap):
    """The map from a state s [S] to the columns of [s, sin θ1, cos θ1, ...] that a policy sees.

    By default these are all coordinates but the angles, then sine and cosine of each angle: adding a full turn changes nothing.
    Raises `ConfigurationError` for angles or columns that do not exist.

    >>> Features(4, angles=[3]).columns
    (0, 1, 2, 4, 5)
    """

    def __init__(self, state_size: int, angles: Sequence[int] = (), columns: Sequence[int] | None = None) -> None:
        self.lift = Lift(state_size, angles)
        straight = [i for i in range(state_size) if i not in self.lift.angles]
        chosen = [*straight, *range(state_size, self.lift.size)] if columns is None else columns
        self._choice = Columns(chosen, self.lift.size)

    @property
    def columns(self) -> tuple[int, ...]:
        """The columns of the lifted state, in the order in which the policy sees them."""
        return self._choice.columns

    @property
    def lengthscale(self) -> Float[Tensor, " D"]:
        """PILCO's first length-scales of a policy on these features: 1 for coordinates of the state, 0.7 for sines and cosines."""
        return torch.tensor([1.0 if c < self.lift.state_size else 0.7 for c in self.columns], dtype=torch.float64)

    def __call__(self, x: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch D"]:
        """Return the features of states."""
        return self._choice(self.lift(x))

    def moments(self, mean: Float[Tensor, "*batch S"], cov: Float[Tensor, "*batch S S"]) -> Moments:
        """Return the exact moments of the features."""
        return self.lift.then(self._choice).moments(mean, cov)

    def of_lifted(self, lift: Lift) -> MomentMap:
        """Return the choice of columns from a lifted state; raises `ConfigurationError` if that is lifted by other angles."""
        if lift != self.lift:
            raise ConfigurationError(
                f"the policy sees a state of {self.lift.state_size} with angles {self.lift.angles}; "
                f"the dynamics have {lift.state_size} with angles {lift.angles}"
            )
        return self._choice


class OnFeatures(Policy):
    """The policy π(features(s)) of a state s [S], for a policy π of `Features(state_size, angles, columns)`.

    >>> from bayesdyn.policies.linear import LinearPolicy
    >>> policy = OnFeatures(LinearPolicy(torch.ones(1, 3), torch.zeros(1)), state_size=2, angles=[1])
    >>> policy(torch.tensor([[1.0, 0.0], [1.0, 2 * torch.pi]])).flatten().round(decimals=5).tolist()
    [2.0, 2.0]
    """

    def __init__(self, policy: Policy, state_size: int, angles: Sequence[int] = (), columns: Sequence[int] | None = None) -> None:
        super().__init__()
        self.policy, self.features = policy, Features(state_size, angles, columns)

    def forward(self, x: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch A"]:
        """Return the actions at states."""
        return self.policy(self.features(x))

    def prepared(self) -> PointMap:
        """Return the features, then the inner policy prepared."""
        return self.features.joined(self.policy.prepared())

    def on_lifted(self, lift: Lift) -> MomentMap:
        """Return the columns of the lifted state that the policy sees, then the inner policy prepared."""
        return self.features.of_lifted(lift).then(self.policy.prepared())
