"""The state with the sine and cosine of its angles beside it: what policies, dynamics and costs take their columns from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesdyn.belief_arrays import ArrayMap, ArrayMoments, PullBack, Slopes
from bayesdyn.beliefs import Moments, check_belief, check_points
from bayesdyn.errors import ConfigurationError
from bayesdyn.moments.points import PointMap
from bayesdyn.moments.waves import Array, Backend, Waves, backend, waves, waves_gradient


class Lift(PointMap):
    """The map s -> a = [s, sin θ1, cos θ1, sin θ2, ...] of a state s [S] with k angles, to S + 2k coordinates.

    With C1 the gain of the sines and cosines and V their covariance,

        mean = [μ, E t],   cov = [[Σ, ΣC1], [C1ᵀΣ, V]],   gain = [I, C1]

    exactly. Differentiable once. Raises `ConfigurationError` for angles that are no coordinates of the state.

    >>> lift = Lift(2, angles=[1])
    >>> lift(torch.tensor([3.0, 0.0])).tolist()
    [3.0, 0.0, 0.0, 1.0]
    >>> lift.moments(torch.zeros(2), torch.eye(2)).cov.shape
    torch.Size([4, 4])
    """

    def __init__(self, state_size: int, angles: Sequence[int]) -> None:
        self.state_size, self.angles = state_size, tuple(int(a) for a in angles)
        if any(not 0 <= a < state_size for a in self.angles) or len(set(self.angles)) < len(self.angles):
            raise ConfigurationError(f"angles are different coordinates 0..{state_size - 1} of the state; got {list(angles)}")
        self._ready: dict[tuple[torch.dtype, torch.device], _Constants] = {}

    @property
    def size(self) -> int:
        """The number of coordinates S + 2k of the lifted state."""
        return self.state_size + 2 * len(self.angles)

    def __call__(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch L"]:
        """Return [s, sin θ1, cos θ1, ...] of states; raises `ShapeError` for states of another size."""
        check_points(state, self.state_size, "a lifted state")
        angle = state[..., list(self.angles)]
        return torch.cat((state, torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)), -1)

    def moments(self, mean: Float[Tensor, "*batch S"], cov: Float[Tensor, "*batch S S"]) -> Moments:
        """Return the exact moments of the lifted state; raises `ShapeError` for a belief of another size."""
        check_belief(mean, cov, self.state_size, "a lifted state")
        return Moments(*_Lift.apply(mean, cov, self._constants(mean.dtype, mean.device)))

    def on_arrays(self) -> ArrayMap | None:
        """Return the same on arrays."""
        return ArrayMap(self.forward)

    def forward(self, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
        """Return the moments at arrays, and the way back."""
        constants = self._constants(torch.float64, _CPU)
        found, answer = _forward(constants, mean, cov)
        return ArrayMoments(*answer), lambda to: Slopes(*_backward(constants, found, *to))

    def _constants(self, dtype: torch.dtype, device: torch.device) -> "_Constants":
        kind = dtype, device
        if kind not in self._ready:
            self._ready[kind] = _constants(self, *kind)
        return self._ready[kind]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the constants behind: copies make their own."""
        return {**self.__dict__, "_ready": {}}

    def __eq__(self, other: object) -> bool:
        """Whether two lifts put the same angles of a state of the same size beside it."""
        return isinstance(other, Lift) and (self.state_size, self.angles) == (other.state_size, other.angles)

    def __hash__(self) -> int:
        """Equal lifts hash alike."""
        return hash((self.state_size, self.angles))


def lift(mean: Float[Tensor, "*batch S"], cov: Float[Tensor, "*batch S S"], angles: Sequence[int]) -> Moments:
    """Return the moments of [s, sin θ1, cos θ1, ...] for s ~ N(mean, cov): `Lift(S, angles).moments(mean, cov)`.

    >>> lift(torch.zeros(1), torch.zeros(1, 1), [0]).mean.tolist()
    [0.0, 0.0, 1.0]
    """
    return Lift(mean.shape[-1], angles).moments(mean, cov)


