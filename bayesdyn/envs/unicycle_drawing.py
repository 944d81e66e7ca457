"""Pictures of the unicycle from the side and from behind, from where its parts are in space."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from bayesdyn.envs.drawing import draw_torque
from bayesdyn.envs.scene import BLUE, GREEN, GREY, INK, MIST, ORANGE, PALE_GREEN, SLATE, VERMILLION, Scene
from bayesdyn.envs.unicycle_plant import UnicyclePlant

_VIEW_METRES = 3.9
_PANEL = 0.975  # metres from the middle of the picture to that of either view
_TABLE_RADIUS = 0.28  # of the drawing only: the plant knows the turntable's inertia, not its shape
_TARGET_RADIUS = 0.08
_TURN = np.linspace(0.0, 2 * np.pi, 49)


class UnicycleOutline(NamedTuple):
    """Places in metres in axes that look ahead, to the left and up, with the wheel's contact at the origin."""

    axle: np.ndarray  # [3]
    top: np.ndarray  # [3], the turntable's centre
    rim: np.ndarray  # [P, 3]
    spoke: np.ndarray  # [2, 3], turns with the wheel
    table: np.ndarray  # [P, 3]
    mark: np.ndarray  # [2, 3], turns with the turntable
    target: np.ndarray  # [3], where the top should be


def unicycle_outline(plant: UnicyclePlant, state: np.ndarray) -> UnicycleOutline:
    """Return where the parts of the unicycle in the plant's state [12] are.

    >>> unicycle_outline(UnicyclePlant(), np.zeros(12)).top
    array([0.   , 0.   , 1.035])
    """
    x, y, theta, phi, wheel, frame, turntable = state[5:]
    side, up = np.array([0.0, np.cos(theta), -np.sin(theta)]), np.array([0.0, np.sin(theta), np.cos(theta)])
    ahead = np.array([1.0, 0.0, 0.0])
    across, along = np.cos(frame) * ahead - np.sin(frame) * up, np.sin(frame) * ahead + np.cos(frame) * up
    axle = plant.wheel_radius * up
    top = axle + (plant.frame_height + plant.turntable_height) * along
    origin_ahead, origin_left = -np.cos(phi) * x - np.sin(phi) * y, np.sin(phi) * x - np.cos(phi) * y
    height = plant.wheel_radius + plant.frame_height + plant.turntable_height
    return UnicycleOutline(
        axle,
        top,
        axle + plant.wheel_radius * _circle(ahead, up, _TURN),
        axle + plant.wheel_radius * _circle(up, ahead, wheel + np.array([0.0, np.pi])),
        top + _TABLE_RADIUS * _circle(across, side, _TURN),
        top + _TABLE_RADIUS * _circle(across, side, turntable + np.array([0.0, np.pi])),
        np.array([origin_ahead, origin_left, height]),
    )


def draw_unicycle(
    outline: UnicycleOutline,
    torques: np.ndarray | None = None,
    largest: np.ndarray | None = None,
    time: float | None = None,
    caption: str | None = None,
    size: tuple[int, int] = (480, 320),
) -> Image.Image:
    """Return side view (left) and view from behind (right), `size` pixels wide and high, the wheel's contact in the middle of each.

    `torques` [2] (turntable, wheel; N m) are a bow over the turntable and one around the axle, of full size at `largest` [2]. The
    ring is where the top should be, at the edge of a view that it lies beyond. `time` (s) and `caption` are written in the corners.

    >>> draw_unicycle(unicycle_outline(UnicyclePlant(), np.zeros(12)), time=0.0).size
    (480, 320)
    """
    scene = Scene(size, _VIEW_METRES, (0.0, 0.62))
    # Seen from the side heading is to the right; from behind, left is left.
    for middle, words, axes in ((-_PANEL, "from the side", (1.0, 0.0)), (_PANEL, "from behind", (0.0, -1.0))):
        _draw_view(scene, outline, middle, axes)
        scene.text(np.array([middle, -0.22]), words, 12.0, GREY)
    scene.line(np.array([[0.0, -0.15], [0.0, 1.6]]), 1.2, MIST)
    if torques is not None and largest is not None:
        # A torque that turns the wheel onwards turns it clockwise as seen here.
        draw_torque(scene, _flat(outline.axle, -_PANEL, (1.0, 0.0)), -float(torques[1]), float(largest[1]), 0.3)
        _draw_turntable_torque(scene, _flat(outline.top, _PANEL, (0.0, -1.0)), float(torques[0]), float(largest[0]))
    if time is not None:
        scene.note(f"t = {time:.2f} s", 15.0, INK)
    if caption is not None:
        scene.note(caption, 15.0, INK, right=True)
    return scene.image()


def _draw_view(scene: Scene, outline: UnicycleOutline, middle: float, axes: tuple[float, float]) -> None:
    scene.line(np.array([[middle - 0.9, 0.0], [middle + 0.9, 0.0]]), 2.5, MIST)
    target = _flat(outline.target, middle, axes)
    target[0] = np.clip(target[0], middle - 0.85, middle + 0.85)
    scene.disc(target, _TARGET_RADIUS, PALE_GREEN, GREEN, 2.0)
    scene.line(_flat(outline.rim, middle, axes), 5.0, INK)
    scene.line(_flat(outline.spoke, middle, axes), 1.8, GREY)
    scene.line(_flat(np.stack((outline.axle, outline.top)), middle, axes), 7.0, SLATE)
    scene.line(_flat(outline.table, middle, axes), 5.0, BLUE)
    scene.line(_flat(outline.mark, middle, axes), 2.2, BLUE)
    scene.disc(_flat(outline.top, middle, axes), 0.05, VERMILLION, None)


def _draw_turntable_torque(scene: Scene, top: np.ndarray, torque: float, largest: float) -> None:
    """Draw an arrow over the turntable as its near edge is pushed: to the right if counter-clockwise from above."""
    length = 0.5 * torque / largest
    if abs(length) > 0.01:
        start = top + np.array([-0.5 * length, 0.16])
        scene.arrow(start, start + np.array([length, 0.0]), 6.0, ORANGE)


def _circle(first: np.ndarray, second: np.ndarray, angles: np.ndarray) -> np.ndarray:
    return np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second


def _flat(points: np.ndarray, middle: float, axes: tuple[float, float]) -> np.ndarray:
    """Return places [..., 2] in the picture of points [..., 3]: `axes` says how far ahead and left go to the right."""
    return np.stack((middle + axes[0] * points[..., 0] + axes[1] * points[..., 1], points[..., 2]), -1)
