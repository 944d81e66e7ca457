"""Constant-rate stochastic gradient descent for SWAG: how fast, on which rows, and the moments of where it goes."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.networks.energy import Energy
from bayesdyn.networks.network import Parameters
from bayesdyn.progress import Progress

_NOISE_BATCHES = 30
_CLIP = 5.0
# Rate times curvature. At 2 descent is unstable; at 0.2 the stiffest variance is a ninth too large. 0.5 was stable at the mode of a
# network, but not where a walk on 200 rows took it: the curvature grew there, and the walk never came back.
_LONGEST = 0.2
_FITTING = 0.5  # the same, for the rate that fits the width: rows per step are few enough that it is no larger


@dataclass(frozen=True)
class Averaging:
    """How SWAG walks: `steps` steps at a constant rate, of which `burn_in` come before `snapshots` looks at the weights.

    The last `rank` snapshots give the deviations. `probes` simulated data sets tell the Fisher information. Each step sees at most
    `batch_size` rows, never all of them: the noise of minibatches is what spreads the weights.

    Raises `ConfigurationError` for values without a meaning.

    >>> Averaging(steps=100, burn_in=20, snapshots=40).rank
    20
    """

    steps: int = 4000
    burn_in: int = 1000
    snapshots: int = 100
    rank: int = 20
    batch_size: int = 32
    probes: int = 256

    def __post_init__(self) -> None:
        counts = (self.burn_in, self.batch_size, self.probes, self.steps - self.burn_in - self.snapshots + 1)
        if min(counts) < 1 or not 2 <= self.rank <= self.snapshots:
            raise ConfigurationError(f"averaging wants 2 <= rank <= snapshots <= steps - burn_in, the rest positive; got {self}")


class Pace(NamedTuple):
    """What a walk is set to: θ ← θ - rate·∇U/mass, rows per step, and the figures that this comes from."""

    mass: Float[Tensor, "K P"]
    rate: Float[Tensor, " K"]
    batch_size: int
    noise: Float[Tensor, " K"]  # v, of the gradients of so many rows
    determined: Float[Tensor, " K"]  # γ
    widen: Float[Tensor, " K"]  # how many times wider the posterior is than a walk at this rate


class Walk(NamedTuple):
    """Moments of the weights along a walk, and its losses."""

    mean: Float[Tensor, "K P"]
    var: Float[Tensor, "K P"]
    deviations: Float[Tensor, "K rank P"]
    clipped: float  # share of the steps that were shortened
    nll: tuple[float, ...]


def choose_pace(energy: Energy, mode: Parameters, settings: Averaging, generator: torch.Generator) -> Pace:
    r"""Choose mass, rate and rows per step such that the walk is as wide as the posterior, on average over the training inputs.

    Near a mode, θ ← θ - ρM⁻¹∇Û is stationary with a covariance Σ for which tr(FΣ) = ½ρv, v = E (∇Û - ∇U)ᵀM⁻¹(∇Û - ∇U) the noise
    of its gradients, as long as ρλ_max ≪ 2 and the data say more than the prior (the trace of Mandt, Hoffman, Blei 2017, section
    3.2: AΣ + ΣA = εC/S). The linearised posterior has tr(FΣ) = γ = tr F(F + δ)⁻¹, the number of parameters that the data
    determine. So ρ = 2γ/v fits, with v measured on minibatches and γ from the Gram matrix of simulated gradients. M = F_ii + δ_i.

    A walk must also stay where the energy is quadratic, and its minibatches have curvatures of their own: E ĤM⁻¹Ĥ is about
    (λ_max + tr(M⁻¹F)/B)F for B rows. Where ρ times that bracket would be above 0.2, ρ is 0.2 over it, and the walk too narrow by a
    factor that is known, √(2γ/vρ), by which its deviations are to be widened. What that loses: directions that the slower walk has
    not explored by its end are widened from whatever it has seen of them.
    """
    simulated = torch.stack([energy.simulated_gradient(mode, generator) for _ in range(settings.probes)], 1)
    fisher = simulated.square().mean(1)
    mass = fisher + energy.precision
    determined = _gram_eigenvalues(simulated, energy.precision.expand_as(mass))
    gamma = (determined / (1 + determined)).sum(1)
    curvature = 1 + _gram_eigenvalues(simulated, mass)[:, -1]
    trace = (fisher / mass).sum(1)
    # v grows as N/B - 1.
    share = 2 * gamma * curvature / (_FITTING * trace)
    rows = max(1, min(settings.batch_size, int(len(energy.x) / (1 + float(share.max())))))
    noise = _gradient_noise(energy, mode, mass, rows, generator)
    longest = _LONGEST / (curvature + trace / rows)
    # Without noise, as with one row, nothing moves at any rate, and there is nothing to widen.
    wanted = torch.where(noise > 0, 2 * gamma / noise, longest)
    rate = torch.minimum(wanted, longest)
    return Pace(mass, rate, rows, noise, gamma, (wanted / rate).sqrt())


def _gram_eigenvalues(gradients: Float[Tensor, "K S P"], mass: Float[Tensor, "K P"]) -> Float[Tensor, "K S"]:
    """Return the eigenvalues of M^-½FM^-½, F the mean of g gᵀ, that are not 0."""
    scaled = gradients * (mass.rsqrt() / gradients.shape[1] ** 0.5).unsqueeze(1)
    return torch.linalg.eigvalsh(scaled @ scaled.mT).clamp_min(0.0)


def _gradient_noise(energy: Energy, at: Parameters, mass: Tensor, rows: int, generator: torch.Generator) -> Float[Tensor, " K"]:
    """Return E |∇Û - ∇U|² in units of the mass, from minibatches."""
    exact, _ = energy.gradient(at)
    total = torch.zeros_like(mass[:, 0])
    for _ in range(_NOISE_BATCHES):
        slope, _ = energy.gradient(at, _batch(energy, len(mass), rows, generator))
        total += ((slope - exact).square() / mass).sum(1)
    return total / _NOISE_BATCHES


def _batch(energy: Energy, members: int, rows: int, generator: torch.Generator) -> Int[Tensor, "K B"]:
    order = torch.rand(members, len(energy.x), generator=generator, device=generator.device).argsort(1)
    return order[:, :rows].to(energy.x.device)


def walk(
    energy: Energy, start: Parameters, pace: Pace, settings: Averaging, generator: torch.Generator, progress: Progress | None
) -> Walk:
    """Walk from `start` at the pace and return the moments of the snapshots; a deviation is from the running mean at its time.

    A gradient of more than `_CLIP` times its usual noise is shortened to that, so that a curvature that grew cannot throw the
    weights out.

    Raises `NumericalError` when the weights stop being finite.
    """
    theta, step_size = start.theta, pace.rate.unsqueeze(1) / pace.mass
    first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    deviations: list[Tensor] = []
    losses: list[float] = []
    after = settings.steps - settings.burn_in
    due = {settings.burn_in + after * (i + 1) // settings.snapshots - 1 for i in range(settings.snapshots)}
    limit, clipped, count = _CLIP * pace.noise.sqrt(), 0.0, 0
    for step in range(settings.steps):
        slope, nll = energy.gradient(start._replace(theta=theta), _batch(energy, len(theta), pace.batch_size, generator))
        shorter = (limit / (slope.square() / pace.mass).sum(1).sqrt().clamp_min(torch.finfo(limit.dtype).tiny)).clamp_max(1.0)
        clipped += float((shorter < 1).double().mean())
        theta = theta - step_size * shorter.unsqueeze(1) * slope
        if step not in due:
            continue
        if not bool(theta.isfinite().all()):
            raise NumericalError(f"the weights stopped being finite by step {step} of averaging; whiten x and y")
        count += 1
        # Moments about the start: about 0 they would lose the small variances to rounding.
        shift = theta - start.theta
        first += (shift - first) / count
        second += (shift.square() - second) / count
        deviations = [*deviations[1 - settings.rank :], shift - first]
        losses.append(float(nll.mean()))
        if progress is not None:
            progress(step + 1, settings.steps, {"nll": losses[-1]})
    return Walk(
        start.theta + first,
        (second - first.square()).clamp_min(0.0),
        torch.stack(deviations, 1),
        clipped / settings.steps,
        tuple(losses),
    )
