"""Blocks of several kinds are told as one; small copies keep what a model's heads are like."""

from pydantic import JsonValue

from core.engine.models.tracing.configuration import open_config
from core.engine.models.tracing.discover import merged_groups
from core.engine.models.tracing.resizing import narrowed, shortened


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
