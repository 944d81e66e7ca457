"""Networks without their dropped units: smaller weights in the place of masks."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_MULTIPLE = 16  # widths that matrix products take in one go


def cut_out(
    weights: Sequence[Float[Tensor, "1 _ _"]],
    biases: Sequence[Float[Tensor, "1 1 _"]],
    masks: Sequence[Float[Tensor, "n 1 _"]],
) -> tuple[list[Float[Tensor, "n _ _"]], list[Float[Tensor, "_ 1 _"]]]:
    """Return weights and biases of n networks without the units that the masks drop, their factors multiplied into what follows.

    Layers shrink to the most units that a network keeps, rounded up to a multiple of 16.

    >>> mask = torch.tensor([[[0.0] * 30 + [2.0] * 10]])
    >>> weights, _ = cut_out([torch.ones(1, 3, 40), torch.ones(1, 40, 1)], [torch.zeros(1, 1, 40), torch.zeros(1, 1, 1)], [mask])
    >>> weights[1].shape, weights[1].sum().item()
    (torch.Size([1, 16, 1]), 20.0)
    """
    n = masks[0].shape[0]
    thin, thin_biases = [weight.expand(n, -1, -1) for weight in weights], list(biases)
    for layer, mask in enumerate(masks):
        units, factor = _kept_units(mask.squeeze(1))
        columns = units.unsqueeze(1)
        thin[layer] = thin[layer].gather(2, columns.expand(-1, thin[layer].shape[1], -1))
        thin_biases[layer] = biases[layer].expand(n, -1, -1).gather(2, columns)
        following = thin[layer + 1]
        thin[layer + 1] = factor.unsqueeze(2) * following.gather(1, units.unsqueeze(2).expand(-1, -1, following.shape[2]))
    return thin, thin_biases


def _kept_units(mask: Float[Tensor, "n width"]) -> tuple[Tensor, Tensor]:
    """Return the indices of kept units and their factors, both [n, k]: kept ones first, the rest has a factor of 0."""
    most = int((mask != 0).sum(1).max())
    width = min(mask.shape[1], _MULTIPLE * -(-max(most, 1) // _MULTIPLE))
    units = (mask == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    return units, mask.gather(1, units)
