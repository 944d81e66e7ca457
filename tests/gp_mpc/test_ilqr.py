"""The iterative linear-quadratic regulator against Riccati recursions, bounded least squares, autograd and single steps."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from known_systems import (
    DOUBLE,
    HORIZON,
    WIDE,
    A,
    B,
    Cliff,
    R,
    least_squares,
    linear,
    lqr_problem,
    make_agent,
    point_mass_model,
    riccati,
    tensor,
)
from scipy.optimize import lsq_linear

import bayesdyn as bd
from bayesdyn.belief_dynamics import Belief, BeliefDynamics, Held
from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.errors import ConfigurationError, DataError, NumericalError, ShapeError
from bayesdyn.gp_mpc import GPMPC, ILQR, Along, BeliefProblem, BoxSearch, ChanceBound, certainty_equivalent, matched, regulator
from bayesdyn.gp_mpc.problem import apart
from bayesdyn.gp_mpc.regulator import _in_box, modelled
from bayesdyn.moments import QuadraticCost, SaturatingCost
from bayesdyn.planners import Box

EXACT = ILQR(evaluations=200, tolerance=1e-15)
STILL = torch.zeros(HORIZON, 1, dtype=DOUBLE)


@pytest.mark.usefixtures("unchecked_shapes")
def test_three_walks_find_the_regulators_actions() -> None:
    """The model is the problem itself here; what is left after a step is the damping's."""
    found = ILQR(evaluations=3, tolerance=0.0, damping=1e-9).solve(lqr_problem(), STILL, WIDE)
    actions, _ = riccati()
    torch.testing.assert_close(found.actions, actions, rtol=1e-7, atol=1e-7 * float(actions.abs().max()))


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_gains_are_riccatis() -> None:
    """From gains -K_t the regulator's actions follow whatever the state: u_t = -K_t x_t for its own trajectory."""
    actions, _ = riccati()
    gains = regulator(lqr_problem(), actions, WIDE)
    state = tensor([[2.0], [-1.0]])
    for gain, action in zip(gains, actions, strict=True):
        torch.testing.assert_close((gain @ state)[:, 0], action, rtol=1e-4, atol=1e-5)
        state = A @ state + B @ action[:, None]


@pytest.mark.usefixtures("unchecked_shapes")
def test_limits_are_kept_and_active_at_the_optimum() -> None:
    """Bounded least squares is the oracle."""
    found = EXACT.solve(lqr_problem(), STILL, Box.of([-1.0], [2.0], DOUBLE))
    known = lsq_linear(*least_squares(), bounds=(-1.0, 2.0), tol=1e-14)
    torch.testing.assert_close(found.actions[:, 0], torch.from_numpy(known.x), rtol=0, atol=1e-6)
    gains = regulator(lqr_problem(), found.actions, Box.of([-1.0], [2.0], DOUBLE))
    held = (found.actions[:, 0] <= -1.0) | (found.actions[:, 0] >= 2.0)
    assert 0 < int(held.sum()) < HORIZON
    assert gains[held].eq(0).all()
    assert gains[~held].ne(0).any()


