"""Limit of cost of a job: what each part of its model costs, measured in an engine or counted in bytes."""

from collections.abc import Callable, Mapping, Sequence

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.structure import cached_values_of_group
from core.engine.architectures.unit_counts import CostLimit
from core.engine.architectures.units import KindName, removed_kinds
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.latency.costs import Latency, PartCosts
from core.engine.latency.model_widths import dense_shape, model_widths
from core.engine.latency.variants import ModelShape
from secateur_wire.errors import InvalidTarget
from secateur_wire.job_body import Target

Offered = Mapping[KindName, Sequence[int]]
"""Numbers of units that a layer may keep, by kind."""
_KINDS = {kind.name: kind for kind in removed_kinds("kv_groups")}


def time_limit(
    target: Target, table: PartCosts, offered: Offered, dense: ModelDescription, source: ModelDescription
) -> CostLimit:
    """Return the limit of a ratio of times by a table of costs.

    `dense` is the model that the ratio refers to; `source` is the one that is pruned, which may have fewer tokens.
    Raises InvalidTarget where its layers differ in a part that stays.
    """
    block = model_widths(source).block
    if "heads" not in offered and len({each.kv_groups for each in dense_shape(source)}) > 1:
        raise InvalidTarget(
            f"target.{target.kind}: layers of this model have different numbers of heads, which stay: use "
            "parameters.attention 'kv_groups'",
            param=f"target.{target.kind}",
        )

    def milliseconds(cost: Latency) -> float:
        return cost.prefill_ms if target.latency_ratio is not None else cost.decode_ms

    def of_kind(kind: KindName) -> Callable[[int], Latency]:
        return table.ffn if _KINDS[kind].is_fine else table.attention

    dense_ms = milliseconds(table.predict(ModelShape(dense_shape(dense), dense.vocabulary_size)))
    workload = table.workload
    return CostLimit(
        target=target.kind,
        is_ratio=True,
        basis=f"the costs of parts in {workload.engine} ({workload.type})",
        limit=target.limit * dense_ms,
        dense=dense_ms,
        fixed=milliseconds(table.vocabulary(source.vocabulary_size)) + milliseconds(table.rest),
        layer=sum(
            milliseconds(of_kind(kind)(size))
            for kind, size in (("heads", block.kv_groups), ("channels", block.ffn_width))
            if kind not in offered
        ),
        units={
            kind: {number: milliseconds(of_kind(kind)(number)) for number in numbers}
            for kind, numbers in offered.items()
        },
    )


def memory_limit(target: Target, offered: Offered, source: ModelDescription, tokens: int) -> CostLimit:
    """Return the limit of the bytes of weights, and of the cache of so many tokens, of a model that is pruned.

    Raises InvalidTarget where its layers differ, and UnsupportedArchitecture where the cache is not known.
    """
    structure, weight = require_structure(source), WEIGHT_BYTES[source.dtype]
    if not structure.is_alike:
        raise InvalidTarget(
            f"target.{target.kind}: the layers of this model have different shapes already: use target.bytes",
            param=f"target.{target.kind}",
        )
    shape = structure.layers[0]
    cached = {"heads": cached_values_of_group(structure) * tokens}
    units = {
        kind: {
            number: weight * number * (_KINDS[kind].parameters(structure, 0) + cached.get(kind, 0))
            for number in numbers
        }
        for kind, numbers in offered.items()
    }
    going = sum(_KINDS[kind].all_parameters(structure, 0) for kind in offered)
    staying = {"heads": shape.sizes["kv_heads"]} if "heads" not in offered else {}
    layer = weight * (shape.parameters - going + sum(cached[kind] * number for kind, number in staying.items()))
    fixed = float(source.bytes - weight * structure.parameters)
    most = {kind: max(each.values()) for kind, each in units.items()}
    return CostLimit(
        target=target.kind,
        is_ratio=False,
        basis=f"the bytes of weights and of a cache of {tokens:,} tokens",
        limit=target.limit,
        dense=fixed + len(structure.layers) * (layer + sum(most.values())),
        fixed=fixed,
        layer=layer,
        units=units,
    )
