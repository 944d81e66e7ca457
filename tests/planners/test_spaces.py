"""Action spaces: bounds, categories, and which planner may search which."""

import math

import gymnasium
import pytest
import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import (
    CEM,
    ICEM,
    MPPI,
    PDDM,
    Box,
    Choices,
    DiscreteCEM,
    DiscreteMPPI,
    GradientPlanner,
    Planner,
    RandomShooting,
)

BOX = Box.of([-1.0, 0.5], [3.0, 0.5], torch.float64)
CHOICES = Choices.of([3, 1, 2], torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("make", [CEM, ICEM, MPPI, PDDM, GradientPlanner])
def test_planners_of_boxes_name_the_planners_of_choices(make: type[Planner]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{make.__name__} .*sizes \[3, 1, 2\].*DiscreteCEM"):
        make().start(CHOICES)


@pytest.mark.parametrize("make", [DiscreteCEM, DiscreteMPPI])
def test_planners_of_choices_name_the_planners_of_boxes(make: type[Planner]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{make.__name__} .*Box of 2 continuous.*ICEM"):
        make().start(BOX)


@pytest.mark.parametrize("space", [BOX, CHOICES], ids=["box", "choices"])
def test_random_shooting_searches_both(space: Box | Choices) -> None:
    planner = RandomShooting(horizon=2, candidates=500)
    plan = planner.plan(lambda actions: actions.sum((0, 3)), planner.start(space), seeded())
    assert torch.equal(space.clip(plan.actions), plan.actions)
    assert plan.actions[..., 0].min() > 1.5


def test_uniform_categories_are_equally_frequent() -> None:
    draws = 30000
    sampled = CHOICES.uniform((draws,), seeded())
    assert sampled.shape == (draws, 3)
    for factor, size in enumerate((3, 1, 2)):
        counts = torch.bincount(sampled[:, factor].long(), minlength=size).double()
        assert len(counts) == size
        # Binomial: five standard errors of a share.
        assert (counts / draws - 1 / size).abs().max() <= 5 * math.sqrt((1 - 1 / size) / size / draws)


def test_uniform_actions_fill_the_box_and_no_more() -> None:
    sampled = BOX.uniform((20000,), seeded())
    assert torch.equal(BOX.clip(sampled), sampled)
    assert sampled[:, 0].min() < -0.99
    assert sampled[:, 0].max() > 2.99
    assert torch.equal(sampled[:, 1], torch.full((20000,), 0.5, dtype=torch.float64))


def test_clipping_gives_the_nearest_action() -> None:
    assert BOX.clip(torch.tensor([4.0, -2.0], dtype=torch.float64)).tolist() == [3.0, 0.5]
    assert CHOICES.clip(torch.tensor([1.6, 3.0, -2.0], dtype=torch.float64)).tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("space", [BOX, CHOICES], ids=["box", "choices"])
def test_a_space_moves_to_another_dtype(space: Box | Choices) -> None:
    moved = space.to(torch.float32)
    assert moved.size == space.size
    assert moved.middle.dtype == moved.uniform((2,), seeded()).dtype == torch.float32
    assert torch.equal(moved.middle.double(), space.middle)


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [
        ([-math.inf], [math.inf], ([-2.0], [2.0])),
        ([1.0], [math.inf], ([1.0], [5.0])),
        ([-math.inf], [1.0], ([-3.0], [1.0])),
        ([-3.4e38], [3.4e38], ([-2.0], [2.0])),
        ([-9.0, -math.inf], [9.0, math.inf], ([-9.0, -2.0], [9.0, 2.0])),
    ],
)
def test_a_scale_stands_in_for_bounds_that_are_missing(low: list, high: list, bounds: tuple) -> None:
    box = Box.of(low, high, scale=2.0)
    assert (box.low.tolist(), box.high.tolist()) == bounds


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_is_a_positive_number(scale: float) -> None:
    with pytest.raises(ConfigurationError, match="positive"):
        Box.of([-math.inf], [math.inf], scale=scale)


@pytest.mark.parametrize("sizes", [[], [0], [2, -1], torch.tensor([2.5]), torch.tensor([math.nan])])
def test_choices_have_categories(sizes: list | torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="at least 1 category"):
        Choices.of(sizes)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("space", [gymnasium.spaces.Box(-1.0, 1.0, (1,)), gymnasium.spaces.Discrete(3)], ids=["Box", "Discrete"])
def test_spaces_of_gymnasium_are_refused_and_the_way_to_one_named(space: gymnasium.Space) -> None:
    for planner in (ICEM(), DiscreteCEM(), RandomShooting()):
        with pytest.raises(ConfigurationError, match=r"bayesdyn.loop.actions_of\(env.action_space\)"):
            planner.start(space)
