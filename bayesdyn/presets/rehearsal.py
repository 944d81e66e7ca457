"""What came of a policy search's expectations: the real cost of its trials, and what its policy does when it is let loose again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.agents import Agent
from bayesdyn.data import load_tensors, make_folder, save_tensors
from bayesdyn.envs import PlantEnv
from bayesdyn.errors import FileError
from bayesdyn.loop import Run, Trial, actions_of
from bayesdyn.moments import Lift
from bayesdyn.presets.scenario_task import ScenarioTask

_KIND = "rehearsal"
_FINAL_STEPS = 10
_AT_THE_LIMIT = 0.99
_SATURATED = 0.8  # bang-bang swing-ups are at their limits for about a third of a trial

Act = Callable[[Tensor], Tensor]


class RealRollouts(NamedTuple):
    """What a policy did in n plants at once; NaN where an episode had ended.

    states     what a learner would see without noise, [T+1, n, S]
    actions    [T, n, A]
    furthest   the largest of the measured distance over the last ten steps, [n]; infinite where the episode ended early
    """

    states: Float[Tensor, "T1 n S"]
    actions: Float[Tensor, "T n A"]
    furthest: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """A controlled trial beside what was predicted of it (`Trial.predictions`).

    names       of the coordinates of the state
    cost        of the trial's steps, [t], on the true states, without its exploration term
    saturated   share of the trial's steps in which every action was within 1 % of its limits
    states      of other real rollouts of the same policy, [T+1, n, S], with their `costs` [T, n] and `furthest` distances [n] from
                the goal over their last ten steps; n is 0 for an agent that keeps no policy
    """

    index: int
    names: tuple[str, ...]
    cost: Float[Tensor, "t"]
    saturated: float
    states: Float[Tensor, "T1 n S"]
    costs: Float[Tensor, "T n"]
    furthest: Float[Tensor, "n"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should change, if anything."""
        if self.saturated < _SATURATED:
            return ()
        return (
            f"the actions of trial {self.index} were at their limits in {100 * self.saturated:.0f} % of its steps, where a search "
            "can hardly change them: start from other policies (restarts), give the cost wider widths, or allow larger actions",
        )

    def save(self, path: Path) -> None:
        """Write it as one file, atomically."""
        tensors = {"cost": self.cost, "states": self.states, "costs": self.costs, "furthest": self.furthest}
        facts = {"index": self.index, "names": self.names, "saturated": self.saturated}
        save_tensors(path, tensors, {"facts": json.dumps(facts)}, kind=_KIND)

    @classmethod
    def load(cls, path: Path) -> "Rehearsal":
        """Read what `save` wrote; raises `FileError` for a damaged or foreign file."""
        tensors, metadata = load_tensors(path, kind=_KIND)
        try:
            facts = json.loads(metadata["facts"])
            return cls(facts["index"], tuple(facts["names"]), saturated=facts["saturated"], **tensors)
        except (KeyError, ValueError, TypeError) as error:
            raise FileError(f"{path} is no rehearsal that this version reads: {error!r}; remove it to rehearse again") from error


def real_rollouts(
    env: PlantEnv, act: Act, steps: int, count: int, generator: torch.Generator, distance: str | None = None
) -> RealRollouts:
    """Let `act`, a map from observations [n, S] to actions [n, A], control `count` plants at once for so many steps.

    Starts, noise of the observations, limits of the actions and ends of episodes are the environment's; `distance` is a figure of
    its `measure`. Raises what `act` raises.

    >>> from bayesdyn.envs import PILCOPendulum
    >>> still = real_rollouts(PILCOPendulum(), lambda o: 0 * o[:, :1], 40, 10, torch.Generator().manual_seed(0))
    >>> still.states.shape
    torch.Size([41, 10, 2])
    """
    mean, std, noise = (torch.from_numpy(values) for values in (env.start_mean, env.start_std, env.observation_noise))
    limit = torch.from_numpy(env.action_limit)

    def normal(scale: Tensor) -> Tensor:
        return scale * torch.randn(count, len(scale), generator=generator, dtype=torch.float64)

    state, alive = mean + normal(std), torch.ones(count, dtype=torch.bool)
    states, actions, distances = [env.plant.observe(state)], list[Tensor](), list[Tensor]()
    for t in range(steps):
        seen = act(env.plant.observe(state + normal(noise)))
        # In the environment's own float32, as an actuator gets it.
        action = torch.minimum(torch.maximum(seen.detach().to(limit), -limit), limit).double()
        moved = env.plant.step(state, action)
        alive &= moved.isfinite().all(-1)
        before, after = env.plant.observe(state), env.plant.observe(moved)
        state = torch.where(alive[:, None], moved, state)
        states.append(after.where(alive[:, None], torch.nan))
        actions.append(action.where(alive[:, None], torch.nan))
        if distance is not None and t >= steps - _FINAL_STEPS:
            distances.append(torch.tensor([float(cast(float, env.measure(row)[distance])) for row in state.numpy()]))
        if env.termination is not None:
            alive = alive & ~env.termination(before, action, after)
    furthest = torch.stack(distances).amax(0).double() if distances else torch.zeros(count).double()
    return RealRollouts(torch.stack(states), torch.stack(actions), furthest.where(states[-1].isfinite().all(-1), torch.inf))


