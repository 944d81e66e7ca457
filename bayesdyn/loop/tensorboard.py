"""`TensorBoardMonitor`: what TensorBoard shows of a run."""

from pathlib import Path
from types import TracebackType

from bayesdyn.errors import MissingExtraError
from bayesdyn.loop.monitor import Monitor
from bayesdyn.loop.trial import Trial


class TensorBoardMonitor(Monitor):
    """Writes each trial's metrics, the curves of fits and of the agent's learning, as scalars that TensorBoard reads.

    `trial/NAME` has one point for each trial, at its number; `fit/NAME` and `improve/NAME` one for each report, at 10,000 times
    the trial's number plus the report's, so that a resumed run goes on in the same folder. `info` names an environment's info to
    show, its last value in each trial.

    Raises `MissingExtraError` where TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path, info: str | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("TensorBoardMonitor wants TensorBoard: pip install 'bayesdyn[tensorboard]'") from error
        self.info = info
        self._writer = SummaryWriter(str(folder))
        self._reports = {"fit": 0, "improve": 0}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def trial_started(self, index: int, trials: int, steps: int | None) -> None:
        """Begin to count reports anew."""
        self._reports = {"fit": 10_000 * index, "improve": 10_000 * index}

    def fitting(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """Write a point of the fit's curves."""
        self._report("fit", figures)

    def improving(self, done: int, steps: int, figures: dict[str, float]) -> None:
        """Write a point of what the agent learns."""
        self._report("improve", figures)

    def trial_finished(self, trial: Trial) -> None:
        """Write the trial's metrics."""
        figures = dict(trial.metrics)
        if self.info is not None and self.info in trial.infos:
            figures[self.info] = float(trial.infos[self.info][-1])
        for name, value in figures.items():
            self._writer.add_scalar(f"trial/{name}", value, trial.index)
        self._writer.flush()

    def _report(self, what: str, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"{what}/{name}", value, self._reports[what])
        self._reports[what] += 1
