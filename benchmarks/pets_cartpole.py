"""Learning PETS's cart-pole from 200 random steps: returns by trial with an ensemble and a Gaussian process, and in real time.

Trial k is the k-th in which the model plans, 200 steps of 0.04 s; trial 0 is random, so trial 4 begins after 800 steps. A trial's
return is that of the trial in which data are collected, never the best so far. The known plant earns about 181 with this planner
(`python -m benchmarks.known_plant`). `real time` gives every decision 40 ms, and late ones are counted.
"""

from functools import partial

from bayesdyn import presets
from benchmarks.acceptance import Acceptance, main
from benchmarks.control import Study, inform_clock, inform_curve, run_studies, write_curves

TASK = "bayesdyn/PETSCartPole-v0"
FIRST_SEED = 100  # the preset was chosen by runs on seeds below
LATENCY = 40.0
WORKERS = 4
ALONE = 2  # processes of the real-time runs, on four cores: what they are held to is the wall clock


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Run all seeds and judge the means."""
    seeds = range(FIRST_SEED, FIRST_SEED + (2 if quick else 10))
    preset = partial(presets.icem, TASK)
    studies = [
        Study("ensemble", preset, "ensemble", 6, seeds),
        Study("gp", preset, "gp", 3, seeds),
    ]
    alone = [Study("real time", preset, "ensemble", 6, seeds, latency=LATENCY)]
    curves = run_studies(acceptance.name, studies, WORKERS) | run_studies(acceptance.name, alone, ALONE)
    write_curves(acceptance.name, curves)
    for name, trial, bound in (("ensemble", 4, 170.0), ("ensemble", 6, 175.0), ("gp", 3, 170.0), ("real time", 6, 175.0)):
        acceptance.above(f"{name}: mean return of trial {trial}", [curve.at(trial) for curve in curves[name]], bound)
    timed = curves["real time"]
    acceptance.above("real time: plans per second, one core each", [curve.mean("plans_per_second") for curve in timed], 25.0)
    acceptance.inform("real time: share of late decisions", [curve.mean("late_plans") / curve.mean("steps") for curve in timed])
    for name, found in curves.items():
        inform_curve(acceptance, name, found, range(1, len(found[0].rows)))
        inform_clock(acceptance, name, found)


if __name__ == "__main__":
    main("pets_cartpole", measure, __doc__.splitlines()[0])
