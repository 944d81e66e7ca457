"""Sparse Gaussian process regression: E independent outputs, summarised by M inducing points each."""

import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.diagnosis import at_bounds, bound_warnings, check_target_scale, explain_singular
from bayesdyn.gaussian_processes.moment_inducing import inducing_moments
from bayesdyn.gaussian_processes.moment_map import GPMoments
from bayesdyn.gaussian_processes.pathwise import PathwiseFunction, draw_prior
from bayesdyn.gaussian_processes.sparse_evaluator import (
    InducingPrior,
    SparseFactors,
    check_parameters,
    check_points,
    gather,
    inducing_prior,
    negative_bound,
    relative_ridge,
    sparse_factors,
    sparse_moments,
)
from bayesdyn.gaussian_processes.sparse_inducing import SparseStart, canonical_rows, choose_points, cold_start
from bayesdyn.gaussian_processes.sparse_objectives import Automatic
from bayesdyn.gaussian_processes.sparse_svgp import DivergedError
from bayesdyn.gaussian_processes.sparse_training import SparseObjective, SparseProblem
from bayesdyn.gaussian_processes.training import GPTraining, Hyperparameters
from bayesdyn.kernels import RBF, Kernel, KernelParameters
from bayesdyn.numerics import fresh_generator, keep_buffers_on_error
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data, r_squared, scale_warnings
from bayesdyn.progress import Progress

_CHUNK_BYTES = 64 * 2**20


