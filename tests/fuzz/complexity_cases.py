"""Content that is to make a parser slow, of any size: one table of every parser of foreign bytes that the service has.

Each entry names what reads the content, the file it is put into, the largest content that is taken, and the shapes.
What is bounded to a few kilobytes by its schema or by HTTP (cron strings, JSON Pointers, cursors, headers, names) is
not here: there is nothing to grow.
"""

import json
import struct
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow

from api.http.bodies import parse_body
from api.portal.session import parse_form
from core.engine.checkpoints.companions import MOST_CHARACTERS, check_companion
from core.engine.datasets.image_codec import decode_image
from core.engine.datasets.image_source import open_rows
from core.engine.datasets.text_files import read_documents
from core.engine.models.gguf_header import read_gguf_header
from core.service.sources.hub_models import weight_names
from core.service.triggers.placeholders import Placeholder, read_values
from core.service.triggers.templates import check_mentions, fill
from tests.fuzz.complexity_shapes import (
    ENTRY,
    JSON,
    TEMPLATES,
    Shape,
    columns,
    config_settings,
    exif,
    gguf,
    gguf_scalars,
    gguf_strings,
    gguf_text,
    in_config,
    in_header,
    numbered,
    parquet,
    png,
    repeated,
    rows,
    said,
)
from tests.fuzz.reader import READERS
from tests.fuzz.samples import CONFIG, WEIGHTS

MIB = 2**20


@dataclass(frozen=True)
class Parser:
    """A parser of foreign bytes: `read` is given the folder that `file` and the files beside it lie in."""

    read: Callable[[Path], object]
    file: str
    shapes: Mapping[str, Shape]
    largest: int
    beside: Mapping[str, bytes] = field(default_factory=dict)


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


def _documents(form: str) -> Callable[[Path], object]:
    suffix = {"jsonl": "jsonl", "text": "txt", "parquet": "parquet"}[form]
    return lambda folder: deque(read_documents(folder / f"text.{suffix}", form), maxlen=0)


def _gguf_header(folder: Path) -> object:
    file = folder / "model.gguf"
    with file.open("rb") as stream:
        return read_gguf_header(stream, file.name, file.stat().st_size)


def _image_rows(folder: Path) -> None:
    with open_rows(folder / "images.parquet", "image-parquet") as rows:
        assert rows.labels is not None


