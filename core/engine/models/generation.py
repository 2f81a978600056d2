"""Tokens that a model writes after given ones, with a key-value cache: the likeliest, or drawn at temperature 1."""

import inspect
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from core.engine.architectures.description import ModelDescription
from core.engine.datasets.chat.conversations import Frame
from core.engine.datasets.token_bytes import token_ids
from core.engine.models.accelerator import backend_of, ran_out_of_memory
from core.engine.models.precision import LOGIT_TOLERANCE
from secateur_wire.errors import NotFiniteWeights, OutOfMemory, UnusableModel

_TOKENS_AT_ONCE = 4096
"""Most tokens of one forward that reads the given ones; it bounds the activations."""


def sequences_that_fit(
    description: ModelDescription, length: int, device: torch.device, dtype: torch.dtype | None = None
) -> int:
    """Return the number of sequences of `length` tokens that fit in memory with the weights, which are not loaded yet.

    The weights are in `dtype` (None: as stored). Raises OutOfMemory where not even one sequence fits.
    """
    stored = description.bytes if dtype is None else description.parameters * dtype.itemsize
    weights = int(1.2 * stored)
    keys_and_values = 2 * 4 * description.layers * description.hidden_size * length
    free = backend_of(device).free_bytes()
    if weights + keys_and_values > free:
        raise OutOfMemory(
            f"to write text, the whole model must be in memory: about {weights + keys_and_values} bytes, but {free} "
            f"are free on {device.type}"
        )
    return (free - weights) // keys_and_values


