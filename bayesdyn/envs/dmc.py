"""Three swing-up and reaching tasks of DeepMind Control as Gymnasium environments, without dm_control."""

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.dmc_rewards import TARGET_RADIUS, DMCCartPoleReward, DMCPendulumReward, DMCReacherReward
from bayesdyn.envs.mujoco_env import ASSETS, MujocoTask, load_mujoco
from bayesdyn.envs.mujoco_plant import KnownPlant
from bayesdyn.envs.plant import Numbers, Reward
from bayesdyn.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    import mujoco

DMC_STEPS = 1000
_LINK = 0.12


class DMCTask(MujocoTask):
    """A task of DeepMind Control: 1,000 simulator steps, rewards in [0, 1] on the state reached, observations in its order.

    An action is held for `action_repeat` simulator steps, whose rewards are added up, so that returns compare for any repeat; after
    1,000 simulator steps the episode is truncated. Its reward callable gives one simulator step's reward for the last of them.

    Raises `ConfigurationError` unless 1,000 is a multiple of `action_repeat`. Source: Tassa et al., arXiv:1801.00690.
    """

    def __init__(self, asset: str, reward: Reward, action_repeat: int, render_mode: str | None) -> None:
        if action_repeat < 1 or DMC_STEPS % action_repeat:
            raise ConfigurationError(f"action_repeat divides the {DMC_STEPS} steps of an episode; got {action_repeat}")
        model: mujoco.MjModel = load_mujoco().MjModel.from_xml_path(str(ASSETS / asset))
        self.action_repeat = action_repeat
        self._simulated = 0
        super().__init__(model, reward, 1, render_mode)

    @property
    def dt(self) -> float:
        """Seconds per action."""
        return super().dt * self.action_repeat

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a start state, or take the one in `options["state"]`, and return its observation."""
        self._simulated = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Numbers) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold `action` [A] for `action_repeat` steps and return (observation, summed reward, False, truncated, info)."""
        steps = [super(DMCTask, self).step(action) for _ in range(self.action_repeat)]
        self._simulated += self.action_repeat
        observation, _, terminated, _, info = steps[-1]
        return observation, sum(step[1] for step in steps), terminated, self._simulated >= DMC_STEPS, info

    def known_plant(self, reward: Reward | None = None, threads: int = 1) -> KnownPlant:
        """Return this simulator as a callable for planners, who see the last of an action's `action_repeat` rewards."""
        held = copy.copy(self)  # shares the model and the simulator's present state
        held.frame_skip = self.action_repeat
        return KnownPlant(held, reward or self.reward, observer=self, threads=threads)


