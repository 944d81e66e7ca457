"""The part that every comparison has: a posterior is fitted, and scored on held-out and shifted data, one step and many ahead."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Predictive
from bayesdyn.evaluation.candidates import Candidate
from bayesdyn.evaluation.decided import Anchor
from bayesdyn.evaluation.decisions import DecisionTask, decision_anchor, decisions
from bayesdyn.evaluation.fan import fan
from bayesdyn.evaluation.open_loop import OpenLoop, Scale
from bayesdyn.evaluation.parts import Findings, Part, hashed, options
from bayesdyn.evaluation.scoring import HeldOut, Model, by_horizon, detection, one_step, pointwise, ranking_by_horizon
from bayesdyn.evaluation.seeds import seeded, stream
from bayesdyn.evaluation.skill import Reference
from bayesdyn.evaluation.skill import references as horizon_references
from bayesdyn.evaluation.speed import speed_rows
from bayesdyn.evaluation.table import IN_DISTRIBUTION, RECALIBRATED, TEST, TRAIN, Row
from bayesdyn.evaluation.workers import Tell, Workers
from bayesdyn.model import DynamicsModel
from bayesdyn.posteriors.base import FitReport

_FIT, _NULL, _OPEN_LOOP, _FAN, _RANKING, _SPEED = range(6)


@dataclass(frozen=True, eq=False)
class Scores(Part):
    """Fit on `train`, score on `tests`; with `calibration`, once more after recalibration; with `decisions`, plans too.

    `anchors` are what the decisions of a seed share (`prepared` makes them).
    """

    data: str
    train: Transitions
    tests: tuple[HeldOut, ...]
    codec: Callable[[], BaseCodec]
    settings: OpenLoop
    replicates: int
    calibration: Transitions | None = None
    decisions: DecisionTask | None = None
    anchors: Mapping[int, Anchor] = field(default_factory=dict)
    name = ""

    def concerns(self, candidate: Candidate) -> bool:
        """Everything is scored, references that have no posterior too."""
        return True

    @cached_property
    def references(self) -> dict[str, Reference]:
        """What skill is measured against, the same for all cells."""
        return horizon_references(self.train, self.codec, self.settings.horizons)

    def prepared(self, seeds: Sequence[int], workers: Workers) -> "Scores":
        """Return this part with its references fitted, and each seed's anchor made."""
        task, anchors = self.decisions, {}
        if task is not None:
            found = workers.run(lambda seed, tell: decision_anchor(task, seed), seeds, lambda seed: lambda *stage: None)
            anchors = {seeds[index]: anchor for index, anchor in found}
        ready = replace(self, anchors=anchors)
        len(ready.references)  # so that it travels with the part
        return ready

    def fingerprint(self, candidate: Candidate) -> str:
        """Return a hash of data, settings and the candidate's options."""
        codec = self.codec()
        settings = {
            "data": self.data,
            "shifts": [test.shift for test in self.tests],
            "open loop": self.settings,
            "replicates": self.replicates,
            "decisions": self.decisions,
            "options": options(codec, candidate.model(codec)),
        }
        return hashed(settings, [self.train, *(test.transitions for test in self.tests), self.calibration])

    def row(self, candidate: Candidate, seed: int) -> Row:
        """Return the row of the fit."""
        return Row(candidate.name, self.data, IN_DISTRIBUTION, seed, TEST, "failed", count=len(self.train))

    def ask(self, candidate: Candidate, seed: int, tell: Tell) -> Findings:
        """Fit, and score all there is to score."""
        codec, row = self.codec(), self.row(candidate, seed)
        adjustable = None if self.calibration is None else candidate.recalibrated(codec)
        model = candidate.model(codec) if adjustable is None else adjustable
        fit = model.fit(
            self.train,
            generator=seeded(seed, _FIT),
            progress=lambda done, total, figures: tell("fit", done, total),
        )
        found = Findings(warnings=list(fit.warnings))
        found.add(_fit_rows(row, fit))
        self._held_out(found, model, codec, row, tell)
        self._decide(found, model, row, "decisions", tell)
        if adjustable is not None:
            self._recalibrated(found, adjustable, codec, replace(row, split=RECALIBRATED), tell)
        return found

    @torch.no_grad()
    def _held_out(self, found: Findings, model: Model, codec: BaseCodec, row: Row, tell: Tell) -> None:
        """Score every test, and how the shifted ones are told from the one in distribution."""
        predictives = {}
        for index, test in enumerate(self.tests):
            tell(test.shift, index, len(self.tests))
            predictives[test.shift], y = self._test(found, model, codec, test, row, self.settings)
            found.add(
                ranking_by_horizon(model, codec, test, row, self.settings, self.replicates, stream(row.seed, _RANKING)),
                {**pointwise(predictives[test.shift], y), **fan(model, codec, test.windows, stream(row.seed, _FAN))},
                test.shift,
            )
        inside = predictives.pop(IN_DISTRIBUTION)
        found.add(detection(row, inside, predictives))
        found.add(speed_rows(row, model, self.train, seeded(row.seed, _SPEED)))

    @torch.no_grad()
    def _recalibrated(self, found: Findings, model: DynamicsModel, codec: BaseCodec, row: Row, tell: Tell) -> None:
        """Calibrate, and score again what calibration changes, from the same random numbers."""
        assert self.calibration is not None
        report = model.calibrate(self.calibration)
        found.warnings += report.warnings
        base = replace(row, split="calibration", count=report.rows)
        for metric in ("ratio", "ratio_error", "epistemic_scale", "aleatoric_scale"):
            values = zip(codec.outputs, getattr(report, metric), strict=True)
            found.add(replace(base, metric=f"calibration_{metric}", output=str(output), value=value) for output, value in values)
        for index, test in enumerate(self.tests):
            tell(f"{test.shift}, recalibrated", index, len(self.tests))
            predictive, y = self._test(found, model, codec, test, row, self.settings.spreading)
            found.add((), pointwise(predictive, y), f"{RECALIBRATED}/{test.shift}")
        self._decide(found, model, row, f"{RECALIBRATED}/decisions", tell)

    def _test(
        self, found: Findings, model: Model, codec: BaseCodec, test: HeldOut, row: Row, settings: OpenLoop
    ) -> tuple[Predictive, Tensor]:
        """Score one test one step ahead and by horizon; return the predictive and y."""
        null = seeded(row.seed, _NULL)
        rows, predictive, y = one_step(model, codec, test, row, self.replicates, null)
        scale = Scale.of(codec, self.train, test.transitions)
        rolled = stream(row.seed, _OPEN_LOOP)
        found.add([*rows, *by_horizon(model, codec, test, scale, row, settings, rolled, self.references)])
        return predictive, y

    def _decide(self, found: Findings, model: Model, row: Row, under: str, tell: Tell) -> None:
        """Plan with the model, and carry the plans out."""
        if self.decisions is None:
            return
        tell(under, 0, 1)
        with torch.enable_grad():  # a planner may follow gradients
            rows, arrays = decisions(model, self.decisions, self.anchors[row.seed], row)
        found.add(rows, arrays, under)


def _fit_rows(row: Row, fit: FitReport) -> list[Row]:
    figures = {"fit_seconds": fit.seconds, "fit_steps": fit.steps, "train_nll": fit.nll, "train_penalty": fit.penalty}
    return [replace(row, split=TRAIN, metric=metric, value=float(value)) for metric, value in figures.items()]
