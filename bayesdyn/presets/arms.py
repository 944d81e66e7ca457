"""Codecs of the seven-joint arms: joint angles follow from their speeds, the tip from the angles."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec import KinematicCodec
from bayesdyn.envs.arm import hand_position
from bayesdyn.envs.pusher import BASE

_JOINTS = range(7)
_TIP_OFFSET = 0.1  # that of bayesdyn/PETSPusher-v0 by default
_STEP = 0.04  # seconds
_LEAST_PUSH = 0.002  # metres: what the cylinder moves in a step when it is pushed slowly


def reacher3d_codec() -> KinematicCodec:
    """Return the codec of Reacher3D: seven joint speeds are predicted; the goal stays, and moves nothing."""
    goal = (7, 8, 9)
    return KinematicCodec(speeds={joint: 10 + joint for joint in _JOINTS}, constant=goal, ignore=goal)


def pusher_codec() -> KinematicCodec:
    """Return the codec of PETS's pusher: seven joint speeds and the cylinder's place on the table are predicted.

    Of tip and cylinder the features are `approach`: where the table lies does not matter to a push.
    """
    tip, cylinder = (14, 15, 16), (17, 18, 19)
    return KinematicCodec(
        speeds={joint: 7 + joint for joint in _JOINTS},
        constant=cylinder[2:],
        derived=tip,
        derive=tip_position,
        ignore=(*tip, *cylinder),
        extra=approach,
        least=dict.fromkeys(cylinder[:2], _LEAST_PUSH),
    )


def tip_position(state: Float[Tensor, "*batch 20"]) -> Float[Tensor, "*batch 3"]:
    """Return where the pusher's tip is, from its joint angles, in metres.

    >>> [round(x, 3) for x in tip_position(torch.zeros(20)).tolist()]
    [0.921, -0.6, 0.0]
    """
    return _tip(state[..., :7])


def approach(state: Float[Tensor, "*batch 20"]) -> Float[Tensor, "*batch 6"]:
    """Return the tip's place relative to the cylinder and how far it goes in a step at the present speeds, in metres.

    >>> state = torch.zeros(20)
    >>> state[14:17] = tip_position(state)
    >>> [round(x, 3) for x in approach(state).tolist()]
    [0.921, -0.6, 0.0, 0.0, 0.0, 0.0]
    """
    tip, soon = state[..., 14:17], state[..., :7] + _STEP * state[..., 7:14]
    return torch.cat([tip - state[..., 17:20], _tip(soon) - tip], -1)


def _tip(joints: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 3"]:
    # One joint after the other in memory, which halves the time that the sines take.
    return hand_position(joints.movedim(-1, 0).contiguous().movedim(0, -1), BASE, _TIP_OFFSET)
