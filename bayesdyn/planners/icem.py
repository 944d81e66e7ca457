"""iCEM: the cross-entropy method with coloured noise and memory, a tenth of the candidates for the same plan."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners.base import Evaluate, Iteration, Plan, Planner, WarmStart, check_scores, pick, summarise, weighted_moments


@dataclass(frozen=True)
class ICEM(Planner):
    """Sample-efficient cross-entropy method (Pinneri et al. 2020).

    Iteration i draws c_i = max(2k, ⌊c_{i-1}/decay⌋) sequences clip(μ + std ∘ coloured(β)), whose power falls with frequency as
    f^-β; a share `keep` of the elites is reused: those of the previous iteration and, at the first, those of the previous step,
    shifted. The last iteration also tries the mean. std starts at `std`·(ub - lb)/2. Elites are the k best of all sequences of the
    iteration.

    Raises `ConfigurationError` for impossible sizes.
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
    execute_best: bool = False

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.elites, self.iterations) < 1 or not 0 <= self.momentum < 1:
            raise ConfigurationError(f"ICEM wants horizon, candidates, elites, iterations >= 1 and 0 <= momentum < 1; got {self}")
        if self.elites > self.candidates or self.decay < 1 or self.std <= 0 or not 0 <= self.keep <= 1:
            raise ConfigurationError(f"ICEM wants elites <= candidates, decay >= 1, std > 0 and 0 <= keep <= 1; got {self}")

    def plan(self, evaluate: Evaluate, warm_start: WarmStart, generator: torch.Generator | None = None) -> Plan:
        """Iterate sampling and refitting around the shifted previous plan."""
        box, mean = warm_start.box, warm_start.mean
        std = (self.std * box.width / 2).expand_as(mean)
        best, kept, kept_scores = mean, None, None
        best_score = torch.full(mean.shape[1:2], -torch.inf, dtype=mean.dtype)
        history: list[Iteration] = []
        dropped = total = 0
        reused = int(self.keep * self.elites)
        count = self.candidates
        for i in range(self.iterations):
            sequences = self._sample(count, mean, std, warm_start, generator, last=i == self.iterations - 1)
            if i == 0 and warm_start.elites is not None and reused:
                sequences = torch.cat([sequences, self._carry(warm_start, sequences, reused)], 2)
            scores = check_scores(evaluate(sequences), sequences)
            dropped += int((~scores.isfinite()).sum())
            total += scores.numel()
            if kept is not None and kept_scores is not None:
                sequences, scores = torch.cat([sequences, kept], 2), torch.cat([scores, kept_scores], 1)
            top, index = scores.topk(self.elites, 1)
            chosen = pick(sequences, index)
            history.append(summarise(top))
            better = top[:, 0] > best_score
            best = torch.where(better[None, :, None], chosen[:, :, 0], best)
            best_score = torch.where(better, top[:, 0], best_score)
            new_mean, new_var = weighted_moments(chosen, top.isfinite())
            update = top[:, 0].isfinite()[None, :, None]
            mean = torch.where(update, self.momentum * mean + (1 - self.momentum) * new_mean, mean)
            std = torch.where(update, self.momentum * std + (1 - self.momentum) * new_var.sqrt(), std)
            kept, kept_scores = (chosen[:, :, :reused], top[:, :reused]) if reused else (None, None)
            count = max(2 * self.elites, int(count / self.decay))
        actions = best if self.execute_best else mean
        score = best_score if self.execute_best else history[-1].elite_mean
        carried = replace(warm_start, mean=mean, elites=chosen, stale=0)
        return Plan(actions, score, mean, best, best_score, carried, ~best_score.isfinite(), dropped, total, tuple(history))

    def _sample(
        self, count: int, mean: Tensor, std: Tensor, warm_start: WarmStart, generator: torch.Generator | None, *, last: bool
    ) -> Float[Tensor, "T B c A"]:
        noise = coloured_noise(self.horizon, (1, count, mean.shape[-1]), self.beta, generator, mean.dtype)
        sequences = warm_start.box.clip(mean.unsqueeze(2) + std.unsqueeze(2) * noise)
        return torch.cat([mean.unsqueeze(2), sequences[:, :, 1:]], 2) if last else sequences

    @staticmethod
    def _carry(warm_start: WarmStart, sequences: Tensor, reused: int) -> Tensor:
        """Take the previous step's elites; the steps that the shift left open come from fresh sequences."""
        assert warm_start.elites is not None
        carried = warm_start.elites[:, :, :reused]
        if warm_start.stale == 0:
            return carried
        fresh = sequences[-warm_start.stale :, :, : carried.shape[2]]
        return torch.cat([carried[: -warm_start.stale], fresh])


def coloured_noise(
    horizon: int, shape: tuple[int, ...], beta: float, generator: torch.Generator | None, dtype: torch.dtype
) -> Float[Tensor, "T *shape"]:
    """Draw Gaussian noise over time with power spectrum f^-β and unit variance, [T, *shape] (Timmer & König 1995).

    s_k = f_k^(-β/2) with f_0 := f_1, real and imaginary parts N(0, s_k²), no imaginary part at k = 0 and at Nyquist.

    >>> coloured_noise(1, (2, 3), 2.0, None, torch.float64).shape
    torch.Size([1, 2, 3])
    """
    if horizon == 1 or beta == 0:
        return torch.randn(horizon, *shape, generator=generator, dtype=dtype)
    frequency = torch.fft.rfftfreq(horizon, dtype=torch.float64)
    frequency[0] = frequency[1]
    scale = frequency ** (-beta / 2)
    spectrum = torch.randn(*shape, len(scale), 2, generator=generator, dtype=torch.float64) * scale[:, None]
    spectrum[..., 0, 1] = 0.0
    inner = scale[1:]
    power = scale[0] ** 2 + 4 * inner.square().sum()
    if horizon % 2 == 0:
        spectrum[..., -1, 1] = 0.0
        power = power - 3 * inner[-1] ** 2
    noise = torch.fft.irfft(torch.view_as_complex(spectrum), n=horizon) * horizon / power.sqrt()
    return noise.movedim(-1, 0).to(dtype)
