"""Reader of model folders as data: config.json and safetensors headers. It executes nothing and loads no tensor."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from pydantic import BaseModel, Field

from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture
from core.engine.architectures.classifier_architecture import ClassifierArchitecture
from core.engine.architectures.config_limits import check_extent, check_sizes
from core.engine.architectures.config_part import part_of, with_part
from core.engine.architectures.expert_stacks import expert_shapes, join_stacks
from core.engine.architectures.heterogeneous import (
    AUTO_MAP_KEY,
    LAYERS_KEY,
    Layout,
    class_name,
    layer_settings,
    per_layer_architecture,
)
from core.engine.architectures.layer_shape import LinearShape
from core.engine.architectures.model_task import MODEL_TASKS, ModelTask
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES, architecture_for
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_kind import Block
from core.engine.architectures.unit_registry import BLOCK_KINDS
from core.engine.architectures.vocabulary_table import VocabularyTable, vocabulary_tables
from core.engine.checkpoints.code_choices import refuse_choices
from core.engine.checkpoints.companions import check_companions, read_json
from core.engine.checkpoints.files import CONFIG_FILE, INDEX_FILE, PICKLES, SINGLE_FILE
from core.engine.checkpoints.pieces import pieced_entry
from core.engine.checkpoints.quantisation import (
    QUANTISATION_KEY,
    Quantisation,
    join_quantised,
    quantisation_of,
    require_declared,
    require_ours,
)
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES, WEIGHT_DTYPES, TensorEntry, read_header
from secateur_wire.errors import (
    CorruptSafetensors,
    MissingTensors,
    PathEscapes,
    PickleCheckpoint,
    UnsafeConfig,
    UnsupportedArchitecture,
    UnusableModel,
)

MOST_TENSORS = 300_000
"""Largest number of tensors of a folder; mixtures of 384 experts in 62 layers, with codes and scales, have 214,000."""


class ModelDescription(BaseModel):
    """Facts of a language model, read from its folder.

    `parameters` counts tied weights once. `bytes` is the size of its weights and `dtype` their dtype, dequantised where
    they are quantised. `structure` is None where an earlier version made the description. `layout` is 'per_layer' where
    config.json describes each layer. `discovered` is the architecture where it is not declared.
    `other_module_parameters` counts the parameters of modules outside the language model, which text does not run
    through. `vocabulary` are the tensors with an entry for each token, a tied head left out; None where an earlier
    version made the description.
    """

    task: Literal["language-model"] = "language-model"
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int
    bytes: int
    dtype: str
    layers: int
    hidden_size: int
    vocabulary_size: int
    context_length: int
    tied_embeddings: bool
    linears: list[LinearShape]
    structure: ModelStructure | None = None
    layout: Layout = "uniform"
    other_module_parameters: int = Field(default=0, exclude_if=lambda parameters: not parameters)
    vocabulary: list[VocabularyTable] | None = None
    discovered: Architecture | None = Field(default=None, exclude_if=lambda discovered: discovered is None)

    @property
    def outer_bytes(self) -> int:
        """Return the stored size of the weights outside all blocks: embeddings, final norm and head."""
        outer = self.parameters - self.prunable_parameters - self.other_module_parameters
        return max(outer, 0) * WEIGHT_BYTES[self.dtype]

    @property
    def known_as(self) -> Architecture:
        """Return the architecture: the discovered one, else the declared one."""
        return self.discovered or LANGUAGE_ARCHITECTURES[self.architecture]

    @property
    def model_task(self) -> ModelTask:
        return MODEL_TASKS[self.task]

    @property
    def language_model(self) -> Self:
        """Return the description itself, typed as a language model's."""
        return self

    @property
    def classifier(self) -> NoReturn:
        raise UnsupportedArchitecture(f"{self.architecture} is not an image classifier", param="model")

    def tables_in(self, dtype: str) -> dict[str, list[VocabularyTable]]:
        """Return the field `vocabulary` with all parameters in a dtype; empty where an earlier version lacks it."""
        return {} if self.vocabulary is None else {"vocabulary": [each.in_dtype(dtype) for each in self.vocabulary]}

    @property
    def has_experts(self) -> bool:
        return self.known_as.experts is not None

    @property
    def named_linears(self) -> str:
        """Return the names of one block's layers for an error message."""
        return f"layer 0 has {', '.join(each.name for each in self.linears if each.layer == 0)}"

    def refusal(self, offer: str) -> str | None:
        """Return the reason why the architecture does not support an offer; None where it does."""
        return self.known_as.refused.get(offer)


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


