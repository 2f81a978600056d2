"""Shapes of content that is to make a parser slow: each is a function from a size in bytes to the content."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.fuzz.samples import CONFIG

Shape = Callable[[int], bytes]


def repeated(piece: bytes, before: bytes = b"", after: bytes = b"") -> Shape:
    """Return a shape: a piece again and again, between two others."""
    return lambda size: before + piece * max((size - len(before) - len(after)) // len(piece), 1) + after


def numbered(size: int, form: bytes) -> bytes:
    """Return members or items with numbers in them, a comma between."""
    return b",".join(form % number for number in range(max(size // (len(form % size) + 1), 1)))


def long_key(size: int) -> bytes:
    """Return a key of half the content with many small entries below it."""
    return b'{"' + b"k" * (size // 2) + b'":{' + numbered(size // 2, b'"%d":0') + b"}}"


JSON: dict[str, Shape] = {
    "a name again and again": repeated(b'"a":1,', b"{", b'"a":1}'),
    "the last name again": lambda size: b"{" + numbered(size, b'"n%d":1') + b',"n0":1}',
    "many names": lambda size: b"{" + numbered(size, b'"n%d":1') + b"}",
    "empty lists": repeated(b"[],", b'{"a":[', b"[]]}"),
    "lists in lists": repeated(b"[[[[[[[[]]]]]]]],", b'{"a":[', b"[]]}"),
    "brackets that open": repeated(b"["),
    "objects": repeated(b'{"a":{"b":0}},', b'{"a":[', b"{}]}"),
    "a long text": repeated(b"a", b'{"a":"', b'"}'),
    "escapes": repeated(b"\\u0041", b'{"a":"', b'"}'),
    "backslashes": repeated(b"\\\\", b'{"a":"', b'"}'),
    "a text without end": repeated(b"\\", b'{"a":"'),
    "blanks": repeated(b" ", b'{"a":', b"1}"),
    "long numbers": repeated(b"9" * 4000 + b",", b'{"a":[', b"1]}"),
    "a long fraction": repeated(b"1", b'{"a":0.', b"}"),
    "a long key over many": long_key,
    "long keys below each other": lambda size: (
        b'{"' + b'":{"'.join([b"k" * (size // 40)] * 20) + b'":{' + numbered(size // 2, b'"%d":0') + b"}" * 21
    ),
}


def in_config(shape: Shape) -> Shape:
    """Return the shape within the config of a small model."""
    opening = json.dumps(CONFIG).encode()[:-1]
    return lambda size: opening + b',"x":' + shape(size) + b"}"


def in_header(shape: Shape) -> Shape:
    def content(size: int) -> bytes:
        text = shape(size)
        return struct.pack("<Q", len(text)) + text

    return content


ENTRY = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


def config_settings(form: bytes) -> Shape:
    """Return a shape: a setting whose name and list of values are long."""
    return lambda size: (
        json.dumps(CONFIG).encode()[:-1]
        + b',"'
        + form * (size // 2 // len(form))
        + b'":['
        + b"1," * (size // 4)
        + b"1]}"
    )


def gguf(entries: Callable[[int], list[bytes]], tensors: bytes = b"") -> Shape:
    def content(size: int) -> bytes:
        stored = entries(size)
        count = size // len(tensors) if tensors else 0
        return b"GGUF" + struct.pack("<IQQ", 3, count, len(stored)) + b"".join(stored) + tensors * count

    return content


def gguf_text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def gguf_strings(size: int) -> list[bytes]:
    count = size // 12
    strings = b"".join(gguf_text(b"%04d" % (number % 10_000)) for number in range(count))
    return [gguf_text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, count) + strings]


def gguf_scalars(size: int) -> list[bytes]:
    return [gguf_text(b"key.%06d" % number) + struct.pack("<IB", 0, 1) for number in range(size // 23)]


def parquet(table: Callable[[int], "pyarrow.Table"], **options: Any) -> Shape:
    def content(size: int) -> bytes:
        written = io.BytesIO()
        pyarrow.parquet.write_table(table(size), written, **options)
        return written.getvalue()

    return content


def columns(size: int) -> "pyarrow.Table":
    names = ["text", *(f"c{number}" for number in range(size // 500))]
    return pyarrow.table({name: ["a"] for name in names})


def rows(size: int) -> "pyarrow.Table":
    return pyarrow.table({"text": [f"row {number}" for number in range(max(size // 400, 1))]})


def said(size: int) -> "pyarrow.Table":
    features = {"info": {"features": {"label": {"names": [f"n{number}" for number in range(size // 10)]}}}}
    columns = {"image": [b"a"], "label": pyarrow.array([0], pyarrow.int64())}
    return pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})


def png(chunk: bytes, text: bytes) -> Shape:
    """Return a shape: a picture of one pixel with many chunks of text before it."""

    def made(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    one = made(chunk, text)
    end = made(b"IDAT", zlib.compress(b"\0\0")) + made(b"IEND", b"")
    return repeated(one, b"\x89PNG\r\n\x1a\n" + made(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), end)


def exif(size: int) -> bytes:
    """Return a TIFF of one pixel whose directory has many entries."""
    count = min(size // 12, 65_000)
    entries = b"".join(struct.pack("<HHII", 256 + number % 60_000, 4, 1, 1) for number in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + struct.pack("<I", 0)


TEMPLATES: dict[str, Shape] = {
    **{
        piece.decode(): repeated(piece)
        for piece in (b"{{a}}", b"{%if a%}{%endif%}", b"{# #}", b"{#", b"{{", b"{", b" \n")
    },
    **{
        f"{before}{piece}…": repeated(piece.encode(), before.encode(), after.encode())
        for before, piece, after in (
            ("{{ a", "|a", " }}"),
            ("{{ a", "+a", " }}"),
            ("{{ a", "()", " }}"),
            ("{{ [", "a,", "] }}"),
            ("{{ '", "\\'", "' }}"),
            ("{{ ", "(", " }}"),
            ("{{ ", " ", "a }}"),
            ("{% raw %}", "{%- ", "{% endraw %}"),
            ("{%if a%}", "{%elif a%}", "{%endif%}"),
            ("", " ", "{%- if a %}{% endif %}"),
        )
    },
}
