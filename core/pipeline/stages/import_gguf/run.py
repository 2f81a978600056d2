"""Import of a GGUF file; its tensors are dequantised."""

import math
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, cast

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from core.engine.models.folder import open_model
from core.engine.models.gguf_header import read_gguf_sandboxed
from core.engine.models.gguf_import import build_tokenizer, complete_config
from core.engine.models.memory_limit import memory_limited
from core.pipeline.stages.import_gguf.spec import ImportedModelOutput, ImportGgufSpec
from core.pipeline.stages.run import StageContext
from secateur_wire.errors import UnusableModel

_IMPORT_BYTES: Final = 2 * 2**30
_IMPORT_BYTES_A_VALUE: Final = 16
"""Memory of an import: four times the file's values in float32, and what the libraries need besides."""


def run(spec: ImportGgufSpec, context: StageContext) -> ImportedModelOutput:
    """Dequantise a GGUF file to float32 and save it as a safetensors folder; no partial folder is left behind."""
    header = read_gguf_sandboxed(spec.source)
    tokenizer = build_tokenizer(header)
    values = sum(math.prod(tensor.shape) for tensor in header.tensors)
    with memory_limited(_IMPORT_BYTES + _IMPORT_BYTES_A_VALUE * values), _cached_reader():
        try:
            where = {"gguf_file": spec.source.name, "local_files_only": True}
            config = AutoConfig.from_pretrained(spec.source.parent, **where)
            config = complete_config(config, header)
            opened = AutoModelForCausalLM.from_pretrained(
                spec.source.parent, config=config, dtype=torch.float32, output_loading_info=True, **where
            )
        except (Exception, MemoryError) as error:  # the library raises a dozen kinds of errors for files it cannot read
            raise UnusableModel(f"{spec.source.name} cannot be imported: {error}"[:2000], param="path") from error
        model, loaded = cast(tuple[PreTrainedModel, dict[str, Collection[str]]], opened)
        _require_complete(spec.source.name, len(tokenizer), model, loaded["missing_keys"])
        return _save(spec.target, model, tokenizer)


@contextmanager
def _cached_reader() -> Iterator[None]:
    """Cache what the loader gets from the gguf library.

    The loader reads the file once for the config and once for the weights, and computes the names of all tensors again
    for each module of the network.
    """
    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    vars(gguf).update(GGUFReader=cache(reader), get_tensor_name_map=cache(names))
    try:
        yield
    finally:
        vars(gguf).update(GGUFReader=reader, get_tensor_name_map=names)


def _require_complete(name: str, tokens: int, model: PreTrainedModel, missing: Collection[str]) -> None:
    if missing:
        shown = ", ".join(sorted(missing)[:5])
        raise UnusableModel(f"{name} lacks {len(missing)} tensors of its model, among them {shown}", param="path")
    if tokens > model.config.vocab_size:
        raise UnusableModel(f"{name} has {tokens} tokens, its model knows {model.config.vocab_size}", param="path")


def _save(target: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> ImportedModelOutput:
    # The loader leaves its quantisation settings in the config; with them the model would refuse to be saved.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    vars(model).update(hf_quantizer=None, is_quantized=False)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    description = open_model(partial).description
    partial.rename(target)
    return ImportedModelOutput(parameters=description.parameters, architecture=description.architecture)
