"""What every store does, whichever kind it is."""

import contextlib
import hashlib
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from core.settings import Settings
from core.storage import LocalStore, Store, StoredFile, UploadPart, open_store
from core.storage.store import publishable
from secateur_wire.errors import NotFound, StoreUnavailable
from tests.stored import put
from tests.stores.conftest import write_artifact

PREFIX = "job_1/attempt-1"
CONTENT = bytes(range(256)) * 10
NAMES = ["model.safetensors", "original/empty.txt", "secateur.json", "tokenizer.json"]


def read(store: Store, path: str, start: int = 0, end: int | None = None, prefix: str = PREFIX) -> bytes:
    return b"".join(store.open_range(prefix, path, start, len(CONTENT) if end is None else end))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact with names before the manifest's and after it."""
    return write_artifact(
        tmp_path / "artifact", model_safetensors=CONTENT, original__empty_txt=b"", tokenizer_json=b"{}"
    )


def test_what_is_published_is_told_and_read(store: Store, artifact: Path) -> None:
    # A machine that is busy may take longer to build the first client than a probe waits.
    assert any(store.is_usable() for _ in range(3))
    files = store.publish(artifact, PREFIX)
    assert [file.path for file in files] == NAMES
    assert files[0] == StoredFile("model.safetensors", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert read(store, "model.safetensors") == CONTENT
    for start, end in ((0, 1), (100, 200), (2559, 2560), (5, 5)):
        assert read(store, "model.safetensors", start, end) == CONTENT[start:end]
    assert read(store, "original/empty.txt", 0, 0) == b""


def test_whoever_finds_the_manifest_finds_every_file_of_it(store: Store, artifact: Path) -> None:
    seen = []

    def watch() -> None:
        seen.append([])
        for name in NAMES:
            with contextlib.suppress(NotFound):
                store.open_range(PREFIX, name, 0, 1)
                seen[-1].append(name)

    store.publish(artifact, PREFIX, watch=watch)
    assert seen and all(found == NAMES for found in seen if "secateur.json" in found)
    assert publishable(artifact)[-1] == "secateur.json"


def test_what_is_published_at_once_to_one_place_leaves_one_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    folders = [write_artifact(tmp_path / f"{n}", **{f"of_{n}": b"%d" % n, "shared_txt": b"%d" % n}) for n in range(4)]
    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda folder: store.publish(folder, PREFIX), folders))
        left = read(store, "shared.txt", 0, 1).decode()
        there = {path.name for path in store.folder(PREFIX).iterdir()}
        assert there == {f"of.{left}", "shared.txt", "secateur.json"} and list(store.unfinished()) == []


def test_what_was_not_stored_whole_is_not_there_and_what_was_there_is(store: Store, artifact: Path) -> None:
    store.publish(artifact, PREFIX)
    (artifact / "model.safetensors").write_bytes(os.urandom(2**24))

    def break_off() -> None:
        raise ConnectionError

    for prefix in (PREFIX, "job_2/attempt-1"):
        with pytest.raises(ConnectionError):
            store.publish(artifact, prefix, watch=break_off)
    assert store.usage("job_2/attempt-1") is None
    if isinstance(store, LocalStore):
        assert read(store, "model.safetensors") == CONTENT and list(store.unfinished()) == []


def test_what_is_not_there_is_not_found_at_once(store: Store, artifact: Path) -> None:
    store.publish(artifact, PREFIX)
    for path in ("missing", "original", "../../secret", "", "/etc/passwd", "model.safetensors/x"):
        with pytest.raises(NotFound):
            store.open_range(PREFIX, path, 0, 1)
    with pytest.raises(NotFound):
        store.fetch(PREFIX, "missing", artifact / "target")


