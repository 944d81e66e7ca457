"""GP-MPC against closed forms: linear systems, whose optimal actions under quadratic costs and bounds are known."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from known_systems import (
    DOUBLE,
    END,
    HORIZON,
    WIDE,
    A,
    B,
    Cliff,
    NoisyStep,
    Q,
    least_squares,
    linear,
    lqr_problem,
    make_agent,
    make_model,
    point_mass_model,
    quadratic,
    reward,
    riccati,
    tensor,
)
from scipy.optimize import lsq_linear

import bayesdyn as bd
from bayesdyn.belief_dynamics import Belief, BeliefDynamics, Held
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, NumericalError, ShapeError
from bayesdyn.gp_mpc import GPMPC, Along, BeliefProblem, BoxSearch, ChanceBound, Found, Multipliers, certainty_equivalent, matched
from bayesdyn.gp_mpc.plan import fan
from bayesdyn.moments import QuadraticCost
from bayesdyn.planners import Box, Choices

EXACT = BoxSearch(evaluations=500, tolerance=1e-16, slope=1e-10)


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_unbounded_optimum_is_the_linear_quadratic_regulators() -> None:
    """Σ does not depend on u here, so the best actions are the Riccati recursion's, and J adds Σ_t tr(Q Σ_t) + tr(Q_H Σ_H)."""
    problem = lqr_problem()
    found = EXACT.solve(problem, torch.zeros(HORIZON, 1, dtype=DOUBLE), WIDE)
    actions, cost = riccati()
    torch.testing.assert_close(found.actions, actions, rtol=1e-6, atol=1e-6 * float(actions.abs().max()))
    cov, spread = problem.start.cov, 0.0
    for _ in range(HORIZON):
        cov = A @ cov @ A.mT
        spread += float((Q @ cov).trace())
    spread += float((END @ cov).trace())
    assert found.value == pytest.approx(float(cost) + spread, rel=1e-9)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bounds_are_active_at_the_optimum() -> None:
    """Bounded least squares is the oracle; at a bound the slope points out of the box, inside it vanishes."""
    box = Box.of([-1.0], [2.0], DOUBLE)
    problem = lqr_problem()
    found = EXACT.solve(problem, torch.zeros(HORIZON, 1, dtype=DOUBLE), box)
    known = lsq_linear(*least_squares(), bounds=(-1.0, 2.0), tol=1e-14)
    torch.testing.assert_close(found.actions[:, 0], torch.from_numpy(known.x), rtol=0, atol=1e-5)
    actions = found.actions.clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem(actions), actions)
    low, high = found.actions <= -1.0, found.actions >= 2.0
    assert int(low.sum()) > 0
    assert bool((slope[low] >= 0).all())
    assert bool((slope[high] <= 0).all())
    assert float(slope[~(low | high)].abs().max()) < 1e-4


def test_gradients_are_those_of_finite_differences() -> None:
    """Central differences with a step of 1e-4: a truncation error of about 1e-8 of the third derivative, rounding 1e-11 of J."""
    agent = make_agent(point_mass_model(), observation_var=(0.01, 0.04), bounds=(ChanceBound([1.0, 0.5], 0.3),))
    problem, known = agent.problem(tensor([0.5, 0.2])), Multipliers(tensor([[0.3, 0.0, 0.2, 0.1]]), 5.0)
    actions = tensor([[0.5], [-0.3], [0.8], [0.1]]).requires_grad_()
    (slope,) = torch.autograd.grad(problem.penalised(actions, known), actions)
    for t in range(4):
        step = torch.zeros(4, 1, dtype=DOUBLE)
        step[t] = 1e-4
        with torch.no_grad():
            rise = problem.penalised(actions + step, known) - problem.penalised(actions - step, known)
        assert float(rise) / 2e-4 == pytest.approx(float(slope[t]), rel=1e-5, abs=1e-7)


