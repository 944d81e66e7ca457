"""The hand of a seven-joint arm (pan, lift, roll, elbow, roll, wrist, roll), as Reacher3D and the pusher have it."""

import torch
from jaxtyping import Float
from torch import Tensor

SHOULDER, UPPER_ARM, FOREARM = 0.1, 0.4, 0.321  # metres, kchua/handful-of-trials, env/reacher.py


def hand_position(joints: Float[Tensor, "*batch J"], base: float, hand: float) -> Float[Tensor, "*batch 3"]:
    r"""Return the point `hand` metres in front of the wrist in metres, from the joint angles q (rad; at least six of them).

        (0, base, 0) + Rz(q1) [.1 x̂ + Ry(q2) Rx(q3) (.4 x̂ + Ry(q4) Rx(q5) (.321 x̂ + Ry(q6) hand x̂))]

    The seventh joint turns the hand about that point's own axis and does not move it.

    >>> [round(x, 3) for x in hand_position(torch.zeros(7), base=-0.188, hand=0.168).tolist()]
    [0.989, -0.188, 0.0]
    """
    sin, cos = joints[..., :6].sin().unbind(-1), joints[..., :6].cos().unbind(-1)
    x, z = FOREARM + hand * cos[5], -hand * sin[5]
    y, z = -z * sin[4], z * cos[4]
    x, z = UPPER_ARM + x * cos[3] + z * sin[3], z * cos[3] - x * sin[3]
    y, z = y * cos[2] - z * sin[2], y * sin[2] + z * cos[2]
    x, z = SHOULDER + x * cos[1] + z * sin[1], z * cos[1] - x * sin[1]
    return torch.stack((x * cos[0] - y * sin[0], base + x * sin[0] + y * cos[0], z), -1)
