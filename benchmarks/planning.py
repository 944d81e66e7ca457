"""Speed of planning: one CEM plan against mbrl-lib's (benchmarks/requirements.txt) and against what matrix products alone take.

Everything runs on one thread unless a line says otherwise. Times are CPU seconds of this process; the peer, ours and the products
run in turn, and a repetition is one such round. All plans go through the public API: draws, codec, noise, reward, objective and
planner are part of them. The floor is a plan's floating-point operations at the rate of a large matrix product, measured in turn.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import torch
from torch import Tensor

import bayesdyn as bd
from bayesdyn.envs.cartpole import FORCE_LIMIT, CartPolePlant, TipReward
from bayesdyn.errors import ConfigurationError
from bayesdyn.gaussian_processes.pathwise import PathwiseFunction
from bayesdyn.networks import Training, fused
from bayesdyn.networks.compile_fused import build
from bayesdyn.objectives import Expected
from bayesdyn.planners import CEM, Box
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP, MCDropout, Posterior
from bayesdyn.rollout import TSInf, rollout
from benchmarks.acceptance import Acceptance, main
from benchmarks.posteriors import installed

STATES, INPUTS = 4, 6
HIDDEN, MEMBERS, PARTICLES = (200,) * 4, 5, 4  # 20 particles a candidate, four for each member
PLANNER = CEM(horizon=15, candidates=350, elites=35, iterations=5)
REWARD = TipReward((0.25, 0.5, 1.0))
BOX = Box.of([-FORCE_LIMIT], [FORCE_LIMIT])
HANGING = torch.zeros(STATES)
SQUARE = 1024  # of the products that set the floor


def transitions(rows: int, seed: int = 0) -> bd.Transitions:
    """Return steps of PILCO's cart-pole from states all over its range under random forces."""
    random = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 3.0, 6.0, 3.0], dtype=torch.float64)
    state = scale * torch.randn(rows, STATES, generator=random, dtype=torch.float64)
    action = FORCE_LIMIT * (2 * torch.rand(rows, 1, generator=random, dtype=torch.float64) - 1)
    return bd.Transitions.from_arrays(state, action, CartPolePlant().step(state, action))


def fitted(posterior: Posterior, rows: int) -> bd.DynamicsModel:
    model = bd.DynamicsModel(bd.Codec(angles=[3]), posterior)
    model.fit(transitions(rows))
    return model


def make_plan(model: bd.DynamicsModel, planner: CEM = PLANNER, batch: int = 1, **options: object) -> Callable[[], Tensor]:
    """Return a call that plans once, from the beginning of an episode, with the same seed each time, for one or more states."""
    agent = bd.MPC(model, planner, REWARD, **{"draws": MEMBERS, "particles": PARTICLES, **options})
    states = HANGING if batch == 1 else start_states(batch)

    def plan() -> Tensor:
        agent.reset(BOX, batch, torch.Generator().manual_seed(0))
        return agent.act(states)

    return plan


def start_states(batch: int) -> Tensor:
    return 0.1 * torch.randn(batch, STATES, generator=torch.Generator().manual_seed(5))


def flops(planner: CEM) -> float:
    """Return the operations of all layers: at t = 0 one row per draw and candidate, later one per trajectory."""
    rows = MEMBERS * planner.candidates * planner.iterations * (1 + PARTICLES * (planner.horizon - 1))
    widths = (INPUTS, *HIDDEN, 2 * STATES)
    return 2.0 * rows * sum(before * after for before, after in pairwise(widths))


def square_flops(count: int = 10) -> float:
    return 2.0 * count * SQUARE**3


def square_products(count: int = 10) -> Callable[[], None]:
    left, right, out = torch.randn(SQUARE, SQUARE), torch.randn(SQUARE, SQUARE), torch.empty(SQUARE, SQUARE)

    def multiply() -> None:
        for _ in range(count):
            torch.mm(left, right, out=out)

    return multiply


def in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Return the seconds of each call in each round; a first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = clock()
            call()
            if number:
                seconds[name].append(clock() - began)
    return seconds


