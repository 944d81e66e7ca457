"""Dynamics models: physical units, the split of uncertainty, draws that stay, files that load into a fresh model."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bayesdyn as bd
from bayesdyn.data import Log, lagged
from bayesdyn.errors import ConfigurationError, DataError, FileError, NotFittedError, ShapeError
from bayesdyn.kernels import RBFLinear
from bayesdyn.networks import Training
from bayesdyn.posteriors.base import Posterior

TRAINING = Training(steps=300)
POSTERIORS: dict[str, Callable[[], Posterior]] = {
    "ExactGP": lambda: bd.posteriors.ExactGP(features=512),
    "BootstrapEnsemble": lambda: bd.posteriors.BootstrapEnsemble(members=3, hidden=(16,), training=TRAINING),
}


def pendulum_data(seed: int = 0, scale: tuple[float, float] = (1.0, 1.0)) -> bd.Transitions:
    """Return 60 noisy rows of a driven pendulum, each coordinate times its scale."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(60, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.5, 1.0], dtype=torch.float64)
    action = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    noise = 0.02 * torch.randn(60, 2, generator=generator, dtype=torch.float64)
    after = state + 0.2 * torch.stack([state[:, 1], action[:, 0] - state[:, 0].sin()], 1) + noise
    units = torch.tensor(scale, dtype=torch.float64)
    return bd.Transitions.from_arrays(state * units, action, after * units)


