"""A learned model as a Gymnasium environment: one θ per episode, Gymnasium's own checks, numbers that are not finite."""

import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gains import Gains, Plant, at_origin, nearness, options
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from reference_posteriors import ConjugateRegression

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.imagination import ImaginedEnv

PUSH = np.array([1.0], np.float32)


def learned(choices: dict[int, int] | None = None) -> tuple[bd.DynamicsModel, bd.Transitions]:
    """Return a model of a damped mass, fitted to noisy transitions, and these."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    action = torch.rand(60, 1, generator=generator, dtype=torch.float64) * 2 - 1
    if choices:
        action = torch.randint(choices[0], (60, 1), generator=generator).double()
    push = 0.2 * (action - action.mean())
    noise = 0.01 * torch.randn(60, 2, generator=generator, dtype=torch.float64)
    after = torch.cat([state[:, :1] + 0.2 * state[:, 1:], 0.9 * state[:, 1:] + push], 1) + noise
    data = bd.Transitions.from_arrays(state, action, after)
    model = bd.DynamicsModel(bd.Codec(choices=choices), ConjugateRegression(features=linear, noise_var=0.01))
    model.fit(data)
    return model, data


def linear(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.ones_like(x[..., :1]), x], -1)


@pytest.mark.parametrize("space", [spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(3), spaces.MultiDiscrete([3])], ids=str)
def test_gymnasiums_own_check_passes(space: gymnasium.Space[Any]) -> None:
    """Spaces, seeds, determinism, types of what is returned; without a warning."""
    model, data = learned(None if isinstance(space, spaces.Box) else {0: 3})
    observed = spaces.Box(-100.0, 100.0, (2,), np.float32)
    env = ImaginedEnv(model, nearness, data.state, space, 20, observation_space=observed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "For Box action spaces")  # recommends normalised actions, which these are
        check_env(env, skip_render_check=True)


def test_each_episode_has_one_theta_of_its_own() -> None:
    """θ = (s' - s)/a is the same in every step of an episode, and another one in the next; info["draw"] numbers them."""
    env = ImaginedEnv(**options())
    seen: dict[int, set[float]] = {}
    for episode in range(6):
        before, info = env.reset(seed=0 if episode == 0 else None)
        while True:
            after, *_, truncated, told = env.step(PUSH)
            assert told["draw"] == info["draw"]
            seen.setdefault(info["draw"], set()).add(round(float(after[0] - before[0]), 4))
            before = after
            if truncated:
                break
    assert list(seen) == list(range(6))
    assert [len(thetas) for thetas in seen.values()] == [1] * 6
    assert len(set.union(*seen.values())) == 6


def test_horizon_truncates_and_termination_terminates() -> None:
    env = ImaginedEnv(**options(model=Plant(lambda s, a: s + a), termination=lambda s, a, s2: s2[..., 0] > 2.5, horizon=4))
    env.reset(seed=0)
    assert [env.step(PUSH)[2:4] for _ in range(3)] == [(False, False), (False, False), (True, False)]
    env.reset()
    assert [env.step(0.1 * PUSH)[2:4] for _ in range(4)] == [(False, False)] * 3 + [(False, True)]


def test_seeds_decide_everything_and_nothing_global_moves() -> None:
    def episode(env: ImaginedEnv, seed: int | None) -> list[float]:
        observation, _ = env.reset(seed=seed)
        return [float(observation[0]), *(float(env.step(PUSH)[0][0]) for _ in range(5))]

    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (ImaginedEnv(**options(model=Gains(0.1), start_states=torch.arange(9.0)[:, None])) for _ in range(2))
    assert episode(one, 3) == episode(other, 3)
    assert episode(one, None) == episode(other, None)
    assert episode(one, 3) != episode(one, 4)
    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
def test_a_step_that_is_not_finite_ends_the_episode_and_says_so(bad: float) -> None:
    """The observation stays the last good one, the reward is the one for failing; 1e300 is no float32."""
    plant = Plant(lambda s, a: torch.where(s + a > 1.5, bad, s + a))
    env = ImaginedEnv(**options(model=plant, failure_reward=-7.0, dtype=torch.float64))
    env.reset(seed=0)
    assert env.step(PUSH)[4]["nonfinite"] is False
    observation, reward, terminated, truncated, info = env.step(PUSH)
    assert (observation.tolist(), reward, terminated, truncated) == ([1.0], -7.0, True, False)
    assert info["nonfinite"] is True
    _, info = env.reset()
    assert info["nonfinite"] is False


def test_a_reward_that_is_not_finite_is_no_reward() -> None:
    env = ImaginedEnv(**options(reward=lambda s, a, s2: s2[..., 0] / 0))
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(0 * PUSH)
    assert (reward, terminated, info["nonfinite"]) == (0.0, True, True)


def test_actions_reach_the_model_clipped_or_counted_from_zero() -> None:
    plant = Plant(lambda s, a: s + a)
    box = ImaginedEnv(**options(model=plant))
    box.reset(seed=0)
    assert box.step(np.array([3.0], np.float32))[0].tolist() == [1.0]
    counted = ImaginedEnv(**options(model=plant, action_space=spaces.Discrete(3, start=5)))
    counted.reset(seed=0)
    assert [counted.step(a)[0].tolist() for a in (5, 6, 7)] == [[0.0], [1.0], [3.0]]
    several = ImaginedEnv(
        **options(
            model=plant,
            action_space=spaces.MultiDiscrete([2, 3]),
            start_states=torch.zeros(1, 2),
        )
    )
    several.reset(seed=0)
    assert several.step(np.array([1, 2]))[0].tolist() == [1.0, 2.0]


def test_observations_are_the_callers_own() -> None:
    env = ImaginedEnv(**options())
    first, _ = env.reset(seed=0)
    first[:] = 9.0
    assert env.step(0 * PUSH)[0].tolist() == [0.0]
    assert first.dtype == np.float32


def test_what_cannot_be_imagined_is_refused() -> None:
    with pytest.raises(NotFittedError, match="call reset first"):
        ImaginedEnv(**options()).step(PUSH)
    env = ImaginedEnv(**options(horizon=1))
    env.reset(seed=0)
    env.step(PUSH)
    with pytest.raises(NotFittedError, match="after every end"):
        env.step(PUSH)
    with pytest.raises(ConfigurationError, match="horizon >= 1"):
        ImaginedEnv(**options(horizon=0))
    with pytest.raises(ShapeError, match=r"\[M, S\]"):
        ImaginedEnv(**options(start_states=torch.zeros(3)))
    with pytest.raises(ShapeError, match=r"states \[1, S\]"):
        ImaginedEnv(**options(start_states=lambda count, generator: torch.zeros(2, 1)))
    with pytest.raises(DataError, match="not finite"):
        ImaginedEnv(**options(start_states=torch.full((1, 1), math.nan)))
    wrong: list[tuple[type[Exception], str, dict[str, Any], np.ndarray]] = [
        (ConfigurationError, "act in Box", {"action_space": spaces.MultiBinary(2)}, np.zeros(2)),
        (ShapeError, r"want the shape \[1, 1\]", {}, np.zeros(2)),
        (ShapeError, "reward has to return one number per state", {"reward": lambda s, a, s2: s2}, PUSH),
        (ShapeError, "termination has to return one", {"termination": lambda s, a, s2: s2 > 0}, PUSH),
    ]
    for error, message, given, action in wrong:
        env = ImaginedEnv(**options(**given))
        env.reset(seed=0)
        with pytest.raises(error, match=message):
            env.step(action)


def test_imagined_returns_are_those_of_a_rollout() -> None:
    """The same θ, first state and actions, without noise: env and `rollout` agree to the last bit."""
    model, data = learned()
    quiet = Plant(lambda s, a: model.predict(s, a).mean.to(s.dtype))
    env = ImaginedEnv(quiet, nearness, data.state[:1], spaces.Box(-1.0, 1.0, (1,)), 10)
    observation, _ = env.reset(seed=0)
    actions = torch.rand(10, 1, generator=torch.Generator().manual_seed(1)) * 2 - 1
    rewards = [env.step(action.numpy())[1] for action in actions]
    dynamics = bd.PlainDynamics(lambda s, a: bd.Gaussian(quiet.step(s, a), torch.zeros_like(s)))
    imagined = bd.rollout(dynamics, torch.as_tensor(observation), actions, nearness)
    torch.testing.assert_close(torch.tensor(rewards), imagined.rewards.flatten())


def test_starts_come_from_the_states_that_were_given() -> None:
    states = torch.arange(4.0).reshape(4, 1)
    env = ImaginedEnv(**options(start_states=states))
    env.reset(seed=0)
    found = [float(env.reset()[0][0]) for _ in range(200)]
    counts = torch.bincount(torch.tensor(found).long(), minlength=4)
    assert set(found) == {0.0, 1.0, 2.0, 3.0}
    # binomial(200, 1/4): five standard deviations of 6.1
    assert bool(((counts - 50).abs() < 5 * math.sqrt(200 * 0.25 * 0.75)).all())
    assert at_origin(2, torch.Generator()).shape == (2, 1)


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (spaces.Discrete(3), 7),
        (spaces.Discrete(3, start=5), 4),
        (spaces.Discrete(3), 0.5),
        (spaces.Discrete(3), math.nan),
        (spaces.MultiDiscrete([3], start=[1]), [4]),
        (spaces.Box(-1.0, 1.0, (1,)), [math.nan]),
        (spaces.Box(-math.inf, math.inf, (1,)), [math.inf]),
    ],
    ids=str,
)
def test_actions_that_the_space_has_not_are_no_failure_of_the_model(space: gymnasium.Space[Any], action: Any) -> None:
    env = ImaginedEnv(**options(action_space=space))
    env.reset(seed=0)
    with pytest.raises(DataError, match="action"):
        env.step(np.array(action))
    assert env.step(space.sample())[4]["nonfinite"] is False
