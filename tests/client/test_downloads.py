import hashlib
from pathlib import Path

import pytest

from secateur import ArtifactFile, Client, downloads, errors
from tests.client.script import JOB_ID, Script
from tests.client.scripted_server import serving

WEIGHTS = bytes(range(256)) * 100
FILES = {"secateur.json": b"{}", "model.safetensors": WEIGHTS, "empty.txt": b"", "a folder/notes ü.txt": b"pruned"}


@pytest.fixture(autouse=True)
def prepared(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.files = dict(FILES)
    monkeypatch.setattr(downloads, "RETRY_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifact"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetched(script: Script, name: str) -> list[str | None]:
    """The Range headers of the requests for a file."""
    return [each.headers.get("range") for each in script.requests("GET", f"/v1/jobs/{JOB_ID}/artifacts/{name}")]


def test_every_file_arrives_verified_and_the_manifest_last(client: Client, folder: Path) -> None:
    arrived: dict[str, int] = {}

    def on_progress(file: ArtifactFile, here: int) -> None:
        arrived[file.path] = here

    paths = client.download(JOB_ID, folder, on_progress)
    assert content(folder) == FILES
    assert paths[-1] == folder / "secateur.json" and list(arrived)[-1] == "secateur.json"
    assert arrived == {name: len(data) for name, data in FILES.items()}


def test_a_cut_off_file_is_continued_where_it_stopped(client: Client, script: Script, folder: Path) -> None:
    script.files = {"model.safetensors": WEIGHTS}
    script.file_cuts = [10_000, 0, 7_000]
    client.download(JOB_ID, folder)
    assert content(folder) == script.files
    ranges = fetched(script, "model.safetensors")
    assert ranges[0] is None and len(ranges) == 4
    assert all(each is not None and each != "bytes=0-" for each in ranges[1:])


def test_a_later_call_goes_on_from_what_an_earlier_one_left(client: Client, script: Script, folder: Path) -> None:
    script.files = {"model.safetensors": WEIGHTS}
    script.file_cuts = [10_000, *[0] * downloads.FRUITLESS_ATTEMPTS]
    with pytest.raises(errors.DownloadInterrupted, match="of 25600 bytes are here"):
        client.download(JOB_ID, folder)
    assert not (folder / "model.safetensors").exists()
    script.seen.clear()
    client.download(JOB_ID, folder)
    assert content(folder) == script.files
    (wanted,) = fetched(script, "model.safetensors")
    assert wanted is not None and 0 < int(wanted.removeprefix("bytes=").removesuffix("-")) <= 10_000


def test_a_server_without_ranges_sends_it_all_again(client: Client, script: Script, folder: Path) -> None:
    script.files = {"model.safetensors": WEIGHTS}
    script.ignores_range = True
    script.file_cuts = [10_000]
    client.download(JOB_ID, folder)
    assert content(folder) == script.files


def test_what_is_here_already_is_not_fetched_again(client: Client, script: Script, folder: Path) -> None:
    client.download(JOB_ID, folder)
    script.seen.clear()
    client.download(JOB_ID, folder)
    assert len(script.seen) == 1
    (folder / "model.safetensors").write_bytes(b"x" + WEIGHTS[1:])
    client.download(JOB_ID, folder)
    assert content(folder) == FILES and len(fetched(script, "model.safetensors")) == 1


def test_wrong_bytes_never_get_the_files_name(client: Client, script: Script, folder: Path) -> None:
    script.files = {"model.safetensors": WEIGHTS}
    script.sends_etag = False
    script.listed["model.safetensors"] = {"sha256": "0" * 64}
    with pytest.raises(errors.ChecksumMismatch, match=hashlib.sha256(WEIGHTS).hexdigest()):
        client.download(JOB_ID, folder)
    assert content(folder) == {}


def test_a_left_over_part_of_other_bytes_is_noticed_and_thrown_away(
    client: Client, script: Script, folder: Path
) -> None:
    script.files = {"model.safetensors": WEIGHTS}
    folder.mkdir()
    name = f".model.safetensors.{hashlib.sha256(WEIGHTS).hexdigest()[:16]}.part"
    (folder / name).write_bytes(b"rubbish")
    with pytest.raises(errors.ChecksumMismatch, match="download again"):
        client.download(JOB_ID, folder)
    client.download(JOB_ID, folder)
    assert content(folder) == script.files


@pytest.mark.parametrize("size", [10, 30_000])
def test_a_length_other_than_the_listed_one_is_an_error(
    client: Client, script: Script, folder: Path, size: int
) -> None:
    script.files = {"model.safetensors": WEIGHTS}
    script.ignores_range = True
    script.listed["model.safetensors"] = {"bytes": size}
    with pytest.raises(errors.DownloadError):
        client.download(JOB_ID, folder)
    assert "model.safetensors" not in content(folder)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/outside", "a/../../outside", "..", "", "a//b", "./a", "..\\outside", "C:\\x", "C:x", "a\nb"],
)
def test_a_name_that_leads_out_is_refused_before_anything_is_written(
    client: Client, script: Script, folder: Path, name: str
) -> None:
    script.files = {"model.safetensors": WEIGHTS, name: b"evil"}
    with pytest.raises(errors.UnsafeName, match="leads out"):
        client.download(JOB_ID, folder)
    assert not folder.exists() and len(script.seen) == 1


def test_a_link_in_the_folder_leads_nowhere_else(client: Client, script: Script, folder: Path, tmp_path: Path) -> None:
    script.files = {"sub/file": b"evil"}
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.UnsafeName):
        client.download(JOB_ID, folder)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_bucket_behind_a_redirect_gets_no_key_and_its_etag_means_nothing(
    client: Client, script: Script, folder: Path
) -> None:
    bucket = Script(files=FILES, sends_etag=False, file_cuts=[2])
    with serving(bucket) as address:
        script.redirects_files_to = address
        client.download(JOB_ID, folder)
    assert content(folder) == FILES
    assert bucket.seen and all("authorization" not in each.headers for each in bucket.seen)
