"""The wall-clock budget of a plan, on a clock that only the objective moves."""

import math
import random
import statistics
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
from bayesdyn.planners.budget import Pace

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
    """-Σ|a - 0.3|² at `fixed` + `pace`·c seconds, on a clock of its own; a stall holds up one call, `held` a share of them."""

    pace: float
    now: float = 100.0
    stall: float = 0.0
    fixed: float = 0.0
    held: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    counts: list[int] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def __call__(self, actions: Tensor) -> Tensor:
        self.counts.append(actions.shape[2])
        seconds = self.fixed + self.pace * actions.shape[2]
        self.now += seconds * (3 if self.chance.random() < self.held else 1) + self.stall
        self.stall = 0.0
        self.ends.append(self.now - 100.0)
        return -(actions - 0.3).square().sum((0, 3))

    def clock(self) -> float:
        return self.now


def known(pace: float) -> Pace:
    """Seconds per candidate, as one call of a thousand shows them."""
    return Pace([(1000, 1000 * pace)])


def in_a_row(planner: object, slow: Slow, plans: int, seconds: float = 0.04) -> list[tuple[int, float, float]]:
    """Return candidates, seconds, and seconds before the last chunk, of plans that hand on what they know."""
    pace, warm_start, found = Pace(), planner.start(UNIT), []
    for i in range(plans):
        began, slow.ends[:] = slow.now, []
        plan = planner.plan(slow, warm_start, seeded(i), Budget(seconds, pace, slow.clock))
        warm_start = planner.shift(plan.warm_start)
        before_last = slow.ends[-2] + 100.0 - began if len(slow.ends) > 1 else 0.0
        found.append((plan.candidates, slow.now - began, before_last))
    return found


@pytest.mark.parametrize("name", PLANNERS)
def test_known_pace_keeps_every_plan_in_time(name: str) -> None:
    for seconds in (0.05, 0.2, 0.7, 1.5, 20.0):
        slow = Slow(0.001)
        PLANNERS[name].plan(slow, PLANNERS[name].start(UNIT), seeded(), Budget(seconds, pace=known(0.001), clock=slow.clock))
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
    for seconds in (0.555, 0.278, 0.124, 0.06):
        slow = Slow(0.001)
        plan = planner.plan(slow, planner.start(UNIT), seeded(), Budget(seconds, pace=known(0.001), clock=slow.clock))
        found[seconds] = (len(plan.iterations), plan.candidates)
    # 0.9 of the allowance at 1 ms each: 499 of 500, half of them, five times twice the elites and a little, and two times.
    assert found[0.555] == (5, 499)
    assert found[0.278][0] == 5
    assert 245 <= found[0.278][1] <= 250
    assert found[0.124][0] == 5
    assert 100 <= found[0.124][1] <= 111
    assert found[0.06][0] == 2
    assert 50 <= found[0.06][1] <= 54


def test_a_stall_ends_the_search() -> None:
    planner, slow = CEM(horizon=3, candidates=100, elites=10, iterations=5), Slow(0.001, stall=0.6)
    plan = planner.plan(slow, planner.start(UNIT), seeded(), Budget(0.6, pace=known(0.001), clock=slow.clock))
    assert len(slow.counts) == 1
    assert plan.candidates == slow.counts[0]


def test_the_pace_of_a_plan_serves_the_next() -> None:
    planner, slow = CEM(horizon=3), Slow(0.002)
    budget = Budget(0.3, clock=slow.clock)
    assert not budget.pace.known
    planner.plan(slow, planner.start(UNIT), seeded(), budget)
    assert budget.pace.predict(100) == pytest.approx(0.2)
    slow.now += 5.0
    following = Budget(0.3, budget.pace, slow.clock)
    assert following.elapsed == 0.0
    # What happens between the making of a budget and the plan costs time, but says nothing about the planner's pace.
    slow.now += 0.1
    planner.plan(slow, planner.start(UNIT), seeded(), following)
    assert following.pace.predict(100) == pytest.approx(0.2)
    assert following.elapsed <= 0.3
    assert not Budget(0.3, clock=slow.clock).over


@pytest.mark.parametrize(("fixed", "pace"), [(0.0, 1e-4), (0.002, 1e-4), (0.013, 1e-4), (0.03, 1e-4), (0.01, 0.0), (0.0, 4e-4)])
def test_one_call_gets_what_fits_whatever_its_fixed_cost(fixed: float, pace: float) -> None:
    found = in_a_row(RandomShooting(horizon=3, candidates=400), Slow(pace, fixed=fixed), plans=30)
    fits = (0.036 - fixed) / pace if pace else math.inf
    for candidates, seconds, _ in found[5:]:
        assert 0.95 * min(400, fits) <= candidates <= min(400, fits) + 1
        assert seconds <= 0.0361


@pytest.mark.parametrize("fixed", [0.006, 0.013, 0.016])
def test_iterations_of_one_call_each_share_the_time_that_a_fixed_cost_leaves(fixed: float) -> None:
    found = in_a_row(ICEM(horizon=3), Slow(1e-4, fixed=fixed), plans=60)
    # As many calls as have room for their floor of 20 and the 3 kept elites each; at least one gets all that it asks for.
    calls = min(3, int(0.036 / (fixed + 23e-4)))
    fits = min((0.036 - calls * fixed) / 1e-4, 103 if calls == 1 else math.inf)
    for candidates, seconds, _ in found[4:]:
        assert 0.95 * fits <= candidates <= fits + 1
        assert seconds <= 0.0361


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("fixed", [0.004, 0.013])
def test_calls_that_are_held_up_do_not_make_later_plans_small(name: str, fixed: float) -> None:
    undisturbed = statistics.median(c for c, _, _ in in_a_row(PLANNERS[name], Slow(1e-4, fixed=fixed), plans=40)[5:])
    slow = Slow(1e-4, fixed=fixed, held=0.1)
    found = in_a_row(PLANNERS[name], slow, plans=60)
    assert statistics.median(c for c, _, _ in found[5:]) >= 0.75 * undisturbed
    # A plan is late by the one call that was held up, never by another begun after the time.
    assert all(before_last <= 0.0361 for _, _, before_last in found)
    slow.held = 0.0
    recovered = in_a_row(PLANNERS[name], slow, plans=12)
    assert recovered[-1][0] >= 0.9 * undisturbed


