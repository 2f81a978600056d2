"""Every family, pruned by every method, saved, reloaded in a fresh process, gives the pruned model's logits."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.engine.evaluation.reload_check import reload_check
from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel, call_block
from secateur_wire.errors import ReloadCheckFailed
from tests.engine.apart import Apart
from tests.engine.crossing import crossed
from tests.engine.reloading import reload
from tests.engine.sweeping import save, sweep, tensors_of
from tests.engine.tiny import architecture_of, make_config, make_model, make_tokens
from tests.families import LANGUAGE_MODELS, reloaded


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_setting_gives_an_output_its_bias_where_the_architecture_names_one_and_nowhere_else(name: str) -> None:
    family = architecture_of(name)
    settings = [key for key, value in make_config(name).to_dict().items() if "bias" in key and isinstance(value, bool)]

    def biased(**changes: bool) -> set[str]:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(make_config(name, **changes))
        block = model.get_submodule(f"{family.blocks}.0")
        return {linear for linear in family.linears if block.get_submodule(linear).bias is not None}

    none, every = dict.fromkeys(settings, False), biased(**dict.fromkeys(settings, True))
    for output, setting in ((each.output, each.bias) for each in family.sublayers):
        if setting is None:
            assert (output in biased(**none)) == (output in every)
        else:
            assert output not in biased(**none) and output in biased(**none | {setting: True})


@pytest.mark.parametrize(
    ("hub_style", "name"), [*((False, each) for each in LANGUAGE_MODELS), (True, "llama"), (True, "gpt2")]
)
def test_streamed_logits_equal_from_pretrained(name: str, hub_style: bool, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name, hub_style=hub_style)
    opened = open_model(folder)
    streamed = StreamedModel(opened, dtype=torch.float32, device=torch.device("cpu"))
    tokens = make_tokens(2, 40)
    with torch.inference_mode():
        hidden = streamed.embed(tokens)
        for index, arguments in enumerate(streamed.block_arguments(tokens)):
            block = streamed.fill_block(index, streamed.read_block(index), torch.float32)
            hidden = call_block(block, hidden, arguments)
            streamed.empty_block(index)
        logits = streamed.logits(tokens, hidden, torch.arange(40))
        reference = AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=tokens).logits
    torch.testing.assert_close(logits, reference, atol=1e-5, rtol=1e-5)


@crossed("name, way", LANGUAGE_MODELS, reloaded("weights"))
def test_every_family_and_method_reloads_with_equal_logits(
    name: str, way: tuple[str, str], tmp_path: Path, apart: type[Apart]
) -> None:
    folder = make_model(tmp_path / "model", name, max_shard_size="20KB" if name == "qwen3" else "1GB")
    method, pattern = way
    result = sweep(folder, tmp_path / "work", calibration=make_tokens(), method=method, pattern=pattern, sparsity=0.5)
    tensors = tensors_of(result)
    for row in result.layers:
        weight = tensors[f"{row.name}.weight"]
        assert int((weight == 0).sum()) == row.zeros == weight.numel() // 2, row
    assert len(result.layers) == 3 * len(open_model(folder).family.linears)
    saved = save(result, folder, tmp_path / "artifact", shard_bytes=20_000 if name == "opt" else 10**9)
    apart(reload, saved, result.verification).wait()


Change = Callable[[dict[str, Tensor]], object]
NORM, LINEAR = "model.norm.weight", "model.layers.1.mlp.down_proj.weight"
WRONG: dict[str, tuple[Change, Change, str]] = {
    "a weight": (lambda saved: saved[NORM].mul_(1.01), dict, r"logits\) differ by"),
    "a matrix": (lambda saved: saved[LINEAR][0].add_(1), dict, r"logits\) differ by"),
    "a matrix is missing": (lambda saved: saved.pop(LINEAR), dict, "does not accept the artifact"),
    "a weight that is no number": (lambda saved: saved[NORM][0].fill_(torch.nan), dict, r"logits\) differ by nan"),
    "a tensor is missing": (lambda saved: saved.pop(NORM), dict, "does not accept the artifact"),
    "a tensor too many": (lambda saved: saved.update(more=saved[NORM].clone()), dict, "does not accept the artifact"),
    "a logit": (dict, lambda wanted: wanted["logits"][0, -1, 5].add_(1), r"logits\) differ by"),
    "a logit too large": (
        dict,
        lambda wanted: wanted["logits"][0, -1, 5].fill_(-torch.inf),
        "are infinite or not a number",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pruned model as it is saved, and the file of what it must compute."""
    place = tmp_path_factory.mktemp("whole")
    result = sweep(make_model(place / "model"), place / "work", calibration=None, method="magnitude", sparsity=0.5)
    saved = save(result, place / "model", place / "saved")
    assert reload_check(saved, result.verification, device=torch.device("cpu"))["maximum_difference"] < 1e-5
    return saved, result.verification


OFFLOADED = ("a matrix", "a matrix is missing", "a weight", "a tensor too many")


@pytest.mark.parametrize(
    ("wrong", "offloads"),
    [
        *(pytest.param(each, False, id=each) for each in WRONG),
        *(pytest.param(each, True, id=f"{each}, offloaded") for each in OFFLOADED),
    ],
)
def test_another_model_than_the_one_that_was_measured_fails_the_reload_check(
    wrong: str, offloads: bool, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    change, change_wanted, says = WRONG[wrong]
    saved = shutil.copytree(whole[0], tmp_path / "saved")
    for source, target, edit in (
        (saved / "model.safetensors", saved / "model.safetensors", change),
        (whole[1], tmp_path / "wanted.safetensors", change_wanted),
    ):
        tensors = load_file(source)
        edit(tensors)
        save_file(tensors, target, {"format": "pt"})
    offload = tmp_path / "offload" if offloads else None
    with pytest.raises(ReloadCheckFailed, match=says):
        reload_check(saved, tmp_path / "wanted.safetensors", device=torch.device("cpu"), offload=offload)


def test_files_that_cannot_be_read_as_they_should_be_fail_the_reload_check(
    whole: tuple[Path, Path], tmp_path: Path
) -> None:
    saved = shutil.copytree(whole[0], tmp_path / "saved")
    file = saved / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, LINEAR: tensors[LINEAR][:, 1:].clone()}, file, {"format": "pt"})
    with pytest.raises(ReloadCheckFailed, match=r"mismatched_sizes|Trying to set a tensor of shape"):
        reload_check(saved, whole[1], device=torch.device("cpu"))
    shutil.copy(whole[0] / file.name, file)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 100)
    with pytest.raises(SafetensorError):
        reload_check(saved, whole[1], device=torch.device("cpu"))


def test_dense_perplexity_equals_the_models_own_loss(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "gemma2")
    tokens = make_tokens(5, 32, seed=3)
    result = sweep(
        folder, tmp_path / "work", calibration=None, evaluations={"text": tokens}, method="magnitude", sparsity=0.5
    )
    with torch.inference_mode():
        loss = AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=tokens, labels=tokens).loss
        saved = save(result, folder, tmp_path / "artifact")
        pruned = AutoModelForCausalLM.from_pretrained(saved).eval()(input_ids=tokens, labels=tokens).loss
    assert result.perplexity["text"].dense == pytest.approx(float(loss.exp()), rel=1e-5)
    assert result.perplexity["text"].pruned == pytest.approx(float(pruned.exp()), rel=1e-5)