def rehearse(task: ScenarioTask, run: Run, *, count: int = 10) -> dict[int, Rehearsal]:
    """Return the rehearsal of each controlled trial of a run, by its index, and keep it in the run's folder, if there is one.

    What is in the folder, of as many rollouts, is not computed again. An agent that keeps no policy, or one whose run has no
    folder, is not let loose again: the rehearsal then holds the trial's own cost only. Raises `FileError` for a damaged folder.
    """
    kept = {index: found for index, found in rehearsals(run).items() if len(found.furthest) in (0, count)}
    missing = [trial for trial in run.controlled if trial.index not in kept]
    if missing:
        model, env = task.model(), task.make_env()
        try:
            agent = task.agent(model)
            for trial in missing:
                if run.load_improvement(trial.index, agent) is not None:
                    run.load_model(trial.index, model)
                    more = _more(task, cast(PlantEnv, env.unwrapped), agent, trial.index, count)
                else:
                    more = None
                kept[trial.index] = _rehearsal(trial, cast(PlantEnv, env.unwrapped), _cost(task), more)
                if run.folder is not None:
                    make_folder(run.folder / "rehearsals")
                    kept[trial.index].save(run.folder / "rehearsals" / f"{trial.index:03d}.safetensors")
        finally:
            env.close()
    return dict(sorted(kept.items()))


def rehearsals(run: Run) -> dict[int, Rehearsal]:
    """Return the rehearsals that a run's folder holds, by trial; raises `FileError` for a damaged one."""
    paths = [] if run.folder is None else sorted((run.folder / "rehearsals").glob("*.safetensors"))
    return {found.index: found for found in map(Rehearsal.load, paths)}


def _more(task: ScenarioTask, env: PlantEnv, agent: Agent, index: int, count: int) -> RealRollouts:
    generator = torch.Generator().manual_seed(index)
    agent.reset(actions_of(env.action_space).space, batch=count, generator=generator)
    scenario = task.scenario
    return real_rollouts(env, agent.act, scenario.horizon, count, generator, scenario.distance)


def _cost(task: ScenarioTask) -> Callable[[Tensor], Tensor]:
    scenario = task.scenario
    lift = Lift(len(scenario.start_mean), scenario.angles)
    return lambda states: task.cost(lift(states))


def _rehearsal(trial: Trial, env: PlantEnv, cost: Callable[[Tensor], Tensor], more: RealRollouts | None) -> Rehearsal:
    episode, size = trial.episode, trial.episode.states.shape[-1]
    actions, true = episode.actions.double(), trial.infos.get("state", episode.states[1:]).double()
    at_limit = actions.abs() >= _AT_THE_LIMIT * torch.from_numpy(env.action_limit)
    if more is None:
        steps = len(episode)
        empty = torch.zeros(steps + 1, 0, size, dtype=torch.float64)
        more = RealRollouts(empty, torch.zeros(steps, 0, actions.shape[-1], dtype=torch.float64), torch.zeros(0).double())
    return Rehearsal(
        trial.index,
        env.plant.observation_names,
        cost(true),
        float(at_limit.all(-1).double().mean()),
        more.states,
        cost(more.states[1:]),
        more.furthest,
    )
