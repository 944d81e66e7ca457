"""Markov chain Monte Carlo: chains of Pyro's NUTS from one generator, and what tells whether they may be believed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.inference.chain_adaptation import DenseMetric
from bayesdyn.inference.density_mode import find_mode, inverse_curvature_factor
from bayesdyn.inference.no_u_turn import NoUTurn
from bayesdyn.progress import Progress

_OVERDISPERSION = 2.0  # spread of the starts around their modes, in posterior stds
_FEWEST = 4  # draws per chain that split diagnostics can be computed from


@dataclass(frozen=True)
class Samples:
    """Draws of C chains after their warm-up: `values[site]` is [chains, draws, ...], in the site's own (constrained) space."""

    values: dict[str, Tensor]
    divergences: Int[Tensor, " chains"]  # transitions that left the energy surface
    acceptance: Float[Tensor, " chains"]  # mean acceptance probability
    step_size: Float[Tensor, " chains"]

    def merged(self, name: str) -> Tensor:
        """Return the draws of one site, [draws · chains, ...], chains in turn, so that any first part holds all of them."""
        return self.values[name].transpose(0, 1).flatten(0, 1)

    def last(self) -> dict[str, Tensor]:
        """Return the last draw of each chain, [chains, ...] per site: where a later run may start (`initial`)."""
        return {name: value[:, -1].clone() for name, value in self.values.items()}


def run_nuts(
    model: Callable[[], object],
    *,
    chains: int = 4,
    warmup: int = 500,
    draws: int = 1000,
    target_accept: float = 0.8,
    full_mass: bool = False,
    max_tree_depth: int = 10,
    generator: torch.Generator,
    progress: Progress | None = None,
    initial: dict[str, Tensor] | None = None,
) -> Samples:
    """Sample the posterior of a Pyro model's sites by the No-U-Turn sampler, all chains side by side in this process.

    `model` is evaluated for C chains at once, inside `pyro.plate("chains", C)` (see `PyroDensity`): sites have values [C, *event]
    and observations want one density per chain, `Normal(mean, std).to_event(2)` for a mean [C, N, E]. It computes in the dtype of
    its own distributions.
    Step size and mass matrix adapt during the `warmup` transitions. The mass matrix is diagonal and starts as the identity; with
    `full_mass`, for a few parameters, it is dense and starts as the curvature at the highest mode found.
    Each chain starts at the best of 16 draws from the prior; with `full_mass` at the mode that this leads to, displaced by twice
    the posterior's spread; or at `initial[site]`, [chains, *event] in the site's own space.
    Random numbers come from `generator`; the global random state and Pyro's settings stay as they were, and the parameter store is
    not used. `progress` counts transitions. Ctrl-C leaves at once and changes nothing.

    Raises `ConfigurationError` for counts below 1 or a `target_accept` outside (0, 1), `ShapeError` for an `initial` of another
    number of chains or for observations without one density per chain, `NumericalError` where no start has a finite density.

    Source: Hoffman, Gelman 2014; Betancourt 2017, appendix A (multinomial sampling along the trajectory).

    >>> import pyro
    >>> from pyro.distributions import Normal
    >>> def model(): pyro.sample("height", Normal(2.0, 0.1))
    >>> samples = run_nuts(model, chains=2, warmup=50, draws=50, generator=torch.Generator().manual_seed(0))
    >>> samples.values["height"].shape, bool((samples.values["height"].mean() - 2).abs() < 0.1)
    (torch.Size([2, 50]), True)
    """
    from bayesdyn.inference.pyro_density import PyroDensity  # Pyro is slow to import

    counts = {"chains": chains, "warmup": warmup, "draws": draws, "max_tree_depth": max_tree_depth}
    wrong = [f"{name}={count}" for name, count in counts.items() if count < 1]
    if wrong or not 0 < target_accept < 1:
        given = ", ".join([*wrong, f"target_accept={target_accept}"])
        raise ConfigurationError(f"NUTS wants counts of at least 1 and target_accept in (0, 1); got {given}")
    for name, value in (initial or {}).items():
        if len(value) != chains:
            raise ShapeError(f"initial[{name!r}] wants one start per chain, [{chains}, ...]; got {list(value.shape)}")
    density = PyroDensity(model, generator)
    start = density.starts(chains, generator) if initial is None else density.flat(initial)
    sampler = NoUTurn(density, target_accept=target_accept, full_mass=full_mass, max_tree_depth=max_tree_depth)
    metric = None
    if full_mass:
        modes = torch.stack([find_mode(density, z) for z in start])
        factor = inverse_curvature_factor(density, modes[int(density(modes).argmax())])
        metric = DenseMetric(factor)
        if initial is None:
            noise = torch.randn(modes.shape, generator=generator, dtype=modes.dtype, device=generator.device).to(modes.device)
            start = modes + _OVERDISPERSION * noise @ factor.mT
    found = sampler.run(start, warmup, draws, generator, progress, metric)
    return Samples(density.constrained(found.z), found.divergences, found.acceptance, found.step_size)


