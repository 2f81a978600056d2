"""Smaller settings of the same model: its first layers only, or narrow layers and few tokens.

Config lists with an entry for each layer are separated from lists that have this length by chance.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial, reduce
from typing import Final

from pydantic import JsonValue
from transformers import PretrainedConfig

from core.engine.architectures.config import part_of, with_part
from core.engine.discovery.build import build_traceable
from core.engine.discovery.configuration import Settings, config_class, language_path, open_config, text_config
from secateur_wire.errors import SecateurError, UnusableModel

_COUNTS_LAYERS: Final = ("layer", "block", "depth")
"""Parts of the names of settings that count layers."""


def counts_layers(name: str, value: JsonValue, layers: int) -> bool:
    """Return True if a setting is the number of layers, which is `layers`."""
    return type(value) is int and value == layers and any(part in name for part in _COUNTS_LAYERS)


def lists_by_layer(settings: Settings, layers: int) -> frozenset[str]:
    """Return the names of the lists with an entry for each layer.

    They have one entry per layer and lie beside the setting that counts the layers. A list does not count if the
    config's defaults have it in another length, or if a model with one more layer rejects a longer list but accepts
    this one.
    """
    names = {name for each in _dictionaries(open_config(settings).to_dict(), layers) for name in each}
    return frozenset(name for name in names if _is_by_layer(settings, layers, name, frozenset(names)))


def _dictionaries(settings: Mapping[str, JsonValue], layers: int) -> Iterator[list[str]]:
    """Yield the names of lists with `layers` entries, of each dictionary that counts the layers."""
    if any(counts_layers(name, value, layers) for name, value in settings.items()):
        yield [name for name, value in settings.items() if isinstance(value, list | tuple) and len(value) == layers]
    for value in settings.values():
        if isinstance(value, dict):
            yield from _dictionaries(value, layers)


def _is_by_layer(settings: Settings, layers: int, name: str, candidates: frozenset[str]) -> bool:
    follows = _is_by_layer_in_defaults(settings, layers, name)
    if follows is not None:
        return follows
    others = candidates - {name}
    longer = _can_be_built(_with_one_more_layer(settings, layers, candidates))
    as_it_is = _can_be_built(_with_one_more_layer(settings, layers, others))
    return longer or not as_it_is


def _is_by_layer_in_defaults(settings: Settings, layers: int, name: str) -> bool | None:
    """Return True if a list in the class's defaults has an entry for each layer; None where there is no list."""
    with suppress(Exception):  # config classes validate with exceptions of any type
        known = config_class(settings)
        default = known().to_dict()
        count = next(
            each for each, value in open_config(settings).to_dict().items() if counts_layers(each, value, layers)
        )
        if isinstance(default[name], list | tuple) and type(default[count]) is int:
            if len(default[name]) != default[count]:
                return False
            more = known(**{count: default[count] + 1}).to_dict()
            return True if len(more[name]) == default[count] + 1 else None
    return None


