"""Headers of GGUF files: what is read, and that hostile ones end in a clear error, soon and in little memory."""

import random
import struct
from pathlib import Path

import numpy
import pytest
from gguf import GGUFReader, GGUFWriter

from core import sandbox
from core.engine.models.gguf_header import read_gguf_header, read_gguf_sandboxed
from core.engine.models.gguf_import import build_tokenizer
from secateur_wire.errors import UnusableModel
from tests.fuzz.cases import broken_gguf
from tests.fuzz.samples import GGUF
from tests.gguf.files import finish


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def string(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


def header(entries: int, body: bytes, *, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body


ARCHITECTURE = string("general.architecture", "llama")
ARRAY = text("a") + struct.pack("<I", 9)
ALIGNMENT = text("general.alignment") + struct.pack("<II", 4, 0)
TENSOR = text("w") + struct.pack("<I", 1)


def tensor(body: bytes) -> bytes:
    return header(1, ARCHITECTURE + body, tensors=1)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin with GGUF"),
    "an old version": (header(0, b"", version=1), "version 1, expected 2 or 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
    "countless metadata": (header(2**63, ARCHITECTURE), "it claims 9223372036854775808 of them"),
    "countless tensors": (header(1, ARCHITECTURE, tensors=2**40), "tensors: it claims"),
    "a key beyond the file": (header(1, struct.pack("<Q", 2**62)), "a text of 4611686018427387904 bytes"),
    "a text beyond the file": (header(1, text("a") + struct.pack("<IQ", 8, 1000)), "truncated"),
    "countless texts": (header(1, ARRAY + struct.pack("<IQ", 8, 2**61)), "claims 2305843009213693952"),
    "countless numbers": (header(1, ARRAY + struct.pack("<IQ", 10, 2**60)), "claims 1152921504606846976"),
    "numbers beyond the file": (header(1, ARRAY + struct.pack("<IQ", 12, 30)), "truncated"),
    "arrays in arrays": (header(1, ARRAY + struct.pack("<IQ", 9, 1) * 40), "an array of type 9"),
    "an unknown type": (header(1, text("a") + struct.pack("<I", 77)), "unknown type 77"),
    "no text": (header(1, struct.pack("<Q", 2) + b"\xff\xfe"), "not UTF-8"),
    "a key twice": (header(2, ARCHITECTURE * 2), "'general.architecture' twice"),
    "an alignment of nothing": (header(2, ARCHITECTURE + ALIGNMENT), "general.alignment is 0"),
    "a huge tensor": (tensor(TENSOR + struct.pack("<QIQ", 2**62, 0, 0)), "has the shape [4611686018427387904]"),
    "a tensor beyond the file": (tensor(TENSOR + struct.pack("<QIQ", 1000, 0, 0)), "ends at byte"),
    "a tensor of many dimensions": (tensor(text("w") + struct.pack("<I", 2**31)), "2147483648 dimensions"),
    "a tensor of an unknown type": (tensor(TENSOR + struct.pack("<QIQ", 1, 999, 0)), "unknown type 999"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    content, said = HOSTILE[name]
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with file.open("rb") as stream, pytest.raises(UnusableModel) as refused:
        read_gguf_header(stream, file.name, len(content))
    assert said in refused.value.message and refused.value.message.startswith("model.gguf")


def test_what_is_read_is_what_the_format_s_own_reader_finds(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(GGUF)
    ours, theirs = read_gguf_sandboxed(file), GGUFReader(file)
    assert ours.texts("tokenizer.ggml.tokens") == theirs.fields["tokenizer.ggml.tokens"].contents()
    assert ours.get("llama.block_count", int) == 1 and ours.get("tokenizer.ggml.add_bos_token", bool) is False
    shapes = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in theirs.tensors}
    assert {tensor.name: tuple(tensor.shape) for tensor in ours.tensors} == shapes


@pytest.mark.parametrize(
    ("architecture", "key", "value", "said"),
    [
        ("qwen2moe", "block_count", 1, "is of architecture 'qwen2moe'"),
        ("llama", "block_count", 10**9, "llama.block_count = 1000000000"),
        ("llama", "rope.dimension_count", 2**31, "up to 8"),
    ],
)
def test_shapes_no_tensor_has_and_architectures_not_taken_are_refused(
    architecture: str, key: str, value: int, said: str, tmp_path: Path
) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", architecture)
    writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_tensor("token_embd.weight", numpy.zeros((4, 8), dtype=numpy.float32))
    with pytest.raises(UnusableModel, match=said):
        read_gguf_sandboxed(finish(writer, tmp_path / "model.gguf", {}))


def test_a_header_that_takes_too_much_memory_or_time_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many short texts take several times their length in memory: there is room for them, but not without time."""
    file = tmp_path / "model.gguf"
    tokens = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**18) + struct.pack("<Q", 0) * 2**18
    file.write_bytes(header(2, ARCHITECTURE + tokens))
    assert len(read_gguf_sandboxed(file).texts("tokenizer.ggml.tokens")) == 2**18
    monkeypatch.setattr(sandbox, "SECONDS", -60.0)
    with pytest.raises(UnusableModel, match="in the time and memory"):
        read_gguf_sandboxed(file)


def test_tokenizers_of_broken_headers_are_built_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    outcomes = []
    for number in range(400):
        file.write_bytes(broken_gguf(random.Random(f"tokenizer {number}"))["model.gguf"])
        try:
            with file.open("rb") as stream:
                tokenizer = build_tokenizer(read_gguf_header(stream, file.name, file.stat().st_size))
        except UnusableModel:
            outcomes.append("refused")
        else:
            outcomes.append("built" if tokenizer("ab <|end|>")["input_ids"] is not None else "")
    assert outcomes.count("built") > 20 and outcomes.count("refused") > 100
