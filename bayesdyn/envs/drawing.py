"""Pictures of chains of rods, with what a model imagines over what happens, and looping animations of any pictures."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from bayesdyn.envs.plant import Numbers
from bayesdyn.envs.scene import GREEN, GREY, INK, MIST, ORANGE, PALE_GREEN, PAPER, SKY, SLATE, VERMILLION, Scene
from bayesdyn.errors import ConfigurationError, DataError, FileError, ShapeError

VIEW_METRES = 2.7
CART = (0.32, 0.13)
WHEEL_RADIUS = 0.035
SUCCESS_METRES = 0.08  # Kamthe & Deisenroth (2018) count a tip this close as there
FORCE_METRES = 0.045  # length of the arrow per newton
FORCE_SPAN = 0.45  # and of the largest force that a scenario has, where that is given
FREE_TRAVEL = 0.8  # the camera follows a cart that leaves this range, so that its tip stays in view


def draw_cartpole(
    state: Numbers,
    force: int | float | None = None,
    target: bool = True,
    fan: Numbers | None = None,
    *,
    trail: Numbers | None = None,
    time: int | float | None = None,
    caption: str | None = None,
    length: float = 0.5,
    size: tuple[int, int] = (480, 320),
    force_metres: float = FORCE_METRES,
) -> Image.Image:
    """Return a picture, `size` pixels wide and high, of the cart-pole in the true state (x, ẋ, θ̇, θ).

    `force` (N) is drawn as an arrow of `force_metres` per newton; `target` and all else are as in `draw_chain`.
    Raises `ShapeError` or `DataError` for arrays of other shapes or with values that are not finite.

    >>> draw_cartpole([0.0, 0.0, 0.0, 3.0], force=-4.0, time=0.0).size
    (480, 320)
    """
    x, _, _, theta = _finite("state", state, (4,))
    hinge = np.array([x, 0.0])
    tip = hinge + length * np.array([np.sin(theta), -np.cos(theta)])
    return draw_chain(
        np.stack((hinge, tip)),
        cart=True,
        force=force,
        largest=FORCE_SPAN / force_metres,
        target=target,
        success=SUCCESS_METRES,
        fan=fan,
        trail=trail,
        time=time,
        caption=caption,
        view=VIEW_METRES,
        size=size,
    )


def draw_chain(
    joints: Numbers,
    *,
    cart: bool = False,
    force: int | float | None = None,
    torques: Numbers = (),
    largest: float = 1.0,
    target: bool = True,
    success: float | None = None,
    fan: Numbers | None = None,
    trail: Numbers | None = None,
    time: int | float | None = None,
    caption: str | None = None,
    view: float | None = None,
    size: tuple[int, int] = (480, 320),
) -> Image.Image:
    """Return a picture, `size` pixels wide and high, of rods between `joints` [K, 2] (m), the first on a cart or a fixed hinge.

    `force` (N) on the cart is an arrow and `torques` [K - 1 or fewer] (N m) are bows around the joints that they drive, of full
    size at `largest`. `time` (s) and `caption` are written in the upper corners. `target` rings the `success` metres around the
    place of the tip with all rods upright over the origin, by default a ninth of their length. `fan` [T, samples, 2] are tip
    positions (m) that a model imagines, laid over the scene as translucent trails with a dot at their ends; `trail` [T, 2] is where
    the tip has been. `view` is the width of the picture in metres, by default what the rods need.
    Raises `ShapeError` or `DataError` for arrays of other shapes or with values that are not finite.

    >>> draw_chain([[0.0, 0.0], [0.3, 0.4], [0.3, 0.9]], torques=[1.0], largest=2.0).size
    (480, 320)
    """
    places = _finite("joints", joints, (None, 2))
    reach = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    view = 3.75 * reach if view is None else view
    scale = view / VIEW_METRES
    x = float(places[0, 0])
    free = FREE_TRAVEL * scale
    scene = Scene(size, view, (x - float(np.clip(x, -free, free)), 0.0))
    if cart:
        _draw_track(scene, scale)
    if target:
        _draw_target(scene, np.array([0.0, reach]), reach / 9 if success is None else success, scale)
    if fan is not None:
        paths = _finite("fan", fan, (None, None, 2))
        scene.trails(paths, 1.8, SKY, min(0.6, 14 / max(paths.shape[1], 1)), fade=(1.0, 0.5), end=2.2)
    if trail is not None:
        scene.trails(_finite("trail", trail, (None, 2))[:, None], 2.4, VERMILLION, 0.8, fade=(0.1, 1.0))
    if cart:
        _draw_cart(scene, places[0], scale)
    else:
        scene.box(places[0], (0.14 * scale, 0.14 * scale), 4.0, SLATE)
    if force is not None:
        _draw_force(scene, places[0], force, FORCE_SPAN * scale / largest, scale)
    scene.line(places, 7.0, INK)
    for joint in places[:-1]:
        scene.disc(joint, 0.03 * scale, PAPER, INK, 2.0)
    scene.disc(places[-1], 0.04 * scale, VERMILLION, PAPER, 1.5)
    for joint, torque in zip(places, _finite("torques", torques, (None,)), strict=False):
        draw_torque(scene, joint, float(torque), largest, 0.13 * scale)
    if time is not None:
        scene.note(f"t = {time:.1f} s", 15.0, INK)
    if caption is not None:
        scene.note(caption, 15.0, INK, right=True)
    return scene.image()


def draw_torque(scene: Scene, centre: np.ndarray, torque: float, largest: float, radius: float) -> None:
    """Draw a bow around `centre` that turns as the torque (N m) does, counter-clockwise if positive: 270 degrees at `largest`."""
    sweep = 1.5 * np.pi * float(np.clip(torque / largest, -1.0, 1.0))
    if abs(sweep) < 0.05:
        return
    # Starts to the lower right, where rods that swing up seldom are, and ends in the arrow's head.
    angles = -0.25 * np.pi + sweep * np.linspace(0.0, 1.0, 40)
    bow = centre + radius * np.stack((np.cos(angles), np.sin(angles)), -1)
    along = np.sign(sweep) * np.array([-np.sin(angles[-1]), np.cos(angles[-1])])
    scene.line(bow, 4.0, ORANGE)
    scene.arrow(bow[-1] - 0.01 * radius * along, bow[-1] + 0.7 * radius * along, 5.0, ORANGE)


def save_animation(frames: Iterable[Image.Image | np.ndarray], path: str | Path, fps: int | float = 10) -> None:
    """Write the frames (pictures, or uint8 [height, width, 3]) as a GIF that loops for ever; whole or not at all.

    GIF counts time in hundredths of a second, so `fps` is met to that. Raises `ConfigurationError` for no frames or no frame
    rate, `ShapeError` for frames of different sizes, and `FileError` if `path` cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_animation([draw_cartpole([0.0, 0.0, 0.0, a]) for a in (0.0, 0.1)], Path(folder) / "swing.gif")
    """
    path = Path(path)
    images = [(Image.fromarray(f) if isinstance(f, np.ndarray) else f).convert("RGB") for f in frames]
    sizes = {image.size for image in images}
    if not images or not 0 < fps <= 100:
        raise ConfigurationError(f"an animation wants at least one frame and 0 < fps <= 100; got {len(images)} and {fps}")
    if len(sizes) > 1:
        raise ShapeError(f"the frames of an animation have one size; got {sorted(sizes)}")
    first, *rest = _with_one_palette(images)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        first.save(part, "GIF", save_all=True, append_images=rest, duration=10 * round(100 / fps), loop=0, optimize=True)
        part.replace(path)
    except OSError as error:
        raise FileError(f"cannot write the animation {path}: {error}; choose a folder that exists and can be written") from error
    finally:
        part.unlink(missing_ok=True)


def _with_one_palette(images: list[Image.Image]) -> list[Image.Image]:
    """Return the images in 256 shared colours: a palette per frame would flicker and hide from GIF what has not changed."""
    width, height = images[0].size
    chosen = images[:: max(len(images) // 12, 1)]
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for row, image in enumerate(chosen):
        sheet.paste(image, (0, row * height))
    palette = sheet.quantize(256, Image.Quantize.MAXCOVERAGE)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]


def _draw_track(scene: Scene, scale: float) -> None:
    left, right = scene.span
    rail = -(CART[1] / 2 + 2 * WHEEL_RADIUS) * scale
    scene.line(np.array([[left, rail], [right, rail]]), 2.5, MIST)
    for tenth in range(int(np.ceil(10 * left)), int(np.floor(10 * right)) + 1):
        place, major = tenth / 10, tenth % 5 == 0
        ends = np.array([[place, rail - 0.02 * scale], [place, rail - (0.055 if major else 0.035) * scale]])
        scene.line(ends, 1.2, GREY if major else MIST)
        if major and left + 0.1 < place < right - 0.1:
            scene.text(np.array([place, rail - 0.115 * scale]), f"{place:g}", 11.0, GREY)


def _draw_target(scene: Scene, place: np.ndarray, radius: float, scale: float) -> None:
    scene.disc(place, radius, PALE_GREEN, GREEN, 2.0)
    inner, outer = radius - 0.025 * scale, radius + 0.035 * scale
    for direction in np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]):
        scene.line(np.stack((place + inner * direction, place + outer * direction)), 2.0, GREEN)


def _draw_cart(scene: Scene, hinge: np.ndarray, scale: float) -> None:
    width, height = scale * CART[0], scale * CART[1]
    radius = scale * WHEEL_RADIUS
    for side in (-1, 1):
        scene.disc(hinge + np.array([side * 0.3 * width, -height / 2 - radius]), radius, INK)
    scene.box(hinge, (width, height), 5.0, SLATE)


def _draw_force(scene: Scene, hinge: np.ndarray, force: int | float, metres: float, scale: float) -> None:
    if abs(force) < 0.05:
        return
    side = float(np.sign(force))
    start = hinge + np.array([side * (CART[0] / 2 + 0.02) * scale, 0.0])
    end = start + np.array([metres * force, 0.0])
    scene.arrow(start, end, 6.0, ORANGE)
    scene.text(end + np.array([side * 0.03 * scale, 0.0]), f"{abs(force):.1f} N", 12.0, SLATE, "lm" if side > 0 else "rm")


def _finite(name: str, value: Numbers, shape: tuple[int | None, ...]) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != len(shape) or any(want not in (None, got) for got, want in zip(array.shape, shape, strict=True)):
        wanted = ["any" if want is None else want for want in shape]
        raise ShapeError(f"{name} wants shape {wanted}; got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise DataError(f"{name} has values that are not finite; leave out the trajectories that diverged")
    return array
