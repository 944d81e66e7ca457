"""Agents that learn between fit and trial: what they learned is kept, and a killed run goes on from it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from point_mass import PointMass, assert_same_trials, make_model

from bayesdyn.agents import Agent, Improvement
from bayesdyn.errors import FileError
from bayesdyn.loop import Monitor, Run, Trial, learn


class Counting(Agent):
    """Its memory is a running sum of random numbers, and so are its actions: any improvement lost or repeated shows."""

    def __init__(self) -> None:
        self.sum = torch.zeros(1)
        self.improved = 0

    def reset(self, space, batch=1, generator=None):
        self.decision = None

    def act(self, observation, *, replan=True):
        return torch.sin(self.sum)

    def improve(self, generator=None, progress=None):
        self.improved += 1
        self.sum = self.sum + torch.randn(1, generator=generator)
        if progress is not None:
            progress(1, 1, {"sum": float(self.sum)})
        return Improvement({"sum": float(self.sum)}, {"cost": self.sum.repeat(3)}, ("it only counts",))

    def memory(self):
        return {"sum": self.sum}

    def recall(self, memory: Mapping[str, torch.Tensor]) -> None:
        self.sum = memory.get("sum", torch.zeros(1))


class KilledError(Exception):
    """Stands for the end of the process."""


class Killer(Monitor):
    """Raises at the n-th improvement, step or finished trial."""

    def __init__(self, event: str, number: int) -> None:
        self.event, self.left = event, number

    def _count(self, event: str) -> None:
        self.left -= event == self.event
        if self.left == 0:
            raise KilledError

    def improving(self, done: int, steps: int, figures: dict[str, float]) -> None:
        self._count("improving")

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        self._count("stepped")

    def trial_finished(self, trial: Trial) -> None:
        self._count("trial_finished")


def run(folder: Path | None, monitor: Monitor | None = None, trials: int = 3, agent: Counting | None = None) -> Run:
    return learn(PointMass(), make_model(), agent or Counting(), trials=trials, run=folder, monitor=monitor)


def test_a_trial_keeps_what_the_improvement_before_it_said(tmp_path: Path) -> None:
    trials = run(tmp_path).trials
    reread = Run.open(tmp_path).trials
    for trial, again in zip(trials[1:], reread[1:], strict=True):
        assert trial.warnings == again.warnings == ("it only counts",)
        torch.testing.assert_close(again.predictions["cost"], torch.full((3,), trial.metrics["sum"]))
        torch.testing.assert_close(again.episode.actions, torch.full((8, 1), trial.metrics["sum"]).sin().double())
    assert trials[0].predictions == {}


@pytest.mark.parametrize(
    ("event", "number"), [("improving", 1), ("improving", 2), ("stepped", 10), ("stepped", 17), ("trial_finished", 2)]
)
def test_a_killed_run_goes_on_with_what_the_agent_had_learned(tmp_path: Path, event: str, number: int) -> None:
    whole = run(tmp_path / "whole")
    tmp_path = tmp_path / "killed"
    with pytest.raises(KilledError):
        run(tmp_path, Killer(event, number))
    assert_same_trials(run(tmp_path), whole)


def test_more_trials_go_on_from_the_last_memory(tmp_path: Path) -> None:
    run(tmp_path / "longer", trials=1)
    agent = Counting()
    assert_same_trials(run(tmp_path / "longer", trials=3, agent=agent), run(tmp_path / "whole", trials=3))
    assert agent.improved == 2


def test_a_new_run_starts_anew() -> None:
    agent = Counting()
    assert_same_trials(run(None, agent=agent), run(None, agent=agent))


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Killer("stepped", 10))
    (tmp_path / "agents" / "001.safetensors").write_bytes(b"no tensors")
    with pytest.raises(FileError, match=r"001\.safetensors"):
        run(tmp_path)
