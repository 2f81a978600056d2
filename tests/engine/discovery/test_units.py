"""Units are discovered as they are declared, and where a small copy has them otherwise than the real widths."""

from dataclasses import replace

import pytest
from pydantic import JsonValue

from bench.architectures.tiny_configs import tiny_config
from core.engine.architectures.architecture import (
    HEAD_DIM_KEY,
    HEADS_KEY,
    KV_HEADS_KEY,
    Architecture,
    Sublayer,
    UnitAxis,
)
from core.engine.discovery.configuration import Settings, open_config
from core.engine.discovery.discover import merged_groups
from core.engine.discovery.hypotheses import with_units
from core.engine.discovery.resizing import narrowed, shortened
from tests.engine.crossing import partly
from tests.engine.tiny import UNLIKE, architecture_of, make_config
from tests.families import LANGUAGE_MODELS

Units = dict[str, dict[str, tuple[UnitAxis, ...]]]


def units_of(architecture: Architecture) -> Units:
    """Return the axes of each kind of unit that an architecture's outputs read, without those that cannot go."""
    return {each.output: {kind: axes for kind, axes in each.units.items() if axes} for each in architecture.sublayers}


def without_units(architecture: Architecture) -> Architecture:
    """Return an architecture as it is before its units are sought."""
    bare = tuple(replace(each, units={}) for each in architecture.sublayers)
    return replace(
        architecture, sublayers=bare, width_key="intermediate_size", heads_divide_hidden=False, config_keys={}
    )


def settings_of(name: str, **changes: object) -> Settings:
    return {**make_config(name, **changes).to_diff_dict(), "architectures": [architecture_of(name).architecture]}


@partly("name", LANGUAGE_MODELS, in_every_run=UNLIKE)
def test_the_units_of_every_declared_architecture_are_discovered_as_they_are_declared(name: str) -> None:
    declared, settings = architecture_of(name), settings_of(name)
    found = with_units(without_units(declared), settings, settings)
    assert units_of(found) == units_of(declared)
    assert found.width_key == declared.width_key
    assert found.heads_divide_hidden == declared.heads_divide_hidden
    if declared.axes("heads"):
        assert not found.config_keys.keys() & {HEADS_KEY, KV_HEADS_KEY, HEAD_DIM_KEY}
    else:
        assert found.refused.keys() == {"heads"}


@pytest.mark.parametrize("kv_heads", [1, 4], ids=["one KV head", "as many as heads"])
def test_keys_and_values_are_told_apart_from_queries_however_many_heads_share_them(kv_heads: int) -> None:
    declared, settings = architecture_of("qwen3"), settings_of("qwen3", num_key_value_heads=kv_heads)
    found = with_units(without_units(declared), settings, settings)
    assert units_of(found) == units_of(declared)


def test_what_the_config_cannot_say_at_the_real_widths_is_refused() -> None:
    declared, small = architecture_of("qwen3"), settings_of("qwen3")
    real = {**small, "num_attention_heads": 5, "num_key_value_heads": 2}
    found = with_units(without_units(declared), small, real)
    assert "heads" in found.refused and not found.axes("heads")
    assert units_of(found)["mlp.down_proj"] == units_of(declared)["mlp.down_proj"]


def test_widths_that_a_small_copy_has_in_other_proportions_are_those_of_the_model() -> None:
    """Keys and values made from one latent: heads of three sizes, none of which is another's multiple."""
    small = {**tiny_config("youtu").to_diff_dict(), "architectures": ["YoutuForCausalLM"]}
    real = {**small, "qk_nope_head_dim": 20, "qk_rope_head_dim": 8, "v_head_dim": 18}
    projections = ("self_attn.q_b_proj", "self_attn.kv_b_proj", "self_attn.o_proj")
    attention = Sublayer((projections[:1], projections[1:2], projections[2:]))
    bare = Architecture("youtu", "YoutuForCausalLM", "Youtu", "model", "model.layers", "lm_head", (attention,))
    found = with_units(bare, small, real)
    assert found.axes("heads") == (
        UnitAxis("self_attn.q_b_proj", "out", ("head:28",)),
        UnitAxis("self_attn.kv_b_proj", "out", ("kv_head:38",)),
        UnitAxis("self_attn.o_proj", "in", ("query",)),
    )
    assert found.config_keys == {HEAD_DIM_KEY: "v_head_dim"}


def test_layers_are_in_one_group_where_they_are_in_every_block_that_has_both() -> None:
    attention = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))
    assert merged_groups([attention, attention]) == attention
    shared_keys = (("q",), ("o",), ("gate", "up"), ("down",))
    assert merged_groups([shared_keys, attention]) == attention
    recurrent = (("in",), ("out",), ("gate",), ("up",), ("down",))
    merged = merged_groups([attention, recurrent])
    assert set(merged) == {("q", "k", "v"), ("o",), ("in",), ("out",), ("gate",), ("up",), ("down",)}
    assert merged.index(("in",)) < merged.index(("out",)) < merged.index(("gate",)) < merged.index(("down",))


def test_a_small_copy_has_as_many_query_heads_for_each_of_keys() -> None:
    settings: dict[str, JsonValue] = {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
        "num_key_value_heads": 8, "num_hidden_layers": 80, "vocab_size": 128256, "eos_token_id": 128009,
    }  # fmt: skip
    small = open_config(next(narrowed(shortened(settings, 80, 2))))
    assert small.num_hidden_layers == 2
    assert small.num_attention_heads // small.num_key_value_heads == 8 and small.num_key_value_heads >= 2
    assert small.hidden_size == small.num_attention_heads * small.head_dim <= 256
    assert small.eos_token_id < small.vocab_size <= 512
