"""`CalibrationReport`: what held-out episodes said of a posterior's width."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration found; `nll` is that of the held-out rows in nats per row, summed over outputs taken one by one.

    `ratio` is √(mean z²) before, by how much the errors were larger than predicted, and `ratio_error` its standard error with
    episodes as the independent pieces: a ratio within two of it from 1 may be chance.
    """

    rows: int
    episodes: int
    ratio: tuple[float, ...]  # [E]
    ratio_error: tuple[float, ...]  # [E]
    epistemic_scale: tuple[float, ...]  # [E]
    aleatoric_scale: tuple[float, ...]  # [E]
    nll_before: float
    nll_after: float
    warnings: tuple[str, ...] = ()
