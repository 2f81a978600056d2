"""Parts of a config: where a model is more than a language model, its config.json holds that of the latter inside."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.checkpoints.files import CONFIG_FILE
from secateur_wire.errors import UnusableModel


def part_of(config: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """Return the object of a config that a path of keys leads to; the config itself where the path is empty.

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
    """Return a config that holds another object where a path of keys leads to; the object where the path is empty."""
    if not path:
        return dict(part)
    key, *rest = path
    return {**config, key: with_part(part_of(config, (key,)), rest, part)}
