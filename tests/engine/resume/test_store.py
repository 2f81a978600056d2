"""Records that a killed job resumes from: one is taken whole, as it was written, or not at all."""

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.resume import store as resume_store
from core.engine.resume.kinds import BLOCK, FOLDER, STATE, STEP, Kind, kinds_in
from core.engine.resume.store import Rejected, ResumeStore, Saved, file_sha256
from tests.engine.resuming import positions

CHANGES = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove"}
"""Audit events of what changes the file system."""


def tensors(position: int) -> dict[str, Tensor]:
    return {"one": torch.full((3, 5), float(position)), "other": torch.arange(position)}


def state(position: int) -> dict[str, Any]:
    return {"losses": [0.1 * position, 1e-300], "notes": ["é"], "sparsities": None}


def save(store: ResumeStore, kind: Kind, position: int) -> None:
    """Save a record as a pass does: some of it as soon as it is there, some for good."""
    store.add(kind, f"{position}", tensors(position))
    store.write(kind, position, "ahead", tensors(position))
    store.save(kind, position, {"content": tensors(position)}, state(position))


def loaded(kind: Kind, work: Path, previous: Sequence[Path] = (), fingerprint: str = "same") -> int | str | None:
    """Return the position of the record that is taken, after a look at all of it; else why not."""
    store = ResumeStore(work, fingerprint, previous)
    saved = store.load(kind)
    if not isinstance(saved, Saved):
        return None if saved is None else saved.reason
    assert saved.state == state(saved.position)
    store.adopt(kind, saved)
    for name in ("ahead", "content"):
        for content in (saved.read(name), store.read(kind, saved.position, name)):
            assert all(torch.equal(content[each], value) for each, value in tensors(saved.position).items())
    assert [int(file.stem) for file in store.lasting(kind)] == list(range(1, saved.position + 1))
    assert all(file.is_relative_to(work) and file.exists() for file in store.lasting(kind))
    return saved.position


def fill(work: Path, kind: Kind, *numbers: int) -> ResumeStore:
    store = ResumeStore(work, "same")
    for number in numbers:
        save(store, kind, number)
    return store


@pytest.mark.parametrize("kind", [BLOCK, STEP], ids=lambda kind: kind.name)
def test_the_newest_is_taken_and_no_more_are_kept_than_the_kind_says(kind: Kind, tmp_path: Path) -> None:
    assert loaded(kind, tmp_path) is None
    fill(tmp_path, kind, 1, 2, 3)
    assert [int(each.name) for each in positions(tmp_path, kind)] == [1, 2, 3][-kind.keep :]
    assert {file.parent for file in tmp_path.glob(kind.pattern)} == set(positions(tmp_path, kind))
    assert loaded(kind, tmp_path) == 3
    assert kinds_in(tmp_path) == {kind.name}


def test_what_was_written_elsewhere_and_never_completed_goes_with_the_next_record(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path, "same")
    for number in (1, 2, 3):
        store.write(BLOCK, number, "ahead", tensors(9))
    assert loaded(BLOCK, tmp_path) is None
    save(store, BLOCK, 1)
    assert [int(each.name) for each in positions(tmp_path, BLOCK)] == [1]
    assert loaded(BLOCK, tmp_path) == 1


