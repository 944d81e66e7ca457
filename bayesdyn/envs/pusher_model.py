"""Gymnasium's `Pusher-v5` with an object that can be pushed: a model file made from the installed one."""

import hashlib
import os
from pathlib import Path
from xml.etree import ElementTree

from bayesdyn.envs.mujoco_env import find, gymnasium_model
from bayesdyn.errors import FileError

_OBJECT_MASS = "0.04"  # kg: what the original's slides have as armature, so that the mass matrix stays as it is


def fixed_pusher_model(folder: str | Path | None = None) -> str:
    """Write the fixed model of `Pusher-v5` and return its path, for `make("Pusher-v5", xml_file=fixed_pusher_model())`.

    The installed model's object weighs milligrams and lives by the armature (0.04 kg) of its slides, which MuJoCo 3 and later leave
    out where they scale contacts: the fingers pass through it. Here the object's visible body weighs 0.04 kg and its slides have no
    armature; nothing else differs. Name the model beside every figure obtained with it.

    `folder` is by default `bayesdyn` in the user's cache (`XDG_CACHE_HOME`, else `~/.cache`). The name follows from the content, so
    two versions of Gymnasium do not overwrite each other's; the file is written whole or not at all.
    Raises `FileError` where the folder cannot be written, `ConfigurationError` where the installed model has no such object.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(fixed_pusher_model(folder)).suffix
    '.xml'
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bayesdyn"
    place = cache if folder is None else Path(folder)
    text = _model()
    path = (place / f"pusher_v5-{hashlib.sha256(text.encode()).hexdigest()[:12]}.xml").absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        _write(text, path)
    except OSError as error:
        raise FileError(f"cannot write the pusher's model to {path}: {error}; pass a folder that can be written") from error
    return str(path)


def _write(text: str, path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _model() -> str:
    root = gymnasium_model("pusher_v5")
    cylinder = find(root, ".//body[@name='object']/geom[@type='cylinder']")
    cylinder.attrib.pop("density", None)
    cylinder.set("mass", _OBJECT_MASS)
    for name in ("obj_slidex", "obj_slidey"):
        find(root, f".//joint[@name='{name}']").set("armature", "0")
    return ElementTree.tostring(root, encoding="unicode")
