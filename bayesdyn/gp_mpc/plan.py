"""What GP-MPC decided at a step, and the trajectories that its beliefs stand for."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_dynamics import Belief
from bayesdyn.gp_mpc.chance import Multipliers
from bayesdyn.gp_mpc.problem import BeliefProblem
from bayesdyn.objectives import ReturnVariance
from bayesdyn.rewards import Reward
from bayesdyn.rollout import Trajectory


@dataclass(frozen=True)
class BeliefPlan:
    """One act of planning: the actions, what is expected of them, and what it took.

    beliefs      mean [H+1, S] and covariance [H+1, S, S] of the state, the present one first
    cost_mean    mean and standard deviation of the cost at t = 1..H; `value` is J
    imagined     points of the beliefs, states [H+1, n, 1, 1, S]
    variance     of the return over the points of the beliefs: all of it is the model's ignorance
    candidates   how many sequences were evaluated; `late` and `dropped` are there for `learn`
    gains        [H, A, S], with feedback: by them the plan answers what happens. `value` and `beliefs` count on those before them
    """

    actions: Float[Tensor, "H A"]
    value: float
    beliefs: Belief
    cost_mean: Float[Tensor, "H"]
    cost_std: Float[Tensor, "H"]
    imagined: Trajectory
    variance: ReturnVariance
    seconds: float = 0.0
    candidates: int = 0
    multipliers: Multipliers | None = None
    gains: Float[Tensor, "H A S"] | None = None
    warnings: tuple[str, ...] = ()
    late: bool = False
    dropped: int = 0


def fan(path: Belief, actions: Float[Tensor, "H A"], reward: Reward, normals: Float[Tensor, "n S"]) -> Trajectory:
    r"""Return n points of each belief as trajectories, s_t = μ_t + √Σ_t z, with the same normals z at all steps.

    Each step's points have the belief's distribution; a line from step to step is drawn for the eye, since beliefs say nothing of
    how states at different times go together. √Σ is symmetric, so that lines do not jump where eigenvectors change places.
    Each line is paid by its own points.
    """
    values, vectors = torch.linalg.eigh(path.cov)
    root = (vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)) @ vectors.mT
    states = path.mean.unsqueeze(1) + normals @ root
    taken = actions.unsqueeze(1).expand(-1, len(normals), -1)
    rewards = reward(states[:-1], taken, states[1:])
    return Trajectory(
        path=tuple(states[:, :, None, None].unbind(0)),
        actions=actions.unsqueeze(1),
        rewards=rewards[:, :, None, None],
        alive=torch.ones(len(states), len(normals), 1, 1, dtype=torch.bool),
        terminal=rewards.new_zeros(len(normals), 1, 1),
    )


def expected_costs(problem: BeliefProblem, path: Belief) -> tuple[Float[Tensor, "H"], Float[Tensor, "H"]]:
    """Return mean and standard deviation of the cost at t = 1..H."""
    mean, var = problem.stage_costs(path)
    return mean, var.clamp_min(0.0).sqrt()
