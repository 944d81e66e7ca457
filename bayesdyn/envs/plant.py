"""What every simulated scenario shares: a `Plant` (equations of motion) and a `PlantEnv` (noise, reward and pictures around it)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.integration import COLUMNS, SUBSTEPS, integrate
from bayesdyn.errors import ConfigurationError, DataError, NumericalError, ShapeError

# Gymnasium asks for finite bounds; no episode of any useful length comes near this one.
OBSERVATION_BOUND = 1e6
_HALVINGS = 8

Numbers = int | float | Sequence[Any] | np.ndarray | Tensor
Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
Termination = Callable[[Tensor, Tensor, Tensor], Tensor]


class Plant(ABC):
    """A system ds/dt = f(s, a) whose action is held for `dt` seconds (zero-order hold); all calls take any leading axes.

    A subclass names its states and actions, with their units in its docstring, and gives `derivative`. What a learner sees of a
    state is `observe(state)`, the state itself unless the subclass says otherwise; O is its size.
    """

    state_names: ClassVar[tuple[str, ...]]
    action_names: ClassVar[tuple[str, ...]]
    grid: ClassVar[tuple[int, int]] = (SUBSTEPS, COLUMNS)  # substeps and columns of `integrate`: enough for 1e-12 in a step
    dt: float

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Names of what a learner sees."""
        return self.state_names

    def observe(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch O"]:
        """Return what a learner sees of a state, without noise; differentiable."""
        return state

    def observed_moments(
        self, mean: Float[Tensor, "S"], std: Float[Tensor, "S"]
    ) -> tuple[Float[Tensor, "O"], Float[Tensor, "O O"]]:
        """Return mean and covariance of what a learner sees if the state is N(mean, diag(std²))."""
        return mean, std.square().diag()

    @abstractmethod
    def derivative(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*#batch A"]) -> Float[Tensor, "*batch S"]:
        """Return ds/dt in SI units."""

    def step(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the state `dt` seconds later, [..., S], in the dtype of `state`; computed in float64 and differentiable.

        `state` is [..., S] and `action` [..., A]; their leading axes broadcast. Raises `ShapeError` for other sizes.
        """
        self.check_sizes(state, action)
        return self.advance(state, action, self.dt)

    def advance(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], seconds: float) -> Float[Tensor, "..."]:
        """Return the state so many seconds later, at most `dt`; else as `step`."""
        held = action.double()
        batch = torch.broadcast_shapes(state.shape[:-1], action.shape[:-1])
        start = state.double().expand(*batch, state.shape[-1])
        substeps, columns = self.grid
        moved = integrate(lambda s: self.derivative(s, held), start, seconds, substeps=substeps, columns=columns)
        return moved.to(state.dtype)

    def check_sizes(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."]) -> None:
        """Raise `ShapeError` unless `state` is [..., S] and `action` [..., A]."""
        if state.shape[-1:] != (len(self.state_names),) or action.shape[-1:] != (len(self.action_names),):
            raise ShapeError(
                f"{type(self).__name__}.step wants a state [..., {len(self.state_names)}] {self.state_names} and an action "
                f"[..., {len(self.action_names)}] {self.action_names}; got {list(state.shape)} and {list(action.shape)}"
            )


class PlantEnv(gymnasium.Env[np.ndarray, np.ndarray], ABC):
    """A plant as a Gymnasium environment: random start, noisy observations, a reward on the true states, pictures.

        s_0 ~ N(start_mean, diag(start_std²)),   s_{t+1} = plant.step(s_t, a_t)
        o_t = plant.observe(s_t + ε_t),   ε_t ~ N(0, diag(observation_noise²))

    Reward and termination are callables on `plant.observe` of the true states, so that a planner's are the same. Actions outside
    the Box saturate at its bounds, as an actuator does; `info["action"]` is what was applied, `info["state"]` the observation
    without noise. `reset(options={"state": s})` starts from a given true state. Without a termination episodes never terminate;
    with one, a plant that leaves the observation's bounds within a step ends the episode just before.

    Raises `ShapeError` for an action or start state of the wrong shape, `DataError` for one that is not finite.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        plant: Plant,
        reward: Reward,
        *,
        action_limit: Numbers,
        start_mean: Numbers,
        start_std: Numbers,
        observation_noise: Numbers,
        termination: Termination | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ConfigurationError(f"render_mode is one of {self.metadata['render_modes']} or None; got {render_mode!r}")
        size = len(plant.state_names)
        self.plant = plant
        self.reward = reward
        self.termination = termination
        self.render_mode = render_mode
        self.start_mean = _vector("start_mean", start_mean, size)
        self.start_std = _vector("start_std", start_std, size, minimum=0.0)
        self.observation_noise = _vector("observation_noise", observation_noise, size, minimum=0.0)
        limit = _vector("action_limit", action_limit, len(plant.action_names), minimum=0.0).astype(np.float32)
        self.action_limit = limit
        self.action_space = gymnasium.spaces.Box(-limit, limit, dtype=np.float32)
        seen = len(plant.observation_names)
        self.observation_space = gymnasium.spaces.Box(-OBSERVATION_BOUND, OBSERVATION_BOUND, (seen,), np.float64)
        self._state: np.ndarray | None = None
        self._action = np.zeros(limit.shape)
        self._steps = 0

    @abstractmethod
    def measure(self, state: np.ndarray) -> Mapping[str, float | np.ndarray]:
        """Return the scenario's own figures for `info`, from the true state [S]."""

    @abstractmethod
    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return a picture of the true state [S] with the action [A] last applied, `time` seconds into the episode."""

    def start_moments(self) -> tuple[Float[Tensor, "O"], Float[Tensor, "O O"]]:
        """Return mean and covariance of the first observation without its noise: the belief that a policy search starts from."""
        return self.plant.observed_moments(torch.from_numpy(self.start_mean), torch.from_numpy(self.start_std))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a start state, or take the one in `options["state"]`, and return its noisy observation."""
        super().reset(seed=seed)
        unknown = set(options or {}) - {"state"}
        if unknown:
            raise ConfigurationError(f'reset knows the option "state" only; got {sorted(unknown)}')
        given = (options or {}).get("state")
        if given is None:
            self._state = self.start_mean + self.start_std * self.np_random.standard_normal(self.start_mean.shape)
        else:
            self._state = _array("the start state", given, self.start_mean.shape, self.plant.state_names)
        self._action, self._steps = np.zeros(self._action.shape), 0
        return self._observe(), self._info()

    def step(self, action: Numbers) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold `action` [A] for one step and return (observation, reward, terminated, False, info)."""
        current = self._current()
        wanted = _array("the action", action, self._action.shape, self.plant.action_names)
        applied = np.clip(wanted, -self.action_limit, self.action_limit)
        state, held = torch.from_numpy(current), torch.from_numpy(applied)
        next_state = self.plant.step(state, held)
        broken = self.termination is not None and not _bounded(next_state)
        if broken:
            next_state = self._until_breakdown(state, held)
        if not bool(next_state.isfinite().all()):
            raise NumericalError(f"{type(self.plant).__name__} left the finite numbers from state {current}; reset the environment")
        before, after = self.plant.observe(state), self.plant.observe(next_state)
        reward = float(self.reward(before, held, after))
        terminated = broken or (self.termination is not None and bool(self.termination(before, held, after)))
        self._state, self._action, self._steps = next_state.numpy(), applied, self._steps + 1
        return self._observe(), reward, terminated, False, self._info()

    def render(self) -> np.ndarray | None:
        """Return the picture as uint8 [height, width, 3], or None without a render mode."""
        if self.render_mode is None:
            return None
        picture = self.draw(self._current(), self._action, self._steps * self.plant.dt)
        return np.array(picture.convert("RGB"))

    def _until_breakdown(self, state: Tensor, held: Tensor) -> Tensor:
        """Return the state just before it leaves the bounds within a step."""
        # A body that falls through the floor may meet a singularity of its equations there; the floor would have stopped it.
        safe, last, duration = 0.0, state, self.plant.dt
        for _ in range(_HALVINGS):
            duration /= 2
            moved = self.plant.advance(state, held, safe + duration)
            if _bounded(moved):
                safe, last = safe + duration, moved
        return last

    def _current(self) -> np.ndarray:
        if self._state is None:
            raise ConfigurationError(f"{type(self).__name__} has no state yet; call reset() first")
        return self._state

    def _observe(self) -> np.ndarray:
        state = self._current()
        noisy = state + self.observation_noise * self.np_random.standard_normal(state.shape)
        return self.plant.observe(torch.from_numpy(noisy)).numpy()

    def _info(self) -> dict[str, Any]:
        state = self._current()
        seen = self.plant.observe(torch.from_numpy(state.copy())).numpy()
        return {"state": seen, "action": self._action.copy(), **self.measure(state)}


def _bounded(state: Tensor) -> bool:
    return bool((state.abs() < OBSERVATION_BOUND).all())


def _array(what: str, value: Numbers, shape: tuple[int, ...], names: tuple[str, ...]) -> np.ndarray:
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise ShapeError(f"{what} wants shape {list(shape)} {names}; got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise DataError(f"{what} wants finite values for {names}; got {array}")
    return array


def _vector(name: str, value: Numbers, size: int, minimum: float = -np.inf) -> np.ndarray:
    array = np.array(value, dtype=np.float64)
    if array.shape not in ((), (size,)):
        raise ConfigurationError(f"{name} wants one number or {size} of them; got shape {list(array.shape)}")
    if not (np.isfinite(array).all() and (array >= minimum).all()):
        raise ConfigurationError(f"{name} wants finite values >= {minimum}; got {array}")
    return np.broadcast_to(array, (size,)).copy()
