"""Planners of discrete actions: what they draw, what they learn, and that they find the best sequence."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import Choices, DiscreteCEM, DiscreteMPPI, Planner, RandomShooting
from bayesdyn.planners.discrete import frequencies, sample_choices
from bayesdyn.testing import check_planner

PLANNERS = {
    "shooting": RandomShooting,
    "CEM": DiscreteCEM,
    "CEM, sticky, best": lambda **sizes: DiscreteCEM(stickiness=0.3, execute_best=True, **sizes),
    "MPPI": DiscreteMPPI,
    "MPPI, fixed temperature": lambda **sizes: DiscreteMPPI(temperature=0.1, stickiness=0.2, **sizes),
}
SCALED = {"MPPI, fixed temperature"}
MIXED = Choices.of([3, 1, 4], torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_keep_the_contract(name: str) -> None:
    check_planner(lambda: PLANNERS[name](horizon=5), space=Choices, dtype=torch.float64, scale_invariant=name not in SCALED)


@pytest.mark.parametrize("name", ["CEM", "MPPI"])
def test_one_step_in_float32_is_a_plan_too(name: str) -> None:
    check_planner(lambda: PLANNERS[name](horizon=1), space=Choices, dtype=torch.float32)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_two_step_problem_is_solved_as_by_enumeration(name: str, seed: int) -> None:
    # Rewards that couple both steps: the best first action depends on what can follow.
    table = torch.randn(4, 4, generator=seeded(seed), dtype=torch.float64)
    best = max(itertools.product(range(4), range(4)), key=lambda pair: float(table[pair]))
    planner = PLANNERS[name](horizon=2)
    plan = planner.plan(
        lambda actions: table[actions[0, ..., 0].long(), actions[1, ..., 0].long()],
        planner.start(Choices.of([4], torch.float64)),
        seeded(),
    )
    assert tuple(plan.actions.flatten().tolist()) == best


@pytest.mark.parametrize("name", PLANNERS)
def test_factors_of_several_sizes_are_chosen_together(name: str) -> None:
    wanted = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    planner = PLANNERS[name](horizon=2)
    warm_start, stream = planner.start(MIXED, 2), seeded()
    for _ in range(3):
        plan = planner.plan(lambda actions: -(actions - wanted).abs().sum((0, 3)), warm_start, stream)
        warm_start = plan.warm_start
    assert torch.equal(plan.actions, wanted.expand(2, 2, 3))


def test_categories_are_drawn_by_their_probabilities() -> None:
    table = torch.tensor([[[0.7, 0.0, 0.3, 0.0]], [[0.0, 0.0, 0.0, 1.0]]], dtype=torch.float64)
    table = table.reshape(2, 1, 1, 4).expand(2, 3, 1, 4)
    count = 40000
    drawn = sample_choices(table, count, 0.0, Choices.of([4], torch.float64), seeded())
    assert drawn.shape == (2, 3, count, 1)
    assert torch.equal(drawn[1], torch.full_like(drawn[1], 3.0))
    shares = frequencies(drawn, torch.full((3, count), 1 / count, dtype=torch.float64), 4)
    assert bool((shares[0, :, 0, 1] == 0).all())
    # Binomial: five standard errors.
    assert (shares[0, :, 0, 0] - 0.7).abs().max() < 5 * math.sqrt(0.21 / count)


def test_the_environments_draw_from_the_same_numbers() -> None:
    table = torch.rand(3, 2, 3, 4, generator=seeded(), dtype=torch.float64)
    table[:, 1] = table[:, 0]
    drawn = sample_choices(table / table.sum(-1, keepdim=True), 50, 0.3, Choices.of([4, 4, 4], torch.float64), seeded())
    assert torch.equal(drawn[:, 0], drawn[:, 1])


@pytest.mark.parametrize("stickiness", [0.0, 0.6])
def test_sticky_actions_repeat_the_one_before(stickiness: float) -> None:
    size, count = 4, 20000
    table = torch.full((3, 1, 1, size), 1 / size, dtype=torch.float64)
    drawn = sample_choices(table, count, stickiness, Choices.of([size], torch.float64), seeded())
    repeats = (drawn[1:] == drawn[:-1]).double().mean(2).flatten()
    expected = stickiness + (1 - stickiness) / size
    assert (repeats - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / count)


def test_cem_moves_probabilities_to_the_frequencies_of_the_elites() -> None:
    planner = DiscreteCEM(horizon=1, candidates=300, elites=30, iterations=1, momentum=0.25, reset=0.0)
    start = planner.start(Choices.of([3], torch.float64))
    # Categories 1 and 2 are worth the same: every elite is one of them.
    plan = planner.plan(lambda actions: (actions[0, ..., 0] > 0).double(), start, seeded())
    learned = plan.warm_start.probabilities[0, 0, 0]
    assert float(learned[0]) == pytest.approx(0.25 / 3)
    assert float(learned.sum()) == pytest.approx(1.0)


def test_a_category_is_never_lost() -> None:
    planner = DiscreteCEM(horizon=1, candidates=2000, elites=10, mix=0.01, reset=0.0)
    start = planner.start(Choices.of([2], torch.float64))
    stuck = replace(start, probabilities=torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(1, 1, 1, 2))
    plan = planner.plan(lambda actions: actions[0, ..., 0], stuck, seeded())
    # 2000 draws at 0.005 miss it with probability 4e-5.
    assert plan.actions.tolist() == [[[1.0]]]


def test_the_next_plan_explores_again() -> None:
    planner, asked = DiscreteCEM(horizon=3, reset=0.5), []
    certain = planner.plan(lambda a: -a.sum((0, 3)), planner.start(Choices.of([4], torch.float64)), seeded()).warm_start
    assert certain.probabilities[..., 0].min() > 0.9

    def evaluate(actions: Tensor) -> Tensor:
        asked.append(actions)
        return -actions.sum((0, 3))

    planner.plan(evaluate, planner.shift(certain), seeded(1))
    assert (asked[0] > 0).double().mean() > 0.25  # reset · 3/4 = 0.375 of uniform's other categories, 600 draws


@pytest.mark.parametrize("name", ["CEM", "MPPI"])
def test_the_shifted_plan_repeats_its_last_step_or_knows_nothing(name: str) -> None:
    for repeat_last in (True, False):
        planner = PLANNERS[name](horizon=4, repeat_last=repeat_last)
        old = planner.plan(lambda a: a.sum((0, 3)), planner.start(MIXED), seeded()).warm_start
        new = planner.shift(old, 3)
        assert torch.equal(new.probabilities[:1], old.probabilities[3:])
        last = old.probabilities[3] if repeat_last else planner.start(MIXED).probabilities[0]
        assert torch.equal(new.probabilities[1:], last.expand(3, *last.shape))


@pytest.mark.parametrize("make", [DiscreteCEM, DiscreteMPPI])
@pytest.mark.parametrize("sizes", [{"horizon": 0}, {"elites": 300}, {"stickiness": 1.0}, {"mix": -0.1}, {"reset": 1.1}])
def test_settings_without_meaning_are_refused(make: type[Planner], sizes: dict) -> None:
    with pytest.raises(ConfigurationError, match="wants"):
        make(**sizes)
