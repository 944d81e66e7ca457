"""What a planner waits for: the time that one draw of θ takes, and one step of it."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from bayesdyn.data import Transitions
from bayesdyn.evaluation.scoring import Model
from bayesdyn.evaluation.table import TRAIN, Row

_DRAWS, _STATES, _REPEATS = 16, 64, 5


def speed_rows(row: Row, model: Model, transitions: Transitions, generator: torch.Generator) -> list[Row]:
    """Return `draw_seconds`, wall clock per θ of 16 drawn at once, and `step_seconds`, per state of 16 draws x 64 states.

    The fastest of five, after one that is not counted. They hold for this machine and what else it does, and compare the models of
    one table; a planner's own batch is larger as a rule, and then a state costs less.

    >>> from bayesdyn import Codec
    >>> from bayesdyn.evaluation.baselines import Persistence
    >>> state = torch.linspace(-1, 1, 5).double().unsqueeze(1)
    >>> data = Transitions.from_arrays(state, 0 * state, state)
    >>> model = Persistence(Codec())
    >>> report = model.fit(data)
    >>> rows = speed_rows(Row("persistence", "toy", "none", 0, "test", ""), model, data, torch.Generator())
    >>> [row.metric for row in rows], min(row.value for row in rows) > 0
    (['draw_seconds', 'step_seconds'], True)
    """
    dtype = model.predict_target(transitions.state[:1], transitions.action[:1]).component_mean.dtype
    chosen = torch.arange(_STATES) % len(transitions)
    state, action = (each[chosen].to(dtype).expand(_DRAWS, -1, -1) for each in (transitions.state, transitions.action))
    dynamics = model.sample(_DRAWS, generator, dtype=dtype)
    figures = {
        "draw_seconds": _fastest(lambda: model.sample(_DRAWS, generator, dtype=dtype)) / _DRAWS,
        "step_seconds": _fastest(lambda: dynamics(state, action)) / (_DRAWS * _STATES),
    }
    return [replace(row, split=TRAIN, metric=metric, value=value) for metric, value in figures.items()]


def _fastest(call: Callable[[], object]) -> float:
    """Return the wall clock of the fastest call, in seconds."""
    call()
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
