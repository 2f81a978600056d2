"""Text a model writes itself: to calibrate on where there is no data, drawn from what the model has learnt."""

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core.catalogue.model_folder import ModelDescription
from core.data.tokens import count_tokens
from core.errors import NotFiniteWeights, OutOfMemory, UnusableModel
from core.models.memory import free_bytes

_MOST_AT_ONCE = 32
_MOST_TIMES_NEEDED = 8
"""Tokens sampled for each one needed, before it is given up: a model may end most texts at once."""


def sequences_at_once(description: ModelDescription, length: int, device: torch.device) -> int:
    """How many sequences of `length` tokens are sampled together; raises OutOfMemory where the model has no room."""
    weights = int(1.2 * description.bytes)
    keys_and_values = 2 * 4 * description.layers * description.hidden_size * length
    free = free_bytes(device)
    if weights + keys_and_values > free:
        raise OutOfMemory(
            f"'self' needs the whole model in memory to write text: about {weights + keys_and_values} bytes, and "
            f"{free} are free on {device.type}. Name a dataset instead"
        )
    return min(_MOST_AT_ONCE, (free - weights) // keys_and_values)


def generate_documents(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int,
    length: int,
    seed: int,
    at_once: int,
    on_tokens: Callable[[int], None] = lambda done: None,
) -> Iterator[str]:
    """Documents of up to `length` tokens, each sampled at temperature 1 from the token that begins a text until the one
    that ends it, `at_once` of them in a batch with a key-value cache, until they hold `tokens` tokens as they are
    counted when they are read again. Sets torch's seed and the model's generation settings.

    Raises UnusableModel where the model does not write enough, NotFiniteWeights where it computes no probabilities.
    """
    first, ends = _begin(model, tokenizer), sorted(_ends(model, tokenizer))
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=length,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else first,
    )
    model.generation_config = GenerationConfig()  # the model's own preferences are not its distribution
    torch.manual_seed(seed)
    written = sampled = 0
    while written < tokens:
        if sampled > _MOST_TIMES_NEEDED * tokens + at_once * length:
            raise UnusableModel(
                f"the model writes too little text to calibrate on: {written} tokens of {tokens} after sampling "
                f"{sampled}; name a dataset instead of 'self'",
                param="model",
            )
        missing = math.ceil((tokens - written) / length)
        for ids in _sample(model, tokenizer, first, settings, min(at_once, missing)):
            sampled += len(ids) + 1
            document = str(tokenizer.decode(ids, skip_special_tokens=True))
            if document.strip():
                written += count_tokens(document, tokenizer)
                yield document
        on_tokens(min(written, tokens))


def _sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, first: int, settings: GenerationConfig, batch: int
) -> list[list[int]]:
    """`batch` sequences without their first token, and without the one that ended them."""
    begin_B1 = torch.full((batch, 1), first, device=model.device)
    answer_BT = model.generate(  # type: ignore[operator]  # a mixed-in method, lost on the checker
        begin_B1,
        attention_mask=torch.ones_like(begin_B1),
        generation_config=settings,
        logits_processor=LogitsProcessorList([_CheckedLogits(len(tokenizer))]),
    )
    ends = set(settings.eos_token_id or ())
    return [list(itertools.takewhile(lambda word: word not in ends, row)) for row in answer_BT[:, 1:].tolist()]


class _CheckedLogits(LogitsProcessor):
    """A model may have more outputs than there are words, and one that is broken has some that are not numbers."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not torch.isfinite(scores[:, : self._vocabulary]).all():
            raise NotFiniteWeights("the model's outputs are not finite numbers: it cannot write text", param="model")
        scores[:, self._vocabulary :] = -torch.inf
        return scores


def _begin(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that begins a text; models without one (GPT-2, Qwen) learnt texts one after another, so it is the one
    that ends the text before."""
    for token in (tokenizer.bos_token_id, model.config.bos_token_id, *sorted(_ends(model, tokenizer))):
        if token is not None:
            return int(token)
    raise UnusableModel("neither tokenizer nor config names a token to begin a text from", param="model")


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    ends: set[int] = set()
    for token in (tokenizer.eos_token_id, model.config.eos_token_id):
        ends.update(token if isinstance(token, list) else [] if token is None else [token])
    return ends
