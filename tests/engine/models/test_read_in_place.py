"""Weights that are read in place: the file's values, which stay as they are."""

from pathlib import Path

import torch

from core.engine.models.casting import folder_as_stored
from core.engine.models.folder import open_model
from tests.engine.tiny import make_model


def test_a_tensor_read_in_place_is_the_file_s_and_never_changes_it(tmp_path: Path) -> None:
    folder = open_model(make_model(tmp_path / "model"))
    for name in folder.tensors:
        stored, tensor = folder.read(name), folder.read_in_place(name)
        assert tensor.dtype is stored.dtype and torch.equal(tensor, stored)
        tensor.zero_()
        assert torch.equal(folder.read(name), stored)


def test_a_tensor_that_is_computed_is_read_as_ever(tmp_path: Path) -> None:
    folder = folder_as_stored(open_model(make_model(tmp_path / "model")), "bfloat16")
    for name in folder.tensors:
        assert torch.equal(folder.read_in_place(name), folder.read(name))
