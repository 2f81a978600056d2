"""Quantised weights: read as transformers dequantises them, pruned and saved as any, and others refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.describe import describe_folder, describe_source
from core.engine.architectures.description import UndiscoveredModel, in_dtype
from core.engine.architectures.folder import stored_tensors
from core.engine.checkpoints.quantisation import Quantisation, join_quantised
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.evaluation.reload_check import reload_check
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.models.tensors import read_tensor
from secateur_wire.errors import CorruptSafetensors, MissingTensors, NotFiniteWeights, UnusableModel
from tests.engine.quantised import FP8, quantise, store_as_fp8
from tests.engine.sweeping import save, sweep
from tests.engine.tiny import make_model, make_tokens

_CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("block", "scale_dtype"),
    [((16, 16), torch.float32), ((16, 8), torch.float8_e8m0fnu), (None, torch.bfloat16)],
    ids=["blocks", "powers of two", "one scale"],
)
def test_fp8_is_read_as_transformers_dequantises_it(
    block: tuple[int, int] | None, scale_dtype: torch.dtype, tmp_path: Path
) -> None:
    dense = open_model(make_model(tmp_path / "dense", "llama-untied")).description
    folder = open_model(
        store_as_fp8(make_model(tmp_path / "model", "llama-untied"), block=block, scale_dtype=scale_dtype)
    )
    assert folder.description == in_dtype(dense, "bfloat16")
    theirs = AutoModelForCausalLM.from_pretrained(folder.path).state_dict()
    ours = load_model(folder, _CPU).state_dict()
    assert set(ours) == set(theirs) == set(folder.tensors)
    for name, weight in theirs.items():
        read = folder.read(name)
        assert read.dtype == ours[name].dtype == torch.bfloat16
        assert torch.equal(read, weight) and torch.equal(ours[name], weight), name


@pytest.mark.parametrize("grid", [(40, 1), (1, 24), (4, 2)], ids=str)
def test_any_grid_that_divides_a_weight_is_read_where_no_block_is_declared(
    grid: tuple[int, int], tmp_path: Path
) -> None:
    codes, scales = quantise(torch.randn(40, 24), (40 // grid[0], 24 // grid[1]), torch.float32)
    save_file({"a": codes, "a_scale_inv": scales}, tmp_path / "a.safetensors")
    entry = join_quantised(read_header(tmp_path / "a.safetensors"), Quantisation("fp8", "BF16"))["a"]
    assert torch.equal(read_tensor(entry), Fp8Dequantize(None)._dequantize_one(codes, scales, torch.bfloat16))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_mxfp4_is_read_as_transformers_dequantises_it(dtype: str, tmp_path: Path) -> None:
    """Every code under every scale whose products the dtype holds, the subnormal too."""
    lowest, highest = {"BF16": (0, 251), "F32": (0, 251), "F16": (97, 139)}[dtype]
    scales = torch.arange(lowest, highest, dtype=torch.uint8).repeat(2, 3, 1)
    blocks = torch.arange(256).repeat(scales.numel() // 16 + 1)[: scales.numel() * 16].view(*scales.shape, 16)
    blocks = (blocks + torch.arange(scales.numel()).view(*scales.shape, 1)).to(torch.uint8)
    save_file({"a_blocks": blocks, "a_scales": scales, "bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    entries = join_quantised(read_header(tmp_path / "a.safetensors"), Quantisation("mxfp4", dtype))
    assert set(entries) == {"a", "bias"}
    named = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
    expected = convert_moe_packed_tensors(blocks, scales, dtype=named)
    assert entries["a"].shape == tuple(expected.shape) and entries["a"].nbytes == expected.nbytes
    assert torch.equal(read_tensor(entries["a"]), expected)


def test_a_model_in_fp8_is_pruned_as_its_dequantised_self(tmp_path: Path) -> None:
    """The head too is FP8, which nothing prunes: it is saved dequantised."""
    model = store_as_fp8(
        make_model(tmp_path / "model", "llama-untied"),
        is_quantised=lambda name: name.endswith(("proj.weight", "lm_head.weight")),
    )
    plain = make_model(tmp_path / "plain", "llama-untied", dtype=torch.bfloat16)
    folder = open_model(model)
    save_file({name: folder.read(name) for name in folder.tensors}, plain / "model.safetensors", {"format": "pt"})
    runs = [
        sweep(
            each, tmp_path / f"work-{each.name}", calibration=make_tokens(), evaluations={"text": make_tokens(seed=9)},
            method="wanda", sparsity=0.3,
        )
        for each in (model, plain)
    ]  # fmt: skip
    saved = [
        save(run, each, tmp_path / f"artifact-{each.name}") for run, each in zip(runs, (model, plain), strict=True)
    ]
    assert runs[0].perplexity == runs[1].perplexity
    ours, theirs = (load_file(each / "model.safetensors") for each in saved)
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "quantization_config" not in json.loads((saved[0] / "config.json").read_text())
    reload_check(saved[0], runs[0].verification, device=_CPU)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        *(
            ({"quant_method": name}, f"'quant_method' '{name}': taken are 'fp8'")
            for name in ("gptq", "compressed-tensors", "fbgemm_fp8", "FP8")
        ),
        ("fp8", "no 'quant_method': taken are"),
        ({"quant_method": ["fp8"]}, "'quant_method' \"['fp8']\": taken are"),
        (FP8 | {"kernel": "org/kernel"}, "quantization_config.kernel', which 'fp8' is not known to have"),
        (FP8 | {"weight_block_size": [0, 128]}, "quantization_config.weight_block_size', and '[0, 128]' is not read"),
        (FP8 | {"weight_block_size": [True, 128.0]}, "weight_block_size'"),
        (FP8 | {"modules_to_not_convert": [{"a": 1}]}, "modules_to_not_convert'"),
        ({"quant_method": "mxfp4", "weight_block_size": None}, "which 'mxfp4' is not known to have"),
    ],
    ids=str,
)  # fmt: skip
def test_another_quantisation_is_refused_by_its_name(declared: object, words: str, tmp_path: Path) -> None:
    folder = store_as_fp8(make_model(tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": declared}))
    with pytest.raises(UnusableModel) as refused:
        describe_folder(folder)
    assert words in refused.value.message


@pytest.mark.parametrize("declared", [{}, {"quantization_config": FP8}], ids=["nothing", "fp8"])
def test_codes_that_the_config_says_nothing_of_are_refused(declared: dict[str, Any], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name].to(torch.float8_e5m2)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | declared))
    with pytest.raises(UnusableModel, match=f"{name}' is stored as F8_E5M2, and config.json"):
        describe_folder(folder)


@pytest.mark.parametrize(
    ("method", "shapes", "words"),
    [
        ("fp8", {"a": ("F8_E4M3", 32, 16)}, "lack a_scale_inv, the scales of a"),
        ("fp8", {"a_scale_inv": ("F32", 2, 1)}, "have the scales a_scale_inv and lack a"),
        ("fp8", {"a": ("BF16", 32, 16), "a_scale_inv": ("F32", 2, 1)}, "codes are F8_E4M3"),
        ("fp8", {"a": ("F8_E4M3", 32, 16), "a_scale_inv": ("U8", 2, 1)}, "scales one of F32"),
        ("fp8", {"a": ("F8_E4M3", 32, 16), "a_scale_inv": ("F32", 1, 2)}, "one scale for each block of 16 by 16"),
        ("fp8", {"a": ("F8_E4M3", 32), "a_scale_inv": ("F32", 2)}, "two or more dimensions"),

        ("mxfp4", {"a_blocks": ("U8", 1, 2, 2, 16)}, "lack a_scales"),
        ("mxfp4", {"a_blocks": ("U8", 1, 2, 2, 16), "a_scales": ("U8", 1, 2, 1)}, "with a scale a group"),

        ("mxfp4", {"a_blocks": ("I8", 1, 2, 2, 16), "a_scales": ("U8", 1, 2, 2)}, "codes must be U8"),
    ],
    ids=str,
)  # fmt: skip
def test_codes_and_scales_that_do_not_fit_are_refused(
    method: str, shapes: dict[str, tuple[Any, ...]], words: str, tmp_path: Path
) -> None:
    dtypes = {"F8_E4M3": torch.float8_e4m3fn, "F32": torch.float32, "BF16": torch.bfloat16, "U8": torch.uint8,
              "I8": torch.int8}  # fmt: skip
    save_file(
        {name: torch.zeros(shape, dtype=dtypes[dtype]) for name, (dtype, *shape) in shapes.items()},
        tmp_path / "a.safetensors",
    )
    entries = read_header(tmp_path / "a.safetensors")
    with pytest.raises((CorruptSafetensors, MissingTensors)) as refused:
        join_quantised(entries, Quantisation("fp8" if method == "fp8" else "mxfp4", "BF16", (16, 16)))
    assert words in refused.value.message


def test_a_scale_that_is_no_number_is_named(tmp_path: Path) -> None:
    save_file(
        {"a": torch.ones(2, 2).to(torch.float8_e4m3fn), "a_scale_inv": torch.tensor(torch.nan)},
        tmp_path / "a.safetensors",
    )
    (entry,) = join_quantised(read_header(tmp_path / "a.safetensors"), Quantisation("fp8", "BF16")).values()
    with pytest.raises(NotFiniteWeights, match="'a' holds 4 values"):
        read_tensor(entry)


def test_a_mixture_in_mxfp4_is_described_by_its_plain_weights_and_read_as_transformers_reads_it(tmp_path: Path) -> None:
    """The experts are quantised and all else is not, as gpt-oss is shipped."""
    model = tiny_model("gpt_oss", 0).bfloat16()
    model.save_pretrained(tmp_path)
    plain = load_file(tmp_path / "model.safetensors")
    stored: dict[str, torch.Tensor] = {}
    for name, weight in plain.items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, inputs, outputs = weight.shape
            stored[f"{name}_blocks"] = torch.randint(256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
            stored[f"{name}_scales"] = torch.randint(118, 124, (experts, outputs, inputs // 32), dtype=torch.uint8)
        else:
            stored[name] = weight
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    declared = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": declared}))
    source = describe_source(tmp_path)
    assert isinstance(source, UndiscoveredModel)
    assert source.tensors == {name: ("BF16", tuple(weight.shape)) for name, weight in plain.items()}
    assert source.parameters == model.num_parameters() and source.bytes == 2 * source.parameters
    assert source.config == config
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    entries = stored_tensors(tmp_path, Quantisation("mxfp4", "BF16"))
    assert set(theirs) == set(entries) and all(torch.equal(read_tensor(entries[name]), theirs[name]) for name in theirs)


def test_a_tensor_read_in_place_is_the_file_s_and_never_changes_it(tmp_path: Path) -> None:
    folder = open_model(make_model(tmp_path / "model"))
    for name in folder.tensors:
        stored, tensor = folder.read(name), folder.read_in_place(name).tensor
        assert tensor.dtype is stored.dtype and torch.equal(tensor, stored)
        tensor.zero_()
        assert torch.equal(folder.read(name), stored)
