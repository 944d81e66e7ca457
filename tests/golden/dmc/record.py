"""Record short trajectories of dm_control's tasks; run with dm_control 1.0.50 and mujoco 3.17, which bayesdyn itself does not need.

python tests/golden/dmc/record.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import mujoco
import numpy as np
from dm_control import suite

STEPS = 60
TASKS = {
    "cartpole_swingup": ("cartpole", "swingup", [[0.0, 0.0], [0.2, -0.6], [1.5, 0.3]], [[0.0, 0.1], [0.3, 1.0], [3.0, -2.0]]),
    "pendulum_swingup": ("pendulum", "swingup", [[3.1], [0.1], [0.0]], [[0.5], [0.3], [-6.0]]),
    "reacher_easy": ("reacher", "easy", [[0.3, 0.5], [-2.0, 2.7]], [[0.0, 0.0], [1.0, 3.0]]),
    "reacher_hard": ("reacher", "hard", [[0.3, 0.5], [-2.0, 2.7]], [[0.0, 0.0], [1.0, 3.0]]),
}


def flat(observation):
    """Return the parts of an observation in dm_control's order, as one list."""
    return np.concatenate([np.ravel(part) for part in observation.values()]).tolist()


def trajectory(domain, task, position, velocity, seed):
    """Return the states, observations and rewards under random actions that change every five steps."""
    env = suite.load(domain, task, task_kwargs={"random": seed})
    env.reset()
    physics, random = env.physics, np.random.RandomState(seed)
    target = []
    if domain == "reacher":
        # Within reach of the finger, so that some steps are paid and some are not.
        finger = 0.12 * np.array([np.cos(position[0]) + np.cos(sum(position)), np.sin(position[0]) + np.sin(sum(position))])
        target = (0.9 * finger).tolist()
        physics.named.model.geom_pos["target", ["x", "y"]] = target
    with physics.reset_context():
        physics.data.qpos[:], physics.data.qvel[:] = position, velocity
    size = env.action_spec().shape
    actions = np.repeat(random.uniform(-1, 1, (STEPS // 5, *size)), 5, 0)
    states = [physics.data.qpos.tolist() + physics.data.qvel.tolist()]
    observations, rewards = [flat(env.task.get_observation(physics))], []
    for action in actions:
        step = env.step(action)
        states.append(physics.data.qpos.tolist() + physics.data.qvel.tolist())
        observations.append(flat(step.observation))
        rewards.append(float(step.reward))
    case = {"actions": actions.tolist(), "states": states, "observations": observations, "rewards": rewards}
    return case | ({"target": target} if target else {})


def main():
    """Write one file for each task beside this script."""
    for name, (domain, task, positions, velocities) in TASKS.items():
        cases = [trajectory(domain, task, p, v, seed) for seed, (p, v) in enumerate(zip(positions, velocities, strict=True))]
        content = {"dm_control": version("dm_control"), "mujoco": mujoco.__version__, "cases": cases}
        (Path(__file__).parent / f"{name}.json").write_text(json.dumps(content) + "\n")
        print(name, [(min(case["rewards"]), max(case["rewards"])) for case in cases])


if __name__ == "__main__":
    main()
