"""Identify mass and length of a pendulum from 60 noisy steps, then ask where it will be: python -m examples.physics_pendulum."""

import math

import torch
from pyro.distributions import LogNormal
from torch import Tensor

import bayesdyn as bd
from bayesdyn.codec import IdentityCodec
from bayesdyn.posteriors.physics import Physics
from bayesdyn.posteriors.physics_integrators import RK4


def rates(state: Tensor, action: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Return d(angle, speed)/dt of a point mass on a rod, driven by a torque."""
    angle, speed = state[..., 0], state[..., 1]
    mass, length = parameters["mass"], parameters["length"]
    return torch.stack([speed, -9.81 / length * angle.sin() + action[..., 0] / (mass * length**2)], -1)


def experiment(step: RK4, rows: int, generator: torch.Generator) -> bd.Transitions:
    """Return single steps from random states, with noise of std 0.02 on both outputs; in truth m = 1.2 kg and l = 0.8 m."""
    uniform = 2 * torch.rand(rows, 3, generator=generator, dtype=torch.float64) - 1
    state, action = uniform[:, :2] * torch.tensor([math.pi, 4.0]), 4.0 * uniform[:, 2:]
    truth = {name: torch.tensor([[value]], dtype=torch.float64) for name, value in (("mass", 1.2), ("length", 0.8))}
    after = step(state.unsqueeze(0), action.unsqueeze(0), truth)[0]
    noise = 0.02 * torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return bd.Transitions.from_arrays(state, action, after + noise)


def main() -> None:
    """Fit, print what was found, and roll 100 possible pendulums forward for two seconds."""
    torch.set_num_threads(1)
    step, generator = RK4(rates, dt=0.05), torch.Generator().manual_seed(0)
    priors = {"mass": LogNormal(0.0, 0.5), "length": LogNormal(0.0, 0.5)}
    model = bd.DynamicsModel(IdentityCodec(), Physics(step, priors))
    report = model.fit(experiment(step, 60, generator), generator=generator)
    for row in report.summary:
        print(f"{row.name:13} {row.mean:.4f} ± {row.std:.4f}   R-hat {row.r_hat:.3f}   {row.effective:.0f} effective draws")
    print(f"divergences {report.divergences}, {report.seconds:.0f} s", *report.warnings, sep="\n")
    dynamics, state = model.sample(100, generator), torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand(100, 2)
    for second in (1, 2):
        for _ in range(20):
            state = dynamics(state, torch.zeros(1, 1, dtype=torch.float64)).mean
        print(f"angle after {second} s: {float(state[:, 0].mean()):+.3f} ± {float(state[:, 0].std()):.3f} rad")


if __name__ == "__main__":
    main()
