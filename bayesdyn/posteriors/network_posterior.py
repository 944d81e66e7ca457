"""`NetworkPosterior`: what all posteriors over the parameters of one network shape have in common."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ShapeError
from bayesdyn.networks.network import Network
from bayesdyn.networks.noise import Noise
from bayesdyn.posteriors.base import Posterior, check_training_data

SMALL, LARGE, SMALL_ROWS = (64, 64), (200, 200, 200), 1000


class NetworkPosterior(Posterior):
    """p(θ|D) over the weights of a network: its shape, which `fit` fixes, and the parameters of its noise.

    `hidden=None` takes two layers of 64 below 1,000 rows and three of 200 from there on. A subclass registers what it keeps of θ,
    calls `network_for` first and `keep` last in its `fit`.

    Raises `ConfigurationError` for widths or an activation without a meaning.
    """

    noise_parameters: Tensor
    widths: Tensor

    def __init__(self, hidden: tuple[int, ...] | None, activation: str, noise: Noise) -> None:
        super().__init__()
        Network(1, SMALL if hidden is None else hidden, 1, activation, noise)
        self.hidden, self.activation, self.noise = hidden, activation, noise
        self.register_buffer("noise_parameters", torch.empty(0, 0, 0))
        self.register_buffer("widths", torch.empty(0, dtype=torch.int64))

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E) of the fitted posterior, (0, 0) before `fit`."""
        return (int(self.widths[0]), int(self.widths[-1])) if len(self.widths) else (0, 0)

    @property
    def network(self) -> Network:
        """The shape of the fitted network; raises `NotFittedError` before `fit`."""
        self.check_fitted()
        inputs, *hidden, outputs = self.widths.tolist()
        return Network(inputs, tuple(hidden), outputs, self.activation, self.noise)

    def network_for(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], warm_start: bool) -> tuple[Network, bool]:
        """Return the network that a fit to x and y trains, and whether it goes on from the last fit (there has to be one).

        Raises `ShapeError` or `DataError` for unusable data, and `ShapeError` for a warm start on other sizes.
        """
        check_training_data(x, y)
        if warm_start and self.sizes[0] > 0:
            if self.sizes != (x.shape[1], y.shape[1]):
                raise ShapeError(f"a warm start wants the sizes of the last fit, {self.sizes}; got {(x.shape[1], y.shape[1])}")
            return self.network, True
        default = SMALL if len(x) < SMALL_ROWS else LARGE
        hidden = default if self.hidden is None else self.hidden
        return Network(x.shape[1], hidden, y.shape[1], self.activation, self.noise), False

    def keep(self, network: Network, noise_parameters: Float[Tensor, "..."]) -> None:
        """Store the shape of what was fitted and the parameters of its noise."""
        self.widths = torch.tensor([network.inputs, *network.hidden, network.outputs])
        self.noise_parameters = noise_parameters
