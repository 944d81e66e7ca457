"""A ball on a ridge that its model has not seen, and a boat in a current that is known to a centimetre a step."""

import torch
from torch import Tensor

import bayesdyn as bd

ROWS = 40
_TOP = torch.linspace(-0.5, 0.5, 1001, dtype=torch.float64).unsqueeze(1)


def valleys(y: Tensor, push: Tensor) -> bd.Gaussian:
    """Return where a ball goes that rolls off a ridge at 0 m into valleys at ±1 m."""
    return bd.Gaussian(y + 0.4 * (y - y**3) + 0.1 * push, torch.full_like(y + push, 0.02**2))


def reward(y: Tensor, push: Tensor, next_y: Tensor) -> Tensor:
    """Return how far right the ball is, less what the push costs."""
    return next_y[..., 0] - 0.3 * push[..., 0].square()


def learned(seed: int, rows: int = ROWS) -> tuple[bd.DynamicsModel, bd.Transitions]:
    """Return a Gaussian process that has seen both valleys, 0.6 m and more from the ridge, and what it has seen."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, rows, 1, generator=generator, dtype=torch.float64)
    y, push = (0.6 + 0.7 * draw[0]) * torch.tensor([1.0, -1.0]).repeat(rows // 2).unsqueeze(1), 2 * draw[1] - 1
    data = bd.Transitions.from_arrays(y, push, valleys(y, push).sample(torch.randn(rows, 1, generator=generator, dtype=y.dtype)))
    model = bd.DynamicsModel(bd.Codec(), bd.posteriors.ExactGP())
    model.fit(data)
    return model, data


def balance(model: bd.DynamicsModel) -> Tensor:
    """Return where the ball would stay, for all that the mean of the model says, [1]."""
    return _TOP[(model.predict(_TOP, 0 * _TOP).mean - _TOP).abs().argmin()]


def current(draws: int, seed: int) -> bd.PlainDynamics:
    """Return draws of s' = s + c, four measurements of c, ± 0.02 m a step, having left p(c | D) = N(their mean, 0.01²)."""
    normal = torch.randn(4 + draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    c = 0.02 * normal[:4].mean() + 0.01 * normal[4:]

    def step(s: Tensor, action: Tensor) -> bd.Gaussian:
        mean = s + c.reshape(-1, *(1,) * (s.dim() - 1))
        return bd.Gaussian(mean, torch.zeros_like(mean))

    return bd.PlainDynamics(step, draws)
