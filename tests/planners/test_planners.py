"""Properties of every planner, through one table; a new planner adds a row."""

import math

import pytest
import torch
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import CEM, ICEM, MPPI, PDDM, Box, GradientPlanner, Planner, RandomShooting
from bayesdyn.rollout import PlainDynamics, rollout
from bayesdyn.testing import check_planner

PLANNERS = {
    "shooting": RandomShooting,
    "shooting, held": lambda **sizes: RandomShooting(hold=3, **sizes),
    "CEM": CEM,
    "CEM, clipped": lambda **sizes: CEM(clip=True, **sizes),
    "CEM, best": lambda **sizes: CEM(execute_best=True, **sizes),
    "iCEM": ICEM,
    "iCEM, white, best": lambda **sizes: ICEM(beta=0.0, execute_best=True, **sizes),
    "iCEM, not periodic": lambda **sizes: ICEM(periodic=False, **sizes),
    "MPPI": MPPI,
    "MPPI, adapted": lambda **sizes: MPPI(adapt=True, iterations=6, **sizes),
    "MPPI, fixed temperature": lambda **sizes: MPPI(temperature=0.003, beta=1.0, **sizes),
    "PDDM": lambda **sizes: PDDM(kappa=300.0, **sizes),
    "PDDM, filtered noise": lambda **sizes: PDDM(kappa=300.0, filter="noise", **sizes),
    "gradient": lambda **sizes: GradientPlanner(starts=6, iterations=5, rate=0.2, **sizes),
    "gradient, no shooting": lambda **sizes: GradientPlanner(starts=8, iterations=8, shooting=0, rate=0.3, **sizes),
}
# Their plans depend on the unit of the return, by a temperature or by the norm at which gradients are clipped.
SCALED = {"MPPI, fixed temperature", "PDDM", "PDDM, filtered noise", "gradient", "gradient, no shooting"}
REFINING = {
    "CEM": lambda **sizes: CEM(candidates=400, elites=40, **sizes),
    "CEM, clipped": lambda **sizes: CEM(candidates=400, elites=40, clip=True, **sizes),
    "iCEM": lambda **sizes: ICEM(candidates=400, elites=40, decay=1.0, beta=0.5, **sizes),
    "MPPI": lambda **sizes: MPPI(adapt=True, least_std=0.01, **sizes),
    "gradient": lambda iterations, **sizes: GradientPlanner(iterations=5 * iterations, starts=4, rate=0.1, **sizes),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def box(low: list[float], high: list[float]) -> Box:
    return Box.of(low, high, torch.float64)


def reach(target: list[float]):
    """-Σ_t |a_t - target|²: the best sequence is the target, or the point of the box next to it, at every step."""
    return lambda actions: -(actions - torch.tensor(target, dtype=actions.dtype)).square().sum((0, 3))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * ("," in name)) for name in PLANNERS])
def test_planners_keep_the_contract(name: str) -> None:
    check_planner(lambda: PLANNERS[name](horizon=7), scale_invariant=name not in SCALED)


@pytest.mark.parametrize("name", [name for name in PLANNERS if "," not in name])
def test_one_step_is_a_horizon_too(name: str) -> None:
    check_planner(lambda: PLANNERS[name](horizon=1), dtype=torch.float64, scale_invariant=name not in SCALED)


@pytest.mark.parametrize(("low", "high", "target"), [(-1.0, 1.0, 0.3), (0.5, 4.0, 0.9), (-1.0, 1.0, 2.0), (-3.0, 0.5, -7.0)])
@pytest.mark.parametrize("name", REFINING)
def test_twenty_iterations_find_the_argmax_of_a_quadratic(name: str, low: float, high: float, target: float) -> None:
    planner, bounds = REFINING[name](horizon=4, iterations=20), box([low] * 2, [high] * 2)
    plan = planner.plan(reach([target] * 2), planner.start(bounds), seeded())
    best = min(max(target, low), high)
    # Elites gather to √(1e-3)/4 = 0.8 % of the width before CEM ends. Towards a bound its std is at most half of the distance left
    # and selection narrows it further, so that it ends short of the bound; `clip=True` is there to reach it.
    tolerance = 0.06 if name == "CEM" and best != target else 0.02
    assert (plan.actions - best).abs().max() < tolerance * (high - low)


def test_the_best_of_2000_uniform_actions_is_near() -> None:
    planner = RandomShooting(horizon=1, candidates=2000)
    plan = planner.plan(reach([0.3]), planner.start(box([-1.0], [1.0])), seeded())
    # No candidate within ±d has probability (1 - d)^2000: 1e-6 at d = 0.007.
    assert abs(float(plan.actions) - 0.3) < 0.007


