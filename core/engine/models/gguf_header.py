"""Header of a GGUF file, read within bounds: no header can make reading slow, large or silently wrong.

Format (versions 2 and 3, little-endian): the magic, version, number of tensors, number of metadata; each metadata entry
as key, type and value; each tensor as name, shape, type and offset; the tensors' data at the next aligned position.
"""

import math
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeVar

from gguf.constants import GGML_QUANT_SIZES

from core.sandbox import run_sandboxed
from secateur_wire.errors import UnusableModel

MOST_HEADER_BYTES: Final = 2**27
"""Largest header in bytes: four times the largest vocabulary in use, with its merges."""
_MOST_METADATA: Final = 4096
_MOST_TENSORS: Final = 2**16
_MOST_STRINGS: Final = 2**21
_MOST_NAME_BYTES: Final = 2**16
_MOST_TEXT_BYTES: Final = 2**24
_MOST_DIMENSIONS: Final = 4
_MOST_ELEMENTS: Final = 2**40
_VERSIONS: Final = (2, 3)

ARCHITECTURES: Final = ("gemma2", "gemma3", "gpt2", "llama", "phi3", "qwen2", "qwen3", "stablelm", "starcoder2")
"""Architectures in GGUF files that are supported here and that transformers loads from GGUF.

Mistral is called llama, because llama.cpp computes both alike, and so is a Qwen2 without some heads.
"""
_ROTARY_FACTORS: Final = ("rope_freqs.", "rope_factors_")

_STRING: Final = 8
_ARRAY: Final = 9
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Format characters of `struct` for the types of fixed size, by the format's numbers."""
_QUANTISED: Final[dict[int, tuple[int, int]]] = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
"""Elements and bytes of a block, by the number of a tensor's type."""

_KEPT_ARRAYS: Final = frozenset(f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "scores", "token_type"))
_SIZES: Final = (
    *("embedding_length", "feed_forward_length", "vocab_size", "attention.head_count", "attention.head_count_kv"),
    *("attention.key_length", "attention.value_length", "rope.dimension_count"),
)
"""Metadata of an architecture that determine the shapes of its tensors; they may not exceed the tensors' sizes."""

Value = bool | int | float | str | list[str] | list[int] | list[float]
_Kind = TypeVar("_Kind", bool, int, float, str)


@dataclass(frozen=True)
class GgufTensor:
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and table of tensors; arrays that are not needed here are empty."""

    name: str
    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        return self.need("general.architecture", str)

    def get(self, key: str, kind: type[_Kind]) -> _Kind | None:
        """Return the value of a key, None where it is absent; raises UnusableModel where it has another type."""
        value = self.metadata.get(key)
        if value is None or type(value) is kind:
            return value
        raise UnusableModel(f"{self.name}: {key} is {str(value)[:50]!r}, expected {kind.__name__}", param="path")

    def need(self, key: str, kind: type[_Kind]) -> _Kind:
        value = self.get(key, kind)
        if value is None:
            raise UnusableModel(f"{self.name} has no {key} in its metadata", param="path")
        return value

    def texts(self, key: str) -> list[str]:
        """Return the strings of an array, empty where it is absent; raises UnusableModel for other elements."""
        value = self.metadata.get(key, [])
        if isinstance(value, list):
            texts = [each for each in value if isinstance(each, str)]
            if len(texts) == len(value):
                return texts
        raise UnusableModel(f"{self.name}: {key} is no list of texts", param="path")

    def numbers(self, key: str) -> list[float]:
        """Return the numbers of an array, empty where it is absent; raises UnusableModel for other elements."""
        value = self.metadata.get(key, [])
        if isinstance(value, list):
            numbers = [float(each) for each in value if not isinstance(each, str)]
            if len(numbers) == len(value):
                return numbers
        raise UnusableModel(f"{self.name}: {key} is no list of numbers", param="path")


def require_importable(header: GgufHeader) -> None:
    """Raise UnusableModel if the architecture is not supported, or its sizes exceed the tensors' shapes."""
    if header.architecture not in ARCHITECTURES:
        raise UnusableModel(
            f"{header.name} is of architecture {header.architecture[:50]!r} (general.architecture); GGUF files "
            f"are taken of {', '.join(ARCHITECTURES)}",
            param="path",
        )
    scaling = header.metadata.get(f"{header.architecture}.rope.scaling.type", "none")
    if scaling != "none" or any(tensor.name.startswith(_ROTARY_FACTORS) for tensor in header.tensors):
        raise UnusableModel(
            f"{header.name} scales its rotary embeddings, which the import cannot restore: it would be another model. "
            "Take its safetensors",
            param="path",
        )
    largest = {
        "block_count": len(header.tensors),
        **dict.fromkeys(_SIZES, max((size for tensor in header.tensors for size in tensor.shape), default=0)),
    }
    for name, most in largest.items():
        key = f"{header.architecture}.{name}"
        value = header.metadata.get(key, 0)
        if type(value) is not int or not 0 <= value <= most:
            raise UnusableModel(
                f"{header.name} says {key} = {str(value)[:50]}, but its tensors allow a whole number up to {most}",
                param="path",
            )


def read_gguf_sandboxed(path: Path) -> GgufHeader:
    """Read the header of an importable file in a child process with little memory and time, and without network.

    Raises UnusableModel.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        read = run_sandboxed("gguf", stream, path.name, min(size, MOST_HEADER_BYTES), file_size=size)
    tensors = tuple(GgufTensor(name, tuple(shape)) for name, shape in read["tensors"])
    return GgufHeader(path.name, read["metadata"], tensors)


def prepare(task: dict[str, Any]) -> None:
    """Load nothing: all that `measure_here` needs is there."""


def measure_here(stream: BinaryIO, task: dict[str, Any]) -> dict[str, Any]:
    """Return the header's metadata and tensors, as JSON; raises UnusableModel."""
    header = read_gguf_header(stream, task["name"], task["file_size"])
    require_importable(header)
    tensors = [(tensor.name, tensor.shape) for tensor in header.tensors]
    return {"metadata": header.metadata, "tensors": tensors}


