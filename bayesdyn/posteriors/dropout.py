"""`MCDropout` and `ConcreteDropout`: a draw of θ is a network thinned by one binary mask, which it keeps."""

import time
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.networks.dropout import Binary, Masks, Relaxed
from bayesdyn.networks.dropout_training import Dropped, TrainedDropout, train_dropout
from bayesdyn.networks.function import NetworkFunction
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Heteroscedastic, Noise
from bayesdyn.networks.training import Training
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, Progress, r_squared
from bayesdyn.posteriors.network_posterior import NetworkPosterior

_REPORT_DRAWS, _REPORT_ROWS = 16, 1000
_COLLAPSED = 0.05
_AT_BOUND = 1e-3  # relative distance


class DropoutPosterior(NetworkPosterior):
    r"""q(θ) of one network whose hidden units are dropped: θ = (W_1, W_2 diag(m_1)/(1 - p_1), ...), m_l ~ Bernoulli(1 - p_l).

    Subclasses say how masks look in training and where the rates start. Masks of draws are binary.
    """

    theta: Tensor
    log_odds: Tensor

    def __init__(
        self, rate: float, lengthscale: float, hidden: tuple[int, ...] | None, activation: str, noise: Noise, training: Training
    ) -> None:
        super().__init__(hidden, activation, noise)
        if not 0 < rate < 1:
            raise ConfigurationError(f"a drop rate lies between 0 and 1, both excluded; got {rate}")
        if lengthscale <= 0:
            raise ConfigurationError(f"the prior's length-scale wants to be positive; got {lengthscale}")
        if hidden == ():
            raise ConfigurationError("dropout wants at least one hidden layer; got hidden=()")
        if noise.wants_held_out:
            raise ConfigurationError(
                f"{noise} wants rows that the network never saw, and dropout trains on all; use Homoscedastic()"
            )
        self.rate, self.lengthscale, self.settings, self.least_rate = rate, lengthscale, training, 0.0
        self.register_buffer("theta", torch.empty(0, 0))
        self.register_buffer("log_odds", torch.empty(0))

    @property
    @abstractmethod
    def training_masks(self) -> Masks:
        """The masks of training, one per data point."""

    @property
    def rates(self) -> Float[Tensor, " H"]:
        """Drop rate of each hidden layer, [H], empty before `fit`."""
        return self.log_odds.sigmoid()

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Train from scratch, or with `warm_start` from where the last fit ended, for the last part of the schedule."""
        network, warm = self.network_for(x, y, warm_start)
        begun = time.perf_counter()
        generator = generator or torch.Generator().manual_seed(0)
        trained = train_dropout(
            network,
            Dropped(Parameters(self.theta, self.noise_parameters), self.log_odds) if warm else self._start(network, generator),
            x,
            y,
            masks=self.training_masks,
            lengthscale=self.lengthscale,
            training=self.settings,
            generator=generator,
            least_rate=self.least_rate,
            first_step=max(0, self.settings.steps - self.settings.warm_steps) if warm else 0,
            progress=progress,
        )
        (self.theta, noise_parameters), self.log_odds = trained.state
        self.keep(network, noise_parameters)
        return self._report(trained, x, y, begun)

    def _start(self, network: Network, generator: torch.Generator) -> Dropped:
        return Dropped(network.initial(1, generator), torch.full((len(network.hidden),), self.rate).logit())

    def sample(self, n: int, generator: torch.Generator | None = None) -> NetworkFunction:
        """Draw n thinned networks: one binary mask [n, 1, width] per hidden layer, the same for every input, step and candidate."""
        self.check_sample(n)
        network = self.network
        masks = Binary().draw(self.log_odds, network.hidden, (n, 1), generator or fresh_generator())
        return network.function(Parameters(self.theta, self.noise_parameters), n, masks)

    @torch.no_grad()
    def _report(self, trained: TrainedDropout, x: Tensor, y: Tensor, begun: float) -> FitReport:
        function = self.sample(_REPORT_DRAWS, torch.Generator().manual_seed(0))
        mean = torch.cat([function(rows.unsqueeze(0)).mean.mean(0) for rows in x.split(_REPORT_ROWS)])
        r2 = r_squared(y, mean)
        collapsed = [str(output) for output, value in enumerate(r2) if not value >= _COLLAPSED]
        warnings = (f"outputs {', '.join(collapsed)} are predicted no better than by their mean",) if collapsed else ()
        return FitReport(
            nll=trained.nll,
            penalty=trained.penalty,
            steps=trained.steps,
            seconds=time.perf_counter() - begun,
            r2_train=r2,
            at_bound=self._at_bound(),
            warnings=warnings,
            curves=trained.curves,
        )

    def _at_bound(self) -> tuple[str, ...]:
        """Name the hidden layers whose learned rate would be smaller if it might."""
        if not self.training_masks.learned:
            return ()
        bound = self.least_rate * (1 + _AT_BOUND)
        return tuple(f"drop rate of hidden layer {layer}" for layer, rate in enumerate(self.rates.tolist()) if rate <= bound)


class MCDropout(DropoutPosterior):
    r"""A network thinned at random with a fixed drop rate p, trained on

        loss = E nll + (1/N) Σ_l λ²|W_l|²/(2(1 - p_l))

    with one mask per data point. Hidden units are dropped, features never; p_l is the rate of the units that feed layer l. Kept
    units are scaled by 1/(1 - p). `hidden=None` takes two layers of 64 below 1,000 rows and three of 200 from there on.

    How far the draws differ is set by `rate` and not by the amount of data: `ConcreteDropout` learns it.

    Raises `ConfigurationError` for options without a meaning.

    Sources: Gal, Ghahramani 2016 (Dropout as a Bayesian Approximation); the penalty is that of Gal, Hron, Kendall 2017.

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> posterior = MCDropout(training=Training(steps=20))
    >>> report = posterior.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> posterior.sample(7)(x.unsqueeze(0)).mean.shape
    torch.Size([7, 20, 1])
    """

    def __init__(
        self,
        rate: float = 0.05,
        lengthscale: float = 1.0,
        hidden: tuple[int, ...] | None = None,
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        training: Training = Training(learning_rate=5e-3),  # noqa: B008
    ) -> None:
        super().__init__(rate, lengthscale, hidden, activation, noise, training)

    @property
    def training_masks(self) -> Masks:
        """Binary masks, as in draws."""
        return Binary()


class ConcreteDropout(DropoutPosterior):
    r"""A network thinned at random with drop rates p_l that are learned, one per hidden layer, by

        loss = E nll + (1/N) Σ_l [ λ²|W_l|²/(2(1 - p_l)) - K_l H(p_l) ],   H(p) = -p log p - (1 - p) log(1 - p)

    where K_l units with rate p_l feed layer l. In training, masks are relaxed with temperature t, so that the loss is
    differentiable in p_l; in draws they are binary. `rate` is where the rates start. The rest is as in `MCDropout`.

    Where there is little noise, this loss sends the rates to 0 and the draws to one over-confident network. `least_rate` stops
    them, at the price that there the spread no longer shrinks with more data; `FitReport.at_bound` names those layers.

    Raises `ConfigurationError` for options without a meaning.

    Source: Gal, Hron, Kendall 2017 (Concrete Dropout), equations 2-5.

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> posterior = ConcreteDropout(training=Training(steps=20))
    >>> report = posterior.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> posterior.rates.shape, posterior.predict(x).components
    (torch.Size([2]), 64)
    """

    def __init__(
        self,
        rate: float = 0.1,
        lengthscale: float = 1.0,
        hidden: tuple[int, ...] | None = None,
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        temperature: float = 0.1,
        least_rate: float = 0.01,
        training: Training = Training(learning_rate=5e-3),  # noqa: B008
    ) -> None:
        super().__init__(rate, lengthscale, hidden, activation, noise, training)
        if temperature <= 0:
            raise ConfigurationError(f"a relaxation wants a positive temperature; got {temperature}")
        if not 0 <= least_rate < rate:
            raise ConfigurationError(f"the least rate lies between 0 and the first one, {rate}; got {least_rate}")
        self.temperature, self.least_rate = temperature, least_rate

    @property
    def training_masks(self) -> Masks:
        """Relaxed masks, differentiable in the rates."""
        return Relaxed(self.temperature)
