"""Rollouts: common random numbers, every draw for every candidate, terminations, gradients, shapes and broken input."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.rollout import Propagation

PROPAGATIONS: list[Propagation] = [bd.TSInf(), bd.TS1(), bd.Mean(), bd.MomentMatching(), bd.MomentMatching(full_covariance=False)]
S, A = 2, 1


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def pendulums(n: int, dtype: torch.dtype = torch.float64) -> bd.PlainDynamics:
    """Return n damped pendulums of different gravity, with noise."""
    gravity = torch.linspace(0.5, 1.5, n, dtype=dtype)

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        angle, speed = state.unbind(-1)
        pull = gravity.reshape(-1, *(1,) * (angle.dim() - 1)) * angle.sin()
        mean = torch.stack(torch.broadcast_tensors(angle + 0.1 * speed, 0.99 * speed - 0.1 * pull + action[..., 0]), -1)
        return bd.Gaussian(mean, 0.01 + 0.01 * mean.square())

    return bd.PlainDynamics(step, n)


def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    """Hang still at angle 1."""
    return -(after[..., 0] - 1.0).square() - 0.1 * action[..., 0].square()


def drift(state: Tensor, action: Tensor) -> bd.Gaussian:
    """s' = s + a."""
    return bd.Gaussian(state + action, torch.zeros_like(state))


