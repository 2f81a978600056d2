"""Structured pruning: counts that meet the ratio, the right rows and columns, gradients, and models that load."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import WidthRequest, counts_for_ratio
from core.engine.architectures.units import removed_kinds
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.blocks.language_pass import UnitRemovalPass
from core.engine.pruning.results import PruneResult
from core.engine.pruning.streams.block_gradients import backward_blocks
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.stream import Stream
from core.engine.pruning.units.removal import layer_unit_sets, remove_units
from core.engine.resume.store import ResumeStore
from core.pipeline.plans import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import InvalidParameters, InvalidSparsity
from tests.engine.apart import Apart
from tests.engine.crossing import crossed
from tests.engine.reloading import reload
from tests.engine.sweeping import request_for, with_heads
from tests.engine.tiny import make_model, make_tokens
from tests.families import LANGUAGE_MODELS, reloaded, share_of


def removal(folder: Path, work: Path, method: str, sparsity: float, **setting: Any) -> PruneResult:
    opened = open_model(folder)
    asked = {name: setting.pop(name) for name in ("parameters", "layout", "at_least") if name in setting}
    asked["parameters"] = with_heads(opened, method, asked.get("parameters", {}))
    request = request_for(opened, method, sparsity, **asked)
    work.mkdir(parents=True, exist_ok=True)
    walk = walk_for(
        opened, request, device=torch.device("cpu"), work=work,
        **{"calibration": make_tokens(), "evaluations": {}} | setting,
    )  # fmt: skip
    assert isinstance(walk, UnitRemovalPass)
    return walk.run()


def save(result: PruneResult, source: Path, target: Path) -> Path:
    write_checkpoint(result.files, result.unchanged, source, target, config=result.config)
    return target


def silence(weight: torch.Tensor, *, columns: torch.Tensor) -> None:
    weight[:, columns] = 0


def edit(folder: Path, changes: dict[str, Any]) -> None:
    """Change weights by name, each by a function of the tensor."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, change in changes.items():
            change(model.get_parameter(name))
    model.save_pretrained(folder)


@crossed("name, way", LANGUAGE_MODELS, reloaded("widths", "layers"), in_every_run=["llama", "gpt2"])
def test_what_is_left_of_every_family_reloads_in_a_fresh_process(
    name: str, way: tuple[str, str], tmp_path: Path, apart: type[Apart]
) -> None:
    folder = make_model(tmp_path / "model", name)
    result = removal(folder, tmp_path / "work", way[0], share_of(way[1]))
    artifact = save(result, folder, tmp_path / "artifact")
    dense, cut = inspect_folder(folder), inspect_folder(artifact)
    assert dense.parameters - cut.parameters == result.removed > 0
    assert cut.bytes < dense.bytes
    apart(reload, artifact, result.verification).wait()