def fitted(name: str, data: bd.Transitions | None = None, codec: bd.Codec | None = None) -> bd.DynamicsModel:
    """Return a model fitted with a fixed seed."""
    model = bd.DynamicsModel(codec or bd.Codec(), POSTERIORS[name]())
    model.fit(data or pendulum_data(), generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture(scope="module", params=list(POSTERIORS))
def model(request: pytest.FixtureRequest) -> bd.DynamicsModel:
    """A fitted model of each kind, with an angle."""
    return fitted(request.param, codec=bd.Codec(angles=[0]))


def queries(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return 7 states and actions."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, 2, generator=generator).to(dtype), torch.randn(7, 1, generator=generator).to(dtype)


@pytest.mark.parametrize("name", POSTERIORS)
def test_prediction_is_in_physical_units(name: str) -> None:
    """A coordinate in units 1/c: mean times c, variances times c², log density of one coordinate less log c."""
    scale = (1.0, 1e-3)
    one, other = fitted(name), fitted(name, pendulum_data(scale=scale))
    units = torch.tensor(scale, dtype=torch.float64)
    state, action = queries()
    p, q = one.predict(state, action), other.predict(state * units, action)
    # Both fits meet the same whitened data up to rounding, which a float32 network sees as 1e-7 of a standard deviation.
    tolerance = {"rtol": 1e-3, "atol": 1e-6} if name == "BootstrapEnsemble" else {"rtol": 1e-6, "atol": 1e-9}
    torch.testing.assert_close(q.mean / units, p.mean, **tolerance)
    torch.testing.assert_close(q.epistemic_variance / units**2, p.epistemic_variance, **tolerance)
    torch.testing.assert_close(q.aleatoric_variance / units**2, p.aleatoric_variance, **tolerance)
    truth = p.mean + p.stddev
    torch.testing.assert_close(q.log_prob(truth * units), p.log_prob(truth) - math.log(scale[1]), rtol=1e-2, atol=1e-2)


def test_density_of_the_state_is_that_of_the_target_less_the_log_units(model: bd.DynamicsModel) -> None:
    """log p(s' | s, a) = log p(y | x) - Σ log std, and variance is epistemic + aleatoric."""
    data = pendulum_data(seed=1)
    state, action, after = data.state[:9], data.action[:9], data.next_state[:9]
    predictive, target = model.predict(state, action), model.predict_target(state, action)
    want = target.log_prob(model.codec.target(state, after)) - model.codec.target_std.log().sum()
    # The network's answer is float32 before it is given its units.
    torch.testing.assert_close(predictive.log_prob(after), want.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predictive.variance, predictive.epistemic_variance + predictive.aleatoric_variance)
    torch.testing.assert_close(
        predictive.aleatoric_variance, target.aleatoric_variance.double() * model.codec.target_std.square(), rtol=1e-6, atol=0
    )


def test_predictions_learn_the_dynamics(model: bd.DynamicsModel) -> None:
    """The mean beats s' = s on rows that the fit has not seen."""
    data = pendulum_data(seed=2)
    error = model.predict(data.state, data.action).mean - data.next_state
    assert error.square().mean() < 0.5 * (data.state - data.next_state).square().mean()


def test_whole_turns_of_an_angle_carry_through(model: bd.DynamicsModel) -> None:
    """From s + 2π the model moves to s' + 2π, with the same uncertainty."""
    state, action = queries()
    turn = torch.tensor([2 * math.pi, 0.0], dtype=torch.float64)
    here, there = model.predict(state, action), model.predict(state + turn, action)
    torch.testing.assert_close(there.mean, here.mean + turn, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there.variance, here.variance, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_answer_in_the_dtype_and_shape_of_the_states(model: bd.DynamicsModel, dtype: torch.dtype) -> None:
    """[n or 1, ..., S] and [n or 1, ..., A] -> [n, ..., S]; a dtype other than the draws' own is cast and comes back."""
    state, action = queries(dtype)
    for own in (None, torch.float32, torch.float64):
        dynamics = model.sample(6, torch.Generator().manual_seed(0), dtype=own)
        answer = dynamics(state[None], action.double()[None])
        assert answer.mean.dtype == answer.var.dtype == dtype
        assert answer.mean.shape == answer.var.shape == (6, 7, 2)
        assert bool((answer.var >= 0).all())
        each = dynamics(state.expand(6, 7, 2), action[:1].expand(6, 1, 1))
        alone = dynamics(state[None, 3:4], action[None, :1])
        torch.testing.assert_close(each.mean[:, 3:4], alone.mean, rtol=1e-4, atol=1e-5)
    assert model.predict(state, action).mean.dtype == dtype


def test_draws_are_the_posterior_s_own_functions_in_physical_units(model: bd.DynamicsModel) -> None:
    """Dynamics = decode ∘ function ∘ encode, with the codec's own formulas as reference."""
    dynamics = model.sample(4, torch.Generator().manual_seed(0), dtype=torch.float64)
    codec = model.codec.frozen(torch.float64)
    state, action = (part.unsqueeze(0) for part in queries())
    want = codec.decode(state, action, dynamics.function(codec.encode(state, action)))
    got = dynamics(state, action)
    torch.testing.assert_close(got.mean, want.mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got.var, want.var, rtol=1e-10, atol=0)


def test_draws_spread_as_the_predictive_says(model: bd.DynamicsModel) -> None:
    """Over many draws, mean and epistemic variance meet the predictive's within 5 standard errors.

    A multiple of the 3 members is dealt evenly, so the ensemble's mixture is met exactly. A GP's paths have 512 random features:
    their standard deviation is off by about 1.13/√512 = 5 %, so three of these are 30 % of a variance.
    """
    state, action = queries()
    predictive = model.predict(state, action)
    means = model.sample(999, torch.Generator().manual_seed(0), dtype=torch.float64)(state[None], action[None]).mean
    std = predictive.epistemic_variance.sqrt()
    assert ((means.mean(0) - predictive.mean).abs() <= (5 / 999**0.5 + 0.02) * std + 1e-4).all()
    assert ((means.var(0, correction=0) / predictive.epistemic_variance).log().abs() < 0.3 + 5 * (2 / 999) ** 0.5).all()


@pytest.mark.parametrize("name", POSTERIORS)
def test_draws_stay_when_the_model_learns_more(name: str) -> None:
    """The same input gives the same answer, bit for bit, also after another fit, a load and a change of mode."""
    model = fitted(name)
    dynamics = model.sample(5, torch.Generator().manual_seed(0))
    state, action = (part.unsqueeze(0) for part in queries())
    before = dynamics(state, action)
    old = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    model.fit(pendulum_data(seed=1, scale=(3.0, 0.1)), generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        after = dynamics(state, action)
        assert after.mean.equal(before.mean)
        assert after.var.equal(before.var)
        model.load_state_dict(old)
    fresh = model.sample(5, torch.Generator().manual_seed(0))(state, action)
    torch.testing.assert_close(fresh.mean, before.mean)


def test_draws_are_differentiable_in_state_and_action(model: bd.DynamicsModel) -> None:
    dynamics = model.sample(3, torch.Generator().manual_seed(0), dtype=torch.float64)
    state, action = (part[None, :2].clone().requires_grad_() for part in queries())
    assert torch.autograd.gradcheck(lambda s, a: tuple(dynamics(s, a)), (state, action))


@pytest.mark.parametrize("name", POSTERIORS)
def test_lagged_models_predict_the_newest_output_and_draw_whole_states(name: str) -> None:
    """`predict` speaks of the predicted coordinates, a draw of the whole next state, whose known part has variance 0."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(60, 2, generator=generator, dtype=torch.float64).cumsum(0)
    log = Log.from_arrays(torch.arange(60.0), output, torch.randn(60, 1, generator=generator))
    data = lagged(log, 2, 3)
    model = bd.DynamicsModel(bd.LagCodec(2, 3, channels=2), POSTERIORS[name]())
    model.fit(data, generator=generator)
    assert model.predict(data.state, data.action).mean.shape == (len(data), 2)
    answer = model.sample(3, generator, dtype=torch.float64)(data.state[None], data.action[None])
    assert answer.mean.shape == (3, len(data), 6)
    assert answer.mean[..., 2:].equal(data.next_state[:, 2:].expand(3, -1, -1))
    assert answer.var[..., 2:].abs().sum() == 0
    assert bool((answer.var[..., :2] > 0).all())


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_saved_model_loads_into_a_fresh_one(name: str, tmp_path: Path) -> None:
    model = fitted(name, codec=bd.Codec(angles=[0]))
    path = tmp_path / "model.safetensors"
    model.save(path)
    fresh = bd.DynamicsModel(bd.Codec(angles=[0]), POSTERIORS[name]())
    fresh.load(path)
    state, action = queries()
    for old, new in (
        (model.predict(state, action), fresh.predict(state, action)),
        tuple(m.sample(4, torch.Generator().manual_seed(0))(state[None], action[None]) for m in (model, fresh)),
    ):
        assert new.mean.equal(old.mean)


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    """Another posterior, another codec, or the same codec with other angles: named, and the model stays as it was."""
    path = tmp_path / "model.safetensors"
    fitted("ExactGP", codec=bd.Codec(angles=[0])).save(path)
    for codec, name, message in (
        (bd.Codec(angles=[0]), "BootstrapEnsemble", "posterior.class: 'ExactGP' there, 'BootstrapEnsemble' now"),
        (bd.Codec(angles=[1]), "ExactGP", r"codec.angles: \[0\] there, \[1\] now"),
        (bd.Codec(), "ExactGP", r"codec.angles: \[0\] there, \[\] now"),
    ):
        other = fitted(name, codec=codec)
        state, action = queries()
        before = other.predict(state, action).mean
        with pytest.raises(FileError, match=message):
            other.load(path)
        assert other.predict(state, action).mean.equal(before)


def test_a_file_of_a_posterior_with_other_options_is_refused(tmp_path: Path) -> None:
    """The tensors of two kernels, or of two activations, have one shape; what tells them apart is in the file too."""
    path = tmp_path / "model.safetensors"
    fitted("ExactGP").save(path)
    other = bd.DynamicsModel(bd.Codec(), bd.posteriors.ExactGP(RBFLinear()))
    with pytest.raises(FileError, match=r"posterior\.kernel\.class: 'RBF' there, 'RBFLinear' now"):
        other.load(path)


def test_a_file_whose_tensors_do_not_fit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    """The kernel decides which tensors there are; a file that lacks some is refused as a whole."""
    path = tmp_path / "model.safetensors"
    model = fitted("ExactGP")
    tensors = dict(model.state_dict())
    del tensors["posterior.y"]
    bd.data.storage.save_tensors(path, tensors, {"settings": json.dumps(model._settings())}, kind="model")
    other = fitted("ExactGP", pendulum_data(seed=5))
    state, action = queries()
    before = other.predict(state, action).mean
    with pytest.raises(FileError, match="does not fit this model"):
        other.load(path)
    assert other.predict(state, action).mean.equal(before)
    unfitted = bd.DynamicsModel(bd.Codec(), POSTERIORS["ExactGP"]())
    with pytest.raises(FileError, match="does not fit this model"):
        unfitted.load(path)
    with pytest.raises(NotFittedError):
        unfitted.predict(state, action)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    model = fitted("ExactGP")
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileError, match=r"model\.safetensors"):
        model.load(path)
    model.save(path)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"model\.safetensors"):
        model.load(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=r"model\.safetensors"):
        model.load(path)


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_fit_that_fails_leaves_the_model_as_it_was(name: str) -> None:
    """Codec and posterior still belong together when the new data could not be learned from."""
    model = fitted(name)
    state, action = queries()
    before = model.predict(state, action).mean
    with pytest.raises(DataError):
        model.fit(pendulum_data(seed=1, scale=(5.0, 5.0)).select([0]))
    assert model.predict(state, action).mean.equal(before)


def test_errors_say_what_came_and_what_was_wanted(model: bd.DynamicsModel) -> None:
    state, action = queries()
    dynamics = model.sample(3, torch.Generator().manual_seed(0))
    wanted = r"states of size 2 and actions of size 1; got state \[1, 7, 3\] and action \[1, 7, 1\]"
    with pytest.raises(ShapeError, match=wanted):
        dynamics(torch.zeros(1, 7, 3), torch.zeros(1, 7, 1))
    with pytest.raises(ShapeError, match=r"states of size 2 and actions of size 1"):
        model.predict(state, torch.zeros(7, 2))
    with pytest.raises(ShapeError, match="leading axes that broadcast"):
        dynamics(torch.zeros(1, 7, 2), torch.zeros(1, 5, 1))
    with pytest.raises(ShapeError):
        dynamics(torch.zeros(2, 7, 2), torch.zeros(1, 7, 1))
    with pytest.raises(ConfigurationError, match="n >= 1"):
        model.sample(0)
    unfitted = bd.DynamicsModel(bd.Codec(), POSTERIORS["ExactGP"]())
    with pytest.raises(NotFittedError):
        unfitted.sample(1)
    with pytest.raises(NotFittedError):
        unfitted.predict(state, action)


def test_a_rollout_of_a_model_keeps_one_theta(model: bd.DynamicsModel) -> None:
    """Without noise of its own, a trajectory of draw j is that of draw j alone, step by step; finite in float32 over 50 steps."""
    dynamics = model.sample(4, torch.Generator().manual_seed(0), dtype=torch.float64)
    actions = torch.zeros(5, 3, 1, dtype=torch.float64)
    start = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = bd.TSInf().draw_noise(5, 4, 2, 2, torch.Generator().manual_seed(2), torch.float64)
    states = bd.rollout(dynamics, start, actions, lambda s, a, after: after[..., 0], noise=noise).states
    for t in range(5):
        moved = dynamics(states[t], actions[t].expand(4, 2, 3, 1))
        torch.testing.assert_close(states[t + 1], moved.sample(noise.normal[t].unsqueeze(2)), rtol=1e-9, atol=1e-9)
    long = bd.rollout(
        model.sample(4, torch.Generator().manual_seed(0), dtype=torch.float32),
        start.float(), torch.zeros(50, 3, 1), lambda s, a, after: after[..., 0], generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    assert long.states.dtype == torch.float32
    assert long.finite.all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_episodes_are_refused_with_the_way_to_transitions() -> None:
    with pytest.raises(DataError, match=r"got a list: Transitions.from_episodes"):
        bd.DynamicsModel(bd.Codec(), POSTERIORS["ExactGP"]()).fit([bd.Episode.from_arrays([[0.0], [1.0]], [[1.0]])])
