"""What a model makes of a trial while it goes on: each transition at once, and a fit every so many steps."""

from dataclasses import dataclass, field, replace

import torch

from bayesdyn.data import Transitions
from bayesdyn.model import DynamicsModel
from bayesdyn.progress import Progress


@dataclass
class Student:
    """Lets a model learn within a trial: `online` from each transition where its posterior can, by a fit every `refit_every` steps.

    A refit is to `earlier`, the data of the trials before, and to the steps of this one so far, `warm_start`ed or from scratch; it
    follows just before the next action, so that none is lost on a trial that ends.

    >>> import bayesdyn as bd
    >>> rows = bd.Transitions.from_arrays([[0.0], [1.0], [2.0]], [[1.0], [1.0], [0.0]], [[1.0], [2.0], [2.0]])
    >>> model = bd.DynamicsModel(bd.Codec(), bd.posteriors.ExactGP())
    >>> student = Student(model, rows, online=False, refit_every=1)
    >>> student.prepare()
    >>> student.observe(bd.Transitions.from_arrays([[2.0]], [[1.0]], [[3.0]]))
    >>> student.prepare()
    >>> len(model.posterior.x), student.fits
    (4, 1)
    """

    model: DynamicsModel
    earlier: Transitions
    online: bool = True
    refit_every: int | None = None
    warm_start: bool = False
    generator: torch.Generator | None = None
    progress: Progress | None = None
    fits: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    _rows: list[Transitions] = field(default_factory=list, init=False)

    def observe(self, transition: Transitions) -> None:
        """Take in what an action led to, one row."""
        self._rows.append(transition)
        if self.online:
            self.model.append(transition)

    def prepare(self) -> None:
        """Fit again where that is due, before the next action is chosen."""
        steps = len(self._rows)
        if self.refit_every is None or steps == 0 or steps % self.refit_every != 0:
            return
        data = Transitions.concat([replace(self.earlier, reward=None), self._trial()])
        report = self.model.fit(data, warm_start=self.warm_start, generator=self.generator, progress=self.progress)
        self.fits += 1
        self.seconds += report.seconds

    def metrics(self) -> dict[str, float]:
        """Return how many fits there were within the trial and how long they took; nothing where there were none."""
        return {"refits": float(self.fits), "refit_seconds": self.seconds} if self.fits else {}

    def _trial(self) -> Transitions:
        """Return the rows of this trial, as one episode."""
        columns = ([getattr(row, name) for row in self._rows] for name in ("state", "action", "next_state"))
        state, action, following = (torch.cat(column) for column in columns)
        return Transitions.from_arrays(state, action, following, episode=torch.zeros(len(self._rows)))
