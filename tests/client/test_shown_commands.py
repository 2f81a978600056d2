"""No document, page or message shows a command that the command line does not read, and what they show works."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy.orm import Session, sessionmaker

from core.engine.exporters.packed.exporter import pack_folder
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from core.storage import Store
from secateur.cli import app, main
from tests.api.ended_job import succeeded_job
from tests.client.command_line import RunHere
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
    on_page,
    reader,
)
from tests.portal.browserless import Browserless
from tests.recipes import recipe_of

READING = {
    *("jobs", "show", "watch", "summary", "report", "download", "team", "workers", "audit"),
    *("webhooks list", "triggers list", "retention show", "retention preview", "publications list"),
}
"""Commands that may be run on any finished job; `models` and the like begin what a document goes on with."""
JOB = {"ID", "JOB", "$job", "$JOB", "job_…"}


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


@pytest.fixture
def finished(live_api: httpx.Client, model: str, sessions: sessionmaker[Session], store: Store, tmp_path: Path) -> str:
    """Id of a job whose artifact is packed, with its card and a file for llama.cpp."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    weights = np.where(np.arange(40_000) % 2, np.arange(40_000), 0).astype(np.float32)
    save_file({"a": weights}, checkpoint / "model.safetensors")
    packed = pack_folder(checkpoint)
    metrics: dict[str, Any] = {
        "perplexity": {},
        "sparsity": {"prunable": 0.5, "model": 0.5},
        "parameters": {"dense": 40_000, "nonzero": 20_000},
        "bytes": {"dense": 160_000, "artifact": 160_000},
    }
    graph = {"format": "openvino", "type": "INT8", "bytes": 4, "needs": ["openvino-INT8.bin"]}
    added = {
        "exports": [
            {"file": "model-Q8_0.gguf", "format": "gguf", "type": "Q8_0", "bytes": 4},
            {"file": "openvino-INT8.xml"} | graph,
        ]
    }
    recipe = recipe_of("magnitude", model=model, output={"format": "packed"})
    card = model_card(recipe, Report.model_validate({"metrics": metrics, "packed": packed}))
    files = {each.name: each.read_bytes() for each in checkpoint.iterdir()}
    files |= {"secateur.json": b"{}", "README.md": card.encode(), "model-Q8_0.gguf": b"GGUF"}
    files |= {"openvino-INT8.xml": b"<net", "openvino-INT8.bin": b"bins"}
    return succeeded_job(live_api, sessions, store, tmp_path / "artifact", model=model, files=files, metrics=added)


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


def test_what_the_page_and_the_card_of_a_finished_job_show_works(
    here: RunHere,
    live_api: httpx.Client,
    admin_key: str,
    finished: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    somebody = Browserless(live_api, admin_key)
    on_its_page = on_page(somebody.http.get(f"/portal/jobs/{finished}").text)
    somebody.close()
    assert on_its_page == [("download", finished)]
    monkeypatch.chdir(tmp_path)
    done = here(*on_its_page[0])
    assert done.code == 0 and done.out.endswith(f"verified, in {finished}\n"), done.err
    card = tmp_path / finished / "README.md"
    (on_its_card,) = in_text(card)
    done = here(*(finished if word in JOB else word for word in on_its_card.words))
    assert done.code == 0 and "1 of them unpacked" in done.out, done.err
    assert (tmp_path / finished / "model.safetensors").is_file()


def test_what_documents_show_of_finished_jobs_works(
    here: RunHere, finished: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = set()
    for shown in (each for path in DOCUMENTS for each in in_shell_blocks(path)):
        name = next((name for name in (" ".join(shown.words[:2]), shown.words[0]) if name in READING), None)
        if name is not None and shown.is_whole:
            done = here(*(finished if word in JOB else word for word in shown.words))
            assert done.code == 0, f"{shown}\n{done.err}"
            ran.add(name)
    assert ran == READING
