"""A run is a folder: configuration, trials, models, metrics, pictures; nothing that was finished is ever lost."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bayesdyn.agents import Agent, Improvement
from bayesdyn.data import Transitions, load_tensors, make_folder, save_tensors, write_atomically
from bayesdyn.data.describe import differences
from bayesdyn.errors import ConfigurationError, FileError
from bayesdyn.loop.trial import Trial, named
from bayesdyn.model import DynamicsModel

_FORMAT = "bayesdyn-run/1"


@dataclass(frozen=True)
class Fit:
    """What a trial remembers of the fit before it."""

    seconds: float
    nll: float
    warnings: tuple[str, ...] = ()


class Run:
    """The trials of a run, in memory and, with a folder, on disk:

        config.json               what made it
        trials/NNN.safetensors    trial NNN
        models/NNN.safetensors    the model as it was fitted before trial NNN, and beside it NNN.json, about that fit
        agents/NNN.safetensors    what the agent had learned before trial NNN, if it learns, and what it expected of that trial
        metrics.csv               the metrics of all trials, one row each
        pictures/                 room for pictures of it

    Each file is written whole or not at all, a trial as soon as it ends, so that a run can be killed at any moment and resumed.
    """

    def __init__(self, folder: Path | None, config: dict[str, Any], trials: list[Trial]) -> None:
        self.folder = folder
        self.config = config
        self.trials = trials

    def __repr__(self) -> str:
        return f"Run({len(self.trials)} trials, folder={str(self.folder) if self.folder else None})"

    @classmethod
    def start(cls, folder: str | Path | None, config: dict[str, Any]) -> "Run":
        """Begin a run, or take up the one in `folder`, which must have been made with the same configuration.

        Raises `ConfigurationError` naming what differs, `FileError` for a damaged folder.
        """
        config = json.loads(json.dumps({"format": _FORMAT, **config}))
        if folder is None:
            return cls(None, config, [])
        folder = Path(folder)
        if (folder / "config.json").exists():
            run = cls.open(folder)
            changed = differences(run.config, config)
            if changed:
                raise ConfigurationError(f"{folder} holds a run that differs ({'; '.join(changed)}); choose another folder")
            run._write_metrics()
            return run
        if next(folder.glob("trials/*.safetensors"), None) is not None:
            raise FileError(f"{folder} holds trials, but no config.json that says what made them; choose another folder")
        for name in ("trials", "models", "pictures"):
            make_folder(folder / name)
        write_atomically(folder / "config.json", lambda file: file.write(json.dumps(config, indent=2).encode()))
        return cls(folder, config, [])

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Read a run; raises `FileError` if the folder holds none or a file is damaged."""
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
        except FileNotFoundError as error:
            raise FileError(f"{folder} holds no run: there is no config.json in it") from error
        except ValueError as error:
            raise FileError(f"{folder / 'config.json'} is damaged: {error}") from error
        if not isinstance(config, dict) or config.get("format") != _FORMAT:
            raise FileError(f"{folder} holds no run that this version reads: config.json does not say {_FORMAT}")
        trials = sorted((Trial.load(path) for path in (folder / "trials").glob("*.safetensors")), key=lambda trial: trial.index)
        if [trial.index for trial in trials] != list(range(len(trials))):
            raise FileError(f"{folder / 'trials'} lacks a trial: found {[trial.index for trial in trials]}")
        return cls(folder, config, trials)

    @property
    def controlled(self) -> list[Trial]:
        """The trials that the agent acted in, without the random ones before."""
        return [trial for trial in self.trials if trial.controlled]

    def add(self, trial: Trial) -> None:
        """Append a finished trial and write it."""
        self.trials.append(trial)
        if self.folder is not None:
            trial.save(self.folder / "trials" / f"{trial.index:03d}.safetensors")
        self._write_metrics()

    def transitions(self) -> Transitions:
        """Return the data of all trials, one episode each."""
        return Transitions.from_episodes([trial.episode for trial in self.trials])

    def save_fit(self, index: int, model: DynamicsModel, fit: Fit) -> None:
        """Keep the model that was fitted before trial `index`."""
        if self.folder is not None:
            # The model last: where it is, the rest is.
            facts = json.dumps(asdict(fit)).encode()
            write_atomically(self._model_path(index).with_suffix(".json"), lambda file: file.write(facts))
            model.save(self._model_path(index))

    def load_fit(self, index: int, model: DynamicsModel) -> Fit | None:
        """Load the model that was fitted before trial `index`, if it was kept.

        Raises `FileError` for damaged files.
        """
        if self.folder is None or not self._model_path(index).exists():
            return None
        path = self._model_path(index).with_suffix(".json")
        try:
            facts = json.loads(path.read_text())
            fit = Fit(facts["seconds"], facts["nll"], tuple(facts["warnings"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path} is missing or damaged ({error}); remove the model beside it to fit again") from error
        self.load_model(index, model)
        return fit

    def load_model(self, index: int, model: DynamicsModel) -> None:
        """Bring the model back to its fit before trial `index`; without a folder it is still there.

        Raises `FileError` if the file is missing or damaged.
        """
        if self.folder is not None:
            model.load(self._model_path(index))

    def save_improvement(self, index: int, agent: Agent, improvement: Improvement) -> None:
        """Keep what the agent has learned before trial `index`; nothing is written of an agent that does not learn."""
        memory = agent.memory()
        if self.folder is None or not memory:
            return
        tensors = {f"memory/{name}": values for name, values in memory.items()}
        tensors |= {f"prediction/{name}": values for name, values in improvement.predictions.items()}
        facts = {"metrics": improvement.metrics, "warnings": list(improvement.warnings)}
        make_folder(self.folder / "agents")
        save_tensors(self._agent_path(index), tensors, {"facts": json.dumps(facts)}, kind="agent")

    def load_improvement(self, index: int, agent: Agent) -> Improvement | None:
        """Bring the agent back to what it had learned before trial `index`, if that was kept.

        Raises `FileError` for a damaged file.
        """
        path = self._agent_path(index)
        if self.folder is None or not path.exists():
            return None
        tensors, metadata = load_tensors(path, kind="agent")
        try:
            facts = json.loads(metadata["facts"])
            improvement = Improvement(facts["metrics"], named("prediction/", tensors), tuple(facts["warnings"]))
        except (KeyError, ValueError, TypeError) as error:
            raise FileError(f"{path} is no agent that this version reads: {error!r}; remove it to improve again") from error
        agent.recall(named("memory/", tensors))
        return improvement

    def _agent_path(self, index: int) -> Path:
        return (self.folder or Path()) / "agents" / f"{index:03d}.safetensors"

    def _model_path(self, index: int) -> Path:
        return (self.folder or Path()) / "models" / f"{index:03d}.safetensors"

    def _write_metrics(self) -> None:
        if self.folder is None:
            return
        columns = ["trial", "controlled"]
        for trial in self.trials:
            columns += [name for name in trial.metrics if name not in columns]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        for trial in self.trials:
            writer.writerow({"trial": trial.index, "controlled": trial.controlled, **trial.metrics})
        write_atomically(self.folder / "metrics.csv", lambda file: file.write(text.getvalue().encode()))
