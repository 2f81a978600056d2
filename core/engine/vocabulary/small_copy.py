"""Proof on a small random copy: the model without some tokens gives the logits of the tokens that stay, unchanged.

Nothing is known here of any family. The model's own constructor tells which tensors have an entry for each token: those
whose shape follows the number of tokens. That these entries are in the order of the ids, and that the model does not
compute with the ids themselves, is tried.
"""

import json
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from typing import Final, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture
from core.engine.checkpoints.key_patterns import pattern_of
from core.engine.discovery.blocks import run_model
from core.engine.discovery.build import build_random, build_traceable
from core.engine.discovery.configuration import (
    Settings,
    language_part,
    open_config,
    read_settings,
    text_config,
)
from core.engine.discovery.differential import one_line
from core.engine.discovery.names import StoredLayers, stored_layers
from core.engine.discovery.resizing import narrowed, shortened
from core.engine.evaluation.reload_check import difference_beyond
from core.engine.models.folder import ModelFolder
from core.engine.removals.vocabulary import OFFER
from core.engine.vocabulary.settings import reduced_config, required_ids
from secateur_wire.errors import SecateurError, UnsupportedArchitecture

Axes: TypeAlias = Mapping[str, int]
"""Dimension of a tensor with an entry for each token, by its name in the model."""

_LENGTHS: Final = (7, 12)
_TOLERANCE: Final = 1e-4
_SHARE: Final = 0.4
_MOST_SMALL: Final = 100_000_000
"""Largest number of parameters of a small copy."""
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
        small = json.loads(json.dumps(small))  # keys of settings by number become text, as in config.json
        config = open_config(small)
        dense = build_random(config)
        kept = _kept(required_ids(small, architecture, config), _tokens(dense), first)
        cut = build_random(open_config(reduced_config(small, kept, architecture, config)))
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


def require_exact(folder: ModelFolder, kept: Sequence[int]) -> None:
    """Require a small copy of a model to be exact with fewer tokens; raises UnsupportedArchitecture with the reason.

    The copy keeps the first tokens as far as the model keeps all of its first ones, because some models compute with
    the ids of special tokens.
    """
    first = next((place for place, number in enumerate(kept) if place != number), len(kept))
    try:
        axes = vocabulary_axes(folder.family, _small_settings(folder), first)
    except UncutVocabulary as reason:
        raise _refusal(folder.family, str(reason)) from reason
    unknown = [name for name, dimension in axes.items() if folder.family.vocabulary_dimension(name) != dimension]
    if unknown:
        raise _refusal(folder.family, f"{unknown[0]} has an entry for each token, which was not known")


def _refusal(family: Architecture, reason: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(f"{family.architecture} cannot lose tokens: {reason}", param="model")


def _small_settings(folder: ModelFolder) -> Settings:
    """Return the settings of a small model of the same type; raises UncutVocabulary where none is small."""
    settings = read_settings({**folder.raw_config, "architectures": [folder.family.architecture]})
    lists = [value for value in text_config(folder.config).to_dict().values() if isinstance(value, list)]
    layers = stored_layers(folder.tensors, lists, folder.description.layers)
    for shorter in (_shortened(settings, layers), settings):
        for small in () if shorter is None else narrowed(shorter):
            with suppress(SecateurError):
                if sum(each.numel() for each in build_traceable(open_config(small)).parameters()) <= _MOST_SMALL:
                    return small
    raise UncutVocabulary("no small copy of it can be made, on which this could be tried")


def _shortened(settings: Settings, layers: StoredLayers) -> Settings | None:
    with suppress(SecateurError):  # some configs count layers from the end
        return shortened(settings, layers.count, layers.covering)
    return None


def _candidates(architecture: Architecture, small: Settings) -> Sequence[tuple[str, ...]]:
    """Return the settings that may count tokens: their number alone, else with others."""
    part = language_part(open_config(small)).to_dict()
    own = {architecture.config_keys.get(VOCABULARY_KEY, VOCABULARY_KEY), VOCABULARY_KEY}
    others = [name for name, value in part.items() if _COUNTS in name and name not in own and type(value) is int]
    return [(VOCABULARY_KEY, *each) for count in range(min(len(others), 2) + 1) for each in combinations(others, count)]


def _tokens(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config(decoder=True).vocab_size)


def _kept(named: set[int], tokens: int, first: int) -> list[int]:
    """Return the ids that a small copy keeps: the first ones, those that its config names, and some of all others."""
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
            expected = len(_rows(tensor.shape[dimension], _tokens(dense), kept))
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
        tensor.copy_(source[name] if name not in axes else _kept_entries(dense, source[name], axes[name], kept))


def _kept_entries(dense: PreTrainedModel, tensor: Tensor, dimension: int, kept: Sequence[int]) -> Tensor:
    return tensor.index_select(dimension, torch.tensor(_rows(tensor.shape[dimension], _tokens(dense), kept)))


def _rows(rows: int, tokens: int, kept: Sequence[int]) -> list[int]:
    """Return the rows that stay: those of the tokens, as far as it has them, and those that are no token's."""
    return [*(each for each in kept if each < rows), *range(tokens, rows)]


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
            "with ids, or finds entries in another way than by ids"
        )
