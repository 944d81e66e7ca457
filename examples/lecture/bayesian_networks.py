"""Bayesian networks on one page: mean field, MC dropout and a bootstrap ensemble on the same data, beside the posterior itself.

A hundred noisy values of sin 2x, none in the middle. The grey band is what NUTS says, the reference: unsure in the gap, sure where
the data are. The ensemble has this shape. Mean field is too unsure where the data are, since a factorised Gaussian cannot say that
weights compensate each other; dropout does not see the gap. Below: how sure each is at the data and in the gap; what more members
of the ensemble are worth; and what is left of its spread when all members see the same data and differ by their start alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from bayesdyn.networks import Homoscedastic
from bayesdyn.plots import NEUTRAL, PALETTE, dress, legend
from bayesdyn.posteriors import NUTS, BootstrapEnsemble, MCDropout, MeanField, NUTSSampling
from examples.lecture.command import command
from examples.lecture.hole import FAR, HOLE, draw_data, loss

ROWS, MEMBERS = 100, 20
COUNTS = (1, 2, 3, 5, 10, 20)
SAME = {"members": MEMBERS, "hidden": (32, 32), "activation": "tanh", "noise": Homoscedastic(), "decay": (1e-4,) * 3}
POSTERIORS = {
    "NUTS, the reference": lambda: NUTS(
        hidden=(20,), sampling=NUTSSampling(2, warmup=150, draws=150, stored=200, max_tree_depth=6)
    ),
    "bootstrap ensemble": lambda: BootstrapEnsemble(**SAME),
    "mean field": lambda: MeanField(hidden=(20,), noise=Homoscedastic()),
    "MC dropout": lambda: MCDropout(noise=Homoscedastic()),
    "ensemble, no resampling": lambda: BootstrapEnsemble(bootstrap=False, **SAME),
}
GRID = torch.linspace(-2.2, 2.2, 111, dtype=torch.float64).unsqueeze(1)
IN_THE_GAP = (GRID.abs() < HOLE / 2).flatten()
AT_THE_DATA = ((GRID.abs() > HOLE) & (GRID.abs() < FAR)).flatten()


@dataclass(frozen=True)
class Result:
    """Epistemic standard deviations, means over the gap's middle and over where data are; what five members are worth."""

    gap_nuts: float
    gap_ensemble: float
    gap_mean_field: float
    gap_mc_dropout: float
    gap_without_resampling: float
    data_nuts: float
    data_ensemble: float
    data_mean_field: float
    data_mc_dropout: float
    data_without_resampling: float
    share_of_the_gain_by_five_members: float
    data: np.ndarray  # [ROWS, 2]
    means: np.ndarray  # [posteriors, 111]
    stds: np.ndarray
    losses: np.ndarray  # [2, counts]: nll per row on test data, with resampling and without

    @property
    def shown(self) -> bool:
        """Whether each posterior does what the module's docstring says of it, and five members bring most of what twenty do."""
        knows = self.gap_ensemble > 2 * self.data_ensemble and self.gap_nuts > 2 * self.data_nuts
        wide, blind = self.data_mean_field > 1.5 * self.data_nuts, self.gap_mc_dropout < 2 * self.data_mc_dropout
        resampling = self.data_ensemble > 2 * self.data_without_resampling
        return knows and wide and blind and resampling and self.share_of_the_gain_by_five_members > 0.75


def experiment(seed: int) -> Result:
    """Fit all to the same data, and score ensembles of fewer members on data without a gap."""
    generator = torch.Generator().manual_seed(seed)
    (x, y), (test_x, test_y) = draw_data(ROWS, generator, HOLE), draw_data(1000, generator)
    fitted = {name: make() for name, make in POSTERIORS.items()}
    for posterior in fitted.values():
        posterior.fit(x, y, generator=torch.Generator().manual_seed(seed))
    seen = [posterior.predict(GRID) for posterior in fitted.values()]
    std = torch.stack([one.epistemic_variance.sqrt()[:, 0] for one in seen])
    ensembles = [fitted[name].predict(test_x) for name in ("bootstrap ensemble", "ensemble, no resampling")]
    losses = np.array([[loss(whole, test_y, count, generator) for count in COUNTS] for whole in ensembles])
    one, five, all_of_them = losses[0, [0, COUNTS.index(5), -1]]
    levels = [float(row[where].mean()) for where in (IN_THE_GAP, AT_THE_DATA) for row in std]
    means = np.stack([one.mean[:, 0].numpy() for one in seen])
    return Result(*levels, (one - five) / (one - all_of_them), torch.cat([x, y], 1).numpy(), means, std.numpy(), losses)


def draw(result: Result) -> Figure:
    """Draw mean ± 2 epistemic std of each over the reference in grey; below how sure they are, how many it takes, resampling."""
    figure = Figure((11.6, 5.8), layout="constrained")
    names, x = list(POSTERIORS), GRID[:, 0].numpy()
    shades = dict(zip(names, (NEUTRAL, PALETTE[1], PALETTE[4], PALETTE[3], PALETTE[0]), strict=True))
    grid = figure.add_gridspec(2, 12)
    upper = [figure.add_subplot(grid[0, 3 * i : 3 * i + 3]) for i in range(4)]
    sure, count, spread = (figure.add_subplot(grid[1, 4 * i : 4 * i + 4]) for i in range(3))
    for axes, name, mean, std in zip(upper, names, result.means, result.stds, strict=False):
        reference, width = result.means[0], 2 * result.stds[0]
        axes.fill_between(x, reference - width, reference + width, color=NEUTRAL, alpha=0.3, linewidth=0)
        axes.plot(*result.data.T, "o", color=NEUTRAL, markersize=2)
        for edge in (mean - 2 * std, mean + 2 * std):
            axes.plot(x, edge, color=shades[name], linewidth=1)
        axes.plot(x, mean, color=shades[name], linewidth=2)
        axes.set(ylim=(-2.6, 2.6))
        dress(axes, name)
    figures = np.array([result.stds[:, where].mean(1) for where in (AT_THE_DATA.numpy(), IN_THE_GAP.numpy())])
    for name, pair in zip(names, figures.T, strict=True):
        sure.plot(["at the data", "in the gap"], pair, "o-", color=shades[name], linewidth=2)
    for name, losses in zip((names[1], names[4]), result.losses, strict=True):
        count.plot(COUNTS, losses, "o-", color=shades[name], linewidth=2, label=name)
    for name in (names[0], names[1], names[4]):
        spread.plot(x, result.stds[names.index(name)], color=shades[name], linewidth=2)
    count.set_xscale("log", base=2)
    count.set_xticks(COUNTS, [str(k) for k in COUNTS])
    dress(sure, "how sure is each?", "", "epistemic std")
    dress(count, "how many members?", "members", "nll per row of test data")
    dress(spread, "on samples of the data, or all on the same", "x", "epistemic std")
    legend(count)
    return figure


if __name__ == "__main__":
    command("bayesian_networks", __doc__, experiment, draw)
