"""A MuJoCo simulator as the callable that planners know: candidates run in the simulator itself, from its present state."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.plant import Reward
from bayesdyn.errors import ConfigurationError, MissingExtraError, ShapeError

Termination = Callable[[Tensor, Tensor, Tensor], Tensor]


class Frames(NamedTuple):
    """Control steps in the simulator's own coordinates (time, qpos, qvel, activations), and the actions held.

    before   at the start of a control step
    last     before the last of its `frame_skip` simulator steps
    after    at its end
    """

    before: Float[Tensor, "*batch X"]
    last: Float[Tensor, "*batch X"]
    after: Float[Tensor, "*batch X"]
    action: Float[Tensor, "*batch A"]


@runtime_checkable
class Observer(Protocol):
    """What an environment sees of its simulator."""

    def present(self) -> Tensor:
        """Return the observation [S] of the present state."""

    def following(self, frames: Frames) -> Tensor:
        """Return the observations [..., S] at the ends of control steps."""


class KnownPlant:
    r"""evaluate(actions [T, B, c, A]) -> scores [B, c] of a simulator: what the candidates truly earn from its present state.

        score = Σ_t γ^t alive_t reward(o_t, a_t, o_{t+1})

    All candidates run in one call of `mujoco.rollout`, on `threads` threads, with the environment's own frame skip; the
    environment itself is not touched. A candidate that makes the simulator diverge, or whose reward is not finite, scores -inf.
    Actions saturate at the bounds. Each of the B environments starts from the same, present state.

    `env` is any Gymnasium `MujocoEnv`, or a `MujocoTask`, whose `known_plant()` gives this with the observations of all states
    computed at once; for the former `observer` is by default `EachObservation`, exact and slower. Not differentiable.

    Raises `MissingExtraError` without MuJoCo, `ConfigurationError` for fewer than one thread, a discount outside (0, 1] or actions
    that want a gradient, `ShapeError` for actions of another size.

    >>> import bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/Reacher3D-v0")
    >>> _ = env.reset(seed=0)
    >>> plant = env.unwrapped.known_plant()
    >>> plant(torch.zeros(5, 1, 3, 7)).shape
    torch.Size([1, 3])
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        reward: Reward,
        *,
        observer: Observer | None = None,
        threads: int = 1,
        termination: Termination | None = None,
        discount: float = 1.0,
    ) -> None:
        if threads < 1 or not 0 < discount <= 1:
            raise ConfigurationError(f"KnownPlant wants threads >= 1 and 0 < discount <= 1; got {threads} and {discount}")
        self._mujoco, rollout = _engine()
        self.reward = reward
        self.termination = termination
        self.discount = discount
        self.observer = observer or EachObservation(env)
        self._simulator = cast(Any, env.unwrapped)
        self._model = self._simulator.model
        self._frame_skip = int(self._simulator.frame_skip)
        self._low, self._high = torch.tensor(self._model.actuator_ctrlrange, dtype=torch.float64).T
        # MuJoCo's pool of no threads runs in the calling one.
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._scratch = [self._mujoco.MjData(self._model) for _ in range(threads)]
        self._physics = int(self._mujoco.mjtState.mjSTATE_FULLPHYSICS)

    def __call__(self, actions: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
        """Return the score of each candidate, in the dtype of the actions."""
        if actions.requires_grad:
            raise ConfigurationError("a simulator has no gradient; plan with CEM, ICEM, MPPI or RandomShooting")
        if actions.shape[-1] != len(self._low):
            raise ShapeError(f"{type(self._simulator).__name__} takes {len(self._low)} actions; got {list(actions.shape)}")
        controls = actions.detach().to("cpu", torch.float64).clamp(self._low, self._high).permute(1, 2, 0, 3)
        frames = self.run(controls.flatten(0, 1))
        following = self.observer.following(frames)
        state = torch.cat((self.observer.present().expand_as(following[:, :1]), following[:, :-1]), 1)
        earned = self.reward(state, frames.action, following) * self.discount ** torch.arange(len(actions), dtype=torch.float64)
        if self.termination is not None:
            done = self.termination(state, frames.action, following)
            ended = torch.cat((torch.zeros_like(done[:, :1]), done[:, :-1]), 1).cumsum(1) > 0
            earned = torch.where(ended, 0.0, earned)
        scores = earned.sum(1)
        scores = torch.where(self._ran_through(frames) & scores.isfinite(), scores, -torch.inf)
        return scores.reshape(controls.shape[:2]).to(actions.device, actions.dtype)

    def run(self, controls: Float[Tensor, "c T A"]) -> Frames:
        """Return the control steps [c, T, ...] of each sequence of actions, held within the bounds, from the present state."""
        start = np.empty(self._mujoco.mj_stateSize(self._model, self._physics))
        self._mujoco.mj_getState(self._model, self._simulator.data, start, self._physics)
        held = controls.repeat_interleave(self._frame_skip, 1).numpy()
        # The solver's memory makes the first step the very one that the environment would take.
        memory = self._simulator.data.qacc_warmstart
        states, _ = self._pool.rollout(self._model, self._scratch, start[None], held, initial_warmstart=memory[None])
        path = torch.from_numpy(states).unflatten(1, (controls.shape[1], self._frame_skip))
        after = path[:, :, -1]
        before = torch.cat((torch.from_numpy(start).expand_as(after[:, :1]), after[:, :-1]), 1)
        last = path[:, :, -2] if self._frame_skip > 1 else before
        return Frames(before, last, after, controls)

    def _ran_through(self, frames: Frames) -> Tensor:
        """Say which candidates [c] ran to the end: after a divergence the simulator starts over at time 0, or stands still."""
        elapsed = frames.after[:, -1, 0] - frames.before[:, 0, 0]
        wanted = frames.action.shape[1] * self._frame_skip * self._model.opt.timestep
        return (elapsed - wanted).abs() < 0.5 * self._model.opt.timestep


class EachObservation:
    """The observations of any Gymnasium `MujocoEnv`, by its own `_get_obs` on a simulator state at a time.

    Each state is reached by its last simulator step, so that what lags behind by one (body positions do) lags here too. Costs one
    simulator step and one Python call per candidate and time step. Observations that depend on more than `data` and `model` want an
    observer of their own. Raises `ConfigurationError` for an environment without `_get_obs`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._mujoco, _ = _engine()
        self._source = cast(Any, env.unwrapped)
        try:
            self._look = self._source._get_obs
            self._probe = copy.copy(self._source)
            self._probe.data = self._mujoco.MjData(self._source.model)
        except AttributeError as error:
            raise ConfigurationError(
                f"{type(self._source).__name__} is no MujocoEnv of Gymnasium ({error}); for a MujocoTask call its known_plant(), "
                "for another simulator pass an observer"
            ) from error

    def present(self) -> Float[Tensor, "S"]:
        """Return the observation of the present state."""
        return torch.from_numpy(np.array(self._look(), dtype=np.float64))

    def following(self, frames: Frames) -> Float[Tensor, "*batch S"]:
        """Return the observations at the ends of control steps."""
        physics = self._mujoco.mjtState.mjSTATE_FULLPHYSICS
        model, data = self._probe.model, self._probe.data
        starts, actions = frames.last.flatten(0, -2).numpy(), frames.action.flatten(0, -2).numpy()
        seen = []
        for start, action in zip(starts, actions, strict=True):
            self._mujoco.mj_setState(model, data, start, physics)
            data.ctrl[:] = action
            self._mujoco.mj_step(model, data)
            self._mujoco.mj_rnePostConstraint(model, data)
            seen.append(np.array(self._probe._get_obs()))
        return torch.from_numpy(np.stack(seen)).double().reshape(*frames.last.shape[:-1], -1)


def _engine() -> tuple[Any, Any]:
    try:
        import mujoco
        from mujoco import rollout
    except ImportError as error:
        raise MissingExtraError("a known plant is simulated by MuJoCo 3 or later: pip install 'bayesdyn[mujoco]'") from error
    return mujoco, rollout