class SparseGP(Posterior):
    r"""E independent Gaussian processes that see their N rows through M inducing points Z_e each, for tens of thousands of rows.

        u = f(Z) = L_z v,  q(v) = N(m_v, RRᵀ),  w(x) = L_z⁻¹ k(Z, x);  mean = wᵀm_v,  var f = k(x, x) - |w|² + |Rᵀw|²

    `objective` says how hyper-parameters and Z are trained: `Automatic()` takes the `Collapsed` bound up to 20,000 rows and
    `Stochastic` training beyond, `FITC()` is PILCO's choice. Given θ and Z, q(v) is always the optimum in closed form. Training
    starts from an exact GP on `warm_up` rows and a greedy choice of min(`inducing`, distinct rows) points. `sample` draws pathwise
    with `features` random Fourier features. Beside the data, memory is O(E M²); an evaluation takes O(N M²) time per output.
    Predictions are computed in `dtype`, all else in float64.

    Raises `ConfigurationError` for fewer than 1 inducing point, 2 rows of warm-up, or 2 or an odd number of features, for a kernel
    of GPyTorch, which is for `ExactGP`, and for something else than an objective.

    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(-1)
    >>> gp = SparseGP(inducing=10)
    >>> gp.fit(x, torch.sin(3 * x)).collapsed
    False
    """

    inducing_points: Tensor
    lengthscale: Tensor
    signal_var: Tensor
    linear_var: Tensor
    noise_var: Tensor
    ridge: Tensor
    precision: Tensor
    shift: Tensor
    mean: Tensor
    root: Tensor
    weights: Tensor
    whitening: Tensor
    reduction: Tensor

    def __init__(
        self,
        kernel: Kernel = RBF(),  # noqa: B008 (frozen)
        *,
        inducing: int = 300,
        objective: SparseObjective = Automatic(),  # noqa: B008 (frozen)
        warm_up: int = 500,
        features: int = 512,
        training: GPTraining = GPTraining(),  # noqa: B008 (frozen)
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if features < 2 or features % 2:
            raise ConfigurationError(f"features wants an even number >= 2 (cosines and sines); got {features}")
        if inducing < 1 or warm_up < 2:
            raise ConfigurationError(f"inducing wants >= 1 and warm_up >= 2; got {inducing} and {warm_up}")
        _check_kind(kernel, objective)
        self.kernel, self.objective, self.features, self.training_settings = kernel, objective, features, training
        self.inducing, self.warm_up = inducing, warm_up
        for name, axes in {"inducing_points": 3, "lengthscale": 2, "precision": 3, "shift": 2}.items():
            self.register_buffer(name, torch.empty((0,) * axes, dtype=torch.float64))
        for name in ("signal_var", "linear_var", "noise_var", "ridge"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        # Factors follow from the buffers above and are rebuilt on load.
        for name, axes in {"mean": 2, "root": 3, "weights": 2, "whitening": 3, "reduction": 3}.items():
            self.register_buffer(name, torch.empty((0,) * axes, dtype=dtype), persistent=False)

    @classmethod
    def from_hyperparameters(
        cls,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        inducing_points: Float[Tensor, "*k M D"],
        lengthscale: Float[Tensor, "E D"],
        signal_var: Float[Tensor, "E"],
        noise_var: Float[Tensor, "E"],
        *,
        linear_var: Float[Tensor, "E"] | None = None,
        ridge: Float[Tensor, "E"] | None = None,
        kernel: Kernel = RBF(),  # noqa: B008 (frozen)
        objective: SparseObjective = Automatic(),  # noqa: B008 (frozen)
        features: int = 512,
        dtype: torch.dtype = torch.float64,
    ) -> "SparseGP":
        """Return the sparse GP with exactly these parameters, conditioned on the N rows; x and y need not be whitened.

        `inducing_points` are [M, D] for all outputs or [E, M, D]; `ridge`, a variance in units of y², is added to the diagonal of
        K_zz, by default 1e-6 of the mean prior variance (PILCO: 1e-6).

        Raises `ShapeError` or `DataError` for unusable data, `ConfigurationError` for a parameter that is not positive or for a
        `linear_var` that does not go with the kernel, `NumericalError` if K_zz is singular.

        >>> one = torch.ones(1, dtype=torch.float64)
        >>> gp = SparseGP.from_hyperparameters(0 * one[None], one[None], 0 * one[None], one[None], one, one)
        >>> round(gp.predict(torch.zeros(1, 1)).mean.item(), 5)
        0.5
        """
        check_training_data(x, y, minimum=1)
        _check_kind(kernel, objective)
        if (linear_var is not None) != kernel.linear:
            raise ConfigurationError(f"linear_var belongs to kernels with a linear part, and {kernel} has linear={kernel.linear}")
        linear = torch.zeros_like(signal_var) if linear_var is None else linear_var
        values = Hyperparameters(KernelParameters(lengthscale, signal_var, linear), noise_var)
        check_parameters(values, ridge, x.shape[1], y.shape[1], kernel.linear)
        check_points(inducing_points, x.shape[1], y.shape[1])
        gp = cls(kernel, inducing=inducing_points.shape[-2], objective=objective, features=features, dtype=dtype)
        gp._condition(x, y, values, inducing_points.expand(y.shape[1], -1, -1), ridge)
        return gp

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E) of the data, (0, 0) before `fit`."""
        return (self.inducing_points.shape[2], self.inducing_points.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which predictions are computed."""
        return self.weights.dtype

    @property
    def kernel_parameters(self) -> KernelParameters:
        """Length-scales [E, D], signal and linear variances [E]."""
        return KernelParameters(self.lengthscale, self.signal_var, self.linear_var)

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Train hyper-parameters and inducing points by the objective and set q(v) to its optimum for the N rows.

        With `warm_start`, hyper-parameters start where they are, and the inducing points of each output from the present ones or a
        new greedy choice, whichever has the larger collapsed bound. Only `Stochastic` draws from the generator; without one, from
        one seeded with 0, so that two fits agree.

        The report's `nll` is the negative bound per row, KL divergence and trace term included, so that it compares with that of
        `ExactGP` (for `FITC`, the negative log likelihood of its own model). `penalty` is that of priors and curb, `jitter` the
        ridge of K_zz.

        Raises `ShapeError` or `DataError` for unusable data, `ShapeError` for a warm start with other D or E, `NumericalError` if a
        covariance stays singular.
        """
        check_training_data(x, y)
        check_target_scale(y, self.training_settings)
        began = time.perf_counter()
        generator = generator or torch.Generator(x.device).manual_seed(0)
        rows, targets = canonical_rows(x, y)
        with torch.enable_grad():
            start = self._start(rows, targets, warm_start, progress)
        problem = SparseProblem(self.kernel, rows, targets, start.values, start.points, self.training_settings)
        try:
            with torch.enable_grad():
                result = self.objective.train(problem, generator, _second_half(progress))
            self._condition(rows, targets, result.values, result.points, None)
        except DivergedError:
            raise  # it says what to do, and the rows are not the cause
        except NumericalError as error:
            raise explain_singular(error, rows, start.values) from error
        bounds = at_bounds(result.values, self.training_settings, self.kernel.linear)
        return FitReport(
            nll=float(result.nll.sum()) / len(rows),
            penalty=float(result.penalty.sum()) / len(rows),
            steps=start.steps + result.steps,
            seconds=time.perf_counter() - began,
            r2_train=r_squared(targets, self.predict(rows).mean),
            jitter=tuple(float(r) for r in self.ridge),
            at_bound=tuple(str(b) for b in bounds),
            warnings=result.warnings + scale_warnings(x, y) + bound_warnings(bounds),
            curves={**start.curves, **result.curves},
        )

    def _start(self, x: Tensor, y: Tensor, warm_start: bool, progress: Progress | None) -> SparseStart:
        if not warm_start or self.sizes[0] == 0:
            return cold_start(self.kernel, x, y, self.inducing, self.warm_up, self.training_settings, _first_half(progress))
        if self.sizes != (x.shape[1], y.shape[1]):
            raise ShapeError(f"a warm start wants (D, E) = {self.sizes} as before; got {(x.shape[1], y.shape[1])}")
        values = Hyperparameters(self.kernel_parameters, self.noise_var)
        fresh = choose_points(self.kernel, values.kernel, x, self.inducing)
        if fresh.shape != self.inducing_points.shape:
            return SparseStart(values, fresh, 0, {})
        ridge = relative_ridge(values.kernel, x)
        priors = (inducing_prior(self.kernel, values.kernel, points, ridge) for points in (self.inducing_points, fresh))
        present, greedy = (negative_bound(prior, values.noise_var, x, y) for prior in priors)
        keep = (present <= greedy)[:, None, None]
        return SparseStart(values, torch.where(keep, self.inducing_points, fresh), 0, {})

    def _condition(self, x: Tensor, y: Tensor, values: Hyperparameters, points: Tensor, ridge: Tensor | None) -> None:
        # Fresh tensors throughout: draws made before share the old ones and must not change.
        rows, targets = x.detach().double(), y.detach().double()

        def own(tensor: Tensor) -> Tensor:
            return tensor.detach().double().to(x.device).clone()

        with keep_buffers_on_error(self):
            self.inducing_points, self.noise_var = own(points), own(values.noise_var)
            self.lengthscale, self.signal_var, self.linear_var = (own(t) for t in values.kernel)
            self.ridge = relative_ridge(self.kernel_parameters, rows) if ridge is None else own(ridge)
            prior = self._prior()
            self.ridge = prior.ridge
            evidence = gather(prior, self.objective.row_noise, self.noise_var, rows, targets)
            self.precision, self.shift = evidence.precision, evidence.shift
            self._factorise(prior)

    def _prior(self) -> InducingPrior:
        return inducing_prior(self.kernel, self.kernel_parameters, self.inducing_points, self.ridge)

    def _factorise(self, prior: InducingPrior) -> None:
        factors = sparse_factors(prior, self.precision, self.shift)
        self.mean, self.root, self.weights, self.whitening, self.reduction = (f.to(self.dtype) for f in factors)

    def append(self, x: Float[Tensor, "k D"], y: Float[Tensor, "k E"]) -> None:
        """Condition on k more rows with θ and Z frozen, exactly, since evidence on v adds up: O(E M² k + E M³).

        Raises `NotFittedError` before `fit`, `ShapeError` or `DataError` for unusable rows.
        """
        self.check_fitted()
        check_training_data(x, y, minimum=1)
        if (x.shape[1], y.shape[1]) != self.sizes:
            raise ShapeError(f"append wants (D, E) = {self.sizes}; got {(x.shape[1], y.shape[1])}")
        prior = self._prior()
        more = gather(prior, self.objective.row_noise, self.noise_var, x.detach().to(self.shift), y.detach().to(self.shift))
        with keep_buffers_on_error(self):
            self.precision, self.shift = self.precision + more.precision, self.shift + more.shift
            self._factorise(prior)

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return p(y | x, D), one component: posterior variance of f as epistemic, σ² as aleatoric variance; differentiable in x.

        Raises `NotFittedError`, `ShapeError`, or `NumericalError` if a variance comes out negative beyond rounding.
        """
        self.check_inputs(x)
        flat = x.to(self.dtype).reshape(-1, self.sizes[0])
        parameters = KernelParameters(*(t.to(self.dtype) for t in self.kernel_parameters))
        points = self.inducing_points.to(self.dtype)
        factors = SparseFactors(self.mean, self.root, self.weights, self.whitening, self.reduction)
        row_bytes = 4 * points.shape[0] * points.shape[1] * flat.element_size()
        pieces = flat.split(max(1, _CHUNK_BYTES // row_bytes))
        parts = [sparse_moments(self.kernel, parameters, points, factors, piece) for piece in pieces]
        shape = (1, *x.shape[:-1], self.sizes[1])
        mean = torch.cat([p.mean for p in parts]).reshape(shape).to(x.dtype)
        epistemic = torch.cat([p.var for p in parts]).reshape(shape).to(x.dtype)
        return Predictive(mean, epistemic, self.noise_var.to(x.dtype).expand_as(mean))

    def exact_moment_map(self, process_noise: bool = False) -> GPMoments | None:
        """Return the moments of f(x) for Gaussian x, in closed form with the kernel `RBF()`, None with others.

        Raises `NotFittedError` before `fit`.
        """
        self.check_fitted()
        if self.kernel != RBF():
            return None
        noise_var = self.noise_var if process_noise else None
        return inducing_moments(self._prior(), self.precision, self.shift, noise_var).to(self.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> PathwiseFunction:
        """Draw n functions pathwise: f(x) = φ(x)ᵀw + k(x, Z)K_zz⁻¹(u - Φ_Z w - ε), u = L_z v, v ~ q(v).

        (Wilson et al. 2020, eq. 13.) ε ~ N(0, ridge·I), since u is f(Z) seen with the ridge as noise. Random features are redrawn
        at each call and shared by the n draws. Without a generator, one is seeded from the system.

        Raises `ConfigurationError` for n < 1 and `NotFittedError` before `fit`.
        """
        self.check_sample(n)
        generator = generator or fresh_generator(self.shift.device)
        prior_draws = draw_prior(self.kernel, self.kernel_parameters, n, self.features, generator)
        shape = (2, *self.shift.shape, n)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64, device=self.shift.device)
        prior = self._prior()
        v = self.mean.double().unsqueeze(-1) + self.root.double() @ normal[0]
        noisy = prior_draws(self.inducing_points) + self.ridge.sqrt()[:, None, None] * normal[1]
        update = prior.inverse.mT @ (v - prior.inverse @ noisy)
        paths = PathwiseFunction(self.kernel, self.kernel_parameters, prior_draws, self.inducing_points, update, self.noise_var)
        return paths.to(dtype=self.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.sizes[0] > 0:
            self._factorise(self._prior())


def _check_kind(kernel: object, objective: object) -> None:
    if not isinstance(kernel, Kernel):
        raise ConfigurationError(
            f"SparseGP takes the kernels RBF(), Matern32(), Matern52() and RBFLinear(); got {_described(kernel)}. ExactGP takes "
            "any kernel of GPyTorch, ExactGP(GPyTorchKernel(factory))"
        )
    if not isinstance(objective, SparseObjective):
        raise ConfigurationError(
            f"objective wants an object: Automatic(), Collapsed(), FITC() or Stochastic(); got {_described(objective)}"
        )


def _described(given: object) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"{given!r}"


def _first_half(progress: Progress | None) -> Progress | None:
    return progress and (lambda done, total, figures: progress(done, 2 * total, figures))


def _second_half(progress: Progress | None) -> Progress | None:
    return progress and (lambda done, total, figures: progress(total + done, 2 * total, figures))
