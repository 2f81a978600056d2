"""Stacks of experts: the experts' tensors in files, joined to one tensor with its name in the model."""

from collections import Counter
from collections.abc import Iterator, Mapping

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.layer_shape import LinearShape
from core.engine.checkpoints.key_patterns import numbers_of, pattern_of
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.checkpoints.stacked import StackedEntry
from secateur_wire.errors import CorruptSafetensors, MissingTensors


def join_stacks(stored: Mapping[str, TensorEntry], family: Architecture) -> dict[str, TensorEntry]:
    """Return the tensors of files by key, with the experts' tensors joined to stacks by their names in the model.

    Raises MissingTensors where an expert lacks a tensor, CorruptSafetensors where they differ in shape or dtype.
    """
    matrices = () if family.experts is None else family.experts.matrices
    places = {part: (matrix, number) for matrix in matrices for number, part in enumerate(matrix.parts)}
    joined: dict[str, TensorEntry] = {}
    stacks: dict[str, dict[tuple[int, int], TensorEntry]] = {}
    widths: dict[str, int] = {}
    for key, entry in stored.items():
        pattern = pattern_of(key)
        place = places.get(pattern) or places.get(f"{family.base}.{pattern}")
        if place is None or family.experts is None:
            joined[key] = entry
            continue
        layer, expert = numbers_of(key)
        name = f"{family.blocks}.{layer}.{family.experts.parameter(place[0])}"
        members = stacks.setdefault(name, {})
        if (int(expert), place[1]) in members:
            raise CorruptSafetensors(f"tensor {key[:200]!r} is stored twice", param="model")
        members[int(expert), place[1]] = entry
        widths[name] = len(place[0].parts)
    return joined | {name: _stack(name, members, widths[name]) for name, members in stacks.items()}


def _stack(name: str, members: Mapping[tuple[int, int], TensorEntry], parts: int) -> StackedEntry:
    experts = -(-len(members) // parts)
    for expert in range(experts):
        for part in range(parts):
            if (expert, part) not in members:
                raise MissingTensors(f"the files lack part {part} of expert {expert} of {name}", param="model")
    first = members[0, 0]
    kinds = Counter((each.dtype, each.shape) for each in members.values())
    if len(kinds) > 1 or len(first.shape) != 2:
        other = next(
            (each for each in members.values() if (each.dtype, each.shape) != (first.dtype, first.shape)), first
        )
        raise CorruptSafetensors(
            f"{other.name[:200]} is {other.dtype} {list(other.shape)}, but {first.name[:200]} of the same experts "
            f"is {first.dtype} {list(first.shape)}: they must have the same dtype and shape",
            param="model",
        )
    rows, columns = first.shape
    return StackedEntry(
        name,
        first.dtype,
        (experts, parts * rows, columns),
        first.file,
        first.start,
        first.end,
        parts=tuple(tuple(members[expert, part] for part in range(parts)) for expert in range(experts)),
    )


def expert_shapes(family: Architecture, tensors: Mapping[str, TensorEntry], layer: int) -> Iterator[LinearShape]:
    """Yield the stacks of a layer's experts, from tensors by their names in the model; none where it has no experts.

    Raises MissingTensors where the layer lacks a stack, CorruptSafetensors where the stacks do not fit each other.
    """
    experts = family.experts
    names = (
        [] if experts is None else [f"{family.blocks}.{layer}.{experts.parameter(each)}" for each in experts.matrices]
    )
    if experts is None or not any(name in tensors for name in names):
        return
    counts = set()
    for name in names:
        entry = tensors.get(name)
        if entry is None:
            raise MissingTensors(f"the files lack {name}", param="model")
        if len(entry.shape) != 3 or 0 in entry.shape:
            raise CorruptSafetensors(
                f"{name} has shape {list(entry.shape)}, three dimensions are needed", param="model"
            )
        count, rows, columns = entry.shape
        counts.add(count)
        if experts.transposed:
            rows, columns = columns, rows
        yield LinearShape(name=name, layer=layer, out_features=rows, in_features=columns, experts=count)
    if len(counts) > 1:
        raise CorruptSafetensors(
            f"layer {layer} has stacks with different numbers of experts ({sorted(counts)}); all must have the same "
            "number",
            param="model",
        )
