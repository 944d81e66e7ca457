"""Chains of moment maps and changes of units, against linear maps, whose moments are known."""

import numpy as np
import pytest
import torch

from bayesdyn.beliefs import MomentMap, Moments, check_belief
from bayesdyn.errors import ConfigurationError, ShapeError


class Affine(MomentMap):
    def __init__(self, weight: torch.Tensor, offset: torch.Tensor) -> None:
        self.weight, self.offset = weight, offset

    def moments(self, mean: torch.Tensor, cov: torch.Tensor) -> Moments:
        gain = self.weight.mT.expand(*mean.shape[:-1], *self.weight.mT.shape)
        return Moments(mean @ self.weight.mT + self.offset, self.weight @ cov @ self.weight.mT, gain)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def belief(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    root = draw(5, size, size, seed=9)
    return draw(5, size, seed=8), root @ root.mT


def test_a_chain_of_affine_maps_is_the_affine_map_of_the_product():
    first, second = Affine(draw(4, 3), draw(4, seed=1)), Affine(draw(2, 4, seed=2), draw(2, seed=3))
    whole = Affine(second.weight @ first.weight, second.weight @ first.offset + second.offset)
    for ours, known in zip(first.then(second).moments(*belief(3)), whole.moments(*belief(3)), strict=True):
        torch.testing.assert_close(ours, known)


def test_rescaling_undoes_a_whitening():
    inner = Affine(draw(2, 3), draw(2, seed=1))
    x_mean, x_std, y_mean, y_std = draw(3, seed=2), draw(3, seed=3).exp(), draw(2, seed=4), draw(2, seed=5).exp()
    weight = y_std[:, None] * inner.weight / x_std
    whole = Affine(weight, y_mean + y_std * inner.offset - weight @ x_mean)
    rescaled = inner.rescaled(x_mean, x_std, y_mean, y_std)
    for ours, known in zip(rescaled.moments(*belief(3)), whole.moments(*belief(3)), strict=True):
        torch.testing.assert_close(ours, known)


@pytest.mark.parametrize(("mean", "cov"), [((2,), (3, 3)), ((3,), (3,)), ((4, 3), (3, 3))])
def test_beliefs_of_the_wrong_shape_are_refused(mean: tuple[int, ...], cov: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"mean \[..., 3\] and cov \[..., 3, 3\]"):
        check_belief(torch.zeros(mean), torch.zeros(cov), 3, "a map of 3 inputs")


@pytest.mark.parametrize("kinds", [(torch.int64, torch.int64), (torch.float32, torch.float64), (torch.int64, torch.float32)])
def test_beliefs_of_whole_numbers_or_of_two_kinds_are_refused(kinds: tuple[torch.dtype, torch.dtype]):
    """An affine map would round its weights to whole numbers, a Gaussian process its answer."""
    with pytest.raises(ConfigurationError, match="both float64 or both float32"):
        check_belief(torch.zeros(3, dtype=kinds[0]), torch.zeros(3, 3, dtype=kinds[1]), 3, "a map of 3 inputs")
    check_belief(np.zeros(3), np.zeros((3, 3)), 3, "a map of 3 inputs")
