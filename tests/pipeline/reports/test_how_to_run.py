"""Commands that a page shows hold whatever a link says as data: a shell and Python read nothing else from it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.engine.architectures.description import CLASSIFICATION
from core.pipeline.reports.how_to_run import ways_to_run
from core.pipeline.reports.report import Report
from secateur_wire.metrics import Metrics
from secateur_wire.shown_commands import shell

HOSTILE = (
    "$(touch ran)",
    "`touch ran`; touch ran #",
    "'; touch ran; '",
    '") ; import os; os.system("touch ran")  #',
    "a\nEND\ntouch ran\npython - <<'END'\n",
    "\\\"\\' {file} {0} %s \u2028 ü",
    "-rf",
)
FILES = ["config.json", "tokenizer.json", "model.onnx", "model-Q8_0.gguf", "model.xml"]
PROGRAM = f"""#!{sys.executable}
import json, pathlib, sys
with pathlib.Path("called.jsonl").open("a") as file:
    file.write(json.dumps([pathlib.Path(sys.argv[0]).name, *sys.argv[1:], sys.stdin.read()]) + "\\n")
"""


def called(commands: str, place: Path) -> list[list[str]]:
    """Return the calls of programs, with their input, that a shell makes of commands, none of which leaves `ran`."""
    place.mkdir()
    for name in ("python", "secateur"):
        (place / name).write_text(PROGRAM)
        (place / name).chmod(0o755)
    path = f"{place}{os.pathsep}{os.environ['PATH']}"
    run = ["bash", "-e", "-c", commands]
    subprocess.run(run, stdin=subprocess.DEVNULL, cwd=place, env={"PATH": path}, check=True, timeout=60)
    assert not (place / "ran").exists(), commands
    return [json.loads(line) for line in (place / "called.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", ["language-model", CLASSIFICATION])
def test_a_folder_that_a_link_names_is_a_folder_and_no_command(tmp_path: Path, task: str) -> None:
    verification = {"from_pretrained": True, "image_shape": [3, 8, 8]}
    report = Report.model_validate({"model": {"task": task}, "verification": verification})
    added = [("gguf", "Q8_0", "model-Q8_0.gguf"), ("onnx", "F32", "model.onnx"), ("openvino", "F32", "model.xml")]
    exports = [{"format": form, "type": kind, "file": file, "bytes": 1} for form, kind, file in added]
    metrics = Metrics.model_validate({"exports": exports, "bytes": {"dense": 1, "packed": 1}})
    for number, folder in enumerate(HOSTILE):
        ways = ways_to_run(report, metrics, FILES, folder)
        assert len(ways) >= 4
        for way in ways:
            *unpacked, run = called(way.commands, tmp_path / f"{number} {way.runtime}"[:40])
            assert all(call[1:3] == ["unpack", folder] for call in unpacked)
            assert run[:2] == ["python", "-"]
            texts = [each.value for each in ast.walk(ast.parse(run[2])) if isinstance(each, ast.Constant)]
            assert any(isinstance(text, str) and text.startswith(folder) for text in texts)


@pytest.mark.parametrize("text", HOSTILE)
def test_words_of_a_shown_command_stay_words(tmp_path: Path, text: str) -> None:
    assert called(shell("secateur", "inspect", text), tmp_path / "here") == [["secateur", "inspect", text, ""]]