def test_a_record_with_other_bytes_anywhere_or_fewer_is_never_taken(tmp_path: Path) -> None:
    """At every byte of every file: of a header, of a tensor, of a hash, of what the state says."""
    fill(tmp_path, STEP, 1)
    folder = tmp_path / FOLDER / STEP.name
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) == 4
    for file in files:
        whole = file.read_bytes()
        damaged = None if file.name == STATE else f"{STEP.damaged}: training starts over"
        changed = (whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole)))
        for wrong in (*changed, *(whole[:place] for place in range(0, len(whole), 7)), whole[:-1], whole + b"\0"):
            file.write_bytes(wrong)
            assert loaded(STEP, tmp_path) == damaged, (file, wrong)
        file.unlink()
        assert loaded(STEP, tmp_path) == damaged
        file.write_bytes(whole)
        assert loaded(STEP, tmp_path) == 1


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), cut=st.booleans(), which=st.integers(0, 3))
def test_where_the_newest_is_damaged_the_one_before_is_taken(
    share: float, cut: bool, which: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("work")
    fill(work, BLOCK, 1, 2)
    newest = positions(work, BLOCK)[-1]
    names = ("ahead.safetensors", "content.safetensors", "../lasting/2.safetensors", STATE)
    file = newest / names[which]
    whole = file.read_bytes()
    place = int(share * len(whole))
    file.write_bytes(whole[:place] if cut else whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
    assert loaded(BLOCK, work) == 1
    assert loaded(BLOCK, work / "second", [work]) == 1


@pytest.mark.parametrize("kind", [BLOCK, STEP], ids=lambda kind: kind.name)
def test_killed_at_any_step_of_a_save_the_record_before_or_the_new_one_is_there(kind: Kind, tmp_path: Path) -> None:
    fill(tmp_path / "before", kind, 1, 2)
    taken = []
    for number in range(100):
        work = tmp_path / str(number)
        shutil.copytree(tmp_path / "before", work)
        if not (child := os.fork()):
            save_and_die(work, kind, number)
        _, status = os.waitpid(child, 0)
        taken.append(loaded(kind, work))
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert loaded(kind, tmp_path / f"{number}-next", [work]) == taken[-1]
    assert taken == sorted(taken, key=str) and set(taken) == {2, 3} and taken.count(2) > 5


def save_and_die(work: Path, kind: Kind, number: int) -> NoReturn:
    """Go on from the record there is, save the next, and be killed before the file system does step `number` of it.

    A process that was forked for this ends here in any case.
    """
    try:
        store = ResumeStore(work, "same")
        saved = store.load(kind)
        assert isinstance(saved, Saved)
        store.adopt(kind, saved)
        steps = iter(range(number + 1))

        def count(event: str, arguments: tuple[object, ...]) -> None:
            if event in CHANGES and next(steps, None) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        save(store, kind, saved.position + 1)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("kind", [BLOCK, STEP], ids=lambda kind: kind.name)
def test_under_another_fingerprint_nothing_is_taken_and_the_reason_is_told(kind: Kind, tmp_path: Path) -> None:
    fill(tmp_path / "one", kind, 1)
    foreign = f"{kind.foreign}: {kind.consequence}"
    assert loaded(kind, tmp_path / "one", fingerprint="other") == foreign
    assert loaded(kind, tmp_path / "two", [tmp_path / "none", tmp_path / "one"], fingerprint="other") == foreign
    assert isinstance(ResumeStore(tmp_path / "one", "other").load(kind), Rejected)


def test_the_newest_attempt_that_has_any_goes_before_older_ones_however_far_they_were(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    fill(first, BLOCK, 1, 2, 3)
    fill(second, BLOCK, 1)
    assert loaded(BLOCK, third, [second, first]) == 1
    shutil.rmtree(third)
    (positions(second, BLOCK)[0] / "content.safetensors").unlink()
    assert loaded(BLOCK, third, [second, first]) == 3


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_what_was_adopted_is_the_attempts_own_and_outlives_the_one_it_came_from(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    fill(tmp_path / "one", BLOCK, 1, 2)
    assert loaded(BLOCK, tmp_path / "two", [tmp_path / "one"]) == 2
    files = [file for file in (tmp_path / "two").rglob("*") if file.is_file()]
    assert files and {file.stat().st_nlink for file in files} == {2 if links else 1}
    shutil.rmtree(tmp_path / "one")
    assert loaded(BLOCK, tmp_path / "two") == 2
    store = ResumeStore(tmp_path / "two", "same")
    saved = store.load(BLOCK)
    assert isinstance(saved, Saved)
    store.adopt(BLOCK, saved)
    save(store, BLOCK, 3)
    assert loaded(BLOCK, tmp_path / "three", [tmp_path / "two"]) == 3


def refuse(*paths: object) -> None:
    raise PermissionError("this file system has no links")


def test_a_file_is_hashed_once_a_process_and_again_where_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, BLOCK, 1, 2)
    files = [file for file in tmp_path.rglob("*.safetensors") if file.parent.name != "0000001"]
    hashed: list[Path] = []
    monkeypatch.setattr(resume_store, "file_sha256", lambda file: hashed.append(file) or file_sha256(file))
    assert [loaded(BLOCK, tmp_path) for _ in range(2)] == [2, 2]
    assert sorted(hashed) == sorted(2 * files), "a file of this moment may yet change within its time of change"
    for file in files:
        os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**10))
    del hashed[:]
    assert [loaded(BLOCK, tmp_path) for _ in range(3)] == [2, 2, 2]
    assert loaded(BLOCK, tmp_path / "next", [tmp_path]) == 2, "halved or taken over by another attempt"
    assert sorted(hashed) == sorted(files)
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert loaded(BLOCK, tmp_path) == 1
