"""Training of K networks at once: one optimiser, a loss summed over members, the best state of each member kept."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.networks.backpropagation import Backpropagation
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.progress import Progress

_HELD_OUT_ROWS = 1000
_CHUNK_ROWS = 2000
_REFRESH_FROM = 0.2  # share of the schedule after which residuals say something about the noise


@dataclass(frozen=True)
class Training:
    """How networks are trained: Adam steps on minibatches of `batch_size` rows, with a cosine schedule down to 0.

    All N rows make one batch where N <= `batch_size`. A warm start runs the last `warm_steps` of the schedule only. Training ends
    when no member has improved on its held-out rows for `patience`·steps steps; `evaluations` is how often that is looked at.

    Raises `ConfigurationError` for values without a meaning.

    >>> Training(steps=100, warm_steps=30).learning_rate
    0.003
    """

    steps: int = 1500
    warm_steps: int = 400
    learning_rate: float = 3e-3
    batch_size: int = 256
    patience: float = 0.2
    evaluations: int = 50

    def __post_init__(self) -> None:
        counts = (self.steps, self.warm_steps, self.batch_size, self.evaluations)
        if min(counts) < 1 or self.learning_rate <= 0 or self.patience <= 0:
            raise ConfigurationError(f"training wants positive numbers throughout; got {self}")

    def rate(self, step: int) -> float:
        """Return the learning rate at a step of the schedule, ½·learning_rate·(1 + cos(π·step/steps))."""
        return 0.5 * self.learning_rate * (1 + math.cos(math.pi * step / self.steps))

    def for_rows(self, rows: int) -> "Training":
        """Return the settings of a fit to N rows: these, whatever N is."""
        return self


@dataclass(frozen=True)
class Epochs(Training):
    """Whole passes over the data at a constant learning rate, as model-based control is usually trained; nothing ends them early.

    A fit to N rows takes epochs·max(1, ⌊N / batch_size⌋) steps, a warm start too; `steps` and `warm_steps` follow from that.

    Raises `ConfigurationError` for values without a meaning.

    >>> Epochs(epochs=5).for_rows(1000).steps
    155
    """

    learning_rate: float = 1e-3
    batch_size: int = 32
    patience: float = 1.0
    evaluations: int = 1
    epochs: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1:
            raise ConfigurationError(f"training wants positive numbers throughout; got {self}")

    def rate(self, step: int) -> float:
        """Return the learning rate, the same at every step."""
        return self.learning_rate

    def for_rows(self, rows: int) -> "Epochs":
        """Return these settings with as many steps as the epochs take."""
        steps = self.epochs * max(1, rows // self.batch_size)
        return replace(self, steps=steps, warm_steps=steps)


@dataclass(frozen=True)
class Trained:
    """What training kept: the networks, penalty and held-out nll of each per data point, and curves of the member averages."""

    parameters: Parameters
    penalty: Float[Tensor, " K"]
    held_out_nll: Float[Tensor, " K"]  # nan for a member that saw every row
    steps: int
    curves: dict[str, tuple[float, ...]]


class _HeldOut:
    """Rows that a member never trains on, at most 1,000 each: `index` [K, M] padded to one length, `weight` 1/count or 0."""

    def __init__(self, counts: Int[Tensor, "K N"], x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        priority = torch.rand(counts.shape, generator=generator, device=generator.device).to(counts.device)
        unseen = counts == 0
        found = unseen.sum(1)
        most = min(int(found.max()), _HELD_OUT_ROWS)
        index = torch.where(unseen, priority, 2.0).argsort(1)[:, :most]
        used = found.clamp(max=most)
        self.weight = (torch.arange(most, device=counts.device) < used[:, None]).to(x.dtype) / used[:, None].clamp_min(1)
        self.some: Bool[Tensor, " K"] = found > 0
        self.x, self.y = x[index], y[index]

    @torch.no_grad()
    def score(self, network: Network, parameters: Parameters, refresh: bool) -> Float[Tensor, " K"]:
        """Return each member's held-out nll (nan without rows), after letting its noise model look at the residuals if asked."""
        columns = network.columns(parameters.theta, self.x)
        if refresh and bool(self.some.any()):
            mean, _ = network.noise.split(columns, parameters.noise)
            mse = ((self.y - mean).square() * self.weight.unsqueeze(-1)).sum(1)
            mse = torch.where(self.some.unsqueeze(-1), mse, mse[self.some].mean(0))
            parameters.noise.copy_(network.noise.refresh(parameters.noise, mse))
        nll = (network.nll(columns, parameters.noise, self.y) * self.weight).sum(1)
        return torch.where(self.some, nll, torch.nan)


