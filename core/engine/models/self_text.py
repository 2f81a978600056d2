"""Text sampled from the model itself, for calibration without a dataset."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.counting import counting
from core.engine.architectures.description import ModelDescription
from core.engine.datasets.token_windows import count_tokens, starts_with_bos
from core.engine.models.accelerator import backend_of
from core.engine.models.generation import first_token, generate_tokens, sequences_that_fit
from secateur_wire.errors import OutOfMemory, UnusableModel

_MOST_AT_ONCE = 128
_MOST_TIMES_NEEDED = 8
"""Most sampled tokens per needed token, since a model may end most texts early."""


@dataclass(frozen=True)
class WrittenText:
    """Documents of the finished batches, and the state from which the next batch follows.

    `tokens` are those of the documents, `sampled` those that were drawn for them. `random_states` are the states of the
    random numbers, by name (`DeviceBackend.random_states`).
    """

    documents: Sequence[str]
    tokens: int
    sampled: int
    random_states: Mapping[str, Tensor]


def sequences_at_once(description: ModelDescription, length: int, device: torch.device) -> int:
    """Return the number of sequences of `length` tokens to sample together; raises OutOfMemory without room for one."""
    try:
        return min(_MOST_AT_ONCE, sequences_that_fit(description, length, device))
    except OutOfMemory as error:
        raise OutOfMemory(f"'self': {error.message}. Name a dataset instead") from error


def generate_documents(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int,
    length: int,
    seed: int,
    at_once: int,
    before: WrittenText | None = None,
    on_batch: Callable[[WrittenText], None] = lambda text: None,
    on_progress: Callable[[int], None] = lambda tokens: None,
) -> Iterator[str]:
    """Yield documents of up to `length` tokens that the model generates.

    The first token is drawn from the full vocabulary, for a wide variety of documents (LLM-QAT, Liu et al. 2023,
    arXiv:2305.17888). The rest is sampled at temperature 1 until the end token. `at_once` documents are generated in a
    batch with a key-value cache, until together they have `tokens` tokens, counted after tokenizing the texts again.
    `on_batch` is called after each batch with the text so far, and `on_progress` with the tokens so far for each token.
    Given such a text as `before`, its documents are yielded first, and the rest follows as if never interrupted. Sets
    torch's seed and the model's generation settings.

    Raises UnusableModel where the model generates too little, NotFiniteWeights where it computes no probabilities.
    """
    begin = [first_token(model.config, tokenizer)] if starts_with_bos(tokenizer) else []
    first_tokens = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    torch.manual_seed(seed)
    backend = backend_of(model.device)
    documents: list[str] = []
    written = sampled = 0
    if before is not None:
        backend.restore_random_states(before.random_states)
        documents, written, sampled = [*before.documents], before.tokens, before.sampled
        yield from before.documents
    with counting("the model writes text of its own, tokens", tokens) as count:
        while written < tokens:
            if sampled > _MOST_TIMES_NEEDED * tokens + at_once * length:
                raise UnusableModel(
                    f"the model writes too little text to calibrate on: {written} tokens of {tokens} after sampling "
                    f"{sampled}; name a dataset instead of 'self'",
                    param="model",
                )
            missing = math.ceil((tokens - written) / length)
            drawn = [
                first_tokens[number] for number in torch.randint(len(first_tokens), (min(at_once, missing),)).tolist()
            ]
            given_BT = torch.tensor([[*begin, first] for first in drawn])

            def on_token(each: int, before: int = written, texts: int = len(drawn)) -> None:
                about = min(before + each * texts, tokens)  # some texts end sooner
                count(about)
                on_progress(about)

            written_after = generate_tokens(
                model, tokenizer, given_BT, most=length - 1, is_sampled=True, on_token=on_token
            )
            for first, ids in zip(drawn, written_after, strict=True):
                sampled += len(ids) + 1
                document = str(tokenizer.decode([first, *ids], skip_special_tokens=True))
                if ids and document.strip():
                    written += count_tokens(document, tokenizer)
                    documents.append(document)
                    yield document
            on_batch(WrittenText([*documents], written, sampled, backend.random_states()))
