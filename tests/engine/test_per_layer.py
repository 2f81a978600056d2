"""Layers of different shapes: counts and rankings that meet the ratio, checkpoints that load, and what is never run."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.artifacts.checkpoint import write_checkpoint
from core.catalogue.compatibility import check_job
from core.catalogue.families import FAMILIES
from core.catalogue.model_folder import ModelDescription, inspect_folder
from core.catalogue.parameters import LLMPrunerParameters
from core.catalogue.per_layer import LAYERS_KEY, MODELLING_FILE, modelling_file
from core.catalogue.structure import Kind, LayerShape, ModelStructure, Ranking, group_counts, rank_groups
from core.errors import InvalidParameters, InvalidRequest, InvalidSparsity, ReloadCheckFailed, UnsafeConfig
from core.evaluation.reload import reload_check
from core.models.folder import open_model
from core.models.per_layer import load_model
from core.models.weights import load_tensors
from core.pruning.ranking import ranked_counts
from core.pruning.recovery.recover import recover
from core.pruning.run import walk_for
from core.pruning.structure import Cut
from core.pruning.walk import GroupRow, PruneResult
from tests.engine.test_recovery import recipe
from tests.engine.test_structured import edit
from tests.engine.tiny import CONFIGS, make_model, make_tokens

CPU = torch.device("cpu")
PROTECTED = {"protected_first": 1, "protected_last": 0}

LOAD = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from core.evaluation.reload import reload_check
for artifact, expected in json.load(sys.stdin):
    figures = reload_check(Path(artifact), Path(expected), device=torch.device("cpu"))
    assert figures["trust_remote_code"] == Path(artifact, "modeling_secateur.py").exists()
    model = AutoModelForCausalLM.from_pretrained(artifact, trust_remote_code=True)
    asked = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    tokens = torch.arange(4, 16)[None]
    assert torch.equal(model.generate(tokens, **asked), model.generate(tokens, use_cache=False, **asked)), artifact
    logits = model(input_ids=tokens).logits
    model.set_attn_implementation("eager")
    assert torch.allclose(model(input_ids=tokens).logits, logits, atol=1e-5)
    model.save_pretrained(Path(artifact).with_name("again"))
    again = AutoModelForCausalLM.from_pretrained(Path(artifact).with_name("again"), trust_remote_code=True)
    assert torch.allclose(again(input_ids=tokens).logits, logits, atol=1e-5)
    print(artifact)
"""


def prune(
    folder: Path, work: Path, method: str, sparsity: float | None, parameters: dict[str, Any], **setting: Any
) -> tuple[Path, PruneResult]:
    """Prune a model of ours in layout per_layer, and save it as `work`/artifact."""
    work.mkdir(parents=True)
    walk = walk_for(
        open_model(folder, own_artifact=True),
        {"method": method, "sparsity": sparsity, "pattern": setting.pop("pattern", None), "parameters": parameters},
        layout=setting.pop("layout", "per_layer"), device=CPU, work=work,
        **{"calibration": make_tokens(), "evaluations": {}} | setting,
    )  # fmt: skip
    result = walk.run()
    write_checkpoint(result.files, result.unchanged, folder, work / "artifact", config=result.config)
    return work / "artifact", result


