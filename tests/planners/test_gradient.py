"""Planning by gradient: the gradient is right, starts are handled one by one, and what has no gradient is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import Box, GradientPlanner
from bayesdyn.planners.gradient import Climb, gradient, squash, unsquash
from bayesdyn.rollout import PlainDynamics, TSInf, rollout

DOUBLE = torch.float64
UNIT = Box.of([-1.0], [1.0], DOUBLE)
SKEWED = Box.of([-1.0, 2.0, 0.5], [3.0, 7.0, 0.5], DOUBLE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reach(target: float):
    return lambda actions: -(actions - target).square().sum((0, 3))


def test_autograd_through_squashing_rollout_and_reward_is_finite_differences() -> None:
    mixing = torch.randn(3, 2, generator=seeded(), dtype=DOUBLE)
    plant = PlainDynamics(lambda s, a: Gaussian(s + (s.sin() + a @ mixing).tanh() / 5, 0.01 + 0.1 * s.square()), 2)
    noise = TSInf().draw_noise(4, 2, 3, 2, seeded(1), DOUBLE)
    start = torch.randn(2, 1, 2, generator=seeded(2), dtype=DOUBLE)

    def score(u: Tensor) -> Tensor:
        reward = lambda s, a, s2: -(s2 - 0.3).square().sum(-1) - 0.01 * a.square().sum(-1)  # noqa: E731
        returns = rollout(plant, start, squash(u, SKEWED), reward, particles=3, noise=noise).returns
        return returns.mean((0, 1))

    u = torch.randn(4, 2, 2, 3, generator=seeded(3), dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(score, (u,), eps=1e-6, atol=1e-7)
    numeric = torch.zeros_like(u)
    with torch.no_grad():
        for index in range(u.numel()):
            bump = torch.zeros_like(u).reshape(-1)
            bump[index] = 1e-5
            up, down = score(u + bump.reshape(u.shape)), score(u - bump.reshape(u.shape))
            numeric.reshape(-1)[index] = ((up - down) / 2e-5).sum()
    torch.testing.assert_close(gradient(score(u), u), numeric, rtol=1e-5, atol=1e-8)


def test_plans_under_no_grad_have_gradients_all_the_same() -> None:
    planner = GradientPlanner(horizon=2, starts=2, shooting=0, iterations=30, rate=0.2)
    with torch.no_grad():
        plan = planner.plan(reach(0.5), planner.start(UNIT), seeded())
        assert not torch.is_grad_enabled()
    assert (plan.actions - 0.5).abs().max() < 0.05
    assert not any(value.requires_grad for value in (plan.actions, plan.mean, plan.best_score, plan.warm_start.mean))


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda actions: (actions > 0).double().sum((0, 3)),
        lambda actions: -actions.detach().square().sum((0, 3)),
        lambda actions: torch.zeros(actions.shape[1:3], dtype=DOUBLE, requires_grad=True) + 1,
    ],
    ids=["comparison", "detached", "gradient of something else"],
)
def test_scores_without_a_gradient_are_refused(evaluate) -> None:
    planner = GradientPlanner(horizon=2)
    with pytest.raises(ConfigurationError, match="gradient with respect to the actions"):
        planner.plan(evaluate, planner.start(UNIT), seeded())


def test_of_two_hills_the_higher_is_found_from_a_start_on_the_lower() -> None:
    def hills(actions: Tensor) -> Tensor:
        return (torch.exp(-50 * (actions + 0.6).square()) + 2 * torch.exp(-50 * (actions - 0.7).square())).sum((0, 3))

    planner = GradientPlanner(horizon=1, starts=16, shooting=64)
    start = planner.start(UNIT)
    lower = replace(start, mean=torch.full_like(start.mean, -0.6))
    assert float(planner.plan(hills, lower, seeded()).actions) == pytest.approx(0.7, abs=0.05)
    alone = GradientPlanner(horizon=1, starts=1, shooting=0)
    assert float(alone.plan(hills, lower, seeded()).actions) == pytest.approx(-0.6, abs=0.05)


def test_the_plan_is_not_worse_than_the_warm_start() -> None:
    # Rates as large as this leave any good point.
    planner = GradientPlanner(horizon=3, starts=2, shooting=8, iterations=3, rate=5.0)
    start = planner.start(UNIT)
    known = replace(start, mean=torch.full_like(start.mean, 0.123))
    assert torch.equal(planner.plan(reach(0.123), known, seeded()).actions, known.mean)


def test_a_start_that_meets_nan_goes_back_and_stays_while_the_others_go_on() -> None:
    climb = Climb(torch.zeros(1, 1, 2, 1, dtype=DOUBLE))
    one, good = torch.ones(1, 1, 2, 1, dtype=DOUBLE), torch.zeros(1, 2, dtype=DOUBLE)
    climb.step(good, one, 0.1, 10.0)
    first = climb.at.clone()
    assert bool((first > 0).all())
    climb.step(good, one, 0.1, 10.0)
    bad = one.clone()
    bad[0, 0, 1] = torch.nan
    climb.step(good, bad, 0.1, 10.0)
    assert torch.equal(climb.at[:, :, 1], first[:, :, 1])
    assert bool((climb.at[:, :, 0] > first[:, :, 0] + 0.15).all())
    climb.step(torch.tensor([[torch.nan, 0.0]], dtype=DOUBLE), one, 0.1, 10.0)
    assert torch.equal(climb.at[:, :, 1], first[:, :, 1])
    assert bool(climb.at.isfinite().all())


def test_the_gradient_of_each_start_is_clipped_alone() -> None:
    # Adam's first step has the size of the rate whatever the gradient; its second shows what the first was clipped to.
    steep, flat = Climb(torch.zeros(1, 1, 2, 1, dtype=DOUBLE)), Climb(torch.zeros(1, 1, 2, 1, dtype=DOUBLE))
    score, small = torch.zeros(1, 2, dtype=DOUBLE), torch.full((1, 1, 2, 1), 0.1, dtype=DOUBLE)
    large = small.clone()
    large[0, 0, 1] = 1e6
    for climb, first in ((steep, large), (flat, small)):
        climb.step(score, first, 0.1, 1.0)
        climb.step(score, small, 0.1, 1.0)
    assert torch.equal(steep.at[:, :, 0], flat.at[:, :, 0])
    capped = Climb(torch.zeros(1, 1, 2, 1, dtype=DOUBLE))
    large[0, 0, 1] = 1.0
    capped.step(score, large, 0.1, 1.0)
    capped.step(score, small, 0.1, 1.0)
    torch.testing.assert_close(steep.at, capped.at)


def test_steps_are_adams() -> None:
    at = torch.randn(3, 2, 4, 1, generator=seeded(), dtype=DOUBLE)
    climb, reference = Climb(at), at.clone().requires_grad_()
    adam = torch.optim.Adam([reference], lr=0.05, maximize=True)
    for seed in range(5):
        slope = torch.randn(3, 2, 4, 1, generator=seeded(seed), dtype=DOUBLE)
        climb.step(torch.zeros(2, 4, dtype=DOUBLE), slope, 0.05, 1e9)
        reference.grad = slope
        adam.step()
    torch.testing.assert_close(climb.at, reference.detach())


def test_unsquash_undoes_squash_away_from_the_bounds() -> None:
    actions = SKEWED.uniform((500,), seeded())
    inner = 0.98 * (actions - SKEWED.middle) + SKEWED.middle
    torch.testing.assert_close(squash(unsquash(inner, SKEWED), SKEWED), inner)
    ends = squash(unsquash(SKEWED.high, SKEWED), SKEWED)
    torch.testing.assert_close(ends, SKEWED.high - 0.01 * SKEWED.width / 2)


@pytest.mark.parametrize("settings", [{"starts": 0}, {"iterations": 0}, {"rate": 0.0}, {"clip_norm": 0.0}, {"shooting": -1}])
def test_settings_without_meaning_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigurationError, match="GradientPlanner wants"):
        GradientPlanner(**settings)