_CPU = torch.device("cpu")


class _Constants(NamedTuple):
    backend: Backend
    angles: Array  # [k]
    rows: Array  # [2k]: the angle behind each wave
    waves: Array  # [2k]: where sin θ1, cos θ1, ... stand in [sin θ, cos θ, -sin θ]
    slopes: Array  # [2k]: where their derivatives stand
    select: Array  # [2k, S]: phases = select @ state
    selected: Array  # [S, 2k]: its transpose
    identity: Array  # [S, L]
    square: Array  # [2k, 2k]: an identity


def _constants(lift: Lift, dtype: torch.dtype, device: torch.device) -> _Constants:
    count, size = len(lift.angles), lift.state_size
    angles = torch.tensor(lift.angles, dtype=torch.int64, device=device)
    rows = angles.repeat_interleave(2)
    kinds = torch.arange(2 * count, device=device).view(2, count).mT  # row i: sin θi, cos θi
    identity = torch.eye(size, lift.size, dtype=dtype, device=device)
    select = identity[:, :size][rows]
    square = torch.eye(2 * count, dtype=dtype, device=device)
    tensors = (angles, rows, kinds.flatten(), (kinds + count).flatten(), select, select.mT, identity, square)
    chosen = backend(identity)
    return _Constants(chosen, *(chosen.cut(t) for t in tensors))


class _Found(NamedTuple):
    waves: Waves
    columns: Array  # [..., S, 2k]: the covariance of state and phases


def _forward(constants: _Constants, m: Array, s: Array) -> tuple[_Found, tuple[Array, Array, Array]]:
    (xp, pick, *_), angles, rows, values, slopes, _, selected, identity, _ = constants
    angle, columns = pick(m, angles, -1), pick(s, rows, -1)
    circle = xp.concatenate((sin := xp.sin(angle), xp.cos(angle), -sin), -1)
    found = waves(xp, pick(circle, values, -1), pick(circle, slopes, -1), pick(columns, rows, -2))
    slope = found.slope[..., None, :]
    cross = columns * slope
    upper = xp.concatenate((s, cross), -1)
    lower = xp.concatenate((cross.swapaxes(-1, -2), found.cov), -1)
    gain = xp.concatenate((0.0 * s, selected * slope), -1) + identity
    return _Found(found, columns), (xp.concatenate((m, found.mean), -1), xp.concatenate((upper, lower), -2), gain)


def _backward(constants: _Constants, found: _Found, m: Array, c: Array, g: Array) -> tuple[Array, Array]:
    _, _, _, _, _, select, selected, identity, square = constants
    size = len(identity)
    cross = c[..., :size, size:] + c[..., size:, :size].swapaxes(-1, -2)
    slope = (cross * found.columns + g[..., size:] * selected).sum(-2)
    to_phase = waves_gradient(found.waves, m[..., size:], slope, c[..., size:, size:], square)
    to_mean = m[..., :size] + to_phase.mean @ select
    return to_mean, c[..., :size, :size] + (cross * found.waves.slope[..., None, :] + selected @ to_phase.cov) @ select


class _Lift(torch.autograd.Function):
    """Mean, covariance and gain of the lifted state."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, cov: Tensor, constants: _Constants) -> tuple[Tensor, Tensor, Tensor]:
        _, _, cut, tensor = constants.backend
        ctx.found, answer = _forward(constants, cut(mean), cut(cov))
        ctx.constants = constants
        return tensor(answer[0]), tensor(answer[1]), tensor(answer[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean: Tensor, cov: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, None]:
        _, _, cut, tensor = ctx.constants.backend
        to_mean, to_cov = _backward(ctx.constants, ctx.found, cut(mean), cut(cov), cut(gain))
        return tensor(to_mean), tensor(to_cov), None
