"""Prior precisions and noise variances of a Laplace approximation, by maximising its evidence at a fixed mode."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.networks.noise import Noise
from bayesdyn.posteriors.laplace_structures import Curvature, Structure

_LOG_2PI = math.log(2 * math.pi)
_SCALE_BOUNDS = (1e-4, 1e4)  # of δ in units of the network's own prior precision
_LEAST_VAR = 1e-8


@dataclass(frozen=True)
class Evidence:
    """How far the evidence is maximised: fixed-point steps until nothing moves by more than `tolerance`, relatively.

    `rounds` is how often at most the mode is trained again, under the hyperparameters found, as long as that raises the log
    evidence by more than `gain` nats. `polish` is how many Gauss-Newton steps finish the mode after each training, with the
    evidence maximised again after each. `iterations=0` keeps the prior of the network and the noise that training finds.

    Raises `ConfigurationError` for values without a meaning.
    """

    iterations: int = 10
    tolerance: float = 1e-2
    rounds: int = 8
    polish: int = 1
    gain: float = 1.0

    def __post_init__(self) -> None:
        if min(self.iterations, self.rounds, self.polish, self.gain) < 0 or self.tolerance <= 0:
            raise ConfigurationError(f"the evidence wants counts and a gain >= 0 and a tolerance > 0; got {self}")


@dataclass(frozen=True)
class Mode:
    """What the evidence needs to know of the mode θ*: N rows, C columns of the last layer, p uncertain parameters in L layers."""

    jacobian: Float[Tensor, "N C p"]
    columns: Float[Tensor, "N C"]
    y: Float[Tensor, "N E"]
    theta: Float[Tensor, " p"]
    precision: Float[Tensor, " p"]  # of the network's prior, in units of which a layer's δ is measured
    layer: Int[Tensor, " p"]  # of each parameter, from 0


@dataclass(frozen=True)
class Hyperparameters:
    """δ = scale[layer]·precision, and the parameters of the noise model."""

    scale: Float[Tensor, " L"]
    noise: Float[Tensor, "1 rows E"]

    def moved(self, other: "Hyperparameters") -> float:
        """Return the largest change of a log scale or of a noise parameter."""
        scale = (self.scale / other.scale).log().abs().max()
        return float(torch.maximum(scale, (self.noise - other.noise).abs().max()))


@dataclass(frozen=True)
class Approximation:
    """The Gaussian at the mode under some hyperparameters, its log evidence in nats, and the fixed point's next step from there."""

    curvature: Curvature
    log_evidence: float
    following: Hyperparameters


def output_precision(noise: Noise, parameters: Float[Tensor, "1 rows E"], columns: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    r"""Return Λ, the Fisher information of the last layer's columns: e^-η for a mean, ½ (∂η/∂column)² for one that sets η.

    >>> from bayesdyn.networks import Homoscedastic
    >>> output_precision(Homoscedastic(), torch.zeros(1, 1, 1), torch.zeros(2, 1))
    tensor([[1.],
            [1.]])
    """
    with torch.enable_grad():
        raw = columns.detach().requires_grad_()
        mean, log_var = noise.split(raw.unsqueeze(0), parameters.detach())
        # Every column concerns one output, so the gradient of the sum is the derivative of each; 0·mean is for an η that has none.
        log_var = log_var + 0 * mean
        (slope,) = torch.autograd.grad(log_var.sum(), raw)
    precision = 0.5 * slope.square()
    precision[:, : parameters.shape[-1]] += (-log_var.detach()[0]).exp()
    return precision


def approximate(structure: Structure, mode: Mode, noise: Noise, at: Hyperparameters) -> Approximation:
    r"""Return the Laplace approximation at the mode and the next step of MacKay's fixed point.

        log evidence = log p(D|θ*) - ½ θ*ᵀδθ* + ½ Σ log δ - ½ log|H|,   H = diag(δ) + JᵀΛJ
        δ_l ← γ_l / |θ*_l|²,   σ_e² ← Σ_n r_ne² / (N - γ_e)

    γ_l and γ_e are the effective numbers of parameters of a layer and of an output; both steps stand still where the gradient of
    the evidence is zero.

    Source: MacKay 1992, Bayesian interpolation, section 4, with one δ per layer and one σ² per output.
    """
    precision = output_precision(noise, at.noise, mode.columns)
    delta = at.scale[mode.layer] * mode.precision
    scaled = mode.jacobian * precision.sqrt().unsqueeze(-1) * delta.rsqrt()
    curvature = structure.decompose(scaled.flatten(0, 1))
    mean, log_var = (part[0] for part in noise.split(mode.columns.unsqueeze(0), at.noise))
    square = (mode.y - mean).square()
    log_likelihood = -0.5 * (square * (-log_var).exp() + log_var + _LOG_2PI).sum()
    log_prior = -0.5 * (delta * mode.theta.square()).sum()
    log_evidence = log_likelihood + log_prior - 0.5 * curvature.eigenvalues.log1p().sum()
    size = torch.zeros_like(at.scale).index_add_(0, mode.layer, mode.precision * mode.theta.square())
    gamma = torch.zeros_like(at.scale).index_add_(0, mode.layer, structure.determined(curvature))
    scale = (gamma / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp(*_SCALE_BOUNDS)
    used = structure.spread(curvature, scaled[:, : mode.y.shape[1]]).square().sum(-1).sum(0)
    var = square.sum(0) / (len(mode.y) - used).clamp_min(torch.finfo(used.dtype).eps * len(mode.y))
    following = Hyperparameters(scale, noise.with_variance(at.noise, var.clamp_min(_LEAST_VAR).unsqueeze(0)))
    return Approximation(curvature, float(log_evidence), following)


def maximise_evidence(
    structure: Structure, mode: Mode, noise: Noise, start: Hyperparameters, settings: Evidence
) -> tuple[Hyperparameters, Curvature, tuple[float, ...]]:
    """Return the hyperparameters at the fixed point, the curvature there, and the log evidence of every step."""
    current, trace = start, []
    for _ in range(settings.iterations):
        found = approximate(structure, mode, noise, current)
        trace.append(found.log_evidence)
        if found.following.moved(current) < settings.tolerance:
            return current, found.curvature, tuple(trace)
        current = found.following
    found = approximate(structure, mode, noise, current)
    return current, found.curvature, (*trace, found.log_evidence)


def at_bound(hyperparameters: Hyperparameters, first_layer: int) -> tuple[str, ...]:
    """Return the names of the layers whose prior precision ended at a bound."""
    low, high = _SCALE_BOUNDS
    stuck = (hyperparameters.scale <= low) | (hyperparameters.scale >= high)
    return tuple(f"prior precision of layer {first_layer + int(i)}" for i in stuck.nonzero())
