"""Who is better than the reference, and is that more than chance? Paired differences with their intervals."""

import math
from html import escape

import scipy.stats

from bayesdyn.evaluation.pairs import PairedInterval
from bayesdyn.plots.numbers import OPEN_LOOP, Query
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.interactive import INK, Plot, Trace, layout, numbers, off_scale, upright

_Asked = tuple[Query, str, str, str, dict[str, PairedInterval]]


def difference_pictures(of: Compared) -> list[Picture]:
    """Return the paired differences of NLL and CRPS, one step and many steps ahead, to the reference."""
    return [_picture(of, *asked) for asked in _asked(of)]


def comparisons(of: Compared) -> int:
    """Return how many differences the figures show: of so many intervals, one in twenty misses the truth by chance."""
    return sum(len(found) for *_, found in _asked(of))


def _asked(of: Compared) -> list[_Asked]:
    late = of.ahead[-1]
    asked = [
        (Query("nll"), "NLL, one step ahead", "nats per output", "nll"),
        (Query("crps"), "CRPS, one step ahead", "target units", "crps"),
    ]
    if late > 1:
        asked.append((Query("crps", horizon=late, propagation=OPEN_LOOP), f"CRPS after {of.steps(late)}", "target units", "crps"))
    found = [(*each, of.numbers.differences(each[0], of.reference)) for each in asked]
    return [each for each in found if each[-1]]


def _picture(of: Compared, query: Query, title: str, unit: str, formula: str, found: dict[str, PairedInterval]) -> Picture:
    names = list(reversed(found))
    data: list[Trace] = [_interval(of, name, found[name]) for name in names]
    reach = _reach(list(found.values()))
    data += [mark for name in names for mark in _arrows(of, name, found[name], reach)]
    axes = layout(
        "← better",
        f"difference to {of.reference} ({unit})",
        shapes=[upright(0.0, INK)],
        xaxis={"zeroline": False, "range": numbers(reach)},
        yaxis={
            "type": "category",
            "automargin": True,
            "showgrid": False,
            "categoryarray": [escape(name) for name in names],
            "categoryorder": "array",
        },
    )
    alt = f"Difference of {title} to {of.reference}: " + "; ".join(f"{name} {_words(each)}" for name, each in found.items()) + "."
    reading = _reading(of, [each.pairs for each in found.values()])
    return picture(Plot(data, axes), f"difference-{query.metric}-{query.horizon}", title, reading, alt, formula)


def told_from_chance(pairs: int) -> str:
    """Say what so many pairs, two or more, can tell from chance: mean ± t_{0.975, k-1} · std/√k excludes 0 above that many stds.

    >>> told_from_chance(2)
    '2 pairs tell a difference from chance only where its mean exceeds 9.0 times its std over the seeds'
    """
    stds = float(scipy.stats.t.ppf(0.975, pairs - 1)) / math.sqrt(pairs)
    return f"{pairs} pairs tell a difference from chance only where its mean exceeds {stds:.1f} times its std over the seeds"


def _reading(of: Compared, pairs: list[int]) -> str:
    most = max(pairs)
    if most == 1:
        return f"Dot: difference to {of.reference}. With one seed there is no interval: nothing can be said about chance."
    single = " Without a bar: a single pair." if min(pairs) == 1 else ""
    return (
        f"Dot: mean difference to {of.reference} on the same seed and data; bar: its 95 % interval, an arrow where that goes on. "
        f"{told_from_chance(most)}; a bar that crosses 0 leaves open which is better.{single}"
    )


def _arrows(of: Compared, name: str, each: PairedInterval, ends: tuple[float, float]) -> list[Trace]:
    known = [end for end in (each.low, each.high) if math.isfinite(end)]
    return off_scale(of.style(name), [escape(name)] * len(known), known, ends, axis="x")


def _interval(of: Compared, name: str, each: PairedInterval) -> Trace:
    colour = of.palette.variable(name)
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers([each.mean]),
        "y": [escape(name)],
        "marker": {"size": 10, "color": colour},
        "hovertemplate": f"{escape(name)}: {_words(each)}<extra></extra>",
    }
    if math.isfinite(each.low):
        bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 5}
        trace["error_x"] = {**bar, "array": numbers([each.high - each.mean]), "arrayminus": numbers([each.mean - each.low])}
    return trace


def _reach(found: list[PairedInterval]) -> tuple[float, float]:
    """Return limits that show every dot, and intervals unless they are wider than all dots together by far."""
    means = [each.mean for each in found]
    low, high = min(*means, 0.0), max(*means, 0.0)
    room = high - low or 1.0
    ends = [end for each in found for end in (each.low, each.high) if math.isfinite(end)]
    low, high = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _words(each: PairedInterval) -> str:
    interval = f" ({each.low:+.2g} to {each.high:+.2g})" if math.isfinite(each.low) else ""
    return f"{each.mean:+.3g}{interval}"
