from pathlib import Path

import pytest

from tests.client.command_line import Ended, secateur
from tests.client.script import Script

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


def test_a_package_that_cannot_be_imported_is_named_and_takes_nothing_away(
    url: str, script: Script, package: Path
) -> None:
    (package / "garden.py").write_text("import no_such_module")
    listed = run(url, package, "jobs")
    assert listed.code == 0 and "no jobs" in listed.out
    assert "garden:register are not available: No module named 'no_such_module'" in listed.err
