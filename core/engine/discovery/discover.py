"""Discovery of an architecture: the facts that the engine needs, from config.json and the headers of its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import transformers
from transformers import PretrainedConfig, PreTrainedModel

from core.engine.architectures.architecture import Architecture, Experts, Sublayer
from core.engine.architectures.config import check_extent, check_sizes, part_of
from core.engine.architectures.description import DISCOVERY_VERSION
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.discovery.blocks import Blocks, Replay, find_blocks, modules_not_run
from core.engine.discovery.build import build_random, build_traceable
from core.engine.discovery.config_facts import (
    config_defaults,
    config_keys,
    is_tied_by_default,
    reason_to_keep_layers,
    settings_of_biases,
)
from core.engine.discovery.configuration import (
    Settings,
    causal_class,
    language_part,
    language_path,
    open_config,
    read_settings,
    text_config,
)
from core.engine.discovery.execution import EXPERT, ROUTER, STACKED, Execution, TracedSublayer, trace
from core.engine.discovery.experts import UnknownExperts, check_stacks, discover_experts, with_routing
from core.engine.discovery.hypotheses import with_layers_key, with_units
from core.engine.discovery.names import (
    StoredLayers,
    StoredNames,
    check_shapes,
    pieced_patterns,
    renamed,
    stored_layers,
    stored_names,
)
from core.engine.discovery.readers import CHANNELS, HEADS
from core.engine.discovery.resizing import lists_by_layer, narrowed, shortened
from secateur_wire.errors import SecateurError, UnsupportedArchitecture

_MOST_SMALL = 100_000_000
"""Largest number of parameters of a small copy."""


@dataclass(frozen=True)
class _TracedModel:
    """Model that was built and run without weights, with the result of its trace."""

    settings: Settings
    model: PreTrainedModel
    stored: StoredNames
    blocks: Blocks
    execution: Execution
    not_run: tuple[str, ...]


def discover(config_json: Settings, tensors: Mapping[str, TensorEntry]) -> Architecture:
    """Return the architecture of a model; raises UnsupportedArchitecture or UnusableModel with the reason."""
    return with_units(*discover_with_copy(config_json, tensors))


def discover_with_copy(
    config_json: Settings, tensors: Mapping[str, TensorEntry]
) -> tuple[Architecture, Settings, Settings]:
    """Return the architecture of a model without its units, the settings of a small copy, and those of its own widths.

    Raises as `discover` does.
    """
    check_extent(config_json)
    check_sizes(config_json, tensors)
    settings = read_settings(config_json)
    config = open_config(settings)
    name = causal_class(config).__name__
    path, language = language_path(config), language_part(config)
    own_settings = part_of(settings, path)
    traced = _traced_model(settings, tensors)
    small_settings, small = _small_copy(traced)
    depends_on = Replay(small, traced.blocks).arguments_depend_on()
    if depends_on is None:
        raise UnsupportedArchitecture(
            f"{config.model_type}: the model's outputs (logits) differ when its blocks run one by one, because "
            "blocks use values from inside other blocks",
            param="model",
        )
    blocks, execution = traced.blocks, traced.execution
    transposed = frozenset(chain.from_iterable(each.transposed for each in execution.blocks))
    groups = merged_groups([each.groups for each in execution.blocks])
    if not groups or len(transposed) > 1:
        why = "no linear layers that can be pruned" if not groups else "linear layers stored either way"
        raise UnsupportedArchitecture(f"{config.model_type}: its blocks have {why}", param="model")
    kinds = _block_kinds(traced)
    left_alone = dict(chain.from_iterable(each.left_alone.items() for each in execution.blocks))
    experts = _experts(traced, left_alone, small)
    if isinstance(experts, Experts):
        stacks = {experts.parameter(each) for each in experts.matrices}
        left_alone = {name: reason for name, reason in left_alone.items() if name not in stacks}
    architecture = Architecture(
        model_type=config.model_type,
        architecture=name,
        title=_title(name),
        base=blocks.base,
        blocks=blocks.name,
        head=blocks.head,
        sublayers=_with_biases(
            merged_sublayers([each.sublayers for each in execution.blocks]),
            settings_of_biases(small, small_settings, blocks.name),
        ),
        inputs=groups,
        config_keys=config_keys(language),
        config_defaults={**_width_of_blocks(traced), **config_defaults(language, own_settings)},
        tied_by_default=is_tied_by_default(config, path),
        transposed=transposed == {True},
        lists_by_layer=tuple(
            dict.fromkeys(("layer_types", *sorted(lists_by_layer(settings, _stored_layers(config, tensors).count))))
        ),
        block_kinds=kinds if len(kinds) > 1 else (),
        arguments=depends_on,
        block_outputs=blocks.outputs,
        refused=_refused(traced, experts, small, small_settings),
        left_alone=left_alone,
        experts=experts if isinstance(experts, Experts) else None,
        discovered_by=f"{DISCOVERY_VERSION}/{transformers.__version__}",
        config_path=path,
        other_modules=traced.not_run,
    )
    architecture = replace(
        architecture,
        renamed=renamed(traced.stored, architecture),
        pieced=pieced_patterns(traced.stored, architecture),
    )
    check_stacks(traced.model, architecture, tensors)
    architecture = with_routing(architecture, small, small_settings)
    return with_layers_key(architecture, small_settings), small_settings, traced.settings


def _traced_model(settings: Settings, tensors: Mapping[str, TensorEntry]) -> _TracedModel:
    """Build and trace a model with as few layers as cover all kinds in the files; all layers if the first do not."""
    layers = _stored_layers(open_config(settings), tensors)
    if layers.covering < layers.count:
        try:
            return _run(shortened(settings, layers.count, layers.covering), tensors)
        except SecateurError:  # some configs count layers from the end
            return _run(settings, tensors)
    return _run(settings, tensors)


def _stored_layers(config: PretrainedConfig, tensors: Mapping[str, TensorEntry]) -> StoredLayers:
    text = text_config(config).to_dict()
    count = getattr(language_part(config), "num_hidden_layers", None) if language_path(config) else None
    return stored_layers(tensors, [value for value in text.values() if isinstance(value, list)], count)


def _run(settings: Settings, tensors: Mapping[str, TensorEntry]) -> _TracedModel:
    model = build_traceable(open_config(settings))
    blocks = find_blocks(model)
    stored = stored_names(model, tensors)
    _check_weights_of_blocks(model, blocks)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    check_shapes(model, stored, tensors, {f"{blocks.head}.weight"} if tied else set())
    not_run = modules_not_run(model) if language_path(model.config) else ()
    traced = _TracedModel(settings, model, stored, blocks, trace(model, blocks), not_run)
    _check_stored(traced)
    return traced


def _check_weights_of_blocks(model: PreTrainedModel, blocks: Blocks) -> None:
    """Require each block to have its own weights."""
    owners: dict[int, str] = {}
    for name, parameter in model.get_submodule(blocks.name).named_parameters(remove_duplicate=False):
        owner = owners.setdefault(id(parameter), name)
        if owner.partition(".")[0] != name.partition(".")[0]:
            raise UnsupportedArchitecture(
                f"{model.config.model_type}: blocks share weights, as {owner} and {name}", param="model"
            )


def _check_stored(traced: _TracedModel) -> None:
    """Require prunable linear layers to be stored without conversion."""
    for name, key in traced.stored.merged.items():
        _, _, inner = name.removeprefix(f"{traced.blocks.name}.").partition(".")
        if any(
            f"{layer}.weight" == inner for each in traced.execution.blocks for group in each.groups for layer in group
        ):
            raise UnsupportedArchitecture(
                f"{traced.model.config.model_type}: {name} is not stored itself, but computed from other tensors, "
                f"such as {key[:200]}",
                param="model",
            )


def _small_copy(traced: _TracedModel) -> tuple[Settings, PreTrainedModel]:
    """Return settings and a random model with the same blocks, narrow if possible; raises where none is small."""
    reason = "it stays too large"
    kinds = [each.parameters for each in traced.execution.blocks]
    for settings in narrowed(traced.settings):
        try:
            traceable = build_traceable(open_config(settings))
            blocks = find_blocks(traceable)
            if sum(each.numel() for each in traceable.parameters()) > _MOST_SMALL or blocks != traced.blocks:
                continue
            if [each.parameters for each in trace(traceable, blocks).blocks] == kinds:
                return settings, build_random(open_config(settings))
        except SecateurError as error:
            reason = str(error)
    raise UnsupportedArchitecture(
        f"{traced.model.config.model_type}: no small copy of the model can be made for a check: {reason}",
        param="model",
    )


def _experts(traced: _TracedModel, left_alone: Mapping[str, str], small: PreTrainedModel) -> Experts | str | None:
    """Return the experts of a model's blocks, or the reason why they cannot be pruned; None where it has none."""
    if not any(reason in (ROUTER, EXPERT, STACKED) for reason in left_alone.values()):
        return None
    try:
        experts = discover_experts(small, traced.blocks.name, left_alone)
    except UnknownExperts as reason:
        return f"its experts are not pruned: {reason}"
    stacks = {experts.parameter(each) for each in experts.matrices}
    for name, key in traced.stored.merged.items():
        layer, _, inner = name.removeprefix(f"{traced.blocks.name}.").partition(".")
        if layer.isdecimal() and inner not in stacks:
            return f"{name} is not stored itself, but computed from other tensors, such as {key[:200]}"
    return experts


