"""Configurations as plain data, so that a run can say what made it and tell two configurations apart."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import nn

from bayesdyn.beliefs import MomentMap


@singledispatch
def describe(value: Any) -> Any:
    """Return what configures `value` as JSON data.

    Dataclasses are told by their init fields, modules and moment maps, such as costs, by their public attributes.

    Other objects and functions are told by their names alone, so the text is the same in every process.

    >>> from bayesdyn.planners import CEM
    >>> describe(CEM(horizon=3))["horizon"], describe(print), describe(torch.float32)
    (3, 'print', 'torch.float32')
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {"class": type(value).__qualname__, **{f.name: describe(getattr(value, f.name)) for f in fields(value) if f.init}}
    return getattr(value, "__qualname__", type(value).__qualname__)


@describe.register(bool | int | float | str | None)
def _(value: Any) -> Any:
    return value


@describe.register(torch.dtype)
def _(value: torch.dtype) -> str:
    return str(value)


@describe.register(list | tuple)
def _(value: Any) -> list[Any]:
    return [describe(item) for item in value]


@describe.register
def _(value: Mapping) -> dict[str, Any]:
    return {str(name): describe(item) for name, item in value.items()}


@describe.register(torch.Tensor | np.ndarray | np.generic)
def _(value: Any) -> Any:
    return value.tolist()


@describe.register
def _(value: MomentMap) -> dict[str, Any]:
    return {"class": type(value).__qualname__, **describe({k: item for k, item in vars(value).items() if not k.startswith("_")})}


@describe.register
def _(value: nn.Module) -> dict[str, Any]:
    # Buffers and parameters are what a module learned, not what configures it; `training` is the mode flag of every module.
    settings = {name: item for name, item in vars(value).items() if not name.startswith("_") and name != "training"}
    return {"class": type(value).__qualname__, **describe({**settings, **dict(value.named_children())})}


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Say where two descriptions differ, one line per place; a setting that one has empty and the other not at all is the same.

    >>> differences({"seed": 0, "planner": {"horizon": 3}}, {"seed": 0, "planner": {"horizon": 4}})
    ['planner.horizon: 3 there, 4 now']
    """
    # As text, because a NaN differs from itself.
    if json.dumps(before) == json.dumps(now):
        return []
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [f"{path or 'configuration'}: {before!r} there, {now!r} now"]
    inner = f"{path}." if path else ""
    # What was saved before a setting existed has it as its default says, where that is to have none.
    names = [name for name in {**before, **now} if not (name in before) ^ (name in now) or {**before, **now}[name] not in ([], {})]
    return [line for name in names for line in differences(before.get(name), now.get(name), f"{inner}{name}")]
