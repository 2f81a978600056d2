"""Text that a model writes, the import of a GGUF file, and new networks."""

import json
import math
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final, cast

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from core.engine.datasets.chat.conversations import LeftOutRows, read_rendered
from core.engine.models.folder import open_model
from core.engine.models.gguf_header import read_gguf_sandboxed
from core.engine.models.gguf_import import build_tokenizer, complete_config
from core.engine.models.loading import load_model
from core.engine.models.memory_limit import memory_limited
from core.engine.models.own_text import ConversationWriter, DocumentWriter, WrittenText, sequences_at_once
from core.engine.models.precision import writing_dtype
from core.engine.models.reference_networks import ReferenceConfig, ReferenceNetwork
from core.engine.models.tensors import DTYPES
from core.engine.resume.kinds import TEXT
from core.engine.resume.store import ResumeStore, Runtime, file_sha256, fingerprint
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.sources_spec import (
    ImportedModelOutput,
    ImportGgufSpec,
    NewNetworkOutput,
    NewNetworkSpec,
    WriteSpec,
    WrittenOutput,
)
from secateur_wire.errors import UnusableModel


def write_text(spec: WriteSpec, context: StageContext) -> WrittenOutput:
    """Generate text with the model and write it as JSON lines, from the last saved batch on."""
    progress, device = context.progress, context.device
    folder = open_place(spec.model)
    description, tokenizer = folder.description, folder.tokenizer()
    length = min(spec.sequence_length, description.context_length - 1)
    needed = spec.samples * spec.sequence_length
    dtype = writing_dtype(DTYPES[description.dtype], device)
    at_once = sequences_at_once(description, length, device, dtype)
    facts = {"model": spec.revision, "tokens": needed, "length": length, "seed": spec.seed, "at_once": at_once}
    if spec.chat is not None:
        questions = spec.chat.questions
        facts["chat"] = [spec.chat.template, None if questions is None else file_sha256(questions)]
    same = fingerprint("write", facts, Runtime.of(device, dtype))
    kind = replace(TEXT, name=f"{TEXT.name}-{same[:16]}")  # a job may have several such texts
    store = ResumeStore(spec.work, same, spec.previous)
    before, batches = None, 0
    if (saved := store.resume(kind, progress.log)) is not None:
        batches = saved.position
        before = WrittenText(**saved.state, random_state=saved.read("random")["state"].to(torch.uint8))
        progress.log(f"continuing after {before.tokens} of {needed} tokens")
    progress.begin_part(0.0 if before is None else before.tokens / needed, 1.0)

    def on_batch(text: WrittenText) -> None:
        nonlocal batches
        batches += 1
        state = {name: value for name, value in vars(text).items() if name != "random_state"}
        random_state = text.random_state.long()  # records hold no bytes
        store.save(kind, batches, {"random": {"state": random_state}}, state)
        progress.log(f"the model has written {min(text.tokens, needed)} of {needed} tokens")

    model = load_model(folder, device, dtype=dtype)
    writer: DocumentWriter | ConversationWriter
    left_out = LeftOutRows()
    if spec.chat is None:
        writer = DocumentWriter(model, tokenizer, length=length, seed=spec.seed)
    else:
        questions = spec.chat.questions
        writer = ConversationWriter(
            model,
            tokenizer,
            spec.chat.frame,
            length=length,
            seed=spec.seed,
            questions=None if questions is None else [*read_rendered(questions)],
        )
        left_out = writer.left_out
    texts = [
        *writer.write(
            tokens=needed,
            at_once=at_once,
            before=before,
            on_batch=on_batch,
            on_progress=lambda tokens: progress.advance(tokens / needed, tokens, needed),
        )
    ]
    with spec.target.open("w", encoding="utf-8") as target:
        target.writelines(texts if spec.chat is not None else (json.dumps({"text": text}) + "\n" for text in texts))
    return WrittenOutput(documents=len(texts), characters=sum(map(len, texts)), tokens=needed, left_out=left_out.rows)


_IMPORT_BYTES: Final = 2 * 2**30
_IMPORT_BYTES_A_VALUE: Final = 16
"""Memory of an import: four times the file's values in float32, and what the libraries need besides."""


def import_gguf(spec: ImportGgufSpec, context: StageContext) -> ImportedModelOutput:
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
    for each module of the network. The functions are replaced for the whole process, whose one task this is: the loader
    takes no reader from its caller.
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


def create_network(spec: NewNetworkSpec, context: StageContext) -> NewNetworkOutput:
    """Create a reference network with random weights; no partial folder is left behind."""
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
    except RuntimeError as error:  # torch refuses layers of width 0
        raise UnusableModel(
            f"{spec.network} cannot be built for images of {spec.image_size} x {spec.image_size}: {error}",
            param="image_size",
        ) from error
    partial = spec.target.with_name(f"{spec.target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    partial.rename(spec.target)
    return NewNetworkOutput(parameters=model.num_parameters())
