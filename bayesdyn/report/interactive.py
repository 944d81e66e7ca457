"""Interactive figures: Plotly traces and layouts as plain data, which the page's script draws in the page's colours.

A colour is written `var(--name)` or `var(--name/40)`, with 40 % opacity; the script looks it up in the page's style, so that
figures follow the light and the dark scheme as text does.
"""

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from bayesdyn.report.canvas import Palette

Trace = dict[str, Any]
Array = Float[np.ndarray, "..."]
INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
DASHES = ("solid", "dash", "dot", "dashdot")
_DIGITS = 5


@dataclass(frozen=True)
class Plot:
    """A figure in Plotly's terms; `frames` are states that a slider of the section chooses between.

    A frame holds new values `y` of every trace and perhaps `x` (None: as they are), and perhaps the `range` of the y axis and a
    `note` for the title. `owner` is the posterior that all of it is about, if it is about one: the page hides it while a reader
    looks at another.
    """

    data: Sequence[Trace]
    layout: Mapping[str, Any]
    frames: Sequence[Mapping[str, Any]] = ()
    owner: str = ""
    tall: bool = False


def shade(colour: str, percent: int) -> str:
    """Return a colour of the page with an opacity.

    >>> shade("var(--series-0)", 20)
    'var(--series-0/20)'
    """
    return f"{colour[:-1]}/{percent})"


def numbers(values: Array | Sequence[float]) -> list[float | None]:
    """Return values with five digits as JSON wants them: None for what is no finite number.

    >>> numbers([1 / 3, float("nan")])
    [0.33333, None]
    """
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in np.asarray(values, dtype=float).tolist()]


@dataclass(frozen=True)
class Style:
    """How the traces of one name look; `group` is what the reader chooses by."""

    name: str
    colour: str
    dash: str = "solid"
    width: float = 2.0

    @classmethod
    def of(cls, palette: Palette, name: str) -> "Style":
        """Return the style of a posterior or reference."""
        return cls(name, palette.variable(name), *(("dash", 1.5) if palette.is_baseline(name) else ("solid", 2.0)))


def line(style: Style, x: Sequence[float] | Array, y: Sequence[float] | Array, told: str = "", **options: Any) -> Trace:
    """Return a line; `told` is what the cursor is shown, with %{x} and %{y}."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": style.name,
        "legendgroup": style.name,
        "x": numbers(x),
        "y": numbers(y),
        "line": {"color": style.colour, "dash": style.dash, "width": style.width},
        "hovertemplate": f"{html.escape(style.name)}: {told or '%{y:.3g}'}<extra></extra>",
        **options,
    }


def area(
    x: Sequence[float] | Array, low: Sequence[float] | Array, high: Sequence[float] | Array, colour: str, owner: str = ""
) -> Trace:
    """Return the area between two lines; `owner` is the name that the reader chooses it by, if there is one."""
    around = [np.asarray(values, dtype=float) for values in (x, low, high)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers(np.concatenate([around[0], around[0][::-1]])),
        "y": numbers(np.concatenate([around[1], around[2][::-1]])),
        "fill": "toself",
        "fillcolor": colour,
        "line": {"width": 0},
        "hoverinfo": "skip",
        **({"legendgroup": owner} if owner else {}),
    }


def band(style: Style, x: Sequence[float] | Array, low: Array, high: Array, percent: int) -> Trace:
    """Return an area in a name's own colour, with an opacity."""
    return {**area(x, low, high, shade(style.colour, percent), style.name), "name": style.name}


def null_band(name: str, x: Sequence[float] | Array, low: Array, high: Array) -> Trace:
    """Return the area in which a right model would be, in grey."""
    return {**area(x, low, high, shade(INK, 14), name), "name": f"{name}: a right model"}


