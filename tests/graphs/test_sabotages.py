"""Mistakes in a graph, each in each engine: the gate catches them all."""

from pathlib import Path

import pytest

from secateur_wire.errors import ExportMismatch
from tests.gguf.cells import nightly_but
from tests.gguf.trained import save_trained
from tests.graphs.cells import FORMS, export
from tests.graphs.sabotages import ONLY_DECODED, SABOTAGES, done


@pytest.mark.parametrize(
    ("name", "form", "kind"),
    nightly_but(
        [(name, form, kind) for name in SABOTAGES for form, each in FORMS.items() for kind in each.types],
        [("a stale cache", "openvino", "INT8")],
    ),
)
def test_a_mistake_is_caught(name: str, form: str, kind: str, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 500.0}
    folder = save_trained(tmp_path / "model", rope_parameters=rope, tie_word_embeddings=False)
    with done(SABOTAGES[name]), pytest.raises(ExportMismatch, match=r"mean KL divergence") as caught:
        export(folder, form, [kind])
    if name in ONLY_DECODED:
        assert "of decoded tokens" in caught.value.message or "is allowed" in caught.value.message
