"""Parts of a config: config.json of a multimodal model holds the language model's config as a nested object."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.checkpoints.files import CONFIG_FILE
from secateur_wire.errors import UnusableModel


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
