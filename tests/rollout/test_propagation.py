"""Propagation against closed forms: Kalman's prediction, disagreeing members, Gaussian beliefs with exact moments."""

import math

import pytest
import torch
from torch import Tensor

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError
from bayesdyn.rollout import Noise, Propagation

PROPAGATIONS: list[Propagation] = [bd.TSInf(), bd.TS1(), bd.Mean(), bd.MomentMatching(), bd.MomentMatching(full_covariance=False)]

MATRIX = torch.tensor([[0.9, 0.2], [-0.3, 0.8]], dtype=torch.float64)
GAIN = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
NOISE_VAR = torch.tensor([0.04, 0.01], dtype=torch.float64)


def no_reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    """Nothing is wanted."""
    return torch.zeros_like(after[..., 0])


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def linear(n: int = 1) -> bd.PlainDynamics:
    """Return n equal draws of s' = Fs + Ga + ε."""

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        mean = state @ MATRIX.mT + action @ GAIN.mT
        mean = mean.expand(n, *mean.shape[1:])
        return bd.Gaussian(mean, NOISE_VAR.expand(mean.shape))

    return bd.PlainDynamics(step, n)


def kalman(start: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of s_T: m ← Fm + Ga, P ← FPFᵀ + Q."""
    mean, covariance = start, torch.zeros(2, 2, dtype=torch.float64)
    for action in actions:
        mean = MATRIX @ mean + GAIN @ action
        covariance = MATRIX @ covariance @ MATRIX.mT + NOISE_VAR.diag()
    return mean, covariance


def members(*steps: float) -> bd.PlainDynamics:
    """Return draws s' = s + step without noise, one per step."""
    values = torch.tensor(steps, dtype=torch.float64)

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        mean = state + values.reshape(-1, *(1,) * (state.dim() - 1))
        return bd.Gaussian(mean, torch.zeros_like(mean))

    return bd.PlainDynamics(step, len(steps))


def final_states(dynamics: bd.PlainDynamics, horizon: int, propagation: Propagation, particles: int, seed: int = 0) -> Tensor:
    """Return s_T [n, p, 1] from s_0 = 0."""
    actions, start = torch.zeros(horizon, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    trajectory = bd.rollout(
        dynamics, start, actions, no_reward, particles=particles, propagation=propagation, generator=seeded(seed)
    )
    return trajectory.states[-1]


def population_covariance(states: Tensor) -> Tensor:
    """Return the covariance [..., S, S] of the n·p particles of [n, p, ..., S]."""
    flat = states.flatten(0, 1)
    deviation = flat - flat.mean(0)
    return torch.einsum("i...a,i...b->...ab", deviation, deviation) / len(flat)


@pytest.mark.parametrize("propagation", [bd.TSInf(), bd.TS1()], ids=repr)
def test_samples_have_the_moments_of_a_kalman_prediction(propagation: Propagation) -> None:
    """With θ known, s_T is Gaussian: std of a sample mean √(P_ii/M), of a sample covariance √((P_ii P_jj + P_ij²)/M)."""
    start = torch.tensor([1.0, -1.0], dtype=torch.float64)
    actions = torch.randn(10, 1, generator=seeded(), dtype=torch.float64)
    trajectory = bd.rollout(linear(5), start, actions, no_reward, particles=4000, propagation=propagation, generator=seeded(1))
    mean, covariance = kalman(start, actions)
    variance, count = covariance.diagonal(), 5 * 4000
    sample = trajectory.states[-1]
    assert ((sample.mean((0, 1)) - mean).abs() < 4 * (variance / count).sqrt()).all()
    error = ((variance[:, None] * variance + covariance.square()) / count).sqrt()
    assert ((population_covariance(sample) - covariance).abs() < 4 * error).all()


def test_mean_follows_the_mean_model_exactly() -> None:
    """One trajectory, no noise: Kalman's mean; over draws, the mean of their means."""
    start = torch.tensor([1.0, -1.0], dtype=torch.float64)
    actions = torch.randn(10, 1, generator=seeded(), dtype=torch.float64)
    trajectory = bd.rollout(linear(3), start, actions, no_reward, particles=7, propagation=bd.Mean())
    assert trajectory.states.shape == (11, 1, 1, 2)
    torch.testing.assert_close(trajectory.states[-1, 0, 0], kalman(start, actions)[0])
    assert final_states(members(-1.0, 0.5, 2.0), 6, bd.Mean(), 1).item() == pytest.approx(6 * 0.5)


def test_disagreement_grows_with_t_when_theta_stays_and_with_its_root_when_redrawn() -> None:
    """Two members s' = s ± 1: Var s_T = T² under TSInf, exactly.

    Under TS1 each step deals half the M slots +1, so a step has variance 1 and steps are independent: over M trajectories the mean
    of s_T is 0 exactly and Var s_T = T with standard error T√(2/M) (s_T nearly normal).
    """
    horizon, particles = 30, 2000
    fixed = final_states(members(-1.0, 1.0), horizon, bd.TSInf(), particles)
    assert fixed.square().eq(horizon**2).all()
    redrawn = final_states(members(-1.0, 1.0), horizon, bd.TS1(), particles)
    assert abs(redrawn.mean().item()) < 1e-9
    assert abs(redrawn.var(correction=0).item() - horizon) < 4 * horizon * math.sqrt(2 / (2 * particles))


def test_moment_matching_adds_the_variances_of_disagreeing_members() -> None:
    """θ is mixed at each step, so the belief's variance is exactly T, with mean 0."""
    belief = final_states(members(-1.0, 1.0), 30, bd.MomentMatching(), 8)
    assert abs(belief.mean().item()) < 1e-10
    assert belief.var(correction=0).item() == pytest.approx(30.0, rel=1e-9)


@pytest.mark.parametrize(("draws", "particles"), [(2, 3), (3, 5), (7, 1)])
def test_ts1_moves_each_particle_with_the_draw_that_is_dealt(draws: int, particles: int) -> None:
    """At each step every draw moves exactly p trajectories, whoever they are."""
    steps = [10.0**k for k in range(draws)]
    dynamics = members(*steps)
    actions, start = torch.zeros(4, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    states = bd.rollout(dynamics, start, actions, no_reward, particles=particles, propagation=bd.TS1(), generator=seeded()).states
    for change in states.diff(dim=0):
        moved = change.flatten().round().sort().values
        assert moved.equal(torch.tensor(steps, dtype=torch.float64).repeat_interleave(particles))


@pytest.mark.parametrize("propagation", PROPAGATIONS, ids=repr)
def test_a_policy_acts_on_the_state_of_its_own_trajectory(propagation: Propagation) -> None:
    """s' = a + δ_j with a = s: an action that is dealt to another trajectory would leave s' ≠ s + δ."""

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        assert action.shape == state.shape
        assert action.equal(2 * state)
        mean = action - state + torch.tensor([-1.0, 0.0, 3.0]).reshape(-1, *(1,) * (state.dim() - 1))
        return bd.Gaussian(mean, torch.full_like(mean, 0.1))

    trajectory = bd.rollout(
        bd.PlainDynamics(step, 3), torch.zeros(4, 1), lambda s: 2 * s, no_reward, horizon=5, particles=3, propagation=propagation
    )
    assert trajectory.actions.equal(2 * trajectory.states[:-1])


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_refitted_particles_have_exactly_the_moments_of_the_belief(full: bool, size: int) -> None:
    """Mean E_i μ_i and covariance Cov_i μ_i + diag(E_i var_i), to 1e-10, whatever the units of the coordinates."""
    n, p, batch = 5, 3, (2, 7)
    units = torch.logspace(-6, 6, size, dtype=torch.float64)
    mean = torch.randn(n, p, *batch, size, generator=seeded(), dtype=torch.float64) @ torch.randn(
        size, size, generator=seeded(1), dtype=torch.float64
    )
    var = torch.rand(n, p, *batch, size, generator=seeded(2), dtype=torch.float64)
    moved = bd.Gaussian(mean * units, var * units.square())
    propagation = bd.MomentMatching(full)
    noise = propagation.draw_noise(1, n, p, size, seeded(3), torch.float64)
    step = propagation.step(bd.PlainDynamics(lambda s, a: moved, n), moved.mean, moved.mean, noise, 0)
    carried = step.carried / units
    torch.testing.assert_close(carried.mean((0, 1)), mean.mean((0, 1)), atol=1e-10, rtol=0)
    want = torch.diag_embed(var.mean((0, 1)))
    spread = population_covariance(mean)
    want = want + (spread if full else torch.diag_embed(spread.diagonal(dim1=-2, dim2=-1)))
    got = population_covariance(carried)
    if not full:
        # Between coordinates z itself is white, so a diagonal belief has exactly no covariance either.
        assert (got - torch.diag_embed(got.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-10
    torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("full", [True, False])
def test_refit_of_known_coordinates_is_finite_and_exact(full: bool) -> None:
    """Coordinates without variance, and coordinates that are copies of others: singular, not broken; gradients too."""
    generator = seeded()
    free = torch.randn(4, 5, 3, 1, generator=generator, dtype=torch.float64, requires_grad=True)

    def particles(values: Tensor) -> Tensor:
        mean = torch.cat([values, torch.full_like(values, 3.0), 2 * values, torch.zeros_like(values)], -1)
        propagation = bd.MomentMatching(full)
        noise = propagation.draw_noise(1, 4, 5, 4, seeded(1), torch.float64)
        dynamics = bd.PlainDynamics(lambda s, a: bd.Gaussian(mean, torch.zeros_like(mean)), 4)
        return propagation.step(dynamics, mean, mean, noise, 0).carried

    carried = particles(free)
    assert carried[..., 1].eq(3.0).all()
    assert carried[..., 3].eq(0.0).all()
    torch.testing.assert_close(carried[..., 0].var((0, 1), correction=0), free[..., 0].var((0, 1), correction=0))
    if full:
        # The copy is a copy up to the jitter, √1e-12 of its standard deviation.
        assert (carried[..., 2] - 2 * carried[..., 0]).abs().max() < 1e-4
    (gradient,) = torch.autograd.grad(carried.square().sum(), free)
    assert gradient.isfinite().all()


def test_moment_matching_is_the_kalman_prediction_on_a_linear_system() -> None:
    """E and Cov of an affine map of exact moments are exact, so the belief follows Kalman at every step."""
    start = torch.tensor([1.0, -1.0], dtype=torch.float64)
    actions = torch.randn(12, 1, generator=seeded(), dtype=torch.float64)
    trajectory = bd.rollout(linear(3), start, actions, no_reward, particles=4, propagation=bd.MomentMatching())
    for t in (1, 5, 12):
        mean, covariance = kalman(start, actions[:t])
        torch.testing.assert_close(trajectory.states[t].mean((0, 1)), mean, atol=1e-10, rtol=0)
        torch.testing.assert_close(population_covariance(trajectory.states[t]), covariance, atol=1e-10, rtol=1e-10)


def test_reward_under_moment_matching_sees_the_belief_and_its_own_successor() -> None:
    """E s'² = m² + P of the linear system, within 4 standard errors of the process noise that the reward sees."""
    start = torch.tensor([1.0, -1.0], dtype=torch.float64)
    actions = torch.zeros(2, 1, dtype=torch.float64)
    trajectory = bd.rollout(
        linear(100),
        start,
        actions,
        lambda s, a, after: after[..., 0],
        particles=100,
        propagation=bd.MomentMatching(),
        generator=seeded(),
    )
    mean, covariance = kalman(start, actions)
    gained = trajectory.rewards[1]
    assert abs(gained.mean().item() - mean[0].item()) < 4 * math.sqrt(NOISE_VAR[0].item() / 10_000)
    assert abs(gained.var().item() - covariance[0, 0].item()) < 4 * covariance[0, 0].item() * math.sqrt(2 / 10_000)


def test_a_candidate_that_breaks_down_leaves_the_others_whole() -> None:
    """One infinite candidate among many must not spoil the refit of its neighbours."""
    actions = torch.zeros(3, 4, 1, dtype=torch.float64)
    actions[1, 2] = math.inf
    noise = bd.MomentMatching().draw_noise(3, 3, 2, 2, seeded(), torch.float64)
    start = torch.ones(2, dtype=torch.float64)
    together = bd.rollout(linear(3), start, actions, no_reward, propagation=bd.MomentMatching(), noise=noise)
    alone = bd.rollout(linear(3), start, actions[:, [0, 1, 3]], no_reward, propagation=bd.MomentMatching(), noise=noise)
    torch.testing.assert_close(together.states[:, :, :, [0, 1, 3]], alone.states)
    assert together.finite[..., [0, 1, 3]].all()
    assert not together.finite[..., 2].any()


@pytest.mark.parametrize(("n", "p", "size"), [(1, 1, 1), (2, 2, 4), (5, 1, 6)])
def test_moment_matching_wants_more_particles_than_coordinates(n: int, p: int, size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{n} draws x {p} particles for {size} coordinates"):
        bd.MomentMatching().draw_noise(3, n, p, size, None, torch.float32)
    assert bd.MomentMatching().draw_noise(3, 1, size + 1, size, None, torch.float32).refit is not None


@pytest.mark.parametrize("propagation", [bd.TS1(), bd.MomentMatching()], ids=repr)
def test_noise_of_another_strategy_is_refused(propagation: Propagation) -> None:
    noise = bd.TSInf().draw_noise(3, 3, 2, 2, seeded(), torch.float64)
    with pytest.raises(ConfigurationError, match="draw_noise"):
        bd.rollout(
            linear(3), torch.zeros(2, dtype=torch.float64), torch.zeros(3, 1), no_reward, propagation=propagation, noise=noise
        )


@pytest.mark.parametrize("propagation", PROPAGATIONS, ids=repr)
def test_random_numbers_come_from_the_generator_alone(propagation: Propagation) -> None:
    """The same seed gives the same noise, no generator gives new noise, and torch's global state stays as it is."""

    def numbers(noise: Noise) -> list[Tensor]:
        return [part for part in (noise.normal, noise.refit, noise.slots) if part is not None]

    before = torch.get_rng_state()
    one, two = (numbers(propagation.draw_noise(4, 3, 5, 2, seeded(7), torch.float32)) for _ in range(2))
    fresh = numbers(propagation.draw_noise(4, 3, 5, 2, None, torch.float32))
    assert all(a.equal(b) for a, b in zip(one, two, strict=True))
    assert not any(a.equal(b) for a, b in zip(one, fresh, strict=True))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("propagation", PROPAGATIONS, ids=repr)
def test_states_keep_their_dtype(propagation: Propagation, dtype: torch.dtype) -> None:
    """Noise drawn in the other dtype is cast to that of the states."""
    other = torch.float64 if dtype == torch.float32 else torch.float32

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        assert state.dtype == dtype
        return bd.Gaussian((state + action).expand(3, *state.shape[1:]), torch.full_like(state, 0.1))

    noise = propagation.draw_noise(4, 3, 2, 1, seeded(), other)
    trajectory = bd.rollout(
        bd.PlainDynamics(step, 3), torch.zeros(1, dtype=dtype), torch.ones(4, 1, dtype=dtype), no_reward,
        propagation=propagation, noise=noise,
    )  # fmt: skip
    assert {t.dtype for t in (trajectory.states, trajectory.rewards, trajectory.returns)} == {dtype}


def test_returns_split_into_the_variance_of_theta_and_of_noise() -> None:
    """s' = s + θ_j + ε, θ ~ N(0, 1), ε ~ N(0, 0.25), R = s_T: epistemic T²·1, aleatoric T·0.25, within 4 standard errors."""
    n, p, horizon = 2000, 4, 6
    theta = torch.randn(n, generator=seeded(), dtype=torch.float64)

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        mean = state + theta.reshape(-1, *(1,) * (state.dim() - 1))
        return bd.Gaussian(mean, torch.full_like(mean, 0.25))

    start, actions = torch.zeros(1, dtype=torch.float64), torch.zeros(horizon, 1, dtype=torch.float64)
    last = bd.rollout(bd.PlainDynamics(step, n), start, actions, no_reward, particles=p, generator=seeded(1)).states[-1, ..., 0]
    split = bd.objectives.split_variance(last)
    between = horizon**2 + horizon * 0.25 / p
    assert abs(split.epistemic.item() - horizon**2) < 4 * between * math.sqrt(2 / (n - 1))
    assert abs(split.aleatoric.item() - horizon * 0.25) < 4 * horizon * 0.25 * math.sqrt(2 / (n * (p - 1)))


def test_a_plain_callable_has_no_precision() -> None:
    with pytest.raises(ConfigurationError, match=r"leave precision=torch.bfloat16 out"):
        bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s))).sample(2, precision=torch.bfloat16)