class DMCCartPole(DMCTask):
    """DeepMind Control's cart-pole swing-up, `bayesdyn/DMCCartPole-v0`: 0.01 s steps, one action in ±1 (10 N).

    Observation (x, cos θ, sin θ, ẋ, θ̇), θ = 0 upright; state (x, θ, ẋ, θ̇) in m, rad, m/s, rad/s. Start: x and velocities
    N(0, 0.01²), θ N(π, 0.01²). Reward: `DMCCartPoleReward`.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/DMCCartPole-v0", action_repeat=2)
    >>> observation, info = env.reset(seed=0, options={"state": [0.0, 0.0, 0.0, 0.0]})
    >>> observation
    array([0., 1., 0., 0., 0.])
    """

    metadata: ClassVar[dict[str, Any]] = {**MujocoTask.metadata, "render_fps": 100}
    camera: ClassVar[dict[str, Any]] = {"distance": 5.0, "azimuth": 90.0, "elevation": -5.0, "lookat": np.array([0.0, 0.0, 1.0])}

    def __init__(self, action_repeat: int = 1, render_mode: str | None = None) -> None:
        super().__init__("dmc_cartpole.xml", DMCCartPoleReward(), action_repeat, render_mode)

    def start(self) -> np.ndarray:
        """Draw a state close to hanging at rest."""
        return np.array([0.0, math.pi, 0.0, 0.0]) + 0.01 * self.np_random.standard_normal(4)

    def observe(self, before: Float[Tensor, "*batch 4"], after: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 5"]:
        """Return (x, cos θ, sin θ, ẋ, θ̇)."""
        x, theta, x_dot, theta_dot = after.unbind(-1)
        return torch.stack((x, theta.cos(), theta.sin(), x_dot, theta_dot), -1)

    def measure(self, observation: Float[Tensor, "5"], state: Float[Tensor, "4"]) -> dict[str, float]:
        """Return the angle's cosine, 1 upright."""
        return {"upright": float(observation[1])}


class DMCPendulum(DMCTask):
    """DeepMind Control's pendulum swing-up, `bayesdyn/DMCPendulum-v0`: 0.02 s steps, one torque in ±1 N m (gravity's is 4.9).

    Observation (cos θ, sin θ, θ̇), θ = 0 upright; state (θ, θ̇) in rad and rad/s. Start: θ uniform in ±π, at rest.
    Reward: `DMCPendulumReward`, sparse; for planners see `DMCPendulumShapedReward`.

    >>> DMCPendulum().reset(options={"state": [0.0, 0.5]})[0]
    array([1. , 0. , 0.5])
    """

    metadata: ClassVar[dict[str, Any]] = {**MujocoTask.metadata, "render_fps": 50}
    camera: ClassVar[dict[str, Any]] = {"distance": 2.5, "azimuth": 90.0, "elevation": -5.0, "lookat": np.array([0.0, 0.0, 0.6])}

    def __init__(self, action_repeat: int = 1, render_mode: str | None = None) -> None:
        super().__init__("dmc_pendulum.xml", DMCPendulumReward(), action_repeat, render_mode)

    def start(self) -> np.ndarray:
        """Draw an angle, at rest."""
        return np.array([self.np_random.uniform(-math.pi, math.pi), 0.0])

    def observe(self, before: Float[Tensor, "*batch 2"], after: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
        """Return (cos θ, sin θ, θ̇)."""
        theta, theta_dot = after.unbind(-1)
        return torch.stack((theta.cos(), theta.sin(), theta_dot), -1)

    def measure(self, observation: Float[Tensor, "3"], state: Float[Tensor, "2"]) -> dict[str, float]:
        """Return the angle's cosine, 1 upright."""
        return {"upright": float(observation[0])}


class DMCReacher(DMCTask):
    """DeepMind Control's reacher, `bayesdyn/DMCReacher-v0`: 0.02 s steps, two actions in ±1 (0.05 N m), two links of 0.12 m.

    `difficulty` is "easy" (target radius 0.05 m) or "hard" (0.015 m). Observation: the angles of shoulder and wrist (rad), the
    target's place minus the finger's (2, m), the angles' rates (rad/s). State [8]: shoulder, wrist, the target's x and y, and the
    rates of all. Start: shoulder uniform in ±π, wrist in ±160°, the target's direction and its distance in 0.05..0.20 m uniform, at
    rest. Reward: `DMCReacherReward`, sparse; for planners see `DMCReacherShapedReward`. Raises `UnknownNameError` for another
    difficulty.

    >>> DMCReacher("hard").reset(options={"state": [0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0]})[0].round(2)
    array([ 0.  ,  0.  , -0.04,  0.  ,  0.  ,  0.  ])
    """

    metadata: ClassVar[dict[str, Any]] = {**MujocoTask.metadata, "render_fps": 50}
    camera: ClassVar[dict[str, Any]] = {"distance": 0.8, "azimuth": 90.0, "elevation": -90.0, "lookat": np.zeros(3)}

    def __init__(self, difficulty: str = "easy", action_repeat: int = 1, render_mode: str | None = None) -> None:
        if difficulty not in TARGET_RADIUS:
            raise UnknownNameError(f"difficulty is one of {sorted(TARGET_RADIUS)}; got {difficulty!r}")
        super().__init__("dmc_reacher.xml", DMCReacherReward(TARGET_RADIUS[difficulty]), action_repeat, render_mode)
        self.model.geom("target").size[0] = TARGET_RADIUS[difficulty]

    def start(self) -> np.ndarray:
        """Draw the arm's pose and the target's place, at rest."""
        wrist = math.radians(160)
        angles = self.np_random.uniform([-math.pi, -wrist], [math.pi, wrist])
        direction, distance = self.np_random.uniform([0.0, 0.05], [2 * math.pi, 0.20])
        return np.array([*angles, distance * math.sin(direction), distance * math.cos(direction), 0.0, 0.0, 0.0, 0.0])

    def observe(self, before: Float[Tensor, "*batch 8"], after: Float[Tensor, "*batch 8"]) -> Float[Tensor, "*batch 6"]:
        """Return (shoulder, wrist, target - finger, rates of shoulder and wrist)."""
        shoulder, both = after[..., 0], after[..., 0] + after[..., 1]
        finger = _LINK * torch.stack((shoulder.cos() + both.cos(), shoulder.sin() + both.sin()), -1)
        return torch.cat((after[..., :2], after[..., 2:4] - finger, after[..., 4:6]), -1)

    def measure(self, observation: Float[Tensor, "6"], state: Float[Tensor, "8"]) -> dict[str, float]:
        """Return the distance from finger to target in metres."""
        return {"target_distance": float(torch.linalg.vector_norm(observation[2:4]))}
