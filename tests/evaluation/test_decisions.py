"""Decisions agree with problems whose gaps, regrets and return distributions are known in closed form."""

import math
from dataclasses import dataclass, replace

import pytest
import scipy.stats
import torch

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, NotFittedError, ShapeError
from bayesdyn.evaluation.decided import rows_of
from bayesdyn.evaluation.decisions import DecisionTask, decide, decision_anchor, decision_rows
from bayesdyn.evaluation.plan_scores import exploitation_gap, plan_spearman, return_pit, return_scale
from bayesdyn.evaluation.recording import Recording
from bayesdyn.evaluation.table import Row
from bayesdyn.objectives import CVaR, Expected, Pessimistic
from bayesdyn.planners import CEM, Box, Choices, RandomShooting
from bayesdyn.rollout import TS1, Mean, PlainDynamics, TSInf
from bayesdyn.testing.conformance import shape_checks_off

STARTS, ARMS, DRAWS = 80, 2, 40
ROW = Row("model", "known", "none", 0, "", "")
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@dataclass
class Bandits:
    """One game per start, s = (return so far, number of the game k): each arm a ∈ {0, 1} pays (2a - 1) θ_k, θ ~ N(mean, var)."""

    mean: torch.Tensor
    var: float
    noise_var: float = 0.0

    def sample(self, n, generator=None, *, dtype=None):
        theta = self.mean + math.sqrt(self.var) * torch.randn(n, *self.mean.shape, generator=generator, dtype=torch.float64)

        def step(state, action):
            batch = torch.broadcast_shapes(state.shape[1:-1], action.shape[1:-1])
            game = state[..., 1].round().long().expand(n, *batch)
            drawn = theta[torch.arange(n).reshape(-1, *(1,) * len(batch)), game]
            pay = (drawn * (2 * action.double() - 1)).sum(-1)
            mean = torch.stack([state[..., 0] + pay.to(state.dtype), state[..., 1].expand_as(pay)], -1)
            return Gaussian(mean, torch.tensor([self.noise_var, 0.0]).to(mean).expand_as(mean))

        return PlainDynamics(step, n)


def paid(state, action, next_state):
    return next_state[..., 0] - state[..., 0]


def bandits(noise_var=0.0, seed=0, **options):
    """θ ~ N(0, 1) and an estimate θ + ε of the same variance: the exact posterior is N(θ̂/2, 1/2)."""
    theta = normal(STARTS, ARMS, seed=seed)
    estimate = theta + normal(STARTS, ARMS, seed=seed + 1)
    starts = torch.stack([torch.zeros(STARTS), torch.arange(STARTS).float()], 1)
    planner = RandomShooting(horizon=1, candidates=24)
    space = Choices.of([2] * ARMS)
    options = {"draws": DRAWS, "predictions": 50, "plans": 8, "replicates": 50, **options}
    task = DecisionTask(Bandits(theta, 0.0, noise_var), paid, space, starts, planner, **options)
    return task, Bandits(estimate / 2, 0.5, noise_var), Bandits(estimate, 0.0, noise_var)


@pytest.fixture(scope="module")
def game():
    task, exact, plug_in = bandits(noise_var=0.09)
    models = {"exact": exact, "plug-in": plug_in}
    with shape_checks_off():
        fixed = decision_anchor(task, 0)
        return task, fixed, {name: decide(model, task, Expected(), TSInf(), fixed, 0) for name, model in models.items()}


def gaps(decided, task):
    gap = exploitation_gap(decided.predicted, decided.realised)
    return gap[:, 0], gap[:, 1 : 1 + task.random].mean(1)


def assert_mean(values, expected):
    assert values.mean().item() == pytest.approx(expected, abs=4 * values.std().item() / math.sqrt(len(values)))


def test_an_exact_posterior_has_no_gap_even_for_the_plan_it_likes_best(game):
    """E[θ | D] is what it predicts, so choosing by it does not bias it: no winner's curse."""
    task, _, found = game
    chosen, by_chance = gaps(found["exact"], task)
    assert_mean(chosen, 0.0)
    assert_mean(by_chance, 0.0)


