"""Mistakes of a writer of GGUF files, each in every family that it applies to: all have to be caught in llama.cpp."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy
import pytest
from gguf import GGUFWriter

from core.engine.exporters.gguf import codes, exporter, writer
from core.engine.exporters.gguf.family import Floats
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.exporters.gguf.tensors import PlacedTensor, placed_tensors, read_placed
from core.engine.models.folder import ModelFolder
from secateur_wire.errors import ExportFailed, ExportMismatch
from tests.gguf.cells import Cell, export
from tests.gguf.trained import FAMILIES

KL: Final = "KL"
IDS: Final = "token ids"
LOAD: Final = "does not load"


@dataclass(frozen=True)
class Sabotage:
    """A mistake: what it does to settings, to the list of tensors, or to the weights of one.

    `not_in` are the families it cannot be made in, and why; to all others it is done in `ways`, their own or the
    usual. `caught` is by what, `in_other_ways` where that is another, by family and way.
    """

    title: str
    settings: Callable[[GgufSettings], GgufSettings] = lambda settings: settings
    tensors: Callable[[list[PlacedTensor], GgufSettings], list[PlacedTensor]] = lambda tensors, settings: tensors
    weights: Callable[[Floats, PlacedTensor, GgufSettings], Floats] = lambda weight, tensor, settings: weight
    pre_tokenizer: str | None = None
    usual: Sequence[str] = ("uncut",)
    ways: Mapping[str, Sequence[str]] = field(default_factory=dict)
    not_in: Mapping[str, str] = field(default_factory=dict)
    caught: str = KL
    in_other_ways: Mapping[Cell, str] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """Return the cells that it is done in."""
        return [
            (family, way)
            for family in FAMILIES
            if family not in self.not_in
            for way in self.ways.get(family, self.usual)
        ]

    @contextmanager
    def done(self) -> Iterator[None]:
        """Make the mistake in all files that are written inside the context."""

        def wrong_settings(folder: ModelFolder) -> GgufSettings:
            return self.settings(read_settings(folder))

        def wrong_tensors(folder: ModelFolder, settings: GgufSettings) -> list[PlacedTensor]:
            return self.tensors(list(placed_tensors(folder, settings)), settings)

        def wrong_weights(tensor: PlacedTensor, settings: GgufSettings) -> Floats:
            return self.weights(read_placed(tensor, settings), tensor, settings)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporter, "read_settings", wrong_settings)
            patch.setattr(codes, "placed_tensors", wrong_tensors)
            patch.setattr(writer, "read_placed", wrong_weights)
            if self.pre_tokenizer is not None:
                patch.setattr(
                    GGUFWriter,
                    "add_tokenizer_pre",
                    lambda self_, pre: self_.add_string("tokenizer.ggml.pre", self.pre_tokenizer),
                )
            yield


def caught(sabotage: Sabotage, folder: Path) -> tuple[str, float | None]:
    """Return what a mistake in a model's file is caught by, and the KL divergence where that is it."""
    with sabotage.done(), pytest.raises((ExportMismatch, ExportFailed)) as raised:
        export(folder, "Q8_0")
    assert not list(folder.glob("*Q8_0*")), "no other type follows"
    said = raised.value.message
    if raised.errisinstance(ExportFailed):
        assert "does not load model-F16.gguf" in said
        return LOAD, None
    divergence = re.search(r"mean KL divergence is (\S+) nats", said)
    return (IDS, None) if divergence is None else (KL, float(divergence[1]))


def _without(*names: str) -> Callable[[GgufSettings], GgufSettings]:
    def settings(right: GgufSettings) -> GgufSettings:
        return replace(right, keys={key: each for key, each in right.keys.items() if key not in names})

    return settings


def _is_bias(tensor: PlacedTensor) -> bool:
    return tensor.name.endswith(".bias") and not tensor.module.endswith("norm")


def _renamed(one: str, other: str) -> Callable[[list[PlacedTensor], GgufSettings], list[PlacedTensor]]:
    names = {one: other, other: one}

    def tensors(right: list[PlacedTensor], settings: GgufSettings) -> list[PlacedTensor]:
        if not names.keys() <= {each.module for each in right}:  # they are fused
            return right
        return [
            replace(each, name=each.name.replace(f".{each.module}.", f".{names.get(each.module, each.module)}."))
            for each in right
        ]

    return tensors


def _other_order(right: GgufSettings) -> GgufSettings:
    return replace(right, form=replace(right.form, rotates_neighbours=not right.form.rotates_neighbours))


def _other_offset(right: GgufSettings) -> GgufSettings:
    return replace(right, family=replace(right.family, norm_offset=1 - right.family.norm_offset))


def _file_order(right: GgufSettings) -> GgufSettings:
    return replace(right, family=replace(right.family, reorder={}))


def _no_ffn(right: GgufSettings) -> GgufSettings:
    widths = right.keys["feed_forward_length"]
    if not isinstance(widths, list):
        return right
    return replace(right, keys=right.keys | {"feed_forward_length": [0, *widths[1:]]})


def _no_ffn_tensors(right: list[PlacedTensor], settings: GgufSettings) -> list[PlacedTensor]:
    return [each for each in right if each.layer != 0 or not each.module.startswith("ffn")]


def _keys_first(weight: Floats, tensor: PlacedTensor, settings: GgufSettings) -> Floats:
    if tensor.module != "attn_qkv" or settings.family.architecture == "GPTNeoXForCausalLM":
        return weight
    assert tensor.layer is not None
    return numpy.roll(weight, -settings.heads[tensor.layer] * settings.head_size, axis=0)


