"""Logits of a dense model and of one that lost tokens, on text that needs kept tokens alone, in float32."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.formats import detect_format
from core.engine.datasets.text_files import read_documents
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model

_SHORTEST, _LONGEST = 16, 256
"""Tokens of a paragraph."""


@torch.inference_mode()
def compare(spec: dict[str, Any]) -> dict[str, Any]:
    """Compare the spec's `model` and `reduced` on `paragraphs` of its `text`.

    `read` paragraphs were looked at until so many were found that the dense tokenizer writes with kept tokens alone.
    Of these `alike` have the same tokens in the reduced model, and `to_the_bit` the same logits; `difference` is the
    largest of any two logits, and `top` the number of equal likeliest tokens, of `tokens` in all.
    """
    dense, reduced = open_model(Path(spec["model"])), open_model(Path(spec["reduced"]), own_artifact=True)
    before, after = dense.tokenizer(), reduced.tokenizer()
    old_ids = torch.tensor(before.convert_tokens_to_ids(after.convert_ids_to_tokens(list(range(len(after))))))
    models = [load_model(each, torch.device("cpu"), dtype=torch.float32) for each in (dense, reduced)]
    kept = set(old_ids.tolist())
    read = found = alike = to_the_bit = top = tokens = 0
    difference = 0.0
    for paragraph, ids in _paragraphs(Path(spec["text"]), before):
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
