"""Self-test of an architecture on a tiny model: each offered removal is done once, saved, reopened and compared.

A model without some units must give the logits of the dense one with these units zeroed. A model without a layer must
give those of the dense one that skips the layer.
"""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.units import EXPERT_UNITS, UnitKind, removed_kinds
from core.engine.discovery.blocks import run_model, sample_tokens
from core.engine.discovery.build import build_random
from core.engine.discovery.configuration import Settings, open_config
from core.engine.discovery.differential import Differential, one_line
from core.engine.discovery.hypotheses import hypotheses
from core.engine.discovery.readers import CHANNELS, HEADS, UNIFORM
from core.engine.evaluation.reload_check import difference_beyond
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.experts import stored_tensors
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.hooks import removed_after
from core.engine.models.loading import load_model
from core.engine.models.streamed import StreamedModel, call_block
from core.engine.models.tensors import write_tensors
from core.engine.pruning.units.removal import KeptUnits, UnitSet, layer_unit_sets, remove_units
from core.engine.pruning.units.removal_config import config_after_removal
from core.engine.pruning.units.unit_slices import StackSlice, UnitSlice

WEIGHTS: Final = "weights"
LAYERS: Final = "layers"
PER_LAYER: Final = "per_layer"
EXPERTS: Final = "experts"
_LENGTHS: Final = (7, 12)
_MIXTURE_LENGTHS: Final = (5, 6, 12, 24)
"""Lengths of sequences for mixtures, whose router may be silently wrong at some lengths only."""
_TOLERANCE: Final = 1e-4
_CPU: Final = torch.device("cpu")


def self_tested(architecture: Architecture, small: Settings, real: Settings) -> Architecture:
    """Return the architecture with the units that can be removed, and a refusal of everything that fails.

    All is tried on a small copy with the settings `small`. Of several hypotheses about units the first that holds is
    taken.
    """
    with TemporaryDirectory() as place:
        folder, work = Path(place, "model"), Path(place, "work")
        work.mkdir()
        build_random(open_config(small)).save_pretrained(folder)
        try:
            architecture = _with_tested_units(architecture, folder, work, Differential(small), Differential(real))
        except Exception as error:  # the code of any model may fail in any way
            reason = f"a small copy of it cannot be pruned: {type(error).__name__}: {one_line(error)}"
            architecture = _refusing_all(architecture, reason)
    return architecture


def _refusing_all(architecture: Architecture, reason: str) -> Architecture:
    """Return an architecture that offers nothing: every removal depends on blocks that run one by one."""
    failed = dict.fromkeys((WEIGHTS, CHANNELS, HEADS, LAYERS), reason)
    experts = architecture.experts
    return replace(
        architecture,
        refused={**failed, **architecture.refused},
        experts=None if experts is None else experts.without_routing(reason),
    )


def _with_tested_units(
    architecture: Architecture, folder: Path, work: Path, small: Differential, real: Differential
) -> Architecture:
    if (reason := _failure(folder, architecture)) is not None:
        return _refusing_all(architecture, reason)
    as_small = architecture
    for kind in (CHANNELS, HEADS):
        reason = None
        for each in hypotheses(kind, architecture, small, real):
            if isinstance(each, str):
                reason = each
                continue
            if (why := architecture.refused.get(UNIFORM)) is not None:
                reason = f"layers get as narrow by their modelling file, which leaves heads as they are: {why}"
                break
            tried = each.applied(as_small, is_small=True)
            failed = _failed_units(folder, tried, kind, work)
            reason = failed.pop(kind, None)
            if reason is None:
                as_small = replace(tried, refused={**tried.refused, **failed})
                architecture = each.applied(architecture)
                architecture = replace(architecture, refused={**architecture.refused, **failed})
                break
        if reason is not None:
            as_small = replace(as_small, refused={**as_small.refused, kind: reason})
            architecture = replace(architecture, refused={**architecture.refused, kind: reason})
    failed = _failed_parts(folder, as_small, work)
    required: tuple[str, ...] = ()
    if LAYERS not in failed and LAYERS not in as_small.refused:
        required = required_outputs(folder, as_small, work)
    experts, reason = architecture.experts, failed.pop(EXPERTS, None) or _reason_to_keep_experts(folder, as_small, work)
    return replace(
        architecture,
        refused={**failed, **architecture.refused},
        required=required,
        experts=experts if experts is None or reason is None else experts.without_routing(reason),
    )


