"""iCEM: the cross-entropy method with coloured noise and memory, a tenth of the candidates for the same plan."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.search import Search, carry
from bayesdyn.planners.spaces import Box


@dataclass(frozen=True)
class ICEM(Planner):
    """Sample-efficient cross-entropy method (Pinneri et al. 2020).

    Iteration i draws c_i = max(2k, ⌊c_{i-1}/decay⌋) sequences clip(μ + std ∘ coloured(β)), whose power falls with frequency as
    f^-β, and takes as elites the k best of them and of the ⌊keep·k⌋ reused ones: at first the best elites of the previous step,
    shifted, their open end filled from fresh sequences; then the best elites of the iteration before, with their scores.

        μ <- αμ + (1-α) mean,   std <- α std + (1-α) population std

    μ starts from the warm start's mean, whose end repeats the last action, and std at `std`·(ub - lb)/2. The last iteration also
    tries μ itself. Coloured noise is periodic, so that the last action goes with the first; `periodic=False` draws it over twice
    the horizon and keeps the first half. The plan executes the mean of the elites, because the best sample over-fits a learned
    model (`execute_best=True`: the best candidate seen, as in the paper, for a known plant).

    Raises `ConfigurationError` for impossible sizes.

    >>> from bayesdyn.planners import Box
    >>> planner = ICEM(horizon=2)
    >>> plan = planner.plan(lambda a: -(a - 0.3).square().sum((0, 3)), planner.start(Box.of([-1.0], [1.0])))
    >>> [round(action, 1) for action in plan.actions.flatten().tolist()]
    [0.3, 0.3]
    """

    horizon: int = 25
    candidates: int = 100
    elites: int = 10
    iterations: int = 3
    beta: float = 2.0
    std: float = 0.5
    decay: float = 1.25
    keep: float = 0.3
    momentum: float = 0.1
    periodic: bool = True
    execute_best: bool = False
    repeat_last: bool = True

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.elites, self.iterations) < 1 or not 0 <= self.momentum < 1:
            raise ConfigurationError(f"ICEM wants horizon, candidates, elites, iterations >= 1 and 0 <= momentum < 1; got {self}")
        if self.elites > self.candidates or self.decay < 1 or self.std <= 0 or not 0 <= self.keep <= 1:
            raise ConfigurationError(f"ICEM wants elites <= candidates, decay >= 1, std > 0 and 0 <= keep <= 1; got {self}")

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Iterate sampling and refitting around the shifted previous plan."""
        stream, search = private_generator(generator), Search(warm_start, budget)
        box, mean = warm_start.space.box("ICEM"), warm_start.mean
        std = (self.std * box.width / 2).expand_as(mean)
        reused = math.floor(self.keep * self.elites + 1e-9)  # 0.29 · 100 is 28.999999999999996
        kept, kept_scores = mean.unsqueeze(2)[:, :, :0], mean[0, :, :0]
        elites = None
        for i, count in search.rounds(self._counts(), 2 * self.elites):
            sequences = self._sample(box, mean, std, count, stream)
            if i == self.iterations - 1:
                sequences = torch.cat([mean.unsqueeze(2), sequences[:, :, 1:]], 2)
            if i == 0 and warm_start.elites is not None:
                # First, because what comes last may find no time.
                sequences = torch.cat([carry(warm_start.elites[:, :, :reused], warm_start.stale, sequences), sequences], 2)
            scores = search.score(evaluate, sequences)
            elites = search.rank(torch.cat([sequences, kept], 2), torch.cat([scores, kept_scores], 1), self.elites)
            mean = elites.update(mean, elites.mean, self.momentum)
            std = elites.update(std, elites.var.sqrt(), self.momentum)
            kept, kept_scores = elites.sequences[:, :, :reused], elites.scores[:, :reused]
        return search.plan(mean, execute_best=self.execute_best, elites=elites.sequences if elites else None)

    def _counts(self) -> list[int]:
        counts = [self.candidates]
        while len(counts) < self.iterations:
            counts.append(max(2 * self.elites, int(counts[-1] / self.decay)))
        return counts

    def _sample(
        self, box: Box, mean: Float[Tensor, "T B A"], std: Float[Tensor, "T B A"], count: int, generator: torch.Generator
    ) -> Float[Tensor, "T B c A"]:
        length = self.horizon if self.periodic else 2 * self.horizon
        noise = coloured_noise(length, (1, count, mean.shape[-1]), self.beta, generator, mean.dtype)[: self.horizon]
        return box.clip(mean.unsqueeze(2) + std.unsqueeze(2) * noise.to(mean.device))


def coloured_noise(
    horizon: int, shape: tuple[int, ...], beta: float, generator: torch.Generator, dtype: torch.dtype
) -> Float[Tensor, "T *shape"]:
    """Draw Gaussian noise over time with power spectrum f^-β and unit variance, [T, *shape] (Timmer & König 1995).

    s_k = f_k^(-β/2) with f_0 := f_1, real and imaginary parts N(0, s_k²), no imaginary part at k = 0 and at Nyquist.
    Like every inverse Fourier transform it is periodic: the last step correlates with the first as much as the second does.

    >>> coloured_noise(5, (2, 3), 2.0, torch.Generator().manual_seed(0), torch.float64).shape
    torch.Size([5, 2, 3])
    """
    if horizon == 1 or beta == 0:
        return torch.randn(horizon, *shape, generator=generator, dtype=dtype, device=generator.device)
    frequency = torch.fft.rfftfreq(horizon, dtype=torch.float64, device=generator.device)
    frequency[0] = frequency[1]
    scale = frequency ** (-beta / 2)
    normal = torch.randn(*shape, len(scale), 2, generator=generator, dtype=torch.float64, device=generator.device)
    spectrum = normal * scale[:, None]
    spectrum[..., 0, 1] = 0.0
    inner = scale[1:]
    power = scale[0] ** 2 + 4 * inner.square().sum()
    if horizon % 2 == 0:
        spectrum[..., -1, 1] = 0.0
        power = power - 3 * inner[-1] ** 2
    noise = torch.fft.irfft(torch.view_as_complex(spectrum), n=horizon) * horizon / power.sqrt()
    return noise.movedim(-1, 0).to(dtype)
