"""Codecs turn states and actions into whitened features and targets, and a predicted target back into the next state."""

from bayesdyn.codec.base import BaseCodec, BeliefLayout, broadcast, check_relative, check_sizes
from bayesdyn.codec.identity import IdentityCodec
from bayesdyn.codec.kinematic import KinematicCodec
from bayesdyn.codec.lag import LagCodec
from bayesdyn.codec.markov import Codec

__all__ = [
    "BaseCodec",
    "BeliefLayout",
    "Codec",
    "IdentityCodec",
    "KinematicCodec",
    "LagCodec",
    "broadcast",
    "check_relative",
    "check_sizes",
]
