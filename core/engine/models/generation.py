"""Generation of tokens with a key-value cache: greedy."""

import itertools

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core.engine.architectures.description import ModelDescription
from core.engine.models.accelerator import backend_of
from secateur_wire.errors import NotFiniteWeights, OutOfMemory, UnusableModel


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


def generate_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    given_BT: Tensor,
    *,
    most: int,
) -> list[list[int]]:
    """Generate the at most `most` most likely tokens after each of `given_BT`, without the end token.

    Sets the model's generation settings. Raises NotFiniteWeights where the model computes no probabilities.
    """
    ends = sorted(end_tokens(model.config, tokenizer))
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else first_token(model.config, tokenizer),
    )
    model.generation_config = GenerationConfig()  # the model's own settings would change its distribution
    given_BT = given_BT.to(model.device)
    checked = _CheckedLogits(len(tokenizer))
    answer_BT = model.generate(  # type: ignore[operator]  # a mixed-in method, lost on the checker
        given_BT,
        attention_mask=torch.ones_like(given_BT),
        generation_config=settings,
        logits_processor=LogitsProcessorList([checked]),
    )
    written_BT = answer_BT[:, given_BT.shape[1] :]
    return [list(itertools.takewhile(lambda token: token not in ends, row)) for row in written_BT.tolist()]


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


class _CheckedLogits(LogitsProcessor):
    """Processor that masks outputs beyond the vocabulary; it raises NotFiniteWeights for logits that are not finite."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not torch.isfinite(scores[:, : self._vocabulary]).all():
            raise NotFiniteWeights("the model's outputs are not finite numbers: it cannot write text", param="model")
        scores[:, self._vocabulary :] = -torch.inf
        return scores