PARSERS: dict[str, Parser] = {
    "body of a request or payload of a trigger": Parser(
        lambda folder: parse_body((folder / "body").read_bytes()), "body", JSON, MIB
    ),
    "form of the portal": Parser(
        lambda folder: parse_form((folder / "form").read_bytes()),
        "form",
        {
            "&": repeated(b"&"),
            "a=": repeated(b"a=&"),
            "percent": repeated(b"%41", b"a="),
            "plus": repeated(b"+", b"a="),
        },
        MIB,
    ),
    "template of a trigger": Parser(
        _fill,
        "template",
        {
            "marks": repeated(b"${a}"),
            "half a mark": repeated(b"${"),
            "dollars": repeated(b"$"),
            "escaped": repeated(b"$${"),
        },
        MIB,
        {"payload": b'{"a": "%s"}' % (b"v" * 500)},
    ),
    "long value in a template": Parser(
        _fill, "payload", {"value": repeated(b"v", b'{"a":"', b'"}')}, MIB, {"template": b"${a}" * 1000}
    ),
    "pattern of a placeholder": Parser(_match, "payload", {"value": repeated(b"a", b'{"a":"', b'"}')}, MIB),
    "safetensors header": Parser(
        READERS["header"],
        "model.safetensors",
        {
            **{name: in_header(shape) for name, shape in JSON.items()},
            "entries": in_header(lambda size: b"{" + numbered(size, ENTRY) + b"}"),
            "dimensions": in_header(repeated(b"1,", b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":[', b"1]}}")),
        },
        16 * MIB,
    ),
    "config": Parser(
        READERS["model"],
        "config.json",
        {
            **{name: in_config(shape) for name, shape in JSON.items()},
            **{
                f"{form.decode()}… of a list": config_settings(form)
                for form in (b"theta", b"a_", b"n_", b"max_", b"_layers", b"size_", b"attn_", b"__", b"partial_rotary_")
            },
            "arguments in arguments": in_config(
                lambda size: b'{"model_args":' * 8 + b"{" + numbered(size, b'"n%d":1') + b"}" + b"}" * 8
            ),
        },
        4 * MIB,
        {"model.safetensors": WEIGHTS},
    ),
    "safetensors index": Parser(
        READERS["model"],
        "model.safetensors.index.json",
        {
            **JSON,
            "many names": lambda size: b'{"weight_map":{' + numbered(size, b'"n%d":"model.safetensors"') + b"}}",
            "many files": lambda size: b'{"weight_map":{' + numbered(size, b'"n%d":"f%%d"') + b"}}",
        },
        32 * MIB,
        {"model.safetensors": WEIGHTS, "config.json": json.dumps(CONFIG).encode()},
    ),
    "index of a hub's model": Parser(weight_names, "model.safetensors.index.json", JSON, 32 * MIB),
    "tokenizer's config": Parser(
        lambda folder: check_companion(folder / "tokenizer_config.json"), "tokenizer_config.json", JSON, 16 * MIB
    ),
    "chat template": Parser(
        lambda folder: check_companion(folder / "chat_template.jinja"),
        "chat_template.jinja",
        TEMPLATES,
        MOST_CHARACTERS,
    ),
    "JSON lines": Parser(
        _documents("jsonl"),
        "text.jsonl",
        {
            **JSON,
            "short lines": repeated(b'{"text":"a"}\n'),
            "empty lines": repeated(b"\n"),
        },
        32 * MIB,
    ),
    "plain text": Parser(
        _documents("text"),
        "text.txt",
        {
            "one line": repeated(b"a"),
            "short lines": repeated(b"a\n"),
            "passages": repeated(b"a\n\n"),
            "blank": repeated(b"\n"),
        },
        8 * MIB,
    ),
    "Parquet of texts": Parser(
        _documents("parquet"),
        "text.parquet",
        {
            "columns": parquet(columns),
            "row groups": parquet(rows, row_group_size=1),
            "rows": parquet(lambda size: pyarrow.table({"text": [str(number) for number in range(size // 8)]})),
            "what is said of it": parquet(
                lambda size: pyarrow.table({"text": ["a"]}).replace_schema_metadata(
                    {"k" * (size // 2): "v" * (size // 2)}
                )
            ),
        },
        4 * MIB,
    ),
    "Parquet of images": Parser(_image_rows, "images.parquet", {"names of classes": parquet(said)}, 4 * MIB),
    "image": Parser(
        lambda folder: decode_image((folder / "image").read_bytes()),
        "image",
        {
            "texts": png(b"tEXt", b"a\0b"),
            "packed texts": png(b"zTXt", b"a\0\0" + zlib.compress(b"b")),
            "unknown chunks": png(b"abCd", b"a"),
            "entries": exif,
            "markers": repeated(b"\xff\xfe\0\x03a", b"\xff\xd8", b"\xff\xd9"),
            "fill": repeated(b"\xff", b"\xff\xd8", b"\xd9"),
            "digits": repeated(b"1", b"P5 "),
            "comments": repeated(b"#\n", b"P5 "),
        },
        4 * MIB,
    ),
    "GGUF header": Parser(
        _gguf_header,
        "model.gguf",
        {
            "strings": gguf(gguf_strings),
            "scalars": gguf(gguf_scalars),
            "tensors": gguf(lambda size: [], gguf_text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0)),
        },
        16 * MIB,
    ),
}
"""Every parser of foreign bytes, by what it reads."""


def with_content(parser: Parser, content: bytes, read: Callable[[Path], float]) -> float:
    """Return what `read` returns for a folder that holds the content and what lies beside it."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for name, beside in parser.beside.items():
            (Path(folder) / name).write_bytes(beside)
        (Path(folder) / parser.file).write_bytes(content)
        return read(Path(folder))
