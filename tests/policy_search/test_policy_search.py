"""Policy search against closed forms: linear systems with quadratic costs, whose best policies are known."""

import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import bayesdyn as bd
from bayesdyn.belief_dynamics import Belief, BeliefDynamics
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, NumericalError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.inference.optimisation import Optimum
from bayesdyn.moments import Columns, Linear, QuadraticCost, SquashSin
from bayesdyn.policies import LinearPolicy, MLPPolicy, RBFPolicy, Squashed
from bayesdyn.policy_search import (
    Adam,
    GrowingHorizon,
    MomentMatched,
    ParticleLoss,
    Particles,
    PolicyAgent,
    PolicyOptimiser,
    QuasiNewton,
)
from bayesdyn.policy_search.objective import Loss, as_vector, set_vector, vector_objective

DOUBLE = torch.float64


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def start(mean: float = 1.0, var: float = 0.25) -> Belief:
    return Belief(tensor([mean]), tensor([[var]]))


# s' = s + u, exactly: the change is the second column of [s, u].
DRIFT = BeliefDynamics(Columns([1], 2).then(Linear(tensor([[1.0]]), tensor([0.0]))), state_size=1, action_size=1, inputs=[0, 1])
COST = QuadraticCost(tensor([0.0]), tensor([[1.0]]))


def zero_policy() -> LinearPolicy:
    return LinearPolicy(tensor([[0.1]]), tensor([0.2]))


def matched(horizon: int = 3, **options: object):
    return MomentMatched(COST, start(), horizon, **options).under(DRIFT)


def reward(state: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return -following[..., 0].square()


def particles(horizon: int = 3, draws: int = 50, **options: object) -> ParticleLoss:
    settings = Particles(reward, start(), horizon, draws=draws, **options)
    dynamics = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)), n=draws)
    noise = settings.propagation.draw_noise(horizon, draws, 1, 1, torch.Generator().manual_seed(0), DOUBLE)
    return ParticleLoss(settings, dynamics, noise)


def test_matched_moments_give_the_closed_form() -> None:
    """Under u = w s + b, s_t has mean m_t = (1+w) m_{t-1} + b and variance (1+w)^{2t} v: J = Σ γ^t (m_t² + v_t), t >= 1."""
    w, b, discount = -0.4, 0.1, 0.9
    mean, var, known = 1.0, 0.25, 0.0
    for t in (1, 2, 3):
        mean, var = (1 + w) * mean + b, (1 + w) ** 2 * var
        known += discount**t * (mean**2 + var)
    loss = matched(discount=discount)
    assert loss(LinearPolicy(tensor([[w]]), tensor([b]))).item() == pytest.approx(known, rel=1e-12)


def test_one_step_costs_the_state_after_it() -> None:
    policy = LinearPolicy(tensor([[0.0]]), tensor([2.0]))
    assert matched(1)(policy).item() == pytest.approx((1.0 + 2.0) ** 2 + 0.25)


def test_several_starts_are_averaged() -> None:
    means, covs = tensor([[1.0], [-2.0]]), tensor([[[0.25]], [[0.5]]])
    both = MomentMatched(COST, Belief(means, covs), 4).under(DRIFT)
    singles = [MomentMatched(COST, Belief(m, c), 4).under(DRIFT) for m, c in zip(means, covs, strict=True)]
    policy = zero_policy()
    assert both(policy).item() == pytest.approx(sum(loss(policy).item() for loss in singles) / 2, rel=1e-12)


