"""Closed-loop paths of a Gaussian process in BoTorch: `draw_matheron_paths`, evaluated at each path's own state."""

from collections.abc import Callable
from functools import partial

import gpytorch
import torch
from botorch.models import SingleTaskGP
from botorch.sampling.pathwise import draw_kernel_feature_paths, draw_matheron_paths
from torch import Tensor

from bayesdyn.posteriors import ExactGP


def make_model(gp: ExactGP) -> SingleTaskGP:
    """Return a SingleTaskGP with zero mean and an ARD RBF kernel per output, with the data and hyper-parameters of one of ours."""
    inputs, outputs = gp.sizes
    batch = torch.Size([outputs])
    rbf = gpytorch.kernels.RBFKernel(ard_num_dims=inputs, batch_shape=batch)
    kernel = gpytorch.kernels.ScaleKernel(rbf, batch_shape=batch)
    likelihood = gpytorch.likelihoods.GaussianLikelihood(batch_shape=batch)
    mean = gpytorch.means.ZeroMean(batch_shape=batch)
    model = SingleTaskGP(
        gp.x, gp.y, likelihood=likelihood, covar_module=kernel, mean_module=mean, outcome_transform=None, input_transform=None
    )
    rbf.lengthscale = gp.lengthscale.unsqueeze(-2)
    kernel.outputscale = gp.signal_var
    likelihood.noise = gp.noise_var.unsqueeze(-1)
    return model.eval()


@torch.no_grad()
def draw(model: SingleTaskGP, paths: int, features: int) -> Callable[[Tensor], Tensor]:
    """Return `paths` functions that map each path's own input, [paths, D] -> [paths, E]."""
    sampler = partial(draw_kernel_feature_paths, num_features=features)
    functions = draw_matheron_paths(model, torch.Size([paths]), prior_sampler=sampler)

    @torch.no_grad()
    def evaluate(x: Tensor) -> Tensor:
        return functions(x[:, None, None, :]).squeeze(-1)

    return evaluate
