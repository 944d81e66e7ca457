"""Stochastic variational training of a sparse Gaussian process by GPyTorch, for data too many to see at every step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import gpytorch
import torch
from jaxtyping import Float
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.gaussian_processes.sparse_evaluator import (
    InducingPrior,
    gather,
    inducing_prior,
    negative_bound,
    relative_ridge,
)
from bayesdyn.gaussian_processes.sparse_training import SparseObjective, SparseProblem, SparseResult, column_std, point_bounds
from bayesdyn.gaussian_processes.training import GPModel, curb
from bayesdyn.progress import Progress

_CURVE_POINTS = 200


class DivergedError(NumericalError):
    """Stochastic training left the region where its loss can be evaluated."""


@dataclass(frozen=True)
class Stochastic(SparseObjective):
    """The bound of Hensman et al. on minibatches (SVGP): O(B M²) a step, whatever N; for more rows than `Collapsed` can take.

        log p(y|X)/N >= mean_n [log N(y_n; w_nᵀm_v, σ²) - (k_nn - |w_n|² + |Rᵀw_n|²)/(2σ²)] - KL(q(v) || N(0, I))/N

    (Hensman et al. 2013, eq. 4, whitened). θ and Z take Adam steps, the rate falling to 0 as a cosine, and q(v) = N(m_v, RRᵀ)
    natural-gradient steps. One last pass over all rows sets q(v) to its optimum for the final θ and Z, which a Gaussian likelihood
    gives in closed form; the report's `nll` is the negative bound there, as for `Collapsed`.

    Raises `ConfigurationError` for a non-positive setting.

    >>> Stochastic(steps=500).batch
    1024
    """

    steps: int = 2000
    batch: int = 1024
    rate: float = 0.01
    natural_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.rate <= 0 or not 0 < self.natural_rate <= 1:
            raise ConfigurationError(
                "Stochastic wants steps and batch >= 1, rate > 0 and natural_rate in (0, 1]; "
                f"got {self.steps}, {self.batch}, {self.rate} and {self.natural_rate}"
            )

    def row_noise(self, noise_var: Float[Tensor, "E"], gap: Float[Tensor, "E k"]) -> Float[Tensor, "E k"]:
        """Return σ² for every row: the gap is paid for by the bound, not by the likelihood."""
        return noise_var.unsqueeze(-1).expand_as(gap)

    def train(self, problem: SparseProblem, generator: torch.Generator, progress: Progress | None) -> SparseResult:
        """Minimise (negative bound + penalty)/N for all outputs at once, on minibatches drawn by the generator."""
        return _Training(problem, self).run(generator, progress)


class _Model(gpytorch.models.ApproximateGP):
    """E sparse processes with a natural-gradient q(v) that starts at the optimum for the starting θ and Z."""

    def __init__(self, gp: GPModel, start: InducingPrior, precision: Tensor, shift: Tensor) -> None:
        outputs, size = shift.shape
        distribution = gpytorch.variational.NaturalVariationalDistribution(size, batch_shape=torch.Size([outputs]))
        strategy = gpytorch.variational.VariationalStrategy(
            self, start.points.clone(), distribution, learn_inducing_locations=True, jitter_val=float(start.ridge.max())
        )
        super().__init__(strategy)
        self.mean = gpytorch.means.ZeroMean(batch_shape=torch.Size([outputs]))
        self.covariance, self.likelihood = gp.covariance_module(), gp.likelihood
        self.double().to(shift.device)
        with torch.no_grad():
            distribution.natural_vec.copy_(shift)
            distribution.natural_mat.copy_(-0.5 * (precision + torch.eye(size, dtype=shift.dtype, device=shift.device)))
        # Else GPyTorch would start q(v) at the prior plus noise from the global random state.
        strategy.variational_params_initialized.fill_(1)

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.covariance(x))


class _Training:
    """One run: the model, the box of its bounded parameters, and the loss on a minibatch."""

    def __init__(self, problem: SparseProblem, settings: Stochastic) -> None:
        self.problem, self.settings = problem, settings
        self.rows, outputs = problem.y.shape
        self.gp = GPModel(problem.kernel, problem.x.shape[1], outputs, problem.training).to(problem.x.device)
        self.gp.write(problem.values)
        with torch.no_grad():
            values = self.gp.read()
            # GPyTorch has one ridge for all outputs.
            ridge = relative_ridge(values.kernel, problem.x).amax().expand(outputs)
            start = inducing_prior(problem.kernel, values.kernel, problem.points, ridge)
            evidence = gather(start, settings.row_noise, values.noise_var, problem.x, problem.y)
        self.model = _Model(self.gp, start, evidence.precision, evidence.shift)
        self.strategy = self.model.variational_strategy
        self.x_std = column_std(problem.x)
        lower, upper = torch.tensor(self.gp.raw_bounds(), dtype=torch.float64, device=problem.x.device).mT
        hyperparameters = list(self.gp.parameters())
        sizes = [p.numel() for p in hyperparameters]
        boxes = zip(hyperparameters, lower.split(sizes), upper.split(sizes), strict=True)
        self.boxes = [(p, low.reshape(p.shape), high.reshape(p.shape)) for p, low, high in boxes]
        self.boxes.append((self.strategy.inducing_points, *point_bounds(problem.x)))

    def run(self, generator: torch.Generator, progress: Progress | None) -> SparseResult:
        settings, losses = self.settings, []
        adam = torch.optim.Adam([p for p, _, _ in self.boxes], lr=settings.rate)
        natural = gpytorch.optim.NGD(self.model.variational_parameters(), num_data=self.rows, lr=settings.natural_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
        self.model.train()
        for step, batch in enumerate(_batches(self.rows, settings.batch, settings.steps, generator)):
            adam.zero_grad()
            natural.zero_grad()
            loss = self._loss(batch)
            loss.backward()
            natural.step()
            adam.step()
            schedule.step()
            with torch.no_grad():
                for parameter, lower, upper in self.boxes:
                    parameter.copy_(parameter.clamp(lower, upper))
            losses.append(float(loss.detach()))
            if progress is not None:
                progress(step + 1, settings.steps, {"loss": losses[-1]})
        return self._result(losses)

    def _loss(self, batch: Tensor) -> Tensor:
        x, targets = self.problem.x[batch], self.problem.y[batch].mT
        try:
            expected = self.gp.likelihood.expected_log_prob(targets, self.model(x)).mean(-1)
            loss = (self.strategy.kl_divergence() + self._penalty()) / self.rows - expected
        except (NotPSDError, NanError) as error:
            raise DivergedError(f"stochastic training broke down ({error}); lower the rate or raise the noise variance") from error
        if not bool(loss.isfinite().all()):
            raise DivergedError("the stochastic loss became non-finite; lower the rate or raise the noise variance")
        return loss.sum()

    def _penalty(self) -> Tensor:
        return self.gp.negative_log_prior() + curb(self.gp.read(), self.x_std, self.problem.training)

    def _result(self, losses: list[float]) -> SparseResult:
        points = self.strategy.inducing_points.detach().clone()
        with torch.no_grad():
            values, penalty = self.gp.read(), self._penalty()
            ridge = relative_ridge(values.kernel, self.problem.x)
            prior = inducing_prior(self.problem.kernel, values.kernel, points, ridge)
            nll = negative_bound(prior, values.noise_var, self.problem.x, self.problem.y)
        width = math.ceil(len(losses) / _CURVE_POINTS)
        curve = tuple(sum(part) / len(part) for part in (losses[i : i + width] for i in range(0, len(losses), width)))
        return SparseResult(values, points, nll, penalty, len(losses), {"minibatch loss": curve}, ())


def _batches(rows: int, size: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `count` minibatches of row numbers: permutation after permutation, the incomplete rest of each left out."""
    size, done = min(size, rows), 0
    while True:
        order = torch.randperm(rows, generator=generator, device=generator.device)
        for first in range(0, rows - size + 1, size):
            if done == count:
                return
            yield order[first : first + size]
            done += 1
