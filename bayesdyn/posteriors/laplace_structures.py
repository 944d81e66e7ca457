"""Which parameters a Laplace approximation treats as uncertain, and how it keeps their covariance."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.networks.function import NetworkFunction
from bayesdyn.networks.linearised import LinearisedFunction
from bayesdyn.networks.network import Network, Parameters

_LARGEST = 8000  # an eigendecomposition of this size takes minutes and 0.5 GB


class Curvature(NamedTuple):
    """I + BᵀB = I + V diag(s) Vᵀ of a scaled Jacobian B [M, p]: `directions` V [p, r] orthonormal, `eigenvalues` s [r].

    A diagonal structure has no directions, [p, 0], and one eigenvalue per parameter.
    """

    directions: Float[Tensor, "p _"]
    eigenvalues: Float[Tensor, " r"]


class Structure(ABC):
    r"""How the posterior precision H = diag(δ) + JᵀΛJ of the parameters is approximated; it holds settings only.

    With B = √Λ J diag(δ)^-½, H = diag(δ)^½ (I + BᵀB) diag(δ)^½, so a structure needs to know I + BᵀB only.
    """

    def first_layer(self, network: Network) -> int:
        """Index of the first layer whose parameters are uncertain: 0 unless a structure leaves some out."""
        return 0

    @abstractmethod
    def decompose(self, scaled: Float[Tensor, "M p"]) -> Curvature:
        """Return the curvature of the scaled Jacobian B."""

    @abstractmethod
    def spread(self, curvature: Curvature, rows: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch p"]:
        """Return rows·(I + BᵀB)^-½: standard normal rows become draws, and the square of a row's length its variance."""

    @abstractmethod
    def determined(self, curvature: Curvature) -> Float[Tensor, " p"]:
        """Return 1 - diag (I + BᵀB)⁻¹, how far the data determine each parameter; the sum is the effective number γ."""

    @abstractmethod
    def function(self, network: Network, parameters: Parameters, deviations: Float[Tensor, "n p"]) -> Function:
        """Return the draws with these deviations of the uncertain parameters from θ."""


def primal(scaled: Float[Tensor, "M p"]) -> Curvature:
    """Return the eigenvectors and eigenvalues of BᵀB, p of them: for more rows than parameters."""
    eigenvalues, directions = torch.linalg.eigh(scaled.mT @ scaled)
    return Curvature(directions, eigenvalues.clamp_min(0))


def dual(scaled: Float[Tensor, "M p"]) -> Curvature:
    """Return those of the M (or fewer) largest eigenvalues, from BBᵀ = U diag(s) Uᵀ and V = BᵀU diag(s)^-½.

    Eigenvalues that rounding cannot tell from 0 are left out: their directions are not determined by the data.
    """
    eigenvalues, left = torch.linalg.eigh(scaled @ scaled.mT)
    kept = eigenvalues > eigenvalues[-1] * len(eigenvalues) * torch.finfo(scaled.dtype).eps
    eigenvalues = eigenvalues[kept]
    return Curvature(scaled.mT @ left[:, kept] * eigenvalues.rsqrt(), eigenvalues)


@dataclass(frozen=True)
class FullGGN(Structure):
    """All covariances of all parameters, from p or from M = NE eigenvalues, whichever are fewer; draws are linearised networks.

    Raises `ConfigurationError` when both are above 8,000.
    """

    def decompose(self, scaled: Float[Tensor, "M p"]) -> Curvature:
        """Return `primal` or `dual`."""
        if min(scaled.shape) > _LARGEST:
            raise ConfigurationError(
                f"the full GGN wants at most {_LARGEST} parameters or rows; got {scaled.shape[1]} parameters and {scaled.shape[0]} "
                "rows; take narrower layers, DiagonalGGN() or LastLayer()"
            )
        return primal(scaled) if scaled.shape[1] <= scaled.shape[0] else dual(scaled)

    def spread(self, curvature: Curvature, rows: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch p"]:
        """Return rows·(I + V (diag(1 + s)^-½ - I) Vᵀ)."""
        directions, shrink = curvature.directions, (1 + curvature.eigenvalues).rsqrt() - 1
        return rows + (rows @ directions * shrink) @ directions.mT

    def determined(self, curvature: Curvature) -> Float[Tensor, " p"]:
        """Return Σ_r V_pr² s_r/(1 + s_r)."""
        return curvature.directions.square() @ (curvature.eigenvalues / (1 + curvature.eigenvalues))

    def function(self, network: Network, parameters: Parameters, deviations: Float[Tensor, "n p"]) -> LinearisedFunction:
        """Return linearised networks: plain ones with these weights underfit."""
        return LinearisedFunction.around(network, parameters, deviations)


@dataclass(frozen=True)
class DiagonalGGN(Structure):
    """The diagonal of the precision, so independent parameters; draws are linearised networks."""

    def decompose(self, scaled: Float[Tensor, "M p"]) -> Curvature:
        """Return Σ_m B_mp²."""
        return Curvature(scaled.new_empty(scaled.shape[1], 0), scaled.square().sum(0))

    def spread(self, curvature: Curvature, rows: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch p"]:
        """Return rows·diag(1 + s)^-½."""
        return rows * (1 + curvature.eigenvalues).rsqrt()

    def determined(self, curvature: Curvature) -> Float[Tensor, " p"]:
        """Return s/(1 + s)."""
        return curvature.eigenvalues / (1 + curvature.eigenvalues)

    def function(self, network: Network, parameters: Parameters, deviations: Float[Tensor, "n p"]) -> LinearisedFunction:
        """Return linearised networks."""
        return LinearisedFunction.around(network, parameters, deviations)


@dataclass(frozen=True)
class LastLayer(Structure):
    """The last layer's parameters alone, with the covariance of `within`; draws are networks that share all other layers."""

    within: Structure = FullGGN()

    def first_layer(self, network: Network) -> int:
        """Index of the last layer."""
        return len(network.hidden)

    def decompose(self, scaled: Float[Tensor, "M p"]) -> Curvature:
        """Return the curvature of `within`."""
        return self.within.decompose(scaled)

    def spread(self, curvature: Curvature, rows: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch p"]:
        """Return the spread of `within`."""
        return self.within.spread(curvature, rows)

    def determined(self, curvature: Curvature) -> Float[Tensor, " p"]:
        """Return what `within` determines."""
        return self.within.determined(curvature)

    def function(self, network: Network, parameters: Parameters, deviations: Float[Tensor, "n p"]) -> NetworkFunction:
        """Return networks whose last layer is θ + δ in the columns of the mean."""
        weights, biases = network.unflatten(parameters.theta)
        weight, bias = deviations.split([weights[-1][0].numel(), biases[-1].shape[-1]], -1)
        mean_only = (torch.arange(biases[-1].shape[-1], device=deviations.device) < network.outputs).to(deviations.dtype)
        weights[-1] = weights[-1] + weight.unflatten(-1, weights[-1].shape[1:]) * mean_only
        biases[-1] = biases[-1] + (bias * mean_only).unsqueeze(1)
        return NetworkFunction(weights, biases, network.noise, parameters.noise, activation=network.activation)
