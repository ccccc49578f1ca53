"""The repository keeps its word: links resolve, and what is mentioned is there."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from serve_app.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_pages_that_code_and_configs_refer_to_exist() -> None:
    folders = ("serve_app", "autoscaling", "monitoring", "configs", "benchmarks", "docs")
    files = [f for folder in folders for f in (ROOT / folder).rglob("*.*")]
    texts = [f.read_text() for f in files if f.suffix in (".py", ".yaml", ".md")]
    named = {name for text in texts for name in re.findall(r"docs/[a-z0-9/-]+\.md", text)}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_problem_has_its_section() -> None:
    raised = set()
    for file in (ROOT / "serve_app/http").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                raised.add(ast.literal_eval(node.args[1]))
    told = re.findall(r"^## `([a-z-]+)`", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(raised)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_module(command: str) -> None:
    assert import_module(COMMANDS[command][0]).app is not None
