"""Descendants of PILCO: policies searched on particles, under Gaussian processes (MC-PILCO) or networks (Deep PILCO)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.moments import Cost, Lift
from bayesdyn.networks import Training
from bayesdyn.policy_search import Particles, PolicyObjective, QuasiNewton
from bayesdyn.posteriors import ExactGP, MCDropout, Posterior
from bayesdyn.presets.pilco import LiftedCost, PolicyTask, pilco
from bayesdyn.presets.pilco_scenarios import Scenario
from bayesdyn.rollout import MomentMatching

_PARTICLES = 100
# The std of a particle's own cost is none to explore by.
_BY_COST: Mapping[str, Any] = {"exploration": 0.0, "optimism": 0.0, "daring": None}


def mc_pilco(name: str, **changes: Any) -> PolicyTask:
    """Return particles for moments: each of 100 trajectories follows its own function drawn from the Gaussian processes.

    All random numbers stay fixed in a search, so that it is deterministic. The published method redraws the function at each step,
    and searches from one start; here it is three, as in `pilco`.
    `changes` as in `pilco`. Source: Amadio et al., T-RO 2022.

    >>> mc_pilco("cart-pole").scenario.horizon
    40
    """
    return replace(
        pilco(name, **changes),
        posterior=lambda: ExactGP(features=256, training=GPTraining.pilco(max_steps=100)),
        objective=_independent,
        optimiser=QuasiNewton(searches=60, evaluations=15),
        **_BY_COST,
    )


def deep_pilco(name: str = "deep-pilco-cart-pole", **changes: Any) -> PolicyTask:
    """Return Deep PILCO: a dropout network, one mask per particle for a whole trajectory, states refitted to a Gaussian each step.

    Better than its ports where they are worse than they need be: angles as sine and cosine, whitened features and targets, a
    learned noise, full covariances, random numbers that stay fixed in a search, networks trained afresh after each trial, and a
    cost that is the mean over the scenario's width, twice and four times that, so that it has a slope far from the goal. `changes`
    as in `pilco`.
    Source: Gal, McAllister & Rasmussen 2016.

    >>> deep_pilco().scenario.horizon
    25
    """
    task = pilco(name, **changes)
    narrow = torch.as_tensor(task.scenario.widths, dtype=torch.float64).reshape(-1).tolist()
    return replace(
        task,
        posterior=_dropout,
        objective=_refitted,
        optimiser=QuasiNewton(searches=60, evaluations=15),
        widths=tuple(times * width for times in (1.0, 2.0, 4.0) for width in narrow),
        warm_start=False,
        restarts=0,
        **_BY_COST,
    )


def _dropout() -> Posterior:
    return MCDropout(rate=0.05, hidden=(200, 200), training=Training(steps=3000))


def _independent(scenario: Scenario, cost: Cost) -> PolicyObjective:
    return Particles(_reward(scenario, cost), scenario.start, scenario.horizon, draws=_PARTICLES, process_noise=False)


def _refitted(scenario: Scenario, cost: Cost) -> PolicyObjective:
    return Particles(_reward(scenario, cost), scenario.start, scenario.horizon, draws=50, propagation=MomentMatching())


def _reward(scenario: Scenario, cost: Cost) -> LiftedCost:
    return LiftedCost(cost, Lift(len(scenario.start_mean), scenario.angles))