def _with_one_more_layer(settings: Settings, layers: int, longer: frozenset[str]) -> dict[str, JsonValue]:
    def more(name: str, value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            return {inner: more(inner, each) for inner, each in value.items()}
        if name in longer and isinstance(value, list | tuple) and len(value) == layers:
            return [*value, value[-1]]
        return layers + 1 if counts_layers(name, value, layers) else value

    return {name: more(name, value) for name, value in open_config(settings).to_dict().items()}


def _can_be_built(settings: Settings) -> bool:
    try:
        build_traceable(open_config(settings))
    except SecateurError:
        return False
    return True


_WIDTH: Final = re.compile("hidden|size|dim|d_model|embd|width|inner|ffn|d_ff|rank|channels|d_head|d_kv|d_ssm")
_NO_WIDTH: Final = re.compile(
    "vocab|max|window|position|kernel|conv|chunk|block|patch|image|group|num|heads|layers|state|token|experts|_type"
)
_VOCABULARY: Final = re.compile("vocab")
_TOKEN: Final = re.compile("token_(id|index)$|^(pad|bos|eos)_index$")
_HEADS: Final = re.compile("heads?$|n_groups$")
_OF_HEAD: Final = re.compile("head_dim|d_head|per_head|d_kv|kv_channels")
_CHUNK: Final = re.compile("chunk_size$")
_SMALL_NETWORK: Final = "test_resnet"
"""Smallest image network of timm, used in place of any other."""
_LEAST_WIDTH: Final = 8
_MOST_CHUNK: Final = 16
_MOST_TOKENS: Final = 512
FACTORS: Final = (64, 32, 16, 8, 4, 2, 1)
"""Divisors of the widths of a small copy, in the order of trial."""


def shortened(settings: Settings, layers: int, kept: int) -> dict[str, JsonValue]:
    """Return the settings of the first `kept` of `layers` layers: counts of layers and lists by layer are shortened."""
    return _with_layers(settings, layers, tuple(range(kept)))


def without_layer(settings: Settings, layers: int, removed: int) -> dict[str, JsonValue]:
    return _with_layers(settings, layers, tuple(layer for layer in range(layers) if layer != removed))


def _with_layers(settings: Settings, layers: int, kept: tuple[int, ...]) -> dict[str, JsonValue]:
    path = language_path(open_config(settings))
    lists = lists_by_layer(settings, layers)
    return _changed_part(settings, partial(_shorten, layers=layers, kept=kept, lists=lists), path)


def narrowed(settings: Settings) -> Iterator[dict[str, JsonValue]]:
    """Yield settings of the same model with few and narrow heads, narrow layers and few tokens, the smallest first.

    Widths are divided by one factor, as far as possible. The number of heads has a divisor of its own, which also
    divides the widths. Other counts stay.
    """
    config = open_config(settings)
    text, path = text_config(config), language_path(config)
    for fewer in dict.fromkeys((_head_divisor(text), 1)):
        for factor in filter(partial(_leaves_valid_heads, text), FACTORS):
            with suppress(UnusableModel):  # the config's class rejects such widths
                narrow = _changed_part(settings, partial(_narrow, factor=factor, fewer=fewer), path)
                if path:
                    with suppress(UnusableModel):
                        yield _narrow_other_parts(narrow, path)
                yield narrow


def _narrow_other_parts(settings: Settings, path: tuple[str, ...]) -> dict[str, JsonValue]:
    """Return settings with few tokens and with the parts outside the language model as narrow as possible.

    Raises UnusableModel where the config's class rejects them.
    """
    config = open_config(settings)
    inside = config.sub_configs
    tokens = _narrow({name: value for name, value in settings.items() if name not in inside}, factor=1, fewer=1)
    result = {**settings, **tokens}
    for name in inside:
        part = getattr(config, name, None)
        if name != path[0] and isinstance(part, PretrainedConfig) and isinstance(result.get(name), dict):
            factor = next(filter(partial(_leaves_valid_heads, part), FACTORS))
            result = _changed_part(result, partial(_narrow, factor=factor, fewer=_head_divisor(part)), (name,))
            inner = result[name]
            # timm's name of an architecture determines its size
            if isinstance(inner, dict) and "architecture" in inner:
                result[name] = {**inner, "architecture": _SMALL_NETWORK}
    return result


def _head_divisor(text: PretrainedConfig) -> int:
    """Return a divisor of the number of heads: groups of query heads keep their size, and at least two heads stay."""
    heads = _size(text, "num_attention_heads")
    groups = _size(text, "num_key_value_heads") or heads
    if not isinstance(heads, int) or not isinstance(groups, int) or min(heads, groups) < 1:
        return 1
    counts = [heads // 2] if groups in (1, heads) else [heads, groups]
    return next(
        each for each in FACTORS if all(not count % each and count >= 2 * each for count in counts) or each == 1
    )


def _leaves_valid_heads(text: PretrainedConfig, factor: int) -> bool:
    """Return True if heads stay wide enough, and twice their number divides the hidden size if it did before."""
    hidden, heads = _size(text, "hidden_size"), _size(text, "num_attention_heads")
    if factor == 1 or not isinstance(hidden, int) or not isinstance(heads, int) or heads < 1:
        return True
    head_dim = _size(text, "head_dim")
    widths = [hidden // heads, *([head_dim] if isinstance(head_dim, int) else [])]
    divides = hidden % (2 * heads) or not _divided(hidden, factor) % (2 * heads)
    return min(widths) >= factor * _LEAST_WIDTH and bool(divides)


def _size(text: PretrainedConfig, name: str) -> JsonValue:
    """Return a setting of all layers by its common name; None where it is absent, or each layer has its own."""
    value: JsonValue = text.to_dict().get(text.attribute_map.get(name, name))
    return value


def _changed_part(
    settings: Settings, change: Callable[[Settings], dict[str, JsonValue]], path: tuple[str, ...]
) -> dict[str, JsonValue]:
    """Return changed settings of one part: those in the config, and the relevant defaults of missing ones."""

    def derived(part: Settings) -> dict[str, JsonValue]:
        config: PretrainedConfig = reduce(getattr, path, open_config(with_part(settings, path, part)))
        return config.to_dict()

    given = part_of(settings, path)
    before = derived(given)
    wanted = change(before)
    result = change(given)
    missing = {name: wanted[name] for name in wanted if wanted[name] != before[name] and name not in given}
    try:
        after = derived(result)
    except UnusableModel:
        after = before
    result |= {name: value for name, value in missing.items() if after.get(name) != value}
    derived(result)
    return with_part(settings, path, result)


def _shorten(settings: Settings, layers: int, kept: tuple[int, ...], lists: frozenset[str]) -> dict[str, JsonValue]:
    def short(name: str, value: JsonValue) -> JsonValue:
        # settings by layer number
        if isinstance(value, dict) and value and all(str(key).isdecimal() for key in value):
            places = {layer: place for place, layer in enumerate(kept)}
            return {type(key)(places[int(key)]): each for key, each in value.items() if int(key) in places}
        if isinstance(value, dict):
            return {inner: short(inner, each) for inner, each in value.items()}
        if name in lists and isinstance(value, list | tuple) and len(value) == layers:
            return [value[layer] for layer in kept]
        if counts_layers(name, value, layers):
            return len(kept)
        return copy.deepcopy(value)

    return {name: short(name, value) for name, value in settings.items()}


def _narrow(settings: Settings, factor: int, fewer: int) -> dict[str, JsonValue]:
    def narrow(name: str, value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            return {inner: narrow(inner, each) for inner, each in value.items()}
        if isinstance(value, list):
            if name.endswith("_factor"):  # factors of rotary embeddings, one for each pair of a head's features
                return value[: max(len(value) // factor, 1)]
            if name.endswith("section"):
                return [each // factor if isinstance(each, int) else each for each in value]
            return [narrow(name, each) for each in value]
        if type(value) is not int:
            return copy.deepcopy(value)
        if _VOCABULARY.search(name):
            return min(value, _MOST_TOKENS)
        if _TOKEN.search(name):
            return value % _MOST_TOKENS if value >= _MOST_TOKENS else value
        if _CHUNK.search(name):
            return min(value, _MOST_CHUNK)
        if _HEADS.search(name):
            return value // fewer if value % fewer == 0 else value
        if _WIDTH.search(name) and not _NO_WIDTH.search(name):
            return _divided(value, factor if _OF_HEAD.search(name) else factor * fewer)
        return value

    return {name: narrow(name, value) for name, value in settings.items()}


def _divided(value: int, factor: int) -> int:
    while factor > 1 and (value % factor or value // factor < _LEAST_WIDTH):
        factor //= 2
    return value // factor
