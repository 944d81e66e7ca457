"""One colour per posterior, and axes that read on a light and on a dark page."""

import zlib
from collections.abc import Sequence

from matplotlib.axes import Axes

NEUTRAL = "#808080"
# Eight hues at least 3:1 against white and against #171d24, found by search to stay apart with any common colour blindness, and no
# two of one tint.
PALETTE = ("#2957FF", "#D18108", "#00A2BC", "#9D7AFF", "#CA2B25", "#4F784E", "#B88186", "#AF28A7")
# By class and by the name of the command line. Of two that share a hue, a page gives the second another.
_KNOWN = {
    "ExactGP": 0,
    "gp": 0,
    "BootstrapEnsemble": 1,
    "ensemble": 1,
    "SparseGP": 2,
    "sparse-gp": 2,
    "MCDropout": 3,
    "mc-dropout": 3,
    "ConcreteDropout": 3,
    "concrete-dropout": 3,
    "MeanField": 4,
    "mean-field": 4,
    "Laplace": 5,
    "laplace": 5,
    "SWAG": 6,
    "swag": 6,
    "SGHMC": 6,
    "sghmc": 6,
    "MaximumLikelihood": 7,
    "maximum-likelihood": 7,
    "NUTS": 7,
    "nuts": 7,
}
_REFERENCES = frozenset({"ridge-linear", "persistence"})


def colour(name: str) -> str:
    """Return the one colour of a posterior, the same in every figure and every session; references are grey.

    Names that the package knows have hues of their own; others are dealt one by a checksum of the name.

    >>> colour("ExactGP")
    '#2957FF'
    """
    return NEUTRAL if name in _REFERENCES else PALETTE[_place(name)]


def places(names: Sequence[str]) -> dict[str, int]:
    """Return where in the palette each name is, no place twice as long as there are free ones.

    >>> places(["ensemble", "gp", "mine", "yours"])["gp"]
    0
    """
    taken: dict[str, int] = {}
    for name in names:
        if name in _KNOWN and _KNOWN[name] not in taken.values():
            taken[name] = _KNOWN[name]
    for name in names:
        if name not in taken:
            free = [place for place in range(len(PALETTE)) if place not in taken.values()]
            taken[name] = _place(name) if _place(name) in free or not free else free[0]
    return {name: taken[name] for name in names}


def _place(name: str) -> int:
    return _KNOWN.get(name, zlib.crc32(name.encode()) % len(PALETTE))


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
