"""Moving pictures of a trial: what happened, and over it what the model imagined would happen."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bayesdyn.envs import Chain, UnicyclePlant, draw_chain, draw_unicycle, save_animation, unicycle_outline
from bayesdyn.envs.unicycle import UNICYCLE_LIMITS
from bayesdyn.errors import DataError
from bayesdyn.loop import Trial

_FAN = 40  # imagined trajectories that are drawn: more would only thicken the cloud
_HOLD_SECONDS = 1.5  # the last frame stays a moment before the loop starts again
_OUT_OF_SIGHT = 10.0  # lengths of the chain
_UNSEEN_WHEEL, _UNSEEN_TABLE = 0.0, 0.0  # rad: angles of the unicycle that nobody observes


@runtime_checkable
class Frames(Protocol):
    """Draws a trial; `reading` says what is what, and `fan` whether imagined trajectories are drawn."""

    @property
    def reading(self) -> str:
        """How to read the pictures."""

    @property
    def fan(self) -> bool:
        """Whether what was imagined is drawn, too."""

    def __call__(self, trial: Trial, step_seconds: float) -> list[Image.Image]:
        """Return a picture per state; raises `DataError` if the trial doesn't hold the true states."""


@dataclass(frozen=True)
class ChainFrames:
    """Pictures of a chain of rods, its trail, and the fan of tips that was imagined.

    The fan at a step shows where the tip would go from there under the plan or policy, one curve per draw and noise path. `limit`
    (N or N m) is the largest action; `view` and `success` are those of `draw_chain`.
    """

    chain: Chain
    limit: float
    view: float | None = None
    success: float | None = None
    fan: bool = True

    @property
    def reading(self) -> str:
        """How to read the pictures."""
        action = "the arrow the force" if self.chain.cart is not None else "an orange bow the torque at its joint"
        return f"The green ring is the goal, {action}; the curves start at the tip and end where what was imagined ends."

    def __call__(self, trial: Trial, step_seconds: float) -> list[Image.Image]:
        """Return a picture per state."""
        # The true first state is nowhere in the info; its noisy observation is close to it.
        states = torch.cat([trial.episode.states[:1].double(), _true(trial, "state")])
        tips, joints, on_cart = self.chain.tip(states), self.chain.joints(states), self.chain.cart is not None
        return [
            draw_chain(
                joints[t],
                cart=on_cart,
                force=float(self._action(trial, t)[0]) if on_cart and t < len(trial.episode) else None,
                torques=() if on_cart else self._action(trial, t),
                largest=self.limit,
                success=self.success,
                fan=self.imagined(trial, t),
                trail=tips[: t + 1] if t else None,
                time=t * step_seconds,
                caption=f"trial {trial.index}",
                view=self.view,
            )
            for t in range(len(states))
        ]

    def imagined(self, trial: Trial, t: int) -> Tensor | None:
        """Return the tips [steps, draws, 2] that were imagined at step t from there on, without those that ran away."""
        if t >= len(trial.imagined):
            return None
        tips = self.chain.tip(trial.imagined[t, int(trial.age[t]) :])
        far = _OUT_OF_SIGHT * max(1.0, sum(self.chain.lengths))
        near = (tips.isfinite() & (tips.abs() < far)).flatten(2).all(2).all(0)
        chosen = tips[:, near][:, :_FAN]
        return chosen if chosen.shape[1] and len(chosen) > 1 else None

    def _action(self, trial: Trial, t: int) -> np.ndarray:
        """Return the action at step t, none after the last."""
        return trial.episode.actions[t : t + 1].double().clamp(-self.limit, self.limit).flatten().numpy()


@dataclass(frozen=True)
class UnicycleFrames:
    """Pictures of the unicycle from the side and from behind."""

    plant: UnicyclePlant = field(default_factory=UnicyclePlant)
    fan: bool = False

    @property
    def reading(self) -> str:
        """How to read the pictures."""
        return (
            "Left from the side, right from behind, the wheel's contact in the middle of each; the green ring is where the top "
            "ought to be, at the edge if it lies beyond. A bow around the axle is the torque of the wheel, an arrow over the top "
            "that of the turntable."
        )

    def __call__(self, trial: Trial, step_seconds: float) -> list[Image.Image]:
        """Return a picture per state."""
        states = torch.cat([_first_unicycle(trial.episode.states[0].double())[None], _true(trial, "plant_state")])
        largest = np.array(UNICYCLE_LIMITS)
        return [
            draw_unicycle(
                unicycle_outline(self.plant, states[t].numpy()),
                trial.episode.actions[t].double().numpy() if t < len(trial.episode) else None,
                largest,
                t * step_seconds,
                f"trial {trial.index}",
            )
            for t in range(len(states))
        ]


def save_trial_animation(pictures: list[Image.Image], path: str | Path, step_seconds: float) -> None:
    """Write the pictures of a trial as a GIF in real time whose last picture stays a moment; raises as `save_animation` does."""
    hold = round(_HOLD_SECONDS / step_seconds)
    save_animation([*pictures, *pictures[-1:] * hold], path, fps=1 / step_seconds)


def _true(trial: Trial, info: str) -> Tensor:
    if info not in trial.infos:
        raise DataError(f"trial {trial.index} holds no true states, which the environment's info has under {info!r}")
    return trial.infos[info].double()


def _first_unicycle(observed: Tensor) -> Tensor:
    """Return the plant's state [12] behind the first observation [10]: what is seen turns about the heading."""
    ahead, left, roll, yaw, pitch = observed[5:]
    x, y = yaw.sin() * left - yaw.cos() * ahead, -yaw.sin() * ahead - yaw.cos() * left
    unseen = observed.new_tensor([_UNSEEN_WHEEL, _UNSEEN_TABLE])
    return torch.cat((observed[:5], torch.stack((x, y, roll, yaw)), unseen[:1], pitch[None], unseen[1:]))
