"""What the README and the docs show is run: every Python block, in order, and every command's options."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "node_modules" not in p.parts)]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """(line, text) of each fenced block of `language`."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start()].count("\n") + 2, m[2]) for m in BLOCK.finditer(text) if m[1] == language]


@pytest.fixture
def hypothesis_as_it_comes() -> Iterator[None]:
    """Its deadline and its health checks, which a reader has who copies a block; only which examples are drawn stays fixed."""
    before = settings.default
    settings.register_profile("reader", settings.get_profile("default"), derandomize=True, database=None)
    settings.load_profile("reader")
    yield
    settings.register_profile("before", before)
    settings.load_profile("before")


@pytest.mark.usefixtures("hypothesis_as_it_comes")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("__docs__")  # dataclasses look for the module of their class
    monkeypatch.setitem(sys.modules, "__docs__", module)
    for line, text in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + text, str(page), "exec", dont_inherit=True), module.__dict__)


def test_the_readme_opens_with_the_two_commands() -> None:
    commands = [text.strip() for _, text in blocks(ROOT / "README.md", "sh")]
    assert commands[:2] == ["pip install -e . && python examples/train_unet.py", 'pip install -e ".[test]" && pytest']


def shell_lines() -> list[tuple[str, str]]:
    return [
        (page.name, line) for page in PAGES for _, text in blocks(page, "sh") for line in text.strip().splitlines() if "python " in line
    ]


@pytest.mark.parametrize(("page", "line"), shell_lines())
def test_every_option_that_a_command_shows_exists(page: str, line: str) -> None:
    """Ask the program itself: its --help must name each long option that the documentation uses."""
    command = line[line.index("python ") :].split("#")[0].split()
    target = command[1:4] if command[1] == "-m" else command[1:2]
    if target[:2] == ["-m", "pytest"] or (target[0] == "-m" and target[1] != "minidcnn"):
        pytest.skip("not a command of ours")
    shown = subprocess.run([sys.executable, *target, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert shown.returncode == 0, shown.stderr
    for option in (part.split("=")[0] for part in command if part.startswith("--")):
        assert re.search(rf"{option}\b", shown.stdout), f"{page}: `{' '.join(target)}` has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"
