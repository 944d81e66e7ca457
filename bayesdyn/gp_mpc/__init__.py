"""GP-MPC: model-predictive control of Gaussian beliefs, whose moments and gradients are known in closed form."""

from bayesdyn.gp_mpc.agent import GPMPC
from bayesdyn.gp_mpc.chance import ChanceBound, Multipliers
from bayesdyn.gp_mpc.ilqr import ILQR
from bayesdyn.gp_mpc.path import Along, Walk, certainty_equivalent, matched
from bayesdyn.gp_mpc.plan import BeliefPlan
from bayesdyn.gp_mpc.problem import BeliefProblem
from bayesdyn.gp_mpc.regulator import regulator
from bayesdyn.gp_mpc.search import BoxSearch, Found, Search

__all__ = [
    "GPMPC",
    "ILQR",
    "Along",
    "BeliefPlan",
    "BeliefProblem",
    "BoxSearch",
    "ChanceBound",
    "Found",
    "Multipliers",
    "Search",
    "Walk",
    "certainty_equivalent",
    "matched",
    "regulator",
]
