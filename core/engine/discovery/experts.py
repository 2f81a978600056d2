"""Experts of a mixture: found among the layers that a trace skipped, tried one by one, and matched with the files.

The config's setting for their number, and the router's tensors with an entry for each, are found too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from core.engine.architectures.architecture import Architecture, ExpertMatrix, Experts, Routing
from core.engine.architectures.folder import join_stacks
from core.engine.checkpoints.key_patterns import pattern_of
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.discovery.blocks import run_model, sample_tokens
from core.engine.discovery.configuration import Settings
from core.engine.discovery.differential import Differential, one_line
from core.engine.discovery.execution import EXPERT, STACKED
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.models.hooks import removed_after
from secateur_wire.errors import MissingTensors

_FLAGS: Final = ("has_gate", "has_bias", "is_transposed", "has_post_expert_norm")
"""Facts that transformers sets on every module of stacked experts whose forward can be replaced."""
_LENGTHS: Final = (5, 12, 24)
_TOLERANCE: Final = 1e-4


class UnknownExperts(Exception):
    """Reason why a mixture's experts cannot be pruned."""


@dataclass
class ExpertsCall:
    """Call of the experts of a block: their inputs and outputs."""

    tokens: RoutedTokens
    output: Tensor


def discover_experts(small: PreTrainedModel, blocks: str, left_alone: Mapping[str, str]) -> Experts:
    """Return the experts of a small random model's blocks; raises UnknownExperts with the reason where there are none.

    `left_alone` are the layers of its blocks that a trace did not accept for pruning, each with the reason.
    """
    modules = {name.rpartition(".")[0] for name, reason in left_alone.items() if reason == STACKED}
    if EXPERT in left_alone.values():
        named = next(name for name, reason in left_alone.items() if reason == EXPERT)
        raise UnknownExperts(f"each of its experts is a module of its own, as {named}")
    if len(modules) != 1:
        listed = ", ".join(sorted(modules)) or "none"
        raise UnknownExperts(f"each block must have one module of stacked experts, but it has {listed}")
    (module,) = modules
    distinct = {_of_module(each, module) for each in _blocks_with(small, blocks, module)}
    if len(distinct) != 1:
        raise UnknownExperts(f"{module} has other parameters in some layers than in others")
    (experts,) = distinct
    stacks = {experts.parameter(each) for each in experts.matrices}
    others = sorted(name for name, reason in left_alone.items() if reason == STACKED and name not in stacks)
    if others:
        raise UnknownExperts(f"{others[0]} is neither an input nor an output matrix of its experts")
    counts = _check_one_by_one(small, blocks, experts)
    if len(counts) != 1:
        raise UnknownExperts(
            f"its layers send each token to different numbers of experts ({sorted(counts)}), but one number is needed"
        )
    return replace(_with_parts(small, blocks, experts), top_k=counts.pop())


def _blocks_with(model: PreTrainedModel, blocks: str, module: str) -> list[nn.Module]:
    return [
        block
        for block in model.get_submodule(blocks).children()
        if module in {name for name, _ in block.named_modules()}
    ]


def _of_module(block: nn.Module, name: str) -> Experts:
    """Return the experts of a block, from the parameters and attributes of their module."""
    module = block.get_submodule(name)
    if not all(hasattr(module, flag) for flag in _FLAGS):
        raise UnknownExperts(f"the forward of {name}, a {type(module).__name__}, is not known")
    facts: dict[str, Any] = {flag: bool(getattr(module, flag)) for flag in _FLAGS}
    own = {parameter: tuple(each.shape) for parameter, each in module.named_parameters(recurse=False)}
    reading, giving = "gate_up_proj" if facts["has_gate"] else "up_proj", "down_proj"
    biases = {f"{each}_bias" for each in (reading, giving)} if facts["has_bias"] else set()
    if own.keys() != {reading, giving} | biases or len(own[reading]) != 3 or len(own[giving]) != 3:
        raise UnknownExperts(f"{name} is made of {', '.join(own)}")
    return Experts(
        name,
        ExpertMatrix(reading, f"{reading}_bias" if biases else None),
        ExpertMatrix(giving, f"{giving}_bias" if biases else None),
        facts["is_transposed"],
        top_k=0,
    )


