"""Open-loop fans for pictures: bands of the particles over the truth, with the spread split into its two parts."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec import BaseCodec
from bayesdyn.evaluation.open_loop import Windows, replay
from bayesdyn.evaluation.samples import fair_crps, split_variance
from bayesdyn.evaluation.scoring import Model

FAN_LEVELS = (0.05, 0.25, 0.75, 0.95)
_DRAWS, _PATHS, _LINES = 25, 4, 5


def fan(model: Model, codec: BaseCodec, windows: Windows, seed: int, starts: int = 30) -> dict[str, np.ndarray]:
    """Return the fans from evenly spaced start states, the same for every model, time first, in physical units and float32.

    `truth` [H + 1, W, E]; `quantiles` at 5, 25, 75 and 95 % [4, H + 1, W, E]; `mean`, `epistemic_std` and `aleatoric_std`, shaped
    as the truth, from 25 draws of θ with 4 noise paths each; `lines` [5, H + 1, W, E], one noise path for one θ each; `crps` [W],
    fair, over the std of each output, averaged over steps and outputs.
    """
    dtype = model.predict_target(windows.states[0, :1], windows.actions[0, :1]).component_mean.dtype
    few = every_nth(windows, starts)
    moved = _replay(model, codec, few, dtype, seed)
    truth = few.states[..., codec.outputs]
    particles = moved + truth[:, None, None]
    epistemic, aleatoric = split_variance(particles.movedim(0, 2))
    levels = torch.tensor(FAN_LEVELS, dtype=torch.float64)
    score = fair_crps(moved.flatten(1, 2).movedim(1, 0), torch.zeros_like(truth))
    scale = truth.flatten(0, 1).std(0, correction=0)
    values = {
        "truth": truth,
        "mean": particles.mean((1, 2)),
        "quantiles": particles.flatten(1, 2).quantile(levels, 1),
        "epistemic_std": epistemic.sqrt(),
        "aleatoric_std": aleatoric.sqrt(),
        "lines": particles[:, :_LINES, 0].movedim(1, 0),
        "crps": (score / torch.where(scale > 0, scale, 1)).mean((0, 2)),
    }
    return {f"fan_{name}": value.float().numpy() for name, value in values.items()}


def every_nth(windows: Windows, count: int) -> Windows:
    """Return at most `count` of the windows, evenly spaced."""
    total = windows.states.shape[1]
    chosen = torch.linspace(0, total - 1, min(count, total)).round().long()
    return Windows(windows.states[:, chosen], windows.actions[:, chosen])


def _replay(model: Model, codec: BaseCodec, windows: Windows, dtype: torch.dtype, seed: int) -> Float[Tensor, "times n p W E"]:
    generator = torch.Generator().manual_seed(seed)
    return replay(model.sample(_DRAWS, generator), windows, codec, particles=_PATHS, dtype=dtype, generator=generator)
