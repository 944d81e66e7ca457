"""Do 90 % intervals hold 90 % of what happens, 1 to 25 steps ahead, before and after recalibration on held-out episodes?

The cart-pole under random forces, 40 steps an episode, whole episodes in each part: 8 to fit, 20 to calibrate, 40 to test. Noise of
std 0.01 moves the state itself, or disturbs what is seen of it. A one-step model cannot tell the second from the first and lets it
grow along a trajectory, so its intervals come out too wide there.

Logged actions are replayed from test states, and a particle is one draw of θ with noise of its own. Coverage is the mean over the
four coordinates. Beside it stands the joint null band: what the same particles hold of trajectories that the calibrated model makes
itself, each replicate by one draw of θ. A point is met within three points of 90 % or inside the band. Judged are the scales by
horizon (`horizon_scales`) upon the default scale of one step; that scale alone, the other two and the model as fitted are shown.

Trajectories of 25 steps start in the first 15 of an episode's 40, while scales of one step are fitted to all rows. What these hold
of rows from everywhere is therefore shown too.

Each fit is kept in build/recalibration, so that a run goes on where it was stopped; delete that folder after a change.
"""

import json
import multiprocessing
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium
import torch
from rich.progress import track
from torch import Tensor

import bayesdyn as bd
from bayesdyn.data import Episode, collect, random_policy, write_atomically
from bayesdyn.envs.cartpole import FORCE_LIMIT, CartPolePlant
from bayesdyn.evaluation.horizon_scales import horizon_scales, imagined_errors
from bayesdyn.evaluation.metrics import coverage
from bayesdyn.evaluation.open_loop import windows
from bayesdyn.evaluation.samples import rank_pit, spread_skill
from bayesdyn.posteriors import (
    SGHMC,
    SWAG,
    BootstrapEnsemble,
    CoverageScale,
    ExactGP,
    Laplace,
    MCDropout,
    MeanField,
    Posterior,
    Recalibrated,
    SparseGP,
    TotalScale,
    TwoScales,
)
from bayesdyn.posteriors.scaling import Scaling
from benchmarks.acceptance import Acceptance, main

TASK, ANGLE, STEPS, NOISE = "bayesdyn/CartPoleSwingUp-v0", 3, 40, 0.01
TRAIN, HELD_OUT, TEST = 8, 20, 40
HORIZONS = (1, 5, 10, 25)
ALL_ROWS = 0  # in the place of a horizon: one step from every row
LEVEL, POINTS = 0.9, 0.03
SEEDS = 3
WORKERS = 4  # one thread each
POSTERIORS: dict[str, Callable[[], Posterior]] = {
    "ExactGP": ExactGP,
    "BootstrapEnsemble": BootstrapEnsemble,
    "SparseGP": SparseGP,
    "MeanField": MeanField,
    "MCDropout": MCDropout,
    "Laplace": Laplace,
    "SWAG": SWAG,
    "SGHMC": SGHMC,
}
QUICK = ("ExactGP", "BootstrapEnsemble")
METHODS: dict[str, Scaling] = {"TotalScale": TotalScale(), "CoverageScale": CoverageScale(LEVEL), "TwoScales": TwoScales()}
DEFAULT, BEFORE, BY_HORIZON = "TotalScale", "as fitted", "scales by horizon"
KEPT = Path(__file__).resolve().parent.parent / "build" / "recalibration"


class Sizes(NamedTuple):
    """How much is simulated: start states of trajectories, rows of one step, particles, replicates of the null, seeds."""

    starts: int
    rows: int
    particles: int
    replicates: int
    seeds: int


class Covered(NamedTuple):
    """Coverage at one horizon, mean over coordinates, that of the coordinate furthest from the level, and how wide and wrong it is.

    `spread` over `error` is the root mean variance of the particles over the root mean square error of their mean, in the
    coordinate where that ratio is furthest from 1.
    """

    share: float
    worst: float
    spread_skill: float


