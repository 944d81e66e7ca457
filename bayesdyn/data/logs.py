"""Logs of inputs and outputs, and the lagged state that makes them Markov: `Log`, `resample`, `LagLayout`, `lagged`."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.data.checks import check_finite, check_shape, to_column, to_float64
from bayesdyn.data.transitions import Transitions
from bayesdyn.errors import ConfigurationError, DataError

# Stamps that stray further from even spacing than this fraction of a step would put lags at the wrong times.
_UNEVENNESS = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class Log:
    """What was measured of a system, outputs y, and what was done to it, inputs u, at T increasing times in seconds.

    Raises `ShapeError` for shapes that don't agree, `DataError` for no samples, non-finite values or times that don't increase.

    >>> log = Log.from_arrays(time=[0.0, 0.1, 0.2], output=[1.0, 2.0, 3.0], input=[0.0, 1.0, 0.0], name="toy")
    >>> log
    Log(name='toy', samples=3, outputs=1, inputs=1, 0 s to 0.2 s)
    """

    # Shapes are checked below, with errors of our own, not only where the tests check annotations.
    time: Float[Tensor, "..."]  # [T], s
    output: Float[Tensor, "..."]  # [T, Y]
    input: Float[Tensor, "..."]  # [T, U]
    name: str = ""

    def __post_init__(self) -> None:
        check_shape("time", self.time, ("T",))
        check_shape("output", self.output, (len(self), "Y"))
        check_shape("input", self.input, (len(self), "U"))
        if not len(self):
            raise DataError(f"log {self.name!r} has no samples")
        for name, values in (("time", self.time), ("output", self.output), ("input", self.input)):
            check_finite(name, values)
        back = (self.time.diff() <= 0).nonzero()
        if len(back):
            row = int(back[0])
            pair = f"{float(self.time[row])} s is followed by {float(self.time[row + 1])} s in row {row + 1}"
            raise DataError(f"time has to increase; in log {self.name!r} {pair}")

    @classmethod
    def from_arrays(cls, time: Any, output: Any, input: Any, name: str = "") -> "Log":
        """Return the log of time [T], output [T, Y] or [T] and input [T, U] or [T]: arrays or tensors, copied to float64."""
        return cls(to_float64("time", time), to_column("output", output), to_column("input", input), name)

    def __len__(self) -> int:
        """Return the number of samples T."""
        return self.time.shape[0]

    def __repr__(self) -> str:
        span = f"{self.time[0]:g} s to {self.time[-1]:g} s"
        sizes = f"outputs={self.output.shape[1]}, inputs={self.input.shape[1]}"
        return f"Log(name={self.name!r}, samples={len(self)}, {sizes}, {span})"

    @property
    def sample_time(self) -> float:
        """Seconds from one sample to the next; raises `DataError` if they aren't evenly spaced or there is only one."""
        steps = self.time.diff()
        if not len(steps):
            raise DataError(f"log {self.name!r} has one sample, so no sample time")
        mean = float(steps.mean())
        if float((steps - mean).abs().max()) > _UNEVENNESS * mean:
            spread = f"{float(steps.min()):g} s to {float(steps.max()):g} s apart"
            raise DataError(f"log {self.name!r} has samples {spread}; resample it to one rate first")
        return mean

    def slice(self, start: float, end: float) -> "Log":
        """Return the samples with start <= time < end, in seconds; raises `DataError` if there are none."""
        return self._rows((self.time >= start) & (self.time < end))

    def segments(self, duration: float) -> list["Log"]:
        """Cut the log into pieces of `duration` seconds that share no sample; the last takes the rest, half to one and a half.

        Each becomes an episode of its own, so that a part of one long log can be held out:
        `Transitions.concat([lagged(piece, 4, 4) for piece in log.segments(10.0)])`.

        Raises `ConfigurationError` unless the duration is positive.
        """
        if not duration > 0:
            raise ConfigurationError(f"segments wants a positive duration in seconds; got {duration}")
        elapsed = (self.time - self.time[0]) / duration
        pieces = max(round(float(elapsed[-1])), 1)
        # A stamp that is a rounding error below a cut belongs after it.
        number = (elapsed + 1e-9).floor().clamp(max=pieces - 1)
        return [self._rows(number == piece) for piece in number.unique()]

    def _rows(self, mask: Tensor) -> "Log":
        return Log(self.time[mask], self.output[mask], self.input[mask], self.name)


def resample(log: Log, rate: float) -> Log:
    """Return the log at `rate` samples per second: outputs interpolated linearly, inputs held (zero-order hold).

    The grid starts at the first stamp and ends at or before the last. Nothing is filtered: an output with content above half the
    rate aliases, and an input sample that falls between two grid points is dropped.

    Raises `ConfigurationError` unless the rate is positive and finite.

    >>> log = Log.from_arrays(time=[0.0, 1.0, 2.0], output=[0.0, 4.0, 2.0], input=[1.0, 3.0, 5.0])
    >>> half = resample(log, rate=2.0)
    >>> half.output.flatten().tolist(), half.input.flatten().tolist()
    ([0.0, 2.0, 4.0, 3.0, 2.0], [1.0, 1.0, 3.0, 3.0, 5.0])
    """
    if not 0 < rate < math.inf:
        raise ConfigurationError(f"resample wants a positive rate in samples per second; got {rate}")
    stamps = log.time.numpy()
    # Grid points and stamps that are equal on paper differ by rounding; without the slack the hold would slip by one sample.
    slack = 1e-6 / rate
    count = int(np.floor((stamps[-1] - stamps[0] + slack) * rate)) + 1
    grid = stamps[0] + np.arange(count) / rate
    output = np.stack([np.interp(grid, stamps, column) for column in log.output.numpy().T], axis=1)
    held = np.searchsorted(stamps, grid + slack, side="right") - 1
    return Log(torch.from_numpy(grid), torch.from_numpy(output), log.input[torch.from_numpy(held)], log.name)


