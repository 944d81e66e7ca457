"""The performance gap: one network learns fast and stops short, an ensemble of it closes the gap, and SAC needs far more steps.

A boat is paid for how near it comes to a weir and pays dearly for being over it; gusts push it about, and currents that it has to
learn. A high-capacity network fitted to the end knows neither the gusts nor what it does not know. With little data it goes over
the weir because it overfits, and then, however much it has seen, because it plans for the very edge. Five such networks, each with
its noise, score a plan by its mean over θ and over gusts, and keep a distance. Soft actor-critic has no model; in eight times the
steps it ends above the one network and below the five. The figure has the rewards over the steps taken in the environment.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure

import bayesdyn as bd
from bayesdyn.networks import Homoscedastic, Training
from bayesdyn.plots import NEUTRAL, PALETTE, dress, legend
from bayesdyn.posteriors import BootstrapEnsemble, MaximumLikelihood
from examples.lecture.command import command

STEPS, TRIALS, SAC_EPISODES = 25, 12, 100
SETTINGS = {"hidden": (128, 128), "noise": Homoscedastic(), "training": Training(steps=400)}


class Weir(gymnasium.Env):
    """A boat at x (m), the weir at 0: x' = x + 0.3 a + 0.1 sin 3x + gust, gusts of 0.15 m. It is paid `worth` of each new x."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x, self.t = -1.5 + 0.1 * self.np_random.standard_normal(), 0
        return np.array([self.x]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x += 0.3 * float(action[0]) + 0.1 * np.sin(3 * self.x) + 0.15 * self.np_random.standard_normal()
        self.t += 1
        return np.array([self.x]), float(worth(torch.tensor([self.x]))), False, self.t == STEPS, {}


def worth(x: torch.Tensor) -> torch.Tensor:
    """Return 1 + x upstream of the weir, at least -1, and -6 over it."""
    return torch.where(x < 0, (1 + x).clamp_min(-1.0), -6.0)


def learn(posterior: bd.posteriors.Posterior, seed: int, trials: int = TRIALS, **options: Any) -> np.ndarray:
    """Return the mean reward of a step in each trial of model-predictive control."""
    model = bd.DynamicsModel(bd.Codec(), posterior)
    planner = bd.planners.ICEM(horizon=6, candidates=60, iterations=3)
    agent = bd.MPC(model, planner, lambda s, a, s2: worth(s2[..., 0]), **options)
    run = bd.learn(Weir(), model, agent, trials=trials, seed=seed)
    return np.array([trial.metrics["return"] / STEPS for trial in run.trials])


def learn_without_model(seed: int) -> np.ndarray:
    """Return the same of soft actor-critic, or nothing where stable-baselines3 is missing (`pip install 'bayesdyn[rl]'`)."""
    try:
        from stable_baselines3 import SAC
        from stable_baselines3.common.monitor import Monitor
    except ImportError:
        print("no curve of SAC: it wants pip install 'bayesdyn[rl]'")
        return np.array([])
    env = Monitor(Weir())
    agent = SAC("MlpPolicy", env, seed=seed, learning_starts=100, batch_size=64, gamma=0.9, policy_kwargs={"net_arch": [32, 32]})
    agent.learn(STEPS * SAC_EPISODES)
    return np.array(env.get_episode_rewards()) / STEPS


@dataclass(frozen=True)
class Result:
    """Mean rewards of a step in the trials from the fourth on (SAC: in the last 20); `curves` has all trials of each."""

    one_network: float
    ensemble: float
    sac: float
    sac_after_as_many_steps: float
    curves: tuple[np.ndarray, ...]

    @property
    def shown(self) -> bool:
        """Whether the ensemble is far above the one network and above SAC with as many steps, and SAC passes the one network."""
        return self.ensemble > 0.2 + max(self.one_network, self.sac_after_as_many_steps) and self.sac > self.one_network


def experiment(seed: int, model_free: bool = True) -> Result:
    """Learn in the three ways."""
    one = learn(MaximumLikelihood(held_out=0.0, **SETTINGS), seed, draws=1, propagation=bd.Mean())
    many = learn(BootstrapEnsemble(**SETTINGS), seed, draws=10, particles=4)
    sac = learn_without_model(seed) if model_free else np.array([])
    last, early = (float(part.mean()) if len(sac) else float("nan") for part in (sac[-20:], sac[3 : TRIALS + 1]))
    return Result(float(one[3:].mean()), float(many[3:].mean()), last, early, (one, many, sac))


def draw(result: Result) -> Figure:
    """Draw the mean reward of a step over the steps taken in the environment."""
    figure = Figure((9, 4.5), layout="constrained")
    axes = figure.subplots()
    names = ("one network, its mean", "five of the same, over θ and gusts", "soft actor-critic, no model: mean of ten episodes")
    for name, curve, colour, window in zip(names, result.curves, (PALETTE[1], PALETTE[0], NEUTRAL), (1, 1, 10), strict=True):
        steps = STEPS * np.arange(1, len(curve) + 1)
        axes.plot(steps, curve, ".", color=colour, alpha=0.3 if window > 1 else 1.0)
        axes.plot(steps, [curve[max(0, i - window) : i].mean() for i in range(1, len(curve) + 1)], color=colour, lw=2.5, label=name)
    for plateau, colour in ((result.one_network, PALETTE[1]), (result.ensemble, PALETTE[0])):
        axes.plot([4 * STEPS, SAC_EPISODES * STEPS], [plateau] * 2, ":", color=colour, lw=1.8)
    axes.set_xscale("log")
    dress(axes, "dots: episodes; dotted: mean of all from the fourth on", "steps in the environment", "reward of a step")
    legend(axes)
    return figure


if __name__ == "__main__":
    command("performance_gap", __doc__, experiment, draw)
