"""Speed of the posteriors against their peers: GPyTorch, BoTorch and mbrl-lib (benchmarks/requirements.txt), on one thread.

Times are CPU seconds of this process. The peer and ours run alternately; a repetition is the ratio of the medians of a few such
pairs, and each pair starts from warm caches.
"""

import importlib.util
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bayesdyn.networks import Training
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP
from benchmarks.acceptance import Acceptance, main

F64 = torch.float64
INPUTS, OUTPUTS = 6, 4
QUERIES = 10_000
PATHS, STEPS = 1000, 30
FEATURES = 1024  # BoTorch's default; the same number on both sides
MEMBERS, WIDTH, LAYERS, ROWS, BATCH = 5, 200, 4, 10_000, 256
RATE = 1e-4  # mbrl-lib's default


def make_gp(rows: int, features: int = FEATURES) -> ExactGP:
    """Return a GP of known hyper-parameters on `rows` rows of a smooth function of D = 6 inputs, E = 4, float64."""
    random = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, INPUTS, generator=random, dtype=F64)
    y = torch.sin(x @ torch.randn(INPUTS, OUTPUTS, generator=random, dtype=F64))
    lengthscale = 2 + torch.rand(OUTPUTS, INPUTS, generator=random, dtype=F64)
    signal, noise = torch.ones(OUTPUTS, dtype=F64), torch.full((OUTPUTS,), 0.01, dtype=F64)
    return ExactGP.from_hyperparameters(x, y, lengthscale, signal, noise, features=features)


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def alternate(peer: Callable[[], object], ours: Callable[[], object], repetitions: int, pairs: int) -> tuple[list[float], ...]:
    """Return peer time / our time, and our time in seconds, of each repetition: medians over `pairs` runs in turn."""
    peer(), ours()
    ratios, own = [], []
    for _ in range(repetitions):
        times = [(seconds(peer), seconds(ours)) for _ in range(pairs)]
        theirs, mine = (statistics.median(t) for t in zip(*times, strict=True))
        ratios.append(theirs / mine)
        own.append(mine)
    return ratios, own


def installed(acceptance: Acceptance, package: str, point: str, target: str) -> bool:
    """Say how to install a peer that is missing, and count its point as short."""
    if importlib.util.find_spec(package) is not None:
        return True
    print(f"{package} is not installed; benchmarks/requirements.txt says how, in two lines")
    acceptance.add(point, [math.nan], target, False, " x")
    return False


def measure_marginals(acceptance: Acceptance, repetitions: int) -> None:
    """Mean and variance of f at 10,000 points, N = 200, against GPyTorch's `fast_pred_var`."""
    from benchmarks.peers import gpytorch_gp

    gp = make_gp(200)
    peer = gpytorch_gp.PeerGP(gp)
    x = torch.randn(QUERIES, INPUTS, generator=torch.Generator().manual_seed(1), dtype=F64)
    mean, variance = gpytorch_gp.predict(peer, x, QUERIES)
    ours = gp.predict(x)
    error = ((ours.mean - mean).abs() / mean.abs().clamp_min(1e-3)).max().item()
    acceptance.below("largest relative difference of means to GPyTorch", [error], 1e-8)
    error = ((ours.epistemic_variance - variance).abs() / variance).max().item()
    acceptance.below("largest relative difference of variances to GPyTorch", [error], 1e-8)
    point = f"GPyTorch time / ours, mean and variance at {QUERIES} points, N = 200"
    ratios, own = alternate(lambda: gpytorch_gp.predict(peer, x, QUERIES), lambda: gp.predict(x), repetitions, 1)
    acceptance.above(f"{point}, one call each", ratios, 8, " x")
    acceptance.inform("ours", [1e3 * t for t in own], " ms")
    # One call of the peer forms the covariance of all points with each other; in blocks of a good size it forms far less of it.
    trials = {rows: min(seconds(lambda r=rows: gpytorch_gp.predict(peer, x, r)) for _ in range(3)) for rows in (250, 500, 1000)}
    rows = min(trials, key=trials.__getitem__)
    ratios, _ = alternate(lambda: gpytorch_gp.predict(peer, x, rows), lambda: gp.predict(x), repetitions, 5)
    acceptance.inform(f"{point}, the peer cut by hand into blocks of {rows}", ratios, " x")


def start_states() -> Tensor:
    return 0.1 * torch.randn(PATHS, OUTPUTS, generator=torch.Generator().manual_seed(2), dtype=F64)


def close_loop(step: Callable[[Tensor], Tensor], steps: int = STEPS) -> Tensor:
    """Return the last states [paths, E] of s ← 0.9 s + 0.3 f(s, a) under a saturated linear policy, from `start_states`."""
    gain = torch.linspace(-1, 1, OUTPUTS * (INPUTS - OUTPUTS), dtype=F64).view(OUTPUTS, -1)
    state = start_states()
    for _ in range(steps):
        action = torch.tanh(state @ gain)
        state = 0.9 * state + 0.3 * step(torch.cat([state, action], -1))
    return state


