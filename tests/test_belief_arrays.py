"""Maps on arrays and the chain of steps on them, against the same maps as operations of torch."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

import bayesdyn as bd
from bayesdyn.belief_arrays import fit_for_arrays
from bayesdyn.belief_dynamics import Belief, BeliefDynamics, propagate
from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.moments import Columns, Lift, Linear, Sine, SquashSat, SquashSin
from bayesdyn.policies import LinearPolicy, OnFeatures, Policy, RBFPolicy, Squashed

F64 = torch.float64
INPUTS = {1: [5, 0, 3, 4, 1], 2: [7, 0, 3, 6, 4]}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def belief(size: int, batch: tuple[int, ...] = (), seed: int = 0) -> Belief:
    root = torch.randn(*batch, size, size, generator=generator(seed), dtype=F64)
    return Belief(torch.randn(*batch, size, generator=generator(seed + 1), dtype=F64), 0.1 * root @ root.mT)


def policy(kind: str, angles: tuple[int, ...] = (2,)) -> Policy:
    size = 3 + len(angles)
    linear = LinearPolicy.random(size, 1, generator(2))
    radial = RBFPolicy.random(7, 1, *belief(size, seed=5), generator(2), [1.0, 1.0, 0.7, 0.7, 0.7][:size])
    return Squashed(OnFeatures({"linear": linear, "radial": radial}[kind], 3, angles), SquashSat(2.0))


def dynamics(absolute: tuple[int, ...] = (), angles: tuple[int, ...] = (2,), relative: Mapping[int, int] = {}) -> BeliefDynamics:
    """A Gaussian process of three coordinates, the last an angle, without hyper-parameters to be trained."""
    x = torch.randn(30, 5, generator=generator(3), dtype=F64)
    y = 0.3 * torch.randn(30, 3, generator=generator(4), dtype=F64)
    values = (1.5 + torch.rand(3, 5, generator=generator(), dtype=F64), torch.ones(3, dtype=F64), torch.full((3,), 0.01, dtype=F64))
    change = bd.posteriors.ExactGP.from_hyperparameters(x, y, *values).moment_map(process_noise=True)
    return BeliefDynamics(
        change, state_size=3, action_size=1, inputs=INPUTS[len(angles)], angles=angles, absolute=absolute, relative=relative
    )


class TorchOnly(MomentMap):
    """The same map, which says nothing of arrays."""

    def __init__(self, inner: MomentMap) -> None:
        self.inner = inner

    def moments(self, mean: torch.Tensor, cov: torch.Tensor) -> Moments:
        return self.inner.moments(mean, cov)


def slopes(answer: tuple[torch.Tensor, ...], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = generator(9)
    total = sum((torch.randn(part.shape, generator=weights, dtype=F64) * part).sum() for part in answer)
    return list(torch.autograd.grad(total, inputs, retain_graph=True))


MAPS = {
    "lift": Lift(4, [2, 0]),
    "lift of differences": Lift(4, [2], [(0, 1), (3, 2)]),
    "sine": Sine(torch.randn(4, 4, generator=generator(1), dtype=F64), torch.rand(2, 4, generator=generator(), dtype=F64)),
    "squash": SquashSin([1.0, 2.0, 3.0, 4.0]),
    "columns": Columns([2, 0, 2], 4),
    "chain": Columns([2, 0], 4).then(SquashSat(2.0)).then(Lift(2, [1])),
    "linear": LinearPolicy.random(4, 2, generator()).prepared(),
    "radial": RBFPolicy.random(7, 2, *belief(4), generator()).prepared(),
    "joined": RBFPolicy.random(7, 2, *belief(4), generator()).prepared().joined(SquashSat(1.0)),
    "gp": bd.posteriors.ExactGP.from_hyperparameters(
        torch.randn(9, 4, generator=generator(), dtype=F64),
        torch.randn(9, 2, generator=generator(), dtype=F64),
        torch.ones(2, 4, dtype=F64),
        torch.ones(2, dtype=F64),
        torch.full((2,), 0.01, dtype=F64),
    ).moment_map(process_noise=True),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_on_arrays_is_the_map(name: str) -> None:
    arrays = MAPS[name].on_arrays()
    assert arrays is not None
    inputs = [t.requires_grad_() for t in belief(4, (3,))]
    ours, torchs = arrays.at(*inputs), MAPS[name].moments(*inputs)
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    wanted = [*inputs, *arrays.parameters]
    for one, other in zip(slopes(ours, wanted), slopes(tuple(torchs), wanted), strict=True):
        other = 0.5 * (other + other.mT) if other.shape == (3, 4, 4) else other
        one = 0.5 * (one + one.mT) if one.shape == (3, 4, 4) else one
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["linear", "radial"])
@pytest.mark.parametrize(
    "options",
    [{}, {"absolute": (1,)}, {"angles": (2, 1), "relative": {2: 1}}, {"relative": {0: 1}}],
    ids=["differences", "absolute", "an angle between angles", "a speed between speeds"],
)
@pytest.mark.parametrize("batch", [(), (2,)], ids=["one", "two"])
def test_a_path_on_arrays_is_the_path_in_torch(kind: str, options: dict[str, Any], batch: tuple[int, ...]) -> None:
    moving, chosen = dynamics(**options), policy(kind, options.get("angles", (2,)))
    start = Belief(*(t.requires_grad_() for t in belief(3, batch)))
    inputs = [*start, *chosen.parameters()]
    found = []
    for control in (chosen.on_lifted(moving.lift), TorchOnly(chosen.on_lifted(moving.lift))):
        assert (moving.on_arrays(control) is None) == isinstance(control, TorchOnly)
        path = propagate(moving, control, start, 3)
        found.append([*path, *slopes(path, inputs)])
    for one, other in zip(*found, strict=True):
        one, other = (0.5 * (t + t.mT) if t.shape == start.cov.shape else t for t in (one, other))
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10 * float(other.detach().abs().max()))


def test_without_gradients_the_path_is_the_same() -> None:
    moving, chosen, start = dynamics(), policy("radial"), belief(3)
    path = propagate(moving, chosen.on_lifted(moving.lift), start, 3)
    with torch.no_grad():
        same = propagate(moving, chosen.on_lifted(moving.lift), start, 3)
    assert path.mean.requires_grad
    assert not same.mean.requires_grad
    torch.testing.assert_close(same.mean, path.mean.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(same.cov, path.cov.detach(), rtol=1e-12, atol=1e-14)


def test_no_steps_leave_the_start() -> None:
    moving, start = dynamics(), belief(3)
    path = propagate(moving, policy("linear").on_lifted(moving.lift), start, 0)
    torch.testing.assert_close(path.mean, start.mean[None])


def test_only_float64_on_the_cpu_goes_by_arrays() -> None:
    assert fit_for_arrays(torch.zeros(2, dtype=F64))
    assert not fit_for_arrays(torch.zeros(2, dtype=F64), torch.zeros(2))
    assert Linear(torch.ones(1, 2), torch.zeros(1)).on_arrays() is None
    assert TorchOnly(Lift(2, [0])).then(Lift(4, [0])).on_arrays() is None


def test_what_does_not_fit_is_refused() -> None:
    moving, start = dynamics(), belief(3)
    two = LinearPolicy.random(5, 2, generator()).prepared()
    with pytest.raises(ShapeError, match="1 controls"):
        propagate(moving, two, start, 2)
    with pytest.raises(ShapeError, match="linear map"):
        propagate(moving, LinearPolicy.random(3, 1, generator()).prepared(), start, 2)
    broken = Belief(start.mean, start.cov * torch.nan)
    with pytest.raises(NumericalError, match="belief"):
        propagate(moving, policy("linear").on_lifted(moving.lift), broken, 2)


def test_it_is_differentiable_once() -> None:
    moving, chosen = dynamics(), policy("linear")
    path = propagate(moving, chosen.on_lifted(moving.lift), belief(3), 2)
    with pytest.raises(ConfigurationError, match="once"):
        torch.autograd.grad(path.mean.sum(), list(chosen.parameters()), create_graph=True)
