"""`SWAG`: a Gaussian over a network's weights from the way that constant-rate stochastic gradient descent takes."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.networks.energy import Energy
from bayesdyn.networks.network import Parameters
from bayesdyn.networks.noise import Heteroscedastic, Noise
from bayesdyn.networks.training import Training, train
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior
from bayesdyn.posteriors.swag_sgd import Averaging, Pace, Walk, choose_pace, walk

_REPORT_DRAWS, _REPORT_ROWS = 16, 2000
_CLIPPED = 0.05
_FAR_NATS, _FAR_PER_ROW = 20.0, 0.1  # a mode that is worse than the best by both has no share of the posterior
_LEAST_FREE = 0.1  # share of the rows that are left to tell the noise, when the weights have taken theirs


class SWAG(NetworkPosterior):
    r"""p(θ|D) ≈ (1/K) Σ_k N(mean_k, ½(diag_k + D_kᵀD_k/(R-1))): running mean, variance and last R deviations of a walk from mode k.

    A draw is θ = mean + √(diag/2)∘z₁ + Dᵀz₂/√(2(R-1)) with z₁, z₂ ~ N(0, I), in the K members in turn. Each walk is gradient
    descent at a constant rate on minibatches, whose noise spreads it; with all rows it would stand still. The rate is chosen from
    that noise such that the walk is as wide as the linearised posterior, on average over the training inputs
    (`bayesdyn.posteriors.swag_sgd`); where that rate would not be stable a slower walk is taken and its deviations widened. What
    that leaves: directions that the data hardly determine are not reached within a walk, so
    that the uncertainty away from the data is too small, and among those that they do determine the walk is too wide in some and
    too narrow in others. One member is about as sure between the data as on them; several modes (K > 1, "MultiSWAG") differ
    there, and make up for part of that.

    Training ends some members where nearly all is called noise. Such a mode, worse than the best by more than 20 nats and 0.1 nats
    per row, has no share of the posterior to speak of: the member walks from the mode of another one instead, and the report says
    so.

    `Homoscedastic()` variances are those of the residuals of the mean weights, with N less the parameters that the data determine
    as the divisor; the parameters of `Heteroscedastic()` noise besides its columns stay where training put them.

    Raises `ConfigurationError` for options without a meaning.

    Sources: Maddox, Izmailov, Garipov, Vetrov, Wilson 2019, equation 1 and algorithm 1; Mandt, Hoffman, Blei 2017 (rate); Wilson,
    Izmailov 2020 (several modes).

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> averaging = Averaging(steps=60, burn_in=20, snapshots=30)
    >>> posterior = SWAG(hidden=(8,), training=Training(steps=20), averaging=averaging)
    >>> report = posterior.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> posterior.sample(7)(x.unsqueeze(0)).mean.shape
    torch.Size([7, 20, 1])
    """

    location: Tensor
    diagonal: Tensor
    deviations: Tensor

    def __init__(
        self,
        members: int = 4,
        hidden: tuple[int, ...] = (50,),
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        averaging: Averaging = Averaging(),  # noqa: B008
        training: Training = Training(steps=2000, warm_steps=500, learning_rate=1e-2),  # noqa: B008
    ) -> None:
        super().__init__(hidden, activation, noise)
        if members < 1:
            raise ConfigurationError(f"SWAG wants at least one member; got {members}")
        if noise.wants_held_out:
            raise ConfigurationError(f"SWAG learns from every row, so {noise} has none to look at; take Homoscedastic()")
        self.members, self.averaging, self.settings = members, averaging, training
        self.register_buffer("location", torch.empty(0, 0))
        self.register_buffer("diagonal", torch.empty(0, 0))
        self.register_buffer("deviations", torch.empty(0, 0, 0))

    def learn(self, fit: Fit) -> FitReport:
        """Train K networks to their modes and walk from there; with `warm_start` from the last means, trained a little."""
        network, x, y, generator = fit.network, fit.x, fit.y, fit.generator
        start = Parameters(self.location, self.noise_parameters) if fit.warm else network.initial(self.members, generator)
        counts = torch.ones(len(start.theta), len(x), dtype=torch.int64, device=x.device)
        training = self.settings.for_rows(len(x))
        first = fit.first_step(training)
        mode = train(network, start, x, y, counts, training=training, generator=generator, first_step=first).parameters
        energy = Energy.of(network, x, y)
        mode, moved = _without_far_modes(energy, mode)
        pace = choose_pace(energy, mode, self.averaging, generator)
        walked = walk(energy, mode, pace, self.averaging, generator, fit.progress)
        self.location, widen = walked.mean, pace.widen.unsqueeze(1)
        self.diagonal, self.deviations = walked.var * widen.square(), walked.deviations * widen.unsqueeze(2)
        self.keep(network, _noise_of(energy, Parameters(walked.mean, mode.noise), pace))
        return self._report(walked, pace, moved, x, y, generator, fit.seconds)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Draw n networks: n // K from each member in blocks, the n mod K left over from a random subset of members."""
        self.check_sample(n)
        generator = generator or fresh_generator()
        members, rank = self.deviations.shape[:2]
        extra = torch.randperm(members, generator=generator, device=generator.device)[: n % members]
        index = torch.cat([torch.arange(members).repeat_interleave(n // members), extra.cpu()]).to(self.location.device)
        size = self.location.shape[1]
        noise = torch.randn(n, size + rank, generator=generator, device=generator.device).to(self.location)
        spread = torch.einsum("nr,nrp->np", noise[:, size:], self.deviations[index]) / (2 * (rank - 1)) ** 0.5
        theta = self.location[index] + (0.5 * self.diagonal[index]).sqrt() * noise[:, :size] + spread
        return self.network.function(Parameters(theta, self.noise_parameters[index]))

    @torch.no_grad()
    def _report(
        self, walked: Walk, pace: Pace, moved: int, x: Tensor, y: Tensor, generator: torch.Generator, seconds: float
    ) -> FitReport:
        network, function, nll, means = self.network, self.sample(_REPORT_DRAWS, generator), y.new_zeros(()), []
        for rows, targets in zip(x.split(_REPORT_ROWS), y.split(_REPORT_ROWS), strict=True):
            mean, var = function(rows.unsqueeze(0))
            nll -= torch.distributions.Normal(mean, var.sqrt(), validate_args=False).log_prob(targets).sum((1, 2)).mean()
            means.append(mean.mean(0))
        penalty = network.penalty(Parameters(self.location, self.noise_parameters), len(x), network.prior_precision().to(x))
        return FitReport(
            nll=float(nll) / len(x),
            penalty=float(penalty.mean()),
            steps=self.settings.for_rows(len(x)).steps + self.averaging.steps,
            seconds=seconds,
            r2_train=r_squared(y, torch.cat(means)),
            warnings=_warnings(pace, walked, moved, y),
            curves={
                "nll": walked.nll,
                "rate": tuple(pace.rate.tolist()),
                "widened": tuple(pace.widen.tolist()),
                "determined_parameters": tuple(pace.determined.tolist()),
            },
        )


def _without_far_modes(energy: Energy, mode: Parameters) -> tuple[Parameters, int]:
    """Return the modes with those far above the best one replaced by the others in turn, and how many were."""
    rows = len(energy.x)
    _, nll = energy.gradient(mode)
    loss = rows * (nll + energy.network.penalty(mode, rows, energy.precision))
    far = loss - loss.min() > max(_FAR_NATS, _FAR_PER_ROW * rows)
    near = (~far).nonzero().squeeze(1)
    index, moved = torch.arange(len(loss), device=loss.device), int(far.sum())
    index[far] = near[torch.arange(moved, device=loss.device) % len(near)]
    return Parameters(mode.theta[index], mode.noise[index]), moved


def _noise_of(energy: Energy, parameters: Parameters, pace: Pace) -> Float[Tensor, "K rows E"]:
    """Return the noise parameters with the variance of the residuals, where one variance per output is what they say."""
    rows, outputs = energy.y.shape
    free = (rows - pace.determined / outputs).clamp_min(_LEAST_FREE * rows).unsqueeze(1)
    return energy.network.noise.with_variance(parameters.noise, energy.squared_residuals(parameters) / free)


def _warnings(pace: Pace, walked: Walk, moved: int, y: Tensor) -> tuple[str, ...]:
    found = []
    if moved:
        found.append(f"training left {moved} of {len(pace.rate)} members far above the best: each walks from another one's mode")
    if walked.clipped > _CLIPPED:
        found.append(
            f"{walked.clipped:.0%} of the steps were shortened: the walk left its mode, or did not start at one; train for longer"
        )
    gamma = float(pace.determined.max())
    if gamma > (1 - _LEAST_FREE) * y.numel():
        found.append(f"{gamma:.0f} determined parameters for {y.numel()} targets: the data hardly tell the noise")
    return tuple(found)
