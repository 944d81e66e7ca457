"""One plan of mbrl-lib: its `TrajectoryOptimizerAgent` with CEM on its `ModelEnv`, on the very networks that we plan with.

The task is that of `benchmarks.planning`: states (x, x', θ', θ) of which the angle enters as sine and cosine.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium
import mbrl.models
import mbrl.planning
import numpy as np
import omegaconf
import torch
from torch import Tensor

from bayesdyn import DynamicsModel
from bayesdyn.planners import CEM
from bayesdyn.rewards import Reward


def make_network(model: DynamicsModel) -> mbrl.models.GaussianMLP:
    """Return a bootstrap ensemble as mbrl-lib's, with the whitening of targets folded into its last layer."""
    ensemble: Any = model.posterior
    shape, parameters = ensemble.network, ensemble.parameters_of_members
    network = mbrl.models.GaussianMLP(
        shape.inputs,
        shape.outputs,
        "cpu",
        num_layers=len(shape.hidden),
        ensemble_size=ensemble.members,
        hid_size=shape.hidden[0],
        propagation_method="fixed_model",
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    weights, biases = shape.unflatten(parameters.theta)
    mean, std = model.codec.target_mean.float(), model.codec.target_std.float()
    low, high, centre = parameters.noise.split(1, 1)
    mean_bias, log_var_bias = biases[-1].chunk(2, -1)
    # Log variances move with their unit, and so do their bounds; mbrl-lib's members share theirs, but take one each.
    shift = 2 * std.log()
    biases[-1] = torch.cat([mean_bias * std + mean, log_var_bias + 10 * centre + shift], -1)
    weights[-1] = weights[-1] * torch.cat([std, torch.ones_like(std)])
    network.min_logvar.data, network.max_logvar.data = low + shift, high + shift
    layers = [part[0] for part in network.hidden_layers] + [network.mean_and_logvar]
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
    return network


def _features(state: Tensor | np.ndarray) -> Tensor:
    state = torch.as_tensor(state)
    angle = state[..., 3:]
    return torch.cat([state[..., :3], angle.sin(), angle.cos()], -1)


@torch.no_grad()
def largest_difference(model: DynamicsModel) -> float:
    """Return the largest difference of mean changes and log variances between their networks and ours, relative to target stds."""
    random = torch.Generator().manual_seed(7)
    state, action = torch.randn(500, 4, generator=random), torch.randn(500, 1, generator=random)
    features = torch.cat([_features(state), action], -1)
    whitened = (features - model.codec.feature_mean.float()) / model.codec.feature_std.float()
    mean, log_var = make_network(model)(whitened.unsqueeze(0), use_propagation=False)
    std = model.codec.target_std.float()
    ours = model.sample(len(mean), dtype=torch.float32)(state.unsqueeze(0), action.unsqueeze(0))
    of_means = ((ours.mean - state - mean) / std).abs().max()
    return float(torch.maximum(of_means, (ours.var.log() - log_var).abs().max()))


def make_planner(model: DynamicsModel, planner: CEM, bound: float, reward: Reward, particles: int) -> Callable[[], np.ndarray]:
    """Return a call that plans once from the state 0, from the beginning of an episode."""
    wrapped = mbrl.models.OneDTransitionRewardModel(
        make_network(model), target_is_delta=True, normalize=True, learned_rewards=False, obs_process_fn=_features
    )
    wrapped.input_normalizer.mean = model.codec.feature_mean.float().unsqueeze(0)
    wrapped.input_normalizer.std = model.codec.feature_std.float().unsqueeze(0)
    actions = gymnasium.spaces.Box(-bound, bound, (int(model.codec.sizes[1]),))
    env = mbrl.models.ModelEnv(
        SimpleNamespace(observation_space=actions, action_space=actions),
        wrapped,
        lambda action, state: torch.zeros(len(state), 1, dtype=torch.bool),
        lambda action, state: reward(state, action, state).unsqueeze(1),
        torch.Generator().manual_seed(0),
    )
    settings = omegaconf.OmegaConf.create(
        {
            "_target_": "mbrl.planning.TrajectoryOptimizerAgent",
            "_recursive_": False,
            "action_lb": actions.low.tolist(),
            "action_ub": actions.high.tolist(),
            "planning_horizon": planner.horizon,
            "replan_freq": 1,
            "optimizer_cfg": {
                "_target_": "mbrl.planning.CEMOptimizer",
                "num_iterations": planner.iterations,
                "elite_ratio": planner.elites / planner.candidates,
                "population_size": planner.candidates,
                "alpha": planner.momentum,
                "device": "cpu",
                "lower_bound": "???",
                "upper_bound": "???",
                "return_mean_elites": True,
            },
        }
    )
    agent = mbrl.planning.create_trajectory_optim_agent_for_model(env, settings, particles)

    state = np.zeros(int(model.codec.sizes[0]), dtype=np.float32)

    def plan() -> np.ndarray:
        agent.reset()
        return agent.act(state)

    return plan
