"""A model that lost tokens, and its loss on a text beside the dense model's, in float32, on the same bytes of text."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.datasets.formats import detect_format
from core.engine.datasets.paired_windows import paired_set
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import EvaluationSet
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import load_model
from core.engine.removals.vocabulary.rows import write_reduced
from core.engine.removals.vocabulary.tokenizers.choice import choose_tokens
from core.engine.removals.vocabulary.tokenizers.counts import count_tokens
from core.engine.removals.vocabulary.tokenizers.files import named_ids, template_strings, write_tokenizer
from core.engine.removals.vocabulary.tokenizers.tokenizer_file import read_tokenizer
from core.progress import Progress
from secateur_wire.job_body import VocabularyChoice


def reduce(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the spec's `model` into `output` with the `tokens` that a job would keep by its `text`; null: all used."""
    folder, output = open_model(Path(spec["model"])), Path(spec["output"])
    text, size = Path(spec["text"]), folder.description.vocabulary_size
    counts = count_tokens(read_documents(text, detect_format(text)), folder.path)
    chosen = choose_tokens(
        read_tokenizer(folder.path),
        counts,
        tokens=spec["tokens"],
        keep=template_strings(folder.path),
        required=named_ids(folder.path, size),
        round_to=VocabularyChoice().round_to,
    )
    shutil.rmtree(output, ignore_errors=True)
    write_tokenizer(folder.path, output, chosen.ids, size=size)
    reduced = write_reduced(folder, chosen.ids, output, Progress())
    return {
        "kept": len(chosen.ids),
        "used": chosen.used,
        "tokens": counts.tokens,
        "parameters": [folder.description.parameters, reduced.description.parameters],
        "vocabulary_size": json.loads((output / CONFIG_FILE).read_text())["vocab_size"],
    }


@torch.inference_mode()
def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the losses of the spec's `model` and `reduced` on `windows` of at most `length` tokens of its `text`.

    `losses` are sums over each window in nats, of both. They stand for `bytes` of text and `predicted` tokens of the
    dense model. `lengths` are the tokens of the whole text in both tokenizations.
    """
    dense, reduced = open_model(Path(spec["model"])), open_model(Path(spec["reduced"]), own_artifact=True)
    text = Path(spec["text"])
    pair = paired_set(
        read_documents(text, detect_format(text)),
        dense.tokenizer(),
        reduced.tokenizer(),
        samples=spec["windows"],
        length=spec["length"],
        name=text.stem,
    )
    losses = [_losses(folder, windows) for folder, windows in ((dense, pair.dense), (reduced, pair.new))]
    return {
        "losses": losses,
        "bytes": pair.dense.text_bytes,
        "predicted": pair.dense.predicted,
        "lengths": [pair.dense_tokens, pair.tokens],
        "bits_per_byte": [sum(each) / math.log(2) / pair.dense.text_bytes for each in losses]
        if pair.dense.text_bytes
        else None,
    }


def _losses(folder: ModelFolder, evaluation: EvaluationSet) -> list[float]:
    model = load_model(folder, torch.device("cpu"), dtype=torch.float32)
    losses = []
    for number, window_T in enumerate(evaluation.windows):
        first, end = (1, len(window_T)) if evaluation.spans is None else evaluation.spans.spans[number]
        losses.append(_loss(model, window_T[:end], first))
    return losses


def _loss(model: Any, tokens_T: Tensor, first: int) -> float:
    """Return the sum of the losses of the tokens from `first` on, in nats."""
    logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0, first - 1 : -1].float()
    return float(torch.nn.functional.cross_entropy(logits_TV, tokens_T[first:], reduction="sum").double())
