"""Tensors of GGUF files: llama.cpp's names of a model's tensors, and its order of their rows."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from numpy.typing import NDArray

from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.exporters.gguf.family import Floats, refusal
from core.engine.exporters.gguf.file_types import EXACT
from core.engine.exporters.gguf.settings import GgufSettings
from core.engine.models.folder import ModelFolder
from core.engine.models.tensors import read_tensor


@dataclass(frozen=True)
class PlacedTensor:
    """Tensor of a file, and the folder's tensors whose rows it has; `layer` is its block's number.

    `module` is the name of its module in the file, within the block. `part` returns what it has of an entry; None means
    all.
    """

    name: str
    module: str
    layer: int | None
    entries: tuple[TensorEntry, ...]
    is_transposed: bool = False
    part: Callable[[Floats], Floats] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.entries[0].shape
        if self.is_transposed:
            return first[::-1]
        if self.part is None:
            return (sum(each.shape[0] for each in self.entries), *first[1:])
        return self.part(np.broadcast_to(np.float32(0), first)).shape  # no memory

    def kind(self, of_file: str) -> str:
        """Return the file type by which it is stored in a file of a type; biases are not rounded."""
        return of_file if self.name.endswith(".weight") else EXACT

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


_ARCHITECTURES: Final = {name: number for number, name in MODEL_ARCH_NAMES.items()}
_BUFFERS: Final = re.compile(r".*\.(attn|attention)\.(masked_)?bias|.*\.rotary_emb\.inv_freq")
"""Constants that older checkpoints store among the weights: masks, and frequencies of rotary embeddings."""
_NO_ROTATION: Final = 1e30
"""Factor of a pair that does not turn at any length of context."""


def placed_tensors(folder: ModelFolder, settings: GgufSettings) -> Iterator[PlacedTensor]:
    """Yield each tensor of a folder with its place in a file; raises the refusal of one without a place in llama.cpp.

    A head that is tied to the embeddings is left out: llama.cpp reads the embeddings instead.
    """
    architecture = folder.family
    names = get_tensor_name_map(_ARCHITECTURES[settings.form.name], folder.description.layers)
    in_block = re.compile(re.escape(architecture.blocks) + r"\.([0-9]+)\.(.+)")
    for full, entry in folder.tensors.items():
        module, _, kind = full.rpartition(".")
        if (module == architecture.head and settings.is_tied) or _BUFFERS.fullmatch(full):
            continue
        block = in_block.fullmatch(full)
        placed = [] if block is None else _reshaped(entry, int(block[1]), block[2], folder, settings)
        if placed is None:
            continue
        name = names.get_name(module)
        if not placed and (name is None or kind not in ("weight", "bias")):
            raise refusal(f"a tensor {full[:200]}", "those alone that llama.cpp has a place for")
        if placed:
            yield from placed
        elif block is None:
            yield PlacedTensor(f"{name}.{kind}", str(name), None, (entry,))
        else:
            is_transposed = architecture.transposed and len(entry.shape) == 2
            of_block = str(name).removeprefix(f"blk.{block[1]}.")
            yield PlacedTensor(f"{name}.{kind}", of_block, int(block[1]), (entry,), is_transposed)


def _reshaped(
    entry: TensorEntry, layer: int, parameter: str, folder: ModelFolder, settings: GgufSettings
) -> list[PlacedTensor] | None:
    """Return the tensors that have parts of a block's parameter, or join it with others.

    The list is empty where the parameter stays as it is; None: it is joined to one that came before.
    """
    form, prefix = settings.form, f"blk.{layer}"
    if parameter in settings.family.parameters:
        return [
            PlacedTensor(
                f"{prefix}.{name}", name.rpartition(".")[0], layer, (entry,),
                part=partial(of_parameter, settings.heads[layer], settings.keys),
            )
            for name, of_parameter in settings.family.parameters[parameter].items()
        ]  # fmt: skip
    module, _, kind = parameter.rpartition(".")
    for name, modules in form.joined.items():
        if module == modules[0]:
            others = (f"{folder.family.blocks}.{layer}.{each}.{kind}" for each in modules)
            return [
                PlacedTensor(f"{prefix}.{name}.{kind}", name, layer, tuple(folder.tensors[each] for each in others))
            ]
        if module in modules:
            return None
    placed, begin, names = [], 0, form.parts.get(module, ())
    for name in names:
        heads = {"attn_q": settings.heads, "attn_k": settings.kv_heads, "attn_v": settings.kv_heads}.get(name)
        rows = entry.shape[0] // len(names) if heads is None else heads[layer] * settings.head_size
        part = partial(_rows, begin=begin, end=begin + rows)
        placed.append(PlacedTensor(f"{prefix}.{name}.{kind}", name, layer, (entry,), part=part))
        begin += rows
    return placed


def _rows(weight: Floats, *, begin: int, end: int) -> Floats:
    return weight[begin:end]


def read_values(entry: TensorEntry) -> Floats:
    """Read the values of a tensor in float32; quantised ones are dequantised."""
    values: Floats = read_tensor(entry).float().numpy()
    return values


def read_placed(
    tensor: PlacedTensor, settings: GgufSettings, read: Callable[[TensorEntry], Floats] = read_values
) -> Floats:
    """Read a tensor in llama.cpp's layout, in float32; `read` gives the rows of an entry."""
    weight = np.concatenate([read(entry) for entry in tensor.entries])
    if tensor.part is not None:
        weight = tensor.part(weight)
    weight = weight.T if tensor.is_transposed else weight
    if tensor.module.endswith("norm"):
        weight = weight + np.float32(settings.family.norm_offset)
    if tensor.layer is None:
        return weight
    heads = (settings.kv_heads if tensor.module == "attn_k" else settings.heads)[tensor.layer]
    if tensor.module in ("attn_q", "attn_k") and settings.form.rotates_neighbours:
        weight = _neighbours(weight, heads, settings)
    if tensor.module in settings.family.reorder:
        weight = settings.family.reorder[tensor.module](weight, heads)
    return weight


