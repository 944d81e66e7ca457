"""The belief's step against the original's numbers, Monte Carlo, and what must not matter to it."""

import json
from pathlib import Path

import pytest
import torch

import bayesdyn as bd
from bayesdyn.belief_dynamics import Belief, BeliefDynamics, Held, propagate
from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.gaussian_processes.moment_inducing import fitc_moments
from bayesdyn.gaussian_processes.moment_map import rbf_moments, rbf_weights
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.moments import Columns, Linear, SaturatingCost, SquashSat

GOLDEN = Path(__file__).parent / "golden" / "pilco"


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def cases(name: str) -> list[dict]:
    return json.loads((GOLDEN / f"{name}.json").read_text())["cases"]


CASES = [
    case for name in ("propagate_cartpole", "propagate_cartpole_wide_cost", "propagate_other_scenarios") for case in cases(name)
]


class Parameters:
    """The official policy's parameters, as leaves of the graph."""

    def __init__(self, case: dict) -> None:
        self.kind = case["policy_type"]
        if self.kind == "congp":
            hyper = tensor(case["policy_log_hyp"])
            self.inputs, self.targets = tensor(case["policy_inputs"]), tensor(case["policy_targets"])
            self.log_lengthscale = hyper[:-2].mT.contiguous()
            self.leaves = (self.inputs, self.targets, self.log_lengthscale)
        else:
            self.weight, self.bias = tensor(case["policy_w"]), tensor(case["policy_b"])
            self.leaves = (self.weight, self.bias)
        for leaf in self.leaves:
            leaf.requires_grad_()

    def map(self) -> MomentMap:
        if self.kind != "congp":
            return Linear(self.weight, self.bias)
        lengthscale = self.log_lengthscale.exp()
        return Radial(self.inputs, rbf_weights(self.inputs, self.targets, lengthscale), lengthscale)


class Radial(MomentMap):
    def __init__(self, centres: torch.Tensor, beta: torch.Tensor, lengthscale: torch.Tensor) -> None:
        self.centres, self.beta, self.lengthscale = centres, beta, lengthscale

    def moments(self, mean: torch.Tensor, cov: torch.Tensor) -> Moments:
        return rbf_moments(mean, cov, self.centres, self.beta, self.lengthscale)


def columns(case: dict, key: str) -> list[int]:
    return [i - 1 for i in case[key]]


def dynamics(case: dict) -> BeliefDynamics:
    hyper = tensor(case["gp_log_hyp"])
    size, angles = case["D"], columns(case, "angi_1based")
    inputs = columns(case, "dyni_1based")
    actions = len(case["maxU"])
    lifted = size + 2 * len(angles)
    x, y = tensor(case["gp_inputs"]), tensor(case["gp_targets"])
    values = (hyper[:-2].mT.exp(), (2 * hyper[-2]).exp(), (2 * hyper[-1]).exp())
    if "gp_induce" in case:
        change = fitc_moments(x, y, tensor(case["gp_induce"]), *values)
    else:
        change = bd.posteriors.ExactGP.from_hyperparameters(x, y, *values).moment_map()
    return BeliefDynamics(
        change,
        state_size=size,
        action_size=actions,
        inputs=[*inputs, *range(lifted, lifted + actions)],
        angles=angles,
        absolute=[i for i in range(size) if i not in columns(case, "difi_1based")],
    )


def control(case: dict, parameters: Parameters, size: int) -> MomentMap:
    squash = SquashSat(tensor(case["maxU"]))
    return Columns(columns(case, "poli_1based"), size).then(parameters.map()).then(squash)