def config_of(artifact: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((artifact / "config.json").read_bytes())
    return read


def shapes_of(artifact: Path) -> list[LayerShape]:
    structure = inspect_folder(artifact, own_artifact=True).structure
    assert structure is not None
    return structure.layers


def load_all(made: list[tuple[str, str]], work: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", LOAD], input=json.dumps(made), capture_output=True,
        text=True, timeout=240, env=os.environ | {"HF_MODULES_CACHE": str(work / "modules"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert len(answer.stdout.splitlines()) == len(made)


@pytest.mark.timeout(300)
def test_every_family_loads_by_its_modelling_file_and_by_our_own_builder(tmp_path: Path) -> None:
    made = []
    variants: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in CONFIGS]
    variants += [("llama", {"num_key_value_heads": heads}) for heads in (1, 4)]
    for name, changes in variants:
        place = tmp_path / f"{name}-{changes.get('num_key_value_heads', '')}"
        folder = make_model(place / "model", name, **changes)
        dense = inspect_folder(folder)
        for method, parameters in (("llm-pruner", PROTECTED), ("random-structured", {"scope": "model", "round_to": 1})):
            artifact, result = prune(folder, place / method, method, 0.2, parameters)
            opened = open_model(artifact, own_artifact=True)
            assert opened.description.layout == "per_layer"
            assert dense.parameters - opened.description.parameters == result.removed > 0
            shapes = opened.description.structure
            assert shapes is not None and not shapes.is_uniform and dense.structure is not None
            if method == "llm-pruner":
                assert shapes.layers[0] == dense.structure.layers[0]
            expected = load_tensors(result.verification)
            with torch.inference_mode():
                logits = load_model(opened, CPU)(input_ids=expected["tokens"]).logits
            torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=1e-4)
            made.append((str(artifact), str(result.verification)))
    load_all(made, tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["llama", "gpt-neox"])
def test_an_artifact_whose_layers_differ_is_a_model_for_everything(name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name)
    first, _ = prune(folder, tmp_path / "first", "random-structured", 0.1, PROTECTED)
    made = []
    evaluations = {"text": make_tokens(2, seed=5)}
    for method, sparsity, layout, more in (
        ("llm-pruner", 0.1, "per_layer", {"parameters": PROTECTED}),
        ("l2-structured", 0.1, "per_layer", {"parameters": {"scope": "model", "round_to": 1}}),
        ("depth", 0.3, "uniform", {"parameters": {"criterion": "angular"}}),
        ("wanda", 0.5, "uniform", {"pattern": "unstructured"}),
        ("sparsegpt", None, "uniform", {"pattern": "2:4"}),
    ):
        parameters = more.pop("parameters", {})
        artifact, result = prune(
            first, tmp_path / method, method, sparsity, parameters, layout=layout, evaluations=evaluations, **more
        )
        assert result.removed > 0 and result.perplexity["text"].pruned > 0
        if method in ("wanda", "sparsegpt"):
            assert config_of(artifact) == config_of(first) and (artifact / MODELLING_FILE).is_file()
        if method == "depth":
            gone = {row.layer for row in result.layers if isinstance(row, GroupRow) and row.kind == "layer"}
            kept = [shape for layer, shape in enumerate(shapes_of(first)) if layer not in gone]
            assert shapes_of(artifact) == kept and len(kept) == 2
        made.append((str(artifact), str(result.verification)))
    recovered_from = open_model(Path(made[-1][0]), own_artifact=True)
    for method in ("finetune", "lora"):
        work = tmp_path / method
        linears = [linear.name for linear in recovered_from.description.linears]
        recovered = recover(
            recovered_from, recipe(method, steps=2), make_tokens(8), linears=linears, work=work, device=CPU
        )
        write_checkpoint(recovered.files, recovered.unchanged, recovered_from.path, work / "artifact")
        saved = open_model(work / "artifact", own_artifact=True)
        assert saved.description.structure == recovered_from.description.structure
        load_model(saved, CPU)
    load_all(made, tmp_path)


@pytest.mark.parametrize("method", ["l2-structured", "llm-pruner"])
def test_ranked_over_the_model_the_one_useless_kv_group_is_all_that_goes(method: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama", num_attention_heads=4, num_key_value_heads=2)
    prefix = "model.layers.1.self_attn"
    query, key = slice(16, 32), slice(8, 16)
    edit(folder, {
        f"{prefix}.q_proj.weight": lambda weight: weight[query].mul_(1e-4),
        f"{prefix}.k_proj.weight": lambda weight: weight[key].mul_(1e-4),
        f"{prefix}.v_proj.weight": lambda weight: weight[key].mul_(1e-4),
        f"{prefix}.o_proj.weight": lambda weight: weight[:, query].mul_(1e-4),
    })  # fmt: skip
    description = inspect_folder(folder)
    assert description.structure is not None
    ratio = description.structure.kv_group_parameters / description.parameters
    artifact, result = prune(
        folder, tmp_path / "work", method, ratio, {"scope": "model", "protected_first": 0, "protected_last": 0}
    )
    cut = Cut.model_validate(json.loads((tmp_path / "work" / "cut.json").read_text())["cut"])
    assert {layer: (each.heads, each.channels) for layer, each in cut.layers.items()} == {
        0: (None, None), 1: ([0], None), 2: (None, None)
    }  # fmt: skip
    assert result.removed == description.structure.kv_group_parameters
    assert config_of(artifact)[LAYERS_KEY] == [{}, {"num_attention_heads": 2, "num_key_value_heads": 1}, {}]


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_layers_that_come_out_alike_make_a_plain_checkpoint(scope: str, tmp_path: Path) -> None:
    """Nothing goes, or the same of each: no code is needed to load it."""
    folder = make_model(tmp_path / "model", "llama")
    sparsity = 0.2 if scope == "layer" else 0.0
    artifact, _ = prune(folder, tmp_path / "work", "l2-structured", sparsity, {"scope": scope})
    assert not (artifact / MODELLING_FILE).exists()
    assert not {"auto_map", LAYERS_KEY} & config_of(artifact).keys()
    inspect_folder(artifact)


def test_heads_that_the_familys_config_would_refuse_are_fine_where_layers_have_configs_of_their_own(
    tmp_path: Path,
) -> None:
    folder = make_model(tmp_path / "model", "llama", num_key_value_heads=4)
    artifact, result = prune(folder, tmp_path / "work", "l2-structured", 0.15, {})
    structure = inspect_folder(artifact, own_artifact=True).structure
    assert structure is not None and structure.is_uniform and structure.layers[0].heads == 3  # 3 do not divide 32
    load_all([(str(artifact), str(result.verification))], tmp_path)


def test_the_paper_s_protected_layers_scale_with_the_depth() -> None:
    unset = LLMPrunerParameters()
    assert unset.protected(32) == frozenset({0, 1, 2, 3, 30, 31})
    assert unset.protected(30) == frozenset({0, 1, 2, 3, 28, 29})
    assert unset.protected(3) == frozenset()
    assert LLMPrunerParameters(protected_first=0, protected_last=2).protected(4) == frozenset({2, 3})


shapes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(16, 2000)), min_size=2, max_size=6)


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
        kv_group_parameters=drawn[0][1] * head + key, layers=layers,
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    drawn=shapes,
    ratio=st.floats(0, 0.9),
    round_to=st.sampled_from([1, 8, 64]),
    attention=st.sampled_from(["kv_groups", "query_heads", "none"]),
    first=st.integers(0, 1),
    rank=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_protected_layers_stay_and_the_others_meet_the_ratio(
    drawn: list[tuple[int, int, int]],
    ratio: float,
    round_to: int,
    attention: Any,
    first: int,
    rank: bool,
    seed: int,
) -> None:
    structure = structure_of(drawn)
    total = structure.parameters + 1000
    protected = frozenset(range(first))
    asked: dict[str, Any] = {
        "parameters": total, "ratio": ratio, "attention": attention, "round_to": round_to, "protected": protected
    }  # fmt: skip
    step = round_to * structure.channel_parameters
    try:
        if rank:
            ranking = rank_groups(structure, **asked)
            counts = ranked_counts(structure, random_scores(structure, attention, seed), attention, ranking)
            tolerance = step
        else:
            counts = group_counts(structure, hidden_size=64, is_uniform=False, **asked)
            tolerance = step * (len(drawn) - first)
    except InvalidSparsity:
        return
    assert abs(sum(each.removed for each in counts) - ratio * total) <= tolerance + 1e-6
    for layer, (shape, each) in enumerate(zip(structure.layers, counts, strict=True)):
        assert 0 < each.channels <= shape.channels
        assert each.channels % round_to == 0 or each.channels == shape.channels
        assert 0 < each.kv_heads <= shape.kv_heads and each.heads % each.kv_heads == 0
        lost = (shape.channels - each.channels) * structure.channel_parameters
        query, keys = shape.heads - each.heads, shape.kv_heads - each.kv_heads
        assert each.removed == lost + (query + keys) * structure.head_parameters
        if attention == "kv_groups":
            assert each.heads * shape.kv_heads == shape.heads * each.kv_heads
        elif attention == "query_heads":
            assert each.kv_heads == shape.kv_heads
        if layer in protected:
            assert each.removed == 0


def random_scores(structure: ModelStructure, attention: str, seed: int) -> list[dict[Kind, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    scores: list[dict[Kind, torch.Tensor]] = []
    for layer in structure.layers:
        kinds: dict[Kind, int] = {"channels": layer.channels}
        if attention != "none":
            kinds["heads"] = layer.kv_heads if attention == "kv_groups" else layer.heads
        scores.append({kind: torch.rand(units, generator=generator) for kind, units in kinds.items()})
    return scores


def test_a_layer_of_less_importance_loses_more_whatever_the_scale_of_its_scores() -> None:
    structure = structure_of([(2, 2, 256)] * 3)
    even = torch.full((256,), 1.0)
    poor = torch.cat([torch.full((128,), 0.01), torch.full((128,), 1.0)])
    heads = torch.full((2,), 1e3)
    scores: list[dict[Kind, torch.Tensor]] = [
        {"heads": heads, "channels": even},
        {"heads": 5 * heads, "channels": 5 * poor},
        {"heads": heads, "channels": even},
    ]
    ranking = Ranking(0.1, 96 * structure.channel_parameters, frozenset(), 8)
    counts = ranked_counts(structure, scores, "kv_groups", ranking)
    assert [(each.channels, each.heads) for each in counts] == [(256, 4), (256 - 96, 4), (256, 4)]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> ModelDescription:
    return inspect_folder(make_model(tmp_path_factory.mktemp("models") / "llama", "llama"))


@pytest.mark.parametrize(
    ("method", "sparsity", "layout", "parameters", "error", "says"),
    [
        ("llm-pruner", 0.2, "uniform", {"protected_first": 1}, InvalidParameters, "needs output.layout 'per_layer'"),
        ("l2-structured", 0.2, "uniform", {"protected_last": 1}, InvalidParameters, "needs output.layout 'per_layer'"),
        ("llm-pruner", 0.2, "uniform", {"scope": "model"}, InvalidParameters, "needs output.layout 'per_layer'"),
        ("llm-pruner", 0.2, "per_layer", {"protected_first": 3}, InvalidParameters, "all 3 layers are protected"),
        ("llm-pruner", 0.6, "per_layer", {"protected_first": 2}, InvalidSparsity, "the nearest is 0.2"),
        ("llm-pruner", 0.6, "per_layer", {"scope": "model", "protected_first": 2}, InvalidSparsity, "nearest is 0.2"),
        ("magnitude", 0.5, "per_layer", {}, InvalidRequest, "leaves layers as wide as they are"),
        ("depth", 0.3, "per_layer", {}, InvalidRequest, "leaves layers as wide as they are"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_it_is_queued(
    described: ModelDescription, method: str, sparsity: float, layout: Any, parameters: dict[str, Any],
    error: type[Exception], says: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=says):
        check_job(described, method, None, sparsity, parameters, layout=layout)


def test_differing_layers_stay_differing(tmp_path: Path) -> None:
    artifact, _ = prune(make_model(tmp_path / "model"), tmp_path / "work", "l2-structured", 0.2, PROTECTED)
    description = inspect_folder(artifact, own_artifact=True)
    with pytest.raises(InvalidParameters, match="different shapes already; use 'per_layer'"):
        check_job(description, "llm-pruner", None, 0.2, {}, layout="uniform")
    assert check_job(description, "llm-pruner", None, 0.1, {}, layout="per_layer").layout == "per_layer"
    for method, sparsity in (("wanda", 0.5), ("depth", 0.3), ("recover", None)):
        assert check_job(description, method, None, sparsity, {}, layout="uniform").layout == "per_layer"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_modelling_file_imports_transformers_and_nothing_else(family: Any) -> None:
    tree = ast.parse(modelling_file(family))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"transformers"} and plain == {"copy"}


def test_only_a_verified_artifact_opens_and_its_code_never_runs_but_unchanged(tmp_path: Path) -> None:
    artifact, result = prune(make_model(tmp_path / "model"), tmp_path / "work", "l2-structured", 0.2, PROTECTED)
    with pytest.raises(UnsafeConfig, match="name it job:ID"):
        inspect_folder(artifact)
    file, ran = artifact / MODELLING_FILE, tmp_path / "ran"
    file.write_text(f"open({str(ran)!r}, 'w')\n{file.read_text()}")
    load_model(open_model(artifact, own_artifact=True), CPU)
    with pytest.raises(ReloadCheckFailed, match=f"{MODELLING_FILE} is not the file that was written for Llama"):
        reload_check(artifact, result.verification, device=CPU)
    assert not ran.exists()
    good = config_of(artifact)
    for change in (
        {"auto_map": {"AutoModelForCausalLM": "elsewhere.PerLayerLlamaForCausalLM"}},
        {"auto_map": good["auto_map"] | {"AutoConfig": "modeling_secateur.Config"}},
        {"nested": {"auto_map": good["auto_map"]}},
        {"_attn_implementation": "some/kernel"},
    ):
        (artifact / "config.json").write_text(json.dumps(good | change))
        with pytest.raises(UnsafeConfig):
            open_model(artifact, own_artifact=True)
    without = {key: value for key, value in good.items() if key != "auto_map"}
    (artifact / "config.json").write_text(json.dumps(without))
    with pytest.raises(UnsafeConfig):
        inspect_folder(artifact)
