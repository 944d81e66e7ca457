"""Moving pictures of a trial: what happened, and over it what the model imagined would happen."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bayesdyn.envs import draw_cartpole, save_animation, tip_position
from bayesdyn.errors import DataError
from bayesdyn.loop import Trial

_FAN = 40  # imagined trajectories that are drawn: more would only thicken the cloud
_HOLD_SECONDS = 1.5  # the last frame stays a moment before the loop starts again
_OUT_OF_SIGHT = 10.0  # metres


def cartpole_frames(trial: Trial, step_seconds: float) -> list[Image.Image]:
    """Return a picture per state of a cart-pole trial: the true pole, its trail, and the fan of tips that the plan imagined.

    The fan at a step shows where the tip would go from there under the executed plan, one curve per draw and noise path.
    Raises `DataError` if the trial doesn't hold the true states.
    """
    if "state" not in trial.infos:
        raise DataError(f"trial {trial.index} holds no true states, which the cart-pole's info has under 'state'")
    # The true first state is nowhere in the info; its noisy observation is within a hundredth of it.
    states = torch.cat([trial.episode.states[:1], trial.infos["state"]])
    tips = tip_position(states)
    pictures = []
    for t, state in enumerate(states):
        moving = t < len(trial.episode)
        pictures.append(
            draw_cartpole(
                state,
                force=float(trial.episode.actions[t, 0].clamp(-10, 10)) if moving else None,
                fan=_fan(trial, t) if moving else None,
                trail=tips[: t + 1] if t else None,
                time=t * step_seconds,
                caption=f"trial {trial.index}",
            )
        )
    return pictures


def save_trial_animation(pictures: list[Image.Image], path: str | Path, step_seconds: float) -> None:
    """Write the pictures of a trial as a GIF in real time whose last picture stays a moment; raises as `save_animation` does."""
    hold = round(_HOLD_SECONDS / step_seconds)
    save_animation([*pictures, *pictures[-1:] * hold], path, fps=1 / step_seconds)


def _fan(trial: Trial, t: int) -> Tensor | None:
    """Return the tips [steps, draws, 2] that the plan in force at step t imagined from there on, without those that ran away."""
    if t >= len(trial.imagined):
        return None
    imagined = trial.imagined[t, int(trial.age[t]) :]
    tips = tip_position(imagined)
    near = (tips.isfinite() & (tips.abs() < _OUT_OF_SIGHT)).flatten(2).all(2).all(0)
    chosen = tips[:, near][:, :_FAN]
    return chosen if chosen.shape[1] and len(chosen) > 1 else None
