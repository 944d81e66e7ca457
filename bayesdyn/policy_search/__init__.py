"""Policy search: improve a policy under a learned model, by moment matching (PILCO) or by particles."""

from bayesdyn.policy_search.agent import Intention, PolicyAgent
from bayesdyn.policy_search.moment_matched import MatchedLoss, MomentMatched
from bayesdyn.policy_search.objective import Loss, PolicyObjective
from bayesdyn.policy_search.optimisers import Adam, GrowingHorizon, PolicyOptimiser, QuasiNewton
from bayesdyn.policy_search.particles import ParticleLoss, Particles

__all__ = [
    "Adam",
    "GrowingHorizon",
    "Intention",
    "Loss",
    "MatchedLoss",
    "MomentMatched",
    "ParticleLoss",
    "Particles",
    "PolicyAgent",
    "PolicyObjective",
    "PolicyOptimiser",
    "QuasiNewton",
]
