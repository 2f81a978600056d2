"""The commands of the pages under Start and the README's script, run as they stand."""

import re
from pathlib import Path

from junitparser import JUnitXml

from tests.pipelines.service import EXAMPLES, Service

README = Path(__file__).parents[2] / "README.md"
START = EXAMPLES.parents[1] / "docs" / "start"
SHOWN = "http://127.0.0.1:8000"
FIRST = ("secateur serve\n", "secateur samples\n")
"""What stands alone on the pages before all else: a server, and what it is tried with."""


def blocks(page: str) -> list[str]:
    """Every block of commands of a page."""
    return re.findall(r"^```sh\n(.*?)^```", (START / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


def script(url: str, *pages: str) -> str:
    """Return what the pages show after the server was started, for a server at another address."""
    shown = [block for page in pages for block in blocks(page) if block not in FIRST]
    return "\n".join(["set -eu", *shown]).replace(SHOWN, url)


def test_what_the_pages_show_works(service: Service, tmp_path: Path) -> None:
    assert [blocks("rest.md")[0], blocks("rest.md")[2]] == list(FIRST) and blocks("portal.md") == [FIRST[0]]
    service.behave(ratio=2.0)
    (tmp_path / ".secateur").mkdir()
    (tmp_path / ".secateur" / "api-key").write_text(service.key)
    done = service.step(["bash", "-c", script(service.url, "rest.md", "pipeline.md")], tmp_path)
    assert done.code == 0, done.err
    (downloaded,) = tmp_path.glob("job_*")
    assert (downloaded / "model.safetensors").is_file() and '"perplexity"' in done.out
    assert {"pruned", "gates.xml", "summary.md"} <= {each.name for each in tmp_path.iterdir()}


def readme_script() -> str:
    """The script in the README's section on pipelines."""
    section = README.read_text().partition("\n## Pipelines\n")[2].partition("\n## ")[0]
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```\n", section, re.DOTALL)
    return str(script)


def test_the_readme_shows_the_script_as_it_stands() -> None:
    assert readme_script() == (EXAMPLES / "prune.sh").read_text()


def test_the_readmes_script_leaves_an_artifact_where_the_gates_are_kept_and_ends_with_3_where_one_is_missed(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "prune.sh").write_text(readme_script())
    service.behave(ratio=2.0)
    kept = service.step(["sh", "prune.sh"], tmp_path)
    assert kept.code == 0, kept.err
    pruned = tmp_path / "pruned"
    assert (pruned / "model.safetensors").is_file() and (pruned / "secateur.json").is_file()
    assert "2 gates kept" in (tmp_path / "summary.md").read_text()
    assert JUnitXml.fromfile(str(tmp_path / "gates.xml")).tests == 2

    again = tmp_path / "again"
    again.mkdir()
    service.behave(ratio=3.0)
    missed = service.step(["sh", "../prune.sh"], again)
    assert missed.code == 3 and "the perplexity ratio on wikipedia-articles is 3; the gate allows 2.4" in missed.err
    assert not (again / "pruned").exists()
    (suite,) = JUnitXml.fromfile(str(again / "gates.xml"))
    assert (suite.tests, suite.failures) == (2, 1)
    assert "1 of 2 gates missed" in (again / "summary.md").read_text()
