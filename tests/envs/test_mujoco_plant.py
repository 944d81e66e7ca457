"""A simulator as a planner's callable: scores are what the environment pays, for its own tasks and for Gymnasium's."""

import sys

import gymnasium
import numpy as np
import pytest
import torch

from bayesdyn.envs import CartPoleSwingUp, EachObservation, KnownPlant, Reacher3DReward, make
from bayesdyn.errors import ConfigurationError, MissingExtraError, ShapeError
from bayesdyn.planners import CEM, Box

mujoco = pytest.importorskip("mujoco")
OURS = ["bayesdyn/Reacher3D-v0", "bayesdyn/PETSPusher-v0", "bayesdyn/PETSHalfCheetah-v0"]


def candidates(env, horizon=12, batch=1, count=5, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    high = torch.from_numpy(env.action_space.high).double()
    return scale * high * (2 * torch.rand(horizon, batch, count, len(high), generator=generator, dtype=torch.float64) - 1)


def warmed_up(name, steps=6, **options):
    """Return an environment in the middle of an episode: the solver has a memory, the arm has a speed."""
    env = gymnasium.make(name, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        env.step(env.action_space.sample())
    return env


def reacher_reward(state, action, next_state):
    """Gymnasium's Reacher-v5, from its documentation: -‖finger - target‖ - 0.1 ‖a‖²."""
    return -torch.linalg.vector_norm(next_state[..., 8:10], dim=-1) - 0.1 * action.square().sum(-1)


def height(state, action, next_state):
    """The double pendulum's fall, as its own y <= 1 would say: links of 0.6 m, obs[3:5] are the cosines, obs[1:3] the sines."""
    sin, cos = next_state[..., 1:3], next_state[..., 3:5]
    return 0.6 * (cos[..., 0] + cos[..., 0] * cos[..., 1] - sin[..., 0] * sin[..., 1])


@pytest.mark.parametrize("name", OURS)
def test_a_score_is_what_the_environment_pays(name):
    env = warmed_up(name)
    actions = candidates(env)
    scores = env.unwrapped.known_plant()(actions)
    paid = sum(env.step(action.numpy())[1] for action in actions[:, 0, 3])
    assert scores.shape == (1, 5)
    assert float(scores[0, 3]) == pytest.approx(paid, abs=1e-9)
    assert scores.std() > 0.1


def test_the_environment_is_not_touched():
    env = warmed_up(OURS[2])
    before, plant = env.unwrapped.state.copy(), env.unwrapped.known_plant()
    first = plant(candidates(env))
    np.testing.assert_array_equal(env.unwrapped.state, before)
    torch.testing.assert_close(plant(candidates(env)), first, rtol=0, atol=0)
    env.step(env.action_space.sample())
    assert not torch.equal(plant(candidates(env)), first), "the plant did not follow the environment"


def test_scores_do_not_depend_on_threads_order_or_batch():
    env = warmed_up(OURS[2])
    actions = candidates(env, batch=2, count=7)
    scores = env.unwrapped.known_plant()(actions)
    torch.testing.assert_close(env.unwrapped.known_plant(threads=3)(actions), scores, rtol=0, atol=0)
    torch.testing.assert_close(env.unwrapped.known_plant()(actions.flip(2)), scores.flip(1), rtol=0, atol=0)
    torch.testing.assert_close(env.unwrapped.known_plant()(actions[:, 1:]), scores[1:], rtol=0, atol=0)


def test_gymnasiums_reacher_scores_what_it_pays():
    """Body positions lag behind by one simulator step in what Gymnasium observes, and so here."""
    env = warmed_up("Reacher-v5", reward_control_weight=0.1)
    actions = candidates(env)
    scores = KnownPlant(env, reacher_reward)(actions)
    paid = sum(env.step(action.numpy())[1] for action in actions[:, 0, 2])
    assert float(scores[0, 2]) == pytest.approx(paid, abs=1e-9)


def test_gymnasiums_observations_are_its_own():
    env = warmed_up("InvertedDoublePendulum-v5", steps=2)
    actions = candidates(env, horizon=3, scale=0.1)
    observer = EachObservation(env)
    seen = observer.following(KnownPlant(env, reacher_reward).run(actions[:, 0].permute(1, 0, 2)))
    np.testing.assert_array_equal(observer.present(), env.unwrapped._get_obs())
    for t in range(3):
        wanted = env.step(actions[t, 0, 4].numpy())[0]
        np.testing.assert_allclose(seen[4, t], wanted, rtol=0, atol=1e-9)


def test_rewards_end_with_the_step_that_terminates():
    env = warmed_up("InvertedDoublePendulum-v5", steps=2)
    actions = candidates(env, horizon=30, count=4)
    ones = lambda s, a, s2: torch.ones_like(s2[..., 0])  # noqa: E731
    scores = KnownPlant(env, ones, termination=lambda s, a, s2: height(s, a, s2) <= 1)(actions)
    for candidate, score in enumerate(scores[0]):
        env = warmed_up("InvertedDoublePendulum-v5", steps=2)
        done = [env.step(action.numpy())[2] for action in actions[:, 0, candidate]]
        assert int(score) == (done.index(True) + 1 if True in done else 30)
    assert scores.min() < 30


def test_discount():
    env = warmed_up(OURS[0])
    actions = candidates(env, horizon=6)
    ones = lambda s, a, s2: torch.ones_like(s2[..., 0])  # noqa: E731
    scores = KnownPlant(env, ones, observer=env.unwrapped, discount=0.5)(actions)
    torch.testing.assert_close(scores, torch.full((1, 5), 2 - 2**-5, dtype=torch.float64))


def test_actions_saturate_and_pay_for_what_is_applied():
    env = warmed_up(OURS[0])
    actions = candidates(env, scale=3.0)
    limit = torch.from_numpy(env.action_space.high).double()
    plant = env.unwrapped.known_plant()
    torch.testing.assert_close(plant(actions), plant(actions.clamp(-limit, limit)), rtol=0, atol=0)


def test_a_divergence_is_the_worst(tmp_path, monkeypatch):
    """The simulator starts over at time 0 when it diverges, which must not look like a good idea."""
    monkeypatch.chdir(tmp_path)  # MuJoCo logs the divergence there
    env = gymnasium.make(OURS[2]).unwrapped
    env.reset(options={"state": np.concatenate((np.zeros(9), np.full(9, 1e9)))})
    scores = env.known_plant(lambda s, a, s2: torch.ones_like(s2[..., 0]))(candidates(env))
    assert (scores == -torch.inf).all()


def test_a_reward_that_is_not_finite_is_the_worst():
    env = warmed_up(OURS[0])
    for bad in (torch.nan, torch.inf, -torch.inf):
        poisoned = lambda s, a, s2, bad=bad: torch.where(a[..., 0] > 10, bad, 0.0)  # noqa: E731
        actions = candidates(env)
        scores = env.unwrapped.known_plant(poisoned)(actions)
        hit = (actions[..., 0] > 10).any(0)
        assert hit.any()
        assert torch.equal(scores == -torch.inf, hit)


def test_a_planner_plans_with_it():
    """From rest towards a goal beside the hand, torques for free: the plan comes nearer than doing nothing does."""
    env = gymnasium.make(OURS[0]).unwrapped
    state = np.zeros(20)
    state[7:10] = 0.93, 0.1, 0.0
    env.reset(options={"state": state})
    planner, plant = CEM(horizon=10, candidates=60, elites=8, iterations=4), env.known_plant(Reacher3DReward(action_cost=0.0))
    box = Box.of(env.action_space.low.tolist(), env.action_space.high.tolist(), torch.float64)
    plan = planner.plan(plant, planner.start(box), torch.Generator().manual_seed(0))
    assert not bool(plan.failed)
    assert float(plan.best_score) > 0.9 * float(plant(torch.zeros(10, 1, 1, 7, dtype=torch.float64)))


def test_says_what_is_wrong(monkeypatch):
    env = warmed_up(OURS[0])
    plant = env.unwrapped.known_plant()
    with pytest.raises(ShapeError, match="takes 7 actions"):
        plant(torch.zeros(3, 1, 2, 6))
    with pytest.raises(ConfigurationError, match="no gradient"):
        plant(torch.zeros(3, 1, 2, 7, requires_grad=True))
    with pytest.raises(ConfigurationError, match="threads"):
        env.unwrapped.known_plant(threads=0)
    with pytest.raises(ConfigurationError, match=r"known_plant\(\)"):
        KnownPlant(env, reacher_reward)
    with pytest.raises(ConfigurationError, match="CartPoleSwingUp"):
        KnownPlant(CartPoleSwingUp(), reacher_reward)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(MissingExtraError, match=r"bayesdyn\[mujoco\]"):
        env.unwrapped.known_plant()
    with pytest.raises(MissingExtraError, match=r"bayesdyn\[mujoco\]"):
        make(OURS[0])
