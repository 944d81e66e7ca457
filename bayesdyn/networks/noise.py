"""Noise models of a network: what its last layer's columns and the noise parameters say about p(y | x, θ)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# A log variance that all rows share is stored divided by this, so that Adam, whose steps have one size whatever the gradient,
# moves it ten times as fast as a weight. At one learning rate (3e-3, 1,500 steps) it could not travel from -2 to -8.
_PACE = 10.0
# Where it starts: low enough that explaining the targets pays from the first step. Starting at the targets' own variance, networks
# on few rows settle for the mean and call the rest noise.
_START = -2.0


class Noise(ABC):
    """Turns the last layer's columns [L, R, columns] and the parameters [L, rows, E] into a mean and a log variance [L, R, E].

    The first E columns are the mean; any other column belongs to the log variance of one output. It holds settings only; the
    parameters are kept by whoever trains or draws them. `wants_held_out` says that it cannot do without rows that the network
    never saw.
    """

    wants_held_out: ClassVar[bool] = False

    @abstractmethod
    def columns(self, outputs: int) -> int:
        """Columns of the last layer for E outputs."""

    @abstractmethod
    def start(self, members: int, outputs: int) -> Float[Tensor, "K rows E"]:
        """Return the parameters that training starts from."""

    @abstractmethod
    def split(
        self, raw: Float[Tensor, "L R columns"], parameters: Float[Tensor, "K rows E"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return the mean [L, R, E] and the log variance, which broadcasts against it."""

    def penalty(self, parameters: Float[Tensor, "K rows E"]) -> Float[Tensor, " K"]:
        """Return what is added to each member's loss per data point: nothing, unless a noise model says otherwise."""
        return parameters.new_zeros(parameters.shape[0])

    def refresh(self, parameters: Float[Tensor, "K rows E"], held_out_mse: Float[Tensor, "K E"]) -> Float[Tensor, "K rows E"]:
        """Return the parameters after a look at the held-out residuals: unchanged, unless a noise model is set by them."""
        return parameters

    def with_variance(self, parameters: Float[Tensor, "K rows E"], var: Float[Tensor, "K E"]) -> Float[Tensor, "K rows E"]:
        """Return the parameters under which every row has these variances: unchanged where the variance depends on the row."""
        return parameters

    def start_at(self, var: Float[Tensor, "K E"]) -> Float[Tensor, "K rows E"]:
        """Return the parameters that training starts from where these variances are known to be about right."""
        return self.with_variance(self.start(*var.shape).to(var), var)


@dataclass(frozen=True)
class Heteroscedastic(Noise):
    r"""A log variance per row and output, around a learned centre and softly bounded by learned bounds.

        η = centre + column,    η' = η_max - softplus(η_max - η),    η'' = η_min + softplus(η' - η_min),
        loss term `curb`·Σ_d (η_max - η_min)

    The bounds keep the variance sane away from the data; η'' lies in [η_min, η_max + 3e-5]. The centre has no prior: that of the
    columns says how the noise varies, not how large it is. Rows of the parameters: η_min, η_max, centre/10.

    Source: Chua, Calandra, McAllister, Levine 2018 (PETS), appendix A.1; the centre is our addition.

    >>> noise = Heteroscedastic()
    >>> mean, log_var = noise.split(torch.tensor([[[0.0, 1e6]]]), noise.start(1, 1))
    >>> round(log_var.item(), 3)
    0.5
    """

    low: float = -10.0
    high: float = 0.5
    curb: float = 0.01

    def columns(self, outputs: int) -> int:
        """Mean and log variance."""
        return 2 * outputs

    def start(self, members: int, outputs: int) -> Float[Tensor, "K rows E"]:
        """The bounds `low` and `high` and a centre of -2 for each output."""
        return torch.tensor([[self.low], [self.high], [_START / _PACE]]).expand(members, 3, outputs).clone()

    def start_at(self, var: Float[Tensor, "K E"]) -> Float[Tensor, "K rows E"]:
        """The bounds `low` and `high` and the log variances as the centre."""
        bounds = self.start(*var.shape).to(var)[:, :2]
        return torch.cat([bounds, var.log().unsqueeze(1) / _PACE], 1)

    def split(
        self, raw: Float[Tensor, "L R columns"], parameters: Float[Tensor, "K rows E"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return the first E columns and the centred and bounded last E columns."""
        mean, deviation = raw.chunk(2, -1)
        low, high, centre = parameters.split(1, 1)
        log_var = high - functional.softplus(high - _PACE * centre - deviation)
        return mean, low + functional.softplus(log_var - low)

    def penalty(self, parameters: Float[Tensor, "K rows E"]) -> Float[Tensor, " K"]:
        """Return curb·Σ_d (η_max - η_min)."""
        return self.curb * (parameters[:, 1] - parameters[:, 0]).sum(-1)


@dataclass(frozen=True)
class Homoscedastic(Noise):
    """One learned log variance per output, the same for every row; the parameters hold a tenth of it, [K, 1, E].

    >>> noise = Homoscedastic()
    >>> noise.split(torch.zeros(1, 4, 2), noise.start(1, 2))[1]
    tensor([[[-2., -2.]]])
    """

    def columns(self, outputs: int) -> int:
        """The mean alone."""
        return outputs

    def start(self, members: int, outputs: int) -> Float[Tensor, "K rows E"]:
        """A log variance of -2 for each output."""
        return torch.full((members, 1, outputs), _START / _PACE)

    def split(
        self, raw: Float[Tensor, "L R columns"], parameters: Float[Tensor, "K rows E"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return the columns as they are and the log variance, [K, 1, E]."""
        return raw, _PACE * parameters

    def with_variance(self, parameters: Float[Tensor, "K rows E"], var: Float[Tensor, "K E"]) -> Float[Tensor, "K rows E"]:
        """Return a tenth of the log variances."""
        return var.log().unsqueeze(1) / _PACE


@dataclass(frozen=True)
class OutOfBag(Noise):
    """Deterministic members: squared error, and one variance per output from residuals on rows that the member never saw.

    Training residuals are too small where a network can interpolate. The squared error is weighted by the current variance, so
    that the loss stays in nats and the prior keeps its meaning. The parameters are the log variances, [K, 1, E]; no gradient
    reaches them. `floor` is the smallest variance, in whitened units.
    """

    floor: float = 1e-6
    wants_held_out: ClassVar[bool] = True

    def columns(self, outputs: int) -> int:
        """The mean alone."""
        return outputs

    def start(self, members: int, outputs: int) -> Float[Tensor, "K rows E"]:
        """A log variance of -2 for each output."""
        return torch.full((members, 1, outputs), _START)

    def split(
        self, raw: Float[Tensor, "L R columns"], parameters: Float[Tensor, "K rows E"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return the columns as they are and the log variance, [K, 1, E]."""
        return raw, parameters.detach()

    def refresh(self, parameters: Float[Tensor, "K rows E"], held_out_mse: Float[Tensor, "K E"]) -> Float[Tensor, "K rows E"]:
        """Return the log of the held-out mean squared error."""
        return held_out_mse.clamp_min(self.floor).log().unsqueeze(1)
