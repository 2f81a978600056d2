"""Shape of a language model, as a search for a target latency chooses it: one variant of the block for each layer."""

from typing import NamedTuple


class BlockVariant(NamedTuple):
    """Variant of a decoder layer: the KV heads of its attention, each with its query heads, and the width of its FFN.

    0 KV groups: the attention is left out. Width 0: the FFN is left out. Where both are 0 the layer is gone.
    """

    kv_groups: int
    ffn_width: int


class ModelShape(NamedTuple):
    """Variant of each layer, first to last, and the rows of the embeddings and the head."""

    layers: tuple[BlockVariant, ...]
    vocabulary: int
