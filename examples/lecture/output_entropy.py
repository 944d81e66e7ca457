"""Output entropy is not model uncertainty: a network can be sure and wrong, and unsure where it knows all there is to know.

Eighty points of a curve: little noise on the left, much on the right, none in between and beyond. A network that puts out a mean
and a variance, fitted to the end, has a high entropy where the data are noisy and a low one where there are none: there it is sure,
and wrong by many of its standard deviations. Ten of them, each on its own bootstrap sample, say the same about the noise, and
disagree where there are no data. The figure has both fits, and the two uncertainties of the ensemble, apart.
"""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import bayesdyn as bd
from bayesdyn.networks import Training
from bayesdyn.plots import NEUTRAL, PALETTE, dress, legend
from bayesdyn.posteriors import BootstrapEnsemble, MaximumLikelihood
from examples.lecture.command import command

ROWS, QUIET, NOISY, NOISE = 80, (-2.0, -0.8), (0.8, 2.0), (0.05, 0.4)
X = torch.linspace(-3, 3, 241, dtype=torch.float64).unsqueeze(1)


def curve(x: Tensor) -> Tensor:
    """Return the true mean."""
    return torch.sin(3 * x) + 0.3 * x


@dataclass(frozen=True)
class Result:
    """Means where there is much noise, little, or no data: errors in standard deviations of the prediction, entropies in nats."""

    error_of_one_network_without_data: float
    error_of_ensemble_without_data: float
    entropy_of_one_network_in_noise: float
    entropy_of_one_network_without_data: float
    aleatoric_in_little_noise: float
    aleatoric_in_noise: float
    epistemic_with_data: float
    epistemic_without_data: float
    data: np.ndarray  # [80, 2]
    one: bd.Predictive  # along `X`
    ensemble: bd.Predictive

    @property
    def shown(self) -> bool:
        """Whether the one network is sure and wrong without data, and the ensemble's two parts are where they belong."""
        wrong = self.error_of_one_network_without_data > max(4, 2 * self.error_of_ensemble_without_data)
        surer = self.entropy_of_one_network_without_data < self.entropy_of_one_network_in_noise
        apart = self.aleatoric_in_noise > 2 * self.aleatoric_in_little_noise
        return wrong and surer and apart and self.epistemic_without_data > 3 * self.epistemic_with_data


def experiment(seed: int, members: int = 10, steps: int = 2000) -> Result:
    """Fit one network and an ensemble of such networks, and compare what they say where there are data and where there are none."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(2, ROWS // 2, 1, generator=generator, dtype=torch.float64)
    x = torch.cat([low + (high - low) * part for (low, high), part in zip((QUIET, NOISY), uniform, strict=True)])
    noise = torch.tensor(NOISE, dtype=torch.float64).repeat_interleave(ROWS // 2).unsqueeze(1)
    y = curve(x) + noise * torch.randn(ROWS, 1, generator=generator, dtype=torch.float64)
    settings = {"hidden": (64, 64), "training": Training(steps=steps)}
    one = fit(MaximumLikelihood(held_out=0.0, **settings), x, y, seed)
    ensemble = fit(BootstrapEnsemble(members=members, decay=(0.0,) * 3, **settings), x, y, seed)

    quiet, noisy = (X.ge(low) & X.le(high) for low, high in (QUIET, NOISY))
    nowhere = (X.abs() < 0.6) | (X.abs() > 2.2)
    off = [((seen.mean - curve(X)).square() / seen.variance)[nowhere].mean().sqrt() for seen in (one, ensemble)]
    entropies = [one.aleatoric_entropy()[where[:, 0]].mean() for where in (noisy, nowhere)]
    noise_seen = [ensemble.aleatoric_variance.sqrt()[where].mean() for where in (quiet, noisy)]
    doubt = [ensemble.epistemic_variance.sqrt()[where].mean() for where in (quiet | noisy, nowhere)]
    return Result(*map(float, [*off, *entropies, *noise_seen, *doubt]), torch.cat([x, y], 1).numpy(), one, ensemble)


def fit(posterior: bd.posteriors.Posterior, x: Tensor, y: Tensor, seed: int) -> bd.Predictive:
    """Fit a posterior over networks and return what it predicts along `X`."""
    posterior.fit(x, y, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return posterior.predict(X)


def draw(result: Result) -> Figure:
    """Draw the two fits, and the two uncertainties of the ensemble."""
    figure = Figure((11.5, 4), layout="constrained")
    one, ensemble, apart = figure.subplots(1, 3)
    band(one, result.one, result.data, PALETTE[1])
    off = result.error_of_one_network_without_data, result.error_of_ensemble_without_data
    dress(one, f"one network: off by {off[0]:.0f} of its\nstandard deviations where it has no data")
    band(ensemble, result.ensemble, result.data, PALETTE[0])
    ensemble.plot(X, result.ensemble.component_mean[..., 0].T, color=PALETTE[0], linewidth=0.6, alpha=0.6)
    dress(ensemble, f"ten networks: off by {off[1]:.1f} of their\nstandard deviations where they have no data")
    for (low, high), name in ((QUIET, "little noise"), (NOISY, "much noise")):
        apart.axvspan(low, high, color=NEUTRAL, alpha=0.15, linewidth=0)
        apart.text((low + high) / 2, 0.012, name, color=NEUTRAL, fontsize=8, ha="center")
    apart.plot(X, result.ensemble.epistemic_variance.sqrt(), color=PALETTE[0], linewidth=2, label="epistemic, ten networks")
    apart.plot(X, result.ensemble.aleatoric_variance.sqrt(), color=PALETTE[2], linewidth=2, label="aleatoric, ten networks")
    apart.plot(X, result.one.stddev, "--", color=PALETTE[1], label="output of one network")
    apart.set(yscale="log", ylim=(0.01, 10), xlim=(-3, 3))
    dress(apart, "standard deviations, apart", "x")
    legend(apart)
    return figure


def band(axes: Axes, seen: bd.Predictive, data: np.ndarray, colour: str) -> None:
    """Draw a mean with two standard deviations, the truth and the data."""
    mean, two = seen.mean[:, 0], 2 * seen.stddev[:, 0]
    axes.fill_between(X[:, 0], mean - two, mean + two, color=colour, alpha=0.25, linewidth=0)
    axes.plot(X, mean, color=colour, linewidth=2.4)
    axes.plot(X, curve(X), "--", color=NEUTRAL, linewidth=1.4)
    axes.plot(*data.T, ".", color=NEUTRAL, markersize=3)
    axes.set(ylim=(-4, 4), xlim=(-3, 3), xlabel="x")


if __name__ == "__main__":
    command("output_entropy", __doc__, experiment, draw)
