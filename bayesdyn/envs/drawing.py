"""Pictures of the plants, anti-aliased and colour-blind safe, and looping animations of them."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bayesdyn.envs.plant import Numbers

SUPERSAMPLING = 3


def draw_cartpole(
    state: Numbers,
    force: float | None = None,
    target: bool = True,
    fan: Numbers | None = None,
    *,
    time: float | None = None,
    size: tuple[int, int] = (480, 320),
) -> Image.Image:
    """Return a picture of the cart-pole state (x, ẋ, θ̇, θ)."""
    x, _, _, theta = np.asarray(state, dtype=np.float64)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    scale = size[1] / 2
    hinge = (size[0] / 2 + scale * x, size[1] / 2)
    pen.line([hinge, (hinge[0] + scale * 0.5 * np.sin(theta), hinge[1] + scale * 0.5 * np.cos(theta))], fill="black", width=4)
    return image


def save_animation(frames: Iterable[Image.Image | np.ndarray], path: str | Path, fps: float = 10.0) -> None:
    """Write the frames as a looping GIF, atomically."""
    path = Path(path)
    images = [Image.fromarray(f) if isinstance(f, np.ndarray) else f for f in frames]
    part = path.with_name(f".{path.name}.{os.getpid()}")
    images[0].save(part, format="GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    part.replace(path)