def inspect_folder(
    folder: Path, *, own_artifact: bool = False, discovered: Architecture | None = None
) -> ModelDescription:
    """Describe a language model's folder from its config and headers; raises UnusableModel or UnsupportedArchitecture.

    `own_artifact` and `discovered` are as in `read_config`; a declared architecture comes before `discovered`.
    """
    config = read_config(folder, own_artifact=own_artifact, discovered=discovered)
    architectures = config.get("architectures")
    names = [str(each) for each in architectures] if isinstance(architectures, list) else []
    per_layer = per_layer_architecture(config, discovered)
    is_ours = per_layer is not None and names == [class_name(per_layer)]
    family = per_layer if per_layer is not None and is_ours else architecture_for(names, discovered)
    layout: Layout = "uniform" if per_layer is None else "per_layer"
    return describe_language_model(config, read_tensors(folder, family, quantisation_of(config)), family, layout)


def describe_language_model(
    config: dict[str, Any], tensors: dict[str, TensorEntry], family: Architecture, layout: Layout = "uniform"
) -> ModelDescription:
    """Describe a model of a known architecture from its config and its tensors by their names in the model.

    Raises UnusableModel kinds.
    """
    if config.get("model_type") != family.model_type:
        raise UnusableModel(
            f"config.json has model_type {str(config.get('model_type'))[:100]!r}, but {family.architecture} needs "
            f"{family.model_type!r}",
            param="model",
        )
    check_sizes(config, tensors)
    present = _block_parameters(family, tensors)
    is_implied = family.discovered_by is not None and family.config_value(config, "num_hidden_layers") is None
    layers = len(present) if is_implied else _positive_integer(family, config, "num_hidden_layers")
    if present.keys() != set(range(min(layers, len(present) + 1))):
        raise MissingTensors(
            f"config.json says {layers} layers, but the files have {len(present)} of them", param="model"
        )
    linears = [
        linear
        for layer in range(layers)
        for linear in (
            *(_linear(family, tensors, layer, name) for name in family.linears_of(present[layer])),
            *expert_shapes(family, tensors, layer),
        )
    ]
    head = f"{family.head}.weight"
    tied = bool(config.get("tie_word_embeddings", family.tied_by_default))
    if family.discovered_by is not None:  # not all classes heed the setting: the model is untied if it has a head
        tied = tied and head not in tensors
    if not tied and head not in tensors:
        raise MissingTensors(
            f"the files lack {head}, and by the config it is not shared with the embeddings", param="model"
        )
    counted = {name: entry for name, entry in tensors.items() if not (tied and name == head)}
    dtypes: dict[str, int] = {}
    for entry in counted.values():
        dtypes[entry.dtype] = dtypes.get(entry.dtype, 0) + entry.numel
    dtype = max(dtypes, key=lambda each: dtypes[each])
    if dtype not in WEIGHT_DTYPES:
        raise UnusableModel(f"weights are stored as {dtype}; float32, float16 or bfloat16 is needed", param="model")
    tokens = _positive_integer(family, config, VOCABULARY_KEY)
    return ModelDescription(
        family=family.title,
        architecture=family.architecture,
        parameters=sum(entry.numel for entry in counted.values() if entry.dtype in WEIGHT_DTYPES),
        prunable_parameters=sum(linear.numel for linear in linears),
        bytes=sum(entry.nbytes for entry in counted.values()),
        dtype=WEIGHT_DTYPES[dtype],
        layers=layers,
        hidden_size=_positive_integer(family, config, "hidden_size"),
        vocabulary_size=tokens,
        context_length=_positive_integer(family, config, "max_position_embeddings"),
        tied_embeddings=tied,
        linears=linears,
        structure=read_structure(family, config, tensors, layers),
        layout=layout,
        other_module_parameters=sum(
            entry.numel
            for name, entry in counted.items()
            if family.is_of_other_module(name) and entry.dtype in WEIGHT_DTYPES
        ),
        vocabulary=list(vocabulary_tables(family, counted, tokens)),
        discovered=None if family.discovered_by is None else family,
    )