def position(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    """The new first coordinate."""
    return after[..., 0]


@pytest.mark.parametrize("propagation", PROPAGATIONS, ids=repr)
@pytest.mark.parametrize(("n", "p", "batch", "candidates"), [(3, 5, 7, 11), (5, 1, 1, 3), (3, 2, 2, 1)])
def test_candidates_meet_the_same_random_numbers(propagation: Propagation, n: int, p: int, batch: int, candidates: int) -> None:
    """A candidate's returns are its own: the same alone, in another place, or beside a copy of itself."""
    actions = 0.3 * torch.randn(6, batch, candidates, A, generator=seeded(), dtype=torch.float64)
    start = torch.randn(batch, 1, S, generator=seeded(1), dtype=torch.float64)
    noise = propagation.draw_noise(6, n, p, S, seeded(2), torch.float64)

    def returns(actions: Tensor, start: Tensor) -> Tensor:
        return bd.rollout(pendulums(n), start, actions, reward, particles=p, propagation=propagation, noise=noise).returns

    together = returns(actions, start)
    shape = (1, 1) if isinstance(propagation, bd.Mean) else (n, p)
    assert together.shape == (*shape, batch, candidates)
    order = torch.randperm(candidates, generator=seeded(3))
    torch.testing.assert_close(returns(actions[:, :, order], start), together[..., order], rtol=1e-12, atol=1e-12)
    alone = returns(actions[:, -1, 0], start[-1, 0])
    torch.testing.assert_close(alone, together[:, :, -1, 0], rtol=1e-12, atol=1e-12)
    doubled = returns(torch.cat([actions, actions], 2), start)
    # Not bit for bit: a sine at the end of a vector register may round differently.
    torch.testing.assert_close(doubled[..., :candidates], doubled[..., candidates:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("propagation", [bd.TSInf(), bd.TS1()], ids=repr)
@pytest.mark.parametrize(("n", "p", "candidates"), [(3, 5, 7), (7, 3, 5), (5, 1, 2), (1, 4, 3)])
def test_every_candidate_meets_every_draw_equally_often(propagation: Propagation, n: int, p: int, candidates: int) -> None:
    """At each step, each candidate is moved by each draw exactly p times."""
    labels = torch.arange(1.0, n + 1)

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        mean = labels.reshape(-1, *(1,) * (state.dim() - 1)) + 0 * (state + action)
        return bd.Gaussian(mean, torch.zeros_like(mean))

    actions = torch.zeros(4, candidates, 1)
    states = bd.rollout(
        bd.PlainDynamics(step, n), torch.zeros(1), actions, position, particles=p, propagation=propagation, generator=seeded()
    ).states
    for met in states[1:].squeeze(-1).flatten(1, 2).unbind(0):
        for candidate in range(candidates):
            assert Counter(met[:, candidate].tolist()) == {float(label): p for label in labels}


def test_one_draw_per_trajectory() -> None:
    """Under TSInf trajectory (j, k) is moved by draw j at every step."""

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        mean = torch.arange(5.0).reshape(-1, *(1,) * (state.dim() - 1)) + 0 * (state + action)
        return bd.Gaussian(mean, torch.zeros_like(mean))

    states = bd.rollout(bd.PlainDynamics(step, 5), torch.zeros(1), torch.zeros(6, 3, 1), position, particles=2).states
    assert states[1:].eq(torch.arange(5.0).reshape(1, 5, 1, 1, 1)).all()


@pytest.mark.parametrize("propagation", PROPAGATIONS, ids=repr)
def test_the_first_step_is_evaluated_once_for_all_particles(propagation: Propagation) -> None:
    """Rows that the dynamics see, of [n, p, c]: c at t = 0 (each draw answers them), n·p·c later; one trajectory for the mean."""
    n, p, c, rows = 5, 4, 3, []
    inner = pendulums(n)

    def step(state: Tensor, action: Tensor) -> bd.Gaussian:
        rows.append(math.prod(torch.broadcast_shapes(state.shape[:-1], action.shape[:-1])))
        return inner(state, action)

    start = torch.zeros(S, dtype=torch.float64)
    actions = torch.zeros(3, c, A, dtype=torch.float64)
    bd.rollout(bd.PlainDynamics(step, n), start, actions, reward, particles=p, propagation=propagation)
    later = c if isinstance(propagation, bd.Mean) else n * p * c
    assert rows == [c, later, later]


BROADCASTS: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
    ((), (), ()),
    ((), (7,), (7,)),
    ((7,), (), (7,)),
    ((3, 1), (3, 7), (3, 7)),
    ((3, 1), (7,), (3, 7)),
    ((2, 1, 1), (3, 5), (2, 3, 5)),
]


@pytest.mark.parametrize(("start", "actions", "batch"), BROADCASTS)
def test_start_and_actions_broadcast(start: tuple[int, ...], actions: tuple[int, ...], batch: tuple[int, ...]) -> None:
    """Reward, dynamics and termination see equal leading axes; the trajectory has the shapes that its docstring says."""

    def seen(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        assert state.shape[:-1] == action.shape[:-1] == after.shape[:-1] == (3, 2, *batch)
        return after[..., 0]

    sequence = torch.rand(4, *actions, A, dtype=torch.float64)
    trajectory = bd.rollout(
        pendulums(3), torch.zeros(*start, S, dtype=torch.float64), sequence, seen, particles=2,
        termination=lambda s, a, after: seen(s, a, after) > 1e9,
    )  # fmt: skip
    assert trajectory.states.shape == (5, 3, 2, *batch, S)
    assert trajectory.rewards.shape == (4, 3, 2, *batch)
    assert trajectory.alive.shape == (5, 3, 2, *batch)
    assert trajectory.returns.shape == trajectory.finite.shape == trajectory.terminal.shape == (3, 2, *batch)
    assert trajectory.actions.equal(sequence)


def test_states_and_rewards_belong_to_their_steps() -> None:
    """actions[t] leads from states[t] to states[t+1], and rewards[t] is r(s_t, a_t, s_{t+1})."""
    actions = torch.randn(6, 4, A, generator=seeded(), dtype=torch.float64)
    trajectory = bd.rollout(pendulums(3), torch.ones(S, dtype=torch.float64), actions, reward, particles=2, generator=seeded(1))
    states = trajectory.states
    assert states[0].eq(1.0).all()
    for t in range(6):
        action = actions[t].expand(3, 2, 4, A)
        torch.testing.assert_close(trajectory.rewards[t], reward(states[t], action, states[t + 1]))
    torch.testing.assert_close(trajectory.returns, trajectory.rewards.sum(0))


def test_a_policy_acts_as_the_actions_that_it_takes() -> None:
    """Rolling out under a policy, or under the actions that it took, is the same trajectory."""
    weight = torch.tensor([[0.3], [-0.2]], dtype=torch.float64)
    noise = bd.TSInf().draw_noise(5, 1, 1, S, seeded(), torch.float64)
    start = torch.randn(4, S, generator=seeded(1), dtype=torch.float64)
    closed = bd.rollout(pendulums(1), start, lambda s: s @ weight, reward, horizon=5, noise=noise)
    opened = bd.rollout(pendulums(1), start, closed.actions[:, 0, 0], reward, noise=noise)
    assert closed.actions.shape == (5, 1, 1, 4, A)
    torch.testing.assert_close(closed.states, opened.states)
    torch.testing.assert_close(closed.returns, opened.returns)


def above(limit: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """End where the new state is above the limit."""
    return lambda state, action, after: after[..., 0] > limit


def test_the_terminating_step_counts_and_later_ones_do_not() -> None:
    """Starting at 0 with steps of 1 and the end above 2.5: rewards 1 + 2 + 3, then nothing; the slow candidate goes on."""
    actions = torch.tensor([1.0, 0.1]).reshape(1, 2, 1).expand(6, 2, 1)
    trajectory = bd.rollout(bd.PlainDynamics(drift), torch.zeros(1), actions, position, termination=above(2.5))
    fast, slow = trajectory.rewards[:, 0, 0].unbind(-1)
    assert fast.tolist() == [1, 2, 3, 0, 0, 0]
    torch.testing.assert_close(slow, 0.1 * torch.arange(1.0, 7.0))
    assert trajectory.alive[:, 0, 0, 0].tolist() == [True, True, True, False, False, False, False]
    assert trajectory.alive[:, 0, 0, 1].all()
    assert trajectory.states[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 3, 3, 3]


def test_what_comes_after_the_end_is_worth_what_was_said() -> None:
    """Rewards of -1 per step and an exit: after_done = 0 makes dying attractive, -2 makes it worse than living."""
    actions = torch.tensor([1.0, 0.0]).reshape(1, 2, 1).expand(5, 2, 1)

    def scores(after_done: float) -> list[float]:
        trajectory = bd.rollout(
            bd.PlainDynamics(drift), torch.zeros(1), actions, lambda s, a, after: -torch.ones_like(after[..., 0]),
            termination=above(0.5), after_done=after_done,
        )  # fmt: skip
        return trajectory.returns.flatten().tolist()

    assert scores(0.0) == [-1.0, -5.0]
    assert scores(-2.0) == [-9.0, -5.0]


def test_discount_and_terminal_value() -> None:
    """R = Σ γ^t m_t r_t + γ^T m_T V(s_T): trajectories that ended get no terminal value."""
    actions = torch.tensor([1.0, 0.1]).reshape(1, 2, 1).expand(4, 2, 1)

    def value(state: Tensor, alive: Tensor) -> Tensor:
        assert alive.shape == state.shape[:-1]
        return 100 * state[..., 0]

    trajectory = bd.rollout(
        bd.PlainDynamics(drift), torch.zeros(1), actions, position, termination=above(1.5), terminal_value=value, discount=0.5
    )
    ended = 1 + 0.5 * 2
    goes_on = sum(0.5**t * 0.1 * (t + 1) for t in range(4)) + 0.5**4 * 100 * 0.4
    torch.testing.assert_close(trajectory.returns.flatten(), torch.tensor([ended, goes_on]))
    torch.testing.assert_close(trajectory.terminal.flatten(), torch.tensor([0.0, 0.5**4 * 40]))


def explode(state: Tensor, action: Tensor) -> bd.Gaussian:
    """s' = s² + a, which runs away from above 1."""
    mean = state.square() + action
    return bd.Gaussian(mean, torch.zeros_like(mean))


def test_what_would_have_happened_after_the_end_does_not_matter() -> None:
    """Dynamics that run away after the end give finite states, returns and gradients."""
    actions = torch.full((12, 1), 2.0, requires_grad=True)
    trajectory = bd.rollout(bd.PlainDynamics(explode), torch.zeros(1), actions, position, termination=above(3.0))
    assert trajectory.finite.all()
    assert trajectory.returns.item() == 2 + 6
    trajectory.returns.sum().backward()
    assert actions.grad is not None
    # R = a_0 + (a_0² + a_1), so dR/da = (1 + 2·a_0, 1, 0, ...).
    assert actions.grad.flatten().tolist() == [5.0, 1.0] + [0.0] * 10


def test_a_bounded_reward_does_not_hide_a_state_that_ran_away() -> None:
    """exp(-s²) is 0 at an infinite state: the return is finite, the trajectory is not."""
    actions = torch.tensor([2.0, 0.0]).reshape(1, 2, 1).expand(12, 2, 1)
    trajectory = bd.rollout(bd.PlainDynamics(explode), torch.zeros(1), actions, lambda s, a, after: (-after[..., 0].square()).exp())
    assert trajectory.returns.isfinite().all()
    assert trajectory.finite.flatten().tolist() == [False, True]


def test_an_end_at_an_infinite_state_is_no_end() -> None:
    """A state that jumps to infinity and thereby terminates is still not finite."""
    actions = torch.tensor([math.inf, 0.0]).reshape(1, 2, 1).expand(3, 2, 1)
    trajectory = bd.rollout(
        bd.PlainDynamics(drift), torch.zeros(1), actions, lambda s, a, after: torch.zeros_like(after[..., 0]),
        termination=above(1.0),
    )  # fmt: skip
    assert trajectory.finite.flatten().tolist() == [False, True]


@pytest.mark.parametrize("propagation", PROPAGATIONS, ids=repr)
def test_gradients_equal_finite_differences(propagation: Propagation) -> None:
    """In actions, start and the parameters of a policy, through the noise."""
    noise = propagation.draw_noise(3, 3, 2, S, seeded(), torch.float64)
    dynamics = pendulums(3)
    start = torch.randn(2, 1, S, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    actions = torch.randn(3, 1, 2, A, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.3], [-0.2]], dtype=torch.float64, requires_grad=True)

    def opened(start: Tensor, actions: Tensor) -> Tensor:
        return bd.rollout(dynamics, start, actions, reward, propagation=propagation, noise=noise, discount=0.9).returns

    def closed(start: Tensor, weight: Tensor) -> Tensor:
        return bd.rollout(
            dynamics, start, lambda s: (s @ weight).tanh(), reward, horizon=3, propagation=propagation, noise=noise,
            terminal_value=lambda s, alive: s[..., 1].square(),
        ).returns  # fmt: skip

    assert torch.autograd.gradcheck(opened, (start, actions))
    assert torch.autograd.gradcheck(closed, (start, weight))


@pytest.mark.parametrize("propagation", PROPAGATIONS, ids=repr)
def test_the_same_seed_gives_the_same_trajectory(propagation: Propagation) -> None:
    """A generator decides everything, and the global random state stays as it is."""
    actions, start = torch.zeros(4, A, dtype=torch.float64), torch.ones(S, dtype=torch.float64)

    def roll(generator: torch.Generator | None) -> Tensor:
        return bd.rollout(pendulums(3), start, actions, reward, particles=2, propagation=propagation, generator=generator).states

    before = torch.get_rng_state()
    assert roll(seeded(5)).equal(roll(seeded(5)))
    unseeded = roll(None)
    assert torch.get_rng_state().equal(before)
    assert unseeded.equal(roll(None)) == isinstance(propagation, bd.Mean)


def test_rewards_of_few_axes_expand() -> None:
    """A reward of the actions alone, or none at all, counts for every trajectory."""
    actions = torch.rand(4, 5, A, generator=seeded(), dtype=torch.float64)
    start = torch.zeros(S, dtype=torch.float64)
    cost = bd.rollout(pendulums(3), start, actions, lambda s, a, after: -a[0, 0, :, 0], particles=2).returns
    torch.testing.assert_close(cost, -actions[..., 0].sum(0).expand(3, 2, 5))
    success = bd.rollout(pendulums(3), start, actions, lambda s, a, after: after[..., 0] > 0, particles=2)
    assert success.returns.dtype == torch.float64


def roll(start: Tensor | None = None, controls: object = None, gain: object = position, **options: object) -> bd.Trajectory:
    """Roll drift out with defaults."""
    start = torch.zeros(1) if start is None else start
    return bd.rollout(bd.PlainDynamics(drift), start, torch.zeros(3, 1) if controls is None else controls, gain, **options)  # type: ignore[arg-type]


def test_errors_say_what_came_and_what_was_wanted() -> None:
    with pytest.raises(ShapeError, match=r"T, ..., A.*got \[3\]"):
        roll(controls=torch.zeros(3))
    with pytest.raises(ShapeError, match=r"T >= 1; got \[0, 1\]"):
        roll(controls=torch.zeros(0, 1))
    with pytest.raises(ShapeError, match=r"got start \[2, 1\] and actions \[3, 5, 1\]"):
        roll(start=torch.zeros(2, 1), controls=torch.zeros(3, 5, 1))
    with pytest.raises(ConfigurationError, match="horizon=4 contradicts actions of 3 steps"):
        roll(horizon=4)
    with pytest.raises(ConfigurationError, match="policy wants horizon >= 1; got None"):
        roll(controls=lambda state: state)
    with pytest.raises(ConfigurationError, match="particles >= 1; got 0"):
        roll(particles=0)
    with pytest.raises(ConfigurationError, match=r"after_done=-1.0 wants a termination"):
        roll(after_done=-1.0)
    with pytest.raises(
        ShapeError, match=r"the reward has to return the shape \[1, 1, 4\].*got \[1, 1, 4, 1\].*next_state\[\.\.\., 0\]"
    ):
        roll(start=torch.zeros(4, 1), gain=lambda s, a, after: after)
    with pytest.raises(ShapeError, match=r"the termination has to return"):
        roll(start=torch.zeros(4, 1), termination=lambda s, a, after: after > 0)
    with pytest.raises(ShapeError, match=r"the reward has to return a tensor of shape \[1, 1, 4\].*got 1.5 \(float\)"):
        roll(start=torch.zeros(4, 1), gain=lambda s, a, after: 1.5)
    with pytest.raises(ShapeError, match=r"the terminal value has to return"):
        roll(start=torch.zeros(4, 1), terminal_value=lambda s, alive: s)
    with pytest.raises(ShapeError, match=r"the policy has to return the shape \[1, 1, 1\].*got \[5, 1\]"):
        roll(controls=lambda state: torch.zeros(5, 1), horizon=2)


@pytest.mark.parametrize(("steps", "n", "p", "size"), [(2, 1, 1, 1), (3, 2, 1, 1), (3, 1, 1, 2)])
def test_noise_of_other_sizes_is_refused(steps: int, n: int, p: int, size: int) -> None:
    """Noise that would broadcast (one row of it for all draws) is not what was meant."""
    noise = bd.TSInf().draw_noise(steps, n, p, size, seeded(), torch.float32)
    with pytest.raises(ShapeError, match=r"noise wants the shape \[3 or more, 1 draws.*draw_noise"):
        roll(noise=noise)


def test_noise_says_how_many_particles() -> None:
    """Particles follow from the noise; longer noise serves a shorter rollout; a contradiction is refused."""
    noise = bd.TSInf().draw_noise(9, 1, 4, 1, seeded(), torch.float32)
    assert roll(noise=noise).returns.shape == (1, 4)
    with pytest.raises(ShapeError, match="3 particles"):
        roll(noise=noise, particles=3)
