"""Speed of PILCO's policy search: one value and gradient of the 40-step cart-pole rollout, 50 radial basis functions, one thread.

TorchRL's pieces and ours take turns on Gaussian processes of the same data; theirs is the easier case (no lifted angle). Times are
CPU seconds of this process, the best of the rounds. What ports take relative to TorchRL is from one measurement on another machine
(PILCO of UCL-SML in Octave, nrontsis/PILCO in TensorFlow): at 100, 200 and 300 points the fastest port that does the same work
takes 1/2.4, 1/5.5 and 1/16 of TorchRL's time, and the points below ask for 2, 3 and 4 times the speed of that port.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import torch

import bayesdyn as bd
from bayesdyn.gaussian_processes import moment_jacobian, moment_kernel, moment_radial
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.policies import Policy
from bayesdyn.policy_search import MomentMatched
from bayesdyn.policy_search.objective import as_vector, vector_objective
from bayesdyn.presets.pilco_scenarios import scenarios
from benchmarks.acceptance import Acceptance, main
from benchmarks.planning import transitions

SIZES = (100, 200, 300)
# Of TorchRL's time, that of the fastest port like for like; and how much faster than that port we have to be.
PORT = {100: 1 / 2.4, 200: 1 / 5.5, 300: 1 / 16}
FASTER = {100: 2, 200: 3, 300: 4}
SCENARIO = scenarios["cart-pole"]
MEMORY = "memory"


def fitted(rows: int) -> bd.DynamicsModel:
    """Return a Gaussian process of the cart-pole's steps, trained for a few iterations."""
    model = bd.DynamicsModel(bd.Codec(angles=SCENARIO.angles), bd.posteriors.ExactGP(training=GPTraining.pilco(max_steps=30)))
    model.fit(transitions(rows))
    return model


def ours(model: bd.DynamicsModel, policy: Policy) -> Callable[[], float]:
    """Return a call that evaluates J and its gradient."""
    objective = MomentMatched(SCENARIO.cost(SCENARIO.widths, 0.0), SCENARIO.start, SCENARIO.horizon)
    evaluate, point = vector_objective(objective.of(model, torch.Generator()), policy), as_vector(policy)
    return lambda: evaluate(point)[0]


def theirs(rows: int) -> Callable[[], float]:
    """Return the same call of TorchRL, whose states are as long as the angle is not lifted."""
    from benchmarks.peers.torchrl_pilco import make_model, value_and_gradient

    data = transitions(rows)
    x, y = torch.cat([data.state, data.action], 1), data.next_state - data.state
    lengthscale = (2 * x.std(0)).expand(4, -1)
    model = make_model(x, y, lengthscale, y.var(0), 0.01 * y.var(0))
    return value_and_gradient(model, SCENARIO.basis, SCENARIO.horizon, SCENARIO.limits[0])


def without_kernel(call: Callable[[], float]) -> Callable[[], float]:
    """Return the call without the compiled kernel."""

    def plain() -> float:
        nothing = {"return_value": None}
        with mock.patch.object(moment_jacobian, "installed", **nothing), mock.patch.object(moment_radial, "installed", **nothing):
            return call()

    return plain


def cpu_seconds(call: Callable[[], float]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Time both in turn at each size, then the memory of ours at the largest, and a first call after the data have grown."""
    torch.set_num_threads(1)
    policy = SCENARIO.policy(torch.Generator().manual_seed(0))
    kernel = (
        "compiled kernel"
        if moment_kernel.installed()
        else "no compiled kernel: python -m bayesdyn.gaussian_processes.compile_moments"
    )
    peer = find_spec("torchrl") is not None
    if not peer:
        acceptance.above("times faster than the fastest port (pip install torchrl for the peer)", [float("nan")], FASTER[100])
    for rows in SIZES[:1] if quick else SIZES:
        call = ours(fitted(rows), policy)
        calls = {"kernel": call, "plain": without_kernel(call)} | ({"torchrl": theirs(rows)} if peer else {})
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(3 if quick else 5):
            for name, call in calls.items():
                times[name].append(cpu_seconds(call))
        best = {name: min(found) for name, found in times.items()}
        if peer:
            acceptance.inform(f"n = {rows}: TorchRL, value and gradient, without the angle", [best["torchrl"]], unit=" CPU s")
        for name, said in (("kernel", kernel), ("plain", "torch and NumPy alone")):
            acceptance.inform(f"n = {rows}: value and gradient, {said}", [best[name]], unit=" CPU s")
            if peer:
                ratio = best["torchrl"] / best[name]
                acceptance.inform(f"n = {rows}: times faster than TorchRL, {said}", [ratio])
                acceptance.above(f"n = {rows}: times faster than the fastest port, {said}", [ratio * PORT[rows]], FASTER[rows])
    growing = [ours(fitted(rows), policy) for rows in (60, 61, 62)]
    first = [cpu_seconds(call) for call in growing]
    again = [cpu_seconds(call) for call in growing]
    acceptance.inform("first call after a row was added, over the next one", [a / b for a, b in zip(first, again, strict=True)])
    output = subprocess.run([sys.executable, "-m", "benchmarks.pilco_speed", MEMORY], check=True, capture_output=True, text=True)
    base, peak = (float(word) for word in output.stdout.split())
    acceptance.below("peak memory of the process at n = 300, imports included", [peak], 500.0, unit=" MB")
    acceptance.inform("of which imports, data and fit", [base], unit=" MB")


def report_memory() -> None:
    """Print the resident peak of this process before and after three evaluations at n = 300, in MB."""
    torch.set_num_threads(1)
    call = ours(fitted(SIZES[-1]), SCENARIO.policy(torch.Generator().manual_seed(0)))
    base = resident_peak()
    for _ in range(3):
        call()
    print(base, resident_peak())


def resident_peak() -> float:
    """Return the largest resident size of this process so far in MB; `getrusage` would count what the parent had at the fork."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    if sys.argv[1:] == [MEMORY]:
        report_memory()
    else:
        main("pilco_speed", measure, __doc__.splitlines()[0])
