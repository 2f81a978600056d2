"""Broken files, each made from its number alone: a case that fails can be made again."""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from tests.fuzz.samples import CONFIG, GGUF, GGUF_HEADER_BYTES, HEADER, LINES, PARQUETS, WEIGHTS

Files = dict[str, bytes]
Make = Callable[[random.Random], Files]

NUMBERS: list[Any] = [0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**300, -(2**63), 1.5, 1e308, True]
ODD: list[Any] = [
    *NUMBERS,
    *(None, "", "F32", "\ud800", "a\0b", "x" * 100_000, [], {}, [[]], [{}], {"": 0}, float("nan"), float("inf"), "٣"),
    *([2**31] * 64, [10**4000] * 30, [2] * 2000, "9" * 5000, ["LlamaForCausalLM"], "../../etc/passwd", "/dev/zero"),
]
_NAMES = ["__metadata__", "dtype", "shape", "data_offsets", "weight_map", "auto_map", "architectures", "", "\ud800"]


def case(number: int) -> tuple[str, Files]:
    """(what reads it, its files by name)."""
    source = random.Random(f"secateur {number}")
    reader, make = _KINDS[number % len(_KINDS)]
    return reader, make(source)


def _header(source: random.Random) -> Files:
    header = mutated(source, json.loads(json.dumps(HEADER)), source.randint(1, 4))
    text = _text(source, header)
    data = WEIGHTS[8 + struct.unpack("<Q", WEIGHTS[:8])[0] :]
    return {"model.safetensors": _file(source, text, data), "config.json": json.dumps(CONFIG).encode()}


def _header_bytes(source: random.Random) -> Files:
    return {"model.safetensors": _damaged(source, WEIGHTS, most=400), "config.json": json.dumps(CONFIG).encode()}


def _config(source: random.Random) -> Files:
    files = {"model.safetensors": WEIGHTS}
    config = mutated(source, json.loads(json.dumps(CONFIG)), source.randint(1, 4))
    files["config.json"] = _text(source, config)
    if source.random() < 0.3:
        index = {"weight_map": {name: "model.safetensors" for name in HEADER if name != "__metadata__"}}
        files["model.safetensors.index.json"] = _text(source, mutated(source, index, source.randint(0, 3)))
    return files


def _jsonl(source: random.Random) -> Files:
    lines = list(LINES)
    for _ in range(source.randint(1, 3)):
        record = mutated(source, {"text": "words", "meta": {"a": [1, 2]}}, source.randint(0, 3))
        lines.insert(source.randrange(len(lines) + 1), _text(source, record))
    content = source.choice([b"\n", b"\r\n", b"\0", b"\n\n"]).join(lines)
    return {"text.jsonl": _damaged(source, content) if source.random() < 0.5 else content}


def _plain(source: random.Random) -> Files:
    content = b"\n\n".join(LINES) * source.randint(1, 20)
    return {"text.txt": _damaged(source, content)}


def _parquet(source: random.Random) -> Files:
    content = source.choice(PARQUETS)
    footer = struct.unpack("<I", content[-8:-4])[0] + 8
    if source.random() < 0.6:  # the footer decides what is read and where
        return {"text.parquet": content[:-footer] + _damaged(source, content[-footer:], shorten=False)}
    return {"text.parquet": _damaged(source, content)}


def broken_gguf(source: random.Random) -> Files:
    """Counts, lengths and types replaced, wherever they may lie; or bytes of the header damaged."""
    if source.random() < 0.5:
        return {"model.gguf": _damaged(source, GGUF, most=GGUF_HEADER_BYTES)}
    content = bytearray(GGUF)
    for _ in range(source.randint(1, 3)):
        width, value = source.choice([("<I", 2**32), ("<Q", 2**64)])
        number = source.choice([0, 1, 2, 8, 9, 12, 31, 255, 2**20, 2**31, 2**32, 2**40, 2**63, value - 1, value // 2])
        struct.pack_into(width, content, source.randrange(GGUF_HEADER_BYTES - 8), number % value)
    return {"model.gguf": bytes(content)}


_KINDS: list[tuple[str, Make]] = [
    *[("header", _header)] * 3,
    ("header", _header_bytes),
    *[("model", _config)] * 2,
    ("model", _header),
    *[("jsonl", _jsonl)] * 2,
    ("text", _plain),
    *[("parquet", _parquet)] * 3,
    ("gguf", broken_gguf),
]


def mutated(source: random.Random, value: Any, times: int) -> Any:
    """Something in it is replaced, removed, renamed, doubled or put deep inside lists."""
    for _ in range(times):
        holders = _holders(value)
        if not holders:
            return source.choice(ODD)
        holder = source.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = source.choice(keys)
        match source.randrange(7):
            case 0 | 1:
                holder[key] = source.choice(ODD)
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[source.choice(_NAMES)] = holder.pop(key)
            case 4:
                holder[key] = _deep(source.choice([3, 60, 70, 900, 5000]))
            case 5 if isinstance(holder, dict):
                holder[source.choice(keys)] = holder[source.choice(keys)]
            case _:
                holder[key] = source.choice(NUMBERS)
    return value


def _holders(value: Any) -> list[Any]:
    found = []
    waiting = [value]
    while waiting and len(found) < 10_000:
        each = waiting.pop()
        if isinstance(each, dict | list) and each:
            found.append(each)
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return found


class _Raw(str):
    """Text that is JSON already."""


def _deep(levels: int) -> _Raw:
    return _Raw("[" * levels + "]" * levels)


def _text(source: random.Random, value: Any) -> bytes:
    """JSON, at times with a name given twice, or damaged."""
    text = dumps(value).encode("utf-8", "surrogatepass")
    if source.random() < 0.15 and text.startswith(b"{") and len(text) > 2:
        text = text[:-1] + b"," + text[1:]
    return _damaged(source, text) if source.random() < 0.2 else text


def dumps(value: Any) -> str:
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{dumps(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value)


def _file(source: random.Random, header: bytes, data: bytes) -> bytes:
    length = len(header)
    if source.random() < 0.2:
        length = source.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, 10**8, 10**8 + 1]) % 2**64
    if source.random() < 0.2:
        data = source.choice([b"", data[:-1], data + b"\0", data * 2])
    return struct.pack("<Q", length) + header + data


def _damaged(source: random.Random, content: bytes, *, most: int | None = None, shorten: bool = True) -> bytes:
    """A few bytes changed, in the first `most`; or cut off; or a piece doubled."""
    damaged = bytearray(content)
    end = min(len(damaged), most or len(damaged))
    for _ in range(source.randint(1, 8)):
        place = source.randrange(max(end, 1))
        if place < len(damaged):
            damaged[place] = source.choice([0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)])
    if shorten and source.random() < 0.2:
        del damaged[source.randrange(len(damaged) + 1) :]
    if shorten and source.random() < 0.1:
        start = source.randrange(len(damaged) + 1)
        damaged[start:start] = damaged[: source.randrange(200)]
    return bytes(damaged)
