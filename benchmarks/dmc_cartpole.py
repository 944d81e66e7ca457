"""DeepMind Control's cart-pole swing-up within 10,000 simulator steps, each action held for several of them.

Ten episodes of 1,000 simulator steps, the first random; the figure is the return of the last, whose steps are 9,001 to 10,000.
TD-MPC2 is at 839 after 100,000 steps (nicklashansen/tdmpc2, results, 3 seeds), but learns the reward, which is given here.
"""

from functools import partial

from bayesdyn import presets
from benchmarks.acceptance import Acceptance, main
from benchmarks.control import Study, inform_clock, inform_curve, run_studies, write_curves

TASK = "bayesdyn/DMCCartPole-v0"
FIRST_SEED = 100  # the preset was chosen by runs on seeds below
WORKERS = 4


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Run all seeds and judge the mean."""
    seeds = range(FIRST_SEED, FIRST_SEED + (2 if quick else 10))
    curves = run_studies(acceptance.name, [Study("ensemble", partial(presets.icem, TASK), "ensemble", 9, seeds)], WORKERS)
    write_curves(acceptance.name, curves)
    found = curves["ensemble"]
    acceptance.above("mean return of the tenth episode", [curve.at(9) for curve in found], 800.0)
    inform_curve(acceptance, "ensemble", found, range(1, 10))
    inform_clock(acceptance, "ensemble", found)


if __name__ == "__main__":
    main("dmc_cartpole", measure, __doc__.splitlines()[0])
