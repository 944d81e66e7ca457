"""The linear policy."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.belief_arrays import ArrayMap
from bayesdyn.beliefs import Moments, check_belief, check_points
from bayesdyn.errors import ShapeError
from bayesdyn.moments import PointMap
from bayesdyn.moments.affine import affine_arrays, as_tensor
from bayesdyn.policies.base import Policy


class LinearPolicy(Policy):
    """The policy u = W x + b with weight W [A, D] and bias b [A], exact for beliefs: mean Wμ + b, cov WΣWᵀ, gain Wᵀ.

    Numbers that do not come as floating-point tensors become float64. Raises `ShapeError` for sizes that do not fit.

    >>> policy = LinearPolicy([[1.0, 2.0]], [0.5])
    >>> policy(torch.ones(2, dtype=torch.float64)).item()
    3.5
    """

    def __init__(self, weight: Tensor | Sequence[Sequence[float]], bias: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.weight, self.bias = parameter(weight), parameter(bias)
        if self.weight.dim() != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ShapeError(
                f"LinearPolicy wants weight [A, D] and bias [A]; got {list(self.weight.shape)} and {list(self.bias.shape)}"
            )

    @classmethod
    def random(cls, inputs: int, actions: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> "LinearPolicy":
        """Return PILCO's start: weights 0.01 times standard normals, biases 0.

        >>> LinearPolicy.random(3, 1, torch.Generator().manual_seed(0)).weight.shape
        torch.Size([1, 3])
        """
        weight = 0.01 * torch.randn(actions, inputs, generator=generator, dtype=torch.float64)
        return cls(weight.to(dtype), torch.zeros(actions, dtype=dtype))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return W x + b; raises `ShapeError` for points of another size."""
        check_points(x, self.weight.shape[1], "a linear policy")
        return nn.functional.linear(x, self.weight, self.bias)

    def prepared(self) -> PointMap:
        """Return the weights and biases of this moment."""
        return LinearMap(self.weight.clone(), self.bias.clone())


class LinearMap(PointMap):
    """u = W x + b."""

    def __init__(self, weight: Float[Tensor, "A D"], bias: Float[Tensor, " A"]) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return W x + b."""
        return nn.functional.linear(x, self.weight, self.bias)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments."""
        check_belief(mean, cov, self.weight.shape[1], "a linear policy")
        return Moments(self(mean), self.weight @ cov @ self.weight.mT, self.weight.mT.expand(*mean.shape, -1))

    def on_arrays(self) -> ArrayMap | None:
        """Return the same on arrays, differentiable in weight and bias."""
        return affine_arrays(self.weight, self.bias)


def parameter(values: Tensor | Sequence[float] | Sequence[Sequence[float]]) -> nn.Parameter:
    """Return a parameter with these values, float64 unless they come as a floating-point tensor.

    >>> parameter([0.1]).dtype
    torch.float64
    """
    return nn.Parameter(as_tensor(values).detach().clone(memory_format=torch.contiguous_format))
