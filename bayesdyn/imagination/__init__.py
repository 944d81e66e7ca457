"""Learned models as environments: imagined episodes for the model-free methods of other libraries."""

from bayesdyn.imagination.single import ImaginedEnv
from bayesdyn.imagination.torchrl import torchrl_env
from bayesdyn.imagination.vector import ImaginedVectorEnv

__all__ = ["ImaginedEnv", "ImaginedVectorEnv", "torchrl_env"]