@dataclass(frozen=True)
class LagLayout:
    r"""Where things stand in a lagged state: for Y outputs with n_y lags and U inputs with n_u lags,

        s_t = [y_t, y_{t-1}, ..., y_{t-n_y+1}, u_{t-1}, ..., u_{t-n_u+1}],   a_t = u_t

    newest first, and at each lag all Y outputs (or U inputs) side by side, so S = n_y·Y + (n_u - 1)·U and A = U. State and action
    together are the n_y + n_u regressors of y_{t+1} of an ARX model. Everything in s_{t+1} but y_{t+1} is a copy: see `shift`.

    Raises `ConfigurationError` unless all sizes are at least 1 (0 inputs are allowed).

    >>> layout = LagLayout(outputs=1, inputs=1, output_lags=2, input_lags=3)
    >>> layout.names()
    ['y[t]', 'y[t-1]', 'u[t-1]', 'u[t-2]']
    """

    outputs: int
    inputs: int
    output_lags: int
    input_lags: int

    def __post_init__(self) -> None:
        if min(self.outputs, self.output_lags, self.input_lags) < 1 or self.inputs < 0:
            raise ConfigurationError(f"lags want at least one output, one output lag and one input lag; got {self}")

    @property
    def state_size(self) -> int:
        """S."""
        return self.output_lags * self.outputs + (self.input_lags - 1) * self.inputs

    @property
    def newest(self) -> slice:
        """Where y_t stands in s_t."""
        return self.output(0)

    def output(self, lag: int) -> slice:
        """Return where y_{t-lag} stands in s_t; raises `ConfigurationError` unless 0 <= lag < n_y."""
        if not 0 <= lag < self.output_lags:
            raise ConfigurationError(f"the state holds output lags 0 to {self.output_lags - 1}; got {lag}")
        return slice(lag * self.outputs, (lag + 1) * self.outputs)

    def input(self, lag: int) -> slice:
        """Return where u_{t-lag} stands in s_t (u_t is the action); raises `ConfigurationError` unless 1 <= lag < n_u."""
        if not 1 <= lag < self.input_lags:
            raise ConfigurationError(f"the state holds input lags 1 to {self.input_lags - 1}; got {lag}")
        start = self.output_lags * self.outputs + (lag - 1) * self.inputs
        return slice(start, start + self.inputs)

    def names(self) -> list[str]:
        """Return a label for each entry of the state, numbered from 0 if there are several outputs or inputs."""
        outputs = _labels("y", self.outputs, range(self.output_lags))
        return outputs + _labels("u", self.inputs, range(1, self.input_lags))

    def shift(
        self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch U"], output: Float[Tensor, "*batch Y"]
    ) -> Float[Tensor, "*batch S"]:
        """Return s_{t+1} from s_t, u_t and y_{t+1}: the newest go in front, the oldest drop out."""
        boundary = self.output_lags * self.outputs
        outputs = torch.cat([output, state[..., :boundary]], -1)[..., :boundary]
        inputs = torch.cat([action, state[..., boundary:]], -1)[..., : self.state_size - boundary]
        return torch.cat([outputs, inputs], -1)


def lagged(log: Log, output_lags: int, input_lags: int) -> Transitions:
    """Return the log as one episode of lagged states, laid out as `LagLayout` says: T - max(n_y, n_u) rows.

    The first max(n_y, n_u) samples make the first state and action; row i leads to y of sample max(n_y, n_u) + i.

    Raises `DataError` if the samples aren't evenly spaced or too few, `ConfigurationError` for less than one lag.

    >>> log = Log.from_arrays(time=[0.0, 1.0, 2.0, 3.0], output=[1.0, 2.0, 3.0, 4.0], input=[10.0, 20.0, 30.0, 40.0])
    >>> data = lagged(log, output_lags=2, input_lags=2)
    >>> data.state.tolist(), data.action.tolist()
    ([[2.0, 1.0, 10.0], [3.0, 2.0, 20.0]], [[20.0], [30.0]])
    """
    LagLayout(log.output.shape[1], log.input.shape[1], output_lags, input_lags)  # raises for less than one lag
    first = max(output_lags, input_lags) - 1
    if len(log) < first + 2:
        raise DataError(f"log {log.name!r} has {len(log)} samples; {output_lags} + {input_lags} lags want at least {first + 2}")
    _ = log.sample_time  # raises if the samples aren't evenly spaced
    end = len(log)
    outputs = [log.output[first - lag : end - lag] for lag in range(output_lags)]
    inputs = [log.input[first - lag : end - lag] for lag in range(1, input_lags)]
    states = torch.cat([*outputs, *inputs], 1)
    return Transitions.from_arrays(states[:-1], log.input[first : end - 1], states[1:], episode=torch.zeros(end - first - 1))


def _labels(letter: str, size: int, lags: range) -> list[str]:
    letters = [letter] if size == 1 else [f"{letter}{index}" for index in range(size)]
    return [f"{name}[t-{lag}]" if lag else f"{name}[t]" for lag in lags for name in letters]
