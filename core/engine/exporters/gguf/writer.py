"""Writer of GGUF files: settings, vocabulary and tensors of a model folder, one tensor in memory at a time."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGML_QUANT_VERSION
from gguf.quants import quantize

from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.exporters.gguf.file_types import ALL_TYPES
from core.engine.exporters.gguf.llama_settings import LlamaSettings
from core.engine.exporters.gguf.tensors import gguf_tensors, in_order, read_floats, rotary_factors
from core.engine.exporters.gguf.vocabulary import Vocabulary

_ROTARY_FACTORS = "rope_freqs.weight"


def write_gguf(
    target: Path,
    tensors: Mapping[str, TensorEntry],
    settings: LlamaSettings,
    vocabulary: Vocabulary,
    *,
    kind: str,
    name: str,
) -> None:
    """Write a file of a type that is not mixed, renamed once it is complete.

    Vectors are stored in float32; a matrix whose rows are no whole blocks of the type, in float16.
    """
    partial = target.with_name(f"{target.name}.partial")
    writer = GGUFWriter(partial, settings.architecture)
    writer.add_name(name)
    writer.add_file_type(ALL_TYPES[kind].number)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_settings(writer, settings)
    vocabulary.add_to(writer, settings.vocabulary)
    named = dict(gguf_tensors(tensors, settings))
    for each, entry in named.items():
        stored = _stored_type(entry.shape, kind)
        block, size = GGML_QUANT_SIZES[stored]
        writer.add_tensor_info(each, entry.shape, np.dtype(np.float32), entry.numel // block * size, raw_dtype=stored)
    factors = rotary_factors(settings)
    if factors is not None:
        writer.add_tensor_info(_ROTARY_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for each, entry in named.items():
        weight = in_order(each, read_floats(entry), settings)
        writer.write_tensor_data(quantize(weight, _stored_type(entry.shape, kind)))
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.close()
    partial.replace(target)


def write_vocabulary(target: Path, settings: LlamaSettings, vocabulary: Vocabulary) -> None:
    """Write a file that has the vocabulary and no tensor."""
    writer = GGUFWriter(target, settings.architecture)
    vocabulary.add_to(writer, settings.vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_settings(writer: GGUFWriter, settings: LlamaSettings) -> None:
    """Add the settings, those too whose default is right for uncut models alone."""
    is_uniform = settings.architecture == "llama"
    writer.add_block_count(len(settings.channels))
    writer.add_context_length(settings.context)
    writer.add_embedding_length(settings.hidden)
    writer.add_feed_forward_length(settings.channels[0] if is_uniform else settings.channels)
    writer.add_head_count(settings.heads[0] if is_uniform else settings.heads)
    writer.add_head_count_kv(settings.kv_heads[0] if is_uniform else settings.kv_heads)
    writer.add_key_length(settings.head_size)
    writer.add_value_length(settings.head_size)
    writer.add_rope_dimension_count(settings.head_size)
    writer.add_rope_freq_base(settings.rotary_base)
    writer.add_layer_norm_rms_eps(settings.epsilon)
    writer.add_vocab_size(settings.vocabulary)


def other_types(file: Path, kind: str) -> dict[str, list[str]]:
    """Return the matrices of a file that another type had to be taken for, by that type; `*` is any block."""
    expected = ALL_TYPES[kind]
    others: dict[str, set[str]] = {}
    for tensor in GGUFReader(file).tensors:
        stored = tensor.tensor_type.name
        fits = stored.endswith("_K") if expected.is_mixed else stored == kind
        if len(tensor.shape) > 1 and not fits:
            others.setdefault(stored, set()).add(re.sub(r"^blk\.[0-9]+\.", "blk.*.", tensor.name))
    return {stored: sorted(names) for stored, names in sorted(others.items())}


def _stored_type(shape: tuple[int, ...], kind: str) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    if shape[-1] % ALL_TYPES[kind].block:
        return GGMLQuantizationType.F16
    return GGMLQuantizationType[kind]
