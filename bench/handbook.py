"""The Debian Administrator's Handbook as text, far from an encyclopedia's, from Debian's package.

By Raphaël Hertzog and Roland Mas, GPL-2.0+ or CC-BY-SA-3.0. It is fetched when it is needed, and nothing of it is kept
in this repository. Loads no torch.
"""

import json
import subprocess
import tarfile
import tempfile
from html.parser import HTMLParser
from pathlib import Path

from bench.cells import CACHE
from bench.sources import MissingData

PACKAGE = "debian-handbook"
LICENCE = "GPL-2.0+ or CC-BY-SA-3.0"
_PAGES = f"usr/share/doc/{PACKAGE}/html/en-US"
_SHORTEST = 80
"""Characters: a paragraph has more, a caption or a title has not."""
_EMPTY_ELEMENTS = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
)


def write_handbook(target: Path) -> str:
    """Write the handbook as JSON lines, one document a page; where it came from. Raises MissingData."""
    pages, origin = _pages_of_package(CACHE / PACKAGE)
    documents = ["\n\n".join(paragraphs(pages[name])) for name in sorted(pages)]
    documents = [document for document in documents if document]
    if not documents:
        raise MissingData(f"{origin} holds no paragraphs of the handbook")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    lines = (json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in documents)
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(target)
    return origin


def paragraphs(page: str) -> list[str]:
    """The paragraphs of an HTML page that are longer than 80 characters, in order, whitespace collapsed. What stands in
    a paragraph within another belongs to the inner one.
    """
    parser = _Paragraphs()
    parser.feed(page)
    parser.close()
    texts = (" ".join("".join(parts).split()) for parts in parser.found)
    return [text for text in texts if len(text) > _SHORTEST]


class _Paragraphs(HTMLParser):
    """Collects elements `p` and those of class `para`, as DocBook's stylesheets write them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[str]] = []
        self._open: list[tuple[str, list[str] | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _EMPTY_ELEMENTS:
            return
        classes = (dict(attrs).get("class") or "").split()
        parts: list[str] | None = [] if tag == "p" or "para" in classes else None
        if parts is not None:
            self.found.append(parts)
        self._open.append((tag, parts))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""

    def handle_endtag(self, tag: str) -> None:
        places = [place for place, (name, _) in enumerate(self._open) if name == tag]
        if places:
            del self._open[places[-1] :]

    def handle_data(self, data: str) -> None:
        innermost = next((parts for _, parts in reversed(self._open) if parts is not None), None)
        if innermost is not None:
            innermost.append(data)


def _pages_of_package(folder: Path) -> tuple[dict[str, str], str]:
    """Of the newest package in a folder, which is downloaded where there is none."""
    packages = sorted(folder.glob(f"{PACKAGE}_*.deb"), key=lambda file: file.stat().st_mtime)
    package = packages[-1] if packages else _download(folder)
    try:
        return _unpack(package), package.stem
    except (OSError, subprocess.CalledProcessError, tarfile.TarError) as error:
        raise MissingData(f"{package} cannot be read ({error}): remove it") from error


def _download(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = ["apt-get", "download", PACKAGE]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise MissingData(f"there is no apt-get to fetch {PACKAGE} with") from error
        found = list(Path(place).glob(f"{PACKAGE}_*.deb"))
        if done.returncode or not found:
            said = (done.stderr or done.stdout).strip()[-500:]
            raise MissingData(f"`{' '.join(command)}` failed: {said}\n`apt-get update` first")
        return found[0].replace(folder / found[0].name)


def _unpack(package: Path) -> dict[str, str]:
    """The pages by name, read from the package without installing it."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    pages: dict[str, str] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                path = Path(member.name)
                if path.suffix == ".html" and str(path.parent) == _PAGES:
                    content = archive.extractfile(member)
                    if content is not None:  # a link is none
                        pages[path.name] = content.read().decode("utf-8")
        assert process.stdout is not None
        while process.stdout.read(2**20):
            pass
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return pages
