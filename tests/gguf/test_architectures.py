"""A file of every architecture that is taken comes out as the model it was written from."""

from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter

from core.engine.exporters.probe_lines import varied_lines
from core.engine.models.folder import open_model
from core.engine.models.gguf_header import ARCHITECTURES, read_gguf_sandboxed
from core.engine.models.loading import load_model
from core.pipeline.stages.import_gguf.spec import ImportGgufSpec
from core.pipeline.stages.run import run_stage
from core.progress import Progress
from secateur_wire.errors import UnusableModel
from tests.gguf.architectures import write_architecture
from tests.gguf.files import Merges, finish, train_byte_level


@pytest.fixture(scope="module")
def vocabulary() -> tuple[list[str], Merges]:
    return train_byte_level(varied_lines(100), 300)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mistral"])
def test_an_imported_model_computes_what_its_source_does(
    architecture: str, vocabulary: tuple[list[str], Merges], tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    model = write_architecture(file, architecture, *vocabulary)
    run_stage(ImportGgufSpec(source=file, target=tmp_path / "model"), Progress(), lambda: 0)
    imported = load_model(open_model(tmp_path / "model"), torch.device("cpu"), dtype=torch.float32)
    ids = torch.arange(64).reshape(2, 32)
    with torch.no_grad():
        torch.testing.assert_close(imported(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("said", ["by a key", "by a tensor"])
def test_a_model_whose_rotary_embeddings_are_scaled_is_refused(said: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_string("llama.rope.scaling.type", "linear" if said == "by a key" else "none")
    name = "rope_freqs.weight" if said == "by a tensor" else "token_embd.weight"
    writer.add_tensor(name, torch.ones(4).numpy())
    finish(writer, file, {})
    with pytest.raises(UnusableModel, match="scales its rotary embeddings"):
        read_gguf_sandboxed(file)