def test_a_batch_of_sequences_scores_as_each_alone() -> None:
    problem = make_agent(point_mass_model()).problem(tensor([0.5, 0.2]))
    sequences = torch.rand(4, 5, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    alone = torch.stack([problem(sequences[:, i]) for i in range(5)])
    torch.testing.assert_close(problem.scores(sequences), alone.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("along", [matched, certainty_equivalent])
def test_beliefs_on_arrays_are_those_of_single_steps(along: Along) -> None:
    """One operation for all steps gives what the steps of the dynamics give one by one, gradients included."""
    problem = make_agent(point_mass_model(), observation_var=(0.01, 0.04)).problem(tensor([0.5, 0.2]))
    kept = 1.0 if along is matched else 0.0
    actions = torch.rand(4, 3, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(2)).requires_grad_()
    found = along(problem.dynamics, problem.start, actions)
    belief = Belief(problem.start.mean.expand(3, 2), kept * problem.start.cov.expand(3, 2, 2))
    means, covs = [belief.mean], [belief.cov]
    for action in actions:
        moved = problem.dynamics.step(belief, Held(action))
        belief = Belief(moved.mean, kept * moved.cov)
        means.append(belief.mean)
        covs.append(belief.cov)
    torch.testing.assert_close(found.mean, torch.stack(means), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.cov, torch.stack(covs), rtol=1e-9, atol=1e-12)
    slopes = [
        torch.autograd.grad(mean.square().sum() + cov.square().sum(), actions)[0]
        for mean, cov in (found, (torch.stack(means), torch.stack(covs)))
    ]
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-10)


def test_zero_variance_drops_what_uncertainty_costs() -> None:
    """J - J_0 = Σ_t tr(Q Σ_t) for quadratic costs and linear dynamics, and nothing is uncertain along the way."""
    problem = BeliefProblem(linear(), quadratic(Q), Belief(tensor([1.0, 0.0]), 0.1 * torch.eye(2, dtype=DOUBLE)))
    certain = BeliefProblem(linear(), quadratic(Q), problem.start, along=certainty_equivalent)
    actions = torch.ones(3, 1, dtype=DOUBLE)
    path = problem.beliefs(actions)
    known = sum(float((Q @ cov).trace()) for cov in path.cov[1:])
    assert float(problem(actions) - certain(actions)) == pytest.approx(known, rel=1e-12)
    assert float(certain.beliefs(actions).cov[1:].abs().max()) == 0.0


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_chance_constraint_keeps_its_distance() -> None:
    """The target lies beyond the bound, so the best mean is b - 1.645 √(v + 0.04 t) at every step."""
    dynamics = BeliefDynamics(NoisyStep(), state_size=1, action_size=1, inputs=[0, 1])
    start = Belief(tensor([0.0]), tensor([[0.01]]))
    bound = ChanceBound([1.0], limit=2.0)
    problem = BeliefProblem(dynamics, QuadraticCost([5.0], [[1.0]]), start, bounds=(bound,))
    found = BoxSearch(evaluations=60, tolerance=1e-14, rounds=20, slack=1e-6).solve(problem, torch.zeros(5, 1, dtype=DOUBLE), WIDE)
    mean = problem.beliefs(found.actions).mean[1:, 0]
    known = tensor([2.0 - 1.6448536 * math.sqrt(0.01 + 0.04 * t) for t in range(1, 6)])
    torch.testing.assert_close(mean, known, rtol=0, atol=1e-5)
    assert found.violation <= 1e-6


@pytest.mark.usefixtures("unchecked_shapes")
def test_multipliers_of_bounds_that_are_far_away_vanish() -> None:
    bound = ChanceBound([1.0, 0.0], limit=100.0)
    free, bounded = lqr_problem(), lqr_problem(bounds=(bound,))
    start = torch.zeros(HORIZON, 1, dtype=DOUBLE)
    found = EXACT.solve(bounded, start, WIDE)
    assert found.multipliers is not None
    assert float(found.multipliers.values.abs().max()) == 0.0
    torch.testing.assert_close(found.actions, EXACT.solve(free, start, WIDE).actions, rtol=0, atol=1e-6)


def test_shifted_multipliers_follow_their_steps() -> None:
    moved = Multipliers(tensor([[1.0, 2.0, 3.0]]), 10.0).shifted(2)
    assert moved.values.tolist() == [[3.0, 0.0, 0.0]]


def test_points_of_beliefs_have_their_moments() -> None:
    """Normals ± √S e_i have mean 0 and covariance I exactly, so the points have mean μ and covariance Σ."""
    cov = tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.5, 0.2], [0.2, 0.3]]])
    path = Belief(tensor([[0.0, 1.0], [2.0, 3.0]]), cov)
    normals = math.sqrt(2) * torch.cat([torch.eye(2), -torch.eye(2)]).double()
    shown = fan(path, torch.zeros(1, 1, dtype=DOUBLE), reward, normals)
    points = shown.states[:, :, 0, 0]
    torch.testing.assert_close(points.mean(1), path.mean)
    away = points - path.mean.unsqueeze(1)
    torch.testing.assert_close(away.mT @ away / 4, cov)
    torch.testing.assert_close(shown.rewards[0, :, 0, 0], -points[1, :, 0].square())


