"""Batch of sequences that a model continues together, token by token; a new sequence may take the place of one."""

import inspect
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.models.accelerator import ran_out_of_memory
from core.engine.models.precision import LOGIT_TOLERANCE
from core.engine.models.sampling import draw_tokens

_TOKENS_AT_ONCE = 4096
"""Most tokens of one forward that reads sequences that are already begun; it bounds the activations."""


class ContinuousBatch:
    """Rows of a key-value cache, each with one sequence; every step reads one more token of each row.

    With `replaces`, a row may begin a new sequence at any step: the attention mask hides what the row held before, and
    positions count from the row's own beginning. Otherwise all rows begin together and have the same length.
    """

    def __init__(self, model: PreTrainedModel, *, replaces: bool) -> None:
        self._model = model
        self.replaces = replaces
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._cache_name = cache_name(model)
        self._cache: Any = None
        self._mask_BT = torch.zeros(0, 0, dtype=torch.long)

    @torch.inference_mode()
    def begin(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Read all tokens of new sequences, in place of what the batch held; return the logits after each [rows, V]."""
        length = max(map(len, sequences))
        tokens_BT = torch.tensor([[*[0] * (length - len(each)), *each] for each in sequences])
        lengths_B = torch.tensor([len(each) for each in sequences])
        hidden_BT = torch.arange(length) < (length - lengths_B)[:, None]
        self._cache, self._mask_BT = None, torch.zeros(len(sequences), 0, dtype=torch.long)
        width = max(1, _TOKENS_AT_ONCE // len(sequences)) if self.replaces else length
        for start in range(0, length, width):
            part = slice(start, start + width)
            logits_BV = self._read(tokens_BT[:, part], (~hidden_BT[:, part]).long())
        return logits_BV

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], new: Collection[int] = ()) -> Tensor:
        """Read one token of each row; return the logits after it [rows, V]. The rows `new` begin with this token."""
        assert self.replaces or not new
        self._mask_BT[list(new)] = 0
        return self._read(torch.tensor(tokens)[:, None], torch.ones(len(tokens), 1, dtype=torch.long))

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, which are in this order from now on."""
        kept = torch.tensor(rows)
        self._mask_BT = self._mask_BT[kept]
        self._cache.reorder_cache(kept.to(self._model.device))

    def _read(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        self._mask_BT = torch.cat([self._mask_BT, mask_BT], dim=1)
        device, more = self._model.device, {}
        if self.replaces:
            more["attention_mask"] = self._mask_BT.to(device)
            if self._takes_positions:
                positions_BT = (self._mask_BT.cumsum(1) - 1).clamp(min=0)
                more["position_ids"] = positions_BT[:, -tokens_BT.shape[1] :].to(device)
        if self._cache is not None:
            more[self._cache_name] = self._cache
        answer = self._model(input_ids=tokens_BT.to(device), use_cache=True, logits_to_keep=1, **more)
        self._cache = answer[self._cache_name]
        logits_BV: Tensor = answer.logits[:, -1]
        return logits_BV


Choice = Callable[[Tensor, Sequence[int], int], Tensor]
"""Choice of the next token of each row of a batch, from the logits [rows, V], the sequences' numbers and the step."""


def sample_continuations(
    batch: ContinuousBatch,
    given: Sequence[Sequence[int]],
    *,
    most: Sequence[int],
    ends: Collection[int],
    vocabulary: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """Return the tokens that follow each of the given sequences, without the end token.

    They are drawn at temperature 1. The other arguments, and what is raised, are those of `continue_sequences`.
    """

    def draw(logits_BV: Tensor, numbers: Sequence[int], step: int) -> Tensor:
        return draw_tokens(logits_BV, torch.rand(len(numbers), generator=generator, dtype=torch.float64))

    return continue_sequences(batch, given, most=most, ends=ends, vocabulary=vocabulary, choose=draw)


def continue_sequences(
    batch: ContinuousBatch,
    given: Sequence[Sequence[int]],
    *,
    most: Sequence[int],
    ends: Collection[int],
    vocabulary: int,
    choose: Choice,
) -> list[list[int]]:
    """Return the tokens that follow each of the given sequences, without the end token.

    `choose` chooses them from the first `vocabulary` tokens, at most `most[i]` after sequence i. In a batch whose rows
    must begin together, sequences of the same length are continued together. Raises NotFiniteWeights where the model
    computes no probabilities.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for number, ids in enumerate(given):
        groups[0 if batch.replaces else len(ids)].append(number)
    written: list[list[int]] = [[] for _ in given]
    for rows in groups.values():
        live = set(rows)
        logits_BV = batch.begin([given[number] for number in rows])
        for step in itertools.count():
            chosen = choose(logits_BV[:, :vocabulary], rows, step).tolist()
            for number, token in zip(rows, chosen, strict=True):
                if number not in live:
                    continue
                if token not in ends:
                    written[number].append(token)
                if token in ends or len(written[number]) >= most[number]:
                    live.remove(number)
            if not live:
                break
            if 2 * len(live) <= len(rows):
                kept = [place for place, number in enumerate(rows) if number in live]
                batch.keep(kept)
                rows, chosen = [rows[place] for place in kept], [chosen[place] for place in kept]
            logits_BV = batch.read(chosen)
    return written


def begins_at_any_step(model: PreTrainedModel) -> bool:
    """Return True if the model gives a sequence that takes another's place the logits of one that is alone.

    It is tried, on two rows of a few tokens: models differ in what they do with masks and positions, and recurrent
    states keep what the row held before.
    """
    if model._is_stateful:
        return False
    embeddings: Any = model.get_input_embeddings()
    words = min(100, int(embeddings.weight.shape[0]))
    before, other = [[(7 * place + first) % words for place in range(9)] for first in (1, 5)]
    sequence = [(11 * place + 3) % words for place in range(3)]
    try:
        alone_1V = ContinuousBatch(model, replaces=False).begin([sequence])
        batch = ContinuousBatch(model, replaces=True)
        batch.begin([before, other[:4]])
        for place, token in enumerate(sequence):
            logits_BV = batch.read([token, other[4 + place]], [0] if place == 0 else [])
    except Exception as error:  # the code of any type of model may fail in any way, and there is another way to write
        if ran_out_of_memory(error):
            raise
        return False
    difference = (logits_BV[0] - alone_1V[0]).abs().max()
    return bool(difference <= LOGIT_TOLERANCE[model.dtype] * alone_1V.abs().max())


def cache_name(model: PreTrainedModel) -> str:
    """Return the argument name of a model's cache, which differs between releases of transformers."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
