"""Generation of text by the model that a job begins with."""

import json

from core.engine.models.loading import load_model
from core.engine.models.precision import forward_dtype
from core.engine.models.self_text import generate_documents, sequences_at_once
from core.engine.models.tensors import DTYPES
from core.pipeline.stages.generate_text.spec import GeneratedTextOutput, GenerateTextSpec
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.run import StageContext


def run(spec: GenerateTextSpec, context: StageContext) -> GeneratedTextOutput:
    """Generate text with the model and write it as JSON lines."""
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
