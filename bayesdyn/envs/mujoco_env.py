"""What the MuJoCo tasks share: a model, observations as functions of simulator states, a reward on observations, pictures."""

from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar
from xml.etree import ElementTree

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.mujoco_plant import Frames, KnownPlant
from bayesdyn.envs.plant import OBSERVATION_BOUND, Numbers, Reward
from bayesdyn.errors import ConfigurationError, DataError, MissingExtraError, NumericalError, ShapeError

if TYPE_CHECKING:
    import mujoco
    from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

ASSETS = Path(__file__).parent / "assets"
PIXELS = 480


class MujocoTask(gymnasium.Env[np.ndarray, np.ndarray], ABC):
    """A MuJoCo model as a Gymnasium environment; an action is held for `frame_skip` steps of the simulator.

        o_{t+1} = observe(x_t, x_{t+1}),   r_t = reward(o_t, a_t, o_{t+1}),   x = (qpos, qvel) [P] in SI units

    Actions outside the Box saturate at its bounds, as an actuator does. `info["state"]` is x, `info["action"]` what was applied;
    `reset(options={"state": x})` starts from a given x, with the solver's memory cleared. Episodes never terminate. A simulation
    without a picture needs no display; pictures need OpenGL (`MUJOCO_GL=egl` or `osmesa` on a machine without a screen).

    Raises `MissingExtraError` without MuJoCo, `ShapeError` and `DataError` for an action or state of the wrong shape or not finite,
    `NumericalError` where the simulator diverges.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "rgb_array", "depth_array"]}
    camera: ClassVar[dict[str, Any]] = {}

    def __init__(self, model: "mujoco.MjModel", reward: Reward, frame_skip: int, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ConfigurationError(f"render_mode is one of {self.metadata['render_modes']} or None; got {render_mode!r}")
        self.model = model
        self.data = load_mujoco().MjData(model)
        self.reward = reward
        self.frame_skip = frame_skip
        self.render_mode = render_mode
        self._low, self._high = model.actuator_ctrlrange.T
        self.action_space = gymnasium.spaces.Box(self._low.astype(np.float32), self._high.astype(np.float32), dtype=np.float32)
        self._action = np.zeros(model.nu)
        start = torch.zeros(model.nq + model.nv, dtype=torch.float64)
        self._observation = self.observe(start, start)
        size = self._observation.shape
        self.observation_space = gymnasium.spaces.Box(-OBSERVATION_BOUND, OBSERVATION_BOUND, tuple(size), np.float64)
        self._renderer: MujocoRenderer | None = None

    @abstractmethod
    def start(self) -> np.ndarray:
        """Draw the state [P] of a new episode from `np_random`."""

    @abstractmethod
    def observe(self, before: Float[Tensor, "*batch P"], after: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch S"]:
        """Return the observation of the state `after` that followed `before`; at the start of an episode the two are one."""

    @abstractmethod
    def measure(self, observation: Float[Tensor, "S"], state: Float[Tensor, "P"]) -> dict[str, float]:
        """Return the task's own figures for `info`."""

    @property
    def dt(self) -> float:
        """Seconds per action."""
        return float(self.model.opt.timestep * self.frame_skip)

    @property
    def state(self) -> np.ndarray:
        """The simulator's state (qpos, qvel) [P]."""
        return np.concatenate((self.data.qpos, self.data.qvel))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a start state, or take the one in `options["state"]`, and return its observation."""
        super().reset(seed=seed)
        unknown = set(options or {}) - {"state"}
        if unknown:
            raise ConfigurationError(f'reset knows the option "state" only; got {sorted(unknown)}')
        given = (options or {}).get("state")
        state = self.start() if given is None else _array("the start state", given, self.model.nq + self.model.nv)
        engine = load_mujoco()
        engine.mj_resetData(self.model, self.data)
        self.data.qpos, self.data.qvel = np.split(state, [self.model.nq])
        engine.mj_forward(self.model, self.data)
        self._action = np.zeros(self.model.nu)
        start = torch.from_numpy(state)
        self._observation = self.observe(start, start)
        return self._seen(), self._info()

    def step(self, action: Numbers) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold `action` [A] for `frame_skip` steps and return (observation, reward, False, False, info)."""
        applied = np.clip(_array("the action", action, self.model.nu), self._low, self._high)
        engine = load_mujoco()
        before, time = self.state, self.data.time
        self.data.ctrl[:] = applied
        engine.mj_step(self.model, self.data, nstep=self.frame_skip)
        after = self.state
        # The simulator answers a divergence by starting over at time 0.
        if self.data.time < time or not np.isfinite(after).all():
            raise NumericalError(f"the simulator diverged from state {before} under action {applied}; reset the environment")
        observation = self.observe(torch.from_numpy(before), torch.from_numpy(after))
        reward = float(self.reward(self._observation, torch.from_numpy(applied), observation))
        self._observation, self._action = observation, applied
        return self._seen(), reward, False, False, self._info()

    def present(self) -> Float[Tensor, "S"]:
        """Return the last observation, for `KnownPlant`."""
        return self._observation

    def following(self, frames: Frames) -> Float[Tensor, "*batch S"]:
        """Return the observations at the ends of control steps, for `KnownPlant`."""
        x = slice(1, 1 + self.model.nq + self.model.nv)  # a simulator's state begins with the time
        return self.observe(frames.before[..., x], frames.after[..., x])

    def known_plant(self, reward: Reward | None = None, threads: int = 1) -> KnownPlant:
        """Return this simulator as a callable for planners; the reward is the environment's own unless another is given."""
        return KnownPlant(self, reward or self.reward, observer=self, threads=threads)

    def render(self) -> Any:
        """Return the picture that `render_mode` asks for, or None without one.

        Raises `ConfigurationError` where no OpenGL can be had.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

            self._renderer = MujocoRenderer(self.model, self.data, dict(self.camera), width=PIXELS, height=PIXELS)
        try:
            return self._renderer.render(self.render_mode)
        except (load_mujoco().FatalError, AttributeError, RuntimeError) as error:
            # What a missing OpenGL library raises depends on which one is missing.
            raise ConfigurationError(
                f"no OpenGL to draw with ({error}); on a machine without a screen set MUJOCO_GL=egl (needs libegl1) or "
                "MUJOCO_GL=osmesa (needs libosmesa6) before Python starts"
            ) from error

    def close(self) -> None:
        """Close the window and free the graphics context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _seen(self) -> np.ndarray:
        # A copy: the next reward is of the observation kept here, which users may not move.
        return self._observation.numpy().copy()

    def _info(self) -> dict[str, Any]:
        state = self.state
        return {"state": state, "action": self._action.copy(), **self.measure(self._observation, torch.from_numpy(state))}


