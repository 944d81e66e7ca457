"""GP-MPC: model-predictive control of Gaussian beliefs, whose moments and gradients are known in closed form."""

from bayesdyn.gp_mpc.agent import GPMPC
from bayesdyn.gp_mpc.chance import ChanceBound, Multipliers
from bayesdyn.gp_mpc.path import Along, certainty_equivalent, matched
from bayesdyn.gp_mpc.plan import BeliefPlan
from bayesdyn.gp_mpc.problem import BeliefProblem
from bayesdyn.gp_mpc.search import BoxSearch, Found

__all__ = [
    "GPMPC",
    "Along",
    "BeliefPlan",
    "BeliefProblem",
    "BoxSearch",
    "ChanceBound",
    "Found",
    "Multipliers",
    "certainty_equivalent",
    "matched",
]