class Run(NamedTuple):
    """What one fit was found to cover: by method and horizon, and the null band by horizon."""

    covered: dict[str, dict[int, Covered]]
    band: dict[int, tuple[float, float]]


def moved(seed: int, count: int) -> list[Episode]:
    """Return episodes of which noise moves the state at every step."""
    generator = torch.Generator().manual_seed(seed)
    states = [0.1 * torch.randn(count, 4, generator=generator, dtype=torch.float64)]
    forces = FORCE_LIMIT * (2 * torch.rand(STEPS, count, 1, generator=generator, dtype=torch.float64) - 1)
    for force in forces:
        after = CartPolePlant().step(states[-1], force)
        states.append(after + NOISE * torch.randn(after.shape, generator=generator, dtype=torch.float64))
    return [Episode(path, force) for path, force in zip(torch.stack(states, 1), forces.transpose(0, 1), strict=True)]


def disturbed(seed: int, count: int) -> list[Episode]:
    """Return episodes of which noise disturbs the observations: those of the environment as it is."""
    env = gymnasium.make(TASK)
    return collect(env, random_policy(env, torch.Generator().manual_seed(seed)), episodes=count, seed=seed)


DATA: dict[str, Callable[[int, int], list[Episode]]] = {"process noise": moved, "observation noise": disturbed}


def parts(data: str, seed: int) -> tuple[bd.Transitions, bd.Transitions, bd.Transitions]:
    """Return what is fitted, calibrated and tested on, whole episodes each."""
    made = DATA[data](seed, TRAIN + HELD_OUT + TEST)
    cuts = (made[:TRAIN], made[TRAIN : TRAIN + HELD_OUT], made[TRAIN + HELD_OUT :])
    train, held_out, test = (bd.Transitions.from_episodes(part) for part in cuts)
    return train, held_out, test


def covered(by_horizon: Mapping[int, Tensor], generator: torch.Generator) -> dict[int, Covered]:
    """Return the coverage of what was observed, given as the particles' deviations from it, by horizon."""
    found = {}
    for horizon, here in by_horizon.items():
        own = coverage(rank_pit(here, torch.zeros_like(here[0]), generator), LEVEL)
        ratio = spread_skill(here, torch.zeros_like(here[0]))
        worst, wrong = own[(own - LEVEL).abs().argmax()], ratio[ratio.log().abs().argmax()]
        found[horizon] = Covered(float(own.mean()), float(worst), float(wrong))
    return found


def band(particles: Tensor, null: Tensor, generator: torch.Generator) -> dict[int, tuple[float, float]]:
    """Return 5 and 95 % of the coverage of trajectories that the model makes itself, by horizon; no scale changes it."""
    found = {}
    for horizon in HORIZONS:
        made = [coverage(rank_pit(particles[horizon], one, generator), LEVEL).mean() for one in null[horizon]]
        low, high = torch.stack(made).quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
        found[horizon] = (low, high)
    return found


