"""Descriptions of model folders. The architecture tells a language model from an image classifier."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture, ClassifierArchitecture
from core.engine.architectures.config import check_sizes, part_of, with_part
from core.engine.architectures.declared import (
    CLASSIFIER_ARCHITECTURES,
    architecture_for,
    declared_architecture,
)
from core.engine.architectures.description import (
    SHAPES_KEY,
    ClassifierDescription,
    Description,
    ModelDescription,
    Source,
    UndiscoveredModel,
)
from core.engine.architectures.folder import by_name, read_config, read_tensors, stored_tensors
from core.engine.architectures.heterogeneous import (
    class_name,
    layer_settings,
    per_layer_architecture,
)
from core.engine.architectures.structure import LayerShape, LinearShape, ModelStructure, VocabularyTable
from core.engine.architectures.units import BLOCK_KINDS, Block
from core.engine.checkpoints.quantisation import (
    QUANTISATION_KEY,
    plain_config,
    quantisation_of,
)
from core.engine.checkpoints.safetensors_header import (
    WEIGHT_DTYPES,
    TensorEntry,
)
from secateur_wire.errors import CorruptSafetensors, MissingTensors, UnusableModel
from secateur_wire.job_body import Layout
from secateur_wire.models import ImageShape


def describe_folder(folder: Path, *, own_artifact: bool = False, discovered: Architecture | None = None) -> Description:
    """Describe a model folder from its config and headers; raises UnusableModel kinds or UnsupportedArchitecture.

    `own_artifact` and `discovered` are as in `read_config`.
    """
    config = read_config(folder, own_artifact=own_artifact, discovered=discovered)
    named = config.get("architectures")
    for architecture in named if isinstance(named, list) else []:
        if isinstance(architecture, str) and architecture in CLASSIFIER_ARCHITECTURES:
            if quantisation_of(config) is not None:
                raise UnusableModel(
                    f"config.json holds {QUANTISATION_KEY!r}: the weights of image classifiers are not dequantised; "
                    "provide float16, bfloat16 or float32 weights",
                    param="model",
                )
            family = CLASSIFIER_ARCHITECTURES[architecture]
            return describe_classifier(config, family, read_tensors(folder, family))
    return inspect_folder(folder, own_artifact=own_artifact, discovered=discovered)


def describe_source(folder: Path) -> Source:
    """Describe a folder as `describe_folder` does; where the architecture is not declared, from the headers alone.

    Raises UnusableModel kinds, and UnsupportedArchitecture where config.json names no architecture.
    """
    config = read_config(folder)
    named, model_type = config.get("architectures"), config.get("model_type")
    names = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    if (
        not names
        or not isinstance(model_type, str)
        or any(each in CLASSIFIER_ARCHITECTURES or declared_architecture(each, model_type) for each in names)
    ):
        return describe_folder(folder)
    tensors = stored_tensors(folder, quantisation_of(config))
    check_sizes(config, tensors)
    for name in tensors:
        if not name.isprintable():
            raise CorruptSafetensors(f"tensor {ascii(name)[:200]} has a name that is no text", param="model")
    layers = config.get("num_hidden_layers")
    return UndiscoveredModel.of(
        plain_config(config),
        {name: (entry.dtype, entry.shape) for name, entry in tensors.items()},
        family=model_type[:100],
        architecture=names[0][:100],
        parameters=sum(entry.numel for entry in tensors.values() if entry.dtype in WEIGHT_DTYPES),
        bytes=sum(entry.nbytes for entry in tensors.values()),
        dtype=_stored_dtype(tensors),
        layers=layers if type(layers) is int and 0 < layers < 2**31 else 0,
    )


def describe_discovered(model: UndiscoveredModel, architecture: Architecture) -> ModelDescription:
    """Return a model's description under the architecture that was discovered; raises UnusableModel kinds."""
    return describe_language_model(model.config, by_name(model.entries(), architecture), architecture)


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
    _require_type(config, family)
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


def _require_type(config: Mapping[str, Any], family: Architecture | ClassifierArchitecture) -> None:
    if config.get("model_type") != family.model_type:
        raise UnusableModel(
            f"config.json has model_type {str(config.get('model_type'))[:100]!r}, but {family.architecture} needs "
            f"{family.model_type!r}",
            param="model",
        )


def _stored_dtype(tensors: Mapping[str, TensorEntry]) -> str:
    """Return the dtype of floats of which the files hold most; raises UnusableModel where they hold none."""
    stored = Counter[str]()
    for entry in tensors.values():
        if entry.dtype in WEIGHT_DTYPES:
            stored[entry.dtype] += entry.numel
    if not stored:
        raise UnusableModel("weights are not stored as floats; float32, float16 or bfloat16 is needed", param="model")
    return WEIGHT_DTYPES[stored.most_common(1)[0][0]]


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


