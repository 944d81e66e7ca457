"""What TensorBoard reads of a run, and several monitors at once."""

import sys
from pathlib import Path

import pytest
from point_mass import run_loop
from test_learn import POSTERIORS

from bayesdyn.errors import MissingExtraError
from bayesdyn.loop import Monitor, Monitors, TensorBoardMonitor


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the points of every scalar, by step."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_metrics_of_all_trials_are_there_after_a_resumed_run_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for trials in (1, 2):
        with TensorBoardMonitor(tmp_path / "board", info="distance") as monitor:
            run = run_loop(tmp_path / "run", trials=trials, posterior=POSTERIORS["ensemble"](), monitor=monitor)
    found = scalars(tmp_path / "board")
    for name in ("return", "nll", "coverage90"):
        expected = [(trial.index, trial.metrics[name]) for trial in run.trials if name in trial.metrics]
        assert [step for step, _ in found[f"trial/{name}"]] == [step for step, _ in expected]
        assert [value for _, value in found[f"trial/{name}"]] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert found["trial/distance"][-1][1] == pytest.approx(float(run.trials[-1].infos["distance"][-1]), rel=1e-6)
    curve = next(points for tag, points in found.items() if tag.startswith("fit/"))
    assert {step // 10_000 for step, _ in curve} == {1, 2}  # the trials that had a fit before them
    assert len({step for step, _ in curve}) == len(curve)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"bayesdyn\[tensorboard\]"):
        TensorBoardMonitor(tmp_path)


class Log(Monitor):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def __enter__(self) -> "Log":
        self.told.append("open")
        return self

    def __exit__(self, *error: object) -> None:
        self.told.append("closed")

    def trial_started(self, index, trials, steps):
        self.told.append(("started", index))

    def fitting(self, done, steps, figures):
        self.told.append(("fitting", done))

    def improving(self, done, steps, figures):
        self.told.append(("improving", done))

    def stepped(self, step, figures):
        self.told.append(("stepped", step))

    def trial_finished(self, trial):
        self.told.append(("finished", trial.index))


def test_several_monitors_are_told_the_same() -> None:
    alone, first, second = Log(), Log(), Log()
    with alone:
        run_loop(trials=1, posterior=POSTERIORS["ensemble"](), monitor=alone)
    with Monitors(first, second) as monitor:
        run_loop(trials=1, posterior=POSTERIORS["ensemble"](), monitor=monitor)
        monitor.improving(1, 2, {})
    assert first.told == second.told
    assert [event for event in first.told if event != ("improving", 1)] == alone.told
    assert ("improving", 1) in first.told
    assert {event[0] for event in alone.told if isinstance(event, tuple)} == {"started", "fitting", "stepped", "finished"}


def test_monitors_that_were_opened_are_closed_when_another_fails() -> None:
    class Broken(Monitor):
        def __enter__(self):
            raise RuntimeError("no screen")

    log = Log()
    with pytest.raises(RuntimeError, match="no screen"), Monitors(log, Broken()):
        pass
    assert log.told == ["open", "closed"]
