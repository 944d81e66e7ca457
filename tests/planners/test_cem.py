"""The cross-entropy method: its noise, its bounds, when it stops, and what its variance rule does at a bound."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from bayesdyn.planners import CEM, Box
from bayesdyn.planners.cem import truncated_normal

UNIT = Box.of([-1.0], [1.0], torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reach(target: float):
    return lambda actions: -(actions - target).square().sum((0, 3))


class Counter:
    def __init__(self, evaluate) -> None:
        self.evaluate, self.asked = evaluate, []

    def __call__(self, actions: Tensor) -> Tensor:
        self.asked.append(actions)
        return self.evaluate(actions)


def test_truncated_normals_are_scipys() -> None:
    draws = truncated_normal((20000,), seeded(), torch.float64).numpy()
    reference = stats.truncnorm(-2, 2)
    assert stats.kstest(draws, reference.cdf).pvalue > 1e-3
    # The variance of a sample variance is (m4 - var²)/N.
    var, fourth = reference.var(), reference.moment(4)
    assert var == pytest.approx(0.774, abs=5e-4)
    assert abs(draws.var() - var) < 5 * math.sqrt((fourth - var**2) / len(draws))
    assert abs(draws).max() <= 2


def test_candidates_keep_half_the_distance_to_the_bound() -> None:
    planner, spy = CEM(horizon=1, candidates=2000, iterations=1), Counter(reach(0.0))
    start = planner.start(UNIT)
    planner.plan(spy, replace(start, mean=torch.full_like(start.mean, 0.8)), seeded())
    # std = min(2/4, (1 - 0.8)/2) = 0.1 and |z| <= 2: nothing is clipped.
    offsets = spy.asked[0].flatten() - 0.8
    assert offsets.abs().max() < 0.2
    assert offsets.std().item() == pytest.approx(0.1 * math.sqrt(0.774), rel=0.1)


@pytest.mark.parametrize("clip", [False, True])
def test_a_plan_on_the_bound_can_leave_it(clip: bool) -> None:
    planner = CEM(horizon=1, clip=clip)
    warm_start = planner.start(UNIT)
    warm_start = replace(warm_start, mean=torch.ones_like(warm_start.mean))
    for seed in range(4):
        warm_start = planner.plan(reach(0.0), warm_start, seeded(seed)).warm_start
    assert warm_start.mean.abs().max() < 0.2


def test_it_stops_when_every_environment_has_converged() -> None:
    planner, spy = CEM(horizon=2, candidates=200, elites=20, iterations=50), Counter(reach(0.2))
    plan = planner.plan(spy, planner.start(UNIT), seeded())
    assert 3 < len(spy.asked) < 20
    assert len(plan.iterations) == len(spy.asked)
    means = [float(i.elite_mean) for i in plan.iterations]
    assert means == sorted(means)


def test_a_converged_environment_keeps_its_score_while_others_go_on() -> None:
    # The second environment's objective is noise-like in the action, so its variance falls later.
    def evaluate(actions: Tensor) -> Tensor:
        return torch.stack([reach(0.2)(actions)[0], (40 * actions[:, 1]).sin().sum((0, 2))])

    planner = CEM(horizon=2, candidates=200, elites=20, iterations=30)
    both = planner.plan(evaluate, planner.start(UNIT, 2), seeded())
    alone = planner.plan(reach(0.2), planner.start(UNIT), seeded())
    assert len(both.iterations) > len(alone.iterations)
    assert both.score[0] == alone.score[0]


def test_one_elite_is_the_best_candidate() -> None:
    planner = CEM(horizon=2, elites=1, candidates=50, iterations=1, momentum=0.0)
    plan = planner.plan(reach(0.4), planner.start(UNIT), seeded())
    assert torch.equal(plan.mean, plan.best)
    assert plan.score == plan.best_score


def test_momentum_keeps_its_share_of_the_old_mean() -> None:
    plans = [
        CEM(horizon=2, iterations=1, momentum=momentum).plan(reach(0.8), CEM(horizon=2).start(UNIT), seeded()).mean
        for momentum in (0.0, 0.25)
    ]
    torch.testing.assert_close(plans[1], 0.75 * plans[0])  # the old mean is 0
