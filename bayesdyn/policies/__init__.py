"""Policies: modules that map states to actions and beliefs over states to moments of actions."""

from bayesdyn.policies.base import Policy
from bayesdyn.policies.features import Features, OnFeatures
from bayesdyn.policies.linear import LinearPolicy
from bayesdyn.policies.mlp import MLPPolicy
from bayesdyn.policies.rbf import RBFPolicy
from bayesdyn.policies.squashed import Squashed

__all__ = ["Features", "LinearPolicy", "MLPPolicy", "OnFeatures", "Policy", "RBFPolicy", "Squashed"]