def _check_one_by_one(small: PreTrainedModel, blocks: str, experts: Experts) -> set[int]:
    """Require that a block's experts, run one by one on their own tokens, sum to the output of their module.

    Returns the numbers of experts that a token goes to.
    """
    with_experts = _blocks_with(small, blocks, experts.module)
    counts = set()
    for length in _LENGTHS:
        for block, call in zip(with_experts, calls_of_experts(small, blocks, experts, length), strict=True):
            stacks = ExpertStacks(block, experts)
            counts.add(call.tokens.index_NK.shape[1])
            total = torch.zeros_like(call.tokens.hidden_NH)
            for expert in range(len(stacks)):
                rows_N, gates_N = call.tokens.of_expert(expert)
                output_NH = stacks.output(stacks.inner(call.tokens.hidden_NH[rows_N], expert), expert)
                total.index_add_(0, rows_N, output_NH * gates_N[:, None])
            expected = call.output.reshape(total.shape)
            if not float((total - expected).abs().max()) <= _TOLERANCE * float(expected.abs().max()):
                raise UnknownExperts(f"{experts.module} does more than add up its experts by their gates")
    return counts


def calls_of_experts(small: PreTrainedModel, blocks: str, experts: Experts, length: int) -> list[ExpertsCall]:
    """Run a model on sequences of that length and return the call of each block's experts.

    Raises UnknownExperts unless each block has exactly one such call, with tokens, experts and gates.
    """
    return _calls(small, _blocks_with(small, blocks, experts.module), experts.module, length)


def _calls(small: PreTrainedModel, with_experts: list[nn.Module], module: str, length: int) -> list[ExpertsCall]:
    """Run the model and return the calls of the blocks' experts, one call for each block."""
    calls: list[list[ExpertsCall]] = [[] for _ in with_experts]

    def note(place: int) -> Any:
        def hook(
            experts: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: object
        ) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            if tokens is None or not isinstance(output, Tensor) or output.numel() != tokens.hidden_NH.numel():
                raise UnknownExperts(f"{module} is not called with tokens, experts and gates")
            calls[place].append(ExpertsCall(tokens, output))

        return hook

    handles = [
        block.get_submodule(module).register_forward_hook(note(place), with_kwargs=True)
        for place, block in enumerate(with_experts)
    ]
    with removed_after(handles), torch.inference_mode():
        run_model(small, sample_tokens(small, length=length))
    if any(len(each) != 1 for each in calls):
        raise UnknownExperts(f"{module} is not called exactly once in each block")
    return [call for (call,) in calls]


def _with_parts(small: PreTrainedModel, blocks: str, experts: Experts) -> Experts:
    """Return experts with the patterns of the files' keys for each expert's matrices, if stored separately.

    They are found by value among the tensors that transformers saves: random weights are all different.
    """
    stored = revert_weight_conversion(small, dict(small.state_dict()))
    matrices = [_matrix_with_parts(small, blocks, experts, matrix, stored) for matrix in experts.matrices]
    return replace(experts, reading=matrices[0], giving=matrices[1])


def _matrix_with_parts(
    small: PreTrainedModel, blocks: str, experts: Experts, matrix: ExpertMatrix, stored: Mapping[str, Tensor]
) -> ExpertMatrix:
    name = experts.parameter(matrix)
    layers = [index for index, block in enumerate(small.get_submodule(blocks).children()) if _has(block, name)]
    stack = small.get_parameter(f"{blocks}.{layers[0]}.{name}")
    if any(each.shape == stack.shape and torch.equal(each, stack) for each in stored.values()):
        return matrix
    parts: list[str] = []
    row = 0
    while row < stack.shape[1]:
        key = next((key for key, each in stored.items() if _is_rows_from(each, stack[0], row)), None)
        if key is None:
            raise UnknownExperts(f"the files have {name} in parts that are not its experts' rows")
        parts.append(pattern_of(key))
        row += len(stored[key])
    for layer in layers:
        stack = small.get_parameter(f"{blocks}.{layer}.{name}")
        for expert, rows in enumerate(stack.unbind()):
            for part, share in zip(parts, rows.chunk(len(parts)), strict=True):
                key = part.format(layer, expert) if part.count("{}") == 2 else ""
                if key not in stored or not torch.equal(stored[key], share):
                    raise UnknownExperts(f"the files do not have each expert's {name} under its layer and number")
    return replace(matrix, parts=tuple(parts))


def _is_rows_from(part: Tensor, matrix: Tensor, row: int) -> bool:
    """Return True if a tensor equals the rows of a matrix from `row` on."""
    return (
        part.dim() == 2
        and part.shape[1] == matrix.shape[1]
        and torch.equal(part[0], matrix[row])
        and torch.equal(part, matrix[row : row + len(part)])
    )


def _has(block: nn.Module, parameter: str) -> bool:
    return parameter in dict(block.named_parameters())


