"""The figures of a policy search: what it predicted of its trials, and what came of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from bayesdyn.loop import Run, Trial
from bayesdyn.plots import cost_by_trial, predicted_cost, predicted_state
from bayesdyn.presets import Rehearsal, rehearsals
from bayesdyn.report.canvas import INK, Palette, Picture, draw, label, panel
from bayesdyn.report.content import Section
from bayesdyn.report.scenarios import Scenario

_LARGE = (430, 265)
_NEEDED = ("cost_mean", "cost_std", "state_mean", "state_std")


def searched(run: Run) -> bool:
    """Whether the run is one of a policy search, which predicts what its trials will be like."""
    return any(_predicted(trial) for trial in run.trials)


def search_sections(runs: Mapping[str, Run], scenario: Scenario, palette: Palette) -> list[Section]:
    """Return the sections about the runs among these that searched policies."""
    sections = []
    for name, run in runs.items():
        trials = [trial for trial in run.trials if _predicted(trial)]
        if trials:
            kept = rehearsals(run)
            sections += [_costs(name, trials, kept, scenario, palette), _states(name, trials[-1], kept, scenario, palette)]
    return sections


def predicted_total(trial: Trial) -> float:
    """Return the cost that was predicted of the steps that the trial had."""
    return float(trial.predictions["cost_mean"][1 : len(trial.episode) + 1].sum())


def rehearsed(found: Rehearsal, scenario: Scenario) -> str:
    """Return, in words, in how many other real rollouts the policy solved the task; nothing if there were none."""
    count = len(found.furthest)
    return f"{int((found.furthest < scenario.solved).sum())} of {count}" if count else ""


def _predicted(trial: Trial) -> bool:
    return all(name in trial.predictions for name in _NEEDED)


def _costs(name: str, trials: Sequence[Trial], kept: Mapping[int, Rehearsal], scenario: Scenario, palette: Palette) -> Section:
    pictures = [_gap(name, trials, kept, palette)] if any(trial.index in kept for trial in trials) else []
    shown = [trials[0], trials[-1]] if len(trials) > 1 else list(trials)
    pictures += [_cost(name, trial, kept.get(trial.index), scenario, palette) for trial in shown]
    return Section(
        f"What {name} promised, and what it cost",
        "Each policy is improved on the model alone, which predicts what every step of the next trial will cost. A search finds "
        "whatever makes the model hopeful, a fault of the model included; more cost than was promised is the sign of that.",
        pictures,
        wide=True,
    )


def _states(name: str, trial: Trial, kept: Mapping[int, Rehearsal], scenario: Scenario, palette: Palette) -> Section:
    found = kept.get(trial.index)
    size = trial.predictions["state_mean"].shape[-1]
    names = found.names if found is not None else tuple(f"coordinate {k}" for k in range(size))
    solved = "" if found is None else rehearsed(found, scenario)
    others = f" Let loose from other starts, this policy solved the task {solved} times." if solved else ""
    return Section(
        f"Where {name} thought the last trial would go",
        "The bars are the predicted state, mean and two standard deviations, from the start alone; the strong line is trial "
        f"{trial.index}, and the thin ones are the same policy from other starts. A sound model has nearly all of them in its bars."
        + others,
        [_state(name, trial, found, k, names[k].replace("_", " "), scenario, palette) for k in range(size)],
        wide=size % 3 > 0,
    )


def _gap(name: str, trials: Sequence[Trial], kept: Mapping[int, Rehearsal], palette: Palette) -> Picture:
    known = [trial for trial in trials if trial.index in kept]
    predicted = [predicted_total(trial) for trial in known]
    realised = [float(kept[trial.index].cost.sum()) for trial in known]
    figure, axes = panel(*_LARGE)
    cost_by_trial(axes, [trial.index for trial in known], predicted, realised, colour=palette.colour(name), truth=INK)
    axes.set_xticks([trial.index for trial in known])
    axes.set_ylim(bottom=0)
    _legend(axes)
    label(axes, "trial", "cost of the whole trial")
    alt = f"Predicted and realised cost per trial with {name}: last {predicted[-1]:.3g} predicted and {realised[-1]:.3g} realised."
    return Picture(
        "Was the model exploited?",
        "Realised above predicted: the policy made use of what only the model believed in. More data close the gap.",
        alt,
        draw(figure, f"gap-{name}", alt),
    )


def _cost(name: str, trial: Trial, found: Rehearsal | None, scenario: Scenario, palette: Palette) -> Picture:
    mean, std = (trial.predictions[key].numpy() for key in ("cost_mean", "cost_std"))
    figure, axes = panel(*_LARGE)
    predicted_cost(
        axes,
        _time(len(mean), scenario),
        mean,
        std,
        real=None if found is None else found.cost.numpy(),
        rollouts=None if found is None else found.costs.numpy(),
        colour=palette.colour(name),
        truth=INK,
    )
    _legend(axes)
    label(axes, _clock(scenario), "cost of a step")
    alt = f"Predicted cost of each step of trial {trial.index} with {name}, mean and two standard deviations, and the real cost. "
    alt += f"It ends at {float(mean[-1]):.2g} predicted"
    alt += "." if found is None else f" and {float(found.cost[-1]):.2g} real."
    return Picture(
        f"Trial {trial.index}, step by step",
        "The band is the predicted cost of a step, mean and two standard deviations; the strong line is what the trial cost, thin "
        "ones are the same policy from other starts.",
        alt,
        draw(figure, f"cost-{name}-{trial.index}", alt),
    )


def _state(
    name: str, trial: Trial, found: Rehearsal | None, column: int, title: str, scenario: Scenario, palette: Palette
) -> Picture:
    mean, std = (trial.predictions[key].numpy()[:, column] for key in ("state_mean", "state_std"))
    real = np.concatenate((trial.episode.states[:1].numpy(), trial.infos.get("state", trial.episode.states[1:]).numpy()))
    figure, axes = panel(*_LARGE)
    predicted_state(
        axes,
        _time(len(mean), scenario),
        mean,
        std,
        real=real[:, column],
        rollouts=None if found is None else found.states.numpy()[:, :, column],
        colour=palette.colour(name),
        truth=INK,
    )
    label(axes, _clock(scenario), "")
    inside = float((np.abs(real[:, column] - mean[: len(real)]) <= 2 * std[: len(real)]).mean())
    alt = f"Predicted {title} with bars of two standard deviations over trial {trial.index} with {name}, and what happened: "
    alt += f"{100 * inside:.0f} % of the trial's steps lie within the bars."
    return Picture(
        title, f"{100 * inside:.0f} % of the trial's steps lie within the bars.", alt, draw(figure, f"{title}-{name}", alt)
    )


def _time(length: int, scenario: Scenario) -> np.ndarray:
    return (scenario.step_seconds or 1.0) * np.arange(length)


def _clock(scenario: Scenario) -> str:
    return "time in the trial (s)" if scenario.step_seconds else "step"


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=10, labelcolor=INK)
