"""The shell script, as the README shows it."""

import re
from pathlib import Path

from junitparser import JUnitXml

from tests.pipelines.service import EXAMPLES, Service

README = Path(__file__).parents[2] / "README.md"


def block() -> str:
    """The script in the README's section on pipelines."""
    section = README.read_text().partition("\n## Pipelines\n")[2].partition("\n## ")[0]
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```\n", section, re.DOTALL)
    return str(script)


def test_the_readme_shows_the_script_as_it_stands() -> None:
    assert block() == (EXAMPLES / "prune.sh").read_text()


def test_the_readmes_script_leaves_an_artifact_where_the_gates_are_kept_and_ends_with_3_where_one_is_missed(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "prune.sh").write_text(block())
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
