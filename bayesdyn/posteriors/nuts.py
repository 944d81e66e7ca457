"""`NUTS`: draws from the posterior of a small network by Hamiltonian Monte Carlo, the reference for all other networks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, DataError
from bayesdyn.functions import Function
from bayesdyn.inference.monte_carlo import effective_sample_size, split_r_hat
from bayesdyn.inference.no_u_turn import Chains, NoUTurn
from bayesdyn.inference.nuts_metric import ChainwiseMetric
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Homoscedastic
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior
from bayesdyn.posteriors.nuts_density import NetworkDensity

_PROBES = 50  # inputs at which the chains are compared
_NETWORKS_AT_ONCE = 500
_WORST_R_HAT, _FEWEST_EFFECTIVE = 1.05, 100


@dataclass(frozen=True)
class NUTSSampling:
    """How long the chains are: transitions of warm-up and after, how many draws are stored, and what is refused as too large.

    `warm_warmup` transitions adapt a warm start. A trajectory takes at most 2^`max_tree_depth` - 1 gradients, and those of networks
    mostly take all of them: a fit costs about (warmup + draws) · 2^max_tree_depth gradients, each of all chains at once. Shorter
    trajectories are no bargain: predictions where the chains mix slowest gain less than is saved.

    Raises `ConfigurationError` for counts without a meaning.

    >>> NUTSSampling().stored
    200
    """

    chains: int = 4
    warmup: int = 500
    warm_warmup: int = 150
    draws: int = 1000
    stored: int = 200
    target_accept: float = 0.8
    max_tree_depth: int = 8
    most_parameters: int = 1000
    most_rows: int = 1000

    def __post_init__(self) -> None:
        counts = (self.chains, self.warmup, self.warm_warmup, self.max_tree_depth, self.most_parameters, self.most_rows)
        if min(counts) < 1 or self.draws < 4 or not 0 < self.target_accept < 1:
            raise ConfigurationError(f"NUTS wants positive counts, 4 draws or more and target_accept in (0, 1); got {self}")
        if self.stored % self.chains or not self.chains <= self.stored <= self.chains * self.draws:
            possible = f"a multiple of chains = {self.chains} between that and chains · draws = {self.chains * self.draws}"
            raise ConfigurationError(f"stored wants to be {possible}; got {self.stored}")


class NUTS(NetworkPosterior):
    r"""p(θ, σ | D) of a network with W ~ N(0, 1/fan_in), b ~ N(0, 1), σ_e ~ HalfNormal(1), y ~ N(f_θ(x), σ²), by draws from it.

    Chains of the No-U-Turn sampler start at draws from the prior; `sampling.stored` of all draws, evenly spaced, are kept and are
    the posterior from then on: `predict` is the mixture over them, without other error than theirs. Each has its own noise
    variance. Computed in float64; the draws are stored in the dtype of the data.

    R̂ and effective sample size are taken of function values, not of weights, which have equivalent permutations; `fit` warns where
    R̂ > 1.05, the effective size is below 100, or a trajectory diverged. Limits on the number of weights and rows are
    `sampling.most_parameters` and `most_rows`: a fit takes minutes, where others take seconds.

    Raises `ConfigurationError` for more weights than that, `DataError` for more rows.

    Sources: Neal 1996 (Bayesian Learning for Neural Networks); Hoffman, Gelman 2014 (the No-U-Turn sampler).

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> posterior = NUTS(hidden=(3,), sampling=NUTSSampling(chains=2, warmup=10, draws=10, stored=20, max_tree_depth=3))
    >>> report = posterior.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> posterior.predict(x).components, posterior.sample(7)(x.unsqueeze(0)).mean.shape
    (20, torch.Size([7, 20, 1]))
    """

    theta: Tensor

    def __init__(
        self,
        hidden: tuple[int, ...] = (50,),
        activation: str = "tanh",
        sampling: NUTSSampling = NUTSSampling(),
    ) -> None:
        super().__init__(hidden, activation, Homoscedastic())
        self.sampling = sampling
        self.register_buffer("theta", torch.empty(0, 0))

    @property
    def draws(self) -> Parameters:
        """The stored networks, chains in turn; a later fit replaces these tensors and never writes into them."""
        return Parameters(self.theta, self.noise_parameters)

    def learn(self, fit: Fit) -> FitReport:
        """Run the chains from the prior or, with `warm_start`, from where those of the last fit ended, with a shorter warm-up.

        The report has the expected nll under the posterior, as its penalty E |θ/s|²/2N, and as curves R̂ and effective size at up
        to 50 inputs and for the noise of each output, and divergences, acceptance and step size per chain.
        """
        self._check_size(fit.network, len(fit.x))
        sampling, density = self.sampling, NetworkDensity(fit.network, fit.x.double(), fit.y.double())
        start = self._ends(density) if fit.warm else density.starts(sampling.chains, fit.generator)
        sampler = NoUTurn(density, target_accept=sampling.target_accept, max_tree_depth=sampling.max_tree_depth)
        warmup = min(sampling.warm_warmup, sampling.warmup) if fit.warm else sampling.warmup
        chains = sampler.run(start, warmup, sampling.draws, fit.generator, fit.progress, ChainwiseMetric(torch.ones_like(start)))
        parameters = density.parameters(self._thinned(chains))
        self.theta = parameters.theta.to(fit.x)
        self.keep(fit.network, parameters.noise.to(fit.x))
        return _report(density, chains, parameters, warmup + sampling.draws, fit.seconds)

    def _check_size(self, network: Network, rows: int) -> None:
        sampling = self.sampling
        if network.size > sampling.most_parameters:
            raise ConfigurationError(
                f"NUTS is for networks of at most {sampling.most_parameters} weights and biases; layers of {network.widths} have "
                f"{network.size}: take fewer units, another posterior, or raise NUTSSampling(most_parameters=...)"
            )
        if rows > sampling.most_rows:
            raise DataError(
                f"NUTS is for at most {sampling.most_rows} rows, each of which every gradient reads; got {rows}: take a part of "
                "them, another posterior, or raise NUTSSampling(most_rows=...)"
            )

    def _ends(self, density: NetworkDensity) -> Float[Tensor, "C P_and_E"]:
        """Return the last stored draw of each chain; other counts of chains take stored draws from the end on."""
        last = torch.arange(self.sampling.chains, device=self.theta.device) % len(self.theta)
        return density.rows(Parameters(*(t.double() for t in self.draws.select(len(self.theta) - 1 - last))))

    def _thinned(self, chains: Chains) -> Float[Tensor, "stored P_and_E"]:
        """Return evenly spaced draws up to the last, [draw, chain] in this order."""
        each = self.sampling.stored // self.sampling.chains
        index = torch.linspace(self.sampling.draws / each - 1, self.sampling.draws - 1, each).round().long()
        return chains.z[:, index.to(chains.z.device)].transpose(0, 1).flatten(0, 1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Take n of the stored draws without replacement; beyond their number all of them in whole repeats and a random rest."""
        self.check_sample(n)
        return self.network.deal(self.draws, n, generator or fresh_generator())

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return the mixture over all stored draws, [stored, ..., E]."""
        self.check_inputs(x)
        return Predictive.from_draws(self.network.function(self.draws)(x.unsqueeze(0)))


@torch.no_grad()
def _report(density: NetworkDensity, chains: Chains, stored: Parameters, steps: int, seconds: float) -> FitReport:
    network, x, y = density.network, density.x[0], density.y
    mean = network.columns(stored.theta, density.x)
    nll = network.nll(mean, stored.noise, density.y.unsqueeze(0)).mean()
    penalty = 0.5 * (stored.theta / density.std).square().sum(1).mean() / len(y)
    values = _compared(density, chains, x[torch.linspace(0, len(x) - 1, min(_PROBES, len(x))).long()])
    r_hat, effective = split_r_hat(values), effective_sample_size(values)
    divergences = int(chains.divergences.sum())
    warnings = []
    if not bool((r_hat <= _WORST_R_HAT).all()):
        warnings.append(f"chains disagree: R-hat of predictions reaches {float(r_hat.max()):.3g} (wanted: 1.05); run longer ones")
    if not bool((effective >= _FEWEST_EFFECTIVE).all()):
        warnings.append(f"the effective sample size falls to {float(effective.min()):.3g} (wanted: 100); run longer chains")
    if divergences:
        whole = chains.z.shape[0] * chains.z.shape[1]
        warnings.append(f"{divergences} of {whole} trajectories diverged, parts of the posterior are missing; raise target_accept")
    figures = {"r_hat": r_hat, "effective_size": effective, "divergences": chains.divergences, "acceptance": chains.acceptance}
    return FitReport(
        nll=float(nll),
        penalty=float(penalty),
        steps=steps,
        seconds=seconds,
        r2_train=r_squared(y, mean.mean(0)),
        warnings=tuple(warnings),
        curves={name: tuple(map(float, v)) for name, v in {**figures, "step_size": chains.step_size}.items()},
    )


def _compared(density: NetworkDensity, chains: Chains, probes: Float[Tensor, "Q D"]) -> Float[Tensor, "C draws figures"]:
    """Return function values at the probes and log σ of every draw."""
    parts = []
    for z in chains.z.flatten(0, 1).split(_NETWORKS_AT_ONCE):
        mean = density.network.columns(density.parameters(z).theta, probes.unsqueeze(0))
        parts.append(torch.cat([mean.flatten(1), z[:, len(density.std) :]], 1))
    return torch.cat(parts).unflatten(0, chains.z.shape[:2])
