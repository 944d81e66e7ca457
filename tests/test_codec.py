"""Codecs: what goes in comes out, angles have no seam, units do not matter, and lags agree with the lagged log."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_posteriors import ConjugateRegression

from bayesdyn.codec import BaseCodec, Codec, IdentityCodec, LagCodec
from bayesdyn.data import LagLayout, Log, Transitions, lagged
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, DataError, FileError, NotFittedError, ShapeError
from bayesdyn.model import DynamicsModel

S, A = 5, 2


def transitions(rows: int = 40, seed: int = 0) -> Transitions:
    """Return unrelated rows with five state coordinates of different size and two actions."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 20.0, 0.01, 3.0, 1.0], dtype=torch.float64)
    state = torch.randn(rows, S, generator=generator, dtype=torch.float64) * scale + 1.0
    change = torch.randn(rows, S, generator=generator, dtype=torch.float64) * 0.3 * scale
    action = torch.randn(rows, A, generator=generator, dtype=torch.float64)
    return Transitions.from_arrays(state, action, state + change)


def fitted(data: Transitions | None = None, **options: Any) -> Codec:
    """Return a fitted codec."""
    codec = Codec(**options)
    codec.fit(data or transitions())
    return codec


OPTIONS: list[dict[str, Any]] = [
    {},
    {"angles": [3]},
    {"angles": [4, 1]},
    {"angles": [0, 1, 4]},
    {"ignore": [0, 2]},
    {"absolute": [0, 4]},
    {"angles": [3], "ignore": [0], "absolute": [2]},
    {"ignore": [1], "absolute": [1]},
    {"angles": [3, 4], "relative": {4: 3, 1: 0, 2: 1}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_features_are_linear_coordinates_then_sines_cosines_and_action(options: dict[str, Any]) -> None:
    data = transitions()
    angles, ignore, relative = options.get("angles", []), options.get("ignore", []), options.get("relative", {})
    joints = [data.state[:, i] - data.state[:, relative[i]] if i in relative else data.state[:, i] for i in range(S)]
    columns = [joints[i] for i in range(S) if i not in angles and i not in ignore]
    columns += [joints[i].sin() for i in angles] + [joints[i].cos() for i in angles]
    want = torch.cat([torch.stack(columns, 1), data.action], 1)
    assert Codec(**options).features(data.state, data.action).equal(want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_the_exact_target_decodes_to_the_next_state(options: dict[str, Any], dtype: torch.dtype) -> None:
    """decode(target(s, s')) = s', where angles may differ by whole turns."""
    data = transitions()
    codec = fitted(data, **options).frozen(dtype)
    state, action, after = data.state.to(dtype), data.action.to(dtype), data.next_state.to(dtype)
    target = codec.target(state, after)
    decoded = codec.decode(state, action, Gaussian(target, torch.ones_like(target)))
    turns = torch.zeros_like(after)
    for angle in options.get("angles", []):
        turns[:, angle] = ((after - decoded.mean)[:, angle] / (2 * math.pi)).round()
    tolerance = 300 * torch.finfo(dtype).eps
    torch.testing.assert_close(decoded.mean, after - 2 * math.pi * turns, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(decoded.var, codec.target_std.square().expand_as(after))
    assert decoded.mean.dtype == decoded.var.dtype == dtype


def test_whole_turns_change_nothing() -> None:
    """s + 2πk is the same state: same features, same targets."""
    data = transitions()
    codec = fitted(data, angles=[1, 3])
    turns = torch.zeros(len(data), S, dtype=torch.float64)
    turns[:, 1], turns[:, 3] = 2 * math.pi, -4 * math.pi
    torch.testing.assert_close(codec.encode(data.state + turns, data.action), codec.encode(data.state, data.action))
    torch.testing.assert_close(codec.target(data.state + turns, data.next_state), codec.target(data.state, data.next_state))
    torch.testing.assert_close(codec.target(data.state, data.next_state - turns), codec.target(data.state, data.next_state))


def test_angle_differences_lie_in_the_half_open_interval() -> None:
    """Differences are wrapped to (-π, π], with π itself and not -π at the seam."""
    pi = math.pi
    cases = {0.0: 0.0, pi: pi, -pi: pi, 0.75 * pi: 0.75 * pi, 1.25 * pi: -0.75 * pi, -1.25 * pi: 0.75 * pi, 2 * pi: 0.0}
    after = torch.tensor(list(cases), dtype=torch.float64).unsqueeze(1)
    change = Codec(angles=[0]).raw_target(torch.zeros_like(after), after)
    torch.testing.assert_close(change.flatten(), torch.tensor(list(cases.values()), dtype=torch.float64))
    many = torch.linspace(-30, 30, 10_001, dtype=torch.float64).unsqueeze(1)
    wrapped = Codec(angles=[0]).raw_target(torch.zeros_like(many), many)
    assert bool((wrapped > -pi).all() & (wrapped <= pi).all())
    torch.testing.assert_close(wrapped.sin(), many.sin())
    torch.testing.assert_close(wrapped.cos(), many.cos())


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_training_data_are_white(options: dict[str, Any]) -> None:
    """Mean 0 and population standard deviation 1 in each column of x and y."""
    data = transitions()
    codec = fitted(data, **options)
    for values in (codec.encode(data.state, data.action), codec.target(data.state, data.next_state)):
        torch.testing.assert_close(values.mean(0), torch.zeros_like(values[0]), atol=1e-12, rtol=0)
        torch.testing.assert_close(values.std(0, correction=0), torch.ones_like(values[0]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("unit", [1e-15, 1e-3, 1e9])
def test_units_do_not_matter(unit: float) -> None:
    """A coordinate in other units, however small its numbers, gives the same x and y."""
    data = transitions()
    scale = torch.tensor([1.0, unit, 1.0, 1.0, unit], dtype=torch.float64)
    scaled = Transitions.from_arrays(data.state * scale, data.action, data.next_state * scale)
    one, other = fitted(data), fitted(scaled)
    torch.testing.assert_close(other.encode(scaled.state, scaled.action), one.encode(data.state, data.action))
    torch.testing.assert_close(other.target(scaled.state, scaled.next_state), one.target(data.state, data.next_state))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_columns_are_centred_and_not_scaled(value: float, dtype: torch.dtype) -> None:
    """A coordinate that never changes, or only by rounding, must not be blown up to unit spread."""
    data = transitions()
    state, after = data.state.clone(), data.next_state.clone()
    state[:, 2] = value
    after[:, 2] = value * (1 + torch.finfo(dtype).eps * torch.randn(len(data), generator=torch.Generator().manual_seed(1)))
    action = torch.cat([data.action[:, :1], torch.full_like(data.action[:, :1], value)], 1)
    codec = fitted(Transitions.from_arrays(state, action, after).to(dtype))
    assert codec.feature_std[2] == codec.feature_std[-1] == codec.target_std[2] == 1
    x, y = codec.encode(state.to(dtype), action.to(dtype)), codec.target(state.to(dtype), after.to(dtype))
    assert x[:, [2, -1]].abs().max() <= 4 * abs(value) * torch.finfo(dtype).eps
    assert y[:, 2].abs().max() <= 10 * abs(value) * torch.finfo(dtype).eps


def test_one_row_is_centred() -> None:
    data = transitions(rows=1)
    assert fitted(data).encode(data.state, data.action).abs().max() == 0


def test_leading_axes_broadcast() -> None:
    codec = fitted()
    state, action = torch.zeros(3, 1, S, dtype=torch.float64), torch.ones(7, A, dtype=torch.float64)
    x = codec.encode(state, action)
    assert x.shape == (3, 7, S + A)
    assert x[2, 5].equal(codec.encode(state[2, 0], action[5]))
    with pytest.raises(ShapeError, match="leading axes"):
        codec.encode(torch.zeros(3, S), torch.zeros(2, A))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frozen_copies_outlive_a_later_fit(dtype: torch.dtype) -> None:
    data = transitions()
    codec = fitted(data, angles=[1])
    copy = codec.frozen(dtype)
    state, action = data.state.to(dtype), data.action.to(dtype)
    before = copy.encode(state, action)
    codec.fit(transitions(seed=1))
    assert copy.encode(state, action).equal(before)
    assert before.dtype == dtype
    assert not codec.encode(data.state, data.action).to(dtype).equal(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_dict_loads_into_a_fresh_codec(dtype: torch.dtype) -> None:
    data = transitions().to(dtype)
    codec, fresh = fitted(data, angles=[1]), Codec(angles=[1])
    fresh.load_state_dict(codec.state_dict())
    assert fresh.encode(data.state, data.action).equal(codec.encode(data.state, data.action))
    assert fresh.target_std.dtype == dtype
    assert fresh.outputs == codec.outputs == list(range(S))


def test_loading_leaves_the_tensors_that_others_hold() -> None:
    """What a state dict was taken from is not written into."""
    codec, other = fitted(), fitted(transitions(seed=1))
    kept, copied = codec.state_dict(), {k: v.clone() for k, v in codec.state_dict().items()}
    codec.load_state_dict(other.state_dict())
    assert all(kept[name].equal(copied[name]) for name in kept)


def test_errors_say_what_came_and_what_was_wanted() -> None:
    with pytest.raises(NotFittedError, match="Codec has seen no data"):
        Codec().encode(torch.zeros(1, S), torch.zeros(1, A))
    with pytest.raises(NotFittedError, match="Codec has seen no data"):
        Codec().target(torch.zeros(1, S), torch.zeros(1, S))
    with pytest.raises(ShapeError, match=r"size 5 and actions of size 2; got state \[1, 4\] and action \[1, 2\]"):
        fitted().encode(torch.zeros(1, 4), torch.zeros(1, A))
    with pytest.raises(ShapeError, match=r"\[\.\.\., 5\]; got \[1, 4\] and \[1, 4\]"):
        fitted().target(torch.zeros(1, 4), torch.zeros(1, 4))
    with pytest.raises(ConfigurationError, match=r"angles=\[1, 5\].*5 coordinates; got \[5\]"):
        fitted(angles=[1, 5])
    with pytest.raises(ConfigurationError, match=r"ignore=\[-1\]"):
        fitted(ignore=[-1])
    with pytest.raises(ConfigurationError, match=r"coordinates \[1\] are angles and also ignored"):
        Codec(angles=[1], ignore=[1])
    with pytest.raises(ConfigurationError, match=r"angles=\[1, 1\].*twice"):
        Codec(angles=[1, 1])
    for wrong in ({1: 1}, {5: 0}, {0: -1}, {1: 0}):
        with pytest.raises(ConfigurationError, match=r"pairs of different coordinates 0\.\.4, both angles or neither; got \d"):
            fitted(angles=[1], relative=wrong)
    with pytest.raises(ConfigurationError, match="goes in a circle"):
        fitted(relative={0: 2, 2: 3, 3: 0})
    assert fitted(relative={2: 0, 3: 2}).relative == {2: 0, 3: 2}
    with pytest.raises(ConfigurationError, match=r"coordinates \[1\] are relative and also ignored"):
        Codec(relative={1: 0}, ignore=[1])


def test_a_refused_fit_leaves_the_statistics() -> None:
    codec = fitted(angles=[4])
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    with pytest.raises(ConfigurationError):
        codec.fit(Transitions.from_arrays([[0.0], [1.0]], [[0.0], [1.0]], [[1.0], [2.0]]))
    assert all(codec.state_dict()[name].equal(before[name]) for name in before)


def chosen(rows: int = 60) -> Transitions:
    """Return rows with the actions [category of 3, force, category of 2]."""
    generator = torch.Generator().manual_seed(0)
    state, change = (torch.randn(rows, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    kinds = [torch.randint(k, (rows, 1), generator=generator).double() for k in (3, 2)]
    force = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    return Transitions.from_arrays(state, torch.cat([kinds[0], force, kinds[1]], 1), state + change)


def test_categories_enter_as_indicators_in_place_of_their_column() -> None:
    data = chosen()
    x = Codec(angles=[1], choices={2: 2, 0: 3}).features(data.state, data.action)
    wheel, force, gear = data.action.unbind(1)
    want = [torch.nn.functional.one_hot(wheel.long(), 3), force[:, None], torch.nn.functional.one_hot(gear.long(), 2)]
    assert x[:, 3:].equal(torch.cat(want, 1).double())
    assert x[:, :3].equal(Codec(angles=[1]).features(data.state, data.action)[:, :3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_categories_survive_every_dtype_and_leading_axes(dtype: torch.dtype) -> None:
    codec = Codec(choices={0: 200})
    action = torch.arange(200).to(dtype).reshape(4, 50, 1)
    x = codec.features(torch.zeros(4, 50, 1, dtype=dtype), action)
    assert x.dtype == dtype
    assert x[..., 1:].reshape(200, 200).equal(torch.eye(200, dtype=dtype))


def test_numbering_of_categories_does_not_matter() -> None:
    """Renamed categories permute the feature columns, nothing else: no category is between two others."""
    data = chosen()
    renamed = data.action.clone()
    order = torch.tensor([2, 0, 1])
    renamed[:, 0] = order[data.action[:, 0].long()].double()
    codecs = [Codec(choices={0: 3, 2: 2}) for _ in range(2)]
    codecs[0].fit(data)
    codecs[1].fit(Transitions.from_arrays(data.state, renamed, data.next_state))
    one, other = codecs[0].encode(data.state, data.action), codecs[1].encode(data.state, renamed)
    torch.testing.assert_close(other[:, 2:5][:, order], one[:, 2:5])
    torch.testing.assert_close(torch.cat([other[:, :2], other[:, 5:]], 1), torch.cat([one[:, :2], one[:, 5:]], 1))


@pytest.mark.parametrize("value", [3.0, -1.0, 0.5, math.nan])
def test_what_is_no_category_is_refused(value: float) -> None:
    """In training data, where the fit then changes nothing, and in questions."""
    data = chosen()
    codec = Codec(choices={0: 3})
    codec.fit(data)
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    wrong = data.action[:1].clone()
    wrong[0, 0] = value
    with pytest.raises(DataError, match=r"action column 0 wants category numbers.*0 to 2"):
        codec.encode(data.state[:1], wrong)
    with pytest.raises(DataError, match="action column 0" if math.isfinite(value) else "NaN|finite"):
        codec.fit(Transitions.from_arrays(data.state[:1].repeat(1, 2), wrong, data.next_state[:1].repeat(1, 2)))
    assert all(codec.state_dict()[name].equal(before[name]) for name in before)


def test_choices_that_fit_no_action_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"columns from 0 to 2, for actions of 3 coordinates; got \[3\]"):
        Codec(choices={3: 2}).fit(chosen())
    with pytest.raises(ConfigurationError, match="at least 1 category"):
        Codec(choices={0: 0})


def test_a_saved_model_knows_its_choices(tmp_path: Path) -> None:
    """It loads with the same choices only, and answers as before."""
    data = chosen()
    model = DynamicsModel(Codec(choices={0: 3, 2: 2}), ConjugateRegression())
    model.fit(data)
    model.save(tmp_path / "model.safetensors")
    fresh = DynamicsModel(Codec(choices={0: 3, 2: 2}), ConjugateRegression())
    fresh.load(tmp_path / "model.safetensors")
    answers = [m.predict(data.state, data.action).mean for m in (fresh, model)]
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)  # this posterior loads in float32
    with pytest.raises(FileError, match=r"codec\.choices"):
        DynamicsModel(Codec(choices={0: 3}), ConjugateRegression()).load(tmp_path / "model.safetensors")
    assert "choices={0: 3, 2: 2}" in repr(fresh.codec)


def test_a_model_learns_what_each_category_does() -> None:
    """s' = s + effect[category]: indicators find it; no quadratic in the numbers comes near 1, -1, 1, -1."""
    effect = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(300, 1, generator=generator, dtype=torch.float64)
    action = torch.randint(4, (300, 1), generator=generator).double()
    data = Transitions.from_arrays(state, action, state + effect[action.long()])
    question = torch.zeros(4, 1, dtype=torch.float64), torch.arange(4.0, dtype=torch.float64)[:, None]
    errors = []
    for choices in ({0: 4}, {}):
        model = DynamicsModel(Codec(choices=choices), ConjugateRegression())
        model.fit(data)
        errors.append((model.predict(*question).mean[:, 0] - effect).abs().max().item())
    assert errors[0] < 0.05
    assert errors[1] > 0.99  # third difference 8, over 1 + 3 + 3 + 1: any quadratic is off by 1 somewhere


LAGS = [(1, 1, 1, 1), (2, 2, 1, 1), (3, 1, 1, 1), (1, 3, 1, 1), (2, 3, 2, 1), (3, 2, 1, 2), (2, 4, 3, 2)]  # n_y, n_u, Y, U


def lagged_data(output_lags: int, input_lags: int, outputs: int, inputs: int) -> Transitions:
    """Return the lagged transitions of a random log."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(30, outputs, generator=generator, dtype=torch.float64).cumsum(0)
    control = torch.randn(30, inputs, generator=generator, dtype=torch.float64)
    return lagged(Log.from_arrays(torch.arange(30.0), output, control), output_lags, input_lags)


@pytest.mark.parametrize(("output_lags", "input_lags", "outputs", "inputs"), LAGS)
def test_lag_codec_moves_as_the_lagged_log_does(output_lags: int, input_lags: int, outputs: int, inputs: int) -> None:
    """Decoding the exact target of each row gives the next row's state: the other coordinates are copies, with variance 0."""
    data = lagged_data(output_lags, input_lags, outputs, inputs)
    codec = LagCodec(output_lags, input_lags, outputs)
    codec.fit(data)
    y = codec.target(data.state, data.next_state)
    decoded = codec.decode(data.state, data.action, Gaussian(y, torch.full_like(y, 0.5)))
    torch.testing.assert_close(decoded.mean, data.next_state, atol=1e-12, rtol=1e-12)
    assert decoded.mean[:, outputs:].equal(data.next_state[:, outputs:])
    assert decoded.var[:, outputs:].abs().sum() == 0
    torch.testing.assert_close(decoded.var[:, :outputs], 0.5 * codec.target_std.square().expand_as(y))
    assert codec.outputs == list(range(outputs))
    assert codec.encode(data.state, data.action).shape[1] == LagLayout(outputs, inputs, output_lags, input_lags).state_size + inputs


def test_lag_codec_broadcasts_draws() -> None:
    """A state and action without a draw axis of their own meet n targets."""
    data = lagged_data(3, 2, 2, 1)
    codec = LagCodec(3, 2, 2)
    codec.fit(data)
    targets = torch.randn(4, len(data), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    decoded = codec.decode(data.state[None], data.action[None], Gaussian(targets, targets.square()))
    assert decoded.mean.shape == decoded.var.shape == (4, *data.state.shape)
    alone = codec.decode(data.state, data.action, Gaussian(targets[2], targets[2].square()))
    assert decoded.mean[2].equal(alone.mean)


def test_lag_codec_names_what_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        LagCodec(0, 1)
    with pytest.raises(ConfigurationError, match=r"LagCodec\(output_lags=3, input_lags=2, channels=1\) wants .* 4 .* got 3"):
        LagCodec(3, 2).fit(lagged_data(2, 2, 1, 1))


@pytest.mark.parametrize(("codec", "sizes"), [(Codec(angles=[1]), (3, 1)), (LagCodec(2, 2), (3, 1))], ids=["markov", "lags"])
def test_encoding_and_decoding_are_differentiable(codec: BaseCodec, sizes: tuple[int, int]) -> None:
    """Gradients in state, action and target equal finite differences."""
    generator = torch.Generator().manual_seed(0)
    state, action, after = (torch.randn(6, k, generator=generator, dtype=torch.float64) for k in (*sizes, sizes[0]))
    codec.fit(Transitions.from_arrays(state, action, after))
    y = codec.target(state, after)
    inputs = tuple(t.clone().requires_grad_() for t in (state, action, y))
    assert torch.autograd.gradcheck(lambda s, a, _: codec.encode(s, a), inputs)
    assert torch.autograd.gradcheck(lambda s, a, t: codec.decode(s, a, Gaussian(t, t.square())), inputs)


@pytest.mark.parametrize("angles", [[], [0, 3]])
def test_the_identity_codec_leaves_states_and_actions_as_they_are(angles: list[int]) -> None:
    data, codec = transitions(), IdentityCodec(angles)
    with pytest.raises(NotFittedError):
        codec.encode(data.state, data.action)
    codec.fit(data)
    assert codec.outputs == list(range(S))
    assert codec.encode(data.state, data.action).equal(torch.cat([data.state, data.action], -1))
    turns = torch.zeros_like(data.state)
    whole = torch.randint(-2, 3, (len(turns), len(angles)), generator=torch.Generator().manual_seed(1))
    turns[:, angles] = 2 * math.pi * whole.double()
    target, turned = (codec.target(data.state, data.next_state + shift) for shift in (0.0, turns))
    torch.testing.assert_close(target, turned)
    assert bool(((target - data.state)[:, angles].abs() <= math.pi + 1e-9).all())
    others = [i for i in range(S) if i not in angles]
    assert target[:, others].equal(data.next_state[:, others])
    answer = codec.decode(data.state, data.action, Gaussian(target, torch.ones_like(target)))
    assert answer.mean.equal(target)
    fresh = IdentityCodec(angles)
    fresh.load_state_dict(codec.state_dict())
    assert fresh.target(data.state, data.next_state).equal(target)
    with pytest.raises(ConfigurationError, match="indices from 0 to 4"):
        IdentityCodec([5]).fit(data)