class _Best:
    """The best state of every member so far and the step it was seen at; without held-out rows the last one."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = Parameters(*(t.detach().clone() for t in parameters))
        self.score = torch.full_like(self.parameters.theta[:, 0], torch.inf)
        self.step = torch.zeros_like(self.score)

    def update(self, step: int, parameters: Parameters, score: Float[Tensor, " K"]) -> None:
        better = (score < self.score) | score.isnan()
        for kept, new in zip(self.parameters, parameters, strict=True):
            kept[better] = new.detach()[better]
        self.score[better], self.step[better] = score[better], float(step)


def minibatches(
    x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], counts: Int[Tensor, "K N"], batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Float[Tensor, "K B D"], Float[Tensor, "K B E"]]]:
    """Yield batches for ever: each member's rows, repeated by its counts, in an order of its own that is redrawn per epoch.

    Every member's counts have the same sum; rows left over at the end of an epoch are dropped.
    """
    members, rows = counts.shape
    index = torch.arange(rows, device=counts.device).repeat(members).repeat_interleave(counts.clamp_min(0).reshape(-1).long())
    index = index.reshape(members, -1)

    def gather(chosen: Tensor) -> tuple[Tensor, Tensor]:
        flat = chosen.reshape(-1)
        return x.index_select(0, flat).unflatten(0, chosen.shape), y.index_select(0, flat).unflatten(0, chosen.shape)

    if index.shape[1] <= batch_size:
        batch = gather(index)
        while True:
            yield batch
    while True:
        order = torch.rand(index.shape, generator=generator, device=generator.device).argsort(1).to(index.device)
        shuffled = index.gather(1, order)
        for start in range(0, index.shape[1] - batch_size + 1, batch_size):
            yield gather(shuffled[:, start : start + batch_size])


def train(
    network: Network,
    start: Parameters,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    counts: Int[Tensor, "K N"],
    *,
    training: Training,
    generator: torch.Generator,
    first_step: int = 0,
    precision: Float[Tensor, " P"] | None = None,
    progress: Progress | None = None,
) -> Trained:
    r"""Minimise Σ_k [ nll_k + (1/2N) Σ precision·θ_k² + noise penalty_k ] over K networks; gradients of members do not mix.

    `counts[k, i]` says how often member k sees row i (a bootstrap sample, or ones). Rows with count 0 are held out, and a member's
    best state on them is kept; a member that sees every row keeps its last state. Rows with count -1 are left out of both, because
    rows that belong with them are trained on. `first_step` enters the schedule late.
    `precision` is that of the prior, the network's own unless given.

    Raises `NumericalError` when a loss stops being finite.
    """
    parameters = Parameters(*(t.to(x).clone().requires_grad_() for t in start))
    precision = (network.prior_precision() if precision is None else precision).to(x)
    held_out, best = _HeldOut(counts, x, y, generator), _Best(parameters)
    batches = minibatches(x, y, counts, training.batch_size, generator)
    gradient = Backpropagation(network, parameters, precision, x.shape[0])
    optimiser = torch.optim.Adam(parameters, fused=True)
    interval = max(1, (training.steps - first_step) // training.evaluations)
    patience = training.patience * (training.steps - first_step)
    curves: dict[str, list[float]] = {"step": [], "nll": [], "penalty": [], "held_out_nll": []}
    for step in range(first_step, training.steps + 1):
        nll = gradient(*next(batches))
        if (step - first_step) % interval == 0 or step == training.steps:
            penalty = network.penalty(parameters, x.shape[0], precision).detach()
            score = held_out.score(network, parameters, refresh=step >= training.steps * _REFRESH_FROM)
            figures = (float(step), *(float(t.nanmean()) for t in (nll, penalty, score)))
            _check_finite(step, figures[1] + figures[2], x, y)
            best.update(step, parameters, score)
            for curve, figure in zip(curves.values(), figures, strict=True):
                curve.append(figure)
            if progress is not None:
                progress(step - first_step, training.steps - first_step, {"nll": figures[1], "held_out_nll": figures[3]})
            if step - float(best.step.max()) > patience:
                break
        optimiser.param_groups[0]["lr"] = training.rate(step)
        optimiser.step()
    return Trained(
        best.parameters,
        network.penalty(best.parameters, x.shape[0], precision),
        torch.where(held_out.some, best.score, torch.nan),
        step - first_step,
        {name: tuple(curve) for name, curve in curves.items()},
    )


def _check_finite(step: int, loss: float, x: Tensor, y: Tensor) -> None:
    if not math.isfinite(loss):
        raise NumericalError(
            f"the training loss is {loss} at step {step}; |x| reaches {float(x.abs().max()):.3g}, |y| {float(y.abs().max()):.3g}; "
            "whiten both, or lower the learning rate"
        )


@torch.no_grad()
def score_rows(
    network: Network, parameters: Parameters, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], counts: Int[Tensor, "K N"]
) -> tuple[Float[Tensor, " K"], Float[Tensor, "K N E"]]:
    """Return each member's nll per data point that it was trained on, and its mean at all rows."""
    total, means = torch.zeros_like(parameters.theta[:, 0]), []
    counts = counts.clamp_min(0)
    for rows, targets, weight in zip(x.split(_CHUNK_ROWS), y.split(_CHUNK_ROWS), counts.split(_CHUNK_ROWS, 1), strict=True):
        columns = network.columns(parameters.theta, rows.unsqueeze(0))
        total += (network.nll(columns, parameters.noise, targets.unsqueeze(0)) * weight).sum(1)
        means.append(network.noise.split(columns, parameters.noise)[0])
    return total / counts.sum(1), torch.cat(means, 1)