def _neighbours(weight: Floats, heads: int, settings: GgufSettings) -> Floats:
    """Return the rows of queries or keys with the two of each rotary pair side by side; a head's other rows stay."""
    size = settings.rotary.size if settings.rotary is not None else settings.head_size
    by_head = weight.reshape(heads, settings.head_size, -1)
    turned = by_head[:, :size].reshape(heads, 2, size // 2, -1).swapaxes(1, 2).reshape(heads, size, -1)
    return np.concatenate([turned, by_head[:, size:]], axis=1).reshape(weight.shape)


def rotary_factors(settings: GgufSettings) -> NDArray[np.float32] | None:
    """Return the factors by which pairs of a head turn slower than in llama.cpp; None where none does.

    Pairs that turn `high_freq_factor` times in the original context keep their frequency; pairs that turn
    `low_freq_factor` times get the slower one. Between them the frequency changes linearly with the number of turns.
    Where only part of a head turns and llama.cpp turns all of it, the frequencies are those of the part, and the other
    pairs do not turn.
    """
    rotary = settings.rotary
    turned = settings.head_size if settings.form.rotates_all else 0
    if rotary is None or (rotary.scaling is None and rotary.size >= turned):
        return None
    exponents = np.arange(0, rotary.size, 2, dtype=np.float64) / rotary.size
    factors = np.ones_like(exponents)
    if rotary.scaling is not None:
        scaling = rotary.scaling
        turns = scaling.original_max_position_embeddings / (2 * np.pi * rotary.base**exponents)
        fast = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        share = np.clip(fast, 0, 1)
        factors = 1 / (share + (1 - share) / scaling.factor)
    if rotary.size < turned:
        factors *= rotary.base ** (exponents * (1 - rotary.size / turned))
        factors = np.concatenate([factors, np.full((turned - rotary.size) // 2, _NO_ROTATION)])
    return factors.astype(np.float32)
