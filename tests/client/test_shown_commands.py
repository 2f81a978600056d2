"""No document, page or message shows a command that the command line does not read, and what they show works."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur.cli import app, main
from tests.client.command_line import Ended, secateur
from tests.client.script import Script
from tests.client.shown_commands import (
    ADJACENT,
    DOCUMENTS,
    SCRIPTS,
    SOURCES,
    TEMPLATES,
    Shown,
    in_scripts,
    in_shell_blocks,
    in_template,
    in_text,
    reader,
)


def every_command() -> Iterator[Shown]:
    for path in DOCUMENTS:
        yield from in_shell_blocks(path)
    for path in SCRIPTS:
        yield from in_scripts(path)
    for path in (*DOCUMENTS, *SOURCES):
        yield from in_text(path)
    for path in TEMPLATES:
        yield from in_template(path)


def test_no_command_that_is_shown_installs_our_packages_by_their_names() -> None:
    """Anybody may own these names on an index; a wheel's file and a clone's folder are ours."""
    named = re.compile(r"\{?(secateur(-server)?|SERVER|CLIENT)\b\}?([\[=<>~!@;].*)?")
    texts = {path: ADJACENT.sub("", path.read_text("utf-8")) for path in (*DOCUMENTS, *SCRIPTS, *SOURCES, *TEMPLATES)}
    commands = [(path, each) for path, text in texts.items() for each in re.findall(r"pip install ([^`<\n]*)", text)]
    found = [f"{path}: {each}" for path, each in commands if any(map(named.fullmatch, re.split(r"[\s'\"]+", each)))]
    assert len(commands) > 10 and not found, "\n".join(found)


def test_every_command_that_is_shown_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["secateur", "--help"])
    with pytest.raises(SystemExit):
        main()  # which joins the server's commands
    read = reader(app)
    refused = []
    commands = list(every_command())
    for each in commands:
        try:
            read(each)
        except Exception as error:
            refused.append(f"{each}: {error}")
    assert not refused, "\n".join(refused)
    assert {
        "README.md",
        "docs/operations.md",
        "core/engine/exporters/packed/info.py",
        "examples/pipelines/prune.sh",
    } <= {each.where for each in commands}


PLUGIN = '''
import typer
from secateur.cli import add_model, models_app

def register(app: typer.Typer) -> None:
    app.command("greet")(lambda: print("hello"))

    @models_app.command("add")
    def add(name: str, path: str) -> None:
        """Add a model of the garden."""
        print("taken in")
        add_model(name, path + "/taken-in", as_json=False)
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with an installed package that joins the command line."""
    (tmp_path / "garden.py").write_text(PLUGIN)
    info = tmp_path / "garden-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: garden\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[secateur.commands]\nzinnia = garden:register\n")
    return tmp_path


def run(url: str, package: Path, *arguments: str) -> Ended:
    return secateur(url, *arguments, PYTHONPATH=str(package))


def test_a_package_adds_commands_and_replaces_one(url: str, script: Script, package: Path) -> None:
    assert run(url, package, "greet").out == "hello\n"
    added = run(url, package, "models", "add", "m", "/folder")
    assert added.code == 0 and added.out.startswith("taken in\n") and "LlamaForCausalLM" in added.out
    assert script.requests("POST", "/v1/models")[0].body == {"name": "m", "path": "/folder/taken-in"}
    listed = run(url, package, "models", "--help").out
    assert "Add a model of the garden." in listed and "Register a model" not in listed
