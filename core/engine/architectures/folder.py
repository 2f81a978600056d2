"""Reader of model folders as data: config.json and safetensors headers. It executes nothing and loads no tensor.

Tensors that files hold in pieces, as those of experts, are joined to one with its name in the model.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.engine.architectures.architecture import Architecture, ClassifierArchitecture
from core.engine.architectures.config import check_extent
from core.engine.architectures.heterogeneous import AUTO_MAP_KEY, LAYERS_KEY, per_layer_architecture
from core.engine.checkpoints.code_choices import refuse_choices
from core.engine.checkpoints.companions import check_companions, read_json
from core.engine.checkpoints.files import CONFIG_FILE, INDEX_FILE, PICKLES, SINGLE_FILE
from core.engine.checkpoints.key_patterns import numbers_of, pattern_of
from core.engine.checkpoints.pieces import pieced_entry
from core.engine.checkpoints.quantisation import (
    QUANTISATION_KEY,
    Quantisation,
    join_quantised,
    require_declared,
    require_ours,
)
from core.engine.checkpoints.safetensors_header import TensorEntry, read_header
from core.engine.checkpoints.stacked import StackedEntry
from secateur_wire.errors import (
    CorruptSafetensors,
    MissingTensors,
    PathEscapes,
    PickleCheckpoint,
    UnsafeConfig,
    UnusableModel,
)

MOST_TENSORS = 300_000
"""Largest number of tensors of a folder; mixtures of 384 experts in 62 layers, with codes and scales, have 214,000."""


def read_config(folder: Path, *, own_artifact: bool = False, discovered: Architecture | None = None) -> dict[str, Any]:
    """Return config.json as a dictionary, after checks of the other small files.

    Raises UnsafeConfig where one of them could make code run, UnusableModel where one is unreadable or declares an
    unsupported quantisation.

    `own_artifact` is True if this service wrote the folder and its content is known to be unchanged. Only then may its
    layers differ in shape, or its weights be packed integers. `discovered` is the architecture discovered from the
    folder, or from its source.
    """
    file = folder / CONFIG_FILE
    if not folder.is_dir():
        raise UnusableModel(f"{folder.name} is not a folder with config.json and safetensors files", param="model")
    if not file.is_file():
        raise UnusableModel(f"{folder.name} has no config.json", param="model")
    config = read_json(file)
    check_extent(config)
    is_ours = own_artifact and per_layer_architecture(config, discovered) is not None
    if not is_ours and LAYERS_KEY in config:
        raise UnsafeConfig(
            f"config.json holds {LAYERS_KEY!r}: a model whose layers differ in shape needs code to open "
            f"({AUTO_MAP_KEY!r}) and is taken only from the job that made it; name it job:ID",
            param="model",
        )
    require_ours(config, own_artifact=own_artifact)
    refuse_choices(config, CONFIG_FILE, allowed=(QUANTISATION_KEY, *((AUTO_MAP_KEY,) if is_ours else ())))
    check_companions(folder)
    return config


def weight_files(folder: Path) -> list[Path]:
    """Return the folder's safetensors files; raises PickleCheckpoint, PathEscapes or MissingTensors."""
    if (folder / INDEX_FILE).is_file():
        weight_map = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UnusableModel(f"{INDEX_FILE} has no weight_map from tensor to file", param="model")
        names = sorted(set(weight_map.values()))
    elif (folder / SINGLE_FILE).is_file():
        names = [SINGLE_FILE]
    else:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            raise PickleCheckpoint(
                f"{', '.join(pickles[:3])} can run code when opened; convert the model to safetensors "
                "(save_pretrained does) and use that",
                param="model",
            )
        raise MissingTensors(f"{folder.name} has neither {SINGLE_FILE} nor {INDEX_FILE}", param="model")
    root = folder.resolve()
    files = []
    for name in names:
        if not name.isprintable() or len(name) > 250:
            raise MissingTensors(f"{INDEX_FILE} names {name[:100]!r}, which is no file's name", param="model")
        file = (folder / name).resolve()
        if not file.is_relative_to(root):
            raise PathEscapes(f"{INDEX_FILE} names {name!r}, which is outside the model folder", param="model")
        if not file.is_file():
            raise MissingTensors(f"{INDEX_FILE} names {name!r}, which is not in the folder", param="model")
        files.append(file)
    return files


def read_tensors(
    folder: Path, family: Architecture | ClassifierArchitecture, quantisation: Quantisation | None = None
) -> dict[str, TensorEntry]:
    """Return every tensor of the folder by its name in the model; raises CorruptSafetensors for one stored twice."""
    return by_name(stored_tensors(folder, quantisation), family)


def stored_tensors(folder: Path, quantisation: Quantisation | None) -> dict[str, TensorEntry]:
    """Return every tensor of the folder by its key. Codes and scales of a quantised weight are one tensor.

    Raises CorruptSafetensors for a tensor stored twice and for more than `MOST_TENSORS`, UnusableModel for a
    quantisation that config.json does not declare.
    """
    stored: dict[str, TensorEntry] = {}
    for file in weight_files(folder):
        if len(stored) > MOST_TENSORS:
            break
        for key, entry in read_header(file).items():
            if key in stored:
                raise CorruptSafetensors(f"tensor {key[:200]!r} is stored twice", param="model")
            stored[key] = entry
    if len(stored) > MOST_TENSORS:
        raise CorruptSafetensors(
            f"the files hold more than {MOST_TENSORS} tensors; the largest known models have 200,000", param="model"
        )
    tensors = stored if quantisation is None else join_quantised(stored, quantisation)
    require_declared(tensors)
    return tensors


def by_name(stored: Mapping[str, TensorEntry], family: Architecture | ClassifierArchitecture) -> dict[str, TensorEntry]:
    """Return tensors by their names in the model; raises CorruptSafetensors where two have the same name."""
    tensors: dict[str, TensorEntry] = {}
    modelled = _pieced(join_stacks(stored, family), family) if isinstance(family, Architecture) else stored.items()
    for key, entry in modelled:
        name = family.module_name(key)
        if name in tensors:
            raise CorruptSafetensors(f"tensor {key[:200]!r} is stored twice", param="model")
        tensors[name] = entry
    return tensors


def _pieced(stored: Mapping[str, TensorEntry], family: Architecture) -> Iterator[tuple[str, TensorEntry]]:
    """Yield tensors, with pieces joined into the tensor they make; raises MissingTensors."""
    joined: set[str] = set()
    for key, entry in stored.items():
        pieces = family.pieces_of(key)
        if not pieces:
            yield key, entry
        for name, each in pieces.items():
            if name not in joined:
                joined.add(name)
                missing = next((part for part in each.stored if part not in stored), None)
                if missing is not None:
                    raise MissingTensors(f"the files lack {missing}, of which {name} is made", param="model")
                yield name, pieced_entry(name, [stored[part] for part in each.stored], each)


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
