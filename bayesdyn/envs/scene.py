"""A canvas measured in metres, anti-aliased by drawing larger and shrinking, on which the plants are drawn."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bayesdyn.errors import ConfigurationError

# Colours that people with any common colour blindness tell apart: Okabe & Ito, "Color Universal Design" (2008), and greys.
BLUE, SKY, GREEN, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
INK, SLATE, GREY, MIST, PAPER, PALE_GREEN = "#1F2933", "#52606D", "#7B8794", "#CBD2D9", "#FCFDFE", "#E3F4EE"

_USUAL_WIDTH = 480
_SUPERSAMPLING = 3
_SMOOTH_PIECES = 8


class Scene:
    """A picture of `size` pixels that shows `metres` of the world from left to right, around `centre`; y points up.

    Places are in metres [2]; strokes, radii and text heights are in 480ths of the width (pixels of a picture of the usual size), so
    that a larger picture is the same picture.
    Raises `ConfigurationError` for a picture without area.
    """

    def __init__(self, size: tuple[int, int], metres: float, centre: tuple[float, float]) -> None:
        if min(size) < 1 or not metres > 0:
            raise ConfigurationError(f"a picture wants positive pixels and metres; got {size} and {metres}")
        self.size = size
        self.metres = metres
        self.centre = np.array(centre)
        self._image = Image.new("RGB", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING), PAPER)
        self._pen = ImageDraw.Draw(self._image)
        self._unit = _SUPERSAMPLING * size[0] / _USUAL_WIDTH

    def image(self) -> Image.Image:
        """Return what has been drawn, at its final size."""
        return self._image.resize(self.size, Image.Resampling.LANCZOS)

    @property
    def span(self) -> tuple[float, float]:
        """The x of the left and of the right edge, in metres."""
        return float(self.centre[0] - self.metres / 2), float(self.centre[0] + self.metres / 2)

    def line(self, points: np.ndarray, width: float, colour: str) -> None:
        """Draw a polyline [K, 2] with round ends."""
        _stroke(self._pen, self._pixels(points), width * self._unit, [colour] * (len(points) - 1))

    def disc(self, point: np.ndarray, radius: float, fill: str | None, outline: str | None = None, width: float = 0.0) -> None:
        """Draw a filled circle of `radius` metres, a ring, or both."""
        x, y = self._pixels(point)
        r = radius * self._scale
        self._pen.ellipse((x - r, y - r, x + r, y + r), fill, outline, round(width * self._unit))

    def box(self, point: np.ndarray, size: tuple[float, float], radius: float, fill: str) -> None:
        """Draw a rectangle of `size` metres around `point`, its corners rounded by `radius` pixels."""
        x, y = self._pixels(point)
        half = 0.5 * np.array(size) * self._scale
        self._pen.rounded_rectangle((x - half[0], y - half[1], x + half[0], y + half[1]), radius * self._unit, fill)

    def arrow(self, start: np.ndarray, end: np.ndarray, width: float, colour: str) -> None:
        """Draw an arrow whose head, three strokes wide, ends at `end`."""
        a, b = self._pixels(start), self._pixels(end)
        length = float(np.linalg.norm(b - a))
        if length < self._unit:
            return
        along = (b - a) / length
        across = np.array([-along[1], along[0]])
        head = min(3.0 * width * self._unit, length)
        neck = b - head * along
        half = 0.5 * width * self._unit
        wide = 0.6 * head
        corners = (a + half * across, neck + half * across, neck + wide * across, b)
        mirrored = (neck - wide * across, neck - half * across, a - half * across)
        self._pen.polygon([tuple(p) for p in (*corners, *mirrored)], fill=colour)

    def text(self, point: np.ndarray, words: str, height: float, colour: str, anchor: str = "mm") -> None:
        """Write `words` at a place in metres; `anchor` as in Pillow ("mm" centred, "ls" left on the baseline)."""
        x, y = self._pixels(point)
        font = ImageFont.load_default(height * self._unit)
        self._pen.text((x, y), words, colour, font, anchor, stroke_width=2 * self._unit, stroke_fill=PAPER)

    def note(self, words: str, height: float, colour: str, *, right: bool = False) -> None:
        """Write `words` in the upper left corner, or the upper right one."""
        margin = 14 * self._unit
        x = self._image.size[0] - margin if right else margin
        font = ImageFont.load_default(height * self._unit)
        self._pen.text((x, margin), words, colour, font, "ra" if right else "la")

    def trails(
        self, paths: np.ndarray, width: float, colour: str, opacity: float, *, fade: tuple[float, float], end: float = 0.0
    ) -> None:
        """Lay translucent curves through paths [T, n, 2] over the picture; where k of them cross, 1 - (1 - opacity)^k shows.

        Along each path the opacity is scaled from `fade[0]` at its first point to `fade[1]` at its last, where a dot of radius
        `end` is set. Paths without points are left out.
        """
        if paths.size == 0:
            return
        height, breadth = self._image.size[1], self._image.size[0]
        clear = np.ones((height, breadth), np.float32)
        curves = self._pixels(_smooth(paths))
        strength = np.linspace(*fade, max(len(curves) - 1, 1)) * 255
        greys = [round(float(s)) for s in strength]
        margin = int(max(width, end) * self._unit) + 2
        r = end * self._unit
        for curve in curves.swapaxes(0, 1):
            low = np.clip(np.floor(curve.min(0)).astype(int) - margin, 0, (breadth, height))
            high = np.clip(np.ceil(curve.max(0)).astype(int) + margin, 0, (breadth, height))
            if (high <= low).any():
                continue
            mask = Image.new("L", tuple(high - low), 0)
            pen = ImageDraw.Draw(mask)
            _stroke(pen, curve - low, width * self._unit, greys)
            x, y = curve[-1] - low
            pen.ellipse((x - r, y - r, x + r, y + r), 255)
            clear[low[1] : high[1], low[0] : high[0]] *= 1 - opacity / 255 * np.asarray(mask, np.float32)
        covered = Image.fromarray(np.round(255 * (1 - clear)).astype(np.uint8))
        self._image.paste(colour, (0, 0), covered)

    @property
    def _scale(self) -> float:
        return self._image.size[0] / self.metres

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        middle = 0.5 * np.array(self._image.size)
        pixels = middle + self._scale * (np.asarray(points) - self.centre) * np.array([1.0, -1.0])
        # A trajectory that ran away must not overflow Pillow's integers; ten pictures to either side is out of sight.
        return np.clip(pixels, -10.0 * max(self._image.size), 10.0 * max(self._image.size))


def _stroke(pen: ImageDraw.ImageDraw, points: np.ndarray, width: float, fills: list[str] | list[int]) -> None:
    """Draw segment i of [K, 2] pixels in `fills[i]`, last first, each end rounded."""
    r = width / 2
    for a, b, fill in reversed(list(zip(points[:-1], points[1:], fills, strict=False))):
        pen.line((a[0], a[1], b[0], b[1]), fill, round(width))
        for x, y in (a, b):
            pen.ellipse((x - r, y - r, x + r, y + r), fill)


def _smooth(paths: np.ndarray) -> np.ndarray:
    """Return the Catmull-Rom curve through [T, ..., 2]: a tip turns up to a radian per step, and chords would cut its circle."""
    if len(paths) < 3:
        return paths
    # Beyond its ends the path goes on with the bend it has there.
    first, last = (3 * (ends[0] - ends[1]) + ends[2] for ends in (paths[:3], paths[:-4:-1]))
    padded = np.concatenate((first[None], paths, last[None]))
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(_SMOOTH_PIECES) / _SMOOTH_PIECES).reshape(-1, *(1,) * paths.ndim)
    linear, square, cube = end - before, 2 * before - 5 * start + 4 * end - after, 3 * (start - end) + after - before
    curve = start + 0.5 * t * (linear + t * (square + t * cube))
    return np.concatenate((curve.swapaxes(0, 1).reshape(-1, *paths.shape[1:]), paths[-1:]))
