"""Figures that have to be exact: GP beside GPyTorch, pathwise draws beside the joint posterior, density of an ensemble."""

import math

import gpytorch
import torch
from torch import Tensor

from bayesdyn.kernels import RBF, covariance
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP
from benchmarks.acceptance import Acceptance, main

DRAWS, SETS = 4000, 400  # ten draws from each of 400 sets of random features, whose error then averages out


def toy(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return whitened x [80, 3], y [80, 2] and query points [25, 3]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 3, generator=generator, dtype=torch.float64)
    y = torch.stack([torch.sin(2 * x[:, 0]) + 0.3 * x[:, 1], x[:, 2].tanh() * x[:, 0]], 1)
    y = y + 0.1 * torch.randn(80, 2, generator=generator, dtype=torch.float64)
    return x, y, torch.randn(25, 3, generator=generator, dtype=torch.float64)


def gpytorch_posterior(gp: ExactGP, query: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of f by GPyTorch with the hyper-parameters of `gp`, [Q, E] each."""
    means, variances = [], []
    for e in range(gp.sizes[1]):
        likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.GreaterThan(1e-12)).double()

        class Model(gpytorch.models.ExactGP):
            def __init__(self) -> None:
                super().__init__(gp.x, gp.y[:, e], likelihood)  # noqa: B023
                self.mean_module = gpytorch.means.ZeroMean()
                self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=gp.sizes[0]))

            def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
                return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

        model = Model().double()
        model.covar_module.base_kernel.lengthscale = gp.lengthscale[e]
        model.covar_module.outputscale = gp.signal_var[e]
        likelihood.noise = gp.noise_var[e]
        model.eval()
        with (
            torch.no_grad(),
            gpytorch.settings.fast_computations(False, False, False),
            gpytorch.settings.skip_posterior_variances(False),
        ):
            answer = model(query)
            means.append(answer.mean)
            variances.append(answer.variance)
    return torch.stack(means, -1), torch.stack(variances, -1)


def joint_z_scores(gp: ExactGP, query: Tensor, seed: int) -> tuple[float, float]:
    """Return the largest deviations of mean and covariance of 4,000 pathwise draws, in standard errors over feature sets."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.stack([gp.sample(DRAWS // SETS, generator)(query.unsqueeze(0)).mean for _ in range(SETS)])  # [sets, n, Q, E]
    worst_mean = worst_cov = 0.0
    for e in range(gp.sizes[1]):
        exact_mean, exact_cov = exact_joint(gp, query, e)
        deviation = draws[..., e] - exact_mean
        of_mean = deviation.mean(1)
        worst_mean = max(worst_mean, float((of_mean.mean(0).abs() / (of_mean.std(0) / math.sqrt(SETS))).max()))
        of_cov = torch.einsum("snq,snr->sqr", deviation, deviation) / deviation.shape[1]
        error = of_cov.std(0) / math.sqrt(SETS)
        worst_cov = max(worst_cov, float(((of_cov.mean(0) - exact_cov).abs() / error).max()))
    return worst_mean, worst_cov


def exact_joint(gp: ExactGP, query: Tensor, e: int) -> tuple[Tensor, Tensor]:
    """Return the dense posterior mean [Q] and covariance [Q, Q] of output e."""
    parameters, kernel = gp.kernel_parameters, RBF()
    k = covariance(kernel, parameters, gp.x, gp.x)[e] + gp.noise_var[e] * torch.eye(len(gp.x), dtype=torch.float64)
    cross = covariance(kernel, parameters, gp.x, query)[e]
    solved = torch.linalg.solve(k, cross)
    return solved.mT @ gp.y[:, e], covariance(kernel, parameters, query, query)[e] - cross.mT @ solved


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Measure over several data sets."""
    torch.set_num_threads(1)
    means, variances, mean_z, cov_z, density = [], [], [], [], []
    for seed in range(2 if quick else 5):
        x, y, query = toy(seed)
        gp = ExactGP(features=256)
        gp.fit(x, y)
        predictive = gp.predict(query)
        mean, var = gpytorch_posterior(gp, query)
        means.append(float(((predictive.mean - mean) / mean).abs().max()))
        variances.append(float(((predictive.epistemic_variance - var) / var).abs().max()))
        for scores, value in zip((mean_z, cov_z), joint_z_scores(gp, query, seed), strict=True):
            scores.append(value)
        density.append(mixture_error(x.float(), y.float(), query.float(), seed))
    acceptance.below("GP mean against GPyTorch, largest relative difference", means, 1e-8)
    acceptance.below("GP variance against GPyTorch, largest relative difference", variances, 1e-8)
    # The largest of 50 means and of 1,250 covariances: 4.5 and 5 standard errors are passed by chance once in 3,000 and 1,400.
    acceptance.below("mean of 4,000 pathwise draws, largest deviation in standard errors", mean_z, 4.5)
    acceptance.below("covariance of 4,000 pathwise draws, largest deviation in standard errors", cov_z, 5.0)
    acceptance.below("ensemble log density against the mixture over its members, largest difference", density, 1e-4)


def mixture_error(x: Tensor, y: Tensor, query: Tensor, seed: int) -> float:
    """Return the largest difference between an ensemble's log density and the mixture of torch.distributions over its members."""
    ensemble = BootstrapEnsemble(hidden=(32, 32))
    ensemble.fit(x, y, generator=torch.Generator().manual_seed(seed))
    predictive, target = ensemble.predict(query), torch.zeros(len(query), y.shape[1])
    parts = torch.distributions.Independent(
        torch.distributions.Normal(predictive.component_mean.movedim(0, 1), predictive.component_var.sqrt().movedim(0, 1)), 1
    )
    weights = torch.distributions.Categorical(torch.ones(len(query), predictive.components))
    expected = torch.distributions.MixtureSameFamily(weights, parts).log_prob(target)
    return float((predictive.log_prob(target) - expected).abs().max())


if __name__ == "__main__":
    main("exactness", measure, __doc__.splitlines()[0])