def _refused(
    traced: _TracedModel, experts: Experts | str | None, small: PreTrainedModel, settings: Settings
) -> dict[str, str]:
    refused: dict[str, str] = {}
    if isinstance(experts, str):
        refused |= dict.fromkeys(("experts", CHANNELS, HEADS), experts)
    layers = reason_to_keep_layers(small, settings, traced.blocks.name)
    if layers is not None:
        refused["layers"] = layers
    if traced.execution.shared:
        first, second = min(traced.execution.shared)
        shared = f"block {second} reads a value from inside block {first}"
        refused |= {"layers": shared, "resume": shared}
    return refused


def _block_kinds(traced: _TracedModel) -> tuple[tuple[str, ...], ...]:
    """Return the distinct blocks by the names of their parameters, without those merged from several tensors."""
    kinds = []
    for index, block in enumerate(traced.execution.blocks):
        prefix = f"{traced.blocks.name}.{index}."
        kinds.append(tuple(name for name in block.parameters if f"{prefix}{name}" not in traced.stored.merged))
    return tuple(dict.fromkeys(kinds))


def _with_biases(sublayers: tuple[Sublayer, ...], effects: Mapping[str, frozenset[str]]) -> tuple[Sublayer, ...]:
    return tuple(
        replace(each, bias=next((name for name, layers in effects.items() if each.output in layers), None))
        for each in sublayers
    )