def test_a_slow_first_plan_is_outgrown() -> None:
    planner, slow = RandomShooting(horizon=3, candidates=400), Slow(1e-4, fixed=0.004, stall=0.5)
    found = in_a_row(planner, slow, plans=8)
    assert found[0][0] == 50
    assert found[-1][0] >= 0.9 * 320


def test_a_machine_that_slows_down_is_noticed() -> None:
    planner, slow = RandomShooting(horizon=3, candidates=400), Slow(1e-4, fixed=0.004)
    pace, late, candidates = Pace(), [], []
    for i in range(40):
        if i == 10:
            slow.pace, slow.fixed = 3e-4, 0.012
        budget = Budget(0.04, pace, slow.clock)
        candidates.append(planner.plan(slow, planner.start(UNIT), seeded(i), budget).candidates)
        late.append(budget.elapsed > 0.04)
    assert not any(late[:10])
    # Ten calls are remembered: in between there are smaller plans, and after them no sign of the time before.
    assert 1 <= sum(late[10:20]) <= 5
    assert not any(late[20:])
    # 12 ms + 80 x 0.3 ms = 36 ms
    assert all(75 <= count <= 81 for count in candidates[25:])


def test_a_pace_is_a_line_that_passes_by_what_was_held_up() -> None:
    calls = [(rows, 0.013 + 1e-4 * rows) for rows in (13, 52, 35, 100, 80, 63)]
    exact = Pace(calls)
    assert exact.fixed == pytest.approx(0.013)
    assert exact.each == pytest.approx(1e-4)
    assert exact.afford(0.036) == pytest.approx(230)
    assert exact.afford(0.036, calls=2) == pytest.approx(100)
    assert exact.afford(0.01) < 0
    disturbed = Pace([*calls[:3], (50, 0.3), *calls[3:]])
    assert disturbed.predict(100) == pytest.approx(exact.predict(100), rel=0.05)
    # Of a single size nothing is known but proportion.
    assert Pace([(20, 0.2)] * 4).predict(10) == pytest.approx(0.1)
    assert not Pace().known
    assert Pace().predict(10) == 0.0


def test_a_small_call_is_remembered_as_long_as_it_shows_the_fixed_cost() -> None:
    pace = Pace([(10, 0.014)])
    for _ in range(30):
        pace.note(100, 0.023)
    assert pace.fixed == pytest.approx(0.013)
    for _ in range(80):
        pace.note(100, 0.023)
    assert pace.fixed == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("rows", "seconds"), [(0, 1.0), (1, -1.0), (1, math.nan), (1, math.inf)])
def test_a_pace_of_impossible_calls_is_refused(rows: int, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="pace"):
        Pace([(rows, seconds)])


def test_rows_make_a_pace_serve_another_number_of_draws() -> None:
    pace = Pace([(100, 0.1), (200, 0.15)])
    allowed = [Budget(1.0, pace, lambda: 0.0, rows).allow([10000], 1) for rows in (1, 4, 16)]
    # 0.05 + 0.0005 r <= 0.9
    assert allowed == [1700, 425, 106]


def test_a_budget_used_up_exactly_scores_one_chunk() -> None:
    now = [0.0]
    budget = Budget(1.0, known(0.01), lambda: now[0])
    now[0] = 0.9
    assert list(budget.chunks(10)) == [slice(0, 2)]


def test_a_call_that_does_not_fit_has_the_candidates_that_cost_next_to_nothing() -> None:
    calls = [(rows, 0.05 + 1e-4 * rows) for rows in (10, 20, 100)]
    for name in ("PDDM", "iCEM", "shooting"):
        slow = Slow(1e-4, fixed=0.05)
        PLANNERS[name].plan(slow, PLANNERS[name].start(UNIT), seeded(), Budget(0.04, Pace(calls), slow.clock))
        # A tenth of 50 ms buys 50, of floors of 1, 20 and 80.
        assert len(slow.counts) == 1
        assert slow.counts[0] in (49, 50)


def test_a_budget_says_when_candidates_are_at_their_floor() -> None:
    planner, states = CEM(horizon=3, candidates=100, elites=10, iterations=5), []
    for seconds in (0.02, 0.023, 0.06, 0.07):
        slow = Slow(0.001)
        budget = Budget(seconds, known(0.001), slow.clock)
        planner.plan(slow, planner.start(UNIT), seeded(), budget)
        states.append((budget.at_floor, budget.above_floor, budget.affords_floor(1), budget.affords_floor(3)))
    # 18, 20, 54 and 63 candidates are scored; the floor is 20.
    assert states == [
        (True, False, False, False),
        (True, False, True, False),
        (False, False, True, False),
        (False, True, True, True),
    ]


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


@pytest.mark.parametrize(("seconds", "rows"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)])
def test_budgets_without_meaning_are_refused(seconds: float, rows: int) -> None:
    with pytest.raises(ConfigurationError, match="budget"):
        Budget(seconds, rows=rows)
