"""`SGHMC`: draws from the posterior of a network's weights by Langevin dynamics, with what tells whether to believe them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.inference.monte_carlo import effective_sample_size, split_r_hat
from bayesdyn.networks.energy import Energy
from bayesdyn.networks.langevin import Langevin
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Heteroscedastic, Noise
from bayesdyn.networks.training import Training, train
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior
from bayesdyn.posteriors.sghmc_schedule import Constant, Schedule
from bayesdyn.progress import Progress

_PROBES, _TRACE = 50, 200
_NOISE_EVERY, _CURVATURE_EVERY, _FORGET = 10, 25, 0.9
_TRUSTED_R_HAT, _KINETIC_OFF, _CONFIGURATIONAL_OFF = 1.1, 0.1, 0.25
# Errors come from ten stretches, so 6 of them are what 4 would be were they known: a chance of 2e-4 per chain.
_STRETCHES, _SURE = 10, 6.0
_REPORT_ROWS = 2000


@dataclass(frozen=True)
class SGHMCSampling:
    """How chains run: `burn_in` steps that are thrown away, then `steps` steps, of which the chains keep `draws` in all.

    `friction` is per unit of time, in which a direction that only the prior determines has frequency 1: at 1 nothing is forgotten
    faster than the slowest direction moves. `reach` is the step in units of 1/√(largest curvature): below 2 it is stable.
    Gradients come from all rows unless `batch_size` is given. The noise of minibatches heats the chains by about
    ½h(N/B - 1)/γ·(curvature) in each direction, which at the default step and friction means many times the right temperature in
    the directions that the data determine well: a smaller `reach` or more `friction` pays for it.

    Raises `ConfigurationError` for values without a meaning.

    >>> SGHMCSampling(steps=100, burn_in=50).draws
    200
    """

    steps: int = 4000
    burn_in: int = 1000
    draws: int = 200
    friction: float = 1.0
    reach: float = 0.7
    batch_size: int | None = None
    schedule: Schedule = Constant()  # noqa: RUF009

    def __post_init__(self) -> None:
        counts = (self.steps, self.burn_in, self.draws, 1 if self.batch_size is None else self.batch_size)
        if min(counts) < 1 or self.friction <= 0 or not 0 < self.reach < 2:
            raise ConfigurationError(f"sampling wants positive numbers throughout and reach below 2; got {self}")


class _Run(NamedTuple):
    theta: Float[Tensor, "draws P"]  # chains in turn
    noise: Float[Tensor, "draws rows E"]
    trace: Float[Tensor, "K times probes E"]  # function values
    temperatures: Float[Tensor, "2 K"]  # kinetic and configurational, over the noisy steps after the burn-in
    errors: Float[Tensor, "2 K"]  # their standard errors
    rescues: int
    curves: dict[str, tuple[float, ...]]


class SGHMC(NetworkPosterior):
    r"""p(θ|D) ≈ (1/m) Σ_i δ(θ - θ_i): m stored draws of K chains that follow Langevin dynamics of U(θ) = -log p(D|θ) - log p(θ).

    The chains start at K networks trained to their modes, and take steps of a size that follows the curvature
    (`bayesdyn.networks.langevin`); p(θ): W ~ N(0, 1/fan_in), b ~ N(0, 1). `Homoscedastic()` noise is sampled with θ, each variance
    exactly given the residuals, under std ~ HalfNormal(1). With `Heteroscedastic()` noise the columns of the log variance are
    sampled like all weights; their bounds and centre have no prior and stay where training put them.

    `sample(n)` takes n stored draws without replacement, or each n // m times and the rest without replacement; `predict` is the
    mixture over all stored draws, exactly what `sample` draws from. After a fit, `r_hat` and `effective_size` [probes, E] are
    those of function values at 50 inputs, half of them training inputs, half uniform in their range, and `temperature` [2, K] has
    each chain's kinetic and configurational temperature; both are 1 up to Monte Carlo error where the chains sample the
    posterior: 1/P Σ p² tells whether steps and gradients are sound, 1/P (θ - θ_0)·∇U (the virial) whether weights have arrived.

    Raises `ConfigurationError` for options without a meaning.

    Sources: Chen, Fox, Guestrin 2014; Leimkuhler, Matthews 2013; Wenzel et al. 2020, appendix on temperature diagnostics.

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> posterior = SGHMC(hidden=(8,), training=Training(steps=20), sampling=SGHMCSampling(steps=50, burn_in=10, draws=20))
    >>> report = posterior.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> posterior.predict(x).components, posterior.sample(7)(x.unsqueeze(0)).mean.shape
    (20, torch.Size([7, 20, 1]))
    """

    theta: Tensor
    r_hat: Tensor
    effective_size: Tensor
    temperature: Tensor

    def __init__(
        self,
        chains: int = 4,
        hidden: tuple[int, ...] = (50,),
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        sampling: SGHMCSampling = SGHMCSampling(),
        training: Training = Training(steps=2000, warm_steps=500, learning_rate=1e-2),  # noqa: B008
    ) -> None:
        super().__init__(hidden, activation, noise)
        if chains < 1 or sampling.draws % chains != 0 or sampling.draws // chains > sampling.steps:
            raise ConfigurationError(
                f"{sampling.draws} draws want a number of chains that divides them, and as many steps for each; got {chains} chains"
                f" and {sampling.steps} steps"
            )
        if noise.wants_held_out:
            raise ConfigurationError(f"SGHMC learns from every row, so {noise} has none to look at; take Homoscedastic()")
        self.chains, self.sampling, self.settings = chains, sampling, training
        self.stages = sampling.schedule.stages(sampling.steps, sampling.draws // chains)
        for name in ("theta", "r_hat", "effective_size", "temperature"):
            self.register_buffer(name, torch.empty(0, 0))

    @property
    def draws(self) -> Parameters:
        """All stored draws, chains in turn; a later fit replaces these tensors and never writes into them."""
        return Parameters(self.theta, self.noise_parameters)

    def learn(self, fit: Fit) -> FitReport:
        """Train the chains' starts and run the chains; with `warm_start` from the last draw of each, trained a little.

        Raises `NumericalError` when chains keep running away.
        """
        network, x, y, generator = fit.network, fit.x, fit.y, fit.generator
        start = self._last() if fit.warm else network.initial(self.chains, generator)
        counts = torch.ones(self.chains, len(x), dtype=torch.int64, device=x.device)
        first = fit.first_step(self.settings)
        trained = train(network, start, x, y, counts, training=self.settings, generator=generator, first_step=first)
        run = self._run(Energy.of(network, x, y), trained.parameters, generator, fit.progress)
        self.theta, self.temperature = run.theta, run.temperatures
        self.keep(network, run.noise)
        self.r_hat, self.effective_size = split_r_hat(run.trace), effective_sample_size(run.trace)
        return self._report(run, x, y, trained.steps + len(self.stages) + self.sampling.burn_in, fit.seconds)

    def _last(self) -> Parameters:
        """Return the last draw of each chain (a state with fewer draws than chains is repeated)."""
        index = (torch.arange(self.chains, device=self.theta.device) - self.chains) % len(self.theta)
        return self.draws.select(index)

    def _run(self, energy: Energy, start: Parameters, generator: torch.Generator, progress: Progress | None) -> _Run:
        settings, total = self.sampling, self.sampling.burn_in + len(self.stages)
        chains = Langevin(
            energy,
            start,
            friction=settings.friction,
            reach=settings.reach,
            batch_size=settings.batch_size,
            generator=generator,
        )
        for step in range(settings.burn_in):
            nll = chains.step().nll
            self._tend(chains, step, total, nll, progress, _FORGET)
        probes, every = _probe_inputs(energy.x, generator), max(1, len(self.stages) // _TRACE)
        kept, trace, warmth, losses = [], [], [], []
        for step, stage in enumerate(self.stages):
            figures = chains.step(stage.pace, stage.temperature)
            self._tend(chains, settings.burn_in + step, total, figures.nll, progress, 1.0)
            if stage.temperature == 1:
                warmth.append(torch.stack([figures.kinetic, figures.configurational]))
            if stage.keep:
                kept.append(chains.parameters)
            if step % every == 0 or stage.keep:
                losses.append(float(figures.nll.mean()))
            if stage.temperature == 1 and (step % every == 0 or stage.keep):
                trace.append(_values(energy.network, chains.parameters, probes))
        return _Run(
            torch.stack([one.theta for one in kept]).flatten(0, 1),
            torch.stack([one.noise for one in kept]).flatten(0, 1),
            torch.stack(trace, 1),
            *_mean_and_error(torch.stack(warmth)),
            chains.rescues,
            {"nll": tuple(losses), "kinetic_temperature": tuple(float(w[0].mean()) for w in warmth[::every])},
        )

    def _tend(self, chains: Langevin, step: int, total: int, nll: Tensor, progress: Progress | None, forget: float) -> None:
        """Do what is due after a step: noise given θ, a look at the curvature, a word to who waits."""
        if step % _NOISE_EVERY == 0:
            chains.draw_noise()
        if step % _CURVATURE_EVERY == _CURVATURE_EVERY - 1:
            chains.follow_curvature(forget)
            if progress is not None:
                progress(step + 1, total, {"nll": float(nll.mean())})

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Return n of the m stored draws: without replacement for n <= m, else all of them n // m times and n mod m as before."""
        self.check_sample(n)
        return self.network.deal(self.draws, n, generator or fresh_generator())

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return the exact mixture over all stored draws, [m, ..., E]."""
        self.check_inputs(x)
        return Predictive.from_draws(self.network.function(self.draws)(x.unsqueeze(0)))

    @torch.no_grad()
    def _report(self, run: _Run, x: Tensor, y: Tensor, steps: int, seconds: float) -> FitReport:
        network, nll, means = self.network, y.new_zeros(()), []
        function = network.function(self.draws)
        for rows, targets in zip(x.split(_REPORT_ROWS), y.split(_REPORT_ROWS), strict=True):
            mean, var = function(rows.unsqueeze(0))
            nll -= torch.distributions.Normal(mean, var.sqrt(), validate_args=False).log_prob(targets).sum((1, 2)).mean()
            means.append(mean.mean(0))
        return FitReport(
            nll=float(nll) / len(x),
            penalty=float(network.penalty(self.draws, len(x), network.prior_precision().to(x)).mean()),
            steps=steps,
            seconds=seconds,
            r2_train=r_squared(y, torch.cat(means)),
            warnings=self._warnings(run),
            curves=run.curves,
        )

    def _warnings(self, run: _Run) -> tuple[str, ...]:
        found = []
        apart = self.r_hat > _TRUSTED_R_HAT
        if bool(apart.any()):
            worst, size = float(self.r_hat[apart].max()), float(self.effective_size.median())
            found.append(
                f"R̂ is above {_TRUSTED_R_HAT} at {int(apart.sum())} of {apart.numel()} probed function values, {worst:.2f} at the "
                f"most, median effective size {size:.0f}: the chains disagree, allow more steps"
            )
        off = (self.temperature - 1).abs() - _SURE * run.errors > torch.tensor([[_KINETIC_OFF], [_CONFIGURATIONAL_OFF]]).to(
            run.errors
        )
        kinetic, configurational = (", ".join(f"{t:.2f}" for t in row.tolist()) for row in self.temperature)
        if bool(off[0].any()):
            found.append(f"kinetic temperatures of {kinetic}, wanted 1: take a smaller reach, and all rows for each gradient")
        if bool(off[1].any()):
            found.append(f"configurational temperatures of {configurational}, wanted 1: not in equilibrium, allow more steps")
        if run.rescues:
            found.append(f"chains ran away {run.rescues} times and were put back with a shorter step: take a smaller reach")
        return tuple(found)


def _mean_and_error(values: Float[Tensor, "times 2 K"]) -> tuple[Float[Tensor, "2 K"], Float[Tensor, "2 K"]]:
    """Return the mean over time and its standard error, from the means of ten stretches, longer than what is remembered."""
    length = len(values) // _STRETCHES
    if length < 1:
        return values.mean(0), torch.zeros_like(values[0])
    means = values[: _STRETCHES * length].unflatten(0, (_STRETCHES, length)).mean(1)
    return values.mean(0), means.std(0) / _STRETCHES**0.5


def _probe_inputs(x: Tensor, generator: torch.Generator) -> Float[Tensor, "probes D"]:
    """Return 50 inputs: 25 training inputs, with repetition, and 25 uniform ones in their range."""
    half = _PROBES // 2
    index = torch.randint(len(x), (half,), generator=generator, device=generator.device).to(x.device)
    share = torch.rand(half, x.shape[1], generator=generator, device=generator.device).to(x)
    return torch.cat([x[index], x.amin(0) + share * (x.amax(0) - x.amin(0))])


@torch.no_grad()
def _values(network: Network, parameters: Parameters, probes: Tensor) -> Float[Tensor, "K probes E"]:
    return network.noise.split(network.columns(parameters.theta, probes.unsqueeze(0)), parameters.noise)[0]
