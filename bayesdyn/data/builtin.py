"""Logs that come with the package: `quarter_drone`, `ball_hoop`."""

from importlib import resources

from bayesdyn.data.log_files import load_log
from bayesdyn.data.logs import Log
from bayesdyn.errors import UnknownNameError

QUARTER_DRONE_LOGS = ("multisine", "steps", "seq")


def quarter_drone(name: str) -> Log:
    """Return a log of a real quarter-drone: arm angle y in degrees, motor command u in %, as recorded at about 100 Hz.

    `multisine` and `steps` are 100 s each, `seq` 61 s with uneven stamps; all are in closed loop. Resample to 20 Hz before use.
    Source: helonayala/sysid, data/quarter_drone (2026-08-16), the Unlicense.

    Raises `UnknownNameError` for another name.

    >>> quarter_drone("multisine")
    Log(name='multisine', samples=10000, outputs=1, inputs=1, 0 s to 99.99 s)
    """
    if name not in QUARTER_DRONE_LOGS:
        raise UnknownNameError(f"there is no quarter-drone log {name!r}; known are {', '.join(QUARTER_DRONE_LOGS)}")
    return _log("quarter_drone", name)


def ball_hoop() -> Log:
    """Return a log of a real ball in a motor-driven hoop: position y and motor command u, no units stated, every 0.1 s.

    The command is held for 5 s (50 samples) and then drawn afresh, within ±1.
    Source: helonayala/sysid, data/ball_and_hoop (2026-08-16), the Unlicense.

    >>> ball_hoop()
    Log(name='random_steps', samples=8150, outputs=1, inputs=1, 0 s to 814.9 s)
    """
    return _log("ball_hoop", "random_steps")


def _log(folder: str, name: str) -> Log:
    with resources.as_file(resources.files("bayesdyn.data") / folder / f"{name}.npz") as path:
        return load_log(path, outputs=["y"], inputs=["u"], time="t")
