"""Exact Gaussian process regression: E independent outputs, conditioned in closed form."""

import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.functions import Function
from bayesdyn.gaussian_processes.diagnosis import check_hyperparameters, check_positive, check_target_scale
from bayesdyn.gaussian_processes.family import family_of
from bayesdyn.gaussian_processes.moment_map import GPMoments, Uncertainty
from bayesdyn.gaussian_processes.training import GPTraining, Hyperparameters
from bayesdyn.gaussian_processes.variances import positive_variance
from bayesdyn.kernels import RBF, GPyTorchKernel, Kernel, KernelParameters
from bayesdyn.linalg import add_diagonal, extend_cholesky, jittered_cholesky, triangular_inverse
from bayesdyn.numerics import check_memory, fresh_generator, keep_buffers_on_error
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data, r_squared, scale_warnings
from bayesdyn.progress import Progress

_CHUNK_BYTES = 64 * 2**20
_INVERSE_ROWS = 500
# K, L, L⁻¹ and what comes up between them, N x N each: the measured peak over 3,000 rows.
_FACTOR_MATRICES = 5


class ExactGP(Posterior):
    r"""E independent Gaussian processes on whitened x [N, D] and y [N, E], one set of hyper-parameters per output.

        y_e = f_e(x) + ε,  f_e ~ GP(0, k_e),  ε ~ N(0, σ_e²);  mean = k(x, X) α,  var f = k(x, x) - |L⁻¹ k(X, x)|²,
        LLᵀ = K + σ²I,  α = (K + σ²I)⁻¹ y                                (Rasmussen & Williams 2006, alg. 2.1)

    `fit` finds the hyper-parameters by penalised marginal likelihood (`GPTraining`); `from_hyperparameters` takes them as given.
    `sample` draws pathwise, with `features` random Fourier features for the prior (a path's standard deviation is then off by about
    1.13/√features, relatively). Memory is O(E N²), time O(E N³); computations are in `dtype`, training always in float64.

    `kernel` is one of ours, or `GPyTorchKernel(factory)` for any that GPyTorch can state: predictions are exact and draws have the
    features registered for its parts. A kernel with unknown parts gets Nyström features, and the report says what they lack.

    Asked at float32 x, draws compute in `dtype` and lose only what rounding x costs. Cast with `.to(dtype=torch.float32)` they are
    faster and round k(x, X)v: by little of the epistemic std down to noise stds of a hundredth of the signal's, by a good part
    of it at a thousandth. So plan in float32 unless the noise sits at its bound.

    Raises `ConfigurationError` for fewer than 2 or an odd number of features, and in `fit` for more rows than memory can take.

    >>> x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(-1)
    >>> gp = ExactGP()
    >>> gp.fit(x, torch.sin(3 * x)).collapsed
    False
    """

    x: Tensor
    y: Tensor
    noise_var: Tensor
    jitter: Tensor
    chol: Tensor
    inverse_chol: Tensor
    alpha: Tensor

    def __init__(
        self,
        kernel: Kernel | GPyTorchKernel = RBF(),  # noqa: B008 (frozen)
        *,
        features: int = 512,
        training: GPTraining = GPTraining(),  # noqa: B008 (frozen)
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if features < 2 or features % 2:
            raise ConfigurationError(f"features wants an even number >= 2 (cosines and sines); got {features}")
        self.kernel, self.features, self.training_settings = kernel, features, training
        self._family = family_of(kernel)
        for name, axes in {"x": 2, "y": 2, **self._family.axes, "noise_var": 1, "jitter": 1}.items():
            self.register_buffer(name, torch.empty((0,) * axes, dtype=dtype))
        # Factors follow from the buffers above and are rebuilt on load.
        for name, axes in {"chol": 3, "inverse_chol": 3, "alpha": 2}.items():
            self.register_buffer(name, torch.empty((0,) * axes, dtype=dtype), persistent=False)

    @classmethod
    def from_hyperparameters(
        cls,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        lengthscale: Float[Tensor, "E D"],
        signal_var: Float[Tensor, "E"],
        noise_var: Float[Tensor, "E"],
        *,
        linear_var: Float[Tensor, "E"] | None = None,
        kernel: Kernel = RBF(),  # noqa: B008 (frozen)
        features: int = 512,
        dtype: torch.dtype = torch.float64,
    ) -> "ExactGP":
        """Return the GP with exactly these hyper-parameters, conditioned on the N rows; x and y need not be whitened.

        Raises `ShapeError` or `DataError` for unusable data, `ConfigurationError` for a parameter that is not positive or for a
        `linear_var` that does not go with the kernel, `NumericalError` if K + σ²I is singular.

        >>> one = torch.ones(1)
        >>> gp = ExactGP.from_hyperparameters(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1), one, one)
        >>> gp.predict(torch.zeros(1, 1)).mean.item()
        0.5
        """
        check_training_data(x, y, minimum=1)
        if (linear_var is not None) != kernel.linear:
            raise ConfigurationError(f"linear_var belongs to kernels with a linear part, and {kernel} has linear={kernel.linear}")
        linear = torch.zeros_like(signal_var) if linear_var is None else linear_var
        values = Hyperparameters(KernelParameters(lengthscale, signal_var, linear), noise_var)
        check_hyperparameters(values, x.shape[1], y.shape[1], kernel.linear)
        gp = cls(kernel, features=features, dtype=dtype)
        gp._check_memory(len(x), x, y, training=False)
        gp._condition(x, y, tuple(values.kernel), noise_var)
        return gp

    @classmethod
    def from_kernel(
        cls,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        kernel: GPyTorchKernel,
        noise_var: Float[Tensor, "E"],
        *,
        features: int = 512,
        dtype: torch.dtype = torch.float64,
    ) -> "ExactGP":
        """Return the GP with a kernel of GPyTorch at exactly the values that its factory sets, conditioned on the N rows.

        Raises `ShapeError` or `DataError` for unusable data, `ConfigurationError` for a noise variance that is not positive,
        `NumericalError` if K + σ²I is singular.

        >>> import gpytorch
        >>> kernel = GPyTorchKernel(lambda inputs: gpytorch.kernels.ConstantKernel())
        >>> gp = ExactGP.from_kernel(torch.zeros(1, 1), torch.ones(1, 1), kernel, torch.ones(1))
        >>> gp.predict(torch.zeros(1, 1)).mean.shape
        torch.Size([1, 1])
        """
        check_training_data(x, y, minimum=1)
        check_positive("noise_var", noise_var, (y.shape[1],))
        gp = cls(kernel, features=features, dtype=dtype)
        gp._check_memory(len(x), x, y, training=False)
        gp._condition(x, y, (kernel.initial(x.shape[1], y.shape[1]),), noise_var)
        return gp

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E) of the data, (0, 0) before `fit`."""
        return self.x.shape[1], self.y.shape[1]

    @property
    def kernel_parameters(self) -> KernelParameters:
        """Length-scales [E, D], signal and linear variances [E]; raises `ConfigurationError` for a kernel of GPyTorch."""
        if tuple(self._family.axes) != KernelParameters._fields:
            raise ConfigurationError(
                f"length-scales are kept for kernels of bayesdyn only; {self.kernel} keeps `raw`, see `kernels`"
            )
        return KernelParameters(*self._theta)

    @property
    def _theta(self) -> tuple[Tensor, ...]:
        return tuple(self.get_buffer(name) for name in self._family.axes)

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Find the hyper-parameters by penalised marginal likelihood and condition on the N rows; deterministic.

        With `warm_start`, the search starts from the present hyper-parameters only. The report's held-out R² is leave-one-out.

        Raises `ShapeError` or `DataError` for unusable data, `ShapeError` for a warm start with other D or E, `NumericalError` if
        K + σ²I stays singular.
        """
        check_training_data(x, y)
        check_target_scale(y, self.training_settings)
        self._check_memory(len(x), x, y, training=True)
        began = time.perf_counter()
        present = None
        if warm_start and self.sizes[0] > 0:
            self._check_sizes("a warm start", x, y)
            present = (self._theta, self.noise_var)
        with torch.enable_grad():
            result = self._family.train(x, y, present, self.training_settings, progress)
        self._condition(x, y, result.theta, result.noise_var)
        rows = x.shape[0]
        in_sample = self.y - self.alpha.mT * (self.noise_var + self.jitter)
        return FitReport(
            nll=float(result.nll.sum()) / rows,
            penalty=float(result.penalty.sum()) / rows,
            steps=result.steps,
            seconds=time.perf_counter() - began,
            r2_train=r_squared(self.y, in_sample),
            r2_held_out=r_squared(self.y, self.leave_one_out().mean),
            jitter=tuple(float(j) for j in self.jitter),
            at_bound=result.at_bound,
            warnings=result.warnings + scale_warnings(x, y) + self._family.draw_warnings(self._theta, self.x, self.features),
            curves=result.curves,
        )

    def _check_sizes(self, what: str, x: Tensor, y: Tensor) -> None:
        if (x.shape[1], y.shape[1]) != self.sizes:
            raise ShapeError(f"{what} wants (D, E) = {self.sizes} as before; got {(x.shape[1], y.shape[1])}")

    def _check_memory(self, rows: int, x: Tensor, y: Tensor, *, training: bool) -> None:
        # Training works on one output at a time, in float64; conditioning on all of them, in the GP's own dtype.
        factors = _FACTOR_MATRICES * y.shape[1] * self.x.element_size()
        each = max(factors, 8 * self._family.training_matrices(x.shape[1]) if training else 0)
        instead = "SparseGP does with a few hundred inducing points; or thin the data out"
        check_memory(each * rows**2, f"an exact Gaussian process on {rows} rows", instead, x.device)

    def _condition(self, x: Tensor, y: Tensor, theta: tuple[Tensor, ...], noise_var: Tensor) -> None:
        # Fresh tensors throughout: draws made before share the old ones and must not change.
        device, dtype = x.device, self.x.dtype
        named = {"x": x, "y": y, "noise_var": noise_var, **dict(zip(self._family.axes, theta, strict=True))}
        with keep_buffers_on_error(self):
            for name, tensor in named.items():
                setattr(self, name, tensor.detach().to(device, dtype, copy=True))
            self._factorise(torch.zeros_like(self.noise_var))

    def _factorise(self, jitter: Tensor) -> None:
        gram = self._family.covariance(self._theta, self.x, self.x)
        try:
            self.chol, more = jittered_cholesky(add_diagonal(gram, self.noise_var + jitter))
        except NumericalError as error:
            raise self._family.explain(error, self._theta, self.noise_var, self.x) from error
        self.jitter = jitter + more
        self.inverse_chol = triangular_inverse(self.chol)
        self._solve_targets()

    def _solve_targets(self) -> None:
        self.alpha = torch.cholesky_solve(self.y.mT.unsqueeze(-1), self.chol).squeeze(-1)

    def append(self, x: Float[Tensor, "k D"], y: Float[Tensor, "k E"]) -> None:
        """Condition on k more rows with the hyper-parameters frozen, in O(E N² k), by extending the Cholesky factor.

        Raises `NotFittedError` before `fit`, `ShapeError` or `DataError` for unusable rows, `NumericalError` if K + σ²I becomes
        singular.
        """
        self.check_fitted()
        check_training_data(x, y, minimum=1)
        self._check_sizes("append", x, y)
        self._check_memory(len(self.x) + len(x), x, y, training=False)
        new_x, new_y = x.detach().to(self.x), y.detach().to(self.y)
        cross = self._family.covariance(self._theta, self.x, new_x)
        corner = self._family.covariance(self._theta, new_x, new_x)
        corner = add_diagonal(corner, self.noise_var + self.jitter)
        with keep_buffers_on_error(self):
            self.x, self.y = torch.cat([self.x, new_x]), torch.cat([self.y, new_y])
            try:
                self.chol, self.inverse_chol = extend_cholesky(self.chol, self.inverse_chol, cross, corner)
            except NumericalError:
                self._factorise(self.jitter)
            else:
                self._solve_targets()

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return p(y | x, D), one component: posterior variance of f as epistemic, σ² as aleatoric variance; differentiable in x.

        Raises `NotFittedError`, `ShapeError`, or `NumericalError` if a variance comes out negative beyond rounding.
        """
        self.check_inputs(x)
        flat = x.to(self.x.dtype).reshape(-1, self.sizes[0])
        row_bytes = 3 * self.y.shape[1] * self.x.shape[0] * self.x.element_size()
        parts = [self._moments(piece) for piece in flat.split(max(1, _CHUNK_BYTES // row_bytes))]
        shape = (1, *x.shape[:-1], self.sizes[1])
        mean = torch.cat([p.mean for p in parts]).reshape(shape).to(x.dtype)
        epistemic = torch.cat([p.var for p in parts]).reshape(shape).to(x.dtype)
        return Predictive(mean, epistemic, self.noise_var.to(x.dtype).expand_as(mean))

    def _moments(self, x: Tensor) -> Gaussian:
        cross = self._family.covariance(self._theta, self.x, x)
        mean = (self.alpha.unsqueeze(-2) @ cross).squeeze(-2)
        if self.x.shape[0] <= _INVERSE_ROWS:
            whitened = self.inverse_chol @ cross
        else:
            whitened = torch.linalg.solve_triangular(self.chol, cross, upper=False)
        prior = self._family.prior_variance(self._theta, x)
        var = prior - whitened.square().sum(-2)
        tolerance = self._family.rounding if x.dtype == torch.float64 else 1e-2
        cause = "K + σ²I is nearly singular. Raise the noise variance or remove near-duplicate rows"
        return Gaussian(mean.mT, positive_variance(var, prior, tolerance, cause).mT)

    def leave_one_out(self) -> Gaussian:
        """Return p(y_i | all other rows) for every row: μ_i = y_i - α_i/[K_n⁻¹]_ii, var_i = 1/[K_n⁻¹]_ii, both [N, E].

        The variance is that of y, noise included (Rasmussen & Williams 2006, eq. 5.12). Raises `NotFittedError` before `fit`.
        """
        self.check_fitted()
        var = self.inverse_chol.square().sum(-2).reciprocal().mT
        return Gaussian(self.y - self.alpha.mT * var, var)

    def exact_moment_map(self, process_noise: bool = False) -> GPMoments | None:
        """Return the moments of f(x) for Gaussian x, in closed form with the kernel `RBF()`, None with others.

        Raises `NotFittedError` before `fit`.
        """
        self.check_fitted()
        if self.kernel != RBF():
            return None
        return GPMoments(
            self.x,
            self.kernel_parameters.lengthscale,
            self.kernel_parameters.signal_var,
            self.alpha,
            uncertainty=Uncertainty(self.chol, self.inverse_chol.mT @ self.inverse_chol),
            noise_var=self.noise_var if process_noise else None,
        )

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Draw n functions pathwise: f(x) = φ(x)ᵀw + k(x, X)(K + σ²I)⁻¹(y - Φw - ε) (Wilson et al. 2020, eq. 12).

        Random features are redrawn at each call and shared by the n draws. Without a generator, one is seeded from the system.

        Raises `ConfigurationError` for n < 1 and `NotFittedError` before `fit`.
        """
        self.check_sample(n)
        generator = generator or fresh_generator(self.x.device)
        prior = self._family.draw_prior(self._theta, self.x, n, self.features, generator)
        shape = (*self.alpha.shape, n)
        noise = torch.randn(shape, generator=generator, dtype=self.x.dtype, device=self.x.device)
        noise = noise * (self.noise_var + self.jitter).sqrt()[:, None, None]
        residual = self.y.mT.unsqueeze(-1) - prior(self.x) - noise
        update = self.inverse_chol.mT @ (self.inverse_chol @ residual)
        return self._family.function(self._theta, prior, self.x, update, self.noise_var)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.sizes[0] > 0:
            self._factorise(self.jitter)