@torch.no_grad()
def run(data: str, name: str, seed: int, sizes: Sizes) -> Run:
    """Fit once, and return the coverage before and after each method by horizon."""
    train, held_out, test = parts(data, seed)
    paths, rows = windows(test, max(HORIZONS), sizes.starts), windows(test, 1, sizes.rows)
    posterior = Recalibrated(POSTERIORS[name]())
    model = bd.DynamicsModel(bd.Codec(angles=[ANGLE]), posterior)
    model.fit(train, generator=torch.Generator().manual_seed(seed))

    def particles() -> dict[int, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        ahead = imagined_errors(model, paths, sizes.particles, generator)
        return {ALL_ROWS: imagined_errors(model, rows, sizes.particles, generator)[1], **{h: ahead[h] for h in HORIZONS}}

    generator = torch.Generator().manual_seed(1000 + seed)
    found = {BEFORE: covered(particles(), generator)}
    for method, scaling in reversed(METHODS.items()):  # the default comes last and stays
        posterior.method = scaling
        report = model.calibrate(held_out)
        print(
            f"# {data}, {name}, seed {seed}, {method}: {_few(report.epistemic_scale)} | {_few(report.aleatoric_scale)}", flush=True
        )
        found[method] = covered(particles(), generator)
    by_horizon = horizon_scales(model, held_out, max(HORIZONS), level=LEVEL, starts=sizes.starts, particles=sizes.particles)
    print(f"# {data}, {name}, seed {seed}: {[_few(by_horizon.factors[h - 1].tolist()) for h in HORIZONS]}", flush=True)
    ahead = imagined_errors(model, paths, sizes.particles, torch.Generator().manual_seed(seed))
    widened = by_horizon.widen(ahead)
    found[BY_HORIZON] = covered({horizon: widened[horizon] for horizon in HORIZONS}, generator)
    return Run(found, band(ahead, imagined_errors(model, paths, sizes.replicates, generator), generator))


def kept(data: str, name: str, seed: int, sizes: Sizes) -> Run:
    """Return `run`, or what was kept of it."""
    path = KEPT / f"{data} {name} {'-'.join(map(str, sizes))} {seed}.json".replace(" ", "-")
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        text = json.dumps(run(data, name, seed, sizes))
        write_atomically(path, lambda file: file.write(text.encode()))
    cells, bands = json.loads(path.read_text())
    by_method = {method: {int(h): Covered(*cell) for h, cell in found.items()} for method, found in cells.items()}
    return Run(by_method, {int(h): (low, high) for h, (low, high) in bands.items()})


def _few(scales: Sequence[float]) -> str:
    return " ".join(f"{scale:.2f}" for scale in scales)


def judge(acceptance: Acceptance, name: str, runs: list[Run]) -> None:
    """Print coverage by horizon and method, scales by horizon with a verdict."""
    for method in (BEFORE, *METHODS):
        shares = [run.covered[method][ALL_ROWS].share for run in runs]
        acceptance.inform(f"{name}, {method}, one step from every row: coverage", shares)
    for method in (BEFORE, *METHODS, BY_HORIZON):
        for horizon in HORIZONS:
            cells = [run.covered[method][horizon] for run in runs]
            shares = [cell.share for cell in cells]
            low, high = (statistics.fmean(bounds) for bounds in zip(*(run.band[horizon] for run in runs), strict=True))
            mean = statistics.fmean(shares)
            met = abs(mean - LEVEL) <= POINTS or low <= mean <= high
            target = f"{LEVEL - POINTS:.2f} to {LEVEL + POINTS:.2f} or the null band {low:.3f} to {high:.3f}"
            point = f"{name}, {method}, {horizon} steps ahead"
            acceptance.add(f"{point}: coverage", shares, target, met if method == BY_HORIZON else None)
            acceptance.inform(f"{point}: furthest coordinate", [cell.worst for cell in cells])
            acceptance.inform(f"{point}: spread over error, furthest coordinate", [cell.spread_skill for cell in cells])


def keep(fit: tuple[str, str, int, Sizes]) -> None:
    """Run one fit in a process of its own, unless it is kept already."""
    torch.set_num_threads(1)
    kept(*fit)


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Measure the posteriors, a seed of all of them before the next."""
    sizes = Sizes(60, 200, 60, 50, 1) if quick else Sizes(100, 400, 99, 100, SEEDS)
    jobs = [(data, name) for data in (("process noise",) if quick else DATA) for name in (QUICK if quick else POSTERIORS)]
    fits = [(data, name, seed, sizes) for seed in range(sizes.seeds) for data, name in jobs]
    with multiprocessing.get_context("spawn").Pool(WORKERS, maxtasksperchild=1) as pool:
        done: Iterable[None] = track(pool.imap_unordered(keep, fits), "recalibration", total=len(fits))
        list(done)
    for data, name in jobs:
        judge(acceptance, f"{data}, {name}", [kept(data, name, seed, sizes) for seed in range(sizes.seeds)])


if __name__ == "__main__":
    main("recalibration", measure, __doc__.splitlines()[0])
