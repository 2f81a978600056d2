"""Checks of models that strangers wrote: by children in slots, within limits over all files, and small answers."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.engine.architectures import description, sandboxed
from core.engine.architectures.undiscovered import UndiscoveredModel, describe_source
from core.service.sources import header_only_folder
from secateur_wire.errors import PathEscapes, SecateurError, UnusableModel
from tests.api.test_check_slots import children_watched
from tests.api.uploading import announced, send_rest, start
from tests.engine.classifier_folders import make_classifier
from tests.model_folders import write_llama

CONFIG = {"architectures": ["UnheardForCausalLM"], "model_type": "unheard", "hidden_size": 8, "num_hidden_layers": 1}


def write_headers(folder: Path, files: int, tensors: int) -> Path:
    """Write a model of an unlisted architecture whose files hold empty tensors alone."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    names = [f"model-{file:05}.safetensors" for file in range(files)]
    for file, name in enumerate(names):
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        header = json.dumps({f"{file}.{number}": empty for number in range(tensors)}).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(header)) + header)
    index = {"weight_map": {f"{file}.0": name for file, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def completed(api: TestClient, folder: Path) -> tuple[int, dict[str, Any]]:
    """Return the status and document of an upload's completion."""
    upload = start(api, announced(folder))
    send_rest(api, upload, folder)
    answer = api.post(f"/v1/uploads/{upload['id']}/complete")
    return answer.status_code, answer.json()


def test_tensors_are_counted_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "MOST_TENSORS", 100)
    folder = write_headers(tmp_path / "many", files=3, tensors=34)
    with pytest.raises(UnusableModel, match="more than 100 tensors"):
        describe_source(folder)
    assert isinstance(describe_source(write_headers(tmp_path / "few", files=2, tensors=50)), UndiscoveredModel)


def test_headers_are_counted_over_all_files_before_they_are_read_and_large_ones_parsed_by_a_child(
    api: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_headers(tmp_path / "long", files=4, tensors=100)
    with monkeypatch.context() as patched, children_watched() as watched:
        most = 3 * (folder / "model-00000.safetensors").stat().st_size
        patched.setattr(header_only_folder, "MOST_HEADERS_BYTES", most)
        status, problem = completed(api, folder)
        assert (status, problem["code"]) == (422, "unusable_model")
        assert f"more than {most} bytes together" in problem["detail"]
    assert watched()[0] == 0, "something was parsed"
    with children_watched() as watched:
        assert completed(api, write_headers(tmp_path / "large", files=2, tensors=1000))[0] == 201
    assert watched()[0] == 1


def _folders(tmp_path: Path) -> Iterator[Path]:
    yield write_llama(tmp_path / "llama")
    yield make_classifier(tmp_path / "lenet", "lenet-5")
    yield write_headers(tmp_path / "unheard", files=2, tensors=3)
    away, broken, code = (write_llama(tmp_path / name) for name in ("away", "broken", "code"))
    (away / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (away / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    (away / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    (broken / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    (code / "additional_chat_templates").mkdir()
    (code / "additional_chat_templates" / "a.jinja").write_text("{% if %}")
    yield from (away, broken, code)


def _told(folder: Path) -> Mapping[str, Any]:
    try:
        return sandboxed.describe_sandboxed(folder).model_dump(mode="json")
    except SecateurError as error:
        return error.problem()


def test_a_child_that_can_open_nothing_finds_what_is_found_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = list(_folders(tmp_path))
    here = [_told(folder) for folder in folders]
    monkeypatch.setattr(sandboxed, "_READ_HERE_BYTES", -1)
    assert [_told(folder) for folder in folders] == here
    assert [each.get("code") for each in here].count(PathEscapes.code) == 2
    assert [sandboxed.weight_names(folder) for folder in folders[2:4]] == [
        ["model-00000.safetensors", "model-00001.safetensors"],
        ["model.safetensors"],
    ]