@pytest.mark.parametrize("kinds", [(torch.float32, DOUBLE), (DOUBLE, torch.float32), (DOUBLE, DOUBLE)])
def test_a_start_of_another_dtype_is_the_same_start(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    """1.0 and 0.25 are exact in both; sums of a few numbers of order 1 keep 1e-5 in float32."""
    starts, parameters = kinds
    start = Belief(tensor([1.0]).to(starts), tensor([[0.25]]).to(starts))
    policy = LinearPolicy(tensor([[-0.4]]).to(parameters), tensor([0.1]).to(parameters))
    loss = MomentMatched(COST, start, 4).under(DRIFT)
    assert loss(policy).dtype == parameters
    assert loss.predictions(policy)["state_mean"].dtype == parameters
    reference = LinearPolicy(tensor([[-0.4]]), tensor([0.1]))
    wanted = MomentMatched(COST, Belief(tensor([1.0]), tensor([[0.25]])), 4).under(DRIFT)(reference).item()
    assert loss(policy).item() == pytest.approx(wanted, rel=1e-12 if parameters == DOUBLE else 1e-5)


@pytest.mark.parametrize("loss", [matched(), particles()], ids=["matched", "particles"])
def test_the_best_linear_policy_is_found(loss) -> None:
    """u = -s brings every state to 0 at once."""
    policy = zero_policy()
    found = QuasiNewton(searches=40).improve(policy, lambda: loss)
    assert found.value == pytest.approx(0.0, abs=1e-8)
    torch.testing.assert_close(policy.weight.detach(), tensor([[-1.0]]), rtol=0, atol=1e-4)
    torch.testing.assert_close(policy.bias.detach(), tensor([0.0]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [matched, particles])
def test_the_first_steps_of_a_loss_are_the_loss_of_so_many_steps(make) -> None:
    """Of one step: the mean of (s + u)², for particles over the same starts."""
    policy, loss = zero_policy(), make(3, discount=0.9)
    first = loss.within(1)
    if make is matched:
        known = 0.9 * ((1.1 * 1.0 + 0.2) ** 2 + 1.1**2 * 0.25)
    else:
        known = -loss.trajectory(policy).rewards[0].mean().item()
    assert first(policy).item() == pytest.approx(known, rel=1e-12)
    assert loss.within(7)(policy).item() == loss(policy).item()


@pytest.mark.parametrize("make", [matched, particles])
def test_a_growing_horizon_ends_where_the_whole_one_does(make) -> None:
    policy, loss = zero_policy(), make()
    search = QuasiNewton(searches=40)
    found = GrowingHorizon((1, 2), search, search).improve(policy, lambda: loss)
    assert found.value == pytest.approx(0.0, abs=1e-8)
    assert found.steps > search.improve(policy, lambda: loss).steps
    torch.testing.assert_close(policy.weight.detach(), tensor([[-1.0]]), rtol=0, atol=1e-4)


def test_a_growing_horizon_gets_where_the_whole_one_says_nothing() -> None:
    """A cost that only its first step can tell: all policies cost the same in the end, until one brings the state home at once."""

    class Flat(Loss):
        def __init__(self, steps: int) -> None:
            self.steps = steps

        def __call__(self, policy):
            home = (policy.weight + 1).square().sum() + policy.bias.square().sum()
            return home if self.steps == 1 else 1 - torch.exp(-1e3 * home)

        def std(self, policy):
            return torch.zeros(())

        def predictions(self, policy):
            return {}

        def within(self, steps):
            return Flat(steps)

    plain, grown = zero_policy(), zero_policy()
    search = QuasiNewton(searches=40)
    assert search.improve(plain, lambda: Flat(3)).value == pytest.approx(1.0)
    assert GrowingHorizon((1,), search, search).improve(grown, lambda: Flat(3)).value == pytest.approx(0.0, abs=1e-8)


class Misleading(Loss):
    """Of a bias x the first step costs (x - 3)², all of them x²(x - 3.2)² + 0.1 x, or nothing that can be told beyond `edge`."""

    def __init__(self, edge: float, steps: int = 9) -> None:
        self.edge, self.steps = edge, steps

    def __call__(self, policy):
        x = policy.bias.sum()
        if self.steps == 1:
            return (x - 3).square()
        if float(x.detach()) > self.edge:
            raise NumericalError("the predicted belief is not finite")
        return x.square() * (x - 3.2).square() + 0.1 * x

    def std(self, policy):
        return tensor(0.0)

    def predictions(self, policy):
        return {}

    def within(self, steps):
        return Misleading(self.edge, steps)


@pytest.mark.parametrize("edge", [10.0, 2.0], ids=["worse", "fails"])
def test_where_the_first_steps_mislead_the_search_ends_no_worse_than_it_began(edge: float) -> None:
    policy, search = LinearPolicy(tensor([[0.0]]), tensor([0.0])), QuasiNewton(searches=20)
    found = GrowingHorizon((1,), search, search).improve(policy, lambda: Misleading(edge))
    with torch.no_grad():
        assert found.value == float(Misleading(edge)(policy)) <= 0.0
    assert as_vector(policy).tolist() == found.point.tolist()


@pytest.mark.parametrize("horizons", [(0, 3), (5, 3), (3, 3), (2.5, 3)])
def test_horizons_that_do_not_grow_are_refused(horizons: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="horizons that grow"):
        GrowingHorizon(horizons, QuasiNewton(), QuasiNewton())


def test_a_horizon_at_which_the_loss_fails_is_left_out() -> None:
    class Fails(QuasiNewton):
        def improve(self, policy, redraw, progress=None):
            set_vector(policy, np.array([5.0, 5.0]))
            raise NumericalError("exploded")

    policy = zero_policy()
    before = as_vector(policy)
    stays = GrowingHorizon((1,), Fails(), QuasiNewton(searches=1, evaluations=1))
    loss = matched()
    assert stays.improve(policy, lambda: loss).curve[0] == loss(zero_policy()).item()
    assert np.abs(as_vector(policy) - before).max() < 1.5


def test_adam_gets_there_with_fresh_draws() -> None:
    policy, generator = zero_policy(), torch.Generator().manual_seed(0)

    def redraw() -> ParticleLoss:
        settings = Particles(reward, start(), 3, draws=50)
        dynamics = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)), n=50)
        return ParticleLoss(settings, dynamics, settings.propagation.draw_noise(3, 50, 1, 1, generator, DOUBLE))

    Adam(steps=400, rate=0.05, final_rate=1e-3).improve(policy, redraw)
    torch.testing.assert_close(policy.weight.detach(), tensor([[-1.0]]), rtol=0, atol=0.01)
    torch.testing.assert_close(policy.bias.detach(), tensor([0.0]), rtol=0, atol=0.01)


