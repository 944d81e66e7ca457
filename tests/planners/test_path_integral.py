"""Planners that weight all candidates: temperatures, MPPI's noise and updates, PDDM's filter."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import MPPI, PDDM, Box
from bayesdyn.planners.pddm import smooth
from bayesdyn.planners.weights import effective_weights, softmax_weights

DOUBLE = torch.float64
UNIT = Box.of([-1.0], [1.0], DOUBLE)
WIDE = Box.of([-1e6], [1e6], DOUBLE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reach(target: float):
    return lambda actions: -(actions - target).square().sum((0, 3))


class Spy:
    def __init__(self, evaluate) -> None:
        self.evaluate, self.asked = evaluate, []

    def __call__(self, actions: Tensor) -> Tensor:
        self.asked.append(actions.clone())
        return self.evaluate(actions)


def effective(weights: Tensor) -> Tensor:
    return 1 / weights.square().sum(1)


@pytest.mark.parametrize("size", [1, 2, 40, 99])
def test_the_effective_sample_size_is_the_one_asked_for(size: int) -> None:
    scores = torch.randn(5, 100, generator=seeded(), dtype=DOUBLE) * torch.tensor(
        [[1e-6], [1.0], [50.0], [1e5], [1e9]], dtype=DOUBLE
    )
    weights = effective_weights(scores, size)
    torch.testing.assert_close(weights.sum(1), torch.ones(5, dtype=DOUBLE))
    # Where it is to be one, the temperature has a floor that leaves the best alone its weight.
    torch.testing.assert_close(effective(weights), torch.full((5,), float(size), dtype=DOUBLE), rtol=1e-5, atol=1e-6)
    order = scores.argsort(1)
    assert bool((weights.gather(1, order).diff(dim=1) >= 0).all())


def test_effective_weights_do_not_know_the_unit_of_scores() -> None:
    scores = torch.randn(3, 50, generator=seeded(), dtype=DOUBLE)
    torch.testing.assert_close(effective_weights(10 * scores + 1e4, 8), effective_weights(scores, 8), rtol=1e-8, atol=1e-9)


def test_an_outlier_far_below_does_not_hide_the_rest() -> None:
    scores = torch.cat([torch.full((1, 1), -1e9, dtype=DOUBLE), torch.randn(1, 50, generator=seeded(), dtype=DOUBLE)], 1)
    assert float(effective(effective_weights(scores, 8))) == pytest.approx(8, rel=1e-4)


@pytest.mark.parametrize("weigh", [lambda s: effective_weights(s, 3), lambda s: softmax_weights(s, 0.5)])
def test_special_scores_have_sensible_weights(weigh) -> None:
    inf = math.inf
    scores = torch.tensor(
        [[7.0] * 6, [-inf] * 6, [-inf, 2.0, -inf, -inf, -inf, -inf], [5.0, 5.0, -inf, -inf, -inf, -inf]], dtype=DOUBLE
    )
    expected = [[1 / 6] * 6, [0.0] * 6, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(weigh(scores), torch.tensor(expected, dtype=DOUBLE))


def test_fewer_finite_scores_than_the_size_count_alike() -> None:
    scores = torch.tensor([[1.0, 2.0, 300.0, -math.inf]], dtype=DOUBLE)
    torch.testing.assert_close(effective_weights(scores, 3), torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=DOUBLE) / 3)


def test_softmax_weights_are_torchs() -> None:
    scores = torch.randn(3, 20, generator=seeded(), dtype=DOUBLE)
    torch.testing.assert_close(softmax_weights(scores, 0.7), torch.softmax(scores / 0.7, 1))
    # Without the maximum taken away first, exp(1e4) is infinite.
    torch.testing.assert_close(softmax_weights(scores + 1e4, 0.7), torch.softmax(scores / 0.7, 1))


@pytest.mark.parametrize("std", [1e-3, 0.05, 0.2])
def test_the_noise_of_mppi_is_as_large_as_it_says(std: float) -> None:
    planner, spy = MPPI(horizon=5, candidates=2000, iterations=1, std=std, least_std=0.0), Spy(reach(0.0))
    planner.plan(spy, planner.start(WIDE), seeded())
    # 10,000 independent values: the relative standard error of a std is 1/√(2N) = 0.7 %.
    assert spy.asked[0].std().item() == pytest.approx(std * 1e6, rel=0.035)


def test_mppi_moves_to_the_weighted_mean_of_its_candidates() -> None:
    planner, spy = MPPI(horizon=3, candidates=50, iterations=1, temperature=0.2), Spy(reach(0.4))
    plan = planner.plan(spy, planner.start(UNIT), seeded())
    weights = torch.softmax(reach(0.4)(spy.asked[0])[0] / 0.2, 0)
    torch.testing.assert_close(plan.mean[:, 0, 0], spy.asked[0][:, 0, :, 0] @ weights)
    assert float(plan.iterations[0].effective) == pytest.approx(float(1 / weights.square().sum()))
    assert float(plan.score) == pytest.approx(float(reach(0.4)(spy.asked[0])[0] @ weights))


def test_adapted_noise_shrinks_to_its_floor_and_starts_anew() -> None:
    planner = MPPI(horizon=1, candidates=2000, elites=50, iterations=12, adapt=True, least_std=0.02, std=0.5)
    spy = Spy(reach(0.2))
    warm_start = planner.plan(spy, planner.start(UNIT), seeded()).warm_start
    spreads = [float(asked.std()) for asked in spy.asked]
    assert spreads[0] == pytest.approx(0.5, rel=0.15)  # a few are clipped to the box
    assert spreads[-1] == pytest.approx(0.02, rel=0.1)  # 1/√(2N) = 1.6 %, five of it
    again = Spy(reach(0.2))
    planner.plan(again, warm_start, seeded(1))
    assert float(again.asked[0].std()) > 0.35
    fixed = Spy(reach(0.2))
    replace(planner, adapt=False).plan(fixed, planner.start(UNIT), seeded())
    assert float(fixed.asked[-1].std()) > 0.35


def test_the_filter_of_pddm_leaves_what_it_should_of_the_noise() -> None:
    # σ √(β/(2-β)): .90, .73, .65 of σ at β = .9, .7, .6.
    for beta, share in ((0.9, 0.905), (0.7, 0.734), (0.6, 0.655)):
        filtered = smooth(torch.randn(60, 20000, generator=seeded(), dtype=DOUBLE), beta, torch.zeros(20000, dtype=DOUBLE))
        assert math.sqrt(beta / (2 - beta)) == pytest.approx(share, abs=1e-3)
        assert float(filtered[-1].std()) == pytest.approx(math.sqrt(beta / (2 - beta)), rel=0.025)  # 1/√(2N) = 0.5 %


def test_pddm_starts_from_the_action_before_the_shift() -> None:
    # The plan is [1, 2, 3]; after one step 1 has been executed, and at β = 0 every action repeats it. A planner that keeps a view
    # of the mean instead of a copy repeats 2.
    planner, box = PDDM(horizon=3, candidates=20, beta=0.0), Box.of([-9.0], [9.0], DOUBLE)
    plan = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE).reshape(3, 1, 1)
    moved = planner.shift(replace(planner.start(box), mean=plan))
    assert moved.mean.flatten().tolist() == [2.0, 3.0, 3.0]
    assert planner.plan(reach(0.0), moved, seeded()).actions.flatten().tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert plan.flatten().tolist() == [1.0, 2.0, 3.0]


def test_pddm_starts_an_episode_from_the_middle_of_the_box() -> None:
    planner, box = PDDM(horizon=2, beta=0.0, candidates=5), Box.of([1.0], [5.0], DOUBLE)
    first = planner.plan(reach(9.0), planner.start(box), seeded())
    assert first.actions.flatten().tolist() == pytest.approx([3.0, 3.0])
    used = planner.shift(replace(first.warm_start, mean=torch.full_like(first.mean, 4.5)))
    assert planner.plan(reach(9.0), used, seeded()).actions.flatten().tolist() == pytest.approx([4.5, 4.5])
    assert planner.plan(reach(9.0), planner.start(box), seeded()).actions.flatten().tolist() == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize(("filtered", "expected"), [("plan", [0.7, 0.21, 0.063, 0.0189]), ("noise", [1.0, 0.0, 0.0, 0.0])])
def test_the_filter_acts_on_the_plan_or_on_the_noise_alone(filtered: str, expected: list[float]) -> None:
    planner = PDDM(horizon=4, candidates=3, beta=0.7, sigma=1e-12, filter=filtered)
    start = planner.start(UNIT)
    impulse = replace(start, mean=torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=DOUBLE).reshape(4, 1, 1))
    plan = planner.plan(reach(0.0), impulse, seeded())
    assert plan.actions.flatten().tolist() == pytest.approx(expected, abs=1e-9)


def test_the_noise_of_pddm_is_in_half_widths_of_the_box() -> None:
    planner, spy = PDDM(horizon=1, candidates=20000, sigma=0.1, beta=1.0), Spy(reach(0.0))
    planner.plan(spy, planner.start(Box.of([0.0, -10.0], [1.0, 30.0], DOUBLE)), seeded())
    spreads = spy.asked[0][0, 0].std(0)
    torch.testing.assert_close(spreads, torch.tensor([0.05, 2.0], dtype=DOUBLE), rtol=0.025, atol=0)  # 1/√(2N) = 0.5 %


def test_pddm_refines_its_plan_from_step_to_step() -> None:
    planner = PDDM(horizon=3, candidates=200, kappa=20.0, filter="noise")
    warm_start, errors = planner.start(UNIT), []
    for seed in range(8):
        plan = planner.plan(reach(0.6), warm_start, seeded(seed))
        errors.append(float((plan.actions - 0.6).abs().mean()))
        warm_start = planner.shift(plan.warm_start)
    assert errors[-1] < 0.5 * errors[0]


BAD = [
    (MPPI, {"temperature": 0.0}),
    (MPPI, {"temperature": -1.0}),
    (MPPI, {"temperature": math.nan}),
    (MPPI, {"std": 0.0}),
    (MPPI, {"least_std": 0.6}),
    (MPPI, {"elites": 500}),
    (MPPI, {"elites": 0}),
    (PDDM, {"beta": 1.1}),
    (PDDM, {"kappa": 0.0}),
    (PDDM, {"sigma": 0.0}),
    (PDDM, {"candidates": 0}),
]


@pytest.mark.parametrize(("make", "settings"), BAD)
def test_settings_without_meaning_are_refused(make: type, settings: dict) -> None:
    with pytest.raises(ConfigurationError, match="got"):
        make(**settings)
