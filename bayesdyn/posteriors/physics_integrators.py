"""Steps made of differential equations: ds/dt = rhs(s, a, θ) with the action held over the step."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bayesdyn.errors import ConfigurationError, MissingExtraError

# (state [n, points, S], action [n, points, A], parameters [n, 1, ...]) -> ds/dt [n, points, S]
RightHandSide = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class RK4:
    """The classical Runge-Kutta method with fixed steps of dt/substeps; its error per step falls with the fifth power of them.

    Raises `ConfigurationError` for a `dt` or a number of substeps that is not positive.

    >>> import torch
    >>> decay = RK4(lambda state, action, parameters: -parameters["rate"].unsqueeze(-1) * state, dt=1.0, substeps=4)
    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> round(decay(one, one, {"rate": torch.ones(1, 1)}).item(), 4)
    0.3679
    """

    rhs: RightHandSide
    dt: float
    substeps: int = 1

    def __post_init__(self) -> None:
        if not self.dt > 0 or self.substeps < 1:
            raise ConfigurationError(f"RK4 wants dt > 0 and at least one substep; got dt = {self.dt} and {self.substeps}")

    def __call__(self, state: Tensor, action: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Return the state after `dt`, [n, points, S]."""
        h = self.dt / self.substeps
        for _ in range(self.substeps):
            k1 = self.rhs(state, action, parameters)
            k2 = self.rhs(state + 0.5 * h * k1, action, parameters)
            k3 = self.rhs(state + 0.5 * h * k2, action, parameters)
            k4 = self.rhs(state + h * k3, action, parameters)
            state = state + h / 6 * (k1 + 2 * (k2 + k3) + k4)
        return state


@dataclass(frozen=True)
class AdaptiveODE:
    """An adaptive method of torchdiffeq, for stiff or sharply changing equations; slower than `RK4`, and it does not compile.

    All draws and points share the internal steps, so an answer depends on the others by about the tolerances.

    Raises `ConfigurationError` for a `dt` or tolerances that are not positive, `MissingExtraError` without torchdiffeq.
    """

    rhs: RightHandSide
    dt: float
    method: str = "dopri5"
    rtol: float = 1e-8
    atol: float = 1e-10

    def __post_init__(self) -> None:
        if not min(self.dt, self.rtol, self.atol) > 0:
            raise ConfigurationError(f"an adaptive step wants positive dt and tolerances; got {self.dt}, {self.rtol}, {self.atol}")
        _torchdiffeq()

    def __call__(self, state: Tensor, action: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Return the state after `dt`, [n, points, S]."""

        def field(_: Tensor, now: Tensor) -> Tensor:
            return self.rhs(now, action, parameters)

        times = state.new_tensor([0.0, self.dt])
        return _torchdiffeq()(field, state, times, rtol=self.rtol, atol=self.atol, method=self.method)[-1]


def _torchdiffeq() -> Callable[..., Tensor]:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise MissingExtraError("AdaptiveODE needs torchdiffeq: pip install 'bayesdyn[ode]', or use RK4") from error
    return odeint