def off_scale(
    style: Style, x: Sequence[Any], y: Sequence[float] | Array, ends: tuple[float, float], axis: str = "y"
) -> list[Trace]:
    """Return arrows at the edge of a picture that ends at `ends`, where a name's values `y` lie outside, one per value.

    With `axis` "x" the values run along x, and `x` says where on the other axis.

    >>> [mark] = off_scale(Style("gp", "var(--series-0)"), [1, 2, 3], [0.5, -4.0, 0.1], (0.0, 1.0))
    >>> mark["x"], mark["y"], mark["marker"]["symbol"]
    ([2], [0.0], 'triangle-down')
    """
    values = np.asarray(y, dtype=float)
    below, above = {"y": ("triangle-down", "triangle-up"), "x": ("triangle-left", "triangle-right")}[axis]
    marks = []
    for outside, end, symbol in ((values < ends[0], ends[0], below), (values > ends[1], ends[1], above)):
        places = np.flatnonzero(outside)
        if len(places):
            along, across = [x[int(place)] for place in places], numbers([end] * len(places))
            marks.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "meta": "mark",
                    "name": f"{style.name}: off the scale",
                    "legendgroup": style.name,
                    "x": along if axis == "y" else across,
                    "y": across if axis == "y" else along,
                    "customdata": numbers(values[places]),
                    "marker": {"color": style.colour, "size": 10, "symbol": symbol},
                    "cliponaxis": False,
                    "hovertemplate": f"{html.escape(style.name)}: off the scale, %{{customdata:.3g}}<extra></extra>",
                }
            )
    return marks


def alone(trace: Trace) -> Trace:
    """Return the trace, to be shown only while the reader looks at its posterior alone."""
    return {**trace, "meta": "alone"}


def rule(x: Sequence[float], y: Sequence[float], dash: str = "dot", colour: str = MUTED) -> Trace:
    """Return a line to compare with, which is always shown."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "dash": dash, "width": 1.3},
        "hoverinfo": "skip",
    }


def upright(x: float, colour: str = MUTED) -> dict[str, Any]:
    """Return a vertical line over the whole height, as a shape of the layout."""
    line = {"color": colour, "width": 1.3, "dash": "dot"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def decades(edges: Array) -> dict[str, Any]:
    """Return ticks for a logarithmic axis: powers of ten, with their doubles and fives where there are few of these.

    >>> decades(np.array([0.3, 3.0]))["ticktext"]
    ['0.5', '1', '2']
    """
    low, high = math.log10(edges[0]), math.log10(edges[-1])
    steps = (1,) if high - low > 1.8 else (1, 2, 5)
    every = max(round((high - low) / 5), 1)
    powers = [power for power in range(math.floor(low), math.ceil(high) + 1) if power % every == 0]
    ticks = [step * 10.0**power for power in powers for step in steps]
    shown = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return {"tickmode": "array", "tickvals": numbers(shown), "ticktext": [f"{tick:g}" for tick in shown]}


def layout(x: str, y: str, **options: Any) -> dict[str, Any]:
    """Return a layout with the name of y above the axis, where it needs no turned text; options are merged into the axes.

    `xaxis` and `yaxis` take Plotly's options; all others go to the layout itself.
    """
    return {
        "title": {"text": y},
        **options,
        "xaxis": {"title": {"text": x}, **options.get("xaxis", {})},
        "yaxis": options.get("yaxis", {}),
    }


def markup(plot: Plot, name: str, alt: str) -> str:
    """Return the place of a figure in the page, with its data beside it; `name` tells it from others."""
    identity = f"plot-{re.sub(r'[^A-Za-z0-9]+', '-', name)}".lower()
    told = html.escape(alt, quote=True)
    data = {"data": plot.data, "layout": plot.layout, "frames": plot.frames}
    # Within a script, a less-than sign could end it.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    size = "plot tall" if plot.tall else "plot"
    return (
        f'<div class="{size}" id="{identity}" role="img" aria-label="{told}"></div>'
        f'<script type="application/json" data-plot="{identity}">{text}</script>'
    )


@dataclass(frozen=True)
class Slider:
    """A control of a section that moves all its figures: what it chooses, a label for every frame, and the first one shown."""

    title: str
    labels: Sequence[str]
    first: int = 0
    outputs: Sequence[str] = field(default_factory=tuple)