def _reason_to_keep_experts(folder: Path, architecture: Architecture, work: Path) -> str | None:
    opened, dense = _opened(folder, architecture)
    return reason_to_keep_experts(opened, dense, lambda kept: _reloaded(opened, [EXPERT_UNITS], kept, work))


def _opened(folder: Path, architecture: Architecture) -> tuple[ModelFolder, PreTrainedModel]:
    opened = open_model(folder, discovered=architecture)
    return opened, load_model(opened, _CPU, dtype=torch.float32)


def failed_cuts(folder: Path, architecture: Architecture, work: Path) -> dict[str, str]:
    """Return the offers of an architecture that fail, each with the reason; empty where all work.

    `folder` holds a tiny random model of it, `work` is an empty folder.
    """
    if (reason := _failure(folder, architecture)) is not None:
        return {WEIGHTS: reason}
    failed: dict[str, str] = {}
    for kind in (CHANNELS, HEADS):
        if kind not in architecture.refused and architecture.axes(kind):
            failed |= _failed_units(folder, architecture, kind, work)
    return failed | _failed_parts(folder, architecture, work)


def _failure(folder: Path, architecture: Architecture) -> str | None:
    """Return why nothing can be removed from a tiny model; None where it generates and its blocks run one by one."""
    opened, dense = _opened(folder, architecture)
    if (reason := _failure_to_generate(dense)) is not None:
        return f"it does not generate text with its own cache in the library before anything is removed: {reason}"
    return None if WEIGHTS in architecture.refused else _streamed_difference(opened, dense)


def _failed_units(folder: Path, architecture: Architecture, name: str, work: Path) -> dict[str, str]:
    """Return the reason why units of a kind cannot be removed, or not from each layer a number of its own."""
    failed: dict[str, str] = {}
    try:
        opened, dense = _opened(folder, architecture)
        removed = [kind for mode in ("kv_groups", "query_heads") for kind in removed_kinds(mode) if kind.name == name]
        for kind in dict.fromkeys(removed):
            for is_uniform in (True, False):
                kept = _random_units(opened, kind, is_uniform)
                what = name if is_uniform or UNIFORM in architecture.refused else PER_LAYER
                if kept is None or {what, name} & failed.keys() or what in architecture.refused:
                    continue
                if (reason := _difference(opened, dense, [kind], kept, work)) is not None:
                    failed[what] = reason
    except Exception as error:  # a wrong hypothesis may contradict the shapes in any way
        failed[name] = f"{type(error).__name__}: {one_line(error)}"
    return failed