def vocabulary_tables(
    family: Architecture, tensors: Mapping[str, TensorEntry], tokens: int
) -> Iterator[VocabularyTable]:
    """Yield the tables among the tensors, which are given by their names in the model, of a model with these tokens."""
    for name, entry in tensors.items():
        dimension = family.vocabulary_dimension(name)
        if dimension is not None and dimension < len(entry.shape) and entry.numel:
            rows = entry.shape[dimension]
            yield VocabularyTable(
                tokens=min(rows, tokens),
                parameters=entry.numel // rows if entry.dtype in WEIGHT_DTYPES else 0,
                bytes=entry.nbytes // rows,
                others=max(rows - tokens, 0),
            )


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


def describe_classifier(
    config: dict[str, Any], family: ClassifierArchitecture, tensors: dict[str, TensorEntry]
) -> ClassifierDescription:
    """Return the description of a classifier from its config.json and headers; raises UnusableModel kinds."""
    _require_type(config, family)
    linears = [
        LinearShape(
            name=name.removesuffix(".weight"),
            layer=0,
            out_features=entry.shape[0],
            in_features=math.prod(entry.shape[1:]),
            kernel=math.prod(entry.shape[2:]),
        )
        for name, entry in sorted(tensors.items(), key=lambda pair: _natural_sort_key(pair[0]))
        if name.endswith(".weight") and len(entry.shape) in (2, 4)
    ]
    for number, linear in enumerate(linears):
        if not linear.numel:
            raise CorruptSafetensors(f"{linear.name}.weight holds nothing", param="model")
        linears[number] = linear.model_copy(update={"layer": number})
    if not linears:
        raise MissingTensors("the files have no weight of a convolution or linear layer", param="model")
    labels = _labels(config)
    head = tensors.get(f"{family.head}.weight")
    if head is not None and head.shape[0] != len(labels):
        raise UnusableModel(
            f"config.json names {len(labels)} labels, but the classifier's head {family.head} has {head.shape[0]} "
            "outputs",
            param="model",
        )
    return ClassifierDescription(
        family=family.title,
        architecture=family.architecture,
        parameters=sum(
            entry.numel
            for name, entry in tensors.items()
            if entry.dtype in WEIGHT_DTYPES and not name.endswith((".running_mean", ".running_var"))
        ),
        prunable_parameters=sum(linear.numel for linear in linears),
        bytes=sum(entry.end - entry.start for entry in tensors.values()),
        dtype=_stored_dtype(tensors),
        layers=len(linears),
        linears=linears,
        classes=len(labels),
        labels=labels,
        image=_image(config),
        reshaped=SHAPES_KEY in config,
    )


def _natural_sort_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts layer 10 after layer 9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]


def _labels(config: dict[str, Any]) -> list[str]:
    """Return the names of the classes, in order."""
    named = config.get("id2label")
    if isinstance(named, dict) and named:
        try:
            by_number = {int(number): str(label) for number, label in named.items()}
        except ValueError:
            by_number = {}
        if sorted(by_number) == list(range(len(named))):
            return [by_number[number] for number in range(len(named))]
        raise UnusableModel("config.json: the keys of id2label are not 0, 1, 2, …", param="model")
    listed = config.get("label_names")
    if isinstance(listed, list) and listed:
        return [str(label) for label in listed]
    number = next((config[key] for key in ("num_labels", "num_classes") if type(config.get(key)) is int), 2)
    if not 0 < number < 10**6:
        raise UnusableModel(f"config.json names {number} classes", param="model")
    return [f"LABEL_{each}" for each in range(number)]


def _image(config: dict[str, Any]) -> ImageShape:
    """Return the image shape from the config's own keys, or from timm's record of the training images."""
    trained = config.get("pretrained_cfg")
    trained_on = trained.get("input_size") if isinstance(trained, dict) else None
    channels, height, width = trained_on if _is_sizes(trained_on, 3) else (3, None, None)
    arguments = config.get("model_args")
    for own in (config.get("num_channels"), arguments.get("in_chans") if isinstance(arguments, dict) else None):
        if type(own) is int and own > 0:
            channels = own
    size = config.get("image_size")
    if type(size) is int and size > 0:
        height = width = size
    elif _is_sizes(size, 2):
        height, width = size
    return ImageShape(channels=channels, height=height, width=width)


def _is_sizes(value: Any, count: int) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == count and all(type(each) is int and each > 0 for each in value)