def _title(class_name: str) -> str:
    for end in ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "WithLMHead", "LMHead"):
        class_name = class_name.removesuffix(end)
    return class_name


def _width_of_blocks(traced: _TracedModel) -> dict[str, int]:
    """Return the width of blocks' outputs, for a config without its own setting for it."""
    config = language_part(traced.model.config)
    if type(config.to_dict().get(config.attribute_map.get("hidden_size", "hidden_size"))) is int:
        return {}
    output = traced.execution.blocks[0].sublayers[0].outputs[-1]
    weight = traced.model.get_submodule(f"{traced.blocks.name}.0").get_parameter(f"{output}.weight")
    return {"hidden_size": weight.shape[int(traced.execution.blocks[0].transposed == {True})]}


Groups = tuple[tuple[str, ...], ...]


def merged_groups(kinds: Sequence[Groups]) -> Groups:
    """Return groups of layers that read one tensor, in order, merged over all kinds of blocks.

    Two layers are in one group if they are in one group in every kind of block that has both. The order of execution is
    kept as far as the kinds agree on it.
    """
    order = _in_order([list(chain.from_iterable(groups)) for groups in kinds])
    together = [{name: group for group in groups for name in group} for groups in kinds]
    merged: list[list[str]] = []
    for name in order:
        fitting = (group for group in merged if all(_are_together(name, other, together) for other in group))
        group = next(fitting, None)
        if group is None:
            merged.append([name])
        else:
            group.append(name)
    return tuple(map(tuple, merged))


def merged_sublayers(kinds: Sequence[Sequence[TracedSublayer]]) -> tuple[Sublayer, ...]:
    """Return the sublayers of all kinds of blocks, in order; sublayers with the same output are merged."""
    order = _in_order([[each.outputs[-1] for each in sublayers] for sublayers in kinds])
    by_output: dict[str, list[TracedSublayer]] = {}
    for each in chain.from_iterable(kinds):
        by_output.setdefault(each.outputs[-1], []).append(each)
    return tuple(_sublayer(output, by_output[output]) for output in order)


def _sublayer(output: str, alike: Sequence[TracedSublayer]) -> Sublayer:
    groups = merged_groups([each.groups for each in alike])
    before = tuple(tuple(name for name in group if name != output) for group in groups)
    norms = {each.norm for each in alike}
    return Sublayer(
        (*filter(None, before), (output,)),
        {HEADS: ()} if any(each.attends for each in alike) else {},
        norm=norms.pop() if len(norms) == 1 else None,
    )


def _are_together(one: str, other: str, kinds: Sequence[dict[str, tuple[str, ...]]]) -> bool:
    """Return True if two layers read one tensor in all kinds of blocks that have both, and at least one has both."""
    both = [kind for kind in kinds if one in kind and other in kind]
    return bool(both) and all(other in kind[one] for kind in both)


def _in_order(sequences: Sequence[Sequence[str]]) -> list[str]:
    """Return all names of several sequences; a name only in a later one comes after its predecessor there."""
    order: list[str] = []
    for sequence in sequences:
        place = 0
        for name in sequence:
            if name in order:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order
