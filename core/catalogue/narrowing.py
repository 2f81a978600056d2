"""How much of each layer goes when heads and channels are removed: checked before queueing, and by the engine."""

from dataclasses import dataclass

from core.catalogue.model_folder import ModelDescription
from core.catalogue.parameters import Ranked, Width
from core.catalogue.per_layer import Layout
from core.catalogue.structure import (
    AttentionMode,
    Counts,
    ModelStructure,
    Ranking,
    attention_mode,
    group_counts,
    rank_groups,
)
from core.errors import InvalidParameters, UnusableModel

DEFAULT_ROUND_TO = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class Narrowing:
    """How layers get narrower: to these `counts`, one per layer, or, where they are None, to what a `ranking` of the
    groups of all layers leaves. `protected` layers stay as they are."""

    attention: AttentionMode
    protected: frozenset[int]
    counts: tuple[Counts, ...] | None
    ranking: Ranking | None


def require_narrowing(
    description: ModelDescription,
    parameters: Width,
    ratio: float,
    *,
    layout: Layout = "uniform",
    device: str = "cpu",
) -> Narrowing:
    """What a request for `ratio` means on that kind of device.

    Raises InvalidSparsity naming the nearest ratio there is, and InvalidParameters where the layout does not allow what
    is asked for, or nothing is left to remove.
    """
    structure = require_structure(description)
    _check_width(description, structure, parameters, layout)
    attention = attention_mode(parameters.attention, structure)
    protected = frozenset[int]() if layout == "uniform" else parameters.protected(description.layers)
    round_to = parameters.round_to or DEFAULT_ROUND_TO[device]
    if isinstance(parameters, Ranked) and parameters.scope == "model":
        ranking = rank_groups(
            structure,
            parameters=description.parameters,
            ratio=ratio,
            attention=attention,
            round_to=round_to,
            protected=protected,
        )
        return Narrowing(attention, protected, None, ranking)
    counts = group_counts(
        structure,
        hidden_size=description.hidden_size,
        parameters=description.parameters,
        ratio=ratio,
        attention=attention,
        round_to=round_to,
        is_uniform=layout == "uniform",
        protected=protected,
    )
    return Narrowing(attention, protected, counts, None)


def _check_width(description: ModelDescription, structure: ModelStructure, parameters: Width, layout: Layout) -> None:
    if layout == "uniform":
        if description.layout == "per_layer" or not structure.is_uniform:
            raise InvalidParameters(
                "output.layout: the layers of this model have different shapes already; use 'per_layer'",
                param="output.layout",
            )
        needing = {
            "protected_first": bool(parameters.protected_first),
            "protected_last": bool(parameters.protected_last),
            "scope": isinstance(parameters, Ranked) and parameters.scope == "model",
        }
        for name, is_asked in needing.items():
            if is_asked:
                raise InvalidParameters(
                    f"parameters.{name}: {getattr(parameters, name)!r} leaves layers of different shapes, which needs "
                    "output.layout 'per_layer'; with 'uniform' every layer gets the same",
                    param=f"parameters.{name}",
                )
    elif len(parameters.protected(description.layers)) == description.layers:
        raise InvalidParameters(
            f"parameters.protected_first and protected_last: all {description.layers} layers are protected, nothing is "
            "left to remove",
            param="parameters.protected_first",
        )


def require_structure(description: ModelDescription) -> ModelStructure:
    """What can be removed; raises UnusableModel where an earlier version described the model without it."""
    if description.structure is None:
        raise UnusableModel(
            "the model was registered before structured pruning was there: register it again under another name",
            param="model",
        )
    return description.structure
