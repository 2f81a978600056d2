"""Entry point of the child process that answers a worker's question, for estimates and plans: `questions KIND`."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pydantic import BaseModel

from core.engine.architectures.declared import CLASSIFIER_ARCHITECTURES
from core.engine.architectures.describe import describe_classifier
from core.engine.architectures.description import TraceAnswer, TraceQuestion
from core.engine.architectures.folder import by_name
from core.engine.checkpoints.companions import template_constants
from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.safetensors_header import TensorEntry, dtype_bytes
from core.engine.datasets.text_files import read_documents
from core.engine.vocabulary.choice import choose_tokens
from core.engine.vocabulary.counts import count_tokens, counted_documents
from core.engine.vocabulary.files import named_ids
from core.engine.vocabulary.tokenizer_kinds import read_tokenizer
from core.pipeline.messages import CountAnswer, CountedTokens, CountQuestion
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import VocabularyChoice


def trace(question: TraceQuestion) -> TraceAnswer:
    """Return the facts of a classifier's passes, or the reason why they are not known."""
    try:
        from core.engine.models.classifier import ClassifierFolder
        from core.engine.pruning.classifier_trace import trace_classifier

        config = question.config
        family = next(
            CLASSIFIER_ARCHITECTURES[each] for each in config["architectures"] if each in CLASSIFIER_ARCHITECTURES
        )
        stored = {
            name: TensorEntry(name, dtype, shape, Path(), 0, dtype_bytes(dtype, shape))
            for name, (dtype, shape) in question.tensors.items()
        }
        tensors = by_name(stored, family)
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / CONFIG_FILE).write_text(json.dumps(config))
            opened = ClassifierFolder(folder, describe_classifier(config, family, tensors), family, config, tensors)
            return TraceAnswer(passes=trace_classifier(opened, question.image_shape))
    except Exception as error:  # the code of any type of model may fail in any way
        return TraceAnswer(error=f"{type(error).__name__}: {str(error)[:300]}")


def count(question: CountQuestion) -> CountAnswer:
    """Return the tokens that a text uses, chosen as a job with `vocabulary: "auto"` does; or why none can go."""
    folder, text = question.folder, question.text
    try:
        tokenizer = read_tokenizer(folder)
        documents = counted_documents(read_documents(text.path, text.format, text.text_field))
        counts = count_tokens(documents, folder)
        chosen = choose_tokens(
            tokenizer,
            counts,
            tokens=None,
            keep=template_constants(folder),
            required=named_ids(folder, question.vocabulary_size),
            round_to=VocabularyChoice().round_to,
        )
    except InvalidRequest as refused:
        return CountAnswer(refusal=refused.message)
    return CountAnswer(
        counted=CountedTokens(used=chosen.used, tokens=counts.tokens, least=chosen.least, kept=len(chosen.ids))
    )


def main() -> None:
    """Answer the question on standard input; what libraries print, in C too, goes to standard error."""
    kind, answer = ANSWERS[sys.argv[1]]
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        answers.write(answer(kind.model_validate_json(sys.stdin.read())).model_dump_json())


ANSWERS: Final[dict[str, tuple[type[BaseModel], Callable[[Any], BaseModel]]]] = {
    "classifier": (TraceQuestion, trace),
    "tokens": (CountQuestion, count),
}
"""Questions and functions that answer them, by the kind's name (`core.service.questions`)."""


if __name__ == "__main__":
    main()
