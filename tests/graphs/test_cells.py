"""Graphs of every family in ONNX Runtime and OpenVINO: exact in float32, also where layers differ, and decoded.

They are of the night: in every run a job has a graph whose layers differ, mistakes are caught, and graphs chat.
"""

from pathlib import Path

import pytest

from core.engine.models.folder import open_model
from tests.gguf.cells import nightly_but
from tests.gguf.trained import FAMILIES, OTHERS
from tests.graphs.cells import FORMS, WAYS, cut, export


@pytest.mark.parametrize(
    ("family", "way", "form"),
    nightly_but([(family, way, form) for family in (*FAMILIES, *OTHERS) for way in WAYS for form in FORMS], []),
)
def test_a_cell_is_exact_in_its_engine(family: str, way: str, form: str, tmp_path: Path) -> None:
    folder = cut(tmp_path, family, way, form)
    assert open_model(folder, own_artifact=True).description.layers
    exported = {each.type: each for each in export(folder, form).files}
    exact = exported["F32"]
    assert exact.kl is not None and exact.kl < 1e-8 and exact.decoded_kl is not None and exact.decoded_kl < 1e-8
    assert exact.predictions is not None and exact.predictions >= 2000 and exact.perplexity is not None
    for each in exported.values():
        names = [each.file, *each.needs]
        assert all((folder / name).is_file() for name in names) and "tokenizer.json" in names
    assert not list(folder.glob("*.partial"))
    if form == "openvino":
        assert exported["INT8"].bytes < exported["F16"].bytes < exact.bytes
        assert exported["INT8"].kl is not None and exact.kl < exported["INT8"].kl < 1e-2
