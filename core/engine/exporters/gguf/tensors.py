"""Tensors of GGUF files: what llama.cpp calls those of a model, and in which order it wants their rows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.exporters.gguf.family import Floats
from core.engine.exporters.gguf.refusal import refusal
from core.engine.exporters.gguf.settings import GgufSettings
from core.engine.models.folder import ModelFolder
from core.engine.models.tensors import read_tensor


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor of a folder with its name and shape in a file; `layer` is that of its block.

    `module` is its module's name in the file, within the block.
    """

    name: str
    module: str
    layer: int | None
    entry: TensorEntry
    is_transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape[::-1] if self.is_transposed else self.entry.shape

    @property
    def numel(self) -> int:
        return self.entry.numel


_BUFFERS: Final = re.compile(r".*\.(attn|attention)\.(masked_)?bias|.*\.rotary_emb\.inv_freq")
"""Constants that older checkpoints store among the weights: masks, and frequencies of rotary embeddings."""


def placed_tensors(folder: ModelFolder, settings: GgufSettings) -> Iterator[PlacedTensor]:
    """Yield each tensor of a folder at its place in a file; raises the refusal of one that llama.cpp has none for.

    A head that is the embeddings is left out: llama.cpp takes those itself.
    """
    architecture, family = folder.family, settings.family
    outer = {f"{architecture.base}.{module}": name for module, name in family.outer.items()}
    outer[architecture.head] = "output"
    in_block = re.compile(re.escape(architecture.blocks) + r"\.([0-9]+)\.(.+)")
    for full, entry in folder.tensors.items():
        module, _, kind = full.rpartition(".")
        if (module == architecture.head and settings.is_tied) or _BUFFERS.fullmatch(full):
            continue
        match = in_block.fullmatch(module)
        name = outer.get(module) if match is None else family.modules.get(match[2])
        if name is None or kind not in ("weight", "bias"):
            raise refusal(f"a tensor {full[:200]}", "those alone that llama.cpp has a place for")
        if match is None:
            yield PlacedTensor(f"{name}.{kind}", name, None, entry, False)
        else:
            is_transposed = architecture.transposed and len(entry.shape) == 2
            yield PlacedTensor(f"blk.{match[1]}.{name}.{kind}", name, int(match[1]), entry, is_transposed)


def read_placed(tensor: PlacedTensor, settings: GgufSettings) -> Floats:
    """Read a tensor as llama.cpp wants it, in float32."""
    weight: Floats = read_tensor(tensor.entry).float().numpy()
    weight = weight.T if tensor.is_transposed else weight
    if tensor.module.endswith("norm"):
        weight = weight + np.float32(settings.family.norm_offset)
    if tensor.layer is None:
        return weight
    heads = (settings.kv_heads if tensor.module == "attn_k" else settings.heads)[tensor.layer]
    if tensor.module in ("attn_q", "attn_k") and settings.form.rotates_neighbours:
        weight = _neighbours(weight, heads)
    if tensor.module in settings.family.reorder:
        weight = settings.family.reorder[tensor.module](weight, heads)
    return weight


def _neighbours(weight: Floats, heads: int) -> Floats:
    """Return the rows of queries or keys so that pairs that turn together, which are half a head apart, are next."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def rotary_factors(settings: GgufSettings) -> NDArray[np.float32] | None:
    """Return by how much slower each pair of a head turns; None where none does.

    Pairs that turn `high_freq_factor` times in the original context keep their frequency, those that turn
    `low_freq_factor` times get the slower one; between them it changes linearly with the number of turns.
    """
    if settings.rotary is None or settings.rotary.scaling is None:
        return None
    size, base, scaling = settings.rotary.size, settings.rotary.base, settings.rotary.scaling
    exponents = np.arange(0, size, 2, dtype=np.float64) / size
    turns = scaling.original_max_position_embeddings / (2 * np.pi * base**exponents)
    fast = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    share = np.clip(fast, 0, 1)
    return (1 / (share + (1 - share) / scaling.factor)).astype(np.float32)
