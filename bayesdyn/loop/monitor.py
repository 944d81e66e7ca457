"""What a person sees of a loop while it works."""

from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bayesdyn.loop.trial import Trial

_SHOWN: tuple[str, ...] = ("return", "predicted_cost", "nll", "coverage90", "plans_per_second")
# Figures of planning that say nothing of an agent that improves a policy.
_OF_PLANS = frozenset({"plans_per_second"})


class Monitor:
    """Told by `learn` what happens; this one keeps silent. Use it as a context manager around `learn`, or not at all."""

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def trial_started(self, index: int, trials: int, steps: int | None) -> None:
        """Trial `index` of `trials` begins (0 is the first); `steps` is its length where known."""

    def fitting(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """The model is being fitted."""

    def improving(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """The agent is learning from the fitted model."""

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        """The agent has acted."""

    def trial_finished(self, trial: Trial) -> None:
        """A trial has ended and is on disk."""


class Monitors(Monitor):
    """Several monitors at once: each is told everything.

    >>> with Monitors(Monitor(), Monitor()) as monitor:
    ...     monitor.trial_started(0, 1, None)
    """

    def __init__(self, *monitors: Monitor) -> None:
        self.monitors = monitors
        self._open = ExitStack()

    def __enter__(self) -> "Monitors":
        with ExitStack() as stack:
            for monitor in self.monitors:
                stack.enter_context(monitor)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)

    def trial_started(self, index: int, trials: int, steps: int | None) -> None:
        """Tell all."""
        for monitor in self.monitors:
            monitor.trial_started(index, trials, steps)

    def fitting(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """Tell all."""
        for monitor in self.monitors:
            monitor.fitting(done, steps, figures)

    def improving(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """Tell all."""
        for monitor in self.monitors:
            monitor.improving(done, steps, figures)

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        """Tell all."""
        for monitor in self.monitors:
            monitor.stepped(step, figures)

    def trial_finished(self, trial: Trial) -> None:
        """Tell all."""
        for monitor in self.monitors:
            monitor.trial_finished(trial)


class RichMonitor(Monitor):
    """Progress bars with what matters: trial, return, plans per second, one-step NLL, coverage; a line remains of each trial.

    `title` names the run, and `info` the environment's info to show (the distance of a tip, say).
    """

    def __init__(self, title: str, info: str | None = None, console: Console | None = None) -> None:
        self.title, self.info = title, info
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console or Console(),
        )
        self._fit: TaskID | None = None
        self._improve: TaskID | None = None
        self._act: TaskID | None = None

    def __enter__(self) -> "RichMonitor":
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def trial_started(self, index: int, trials: int, steps: int | None) -> None:
        """Replace the bars of the last trial by those of the next."""
        self._clear()
        name = f"{escape(self.title)} · trial {index}/{trials - 1}"
        self._fit = self.progress.add_task(f"{name} fit", total=None, figures="", visible=False)
        self._improve = self.progress.add_task(f"{name} improve", total=None, figures="", visible=False)
        self._act = self.progress.add_task(f"{name} act", total=steps, figures="")

    def fitting(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """Move the bar of the fit."""
        if self._fit is not None:
            self.progress.update(self._fit, completed=done, total=steps, figures=_text(figures), visible=True)

    def improving(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """Move the bar of what the agent learns."""
        if self._improve is not None:
            self.progress.update(self._improve, completed=done, total=steps, figures=_text(figures), visible=True)

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        """Move the bar of the trial."""
        if self._act is not None:
            self.progress.update(self._act, completed=step, figures=_text(figures))

    def trial_finished(self, trial: Trial) -> None:
        """Leave one line of the trial."""
        self._clear()
        hidden = _OF_PLANS if "predicted_cost" in trial.metrics else frozenset()
        shown = {name: trial.metrics[name] for name in _SHOWN if name in trial.metrics and name not in hidden}
        if self.info is not None and self.info in trial.infos:
            shown[f"{self.info} over the last 10 steps, at most"] = trial.last(self.info)
        for warning in trial.warnings:
            self.progress.console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
        kind = "controlled" if trial.controlled else "random"
        self.progress.console.print(f"[bold]{escape(self.title)}[/] trial {trial.index} ({kind}): {escape(_text(shown))}")

    def _clear(self) -> None:
        for task in (self._fit, self._improve, self._act):
            if task is not None:
                self.progress.remove_task(task)
        self._fit = self._improve = self._act = None


def _text(figures: dict[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items())