def test_a_plug_in_estimate_is_cursed_by_exactly_what_shrinkage_would_take(game):
    """θ̂ ~ N(0, 2) promises E|θ̂| = √(4/π) per arm and pays half: a gap of ARMS · √(1/π), and none for random plans."""
    task, _, found = game
    chosen, by_chance = gaps(found["plug-in"], task)
    assert_mean(chosen, ARMS / math.sqrt(math.pi))
    assert_mean(by_chance, 0.0)
    assert (chosen - by_chance).mean().item() > 4 * (chosen - by_chance).std().item() / math.sqrt(STARTS)


def test_regret_is_what_the_estimate_costs(game):
    """The true planner earns E|θ| = √(2/π) per arm. Who goes by the sign of m + e, with m ~ N(0, ½) and e what a mean of few draws
    is off by, earns √(2/π) Var m/√(Var m + Var e). The noise is the same and drops out.
    """
    _, fixed, found = game
    assert_mean(fixed.best_returns, ARMS * math.sqrt(2 / math.pi))
    for name, off in (("exact", 0.5 / DRAWS), ("plug-in", 0.0)):
        earned = 0.5 / math.sqrt(0.5 + off)
        assert_mean(fixed.best_returns - found[name].realised[:, 0], ARMS * math.sqrt(2 / math.pi) * (1 - earned))


def test_returns_of_the_exact_posterior_have_uniform_ranks_and_those_of_the_plug_in_do_not(game):
    _, _, found = game
    values = {}
    for name, decided in found.items():
        pit = return_pit(decided.predicted[..., 0], decided.realised[:, 0], generator())
        values[name] = scipy.stats.kstest(pit.numpy(), "uniform").pvalue
    assert values["exact"] > 1e-3
    assert values["plug-in"] < 1e-6


def test_the_unit_is_the_spread_of_random_plans_within_a_start(game):
    """Random signs of two arms: the variance of a start's four equally likely returns is θ_1² + θ_2², unbiased from 4 plans."""
    task, fixed, _ = game
    theta = task.truth.mean
    each = fixed.random_returns.var(1) - theta.square().sum(1)
    assert_mean(each, 0.0)
    assert fixed.scale == pytest.approx(fixed.random_returns.var(1).mean().sqrt().item())
    assert return_scale(torch.tensor([[0.0, 2.0], [5.0, 5.0]])).item() == pytest.approx(1.0)


def test_rows_carry_null_bands_that_tell_the_exact_posterior_from_the_plug_in(game):
    task, fixed, found = game
    rows = {name: {row.metric: row for row in rows_of(decided, fixed, task.random, ROW)} for name, decided in found.items()}
    cursed = rows["plug-in"]
    for metric in ("exploitation_gap", "optimiser_share"):
        assert cursed[metric].value > cursed[metric].null_high
        # A band holds nine in ten; one as wide again holds nearly all.
        row = rows["exact"][metric]
        width = row.null_high - row.null_low
        assert row.null_low - width < row.value < row.null_high + width
        assert cursed[metric].value > 4 * cursed[f"{metric}_se"].value
    assert cursed["return_coverage90"].value < cursed["return_coverage90"].null_low
    assert cursed["return_mace"].value > cursed["return_mace"].null_high
    assert abs(rows["exact"]["return_coverage90"].value - 0.9) < 4 * math.sqrt(0.09 / STARTS) + 2 / 51
    assert rows["exact"]["regret"].value > 4 * rows["exact"]["regret_se"].value
    assert {row.count for row in rows["exact"].values()} == {STARTS}
    assert rows["exact"]["decision_failures"].value == 0.0


DECAY, STEPS, NOISE_VAR = 0.9, 6, 0.04


def linear(gain=1.0, noise_var=NOISE_VAR):
    """s' = 0.9 s + gain·a + ε."""

    def step(state, action):
        mean = DECAY * state + gain * action
        return Gaussian(mean, torch.full_like(mean, noise_var))

    return PlainDynamics(step)


def reached(state, action, next_state):
    return next_state[..., 0]


def linear_task(**options):
    starts = normal(30, 1).float()
    planner = CEM(horizon=STEPS, candidates=40, elites=8, iterations=3)
    options = {"draws": 5, "plans": 16, "replicates": 40, **options}
    return DecisionTask(linear(), reached, Box.of([-1.0], [1.0]), starts, planner, **options)


def weights():
    """What one unit of a_t adds to Σ s: 1 + .9 + ... + .9^(T - 1 - t)."""
    return torch.tensor([(1 - DECAY ** (STEPS - t)) / (1 - DECAY) for t in range(STEPS)], dtype=torch.float64)


