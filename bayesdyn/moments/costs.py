"""Costs of a Gaussian state with exact mean, variance and gain; the reward of a state is minus its cost."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import MomentMap, Moments, check_belief, check_points, symmetric
from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.moments.affine import as_tensor

# expm1 of more overflows float64; exp(2l) expm1(κ) is at most 1, so that a larger κ comes with an exp(2l) that is 0.
_LARGEST_EXPONENT = {torch.float64: 700.0, torch.float32: 85.0}


class Cost(MomentMap):
    """A number c(x) of a state x [D], dimensionless: callable on points, with moments of size 1 for beliefs."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return the cost of points."""


class SaturatingCost(Cost):
    """The cost 1 - exp(-½|F(x - z)|²) with target z [D] and rows F [r, D]: nothing at the target, 1 far from it.

    For a width w the rows are divided by w. With d = F(μ - z), H = FΣFᵀ, l = -½dᵀ(I + H)⁻¹d - ½ log|I + H| and
    κ = dᵀ(I + H)⁻¹H(I + 2H)⁻¹d + ½ log|I + (I + 2H)⁻¹H²| >= 0:

        mean = 1 - e^l,   var = e^{2l} (e^κ - 1),   gain = e^l Fᵀ(I + H)⁻¹d

    Nothing is subtracted that could cancel. Raises `ShapeError` for sizes that do not fit. Source: Deisenroth, Fox & Rasmussen,
    PAMI 2015, section 3 (saturating cost); variance rearranged.

    >>> cost = SaturatingCost(target=[0.0], rows=[[2.0]])
    >>> cost(torch.zeros(1)).item(), cost.moments(torch.zeros(1), torch.zeros(1, 1)).mean.item()
    (0.0, 0.0)
    """

    def __init__(self, target: Tensor | Sequence[float], rows: Tensor | Sequence[Sequence[float]]) -> None:
        self.target, self.rows = as_tensor(target), as_tensor(rows)
        if self.rows.dim() != 2 or self.target.shape != self.rows.shape[1:]:
            raise ShapeError(
                f"a saturating cost wants target [D] and rows [r, D]; got {list(self.target.shape)} and {list(self.rows.shape)}"
            )

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return 1 - exp(-½|F(x - z)|²)."""
        check_points(x, len(self.target), "the cost")
        return -torch.expm1(-0.5 * ((x - self.target.to(x)) @ self.rows.to(x).mT).square().sum(-1))

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments of the cost; raises `NumericalError` for a covariance that is far from being one."""
        check_belief(mean, cov, len(self.target), "the cost")
        rows = self.rows.to(mean)
        away = (mean - self.target.to(mean)).unsqueeze(-2) @ rows.mT  # dᵀ [..., 1, r]
        spread = symmetric(rows @ cov @ rows.mT)
        identity = torch.eye(len(rows), dtype=mean.dtype, device=mean.device)
        try:
            # Functions of H alone commute, and log1p of its eigenvalues keeps small H that a determinant of I + H would round away.
            size = torch.linalg.eigvalsh(spread)
            pull = torch.linalg.solve(identity + spread, away.mT)  # (I + H)⁻¹d [..., r, 1]
            twice = torch.linalg.solve(identity + 2 * spread, away.mT)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise NumericalError(
                "a cost was given a covariance that is not finite, or has negative eigenvalues beyond rounding; look at the belief "
                "one step earlier"
            ) from error
        log = -0.5 * ((away @ pull)[..., 0, 0] + size.log1p().sum(-1))
        excess = (pull.mT @ spread @ twice)[..., 0, 0] + 0.5 * (size.square() / (1 + 2 * size)).log1p().sum(-1)
        var = (2 * log).exp() * excess.clamp(max=_LARGEST_EXPONENT[mean.dtype]).expm1()
        gain = log.exp()[..., None, None] * (rows.mT @ pull)
        return Moments(-log.expm1().unsqueeze(-1), var[..., None, None], gain)


