"""FLAP: what fluctuates least goes and leaves its mean behind, in models that load."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.engine.architectures.describe import inspect_folder
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.pruning.results import UnitRow
from tests.engine.apart import Apart
from tests.engine.crossing import crossed
from tests.engine.exporters.test_per_layer import prune
from tests.engine.pruning.test_structured import edit, removal, save
from tests.engine.reloading import reload_with_code
from tests.engine.sweeping import tensors_of
from tests.engine.tiny import architecture_of, make_model, make_tokens
from tests.families import LANGUAGE_MODELS

CPU = torch.device("cpu")
CHANNELS = {"attention": "none"}


def outputs(folder: Path, linear: str, tokens: Tensor) -> Tensor:
    """Return what a linear layer of block 0 gives for the tokens, [tokens, features]."""
    opened = open_model(folder, own_artifact=True)
    model = load_model(opened, CPU)
    seen: list[Tensor] = []
    layer = model.get_submodule(f"{opened.family.blocks}.0.{linear}")
    layer.register_forward_hook(lambda module, arguments, output: seen.append(output))
    with torch.inference_mode():
        model(input_ids=tokens)
    return seen[0].flatten(0, -2)


@crossed("name, layout", LANGUAGE_MODELS, ["uniform", "per_layer"], in_every_run=["llama", "gpt2"])
def test_what_is_left_of_every_family_reloads_with_its_biases_or_says_why_it_has_none(
    name: str, layout: str, tmp_path: Path, apart: type[Apart]
) -> None:
    folder = make_model(tmp_path / "model", name)
    parameters: dict[str, Any] = {"round_to": 1}
    artifact, result = prune(folder, tmp_path / "work", "flap", 0.2, parameters, layout=layout)
    dense, cut = inspect_folder(folder), inspect_folder(artifact, own_artifact=True)
    assert dense.parameters - cut.parameters == result.removed > 0
    family, tensors = architecture_of(name), tensors_of(result)
    lost = {row.kind for row in result.layers if isinstance(row, UnitRow) and row.after < row.before}
    for kind, linear, setting in (
        (kind, each.output, each.bias) for kind, each in zip(("heads", "channels"), family.sublayers, strict=True)
    ):
        bias = tensors.get(f"{family.blocks}.0.{linear}.bias")
        if kind in lost:
            assert any(linear in note for note in result.notes) == (bias is None)
            assert bias is not None or setting is None
    apart(reload_with_code, [(artifact, result.verification)]).wait()


@pytest.mark.parametrize(
    ("name", "sublayer", "attention"),
    [("llama", 1, "none"), ("gpt2", 1, "none"), ("llama", 0, "kv_groups"), ("llama", 0, "query_heads")],
)
def test_the_mean_of_a_sublayers_output_stays_where_its_bias_may_take_it(
    name: str, sublayer: int, attention: str, tmp_path: Path
) -> None:
    """Compare in the first block, whose attention reads what the dense model's does."""
    folder, tokens = make_model(tmp_path / "model", name), make_tokens()
    linear = architecture_of(name).sublayers[sublayer].output
    means = [outputs(folder, linear, tokens).mean(0)]
    for bias in (True, False):
        work, parameters = tmp_path / f"{bias}", {"attention": attention, "bias": bias}
        result = removal(folder, work, "flap", 0.3, parameters=parameters)
        means.append(outputs(save(result, folder, work / "artifact"), linear, tokens).mean(0))
    dense, with_bias, without = means
    torch.testing.assert_close(with_bias, dense, atol=2e-5, rtol=1e-4)
    assert float((without - dense).norm()) > 1e-3


def test_channels_that_never_change_go_first_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "opt")
    changes: dict[str, Any] = {}
    for layer in range(3):
        fc1 = f"model.decoder.layers.{layer}.fc1"
        changes |= {
            f"{fc1}.weight": lambda weight: weight[10:18].zero_(),
            f"{fc1}.bias": lambda bias: bias[10:18].fill_(3.0),
        }
    edit(folder, changes)
    description = inspect_folder(folder)
    assert description.structure is not None
    sparsity = 3 * 8 * description.structure.channel_parameters / description.parameters
    artifact = save(removal(folder, tmp_path / "work", "flap", sparsity), folder, tmp_path / "artifact")
    tokens = make_tokens(2, seed=3)
    dense = AutoModelForCausalLM.from_pretrained(folder)(input_ids=tokens).logits
    left = AutoModelForCausalLM.from_pretrained(artifact)(input_ids=tokens).logits
    torch.testing.assert_close(left, dense, atol=2e-5, rtol=1e-4)


def test_a_scale_between_up_and_down_changes_no_choice_unless_the_weights_are_not_asked(tmp_path: Path) -> None:
    """var(c·x)·‖w/c‖² = var(x)·‖w‖²."""
    folder = make_model(tmp_path / "model")
    scale_I = 2.0 ** torch.randint(-3, 4, (48,), generator=torch.Generator().manual_seed(0))
    scaled = make_model(tmp_path / "scaled")
    edit(scaled, {
        f"model.layers.{layer}.mlp.{name}_proj.weight": change
        for layer in range(3)
        for name, change in {
            "up": lambda weight: weight.mul_(scale_I[:, None]), "down": lambda weight: weight.div_(scale_I)
        }.items()
    })  # fmt: skip

    def kept(source: Path, **parameters: str) -> list[Tensor]:
        work = tmp_path / f"{source.name}-{'-'.join(parameters.values())}"
        _, result = prune(source, work, "flap", 0.2, {**CHANNELS, "bias": False, **parameters})
        tensors = tensors_of(result)
        return [tensors[f"model.layers.{layer}.mlp.gate_proj.weight"] for layer in range(3)]

    for metric in ("wifv", "wifn"):
        pairs = zip(kept(folder, metric=metric), kept(scaled, metric=metric), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    pairs = zip(kept(folder, metric="ifv"), kept(scaled, metric="ifv"), strict=True)
    assert not all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs)


def test_layers_compete_where_they_may_differ_and_the_ratio_is_met_within_one_aligned_group(tmp_path: Path) -> None:
    """A layer of few channels that tower above the others has none as far below its mean as other layers have."""
    folder, family = make_model(tmp_path / "model", "gpt2"), architecture_of("gpt2")
    reader = f"{family.blocks}.1.{family.sublayers[1].output}.weight"
    edit(folder, {reader: lambda weight: raise_some(weight, family.transposed)})
    description = inspect_folder(folder)
    structure = description.structure
    assert structure is not None
    _, result = prune(folder, tmp_path / "work", "flap", 0.2, {"round_to": 2})
    rows = [row for row in result.layers if isinstance(row, UnitRow)]
    removed = sum(row.removed_parameters for row in rows)
    assert abs(removed - 0.2 * description.parameters) <= 2 * structure.channel_parameters
    left = [row.after for row in rows if row.kind == "channels"]
    assert left[1] > max(left[0], left[2])


def raise_some(weight: Tensor, transposed: bool) -> None:
    (weight.T if transposed else weight)[:, :4] *= 30


@pytest.mark.parametrize("layout", ["uniform", "per_layer"])
def test_biases_that_were_added_count_against_a_limit(layout: Any, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    dense = inspect_folder(folder)
    for number in (1, 4):
        ratio = number * 0.05
        work = tmp_path / f"{number}"
        result = removal(folder, work, "flap", ratio, layout=layout, at_least=True, parameters={"round_to": 1})
        artifact = inspect_folder(save(result, folder, work / "artifact"), own_artifact=True)
        assert artifact.parameters <= dense.parameters * (1 - ratio)
