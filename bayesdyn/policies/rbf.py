"""The policy of radial basis functions: the mean of a Gaussian process through centres and targets that are free parameters."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap
from bayesdyn.beliefs import Moments, check_belief, check_points
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.gaussian_processes.moment_rbf import rbf_arrays, rbf_moments, rbf_weights
from bayesdyn.moments import PointMap
from bayesdyn.policies.base import Policy
from bayesdyn.policies.linear import parameter

NOISE_STD = 0.01


class RBFPolicy(Policy):
    r"""The mean of a Gaussian process per action, with centres c [nc, D], targets [nc, A] and length-scales ℓ [A, D]:

        u_a(x) = Σ_i β_ai exp(-½ Σ_d (x - c_i)_d²/ℓ_ad²),   β_a = (K_a + σn²I)⁻¹ targets_a,   K_a = k_a(c, c)

    with signal std 1 and noise std σn = 0.01. The free parameters are `centres`, `targets` and `log_lengthscale`. Moments are
    exact; 1e-6 is added to the variance of the action. Raises `ShapeError` for sizes that do not fit, `ConfigurationError` for
    length-scales that are not positive; using it raises `NumericalError` where the parameters have run off.

    Source: Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.5.2.

    >>> policy = RBFPolicy(centres=[[0.0]], targets=[[1.0001]], lengthscale=[[1.0]])
    >>> round(policy(torch.zeros(1, dtype=torch.float64)).item(), 12)
    1.0
    """

    def __init__(
        self,
        centres: Tensor | Sequence[Sequence[float]],
        targets: Tensor | Sequence[Sequence[float]],
        lengthscale: Tensor | Sequence[Sequence[float]],
    ) -> None:
        super().__init__()
        self.centres, self.targets, given = parameter(centres), parameter(targets), parameter(lengthscale)
        shapes = [list(t.shape) for t in (self.centres, self.targets, given)]
        if [len(s) for s in shapes] != [2, 2, 2] or shapes[1][0] != shapes[0][0] or shapes[2] != [shapes[1][1], shapes[0][1]]:
            raise ShapeError(f"RBFPolicy wants centres [nc, D], targets [nc, A], lengthscale [A, D]; got {shapes}")
        if not bool((given > 0).all()):
            raise ConfigurationError(f"length-scales are positive; got {given.tolist()}")
        self.log_lengthscale = parameter(given.detach().log())

    @classmethod
    def random(
        cls,
        count: int,
        actions: int,
        mean: Float[Tensor, " D"],
        cov: Float[Tensor, "D D"],
        generator: torch.Generator,
        lengthscale: Tensor | Sequence[float] | float = 1.0,
    ) -> "RBFPolicy":
        """Return PILCO's start: `count` centres from N(mean, cov), the belief over what the policy sees at the start of a trial.

        Targets are 0.1 times standard normals; `lengthscale` is one number or one for each input (PILCO: 1 for linear inputs, 0.7
        for sines and cosines, which is `Features.lengthscale`).

        Raises `ConfigurationError` for a count below 1, `ShapeError` for sizes that do not fit.

        >>> start = torch.zeros(5), 0.01 * torch.eye(5)
        >>> policy = RBFPolicy.random(50, 1, *start, torch.Generator().manual_seed(0))
        >>> sum(p.numel() for p in policy.parameters())
        305
        """
        size, dtype = len(mean), mean.dtype
        check_belief(mean, cov, size, "a random policy")
        if count < 1:
            raise ConfigurationError(f"a policy of radial basis functions wants one or more of them; got {count}")
        normals = torch.randn(count, size, generator=generator, dtype=torch.float64)
        # The square root by eigenvalues: a start without spread in some coordinate has no Cholesky factor.
        values, vectors = torch.linalg.eigh(cov.detach().double())
        centres = mean.detach().double() + normals @ (vectors * values.clamp_min(0).sqrt()).mT
        return cls.around(centres.to(dtype), actions, generator, lengthscale)

    @classmethod
    def around(
        cls,
        centres: Float[Tensor, "nc D"],
        actions: int,
        generator: torch.Generator,
        lengthscale: Tensor | Sequence[float] | float = 1.0,
    ) -> "RBFPolicy":
        """Return a start with given centres: targets are 0.1 times standard normals, `lengthscale` as in `random`.

        Raises `ShapeError` for sizes that do not fit.

        >>> RBFPolicy.around(torch.zeros(4, 3), 2, torch.Generator().manual_seed(0)).targets.shape
        torch.Size([4, 2])
        """
        if centres.dim() != 2 or not len(centres):
            raise ShapeError(f"a policy of radial basis functions wants centres [nc, D], nc >= 1; got {list(centres.shape)}")
        size, dtype = centres.shape[-1], centres.dtype
        scales = torch.as_tensor(lengthscale, dtype=dtype)
        if scales.shape not in ((), (1,), (size,)):
            raise ShapeError(f"lengthscale is one number or one for each of {size} inputs; got {list(scales.shape)}")
        targets = 0.1 * torch.randn(len(centres), actions, generator=generator, dtype=torch.float64)
        return cls(centres, targets.to(dtype), scales.expand(actions, size))

    @property
    def lengthscale(self) -> Float[Tensor, "A D"]:
        """The length-scales ℓ, in the units of the inputs."""
        return self.log_lengthscale.exp()

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return the actions at points; many calls with the same parameters are cheaper through `prepared`.

        Raises `ShapeError` for points of another size.
        """
        check_points(x, self.centres.shape[1], "a policy of radial basis functions")
        return self.prepared()(x)

    def prepared(self) -> PointMap:
        """Return the policy with its weights β solved for: one Cholesky factorisation per action."""
        lengthscale = self.lengthscale
        return RBFMap(self.centres.clone(), rbf_weights(self.centres, self.targets, lengthscale, NOISE_STD), lengthscale)


class RBFMap(PointMap):
    """u_a(x) = Σ_i β_ai exp(-½ Σ_d (x - c_i)_d²/ℓ_ad²) with centres [nc, D], weights β [A, nc] and length-scales [A, D]."""

    def __init__(self, centres: Float[Tensor, "nc D"], weights: Float[Tensor, "A nc"], lengthscale: Float[Tensor, "A D"]) -> None:
        self.centres, self.weights, self.lengthscale = centres, weights, lengthscale

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return the weighted sums of the basis functions."""
        middle = self.centres.mean(0)
        points = (x - middle).unsqueeze(-2) / self.lengthscale  # [..., A, D]
        centres = (self.centres - middle) / self.lengthscale.unsqueeze(-2)  # [A, nc, D]
        along = torch.einsum("...ad,and->...an", points, centres)
        apart = 0.5 * (points.square().sum(-1, keepdim=True) + centres.square().sum(-1)) - along
        return (self.weights * (-apart.clamp_min(0)).exp()).sum(-1)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments, 1e-6 added to the variances."""
        return rbf_moments(mean, cov, self.centres, self.weights, self.lengthscale)

    def on_arrays(self) -> ArrayMap | None:
        """Return the same on arrays, differentiable in centres, weights and length-scales."""
        return rbf_arrays(self.centres, self.weights, self.lengthscale)
