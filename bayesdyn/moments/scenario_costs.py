"""The costs of the six PILCO scenarios, as moment maps of the lifted state [s, sin θ1, cos θ1, ...].

Each is a saturating cost of a distance, in metres, between the tip and where it should be, divided by a width; several widths are
averaged and `exploration` times the cost's std is added (`Average`). States are those of the plants in `bayesdyn.envs`. Defaults
are the constants of UCL-SML/pilco-matlab; where these do not fit the plant, names that end in `_true_lengths` have those that do.
Source: Deisenroth, Fox & Rasmussen, PAMI 2015, section 6; rows and constants of UCL-SML/pilco-matlab.
"""

from collections.abc import Sequence
from math import pi, sqrt

import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.moments.affine import Linear
from bayesdyn.moments.combined_costs import Average, CostOf
from bayesdyn.moments.costs import Cost, SaturatingCost
from bayesdyn.moments.lift import Lift

Widths = float | Sequence[float]


def pendulum_cost(widths: Widths = 0.5, exploration: float = 0.0, *, length: float = 1.0) -> Cost:
    """Return the cost of the pendulum's tip off upright, of [θ̇, θ, sin θ, cos θ], θ = 0 hanging.

    >>> import torch
    >>> pendulum_cost()(torch.tensor([0.0, 0.0, 0.0, -1.0])).item()
    0.0
    """
    rows = [[0.0, 0.0, length, 0.0], [0.0, 0.0, 0.0, length]]
    return saturating([0.0, pi, 0.0, -1.0], rows, widths, exploration)


def cart_pole_cost(widths: Widths = 0.25, exploration: float = 0.0, *, length: float = 0.5) -> Cost:
    """Return the cost of the pole's tip off upright above x = 0, of [x, ẋ, θ̇, θ, sin θ, cos θ], θ = 0 hanging.

    >>> import torch
    >>> cart_pole_cost()(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -1.0])).item()
    0.0
    """
    rows = [[1.0, 0.0, 0.0, 0.0, length, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, length]]
    return saturating([0.0, 0.0, 0.0, pi, 0.0, -1.0], rows, widths, exploration)


def double_pendulum_cost(widths: Widths = 0.5, exploration: float = 0.0, *, lengths: tuple[float, float] = (0.5, 0.5)) -> Cost:
    """Return the cost of the outer tip off upright, of [θ̇1, θ̇2, θ1, θ2, sin θ1, cos θ1, sin θ2, cos θ2], θ = 0 upright.

    >>> import torch
    >>> double_pendulum_cost()(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0])).item()
    0.0
    """
    first, second = lengths
    rows = [[0.0] * 4 + [first, 0.0, second, 0.0], [0.0] * 4 + [0.0, first, 0.0, second]]
    return saturating([0.0] * 4 + [0.0, 1.0, 0.0, 1.0], rows, widths, exploration)


def pendubot_cost(widths: Widths = 0.25, exploration: float = 0.0, *, lengths: tuple[float, float] = (0.5, 0.5)) -> Cost:
    """Return the cost of the pendubot's outer tip: that of the double pendulum, with half its width.

    >>> import torch
    >>> pendubot_cost()(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0])).item()
    0.0
    """
    return double_pendulum_cost(widths, exploration, lengths=lengths)


def cart_double_pendulum_cost(widths: Widths = 0.5, exploration: float = 0.0, *, lengths: tuple[float, float] = (1.0, 1.0)) -> Cost:
    """Return the cost of the outer tip off upright above x = 0, of [x, ẋ, θ̇1, θ̇2, θ1, θ2, sin θ1, cos θ1, sin θ2, cos θ2].

    θ = 0 is upright. The official lengths are 1 m, although the plant's links have 0.6 m.

    >>> import torch
    >>> cart_double_pendulum_cost()(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0])).item()
    0.0
    """
    first, second = lengths
    rows = [[1.0, *[0.0] * 5, -first, 0.0, -second, 0.0], [0.0] * 6 + [0.0, first, 0.0, second]]
    return saturating([0.0] * 6 + [0.0, 1.0, 0.0, 1.0], rows, widths, exploration)


