"""One colour per posterior, and axes that read on a light and on a dark page."""

import zlib

from matplotlib.axes import Axes

NEUTRAL = "#808080"
# Six hues at least 3:1 against white and against #121212, found by search to stay apart with any common colour blindness.
PALETTE = ("#1F85C9", "#D5652A", "#01A45D", "#D053FC", "#7D548C", "#573FFF")
_KNOWN = {
    "ExactGP": 0,
    "BootstrapEnsemble": 1,
    "SparseGP": 2,
    "MCDropout": 3,
    "MeanField": 4,
    "Laplace": 5,
}
_REFERENCES = frozenset({"ridge-linear", "persistence"})


def colour(name: str) -> str:
    """Return the one colour of a posterior, the same in every figure and every session; references are grey.

    Names that the package knows have hues of their own; others are dealt one by a checksum of the name.

    >>> colour("ExactGP")
    '#1F85C9'
    """
    if name in _REFERENCES:
        return NEUTRAL
    return PALETTE[_KNOWN.get(name, zlib.crc32(name.encode()) % len(PALETTE))]


def dress(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes their titles, grey text and ticks, a faint grid, no frame and a see-through background."""
    axes.set_facecolor("none")
    axes.figure.patch.set_alpha(0.0)
    axes.set_title(title, color=NEUTRAL, fontsize=10, loc="left")
    axes.set_xlabel(x, color=NEUTRAL, fontsize=9)
    axes.set_ylabel(y, color=NEUTRAL, fontsize=9)
    axes.tick_params(colors=NEUTRAL, which="both", labelsize=8, length=2)
    axes.grid(color=NEUTRAL, alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def legend(axes: Axes) -> None:
    """Add a legend without a frame, in grey."""
    axes.legend(frameon=False, fontsize=8, labelcolor=NEUTRAL)


def legend_above(axes: Axes) -> None:
    """Add the legend above axes whose bands leave no room inside."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.2, frameon=False, fontsize=8, labelcolor=NEUTRAL
    )
