"""The wall-clock budget of a plan, on a clock that only the objective moves."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import (
    CEM,
    ICEM,
    MPPI,
    PDDM,
    Box,
    Budget,
    Choices,
    DiscreteCEM,
    DiscreteMPPI,
    GradientPlanner,
    RandomShooting,
)

UNIT = Box.of([-1.0], [1.0], torch.float64)
PLANNERS = {
    "shooting": RandomShooting(horizon=3, candidates=400),
    "CEM": CEM(horizon=3),
    "iCEM": ICEM(horizon=3),
    "MPPI": MPPI(horizon=3),
    "PDDM": PDDM(horizon=3),
    "gradient": GradientPlanner(horizon=3),
}
DISCRETE = {"CEM": DiscreteCEM(horizon=3), "MPPI": DiscreteMPPI(horizon=3)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Slow:
    """-Σ|a - 0.3|² at `pace` seconds per candidate, on a clock of its own; a stall makes one call take longer."""

    pace: float
    now: float = 100.0
    stall: float = 0.0
    counts: list[int] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def __call__(self, actions: Tensor) -> Tensor:
        self.counts.append(actions.shape[2])
        self.now += self.pace * actions.shape[2] + self.stall
        self.stall = 0.0
        self.ends.append(self.now - 100.0)
        return -(actions - 0.3).square().sum((0, 3))

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize("name", PLANNERS)
def test_known_pace_keeps_every_plan_in_time(name: str) -> None:
    for seconds in (0.05, 0.2, 0.7, 1.5, 20.0):
        slow = Slow(0.001)
        PLANNERS[name].plan(slow, PLANNERS[name].start(UNIT), seeded(), Budget(seconds, pace=0.001, clock=slow.clock))
        # The smallest chunk is scored whatever the time; here it fits.
        assert slow.ends[-1] <= max(seconds, 0.001 * slow.counts[0])


@pytest.mark.parametrize("name", PLANNERS)
def test_unknown_pace_overruns_by_less_than_a_chunk(name: str) -> None:
    for seconds in (1e-6, 0.01, 0.05, 0.2, 0.7):
        slow = Slow(0.001)
        plan = PLANNERS[name].plan(slow, PLANNERS[name].start(UNIT), seeded(), Budget(seconds, clock=slow.clock))
        assert slow.ends[-1] <= seconds + 0.001 * slow.counts[-1]
        assert plan.candidates == sum(slow.counts) >= 1
        assert plan.dropped == 0
        assert plan.seconds == pytest.approx(slow.ends[-1])
        assert bool(plan.best_score.isfinite().all())


@pytest.mark.parametrize("name", PLANNERS)
def test_a_budget_that_is_large_enough_changes_nothing(name: str) -> None:
    planner, slow = PLANNERS[name], Slow(0.001)
    free = planner.plan(slow, planner.start(UNIT), seeded())
    slow = Slow(0.001)
    timed = planner.plan(slow, planner.start(UNIT), seeded(), Budget(1e6, clock=slow.clock))
    torch.testing.assert_close(timed.actions, free.actions, rtol=0, atol=1e-12)
    assert timed.candidates == free.candidates
    assert len(timed.iterations) == len(free.iterations)


@pytest.mark.parametrize("name", PLANNERS)
def test_without_a_budget_an_iteration_is_one_call(name: str) -> None:
    slow = Slow(0.001)
    plan = PLANNERS[name].plan(slow, PLANNERS[name].start(UNIT), seeded())
    assert len(slow.counts) == len(plan.iterations)


def test_candidates_go_before_iterations() -> None:
    planner = CEM(horizon=3, candidates=100, elites=10, iterations=5)
    found = {}
    for seconds in (0.555, 0.278, 0.112, 0.06):
        slow = Slow(0.001)
        plan = planner.plan(slow, planner.start(UNIT), seeded(), Budget(seconds, pace=0.001, clock=slow.clock))
        found[seconds] = (len(plan.iterations), plan.candidates)
    # 0.9 of the allowance at 1 ms each: 499 of 500, half of them, five times twice the elites, and two times.
    assert found[0.555] == (5, 499)
    assert found[0.278][0] == 5
    assert 245 <= found[0.278][1] <= 250
    assert found[0.112] == (5, 100)
    assert found[0.06][0] == 2
    assert 50 <= found[0.06][1] <= 54


def test_a_stall_ends_the_search() -> None:
    planner, slow = CEM(horizon=3, candidates=100, elites=10, iterations=5), Slow(0.001, stall=0.6)
    plan = planner.plan(slow, planner.start(UNIT), seeded(), Budget(0.6, pace=0.001, clock=slow.clock))
    assert len(slow.counts) == 1
    assert plan.candidates == slow.counts[0]


def test_the_pace_of_a_plan_serves_the_next() -> None:
    planner, slow = CEM(horizon=3), Slow(0.002)
    budget = Budget(0.3, pace=None, clock=slow.clock)
    assert budget.pace is None
    planner.plan(slow, planner.start(UNIT), seeded(), budget)
    assert budget.pace == pytest.approx(0.002)
    slow.now += 5.0
    following = Budget(0.3, budget.pace, slow.clock)
    assert following.pace == budget.pace
    assert following.elapsed == 0.0
    # What happens between the making of a budget and the plan costs time, but says nothing about the planner's pace.
    slow.now += 0.1
    planner.plan(slow, planner.start(UNIT), seeded(), following)
    assert following.pace == pytest.approx(0.002)
    assert following.elapsed <= 0.3
    assert not Budget(0.3, 0.002, slow.clock).over


def test_an_iteration_cut_short_learns_from_the_better_half_of_what_was_scored() -> None:
    planner, slow = CEM(horizon=1, candidates=80, elites=40, iterations=1, momentum=0.0), Slow(0.001)
    plan = planner.plan(slow, planner.start(UNIT), seeded(), Budget(0.005, clock=slow.clock))
    assert plan.candidates == 10
    assert plan.iterations[0].effective.tolist() == pytest.approx([5.0])


def test_a_plan_out_of_time_is_not_worse_than_the_warm_start_for_planners_that_remember() -> None:
    target = {
        name: PLANNERS[name].plan(Slow(0.0), PLANNERS[name].start(UNIT), seeded()).warm_start for name in ("iCEM", "gradient")
    }
    for name, warm_start in target.items():
        slow = Slow(0.001)
        plan = PLANNERS[name].plan(slow, warm_start, seeded(1), Budget(1e-6, clock=slow.clock))
        before = Slow(0.0)(warm_start.mean.unsqueeze(2)).squeeze(1)
        assert bool((plan.best_score >= before - 0.01).all())
        assert plan.candidates < 15


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_planners_keep_to_it_too(name: str) -> None:
    planner = DISCRETE[name]
    for seconds in (1e-6, 0.02, 0.3):
        slow = Slow(0.001)
        plan = planner.plan(slow, planner.start(Choices.of([3], torch.float64)), seeded(), Budget(seconds, clock=slow.clock))
        assert slow.ends[-1] <= seconds + 0.001 * slow.counts[-1]
        assert plan.candidates == sum(slow.counts)


@pytest.mark.parametrize(("seconds", "pace"), [(0.0, None), (-1.0, None), (float("nan"), None), (1.0, -1.0)])
def test_budgets_without_meaning_are_refused(seconds: float, pace: float | None) -> None:
    with pytest.raises(ConfigurationError, match="budget"):
        Budget(seconds, pace)
