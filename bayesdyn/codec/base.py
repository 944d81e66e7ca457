"""The seam between states and regression: what every codec has, and the checks of what it is given."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.data import Transitions
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, NotFittedError, ShapeError
from bayesdyn.numerics import spread

# A column whose spread is below this share of its size is constant up to rounding: it is centred and not scaled.
_CONSTANT = 1e-10


Runs = tuple[tuple[int, int], ...]  # (start, length) of neighbouring columns


class BeliefLayout(NamedTuple):
    """What a Gaussian belief goes through: features as columns of [s, sin θ_1, cos θ_1, ..., a], targets as changes of the state.

    `inputs` are the D columns that are features, in order; `angles` the coordinates that are lifted; `absolute` those predicted as
    they are instead of as changes, `relative` those that are measured from another one first, as pairs.
    """

    inputs: tuple[int, ...]
    angles: tuple[int, ...] = ()
    absolute: tuple[int, ...] = ()
    relative: tuple[tuple[int, int], ...] = ()


class BaseCodec(nn.Module, ABC):
    """The seam between states and regression: encode (s, a) to whitened x, target (s, a, s') to whitened y, decode y to s'.

    Statistics are fitted on training transitions and are buffers, which `fit` replaces and never writes into. `outputs` names the
    state coordinates that the posterior predicts, in the order of its targets; the others follow from (s, a) alone.
    """

    feature_mean: Tensor
    feature_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    sizes: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("feature_mean", "feature_std", "target_mean", "target_std"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        self.register_buffer("sizes", torch.zeros(2, dtype=torch.int64))

    @property
    @abstractmethod
    def outputs(self) -> list[int]:
        """State coordinates that the posterior predicts, [E]."""

    @abstractmethod
    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` if the options do not fit states and actions of these sizes."""

    @abstractmethod
    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return the raw features, in physical units."""

    @abstractmethod
    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return the raw targets, in physical units."""

    @abstractmethod
    def assemble(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Turn raw targets [n, ..., E] into a Gaussian over the whole next state [n, ..., S]; known coordinates get variance 0."""

    @abstractmethod
    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Turn raw targets [m, ..., E] into Gaussians over the predicted coordinates of the next state, [m, ..., E]."""

    def belief_layout(self) -> BeliefLayout | None:
        """Return how features and targets come from states and actions, None if features are no columns of [s, sin θ, cos θ, a].

        Only with a layout does a Gaussian belief go through the codec in closed form.
        """
        return None

    def fit(self, transitions: Transitions) -> None:
        """Take the whitening statistics from the training transitions.

        Raises `ConfigurationError` if the options do not fit the transitions, `DataError` if an action is none of the choices; the
        statistics then stay as they were.
        """
        self.check(transitions.state_size, transitions.action_size)
        features = self.features(transitions.state, transitions.action)
        self.sizes = torch.tensor([transitions.state_size, transitions.action_size])
        target = self.raw_target(transitions.state, transitions.next_state)
        # A difference is known as well as the states are, so their size says what counts as rounding.
        moved = torch.cat([transitions.state, transitions.next_state])[:, self.outputs]
        self.feature_mean, self.feature_std = _statistics(features, features.abs().amax(0))
        self.target_mean, self.target_std = _statistics(target, moved.abs().amax(0))

    def encode(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch2 A"]) -> Float[Tensor, "*batch3 D"]:
        """Return whitened features (features - mean) / std; leading axes broadcast.

        Raises `NotFittedError` before `fit` and `ShapeError` for sizes other than the fitted ones.
        """
        self.check_fitted()
        state_size, action_size = self.sizes.tolist()
        check_sizes(state, action, state_size, action_size)
        return (self.features(*broadcast(state, action)) - self.feature_mean) / self.feature_std

    def target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return whitened targets (target - mean) / std.

        Raises `NotFittedError` before `fit` and `ShapeError` for states of another size than the fitted ones.
        """
        self.check_fitted()
        if state.shape != next_state.shape or state.shape[-1] != int(self.sizes[0]):
            raise ShapeError(
                f"targets want states and next states of one shape [..., {int(self.sizes[0])}]; "
                f"got {list(state.shape)} and {list(next_state.shape)}"
            )
        return (self.raw_target(state, next_state) - self.target_mean) / self.target_std

    def decode(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Return the Gaussian over the next state [n, ..., S] that whitened targets [n, ..., E] mean."""
        return self.assemble(state, action, self.unwhiten(target))

    def unwhiten(self, target: Gaussian) -> Gaussian:
        """Return mean·std + mean₀ and var·std², in physical units."""
        return Gaussian(target.mean * self.target_std + self.target_mean, target.var * self.target_std.square())

    def frozen(self, dtype: torch.dtype) -> "BaseCodec":
        """Return a copy in `dtype` that a later `fit` leaves as it is."""
        return copy.deepcopy(self).to(dtype)

    def check_fitted(self) -> None:
        """Raise `NotFittedError` before `fit`."""
        if self.feature_mean.numel() == 0:
            raise NotFittedError(f"{type(self).__name__} has seen no data yet; fit it (or its DynamicsModel) on transitions first")

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # Fresh tensors of the stored size and dtype: the statistics of a fresh codec have no size yet.
        for name, buffer in list(self._buffers.items()):
            stored = state_dict.get(prefix + name)
            if buffer is not None and stored is not None:
                setattr(self, name, torch.empty_like(stored, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def check_sizes(state: Tensor, action: Tensor, state_size: int, action_size: int) -> None:
    """Raise `ShapeError` unless state is [..., S] and action [..., A]."""
    if state.shape[-1:] != (state_size,) or action.shape[-1:] != (action_size,):
        raise ShapeError(
            f"the model was fitted on states of size {state_size} and actions of size {action_size}; "
            f"got state {list(state.shape)} and action {list(action.shape)}"
        )


def check_relative(relative: Mapping[int, int], state_size: int, angles: Sequence[int]) -> None:
    """Raise `ConfigurationError` unless each coordinate is measured from another one, an angle from an angle, and none in a circle.

    >>> check_relative({1: 0}, 2, angles=[0, 1])
    """
    for i, j in relative.items():
        if i == j or not (0 <= i < state_size and 0 <= j < state_size) or (i in angles) != (j in angles):
            raise ConfigurationError(
                f"relative={dict(relative)} wants pairs of different coordinates 0..{state_size - 1}, both angles or neither; "
                f"got {i}: {j} with angles {list(angles)}"
            )
    for start in relative:
        last = start
        for _ in relative:
            last = relative.get(last, last)
        if last in relative:
            raise ConfigurationError(f"relative={dict(relative)} goes in a circle: measure one of these coordinates from none")


def runs(indices: Sequence[int]) -> Runs:
    """Return the runs of neighbouring columns, which narrow to views.

    >>> runs([0, 1, 4]), runs([])
    (((0, 2), (4, 1)), ())
    """
    found: list[tuple[int, int]] = []
    for index in indices:
        start, length = found[-1] if found else (index, 0)
        if index == start + length:
            found[len(found) - 1 if found else 0 :] = [(start, length + 1)]
        else:
            found.append((index, 1))
    return tuple(found)


def broadcast(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with the same leading axes; raises `ShapeError` if these do not fit together."""
    if state.shape[:-1] == action.shape[:-1]:
        return state, action
    try:
        batch = torch.broadcast_shapes(state.shape[:-1], action.shape[:-1])
    except RuntimeError as error:
        raise ShapeError(
            f"state and action want leading axes that broadcast; got state {list(state.shape)} and action {list(action.shape)}"
        ) from error
    return state.expand(*batch, state.shape[-1]), action.expand(*batch, action.shape[-1])


def _statistics(values: Float[Tensor, "N F"], size: Float[Tensor, "F"]) -> tuple[Float[Tensor, "F"], Float[Tensor, "F"]]:
    """Return mean and population std; a std that is only rounding, measured against the columns' `size`, becomes 1."""
    mean, std, constant = spread(values, size, least=_CONSTANT)
    return mean.to(values.dtype), torch.where(constant, torch.ones_like(std), std).to(values.dtype)