@pytest.mark.parametrize("along", [matched, certainty_equivalent])
def test_under_feedback_a_belief_moves_as_that_of_the_closed_loop(along: Along) -> None:
    """Σ' = (A + BK) Σ (A + BK)ᵀ, and the mean as without."""
    gains = torch.randn(4, 1, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    problem = replace(lqr_problem(along=along), gains=gains)
    actions = torch.ones(4, 3, 1, dtype=DOUBLE)
    path, open_loop = problem.beliefs(actions), replace(problem, gains=None).beliefs(actions)
    torch.testing.assert_close(path.mean, open_loop.mean, rtol=1e-13, atol=1e-13)
    cov = path.cov[0]
    for gain, found in zip(gains, path.cov[1:], strict=True):
        closed = A + B @ gain
        cov = along.kept * closed @ cov @ closed.mT
        torch.testing.assert_close(found, cov, rtol=1e-12, atol=1e-14)


class TorchOnly(MomentMap):
    """A map that says nothing of arrays."""

    def __init__(self, inner: MomentMap) -> None:
        self.inner = inner

    def moments(self, mean: torch.Tensor, cov: torch.Tensor) -> Moments:
        return self.inner.moments(mean, cov)


def learned(arrays: bool = True, counted: bool = True) -> BeliefProblem:
    """A saturating cost under a Gaussian process of five rows, with gains to be counted on."""
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(5, size, generator=generator, dtype=DOUBLE) for size in (3, 2))
    values = (torch.full((2, 3), 1.5, dtype=DOUBLE), torch.full((2,), 0.5, dtype=DOUBLE), torch.full((2,), 0.01, dtype=DOUBLE))
    change = bd.posteriors.ExactGP.from_hyperparameters(x, y, *values).moment_map(process_noise=True)
    dynamics = BeliefDynamics(change if arrays else TorchOnly(change), state_size=2, action_size=1, inputs=range(3))
    gains = torch.randn(6, 1, 2, generator=generator, dtype=DOUBLE) if counted else None
    return BeliefProblem(
        dynamics,
        SaturatingCost([0.5, 0.0], [[1.0, 0.0], [0.0, 0.5]]),
        Belief(tensor([1.0, -0.5]), tensor([[0.1, 0.02], [0.02, 0.05]])),
        action_cost=QuadraticCost([0.0], [[0.1]]),
        gains=gains,
    )


ACTIONS = torch.randn(6, 1, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)
UNIT = Box.of([-3.0], [3.0], DOUBLE)


