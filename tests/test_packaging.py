"""The package as it is installed: what it needs, what it exports, which versions are pinned, which layer knows which."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "bayesdyn").rglob("*.py"))
MODULES = sorted(
    {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in FILES} - {"bayesdyn.__main__"}
)
PUBLIC = [name for name in MODULES if not any(part.startswith("_") for part in name.split("."))]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
STRANGERS = {
    ("planners", "posteriors"),
    ("policies", "posteriors"),
    ("rollout", "posteriors"),
    ("posteriors", "envs"),
    ("envs", "posteriors"),
}
PINS = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def core_distributions() -> set[str]:
    """Return the names of everything that a plain `pip install bayesdyn` brings, dependencies of dependencies included."""
    found: set[str] = set()
    queue = [Requirement(text) for text in PROJECT["dependencies"]]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            queue += [Requirement(text) for text in importlib.metadata.requires(name) or ()]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def test_imports_lightly_and_without_extras() -> None:
    """A plain install imports every module, and `import bayesdyn` leaves Matplotlib alone: a training job draws nothing.

    Packages that an extra has brought are refused here, as if they were not installed.
    """
    core = core_distributions() | {"bayesdyn"}
    refused = [
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if core.isdisjoint(canonicalize_name(owner) for owner in owners)
    ]
    assert "pytest" in refused
    program = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}: it comes with an extra only", name=name)
sys.meta_path.insert(0, Refuse())
import bayesdyn
assert "matplotlib" not in sys.modules, "import bayesdyn brings Matplotlib"
for name in sys.argv[2].split(","):
    importlib.import_module(name)
"""
    command = [sys.executable, "-c", program, ",".join(refused), ",".join(MODULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_metadata_version_is_the_project_version() -> None:
    """An installed copy says the version that pyproject.toml says."""
    assert importlib.metadata.version("bayesdyn") == PROJECT["version"]


def test_data_files_are_packaged() -> None:
    """What stands in the package beside its code (data, templates, the typing marker) is installed with it."""
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["bayesdyn"]
    packaged = {file for pattern in patterns for file in (ROOT / "bayesdyn").glob(pattern)}
    beside = {f for f in (ROOT / "bayesdyn").rglob("*") if f.is_file() and f.suffix not in {".py", ".pyc"}}
    assert beside - packaged == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_exported_names_resolve(name: str) -> None:
    """Each name in `__all__` exists, and stands there once."""
    module = importlib.import_module(name)
    exported = list(getattr(module, "__all__", ()))
    assert sorted(set(exported)) == sorted(exported)
    assert [n for n in exported if getattr(module, n, None) is None] == []


def test_shapes_and_types_are_checked_in_tests() -> None:
    """The hook that compares tensors with their annotated shapes is on; an int passes for a float, as it does for mypy."""
    from bayesdyn.objectives import CVaR
    from bayesdyn.posteriors.base import r_squared

    with pytest.raises(TypeCheckError):
        r_squared(torch.zeros(2, 1), torch.zeros(3, 1))
    assert CVaR(alpha=1)(torch.tensor([[1.0], [3.0]])).item() == 2.0


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["docs"]])
def test_constraints_pin_every_requirement(requirement: str) -> None:
    """What the Makefile installs has one exact version, which the requirement allows."""
    wanted = Requirement(requirement)
    pinned = {canonicalize_name(pin.name): pin for pin in map(Requirement, PINS)}[canonicalize_name(wanted.name)]
    (version,) = pinned.specifier
    assert version.operator == "=="
    assert wanted.specifier.contains(version.version)


def test_constraints_name_no_place() -> None:
    """Pins are names and public versions: no file, address or local build."""
    assert [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin)] == []


def layers() -> dict[str, int]:
    """Return the layer of each top-level module, as the table of docs/design.md states it."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| *(\d) *\|.*\|([^|]+)\|$", text, flags=re.MULTILINE)
    return {module: int(level) for level, modules in rows for module in re.findall(r"`(\w+)`", modules)}


def imported_modules(tree: ast.AST) -> set[str]:
    """Return the top-level modules of the package that a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("bayesdyn.")}


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.parent.name != "bayesdyn" or f.stem != "__init__"], ids=lambda f: f.relative_to(ROOT).as_posix()
)
def test_a_lower_layer_knows_no_higher_one(path: Path) -> None:
    """A file imports its own layer and those below it, and no stranger; docs/design.md says which layer a module belongs to."""
    level = layers()
    here = path.relative_to(ROOT / "bayesdyn").with_suffix("").parts[0]
    assert here in level, f"{here} has no layer: add it to the table in docs/design.md"
    imports = imported_modules(ast.parse(path.read_text(encoding="utf-8")))
    assert {name for name in imports if level.get(name, 0) > level[here] or (here, name) in STRANGERS} == set()
