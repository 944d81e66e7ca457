"""What sparse training maximises, with closed gradients in chunks of rows: Titsias' collapsed bound and the FITC likelihood."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.kernels import Kernel, KernelParameters, prior_variance, rbf_exponent
from bayesdyn.linalg import jittered_cholesky, triangular_inverse

# Two matrices of this size stay in a core's cache, which makes the sums over rows twice as fast as with whole M x N matrices.
_CHUNK_BYTES = 4 * 2**20


class _Rows:
    """The rows in chunks: K_zn of each, and the chain from ∂L/∂K_zn and ∂L/∂k_nn to Z and the kernel's parameters."""

    def __init__(self, kernel: Kernel, points: Tensor, x: Tensor, y: Tensor, parameters: KernelParameters) -> None:
        self.kernel, self.parameters, self.s, self.b = kernel, parameters, parameters.signal_var, parameters.linear_var
        # A common offset costs digits in the sums of squares below; the linear part needs the inputs as they are.
        self.centre = x.mean(0)
        self.points, self.x, self.y, self.z = points, x, y, points - self.centre
        self.size = max(1, _CHUNK_BYTES // (points.shape[0] * x.element_size()))
        self.weighted = torch.zeros(points.shape[0], 2 * x.shape[1] + 1, dtype=x.dtype, device=x.device)
        self.direct, self.grad_s = torch.zeros_like(points), torch.zeros_like(self.s)

    def cross(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield K_zn and y of every chunk."""
        for x, y in zip(self.x.split(self.size), self.y.split(self.size), strict=True):
            yield self._add_trend(self.kernel.correlation(self._exponent(x)).mul_(self.s), x), y

    def cross_and_slope(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """Yield K_zn, y, and what `chain` needs: the chunk's x, κ and its slope."""
        for x, y in zip(self.x.split(self.size), self.y.split(self.size), strict=True):
            correlation, slope = self.kernel.correlation_and_slope(self._exponent(x))
            yield self._add_trend(correlation * self.s, x), y, x, correlation, slope

    def _exponent(self, x: Tensor) -> Tensor:
        return rbf_exponent(self.points, x, self.parameters.lengthscale)[0]

    def _add_trend(self, gram: Tensor, x: Tensor) -> Tensor:
        return gram.addmm_(self.points * self.b, x.mT) if self.kernel.linear else gram

    def chain(self, grad: Tensor, x: Tensor, correlation: Tensor, slope: Tensor) -> None:
        """Add a chunk's part, given G = ∂L/∂K_zn, whose memory is reused: G∘κ for s, Gx for b, and G∘κ' times [x, 1, x²]."""
        self.grad_s += torch.linalg.vecdot(grad.flatten(), correlation.flatten())
        if self.kernel.linear:
            self.direct += grad @ x
        x0 = x - self.centre
        self.weighted += grad.mul_(slope) @ torch.cat([x0, torch.ones_like(x0[:, :1]), x0.square()], 1)

    def gradients(self, grad_prior: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients to Z, ℓ, s and b, given ∂L/∂k_nn [N]."""
        inputs, ell = self.x.shape[1], self.parameters.lengthscale[0]
        with_x, total, with_square = self.weighted.split([inputs, 1, inputs], 1)
        grad_z = self.s * (with_x - total * self.z) / ell.square() + self.b * self.direct
        apart = (total * self.z.square() - 2 * self.z * with_x + with_square).sum(0)
        grad_ell = (self.s * apart / ell.pow(3)).unsqueeze(0)
        grad_b = (self.points * self.direct).sum() + grad_prior @ self.x.square().sum(-1)
        return grad_z, grad_ell, self.grad_s + grad_prior.sum(), grad_b.reshape(1)


def _solve(precision: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return B⁻¹, m = B⁻¹b and log|B|."""
    factor = jittered_cholesky(precision)[0]
    mean = torch.cholesky_solve(shift.unsqueeze(-1), factor).squeeze(-1)
    return torch.cholesky_inverse(factor), mean, 2 * factor.diagonal().log().sum()


def _identity(gram: Tensor) -> Tensor:
    return torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    return None, None, None, *(upstream * gradient for gradient in ctx.saved_tensors)


class _Collapsed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, x: Tensor, y: Tensor, z: Tensor, gram: Tensor, noise: Tensor, ell: Tensor, s: Tensor, b: Tensor
    ) -> Tensor:
        parameters = KernelParameters(ell, s, b)
        rows, inverse, identity = (
            _Rows(kernel, z, x, y, parameters),
            triangular_inverse(jittered_cholesky(gram)[0]),
            _identity(gram),
        )
        square, shift = torch.zeros_like(gram), torch.zeros_like(gram[0])
        for cross, some_y in rows.cross():
            v = inverse @ cross
            square.addmm_(v, v.mT)
            shift.addmv_(v, some_y)
        precision, shift = identity + square / noise, shift / noise
        covariance, mean, log_determinant = _solve(precision, shift)
        count, power = y.shape[0], y @ y / noise
        slack = (prior_variance(parameters, x).sum() - square.trace()) / noise
        value = 0.5 * (count * (2 * math.pi * noise).log() + log_determinant + power - shift @ mean + slack)
        # dL/dV = ((B⁻¹ + mmᵀ - I)V - myᵀ)/σ². L does not change when V is rotated, so (dL/dV)Vᵀ = 2I - B⁻¹ - B - mmᵀ is symmetric.
        outer = torch.outer(mean, mean)
        grad_gram = -0.5 * inverse.mT @ (2 * identity - covariance - precision - outer) @ inverse
        per_cross, per_y = inverse.mT @ (covariance + outer - identity) @ inverse / noise, inverse.mT @ mean / noise
        for cross, some_y, *parts in rows.cross_and_slope():
            rows.chain((per_cross @ cross).addr_(per_y, some_y, alpha=-1), *parts)
        # σ² enters through log|Λ|, B, yᵀΛ⁻¹y and the slack; tr B⁻¹(B - I) = M - tr B⁻¹.
        trace = gram.shape[0] - covariance.trace()
        misfit = power - 2 * shift @ mean + mean @ (precision @ mean) - mean @ mean
        grad_noise = 0.5 * (count - trace - misfit - slack) / noise
        grad_z, *others = rows.gradients((0.5 / noise).expand(count))
        ctx.save_for_backward(grad_z, grad_gram, grad_noise, *others)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, upstream[0])


class _FITC(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, x: Tensor, y: Tensor, z: Tensor, gram: Tensor, noise: Tensor, ell: Tensor, s: Tensor, b: Tensor
    ) -> Tensor:
        parameters = KernelParameters(ell, s, b)
        rows, inverse, identity = (
            _Rows(kernel, z, x, y, parameters),
            triangular_inverse(jittered_cholesky(gram)[0]),
            _identity(gram),
        )
        precision, shift, totals = identity.clone(), torch.zeros_like(gram[0]), []
        priors = (prior_variance(parameters, x)[0] + noise).split(rows.size)
        for (cross, some_y), prior in zip(rows.cross(), priors, strict=True):
            v = inverse @ cross
            totals.append(prior - torch.linalg.vecdot(v, v, dim=0))
            scaled = v / totals[-1]
            precision.addmm_(scaled, v.mT)
            shift.addmv_(scaled, some_y)
        covariance, mean, log_determinant = _solve(precision, shift)
        total = torch.cat(totals)
        value = 0.5 * ((2 * math.pi * total).log().sum() + log_determinant + y.square() @ total.reciprocal() - shift @ mean)
        inner, grad_totals = identity - covariance - torch.outer(mean, mean), []
        for (cross, some_y, *parts), some in zip(rows.cross_and_slope(), totals, strict=True):
            v = inverse @ cross
            spread, residual = covariance @ v, some_y - mean @ v
            # dL/dλ_n = ½(λ_n - v_nᵀB⁻¹v_n - (y_n - mᵀv_n)²)/λ_n², and λ_n = σ² + k_nn - |v_n|² carries it to σ², k_nn and V.
            grad_totals.append(0.5 * (some - torch.linalg.vecdot(spread, v, dim=0) - residual.square()) / some.square())
            weighted = v * (2 * grad_totals[-1])
            inner.addmm_(weighted, v.mT, alpha=-1)
            grad_v = spread.div_(some).addr_(mean, residual / some, alpha=-1).sub_(weighted)
            rows.chain(inverse.mT @ grad_v, *parts)
        grad_total = torch.cat(grad_totals)
        grad_z, *others = rows.gradients(grad_total)
        ctx.save_for_backward(grad_z, -0.5 * inverse.mT @ inner @ inverse, grad_total.sum(), *others)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, upstream[0])


