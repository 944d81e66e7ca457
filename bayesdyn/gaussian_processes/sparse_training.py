"""Training of hyper-parameters θ and inducing points Z together: the objective's seam, and L-BFGS for deterministic objectives."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.gaussian_processes.sparse_evaluator import RIDGE
from bayesdyn.gaussian_processes.training import GPModel, GPTraining, Hyperparameters, curb
from bayesdyn.gaussian_processes.training import column_std as column_std
from bayesdyn.inference.optimisation import Optimum, minimise
from bayesdyn.kernels import Kernel, KernelParameters, covariance
from bayesdyn.linalg import add_diagonal
from bayesdyn.progress import Progress

# Maps a kernel, x [N, D], y [N], Z [M, D], K_zz, σ² and the kernel's parameters to a loss in nats.
Loss = Callable[[Kernel, Tensor, Tensor, Tensor, Tensor, Tensor, KernelParameters], Tensor]

_STILL_FALLING = 1e-3


class SparseProblem(NamedTuple):
    """What is to be trained: the kernel, rows in float64 and canonical order, starts for θ and Z [E, M, D], bounds and priors."""

    kernel: Kernel
    x: Float[Tensor, "N D"]
    y: Float[Tensor, "N E"]
    values: Hyperparameters
    points: Float[Tensor, "E M D"]
    training: GPTraining


class SparseResult(NamedTuple):
    """Trained θ and Z, their losses in nats [E], evaluations in all, losses on the way, and what went wrong."""

    values: Hyperparameters
    points: Float[Tensor, "E M D"]
    nll: Float[Tensor, "E"]
    penalty: Float[Tensor, "E"]
    steps: int
    curves: dict[str, tuple[float, ...]]
    warnings: tuple[str, ...]


class SparseObjective(ABC):
    """What a sparse Gaussian process maximises to find θ and Z, and with which variance a row observes the inducing variables."""

    @abstractmethod
    def row_noise(self, noise_var: Float[Tensor, "E"], gap: Float[Tensor, "E k"]) -> Float[Tensor, "E k"]:
        """Return λ_n of y_n = w_nᵀv + N(0, λ_n), given σ² and the gaps k_nn - q_nn >= 0."""

    @abstractmethod
    def train(self, problem: SparseProblem, generator: torch.Generator, progress: Progress | None) -> SparseResult:
        """Return the best θ and Z found from the problem's start."""


def point_bounds(x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "D"], Float[Tensor, "D"]]:
    """Return the box in which inducing points stay: the data's, widened by its width on either side."""
    lower, upper = x.amin(0), x.amax(0)
    return lower - (upper - lower), upper + (upper - lower)


def train_points(
    problem: SparseProblem, loss: Loss, max_steps: int, progress: Progress | None, *, frozen: bool = False
) -> SparseResult:
    """Minimise (loss - log p(ℓ) - log p(σ²) + curb)/N over θ and Z by L-BFGS-B, output by output; over Z alone if θ is frozen.

    A warning says if the loss was still falling by more than 1e-3 nats per row over the last
    tenth of the evaluations.

    Raises `NumericalError` if the objective cannot be evaluated at the start of an output.
    """
    outputs = problem.y.shape[1]
    found: list[tuple[Hyperparameters, Tensor, Tensor, Tensor]] = []
    curves: dict[str, tuple[float, ...]] = {}
    warnings: list[str] = []
    for output in range(outputs):
        objective = _Objective(problem, output, loss, frozen)

        def report(step: int, value: float, output: int = output) -> None:
            if progress is not None:
                progress(output * max_steps + step, outputs * max_steps, {"loss": value})

        optimum = minimise(objective, objective.start(), objective.bounds, max_steps, report)
        curves[f"loss of output {output}"] = optimum.curve
        warnings += [f"output {output}: {text}" for text in _complaints(optimum)]
        found.append(objective.at(optimum.point))
    values, points, nll, penalty = zip(*found, strict=True)
    stacked = KernelParameters(*(torch.cat(parts) for parts in zip(*(v.kernel for v in values), strict=True)))
    merged = Hyperparameters(stacked, torch.cat([v.noise_var for v in values]))
    steps = sum(map(len, curves.values()))
    return SparseResult(merged, torch.cat(points), torch.cat(nll), torch.cat(penalty), steps, curves, tuple(warnings))


def _complaints(optimum: Optimum) -> list[str]:
    # With hundreds of coordinates the iterations always run out; that matters only while they still gain something.
    curve = optimum.curve
    late = min(curve[: max(1, int(0.9 * len(curve)))]) - optimum.value
    broken = [text for text in optimum.warnings if "stopped after" not in text]
    stopped = [text for text in optimum.warnings if "stopped after" in text]
    if stopped and late > _STILL_FALLING:
        broken.append(f"{stopped[0]}: the loss still fell by {late:.1g} nats per row over the last tenth; allow more steps")
    return broken


class _Objective:
    """The loss of one output as a function of the vector of raw parameters, unless they are frozen, and inducing points."""

    def __init__(self, problem: SparseProblem, output: int, loss: Loss, frozen: bool) -> None:
        self.x, self.y, self.loss, self.training = problem.x, problem.y[:, output], loss, problem.training
        self.model = GPModel(problem.kernel, self.x.shape[1], 1, problem.training).to(self.x.device)
        kernel = KernelParameters(*(t[output : output + 1] for t in problem.values.kernel))
        self.model.write(Hyperparameters(kernel, problem.values.noise_var[output : output + 1]))
        lower, upper = point_bounds(self.x)
        self.points = nn.Parameter(problem.points[output : output + 1].clamp(lower, upper))
        self.model.requires_grad_(not frozen)
        self.raw = [*([] if frozen else self.model.parameters()), self.points]
        box = list(zip(lower.tolist(), upper.tolist(), strict=True))
        self.bounds = ([] if frozen else self.model.raw_bounds()) + box * self.points.shape[1]
        self.power, self.x_std = self.x.square().sum(-1).mean(), column_std(self.x)

    def start(self) -> np.ndarray:
        return nn.utils.parameters_to_vector(self.raw).detach().cpu().numpy()

    def _move(self, point: np.ndarray) -> None:
        nn.utils.vector_to_parameters(torch.as_tensor(point, device=self.x.device), self.raw)

    def _losses(self) -> tuple[Hyperparameters, Tensor, Tensor]:
        values, kernel = self.model.read(), self.model.kernel
        ridge = RIDGE * (values.kernel.signal_var + values.kernel.linear_var * self.power)
        gram = add_diagonal(covariance(kernel, values.kernel, self.points, self.points), ridge)
        nll = self.loss(kernel, self.x, self.y, self.points[0], gram[0], values.noise_var[0], values.kernel).reshape(1)
        return values, nll, self.model.negative_log_prior() + curb(values, self.x_std, self.training)

    def at(self, point: np.ndarray) -> tuple[Hyperparameters, Tensor, Tensor, Tensor]:
        """Return θ, Z [1, M, D], nll [1] and penalty [1] at a point."""
        self._move(point)
        with torch.no_grad():
            values, nll, penalty = self._losses()
        return values, self.points.detach().clone(), nll, penalty

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        self._move(point)
        _, nll, penalty = self._losses()
        loss = (nll + penalty).sum() / self.x.shape[0]
        gradient = torch.autograd.grad(loss, self.raw)
        return loss.item(), torch.cat([g.flatten() for g in gradient]).cpu().numpy()