def costs(case: dict, lifted: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    size = case["D"]
    target = bd.moments.Lift(size, columns(case, "angi_1based"))(tensor(case["cost_target"]))
    rows = torch.zeros(2, len(target), dtype=torch.float64)
    p = case["cost_p"][0]
    rows[0, 0] = case["scenario"] == "cartPole"
    rows[0, size], rows[1, size + 1] = p, p
    each = [SaturatingCost(target, rows / width) for width in case["cost_width"]]
    mean, cov, _ = each[0].moments(lifted.mean, lifted.cov)
    return mean.squeeze(-1), cov.squeeze((-2, -1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_it_is_the_original(case: dict) -> None:
    """Tolerances: spec page of the golden numbers; the pendulum's are the original's own rounding."""
    loose = case["scenario"] == "pendulum"
    parameters, step = Parameters(case), dynamics(case)
    policy = control(case, parameters, step.lift.size)
    start = Belief(tensor(case["m0"]), tensor(case["S0"]))

    one = step.step(start, policy)
    torch.testing.assert_close(one.mean, tensor(case["one_step_M"]), rtol=1e-5 if loose else 1e-10, atol=1e-12)
    torch.testing.assert_close(one.cov, tensor(case["one_step_S"]), rtol=1e-5 if loose else 1e-7, atol=1e-10)

    path = propagate(step, policy, start, case["H"])
    torch.testing.assert_close(path.mean, tensor(case["M"]), rtol=0, atol=1e-5 if loose else 1e-6)
    torch.testing.assert_close(path.cov, tensor(case["S"]), rtol=0, atol=1e-5 if loose else 1e-6)

    mean, var = costs(case, step.lift.moments(*path))
    weights = case["cost_gamma"] ** torch.arange(1, case["H"] + 1, dtype=torch.float64)
    value = (weights * mean[1:]).sum()
    torch.testing.assert_close(mean, tensor(case["cost_mean"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(var.clamp_min(0).sqrt(), tensor(case["cost_std"]), rtol=0, atol=1e-5 if loose else 2e-6)
    assert value.item() == pytest.approx(case["J"], rel=1e-8)

    slopes = torch.autograd.grad(value, parameters.leaves)
    names = ("inputs", "targets", "log_hyp") if parameters.kind == "congp" else ("w", "b")
    for name, slope in zip(names, slopes, strict=True):
        wanted = tensor(case[f"dJ_{name}"])
        wanted = wanted[: slope.shape[1]].mT if name == "log_hyp" else wanted
        scale = float(wanted.abs().max())
        torch.testing.assert_close(slope, wanted.reshape(slope.shape), rtol=0, atol=(1e-5 if loose else 1e-7) * scale + 1e-12)


def swing_up(
    rows: int = 60, *, angles: tuple[int, ...] = (3,), ignore: tuple[int, ...] = (), absolute: tuple[int, ...] = ()
) -> bd.DynamicsModel:
    """A Gaussian process of the cart-pole, in the units of its codec."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    action = 5 * torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    data = bd.Transitions.from_arrays(state, action, bd.envs.CartPolePlant().step(state, action))
    training = GPTraining(max_steps=20, restarts=0)
    model = bd.DynamicsModel(bd.Codec(angles=angles, ignore=ignore, absolute=absolute), bd.posteriors.ExactGP(training=training))
    model.fit(data)
    return model


BELIEF = Belief(tensor([0.1, -0.3, 0.2, 2.5]), tensor([0.05, 0.2, 0.3, 0.1]).diag() + 0.01)


@pytest.mark.parametrize("options", [{}, {"ignore": (0,)}, {"absolute": (1,)}], ids=["differences", "ignored", "absolute"])
def test_a_known_state_moves_as_the_model_predicts(options: dict) -> None:
    model = swing_up(**options)
    action = tensor([3.0])
    moved = model.belief_dynamics().step(Belief(BELIEF.mean, torch.zeros(4, 4, dtype=torch.float64)), Held(action))
    expected = model.predict(BELIEF.mean, action)
    torch.testing.assert_close(moved.mean, expected.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved.cov.diagonal(), expected.epistemic_variance, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("absolute", [(), (1,)], ids=["differences", "absolute"])
def test_without_angles_one_step_is_exact(absolute: tuple[int, ...]) -> None:
    """The features are then Gaussian: mean, covariance and cov(s, s') lie within 5 standard errors of 10^5 samples."""
    model, count = swing_up(angles=(), absolute=absolute), 100_000
    moved = model.belief_dynamics().moments(BELIEF, Held(tensor([3.0])))
    cross = BELIEF.cov @ moved.gain
    z = torch.randn(count, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state = BELIEF.mean + z @ torch.linalg.cholesky(BELIEF.cov).mT
    predictive = model.predict(state, tensor([3.0]).expand(count, 1))
    after = predictive.mean
    centred = after - moved.mean
    products = centred[:, :, None] * centred[:, None] + torch.diag_embed(predictive.epistemic_variance)
    with_before = (state - BELIEF.mean)[:, :, None] * centred[:, None]
    for ours, samples in ((moved.mean, after), (moved.cov, products), (cross, with_before)):
        assert bool(((samples.mean(0) - ours).abs() < 5 * samples.std(0) / count**0.5).all())


def test_turning_by_full_turns_changes_nothing() -> None:
    dynamics = swing_up().belief_dynamics()
    turned = BELIEF._replace(mean=BELIEF.mean + 2 * torch.pi * tensor([0.0, 0.0, 0.0, 1.0]))
    here, there = dynamics.step(BELIEF, Held(tensor([1.0]))), dynamics.step(turned, Held(tensor([1.0])))
    torch.testing.assert_close(there.cov, here.cov, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(there.mean - turned.mean, here.mean - BELIEF.mean, rtol=1e-9, atol=1e-12)


def test_process_noise_is_added_and_no_other_noise_is() -> None:
    model = swing_up()
    quiet, noisy = (model.belief_dynamics(process_noise=on).step(BELIEF, Held(tensor([1.0]))).cov for on in (False, True))
    added = model.posterior.noise_var * model.codec.target_std**2
    torch.testing.assert_close(noisy - quiet, added.diag(), rtol=1e-9, atol=1e-15)


def test_noisy_observations_reach_the_policy_only() -> None:
    """Under a linear policy u = k s the belief's step is known: the control's covariance has k V kᵀ more, and cov(s, u) has not."""
    model = swing_up()
    noise = tensor([0.1, 0.2, 0.3, 0.4])
    gain = tensor([[1.0, -0.5, 0.2, 0.3, 0.0, 0.0]])
    seen: list[Moments] = []

    class Spy(MomentMap):
        def moments(self, mean: torch.Tensor, cov: torch.Tensor) -> Moments:
            seen.append(Linear(gain, tensor([0.0])).moments(mean, cov))
            return seen[-1]

    dynamics = model.belief_dynamics(observation_noise=noise)
    dynamics.step(BELIEF, Spy())
    known = gain[:, :4] @ (BELIEF.cov + noise.diag()) @ gain[:, :4].mT
    torch.testing.assert_close(seen[0].cov, known)
    torch.testing.assert_close(seen[0].mean, gain[:, :4] @ BELIEF.mean)


def lifted_system(noise: torch.Tensor | None) -> BeliefDynamics:
    """δ is linear in [w, θ, sin θ, cos θ, u] of a state (w, θ): with a linear control its moments have no approximation left."""
    change = Linear([[0.0, 0.0, 1.0, 0.5, 1.0], [0.0, 0.0, -0.3, 1.0, 0.8]])
    return BeliefDynamics(change, state_size=2, action_size=1, inputs=range(5), angles=[1], observation_noise=noise)


def test_what_a_policy_sees_with_noise_goes_with_the_state_as_in_samples() -> None:
    control = Linear([[0.1, 0.2, 1.0, -0.7]])
    belief, noise = Belief(tensor([0.3, 0.7]), tensor([[0.5, 0.2], [0.2, 0.8]])), tensor([0.2, 0.3])
    generator, count = torch.Generator().manual_seed(0), 400_000
    normals = torch.randn(2, count, 2, generator=generator, dtype=torch.float64)
    state = belief.mean + normals[0] @ torch.linalg.cholesky(belief.cov).mT
    dynamics = lifted_system(noise)
    action = control(dynamics.lift(state + noise.sqrt() * normals[1]))
    moved = state + dynamics.change(torch.cat([dynamics.lift(state), action], -1))
    found = dynamics.moments(belief, control)
    away, before = moved - found.mean, state - belief.mean
    for drawn, wanted in (
        (away, torch.zeros(2)),
        (away.unsqueeze(-1) * away.unsqueeze(-2), found.cov),
        (before.unsqueeze(-1) * away.unsqueeze(-2), belief.cov @ found.gain),
    ):
        error = drawn.std(0) / count**0.5
        assert bool(((drawn.mean(0) - wanted).abs() < 5 * error).all())


JOINTS = tensor([[1.0, 0, 0, 0], [-1, 1, 0, 0], [0, 0, 1, 0], [0, 0, -1, 1]])


def test_relative_coordinates_are_those_of_a_system_of_joints() -> None:
    """With z = Ts for the state, T⁻¹ behind the change and no `relative`, the same belief moves to the same one."""
    generator = torch.Generator().manual_seed(1)
    x, y, lengthscale = (torch.rand(*size, generator=generator, dtype=torch.float64) for size in ((9, 8), (9, 4), (4, 8)))
    values = (1 + lengthscale, torch.ones(4).double(), torch.full((4,), 0.01).double())
    change = bd.posteriors.ExactGP.from_hyperparameters(x, y, *values).moment_map()
    links = BeliefDynamics(change, state_size=4, action_size=2, inputs=range(2, 10), angles=[2, 3], relative={1: 0, 3: 2})
    by_joints = change.then(Linear(JOINTS))
    joints = BeliefDynamics(by_joints, state_size=4, action_size=2, inputs=range(2, 10), angles=[2, 3])
    start, held = Belief(tensor([0.3, -0.2, 0.5, 1.0]), BELIEF.cov), Held(tensor([0.4, -0.6]))
    found = links.moments(start, held)
    other = joints.moments(Belief(JOINTS @ start.mean, JOINTS @ start.cov @ JOINTS.mT), held)
    torch.testing.assert_close(JOINTS @ found.mean, other.mean)
    torch.testing.assert_close(JOINTS @ found.cov @ JOINTS.mT, other.cov)
    torch.testing.assert_close(found.gain @ JOINTS.mT, JOINTS.mT @ other.gain)


def test_relative_coordinates_go_with_what_a_policy_sees_as_in_samples() -> None:
    """The change is linear in [v, θ, φ, sin θ, cos θ, sin(φ - θ), cos(φ - θ), u], the policy in [v, θ, φ, sin θ, ..., cos φ]."""
    generator, count = torch.Generator().manual_seed(0), 400_000
    change, control = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((3, 8), (1, 7)))
    noise = tensor([0.2, 0.3, 0.1])
    dynamics = BeliefDynamics(
        Linear(change), state_size=3, action_size=1, inputs=range(8), angles=[1, 2], relative={2: 1}, observation_noise=noise
    )
    belief = Belief(tensor([0.3, 0.7, -0.4]), tensor([[0.5, 0.2, 0.1], [0.2, 0.8, 0.3], [0.1, 0.3, 0.6]]))
    normals = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    state = belief.mean + normals[0] @ torch.linalg.cholesky(belief.cov).mT
    action = dynamics.lift(state + noise.sqrt() * normals[1]) @ control.mT
    joints = torch.cat([state[:, :2], state[:, 2:] - state[:, 1:2]], 1)
    moved = state + torch.cat([dynamics.lift(joints), action], 1) @ change.mT
    found = dynamics.moments(belief, Linear(control))
    away, before = moved - found.mean, state - belief.mean
    for drawn, wanted in (
        (away, torch.zeros(3)),
        (away.unsqueeze(-1) * away.unsqueeze(-2), found.cov),
        (before.unsqueeze(-1) * away.unsqueeze(-2), belief.cov @ found.gain),
    ):
        error = drawn.std(0) / count**0.5
        assert bool(((drawn.mean(0) - wanted).abs() < 5 * error).all())


def test_no_noise_is_no_noise() -> None:
    control, belief = Linear([[0.1, 0.2, 1.0, -0.7]]), Belief(tensor([0.3, 0.7]), tensor([[0.5, 0.2], [0.2, 0.8]]))
    quiet, none = (lifted_system(noise).moments(belief, control) for noise in (tensor([0.0, 0.0]), None))
    for part, same in zip(quiet, none, strict=True):
        torch.testing.assert_close(part, same, rtol=1e-13, atol=1e-14)


def test_a_change_of_another_size_and_a_negative_horizon_are_refused() -> None:
    """One number would otherwise be added to every coordinate."""
    single = BeliefDynamics(Linear([[1.0, 1.0]]), state_size=2, action_size=1, inputs=[0, 2])
    start, held = Belief(tensor([0.0, 0.0]), torch.eye(2).double()), Held(tensor([1.0]))
    control = Linear([[1.0, 0.0]])
    for step in (lambda: single.step(start, held), lambda: propagate(single, control, start, 1)):
        with pytest.raises(ShapeError, match="each of 2 coordinates; the map gives 1"):
            step()
    with pytest.raises(ConfigurationError, match="horizon >= 0; got -1"):
        propagate(lifted_system(None), control, start, -1)


def test_noise_that_is_none_is_refused() -> None:
    with pytest.raises(ShapeError, match="one variance for each of 2"):
        lifted_system(tensor([0.1]))
    with pytest.raises(ConfigurationError, match="at least 0"):
        lifted_system(tensor([0.1, -0.1]))


def test_several_beliefs_move_as_each_alone() -> None:
    dynamics = swing_up().belief_dynamics()
    means = BELIEF.mean + tensor([[0.0] * 4, [0.1] * 4, [-0.5] * 4])
    together = propagate(dynamics, Held(tensor([2.0])), Belief(means, BELIEF.cov.expand(3, 4, 4)), 3)
    for i, mean in enumerate(means):
        alone = propagate(dynamics, Held(tensor([2.0])), Belief(mean, BELIEF.cov), 3)
        torch.testing.assert_close(together.mean[:, i], alone.mean)
        torch.testing.assert_close(together.cov[:, i], alone.cov)


def test_what_does_not_fit_is_refused() -> None:
    model = swing_up()
    with pytest.raises(ShapeError, match="mean"):
        propagate(model.belief_dynamics(), Held(tensor([1.0])), Belief(tensor([0.0]), tensor([[0.0]])), 2)
    with pytest.raises(ShapeError, match="1 controls"):
        model.belief_dynamics().step(BELIEF, Held(tensor([1.0, 2.0])))
    with pytest.raises(ConfigurationError, match="inputs"):
        BeliefDynamics(Linear(tensor([[1.0]]), tensor([0.0])), state_size=1, action_size=1, inputs=[2])
    discrete = bd.DynamicsModel(bd.Codec(choices={0: 2}), bd.posteriors.ExactGP(training=GPTraining(max_steps=5, restarts=0)))
    rows = torch.rand(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    discrete.fit(bd.Transitions.from_arrays(rows, torch.tensor([[0.0], [1.0]] * 4, dtype=torch.float64), rows.flip(0)))
    with pytest.raises(ConfigurationError, match="columns of state"):
        discrete.belief_dynamics()


def test_rollouts_match_moments_in_closed_form_where_there_is_one() -> None:
    """Whatever the draws, the particles of a matched rollout have the mean and covariance of the propagated belief."""
    model, actions = swing_up(), tensor([[3.0], [-2.0], [1.0]])
    dynamics = model.sample(3, torch.Generator().manual_seed(0))
    trajectory = bd.rollout(
        dynamics,
        BELIEF.mean,
        actions,
        lambda s, a, s2: s2[..., 0],
        start_cov=BELIEF.cov,
        particles=4,
        propagation=bd.MomentMatching(),
        generator=torch.Generator().manual_seed(1),
    )
    belief, moving = BELIEF, model.belief_dynamics(process_noise=True)
    for t in range(4):
        particles = trajectory.states[t].flatten(0, 1)
        torch.testing.assert_close(particles.mean(0), belief.mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(particles.mT.cov(correction=0), belief.cov, rtol=1e-8, atol=1e-8)
        belief = moving.step(belief, Held(actions[min(t, 2)]))


def test_a_reward_of_state_and_successor_sees_pairs() -> None:
    """E[(x' - x)²] of one step from an uncertain start, against the moments of (x, x'): 5 standard errors of 4,000 pairs."""
    model, action = swing_up(), tensor([[3.0]])
    trajectory = bd.rollout(
        model.sample(40, torch.Generator().manual_seed(0)),
        BELIEF.mean,
        action,
        lambda s, a, s2: (s2[..., 3] - s[..., 3]).square(),
        start_cov=BELIEF.cov,
        particles=100,
        propagation=bd.MomentMatching(),
        generator=torch.Generator().manual_seed(1),
    )
    moved = model.belief_dynamics(process_noise=True).moments(BELIEF, Held(action[0]))
    cross = (BELIEF.cov @ moved.gain)[3, 3]
    known = (moved.mean - BELIEF.mean)[3].square() + BELIEF.cov[3, 3] + moved.cov[3, 3] - 2 * cross
    paid = trajectory.rewards.flatten()
    assert abs(paid.mean() - known) < 5 * paid.std() / len(paid) ** 0.5


def test_draws_keep_the_closed_form_of_their_fit() -> None:
    model = swing_up()
    dynamics = model.sample(1, torch.Generator().manual_seed(0))
    before = model.belief_dynamics(process_noise=True).step(BELIEF, Held(tensor([1.0])))
    state, action = BELIEF.mean[None] + 0.1, tensor([[1.0]])
    model.append(bd.Transitions.from_arrays(state, action, state + 1.0))
    torch.testing.assert_close(dynamics.beliefs.step(BELIEF, Held(tensor([1.0]))).mean, before.mean)
    assert not torch.allclose(model.belief_dynamics().step(BELIEF, Held(tensor([1.0]))).mean, before.mean)