@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "torch"])
@pytest.mark.parametrize("counted", [True, False], ids=["feedback", "open loop"])
def test_a_walk_is_the_path_and_knows_its_gradient(arrays: bool, counted: bool) -> None:
    problem = learned(arrays, counted)
    actions = ACTIONS.clone().requires_grad_()
    path = problem.beliefs(actions)
    (slope,) = torch.autograd.grad(problem.value(actions, path), actions)
    walk = problem.walk(lambda t, mean: ACTIONS[t].numpy(), UNIT, 6)
    torch.testing.assert_close(torch.from_numpy(walk.mean), path.mean.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(torch.from_numpy(walk.cov), path.cov.detach(), rtol=1e-10, atol=1e-12)
    model = modelled(problem, walk, UNIT)
    # The gradient of the model in the actions: r_t + B_tᵀp_{t+1} with p_t = q_t + A_tᵀp_{t+1}.
    multiplier, found = model.linear[-1], []
    for t in range(5, -1, -1):
        found.append(model.action_linear[t] + model.by_action[t].T @ multiplier)
        multiplier = model.linear[t] + model.by_state[t].T @ multiplier
    torch.testing.assert_close(torch.from_numpy(np.stack(found[::-1])), 3.0 * slope, rtol=1e-8, atol=1e-10)
    assert model.value == pytest.approx(float(problem(ACTIONS)), rel=1e-12)


@pytest.mark.parametrize("arrays", [True, False], ids=["arrays", "torch"])
def test_slopes_of_a_certain_step_are_those_of_finite_differences(arrays: bool) -> None:
    problem = replace(learned(arrays, counted=False), along=certainty_equivalent)
    model = modelled(problem, problem.walk(lambda t, mean: ACTIONS[t].numpy(), UNIT, 6), UNIT)
    dynamics, eps = problem.dynamics.certain(), 1e-6

    def after(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return dynamics.step(Belief(state, torch.zeros(2, 2, dtype=DOUBLE)), Held(action)).mean

    for t in (0, 3):
        state = torch.from_numpy(model.walk.mean[t])
        moves = torch.eye(2, dtype=DOUBLE) * eps
        by_state = torch.stack([(after(state + d, ACTIONS[t]) - after(state - d, ACTIONS[t])) / (2 * eps) for d in moves], -1)
        by_action = (after(state, ACTIONS[t] + eps) - after(state, ACTIONS[t] - eps)) / (2 * eps)
        torch.testing.assert_close(torch.from_numpy(model.by_state[t]), by_state, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(torch.from_numpy(model.by_action[t][:, 0]), 3.0 * by_action, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("counted", [True, False], ids=["feedback", "open loop"])
def test_it_ends_where_no_slope_leaves_the_box(counted: bool) -> None:
    """At an optimum in a box the projected gradient vanishes, whatever the model behind it."""
    problem, box = learned(counted=counted), Box.of([-0.6], [0.6], DOUBLE)
    found = EXACT.solve(problem, torch.zeros(6, 1, dtype=DOUBLE), box)
    actions = found.actions.clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem(actions), actions)
    assert (box.clip(found.actions - slope) - found.actions).abs().max() < 1e-6
    other = BoxSearch(evaluations=500, tolerance=1e-16, slope=1e-10).solve(problem, found.actions, box)
    assert found.value == pytest.approx(other.value, rel=1e-9)


@pytest.mark.parametrize("lean", [0.05, 0.3])
def test_an_unstable_system_is_kept_where_an_open_loop_search_loses_it(lean: float) -> None:
    """A pole that doubles its lean at each of 15 steps: catching it at once costs no more than the first action."""
    dynamics, limited = linear(tensor([[2.0]]), tensor([[1.0]])), Box.of([-1.0], [1.0], DOUBLE)
    start = Belief(tensor([lean]), torch.zeros(1, 1, dtype=DOUBLE))
    problem = BeliefProblem(dynamics, SaturatingCost([0.0], [[2.0]]), start, action_cost=QuadraticCost([0.0], [[0.01]]))
    caught = tensor([-2.0 * lean, *[0.0] * 14])[:, None]
    assert ILQR(evaluations=40).solve(problem, torch.zeros_like(caught), limited).value <= float(problem(caught))
    assert BoxSearch(evaluations=80).solve(problem, torch.zeros_like(caught), limited).value > 10 * float(problem(caught))


def test_a_chance_constraint_keeps_its_distance() -> None:
    """s' = s + u with a known variance: the last mean stays Φ⁻¹(p) standard deviations below the limit."""
    dynamics = linear(tensor([[1.0]]), tensor([[1.0]]))
    bound = ChanceBound([1.0], 1.0, probability=0.9)
    start = Belief(tensor([0.0]), tensor([[0.04]]))
    problem = BeliefProblem(dynamics, QuadraticCost([3.0], [[1.0]]), start, bounds=(bound,))
    found = ILQR(evaluations=50, tolerance=1e-12).solve(problem, torch.zeros(4, 1, dtype=DOUBLE), WIDE)
    mean = problem.beliefs(found.actions).mean[1:, 0]
    torch.testing.assert_close(mean, torch.full((4,), 1.0 - 1.2815515655446004 * 0.2, dtype=DOUBLE), rtol=0, atol=1e-3)
    assert found.violation < 1e-3


def test_a_walk_into_beliefs_that_explode_is_not_taken() -> None:
    """Beyond s = 1 nothing is finite, and the cost pulls there."""
    dynamics = BeliefDynamics(Cliff(), state_size=1, action_size=1, inputs=[0, 1])
    problem = BeliefProblem(dynamics, QuadraticCost([3.0], [[1.0]]), Belief(tensor([0.0]), torch.zeros(1, 1, dtype=DOUBLE)))
    found = ILQR(evaluations=40).solve(problem, torch.zeros(3, 1, dtype=DOUBLE), WIDE)
    assert found.value < float(problem(torch.zeros(3, 1, dtype=DOUBLE)))
    with pytest.raises(NumericalError, match="explodes under it"):
        ILQR().solve(problem, torch.full((3, 1), 5.0, dtype=DOUBLE), WIDE)


def agent(**options: object) -> GPMPC:
    settings = {"observation_var": (0.01, 0.04), "search": ILQR(), "first_search": ILQR(), **options}
    made = make_agent(point_mass_model(), **settings)
    made.reset(Box.of([-2.0], [2.0], DOUBLE))
    return made


def test_an_agents_plan_counts_on_its_gains_and_answers_by_them() -> None:
    """With feedback the beliefs are narrower; what is not planned anew is corrected by the plan's own gains."""
    free, kept = agent(), agent(feedback=True)
    state = tensor([0.05, 0.0])
    for planner in (free, kept):
        planner.act(state)
    assert free.decision is not None
    assert free.decision.gains is None
    assert kept.decision is not None
    assert kept.decision.gains is not None
    assert kept.decision.beliefs.cov[-1].det() < free.decision.beliefs.cov[-1].det()
    seen = kept.decision.beliefs.mean[1] + tensor([0.1, -0.1])
    wanted = kept.decision.actions[1] + kept.decision.gains[1] @ tensor([0.1, -0.1])
    torch.testing.assert_close(kept.act(seen, replan=False), wanted.clamp(-2.0, 2.0))
    before = kept.decision
    kept.act(seen + 0.05)
    assert kept.decision is not before


def test_with_feedback_next_to_nothing_is_not_searched_afresh() -> None:
    """From the target a small push multiplies J, by little beside what the episode's first plan cost: only a large push counts."""
    candidates = []
    for feedback, push in ((False, 0.05), (True, 0.05), (True, 1.0)):
        planner = agent(feedback=feedback, tolerated_rise=0.1, observation_var=(1e-6, 1e-6))
        planner.act(tensor([1.0, 0.0]))
        for seen in ([0.0, 0.0], [push, 0.0]):
            planner.act(tensor(seen))
        assert planner.decision is not None
        candidates.append(planner.decision.candidates > ILQR().evaluations)
    assert candidates == [True, False, True]


@pytest.mark.parametrize(
    "options", [{"evaluations": 0}, {"tolerance": -1.0}, {"damping": 0.0}, {"rounds": 0}, {"slack": -1.0}], ids=repr
)
def test_impossible_searches_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError, match="ILQR wants"):
        ILQR(**options)


TWO = torch.randn(2, 2, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)


@pytest.mark.usefixtures("unchecked_shapes")
def test_two_actions_of_which_one_may_be_at_a_bound() -> None:
    """Bounded L-BFGS, run to the end, is the oracle; of the bounds of one action the other is free."""
    problem = replace(lqr_problem(), dynamics=linear(A, TWO), action_cost=QuadraticCost([0.0, 0.0], 0.05 * torch.eye(2)))
    box = Box.of([-0.3, -5.0], [0.3, 5.0], DOUBLE)
    start = torch.zeros(HORIZON, 2, dtype=DOUBLE)
    found, known = EXACT.solve(problem, start, box), BoxSearch(2000, 1e-16, 1e-10).solve(problem, start, box)
    torch.testing.assert_close(found.actions, known.actions, rtol=0, atol=1e-5)
    at_bound = found.actions.abs() >= tensor([0.3, 5.0])
    assert bool(at_bound[:, 0].any())
    assert not bool(at_bound[:, 1].any())


@pytest.mark.parametrize("seed", range(20))
def test_a_step_in_a_box_is_bounded_least_squares(seed: int) -> None:
    generator = np.random.default_rng(seed)
    root, wanted = generator.normal(size=(3, 3)), generator.normal(size=3)
    found, free = _in_box(root.T @ root + 1e-3 * np.eye(3), -root.T @ wanted, np.full(3, -0.4), np.full(3, 0.5))
    known = lsq_linear(np.vstack((root, 1e-3**0.5 * np.eye(3))), np.append(wanted, np.zeros(3)), bounds=(-0.4, 0.5), tol=1e-14).x
    np.testing.assert_allclose(found, known, atol=1e-7)
    np.testing.assert_array_equal(free, (found > -0.4) & (found < 0.5))


def test_whole_turns_of_an_angle_are_no_deviation() -> None:
    """A state that is reported a turn on is answered as it would be otherwise."""
    known, seen = tensor([3.1, 1.0]), tensor([-3.1, 1.0])
    torch.testing.assert_close(apart(seen, known, [0]), tensor([2 * math.pi - 6.2, 0.0]))
    torch.testing.assert_close(apart(seen, known, []), tensor([-6.2, 0.0]))


def test_an_agent_answers_an_angle_a_turn_on_as_the_angle() -> None:
    """Whether planned anew or corrected, what is done does not depend on where angles are cut."""
    generator = torch.Generator().manual_seed(1)
    state, action = (torch.randn(30, size, generator=generator, dtype=DOUBLE) for size in (2, 1))
    model = bd.DynamicsModel(bd.Codec(angles=[0]), bd.posteriors.ExactGP())
    model.fit(bd.Transitions.from_arrays(state, action, state @ A.mT + action @ B.mT))
    corrected, anew = [], []
    for turn in (0.0, 2 * math.pi):
        planner = make_agent(model, observation_var=(0.01, 0.04), search=ILQR(), first_search=ILQR(), feedback=True)
        planner.cost = QuadraticCost([0.0] * 4, torch.diag(tensor([0.0, 0.1, 1.0, 0.0])))
        planner.reset(Box.of([-20.0], [20.0], DOUBLE))
        planner.act(tensor([0.05, 0.0]))
        corrected.append(planner.act(tensor([0.2 + turn, 0.1]), replan=False))
        anew.append(planner.act(tensor([0.1 + turn, 0.0])))
    assert planner.decision is not None
    assert planner.decision.gains is not None
    assert float(planner.decision.gains[0].abs().max()) > 0.1
    torch.testing.assert_close(*corrected)
    torch.testing.assert_close(*anew, rtol=1e-4, atol=1e-4)


def test_one_start_that_fails_leaves_the_others() -> None:
    @dataclass(frozen=True)
    class Failing(ILQR):
        calls: list[int] = field(default_factory=list)

        def solve(self, problem, start, box, multipliers=None):
            self.calls.append(1)
            if len(self.calls) % 2:
                raise NumericalError("exploded")
            return super().solve(problem, start, box, multipliers)

    planner = make_agent(point_mass_model(), first_search=Failing(), search=ILQR())
    planner.reset(Box.of([-2.0], [2.0], DOUBLE))
    assert planner.act(tensor([0.5, 0.2])).isfinite().all()
    alone = make_agent(point_mass_model(), first_search=Failing(), search=ILQR(), starts=1)
    alone.reset(Box.of([-2.0], [2.0], DOUBLE))
    with pytest.raises(NumericalError, match="exploded"):
        alone.act(tensor([0.5, 0.2]))


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_say_what_was_wanted() -> None:
    planner = agent(feedback=True)
    planner.act(tensor([0.5, 0.2]))
    with pytest.raises(DataError, match="finite observations"):
        planner.act(tensor([math.nan, 0.0]), replan=False)
    with pytest.raises(ConfigurationError, match="BoxSearch or ILQR; got str"):
        make_agent(point_mass_model(), search="cem")
    with pytest.raises(ShapeError, match=r"gains want shape \[H, A, S\], here \[6, 1, 2\]; got \[5, 1, 2\]"):
        replace(learned(), gains=torch.zeros(5, 1, 2, dtype=DOUBLE))(ACTIONS)
    with pytest.raises(ShapeError, match=r"a start of shape \[H, 1\]; got \[6, 3, 1\]"):
        ILQR().solve(learned(), torch.zeros(6, 3, 1, dtype=DOUBLE), UNIT)
    with pytest.raises(ShapeError, match=r"feedback wants shape \[1, S\]"):
        Held(tensor([1.0]), feedback=torch.zeros(2, 2)).moments(tensor([0.0, 0.0]), torch.eye(2, dtype=DOUBLE))


@pytest.mark.usefixtures("unchecked_shapes")
def test_where_a_path_lies_does_not_matter() -> None:
    """A kilometre on, the same problem has the same model."""
    curves = []
    for place in (0.0, 1000.0):
        start = Belief(tensor([0.3 + place]), tensor([[0.01]]))
        problem = BeliefProblem(linear(tensor([[1.0]]), tensor([[1.0]])), SaturatingCost([place], [[2.0]]), start)
        curves.append(modelled(problem, problem.walk(lambda t, mean: np.full(1, -0.05), UNIT, 4), UNIT).curve)
    np.testing.assert_allclose(*curves, rtol=1e-3)


def test_effort_is_counted_per_half_box() -> None:
    """Twice the box and half the units: the same problem, the same walk."""
    small, large = (linear(A, scale * B) for scale in (1.0, 0.5))
    found = [
        ILQR(evaluations=4).solve(
            replace(lqr_problem(), dynamics=dynamics, action_cost=QuadraticCost([0.0], weight)),
            STILL,
            Box.of([-limit], [limit], DOUBLE),
        )
        for dynamics, weight, limit in ((small, R, 2.0), (large, R / 4, 4.0))
    ]
    torch.testing.assert_close(2 * found[0].actions, found[1].actions, rtol=1e-9, atol=1e-9)
