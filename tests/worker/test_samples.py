"""The package index that samples are fetched from: resumed, believed in nothing; and Wikipedia's markup to prose."""

import bz2
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pip._internal.models.index import PyPI

from core.settings import Settings
from secateur_wire.errors import Unavailable
from worker.samples.packages import PackagedFile, fetch, index_url
from worker.samples.wikipedia import SHORTEST_ARTICLE, articles, prose

WHEEL = "a_sample-1.0-py3-none-any.whl"
WORDS = os.urandom(300_000)


class Index(ThreadingHTTPServer):
    """An index of one wheel, which breaks off after `most` bytes of an answer."""

    def __init__(self, content: bytes, most: int = 2**30) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.content, self.most = content, most
        self.asked: list[str | None] = []
        self.listed: dict[str, object] = {"filename": WHEEL, "url": f"../../files/{WHEEL}", "hashes": {}}

    @property
    def url(self) -> str:
        return f"http://reader:secret@127.0.0.1:{self.server_port}/simple"


class _Answering(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.path == "/simple/a-sample/":
            document = json.dumps({"meta": {"api-version": "1.1"}, "files": [self.server.listed]}).encode()
            self._answer(200, document, "application/vnd.pypi.simple.v1+json")
        elif self.path == f"/files/{WHEEL}":
            asked = self.headers["Range"]
            self.server.asked.append(asked)
            start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
            self._answer(206 if asked else 200, self.server.content[start:], "application/octet-stream", start)
        else:
            self._answer(404, b"none", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{start + len(body)}")
        self.end_headers()
        self.wfile.write(body[: self.server.most])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    file = tmp_path / WHEEL
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a_sample/words.txt", WORDS)
    return file.read_bytes()


@contextmanager
def serving(index: Index) -> Iterator[Index]:
    with index:
        Thread(target=index.serve_forever, args=(0.01,), daemon=True).start()
        yield index
        index.shutdown()


def sample(content: bytes) -> PackagedFile:
    return PackagedFile(
        title="words",
        requirement="A.Sample==1.0",
        wheel=WHEEL,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        licence="none",
        member="a_sample/words.txt",
    )


def settings(home: Path, index: Index, patience: float = 60.0) -> Settings:
    return Settings(home=home, package_index=index.url, hub_patience_seconds=patience)


def quiet(text: str) -> None:
    pass


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path, wheel: bytes) -> None:
    with serving(Index(wheel, most=200_000)) as index:
        file = fetch(sample(wheel), tmp_path / "home" / "words", settings(tmp_path, index), quiet)
    assert file.read_bytes() == WORDS
    assert index.asked == [None, f"bytes=200000-{len(wheel) - 1}"]
    assert [each.name for each in file.parent.iterdir()] == ["words"]


@pytest.mark.parametrize("sent", [b"another content", b"", b"longer"], ids=["other", "nothing", "longer"])
def test_what_is_not_the_pinned_wheel_is_refused(tmp_path: Path, wheel: bytes, sent: bytes) -> None:
    content = {b"longer": wheel + b"more", b"": b""}.get(sent, bytes(len(wheel)))
    target = tmp_path / "home" / "words"
    pinned = sample(wheel[:-1] + b"x" if sent == b"longer" else wheel)
    with serving(Index(content)) as index, pytest.raises(Unavailable, match=r"damaged|less of") as refused:
        fetch(pinned, target, settings(tmp_path, index, patience=0.4 if sent == b"" else 60.0), quiet)
    assert "secret" not in str(refused.value) and list(target.parent.iterdir()) == []


def test_the_index_is_the_setting_s_else_the_one_that_pip_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECATEUR_PACKAGE_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable/")
    assert index_url(Settings()) == "https://variable/"
    assert index_url(Settings(package_index="https://setting/")) == "https://setting/"
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert index_url(Settings()) == PyPI.simple_url


MARKUP = """
{{Infobox thing|name=Pear}}
The '''pear''' is a [[fruit|sweet fruit]].<ref>A book, p. 7</ref> [[File:Pear.jpg|thumb|A pear]]

== Growing ==
Pears grow on [[tree]]s.
{| class="wikitable"
| variety || taste
|}

== References ==
{{reflist}}
* A source
"""


def test_prose_keeps_sentences_and_headings_and_drops_the_apparatus() -> None:
    assert prose(MARKUP) == "The pear is a sweet fruit.\n\nGrowing\nPears grow on trees."


def page(title: str, namespace: int, text: str, redirect: str = "") -> str:
    return f"<page><title>{title}</title><ns>{namespace}</ns>{redirect}<revision><text>{text}</text></revision></page>"


def test_only_articles_of_the_main_namespace_are_taken_in_order() -> None:
    long = "A sentence that says little. " * (SHORTEST_ARTICLE // 20)
    pages = [
        page("One", 0, "One. " + long),
        page("Moved", 0, "#REDIRECT [[One]]", '<redirect title="One" />'),
        page("Moved too", 0, "#redirect [[One]]" + long),
        page("Help:Me", 12, long),
        page("Stub", 0, "Short."),
        page("Two", 0, "Two. " + long),
    ]
    export = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    assert [text[:4] for text in articles(bz2.compress(export.encode()))] == ["One.", "Two."]
