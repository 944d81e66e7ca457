"""One trial of a run: what happened, what was measured, and what the agent imagined at each step."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.data import Episode, load_tensors, save_tensors

_KIND = "trial"
_FINAL_STEPS = 10


@dataclass(frozen=True, eq=False)
class Trial:
    """One episode in the environment.

    infos      numeric infos of the environment after each step, [T] or [T, k] each
    imagined   the fan of trajectories that the plan in force at step t was expected to follow, [T, H+1, n·p, S]; no steps if none
    age        how many steps ago that plan was made, [T]
    """

    index: int
    controlled: bool
    episode: Episode
    infos: dict[str, Tensor] = field(default_factory=dict)
    imagined: Float[Tensor, "T H n S"] = field(default_factory=lambda: torch.zeros(0, 0, 0, 0))
    age: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def last(self, info: str, steps: int = _FINAL_STEPS) -> float:
        """Return the largest value of a scalar info over the last `steps` steps: is the pole up, and does it stay up?"""
        return float(self.infos[info][-steps:].max())

    def save(self, path: Path) -> None:
        """Write the trial as one file, atomically."""
        tensors = {"states": self.episode.states, "actions": self.episode.actions, "imagined": self.imagined, "age": self.age}
        if self.episode.rewards is not None:
            tensors["rewards"] = self.episode.rewards
        tensors |= {f"info/{name}": values for name, values in self.infos.items()}
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
        facts = json.loads(metadata["facts"])
        return cls(
            index=facts["index"],
            controlled=facts["controlled"],
            episode=Episode(tensors["states"], tensors["actions"], tensors.get("rewards"), facts["terminated"]),
            infos={name.removeprefix("info/"): values for name, values in tensors.items() if name.startswith("info/")},
            imagined=tensors["imagined"],
            age=tensors["age"],
            metrics=facts["metrics"],
            warnings=tuple(facts["warnings"]),
        )
