"""Training of one network whose hidden units are dropped at random, with rates that are fixed or learned."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import NumericalError
from bayesdyn.networks.dropout import Binary, Masks, rate_entropy, weight_penalty
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.training import Training, minibatches
from bayesdyn.posteriors.base import Progress

_CHUNK_ROWS = 2000
# Log odds are trained divided by this: Adam's steps have one size, and a rate has further to go than a weight.
_PACE = 10.0


class Dropped(NamedTuple):
    """A network, K = 1, and the log odds of each hidden layer's drop rate."""

    parameters: Parameters
    log_odds: Float[Tensor, " H"]


class TrainedDropout(NamedTuple):
    """What training ended at: the network with its rates, its losses per data point and their curves."""

    state: Dropped
    nll: float
    penalty: float
    steps: int
    curves: dict[str, tuple[float, ...]]


def penalty(network: Network, state: Dropped, rows: int, lengthscale: float, masks: Masks) -> Float[Tensor, ""]:
    r"""Return (1/N) Σ_l [λ²|W_l|²/(2(1 - p_l)) - K_l H(p_l)] plus the noise model's own term.

    Fixed rates drop the entropy, which is a constant. Biases have a flat prior.

    Source: Gal, Hron, Kendall 2017 (Concrete Dropout), equations 2-4.
    """
    total = weight_penalty(network, state.parameters.theta, state.log_odds, lengthscale)
    if masks.learned:
        total = total - rate_entropy(network, state.log_odds)
    return total / rows + network.noise.penalty(state.parameters.noise).sum()


def train_dropout(
    network: Network,
    start: Dropped,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    *,
    masks: Masks,
    lengthscale: float,
    training: Training,
    generator: torch.Generator,
    least_rate: float = 0.0,
    first_step: int = 0,
    progress: Progress | None = None,
) -> TrainedDropout:
    """Minimise E_masks nll + `penalty` with Adam; each data point of each batch gets masks of its own.

    Learned rates are kept at `least_rate` or above. `first_step` enters the schedule late.

    Raises `NumericalError` when the loss stops being finite.
    """
    parameters = Parameters(*(t.to(x).clone().requires_grad_() for t in start.parameters))
    pace = (start.log_odds.to(x) / _PACE).requires_grad_(masks.learned)
    optimiser = torch.optim.Adam([*parameters, *([pace] if masks.learned else [])], fused=True)
    counts = torch.ones(1, len(x), dtype=torch.int64, device=x.device)
    batches = minibatches(x, y, counts, training.batch_size, generator)
    interval = max(1, (training.steps - first_step) // training.evaluations)
    curves: dict[str, list[float]] = {"step": [], "nll": [], "penalty": [], "rate": []}
    for step in range(first_step, training.steps + 1):
        rows, targets = next(batches)
        state = Dropped(parameters, _PACE * pace)
        drawn = masks.draw(state.log_odds, network.hidden, (1, rows.shape[1]), generator)
        nll = network.nll(network.columns(parameters.theta, rows, drawn), parameters.noise, targets).mean()
        kl = penalty(network, state, len(x), lengthscale, masks)
        if (step - first_step) % interval == 0 or step == training.steps:
            figures = (float(step), float(nll.detach()), float(kl.detach()), float(state.log_odds.detach().sigmoid().mean()))
            _check_finite(step, figures[1] + figures[2], x, y)
            for curve, figure in zip(curves.values(), figures, strict=True):
                curve.append(figure)
            if progress is not None:
                progress(step - first_step, training.steps - first_step, {"nll": figures[1], "penalty": figures[2]})
        optimiser.param_groups[0]["lr"] = training.rate(step)
        optimiser.zero_grad()
        (nll + kl).backward()
        optimiser.step()
        if masks.learned and least_rate > 0:
            pace.data.clamp_(min=math.log(least_rate / (1 - least_rate)) / _PACE)
    return _ended(
        network, Dropped(parameters, _PACE * pace), x, y, masks, lengthscale, generator, training.steps - first_step, curves
    )


@torch.no_grad()
def _ended(
    network: Network,
    state: Dropped,
    x: Tensor,
    y: Tensor,
    masks: Masks,
    lengthscale: float,
    generator: torch.Generator,
    steps: int,
    curves: dict[str, list[float]],
) -> TrainedDropout:
    """Return the detached state with its losses on all rows, under binary masks: those of the draws."""
    state = Dropped(Parameters(*(t.detach().clone() for t in state.parameters)), state.log_odds.detach().clone())
    nll = 0.0
    for rows, targets in zip(x.split(_CHUNK_ROWS), y.split(_CHUNK_ROWS), strict=True):
        drawn = Binary().draw(state.log_odds, network.hidden, (1, len(rows)), generator)
        columns = network.columns(state.parameters.theta, rows.unsqueeze(0), drawn)
        nll += float(network.nll(columns, state.parameters.noise, targets.unsqueeze(0)).sum())
    kl = float(penalty(network, state, len(x), lengthscale, masks))
    return TrainedDropout(state, nll / len(x), kl, steps, {name: tuple(curve) for name, curve in curves.items()})


def _check_finite(step: int, loss: float, x: Tensor, y: Tensor) -> None:
    if not math.isfinite(loss):
        raise NumericalError(
            f"the training loss is {loss} at step {step}; |x| reaches {float(x.abs().max()):.3g}, |y| {float(y.abs().max()):.3g}; "
            "whiten both, or lower the learning rate"
        )
