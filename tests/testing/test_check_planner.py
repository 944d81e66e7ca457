"""`check_planner` refuses each way in which planners are known to go wrong, and names it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import (
    CEM,
    ICEM,
    ActionSpace,
    Box,
    Budget,
    Choices,
    DiscreteCEM,
    Evaluate,
    Plan,
    Planner,
    RandomShooting,
    WarmStart,
)
from bayesdyn.testing import check_planner
from bayesdyn.testing.conformance import ConformanceError
from bayesdyn.testing.planner import PLANNER_CONTRACT

SMALL = {"horizon": 6, "candidates": 60, "elites": 8}


@dataclass(frozen=True)
class Wrapped(ICEM):
    """A sound planner with one thing done to what it is told or to what it says."""

    horizon: int = 6
    candidates: int = 60
    elites: int = 8

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        return self.after(super().plan(self.told(evaluate), warm_start, generator, budget), warm_start)

    def told(self, evaluate: Evaluate) -> Evaluate:
        return evaluate

    def after(self, plan: Plan, warm_start: WarmStart) -> Plan:
        return plan


class LosesDtype(Wrapped):
    def after(self, plan, warm_start):
        return replace(plan, actions=plan.actions.to(torch.float16))


class LeavesTheBox(Wrapped):
    def after(self, plan, warm_start):
        return replace(plan, actions=plan.actions * 1.5)


class LeavesTheBoxByARounding(RandomShooting):
    """low + width · u without a clip, u as large as it gets."""

    def __init__(self) -> None:
        super().__init__(horizon=6, candidates=60)

    def plan(self, evaluate, warm_start, generator=None, budget=None):
        plan = super().plan(evaluate, warm_start, generator, budget)
        box = warm_start.space
        return replace(plan, actions=torch.where(plan.actions > box.middle, box.low + box.width, plan.actions))


class Idle(Wrapped):
    """Never leaves the middle of the box."""

    def after(self, plan, warm_start):
        return replace(plan, actions=warm_start.mean, warm_start=warm_start)


class Minimises(Wrapped):
    def told(self, evaluate):
        return lambda actions: -evaluate(actions)


class Boasts(Wrapped):
    def after(self, plan, warm_start):
        return replace(plan, best_score=plan.best_score + 1)


class ShowsTheMeanAsBest(Wrapped):
    def after(self, plan, warm_start):
        return replace(plan, best=plan.mean)


class UsesTheGlobalGenerator(Wrapped):
    def told(self, evaluate):
        torch.rand(1)
        return evaluate


class UsesNumPysGenerator(Wrapped):
    def told(self, evaluate):
        np.random.rand()  # noqa: NPY002 (the fault to find)
        return evaluate


class IgnoresTheGenerator(Wrapped):
    def plan(self, evaluate, warm_start, generator=None, budget=None):
        return super().plan(evaluate, warm_start, None, budget)


class Remembers(Wrapped):
    """Keeps the elites of the last plan, and no reset forgets them (mbrl-lib issue 186)."""

    memory: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "memory", [])

    def plan(self, evaluate, warm_start, generator=None, budget=None):
        if self.memory and self.memory[-1].shape[:2] == warm_start.mean.shape[:2]:
            warm_start = replace(warm_start, elites=self.memory[-1])
        plan = super().plan(evaluate, warm_start, generator, budget)
        self.memory.append(plan.warm_start.elites)
        return plan


class ChangesItsWarmStart(Wrapped):
    def after(self, plan, warm_start):
        warm_start.mean.copy_(plan.mean)
        return plan


class MixesTheBatch(Wrapped):
    """One mean for all environments."""

    def after(self, plan, warm_start):
        return replace(plan, actions=plan.actions.mean(1, keepdim=True).expand_as(plan.actions))


class OwnNoisePerEnvironment(RandomShooting):
    def __init__(self) -> None:
        super().__init__(horizon=6, candidates=60)

    def plan(self, evaluate, warm_start, generator=None, budget=None):
        generator = generator or torch.Generator()
        box, (_, batch, size) = warm_start.space, warm_start.mean.shape
        sequences = box.low + box.width * torch.rand(6, batch, 60, size, generator=generator, dtype=box.low.dtype)
        # All the rest is sound: the planner's own candidates are replaced by these.
        return super().plan(lambda a: evaluate(box.clip(sequences)), warm_start, generator, budget)


class DividesByTheSpread(Wrapped):
    def told(self, evaluate):
        def standardised(actions: Tensor) -> Tensor:
            scores = evaluate(actions)
            return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True)

        return standardised

    def after(self, plan, warm_start):
        return replace(plan, best_score=plan.best_score)


class TakesNaNForAGoodScore(Wrapped):
    """NaN becomes -1e-10, better than every honest score (mbrl-lib `trajectory_opt.py`)."""

    def told(self, evaluate):
        return lambda actions: evaluate(actions).nan_to_num(-1e-10)


class LikesInfinity(Wrapped):
    def told(self, evaluate):
        return lambda actions: evaluate(actions).nan_to_num(torch.nan, posinf=1e3)


class FailsInSilence(Wrapped):
    def after(self, plan, warm_start):
        return replace(plan, failed=torch.zeros_like(plan.failed))


class PlansZerosWhenItFails(Wrapped):
    def after(self, plan, warm_start):
        return replace(plan, actions=torch.where(plan.failed[:, None], 0.0, plan.actions))


class WantsAllElitesFinite(Wrapped):
    """Averages the elites, the dropped ones too."""

    def after(self, plan, warm_start):
        few = plan.iterations[0].elite_std == 0
        return replace(plan, best=torch.where(few[:, None], warm_start.mean, plan.best))


class ShiftsTooFar(Wrapped):
    def shift(self, warm_start, steps=1):
        return super().shift(warm_start, steps + 1) if steps >= 1 else super().shift(warm_start, steps)


class RepeatsTheFirst(Wrapped):
    """Fills the end with actions of no box: zeros, as PETS does."""

    def shift(self, warm_start, steps=1):
        shifted = super().shift(warm_start, steps)
        mean = shifted.mean.clone()
        mean[-min(steps, self.horizon) :] = 0
        return replace(shifted, mean=mean)


class ForgetsWhatIsStale(Wrapped):
    def shift(self, warm_start, steps=1):
        return replace(super().shift(warm_start, steps), stale=0)


class AcceptsAnyShift(Wrapped):
    def shift(self, warm_start, steps=1):
        return super().shift(warm_start, steps) if steps >= 1 else warm_start


class BroadcastsScores(Wrapped):
    def told(self, evaluate):
        return lambda actions: evaluate(actions).reshape(-1)[0].expand(actions.shape[1:3]) + 0 * actions.sum((0, 3))


class AcceptsScoresOfOneEnvironment(Wrapped):
    def told(self, evaluate):
        def widened(actions: Tensor) -> Tensor:
            scores = evaluate(actions)
            return scores.expand(actions.shape[1:3]) if scores.dim() == 1 else scores.reshape(actions.shape[1:3])

        return widened


class FixedTemperature(Wrapped):
    """Mixes in the score itself, in its own unit."""

    def after(self, plan, warm_start):
        weight = (plan.best_score.clamp(-30, 0).exp() / 1000).nan_to_num(0.0)[:, None]
        weight = torch.where(plan.failed[:, None], 0.0, weight)
        return replace(plan, actions=(1 - weight) * plan.actions + weight * warm_start.mean)


class IgnoresTheBudget(Wrapped):
    def plan(self, evaluate, warm_start, generator=None, budget=None):
        return super().plan(evaluate, warm_start, generator)


class LooksAtTheClockTooLate(Wrapped):
    """Scores a whole iteration before it looks."""

    def plan(self, evaluate, warm_start, generator=None, budget=None):
        single = self if budget is None else replace(self, iterations=1)
        plan = super(LooksAtTheClockTooLate, single).plan(evaluate, warm_start, generator)
        return replace(plan, iterations=plan.iterations)


class CallsTheUnscoredDropped(Wrapped):
    def plan(self, evaluate, warm_start, generator=None, budget=None):
        plan = super().plan(evaluate, warm_start, generator, budget)
        return replace(plan, dropped=plan.dropped + max(0, 60 - plan.candidates))


class HurriesWithoutNeed(Wrapped):
    def plan(self, evaluate, warm_start, generator=None, budget=None):
        hasty = self if budget is None else replace(self, candidates=30)
        return super(HurriesWithoutNeed, hasty).plan(evaluate, warm_start, generator, budget)


BROKEN = {
    LosesDtype: "plans_keep_shapes_and_dtype",
    LeavesTheBox: "actions_stay_in_the_space",
    LeavesTheBoxByARounding: "actions_stay_in_the_space",
    Idle: "plans_approach_the_best",
    Minimises: "plans_approach_the_best",
    BroadcastsScores: "plans_approach_the_best",
    Boasts: "best_is_what_was_seen",
    ShowsTheMeanAsBest: "best_is_what_was_seen",
    UsesTheGlobalGenerator: "plans_keep_shapes_and_dtype",
    UsesNumPysGenerator: "plans_keep_shapes_and_dtype",
    IgnoresTheGenerator: "plans_come_from_the_generator",
    Remembers: "planners_keep_no_state",
    ChangesItsWarmStart: "planners_keep_no_state",
    MixesTheBatch: "environments_are_separate",
    DividesByTheSpread: "best_is_what_was_seen",
    TakesNaNForAGoodScore: "non_finite_candidates_are_dropped",
    LikesInfinity: "non_finite_candidates_are_dropped",
    FailsInSilence: "failed_plans_repeat_the_last",
    PlansZerosWhenItFails: "failed_plans_repeat_the_last",
    WantsAllElitesFinite: "one_finite_candidate_is_enough",
    ShiftsTooFar: "shifting_keeps_the_rest_of_the_plan",
    RepeatsTheFirst: "shifting_keeps_the_rest_of_the_plan",
    ForgetsWhatIsStale: "shifting_keeps_the_rest_of_the_plan",
    IgnoresTheBudget: "plans_keep_to_their_budget",
    LooksAtTheClockTooLate: "plans_keep_to_their_budget",
    CallsTheUnscoredDropped: "plans_keep_to_their_budget",
    HurriesWithoutNeed: "a_large_budget_changes_nothing",
    AcceptsAnyShift: "mistakes_are_named",
    AcceptsScoresOfOneEnvironment: "mistakes_are_named",
    FixedTemperature: "scale_of_rewards_does_not_matter",
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_broken_planners_fail_by_name(make: type[Wrapped]) -> None:
    with pytest.raises(ConformanceError, match=f"{make.__name__} in torch.float64 breaks .*wanted") as caught:
        check_planner(make, dtype=torch.float64)
    assert caught.value.item == BROKEN[make], caught.value


def test_every_item_has_a_planner_that_breaks_it_but_those_of_others() -> None:
    untested = {item.__name__ for item in PLANNER_CONTRACT} - set(BROKEN.values())
    assert untested == {"constant_scores_are_no_trouble"}


class SpreadOfNothing(Wrapped):
    """The standard deviation of equal scores as a divisor, guarded everywhere else."""

    def after(self, plan, warm_start):
        spread = plan.iterations[0].elite_std
        return replace(plan, actions=plan.actions * torch.where(plan.failed | (spread > 0), 1.0, torch.nan)[:, None])


def test_a_planner_that_constant_scores_break_is_refused() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_planner(SpreadOfNothing, dtype=torch.float64)
    assert caught.value.item == "constant_scores_are_no_trouble"


@dataclass(frozen=True)
class Discrete(DiscreteCEM):
    """A sound planner of discrete actions, to be broken."""

    horizon: int = 5
    candidates: int = 100
    elites: int = 10


class PlansBetweenCategories(Discrete):
    """The expected category number, which is no category."""

    def plan(self, evaluate, warm_start, generator=None, budget=None):
        plan = super().plan(evaluate, warm_start, generator, budget)
        numbers = torch.arange(plan.warm_start.probabilities.shape[-1])
        return replace(plan, mean=(plan.warm_start.probabilities * numbers).sum(-1))


class CountsFromOne(Discrete):
    def plan(self, evaluate, warm_start, generator=None, budget=None):
        return super().plan(lambda actions: evaluate(actions + 1), warm_start, generator, budget)


class TakesTheLargestSizeForAll(Discrete):
    def plan(self, evaluate, warm_start, generator=None, budget=None):
        space = Choices(torch.full_like(warm_start.space.sizes, warm_start.space.most))
        return super().plan(evaluate, self.start(space, warm_start.mean.shape[1]), generator, budget)


class ForgetsItsProbabilities(Discrete):
    """Shifts the most likely sequence, but plans on from the probabilities of the step before."""

    def shift(self, warm_start, steps=1):
        shifted = super().shift(warm_start, steps)
        return replace(shifted, probabilities=warm_start.probabilities, stale=warm_start.stale)


BROKEN_DISCRETE = {
    PlansBetweenCategories: "actions_stay_in_the_space",
    CountsFromOne: "actions_stay_in_the_space",
    TakesTheLargestSizeForAll: "actions_stay_in_the_space",
    ForgetsItsProbabilities: "shifting_keeps_the_rest_of_the_plan",
}


@pytest.mark.parametrize("make", BROKEN_DISCRETE, ids=lambda make: make.__name__)
def test_broken_planners_of_discrete_actions_fail_by_name(make: type[Discrete]) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_planner(make, space=Choices, dtype=torch.float64)
    assert caught.value.item == BROKEN_DISCRETE[make], caught.value


def test_a_sound_planner_of_discrete_actions_passes() -> None:
    check_planner(Discrete, space=Choices)


@pytest.mark.parametrize(("make", "space", "right"), [(ICEM, Choices, "DiscreteCEM"), (DiscreteCEM, Box, "ICEM")])
def test_a_planner_of_the_other_space_is_told_so(make: type[Planner], space: type, right: str) -> None:
    with pytest.raises(ConformanceError, match=right):
        check_planner(make, space=space)


def test_authors_may_state_what_their_planner_is() -> None:
    check_planner(FixedTemperature, dtype=torch.float64, scale_invariant=False)
    coarse = lambda: RandomShooting(horizon=6, candidates=4)  # noqa: E731
    with pytest.raises(ConformanceError) as caught:
        check_planner(coarse, dtype=torch.float64, better_than=0.999)
    assert caught.value.item == "plans_approach_the_best"
    check_planner(coarse, dtype=torch.float64, better_than=0.2)


def test_the_global_random_state_is_as_before() -> None:
    before = torch.get_rng_state()
    check_planner(lambda: CEM(**SMALL))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("stated", "message"),
    [({"dtype": torch.float16}, "float16"), ({"better_than": 1.0}, "share"), ({"space": ActionSpace}, "space")],
)
def test_statements_without_meaning_are_refused(stated: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_planner(CEM, **stated)
