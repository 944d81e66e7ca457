"""Model-predictive control: it regulates a known plant, and its plans depend on what they should and on nothing else."""

import math
import time
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.mpc import MPC
from bayesdyn.objectives import Expected, Optimistic, Pessimistic
from bayesdyn.planners import CEM, ICEM, PDDM, Box, Evaluate, Plan, Planner, RandomShooting, WarmStart
from bayesdyn.rollout import PlainDynamics, Trajectory, TSInf

DOUBLE = torch.float64
BOX = Box.of([-1.0], [1.0], DOUBLE)
A = torch.tensor([[1.0, 0.2], [0.0, 1.0]], dtype=DOUBLE)
B = torch.tensor([[0.02], [0.2]], dtype=DOUBLE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cost(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
    return -following.square().sum(-1) - 0.01 * action.square().sum(-1)


@dataclass
class Known:
    """A known step (state, action) -> Gaussian as a model; it counts what it was asked for."""

    step: object
    asked: list[int] = field(default_factory=list)

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> PlainDynamics:
        self.asked.append(n)
        return PlainDynamics(self.step, n)


def linear(state: Tensor, action: Tensor) -> Gaussian:
    following = state @ A.to(state).T + action @ B.to(state).T
    return Gaussian(following, torch.zeros_like(following))


def noisy(state: Tensor, action: Tensor) -> Gaussian:
    following = linear(state, action).mean
    return Gaussian(following, torch.full_like(following, 0.01))


def drift(state: Tensor, action: Tensor) -> Gaussian:
    return Gaussian(state + action, torch.zeros_like(state))


def agent(step: object = linear, planner: Planner | None = None, reward: object = cost, **options: object) -> MPC:
    planner = planner or ICEM(horizon=8, candidates=40, elites=8)
    return MPC(Known(step), planner, reward, **{"draws": 1, "dtype": DOUBLE, **options})


def run(controller: MPC, start: Tensor, steps: int, seed: int = 0) -> Tensor:
    controller.reset(BOX, batch=1 if start.dim() == 1 else len(start), generator=seeded(seed))
    states = [start]
    for _ in range(steps):
        states.append(linear(states[-1], controller.act(states[-1]).to(DOUBLE)).mean)
    return torch.stack(states)


@dataclass(frozen=True)
class Probe(Planner):
    """Scores given candidates, and then again in another order; plans nothing."""

    sequences: Tensor
    horizon: int
    seen: list[Tensor] = field(default_factory=list)

    def plan(self, evaluate: Evaluate, warm_start: WarmStart, generator=None, budget=None) -> Plan:
        self.seen.append(evaluate(self.sequences))
        self.seen.append(evaluate(self.sequences.flip(2)))
        return CEM(horizon=self.horizon, candidates=2, elites=1, iterations=1).plan(evaluate, warm_start, generator)


def scores(step: object, start: Tensor, sequences: Tensor, **options: object) -> list[Tensor]:
    probe = Probe(sequences, len(sequences))
    controller = agent(step, probe, **options)
    controller.reset(BOX, batch=sequences.shape[1], generator=seeded())
    controller.act(start)
    return probe.seen


@pytest.mark.parametrize("planner", [CEM(horizon=10, candidates=100, elites=10), ICEM(horizon=10, candidates=60)])
def test_it_regulates_a_known_linear_plant(planner: Planner) -> None:
    states = run(agent(planner=planner), torch.tensor([1.0, 0.0], dtype=DOUBLE), 40)
    assert states[-10:].norm(dim=1).max() < 0.05


def test_a_batch_of_states_is_planned_for_as_each_alone() -> None:
    starts = torch.randn(5, 2, generator=seeded(1), dtype=DOUBLE)
    together = run(agent(noisy, draws=3, particles=2), starts, 4)
    for b in range(5):
        torch.testing.assert_close(run(agent(noisy, draws=3, particles=2), starts[b], 4), together[:, b], rtol=0, atol=1e-9)


def test_without_replanning_the_plan_is_executed_to_its_end() -> None:
    controller, state = agent(), torch.tensor([1.0, 0.0], dtype=DOUBLE)
    controller.reset(BOX, generator=seeded())
    first = controller.act(state)
    plan = controller.decision.plan.actions[:, 0]
    followed = torch.stack([first, *(controller.act(state, replan=False) for _ in range(7))])
    assert torch.equal(followed, plan)
    used_up = controller.decision
    controller.act(state, replan=False)
    assert controller.decision is not used_up
    assert len(controller.model.asked) == 2


def test_the_warm_start_moves_on_by_what_was_executed() -> None:
    shifts: list[int] = []

    class Shifted(ICEM):
        def shift(self, warm_start: WarmStart, steps: int = 1) -> WarmStart:
            shifts.append(steps)
            return super().shift(warm_start, steps)

    controller, state = agent(planner=Shifted(horizon=8)), torch.tensor([1.0, 0.0], dtype=DOUBLE)
    controller.reset(BOX)
    for replan in (True, False, False, True, True, *[False] * 8):
        controller.act(state, replan=replan)
    assert shifts == [3, 1, 8]


def test_reset_forgets() -> None:
    controller, start = agent(noisy, draws=2), torch.tensor([1.0, 0.0], dtype=DOUBLE)
    first = run(controller, start, 3)
    run(controller, -2 * start, 3, seed=5)
    assert torch.equal(run(controller, start, 3), first)
    controller.reset(BOX)
    assert controller.decision is None


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_it_stays_out_of_where_the_model_breaks_down(poison: float) -> None:
    # The reward draws to x = 1, but beyond 0.5 the model has no answer; the reward is bounded, so it hides an infinite state.
    def poisoned(state: Tensor, action: Tensor) -> Gaussian:
        following = state + 0.2 * action
        return Gaussian(torch.where(following > 0.5, poison, following), torch.zeros_like(following))

    def reward(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return torch.exp(-(following[..., 0] - 1).square()).nan_to_num(2.0) + 2.0 * following[..., 0].isinf()

    controller = agent(poisoned, reward=reward)
    controller.reset(BOX, generator=seeded())
    state = torch.zeros(1, dtype=DOUBLE)
    for _ in range(10):
        state = state + 0.2 * controller.act(state)
        assert not bool(controller.decision.plan.failed.any())
        assert state <= 0.5
    assert state > 0.0  # it went towards x = 1


def test_a_model_that_is_broken_everywhere_gives_a_failed_plan() -> None:
    controller = agent(lambda s, a: Gaussian(s * math.nan, torch.zeros_like(s)))
    controller.reset(Box.of([0.0], [1.0]), generator=seeded())
    action = controller.act(torch.zeros(2, dtype=DOUBLE))
    assert controller.decision.plan.failed.tolist() == [True]
    assert action.tolist() == [0.5]


def test_the_size_of_chunks_changes_no_score() -> None:
    sequences = torch.rand(5, 2, 7, 1, generator=seeded(), dtype=DOUBLE) * 2 - 1
    start = torch.randn(2, 2, generator=seeded(1), dtype=DOUBLE)
    whole = scores(noisy, start, sequences, draws=3, particles=2)
    for rows in (1, 24, 36):
        torch.testing.assert_close(
            scores(noisy, start, sequences, draws=3, particles=2, chunk_rows=rows), whole, rtol=0, atol=1e-12
        )


def test_candidates_share_their_noise() -> None:
    sequences = torch.rand(5, 1, 6, 1, generator=seeded(), dtype=DOUBLE)
    sequences[:, :, 5] = sequences[:, :, 0]
    start = torch.zeros(1, 2, dtype=DOUBLE)
    straight, flipped = scores(noisy, start, sequences, draws=2, particles=3, chunk_rows=12)
    assert torch.equal(straight.flip(1), flipped)
    assert straight[0, 5] == straight[0, 0]
    assert len(straight[0].unique()) == 5


def test_draws_and_particles_are_what_was_asked_for() -> None:
    controller = agent(noisy, draws=3, particles=4)
    controller.reset(BOX, batch=2, generator=seeded())
    controller.act(torch.zeros(2, 2, dtype=DOUBLE))
    assert controller.model.asked == [3]
    assert controller.decision.imagined.states.shape == (9, 3, 4, 2, 2)
    assert torch.equal(controller.decision.imagined.actions, controller.decision.plan.actions)
    assert controller.decision.variance.epistemic.shape == (2,)
    assert bool((controller.decision.variance.aleatoric > 0).all())


def test_the_objective_decides_what_uncertainty_is_worth() -> None:
    # Two worlds, in which acting helps or harms by turns: the expectation is level, and the spread grows with |a|.
    worlds = torch.tensor([-1.0, 1.0], dtype=DOUBLE)

    def step(state: Tensor, action: Tensor) -> Gaussian:
        following = state + worlds.reshape(2, *[1] * (action.dim() - 1)) * action
        return Gaussian(following, torch.zeros_like(following))

    def gain(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        return following[..., 0]

    sequences = torch.tensor([0.0, 0.5, 1.0], dtype=DOUBLE).reshape(1, 1, 3, 1)
    spread = 2**0.5 * torch.tensor([[0.0, 0.5, 1.0]], dtype=DOUBLE)
    wanted = {Optimistic(kappa=2.0): 2 * spread, Pessimistic(kappa=1.0): -spread}
    start = torch.zeros(1, 1, dtype=DOUBLE)
    for objective, value in wanted.items():
        torch.testing.assert_close(scores(step, start, sequences, draws=2, reward=gain, objective=objective)[0], value)


def test_rewards_after_the_end_do_not_count() -> None:
    sequences = torch.tensor([[0.0, 1.0]] * 4, dtype=DOUBLE).reshape(4, 1, 2, 1)
    seen = scores(
        drift,
        torch.zeros(1, 1, dtype=DOUBLE),
        sequences,
        reward=lambda s, a, following: following[..., 0],
        termination=lambda s, a, following: following[..., 0] > 1.5,
    )
    assert seen[0].tolist() == [[0.0, 1.0 + 2.0]]  # the step that ends it is the last that counts
    later = scores(drift, torch.zeros(1, 1, dtype=DOUBLE), sequences, reward=lambda s, a, f: f[..., 0], discount=0.5)
    assert later[0].tolist() == [[0.0, 1 + 0.5 * 2 + 0.25 * 3 + 0.125 * 4]]


def test_an_exit_is_taken_or_not_as_after_done_says() -> None:
    """Each step costs 1 and there is an exit: with nothing after it, dying is best; a dearer afterwards keeps the agent alive."""

    def first_action(after_done: float) -> float:
        controller = agent(
            drift,
            reward=lambda s, a, following: -torch.ones_like(following[..., 0]) - 0.01 * a[..., 0].square(),
            termination=lambda s, a, following: following[..., 0] > 0.9,
            after_done=after_done,
        )
        controller.reset(BOX, generator=seeded())
        return float(controller.act(torch.full((1,), 0.5, dtype=DOUBLE)))

    assert first_action(0.0) > 0.4
    assert first_action(-2.0) < 0.4


def test_a_plan_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    run(agent(noisy, draws=2, particles=2), torch.zeros(2, dtype=DOUBLE), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_single_and_double_precision_control_equally_well() -> None:
    """Their random numbers differ, so this asks for the same cost, to 5 %: what CEM leaves on the table, not the same actions."""
    start = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    double, single = (run(agent(dtype=dtype), start, 8).square().sum() for dtype in (DOUBLE, torch.float32))
    assert abs(float(single / double) - 1) < 0.05


def test_propagation_is_the_one_given() -> None:
    @dataclass(frozen=True)
    class Counted(TSInf):
        steps: list[int] = field(default_factory=list)

        def step(self, dynamics, state, action, noise, t):
            self.steps.append(t)
            return super().step(dynamics, state, action, noise, t)

    propagation = Counted()
    run(agent(planner=CEM(horizon=3, iterations=1), propagation=propagation), torch.zeros(2, dtype=DOUBLE), 1)
    assert set(propagation.steps) == {0, 1, 2}


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="termination"):
        agent(after_done=-1.0)
    with pytest.raises(NotFittedError, match="reset"):
        agent().act(torch.zeros(2, dtype=DOUBLE))
    controller = agent()
    controller.reset(BOX, batch=3)
    with pytest.raises(ShapeError, match="3 environments; got 2"):
        controller.act(torch.zeros(2, 2, dtype=DOUBLE))
    observation = torch.zeros(3, 2, dtype=DOUBLE)
    with pytest.raises(ShapeError, match="8 steps ahead; got a warm start of 5"):
        controller.decide(observation, ICEM(horizon=5).start(BOX, 3), seeded())
    for value in (math.nan, math.inf):
        observation[1, 1] = value
        with pytest.raises(DataError, match=r"finite observations.*\[1\]"):
            controller.decide(observation, controller.planner.start(BOX, 3), seeded())
    for sizes in ({"draws": 0}, {"particles": 0}, {"chunk_rows": 0}, {"latency": 0.0}, {"latency": math.nan}):
        with pytest.raises(ConfigurationError, match="MPC wants"):
            agent(**sizes)


def test_a_value_of_the_last_state_extends_the_horizon() -> None:
    """From x = 0 with steps of at most 1 and T = 2, x = 2 is as far as it gets; only the value says that far is good."""
    controller = agent(
        drift,
        CEM(horizon=2),
        reward=lambda s, a, following: torch.zeros_like(following[..., 0]),
        terminal_value=lambda state, alive: state[..., 0],
    )
    controller.reset(BOX, generator=seeded())
    controller.act(torch.zeros(1, dtype=DOUBLE))
    torch.testing.assert_close(
        controller.decision.imagined.path[-1].flatten(), torch.full((1,), 2.0, dtype=DOUBLE), rtol=0.05, atol=0
    )


def test_it_warns_of_plans_that_seek_the_end() -> None:
    def warnings(**options: object) -> tuple[str, ...]:
        controller = agent(drift, termination=lambda s, a, following: following[..., 0] > 0.9, **options)
        controller.reset(BOX, generator=seeded())
        controller.act(torch.full((1,), 0.5, dtype=DOUBLE))
        return controller.decision.warnings

    def toll(s: Tensor, a: Tensor, following: Tensor) -> Tensor:
        return -torch.ones_like(following[..., 0])

    assert any("after_done" in said for said in warnings(reward=toll))
    assert warnings(reward=toll, after_done=-2.0) == ()
    assert warnings(reward=lambda s, a, f: -toll(s, a, f)) == ()  # ending costs the rewards to come


@dataclass(frozen=True)
class AtMost(Expected):
    """Feasible are trajectories that end at 0.1 or below."""

    def feasible(self, trajectory: Trajectory) -> Tensor:
        return (trajectory.path[-1][..., 0] <= 0.1).all(1).all(0)


def test_an_infeasible_plan_is_told() -> None:
    for start, feasible in ((0.0, True), (50.0, False)):
        controller = agent(drift, objective=AtMost())
        controller.reset(BOX, generator=seeded())
        controller.act(torch.full((1,), start, dtype=DOUBLE))
        assert controller.decision.feasible.tolist() == [feasible]
        assert any("infeasible" in said for said in controller.decision.warnings) is not feasible


class Slow:
    """A step that takes `fixed` seconds and `seconds` per row on a clock of its own, and once a stall."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, fixed: float = 0.0, stall: float = 0.0) -> None:
        self.now, self.seconds, self.fixed, self.stall = 0.0, seconds, fixed, stall
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        following = linear(state, action).mean
        self.now += self.fixed + self.seconds * following[..., 0].numel() + self.stall
        self.stall = 0.0
        return Gaussian(following, torch.zeros_like(following))


@pytest.mark.parametrize("rows_per_latency", [20000.0, 2000.0, 500.0])
def test_plans_are_in_time_whatever_the_speed(monkeypatch: pytest.MonkeyPatch, rows_per_latency: float) -> None:
    """The whole plan is 40 + 32 + 25 candidates and 2 kept from the last one, x 4 draws x 8 steps = 3,168 rows, and 32 imagined."""
    step = Slow(monkeypatch, 0.1 / rows_per_latency)
    controller = agent(step, draws=4, latency=100.0)
    state = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    controller.reset(BOX, generator=seeded())
    controller.warm_up(state)
    decisions = []
    for _ in range(10):
        state = linear(state, controller.act(state)).mean
        decisions.append(controller.decision)
    assert not any(decision.late for decision in decisions)
    assert max(decision.seconds for decision in decisions) <= 0.1
    assert float(state.norm()) < 1.0
    whole = all(decision.plan.candidates == 99 for decision in decisions[1:])
    assert whole == (rows_per_latency > 4000)


def test_draws_are_saved_where_candidates_no_longer_help(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Slow(monkeypatch, 0.1 / 400)
    controller = agent(step, draws=16, latency=100.0)
    state = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    controller.reset(BOX, generator=seeded())
    for _ in range(12):
        controller.act(state)
    assert 1 <= controller.decision.draws < 16
    assert not controller.decision.late
    step.seconds /= 100
    for _ in range(12):
        controller.act(state)
    assert controller.decision.draws == 16


@pytest.mark.parametrize("planner", [PDDM(horizon=5, candidates=400), RandomShooting(horizon=5, candidates=400)])
def test_candidates_go_before_draws_for_planners_of_one_iteration(monkeypatch: pytest.MonkeyPatch, planner: Planner) -> None:
    """A candidate takes a row in the first step and 16 in 4 more, x 3 μs = 195 μs; a call each of two plans is held up."""
    step = Slow(monkeypatch, 3e-6, stall=0.1)
    controller = agent(step, planner, draws=16, latency=60.0)
    state = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    controller.reset(BOX, generator=seeded())
    controller.warm_up(state)
    for i in range(12):
        step.stall = 0.1 if i == 4 else 0.0
        controller.act(state)
        assert controller.decision.draws == 16
        assert controller.decision.late == (i == 4)
    # 0.9 x 60 ms, less the one that is imagined, are 275 candidates of 400.
    assert 0.95 * 275 <= controller.decision.plan.candidates <= 276


def test_a_fixed_cost_of_every_step_leaves_candidates_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout takes 8 steps x 1.5 ms = 12 ms and 8 μs per row; of 40 ms, 36 less the 12 of the imagined one are the planner's."""
    controller = agent(Slow(monkeypatch, 1e-6, fixed=1.5e-3), ICEM(horizon=8), draws=5, latency=40.0)
    state = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    controller.reset(BOX, generator=seeded())
    controller.warm_up(state)
    decisions = []
    for _ in range(30):
        controller.act(state)
        decisions.append(controller.decision)
    assert not any(decision.late for decision in decisions)
    assert all(decision.plan.candidates >= 100 and decision.draws == 5 for decision in decisions[3:])


def test_draws_are_taken_back_before_candidates_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Slow(monkeypatch, 0.1 / 400)
    controller = agent(step, ICEM(horizon=8, candidates=400, elites=8), draws=16, latency=100.0)
    state = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    controller.reset(BOX, generator=seeded())
    for _ in range(12):
        controller.act(state)
    assert controller.decision.draws < 4
    # Now a candidate takes 2 ms at 16 draws: 30 of the 400 fit, and that is less than the 50 worth having.
    step.seconds = 0.002 / 8 / 16
    for _ in range(12):
        controller.act(state)
    assert 4 <= controller.decision.draws <= 8
    assert controller.decision.plan.candidates < 400
    step.seconds /= 4
    for _ in range(12):
        controller.act(state)
    assert controller.decision.draws == 16
    assert controller.decision.plan.candidates < 400


def test_precision_reaches_the_model() -> None:
    asked = []

    class Model(Known):
        def sample(self, n, generator=None, *, dtype=None, precision=None):
            asked.append((dtype, precision))
            return super().sample(n, generator, dtype=dtype)

    for precision in (None, torch.bfloat16):
        controller = MPC(Model(linear), ICEM(horizon=3), cost, draws=1, precision=precision)
        controller.reset(BOX)
        controller.act(torch.zeros(2))
    assert asked == [(torch.float32, None), (torch.float32, torch.bfloat16)]
