"""Objectives against their definitions: the law of total variance, CVaR as a maximum, and what reordering may not change."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesdyn.errors import ConfigurationError
from bayesdyn.objectives import CVaR, Expected, Objective, Optimistic, Pessimistic, split_variance

OBJECTIVES: list[Objective] = [
    Expected(),
    Pessimistic(0.7),
    Optimistic(2.0),
    CVaR(0.3),
    CVaR(0.3, over_draws_only=True),
]


def returns_of(n: int, p: int, *batch: int, seed: int = 0) -> torch.Tensor:
    """Return normal returns [n, p, ...] in float64."""
    return torch.randn(n, p, *batch, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_expected_is_the_mean_over_draws_and_particles() -> None:
    returns = returns_of(3, 5, 7)
    torch.testing.assert_close(Expected()(returns), returns.flatten(0, 1).mean(0))


def test_split_is_unbiased_where_the_naive_variance_counts_noise_as_ignorance() -> None:
    """R_jk = θ_j + ε_jk, Var θ = 1, Var ε = 4, n = 5, p = 4: Var_j R̄_j has the mean 2, corrected by w/p it is 1."""
    repeats, n, p = 40_000, 5, 4
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(n, 1, repeats, generator=generator, dtype=torch.float64)
    returns = theta + 2 * torch.randn(n, p, repeats, generator=generator, dtype=torch.float64)
    naive = returns.mean(1).var(0, correction=1)
    split = split_variance(returns)
    corrected = naive - split.aleatoric / p
    # Var of a sample variance of n normals is 2σ⁴/(n - 1): here σ² = 2; w is a mean of n of them with σ² = 4 and p - 1.
    error_naive = math.sqrt(2 * 2**2 / (n - 1) / repeats)
    error_within = math.sqrt(2 * 4**2 / (p - 1) / n / repeats)
    assert abs(naive.mean().item() - 2.0) < 4 * error_naive
    assert abs(split.aleatoric.mean().item() - 4.0) < 4 * error_within
    assert abs(corrected.mean().item() - 1.0) < 4 * (error_naive + error_within / p)
    torch.testing.assert_close(split.epistemic, corrected.clamp_min(0))


def test_split_attributes_what_is_certain_exactly() -> None:
    """Without noise all variance is epistemic; without disagreement none is."""
    theta = torch.tensor([[1.0], [3.0], [8.0]]).expand(3, 4)
    split = split_variance(theta)
    assert (split.epistemic.item(), split.aleatoric.item()) == (13.0, 0.0)
    noise = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])
    split = split_variance(noise)
    assert (split.epistemic.item(), split.aleatoric.item()) == (0.0, 2.0)
    assert split.epistemic_share.item() == 0.0


@pytest.mark.parametrize(("n", "p"), [(1, 1), (1, 4), (4, 1)])
def test_split_at_the_edges(n: int, p: int) -> None:
    """One draw shows no disagreement; one particle shows no noise, and τ² is then the whole variance."""
    returns = returns_of(n, p, 3)
    split = split_variance(returns)
    within = returns.var(1).mean(0) if p > 1 else torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(split.aleatoric, within)
    torch.testing.assert_close(split.epistemic, returns[:, 0].var(0) if n > 1 else torch.zeros(3, dtype=torch.float64))
    assert split.epistemic_share.isfinite().all()


def test_pessimism_and_optimism_are_the_mean_and_kappa_standard_deviations() -> None:
    returns = returns_of(6, 3, 50)
    tau = split_variance(returns).epistemic.sqrt()
    torch.testing.assert_close(Pessimistic(0.7)(returns), returns.mean((0, 1)) - 0.7 * tau)
    torch.testing.assert_close(Optimistic(0.7)(returns), returns.mean((0, 1)) + 0.7 * tau)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_gradients_are_finite_where_the_draws_agree(objective: Objective) -> None:
    """The root of τ² = 0 has no derivative; a planner by gradients must not get NaN from it."""
    returns = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    objective(returns).backward()
    assert returns.grad is not None
    assert returns.grad.isfinite().all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    returns = returns_of(4, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(objective, returns)


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.01, 1.0), st.integers(0, 99))
def test_cvar_is_the_maximum_of_rockafellar_and_uryasev(n: int, p: int, alpha: float, seed: int) -> None:
    """max_v v - E(v - R)⁺/α is attained at a return, so trying them all gives the maximum."""
    returns = returns_of(n, p, seed=seed)
    pool = returns.flatten()
    values = pool - (pool[:, None] - pool).clamp_min(0).mean(1) / alpha
    torch.testing.assert_close(CVaR(alpha)(returns), values.max())


def test_cvar_of_everything_is_the_mean_and_of_little_the_worst() -> None:
    returns = returns_of(5, 3, 4)
    torch.testing.assert_close(CVaR(1.0)(returns), Expected()(returns))
    torch.testing.assert_close(CVaR(1e-3)(returns), returns.flatten(0, 1).amin(0))


def test_cvar_over_draws_sees_risk_from_theta_only() -> None:
    """Noise that averages to zero within each draw does not matter."""
    theta = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1)
    noise = torch.tensor([[-10.0, 10.0]])
    assert CVaR(0.5, over_draws_only=True)(theta + noise).item() == 1.5
    assert CVaR(0.5)(theta + noise).item() == 2.5 - 10.0


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5, math.nan])
def test_cvar_refuses_shares_that_are_none(alpha: float) -> None:
    with pytest.raises(ConfigurationError, match="alpha"):
        CVaR(alpha)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_order_of_draws_and_particles_does_not_matter(objective: Objective) -> None:
    returns = returns_of(5, 4, 6)
    draws, particles = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(objective(returns[draws][:, particles]), objective(returns))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize(("n", "p"), [(1, 1), (1, 3), (3, 1)])
def test_scores_are_per_candidate(objective: Objective, n: int, p: int) -> None:
    """Each candidate is scored as if it were alone, and returns that are all alike score what they are."""
    returns = returns_of(n, p, 2, 3)
    scores = objective(returns)
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[1, 2], objective(returns[:, :, 1, 2]))
    torch.testing.assert_close(objective(torch.full((n, p), 2.5)), torch.tensor(2.5))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("scale", [10.0, 1e-3])
def test_units_of_reward_scale_the_score(objective: Objective, scale: float) -> None:
    returns = returns_of(5, 4, 6)
    torch.testing.assert_close(objective(scale * returns + 3.0), scale * objective(returns) + 3.0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_a_return_that_is_no_number_shows(objective: Objective) -> None:
    """A candidate with NaN scores NaN, never a number that could win; its neighbours keep their scores."""
    returns = returns_of(3, 4, 2)
    clean = objective(returns)
    returns[1, 2, 0] = math.nan
    scores = objective(returns)
    assert scores[0].isnan()
    assert scores[1] == clean[1]
