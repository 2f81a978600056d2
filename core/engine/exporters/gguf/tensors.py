"""Tensors of GGUF files: what llama.cpp calls those of a Llama, and in which order it wants the rows of heads."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.exporters.gguf.llama_settings import LlamaSettings
from core.engine.models.tensors import read_tensor

OUTER: Final = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_BLOCK: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_BLOCK: Final = re.compile(r"model\.layers\.([0-9]+)\.(.+)\.(weight|bias)")
_HEADS: Final = re.compile(r"blk\.([0-9]+)\.attn_([qk])\.(?:weight|bias)")

Floats = NDArray[np.float32]


def gguf_tensors(tensors: Mapping[str, TensorEntry], settings: LlamaSettings) -> Iterator[tuple[str, TensorEntry]]:
    """Yield llama.cpp's name of each tensor of a model with its entry; raises LookupError for one it has no place for.

    A head that is the embeddings is left out: llama.cpp takes those itself.
    """
    for name, entry in tensors.items():
        if name == "lm_head.weight" and settings.is_tied:
            continue
        yield _name(name), entry


def in_order(name: str, weight: Floats, settings: LlamaSettings) -> Floats:
    """Return a weight with its rows as llama.cpp wants them.

    It rotates pairs of neighbours, transformers the halves of a head: rows of queries and keys change places within
    each head.
    """
    match = _HEADS.fullmatch(name)
    if match is None:
        return weight
    heads = (settings.heads if match[2] == "q" else settings.kv_heads)[int(match[1])]
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def rotary_factors(settings: LlamaSettings) -> Floats | None:
    """Return by how much slower each pair of a head turns; None where none does.

    Pairs that turn `high_freq_factor` times in the original context keep their frequency, those that turn
    `low_freq_factor` times get the slower one; between them it changes linearly with the number of turns.
    """
    scaling = settings.rotary_scaling
    if scaling is None:
        return None
    exponents = np.arange(0, settings.head_size, 2, dtype=np.float64) / settings.head_size
    turns = scaling.original_max_position_embeddings / (2 * np.pi * settings.rotary_base**exponents)
    fast = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    share = np.clip(fast, 0, 1)
    return (1 / (share + (1 - share) / scaling.factor)).astype(np.float32)


def _name(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in IN_BLOCK:
        raise LookupError(f"llama.cpp has no place for tensor {name}")
    return f"blk.{match[1]}.{IN_BLOCK[match[2]]}.{match[3]}"


def read_floats(entry: TensorEntry) -> Floats:
    """Read a tensor as float32."""
    return read_tensor(entry).float().numpy()
