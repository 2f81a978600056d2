"""Checks of datasets: small files that unpack to gigabytes take little memory, and few are read at once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

from core import sandbox
from core.engine.datasets.text_files import describe
from core.sandbox import CHECK_BYTES
from core.service.registry import check_slots
from core.service.registry.check_slots import MOST_WAITING_OF_TEAM, CheckSlots
from secateur_wire.errors import Unavailable, UnusableDataset
from tests.api.uploading import announced, send_rest, start
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
