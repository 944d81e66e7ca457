"""Objectives against their definitions: the law of total variance, CVaR as a maximum, and what reordering may not change."""

import itertools
import math
import re
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError, ShapeError, UnknownNameError
from bayesdyn.objectives import (
    NAMES,
    ChanceConstraint,
    CVaR,
    Expected,
    Objective,
    Optimistic,
    Pessimistic,
    objective_of,
    split_variance,
)


def named(objective: Objective) -> str:
    """Return what tells objectives apart, without addresses, which differ between the processes of a test run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(objective))


OBJECTIVES: list[Objective] = [
    Expected(),
    Pessimistic(0.7),
    Optimistic(2.0),
    CVaR(0.3),
    CVaR(0.3, over_draws_only=True),
    ChanceConstraint(lambda s, a: s[..., 0], 0.0),  # by its returns alone it is the mean
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


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_gradients_are_finite_where_the_draws_agree(objective: Objective) -> None:
    """The root of τ² = 0 has no derivative; a planner by gradients must not get NaN from it."""
    returns = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    objective(returns).backward()
    assert returns.grad is not None
    assert returns.grad.isfinite().all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
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


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_order_of_draws_and_particles_does_not_matter(objective: Objective) -> None:
    returns = returns_of(5, 4, 6)
    draws, particles = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(objective(returns[draws][:, particles]), objective(returns))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
@pytest.mark.parametrize(("n", "p"), [(1, 1), (1, 3), (3, 1)])
def test_scores_are_per_candidate(objective: Objective, n: int, p: int) -> None:
    """Each candidate is scored as if it were alone, and returns that are all alike score what they are."""
    returns = returns_of(n, p, 2, 3)
    scores = objective(returns)
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[1, 2], objective(returns[:, :, 1, 2]))
    torch.testing.assert_close(objective(torch.full((n, p), 2.5)), torch.tensor(2.5))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
@pytest.mark.parametrize("scale", [10.0, 1e-3])
def test_units_of_reward_scale_the_score(objective: Objective, scale: float) -> None:
    returns = returns_of(5, 4, 6)
    torch.testing.assert_close(objective(scale * returns + 3.0), scale * objective(returns) + 3.0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_a_return_that_is_no_number_shows(objective: Objective) -> None:
    """A candidate with NaN scores NaN, never a number that could win; its neighbours keep their scores."""
    returns = returns_of(3, 4, 2)
    clean = objective(returns)
    returns[1, 2, 0] = math.nan
    scores = objective(returns)
    assert scores[0].isnan()
    assert scores[1] == clean[1]


def trajectory_of(returns: torch.Tensor, excess: torch.Tensor, alive: torch.Tensor | None = None) -> bd.Trajectory:
    """Return a trajectory with these returns [n, p, c], whose state at t is excess [T, n, p, c], the constraint's g(s, a) = s."""
    steps = len(excess)
    path = (*excess.unsqueeze(-1).unbind(0), torch.zeros_like(excess[0]).unsqueeze(-1))
    alive = torch.ones(steps + 1, *returns.shape, dtype=torch.bool) if alive is None else alive
    rewards = torch.cat([returns[None], torch.zeros(steps - 1, *returns.shape, dtype=returns.dtype)])
    return bd.Trajectory(path, torch.zeros(steps, returns.shape[2], 1), rewards, alive, torch.zeros_like(returns))


