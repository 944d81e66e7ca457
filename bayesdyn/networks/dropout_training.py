"""Training of one network whose hidden units are dropped at random, with rates that are fixed or learned."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.errors import NumericalError
from bayesdyn.networks.dropout import Binary, Masks, rate_entropy, weight_penalty
from bayesdyn.networks.held_out import choose_held_out
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.training import Training, minibatches
from bayesdyn.progress import Progress

_CHUNK_ROWS = 2000
_HELD_OUT, _HELD_OUT_FROM, _HELD_OUT_ROWS, _HELD_OUT_DRAWS = 0.1, 50, 1000, 16  # a tenth of the rows, from 50 to 10,000
# Log odds are trained divided by this: Adam's steps have one size, and a rate has further to go than a weight.
_PACE = 10.0
# Share of the schedule after which learned rates stay and masks are binary, so that the weights settle under the masks of draws.
_LEARNING = 0.6


class Dropped(NamedTuple):
    """A network, K = 1, and the log odds of each hidden layer's drop rate."""

    parameters: Parameters
    log_odds: Float[Tensor, " H"]


class TrainedDropout(NamedTuple):
    """What training kept: the network with its rates, its losses per data point that it trained on, the rows that it did not."""

    state: Dropped
    nll: float
    penalty: float
    held_out: Int[Tensor, " M"]
    steps: int
    curves: dict[str, tuple[float, ...]]


def penalty(network: Network, state: Dropped, rows: int, lengthscale: float, masks: Masks) -> Float[Tensor, ""]:
    r"""Return (1/N) Σ_l [λ²D_l|W_l|²/(2(1 - p_l)) - K_l H(p_l)] plus the noise model's own term.

    The prior is W_l ~ N(0, 1/(λ²D_l)), where D_l is the fan-in: λ is a length-scale relative to the network's own prior. Fixed
    rates drop the entropy, which is a constant. Biases have a flat prior.

    Source: Gal, Hron, Kendall 2017 (Concrete Dropout), equations 2-4.
    """
    total = weight_penalty(network, state.parameters.theta, state.log_odds, lengthscale)
    if masks.learned:
        total = total - rate_entropy(network, state.log_odds)
    return total / rows + network.noise.penalty(state.parameters.noise).sum()


