"""Reference models that every comparison contains: linear regression on the features, and that nothing changes."""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.functions import Function
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data, r_squared
from bayesdyn.progress import Progress
from bayesdyn.rollout import PlainDynamics, SampledDynamics


class LinearFunction(Function):
    """n linear functions f_i(x) = [x, 1] W_i with constant noise, W [n, D + 1, E], noise variance [E]."""

    def __init__(self, weight: Float[Tensor, "n columns E"], noise_var: Float[Tensor, "E"]) -> None:
        self.weight, self.noise_var = weight, noise_var
        self.n, self.inputs, self.outputs = weight.shape[0], weight.shape[1] - 1, weight.shape[2]

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x, [n or 1, ..., D] -> [n, ..., E]."""
        self.check_inputs(x)
        flat = x.reshape(x.shape[0], -1, self.inputs)
        mean = (flat @ self.weight[:, :-1] + self.weight[:, -1:]).reshape(self.n, *x.shape[1:-1], self.outputs)
        return Gaussian(mean, self.noise_var.expand_as(mean))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "LinearFunction":
        """Return the same draws with their tensors cast or moved."""
        return LinearFunction(self.weight.to(dtype=dtype, device=device), self.noise_var.to(dtype=dtype, device=device))


class RidgeLinear(Posterior):
    """y = [x, 1] W + ε: Bayesian linear regression with W ~ N(0, σ²/λ) and σ² the residual variance of the ridge solution.

    W | D ~ N((XᵀX + λI)⁻¹ Xᵀy, σ² (XᵀX + λI)⁻¹)   (Bishop 2006, equations 3.50 to 3.54)

    >>> x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    >>> ridge = RidgeLinear()
    >>> report = ridge.fit(x, 2 * x)
    >>> round(ridge.predict(torch.ones(1, 1, dtype=torch.float64)).mean.item(), 2)
    2.0
    """

    mean: Tensor
    factor: Tensor
    noise_var: Tensor

    def __init__(self, penalty: float = 1e-3) -> None:
        super().__init__()
        self.penalty = penalty
        for name, shape in {"mean": (0, 0), "factor": (0, 0), "noise_var": (0,)}.items():
            self.register_buffer(name, torch.empty(shape, dtype=torch.float64))

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E), (0, 0) before `fit`."""
        return max(self.mean.shape[0] - 1, 0), self.mean.shape[1]

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Solve for W in closed form; `warm_start`, `generator` and `progress` have nothing to do."""
        check_training_data(x, y)
        began = time.perf_counter()
        columns = _with_one(x)
        precision = columns.mT @ columns + self.penalty * torch.eye(columns.shape[1], dtype=x.dtype, device=x.device)
        self.factor = torch.linalg.cholesky(precision)
        self.mean = torch.cholesky_solve(columns.mT @ y, self.factor)
        residual = y - columns @ self.mean
        freedom = max(len(x) - columns.shape[1], 1)
        self.noise_var = (residual.square().sum(0) / freedom).clamp_min(torch.finfo(x.dtype).eps)
        fit = Predictive.from_draws(Gaussian((y - residual).unsqueeze(0), self.noise_var.expand_as(y).unsqueeze(0)))
        penalty = 0.5 * self.penalty * (self.mean.square().sum(0) / self.noise_var).sum() / len(x)
        seconds = time.perf_counter() - began
        return FitReport(float(-fit.log_prob(y).mean()), float(penalty), 1, seconds, r_squared(y, y - residual))

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        """Draw n weight matrices; without a generator one is seeded from the system."""
        self.check_sample(n)
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        noise = torch.randn((n, *self.mean.shape), generator=generator, dtype=self.mean.dtype)
        spread = torch.linalg.solve_triangular(self.factor.mT, noise, upper=True) * self.noise_var.sqrt()
        return LinearFunction(self.mean + spread, self.noise_var)

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return the exact predictive, one component: σ² [x, 1](XᵀX + λI)⁻¹[x, 1]ᵀ epistemic, σ² aleatoric."""
        self.check_inputs(x)
        columns = _with_one(x)
        mean = columns @ self.mean
        root = torch.linalg.solve_triangular(self.factor, columns.reshape(-1, columns.shape[-1]).mT, upper=False)
        leverage = root.square().sum(0).reshape(*x.shape[:-1], 1)
        epistemic = leverage * self.noise_var
        return Predictive(mean.unsqueeze(0), epistemic.unsqueeze(0), self.noise_var.expand_as(mean).unsqueeze(0))


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


class Persistence:
    """The model that nothing changes, s' = s, with the training residual's variance as noise and no ignorance of its own."""

    def __init__(self, codec: BaseCodec) -> None:
        self.codec = codec
        self.noise_var = torch.empty(0, dtype=torch.float64)

    def fit(
        self,
        transitions: Transitions,
        *,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Take the residual variance from the training transitions."""
        began = time.perf_counter()
        self.codec.fit(transitions)
        y = self.codec.target(transitions.state, transitions.next_state)
        still = self.codec.target(transitions.state, transitions.state)
        self.noise_var = (y - still).square().mean(0).clamp_min(torch.finfo(y.dtype).eps)
        nll = -self.predict_target(transitions.state, transitions.action).log_prob(y).mean()
        return FitReport(float(nll), 0.0, 1, time.perf_counter() - began, r_squared(y, still))

    def predict_target(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Predictive:
        """Return the predictive of the whitened target."""
        still = self.codec.target(state, state).unsqueeze(0)
        return Predictive(still, torch.zeros_like(still), self.noise_var.expand_as(still))

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> SampledDynamics:
        """Return n equal draws, which compute in the dtype of the state."""
        return PlainDynamics(_Still(self.codec, self.noise_var, n), n)


@dataclass(frozen=True, eq=False)
class _Still:
    """s' = s + ε for n draws that are all alike."""

    codec: BaseCodec
    noise_var: Tensor
    n: int

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        batch = torch.broadcast_shapes(state.shape[1:-1], action.shape[1:-1])
        state, action = (v.expand(self.n, *batch, v.shape[-1]) for v in (state, action))
        still = self.codec.raw_target(state, state)
        target = Gaussian((still - self.codec.target_mean) / self.codec.target_std, self.noise_var.expand_as(still))
        return self.codec.decode(state, action, target)