def cart_double_pendulum_cost_true_lengths(widths: Widths = 0.5, exploration: float = 0.0) -> Cost:
    """Return the cost of the cart double pendulum for the links of 0.6 m that the plant has.

    >>> import torch
    >>> hanging = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, -1.0]])
    >>> bool(cart_double_pendulum_cost_true_lengths()(hanging) < cart_double_pendulum_cost()(hanging))
    True
    """
    return cart_double_pendulum_cost(widths, exploration, lengths=(0.6, 0.6))


def unicycle_cost(
    widths: Widths = 1.0, exploration: float = 0.0, *, wheel_radius: float = 0.22, frame_length: float = 0.81
) -> Cost:
    r"""Return the cost of a unicycle that leans, leaves the origin or turns, of [θ̇, φ̇, ψ̇w, ψ̇f, ψ̇t, xc, yc, θ, φ, ψf].

    This state is not lifted: the policy sees the bare angles, and the cost takes the sines and cosines it wants. Its rows, with
    wheel radius rw and frame length r, and a target of 1 for cosines and 0 for the rest:

        √8 [rw cos θ + ½ r cos(θ - ψf) + ½ r cos(θ + ψf)],  √½ [xc - r sin ψf],  √½ [yc - (r + rw) sin θ],  φ/(4π)

    The official radius is 0.22 m, although the plant's wheel has 0.225 m.

    >>> import torch
    >>> unicycle_cost()(torch.zeros(10)).item()
    0.0
    """
    roll, yaw, pitch, across, ahead = 7, 8, 9, 6, 5
    size = 10
    both = [[float(i == j) for j in range(size)] for i in range(size)]
    for sign in (-1.0, 1.0):
        both.append([1.0 if j == roll else sign if j == pitch else 0.0 for j in range(size)])
    # [s, θ - ψf, θ + ψf], then sin θ, cos θ, sin ψf, cos ψf, and sine and cosine of the two sums.
    features = Linear(both).joined(Lift(size + 2, [roll, pitch, size, size + 1]))
    sin_roll, cos_roll, sin_pitch, cos_minus, cos_plus = 12, 13, 14, 17, 19
    rows = [
        {cos_roll: sqrt(8) * wheel_radius, cos_minus: sqrt(2) * frame_length, cos_plus: sqrt(2) * frame_length},
        {ahead: sqrt(0.5), sin_pitch: -sqrt(0.5) * frame_length},
        {across: sqrt(0.5), sin_roll: -sqrt(0.5) * (frame_length + wheel_radius)},
        {yaw: 1 / (4 * pi)},
    ]
    target = [1.0 if i in (cos_roll, cos_minus, cos_plus) else 0.0 for i in range(20)]
    return CostOf(features, saturating(target, [[row.get(i, 0.0) for i in range(20)] for row in rows], widths, exploration))


def unicycle_cost_true_lengths(widths: Widths = 1.0, exploration: float = 0.0) -> Cost:
    """Return the cost of the unicycle for the wheel radius, 0.225 m, and frame length, 0.81 m, that the plant has.

    >>> import torch
    >>> unicycle_cost_true_lengths()(torch.zeros(10)).item()
    0.0
    """
    return unicycle_cost(widths, exploration, wheel_radius=0.225)


def saturating(target: list[float], rows: list[list[float]], widths: Widths, exploration: float) -> Cost:
    """Return the saturating cost of |F (x - z)| / width for target z and rows F, averaged over widths.

    Raises `ConfigurationError` unless there are widths and all are positive.

    >>> import torch
    >>> round(saturating([0.0], [[1.0]], 1.0, 0.0)(torch.ones(1)).item(), 4)
    0.3935
    """
    each = torch.as_tensor(widths, dtype=torch.float64).reshape(-1).tolist()
    if not (each and min(each) > 0):
        raise ConfigurationError(f"widths are positive, one or more; got {widths}")
    return Average([SaturatingCost(target, [[value / width for value in row] for row in rows]) for width in each], exploration)
