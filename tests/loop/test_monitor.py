"""What is shown while the loop works: it renders, and one line stays of each trial."""

import io

import torch
from point_mass import run_loop
from reference_posteriors import ConjugateRegression
from rich.console import Console

from bayesdyn.data import Episode
from bayesdyn.loop import Monitor, RichMonitor, Trial


class Reporting(ConjugateRegression):
    def fit(self, x, y, *, warm_start=False, generator=None, progress=None):
        for step in range(3):
            progress(step + 1, 3, {"nll": 1.0 - step})
        return super().fit(x, y)


def recorder() -> Console:
    return Console(file=io.StringIO(), record=True, width=200, force_terminal=True)


def test_a_silent_monitor_is_a_context_that_does_nothing() -> None:
    with Monitor() as monitor:
        run_loop(trials=1, monitor=monitor)


def test_one_line_remains_of_each_trial() -> None:
    console = recorder()
    with RichMonitor("gp", "distance", console) as monitor:
        run = run_loop(trials=2, posterior=Reporting(), monitor=monitor)
        assert monitor.progress.tasks == []
    shown = console.export_text()
    assert "gp trial 0 (random): return" in shown
    for trial in run.trials[1:]:
        line = next(line for line in shown.splitlines() if f"gp trial {trial.index} (controlled)" in line)
        assert f"return {trial.metrics['return']:.3g}" in line
        assert "coverage90" in line
        assert "plans per second" in line
        assert f"distance over the last 10 steps, at most {trial.last('distance'):.3g}" in line


def test_bars_show_fit_and_trial_under_their_names() -> None:
    console = recorder()
    monitor = RichMonitor("[x] a [/b]", console=console)  # looks like markup
    monitor.trial_started(3, 10, 50)
    monitor.fitting(5, 20, {"nll": -1.25})
    monitor.stepped(7, {"return": 3.5})
    console.print(monitor.progress.get_renderable())
    shown = console.export_text()
    assert "[x] a [/b] · trial 3/9 fit" in shown
    assert "5/20" in shown
    assert "nll -1.25" in shown
    assert "7/50" in shown
    assert "return 3.5" in shown
    monitor.trial_finished(Trial(3, True, Episode.from_arrays([[0.0], [1.0]], [[0.0]]), metrics={"return": 2.0}))
    assert "[x] a [/b] trial 3 (controlled): return 2" in console.export_text()


def test_a_fit_of_unknown_length_and_a_missing_info_are_no_trouble() -> None:
    console = recorder()
    monitor = RichMonitor("gp", "distance", console)
    monitor.stepped(1, {})
    monitor.fitting(1, 0, {})
    monitor.trial_started(0, 1, None)
    monitor.stepped(1, {"return": float("nan")})
    console.print(monitor.progress.get_renderable())
    infos = {"other": torch.zeros(1)}
    monitor.trial_finished(Trial(0, False, Episode.from_arrays([[0.0], [1.0]], [[0.0]]), infos, metrics={}))
    assert "gp trial 0 (random)" in console.export_text()
