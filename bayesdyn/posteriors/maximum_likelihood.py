"""`MaximumLikelihood`: one network and no doubt about it, the baseline that everything else is compared with."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.networks.held_out import choose_held_out
from bayesdyn.networks.network import Parameters
from bayesdyn.networks.noise import Heteroscedastic, Noise
from bayesdyn.networks.training import Trained, Training, score_rows, train
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior


class MaximumLikelihood(NetworkPosterior):
    r"""p(θ|D) ≈ δ(θ - θ̂), θ̂ = argmax log p(D|θ): a baseline, whose epistemic variance is 0 by construction.

    n draws are one function n times over. With `noise=Heteroscedastic()` it is a probabilistic network (a variance per x), with
    `Homoscedastic()` a deterministic one: its mean minimises the squared error, and one variance per output is that of the
    residuals. There is no prior; instead a share `held_out` of the rows chooses when to stop (0: train to the end, on all rows).
    A planner that trusts this model finds its errors and exploits them, because it does not know where it was not trained.
    `hidden=None` takes two layers of 64 below 1,000 rows and three of 200 from there on.

    Raises `ConfigurationError` for options without a meaning.

    Source: the networks P and D of Chua, Calandra, McAllister, Levine 2018 (PETS), section 4.

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> single = MaximumLikelihood(training=Training(steps=20))
    >>> report = single.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> float(single.predict(x).epistemic_variance.max())
    0.0
    """

    theta: Tensor
    counts: Tensor

    def __init__(
        self,
        hidden: tuple[int, ...] | None = None,
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        held_out: float = 0.1,
        training: Training = Training(),  # noqa: B008
    ) -> None:
        super().__init__(hidden, activation, noise)
        if not 0 <= held_out < 1:
            raise ConfigurationError(f"the share of rows held out wants to be in [0, 1); got {held_out}")
        if noise.wants_held_out and held_out == 0:
            raise ConfigurationError(f"{noise} wants held_out > 0: without it the network sees every row")
        self.held_out, self.settings = held_out, training
        self.register_buffer("theta", torch.empty(0, 0))
        self.register_buffer("counts", torch.empty(0, 0, dtype=torch.int64))

    def learn(self, fit: Fit) -> FitReport:
        """Train from scratch, or with `warm_start` from where the last fit ended, for the last part of the schedule.

        A warm start takes the first rows for those of the last fit, so data must be appended: rows held out then still are.
        """
        network, x, y = fit.network, fit.x, fit.y
        start = Parameters(self.theta, self.noise_parameters) if fit.warm else network.initial(1, fit.generator)
        counts, training = self._split(fit).to(x.device), self.settings.for_rows(len(x))
        trained = train(
            network,
            start,
            x,
            y,
            counts,
            training=training,
            generator=fit.generator,
            precision=torch.zeros(network.size),
            first_step=fit.first_step(training),
            progress=fit.progress,
        )
        self.theta = trained.parameters.theta
        self.keep(network, trained.parameters.noise)
        self.counts = counts
        return self._report(trained, fit)

    def _split(self, fit: Fit) -> Int[Tensor, "1 N"]:
        """Return 1 for each row trained on, 0 for each held out; rows of the last fit stay where they were in a warm start."""
        rows = len(fit.x)
        old = self.counts.cpu() if fit.warm and self.counts.shape[1] <= rows else torch.zeros(1, 0, dtype=torch.int64)
        new = rows - old.shape[1]
        groups = None if fit.groups is None else fit.groups[old.shape[1] :]
        held = choose_held_out(new, int(self.held_out * new), groups, fit.generator)
        return torch.cat([old, (~held).long().unsqueeze(0)], 1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Return the one network as n draws; no randomness is left, so `generator` stays as it is."""
        self.check_sample(n)
        return self.network.function(Parameters(self.theta, self.noise_parameters), n)

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return the network's Gaussian, one component [1, ..., E] with epistemic variance 0."""
        self.check_inputs(x)
        return Predictive.from_draws(self.sample(1)(x.unsqueeze(0)))

    @torch.no_grad()
    def _report(self, trained: Trained, fit: Fit) -> FitReport:
        y, unseen = fit.y, self.counts[0] == 0
        nll, (mean,) = score_rows(fit.network, trained.parameters, fit.x, y, self.counts)
        return FitReport(
            nll=float(nll.mean()),
            penalty=float(trained.penalty.mean()),
            steps=trained.steps,
            seconds=fit.seconds,
            r2_train=r_squared(y[~unseen], mean[~unseen]),
            r2_held_out=r_squared(y[unseen], mean[unseen]) if int(unseen.sum()) >= 2 else None,
            curves=trained.curves,
        )
