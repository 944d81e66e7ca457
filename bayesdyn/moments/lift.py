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

    `differences` are pairs (i, j) of coordinates: sin(s_i - s_j) and cos(s_i - s_j) come behind the others. With C1 the gain of the
    sines and cosines and V their covariance,

        mean = [μ, E t],   cov = [[Σ, ΣC1], [C1ᵀΣ, V]],   gain = [I, C1]

    exactly. Differentiable once. Raises `ConfigurationError` for angles or differences that are none of coordinates of the state.

    >>> lift = Lift(2, angles=[1])
    >>> lift(torch.tensor([3.0, 0.0])).tolist()
    [3.0, 0.0, 0.0, 1.0]
    >>> lift.moments(torch.zeros(2), torch.eye(2)).cov.shape
    torch.Size([4, 4])
    >>> Lift(2, angles=[], differences=[(1, 0)])(torch.tensor([3.0, 3.0])).tolist()
    [3.0, 3.0, 0.0, 1.0]
    """

    def __init__(self, state_size: int, angles: Sequence[int], differences: Sequence[tuple[int, int]] = ()) -> None:
        self.state_size, self.angles = state_size, tuple(int(a) for a in angles)
        self.differences = tuple((int(i), int(j)) for i, j in differences)
        if any(not 0 <= a < state_size for a in self.angles) or len(set(self.angles)) < len(self.angles):
            raise ConfigurationError(f"angles are different coordinates 0..{state_size - 1} of the state; got {list(angles)}")
        if any(i == j or not (0 <= i < state_size and 0 <= j < state_size) for i, j in self.differences):
            raise ConfigurationError(f"differences are pairs of coordinates 0..{state_size - 1}; got {list(differences)}")
        self._ready: dict[tuple[torch.dtype, torch.device], _Constants] = {}

    @property
    def size(self) -> int:
        """The number of coordinates of the lifted state, S + 2k, and two for each difference."""
        return self.state_size + 2 * len(self.angles) + 2 * len(self.differences)

    def __call__(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch L"]:
        """Return [s, sin θ1, cos θ1, ...] of states; raises `ShapeError` for states of another size."""
        check_points(state, self.state_size, "a lifted state")
        angle = state[..., list(self.angles)]
        if self.differences:
            ends, starts = (list(side) for side in zip(*self.differences, strict=True))
            angle = torch.cat((angle, state[..., ends] - state[..., starts]), -1)
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
        """Whether two lifts put the same angles and differences of a state of the same size beside it."""
        return isinstance(other, Lift) and self._key == other._key

    def __hash__(self) -> int:
        """Equal lifts hash alike."""
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return self.state_size, self.angles, self.differences


def lift(mean: Float[Tensor, "*batch S"], cov: Float[Tensor, "*batch S S"], angles: Sequence[int]) -> Moments:
    """Return the moments of [s, sin θ1, cos θ1, ...] for s ~ N(mean, cov): `Lift(S, angles).moments(mean, cov)`.

    >>> lift(torch.zeros(1), torch.zeros(1, 1), [0]).mean.tolist()
    [0.0, 0.0, 1.0]
    """
    return Lift(mean.shape[-1], angles).moments(mean, cov)


_CPU = torch.device("cpu")


class _Constants(NamedTuple):
    backend: Backend
    waves: Array  # [2k]: where sin θ1, cos θ1, ... stand in [sin θ, cos θ, -sin θ]
    slopes: Array  # [2k]: where their derivatives stand
    angles: Array  # [S, k]: θ = state @ angles
    select: Array  # [2k, S]: phases = select @ state
    selected: Array  # [S, 2k]: its transpose
    identity: Array  # [S, L]
    square: Array  # [2k, 2k]: an identity


def _constants(lift: Lift, dtype: torch.dtype, device: torch.device) -> _Constants:
    count, size = len(lift.angles) + len(lift.differences), lift.state_size
    kinds = torch.arange(2 * count, device=device).view(2, count).mT  # row i: sin θi, cos θi
    identity = torch.eye(size, lift.size, dtype=dtype, device=device)
    own = identity[:, :size]
    angles = torch.stack([*(own[i] for i in lift.angles), *(own[i] - own[j] for i, j in lift.differences), own[0]])[:count]
    select = angles.repeat_interleave(2, 0)
    square = torch.eye(2 * count, dtype=dtype, device=device)
    tensors = (kinds.flatten(), (kinds + count).flatten(), angles.mT, select, select.mT, identity, square)
    chosen = backend(identity)
    return _Constants(chosen, *(chosen.cut(t) for t in tensors))


class _Found(NamedTuple):
    waves: Waves
    columns: Array  # [..., S, 2k]: the covariance of state and phases


def _forward(constants: _Constants, m: Array, s: Array) -> tuple[_Found, tuple[Array, Array, Array]]:
    (xp, pick, *_), values, slopes, angles, select, selected, identity, _ = constants
    angle, columns = m @ angles, s @ selected
    circle = xp.concatenate((sin := xp.sin(angle), xp.cos(angle), -sin), -1)
    found = waves(xp, pick(circle, values, -1), pick(circle, slopes, -1), select @ columns)
    slope = found.slope[..., None, :]
    cross = columns * slope
    upper = xp.concatenate((s, cross), -1)
    lower = xp.concatenate((cross.swapaxes(-1, -2), found.cov), -1)
    gain = xp.concatenate((0.0 * s, selected * slope), -1) + identity
    return _Found(found, columns), (xp.concatenate((m, found.mean), -1), xp.concatenate((upper, lower), -2), gain)


def _backward(constants: _Constants, found: _Found, m: Array, c: Array, g: Array) -> tuple[Array, Array]:
    _, _, _, _, select, selected, identity, square = constants
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
