"""No document, page or message shows a command that the command line does not read, and what they show works."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from secateur.cli import app, main
from secateur.errors import ConfigurationError
from tests.client.command_line import Ended, secateur
from tests.client.script import Script

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = [path for path in sorted((ROOT / "examples" / "pipelines").iterdir()) if path.suffix in (".sh", ".yml")]
SOURCES = [path for folder in ("api", "core", "worker", "client/src") for path in sorted((ROOT / folder).rglob("*.py"))]
TEMPLATES = sorted((ROOT / "api" / "portal" / "templates").rglob("*.html"))

_AND_SO_ON = "…"
_BLOCK = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_HERE_DOCUMENT = re.compile(r"<<\s*'?(\w+)'?.*?^\1$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`(secateur [^`]+)`")
ADJACENT = re.compile(r"""(["'])\s*\n\s*[fr]*\1""")
"""The text between two parts of one text of Python."""
_CODE = re.compile(r"<code>(secateur [^<]+)</code>")
_PLACEHOLDER = re.compile(r"ID|JOB|NAME|FILE|FOLDER|URL")
_ENDS = frozenset(";&|()<>\n")


@dataclass(frozen=True)
class Shown:
    """A command, where it is shown, and whether all of it is: text may name a command without its arguments, and where
    it has one that a reader fills in (`ID`), it has all.
    """

    where: str
    words: tuple[str, ...]
    is_whole: bool

    def __str__(self) -> str:
        return f"{self.where}: secateur {shlex.join(self.words)}"


def in_shell_blocks(path: Path) -> Iterator[Shown]:
    """Every command of a document's shell blocks."""
    for block in _BLOCK.findall(path.read_text("utf-8")):
        yield from _in_script(block, path)


def in_scripts(path: Path) -> Iterator[Shown]:
    """Every command of a script, or of the steps of a pipeline."""
    lines = (line.strip().removeprefix("- ").removeprefix("run: ") for line in path.read_text("utf-8").splitlines())
    yield from _in_script("\n".join(lines), path)


def in_text(path: Path) -> Iterator[Shown]:
    """Every command between backticks."""
    for command in _SPAN.findall(ADJACENT.sub("", path.read_text("utf-8"))):
        yield from _in_script(re.sub(r"\{[^}]*\}", "ID", command), path, is_text=True)


def in_template(path: Path) -> Iterator[Shown]:
    """Every command that a page's template shows as code."""
    filled = re.sub(r"\{\{ added.noun \}\}", "models", path.read_text("utf-8"))
    for command in _CODE.findall(re.sub(r"\{\{.*?\}\}", "ID", filled)):
        yield from _in_script(command, path, is_text=True)


def _in_script(script: str, path: Path, *, is_text: bool = False) -> Iterator[Shown]:
    for words in _commands(script):
        is_named = is_text and not any(map(_PLACEHOLDER.fullmatch, words))
        where = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        yield Shown(where, words, is_whole=not is_named and _AND_SO_ON not in words)


def _commands(script: str) -> Iterator[tuple[str, ...]]:
    for line in _lines(_HERE_DOCUMENT.sub("", script).replace("\\\n", " ")):
        words: list[str] = []
        for word in [*line, ";"]:
            for nested in re.findall(r"\$\((secateur [^)]*)\)", word):
                yield from _commands(nested)
            if not set(word) - _ENDS:
                yield from _from_its_name(words)
                words = []
            else:
                words.append(word)


def _lines(script: str) -> Iterator[list[str]]:
    """The words of each line; one whose quotation goes on is read with the next."""
    begun = ""
    for line in script.splitlines():
        begun += line
        lexer = shlex.shlex(begun, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            begun += "\n"
            continue
        yield words
        begun = ""


def _from_its_name(words: list[str]) -> Iterator[tuple[str, ...]]:
    """The command that the words of a line are, where it is one of ours: variables may be set before it, and
    `docker compose exec SERVICE` runs it elsewhere.
    """
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if words[:3] == ["docker", "compose", "exec"]:
        words = words[4:]
    if len(words) > 1 and words[0].rsplit("/")[-1] == "secateur":
        yield tuple(words[1:])


def reader(app: typer.Typer) -> Callable[[Shown], None]:
    """Return what reads a command as the command line does, without running it, and raises what it would be refused
    with. The command line is built once for all.
    """
    line = typer.main.get_command(app)

    def read(shown: Shown) -> None:
        words = [word.strip("[]") for word in shown.words if word != _AND_SO_ON]
        command = line
        if words in (["--help"], ["--version"]):
            return
        while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
            name, *words = words
            assert name in command.commands, f"there is no command {name}"
            command = command.commands[name]
        if isinstance(command, TyperGroup) and not command.invoke_without_command:
            assert not words and not shown.is_whole, "it is a group of commands"
            return
        try:
            command.make_context("secateur", words)
        except ConfigurationError:
            pass  # it was read so far that a shortened id is asked for
        except typer.BadParameter as refused:
            if shown.is_whole or not refused.format_message().startswith("Missing"):
                raise

    return read


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
