"""Do 90 % intervals hold 90 % of what happens, 1 to 25 steps ahead, before and after recalibration on held-out episodes?

The cart-pole under random forces, 40 steps an episode, whole episodes in each part: 8 to fit, 20 to calibrate, 40 to test. Noise of
std 0.01 moves the state itself, or disturbs what is seen of it. A one-step model cannot tell the second from the first and lets it
grow along a trajectory, so its intervals come out too wide there; how much is shown.

Logged actions are replayed from test states, and a particle is one draw of θ with noise of its own. Coverage is the mean over the
four coordinates. Beside it stands the joint null band: what the same particles hold of trajectories that the calibrated model makes
itself, each replicate by one draw of θ. A point is met within three points of 90 % or inside the band. The default method is
judged, the others and the model before calibration are shown.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import torch
from torch import Tensor

import bayesdyn as bd
from bayesdyn.data import Episode, collect, random_policy
from bayesdyn.envs.cartpole import FORCE_LIMIT, CartPolePlant
from bayesdyn.evaluation.metrics import coverage
from bayesdyn.evaluation.open_loop import Windows, deviation, windows
from bayesdyn.evaluation.samples import rank_pit
from bayesdyn.posteriors import (
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
LEVEL, POINTS = 0.9, 0.03
SEEDS = 5
POSTERIORS: dict[str, Callable[[], Posterior]] = {
    "ExactGP": ExactGP,
    "BootstrapEnsemble": BootstrapEnsemble,
    "SparseGP": SparseGP,
    "MeanField": MeanField,
    "MCDropout": MCDropout,
    "Laplace": Laplace,
    "SWAG": SWAG,
}
QUICK = ("ExactGP", "BootstrapEnsemble")
METHODS: dict[str, Scaling] = {"TotalScale": TotalScale(), "CoverageScale": CoverageScale(LEVEL), "TwoScales": TwoScales()}
DEFAULT, BEFORE = "TotalScale", "before"


class Sizes(NamedTuple):
    """How much is simulated: start states, particles, replicates of the null, seeds."""

    starts: int
    particles: int
    replicates: int
    seeds: int


class Covered(NamedTuple):
    """Coverage at one horizon, mean over coordinates, that of the coordinate furthest from the level, and the null band."""

    share: float
    worst: float
    low: float
    high: float


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


def imagined(model: bd.DynamicsModel, paths: Windows, count: int, generator: torch.Generator) -> Tensor:
    """Return how far `count` imagined trajectories are from each logged one, [T + 1, count, W, E]: one θ each, own noise."""
    dtype = model.posterior.dtype
    dynamics = model.sample(count, generator)
    states = [paths.states[0].to(dtype).expand(count, -1, -1)]
    for action in paths.actions.to(dtype):
        noise = torch.randn(states[0].shape, generator=generator, dtype=dtype)
        states.append(dynamics(states[-1], action.unsqueeze(0)).sample(noise))
    found = torch.stack(states).double()
    return deviation(model.codec.frozen(torch.float64), paths.states.unsqueeze(1).expand_as(found), found)


@torch.no_grad()
def covered(model: bd.DynamicsModel, paths: Windows, sizes: Sizes, seed: int) -> dict[int, Covered]:
    """Return the coverage of test trajectories and its null band, by horizon."""
    generator = torch.Generator().manual_seed(seed)
    particles, null = (imagined(model, paths, count, generator) for count in (sizes.particles, sizes.replicates))
    found = {}
    for horizon in HORIZONS:
        here = particles[horizon]
        own = coverage(rank_pit(here, torch.zeros_like(here[0]), generator), LEVEL)
        shares = torch.stack([coverage(rank_pit(here, made, generator), LEVEL).mean() for made in null[horizon]])
        low, high = shares.quantile(torch.tensor([0.05, 0.95], dtype=shares.dtype)).tolist()
        worst = own[(own - LEVEL).abs().argmax()]
        found[horizon] = Covered(float(own.mean()), float(worst), low, high)
    return found


def run(data: str, name: str, seed: int, sizes: Sizes) -> dict[str, dict[int, Covered]]:
    """Fit once, and return the coverage before and after each method by horizon."""
    train, held_out, test = parts(data, seed)
    paths = windows(test, max(HORIZONS), sizes.starts)
    posterior = Recalibrated(POSTERIORS[name]())
    model = bd.DynamicsModel(bd.Codec(angles=[ANGLE]), posterior)
    model.fit(train, generator=torch.Generator().manual_seed(seed))
    found = {BEFORE: covered(model, paths, sizes, seed)}
    for method, scaling in METHODS.items():
        posterior.method = scaling
        report = model.calibrate(held_out)
        scales = f"epistemic {_few(report.epistemic_scale)}, noise {_few(report.aleatoric_scale)}"
        print(f"# {data}, {name}, seed {seed}, {method}: {scales}", flush=True)
        found[method] = covered(model, paths, sizes, seed)
    return found


def _few(scales: tuple[float, ...]) -> str:
    return " ".join(f"{scale:.2f}" for scale in scales)


def judge(acceptance: Acceptance, name: str, runs: list[dict[str, dict[int, Covered]]]) -> None:
    """Print coverage by horizon and method, the default method with a verdict."""
    for method in (BEFORE, *METHODS):
        for horizon in HORIZONS:
            cells = [run[method][horizon] for run in runs]
            shares = [cell.share for cell in cells]
            low, high = (statistics.fmean(bounds) for bounds in zip(*((c.low, c.high) for c in cells), strict=True))
            mean = statistics.fmean(shares)
            met = abs(mean - LEVEL) <= POINTS or low <= mean <= high
            target = f"{LEVEL - POINTS:.2f} to {LEVEL + POINTS:.2f} or the null band {low:.3f} to {high:.3f}"
            acceptance.add(f"{name}, {method}: coverage {horizon} steps ahead", shares, target, met if method == DEFAULT else None)
            if method == DEFAULT:
                acceptance.inform(f"{name}, {method}: furthest coordinate, {horizon} steps ahead", [cell.worst for cell in cells])


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Measure the posteriors one after another."""
    torch.set_num_threads(1)
    sizes = Sizes(120, 100, 50, 1) if quick else Sizes(200, 100, 200, SEEDS)
    for data in ("process noise",) if quick else DATA:
        for name in QUICK if quick else POSTERIORS:
            judge(acceptance, f"{data}, {name}", [run(data, name, seed, sizes) for seed in range(sizes.seeds)])


if __name__ == "__main__":
    main("recalibration", measure, __doc__.splitlines()[0])