def load_mujoco() -> ModuleType:
    """Import MuJoCo; raises `MissingExtraError` that names the extra."""
    try:
        import mujoco
    except ImportError as error:
        raise MissingExtraError("this task is simulated by MuJoCo: pip install 'bayesdyn[mujoco]'") from error
    return mujoco


def gymnasium_model(name: str) -> ElementTree.Element:
    """Read a model file of Gymnasium's MuJoCo tasks, to be edited and compiled.

    >>> gymnasium_model("half_cheetah").get("model")
    'cheetah'
    """
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{name}.xml"
    return ElementTree.fromstring(path.read_text(encoding="utf-8"))


def find(root: ElementTree.Element, path: str) -> ElementTree.Element:
    """Return the first element at an XPath; raises `ConfigurationError` where Gymnasium's file has no such element."""
    element = root.find(path)
    if element is None:
        model = f"Gymnasium {gymnasium.__version__}'s model {root.get('model')!r}"
        raise ConfigurationError(f"{model} has no {path}; those of versions 1.0 to 1.4 have it")
    return element


def compile_model(root: ElementTree.Element) -> "mujoco.MjModel":
    """Compile a model."""
    return load_mujoco().MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))


def _array(what: str, value: Numbers, size: int) -> np.ndarray:
    array = np.array(value, dtype=np.float64)
    if array.shape != (size,):
        raise ShapeError(f"{what} wants shape {[size]}; got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise DataError(f"{what} wants finite values; got {array}")
    return array
