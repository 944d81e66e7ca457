"""`MCDropout` and `ConcreteDropout`: a draw of θ is a network thinned by one binary mask, which it keeps."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.networks.dropout import Binary, Masks, Relaxed
from bayesdyn.networks.dropout_training import Dropped, TrainedDropout, train_dropout
from bayesdyn.networks.function import NetworkFunction
from bayesdyn.networks.network import Parameters
from bayesdyn.networks.noise import Heteroscedastic, Noise
from bayesdyn.networks.training import Training
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior

_REPORT_DRAWS, _REPORT_ROWS = 16, 1000
_AT_BOUND = 1e-3  # relative distance


def rate_for(rows: int) -> float:
    """Return the usual drop rate on so many rows, 1/√N and at most ½: the variance of draws falls like that of smooth functions.

    >>> rate_for(400), rate_for(1)
    (0.05, 0.5)
    """
    return min(0.5, rows**-0.5)


class DropoutPosterior(NetworkPosterior):
    r"""q(θ) of one network whose hidden units are dropped: θ = (W_1, W_2 diag(m_1)/(1 - p_1), ...), m_l ~ Bernoulli(1 - p_l).

    The prior is W_l ~ N(0, 1/(λ²D_l)) with fan-in D_l, and flat for biases. Subclasses say how masks look in training, where the
    rates start and how small they may get, given the number of rows. Masks of draws are binary.
    """

    theta: Tensor
    log_odds: Tensor

    def __init__(
        self,
        rate: float | None,
        lengthscale: float,
        hidden: tuple[int, ...] | None,
        activation: str,
        noise: Noise,
        training: Training,
    ) -> None:
        super().__init__(hidden, activation, noise)
        if rate is not None and not 0 < rate < 1:
            raise ConfigurationError(f"a drop rate lies between 0 and 1, both excluded; got {rate}")
        if lengthscale <= 0:
            raise ConfigurationError(f"the prior's length-scale wants to be positive; got {lengthscale}")
        if hidden == ():
            raise ConfigurationError("dropout wants at least one hidden layer; got hidden=()")
        if noise.wants_held_out:
            raise ConfigurationError(
                f"{noise} wants rows that the network never saw, and dropout trains on all; use Homoscedastic()"
            )
        self.rate, self.lengthscale, self.settings = rate, lengthscale, training
        self.register_buffer("theta", torch.empty(0, 0))
        self.register_buffer("log_odds", torch.empty(0))

    @property
    @abstractmethod
    def training_masks(self) -> Masks:
        """The masks of training, one per data point."""

    @abstractmethod
    def first_rate(self, rows: int) -> float:
        """Return the drop rate that training on so many rows starts from, and keeps if it is not learned."""

    def lower_bound(self, rows: int) -> float:
        """Return the least drop rate on so many rows: 0, where rates are not learned."""
        return 0.0

    @property
    def rates(self) -> Float[Tensor, " H"]:
        """Drop rate of each hidden layer, [H], empty before `fit`."""
        return self.log_odds.sigmoid()

    def learn(self, fit: Fit) -> FitReport:
        """Train from scratch, or with `warm_start` from where the last fit ended, for the last part of the schedule."""
        network, x, y, warm = fit.network, fit.x, fit.y, fit.warm
        masks, training = self.training_masks, self.settings.for_rows(len(x))
        parameters = Parameters(self.theta, self.noise_parameters) if warm else network.initial(1, fit.generator)
        first_rates = torch.full((len(network.hidden),), self.first_rate(len(x)))
        trained = train_dropout(
            network,
            Dropped(parameters, self.log_odds if warm and masks.learned else first_rates.logit()),
            x,
            y,
            masks=masks,
            lengthscale=self.lengthscale,
            training=training,
            generator=fit.generator,
            groups=fit.groups,
            least_rate=self.lower_bound(len(x)),
            first_step=fit.first_step(training),
            progress=fit.progress,
        )
        (self.theta, noise_parameters), self.log_odds = trained.state
        self.keep(network, noise_parameters)
        return self._report(trained, fit)

    def sample(self, n: int, generator: torch.Generator | None = None) -> NetworkFunction:
        """Draw n thinned networks: one binary mask [n, 1, width] per hidden layer, the same for every input, step and candidate."""
        self.check_sample(n)
        network = self.network
        masks = Binary().draw(self.log_odds, network.hidden, (n, 1), generator or fresh_generator())
        return network.function(Parameters(self.theta, self.noise_parameters), n, masks)

    @torch.no_grad()
    def _report(self, trained: TrainedDropout, fit: Fit) -> FitReport:
        x, y = fit.x, fit.y
        function = self.sample(_REPORT_DRAWS, torch.Generator().manual_seed(0))
        mean = torch.cat([function(rows.unsqueeze(0)).mean.mean(0) for rows in x.split(_REPORT_ROWS)])
        seen = torch.ones(len(y), dtype=torch.bool, device=y.device)
        seen[trained.held_out] = False
        r2 = r_squared(y[seen], mean[seen])
        r2_held_out = r_squared(y[~seen], mean[~seen]) if len(trained.held_out) else None
        return FitReport(
            nll=trained.nll,
            penalty=trained.penalty,
            steps=trained.steps,
            seconds=fit.seconds,
            r2_train=r2,
            r2_held_out=r2_held_out,
            at_bound=self._at_bound(len(x)),
            curves=trained.curves,
        )

    def _at_bound(self, rows: int) -> tuple[str, ...]:
        """Name the hidden layers whose learned rate would be smaller if it might."""
        bound = self.lower_bound(rows) * (1 + _AT_BOUND)
        return tuple(f"drop rate of hidden layer {layer}" for layer, rate in enumerate(self.rates.tolist()) if rate <= bound)


class MCDropout(DropoutPosterior):
    r"""A network thinned at random with a drop rate p that is not learned, trained on

        loss = E nll + (1/N) Σ_l λ²D_l|W_l|²/(2(1 - p_l)),    p = 1/√N unless given

    with one mask per data point. Hidden units are dropped, features never; p_l is the rate of the units that feed layer l, D_l
    their number. Kept units are scaled by 1/(1 - p). `lengthscale` is λ; 1 is the prior of the other network posteriors.
    `hidden=None` takes two layers of 64 below 1,000 rows and three of 200 from there on. From 50 rows on, a tenth of them (1,000
    at most) is held out: training stops when these are predicted no better, and the best state is kept.

    With a given `rate`, how far the draws differ is set by it and not by the amount of data. The default lets their variance fall
    as N^-½: a rule, chosen with λ on held-out rows, where the best rates were smaller for more rows and for less noise.
    `ConcreteDropout` learns rates.

    Raises `ConfigurationError` for options without a meaning.

    Sources: Gal, Ghahramani 2016 (Dropout as a Bayesian Approximation); the penalty is that of Gal, Hron, Kendall 2017; that a
    fixed rate does not concentrate: Osband 2016 (Risk versus Uncertainty in Deep Learning), section 3.

    >>> x = torch.linspace(-1, 1, 25).unsqueeze(1)
    >>> posterior = MCDropout(training=Training(steps=20))
    >>> report = posterior.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> posterior.sample(7)(x.unsqueeze(0)).mean.shape, posterior.rates
    (torch.Size([7, 25, 1]), tensor([0.2000, 0.2000]))
    """

    def __init__(
        self,
        rate: float | None = None,
        lengthscale: float = 0.3,
        hidden: tuple[int, ...] | None = None,
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        training: Training = Training(learning_rate=5e-3, patience=0.5),  # noqa: B008
    ) -> None:
        super().__init__(rate, lengthscale, hidden, activation, noise, training)

    @property
    def training_masks(self) -> Masks:
        """Binary masks, as in draws."""
        return Binary()

    def first_rate(self, rows: int) -> float:
        """Return `rate`, or 1/√N."""
        return rate_for(rows) if self.rate is None else self.rate


class ConcreteDropout(DropoutPosterior):
    r"""A network thinned at random with drop rates p_l that are learned, one per hidden layer, by

        loss = E nll + (1/N) Σ_l [ λ²D_l|W_l|²/(2(1 - p_l)) - K_l H(p_l) ],   H(p) = -p log p - (1 - p) log(1 - p)

    where K_l units with rate p_l feed layer l. In training, masks are relaxed with temperature t, so that the loss is
    differentiable in p_l; for the last two fifths of the steps the rates stay and masks are binary, as in draws. `rate` is where
    the rates start. The rest is as in `MCDropout`.

    The weights themselves are points, for whose precision this loss does not pay. So where there is little noise, or many rows, it
    sends the rates to 0 and the draws to one over-confident network. `least_rate`, 1/√N unless given, stops them: what is learned
    by default is how much more than `MCDropout` to drop. `FitReport.at_bound` names the layers that would drop less.

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
        lengthscale: float = 0.3,
        hidden: tuple[int, ...] | None = None,
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        temperature: float = 0.1,
        least_rate: float | None = None,
        training: Training = Training(learning_rate=5e-3, patience=0.5),  # noqa: B008
    ) -> None:
        super().__init__(rate, lengthscale, hidden, activation, noise, training)
        if temperature <= 0:
            raise ConfigurationError(f"a relaxation wants a positive temperature; got {temperature}")
        if least_rate is not None and not 0 <= least_rate < rate:
            raise ConfigurationError(f"the least rate lies between 0 and the first one, {rate}; got {least_rate}")
        self.start_rate, self.temperature, self.least_rate = rate, temperature, least_rate

    @property
    def training_masks(self) -> Masks:
        """Relaxed masks, differentiable in the rates."""
        return Relaxed(self.temperature)

    def first_rate(self, rows: int) -> float:
        """Return `rate`, or the least rate where that is larger."""
        return max(self.start_rate, self.lower_bound(rows))

    def lower_bound(self, rows: int) -> float:
        """Return `least_rate`, or 1/√N."""
        return rate_for(rows) if self.least_rate is None else self.least_rate
