"""Weights that are read in place: the file's values, which stay as they are."""

from pathlib import Path

import psutil
import torch

from core.engine.models.folder import open_model
from tests.engine.tiny import make_model


def test_a_tensor_read_in_place_is_the_file_s_and_never_changes_it(tmp_path: Path) -> None:
    folder = open_model(make_model(tmp_path / "model"))
    for name in folder.tensors:
        stored, tensor = folder.read(name), folder.read_in_place(name).tensor
        assert tensor.dtype is stored.dtype and torch.equal(tensor, stored)
        tensor.zero_()
        assert torch.equal(folder.read(name), stored)


def test_pages_that_were_released_are_read_again_on_use(tmp_path: Path) -> None:
    """Embeddings are forgotten once tokens were embedded: nothing reads them until the predictions."""
    folder = open_model(make_model(tmp_path / "model", vocab_size=4096, hidden_size=512))
    name = "model.embed_tokens.weight"
    stored, in_place = folder.read(name), folder.read_in_place(name)
    assert in_place.pages is not None and torch.equal(in_place.tensor, stored)

    def resident() -> int:
        start = in_place.tensor.data_ptr()
        (mapping,) = (each for each in psutil.Process().memory_maps(grouped=False) if _covers(each.addr, start))
        return int(mapping.rss)

    assert resident() >= stored.nbytes
    in_place.release()
    assert resident() == 0
    assert torch.equal(in_place.tensor, stored)


def _covers(span: str, address: int) -> bool:
    first, end = (int(each, 16) for each in span.split("-"))
    return first <= address < end
