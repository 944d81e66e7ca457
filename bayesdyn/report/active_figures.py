"""Learning from the rows that a model asks for, against rows at random."""

import numpy as np

from bayesdyn.evaluation.active_learning import RANDOM
from bayesdyn.plots import optional_series
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.interactive import DASHES, MUTED, Plot, Style, Trace, band, layout, line

_TITLES = {"information": "by information", "total_variance": "by total variance", RANDOM: "at random"}


def active_pictures(of: Compared) -> list[Picture]:
    """Return for each posterior its error against the number of rows, for every way of asking for them."""
    return [found for name in of.learned if (found := _curves(of, name)) is not None]


def _curves(of: Compared, name: str) -> Picture | None:
    found = optional_series.active_curves(of.numbers, name)
    if RANDOM not in found:
        return None
    data, words = list[Trace](), []
    for place, (acquisition, (rows, values)) in enumerate(found.items()):
        title = _TITLES.get(acquisition, acquisition)
        colour = MUTED if acquisition == RANDOM else of.style(name).colour
        style = Style(title, colour, DASHES[0 if acquisition == RANDOM else place % len(DASHES)])
        mean = values.mean(0)
        if len(values) > 1:
            std = values.std(0, ddof=1)
            data.append({**band(style, rows, mean - std, mean + std, 14), "legendgroup": name})
        data.append({**line(style, rows, mean, "%{y:.3g} with %{x} rows"), "legendgroup": name})
        words.append(f"{title} {mean[-1]:.3g}")
    seeds = max(len(values) for _, values in found.values())
    axes = layout("rows of data", "error (NRMSE)", yaxis={"rangemode": "tozero"})
    alt = f"Error of {name} against the number of rows that it was given; at the end {', '.join(words)}."
    gains = [f"{_TITLES.get(a, a)} saves {np.mean(g):+.0%}" for a, g in optional_series.active_gains(of.numbers, name).items()]
    asked = ", dashed ".join(_TITLES.get(a, a) for a in found if a != RANDOM)
    reading = f"Solid {asked}, grey at random; mean ± std over {seeds} seeds. "
    return picture(Plot(data, axes, owner=name), f"active-{name}", name, reading + "; ".join(gains) + ".", alt, "active")