def check_stacks(model: PreTrainedModel, architecture: Architecture, stored: Mapping[str, TensorEntry]) -> None:
    """Require the files to have the stacks of all experts of a model, in the config's shapes.

    `stored` are tensors by their keys. Raises MissingTensors or CorruptSafetensors.
    """
    experts = architecture.experts
    if experts is None:
        return
    joined = {architecture.module_name(key): entry for key, entry in join_stacks(stored, architecture).items()}
    for index, block in enumerate(model.get_submodule(architecture.blocks).children()):
        for name, parameter in block.named_parameters():
            if name in {experts.parameter(each) for each in experts.matrices}:
                entry = joined.get(f"{architecture.blocks}.{index}.{name}")
                shape = None if entry is None else entry.shape
                if shape != tuple(parameter.shape):
                    has = "lack" if shape is None else f"hold as {list(shape)}"
                    raise MissingTensors(
                        f"the files {has} {architecture.blocks}.{index}.{name}, which the config needs as "
                        f"{list(parameter.shape)}",
                        param="model",
                    )


_GROUPS: Final = ("n_group", "num_expert_group")
_TOP_K_GROUPS: Final = ("topk_group", "num_limited_groups")
"""Names in configs of the number of expert groups that a token's experts come from."""
_SAME: Final = 1e-4


def with_routing(architecture: Architecture, small: PreTrainedModel, settings: Settings) -> Architecture:
    """Return an architecture whose experts have their routing, or the reason why whole ones cannot be removed."""
    experts = architecture.experts
    if experts is None:
        return architecture
    try:
        routing = _routing(architecture, experts, small, Differential(settings))
    except UnknownExperts as error:
        return replace(architecture, experts=experts.without_routing(str(error)))
    except Exception as error:  # the code of any type may fail in any way, and weights can still be pruned
        reason = f"their routing cannot be found out: {type(error).__name__}: {one_line(error)}"
        return replace(architecture, experts=experts.without_routing(reason))
    return replace(architecture, experts=replace(experts, routing=routing))


def _routing(
    architecture: Architecture, experts: Experts, small: PreTrainedModel, differential: Differential
) -> Routing:
    before = _shapes(differential, {})
    stacks = [experts.parameter(each) for each in experts.matrices]
    prefix = f"{architecture.blocks}."
    count = next(shape[0] for name, shape in before.items() if name.endswith(f".{stacks[0]}"))
    reasons = [f"no setting of its config is the number of experts, {count}"]
    for key in [name for name, value in differential.integers.items() if value == count]:
        after = _shapes(differential, {key: 2 * count})
        if after.keys() != before.keys():
            continue
        changed = {name for name in before if before[name] != after[name]}
        if not any(name.endswith(f".{stacks[0]}") for name in changed):
            continue
        rows = set()
        for name in changed:
            layer, _, inner = name.removeprefix(prefix).partition(".")
            if not name.startswith(prefix) or not layer.isdecimal():
                reasons.append(f"{key} changes {name} too")
                break
            if before[name] != (count, *before[name][1:]) or after[name] != (2 * count, *before[name][1:]):
                reasons.append(f"{name} does not have exactly one entry for each expert, {list(before[name])}")
                break
            rows.add(inner)
        else:
            if rows >= set(stacks):
                groups, top_k_groups = _groups(differential.integers, count)
                return Routing(
                    key, tuple(sorted(rows)), _are_normalised(small, architecture, experts), groups, top_k_groups
                )
    raise UnknownExperts(reasons[-1])


def _shapes(differential: Differential, settings: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all saved tensors of a model with other settings, buffers too; none without a model."""
    config = differential.config_with(settings)
    if isinstance(config, str):
        return {}
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception:  # constructors of models validate with exceptions of any type
        return {}
    return {name: tuple(each.shape) for name, each in model.state_dict().items()}


def _groups(settings: Mapping[str, int], count: int) -> tuple[int, int]:
    """Return the number of groups of experts, and of the groups of a token's experts; 1 and 1 without groups."""
    groups = next((settings[name] for name in _GROUPS if name in settings), 1)
    if groups <= 1:
        return 1, 1
    top_k_groups = next((settings[name] for name in _TOP_K_GROUPS if name in settings), None)
    if top_k_groups is None or count % groups or top_k_groups < 1:
        raise UnknownExperts(
            f"its {count} experts are in {groups} groups, and the config does not give the number of groups that "
            "are chosen"
        )
    return groups, top_k_groups


def _are_normalised(small: PreTrainedModel, architecture: Architecture, experts: Experts) -> bool:
    """Return True if the gates of every token have the same sum."""
    sums = torch.cat(
        [each.tokens.gates_NK.sum(1) for each in calls_of_experts(small, architecture.blocks, experts, 24)]
    )
    return bool((sums - sums[0]).abs().max() <= _SAME * sums[0].abs())