def test_no_name_leads_out_of_a_store_and_nothing_is_published_that_could(store: Store, artifact: Path) -> None:
    for prefix in ("../x", "/x", "a/../b", "", "a//b", ".", "a/", ".hidden", "a+b"):
        for call in (
            lambda prefix=prefix: store.publish(artifact, prefix),
            lambda prefix=prefix: store.delete(prefix),
            lambda prefix=prefix: store.create(prefix, "a", b""),
            lambda prefix=prefix: store.create("owner", prefix, b""),
            lambda prefix=prefix: store.incoming(prefix, "a"),
            lambda prefix=prefix: store.incoming("uploads/upload_1", prefix),
            lambda prefix=prefix: store.join("uploads/upload_1", [], prefix, "a"),
            lambda prefix=prefix: store.join("uploads/upload_1", [], "models/model_1", prefix),
        ):
            with pytest.raises(ValueError, match="name"):
                call()
    (artifact / "a b").write_text("")
    with pytest.raises(ValueError, match="name"):
        store.publish(artifact, PREFIX)
    (artifact / "a b").unlink()
    (artifact / "link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="regular"):
        store.publish(artifact, PREFIX)
    (artifact / "link").unlink()
    (artifact / "secateur.json").unlink()
    with pytest.raises(ValueError, match="not finished"):
        store.publish(artifact, PREFIX)
    assert list(store.children()) == []


def test_deleting_takes_what_is_below_and_nothing_else(store: Store, artifact: Path) -> None:
    store.publish(artifact, PREFIX)
    store.publish(artifact, "job_1/attempt-10")
    store.publish(artifact, "job_10/attempt-1")
    store.delete(PREFIX)
    store.delete(PREFIX)
    store.delete("job_never/attempt-1")
    with pytest.raises(NotFound):
        store.open_range(PREFIX, "secateur.json", 0, 1)
    assert read(store, "model.safetensors", prefix="job_1/attempt-10") == CONTENT
    store.delete("job_10/attempt-1/original/empty.txt")
    with pytest.raises(NotFound):
        store.open_range("job_10/attempt-1", "original/empty.txt", 0, 1)
    assert read(store, "model.safetensors", prefix="job_10/attempt-1") == CONTENT
    store.delete("job_1")
    assert set(store.children()) == {"job_10"}


@pytest.mark.parametrize("sizes", [(), (10, 0, 1), (5 * 2**20, 5 * 2**20, 3)])
def test_parts_become_one_file(store: Store, sizes: tuple[int, ...]) -> None:
    contents = [os.urandom(size) for size in sizes]
    for index, content in enumerate(contents):
        put(store, "uploads/upload_1/a.txt", f"{index}-x", content)
    parts = [UploadPart(f"{index}-x", size) for index, size in enumerate(sizes)]
    store.join("uploads/upload_1/a.txt", parts, "datasets/dataset_1", "a.txt")
    whole = b"".join(contents)
    assert read(store, "a.txt", 0, len(whole), "datasets/dataset_1") == whole
    store.delete("uploads/upload_1")
    assert read(store, "a.txt", 0, len(whole), "datasets/dataset_1") == whole
    assert list(store.unfinished()) == []


@pytest.mark.parametrize("size", [0, 12 * 2**20])
def test_a_file_that_comes_piece_by_piece_appears_whole(store: Store, size: int) -> None:
    content = os.urandom(size)
    incoming = store.incoming("uploads/upload_1", "a")
    for start in range(0, size, 2**20):
        incoming.write(content[start : start + 2**20])
    with pytest.raises(NotFound):
        store.open_range("uploads/upload_1", "a", 0, 1)
    incoming.finish()
    incoming.discard()
    assert read(store, "a", 0, size + 1, "uploads/upload_1") == content
    assert list(store.unfinished()) == []


def test_a_fetch_goes_on_where_it_was_cut_off(store: Store, tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20)
    put(store, "models/model_1", "w.safetensors", content)
    target = tmp_path / "w.safetensors"
    partial = tmp_path / "w.safetensors.partial"
    partial.write_bytes(content[:2_000_000][:-1] + b"!")  # what is there is trusted: its receiver checks the hash
    store.fetch("models/model_1", "w.safetensors", target)
    assert target.read_bytes() == content[:1_999_999] + b"!" + content[2_000_000:]
    assert not partial.exists()
    partial.write_bytes(content + b"of something longer")
    store.fetch("models/model_1", "w.safetensors", target)
    assert target.read_bytes() == content


def test_of_many_that_create_a_file_one_counts(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.create("owner", "installation", b"%d" % number), range(8)))
    first = read(store, "installation", 0, 1, "owner")
    store.create("owner", "installation", b"9")
    assert read(store, "installation", 0, 1, "owner") == first and first in b"01234567"
    assert list(store.unfinished()) == []


def test_a_forked_process_uses_a_store_its_parent_used(store: Store, artifact: Path) -> None:
    """As the processes of Celery's pool do: the parent's connections and loop are of no use to them."""
    store.publish(artifact, PREFIX)
    context = multiprocessing.get_context("fork")

    def child(results: "multiprocessing.SimpleQueue[bytes]") -> None:
        put(store, "uploads/upload_1", "of-the-child", b"child")
        results.put(read(store, "model.safetensors"))

    results = context.SimpleQueue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and results.get() == CONTENT
    assert read(store, "of-the-child", 0, 5, "uploads/upload_1") == b"child"


def test_a_link_does_not_lead_out_of_a_folder(tmp_path: Path, artifact: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.publish(artifact, PREFIX)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "store" / PREFIX / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(NotFound):
        store.open_range(PREFIX, "link", 0, 1)


def test_a_presigned_address_is_downloaded_from(s3_settings: Settings, artifact: Path) -> None:
    store = open_store(s3_settings)
    store.publish(artifact, PREFIX)
    url = store.presigned(PREFIX, "model.safetensors", "my model.safetensors")
    assert url is not None
    response = httpx.get(url)
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''my%20model.safetensors"
    outside = s3_settings.model_copy(update={"store_public_endpoint": "https://files.example.org"})
    elsewhere = open_store(outside).presigned(PREFIX, "model.safetensors", "m")
    assert elsewhere is not None and elsewhere.startswith("https://files.example.org/")
    never = s3_settings.model_copy(update={"presigned_seconds": 0})
    assert open_store(never).presigned(PREFIX, "model.safetensors", "m") is None


def test_a_store_that_is_away_says_so(s3_settings: Settings, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
    away = open_store(s3_settings.model_copy(update={"store_endpoint": "http://127.0.0.1:9"}))
    assert not away.is_usable()
    for call in (
        lambda: away.publish(artifact, PREFIX),
        lambda: away.open_range(PREFIX, "secateur.json", 0, 1),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.value.retryable
    no_bucket = open_store(s3_settings.model_copy(update={"store_url": "s3://nothing-here"}))
    assert not no_bucket.is_usable()
    with pytest.raises(StoreUnavailable):
        put(no_bucket, PREFIX, "a", b"a")
