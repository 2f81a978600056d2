"""Writer of packed weights: codes and scales of linear layers, packed by the library compressed-tensors."""

import torch
from torch import Tensor

from core.engine.checkpoints.quantisation import packed_config


def packed_tensors(name: str, codes_OI: Tensor, scales_OG: Tensor, bits: int) -> dict[str, Tensor]:
    """Return the tensors that are saved in the place of a weight, by their keys; `name` is the weight's key.

    `codes_OI` are int8; `scales_OG` has a scale for each row in each group of columns, in the dtype of the weight.
    """
    from compressed_tensors.compressors import BaseCompressor  # slow to load, and only these jobs need it
    from compressed_tensors.quantization import QuantizationConfig

    groups = scales_OG.shape[1]
    declared = packed_config(bits, None if groups == 1 else codes_OI.shape[1] // groups, [])
    scheme = QuantizationConfig.model_validate(declared).config_groups["group_0"]
    compressor = BaseCompressor.get_value_from_registry(declared["format"])
    if not codes_OI.is_meta:  # packed where it is saved from, as it takes several times the memory of the codes
        codes_OI, scales_OG = codes_OI.cpu(), scales_OG.cpu()
    # it divides by the scales, so that ones leave the codes as they are
    ones_OG = torch.ones_like(scales_OG, dtype=torch.float32)
    saved = compressor.compress({"weight": codes_OI.float(), "weight_scale": ones_OG}, scheme)
    return {
        f"{name.removesuffix('weight')}{key}": value for key, value in (saved | {"weight_scale": scales_OG}).items()
    }