@dataclass(frozen=True)
class Remembering(BoxSearch):
    """A search that changes nothing and remembers where it was started."""

    starts: list[torch.Tensor] = field(default_factory=list)

    def solve(self, problem, start, box, multipliers=None):
        self.starts.append(start)
        return Found(start + 0.1 * torch.arange(len(start))[:, None], 0.0, 1)


@pytest.mark.parametrize("executed", [1, 3, 4])
def test_a_plan_starts_where_the_last_one_had_got_to(executed: int) -> None:
    """What was executed is dropped, the last action is repeated."""
    search = Remembering()
    agent = make_agent(point_mass_model(), search=search, first_search=search, starts=1)
    agent.reset(Box.of([-1.0], [1.0]))
    for t in range(executed):
        agent.act(tensor([0.5, 0.0]), replan=t == 0)
    plan = agent.decision.actions
    agent.act(tensor([0.4, 0.0]))
    left = plan[executed:]
    torch.testing.assert_close(search.starts[-1], torch.cat([left, plan[-1:].expand(executed, 1)]))


def test_the_first_plan_is_the_best_of_several_starts() -> None:
    model = point_mass_model()
    values = []
    for starts in (1, 4):
        agent = make_agent(model, starts=starts, first_search=BoxSearch(3))
        agent.reset(Box.of([-1.0], [1.0]))
        agent.act(tensor([0.5, 0.0]))
        values.append(agent.decision.value)
    assert values[1] <= values[0]


def test_a_plan_that_got_worse_is_made_afresh() -> None:
    """After a push J rises: only an agent that does not tolerate it looks around, and it keeps the better plan."""
    model, decisions = point_mass_model(), []
    for rise in (0.1, math.inf):
        agent = make_agent(model, tolerated_rise=rise)
        agent.reset(Box.of([-1.0], [1.0]))
        agent.act(tensor([0.1, 0.0]))
        agent.act(tensor([2.0, 1.0]))
        decisions.append(agent.decision)
    afresh, onward = decisions
    assert afresh.candidates > agent.scouts >= onward.candidates
    assert afresh.value <= onward.value


def test_a_decision_says_what_is_expected() -> None:
    agent = make_agent(point_mass_model(), observation_var=(0.01, 0.01))
    agent.reset(Box.of([-1.0], [1.0]))
    action = agent.act(tensor([0.5, 0.2]))
    decision = agent.decision
    assert torch.equal(action, decision.actions[0])
    assert decision.beliefs.mean.shape == (5, 2)
    assert decision.imagined.states.shape == (5, 3, 1, 1, 2)
    assert decision.imagined.rewards.shape == (4, 3, 1, 1)
    assert decision.variance.epistemic.shape == (1,)
    assert decision.value == pytest.approx(float(decision.cost_mean.sum()), rel=1e-12)
    assert decision.candidates > agent.scouts
    torch.testing.assert_close(decision.beliefs.cov[0], 0.01 * torch.eye(2, dtype=DOUBLE))


def test_transitions_change_the_next_plan() -> None:
    """The model is asked at every plan, so that what `append` added counts at once."""
    model = point_mass_model(8)
    agent = make_agent(model)
    actions = torch.full((4, 1), 0.5, dtype=DOUBLE)
    before = agent.problem(tensor([3.0, 3.0])).beliefs(actions)
    model.append(bd.Transitions.from_arrays([[3.0, 3.0]], [[0.5]], [(A @ tensor([3.0, 3.0]) + 0.5 * B[:, 0]).tolist()]))
    after = agent.problem(tensor([3.0, 3.0])).beliefs(actions)
    assert bool((after.cov[1].diagonal() < 0.5 * before.cov[1].diagonal()).all())


