"""Writer of GGUF files: settings, vocabulary and tensors of a model folder, one tensor in memory at a time."""

import re
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_VERSION
from gguf.quants import quantize

from core.engine.exporters.gguf.codes import read_blocks, stored_tensors
from core.engine.exporters.gguf.file_types import ALL_TYPES, stored_bytes
from core.engine.exporters.gguf.settings import GgufSettings
from core.engine.exporters.gguf.tensors import read_placed, rotary_factors
from core.engine.exporters.gguf.vocabulary import Vocabulary
from core.engine.models.folder import ModelFolder

_ROTARY_FACTORS = "rope_freqs.weight"


def write_gguf(
    target: Path,
    folder: ModelFolder,
    settings: GgufSettings,
    vocabulary: Vocabulary,
    *,
    kind: str,
    name: str,
) -> None:
    """Write a file of a type that is not mixed, or of the codes of a quantised model; rename it once it is complete."""
    partial = target.with_name(f"{target.name}.partial")
    writer = GGUFWriter(partial, settings.form.name)
    writer.add_name(name)
    writer.add_file_type(ALL_TYPES[kind].number)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_settings(writer, settings)
    vocabulary.add_to(writer, settings.vocabulary)
    tensors = list(stored_tensors(folder, settings, kind))
    for each in tensors:
        shape = each.placed.shape
        writer.add_tensor_info(
            each.placed.name,
            shape,
            np.dtype(np.float32),
            stored_bytes(shape, each.kind),
            GGMLQuantizationType[each.kind],
        )
    factors = rotary_factors(settings)
    if factors is not None:
        writer.add_tensor_info(_ROTARY_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for each in tensors:
        if each.has_codes:
            writer.write_tensor_data(read_blocks(each, settings))
        else:
            writer.write_tensor_data(quantize(read_placed(each.placed, settings), GGMLQuantizationType[each.kind]))
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.close()
    partial.replace(target)


def write_vocabulary(target: Path, settings: GgufSettings, vocabulary: Vocabulary) -> None:
    """Write a file with the vocabulary and no tensors."""
    writer = GGUFWriter(target, settings.form.name)
    vocabulary.add_to(writer, settings.vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_settings(writer: GGUFWriter, settings: GgufSettings) -> None:
    """Add the metadata of the architecture, each with the type that llama.cpp expects."""
    for key, value in settings.keys.items():
        full = f"{settings.form.name}.{key}"
        if isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, float):
            writer.add_float32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        else:
            writer.add_array(full, value)


def other_types(file: Path, kind: str) -> dict[str, list[str]]:
    """Return the matrices of a file that are stored in another type than its own, by type; `*` is any block."""
    expected = ALL_TYPES[kind]
    others: dict[str, set[str]] = {}
    for tensor in GGUFReader(file).tensors:
        stored = tensor.tensor_type.name
        fits = stored in (*expected.mixes, kind)
        if len(tensor.shape) > 1 and tensor.name.endswith(".weight") and not fits:
            others.setdefault(stored, set()).add(re.sub(r"^blk\.[0-9]+\.", "blk.*.", tensor.name))
    return {stored: sorted(names) for stored, names in sorted(others.items())}
