"""Do the posteriors know that another excitation of a real quarter-drone is not what they were trained on?

Trained on 70 s of multisine; epistemic std (root mean variance, one step ahead) on other logs over that on held-out multisine.
"""

import torch

from bayesdyn.evaluation import Comparison, quarter_drone_comparison
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.evaluation.drone import drone_posteriors
from bayesdyn.evaluation.open_loop import OpenLoop
from benchmarks.acceptance import RESULTS, Acceptance, main

SEEDS = (0, 1, 2, 3, 4)
THREADS = 1


def per_seed(comparison: Comparison, posterior: str, metric: str, shift: str, output: str = "all") -> list[float]:
    """Return a one-step metric, one value per seed."""
    rows = comparison.select(posterior=posterior, metric=metric, shift=shift, horizon=1, propagation="predictive", output=output)
    return [row.value for row in rows]


def judge(acceptance: Acceptance, comparison: Comparison, posterior: str) -> None:
    """Print the points of one posterior, then what else was found."""
    inside = per_seed(comparison, posterior, "epistemic_std", "none")
    for shift in ("steps", "seq"):
        ratio = [s / i for s, i in zip(per_seed(comparison, posterior, "epistemic_std", shift), inside, strict=True)]
        acceptance.above(f"{posterior}, {shift}: epistemic std out / in distribution", ratio, 1.0)
    for shift in comparison.shifts:
        where = "in distribution" if shift == "none" else shift
        if shift != "none":
            acceptance.inform(f"{posterior}, {where}: AUROC of the shift score", per_seed(comparison, posterior, "auroc", shift))
        acceptance.inform(f"{posterior}, {where}: nll per step", per_seed(comparison, posterior, "nll", shift), " nats")
        acceptance.inform(f"{posterior}, {where}: RMSE per step", per_seed(comparison, posterior, "rmse", shift, "0"), " deg")
        cover = comparison.select(posterior=posterior, metric="coverage90", shift=shift, propagation="predictive")
        low, high = (sum(getattr(row, end) for row in cover) / len(cover) for end in ("null_low", "null_high"))
        name = f"{posterior}, {where}: 90 % coverage (a calibrated model: {low:.3f} to {high:.3f})"
        acceptance.inform(name, [row.value for row in cover])
        for horizon in (10, 50):
            rows = comparison.select(posterior=posterior, shift=shift, horizon=horizon, propagation="TSInf", output="0")
            for metric, unit in (("rmse", " deg"), ("coverage90", "")):
                values = [row.value for row in rows if row.metric == metric]
                if values:
                    acceptance.inform(f"{posterior}, {where}: {metric} {horizon} steps ahead", values, unit)


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Compare, judge both posteriors, and keep the whole table beside the points."""
    torch.set_num_threads(THREADS)
    settings = OpenLoop(horizons=(1, 10), starts=60, particles=50) if quick else None
    comparison = quarter_drone_comparison(seeds=SEEDS[:1] if quick else SEEDS, open_loop=settings)
    RESULTS.mkdir(parents=True, exist_ok=True)
    comparison.write(RESULTS / f"{acceptance.name}-table.csv")
    acceptance.add("fits that failed", [len(comparison.failures)], "0", not comparison.failures)
    for posterior in drone_posteriors():
        judge(acceptance, comparison, posterior)
        seconds = [row.value for row in comparison.select(posterior=posterior, metric="fit_seconds")]
        acceptance.inform(f"{posterior}: fit, {THREADS} thread", seconds, " s")
    for reference in REFERENCES:
        acceptance.inform(f"{reference}, in distribution: nll per step", per_seed(comparison, reference, "nll", "none"), " nats")


if __name__ == "__main__":
    main("quarter_drone", measure, __doc__.splitlines()[0])
