"""Comparison of weights: equal to the last bit, or zero in the same places."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.engine.checkpoints.weight_comparison import compare_weights


def _write(folder: Path, **tensors: Tensor) -> Path:
    folder.mkdir()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def test_equal_bits_and_equal_masks_are_counted(tmp_path: Path) -> None:
    matrix = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)
    other = matrix + 1
    other[0, 0], other[1, 1] = 0, 0
    first = _write(tmp_path / "first", a=matrix, b=matrix)
    compared = compare_weights(first, _write(tmp_path / "second", a=matrix, b=other))
    assert (compared.tensors, compared.equal_tensors, compared.weights, compared.equal_masks) == (2, 1, 24, 23)
    assert not compared.is_equal and compared.mask_share == 23 / 24
    same = compare_weights(first, _write(tmp_path / "third", a=matrix, b=matrix))
    assert same.is_equal and same.mask_share == 1


def test_the_two_zeros_of_a_float_are_one_in_a_mask_and_two_in_bits(tmp_path: Path) -> None:
    first, second = (_write(tmp_path / str(zero), a=torch.tensor([zero, 1.0])) for zero in (0.0, -0.0))
    compared = compare_weights(first, second)
    assert not compared.is_equal and compared.mask_share == 1


def test_other_shapes_are_no_difference_of_masks(tmp_path: Path) -> None:
    first = _write(tmp_path / "first", a=torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"a is F32 \[2, 2\] in one and F32 \[2, 1\] in the other"):
        compare_weights(first, _write(tmp_path / "second", a=torch.ones(2, 1)))
    with pytest.raises(ValueError, match=r"b is none in one"):
        compare_weights(first, _write(tmp_path / "third", a=torch.ones(2, 2), b=torch.ones(1)))
    with pytest.raises(ValueError, match="has no weights"):
        compare_weights(first, tmp_path)
