"""Size of the cache of keys and values that a language model needs."""

from core.engine.architectures.structure import ModelStructure
from secateur_wire.errors import UnsupportedArchitecture


def cached_values_of_group(structure: ModelStructure) -> int:
    """Return the values per token that one KV head adds to the cache: a key and a value.

    Raises UnsupportedArchitecture where it is not known.
    """
    head_size = structure.facts.get("head_dim", 0)
    if not head_size:
        raise UnsupportedArchitecture(
            "target.memory_bytes: the size of this model's cache of keys and values is not known: use target.bytes",
            param="target.memory_bytes",
        )
    return 2 * head_size


def cache_bytes(structure: ModelStructure, tokens: int, value_bytes: float) -> int:
    """Return the bytes of the cache after so many tokens of one sequence; raises UnsupportedArchitecture."""
    groups = sum(layer.sizes.get("kv_heads", 0) for layer in structure.layers)
    return round(groups * cached_values_of_group(structure) * tokens * value_bytes)