def split_r_hat(values: Float[Tensor, "chains draws *event"]) -> Float[Tensor, "*event"]:
    """Return R̂ = √(var⁺/W) with every chain split in two: 1 when halves of chains agree, above 1.05 they have not mixed.

    W is the mean variance within the m halves of length h, B/h the variance of their means, var⁺ = (h - 1)/h·W + B/h. NaN for
    values that do not vary.

    Raises `ShapeError` unless there are 4 draws per chain.

    Source: Gelman et al., Bayesian Data Analysis, 3rd edition, section 11.4.

    >>> split_r_hat(torch.tensor([[0.0, 1.0, 0.0, 1.0], [8.0, 9.0, 8.0, 9.0]])) > 5
    tensor(True)
    """
    halves = _split(values)
    within, combined = _variances(halves)
    return (combined / within).sqrt()


def effective_sample_size(values: Float[Tensor, "chains draws *event"]) -> Float[Tensor, "*event"]:
    """Return the number of independent draws whose mean is as exact: m·h/τ for m half-chains of h draws, τ = -1 + 2 Σ_k P_k.

    P_k = ρ_2k + ρ_2k+1 are sums of neighbouring autocorrelations, ρ_t = 1 - (W - mean of the chains' autocovariances)/var⁺, kept
    while they are positive and made to fall (Geyer's initial monotone sequence). At most m·h·log10(m·h). NaN for values that do
    not vary.

    Raises `ShapeError` unless there are 4 draws per chain.

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, section 3.2.

    >>> values = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    >>> bool((effective_sample_size(values) - 4000).abs() < 800)
    True
    """
    halves = _split(values)
    m, h = halves.shape[:2]
    within, combined = _variances(halves)
    rho = 1 - (within - _autocovariance(halves).mean(0) * h / (h - 1)) / combined  # [h, ...]
    pairs = rho[: h // 2 * 2].unflatten(0, (h // 2, 2)).sum(1)
    positive = (pairs > 0).cumprod(0)
    monotone = pairs.cummin(0).values
    time = -1 + 2 * (monotone * positive).sum(0)
    # Antithetic chains may be better than independent ones, by no more than this.
    return m * h / time.clamp_min(1 / math.log10(m * h))


def _split(values: Tensor) -> Tensor:
    """Return the chains' first and last halves as chains of their own, [2·chains, draws // 2, ...]; float64."""
    if values.dim() < 2 or values.shape[1] < _FEWEST:
        raise ShapeError(f"diagnostics want at least {_FEWEST} draws per chain, [chains, draws, ...]; got {list(values.shape)}")
    half = values.shape[1] // 2
    return torch.cat([values[:, :half], values[:, -half:]]).double()


def _variances(chains: Tensor) -> tuple[Tensor, Tensor]:
    """Return W, the mean variance within chains, and var⁺, the variance of all draws."""
    length = chains.shape[1]
    within = chains.var(1).mean(0)
    return within, (length - 1) / length * within + chains.mean(1).var(0)


def _autocovariance(chains: Tensor) -> Tensor:
    """Return (1/h) Σ_i (x_i - x̄)(x_i+t - x̄) for lags t = 0..h-1 of each chain, [chains, h, ...], by a padded FFT."""
    length = chains.shape[1]
    spectrum = torch.fft.rfft(chains - chains.mean(1, keepdim=True), n=2 * length, dim=1)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * length, dim=1)[:, :length] / length