def _failed_parts(folder: Path, architecture: Architecture, work: Path) -> dict[str, str]:
    """Return the reasons why experts cannot be pruned, or layers cannot be removed."""
    opened, dense = _opened(folder, architecture)
    structure = opened.description.structure
    assert structure is not None
    failed: dict[str, str] = {}
    if architecture.experts is not None:  # files store stacks expert by expert, so both directions are tested
        everything = KeptUnits(layers={layer: {} for layer in range(len(structure.layers))})
        reason = _difference(opened, dense, [], everything, work)
        failed |= {} if reason is None else {EXPERTS: f"its experts are not pruned: {reason}"}
    if LAYERS not in architecture.refused:
        for removed in sorted({0, len(structure.layers) // 2, len(structure.layers) - 1}):
            layers = [layer for layer in range(len(structure.layers)) if layer != removed]
            reason = _difference(opened, dense, [], KeptUnits(layers={layer: {} for layer in layers}), work)
            if layers and reason is not None:
                failed[LAYERS] = f"without layer {removed}, {reason}"
                break
    return failed


def required_outputs(folder: Path, architecture: Architecture, work: Path) -> tuple[str, ...]:
    """Return the outputs of sublayers of which a model needs at least one: without any, it generates no text.

    `folder` and `work` are as in `failed_cuts`.
    """
    opened = open_model(folder, discovered=architecture)
    layers = range(opened.description.layers)
    required = []
    for output in (each.output for each in architecture.sublayers):
        left = [layer for layer in layers if f"{architecture.blocks}.{layer}.{output}.weight" not in opened.tensors]
        if left:
            try:
                cut = _reloaded(opened, [], KeptUnits(layers={layer: {} for layer in left}), work)
            except Exception:  # the code of any model may fail in any way
                required.append(output)
            else:
                required += [] if _failure_to_generate(cut) is None else [output]
    return tuple(required)


@torch.inference_mode()
def _failure_to_generate(model: PreTrainedModel) -> str | None:
    """Return why a model does not run as the reload check runs it, with a cache; None where it does."""
    if not isinstance(model, GenerationMixin):
        return f"{type(model).__name__} generates no text"
    try:
        model.generation_config = GenerationConfig()
        for length in _LENGTHS:
            tokens = sample_tokens(model, length=length, seed=length)
            model(input_ids=tokens)
            model.generate(tokens[:, :4], max_new_tokens=2, min_new_tokens=2, do_sample=False)
    except Exception as error:  # the code of any model may fail in any way
        return f"{type(error).__name__}: {one_line(error)}"
    return None


def _streamed_difference(opened: ModelFolder, dense: PreTrainedModel) -> str | None:
    """Return the difference of logits where blocks run one by one; None where there is none."""
    streamed = StreamedModel(opened, dtype=torch.float32, device=_CPU)
    for length in _LENGTHS:
        tokens = sample_tokens(dense, length=length, seed=length)
        with torch.inference_mode():
            hidden = streamed.embed(tokens)
            for index, arguments in enumerate(streamed.block_arguments(tokens)):
                block = streamed.fill_block(index, streamed.read_block(index), torch.float32)
                hidden = call_block(block, hidden, arguments)
                streamed.empty_block(index)
            logits = streamed.logits(tokens, hidden, torch.arange(length)).float()
            expected = _logits(dense, tokens)
        difference = difference_beyond(logits, expected, _TOLERANCE)
        if difference is not None:
            return f"its outputs (logits) differ by {difference:g} when its blocks run one by one"
    return None


def _random_units(opened: ModelFolder, kind: UnitKind, is_uniform: bool) -> KeptUnits | None:
    """Return random units to keep, the same number in each layer with `is_uniform`; None where no unit can go."""
    structure = opened.description.structure
    assert structure is not None
    chooser = random.Random(0)
    layers: dict[int, dict[str, list[int]]] = {}
    for layer, shape in enumerate(structure.layers):
        units, parts = kind.units(shape), kind.parts(shape)
        each, parts = units // max(parts, 1), parts * kind.sets(shape)
        if each < 2:
            layers[layer] = {}
            continue
        left = each - 1 if each < 8 else each // 2
        # every layer loses some units and is rebuilt; the numbers differ where a layer has enough units
        if not is_uniform:
            left = left - layer % 2 if left > 1 else each - layer % 2
        layers[layer] = {
            kind.name: [
                part * each + unit for part in range(parts) for unit in sorted(chooser.sample(range(each), left))
            ]
        }
    return KeptUnits(layers=layers) if any(layers.values()) else None


def _difference(
    opened: ModelFolder, dense: PreTrainedModel, kinds: Sequence[UnitKind], kept: KeptUnits, work: Path
) -> str | None:
    """Return the difference of a pruned model from the dense one with the rest zeroed; None if there is none."""
    try:
        cut = _reloaded(opened, kinds, kept, work)
        for length in _LENGTHS if opened.family.experts is None else _MIXTURE_LENGTHS:
            tokens = sample_tokens(dense, length=length, seed=length)
            with torch.inference_mode():
                with silenced(opened, dense, kinds, kept):
                    expected = _logits(dense, tokens)
                logits = _logits(cut, tokens)
            difference = difference_beyond(logits, expected, _TOLERANCE)
            if difference is not None:
                return f"the logits of the model that was saved and opened again differ by {difference:g}"
        # another job may start from the saved model, so that its blocks must run one by one too
        reason = _streamed_difference(open_model(work / "artifact", own_artifact=True, discovered=opened.family), cut)
    except Exception as error:  # the code of any model may fail in any way
        return f"the model cannot be saved and opened again: {type(error).__name__}: {one_line(error)}"
    return reason and f"of the model that was saved and opened again, {reason}"


def _logits(model: PreTrainedModel, tokens_BT: Tensor) -> Tensor:
    logits: Tensor = run_model(model, tokens_BT).logits
    return logits.float()


def _reloaded(opened: ModelFolder, kinds: Sequence[UnitKind], kept: KeptUnits, work: Path) -> PreTrainedModel:
    family, structure = opened.family, opened.description.structure
    assert structure is not None
    counts = kept.counts(structure, kinds)
    config = config_after_removal(opened, structure, kinds, counts)
    tensors: dict[str, Tensor] = {}
    blocks = f"{family.blocks}."
    for place, (layer, units) in enumerate(kept.layers.items()):
        prefix = f"{blocks}{layer}."
        block = {name.removeprefix(prefix): opened.read(name) for name in opened.tensors if name.startswith(prefix)}
        sliced = remove_units(block, layer_unit_sets(family, structure, layer, kinds), units)
        tensors |= stored_tensors(family, {f"{blocks}{place}.{name}": each for name, each in sliced.items()})
    unchanged = [
        replace(entry, name=family.stored_name(name))
        for name, entry in opened.tensors.items()
        if not name.startswith(blocks)
    ]
    write_tensors(work / "blocks.safetensors", tensors)
    artifact = work / "artifact"
    write_checkpoint([work / "blocks.safetensors"], unchanged, opened.path, artifact, config=config, discovered=family)
    cut = open_model(artifact, own_artifact=True, discovered=family)
    return load_model(cut, _CPU, dtype=torch.float32)


@contextmanager
def silenced(opened: ModelFolder, dense: PreTrainedModel, kinds: Sequence[UnitKind], kept: KeptUnits) -> Iterator[None]:
    """Run the dense model, inside the context, with everything but the kept part zeroed or skipped."""
    family, structure = opened.family, opened.description.structure
    assert structure is not None
    handles: list[RemovableHandle] = []
    with ExitStack() as zeroed:
        for layer, block in enumerate(dense.get_submodule(family.blocks).children()):
            if layer not in kept.layers:
                handles.append(block.register_forward_hook(_skip_block, with_kwargs=True))
                continue
            for each in layer_unit_sets(family, structure, layer, kinds):
                units = kept.layers[layer].get(each.kind)
                if units is not None:
                    handles += _zeroing_reader(block, each, torch.tensor(units), family)
                    if isinstance(each.reading_slice, StackSlice):
                        stack = block.get_parameter(each.output)
                        zeroed.enter_context(each.reading_slice.zeroed(stack, torch.tensor(units)))
        with removed_after(handles):
            yield


def _zeroing_reader(block: nn.Module, units: UnitSet, kept: Tensor, family: Architecture) -> Iterator[RemovableHandle]:
    """Zero the reader's inputs from removed units; norms over all units get the kept ones only."""
    for reading in units.reading_slices:
        if not isinstance(reading, StackSlice):
            yield block.get_submodule(reading.linear).register_forward_pre_hook(_zeroing(reading.features(kept)))
    modules = dict(block.named_modules())
    for each in units.slices:
        norm = modules.get(each.linear)
        if each.name.endswith(".weight") and each.linear not in family.linears and norm is not None:
            weight = norm.get_parameter("weight")
            if weight.dim() == 1 and len(weight) == sum(size * units.units + rest for size, rest in each.runs):
                yield norm.register_forward_hook(_kept_norm(norm, each, kept))


def _zeroing(kept_F: Tensor) -> Callable[..., Any]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mask = torch.zeros(arguments[0].shape[-1])
        mask[kept_F] = 1
        return (arguments[0] * mask, *arguments[1:])

    return hook


def _kept_norm(norm: nn.Module, unit_slice: UnitSlice, kept: Tensor) -> Callable[..., Any]:
    kept_F = unit_slice.features(kept)
    narrow = copy.deepcopy(norm)
    for name, parameter in norm.named_parameters():
        setattr(narrow, name, nn.Parameter(parameter[kept_F], requires_grad=False))
    if isinstance(narrow, nn.LayerNorm | nn.RMSNorm):
        narrow.normalized_shape = (len(kept_F),)

    def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        normed = torch.zeros_like(output)
        normed[..., kept_F] = narrow(arguments[0][..., kept_F], *arguments[1:])
        return normed

    return hook


def _skip_block(
    block: nn.Module, arguments: tuple[Tensor, ...], keywords: Mapping[str, Tensor], output: Tensor | tuple[Tensor, ...]
) -> Tensor | tuple[Tensor, ...]:
    hidden = arguments[0] if arguments else keywords["hidden_states"]
    return hidden if isinstance(output, Tensor) else type(output)((hidden, *output[1:]))


Reload = Callable[[KeptUnits], PreTrainedModel]
"""Function that saves the kept part of a model, as a job does, and opens it."""


def reason_to_keep_experts(opened: ModelFolder, dense: PreTrainedModel, reload: Reload) -> str | None:
    """Return why whole experts of a tiny random model cannot be removed; None where they can, or are not offered.

    One is removed (one of each group, where there are groups), and as many as possible.
    """
    structure, experts = opened.description.structure, opened.family.experts
    assert structure is not None
    if experts is None or experts.routing is None:
        return None
    counts = {EXPERT_UNITS.units(shape) for shape in structure.layers} - {0}
    if len(counts) != 1:
        return f"its layers have {sorted(counts)} experts"
    (before,) = counts
    allowed = [left for left in range(1, before) if experts.routing.refusal(left, experts.top_k) is None]
    if not allowed:
        return None
    for left in sorted({allowed[0], allowed[-1]}):
        kept = _random_experts(opened, left, seed=left)
        try:
            cut = reload(kept)
            for length in _MIXTURE_LENGTHS:
                tokens = sample_tokens(dense, length=length, seed=length)
                with torch.inference_mode():
                    with _with_routers_masked(opened, dense, kept):
                        expected: Tensor = run_model(dense, tokens).logits.float()
                    logits: Tensor = run_model(cut, tokens).logits.float()
                difference = difference_beyond(logits, expected, _TOLERANCE)
                if difference is not None:
                    return f"with {left} of {before} experts, the logits of {length} tokens differ by {difference:g}"
        except Exception as error:  # the code of any model may fail in any way
            return (
                f"with {left} of {before} experts it cannot be saved and run: {type(error).__name__}: {one_line(error)}"
            )
    return None


def _random_experts(opened: ModelFolder, left: int, *, seed: int) -> KeptUnits:
    """Return random experts to keep in each layer that has some, the same number of each group."""
    structure = opened.description.structure
    assert structure is not None
    chooser = random.Random(seed)
    layers: dict[int, dict[str, list[int]]] = {}
    for layer, shape in enumerate(structure.layers):
        units, parts = EXPERT_UNITS.units(shape), max(EXPERT_UNITS.parts(shape), 1)
        each = units // parts
        layers[layer] = {}
        if units:
            chosen = [sorted(chooser.sample(range(each), left // parts)) for _ in range(parts)]
            layers[layer] = {
                EXPERT_UNITS.name: [part * each + unit for part, members in enumerate(chosen) for unit in members]
            }
    return KeptUnits(layers=layers)


@contextmanager
def _with_routers_masked(opened: ModelFolder, dense: PreTrainedModel, kept: KeptUnits) -> Iterator[None]:
    """Run the dense model, inside the context, with routers that never choose removed experts.

    Their outputs for these experts are −∞, and so are vectors with an entry for each expert, such as corrections of
    scores.
    """
    experts = opened.family.experts
    assert experts is not None and experts.routing is not None
    own = {experts.parameter(each) for each in experts.matrices}
    biases = {f"{experts.module}.{each.bias}" for each in experts.matrices if each.bias is not None}
    routers: list[tuple[Tensor, Tensor]] = []
    before: list[tuple[Tensor, Tensor]] = []
    try:
        for layer, block in enumerate(dense.get_submodule(opened.family.blocks).children()):
            units = kept.layers[layer].get(EXPERT_UNITS.name)
            if units is None:
                continue
            state = dict(block.state_dict(keep_vars=True))
            for name in experts.routing.rows:
                if name in own or name in biases or name not in state:
                    continue
                rows = state[name]
                removed = torch.ones(len(rows), dtype=torch.bool)
                removed[units] = False
                if rows.dim() > 1:
                    routers.append((rows, removed))
                else:
                    before.append((rows, rows.detach().clone()))
                    rows.data[removed] = -torch.inf
        with _Masking(routers):
            yield
    finally:
        for rows, values in before:
            rows.data.copy_(values)


class _Masking(TorchFunctionMode):
    """Mode in which products with some matrices have −∞ in the outputs of some of their rows."""

    def __init__(self, routers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._removed = {rows.data_ptr(): removed for rows, removed in routers}

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Mapping[str, object] | None = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        if function is nn.functional.linear and len(arguments) > 1:
            removed = self._removed.get(arguments[1].data_ptr())
            if removed is not None:
                result = result.masked_fill(removed, -torch.inf)
        return result