def below_zero(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return state[..., 0]


def constrained(share: float, violation: Callable[..., torch.Tensor] = below_zero) -> ChanceConstraint:
    return ChanceConstraint(violation, share)


def scored(objective: ChanceConstraint, trajectory: bd.Trajectory) -> torch.Tensor:
    """Return the scores, without the warning about few rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return objective.score(trajectory)


def with_violations(counts: list[int], means: list[float], rows: int = 10, dtype: torch.dtype = torch.float32) -> bd.Trajectory:
    """Return candidates with these numbers of violating trajectories out of `rows` and these mean returns."""
    excess = torch.full((3, rows, 1, len(counts)), -1.0, dtype=dtype)
    for candidate, count in enumerate(counts):
        excess[torch.arange(count) % 3, torch.arange(count), 0, candidate] = 1.0
    return trajectory_of(torch.tensor(means, dtype=dtype).expand(rows, 1, -1), excess)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chance_constraint_orders_feasible_ones_first_then_by_violations_then_by_return(dtype: torch.dtype) -> None:
    """All pairs of candidates compare as the tuples (feasible, -violations if not, J) do, over twelve decades of returns."""
    means = [0.0, 1e-3, -1e-3, 1.0, -1.0, 25.0, 26.0, -1498.0, 1e5, -1e5, 1e6 + 1, -1e6, -2e6, 1e9, -1e9]
    candidates = list(itertools.product(range(11), means))
    trajectory = with_violations([k for k, _ in candidates], [j for _, j in candidates], dtype=dtype)
    objective = constrained(0.2)
    scores = scored(objective, trajectory)
    feasible = objective.feasible(trajectory)
    assert feasible.tolist() == [k <= 2 for k, _ in candidates]
    key = [(k <= 2, 0 if k <= 2 else -k, j) for k, j in candidates]
    order = sorted(range(len(key)), key=key.__getitem__)
    for one, other in itertools.pairwise(order):
        if key[one] == key[other]:
            assert scores[one] == scores[other]
        else:
            assert scores[one] < scores[other], (candidates[one], candidates[other])
    assert scores.isfinite().all()


def test_feasible_scores_are_the_returns_to_the_last_bit() -> None:
    means = torch.linspace(-999_999, 1e7, 1000).tolist()
    trajectory = with_violations([1] * 1000, means)
    assert scored(constrained(0.1), trajectory).equal(trajectory.returns.mean((0, 1)))


@pytest.mark.parametrize(("dtype", "resolution"), [(torch.float32, 3e-5), (torch.float64, 6e-14)])
@pytest.mark.parametrize("rows", [10, 299])
def test_infeasible_scores_keep_the_resolution_that_is_stated(dtype: torch.dtype, resolution: float, rows: int) -> None:
    """Returns that differ by 3·10⁻⁵ (k + 1) max(1, |J|) are told apart; in the last band, where k = n·p."""
    least = 2 * resolution * (rows + 1)
    for size in (1.0, 20.0, 1500.0):
        means = [size, size * (1 + least), -size, -size * (1 + least), 0.0, least]
        scores = scored(constrained(0.05), with_violations([rows] * 6, means, rows, dtype))
        assert scores[0] < scores[1]
        assert scores[2] > scores[3]
        assert scores[4] < scores[5]


def test_scores_do_not_depend_on_the_other_candidates() -> None:
    """Candidates are scored in chunks."""
    returns, excess = returns_of(4, 5, 12), returns_of(20, 5, 12, seed=1).reshape(5, 4, 5, 12) - 1.5
    objective = constrained(0.3)
    together = scored(objective, trajectory_of(returns, excess))
    assert 0 < int(objective.feasible(trajectory_of(returns, excess)).sum()) < 12
    alone = torch.cat([scored(objective, trajectory_of(returns[..., [i]], excess[..., [i]])) for i in range(12)])
    torch.testing.assert_close(together, alone, atol=1e-14, rtol=1e-14)  # sums of other strides round otherwise


def test_violations_count_once_per_trajectory_and_only_while_alive() -> None:
    """max_t g(s_t, a_t) > 0 over steps that count; 0 itself is allowed, NaN is not."""
    excess = torch.full((4, 6, 1, 1), -1.0)
    excess[:, 0] = 1.0  # at every step: one violation
    excess[3, 1] = 1.0  # at the last step
    excess[2, 2] = 1.0  # after its end
    excess[1, 3] = 1.0  # in the step that ends it
    excess[1, 4] = math.nan
    excess[:, 5] = 0.0
    alive = torch.ones(5, 6, 1, 1, dtype=torch.bool)
    alive[2:, 2:4] = False
    trajectory = trajectory_of(torch.zeros(6, 1, 1), excess, alive)
    assert constrained(0.5).violations(trajectory).tolist() == [4]
    assert constrained(4 / 6).feasible(trajectory).tolist() == [True]
    assert constrained(3.9 / 6).feasible(trajectory).tolist() == [False]


def test_the_final_state_takes_no_action_and_is_not_asked() -> None:
    trajectory = trajectory_of(torch.zeros(1, 1, 1), torch.full((2, 1, 1, 1), -1.0))
    assert constrained(0.0, lambda s, a: s[..., 0] + 0.5).violations(trajectory).tolist() == [0]  # s_T = 0 would violate


@pytest.mark.parametrize(("share", "rows"), [(0.1, 29), (0.05, 59), (0.01, 299)])
def test_rows_that_certify_a_share(share: float, rows: int) -> None:
    """(1 - δ)^N <= 0.05 for the first time; fewer rows are told so, as many are not."""
    assert (1 - share) ** rows <= 0.05 < (1 - share) ** (rows - 1)
    assert constrained(share).rows_wanted == rows
    constrained(share).score(with_violations([0], [0.0], rows))
    with pytest.warns(UserWarning, match=f"{rows - 1} trajectories .* only {rows} or more"):
        constrained(share).score(with_violations([0], [0.0], rows - 1))


@pytest.mark.parametrize("tenths", range(10))
def test_shares_are_compared_as_the_counts_that_they_mean(tenths: int) -> None:
    """3 of 10 is a share of 0.3, however 0.3·10 rounds."""
    feasible = constrained(tenths / 10).feasible(with_violations(list(range(11)), [0.0] * 11))
    assert feasible.tolist() == [k <= tenths for k in range(11)]


def test_chance_constraint_sees_states_and_actions_of_a_rollout() -> None:
    """x' = x + θa: a step is violating when |a| > 1 or where the last one led; draws θ = 0.5, 1, 2 disagree."""
    theta = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1, 1, 1)
    drift = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + theta * a, torch.zeros_like(s + theta * a)), n=3)
    actions = torch.tensor([0.4, 0.9, 1.5, -0.9]).reshape(1, 1, 4, 1).repeat(3, 2, 1, 1)
    imagined = bd.rollout(drift, torch.zeros(2, 1, 1), actions, lambda s, a, s2: s2[..., 0], particles=2)
    fast = constrained(0.0, lambda s, a: a[..., 0].abs() - 1)
    assert fast.violations(imagined).tolist() == [[0, 0, 6, 0]] * 2
    # before the last action x = 2θa: 0.9 leads past 1.7 for θ = 1 and 2, 0.4 for none
    far = constrained(0.4, lambda s, a: s[..., 0] - 1.7)
    assert far.violations(imagined).tolist() == [[0, 4, 4, 0]] * 2
    assert far.feasible(imagined).tolist() == [[True, False, False, True]] * 2
    policy = bd.rollout(drift, torch.zeros(1, 1, 1), lambda s: 0.9 + 0 * s, lambda s, a, s2: s2[..., 0], horizon=3)
    scores = scored(constrained(0.0, lambda s, a: a[..., 0] - 1), policy)
    torch.testing.assert_close(scores, policy.returns.mean((0, 1)))
    with pytest.raises(ShapeError, match="one number per state"):
        constrained(0.0, lambda s, a: s).score(imagined)


