"""A model that lost tokens beside the dense one, in float32: losses on the same bytes, and logits on kept tokens."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.checkpoints.companions import template_constants
from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import EvaluationSet, paired_set
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import load_model
from core.engine.vocabulary.choice import choose_tokens
from core.engine.vocabulary.counts import count_tokens
from core.engine.vocabulary.files import named_ids, write_tokenizer
from core.engine.vocabulary.rows import write_reduced
from core.engine.vocabulary.tokenizer_kinds import read_tokenizer
from core.progress import Progress
from secateur_wire.job_body import VocabularyChoice

_SHORTEST, _LONGEST = 16, 256
"""Tokens of a paragraph."""


def reduced(spec: dict[str, Any]) -> dict[str, Any]:
    """Remove tokens from the spec's `model` as a job does, and compare both on all `texts`.

    So many `tokens` of its `reduced` stay, by the text `counted`; all that this text uses where there is no number.
    Logits are compared on so many `paragraphs` of the texts in `logits_on`. Seconds and memory are of the removal.
    """
    dense = open_model(Path(spec["model"]))
    figures = _reduce(dense, spec)
    figures |= {
        "seconds": time.time() - psutil.Process().create_time(),
        "processor_seconds": time.process_time(),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    new = open_model(Path(spec["place"]), own_artifact=True)
    texts = {name: Path(file) for name, file in spec["texts"].items()}
    has_logits = spec["reduced"] in spec["tokens"]
    return figures | {
        "texts": {name: _losses_on(text, dense, new, spec) for name, text in texts.items()},
        "logits": {name: _logits_on(texts[name], dense, new, spec) for name in spec["logits_on"] if has_logits},
    }


def _reduce(folder: ModelFolder, spec: dict[str, Any]) -> dict[str, Any]:
    output, text, size = Path(spec["place"]), Path(spec["texts"][spec["counted"]]), folder.description.vocabulary_size
    counts = count_tokens(read_documents(text, detect_format(text)), folder.path)
    chosen = choose_tokens(
        read_tokenizer(folder.path),
        counts,
        tokens=spec["tokens"].get(spec["reduced"]),
        keep=template_constants(folder.path),
        required=named_ids(folder.path, size),
        round_to=VocabularyChoice().round_to,
    )
    write_tokenizer(folder.path, output, chosen.ids, size=size)
    left = write_reduced(folder, chosen.ids, output, Progress())
    return {
        "kept": len(chosen.ids),
        "used": chosen.used,
        "tokens": counts.tokens,
        "parameters": [folder.description.parameters, left.description.parameters],
    }


@torch.inference_mode()
def _losses_on(text: Path, dense: ModelFolder, new: ModelFolder, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the losses of both models on so many `windows` of at most `length` tokens of a text.

    `dense` and `pruned` are sums over each window in nats. They stand for `predicted` tokens of the dense model.
    `lengths` are the tokens of the whole text in both tokenizations.
    """
    documents, tokenizers = read_documents(text, detect_format(text)), (dense.tokenizer(), new.tokenizer())
    pair = paired_set(documents, *tokenizers, samples=spec["windows"], length=spec["length"], name=text.stem)
    return {
        "dense": _losses(dense, pair.dense),
        "pruned": _losses(new, pair.new),
        "predicted": pair.dense.predicted,
        "lengths": [pair.dense_tokens, pair.tokens],
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


@torch.inference_mode()
def _logits_on(text: Path, dense: ModelFolder, new: ModelFolder, spec: dict[str, Any]) -> dict[str, Any]:
    """Compare the logits of both models on so many `paragraphs` of a text.

    `read` paragraphs were looked at until so many were found that the dense tokenizer writes with kept tokens alone.
    Of these `alike` have the same tokens in the reduced model, and `to_the_bit` the same logits; `difference` is the
    largest of any two logits, and `top` the number of equal likeliest tokens, of `tokens` in all.
    """
    before, after = dense.tokenizer(), new.tokenizer()
    old_ids = torch.tensor(before.convert_tokens_to_ids(after.convert_ids_to_tokens(list(range(len(after))))))
    models = [load_model(each, torch.device("cpu"), dtype=torch.float32) for each in (dense, new)]
    kept = set(old_ids.tolist())
    read = found = alike = to_the_bit = top = tokens = 0
    difference = 0.0
    for paragraph, ids in _paragraphs(text, before):
        if found == spec["paragraphs"]:
            break
        read += 1
        if not kept.issuperset(ids):
            continue
        found += 1
        new_T = torch.tensor(_ids(paragraph, after))
        if old_ids[new_T].tolist() != ids:
            continue
        alike += 1
        wanted_TV, given_TV = _logits(models[0], torch.tensor(ids))[:, old_ids], _logits(models[1], new_T)
        to_the_bit += int(torch.equal(wanted_TV, given_TV))
        difference = max(difference, float((wanted_TV - given_TV).abs().max()))
        top += int((wanted_TV.argmax(-1) == given_TV.argmax(-1)).sum())
        tokens += len(ids)
    return {
        "read": read,
        "found": found,
        "alike": alike,
        "to_the_bit": to_the_bit,
        "difference": difference,
        "top": top,
        "tokens": tokens,
    }


def _paragraphs(text: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, list[int]]]:
    for document in read_documents(text, detect_format(text)):
        for paragraph in document.splitlines():
            ids = _ids(paragraph, tokenizer)
            if _SHORTEST <= len(ids) <= _LONGEST:
                yield paragraph, ids


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _logits(model: Any, ids_T: Tensor) -> Tensor:
    logits_TV: Tensor = model(input_ids=ids_T[None], use_cache=False).logits[0]
    return logits_TV
