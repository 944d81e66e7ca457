"""Training of networks with a variance per row in two parts: their means first, under one variance per output, then both."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from bayesdyn.errors import ConfigurationError
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Homoscedastic, OutOfBag
from bayesdyn.networks.training import Trained, Training, train
from bayesdyn.progress import Progress


@dataclass(frozen=True)
class MeanFirst:
    """Which share of the steps trains the means alone; a noise model without columns of its own has all steps to itself.

    Raises `ConfigurationError` unless 0 <= share < 1.

    >>> parts = MeanFirst(0.5).parts(Training(steps=300), Network(2, (8,), 1))
    >>> [part.steps for part in parts]
    [150, 150]
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigurationError(f"mean_first is a share of the steps, 0 <= mean_first < 1; got {self.share}")

    def parts(self, training: Training, network: Network) -> tuple[Training, ...]:
        """Return the settings of each part, each with a schedule of its own; those of the last part come last."""
        means = int(self.share * training.steps) if network.widths[-1] > network.outputs else 0
        if means < 1:
            return (training,)
        return replace(training, steps=means), replace(training, steps=training.steps - means)


def train_mean_first(
    network: Network,
    start: Parameters,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    counts: Int[Tensor, "K N"],
    *,
    parts: tuple[Training, ...],
    generator: torch.Generator,
    precision: Callable[[Network], Float[Tensor, " P"]] = Network.prior_precision,
    progress: Progress | None = None,
) -> Trained:
    """Train from `start` in these parts: the means, under the variance of residuals on held-out rows, and then means and variances.

    Learned together from the start, a variance explains what the mean could still explain, and rows with a large one hardly teach
    the mean any more. Where no member has held-out rows, the variances of the first part are learned. In between, the columns of
    the variance start at 0 and their centre at the log variance found. `precision` is that of the weights of a network.

    Raises `NumericalError` when a loss stops being finite.

    Sources: Sluijterman, Cator, Heskes 2024 (Optimal training of mean variance estimation neural networks), section 3; the
    held-out variance is our addition.
    """
    total, done = sum(part.steps for part in parts), 0

    def advance(step: int, _: int, figures: dict[str, float]) -> None:
        if progress is not None:
            progress(done + step, total, figures)

    curves: dict[str, tuple[float, ...]] = {}
    steps = 0
    if len(parts) > 1:
        narrow = replace(network, noise=OutOfBag() if bool((counts == 0).any(1).all()) else Homoscedastic())
        means = Parameters(_narrowed(network, narrow, start.theta), narrow.noise.start(start.theta.shape[0], network.outputs))
        trained = train(
            narrow, means, x, y, counts, training=parts[0], generator=generator, precision=precision(narrow), progress=advance
        )
        columns = trained.parameters.theta.new_zeros(start.theta.shape[0], 1, network.outputs)
        var = narrow.noise.split(columns, trained.parameters.noise)[1].exp().squeeze(1)
        start = Parameters(_widened(narrow, network, trained.parameters.theta), network.noise.start_at(var))
        curves, steps, done = trained.curves, trained.steps, parts[0].steps
    trained = train(
        network, start, x, y, counts, training=parts[-1], generator=generator, precision=precision(network), progress=advance
    )
    later = {**trained.curves, "step": tuple(steps + step for step in trained.curves["step"])}
    joined = {name: curves.get(name, ()) + curve for name, curve in later.items()}
    return replace(trained, steps=steps + trained.steps, curves=joined)


def _flat(weights: list[Tensor], biases: list[Tensor]) -> Float[Tensor, "K P"]:
    return torch.cat([part.flatten(1) for pair in zip(weights, biases, strict=True) for part in pair], 1)


def _narrowed(network: Network, narrow: Network, theta: Float[Tensor, "K P"]) -> Float[Tensor, "K p"]:
    """Return the same networks without the last layer's columns that are not means."""
    weights, biases = network.unflatten(theta)
    kept = narrow.widths[-1]
    return _flat([*weights[:-1], weights[-1][..., :kept]], [*biases[:-1], biases[-1][..., :kept]])


def _widened(narrow: Network, network: Network, theta: Float[Tensor, "K p"]) -> Float[Tensor, "K P"]:
    """Return the same networks with further columns of the last layer, all 0."""
    weights, biases = narrow.unflatten(theta)
    missing = (0, network.widths[-1] - narrow.widths[-1])
    return _flat([*weights[:-1], functional.pad(weights[-1], missing)], [*biases[:-1], functional.pad(biases[-1], missing)])
