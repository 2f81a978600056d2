"""Heads of mixtures: they go beside the channels of experts, also where keys and values come from one latent."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench.architectures.masked import without_units
from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.heterogeneous import Layout
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.models.tracing.discover import discover_with_copy
from core.engine.pruning.results import UnitRow
from tests.engine.pruning.test_expert_channels import NO_REFIT, cut, divergence
from tests.engine.pruning.test_experts import GROUPED, PER_EXPERT, STACKED, WEIGHTS, differences, opened, stock

LATENT = GROUPED
"""Its queries, and its keys with its values, are made of one latent each."""


def test_heads_are_found_in_what_makes_queries_keys_and_values_of_latents() -> None:
    family = opened(LATENT).family
    runs = {axis.module: (axis.side, axis.runs) for axis in family.axes("heads")}
    assert runs == {
        "self_attn.q_b_proj": ("out", ("head:24",)),
        "self_attn.kv_b_proj": ("out", ("key:2",)),
        "self_attn.o_proj": ("in", ("query",)),
    }
    assert family.config_keys["head_dim"] == "v_head_dim"
    assert family.axes("channels"), "those of its experts are as they were"


@pytest.mark.parametrize(("model_type", "layout"), [(LATENT, "uniform"), (STACKED, "per_layer")])
def test_the_classes_of_artifacts_give_the_logits_of_the_masked_model(
    model_type: str, layout: Layout, tmp_path: Path
) -> None:
    folder = opened(model_type)
    result = cut(folder, tmp_path, "l2-structured", layout=layout, attention="kv_groups", compensation=NO_REFIT)
    rows = [row for row in result.layers if isinstance(row, UnitRow)]
    assert any(row.after < row.before for row in rows if row.kind == "heads")
    assert any(row.after < row.before for row in rows if row.kind == "channels")
    narrow = AutoModelForCausalLM.from_pretrained(
        tmp_path / "artifact", local_files_only=True, trust_remote_code=layout == "per_layer"
    ).eval()
    dense = stock(folder.path)
    without_units(dense, narrow)
    assert max(differences(narrow, dense)) < 1e-4


def test_what_reads_heads_is_fitted_and_the_frontier_takes_both(tmp_path: Path) -> None:
    folder = opened(PER_EXPERT)
    found, weights = [], []
    for method, given in (
        ("flap", {"compensation": NO_REFIT, "bias": False}),
        ("flap", {"compensation": {"refit": 1.0}, "bias": False}),
        ("frontier", {"drop_layers": 0}),
    ):
        artifact = tmp_path / str(len(found)) / "artifact"
        cut(folder, artifact.parent, method, attention="kv_groups", **given)
        found.append(divergence(folder.path, artifact))
        weights.append(stock(artifact).state_dict())
    plain, refitted, frontier = found
    assert refitted < plain * 0.6 and frontier < plain * 0.6
    reading = "model.layers.0.self_attn.o_proj.weight"
    assert all(each[reading].shape[1] * 2 == stock(folder.path).get_parameter(reading).shape[1] for each in weights)
    assert not torch.equal(weights[0][reading], weights[1][reading])


def test_heads_that_a_norm_spans_whose_width_no_setting_counts_stay(tmp_path: Path) -> None:
    tiny_model("olmoe", 0).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    architecture, _ = discover_with_copy(config, read_header(tmp_path / WEIGHTS))
    assert "each row of self_attn.q_proj affects all of its output, as a norm" in architecture.refused["heads"]
    assert not architecture.axes("heads") and architecture.axes("channels")
