"""Parsers of foreign bytes are given content that is to make them slow: their work grows no faster than it."""

import contextlib
import json
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from api.http.bodies import parse_body
from core.engine.checkpoints.companions import MOST_CHARACTERS, check_companion
from core.service.triggers.placeholders import Placeholder, read_values
from core.service.triggers.templates import check_mentions, fill
from secateur_wire.errors import SecateurError
from tests.fuzz.reader import READERS
from tests.fuzz.samples import CONFIG, WEIGHTS

_MIB = 2**20
_FEW_SECONDS = 1.0
"""Processor seconds for a MiB below which growth is not looked at."""
_MOST_GROWTH = 10.0
"""Most growth of the work from a quarter of the content to all of it: linear work has 4, quadratic 16."""

Shape = Callable[[int], bytes]
"""Content of a size in bytes."""


@dataclass(frozen=True)
class Parser:
    """A parser of foreign bytes: `read` is given the folder that `file` and the files beside it lie in."""

    read: Callable[[Path], object]
    file: str
    shapes: tuple[Shape, ...]
    largest: int = _MIB
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def seconds(self, content: bytes, folder: Path) -> float:
        for name, beside in self.beside.items():
            (folder / name).write_bytes(beside)
        (folder / self.file).write_bytes(content)
        began = time.thread_time()
        with contextlib.suppress(SecateurError):
            self.read(folder)
        return time.thread_time() - began


def _repeated(piece: bytes, before: bytes = b"", after: bytes = b"") -> Shape:
    """Return a shape: a piece again and again, between two others."""
    return lambda size: before + piece * max((size - len(before) - len(after)) // len(piece), 1) + after


def _numbered(size: int, form: bytes) -> bytes:
    """Return members or items with numbers in them, a comma between."""
    return b",".join(form % number for number in range(max(size // (len(form % size) + 1), 1)))


def _long_key(size: int) -> bytes:
    """Return a key of half the content with many small entries below it."""
    return b'{"' + b"k" * (size // 2) + b'":{' + _numbered(size // 2, b'"%d":0') + b"}}"


_JSON: tuple[Shape, ...] = (
    lambda size: b"{" + _numbered(size, b'"n%d":1') + b',"n0":1}',
    _repeated(b"["),
    _repeated(b"\\", b'{"a":"'),
    _repeated(b"9" * 4000 + b",", b'{"a":[', b"1]}"),
    _long_key,
)


def _in_config(size: int) -> bytes:
    return json.dumps(CONFIG).encode()[:-1] + b',"x":' + _long_key(size) + b"}"


def _config_setting(size: int) -> bytes:
    """Return a config with a setting whose name and list of values are long."""
    name, values = b"n_" * (size // 4), b"1," * (size // 4)
    return json.dumps(CONFIG).encode()[:-1] + b',"' + name + b'":[' + values + b"1]}"


def _header(size: int) -> bytes:
    text = b"{" + _numbered(size, b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}') + b"}"
    return struct.pack("<Q", len(text)) + text


def _fill(folder: Path) -> None:
    """Fill a template that mentions a value of the payload, as a trigger does."""
    template = {"metadata": {"note": (folder / "template").read_text()}}
    payload = parse_body((folder / "payload").read_bytes())
    placeholders = {"a": Placeholder.model_validate({"path": "/a"})}
    check_mentions(template, placeholders)
    fill(template, read_values(placeholders, payload))


def _match(folder: Path) -> None:
    """Match a value of the payload against the pattern of a placeholder."""
    payload = parse_body((folder / "payload").read_bytes())
    read_values({"a": Placeholder.model_validate({"path": "/a", "pattern": "(a+)+b|(a|a)*c"})}, payload)


PARSERS = {
    "body of a request or payload of a trigger": Parser(
        lambda folder: parse_body((folder / "body").read_bytes()), "body", _JSON
    ),
    "template of a trigger": Parser(
        _fill,
        "template",
        (_repeated(b"${a}"), _repeated(b"${"), _repeated(b"$${")),
        beside={"payload": b'{"a": "%s"}' % (b"v" * 500)},
    ),
    "pattern of a placeholder": Parser(_match, "payload", (_repeated(b"a", b'{"a":"', b'"}'),)),
    "safetensors header": Parser(READERS["header"], "model.safetensors", (_header,)),
    "config": Parser(
        READERS["model"], "config.json", (_in_config, _config_setting), beside={"model.safetensors": WEIGHTS}
    ),
    "safetensors index": Parser(
        READERS["model"],
        "model.safetensors.index.json",
        _JSON,
        beside={"model.safetensors": WEIGHTS, "config.json": json.dumps(CONFIG).encode()},
    ),
    "chat template": Parser(
        lambda folder: check_companion(folder / "chat_template.jinja"),
        "chat_template.jinja",
        (
            _repeated(b"{#"),
            _repeated(b"|a", b"{{ a", b" }}"),
            _repeated(b"{%- ", b"{% raw %}", b"{% endraw %}"),
            _repeated(b" ", b"", b"{%- if a %}{% endif %}"),
        ),
        MOST_CHARACTERS,
    ),
}
"""Parsers of foreign bytes. What a schema or HTTP bounds to a few kilobytes has nothing to grow."""


@pytest.mark.parametrize("name", PARSERS)
def test_work_grows_as_the_content_does(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    for shape in parser.shapes:
        size = min(_MIB, parser.largest)
        whole = parser.seconds(shape(size), tmp_path)
        if whole > _FEW_SECONDS:
            assert whole < _MOST_GROWTH * parser.seconds(shape(size // 4), tmp_path), shape(100)
