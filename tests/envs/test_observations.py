"""Rewards, terminations and infos in the observation: read back exactly, learned as targets, planned with."""

import gymnasium
import numpy as np
import pytest
import torch

import bayesdyn as bd
from bayesdyn.envs import (
    ExtendedObservation,
    HalfCheetahV5Reward,
    ObservedReward,
    ObservedTermination,
    PendulumV1Reward,
    make,
    pendulum_v1_step,
)
from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import ICEM, Box

pytest.importorskip("mujoco")


def transitions(env, count, seed=0):
    """Return `count` random transitions and their rewards and terminations, over as many episodes as it takes."""
    env.action_space.seed(seed)
    rows, episode = [], 0
    state, _ = env.reset(seed=seed)
    for _ in range(count):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((state, action, following, reward, terminated, episode))
        state = following
        if terminated or truncated:
            episode += 1
            state, _ = env.reset()
    env.close()
    return [torch.from_numpy(np.stack([np.asarray(row[i], dtype=np.float64) for row in rows])) for i in range(6)]


def test_rewards_and_terminations_are_read_exactly():
    env = ExtendedObservation(gymnasium.make("InvertedDoublePendulum-v5"), reward=True, terminated=True)
    state, action, following, reward, done, _ = transitions(env, 120)
    assert 1 < done.sum() < 119
    assert torch.equal(env.observed_reward()(state, action, following), reward)
    assert torch.equal(env.observed_termination()(state, action, following), done.bool())
    assert (env.observed_reward(), env.observed_termination()) == (ObservedReward(9), ObservedTermination(10))


def test_the_observation_before_is_the_one_after_without_the_new_coordinates():
    plain, extended = gymnasium.make("Pendulum-v1"), make("Pendulum-v1", observe_reward=True)
    first, _ = plain.reset(seed=4)
    begun, _ = extended.reset(seed=4)
    np.testing.assert_array_equal(begun, [*first, 0.0])
    for action in ([0.5], [-1.0]):
        (expected, reward, *_), (seen, paid, *_) = plain.step(np.array(action)), extended.step(np.array(action))
        np.testing.assert_array_equal(seen, [*expected, reward])
        assert paid == reward
    np.testing.assert_array_equal(extended.reset(seed=4)[0], begun)


def test_infos_come_last_and_are_found_by_name():
    env = ExtendedObservation(gymnasium.make("HalfCheetah-v5"), reward=True, infos=("x_position", "x_velocity"))
    state, action, following, reward, *_ = transitions(env, 100)
    assert [env.index_of(name) for name in ("x_position", "x_velocity")] == [18, 19]
    speed = env.index_of("x_velocity")
    # Gymnasium squares and adds the float32 actions in float32: six terms up to 1, times 0.1.
    tolerance = 0.1 * 6 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(HalfCheetahV5Reward(speed)(state, action, following), reward, rtol=0, atol=tolerance)
    later = state[:, 18] != 0  # not the first of an episode
    assert later.sum() == 99
    torch.testing.assert_close((following - state)[later, 18], 0.05 * following[later, 19], rtol=0, atol=1e-9)
    assert env.codec_options() == {"ignore": [17, 18, 19], "absolute": [17, 18, 19]}


def test_gymnasium_accepts_it_and_can_remake_it():
    env = make("bayesdyn/PETSCartPole-v0", observe_reward=True, observe_infos=("tip_distance",))
    assert env.observation_space.shape == (6,)
    assert env.observation_space.contains(env.reset(seed=0)[0])
    assert env.observation_space.contains(env.step(np.array([1.0], np.float32))[0])
    again = gymnasium.make(env.spec)
    np.testing.assert_array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])


def test_refuses_what_it_cannot_append():
    with pytest.raises(ConfigurationError, match="FlattenObservation"):
        ExtendedObservation(gymnasium.make("FrozenLake-v1"), reward=True)
    with pytest.raises(ConfigurationError, match="choose"):
        ExtendedObservation(gymnasium.make("Pendulum-v1"))
    with pytest.raises(ConfigurationError, match="once"):
        make("HalfCheetah-v5", observe_infos=("x_velocity", "x_velocity"))
    for name, words in (("speed", "x_velocity"), ("state", "number")):
        env = make("HalfCheetah-v5" if name == "speed" else "bayesdyn/PETSCartPole-v0", observe_infos=(name,))
        env.reset(seed=0)
        with pytest.raises(ConfigurationError, match=words):
            env.step(env.action_space.sample())
    env = ExtendedObservation(gymnasium.make("Pendulum-v1"), reward=True)
    with pytest.raises(ConfigurationError, match="terminated=True"):
        env.observed_termination()
    with pytest.raises(ConfigurationError, match="infos"):
        env.index_of("speed")


def test_a_learned_reward_is_planned_with(unchecked_shapes):
    env = ExtendedObservation(gymnasium.make("Pendulum-v1", max_episode_steps=6), reward=True)
    state, action, following, _, _, episode = transitions(env, 240)
    data = bd.Transitions.from_arrays(state, action, following, episode=episode)
    model = bd.DynamicsModel(bd.Codec(**env.codec_options()), bd.posteriors.ExactGP())
    model.fit(data, generator=torch.Generator().manual_seed(0))

    # On fresh episodes the learned reward explains nearly all of the true one.
    probe = transitions(env, 120, seed=1)
    predicted = env.observed_reward()(probe[0], probe[1], model.predict(probe[0], probe[1]).mean)
    assert (predicted - probe[3]).square().mean() < 0.1 * probe[3].var()

    agent = bd.MPC(model, ICEM(horizon=8, candidates=40), env.observed_reward(), draws=4)
    starts = probe[0][::8]
    agent.reset(Box.of([-2.0], [2.0]), batch=len(starts), generator=torch.Generator().manual_seed(0))
    agent.act(starts)
    planned = agent.decision.plan.actions.reshape(8, len(starts), 1).double()
    draws = 4 * torch.rand(8, 64, len(starts), 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 2

    def earned(actions):
        place, total = starts[:, :3].expand(*actions.shape[1:-1], 3), 0.0
        for held in actions:
            place, before = pendulum_v1_step(place, held), place
            total = total + PendulumV1Reward()(before, held, place)
        return total

    gain = earned(planned) - earned(draws).mean(0)
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5