class QuadraticCost(Cost):
    """The cost (x - z)ᵀW(x - z) with target z [D] and weight W [D, D].

    With d = μ - z and U = W + Wᵀ:   mean = tr(ΣW) + dᵀWd,   var = ½ tr(UΣUΣ) + dᵀUΣUd,   gain = Ud.

    Raises `ShapeError` for sizes that do not fit.

    >>> QuadraticCost(target=[0.0], weight=[[1.0]]).moments(torch.ones(1), 4 * torch.eye(1)).mean.item()
    5.0
    """

    def __init__(self, target: Tensor | Sequence[float], weight: Tensor | Sequence[Sequence[float]]) -> None:
        self.target, self.weight = as_tensor(target), as_tensor(weight)
        if self.target.dim() != 1 or self.weight.shape != (*self.target.shape, *self.target.shape):
            raise ShapeError(
                f"a quadratic cost wants target [D] and weight [D, D]; got {list(self.target.shape)} and {list(self.weight.shape)}"
            )

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return (x - z)ᵀW(x - z)."""
        check_points(x, len(self.target), "the cost")
        away = x - self.target.to(x)
        return (away * (away @ self.weight.to(x).mT)).sum(-1)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments of the cost."""
        check_belief(mean, cov, len(self.target), "the cost")
        both = (self.weight + self.weight.mT).to(mean)
        away = (mean - self.target.to(mean)).unsqueeze(-1)
        slope, spread = both @ away, both @ cov
        value = 0.5 * (spread.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) + (away.mT @ slope)[..., 0])
        var = 0.5 * (spread * spread.mT).sum((-2, -1)) + (slope.mT @ cov @ slope)[..., 0, 0]
        return Moments(value, var[..., None, None], slope)


class LinearCost(Cost):
    """The cost aᵀ(x - b) with weight a [D] and offset b [D]: mean aᵀ(μ - b), var aᵀΣa, gain a.

    Raises `ShapeError` for sizes that do not fit.

    >>> LinearCost(weight=[2.0], offset=[1.0])(torch.tensor([4.0])).item()
    6.0
    """

    def __init__(self, weight: Tensor | Sequence[float], offset: Tensor | Sequence[float]) -> None:
        self.weight, self.offset = as_tensor(weight), as_tensor(offset)
        if self.weight.dim() != 1 or self.weight.shape != self.offset.shape:
            raise ShapeError(
                f"a linear cost wants weight [D] and offset [D]; got {list(self.weight.shape)} and {list(self.offset.shape)}"
            )

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return aᵀ(x - b)."""
        check_points(x, len(self.weight), "the cost")
        return (x - self.offset.to(x)) @ self.weight.to(x)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments of the cost."""
        check_belief(mean, cov, len(self.weight), "the cost")
        weight = self.weight.to(mean).unsqueeze(-1)
        return Moments(self(mean).unsqueeze(-1), weight.mT @ cov @ weight, weight.expand(*mean.shape, 1))


class HingeCost(Cost):
    """The cost a max(0, b1 - x) + a max(0, x - b2) of one number x [1]: nothing between the corners b1 < b2, slope a beyond them.

    With s the std, y1 = b1 - μ, y2 = μ - b2, R(y) = yΦ(y/s) + sφ(y/s) and V(y) the variance of max(0, y + sz), z standard normal:

        mean = a [R(y1) + R(y2)],   var = a² [V(y1) + V(y2) - 2 R(y1) R(y2)],   gain = a [Φ(y2/s) - Φ(y1/s)]

    V(y)/s² = Φ + uφ(1 - 2Φ) + u²Φ(1 - Φ) - φ² at u = y/s, in which far from the corner nothing cancels. Raises `ConfigurationError`
    unless lower < upper.

    >>> HingeCost(slope=2.0, lower=-1.0, upper=1.0)(torch.tensor([[0.0], [4.0]])).tolist()
    [0.0, 6.0]
    """

    def __init__(self, slope: float, lower: float, upper: float) -> None:
        if not lower < upper:
            raise ConfigurationError(f"a hinge wants lower < upper; got {lower} and {upper}")
        self.slope, self.lower, self.upper = float(slope), float(lower), float(upper)

    def __call__(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        """Return a max(0, b1 - x) + a max(0, x - b2)."""
        return self.slope * ((self.lower - x).relu() + (x - self.upper).relu())[..., 0]

    def moments(self, mean: Float[Tensor, "*batch 1"], cov: Float[Tensor, "*batch 1 1"]) -> Moments:
        """Return the exact moments of the cost; a std below 1e-12 counts as 1e-12."""
        check_belief(mean, cov, 1, "a hinge")
        # The root has no gradient at 0; with so small a std the corners are sharp to double precision.
        std = cov[..., 0].clamp(min=1e-24).sqrt()
        left, left_var, left_share = _rectified(self.lower - mean, std)
        right, right_var, right_share = _rectified(mean - self.upper, std)
        var = self.slope**2 * (left_var + right_var - 2 * left * right)
        return Moments(self.slope * (left + right), var.unsqueeze(-1), self.slope * (right_share - left_share).unsqueeze(-1))


def _rectified(y: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance of max(0, y + std·z), z standard normal, and the probability of y + std·z > 0."""
    u = y / std
    share, other = torch.special.ndtr(u), torch.special.ndtr(-u)
    density = (-0.5 * u.square()).exp() * 0.3989422804014327
    # Where the density underflows, u² times it is 0, but u² may be inf.
    near = u.clamp(-40.0, 40.0)
    relative = share + near * density * (other - share) + near.square() * share * other - density.square()
    return y * share + std * density, std.square() * relative, share