def test_held_actions_stay_for_their_steps() -> None:
    planner = RandomShooting(horizon=7, candidates=5, hold=3)
    actions = planner.plan(reach([0.0]), planner.start(box([-1.0], [1.0])), seeded()).actions.flatten()
    assert len(set(actions[:3].tolist())) == len(set(actions[3:6].tolist())) == 1
    assert len(set(actions.tolist())) == 3


A = torch.tensor([[1.0, 0.2], [0.0, 1.0]], dtype=torch.float64)
B = torch.tensor([[0.02], [0.2]], dtype=torch.float64)
Q, R = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64)), 0.05


def riccati(start: Tensor, horizon: int) -> float:
    """Least Σ_t s_{t+1}ᵀQ s_{t+1} + R a_t² of the double integrator, by dynamic programming."""
    value = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(horizon):
        ahead = Q + value
        gain = (B.T @ ahead @ A) / (R + B.T @ ahead @ B)
        closed = A - B @ gain
        value = closed.T @ ahead @ closed + R * gain.T @ gain
    return float(start @ value @ start)


@pytest.mark.parametrize("name", REFINING)
def test_a_linear_plant_with_quadratic_cost_is_planned_within_one_percent_of_riccati(name: str) -> None:
    start, horizon = torch.tensor([1.0, 0.0], dtype=torch.float64), 10
    plant = PlainDynamics(lambda s, a: Gaussian(s @ A.T + a @ B.T, torch.zeros_like(s)))

    def cost(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return -(following @ Q * following).sum(-1) - R * action.square().sum(-1)

    def evaluate(actions: Tensor) -> Tensor:
        return rollout(plant, start, actions, cost).returns[0, 0]

    planner = REFINING[name](horizon=horizon, iterations=15)
    actions = planner.plan(evaluate, planner.start(box([-8.0], [8.0])), seeded()).actions
    achieved, least = -float(evaluate(actions.unsqueeze(2))), riccati(start, horizon)
    assert least <= achieved < 1.01 * least


@pytest.mark.parametrize("name", PLANNERS)
def test_the_nan_objective_of_peers_is_answered_by_its_true_best(name: str) -> None:
    # NaN taken as -1e-10 or 0 beats every honest score here, and the answer becomes 0.3 or more.
    def evaluate(actions: Tensor) -> Tensor:
        action = actions[0, ..., 0]
        return torch.where(action > 0.3, torch.nan, -10 - (action + 0.5).square())

    planner = PLANNERS[name](horizon=1)
    plan = planner.plan(evaluate, planner.start(box([-1.0], [1.0])), seeded())
    assert abs(float(plan.actions) + 0.5) < 0.02
    assert 0 < plan.dropped < plan.candidates


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", PLANNERS)
def test_without_any_finite_score_the_plan_at_hand_stays(name: str, value: float) -> None:
    planner = PLANNERS[name](horizon=5)
    known = planner.plan(reach([0.5]), planner.start(box([-1.0], [1.0])), seeded()).warm_start
    plan = planner.plan(lambda actions: value + 0 * actions.sum((0, 3)), known, seeded(1))
    assert plan.failed.tolist() == [True]
    assert torch.equal(plan.actions, known.mean)
    assert plan.score.tolist() == plan.best_score.tolist() == [-math.inf]
    assert plan.dropped == plan.candidates
    assert torch.equal(plan.iterations[-1].elite_std, torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("name", PLANNERS)
def test_a_batch_of_64_is_64_plans(name: str) -> None:
    targets = torch.rand(64, 1, 2, generator=seeded(), dtype=torch.float64) * 2 - 1

    def plans(wanted: Tensor) -> Tensor:
        planner, stream = PLANNERS[name](horizon=4), seeded(1)
        warm_start, actions = planner.start(box([-1.0, -1.0], [1.0, 1.0]), len(wanted)), []
        for _ in range(3):
            plan = planner.plan(lambda a: -(a - wanted).square().sum((0, 3)), warm_start, stream)
            actions.append(plan.actions)
            warm_start = planner.shift(plan.warm_start)
        return torch.stack(actions)

    together = plans(targets)
    for b in (0, 31, 63):
        torch.testing.assert_close(plans(targets[b : b + 1]), together[:, :, b : b + 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_moves_its_generator_by_one_number_however_long_it_took(name: str) -> None:
    planner, one, other = PLANNERS[name](horizon=3), seeded(), seeded()
    planner.plan(reach([0.3]), planner.start(box([-1.0], [1.0])), one)
    planner.plan(lambda actions: 0 * actions.sum((0, 3)).float(), planner.start(box([-1.0], [1.0]), 5), other)
    assert torch.equal(one.get_state(), other.get_state())
    assert not torch.equal(one.get_state(), seeded().get_state())


@pytest.mark.parametrize("name", PLANNERS)
def test_plans_without_a_generator_differ(name: str) -> None:
    planner, asked = PLANNERS[name](horizon=3), []

    def evaluate(actions: Tensor) -> Tensor:
        asked.append(actions.detach())
        return reach([0.3])(actions)

    planner.plan(evaluate, planner.start(box([-1.0], [1.0])))
    calls = len(asked)
    planner.plan(evaluate, planner.start(box([-1.0], [1.0])))
    assert not torch.equal(asked[0], asked[calls])


@pytest.mark.parametrize("name", PLANNERS)
def test_the_shifted_plan_ends_as_the_planner_says(name: str) -> None:
    planner = PLANNERS[name](horizon=5)
    warm_start = planner.plan(reach([1.0, -3.0]), planner.start(box([0.5, -4.0], [3.0, -2.0])), seeded()).warm_start
    shifted = planner.shift(warm_start, 2)
    assert torch.equal(shifted.mean[:3], warm_start.mean[2:])
    assert torch.equal(shifted.past, warm_start.mean[1])
    end = warm_start.mean[4] if planner.repeat_last else torch.tensor([[1.75, -3.0]], dtype=torch.float64)
    assert torch.equal(shifted.mean[3:], end.expand(2, 1, 2))


def test_the_papers_say_which_planners_repeat_the_last_action() -> None:
    assert not CEM().repeat_last
    assert not RandomShooting().repeat_last
    assert ICEM().repeat_last
    assert MPPI().repeat_last
    assert PDDM().repeat_last


@pytest.mark.parametrize("make", [RandomShooting, CEM, ICEM])
def test_sizes_without_meaning_are_refused(make: type[Planner]) -> None:
    for sizes in ({"horizon": 0}, {"candidates": 0}, {"candidates": -3}):
        with pytest.raises(ConfigurationError, match="wants horizon"):
            make(**sizes)
    with pytest.raises(ConfigurationError, match="batch"):
        make().start(box([-1.0], [1.0]), 0)


@pytest.mark.parametrize("make", [CEM, ICEM])
@pytest.mark.parametrize("sizes", [{"elites": 11, "candidates": 10}, {"elites": 0}, {"iterations": 0}, {"momentum": 1.0}])
def test_elites_come_from_candidates(make: type[Planner], sizes: dict) -> None:
    with pytest.raises(ConfigurationError, match="got"):
        make(**sizes)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_says_what_each_iteration_found(name: str) -> None:
    planner = PLANNERS[name](horizon=3)
    plan = planner.plan(reach([0.3]), planner.start(box([-1.0], [1.0]), 2), seeded())
    best = torch.stack([iteration.best for iteration in plan.iterations])
    assert torch.equal(best.amax(0), plan.best_score)
    for iteration in plan.iterations:
        assert bool((iteration.elite_mean <= iteration.best).all())
        assert bool((iteration.elite_std >= 0).all())
        assert bool((iteration.effective >= 1 - 1e-9).all())
    assert plan.seconds > 0


@pytest.mark.parametrize("name", PLANNERS)
def test_large_scores_that_differ_a_little_are_told_apart(name: str) -> None:
    # exp(1e4) overflows: a softmax that does not subtract the maximum answers NaN or the middle.
    planner = PLANNERS[name](horizon=1)
    plan = planner.plan(lambda a: 1e4 + reach([0.7])(a), planner.start(box([-1.0], [1.0])), seeded())
    assert abs(float(plan.actions) - 0.7) < 0.1


@pytest.mark.parametrize("name", [name for name in REFINING if name != "gradient"])
def test_bounded_boxes_hold_a_linear_cost(name: str) -> None:
    # Without bounds a linear score is followed as far as iterations go (pytorch_icem reaches 12 to 18).
    planner = REFINING[name](horizon=4, iterations=20)
    plan = planner.plan(lambda a: a.sum((0, 3)), planner.start(box([-2.0, -1.0], [1.0, 3.0])), seeded())
    assert bool((plan.actions <= torch.tensor([1.0, 3.0], dtype=torch.float64)).all())
    assert float(plan.actions.sum()) > 0.9 * 4 * (1 + 3)


BAD_BOXES = {
    "inverted": ([1.0], [-1.0], "low <= high"),
    "of two lengths": ([-1.0], [1.0, 2.0], "one length"),
    "empty": ([], [], "at least 1"),
    "infinite": ([-math.inf], [math.inf], "bounded"),
    "half infinite": ([0.0], [math.inf], "bounded"),
    "as wide as floats go": ([-3.4e38], [3.4e38], "bounded"),
    "NaN": ([math.nan], [1.0], "low <= high"),
}


@pytest.mark.parametrize("name", BAD_BOXES)
def test_boxes_that_cannot_be_searched_are_refused(name: str) -> None:
    low, high, message = BAD_BOXES[name]
    with pytest.raises(ConfigurationError, match=message):
        Box.of(low, high)
