"""Learn to swing up a cart-pole from seconds of data, by PILCO: python -m examples.pilco_cartpole [trials] [folder]."""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

import bayesdyn as bd
from bayesdyn import plots
from bayesdyn.belief_dynamics import Belief
from bayesdyn.presets import LiftedCost, real_rollouts
from bayesdyn.report.animation import save_trial_animation
from bayesdyn.report.scenarios import scenario

ENV, STEPS, ANGLES = "bayesdyn/CartPoleSwingUp-v0", 40, (3,)  # x, its speed, the pole's speed and its angle, 0 hanging


def main(trials: int = 6, folder: Path = Path("runs/example")) -> None:
    """Learn, say how each trial went, and draw the last one."""
    torch.set_num_threads(1)
    env = bd.envs.make(ENV)
    start = Belief(*env.unwrapped.start_moments())
    features = bd.policies.Features(4, ANGLES)  # a policy sees the sine and cosine of an angle in its place
    cost, lift = bd.moments.cart_pole_cost(widths=0.25), bd.moments.Lift(4, ANGLES)

    def first_policy(generator: torch.Generator) -> bd.policies.Policy:
        seen = features.moments(*start)
        rbf = bd.policies.RBFPolicy.random(50, 1, seen.mean, seen.cov, generator, features.lengthscale)
        return bd.policies.Squashed(bd.policies.OnFeatures(rbf, 4, ANGLES), bd.moments.SquashSat(10.0))

    model = bd.DynamicsModel(bd.Codec(angles=ANGLES), bd.posteriors.ExactGP(training=bd.posteriors.GPTraining.pilco(max_steps=100)))
    objective = bd.policy_search.MomentMatched(cost, start, STEPS)
    agent = bd.policy_search.PolicyAgent(model, first_policy, objective, LiftedCost(cost, lift))  # which searches by BFGS
    with bd.loop.RichMonitor("pilco", "tip_distance") as monitor:
        options = {"replan_every": None, "warm_start": True, "online": False, "monitor": monitor}
        run = bd.learn(env, model, agent, trials=trials, run=folder, stop=lambda t: t.last("tip_distance") < 0.1, **options)

    trial, folder = run.trials[-1], folder / "pictures"
    run.load_improvement(trial.index, agent)  # what was learned, also where the run had ended before
    real = real_rollouts(env.unwrapped, agent.policy, STEPS, 10, torch.Generator().manual_seed(0), "tip_distance")
    print(f"other starts solved: {int((real.furthest < 0.1).sum())} of 10")
    figure, time = Figure((9, 3), layout="constrained"), 0.1 * torch.arange(STEPS + 1).numpy()
    mean, std, angle, angle_std = (trial.predictions[name].numpy() for name in ("cost_mean", "cost_std", "state_mean", "state_std"))
    left, right = figure.subplots(1, 2)
    true = torch.cat((trial.episode.states[:1], trial.infos["state"])).numpy()
    plots.predicted_cost(left, time, mean, std, cost(lift(trial.infos["state"])).numpy(), cost(lift(real.states[1:])).numpy())
    plots.predicted_state(right, time, angle[:, 3], angle_std[:, 3], true[:, 3], real.states[..., 3].numpy())
    for axes, y in ((left, "cost of a step"), (right, "angle (rad)")):
        plots.dress(axes, f"trial {trial.index}", "s", y)
        plots.legend(axes)
    figure.savefig(folder / "pilco.png", dpi=150)
    save_trial_animation(scenario(ENV).frames(trial, 0.1), folder / "pilco.gif", 0.1)
    print(f"pictures: {folder / 'pilco.png'} and pilco.gif beside it")


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, Path), sys.argv[1:], strict=False)))
