"""Checks of what strangers sent: by children in slots, within limits over all files, with little memory."""

import json
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

from core import sandbox
from core.engine.architectures import folder as folder_reader
from core.engine.architectures import sandboxed
from core.engine.architectures.describe import describe_source
from core.engine.architectures.description import UndiscoveredModel
from core.engine.datasets.text_files import describe
from core.sandbox import CHECK_BYTES
from core.service.registry import check_slots
from core.service.registry.check_slots import MOST_WAITING_OF_TEAM, CheckSlots
from core.service.sources import header_only_folder
from secateur_wire.errors import PathEscapes, SecateurError, Unavailable, UnusableDataset, UnusableModel
from tests.api.uploading import announced, send_rest, start
from tests.engine.classifier_folders import make_classifier
from tests.model_folders import write_llama
from tests.worker.conftest import eventually


def write_bomb(path: Path) -> Path:
    """Write a Parquet file of a few kilobytes, with 2**18 texts of 4 MiB: one in the dictionary, and numbers of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2**18, pyarrow.int32()), ["x" * 2**22])
    table = pyarrow.table({"text": texts})
    pyarrow.parquet.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000
    return path


@contextmanager
def children_watched() -> Iterator[Callable[[], tuple[int, int]]]:
    """Yield what returns the most children of this process at once, and the most memory of one, in bytes."""
    own, ended = psutil.Process(), threading.Event()
    before = {child.pid for child in own.children()}
    most, memory = 0, 0

    def watch() -> None:
        nonlocal most, memory
        while not ended.wait(0.01):
            now = [child for child in own.children() if child.pid not in before]
            most = max(most, len(now))
            for child in now:
                try:
                    memory = max(memory, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: (most, memory)
    finally:
        ended.set()
        thread.join()


def test_small_files_that_unpack_to_a_terabyte_take_no_more_than_the_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_slots, "WAIT_SECONDS", 600.0)
    monkeypatch.setattr(sandbox, "SECONDS", 600.0)  # of which a check takes a few where nothing else runs
    file, slots = write_bomb(tmp_path / "bomb.parquet"), CheckSlots(2 * CHECK_BYTES)

    def check(number: int) -> str:
        with slots.slot(f"team_{number}"), pytest.raises(UnusableDataset) as refused:
            describe(file, "parquet")
        return refused.value.message

    with children_watched() as watched, ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(check, range(3)))
    most, memory = watched()
    assert all("needs more memory to read than is allowed" in answer for answer in answers)
    assert 1 <= most <= slots.count == 2
    assert memory <= CHECK_BYTES


def test_a_team_leaves_one_of_several_slots_to_others_and_waits_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = CheckSlots(2 * CHECK_BYTES)
    order: list[str] = []

    def check(team: str) -> None:
        with slots.slot(team):
            order.append(team)

    with ThreadPoolExecutor(4) as pool:
        with slots.slot("large"):
            waiting = [pool.submit(check, "large") for _ in range(2)]
            pool.submit(check, "small").result(120)
            assert order == ["small"] and not any(each.done() for each in waiting)
        for each in waiting:
            each.result(120)
    assert order == ["small", "large", "large"]


def test_who_waits_too_long_or_behind_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = CheckSlots(0)

    def check() -> None:
        with slots.slot("team"):
            pass

    with ThreadPoolExecutor(MOST_WAITING_OF_TEAM) as pool, slots.slot("team"):
        waiting = [pool.submit(check) for _ in range(MOST_WAITING_OF_TEAM)]
        eventually(lambda: len(slots._waiting) == MOST_WAITING_OF_TEAM)
        with pytest.raises(Unavailable, match="1 checks run and 3 wait"):
            check()
        monkeypatch.setattr(check_slots, "WAIT_SECONDS", 0.05)
        with pytest.raises(Unavailable, match="try again"), slots.slot("other"):
            pass
        assert not any(each.done() for each in waiting)


def test_an_upload_whose_check_waits_says_so_and_is_asked_again(
    api: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "texts" / "numbers.parquet"
    file.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), file)
    upload = start(api, announced(file.parent, kind="dataset"))
    send_rest(api, upload, file.parent)
    monkeypatch.setattr(check_slots, "WAIT_SECONDS", 0.05)
    slots: CheckSlots = api.app.state.api.check_slots  # type: ignore[attr-defined]
    with slots.slot("team_1"), slots.slot("team_2"):
        waited = api.post(f"/v1/uploads/{upload['id']}/complete")
        assert (waited.status_code, waited.json()["code"]) == (503, "unavailable") and waited.headers["Retry-After"]
        assert "2 checks run" in waited.json()["detail"]
        assert api.get(f"/v1/uploads/{upload['id']}").json()["status"] == "open"
    assert api.post(f"/v1/uploads/{upload['id']}/complete").status_code == 201


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
    monkeypatch.setattr(folder_reader, "MOST_TENSORS", 100)
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