class PointMass(gymnasium.Env):
    """The mass on a line, pushed within ±1, 6 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.state = 0, self.np_random.normal([0.5, 0.0], 0.1)
        return self.state, {}

    def step(self, action):
        self.t += 1
        self.state = A.numpy() @ self.state + B.numpy() @ np.asarray(action, dtype=np.float64)
        return self.state, -float(self.state[0] ** 2), False, self.t >= 6, {}


def learn(folder: Path | None = None, trials: int = 2) -> bd.loop.Run:
    model = make_model()
    agent = make_agent(model, search=BoxSearch(4), first_search=BoxSearch(5))
    return bd.learn(PointMass(), model, agent, trials=trials, run=folder, seed=3)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    learn(tmp_path / "cut", trials=1)
    resumed, whole = learn(tmp_path / "cut"), learn(tmp_path / "whole")
    assert len(resumed.trials) == len(whole.trials) == 3
    for one, other in zip(resumed.trials, whole.trials, strict=True):
        assert torch.equal(one.episode.states, other.episode.states)
        assert torch.equal(one.imagined, other.imagined)
    assert whole.trials[1].imagined.shape == (6, 5, 3, 2)
    # Six steps of a learned mass: what was promised is what happened, up to what replanning gained.
    assert whole.trials[-1].metrics["planned_return"] == pytest.approx(whole.trials[-1].metrics["realised_return"], rel=0.2)


def test_a_search_steps_back_from_beliefs_that_explode() -> None:
    dynamics = BeliefDynamics(Cliff(), state_size=1, action_size=1, inputs=[0, 1])
    problem = BeliefProblem(dynamics, QuadraticCost([0.45], [[1.0]]), Belief(tensor([0.0]), tensor([[0.0]])))
    found = BoxSearch(evaluations=60, tolerance=1e-12).solve(problem, torch.full((1, 1), -0.9, dtype=DOUBLE), WIDE)
    assert float(found.actions) == pytest.approx(0.45, abs=1e-3)
    scores = problem.scores(tensor([[[0.45], [0.9], [0.0]]]))
    assert scores.isfinite().tolist() == [True, False, True]
    with pytest.raises(NumericalError, match="first sequence"):
        BoxSearch().solve(problem, torch.full((1, 1), 0.9, dtype=DOUBLE), WIDE)


@pytest.mark.usefixtures("unchecked_shapes")
def test_sequences_under_which_beliefs_explode_are_left_out() -> None:
    """Most scouts and, once the edge has moved, the last plan fall off the cliff; an agent needs only one that does not."""
    cliff = Cliff()
    model = SimpleNamespace(belief_dynamics=lambda process_noise: BeliefDynamics(cliff, state_size=1, action_size=1, inputs=[0, 1]))
    agent = GPMPC(model, QuadraticCost([0.45], [[1.0]]), reward, horizon=2, starts=20, scouts=20)
    agent.reset(Box.of([-1.0], [1.0]))
    assert float(agent.act(tensor([0.0]))) == pytest.approx(0.45, abs=0.01)
    cliff.edge = 0.2
    assert float(agent.act(tensor([0.0]))) == pytest.approx(0.2, abs=0.1)
    cliff.edge = -2.0
    with pytest.raises(NumericalError, match="first sequence"):
        agent.act(tensor([0.0]))


def test_actions_that_are_fixed_stay() -> None:
    """A box without width along an action leaves nothing to search there."""
    problem = lqr_problem()
    found = BoxSearch().solve(problem, torch.zeros(HORIZON, 1, dtype=DOUBLE), Box.of([0.5], [0.5], DOUBLE))
    assert found.actions.flatten().tolist() == [0.5] * HORIZON


@pytest.mark.parametrize(
    "options",
    [{"horizon": 0}, {"starts": 0}, {"scouts": -1}, {"tolerated_rise": -0.1}, {"draws": 0}, {"discount": 0.0}, {"discount": 1.5}],
    ids=str,
)
def test_impossible_settings_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError):
        make_agent(make_model(), **options)


@pytest.mark.parametrize("options", [{"evaluations": 0}, {"rounds": 0}, {"tolerance": -1.0}], ids=str)
def test_impossible_searches_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError):
        BoxSearch(**options)


def test_errors_say_what_was_wanted() -> None:
    agent = make_agent(point_mass_model())
    with pytest.raises(NotFittedError, match="reset"):
        agent.act(tensor([0.0, 0.0]))
    with pytest.raises(ConfigurationError, match="one environment"):
        agent.reset(Box.of([-1.0], [1.0]), batch=2)
    with pytest.raises(ConfigurationError, match="GPMPC"):
        agent.reset(Choices.of([3]))
    agent.reset(Box.of([-1.0], [1.0]))
    with pytest.raises(DataError, match="finite"):
        agent.act(tensor([math.nan, 0.0]))
    with pytest.raises(ConfigurationError, match="probability"):
        ChanceBound([1.0], 0.0, probability=0.3)
    with pytest.raises(ShapeError, match="coordinates"):
        ChanceBound([1.0], 0.0).excess(Belief(tensor([0.0, 0.0]), torch.eye(2, dtype=DOUBLE)))
    with pytest.raises(ShapeError, match="observation_var"):
        make_agent(agent.model, observation_var=(1.0,)).problem(tensor([0.0, 0.0]))


def test_broken_bounds_are_told() -> None:
    """No action keeps a state of 0.5 below -1 at once."""
    agent = make_agent(point_mass_model(), bounds=(ChanceBound([1.0, 0.0], -1.0),))
    agent.reset(Box.of([-1.0], [1.0]))
    agent.act(tensor([0.5, 0.0]))
    assert any("bounds" in said for said in agent.decision.warnings)
