"""Every posterior on a noisy sine with a gap: is the noise right, is it unsure in the gap, and how far from NUTS?

The noise is constant, so that every noise model can say the truth; networks get `Homoscedastic()`, everything else is the default
of each class. NUTS samples the posterior of a network with the prior that all networks here have (activations and widths differ).
Each fit is kept in build/gap_toy, so that a run goes on where it was stopped; delete that folder after a change of the library.
"""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from bayesdyn.evaluation.toys import NoisySine, constant_noise
from bayesdyn.networks import Homoscedastic
from bayesdyn.posteriors import (
    NUTS,
    SGHMC,
    SWAG,
    BootstrapEnsemble,
    ConcreteDropout,
    DiagonalGGN,
    ExactGP,
    FullGGN,
    Laplace,
    LastLayer,
    MaximumLikelihood,
    MCDropout,
    MeanField,
    NUTSSampling,
    Posterior,
    SparseGP,
)
from benchmarks.acceptance import RESULTS, Acceptance, main

TOY = NoisySine(constant_noise)
FEW, MANY = 200, 800
SEEDS = 5
DRAWS, LEVELS = 1000, 50
REFERENCE, BASELINE = "NUTS", "MaximumLikelihood"
KEPT = Path(__file__).resolve().parent.parent / "build" / "gap_toy"
FIGURE = RESULTS.parents[1] / "docs" / "images" / "gap_toy.png"
NOISE = Homoscedastic()

POSTERIORS: dict[str, Callable[[], Posterior]] = {
    # Shorter than its default, for time; R-hat and effective sample size are among the lines below.
    REFERENCE: lambda: NUTS(sampling=NUTSSampling(warmup=100, draws=100)),
    "ExactGP": ExactGP,
    "SparseGP": SparseGP,
    "BootstrapEnsemble": lambda: BootstrapEnsemble(noise=NOISE),
    "MeanField": lambda: MeanField(noise=NOISE),
    "MCDropout": lambda: MCDropout(noise=NOISE),
    "ConcreteDropout": lambda: ConcreteDropout(noise=NOISE),
    "Laplace, full": lambda: Laplace(FullGGN()),
    "Laplace, diagonal": lambda: Laplace(DiagonalGGN()),
    "Laplace, last layer": lambda: Laplace(LastLayer()),
    "SWAG": lambda: SWAG(noise=NOISE),
    "SGHMC": lambda: SGHMC(noise=NOISE),
    BASELINE: lambda: MaximumLikelihood(noise=NOISE),
}


@dataclass(frozen=True)
class Fit:
    """What one fit says of f and y on `grid`, which is the support (60 inputs), then the gap (50), then the figure's axis (120)."""

    x: np.ndarray
    y: np.ndarray
    mean: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray
    total: np.ndarray
    quantiles: np.ndarray  # [levels, grid], of draws of f
    seconds: float  # of CPU time
    r_hat: float
    warnings: str

    @property
    def support(self) -> slice:
        """Where the grid lies in the data's support."""
        return slice(0, 60)

    @property
    def gap(self) -> slice:
        """Where the grid lies in the gap."""
        return slice(60, 110)

    @property
    def axis(self) -> slice:
        """The part of the grid that figures show."""
        return slice(110, None)


GRID = torch.cat([TOY.support(60), TOY.gap(50), torch.linspace(-2.1, 2.1, 120, dtype=torch.float64).unsqueeze(1)])


def fit(name: str, rows: int, seed: int) -> Fit:
    """Fit one posterior to one data set, or read the fit that was kept."""
    path = KEPT / f"{name.replace(', ', '-').replace(' ', '-')}-{rows}-{seed}.npz"
    if not path.exists():
        made = _fit(name, rows, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **made.__dict__)
        partial.replace(path)
    with np.load(path) as kept:
        arrays = {key: kept[key] for key in kept.files}
    return Fit(**{key: value.item() if value.ndim == 0 else value for key, value in arrays.items()})


def _fit(name: str, rows: int, seed: int) -> Fit:
    posterior = POSTERIORS[name]()
    dtype = torch.float64 if posterior.dtype == torch.float64 else torch.float32
    # The larger data set holds the smaller one.
    x, y = (part[:rows].to(dtype) for part in TOY.draw(MANY, torch.Generator().manual_seed(seed)))
    began = time.process_time()
    report = posterior.fit(x, y, generator=torch.Generator().manual_seed(seed))
    seconds = time.process_time() - began
    grid = GRID.to(dtype)
    with torch.no_grad():
        said = posterior.predict(grid)
        values = posterior.sample(DRAWS, torch.Generator().manual_seed(seed))(grid.unsqueeze(0)).mean[..., 0].double()
    levels = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    parts = (x, y, said.mean, said.epistemic_variance, said.aleatoric_variance, said.variance)
    columns = [part[:, 0].double().numpy() for part in parts]
    r_hat = max(report.curves.get("r_hat", (math.nan,)))
    return Fit(*columns, values.quantile(levels, dim=0).numpy(), seconds, r_hat, "; ".join(report.warnings))


def distances(a: Fit, b: Fit) -> tuple[float, float, float]:
    """Return the 2-Wasserstein distance of distributions of f(x): mean over [-4, 4], relative to the spread of b, mean beyond."""
    shown = a.axis
    each = np.sqrt(np.square(a.quantiles[:, shown] - b.quantiles[:, shown]).mean(0))
    within = np.abs(GRID[shown, 0].numpy()) <= float(TOY.support().max())
    near = float(each[within].mean())
    return near, near / float(np.sqrt(b.epistemic[shown][within]).mean()), float(each[~within].mean())


