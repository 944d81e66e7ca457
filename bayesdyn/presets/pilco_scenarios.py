"""PILCO's six scenarios as policy search sees them: cost, start, policy and budget; the plants are in `bayesdyn.envs`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from bayesdyn.belief_dynamics import Belief
from bayesdyn.envs import CARTPOLE_ID, UNICYCLE_EXPLORATION
from bayesdyn.envs.cartpole_published import DEEP_PILCO_LENGTH
from bayesdyn.errors import ConfigurationError
from bayesdyn.loop import Exploration, Uniform
from bayesdyn.moments import Cost, SquashSat
from bayesdyn.moments.scenario_costs import (
    Widths,
    cart_double_pendulum_cost,
    cart_pole_cost,
    double_pendulum_cost,
    pendubot_cost,
    pendulum_cost,
    saturating,
    unicycle_cost,
)
from bayesdyn.policies import Features, LinearPolicy, OnFeatures, Policy, RBFPolicy, Squashed
from bayesdyn.presets.names import find

MakeCost = Callable[[Widths, float], Cost]


@dataclass(frozen=True)
class Scenario:
    """A task of the PILCO papers.

    `cost(widths, exploration)` makes the cost of the lifted state, `widths` are the official ones. The start is N(start_mean,
    diag(start_std²)); what the first policy sees at its centres is drawn from it too, or with `centre_std` in its place; with
    `basis_std` they are at states of that std, and basis functions are as wide as it, 1 in sines and cosines. `angles` are lifted,
    `ignore` names coordinates that the dynamics do not depend on, `relative` those that the dynamics are given as differences from
    others, angles and speeds of joints in the place of links. `limits` are those of the actions, `basis` the number of radial basis
    functions, 0 for a linear policy. `searches` and `evaluations` are the line searches and evaluations of a policy search;
    `trials` controlled trials follow `initial` random ones. Solved: `distance` below `solved_below` over the last 10 steps.
    """

    env_id: str
    cost: MakeCost
    widths: Widths
    start_mean: tuple[float, ...]
    start_std: tuple[float, ...]
    limits: tuple[float, ...]
    horizon: int
    basis: int
    trials: int
    angles: tuple[int, ...] = ()
    ignore: tuple[int, ...] = ()
    relative: Mapping[int, int] = field(default_factory=dict)
    searches: int = 150
    evaluations: int = 30
    initial: int = 1
    explore: Exploration = field(default_factory=Uniform)
    distance: str = "tip_distance"
    solved_below: float = 0.1
    centre_std: tuple[float, ...] | None = None
    basis_std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for centres that are drawn in two ways, or whose stds are not one for each coordinate."""
        given = [std for std in (self.centre_std, self.basis_std) if std is not None]
        if len(given) == 2 or any(len(std) != len(self.start_mean) or not all(value > 0 for value in std) for std in given):
            raise ConfigurationError(
                f"a scenario wants centre_std or basis_std (the other one None), a std > 0 for each of {len(self.start_mean)} "
                f"coordinates; got centre_std={self.centre_std} and basis_std={self.basis_std}"
            )

    @property
    def start(self) -> Belief:
        """The belief over the state in which a trial starts."""
        std = torch.tensor(self.start_std, dtype=torch.float64)
        return Belief(torch.tensor(self.start_mean, dtype=torch.float64), std.square().diag())

    def policy(self, generator: torch.Generator) -> Policy:
        """Draw a policy to start from: radial basis functions or a linear one, squashed to the limits."""
        features = Features(len(self.start_mean), self.angles)
        inner: Policy
        actions = len(self.limits)
        if self.basis_std is not None and self.basis:
            std = torch.tensor(self.basis_std, dtype=torch.float64)
            states = self.start.mean + std * torch.randn(self.basis, len(std), generator=generator, dtype=torch.float64)
            wide = torch.cat((std, std.new_ones(2 * len(self.angles))))[list(features.columns)]
            inner = RBFPolicy.around(features(states), actions, generator, wide)
        elif self.basis:
            centres = self if self.centre_std is None else replace(self, start_std=self.centre_std)
            seen = features.moments(*centres.start)
            inner = RBFPolicy.random(self.basis, actions, seen.mean, seen.cov, generator, features.lengthscale)
        else:
            inner = LinearPolicy.random(len(features.columns), actions, generator)
        return self.act_by(inner)

    def act_by(self, inner: Policy) -> Policy:
        """Return a policy of features, squashed to the limits and made to see states."""
        return Squashed(OnFeatures(inner, len(self.start_mean), self.angles), SquashSat(self.limit_tensor))

    @property
    def limit_tensor(self) -> Tensor:
        """The limits of the actions, [A]."""
        return torch.tensor(self.limits, dtype=torch.float64)