def test_without_a_constraint_everything_is_feasible_and_the_score_is_that_of_the_returns() -> None:
    trajectory = with_violations([0, 5, 10], [1.0, 2.0, 3.0])
    for objective in (Expected(), Pessimistic(), CVaR(0.2)):
        assert objective.feasible(trajectory).tolist() == [True] * 3
        assert objective.score(trajectory).equal(objective(trajectory.returns))


def test_chance_constraint_has_finite_gradients_everywhere() -> None:
    """Feasible, infeasible, beyond the compressed end, and at 0."""
    means = torch.tensor([0.0, 5.0, -3e6, 0.0, -1e9], requires_grad=True)
    base = with_violations([0, 0, 0, 9, 9], [0.0] * 5)
    trajectory = trajectory_of(means.expand(10, 1, -1), torch.cat([s[..., 0][None] for s in base.path[:-1]]))
    scored(constrained(0.1), trajectory).sum().backward()
    assert means.grad is not None
    assert means.grad.isfinite().all()
    assert (means.grad > 0).all()
    torch.testing.assert_close(means.grad[:2], torch.ones(2))


def test_a_return_that_is_no_number_is_no_score_under_a_constraint() -> None:
    for count in (0, 9):
        assert scored(constrained(0.1), with_violations([count], [math.nan])).isnan().all()


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_chance_constraint_refuses_shares_that_are_none(share: float) -> None:
    with pytest.raises(ConfigurationError, match="share"):
        constrained(share)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_for_the_defaults_of_its_class(name: str) -> None:
    """In the table as in the agent, which keeps the objective itself, so that a run says the same for both spellings."""
    objective = objective_of(name)
    assert type(objective).__name__.lower() == name
    assert objective == NAMES[name]()
    drift = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    assert bd.MPC(drift, bd.planners.CEM(horizon=2), lambda s, a, s2: s2[..., 0], objective=name).objective == objective


def test_an_objective_stays_what_it_is_and_an_unknown_name_is_told() -> None:
    """The message has the nearest name and all others."""
    careful = Pessimistic(0.7)
    assert objective_of(careful) is careful
    with pytest.raises(UnknownNameError, match=r"no objective 'optimist'; did you mean 'optimistic'\? Known: expected, pess"):
        objective_of("optimist")
