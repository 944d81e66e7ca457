"""What the lecture's pages say beside the effects: further settings of the examples, as figures of one seed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

import bayesdyn as bd
from bayesdyn.planners.icem import coloured_noise
from bayesdyn.posteriors import BootstrapEnsemble, MaximumLikelihood
from examples.lecture import bayesian_networks, caveats, cliff_edge, four_steps, hole, performance_gap, ridge


@dataclass(frozen=True)
class Side:
    """One example's further figures, how many seeds they take by default, and the first of them."""

    figures: Callable[[int], dict[str, float]]
    seeds: int = 10
    first: int = 100


def more_networks(seed: int) -> dict[str, float]:
    """Return what members and resampling are worth, as losses per row of data without a gap."""
    generator = torch.Generator().manual_seed(seed)
    x, y = hole.draw_data(bayesian_networks.ROWS, generator, hole.HOLE)
    test_x, test_y = hole.draw_data(1000, generator)
    figures: dict[str, float] = {}
    for name, bootstrap in (("bootstrap ensemble", True), ("no resampling", False)):
        ensemble = BootstrapEnsemble(bootstrap=bootstrap, **bayesian_networks.SAME)
        ensemble.fit(x, y, generator=torch.Generator().manual_seed(seed))
        whole = ensemble.predict(test_x)
        for count in bayesian_networks.COUNTS:
            figures[f"nll per row, {name}, members: {count}"] = hole.loss(whole, test_y, count, generator)
    most = max(bayesian_networks.COUNTS)
    better = figures[f"nll per row, bootstrap ensemble, members: {most}"] < figures[f"nll per row, no resampling, members: {most}"]
    figures["share of seeds in which the bootstrap ensemble scores better"] = float(better)
    return figures


def more_of_the_gap(seed: int) -> dict[str, float]:
    """Return what the one network earns when the planner sees its noise, beside five networks."""
    one = MaximumLikelihood(held_out=0.0, **performance_gap.SETTINGS)
    ways = {
        "one network with its noise": performance_gap.learn(one, seed, draws=1, particles=40),
        "five networks": performance_gap.learn(BootstrapEnsemble(**performance_gap.SETTINGS), seed, draws=10, particles=4),
    }
    figures = {}
    for name, curve in ways.items():
        figures[f"reward of a step, {name}, first two episodes"] = float(curve[1:3].mean())
        figures[f"reward of a step, {name}, from the fourth on"] = float(curve[3:].mean())
    return figures


def distances(seed: int) -> dict[str, float]:
    """Return the planned distance from the edge for each κ."""
    found = cliff_edge.experiment(seed).distances
    return {f"distance (m), kappa {kappa:g}": distance for kappa, distance in zip(cliff_edge.KAPPAS, found, strict=True)}


def off_balance(seed: int) -> dict[str, float]:
    """Return where balls roll that start 0.1 m to the right, and how far functions differ on the ridge for more data."""
    model, _ = ridge.learned(seed)
    start, worlds = ridge.balance(model) + 0.1, model.sample(four_steps.DRAWS, torch.Generator().manual_seed(seed))
    figures = {}
    for name, way in four_steps.WAYS.items():
        options = {"propagation": way, "generator": torch.Generator().manual_seed(seed)}
        rolled = bd.rollout(worlds, start, start.new_zeros(four_steps.STEPS, 1), ridge.reward, **options)
        figures[f"share that rolls right, {name.split(':')[0]}"] = float((rolled.states[-1] > 0).double().mean())
    top = torch.zeros(1, 1, dtype=torch.float64)
    for rows in (ridge.ROWS, 10 * ridge.ROWS):
        model, _ = ridge.learned(seed, rows)
        worlds = model.sample(four_steps.DRAWS, torch.Generator().manual_seed(seed))
        figures[f"std of the functions on the ridge (m), {rows} rows"] = float(
            worlds(top.unsqueeze(0), top.unsqueeze(0)).mean.std()
        )
        options = {"generator": torch.Generator().manual_seed(seed)}
        end = bd.rollout(worlds, ridge.balance(model), top.new_zeros(four_steps.STEPS, 1), ridge.reward, **options).states[-1]
        figures[f"share that rolls left, {rows} rows"] = float((end < 0).double().mean())
    return figures


def worlds_to_hope_for(seed: int) -> dict[str, float]:
    """Return in how many draws after the pendulum's first trial any of a thousand random plans earns more than it costs."""
    data = caveats.swing_up("optimistic", seed, trials=0).transitions()
    model = bd.DynamicsModel(bd.Codec(angles=[0]), bd.posteriors.ExactGP(features=200))
    model.fit(data)
    generator = torch.Generator().manual_seed(seed)
    worlds = model.sample(100, generator)
    plans = coloured_noise(20, (1000, 1), 3.0, generator, data.state.dtype).clamp(-1.0, 1.0)
    returns = bd.rollout(worlds, data.state[0], plans, bd.envs.ActionCostReward(), generator=generator).returns
    return {"draws of 100 in which a plan earns more than it costs": float((returns[:, 0] > 0).any(1).sum())}


SIDES: dict[str, Side] = {
    "performance_gap": Side(more_of_the_gap, seeds=5),
    "cliff_edge": Side(distances),
    "four_steps": Side(off_balance),
    "bayesian_networks": Side(more_networks),
    "caveats": Side(worlds_to_hope_for, first=200),  # the seeds of `benchmarks.action_cost`
}
