"""Configs of models: their parts, and their limits, checked before anything is built from a config.

config.json of a multimodal model holds the language model's config as a nested object. No key of any type of model is
known here. A setting counts as a size by its name, and no size may be far beyond the tensors of the files.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.untrusted_json import entries_of, path_to
from secateur_wire.errors import UnusableModel

MOST_VALUES: Final = 100_000
MOST_LEVELS: Final = 16
_LARGEST: Final = 2**31 - 1
_LARGEST_FACTOR: Final = 2**53
_LARGEST_RATIO: Final = 8
"""Largest ratio of a size to the largest dimension of the tensors: heads, channels and tokens stay within it."""
_ALWAYS_ALLOWED: Final = 2**17
_LAYERS_ALWAYS_ALLOWED: Final = 1024
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_LAYERS = re.compile(r"(.+_)?(n_layers?|layers|num_blocks)")
_SIZE = re.compile(r"(n|num|d|dim)_.+|(.+_)?(size|sizes|dim|dims|rank|heads|experts|channels|width|features|groups)")
_NO_SIZE = re.compile(r"max_.+|.+_(positions|embeddings|ctx|length)|.*(chunk|window|image|crop|scale).*")
"""Settings that are no sizes of weights: lengths, windows and images, where -1 may mean all; and factors."""
_ABOVE_ZERO = re.compile(
    r"vocab_size|hidden_size|num_hidden_layers|n_layers?|num_attention_heads|n_embd|n_heads?|d_model"
)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_SHARE = re.compile(r"partial_rotary_factor|rotary_(pct|percent|fraction)")
"""Shares of a head that rotary embeddings turn. A share above 1 fails once the model runs."""
_FACTOR = re.compile(r".*(theta|base|seed).*")
"""Settings whose value may be larger than any tensor's dimension."""


def check_extent(config: Mapping[str, Any]) -> None:
    """Require that a config's length and depth are those of a model's config, and that its strings are valid text.

    Raises UnusableModel naming the key.
    """
    values = 0
    level: list[tuple[str, Any]] = [("", config)]
    for _ in range(MOST_LEVELS):
        inside: list[tuple[str, Any]] = []
        for path, holder in level:
            values += len(holder)
            if values > MOST_VALUES:
                where = f" with those of {path[:200]!r}" if path else ""
                raise UnusableModel(f"{CONFIG_FILE} has more than {MOST_VALUES} values{where}", param="model")
            for key, value in holder.items() if isinstance(holder, Mapping) else enumerate(holder):
                here = path_to(path, key)
                if any(isinstance(each, str) and _NO_TEXT.search(each) for each in (key, value)):
                    raise _refusal(ascii(here)[1:-1], "and its text is not valid: it has NUL or half of a character")
                if isinstance(value, dict | list):
                    inside.append((here, value))
        if not inside:
            return
        level = inside
    raise _refusal(level[0][0], f"which is nested deeper than {MOST_LEVELS} levels")


def check_sizes(config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> None:
    """Require that a config's sizes fit its weights; raises UnusableModel naming the key.

    There are no more layers than tensors. No other size is more than a few times the tensors' largest dimension. Sizes
    are whole numbers and not negative; sizes that every model has are above 0.
    """
    named = config.get("model_type")
    if not isinstance(named, str) or not _TYPE.fullmatch(named):
        raise _refusal("model_type", f"and {str(named)[:100]!r} is the name of no type of model")
    largest = max((size for each in tensors.values() if each.numel for size in each.shape), default=1)
    most = max(_ALWAYS_ALLOWED, _LARGEST_RATIO * largest)
    most_layers = max(_LAYERS_ALWAYS_ALLOWED, len(tensors))
    for path, key, value in entries_of(config):
        is_layers = _LAYERS.fullmatch(key) is not None
        is_size = is_layers or (_SIZE.fullmatch(key) is not None and _NO_SIZE.fullmatch(key) is None)
        limit = most_layers if is_layers else most
        # some configs count layers from the end
        least = 1 if _ABOVE_ZERO.fullmatch(key) else -limit if is_layers else 0
        is_share = _SHARE.fullmatch(key) is not None
        highest = _LARGEST_FACTOR if _FACTOR.fullmatch(key) else _LARGEST
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, float) and math.isnan(each):
                raise _refusal(path, "and not-a-number (NaN) is not a valid value")
            if is_share and isinstance(each, int | float) and not 0 <= each <= 1:
                raise _refusal(path, f"and {each} is not from 0 to 1")
            if type(each) is int and abs(each) > highest:
                raise _refusal(path, f"and a whole number up to {highest} is needed")
            if not is_size or (isinstance(each, str) and (each == "auto" or each is not value)):
                continue
            if isinstance(each, float | str) or (isinstance(each, bool) and least == 1):
                raise _refusal(path, f"and {str(each)[:50]!r} is no whole number")
            if type(each) is int and not least <= each <= limit:
                why = f"the files hold {len(tensors)} tensors, their largest dimension is {largest}"
                raise _refusal(path, f"and {each} is not from {least} to {limit}: {why}")


def _refusal(path: str, reason: str) -> UnusableModel:
    return UnusableModel(f"{CONFIG_FILE} holds {path[:200]!r}, {reason}", param="model")


def part_of(config: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """Return the nested object of a config at a path of keys; the config itself where the path is empty.

    Raises UnusableModel where there is no object.
    """
    part = config
    for key in path:
        inner = part.get(key)
        if not isinstance(inner, Mapping):
            raise UnusableModel(
                f"{CONFIG_FILE} holds no object {'.'.join(path)!r}, which the settings of its language model are read "
                "from: save the model with save_pretrained",
                param="model",
            )
        part = inner
    return part


def with_part(config: Mapping[str, Any], path: Sequence[str], part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the nested object at a path of keys replaced; with an empty path, the new object itself."""
    if not path:
        return dict(part)
    key, *rest = path
    return {**config, key: with_part(part_of(config, (key,)), rest, part)}
