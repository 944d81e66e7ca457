"""`MeanField`: a network whose weights have a factorised Gaussian posterior (Bayes by Backprop), inferred through Pyro."""

import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.networks.local_reparameterisation import Estimator, Local
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Heteroscedastic, Noise
from bayesdyn.networks.priors import GaussianPrior, Prior
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior
from bayesdyn.posteriors.variational_schedule import VariationalTraining

_REPORT_DRAWS, _REPORT_ROWS = 16, 2000


class MeanField(NetworkPosterior):
    r"""p(θ|D) ≈ q(θ) = N(μ, diag σ²), σ = softplus(ρ), at the minimum over μ and ρ of

        E_q[-log p(D|θ)]/N + (temperature/N)·KL(q ‖ p),    p(θ): W ~ N(0, 1/fan_in), b ~ N(0, 1)

    in nats per data point. `estimator` says how the first term is estimated in training (`Local()`, `Flipout()`, `Shared()`: one
    expected loss, other variances), `prior` is `GaussianPrior()`, whose KL is analytic, or `ScaleMixture()`. `temperature` = 1 is
    Bayes; below it the posterior is narrower than Bayes says ("cold"). `noise` is `Heteroscedastic()` or `Homoscedastic()`.

    The default prior is twice as wide as p above. Two small layers of tanh units under it reached a better bound than one of 50
    ReLU units, with better predictions of held-out rows and epistemic variance that grows between the data. With one hidden layer
    of ReLU units it cannot, however it is trained: any such q has Var f(0) <= Var f(a) + Var f(b) when 0 lies between a and b. A
    factorised Gaussian cannot hold the dependence between weights, so other shapes, too, may know too little of what lies between.

    Raises `ConfigurationError` for options without a meaning.

    Sources: Blundell, Cornebise, Kavukcuoglu, Wierstra 2015 (Bayes by Backprop), sections 3.1-3.4; Foong, Burt, Li, Turner 2020 (On
    the Expressiveness of Approximate Inference in Bayesian Neural Networks), theorem 1.

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> posterior = MeanField(hidden=(8,), training=VariationalTraining(steps=20))
    >>> report = posterior.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> posterior.sample(7)(x.unsqueeze(0)).mean.shape
    torch.Size([7, 20, 1])
    """

    location: Tensor
    scale: Tensor

    def __init__(
        self,
        hidden: tuple[int, ...] = (20, 20),
        activation: str = "tanh",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        prior: Prior = GaussianPrior(width=2.0),  # noqa: B008
        estimator: Estimator = Local(),  # noqa: B008
        temperature: float = 1.0,
        training: VariationalTraining = VariationalTraining(),  # noqa: B008
    ) -> None:
        super().__init__(hidden, activation, noise)
        if not temperature > 0:
            raise ConfigurationError(f"a posterior wants a temperature above 0 (1 is Bayes); got {temperature}")
        if noise.wants_held_out:
            raise ConfigurationError(f"{noise} wants rows held out, but a mean-field fit uses all; take Homoscedastic()")
        self.prior, self.estimator, self.temperature, self.settings = prior, estimator, temperature, training
        self.register_buffer("location", torch.empty(0))
        self.register_buffer("scale", torch.empty(0))

    def learn(self, fit: Fit) -> FitReport:
        """Infer q from scratch, or with `warm_start` from the last q, for `warm_steps` steps.

        The report has the expected nll under q and, as its penalty, temperature·KL(q ‖ p)/N. A warning says when the losses still
        moved at the end.
        """
        from bayesdyn.posteriors.variational_inference import BayesByBackprop, Problem, infer  # Pyro is slow to import

        network, x, y, generator, warm = fit.network, fit.x, fit.y, fit.generator, fit.warm
        start = (self.location, self.scale, self.noise_parameters) if warm else self._start(network, generator)
        seed, noise_seed = torch.randint(2**62, (2,), generator=generator, device=generator.device).tolist()
        problem = Problem(network, self.prior, self.temperature, self.estimator, len(x))
        location, scale, noise = (tensor.to(x) for tensor in start)
        bayes = BayesByBackprop(problem, location, scale, noise, torch.Generator(x.device).manual_seed(noise_seed))
        steps = self.settings.warm_steps if warm else self.settings.steps
        ramp = 0 if warm else round(self.settings.ramp * steps)
        inferred = infer(bayes, x, y, training=self.settings, steps=steps, ramp=ramp, seed=seed, progress=fit.progress)
        self.location, self.scale = inferred.location, inferred.scale
        self.keep(network, inferred.noise)
        nll, r2 = self._score(x, y, generator)
        return FitReport(
            nll=nll,
            penalty=self.temperature * inferred.kl,
            steps=inferred.steps,
            seconds=fit.seconds,
            r2_train=r2,
            warnings=() if inferred.converged else (f"nll or kl still moved after {steps} steps; allow more",),
            curves=inferred.curves,
        )

    def _start(self, network: Network, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        theta, noise = network.initial(1, generator)
        return theta[0], torch.full_like(theta[0], self.settings.start_std), noise

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Draw n networks θ = μ + σ∘ε, each with one θ for all x."""
        self.check_sample(n)
        generator = generator or fresh_generator()
        noise = torch.randn(n, len(self.location), generator=generator, device=generator.device).to(self.location)
        return self.network.function(Parameters(self.location + self.scale * noise, self.noise_parameters))

    @torch.no_grad()
    def _score(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[float, tuple[float, ...]]:
        """Return the expected nll under q, from a few draws, and R² of their mean."""
        function, nll, means = self.sample(_REPORT_DRAWS, generator), y.new_zeros(()), []
        for rows, targets in zip(x.split(_REPORT_ROWS), y.split(_REPORT_ROWS), strict=True):
            mean, var = function(rows.unsqueeze(0))
            log_prob = torch.distributions.Normal(mean, var.sqrt(), validate_args=False).log_prob(targets)
            nll -= log_prob.sum((1, 2)).mean()
            means.append(mean.mean(0))
        return float(nll) / len(x), r_squared(y, torch.cat(means))
