"""Small SVG panels, drawn with Matplotlib and coloured by the page's CSS variables, so that they are right in light and dark."""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdyn.plots.style import PALETTE, places

# What Matplotlib draws in the left colour, the page shows in the right one.
INK, MUTED, GRID, PAPER = "#1a1b1c", "#6a6b6c", "#dcdddf", "#fdfefc"
SERIES = tuple(colour.lower() for colour in PALETTE)
BASELINES = ("#7b7c7d", "#9b9c9d")
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)},
    **{colour: f"var(--baseline-{index})" for index, colour in enumerate(BASELINES)},
}
_PIXELS_PER_INCH = 72  # of Matplotlib's SVG: a font size in points is one in the page's pixels
_IDENTITY = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r"#([A-Za-z][\w.-]*)")
_TAG = re.compile(r"<[^>]*>")
_DECIMALS = re.compile(r"(\d+\.\d\d)\d+")
_UNWANTED = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|font-family: [^;\"]*;", flags=re.DOTALL)


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its markup, its title, one sentence on how to read it, and what it shows in words.

    `formula` is the anchor of what it is computed by; `owner` the posterior that all of it is about, if it is about one.
    """

    title: str
    reading: str
    alt: str
    markup: str
    formula: str = ""
    owner: str = ""
    interactive: bool = False


class Palette:
    """One colour per posterior, the same in every figure; baselines are grey.

    >>> Palette(["ensemble", "gp"], ["ridge"]).variable("gp")
    'var(--series-0)'
    """

    def __init__(self, names: Sequence[str], baselines: Sequence[str] = ()) -> None:
        self._colours = {name: SERIES[place] for name, place in places(list(dict.fromkeys(names))).items()}
        self._baselines = {name: BASELINES[place % len(BASELINES)] for place, name in enumerate(dict.fromkeys(baselines))}
        self._colours |= self._baselines

    def is_baseline(self, name: str) -> bool:
        """Whether the name is one of the grey ones."""
        return name in self._baselines

    def colour(self, name: str) -> str:
        """Return the colour that stands for `name` in a drawing."""
        return self._colours.get(name, MUTED)

    def variable(self, name: str) -> str:
        """Return the same colour as the page's CSS variable."""
        return VARIABLES[self.colour(name)]

    @property
    def variables(self) -> dict[str, str]:
        """The CSS variable of every name."""
        return {name: VARIABLES[colour] for name, colour in self._colours.items()}


def panel(width: int = 320, height: int = 220) -> tuple[Figure, Axes]:
    """Return an empty panel of about `width` x `height` CSS pixels, without frame, with light horizontal lines.

    >>> figure, axes = panel()
    >>> len(figure.axes)
    1
    """
    # Without pyplot: no global state, and nothing to close.
    figure = Figure((width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(which="both", colors=MUTED, labelcolor=MUTED, labelsize=11, length=0, pad=5)
    axes.tick_params(axis="x", length=3)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    return figure, axes


def label(axes: Axes, x: str, y: str) -> None:
    """Name the axes: x below, y in the panel's upper left corner, where it needs no turned text."""
    axes.set_xlabel(x, fontsize=11, color=MUTED)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.suptitle(y, fontsize=11.5, color=INK, x=0.008, ha="left")


def draw(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as inline SVG with the page's colours and fonts; `name` keeps its ids apart from other figures'.

    >>> draw(panel()[0], "empty", "nothing yet").startswith('<svg role="img" aria-label="nothing yet"')
    True
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # A style element would rule the whole page, and the same id twice is an error there.
    used = set(_REFERENCE.findall(svg))
    svg = _IDENTITY.sub(lambda match: match[0] if match[1] in used else "", svg)
    svg = _TAG.sub(lambda match: _DECIMALS.sub(r"\1", match[0]), _UNWANTED.sub("", svg))
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    width, height = (72 * side for side in figure.get_size_inches())
    opening = f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return re.sub(r"<svg [^>]*>", f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)
