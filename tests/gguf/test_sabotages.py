"""Mistakes of the writer are caught in the real llama.cpp, in every family that they apply to."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.models.folder import open_model
from secateur_wire.errors import ExportMismatch
from tests.gguf.cells import cut_trained, nightly_but
from tests.gguf.sabotages import IDS, SABOTAGES, caught
from tests.gguf.trained import MINUTE, STEPS

IN_EVERY_RUN: Sequence[tuple[str, str, str]] = [
    ("row_order", "llama", "uncut"),
    ("no_head_size", "llama", "heads"),
    ("no_ffn", "llama", "per_layer"),
    ("pre_tokenizer", "llama", "uncut"),
    ("swapped", "llama", "uncut"),
]


@pytest.mark.parametrize(
    ("mistake", "family", "way"),
    nightly_but([(name, *cell) for name, each in SABOTAGES.items() for cell in each.cells()], IN_EVERY_RUN),
)
def test_a_mistake_of_the_writer_is_caught_in_llama_cpp(mistake: str, family: str, way: str, tmp_path: Path) -> None:
    sabotage = SABOTAGES[mistake]
    steps = STEPS if (mistake, family, way) in IN_EVERY_RUN else MINUTE
    folder = cut_trained(tmp_path, family, way, training_steps=steps)
    assert caught(sabotage, folder)[0] == sabotage.in_other_ways.get((family, way), sabotage.caught)
    if sabotage.caught == IDS:
        with sabotage.done(), pytest.raises(ExportMismatch, match="the artifact's tokenizer as"):
            GgufFiles().require_possible(open_model(folder, own_artifact=True))