def first_token(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that begins a text.

    Models without one (GPT-2, Qwen) were trained on texts in sequence; it is then the end token of the text before.
    Raises UnusableModel where there is neither.
    """
    begins = [getattr(each, "bos_token_id", None) for each in _parts(config)]
    for token in (tokenizer.bos_token_id, *begins, *sorted(end_tokens(config, tokenizer))):
        if token is not None:
            return int(token)
    raise UnusableModel("neither the tokenizer nor the config names a token that begins a text", param="model")


def end_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    ends: set[int] = set()
    for token in (tokenizer.eos_token_id, *(getattr(each, "eos_token_id", None) for each in _parts(config))):
        ends.update(token if isinstance(token, list) else [] if token is None else [token])
    return ends


def _parts(config: PretrainedConfig) -> tuple[PretrainedConfig, PretrainedConfig]:
    """Return a config and its language model's part; either may name tokens."""
    return config, config.get_text_config(decoder=True)


class TurnEnds:
    """Ends of a turn: tokens, and the template's words after a turn where no token of their own stands for them.

    Without a `frame` there are only the end tokens of the model. `tokens` are all tokens that end a turn.
    """

    def __init__(
        self, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, frame: Frame | None = None
    ) -> None:
        self._tokenizer = tokenizer
        text_ends = end_tokens(config, tokenizer)
        ends = {*text_ends, *tokenizer.get_added_vocab().values()}
        words = () if frame is None else (frame.between, frame.closing)
        firsts = {each: token_ids(each, tokenizer)[:1] for each in words}
        self.tokens = text_ends | {token for first in firsts.values() for token in first if token in ends}
        self._spelled = {each for each, first in firsts.items() if not {*first} & ends}

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return str(self._tokenizer.decode([*ids], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def turn(self, ids: Sequence[int], after: str) -> str:
        """Return the text of a turn, up to the first line of the words `after` it if the model spells them out."""
        text = self.text(ids)
        first = "" if after not in self._spelled else after.strip().partition("\n")[0].strip()
        return text.partition(first)[0] if first else text


class TokenWriter:
    """Writer of tokens after given sequences, many in a batch, as each alone would be continued."""

    def __init__(self, model: PreTrainedModel, vocabulary: int) -> None:
        """`vocabulary`: tokens from this id on are never chosen, as no tokenizer has them."""
        self._model, self._vocabulary = model, vocabulary
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._cache_name = cache_name(model)
        self._cache: Any = None
        self._mask_BT = torch.zeros(0, 0, dtype=torch.long)

    @torch.inference_mode()
    def write(
        self,
        given: Sequence[Sequence[int]],
        *,
        most: Sequence[int],
        ends: Collection[int],
        generator: torch.Generator | None = None,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> list[list[int]]:
        """Return the at most `most[i]` tokens that follow each sequence, without the one of `ends` that ended it.

        They are drawn at temperature 1 with a `generator` of the CPU; without one they are the likeliest.
        `on_step` is called before each step with its number. Where the model does not read past padding, only
        sequences of the same length are continued together. Raises NotFiniteWeights where the model computes no
        probabilities.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for number, ids in enumerate(given):
            groups[len(ids)].append(number)
        if len(groups) > 1 and self._reads_past_padding:
            groups = {0: [*range(len(given))]}
        written: list[list[int]] = [[] for _ in given]
        for rows in groups.values():
            live = set(rows)
            logits_BV = self.logits([given[number] for number in rows])
            for step in itertools.count():
                on_step(step)
                chosen = self._chosen(logits_BV, generator)
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
                    rows, chosen = [rows[place] for place in kept], [chosen[place] for place in kept]
                    self._mask_BT = self._mask_BT[kept]
                    self._cache.reorder_cache(torch.tensor(kept, device=self._model.device))
                logits_BV = self._read(torch.tensor(chosen)[:, None], torch.ones(len(rows), 1, dtype=torch.long))
        self._cache = None
        return written

    @torch.inference_mode()
    def logits(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits after each sequence, [rows, vocabulary of the model]."""
        length = max(map(len, sequences))
        tokens_BT = torch.tensor([[*[0] * (length - len(each)), *each] for each in sequences])
        lengths_B = torch.tensor([len(each) for each in sequences])
        counts_BT = (torch.arange(length) >= (length - lengths_B)[:, None]).long()
        self._cache, self._mask_BT = None, torch.zeros(len(sequences), 0, dtype=torch.long)
        width = length if self._model._is_stateful else max(1, _TOKENS_AT_ONCE // len(sequences))
        for start in range(0, length, width):
            part = slice(start, start + width)
            logits_BV = self._read(tokens_BT[:, part], counts_BT[:, part])
        return logits_BV

    def _read(self, tokens_BT: Tensor, counts_BT: Tensor) -> Tensor:
        """Return the logits after more tokens, of which some count and some are padding."""
        self._mask_BT = torch.cat([self._mask_BT, counts_BT], dim=1)
        device, more = self._model.device, {}
        if not self._mask_BT.all():
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

    def _chosen(self, logits_BV: Tensor, generator: torch.Generator | None) -> list[int]:
        """Return the next token of each row.

        A token is drawn as the first at which the sum of the probabilities exceeds an even draw. Sums are in float64,
        so that rare tokens at the end of a large vocabulary keep their probability.
        """
        logits_BV = logits_BV[:, : self._vocabulary].float()
        if not all(each.isfinite().all() for each in logits_BV.aminmax(dim=1)):
            raise NotFiniteWeights("the model's outputs are not finite numbers: it cannot write text", param="model")
        if generator is None:
            tokens_B = logits_BV.argmax(dim=1)
        else:
            sums_BV = logits_BV.softmax(dim=1).cumsum(dim=1, dtype=torch.float64)
            even_B1 = torch.rand(len(sums_BV), 1, generator=generator, dtype=torch.float64).to(sums_BV.device)
            tokens_B = torch.searchsorted(sums_BV, even_B1 * sums_BV[:, -1:], right=True)[:, 0]
            tokens_B = tokens_B.clamp(max=logits_BV.shape[1] - 1)  # rounding may put a draw at the total itself
        chosen: list[int] = tokens_B.tolist()
        return chosen

    @cached_property
    @torch.inference_mode()
    def _reads_past_padding(self) -> bool:
        """Return True if the model gives a sequence after padding the logits that it has alone.

        It is tried, on a few tokens: models differ in what they do with masks and positions, and recurrent states keep
        what came before.
        """
        if self._model._is_stateful:
            return False
        embeddings: Any = self._model.get_input_embeddings()
        words = min(100, int(embeddings.weight.shape[0]))
        long, short = ([(factor * place + 3) % words for place in range(count)] for factor, count in ((7, 9), (11, 4)))
        try:
            alone_V = self.logits([short])[0]
            self.logits([long, short[:-1]])
            padded_V = self._read(torch.tensor([[1], short[-1:]]), torch.ones(2, 1, dtype=torch.long))[1]
        except Exception as error:  # any type of model may fail in any way, and there is another way to write
            if ran_out_of_memory(error):
                raise
            return False
        return bool((padded_V - alone_V).abs().max() <= LOGIT_TOLERANCE[self._model.dtype] * alone_V.abs().max())


def cache_name(model: PreTrainedModel) -> str:
    """Return the argument name of a model's cache, which differs between releases of transformers."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
