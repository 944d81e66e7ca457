"""`Laplace`: one network at its mode, and a Gaussian over its parameters from the curvature there."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.networks.linearised import jacobian
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Homoscedastic, Noise
from bayesdyn.networks.training import Training, train
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, r_squared
from bayesdyn.posteriors.laplace_evidence import Evidence, Hyperparameters, at_bound, maximise_evidence
from bayesdyn.posteriors.laplace_mode import Held, check_memory, gauss_newton_step, layer_of_parameter, linearise
from bayesdyn.posteriors.laplace_structures import Curvature, FullGGN, Structure
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior

_VALUES_AT_ONCE = 2**22
# Of the targets' variance, where the evidence sets the noise. From a smaller start, few noisy rows are followed too closely before
# the evidence is asked for the first time; from a larger one, the first mode is too flat to find its way out.
_FIRST_VAR = math.exp(-1.0)


class _Fitted(NamedTuple):
    parameters: Parameters
    scale: Float[Tensor, " layers"]
    curvature: Curvature
    steps: int
    curves: dict[str, tuple[float, ...]]


class Laplace(NetworkPosterior):
    r"""p(θ|D) ≈ N(θ*, H⁻¹), H = diag(δ) + Σ_n J_nᵀ Λ_n J_n: the mode and the generalised Gauss-Newton curvature there.

    θ* = argmin nll + (1/2N) Σ δθ²; J is the Jacobian of the last layer's columns and Λ their Fisher information (e^-η for a mean,
    ½ for a log variance η). The prior precision δ, one multiple of the network's own per layer, and `Homoscedastic` variances
    maximise the evidence; training holds such variances fixed, and goes on in rounds from one maximum of the evidence to the next.
    Draws move the mean, f(x) + J(x)(θ - θ*); the noise stays at the mode. Mean, epistemic variance J H⁻¹ Jᵀ and aleatoric variance
    of `predict` are exact, one component. The curvature is kept in float64.

    `structure` is `FullGGN()`, `DiagonalGGN()` or `LastLayer()`.

    Raises `ConfigurationError` for noise that wants held-out rows: the mode is trained on all of them.

    Sources: MacKay 1992; Khan, Immer, Abedi, Korzepa 2019; Immer, Korzepa, Bauer 2021 (linearised predictions).

    >>> x = torch.linspace(-1, 1, 20).unsqueeze(1)
    >>> laplace = Laplace(hidden=(8,), training=Training(steps=50))
    >>> report = laplace.fit(x, x.square(), generator=torch.Generator().manual_seed(0))
    >>> laplace.predict(x).components, laplace.sample(7)(x.unsqueeze(0)).mean.shape
    (1, torch.Size([7, 20, 1]))
    """

    theta: Tensor
    prior_scale: Tensor
    directions: Tensor
    eigenvalues: Tensor

    def __init__(
        self,
        structure: Structure = FullGGN(),  # noqa: B008
        hidden: tuple[int, ...] = (50,),
        activation: str = "tanh",
        noise: Noise = Homoscedastic(),  # noqa: B008
        evidence: Evidence = Evidence(),  # noqa: B008
        training: Training = Training(steps=1000, warm_steps=500, learning_rate=3e-2),  # noqa: B008
    ) -> None:
        super().__init__(hidden, activation, noise)
        if noise.wants_held_out:
            raise ConfigurationError(f"Laplace trains its mode on every row, so {noise} has none to look at; take Homoscedastic()")
        self.structure, self.evidence, self.settings = structure, evidence, training
        self.register_buffer("theta", torch.empty(0, 0))
        self.register_buffer("prior_scale", torch.empty(0, dtype=torch.float64))
        self.register_buffer("directions", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("eigenvalues", torch.empty(0, dtype=torch.float64))

    @property
    def mode(self) -> Parameters:
        """θ* and the noise parameters; a later fit replaces these tensors and never writes into them."""
        return Parameters(self.theta, self.noise_parameters)

    @property
    def prior_precision(self) -> Float[Tensor, " P"]:
        """δ of every weight and bias, in the order of θ."""
        return (
            self.network.prior_precision().double().to(self.theta.device)
            * self.prior_scale[layer_of_parameter(self.network).to(self.theta.device)]
        )

    def learn(self, fit: Fit) -> FitReport:
        """Train the mode and maximise the evidence, in turn while the evidence rises; warm, from the last mode and δ on.

        Raises `ConfigurationError` when the Jacobian of the data would not fit into memory.
        """
        check_memory(self.structure, fit.network, len(fit.x))
        fitted = self._alternate(fit)
        self.theta = fitted.parameters.theta
        self.keep(fit.network, fitted.parameters.noise)
        self.prior_scale, (self.directions, self.eigenvalues) = fitted.scale, fitted.curvature
        return self._report(fit, fitted)

    def _alternate(self, fit: Fit) -> _Fitted:
        """Train the mode under δ and σ², then maximise the evidence at it; again from there, while that raises the evidence."""
        network, x, y = fit.network, fit.x, fit.y
        parameters = self.mode if fit.warm else self._initial(network, fit.generator)
        scale = self.prior_scale if fit.warm else torch.ones(len(network.widths) - 1, dtype=torch.float64, device=x.device)
        base, layers = network.prior_precision().to(x.device), layer_of_parameter(network).to(x.device)
        counts = torch.ones(1, len(x), dtype=torch.int64, device=x.device)
        training = self.settings.for_rows(len(x))
        steps, best = 0, -math.inf
        trace: tuple[float, ...] = ()
        for round_ in range(self.evidence.rounds + 1):
            trained = train(
                self._trainable(network),
                parameters,
                x,
                y,
                counts,
                training=training,
                generator=fit.generator,
                first_step=replace(fit, warm=fit.warm or round_ > 0).first_step(training),
                precision=base * scale[layers],
                progress=fit.progress,
            )
            steps += trained.steps
            parameters, scale, curvature, log_evidence = self._finish(network, trained.parameters, scale, x, y)
            trace += tuple(log_evidence)
            gained = log_evidence[-1] - best
            if gained > 0:
                best, fitted = log_evidence[-1], _Fitted(parameters, scale, curvature, steps, trained.curves)
            if not gained > self.evidence.gain:
                break
        return fitted._replace(steps=steps, curves={**fitted.curves, "log_evidence": trace})

    def _noise_by_evidence(self, network: Network) -> bool:
        """Whether the evidence sets the noise: there is a variance per output and the evidence is maximised at all."""
        return self.evidence.iterations > 0 and network.widths[-1] == network.outputs

    def _initial(self, network: Network, generator: torch.Generator) -> Parameters:
        parameters = network.initial(1, generator)
        if not self._noise_by_evidence(network):
            return parameters
        return parameters._replace(noise=network.noise.start_at(torch.full((1, network.outputs), _FIRST_VAR)))

    def _trainable(self, network: Network) -> Network:
        """Return the network as training sees it: a variance that the evidence sets is held fixed."""
        return replace(network, noise=Held(network.noise)) if self._noise_by_evidence(network) else network

    def _finish(
        self, network: Network, parameters: Parameters, scale: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Parameters, Tensor, Curvature, list[float]]:
        """Maximise the evidence and take Gauss-Newton steps to the mode, in turn, in float64."""
        first, theta = self.structure.first_layer(network), parameters.theta.double()
        rows, targets = x.double(), y.double()
        mode = linearise(self.structure, network, theta, rows, targets)
        at = Hyperparameters(scale[first:], parameters.noise.double())
        at, curvature, log_evidence = maximise_evidence(self.structure, mode, self.noise, at, self.evidence)
        trace = [*log_evidence]
        for _ in range(self.evidence.polish):
            theta = gauss_newton_step(self.structure, network, theta, rows, mode, at, curvature)
            mode = linearise(self.structure, network, theta, rows, targets)
            at, curvature, log_evidence = maximise_evidence(self.structure, mode, self.noise, at, self.evidence)
            trace += log_evidence
        return Parameters(theta.to(x.dtype), at.noise.to(x.dtype)), torch.cat([scale[:first], at.scale]), curvature, trace

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Draw n functions: linearised networks, or with `LastLayer` networks that share their body."""
        self.check_sample(n)
        generator = generator or fresh_generator()
        scale = self._prior_std
        noise = torch.randn(n, len(scale), generator=generator, dtype=torch.float64, device=generator.device).to(scale.device)
        deviations = self.structure.spread(self._curvature, noise) * scale
        return self.structure.function(self.network, self.mode, deviations.to(self.theta.dtype))

    @property
    def _curvature(self) -> Curvature:
        return Curvature(self.directions, self.eigenvalues)

    @property
    def _prior_std(self) -> Float[Tensor, " p"]:
        return self.prior_precision[-self.directions.shape[0] :].rsqrt()

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return the one Gaussian with mean f(x), epistemic variance diag J H⁻¹ Jᵀ and the noise's variance, [1, ..., E]."""
        self.check_inputs(x)
        network = self.network
        mean, var = network.function(self.mode)(x.unsqueeze(0))
        rows = x.reshape(-1, network.inputs)
        portion = max(1, _VALUES_AT_ONCE // (network.outputs * self.directions.shape[0]))
        parts = [self._epistemic_var(network, some) for some in rows.split(portion)]
        epistemic = torch.cat(parts).reshape(mean.shape).to(mean.dtype)
        return Predictive(mean, epistemic, var)

    def _epistemic_var(self, network: Network, x: Float[Tensor, "R D"]) -> Float[Tensor, "R E"]:
        first = self.structure.first_layer(network)
        derivative = jacobian(network, self.theta.double(), x.double(), columns=network.outputs, first_layer=first)
        return self.structure.spread(self._curvature, derivative * self._prior_std).square().sum(-1)

    @torch.no_grad()
    def _report(self, fit: Fit, fitted: _Fitted) -> FitReport:
        network, x, y = fit.network, fit.x, fit.y
        columns = network.columns(self.theta, x.unsqueeze(0))
        first = self.structure.first_layer(network)
        gamma = float(self.structure.determined(self._curvature).sum())
        warnings = []
        if gamma > 0.9 * y.numel():
            warnings.append(f"{gamma:.0f} effective parameters for {y.numel()} targets: the data hardly determine the noise")
        return FitReport(
            nll=float(network.nll(columns, self.noise_parameters, y.unsqueeze(0)).mean()),
            penalty=float(network.penalty(self.mode, len(x), self.prior_precision.to(x.dtype))),
            steps=fitted.steps,
            seconds=fit.seconds,
            r2_train=r_squared(y, columns[0, :, : network.outputs]),
            at_bound=at_bound(Hyperparameters(self.prior_scale[first:], self.noise_parameters), first),
            warnings=tuple(warnings),
            curves=fitted.curves,
        )