def read_gguf_header(stream: BinaryIO, name: str, size: int) -> GgufHeader:
    """Read the header of a file of `size` bytes; raises UnusableModel naming the defect."""
    return _Reading(stream, name, size).header()


class _Reading:
    def __init__(self, stream: BinaryIO, name: str, size: int) -> None:
        self._stream = stream
        self._name = name
        self._size = size
        self._place = 0

    def header(self) -> GgufHeader:
        if self._size < 24 or self._bytes(4, "magic") != b"GGUF":
            self._refuse("it does not begin with GGUF's magic and counts")
        version = self._number(4, "version")
        if version not in _VERSIONS:
            self._refuse(f"it is of version {version}, expected 2 or 3, little-endian")
        tensors = self._count(_MOST_TENSORS, "tensors")
        entries = self._count(_MOST_METADATA, "metadata")
        metadata: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text(_MOST_NAME_BYTES, "a key")
            if key in metadata:
                self._refuse(f"it has {key[:200]!r} twice")
            metadata[key] = self._value(key)
        table = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 2**20:
            self._refuse(f"general.alignment is {str(alignment)[:50]}, expected a whole number up to {2**20}")
        data = math.ceil(self._place / alignment) * alignment
        for tensor, start, length in table:
            if data + start + length > self._size:
                self._refuse(
                    f"tensor {tensor.name!r} ends at byte {data + start + length}, but the file has {self._size}"
                )
        if len({tensor.name for tensor, *_ in table}) < len(table):
            self._refuse("it has two tensors of one name")
        return GgufHeader(self._name, metadata, tuple(tensor for tensor, *_ in table))

    def _value(self, key: str) -> Value:
        shown = repr(key[:200])
        kind = self._number(4, shown)
        if kind == _STRING:
            return self._text(_MOST_TEXT_BYTES, shown)
        if kind != _ARRAY:
            return self._scalar(kind, shown)
        kind = self._number(4, shown)
        if kind == _STRING:
            texts = (self._text(_MOST_TEXT_BYTES, shown) for _ in range(self._count(_MOST_STRINGS, shown)))
            return list(texts if key in _KEPT_ARRAYS else deque(texts, maxlen=0))
        if kind not in _NUMBERS:
            self._refuse(f"{shown} is an array of type {kind}, expected numbers or strings")
        code = _NUMBERS[kind]
        count = self._count(MOST_HEADER_BYTES, shown)
        raw = self._bytes(count * struct.calcsize(f"<{code}"), shown)
        return list(struct.unpack(f"<{count}{code}", raw)) if key in _KEPT_ARRAYS else []

    def _scalar(self, kind: int, shown: str) -> bool | int | float:
        if kind not in _NUMBERS:
            self._refuse(f"{shown} has a value of unknown type {kind}")
        code = f"<{_NUMBERS[kind]}"
        number: bool | int | float
        (number,) = struct.unpack(code, self._bytes(struct.calcsize(code), shown))
        return number

    def _tensor(self) -> tuple[GgufTensor, int, int]:
        """Return a tensor's entry, the start of its data and their length in bytes."""
        name = self._text(_MOST_NAME_BYTES, "a tensor's name")
        shown = repr(name[:200])
        dimensions = self._number(4, f"tensor {shown}")
        if dimensions > _MOST_DIMENSIONS:
            self._refuse(f"tensor {shown} has {dimensions} dimensions, expected at most {_MOST_DIMENSIONS}")
        shape = tuple(self._number(8, f"tensor {shown}") for _ in range(dimensions))
        kind = self._number(4, f"tensor {shown}")
        start = self._number(8, f"tensor {shown}")
        if kind not in _QUANTISED:
            self._refuse(f"tensor {shown} is of unknown type {kind}")
        elements = math.prod(shape)
        if elements > _MOST_ELEMENTS or 0 in shape:
            self._refuse(f"tensor {shown} has the shape {list(shape)}")
        block, size = _QUANTISED[kind]
        if (shape[0] if shape else 1) % block:
            self._refuse(f"tensor {shown} of shape {list(shape)} has rows that are not whole blocks of {block}")
        return GgufTensor(name, shape[::-1]), start, elements // block * size

    def _number(self, width: int, what: str) -> int:
        return int.from_bytes(self._bytes(width, what), "little")

    def _count(self, most: int, what: str) -> int:
        count = self._number(8, what)
        if count > min(most, self._size):
            self._refuse(f"{what}: it claims {count} of them, expected at most {min(most, self._size)}")
        return count

    def _text(self, most: int, what: str) -> str:
        length = self._number(8, what)
        if length > most:
            self._refuse(f"{what}: a text of {length} bytes, expected at most {most}")
        raw = self._bytes(length, what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._refuse(f"{what}: a text that is not UTF-8")

    def _bytes(self, length: int, what: str) -> bytes:
        end = self._place + length
        if end > self._size:
            self._refuse(f"{what} would end at byte {end}, but the file has {self._size} (truncated?)")
        if end > MOST_HEADER_BYTES:
            self._refuse(f"its header is longer than the {MOST_HEADER_BYTES} bytes that are read")
        raw = self._stream.read(length)
        if len(raw) < length:
            self._refuse(f"{what} would end at byte {end}, the file ends before")
        self._place = end
        return raw

    def _refuse(self, reason: str) -> NoReturn:
        raise UnusableModel(f"{self._name} is not a usable GGUF file: {reason}", param="path")
