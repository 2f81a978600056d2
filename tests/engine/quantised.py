"""Tiny models stored as their makers ship them: FP8 with scales by block, row or tensor."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FP8: dict[str, Any] = {
    "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [16, 16],
    "modules_to_not_convert": ["lm_head"],
}  # fmt: skip


def store_as_fp8(
    folder: Path,
    *,
    block: tuple[int, int] | None = (16, 16),
    scale_dtype: torch.dtype = torch.float32,
    is_quantised: Callable[[str], bool] = lambda name: name.endswith("proj.weight"),
    **declared: Any,
) -> Path:
    """Store weights of a folder as FP8, with a scale for each block or for each tensor, and say so in its config.

    The config's dtype is bfloat16, and so are the weights that are not quantised.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if is_quantised(name):
            tensors[name], scales = quantise(weight, block or (weight.shape[0], weight.shape[1]), scale_dtype)
            tensors[f"{name}_scale_inv"] = scales if block else scales.reshape(())
            tensors[f"{name.removesuffix('weight')}activation_scale"] = torch.tensor(2.0)
        else:
            tensors[name] = weight.to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "dtype": "bfloat16",
        "quantization_config": FP8 | {"weight_block_size": block and list(block)} | declared,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def quantise(weight: Tensor, block: tuple[int, int], scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return FP8 codes of a matrix, and the scale of each block, by which its codes are multiplied."""
    rows, columns = weight.shape
    grid = math.ceil(rows / block[0]), math.ceil(columns / block[1])
    padded = torch.zeros(grid[0] * block[0], grid[1] * block[1])
    padded[:rows, :columns] = weight
    blocks = padded.view(grid[0], block[0], grid[1], block[1])
    scales = (blocks.abs().amax(dim=(1, 3)) / 448).to(scale_dtype)
    codes = (blocks / scales.float()[:, None, :, None]).clamp(-448, 448).view_as(padded)[:rows, :columns]
    return codes.to(torch.float8_e4m3fn).contiguous(), scales