class HeldOut:
    """A tenth of the rows, 1,000 at most or whole groups, that training never sees: the state that predicts them best is kept.

    Below 50 rows nothing is held out, and the last state is kept.
    """

    def __init__(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        start: Dropped,
        groups: Int[Tensor, " N"] | None,
        generator: torch.Generator,
    ) -> None:
        count = min(round(_HELD_OUT * len(x)), _HELD_OUT_ROWS) if len(x) >= _HELD_OUT_FROM else 0
        held = choose_held_out(len(x), count, groups, generator).to(x.device)
        self.index, self.seen = held.nonzero().flatten(), (~held).nonzero().flatten()
        self.x, self.y, self.generator = x[self.index], y[self.index], generator
        self.state, self.score, self.step = start, math.inf, 0

    @torch.no_grad()
    def look(self, step: int, network: Network, state: Dropped) -> float:
        """Return -log mean over masks of p(y | x, masks), averaged over the held-out rows, nan without; keep the best state."""
        score = math.nan
        if len(self.index):
            masks = Binary().draw(state.log_odds, network.hidden, (_HELD_OUT_DRAWS, 1), self.generator)
            answer = network.function(state.parameters, masks=masks)(self.x.unsqueeze(0))
            log_prob = torch.distributions.Normal(answer.mean, answer.var.sqrt(), validate_args=False).log_prob(self.y).sum(-1)
            score = math.log(_HELD_OUT_DRAWS) - float(log_prob.logsumexp(0).mean())
        if not score >= self.score:
            copies = Parameters(*(t.detach().clone() for t in state.parameters))
            self.state, self.score, self.step = Dropped(copies, state.log_odds.detach().clone()), score, step
        return score


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
    groups: Int[Tensor, " N"] | None = None,
    least_rate: float = 0.0,
    first_step: int = 0,
    progress: Progress | None = None,
) -> TrainedDropout:
    """Minimise E_masks nll + `penalty` with Adam; each data point of each batch gets masks of its own.

    The state that predicts the held-out rows best is kept, and training ends when none was better for `patience` of its steps.
    Rows of one of the `groups` [N] are held out together. Learned rates are kept at `least_rate` or above. `first_step` enters the
    schedule late.

    Raises `NumericalError` when the loss stops being finite.
    """
    parameters = Parameters(*(t.to(x).clone().requires_grad_() for t in start.parameters))
    pace = (start.log_odds.to(x) / _PACE).requires_grad_(masks.learned)
    optimiser = torch.optim.Adam([*parameters, *([pace] if masks.learned else [])], fused=True)
    held_out = HeldOut(x, y, start, groups, generator)
    x, y = x[held_out.seen], y[held_out.seen]
    counts = torch.ones(1, len(x), dtype=torch.int64, device=x.device)
    batches = minibatches(x, y, counts, training.batch_size, generator)
    interval = max(1, (training.steps - first_step) // training.evaluations)
    patience = training.patience * (training.steps - first_step)
    curves: dict[str, list[float]] = {"step": [], "nll": [], "penalty": [], "held_out_nll": [], "rate": []}
    for step in range(first_step, training.steps + 1):
        rows, targets = next(batches)
        learning = masks.learned and step - first_step < _LEARNING * (training.steps - first_step)
        state = Dropped(parameters, _PACE * (pace if learning else pace.detach()))
        drawn = (masks if learning else Binary()).draw(state.log_odds, network.hidden, (1, rows.shape[1]), generator)
        nll = network.nll(network.columns(parameters.theta, rows, drawn), parameters.noise, targets).mean()
        kl = penalty(network, state, len(x), lengthscale, masks)
        if (step - first_step) % interval == 0 or step == training.steps:
            score, rate = held_out.look(step - first_step, network, state), float(state.log_odds.detach().sigmoid().mean())
            figures = (float(step), float(nll.detach()), float(kl.detach()), score, rate)
            _check_finite(step, figures[1] + figures[2], x, y)
            for curve, figure in zip(curves.values(), figures, strict=True):
                curve.append(figure)
            if progress is not None:
                progress(step - first_step, training.steps - first_step, {"nll": figures[1], "held_out_nll": score})
            if step - first_step - held_out.step > patience:
                break
        optimiser.param_groups[0]["lr"] = training.rate(step)
        optimiser.zero_grad()
        (nll + kl).backward()
        optimiser.step()
        if masks.learned and least_rate > 0:
            pace.data.clamp_(min=math.log(least_rate / (1 - least_rate)) / _PACE)
    return _ended(network, held_out, x, y, masks, lengthscale, generator, step - first_step, curves)


@torch.no_grad()
def _ended(
    network: Network,
    held_out: HeldOut,
    x: Tensor,
    y: Tensor,
    masks: Masks,
    lengthscale: float,
    generator: torch.Generator,
    steps: int,
    curves: dict[str, list[float]],
) -> TrainedDropout:
    """Return the kept state with its losses on the rows it was trained on, under binary masks: those of the draws."""
    state, nll = held_out.state, 0.0
    for rows, targets in zip(x.split(_CHUNK_ROWS), y.split(_CHUNK_ROWS), strict=True):
        drawn = Binary().draw(state.log_odds, network.hidden, (1, len(rows)), generator)
        columns = network.columns(state.parameters.theta, rows.unsqueeze(0), drawn)
        nll += float(network.nll(columns, state.parameters.noise, targets.unsqueeze(0)).sum())
    kl = float(penalty(network, state, len(x), lengthscale, masks))
    return TrainedDropout(state, nll / len(x), kl, held_out.index, steps, {name: tuple(curve) for name, curve in curves.items()})


def _check_finite(step: int, loss: float, x: Tensor, y: Tensor) -> None:
    if not math.isfinite(loss):
        raise NumericalError(
            f"the training loss is {loss} at step {step}; |x| reaches {float(x.abs().max()):.3g}, |y| {float(y.abs().max()):.3g}; "
            "whiten both, or lower the learning rate"
        )
