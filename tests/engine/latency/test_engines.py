"""Engines: models of any shape are those of that shape, and are timed in turn."""

import pytest
import torch

from core.engine.exporters.engine import running
from core.engine.exporters.engine_process import SpeedTrial
from core.engine.exporters.gguf.runtime import LlamaCpp
from core.engine.latency.costs import Workload
from core.engine.latency.design import timed_shapes
from core.engine.latency.measure import costs_of_rounds, measured_costs, timing_of
from core.engine.latency.model_widths import model_widths
from core.engine.latency.registry import ENGINES
from core.engine.latency.small_models import random_model
from core.engine.latency.variants import BlockVariant, ModelShape
from core.engine.models.folder import open_model
from secateur_wire.errors import InvalidRequest, UnsupportedArchitecture
from tests.engine.tiny import make_model

_TRIAL = SpeedTrial(prompt=8, decoded=4, most_rounds=3, seconds=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return open_model(make_model(tmp_path_factory.mktemp("model"), num_hidden_layers=4))


def _logits(model, tokens):
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0]


def test_a_shape_has_its_own_sizes_in_each_layer_and_computes_nothing_that_it_leaves_out(folder):
    shape = ModelShape((BlockVariant(0, 24), BlockVariant(1, 0), BlockVariant(0, 0), BlockVariant(2, 48)), 24)
    model = random_model(folder, shape, torch.float32)
    sizes = {name: tuple(each.shape) for name, each in model.named_parameters() if "layers" in name}
    assert {name.split(".")[2] for name in sizes} == {"0", "1", "2"}
    assert not any(name.startswith("model.layers.0.self_attn") or "layers.1.mlp" in name for name in sizes)
    assert sizes["model.layers.0.mlp.gate_proj.weight"] == (24, 32)
    assert sizes["model.layers.1.self_attn.k_proj.weight"] == (8, 32)
    assert sizes["model.layers.2.self_attn.k_proj.weight"] == (16, 32)
    logits = _logits(model, [1, 2, 3])
    assert logits.shape == (3, 24)
    with torch.no_grad():  # an attention alone mixes tokens: without those of later layers, none would
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[2].self_attn.o_proj.weight.zero_()
    assert torch.equal(_logits(model, [1, 2, 3])[2], _logits(model, [5, 6, 3])[2])


@pytest.mark.parametrize("shape", [0, 8])
def test_a_gguf_file_of_a_shape_computes_what_the_model_of_that_shape_does(folder, tmp_path, shape):
    shapes = timed_shapes(model_widths(folder.description), 4, without_ffn=False)
    file = timing_of("llama-cpp").write(folder, shapes[shape], "F32", tmp_path / "model")
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    with running(LlamaCpp, largest_file=file.stat().st_size, tokens=100, threads=1) as llama_cpp:
        llama_cpp.open(file, len(tokens))
        found = torch.from_numpy(llama_cpp.logits(tokens).copy())
    expected = _logits(random_model(folder, shapes[shape], torch.float32), tokens)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_small_models_are_timed_in_turn(folder, tmp_path):
    info, widths = ENGINES["llama-cpp"], model_widths(folder.description)
    shapes = timed_shapes(widths, 2, without_ffn=info.without_ffn)
    workload = Workload(engine=info.id, type=next(iter(info.types)), threads=1)
    with timing_of(info.id).prepared(folder, shapes, workload, tmp_path) as timer:
        seconds = timer(_TRIAL)
    assert len(seconds) == len(shapes)
    assert {len(rounds) for rounds in seconds} == {3}
    assert all(time > 0 for rounds in seconds for each in rounds for time in each)
    assert len(costs_of_rounds(widths, shapes, seconds)) == 1 + 3


def test_what_an_engine_or_a_model_cannot_do_is_named(folder, tmp_path):
    with pytest.raises(InvalidRequest, match="'int3': use Q8_0, F16"):
        measured_costs(folder, Workload(engine="llama-cpp", type="int3", threads=1))
    without_ffn = ModelShape((BlockVariant(1, 0), BlockVariant(2, 48)), 64)
    with pytest.raises(InvalidRequest, match="layers without FFN"):
        timing_of("llama-cpp").write(folder, without_ffn, "F32", tmp_path / "model")
    gpt2 = open_model(make_model(tmp_path / "gpt2", "gpt2"))
    with pytest.raises(UnsupportedArchitecture, match="parts of GPT2LMHeadModel are not timed: its heads"):
        model_widths(gpt2.description)
