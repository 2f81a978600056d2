"""Greedy continuations of the same prompts by the dense and the pruned model, for comparison."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.counting import counted
from core.engine.datasets.token_bytes import token_ids
from core.engine.datasets.token_windows import starts_with_bos
from core.engine.models.folder import ModelFolder
from core.engine.models.generation import TokenWriter, end_tokens, first_token, sequences_that_fit
from core.engine.models.loading import load_model
from secateur_wire.errors import NotFiniteWeights, OutOfMemory


def compare_continuations(
    models: Mapping[str, ModelFolder],
    prompts: Sequence[str],
    *,
    tokens: int,
    device: torch.device,
    loaded: Mapping[str, PreTrainedModel] | None = None,
    on_progress: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Generate continuations of each prompt with each model; return `generations` and `notes`.

    `generations` has for each prompt `prompt`, and under each model's name the text of at most `tokens` new tokens. The
    text is None where the model does not fit in memory or computes no probabilities. Each model reads and writes in its
    own tokens. Those in `loaded` are used; the others are loaded one at a time. `on_progress` is called with 0 to 1.
    """
    notes: list[str] = []
    rows: list[dict[str, str | None]] = [{"prompt": prompt} for prompt in prompts]
    written = 0

    def on_text() -> None:
        nonlocal written
        written += 1
        on_progress(written / (len(prompts) * len(models)))

    for name, folder in models.items():
        texts: Sequence[str | None] = [None] * len(prompts)
        tokenizer = folder.tokenizer()
        given, of_model = _read(prompts, folder, tokenizer, tokens)
        notes += [each for each in of_model if each not in notes]
        try:
            if loaded is not None and name in loaded:
                texts = _continued(loaded[name], tokenizer, given, tokens, on_text)
            else:
                sequences_that_fit(folder.description, max(map(len, given)) + tokens, device)
                texts = _continued(load_model(folder, device), tokenizer, given, tokens, on_text)
        except (OutOfMemory, NotFiniteWeights) as error:
            notes.append(f"The {name} model wrote nothing after the prompts: {error.message}.")
        for row, text in zip(rows, texts, strict=True):
            row[name] = text
    return {"generations": rows, "notes": notes}


def _read(
    prompts: Sequence[str], folder: ModelFolder, tokenizer: PreTrainedTokenizerBase, tokens: int
) -> tuple[list[list[int]], list[str]]:
    """Tokenize each prompt, with a BOS token where the tokenizer adds one; return tokens and notes.

    A prompt that leaves less than `tokens` of the context free is cut to its last tokens, with a note.
    """
    given: list[list[int]] = []
    notes: list[str] = []
    for number, prompt in enumerate(prompts, 1):
        ids = token_ids(prompt, tokenizer)
        begins = starts_with_bos(tokenizer) or not ids
        begin = [first_token(folder.config, tokenizer)] if begins else []
        room = folder.description.context_length - tokens - len(begin)
        assert room > 0, "refused at submit"
        if len(ids) > room:
            notes.append(
                f"Prompt {number} has {len(ids)} tokens: beside {tokens} new ones the context has room for its last "
                f"{room}, which were read."
            )
        given.append(begin + ids[-room:])
    return given, notes


def _continued(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    given: Sequence[list[int]],
    tokens: int,
    on_text: Callable[[], None],
) -> list[str]:
    """Return the continuation of each prompt, generated one at a time because padding in a batch rounds differently."""
    texts, writer = [], TokenWriter(model, len(tokenizer))
    ends = end_tokens(model.config, tokenizer)
    for ids in counted(given, "writing after prompts"):
        (new,) = writer.write([ids], most=[tokens], ends=ends)
        texts.append(_new_text(tokenizer, ids, new))
        on_text()
    return texts


def _new_text(tokenizer: PreTrainedTokenizerBase, given: list[int], new: list[int]) -> str:
    """Return the text that `new` adds to the given tokens, including spaces at its start.

    NUL is replaced, because databases do not store it.
    """
    before, full = (
        str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for ids in (given, given + new)
    )
    return full[len(before) :].replace("\0", "\N{REPLACEMENT CHARACTER}")
