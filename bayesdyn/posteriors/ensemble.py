"""`BootstrapEnsemble`: K networks, each trained on its own bootstrap sample of the data."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.networks.held_out import FEWEST_GROUPS, choose_held_out
from bayesdyn.networks.mean_first import MeanFirst, train_mean_first
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Heteroscedastic, Noise
from bayesdyn.networks.training import Trained, Training, score_rows, train
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior

_HELD_OUT = 0.1  # the share of rows, in whole groups
_SPARED = -1  # counts of rows neither trained on nor scored: their neighbours are trained on


class BootstrapEnsemble(NetworkPosterior):
    r"""p(θ|D) ≈ (1/K) Σ_k δ(θ - θ_k): K networks that differ by their start, their order of data and their bootstrap sample.

    θ_k = argmin nll(D_k) + (1/2N) Σ_l fan_in_l |W_l|² + ...: the mode under the prior W ~ N(0, 1/fan_in) given N rows drawn with
    replacement. The rows that a member never saw (e⁻¹ of them) choose its best state; with `fit_groups`, and five groups or more,
    those of a tenth of the groups do, others for each member. `noise` is `Heteroscedastic()` (a variance
    per x and output), `Homoscedastic()` (per output) or `OutOfBag()` (deterministic members, a variance from out-of-bag residuals).
    `hidden=None` takes two layers of 64 below 1,000 rows and three of 200 from there on.

    Where the variance depends on x, the first `mean_first` of the steps train the means under one variance per output, that of the
    residuals on held-out rows, and the rest trains both (`networks.mean_first`). `decay`, one number per layer, takes the place of
    the prior: Σ_l decay_l·½|W_l|² beside the mean of (y - μ)²/var + log var over rows and outputs, as PETS has it.

    Raises `ConfigurationError` for options without a meaning.

    Sources: Lakshminarayanan, Pritzel, Blundell 2017; Chua, Calandra, McAllister, Levine 2018 (PETS).

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> ensemble = BootstrapEnsemble(members=3, training=Training(steps=20))
    >>> report = ensemble.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> ensemble.predict(x).components, ensemble.sample(7)(x.unsqueeze(0)).mean.shape
    (3, torch.Size([7, 20, 1]))
    """

    theta: Tensor
    counts: Tensor

    def __init__(
        self,
        members: int = 5,
        hidden: tuple[int, ...] | None = None,
        activation: str = "silu",
        noise: Noise = Heteroscedastic(),  # noqa: B008
        bootstrap: bool = True,
        mean_first: float = 0.5,
        decay: tuple[float, ...] | None = None,
        training: Training = Training(steps=2000, learning_rate=1e-2),  # noqa: B008
    ) -> None:
        super().__init__(hidden, activation, noise)
        if members < 1:
            raise ConfigurationError(f"an ensemble wants at least one member; got {members}")
        if noise.wants_held_out and not bootstrap:
            raise ConfigurationError(f"{noise} wants bootstrap=True: without resampling no row is out of bag")
        self.members, self.bootstrap, self.mean_first, self.settings = members, bootstrap, MeanFirst(mean_first), training
        self.decay = decay
        self.register_buffer("theta", torch.empty(0, 0))
        self.register_buffer("counts", torch.empty(0, 0, dtype=torch.int64))

    @property
    def parameters_of_members(self) -> Parameters:
        """The fitted members; a later fit replaces these tensors and never writes into them."""
        return Parameters(self.theta, self.noise_parameters)

    def learn(self, fit: Fit) -> FitReport:
        """Train the members from scratch, or with `warm_start` from where they ended, for the last part of the schedule.

        A warm start takes the first rows for those of the last fit, so data must be appended: their place in the bootstrap samples
        is kept, and rows held out then are still rows that a member has never seen.
        """
        network, x, y, generator = fit.network, fit.x, fit.y, fit.generator
        start = self.parameters_of_members if fit.warm else network.initial(self.members, generator)
        counts = self._resample(fit).to(x.device)
        parts = self.mean_first.parts(self.settings.for_rows(len(x)), network)
        if fit.warm:
            trained = train(
                network,
                start,
                x,
                y,
                counts,
                training=parts[-1],
                generator=generator,
                first_step=fit.first_step(parts[-1]),
                precision=self._precision(network, len(x)),
                progress=fit.progress,
            )
        else:
            precision = partial(self._precision, rows=len(x))
            trained = train_mean_first(
                network, start, x, y, counts, parts=parts, generator=generator, precision=precision, progress=fit.progress
            )
        self.theta = trained.parameters.theta
        self.keep(network, trained.parameters.noise)
        self.counts = counts
        return self._report(trained, fit)

    def _precision(self, network: Network, rows: int) -> Float[Tensor, " P"]:
        return network.prior_precision() if self.decay is None else network.decay_precision(self.decay, rows)

    def _resample(self, fit: Fit) -> Int[Tensor, "K N"]:
        """Return how often each member sees each row; rows of the last fit keep their counts in a warm start."""
        rows = len(fit.x)
        old = self.counts.cpu() if fit.warm and self.counts.shape[1] <= rows else torch.zeros(self.members, 0, dtype=torch.int64)
        new = rows - old.shape[1]
        if not self.bootstrap or new == 0:
            return torch.cat([old, torch.ones(old.shape[0], new, dtype=torch.int64)], 1)
        if old.shape[1] == 0 and fit.groups is not None and len(fit.groups.unique()) >= FEWEST_GROUPS:
            return self._resample_groups(fit.groups, fit.generator)
        drawn = torch.randint(new, (self.members, new), generator=fit.generator, device=fit.generator.device).cpu()
        counts = torch.zeros(self.members, new, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
        if bool((old < 0).any()):
            counts[counts == 0] = _SPARED  # the groups held out at first go on to be the ones that are scored
        return torch.cat([old, counts], 1)

    def _resample_groups(self, groups: Int[Tensor, " N"], generator: torch.Generator) -> Int[Tensor, "K N"]:
        """Hold out a tenth of the groups, others for each member, and draw from the rest: equally many rows for all members."""
        rows = len(groups)
        held = torch.stack([choose_held_out(rows, round(_HELD_OUT * rows), groups, generator) for _ in range(self.members)])
        weight = (~held).double()
        drawn = torch.multinomial(weight, int(weight.sum(1).min()), replacement=True, generator=generator)
        counts = torch.zeros(self.members, rows, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
        return torch.where(held | (counts > 0), counts, _SPARED)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Draw n functions: n // K of each member in blocks, the n mod K left over from a random subset of members.

        Without a generator the subset is drawn afresh at each call.
        """
        self.check_sample(n)
        return self.network.deal(self.parameters_of_members, n, generator or fresh_generator())

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return the exact mixture over all K members, [K, ..., E]."""
        self.check_inputs(x)
        return Predictive.from_draws(self.network.function(self.parameters_of_members)(x.unsqueeze(0)))

    @torch.no_grad()
    def _report(self, trained: Trained, fit: Fit) -> FitReport:
        y = fit.y
        nll, mean = score_rows(fit.network, trained.parameters, fit.x, y, self.counts)
        unseen = (self.counts == 0).to(y.dtype).unsqueeze(-1)
        held_out = unseen.sum(0).squeeze(-1) > 0
        r2_held_out = None
        if int(held_out.sum()) >= 2:
            average = (mean * unseen).sum(0)[held_out] / unseen.sum(0)[held_out]
            r2_held_out = r_squared(y[held_out], average)
        return FitReport(
            nll=float(nll.mean()),
            penalty=float(trained.penalty.mean()),
            steps=trained.steps,
            seconds=fit.seconds,
            r2_train=r_squared(y, mean.mean(0)),
            r2_held_out=r2_held_out,
            warnings=self._warnings(trained),
            curves=trained.curves,
        )

    def _warnings(self, trained: Trained) -> tuple[str, ...]:
        blind = int(trained.held_out_nll.isnan().sum())
        if self.bootstrap and blind:
            return (f"{blind} of {self.members} members have no held-out rows and were trained to the end: too few rows",)
        return ()
