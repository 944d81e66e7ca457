"""What a model saw coming while it acted: the fan that was imagined at each moment of a trial, over what then happened."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bayesdyn.loop import Run, Trial
from bayesdyn.presets import rehearsals
from bayesdyn.report.canvas import Palette, Picture
from bayesdyn.report.compared import picture
from bayesdyn.report.content import Section
from bayesdyn.report.interactive import INK, MUTED, Plot, Slider, Trace, area, layout, numbers, shade
from bayesdyn.report.scenarios import Scenario

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_FRAMES, _MOST_COORDINATES, _LINES = 60, 8, 4

Array = Float[np.ndarray, "..."]


def imagined_section(name: str, run: Run, scenario: Scenario, palette: Palette) -> Section | None:
    """Return a section about the last trial in which something was imagined, one figure per coordinate of the state, or None."""
    trial = next((trial for trial in reversed(run.trials) if _finite(trial)), None)
    if trial is None:
        return None
    count = len(trial.imagined)
    moments = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRAMES)).round().astype(int)).tolist()
    step = scenario.step_seconds or 1.0
    unit = "s" if scenario.step_seconds else "steps"
    found = rehearsals(run).get(trial.index)
    size = min(trial.episode.states.shape[1], _MOST_COORDINATES)
    titles = found.names if found is not None else [f"coordinate {k}" for k in range(size)]
    labels = [f"{moment * step:.3g} {unit}" for moment in moments]
    return Section(
        f"What {name} imagined, moment by moment",
        f"Trial {trial.index}. The fan is what the model held possible under the plan or policy in force at the moment that the "
        "slider "
        "chooses: half of the worlds lie in the dark band, nine in ten in the pale one, thin lines are single ones. It starts "
        "where "
        "the plan was made. The strong line is what really happened; the dot is now. Where plans are renewed on the way, the real "
        "trial soon follows other actions than the fan.",
        [_coordinate(name, trial, k, titles[k].replace("_", " "), moments, step, unit, palette) for k in range(size)],
        wide=True,
        slider=Slider("Moment in the trial", labels, first=len(moments) // 3),
    )


def _finite(trial: Trial) -> bool:
    return trial.controlled and bool(trial.imagined.numel()) and bool(trial.imagined.isfinite().any())


def _coordinate(
    name: str, trial: Trial, k: int, title: str, moments: Sequence[int], step: float, unit: str, palette: Palette
) -> Picture:
    colour = palette.variable(name)
    truth = trial.episode.states[:, k].double().numpy()
    fans = [_fan(trial, k, moment) for moment in moments]
    frames: list[Mapping[str, Any]] = []
    for moment, fan in zip(moments, fans, strict=True):
        made = moment - int(trial.age[moment])
        time = step * (made + np.arange(len(fan)))
        moving = _moving(time, fan, colour, name, step * moment, truth[moment])
        frames.append({"x": [*(t["x"] for t in moving), None], "y": [*(t["y"] for t in moving), None]})
    first = len(moments) // 3
    made = moments[first] - int(trial.age[moments[first]])
    still = _line(step * np.arange(len(truth)), truth, INK, 2.2, "happened: %{y:.3g}")
    fan = fans[first]
    data = [
        *_moving(step * (made + np.arange(len(fan))), fan, colour, name, step * moments[first], truth[moments[first]]),
        still,
    ]
    axes = layout(
        f"time in the trial ({unit})", "", xaxis={"range": [0, step * (len(truth) - 1)]}, yaxis={"range": _range(truth, fans)}
    )
    ahead, inside = _inside(trial, truth, fans, moments)
    steps = f"{ahead} step{'s' if ahead > 1 else ''}"
    told = f"{steps} after a plan was made, the truth was inside its 90 % band {inside:.0%} of the time."
    alt = f"{title.capitalize()} over trial {trial.index} with {name}, and what was imagined at {len(moments)} moments. {told}"
    return picture(Plot(data, axes, frames), f"imagined-{name}-{k}", title, told, alt, "imagined")


def _fan(trial: Trial, k: int, moment: int) -> Float[np.ndarray, "H n"]:
    """Return the worlds of one moment, those that ran away as not a number."""
    fan = trial.imagined[moment, :, :, k].double().numpy()
    return np.where(np.isfinite(fan), fan, np.nan)


def _quantiles(fan: Float[np.ndarray, "H n"]) -> Float[np.ndarray, "5 H"]:
    known = np.isfinite(fan).any(1)
    nothing = np.full(len(_LEVELS), np.nan)
    return np.stack([np.nanquantile(row, _LEVELS) if any_ else nothing for row, any_ in zip(fan, known, strict=True)], 1)


def _moving(time: Array, fan: Float[np.ndarray, "H n"], colour: str, name: str, now: float, state: float) -> list[Trace]:
    low, half_low, middle, half_high, high = _quantiles(fan)
    kept = np.isfinite(low)
    dot = {"mode": "markers", "marker": {"color": INK, "size": 9}}
    # There are always as many lines, so that frames fit each other.
    lines = [_line(time, fan[:, place % fan.shape[1]], colour, 0.8) for place in range(_LINES)]
    return [
        area(time[kept], low[kept], high[kept], shade(colour, 16)),
        area(time[kept], half_low[kept], half_high[kept], shade(colour, 26)),
        _line(time, middle, colour, 2, "expected: %{y:.3g}"),
        *lines,
        {**_line(np.array([now]), np.array([state]), MUTED, 1), **dot},
    ]


def _line(x: Array, y: Array, colour: str, width: float, told: str = "") -> Trace:
    quiet = {"hovertemplate": f"{told}<extra></extra>"} if told else {"hoverinfo": "skip"}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers(x),
        "y": numbers(y),
        "line": {"color": colour, "width": width},
        **quiet,
    }


def _inside(trial: Trial, truth: Array, fans: Sequence[Array], moments: Sequence[int]) -> tuple[int, float]:
    """Return for how many steps a plan was followed, half its horizon at most, and how often its 90 % band then held the truth.

    Beyond that the actions are no longer those that the fan is for.
    """
    ahead = max(min((len(fans[0]) - 1) // 2, int(trial.age.max()) + 1), 1)
    held = []
    for moment, fan in zip(moments, fans, strict=True):
        place = moment - int(trial.age[moment]) + ahead
        if place < len(truth) and np.isfinite(fan[ahead]).any():
            low, *_, high = np.nanquantile(fan[ahead], _LEVELS)
            held.append(low <= truth[place] <= high)
    return ahead, float(np.mean(held)) if held else float("nan")


def _range(truth: Array, fans: Sequence[Array]) -> list[float | None]:
    """Return limits around the truth and nearly all of what was imagined."""
    everything = np.concatenate([fan[np.isfinite(fan)] for fan in fans])
    reach = float(np.ptp(truth)) or 1.0
    low, high = np.quantile(everything, [0.01, 0.99]) if len(everything) else (truth.min(), truth.max())
    low, high = max(low, truth.min() - reach), min(high, truth.max() + reach)
    low, high = min(low, truth.min()), max(high, truth.max())
    return numbers([low - 0.06 * reach, high + 0.06 * reach])
