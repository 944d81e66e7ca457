"""Every Python block of the README and of the documentation runs as it stands."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import gymnasium
import pytest

from bayesdyn.envs import CARTPOLE_ID

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL
)
MODULES = {f.relative_to(ROOT / "bayesdyn").with_suffix("").parts[0] for f in (ROOT / "bayesdyn").rglob("[a-z]*.py")}
INTERNAL = {"cli", "linalg", "report"}


class Block(NamedTuple):
    """A fenced block: its language, whether its page asks not to run it, its first line's number and its text."""

    language: str
    runs: bool
    line: int
    code: str


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown page; a second word `no-run` after the language keeps a block from running."""
    found = []
    for match in FENCE.finditer(text):
        language, *options = match["info"].split() or [""]
        line = text[: match.start("body")].count("\n") + 1
        found.append(Block(language, "no-run" not in options, line, textwrap.dedent(match["body"])))
    return found


def python_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that have to run."""
    return [block for block in blocks(page.read_text(encoding="utf-8")) if block.language == "python" and block.runs]


def run_page(text: str, name: str) -> dict[str, object]:
    """Run a page's Python blocks in order in one namespace, which is returned; tracebacks carry the page's line numbers."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        if block.language == "python" and block.runs:
            exec(compile("\n" * (block.line - 1) + block.code, name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p)], ids=lambda p: p.relative_to(ROOT).as_posix())
@pytest.mark.usefixtures("unchecked_shapes")
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who pastes a page's blocks one after the other gets no error and no warning, here in episodes of a few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gymnasium.spec(CARTPOLE_ID), "max_episode_steps", 10)
    run_page(page.read_text(encoding="utf-8"), str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_is_spelled_python(page: Path) -> None:
    """No block escapes the check above by another name of the language."""
    assert [b.line for b in blocks(page.read_text(encoding="utf-8")) if b.language in {"py", "py3", "python3", "Python"}] == []


def test_blocks_share_a_namespace_and_respect_no_run() -> None:
    """The runner sees indented and plain fences, keeps the page's line numbers and leaves `no-run` alone."""
    text = "Text\n\n```python\na = 1\n```\n\n    ```python\n    b = a + 1\n    ```\n\n```python no-run\nraise ValueError\n```\n"
    assert run_page(text, "page")["b"] == 2
    assert [(block.line, block.runs) for block in blocks(text)] == [(4, True), (8, True), (12, False)]


def test_a_failing_block_fails_the_page() -> None:
    """An error in a block surfaces, with the page's own line."""
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("```python\nx = 1\nx / 0\n```\n", "page")
    assert caught.traceback[-1].lineno + 1 == 3


@pytest.mark.parametrize("module", sorted(MODULES - INTERNAL))
def test_reference_covers_the_package(module: str) -> None:
    """Each public module of the package has its place on a page of docs/reference."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    assert re.search(rf"^::: bayesdyn\.{module}$", pages, re.MULTILINE), f"add `::: bayesdyn.{module}` to a page of docs/reference"
