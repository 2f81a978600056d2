"""Text that the model of a job writes, batch by batch; a killed attempt goes on after its last finished batch."""

import json
from dataclasses import replace

import torch

from core.engine.datasets.chat.conversations import LeftOutRows, read_rendered
from core.engine.models.loading import load_model
from core.engine.models.own_text import ConversationWriter, DocumentWriter, WrittenText, sequences_at_once
from core.engine.models.precision import writing_dtype
from core.engine.models.tensors import DTYPES
from core.engine.resume.kinds import TEXT
from core.engine.resume.store import Rejected, ResumeStore, Runtime, Saved, file_sha256, fingerprint
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.run import StageContext
from core.pipeline.stages.write.spec import WriteSpec, WrittenOutput


def run(spec: WriteSpec, context: StageContext) -> WrittenOutput:
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
    saved = store.load(kind)
    if isinstance(saved, Rejected):
        progress.log(saved.reason)
    before = None
    if isinstance(saved, Saved):
        before = WrittenText(**saved.state, random_state=saved.read("random")["state"].to(torch.uint8))
        progress.log(f"continuing after {before.tokens} of {needed} tokens")
    progress.begin_part(0.0 if before is None else before.tokens / needed, 1.0)
    batches = 0 if not isinstance(saved, Saved) else saved.position

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