def ratios(over: list[float], under: list[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def without_kernel(call: Callable[[], object]) -> Callable[[], object]:
    """Return the call with torch's products in the place of the compiled kernel."""

    def plain() -> object:
        with mock.patch.object(fused, "installed", return_value=None):
            return call()

    return plain


def has_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def judge(acceptance: Acceptance, point: str, figures: list[float], bound: float | None) -> None:
    if bound is None:
        acceptance.inform(point, figures, " x")
    else:
        acceptance.above(point, figures, bound, " x")


def measure_ensemble(acceptance: Acceptance, model: bd.DynamicsModel, rounds: int) -> None:
    """One plan of five 4 x 200 networks, with the kernel and without, and mbrl-lib's on the same networks.

    Both follow the same 525,000 trajectory steps; ours evaluates the first step of a candidate's four particles per member, which
    stand at one state, as one row, and so 5 % fewer rows.
    """
    plan = make_plan(model)
    calls = {"kernel": plan, "plain": without_kernel(plan), "products": square_products()}
    point = "mbrl-lib time / ours, one CEM plan, float32"
    peer = installed(acceptance, "mbrl", point, "> 1.8 x")
    if peer:
        from benchmarks.peers.mbrl_planner import largest_difference, make_planner

        acceptance.below("largest difference of a step of the same networks to mbrl-lib's", [largest_difference(model)], 1e-4)
        calls["peer"] = make_planner(model, PLANNER, FORCE_LIMIT, REWARD, MEMBERS * PARTICLES)
    seconds = in_turn(calls, rounds)
    floor = [flops(PLANNER) * taken / square_flops() for taken in seconds["products"]]
    kernel = "compiled kernel" if fused.installed() else "the kernel could not be compiled"
    for name, said, least in (("kernel", kernel, 1.8), ("plain", "torch alone", None)):
        if peer:
            judge(acceptance, f"{point}, {said}", ratios(seconds["peer"], seconds[name]), least)
        share = f"share of the speed of matrix products alone, one CEM plan, float32, {said}"
        if name == "kernel":
            acceptance.above(share, ratios(floor, seconds[name]), 0.6)
        else:
            acceptance.inform(share, ratios(floor, seconds[name]))
        acceptance.inform(f"one CEM plan, {said}", seconds[name], " s")
    acceptance.inform("matrix products alone, for the same plan", floor, " s")
    acceptance.inform("matrix products alone", [1e-9 * square_flops() / taken for taken in seconds["products"]], " GFLOP/s")
    if peer:
        acceptance.inform("one CEM plan, mbrl-lib", seconds["peer"], " s")


def first_scores(model: bd.DynamicsModel, precision: torch.dtype | None) -> Tensor:
    """Return the scores of 500 candidates, the same draws, noise and actions for every precision."""
    random = torch.Generator().manual_seed(11)
    actions = FORCE_LIMIT * (2 * torch.rand(PLANNER.horizon, 1, 500, 1, generator=random) - 1)
    dynamics = model.sample(MEMBERS, random, dtype=torch.float32, precision=precision)
    noise = TSInf().draw_noise(PLANNER.horizon, MEMBERS, PARTICLES, STATES, random, torch.float32)
    with torch.no_grad():
        return Expected()(rollout(dynamics, HANGING.view(1, 1, -1), actions, REWARD, particles=PARTICLES, noise=noise).returns)[0]


def measure_bfloat16(acceptance: Acceptance, model: bd.DynamicsModel, rounds: int) -> None:
    """The same plan with hidden layers in bfloat16, and whether it ranks candidates like float32, on the trained ensemble."""
    exact, coarse = first_scores(model, None), first_scores(model, torch.bfloat16)
    same = len(set(exact.topk(50).indices.tolist()) & set(coarse.topk(50).indices.tolist()))
    acceptance.above("elites of 500 candidates that bfloat16 and float32 share, of 50", [same], 47.5)
    acceptance.inform(
        "largest error of a score in bfloat16 over the spread of scores", [((coarse - exact).abs().max() / exact.std()).item()]
    )
    point, target = "mbrl-lib time / ours, one CEM plan, bfloat16", "> 3 x"
    if not installed(acceptance, "mbrl", point, target):
        return
    from benchmarks.peers.mbrl_planner import make_planner

    # Without such instructions a plan takes long: one iteration says enough.
    planner = PLANNER if has_bfloat16() else replace(PLANNER, iterations=1)
    peer = make_planner(model, planner, FORCE_LIMIT, REWARD, MEMBERS * PARTICLES)
    seconds = in_turn({"peer": peer, "ours": make_plan(model, planner, precision=torch.bfloat16)}, rounds if has_bfloat16() else 1)
    figures = ratios(seconds["peer"], seconds["ours"])
    if not has_bfloat16():
        target += " (no bfloat16 instructions on this processor)"
    acceptance.add(point, figures, target, statistics.fmean(figures) > 3, " x")


def measure_dropout(acceptance: Acceptance, model: bd.DynamicsModel, rows: int, rounds: int) -> None:
    """As many draws of a dropout network of the same size, p = 0.5, against the ensemble's."""
    dropout = fitted(MCDropout(0.5, hidden=HIDDEN, training=Training(steps=200)), rows)
    seconds = in_turn({"ensemble": make_plan(model), "dropout": make_plan(dropout)}, rounds)
    figures = ratios(seconds["ensemble"], seconds["dropout"])
    acceptance.above("time of the ensemble's plan / that of as many dropout draws, p = 0.5", figures, 1, " x")
    acceptance.inform("one CEM plan, dropout", seconds["dropout"], " s")


def gp_floor(function: PathwiseFunction, rows: int, steps: int) -> Callable[[], None]:
    """Return a call that takes the products, exponentials and cosines of `rows` rows per draw, so many times, and nothing else."""
    parts, E, n = function._tensors, function.outputs, function.n
    lifted = torch.randn(E, n * rows, parts.gram.shape[1])
    shifted = lifted.view(E * n, rows, -1)[..., :-1].contiguous()
    q, phase = torch.empty(E, n * rows, parts.gram.shape[2]), torch.empty(E * n, rows, parts.shifted.shape[2])
    prior, mean = torch.empty(E * n, 1, rows), torch.empty(E * n, 1, rows)

    def evaluate() -> None:
        for _ in range(steps):
            torch.bmm(lifted, parts.gram, out=q)
            torch.bmm(shifted, parts.shifted, out=phase)
            torch.bmm(parts.amplitude, phase.cos_().mT, out=prior)
            torch.bmm(parts.update, q.clamp_max_(0).exp2_().view(E * n, rows, -1).mT, out=mean)

    return evaluate


def measure_gp(acceptance: Acceptance, rounds: int) -> None:
    """A plan over pathwise draws of an exact GP on 300 rows, against its own products, exponentials and cosines alone."""
    planner, draws = CEM(horizon=15, candidates=100, elites=10, iterations=3), 10
    model = fitted(ExactGP(), 300)
    function = model.posterior.sample(draws, torch.Generator().manual_seed(0)).to(dtype=torch.float32)
    # The first step, shared by all draws, is left out of the floor.
    floor = gp_floor(function, planner.candidates, planner.iterations * (planner.horizon - 1))
    with torch.no_grad():
        seconds = in_turn({"ours": make_plan(model, planner, draws=draws, particles=1), "floor": floor}, rounds)
    figures = ratios(seconds["ours"], seconds["floor"])
    acceptance.below(f"time of a GP's plan, N = 300, {draws} draws / its products, exponentials and cosines", figures, 2, " x")
    acceptance.inform("one CEM plan, GP, 100 x 10 x 15 x 3", seconds["ours"], " s")


def measure_batch(acceptance: Acceptance, model: bd.DynamicsModel, rounds: int) -> None:
    """One plan for 64 environments against 64 plans for one, and whether both decide the same."""
    planner, batch = CEM(horizon=15, candidates=50, elites=5, iterations=3), 64
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        options = {"draws": MEMBERS, "particles": 1, "dtype": dtype}
        agent, together = bd.MPC(model, planner, REWARD, **options), make_plan(model, planner, batch, **options)

        def one_by_one(agent: bd.MPC = agent) -> Tensor:
            actions = []
            for state in start_states(batch):
                agent.reset(BOX, generator=torch.Generator().manual_seed(0))
                actions.append(agent.act(state))
            return torch.stack(actions)

        difference = (together() - one_by_one()).abs().max().item() / (2 * FORCE_LIMIT)
        acceptance.below(
            f"largest difference of {batch} plans at once to one by one, over the range of actions, {dtype}", [difference], bound
        )
    seconds = in_turn({"singles": one_by_one, "batch": together}, rounds)
    figures = ratios(seconds["singles"], seconds["batch"])
    acceptance.above(f"time of {batch} single plans / one plan for {batch} environments, float32", figures, 1, " x")


def measure_threads(acceptance: Acceptance, model: bd.DynamicsModel, rounds: int) -> None:
    """The wall clock of one plan on several threads; other programs on the machine disturb these figures most."""
    plan = make_plan(model)

    def on(threads: int) -> Callable[[], object]:
        def call() -> object:
            torch.set_num_threads(threads)
            try:
                return plan()
            finally:
                torch.set_num_threads(1)

        return call

    for said, wrap in (("compiled kernel", lambda call: call), ("torch alone", without_kernel)):
        seconds = in_turn({str(count): wrap(on(count)) for count in (1, 2, 4)}, rounds, time.perf_counter)
        for count in ("2", "4"):
            figures = ratios(seconds["1"], seconds[count])
            acceptance.inform(f"wall clock on one thread / on {count}, one CEM plan, {said}", figures, " x")


def measure(acceptance: Acceptance, quick: bool) -> None:
    torch.set_num_threads(1)
    try:
        print(f"compiled kernel: {build().name}")
    except ConfigurationError as error:
        print(error)
    rounds, rows = (2, 1000) if quick else (5, 2000)
    model = fitted(BootstrapEnsemble(MEMBERS, HIDDEN, training=Training(steps=300 if quick else 800)), rows)
    measure_ensemble(acceptance, model, rounds)
    measure_bfloat16(acceptance, model, rounds)
    measure_dropout(acceptance, model, rows, rounds)
    measure_gp(acceptance, rounds)
    measure_batch(acceptance, model, rounds // 2)
    measure_threads(acceptance, model, rounds // 2)


if __name__ == "__main__":
    main("planning", measure, __doc__ or "")