def test_predicted_returns_have_the_moments_of_the_linear_gaussian_system():
    task = linear_task(predictions=4000, plans=4, replicates=0)
    task = replace(task, starts=task.starts[:3])
    decided = decide(linear(), task, Expected(), TSInf(), decision_anchor(task, 0), 0)
    start = DECAY * (1 - DECAY**STEPS) / (1 - DECAY) * task.starts.double()
    mean = start + torch.einsum("t,tbca->bc", weights(), decided.actions.double())
    var = NOISE_VAR * weights().square().sum()
    error = 4 * math.sqrt(var / 4000)
    torch.testing.assert_close(decided.predicted.mean((0, 1)), mean, atol=error, rtol=0)
    ratio = decided.predicted.var((0, 1)) / var
    assert (ratio - 1).abs().max().item() < 4.5 * math.sqrt(2 / 4000)
    # The realised returns are one more draw of the same distribution, its noise shared by all plans of a start.
    noise = (decided.realised - mean) / var.sqrt()
    torch.testing.assert_close(noise, noise[:, :1].expand_as(noise))
    assert noise.abs().max().item() < 4.5


def test_the_true_model_has_no_share_no_regret_and_ranks_plans_perfectly():
    """Noise adds the same to all plans of a start, so share and rank are exact; gap and coverage hold up to their errors."""
    task = linear_task()
    rows = {row.metric: row for row in decision_rows(linear(), task, decision_anchor(task, 3), replace(ROW, seed=3))}
    assert rows["regret"].value == 0.0
    assert rows["optimiser_share"].value == pytest.approx(0.0, abs=1e-5)
    assert rows["plan_spearman"].value == pytest.approx(1.0, abs=1e-6)
    assert abs(rows["exploitation_gap"].value) < 4 * rows["exploitation_gap_se"].value
    assert abs(rows["return_coverage90"].value - 0.9) < 4 * math.sqrt(0.09 / 30)
    assert rows["exploitation_gap"].horizon == STEPS


def test_a_gain_that_is_too_large_is_exploited_by_its_closed_form():
    """Predicted less realised is 0.3 Σ w_t a_t of the plan, up to noise: planners take large actions, chance takes both signs."""
    task = linear_task(replicates=0)
    fixed = decision_anchor(task, 0)
    decided = decide(linear(1.3), task, Expected(), TSInf(), fixed, 0)
    gap = exploitation_gap(decided.predicted, decided.realised)
    promised = 0.3 * torch.einsum("t,tbca->bc", weights(), decided.actions.double())
    noise = gap - promised
    torch.testing.assert_close(noise, noise[:, :1].expand_as(noise), atol=1e-4, rtol=0)
    assert_mean(noise[:, 0], 0.0)
    share = gap[:, 0] - gap[:, 1 : 1 + task.random].mean(1)
    by_chance = promised[:, 1 : 1 + task.random].mean(1)
    torch.testing.assert_close(share, promised[:, 0] - by_chance, atol=1e-4, rtol=0)
    assert_mean(by_chance, 0.0)
    # Of actions between -1 and 1 the planner's first are nearly 1, and the random ones 0 on average.
    assert share.mean().item() > 10 * share.std().item() / math.sqrt(len(share))
    # Plans keep their order, since the gain only stretches it.
    assert plan_spearman(decided.predicted.mean((0, 1)), decided.realised).min().item() == pytest.approx(1.0, abs=1e-6)


def test_a_model_without_noise_has_returns_that_fall_outside_its_own():
    task = linear_task()
    rows = {row.metric: row for row in decision_rows(linear(noise_var=1e-4), task, decision_anchor(task, 0), ROW)}
    assert rows["return_coverage90"].value < rows["return_coverage90"].null_low
    assert rows["return_mace"].value > rows["return_mace"].null_high


def test_every_objective_and_propagation_has_its_rows_and_one_trajectory_has_no_ranks():
    objectives = {"Expected": Expected(), "Pessimistic": Pessimistic(), "CVaR": CVaR(0.5)}
    propagations = {"TSInf": TSInf(), "TS1": TS1(), "Mean": Mean()}
    task = linear_task(objectives=objectives, propagations=propagations, predictions=10, replicates=5, plans=4)
    task = replace(task, starts=task.starts[:5])
    rows = decision_rows(linear(), task, decision_anchor(task, 0), ROW)
    found = {(row.objective, row.propagation) for row in rows if row.metric == "regret"}
    assert found == {(o, p) for o in objectives for p in propagations}
    assert {row.propagation for row in rows if row.metric == "return_mace"} == {"TSInf", "TS1"}


