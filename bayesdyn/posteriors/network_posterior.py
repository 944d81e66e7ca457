"""`NetworkPosterior`: what all posteriors over the parameters of one network shape have in common."""

import time
from abc import abstractmethod
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.errors import DataError, ShapeError
from bayesdyn.networks.network import Network
from bayesdyn.networks.noise import Noise
from bayesdyn.networks.training import Training
from bayesdyn.numerics import keep_buffers_on_error
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data, scale_warnings
from bayesdyn.progress import Progress

_SMALL, _LARGE, _SMALL_ROWS = (64, 64), (200, 200, 200), 1000
_HOPELESS = 100.0
_COLLAPSED = 0.05


@dataclass(frozen=True)
class Fit:
    """One fit of a network to x [N, D] and y [N, E]: `warm` goes on from the last one, `groups` [N] belong together."""

    network: Network
    x: Float[Tensor, "..."]
    y: Float[Tensor, "..."]
    warm: bool
    groups: Int[Tensor, "..."] | None
    generator: torch.Generator
    progress: Progress | None
    begun: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.begun

    def first_step(self, training: Training) -> int:
        """Return where it enters the schedule: at its start, or for the last `warm_steps` of it."""
        return max(0, training.steps - training.warm_steps) if self.warm else 0


class NetworkPosterior(Posterior):
    """p(θ|D) over the weights of a network: its shape, which `fit` fixes, and the parameters of its noise.

    `hidden=None` takes two layers of 64 below 1,000 rows and three of 200 from there on. A subclass registers what it keeps of θ,
    and learns it in `learn`, which ends with `keep`.

    Raises `ConfigurationError` for widths or an activation without a meaning.
    """

    noise_parameters: Tensor
    widths: Tensor

    def __init__(self, hidden: tuple[int, ...] | None, activation: str, noise: Noise) -> None:
        super().__init__()
        Network(1, _SMALL if hidden is None else hidden, 1, activation, noise)
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

    @abstractmethod
    def learn(self, fit: Fit) -> FitReport:
        """Learn p(θ|D) and return the report of it; the data have been checked."""

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Learn from the N rows, from scratch or, with `warm_start`, from where the last fit ended.

        Raises `ShapeError` for a warm start on other sizes, `ShapeError` or `DataError` for unusable data, of which columns a
        hundred times larger than whitened ones are a case, and `NumericalError` when a loss stops being finite.
        """
        return self._fit(x, y, None, warm_start, generator, progress)

    def fit_groups(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        groups: Int[Tensor, " N"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Fit; rows that are held out are those of whole groups, where there are five or more of these."""
        if groups.shape != x.shape[:1]:
            raise ShapeError(f"fit_groups wants a group for each of {len(x)} rows; got {list(groups.shape)}")
        return self._fit(x, y, groups, warm_start, generator, progress)

    def _fit(
        self,
        x: Tensor,
        y: Tensor,
        groups: Tensor | None,
        warm_start: bool,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> FitReport:
        network, warm = self._network_for(x, y, warm_start)
        generator = generator or torch.Generator().manual_seed(0)
        with keep_buffers_on_error(self), torch.enable_grad():
            report = self.learn(Fit(network, x.detach(), y.detach(), warm, groups, generator, progress))
        return replace(report, warnings=scale_warnings(x, y) + _collapse(report) + report.warnings)

    def _network_for(self, x: Tensor, y: Tensor, warm_start: bool) -> tuple[Network, bool]:
        """Return the network to train, and whether it goes on from a last fit."""
        check_training_data(x, y)
        _check_scale(x, y)
        if warm_start and self.sizes[0] > 0:
            if self.sizes != (x.shape[1], y.shape[1]):
                raise ShapeError(f"a warm start wants the sizes of the last fit, {self.sizes}; got {(x.shape[1], y.shape[1])}")
            return self.network, True
        default = _SMALL if len(x) < _SMALL_ROWS else _LARGE
        hidden = default if self.hidden is None else self.hidden
        return Network(x.shape[1], hidden, y.shape[1], self.activation, self.noise), False

    def keep(self, network: Network, noise_parameters: Float[Tensor, "..."]) -> None:
        """Store the shape of what was fitted and the parameters of its noise."""
        self.widths = torch.tensor([network.inputs, *network.hidden, network.outputs])
        self.noise_parameters = noise_parameters


def _check_scale(x: Tensor, y: Tensor) -> None:
    for name, values in (("x", x), ("y", y)):
        rms = values.detach().double().square().mean(0).sqrt()
        if bool((rms > _HOPELESS).any()):
            raise DataError(
                f"{name} has a root mean square of {float(rms.max()):.2g} in column {int(rms.argmax())}; networks want about 1: "
                "whiten it first, or wrap the posterior, Standardize(posterior)"
            )


def _collapse(report: FitReport) -> tuple[str, ...]:
    held_out = report.r2_held_out is not None
    collapsed = [str(output) for output, r2 in enumerate(report.r2_held_out or report.r2_train) if not r2 >= _COLLAPSED]
    where = " on held-out rows" if held_out else ""
    which = f"output {''.join(collapsed)} is" if len(collapsed) < 2 else f"outputs {', '.join(collapsed)} are"
    return (f"{which} predicted no better than by the mean{where}",) if collapsed else ()
