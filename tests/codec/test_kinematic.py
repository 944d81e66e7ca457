"""The codec of mechanisms: positions follow from speeds exactly as they did in the data; what follows is not asked of the model."""

from typing import Any

import pytest
import torch
from reference_posteriors import ConjugateRegression

from bayesdyn.codec import KinematicCodec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.model import DynamicsModel

# State: [q0, goal, q1, v0, v1, tip, load], two mechanisms with weights of their own; the tip is q0 + q1.
SPEEDS = {0: 3, 2: 4}
OLD, NEW = torch.tensor([0.02, 0.01]).double(), torch.tensor([0.03, 0.04]).double()


def tip(state: torch.Tensor) -> torch.Tensor:
    return state[..., :1] + state[..., 2:3]


def transitions(rows: int = 50, seed: int = 0, load: float = 1.0) -> Transitions:
    """Return rows of a mechanism whose positions move by 0.02 v + 0.03 v' and 0.01 v + 0.04 v'."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(rows, 7, generator=generator, dtype=torch.float64)
    state[:, 5:6] = tip(state)
    action = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    following = state.clone()
    following[:, 3:5] += 0.1 * action - 0.05 * state[:, 3:5]
    following[:, [0, 2]] += OLD * state[:, 3:5] + NEW * following[:, 3:5]
    following[:, 5:6] = tip(following)
    following[:, 6] += load * torch.randn(rows, generator=generator, dtype=torch.float64)
    return Transitions.from_arrays(state, action, following)


def fitted(**options: Any) -> KinematicCodec:
    codec = KinematicCodec(SPEEDS, **{"constant": [1], "derived": [5], "derive": tip, **options})
    codec.fit(transitions())
    return codec


def test_the_weights_of_the_speeds_are_those_of_the_integrator_that_made_the_data() -> None:
    torch.testing.assert_close(fitted().weights, torch.stack([OLD, NEW]), atol=1e-12, rtol=1e-9)


def test_the_true_target_decodes_to_the_true_next_state() -> None:
    codec, data = fitted(), transitions(seed=1)
    target = codec.target(data.state, data.next_state)
    assert codec.outputs == [3, 4, 6]
    decoded = codec.decode(data.state, data.action, Gaussian(target[None], torch.zeros_like(target)[None]))
    torch.testing.assert_close(decoded.mean[0], data.next_state, atol=1e-12, rtol=1e-9)


def test_a_mechanism_may_have_nothing_that_stays() -> None:
    codec, data = KinematicCodec({0: 1}), transitions()
    columns = [0, 3]
    both = data.state[:, columns], data.next_state[:, columns]
    codec.fit(Transitions.from_arrays(both[0], data.action, both[1]))
    target = codec.target(*both)
    decoded = codec.decode(both[0], data.action, Gaussian(target[None], torch.zeros_like(target)[None]))
    torch.testing.assert_close(decoded.mean[0], both[1], atol=1e-12, rtol=1e-9)


def test_positions_have_the_variance_that_their_speeds_give_them_and_what_is_known_has_none() -> None:
    codec, data = fitted(), transitions(seed=1)
    mean = torch.zeros(3, len(data.state), 3, dtype=torch.float64)
    var = torch.rand(mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decoded = codec.decode(data.state, data.action, Gaussian(mean, var)).var
    speeds = decoded[..., [3, 4]]
    torch.testing.assert_close(speeds, (var * codec.target_std.square())[..., :2])
    torch.testing.assert_close(decoded[..., [0, 2]], NEW.square() * speeds)
    assert decoded[..., [1, 5]].eq(0).all()


def test_each_draw_continues_from_a_state_of_its_own_or_from_a_shared_one() -> None:
    codec, data = fitted(), transitions(rows=4)
    target = Gaussian(torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(3, 4, 3).double())
    shared = codec.decode(data.state[None], data.action[None], target).mean
    own = codec.decode(data.state.expand(3, -1, -1), data.action, target).mean
    assert shared.equal(own)
    one = codec.decode(data.state, data.action, Gaussian(target.mean[1:2], target.var[1:2])).mean
    assert shared[1].equal(one[0])


def test_features_leave_out_what_is_ignored_and_add_what_is_asked() -> None:
    data = transitions()
    codec = fitted(ignore=[1, 5], extra=lambda state: state[..., 6:] - state[..., 5:6])
    kept, load = data.state[:, [0, 2, 3, 4, 6]], data.state[:, 6:] - data.state[:, 5:6]
    assert codec.features(data.state, data.action).equal(torch.cat([kept, data.action, load], 1))


def test_differences_are_whitened_by_no_less_than_what_counts() -> None:
    still, data = KinematicCodec(SPEEDS, least={6: 0.25, 4: 1e-6}), transitions(load=0.0)
    still.fit(data)
    plain = KinematicCodec(SPEEDS)
    plain.fit(data)
    load = still.outputs.index(6)
    assert still.target_std[load] == 0.25
    torch.testing.assert_close(still.target_std[1], plain.target_std[1])
    # What never moved is imagined to stay, to within the least change times the model's error in whitened units.
    assert still.unwhiten(Gaussian(torch.full((5,), 0.01), torch.zeros(5))).mean[load] == pytest.approx(0.0025)


def test_every_draw_of_a_model_keeps_to_the_mechanism() -> None:
    model = DynamicsModel(KinematicCodec(SPEEDS, constant=[1, 6], derived=[5], derive=tip), ConjugateRegression())
    model.fit(transitions(load=0.0))
    data = transitions(seed=2, load=0.0)
    dynamics = model.sample(5, torch.Generator().manual_seed(0))
    following = dynamics(data.state[None], data.action[None]).mean
    speeds = following[..., [3, 4]]
    torch.testing.assert_close(following[..., [0, 2]], data.state[:, [0, 2]] + OLD * data.state[:, [3, 4]] + NEW * speeds)
    torch.testing.assert_close(following[..., 5:6], tip(following))
    assert following[..., [1, 6]].eq(data.state[:, [1, 6]]).all()


def test_wrong_options_are_refused() -> None:
    for options in (
        {"constant": [3]},
        {"constant": [0]},
        {"derived": [5]},
        {"derive": tip},
        {"least": {0: 1.0}},
        {"least": {6: 0.0}},
    ):
        with pytest.raises(ConfigurationError):
            KinematicCodec(SPEEDS, **options)
    with pytest.raises(ConfigurationError, match="0 to 6"):
        KinematicCodec({0: 7}).fit(transitions())
    with pytest.raises(ConfigurationError, match="0 to 6"):
        KinematicCodec({0: 3}, ignore=[9]).fit(transitions())
    with pytest.raises(ShapeError, match="derive"):
        KinematicCodec(SPEEDS, derived=[5, 6], derive=tip).fit(transitions())


def test_the_weights_are_saved_with_the_model(tmp_path: Any) -> None:
    def make() -> DynamicsModel:
        return DynamicsModel(KinematicCodec(SPEEDS, derived=[5], derive=tip), ConjugateRegression())

    model, loaded = make(), make()
    model.fit(transitions())
    model.save(tmp_path / "model.safetensors")
    loaded.load(tmp_path / "model.safetensors")
    assert loaded.codec.weights.equal(model.codec.weights)
    assert loaded.codec.outputs == model.codec.outputs
