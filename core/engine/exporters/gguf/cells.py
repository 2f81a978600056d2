"""Supported combinations: an architecture of transformers, and the parts that a removal takes out of the model.

The architectures are those of the modules of `families`.
"""

from collections.abc import Iterator
from typing import Final

from core.discovery import declared
from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.engine.cuts import Losses
from core.engine.exporters.exporter_info import PARAM
from core.engine.exporters.gguf import families
from core.engine.exporters.gguf.family import GgufFamily, GgufForm
from secateur_wire.errors import InvalidRequest

_DECLARED: Iterator[GgufFamily] = declared(families, "FAMILY")
_BY_NAME = {each.architecture: each for each in _DECLARED}
FAMILIES: Final = {
    **{name: _BY_NAME[name] for name in LANGUAGE_ARCHITECTURES if name in _BY_NAME},
    **{name: each for name, each in sorted(_BY_NAME.items()) if each.is_mixture},
}
"""Families by architecture, in this order: those of declared architectures, then mixtures."""


def written_form(
    description: ModelDescription, losses: Losses | None = None, param: str = PARAM
) -> tuple[GgufFamily, GgufForm]:
    """Return the family of a model, and the form that can hold it without the lost parts; raises InvalidRequest."""
    name, losses = description.architecture, losses or Losses()
    family = FAMILIES.get(name)
    if family is None or family.is_mixture != (description.discovered is not None):
        shown = name if description.discovered is None else f"the type {description.discovered.model_type!r}"
        raise InvalidRequest(
            f"{param}: GGUF files can be written for {', '.join(FAMILIES)}, but not for {shown}: leave it out, or "
            "choose one of those models",
            param=param,
        )
    structure = require_structure(description)
    width = structure.layers[0].sizes["heads"] * structure.facts["head_dim"]
    has_different_layers = losses.different_layers or not structure.is_uniform
    form = family.form_of(
        has_own_head_size=losses.heads or width != description.hidden_size, has_different_layers=has_different_layers
    )
    if form is None and has_different_layers:
        why, instead = f"needs one shape for all layers of {name}", "use output.layout 'uniform'"
    elif form is None:
        why = f"computes the size of a head of {name} from the hidden size"
        instead = "keep all heads (parameters.attention 'none')"
    elif form.is_tied is not None and form.is_tied != description.tied_embeddings:
        head = "the embeddings as the head" if form.is_tied else "a head that is not the embeddings"
        why, instead = f"has {name} with {head}", "choose a model that has it so"
        if has_different_layers:
            why, instead = (
                f"allows layers of different shapes, of {name}, only with {head}",
                "use output.layout 'uniform'",
            )
    elif losses.biases and not form.has_biases and any(each.bias for each in description.known_as.sublayers):
        why, instead = f"has {name} without biases", "let none be left behind (parameters.bias false)"
    elif losses.layers and family.layers_are_numbered:
        why, instead = f"decides by the number of a layer of {name} how to compute it", "keep all layers"
    else:
        return family, form
    raise InvalidRequest(f"{param}: llama.cpp {why}: {instead}, or leave gguf out", param=param)
