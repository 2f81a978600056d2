"""Mixtures as graphs: exact in ONNX Runtime and OpenVINO with fewer experts, and with layers of different widths."""

from pathlib import Path

import pytest
import torch

from core.engine.exporters.implementations import added_exporter
from tests.gguf.cells import nightly_but
from tests.gguf.mixtures import cut_mixture
from tests.gguf.trained import LINES, MIXTURES
from tests.graphs.cells import FORMS

_WAYS = ("uncut", "experts", "per_layer")


@pytest.mark.parametrize(
    ("family", "way", "form"),
    nightly_but([(family, way, form) for family in MIXTURES for way in _WAYS for form in FORMS], []),
)
def test_a_mixture_is_exact_in_its_engine(family: str, way: str, form: str, tmp_path: Path) -> None:
    folder = cut_mixture(tmp_path, family, way, info=FORMS[form])
    (exact,) = (
        added_exporter(form)
        .export(folder, ["F32"], LINES, name="small", device=torch.device("cpu"), threads=1, log=lambda text: None)
        .files
    )
    assert exact.kl is not None and exact.kl < 1e-8 and exact.decoded_kl is not None and exact.decoded_kl < 1e-8
