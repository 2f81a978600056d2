"""Sizes of a model that the table of its parts' costs depends on, from its description."""

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.latency.costs import ModelWidths
from core.engine.latency.variants import BlockVariant
from secateur_wire.errors import UnsupportedArchitecture

_KINDS = ("heads", "channels")


def model_widths(description: ModelDescription) -> ModelWidths:
    """Return the sizes of a model whose layers are an attention and an FFN, each on the residual stream.

    Where layers differ in shape, the largest counts as dense. Raises UnsupportedArchitecture for other models.
    """
    structure, family = require_structure(description), description.known_as
    if family.experts is not None:
        raise _refusal(description, "it has experts, whose time depends on the tokens")
    if family.sublayers != tuple(map(family.sublayer_of, _KINDS)):
        raise _refusal(description, "its layers are not an attention followed by an FFN")
    if any(not family.axes(kind) for kind in _KINDS):
        raise _refusal(description, "its heads or channels cannot be removed")
    if any(each.norm is None for each in family.sublayers):
        raise _refusal(description, "its attention and FFN do not read the residual stream through one norm each")
    if not family.vocabulary_settings:
        raise _refusal(description, "no setting of its config gives the size of its vocabulary")
    heads, kv_heads, channels = (
        [layer.sizes[name] for layer in structure.layers] for name in ("heads", "kv_heads", "channels")
    )
    if not all((*heads, *kv_heads, *channels)):
        raise _refusal(description, "some of its layers have no attention or no FFN")
    return ModelWidths(
        architecture=description.architecture,
        hidden_size=description.hidden_size,
        head_size=structure.facts["head_dim"],
        heads_per_group=max(each // groups for each, groups in zip(heads, kv_heads, strict=True)),
        block=BlockVariant(max(kv_heads), max(channels)),
        vocabulary=description.vocabulary_size,
        is_tied=description.tied_embeddings,
    )


def dense_shape(description: ModelDescription) -> tuple[BlockVariant, ...]:
    """Return the variant of each layer of a model as it is."""
    layers = require_structure(description).layers
    return tuple(BlockVariant(each.sizes["kv_heads"], each.sizes["channels"]) for each in layers)


def _refusal(description: ModelDescription, reason: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(f"the parts of {description.architecture} are not timed: {reason}", param="model")
