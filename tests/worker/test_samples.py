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

from core.settings import Settings
from secateur_wire.errors import Unavailable
from worker.samples.packages import PackagedFile, fetch
from worker.samples.wikipedia import SHORTEST_ARTICLE, articles

WHEEL = "a_sample-1.0-py3-none-any.whl"
WORDS = os.urandom(300_000)


class Index(ThreadingHTTPServer):
    """An index of one wheel, which breaks off after `most` bytes of an answer."""

    def __init__(self, content: bytes, most: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.content, self.most = content, most
        self.asked: list[str | None] = []


class _Answering(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.path == "/simple/a-sample/":
            listed = {"filename": WHEEL, "url": f"../../files/{WHEEL}", "hashes": {}}
            document = json.dumps({"meta": {"api-version": "1.1"}, "files": [listed]}).encode()
            self._answer(document, "application/vnd.pypi.simple.v1+json", None)
        else:
            self.server.asked.append(self.headers["Range"])
            self._answer(self.server.content, "application/octet-stream", self.headers["Range"])

    def _answer(self, body: bytes, kind: str, asked: str | None) -> None:
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[start:][: self.server.most])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    file = tmp_path / WHEEL
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a_sample/words.txt", WORDS)
    return file.read_bytes()


@contextmanager
def serving(content: bytes, most: int = 2**30) -> Iterator[Index]:
    with Index(content, most) as index:
        Thread(target=index.serve_forever, args=(0.01,), daemon=True).start()
        yield index
        index.shutdown()


def fetched(pinned: bytes, index: Index, target: Path, patience: float = 60.0) -> Path:
    """Fetch from the index a file of the wheel that is pinned."""
    sample = PackagedFile(
        title="words", requirement="A.Sample==1.0", wheel=WHEEL, sha256=hashlib.sha256(pinned).hexdigest(),
        bytes=len(pinned), licence="none", member="a_sample/words.txt",
    )  # fmt: skip
    url = f"http://reader:secret@127.0.0.1:{index.server_port}/simple"
    return fetch(sample, target, Settings(package_index=url, hub_patience_seconds=patience), lambda text: None)


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path, wheel: bytes) -> None:
    with serving(wheel, most=200_000) as index:
        file = fetched(wheel, index, tmp_path / "home" / "words")
    assert file.read_bytes() == WORDS
    assert index.asked == [None, f"bytes=200000-{len(wheel) - 1}"]
    assert [each.name for each in file.parent.iterdir()] == ["words"]


@pytest.mark.parametrize("sent", ["other", "nothing", "longer"])
def test_what_is_not_the_pinned_wheel_is_refused(tmp_path: Path, wheel: bytes, sent: str) -> None:
    content = {"other": bytes(len(wheel)), "nothing": b"", "longer": wheel + b"more"}[sent]
    target = tmp_path / "home" / "words"
    pinned = wheel[:-1] + b"x" if sent == "longer" else wheel
    with serving(content) as index, pytest.raises(Unavailable, match=r"damaged|less of") as refused:
        fetched(pinned, index, target, patience=0.4 if sent == "nothing" else 60.0)
    assert "secret" not in str(refused.value) and list(target.parent.iterdir()) == []


MARKUP = """One {{Infobox thing|name=Pear}}
The '''pear''' is a [[fruit|sweet fruit]].&lt;ref>A book, p. 7&lt;/ref> [[File:Pear.jpg|thumb|A pear]]

== Growing ==
Pears grow on [[tree]]s.
{| class="wikitable"
| variety || taste
|}
"""


def page(title: str, namespace: int, text: str, redirect: str = "") -> str:
    return f"<page><title>{title}</title><ns>{namespace}</ns>{redirect}<revision><text>{text}</text></revision></page>"


def test_only_articles_of_the_main_namespace_are_taken_in_order_as_prose() -> None:
    long = "A sentence that says little. " * (SHORTEST_ARTICLE // 20)
    pages = [
        page("One", 0, f"{MARKUP}\n{long}\n== References ==\n{{{{reflist}}}}\n* A source"),
        page("Moved", 0, "#REDIRECT [[One]]", '<redirect title="One" />'),
        page("Moved too", 0, "#redirect [[One]]" + long),
        page("Help:Me", 12, long),
        page("Stub", 0, "Short."),
        page("Two", 0, "Two. " + long),
    ]
    export = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    one, two = articles(bz2.compress(export.encode()))
    assert one.startswith("One\nThe pear is a sweet fruit.\n\nGrowing\nPears grow on trees.\n\nA sentence")
    assert two.startswith("Two. ") and "References" not in one and "source" not in one
