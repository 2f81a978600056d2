"""How much each layer loses where layers may differ: counts and rankings that meet the ratio, and what is refused."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import (
    WidthRequest,
    counts_channels_first,
    counts_for_ratio,
    require_reachable,
)
from core.engine.architectures.units import KindName, removed_kinds
from core.engine.pruning.units.ranking import ranked_counts
from core.engine.removals.widths import plan_width_reduction
from core.methods.descriptions.structured import LLMPrunerParameters
from secateur_wire.errors import InvalidSparsity
from tests.engine.tiny import make_model

shapes = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(16, 2000) | st.just(0)), min_size=2, max_size=6
).filter(lambda drawn: any(channels for _, _, channels in drawn))
"""Layers of KV heads, query heads to each and channels; some have none of either, as those of state spaces."""


def structure_of(drawn: list[tuple[int, int, int]]) -> ModelStructure:
    """Layers of (KV heads, group, channels) in a model of hidden size 64 and heads of 8 features."""
    hidden, head_dim = 64, 8
    head = key = 2 * hidden * head_dim
    layers = [
        LayerShape(
            channels=channels, heads=kv * group, kv_heads=kv,
            parameters=kv * (group * head + key) + 3 * hidden * channels,
        )
        for kv, group, channels in drawn
    ]  # fmt: skip
    return ModelStructure(
        head_dim=head_dim, heads_divide_hidden=True, channel_parameters=3 * hidden, head_parameters=head,
        kv_group_parameters=next((group for kv, group, _ in drawn if kv), 1) * head + key, layers=layers,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    drawn=shapes,
    ratio=st.floats(0, 0.9),
    round_to=st.sampled_from([1, 8, 64]),
    attention=st.sampled_from(["kv_groups", "query_heads", "none"]),
    first=st.integers(0, 1),
    rank=st.booleans(),
    at_least=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_protected_layers_stay_and_the_others_meet_the_ratio(
    drawn: list[tuple[int, int, int]],
    ratio: float,
    round_to: int,
    attention: Any,
    first: int,
    rank: bool,
    at_least: bool,
    seed: int,
) -> None:
    structure = structure_of(drawn)
    total = structure.parameters + 1000
    protected = frozenset(range(first))
    kinds = removed_kinds(attention)
    if not any(channels for _, _, channels in drawn[first:]):
        return
    request = WidthRequest(kinds, total, ratio, round_to, protected=protected, at_least=at_least)
    step = round_to * structure.channel_parameters
    try:
        if rank:
            ranking = require_reachable(structure, request)
            counts = ranked_counts(structure, random_scores(structure, attention, seed), kinds, ranking)
            tolerance = step
        else:
            counts = counts_for_ratio(structure, request)
            tolerance = step * (len(drawn) - first)
    except InvalidSparsity:
        return
    more = sum(each.removed for each in counts) - ratio * total
    assert (-1 if at_least else -tolerance - 1e-6) <= more <= tolerance + 1e-6
    for layer, (shape, each) in enumerate(zip(structure.layers, counts, strict=True)):
        before = shape.sizes
        after = dict(before)
        for kind in kinds:
            after |= kind.sizes(shape, each.units[kind.name])
        assert (after["channels"] > 0) == (before["channels"] > 0) and after["channels"] <= before["channels"]
        assert after["channels"] % round_to == 0 or after["channels"] == before["channels"]
        assert (after["kv_heads"] > 0) == (before["kv_heads"] > 0) and after["kv_heads"] <= before["kv_heads"]
        assert after["heads"] % max(after["kv_heads"], 1) == 0
        lost = (before["channels"] - after["channels"]) * structure.facts["channel_parameters"]
        query, keys = before["heads"] - after["heads"], before["kv_heads"] - after["kv_heads"]
        assert each.removed == lost + (query + keys) * structure.facts["head_parameters"]
        if attention == "kv_groups":
            assert after["heads"] * before["kv_heads"] == before["heads"] * after["kv_heads"]
        elif attention == "query_heads":
            assert after["kv_heads"] == before["kv_heads"]
        if layer in protected:
            assert each.removed == 0


@settings(max_examples=100, deadline=None)
@given(
    layer=st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(64, 2000)),
    ratio=st.floats(0.01, 0.9),
    round_to=st.sampled_from([1, 8]),
    at_least=st.booleans(),
)
def test_channels_go_before_heads_while_a_quarter_stays(
    layer: tuple[int, int, int], ratio: float, round_to: int, at_least: bool
) -> None:
    structure = structure_of([layer] * 2)
    kinds, channels = removed_kinds("kv_groups"), layer[2]
    request = WidthRequest(kinds, structure.parameters, ratio, round_to, at_least=at_least)
    try:
        even = counts_for_ratio(structure, request)
    except InvalidSparsity:
        with pytest.raises(InvalidSparsity):
            counts_channels_first(structure, request)
        return
    first = counts_channels_first(structure, request)
    step = round_to * structure.channel_parameters
    more = first[0].removed - ratio * structure.parameters / 2
    assert (-1 if at_least else -step) - 1e-6 <= more <= step + 1e-6
    assert first[0].units["heads"] >= even[0].units["heads"] or even[0].units["channels"] < channels / 4 + round_to
    if first[0].units["heads"] < layer[0]:
        assert first[0].units["channels"] < channels / 4 + round_to + structure.facts["kv_group_parameters"]


def random_scores(structure: ModelStructure, attention: str, seed: int) -> list[dict[KindName, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    scores: list[dict[KindName, torch.Tensor]] = []
    for layer in structure.layers:
        kinds: dict[KindName, int] = {"channels": layer.channels}
        if attention != "none":
            kinds["heads"] = layer.kv_heads if attention == "kv_groups" else layer.heads
        scores.append({kind: torch.rand(units, generator=generator) for kind, units in kinds.items()})
    return scores


def test_a_layer_of_less_importance_loses_more_whatever_the_scale_of_its_scores() -> None:
    structure = structure_of([(2, 2, 256)] * 3)
    even = torch.full((256,), 1.0)
    poor = torch.cat([torch.full((128,), 0.01), torch.full((128,), 1.0)])
    heads = torch.full((2,), 1e3)
    scores: list[dict[KindName, torch.Tensor]] = [
        {"heads": heads, "channels": even},
        {"heads": 5 * heads, "channels": 5 * poor},
        {"heads": heads, "channels": even},
    ]
    kinds = removed_kinds("kv_groups")
    ranking = WidthRequest(kinds, 96 * structure.channel_parameters, 1.0, 8)
    counts = ranked_counts(structure, scores, kinds, ranking)
    assert [(each.units["channels"], each.units["heads"]) for each in counts] == [(256, 2), (256 - 96, 2), (256, 2)]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    return inspect_folder(make_model(tmp_path_factory.mktemp("models") / "llama", "llama"))


def test_by_default_heads_go_only_where_less_than_a_quarter_of_the_channels_would_stay(
    described: ModelDescription,
) -> None:
    parameters = LLMPrunerParameters.model_validate({"round_to": 1, "protected_first": 0})
    for ratio, mode in ((0.2, "none"), (0.6, "kv_groups")):
        assert plan_width_reduction(described, parameters, ratio, layout="per_layer").attention == mode
