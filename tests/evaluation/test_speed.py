"""What a planner waits for, by a clock that a made-up model moves itself: what is divided by what, and the fastest call counts."""

from dataclasses import dataclass

import pytest
import torch
from small_comparison import pendulum

from bayesdyn.codec import Codec
from bayesdyn.evaluation import speed
from bayesdyn.evaluation.baselines import Persistence
from bayesdyn.evaluation.table import TIMINGS, Row


@dataclass
class Clock:
    """A clock that shows what it was moved to."""

    now: float = 0.0

    def perf_counter(self):
        return self.now


class Slow(Persistence):
    """Takes 16 s for a call that draws, 2,048 s for a step, and a hundred times that for the first of each."""

    def __init__(self, clock):
        super().__init__(Codec())
        self.clock, self.called = clock, set()

    def take(self, what, seconds):
        self.clock.now += seconds * (1 if what in self.called else 100)
        self.called.add(what)

    def sample(self, n, generator=None, *, dtype=None):
        self.take("draw", 16.0)
        dynamics = super().sample(n, generator, dtype=dtype)

        def step(state, action):
            self.take("step", 2048.0)
            return dynamics(state, action)

        return step


@pytest.mark.parametrize("episodes", [1, 4])
def test_times_are_per_draw_and_per_state_of_each_draw(monkeypatch, episodes):
    """25 and 100 rows: fewer than the 64 states of a step are repeated."""
    clock, data = Clock(), pendulum(episodes, seed=0)
    monkeypatch.setattr(speed, "time", clock)
    model = Slow(clock)
    model.fit(data)
    rows = speed.speed_rows(Row("slow", "pendulum", "none", 0, "test", ""), model, data, torch.Generator())
    assert {row.metric: row.value for row in rows} == {"draw_seconds": 1.0, "step_seconds": 2.0}
    assert {row.metric for row in rows} < TIMINGS
    assert {row.split for row in rows} == {"train"}