@torch.no_grad()
def our_paths(gp: ExactGP, generator: torch.Generator) -> Tensor:
    function = gp.sample(PATHS, generator)
    return close_loop(lambda x: function(x.unsqueeze(1)).mean.squeeze(1))


def measure_paths(acceptance: Acceptance, repetitions: int) -> None:
    """Drawing 1,000 functions and following each for 30 closed-loop steps, N = 200, against BoTorch's Matheron paths."""
    from benchmarks.peers import botorch_paths

    gp, generator = make_gp(200), torch.Generator().manual_seed(3)
    model = botorch_paths.make_model(gp)

    def peer() -> Tensor:
        return close_loop(botorch_paths.draw(model, PATHS, FEATURES))

    theirs, ours = peer(), our_paths(gp, generator)
    error = (theirs.var(0) + ours.var(0)).div(PATHS).sqrt()
    difference = ((theirs.mean(0) - ours.mean(0)).abs() / error).max().item()
    acceptance.below("largest difference of mean last states to BoTorch, in standard errors (4 states)", [difference], 4)
    ratios, own = alternate(peer, lambda: our_paths(gp, generator), repetitions, 1)
    name = f"BoTorch time / ours, {PATHS} paths of {STEPS} steps, N = 200, {FEATURES} features each"
    acceptance.above(name, ratios, 10, " x")
    acceptance.inform("ours", own, " s")


def peak_memory(rows: int) -> float:
    """Follow the paths of a GP on `rows` rows and return the largest resident set of this process in GB."""
    torch.set_num_threads(1)
    our_paths(make_gp(rows), torch.Generator().manual_seed(3))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_memory(acceptance: Acceptance, repetitions: int) -> None:
    """The same paths at N = 2,000 in a fresh process, imports included; before anything else, as a child starts from our peak."""
    command = [sys.executable, "-c", "from benchmarks.posteriors import peak_memory; print(peak_memory(2000))"]
    root = Path(__file__).resolve().parents[1]
    peaks = [float(subprocess.run(command, cwd=root, check=True, capture_output=True).stdout) for _ in range(repetitions)]
    acceptance.below(f"peak memory of {PATHS} paths of {STEPS} steps, N = 2000", peaks, 2, " GB")


def measure_ensemble(acceptance: Acceptance, repetitions: int, epochs: int) -> None:
    """Whole calls: our `fit`, with its two looks at out-of-bag rows and its report, and mbrl-lib's `ModelTrainer.train`.

    Both take as many steps of as many rows on bootstrap samples of their own; mbrl-lib's time includes building its iterators.
    """
    from benchmarks.peers.mbrl_ensemble import PeerEnsemble

    random = torch.Generator().manual_seed(4)
    x = torch.randn(ROWS, INPUTS, generator=random)
    y = torch.sin(x @ torch.randn(INPUTS, OUTPUTS, generator=random))
    y = y + 0.1 * torch.randn(y.shape, generator=random)
    steps = epochs * math.ceil(ROWS / BATCH)  # the peer's last batch of an epoch is a small one; ours are all full
    for activation, score in (("silu", False), ("silu", True), ("relu", False)):
        peer = PeerEnsemble(x, y, MEMBERS, WIDTH, LAYERS, activation, BATCH, RATE)
        training = Training(steps=steps, batch_size=BATCH, learning_rate=RATE, evaluations=epochs if score else 1, patience=2.0)
        ensemble = BootstrapEnsemble(MEMBERS, (WIDTH,) * LAYERS, activation, training=training)
        ratios, own = alternate(
            lambda peer=peer, score=score: peer.train(epochs, score),
            lambda ensemble=ensemble: ensemble.fit(x, y),
            repetitions,
            1,
        )
        # Without a validation set, as in the library's PETS cart-pole example, the peer scores its training rows.
        scored = "members scored every epoch, each in its own way" if score else "gradient steps only"
        name = f"mbrl-lib time / ours, {MEMBERS} networks {LAYERS} x {WIDTH}, {ROWS} rows, {epochs} epochs, {activation}, {scored}"
        if (activation, score) == ("silu", False):
            acceptance.above(name, ratios, 1.8, " x")
        else:
            acceptance.inform(name, ratios, " x")
        acceptance.inform("ours, per gradient step", [1e3 * t / steps for t in own], " ms")


def measure(acceptance: Acceptance, quick: bool) -> None:
    torch.set_num_threads(1)
    repetitions = 3 if quick else 5
    measure_memory(acceptance, 1 if quick else 3)
    if installed(acceptance, "gpytorch", "GPyTorch time / ours, mean and variance", "> 8 x"):
        measure_marginals(acceptance, repetitions)
    if installed(acceptance, "botorch", "BoTorch time / ours, closed-loop paths", "> 10 x"):
        measure_paths(acceptance, repetitions)
    if installed(acceptance, "mbrl", "mbrl-lib time / ours, training an ensemble", "> 1.8 x"):
        measure_ensemble(acceptance, repetitions, 5 if quick else 15)


if __name__ == "__main__":
    main("posteriors", measure, __doc__ or "")
