"""A learned model as a TorchRL environment: TorchRL's own check, one θ per episode, its planners, policies and gradients."""

import sys
from typing import Any

import pytest
import torch
from gains import Gains, Plant, at_origin, nearness
from gymnasium import spaces

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError, MissingExtraError, NotFittedError
from bayesdyn.imagination import torchrl as adapter
from bayesdyn.imagination import torchrl_env

tensordict = pytest.importorskip("tensordict", exc_type=ImportError)
pytest.importorskip("torchrl.envs", exc_type=ImportError)

FORCE = spaces.Box(-1.0, 1.0, (1,))


def make(model: Any = None, space: Any = FORCE, horizon: int = 5, **given: Any) -> Any:
    return torchrl_env(model or Gains(0.1), nearness, given.pop("start_states", at_origin), space, horizon, **given)


@pytest.mark.parametrize("episodes", [None, 1, 7])
@pytest.mark.parametrize("space", [FORCE, spaces.Discrete(3), spaces.MultiDiscrete([3])], ids=str)
def test_torchrls_own_check_passes(space: Any, episodes: int | None) -> None:
    from torchrl.envs.utils import check_env_specs

    env = make(space=space, episodes=episodes, horizon=2)
    check_env_specs(env, break_when_any_done="both")
    assert env.batch_size == torch.Size([] if episodes is None else [episodes])


def test_each_episode_has_one_theta_of_its_own() -> None:
    """θ = (s' - s)/a stays within an episode of five steps, and every number of "draw" has one θ; resets may be partial."""
    env = make(Gains(), episodes=6, draws=4, horizon=5, termination=lambda s, a, s2: s2[..., 0] > 1.0)
    steps = env.rollout(40, break_when_any_done=False)
    theta = (steps["next", "observation"] - steps["observation"]) / steps["action"]
    found: dict[int, list[float]] = {}
    for name, value in zip(steps["draw"].flatten().tolist(), theta.flatten().tolist(), strict=True):
        found.setdefault(name, []).append(value)
    assert all(max(values) - min(values) < 1e-3 for values in found.values())
    assert len(found) > 2
    same = steps["elapsed"][:, 1:] > 0
    assert bool((steps["draw"][:, 1:] == steps["draw"][:, :-1])[same].all())
    assert steps["next", "terminated"].any()
    assert steps["next", "truncated"].any()


def test_a_rollout_is_that_of_bayesdyn() -> None:
    """Rewards under a TorchRL policy, without noise, are those of `bayesdyn.rollout` under the same one."""
    from tensordict.nn import TensorDictModule

    policy = torch.nn.Linear(1, 1)
    env = make(Plant(lambda s, a: 0.9 * s + 0.2 * a), start_states=torch.ones(1, 1), episodes=3, horizon=20)
    steps = env.rollout(10, TensorDictModule(policy, in_keys=["observation"], out_keys=["action"]))
    plant = bd.PlainDynamics(lambda s, a: bd.Gaussian(0.9 * s + 0.2 * a, torch.zeros_like(s)))
    imagined = bd.rollout(plant, torch.ones(3, 1), policy, nearness, horizon=10)
    torch.testing.assert_close(steps["next", "reward"].squeeze(-1).T, imagined.rewards[:, 0, 0].detach())


def test_steps_are_differentiable_in_the_actions() -> None:
    """d Σ r / d a of a two-step episode under s' = s + θa, r = -|s'|: -θ·sign(s₁) - θ·sign(s₂), then -θ·sign(s₂)."""
    env = make(Gains(), episodes=1)
    start = env.reset()
    action = torch.tensor([[[0.5]], [[0.25]]], requires_grad=True)
    first = env.step(start.set("action", action[0]))["next"]
    second = env.step(first.clone().set("action", action[1]))["next"]
    (first["reward"] + second["reward"]).sum().backward()
    theta = float(first["observation"].detach() / 0.5)
    # a is positive, so both states have the sign of θ, and θ·sign(θ) = |θ|
    torch.testing.assert_close(action.grad.flatten(), torch.tensor([-2 * abs(theta), -abs(theta)]))


def test_torchrls_planner_plans_in_it() -> None:
    """CEM of TorchRL expands episodes by its candidates; from s = 3 under s' = s + a it drives down at the bound."""
    from torchrl.modules import CEMPlanner

    env = make(Plant(lambda s, a: s + a), start_states=torch.full((1, 1), 3.0), horizon=50)
    torch.manual_seed(0)
    planner = CEMPlanner(env, planning_horizon=3, optim_steps=4, num_candidates=100, top_k=10)
    steps = env.rollout(3, planner, tensordict=env.reset(tensordict.TensorDict({}, [2])), auto_reset=False)
    assert steps["next", "observation"][:, -1].abs().max() < 0.6


def test_a_step_that_is_not_finite_ends_the_episode() -> None:
    plant = Plant(lambda s, a: torch.where(s > 0.5, torch.nan, s + 1))
    env = make(plant, episodes=2, failure_reward=-9.0)
    steps = env.rollout(5)
    assert steps["next", "reward"][0].flatten().tolist() == [-1.0, -9.0]
    assert steps["next", "terminated"][0].flatten().tolist() == [False, True]
    assert steps["next", "observation"].isfinite().all()


def test_seeds_decide_everything() -> None:
    def states(seed: int) -> torch.Tensor:
        env = make(episodes=3)
        env.set_seed(seed)
        idle = env.reset().set("action", torch.ones(3, 1))
        return env.step(idle)["next", "observation"]

    assert states(1).equal(states(1))
    assert not states(1).equal(states(2))


def test_an_episode_whose_theta_is_gone_cannot_go_on() -> None:
    env = make(episodes=2)
    old = env.reset().set("action", torch.zeros(2, 1))
    env.reset()
    with pytest.raises(NotFittedError, match="drawn θ anew"):
        env.step(old)


def test_what_cannot_be_imagined_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="act in Box"):
        make(space=spaces.MultiBinary(2))
    for wrong in ({"episodes": 0}, {"episodes": -1}, {"horizon": 0}):
        with pytest.raises(ConfigurationError, match="horizon >= 1"):
            make(**wrong)
    adapter._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "torchrl.envs", None)
    with pytest.raises(MissingExtraError, match=r"bayesdyn\[rl\]"):
        make()
    monkeypatch.undo()
    adapter._environment.cache_clear()
    make()
