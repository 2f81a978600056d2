"""Files as they should be, from which broken ones are made."""

import io
import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
from gguf import GGUFWriter

from tests.model_folders import write_llama


def _model() -> tuple[bytes, dict[str, Any]]:
    with TemporaryDirectory() as folder:
        model = write_llama(Path(folder) / "model", layers=1, hidden=4, intermediate=4)
        return (model / "model.safetensors").read_bytes(), json.loads((model / "config.json").read_bytes())


def _parquets() -> list[bytes]:
    """One text in each compression and encoding that differ in how they are decoded."""
    texts = [f"text number {number % 7} " * (number % 5) for number in range(300)]
    table = pyarrow.table({"text": texts, "other": list(range(300))})
    options: list[dict[str, Any]] = [
        {"compression": "snappy"},
        {"compression": "zstd", "row_group_size": 50},
        {"compression": "lz4", "data_page_size": 100},
        {"compression": "none", "use_dictionary": False, "column_encoding": "DELTA_LENGTH_BYTE_ARRAY"},
    ]
    written = []
    for each in options:
        content = io.BytesIO()
        kept = table.select(["text"]) if each.get("column_encoding") == "DELTA_LENGTH_BYTE_ARRAY" else table
        pyarrow.parquet.write_table(kept, content, **each)
        written.append(content.getvalue())
    return written


def _gguf() -> tuple[bytes, int]:
    """A file with all that an import asks for, and where its header ends."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "model.gguf")
        writer = GGUFWriter(file, "llama")
        writer.add_block_count(1)
        writer.add_embedding_length(8)
        writer.add_rope_freq_base(10000.0)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(["a", "b", "ab", "<|end|>"])
        writer.add_token_types([1, 1, 1, 3])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(3)
        writer.add_add_bos_token(False)
        writer.add_array("general.languages", ["en", "cs"])
        writer.add_tensor("token_embd.weight", numpy.zeros((4, 8), dtype=numpy.float32))
        writer.add_tensor("output_norm.weight", numpy.ones(8, dtype=numpy.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        content = file.read_bytes()
        return content, content.index(b"output_norm.weight") + len(b"output_norm.weight") + 24


WEIGHTS, CONFIG = _model()
GGUF, GGUF_HEADER_BYTES = _gguf()
HEADER: dict[str, Any] = json.loads(WEIGHTS[8 : 8 + struct.unpack("<Q", WEIGHTS[:8])[0]])
LINES = [json.dumps({"text": f"line {number} of a text", "id": number}).encode() for number in range(5)]
PARQUETS = _parquets()