def _block_parameters(family: Architecture, tensors: dict[str, TensorEntry]) -> dict[int, set[str]]:
    """Return the names of each block's tensors within the block; raises MissingTensors for a block of no known kind."""
    numbered = re.compile(re.escape(family.blocks) + r"\.([0-9]{1,6})\.")
    blocks: dict[int, set[str]] = {}
    for name in tensors:
        if match := numbered.match(name):
            blocks.setdefault(int(match[1]), set()).add(name[match.end() :])
    kinds = [set(kind) for kind in family.block_kinds]
    known = set().union(*kinds)
    for layer, names in sorted(blocks.items()):
        if kinds and names & known not in kinds:
            nearest = min(kinds, key=lambda kind: len(kind ^ (names & known)))
            differing = ", ".join(sorted(nearest ^ (names & known))[:5])
            raise MissingTensors(
                f"the tensors of layer {layer} are not those of a block of {family.title}: they lack, or have too "
                f"many, {differing}",
                param="model",
            )
    return blocks


def _positive_integer(family: Architecture, config: dict[str, Any], setting: str) -> int:
    value = family.config_value(config, setting)
    if type(value) is int and 0 < value < 2**31:
        return value
    raise UnusableModel(f"config.json lacks {setting!r} as a whole number above 0, below 2³¹", param="model")


def _linear(family: Architecture, tensors: dict[str, TensorEntry], layer: int, name: str) -> LinearShape:
    full = f"{family.blocks}.{layer}.{name}"
    entry = tensors.get(f"{full}.weight")
    if entry is None:
        raise MissingTensors(f"the files lack {full}.weight", param="model")
    if len(entry.shape) != 2 or 0 in entry.shape:
        raise CorruptSafetensors(
            f"{full}.weight has shape {list(entry.shape)}, two dimensions are needed", param="model"
        )
    rows, columns = reversed(entry.shape) if family.transposed else entry.shape
    return LinearShape(name=full, layer=layer, out_features=rows, in_features=columns)


def require_structure(description: ModelDescription) -> ModelStructure:
    """Return the removable groups of the model; raises UnusableModel where an earlier version made its description."""
    if description.structure is None:
        raise UnusableModel(
            "the model was registered by an older version: register it again under another name",
            param="model",
        )
    return description.structure


def read_structure(
    family: Architecture, config: Mapping[str, Any], tensors: Mapping[str, TensorEntry], layers: int
) -> ModelStructure:
    """Return the removable units of every layer; raises UnusableModel where config and tensors do not agree."""
    blocks = _blocks(family, tensors, layers)
    common = part_of(config, family.config_path)
    own = layer_settings(config) or [{}] * layers
    configs = [with_part(config, family.config_path, {**common, **each}) for each in own]
    facts = [kind.read(family, blocks, configs) for kind in BLOCK_KINDS]
    of_model = {name: value for each in facts for name, value in each.of_model.items()}
    shapes = []
    for layer, block in enumerate(blocks):
        sizes = {name: size for each in facts for name, size in each.sizes[layer].items()}
        parameters = sum(entry.numel for entry in block.values())
        shapes.append(LayerShape.model_validate({"parameters": parameters, **sizes}))
    return ModelStructure.model_validate({"layers": shapes, **of_model})


def _blocks(family: Architecture, tensors: Mapping[str, TensorEntry], layers: int) -> list[Block]:
    """Return the weights of each block by their names within it, in one pass over the tensors."""
    blocks: dict[str, dict[str, TensorEntry]] = {str(layer): {} for layer in range(layers)}
    prefix = f"{family.blocks}."
    for name, entry in tensors.items():
        layer, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and layer in blocks and entry.dtype in WEIGHT_DTYPES:
            blocks[layer][rest] = entry
    return list(blocks.values())
