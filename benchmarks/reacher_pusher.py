"""Reacher3D and Pusher: the learned model against the same planner with the true dynamics, from the same starts.

One random trial and then some with the model (`TRIALS`), 150 steps each; then a fit to all of it, and ten episodes from starts 0 to
9, those of `python -m benchmarks.known_plant`, whose results this reads: the ceiling of the planner and the anchors. Published
curves of PETS (running maxima of one seed, which also pick the easiest goals): Reacher3D -48 at 2,700 steps, Pusher -78 at 3,000.
"""

import csv
import statistics
from functools import partial

from bayesdyn import presets
from benchmarks.acceptance import RESULTS, Acceptance, main
from benchmarks.control import Study, inform_clock, inform_curve, run_studies, write_curves
from benchmarks.statistics import inform_returns

TASKS = {"Reacher3D": "bayesdyn/Reacher3D-v0", "Pusher": "bayesdyn/PETSPusher-v0"}
CEILINGS = {"Reacher3D": "iCEM 100/10/3, T 25, std 0.05", "Pusher": "iCEM 100/10/3, T 25, std 0.15"}
PUBLISHED = {"Reacher3D": "PETS -48 at 2,700 steps", "Pusher": "PETS -78 at 3,000 steps"}
FIRST_SEED = 100  # the presets were chosen by runs on seeds below
STARTS = 10
SEEDS = {"Reacher3D": 5, "Pusher": 1}  # may be raised, as TRIALS may: the runs then go on where they ended
TRIALS = {"Reacher3D": 19, "Pusher": 19}
WORKERS = 2


def ceiling(task: str) -> list[float]:
    """Return what the planner earns with the true dynamics from starts 0, 1, ..., as benchmarks.known_plant measured it."""
    wanted = f"{TASKS[task]}, {CEILINGS[task]}: return"
    with (RESULTS / "known_plant.csv").open() as file:
        found = [float(row["value"]) for row in csv.DictReader(file) if row["point"] == wanted]
    if not found:
        raise SystemExit(f"benchmarks/results/known_plant.csv has no {wanted!r}: run python -m benchmarks.known_plant first")
    return found


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Learn both tasks from all seeds and judge the means."""
    starts = range(3 if quick else STARTS)
    studies = [
        Study(
            name, partial(presets.icem, env), "ensemble", TRIALS[name], range(FIRST_SEED, FIRST_SEED + SEEDS[name]), starts=starts
        )
        for name, env in TASKS.items()
        if SEEDS[name]
    ]
    curves = run_studies(acceptance.name, studies, WORKERS)
    write_curves(acceptance.name, curves)
    for name, found in curves.items():
        returns = [statistics.fmean(curve.evaluated) for curve in found]
        known = statistics.fmean(ceiling(name)[: len(starts)])
        steps = f"{150 * (TRIALS[name] + 1):,} steps"
        acceptance.above(f"{name}: mean return after {steps}, {len(starts)} starts", returns, 1.2 * known)
        if name == "Reacher3D":
            acceptance.above(f"{name}: the same, against the published level", returns, -45.0)
        inform_returns(acceptance, f"{name}: return after {steps}, each seed's mean over starts", returns, PUBLISHED[name])
        acceptance.inform(f"{name}: known plant, same starts, {CEILINGS[name]}", ceiling(name)[: len(starts)])
        inform_curve(acceptance, name, found, range(1, TRIALS[name] + 1))
        inform_clock(acceptance, name, found)


if __name__ == "__main__":
    main("reacher_pusher", measure, __doc__.splitlines()[0])