def _halves_swapped(weight: Floats, tensor: PlacedTensor, settings: GgufSettings) -> Floats:
    is_fused = settings.family.modules.get("mlp.gate_up_proj") == "ffn_up" and not settings.form.parts
    return numpy.roll(weight, len(weight) // 2, axis=0) if is_fused and tensor.module == "ffn_up" else weight


def _other_residual(right: GgufSettings) -> GgufSettings:
    return replace(right, keys=right.keys | {"use_parallel_residual": not right.keys["use_parallel_residual"]})


def _none_but(families: Sequence[str], why: str) -> dict[str, str]:
    return {name: why for name in FAMILIES if name not in families}


_DECI: Final = ("llama", "mistral", "qwen2", "phi3", "glm")
"""Families whose layers may differ, as `deci`."""
_FILLED: Final = ("gpt2", "olmo2", "starcoder2", "stablelm", "stablelm-parallel", "gpt-neox")
_FUSED: Final = ("gpt2", "phi3", "gpt-neox", "qwen3-tied")
_BIASED: Final = ("qwen2", "gpt2", "starcoder2", "stablelm", "gpt-neox", "glm")
_UNTIED: Final = (
    *("mistral", "qwen3", "olmo2", "phi3", "granite", "stablelm", "stablelm-parallel", "gpt-neox", "glm"),
)

SABOTAGES: Final[Mapping[str, Sabotage]] = {
    "row_order": Sabotage(
        "the rows of queries and keys are in an order that llama.cpp does not use there",
        settings=_other_order,
        ways=dict.fromkeys(_DECI, ("uncut", "heads", "per_layer")) | {"phi3": ("heads", "per_layer")},
        not_in={"gpt2": "the model has no rotary embeddings", "gpt-neox": "the matrices are fused, and D tests them"},
    ),
    "no_head_size": Sabotage(
        "the model lost heads, but the file has no size of heads (`key_length`, `value_length`)",
        settings=_without("attention.key_length", "attention.value_length", "rope.dimension_count"),
        usual=("heads",),
        not_in=dict.fromkeys(
            _FILLED, "all heads together are always as wide as the model, which is llama.cpp's default"
        ),
        caught=LOAD,
    ),
    "no_rotary_size": Sabotage(
        "the file has no size of rotary embeddings (`dimension_count`)",
        settings=_without("rope.dimension_count"),
        not_in=_none_but(
            ("stablelm", "stablelm-parallel", "gpt-neox", "glm"), "complete heads rotate, or nothing does"
        ),
    ),
    "fused_order": Sabotage(
        "fused queries, keys and values are in another order",
        settings=_file_order,
        weights=_keys_first,
        ways={"qwen3-tied": ("per_layer",)},
        not_in=_none_but(_FUSED, "they are not fused"),
    ),
    "no_ffn": Sabotage(
        "a layer has no FFN",
        settings=_no_ffn,
        tensors=_no_ffn_tensors,
        ways=dict.fromkeys((*_DECI, "qwen3-tied"), ("uncut", "per_layer")),
        caught=LOAD,
        in_other_ways={(name, "per_layer"): KL for name in _DECI},
    ),
    "swapped": Sabotage(
        "gate and up are swapped",
        tensors=_renamed("ffn_gate", "ffn_up"),
        weights=_halves_swapped,
        ways=dict.fromkeys(("phi3", "glm"), ("uncut", "per_layer")),
        not_in=dict.fromkeys(("gpt2", "starcoder2", "gpt-neox"), "the FFN has no gate"),
    ),
    "pre_tokenizer": Sabotage("the file names another pre-tokenizer", pre_tokenizer="deepseek-coder", caught=IDS),
    "no_biases": Sabotage(
        "all biases are missing, except those of norms",
        tensors=lambda tensors, settings: [each for each in tensors if not _is_bias(each)],
        ways={"qwen2": ("uncut", "heads")},
        not_in=_none_but(_BIASED, "the model has no biases"),
        in_other_ways=dict.fromkeys(((name, "uncut") for name in ("gpt2", "starcoder2", "gpt-neox")), LOAD),
    ),
    "norm_offset": Sabotage(
        "norms have an offset where the model has none, or the other way round", settings=_other_offset
    ),
    "no_head": Sabotage(
        "the output head is missing",
        tensors=lambda tensors, settings: [each for each in tensors if each.module != "output"],
        not_in=_none_but(_UNTIED, "the embeddings are the head"),
        in_other_ways=dict.fromkeys(
            ((name, "uncut") for name in ("olmo2", "stablelm", "stablelm-parallel", "gpt-neox")), LOAD
        ),
    ),
    "no_window": Sabotage(
        "the sliding window is missing",
        settings=_without("attention.sliding_window"),
        not_in=_none_but(("gemma2", "gemma3"), "llama.cpp has no window for this model"),
    ),
    "no_caps": Sabotage(
        "the soft caps are missing",
        settings=_without("attn_logit_softcapping", "final_logit_softcapping"),
        not_in=_none_but(("gemma2",), "the model has no soft caps"),
    ),
    "no_factors": Sabotage(
        "the factors of attention, embeddings and residual stream are missing",
        settings=_without("attention.scale", "embedding_scale", "residual_scale"),
        not_in=_none_but(("granite",), "the model has no such factors"),
    ),
    "residual": Sabotage(
        "attention and FFN run in turn, but in the model they run at once",
        settings=_other_residual,
        not_in=_none_but(("gpt-neox",), "they always run in turn, or llama.cpp reads no key for this"),
    ),
    "transposed": Sabotage(
        "matrices are transposed, as transformers stores them",
        tensors=lambda tensors, settings: [replace(each, is_transposed=False) for each in tensors],
        not_in=_none_but(("gpt2",), "transformers stores them as llama.cpp needs them"),
        caught=LOAD,
    ),
}