def test_models_meet_the_same_noise_and_the_same_random_plans():
    task = linear_task(replicates=0)
    task = replace(task, starts=task.starts[:6])
    fixed, again = decision_anchor(task, 5), decision_anchor(task, 5)
    assert torch.equal(fixed.random, again.random)
    assert torch.equal(fixed.random_returns, again.random_returns)
    first, second = (decide(linear(gain), task, Expected(), TSInf(), fixed, 5) for gain in (0.5, 2.0))
    assert torch.equal(first.realised[:, 1:9], second.realised[:, 1:9])
    assert not torch.equal(decision_anchor(task, 6).random_returns, fixed.random_returns)
    # Carried out anew, a plan earns what it earned: realised returns depend on plan, start and seed alone.
    torch.testing.assert_close(task.realise(second.actions, 5), second.realised)


def test_a_model_that_draws_random_numbers_meets_the_same_candidates():
    """What a model takes from its generator must not change what the planner tries, or regret would compare two searches."""

    class Thirsty:
        def sample(self, n, generator=None, *, dtype=None):
            torch.rand(17, generator=generator)
            return linear().sample(n)

    task = linear_task(replicates=0, predictions=2)
    task = replace(task, starts=task.starts[:6])
    fixed = decision_anchor(task, 0)
    decided = decide(Thirsty(), task, Expected(), TSInf(), fixed, 0)
    assert torch.equal(decided.realised[:, 0], fixed.best_returns)
    # Each start has candidates of its own: the starts differ by more than a shift that all their plans share.
    assert not torch.equal(decided.actions[:, 0, -1], decided.actions[:, 1, -1])


def test_starts_where_a_model_runs_away_are_counted_and_left_out():
    def step(state, action):
        mean = torch.where(state > 0.5, torch.inf, DECAY * state + action)
        return Gaussian(mean, torch.full_like(mean, NOISE_VAR))

    task = linear_task(predictions=5, replicates=5)
    task = replace(task, starts=torch.tensor([[-9.0], [-8.0], [-9.0], [1.0]]))
    rows = {row.metric: row for row in decision_rows(PlainDynamics(step), task, decision_anchor(task, 0), ROW)}
    assert (rows["decision_failures"].value, rows["decision_failures"].count) == (0.25, 4)
    assert rows["exploitation_gap"].count == 3
    assert math.isfinite(rows["exploitation_gap"].value)
    lost = replace(task, starts=torch.ones(4, 1))
    assert [row.metric for row in decision_rows(PlainDynamics(step), lost, decision_anchor(lost, 0), ROW)] == ["decision_failures"]


def test_recording_keeps_the_best_candidates_and_changes_no_plan():
    planner, box = CEM(horizon=3, candidates=30, elites=5, iterations=2), Box.of([-1.0], [1.0])
    seen = []

    def evaluate(actions):
        scores = -(actions - 0.3).square().sum((0, 3))
        seen.append((actions, scores))
        return scores

    recording = Recording(planner, 7)
    with pytest.raises(NotFittedError, match="plan before"):
        _ = recording.elites
    plain = planner.plan(evaluate, planner.start(box, 2), generator())
    seen.clear()
    plan = recording.plan(evaluate, recording.start(box, 2), generator())
    assert torch.equal(plan.actions, plain.actions)
    actions, scores = torch.cat([a for a, _ in seen], 2), torch.cat([s for _, s in seen], 1)
    for b in range(2):
        best = scores[b].argsort(descending=True)[:7]
        assert torch.equal(recording.elites[:, b], actions[:, b, best])
    assert torch.equal(recording.shift(plan.warm_start).mean, planner.shift(plain.warm_start).mean)


def test_settings_without_a_meaning_are_refused():
    with pytest.raises(ShapeError, match=r"starts \[B, S\]"):
        replace(linear_task(), starts=torch.zeros(3))
    for options in ({"plans": 3}, {"predictions": 1}, {"replicates": -1}, {"draws": 0}):
        with pytest.raises(ConfigurationError, match="decisions want"):
            linear_task(**options)