def collapsed_loss(
    kernel: Kernel,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N"],
    points: Float[Tensor, "M D"],
    gram: Float[Tensor, "M M"],
    noise_var: Float[Tensor, ""],
    parameters: KernelParameters,
) -> Float[Tensor, ""]:
    """Return the negative collapsed bound of one output in nats, -log N(y; 0, Q + σ²I) + tr(K - Q)/(2σ²) >= -log p(y | X).

    Q = K_nz K_zz⁻¹ K_zn (Titsias 2009, eq. 9); `gram` is K_zz at the points Z, ridge included. With V = L⁻¹K_zn, B = I + VVᵀ/σ² and
    m = B⁻¹Vy/σ², the gradients, which come with the value, are

        ∂/∂K_zn = L⁻ᵀ((B⁻¹ + mmᵀ - I)V - myᵀ)/σ²,   ∂/∂K_zz = -½ L⁻ᵀ(2I - B⁻¹ - B - mmᵀ)L⁻¹,   ∂/∂k_nn = 1/(2σ²)

    and those to Z and the parameters follow by the kernel's slope. Rows are taken in chunks, twice: 6NM² flops and O(M²) memory.
    `gram` carries its own part of the gradient to Z and the parameters. There is no gradient to x or y.

    Raises `NumericalError` if K_zz or B is not positive definite with any jitter.
    """
    return _Collapsed.apply(kernel, x, y, points, gram, noise_var, *parameters)


def fitc_loss(
    kernel: Kernel,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N"],
    points: Float[Tensor, "M D"],
    gram: Float[Tensor, "M M"],
    noise_var: Float[Tensor, ""],
    parameters: KernelParameters,
) -> Float[Tensor, ""]:
    """Return -log N(y; 0, Q + Λ) of one output in nats, Λ = diag(K - Q) + σ²I (Snelson & Ghahramani 2006, eq. 9).

    Arguments as of `collapsed_loss`; no bound on -log p(y | X). The gradients, which come with the value, are those of Λ and of
    V = L⁻¹K_zn: ∂/∂λ_n = ½(λ_n - v_nᵀB⁻¹v_n - (y_n - mᵀv_n)²)/λ_n² with B = I + VΛ⁻¹Vᵀ, m = B⁻¹VΛ⁻¹y.

    Raises `NumericalError` if K_zz or B is not positive definite with any jitter.
    """
    return _FITC.apply(kernel, x, y, points, gram, noise_var, *parameters)
