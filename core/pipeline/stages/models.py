"""Models and texts that jobs begin with: text a model writes, an import from GGUF, a new network."""

import json
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
from core.engine.models.gguf_config import complete_config
from core.engine.models.gguf_header import read_gguf_sandboxed
from core.engine.models.gguf_tokenizer import build_tokenizer
from core.engine.models.loading import load_model
from core.engine.models.memory_limit import memory_limited
from core.engine.models.precision import forward_dtype
from core.engine.models.reference_networks import ReferenceConfig, ReferenceNetwork
from core.engine.models.self_text import generate_documents, sequences_at_once
from core.engine.models.tensors import DTYPES
from core.errors import UnusableModel
from core.pipeline.messages import GenerateTextSpec, ImportGgufSpec, NewNetworkSpec
from core.pipeline.results import GeneratedTextOutput, NewModelOutput
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.opening import open_place

_IMPORT_BYTES: Final = 2 * 2**30
_IMPORT_BYTES_A_VALUE: Final = 16
"""An import is given the file's values four times over in float32, and what the libraries take besides."""


def generate_text(spec: GenerateTextSpec, context: StageContext) -> GeneratedTextOutput:
    """Have the model write text, as JSON lines."""
    progress, device = context.progress, context.device
    folder = open_place(spec.model)
    description, tokenizer = folder.description, folder.tokenizer()
    length = min(spec.sequence_length, description.context_length - 1)
    at_once = sequences_at_once(description, length, device)
    needed = spec.samples * spec.sequence_length
    documents = characters = 0
    with spec.target.open("w", encoding="utf-8") as target:
        for document in generate_documents(
            load_model(folder, device, dtype=forward_dtype("auto", DTYPES[description.dtype], device)),
            tokenizer,
            tokens=needed,
            length=length,
            seed=spec.seed,
            at_once=at_once,
            on_tokens=lambda done: progress.log(f"the model has written {done} of {needed} tokens"),
            on_progress=progress.advance,
        ):
            documents += 1
            characters += len(document)
            target.write(json.dumps({"text": document}) + "\n")
    return GeneratedTextOutput(documents=documents, characters=characters, tokens=needed)


def import_gguf(spec: ImportGgufSpec) -> NewModelOutput:
    """Dequantise a GGUF file to float32 and save it as a safetensors folder, complete or not at all."""
    header = read_gguf_sandboxed(spec.source)
    tokenizer = build_tokenizer(header)
    values = sum(math.prod(tensor.shape) for tensor in header.tensors)
    with memory_limited(_IMPORT_BYTES + _IMPORT_BYTES_A_VALUE * values), _read_once():
        try:
            where = {"gguf_file": spec.source.name, "local_files_only": True}
            config = AutoConfig.from_pretrained(spec.source.parent, **where)
            config = complete_config(config, header)
            opened = AutoModelForCausalLM.from_pretrained(
                spec.source.parent, config=config, dtype=torch.float32, output_loading_info=True, **where
            )
        except (Exception, MemoryError) as error:  # the library raises a dozen kinds for what it cannot make sense of
            raise UnusableModel(f"{spec.source.name} cannot be imported: {error}"[:2000], param="path") from error
        model, loaded = cast(tuple[PreTrainedModel, dict[str, Collection[str]]], opened)
        _require_complete(spec.source.name, len(tokenizer), model, loaded["missing_keys"])
        return _save(spec.target, model, tokenizer)


@contextmanager
def _read_once() -> Iterator[None]:
    """Keep what the loader asks the format's library for.

    It reads the file for the config and again for the weights, and has the names of all tensors worked out for each
    module of the network.
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


def _save(target: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> NewModelOutput:
    # The loader leaves its quantisation settings behind, with which the model would refuse to be saved.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    vars(model).update(hf_quantizer=None, is_quantized=False)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    description = open_model(partial).description
    partial.rename(target)
    return NewModelOutput(parameters=description.parameters, architecture=description.architecture)


def new_network(spec: NewNetworkSpec) -> NewModelOutput:
    """Create a reference network with random weights, complete or not at all."""
    torch.manual_seed(spec.seed)
    config = ReferenceConfig(
        network=spec.network,
        num_labels=spec.classes,
        num_channels=spec.channels,
        image_size=spec.image_size,
        hidden_sizes=spec.hidden_sizes,
        architectures=[ReferenceNetwork.__name__],
    )
    try:
        model = ReferenceNetwork(config)
    except RuntimeError as error:  # torch refuses layers of no width
        raise UnusableModel(
            f"{spec.network} cannot be built for images of {spec.image_size} x {spec.image_size}: {error}",
            param="image_size",
        ) from error
    partial = spec.target.with_name(f"{spec.target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    partial.rename(spec.target)
    return NewModelOutput(parameters=model.num_parameters())
