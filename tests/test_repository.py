"""The repository keeps its word: links resolve, and what is mentioned is there."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from serve_app.cli.main import COMMANDS
from serve_app.section import Section
from serve_app.settings import Settings, UserConfig

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
    edges = ("serve_app/http", "serve_app/grpc")
    for file in (file for edge in edges for file in (ROOT / edge).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                raised.add(ast.literal_eval(node.args[1]))
    told = re.findall(r"^## `([a-z-]+)`", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(raised)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_module(command: str) -> None:
    assert import_module(COMMANDS[command][0]).app is not None


def test_settings_and_options_that_pages_name_exist() -> None:
    settings, options = set(_settings("", Settings())), _options()
    settings |= set(_settings("", UserConfig()))
    sections = {name.split(".")[0] for name in settings}
    unknown = []
    for page in PAGES:
        text = page.read_text()
        named = re.findall(r"`(?:user_config\.|args\.)?([a-z_]+(?:\.[a-z_]+)+)`", text)
        unknown += [n for n in named if n.split(".")[0] in sections and n not in settings]
        for command, rest in re.findall(r"treeline ([a-z]+)((?:[^`\n]|\\\n)*)", text):
            known = options.get(command, set())
            unknown += [o for o in re.findall(r"--[a-z-]+", rest) if known and o not in known]
    assert unknown == []


def _settings(prefix: str, section: BaseModel) -> Iterator[str]:
    for name in type(section).model_fields:
        yield f"{prefix}{name}"
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _settings(f"{prefix}{name}.", value)


def _options() -> dict[str, set[str]]:
    def of(command: Any) -> set[str]:
        own = {option for parameter in command.params for option in parameter.opts}
        return own.union(*(of(each) for each in getattr(command, "commands", {}).values()))

    apps = {name: import_module(module).app for name, (module, _) in COMMANDS.items()}
    return {name: of(typer.main.get_command(app)) for name, app in apps.items()}