def test_particles_agree_with_matched_moments_on_a_linear_system() -> None:
    """Both are the mean of m_t² + v_t; 20,000 particles, 5 standard errors of the sum."""
    policy = LinearPolicy(tensor([[-0.4]]), tensor([0.1]))
    loss = particles(draws=20_000)
    returns = loss.trajectory(policy).returns.detach().flatten()
    error = float(returns.std()) / math.sqrt(len(returns))
    assert abs(loss(policy).item() - matched()(policy).item()) < 5 * error


def test_repeated_values_are_identical() -> None:
    loss, policy = particles(), zero_policy()
    assert loss(policy).item() == loss(policy).item()


POLICIES = {
    "linear": lambda g: LinearPolicy.random(2, 1, g),
    "radial": lambda g: RBFPolicy.random(5, 1, torch.zeros(2, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE), g),
    "network": lambda g: MLPPolicy([2, 8, 1], g),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("way", ["matched", "particles", "refitted"])
def test_gradients_are_those_of_finite_differences(name: str, way: str) -> None:
    """Central differences with a step of 1e-5: their error is about 1e-10 of the third derivative, and rounding 1e-11 of J."""
    generator = torch.Generator().manual_seed(0)
    policy = Squashed(POLICIES[name](generator), SquashSin(1.0))
    model = point_mass_model()
    belief = Belief(tensor([1.0, 0.0]), 0.04 * torch.eye(2, dtype=DOUBLE))
    objectives = {
        "matched": MomentMatched(QuadraticCost(torch.zeros(2), torch.eye(2)), belief, 5),
        "particles": Particles(reward, belief, 5, draws=8),
        "refitted": Particles(reward, belief, 5, draws=8, propagation=bd.MomentMatching()),
    }
    evaluate = vector_objective(objectives[way].of(model, generator), policy)
    point = as_vector(policy)
    _, slope = evaluate(point)
    direction = np.random.default_rng(0).standard_normal(len(point))
    direction /= np.linalg.norm(direction)
    step = 1e-5
    difference = (evaluate(point + step * direction)[0] - evaluate(point - step * direction)[0]) / (2 * step)
    assert difference == pytest.approx(slope @ direction, rel=1e-5, abs=1e-8)


class PointMass(gymnasium.Env):
    """A mass on a line that a force within ±1 pushes: state (position, velocity), 10 steps of 0.3."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.state = 0, self.np_random.normal([1.0, 0.0], 0.2)
        return self.state, {}

    def step(self, action):
        self.t += 1
        velocity = self.state[1] + 0.3 * float(action[0])
        self.state = np.array([self.state[0] + 0.3 * velocity, velocity])
        return self.state, -float(self.state[0] ** 2), False, self.t >= 10, {}


def point_mass_model() -> bd.DynamicsModel:
    generator = torch.Generator().manual_seed(1)
    state, action = torch.randn(30, 2, dtype=DOUBLE, generator=generator), torch.rand(30, 1, dtype=DOUBLE, generator=generator)
    velocity = state[:, 1:] + 0.3 * action
    model = make_model()
    model.fit(bd.Transitions.from_arrays(state, action, torch.cat([state[:, :1] + 0.3 * velocity, velocity], 1)))
    return model


def make_model() -> bd.DynamicsModel:
    return bd.DynamicsModel(bd.Codec(), bd.posteriors.ExactGP(features=32, training=GPTraining(max_steps=30, restarts=0)))


def make_agent(model: bd.DynamicsModel, **options: object) -> PolicyAgent:
    belief = Belief(tensor([1.0, 0.0]), 0.04 * torch.eye(2, dtype=DOUBLE))
    objective = MomentMatched(QuadraticCost(torch.zeros(2), torch.diag(tensor([1.0, 0.0]))), belief, 10)
    return PolicyAgent(
        model,
        lambda g: Squashed(LinearPolicy.random(2, 1, g), SquashSin(1.0)),
        objective,
        reward,
        **{"optimiser": QuasiNewton(15, 10), "draws": 3, **options},
    )


def learn(folder: Path | None = None, trials: int = 2, **options: object) -> bd.loop.Run:
    model = make_model()
    return bd.learn(PointMass(), model, make_agent(model, **options), trials=trials, replan_every=None, online=False, run=folder)


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_agent_learns_and_says_what_it_expected(tmp_path: Path) -> None:
    run = learn(tmp_path)
    first, last = run.trials[0], run.trials[-1]
    assert last.metrics["return"] > first.metrics["return"]
    assert last.metrics["predicted_cost"] == pytest.approx(float(last.predictions["cost_mean"][1:].sum()), rel=1e-9)
    assert last.predictions["state_mean"].shape == last.predictions["state_std"].shape == (11, 2)
    assert last.imagined.shape == (10, 11, 3, 2)
    # Ten steps of a learned mass: what was expected is what happened.
    assert -last.metrics["return"] == pytest.approx(last.metrics["predicted_cost"], rel=0.5)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_resumed_search_is_the_same(tmp_path: Path) -> None:
    short = {"optimiser": QuasiNewton(3, 5)}
    learn(tmp_path / "cut", trials=1, **short)
    resumed, whole = learn(tmp_path / "cut", trials=2, **short), learn(tmp_path / "whole", trials=2, **short)
    for one, other in zip(resumed.trials, whole.trials, strict=True):
        assert torch.equal(one.episode.states, other.episode.states)
        assert one.metrics.get("predicted_cost") == other.metrics.get("predicted_cost")


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_best_of_several_starts_is_kept() -> None:
    model = point_mass_model()
    generator = torch.Generator().manual_seed(3)
    one = make_agent(model, optimiser=QuasiNewton(2, 5))
    alone = one.improve(generator.manual_seed(3)).metrics["predicted_cost"]
    several = make_agent(model, optimiser=QuasiNewton(2, 5), restarts=3)
    best = several.improve(generator.manual_seed(3)).metrics["predicted_cost"]
    assert best <= alone


class Counting(PolicyOptimiser):
    """Finds nothing better, and counts how often it is asked."""

    def __init__(self) -> None:
        self.searches = 0

    def improve(self, policy, redraw, progress=None):
        self.searches += 1
        return Optimum(as_vector(policy), float(redraw()(policy)), 1, (), ())


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_the_std_of_the_cost_is_the_closed_form_where_a_state_stays(discount: float) -> None:
    """Without actions each step costs s_0², of variance 2v² + 4m²v; the std of 20,000 such sums has a relative s.e. below 0.01."""
    still = LinearPolicy(tensor([[0.0]]), tensor([0.0]))
    known = math.sqrt(2 * 0.25**2 + 4 * 0.25) * sum(discount**t for t in (1, 2, 3))
    assert float(matched(discount=discount).std(still)) == pytest.approx(known, rel=1e-12)
    if discount == 1.0:
        assert float(particles(draws=20_000).std(still)) == pytest.approx(known, rel=0.05)


class Known(Loss):
    """Costs of 3, 4 and 7 with stds of 1, 3 and 5: lower bounds cross at κ = 1/2 and at κ = 3/2."""

    def __init__(self) -> None:
        self.costs = [3.0, 4.0, 7.0]

    def __call__(self, policy):
        return tensor(self.costs[int(policy.bias)])

    def std(self, policy):
        return tensor([1.0, 3.0, 5.0][int(policy.bias)])

    def predictions(self, policy):
        return {}


def agent_of(loss: Known, first: int, **options) -> PolicyAgent:
    """Return an agent whose next policies are those of number `first`, `first` + 1, ..."""

    class Objective(MomentMatched):
        def of(self, model, generator):
            return loss

    numbers = iter(range(first, 3))
    agent = make_agent(point_mass_model(), optimiser=Counting(), **options)
    agent.make_policy = lambda generator: LinearPolicy(tensor([[0.0]]), tensor([float(next(numbers))]))
    agent.objective = Objective(COST, start(), 3)
    return agent


@pytest.mark.parametrize(("optimism", "followed"), [(0.0, 0), (0.4, 0), (0.7, 1), (2.0, 2)])
def test_a_policy_is_followed_for_what_it_may_be_worth(optimism: float, followed: int) -> None:
    agent = agent_of(Known(), 0, restarts=2, optimism=optimism)
    improved = agent.improve(torch.Generator().manual_seed(0))
    assert agent.optimiser.searches == 3
    assert int(agent.policy.bias) == followed
    assert improved.metrics["predicted_cost"] == [3.0, 4.0, 7.0][followed]


@pytest.mark.parametrize(("cost", "followed"), [(3.15, 2), (2.85, 2), (3.9, 0), (2.1, 0)])
def test_a_trial_that_taught_nothing_of_the_policy_asks_for_another_one(cost: float, followed: int) -> None:
    """Within 10 % of what was expected it is the lower bound that counts, beyond it and at first the cost itself."""
    loss, options = Known(), {"surprise": 0.1, "optimism": 2.0}
    before = agent_of(loss, 0, restarts=2, **options)
    before.improve(torch.Generator().manual_seed(0))
    assert int(before.policy.bias) == 0
    after = agent_of(loss, 0, restarts=2, **options)
    after.recall(before.memory())
    after.make_policy = agent_of(loss, 1).make_policy
    loss.costs[0] = cost
    after.improve(torch.Generator().manual_seed(1))
    assert int(after.policy.bias) == followed


@pytest.mark.parametrize(("cost", "dares"), [(3.0, True), (3.9, False)])
def test_fresh_policies_are_searched_daringly_where_a_trial_taught_nothing(cost: float, dares: bool) -> None:
    """The last policy never is, and all are compared by the usual loss: what the daring one says of them counts for nothing."""

    class Daring(Known):
        def __call__(self, policy):
            return tensor(-100.0)

    loss, daring, searched = Known(), Daring(), list[tuple[int, bool]]()

    class Objective(MomentMatched):
        def of(self, model, generator):
            return daring

    class Noting(Counting):
        def improve(self, policy, redraw, progress=None):
            searched.append((int(policy.bias), redraw() is daring))
            return super().improve(policy, redraw, progress)

    before = agent_of(loss, 0, restarts=2, surprise=0.1, optimism=0.0)
    before.improve(torch.Generator().manual_seed(0))
    after = agent_of(loss, 1, restarts=2, surprise=0.1, optimism=0.0, daring=Objective(COST, start(), 3))
    after.policy = before.policy
    after.recall(before.memory())
    after.optimiser = Noting()
    loss.costs[0] = cost
    found = after.improve(torch.Generator().manual_seed(1))
    assert searched == [(0, False), (1, dares), (2, dares)]
    assert int(after.policy.bias) == 0
    assert found.metrics["predicted_cost"] == cost


def test_an_agent_without_a_policy_says_so() -> None:
    agent = make_agent(make_model())
    with pytest.raises(NotFittedError, match="improve"):
        agent.act(torch.zeros(2))


def test_an_observation_that_is_no_number_is_refused() -> None:
    agent = make_agent(make_model())
    agent.policy = LinearPolicy(tensor([[1.0, 0.0]]), tensor([0.0]))
    with pytest.raises(DataError, match="finite observations"):
        agent.act(torch.tensor([0.0, torch.nan]))


class Exploding(Loss):
    def __call__(self, policy):
        raise NumericalError("the predicted belief is not finite at step 2 of 3")

    def std(self, policy):
        return tensor(0.0)

    def predictions(self, policy):
        return {}


def test_adam_returns_parameters_at_which_the_loss_is_finite() -> None:
    """The slope leads over an edge at 1 beyond which there is no loss: every budget of steps ends on this side of it."""

    class Edge(Loss):
        def __call__(self, policy):
            height = sum(p.sum() for p in policy.parameters())
            if float(height.detach()) > 1:
                raise NumericalError("the predicted trajectory is not finite")
            return -height

        def std(self, policy):
            return tensor(0.0)

        def predictions(self, policy):
            return {}

    ends = []
    for steps in range(1, 8):
        policy = LinearPolicy(tensor([[0.0]]), tensor([0.0]))
        Adam(steps=steps, rate=0.15).improve(policy, Edge)
        ends.append(float(as_vector(policy).sum()))
    assert max(ends) <= 1
    assert ends[3] > 0.8  # it does go there


def test_a_search_that_fails_everywhere_is_told() -> None:
    class Objective(MomentMatched):
        def of(self, model, generator):
            return Exploding()

    agent = make_agent(point_mass_model())
    agent.objective = Objective(COST, start(), 3)
    with pytest.raises(NumericalError, match="a fresh policy"):
        agent.improve(torch.Generator().manual_seed(0))


def test_a_policy_that_the_new_fit_cannot_judge_is_given_up_for_a_fresh_one() -> None:
    class Fragile(Loss):
        def __call__(self, policy):
            size = sum(p.square().sum() for p in policy.parameters())
            if size > 100:
                raise NumericalError("the predicted belief is not finite at step 2 of 3")
            return size

        def std(self, policy):
            return tensor(0.0)

        def predictions(self, policy):
            return {}

    class Objective(MomentMatched):
        def of(self, model, generator):
            return Fragile()

    agent = make_agent(point_mass_model())
    agent.objective = Objective(COST, start(), 3)
    agent.policy = LinearPolicy(tensor([[100.0, 0.0]]), tensor([0.0]))
    found = agent.improve(torch.Generator().manual_seed(0))
    assert found.metrics["predicted_cost"] < 1e-6
    assert len(found.warnings) == 1
    assert "the last policy failed" in found.warnings[0]


def test_an_exploding_belief_names_the_step() -> None:
    steep = BeliefDynamics(Linear(tensor([[0.0, 1e200]]), tensor([0.0])), state_size=1, action_size=1, inputs=[0, 1])
    loss = MomentMatched(COST, start(), 5).under(steep)
    with pytest.raises(NumericalError, match=r"step [1-5] of 5"):
        loss(LinearPolicy(tensor([[1e200]]), tensor([0.0])))


@pytest.mark.parametrize("options", [{"horizon": 0}, {"discount": 0.0}, {"discount": 1.5}])
def test_impossible_settings_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError):
        MomentMatched(COST, start(), **{"horizon": 3, **options})
    with pytest.raises(ConfigurationError):
        Particles(reward, start(), **{"horizon": 3, **options})


def test_vectors_and_parameters_are_the_same_numbers() -> None:
    policy = zero_policy()
    set_vector(policy, np.array([3.0, 4.0]))
    assert as_vector(policy).tolist() == [3.0, 4.0]
