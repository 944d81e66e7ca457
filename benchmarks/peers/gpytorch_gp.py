"""Mean and variance of an exact Gaussian process in GPyTorch, batch shape [E], with its fast predictive variances."""

import gpytorch
import torch
from torch import Tensor

from bayesdyn.posteriors import ExactGP


class PeerGP(gpytorch.models.ExactGP):
    """E independent GPs with zero mean and one ARD RBF kernel each, with the data and hyper-parameters of one of ours."""

    def __init__(self, gp: ExactGP) -> None:
        batch = torch.Size([gp.sizes[1]])
        likelihood = gpytorch.likelihoods.GaussianLikelihood(batch_shape=batch)
        super().__init__(gp.x, gp.y.mT.contiguous(), likelihood)
        self.mean_module = gpytorch.means.ZeroMean(batch_shape=batch)
        rbf = gpytorch.kernels.RBFKernel(ard_num_dims=gp.sizes[0], batch_shape=batch)
        self.covar_module = gpytorch.kernels.ScaleKernel(rbf, batch_shape=batch)
        self.to(gp.x.dtype)
        rbf.lengthscale = gp.lengthscale.unsqueeze(-2)
        self.covar_module.outputscale = gp.signal_var
        likelihood.noise = gp.noise_var.unsqueeze(-1)
        self.eval()

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def predict(peer: PeerGP, x: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance of f at x, both [rows of x, E], `rows` points at a time; the first call fills the caches."""
    with torch.no_grad(), gpytorch.settings.fast_pred_var():
        parts = [peer(block) for block in x.split(rows)]
        return torch.cat([p.mean for p in parts], -1).mT, torch.cat([p.variance for p in parts], -1).mT
