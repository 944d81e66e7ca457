"""The deterministic objectives of a sparse Gaussian process, and the rule that picks one by the number of rows."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.gaussian_processes.sparse_bounds import collapsed_loss, fitc_loss
from bayesdyn.gaussian_processes.sparse_svgp import Stochastic
from bayesdyn.gaussian_processes.sparse_training import SparseObjective, SparseProblem, SparseResult, train_points
from bayesdyn.gaussian_processes.training import train
from bayesdyn.progress import Progress


@dataclass(frozen=True)
class Collapsed(SparseObjective):
    """Titsias' collapsed bound, maximised by at most `max_steps` iterations of L-BFGS over θ and Z: deterministic, O(N M²) each.

        log p(y|X) >= log N(y; 0, Q + σ²I) - tr(K - Q)/(2σ²),
        q(u) = N(K_zz A⁻¹ K_zn y/σ², K_zz A⁻¹ K_zz),  A = K_zz + K_zn K_nz/σ²

    (Titsias 2009, eqs. 9 and 10). The report's `nll` is the negative bound, so at least the exact GP's at the same θ.

    Raises `ConfigurationError` unless `max_steps` >= 1.

    >>> Collapsed(max_steps=50)
    Collapsed(max_steps=50)
    """

    max_steps: int = 100

    def __post_init__(self) -> None:
        _check_steps(self.max_steps)

    def row_noise(self, noise_var: Float[Tensor, "E"], gap: Float[Tensor, "E k"]) -> Float[Tensor, "E k"]:
        """Return σ² for every row: the gap is paid for by the bound, not by the likelihood."""
        return noise_var.unsqueeze(-1).expand_as(gap)

    def train(self, problem: SparseProblem, generator: torch.Generator, progress: Progress | None) -> SparseResult:
        """Minimise (negative bound + penalty)/N, output by output."""
        return train_points(problem, collapsed_loss, self.max_steps, progress)


@dataclass(frozen=True)
class FITC(SparseObjective):
    """The fully independent training conditional, PILCO's choice, trained by at most `max_steps` iterations of L-BFGS over θ and Z.

        y ~ N(0, Q + Λ),   Λ = diag(K - Q) + σ²I                                      (Snelson & Ghahramani 2006, eq. 9)

    Every row carries its own gap as noise in training, while predictions name σ² alone as aleatoric variance. It tends to explain
    noise by gaps, and so to a σ² that is too small (Bauer et al. 2016); `Collapsed` is the default for that reason. The report's
    `nll` is that of this model, no bound on the exact GP's.

    Raises `ConfigurationError` unless `max_steps` >= 1.

    >>> FITC(max_steps=50)
    FITC(max_steps=50)
    """

    max_steps: int = 100

    def __post_init__(self) -> None:
        _check_steps(self.max_steps)

    def row_noise(self, noise_var: Float[Tensor, "E"], gap: Float[Tensor, "E k"]) -> Float[Tensor, "E k"]:
        """Return λ_n = σ² + k_nn - q_nn."""
        return noise_var.unsqueeze(-1) + gap

    def train(self, problem: SparseProblem, generator: torch.Generator, progress: Progress | None) -> SparseResult:
        """Minimise (negative log likelihood + penalty)/N, output by output."""
        return train_points(problem, fitc_loss, self.max_steps, progress)


@dataclass(frozen=True)
class FITCPoints(SparseObjective):
    """FITC as PILCO has it: θ by the exact GP on all rows, then Z alone by at most `max_steps` iterations of L-BFGS.

    The exact fit goes on from the present θ at every fit, warm or not, in O(N³) per evaluation; Z then minimises the likelihood of
    `FITC` with θ held fixed, so that σ² stays the exact GP's (pilco-matlab `train`: 500 line searches, 300 points). Report and row
    noise are those of `FITC`.

    Raises `ConfigurationError` unless `max_steps` >= 1.

    >>> FITCPoints(max_steps=50)
    FITCPoints(max_steps=50)
    """

    max_steps: int = 500

    def __post_init__(self) -> None:
        _check_steps(self.max_steps)

    def row_noise(self, noise_var: Float[Tensor, "E"], gap: Float[Tensor, "E k"]) -> Float[Tensor, "E k"]:
        """Return λ_n = σ² + k_nn - q_nn."""
        return noise_var.unsqueeze(-1) + gap

    def train(self, problem: SparseProblem, generator: torch.Generator, progress: Progress | None) -> SparseResult:
        """Maximise the exact penalised likelihood over θ, then the FITC likelihood over Z, output by output."""
        outputs, training = problem.y.shape[1], problem.training
        exact_steps, point_steps = outputs * training.max_steps, outputs * self.max_steps

        def exact_progress(done: int, total: int, figures: dict[str, float]) -> None:
            if progress is not None:
                progress(done, total + point_steps, figures)

        def point_progress(done: int, total: int, figures: dict[str, float]) -> None:
            if progress is not None:
                progress(exact_steps + done, exact_steps + total, figures)

        exact = train(problem.kernel, problem.x, problem.y, [problem.values], training, exact_progress)
        fixed = problem._replace(values=exact.values)
        result = train_points(fixed, fitc_loss, self.max_steps, point_progress, frozen=True)
        return result._replace(
            steps=exact.steps + result.steps,
            curves={**{f"exact, {name}": curve for name, curve in exact.curves.items()}, **result.curves},
            warnings=exact.warnings + result.warnings,
        )


@dataclass(frozen=True)
class Automatic(SparseObjective):
    """`small` (by default `Collapsed`) up to `rows` rows, `large` (by default `Stochastic`) beyond.

    Both are bounds of the same model with the same row noise σ², so a posterior may pass from one to the other.

    Raises `ConfigurationError` unless `rows` >= 0.

    >>> Automatic().rows
    20000
    """

    rows: int = 20_000
    small: Collapsed = field(default_factory=Collapsed)
    large: Stochastic = field(default_factory=Stochastic)

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ConfigurationError(f"rows wants >= 0; got {self.rows}")

    def row_noise(self, noise_var: Float[Tensor, "E"], gap: Float[Tensor, "E k"]) -> Float[Tensor, "E k"]:
        """Return σ² for every row, as both choices do."""
        return self.small.row_noise(noise_var, gap)

    def train(self, problem: SparseProblem, generator: torch.Generator, progress: Progress | None) -> SparseResult:
        """Train with the objective that fits the number of rows."""
        chosen: SparseObjective = self.small if problem.x.shape[0] <= self.rows else self.large
        return chosen.train(problem, generator, progress)


def _check_steps(max_steps: int) -> None:
    if max_steps < 1:
        raise ConfigurationError(f"max_steps wants >= 1; got {max_steps}")
