"""How long a variational fit runs: its settings, and the test of whether its two losses stand still."""

from dataclasses import dataclass

from torch import Tensor

from bayesdyn.errors import ConfigurationError


@dataclass(frozen=True)
class VariationalTraining:
    """Adam on random minibatches of `batch_size` rows: a constant rate until nothing moves, then `falling` of the steps down to 0.

    The weight of the KL rises from 0 to its full size over the first `ramp` of the steps: with all of it from the start, the
    network gives up units before they have learned anything and settles for a worse optimum. A warm start has no ramp.

    Nothing moves when nll and kl/N, averaged over windows of steps/`windows` steps, both changed by less than `tolerance`
    (relative, or absolute in nats below 1) over two windows. `steps` bounds a fit, `warm_steps` a warm start. The std of the
    weights starts at `start_std`, and its rate is `scale_pace` times that of their means.

    Raises `ConfigurationError` for values without a meaning.

    >>> VariationalTraining(steps=1000).falling_steps(1000)
    300
    """

    steps: int = 6_000
    warm_steps: int = 3_000
    learning_rate: float = 1e-2
    scale_pace: float = 3.0
    start_std: float = 0.02
    batch_size: int = 256
    ramp: float = 0.3
    falling: float = 0.3
    windows: int = 20
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        counts = (self.steps, self.warm_steps, self.batch_size, self.windows)
        numbers = (self.learning_rate, self.scale_pace, self.start_std, self.tolerance)
        if min(counts) < 1 or min(numbers) <= 0 or not 0 < self.falling <= 1 - self.ramp <= 1:
            raise ConfigurationError(f"training wants positive numbers throughout and ramp + falling at most 1; got {self}")

    def falling_steps(self, steps: int) -> int:
        """Return how many of `steps` steps have a falling rate."""
        return max(1, round(self.falling * steps))


class WindowedLosses:
    """Averages of the two losses over windows of steps, and whether they still move."""

    def __init__(self, window: int, tolerance: float) -> None:
        self.window, self.tolerance = window, tolerance
        self.curves: dict[str, tuple[float, ...]] = {"step": (), "nll": (), "kl": ()}
        self._total: Tensor | float = 0.0
        self._count = 0

    def add(self, loss: Tensor) -> bool:
        """Add a step's loss and return whether the window is full, so that `close` is due."""
        self._total, self._count = self._total + loss, self._count + 1
        return self._count == self.window

    def close(self, step: int, kl: float, rest: float) -> None:
        """End the window at `step`, where kl/N is `kl` and the loss holds `rest` besides the nll."""
        nll = float(self._total) / self._count - rest
        for name, value in (("step", float(step)), ("nll", nll), ("kl", kl)):
            self.curves[name] += (value,)
        self._total, self._count = 0.0, 0

    @property
    def last(self) -> dict[str, float]:
        """The figures of the last window."""
        return {"nll": self.curves["nll"][-1], "kl": self.curves["kl"][-1]}

    @property
    def converged(self) -> bool:
        """Whether both losses moved by less than the tolerance over the last two windows."""
        return self._still(len(self.curves["step"]))

    def converged_by(self, step: int) -> bool:
        """Whether they did at the last window that ended by `step`."""
        return self._still(sum(end <= step for end in self.curves["step"]))

    def _still(self, windows: int) -> bool:
        if windows < 3:
            return False
        parts = (self.curves["nll"][windows - 3 : windows], self.curves["kl"][windows - 3 : windows])
        return all(abs(new - old) < self.tolerance * max(1.0, abs(old)) for old, _, new in parts)
