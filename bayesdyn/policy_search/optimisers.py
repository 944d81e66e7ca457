"""How a policy's parameters are searched: quasi-Newton on a deterministic loss, or Adam with fresh random numbers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.inference.bfgs import BFGS
from bayesdyn.inference.optimisation import Optimum
from bayesdyn.policies import Policy
from bayesdyn.policy_search.objective import Loss, as_vector, set_vector, vector_objective
from bayesdyn.progress import Progress

# Draws the loss anew: other start states, other functions, other noise.
Redraw = Callable[[], Loss]


class PolicyOptimiser(ABC):
    """Searches the parameters of a policy."""

    @abstractmethod
    def improve(self, policy: Policy, redraw: Redraw, progress: Progress | None = None) -> Optimum:
        """Leave the parameters found in the policy and return them; raises `NumericalError` if the loss fails from the start on."""


@dataclass(frozen=True)
class QuasiNewton(PolicyOptimiser):
    """`BFGS` on one draw of the loss: `searches` line searches of at most `evaluations` evaluations (PILCO: 150 and 30).

    >>> QuasiNewton(searches=20).evaluations
    30
    """

    searches: int = 150
    evaluations: int = 30
    tolerance: float = 1e-9

    def improve(self, policy: Policy, redraw: Redraw, progress: Progress | None = None) -> Optimum:
        """Minimise one draw of the loss."""
        search = BFGS(searches=self.searches, evaluations=self.evaluations, tolerance=self.tolerance)
        found = search.minimise(vector_objective(redraw(), policy), as_vector(policy), progress)
        set_vector(policy, found.point)
        return found


@dataclass(frozen=True)
class Adam(PolicyOptimiser):
    """Adam (Kingma & Ba 2015) on a loss that is drawn anew every `redraw_every` steps; gradients are clipped to `clip_norm`.

    A step whose loss or gradient is not finite is taken back, and the rate halved. The policy keeps the last parameters at which
    they were, since values under different draws cannot be compared; `Optimum.value` is the mean of the last tenth.

    Raises `ConfigurationError` for impossible numbers.

    >>> Adam(steps=500).rate
    0.01
    """

    steps: int = 1000
    rate: float = 1e-2
    final_rate: float | None = None
    redraw_every: int = 1
    clip_norm: float = 10.0

    def __post_init__(self) -> None:
        if min(self.steps, self.redraw_every) < 1 or min(self.rate, self.clip_norm, self.final_rate or self.rate) <= 0:
            raise ConfigurationError(f"Adam wants steps and redraw_every >= 1 and positive rates and clip_norm; got {self}")

    def improve(self, policy: Policy, redraw: Redraw, progress: Progress | None = None) -> Optimum:
        """Descend, the rate falling geometrically from `rate` to `final_rate` if there is one."""
        parameters = list(policy.parameters())
        adam = torch.optim.Adam(parameters, lr=self.rate)
        decay = ((self.final_rate or self.rate) / self.rate) ** (1 / self.steps)
        loss, curve, lost = redraw(), list[float](), 0
        kept = [p.detach().clone() for p in parameters]
        for step in range(self.steps):
            if step and step % self.redraw_every == 0:
                loss = redraw()
            value = self._gradients(loss, policy, parameters)
            if value is None:
                lost += 1
                self._back(adam, parameters, kept)
                continue
            kept = [p.detach().clone() for p in parameters]
            adam.step()
            for group in adam.param_groups:
                group["lr"] *= decay
            curve.append(value)
            if progress is not None:
                progress(step + 1, self.steps, {"value": value})
        if not curve:
            raise NumericalError("the loss was not finite at any step; start from a policy of smaller actions")
        self._restore(parameters, kept)  # nobody has seen where the last step leads
        tail = curve[-max(1, len(curve) // 10) :]
        warnings = (f"{lost} of {self.steps} steps were taken back: their loss or gradient was not finite",) if lost else ()
        return Optimum(as_vector(policy), sum(tail) / len(tail), self.steps, tuple(curve), warnings)

    def _gradients(self, loss: Loss, policy: Policy, parameters: list[torch.nn.Parameter]) -> float | None:
        """Set the clipped gradients and return the value; None if either is not finite."""
        try:
            with torch.enable_grad():
                value = loss(policy)
                slopes = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        except NumericalError:
            return None
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        return float(value.detach()) if bool(value.isfinite() & norm.isfinite()) else None

    def _back(self, adam: torch.optim.Adam, parameters: list[torch.nn.Parameter], kept: list[torch.Tensor]) -> None:
        self._restore(parameters, kept)
        for group in adam.param_groups:
            group["lr"] *= 0.5

    @staticmethod
    def _restore(parameters: list[torch.nn.Parameter], kept: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                parameter.copy_(before)


@dataclass(frozen=True)
class GrowingHorizon(PolicyOptimiser):
    """The first steps before all of them: `first` on J of the first `horizons[0]` steps, `horizons[1]`, ..., then `last` on J.

    Beliefs that say nothing any more after a second cost the same under every policy; what the first second is worth has a slope
    all the same, and policies that make the most of it are better starts. A horizon at which the loss fails is left out; where all
    steps fail from where the first ones led, or end worse than where all began, it is as if there had been no first ones.

    Raises `ConfigurationError` for horizons that are no whole numbers or do not grow.

    >>> GrowingHorizon(horizons=(12, 20), first=QuasiNewton(50), last=QuasiNewton(100)).last.searches
    100
    """

    horizons: tuple[int, ...]
    first: PolicyOptimiser
    last: PolicyOptimiser

    def __post_init__(self) -> None:
        whole = all(type(horizon) is int and horizon >= 1 for horizon in self.horizons)
        if not whole or any(later <= horizon for horizon, later in pairwise(self.horizons)):
            raise ConfigurationError(
                f"GrowingHorizon wants horizons that grow, whole numbers of steps from 1 on; got {self.horizons}"
            )

    def improve(self, policy: Policy, redraw: Redraw, progress: Progress | None = None) -> Optimum:
        """Search at each horizon from where the one before came to; `Optimum.steps` and warnings are those of all."""
        start, steps, warnings = as_vector(policy), 0, list[str]()
        for horizon in self.horizons:
            before = as_vector(policy)
            try:
                stage = self.first.improve(policy, partial(_within, redraw, horizon), progress)
            except NumericalError as error:
                set_vector(policy, before)
                warnings.append(f"the search of the first {horizon} steps failed: {error}")
                continue
            steps += stage.steps
            warnings += stage.warnings
        try:
            found = self.last.improve(policy, redraw, progress)
        except NumericalError:
            set_vector(policy, start)
            found = self.last.improve(policy, redraw, progress)
        found = _better(policy, redraw(), start, found)
        return found._replace(steps=steps + found.steps, warnings=(*warnings, *found.warnings))


def _better(policy: Policy, loss: Loss, start: np.ndarray, found: Optimum) -> Optimum:
    """Return what was found, or the start if it costs less on the same draw, and leave it in the policy."""
    values = []
    for point in (start, found.point):
        set_vector(policy, point)
        try:
            with torch.no_grad():
                values.append(float(loss(policy)))
        except NumericalError:
            values.append(math.inf)
    if values[0] < values[1]:
        set_vector(policy, start)
        return found._replace(point=start, value=values[0])
    return found


def _within(redraw: Redraw, steps: int) -> Loss:
    return redraw().within(steps)
