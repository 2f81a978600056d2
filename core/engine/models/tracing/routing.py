"""Routing to experts: what counts them in the config, and which tensors have an entry for each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.experts import Experts, Routing
from core.engine.models.tracing.configuration import Settings
from core.engine.models.tracing.differential import Differential, one_line
from core.engine.models.tracing.experts import UnknownExperts, calls_of_experts

_GROUPS: Final = ("n_group", "num_expert_group")
_TOP_K_GROUPS: Final = ("topk_group", "num_limited_groups")
"""Names that configs have for the groups that experts lie in, and for how many of them a token's experts are of."""
_SAME: Final = 1e-4


def with_routing(architecture: Architecture, small: PreTrainedModel, settings: Settings) -> Architecture:
    """Return an architecture whose experts have what is known of their choice, or why whole ones cannot be removed."""
    experts = architecture.experts
    if experts is None:
        return architecture
    try:
        routing = _routing(architecture, experts, small, Differential(settings))
    except UnknownExperts as error:
        return replace(architecture, experts=experts.without_routing(str(error)))
    except Exception as error:  # the code of any type may fail in any way, and weights can be pruned all the same
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
                reasons.append(f"{name} has other entries than one for each expert, {list(before[name])}")
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
    """Return the shapes of all that is saved of a model with other settings, buffers too; none where there is none."""
    config = differential.config_with(settings)
    if isinstance(config, str):
        return {}
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception:  # constructors of models validate with whatever exception their authors chose
        return {}
    return {name: tuple(each.shape) for name, each in model.state_dict().items()}


def _groups(settings: Mapping[str, int], count: int) -> tuple[int, int]:
    """Return how many groups experts lie in, and of how many a token's are; 1 and 1 where there are none."""
    groups = next((settings[name] for name in _GROUPS if name in settings), 1)
    if groups <= 1:
        return 1, 1
    top_k_groups = next((settings[name] for name in _TOP_K_GROUPS if name in settings), None)
    if top_k_groups is None or count % groups or top_k_groups < 1:
        raise UnknownExperts(
            f"its {count} experts lie in {groups} groups, of which it is not known how many are chosen"
        )
    return groups, top_k_groups


def _are_normalised(small: PreTrainedModel, architecture: Architecture, experts: Experts) -> bool:
    """Return True if the gates of every token have the same sum."""
    sums = torch.cat(
        [each.tokens.gates_NK.sum(1) for each in calls_of_experts(small, architecture.blocks, experts, 24)]
    )
    return bool((sums - sums[0]).abs().max() <= _SAME * sums[0].abs())