def judge(acceptance: Acceptance, name: str, few: list[Fit], many: list[Fit], reference: list[Fit]) -> str:
    """Print the points of one posterior, and return its line of the table."""
    truth = float(TOY.std(TOY.support())[0])
    noise = [math.sqrt(one.aleatoric[one.support].mean()) / truth for one in many]
    support, gap = ([float(one.epistemic[part].mean()) for one in many] for part in (many[0].support, many[0].gap))
    identity = [float(np.abs(one.total / (one.epistemic + one.aleatoric) - 1).max()) for one in (*few, *many)]
    acceptance.between(f"{name}: noise std in support / truth, N = {MANY}", noise, 0.9, 1.1)
    acceptance.below(f"{name}: total / (epistemic + aleatoric) - 1, largest", identity, 1e-6)
    ratios = exponents = [math.nan]
    if name != BASELINE:
        before = [float(one.epistemic[one.support].mean()) for one in few]
        ratios = [g / s for g, s in zip(gap, support, strict=True)]
        exponents = [math.log(s / b) / math.log(MANY / FEW) for s, b in zip(support, before, strict=True)]
        acceptance.above(f"{name}: epistemic variance in the gap / in support, N = {MANY}", ratios, 3.0)
        acceptance.between(f"{name}: exponent of epistemic variance in N, in support", exponents, -1.5, -0.5)
    pairs = zip(many, reference, strict=True)
    near, relative, beyond = (list(v) for v in zip(*(distances(one, other) for one, other in pairs), strict=True))
    seconds = [one.seconds for one in many]
    acceptance.inform(f"{name}: distance from NUTS in [-4, 4], N = {MANY}", near)
    acceptance.inform(f"{name}: distance from NUTS beyond, N = {MANY}", beyond)
    acceptance.inform(f"{name}: fit, N = {MANY}", seconds, " CPU s")
    if name == REFERENCE:
        acceptance.below("NUTS: largest R-hat", [one.r_hat for one in (*few, *many)], 1.05)
    spread = np.sqrt(support)
    figures = [float(np.mean(v)) for v in (noise, ratios, exponents, spread, near, relative, beyond, seconds)]
    digits = (2, 2, 2, 3, 3, 2, 3, 1)
    return " ".join([f"{name:20s}", *(f"{value:8.{after}f}" for value, after in zip(figures, digits, strict=True))])


def draw_figure(fits: dict[str, Fit]) -> None:
    """Write one panel per posterior: data, mean, and two standard deviations, epistemic and total."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns, rows = 4, -(-len(fits) // 4)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 2.3 * rows), sharex=True, sharey=True)
    axis = GRID[fits[REFERENCE].axis, 0].numpy()
    for panel, (name, one) in zip(axes.flat, fits.items(), strict=False):
        mean, total, epistemic = one.mean[one.axis], np.sqrt(one.total[one.axis]), np.sqrt(one.epistemic[one.axis])
        panel.fill_between(axis, mean - 2 * total, mean + 2 * total, color="#56b4e9", alpha=0.35, lw=0, label="total")
        panel.fill_between(axis, mean - 2 * epistemic, mean + 2 * epistemic, color="#0072b2", alpha=0.6, lw=0, label="epistemic")
        panel.scatter(one.x, one.y, s=1.5, color="0.35", lw=0, label="data")
        panel.plot(axis, mean, color="black", lw=1, label="mean")
        panel.plot(axis, TOY.mean(GRID[one.axis, 0]).numpy(), color="#d55e00", lw=0.8, ls="--", label="truth")
        panel.set_title(name, fontsize=9)
        panel.set_ylim(-2.8, 2.8)
    for panel in list(axes.flat)[len(fits) :]:
        panel.axis("off")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="lower center", ncols=5, fontsize=9, frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=75)
    Image.open(drawn).convert("RGB").quantize(48).save(FIGURE, optimize=True)


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Measure over several data sets, one after another, so that a run that was stopped has whole ones."""
    torch.set_num_threads(1)
    seeds, names = range(2 if quick else SEEDS), list(POSTERIORS)
    fits = {(name, rows, seed): fit(name, rows, seed) for seed in seeds for rows in (FEW, MANY) for name in names}
    table = []
    for name in names:
        few, many, reference = (
            [fits[key, rows, seed] for seed in seeds] for key, rows in ((name, FEW), (name, MANY), (REFERENCE, MANY))
        )
        table.append(judge(acceptance, name, few, many, reference))
    columns = ("noise", "gap", "exponent", "support", "W2", "relative", "beyond", "CPU s")
    print("\n" + " ".join([" " * 20, *(f"{column:>8s}" for column in columns)]))
    print(*table, sep="\n")
    print(
        "noise: std in support / truth; gap: epistemic variance there / in support; support: epistemic std there; W2: distance from"
    )
    print("NUTS in values of f in [-4, 4], the same relative to the epistemic std of NUTS, and beyond [-4, 4]; last: time of a fit")
    draw_figure({name: fits[name, FEW, 0] for name in names})


if __name__ == "__main__":
    main("gap_toy", measure, __doc__.splitlines()[0])
