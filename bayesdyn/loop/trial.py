"""One trial of a run: what happened, what was measured, and what the agent imagined at each step."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.data import Episode, load_tensors, save_tensors
from bayesdyn.errors import FileError, UnknownNameError

_KIND = "trial"
_FINAL_STEPS = 10


@dataclass(frozen=True, eq=False)
class Trial:
    """One episode in the environment.

    infos      numeric infos of the environment after each step, [T] or [T, k] each
    imagined   the fan of trajectories that the plan in force at step t was expected to follow, [T, H+1, n·p, S]; no steps if none
    age        how many steps ago that plan was made, [T]
    metrics    return and steps; of a controlled trial also fit_seconds, fit_nll, planned_return and realised_return (what the first
               plan expected over its horizon, and what these steps earned), plans_per_second, plan_seconds_p50, plan_seconds_p99,
               slowest_plan_seconds, late_plans, and the model's one-step scores on the trial before it learned from it: nll (per
               dimension, whitened units), coverage90, rmse
    warnings   what a person should know about the fit and the plans
    predictions   what the agent's improvement expected of the trial, [T+1, ...] each (`Improvement`)
    """

    index: int
    controlled: bool
    episode: Episode
    infos: dict[str, Tensor] = field(default_factory=dict)
    imagined: Float[Tensor, "T H n S"] = field(default_factory=lambda: torch.zeros(0, 0, 0, 0))
    age: Int[Tensor, "T"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    predictions: dict[str, Tensor] = field(default_factory=dict)

    def last(self, info: str, steps: int = _FINAL_STEPS) -> float:
        """Return the largest value of a scalar info over the last `steps` steps: is the pole up, and does it stay up?

        Raises `UnknownNameError` for an info that was not recorded.
        """
        if info not in self.infos:
            raise UnknownNameError(f"trial {self.index} recorded no info {info!r}; known: {', '.join(self.infos) or 'none'}")
        return float(self.infos[info][-steps:].max())

    def save(self, path: Path) -> None:
        """Write the trial as one file, atomically."""
        tensors = {"states": self.episode.states, "actions": self.episode.actions, "imagined": self.imagined, "age": self.age}
        if self.episode.rewards is not None:
            tensors["rewards"] = self.episode.rewards
        tensors |= {f"info/{name}": values for name, values in self.infos.items()}
        tensors |= {f"prediction/{name}": values for name, values in self.predictions.items()}
        facts = {
            "index": self.index,
            "controlled": self.controlled,
            "terminated": self.episode.terminated,
            "metrics": self.metrics,
            "warnings": list(self.warnings),
        }
        save_tensors(path, tensors, {"facts": json.dumps(facts)}, kind=_KIND)

    @classmethod
    def load(cls, path: Path) -> "Trial":
        """Read what `save` wrote; raises `FileError` for a damaged or foreign file."""
        tensors, metadata = load_tensors(path, kind=_KIND)
        try:
            facts = json.loads(metadata["facts"])
            return cls(
                index=facts["index"],
                controlled=facts["controlled"],
                episode=Episode(tensors["states"], tensors["actions"], tensors.get("rewards"), facts["terminated"]),
                infos=named("info/", tensors),
                imagined=tensors["imagined"],
                age=tensors["age"],
                metrics=facts["metrics"],
                warnings=tuple(facts["warnings"]),
                predictions=named("prediction/", tensors),
            )
        except (KeyError, ValueError) as error:
            raise FileError(f"{path} is no trial that this version reads: {error!r}") from error


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