def deep_pilco_cart_pole_cost(widths: Widths = 0.25, exploration: float = 0.0) -> Cost:
    """Return the cost of Deep PILCO's ports, of [x, ẋ, θ, θ̇, sin θ, cos θ], θ = 0 upright: one minus `DeepPILCOReward`.

    >>> deep_pilco_cart_pole_cost()(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])).item()
    0.0
    """
    rows = [[1.0, 0.0, 0.0, 0.0, DEEP_PILCO_LENGTH, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, DEEP_PILCO_LENGTH]]
    return saturating([0.0] * 5 + [1.0], rows, widths, exploration)


_HANGING = (0.0, 0.0, math.pi, math.pi)
scenarios: Mapping[str, Scenario] = {
    "pendulum": Scenario(
        env_id="bayesdyn/PILCOPendulum-v0",
        cost=pendulum_cost,
        widths=0.5,
        start_mean=(0.0, 0.0),
        start_std=(0.1, 0.1),
        limits=(2.5,),
        horizon=40,
        basis=20,
        trials=10,
        angles=(1,),
        searches=75,
    ),
    "cart-pole": Scenario(
        env_id=CARTPOLE_ID,
        cost=cart_pole_cost,
        widths=0.25,
        start_mean=(0.0,) * 4,
        start_std=(0.1,) * 4,
        limits=(10.0,),
        horizon=40,
        basis=50,
        trials=15,
        angles=(3,),
    ),
    "deep-pilco-cart-pole": Scenario(
        env_id="bayesdyn/DeepPILCOCartPole-v0",
        cost=deep_pilco_cart_pole_cost,
        widths=0.25,
        start_mean=(0.0, 0.0, math.pi, 0.0),
        start_std=(0.02,) * 4,
        limits=(10.0,),
        horizon=25,
        basis=50,
        trials=30,
        angles=(2,),
        centre_std=(1.0, 2.0, 2.0, 4.0),
    ),
    "double-pendulum": Scenario(
        env_id="bayesdyn/DoublePendulum-v0",
        cost=double_pendulum_cost,
        widths=0.5,
        start_mean=_HANGING,
        start_std=(0.1, 0.1, 0.01, 0.01),
        limits=(2.0, 2.0),
        horizon=30,
        basis=100,
        trials=20,
        angles=(2, 3),
        relative={1: 0, 3: 2},
        basis_std=(4.0, 4.0, 1.5, 1.5),
    ),
    "pendubot": Scenario(
        env_id="bayesdyn/Pendubot-v0",
        cost=pendubot_cost,
        widths=0.25,
        start_mean=_HANGING,
        start_std=(0.1, 0.1, 0.01, 0.01),
        limits=(3.5,),
        horizon=60,
        basis=100,
        trials=40,
        angles=(2, 3),
        relative={1: 0, 3: 2},
        basis_std=(4.0, 4.0, 1.5, 1.5),
        evaluations=20,
    ),
    "cart-double-pendulum": Scenario(
        env_id="bayesdyn/CartDoublePendulum-v0",
        cost=cart_double_pendulum_cost,
        widths=0.5,
        start_mean=(0.0, 0.0, *_HANGING),
        start_std=(0.1, 0.1, 0.1, 0.1, 0.01, 0.01),
        limits=(20.0,),
        horizon=100,
        basis=200,
        trials=40,
        angles=(4, 5),
        relative={3: 2, 5: 4},
    ),
    "unicycle": Scenario(
        env_id="bayesdyn/Unicycle-v0",
        cost=unicycle_cost,
        widths=1.0,
        start_mean=(0.0,) * 10,
        start_std=(0.02,) * 5 + (0.1, 0.1) + (0.02,) * 3,
        limits=(10.0, 50.0),
        horizon=67,
        basis=0,
        trials=40,
        ignore=(8,),
        evaluations=20,
        initial=10,
        explore=Uniform(UNICYCLE_EXPLORATION),
        distance="top_distance",
        solved_below=0.3,
    ),
}
"""PILCO's scenarios by name. Constants: UCL-SML/pilco-matlab `scenarios/*/settings_*.m`; 50 basis functions: ICML 2011, 3.1."""


def scenario(name: str, known: Mapping[str, Scenario] = scenarios, **changes: Any) -> Scenario:
    """Return a scenario by name with some of its fields changed; raises `UnknownNameError` for a name or field that is none.

    >>> scenario("cart-pole", basis=10).basis
    10
    """
    for field_name in changes:
        find("field of a scenario", field_name, {each.name: each for each in fields(Scenario)})
    return replace(find("scenario", name, known), **changes)
