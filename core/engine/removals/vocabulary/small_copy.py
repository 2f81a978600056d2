"""Proof on a small random copy: the model without some tokens gives the logits of the tokens that stay, unchanged.

Nothing is known here of any family. The model's own constructor tells which tensors have an entry for each token: those
whose shape follows the number of tokens. That these entries are in the order of the ids, and that the model does not
compute with the ids themselves, is tried.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture
from core.engine.checkpoints.key_patterns import pattern_of
from core.engine.evaluation.reload_check import difference_beyond
from core.engine.models.tracing.blocks import run_model
from core.engine.models.tracing.build import build_random
from core.engine.models.tracing.configuration import Settings, language_part, open_config
from core.engine.models.tracing.differential import one_line
from core.engine.removals.vocabulary.settings import reduced_config
from core.engine.removals.vocabulary.sizes import OFFER
from core.engine.removals.vocabulary.tokenizers.config_ids import config_ids

Axes: TypeAlias = Mapping[str, int]
"""Dimension of a tensor with an entry for each token, by its name in the model."""

_LENGTHS: Final = (7, 12)
_TOLERANCE: Final = 1e-4
_SHARE: Final = 0.4
_COUNTS: Final = "vocab"
"""Part of the names of settings that count tokens."""


class UncutVocabulary(Exception):
    """Reason why a model's tokens cannot go."""


def with_vocabulary(architecture: Architecture, small: Settings) -> Architecture:
    """Return the architecture with its tensors that have an entry for each token, or the reason why none can go.

    `small` are the settings of a small copy. The number of tokens is one setting; where the model needs others that
    count tokens to follow, as for a second table of embeddings, these are found.
    """
    reasons = []
    for settings in _candidates(architecture, small):
        tried = replace(architecture, vocabulary_settings=settings)
        try:
            axes = vocabulary_axes(tried, small)
        except UncutVocabulary as reason:
            reasons.append(str(reason))
        else:
            return replace(tried, vocabulary={pattern_of(name): dimension for name, dimension in axes.items()})
    return replace(architecture, refused={**architecture.refused, OFFER: reasons[0]})


def vocabulary_axes(architecture: Architecture, small: Settings, first: int = 0) -> Axes:
    """Return the tensors with an entry for each token of the model, proved on a small copy with these settings.

    The copy keeps its `first` tokens and, of the others, a random choice. Raises UncutVocabulary where it gives other
    logits.
    """
    try:
        dense = build_random(open_config(small))
        kept = _kept(small, _tokens(dense), first)
        cut = build_random(open_config(reduced_config(small, kept, architecture)))
        axes = _axes(dense, cut, kept)
        _gather(dense, cut, axes, kept)
        for length in _LENGTHS:
            _require_equal(dense, cut, kept, length)
    except UncutVocabulary:
        raise
    except Exception as error:  # the code of any model may fail in any way
        raise UncutVocabulary(
            f"a small copy of it with fewer tokens does not run: {type(error).__name__}: {one_line(error)}"
        ) from error
    return axes


def _candidates(architecture: Architecture, small: Settings) -> Sequence[tuple[str, ...]]:
    """Return the settings that may count tokens: their number alone, else with others."""
    part = language_part(open_config(small)).to_dict()
    own = {architecture.config_keys.get(VOCABULARY_KEY, VOCABULARY_KEY), VOCABULARY_KEY}
    others = [name for name, value in part.items() if _COUNTS in name and name not in own and type(value) is int]
    return [(VOCABULARY_KEY, *each) for count in range(min(len(others), 2) + 1) for each in combinations(others, count)]


def _tokens(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config(decoder=True).vocab_size)


def _kept(small: Settings, tokens: int, first: int) -> list[int]:
    """Return the ids that a small copy keeps: some of all, the first ones, and all that its config names."""
    named = config_ids(open_config(small).to_dict(), tokens)
    first = min(first, tokens // 2)
    others = [each for each in range(first, tokens) if each not in named]
    chosen = random.Random(tokens).sample(others, int(_SHARE * len(others)))
    # without the one before it, a named token has another id than before
    left_out = {each - 1 for each in named if each > first}
    return sorted({*range(first), *named, *(each for each in chosen if each not in left_out)})


def _axes(dense: PreTrainedModel, cut: PreTrainedModel, kept: Sequence[int]) -> dict[str, int]:
    """Return the dimension in which each tensor of two models differs."""
    before, after = dense.state_dict(), cut.state_dict()
    if before.keys() != after.keys():
        raise UncutVocabulary(f"with fewer tokens it has other tensors, as {min(before.keys() ^ after.keys())}")
    axes = {}
    for name, tensor in before.items():
        differing = [
            place
            for place, (one, other) in enumerate(zip(tensor.shape, after[name].shape, strict=True))
            if one != other
        ]
        if len(differing) > 1:
            raise UncutVocabulary(f"with fewer tokens {name} is smaller in {len(differing)} dimensions")
        for dimension in differing:
            expected = sum(each < tensor.shape[dimension] for each in kept)
            if after[name].shape[dimension] != expected:
                raise UncutVocabulary(
                    f"{name} has {tensor.shape[dimension]} entries for {_tokens(dense)} tokens, and "
                    f"{after[name].shape[dimension]} for {expected}: not one for each"
                )
            axes[name] = dimension
    if not axes:
        raise UncutVocabulary("none of its tensors has an entry for each token")
    return axes


@torch.no_grad()
def _gather(dense: PreTrainedModel, cut: PreTrainedModel, axes: Axes, kept: Sequence[int]) -> None:
    """Give a cut model the weights of the dense one."""
    source = dense.state_dict()
    for name, tensor in cut.state_dict().items():
        tensor.copy_(source[name] if name not in axes else _entries(source[name], axes[name], kept))


def _entries(tensor: Tensor, dimension: int, kept: Sequence[int]) -> Tensor:
    return tensor.index_select(dimension, torch.tensor([each for each in kept if each < tensor.shape[dimension]]))


def _require_equal(dense: PreTrainedModel, cut: PreTrainedModel, kept: Sequence[int], length: int) -> None:
    """Require the same logits of the tokens that stay, of random texts."""
    ids = torch.tensor(kept)
    tokens_BT = torch.randint(0, len(kept), (2, length), generator=torch.Generator().manual_seed(length))
    expected, logits = (
        run_model(model, tokens).logits.float() for model, tokens in ((dense, ids[tokens_BT]), (cut, tokens_BT))
    )
    if logits.shape[-1] != len(kept):
        raise UncutVocabulary(f"it gives {logits.shape[-1]} logits for {len(kept)} tokens")
    difference = difference_beyond(logits, expected[..., ids], _TOLERANCE)
    if difference is not None:
        raise UncutVocabulary(
            f"on a small copy with fewer tokens, the logits of those that stay differ by {difference:.3g}: it computes "
            "with ids, or finds entries by something else than ids"
        )
