"""Golden numbers of PILCO as tensors, and the Gaussian processes that they belong to."""

import json
from pathlib import Path

import torch

from bayesdyn.gaussian_processes.moment_map import GPMoments, Uncertainty, rbf_weights

F64 = torch.float64
FOLDER = Path(__file__).parents[1] / "golden" / "pilco"
SHAPES = {"M": "mean", "S": "cov", "V": "gain"}


def cases(name: str) -> list[dict]:
    return json.loads((FOLDER / name).read_text())["cases"]


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def belief(case: dict) -> tuple[torch.Tensor, torch.Tensor]:
    return tensor(case["m"]), tensor(case["s"])


def hyperparameters(log_hyp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return log_hyp[:-2].exp().mT, (2 * log_hyp[-2]).exp(), (2 * log_hyp[-1]).exp()


def exact_gp(x: torch.Tensor, y: torch.Tensor, log_hyp: torch.Tensor, extra: torch.Tensor | None = None) -> GPMoments:
    """Return gp0 for x [N, D] and y [N, E]; `extra` [N, E] is more noise per point."""
    lengthscale, signal_var, noise_var = hyperparameters(log_hyp)
    apart = ((x[:, None] - x[None]) / lengthscale[:, None, None]).square().sum(-1)
    noise = noise_var[:, None].expand(-1, len(x)) + (0 if extra is None else extra.mT)
    root = torch.linalg.cholesky(signal_var[:, None, None] * (-0.5 * apart).exp() + torch.diag_embed(noise))
    beta = torch.cholesky_solve(y.mT.unsqueeze(-1), root).squeeze(-1)
    return GPMoments(x, lengthscale, signal_var, beta, uncertainty=Uncertainty(root, torch.cholesky_inverse(root)))


def gp0(case: dict) -> GPMoments:
    extra = tensor(case["nigp"]) if "nigp" in case else None
    return exact_gp(tensor(case["inputs"]), tensor(case["targets"]), tensor(case["log_hyp"]), extra)


def gp2_weights(x: torch.Tensor, y: torch.Tensor, log_hyp: torch.Tensor) -> torch.Tensor:
    """Return σf²(σf²K + σn²)⁻¹y, since `rbf_weights` has a signal of 1."""
    return rbf_weights(x, y, log_hyp[:-2].exp().mT, noise_std=(log_hyp[-1] - log_hyp[-2]).exp())


def flat(tensor: torch.Tensor, dims: int) -> torch.Tensor:
    """Flatten the last `dims` axes, matrices column by column."""
    return tensor.mT.flatten(-2) if dims == 2 else tensor


def jacobian(function, argument: torch.Tensor, *, symmetric: bool = False) -> dict[str, torch.Tensor]:
    """Return first derivatives of mean, cov and gain by one backward pass per output entry, as in the golden files."""
    argument = argument.clone().requires_grad_()
    moments = function(argument)
    found = {}
    for letter, name in SHAPES.items():
        value = getattr(moments, name)
        rows = []
        for entry in flat(value, value.dim()).reshape(-1):
            (gradient,) = torch.autograd.grad(entry, argument, retain_graph=True, allow_unused=True)
            gradient = torch.zeros_like(argument) if gradient is None else gradient
            gradient = 0.5 * (gradient + gradient.mT) if symmetric else gradient
            rows.append(flat(gradient, argument.dim()))
        found[letter] = torch.stack(rows)
    return found
