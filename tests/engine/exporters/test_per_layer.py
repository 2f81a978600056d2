"""Layers of different shapes: checkpoints that load and are models for other jobs, and code that is never run."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.heterogeneous import LAYERS_KEY, MODELLING_FILE, modelling_file
from core.engine.architectures.structure import LayerShape
from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.models.tensors import load_tensors
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.pruning.units.removal import UnitCounts
from core.engine.recovery.language import recover
from core.engine.resume.kinds import SELECTION
from core.pipeline.plans import walk_for
from secateur_wire.errors import ReloadCheckFailed, UnsafeConfig
from tests.engine.apart import Apart
from tests.engine.crossing import crossed, partly
from tests.engine.pruning.test_structured import edit
from tests.engine.recovery.test_recovery import recipe
from tests.engine.reloading import reload_with_code
from tests.engine.resuming import saved_state
from tests.engine.sweeping import request_for, with_heads
from tests.engine.tiny import make_model, make_tokens
from tests.families import LANGUAGE_MODELS

CPU = torch.device("cpu")
PROTECTED = {"protected_first": 1, "protected_last": 0}


def prune(
    folder: Path, work: Path, method: str, sparsity: float | None, parameters: dict[str, Any], **setting: Any
) -> tuple[Path, PruneResult]:
    """Prune a model of ours in layout per_layer, and save it as `work`/artifact."""
    work.mkdir(parents=True)
    opened = open_model(folder, own_artifact=True)
    asked = with_heads(opened, method, parameters)
    request = request_for(
        opened, method, sparsity, setting.pop("pattern", None), asked, layout=setting.pop("layout", "per_layer")
    )
    walk = walk_for(
        opened, request, device=CPU, work=work,
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


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "protected": ("llm-pruner", PROTECTED),
    "ranked": ("random-structured", {"scope": "model", "round_to": 1}),
}
KEY_VALUE_HEADS = {"llama of 1 KV head": 1, "llama of 4 KV heads": 4}


@crossed("name, way", [*LANGUAGE_MODELS, *KEY_VALUE_HEADS], list(WAYS))
def test_every_family_loads_by_its_modelling_file_and_by_our_own_builder(
    name: str, way: str, tmp_path: Path, apart: type[Apart]
) -> None:
    changes = {"num_key_value_heads": KEY_VALUE_HEADS[name]} if name in KEY_VALUE_HEADS else {}
    folder = make_model(tmp_path / "model", "llama" if changes else name, **changes)
    dense = inspect_folder(folder)
    method, parameters = WAYS[way]
    artifact, result = prune(folder, tmp_path / "work", method, 0.2, parameters)
    opened = open_model(artifact, own_artifact=True)
    assert opened.description.layout == "per_layer"
    assert dense.parameters - opened.description.parameters == result.removed > 0
    shapes = opened.description.structure
    assert shapes is not None and not shapes.is_uniform and dense.structure is not None
    if way == "protected":
        assert shapes.layers[0] == dense.structure.layers[0]
    expected = load_tensors(result.verification)
    with torch.inference_mode():
        logits = load_model(opened, CPU)(input_ids=expected["tokens"]).logits
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=1e-4)
    apart(reload_with_code, [(artifact, result.verification)]).wait()


@partly("name", ["llama", "gpt-neox"], in_every_run=["llama"])
def test_an_artifact_whose_layers_differ_is_a_model_for_everything(
    name: str, tmp_path: Path, apart: type[Apart]
) -> None:
    folder = make_model(tmp_path / "model", name)
    first, _ = prune(folder, tmp_path / "first", "random-structured", 0.1, PROTECTED)
    made = []
    evaluations = {"text": make_tokens(2, seed=5)}
    for method, sparsity, layout, parameters in (
        ("llm-pruner", 0.1, "per_layer", PROTECTED),
        ("depth", 0.3, "uniform", {"criterion": "angular"}),
        ("wanda", 0.5, "uniform", {}),
    ):
        artifact, result = prune(
            first, tmp_path / method, method, sparsity, parameters, layout=layout, evaluations=evaluations
        )
        assert result.removed > 0 and result.perplexity["text"].pruned > 0
        if method == "wanda":
            assert config_of(artifact) == config_of(first) and (artifact / MODELLING_FILE).is_file()
        if method == "depth":
            gone = {row.layer for row in result.layers if isinstance(row, UnitRow) and row.kind == "layer"}
            kept = [shape for layer, shape in enumerate(shapes_of(first)) if layer not in gone]
            assert shapes_of(artifact) == kept and len(kept) == 2
        made.append((artifact, result.verification))
    recovered_from = open_model(made[-1][0], own_artifact=True)
    work, linears = tmp_path / "lora", [linear.name for linear in recovered_from.description.linears]
    recovered = recover(recovered_from, recipe("lora", steps=2), make_tokens(8), linears=linears, work=work, device=CPU)
    write_checkpoint(recovered.files, recovered.unchanged, recovered_from.path, work / "artifact")
    saved = open_model(work / "artifact", own_artifact=True)
    assert saved.description.structure == recovered_from.description.structure
    load_model(saved, CPU)
    apart(reload_with_code, made).wait()


def test_ranked_over_the_model_the_one_useless_kv_group_is_all_that_goes(tmp_path: Path) -> None:
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
    scope = {"scope": "model", "protected_first": 0, "protected_last": 0}
    artifact, result = prune(folder, tmp_path / "work", "llm-pruner", ratio, scope)
    cut = UnitCounts.model_validate(saved_state(tmp_path / "work", SELECTION))
    assert cut.kept == {0: {}, 1: {"heads": [0]}, 2: {}}
    assert result.removed == description.structure.kv_group_parameters
    assert config_of(artifact)[LAYERS_KEY] == [{}, {"num_attention_heads": 2, "num_key_value_heads": 1}, {}]


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_layers_that_come_out_alike_make_a_plain_checkpoint(scope: str, tmp_path: Path) -> None:
    """Nothing goes, or the same of each: no code is needed to load it."""
    folder = make_model(tmp_path / "model", "llama")
    sparsity = 0.3 if scope == "layer" else 0.0
    artifact, _ = prune(folder, tmp_path / "work", "l2-structured", sparsity, {"scope": scope})
    assert not (artifact / MODELLING_FILE).exists()
    config = config_of(artifact)
    assert not {"auto_map", LAYERS_KEY} & config.keys()
    left = {"num_attention_heads": 2, "num_key_value_heads": 1} if scope == "layer" else config_of(folder)
    assert config == config | {name: left[name] for name in ("num_attention_heads", "num_key_value_heads")}
    inspect_folder(artifact)


def test_heads_that_the_familys_config_would_refuse_are_fine_where_layers_have_configs_of_their_own(
    tmp_path: Path, apart: type[Apart]
) -> None:
    folder = make_model(tmp_path / "model", "llama", num_key_value_heads=4)
    artifact, result = prune(folder, tmp_path / "work", "l2-structured", 0.15, {})
    structure = inspect_folder(artifact, own_artifact=True).structure
    assert structure is not None and structure.is_uniform and structure.layers[0].heads == 3  # 3 do not divide 32
    apart(reload_with_code, [(artifact, result.verification)]).wait()


@pytest.mark.parametrize("family", LANGUAGE_ARCHITECTURES.values(), ids=LANGUAGE_ARCHITECTURES)
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
