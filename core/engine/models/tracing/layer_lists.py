"""Lists of a config that have an entry for each layer, told from those that are as long by chance."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from pydantic import JsonValue

from core.engine.models.tracing.build import build_traceable
from core.engine.models.tracing.configuration import Settings, config_class, open_config
from core.errors import SecateurError

_COUNTS_LAYERS: Final = ("layer", "block", "depth")
"""Parts of the names of settings that count layers."""


def counts_layers(name: str, value: JsonValue, layers: int) -> bool:
    """Return whether a setting is the number of layers, of which there are so many."""
    return type(value) is int and value == layers and any(part in name for part in _COUNTS_LAYERS)


def lists_by_layer(settings: Settings, layers: int) -> frozenset[str]:
    """Return the names of the lists with an entry for each of so many layers.

    They are as long as there are layers and lie beside the setting that counts these. One that has another length in
    the config's defaults, or that a model of one layer more cannot have longer but can have as it is, is none.
    """
    names = {name for each in _dictionaries(open_config(settings).to_dict(), layers) for name in each}
    return frozenset(name for name in names if _is_by_layer(settings, layers, name, frozenset(names)))


def _dictionaries(settings: Mapping[str, JsonValue], layers: int) -> Iterator[list[str]]:
    """Yield the names of lists with so many entries, of each dictionary that counts the layers."""
    if any(counts_layers(name, value, layers) for name, value in settings.items()):
        yield [name for name, value in settings.items() if isinstance(value, list | tuple) and len(value) == layers]
    for value in settings.values():
        if isinstance(value, dict):
            yield from _dictionaries(value, layers)


def _is_by_layer(settings: Settings, layers: int, name: str, candidates: frozenset[str]) -> bool:
    follows = _follows_in_defaults(settings, layers, name)
    if follows is not None:
        return follows
    others = candidates - {name}
    longer = _is_built(_with_one_more(settings, layers, candidates))
    as_it_is = _is_built(_with_one_more(settings, layers, others))
    return longer or not as_it_is


def _follows_in_defaults(settings: Settings, layers: int, name: str) -> bool | None:
    """Return whether a list of the config's class has as many entries as that has layers; None where it has none."""
    with suppress(Exception):  # config classes validate with whatever exception their authors chose
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


def _with_one_more(settings: Settings, layers: int, longer: frozenset[str]) -> dict[str, JsonValue]:
    def more(name: str, value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            return {inner: more(inner, each) for inner, each in value.items()}
        if name in longer and isinstance(value, list | tuple) and len(value) == layers:
            return [*value, value[-1]]
        return layers + 1 if counts_layers(name, value, layers) else value

    return {name: more(name, value) for name, value in open_config(settings).to_dict().items()}


def _is_built(settings: Settings) -> bool:
    try:
        build_traceable(open_config(settings))
    except SecateurError:
        return False
    return True