@pytest.mark.parametrize("attention", ["kv_groups", "query_heads"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3"])
def test_removing_what_nothing_reads_changes_nothing(name: str, attention: Any, tmp_path: Path) -> None:
    """Heads and channels whose outputs are multiplied by zero: a block without them gives the same outputs."""
    folder = make_model(tmp_path / "model", name)
    opened = open_model(folder)
    family, structure = opened.family, opened.description.structure
    assert structure is not None
    groups = {each.kind: each for each in layer_unit_sets(family, structure, 1, removed_kinds(attention))}
    cut = {"heads": [1] if attention == "kv_groups" else [1, 2], "channels": list(range(5, 40))}
    changes = {}
    for kind, each in groups.items():
        unit_slice = each.reading_slice
        gone = torch.tensor([unit for unit in range(each.units) if unit not in cut[kind]])
        changes[f"{family.blocks}.1.{unit_slice.name}"] = partial(silence, columns=unit_slice.features(gone))
    edit(folder, changes)
    opened = open_model(folder)
    streamed = StreamedModel(opened, dtype=torch.float32, device=torch.device("cpu"))
    tensors = remove_units(streamed.read_block(1), list(groups.values()), cut)
    assert tensors[f"{family.sublayers[1].output}.weight"].shape[1] == 35
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = whole(input_ids=make_tokens(2)).logits
    layer = whole.get_submodule(f"{family.blocks}.1")
    for name_, tensor in tensors.items():
        layer.get_submodule(name_.rpartition(".")[0])._parameters[name_.rpartition(".")[2]] = torch.nn.Parameter(tensor)
    attention_module = layer.self_attn
    if attention == "kv_groups":
        changed = {"num_key_value_heads": 1, "num_heads": 2, "num_attention_heads": 2}
    else:
        changed = {"num_heads": 2, "num_attention_heads": 2, "num_key_value_groups": 1}
    config = type(whole.config).from_dict(
        whole.config.to_dict()
        | {"num_attention_heads": 2, "head_dim": 8}
        | ({"num_key_value_heads": 1} if attention == "kv_groups" else {})
    )
    config._attn_implementation = whole.config._attn_implementation
    attention_module.config = config
    for attribute, value in changed.items():
        if hasattr(attention_module, attribute):
            setattr(attention_module, attribute, value)
    torch.testing.assert_close(whole(input_ids=make_tokens(2)).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("criterion", ["perplexity", "angular", "block_influence"])
def test_a_layer_that_does_nothing_is_the_one_that_goes(criterion: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "gemma3")
    layer = "model.layers.1"
    edit(folder, {
        f"{layer}.post_attention_layernorm.weight": lambda weight: weight.fill_(-1),
        f"{layer}.post_feedforward_layernorm.weight": lambda weight: weight.fill_(-1),
    })  # fmt: skip
    tokens = make_tokens(4)
    result = removal(
        folder, tmp_path / "work", "depth", 0.25, parameters={"criterion": criterion}, evaluations={"text": tokens}
    )
    if criterion == "perplexity":  # random weights: another layer may even hurt
        assert result.perplexity["text"].pruned <= result.perplexity["text"].dense * 1.05
    else:
        assert result.perplexity["text"].pruned == pytest.approx(result.perplexity["text"].dense, rel=1e-5)
        assert result.config is not None and result.config["layer_types"] == ["sliding_attention", "sliding_attention"]


@pytest.mark.parametrize("name", ["gemma2", "gpt2"])
def test_gradients_block_by_block_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name)
    opened = open_model(folder)
    tokens = make_tokens(3, 20)
    streamed = StreamedModel(opened, dtype=torch.float32, device=torch.device("cpu"))
    names = [[f"{linear}.weight" for linear in opened.family.linears]] * len(streamed)
    found, squares = {}, {}

    def keep(block: int, weights: Any, gradients: Any, squared: Any) -> None:
        for each, gradient in gradients.items():
            found[f"{opened.family.blocks}.{block}.{each}"] = gradient
            squares[f"{opened.family.blocks}.{block}.{each}"] = squared[each]

    stream = Stream(
        "gradients", tokens, streamed, ResumeStore(tmp_path / "scratch", ""), ActivationBudget(4 * 20 * 32 * 4),
        dtype=torch.float32, micro_batch=1, resumable=False, keeps_all=True,
    )  # fmt: skip
    loss = backward_blocks(stream, names, keep, squares=True)
    assert [*(tmp_path / "scratch").rglob("*")], "some were in memory, some in files"
    assert not [each for each in (tmp_path / "scratch").rglob("*") if each.is_file()], "what was read is gone"
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    total, expected = 0.0, {}
    for sequence in tokens.split(1):
        model.zero_grad()
        each = model(input_ids=sequence, labels=sequence).loss
        each.backward()
        total += each.item() / 3
        for key in found:
            gradient = model.get_parameter(key).grad
            assert gradient is not None
            expected.setdefault(key, []).append(gradient.clone())
    assert loss == pytest.approx(total, rel=1e-4)
    for key, gradients in expected.items():
        stacked = torch.stack(gradients)
        torch.testing.assert_close(found[key], stacked.mean(0), atol=2e-5, rtol=1e-3)
        torch.testing.assert_close(squares[key], stacked.square().mean(0), atol=2e-5, rtol=2e-3)


@settings(max_examples=100, deadline=None)
@given(
    kv_heads=st.integers(1, 8),
    group=st.integers(1, 8),
    channels=st.integers(16, 4096),
    ratio=st.floats(0, 0.9),
    round_to=st.sampled_from([1, 8, 64]),
    divides=st.booleans(),
    attention=st.sampled_from(["kv_groups", "query_heads"]),
)
def test_counts_meet_the_ratio_within_one_aligned_group_or_say_what_is_nearest(
    kv_heads: int, group: int, channels: int, ratio: float, round_to: int, divides: bool, attention: Any
) -> None:
    hidden, head_dim, layers = kv_heads * group * 16, 16, 3
    head, key = 2 * hidden * head_dim, 2 * hidden * head_dim
    block = kv_heads * (group * head + key) + 3 * hidden * channels
    kinds = removed_kinds(attention)
    shape = LayerShape(channels=channels, heads=kv_heads * group, kv_heads=kv_heads, parameters=block)
    structure = ModelStructure(
        head_dim=head_dim, heads_divide_hidden=divides, channel_parameters=3 * hidden, head_parameters=head,
        kv_group_parameters=group * head + key, layers=[shape] * layers,
    )  # fmt: skip
    total = layers * block + 1000
    try:
        found = counts_for_ratio(structure, WidthRequest(kinds, total, ratio, round_to, hidden_size=hidden))
    except InvalidSparsity:
        return
    counts = found[0]
    assert len(found) == layers and all(each == counts for each in found)
    assert abs(layers * counts.removed - ratio * total) <= layers * round_to * 3 * hidden + 1e-6
    left = counts.units["channels"]
    heads, keys = (size for size in kinds[0].sizes(shape, counts.units["heads"]).values())
    assert 0 < left <= channels and (left % round_to == 0 or left == channels)
    assert heads % keys == 0 and 0 < keys <= kv_heads
    assert not divides or heads == kv_heads * group or hidden % heads == 0
    lost = (channels - left) * 3 * hidden + (kv_heads * group - heads) * head + (kv_heads - keys) * key
    assert lost == counts.removed


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelDescription]:
    folder = tmp_path_factory.mktemp("models")
    return {name: inspect_folder(make_model(folder / name, name)) for name in ("llama", "gpt2")}


@pytest.mark.parametrize(
    ("model", "method", "sparsity", "parameters", "error", "says"),
    [
        ("llama", "llm-pruner", 0.95, {}, InvalidSparsity, "the nearest is"),
        ("llama", "llm-pruner", None, {}, InvalidSparsity, "share of the model's parameters"),
        ("llama", "depth", 0.05, {}, InvalidSparsity, "each layer has 0."),
        ("llama", "depth", 0.95, {}, InvalidSparsity, "each layer has 0."),
        ("gpt2", "llm-pruner", 0.2, {"attention": "kv_groups"}, InvalidParameters, "heads of this family cannot"),
        ("llama", "llm-pruner", 0.2, {"round_to": 0}, InvalidParameters, "parameters.round_to"),
        ("llama", "depth", 0.3, {"round_to": 8}, InvalidParameters, "depth takes: "),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_queued(
    described: dict[str, ModelDescription], model: str, method: str, sparsity: float | None, parameters: dict[str, Any],
    error: type[Exception], says: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=says):
        resolve_request(described[model], UnresolvedRequest(method, None, sparsity, parameters))
