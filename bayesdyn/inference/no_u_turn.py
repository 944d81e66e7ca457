"""The No-U-Turn sampler for many chains in step: one batched gradient serves them all."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.inference.chain_adaptation import DenseMetric, DiagonalMetric, Metric, StepSize, metric_windows
from bayesdyn.progress import Progress

_DIVERGED = 1000.0  # an energy error at which the integrator has left the surface (Hoffman & Gelman 2014)
_REPORTS = 200
_EARLY_DEPTH = 6  # before the metric knows the scales, long trajectories cost much and lead nowhere


@dataclass(frozen=True)
class Chains:
    """What a run kept: `z` [C, draws, P]; divergences, mean acceptance and step size of each chain."""

    z: Float[Tensor, "C draws P"]
    divergences: Int[Tensor, " C"]
    acceptance: Float[Tensor, " C"]
    step_size: Float[Tensor, " C"]


class Point(NamedTuple):
    """A place on the energy surface, in coordinates u in which the metric is the identity: H = -log p(u) + |r|²/2."""

    u: Float[Tensor, "C P"]
    momentum: Float[Tensor, "C P"]
    gradient: Float[Tensor, "C P"]  # of log p
    log_density: Float[Tensor, " C"]


class Subtree(NamedTuple):
    """2^j new points beyond one edge of the trajectory, with one of them drawn in proportion to exp(-H)."""

    edge: Point
    proposal: Point
    momentum_sum: Float[Tensor, "C P"]
    log_weight: Float[Tensor, " C"]
    alive: Bool[Tensor, " C"]  # neither turned nor diverged


class NoUTurn:
    r"""Hamiltonian Monte Carlo whose trajectories double, forwards or backwards, until they turn back, for C chains in step.

        turned: (ρ - (r₋ + r₊)/2)·r₋ <= 0 or the same with r₊,   ρ = Σ r along the trajectory

    The next state is drawn from the trajectory in proportion to exp(-H), with a bias to the newer half. All chains double at once
    and those that are done wait, so that one call of `log_density` (z [C, P] -> [C]) moves every chain. U-turns within a half are
    found with log₂ of its length stored momenta. Everything random comes from the generator passed in.

    Sources: Hoffman, Gelman 2014 (NUTS, dual averaging); Betancourt 2017, appendix A (multinomial sampling, the criterion);
    Phan, Pradhan, Jankowiak 2019 (the iterative form).

    >>> sampler = NoUTurn(lambda z: -0.5 * z.square().sum(-1))
    >>> chains = sampler.run(torch.zeros(2, 3), 50, 20, torch.Generator().manual_seed(0))
    >>> chains.z.shape
    torch.Size([2, 20, 3])
    """

    def __init__(
        self,
        log_density: Callable[[Tensor], Tensor],
        *,
        target_accept: float = 0.8,
        full_mass: bool = False,
        max_tree_depth: int = 10,
    ) -> None:
        self.log_density, self.max_tree_depth = log_density, max_tree_depth
        self.target_accept, self.full_mass = target_accept, full_mass

    def run(
        self,
        start: Float[Tensor, "C P"],
        warmup: int,
        draws: int,
        generator: torch.Generator,
        progress: Progress | None = None,
        metric: Metric | None = None,
    ) -> Chains:
        """Take `warmup` transitions that adapt step sizes and metric, then `draws` that are kept.

        `metric` is where the metric starts from; None is the identity, which is slow where scales differ much.
        """
        ones = torch.ones_like(start[0])
        metric = metric or (DenseMetric(ones.diag()) if self.full_mass else DiagonalMetric(ones))
        point = self._at(metric, metric.whiten(start), start.new_zeros(start.shape))
        step = StepSize(self._first_step(metric, point, generator), self.target_accept)
        windows = metric_windows(warmup)
        first_window = windows.ends[0] if windows.ends else 0
        seen: list[Tensor] = []
        kept: list[Tensor] = []
        divergences = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        acceptance, every = start.new_zeros(len(start)), max(1, (warmup + draws) // _REPORTS)
        for done in range(1, warmup + draws + 1):
            depth = min(self.max_tree_depth, _EARLY_DEPTH) if done <= first_window else self.max_tree_depth
            point, accepted, diverged = self._transition(metric, point, step.current, depth, generator)
            if done <= warmup:
                step.update(accepted)
                if done in windows.adapting:
                    seen.append(metric.unwhiten(point.u))
                if done in windows.ends:
                    z, metric = seen[-1], metric.adapted(torch.cat(seen))
                    seen = []
                    point = self._at(metric, metric.whiten(z), point.momentum)
                    step.restart(self._first_step(metric, point, generator))
                if done == warmup:
                    step.freeze()
            else:
                kept.append(metric.unwhiten(point.u))
                divergences += diverged
                acceptance += accepted / draws
            if progress is not None and (done % every == 0 or done == warmup + draws):
                figures = {"acceptance": float(accepted.mean()), "divergences": float(divergences.sum())}
                progress(done, warmup + draws, figures)
        return Chains(torch.stack(kept, 1), divergences, acceptance, step.current)

    @torch.no_grad()
    def transitions(
        self, start: Float[Tensor, "C P"], step_size: float, count: int, generator: torch.Generator
    ) -> Float[Tensor, "C P"]:
        """Return where `count` transitions of a fixed step size lead, without any adaptation: they leave the target invariant."""
        metric, step = DiagonalMetric(torch.ones_like(start[0])), torch.full_like(start[:, 0], step_size)
        point = self._at(metric, start, torch.zeros_like(start))
        for _ in range(count):
            point, _, _ = self._transition(metric, point, step, self.max_tree_depth, generator)
        return point.u

    def _at(self, metric: Metric, u: Tensor, momentum: Tensor) -> Point:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            log_density = self.log_density(metric.unwhiten(u))
            (gradient,) = torch.autograd.grad(log_density.sum(), u)
        return Point(u.detach(), momentum, gradient, log_density.detach())

    def _leapfrog(self, metric: Metric, point: Point, step: Tensor) -> Point:
        half = torch.addcmul(point.momentum, point.gradient, 0.5 * step)
        after = self._at(metric, torch.addcmul(point.u, half, step), half)
        return after._replace(momentum=torch.addcmul(half, after.gradient, 0.5 * step))

    def _transition(
        self, metric: Metric, point: Point, step: Tensor, max_depth: int, generator: torch.Generator
    ) -> tuple[Point, Tensor, Tensor]:
        """Return the next state of each chain, the mean acceptance along its trajectory and whether that diverged."""
        point = point._replace(momentum=_normal(point.u, generator))
        energy = _energy(point)
        count, accepted = torch.zeros_like(energy), torch.zeros_like(energy)
        left = right = proposal = point
        momentum_sum, log_weight = point.momentum, torch.zeros_like(energy)
        going, diverged = torch.ones_like(energy, dtype=torch.bool), torch.zeros_like(energy, dtype=torch.bool)
        for depth in range(max_depth):
            forwards = _uniform(energy, generator) < 0.5
            signed = (torch.where(forwards, 1.0, -1.0) * step).unsqueeze(1)
            tree = _Leaves(energy, going, count, accepted, diverged)
            subtree = self._extend(metric, _choose(forwards, right, left), signed, 2**depth, tree, generator)
            count, accepted, diverged = tree.count, tree.accepted, tree.diverged
            newer = subtree.alive & (_uniform(energy, generator).log() < subtree.log_weight - log_weight)
            proposal = _choose(newer, subtree.proposal, proposal)
            left, right = _choose(forwards, left, subtree.edge), _choose(forwards, subtree.edge, right)
            momentum_sum = momentum_sum + subtree.momentum_sum
            log_weight = torch.logaddexp(log_weight, subtree.log_weight)
            going = subtree.alive & ~_turned(left.momentum, right.momentum, momentum_sum)
            if not bool(going.any()):
                break
        return proposal, accepted / count, diverged

    def _extend(
        self, metric: Metric, edge: Point, step: Tensor, length: int, tree: "_Leaves", generator: torch.Generator
    ) -> Subtree:
        """Integrate `length` steps beyond an edge; chains whose tree is done, has turned or diverged are carried along unused."""
        alive, momentum_sum = tree.going, torch.zeros_like(edge.momentum)
        log_weight, proposal = torch.full_like(tree.energy, -math.inf), edge
        stored: dict[int, tuple[Tensor, Tensor]] = {}
        for leaf in range(length):
            edge = self._leapfrog(metric, edge, step)
            weight = tree.add(edge, alive)
            alive = alive & ~tree.diverged
            momentum_sum = momentum_sum + edge.momentum
            log_weight = torch.logaddexp(log_weight, weight)
            proposal = _choose(_uniform(weight, generator).log() < weight - log_weight, edge, proposal)
            # Binary digits of the leaf say which balanced subtrees end with it (odd) or begin at it (even).
            slot = (leaf >> 1).bit_count()
            if leaf % 2 == 0:
                stored[slot] = (edge.momentum, momentum_sum)
                continue
            ending = (~leaf & (leaf + 1)).bit_length() - 1
            for first in range(slot, slot - ending, -1):
                momentum, before = stored[first]
                alive = alive & ~_turned(momentum, edge.momentum, momentum_sum - before + momentum)
            if not bool(alive.any()):
                break
        return Subtree(edge, proposal, momentum_sum, log_weight, alive)

    def _first_step(self, metric: Metric, point: Point, generator: torch.Generator) -> Float[Tensor, " C"]:
        """Return the power of two at which one step is accepted with a probability that crosses 0.8, for each chain."""
        point = point._replace(momentum=_normal(point.u, generator))
        energy, step = _energy(point), torch.ones_like(point.log_density)
        direction = torch.zeros_like(step)
        for _ in range(60):
            error = _energy(self._leapfrog(metric, point, step.unsqueeze(1))) - energy
            wanted = torch.where(error < -math.log(0.8), 1.0, -1.0)  # false for NaN
            direction = torch.where(direction == 0, wanted, direction)
            moving = wanted == direction
            if not bool(moving.any()):
                break
            step = torch.where(moving, step * 2.0**direction, step)
        return step


class _Leaves:
    """Counts over the points of one trajectory: how many, how well accepted, and whether one diverged."""

    def __init__(self, energy: Tensor, going: Tensor, count: Tensor, accepted: Tensor, diverged: Tensor) -> None:
        self.energy, self.going, self.count, self.accepted, self.diverged = energy, going, count, accepted, diverged

    def add(self, point: Point, alive: Tensor) -> Float[Tensor, " C"]:
        """Count a point of the chains that are alive, and return its log weight H₀ - H."""
        weight = (self.energy - _energy(point)).nan_to_num(-math.inf, math.inf, -math.inf)
        self.count = self.count + alive
        self.accepted = self.accepted + torch.where(alive, weight.clamp_max(0.0).exp(), 0.0)
        self.diverged = self.diverged | (alive & (weight < -_DIVERGED))
        return weight


def _energy(point: Point) -> Float[Tensor, " C"]:
    return 0.5 * point.momentum.square().sum(1) - point.log_density


def _turned(one: Tensor, other: Tensor, total: Tensor) -> Bool[Tensor, " C"]:
    rho = total - 0.5 * (one + other)
    return ((rho * one).sum(1) <= 0) | ((rho * other).sum(1) <= 0)


def _choose(first: Tensor, a: Point, b: Point) -> Point:
    wide = first.unsqueeze(1)
    u, momentum, gradient = (torch.where(wide, x, y) for x, y in zip(a[:3], b[:3], strict=True))
    return Point(u, momentum, gradient, torch.where(first, a.log_density, b.log_density))


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)
